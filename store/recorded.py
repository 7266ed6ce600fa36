"""How each venue's recording is read: its parquet files in, raw events of one symbol out, in the order of exchange time.

A reader takes a folder, a day and a look-up of instruments, and yields a `Part` for each symbol and stretch. Units are the source's
own (`px_tick`, `qty_step` in the file's metadata, else as recorded in the venue's row below) and become the instrument's.
"""
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pyarrow.types as pt

from engine.facts import BOOK, DEPTH, TRADE
from engine.market.repair import Raw, book_units, code, orderly, trade_units
from engine.settings import Instrument
from store.depth import overlay, rebuild

INTEGER, NUMBER, TEXT, FLAG = "a whole number", "a number", "text", "a flag"
IS: dict[str, Callable[[pa.DataType], bool]] = {
    INTEGER: pt.is_integer, NUMBER: lambda t: pt.is_integer(t) or pt.is_floating(t), FLAG: pt.is_boolean,
    TEXT: lambda t: pt.is_string(t) or pt.is_large_string(t) or pt.is_dictionary(t)}
LEVELS = [f"{side}_{what}_{i}" for side in ("bid", "ask") for what in ("px", "qty") for i in range(DEPTH)]
SETTLED = 10        # books in a row whose touch is the venue's: a book without a snapshot is complete enough


class RecordingError(Exception):
    """A recording that cannot be read: which file, and what was expected."""


@dataclass
class Part:
    """Raw events of one symbol that follow each other; `breaks` in the venue's numbers, `checks` made against other files."""
    symbol: str
    raw: Raw
    breaks: int = 0
    checks: dict[str, int] = field(default_factory=dict)


class Stream(NamedTuple):
    """One kind of event in the order of its file: exchange time, rows in units, ids, receive time, and the border's findings."""
    ts: np.ndarray
    rows: np.ndarray
    ids: np.ndarray | None
    received: np.ndarray
    bad: np.ndarray
    off: np.ndarray

    def behind(self, first: int) -> "Stream":
        """Without its first events."""
        return Stream(self.ts[first:], self.rows[first:], None if self.ids is None else self.ids[first:], self.received[first:],
                      self.bad[first:], self.off[first:])


Instruments = Callable[[str], Instrument]


def columns(path: Path, **expected: str) -> tuple[dict[str, np.ndarray], dict[str, float]]:
    """The named columns, each of the expected kind, and the steps that the file's metadata says; an empty number is NaN."""
    try:
        table = pq.ParquetFile(path).read(columns=list(expected))
    except FileNotFoundError:
        raise RecordingError(f"{path}: is missing") from None
    except (pa.ArrowException, OSError) as error:
        raise RecordingError(f"{path}: not a whole parquet file ({str(error).splitlines()[0]})") from None
    for name, kind in expected.items():
        if name not in table.schema.names:
            have = ", ".join(pq.read_schema(path).names[:8])
            raise RecordingError(f"{path}: column {name} ({kind}): missing; it has {have}, …")
        if not IS[kind](table.schema.field(name).type):
            raise RecordingError(f"{path}: column {name}: {table.schema.field(name).type}, expected {kind}")
        if kind == INTEGER and table[name].null_count:
            raise RecordingError(f"{path}: column {name}: {table[name].null_count} empty values, expected {kind} in every row")
    meta = table.schema.metadata or {}
    steps = {k: float(meta[k.encode()]) for k in ("px_tick", "qty_step") if k.encode() in meta}
    got = {n: table[n].cast(pa.string()) if expected[n] == TEXT else table[n] for n in expected}
    return {n: c.to_numpy() for n, c in got.items()}, steps


