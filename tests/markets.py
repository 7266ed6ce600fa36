"""Small made markets for tests of the signal path: seeded, rough on purpose."""
from pathlib import Path

import msgspec
import numpy as np

from engine.facts import BOOK, DEPTH, TRADE, Frame, frame_of
from engine.scoring.signals import SignalEngine
from engine.settings import Instrument, Regimes, Triggers, Windows

WINDOWS = Windows(fast_ms=320, slow_ms=1600, sigma_ms=6400, spike_ms=960, gap_ms=3000)
TRIGGERS = Triggers(imbalance=0.3, ofi_z=1.5, cooldown_ms=40, warm_events=5, target_bps=2.5, stop_bps=8.0, sigma_multiple=0.5)
REGIMES = Regimes(window_ms=6000, event_bps=5.0, high_vol_bps=9.0)
INSTRUMENT = Instrument(tick=0.1, lot=0.001, min_qty=0.001, min_notional_usd=5, maker_fee=0.0, taker_fee=0.0, maintenance_margin_rate=0.0)


def engine(**changes) -> SignalEngine:
    """An engine with short windows; keywords change the triggers."""
    return SignalEngine("BTCUSDT", INSTRUMENT, WINDOWS, msgspec.structs.replace(TRIGGERS, **changes), REGIMES)


def market(seed: int, n: int = 400, pace_ms: float = 25.0, rough: bool = True, session: str = "s1") -> Frame:
    """Books and trades on a random walk; `rough`: also locked and one-sided books, absent levels, bursts and gaps."""
    rng = np.random.default_rng(seed)
    steps = rng.exponential(pace_ms, n).astype(np.int64)
    if rough:
        steps[rng.random(n) < 0.3] = 0
        steps[rng.random(n) < 0.01] = 1200
        steps[rng.random(n) < 0.004] = 3500
    ts = 1_767_600_000_000 + int(rng.integers(0, 10_000)) + np.cumsum(steps)
    kind = np.where(rng.random(n) < 0.35, TRADE, BOOK)
    count = int((kind == BOOK).sum())
    bid = 600_000 + np.cumsum(rng.integers(-60, 61, count) * (rng.random(count) < 0.4))
    ask = bid + rng.integers(0 if rough else 1, 30, count)
    books = np.zeros((count, 4, DEPTH), np.int32)
    gaps = np.concatenate([np.zeros((count, 1), np.int64), np.cumsum(rng.integers(1, 20, (count, DEPTH - 1)), 1)], 1)
    books[:, 0], books[:, 2] = bid[:, None] - gaps, ask[:, None] + gaps
    lean = rng.normal(0, 1, (count, 1))
    books[:, 1], books[:, 3] = np.exp(rng.normal(4 + lean, 1, (count, DEPTH))) + 1, np.exp(rng.normal(4 - lean, 1, (count, DEPTH))) + 1
    if rough:
        short = rng.random(count) < 0.1
        books[short, :, 4:] = 0
        books[rng.random(count) < 0.02, 2:4] = 0
        books[rng.random(count) < 0.02, 0:2, 1:] = 0
    trades = np.stack([600_000 + rng.integers(-500, 500, n - count), 1 + rng.geometric(0.02, n - count), rng.choice([-1, 1], n - count)], 1)
    return frame_of("BTCUSDT", session, 0, 0.1, 0.001, ts, kind, books, trades)


def standx(folder: Path, day: str) -> Frame:
    """A recorded day of BTC-USD on StandX in ticks of 0.01; aggressors by the quote rule, the feed has none."""
    import pandas
    book = pandas.read_parquet(folder / "standx" / f"BTCUSD_book10_{day}.parquet")
    trades = pandas.read_parquet(folder / "standx" / f"BTCUSD_trades_{day}.parquet")
    names = [[f"{side}_{what}_{k}" for k in range(DEPTH)] for side in ("bid", "ask") for what in ("px", "qty")]
    books = np.stack([book[columns].to_numpy(np.int32) for columns in names], 1)
    books[:, [0, 2]] *= 10                  # the feed rounds book prices to 0.1
    at, when = book.ts_exch_ms.to_numpy(), trades.ts_exch_ms.to_numpy()
    before = np.maximum(np.searchsorted(at, when, side="right") - 1, 0)
    way = np.where(2 * trades.px.to_numpy() >= books[before, 0, 0] + books[before, 2, 0], 1, -1)
    prints = np.stack([trades.px.to_numpy(), trades.qty.to_numpy(), way], 1)
    ts, kind = np.concatenate([at, when]), np.repeat([BOOK, TRADE], [len(at), len(when)])
    order = np.lexsort((kind, ts))
    return frame_of("BTCUSD", "r1", 0, 0.01, 0.0001, ts[order], kind[order], books, prints)
