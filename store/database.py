"""One door to the database, SQLite or PostgreSQL by URL: connections as the ledger needs them, and errors that name the place.

SQLite runs in WAL mode: readers never wait for the writer, nor it for them. `synchronous` NORMAL: a killed process loses nothing, a
power cut may lose the last moments, and what is there is whole; FULL: a power cut loses nothing. PostgreSQL's
`synchronous_commit` is set to mean the same.
"""
import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

from store import shapes

BUSY_MS = 10_000
CHECKPOINT_PAGES = 4_000       # of 4 KiB: a log of some 16 MiB before it is folded into the file
DAMAGED = "bytes of the file changed on the disk; python -m scripts.restore puts a backup back"
HINTS = (("full", "free some space there; nothing of this transaction was written"),
         ("readonly", "the folder or the file may not be written by this user"),
         ("read-only", "the folder or the file may not be written by this user"),
         ("permission denied", "the folder or the file may not be written by this user"),
         ("disk i/o error", "the disk fails, is full, or a limit on file sizes is reached; nothing of this transaction was written"),
         ("no space left", "free some space there; nothing of this transaction was written"),
         ("unable to open", "the folder must exist and be writable by this user"),
         ("locked", f"another process held it for more than {BUSY_MS / 1000:g} s"),
         ("no such table", "apply the schema: python -m scripts.migrate"),
         ("not a database", "the file is something else, or its first page is damaged"),
         ("malformed", DAMAGED), ("codec can't decode", DAMAGED),
         ("connection", "is the server up, and does the URL name it?"))


class LedgerError(Exception):
    """The ledger cannot be opened, read or written, or it is not what it should be: which one, where, and what to do."""


def shown(url: str) -> str:
    """The URL as a message may print it: a path, or the URL without its password."""
    parsed = sa.make_url(url)
    return str(parsed.database) if parsed.get_backend_name() == "sqlite" else parsed.render_as_string(hide_password=True)


@contextmanager
def naming(url: str) -> Iterator[None]:
    """Turns the database's errors into one `LedgerError` that names the ledger, the cause and what to do."""
    try:
        yield
    except (sa.exc.SQLAlchemyError, sqlite3.Error, psycopg.Error, OSError, UnicodeDecodeError) as error:
        cause = str(getattr(error, "orig", None) or error).strip().splitlines() or [type(error).__name__]
        raise LedgerError(f"ledger {shown(url)}: {hinted(cause[0])}") from error


def hinted(cause: str) -> str:
    """A database's error with what to do about it, where that is known."""
    hint = next((words for sign, words in HINTS if sign in cause.lower()), "")
    return cause + (f" ({hint})" if hint else "")


def connect(url: str, synchronous: str = "NORMAL", create: bool = True) -> sa.Engine:
    """An engine whose transactions are real ones (`BEGIN IMMEDIATE` on SQLite); `LedgerError` for a URL that is neither database,
    and where there is nothing to read and `create` is false."""
    try:
        parsed = sa.make_url(url)
    except sa.exc.ArgumentError:
        raise LedgerError(f"ledger.url: {url!r} is not a URL; sqlite:///path or postgresql+psycopg://user@host/name was expected") from None
    if parsed.get_backend_name() == "sqlite":
        if not parsed.database or parsed.database == ":memory:":
            raise LedgerError(f"ledger.url: {url!r} names no file; sqlite:///path was expected")
        path = Path(parsed.database).absolute()
        if not create and not path.is_file():
            raise LedgerError(f"ledger {path}: there is none; make demo starts the services that write it, SLUICE_LEDGER_URL names another")
        with naming(url):
            path.parent.mkdir(parents=True, exist_ok=True)
        return _sqlite(parsed, synchronous)
    if parsed.drivername != "postgresql+psycopg":
        raise LedgerError(f"ledger.url: {parsed.drivername} is no driver of ours; sqlite:///path or postgresql+psycopg://… was expected")
    commits = {"NORMAL": "off", "FULL": "on"}[synchronous]
    return sa.create_engine(parsed, pool_pre_ping=True, connect_args={"connect_timeout": 5, "options": f"-c synchronous_commit={commits}"})


def _sqlite(parsed: sa.URL, synchronous: str) -> sa.Engine:
    engine = sa.create_engine(parsed, connect_args={"timeout": BUSY_MS / 1000, "check_same_thread": False})

    @sa.event.listens_for(engine, "connect")
    def prepare(connection, _record) -> None:
        connection.isolation_level = None       # transactions are begun below and nowhere else
        connection.text_factory = shapes.text
        for pragma in ("journal_mode=WAL", f"synchronous={synchronous}", f"busy_timeout={BUSY_MS}",
                       f"wal_autocheckpoint={CHECKPOINT_PAGES}", "temp_store=MEMORY"):
            connection.execute(f"PRAGMA {pragma}")

    @sa.event.listens_for(engine, "begin")
    def begin(connection) -> None:
        connection.exec_driver_sql("BEGIN" if connection.get_execution_options().get("reads") else "BEGIN IMMEDIATE")

    return engine


@contextmanager
def reading(engine: sa.Engine) -> Iterator[sa.Connection]:
    """A connection that reads one consistent view and never holds up the writer."""
    postgres = {"isolation_level": "REPEATABLE READ", "postgresql_readonly": True} if engine.dialect.name == "postgresql" else {}
    with engine.connect().execution_options(reads=True, **postgres) as connection:
        yield connection


def upsert(engine: sa.Engine, table: sa.Table, update: bool = True) -> Any:
    """An INSERT that replaces the row of the same key, or leaves it where `update` is false."""
    dialect = sqlite if engine.dialect.name == "sqlite" else postgresql
    insert = dialect.insert(table)
    keys = [c.name for c in table.primary_key]
    if not update:
        return insert.on_conflict_do_nothing(index_elements=keys)
    return insert.on_conflict_do_update(index_elements=keys, set_={c.name: insert.excluded[c.name] for c in table.c if c.name not in keys})


class Prepared:
    """A Core statement compiled once for a raw cursor: the same SQL as through the engine at a tenth of the cost."""

    def __init__(self, engine: sa.Engine, statement, names: list[str]):
        compiled = statement.values({n: sa.bindparam(n) for n in names}).compile(dialect=engine.dialect)
        self.sql = str(compiled)
        self.names, self.order = names, compiled.positiontup

    def values(self, row: Mapping[str, Any]) -> Any:
        """The row as the driver takes it."""
        return row if self.order is None else tuple(row[name] for name in self.order)

    def many(self, rows: list[list[Any]]) -> list[Any]:
        """Rows of values in the order of `names`, as the driver takes them."""
        return [dict(zip(self.names, row)) for row in rows] if self.order is None else rows
