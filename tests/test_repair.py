"""What cleaning refuses, repairs and counts, and that chunks make no difference."""
from itertools import pairwise

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from config.settings import load
from engine.facts import BOOK, DEPTH, MAX_INT32, TRADE
from engine.market.repair import Cleaner, Columns, Counts, Raw, book_units, code, to_units, trade_units
from engine.metrics import BAD_TICKS, REPAIRS

INSTRUMENT = load(env={}).symbols["BTCUSDT"]            # tick 0.1, lot 0.001


def cleaner() -> Cleaner:
    return Cleaner("BTCUSDT", INSTRUMENT, off_market_bps=100, gap_ms=15_000, clock_skew_ms=1_000)


def book(bid=1000, ask=1001, size=5, levels=DEPTH) -> np.ndarray:
    """A book of neighbouring levels."""
    out, i = np.zeros((4, DEPTH), np.int64), np.arange(levels)
    out[0, :levels], out[2, :levels] = bid - i, ask + i
    out[1, :levels] = out[3, :levels] = size
    return out


def events(*items, **more) -> Raw:
    """Raw events from (ts, book array) and (ts, (price, size, aggressor))."""
    kinds = [BOOK if isinstance(what, np.ndarray) else TRADE for _, what in items]
    return Raw(np.array([ts for ts, _ in items], np.int64), np.array(kinds, np.uint8),
               np.array([w for _, w in items if isinstance(w, np.ndarray)], np.int64).reshape(-1, 4, DEPTH),
               np.array([w for _, w in items if not isinstance(w, np.ndarray)], np.int64).reshape(-1, 3),
               **{k: np.array(v) for k, v in more.items()})


def test_a_clean_market_passes_as_it_is():
    columns, counts = cleaner().clean(events((10, book()), (11, (1001, 3, 1)), (12, book(999, 1002))))
    assert columns.ts.tolist() == [10, 11, 12] and columns.kind.tolist() == [BOOK, TRADE, BOOK]
    assert (columns.books == [book(), book(999, 1002)]).all() and columns.trades.tolist() == [[1001, 3, 1]]
    assert counts == Counts(books=2, trades=1)


def test_an_event_keeps_the_number_that_it_came_with_whatever_is_refused_before_it():
    one = cleaner()
    columns, counts = one.clean(events((10, book()), (11, (1001, 3, 1)), (12, book(1002, 1001)), (13, book()), (14, (1001, -1, 1)),
                                       (15, (1001, 2, 1)), (16, book(999, 1002)), (17, book(1003, 1001))))
    assert sum(counts.refused.values()) == 3
    frames = one.frames(columns, "s1", 100)
    assert [(f.seq, f.n) for f in frames] == [(100, 2), (103, 1), (105, 2)]
    numbered = {f.seq + i: int(t) for f in frames for i, t in enumerate(f.times)}
    assert numbered == {100: 10, 101: 11, 103: 13, 105: 15, 106: 16}
    assert one.frames(one.clean(events((18, book(1003, 1001))))[0], "s1", 108) == []


def changed(row: int, level: int, value: int) -> np.ndarray:
    out = book()
    out[row, level] = value
    return out


@pytest.mark.parametrize("wrong, reason", [
    (book(1002, 1001), "crossed"),
    (changed(1, 0, -5), "non_positive"), (changed(0, 3, -1), "non_positive"), (changed(3, 9, 0), "non_positive"),
    (book(levels=0), "non_positive"),
    (changed(1, 0, MAX_INT32 + 1), "overflow"), (changed(2, 9, MAX_INT32), "overflow"),
    (changed(0, 1, 1000), "unsorted"), (changed(2, 4, 1001), "unsorted"),
    ((0, 5, 1), "non_positive"), ((1000, -1, 1), "non_positive"), ((-1000, 1, 1), "non_positive"), ((1000, MAX_INT32 + 1, 1), "overflow"),
    ((1012, 1, 1), "off_market"), ((988, 1, -1), "off_market"),
])
def test_what_is_no_market_is_refused_and_counted_and_the_next_event_passes(wrong, reason):
    columns, counts = cleaner().clean(events((10, book()), (11, wrong), (12, (1000, 1, -1))))
    assert counts.refused == {reason: 1}
    assert columns.ts.tolist() == [10, 12] and counts.books + counts.trades == 2


def test_a_print_just_within_the_limit_passes_and_so_does_any_while_the_touch_is_old():
    _, counts = cleaner().clean(events((10, book()), (11, (1011, 1, 1)), (12, (990, 1, -1)), (20_000, (1500, 1, 1))))
    assert counts.refused == {} and counts.trades == 3


def test_an_event_older_than_the_last_is_refused_and_one_of_the_same_time_is_not():
    columns, counts = cleaner().clean(events((10, book()), (9, book(999, 1001)), (10, (1000, 1, -1)), (9, (1000, 1, -1))))
    assert counts.refused == {"unordered": 2} and columns.ts.tolist() == [10, 10]


