"""The simulated market's law of motion, as one numba kernel over a flat state.

An *efficient price* moves with regimes, stochastic volatility, jumps and a slow drift that the book's imbalance shows. Quotes
follow it late: that lag is what resting orders lose to, since trades come the more the further the quotes are off, and on the
side that is right. Trades excite trades; an aggressive order prints several times at one millisecond and eats the book.
"""
import numpy as np
from numba import njit

LEVELS = 48                     # kept behind the touch on each side, by distance in ticks
SHOWN = 10
# state
TIME, PRICE, BID, ASK, ALPHA, FAST, SLOW, HEAT, REGIME, SIGN = range(10)
SIZES = 10                      # bids from here, then asks
WIDTH = SIZES + 2 * LEVELS
# parameters, all in ticks, lots and seconds
(BOOK_RATE, ORDER_RATE, FAST_TAU, SLOW_TAU, FAST_VOL, SLOW_VOL, ALPHA_TAU, DRIFT, TILT, JUMP_RATE, JUMP_SIZE, LAG, STICKY, SPREAD,
 SPREAD_VOL, FOLLOW, SNIPE, LEAN, PERSIST, EXCITE, HEAT_TAU, PRINTS, OCCUPIED, GROWTH, REFRESH, IMPACT, TOXIC) = range(27)
REGIMES = 27                    # then for each of three regimes: sigma, rate of leaving, share of trades, shares of where to
REGIME_WIDTH = 5
PARAMETERS = REGIMES + 3 * REGIME_WIDTH
CELLS = 4096                    # of each quantile table: normal, touch size, deep size, trade size
NORMAL, TOUCH, DEEP, TRADED = range(4)


@njit(cache=True, inline="always")
def draw(bits: np.ndarray) -> np.uint64:
    """The next 64 random bits: splitmix64 (Steele, Lea & Flood 2014)."""
    bits[0] += np.uint64(0x9E3779B97F4A7C15)
    z = bits[0]
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


@njit(cache=True, inline="always")
def uniform(bits: np.ndarray) -> float:
    """Above 0, at most 1."""
    return (float(draw(bits) >> np.uint64(11)) + 1.0) * 1.1102230246251565e-16


@njit(cache=True, inline="always")
def normal(bits: np.ndarray, tables: np.ndarray) -> float:
    """Two draws from the normal's quantiles, so that no value comes twice soon and the tails reach further."""
    z = draw(bits)
    return 0.7071067811865476 * (tables[NORMAL, z & np.uint64(4095)] + tables[NORMAL, (z >> np.uint64(12)) & np.uint64(4095)])


@njit(cache=True)
def level_size(p: np.ndarray, tables: np.ndarray, bits: np.ndarray, k: int, lean: float) -> float:
    """A fresh size k ticks behind the touch, 0 for a gap; `lean` multiplies the side that the alpha favours."""
    z = draw(bits)
    cell = z & np.uint64(4095)
    if k == 0:
        return max(1.0, np.floor(tables[TOUCH, cell] * lean))
    if float(z >> np.uint64(40)) * 5.9604644775390625e-08 > p[OCCUPIED]:
        return 0.0
    return max(1.0, np.floor(tables[DEEP, cell] * lean * (1.0 + p[GROWTH] * k)))


@njit(cache=True)
def retreat(s: np.ndarray, side: int, steps: int, p: np.ndarray, tables: np.ndarray, bits: np.ndarray, lean: float) -> None:
    """The touch of `side` (0 bids, 1 asks) goes `steps` ticks back; what comes in sight at the far end is drawn."""
    a = SIZES + side * LEVELS
    s[BID + side] += steps if side else -steps
    kept = max(0, LEVELS - steps)
    for k in range(kept):
        s[a + k] = s[a + k + steps]
    for k in range(kept, LEVELS):
        s[a + k] = level_size(p, tables, bits, max(k, 1), lean)


