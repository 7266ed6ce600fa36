"""The moments at which a process can die: before and after everything that outlives it.

A statement of a transaction, a file written or renamed, a record handed to the log, a message on a line. At each the plan is asked;
a death leaves the files as they are at that instant (a copy of the folder, half-written files, open transactions and all), and
nothing of the process acts any more: no handler, no `finally`, no rollback.
"""
import asyncio
import os
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from contextvars import ContextVar
from typing import Any, Self
from unittest import mock

QUIET = ("SELECT", "PRAGMA", "CREATE", "EXPLAIN")


class Killed(BaseException):
    """The process is dead; no `except Exception` hears of it."""


class Life:
    """One process from its start to its end. `at` is asked at every edge, and may end it."""

    def __init__(self, name: str, at: Callable[["Life", str], None]):
        self.name, self.at, self.alive = name, at, True
        self.at_death: list[Callable[[], object]] = []
        self.tasks: list[asyncio.Task] = []


LIFE: ContextVar[Life | None] = ContextVar("life", default=None)


def edge(kind: str) -> None:
    """Here a process may die. Raises `Killed` for one that is dead."""
    life = LIFE.get()
    if life is None:
        return
    if life.alive:
        life.at(life, kind)
    if not life.alive:
        raise Killed(life.name)


def verb(sql: str) -> str:
    """What a statement does, for the table: `INSERT ledger`.

    >>> verb("INSERT INTO ledger (writer) VALUES (?)"), verb("COMMIT")
    ('INSERT ledger', 'COMMIT')
    """
    words = sql.replace("(", " ").split()
    first = words[0].upper()
    after = {"INSERT": "INTO", "REPLACE": "INTO", "DELETE": "FROM"}.get(first)
    return f"{first} {words[[w.upper() for w in words].index(after) + 1]}" if after in [w.upper() for w in words] else first


class Cursor(sqlite3.Cursor):
    """A cursor whose statements are edges."""

    def execute(self, sql: str, *values: Any) -> Self:
        return around(sql, lambda: super(Cursor, self).execute(sql, *values))

    def executemany(self, sql: str, *values: Any) -> Self:
        return around(sql, lambda: super(Cursor, self).executemany(sql, *values))


class Connection(sqlite3.Connection):
    """A connection whose statements are edges."""

    def cursor(self, factory: Any = Cursor) -> Any:
        return super().cursor(factory)

    def execute(self, sql: str, *values: Any) -> sqlite3.Cursor:
        return around(sql, lambda: super(Connection, self).execute(sql, *values))

    def executemany(self, sql: str, *values: Any) -> sqlite3.Cursor:
        return around(sql, lambda: super(Connection, self).executemany(sql, *values))

    def commit(self) -> None:
        if self.in_transaction:
            around("COMMIT", super().commit)


def around(sql: str, run: Callable[[], Any]) -> Any:
    """The statement with its edges: before each that writes, and after a COMMIT."""
    said = sql.lstrip()
    if said[:6].upper().startswith(QUIET):
        edge_if_dead()
        return run()
    edge(f"sql: before {verb(said)}")
    got = run()
    if said.upper().startswith("COMMIT"):
        edge("sql: after COMMIT")
    return got


def edge_if_dead() -> None:
    """The dead do not even read."""
    life = LIFE.get()
    if life is not None and not life.alive:
        raise Killed(life.name)


@contextmanager
def watched(wall: Callable[[], float], monotonic: Callable[[], float]) -> Iterator[None]:
    """The process's files, databases and clocks, as edges and on the loop's time."""
    connect, replace, fsync = sqlite3.connect, os.replace, os.fsync

    def connected(*args: Any, **more: Any) -> sqlite3.Connection:
        return connect(*args, **({"factory": Connection} | more))

    def replaced(source, target, **more) -> None:
        edge("file: before rename")
        replace(source, target, **more)
        edge("file: after rename")

    def synced(number: int) -> None:
        edge("file: written, not synced")
        fsync(number)
        edge("file: synced, not renamed")

    with ExitStack() as stack:
        for where, name, by in ((sqlite3, "connect", connected), (sqlite3.dbapi2, "connect", connected), (os, "replace", replaced),
                                (os, "fsync", synced)):
            stack.enter_context(mock.patch.object(where, name, by))
        stack.enter_context(mock.patch("time.time", wall))
        stack.enter_context(mock.patch("time.monotonic", monotonic))
        yield
