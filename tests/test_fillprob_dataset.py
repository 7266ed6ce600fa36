"""Fills into round trips: nothing lost, nothing made up, and ids made of the digits that were told."""
import doctest
import hashlib
from decimal import Decimal
from fractions import Fraction

from fills import fill, trips
from hypothesis import given
from hypothesis import strategies as st

from engine.facts import BUY, SELL
from engine.fillprob import breaker, dataset, documents, evaluation, evidence, gate, model_v0, threshold
from engine.fillprob.dataset import COLUMNS, RoundtripTracker, parts, roundtrips


def test_the_21_columns_stand_in_their_order():
    assert COLUMNS == (
        "row_id", "symbol", "direction", "entry_ts", "entry_price", "entry_qty", "entry_fee", "entry_fill_count", "exit_ts", "exit_price",
        "exit_qty", "exit_fee", "exit_fill_count", "realized_pnl", "net_pnl", "pnl_bps", "holding_time_ms", "notional", "outcome", "source",
        "dataset_version")


def test_a_long_of_two_fills_is_closed_by_two_and_is_one_row():
    [row] = roundtrips([fill(1000, BUY, "100.0", "1", fee="0.1"), fill(1500, BUY, "102.0", "1", fee="0.1"),
                        fill(2000, SELL, "103.0", "0.5", fee="0.05"), fill(2600, SELL, "105.0", "1.5", fee="0.15")])
    assert (row.direction, row.entry_ts, row.exit_ts, row.holding_time_ms) == ("long", 1000, 2600, 1600)
    assert (row.entry_price, row.exit_price, row.entry_qty, row.exit_qty) == (101.0, 104.5, 2.0, 2.0)
    assert (row.entry_fill_count, row.exit_fill_count) == (2, 2)
    assert (row.realized_pnl, row.entry_fee, row.exit_fee, row.net_pnl) == (7.0, 0.2, 0.2, 6.6)
    assert (row.notional, row.pnl_bps, row.outcome, row.source, row.dataset_version) == (202.0, 327, "win", "paper", "fill_outcomes_v1")
    assert row.row_id == hashlib.sha1(b"BTCUSDT|long|1000|2600|101.0|104.5|2").hexdigest()


def test_a_short_wins_when_the_price_falls_and_a_breakeven_is_neither():
    won, even, lost = roundtrips([fill(1, SELL, "100", "1"), fill(2, BUY, "99", "1"), fill(3, SELL, "100", "1"), fill(4, BUY, "100", "1"),
                                  fill(5, SELL, "100", "1", fee="0.01"), fill(6, BUY, "100", "1")])
    assert [r.direction for r in (won, even, lost)] == ["short"] * 3
    assert [r.outcome for r in (won, even, lost)] == ["win", "breakeven", "loss"]


def test_what_a_closing_fill_closes_too_much_opens_the_other_direction_with_its_share_of_the_fee():
    tracker = RoundtripTracker()
    assert tracker.on_fill(fill(1, BUY, "100", "1")) is None
    row = tracker.on_fill(fill(2, SELL, "101", "3", fee="0.3"))
    assert row is not None and (row.exit_qty, row.exit_fee) == (1.0, 0.1)
    [(_, trip)] = tracker.open.items()
    assert (trip.direction, trip.left, trip.entry.fee) == ("short", Decimal(2), Decimal("0.2"))
    back = tracker.on_fill(fill(3, BUY, "100", "2"))
    assert back is not None and (back.direction, back.entry_price, back.realized_pnl) == ("short", 101.0, 2.0)


def test_bps_round_half_to_even_and_a_trip_for_nothing_has_none():
    assert roundtrips([fill(1, BUY, "100", "1"), fill(2, SELL, "100.025", "1")])[0].pnl_bps == 2
    assert roundtrips([fill(1, BUY, "100", "1"), fill(2, SELL, "100.035", "1")])[0].pnl_bps == 4
    assert roundtrips([fill(1, BUY, "0", "1"), fill(2, SELL, "5", "1")])[0].pnl_bps == 0


def test_symbols_and_accounts_do_not_close_each_other_and_order_in_the_file_does_not_matter():
    fills = [fill(1, BUY, "100", "1"), fill(2, SELL, "101", "1", symbol="ETHUSDT"), fill(3, SELL, "101", "1", account="twin")]
    assert roundtrips(fills) == []
    assert roundtrips([fill(2, SELL, "101", "1"), fill(1, BUY, "100", "1")])[0].direction == "long"


QTY = st.integers(1, 5000).map(lambda n: str(Decimal(n) / 1000))
PRICE = st.integers(1, 10_000_000).map(lambda n: str(Decimal(n) / 100))
FEE = st.integers(-50, 200).map(lambda n: str(Decimal(n) / 100))
FILLS = st.lists(st.tuples(st.sampled_from((BUY, SELL)), PRICE, QTY, FEE), max_size=40)


@given(FILLS)
def test_no_quantity_no_fee_and_no_money_is_lost_on_the_way(told):
    tracker = RoundtripTracker()
    fills = [fill(k, side, price, qty, fee=fee) for k, (side, price, qty, fee) in enumerate(told)]
    rows = [row for one in fills if (row := tracker.on_fill(one))]
    signed = sum((f.quantity if f.side == BUY else -f.quantity) for f in fills)
    trip = next(iter(tracker.open.values()), None)
    left = (trip.left if trip.direction == "long" else -trip.left) if trip else 0
    assert left == signed
    cash = sum(Fraction(-f.price * f.quantity if f.side == BUY else f.price * f.quantity) - Fraction(f.fee) for f in fills)
    if trip:        # the way in and out that is not over yet
        sign = -1 if trip.direction == "long" else 1
        cash -= sign * (Fraction(trip.entry.value) - Fraction(trip.exit.value)) - Fraction(trip.entry.fee) - Fraction(trip.exit.fee)
    assert abs(float(cash) - sum(row.net_pnl for row in rows)) < 1e-6
    for row in rows:
        assert row.exit_qty == row.entry_qty and row.exit_ts >= row.entry_ts
        assert (row.net_pnl > 0) == (row.outcome == "win")


def test_the_first_share_by_time_and_the_rest_are_all_of_it():
    rows = trips(10, 4)
    first, rest = parts(rows[::-1], 0.7)
    assert [len(first), len(rest)] == [7, 3] and first + rest == rows


def test_the_examples_in_the_docstrings_run():
    for module in (breaker, dataset, documents, evaluation, evidence, gate, model_v0, threshold):
        assert not doctest.testmod(module).failed
