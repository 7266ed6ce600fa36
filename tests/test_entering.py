"""The whole road of an entry with the shipped settings: ladder, arms, twins, fail-safe, gates; and that money adds up whatever happens."""
import msgspec
import numpy as np
import pytest
from builders import book, scored, shipped
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from street import Silent

from benchmarks._walk import WHAT, Broken, Step, Walk, steps
from benchmarks.walk import SWITCHES, mind
from benchmarks.walk import main as walks
from engine import reasons
from engine.desk import ACTIVE, HALTED, REDUCING, Desk
from engine.facts import (
    ACCEPTED,
    CANCELLED,
    CRIT,
    DONE,
    ENTRY,
    HEALTH,
    KILL,
    MODE_SWITCH,
    RELEASE,
    SETTINGS,
    TARGET,
    Cancel,
    Control,
    Dropped,
    Fill,
    Order,
    Outcome,
    Report,
    Tick,
    account_of,
    releasing,
)
from engine.rewards.attribution import Attributed, Missed
from engine.settings import Wired
from engine.telemetry import Telemetry
from store.exporter import Exporter

T = 1_700_000_000_000
WARM = 20_000


def desk(real: bool = False, **env: str) -> Desk:
    """A desk with everything switched on, warm."""
    s = shipped(**{"POLICY_COOLDOWN_SYMBOL": "0", "POLICY_COOLDOWN_GLOBAL": "0", "SLUICE_BANDIT": "false", **env})
    if real:
        but = msgspec.structs.replace
        s = but(s, venue=but(s.venue, mode="real"), rollout=but(s.rollout, mode="full"))
    d = Desk(s)
    for at in range(0, WARM, 1000):
        d.on(book(60_000, 60_000.1, T - WARM + at))
    d.on(book(60_000, 60_000.1, T))
    return d


def orders(outs) -> list[Order]:
    return [o for o in outs if isinstance(o, Order)]


def done(d: Desk, order: Order, price: float = 0.0, at: int = T + 100) -> list:
    """The venue takes and fills it."""
    out = d.on(Report(order.id, order.symbol, ACCEPTED, "", 0.0, 1, at))
    out += d.on(Fill(f"{order.id}:1", order.id, order.symbol, order.side, price or order.price, order.qty, 0.01, True, 2, at))
    return out + d.on(Report(order.id, order.symbol, DONE, "", order.qty, 3, at))


def test_the_price_of_the_collateral_is_the_last_one_of_its_symbol_while_it_is_young():
    d = desk(SLUICE_COLLATERAL_SYMBOL="ETHUSDT", SOL_PRICE_HINT="0.5")
    seen = []
    for price, age_ms in ((2.0, 0), (0.0, 0), (2.0, 300_001)):
        if price:
            tick = d.instruments["ETHUSDT"].tick
            d.on(book(price - tick, price + tick, T - age_ms, symbol="ETHUSDT", tick=tick))
        d.entering.sizings.clear()
        d.on(scored(T))
        [(_, sized)] = d.entering.drained()
        seen.append((sized.source, dict(sized.caps)["usd_cap"]))
        d = desk(SLUICE_COLLATERAL_SYMBOL="ETHUSDT", SOL_PRICE_HINT="0.5")
    assert seen == [("db", 500.0), ("hint", 2000.0), ("hint", 2000.0)]


def test_an_entry_is_spread_over_levels_that_together_are_no_more_than_its_size_and_end_in_one_outcome_and_one_reward():
    d = desk()
    levels = orders(d.on(scored(T)))
    assert len(levels) == 4 and {o.entry_id for o in levels} == {levels[0].id}
    assert [o.id.removeprefix(levels[0].id) for o in levels] == ["", ".1", ".2", ".3"]
    assert [round((60_000 - o.price) / 0.1) for o in levels] == [0, 2, 4, 6]
    decision = levels[0].decision
    assert decision.qty == pytest.approx(sum(o.qty for o in levels)) and decision.sized.qty >= decision.qty
    assert [o.decision for o in levels[1:]] == [None] * 3
    assert (d.portfolio.total_positions, len(d.portfolio.positions_by_symbol["BTCUSDT"])) == (1, 1), "the levels of one count once"
    said = []
    targets = [orders(done(d, level)) for level in levels[:2]]
    assert [[t.cause for t in some] for some in targets] == [[TARGET]] * 2 and all(t.reduce_only for [t] in targets)
    for level in levels[2:]:
        said += d.on(Report(level.id, level.symbol, CANCELLED, "requested", 0.0, 9, T + 200))
    for [target] in targets:
        assert not [o for o in said if isinstance(o, Outcome)]
        said += done(d, target, at=T + 300)
    [outcome] = [o for o in said if isinstance(o, Outcome)]
    [reward] = [o for o in said if isinstance(o, Attributed)]
    assert outcome.id == reward.order_id == levels[0].id and outcome.qty == pytest.approx(levels[0].qty + levels[1].qty)
    assert reward.filled and reward.arm == decision.choice.arm
    assert d.portfolio.realized_usd == pytest.approx(outcome.net_usd) and not d.portfolio.plans and not d.portfolio.entries


