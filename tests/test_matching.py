"""The local exchange: price, time, place in the queue, and an account of every order."""
import itertools
import time
from collections import defaultdict

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine import reasons
from engine.execution.matching import ABOUT_REQUEST, Matching
from engine.facts import ACCEPTED, BOOK, CANCELLED, DEPTH, DONE, REJECTED, TRADE, Cancel, Fill, Frame, Order, Report, cut, frame_of, join
from engine.settings import Instrument
from engine.settings import Matching as Rules

BTC = Instrument(0.1, 0.001, 0.001, 0.0, 0.0001, 0.0004, 0.004)
RULES = Rules(latency_ms=10, queue_ahead=1.0, through_fills=True)
END = 2**60


def book(ts: int, bids: dict[int, int], asks: dict[int, int]):
    row = np.zeros((4, DEPTH), np.int32)
    for i, (px, qty) in enumerate(sorted(bids.items(), reverse=True)):
        row[0, i], row[1, i] = px, qty
    for i, (px, qty) in enumerate(sorted(asks.items())):
        row[2, i], row[3, i] = px, qty
    return ts, BOOK, row


def trade(ts: int, px: int, qty: int, aggressor: int):
    return ts, TRADE, np.array([px, qty, aggressor], np.int32)


def market(*events, seq: int = 0) -> Frame:
    books = [e[2] for e in events if e[1] == BOOK]
    trades = [e[2] for e in events if e[1] == TRADE]
    return frame_of("BTCUSDT", "s1", seq, 0.1, 0.001, [e[0] for e in events], [e[1] for e in events],
                    np.array(books).reshape(-1, 4, DEPTH), np.array(trades).reshape(-1, 3))


def order(oid: str, side: str, qty: int, px: int = 0, at: int = 0, post_only: bool = False, reduce_only: bool = False) -> Order:
    return Order(oid, "entry", oid, "BTCUSDT", side, round(qty * 0.001, 3), round(px * 0.1, 1), "limit" if px else "market", post_only,
                 reduce_only, "sim", 1, at)


def venue(rules: Rules = RULES, instrument: Instrument = BTC) -> Matching:
    return Matching("BTCUSDT", instrument, rules, "s1")


def run(v: Matching, *frames: Frame, end: bool = True) -> list[Report | Fill]:
    out: list[Report | Fill] = []
    for frame in frames:
        at = 0
        while at < frame.n:
            at, happened = v.advance(frame, at, END)
            out += happened
    while end:
        _, happened = v.advance(None, 0, END)
        if not happened:
            break
        out += happened
    return out


def fills(out) -> list[Fill]:
    return [x for x in out if isinstance(x, Fill)]


def said(out) -> list[tuple[str, str, str]]:
    return [(x.order_id, x.status, x.reason) for x in out if isinstance(x, Report)]


CALM = {99: 50, 98: 70}, {101: 40, 102: 60}


def test_a_resting_order_is_filled_only_after_the_queue_before_it_has_traded():
    v = venue()
    v.place(order("a", "BUY", 5, 99))
    out = run(v, market(book(1, *CALM), trade(20, 99, 30, -1), trade(21, 99, 19, -1), trade(22, 99, 4, -1), trade(23, 99, 9, -1)))
    assert [(f.ts_ms, round(f.qty * 1000), f.maker) for f in fills(out)] == [(22, 3, True), (23, 2, True)]
    assert said(out) == [("a", ACCEPTED, ""), ("a", DONE, "")]


def test_size_that_leaves_moves_the_queue_no_further_than_it_must():
    v = venue()
    v.place(order("a", "BUY", 5, 99))
    thinner = {99: 45, 98: 70}, CALM[1]
    thin = {99: 10, 98: 70}, CALM[1]
    out = run(v, market(book(1, *CALM), trade(20, 99, 5, -1), book(21, *thinner), book(22, *thin), trade(23, 99, 12, -1)))
    assert [round(f.qty * 1000) for f in fills(out)] == [2]


