"""Apply the ledger's schema revisions, or list them.

  python -m scripts.migrate            (applies what is missing)
  python -m scripts.migrate --list     (says what is applied, and when)
"""
import argparse
import sys

from config import settings as config
from scripts._arguments import ended
from store.database import LedgerError, connect, naming, reading, shown
from store.ledger import ledger_url
from store.revisions import REVISIONS, applied, migrate


def main(argv: list[str] | None = None) -> int:
    """Prints each revision with its state; exits with 1 where `--list` finds one missing, with 2 where the ledger cannot be reached."""
    parser = argparse.ArgumentParser(prog="python -m scripts.migrate", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ledger", help="sqlite:///path or postgresql+psycopg://…; default: the settings' ledger")
    parser.add_argument("--list", action="store_true", help="change nothing")
    parser.add_argument("--config", action="append", default=[], help="YAML that overrides config/default.yaml")
    args = parser.parse_args(argv)
    url = args.ledger or ledger_url(config.load(*args.config))
    try:
        engine = connect(url, create=not args.list)
        new = [] if args.list else migrate(engine)
        with naming(url), reading(engine) as connection:
            known = applied(connection)
        engine.dispose()
    except LedgerError as error:
        print(error, file=sys.stderr)
        return 2
    print(shown(url))
    for revision in REVISIONS:
        state = "applied now" if revision.name in new else f"applied {known[revision.name]}" if revision.name in known else "missing"
        print(f"  {revision.name:<36} {state:<34} {revision.what}")
    return 1 if any(r.name not in known for r in REVISIONS) else 0


if __name__ == "__main__":
    raise SystemExit(ended(main))
