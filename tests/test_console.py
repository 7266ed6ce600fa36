"""The console on a ledger that a real desk has written: ladders, sizes, refusals, twins apart; and the kill switch that halts it."""
import asyncio
import html
import re
import time

import msgspec
import pandas as pd
import pytest
from desks import SYMBOL, T, Written, levelled
from services import Services, at, until
from test_dashboard import page, place, url  # noqa: F401
from test_dashboard import text as raw

from dashboard import data, decided, gates, ladders
from engine import reasons
from engine.facts import HEALTH, KILL, Control, account_of
from engine.fillprob.gate import Gating
from engine.guards import liquidation_price
from engine.sizing.caps import NAMES
from store import bus, controls, figures_desk, killing
from store import words as word
from store.mirror import Mirror
from streams.topics import CONTROL_EVENTS, MD_FRAMES, named


@pytest.fixture
def desk(place, monkeypatch):  # noqa: F811
    """A desk of the configuration that the console reads, with a ledger where it looks."""
    for name, value in {"POLICY_COOLDOWN_SYMBOL": "0", "POLICY_COOLDOWN_GLOBAL": "0", "SLUICE_WARMUP_SECONDS": "0",
                        "KAFKA_BOOTSTRAP_SERVERS": "127.0.0.1:1"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(bus, "PATIENCE_MS", 300)
    monkeypatch.setattr("store.mirror.PATIENCE_S", 60.0)      # a machine with other work on it is no fault of what is tested
    made = Written(url(place), data.settings())
    yield made
    made.ledger.close()


def text(at) -> str:
    """All that a person reads on it."""
    return html.unescape(raw(at))


def look(w: Written):
    return Mirror(data.reader(w.url), w.settings).look(0)


def all_of(at) -> str:
    """All that a person reads, messages and labels too."""
    said = [e.value for kind in (at.error, at.warning, at.success) for e in kind]
    return " ".join([text(at), *said])


# ladders

def test_a_live_entry_is_shown_with_its_levels_its_way_out_and_its_margin(desk):
    desk.market()
    first, *others = desk.enter()
    desk.filled(first, round(first.qty / 2, 3))
    desk.projected()
    at = page("positions")
    said = text(at)
    entry = desk.desk.portfolio.entries[first.id]
    assert "ACTIVE: entries may be sent." in said and "1 of the desk, 0 on the paper account" in said
    for level, order in enumerate((first, *others)):
        assert re.search(rf"{level + 1} {order.price:,.10g}(\.0)? \+{2 * level} {order.qty:.10g} ", said), order
    assert f"{entry.bought:.10g} 0 " in said and f"{entry.stop:,.1f} {entry.target:,.1f}" in said
    assert f"{liquidation_price('BUY', entry.average, entry.leverage, desk.settings.symbols[SYMBOL].maintenance_margin_rate):,.1f}" in said
    assert f"{desk.desk.portfolio.total_exposure_usdt:,.2f}" in said
    probabilities = [p for _, _, _, p in first.decision.rungs]
    assert (all(f"{p:.0%}" in said for p in probabilities) and "no book beside it" in said) or "reading the book" in said


def test_levels_that_have_ended_stay_in_the_ladder_and_exits_are_named(desk):
    desk.market()
    first, second, *_ = desk.enter()
    desk.filled(first)
    [exit_] = [o for o in desk.desk.portfolio.orders.values() if o.id.startswith("X")]
    desk.seq += 2
    desk.projected()
    [live] = ladders.live(look(desk), desk.settings, decided.rungs(tuple(desk.desk.portfolio.plans)))
    rows = live.levels.set_index("id")
    assert rows.loc[first.id, "state"] == "open" and rows.loc[first.id, "order"] == f"sell {exit_.qty:.10g} at {exit_.price:.10g}: sent"
    assert rows.loc[second.id, "state"] == "entering" and rows.loc[second.id, "filled"] == 0
    assert live.filled_yet and live.deadline_ms == desk.desk.portfolio.entries[first.id].deadline_ms
    assert live.margin_usd == pytest.approx(desk.desk.portfolio.total_exposure_usdt)
    desk.filled(decided.order(exit_.id))
    [live] = ladders.live(look(desk), desk.settings, decided.rungs(tuple(desk.desk.portfolio.plans)))
    assert live.levels.set_index("id").loc[first.id, "state"] == "closed" and len(live.levels) == len(first.decision.rungs)


def test_the_figure_of_a_ladder_draws_every_level_the_touch_and_the_book():
    levels = pd.DataFrame([[0, "E-1", 100.0, 0, 2.0, 1.0, 0.0, 0.6, "entering", "", 1.0],
                           [1, "E-1.1", 99.8, 2, 2.0, 0.0, 0.0, 0.4, "closed", "", 1.0]], columns=ladders.LEVELS)
    touches = pd.DataFrame({"ts_ms": [T, T + 1000], "bid": [100.0, 100.1], "ask": [100.2, 100.3]})
    book = pd.DataFrame({"price": [100.1, 100.3], "qty": [5.0, 7.0], "side": ["BUY", "SELL"]})
    figure = figures_desk.ladder(levels, "BUY", touches, {"stop": 99.5, "target": 100.5, "average": 5.0}, T, T + 2000, book)
    assert {t.y[0] for t in figure.data if t.type == "scatter" and t.mode == "lines+text"} == {100.0, 99.8}
    assert [list(t.x) for t in figure.data if t.type == "bar"] == [[5.0], [7.0], [1.0, 2.0], [1.0, 0.0]]
    assert {a.text for a in figure.layout.annotations} == {"stop", "target"}, "what is far away is not drawn"


# twins

def test_no_sum_of_the_desk_counts_a_paper_twin_and_twins_are_said_to_be_so(desk):
    real = Written.__new__(Written)
    desk.ledger.close()
    real.__init__(desk.url, levelled(real=True))
    real.market()
    outcomes = real.round_trip()
    mine, twins = ([o for o in outcomes if bool(account_of(o.id)) is t] for t in (False, True))
    assert len(mine) == 1 and len(twins) == 1 and twins[0].route == "twin"
    real.ledger.close()
    real.projected()
    sums = data.outcome_sums()
    assert (sums["n"], sums["net_usd"]) == (1, pytest.approx(mine[0].net_usd)) and len(data.outcomes()) == 1
    assert data.apart_sums()["net_usd"].tolist() == [pytest.approx(twins[0].net_usd)]
    fills = data.fill_counts()
    assert int(fills["n"].sum()) == len(data.fills()) == len([f for f in data.fills()["order_id"] if not account_of(f)])
    assert not [o for o in data.orders()["id"] if account_of(o)]
    said = text(page())
    assert f"{data.settings().desk.equity_usd + mine[0].net_usd:,.2f}" in said and "1 trades closed" in said
    assert "paper twins of real entries: 1 closed" in said
    positions = text(page("positions"))
    assert "Paper twins" in positions and f"{SYMBOL} twin" in positions and "twin of the real one" in positions


# sizes

def test_a_size_is_explained_from_what_was_allotted_to_what_was_sent(desk):
    desk.market()
    first, *_ = desk.enter()
    desk.projected()
    d, said = first.decision, text(page("sizing"))
    assert f"▶ {d.cap.replace('_', ' ')}" in said
    for cap in d.sized.caps:
        assert cap.name.replace("_", " ") in said and (f"{cap.usd:,.2f}" in said if cap.usd < float("inf") else True)
    assert f"{d.qty:g} at" in said and f"{d.margin_usd:,.2f} USD margin" in said and d.choice.arm in said and "hint: 1 USD a USDT" in said
    steps = figures_desk.steps(d)
    assert steps[0] == ("allotted", d.sized.wanted_usd) and sum(usd for _, usd in steps) == pytest.approx(d.margin_usd)


def test_the_cap_that_bounds_is_counted_and_all_eleven_stand_in_the_table(desk):
    from dashboard.questions import sizing
    desk.market()
    first, *_ = desk.enter()
    desk.projected()
    rows = sizing.caps_table(first.decision)
    assert list(rows["name"]) == list(NAMES) and rows.loc[rows["binds"], "name"].tolist() == [first.decision.cap]
    assert decided.sizes(60_000)["cap"].tolist() == [first.decision.cap]


# refusals

def test_refusals_are_counted_by_minute_and_reason_and_each_code_is_explained(desk):
    desk.market()
    for _ in range(5):
        desk.market(later_ms=20_000)
        desk.signal(p=0.2)
    desk.control(Control("kill-1-ann", KILL, "ann", "feed looks wrong", 0, desk.now))
    desk.market()
    desk.signal(p=0.9)
    desk.projected()
    rows = decided.refusals(3_600_000, decided.MINUTE_MS)
    assert rows.groupby("code")["n"].sum().to_dict() == {reasons.BLOCK_LOW_CONFIDENCE: 5, reasons.HALTED: 1}
    assert rows["at_ms"].nunique() == 2 and (rows["at_ms"] % 60_000 == 0).all()
    hours = decided.refusals(86_400_000, decided.HOUR_MS, (), (reasons.HALTED,))
    assert hours["n"].tolist() == [1] and (hours["at_ms"] % 3_600_000 == 0).all()
    figure = figures_desk.refusals_over_time(rows, decided.MINUTE_MS)
    assert sum(sum(bar.y) for bar in figure.data) == 6 and {bar.name for bar in figure.data} == {"low confidence", "halted"}
    at = page("decisions")
    assert "a kill is in force" in text(at) and "policy.min_confidence" in text(at)
    at.multiselect(key="why_code").select(reasons.HALTED).run()
    assert "policy.min_confidence" not in text(at) and at.dataframe[0].value["numbers"].tolist() == ["killed by ann: feed looks wrong"]


# what stands between a signal and an order

def test_every_gate_says_whether_it_is_open_with_its_numbers(desk):
    s, but = desk.settings, msgspec.structs.replace
    desk.market()
    assert {g.state for g in gates.gates(look(desk), s)} == {gates.OPEN}
    desk.tell(Control("h", HEALTH, "risk", "depth", 0, desk.now, {"lag": "20000", "in_flight": "1"}))
    desk.desk.state.watch.on_outcome(-501.0, desk.now, s.risk)
    desk.desk.state.watch.streak_until_ms = desk.now + 60_000
    desk.desk.state.watch.rough = {SYMBOL: 99.0}
    desk.desk.state.warmth.ages[SYMBOL].since_ms = desk.now
    desk.desk.state.safe.on_crit("WinRateDrop", desk.now, "full", False, s.fail_safe)
    desk.host.snapshot(desk.ledger.head()[0])
    cold = but(s, warmup=but(s.warmup, enabled=True, seconds=15.0))
    said = {g.name: g for g in gates.gates(look(desk), cold, waiting=1)}
    for name, state, words in (("kill", gates.SHUT, "1 not yet taken"), ("backpressure", gates.SHUT, "20,001 of 10,000 records"),
                               ("daily loss", gates.SHUT, "−501.00 of −500.00 USD, until 00:00:00"), ("loss streak", gates.SHUT, "in 60 s"),
                               ("volatility", gates.NARROW, "99.0"), ("warm-up", gates.SHUT, "0 of 15 s"),
                               ("fail-safe", gates.NARROW, "after WinRateDrop, until ")):
        assert said[name].state == state and words in said[name].words, said[name]
    assert said["exposure"].state == gates.OPEN and said["fill probability"].words == "no model judges"
    seen = look(desk)
    seen.state.gating = Gating(but(s.fill_prob, enforce=True), "{}", 2600)
    assert gates.fill_probability(seen).words.startswith("every symbol is judged: threshold 2,600 bps")
    seen.state.gate.breaker.tripped = True
    assert "its breaker lets everything pass" in gates.fill_probability(seen).words


def test_the_state_of_the_desk_stands_on_its_pages(desk):
    desk.market()
    desk.enter()
    desk.control(Control("kill-1-ann", KILL, "ann", "feed looks wrong", 0, desk.now))
    desk.projected()
    for name in ("", "positions", "control"):
        said = text(page(name))
        assert "REDUCING: nothing is opened; what is held is being closed." in said and "killed by ann: feed looks wrong" in said, name
    assert "the risk service is down" in text(page("control"))


# the switch

def pressed(which: str, **typed: str):
    """The page after its form was filled in and sent."""
    at = page("control")
    for key, words in typed.items():
        (at.multiselect if key.endswith("kills") else at.text_input)(key=key).set_value([words] if key.endswith("kills") else words)
    at.button(key=which).click().run(timeout=60)
    assert not at.exception, at.exception
    return at


@pytest.mark.parametrize("typed, words", [
    ({"kill_reason": "feed", "kill_typed": "kill"}, "Type KILL to confirm"), ({"kill_reason": " ", "kill_typed": KILL}, "Why is empty"),
    ({"kill_reason": "feed", "kill_actor": "", "kill_typed": KILL}, "Who is empty")])
def test_nothing_is_halted_without_actor_reason_and_the_typed_word(desk, typed, words):
    assert words in all_of(pressed("kill_go", **typed))
    assert not controls.folder(desk.settings).exists()


def test_a_kill_that_nobody_can_hear_is_said_to_be_so(desk, monkeypatch):
    monkeypatch.setattr(word, "leave", lambda *_: (_ for _ in ()).throw(PermissionError(13, "Permission denied", "data/controls")))
    said = all_of(pressed("kill_go", kill_reason="feed", kill_typed=KILL))
    assert "nobody will hear it" in said and "127.0.0.1:1" in said


def test_the_switch_halts_a_desk_though_the_broker_is_dead_and_the_desk_hangs(desk):
    desk.market()
    desk.enter()
    said = all_of(pressed("kill_go", kill_reason="feed looks wrong", kill_actor="ann", kill_typed=KILL))
    assert "127.0.0.1:1" in said and "NOT yet taken by the desk" in said and "1 not yet taken by the desk" in said
    [(path, word)] = controls.left(desk.settings)
    assert (word.kind, word.actor, word.reason) == (KILL, "ann", "feed looks wrong") and str(path.name) in said
    consumed, outs = desk.host.order(word)       # the desk wakes up, and takes what lies there first
    desk.host.commit(consumed, desk.host.produce(consumed, outs, 0.0), {})
    controls.taken(path)
    assert desk.desk.trading == "REDUCING" and {o.reason for o in outs} == {"halt"}
    assert killing.heard(desk.settings, word).taken
    for _ in range(20):      # a look serves everybody for half a second
        if "REDUCING" in (after := text(page("control"))):
            break
        time.sleep(0.1)
    assert "REDUCING" in after and "killed by ann: feed looks wrong" in after and "in the desk's ledger" in after


@pytest.mark.broker
def test_the_switch_halts_a_desk_at_work_and_the_release_names_what_it_ends(on_kafka, place, monkeypatch):  # noqa: F811
    settings = at(on_kafka, symbols=[SYMBOL])
    for name, value in {"SLUICE_DATA": settings.folder("data"), "SLUICE_INSTANCE": settings.instance,
                        "SLUICE_LEDGER_URL": settings.ledger.url, "KAFKA_BOOTSTRAP_SERVERS": settings.kafka.bootstrap}.items():
        monkeypatch.setenv(name, str(value))

    async def story() -> None:
        async with Services(settings) as services:
            await services.start("risk")
            state = services.workers["risk"].stage.host.desk.state
            await asyncio.to_thread(pressed, "kill_go", kill_reason="feed looks wrong", kill_actor="ann", kill_typed=KILL)
            await until(lambda: state.kills)
            [(name, why)] = state.kills.items()
            assert why == "killed by ann: feed looks wrong"
            await until(lambda: not list(controls.folder(settings).glob("*.json")))
            said = text(await asyncio.to_thread(page, "control"))
            assert "HALTED: nothing is held and nothing is opened." in said and name in said
            wrong = await asyncio.to_thread(pressed, "release_go", release_reason="back", release_typed="RELEASE")
            assert "Name the KILLs that end" in all_of(wrong) and state.kills
            done = await asyncio.to_thread(pressed, "release_go", release_kills=name, release_reason="back", release_typed="RELEASE")
            await until(lambda: not state.kills)
            assert "nothing halts it" in all_of(await asyncio.to_thread(done.run))
            assert "ACTIVE" in text(await asyncio.to_thread(page, "control"))

    asyncio.run(story())


def test_the_topics_that_the_console_knows_are_those_of_the_services(desk):
    from dashboard.books import Books
    for env in ({}, {"SLUICE_INSTANCE": "b", "SLUICE_FEED": "a"}):
        s = levelled(**env)
        assert killing.topic(s) == named(CONTROL_EVENTS, s) and Books(s).topic == named(MD_FRAMES, s)
