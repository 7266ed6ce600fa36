"""The Desk: one object, `Desk.on(fact) -> facts`, the same in live, replay and backtest.

It opens (guards → S4's policy → size) and closes (target, stop, time, hold); every no is a `Dropped` with its code and numbers.
No clock, no I/O, no randomness: equal facts in equal order give byte-equal answers.
"""

from collections.abc import Callable
from math import isfinite

import msgspec
import numpy as np

from engine import policy, reasons
from engine.exits import due, patience
from engine.facts import (
    ENTRY,
    HALT,
    HOLD,
    KILL,
    LIMIT,
    MARKET,
    REJECTED,
    TARGET,
    WRITE_OFF,
    WRITTEN_OFF,
    Cancel,
    Control,
    Decision,
    Dropped,
    Fill,
    Market,
    Order,
    Outcome,
    Report,
    Scored,
    ScoredBatch,
    Tick,
    account_of,
    opposite,
)
from engine.portfolio import CANCELLING, ENTERING, EXITING, OPEN, Entry, Portfolio, Working
from engine.settings import Mind
from engine.sizing.size import round_down

Out = Order | Cancel | Dropped | Outcome
REMEMBERED = 1000     # control ids kept, to tell a repetition from news


class Touch(msgspec.Struct):
    """The last known best prices of a symbol, in ticks."""

    bid: int
    ask: int
    ts_ms: int


class State(msgspec.Struct):
    """All that the Desk remembers. `twins` are the books of the paper account beside a real one; empty on paper."""

    portfolio: Portfolio
    twins: Portfolio
    touches: dict[str, Touch] = {}
    now_ms: int = 0
    epoch: int = 0
    route: str = "paper"
    controls: dict[str, None] = {}     # ids of the last that acted
    kills: dict[str, str] = {}         # by id those that stand, with who and why

    @property
    def halted(self) -> str:
        """Who halted the desk and why; empty where no KILL stands."""
        if not self.kills:
            return ""
        first = next(iter(self.kills.values()))
        return first if len(self.kills) == 1 else f"{first} (and {len(self.kills) - 1} more)"


