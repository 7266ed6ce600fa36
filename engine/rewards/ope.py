"""What another policy would have earned on the same orders: off-policy values from logged rows, with what they are worth.

A row is (context, arm, the probability with which the arm was drawn, reward). Importance sampling weighs each reward by π(arm)/p:
unbiased, and as uncertain as the weights are large (`ips`). Divided by the weights' sum it is steadier (`snips`). Doubly robust, a
ridge model of the reward speaks for every arm and the weighted residual of the drawn one corrects it (`dr`; Dudík, Langford & Li 2011):
unbiased since p is known, whatever the model says, as long as no row helps to fit the model that speaks of it (cross-fitting).

Each value has two intervals: `normal`, by the central limit theorem with Student's quantile; and `bernstein`, which holds for any number
of independent rows (Maurer & Pontil 2009, theorem 4), and is therefore wide, all of [−1, 1] where weights are large and rows few. Rows of
a bandit that learns meanwhile depend on earlier ones: the values stay unbiased, the intervals are then approximate. Clipping weights
biases towards 0, and is therefore counted.
"""
from math import inf, log, nan, sqrt
from statistics import NormalDist
from typing import NamedTuple

import numpy as np

LOW, HIGH = -1.0, 1.0       # rewards lie between
FOLDS, PENALTY = 5, 1.0
SPREAD = 3.0                # effective rows below which a spread says nothing: one degree of freedom is the mean's
HOWS = ("ips", "snips", "dr")


class Log(NamedTuple):
    """`contexts` float64[n, d]; `arms` int64[n], indices into `names`; `propensities` and `rewards` float64[n].

    `least`: no arm was ever drawn with a smaller probability, also where the rows do not show it (ε/K of the bandit's settings).
    """
    names: tuple[str, ...]
    contexts: np.ndarray
    arms: np.ndarray
    propensities: np.ndarray
    rewards: np.ndarray
    least: float

    @property
    def n(self) -> int:
        """How many rows."""
        return len(self.arms)

    def rows(self, which) -> "Log":
        """Some of them, by a slice or a mask."""
        return self._replace(contexts=self.contexts[which], arms=self.arms[which], propensities=self.propensities[which],
                             rewards=self.rewards[which])


class Interval(NamedTuple):
    """Between which values it lies, with the confidence asked for."""
    low: float
    high: float


class Estimate(NamedTuple):
    """A value and its doubts. `ess` (Σw)²/Σw² rows would say as much if they were the policy's own; `clipped` is the share of weights cut.

    NaN where the log has no row of what the policy does.
    """
    how: str
    value: float
    normal: Interval
    bernstein: Interval
    ess: float
    clipped: float


def checked(names, contexts, arms, propensities, rewards, least: float | None = None) -> Log:
    """A log of these columns; `ValueError` names the first row that cannot be one."""
    log_ = Log(tuple(names), np.asarray(contexts, np.float64), np.asarray(arms, np.int64), np.asarray(propensities, np.float64),
               np.asarray(rewards, np.float64), 0.0)
    wrong = ~np.isfinite(log_.rewards) | (log_.rewards < LOW) | (log_.rewards > HIGH)
    if wrong.any():
        raise ValueError(f"row {int(wrong.argmax())}: reward {log_.rewards[wrong][0]} is not between {LOW:g} and {HIGH:g}")
    wrong = ~((log_.propensities > 0) & (log_.propensities <= 1))
    if wrong.any():
        raise ValueError(f"row {int(wrong.argmax())}: propensity {log_.propensities[wrong][0]} is not above 0 and at most 1")
    wrong = ~np.isfinite(log_.contexts).all(axis=1)
    if wrong.any():
        raise ValueError(f"row {int(wrong.argmax())}: the context holds a number that is none")
    seen = float(log_.propensities.min()) if log_.n else 1.0
    if least is not None and not 0 < least <= seen:
        raise ValueError(f"least propensity {least:g}: above 0 and at most {seen:g}, the least of the rows, was expected")
    return log_._replace(least=seen if least is None else least)


# policies: float64[n, K], the probability of each arm at each row


def fixed(log_: Log, arm: str) -> np.ndarray:
    """Always this arm."""
    out = np.zeros((log_.n, len(log_.names)))
    out[:, log_.names.index(arm)] = 1.0
    return out


