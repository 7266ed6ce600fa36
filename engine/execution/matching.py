"""One symbol's own orders against the market's events: price, then time, with a place in the queue.

**Time.** What is sent at `t` arrives at `t + latency_ms`: after the market events of that time and before those of a later one.
What arrives later than it could have (the market is further already) arrives now.

**Resting orders** join behind `queue_ahead` of what is visible at their price (nothing when they improve the touch; an unknown
amount when the price lies beyond the visible levels, until it comes in sight). Trades at the price move the queue, then fill.
Size that leaves without a trade moves it only as far as it must have moved: no more than the visible size can stand before us,
so cancellations are taken to come from behind. A trade strictly through the price has met us (`through_fills`), with no more
lots than were traded. A book that comes to our price fills us as maker at our price with what it shows there.

**Aggressive orders** take what is visible at arrival; it stays taken until the next book. What a market order does not get is
cancelled, what a limit order does not get rests. Own orders do not meet each other, and do not move the market. Two accounts have
positions of their own here: the desk's, and beside a real one the paper account of its twins (`facts.account_of`).

**Reports.** An accepted order ends in exactly one report: `filled` (all of it), or `cancelled` (`requested`, `ioc_unfilled`, or
`reduce_only_would_open` when no position is left to reduce), with the quantity filled until then. `rejected` ends an order that
was never accepted, except for the reasons in `ABOUT_REQUEST`, which speak of the request and leave the order with that id as it was.
"""
from collections import OrderedDict
from decimal import Decimal
from math import ceil, isfinite

import msgspec
import numpy as np

from engine import reasons, settings
from engine.execution.queue import AHEAD, FAR, PRICE, REST, SIDE, crosses, scan, visible_at
from engine.facts import (
    ACCEPTED,
    BOOK,
    BUY,
    CANCELLED,
    DEPTH,
    DONE,
    LIMIT,
    MAIN,
    MARKET,
    REJECTED,
    SELL,
    TWIN,
    Cancel,
    Fill,
    Frame,
    Order,
    Report,
    account_of,
)

ABOUT_REQUEST = (reasons.NOT_FOUND, reasons.DUPLICATE_ORDER)
REMEMBERED = 2000           # ended orders whose ids are still known: they travel in every snapshot
WHOLE = 1e-4                # how far from a whole number of ticks or lots a price or quantity may be


def whole(steps: float) -> bool:
    """Whether a price in ticks or a quantity in lots is a positive whole number, up to what a float's division leaves.

    >>> whole(0.3 / 0.1), whole(2.5), whole(0.0)
    (True, False, False)
    """
    return isfinite(steps) and 0.5 < steps < FAR and abs(steps - round(steps)) < WHOLE


class OpenOrder(msgspec.Struct, frozen=True):
    """A resting order as its venue shows it; `ahead` is the quantity before it, None when it is beyond the visible levels."""
    order_id: str
    side: str
    price: float
    qty: float
    filled: float
    ahead: float | None
    reduce_only: bool
    ts_ms: int


class Working(msgspec.Struct):
    """An order that arrived: asked and filled in lots, fills so far."""
    id: str
    side: int
    price: int
    asked: int
    rest: int
    reduce_only: bool
    ts_ms: int
    filled: int = 0
    fills: int = 0


class Arrival(msgspec.Struct):
    """An order or a cancel on its way: `qty` 0 for a cancel, `price` 0 for a market order."""
    at: int
    id: str
    side: int
    price: float
    qty: float
    post_only: bool
    reduce_only: bool


class State(msgspec.Struct, array_like=True):
    """Everything that outlives a process, as `snapshot` writes it."""
    symbol: str
    session: str
    now: int
    seq: int
    positions: dict[str, int]
    arrivals: list[Arrival]
    orders: list[Working]
    ahead: list[int]
    ended: list[tuple[str, int]]
    book: bytes


