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
from store.database import connect, naming, reading
from store.ledger import GENESIS, digest, head_record, page_of, snapshot_digest

BEFORE_ALL = -2**63
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
            for writer in _writers(connection):
                yield from _Chain(connection, writer, (anchors or {}).get(writer, ())).faults(tally)
            for writer in sorted(set(anchors or {}) - set(tally.heads)):
                yield Fault(writer, 0, "ledger", "the anchor names a writer that is not here")
    finally:
        engine.dispose()


def _writers(connection: sa.Connection) -> list[str]:
    found = {str(name) for t in (tables.ledger, tables.order_index, tables.marks, tables.snapshots)
             for name in connection.scalars(sa.select(t.c.writer).distinct())}
    heads = connection.scalars(sa.select(tables.meta.c.name).where(tables.meta.c.name.like("head:%")))
    return sorted(found | {str(name).removeprefix("head:") for name in heads})


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
        while page := page_of(self.connection, self.writer, after):
            sent: dict[str, int] = {}
            for row in page:
                yield from self.row(row, sent)
                tally.size += len(row.blob)
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
        blob, prev, hashed = bytes(row.blob), bytes(row.prev_hash), bytes(row.hash)
        if row.seq < 1:
            yield self.fault(row.seq, "a row before the first: it was inserted")
            return
        missing = row.seq - self.seq - 1
        if missing:
            yield self.fault(self.seq + 1, f"removed: {missing} row{'s' * (missing > 1)}, up to {row.seq - 1}")
        bad = digest(prev, self.writer, row.seq, row.ts_ms, row.kind, blob) != hashed
        if bad:
            yield self.fault(row.seq, "edited or swapped: it is not what its hash was made of")
        elif prev != self.prev and not missing and not self.suspect:
            yield self.fault(row.seq, f"does not follow {row.seq - 1}: one of the two was written anew")
        self.suspect, self.seq, self.prev = bad, row.seq, hashed
        if row.seq in self.wanted:
            self.anchored[row.seq] = hashed.hex()
        try:
            entry = SLIM.decode(blob)
        except msgspec.MsgspecError as error:
            if not bad:
                yield self.fault(row.seq, f"cannot be read: {error}")
            return
        if not bad and (entry.seq, entry.ts_ms) != (row.seq, row.ts_ms):
            yield self.fault(row.seq, f"holds the entry of {entry.seq} at {entry.ts_ms}")
        sent.update((order.id, row.seq) for said in entry.produced for order in said.orders)
        self.marks.update(((epoch, topic, partition), offset) for epoch, topic, partition, offset in entry.marks)

    def index(self, sent: dict[str, int], first: int, last: int) -> Iterator[Fault]:
        """Does the index name just the orders of these rows?"""
        t = tables.order_index
        found = self.connection.execute(sa.select(t.c.order_id, t.c.seq).where(t.c.writer == self.writer, t.c.seq.between(first, last)))
        known = {row.order_id: row.seq for row in found}
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
        beyond = Counter(self.connection.scalars(sa.select(t.c.seq).where(t.c.writer == self.writer, t.c.seq > after)))
        said = self.connection.scalar(sa.select(tables.meta.c.value).where(tables.meta.c.name == f"head:{self.writer}"))
        ends = head_record(self.seq, self.prev)
        if said != ends:
            claimed = _seq_of(said) if said is not None else max(beyond, default=0)
            if claimed > self.seq:
                yield self.fault(self.seq + 1, f"truncated: the chain ends at {self.seq}, and {claimed} were written")
            elif said is None:
                yield self.fault(self.seq, "the head record is missing", "meta")
            else:
                yield self.fault(self.seq, f"the head record says {said[:20]!r}…, the chain ends with {ends[:20]}…", "meta")
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
        kept = {(row.epoch, row.topic, row.partition): row.offset
                for row in self.connection.execute(sa.select(m).where(m.c.writer == self.writer))}
        for mark in sorted(kept.keys() | self.marks.keys()):
            if kept.get(mark) != self.marks.get(mark):
                yield self.fault(self.seq, f"{'/'.join(map(str, mark))} stands at {kept.get(mark)}, the chain says {self.marks.get(mark)}",
                                 "marks")
        for row in self.connection.execute(sa.select(s).where(s.c.writer == self.writer).order_by(s.c.seq)):
            if bytes(row.sha256) != snapshot_digest(self.writer, row.seq, row.ts_ms, bytes(row.blob)):
                yield self.fault(row.seq, "edited: it is not what its hash was made of", "snapshots")
            elif row.seq > self.seq:
                yield self.fault(row.seq, f"a state after the end of the chain at {self.seq}", "snapshots")


def _seq_of(record: str) -> int:
    """The seq that a head record names; 0 where it is none."""
    first = record.split(" ")[0]
    return int(first) if first.isdecimal() else 0
