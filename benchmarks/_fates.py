"""FillModelV1 against the true fate of orders in order-level recordings."""
from pathlib import Path
from typing import NamedTuple

import msgspec
import numpy as np

from config.settings import Settings
from engine.fillprob import virtual
from engine.fillprob.evaluation_v1 import auc, kaplan_meier
from engine.fillprob.model_v0 import ALL_BPS
from engine.fillprob.model_v1 import FillModelV1
from engine.fillprob.order_features import order_rows
from engine.scoring.labels import stream_of
from engine.scoring.signals import SignalEngine
from engine.settings import Instrument
from store import level3

HORIZONS_MS = (8_000, 20_000, 60_000)
WITHIN_BPS = 50.0       # from the own touch: further away are orders that nobody means to have filled soon
TENTHS = 10


class Known(NamedTuple):
    """Real orders of a recording whose features are known: `seen_ms` until its first fill, else until its end or the recording's."""
    name: str
    rows_at: dict[int, np.ndarray]
    seen_ms: np.ndarray
    filled: np.ndarray
    twin_filled: np.ndarray        # whether a virtual order at its price and time, taken back when it was, is filled
    life_rows: np.ndarray          # features with the order's own life as its horizon


def known(folder: Path, name: str, settings: Settings) -> Known:
    """The orders near the touch, with what a desk would have known when they came."""
    frame, orders = level3.read(folder, name)
    instrument = Instrument(frame.tick, frame.lot, frame.lot, 0.0, 0.0, 0.0, 0.0)
    always = msgspec.structs.replace(settings.triggers, imbalance=0.0, ofi_z=1e9, cooldown_ms=0)
    found = SignalEngine(frame.symbol, instrument, settings.windows, always, settings.regimes,
                         settings.gates.liquidity_by_side.levels).columns(frame)
    row = np.searchsorted(found.event, orders.event, side="right") - 1
    fresh = (row >= 0) & (orders.start_ms - found.ts_ms[row] <= settings.windows.gap_ms)
    stream = stream_of([frame])
    book = stream.books[np.maximum(stream.book_at[np.maximum(orders.event, 0)], 0)]
    touch = np.stack([book[:, 0, 0], book[:, 2, 0]], 1).astype(np.int64)
    own = np.where(orders.side > 0, touch[:, 0], touch[:, 1])
    near = (touch > 0).all(1) & (np.abs(own - orders.price) * 1e4 <= WITHIN_BPS * own)
    end = np.where(orders.gone_ms >= 0, orders.gone_ms, frame.times[-1])
    seen = np.where(orders.filled_ms >= 0, orders.filled_ms, end) - orders.start_ms
    life = end - orders.start_ms
    keep = fresh & near & (seen > 0)
    event, side, price, lots = (a[keep] for a in (orders.event, orders.side, orders.price, orders.lots))
    rules = msgspec.structs.replace(settings.matching, latency_ms=0)
    twin = virtual.fates(stream, event, side, price, lots, end[keep] - stream.ts[event], rules)      # from the event before it on

    def rows(horizon_ms: np.ndarray) -> np.ndarray:
        at = row[keep]
        return order_rows(found.features[at], side, price, touch[keep], found.around[at], horizon_ms)
    at_horizons = {ms: rows(np.full(len(side), ms)) for ms in HORIZONS_MS}
    return Known(name, at_horizons, seen[keep], orders.filled_ms[keep] >= 0, twin.first_ms >= 0,
                 rows(np.clip(life[keep], 1000, 60_000)))


def report(orders: Known, model: FillModelV1) -> list[str]:
    """Tables: tenths by what was said, with Kaplan and Meier's rate; expected fills over the orders' own lives; the queue against truth."""
    out = [f"{orders.name}: {len(orders.filled):,} real orders within {WITHIN_BPS:g} bps of the touch, {int(orders.filled.sum())} filled"]
    for ms, rows in orders.rows_at.items():
        p = model.bps(rows) / ALL_BPS
        out.append(f"  within {ms / 1000:g} s (orders taken back count until then): said, Kaplan-Meier ± error, orders, fills seen")
        order = np.argsort(p, kind="stable")
        for part in np.array_split(order, TENTHS):
            rate, error = kaplan_meier(orders.seen_ms[part], orders.filled[part], ms)
            fills = int((orders.filled[part] & (orders.seen_ms[part] <= ms)).sum())
            out.append(f"    {p[part].mean():.3f}   {rate:.3f} ± {error:.3f}   {len(part):,}   {fills}")
        rate, error = kaplan_meier(orders.seen_ms, orders.filled, ms)
        hit = orders.filled & (orders.seen_ms <= ms)
        clear = hit | (orders.seen_ms > ms)
        out.append(f"    all: said {p.mean():.4f}, seen {rate:.4f} ± {error:.4f}; AUC {auc(p[clear], hit[clear]):.3f} of the "
                   f"{int(clear.sum()):,} whose fate by then is known ({int(hit.sum())} filled)")
    lived = orders.seen_ms >= 1000
    expected = model.bps(orders.life_rows[lived]) / ALL_BPS
    real = orders.filled[lived] & (orders.seen_ms[lived] <= 60_000)
    out.append(f"  over their own lives of at least 1 s (at most 60 s of each): expected {expected.sum():.1f} fills, seen "
               f"{int(real.sum())} of {int(lived.sum()):,}; AUC {auc(expected, real):.3f}")
    both, twin, true = (int(a.sum()) for a in (orders.twin_filled & orders.filled, orders.twin_filled, orders.filled))
    out.append(f"  the paper venue's queue in their places: {twin} filled, of which {both} truly; {true} truly filled")
    return out
