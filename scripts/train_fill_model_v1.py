"""Train FillModelV1, the probability that a resting maker order is filled within its horizon, on datasets virtual_orders_v1.

  python -m scripts.train_fill_model_v1 --dataset ml/datasets/train --out-dir ml/models/fill_model_v1
  python -m scripts.train_fill_model_v1 --dataset ml/datasets/standx --dataset ml/datasets/hyperliquid --out-dir ml/models/fill_model_v1

The same datasets, seed and --created-at-utc (or SOURCE_DATE_EPOCH) make the same bytes. The model goes where FillModelV0 goes
(GRINDER_FILL_MODEL_DIR), and is judged and checked by the same commands: eval_fill_model_v0 with a dataset virtual_orders_v1 of later
orders, preflight_fill_prob. Train again, and an evaluation must be made again: it names the model by the hash of its manifest.
"""
import argparse
import sys
from pathlib import Path

from scripts._arguments import ended, number
from store import disk, fill_training
from store.artifacts import ArtifactError, created_at
from store.fill_model import save_model
from store.virtual_orders import joined, load


@disk.told("ERROR")
def main(argv: list[str] | None = None) -> int:
    """The command."""
    parser = argparse.ArgumentParser("python -m scripts.train_fill_model_v1", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset", type=Path, action="append", required=True, help="the folder of a dataset; may be given several times")
    parser.add_argument("--out-dir", type=Path, required=True, help="the model's folder")
    parser.add_argument("--seed", type=number(int, 0), default=1337, help="of the trees (default 1337)")
    parser.add_argument("--force", action="store_true", help="replace a model that is there")
    parser.add_argument("--created-at-utc", metavar="T", help="written into the manifest, like 2026-01-06T00:00:00Z")
    args = parser.parse_args(argv)
    try:
        made = created_at(args.created_at_utc)
        read = [load(folder) for folder in args.dataset]
        model = fill_training.fit(joined([orders for orders, _ in read]), args.seed)
        folder = save_model(model, args.out_dir, made, args.force, [pinned for _, pinned in read])
    except (ArtifactError, FileExistsError) as error:
        print(f"ERROR: {disk.said(error) if isinstance(error, OSError) else error}", file=sys.stderr)
        return 1
    print(f"{folder}: {len(model.trees)} trees of {model.n_bins} leaves over {model.n_train_rows} virtual orders, "
          f"global_prior={model.global_prior_bps} bps, {len(model.to_json())} bytes")
    return 0


if __name__ == "__main__":
    raise SystemExit(ended(main))
