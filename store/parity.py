"""Does the exported model answer as the trained one? Asked where they can differ: at every split threshold and one ulp beside it."""
from collections.abc import Callable
from pathlib import Path

import lightgbm as lgb
import numpy as np

TOLERANCE = 1e-6
Answer = Callable[[np.ndarray], np.ndarray]   # float32[m, F] rows to probabilities [m]


class ParityError(ValueError):
    """The exported model answers differently: how much, on how many rows."""


def thresholds(booster: lgb.Booster) -> list[tuple[int, float]]:
    """(feature, threshold) of every numerical split, each once; `ParityError` for a categorical split."""
    found: set[tuple[int, float]] = set()

    def walk(node: dict) -> None:
        if "split_index" not in node:
            return
        if node["decision_type"] != "<=":
            raise ParityError(f"feature {node['split_feature']}: split {node['decision_type']!r} is not a numerical one")
        found.add((int(node["split_feature"]), float(node["threshold"])))
        walk(node["left_child"])
        walk(node["right_child"])

    for tree in booster.dump_model()["tree_info"]:
        walk(tree["tree_structure"])
    return sorted(found)


def probes(booster: lgb.Booster, rows: np.ndarray, seed: int = 0) -> np.ndarray:
    """float32[3·splits, F]: real rows with one feature moved onto a split's threshold, one ulp below it, one above."""
    splits = thresholds(booster)
    if not splits or not len(rows):
        return np.zeros((0, rows.shape[1]), np.float32)
    feature = np.array([f for f, _ in splits])
    at = np.array([t for _, t in splits], np.float64).astype(np.float32)
    low, high = np.nextafter(at, np.float32(-np.inf)), np.nextafter(at, np.float32(np.inf))
    chosen = np.random.default_rng(seed).integers(0, len(rows), 3 * len(splits))
    out = rows[chosen].astype(np.float32)
    out[np.arange(len(out)), np.tile(feature, 3)] = np.concatenate([low, at, high])
    return out


def largest_difference(booster: lgb.Booster, answer: Answer, rows: np.ndarray, seed: int = 0) -> tuple[float, int]:
    """(largest |Δp|, rows asked) between the trained model and `answer` on `rows` (float32) and on every probe of its splits."""
    asked = np.ascontiguousarray(np.concatenate([rows.astype(np.float32), probes(booster, rows, seed)]))
    apart = np.abs(np.asarray(answer(asked), np.float64) - np.asarray(booster.predict(asked.astype(np.float64))))
    return (float(apart.max()) if len(apart) else 0.0), len(asked)


def spot(booster_file: Path) -> Callable[[np.ndarray, np.ndarray], int]:
    """A check of live scores: (float32[m, F] rows, the exported model's raw probabilities) → how many differ by more than the tolerance."""
    booster = lgb.Booster(model_file=str(booster_file))

    def differing(rows: np.ndarray, raw: np.ndarray) -> int:
        return int((np.abs(np.asarray(booster.predict(rows, num_threads=1)) - raw) > TOLERANCE).sum())
    return differing


def require(booster: lgb.Booster, answer: Answer, rows: np.ndarray, seed: int = 0) -> tuple[float, int]:
    """`largest_difference`, or `ParityError` where it is above 1e-6 or not a number: such a model must not be registered."""
    apart, asked = largest_difference(booster, answer, rows, seed)
    if not apart <= TOLERANCE:
        raise ParityError(f"exported model differs from the trained one by {apart:.2e} on {asked} rows; at most {TOLERANCE:.0e} is allowed")
    return apart, asked
