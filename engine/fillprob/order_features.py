"""The features of a resting maker order at its placement: one function, for fitting and for serving.

Everything comes from what the Desk knows when it places the order (`Placement`): the candidate's feature row, the touch, sizes at the touch
and in the first levels, the trades of the last minute. No absolute price or size is among them, so that one model can serve any symbol.

What stands before an order behind the touch is not in a candidate level by level. Assumed: nothing inside the spread; the touch up to the
second level; all of the first levels (`gates.liquidity_by_side.levels`) at and behind it.
"""
import math
from typing import NamedTuple

import numpy as np
from numba import njit

from engine.facts import BUY
from engine.fillprob.placement import Act, Placement
from engine.scoring.features import FEATURES


class OrderFeature(NamedTuple):
    """A column: its name, how a fill probability may move with it (−1 never up, +1 never down, 0 either way), and what it is."""
    name: str
    way: int
    meaning: str


DECLARED = (
    OrderFeature("behind_ticks", -1, "ticks behind the own touch; below 0 inside the spread"),
    OrderFeature("behind_bps", -1, "the same in bps of the mid"),
    OrderFeature("behind_spreads", -1, "the same in spreads of at least a tick"),
    OrderFeature("behind_sigmas", -1, "the same, at least 0, in moves to be expected within the horizon: σ·√(horizon/10 s), σ ≥ 0.1 bps"),
    OrderFeature("reach_bps", -1, "bps from the other touch down to the order: what an aggressor must come"),
    OrderFeature("reach_sigmas", -1, "the same, at least 0, in moves to be expected within the horizon"),
    OrderFeature("ahead_touches", -1, "lots that stand before the order, in usual sizes of a touch"),
    OrderFeature("ahead_per_trade", -1, "the same for each trade that the horizon would bring at the last minute's rate, and one more"),
    OrderFeature("ahead_to_other", -1, "lots that stand before it over those of the other touch"),
    OrderFeature("near_imbalance", -1, "(own − other)/(own + other) over the first levels"),
    OrderFeature("horizon_s", 1, "seconds that it may rest"),
    OrderFeature("trades_expected", 1, "trades within the horizon at the last minute's rate"),
    OrderFeature("trades", 0, "trades of the last minute"),
    OrderFeature("sigma", 0, "bps of ten seconds"),
    OrderFeature("spread", 0, "bps"),
    OrderFeature("gap_own", 0, "bps from the first to the second level of the own side"),
    OrderFeature("gap_other", 0, "the other side's"),
    OrderFeature("depth_own", 0, "ln of the own side's visible size over its mean"),
    OrderFeature("depth_other", 0, "the other side's"),
    OrderFeature("touch_other", 0, "ln of the other touch over the mean touch"),
    OrderFeature("imbalance", 0, "(own − other)/(own + other) over all visible levels"),
    OrderFeature("qi", 0, "of the first five levels, level k weighted by 1/k, own side +"),
    OrderFeature("micro_gap", 0, "bps by which the microprice lies on the own side's good (a buy's: above the mid)"),
    OrderFeature("micro_velocity", 0, "bps/s, likewise"),
    OrderFeature("ofi", 0, "order flow imbalance of the slow window, own side +"),
    OrderFeature("ofi_fast", 0, "of the fast window"),
    OrderFeature("ofi_z", 0, "in deviations"),
    OrderFeature("flow_fast", 0, "trades' aggression of the fast window, a buy's + where they bought"),
    OrderFeature("flow_slow", 0, "of the slow window"),
    OrderFeature("return_fast", 0, "bps of the fast window, a buy's + where it rose"),
    OrderFeature("return_slow", 0, "of the slow window"),
    OrderFeature("return_sigma", 0, "of the sigma window"),
    OrderFeature("cancel_own", 0, "what of the size that left the touch was taken away on the own side, less the other's"),
    OrderFeature("cancel_rate", 0, "share that no trade explains"),
    OrderFeature("intensity_fast", 0, "trades a second, fast window"),
    OrderFeature("intensity_slow", 0, "slow window"),
    OrderFeature("book_intensity", 0, "books a second"),
    OrderFeature("volume_burst", 0, "ln ratio, as in the feature row"),
    OrderFeature("volatility_burst", 0, "deviations"),
    OrderFeature("time_since_trade", 0, "s"),
    OrderFeature("anomaly_score", 0, "deviations"),
)
NAMES = tuple(f.name for f in DECLARED)
WAYS = tuple(f.way for f in DECLARED)
MINUTE_MS, TEN_SECONDS_MS = 60_000.0, 10_000.0
QUIET_BPS = 0.1         # a calmer market than this counts as this calm
BOUND = 1e6

# where the candidate's row has what is needed; those of two sides as (bids, asks)
PLAIN = np.array([FEATURES.index(n) for n in ("sigma", "spread", "cancel_rate", "trade_intensity_fast", "trade_intensity_slow",
                                              "book_intensity", "volume_burst", "volatility_burst", "time_since_trade",
                                              "anomaly_score")], np.int64)
SIGNED = np.array([FEATURES.index(n) for n in ("depth_imbalance", "qi", "microprice_gap", "microprice_velocity", "ofi", "ofi_fast", "ofi_z",
                                               "trade_flow_fast", "trade_flow_slow", "return_fast", "return_slow", "return_sigma",
                                               "cancel_imbalance")], np.int64)
