"""Facts move series, and say S4's log lines; what every host of a Desk calls, live or in replay."""
from collections import deque
from collections.abc import Callable, Iterable

import numpy as np

from engine import metrics as m
from engine import policy, reasons
from engine.desk import HALTED, REDUCING, TRADING, Desk
from engine.execution.admission import DEGRADE, HALT, PAPER, REAL, Pressure, Safe
from engine.execution.ladder import bucket, entry_of
from engine.execution.markout import Marked, Markouts
from engine.execution.matching import ABOUT_REQUEST
from engine.execution.rates import Rates
from engine.facts import (
    ACCEPTED,
    ENTRY,
    STATUSES,
    TWIN,
    UNKNOWN,
    Dropped,
    Fill,
    Market,
    Order,
    Outcome,
    Report,
    ScoredBatch,
    account_of,
)
from engine.fillprob.telemetry import FillProbTelemetry
from engine.rewards.attribution import Attributed, Missed
from engine.rewards.telemetry import RewardTelemetry
from engine.settings import Markout
from engine.sizing.telemetry import counted
from engine.watch import Watch

SHORT = Markout(30, 2000)
LAST = 50   # entries that the rolling rates look at
MARKOUTS = {100: m.AVG_MARKOUT_100MS, 500: m.AVG_MARKOUT_500MS, 1000: m.AVG_MARKOUT_1000MS}
HALTS = {reasons.DAILY_CAP: m.DAILY_CAP_TRIGGER_TOTAL, reasons.STREAK_HALT: m.STREAK_HALT_TOTAL,
         reasons.PRECISION_HALT: m.PRECISION_HALT_TOTAL, reasons.VOLATILITY_HALT: m.VOLATILITY_HALT_TOTAL}


def exchange_mode(mode: str) -> str:
    """S1's name of where a mode sends its orders: `paper`, or `real` for all else."""
    return PAPER if mode == PAPER else REAL