class Desk:
    """One account's mind."""

    def __init__(self, mind: Mind):
        self.desk, self.limits, self.sizing, self.venue, self.instruments = mind.desk, mind.policy, mind.sizing, mind.venue, mind.symbols
        self.state = State(Portfolio(self.desk.equity_usd), Portfolio(self.desk.equity_usd))
        self._on: dict[type, Callable[..., list[Out]]] = {
            Market: self.on_market,
            Scored: self.on_scored,
            ScoredBatch: self.on_batch,
            Report: self.on_report,
            Fill: self.on_fill,
            Control: self.on_control,
            Tick: self.on_tick,
        }

    @property
    def portfolio(self) -> Portfolio:
        """The books of the account that trades."""
        return self.state.portfolio

    def books(self, order_id: str) -> Portfolio:
        """The books that an order or entry stands in."""
        return self.state.twins if account_of(order_id) else self.state.portfolio

    def entries(self, symbol: str = "") -> list[Entry]:
        """Live entries of both accounts, of one symbol or of all."""
        found = [*self.state.portfolio.entries.values()]
        if self.state.twins.entries:
            found += self.state.twins.entries.values()
        return [e for e in found if e.symbol == symbol] if symbol else found

    @property
    def idle(self) -> bool:
        """Whether nothing is held or on its way in either account."""
        return not (self.state.portfolio.entries or self.state.twins.entries)

    def on(self, fact) -> list[Out]:
        """What this fact makes the Desk do or refuse."""
        return self._on[type(fact)](fact)

    def snapshot(self) -> bytes:
        """The whole state; `restore` of it continues byte for byte."""
        self.state.portfolio._view = self.state.twins._view = None
        return msgspec.msgpack.encode(self.state)

    def restore(self, blob: bytes) -> None:
        """Continues from a snapshot."""
        self.state = msgspec.msgpack.decode(blob, type=State)

    def weak(self, scored: Scored) -> bool:
        """Whether the score is too low to enter, whatever the account holds."""
        return not self.limits.min_confidence <= scored.p <= 1

    def working(self, symbol: str) -> bool:
        """Whether any order of the symbol is unsettled, so that the venue may still say something."""
        return not self.idle and any(
            books.entries[o.entry_id].symbol == symbol and not o.settled
            for books in (self.state.portfolio, self.state.twins) for o in books.orders.values())

    # the market

    def first_due(self, symbol: str, ts: np.ndarray, bid: np.ndarray, ask: np.ndarray) -> int:
        """The first book (its row) that asks something of an open entry, or the number of rows. Changes nothing."""
        rows, held = len(ts), self.entries(symbol)
        if not held or not rows:
            return rows
        timeout, first = self.desk.cancel_timeout_ms, rows
        for entry in held:
            if entry.state == OPEN or (entry.state == ENTERING and entry.bought):
                touched = (bid <= entry.stop_ticks) & (bid > 0) if entry.sign > 0 else ask >= entry.stop_ticks
                first = min(first, int(touched.argmax()) if touched.any() else rows)
            alarm = {
                OPEN: entry.deadline_ms,
                ENTERING: entry.asked_ms + patience(entry, timeout) if entry.asked_ms else entry.expires_ms,
                CANCELLING: entry.asked_ms + patience(entry, timeout),
            }.get(entry.state, 0)
            if alarm:
                first = min(first, int(np.searchsorted(ts, alarm)))
        return first

    def on_market(self, market: Market) -> list[Out]:
        """Closes what target, stop or time ask to be closed, book by book."""
        ts = np.frombuffer(market.ts, np.int64)
        if not len(ts):
            return []
        bid, ask = np.frombuffer(market.bid, np.int32), np.frombuffer(market.ask, np.int32)
        out: list[Out] = []
        if not self.idle:
            row = 0
            while (row := row + self.first_due(market.symbol, ts[row:], bid[row:], ask[row:])) < len(ts):
                self._touch(market.symbol, int(bid[row]), int(ask[row]), int(ts[row]))
                out += self._due(market.symbol)
                row += 1
        self._touch(market.symbol, int(bid[-1]), int(ask[-1]), int(ts[-1]))
        return out

    def _touch(self, symbol: str, bid: int, ask: int, ts_ms: int) -> None:
        self.state.touches[symbol] = Touch(bid, ask, ts_ms)
        self.state.now_ms = max(self.state.now_ms, ts_ms)

    def _due(self, symbol: str, at_ms: int = 0) -> list[Out]:
        touch = self.state.touches.get(symbol)
        out: list[Out] = []
        if touch is None:
            return out
        ts_ms = at_ms or touch.ts_ms
        for entry in self.entries(symbol):
            cause = due(entry, touch.bid, touch.ask, ts_ms, self.desk.cancel_timeout_ms)
            if cause == ENTRY:
                out.append(self._take_back(entry, ts_ms, "entry_ttl"))
            elif cause:
                out += self._close(entry, cause, ts_ms)
        return out

    def on_tick(self, tick: Tick) -> list[Out]:
        """Time passed without a market event: holding times and unanswered cancels are still watched."""
        self.state.now_ms = max(self.state.now_ms, tick.ts_ms)
        return [o for symbol in sorted({e.symbol for e in self.entries()}) for o in self._due(symbol, tick.ts_ms)]

    # entering

    def on_batch(self, batch: ScoredBatch) -> list[Out]:
        """Each score of one frame; those that cannot enter are refused without asking the books, as `on_scored` would."""
        out: list[Out] = []
        items = iter(batch.items)
        if self.indifferent(batch.symbol):
            state, limits, heard_ms = self.state, self.limits, self.state.touches[batch.symbol].ts_ms
            latest_ms, least = heard_ms - self.desk.max_signal_age_ms, limits.min_confidence
            for scored in items:
                signal, p = scored.signal, scored.p
                ts_ms = signal.ts_ms
                if p < least and ts_ms >= latest_ms and isfinite(p + signal.entry + signal.stop + signal.target):
                    if ts_ms > state.now_ms:
                        state.now_ms = ts_ms
                    code, numbers = policy.low_confidence(p, limits)  # type: ignore[misc]     # p is below its least
                    out.append(Dropped(f"D-{signal.id}", scored, code, numbers, ts_ms if ts_ms > heard_ms else heard_ms))
                    continue
                out += self.on_scored(scored)
                if not self.indifferent(batch.symbol):
                    break
        for scored in items:
            out += self.on_scored(scored)
        return out

    def on_scored(self, scored: Scored) -> list[Out]:
        """Guards, policy, size: an order, or a drop with its reason; a weak score closes what it once opened."""
        signal, state = scored.signal, self.state
        state.now_ms = max(state.now_ms, signal.ts_ms)
        out: list[Out] = []
        if not self.idle:
            for entry in self.entries(signal.symbol):
                if entry.state == OPEN and entry.side == signal.side and scored.p < entry.tau_hold:
                    out += self._close(entry, HOLD, state.now_ms)
        blocked = self._guard(scored) or policy.low_confidence(scored.p, self.limits) or self._enter(scored, out)
        if blocked is not None:
            touch = state.touches.get(signal.symbol)
            at_ms = signal.ts_ms if touch is None else max(signal.ts_ms, touch.ts_ms)     # by its own market, as its age
            out.append(Dropped(f"D-{signal.id}", scored, blocked.code, blocked.numbers, at_ms))
        return out

    def indifferent(self, symbol: str) -> bool:
        """Whether a score below the policy's minimum is refused here without regard to anything that may happen in between."""
        return not self.state.kills and symbol in self.state.touches and (self.idle or not self.entries(symbol))

    def _guard(self, scored: Scored) -> policy.Block | None:
        signal, state = scored.signal, self.state
        if state.kills:
            return policy.Block(reasons.HALTED, state.halted)
        touch = state.touches.get(signal.symbol)
        if touch is None:
            return policy.Block(reasons.NO_MARKET, f"no book of {signal.symbol} yet")
        age = touch.ts_ms - signal.ts_ms     # by its own market: another symbol's clock, or a tick's, says nothing of it
        if age > self.desk.max_signal_age_ms:
            return policy.Block(reasons.STALE_SIGNAL, f"age={age}ms > {self.desk.max_signal_age_ms}ms")
        if not isfinite(scored.p + signal.entry + signal.stop + signal.target):
            return policy.Block(reasons.INVALID_INPUT, f"p={scored.p}, entry={signal.entry}, stop={signal.stop}, target={signal.target}")
        return None

    def _enter(self, scored: Scored, out: list[Out]) -> policy.Block | None:
        signal, state, portfolio = scored.signal, self.state, self.portfolio
        leverage = self.sizing.leverage
        intent = policy.Intent(signal.symbol, signal.side, scored.p, signal.entry, state.now_ms / 1000, 0.0, signal.regime, leverage)
        code, numbers, allocation = policy.decide(intent, portfolio, self.limits, self.desk.risk_score)
        if code not in reasons.ALLOWED:
            return policy.Block(code, numbers)
        if scored.p < scored.tau_entry:
            return policy.Block(reasons.BELOW_TAU, f"p={scored.p:.4f} < tau_entry={scored.tau_entry:.4f}")
        order_id = f"E-{signal.id}"
        if order_id in portfolio.orders or order_id in portfolio.closed:
            return policy.Block(reasons.DUPLICATE, f"{order_id} has been sent")
        instrument = self.instruments[signal.symbol]
        notional, cap = allocation.margin_usd * leverage, allocation.cap
        if self.sizing.notional_cap_usd < notional:
            notional, cap = self.sizing.notional_cap_usd, "notional_cap"
        if portfolio.available_capital_usdt < self.sizing.min_free_balance_usd:
            return policy.Block(reasons.QTY_ZERO, f"free={portfolio.available_capital_usdt:.2f} < {self.sizing.min_free_balance_usd:g}")
        qty = round_down(notional / signal.entry, instrument.lot)
        if qty <= 0:
            return policy.Block(reasons.QTY_ZERO, f"{notional:.2f} USD at {signal.entry:g} is less than one lot of {instrument.lot:g}")
        if qty < instrument.min_qty or qty * signal.entry < instrument.min_notional_usd:
            return policy.Block(
                reasons.BELOW_MINIMUM,
                f"qty={qty:g} (min {instrument.min_qty:g}), notional={qty * signal.entry:.2f} (min {instrument.min_notional_usd:g})",
            )
        decision = Decision(
            f"D-{signal.id}",
            scored,
            code,
            numbers,
            qty * signal.entry / leverage,
            cap,
            qty,
            signal.entry,
            leverage,
            state.route,
            state.epoch,
            state.now_ms,
        )
        order = Order(
            order_id,
            ENTRY,
            order_id,
            signal.symbol,
            signal.side,
            qty,
            signal.entry,
            LIMIT,
            self.venue.post_only,
            False,
            state.route,
            state.epoch,
            state.now_ms,
            state.now_ms + self.desk.entry_ttl_ms,
            decision,
        )
        portfolio.enter(order, decision, instrument)
        out += [order, *self._claim(order)]
        return None

    def _claim(self, order: Order) -> list[Out]:
        """What the venue said of this id before we sent it: a life of ours that is lost had sent it."""
        return [out for fact in self.books(order.id).claim(order.id) for out in self.on(fact)]

    # leaving

    def _take_back(self, entry: Entry, ts_ms: int, why: str) -> Cancel:
        entry.asked_ms, entry.asks = ts_ms, entry.asks + 1
        return Cancel(entry.order_id, entry.symbol, ts_ms, why)

    def _close(self, entry: Entry, cause: str, ts_ms: int) -> list[Out]:
        """Takes the working order back first; what remains is closed at the touch once the venue has confirmed."""
        entry.cause = cause
        if self.books(entry.id).orders[entry.order_id].settled:
            return self._exit(entry, ts_ms)
        if entry.state == OPEN:
            entry.state = CANCELLING
        return [self._take_back(entry, ts_ms, cause)]

    def _exit(self, entry: Entry, ts_ms: int, kind: str = MARKET, price: float = 0.0) -> list[Out]:
        entry.exits, entry.asks = entry.exits + 1, 0
        entry.state = OPEN if kind == LIMIT else EXITING
        entry.asked_ms = ts_ms
        order = Order(
            f"{'Y' if account_of(entry.id) else 'X'}{entry.exits}-{entry.id[2:]}",
            TARGET if kind == LIMIT else entry.cause,
            entry.plan,
            entry.symbol,
            opposite(entry.side),
            entry.held,
            price,
            kind,
            kind == LIMIT,
            self.venue.reduce_only,
            entry.route,
            self.state.epoch,
            ts_ms,
        )
        self.books(entry.id).send(order, entry)
        return [order, *self._claim(order)]

    def on_report(self, report: Report) -> list[Out]:
        """The venue ended or took an order."""
        self.state.now_ms = max(self.state.now_ms, report.ts_ms)
        order = self.books(report.order_id).on_report(report)
        return self._settle(order, report.ts_ms, report.status == REJECTED) if order else []

    def on_fill(self, fill: Fill) -> list[Out]:
        """An execution of ours."""
        self.state.now_ms = max(self.state.now_ms, fill.ts_ms)
        order = self.books(fill.order_id).on_fill(fill)
        return self._settle(order, fill.ts_ms, False) if order else []

    def _settle(self, order: Working, ts_ms: int, rejected: bool) -> list[Out]:
        """What follows once an order has ended and its fills are all booked."""
        if not order.settled:
            return []
        books = self.books(order.entry_id)
        entry = books.entries[order.entry_id]
        if entry.held <= 0:
            entry.cause = entry.cause or (TARGET if entry.bought else ENTRY)
            return self._closed(books, entry, ts_ms)
        if order.id != entry.order_id:
            return []
        if order.id == entry.id:
            entry.deadline_ms = entry.opened_ms + self.desk.max_holding_ms
            return self._exit(entry, ts_ms) if entry.cause else self._exit(entry, ts_ms, LIMIT, entry.target)
        if entry.state == EXITING:  # a market order that found too little: asked again after the timeout
            entry.state, entry.asked_ms = CANCELLING, ts_ms
            return []
        entry.cause = entry.cause or TARGET  # the target would cross (or was ended by the venue): the touch is as good
        return self._exit(entry, ts_ms)

    def _closed(self, books: Portfolio, entry: Entry, ts_ms: int) -> list[Out]:
        """A level leaves the books; with the last one its entry has ended."""
        ended = books.close(entry, ts_ms)
        return [ended.outcome] if ended and ended.outcome else []

    # control

    def on_control(self, control: Control) -> list[Out]:
        """Each KILL halts until a RELEASE names it; entries on their way in are taken back, exits go on. An id acts once."""
        state = self.state
        if control.id in state.controls:        # a release that is told twice must not undo the kill between
            return []
        state.controls[control.id] = None
        if len(state.controls) > REMEMBERED:
            del state.controls[next(iter(state.controls))]
        state.now_ms = max(state.now_ms, control.ts_ms)
        state.epoch = max(state.epoch, control.epoch)
        if control.kind == KILL:
            state.kills[control.id] = control.word
            return [
                self._take_back(e, state.now_ms, HALT) for e in self.entries() if e.state == ENTERING and not e.asked_ms
            ]
        for name in control.kills:
            state.kills.pop(name, None)
        return self._write_off(control) if control.kind == WRITE_OFF and state.kills else []

    def _write_off(self, control: Control) -> list[Out]:
        """A person says that the venue does not hold this entry: it leaves the books at the price that they name, and nothing is sent."""
        try:
            name, price = control.details["entry"], float(control.details["price"])
        except (KeyError, ValueError):
            return []
        books = self.books(name)
        entry = books.entries.get(name)
        if entry is None or not 0 < price < float("inf"):
            return []
        entry.cause, ts_ms, held = WRITTEN_OFF, self.state.now_ms, entry.held
        order = Order(f"{'V' if account_of(name) else 'W'}-{name[2:]}", WRITTEN_OFF, entry.plan, entry.symbol, opposite(entry.side), held, price, LIMIT, False, True,
                      entry.route, self.state.epoch, ts_ms)
        books.send(order, entry)
        if held > 0:
            books.on_fill(Fill(control.id, order.id, entry.symbol, order.side, price, held, 0.0, True, 0, ts_ms))
        return self._closed(books, entry, ts_ms)