@njit(cache=True)
def advance_touch(s: np.ndarray, side: int, steps: int, p: np.ndarray, tables: np.ndarray, bits: np.ndarray, lean: float) -> None:
    """The touch of `side` improves by `steps` ticks; the new levels are drawn."""
    a = SIZES + side * LEVELS
    s[BID + side] += -steps if side else steps
    for k in range(LEVELS - 1, steps - 1, -1):
        s[a + k] = s[a + k - steps]
    for k in range(min(steps, LEVELS)):
        s[a + k] = level_size(p, tables, bits, k, lean)


@njit(cache=True)
def quote(s: np.ndarray, p: np.ndarray, tables: np.ndarray, bits: np.ndarray, sigma: float) -> None:
    """The book answers: quotes follow the efficient price some way, gaps close, sizes change."""
    mid = 0.5 * (s[BID] + s[ASK])
    off = s[PRICE] - mid
    spread = s[ASK] - s[BID]
    lean_bid = np.exp(p[TILT] * s[ALPHA])
    lean_ask = 1.0 / lean_bid
    wanted = 1.0 + np.floor(-np.log(uniform(bits)) * (p[SPREAD] + p[SPREAD_VOL] * sigma))
    if abs(off) > p[STICKY] + 0.5 * spread or spread > wanted + 1.0:
        middle = mid + (p[FOLLOW] * off if abs(off) > p[STICKY] + 0.5 * spread else 0.0)
        bid = np.floor(middle - 0.5 * wanted + uniform(bits))
        ask = bid + wanted
        for side in range(2):
            moved = (ask - s[ASK]) if side else (s[BID] - bid)
            lean = lean_ask if side else lean_bid
            if moved > 0:
                retreat(s, side, int(moved), p, tables, bits, lean)
                a = SIZES + side * LEVELS
                if s[a] == 0.0:
                    s[a] = level_size(p, tables, bits, 0, lean)
            elif moved < 0:
                advance_touch(s, side, int(-moved), p, tables, bits, lean)
    for side in range(2):
        a, lean = SIZES + side * LEVELS, lean_ask if side else lean_bid
        s[a] = max(1.0, np.floor(s[a] + p[REFRESH] * (level_size(p, tables, bits, 0, lean) - s[a])))
        z = draw(bits)
        for _ in range(2):
            k = 1 + int(z & np.uint64(15))
            z >>= np.uint64(4)
            s[a + k] = level_size(p, tables, bits, k, lean)


@njit(cache=True)
def show(s: np.ndarray, row: np.ndarray) -> None:
    """The ten best levels of each side into a book row (4, 10)."""
    for side in range(2):
        a, step, shown = SIZES + side * LEVELS, 1 if side else -1, 0
        touch = int(s[BID + side])
        for k in range(LEVELS):
            lots = s[a + k]
            if lots > 0.0:
                row[2 * side, shown] = touch + step * k
                row[2 * side + 1, shown] = int(lots)
                shown += 1
                if shown == SHOWN:
                    break
        for level in range(shown, SHOWN):
            row[2 * side, level] = 0
            row[2 * side + 1, level] = 0


@njit(cache=True)
def strike(s: np.ndarray, p: np.ndarray, tables: np.ndarray, bits: np.ndarray, buys: bool, sigma: float, out: np.ndarray, n: int,
           room: int) -> int:
    """An aggressive order: its prints from row `n` of `out`; returns how many. Eats the book; the efficient price gives way."""
    side = 1 if buys else 0
    lean = np.exp((-p[TILT] if buys else p[TILT]) * s[ALPHA])
    a, made = SIZES + side * LEVELS, 0
    prints = 1 + int(-np.log(uniform(bits)) * p[PRINTS])
    while prints > 0 and made < room:
        prints -= 1
        z = draw(bits)
        lots = np.floor(tables[TRADED, z & np.uint64(4095)])
        while lots > 0.0 and made < room:
            got = min(lots, s[a])
            out[n + made, 0], out[n + made, 1], out[n + made, 2] = int(s[BID + side]), int(got), 1 if buys else -1
            made += 1
            s[a] -= got
            lots -= got
            if s[a] == 0.0:
                k = 1
                while k < LEVELS and s[a + k] == 0.0:
                    k += 1
                retreat(s, side, k, p, tables, bits, lean)
                if s[a] == 0.0:
                    s[a] = level_size(p, tables, bits, 0, lean)
    s[PRICE] += (1.0 if buys else -1.0) * p[IMPACT] * sigma
    s[SIGN] = 1.0 if buys else -1.0
    s[HEAT] += p[EXCITE]
    return made


