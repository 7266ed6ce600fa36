"""S0's three risk factors: what tail risk, doubtful fills and slippage leave of a size. Applied last, so that nothing undoes them.

A prediction that is missing or not finite scales nothing. `constrainedRiskScaling` off is `unscaled`, chosen by wiring.
"""

from math import isfinite
from typing import NamedTuple

from engine.settings import Flags, RiskScaling

RUG, FILL, SLIP = "rugProb", "pFill", "expSlipBps"
FACTORS = (RUG, FILL, SLIP)
COUNTS = 0.999     # a scale below this counts


class Predicted(NamedTuple):
    """What the predictors say of an order; None where they cannot.

    `rug_prob`: P(price beyond the stop within the holding time); `p_fill`: P(filled before it is taken back); `exp_slip_bps`: cost
    of closing it at the market, from the mid. `beyond`: the slippage reaches past what is visible, and is extrapolated.
    """

    rug_prob: float | None = None
    p_fill: float | None = None
    exp_slip_bps: float | None = None
    beyond: bool = False


class Scaling(NamedTuple):
    """The product, and the scale of each factor that counts."""

    multiplier: float
    factors: dict[str, float]


def clamp(value: float, low: float, high: float) -> float:
    """Between the two."""
    return min(max(value, low), high)


def by_tail(p: float | None, r: RiskScaling) -> float:
    """1 − 0.8·p, at least a fifth."""
    return 1.0 if p is None or not isfinite(p) else clamp(1.0 - r.rugWeight * clamp(p, 0.0, 1.0), r.rugFloor, 1.0)


def by_fill(p: float | None, r: RiskScaling) -> float:
    """p over what a good fill probability is, at least a quarter."""
    return 1.0 if p is None or not isfinite(p) else clamp(clamp(p, 0.0, 1.0) / r.pFillTarget, r.pFillFloor, 1.0)


def by_slip(bps: float | None, r: RiskScaling) -> float:
    """Whole up to what is free, then in inverse proportion, at least a fifth."""
    if bps is None or not isfinite(bps) or bps <= 0:
        return 1.0
    return clamp(r.slipFreeBps / clamp(bps, 1.0, r.slipMaxBps), r.slipFloor, 1.0)


def constrained(predicted: Predicted, r: RiskScaling) -> Scaling:
    """The product of the three; never below `minMultiplier`."""
    scales = {RUG: by_tail(predicted.rug_prob, r), FILL: by_fill(predicted.p_fill, r), SLIP: by_slip(predicted.exp_slip_bps, r)}
    product = clamp(scales[RUG] * scales[FILL] * scales[SLIP], r.minMultiplier, 1.0)
    return Scaling(product, {name: scale for name, scale in scales.items() if scale < COUNTS})


def unscaled(predicted: Predicted, r: RiskScaling) -> Scaling:
    """The size as it is."""
    return Scaling(1.0, {})


def scaling(flags: Flags):
    """Which of the two is in force (DECISIONS, 7)."""
    return constrained if flags.constrainedRiskScaling else unscaled
