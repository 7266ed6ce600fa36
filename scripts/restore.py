"""Put a backup back into empty places, and start from it.

  python -m scripts.restore data/backups/20260106T090012Z
  python -m scripts.restore BACKUP --only ledger --ledger postgresql+psycopg://sluice@db/sluice    (also a move from SQLite to PostgreSQL)

Stop the desk first; what stands in the way is named and left alone. The backup is read whole before anything is written, the ledger is
verified after it, and whatever fails takes away what it had put there. Projections are filled again by the supervisor.
Exits with 1 where the backup or a place refuses, with 2 where the ledger's database does.
"""
import argparse
import sys
import time
from pathlib import Path

from config import settings as config
from scripts._arguments import ended
from store import disk
from store.backup import BackupError
from store.database import LedgerError, shown
from store.ledger import ledger_url
from store.restoring import PARTS, restore


@disk.told("restore")
def main(argv: list[str] | None = None) -> int:
    """Restores and says what; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m scripts.restore", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("backup", type=Path, help="a folder that python -m scripts.backup made")
    parser.add_argument("--ledger", default="", help="sqlite:///path or postgresql+psycopg://…; default: the settings' ledger")
    parser.add_argument("--only", action="append", choices=list(PARTS), default=[], help="this part alone; may be given several times")
    parser.add_argument("--config", action="append", default=[], help="YAML that overrides config/default.yaml")
    args = parser.parse_args(argv)
    settings, began = config.load(*args.config), time.perf_counter()
    try:
        manifest = restore(settings, args.backup, args.ledger, args.only)
    except BackupError as error:
        print(error, file=sys.stderr)
        return 1
    except LedgerError as error:
        print(error, file=sys.stderr)
        return 2
    for writer, (seq, hashed) in manifest.heads.items():
        print(f"head {writer}={seq}:{hashed}")
    if not args.only or "ledger" in args.only:
        print("the desk begins halted: what was sent, killed or released after the backup is not known to it. Compare positions with the "
              "venue's, then python -m scripts.release_kill")
    print(f"{shown(args.ledger or ledger_url(settings))}: restored from {args.backup}, as of {manifest.made_at}, in "
          f"{time.perf_counter() - began:.2f} s")
    return 0


if __name__ == "__main__":
    raise SystemExit(ended(main))
