"""Books rebuilt from depth diffs: every changed level of every message in, the first ten levels after each message out."""
import numpy as np
from numba import njit

from engine.facts import DEPTH

DEEP = 4096         # levels of a side that are kept; a snapshot has a thousand


@njit(cache=True)
def put(prices, sizes, n, price, size):
    """One level into (size 0: out of) a side sorted so that the best comes last; how many levels it has then.

    A full side forgets its worst level.
    """
    lo, hi = 0, n
    while lo < hi:
        mid = (lo + hi) // 2
        if prices[mid] < price:
            lo = mid + 1
        else:
            hi = mid
    here = lo < n and prices[lo] == price
    if size == 0:
        if here:
            for i in range(lo, n - 1):
                prices[i], sizes[i] = prices[i + 1], sizes[i + 1]
            return n - 1
        return n
    if here:
        sizes[lo] = size
        return n
    if n == len(prices):
        if lo == 0:
            return n
        for i in range(lo - 1):
            prices[i], sizes[i] = prices[i + 1], sizes[i + 1]
        prices[lo - 1], sizes[lo - 1] = price, size
        return n
    for i in range(n, lo, -1):
        prices[i], sizes[i] = prices[i - 1], sizes[i - 1]
    prices[lo], sizes[lo] = price, size
    return n + 1


@njit(cache=True)
def rebuild(first, snapshot, side, price, size, books):
    """Applies rows message by message and writes the top of the book after each to `books` int64[m, 4, DEPTH].

    `first` int64[m + 1]: where each message's rows begin; `snapshot` uint8[m]: it replaces the book; `side` +1 bid, -1 ask;
    an absent level is 0 with size 0. Asks are kept under their negated price, so that both sides end with their best.
    """
    prices, sizes, n = np.zeros((2, DEEP), np.int64), np.zeros((2, DEEP), np.int64), np.zeros(2, np.int64)
    for m in range(len(snapshot)):
        if snapshot[m]:
            n[:] = 0
        for i in range(first[m], first[m + 1]):
            s = 0 if side[i] > 0 else 1
            n[s] = put(prices[s], sizes[s], n[s], price[i] if s == 0 else -price[i], size[i])
        for s in range(2):
            for level in range(DEPTH):
                at = n[s] - 1 - level
                books[m, 2 * s, level] = 0 if at < 0 else prices[s, at] if s == 0 else -prices[s, at]
                books[m, 2 * s + 1, level] = 0 if at < 0 else sizes[s, at]


@njit(cache=True)
def overlay(full, last, touch, books):
    """The touch of a moment over the levels of the last full book that lie behind it: `books` int64[m, 4, DEPTH].

    `last` int64[m]: index into `full` (int64[k, 4, DEPTH]); `touch` int64[m, 4]: bid, its size, ask, its size.
    """
    for m in range(len(last)):
        for s in range(2):
            row, to = 2 * s, 1
            books[m, row, 0], books[m, row + 1, 0] = touch[m, row], touch[m, row + 1]
            for level in range(DEPTH):
                price = full[last[m], row, level]
                if to < DEPTH and price > 0 and (price < touch[m, row] if s == 0 else price > touch[m, row]):
                    books[m, row, to], books[m, row + 1, to] = price, full[last[m], row + 1, level]
                    to += 1
