"""Takes an entry off the books that the venue does not hold: a person's word, while the desk is halted; nothing is sent.

  python -m scripts.write_off                                  # what the desk believes to hold
  python -m scripts.write_off --entry E-BTCUSDT-s1-1767654887210-B --price 60123.4 --reason "closed by hand at the venue"

For a difference with the venue that does not end by itself (alert PositionMismatch): a position that was closed by hand, or by a life of
the desk that is lost. The price is what it was closed at; profit and loss follow from it. An order of it that still rests at the venue is
reported as an orphan. What the venue holds and the desk does not is closed at the venue, by hand.
"""
import sys

from config import settings as config
from engine.facts import WRITE_OFF
from scripts._arguments import ended, number
from scripts.kill import confirm, deadline, name, parser, words
from store import killing
from store.audit import desk_of
from store.database import LedgerError
from store.ledger import ledger_url


def main(argv: list[str] | None = None) -> int:
    """Shows what is held, or writes one entry off; returns the exit status."""
    made = parser("write_off", __doc__ or "")
    made.add_argument("--entry", type=name, metavar="ID", help="the entry's order id")
    made.add_argument("--price", type=number(float, 0, above=True),
                      help="what the position was closed at (of an entry that holds nothing it does not matter)")
    made.add_argument("--reason", type=words, help="why; it stands in the ledger")
    args = made.parse_args(argv)
    settings, until = config.load(*args.config), deadline(args.wait)
    try:
        desk = desk_of(settings, ledger_url(settings))
    except LedgerError as error:
        print(error, file=sys.stderr)
        return 1
    if not args.entry:
        for e in desk.portfolio.entries.values():
            order = desk.portfolio.orders[e.order_id]
            print(f"{e.id}  {e.symbol} {'+' if e.sign > 0 else '-'}{e.held:.10g} at {e.average:.10g}, {e.state}, "
                  f"its order {order.id}: {order.status or 'no word from the venue'}")
        if not desk.portfolio.entries:
            print("the desk believes to hold nothing")
        return 0
    if missing := [f"--{key}" for key in ("price", "reason") if getattr(args, key) is None]:
        made.error(f"{' and '.join(missing)} is missing")
    if args.entry not in desk.portfolio.entries:
        print(f"nothing was written off: the desk holds no {args.entry}; without --entry this prints what it holds", file=sys.stderr)
        return 2
    if not desk.state.kills:
        print("nothing was written off: the desk is not halted, and may be closing it now; python -m scripts.kill first", file=sys.stderr)
        return 2
    fact = killing.control(WRITE_OFF, args.actor, args.reason, {"entry": args.entry, "price": repr(args.price)})
    given = killing.told(settings, killing.Given(fact, [], []))
    for fault in given.faults:
        print(fault, file=sys.stderr)
    return confirm(settings, fact, until, given.places) if given.places else 1


if __name__ == "__main__":
    raise SystemExit(ended(main))
