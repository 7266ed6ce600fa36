"""FillModelV1 on orders whose fate is known: the report of `evaluation.py`, in which to win is to be filled.

A threshold's cost score then weighs orders that were let through and filled against orders that were blocked and would not have been.
Features are the same in fitting and in serving, so that the figures as served are the figures.
"""
from typing import Any

import numpy as np

from engine.fillprob.evaluation import COST_RATIO, AsServed, reported, worst
from engine.fillprob.model_v0 import ALL_BPS, rate_bps
from engine.fillprob.model_v1 import FillModelV1
from engine.scoring import quality

BIN_BPS = 1000
ECE_BINS = 20


def bins(bps: np.ndarray, happened: np.ndarray) -> list[dict[str, Any]]:
    """A calibration by what was said: int bps[m] in tenths of the range, mean said against what happened."""
    where = np.minimum(bps // BIN_BPS, ALL_BPS // BIN_BPS - 1)
    out = []
    for k in np.unique(where).tolist():
        here = where == k
        n = int(here.sum())
        said, actual = (2 * int(bps[here].sum()) + n) // (2 * n), rate_bps(int(happened[here].sum()), n)
        out.append({"bin_key": f"p|{k * BIN_BPS:04d}", "predicted_bps": said, "actual_bps": actual, "n_samples": n,
                    "error_bps": abs(said - actual)})
    return out


def measured(bps: np.ndarray, happened: np.ndarray) -> dict[str, float]:
    """Brier, its value for the base rate, AUC, expected calibration error in `ECE_BINS`, base rate and mean of what was said."""
    p, y = np.asarray(bps, np.float64) / ALL_BPS, np.asarray(happened, np.float64)
    base = float(y.mean())
    return {"base_rate": base, "mean": float(p.mean()), "brier": quality.brier(p, y), "brier_base": base * (1 - base),
            "auc": auc(p, y > 0), "ece": quality.ece(p, y, ECE_BINS)}


def auc(p: np.ndarray, happened: np.ndarray) -> float:
    """P(one that happened was given more than one that did not), ties half; NaN without both.

    >>> auc(np.array([0.1, 0.4, 0.4, 0.8]), np.array([False, True, False, True]))
    0.875
    """
    ones = int(happened.sum())
    if not 0 < ones < len(p):
        return float("nan")
    _, at, many = np.unique(p, return_inverse=True, return_counts=True)
    upto = np.cumsum(many)
    rank = upto - (many - 1) / 2
    return float((rank[at][happened].sum() - ones * (ones + 1) / 2) / (ones * (len(p) - ones)))


def evaluate(rows: np.ndarray, filled: np.ndarray, model: FillModelV1, dataset_path: str, model_path: str, dataset_manifest_sha256: str,
             model_manifest_sha256: str, generated_at: str, cost_ratio: float = COST_RATIO,
             in_sample: bool | None = None) -> dict[str, Any]:
    """The report over orders' features float32[m, COLUMNS] and bool[m] whether they were filled; besides `brier_bps`, `auc_bps` and
    others of `measured`."""
    bps, happened = model.bps(rows), np.asarray(filled, bool)
    judged = list(zip(bps.tolist(), happened.tolist()))
    known, n = bins(bps, happened), int(happened.sum())
    report = reported(judged, known, AsServed(judged, worst(known), 100.0), (n, len(rows) - n, 0), model.global_prior_bps, dataset_path,
                      model_path, dataset_manifest_sha256, model_manifest_sha256, generated_at, cost_ratio, in_sample)
    figures = measured(bps, happened) if len(rows) else {}
    worth = {f"{name}_bps": round(ALL_BPS * value) if np.isfinite(value) else None for name, value in figures.items()}
    tables = {name: report.pop(name) for name in ("calibration", "threshold_sweep")}
    return report | {"label": "filled", **worth} | tables


def kaplan_meier(upto_ms: np.ndarray, happened: np.ndarray, horizon_ms: float) -> tuple[float, float]:
    """P(happened within the horizon) where others were seen only for a while, and its standard error by Greenwood's formula.

    `upto_ms[m]`: when it happened, or until when it was seen not to; `happened` bool[m]. Who is no longer seen counts until then. At equal
    times what happens comes first.

    >>> kaplan_meier(np.array([1, 2, 2, 5]), np.array([True, True, False, False]), 4)[0]
    0.5
    """
    alive, variance = 1.0, 0.0
    times, at = np.unique(upto_ms, return_inverse=True)
    hits, leave = np.bincount(at, happened, len(times)), np.bincount(at, minlength=len(times))
    here = len(upto_ms) - np.concatenate([[0], np.cumsum(leave)[:-1]])
    for k in np.flatnonzero((hits > 0) & (times <= horizon_ms)):
        alive *= 1 - hits[k] / here[k]
        if here[k] > hits[k]:
            variance += hits[k] / (here[k] * (here[k] - hits[k]))
    return float(1 - alive), float(alive * np.sqrt(variance))
