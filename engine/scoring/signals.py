"""Frames in, candidates out: one engine a symbol, the same for live, replay and training."""
import struct
from typing import NamedTuple

import msgspec
import numpy as np

from engine.facts import BOOK, BUY, DEPTH, SELL, TRADE, Candidate, Frame, candidate_id, frame_of
from engine.scoring import kernel, regime
from engine.scoring.features import FEATURES, SCHEMA_HASH, config_hash
from engine.scoring.triggers import NAMES as CAUSES
from engine.scoring.triggers import barriers, parameters
from engine.settings import Instrument, Regimes, Triggers, Windows

HEADER = struct.Struct("<I")


class Columns(NamedTuple):
    """The candidates of a frame as columns of length m.

    `event` int64: index of the event in the frame; `side` int8: +1 buys, −1 sells; `entry`, `stop`, `target` float64 in quote
    currency; `regime` uint8: code of `regime.NAMES`; `features` float32[m, F] in the order of `FEATURES`; `trigger` uint8: code of
    `triggers.NAMES`; `ts_ms` int64; `ticks` int64[m, 3]: entry, stop, target in ticks; `around` int64[m, 5]: `Candidate.bid_lots` to
    `Candidate.trades`.
    """
    event: np.ndarray
    side: np.ndarray
    entry: np.ndarray
    stop: np.ndarray
    target: np.ndarray
    regime: np.ndarray
    features: np.ndarray
    trigger: np.ndarray
    ts_ms: np.ndarray
    ticks: np.ndarray
    around: np.ndarray


def _nothing(dtype, *shape: int) -> np.ndarray:
    a = np.empty((0, *shape), dtype)
    a.flags.writeable = False
    return a


NONE = Columns(_nothing(np.int64), _nothing(np.int8), _nothing(np.float64), _nothing(np.float64), _nothing(np.float64), _nothing(np.uint8),
               _nothing(np.float32, len(FEATURES)), _nothing(np.uint8), _nothing(np.int64), _nothing(np.int64, 3), _nothing(np.int64, 5))


class _Head(msgspec.Struct, array_like=True):
    symbol: str
    session: str
    schema_hash: str
    config_hash: str


def decimals(tick: float) -> int:
    """Decimal places of a tick size.

    >>> decimals(0.01), decimals(0.25), decimals(5.0)
    (2, 2, 0)
    """
    return next((d for d in range(12) if round(tick, d) == tick), 12)


