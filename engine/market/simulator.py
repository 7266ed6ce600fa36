"""A seeded limit order book market: top-10 books and trades that behave like the recorded ones (see `docs/market.md`).

The market is a pure function of (seed, symbol, model, start): how much is asked for at a time changes nothing, because events are
made in blocks of a fixed size and handed out from them. A snapshot is the state before the block and the place within it.
"""
from hashlib import sha256
from math import sqrt
from statistics import NormalDist

import msgspec
import numpy as np

from engine import settings
from engine.facts import BOOK, DEPTH, Frame, frame_of
from engine.market import generator as g

BLOCK = 4096           # events made at a time
ROOM = 64              # places that one step may need
REGIMES = ("calm", "event", "high_vol")


class Stand(msgspec.Struct, array_like=True):
    """What a snapshot holds: the state before the current block and how much of the block is handed out."""
    symbol: str
    fingerprint: str
    session: str
    start_ms: int
    state: bytes
    bits: bytes
    seq: int
    given: int


class Simulator:
    """One symbol's market. Times are ms of market time from `start_ms` on; frames are numbered within `session`."""

    def __init__(self, symbol: str, instrument: settings.Instrument, model: settings.MarketModel, seed: int, start_ms: int, session: str):
        self.symbol, self.instrument, self.start_ms, self.session = symbol, instrument, start_ms, session
        told = msgspec.json.encode((seed, symbol, instrument.tick, instrument.lot, model), order="deterministic")
        self.fingerprint = sha256(told).hexdigest()
        self.parameters, self.tables = parameters(instrument, model), quantile_tables(instrument, model)
        # the seed and the symbol choose the stream: splitmix64 may start anywhere
        root = np.random.SeedSequence([seed & 0xFFFFFFFFFFFFFFFF, *symbol.encode()])
        self.bits = root.generate_state(1, np.uint64)
        self.state = opening(instrument, model, self.parameters, self.tables, self.bits)
        self.seq = self.given = self.made = 0                # seq: events before the current block
        self.ts, self.kind = np.zeros(BLOCK, np.int64), np.zeros(BLOCK, np.uint8)
        self.books, self.trades = np.zeros((BLOCK, 4, DEPTH), np.int32), np.zeros((BLOCK, 3), np.int32)
        self.books_before = np.zeros(BLOCK + 1, np.int64)
        self._generate()

    @property
    def now_ms(self) -> int:
        """Market time of the next event."""
        if self.given == self.made:
            self._generate()
        return self.start_ms + int(self.ts[self.given])

    @property
    def regime(self) -> str:
        """The regime at the end of the current block: what no participant sees."""
        return REGIMES[int(self.state[g.REGIME])]

    def frame(self, upto_ms: int, max_events: int) -> Frame | None:
        """The next events of a time up to `upto_ms`, at most `max_events`; None if there are none yet."""
        ts, kinds, books, trades, wanted = [], [], [], [], max_events
        first = self.seq + self.given
        while wanted > 0 and self.now_ms <= upto_ms:
            a = self.given
            b = min(self.made, a + wanted)
            if self.ts[b - 1] > upto_ms - self.start_ms:
                b = int(np.searchsorted(self.ts[:b], upto_ms - self.start_ms, "right"))
            b0, b1 = int(self.books_before[a]), int(self.books_before[b])
            last = wanted == b - a or b < self.made
            keep = (lambda x: x) if last else np.copy         # the block is written over before the frame is packed
            ts.append(self.ts[a:b] + self.start_ms)
            kinds.append(keep(self.kind[a:b]))
            books.append(keep(self.books[b0:b1]))
            trades.append(keep(self.trades[a - b0:b - b1]))
            wanted -= b - a
            self.given = b
            if last:
                break
        if not ts:
            return None
        def column(pieces: list[np.ndarray]) -> np.ndarray:
            return pieces[0] if len(pieces) == 1 else np.concatenate(pieces)
        return frame_of(self.symbol, self.session, first, self.instrument.tick, self.instrument.lot, column(ts), column(kinds),
                        column(books), column(trades))

    def snapshot(self) -> bytes:
        """All that `restore` needs to continue exactly here."""
        state, bits = self.before
        return msgspec.msgpack.encode(Stand(self.symbol, self.fingerprint, self.session, self.start_ms, state, bits, self.seq, self.given))

    def restore(self, blob: bytes) -> None:
        """Becomes what `snapshot` saw; `ValueError` where symbol, seed or model are others. Session and start are the snapshot's."""
        stand = msgspec.msgpack.decode(blob, type=Stand)
        if (stand.symbol, stand.fingerprint) != (self.symbol, self.fingerprint):
            raise ValueError(f"{self.symbol}: the snapshot is of {stand.symbol}, or of another seed or model")
        self.session, self.start_ms = stand.session, stand.start_ms
        self.state, self.bits = np.frombuffer(stand.state, np.float64).copy(), np.frombuffer(stand.bits, np.uint64).copy()
        self.seq, self.given, self.made = stand.seq, 0, 0
        self._generate()
        self.given = stand.given

    def _generate(self) -> None:
        self.seq += self.made
        self.before = self.state.tobytes(), self.bits.tobytes()
        self.made, _ = g.generate(self.state, self.bits, self.parameters, self.tables, self.ts, self.kind, self.books, self.trades, ROOM)
        np.cumsum(self.kind[:self.made] == BOOK, out=self.books_before[1:self.made + 1])
        self.given = 0


