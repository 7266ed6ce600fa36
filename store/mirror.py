"""The Desk as it stands now, for who looks at it: a second Desk that follows the ledger, from the last snapshot on.

A look costs what was written since the look before, and never more than what follows a snapshot (`ledger.snapshot_every`); nothing runs
while nobody looks. It reads only. The answers of the re-run are compared with what was written: `differs` above 0 means that this process
has other settings than the desk, or is another version of it: what it shows may be wrong until the next snapshot, where it begins anew.
"""
import threading
import time
from collections import deque

import msgspec
import numpy as np
import sqlalchemy as sa

from config.settings import Settings
from engine.desk import Desk
from engine.facts import Market
from engine.sizing.collateral import Worth
from engine.state import State
from store import tables
from store.audit import HostDesk, answers_of, differing
from store.chain import UNREADABLE, broken, entry_in, page_of, snapshot_digest
from store.database import LedgerError, naming, reading
from store.shapes import odd

PAGE = 200
PATIENCE_S = 0.4         # a look takes no longer: what is left is for the next one
FAR = 1000               # so far behind a snapshot the stretch before it is left out
TOUCHES = 3000           # kept of each symbol, one a stretch of market
BEFORE = 1200            # transactions before the first look whose markets are read


class Touch(msgspec.Struct, frozen=True, array_like=True):
    """Best prices of a stretch of market's end, in quote currency."""
    ts_ms: int
    bid: float
    ask: float


class Seen(msgspec.Struct, frozen=True):
    """A look. `state` is a copy; `at` the transaction that it stands after, `behind` how many follow that were not reached in time;
    `trading` ACTIVE, REDUCING or HALTED; `depth` the base units of the first levels of bid and ask by symbol, as the Desk reads them;
    `collateral` its price in force."""
    state: State
    trading: str
    at: int
    behind: int
    differs: int
    touches: dict[str, list[Touch]]
    depth: dict[str, tuple[float, float]]
    collateral: Worth


class Mirror:
    """One for all who look; `engine` may be read-only."""

    def __init__(self, engine: sa.Engine, settings: Settings, writer: str = "risk"):
        self.engine, self.settings, self.writer = engine, settings, writer
        self.lock = threading.Lock()
        self.last: tuple[float, Seen | None] = 0.0, None
        self._anew()

    def _anew(self) -> None:
        self.desk, self.at, self.restored, self.hash, self.differs = Desk(self.settings), 0, 0, b"", 0
        self.touches: dict[str, deque[Touch]] = {}
        self.depth: dict[str, tuple[float, float]] = {}

    def look(self, fresh_s: float = 0.5) -> Seen:
        """The desk now, or as another saw it no longer ago than this; `LedgerError` where it cannot be read."""
        with self.lock:
            at, seen = self.last
            if seen is None or time.monotonic() - at > fresh_s:
                with naming(str(self.engine.url)):
                    seen = self._look(time.monotonic() + PATIENCE_S)
                self.last = time.monotonic(), seen
            return seen

    def _look(self, until: float) -> Seen:
        t, s = tables.ledger, tables.snapshots
        with reading(self.engine) as connection:
            head = connection.scalar(sa.select(sa.func.max(t.c.seq)).where(t.c.writer == self.writer)) or 0
            kept = connection.scalar(sa.select(sa.func.max(s.c.seq)).where(s.c.writer == self.writer)) or 0
        if head < self.at:
            self._anew()           # another ledger lies there now
        if kept - self.at > (FAR if self.at else 0) or (self.differs and kept > self.restored):
            self._restore()        # what differs lasts no longer than to the next snapshot
        while self.at < head and time.monotonic() < until and self._page():
            pass
        state = msgspec.msgpack.decode(self.desk.snapshot(), type=State)
        return Seen(state, self.desk.trading, self.at, max(0, head - self.at), self.differs,
                    {symbol: list(some) for symbol, some in self.touches.items()}, dict(self.depth),
                    self.desk.entering.collateral(self.desk.state))

    def _restore(self) -> None:
        """From the newest snapshot that is what was written; where none is, on from here."""
        first, s = not self.at, tables.snapshots
        with reading(self.engine) as connection:
            found = connection.execute(sa.select(s).where(s.c.writer == self.writer).order_by(s.c.seq.desc())).all()
        for row in found:
            if odd(s, row) or row.sha256 != snapshot_digest(self.writer, row.seq, row.ts_ms, row.blob):
                continue
            try:
                self.desk.restore(msgspec.msgpack.decode(row.blob, type=HostDesk).desk)
            except UNREADABLE as error:
                raise broken(self.engine, f"{self.writer}/{row.seq} snapshots", f"the state cannot be read: {error}") from None
            self.at, self.restored, self.hash = row.seq, row.seq, b""
            if first:
                self._markets(row.seq)
            return

    def _markets(self, upto: int) -> None:
        """What the market was before the first look."""
        after = max(0, upto - BEFORE)
        while after < upto:
            with reading(self.engine) as connection:
                some = page_of(connection, self.writer, after, upto, PAGE)
            if not some:
                return
            for row in some:
                for fact in entry_in(self.engine, row, self.writer).consumed:
                    self._market(fact)
            after = some[-1].seq

    def _page(self) -> bool:
        with reading(self.engine) as connection:
            some = page_of(connection, self.writer, self.at, None, PAGE)
        for row in some:
            entry = entry_in(self.engine, row, self.writer)
            if self.hash and row.prev_hash != self.hash:
                self._anew()       # another ledger lies there now
                raise LedgerError(f"{self.writer}/{row.seq} does not follow what was read before: another ledger lies there now")
            said = []
            for fact in entry.consumed:
                said += self.desk.on(fact)
                self._market(fact)
            self.differs += differing(said, [a for record in entry.produced for a in answers_of(record)])
            self.at, self.hash = row.seq, row.hash
        return bool(some)

    def _market(self, fact: object) -> None:
        if not isinstance(fact, Market) or not fact.ts:
            return
        ts, bid, ask = (np.frombuffer(raw, kind)[-1] for raw, kind in ((fact.ts, np.int64), (fact.bid, np.int32), (fact.ask, np.int32)))
        known = self.touches.setdefault(fact.symbol, deque(maxlen=TOUCHES))
        known.append(Touch(int(ts), round(int(bid) * fact.tick, 10), round(int(ask) * fact.tick, 10)))
        self.depth[fact.symbol] = (fact.bid_depth * fact.lot, fact.ask_depth * fact.lot)
