"""Takes an entry off the books that the venue does not hold: a person's word, while the desk is halted; nothing is sent.

  python -m scripts.write_off                                  # what the desk believes to hold, in both accounts
  python -m scripts.write_off --entry E-BTCUSDT-s1-1767654887210-B --price 60123.4 --reason "closed by hand at the venue"

For a difference with the venue that does not end by itself (alert PositionMismatch): a position that was closed by hand, or by a life of
the desk that is lost. The price is what it was closed at; profit and loss follow from it, so that one further than 10 % from the market's
last is refused (--anyway books it). A twin (T-…) is written off on the paper account beside a real one. An order of it that still rests at
the venue is reported as an orphan. What the venue holds and the desk does not is closed at the venue, by hand.
"""
import sys

from config import settings as config
from config.settings import Settings
from engine.desk import Desk
from engine.facts import TWIN, WRITE_OFF, account_of
from engine.portfolio import Entry
from scripts._arguments import ended, number
from scripts.kill import confirm, deadline, name, parser, words
from store import killing
from store.audit import desk_of
from store.database import LedgerError
from store.ledger import ledger_url

FAR = 0.1       # of the last touch: a price beyond it is asked about


def line(desk: Desk, e: Entry) -> str:
    """One entry that is held or on its way, and in which account."""
    order = desk.books(e.id).orders[e.order_id]
    return (f"{e.id}  {'paper account: ' if account_of(e.id) == TWIN else ''}{e.symbol} {'+' if e.sign > 0 else '-'}{e.held:.10g} at "
            f"{e.average:.10g}, {e.state}, its order {order.id}: {order.status or 'no word from the venue'}")


def refusal(desk: Desk, settings: Settings, name: str, price: float, anyway: bool) -> str:
    """Why this entry is not to be written off at this price, in words; empty where it may be."""
    entry = desk.books(name).entries.get(name)
    if entry is None:
        return f"the desk holds no {name}; without --entry this prints what it holds"
    if not desk.state.kills:
        return "the desk is not halted, and may be closing it now; python -m scripts.kill first"
    touch = desk.state.touches.get(entry.symbol)
    if anyway or entry.held <= 0:
        return ""
    last = (touch.bid + touch.ask) / 2 * settings.instrument(entry.symbol).tick if touch and touch.bid > 0 and touch.ask > 0 else 0.0
    if not last:
        return f"the desk knows no price of {entry.symbol} to hold {price:.10g} against; --anyway books it"
    away = price / last - 1
    return "" if abs(away) <= FAR else (f"{price:.10g} is {abs(away):.0%} {'above' if away > 0 else 'below'} the last of {entry.symbol}, "
                                        f"{last:.10g}, and profit and loss follow from it; --anyway books it")


def main(argv: list[str] | None = None) -> int:
    """Shows what is held, or writes one entry off; returns the exit status."""
    made = parser("write_off", __doc__ or "")
    made.add_argument("--entry", type=name, metavar="ID", help="the entry's order id")
    made.add_argument("--price", type=number(float, 0, above=True),
                      help="what the position was closed at (of an entry that holds nothing it does not matter)")
    made.add_argument("--anyway", action="store_true",
                      help="also at a price further than 10 %% from the market's last, or where none is known")
    made.add_argument("--reason", type=words, help="why; it stands in the ledger")
    args = made.parse_args(argv)
    settings, until = config.load(*args.config), deadline(args.wait)
    try:
        desk = desk_of(settings, ledger_url(settings))
    except LedgerError as error:
        print(error, file=sys.stderr)
        return 1
    if not args.entry:
        print("\n".join(line(desk, e) for e in desk.entries()) or "the desk believes to hold nothing")
        return 0
    if missing := [f"--{key}" for key in ("price", "reason") if getattr(args, key) is None]:
        made.error(f"{' and '.join(missing)} is missing")
    if why := refusal(desk, settings, args.entry, args.price, args.anyway):
        print(f"nothing was written off: {why}", file=sys.stderr)
        return 2
    fact = killing.control(WRITE_OFF, args.actor, args.reason, {"entry": args.entry, "price": repr(args.price)})
    given = killing.told(settings, killing.Given(fact, [], []))
    for fault in given.faults:
        print(fault, file=sys.stderr)
    return confirm(settings, fact, until, given.places) if given.places else 1


if __name__ == "__main__":
    raise SystemExit(ended(main))
