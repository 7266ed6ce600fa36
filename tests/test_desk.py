"""The Desk by its facts: how an entry is made, how it ends, and what is refused."""

from itertools import pairwise

import msgspec
import pytest
from builders import book, desk, scored, settings
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from engine import reasons
from engine.facts import (
    ACCEPTED,
    CANCELLED,
    DONE,
    ENTRY,
    KILL,
    MARKET,
    REJECTED,
    RELEASE,
    SELL,
    TARGET,
    UNKNOWN,
    WRITE_OFF,
    Cancel,
    Control,
    Dropped,
    Fill,
    Order,
    Outcome,
    Report,
    ScoredBatch,
    Tick,
    releasing,
)
from engine.policy import Intent, decide
from engine.portfolio import build_portfolio_state

T = 1_700_000_000_000
SHIPPED = settings()
HOLDING_MS, TTL_MS = SHIPPED.desk.max_holding_ms, SHIPPED.desk.entry_ttl_ms


def report(order: Order, status: str, filled: float = 0.0, ts_ms: int = T + 50, reason: str = "") -> Report:
    return Report(order.id, order.symbol, status, reason, filled, 0, ts_ms)


def fill(order: Order, qty: float, price: float = 0.0, ts_ms: int = T + 100, k: int = 1, maker: bool = True, seq: int = 0) -> Fill:
    return Fill(f"{order.id}:{k}", order.id, order.symbol, order.side, price or order.price, qty, 0.5, maker, seq, ts_ms)


def entered(d):
    """A desk with one resting entry; its order."""
    d.on(book(60_000, 60_000.1, T))
    [order] = d.on(scored(T))
    assert isinstance(order, Order)
    d.on(report(order, ACCEPTED))
    return order


def opened(d):
    """A desk with one filled entry; (entry order, target order)."""
    order = entered(d)
    assert d.on(fill(order, order.qty)) == []
    [target] = d.on(report(order, DONE, order.qty, T + 100))
    d.on(report(target, ACCEPTED, ts_ms=T + 150))
    return order, target


SCORES = st.lists(st.tuples(st.integers(-9_000, 9_000), st.sampled_from([0.7, 1.0, float("nan"), float("inf"), -0.1]) | st.floats(0, 1.2)))


@given(SCORES, st.booleans(), st.booleans(), st.booleans())
@hypothesis_settings(deadline=None)
def test_scores_told_together_are_answered_as_each_alone_would_be(told, known, halted, holds):
    one, other = desk(SHIPPED), desk(SHIPPED)
    facts = [book(60_000, 60_000.1, T)] if known else []
    facts += [scored(T, side=SELL, symbol="ETHUSDT")] if holds else []
    facts += [Control("c", KILL, "tester", "drill", 1, T)] if halted else []
    for fact in facts:
        assert msgspec.msgpack.encode(one.on(fact)) == msgspec.msgpack.encode(other.on(fact))
    items = [scored(T + at_ms, p) for at_ms, p in told]
    together = other.on(ScoredBatch("BTCUSDT", "t1", 0, len(items), T, 0.0, items))
    alone = [out for item in items for out in one.on(item)]
    assert msgspec.msgpack.encode(together) == msgspec.msgpack.encode(alone)
    assert one.snapshot() == other.snapshot()


def test_a_good_signal_becomes_a_post_only_order_at_its_entry_with_the_decision_inside():
    d = desk()
    order = entered(d)
    assert (order.cause, order.side, order.price, order.post_only, order.reduce_only) == (ENTRY, "BUY", 60_000.0, True, False)
    assert order.decision.decision == reasons.ALLOW_NEW_ENTRY
    assert order.decision.scored.signal.id in order.id
    assert order.qty * order.price / order.decision.leverage == pytest.approx(order.decision.margin_usd)
    assert order.decision.margin_usd <= 1000


