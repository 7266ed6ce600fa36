"""Is the ledger what was written? Every byte of every chain, its orders' index, its marks, its snapshots and its end.

What a chain cannot see by itself is a tail cut off together with every record of it, or a forger who writes all of it anew: against
those keep a head (`seq hash`, as this prints it) elsewhere, and give it as an anchor.
"""
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

import msgspec
import sqlalchemy as sa

from store import tables
from store.chain import GENESIS, UNREADABLE, hash_of, head_record, page_of, seq_of, snapshot_digest
from store.database import connect, naming, reading
from store.shapes import WRITTEN, NotText, called, odd

BEFORE_ALL, LAST_OF_ALL = -2**63, 2**63 - 1
OWNED = (tables.ledger, tables.order_index, tables.marks, tables.snapshots)
LOOKED_UP = 500          # ids a query


@dataclass(frozen=True)
class Fault:
    """What is wrong, and where: the writer's chain, the position in it (0: the chain as a whole) and the table."""
    writer: str
    seq: int
    table: str
    what: str

    def __str__(self) -> str:
        return f"{self.writer}/{self.seq} {self.table}: {self.what}"


@dataclass
class Tally:
    """What was looked at: rows and their size in bytes, and each writer's end as (seq, hash)."""
    rows: int = 0
    size: int = 0
    heads: dict[str, tuple[int, bytes]] = field(default_factory=dict)


class _Id(msgspec.Struct):
    id: str


class _Said(msgspec.Struct):
    orders: list[_Id] = []
    written_off: list[_Id] = []


class _Slim(msgspec.Struct):
    """Of an entry only what other tables repeat; the rest is not decoded."""
    seq: int
    ts_ms: int
    produced: list[_Said]
    marks: list[tuple[str, str, int, int]] = []


SLIM = msgspec.msgpack.Decoder(_Slim)


def verify(url: str, anchors: Mapping[str, Iterable[tuple[int, str]]] | None = None, tally: Tally | None = None) -> Iterator[Fault]:
    """Every fault of every writer's chain, in order; nothing where it is whole. One consistent view: it may run beside the writers.

    `anchors`: by writer, seqs and the hashes (hex) that they had when somebody wrote them down. `tally` is filled along the way.
    """
    tally = tally if tally is not None else Tally()
    engine = connect(url, create=False)
    try:
        with naming(url), reading(engine) as connection:
            yield from _strays(connection)
            for writer in _writers(connection):
                yield from _Chain(connection, writer, (anchors or {}).get(writer, ())).faults(tally)
            for writer in sorted(set(anchors or {}) - set(tally.heads)):
                yield Fault(writer, 0, "ledger", "the anchor names a writer that is not here")
    finally:
        engine.dispose()


def _writers(connection: sa.Connection) -> list[str]:
    found = {name for t in OWNED for name in connection.scalars(sa.select(t.c.writer).distinct())}
    heads = connection.scalars(sa.select(tables.meta.c.name).where(tables.meta.c.name.like("head:%")))
    return sorted(name for name in found | {n.removeprefix("head:") for n in heads if isinstance(n, str)} if isinstance(name, str))


def _strays(connection: sa.Connection) -> Iterator[Fault]:
    """Rows of no chain: their writer is no text, their seq no number or below every other. Only SQLite keeps such."""
    for table in OWNED if connection.dialect.name == "sqlite" else ():
        seq = "seq" if "seq" in table.c else "0"
        asked = f"SELECT writer, {seq} AS seq FROM {table.name} WHERE "
        found = list(connection.execute(sa.text(f"{asked} typeof(writer) <> 'text' OR typeof({seq}) <> 'integer' OR {seq} = {BEFORE_ALL}")))
        for writer in connection.scalars(sa.select(table.c.writer).distinct()):
            if isinstance(writer, NotText):
                found += connection.execute(sa.text(f"{asked} typeof(writer) = 'text' AND CAST(writer AS BLOB) = :raw"), {"raw": writer})
        for row in found:
            what = [f"{name} is {called(value)}, {WRITTEN[kind]}" for name, value, kind in
                    (("writer", row.writer, str), ("seq", row.seq, int)) if type(value) is not kind]
            yield Fault(_named(row.writer), row.seq if isinstance(row.seq, int) else 0, table.name,
                        "; ".join(what) or "a row before the first: it was inserted")
    for row in connection.execute(sa.select(tables.meta)):
        if not isinstance(row.name, str):
            yield Fault(_named(row.name), 0, "meta", f"name is {called(row.name)}, text was written")


