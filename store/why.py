"""Why was this order sent, and what came of it? One order's whole chain, read from the ledger itself.

The index of orders leads to the entry. Which later transactions speak of it the projection `places` knows, as far as the projector
has come; from there on the chain is followed until the position is closed, looking only into transactions that name one of its orders.
What is told was checked against its hash.
"""
import difflib
from collections.abc import Iterator, Sequence

import msgspec
import sqlalchemy as sa

from engine.facts import (
    CANCELLED,
    DONE,
    ENTRY,
    REJECTED,
    Approved,
    Cancel,
    Candidate,
    Decision,
    Fill,
    Fills,
    Order,
    Outcome,
    Outcomes,
    Report,
    Reports,
    Rewarded,
    WrittenOff,
    account_of,
)
from engine.rewards.attribution import Attributed
from store import tables
from store.blob import Entry
from store.chain import checked, entry_in, place_of, rows
from store.database import LedgerError, connect, naming, reading

NEAREST = 5
PAGE = 40        # rows a query: most stories are short


class UnknownOrder(LookupError):
    """No chain sent this order; `nearest` are ids that one may have meant."""

    def __init__(self, order_id: str, nearest: Sequence[str]):
        self.order_id, self.nearest = order_id, list(nearest)
        near = f"; near it are {', '.join(self.nearest)}" if nearest else "; the ledger has no orders yet"
        super().__init__(f"{order_id}: no such order in the ledger{near}")


class Place(msgspec.Struct, frozen=True):
    """Where a fact stands in the ledger; `hash` in hex, recomputed and found right."""
    writer: str
    seq: int
    ts_ms: int
    hash: str


class Step(msgspec.Struct, frozen=True):
    """A fact of the story and its place: an order, a cancel, a report, a fill, what was written off, the outcome, or what it was worth
    to its arm."""
    at: Place
    fact: Order | Cancel | Report | Fill | WrittenOff | Outcome | Attributed


class Story(msgspec.Struct, frozen=True):
    """An order's chain. `order` is the one that was asked for, `entry` the first level of the entry that opened its position, whose
    decision holds the score and the candidate; `steps` all that followed, in the ledger's order, without repeats. `real` is the entry
    that a paper twin doubles."""
    order: Order
    entry: Order
    steps: list[Step]
    real: Order | None = None

    @property
    def decision(self) -> Decision | None:
        """What was decided, with the score and the candidate inside; of a twin, for the entry that it doubles."""
        return self.entry.decision or (self.real.decision if self.real else None)

    @property
    def reward(self) -> Attributed | None:
        """What it was worth to its arm; None before it has ended, and for a twin."""
        return next((s.fact for s in self.steps if isinstance(s.fact, Attributed)), None)

    @property
    def outcome(self) -> Outcome | None:
        """How it ended; None while it is open, and where nothing was filled."""
        return next((s.fact for s in self.steps if isinstance(s.fact, Outcome)), None)


def features_of(candidate: Candidate) -> dict[str, float]:
    """The candidate's features by name; by number where it was made with another list of features than this version declares."""
    import numpy as np

    from engine.scoring.features import FEATURES, SCHEMA_HASH
    values = np.frombuffer(candidate.features, np.float32).tolist()
    named = candidate.schema_hash == SCHEMA_HASH and len(values) == len(FEATURES)
    return dict(zip(FEATURES if named else [f"feature {i}" for i in range(len(values))], values))


def why(url: str, order_id: str, scan: bool = False) -> Story:
    """The story of an order id, or of the entry of a decision or candidate id; `UnknownOrder` where no chain sent it.

    `scan` believes no projection and reads the chain from the entry on: what may be left out of a projection is under no hash.
    """
    engine = connect(url, create=False)
    try:
        with naming(url):
            named = order_id.removeprefix("D-")
            for meant in dict.fromkeys((order_id, f"E-{named}", f"T-{named}")):
                if place := place_of(engine, meant):
                    return _follow(engine, meant, *place, scan)
            raise UnknownOrder(order_id, nearest(engine, order_id))
    finally:
        engine.dispose()


def order_of(engine: sa.Engine, order_id: str) -> Order | None:
    """An order as it was sent, by its own id or its candidate's, checked against its hash; None where no chain sent it."""
    for meant in dict.fromkeys((order_id, f"E-{order_id.removeprefix('D-')}", f"T-{order_id.removeprefix('D-')}")):
        if place := place_of(engine, meant):
            return _sent(engine, meant, *place)
    return None


def refused(url: str, decision_id: str) -> dict | None:
    """The row of a refusal, by decision or candidate id; None where there is none in the projections."""
    engine = connect(url, create=False)
    t = tables.decisions
    try:
        with naming(url), reading(engine) as connection:
            row = connection.execute(sa.select(t).where(t.c.id.in_([decision_id, f"D-{decision_id}"]), t.c.allowed.is_(False))).first()
            return dict(row._mapping) if row else None
    finally:
        engine.dispose()


def nearest(engine: sa.Engine, order_id: str, most: int = NEAREST) -> list[str]:
    """Known ids that look most like this one, from its neighbours in the index."""
    t = tables.order_index
    with reading(engine) as connection:
        found = {i for like in (order_id, f"E-{order_id.removeprefix('D-')}") for wanted in (
                     sa.select(t.c.order_id).where(t.c.order_id >= like).order_by(t.c.order_id).limit(20),
                     sa.select(t.c.order_id).where(t.c.order_id < like).order_by(t.c.order_id.desc()).limit(20))
                 for i in connection.scalars(wanted) if isinstance(i, str)}
    return difflib.get_close_matches(order_id, sorted(found), most, 0.0)


