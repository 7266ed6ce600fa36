"""What an order's end is worth to the arm that shaped it, in [−1, 1].

`net`: everything in basis points of the notional that the desk *wanted* before the arm took its part, so that a small size, a
partial fill and no fill are comparable: the result after fees over that notional, less `unfilled_bps` for each share of it that
was not bought. Then x/√(1 + x²) of bps/`scale_bps`: nearly proportional below the scale, bounded beyond it. `slippage` is S0's:
1 − min(1, |slippage|/scale) for a fill of any size, a constant without one. One reward an order, at its end (DECISIONS, 73).
"""
from math import sqrt

import msgspec

from engine.settings import RewardSettings


class Ended(msgspec.Struct, frozen=True):
    """The end of an entry: closed again, or ended without a fill.

    `wanted_usd` is the notional before the arm's fraction, `filled_usd` what was bought of it, `net_usd` the result after all fees;
    `slip_bps` the mean entry price against the decided one, positive when worse. `order_id` empty: not known whose it is.
    """
    order_id: str
    symbol: str
    ts_ms: int
    wanted_usd: float
    filled_usd: float = 0.0
    net_usd: float = 0.0
    slip_bps: float = 0.0


def squashed(x: float) -> float:
    """x/√(1 + x²): within (−1, 1), increasing, its own negative mirrored.

    >>> squashed(0.0), squashed(1.0) == -squashed(-1.0), round(squashed(1.0), 4)
    (0.0, True, 0.7071)
    """
    return x / sqrt(1.0 + x * x)


def net(ended: Ended, s: RewardSettings) -> float:
    """The result over the wanted notional, less what the part that was not bought may have brought."""
    wanted = max(ended.wanted_usd, ended.filled_usd)
    missed = 1.0 - ended.filled_usd / wanted if wanted > 0 else 1.0
    bps = 1e4 * ended.net_usd / wanted if wanted > 0 else 0.0
    return squashed((bps - s.unfilled_bps * missed) / s.scale_bps)


def slippage(ended: Ended, s: RewardSettings) -> float:
    """S0's form."""
    if ended.filled_usd <= 0:
        return s.slippage_unfilled
    return max(0.0, 1.0 - min(1.0, abs(ended.slip_bps) / s.slippage_scale_bps))


FORMS = {"net": net, "slippage": slippage}
