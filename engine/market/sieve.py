"""The kernel behind `repair`: one pass over raw events, all memory in the arrays that are handed in."""
import numpy as np
from numba import njit

from engine.facts import BOOK, DEPTH, MAX_INT32
from engine.metrics import BAD_TICKS, REPAIRS

OFF_TICK, OFF_LOT = 1, 2            # bits of Raw.off
REMEMBERED = 1024                   # trade ids in which a repeat is looked for
NO_TIME_MS = 4_102_444_800_000      # the year 2100: a later time is another unit, not a later event
STATE = 10
# what the state remembers: any event yet, its time; touch and its time; last print, its side; next place in the ring of ids
SEEN, LAST, HAVE_TOUCH, TOUCH_MS, BID, ASK, PRINT, SIDE, RING, BOOK_MS = range(10)

CROSSED, NON_POSITIVE, UNORDERED = BAD_TICKS.index("crossed"), BAD_TICKS.index("non_positive"), BAD_TICKS.index("unordered")
OFF_MARKET, OVERFLOW = BAD_TICKS.index("off_market"), BAD_TICKS.index("overflow")
DUPLICATE, UNSORTED = BAD_TICKS.index("duplicate"), BAD_TICKS.index("unsorted")
LOCKED, SKEWED, ROUNDED, RESIZED = (REPAIRS.index(k) for k in ("locked", "clock_skew", "off_tick", "off_lot"))


@njit(cache=True)
def book_fault(book):
    """Why this book is no market (an index of BAD_TICKS), or -1."""
    for side in range(2):
        row, gone = 2 * side, False
        for i in range(DEPTH):
            price, size = book[row, i], book[row + 1, i]
            if price == 0 and size == 0:
                if i == 0:
                    return NON_POSITIVE         # a side without a touch
                gone = True
            elif price <= 0 or size <= 0:
                return NON_POSITIVE
            elif price >= MAX_INT32 or size > MAX_INT32:
                return OVERFLOW                 # the greatest price is kept free for `unlock`
            elif gone or (i and (price >= book[row, i - 1] if side == 0 else price <= book[row, i - 1])):
                return UNSORTED
    return CROSSED if book[0, 0] > book[2, 0] else -1


@njit(cache=True)
def unlock(book):
    """A locked book's ask one tick above its bid (DECISIONS, 37); a level that stands there already takes the size in."""
    price = book[0, 0] + 1
    if book[2, 1] != price:
        book[2, 0] = price
        return
    book[3, 1] = min(book[3, 0] + book[3, 1], MAX_INT32)
    for i in range(DEPTH - 1):
        book[2, i], book[3, i] = book[2, i + 1], book[3, i + 1]
    book[2, DEPTH - 1] = book[3, DEPTH - 1] = 0


@njit(cache=True)
def side_of(price, state):
    """Who paid: by the quotes, between them by the nearer one, in the middle by the last change of price (Lee and Ready, 1991)."""
    if state[HAVE_TOUCH]:
        if price >= state[ASK]:
            return 1
        if price <= state[BID]:
            return -1
        if 2 * price != state[BID] + state[ASK]:
            return 1 if 2 * price > state[BID] + state[ASK] else -1
    if state[PRINT] and price != state[PRINT]:
        return 1 if price > state[PRINT] else -1
    return state[SIDE] if state[SIDE] else 1


@njit(cache=True)
def sift(ts, kind, books, trades, ids, received, bad, off, off_market_bps, gap_ms, skew_ms, state, last_book, ring,
         out_ts, out_kind, out_books, out_trades, out_at, refused, repaired, gaps, taken):
    """One chunk; `taken` gets the numbers of books and trades written to the outs, `gaps` (how many, longest, when)."""
    b = t = 0
    book = np.empty((4, DEPTH), np.int64)
    for i in range(len(ts)):
        is_book = kind[i] == BOOK
        why = bad[i] - 1 if bad[i] else -1
        price = size = 0
        if is_book:
            book[:] = books[b]
            b += 1
            if why < 0:
                why = book_fault(book)
        else:
            price, size = trades[t, 0], trades[t, 1]
            if why < 0 and (price <= 0 or size <= 0):
                why = NON_POSITIVE
            elif why < 0 and (price > MAX_INT32 or size > MAX_INT32):
                why = OVERFLOW
            t += 1
        if why < 0 and not 0 <= ts[i] < NO_TIME_MS:
            why = OVERFLOW
        if why < 0 and state[SEEN] and ts[i] < state[LAST]:
            why = UNORDERED
        if why < 0 and is_book and state[HAVE_TOUCH] and state[BOOK_MS] == ts[i]:
            same = True
            for row in range(4):
                for level in range(DEPTH):
                    same = same and book[row, level] == last_book[row, level]
            if same:
                why = DUPLICATE
        if why < 0 and not is_book and ids[t - 1]:
            for known in ring:
                if known == ids[t - 1]:
                    why = DUPLICATE
                    break
        # a touch that is itself old says nothing about a print
        if why < 0 and not is_book and state[HAVE_TOUCH] and ts[i] - state[TOUCH_MS] <= gap_ms and (
                price * 1e4 > state[ASK] * (1e4 + off_market_bps) or price * 1e4 < state[BID] * (1e4 - off_market_bps)):
            why = OFF_MARKET
        if why >= 0:
            refused[why] += 1
            continue

        if state[SEEN] and ts[i] - state[LAST] > gap_ms:
            gaps[0] += 1
            if ts[i] - state[LAST] > gaps[1]:
                gaps[1], gaps[2] = ts[i] - state[LAST], state[LAST]
        state[SEEN], state[LAST] = 1, ts[i]
        if received[i] and abs(received[i] - ts[i]) > skew_ms:
            repaired[SKEWED] += 1
        if off[i] & OFF_TICK:
            repaired[ROUNDED] += 1
        if off[i] & OFF_LOT:
            repaired[RESIZED] += 1
        at = taken[0] + taken[1]
        out_ts[at], out_kind[at], out_at[at] = ts[i], kind[i], i
        if is_book:
            last_book[:] = book
            state[BOOK_MS] = ts[i]
            if book[0, 0] == book[2, 0]:
                repaired[LOCKED] += 1
                unlock(book)
            out_books[taken[0]] = book
            taken[0] += 1
            state[HAVE_TOUCH], state[TOUCH_MS], state[BID], state[ASK] = 1, ts[i], book[0, 0], book[2, 0]
        else:
            side = trades[t - 1, 2]
            if side == 0:
                side = side_of(price, state)
            out_trades[taken[1], 0], out_trades[taken[1], 1], out_trades[taken[1], 2] = price, size, 1 if side > 0 else -1
            taken[1] += 1
            state[PRINT], state[SIDE] = price, 1 if side > 0 else -1
            if ids[t - 1]:
                ring[state[RING]] = ids[t - 1]
                state[RING] = (state[RING] + 1) % REMEMBERED
