"""The archive of market events: hourly parquet files with a sidecar each, written once and read at full speed.

`ROOT/symbol=S/date=YYYY-MM-DD/hour=HH/{min}-{max}_{rows}.parquet` (UTC, ms) and the same name with `.json`, which says what
is in it, what was refused and repaired on the way, and its sha256. A book is 160 bytes: int32[4, DEPTH] as in `Frame`,
little-endian, null in a trade's row; that reads four times faster than forty columns, and is smaller.
"""
import hashlib
import json
import re
from collections.abc import Iterator
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from engine.facts import BOOK, DEPTH, Frame, cut
from engine.market.repair import Counts
from engine.settings import Instrument
from store.disk import replace

SCHEMA_VER = "market_events_v1"
WIDTH = 4 * DEPTH * 4
SCHEMA = pa.schema([pa.field("ts_ms", pa.int64(), False), pa.field("seq", pa.int64(), False), pa.field("kind", pa.uint8(), False),
                    pa.field("book", pa.binary(WIDTH)), pa.field("price", pa.int32()), pa.field("size", pa.int32()),
                    pa.field("aggressor", pa.int8())])
NAME = re.compile(r"(-?\d+)-(-?\d+)_(\d+)(?:\.\d+)?\.parquet")
HOUR_MS = 3_600_000
SAID = ("min_ts", "max_ts", "row_count", "schema_ver", "src", "symbols", "tick", "lot", "session", "first_seq", "part", "sha256")


class ArchiveError(Exception):
    """A file of the archive that is not what it should be: which, and what was expected."""


