"""Drop the tables that people query and fill them again from the ledger, which is never touched.

  python -m scripts.rebuild_projections
  python -m scripts.rebuild_projections --behind      (only project what is new)
"""
import argparse
import sys
import time

from config import settings as config
from scripts._arguments import ended
from store.database import LedgerError, connect, shown
from store.ledger import ledger_url
from store.projections import Projector


def main(argv: list[str] | None = None) -> int:
    """Prints how many entries were projected and how fast; exits with 2 where the ledger cannot be read."""
    parser = argparse.ArgumentParser(prog="python -m scripts.rebuild_projections", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ledger", help="sqlite:///path or postgresql+psycopg://…; default: the settings' ledger")
    parser.add_argument("--behind", action="store_true", help="keep what is there and catch up")
    parser.add_argument("--config", action="append", default=[], help="YAML that overrides config/default.yaml")
    args = parser.parse_args(argv)
    url = args.ledger or ledger_url(config.load(*args.config))
    began = time.perf_counter()
    try:
        connect(url, create=False).dispose()
        projector = Projector(url)
        entries = projector.run_once() if args.behind else projector.rebuild()
        projector.close()
    except LedgerError as error:
        print(error, file=sys.stderr)
        return 2
    took = time.perf_counter() - began
    print(f"{shown(url)}: {entries:,} entries projected in {took:.2f} s ({entries / max(took, 1e-9):,.0f} entries/s)")
    return 0


if __name__ == "__main__":
    raise SystemExit(ended(main))
