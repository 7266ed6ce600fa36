"""Facts move series, and say S4's log lines; what every host of a Desk calls, live or in replay."""
from collections import deque
from collections.abc import Callable, Iterable

from engine import metrics as m
from engine import policy, reasons
from engine.facts import ENTRY, STATUSES, Dropped, Fill, Market, Order, Outcome, Report, ScoredBatch
from engine.portfolio import Portfolio

LAST = 50   # entries that the rolling rates look at


class Telemetry:
    """Counts what the Desk heard and said into a meter; `log` takes S4's lines, a run of the same refusal once."""

    def __init__(self, meter: m.Meter, log: Callable[[str], object] | None = None, quiet: Iterable[str] = (reasons.BLOCK_LOW_CONFIDENCE,)):
        self.meter, self.log, self.quiet = meter, log or (lambda line: None), frozenset(quiet)
        self.won: dict[str, deque[bool]] = {}
        self.placed: dict[str, deque[str]] = {}
        self.filled: set[str] = set()
        self.refused: dict[str, str] = {}       # the last reason said of each symbol: a run of the same is one line, and a count

    def heard(self, fact) -> None:
        """A fact that the Desk consumed."""
        meter = self.meter
        if isinstance(fact, (Market, ScoredBatch)):
            return
        if isinstance(fact, Report):
            if fact.status in STATUSES:
                meter.inc(m.REPORTS_TOTAL, status=fact.status)
            if fact.reason in reasons.REFUSALS:
                meter.inc(m.ORDERS_REFUSED_TOTAL, reason=fact.reason)
        elif isinstance(fact, Fill):
            meter.inc(m.FILLS_TOTAL, symbol=fact.symbol, liquidity="maker" if fact.maker else "taker")
            if fact.order_id.startswith("E-") and fact.order_id not in self.filled:
                self.filled.add(fact.order_id)
                for route, ids in self.placed.items():
                    if fact.order_id in ids:
                        meter.inc(m.TRADES_OPENED_TOTAL, route=route)

    def said(self, outs: Iterable) -> None:
        """What the Desk answered."""
        meter = self.meter
        dropped: dict[str, int] = {}
        for out in outs:
            if isinstance(out, Dropped):
                dropped[out.reason] = dropped.get(out.reason, 0) + 1
                symbol = out.scored.signal.symbol
                if out.reason not in self.quiet and self.refused.get(symbol) != out.reason:
                    self.refused[symbol] = out.reason
                    self.log(policy.decision_line(symbol, out.reason, out.numbers))
                    self.log(policy.blocked_line(out.reason, out.numbers))
            elif isinstance(out, Order):
                self._order(out)
            elif isinstance(out, Outcome):
                won = self.won.setdefault(out.route, deque(maxlen=LAST))
                won.append(out.net_usd > 0)
                meter.inc(m.EXITS_TOTAL, cause=out.cause)
                meter.inc(m.TRADES_WON_TOTAL, int(out.net_usd > 0), route=out.route)
                meter.set(m.WINRATE_ROLLING, sum(won) / len(won), route=out.route)
        for reason, count in dropped.items():
            meter.inc(m.DROPPED_TOTAL, count, reason=reason)
            if reason in reasons.DECISIONS:
                meter.inc(m.DECISIONS_TOTAL, count, decision=reason)

    def _order(self, order: Order) -> None:
        self.meter.inc(m.ORDERS_TOTAL, cause=order.cause)
        if order.cause != ENTRY or order.decision is None:
            return
        d = order.decision
        self.refused.pop(order.symbol, None)
        self.meter.inc(m.DECISIONS_TOTAL, decision=d.decision)
        placed = self.placed.setdefault(order.route, deque(maxlen=LAST))
        placed.append(order.id)
        self.filled.intersection_update({i for ids in self.placed.values() for i in ids})
        self.meter.set(m.FILL_RATE_ROLLING, sum(i in self.filled for i in placed) / len(placed), route=order.route)
        self.log(policy.decision_line(order.symbol, d.decision, d.reason))
        self.log(policy.approved_line(d.decision, d.qty, d.reason))

    def stands(self, portfolio: Portfolio, halted: str) -> None:
        """The account as it stands."""
        meter = self.meter
        meter.set(m.EQUITY_USD, portfolio.equity_usd + portfolio.realized_usd)
        meter.set(m.REALIZED_PNL_USD, portfolio.realized_usd)
        meter.set(m.FEES_USD, portfolio.fees_usd)
        meter.set(m.EXPOSURE_USD, portfolio.total_exposure_usdt)
        meter.set(m.OPEN_ORDERS, sum(not o.settled for o in portfolio.orders.values()))
        meter.set(m.HALTED, 1 if halted else 0)
        for symbol, qty in portfolio.positions.items():
            meter.set(m.POSITION_QTY, qty, symbol=symbol)