class ArchiveWriter:
    """Appends frames of one symbol, one writer at a time; a file appears whole or not at all.

    A file closes with its hour, at `flush()` and at `close()`. What the archive already has of a session is passed over,
    so that a restarted writer may be handed events again.
    """

    def __init__(self, root: Path, symbol: str, instrument: Instrument, src: str):
        self.folder, self.symbol, self.instrument, self.src = Path(root) / f"symbol={symbol}", symbol, instrument, src
        self.waiting: list[Frame] = []
        self.counts = Counts()
        self.rows = self.part = 0
        self.last_ms, self.session, self.due = -(2**63), "", 0
        for path in self.folder.rglob("*.tmp"):
            path.unlink()
        for path in self.folder.rglob("*.json"):
            if not path.with_suffix(".parquet").exists():
                path.unlink()                               # its parquet was never finished
        done = files(root, symbol)
        if done:
            said = sidecar(done[-1])
            self.part, self.last_ms = said["part"] + 1, said["max_ts"]
            self.session, self.due = said["session"], said["first_seq"] + said["row_count"]

    def add(self, frame: Frame) -> None:
        """The next events; `ArchiveError` where they are older than what is there, or of another tick or lot."""
        if (frame.symbol, frame.tick, frame.lot) != (self.symbol, self.instrument.tick, self.instrument.lot):
            raise ArchiveError(f"{self.folder}: {frame.symbol} with tick {frame.tick} and lot {frame.lot} came, "
                               f"{self.symbol} with {self.instrument.tick} and {self.instrument.lot} was due")
        if frame.session == self.session and frame.seq < self.due:
            frame = cut(frame, min(self.due - frame.seq, frame.n), frame.n)
        if not frame.n:
            return
        times = frame.times
        if times[0] < self.last_ms or (np.diff(times) < 0).any():
            raise ArchiveError(f"{self.folder}: event {frame.seq} of {frame.session!r} at {times[0]} ms goes back in time; "
                               f"the archive is at {self.last_ms} ms")
        hours = times // HOUR_MS
        edges = [0, *(np.flatnonzero(np.diff(hours)) + 1).tolist(), frame.n]
        for first, last in pairwise(edges):
            if self.waiting and (self.waiting[-1].times[-1] // HOUR_MS != hours[first] or self.waiting[-1].session != frame.session
                                 or self.due != frame.seq + first):
                self.flush()
            self.waiting.append(frame if (first, last) == (0, frame.n) else cut(frame, first, last))
            self.rows += last - first
            self.session, self.due, self.last_ms = frame.session, frame.seq + last, int(times[last - 1])

    def count(self, counts: Counts) -> None:
        """What cleaning did to the events added since the last file; its sidecar says it."""
        self.counts = self.counts + counts

    def flush(self) -> Path | None:
        """Writes what waits as a file; its path, None where nothing waits."""
        if not self.waiting:
            return None
        head = self.waiting[0]
        table, low, high, n = table_of(self.waiting), int(head.times[0]), int(self.waiting[-1].times[-1]), sum(f.n for f in self.waiting)
        at = datetime.fromtimestamp(low // 1000, UTC)
        folder = self.folder / f"date={at:%Y-%m-%d}" / f"hour={at:%H}"
        folder.mkdir(parents=True, exist_ok=True)
        path, again = folder / f"{low}-{high}_{n}.parquet", 0
        while path.exists():
            path, again = folder / f"{low}-{high}_{n}.{again + 1}.parquet", again + 1
        sink = pa.BufferOutputStream()
        pq.write_table(table, sink, compression="zstd", compression_level=1, use_dictionary=["kind", "price", "size", "aggressor"],
                       column_encoding={"ts_ms": "DELTA_BINARY_PACKED", "seq": "DELTA_BINARY_PACKED"}, row_group_size=1 << 18)
        blob = sink.getvalue()
        said = {"min_ts": low, "max_ts": high, "row_count": n, "schema_ver": SCHEMA_VER, "src": self.src, "symbols": [self.symbol],
                "tick": self.instrument.tick, "lot": self.instrument.lot, "session": head.session, "first_seq": head.seq, "part": self.part,
                "refused": self.counts.refused, "repaired": self.counts.repaired, "gaps": self.counts.gaps,
                "sha256": hashlib.sha256(blob).hexdigest()}
        replace(path.with_suffix(".json"), (json.dumps(said, indent=1) + "\n").encode())     # first: without its parquet it says nothing
        replace(path, blob)
        self.waiting, self.rows, self.counts, self.part = [], 0, Counts(), self.part + 1
        return path

    def close(self) -> None:
        """Writes what waits."""
        self.flush()

    def __enter__(self) -> "ArchiveWriter":
        return self

    def __exit__(self, kind, error, trace) -> None:
        if kind is None:
            self.close()


def table_of(frames: list[Frame]) -> pa.Table:
    """Frames that follow each other as rows of `SCHEMA`."""
    n = sum(f.n for f in frames)
    kind = np.concatenate([f.kinds for f in frames])
    is_book = kind == BOOK
    books = np.zeros((n, 4, DEPTH), np.int32)
    books[is_book] = np.concatenate([f.book_rows for f in frames])
    trades = np.zeros((n, 3), np.int32)
    trades[~is_book] = np.concatenate([f.trade_rows for f in frames])
    valid = pa.array(is_book).buffers()[1]
    book = pa.FixedSizeBinaryArray.from_buffers(pa.binary(WIDTH), n, [valid, pa.py_buffer(books)])
    prints = [pa.array(np.ascontiguousarray(trades[:, i], np.int8 if i == 2 else np.int32), mask=is_book) for i in range(3)]
    ts = np.concatenate([f.times for f in frames])
    return pa.Table.from_arrays([pa.array(ts), pa.array(frames[0].seq + np.arange(n)), pa.array(kind), book, *prints], schema=SCHEMA)


def symbols(root: Path) -> list[str]:
    """What the archive has, sorted; empty where there is none."""
    return sorted(p.name.removeprefix("symbol=") for p in Path(root).glob("symbol=*") if any(p.rglob("*.parquet")))


def span(root: Path, symbol: str) -> tuple[int, int]:
    """Market time of the first and the last event in ms; `ArchiveError` where there is none."""
    done = files(root, symbol)
    if not done:
        raise ArchiveError(f"{Path(root) / f'symbol={symbol}'}: no files; the archive has {', '.join(symbols(root)) or 'no symbol'}")
    return bounds(done[0])[0], max(bounds(p)[1] for p in done)


def files(root: Path, symbol: str) -> list[Path]:
    """The symbol's parquet files in the order in which they were written."""
    found = list((Path(root) / f"symbol={symbol}").glob("date=*/hour=*/*.parquet"))
    keys: dict[tuple[int, int], int] = {}
    for path in found:
        keys[bounds(path)] = keys.get(bounds(path), 0) + 1
    # only files of one and the same span need their sidecar to say which came first
    return sorted(found, key=lambda p: (*bounds(p), sidecar(p)["part"] if keys[bounds(p)] > 1 else 0))


def bounds(path: Path) -> tuple[int, int]:
    """First and last time that a file's name says."""
    m = NAME.fullmatch(path.name)
    if not m:
        raise ArchiveError(f"{path}: its name is not MIN-MAX_ROWS.parquet")
    return int(m[1]), int(m[2])


def sidecar(path: Path) -> dict:
    """What a file's sidecar says; `ArchiveError` where it is missing, unreadable or of another schema."""
    side = path.with_suffix(".json")
    try:
        said = json.loads(side.read_text())
    except FileNotFoundError:
        raise ArchiveError(f"{path}: its sidecar {side.name} is missing") from None
    except (OSError, ValueError) as error:
        raise ArchiveError(f"{side}: not a readable sidecar ({error})") from None
    if not isinstance(said, dict) or said.get("schema_ver") != SCHEMA_VER:
        raise ArchiveError(f"{side}: schema_ver: {said.get('schema_ver') if isinstance(said, dict) else 'missing'}, expected {SCHEMA_VER}")
    missing = [k for k in SAID if k not in said]
    if missing:
        raise ArchiveError(f"{side}: {', '.join(missing)}: missing")
    return said


def load(path: Path) -> Frame:
    """One file as one frame (`seq` as written), checked against its sidecar; `ArchiveError` names what is wrong with it."""
    said = sidecar(path)
    blob = path.read_bytes()
    try:
        whole = pq.ParquetFile(pa.BufferReader(blob))
        schema = whole.schema_arrow
        for want in SCHEMA:
            have = schema.field(want.name) if want.name in schema.names else None
            if have is None or have.type != want.type:
                raise ArchiveError(f"{path}: column {want.name}: {have.type if have else 'missing'}, expected {want.type}")
        table = whole.read(columns=[n for n in SCHEMA.names if n != "seq"])
    except (pa.ArrowException, OSError) as error:
        raise ArchiveError(f"{path}: not a whole parquet file ({str(error).splitlines()[0]})") from None
    if hashlib.sha256(blob).hexdigest() != said["sha256"]:
        raise ArchiveError(f"{path}: its bytes are not those that its sidecar hashed (sha256 expected {said['sha256'][:16]}…)")
    if not len(table) or len(table) != said["row_count"]:
        raise ArchiveError(f"{path}: {len(table)} rows, its sidecar says {said['row_count']}; at least one was expected")
    kind = table["kind"].to_numpy()
    is_book = kind == BOOK
    at, books = 0, []
    for chunk in table["book"].chunks:
        rows = np.frombuffer(chunk.buffers()[1], np.int64).reshape(-1, WIDTH // 8)[chunk.offset:][:len(chunk)]
        books.append(rows.take(np.flatnonzero(is_book[at:at + len(chunk)]), 0).tobytes())
        at += len(chunk)
    prints = table.select(["price", "size", "aggressor"]).filter(pa.array(~is_book))
    trades = np.stack([c.to_numpy().astype(np.int32, copy=False) for c in prints.columns], 1)
    return Frame(said["symbols"][0], said["session"], said["first_seq"], said["tick"], said["lot"],
                 table["ts_ms"].to_numpy().astype(np.int64, copy=False).tobytes(), kind.tobytes(), b"".join(books), trades.tobytes())


def read(root: Path, symbol: str, events: int = 256, session: str = "arch", start_ms: int | None = None,
         end_ms: int | None = None) -> Iterator[Frame]:
    """The symbol's events from `start_ms` to before `end_ms` in time order, `events` a frame but for the last, numbered
    from 0 and named `session`; where files begin and end makes no difference."""
    if events < 1:
        raise ValueError(f"events: {events} is not at least 1")
    low, high = start_ms if start_ms is not None else -(2**63), end_ms if end_ms is not None else 2**63 - 1
    due, rest, last = 0, None, -(2**63)
    for path in files(root, symbol):
        first_ms, last_ms = bounds(path)
        if last_ms < low or first_ms >= high:
            continue
        frame = load(path)
        times = frame.times
        if times[0] < last:
            raise ArchiveError(f"{path}: begins at {times[0]} ms, before the {last} ms of the file before it")
        last = int(times[-1])
        a, b = int(times.searchsorted(low)), int(times.searchsorted(high))
        frame = cut(frame, a, b) if (a, b) != (0, frame.n) else frame
        if rest is not None and (rest.tick, rest.lot) != (frame.tick, frame.lot):
            raise ArchiveError(f"{path}: tick {frame.tick} and lot {frame.lot}, the files before it have {rest.tick} and {rest.lot}")
        whole = numbered(frame, session, due, rest)
        due = whole.seq
        steps = whole.n // events
        for part in pieces(whole, events, steps):
            due += part.n
            yield part
        rest = cut(whole, steps * events, whole.n)
    if rest is not None and rest.n:
        yield rest


def numbered(frame: Frame, session: str, seq: int, before: Frame | None) -> Frame:
    """The frame behind what is left of the one before, as events of `session` from `seq` on."""
    b = before if before is not None else Frame(frame.symbol, session, seq, frame.tick, frame.lot, b"", b"", b"", b"")
    return Frame(frame.symbol, session, seq, frame.tick, frame.lot, b.ts + frame.ts, b.kind + frame.kind, b.books + frame.books,
                 b.trades + frame.trades)


def pieces(frame: Frame, events: int, steps: int) -> Iterator[Frame]:
    """The first `steps` whole pieces of `events`; as `cut`, but counting kinds once for all."""
    edges = np.arange(steps + 1) * events
    books = np.concatenate(([0], np.cumsum(frame.kinds == BOOK)))[edges].tolist()
    at = edges.tolist()
    for i in range(steps):
        a, z, b0, b1 = at[i], at[i + 1], books[i], books[i + 1]
        yield Frame(frame.symbol, frame.session, frame.seq + a, frame.tick, frame.lot, frame.ts[8 * a:8 * z], frame.kind[a:z],
                    frame.books[WIDTH * b0:WIDTH * b1], frame.trades[12 * (a - b0):12 * (z - b1)])
