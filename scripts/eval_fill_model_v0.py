"""Evaluate a fill model on a dataset: threshold sweep, cost score, calibration, and what of it holds as served.

  python -m scripts.eval_fill_model_v0 --dataset ml/datasets/later --model ml/models/fill_model_v0 --out-dir ml/eval/fill_model_v0

The recommended threshold has the highest TP + cost-ratio × TN. Break-even is r / (1 + r): 2.0 recommends some 6,700 bps of a calibrated
model, 0.3333 the default threshold of 2,500. Evaluate on later trips than the model was trained on (--last of build_fill_dataset_v1).
A FillModelV1 is evaluated here too, on virtual orders (build_virtual_orders --from): to win is to be filled, then.
"""
import argparse
import sys
from pathlib import Path

from engine.fillprob.documents import Refused
from engine.fillprob.evaluation import COST_RATIO
from scripts._arguments import ended, number
from scripts.fill_prob_summary import lines
from store import disk, fill_outcomes, virtual_orders
from store.artifacts import ArtifactError, created_at
from store.fill_model import load_model, save_evaluation


@disk.told("ERROR")
def main(argv: list[str] | None = None) -> int:
    """The command."""
    parser = argparse.ArgumentParser("python -m scripts.eval_fill_model_v0", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset", type=Path, required=True, help="the folder of a dataset")
    parser.add_argument("--model", type=Path, required=True, help="the model's folder")
    parser.add_argument("--out-dir", type=Path, required=True, help="the evaluation's folder")
    parser.add_argument("--cost-ratio", type=number(float, 0, above=True), default=COST_RATIO,
                        help=f"worth of an avoided loss, in wins (default {COST_RATIO})")
    parser.add_argument("--force", action="store_true", help="replace an evaluation that is there")
    parser.add_argument("--created-at-utc", metavar="T", help="written into the report as generated_at, like 2026-01-06T00:00:00Z")
    args = parser.parse_args(argv)
    try:
        made = created_at(args.created_at_utc)
        rows, dataset = (virtual_orders if virtual_orders.is_one(args.dataset) else fill_outcomes).load(args.dataset)
        report = save_evaluation(rows, load_model(args.model), args.out_dir, dataset=args.dataset, dataset_sha256=dataset,
                                 model_dir=args.model, generated_at=made, cost_ratio=args.cost_ratio, force=args.force)
    except (ArtifactError, Refused, FileExistsError, FileNotFoundError, ValueError) as error:
        print(f"ERROR: {disk.said(error) if isinstance(error, OSError) else error}", file=sys.stderr)
        return 1
    print("\n".join([f"{args.out_dir}: written", *lines(report)]))
    return 0


if __name__ == "__main__":
    raise SystemExit(ended(main))
