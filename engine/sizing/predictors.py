"""What is expected of an order before it is sent: tail risk, slippage, fill. Real estimates behind ports (DECISIONS, 7 and 72).

Everything comes from the features of the signal, which are those of the event itself, and from the depth that the desk sees.
"""

from math import atan, cos, exp, isfinite, pi, sin, sqrt
from typing import NamedTuple, Protocol

import msgspec
import numpy as np

from engine.scoring.features import FEATURES
from engine.settings import TailModel
from engine.sizing.risk import Predicted, clamp

TEN_SECONDS_MS = 10_000
AT = {name: FEATURES.index(name) for name in ("sigma", "depth_bids", "depth_asks", "touch_bids", "touch_asks", "gap_bids", "gap_asks",
                                              "spread", "qi", "depth_imbalance")}


class Moment(msgspec.Struct, frozen=True, gc=False):
    """The market as an order of one side finds it.

    `sigma_bps`: realised volatility of ten seconds. `own_depth`: ln of the own side's depth over its mean. `queue`: 0…1, 1 where
    all that usually rests, and far more, stands before the order. `qi` and `depth`: 0…1, the other side's share of the near queue
    and of the whole depth (what is likely to trade into the order). `gap_bps`: from the best to the second level of the own side.
    """

    sigma_bps: float
    own_depth: float
    queue: float
    qi: float
    depth: float
    spread_bps: float
    gap_bps: float


def moment(features: bytes, sign: int) -> Moment | None:
    """The moment in a candidate's float32 features; `sign` +1 buys. None where they are not the declared ones."""
    row = np.frombuffer(features, np.float32)
    if len(row) != len(FEATURES):
        return None
    f = {name: float(row[k]) for name, k in AT.items()}
    own = "bids" if sign > 0 else "asks"
    return Moment(f["sigma"], f[f"depth_{own}"], queue_share(exp(clamp(f[f"touch_{own}"], -20.0, 20.0))), 0.5 * (1.0 - sign * f["qi"]),
                  0.5 * (1.0 - sign * f["depth_imbalance"]), f["spread"], f[f"gap_{own}"])


def queue_share(ahead: float) -> float:
    """S1's queue position proxy: what stands before an order, in usual sizes of the touch, brought to 0…1.

    >>> queue_share(0.0), queue_share(1.0), queue_share(3.0)
    (0.0, 0.5, 0.75)
    """
    return ahead / (1.0 + ahead)


class TailRisk(Protocol):
    """P(price at or beyond the stop within the holding time)."""

    def p(self, now: Moment, stop_bps: float, holding_ms: int) -> float: ...


class Slippage(Protocol):
    """What closing so many lots at the market costs."""

    def of(self, lots: float, depth: "Depth") -> "Slip": ...


class FillCurve(Protocol):
    """P(a resting order is filled before it is taken back); `level` counts steps of the ladder behind the touch, `step_bps` wide each."""

    @property
    def id(self) -> str: ...

    def p(self, now: Moment, level: float, step_bps: float = 0.0) -> float: ...


def beyond_t(t: float, degrees: int) -> float:
    """P(|T| > t) of Student's t, by its finite series for whole degrees (Abramowitz & Stegun 26.7.3–4).

    >>> round(beyond_t(2.776445, 4), 6), round(beyond_t(12.7062, 1), 6), beyond_t(0.0, 3)
    (0.05, 0.05, 1.0)
    """
    angle, odd = atan(t / sqrt(degrees)), degrees % 2
    term, total = cos(angle) ** odd, 0.0
    for k in range(odd, degrees - 1, 2):     # the powers of the cosine that the series has
        if k > odd:
            term *= (k - 1) / k * cos(angle) ** 2
        total += term
    within = 2 / pi * (angle + sin(angle) * total) if odd else sin(angle) * total
    return 1.0 - within


class Diffusion:
    """A driftless price touches a distance d within H with twice the probability of ending beyond it (reflection principle).

    The end is Student's t, not normal, since volatility itself moves; and a side that is thinner than it was gives way further.
    """

    def __init__(self, model: TailModel):
        self.model = model

    def p(self, now: Moment, stop_bps: float, holding_ms: int) -> float:
        """P(at or beyond `stop_bps` within `holding_ms`), 0…1; not a number in gives not a number out."""
        m = self.model
        if not isfinite(now.sigma_bps + now.own_depth + stop_bps):
            return float("nan")
        if stop_bps <= 0:
            return 1.0
        thin = clamp(-now.own_depth, 0.0, m.thinMax)
        unit = m.scale * sqrt((now.sigma_bps**2 + m.floorBps**2) * holding_ms / TEN_SECONDS_MS) * exp(m.thinWeight * thin)
        return beyond_t(stop_bps / unit, m.degrees) if unit > 0 else 0.0


class Depth(NamedTuple):
    """The levels of a side that are known, best first: distance from the mid in bps, and lots."""

    bps: tuple[float, ...]
    lots: tuple[float, ...]


def levels(lots: float, count: int, spread_bps: float, gap_bps: float) -> Depth:
    """The near side where only the sum of its first levels is known: half a spread away, a gap apart, evenly filled.

    >>> levels(9.0, 3, 2.0, 0.5)
    Depth(bps=(1.0, 1.5, 2.0), lots=(3.0, 3.0, 3.0))
    """
    return Depth(tuple(0.5 * spread_bps + k * gap_bps for k in range(count)), (lots / count,) * count)


class Slip(NamedTuple):
    """Mean distance from the mid in bps; `beyond`: more was asked than is visible, and the rest is extrapolated."""

    bps: float
    beyond: bool


class Walk:
    """Takes the visible levels one after the other; behind the last the side goes on as densely as it is shown."""

    def of(self, lots: float, depth: Depth) -> Slip:
        """The slippage of `lots`; not a number where no book is known."""
        shown = sum(depth.lots)
        if not shown > 0 or not lots >= 0:
            return Slip(float("nan"), True)
        if lots == 0:
            return Slip(depth.bps[0], False)
        left, paid = lots, 0.0
        for bps, there in zip(depth.bps, depth.lots, strict=True):
            taken = min(left, there)
            paid += taken * bps
            left -= taken
        if left > 0:
            # as many lots a bps as from the mid to the last visible level
            paid += left * (depth.bps[-1] + 0.5 * left * depth.bps[-1] / shown)
        return Slip(paid / lots, left > 0)


class Predictors(NamedTuple):
    """The three ports as they are wired."""

    tail: TailRisk
    fill: FillCurve
    slippage: Slippage

    def of(self, now: Moment | None, stop_bps: float, holding_ms: int, level: float, step_bps: float, lots: float, near_lots: float,
           near: int) -> Predicted:
        """What they say of an order of `lots`; nothing where the moment is not known.

        `near_lots` rest on the first `near` levels of the own side, where it would be closed.
        """
        if now is None:
            return Predicted()
        slip = self.slippage.of(lots, levels(near_lots, near, now.spread_bps, now.gap_bps))
        return Predicted(self.tail.p(now, stop_bps, holding_ms), self.fill.p(now, level, step_bps), slip.bps, slip.beyond)