PAIRED = np.array([[FEATURES.index(f"{n}_{side}") for side in ("bids", "asks")] for n in ("gap", "depth", "touch")], np.int64)
WIDTH, COLUMNS = len(FEATURES), len(DECLARED)


@njit(cache=True, error_model="numpy")
def _fill_row(out, row, sign, price, bid, ask, around, horizon_ms, plain, signed, paired):
    """The declared features in their order. `price`, `bid`, `ask` in ticks; `around` as `Candidate.bid_lots` to `Candidate.trades`."""
    own, other, mine = (bid, ask, 0) if sign > 0 else (ask, bid, 1)
    bps = 2e4 / (bid + ask)
    behind, reach = sign * (own - price), sign * (other - price)
    own_lots, own_depth = float(around[2 * mine]), float(around[2 * mine + 1])
    other_lots, other_depth = float(around[2 - 2 * mine]), float(around[3 - 2 * mine])
    trades = float(around[4])
    gap = row[paired[0, mine]]
    ahead = 0.0
    if behind >= 0:
        ahead = own_lots if behind == 0 or behind * bps < gap - 0.25 * bps else own_depth
    # the mean touch from the other side, so that what is before the order counts once; a touch of e⁸ usual ones is enough
    usual = max((1.0 + other_lots) * math.exp(-min(max(row[paired[2, 1 - mine]], -8.0), 8.0)) - 1.0, 1.0)
    move = math.sqrt(row[plain[0]] * row[plain[0]] + QUIET_BPS * QUIET_BPS) * math.sqrt(horizon_ms / TEN_SECONDS_MS)
    expected = trades * horizon_ms / MINUTE_MS
    out[0], out[1], out[2] = behind, behind * bps, behind / max(abs(ask - bid), 1)
    out[3] = max(behind, 0) * bps / move
    out[4], out[5] = reach * bps, max(reach, 0) * bps / move
    out[6], out[7], out[8] = ahead / usual, ahead / usual / (1.0 + expected), ahead / (1.0 + other_lots)
    near = own_depth + other_depth
    out[9] = (own_depth - other_depth) / near if near > 0 else 0.0
    out[10], out[11], out[12] = 1e-3 * horizon_ms, expected, trades
    out[13], out[14] = row[plain[0]], row[plain[1]]
    out[15], out[16] = row[paired[0, mine]], row[paired[0, 1 - mine]]
    out[17], out[18] = row[paired[1, mine]], row[paired[1, 1 - mine]]
    out[19] = row[paired[2, 1 - mine]]
    for k in range(13):
        out[20 + k] = sign * row[signed[k]]
    for k in range(8):
        out[33 + k] = row[plain[2 + k]]
    for k in range(len(out)):
        out[k] = min(max(out[k], -BOUND), BOUND)


@njit(cache=True, error_model="numpy")
def _fill_rows(out, rows, signs, prices, touches, around, horizons_ms, plain, signed, paired):
    for k in range(len(signs)):
        _fill_row(out[k], rows[k], signs[k], prices[k], touches[k, 0], touches[k, 1], around[k], horizons_ms[k], plain, signed, paired)


def order_rows(features: np.ndarray, sign: np.ndarray, price: np.ndarray, touch: np.ndarray, around: np.ndarray,
               horizon_ms: np.ndarray) -> np.ndarray:
    """float32[m, COLUMNS] of m orders: candidates' rows float32[m, F], int sign (+1 buys) and price in ticks [m], touch in ticks [m, 2],
    lots and trades [m, 5] as in `Candidate`, horizon in ms [m]."""
    out = np.empty((len(sign), COLUMNS), np.float32)
    _fill_rows(out, np.ascontiguousarray(features, np.float32), np.ascontiguousarray(sign, np.int64), np.ascontiguousarray(price, np.int64),
               np.ascontiguousarray(touch, np.int64), np.ascontiguousarray(around, np.int64), np.ascontiguousarray(horizon_ms, np.float64),
               PLAIN, SIGNED, PAIRED)
    return out


def order_row(act: Act) -> np.ndarray | None:
    """float32[COLUMNS] of an order; None where it comes without a placement, or the placement without a market."""
    p = act.placement
    if p is None or p.bid <= 0 or p.ask <= 0 or p.tick <= 0 or p.horizon_ms <= 0 or not 0 < act.price / p.tick < 2**53:
        return None
    row = np.frombuffer(p.features, np.float32)
    if len(row) != WIDTH:
        return None
    out = order_rows(row[None], np.array([1 if act.side == BUY else -1]), np.array([round(act.price / p.tick)]), np.array([[p.bid, p.ask]]),
                     np.array([[p.bid_lots, p.bid_depth, p.ask_lots, p.ask_depth, p.trades]]), np.array([p.horizon_ms]))[0]
    return out if np.isfinite(out).all() else None


def warm() -> None:
    """Compiles the kernels, or loads them from the cache."""
    bare = np.zeros(WIDTH, np.float32).tobytes()        # a row of bytes cannot be written: to the compiler another type than a fitted one
    order_row(Act("PLACE", "", BUY, 1.0, 1.0, placement=Placement(bare, 1, 2, 1.0, 1, 1, 1, 1, 1, 1000)))


def table() -> str:
    """The columns as a table in Markdown."""
    ways = {-1: "never up", 1: "never down", 0: ""}
    rows = (f"| `{f.name}` | {ways[f.way]} | {f.meaning} |" for f in DECLARED)
    return "\n".join(["| feature | p with it | meaning |", "|---|---|---|", *rows])
