"""Order-level recordings: the book that their events make, the prints that they tell of, and the true fate of every order.

A recording has one row an event of an order: created (0), changed (1), deleted (2), with the quantity that is left; rows are in order of
arrival, and times here are those of arrival. A resting order that has less left was traded; one that was deleted with something left was
taken back. What crosses the other side when it comes rests only with what is left of it. Orders far off the market are left out.
"""
from bisect import bisect_left, insort
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from engine.facts import BOOK, DEPTH, TRADE, Frame, frame_of
from store.recorded import INTEGER, RecordingError, columns

CREATED, CHANGED, DELETED = 0, 1, 2
FILES = {"bitstamp_l3_BTCUSD_20150501": 0.01, "bitstamp_l3_BTCUSD_20260502": 0.01}
TICK, LOT, STEP = 0.01, 0.00001, 1000      # of a lot in the recording's quantities of 1e-8
OFF = 0.02                                 # as a share of the price: further away is no order of this market


class Fates(NamedTuple):
    """Real orders that rested, in order of arrival. `event`: the last event of the frame before the order, so that it is not in its own
    book; `side` +1 buys; `price` in ticks, `lots`; `start_ms`; `filled_ms` of its first fill and `gone_ms` of its end, however it
    ended, -1 where the recording did not see that."""
    event: np.ndarray
    side: np.ndarray
    price: np.ndarray
    lots: np.ndarray
    start_ms: np.ndarray
    filled_ms: np.ndarray
    gone_ms: np.ndarray


class Book:
    """Both sides by price, in the recording's quantities."""

    def __init__(self) -> None:
        self.total: dict[tuple[int, int], int] = {}
        self.prices: dict[int, list[int]] = {1: [], -1: []}

    def best(self, side: int) -> int:
        """The best price of a side, 0 where it is empty."""
        prices = self.prices[side]
        return (prices[-1] if side > 0 else prices[0]) if prices else 0

    def crosses(self, side: int, price: int) -> bool:
        """Whether an order would meet the other side."""
        other = self.best(-side)
        return bool(other) and (price - other) * side >= 0

    def add(self, side: int, price: int, qty: int) -> None:
        """More or, below 0, less at a price."""
        before = self.total.get((side, price), 0)
        now = before + qty
        prices = self.prices[side]
        if before <= 0 < now:
            insort(prices, price)
        elif now <= 0 < before:
            del prices[bisect_left(prices, price)]
        self.total[side, price] = now

    def top(self) -> bytes:
        """int32[4, DEPTH] in ticks and lots, a level that is less than a lot as one."""
        rows = np.zeros((4, DEPTH), np.int32)
        for row, side in ((0, 1), (2, -1)):
            prices = self.prices[side][-1:-DEPTH - 1:-1] if side > 0 else self.prices[side][:DEPTH]
            rows[row, :len(prices)] = prices
            rows[row + 1, :len(prices)] = [max(1, self.total[side, p] // STEP) for p in prices]
        return rows.tobytes()


def read(folder: Path, name: str) -> tuple[Frame, Fates]:
    """The market of a recording as a frame, and its orders; `RecordingError` where it is not one."""
    if name not in FILES:
        raise RecordingError(f"{name}: no order-level recording; {', '.join(FILES)} are known")
    got, _ = columns(folder / f"{name}_events.parquet", order_id=INTEGER, ts_recv_ms=INTEGER, px=INTEGER, qty=INTEGER, action=INTEGER,
                     side=INTEGER)
    middle = np.median(got["px"])
    near = np.abs(got["px"] - middle) <= OFF * middle
    known = np.isin(got["order_id"], got["order_id"][~near])      # all events of an order or none
    return folded([got[c][~known].tolist() for c in ("order_id", "ts_recv_ms", "px", "qty", "action", "side")], name)


def folded(events: Sequence[Sequence[int]], session: str) -> tuple[Frame, Fates]:
    """`read`'s fold over columns of events: order id, time in ms, price in ticks, quantity that is left, action, side."""
    book, now = Book(), -(2**62)
    live: dict[int, list[int]] = {}      # id → what is left, whether it is in the book, its row below or -1
    ts: list[int] = []
    kind: list[int] = []
    books: list[bytes] = []
    trades: list[tuple[int, int, int]] = []
    rows: list[list[int]] = []
    shown = b""
    for order, at, price, qty, action, side in zip(*events):
        now = max(now, at)
        have = live.get(order)
        if action == CREATED:
            if have is not None or qty <= 0:
                continue
            rested = not book.crosses(side, price)
            if rested:
                rows.append([len(ts) - 1, side, price, max(1, qty // STEP), now, -1, -1])
            live[order] = [qty, int(rested), len(rows) - 1 if rested else -1, price]
            if rested:
                book.add(side, price, qty)
        elif have is None:
            continue
        else:
            left, rests, row, price = have
            traded = left - qty if action == CHANGED or qty == 0 else 0
            if rests and traded > 0:
                ts.append(now)
                kind.append(TRADE)
                trades.append((price, max(1, traded // STEP), -side))
                if row >= 0 and rows[row][5] < 0:
                    rows[row][5] = now
            if action == DELETED:
                del live[order]
                if rests:
                    book.add(side, price, -left)
                    if row >= 0:
                        rows[row][6] = now
            else:
                have[0] = qty
                if rests:
                    book.add(side, price, qty - left)
                elif not book.crosses(side, price):
                    have[1] = 1
                    book.add(side, price, qty)
        top = book.top()
        if top != shown:
            ts.append(now)
            kind.append(BOOK)
            books.append(top)
            shown = top
    levels = np.frombuffer(b"".join(books), np.int32).reshape(-1, 4, DEPTH)
    frame = frame_of("BTCUSD_L3", session, 0, TICK, LOT, ts, kind, levels, np.array(trades, np.int64).reshape(-1, 3))
    return frame, Fates(*np.array(rows, np.int64).reshape(-1, 7).T)
