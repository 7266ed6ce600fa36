"""What would have become of each candidate: triple barrier net of fees, conditional on the paper venue's fill.

One lot is entered post-only at the candidate's price, with the venue's latency and queue, and taken back after
`fill_within_ms`; once filled, a maker order rests at the target, and the first book at the stop or past the horizon closes at
the touch instead: the Desk's own exits, order by order. So a label is what the Desk on this venue would have met, adverse
selection included, and not where a mid price went. The queue is the venue's own kernel (`engine.execution.queue`).

Barriers after López de Prado, *Advances in Financial Machine Learning* (2018), ch. 3; purge and embargo, ch. 7.
"""
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from numba import njit

from engine.execution.queue import FAR, crosses, scan, visible_at
from engine.facts import BOOK, DEPTH, TRADE, Frame, frame_of, join
from engine.settings import Instrument, Labels, Matching

UNFINISHED, CROSSED, UNFILLED, TARGET, STOP, TIME = range(6)
KINDS = ("unfinished", "crossed", "unfilled", "target", "stop", "time")
MARKOUTS_MS = (100, 500, 1000)
PURGED, TRAIN, CALIBRATE, TEST = -1, 0, 1, 2


class Stream(NamedTuple):
    """One symbol's events as flat columns; `book_at[i]` is the row of the last book at or before event i, -1 before the first."""
    ts: np.ndarray
    kind: np.ndarray
    books: np.ndarray
    trades: np.ndarray
    book_at: np.ndarray


class Outcomes(NamedTuple):
    """One row a candidate. `kind` indexes KINDS; `y` 1 iff the target was filled before the stop or the horizon asked to close.

    `net_bps` after fees, of the entry price, NaN where nothing was entered; `markouts` float32[m, 3], bps by which the mid had
    moved our way 100, 500 and 1000 ms after the fill; `fill_ms` from candidate to fill, -1 without one; `end_ms` the market
    time at which the outcome was known.
    """
    kind: np.ndarray
    y: np.ndarray
    net_bps: np.ndarray
    markouts: np.ndarray
    fill_ms: np.ndarray
    end_ms: np.ndarray

    @property
    def filled(self) -> np.ndarray:
        """bool[m]: entered, and closed within the data."""
        return self.kind >= TARGET


def stream_of(frames: list[Frame]) -> Stream:
    """Frames that follow each other as one stream."""
    whole = join(frames)
    return Stream(whole.times.copy(), whole.kinds.copy(), whole.book_rows.copy(), whole.trade_rows.copy(),
                  np.cumsum(whole.kinds == BOOK) - 1)


def label(stream: Stream, event: np.ndarray, sign: np.ndarray, entry: np.ndarray, stop: np.ndarray, target: np.ndarray,
          instrument: Instrument, rules: Matching, labels: Labels) -> Outcomes:
    """Outcomes of m candidates: int event index, int sign (+1 buys), and int ticks of entry, stop and target each [m]."""
    m = len(event)
    out = Outcomes(np.zeros(m, np.int8), np.zeros(m, np.int8), np.full(m, np.nan), np.full((m, len(MARKOUTS_MS)), np.nan, np.float32),
                   np.full(m, -1, np.int64), np.zeros(m, np.int64))
    events, signs, entries, stops, targets = (np.ascontiguousarray(a, np.int64) for a in (event, sign, entry, stop, target))
    _label(stream.ts, stream.kind, stream.books, stream.trades, stream.book_at, events, signs, entries, stops, targets,
           rules.latency_ms, rules.queue_ahead, rules.through_fills, labels.fill_within_ms, labels.horizon_ms, instrument.maker_fee,
           instrument.taker_fee, np.array(MARKOUTS_MS, np.int64), out.kind, out.y, out.net_bps, out.markouts, out.fill_ms, out.end_ms)
    return out


@njit(cache=True)
def _after(ts, at, time):
    """The first event later than `time`, from `at` on."""
    return at + np.searchsorted(ts[at:], time, side="right")


@njit(cache=True)
def _rest(ts, kind, books, trades, book_at, first, until_ms, side, price, queue, through):
    """The event, from `first` on and not later than `until_ms`, that fills a lot resting at `price`; -1 where none does.

    -2 where the stream ends before that is known. The lot joins the book before `first`, behind `queue` of what is visible.
    """
    seen = visible_at(books[book_at[first - 1]], side, price)
    own = np.empty((1, 4), np.int64)
    own[0, 0], own[0, 1], own[0, 2] = side, price, 1
    own[0, 3] = (FAR if queue > 0 else 0) if seen == FAR else int(np.ceil(queue * seen))
    last = _after(ts, first, until_ms)
    book = book_at[first - 1] + 1
    at = scan(own, np.zeros(1, np.int64), kind, books, trades, first, last, book, first - book, through)
    if at < last:
        return at
    return -2 if last == len(ts) else -1


