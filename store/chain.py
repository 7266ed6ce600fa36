"""A chain of hashed rows: what a row's hash covers, and how rows are read so that each is what was written and follows the one before."""
import hashlib
import struct
from collections.abc import Iterator, Sequence
from typing import Any

import msgspec
import sqlalchemy as sa

from store import tables
from store.blob import Entry, decode
from store.database import LedgerError, reading, shown
from store.shapes import odd

GENESIS = bytes(32)
LONGEST = 20             # digits of a seq and one more
UNREADABLE = (msgspec.MsgspecError, UnicodeDecodeError, IndexError, ValueError, RecursionError)      # what decoding bytes may raise
PAGE = 200               # rows read at once: memory stays flat however long the ledger is


def digest(prev_hash: bytes, writer: str, seq: int, ts_ms: int, kind: str, blob: bytes) -> bytes:
    """sha256 over the row before and everything in this one, lengths included, so that no byte can move between fields."""
    name, sort = writer.encode(), kind.encode()
    return hashlib.sha256(b"".join((prev_hash, struct.pack("<HHqq", len(name), len(sort), seq, ts_ms), name, sort, blob))).digest()


def snapshot_digest(writer: str, seq: int, ts_ms: int, blob: bytes) -> bytes:
    """sha256 of a snapshot with its place; empty for a writer that has no chain, since its name is too long."""
    try:
        return digest(GENESIS, writer, seq, ts_ms, "snapshot", blob)
    except struct.error:
        return b""


def head_record(seq: int, hashed: bytes) -> str:
    """How `meta` keeps a chain's end, so that a tail cut off is noticed."""
    return f"{seq} {hashed.hex()}"


def seq_of(record: object) -> int:
    """The seq that a head record names; 0 where it is none."""
    first = record.split(" ")[0] if isinstance(record, str) else ""
    return int(first) if first.isdecimal() and len(first) < LONGEST else 0


def rows(engine: sa.Engine, writer: str, after: int = 0, upto: int | None = None, page: int = PAGE) -> Iterator[sa.Row]:
    """A writer's raw rows with after < seq <= upto, a page a query, so that no reader keeps the log from being folded."""
    while upto is None or after < upto:
        with reading(engine) as connection:
            got = page_of(connection, writer, after, upto, page)
        yield from got
        if len(got) < page:
            return
        after = got[-1].seq


def page_of(connection: sa.Connection, writer: str, after: int, upto: int | None = None, page: int = PAGE) -> Sequence[sa.Row]:
    """The next rows of a writer after `after`."""
    t = tables.ledger
    wanted = sa.select(t).where(t.c.writer == writer, t.c.seq > after).order_by(t.c.seq).limit(page)
    return connection.execute(wanted if upto is None else wanted.where(t.c.seq <= upto)).all()


def place_of(engine: sa.Engine, order_id: str) -> tuple[str, int] | None:
    """The writer and seq of the entry that sent this order."""
    t = tables.order_index
    with reading(engine) as connection:
        row = connection.execute(sa.select(t).where(t.c.order_id == order_id)).first()
    if row and (what := odd(t, row)):
        raise broken(engine, f"order_index: {order_id}", what)
    return (row.writer, row.seq) if row else None


def hash_of(row: Any, writer: str, prev: bytes) -> bytes:
    """What the hash of a row must be; empty where its values are of types or sizes that nobody wrote."""
    try:
        return b"" if odd(tables.ledger, row) else digest(prev, writer, row.seq, row.ts_ms, row.kind, row.blob)
    except struct.error:        # a name of more than 64 KB
        return b""


def chained(engine: sa.Engine, writer: str, found: Iterator[sa.Row], prev: bytes = GENESIS, due: int = 1) -> Iterator[Entry]:
    """The entries of rows that must follow each other from `due` on; `LedgerError` with writer and seq at the first that does not."""
    for row in found:
        if row.seq != due:
            raise broken(engine, f"{writer}/{due}", "the row is missing")
        yield entry_in(engine, row, writer, prev)
        prev, due = row.hash, due + 1


def entry_in(engine: sa.Engine, row: Any, writer: str, prev: bytes | None = None) -> Entry:
    """The entry of a row that is what was written after `prev` (unless given, what it says itself); `LedgerError` where it is not."""
    checked(engine, row, writer, prev)
    try:
        return decode(row.blob)
    except UNREADABLE as error:     # its hash is right: a forger's, or another version's
        raise broken(engine, f"{writer}/{row.seq}", f"the row cannot be read: {error}") from None


def checked(engine: sa.Engine, row: Any, writer: str, prev: bytes | None = None) -> bytes:
    """The hash of a row, found right; `LedgerError` where it is not."""
    if hash_of(row, writer, row.prev_hash if prev is None else prev) != row.hash:
        raise broken(engine, f"{writer}/{row.seq}", odd(tables.ledger, row) or "the row is not what was written")
    return row.hash


def broken(engine: sa.Engine, where: str, what: str) -> LedgerError:
    """The error that says where a ledger is not what was written."""
    return LedgerError(f"ledger {shown(engine.url.render_as_string(False))}: {where}: {what}; run python -m scripts.verify_ledger")
