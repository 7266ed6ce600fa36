"""What would have become of resting maker orders that nobody sent: the paper venue's queue over recorded books.

A post-only order arrives one latency after its placement, stands behind what is visible at its price, and is taken back when its horizon is
over and one latency more has passed. Trades at its price move the queue and then fill it, a trade through its price or a book that comes
to it fills it too; size that leaves without a trade is taken to leave from behind (`engine/execution/matching.py`).
"""
from typing import NamedTuple

import numpy as np
from numba import njit

from engine.execution.queue import AHEAD, FAR, REST, crosses, scan, visible_at
from engine.facts import BOOK, DEPTH, TRADE, frame_of
from engine.scoring.labels import Stream, stream_of
from engine.settings import Matching

RESTED, REFUSED, UNSEEN = 0, 1, 2      # it rested; it would have met the other side when it arrived; the stream ends before its horizon


class Fates(NamedTuple):
    """One row an order: `kind`; ms from placement to the first lot and to the whole quantity, -1 where that did not happen in time."""
    kind: np.ndarray
    first_ms: np.ndarray
    whole_ms: np.ndarray


def fates(stream: Stream, event: np.ndarray, sign: np.ndarray, price: np.ndarray, lots: np.ndarray, horizon_ms: np.ndarray,
          rules: Matching) -> Fates:
    """Of m orders, each of them alone: placed at int `event`, int `sign` (+1 buys), `price` in ticks, `lots`, `horizon_ms`, all [m]."""
    m = len(event)
    out = Fates(np.full(m, UNSEEN, np.int8), np.full(m, -1, np.int64), np.full(m, -1, np.int64))
    at, way, ticks, wanted, horizon = (np.ascontiguousarray(a, np.int64) for a in (event, sign, price, lots, horizon_ms))
    _fates(stream.ts, stream.kind, stream.books, stream.trades, stream.book_at, at, way, ticks, wanted, horizon, rules.latency_ms,
           rules.queue_ahead, rules.through_fills, out.kind, out.first_ms, out.whole_ms)
    return out


@njit(cache=True)
def _fates(ts, kind, books, trades, book_at, event, sign, price, lots, horizon_ms, latency, queue, through, kinds, first_ms, whole_ms):
    """`fates`' kernel: writes the last three arrays."""
    events = len(ts)
    own, filled = np.empty((1, 4), np.int64), np.zeros(1, np.int64)
    for k in range(len(event)):
        start, i = ts[event[k]], event[k]
        j = i + np.searchsorted(ts[i:], start + latency, side="right")
        until = start + horizon_ms[k] + latency
        last = i + np.searchsorted(ts[i:], until, side="right")
        if last >= events or book_at[j - 1] < 0:
            continue
        book = books[book_at[j - 1]]
        if crosses(book, sign[k], price[k]):
            kinds[k] = REFUSED
            continue
        kinds[k] = RESTED
        seen = visible_at(book, sign[k], price[k])
        own[0, 0], own[0, 1], own[0, REST] = sign[k], price[k], lots[k]
        own[0, AHEAD] = (FAR if queue > 0 else 0) if seen == FAR else int(np.ceil(queue * seen))
        row = book_at[j - 1] + 1
        at, trade = j, j - row
        while own[0, REST] > 0:
            hit = scan(own, filled, kind, books, trades, at, last, row, trade, through)
            if hit >= last:
                break
            if kind[hit] == 0:
                got = _shown(books[book_at[hit]], sign[k], price[k])
            else:
                got = filled[0]
            if got > 0 and first_ms[k] < 0:
                first_ms[k] = ts[hit] - start
            own[0, REST] -= min(got, own[0, REST])
            if own[0, REST] == 0:
                whole_ms[k] = ts[hit] - start
            at, row = hit + 1, book_at[hit] + 1
            trade = at - row


@njit(cache=True)
def _shown(levels, side, price):
    """Lots of the other side at this price or better: what a book that came to an order has for it."""
    row = 2 if side > 0 else 0
    total = 0
    for level in range(levels.shape[1]):
        if levels[row + 1, level] > 0 and (price - levels[row, level]) * side >= 0:
            total += levels[row + 1, level]
    return total


def warm() -> None:
    """Compiles the kernels, or loads them from the cache."""
    books = np.zeros((2, 4, DEPTH), np.int32)
    books[:, :, 0] = 100, 9, 101, 1
    frame = frame_of("WARM", "", 0, 1.0, 1.0, [1, 2, 3], [BOOK, TRADE, BOOK], books, [[100, 1, -1]])
    one = np.ones(1, np.int64)
    fates(stream_of([frame]), 0 * one, one, 100 * one, one, one, Matching(0, 1.0, True))