def test_a_refusal_is_a_value_with_code_and_numbers():
    d = desk()
    d.on(book(60_000, 60_000.1, T))
    [no] = d.on(scored(T, p=0.65))
    assert isinstance(no, Dropped)
    assert (no.reason, no.numbers) == (reasons.BLOCK_LOW_CONFIDENCE, "confidence=0.65 < 0.70")


@pytest.mark.parametrize(
    "change, reason",
    [
        (lambda d: d.on(Control("k", KILL, "ann", "drill", 1, T)), reasons.HALTED),
        (lambda d: d.on(book(60_000, 60_000.1, T + TTL_MS)), reasons.STALE_SIGNAL),
        (lambda d: d.state.touches.clear(), reasons.NO_MARKET),
    ],
)
def test_guards_stand_before_the_policy(change, reason):
    d = desk()
    d.on(book(60_000, 60_000.1, T))
    change(d)
    [no] = d.on(scored(T))
    assert no.reason == reason


def test_a_probability_that_is_no_number_is_refused():
    d = desk()
    d.on(book(60_000, 60_000.1, T))
    assert d.on(scored(T, p=float("nan")))[0].reason == reasons.INVALID_INPUT


def test_a_size_below_the_exchange_minimum_is_dropped_and_not_lifted():
    d = desk(SLUICE_EQUITY_USD="201")  # a fifth of it is 40 USD of margin: 400 USD, less than a lot of a coin at 500,000
    d.on(book(500_000, 500_000.1, T))
    [no] = d.on(scored(T, entry=500_000.0))
    assert no.reason == reasons.QTY_ZERO


def cooling(d, at: int) -> str:
    """What a cooldown says to a score at this time; empty where none holds it off."""
    d.on(book(60_000, 60_000.1, at))
    [out] = d.on(scored(at, p=0.99))
    return out.numbers if isinstance(out, Dropped) and out.reason == reasons.BLOCK_COOLDOWN else ""


def test_the_cooldown_runs_from_the_venues_acceptance():
    d = desk(POLICY_COOLDOWN_SYMBOL="100", POLICY_COOLDOWN_GLOBAL="0")
    d.on(book(60_000, 60_000.1, T))
    [order] = d.on(scored(T))
    d.on(report(order, ACCEPTED, ts_ms=T + 5_000))
    d.on(report(order, CANCELLED, ts_ms=T + 6_000))
    assert cooling(d, T + 15_000) == "symbol_cooldown=90s remaining"
    assert cooling(d, T + 104_999) and not cooling(d, T + 105_000)


def test_an_entry_that_the_venue_has_not_answered_holds_others_off_as_an_accepted_one_does():
    d = desk(POLICY_COOLDOWN_SYMBOL="100", POLICY_COOLDOWN_GLOBAL="30")
    d.on(book(60_000, 60_000.1, T))
    [order] = d.on(scored(T))
    assert cooling(d, T + 1) == "global_cooldown=30s remaining" and cooling(d, T + 30_000) == "symbol_cooldown=70s remaining"
    d.on(report(order, UNKNOWN, ts_ms=T + 30_001))
    assert cooling(d, T + 30_001), "nobody knows whether it trades"


@pytest.mark.parametrize("status", [REJECTED, CANCELLED])
def test_an_entry_that_the_venue_never_took_gives_the_cooldown_back(status):
    d = desk(POLICY_COOLDOWN_SYMBOL="100", POLICY_COOLDOWN_GLOBAL="30")
    d.on(book(60_000, 60_000.1, T))
    [order] = d.on(scored(T))
    assert cooling(d, T + 10)
    d.on(report(order, status, 0.0, T + 20))
    assert not cooling(d, T + 30)


def test_an_entry_that_was_done_before_anybody_said_that_it_was_taken_has_traded():
    d = desk(POLICY_COOLDOWN_SYMBOL="100", POLICY_COOLDOWN_GLOBAL="0")
    d.on(book(60_000, 60_000.1, T))
    [order] = d.on(scored(T))
    d.on(fill(order, order.qty))
    d.on(report(order, DONE, order.qty, T + 2_000))
    assert cooling(d, T + 12_000) == "symbol_cooldown=90s remaining"


