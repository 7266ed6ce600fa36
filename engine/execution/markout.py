"""What became of the price after each fill, at fixed horizons of market time, and how often a route's entries are filled.

A fill's markout at horizon h is the mid that stood at its time plus h against its price, in bps, positive where the price went the fill's
way. The mid is that of the last book at or before that moment, known once a later event has come: so the frames into which a market is cut,
and whether fills or market are told first, make no difference. A fill told later than the kept books reach back is missed, and counted.
"""
from bisect import insort
from collections import deque
from collections.abc import Iterator

import msgspec
import numpy as np

from engine.facts import BUY

HORIZONS = (100, 500, 1000)       # ms of market time


class Pending(msgspec.Struct, array_like=True):
    """A horizon of a fill that is not reached yet; `sign` +1 bought."""
    due_ms: int
    fill_id: str
    horizon: int
    route: str
    sign: int
    price: float


class Marked(msgspec.Struct, frozen=True, array_like=True):
    """One markout."""
    fill_id: str
    route: str
    horizon: int
    bps: float


class Books(msgspec.Struct):
    """The kept books of a symbol as a snapshot carries them: times, and the touch in ticks."""
    session: str = ""
    tick: float = 0.0
    upto_ms: int = 0
    ts: list[int] = []
    bid: list[int] = []
    ask: list[int] = []


class Memory(msgspec.Struct):
    """All that a restart needs: `last` holds by (route, horizon) the newest markouts as (due, fill, bps)."""
    pending: dict[str, list[Pending]] = {}
    books: dict[str, Books] = {}
    last: dict[tuple[str, int], list[tuple[int, str, float]]] = {}
    missed: int = 0


class Markouts:
    """Markouts of all symbols. `window`: fills in an average; `late_ms`: how late a fill may be told."""

    def __init__(self, window: int, late_ms: int):
        self.window, self.late_ms = window, late_ms
        self.state = Memory()
        self.chunks: dict[str, deque[tuple[np.ndarray, np.ndarray, np.ndarray]]] = {}

    def on_fill(self, fill_id: str, symbol: str, side: str, price: float, ts_ms: int, route: str) -> list[Marked]:
        """A fill of an entry; the markouts that are due already."""
        waiting, books = self.state.pending.setdefault(symbol, []), self.state.books.get(symbol)
        for h in HORIZONS:
            if books is not None and ts_ms + h < books.upto_ms - self.late_ms:
                self.state.missed += 1
            else:
                waiting.append(Pending(ts_ms + h, fill_id, h, route, 1 if side == BUY else -1, price))
        return list(self._due(symbol))

    def on_market(self, symbol: str, session: str, tick: float, ts: np.ndarray, bid: np.ndarray, ask: np.ndarray,
                  upto_ms: int) -> list[Marked]:
        """Books int64[k], int32[k], int32[k] (ticks; an empty side is 0), and the time of the last event; the markouts that came due.

        Another session is another time: what waits for the old one is missed.
        """
        books = self.state.books.setdefault(symbol, Books(session, tick))
        if books.session != session:
            self.state.missed += len(self.state.pending.pop(symbol, ()))
            books = self.state.books[symbol] = Books(session, tick)
            self.chunks.pop(symbol, None)
        books.upto_ms = upto_ms
        kept = self.chunks.get(symbol) or self.chunks.setdefault(symbol, deque())
        if len(ts):
            kept.append((ts, bid, ask))
        marked = list(self._due(symbol)) if self.state.pending.get(symbol) else []
        while len(kept) > 1 and kept[1][0][0] <= upto_ms - self.late_ms and kept[1][1][0] > 0 and kept[1][2][0] > 0:
            kept.popleft()
        return marked

    def average(self, route: str, horizon: int) -> float:
        """Mean of the last markouts of a route in bps; NaN where there is none."""
        last = self.state.last.get((route, horizon), ())
        return sum(bps for _, _, bps in last) / len(last) if last else float("nan")

    def _due(self, symbol: str) -> Iterator[Marked]:
        books, waiting = self.state.books.get(symbol), self.state.pending.get(symbol)
        if books is None or not waiting:
            return
        for one in [w for w in waiting if w.due_ms < books.upto_ms]:
            waiting.remove(one)
            total = self._sum_at(symbol, one.due_ms)
            if total is None:
                self.state.missed += 1
                continue
            bps = one.sign * (total * books.tick / 2 - one.price) / one.price * 1e4
            last = self.state.last.setdefault((one.route, one.horizon), [])
            insort(last, (one.due_ms, one.fill_id, bps))      # by time, not by arrival: symbols and frames interleave as they like
            del last[:-self.window]
            yield Marked(one.fill_id, one.route, one.horizon, bps)

    def _sum_at(self, symbol: str, at_ms: int) -> int | None:
        for ts, bid, ask in reversed(self.chunks.get(symbol, ())):
            row = int(np.searchsorted(ts, at_ms, side="right")) - 1
            while row >= 0:
                if bid[row] > 0 and ask[row] > 0:
                    return int(bid[row]) + int(ask[row])
                row -= 1
        return None

    def snapshot(self) -> bytes:
        """The whole memory; `restore` continues from it."""
        for symbol, kept in self.chunks.items():
            books = self.state.books[symbol]
            books.ts, books.bid, books.ask = ([int(x) for chunk in kept for x in chunk[column]] for column in range(3))
        return msgspec.msgpack.encode(self.state)

    def restore(self, blob: bytes) -> None:
        """Becomes what `snapshot` saw."""
        self.state = msgspec.msgpack.decode(blob, type=Memory)
        self.chunks = {symbol: deque([(np.array(books.ts, np.int64), np.array(books.bid, np.int32), np.array(books.ask, np.int32))])
                       for symbol, books in self.state.books.items() if books.ts}
