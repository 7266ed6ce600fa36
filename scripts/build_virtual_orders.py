"""Build the dataset virtual_orders_v1, what FillModelV1 learns from: maker orders that nobody sent, over recorded books.

  python -m scripts.build_virtual_orders --data data/recordings/standx --to 2026-01-07 --out-dir ml/datasets --dataset-id train
  python -m scripts.build_virtual_orders --data data/recordings/standx --from 2026-01-07 --out-dir ml/datasets --dataset-id later

An archive is what scripts.import_recording makes of a recording, or what a collector wrote. Half of the orders stand where the desk's
candidates arose, half at random books; distance, patience and quantity are drawn by --seed. Each waits in the paper venue's queue, behind
all that is visible at its price; one is filled when its first lot is. The same archive, settings and --created-at-utc (or
SOURCE_DATE_EPOCH) make the same bytes. Train on one span, judge by a later one.
"""
import argparse
import sys
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pyarrow as pa

from config import settings as config
from scripts._arguments import ended, number
from store import archive, disk, virtual_orders
from store.archive import ArchiveError
from store.artifacts import ArtifactError, created_at
from store.dataset import made_under


def moment(text: str) -> int:
    """A time as ms: 2026-01-07, or 2026-01-07T12:30 (UTC)."""
    try:
        when = datetime.fromisoformat(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is no time like 2026-01-07 or 2026-01-07T12:30") from None
    return int((when if when.tzinfo else when.replace(tzinfo=UTC)).timestamp() * 1000)


@disk.told("ERROR")
def main(argv: list[str] | None = None) -> int:
    """The command."""
    parser = argparse.ArgumentParser("python -m scripts.build_virtual_orders", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="an archive folder")
    parser.add_argument("--symbols", default="", help="comma-separated; default: all of the archive")
    parser.add_argument("--from", dest="start", type=moment, metavar="T", help="from this market time on (UTC)")
    parser.add_argument("--to", dest="end", type=moment, metavar="T", help="to before this market time")
    parser.add_argument("--orders", type=number(int, 100), default=160_000, help="of each symbol, about (default 160000)")
    parser.add_argument("--seed", type=number(int, 0), default=1337, help="of the draws (default 1337)")
    parser.add_argument("--out-dir", type=Path, required=True, help="the dataset becomes a folder in it")
    parser.add_argument("--dataset-id", default=virtual_orders.SCHEMA, help=f"the folder's name (default {virtual_orders.SCHEMA})")
    parser.add_argument("--force", action="store_true", help="replace a dataset that is there")
    parser.add_argument("--created-at-utc", metavar="T", help="written into the manifest, like 2026-01-06T00:00:00Z")
    parser.add_argument("--config", action="append", default=[], help="YAML that overrides config/default.yaml")
    args = parser.parse_args(argv)
    settings = config.load(*args.config)
    try:
        stamp = created_at(args.created_at_utc)
        have = archive.symbols(args.data)
        symbols = [s for s in args.symbols.split(",") if s] or have
        if missing := [s for s in symbols if s not in have]:
            raise ArtifactError(f"{args.data}: no {', '.join(missing)} in this archive; it has {', '.join(have) or 'no symbol'}")
        made = virtual_orders.of_archive(args.data, symbols, settings, args.orders, args.seed, args.start, args.end)
        if not made:
            raise ArtifactError(f"{args.data}: no events of {', '.join(symbols) or 'any symbol'} in that time")
        table = pa.concat_tables([one.table for _, one in made])
        said = {"orders": args.orders, "from_ms": args.start, "to_ms": args.end, "under": made_under(settings, [s for s, _ in made])}
        folder = virtual_orders.write(table, args.out_dir, args.dataset_id, stamp, args.seed, said, args.force)
    except (ArtifactError, ArchiveError, FileExistsError) as error:
        print(f"ERROR: {disk.said(error) if isinstance(error, OSError) else error}", file=sys.stderr)
        return 1
    for symbol, one in made:
        first, whole = (np.asarray(one.table[name]) for name in ("first_ms", "whole_ms"))
        print(f"{symbol}: {len(one.table):,} orders, {(first >= 0).mean():.1%} filled, {(whole >= 0).mean():.1%} wholly; "
              f"{one.refused:,} more would have crossed on arrival, {one.unseen:,} were not seen to their end")
    print(f"{folder}: {len(table):,} virtual orders")
    return 0


if __name__ == "__main__":
    raise SystemExit(ended(main))