def test_a_filled_entry_rests_its_target_as_a_reduce_only_maker_order():
    d = desk()
    order, target = opened(d)
    assert (target.cause, target.side, target.price, target.qty) == (TARGET, "SELL", 60_020.0, order.qty)
    assert target.reduce_only
    assert target.post_only


def test_the_target_that_fills_closes_the_entry_with_its_result():
    d = desk()
    order, target = opened(d)
    d.on(fill(target, target.qty, ts_ms=T + 500))
    [outcome] = d.on(report(target, DONE, target.qty, T + 500))
    assert isinstance(outcome, Outcome)
    assert outcome.cause == "target"
    assert outcome.gross_usd == pytest.approx(20 * order.qty)
    assert outcome.net_usd == pytest.approx(20 * order.qty - 1.0)
    assert not d.portfolio.entries
    assert d.portfolio.positions["BTCUSDT"] == 0


@pytest.mark.parametrize("touch, ts_ms, cause", [((59_930, 59_930.1), T + 200, "stop"), ((60_010, 60_010.1), T + 100 + HOLDING_MS, "time")])
def test_stop_and_time_take_the_target_back_first_and_then_close_at_the_touch(touch, ts_ms, cause):
    d = desk()
    order, target = opened(d)
    [cancel] = d.on(book(*touch, ts_ms))
    assert isinstance(cancel, Cancel)
    assert cancel.order_id == target.id
    assert d.on(book(*touch, ts_ms + 10)) == [], "asked once"
    [close] = d.on(report(target, CANCELLED, 0.0, ts_ms + 50, "requested"))
    assert (close.kind, close.reduce_only, close.qty, close.cause) == (MARKET, True, order.qty, cause)
    d.on(fill(close, close.qty, touch[0], ts_ms + 100, maker=False))
    [outcome] = d.on(report(close, DONE, close.qty, ts_ms + 100))
    assert outcome.cause == cause


def test_a_target_that_fills_while_it_is_taken_back_is_not_closed_twice():
    d = desk()
    _, target = opened(d)
    d.on(book(59_930, 59_930.1, T + 200))
    d.on(fill(target, target.qty, ts_ms=T + 210))
    [outcome] = d.on(report(target, DONE, target.qty, T + 210))
    assert isinstance(outcome, Outcome)
    assert d.portfolio.positions["BTCUSDT"] == 0


def test_a_score_below_tau_hold_on_the_same_side_closes():
    d = desk()
    _, target = opened(d)
    outs = d.on(scored(T + 300, p=0.40))
    assert [type(o) for o in outs] == [Cancel, Dropped]
    assert outs[0].order_id == target.id


def test_an_entry_that_nobody_fills_is_taken_back_after_its_time_and_leaves_no_trace():
    d = desk()
    order = entered(d)
    [cancel] = d.on(book(60_000, 60_000.1, T + TTL_MS))
    assert cancel.order_id == order.id
    assert d.on(report(order, CANCELLED, 0.0, T + TTL_MS + 50)) == []
    assert not d.portfolio.entries
    assert d.portfolio.total_exposure_usdt == 0


def test_a_partly_filled_entry_works_its_exit_for_what_it_has():
    d = desk()
    order = entered(d)
    d.on(fill(order, 0.004))
    d.on(book(60_000, 60_000.1, T + TTL_MS))
    [target] = d.on(report(order, CANCELLED, 0.004, T + TTL_MS + 50))
    assert (target.qty, target.cause) == (0.004, TARGET)


def test_a_report_that_speaks_of_fills_not_yet_here_waits_for_them():
    d = desk()
    order = entered(d)
    assert d.on(report(order, DONE, order.qty)) == []
    [target] = d.on(fill(order, order.qty))
    assert target.cause == TARGET