def test_a_refused_event_does_not_move_the_time():
    _, counts = cleaner().clean(events((10, book()), (50, book(1005, 1001)), (20, book())))
    assert counts.refused == {"crossed": 1} and counts.books == 2


def test_a_time_in_another_unit_is_refused_and_does_not_stop_the_market():
    _, counts = cleaner().clean(events((10, book()), (1_767_600_000_000_000, book(999, 1001)), (-5, (1000, 1, 1)), (20, (1000, 1, 1))))
    assert counts.refused == {"overflow": 2} and counts.trades == 1


def test_a_locked_book_gets_an_ask_one_tick_above_its_bid():
    columns, counts = cleaner().clean(events((10, changed(2, 0, 1000))))
    assert counts.repaired == {"locked": 1} and not counts.refused
    assert columns.books[0, 0, 0] == 1000 and columns.books[0, 2, 0] == 1001


def test_unlocking_merges_with_the_level_that_is_there_already():
    columns, _ = cleaner().clean(events((10, book(1000, 1000, size=7))))
    assert columns.books[0, 2].tolist() == [*range(1001, 1010), 0] and columns.books[0, 3].tolist() == [14] + [7] * 8 + [0]


def test_the_same_book_at_the_same_time_and_the_same_trade_id_are_duplicates():
    columns, counts = cleaner().clean(events((10, book()), (10, book()), (11, book()), (12, (1000, 1, -1)), (13, (1000, 1, -1)),
                                             (14, (1000, 1, -1)), ids=[7, 7, 0]))
    assert counts.refused == {"duplicate": 2} and columns.ts.tolist() == [10, 11, 12, 14]


def test_a_recorder_whose_clock_is_off_is_counted_and_never_believed():
    columns, counts = cleaner().clean(events((5000, book()), (5001, (1000, 1, 1)), (5002, book()), received=[3700, 5001 + 1000, 0]))
    assert columns.ts.tolist() == [5000, 5001, 5002] and counts.repaired == {"clock_skew": 1}


def test_a_hole_in_time_is_counted_with_its_length_and_place():
    _, counts = cleaner().clean(events((0, book()), (15_000, (1000, 1, 1)), (30_001, book()), (70_001, book())))
    assert (counts.gaps, counts.longest_gap_ms, counts.longest_gap_at_ms) == (2, 40_000, 30_001)


@pytest.mark.parametrize("price, bought", [(1010, 1), (1013, 1), (1000, -1), (997, -1), (1006, 1), (1004, -1)])
def test_who_paid_is_told_by_the_quotes(price, bought):
    columns, _ = cleaner().clean(events((10, book(1000, 1010)), (11, (price, 1, 0))))
    assert columns.trades[0, 2] == bought


@pytest.mark.parametrize("before, bought", [((1004, 1, 0), 1), ((1006, 1, 0), -1), ((1005, 1, -1), -1), ((1005, 1, 1), 1)])
def test_in_the_middle_the_last_change_of_price_tells_who_paid(before, bought):
    columns, _ = cleaner().clean(events((10, book(1000, 1010)), (11, before), (12, (1005, 1, 0))))
    assert columns.trades[1, 2] == bought


def test_what_the_border_found_is_refused_under_its_name():
    _, counts = cleaner().clean(events((10, (1000, 1, 1)), (11, (1000, 1, 1)), (12, (1000, 1, 1)),
                                       bad=[code("not_a_trade"), code("non_finite"), 0]))
    assert counts.refused == {"non_finite": 1, "not_a_trade": 1} and counts.trades == 1


def test_columns_that_do_not_agree_are_refused_at_once():
    with pytest.raises(ValueError, match="BTCUSDT: 2 times, 2 kinds, 1 books and 0 trades do not agree"):
        cleaner().clean(Raw(np.array([1, 2]), np.array([BOOK, BOOK]), np.array([book()]), np.empty((0, 3), np.int64)))


def test_integers_change_units_exactly():
    units, off = to_units(np.array([941251, 0, -3]), 0.1, 0.01)
    assert units.tolist() == [9412510, 0, -30] and not off.any()


def test_float_books_become_ticks_and_are_rounded_away_from_the_touch():
    levels = np.zeros((2, 4, DEPTH))
    levels[0, :, 0] = 100.0, 0.005, 100.1, 12.0
    levels[1, :, 0] = 100.07, 0.0104, 100.12, 0.0001
    books, bad, off = book_units(levels, 1, 1, INSTRUMENT)
    assert books[:, :, 0].tolist() == [[1000, 5, 1001, 12000], [1000, 10, 1002, 1]] and not bad.any()
    _, counts = cleaner().clean(Raw(np.array([1, 2]), np.zeros(2), books, np.empty((0, 3)), bad=bad, off=off))
    assert counts.repaired == {"off_tick": 1, "off_lot": 1}


