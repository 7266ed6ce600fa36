"""Cleaning of market data: what is refused, what is repaired, and how many, by reason.

Importers and the live collector hand raw events of one symbol in the order in which they came; `Cleaner.clean` gives
back what may be traded on. Nothing is dropped silently, and the result depends on the events, never on the chunks in
which they came. Order is by exchange time alone: the recorder's clock is measured against it, never used.
"""
from dataclasses import dataclass, field
from fractions import Fraction
from itertools import pairwise
from typing import NamedTuple

import msgspec
import numpy as np

from engine.facts import BOOK, DEPTH, Frame, cut, frame_of
from engine.market import sieve
from engine.metrics import BAD_TICKS, REPAIRS
from engine.settings import Instrument

BEYOND = 2**62                      # a number of ticks that no int32 holds: refused as overflow
WITHIN = 1e-4                       # of a step: nearer to the grid than this is float noise, not off the grid
BID, ASK = 0, 2                     # rows of a book's prices; its sizes are one below


class Raw(NamedTuple):
    """Events as they came, in units: `ts` int64[n] exchange time (ms), `kind` uint8[n], `books` int64[b, 4, DEPTH] as in
    `Frame`, `trades` int64[t, 3] with aggressor 0 where the venue does not say.

    `ids` int64[t]: trade ids, 0 for none; `received` int64[n]: the recorder's clock (ms), 0 for unknown; `bad` uint8[n]:
    `code(reason)` of what the border found already, else 0; `off` uint8[n]: OFF_TICK | OFF_LOT where it had to round.
    """
    ts: np.ndarray
    kind: np.ndarray
    books: np.ndarray
    trades: np.ndarray
    ids: np.ndarray | None = None
    received: np.ndarray | None = None
    bad: np.ndarray | None = None
    off: np.ndarray | None = None


class Columns(NamedTuple):
    """Clean events: `ts` int64[n], `kind` uint8[n], `books` int32[b, 4, DEPTH], `trades` int32[t, 3] with aggressor ±1.

    `at` int64[n]: which of the events that came each one was.
    """
    ts: np.ndarray
    kind: np.ndarray
    books: np.ndarray
    trades: np.ndarray
    at: np.ndarray


@dataclass(frozen=True)
class Counts:
    """What became of events: taken, `refused` by BAD_TICKS, `repaired` by REPAIRS (a repaired event is taken), and the
    holes in exchange time and in the venue's numbers."""
    books: int = 0
    trades: int = 0
    refused: dict[str, int] = field(default_factory=dict)
    repaired: dict[str, int] = field(default_factory=dict)
    gaps: int = 0
    longest_gap_ms: int = 0
    longest_gap_at_ms: int = 0

    def __add__(self, other: "Counts") -> "Counts":
        def both(a: dict[str, int], b: dict[str, int]) -> dict[str, int]:
            return {k: a.get(k, 0) + b.get(k, 0) for k in (*BAD_TICKS, *REPAIRS) if a.get(k, 0) + b.get(k, 0)}
        longest = max(self, other, key=lambda c: c.longest_gap_ms)
        return Counts(self.books + other.books, self.trades + other.trades, both(self.refused, other.refused),
                      both(self.repaired, other.repaired), self.gaps + other.gaps, longest.longest_gap_ms, longest.longest_gap_at_ms)


def code(reason: str) -> int:
    """A refusal's number in `Raw.bad`.

    >>> BAD_TICKS[code("not_a_trade") - 1]
    'not_a_trade'
    """
    return BAD_TICKS.index(reason) + 1


class Cleaner:
    """One symbol's events, cleaned in the order in which they come."""

    def __init__(self, symbol: str, instrument: Instrument, off_market_bps: float, gap_ms: int, clock_skew_ms: int):
        self.symbol, self.instrument = symbol, instrument
        self.limits = (float(off_market_bps), int(gap_ms), int(clock_skew_ms))
        self.state = np.zeros(sieve.STATE, np.int64)
        self.last_book = np.zeros((4, DEPTH), np.int64)
        self.ids = np.zeros(sieve.REMEMBERED, np.int64)
        self.total = Counts()

    def clean(self, raw: Raw) -> tuple[Columns, Counts]:
        """What may be traded on, and what became of the rest; `total` adds the counts up."""
        n, b, t = len(raw.ts), len(raw.books), len(raw.trades)
        if len(raw.kind) != n or b + t != n or int(np.count_nonzero(np.asarray(raw.kind) == BOOK)) != b:
            raise ValueError(f"{self.symbol}: {n} times, {len(raw.kind)} kinds, {b} books and {t} trades do not agree")
        ts, books, trades = np.empty(n, np.int64), np.empty((b, 4, DEPTH), np.int32), np.empty((t, 3), np.int32)
        kind, at, taken = np.empty(n, np.uint8), np.empty(n, np.int64), np.zeros(2, np.int64)
        refused, repaired, gaps = np.zeros(len(BAD_TICKS), np.int64), np.zeros(len(REPAIRS), np.int64), np.zeros(3, np.int64)
        sieve.sift(plain(raw.ts, np.int64, n), plain(raw.kind, np.uint8, n), plain(raw.books, np.int64, (b, 4, DEPTH)),
                   plain(raw.trades, np.int64, (t, 3)), plain(raw.ids, np.int64, t), plain(raw.received, np.int64, n),
                   plain(raw.bad, np.uint8, n), plain(raw.off, np.uint8, n), *self.limits, self.state, self.last_book, self.ids,
                   ts, kind, books, trades, at, refused, repaired, gaps, taken)
        counts = Counts(int(taken[0]), int(taken[1]), named(BAD_TICKS, refused), named(REPAIRS, repaired), *map(int, gaps))
        self.total = self.total + counts
        n = int(taken.sum())
        return Columns(ts[:n], kind[:n], books[:taken[0]], trades[:taken[1]], at[:n]), counts

    def frame(self, columns: Columns, session: str, seq: int, sent_ms: float = 0.0) -> Frame:
        """Clean columns as a frame of this instrument, numbered through."""
        return frame_of(self.symbol, session, seq, self.instrument.tick, self.instrument.lot, *columns[:4], sent_ms)

    def frames(self, columns: Columns, session: str, seq: int, sent_ms: float = 0.0) -> list[Frame]:
        """Clean columns as frames in which every event has the number that it came with: a refused one leaves a hole between two."""
        whole = self.frame(columns, session, seq, sent_ms)
        edges = [0, *(np.flatnonzero(np.diff(columns.at) != 1) + 1).tolist(), whole.n] if whole.n else []
        return [msgspec.structs.replace(cut(whole, a, b), seq=seq + int(columns.at[a])) for a, b in pairwise(edges)]


