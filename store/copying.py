"""A ledger copied row by row into an empty one, between SQLite and PostgreSQL in any direction, beside whoever writes it.

The rows that people query are left behind: the projector fills them again from what was copied.
"""
from collections.abc import Iterator

import sqlalchemy as sa

from store import tables
from store.chain import GENESIS, broken, hash_of, page_of
from store.database import LedgerError, connect, naming, reading, shown
from store.revisions import migrate
from store.shapes import called, odd

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
            writers = list(old.scalars(sa.select(tables.ledger.c.writer).distinct()))
            for writer in sorted(writers, key=repr):
                if not isinstance(writer, str):
                    raise broken(source, f"rows of a writer that is {called(writer)}", "the ledger is not copied")
                heads[writer] = _chain(old, new, writer, source)
            for table in COPIED:
                for rows in old.execute(sa.select(table).execution_options(yield_per=PAGE)).partitions():
                    if what := next((f"{tuple(row)[:2]}: {odd(table, row)}" for row in rows if odd(table, row)), ""):
                        raise broken(source, f"{table.name} {what}", "it is not copied")
                    _put(new, table, rows)
    finally:
        source.dispose()
        target.dispose()
    return heads


def _put(new: sa.Connection, table: sa.Table, rows) -> None:
    new.execute(table.insert(), [{k: bytes(v) if isinstance(v, memoryview) else v for k, v in row._mapping.items()} for row in rows])


def _chain(old: sa.Connection, new: sa.Connection, writer: str, source: sa.Engine) -> tuple[int, bytes]:
    seq, prev = 0, GENESIS
    for page in _pages(old, writer):
        for row in page:
            if row.seq != seq + 1 or row.hash != hash_of(row, writer, prev):
                raise broken(source, f"{writer}/{seq + 1}", "the chain is broken there and is not copied")
            seq, prev = row.seq, row.hash
        _put(new, tables.ledger, page)
    return seq, prev


def _pages(old: sa.Connection, writer: str) -> Iterator:
    after = -2**63
    while page := page_of(old, writer, after, page=PAGE):
        yield page
        after = page[-1].seq