def book_stream(path: Path, instrument: Instrument, price_step: float, size_step: float, received: str, per_ms: int) -> Stream:
    """A file of top-of-book snapshots, ten levels a side in columns named `bid_px_0` and so on."""
    got, said = columns(path, ts_exch_ms=INTEGER, **{received: INTEGER}, **dict.fromkeys(LEVELS, NUMBER))
    levels = np.stack([got[c] for c in LEVELS], 1).reshape(-1, 4, DEPTH)
    books, bad, off = book_units(levels, said.get("px_tick", price_step), said.get("qty_step", size_step), instrument)
    return Stream(got["ts_exch_ms"], books, None, got[received] // per_ms, bad, off)


def trade_stream(path: Path, instrument: Instrument, price_step: float, size_step: float, received: str, per_ms: int,
                 more: tuple[str, ...] = ("trade_id", "aggressor")) -> Stream:
    """A file of prints; `more` names which of id and aggressor it has."""
    got, said = columns(path, ts_exch_ms=INTEGER, **{received: INTEGER}, px=NUMBER, qty=NUMBER, **dict.fromkeys(more, INTEGER))
    rows, bad, off = trade_units(got["px"], got["qty"], got.get("aggressor", 0), said.get("px_tick", price_step),
                                 said.get("qty_step", size_step), instrument)
    return Stream(got["ts_exch_ms"], rows, got.get("trade_id"), got[received] // per_ms, bad, off)


def merged(books: Stream, trades: Stream) -> Raw:
    """Both streams by exchange time, each in its own order; at the same time a trade comes before the book that it left.

    What comes late within its stream stays where it came, so that the cleaner sees and counts it.
    """
    order = np.argsort(np.concatenate([orderly(trades.ts), orderly(books.ts)]), kind="stable")

    def both(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        return np.concatenate([a, b])[order]
    kind = both(np.full(len(trades.ts), TRADE, np.uint8), np.full(len(books.ts), BOOK, np.uint8))
    return Raw(both(trades.ts, books.ts), kind, books.rows, trades.rows, trades.ids, both(trades.received, books.received),
               both(trades.bad, books.bad), both(trades.off, books.off))


def found(folder: Path, pattern: str) -> dict[str, Path]:
    """The files whose whole name matches, by its first group, sorted."""
    named = ((re.fullmatch(pattern, p.name), p) for p in sorted(folder.glob("*.parquet")))
    return {m[1]: p for m, p in named if m}


def standx(folder: Path, day: str, instruments: Instruments) -> Iterator[Part]:
    """StandX: a file a day; books rounded to 0.1, prints at 0.01, no usable aggressor, no trade ids."""
    for stem, path in found(folder, r"(\w+_book10_[\d-]+)\.parquet").items():
        symbol, date = stem.split("_book10_")
        if day and date.replace("-", "") != day:
            continue
        i = instruments(symbol)
        yield Part(symbol, merged(book_stream(path, i, 0.1, 0.0001, "ts_recv_us", 1000),
                                  trade_stream(folder / f"{symbol}_trades_{date}.parquet", i, 0.01, 0.0001, "ts_recv_us", 1000, ())))


def hyperliquid(folder: Path, day: str, instruments: Instruments) -> Iterator[Part]:
    """Hyperliquid: full books every half second, the touch at each change between them, and every print; as floats."""
    for symbol, path in found(folder, r"([A-Z]+)_book20\.parquet").items():
        i = instruments(symbol)
        books = book_stream(path, i, 1, 1, "ts_recv_us", 1000)
        touches = folder / f"{symbol}_bbo.parquet"
        yield Part(symbol, merged(between(books, touches, i) if touches.exists() else books,
                                  trade_stream(folder / f"{symbol}_trades.parquet", i, 1, 1, "ts_recv_us", 1000)))


def between(full: Stream, path: Path, instrument: Instrument) -> Stream:
    """Full books and, between them, the touch (a bid row and an ask row a time) over the last full book's levels behind it."""
    got, _ = columns(path, ts_exch_ms=INTEGER, ts_recv_us=INTEGER, side=INTEGER, px=NUMBER, qty=NUMBER)
    ts, side = got["ts_exch_ms"], got["side"]
    if len(ts) % 2 or (ts[::2] != ts[1::2]).any() or (side[::2] != 1).any() or (side[1::2] != -1).any():
        raise RecordingError(f"{path}: a bid row (side 1) and an ask row (side -1) were expected for each time")
    levels = np.zeros((len(ts) // 2, 4, DEPTH))
    for row, name in enumerate(("px", "qty")):
        levels[:, row, 0], levels[:, row + 2, 0] = got[name][::2], got[name][1::2]
    touch, bad, off = book_units(levels, 1, 1, instrument)
    if not len(full.ts):
        return full             # a touch without a book behind it is no book
    known = orderly(full.ts)
    last = np.searchsorted(known, ts[::2], side="right") - 1
    new = np.flatnonzero((last >= 0) & (known[last] < ts[::2]))        # at a full book's own time, that says it all
    books = np.zeros((len(new), 4, DEPTH), np.int64)
    overlay(np.ascontiguousarray(full.rows), last[new], np.ascontiguousarray(touch[new, :, 0]), books)
    order = np.argsort(np.concatenate([known, orderly(ts[::2][new])]), kind="stable")

    def both(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        return np.concatenate([a, b])[order]
    return Stream(both(full.ts, ts[::2][new]), both(full.rows, books), None, both(full.received, got["ts_recv_us"][::2][new] // 1000),
                  both(full.bad, bad[new] | full.bad[last[new]]), both(full.off, off[new] | full.off[last[new]]))


def binance_um_spot(folder: Path, day: str, instruments: Instruments) -> Iterator[Part]:
    """Binance futures and spot at the same time: books every 100 ms and every print. Spot's symbol ends with _SPOT."""
    for stem, path in found(folder, r"([A-Z]+_(?:fut|spot))_book20\.parquet").items():
        name, market = stem.rsplit("_", 1)
        symbol, steps = (name, (0.1, 0.001)) if market == "fut" else (f"{name}_SPOT", (0.01, 0.00001))
        i = instruments(symbol)
        yield Part(symbol, merged(book_stream(path, i, *steps, "ts_recv_ms", 1),
                                  trade_stream(folder / f"{stem}_trades.parquet", i, *steps, "ts_recv_ms", 1)))


def binance_um(folder: Path, day: str, instruments: Instruments) -> Iterator[Part]:
    """Binance futures, raw: every depth diff, rebuilt into a book, and every print. One day, the last if none is named."""
    stems = found(folder, r"([A-Z]+_\d{8})_depth\.parquet")
    day = day or max((s.rsplit("_", 1)[1] for s in stems), default="")
    for stem, path in stems.items():
        symbol, date = stem.rsplit("_", 1)
        if date != day:
            continue
        i = instruments(symbol)
        books, updates, breaks = diffs(path, i)
        touches = folder / f"{stem}_bbo.parquet"
        first, checks = complete(books, updates, touches, i) if touches.exists() else (plausible(books.rows), {})
        books = books.behind(first)
        got, said = columns(folder / f"{stem}_trades.parquet", ts_local_ns=INTEGER, ts_trade_ms=INTEGER, trade_id=INTEGER, px=NUMBER,
                            qty=NUMBER, buyer_is_maker=FLAG, kind=TEXT)
        rows, bad, off = trade_units(got["px"], got["qty"], np.where(got["buyer_is_maker"], -1, 1), said["px_tick"], said["qty_step"], i)
        bad[got["kind"] != "MARKET"] = code("not_a_trade")      # insurance fund and auto-deleveraging are no order-book trades
        trades = Stream(got["ts_trade_ms"], rows, got["trade_id"], got["ts_local_ns"] // 1_000_000, bad, off)
        yield Part(symbol, merged(books, trades), breaks, checks)


def diffs(path: Path, instrument: Instrument) -> tuple[Stream, np.ndarray, int]:
    """Depth diffs as a book after each message from the snapshot on, the update id of each, and breaks in the chain of ids.

    A snapshot takes its place by its update id: diffs that came before it and are newer are applied on top (the venue's rule).
    """
    got, said = columns(path, ts_local_ns=INTEGER, ts_txn_ms=INTEGER, last_u=INTEGER, prev_u=INTEGER, is_snapshot=INTEGER, side=INTEGER,
                        px=NUMBER, qty=NUMBER)
    for step in ("px_tick", "qty_step"):
        if step not in said:
            raise RecordingError(f"{path}: metadata {step}: missing, expected the step of its prices and sizes")
    u, snap = got["last_u"], got["is_snapshot"]
    turn = np.flatnonzero(np.concatenate(([len(u) > 0], (u[1:] != u[:-1]) | (snap[1:] != snap[:-1]))))
    size = np.diff(np.append(turn, len(u)))
    rank = np.arange(len(turn))
    for at in np.flatnonzero(snap[turn]):
        older = np.flatnonzero((snap[turn] == 0) & (u[turn] < u[turn[at]]))
        rank[at] = older[-1] if len(older) else -1
    way = np.lexsort((snap[turn] != 0, rank))
    rows = np.concatenate([np.arange(turn[k], turn[k] + size[k]) for k in way]) if len(way) else np.empty(0, np.int64)
    turn, size = turn[way], size[way]
    chain = turn[snap[turn] == 0]
    breaks = int(np.count_nonzero(got["prev_u"][chain[1:]] != u[chain[:-1]]))
    levels = np.stack([got["px"][rows], got["qty"][rows]], 1)
    if levels.dtype.kind == "f":
        levels = levels[np.isfinite(levels).all(1)]
        if len(levels) != len(rows):
            raise RecordingError(f"{path}: {len(rows) - len(levels)} changed levels with a price or size that is no number; "
                                 "a book cannot be rebuilt over them")
    if (levels[:, 1] < 0).any() or (levels[:, 0] <= 0).any():
        raise RecordingError(f"{path}: a changed level with a price below one tick or a negative size; a book cannot be rebuilt over it")
    out = np.zeros((len(turn), 4, DEPTH), np.int64)
    rebuild(np.concatenate(([0], np.cumsum(size))), snap[turn].astype(np.uint8), got["side"][rows].astype(np.int64),
            levels[:, 0].astype(np.int64), levels[:, 1].astype(np.int64), out)
    first = int(np.argmax(snap[turn] != 0)) if snap.any() else 0
    books, bad, off = book_units(out, said["px_tick"], said["qty_step"], instrument)
    stream = Stream(got["ts_txn_ms"][turn], books, None, got["ts_local_ns"][turn] // 1_000_000, bad, off)
    return stream.behind(first), u[turn][first:], breaks


def complete(books: Stream, updates: np.ndarray, path: Path, instrument: Instrument) -> tuple[int, dict[str, int]]:
    """The first book of ten in a row whose touch the venue also says, and how many from there on agree and differ.

    The venue's touch at an update id is the last one that it sent up to that id, price and size.
    """
    got, said = columns(path, u=INTEGER, bid_px=NUMBER, bid_qty=NUMBER, ask_px=NUMBER, ask_qty=NUMBER)
    theirs = np.zeros((len(got["u"]), 4, DEPTH), np.int64 if got["bid_px"].dtype.kind in "iu" else np.float64)
    for row, name in enumerate(("bid_px", "bid_qty", "ask_px", "ask_qty")):
        theirs[:, row, 0] = got[name]
    touches = book_units(theirs, said["px_tick"], said["qty_step"], instrument)[0][:, :, 0]
    at = np.searchsorted(got["u"], updates, side="right") - 1
    known = at >= 0
    if not known.any():
        return plausible(books.rows), {}
    same = (books.rows[:, :, 0] == touches[np.maximum(at, 0)]).all(1)
    run = np.convolve(same & known, np.ones(SETTLED, np.int64))[SETTLED - 1:]
    settled = np.flatnonzero(run[:len(same)] == SETTLED)
    if not len(settled):
        raise RecordingError(f"{path}: the rebuilt book never agrees with it over {SETTLED} messages in a row")
    first = int(settled[0])
    return first, {"touch_agrees": int((same & known)[first:].sum()), "touch_differs": int((~same & known)[first:].sum())}


def plausible(rows: np.ndarray) -> int:
    """The first book with all levels on both sides, not crossed, and a touch less than ten bps wide."""
    bid, ask = rows[:, 0, 0], rows[:, 2, 0]
    good = (rows > 0).all((1, 2)) & (bid < ask) & ((ask - bid) * 1000 < bid)
    return int(np.argmax(good)) if good.any() else len(rows)
