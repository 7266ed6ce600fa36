"""What people query: tables that follow the ledger, behind the hot path, and can be filled again from nothing.

Each page of a writer's entries becomes rows in one short transaction together with the mark up to which it has been read, so that a
killed projector goes on where it stood and no row is counted twice. What is told twice is known by its id: the first telling stays.
An order's status follows the venue's reports and the fills, whichever comes first; `filled` counts fills alone. A symbol's position
holds every fill that the venue told, at average cost, and its realised result is after the fees paid so far.
"""
import functools
import operator
import threading
import typing
from collections.abc import Callable, Iterable
from typing import Any

import msgspec
import sqlalchemy as sa

from engine.facts import Approved, Control, DroppedBatch, Fill, Fills, Outcomes, Record, Report, Reports, Rewarded, ScoredBatch, account_of
from engine.rewards.attribution import Attributed
from store import tables
from store.blob import Refusals, whole
from store.chain import UNREADABLE, broken, page_of
from store.database import LedgerError, Prepared, connect, naming, reading, shown, upsert
from store.revisions import migrate
from store.rows import (
    Row,
    allowed_row,
    control_row,
    fill_row,
    filled,
    moved,
    off_row,
    order_row,
    outcome_row,
    refused_row,
    reported,
    reward_row,
)
from store.shapes import called, odd

PAGE = 200             # entries a transaction
FOLLOWED = 50          # while following a desk at work: its own writes wait for no longer than these take
LOOKED_UP = 500        # ids a query
BREATH_S = 0.002       # between two pages when there is much to catch up with: the desk goes first

INSERTED = (tables.decisions, tables.outcomes, tables.controls, tables.fills, tables.rewards, tables.places)     # never change once told
REPLACED = (tables.orders, tables.positions)


def _reading(*wanted: type[msgspec.Struct]) -> Any:
    """A union that decodes these facts and skips every other one that may stand beside them."""
    tags = {fact.__struct_config__.tag for fact in wanted}
    others = [kind.__struct_config__.tag for kind in typing.get_args(Record | Report | Fill | Refusals)]
    blanks = [msgspec.defstruct("Unread", [], tag=tag) for tag in others if tag not in tags]
    return functools.reduce(operator.or_, [*wanted, *blanks])


_HEARD: Any = _reading(ScoredBatch, Report, Fill, Reports, Fills, Control)
_SAID: Any = _reading(Approved, DroppedBatch, Refusals, Outcomes, Rewarded, Control)
READ = msgspec.msgpack.Decoder(msgspec.defstruct("Read", [("consumed", list[_HEARD]), ("produced", list[_SAID])]))