def test_every_real_order_has_a_paper_twin_that_lives_its_own_life_and_is_counted_in_nothing():
    d = desk(real=True)
    levels = orders(d.on(scored(T)))
    real, twins = [o for o in levels if not account_of(o.id)], [o for o in levels if account_of(o.id)]
    assert [(o.price, o.qty, o.side) for o in real] == [(o.price, o.qty, o.side) for o in twins] and {o.route for o in real} == {"full"}
    assert {o.route for o in twins} == {"twin"} and d.portfolio.total_positions == 1
    losses, rewards = [], []
    for twin in twins:
        [target] = orders(done(d, twin))
        assert target.id.startswith("Y1-")
        losses += done(d, target, price=50_000.0, at=T + 200)
    [outcome] = [o for o in losses if isinstance(o, Outcome)]
    rewards += [o for o in losses if isinstance(o, (Attributed, Missed))]
    assert (outcome.route, rewards, d.portfolio.realized_usd, d.state.watch.day_usd, d.state.watch.losses) == ("twin", [], 0.0, 0.0, 0)
    assert not d.portfolio.positions and len(d.portfolio.entries) == len(real)


def test_twins_that_stand_against_each_other_still_find_out():
    d = desk(real=True)
    [bought, *_] = [o for o in orders(d.on(scored(T))) if account_of(o.id)]
    [up] = orders(done(d, bought))
    for o in [o for o in list(d.portfolio.orders.values()) + list(d.state.twins.orders.values()) if o.id not in (bought.id, up.id)]:
        d.on(Report(o.id, "BTCUSDT", CANCELLED, "requested", 0.0, 5, T + 200))
    assert not d.portfolio.entries and len(d.state.twins.entries) == 1, "the real entry is over, its twin is held"
    [sold, *_] = [o for o in orders(d.on(scored(T + 300, side="SELL", entry=60_000.1))) if account_of(o.id)]
    [down] = orders(done(d, sold, at=T + 400))
    for target in (up, down):
        assert not target.reduce_only, "the account nets the two: only the desk knows that each of them is held"
        done(d, target, at=T + 500)
    assert not [e for e in d.state.twins.entries.values() if e.held]


def test_a_crit_takes_real_entries_back_goes_on_on_paper_and_returns_after_the_cool_down_and_changes_nothing_while_halted():
    d = desk(real=True)
    levels = orders(d.on(scored(T)))
    cancels = d.on(Control("c1", CRIT, "alert", "WinRateDrop: 0.41", 0, T + 10))
    assert {c.order_id for c in cancels} == {o.id for o in levels if not account_of(o.id)}
    for order_id in (c.order_id for c in cancels):
        d.on(Report(order_id, "BTCUSDT", CANCELLED, "requested", 0.0, 5, T + 60))
    paper = orders(d.on(scored(T + 500, p=0.95)))
    assert paper and {(o.route, account_of(o.id)) for o in paper} == {("paper", "twin")}
    assert paper[0].decision is not None and d.state.twins.total_positions == 2
    later = T + 10 + 15 * 60_000
    for at in range(0, WARM, 1000):
        d.on(book(61_000, 61_000.1, later - WARM + at))
    d.on(book(61_000, 61_000.1, later))
    again = orders(d.on(scored(later, entry=61_000.0)))
    assert {o.route for o in again if not account_of(o.id)} == {"full"}
    d.on(Control("k", KILL, "ann", "drill", 0, later))
    assert d.on(Control("c2", CRIT, "alert", "again", 0, later)) == [] and d.state.safe.base == ""


