"""A label is what the Desk would have met on the paper venue: checked against the venue itself; and no part sees another."""
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.execution.matching import Matching
from engine.facts import BOOK, BUY, CANCELLED, DEPTH, LIMIT, MARKET, REJECTED, SELL, TRADE, Cancel, Fill, Frame, Order, frame_of
from engine.reasons import NOT_FOUND
from engine.scoring import labels as l
from engine.settings import Instrument, Labels
from engine.settings import Matching as Rules

INSTRUMENT = Instrument(1.0, 1.0, 1.0, 0.0, 0.0001, 0.0004, 0.01)
RULES = Rules(latency_ms=50, queue_ahead=1.0, through_fills=True)
LABELS = Labels(horizon_ms=3000, fill_within_ms=1000, embargo_ms=500, test_fraction=0.25, calibration_fraction=0.2)


def book(bid: int, ask: int, size: int = 5) -> np.ndarray:
    rows = np.zeros((4, DEPTH), np.int32)
    rows[0], rows[2] = bid - np.arange(DEPTH), ask + np.arange(DEPTH)
    rows[1] = rows[3] = size
    return rows


def frame(events: list[tuple]) -> Frame:
    """(ts, "book", bid, ask[, size]) and (ts, "trade", ticks, lots, aggressor) as a frame."""
    return frame_of("X", "s", 0, 1.0, 1.0, [e[0] for e in events], [BOOK if e[1] == "book" else TRADE for e in events],
                    np.array([book(*e[2:]) for e in events if e[1] == "book"]).reshape(-1, 4, DEPTH),
                    np.array([e[2:] for e in events if e[1] == "trade"]).reshape(-1, 3))


def label_one(events, sign=1, entry=1000, stop=990, target=1002, rules=RULES) -> dict:
    got = l.label(l.stream_of([frame(events)]), np.array([0]), np.array([sign]), np.array([entry]), np.array([stop]), np.array([target]),
                  INSTRUMENT, rules, LABELS)
    return {"kind": l.KINDS[got.kind[0]], "y": got.y[0], "net": got.net_bps[0], "fill": got.fill_ms[0], "end": got.end_ms[0],
            "markouts": got.markouts[0]}


QUIET = [(t, "book", 1000, 1001) for t in range(4500, 9000, 100)]


def test_a_target_reached_earns_the_distance_less_two_maker_fees():
    got = label_one([(0, "book", 1000, 1001), (100, "trade", 1000, 6, -1), (200, "book", 1001, 1002), (300, "trade", 1002, 6, 1), *QUIET])
    assert (got["kind"], got["y"], got["fill"], got["end"]) == ("target", 1, 100, 300)
    assert got["net"] == pytest.approx(1e4 * (2 / 1000 - 0.0001 - 0.0001 * 1.002))


def test_the_queue_before_us_is_served_first():
    assert label_one([(0, "book", 1000, 1001), (100, "trade", 1000, 5, -1), *QUIET])["kind"] == "unfilled"


def test_a_trade_before_the_order_arrives_does_not_fill_it():
    assert label_one([(0, "book", 1000, 1001), (50, "trade", 1000, 99, -1), *QUIET])["kind"] == "unfilled"


def test_an_entry_that_would_cross_on_arrival_is_no_fill():
    assert label_one([(0, "book", 1000, 1001), (20, "book", 999, 1000), *QUIET])["kind"] == "crossed"


def test_an_unfilled_entry_is_taken_back_by_the_first_book_past_its_time_and_a_latency_later():
    events = [(0, "book", 1000, 1001), (1020, "book", 1000, 1001), (1070, "trade", 1000, 6, -1), *QUIET]
    assert label_one(events)["kind"] == "time"
    events[2] = (1071, "trade", 1000, 6, -1)
    assert label_one(events) | {"markouts": 0, "net": 0} == {"kind": "unfilled", "y": 0, "net": 0, "fill": -1, "end": 1070, "markouts": 0}


