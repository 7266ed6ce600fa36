"""Check whether fill-probability enforcement may be switched on: model, evaluation, calibration, threshold, evidence.

  python -m scripts.preflight_fill_prob --model ml/models/fill_model_v0 --eval ml/eval/fill_model_v0 \\
      --evidence-dir ml/evidence/fill_prob --threshold-bps 2500
  … --auto-threshold        on the way to an auto-applied threshold: resolves it, and prints which one would be in force

Evidence is what a gate in shadow leaves with GRINDER_FILL_PROB_EVIDENCE=1 under $GRINDER_ARTIFACT_DIR/fill_prob. With --auto-threshold
the recommended threshold may be up to 1000 bps from the configured one; GRINDER_FILL_PROB_AUTO_THRESHOLD and
GRINDER_FILL_PROB_EVAL_MAX_AGE_HOURS are read as a service reads them. Exit status 0 where every check passed. What is no failure but
should be known is said on stderr. docs/fill-probability.md is the runbook.
"""
import argparse
import sys
import time
from pathlib import Path

from config import settings as config
from scripts._arguments import ended, number
from store.fill_preflight import Asked, preflight

bps = number(int, 0, most=10_000)


def main(argv: list[str] | None = None) -> int:
    """The command."""
    parser = argparse.ArgumentParser("python -m scripts.preflight_fill_prob", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True, help="the model's folder")
    parser.add_argument("--eval", type=Path, required=True, help="the evaluation's folder")
    parser.add_argument("--evidence-dir", type=Path, required=True, help="the folder of the gate's evidence")
    parser.add_argument("--threshold-bps", type=bps, help="the configured threshold (default GRINDER_FILL_PROB_MIN_BPS, else 2500)")
    parser.add_argument("--auto-threshold", action="store_true", help="resolve the recommended threshold as well")
    args = parser.parse_args(argv)
    s = config.load().fill_prob
    got = preflight(Asked(args.model, args.eval, args.evidence_dir, s.min_bps if args.threshold_bps is None else args.threshold_bps,
                          args.auto_threshold, s.auto_threshold,
                          s.eval_max_age_hours, int(time.time() * 1000)))
    print(got.text())
    for warning in got.warnings:
        print(f"WARN: {warning}", file=sys.stderr)
    return 0 if got.passed else 1


if __name__ == "__main__":
    raise SystemExit(ended(main))