@njit(cache=True)
def generate(s: np.ndarray, bits: np.ndarray, p: np.ndarray, tables: np.ndarray, ts: np.ndarray, kind: np.ndarray, books: np.ndarray,
             trades: np.ndarray, room: int) -> tuple[int, int]:
    """Fills the event columns until fewer than `room` places are left; (events, books). Times are ms since the start."""
    n, nb, nt, size = 0, 0, 0, len(ts)
    while size - n >= room:
        r = REGIMES + int(s[REGIME]) * REGIME_WIDTH
        vol = np.exp(p[FAST_VOL] * s[FAST] + p[SLOW_VOL] * s[SLOW] - p[FAST_VOL] ** 2 - p[SLOW_VOL] ** 2)
        sigma = p[r] * vol
        off = abs(s[PRICE] - 0.5 * (s[BID] + s[ASK])) - 0.5 * (s[ASK] - s[BID])
        pressed = p[SNIPE] * max(0.0, off) / (p[r] * p[LAG])
        trade_rate = p[ORDER_RATE] * p[r + 2] * (0.5 + 0.5 * min(vol, 8.0)) + s[HEAT] + min(pressed, 60.0)
        rate = p[BOOK_RATE] + trade_rate
        dt = -np.log(uniform(bits)) / rate
        s[TIME] += dt
        # what passed meanwhile
        root = np.sqrt(dt)
        s[PRICE] += sigma * (root * normal(bits, tables) + p[DRIFT] * s[ALPHA] * dt)
        jump = uniform(bits)
        if jump < p[JUMP_RATE] * p[r + 2] * dt:
            s[PRICE] += sigma * p[JUMP_SIZE] * -np.log(uniform(bits)) * (1.0 if uniform(bits) < 0.5 else -1.0)
        s[ALPHA] += -s[ALPHA] * min(1.0, dt / p[ALPHA_TAU]) + root * np.sqrt(2.0 / p[ALPHA_TAU]) * normal(bits, tables)
        s[FAST] += -s[FAST] * min(1.0, dt / p[FAST_TAU]) + root * np.sqrt(2.0 / p[FAST_TAU]) * normal(bits, tables)
        s[SLOW] += -s[SLOW] * min(1.0, dt / p[SLOW_TAU]) + root * np.sqrt(2.0 / p[SLOW_TAU]) * normal(bits, tables)
        s[HEAT] *= np.exp(-dt / p[HEAT_TAU])
        if s[PRICE] < 4.0 * LEVELS:
            s[PRICE] = 8.0 * LEVELS - s[PRICE]          # prices stay above zero
        if uniform(bits) < p[r + 1] * dt:
            to = uniform(bits)
            s[REGIME] = 0.0 if to < p[r + 3] else 1.0 if to < p[r + 4] else 2.0
        # what happens now
        if uniform(bits) * rate < p[BOOK_RATE]:
            quote(s, p, tables, bits, sigma)
            show(s, books[nb])
            ts[n], kind[n] = np.int64(s[TIME] * 1000.0), 0
            n, nb = n + 1, nb + 1
        else:
            gap = (s[PRICE] - 0.5 * (s[BID] + s[ASK])) / (p[r] * p[LAG])
            pull = p[LEAN] * s[ALPHA] + p[PERSIST] * s[SIGN] + p[TOXIC] * gap
            buys = uniform(bits) < 1.0 / (1.0 + np.exp(-pull))
            made = strike(s, p, tables, bits, buys, sigma, trades, nt, room - 1)
            for i in range(made):
                ts[n + i], kind[n + i] = np.int64(s[TIME] * 1000.0), 1
            n, nt = n + made, nt + made
    return n, nb