def test_the_same_fill_or_report_twice_changes_nothing():
    d = desk()
    order, target = opened(d)
    before = d.portfolio.positions["BTCUSDT"]
    assert d.on(fill(order, order.qty)) == []
    assert d.on(report(order, DONE, order.qty)) == []
    assert d.on(report(target, ACCEPTED)) == []
    assert d.portfolio.positions["BTCUSDT"] == before
    assert d.portfolio.duplicates == 3


def test_a_repeated_request_that_the_venue_refuses_does_not_end_the_first():
    d = desk()
    order = entered(d)
    assert d.on(report(order, REJECTED, 0.0, reason=reasons.DUPLICATE_ORDER)) == []
    assert order.id in d.portfolio.entries


def test_an_execution_of_an_order_that_is_not_ours_is_an_orphan():
    d = desk()
    d.on(Fill("f", "stranger", "BTCUSDT", "BUY", 1.0, 1.0, 0.0, True, 1, T))
    assert d.portfolio.orphans == 1
    assert not d.portfolio.positions


def test_a_kill_takes_entries_back_lets_exits_go_on_and_holds_until_it_is_released_by_its_id():
    d = desk()
    order = entered(d)
    [cancel] = d.on(Control("k1", KILL, "ann", "drill", 1, T + 60))
    assert cancel.order_id == order.id
    assert d.on(scored(T + 400_000))[0].reason == reasons.HALTED
    d.on(report(order, CANCELLED, 0.0, T + 110, "requested"))
    d.on(Control("k2", KILL, "risk", "not as the venue says", 1, T + 120))
    d.on(book(60_000, 60_000.1, T + 400_000))
    for at, of in enumerate(("", "k3", "k1", "k1")):      # nobody's, another's, ann's own, and again
        d.on(Control(f"r{at}", RELEASE, "ann", "over", 1, T + 400_000, releasing([of])))
        assert d.on(scored(T + 400_001))[0].numbers.startswith("killed by"), of
    assert d.state.halted == "killed by risk: not as the venue says"
    d.on(Control("r9", RELEASE, "bob", "looked at both", 1, T + 400_000, releasing(["k1", "k2"])))
    assert isinstance(d.on(scored(T + 400_001))[0], Order)


def test_time_that_passes_without_a_market_still_ends_a_holding():
    d = desk()
    _, target = opened(d)
    [cancel] = d.on(Tick(T + 100 + HOLDING_MS))
    assert cancel.order_id == target.id


def test_the_same_candidate_is_never_sent_twice():
    d = desk(POLICY_COOLDOWN_SYMBOL="0", POLICY_COOLDOWN_GLOBAL="0", POLICY_SCALE_IN_CONF_DELTA="0")
    d.on(book(60_000, 60_000.1, T))
    one = scored(T, p=0.9)
    d.on(one)
    again = d.on(msgspec.structs.replace(one, p=0.95))[0]
    assert again.reason == reasons.DUPLICATE


def test_the_portfolio_state_is_a_copy_by_which_the_policy_decides_the_same():
    d = desk(POLICY_COOLDOWN_SYMBOL="0", POLICY_COOLDOWN_GLOBAL="0")
    order = entered(d)
    state = build_portfolio_state(d.portfolio)
    assert state.exposure_by_symbol == {"BTCUSDT": pytest.approx(order.decision.margin_usd)}
    assert (state.total_positions, state.positions_by_regime) == (1, {"normal": 1})
    wish = Intent("BTCUSDT", "BUY", 0.95, 60_000.0, T / 1000 + 60, 0.0, "normal", 10.0)
    assert decide(wish, state, d.limits) == decide(wish, d.portfolio, d.limits)
    d.on(report(order, CANCELLED, 0.0, T + 70))
    assert state.total_positions == 1