def test_an_order_that_improves_the_touch_stands_first():
    v = venue()
    v.place(order("a", "BUY", 5, 100))
    out = run(v, market(book(1, *CALM), trade(20, 100, 2, -1)))
    assert [round(f.qty * 1000) for f in fills(out)] == [2]


def test_a_share_of_the_queue_can_be_configured():
    v = venue(Rules(10, 0.5, True))
    v.place(order("a", "BUY", 5, 99))
    assert [round(f.qty * 1000) for f in fills(run(v, market(book(1, *CALM), trade(20, 99, 27, -1))))] == [2]


@pytest.mark.parametrize("through, qty", [(True, [4]), (False, [])])
def test_a_trade_strictly_through_the_price_fills_if_so_configured(through, qty):
    v = venue(Rules(10, 1.0, through))
    v.place(order("a", "BUY", 5, 99))
    out = run(v, market(book(1, *CALM), trade(20, 98, 4, -1)))
    assert [round(f.qty * 1000) for f in fills(out)] == qty


def test_a_trade_by_the_same_side_fills_nothing():
    v = venue()
    v.place(order("a", "BUY", 5, 100))
    assert not fills(run(v, market(book(1, *CALM), trade(20, 100, 9, 1), trade(21, 98, 9, 1))))


def test_a_book_that_comes_to_the_price_fills_as_maker_with_what_it_shows():
    v = venue()
    v.place(order("a", "BUY", 5, 99))
    v.place(order("b", "BUY", 5, 99))
    out = run(v, market(book(1, *CALM), book(20, {97: 5}, {98: 4, 99: 3, 100: 9})))
    assert [(f.order_id, f.price, round(f.qty * 1000), f.maker) for f in fills(out)] == [("a", 9.9, 5, True), ("b", 9.9, 2, True)]


def test_what_was_taken_is_not_taken_again_before_the_next_book():
    v = venue()
    v.place(order("a", "BUY", 40, 101, at=1))
    v.place(order("b", "BUY", 1, at=2))
    v.place(order("c", "BUY", 1, at=50))
    out = fills(run(v, market(book(1, *CALM), book(40, *CALM), book(90, *CALM))))
    assert [(f.order_id, f.price, f.maker) for f in out] == [("a", 10.1, False), ("b", 10.2, False), ("c", 10.1, False)]


def test_a_marketable_limit_takes_and_rests_and_a_market_order_takes_and_is_cancelled():
    v = venue()
    v.place(order("a", "BUY", 45, 101))
    v.place(order("m", "BUY", 100))
    out = run(v, market(book(1, *CALM)))
    assert [(f.order_id, round(f.qty * 1000)) for f in fills(out)] == [("a", 40), ("m", 60)]
    assert said(out) == [("a", ACCEPTED, ""), ("m", ACCEPTED, ""), ("m", CANCELLED, reasons.IOC_UNFILLED)]
    assert [(o.order_id, o.filled, o.ahead) for o in v.open_orders()] == [("a", 0.04, 0.0)]
    assert v.position == 100


def test_fees_are_the_makers_and_the_takers_and_a_rebate_is_negative():
    v = venue(instrument=Instrument(0.1, 0.001, 0.001, 0.0, -0.0001, 0.0004, 0.004))
    v.place(order("t", "BUY", 2))
    v.place(order("m", "BUY", 2, 100))
    taker, maker = fills(run(v, market(book(1, *CALM), trade(20, 100, 9, -1))))
    assert taker.fee_usd == pytest.approx(10.1 * 0.002 * 0.0004) and maker.fee_usd == pytest.approx(-10.0 * 0.002 * 0.0001)


def test_an_arrival_comes_after_the_events_of_its_time_and_before_those_of_a_later_one():
    v = venue()
    v.place(order("a", "BUY", 1))                 # arrives at 10
    v.place(order("b", "BUY", 1, at=1))           # arrives at 11
    out = fills(run(v, market(book(1, *CALM), book(10, {99: 1}, {105: 9}), book(11, {99: 1}, {107: 9}), book(12, *CALM))))
    assert [(f.order_id, f.price, f.ts_ms) for f in out] == [("a", 10.5, 10), ("b", 10.7, 11)]


