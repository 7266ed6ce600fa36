"""Back up the desk while it runs: ledger, services' state, the local venue's journal and models, with a manifest of hashes.

  python -m scripts.backup                          into data/backups/<time>
  python -m scripts.backup --to /mnt/safe/today     a new folder; it is whole or not there
  python -m scripts.backup --verify /mnt/safe/today reads a backup again: every hash, every chain

The ledger in a backup is a SQLite ledger, whatever it came from: python -m scripts.why … --ledger sqlite:////mnt/safe/today/ledger.db
Not in it: the market archive, the broker's log, configuration. python -m scripts.restore puts a backup back.
Exits with 1 where a backup is not what it should be, with 2 where the ledger cannot be read.
"""
import argparse
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

from config import settings as config
from scripts._arguments import ended
from store import disk
from store.backup import BackupError, backup, check, default_place
from store.database import LedgerError


@disk.told("backup")
def main(argv: list[str] | None = None) -> int:
    """Takes or reads a backup and prints its heads; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m scripts.backup", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--to", type=Path, metavar="FOLDER", help="a folder that is not there yet; default: data/backups/<time>")
    parser.add_argument("--verify", type=Path, metavar="FOLDER", help="take none, read this one")
    parser.add_argument("--ledger", default="", help="sqlite:///path or postgresql+psycopg://…; default: the settings' ledger")
    parser.add_argument("--config", action="append", default=[], help="YAML that overrides config/default.yaml")
    args = parser.parse_args(argv)
    settings, began = config.load(*args.config), time.perf_counter()
    folder = args.verify or args.to or default_place(settings, datetime.now(UTC))
    try:
        manifest = check(folder) if args.verify else backup(settings, folder.absolute(), args.ledger)
    except BackupError as error:
        print(error, file=sys.stderr)
        return 1
    except LedgerError as error:
        print(error, file=sys.stderr)
        return 2
    for writer, (seq, hashed) in manifest.heads.items():
        print(f"head {writer}={seq}:{hashed}")
    size = sum(f.bytes for f in manifest.files.values())
    print(f"{folder}: whole; of {manifest.ledger} at {manifest.made_at}, {len(manifest.files)} files, {size / 1e6:,.1f} MB in "
          f"{time.perf_counter() - began:.2f} s")
    return 0


if __name__ == "__main__":
    raise SystemExit(ended(main))