@pytest.mark.parametrize("nonsense", [np.nan, np.inf, -np.inf])
def test_what_is_no_number_is_refused_wherever_it_stands(nonsense):
    levels = np.zeros((2, 4, DEPTH))
    levels[:, :, 0] = 100.0, 1.0, 100.1, 1.0
    levels[1, 3, 7] = nonsense
    books, bad, _ = book_units(levels, 1, 1, INSTRUMENT)
    prints, worse, _ = trade_units(np.array([100.0, nonsense]), np.array([nonsense, 1.0]), 0, 1, 1, INSTRUMENT)
    kinds = np.array([BOOK, BOOK, TRADE, TRADE])
    columns, counts = cleaner().clean(Raw(np.arange(4), kinds, books, prints, bad=np.concatenate([bad, worse])))
    assert counts.refused == {"non_finite": 3} and columns.ts.tolist() == [0]


def test_a_negative_or_enormous_float_keeps_being_so():
    prints, bad, _ = trade_units(np.array([100.0, 100.0, 1e300]), np.array([-1e-9, 1e13, 1.0]), 1, 1, 1, INSTRUMENT)
    _, counts = cleaner().clean(Raw(np.arange(3), np.full(3, TRADE), np.empty((0, 4, DEPTH)), prints, bad=bad))
    assert counts.refused == {"non_positive": 1, "overflow": 2}


times = st.integers(0, 60).map(lambda k: k * 700)
size = st.sampled_from([-1, 0, 1, 5, MAX_INT32 + 5])
some_book = st.builds(book, st.integers(995, 1003), st.integers(997, 1010), st.sampled_from([1, 5, 5, 5]), st.sampled_from([0, 1, DEPTH]))
some_trade = st.tuples(st.integers(980, 1030), size, st.sampled_from([-1, 0, 1]))
stream = st.lists(st.tuples(times, st.one_of(some_book, some_trade)), max_size=40)


@settings(max_examples=150, deadline=None)
@given(stream, st.lists(st.integers(0, 40), max_size=5), st.randoms(use_true_random=False))
def test_how_events_are_cut_into_chunks_makes_no_difference(items, cuts, random):
    items = sorted(items, key=lambda e: e[0] + random.choice([0, 0, 0, 2000]))      # mostly in order
    more = {"ids": [random.randrange(12) for _, w in items if not isinstance(w, np.ndarray)],
            "received": [ts + random.choice([0, 400, -1500]) for ts, _ in items],
            "bad": [random.choice([0] * 9 + [2]) for _ in items], "off": [random.choice([0, 0, 1, 2, 3]) for _ in items]}
    raw = events(*items, **more)
    whole, counts = cleaner().clean(raw)

    edges, pieces, other = sorted({0, len(items), *(c for c in cuts if c < len(items))}), [], cleaner()
    total = Counts()
    for a, b in pairwise(edges):
        b0, b1 = (int((raw.kind[:k] == BOOK).sum()) for k in (a, b))
        columns, part = other.clean(Raw(raw.ts[a:b], raw.kind[a:b], raw.books[b0:b1], raw.trades[a - b0:b - b1], raw.ids[a - b0:b - b1],
                                        raw.received[a:b], raw.bad[a:b], raw.off[a:b]))
        pieces.append(columns._replace(at=columns.at + a))
        total = total + part
    if pieces:
        assert all((np.concatenate(parts) == one).all() for parts, one in zip(zip(*pieces), whole))
    assert total == counts == other.total

    # whatever came in: what goes out is a market, and nothing is lost uncounted
    assert counts.books + counts.trades + sum(counts.refused.values()) == len(items)
    assert set(counts.refused) <= set(BAD_TICKS) and set(counts.repaired) <= set(REPAIRS)
    is_market(whole)


def is_market(columns: Columns) -> None:
    """What a frame promises."""
    assert (np.diff(columns.ts) >= 0).all()
    assert (columns.books[:, 0, 0] < columns.books[:, 2, 0]).all() and (columns.books >= 0).all()
    assert ((columns.books[:, 0] > 0) == (columns.books[:, 1] > 0)).all() and ((columns.books[:, 2] > 0) == (columns.books[:, 3] > 0)).all()
    assert (columns.trades[:, :2] > 0).all() and set(columns.trades[:, 2].tolist()) <= {-1, 1}


def test_clean_columns_travel_as_a_frame():
    c = cleaner()
    frame = c.frame(c.clean(events((10, book()), (11, (1001, 3, 1))))[0], "s1", 40)
    assert (frame.symbol, frame.session, frame.seq, frame.n) == ("BTCUSDT", "s1", 40, 2) and frame.tick == INSTRUMENT.tick
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(frame), type=type(frame)) == frame
