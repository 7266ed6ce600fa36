"""What a model is worth on rows that it has not seen: ranking, honesty, and what its fills earn."""
from typing import Any, NamedTuple

import numpy as np

from config.settings import Settings
from engine.scoring import labels as l
from engine.scoring import quality

TAUS = (0.5, 0.6, 0.65, 0.7, 0.75, 0.8)
BINS = 10


class Rows(NamedTuple):
    """A table as arrays; m candidates, of which `filled` have an outcome."""
    x: np.ndarray
    y: np.ndarray
    filled: np.ndarray
    part: np.ndarray
    net_bps: np.ndarray
    markouts: np.ndarray
    regime: np.ndarray
    symbol: np.ndarray
    kind: np.ndarray
    ts_ms: np.ndarray


def money(rows: Rows, chosen: np.ndarray) -> dict[str, float]:
    """What became of the chosen candidates (bool[m]): fills, targets reached, net result in bps and its error, markouts."""
    finished, filled = chosen & (rows.kind != l.UNFINISHED), chosen & rows.filled
    candidates, n = int(finished.sum()), int(filled.sum())
    net = rows.net_bps[filled]
    return {"candidates": candidates, "fills": n, "fill_share": n / max(1, candidates), "precision": mean(rows.y[filled]),
            "winrate": mean(net > 0), "net_bps": mean(net), "net_se": float(net.std(ddof=1) / np.sqrt(n)) if n > 1 else float("nan"),
            **{f"markout_{ms}": mean(rows.markouts[filled, h]) for h, ms in enumerate(l.MARKOUTS_MS)}}


def mean(values: np.ndarray) -> float:
    """The mean of what is finite; NaN of nothing."""
    known = values[np.isfinite(values)]
    return float(known.mean()) if len(known) else float("nan")


def measure(rows: Rows, p: np.ndarray, settings: Settings) -> dict[str, Any]:
    """Every figure of the model card. `p`, float64[m]: calibrated probabilities, NaN outside the test part."""
    tau = settings.training.tau_entry
    test = rows.part == l.TEST
    scored = test & (rows.kind != l.UNFINISHED)
    held = test & rows.filled
    pf, yf = p[held], rows.y[held]
    base = mean(yf)
    at = quality.precision_recall(pf, yf, tau)

    def group(of: np.ndarray) -> list[dict[str, Any]]:
        return [{"name": str(g), **money(rows, test & (of == g)),
                 **{f"tau_{k}": v for k, v in money(rows, test & (of == g) & (p >= tau)).items()}} for g in np.unique(of[test])]

    parts = (("train", l.TRAIN), ("calibrate", l.CALIBRATE), ("test", l.TEST))
    spans = {name: rows.ts_ms[rows.part == k] for name, k in parts}
    at_tau = {"tau": tau, **money(rows, test & (p >= tau))}
    return {
        "span": {name: [int(ts.min()), int(ts.max())] for name, ts in spans.items()},
        "candidates": len(rows.y), "purged": int((rows.part == l.PURGED).sum()),
        "outcomes": {k: int((rows.kind == i).sum()) for i, k in enumerate(l.KINDS)},
        "train_fills": int((rows.filled & (rows.part == l.TRAIN)).sum()), "test_fills": len(yf),
        "test_candidates": int(scored.sum()), "fill_share": len(yf) / max(1, int(scored.sum())), "base_rate": base,
        "pr_auc": quality.average_precision(pf, yf), "brier": quality.brier(pf, yf), "brier_base": base * (1 - base),
        "ece": quality.ece(pf, yf, BINS), "tau_entry": tau, "precision_at_tau": at["precision"], "recall_at_tau": at["recall"],
        "winrate_at_tau": at_tau["winrate"], "share_at_tau": mean(p[scored] >= tau), "share_at_70": mean(p[scored] >= 0.7),
        "at_tau": at_tau,
        "thresholds": [{"tau": t, **money(rows, test & (p >= t))} for t in (0.0, *TAUS)],
        "regimes": group(rows.regime), "symbols": group(rows.symbol), "reliability": quality.reliability(pf, yf, BINS),
        "score_quantiles": np.quantile(p[scored], (0, 0.1, 0.5, 0.9, 0.99, 1)).tolist() if scored.any() else [],
    }