@pytest.mark.parametrize("sent, reason", [
    (order("a", "BUY", 1, 101, post_only=True), reasons.POST_ONLY_WOULD_CROSS),
    (order("a", "SELL", 1, 99, post_only=True), reasons.POST_ONLY_WOULD_CROSS),
    (order("a", "SELL", 1, 101, reduce_only=True), reasons.REDUCE_ONLY_WOULD_OPEN),
    (Order("a", "entry", "a", "BTCUSDT", "BUY", 0.0015, 9.9, "limit", True, False, "sim", 1, 0), reasons.BAD_TICK_OR_LOT),
    (Order("a", "entry", "a", "BTCUSDT", "BUY", 0.001, 9.95, "limit", True, False, "sim", 1, 0), reasons.BAD_TICK_OR_LOT),
    (Order("a", "entry", "a", "BTCUSDT", "BUY", float("nan"), 9.9, "limit", True, False, "sim", 1, 0), reasons.BAD_TICK_OR_LOT),
    (Order("a", "entry", "a", "BTCUSDT", "BUY", 0.001, 0.0, "limit", True, False, "sim", 1, 0), reasons.BAD_TICK_OR_LOT),
    (Order("a", "entry", "a", "BTCUSDT", "BUY", -0.001, 9.9, "limit", True, False, "sim", 1, 0), reasons.BAD_TICK_OR_LOT),
])
def test_what_a_venue_would_refuse_is_refused_with_its_reason(sent, reason):
    v = venue()
    v.place(sent)
    assert said(run(v, market(book(1, *CALM)))) == [("a", REJECTED, reason)]
    assert not v.live


def test_minimums_bind_entries_but_never_what_closes_a_rest():
    v = venue(instrument=Instrument(0.1, 0.001, 0.01, 0.5, 0.0001, 0.0004, 0.004))
    v.place(order("small", "BUY", 9, at=1))
    v.place(order("cheap", "BUY", 20, at=2))
    v.place(order("fine", "BUY", 60, at=3))
    v.place(order("close", "SELL", 5, at=4, reduce_only=True))
    assert said(run(v, market(book(1, *CALM)))) == [
        ("small", REJECTED, reasons.BELOW_MIN_NOTIONAL), ("cheap", REJECTED, reasons.BELOW_MIN_NOTIONAL),
        ("fine", ACCEPTED, ""), ("fine", DONE, ""), ("close", ACCEPTED, ""), ("close", DONE, "")]


def test_without_a_book_nothing_is_accepted():
    v = venue()
    v.place(order("a", "BUY", 1, 99))
    assert said(run(v)) == [("a", REJECTED, reasons.NO_BOOK)]


def test_a_second_order_with_a_known_id_leaves_the_first_as_it_was():
    v = venue()
    v.place(order("a", "BUY", 5, 99, at=0))
    v.place(order("a", "SELL", 7, 102, at=1))
    out = run(v, market(book(1, *CALM), book(30, *CALM)))
    assert said(out) == [("a", ACCEPTED, ""), ("a", REJECTED, reasons.DUPLICATE_ORDER)]
    assert [(o.order_id, o.side, o.qty) for o in v.open_orders()] == [("a", "BUY", 0.005)]


def test_a_cancel_ends_an_order_once_and_a_second_one_finds_nothing():
    v = venue()
    v.place(order("a", "BUY", 5, 100))
    for at in (20, 30):
        v.cancel(Cancel("a", "BTCUSDT", at, "expired"))
    out = run(v, market(book(1, *CALM), trade(15, 100, 2, -1), book(99, *CALM)))
    assert said(out) == [("a", ACCEPTED, ""), ("a", CANCELLED, reasons.REQUESTED), ("a", REJECTED, reasons.NOT_FOUND)]
    assert [x.filled for x in out if isinstance(x, Report)] == [0.0, 0.002, 0.002]


