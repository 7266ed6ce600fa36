"""A ledger copied row by row into an empty one, between SQLite and PostgreSQL in any direction, beside whoever writes it.

The rows that people query are left behind: the projector fills them again from what was copied.
"""
import struct
from collections.abc import Iterator

import sqlalchemy as sa

from store import tables
from store.database import LedgerError, connect, naming, reading, shown
from store.ledger import GENESIS, digest, page_of
from store.revisions import migrate

PAGE = 500
COPIED = (tables.order_index, tables.marks, tables.snapshots, tables.meta)      # beside the chains
TRUTH = (tables.ledger, *COPIED)


def copy_ledger(source_url: str, target_url: str) -> dict[str, tuple[int, bytes]]:
    """Copies one consistent view into an empty ledger, all of it or nothing; returns each writer's last seq and hash.

    `LedgerError` where the source's chain is broken (nothing is copied), or where the target holds anything already.
    """
    source, target = connect(source_url, create=False), connect(target_url)
    heads: dict[str, tuple[int, bytes]] = {}
    try:
        with naming(target_url):
            migrate(target)
        with naming(source_url), reading(source) as old, naming(target_url), target.begin() as new:
            if target.dialect.name == "postgresql":
                new.execute(sa.text("LOCK TABLE ledger IN EXCLUSIVE MODE"))
            for table in TRUTH:
                if new.execute(sa.select(sa.literal(1)).select_from(table).limit(1)).first():
                    raise LedgerError(f"ledger {shown(target_url)}: {table.name} holds rows already; an empty ledger was expected")
            for writer in sorted(old.scalars(sa.select(tables.ledger.c.writer).distinct())):
                heads[writer] = _chain(old, new, writer, source_url)
            for table in COPIED:
                for rows in old.execute(sa.select(table).execution_options(yield_per=PAGE)).partitions():
                    _put(new, table, rows)
    finally:
        source.dispose()
        target.dispose()
    return heads


def _put(new: sa.Connection, table: sa.Table, rows) -> None:
    new.execute(table.insert(), [{k: bytes(v) if isinstance(v, memoryview) else v for k, v in row._mapping.items()} for row in rows])


def _chain(old: sa.Connection, new: sa.Connection, writer: str, url: str) -> tuple[int, bytes]:
    seq, prev = 0, GENESIS
    for page in _pages(old, writer):
        for row in page:
            if row.seq != seq + 1 or bytes(row.hash) != _hashed(row, prev):
                raise LedgerError(f"ledger {shown(url)}: {writer}/{seq + 1}: the chain is broken there and is not copied; "
                                  "run python -m scripts.verify_ledger")
            seq, prev = row.seq, bytes(row.hash)
        _put(new, tables.ledger, page)
    return seq, prev


def _hashed(row: sa.Row, prev: bytes) -> bytes:
    try:
        return digest(prev, row.writer, row.seq, row.ts_ms, row.kind, bytes(row.blob))
    except (TypeError, AttributeError, struct.error):     # a forger's value of another type
        return b""


def _pages(old: sa.Connection, writer: str) -> Iterator:
    after = -2**63
    while page := page_of(old, writer, after, page=PAGE):
        yield page
        after = page[-1].seq