def test_the_desk_is_reducing_while_it_holds_something_under_a_kill_and_halted_when_it_is_flat():
    d = desk()
    assert d.trading == ACTIVE
    levels = orders(d.on(scored(T)))
    d.on(Control("k", KILL, "ann", "drill", 0, T + 1))
    assert d.trading == REDUCING
    for level in levels:
        d.on(Report(level.id, level.symbol, CANCELLED, "requested", 0.0, 1, T + 60))
    assert d.trading == HALTED
    d.on(Control("r", RELEASE, "ann", "over", 0, T + 70, releasing(["k"])))
    assert d.trading == ACTIVE


def no(d: Desk, at: int, **more) -> Dropped:
    """The refusal of a score at that time."""
    [out] = [o for o in d.on(scored(at, **more)) if isinstance(o, Dropped)]
    assert out.numbers
    return out


def test_the_gates_in_front_refuse_with_their_numbers():
    cold = Desk(shipped())
    cold.on(book(60_000, 60_000.1, T))
    assert no(cold, T).reason == reasons.WARM_UP
    d = desk()
    d.on(Control("h1", HEALTH, "risk", "depth", 0, T, {"lag": "9000", "in_flight": "1001"}))
    assert (no(d, T + 1).reason, no(d, T + 2).numbers) == (reasons.BACKPRESSURE, "queue=10001 > 10000")
    d.on(Control("h2", HEALTH, "risk", "depth", 0, T, {"lag": "10000", "in_flight": "0"}))
    assert orders(d.on(scored(T + 3)))


def test_a_losing_streak_stops_entries_and_time_lets_them_go_on():
    d, at = desk(SLUICE_DAILY_LOSS_CAP_USD="0"), T
    for _ in range(5):
        levels = orders(d.on(scored(at)))
        for level in levels:
            for target in orders(done(d, level, at=at + 10)):
                done(d, target, price=59_000.0, at=at + 20)
        at += 1000
        d.on(book(60_000, 60_000.1, at))
    block = no(d, at)
    assert block.reason == reasons.STREAK_HALT and "losses=5" in block.numbers
    at += 15 * 60_000
    for warm in range(0, WARM, 1000):
        d.on(book(60_000, 60_000.1, at + warm))
    assert orders(d.on(scored(at + WARM - 1000)))


def test_a_daily_loss_stops_entries_until_midnight_utc():
    d = desk(SLUICE_DAILY_LOSS_CAP_USD="50", SLUICE_LOSS_STREAK_MAX="0")
    for level in orders(d.on(scored(T))):
        for target in orders(done(d, level)):
            done(d, target, price=58_000.0, at=T + 200)
    block = no(d, T + 300)
    assert block.reason == reasons.DAILY_CAP and block.numbers.startswith("day=-")


def lost(d: Desk, at: int, symbol: str = "BTCUSDT") -> list[Order]:
    """An entry whose every level is bought and sold a tenth lower; its orders."""
    d.on(book(60_000, 60_000.1, at, symbol=symbol))
    levels = orders(d.on(scored(at)))
    for level in levels:
        for target in orders(done(d, level, at=at)):
            done(d, target, price=54_000.0, at=at)
    return levels


def test_what_the_paper_account_earns_or_loses_in_a_fail_safe_moves_no_guard_and_no_budget_of_the_real_one():
    d = desk(real=True, SLUICE_LOSS_STREAK_MAX="1", SLUICE_DAILY_LOSS_CAP_USD="1")
    d.on(Control("c1", CRIT, "t", "slow venue", 0, T))
    paper = lost(d, T)
    assert {(o.route, account_of(o.id)) for o in paper} == {("paper", "twin")} and d.state.twins.realized_usd < -100
    assert (d.state.watch.day_usd, d.state.watch.losses, d.state.watch.triggers, d.state.spent.usd) == (0.0, 0, {}, 0.0)
    assert d.state.paper_spent.usd > 0
    back = T + 20 * 60_000
    for ago in range(20_000, -1, -1_000):
        d.on(book(60_000, 60_000.1, back - ago))
    real = orders(d.on(scored(back)))
    assert {o.route for o in real} == {"full", "twin"}, "back at the real venue, and nothing halts it"


