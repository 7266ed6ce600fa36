"""Fits the simulated market to a recorded one by simulated moments: the figures that a coordinate search brings together.

Books are thinned to the recording's cadence before they are compared, and markouts are counted in standard deviations of the 1 s
return, so that a quieter hour can be compared with a wilder one.
"""
from collections.abc import Callable, Iterator
from itertools import pairwise

import msgspec
import numpy as np

from engine.facts import BOOK, Frame, cut, join
from engine.market.simulator import Simulator
from engine.market.stylised import figures, thinned
from engine.settings import Instrument, MarketModel

# figure: (by ratio, tolerance): how far from the recording is one unit of distance, and the band that the tests allow
BANDS: dict[str, tuple[bool, float]] = {
    "kurtosis_1s": (True, 1.0), "acf_r_1s": (False, 0.10), "acf_abs_1s": (False, 0.12), "acf_abs_10s": (False, 0.10),
    "acf_abs_60s": (False, 0.08), "variance_ratio_10s": (True, 0.30), "imbalance_1s": (False, 0.15), "imbalance_10s": (False, 0.08),
    "imbalance_memory_s": (True, 2.0), "markout_500ms_sigmas": (False, 0.45), "markout_1000ms_sigmas": (False, 0.55),
    "clustering": (True, 0.9), "sign_persistence": (False, 0.2),
}
# searched, each by a factor; what is measured directly (prices, sizes, rates, volatility) is not among them
FREE = ("alpha_tau_s", "drift", "tilt", "vol_fast", "vol_slow", "vol_slow_tau_s", "jumps_s", "jump_sigmas", "sticky_bps", "toxicity",
        "snipe", "excite", "prints", "persist", "lean", "impact")


def compared(frame: Frame, cadence_ms: int = 0, minutes: float = 0.0) -> dict[str, float]:
    """The figures of a stretch, with markouts also in standard deviations of 1 s returns; books thinned to `cadence_ms`.

    With `minutes`, the median over windows of that length: half an hour knows less of slow volatility than a day.
    """
    frame = thinned(frame, cadence_ms) if cadence_ms else frame
    times = frame.times
    count = max(1, round((times[-1] - times[0]) / 60_000 / minutes)) if minutes else 1
    edges = np.searchsorted(times, np.linspace(times[0], times[-1] + 1, count + 1)).tolist()
    each = [figures([cut(frame, a, b)]) for a, b in pairwise(edges)]
    for out in each:
        for horizon in (500, 1000):
            out[f"markout_{horizon}ms_sigmas"] = out[f"markout_{horizon}ms_bps"] / max(out["sigma_1s_bps"], 1e-9)
    return {name: float(np.median([out[name] for out in each])) for name in each[0]}


def simulated(symbol: str, instrument: Instrument, model: MarketModel, hours: float, seed: int) -> Frame:
    """A stretch of the simulated market as one frame."""
    market = Simulator(symbol, instrument, model, seed, 0, "fit")
    frames = []
    while (frame := market.frame(int(hours * 3_600_000), 1 << 20)) is not None:
        frames.append(frame)
    return join(frames)


def off(name: str, got: float, wanted: float) -> float:
    """How far a figure is from the recording's, in its band's tolerance."""
    by_ratio, tolerance = BANDS[name]
    if by_ratio:
        return float(np.log(max(got, 1e-3) / max(wanted, 1e-3))) / tolerance
    return (got - wanted) / tolerance


def distance(got: dict[str, float], wanted: dict[str, float]) -> float:
    """Mean square of `off` over the figures that the recording has; one runaway figure counts at most 9."""
    return float(np.mean([min(9.0, off(name, got[name], wanted[name]) ** 2) for name in BANDS if name in wanted]))


def search(model: MarketModel, loss: Callable[[MarketModel], float], rounds: int, step: float = 1.5) -> Iterator[tuple[MarketModel, float]]:
    """Coordinate search by factors: each better model with its loss. The step shrinks when a round finds nothing."""
    best = loss(model)
    yield model, best
    for _ in range(rounds):
        found = False
        for name in FREE:
            for factor in (step, 1.0 / step):
                value = getattr(model, name) * factor
                if name == "prints":
                    value = min(10.0, max(1.0, value))
                trial = msgspec.structs.replace(model, **{name: value})
                got = loss(trial)
                if got < best:
                    model, best, found = trial, got, True
                    yield model, best
                    break
        step = step if found else step**0.5


# simulated symbol: the recording and its symbol that it is fitted to
SOURCES = {"BTCUSDT": ("standx", "BTCUSD"), "ETHUSDT": ("hyperliquid", "ETH"), "SOLUSDT": ("hyperliquid", "SOL")}


def cadence(frame: Frame) -> int:
    """Median ms between books."""
    at = frame.times[frame.kinds == BOOK]
    return max(1, int(np.median(np.diff(at))))


def measured(frame: Frame) -> dict[str, float]:
    """The parameters that a recording gives without a search: print sizes, and sizes at the touch and behind it, in thousand USD."""
    books, trades = frame.book_rows, frame.trade_rows
    kusd = frame.tick * frame.lot / 1000
    prints = np.log(trades[:, 0] * kusd * trades[:, 1])
    sizes = books[:, [1, 3]].astype(np.float64) * books[:, [0, 2]] * kusd
    touch, deep = np.log(sizes[:, :, 0][sizes[:, :, 0] > 0]), np.log(sizes[:, :, 1:][sizes[:, :, 1:] > 0])
    out = {"trade_kusd": float(np.exp(np.median(prints))), "trade_spread": float(prints.std())}
    for name, logs in (("touch", touch), ("deep", deep)):
        out[f"{name}_kusd"], out[f"{name}_spread"] = float(np.exp(np.median(logs))), float(logs.std())
    return out
