"""What a threshold is worth on round trips whose end is known: a sweep, a score, a calibration, and all of it again as served.

At a threshold T an order is allowed iff its probability is at least T. `cost_score = TP + cost_ratio · TN`: an avoided loss is worth
`cost_ratio` times a win that was let through; the lowest threshold of the highest score is recommended. The best threshold of a calibrated
model lies where p = r / (1 + r), which `break_even_bps` says: 6,667 for the default of 2.0.
"""
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from engine.facts import BUY, LONG, SELL
from engine.fillprob.dataset import BREAKEVEN, LOSS, WIN, Roundtrip
from engine.fillprob.documents import pretty, sha256
from engine.fillprob.model_v0 import ALL_BPS, FillFeatures, FillModelV0, bin_key, of, rate_bps, served

SCHEMA, FILE, MANIFEST = "fill_model_eval_v0", "eval_report.json", "manifest.json"
STEP_BPS, WELL_BPS = 100, 500
COST_RATIO = 2.0


def percent(part: float, whole: float) -> float:
    """A share in percent; 0 of nothing."""
    return 100 * part / whole if whole else 0.0


def sweep(judged: Sequence[tuple[int, bool]], cost_ratio: float) -> list[dict[str, Any]]:
    """One row a threshold, 0 to 10,000 by hundreds, over (probability, won)."""
    n, out = len(judged), []
    counts = Counter(judged)      # as many as the model has bins, however many rows
    wins = sum(many for (_, won), many in counts.items() if won)
    for threshold in range(0, ALL_BPS + 1, STEP_BPS):
        tp = sum(many for (p, won), many in counts.items() if won and p >= threshold)
        fp = sum(many for (p, won), many in counts.items() if not won and p >= threshold)
        fn = wins - tp
        tn = n - tp - fp - fn
        precision, recall = percent(tp, tp + fp), percent(tp, tp + fn)
        out.append({"threshold_bps": threshold, "tp": tp, "fp": fp, "tn": tn, "fn": fn, "precision_pct": precision, "recall_pct": recall,
                    "f1_pct": 2 * precision * recall / (precision + recall) if precision + recall else 0.0,
                    "block_rate_pct": percent(fn + tn, n), "cost_score": tp + cost_ratio * tn})
    return out


def recommended(rows: Sequence[dict[str, Any]]) -> int:
    """The threshold of the highest score, the lowest one of equals."""
    return max(rows, key=lambda row: (row["cost_score"], -row["threshold_bps"]))["threshold_bps"]


def calibration(cases: Iterable[tuple[FillFeatures, bool]], model: FillModelV0) -> list[dict[str, Any]]:
    """Every bin that was seen: what the model says, what happened, how often."""
    seen: dict[str, tuple[FillFeatures, list[int]]] = {}
    for features, won in cases:
        count = seen.setdefault(bin_key(features), (features, [0, 0]))[1]
        count[0] += won
        count[1] += 1
    out = []
    for key, (features, (wins, n)) in sorted(seen.items()):
        said, actual = model.predict(features), rate_bps(wins, n)
        out.append({"bin_key": key, "predicted_bps": said, "actual_bps": actual, "n_samples": n, "error_bps": abs(said - actual)})
    return out


def worst(rows: Sequence[dict[str, Any]]) -> int:
    """The largest error of a calibration."""
    return max((row["error_bps"] for row in rows), default=0)


def break_even_bps(cost_ratio: float) -> int:
    """The probability from which a calibrated model's order is worth letting through.

    >>> break_even_bps(2.0), break_even_bps(1 / 3)
    (6667, 2500)
    """
    return round(ALL_BPS * cost_ratio / (1 + cost_ratio))


