"""What a trigger is called, and where a candidate's entry, target and stop stand. When it fires is decided in `kernel.fold`.

A candidate of a side is proposed where the visible depth leans that way (`triggers.imbalance`: heavy bids buy, heavy asks sell) or
the fast order flow does (`triggers.ofi_z`), at most one of a side within `triggers.cooldown_ms` of market time.
"""
import math

import numpy as np
from numba import njit

from engine.settings import Instrument, Triggers

NAMES = ("", "imbalance", "ofi", "imbalance+ofi")


def parameters(triggers: Triggers, instrument: Instrument) -> np.ndarray:
    """float64[3]: target and stop in bps of the entry, and how many ten-second sigmas join the target.

    The target is net: beyond what the two maker orders of a round trip pay, so that reaching it earns `triggers.target_bps`.
    """
    fees_bps = 2e4 * instrument.maker_fee
    return np.array([fees_bps + triggers.target_bps, triggers.stop_bps, triggers.sigma_multiple], np.float64)


@njit(cache=True, error_model="numpy", nogil=True)
def barriers(sides, touches, sigmas, parameters, prices):
    """`prices[k]` becomes entry, stop, target in ticks: int64[m, 3].

    The entry rests: the own side's best price, or where the book is locked one tick behind the other side's. Target and stop are
    rounded to the tick away from the entry, and are never the entry; a stop stays above zero.
    """
    for k in range(len(sides)):
        way, bid, ask = sides[k], touches[k, 0], touches[k, 1]
        entry = min(bid, ask - 1) if way > 0 else max(ask, bid + 1)
        win = max(math.ceil(entry * (parameters[0] + parameters[2] * sigmas[k]) / 1e4 - 1e-9), 1.0)
        lose = max(math.ceil(entry * parameters[1] / 1e4 - 1e-9), 1.0)
        prices[k, 0] = entry
        prices[k, 1] = max(entry - way * np.int64(lose), 1)
        prices[k, 2] = max(entry + way * np.int64(win), 1)