def test_a_reduce_only_order_is_capped_at_the_position_and_taken_back_when_that_is_gone():
    v = venue()
    v.place(order("in", "BUY", 5))
    v.place(order("out", "SELL", 9, 101, at=1, reduce_only=True))
    v.place(order("two", "SELL", 3, 102, at=2, reduce_only=True))
    out = run(v, market(book(1, *CALM), book(20, {99: 50}, {101: 4, 102: 9}), trade(30, 101, 99, 1)))
    assert said(out)[-2:] == [("out", CANCELLED, reasons.REDUCE_ONLY_WOULD_OPEN), ("two", CANCELLED, reasons.REDUCE_ONLY_WOULD_OPEN)]
    assert v.position == 0 and not v.live


def test_another_symbols_order_is_an_error_of_the_caller():
    with pytest.raises(ValueError, match="ETHUSDT"):
        venue().cancel(Cancel("a", "ETHUSDT", 1, "expired"))


def test_a_snapshot_of_another_session_is_refused():
    with pytest.raises(ValueError, match="s1"):
        Matching("BTCUSDT", BTC, RULES, "s2").restore(venue().snapshot())


def test_idle_matching_costs_next_to_nothing_an_event():
    frame = market(*[book(i, *CALM) if i % 3 else trade(i, 99, 1, -1) for i in range(1000)])
    v = venue()
    v.advance(frame, 0, END)
    began = time.perf_counter()
    for _ in range(200):
        v.advance(frame, 0, END)
    assert (time.perf_counter() - began) / 200_000 < 0.5e-6


# random markets, random orders, random framing

EVENTS = st.lists(st.one_of(
    st.tuples(st.just(BOOK), st.integers(0, 3), st.integers(-3, 3), st.integers(1, 4),
              st.lists(st.integers(0, 9), min_size=6, max_size=6)),
    st.tuples(st.just(TRADE), st.integers(0, 3), st.integers(-4, 4), st.integers(1, 20), st.sampled_from([-1, 1]))),
    min_size=1, max_size=60)
ORDERS = st.lists(st.tuples(st.sampled_from(["BUY", "SELL", "CANCEL"]), st.integers(0, 60), st.integers(1, 15), st.integers(-4, 4),
                            st.booleans(), st.booleans(), st.booleans()), max_size=14)
RULED = st.builds(Rules, st.sampled_from([0, 1, 7]), st.sampled_from([0.0, 0.3, 1.0]), st.booleans())


def market_from(drawn) -> Frame:
    events, ts = [book(0, *CALM)], 0
    for kind, wait, shift, extra, rest in drawn:
        ts += wait
        if kind == BOOK:
            bids = {100 + shift - i: q for i, q in enumerate(rest[:3]) if q}
            asks = {100 + shift + extra + i: q for i, q in enumerate(rest[3:]) if q}
            events.append(book(ts, bids, asks))
        else:
            events.append(trade(ts, 100 + shift, extra, rest))
    return market(*events)


def requests(drawn) -> list[Order | Cancel]:
    out: list[Order | Cancel] = []
    for i, (side, at, qty, px, is_market, post_only, reduce_only) in enumerate(sorted(drawn, key=lambda o: o[1])):
        if side == "CANCEL":
            out.append(Cancel(f"o{qty % (i + 1)}", "BTCUSDT", at, "test"))
        else:
            out.append(order(f"o{i}", side, qty, 0 if is_market else 100 + px, at, post_only, reduce_only))
    return out


def work(v: Matching, frames: list[Frame], sent, restart: int = -1) -> list[Report | Fill]:
    """All requests at once, then the market in these frames; optionally snapshot, new object and restore at every step from `restart`."""
    for s in sent:
        v.place(s) if isinstance(s, Order) else v.cancel(s)
    out: list[Report | Fill] = []
    steps = 0
    for frame in [*frames, None]:
        at = 0
        while True:
            at, happened = v.advance(frame, at, END)
            out += happened
            steps += 1
            if 0 <= restart <= steps:
                blob, v = v.snapshot(), Matching("BTCUSDT", BTC, v.rules, "s1")
                v.restore(blob)
            if not happened and (frame is None or at >= frame.n):
                break
    return out


