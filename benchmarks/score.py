"""One score and many: ONNX Runtime as the scorer calls it, beside the trained model's own predict on the same rows.

    python -m benchmarks.score                 the active model, its rows drawn from a standard normal

Calibration is in both. The same rows, one thread each; every figure is over repeated calls after a warm-up, and the largest difference
between the two answers is printed with them.
"""

import argparse
import time
from collections.abc import Callable
from pathlib import Path

import lightgbm as lgb
import numpy as np

from benchmarks._bench import quantiles
from config import settings as config
from engine.scoring.calibration import platt
from scripts._arguments import ended, seconds
from store.scorer import Scorer

SIZES = (1, 16, 64, 256, 1024)


def timed(call: Callable[[np.ndarray], np.ndarray], rows: np.ndarray, size: int, seconds: float) -> np.ndarray:
    """Microseconds of each call on `size` rows, other rows each time, for so many seconds."""
    for at in range(0, min(len(rows), 50 * size), size):
        call(rows[at:at + size])
    took, at, end = [], 0, time.perf_counter() + seconds
    while time.perf_counter() < end:
        batch = rows[at:at + size]
        began = time.perf_counter()
        call(batch)
        took.append((time.perf_counter() - began) * 1e6)
        at = (at + size) % (len(rows) - size)
    return np.array(took)


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.score", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--models", type=Path, help="registry folder (default paths.models)")
    parser.add_argument("--seconds", type=seconds, default=1.0, help="for each figure (default 1)")
    args = parser.parse_args(argv)
    scorer = Scorer.load(args.models or config.load().folder("models"), "active")
    if scorer is None:
        raise SystemExit("no active model: python -m flows.train makes a first one")
    trained = scorer.folder / "artifacts" / "booster.txt"
    booster = lgb.Booster(model_file=str(trained)) if trained.exists() else None
    w, b = scorer.meta["calibration"]["w"], scorer.meta["calibration"]["b"]

    def predict(rows: np.ndarray) -> np.ndarray:
        assert booster is not None
        return platt(np.asarray(booster.predict(rows, num_threads=1)), w, b)

    rows = np.random.default_rng(7).standard_normal((20_000, len(scorer.feature_names))).astype(np.float32)
    trees = f"{booster.num_trees()} trees, " if booster else ""
    print(f"{scorer.model_id}: {trees}{rows.shape[1]} features, one thread")
    print(f"{'rows':>5} {'ONNX Runtime p50/p99 µs':>24} {'rows/s':>10}   {'LightGBM p50/p99 µs':>20} {'rows/s':>10} {'ratio':>6}")
    for size in SIZES:
        mine = timed(scorer.score, rows, size, args.seconds)
        p50, p99 = quantiles(mine, 0.5, 0.99)
        said = f"{size:>5} {f'{p50:.1f}/{p99:.1f}':>24} {size / p50 * 1e6:>10,.0f}"
        if booster:
            other50, other99 = quantiles(timed(predict, rows, size, args.seconds), 0.5, 0.99)
            said += f"   {f'{other50:.1f}/{other99:.1f}':>20} {size / other50 * 1e6:>10,.0f} {other50 / p50:>6.1f}"
        print(said, flush=True)
    if booster:
        print(f"largest difference of 20,000 answers: {np.abs(scorer.score(rows) - predict(rows)).max():.1e}")
    return 0


if __name__ == "__main__":
    raise SystemExit(ended(main))
