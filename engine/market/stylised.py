"""What makes a market look like a market: the same figures of a simulated and of a recorded stretch.

Returns are of the mid on a grid of one second, in bps; depths are in thousands of USD; markouts are what a hypothetical order
resting at the touch has gained (positive) or lost per fill, against the mid some time after a trade that met it.
"""
from collections.abc import Sequence

import numpy as np

from engine.facts import BOOK, TRADE, Frame, frame_of, join

GRID_MS = 1000
MARKOUTS_MS = (100, 500, 1000)
MEANING = {
    "minutes": "length of the stretch",
    "books_s": "book snapshots a second",
    "trades_s": "trades a second",
    "spread_bps_p50": "spread, median, bps",
    "spread_bps_p95": "spread, 95th percentile, bps",
    "spread_bps_mean": "spread, time-blind mean, bps",
    "touch_kusd": "median size at the touch, thousand USD",
    "depth3_kusd": "median size of three levels, thousand USD",
    "depth10_kusd": "median size of ten levels, thousand USD",
    "reach_bps": "distance of the tenth level from the mid, median, bps",
    "trade_kusd_p50": "trade size, median, thousand USD",
    "trade_kusd_mean": "trade size, mean, thousand USD",
    "clustering": "variance over mean of trades a second (1: Poisson)",
    "sign_persistence": "autocorrelation of aggressor signs",
    "sigma_1s_bps": "standard deviation of 1 s returns, bps",
    "sigma_hour_bps": "the same over an hour by the square root of time, bps",
    "kurtosis_1s": "excess kurtosis of 1 s returns",
    "kurtosis_60s": "excess kurtosis of 60 s returns",
    "acf_r_1s": "autocorrelation of 1 s returns, lag 1",
    "acf_abs_1s": "autocorrelation of |1 s returns|, lag 1",
    "acf_abs_10s": "lag 10",
    "acf_abs_60s": "lag 60",
    "variance_ratio_10s": "variance of 10 s returns over ten times that of 1 s",
    "imbalance_1s": "correlation of the ten-level imbalance with the next 1 s return",
    "imbalance_10s": "correlation of the ten-level imbalance with the next 10 s return",
    "imbalance_memory_s": "seconds until the imbalance's autocorrelation falls below 1/e",
    "markout_100ms_bps": "an order at the touch, 100 ms after its fill, bps",
    "markout_500ms_bps": "500 ms after",
    "markout_1000ms_bps": "1000 ms after",
}


def autocorrelation(x: np.ndarray, lag: int) -> float:
    """Pearson correlation of a series with itself `lag` later; 0 where it is constant."""
    return correlation(x[:-lag], x[lag:])


def correlation(x: np.ndarray, y: np.ndarray) -> float:
    """Pearson correlation, 0 where one is constant or there are fewer than three pairs."""
    if len(x) < 3 or x.std() == 0 or y.std() == 0:
        return 0.0
    return float(np.corrcoef(x, y)[0, 1])


def kurtosis(x: np.ndarray) -> float:
    """Excess kurtosis; 0 where it is not defined."""
    variance = x.var() if len(x) > 3 else 0.0
    return float(((x - x.mean()) ** 4).mean() / variance**2 - 3) if variance > 0 else 0.0


def imbalance(books: np.ndarray, levels: int) -> np.ndarray:
    """(bids - asks) / (bids + asks) of the first levels of int32[n, 4, DEPTH], in -1…1."""
    bid = books[:, 1, :levels].sum(axis=1, dtype=np.float64)
    ask = books[:, 3, :levels].sum(axis=1, dtype=np.float64)
    return np.asarray((bid - ask) / np.maximum(bid + ask, 1.0))


def thinned(frame: Frame, every_ms: int) -> Frame:
    """The frame with at most one book, the last, in every `every_ms`: a feed of the cadence of another."""
    books = np.flatnonzero(frame.kinds == BOOK)
    cell = frame.times[books] // every_ms
    last = np.append(cell[1:] != cell[:-1], True)
    keep = frame.kinds == TRADE
    keep[books[last]] = True
    return frame_of(frame.symbol, frame.session, frame.seq, frame.tick, frame.lot, frame.times[keep], frame.kinds[keep],
                    frame.book_rows[last], frame.trade_rows)


