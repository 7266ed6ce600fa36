"""The desk's memory: what it consumed and what it said, one hashed row a transaction, appended and never changed.

A row's hash covers the hash before it, so that an edit anywhere breaks the chain there. Facts, marks and the index of orders are
written in one transaction, *then* the caller publishes and acknowledges: what was written and not acknowledged is published again
after a crash, and receivers know it by its ids. One writer, one chain, one process: a second one is refused.
"""
import fcntl
import hashlib
import os
import sqlite3
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from config.settings import Settings
from engine import facts
from store import tables
from store.blob import Entry, encode
from store.chain import GENESIS, broken, chained, digest, entry_in, head_record, place_of, rows, snapshot_digest
from store.database import LedgerError, Prepared, connect, naming, reading, shown, upsert
from store.revisions import migrate
from store.shapes import called, odd

FACTS, ORDERS, CONTROL = "facts", "orders", "control"
SNAPSHOTS_KEPT = 3
LOCK_WAIT_S = 3.0        # PostgreSQL needs a moment to notice that a killed writer is gone
FOLD_S = 1.0             # how often SQLite's log is folded into its file, beside the hot path, for that waits for the disk
MOST_PAGES = 50_000      # of log, where that has not kept up: 200 MB

Mark = tuple[str, str, int]     # log epoch, topic, partition


def ledger_url(settings: Settings) -> str:
    """`ledger.url`, or SQLite in the data folder: `ledger.db`, with an instance id `ledger-<instance>.db`."""
    name = f"ledger-{settings.instance}.db" if settings.instance else "ledger.db"
    return settings.ledger.url or f"sqlite:///{settings.folder('data') / name}"


def sent_of(url: str, order_ids: Sequence[str]) -> set[str]:
    """Those of these orders that the ledger has, whoever wrote them; `LedgerError` where it cannot be read."""
    engine, t = connect(url, create=False), tables.order_index
    try:
        with naming(url), reading(engine) as connection:
            return set(connection.scalars(sa.select(t.c.order_id).where(t.c.order_id.in_(order_ids))))
    finally:
        engine.dispose()


