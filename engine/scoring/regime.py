"""Which market this is: the range of the mid over the trailing hour, normal, event or high_vol (DECISIONS, 40).

The window is sixty buckets aligned to market time, so at the end of an hour it is that hour. Gaps in the data do not restart it:
a range of an hour is known although a minute of it is missing.
"""
import numpy as np
from numba import njit

from engine.settings import Regimes

NORMAL, EVENT, HIGH_VOL = range(3)
NAMES = ("normal", "event", "high_vol")
BUCKETS = 60
# state: the current bucket's number, highest and lowest of the closed buckets, the last time; then highs, then lows, by bucket
NUMBER, HIGH, LOW, NOW, HIGHS, LOWS = 0, 1, 2, 3, 4, 4 + BUCKETS
NOTHING = 1 << 60


def empty() -> np.ndarray:
    """State of a symbol that has seen nothing: int64[124]; mids in half ticks."""
    state = np.zeros(LOWS + BUCKETS, np.int64)
    state[LOW] = state[LOWS:] = NOTHING
    state[NUMBER] = -1
    return state


def parameters(regimes: Regimes) -> np.ndarray:
    """float64[3]: bucket width in ms, and the two ranges in bps."""
    return np.array([max(regimes.window_ms // BUCKETS, 1), regimes.event_bps, regimes.high_vol_bps], np.float64)


@njit(cache=True, error_model="numpy", nogil=True)
def fold(times, kinds, books, parameters, state, codes):
    """`codes[i]` becomes the regime in force after event i: uint8[n]."""
    width = np.int64(parameters[0])
    b = 0
    for i in range(len(times)):
        ts = max(times[i], state[NOW])
        state[NOW] = ts
        if ts >= (state[NUMBER] + 1) * width:
            number = ts // width
            for k in range(max(state[NUMBER] + 1, number - BUCKETS + 1), number + 1):
                state[HIGHS + k % BUCKETS], state[LOWS + k % BUCKETS] = 0, NOTHING
            state[NUMBER] = number
            state[HIGH], state[LOW] = 0, NOTHING
            for slot in range(BUCKETS):
                state[HIGH] = max(state[HIGH], state[HIGHS + slot])
                state[LOW] = min(state[LOW], state[LOWS + slot])
        if kinds[i] == 0:
            bid, ask = np.int64(books[b, 0, 0]), np.int64(books[b, 2, 0])
            two_sided = bid > 0 and books[b, 1, 0] > 0 and books[b, 3, 0] > 0 and ask >= bid
            b += 1
            if two_sided:
                slot = state[NUMBER] % BUCKETS
                state[HIGHS + slot] = max(state[HIGHS + slot], bid + ask)
                state[LOWS + slot] = min(state[LOWS + slot], bid + ask)
                state[HIGH] = max(state[HIGH], bid + ask)
                state[LOW] = min(state[LOW], bid + ask)
        range_bps = 1e4 * (state[HIGH] - state[LOW]) / state[LOW] if state[HIGH] > 0 else 0.0
        codes[i] = HIGH_VOL if range_bps >= parameters[2] else EVENT if range_bps >= parameters[1] else NORMAL
