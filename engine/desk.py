"""The Desk: one object, `Desk.on(fact) -> facts`, the same in live, replay and backtest.

It opens (guards → S4's policy → size) and closes (target, stop, time, hold); every no is a `Dropped` with its code and numbers.
No clock, no I/O, no randomness: equal facts in equal order give byte-equal answers.
"""

from collections.abc import Callable
from math import isfinite

import msgspec
import numpy as np

from engine import guards, policy
from engine.entering import Entering
from engine.exits import due, patience
from engine.facts import (
    CRIT,
    ENTRY,
    GATING,
    HALT,
    HEALTH,
    HOLD,
    KILL,
    LIMIT,
    MARKET,
    MODE_SWITCH,
    REJECTED,
    SETTINGS,
    TARGET,
    TWIN,
    WRITE_OFF,
    WRITTEN_OFF,
    Cancel,
    Control,
    Dropped,
    Fill,
    Market,
    Order,
    Outcome,
    Report,
    Scored,
    ScoredBatch,
    Tick,
    WrittenOff,
    account_of,
    opposite,
)
from engine.fillprob.gate import Gating
from engine.portfolio import CANCELLING, ENTERING, EXITING, OPEN, Entry, Portfolio, Working
from engine.rewards.attribution import Attributed, Missed
from engine.rewards.reward import Ended
from engine.settings import Mind, Wired
from engine.state import DAY_MS, FULL, PAPER, State, Touch

Out = Order | Cancel | Dropped | Outcome | WrittenOff | Attributed | Missed
ACTIVE, REDUCING, HALTED = TRADING = ("ACTIVE", "REDUCING", "HALTED")
REMEMBERED = 1000     # control ids kept, to tell a repetition from news


def twin_of(order: Order) -> Order:
    """The same order on the paper account; it carries no decision of its own."""
    return msgspec.structs.replace(order, id=f"T{order.id[1:]}", entry_id=f"T{order.entry_id[1:]}", route=TWIN, decision=None)


