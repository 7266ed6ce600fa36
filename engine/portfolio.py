"""The account: a fold of own orders, venue reports and fills.

Every level of an entry's ladder is an entry of its own here, which its own reduce-only orders close; what S4 counts and bounds, and what
ends in one outcome, is all levels together (`Plan`). Exposure is the margin of what is filled plus what open entry orders reserve
(DECISIONS, 13 and 14). A fill may come before its order's
acceptance, and a report before the fills that it speaks of: an order is *settled* when the venue has ended it and all fills
that it speaks of are here. Cooldowns start with the venue's acceptance (15); an entry that it has not answered yet holds others off as
if it had been accepted when it was sent, so that its answer's way is no gap, and a refusal gives that back.
"""
import msgspec

from engine.facts import ACCEPTED, BUY, CANCELLED, DONE, REJECTED, WRITTEN_OFF, Decision, Fill, Order, Outcome, Report, direction
from engine.holding import Holding
from engine.policy import OpenEntry, PortfolioState
from engine.reasons import DUPLICATE_ORDER, NOT_FOUND
from engine.settings import Instrument

ENTERING, OPEN, CANCELLING, EXITING = "entering", "open", "cancelling", "exiting"
REMEMBERED = 4096   # closed order ids kept, to tell a late duplicate from an orphan
KEPT = 256          # orders of which the venue's word is kept though they are not ours


class Working(msgspec.Struct):
    """One order at the venue; `told` is the filled quantity that a terminal report speaks of, -1 before."""
    id: str
    entry_id: str
    side: str
    qty: float
    price: float
    filled: float = 0.0
    told: float = -1.0
    accepted: bool = False
    status: str = ""
    seen: list[str] = []

    @property
    def settled(self) -> bool:
        """Ended at the venue, and every fill of it is booked."""
        return self.told >= 0 and self.filled >= self.told - 1e-12


class Entry(msgspec.Struct):
    """One level of an entry and its way out. Money in USD, times in market ms; `sign` +1 long, -1 short."""
    id: str
    plan: str                     # the id of the first level, by which the whole is known
    symbol: str
    side: str
    sign: int
    regime: str
    model_id: str
    confidence: float
    tau_hold: float
    route: str
    price: float
    stop: float
    target: float
    leverage: float
    margin_usd: float
    qty: float
    tick: float
    lot: float
    sent_ms: int
    expires_ms: int
    state: str = ENTERING
    order_id: str = ""            # the order at work: the entry's own, then each exit's
    exits: int = 0
    cause: str = ""
    bought: float = 0.0           # quantity in, value in
    paid: float = 0.0
    sold: float = 0.0             # quantity out, value out
    got: float = 0.0
    fees: float = 0.0
    opened_ms: int = 0
    deadline_ms: int = 0
    asked_ms: int = 0             # when the last cancel was asked
    asks: int = 0                 # how often that of the order at work

    @property
    def stop_ticks(self) -> int:
        """The stop in ticks, for comparison with a book."""
        return round(self.stop / self.tick)

    @property
    def held(self) -> float:
        """Quantity filled and not yet closed, in whole lots."""
        return round(round((self.bought - self.sold) / self.lot) * self.lot, 12)

    @property
    def net_usd(self) -> float:
        """What it came to after fees, once it is closed."""
        return self.sign * (self.got - self.paid) - self.fees

    @property
    def average(self) -> float:
        """Mean entry price."""
        return self.paid / self.bought if self.bought else self.price


class Plan(msgspec.Struct):
    """An entry as it was decided, over the levels of its ladder: `open` of them are not closed yet, the rest is what the closed ones did.

    `wanted_usd` is the notional that was wanted before the arm took its part; quantities and money as in `Entry`.
    """
    wanted_usd: float
    price: float
    open: int = 0
    bought: float = 0.0
    paid: float = 0.0
    sold: float = 0.0
    got: float = 0.0
    fees: float = 0.0
    opened_ms: int = 0
    cause: str = ""


class Ended(msgspec.Struct, frozen=True):
    """A plan that is over; `outcome` where anything was traded."""
    plan: Plan
    outcome: Outcome | None


