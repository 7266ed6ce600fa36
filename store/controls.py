"""A person's word to the desk, beside the broker: written as a file that the desk takes before it decides again, confirmed by the ledger.

A KILL must not be lost with a broker's log, and who gave it must know whether it is in force. So it is a file of its own in
`data/controls/` until the desk has it in its ledger; and what stands is read from the ledger: the last snapshot and what followed.
"""
import os
import re
from collections.abc import Iterator
from pathlib import Path

import msgspec
import sqlalchemy as sa

from config.settings import Settings
from engine.facts import CRIT, KILL, Control
from store import tables
from store.chain import UNREADABLE, broken, entry_in, snapshot_digest
from store.database import connect, naming, reading
from store.ledger import CONTROL
from store.shapes import odd
from store.words import folder, leave

__all__ = ["BAD", "InForce", "folder", "found", "in_force", "leave", "left", "taken"]

BAD = (OSError, ValueError, msgspec.MsgspecError)      # a file that cannot be read, or says nothing


class InForce(msgspec.Struct):
    """The KILLs that halt the desk (by id, with who and why), and the ids of the last controls that acted.

    `vain`: the CRITs since the last snapshot that came while a KILL stood, and so changed nothing.
    """
    kills: dict[str, str] = {}
    controls: dict[str, None] = {}
    vain: list[str] = []


class _Snapshot(msgspec.Struct):
    desk: bytes


def left(settings: Settings) -> Iterator[tuple[Path, Control]]:
    """What waits, oldest first. A file that cannot be read is a KILL that says so: nobody knows what was meant."""
    try:
        waiting = sorted(p for p in folder(settings).iterdir() if p.suffix == ".json")
    except FileNotFoundError:
        return
    for path in waiting:
        try:
            yield path, _read(path)
        except BAD as error:
            name, what = re.sub(r"[^\w.@-]+", "_", path.stem, flags=re.ASCII), ascii(f"{path}: {error}")[1:-1]
            yield path, Control(f"kill-unreadable-{name}-{_stamp(path)}", KILL, "risk", what, 0, 0)


def _read(path: Path) -> Control:
    return msgspec.json.decode(path.read_bytes(), type=Control)


def _stamp(path: Path) -> int:
    """Tells two files of one name apart."""
    try:
        return path.stat().st_mtime_ns
    except OSError:
        return 0


def taken(path: Path) -> bool:
    """It is in the ledger; what could not be read is kept beside. False where the file stays: its word acts no second time."""
    try:
        try:
            _read(path)
        except FileNotFoundError:
            return True
        except BAD:
            os.replace(path, path.with_name(f"{path.stem}-{_stamp(path)}.unreadable"))
            return True
        path.unlink(missing_ok=True)
    except OSError:
        return False
    return True


def in_force(url: str, writer: str = "risk") -> InForce:
    """What halts the desk of this ledger; `LedgerError` where it cannot be read."""
    engine = connect(url, create=False)
    try:
        with naming(url), reading(engine) as connection:
            return found(connection, writer)
    finally:
        engine.dispose()


def found(connection: sa.Connection, writer: str = "risk") -> InForce:
    """The same over a connection of one's own."""
    s, t, known, after = tables.snapshots, tables.ledger, InForce(), 0
    if not sa.inspect(connection).has_table(t.name):
        return known
    for row in connection.execute(sa.select(s).where(s.c.writer == writer).order_by(s.c.seq.desc())):
        if not odd(s, row) and row.sha256 == snapshot_digest(writer, row.seq, row.ts_ms, row.blob):
            try:
                desk = msgspec.msgpack.decode(row.blob, type=_Snapshot).desk
                known, after = msgspec.msgpack.decode(desk, type=InForce), row.seq
            except UNREADABLE as error:
                raise broken(connection.engine, f"{writer}/{row.seq} snapshots", f"the state cannot be read: {error}") from None
            break
    told = sa.select(t).where(t.c.writer == writer, t.c.seq > after, t.c.kind == CONTROL).order_by(t.c.seq)
    for row in connection.execute(told):
        for fact in entry_in(connection.engine, row, writer).consumed:
            if isinstance(fact, Control) and fact.id not in known.controls:
                known.controls[fact.id] = None
                if fact.kind == CRIT and known.kills:
                    known.vain.append(fact.id)
                if fact.kind == KILL:
                    known.kills[fact.id] = fact.word
                for name in fact.kills:
                    known.kills.pop(name, None)
    return known