def evaluate(rows: Sequence[Roundtrip], model: FillModelV0, dataset_path: str, model_path: str, dataset_manifest_sha256: str,
             model_manifest_sha256: str, generated_at: str, cost_ratio: float = COST_RATIO,
             in_sample: bool | None = None) -> dict[str, Any]:
    """The report, its scalars first. `in_sample`: whether the model was trained on this very dataset; None where that is not known.

    The gate cannot know how many fills an entry will take nor how long it will be held: `as_served_…` are the same figures for what it
    knows, and `as_served_coverage_pct` the share of rows whose served bin the model has learned.
    """
    cases = [(of(row), row.outcome == WIN) for row in rows]
    online = [(served(BUY if row.direction == LONG else SELL, row.notional), won) for row, (_, won) in zip(rows, cases)]
    count = {outcome: sum(row.outcome == outcome for row in rows) for outcome in (WIN, LOSS, BREAKEVEN)}
    as_served = AsServed([(model.predict(f), won) for f, won in online], worst(calibration(online, model)),
                         percent(sum(bin_key(f) in model.bins for f, _ in online), len(rows)))
    return reported([(model.predict(f), won) for f, won in cases], calibration(cases, model), as_served,
                    (count[WIN], count[LOSS], len(rows) - count[WIN] - count[LOSS]), model.global_prior_bps, dataset_path, model_path,
                    dataset_manifest_sha256, model_manifest_sha256, generated_at, cost_ratio, in_sample)


class AsServed(NamedTuple):
    """The same rows by the features that the gate knows: (probability, happened), the largest error of their calibration, the percentage
    of rows that the model knows so."""
    judged: Sequence[tuple[int, bool]]
    max_error_bps: int
    coverage_pct: float


def reported(judged: Sequence[tuple[int, bool]], known: list[dict[str, Any]], as_served: AsServed, counts: tuple[int, int, int],
             global_prior_bps: int, dataset_path: str, model_path: str, dataset_manifest_sha256: str, model_manifest_sha256: str,
             generated_at: str, cost_ratio: float, in_sample: bool | None) -> dict[str, Any]:
    """The report of rows (probability, happened) and their calibration; `counts` of rows that won, lost and came out even."""
    if not 0 < cost_ratio < float("inf"):
        raise ValueError("cost_ratio must be positive")
    table, online_table = sweep(judged, cost_ratio), sweep(as_served.judged, cost_ratio)
    best = recommended(table)
    at_best, online_at_best = table[best // STEP_BPS], online_table[best // STEP_BPS]
    return {
        "schema_version": SCHEMA,
        "recommended_threshold_bps": best,
        "calibration_well_calibrated": worst(known) < WELL_BPS,
        "calibration_max_error_bps": worst(known),
        "n_rows": len(judged),
        "n_wins": counts[0],
        "n_losses": counts[1],
        "n_breakeven": counts[2],
        "global_prior_bps": global_prior_bps,
        "cost_ratio": cost_ratio,
        "break_even_bps": break_even_bps(cost_ratio),
        "generated_at": generated_at,
        "in_sample": in_sample,
        "sweep_step_bps": STEP_BPS,
        "dataset_path": dataset_path,
        "model_path": model_path,
        "dataset_manifest_sha256": dataset_manifest_sha256,
        "model_manifest_sha256": model_manifest_sha256,
        "recommended_block_rate_pct": at_best["block_rate_pct"],
        "calibration_min_n_samples": min((row["n_samples"] for row in known), default=0),
        "as_served_block_rate_pct": online_at_best["block_rate_pct"],
        "as_served_coverage_pct": as_served.coverage_pct,
        "as_served_max_error_bps": as_served.max_error_bps,
        "as_served_recommended_threshold_bps": recommended(online_table),
        "calibration": known,
        "threshold_sweep": table,
    }


def rounded(value: Any) -> Any:
    """Fractions to two places, wherever they stand; but for what one was told."""
    if isinstance(value, dict):
        return {key: one if key == "cost_ratio" else rounded(one) for key, one in value.items()}
    if isinstance(value, list):
        return [rounded(one) for one in value]
    return round(value, 2) if isinstance(value, float) else value


def files(report: dict[str, Any]) -> dict[str, bytes]:
    """`eval_report.json` and the manifest that pins it."""
    blob = pretty(rounded(report), ordered=True)
    return {FILE: blob, MANIFEST: pretty({"schema_version": SCHEMA, "sha256": {FILE: sha256(blob)}})}
