"""What a choice of arm may depend on: a short vector in [0, 1] from what a scored candidate knows.

The declared features of engine/scoring/features.py are many and unbounded; a linear bandit learns by the square of its dimension,
so it sees nine. Each is (value − low)/(high − low), clamped; what is missing or no number counts as the value 0. The scales are part
of what a learned state means, so its schema is hashed from them and a state of another schema is not used.
"""
import hashlib
from collections.abc import Sequence
from math import isfinite
from typing import NamedTuple

import numpy as np

from engine.scoring.features import FEATURES


class Scale(NamedTuple):
    """One component: its name, the feature it reads ("" for what the desk hands in), and the values that become 0 and 1."""
    name: str
    feature: str
    low: float
    high: float
    meaning: str


DECLARED = (
    Scale("one", "", 0.0, 1.0, "always 1: the arm's own mean"),
    Scale("spread", "spread", 0.0, 5.0, "bps: a wide spread pays who rests in it"),
    Scale("sigma", "sigma", 0.0, 20.0, "bps of ten seconds: a fast market reaches further orders, and runs over near ones"),
    Scale("imbalance", "aligned_imbalance", -1.0, 1.0, "depth on the own side: a long queue in front, a price that moves away"),
    Scale("flow", "aligned_flow", -1.0, 1.0, "aggressors on the own side in the slow window: they leave a resting order behind"),
    Scale("intensity", "trade_intensity_slow", 0.0, 20.0, "trades a second: whether a queue moves at all"),
    Scale("burst", "volatility_burst", 0.0, 5.0, "standard deviations: something is going on right now"),
    Scale("confidence", "", 0.5, 1.0, "the calibrated probability of the target"),
    Scale("exposure", "", 0.0, 1.0, "margin in use as a share of the equity"),
)
NAMES = tuple(s.name for s in DECLARED)
DIMENSION = len(DECLARED)
SCHEMA = hashlib.sha256("|".join(f"{s.name}:{s.feature}:{s.low!r}:{s.high!r}" for s in DECLARED).encode()).hexdigest()[:16]
COLUMNS = tuple(FEATURES.index(s.feature) if s.feature else -1 for s in DECLARED)


def scaled(value: float, low: float, high: float) -> float:
    """(value − low)/(high − low) within [0, 1]; a value that is no finite number counts as 0.

    >>> scaled(2.5, 0.0, 5.0), scaled(9.0, 0.0, 5.0), scaled(float("nan"), -1.0, 1.0)
    (0.5, 1.0, 0.5)
    """
    if not isfinite(value):
        value = 0.0
    return min(max((value - low) / (high - low), 0.0), 1.0)


def context_of(features: bytes | Sequence[float], p: float, exposure_usd: float, equity_usd: float) -> list[float]:
    """float[`DIMENSION`] in [0, 1], in the order of `NAMES`.

    `features` is the candidate's row (float32 bytes, or numbers) in the declared order; a row of another length says nothing, and
    every feature counts as 0. `p` is the calibrated probability; `exposure_usd` the margin in use.
    """
    row = np.frombuffer(features, np.float32).tolist() if isinstance(features, bytes) else list(features)
    known = len(row) == len(FEATURES)
    handed = {"one": 1.0, "confidence": p, "exposure": exposure_usd / equity_usd if equity_usd > 0 else 1.0}
    return [scaled(handed[s.name] if column < 0 else row[column] if known else 0.0, s.low, s.high) for s, column in zip(DECLARED, COLUMNS)]