class SignalEngine:
    """Folds the frames of one symbol and proposes candidates. A frame of another session starts it anew.

    `near` levels of a side count as its depth at hand (`gates.liquidity_by_side.levels`).
    """

    def __init__(self, symbol: str, instrument: Instrument, windows: Windows, triggers: Triggers, regimes: Regimes, near: int = 3):
        self.symbol, self.tick = symbol, instrument.tick
        self._decimals = decimals(instrument.tick)
        self._config = config_hash(windows, triggers, regimes)
        widths = [max(w // kernel.BUCKETS, 1) for w in (windows.fast_ms, windows.slow_ms, windows.sigma_ms, windows.spike_ms)]
        self._widths = np.array([*widths, windows.fast_ms, triggers.cooldown_ms, triggers.warm_events, windows.gap_ms, near], np.int64)
        self._limits = np.array([triggers.imbalance, triggers.ofi_z])
        self._barriers = parameters(triggers, instrument)
        self._regimes = regime.parameters(regimes)
        self._room(256)
        self._begin("")

    def _begin(self, session: str) -> None:
        self.session = session
        self._state = kernel.empty()
        self._regime_state = regime.empty()

    def _room(self, n: int) -> None:
        self._capacity = n
        self._codes = np.empty(n, np.uint8)
        m = 2 * n
        self._out = (np.empty(m, np.int64), np.empty(m, np.int64), np.empty(m, np.int8), np.empty(m, np.uint8), np.empty((m, 2), np.int64),
                     np.empty(m), np.empty((m, len(FEATURES)), np.float32), np.empty((m, 5), np.int64))

    def columns(self, frame: Frame) -> Columns:
        """The frame's candidates as columns. `ValueError` for another symbol, or ticks that are not the instrument's."""
        if frame.symbol != self.symbol or frame.tick != self.tick:
            raise ValueError(f"frame of {frame.symbol} in ticks of {frame.tick}: expected {self.symbol} in ticks of {self.tick}")
        if frame.session != self.session:
            self._begin(frame.session)
        times, kinds, books, trades = frame.times, frame.kinds, frame.book_rows, frame.trade_rows
        if len(times) > self._capacity:
            self._room(2 * len(times))
        regime.fold(times, kinds, books, self._regimes, self._regime_state, self._codes)
        m = kernel.fold(times, kinds, books, trades, self._codes, self._limits, self._widths, *(self._state + self._out))
        if not m:
            return NONE
        events, when, sides, causes, touches, sigmas, rows, around = (a[:m] for a in self._out)
        ticks = np.empty((m, 3), np.int64)
        barriers(sides, touches, sigmas, self._barriers, ticks)
        prices = np.round(ticks * self.tick, self._decimals)
        events = events.copy()
        return Columns(events, sides.copy(), prices[:, 0], prices[:, 1], prices[:, 2], self._codes[events], rows.copy(),
                       causes.copy(), when.copy(), ticks, around.copy())

    def on(self, frame: Frame) -> list[Candidate]:
        """The frame's candidates as facts, in order of time."""
        c = self.columns(frame)
        if not len(c.event):
            return []
        blob, width = c.features.tobytes(), 4 * len(FEATURES)
        found = []
        for k, (event, way, entry, stop, target, code, cause, ts, around) in enumerate(zip(
                c.event.tolist(), c.side.tolist(), c.entry.tolist(), c.stop.tolist(), c.target.tolist(), c.regime.tolist(),
                c.trigger.tolist(), c.ts_ms.tolist(), c.around.tolist(), strict=True)):
            side = BUY if way > 0 else SELL
            found.append(Candidate(candidate_id(self.symbol, self.session, ts, side), self.symbol, ts, side, entry, stop, target,
                                   regime.NAMES[code], CAUSES[cause], SCHEMA_HASH, blob[k * width:(k + 1) * width],
                                   frame.seq + event, *around))
        return found

    def snapshot(self) -> bytes:
        """The whole state; `restore` of it goes on as if nothing had happened."""
        head = msgspec.msgpack.encode(_Head(self.symbol, self.session, SCHEMA_HASH, self._config))
        return HEADER.pack(len(head)) + head + b"".join(a.tobytes() for a in (*self._state, self._regime_state))

    def restore(self, blob: bytes) -> None:
        """Takes a snapshot's place; `ValueError` for one of another symbol, schema or configuration, or of another length."""
        size = HEADER.unpack_from(blob)[0]
        at = HEADER.size + size
        head = msgspec.msgpack.decode(blob[HEADER.size:at], type=_Head)
        mine = (self.symbol, SCHEMA_HASH, self._config)
        if (head.symbol, head.schema_hash, head.config_hash) != mine:
            raise ValueError(f"snapshot of {head.symbol}, schema {head.schema_hash[:12]}, configuration {head.config_hash[:12]}: "
                             f"expected {mine[0]}, {mine[1][:12]}, {mine[2][:12]}")
        state = [*kernel.empty(), regime.empty()]
        if len(blob) - at != sum(a.nbytes for a in state):
            raise ValueError(f"snapshot of {head.symbol}: {len(blob) - at} bytes of state, {sum(a.nbytes for a in state)} expected")
        for a in state:
            a[...] = np.frombuffer(blob, a.dtype, a.size, at).reshape(a.shape)
            at += a.nbytes
        self.session, self._state, self._regime_state = head.session, tuple(state[:-1]), state[-1]


def warm() -> None:
    """Compiles the kernels, or loads them from the cache: at install, and before a service's first frame."""
    books = np.zeros((3, 4, DEPTH), np.int32)
    books[:, :, 0] = 100, 9, 101, 1
    frame = frame_of("WARM", "", 0, 1.0, 1.0, [1, 2, 3, 4], [BOOK, TRADE, BOOK, BOOK], books, [[100, 1, -1]])
    SignalEngine("WARM", Instrument(1.0, 1.0, 0, 0, 0, 0, 0), Windows(10, 100, 600, 50, 100), Triggers(0.1, 1.0, 1, 1, 1.0, 1.0, 0.0),
                 Regimes(1000, 1.0, 2.0)).on(frame)