class Ledger:
    """One writer's chain, opened for writing.

    `url` is sqlite:///path or postgresql+psycopg://…; the schema is applied where it is missing. `LedgerError` where the place
    cannot be written, where another process writes as `writer`, or where the chain's end is not what its head record says.
    """

    def __init__(self, url: str, writer: str, synchronous: str = "NORMAL"):
        self.url, self.writer = url, writer
        self._mutex = threading.Lock()
        self._closed = threading.Event()
        self._lock_file: Any = None
        self._hot: Any = None
        self.engine = connect(url, synchronous)
        try:
            with naming(url):
                self._take_lock()
                migrate(self.engine)
                self._open()
        except BaseException:
            self.close()
            raise

    # opening and closing

    @property
    def _sqlite(self) -> bool:
        return self.engine.dialect.name == "sqlite"

    def _take_lock(self) -> None:
        if self._sqlite:
            path = Path(f"{self.engine.url.database}.{self.writer}.lock")
            self._lock_file = open(path, "a+")      # noqa: SIM115 (held for life)
            try:
                fcntl.flock(self._lock_file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                self._lock_file.seek(0)
                raise self._refused(f"process {self._lock_file.read().strip() or 'unknown'}") from None
            self._lock_file.truncate(0)
            self._lock_file.write(str(os.getpid()))
            self._lock_file.flush()
            self._hot = self.engine.raw_connection()
            self._hot.driver_connection.execute(f"PRAGMA wal_autocheckpoint={MOST_PAGES}")
            threading.Thread(target=self._fold, name=f"ledger-{self.writer}", daemon=True).start()
            return
        self._hot = self.engine.raw_connection()
        key = int.from_bytes(hashlib.sha256(f"ledger writer {self.writer}".encode()).digest()[:8], "big", signed=True)
        until = time.monotonic() + LOCK_WAIT_S
        while not self._ask("SELECT pg_try_advisory_lock(%s)", (key,)):
            if time.monotonic() > until:
                raise self._refused("another session")
            time.sleep(0.02)

    def _fold(self) -> None:
        connection = sqlite3.connect(str(self.engine.url.database), timeout=0, isolation_level=None)
        while not self._closed.wait(FOLD_S):
            try:
                connection.execute("PRAGMA wal_checkpoint(PASSIVE)")     # waits for nobody, and nobody for it
            except sqlite3.Error:                                        # busy or full: the hot path says so, if it lasts
                continue
        connection.close()

    def _ask(self, sql: str, values: tuple) -> Any:
        with self._hot.cursor() as cursor:
            value = cursor.execute(sql, values).fetchone()[0]
        self._hot.commit()
        return value

    def _refused(self, by: str) -> LedgerError:
        return LedgerError(f"ledger {shown(self.url)}: {by} already writes as {self.writer!r}; a chain has one writer: stop that one, or "
                           "give this instance its own ledger (SLUICE_INSTANCE)")

    def _open(self) -> None:
        t = tables
        self._statements = {
            "ledger": Prepared(self.engine, t.ledger.insert(), [c.name for c in t.ledger.c]),
            "order_index": Prepared(self.engine, t.order_index.insert(), ["order_id", "writer", "seq"]),
            "marks": Prepared(self.engine, upsert(self.engine, t.marks), [c.name for c in t.marks.c]),
            "meta": Prepared(self.engine, upsert(self.engine, t.meta), ["name", "value"])}
        with reading(self.engine) as connection:
            last = connection.execute(sa.select(t.ledger).where(t.ledger.c.writer == self.writer)
                                      .order_by(t.ledger.c.seq.desc()).limit(1)).first()
            said = connection.scalar(sa.select(t.meta.c.value).where(t.meta.c.name == f"head:{self.writer}"))
        if last and (what := odd(t.ledger, last)):
            raise self._broken(last.seq, what)
        self._seq: int = last.seq if last else 0
        self._hash: bytes = last.hash if last else GENESIS
        self._acknowledged = 0
        if (said or head_record(0, GENESIS)) != head_record(self._seq, self._hash):
            claims = repr(said.split(" ")[0]) if isinstance(said, str) else called(said)
            raise LedgerError(f"ledger {shown(self.url)}: the chain of {self.writer!r} ends at {self._seq}, its head record says "
                              f"{claims}: rows are missing or were edited; run python -m scripts.verify_ledger")
        if last:
            self._acknowledged = entry_in(self.engine, last, self.writer).acknowledged

    def close(self) -> None:
        """Lets go of the lock and the connections; may be called twice."""
        self._closed.set()
        if self._hot is not None:
            self._hot.invalidate() if not self._sqlite else self._hot.close()    # ends the session, and with it the advisory lock
            self._hot = None
        self.engine.dispose()
        if self._lock_file is not None:
            self._lock_file.close()
            self._lock_file = None

    def __enter__(self) -> "Ledger":
        return self

    def __exit__(self, *_) -> None:
        self.close()

    # writing

    def commit(self, ts_ms: int, consumed: Sequence, produced: Sequence, marks: Mapping[Mark, int]) -> int:
        """Writes one transaction — facts, answers, orders' places, marks — and returns its seq; all of it or, raising, nothing."""
        with self._mutex:
            seq = self._seq + 1
            read = [(*mark, offset) for mark, offset in marks.items()]
            blob = encode(Entry(seq, ts_ms, list(consumed), list(produced), read, self._acknowledged))
            ids = [order.id for said in produced if isinstance(said, facts.Approved) for order in said.orders]
            ids += [off.id for said in produced if isinstance(said, facts.Outcomes) for off in said.written_off]
            control = any(isinstance(f, facts.Control) for f in (*produced, *consumed))
            kind = CONTROL if control else ORDERS if ids else FACTS
            now = digest(self._hash, self.writer, seq, ts_ms, kind, blob)
            writes: list[tuple[str, list[dict[str, Any]]]] = [
                ("ledger", [{"writer": self.writer, "seq": seq, "ts_ms": ts_ms, "prev_hash": self._hash, "hash": now, "kind": kind,
                             "blob": blob}]),
                ("order_index", [{"order_id": i, "writer": self.writer, "seq": seq} for i in ids]),
                ("marks", [{"writer": self.writer, "epoch": e, "topic": t, "partition": p, "offset": o} for e, t, p, o in read]),
                ("meta", [{"name": f"head:{self.writer}", "value": head_record(seq, now)}])]
            self._transact([(self._statements[table], row) for table, some in writes for row in some])
            self._seq, self._hash = seq, now
            return seq

    def _transact(self, work: list[tuple[Prepared, dict[str, Any]]]) -> None:
        if self._hot is None:
            raise LedgerError(f"ledger {shown(self.url)}: it is closed")
        connection = self._hot.driver_connection
        with naming(self.url):
            try:
                if self._sqlite:
                    connection.execute("BEGIN IMMEDIATE")
                    for statement, row in work:
                        connection.execute(statement.sql, statement.values(row))
                    connection.execute("COMMIT")
                else:
                    with connection.pipeline(), connection.cursor() as cursor:      # one round trip
                        for statement, row in work:
                            cursor.execute(statement.sql, statement.values(row))
                        connection.commit()
            except BaseException:
                if not self._sqlite:
                    connection.rollback()
                elif connection.in_transaction:
                    connection.execute("ROLLBACK")
                raise

    def acknowledge(self, seq: int) -> None:
        """Everything up to `seq` has been published. Kept in memory and written with the next commit: a crash publishes again."""
        if seq > self._seq:
            raise ValueError(f"{self.writer}: {seq} was never written, the head is {self._seq}")
        self._acknowledged = max(self._acknowledged, seq)

    def snapshot(self, seq: int, ts_ms: int, state: bytes) -> None:
        """Keeps the state as of `seq`, from which `restore` goes on; the last three stay."""
        if not 0 <= seq <= self._seq:
            raise ValueError(f"{self.writer}: no state of {seq}, the head is {self._seq}")
        t = tables.snapshots
        row = {"writer": self.writer, "seq": seq, "ts_ms": ts_ms, "blob": state,
               "sha256": snapshot_digest(self.writer, seq, ts_ms, state)}
        with naming(self.url), self._mutex, self.engine.begin() as connection:
            connection.execute(upsert(self.engine, t), row)
            kept = sa.select(t.c.seq).where(t.c.writer == self.writer).order_by(t.c.seq.desc()).limit(SNAPSHOTS_KEPT).subquery()
            connection.execute(t.delete().where(t.c.writer == self.writer, t.c.seq.not_in(sa.select(kept.c.seq))))

    # reading

    def head(self) -> tuple[int, bytes]:
        """The last seq and its hash; 0 and zeros for an empty chain."""
        return self._seq, self._hash

    def marks(self, epoch: str | None = None) -> dict[Mark, int]:
        """How far each log was read: the last consumed offset by (epoch, topic, partition)."""
        t = tables.marks
        wanted = sa.select(t).where(t.c.writer == self.writer)
        with naming(self.url), reading(self.engine) as connection:
            found = connection.execute(wanted if epoch is None else wanted.where(t.c.epoch == epoch)).all()
        for row in found:
            if what := odd(t, row):
                raise broken(self.engine, f"{self.writer}/{self._seq} marks", what)
        return {(row.epoch, row.topic, row.partition): row.offset for row in found}

    def unacknowledged(self) -> Iterator[Entry]:
        """What was written and is not known to be published, in order."""
        return self.entries(self._acknowledged)

    def entries(self, after: int = 0, upto: int | None = None) -> Iterator[Entry]:
        """Entries with after < seq <= upto, each checked against the hash before it; `LedgerError` at the first that does not follow."""
        with naming(self.url):
            yield from chained(self.engine, self.writer, rows(self.engine, self.writer, after, upto), self._hash_of(after), after + 1)

    def _hash_of(self, seq: int) -> bytes:
        t = tables.ledger
        with reading(self.engine) as connection:
            found = connection.scalar(sa.select(t.c.hash).where(t.c.writer == self.writer, t.c.seq == seq))
        if found is None and seq:
            raise self._broken(seq, "the row is missing")
        if found is not None and type(found) is not bytes:
            raise self._broken(seq, f"hash is {called(found)}, bytes were written")
        return found or GENESIS

    def _broken(self, seq: object, what: str) -> LedgerError:
        return broken(self.engine, f"{self.writer}/{seq}", what)

    def entry_of(self, order_id: str) -> Entry:
        """The entry that sent this order; `LookupError` for an order that this chain never sent."""
        with naming(self.url):
            place = place_of(self.engine, order_id)
        if place is None or place[0] != self.writer:
            raise LookupError(f"{order_id}: {self.writer} never sent such an order")
        return next(self.entries(place[1] - 1, place[1]))

    def restore(self) -> tuple[int, bytes | None, Iterator[Entry]]:
        """The last snapshot whose hash is right (its seq and state; 0 and None where there is none) and the entries after it."""
        t = tables.snapshots
        with naming(self.url), reading(self.engine) as connection:
            kept = connection.execute(sa.select(t).where(t.c.writer == self.writer, t.c.seq <= self._seq).order_by(t.c.seq.desc())).all()
        for row in kept:
            if not odd(t, row) and row.sha256 == snapshot_digest(self.writer, row.seq, row.ts_ms, row.blob):
                return row.seq, row.blob, self.entries(row.seq)
        return 0, None, self.entries(0)