def uniform(log_: Log) -> np.ndarray:
    """Any arm."""
    return np.full((log_.n, len(log_.names)), 1.0 / len(log_.names))


def deterministic(log_: Log, picks: list[str]) -> np.ndarray:
    """At each row the arm that is named for it."""
    out = np.zeros((log_.n, len(log_.names)))
    out[np.arange(log_.n), [log_.names.index(p) for p in picks]] = 1.0
    return out


# intervals


def _normal(mean: float, errors: np.ndarray, scale: float, confidence: float) -> Interval:
    """Of a mean whose terms err by `errors`, in units of `scale`. A few large terms make its variance as uncertain as a few rows would,
    hence Student's quantile at (Σe²)²/Σe⁴ degrees of freedom."""
    n, most = len(errors), float(np.abs(errors).max(initial=0.0))
    if n < 2:
        return Interval(LOW, HIGH)
    if most == 0.0:
        return _about(mean, 0.0)
    squares = (errors / most) ** 2
    total = float(squares.sum())
    freedom = total * total / float((squares * squares).sum()) - 1.0
    if freedom < 2:
        return Interval(LOW, HIGH)
    return _about(mean, student(0.5 + confidence / 2, freedom) * most * sqrt(total / (n - 1) / n) / scale)


def _about(mean: float, half: float) -> Interval:
    """mean ± half, within what rewards can be; the weighted mean itself may lie beyond."""
    return Interval(min(max(mean - half, LOW), HIGH), max(min(mean + half, HIGH), LOW))


