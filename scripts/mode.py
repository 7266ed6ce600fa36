"""Which mode the desk is in, and changing it: paper sends nothing real, full sends every entry to the real venue.

  python -m scripts.mode                                            # what the ledger has
  python -m scripts.mode --to full --reason "canary was clean"
  python -m scripts.mode --to paper --reason "going on holiday"     # resting real entries are taken back, exits go on

`rollout.mode` of the configuration counts for an empty ledger alone; from then on the mode is a fact in it (DECISIONS, 22). Where
`venue.mode` is paper, full is paper too. In a fail-safe it is the mode that the desk returns to.
"""
import sys

from config import settings as config
from engine.facts import MODE_SWITCH
from engine.state import FULL, PAPER
from scripts._arguments import ended
from scripts.kill import confirm, deadline, parser, words
from store import killing
from store.audit import desk_of
from store.database import LedgerError
from store.ledger import ledger_url


def main(argv: list[str] | None = None) -> int:
    """Shows or changes the mode; returns the exit status."""
    made = parser("mode", __doc__ or "")
    made.add_argument("--to", choices=(PAPER, FULL), help="the mode from now on")
    made.add_argument("--reason", type=words, help="why; it stands in the ledger")
    args = made.parse_args(argv)
    settings, until = config.load(*args.config), deadline(args.wait)
    if args.to and not args.reason:
        made.error("--reason is missing")
    try:
        state = desk_of(settings, ledger_url(settings)).state
    except LedgerError as error:
        print(error, file=sys.stderr)
        return 1
    if not args.to:
        safe = f"; on paper by a fail-safe ({state.safe.reason}) until {state.safe.until_ms} ms of market time" if state.safe.base else ""
        print(f"{state.mode}, at a {settings.venue.mode} venue{safe}")
        return 0
    if args.to == state.mode:
        print(f"it is {state.mode} already: nothing was changed")
        return 0
    given = killing.give(settings, MODE_SWITCH, args.actor, args.reason, {"mode": args.to})
    for fault in given.faults:
        print(fault, file=sys.stderr)
    return confirm(settings, given.fact, until, given.places) if given.places else 1


if __name__ == "__main__":
    raise SystemExit(ended(main))