def figures(frames: Sequence[Frame], gap_ms: int = 15_000) -> dict[str, float]:
    """The figures named in `MEANING` of frames that follow each other; returns over a gap of `gap_ms` are left out."""
    frame = join(list(frames))
    ts, kinds, books, trades = frame.times, frame.kinds, frame.book_rows, frame.trade_rows
    at, tts = ts[kinds == BOOK], ts[kinds == TRADE]
    whole = (books[:, 0, 0] > 0) & (books[:, 2, 0] > 0)
    at, books = at[whole], books[whole]
    bid, ask = books[:, 0, 0].astype(float), books[:, 2, 0].astype(float)
    mid = (bid + ask) / 2
    seconds = (ts[-1] - ts[0]) / 1000
    usd = mid * frame.tick * frame.lot / 1000

    grid = np.arange(at[0], at[-1], GRID_MS)
    row = np.searchsorted(at, grid, "right") - 1
    fresh = grid - at[row] < gap_ms
    log_mid = np.log(mid[row])

    def returns(step: int, stride: int) -> np.ndarray:
        r = (log_mid[step:] - log_mid[:-step]) * 1e4
        return np.asarray(r[fresh[step:] & fresh[:-step]][::stride])

    r1, r10, r60 = returns(1, 1), returns(10, 1), returns(60, 5)
    tilt = imbalance(books, 10)[row]
    memory = next((lag for lag in range(1, 120) if autocorrelation(tilt, lag) < np.exp(-1)), 120)
    spread = (ask - bid) / mid * 1e4
    side = books[:, [1, 3]].astype(np.float64)
    per_second = np.bincount(((tts - ts[0]) // 1000).astype(np.int64), minlength=max(1, int(seconds)))[:max(1, int(seconds))]
    notional = trades[:, 0].astype(float) * frame.tick * trades[:, 1] * frame.lot / 1000
    out = {
        "minutes": seconds / 60, "books_s": len(at) / seconds, "trades_s": len(tts) / seconds,
        "spread_bps_p50": float(np.median(spread)),
        "spread_bps_p95": float(np.quantile(spread, 0.95)), "spread_bps_mean": float(spread.mean()),
        "touch_kusd": float(np.median(side[:, :, 0].mean(1) * usd)),
        "depth3_kusd": float(np.median(side[:, :, :3].sum(2).mean(1) * usd)),
        "depth10_kusd": float(np.median(side.sum(2).mean(1) * usd)),
        "reach_bps": float(np.median((books[:, 2, 9] - mid)[books[:, 2, 9] > 0] / mid[books[:, 2, 9] > 0]) * 1e4),
        "trade_kusd_p50": float(np.median(notional)), "trade_kusd_mean": float(notional.mean()),
        "clustering": float(per_second.var() / max(per_second.mean(), 1e-9)),
        "sign_persistence": autocorrelation(trades[:, 2].astype(float), 1),
        "sigma_1s_bps": float(r1.std()), "sigma_hour_bps": float(r1.std() * 60),
        "kurtosis_1s": kurtosis(r1), "kurtosis_60s": kurtosis(r60),
        "acf_r_1s": autocorrelation(r1, 1), "acf_abs_1s": autocorrelation(np.abs(r1), 1), "acf_abs_10s": autocorrelation(np.abs(r1), 10),
        "acf_abs_60s": autocorrelation(np.abs(r1), 60), "variance_ratio_10s": float(r10.var() / (10 * r1.var())),
        "imbalance_1s": correlation(tilt[:-1], (log_mid[1:] - log_mid[:-1])),
        "imbalance_10s": correlation(tilt[:-10], (log_mid[10:] - log_mid[:-10])), "imbalance_memory_s": float(memory),
    }
    for horizon, value in markouts(tts, trades, at, bid, ask).items():
        out[f"markout_{horizon}ms_bps"] = value
    return {name: out[name] for name in MEANING}


def markouts(tts: np.ndarray, trades: np.ndarray, at: np.ndarray, bid: np.ndarray, ask: np.ndarray) -> dict[int, float]:
    """Mean gain (bps) of an order that rested at the touch of the last book before a trade that came to it, by horizon in ms."""
    before = np.searchsorted(at, tts, "left") - 1
    later_ok = (before >= 0) & (tts + max(MARKOUTS_MS) <= at[-1])
    before = np.maximum(before, 0)
    sold, bought = trades[:, 2] < 0, trades[:, 2] > 0
    met = later_ok & ((sold & (trades[:, 0] <= bid[before])) | (bought & (trades[:, 0] >= ask[before])))
    price = np.where(sold, bid[before], ask[before])[met]
    side = np.where(sold, 1.0, -1.0)[met]
    mid = (bid + ask) / 2
    out = {}
    for horizon in MARKOUTS_MS:
        then = mid[np.searchsorted(at, tts[met] + horizon, "right") - 1]
        out[horizon] = float(np.mean(side * (then - price) / price) * 1e4) if met.any() else 0.0
    return out
