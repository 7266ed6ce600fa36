"""What a probability is worth: ranking, sharpness and honesty, as plain numbers of (p, y)."""
import numpy as np


def average_precision(p: np.ndarray, y: np.ndarray) -> float:
    """Area under the precision–recall curve (step-wise, equal scores together); the base rate is what chance reaches.

    >>> average_precision(np.array([.9, .8, .1]), np.array([1, 0, 1]))
    0.8333333333333333
    """
    y = np.asarray(y, np.float64)
    if len(y) == 0 or y.sum() == 0:
        return float("nan")
    order = np.argsort(-np.asarray(p), kind="stable")
    ranked, hits = np.asarray(p)[order], np.cumsum(y[order])
    last = np.append(np.nonzero(np.diff(ranked))[0], len(y) - 1)
    precision, recall = hits[last] / (last + 1), hits[last] / hits[-1]
    return float(np.sum(np.diff(recall, prepend=0.0) * precision))


def brier(p: np.ndarray, y: np.ndarray) -> float:
    """Mean squared error of the probabilities; base·(1 − base) is what saying the base rate reaches."""
    return float(np.mean((np.asarray(p) - np.asarray(y)) ** 2)) if len(p) else float("nan")


def reliability(p: np.ndarray, y: np.ndarray, bins: int = 10) -> list[dict[str, float]]:
    """One row for each equal-width bin of p that holds rows: {low, high, n, predicted, observed}."""
    p, y = np.asarray(p, np.float64), np.asarray(y, np.float64)
    at = np.clip((p * bins).astype(np.int64), 0, bins - 1)
    return [{"low": k / bins, "high": (k + 1) / bins, "n": int(n), "predicted": float(p[at == k].mean()),
             "observed": float(y[at == k].mean())} for k in range(bins) if (n := np.count_nonzero(at == k))]


def ece(p: np.ndarray, y: np.ndarray, bins: int = 10) -> float:
    """Expected calibration error: the mean distance of said and seen, weighted by rows."""
    rows = reliability(p, y, bins)
    return sum(r["n"] * abs(r["predicted"] - r["observed"]) for r in rows) / len(p) if rows else float("nan")


def precision_recall(p: np.ndarray, y: np.ndarray, tau: float) -> dict[str, float]:
    """{support, share, precision, recall} of the rows with p ≥ tau; precision is NaN without one."""
    y = np.asarray(y, np.float64)
    chosen = np.asarray(p) >= tau
    n, hits, won = int(chosen.sum()), float(y[chosen].sum()), float(y.sum())
    return {"support": n, "share": n / len(y) if len(y) else float("nan"), "precision": hits / n if n else float("nan"),
            "recall": hits / won if won else float("nan")}
