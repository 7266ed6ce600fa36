"""Order-level recordings: books and prints as their events make them, and orders with the fate that they met."""
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.facts import BOOK
from engine.fillprob.evaluation_v1 import kaplan_meier
from store.level3 import CHANGED, CREATED, DELETED, STEP, folded, read
from store.recorded import RecordingError

BUYS, SELLS = 1, -1


def fold(*events):
    """(id, ms, ticks, lots left, action, side) as a recording."""
    rows = [(i, t, p, q * STEP, a, s) for i, t, p, q, a, s in events]
    return folded(list(zip(*rows)), "t")


def test_a_resting_order_that_has_less_left_was_traded_and_one_taken_back_was_not():
    frame, orders = fold((1, 10, 100, 5, CREATED, BUYS), (2, 20, 102, 7, CREATED, SELLS), (3, 30, 101, 4, CREATED, SELLS),
                         (2, 40, 102, 7, DELETED, SELLS), (1, 50, 100, 2, CHANGED, BUYS), (1, 60, 100, 0, DELETED, BUYS))
    assert frame.trade_rows.tolist() == [[100, 3, -1], [100, 2, -1]]
    assert orders.filled_ms.tolist() == [50, -1, -1] and orders.gone_ms.tolist() == [60, 40, -1]
    assert frame.book_rows[-1, 2, :2].tolist() == [101, 0] and frame.book_rows[-1, 1].sum() == 0


def test_what_crosses_is_no_resting_order_and_rests_with_what_is_left_of_it():
    frame, orders = fold((1, 10, 100, 5, CREATED, SELLS), (2, 20, 101, 8, CREATED, BUYS), (1, 21, 100, 0, DELETED, SELLS),
                         (2, 22, 101, 3, CHANGED, BUYS))
    assert orders.side.tolist() == [SELLS] and frame.trade_rows.tolist() == [[100, 5, 1]]
    assert frame.book_rows[-1, :2, 0].tolist() == [101, 3] and not frame.book_rows[-1, 2:].any()


def test_an_order_is_not_in_the_book_that_it_found():
    frame, orders = fold((1, 10, 100, 5, CREATED, BUYS), (2, 20, 101, 6, CREATED, BUYS))
    assert orders.event.tolist() == [-1, 0] and frame.book_rows[0, 0, 0] == 100


@given(st.lists(st.tuples(st.integers(1, 8), st.integers(95, 105), st.integers(0, 9), st.sampled_from([CREATED, CHANGED, DELETED]),
                          st.sampled_from([BUYS, SELLS])), min_size=1, max_size=80))
def test_a_book_is_never_crossed_and_no_lot_is_traded_that_was_not_sent(told):
    sent, known = 0, {}
    events = []
    for k, (i, price, qty, action, side) in enumerate(told):
        at, way = known.get(i, (price, side))
        events.append((i, 10 * k, at if action != CREATED else price, qty, action, way if action != CREATED else side))
        if action == CREATED and qty and i not in known:
            known[i] = (price, side)
            sent += qty
        elif action == CHANGED and i in known:
            sent += qty      # never less than what it may still trade
        elif action == DELETED:
            known.pop(i, None)
    frame, orders = fold(*events)
    books = frame.book_rows
    two = (books[:, 1, 0] > 0) & (books[:, 3, 0] > 0)
    prices = books[:, [0, 2]].astype(np.int64)
    assert (np.diff(np.where(books[:, 1] > 0, prices[:, 0], -1), axis=1) <= 0).all() and two.sum() <= len(books)
    assert frame.trade_rows[:, 1].sum() <= sent and (np.diff(frame.times) >= 0).all()
    assert ((orders.filled_ms < 0) | (orders.filled_ms >= orders.start_ms)).all()
    assert (frame.kinds == BOOK).sum() == len(books)


def test_who_leaves_early_counts_until_then():
    upto, happened = np.array([1, 2, 3, 4]), np.array([True, False, True, False])
    rate, error = kaplan_meier(upto, happened, 10)
    assert rate == pytest.approx(1 - (3 / 4) * (1 / 2)) and error > 0
    assert kaplan_meier(upto, happened, 1)[0] == pytest.approx(1 / 4) and kaplan_meier(upto, ~happened, 1)[0] == 0
    everybody = np.array([True, True, True, True])
    assert kaplan_meier(upto, everybody, 2)[0] == pytest.approx(0.5)


@pytest.mark.recorded
def test_a_recordings_orders_fare_in_the_paper_venues_queue_as_they_fared(recordings):
    folder = recordings.parent / "orders"
    if not (folder / "bitstamp_l3_BTCUSD_20150501_events.parquet").is_file():
        pytest.skip("no order-level recordings beside the others")
    from engine.fillprob import virtual
    from engine.scoring.labels import stream_of
    from engine.settings import Matching
    frame, orders = read(folder, "bitstamp_l3_BTCUSD_20150501")
    end = np.where(orders.gone_ms >= 0, orders.gone_ms, frame.times[-1])
    keep = (orders.event >= 0) & (end - orders.start_ms > 0) & (end < frame.times[-1])
    stream, event, filled = stream_of([frame]), orders.event[keep], orders.filled_ms[keep] >= 0
    twin = virtual.fates(stream, event, orders.side[keep], orders.price[keep], orders.lots[keep], end[keep] - stream.ts[event],
                         Matching(0, 1.0, True)).first_ms >= 0
    assert filled.sum() > 200 and (twin & filled).sum() > 0.85 * filled.sum() and (twin & ~filled).sum() < 0.05 * filled.sum()
    with pytest.raises(RecordingError, match="are known"):
        read(folder, "hummingbot_orders")