def test_the_day_knows_the_loss_of_a_level_while_the_others_of_its_entry_are_open():
    d = desk(SLUICE_DAILY_LOSS_CAP_USD="50", SLUICE_LOSS_STREAK_MAX="0")
    first, second, *_ = orders(d.on(scored(T)))
    done(d, second)
    for target in orders(done(d, first)):
        done(d, target, price=54_000.0)
    assert d.portfolio.entries and d.state.watch.day_usd < -50
    assert no(d, T + 300).reason == reasons.DAILY_CAP


def test_a_person_changes_the_mode_and_going_to_paper_takes_real_entries_back():
    d = desk(real=True)
    real = [o for o in orders(d.on(scored(T))) if not account_of(o.id)]
    asked = d.on(Control("m1", MODE_SWITCH, "ann", "holiday", 0, T + 1, {"mode": "paper"}))
    assert {c.order_id for c in asked} == {o.id for o in real} and d.state.mode == "paper"
    for o in real:
        d.on(Report(o.id, o.symbol, CANCELLED, "requested", 0.0, 5, T + 2))
    for o in list(d.state.twins.orders.values()):
        d.on(Report(o.id, "BTCUSDT", CANCELLED, "requested", 0.0, 5, T + 2))
    assert {o.route for o in orders(d.on(scored(T + 3)))} == {"paper"}
    d.on(Control("m2", MODE_SWITCH, "ann", "back", 0, T + 4, {"mode": "full"}))
    d.on(Control("m3", MODE_SWITCH, "ann", "?", 0, T + 5, {"mode": "sideways"}))
    assert d.state.mode == "full" and d.state.safe.switches == {("full", "paper", "ordered"): 1, ("paper", "full", "ordered"): 1}


def test_in_a_fail_safe_an_ordered_mode_is_the_one_to_return_to():
    d = desk(real=True)
    d.on(Control("c1", CRIT, "t", "slow", 0, T))
    d.on(Control("m1", MODE_SWITCH, "ann", "stay", 0, T + 1, {"mode": "paper"}))
    d.on(Tick(T + 3_600_000))
    assert not d.state.safe.base and d.state.mode == "paper"


def test_settings_of_a_later_start_are_in_force_from_their_fact_on_wherever_the_journal_is_run_again():
    other = desk().mind
    other = msgspec.structs.replace(other, policy=msgspec.structs.replace(other.policy, min_confidence=0.99))
    d = desk()
    facts = [scored(T), Control("s1", SETTINGS, "risk", "a start", 0, T + 1, {"mind": msgspec.json.encode(Wired.of(other)).decode()}),
             scored(T + 2, p=0.9)]
    said = [d.on(fact) for fact in facts]
    [low] = said[2]
    assert low.reason == reasons.BLOCK_LOW_CONFIDENCE
    stranger = Desk(msgspec.structs.replace(other, sizing=msgspec.structs.replace(other.sizing, leverage=3.0)))
    before = desk()
    before.on(Control("s0", SETTINGS, "risk", "the first", 0, T, {"mind": msgspec.json.encode(Wired.of(before.mind)).decode()}))
    stranger.restore(before.snapshot())     # of another configuration, as after a restart that changed it
    assert [stranger.on(fact) for fact in facts] == said and stranger.mind.sizing.leverage == 10
    d.on(Control("s2", SETTINGS, "risk", "of another version", 0, T + 3, {"mind": "{}"}))
    assert d.limits.min_confidence == 0.99, "what cannot be read changes nothing"


def test_a_thin_book_bounds_the_size_and_the_decision_says_which_cap_it_was():
    d, thin = desk(), scored(T)
    thin = msgspec.structs.replace(thin, signal=msgspec.structs.replace(thin.signal, bid_depth=400, ask_depth=400))
    first, *_ = orders(d.on(thin))
    sized = first.decision.sized
    assert first.decision.cap == sized.cap == "lp_impact" and sized.qty * 60_000 <= 0.25 * 400 * 0.001 * 60_000 + 1e-6
    assert dict(sized.caps)["lp_impact"] == pytest.approx(0.25 * 400 * 0.001 * 60_000 / 10)


