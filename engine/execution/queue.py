"""Own orders against one market event, as numba kernels over a row an order.

A row is `(SIDE, PRICE, REST, AHEAD)`: +1 buys, -1 sells; ticks; lots still wanted; lots of the market that stand before it.
Rows are sorted by priority: the better price first within a side, the earlier order first within a price.
"""
import numpy as np
from numba import njit

SIDE, PRICE, REST, AHEAD = 0, 1, 2, 3
FAR = 2**40        # stands behind an unknown amount: the price lies outside the visible levels


@njit(cache=True)
def visible_at(levels: np.ndarray, side: int, price: int) -> int:
    """Lots that a book (4, DEPTH) shows at this price on this side; `FAR` where it shows no such depth."""
    row = 0 if side > 0 else 2
    for level in range(levels.shape[1]):
        ticks = levels[row, level]
        if ticks == 0:
            return 0                     # the side ends before
        if ticks == price:
            return levels[row + 1, level]
        if (ticks - price) * side < 0:
            return 0                     # between two levels, or before the touch
    return FAR


@njit(cache=True)
def crosses(levels: np.ndarray, side: int, price: int) -> bool:
    """Whether an order at this price meets the other side of a book (4, DEPTH)."""
    row = 2 if side > 0 else 0
    for level in range(levels.shape[1]):
        if levels[row + 1, level] > 0:
            return (price - levels[row, level]) * side >= 0
    return False


@njit(cache=True)
def traded(own: np.ndarray, filled: np.ndarray, price: int, lots: int, aggressor: int, through: bool) -> int:
    """Lots of own orders that a market trade fills, row by row in `filled`; moves the queues. At most `lots` in all."""
    left = lots
    total = 0
    for i in range(own.shape[0]):
        filled[i] = 0
        side = own[i, SIDE]
        if side * aggressor >= 0 or left <= 0:
            continue                     # an aggressive seller meets bids, a buyer asks
        beyond = (own[i, PRICE] - price) * side
        if beyond < 0:
            continue
        if beyond > 0 and through:
            own[i, AHEAD] = 0
        ahead = min(own[i, AHEAD], left)
        own[i, AHEAD] -= ahead
        got = min(own[i, REST], left - ahead)
        filled[i] = got
        left -= got
        total += got
    return total


@njit(cache=True)
def shown(own: np.ndarray, levels: np.ndarray) -> bool:
    """A new book: no more can stand before an order than is visible at its price. True where the book meets an order."""
    met = False
    for i in range(own.shape[0]):
        side, price = own[i, SIDE], own[i, PRICE]
        if crosses(levels, side, price):
            own[i, AHEAD] = 0
            met = True
        else:
            own[i, AHEAD] = min(own[i, AHEAD], visible_at(levels, side, price))
    return met


@njit(cache=True)
def scan(own: np.ndarray, filled: np.ndarray, kinds: np.ndarray, books: np.ndarray, trades: np.ndarray, first: int, last: int,
         book: int, trade: int, through: bool) -> int:
    """The first event of `first` to `last` (exclusive) that gives an own order something, `last` where none does.

    `book` and `trade` are the rows of the first book and trade from `first` on. Queues are moved up to and including that
    event; a trade's lots stand in `filled`, a book's are still to be taken from it.
    """
    for i in range(first, last):
        if kinds[i] == 0:
            if shown(own, books[book]):
                return i
            book += 1
        else:
            if traded(own, filled, trades[trade, 0], trades[trade, 1], trades[trade, 2], through) > 0:
                return i
            trade += 1
    return last