def student(level: float, freedom: float) -> float:
    """Quantile of Student's t by its expansion about the normal one (Abramowitz & Stegun 26.7.5); 1 % off at 3 degrees of freedom.

    >>> round(student(0.975, 10), 2), round(student(0.975, 1e9), 4)
    (2.23, 1.96)
    """
    z = NormalDist().inv_cdf(level)
    terms = ((z**3 + z) / 4, (5 * z**5 + 16 * z**3 + 3 * z) / 96, (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384,
             (79 * z**9 + 776 * z**7 + 1482 * z**5 - 1920 * z**3 - 945 * z) / 92160)
    return z + sum(term / freedom**(i + 1) for i, term in enumerate(terms))


def radius(variance: float, n: int, width: float, confidence: float) -> float:
    """Half of the empirical Bernstein interval of a mean of n independent terms that lie in a range of this width."""
    if n < 2:
        return inf
    doubt = log(4.0 / (1.0 - confidence))
    return sqrt(2.0 * variance * doubt / n) + 7.0 * width * doubt / (3.0 * (n - 1))


def _of_terms(how: str, terms: np.ndarray, width: float, confidence: float, ess: float, clipped: float) -> Estimate:
    n, mean = len(terms), float(terms.mean())
    half = radius(float(terms.var(ddof=1)) if n > 1 else 0.0, n, width, confidence)
    return Estimate(how, mean, _normal(mean, terms - mean, 1.0, confidence), _about(mean, half), ess, clipped)


# estimators


def weights(log_: Log, policy: np.ndarray, clip: float | None = None) -> tuple[np.ndarray, float, float]:
    """π/p of each row, the most that it can be, and the share that was cut to `clip`."""
    raw = policy[np.arange(log_.n), log_.arms] / log_.propensities
    most = float(policy.max()) / log_.least
    if clip is None or most <= clip:
        return raw, most, 0.0
    return np.minimum(raw, clip), clip, float((raw > clip).mean())


def on_policy(log_: Log, confidence: float = 0.95) -> Estimate:
    """What the policy that wrote the log earned: the mean."""
    if not log_.n:
        return nothing("mean")
    return _of_terms("mean", log_.rewards, HIGH - LOW, confidence, float(log_.n), 0.0)


def nothing(how: str) -> Estimate:
    """No row speaks for the policy."""
    return Estimate(how, nan, Interval(LOW, HIGH), Interval(LOW, HIGH), 0.0, 0.0)


def ips(log_: Log, policy: np.ndarray, confidence: float = 0.95, clip: float | None = None) -> Estimate:
    """mean(w·r)."""
    w, most, clipped = weights(log_, policy, clip)
    if not w.any():
        return nothing("ips")
    return _of_terms("ips", w * log_.rewards, most * (HIGH - LOW), confidence, effective(w), clipped)


def snips(log_: Log, policy: np.ndarray, confidence: float = 0.95, clip: float | None = None) -> Estimate:
    """Σ w·r / Σ w. Where it is the mean of next to one row it errs by nothing that the rows could show: its normal interval is then all
    that rewards can be. Its Bernstein interval is the set of values v for which mean(w·(r − v)) may be 0, which at the true one it is."""
    w, most, clipped = weights(log_, policy, clip)
    if not w.any():
        return nothing("snips")
    n, value = log_.n, float((w * log_.rewards).sum() / w.sum())

    def possible(v: float) -> bool:
        terms = w * (log_.rewards - v)
        return n < 2 or abs(float(terms.mean())) <= radius(float(terms.var(ddof=1)), n, most * (HIGH - LOW), confidence)

    normal = _normal(value, w * (log_.rewards - value), float(w.mean()), confidence) if effective(w) >= SPREAD else Interval(LOW, HIGH)
    return Estimate("snips", value, normal,
                    Interval(_edge(possible, value, LOW), _edge(possible, value, HIGH)), effective(w), clipped)


def _edge(possible, inside: float, outside: float) -> float:
    """The last possible value on the way from one that is to a bound, by halving."""
    if possible(outside):
        return outside
    for _ in range(40):
        middle = 0.5 * (inside + outside)
        inside, outside = (middle, outside) if possible(middle) else (inside, middle)
    return outside


def dr(log_: Log, policy: np.ndarray, confidence: float = 0.95, clip: float | None = None, model: np.ndarray | None = None) -> Estimate:
    """mean(Σₐ π(a)·q(a) + w·(r − q)), q a cross-fitted ridge model; `model` where it was computed before."""
    w, most, clipped = weights(log_, policy, clip)
    if not w.any():
        return nothing("dr")
    q = crossfitted(log_) if model is None else model
    terms = (policy * q).sum(axis=1) + w * (log_.rewards - q[np.arange(log_.n), log_.arms])
    return _of_terms("dr", terms, (HIGH - LOW) * (1.0 + 2.0 * most), confidence, effective(w), clipped)


def crossfitted(log_: Log, folds: int = FOLDS, penalty: float = PENALTY) -> np.ndarray:
    """float64[n, K]: the reward of each arm at each row by ridge regressions that have not seen the row's fold (row number mod `folds`).

    They are shrunk towards the mean of the rows seen, and kept within the range of rewards.
    """
    n, k, d = log_.n, len(log_.names), log_.contexts.shape[1]
    cell = np.arange(n) % folds * k + log_.arms              # fold and arm of each row
    gram, xy, x1 = np.zeros((folds, k, d, d)), np.zeros((folds, k, d)), np.zeros((folds, k, d))
    for c in np.unique(cell):
        x, y = log_.contexts[cell == c], log_.rewards[cell == c]
        gram[c // k, c % k], xy[c // k, c % k], x1[c // k, c % k] = x.T @ x, x.T @ y, x.sum(axis=0)
    out = np.zeros((n, k))
    for f in range(folds):
        held, others = np.arange(n) % folds == f, np.arange(folds) != f
        mean = float(log_.rewards[~held].mean()) if not held.all() else 0.0
        right = xy[others].sum(axis=0) - mean * x1[others].sum(axis=0)
        theta = np.linalg.solve(penalty * np.eye(d) + gram[others].sum(axis=0), right[..., None])[..., 0]
        out[held] = np.clip(log_.contexts[held] @ theta.T + mean, LOW, HIGH)
    return out


def effective(w: np.ndarray) -> float:
    """(Σw)²/Σw²."""
    square = float((w * w).sum())
    return float(w.sum()) ** 2 / square if square > 0 else 0.0


def values(log_: Log, policy: np.ndarray, confidence: float = 0.95, clip: float | None = None,
           model: np.ndarray | None = None) -> tuple[Estimate, ...]:
    """All three, in the order of `HOWS`."""
    return ips(log_, policy, confidence, clip), snips(log_, policy, confidence, clip), dr(log_, policy, confidence, clip, model)