actions = st.lists(
    st.tuples(
        st.sampled_from(["market", "score", "accept", "fill", "cancel", "reject", "done", "kill", "release", "tick"]),
        st.floats(0, 1),
        st.integers(0, 3),
    ),
    max_size=120,
)


@given(actions)
@hypothesis_settings(max_examples=150, deadline=None)
def test_whatever_happens_the_position_is_the_sum_of_its_fills_exposure_stays_bounded_and_a_twin_agrees(steps):
    """A venue that answers as it likes, within what a venue may say: fills never beyond the order, one terminal report."""
    env = {"POLICY_COOLDOWN_SYMBOL": "1", "POLICY_COOLDOWN_GLOBAL": "0"}
    d, twin = desk(**env), desk(**env)
    live: dict[str, list] = {}  # order id -> [order, filled]
    position, now, n = 0.0, T, 0

    def feed(fact):
        answers = d.on(fact)
        assert msgspec.msgpack.encode(answers) == msgspec.msgpack.encode(twin.on(fact))
        for o in answers:
            if isinstance(o, Order):
                assert o.id not in live, "an id is used once"
                live[o.id] = [o, 0.0]

    for what, u, k in steps:
        now += 1 + int(u * 3000)
        n += 1
        open_ids = sorted(live)
        order, filled = live[open_ids[k % len(open_ids)]] if open_ids else (None, 0.0)
        if what == "market":
            feed(book(round(60_000 + (u - 0.5) * 200, 1), round(60_000.1 + (u - 0.5) * 200, 1), now))
        elif what == "score":
            feed(scored(now, p=0.5 + u / 2, side="BUY" if k % 2 else "SELL"))
        elif what == "tick":
            feed(Tick(now))
        elif what in ("kill", "release"):
            standing = list(d.state.kills)[: 1 + k % 3] if what == "release" else []
            feed(Control(f"c{n}", KILL if what == "kill" else RELEASE, "t", "t", 0, now, releasing(standing)))
        elif order is None:
            continue
        elif what == "accept":
            feed(report(order, ACCEPTED, filled, now))
        elif what == "fill":
            qty = min(round(order.qty - filled, 12), max(0.001, round(order.qty * u, 3)))
            if qty > 0:
                live[order.id][1] = round(filled + qty, 12)
                position += qty if order.side == "BUY" else -qty
                feed(fill(order, qty, order.price or 60_000.0, now, n))
        else:
            status = {"cancel": CANCELLED, "reject": REJECTED, "done": DONE}[what]
            if (status == DONE) == (filled >= order.qty - 1e-12) and not (status == REJECTED and filled):
                del live[order.id]
                feed(report(order, status, filled, now))
        assert d.portfolio.positions.get("BTCUSDT", 0.0) == pytest.approx(position, abs=1e-9)
        assert position == pytest.approx(sum(e.sign * e.held for e in d.portfolio.entries.values()), abs=1e-9)
        assert d.portfolio.total_exposure_usdt <= d.limits.max_total_exposure_usdt + 1e-6
        assert d.portfolio.exposure_by_symbol.get("BTCUSDT", 0.0) <= d.limits.max_exposure_per_symbol_usdt * 1.01
        closing = [o for o, _ in live.values() if o.reduce_only]
        for entry in d.portfolio.entries.values():
            assert sum(o.qty - live[o.id][1] for o in closing if o.entry_id == entry.id) <= entry.held + 1e-9, (
                "never more closing than held"
            )
    assert d.portfolio.orphans == 0


@pytest.mark.parametrize("side, bid, ask", [("BUY", 0, 60_000.1), ("SELL", 60_000, 0)])
def test_an_empty_side_of_the_book_is_no_price_at_which_a_stop_is_reached(side, bid, ask):
    d = desk()
    d.on(book(60_000, 60_000.1, T))
    [order] = d.on(scored(T, side=side))
    d.on(report(order, ACCEPTED))
    d.on(fill(order, order.qty))
    [target] = d.on(report(order, DONE, order.qty))
    d.on(report(target, ACCEPTED))
    assert d.on(book(bid, ask, T + 300)) == []
    [cancel] = d.on(book(59_000, 59_000.1, T + 400) if side == "BUY" else book(61_000, 61_000.1, T + 400))
    assert isinstance(cancel, Cancel)