class Telemetry:
    """Counts what the Desk heard and said into a meter; `log` takes S4's lines, a run of the same refusal once."""

    def __init__(self, meter: m.Meter, log: Callable[[str], object] | None = None, quiet: Iterable[str] = (reasons.BLOCK_LOW_CONFIDENCE,),
                 markout: Markout = SHORT, evidence: Callable[[dict], object] | None = None):
        self.meter, self.log, self.quiet = meter, log or (lambda line: None), frozenset(quiet)
        self.won: dict[str, deque[bool]] = {}
        self.rates = Rates(LAST)
        self.missed: int | None = None
        self.counted: dict[tuple, int] | None = None      # what the guards' own counts were when they were last looked at
        self.markouts = Markouts(markout.window, markout.late_ms)
        self.rewards = RewardTelemetry(meter, self.log)
        self.fill_prob, self.evidence, self.gated = FillProbTelemetry(meter), evidence or (lambda artifact: None), (0, 0)
        self.twins_usd = 0.0
        self.refused: dict[str, str] = {}       # the last reason said of each symbol: a run of the same is one line, and a count

    def on(self, desk: Desk, consumed: Iterable, outs: list) -> None:
        """What the Desk consumed and said in one go, and how it stands after it."""
        for fact in consumed:
            self.heard(fact)
            if isinstance(fact, Market):
                ts, bid, ask = np.frombuffer(fact.ts, np.int64), np.frombuffer(fact.bid, np.int32), np.frombuffer(fact.ask, np.int32)
                came = self.markouts.on_market(fact.symbol, fact.session, fact.tick, ts, bid, ask, fact.upto_ms)
                if came or self.markouts.state.missed != self.missed:
                    self.marked(self.markouts, came)
            elif isinstance(fact, Fill) and (route := self.rates.route_of(fact.order_id)):
                self.marked(self.markouts, self.markouts.on_fill(fact.id, fact.symbol, fact.side, fact.price, fact.ts_ms, route))
        self.said(outs, desk)
        self.rewards.said(out for out in outs if isinstance(out, (Attributed, Missed)))
        for symbol, sized in desk.entering.drained():
            counted(self.meter, symbol, sized)
        self.guarded(desk.state.watch, desk.state.pressure, desk.state.safe)
        for judged in desk.entering.verdicts():
            for line in judged.lines:
                self.log(line)
            if judged.evidence is not None:
                self.evidence(judged.evidence)
        gate = desk.entering.gate
        if (seen := (gate.state.checks, gate.state.bypassed)) != self.gated:
            self.gated = seen
            self.fill_prob.on(gate)

    def restored(self, desk: Desk) -> None:
        """A Desk came back: what an earlier life counted is not counted again; evidence that it may not have left is left now."""
        self.guarded(desk.state.watch, desk.state.pressure, desk.state.safe)
        for _ in desk.entering.drained():
            pass
        for judged in desk.entering.verdicts():
            if judged.evidence is not None:
                self.evidence(judged.evidence)
        self.fill_prob.on(desk.entering.gate)
        self.gated = desk.state.gate.checks, desk.state.gate.bypassed

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
            if fact.status not in (ACCEPTED, UNKNOWN) and fact.reason not in ABOUT_REQUEST and not fact.filled:
                self._rated(self.rates.on_ended(fact.order_id))
        elif isinstance(fact, Fill) and account_of(fact.order_id):
            meter.inc(m.TWIN_FILLS_TOTAL, symbol=fact.symbol)
            if route := self.rates.on_filled(fact.order_id):        # on paper after a CRIT: a trade of the desk, at no venue
                meter.inc(m.TRADES_OPENED_TOTAL, route=route)
                self._rated(route)
        elif isinstance(fact, Fill):
            meter.inc(m.FILLS_TOTAL, symbol=fact.symbol, liquidity="maker" if fact.maker else "taker")
            if route := self.rates.on_filled(fact.order_id):
                meter.inc(m.TRADES_OPENED_TOTAL, route=route)
                self._rated(route)

    def _rated(self, route: str) -> None:
        if route:
            self.meter.set(m.FILL_RATE_ROLLING, self.rates.fill_rate(route), route=route)
            self.meter.set(m.CANCEL_TO_FILL_RATIO, self.rates.cancel_to_fill(route), route=route)

    def said(self, outs: Iterable, desk: Desk | None = None) -> None:
        """What the Desk answered; with the desk whose limits it kept to, allocations are said as well."""
        meter = self.meter
        dropped: dict[str, int] = {}
        for out in outs:
            if isinstance(out, Dropped):
                dropped[out.reason] = dropped.get(out.reason, 0) + 1
                symbol = out.scored.signal.symbol
                if out.reason == reasons.WARM_UP:
                    meter.inc(m.WARMUP_DROP_TOTAL, symbol=symbol)
                elif out.reason == reasons.BACKPRESSURE:
                    meter.inc(m.BACKPRESSURE_TOTAL, mode=HALT)
                if out.reason not in self.quiet and self.refused.get(symbol) != out.reason:
                    self.refused[symbol] = out.reason
                    self.log(policy.decision_line(symbol, out.reason, out.numbers))
                    self.log(policy.blocked_line(out.reason, out.numbers))
            elif isinstance(out, Order):
                self._order(out, desk)
            elif isinstance(out, Outcome) and out.route == TWIN:
                meter.inc(m.TWIN_OUTCOMES_TOTAL, won=str(out.net_usd > 0).lower())
                self.twins_usd += out.net_usd
                meter.set(m.TWIN_RESULT_USD, self.twins_usd)
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

    def _order(self, order: Order, desk: Desk | None) -> None:
        if order.route == TWIN:         # counted apart: in no rate of the desk (DECISIONS, 28)
            self.meter.inc(m.TWIN_ORDERS_TOTAL, cause=order.cause)
            return
        self.meter.inc(m.ORDERS_TOTAL, cause=order.cause)
        if order.cause != ENTRY:
            return
        self.rates.on_placed(order.id, order.route)
        self._rated(order.route)
        if (d := order.decision) is None or entry_of(order.id) != order.id:      # one decision, whatever its levels
            return
        self.refused.pop(order.symbol, None)
        self.meter.inc(m.DECISIONS_TOTAL, decision=d.decision)
        self.log(policy.decision_line(order.symbol, d.decision, d.reason))
        if desk is not None and d.sized is not None:
            free = dict(d.sized.caps)["wallet_free"]
            self.log(policy.allocation_line(order.symbol, d.margin_usd, desk.limits.max_exposure_per_symbol_usdt, free, d.qty, d.price,
                                            d.leverage, desk.instruments[order.symbol].lot))
        self.log(policy.approved_line(d.decision, d.qty, d.reason))
        self.laddered(p for _, _, _, p in d.rungs)
        if d.choice:
            self.rewards.sent(d.choice)

    def stands(self, desk: Desk, stuck: str = "") -> None:
        """The account as it stands; `stuck`: a record that the desk cannot carry."""
        meter, portfolio = self.meter, desk.portfolio
        self.rewards.stands(desk.entering.rewards)
        meter.set(m.SIZING_FILL_CURVE_ID, 1, id=desk.entering.curve.id)
        for state in TRADING:
            meter.set(m.TRADING_STATE, 1 if state == (HALTED if stuck and desk.idle else REDUCING if stuck else desk.trading) else 0,
                      state=state)
        meter.set(m.EQUITY_USD, portfolio.equity_usd + portfolio.realized_usd)
        meter.set(m.REALIZED_PNL_USD, portfolio.realized_usd)
        meter.set(m.FEES_USD, portfolio.fees_usd)
        meter.set(m.EXPOSURE_USD, portfolio.total_exposure_usdt)
        meter.set(m.OPEN_ORDERS, sum(not o.settled for o in portfolio.orders.values()))
        meter.set(m.HALTED, 1 if desk.state.kills or stuck else 0)
        self.fill_prob.on(desk.entering.gate)
        for symbol, qty in portfolio.positions.items():
            meter.set(m.POSITION_QTY, qty, symbol=symbol)

    def guarded(self, watch: Watch, pressure: Pressure, safe: Safe) -> None:
        """The guards as they stand; what they counted since the last look moves the counters, the first look only remembers.

        Called once when the Desk is restored, so that halts of an earlier life are not counted again, and after each batch.
        """
        meter = self.meter
        meter.set(m.DAY_RESULT_USD, watch.day_usd)
        meter.set(m.ROLLING_PRECISION, watch.precision)
        meter.set(m.QUEUE_DEPTH, pressure.depth)
        meter.set(m.FAIL_SAFE, 1 if safe.base else 0)
        counts: dict[tuple, int] = {(HALTS[reason],): n for reason, n in watch.triggers.items()}
        counts[m.BACKPRESSURE_TOTAL, "mode", DEGRADE] = pressure.degraded
        counts |= {(m.FAIL_SAFE_TRIGGER_TOTAL, "reason", reason): n for reason, n in safe.begun.items()}
        for (a, b, why), n in safe.switches.items():
            key = m.MODE_SWITCH_TOTAL, "from", exchange_mode(a), "to", exchange_mode(b), "reason", why
            counts[key] = counts.get(key, 0) + n
        before = counts if self.counted is None else self.counted
        for key, n in counts.items():
            if more := n - before.get(key, 0):
                meter.inc(key[0], more, **dict(zip(key[1::2], key[2::2])))
        self.counted = counts

    def laddered(self, probabilities: Iterable[float]) -> None:
        """The levels of a ladder that was sent, by their fill probabilities."""
        for p in probabilities:
            self.meter.inc(m.EXEC_LADDER_AGGRESSIVENESS_TOTAL, bucket=bucket(p))

    def marked(self, markouts: Markouts, came: Iterable[Marked]) -> None:
        """Markouts that came due; the first look at those that were missed only remembers."""
        missed, self.missed = markouts.state.missed, markouts.state.missed if self.missed is None else self.missed
        self.meter.inc(m.MARKOUTS_MISSED_TOTAL, missed - self.missed)
        self.missed = missed
        for route, horizon in {(one.route, one.horizon): None for one in came}:
            self.meter.set(MARKOUTS[horizon], markouts.average(route, horizon), route=route)
