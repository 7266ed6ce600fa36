"""Label an archive: one row a candidate, with its features and what would have become of it on the paper venue.

  python -m scripts.labeling                                          the simulated market into data/training.parquet
  python -m scripts.labeling --data data/recordings/standx --output data/standx.parquet
"""
import argparse
import sys
from pathlib import Path

from config import settings as config
from flows.train import REFUSED
from scripts._arguments import ended
from store import dataset, disk, pipeline


@disk.told("labeling")
def main(argv: list[str] | None = None) -> int:
    """Labels; returns the exit status."""
    parser = argparse.ArgumentParser("python -m scripts.labeling", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="", help="an archive folder; default: a simulated market")
    parser.add_argument("--output", type=Path, help="the table to write; default: training.parquet under the data folder")
    parser.add_argument("--symbols", default="", help="comma-separated; default: all of the archive")
    parser.add_argument("--config", action="append", default=[], help="YAML that overrides config/default.yaml")
    args = parser.parse_args(argv)
    settings = config.load(*args.config)
    output = args.output or settings.folder("data") / "training.parquet"
    symbols = [s for s in args.symbols.split(",") if s] or None
    try:
        root = pipeline.source(settings, args.data, symbols)
        if root.is_file():
            raise dataset.DatasetError(f"--data {args.data}: an archive folder was expected, not a file")
        table = dataset.build(root, settings, symbols, print)
        dataset.write(table, output)
    except REFUSED as error:
        print(f"labeling: {error}", file=sys.stderr)
        return 1
    print(f"{len(table):,} candidates with {len(dataset.FEATURE_COLUMNS)} features written to {output}")
    return 0


if __name__ == "__main__":
    raise SystemExit(ended(main))
