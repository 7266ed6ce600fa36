"""Find any edited, removed, swapped, inserted or cut-off row of the ledger; say "whole" where there is none.

  python -m scripts.verify_ledger
  python -m scripts.verify_ledger --ledger postgresql+psycopg://sluice@db/sluice
  python -m scripts.verify_ledger --anchor risk=1200:6f3c…   (a head that was written down earlier must still be there)

Exits with 1 where anything is wrong, with 2 where the ledger cannot be read.
"""
import argparse
import sys
import time
from pathlib import Path

from config import settings as config
from scripts._arguments import ended
from store.database import LedgerError, shown
from store.ledger import ledger_url
from store.verify import Tally, verify
from store.witness import anchors_path, noted, parse

MOST = 100


def anchor(text: str) -> tuple[str, tuple[int, str]]:
    """`writer=seq:hash` as typed."""
    try:
        return parse(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r}: writer=seq:hash was expected, as this command prints it") from None


def main(argv: list[str] | None = None) -> int:
    """Prints the faults, or each chain's head; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m scripts.verify_ledger", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ledger", help="sqlite:///path or postgresql+psycopg://…; default: the settings' ledger")
    parser.add_argument("--anchor", action="append", type=anchor, default=[], metavar="WRITER=SEQ:HASH", help="a head kept elsewhere")
    parser.add_argument("--anchors", type=Path, metavar="FILE", help="heads noted in a file; default: the settings' file for their ledger")
    parser.add_argument("--config", action="append", default=[], help="YAML that overrides config/default.yaml")
    args = parser.parse_args(argv)
    settings = config.load(*args.config)
    url = args.ledger or ledger_url(settings)
    tally, faults, began = Tally(), 0, time.perf_counter()
    try:
        if args.anchors and not args.anchors.is_file():
            parser.error(f"--anchors {args.anchors}: is no file")
        path = args.anchors or (None if args.ledger else anchors_path(settings))
        anchors, odd = noted(path) if path else ({}, 0)
        for writer, place in args.anchor:
            anchors.setdefault(writer, []).append(place)
        for fault in verify(url, anchors, tally):
            faults += 1
            if faults <= MOST:
                print(fault)
    except LedgerError as error:
        print(error, file=sys.stderr)
        return 2
    took = time.perf_counter() - began
    for writer, (seq, hashed) in tally.heads.items():
        print(f"head {writer}={seq}:{hashed.hex()}")
    if count := sum(map(len, anchors.values())):
        print(f"{count:,} anchors{f' of {path}' if path else ''}" + (f"; {odd} lines are none" if odd else ""))
    more = f" (the first {MOST} are shown)" if faults > MOST else ""
    verdict = f"{faults} fault{'s' * (faults > 1)}{more}" if faults else "whole"
    print(f"{shown(url)}: {verdict}; {tally.rows:,} records, {tally.size / 1e6:,.1f} MB in {took:.2f} s "
          f"({tally.rows / max(took, 1e-9):,.0f} records/s)")
    return 1 if faults else 0


if __name__ == "__main__":
    raise SystemExit(ended(main))