def lognormal(median: float, spread: float) -> np.ndarray:
    """Quantiles of a lognormal, in equal steps of probability."""
    return median * np.exp(spread * NORMALS)


NORMALS = np.array([NormalDist().inv_cdf((i + 0.5) / g.CELLS) for i in range(g.CELLS)])


def quantile_tables(instrument: settings.Instrument, model: settings.MarketModel) -> np.ndarray:
    """float64[4, CELLS]: standard normal, and the sizes in lots at the touch, behind it, and of trade prints."""
    lots = 1000.0 / (model.start_price * instrument.lot)          # of a thousand USD
    return np.stack([NORMALS, lognormal(model.touch_kusd * lots, model.touch_spread), lognormal(model.deep_kusd * lots, model.deep_spread),
                     np.maximum(1.0, lognormal(model.trade_kusd * lots, model.trade_spread))])


def parameters(instrument: settings.Instrument, model: settings.MarketModel) -> np.ndarray:
    """The model in ticks, lots and seconds, as the generator reads it.

    The long-run variance is `sigma_bps_hour`²: what drift, jumps and impact add is taken from the innovations.
    """
    bps = model.start_price * 1e-4 / instrument.tick              # ticks of a basis point
    added = 1.0 + 2.0 * model.drift**2 * model.alpha_tau_s + 2.0 * model.jumps_s * model.jump_sigmas**2
    p = np.zeros(g.PARAMETERS)
    p[:g.REGIMES] = (
        model.books_s, model.orders_s, model.vol_fast_tau_s, model.vol_slow_tau_s, model.vol_fast, model.vol_slow, model.alpha_tau_s,
        model.drift, model.tilt, model.jumps_s, model.jump_sigmas, sqrt(1.0 / model.books_s), model.sticky_bps * bps,
        model.spread_ticks, model.spread_sigmas, model.follow, model.snipe, model.lean, model.persist, model.excite, model.heat_tau_s,
        model.prints - 1.0, model.occupied, model.growth, model.refresh, model.impact, model.toxicity)
    for i, (sigma, stays, busy) in enumerate(zip(model.sigma_bps_hour, model.sojourn_s, model.activity)):
        row = model.transitions[i]
        p[g.REGIMES + i * g.REGIME_WIDTH:g.REGIMES + (i + 1) * g.REGIME_WIDTH] = (
            sigma * bps / 60.0 / sqrt(added), 1.0 / stays, busy, row[0], row[0] + row[1])
    return p


def opening(instrument: settings.Instrument, model: settings.MarketModel, p: np.ndarray, tables: np.ndarray,
            bits: np.ndarray) -> np.ndarray:
    """The state at the start: one tick wide, a full book, in the model's opening regime."""
    s = np.zeros(g.WIDTH)
    s[g.REGIME] = REGIMES.index(model.opening)
    s[g.BID] = round(model.start_price / instrument.tick)
    s[g.ASK] = s[g.BID] + 1
    s[g.PRICE] = s[g.BID] + 0.5
    for side in range(2):
        for k in range(g.LEVELS):
            s[g.SIZES + side * g.LEVELS + k] = g.level_size(p, tables, bits, k, 1.0)
    return s