class Matching:
    """The venue's side of one symbol; see the module for its rules. Quantities inside are lots, prices ticks."""

    def __init__(self, symbol: str, instrument: settings.Instrument, rules: settings.Matching, session: str):
        self.symbol, self.instrument, self.rules, self.session = symbol, instrument, rules, session
        self.digits = tuple(max(0, -int(Decimal(repr(step)).as_tuple().exponent)) for step in (instrument.tick, instrument.lot))
        self.now = 0                                        # time of the last event or arrival worked through
        self.seq = 0                                        # own events so far
        self.positions = {MAIN: 0, TWIN: 0}                 # by account, lots, signed
        self._arrivals: list[Arrival] = []                  # by time, then as sent
        self._orders: list[Working] = []                    # resting, in the rows' order
        self._own = np.zeros((0, 4), np.int64)
        self._filled = np.zeros(0, np.int64)
        self._ended: OrderedDict[str, int] = OrderedDict()  # id -> lots filled
        self._last: tuple[bytes, int] | None = None         # the last book: rows, index
        self._visible: np.ndarray | None = None             # what is left of it, once asked for

    @property
    def position(self) -> int:
        """Lots of the account that trades, signed."""
        return self.positions[MAIN]

    @property
    def live(self) -> bool:
        """Whether anything rests or is on its way."""
        return bool(self._orders or self._arrivals)

    @property
    def last_arrival_ms(self) -> int:
        """When the last of what is on its way arrives; the present where nothing is."""
        return self._arrivals[-1].at if self._arrivals else self.now

    def open_orders(self) -> list[OpenOrder]:
        """The resting orders by priority: bids, then asks, the better price first."""
        return [OpenOrder(o.id, BUY if o.side > 0 else SELL, self._price(o.price), self._qty(o.asked), self._qty(o.filled),
                          self._qty(int(row[AHEAD])) if row[AHEAD] < FAR // 2 else None, o.reduce_only, o.ts_ms)
                for o, row in zip(self._orders, self._own)]

    def status(self, order_id: str) -> str:
        """What is known of an order: `pending` until it arrives, `open`, `cancelling`, `ended`, "" for one that was never sent here."""
        on_way = {bool(a.qty) for a in self._arrivals if a.id == order_id}
        here = any(o.id == order_id for o in self._orders)
        if here or True in on_way:
            return "cancelling" if False in on_way else "open" if here else "pending"
        return "ended" if order_id in self._ended else ""

    def place(self, order: Order) -> None:
        """The order is sent; it is answered when it arrives. `ValueError` for another symbol, or a side or kind that is none."""
        if order.symbol != self.symbol or order.side not in (BUY, SELL) or order.kind not in (LIMIT, MARKET):
            raise ValueError(f"{order.id}: {order.kind} {order.side} {order.symbol} is no order for {self.symbol}")
        price = 0.0 if order.kind == MARKET else order.price if order.price > 0 else -1.0
        qty = order.qty if order.qty > 0 else -1.0
        self._send(Arrival(order.ts_ms + self.rules.latency_ms, order.id, 1 if order.side == BUY else -1, price, qty,
                           order.post_only, order.reduce_only))

    def cancel(self, cancel: Cancel) -> None:
        """The order is asked back; the answer comes when the cancel arrives."""
        if cancel.symbol != self.symbol:
            raise ValueError(f"{cancel.order_id}: a cancel for {cancel.symbol} is none for {self.symbol}")
        self._send(Arrival(cancel.ts_ms + self.rules.latency_ms, cancel.order_id, 0, 0.0, 0.0, False, False))

    def advance(self, frame: Frame | None, first: int, upto_ms: int) -> tuple[int, list[Report | Fill]]:
        """Works through arrivals and the frame's events from `first` in time order while their time is at most `upto_ms`.

        Stops after the first event or arrival at which anything happened to an own order: (next event, reports and fills).
        An arrival waits until an event of a later time is in the frame, since more of its own time may follow in the next;
        `frame` None says that no further event up to `upto_ms` will come. Nothing more happens once the list is empty.
        """
        if frame is None:
            if self._arrivals and self._arrivals[0].at <= upto_ms:
                return first, self._arrive()
            self.now = max(self.now, upto_ms)
            return first, []
        n = frame.n
        if first >= n:
            return n, []
        times = frame.times
        end = n if times[n - 1] <= upto_ms else max(first, int(np.searchsorted(times, upto_ms, "right")))
        arrives = bool(self._arrivals) and self._arrivals[0].at <= upto_ms and self._arrivals[0].at < times[n - 1]
        until = max(first, int(np.searchsorted(times, self._arrivals[0].at, "right"))) if arrives else end
        if until > first:
            if self._orders:
                reached, happened = self._match(frame, first, until)
                if happened:
                    self.now = int(times[reached - 1])
                    return reached, happened
            else:
                self._remember(frame, first, until)
            self.now = int(times[until - 1])
        return until, self._arrive() if arrives else []

    def snapshot(self) -> bytes:
        """All that `restore` needs to continue exactly here."""
        levels = self._levels()
        return msgspec.msgpack.encode(State(
            self.symbol, self.session, self.now, self.seq, self.positions, self._arrivals, self._orders, self._own[:, AHEAD].tolist(),
            list(self._ended.items()), b"" if levels is None else levels.astype(np.int32).tobytes()))

    def restore(self, blob: bytes) -> None:
        """Becomes what `snapshot` saw; `ValueError` for another symbol or session."""
        state = msgspec.msgpack.decode(blob, type=State)
        if (state.symbol, state.session) != (self.symbol, self.session):
            raise ValueError(f"a snapshot of {state.symbol} {state.session} is none of {self.symbol} {self.session}")
        self.now, self.seq, self.positions, self._arrivals = state.now, state.seq, state.positions, state.arrivals
        self._ended = OrderedDict(state.ended)
        self._last = (state.book, 0) if state.book else None
        self._visible = None
        self._set(state.orders, state.ahead)

    def inherit(self, before: "Matching") -> None:
        """Takes over the account of an earlier session of the symbol, in which nothing rests any more: position, numbers, known ids."""
        if before.live or before.symbol != self.symbol:
            raise ValueError(f"{before.symbol} {before.session} still works orders, or is no session of {self.symbol}")
        self.seq, self.positions, self._ended = before.seq, dict(before.positions), OrderedDict(before._ended)

    # the market

    def _remember(self, frame: Frame, first: int, until: int) -> None:
        whole = first == 0 and until == frame.n
        rows = len(frame.books) // (16 * DEPTH) if whole else int(np.count_nonzero(frame.kinds[:until] == BOOK))
        if rows and (whole or BOOK in frame.kind[first:until]):
            self._last, self._visible = (frame.books, rows - 1), None

    def _levels(self) -> np.ndarray | None:
        if self._visible is None and self._last is not None:
            books, row = self._last
            self._visible = np.frombuffer(books, np.int32, 4 * DEPTH, row * 16 * DEPTH).reshape(4, DEPTH).astype(np.int64)
        return self._visible

    def _match(self, frame: Frame, first: int, until: int) -> tuple[int, list[Report | Fill]]:
        kinds = frame.kinds
        book = int(np.count_nonzero(kinds[:first] == BOOK))
        met = scan(self._own, self._filled, kinds, frame.book_rows, frame.trade_rows, first, until, book, first - book,
                   self.rules.through_fills)
        if met == until:
            self._remember(frame, first, until)
            return until, []
        self._remember(frame, first, met + 1)
        ts_ms = int(frame.times[met])
        if kinds[met] == BOOK:
            self._meet()
        out: list[Report | Fill] = []
        for i in np.flatnonzero(self._filled).tolist():
            order = self._orders[i]
            lots = min(int(self._filled[i]), order.rest)     # a fill before may have capped it
            if lots:
                out.append(self._fill(order, order.price, lots, True, ts_ms))
                self._settle(order, out, ts_ms)
        self._sweep()
        return met + 1, out

    def _meet(self) -> None:
        """A book came to our price: who gets how much of what it shows there."""
        levels = self._levels()
        assert levels is not None
        self._filled[:] = 0
        for i, row in enumerate(self._own):
            if crosses(levels, row[SIDE], row[PRICE]):
                self._filled[i] = sum(lots for _, lots in self._take(int(row[SIDE]), int(row[PRICE]), int(row[REST])))

    def _take(self, side: int, price: int, lots: int) -> list[tuple[int, int]]:
        """(ticks, lots) taken from the visible book, best first; `price` 0: at any. What is taken is gone until the next book."""
        levels = self._levels()
        assert levels is not None
        row, got = 2 if side > 0 else 0, []
        for level in range(DEPTH):
            ticks, there = int(levels[row, level]), int(levels[row + 1, level])
            if lots == 0 or (there and price and (price - ticks) * side < 0):
                break
            if there:
                part = min(lots, there)
                levels[row + 1, level] -= part
                lots -= part
                got.append((ticks, part))
        return got

    # what arrives

    def _send(self, arrival: Arrival) -> None:
        arrival.at = max(arrival.at, self.now)
        i = len(self._arrivals)
        while i and self._arrivals[i - 1].at > arrival.at:
            i -= 1
        self._arrivals.insert(i, arrival)

    def _arrive(self) -> list[Report | Fill]:
        arrival = self._arrivals.pop(0)
        self.now = max(self.now, arrival.at)
        out: list[Report | Fill] = []
        if arrival.qty:
            self._enter(arrival, out)
        else:
            self._withdraw(arrival, out)
        self._sweep()
        return out

    def _withdraw(self, arrival: Arrival, out: list[Report | Fill]) -> None:
        order = next((o for o in self._orders if o.id == arrival.id), None)
        if order is None:
            out.append(self._report(arrival.id, REJECTED, reasons.NOT_FOUND, self._ended.get(arrival.id, 0), arrival.at))
        else:
            self._end(order, CANCELLED, reasons.REQUESTED, out, arrival.at)

    def _enter(self, arrival: Arrival, out: list[Report | Fill]) -> None:
        at, known = arrival.at, next((o.filled for o in self._orders if o.id == arrival.id), self._ended.get(arrival.id))
        if known is not None:
            out.append(self._report(arrival.id, REJECTED, reasons.DUPLICATE_ORDER, known, at))
            return
        order, refusal = self._examine(arrival)
        if order is None:
            self._forget(arrival.id, 0)
            out.append(self._report(arrival.id, REJECTED, refusal, 0, at))
            return
        out.append(self._report(order.id, ACCEPTED, "", 0, at))
        for ticks, lots in self._take(order.side, order.price, order.rest):
            out.append(self._fill(order, ticks, lots, False, at))
        if order.rest and order.price:
            self._rest(order)
        if order.filled or not order.price:
            self._settle(order, out, at)
        if not order.price and order.id not in self._ended:
            self._end(order, CANCELLED, reasons.IOC_UNFILLED, out, at)

    def _examine(self, arrival: Arrival) -> tuple[Working | None, str]:
        """The order in ticks and lots, or why the venue refuses it. Minimums do not bind reduce-only: a rest can be closed."""
        lots, ticks = arrival.qty / self.instrument.lot, arrival.price / self.instrument.tick
        if not (whole(lots) and (arrival.price == 0 or whole(ticks))):
            return None, reasons.BAD_TICK_OR_LOT
        levels = self._levels()
        if levels is None:
            return None, reasons.NO_BOOK
        asked, price = round(lots), round(ticks)
        touch = int(levels[2 if arrival.side > 0 else 0, 0])
        if not price and not touch:
            return None, reasons.NO_BOOK
        rest = min(asked, self._reducible(arrival.id, arrival.side)) if arrival.reduce_only else asked
        if rest == 0:
            return None, reasons.REDUCE_ONLY_WOULD_OPEN
        notional = self._qty(asked) * self._price(price or touch)
        if not arrival.reduce_only and (self._qty(asked) < self.instrument.min_qty - self.instrument.lot / 2
                                        or notional < self.instrument.min_notional_usd):
            return None, reasons.BELOW_MIN_NOTIONAL
        if price and arrival.post_only and crosses(levels, arrival.side, price):
            return None, reasons.POST_ONLY_WOULD_CROSS
        return Working(arrival.id, arrival.side, price, asked, rest, arrival.reduce_only, arrival.at), ""

    def _rest(self, order: Working) -> None:
        """Joins the rows at its priority, behind its share of what is visible and behind own orders of its price."""
        levels = self._levels()
        assert levels is not None
        seen = int(visible_at(levels, order.side, order.price))
        ahead = (FAR if self.rules.queue_ahead else 0) if seen == FAR else ceil(seen * self.rules.queue_ahead)
        keys = [(-o.side, -o.side * o.price) for o in self._orders]
        key = (-order.side, -order.side * order.price)
        i = sum(k <= key for k in keys)
        queues = self._own[:, AHEAD].tolist()
        if i and keys[i - 1] == key:
            ahead = max(ahead, queues[i - 1])
        self._set([*self._orders[:i], order, *self._orders[i:]], [*queues[:i], ahead, *queues[i:]])

    def _set(self, orders: list[Working], queues: list[int]) -> None:
        self._orders = orders
        self._own = np.array([(o.side, o.price, o.rest, q) for o, q in zip(orders, queues)], np.int64).reshape(-1, 4)
        self._filled = np.zeros(len(orders), np.int64)

    # what becomes of them

    def _reducible(self, order_id: str, side: int) -> int:
        return max(0, -side * self.positions[account_of(order_id)])

    def _fill(self, order: Working, ticks: int, lots: int, maker: bool, ts_ms: int) -> Fill:
        order.filled += lots
        order.rest -= lots
        order.fills += 1
        self.positions[account_of(order.id)] += order.side * lots
        self.seq += 1
        price, qty = self._price(ticks), self._qty(lots)
        fee = price * qty * (self.instrument.maker_fee if maker else self.instrument.taker_fee)
        side = BUY if order.side > 0 else SELL
        return Fill(f"{order.id}:{order.fills}", order.id, self.symbol, side, price, qty, fee, maker, self.seq, ts_ms)

    def _settle(self, order: Working, out: list[Report | Fill], ts_ms: int) -> None:
        """After fills of `order`: ends it when nothing is left, and takes back what reduce-only may no longer reduce."""
        if order.rest == 0:
            full = order.filled == order.asked
            self._end(order, DONE if full else CANCELLED, "" if full else reasons.REDUCE_ONLY_WOULD_OPEN, out, ts_ms)
        for other in self._orders:
            if other.reduce_only and other.id not in self._ended and other.rest > self._reducible(other.id, other.side):
                other.rest = self._reducible(other.id, other.side)
                if other.rest == 0:
                    self._end(other, CANCELLED, reasons.REDUCE_ONLY_WOULD_OPEN, out, ts_ms)

    def _end(self, order: Working, status: str, reason: str, out: list[Report | Fill], ts_ms: int) -> None:
        order.rest = 0
        self._forget(order.id, order.filled)
        out.append(self._report(order.id, status, reason, order.filled, ts_ms))

    def _forget(self, order_id: str, filled: int) -> None:
        self._ended[order_id] = filled
        if len(self._ended) > REMEMBERED:
            self._ended.popitem(last=False)

    def _sweep(self) -> None:
        """Rows as the orders are now, without those that ended."""
        kept = [(o, q) for o, q in zip(self._orders, self._own[:, AHEAD].tolist()) if o.rest]
        self._set([o for o, _ in kept], [q for _, q in kept])

    def _report(self, order_id: str, status: str, reason: str, filled: int, ts_ms: int) -> Report:
        self.seq += 1
        return Report(order_id, self.symbol, status, reason, self._qty(filled), self.seq, ts_ms)

    def _price(self, ticks: int) -> float:
        return round(ticks * self.instrument.tick, self.digits[0])

    def _qty(self, lots: int) -> float:
        return round(lots * self.instrument.lot, self.digits[1])