def test_a_stop_pays_the_taker_fee_at_the_touch_that_is_met_two_latencies_later():
    got = label_one([(0, "book", 1000, 1001), (100, "trade", 1000, 6, -1), (500, "book", 990, 991), (590, "book", 985, 986), *QUIET])
    assert (got["kind"], got["y"], got["end"]) == ("stop", 0, 600)
    assert got["net"] == pytest.approx(1e4 * (-15 / 1000 - 0.0001 - 0.0004 * 0.985))


def test_the_horizon_closes_at_the_touch():
    got = label_one([(0, "book", 1000, 1001), (100, "trade", 1000, 6, -1), (3100, "book", 999, 1003), *QUIET])
    assert (got["kind"], got["end"]) == ("time", 3200)


def test_a_target_filled_after_the_stop_asked_is_no_win():
    got = label_one([(0, "book", 1000, 1001), (100, "trade", 1000, 6, -1), (500, "book", 990, 991), (530, "book", 1003, 1004), *QUIET])
    assert (got["kind"], got["y"]) == ("stop", 0)
    assert got["net"] > 0


def test_markouts_are_measured_after_the_fill_on_our_side():
    got = label_one([(0, "book", 1000, 1001), (100, "trade", 1000, 6, -1), (190, "book", 998, 999), (900, "book", 999, 1000), *QUIET])
    assert got["markouts"] == pytest.approx([-15.0, -15.0, -5.0])


def test_an_outcome_beyond_the_data_is_unfinished():
    assert label_one([(0, "book", 1000, 1001), (100, "trade", 1000, 6, -1), (300, "book", 1000, 1001)])["kind"] == "unfinished"


def at_the_venue(whole: Frame, event: int, sign: int, entry: int, stop: int, target: int, rules: Rules) -> tuple[str, int, float, int]:
    """(kind, y, net bps, end) of the same trade, made order by order on the venue with the Desk's exits."""
    venue = Matching("X", INSTRUMENT, rules, "s")
    times, kinds, rows = whole.times, whole.kinds, whole.book_rows
    side, back = (BUY, SELL) if sign > 0 else (SELL, BUY)
    start = int(times[event])
    _, none = venue.advance(whole, 0, start)
    assert not none
    venue.place(Order("E", "entry", "E", "X", side, 1.0, float(entry), LIMIT, True, False, "paper", 0, start))
    at, bought, asked, cause, deadline, paid = int(np.searchsorted(times, start, "right")), 0, 0, "", 0, 0.0
    seen = event + 1            # the next book that the Desk looks at
    while True:
        # the Desk looks at every book before it hears what happened later than it; then the venue works up to there
        due = whole.n if asked else _first_asking(whole, seen, sign, stop, deadline if bought else 0, start + LABELS.fill_within_ms)
        upto = int(times[due]) if due < whole.n else int(times[-1])
        at, happened = venue.advance(whole, at, upto)
        if not happened and due < whole.n and at < whole.n and times[at] <= upto:
            continue
        if due < whole.n and (not happened or happened[0].ts_ms == times[due]):     # at equal times the Desk sees the book first
            touch = rows[np.count_nonzero(kinds[:due + 1] == BOOK) - 1, 0 if sign > 0 else 2, 0]
            asked = int(times[due])
            cause = "unfilled" if not bought else "stop" if sign * (touch - stop) <= 0 else "time"
            venue.cancel(Cancel("X1" if bought else "E", "X", asked, cause))
        elif not happened and at >= whole.n:
            return "unfinished", 0, np.nan, 0
        for fact in happened:
            now = fact.ts_ms
            if isinstance(fact, Fill) and fact.order_id == "E":
                bought, deadline, asked, cause, paid = 1, now + LABELS.horizon_ms, 0, "", fact.fee_usd
                seen = int(np.searchsorted(times, now, "right"))
                venue.place(Order("X1", "target", "E", "X", back, 1.0, float(target), LIMIT, True, True, "paper", 0, now))
            elif isinstance(fact, Fill):
                net = 1e4 * (sign * (fact.price - entry) - paid - fact.fee_usd) / entry
                cause = cause or "target"
                return cause, int(cause == "target"), net, now
            elif fact.reason == NOT_FOUND:
                continue        # the cancel of the entry came after its fill
            elif fact.order_id == "E" and fact.status in (REJECTED, CANCELLED):
                return ("crossed" if fact.status == REJECTED else "unfilled"), 0, np.nan, now
            elif fact.order_id == "X1" and fact.status in (REJECTED, CANCELLED):
                asked = asked or now
                venue.place(Order("X2", cause or "target", "E", "X", back, 1.0, 0.0, MARKET, False, True, "paper", 0, now))