@njit(cache=True)
def _label(ts, kind, books, trades, book_at, event, signs, entries, stops, targets, latency, queue, through, fill_within, horizon,
           maker, taker, markouts_ms, kinds, y, net, markouts, fill_ms, end_ms):
    """`label`'s kernel: writes the last six arrays. Times follow the Desk: each order and each cancel takes one latency."""
    events = len(ts)
    for k in range(len(event)):
        i, sign, entry = event[k], signs[k], entries[k]
        start = ts[i]
        own = 0 if sign > 0 else 2
        end_ms[k] = ts[events - 1]
        # the entry arrives
        j = _after(ts, i, start + latency)
        if j >= events or book_at[j - 1] < 0:
            continue
        book = books[book_at[j - 1]]
        if crosses(book, sign, entry):
            kinds[k], end_ms[k] = CROSSED, start + latency
            continue
        # until the first book past its time to live, and the cancel's way
        asked = _first_book(ts, kind, i, start + fill_within)
        until = ts[asked] + latency if asked < events else ts[events - 1] + 1
        at = _rest(ts, kind, books, trades, book_at, j, until, sign, entry, queue, through)
        if at == -1:
            kinds[k], end_ms[k] = UNFILLED, until
        if at < 0:
            continue
        filled = ts[at]
        # the book that asks to close
        due, cause = _after(ts, at, filled), TIME
        while due < events:
            if kind[due] == 0:
                touch = books[book_at[due], own, 0]
                if touch > 0 and sign * (touch - stops[k]) <= 0:
                    cause = STOP
                    break
                if ts[due] >= filled + horizon:
                    break
            due += 1
        closing = ts[due] + latency if due < events else ts[events - 1] + 1
        # the target arrives, and rests
        j = _after(ts, at, filled + latency)
        if j >= events:
            continue
        book = books[book_at[j - 1]]
        hit = -1
        if crosses(book, -sign, targets[k]):
            closing = filled + latency      # post-only: refused, and closed at the touch, which is as good
            if due >= events or ts[due] > closing:
                cause = TARGET
        else:
            hit = _rest(ts, kind, books, trades, book_at, j, closing, -sign, targets[k], queue, through)
            if hit == -2 or (hit == -1 and due >= events):
                continue
        if hit >= 0:
            if due >= events or ts[hit] < ts[due]:      # at equal times the Desk sees the book before it hears of the fill
                cause = TARGET
            exit_price, fee, done = float(targets[k]), maker, ts[hit]
        else:
            done = closing + latency
            j = _after(ts, at, done)
            if j >= events or books[book_at[j - 1], own, 0] <= 0:
                continue
            exit_price, fee = float(books[book_at[j - 1], own, 0]), taker
        kinds[k], end_ms[k], fill_ms[k] = cause, done, filled - start
        y[k] = 1 if cause == TARGET else 0
        net[k] = 1e4 * (sign * (exit_price - entry) / entry - maker - fee * exit_price / entry)
        for h in range(len(markouts_ms)):
            j = _after(ts, at, filled + markouts_ms[h])
            if j < events:
                book = books[book_at[j - 1]]
                if book[0, 0] > 0 and book[2, 0] > 0:
                    markouts[k, h] = 1e4 * sign * (0.5 * (book[0, 0] + book[2, 0]) - entry) / entry


@njit(cache=True)
def _first_book(ts, kind, at, time):
    """The first book, from event `at` on, at or after `time`; the number of events where there is none."""
    at += np.searchsorted(ts[at:], time)
    while at < len(ts) and kind[at] != 0:
        at += 1
    return at


def split(start_ms: np.ndarray, end_ms: np.ndarray, labels: Labels) -> np.ndarray:
    """int8[m]: TRAIN, CALIBRATE or TEST by time, PURGED where an outcome reaches over a boundary.

    The last `test_fraction` of the time span is the test, the `calibration_fraction` before it the calibration. After each
    boundary an embargo of `embargo_ms` is left out as well, so that no window of features that is still warm with the part
    before leaks into the next.
    """
    part = np.full(len(start_ms), PURGED, np.int8)
    if not len(start_ms):
        return part
    first, last = int(start_ms.min()), int(end_ms.max())
    span, test, calibration = last - first, labels.test_fraction, labels.calibration_fraction
    marks = [first, *(first + int(span * (1 - share)) for share in (test + calibration, test)), last + 1]
    for k, (low, high) in enumerate(pairwise(marks)):
        low += labels.embargo_ms if k else 0
        part[(start_ms >= low) & (end_ms < high)] = k
    return part


def warm() -> None:
    """Compiles the kernels, or loads them from the cache."""
    books = np.zeros((2, 4, DEPTH), np.int32)
    books[:, :, 0] = 100, 9, 101, 1
    frame = frame_of("WARM", "", 0, 1.0, 1.0, [1, 2, 3], [BOOK, TRADE, BOOK], books, [[100, 1, -1]])
    one = np.array([1], np.int64)
    label(stream_of([frame]), 0 * one, one, 100 * one, 99 * one, 101 * one, Instrument(1.0, 1.0, 0, 0, 0, 0, 0), Matching(0, 1.0, True),
          Labels(1, 1, 0, 0.0, 0.0))