class Page:
    """The rows that a page of entries leads to, folded over what the tables hold of them already."""

    def __init__(self, connection: sa.Connection, writer: str, read: list[tuple[int, Any]]):
        told = [whole(entry.consumed, entry.produced) for _, entry in read]
        said = [s for produced in told for s in produced]
        heard = [h for _, entry in read for h in entry.consumed]
        fills = [f for h in heard for f in (h.items if isinstance(h, Fills) else [h] if isinstance(h, Fill) else [])]
        fills += [off.fill for s in said if isinstance(s, Outcomes) for off in s.written_off if off.fill]
        touched = {f.order_id for f in fills} | {
            r.order_id for h in heard for r in (h.items if isinstance(h, Reports) else [h] if isinstance(h, Report) else [])}
        sent = {o.id for s in said if isinstance(s, Approved) for o in s.orders}
        sent |= {off.id for s in said if isinstance(s, Outcomes) for off in s.written_off}
        taken_back = {c.order_id for s in said if isinstance(s, Approved) for c in s.cancels}
        self.rows: dict[sa.Table, dict[str, Row]] = {t: {} for t in (*INSERTED, *REPLACED)}
        self.rows[tables.orders] = {row[0]: row for row in _known(connection, tables.orders, touched | sent | taken_back)}
        self.rows[tables.positions] = {row[0]: row for row in _known(connection, tables.positions, {book(f) for f in fills})}
        self.old_fills = {row[0] for row in _known(connection, tables.fills, {f.id for f in fills})}
        self.writer, self.seq = writer, 0
        for (self.seq, entry), produced in zip(read, told):
            for fact in (*entry.consumed, *produced):
                if fold := FOLDS.get(type(fact)):
                    fold(self, fact)

    def told(self, entry_id: str) -> None:
        """This place speaks of an entry."""
        self.rows[tables.places][f"{entry_id} {self.seq}"] = [entry_id, self.writer, self.seq]

    def order(self, order_id: str) -> Row | None:
        """The row of an order that was sent, and a word of its entry's story."""
        if row := self.rows[tables.orders].get(order_id):
            self.told(row[1])
        return row

    # one fact

    def approved(self, fact: Approved) -> None:
        for cancel in fact.cancels:
            self.order(cancel.order_id)
        for order in fact.orders:
            self.told(order.entry_id)
            self.rows[tables.orders].setdefault(order.id, order_row(order))
            if order.decision:
                self.rows[tables.decisions].setdefault(order.decision.id, allowed_row(order.decision))

    def dropped(self, fact: DroppedBatch) -> None:
        for item in fact.items:
            self.rows[tables.decisions].setdefault(item.id, refused_row(item))

    def outcomes(self, fact: Outcomes) -> None:
        for off in fact.written_off:
            self.told(off.plan)
            self.rows[tables.orders].setdefault(off.id, off_row(off))
            if off.fill:
                self.fill(off.fill)
        for item in fact.items:
            self.told(item.id)
            self.rows[tables.outcomes].setdefault(item.id, outcome_row(item))

    def rewarded(self, fact: Rewarded) -> None:
        for item in fact.items:
            if isinstance(item, Attributed):
                self.rows[tables.rewards].setdefault(item.order_id, reward_row(item))

    def control(self, fact: Control) -> None:
        self.rows[tables.controls].setdefault(fact.id, control_row(fact))

    def report(self, fact: Report) -> None:
        if row := self.order(fact.order_id):
            reported(row, fact)

    def fill(self, fact: Fill) -> None:
        row = self.order(fact.order_id)
        if fact.id in self.old_fills or fact.id in self.rows[tables.fills]:
            return
        self.rows[tables.fills][fact.id] = fill_row(fact)
        if row:
            filled(row, fact)
        name = book(fact)
        moved(self.rows[tables.positions].setdefault(name, [name, 0.0, 0.0, 0.0, 0.0, 0]), fact)


def book(fill: Fill) -> str:
    """Whose position a fill moves: the symbol's, or that of its paper twin."""
    return f"{fill.symbol} {account}" if (account := account_of(fill.order_id)) else fill.symbol


def _each(one: Callable[[Page, Any], None]) -> Callable[[Page, Any], None]:
    def all_of(page: Page, batch: Any) -> None:
        for item in batch.items:
            one(page, item)
    return all_of


FOLDS: dict[type, Callable[[Page, Any], None]] = {
    Approved: Page.approved, DroppedBatch: Page.dropped, Outcomes: Page.outcomes, Rewarded: Page.rewarded, Control: Page.control,
    Report: Page.report,
    Fill: Page.fill, Reports: _each(Page.report), Fills: _each(Page.fill)}


def _known(connection: sa.Connection, table: sa.Table, ids: Iterable[str]) -> list[Row]:
    key, wanted = next(iter(table.primary_key)), sorted(ids)
    return [list(row) for i in range(0, len(wanted), LOOKED_UP)
            for row in connection.execute(sa.select(table).where(key.in_(wanted[i:i + LOOKED_UP])))]


