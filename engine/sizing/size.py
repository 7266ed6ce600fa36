"""S1's order size: what a notional buys in whole lots, rounded down, dropped rather than lifted below a minimum."""

from math import floor, isfinite


def round_down(qty: float, step: float) -> float:
    """Whole steps, never up; `step` 0 leaves the quantity as it is.

    >>> round_down(20_000 / 60_000, 0.001)
    0.333
    """
    if step <= 0:
        return qty
    lots = floor(qty / step + 1e-12)
    return round(lots * step, 12)


def compute_order_qty(
    price: float,
    free_balance: float,
    leverage: float,
    notional_cap_usd: float,
    lot_step: float,
    min_qty: float = 0.0,
    min_notional: float = 0.0,
    min_free_balance: float = 0.0,
) -> float:
    """floor(min(cap, free × leverage) / price / lot) × lot; 0 where anything is missing, non-finite or below a minimum (S1).

    >>> compute_order_qty(60_000, 2_000, 10, 20_000, 0.001)
    0.333
    >>> compute_order_qty(30_000, 500, 10, 20_000, 0.001)
    0.166
    """
    if (
        not all(map(isfinite, (price, free_balance, leverage, notional_cap_usd)))
        or min(price, free_balance, leverage, notional_cap_usd) <= 0
    ):
        return 0.0
    if free_balance < min_free_balance:
        return 0.0
    qty = round_down(min(notional_cap_usd, free_balance * leverage) / price, lot_step)
    return 0.0 if qty < min_qty or qty * price < min_notional else qty