def test_a_running_desk_says_what_it_decided_and_committed_in_the_documents_lines():
    d, lines = desk(), []
    telemetry = Telemetry(Silent(), lines.append)
    for fact in (scored(T), scored(T + 1), scored(T + 2)):
        telemetry.on(d, [fact], d.on(fact))
    assert lines == [
        "✅ ENTRY_POLICY_DECISION | BTCUSDT | decision=ALLOW_NEW_ENTRY | confidence=0.85, exposure_after=$955, positions_after=1",
        "💰 CAPITAL_ALLOCATION | BTCUSDT | allocated=$954 (cap=$1000, avail=$5000) | qty=0.159 @ $60000 | lev=10x",
        "✅ Policy approved: ALLOW_NEW_ENTRY | qty=0.159 | confidence=0.85, exposure_after=$955, positions_after=1",
        "🚫 ENTRY_POLICY_DECISION | BTCUSDT | decision=BLOCK_SCALE_IN_RULE | new_confidence=0.85 <= existing=0.85 + delta=0.05",
        "🚫 Entry blocked: BLOCK_SCALE_IN_RULE | new_confidence=0.85 <= existing=0.85 + delta=0.05",
    ], "a run of the same refusal is one line"


METER = Exporter(sorted(shipped().symbols), arms=shipped().bandit.arms)     # refuses a label that was not declared
STEPS = st.lists(st.builds(Step, st.sampled_from(list(WHAT)), st.floats(0, 1), st.integers(0, 60)), max_size=120)


@given(STEPS, st.sampled_from(SWITCHES), st.booleans(), st.booleans())
@hypothesis_settings(max_examples=120, deadline=None)
def test_whatever_happens_no_cap_is_breached_positions_are_the_sum_of_fills_money_adds_up_and_everything_open_has_its_way_out(
        steps, switches, real, bandit):
    walk = Walk(mind(0, switches, bandit, real), telemetry=Telemetry(METER))
    for step in steps:
        walk.step(step)
    walk.rest()


def test_a_walk_of_some_thousand_steps_meets_what_it_is_for(capsys):
    assert walks(["--steps", "5000", "--seed", "3"]) == 0
    said = capsys.readouterr().out
    assert "all holds" in said
    assert {word for word in ("lp_impact", "mint", "BLOCK_SCALE_IN_RULE", "backpressure", "deaths") if word not in said} == set()


class Doubled:
    """A sizer that forgets its caps."""

    def __init__(self, sizer):
        self.sizer = sizer

    def size(self, wish, instrument):
        got = self.sizer.size(wish, instrument)
        return msgspec.structs.replace(got, qty=2 * got.qty)


def sabotaged(walk: Walk, how: str) -> None:
    """Breaks the desk, or the way out of what it holds."""
    if how == "size":
        walk.desk.entering.sizer = Doubled(walk.desk.entering.sizer)
    elif how == "money":
        walk.desk.portfolio.realized_usd += 0.01
    elif how == "position":
        walk.desk.portfolio.positions["BTCUSDT"] = walk.desk.portfolio.positions.get("BTCUSDT", 0.0) + 0.001
    elif how == "exit":
        del walk.live[next(id for id, at in walk.live.items() if at.order.cause != ENTRY)]
    elif how == "kill":
        walk.desk.entering.known = lambda scored, state: None
        walk.step(Step("kill", 0.0, 0))


@pytest.mark.parametrize("how, words", [("size", "no more than its size|is breached|limit"), ("money", "money adds up"),
                                        ("position", "sum of the fills"), ("exit", "something is at work"), ("kill", "under a kill")])
def test_a_desk_that_is_broken_on_purpose_is_found_out(how, words):
    walk, some = Walk(mind(0, "110", False, False), twice=False), steps(6_000, np.random.default_rng(5))
    for step in some:
        walk.step(step)
        if walk.seen["fills"] > 20 and any(at.order.cause != ENTRY for at in walk.live.values()):
            break
    sabotaged(walk, how)
    with pytest.raises(Broken, match=words):
        for step in some:
            if step.what not in ("release", "kill", "crit", "death"):
                walk.step(step)


def test_what_is_left_at_work_is_taken_back_or_closed_by_time_alone():
    d = desk()
    levels = orders(d.on(scored(T)))
    [target] = orders(done(d, levels[0]))
    asked = {o.order_id for ms in range(1000, 60_000, 1000) for o in d.on(Tick(T + ms)) if isinstance(o, Cancel)}
    assert asked == {target.id, *(o.id for o in levels[1:])}
