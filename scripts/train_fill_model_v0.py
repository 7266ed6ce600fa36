"""Train FillModelV0, the win rate of round trips by bins, on a dataset fill_outcomes_v1.

  python -m scripts.train_fill_model_v0 --dataset ml/datasets/fill_outcomes_v1 --out-dir ml/models/fill_model_v0

An evaluation names the model by the hash of its manifest, and the manifest says when it was made: train again with the same
--created-at-utc (or SOURCE_DATE_EPOCH), or evaluate again.
"""
import argparse
import sys
from pathlib import Path

from engine.fillprob.model_v0 import FillModelV0
from scripts._arguments import ended
from store import disk
from store.artifacts import ArtifactError, created_at
from store.fill_model import save_model
from store.fill_outcomes import load


@disk.told("ERROR")
def main(argv: list[str] | None = None) -> int:
    """The command."""
    parser = argparse.ArgumentParser("python -m scripts.train_fill_model_v0", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset", type=Path, required=True, help="the folder of a dataset")
    parser.add_argument("--out-dir", type=Path, required=True, help="the model's folder")
    parser.add_argument("--force", action="store_true", help="replace a model that is there")
    parser.add_argument("--created-at-utc", metavar="T", help="written into the manifest, like 2026-01-06T00:00:00Z")
    args = parser.parse_args(argv)
    try:
        made = created_at(args.created_at_utc)
        rows, dataset = load(args.dataset)
        model = FillModelV0.train(rows)
        folder = save_model(model, args.out_dir, made, args.force, dataset)
    except (ArtifactError, FileExistsError) as error:
        print(f"ERROR: {disk.said(error) if isinstance(error, OSError) else error}", file=sys.stderr)
        return 1
    print(f"{folder}: {len(model.bins)} bins of {model.n_train_rows} round trips, global_prior={model.global_prior_bps} bps")
    return 0


if __name__ == "__main__":
    raise SystemExit(ended(main))
