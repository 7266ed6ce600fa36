"""Live entries with the levels of their ladder, as tables: each level's price, place behind the touch, fill, way out, margin."""
import json
from dataclasses import dataclass

import pandas as pd

from config.settings import Settings
from engine.execution.ladder import rung_id
from engine.facts import BUY, account_of
from engine.guards import liquidation_price
from engine.portfolio import ENTERING, Entry, Portfolio
from store.mirror import Seen

ROUTES = {"full": "real", "canary": "real (canary)", "paper": "paper", "twin": "twin"}
LEVELS = ["level", "id", "price", "behind", "qty", "filled", "sold", "p", "state", "order", "margin_usd"]


@dataclass(frozen=True)
class Live:
    """One entry that is not closed. `levels`: a row a level (`LEVELS`), best first; a level that has ended is `closed`.

    Prices in quote currency, times in market ms; `behind` counts ticks from the own side's touch, below 0: ahead of it; `deadline_ms` is
    when it is taken back while nothing is filled, then when it is closed whatever the price. `bid` and `ask` are None without a book.
    """
    id: str
    symbol: str
    side: str
    route: str
    levels: pd.DataFrame
    stop: float
    target: float
    liquidation: float
    margin_usd: float
    held: float
    average: float
    sent_ms: int
    deadline_ms: int
    filled_yet: bool
    tick: float
    bid: float | None
    ask: float | None

    @property
    def twin(self) -> bool:
        """Whether it stands in the paper account beside the real one."""
        return bool(account_of(self.id))


def live(seen: Seen, settings: Settings, rungs: dict[str, str]) -> list[Live]:
    """The live entries, newest first, twins after the desk's own. `rungs`: by entry, the levels as they were decided (json)."""
    found = [one(seen, settings, books, plan, rungs.get(plan, "")) for books in (seen.state.portfolio, seen.state.twins)
             for plan in books.plans if any(e.plan == plan for e in books.entries.values())]
    return sorted(found, key=lambda entry: (entry.twin, -entry.sent_ms, entry.id))


def one(seen: Seen, settings: Settings, books: Portfolio, plan: str, rungs: str) -> Live:
    """An entry over its levels."""
    levels = sorted((e for e in books.entries.values() if e.plan == plan), key=lambda e: e.id)
    first = levels[0]
    touch = seen.state.touches.get(first.symbol)
    bid, ask = (touch.bid * first.tick, touch.ask * first.tick) if touch else (None, None)
    decided = {rung_id(plan, n): (n, ticks, lots, p) for n, (_, ticks, lots, p) in enumerate(json.loads(rungs or "null") or [])}
    rows = [row(e, books, decided, bid, ask) for e in levels]
    known = {e.id for e in levels}
    rows += [[n, name, ticks * first.tick, None, lots * first.lot, None, None, p, "closed", "", 0.0]
             for name, (n, ticks, lots, p) in decided.items() if name not in known]
    table = pd.DataFrame(rows, columns=LEVELS).sort_values("level", kind="stable").reset_index(drop=True)
    held, bought, paid = sum(e.held for e in levels), sum(e.bought for e in levels), sum(e.paid for e in levels)
    average = paid / bought if bought else first.price
    maintenance = settings.symbols[first.symbol].maintenance_margin_rate if first.symbol in settings.symbols else 0.0
    deadlines = [e.deadline_ms for e in levels if e.deadline_ms] or [e.expires_ms for e in levels if e.expires_ms]
    return Live(plan, first.symbol, first.side, ROUTES.get(first.route, first.route), table, first.stop, first.target,
                liquidation_price(first.side, average, first.leverage, maintenance), float(table["margin_usd"].sum()), held, average,
                min(e.sent_ms for e in levels), min(deadlines, default=0), bool(bought), first.tick, bid, ask)


def row(e: Entry, books: Portfolio, decided: dict, bid: float | None, ask: float | None) -> list:
    """A level that lives."""
    level, _, _, p = decided.get(e.id, (int(e.id.rpartition(".")[2]) if e.id != e.plan else 0, 0, 0, None))
    behind = None
    if bid is not None and ask is not None:
        behind = round(((bid - e.price) if e.side == BUY else (e.price - ask)) / e.tick)
    working = books.orders.get(e.order_id)
    what = ""
    if working is not None and e.order_id != e.id:
        at = f"at {working.price:.10g}" if working.price else "at the market"
        what = f"{working.side.lower()} {working.qty:.10g} {at}: {working.status or 'sent'}"
    elif working is not None:
        what = working.status or "sent"
    state = "taken back" if e.state == ENTERING and e.asked_ms else e.state
    qty = e.held if e.state != ENTERING else max(0.0, e.qty - e.sold)
    return [level, e.id, e.price, behind, e.qty, e.bought, e.sold, p, state + (f" ({e.cause})" if e.cause else ""), what,
            qty * e.average / e.leverage]