class Portfolio(msgspec.Struct):
    """The Desk's books; reads as S4's portfolio (`engine.policy.Account`)."""
    equity_usd: float
    plans: dict[str, Plan] = {}
    entries: dict[str, Entry] = {}
    orders: dict[str, Working] = {}
    closed: dict[str, None] = {}
    realized_usd: float = 0.0
    fees_usd: float = 0.0
    traded: dict[str, float] = {}           # by symbol the last entry that the venue accepted, s
    positions: dict[str, float] = {}
    holdings: dict[str, Holding] = {}       # the same at average cost, as a venue keeps it
    orphans: int = 0
    unclaimed: dict[str, list[Report | Fill]] = {}     # what the venue said of orders that are not ours, or not yet again
    duplicates: int = 0
    _view: dict | None = None

    # what S4 reads, derived from the entries and kept until one changes

    def view(self) -> dict:
        """Totals over the live entries."""
        if self._view is None:
            levels: dict[str, list[Entry]] = {}
            regimes: dict[str, int] = {}
            exposure: dict[str, float] = {}
            traded = dict(self.traded)
            for e in self.entries.values():
                levels.setdefault(e.plan, []).append(e)
                open_qty = e.held if e.state != ENTERING else max(0.0, e.qty - e.sold)
                exposure[e.symbol] = exposure.get(e.symbol, 0.0) + open_qty * e.average / e.leverage
                if not (entering := self.orders[e.id]).accepted and entering.told < 0:
                    traded[e.symbol] = max(traded.get(e.symbol, 0.0), e.sent_ms / 1000)
            by_symbol: dict[str, list[OpenEntry]] = {}
            for some in levels.values():
                first, qty = some[0], sum(e.bought or e.qty for e in some)
                average = sum((e.bought or e.qty) * e.average for e in some) / qty
                by_symbol.setdefault(first.symbol, []).append(OpenEntry(direction(first.side), qty, average, first.confidence))
                regimes[first.regime] = regimes.get(first.regime, 0) + 1
            self._view = {"by_symbol": by_symbol, "regimes": regimes, "exposure": exposure, "total": sum(exposure.values()),
                          "traded": traded}
        return self._view

    @property
    def total_positions(self) -> int:
        """Live entries, resting ones included; the levels of one count once."""
        return sum(map(len, self.view()["by_symbol"].values()))

    @property
    def positions_by_symbol(self) -> dict[str, list[OpenEntry]]:
        """Live entries of each symbol."""
        return self.view()["by_symbol"]

    @property
    def positions_by_regime(self) -> dict[str, int]:
        """Live entries of each regime."""
        return self.view()["regimes"]

    @property
    def exposure_by_symbol(self) -> dict[str, float]:
        """Margin of each symbol, reservations included."""
        return self.view()["exposure"]

    @property
    def total_exposure_usdt(self) -> float:
        """Margin in all."""
        return self.view()["total"]

    @property
    def available_capital_usdt(self) -> float:
        """Equity that no margin binds."""
        return max(0.0, self.equity_usd + self.realized_usd - self.total_exposure_usdt)

    @property
    def last_trade_by_symbol(self) -> dict[str, float]:
        """When each symbol was last entered, in s of market time; what the venue has not answered counts from its sending."""
        return self.view()["traded"]

    @property
    def last_trade_time(self) -> float | None:
        """The same of any symbol."""
        return max(self.last_trade_by_symbol.values(), default=None)

    # the fold

    def send(self, order: Order, entry: Entry) -> None:
        """An order of ours is on its way."""
        self.orders[order.id] = Working(order.id, entry.id, order.side, order.qty, order.price, seen=[])
        entry.order_id = order.id
        self._view = None

    def enter(self, order: Order, d: Decision, instrument: Instrument) -> Entry:
        """A level of an entry with its order; `order.entry_id` names the entry that was decided."""
        s = d.scored.signal
        self.plans.setdefault(order.entry_id, Plan(d.wanted_usd, d.price)).open += 1
        entry = Entry(order.id, order.entry_id, order.symbol, order.side, 1 if order.side == BUY else -1, s.regime, d.scored.model_id,
                      d.scored.p, d.scored.tau_hold, order.route, order.price, s.stop, s.target, d.leverage,
                      order.qty * order.price / d.leverage, order.qty, instrument.tick, instrument.lot, order.ts_ms, order.expires_ms)
        self.entries[order.id] = entry
        self.send(order, entry)
        return entry

    def on_report(self, report: Report) -> Working | None:
        """The venue said what became of an order; None where it is no order of ours that is still open."""
        order = self.orders.get(report.order_id)
        if order is None:
            self._late(report)
            return None
        if order.told >= 0 or report.reason in (DUPLICATE_ORDER, NOT_FOUND):    # a repeated request says nothing of the first
            self.duplicates += 1
            return None
        if report.status == ACCEPTED:
            if order.accepted:
                self.duplicates += 1
                return None
            order.accepted, order.status = True, ACCEPTED
            self._traded(order, report)
        elif report.status in (REJECTED, CANCELLED, DONE):
            order.told, order.status = report.filled, report.status
            if report.filled and not order.accepted:        # done before anybody said that it was taken
                self._traded(order, report)
            self._view = None
        else:
            order.status = report.status
        return order

    def _traded(self, order: Working, report: Report) -> None:
        if order.id == order.entry_id:
            self.traded[report.symbol] = max(self.traded.get(report.symbol, 0.0), report.ts_ms / 1000)
            self._view = None

    def on_fill(self, fill: Fill) -> Working | None:
        """An execution; None where it is known already or of no order of ours."""
        order = self.orders.get(fill.order_id)
        if order is None:
            self._late(fill)
            return None
        if fill.id in order.seen:
            self.duplicates += 1
            return None
        order.seen.append(fill.id)
        order.filled += fill.qty
        entry = self.entries[order.entry_id]
        if order.id == entry.id:
            entry.bought += fill.qty
            entry.paid += fill.qty * fill.price
            entry.opened_ms = entry.opened_ms or fill.ts_ms
        else:
            entry.sold += fill.qty
            entry.got += fill.qty * fill.price
        entry.fees += fill.fee_usd
        self.fees_usd += fill.fee_usd
        signed = fill.qty if fill.side == BUY else -fill.qty
        self.positions[fill.symbol] = round(self.positions.get(fill.symbol, 0.0) + signed, 10)
        self.holdings.setdefault(fill.symbol, Holding()).take(fill)
        self._view = None
        return order

    def close(self, entry: Entry, ts_ms: int) -> Ended | None:
        """Takes an ended level off the books; what its entry came to with the last of them."""
        for order_id in [o.id for o in self.orders.values() if o.entry_id == entry.id]:
            del self.orders[order_id]
            self.closed[order_id] = None
        while len(self.closed) > REMEMBERED:
            del self.closed[next(iter(self.closed))]
        del self.entries[entry.id]
        self._view = None
        plan = self.plans[entry.plan]
        plan.open -= 1
        if entry.bought:
            self.realized_usd += entry.net_usd
            plan.bought, plan.paid = plan.bought + entry.bought, plan.paid + entry.paid
            plan.sold, plan.got = plan.sold + entry.sold, plan.got + entry.got
            plan.fees += entry.fees
            plan.cause = WRITTEN_OFF if plan.cause == WRITTEN_OFF else entry.cause     # a person's word on any level stays
            plan.opened_ms = min(plan.opened_ms or entry.opened_ms, entry.opened_ms)
        if plan.open:
            return None
        del self.plans[entry.plan]
        if not plan.bought:
            return Ended(plan, None)
        gross, sold_at = entry.sign * (plan.got - plan.paid), plan.got / plan.sold if plan.sold else 0.0
        return Ended(plan, Outcome(
            entry.plan, entry.symbol, entry.side, entry.regime, entry.model_id, entry.confidence, plan.bought, plan.paid / plan.bought,
            sold_at, gross, plan.fees, gross - plan.fees, plan.cause, entry.route, plan.opened_ms, ts_ms))

    def _late(self, fact: Report | Fill) -> None:
        if fact.order_id in self.closed:
            self.duplicates += 1
            return
        self.orphans += 1
        if fact.seq and not (isinstance(fact, Report) and fact.reason in (DUPLICATE_ORDER, NOT_FOUND)):
            self.unclaimed.setdefault(fact.order_id, []).append(fact)
            if len(self.unclaimed) > KEPT:
                del self.unclaimed[next(iter(self.unclaimed))]

    def claim(self, order_id: str) -> list[Report | Fill]:
        """What the venue has said of an order before it was ours (again); once."""
        told = self.unclaimed.pop(order_id, [])
        self.orphans -= len(told)
        return told


def build_portfolio_state(portfolio: Portfolio) -> PortfolioState:
    """The books as S4's frozen view: a copy that later fills do not change."""
    return PortfolioState(
        portfolio.total_positions,
        {symbol: list(entries) for symbol, entries in portfolio.positions_by_symbol.items()},
        dict(portfolio.positions_by_regime),
        portfolio.total_exposure_usdt,
        dict(portfolio.exposure_by_symbol),
        portfolio.available_capital_usdt,
        portfolio.last_trade_time,
        dict(portfolio.last_trade_by_symbol),
    )
