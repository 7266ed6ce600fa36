"""Whether a resting order will be filled in time: S1's formula while nothing is known, then a curve fitted to paper fills, or FillModelV1.

All are read through the port `FillCurve`. The fitted curve is a logistic regression whose probability never rises with the
distance from the touch nor with the queue before the order, however the rows may look.
"""

from math import exp, isfinite

import numpy as np

from engine.facts import BUY
from engine.fillprob import model_v1
from engine.fillprob.model_v0 import ALL_BPS
from engine.fillprob.model_v1 import FillModelV1
from engine.fillprob.placement import Act, Placement
from engine.sizing.curve import COLUMNS, DEPTH, DISTANCE, FORMULA, QUEUE, Curve, Decile, FillParameters
from engine.sizing.predictors import Moment
from engine.sizing.risk import clamp

FADES = 0.35           # S1's: how fast a level of the ladder fades; stands in where the rows know one distance only
RIDGE = 1e-3           # a pull of every weight to 0, in rows, so that columns that say the same have a finite answer
DECILES = 10


def s1_fill(queue: float, qi: float, depth: float, level: float, spread: float) -> float:
    """S1: (.3 + .35·(1 − queue) + .25·qi + .2·depth)·exp(−.35·level) − .05·spread, within 0.05 and 0.95.

    >>> round(s1_fill(0.5, 0.5, 0.5, 0, 1), 3), s1_fill(0, 1, 1, 0, 0), s1_fill(1, 0, 0, 9, 1)
    (0.65, 0.95, 0.05)
    """
    return clamp((0.3 + 0.35 * (1.0 - queue) + 0.25 * qi + 0.2 * depth) * exp(-FADES * level) - 0.05 * spread, 0.05, 0.95)


class Formula:
    """S1's curve, unfitted; the spread counts in bps, so that it means the same at any price."""

    id = FORMULA

    def p(self, now: Moment, level: float, step_bps: float = 0.0) -> float:
        """0.05…0.95; inside the spread as at the touch."""
        return s1_fill(now.queue, now.qi, now.depth, max(level, 0.0), now.spread_bps)


class FittedCurve:
    """The logistic curve of these parameters; `ValueError` where they are of other columns than these."""

    def __init__(self, parameters: FillParameters, id: str = "fitted"):
        if tuple(parameters.columns) != COLUMNS or len(parameters.weights) != len(COLUMNS):
            raise ValueError(f"fill curve of {', '.join(parameters.columns)}: expected {', '.join(COLUMNS)}")
        self.parameters, self.id = parameters, id

    def p(self, now: Moment, level: float, step_bps: float = 0.0) -> float:
        """0…1; inside the spread as at the touch. Not a number in gives not a number out."""
        behind = max(level, 0.0)
        z = self.parameters.intercept
        for weight, value in zip(self.parameters.weights, (now.queue, now.qi, now.depth, behind * step_bps, now.spread_bps), strict=True):
            z += weight * value
        if not isfinite(z):
            return float("nan")
        return exp(-self.parameters.fades * behind) / (1.0 + exp(-clamp(z, -40.0, 40.0)))


class Modelled:
    """FillModelV1 behind the port: P(the first lot is filled within the order's own patience), for one order at a time.

    It asks for more than a moment: `at` binds it to an order's placement. Unbound, or where the market is not known, it answers NaN.
    """

    def __init__(self, model: FillModelV1, found: Placement | None = None, side: str = BUY, step_ticks: int = 1):
        self.model, self.found, self.side, self.step_ticks = model, found, side, step_ticks
        self.id = f"fm-{model.fingerprint[:12]}"

    def at(self, found: Placement, side: str, step_ticks: int) -> "Modelled":
        """The same for an order of this side with this market around it, a level `step_ticks` wide."""
        return Modelled(self.model, found, side, step_ticks)

    def p(self, now: Moment, level: float, step_bps: float = 0.0) -> float:
        """0…1."""
        if self.found is None or not isfinite(level):
            return float("nan")
        own, way = (self.found.bid, -1) if self.side == BUY else (self.found.ask, 1)
        price = (own + way * round(level * max(1, self.step_ticks))) * self.found.tick
        row = self.model.served(Act("PLACE", "", self.side, price, 1.0, placement=self.found))
        return float("nan") if row is None else self.model.predict(row) / ALL_BPS


