"""S1's order size: its vectors, and that it never buys more than the cap, the balance or a whole lot allow."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.sizing.size import compute_order_qty, round_down


@pytest.mark.parametrize("price, free, qty", [(60_000, 2_000, 0.333), (60_000, 50_000, 0.333), (30_000, 500, 0.166)])
def test_the_documents_examples_come_out_to_the_lot(price, free, qty):
    assert compute_order_qty(price, free, 10, 20_000, 0.001) == qty


@pytest.mark.parametrize(
    "missing",
    [
        {"price": 0},
        {"free_balance": 0},
        {"leverage": 0},
        {"notional_cap_usd": 0},
        {"price": float("nan")},
        {"free_balance": float("inf")},
        {"min_free_balance": 3_000},
        {"min_qty": 0.4},
        {"min_notional": 30_000},
    ],
)
def test_what_is_missing_or_below_a_minimum_drops_the_signal_instead_of_inflating_it(missing):
    args = {"price": 60_000, "free_balance": 2_000, "leverage": 10, "notional_cap_usd": 20_000, "lot_step": 0.001} | missing
    assert compute_order_qty(**args) == 0.0


@given(st.floats(1e-3, 1e6), st.floats(0.01, 1e6), st.floats(1, 100), st.floats(1, 1e6), st.sampled_from([0.0001, 0.001, 0.1, 1.0]))
def test_a_size_is_whole_lots_and_never_past_cap_or_balance(price, free, leverage, cap, lot):
    qty = compute_order_qty(price, free, leverage, cap, lot)
    assert qty >= 0
    assert qty * price <= min(cap, free * leverage) * (1 + 1e-9)
    assert abs(qty / lot - round(qty / lot)) < 1e-6


def test_three_tenths_are_three_lots_of_a_tenth():
    assert round_down(0.3, 0.1) == 0.3
    assert round_down(0.29999, 0.1) == 0.2
