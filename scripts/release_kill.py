"""Ends a halt: shows the KILLs that stand, ends those that are named. Each is ended by whoever looked at it, and by nobody else's word.

  python -m scripts.release_kill                                                       # what stands: id, who, why
  python -m scripts.release_kill --kill kill-1767690000000-ann --reason "feed is back"
  python -m scripts.release_kill --all --reason "drill is over"                        # all that this prints

The desk opens positions again when none stands. A KILL of the desk's own (`not as the venue says: …`) tells differences with the venue:
releasing it accepts those as they stand; the desk halts again for any other.
"""
import sys

from config import settings as config
from engine.facts import KILL
from scripts._arguments import ended
from scripts.kill import confirm, deadline, name, parser, words
from store import controls, killing
from store.database import LedgerError
from store.ledger import ledger_url
from store.words import relative


def main(argv: list[str] | None = None) -> int:
    made = parser("release_kill", __doc__ or "")
    which = made.add_mutually_exclusive_group()
    which.add_argument("--kill", type=name, action="append", default=[], metavar="ID", help="a KILL that ends; may be repeated")
    which.add_argument("--all", action="store_true", help="all that stand now")
    made.add_argument("--reason", type=words, help="why; it stands in the ledger")
    args = made.parse_args(argv)
    settings, until = config.load(*args.config), deadline(args.wait)
    try:
        found = controls.in_force(ledger_url(settings))
    except LedgerError as error:
        print(error, file=sys.stderr)
        return 1
    standing = found.kills
    for path, waits in controls.left(settings):
        if waits.kind == KILL and waits.id not in found.controls and waits.id not in standing:
            print(f"{waits.id}  {waits.word}  (NOT yet taken by the desk: {relative(path)})")
    for kill, word in standing.items():
        print(f"{kill}  {word}")
    if not standing:
        print("no KILL stands in the desk's ledger")
    if not args.kill and not args.all:
        if args.reason:
            print("nothing was released: name what ends with --kill ID, or --all", file=sys.stderr)
        return 2 if args.reason else 0
    if not args.reason:
        made.error("--reason is missing: say why it ends")
    if unknown := [kill for kill in args.kill if kill not in found.controls and kill not in standing]:
        print(f"nothing was released: the desk knows no {', '.join(unknown)}", file=sys.stderr)
        return 2
    if not args.kill and not standing:
        return 0
    for kill in (k for k in args.kill if k not in standing):
        print(f"{kill} ended before; it is said again, for a service that missed it")
    given = killing.release(settings, args.actor, args.reason, args.kill or standing)
    for fault in given.faults:
        print(fault, file=sys.stderr)
    return confirm(settings, given.fact, until, given.places) if given.places else 1


if __name__ == "__main__":
    raise SystemExit(ended(main))