def _follow(engine: sa.Engine, order_id: str, writer: str, seq: int, scan: bool) -> Story:
    order = _sent(engine, order_id, writer, seq)
    entry_place = place_of(engine, order.entry_id)
    if entry_place is None:
        raise LedgerError(f"{order_id}: its entry {order.entry_id} is not in the index; run python -m scripts.verify_ledger")
    entry = _sent(engine, order.entry_id, *entry_place)
    tail = _Tail(entry.id)
    for row in _told(engine, entry.id, writer, entry_place[1], scan):
        if type(row.blob) is not bytes or tail.names(row.blob):
            tail.read(Place(writer, row.seq, row.ts_ms, checked(engine, row, writer).hex()), entry_in(engine, row, writer))
            if tail.over:
                break
    twin = f"E{entry.id[1:]}" if account_of(entry.id) and entry.decision is None else ""
    return Story(order, entry, tail.steps, _sent(engine, twin, *place) if twin and (place := place_of(engine, twin)) else None)


def _told(engine: sa.Engine, entry_id: str, writer: str, first: int, scan: bool) -> Iterator[sa.Row]:
    """The rows that may speak of an entry: those that the projector has noted, then each one that it has not read yet."""
    t, m, p = tables.ledger, tables.projection_marks, tables.places
    noted, mark = [], 0
    if not scan:
        with reading(engine) as connection:
            mark = connection.scalar(sa.select(m.c.seq).where(m.c.writer == writer)) or 0
            noted = list(connection.scalars(sa.select(p.c.seq).where(p.c.entry_id == entry_id, p.c.writer == writer).order_by(p.c.seq)))
    if any(type(seq) is not int for seq in (mark, *noted)):
        raise LedgerError(f"{entry_id}: the projections of {writer} hold a position that is no number; "
                          "run python -m scripts.rebuild_projections")
    for i in range(0, len(noted), PAGE):
        with reading(engine) as connection:
            page = connection.execute(sa.select(t).where(t.c.writer == writer, t.c.seq.in_(noted[i:i + PAGE])).order_by(t.c.seq)).all()
        yield from page
    yield from rows(engine, writer, max(mark, first - 1), page=PAGE)


def _sent(engine: sa.Engine, order_id: str, writer: str, seq: int) -> Order:
    for row in rows(engine, writer, seq - 1, seq):
        for said in entry_in(engine, row, writer).produced:
            for order in said.orders if isinstance(said, Approved) else [
                    off.order for off in said.written_off] if isinstance(said, Outcomes) else ():
                if order.id == order_id:
                    return order
    raise LedgerError(f"{order_id}: the index says {writer}/{seq}, which did not send it; run python -m scripts.verify_ledger")


class _Tail:
    """What followed an entry, gathered row by row."""

    def __init__(self, entry_id: str):
        self.entry_id, self.ids, self.steps = entry_id, {entry_id: entry_id.encode()}, list[Step]()
        self.seen: set = set()
        self.ended: dict[str, float] = {}       # filled quantity that an order's last report speaks of
        self.filled: dict[str, float] = {}
        self.levels = {entry_id}                # the orders that open it
        self.gone = set[str]()                  # those that were written off
        self.closed = False

    def names(self, blob: bytes) -> bool:
        """Whether the bytes speak of one of the orders: far cheaper than to decode them. Exits name their entry, by its id."""
        return any(known in blob for known in self.ids.values())

    @property
    def over(self) -> bool:
        """The position is closed, or every level of its entry ended with nothing filled: nothing more can follow."""
        return self.closed or all((i in self.gone or (i in self.ended and not self.ended[i])) and not self.filled.get(i)
                                  for i in self.levels)

    def read(self, at: Place, entry: Entry) -> None:
        for fact in entry.consumed:
            for one in fact.items if isinstance(fact, (Reports, Fills)) else [fact]:
                if isinstance(one, (Report, Fill)) and one.order_id in self.ids:
                    self.add(at, one, one.id if isinstance(one, Fill) else one)
        for said in entry.produced:
            if isinstance(said, Approved):
                for order in said.orders:
                    if order.entry_id == self.entry_id:
                        self.ids[order.id] = order.id.encode()
                        if order.cause == ENTRY:
                            self.levels.add(order.id)
                        self.add(at, order, order.id)
                for cancel in said.cancels:
                    if cancel.order_id in self.ids:
                        self.add(at, cancel, cancel)
            elif isinstance(said, Outcomes):
                for off in said.written_off:
                    if off.plan == self.entry_id:
                        self.gone.add(off.entry)
                        self.add(at, off, off.id)
                for outcome in said.items:
                    if outcome.id == self.entry_id:
                        self.add(at, outcome, "outcome")
                        self.closed = True
            elif isinstance(said, Rewarded):
                for item in said.items:
                    if isinstance(item, Attributed) and item.order_id == self.entry_id:
                        self.add(at, item, "reward")

    def add(self, at: Place, fact, key) -> None:
        if key in self.seen:
            return
        self.seen.add(key)
        self.steps.append(Step(at, fact))
        if isinstance(fact, Fill):
            self.filled[fact.order_id] = self.filled.get(fact.order_id, 0.0) + fact.qty
        elif isinstance(fact, Report) and fact.status in (REJECTED, CANCELLED, DONE):
            self.ended[fact.order_id] = fact.filled