InForce = Formula | FittedCurve | Modelled


def wired(curve: Curve | None, model: str = "") -> InForce:
    """The curve in force: the model whose file's text this is, else the fitted one, else S1's formula."""
    if model:
        return Modelled(model_v1.of_json(model.encode()))
    return Formula() if curve is None else FittedCurve(curve.parameters, curve.id)


def fit(rows: np.ndarray, filled: np.ndarray, rounds: int = 50) -> FillParameters:
    """The curve of greatest likelihood: `rows` float[n, 5] in the order of `COLUMNS`, `filled` 0 or 1 [n].

    A weight of queue or distance that came out positive is set to 0 and the rest is fitted again. Rows of one distance only say
    nothing of the others: then S1's fading stands in. `ValueError` for rows that are not finite, or without both outcomes.
    """
    x, y = np.asarray(rows, np.float64), np.asarray(filled, np.float64)
    if x.ndim != 2 or x.shape[1] != len(COLUMNS) or len(x) != len(y):
        raise ValueError(f"fill rows of shape {x.shape} and {y.shape}: expected (n, {len(COLUMNS)}) and (n,)")
    if not (np.isfinite(x).all() and np.isin(y, (0.0, 1.0)).all()):
        raise ValueError("fill rows: every value must be finite, and filled 0 or 1")
    if y.sum() in (0, len(y)):
        raise ValueError(f"fill rows need both outcomes: {y.sum():.0f} of {len(y)} were filled")
    free = np.ptp(x, axis=0) > 0
    fades = 0.0 if free[DISTANCE] else FADES
    while True:
        weights, intercept = _newton(x, y, free, rounds)
        wrong = [k for k in (QUEUE, DISTANCE) if weights[k] > 0]
        if not wrong:
            break
        free[wrong] = False
    return FillParameters(intercept, weights.tolist(), list(COLUMNS), fades, len(x), float(y.mean()), deciles(x, y))


def _newton(x: np.ndarray, y: np.ndarray, free: np.ndarray, rounds: int) -> tuple[np.ndarray, float]:
    """Newton's method with halved steps on the free columns; the others weigh nothing."""
    centre, width = x[:, free].mean(axis=0), x[:, free].std(axis=0)
    a = np.column_stack([np.ones(len(x)), (x[:, free] - centre) / width])
    pull = RIDGE * np.eye(a.shape[1])
    pull[0, 0] = 0.0
    share = y.mean()
    b = np.zeros(a.shape[1])
    b[0] = np.log(share / (1 - share))

    def loss(b: np.ndarray) -> float:
        z = a @ b
        return float(np.sum(np.logaddexp(0, z) - y * z) + 0.5 * b @ pull @ b)
    now = loss(b)
    for _ in range(rounds):
        p = 1 / (1 + np.exp(-np.clip(a @ b, -40, 40)))
        step = np.linalg.solve(a.T @ (a * (p * (1 - p))[:, None]) + pull + 1e-9 * np.eye(len(b)), a.T @ (p - y) + pull @ b)
        size = 1.0
        while size > 1e-9 and (then := loss(b - size * step)) > now:
            size /= 2
        if size <= 1e-9 or now - then < 1e-10 * len(x):
            break
        b, now = b - size * step, then
    weights = np.zeros(x.shape[1])
    weights[free] = b[1:] / width
    return weights, float(b[0] - np.sum(b[1:] * centre / width))


def deciles(rows: np.ndarray, filled: np.ndarray) -> list[Decile]:
    """S1's empirical curve: what share was filled in each tenth of the rows by queue position."""
    order = np.argsort(rows[:, QUEUE], kind="stable")
    return [Decile(float(rows[part[-1], QUEUE]), float(filled[part].mean()), float(rows[part, DEPTH].mean()), len(part))
            for part in np.array_split(order, DECILES) if len(part)]
