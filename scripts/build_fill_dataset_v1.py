"""Build the dataset fill_outcomes_v1 of round trips: from fills in a JSON file, an order log in parquet, or the desk's own ledger.

  python -m scripts.build_fill_dataset_v1 --fixture fills.json --out-dir ml/datasets
  python -m scripts.build_fill_dataset_v1 --ledger --out-dir ml/datasets --first 0.7 --dataset-id train
  python -m scripts.build_fill_dataset_v1 --ledger --out-dir ml/datasets --last 0.3 --dataset-id later

A fixture is a list of {ts, symbol, side, price, quantity, order_id, fee}, prices and quantities best as text. An order log (.parquet) has
venue, symbol, ts_ms, side (1 or -1), price, amount, order_id. The same input with the same --created-at-utc (or SOURCE_DATE_EPOCH) makes
the same bytes. --first and --last cut the trips by the time of their exit, so that a model is judged by later ones than it learned from.
"""
import argparse
import sys
from pathlib import Path

from config import settings as config
from engine.fillprob.dataset import SCHEMA, WIN, parts, roundtrips
from scripts._arguments import ended, number
from store import disk
from store.artifacts import ArtifactError, created_at
from store.database import LedgerError
from store.fill_outcomes import fixture, of_ledger, order_log, write
from store.ledger import ledger_url


@disk.told("ERROR")
def main(argv: list[str] | None = None) -> int:
    """The command."""
    parser = argparse.ArgumentParser("python -m scripts.build_fill_dataset_v1", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--fixture", type=Path, metavar="FILE", help="fills as .json, or an order log as .parquet")
    source.add_argument("--ledger", nargs="?", const="", metavar="URL", help="the desk's own fills; URL: of another ledger")
    parser.add_argument("--out-dir", type=Path, required=True, help="the dataset becomes a folder in it")
    parser.add_argument("--dataset-id", default=SCHEMA, help=f"the folder's name (default {SCHEMA})")
    parser.add_argument("--force", action="store_true", help="replace a dataset that is there")
    parser.add_argument("--created-at-utc", metavar="T", help="written into the manifest, like 2026-01-06T00:00:00Z")
    cut = parser.add_mutually_exclusive_group()
    share = number(float, 0, above=True, most=1)
    cut.add_argument("--first", type=share, metavar="SHARE", help="only this share of the trips, the earliest")
    cut.add_argument("--last", type=share, metavar="SHARE", help="only this share, the latest")
    parser.add_argument("--config", action="append", default=[], help="YAML that overrides config/default.yaml")
    args = parser.parse_args(argv)
    try:
        made = created_at(args.created_at_utc)
        if args.fixture:
            fills = order_log(args.fixture) if args.fixture.suffix == ".parquet" else fixture(args.fixture)
        else:
            fills = of_ledger(args.ledger or ledger_url(config.load(*args.config)))
        rows = roundtrips(fills)
        if args.first:
            rows = parts(rows, args.first)[0]
        elif args.last:
            rows = parts(rows, 1 - args.last)[1]
        folder = write(rows, args.out_dir, args.dataset_id, made, args.force)
    except (ArtifactError, LedgerError, FileExistsError) as error:
        print(f"ERROR: {disk.said(error) if isinstance(error, OSError) else error}", file=sys.stderr)
        return 1
    print(f"{folder}: {len(rows)} round trips of {len(fills)} fills, {sum(row.outcome == WIN for row in rows)} won")
    return 0


if __name__ == "__main__":
    raise SystemExit(ended(main))