@settings(max_examples=150, deadline=None)
@given(EVENTS, ORDERS, RULED, st.lists(st.integers(0, 61), max_size=6), st.integers(0, 5))
def test_framing_and_restarts_change_nothing(events, orders, rules, cuts, restart):
    frame, sent = market_from(events), requests(orders)
    edges = [0, *sorted(c for c in set(cuts) if 0 < c < frame.n), frame.n]
    parts = [cut(frame, a, b) for a, b in itertools.pairwise(edges)]
    assert join(parts) == frame
    whole = work(venue(rules), [frame], sent)
    assert work(venue(rules), parts, sent) == whole
    assert work(venue(rules), [frame], sent, restart) == whole


@settings(max_examples=200, deadline=None)
@given(EVENTS, ORDERS, RULED)
def test_every_order_is_accounted_for(events, orders, rules):
    frame, sent = market_from(events), requests(orders)
    v = venue(rules)
    out = work(v, [frame], sent)
    asked = {o.id: o for o in sent if isinstance(o, Order)}
    assert [x.seq for x in out] == list(range(1, len(out) + 1))
    assert [x.ts_ms for x in out] == sorted(x.ts_ms for x in out)
    got, count, position, ended, accepted = defaultdict(int), defaultdict(int), 0, {}, set()
    for x in out:
        if isinstance(x, Fill):
            o, lots = asked[x.order_id], round(x.qty * 1000)
            assert x.order_id in accepted and x.order_id not in ended and lots > 0
            got[x.order_id] += lots
            count[x.order_id] += 1
            assert x.id == f"{x.order_id}:{count[x.order_id]}"
            before, position = position, position + (lots if x.side == "BUY" else -lots)
            if o.reduce_only:
                assert abs(position) < abs(before) and before * position >= 0
            if o.price:
                assert (o.price - x.price) * (1 if o.side == "BUY" else -1) >= -1e-9
            assert not (o.post_only and o.price and not x.maker)
        elif x.reason in ABOUT_REQUEST:
            assert x.status == REJECTED
        else:
            assert x.order_id not in ended
            if x.status == ACCEPTED:
                accepted.add(x.order_id)
            else:
                ended[x.order_id] = x.status
            assert round(x.filled * 1000) == got[x.order_id]
    for oid, lots in got.items():
        assert lots <= round(asked[oid].qty * 1000)
        assert ended.get(oid) != DONE or lots == round(asked[oid].qty * 1000)
    assert v.position == position
    assert {o.order_id for o in v.open_orders()} == accepted - ended.keys()
    assert asked.keys() <= accepted | ended.keys()


@settings(max_examples=150, deadline=None)
@given(EVENTS, ORDERS, RULED)
def test_a_market_trade_gives_no_more_than_was_traded_and_the_better_price_first(events, orders, rules):
    trades_only = [e for e in events if e[0] == TRADE]
    frame = market_from(trades_only)
    sent = [order(o.id, o.side, round(o.qty * 1000), round(o.price * 10), -9, True)
            for o in requests(orders) if isinstance(o, Order) and o.price]
    out = fills(work(venue(rules), [frame], sent))
    traded, filled = defaultdict(int), defaultdict(int)
    for ts, (_, lots, aggressor) in zip(frame.times[1:], frame.trade_rows):
        traded[int(ts), "SELL" if aggressor > 0 else "BUY"] += int(lots)
    for f in out:
        assert f.maker
        filled[f.ts_ms, f.side] += round(f.qty * 1000)
    assert all(filled[key] <= traded[key] for key in filled)
    final, price = defaultdict(int), {o.id: o for o in sent}
    for f in out:
        final[f.order_id] += round(f.qty * 1000)
        better = [o for o in sent if o.side == f.side and (o.price - price[f.order_id].price) * (1 if f.side == "BUY" else -1) > 1e-9]
        if rules.through_fills:
            assert all(final[o.id] == round(o.qty * 1000) for o in better if crossless(o))


def crossless(o: Order) -> bool:
    """Accepted as post-only against the opening book."""
    return o.price < 10.05 if o.side == "BUY" else o.price > 9.95