class Desk:
    """One account's mind."""

    def __init__(self, mind: Mind):
        self.wire(mind)
        equity, mode = mind.desk.equity_usd, FULL if mind.rollout.mode == FULL else PAPER
        self.state = State(Portfolio(equity), Portfolio(equity), self.entering.rewards.state, mode=mode)
        self.entering.gated(None, self.state)
        self._on: dict[type, Callable[..., list[Out]]] = {
            Market: self.on_market,
            Scored: self.on_scored,
            ScoredBatch: self.on_batch,
            Report: self.on_report,
            Fill: self.on_fill,
            Control: self.on_control,
            Tick: self.on_tick,
        }

    def wire(self, mind: Mind) -> None:
        """Decides by these settings from here on; what it remembers stays."""
        self.mind, self.desk, self.limits, self.venue, self.instruments = mind, mind.desk, mind.policy, mind.venue, mind.symbols
        self.entering = Entering(mind)

    def rewire(self, mind: bytes) -> bool:
        """By settings that the journal has (`Wired`, JSON); false for those that cannot be read, being of another version."""
        try:
            self.wire(msgspec.json.decode(mind, type=Wired))
        except msgspec.MsgspecError:
            return False
        self.state.mind = mind
        self.resume()
        return True

    def resume(self) -> None:
        """What decides goes on from what is remembered."""
        self.entering.rewards.restore(self.state.rewards)
        self.entering.gated(self.state.gating, self.state)

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
    def trading(self) -> str:
        """ACTIVE; with a KILL in force REDUCING while anything is held or on its way, then HALTED."""
        return ACTIVE if not self.state.kills else HALTED if self.idle else REDUCING

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
        self.state.rewards = self.entering.rewards.state
        return msgspec.msgpack.encode(self.state)

    def restore(self, blob: bytes) -> None:
        """Continues from a snapshot."""
        self.state = msgspec.msgpack.decode(blob, type=State)
        if not self.state.mind or not self.rewire(self.state.mind):
            self.resume()

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
        self.state.warmth.on_books(market.symbol, market.session, ts, self.mind.windows.gap_ms)
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
        self.state.safe.on_time(self.state.now_ms)
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
        if state.safe.base:
            state.safe.on_time(state.now_ms)
        blocked = self.entering.known(scored, state) or self._enter(scored, out)
        if blocked is not None:
            touch = state.touches.get(signal.symbol)
            at_ms = signal.ts_ms if touch is None else max(signal.ts_ms, touch.ts_ms)     # by its own market, as its age
            out.append(Dropped(f"D-{signal.id}", scored, blocked.code, blocked.numbers, at_ms))
        return out

    def indifferent(self, symbol: str) -> bool:
        """Whether a score below the policy's minimum is refused here without regard to anything that may happen in between."""
        return not self.state.kills and symbol in self.state.touches and (self.idle or not self.entries(symbol))

    def _enter(self, scored: Scored, out: list[Out]) -> policy.Block | None:
        state, found = self.state, self.entering.enter(scored, self.state)
        if isinstance(found, policy.Block):
            return found
        orders = list(found.orders)
        if not account_of(orders[0].id) and self.venue.mode == "real":      # every real order has a paper twin
            orders += [twin_of(order) for order in found.orders]
        for order in orders:
            self.books(order.id).enter(order, found.decision, self.instruments[order.symbol])
        state.spend(state.now_ms // DAY_MS, found.decision.margin_usd, account_of(orders[0].id))
        state.watch.on_sent(state.now_ms, len(found.orders))
        self.entering.rewards.sent(found.choice)
        out += orders
        for order in orders:
            out += self._claim(order)
        out += self.entering.rewards.expire(state.now_ms)
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
        twin = account_of(entry.id) == TWIN     # twins may stand against each other, and then their account's position is neither's
        held = entry.sign * entry.held if twin else self.books(entry.id).positions.get(entry.symbol, 0.0)
        if guards.closing(opposite(entry.side), entry.held, held):      # never more than is held; asked again after the timeout
            entry.state, entry.asked_ms = CANCELLING, ts_ms
            return []
        entry.exits, entry.asks = entry.exits + 1, 0
        entry.state = OPEN if kind == LIMIT else EXITING
        entry.asked_ms = ts_ms
        order = Order(
            f"{'Y' if twin else 'X'}{entry.exits}-{entry.id[2:]}",
            TARGET if kind == LIMIT else entry.cause,
            entry.plan,
            entry.symbol,
            opposite(entry.side),
            entry.held,
            price,
            kind,
            kind == LIMIT,
            self.venue.reduce_only and not twin,
            entry.route,
            self.state.epoch,
            ts_ms,
        )
        self.books(entry.id).send(order, entry)
        if entry.route != TWIN:
            self.state.watch.on_sent(self.state.now_ms)
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
        ours = not account_of(entry.id)     # the paper account beside a real one moves no guard, in a fail-safe either
        if ours and entry.bought:
            self.state.watch.on_result(entry.net_usd, ts_ms, self.mind.risk)
        ended, rewards = books.close(entry, ts_ms), self.entering.rewards
        if ended is None:
            return []
        out: list[Out] = [ended.outcome] if ended.outcome else []
        if entry.route == TWIN:         # counted apart: no trade of the desk, and nobody's reward
            return out
        plan, net = ended.plan, 0.0
        if ended.outcome:
            net = ended.outcome.net_usd
            if ours:
                self.state.watch.on_ended(net, ts_ms, self.mind.risk)
        slip = 1e4 * entry.sign * (plan.paid / plan.bought / plan.price - 1) if plan.bought else 0.0
        out.append(rewards.ended(Ended(entry.plan, entry.symbol, ts_ms, plan.wanted_usd, plan.paid, net, slip)))
        return out + rewards.expire(self.state.now_ms)

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
        if control.kind == MODE_SWITCH and (mode := control.details.get("mode")) in (PAPER, FULL) and mode != state.mode:
            state.safe.on_ordered(state.mode, mode)
            state.mode = mode
            return self._leave_the_venue() if mode == PAPER else []
        if control.kind == SETTINGS:
            state.rewards = self.entering.rewards.state
            self.rewire(control.details.get("mind", "").encode())
        if control.kind == CRIT and state.safe.on_crit(control.reason, state.now_ms, state.mode, bool(state.kills), self.mind.fail_safe):
            return self._leave_the_venue()
        if control.kind == GATING and (gating := Gating.of(control.details)) is not None:
            state.gating = gating
            self.entering.gated(gating, state)
        if control.kind == HEALTH:
            lag, in_flight = (int(control.details.get(key, "0")) for key in ("lag", "in_flight"))
            state.pressure.on_depth(lag, in_flight, self.mind.backpressure)
        for name in control.kills:
            state.kills.pop(name, None)
        return self._write_off(control) if control.kind == WRITE_OFF and state.kills else []

    def _leave_the_venue(self) -> list[Out]:
        """Entries on their way in at a real venue are taken back; on paper they stay."""
        return [self._take_back(e, self.state.now_ms, HALT) for e in self.state.portfolio.entries.values()
                if self.venue.mode == "real" and e.state == ENTERING and not e.asked_ms]

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
        entry.cause, ts_ms = WRITTEN_OFF, self.state.now_ms
        off = WrittenOff(f"{'V' if account_of(name) else 'W'}-{name[2:]}", name, entry.plan, entry.symbol, opposite(entry.side), entry.held,
                         price, entry.route, self.state.epoch, ts_ms, control.id, control.actor, control.reason)
        books.send(off.order, entry)
        if off.fill:
            books.on_fill(off.fill)
        return [off, *self._closed(books, entry, ts_ms)]