def _named(writer: object) -> str:
    if isinstance(writer, bytes):
        return ascii(bytes(writer))[2:-1].removeprefix("head:")
    return "nobody" if writer is None else str(writer)


class _Chain:
    """One writer's rows, walked once."""

    def __init__(self, connection: sa.Connection, writer: str, anchors: Iterable[tuple[int, str]]):
        self.connection, self.writer, self.anchors = connection, writer, sorted({(seq, hashed.lower()) for seq, hashed in anchors})
        self.prev, self.seq, self.suspect = GENESIS, 0, False
        self.marks: dict[tuple[str, str, int], int] = {}
        self.anchored: dict[int, str] = {}      # what stands where an anchor was taken
        self.wanted = {seq for seq, _ in self.anchors}

    def faults(self, tally: Tally) -> Iterator[Fault]:
        after = BEFORE_ALL
        while page := page_of(self.connection, self.writer, after, LAST_OF_ALL):
            sent: dict[str, int] = {}
            for row in page:
                if type(row.seq) is int:
                    yield from self.row(row, sent)
                tally.size += len(row.blob) if isinstance(row.blob, bytes) else 0
            yield from self.index(sent, after + 1, page[-1].seq)
            tally.rows += len(page)
            after = page[-1].seq
        tally.heads[self.writer] = (self.seq, self.prev)
        yield from self.end(after)
        yield from self.copies()

    def fault(self, seq: int, what: str, table: str = "ledger") -> Fault:
        return Fault(self.writer, seq, table, what)

    def row(self, row: sa.Row, sent: dict[str, int]) -> Iterator[Fault]:
        """Is it the next, is it itself, does it follow?"""
        if row.seq < 1:
            yield self.fault(row.seq, "a row before the first: it was inserted")
            return
        missing = row.seq - self.seq - 1
        if missing:
            yield self.fault(self.seq + 1, f"removed: {missing} row{'s' * (missing > 1)}, up to {row.seq - 1}")
        bad = hash_of(row, self.writer, row.prev_hash) != row.hash
        if bad:
            yield self.fault(row.seq, f"edited: {odd(tables.ledger, row)}" if odd(tables.ledger, row)
                             else "edited or swapped: it is not what its hash was made of")
        elif row.prev_hash != self.prev and not missing and not self.suspect:
            yield self.fault(row.seq, f"does not follow {row.seq - 1}: one of the two was written anew")
        self.suspect, self.seq, self.prev = bad, row.seq, row.hash if type(row.hash) is bytes else GENESIS
        if row.seq in self.wanted:
            self.anchored[row.seq] = self.prev.hex()
        if type(row.blob) is not bytes:
            return
        try:
            entry = SLIM.decode(row.blob)
        except UNREADABLE as error:
            if not bad:
                yield self.fault(row.seq, f"cannot be read: {error}")
            return
        if not bad and (entry.seq, entry.ts_ms) != (row.seq, row.ts_ms):
            yield self.fault(row.seq, f"holds the entry of {entry.seq} at {entry.ts_ms}")
        sent.update((order.id, row.seq) for said in entry.produced for order in (*said.orders, *said.written_off))
        self.marks.update(((epoch, topic, partition), offset) for epoch, topic, partition, offset in entry.marks)

    def index(self, sent: dict[str, int], first: int, last: int) -> Iterator[Fault]:
        """Does the index name just the orders of these rows?"""
        t = tables.order_index
        found = self.connection.execute(sa.select(t).where(t.c.writer == self.writer, t.c.seq.between(first, last))).all()
        known = {row.order_id: row.seq for row in found if not odd(t, row)}
        yield from (self.fault(row.seq, f"edited: {odd(t, row)}", "order_index") for row in found if odd(t, row) and type(row.seq) is int)
        yield from self.by_id(sent, known)
        for order_id, seq in sorted((known.items() | sent.items()) - (known.items() & sent.items()), key=lambda pair: pair[1]):
            yield self.fault(seq, f"{order_id} " + ("is in the ledger and not in the index" if order_id in sent and sent[order_id] == seq
                                                    else "is in the index and not in the ledger"), "order_index")

    def by_id(self, sent: dict[str, int], known: dict[str, int]) -> Iterator[Fault]:
        """Are they found by their ids too? The way by the place is another tree on the disk, and either may be damaged alone."""
        t, ids = tables.order_index, list(sent)
        for i in range(0, len(ids), LOOKED_UP):
            rows = self.connection.execute(sa.select(t).where(t.c.order_id.in_(ids[i:i + LOOKED_UP])))
            found = {row.order_id: (row.writer, row.seq) for row in rows}
            for order_id in ids[i:i + LOOKED_UP]:
                if order_id in known and found.get(order_id) != (self.writer, known[order_id]):
                    yield self.fault(sent[order_id], f"{order_id} is in the index by its place and not by its id: the file is damaged",
                                     "order_index")

    def end(self, after: int) -> Iterator[Fault]:
        """Is the last row the last that was written?"""
        t = tables.order_index
        beyond = Counter(seq for seq in self.connection.scalars(sa.select(t.c.seq).where(t.c.writer == self.writer, t.c.seq > after))
                         if type(seq) is int)
        said = self.connection.scalar(sa.select(tables.meta.c.value).where(tables.meta.c.name == f"head:{self.writer}"))
        ends = head_record(self.seq, self.prev)
        if said != ends:
            claimed = max(beyond, default=0) if said is None else seq_of(said)
            if claimed > self.seq:
                yield self.fault(self.seq + 1, f"truncated: the chain ends at {self.seq}, and {claimed} were written")
            elif said is None:
                yield self.fault(self.seq, "the head record is missing", "meta")
            else:
                claims = f"says {said[:20]!r}…" if isinstance(said, str) else f"is {called(said)}"
                yield self.fault(self.seq, f"the head record {claims}, the chain ends with {ends[:20]}…", "meta")
        for seq in sorted(beyond):
            yield self.fault(seq, f"removed: the index names {beyond[seq]} order{'s' * (beyond[seq] > 1)} of it", "order_index")
        good = 0
        for seq, hashed in self.anchors:
            if self.anchored.get(seq) == hashed:
                good = seq
            elif seq > self.seq:
                yield self.fault(self.seq + 1, f"cut off: {seq} was anchored as {hashed[:12]}…, the chain ends at {self.seq}")
                return
            else:
                yield self.fault(seq, f"written anew after {good}: it was anchored as {hashed[:12]}…, and is "
                                      f"{self.anchored.get(seq, 'missing')[:12]}…")
                return

    def copies(self) -> Iterator[Fault]:
        """Are marks and snapshots what the chain says?"""
        m, s = tables.marks, tables.snapshots
        kept: dict[tuple[str, str, int], int] = {}
        for row in self.connection.execute(sa.select(m).where(m.c.writer == self.writer)):
            if what := odd(m, row):
                yield self.fault(self.seq, f"edited: {what}", "marks")
            else:
                kept[row.epoch, row.topic, row.partition] = row.offset
        for mark in sorted(kept.keys() | self.marks.keys()):
            if kept.get(mark) != self.marks.get(mark):
                yield self.fault(self.seq, f"{'/'.join(map(str, mark))} stands at {kept.get(mark)}, the chain says {self.marks.get(mark)}",
                                 "marks")
        for row in self.connection.execute(sa.select(s).where(s.c.writer == self.writer).order_by(s.c.seq)):
            if what := odd(s, row):
                if type(row.seq) is int:
                    yield self.fault(row.seq, f"edited: {what}", "snapshots")
            elif row.sha256 != snapshot_digest(self.writer, row.seq, row.ts_ms, row.blob):
                yield self.fault(row.seq, "edited: it is not what its hash was made of", "snapshots")
            elif row.seq > self.seq:
                yield self.fault(row.seq, f"a state after the end of the chain at {self.seq}", "snapshots")
