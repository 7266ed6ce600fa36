"""The journal run again beside the live desk: a second Desk is fed what the first consumed, and every answer is compared.

So that "live equals replay" is a series one can alarm on, not a claim. It reads behind the hot path and holds no lock.
"""
from collections.abc import Iterator
from typing import NamedTuple

import msgspec
import sqlalchemy as sa

from config.settings import Settings
from engine.desk import Desk
from engine.facts import Approved, DroppedBatch, Outcomes, Rewarded
from store import tables
from store.blob import Entry
from store.chain import UNREADABLE, broken, chained, entry_in, rows
from store.closed import Digests
from store.database import connect, naming, reading
from store.shapes import odd

PAGE = 200


class HostDesk(msgspec.Struct):
    """What of a host's snapshot the audit reads."""
    desk: bytes


def answers_of(record) -> list:
    """The Desk's answers in a published record, in their order."""
    if isinstance(record, Approved):
        return list(record.acts())
    if isinstance(record, Outcomes):
        return [*record.written_off, *record.items]
    return list(record.items) if isinstance(record, (DroppedBatch, Rewarded)) else []


def differing(said: list, written: list) -> int:
    """How many answers differ by a byte, whatever record they went out in."""
    a, b = sorted(map(msgspec.msgpack.encode, said)), sorted(map(msgspec.msgpack.encode, written))
    return sum(x != y for x, y in zip(a, b)) + abs(len(a) - len(b)) if a != b else 0


class Rerun(NamedTuple):
    """A journal run again: how much it was, and the first transaction that answers otherwise, with what was said and what was written."""
    facts: int
    answers: int
    wrong: tuple[int, bytes, bytes] | None


def rerun(url: str, settings: Settings, digests: Digests, writer: str = "risk") -> Rerun:
    """Feeds a journal's facts to a fresh Desk in their order, compares every answer with what was written, and digests the run."""
    desk = Desk(settings)
    facts = answers = 0
    for entry in entries(url, writer):
        said: list[bytes] = []
        for fact in entry.consumed:
            outs = desk.on(fact)
            said += map(msgspec.msgpack.encode, outs)
            digests.step(fact, outs)
        written = sorted(msgspec.msgpack.encode(o) for record in entry.produced for o in answers_of(record))
        if sorted(said) != written:
            return Rerun(facts, answers, (entry.seq, *next((a, b) for a, b in zip([*sorted(said), b""], [*written, b""]) if a != b)))
        facts, answers = facts + len(entry.consumed), answers + len(said)
    return Rerun(facts, answers, None)


def entries(url: str, writer: str = "risk") -> Iterator[Entry]:
    """A writer's transactions in their order, read beside the writer; `LedgerError` where the ledger cannot be read, and at the first
    that is not what was written."""
    with naming(url):
        engine = connect(url, create=False)
        yield from chained(engine, writer, rows(engine, writer))


class Auditor:
    """Follows one writer's chain from its last snapshot."""

    def __init__(self, url: str, settings: Settings, writer: str = "risk"):
        self.engine, self.writer, self.at, self.differs = connect(url), writer, 0, 0
        self.desk = Desk(settings)
        t = tables.snapshots
        with reading(self.engine) as connection:
            last = connection.execute(sa.select(t).where(t.c.writer == writer).order_by(t.c.seq.desc()).limit(1)).first()
        if last:
            if what := odd(t, last):
                raise broken(self.engine, f"{writer}/{last.seq} snapshots", what)
            self.at = last.seq
            try:
                self.desk.restore(msgspec.msgpack.decode(last.blob, type=HostDesk).desk)
            except UNREADABLE as error:
                raise broken(self.engine, f"{writer}/{last.seq} snapshots", f"the state cannot be read: {error}") from None

    def run_once(self, limit: int = PAGE) -> tuple[int, int]:
        """(transactions compared, answers that differ) of the next stretch."""
        compared = wrong = 0
        for row in rows(self.engine, self.writer, self.at, self.at + limit):
            entry = entry_in(self.engine, row, self.writer)
            said = [out for fact in entry.consumed for out in self.desk.on(fact)]
            wrong += differing(said, [a for record in entry.produced for a in answers_of(record)])
            self.at, compared = entry.seq, compared + 1
        self.differs += wrong
        return compared, wrong


def desk_of(settings: Settings, url: str) -> Desk:
    """The Desk as its ledger has it now: the last snapshot and what followed. `LedgerError` where there is none, or it cannot be read."""
    connect(url, create=False).dispose()
    with naming(url):
        auditor = Auditor(url, settings)
        try:
            while auditor.run_once()[0]:
                pass
        finally:
            auditor.engine.dispose()
    return auditor.desk