class Projector:
    """Keeps the projections of a ledger; has its own connections, writes little at a time, and may be killed at any moment."""

    def __init__(self, url: str):
        self.url, self.engine = url, connect(url)
        migrate(self.engine)
        self._insert = {t: Prepared(self.engine, upsert(self.engine, t, update=t in REPLACED), list(t.c.keys()))
                        for t in (*INSERTED, *REPLACED)}

    def close(self) -> None:
        """Lets go of the connections."""
        self.engine.dispose()

    def behind(self) -> dict[str, int]:
        """By writer, how many entries are not projected yet."""
        t, m = tables.ledger, tables.projection_marks
        with naming(self.url), reading(self.engine) as connection:
            named = connection.scalars(sa.select(tables.meta.c.name).where(tables.meta.c.name.like("head:%")).order_by(tables.meta.c.name))
            writers = [name.removeprefix("head:") for name in named if isinstance(name, str)]
            read = {row.writer: row.seq for row in connection.execute(sa.select(m))}
            heads = {w: connection.scalar(sa.select(sa.func.max(t.c.seq)).where(t.c.writer == w)) or 0 for w in writers}
        for writer, seq in heads.items():
            if type(seq) is not int:
                raise broken(self.engine, writer, f"seq is {called(seq)}, a whole number was written")
            if type(read.get(writer, 0)) is not int:
                raise LedgerError(f"ledger {shown(self.url)}: projection_marks of {writer} is {called(read[writer])}; "
                                  "run python -m scripts.rebuild_projections")
        return {w: heads[w] - read.get(w, 0) for w in writers}

    def run_once(self, limit: int | None = None) -> int:
        """Projects new entries of every writer, at most `limit` of them; returns how many."""
        done = 0
        with naming(self.url):
            for writer, waiting in self.behind().items():
                while waiting > 0 and (limit is None or done < limit):
                    took = self._page(writer, PAGE if limit is None else min(PAGE, limit - done))
                    if not took:
                        break
                    done, waiting = done + took, waiting - took
        return done

    def _page(self, writer: str, most: int) -> int:
        m = tables.projection_marks
        with reading(self.engine) as connection:
            mark = connection.scalar(sa.select(m.c.seq).where(m.c.writer == writer)) or 0
            raw = page_of(connection, writer, mark, None, most)
            if not raw:
                return 0
            page = Page(connection, writer, [(row.seq, self._read(row, writer)) for row in raw])
        with self.engine.begin() as connection:
            if self.engine.dialect.name == "postgresql":
                connection.execute(sa.text("LOCK TABLE projection_marks IN EXCLUSIVE MODE"))
            if (connection.scalar(sa.select(m.c.seq).where(m.c.writer == writer)) or 0) != mark:
                return 0        # another projector was faster: what it wrote is what this would have written
            cursor = connection.connection.cursor()
            for table, some in page.rows.items():
                if some:
                    cursor.executemany(self._insert[table].sql, self._insert[table].many(list(some.values())))
            cursor.close()
            connection.execute(upsert(self.engine, m), {"writer": writer, "seq": raw[-1].seq})
        return len(raw)

    def _read(self, row: sa.Row, writer: str) -> Any:
        if what := odd(tables.ledger, row):
            raise broken(self.engine, f"{writer}/{row.seq}", what)
        try:
            return READ.decode(row.blob)
        except UNREADABLE as error:
            raise broken(self.engine, f"{writer}/{row.seq}", f"the row cannot be read: {error}") from None

    def rebuild(self) -> int:
        """Drops every projection and fills it again from the first entry; returns how many. Interrupted, `run_once` goes on."""
        with naming(self.url), self.engine.begin() as connection:
            tables.metadata.drop_all(connection, tables=list(tables.PROJECTIONS))
            tables.metadata.create_all(connection, tables=list(tables.PROJECTIONS))
        return self.run_once()

    def follow(self, stop: threading.Event, every_s: float = 0.2) -> None:
        """Projects what comes until told to stop; for a thread of its own."""
        while not stop.is_set():
            stop.wait(every_s if not self.run_once(FOLLOWED) else BREATH_S)