def _first_asking(whole: Frame, first: int, sign: int, stop: int, deadline: int, expires: int) -> int:
    """The first book from an event on that asks for the entry back (before a fill: `deadline` 0) or to close."""
    row = int(np.count_nonzero(whole.kinds[:first] == BOOK))
    for event in range(first, whole.n):
        if whole.kinds[event] == BOOK:
            touch, ts = whole.book_rows[row, 0 if sign > 0 else 2, 0], whole.times[event]
            if (ts >= deadline or sign * (touch - stop) <= 0) if deadline else ts >= expires:
                return event
            row += 1
    return whole.n


def market(seed: int, n: int) -> Frame:
    """A few seconds of a jumpy market: touch moves, sizes change, trades at and through the touch."""
    rng = np.random.default_rng(seed)
    bid, ts, events = 1000, 0, []
    for _ in range(n):
        ts += int(rng.integers(0, 60))
        if rng.random() < 0.55 or not events:
            bid += int(rng.choice([-2, -1, 0, 0, 0, 0, 1, 2]))
            events.append((ts, "book", bid, bid + int(rng.integers(1, 3)), int(rng.integers(1, 6))))
        else:
            aggressor = int(rng.choice([-1, 1]))
            ticks = bid + (0 if aggressor < 0 else 1) - aggressor * int(rng.integers(-1, 2))
            events.append((ts, "trade", ticks, int(rng.integers(1, 8)), aggressor))
    return frame(events)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(150, 400), st.integers(2, 6), st.integers(2, 8), st.sampled_from([0.0, 0.5, 1.0]),
       st.sampled_from([0, 50]))
def test_every_label_equals_the_same_trade_made_at_the_venue(seed, n, target, stop, queue_ahead, latency):
    whole = market(seed, n)
    rules = Rules(latency_ms=latency, queue_ahead=queue_ahead, through_fills=True)
    event = np.flatnonzero(whole.kinds == BOOK)[1::9]
    sign = np.where(np.arange(len(event)) % 2, 1, -1)
    rows = whole.book_rows[np.cumsum(whole.kinds == BOOK)[event] - 1]
    entry = np.where(sign > 0, rows[:, 0, 0], rows[:, 2, 0])
    got = l.label(l.stream_of([whole]), event, sign, entry, entry - sign * stop, entry + sign * target, INSTRUMENT, rules, LABELS)
    for k in range(len(event)):
        kind, y, net, end = at_the_venue(whole, int(event[k]), int(sign[k]), int(entry[k]), int(entry[k] - sign[k] * stop),
                                         int(entry[k] + sign[k] * target), rules)
        assert (l.KINDS[got.kind[k]], got.y[k]) == (kind, y), f"candidate {k} at event {event[k]}"
        if kind in ("target", "stop", "time"):
            assert got.net_bps[k] == pytest.approx(net)
            assert got.end_ms[k] == end


@given(st.lists(st.tuples(st.integers(0, 100_000), st.integers(0, 5_000)), min_size=1, max_size=200), st.integers(0, 2000))
def test_no_outcome_reaches_over_a_boundary_and_parts_follow_each_other(windows, embargo):
    start = np.array([a for a, _ in windows])
    end = start + np.array([b for _, b in windows])
    part = l.split(start, end, Labels(3000, 1000, embargo, 0.25, 0.2))
    for earlier in range(l.TRAIN, l.TEST):
        before, after = (part >= 0) & (part <= earlier), part > earlier
        if before.any() and after.any():
            assert end[before].max() + embargo <= start[after].min() + 1


def test_the_split_follows_the_shares_of_the_time_span():
    start = np.arange(0, 1_000_000, 100)
    part = l.split(start, start + 50, LABELS)
    share = [np.mean(part == k) for k in (l.TRAIN, l.CALIBRATE, l.TEST)]
    assert share == pytest.approx([0.55, 0.2, 0.25], abs=0.002)