def again(d, orders):
    """What a restored desk meets: the venue's word on orders that it has not sent yet, for a life that is lost had sent them."""
    for order in orders:
        done = msgspec.structs.replace(report(order, DONE, order.qty), seq=8)
        assert d.on(fill(order, order.qty, order.price or 60_000.0, seq=7)) == d.on(done) == []


@pytest.mark.parametrize("which", ["entry", "exit"])
def test_what_the_venue_did_for_a_lost_life_is_the_desks_again_when_it_sends_the_same_order(which):
    first = desk()
    order, target = opened(first)
    [cancel] = first.on(book(59_900, 59_900.1, T + 300))
    [close] = first.on(report(target, CANCELLED, 0.0, T + 400))
    assert cancel.order_id == target.id
    d = desk()
    if which == "entry":
        again(d, [order])
        d.on(book(60_000, 60_000.1, T))
        assert d.portfolio.orphans == 2
        sent, resting = d.on(scored(T))
        assert (sent.id, sent.qty, resting.cause, d.portfolio.positions["BTCUSDT"], d.portfolio.orphans) == (
            order.id, order.qty, TARGET, order.qty, 0)
        d.on(report(sent, REJECTED, order.qty, reason=reasons.DUPLICATE_ORDER))
        assert d.portfolio.positions["BTCUSDT"] == order.qty and d.portfolio.duplicates == 1
        return
    opened(d)
    again(d, [close])
    d.on(book(59_900, 59_900.1, T + 300))
    sent, outcome = d.on(report(target, CANCELLED, 0.0, T + 400))
    assert (sent, outcome.qty, d.portfolio.positions["BTCUSDT"]) == (close, order.qty, 0.0) and not d.portfolio.entries


def test_only_a_halted_desk_writes_off_an_entry_and_then_nothing_is_sent():
    d = desk()
    order, _ = opened(d)
    word = Control("w1", WRITE_OFF, "ann", "the venue does not hold it", 0, T, {"entry": order.id, "price": "59990"})
    assert d.on(word) == [] and d.portfolio.entries, "not without a kill"
    d.on(Control("k1", KILL, "ann", "position differs", 0, T))
    bad: list[dict[str, str]] = [{}, {"entry": "E-x", "price": "1"}, *({"entry": order.id, "price": p} for p in ("nan", "-1", "0", "x"))]
    for at, details in enumerate(bad):
        assert d.on(Control(f"bad{at}", WRITE_OFF, "ann", "?", 0, T, details)) == []
    off, outcome = d.on(msgspec.structs.replace(word, id="w2"))
    assert (off.entry, off.qty, off.control) == (order.id, order.qty, "w2")
    assert (outcome.cause, outcome.exit_price, outcome.qty) == ("written_off", 59_990.0, order.qty)
    assert outcome.gross_usd == pytest.approx(order.qty * (59_990 - order.price))
    assert not d.portfolio.entries and not d.portfolio.orders and d.portfolio.positions["BTCUSDT"] == 0
    assert d.portfolio.realized_usd == pytest.approx(outcome.net_usd)
    assert d.portfolio.holdings["BTCUSDT"].realized_usd == pytest.approx(outcome.net_usd)


def test_a_cancel_without_an_answer_is_asked_again_ever_more_rarely():
    d = desk()
    order = entered(d)
    asked = [at for at in range(0, 200_000, 100) for out in d.on(book(60_000, 60_000.1, T + at)) if isinstance(out, Cancel)]
    gaps = [b - a for a, b in pairwise(asked)]
    assert gaps == [3_000, 6_000, 12_000, 24_000, 48_000, 48_000] and asked[0] == TTL_MS and order
