"""What the desk believes and what the venue says, side by side, at one number of the venue's.

Both have seen the same executions and reports by then, so whatever differs is a fault and not a fact on its way.
"""
import msgspec

from engine.facts import TWIN, Standing, account_of
from engine.holding import Holding
from engine.portfolio import Portfolio
from engine.settings import Instrument

POSITION, AVERAGE, RESULT, ORDER, ORPHAN, GAP = "position", "average", "result", "order", "orphan", "gap"
KINDS = (POSITION, AVERAGE, RESULT, ORDER, ORPHAN, GAP)
CENT = 0.01            # venues round fees and results; a lost execution is worth more


class Difference(msgspec.Struct, frozen=True, array_like=True):
    """One thing on which the two do not agree: `what` is the symbol or the order's id."""
    kind: str
    what: str
    ours: float
    theirs: float

    @property
    def key(self) -> tuple[str, str]:
        """What differs, whatever the numbers."""
        return self.kind, self.what

    def like(self, other: "Difference") -> bool:
        """Whether it is the other one still, though both sides may have moved on together."""
        moved = abs((self.theirs - self.ours) - (other.theirs - other.ours))
        return self.key == other.key and moved < {POSITION: 1e-9, RESULT: CENT}.get(self.kind, float("inf"))

    def __str__(self) -> str:
        return f"{self.kind} {self.what}: ours {self.ours:.10g}, the venue's {self.theirs:.10g}"


def differences(portfolio: Portfolio, standing: Standing, instrument: Instrument, before_usd: float = 0.0,
                twin: bool = False) -> list[Difference]:
    """Position in whole lots, average price within half a tick, result within a cent, resting orders by id and unfilled lots.

    Of the first three only the first that differs: the others follow from it. `before_usd`: what the account had realised at the
    venue before this desk first traded on it. An order that rests at the venue and was never the desk's is an `orphan`. `twin`: of the
    paper account beside a real one.
    """
    symbol, out, account = standing.symbol, [], ""
    if twin:
        account, (position, average, realized) = TWIN, standing.twin
    else:
        position, average, realized = standing.position, standing.average, standing.realized_usd
    name = f"{symbol} {account}".strip()

    def lots(qty: float) -> int:
        return round(qty / instrument.lot)
    held, holding = portfolio.positions.get(symbol, 0.0), portfolio.holdings.get(symbol, Holding())
    if lots(held) != lots(position):
        out.append(Difference(POSITION, name, held, position))
    elif held and abs(holding.average - average) > instrument.tick / 2:
        out.append(Difference(AVERAGE, name, holding.average, average))
    if not out and abs(holding.realized_usd + before_usd - realized) > CENT:
        out.append(Difference(RESULT, name, holding.realized_usd + before_usd, realized))
    resting = {o.id: o.qty - o.filled for o in portfolio.orders.values()
               if o.accepted and o.told < 0 and portfolio.entries[o.entry_id].symbol == symbol}
    for order_id in sorted({*resting, *(i for i in standing.open_orders if account_of(i) == account)}):
        ours, theirs = resting.get(order_id, 0.0), standing.open_orders.get(order_id, 0.0)
        if lots(ours) != lots(theirs):
            known = order_id in portfolio.orders or order_id in portfolio.closed
            out.append(Difference(ORDER if known else ORPHAN, order_id, ours, theirs))
    return out