def plain(values, dtype, shape) -> np.ndarray:
    """The kernel's one signature: writable, contiguous; zeros where the source does not say."""
    return np.zeros(shape, dtype) if values is None else np.require(values, dtype, ["C", "W"])


def named(names: tuple[str, ...], counts: np.ndarray) -> dict[str, int]:
    """The counts that are not zero, by name."""
    return {name: int(c) for name, c in zip(names, counts) if c}


def to_units(values: np.ndarray, from_step: float, step: float, way: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Integer multiples of `from_step` (or floats, `from_step` 1) as int64 multiples of `step`, and where they had to be
    rounded: `way` -1 down, 1 up, 0 to the nearest. What is not zero stays so, with its sign; NaN becomes 0.

    >>> to_units(np.array([941251]), 0.1, 0.01)[0]
    array([9412510])
    >>> to_units(np.array([100.07]), 1, 0.1, -1)
    (array([1000]), array([ True]))
    """
    ratio = Fraction(repr(float(from_step))) / Fraction(repr(float(step)))
    values = np.asarray(values)
    if values.dtype.kind in "iu" and ratio.denominator == 1:
        if values.size and int(np.abs(values).max()) > BEYOND // ratio.numerator:
            values = np.clip(values, -(BEYOND // ratio.numerator), BEYOND // ratio.numerator)
        return values.astype(np.int64) * ratio.numerator, np.zeros(values.shape, bool)
    exact = np.nan_to_num(values.astype(np.float64), nan=0.0, posinf=BEYOND, neginf=-BEYOND)
    exact = np.clip(exact * ratio.numerator / ratio.denominator, -BEYOND, BEYOND)
    near = np.rint(exact)
    off = np.abs(exact - near) > WITHIN
    if way:
        near = np.where(off, np.floor(exact) if way < 0 else np.ceil(exact), near)
    return np.where((near == 0) & (exact != 0), np.sign(exact), near).astype(np.int64), off


def book_units(levels: np.ndarray, price_step: float, size_step: float, instrument: Instrument):
    """Books [b, 4, DEPTH] in a source's steps (floats: steps of 1) → (int64 books in ticks and lots, `bad`, `off`).

    Prices off the grid are rounded away from the touch, so that no rounding ever crosses or locks a book.
    """
    out, off = np.empty(levels.shape, np.int64), np.zeros(len(levels), np.uint8)
    for row, way in ((BID, -1), (ASK, 1)):
        out[:, row], rounded = to_units(levels[:, row], price_step, instrument.tick, way)
        out[:, row + 1], cut = to_units(levels[:, row + 1], size_step, instrument.lot)
        off |= np.where(rounded.any(1), sieve.OFF_TICK, 0).astype(np.uint8) | np.where(cut.any(1), sieve.OFF_LOT, 0).astype(np.uint8)
    return out, unreal(levels), off


def trade_units(prices: np.ndarray, sizes: np.ndarray, aggressor, price_step: float, size_step: float, instrument: Instrument):
    """Prints in a source's steps (floats: steps of 1) → (int64[t, 3] in ticks and lots, `bad`, `off`); `aggressor` ±1, or 0."""
    out = np.empty((len(prices), 3), np.int64)
    out[:, 0], rounded = to_units(prices, price_step, instrument.tick)
    out[:, 1], cut = to_units(sizes, size_step, instrument.lot)
    out[:, 2] = aggressor
    return out, unreal(prices) | unreal(sizes), (rounded * sieve.OFF_TICK | cut * sieve.OFF_LOT).astype(np.uint8)


def orderly(ts: np.ndarray) -> np.ndarray:
    """Where each event of a stream stands in time: what came late, or at no possible time, stands where it came.

    >>> orderly(np.array([5, 7, 6, 10**18, 8]))
    array([5, 7, 7, 7, 8])
    """
    return np.maximum.accumulate(np.where((ts >= 0) & (ts < sieve.NO_TIME_MS), ts, 0)) if len(ts) else np.asarray(ts, np.int64)


def unreal(values: np.ndarray) -> np.ndarray:
    """uint8[n]: `code("non_finite")` where any number of the row is NaN or infinite, else 0."""
    values = np.asarray(values)
    if values.dtype.kind != "f" or not len(values):
        return np.zeros(len(values), np.uint8)
    wrong = ~np.isfinite(values.reshape(len(values), -1)).all(1)
    return np.where(wrong, code("non_finite"), 0).astype(np.uint8)
