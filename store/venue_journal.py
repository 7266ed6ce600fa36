"""What the local exchange remembers: its session, its floors, and everything that happened to orders.

A SQLite file of its own, because a venue is not part of the desk: it outlives its clients and restores its book of orders.
"""
import sqlite3
import uuid
from collections.abc import Iterable, Sequence
from pathlib import Path

import msgspec

from engine.execution.floor import Saved
from engine.facts import Fill, Report
from store.database import hinted

_happened = msgspec.msgpack.Decoder(Report | Fill)


class JournalError(Exception):
    """The journal cannot be read or written: which file, why, what to do."""


class VenueJournal:
    """One exchange's file; each `commit` is one transaction."""

    def __init__(self, path: Path):
        self.path = path
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self.db = sqlite3.connect(path, isolation_level=None)
            self.db.executescript("""
                PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL;
                CREATE TABLE IF NOT EXISTS session(n INTEGER PRIMARY KEY, id TEXT UNIQUE, what TEXT, start_ms INT, ended INT DEFAULT 0);
                CREATE TABLE IF NOT EXISTS floor(symbol TEXT PRIMARY KEY, saved BLOB, source BLOB);
                CREATE TABLE IF NOT EXISTS journal(id TEXT);
                CREATE TABLE IF NOT EXISTS happened(symbol TEXT, seq INT, blob BLOB, PRIMARY KEY(symbol, seq)) WITHOUT ROWID;
            """)
            if not self.db.execute("SELECT id FROM journal").fetchone():
                self.db.execute("INSERT INTO journal VALUES(?)", (uuid.uuid4().hex,))
            self.id: str = self.db.execute("SELECT id FROM journal").fetchone()[0]
        except (sqlite3.Error, OSError) as error:
            raise SystemExit(f"{path}: the exchange cannot keep its journal there ({hinted(str(error))})") from error

    def session(self, what: str, start_ms: int, wanted: str = "") -> tuple[str, int, bool]:
        """(session, its first market time, whether it goes on): the open one of the same market, else a new one."""
        row = self.db.execute("SELECT id, what, start_ms, ended FROM session ORDER BY n DESC LIMIT 1").fetchone()
        if row and row[1] == what and not row[3] and wanted in ("", row[0]):
            return row[0], row[2], True
        count = self.db.execute("SELECT count(*) FROM session").fetchone()[0]
        name = wanted or f"s{count + 1}"
        self.db.execute("INSERT OR REPLACE INTO session(id, what, start_ms) VALUES(?,?,?)", (name, what, start_ms))
        return name, start_ms, False

    def end(self, session: str) -> None:
        """The market of this session is over."""
        self.db.execute("UPDATE session SET ended=1 WHERE id=?", (session,))

    def floors(self) -> dict[str, tuple[Saved, bytes]]:
        """Each symbol's saved floor and market source."""
        return {symbol: (msgspec.msgpack.decode(saved, type=Saved), source)
                for symbol, saved, source in self.db.execute("SELECT symbol, saved, source FROM floor")}

    def commit(self, symbol: str, saved: Saved, source: bytes, happened: Sequence[Report | Fill] = ()) -> None:
        """The floor as it stands now, with what has just happened: all of it or, raising `JournalError`, nothing."""
        try:
            self.db.execute("BEGIN IMMEDIATE")
            self.db.execute("REPLACE INTO floor VALUES(?,?,?)", (symbol, msgspec.msgpack.encode(saved), source))
            self.db.executemany("INSERT OR IGNORE INTO happened VALUES(?,?,?)",
                                [(symbol, h.seq, msgspec.msgpack.encode(h)) for h in happened])
            self.db.execute("COMMIT")
        except sqlite3.Error as error:
            if self.db.in_transaction:
                self.db.execute("ROLLBACK")
            raise JournalError(f"{self.path}: the venue's journal cannot be written: {hinted(str(error))}") from error

    def after(self, symbol: str, seq: int) -> Iterable[Report | Fill]:
        """What happened after this number."""
        for (blob,) in self.db.execute("SELECT blob FROM happened WHERE symbol=? AND seq>? ORDER BY seq", (symbol, seq)):
            yield _happened.decode(blob)
