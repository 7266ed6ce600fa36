"""What must hold after any crash: nothing lost, nothing twice, no silent gap, the books exact, the ledger whole, the journal equal.

Read from what outlives the processes: the ledger, the venue's journal and, where they are at hand, the logs.
"""
import sqlite3
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from config.settings import Settings
from engine.desk import Desk
from engine.execution.matching import ABOUT_REQUEST, Matching
from engine.execution.reconcile import differences
from engine.facts import (
    ACCEPTED,
    CANCELLED,
    DONE,
    ENTRY,
    KILL,
    MAIN,
    REJECTED,
    TWIN,
    Approved,
    Cancel,
    Control,
    Dropped,
    DroppedBatch,
    Fill,
    Market,
    Order,
    Outcomes,
    Report,
    Scored,
    ScoredBatch,
    Standing,
    account_of,
)
from store.audit import answers_of, differing, entries
from store.venue_journal import VenueJournal
from store.verify import verify

_happened = msgspec.msgpack.Decoder(Report | Fill)


@dataclass
class Verdict:
    """Faults by kind, and what was counted; `said`: the decisions in their order, by what they are ordered among."""
    lost: list[str] = field(default_factory=list)
    doubled: list[str] = field(default_factory=list)
    gaps: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    said: dict[str, list[bytes]] = field(default_factory=dict)
    orders: int = 0
    fills: int = 0
    facts: int = 0

    @property
    def faults(self) -> list[str]:
        """All of them."""
        return [f"{kind}: {what}" for kind in ("lost", "doubled", "gaps", "wrong") for what in getattr(self, kind)]


def told(fact, outs: Iterable) -> Iterator[tuple[str, bytes]]:
    """A fill and the Desk's answers: acts in their one order, refusals in that of their symbol, since nothing depends on another.

    A request that is repeated after a crash takes a venue number too: numbers are left out.
    """
    if isinstance(fact, Fill):
        yield "acts", msgspec.msgpack.encode(msgspec.structs.replace(fact, seq=0))
    for out in outs:
        yield out.scored.signal.symbol if isinstance(out, Dropped) else "acts", msgspec.msgpack.encode(out)


def venue(path: Path) -> dict[str, list[Report | Fill]]:
    """All that happened at the local exchange, by symbol in its order."""
    out: dict[str, list[Report | Fill]] = {}
    with sqlite3.connect(f"file:{path}?mode=ro", uri=True) as db:
        for symbol, blob in db.execute("SELECT symbol, blob FROM happened ORDER BY symbol, seq"):
            out.setdefault(symbol, []).append(_happened.decode(blob))
    return out


def judge(settings: Settings, url: str, journal: Path, published: Iterable | None = None) -> Verdict:
    """The verdict over one finished run. `published`: the records of risk's topics, where the log is still whole."""
    v = Verdict()
    desk = Desk(settings)
    orders: dict[str, Order] = {}
    cancels: set[str] = set()
    produced: list = []
    market: dict[tuple[str, str], int] = {}
    scored: Counter[str] = Counter()
    numbers: dict[str, list[int]] = {}
    fills: dict[str, Fill] = {}
    refused: set[str] = set()
    v.wrong += map(str, verify(url))
    for entry in entries(url):
        answers: list = []
        for fact in entry.consumed:
            v.facts += 1
            killed = bool(desk.state.kills)
            outs = desk.on(fact)
            if killed and desk.state.kills:
                v.wrong += [f"{o.id} was opened while the desk was halted" for o in outs if isinstance(o, Order) and o.cause == ENTRY]
            if isinstance(fact, Control) and fact.kind == KILL and fact.actor == "risk":
                v.wrong.append(f"the desk halted itself: {fact.reason}")
            if isinstance(fact, Report) and not fact.seq and fact.status == REJECTED:
                refused.add(fact.order_id)
            answers += outs
            for key, blob in told(fact, outs):
                v.said.setdefault(key, []).append(blob)
            if isinstance(fact, Market):
                due = market.get((fact.symbol, fact.session))
                if due is not None and fact.seq != due:
                    where = f"{fact.symbol} {fact.session}: event {due} was due, {fact.seq} consumed"
                    (v.gaps if fact.seq > due else v.doubled).append(where)
                market[fact.symbol, fact.session] = fact.seq + fact.n
            elif isinstance(fact, (Scored, ScoredBatch)):
                scored.update(s.signal.id for s in (fact.items if isinstance(fact, ScoredBatch) else [fact]))
            elif isinstance(fact, (Report, Fill)) and fact.seq:
                numbers.setdefault(fact.symbol, []).append(fact.seq)
                if isinstance(fact, Fill):
                    fills[fact.id] = fact
        if differing(answers, [a for record in entry.produced for a in answers_of(record)]):
            v.wrong.append(f"transaction {entry.seq}: the journal's re-run answers otherwise")
        produced += entry.produced
        for record in entry.produced:
            for act in record.acts() if isinstance(record, Approved) else ():
                if isinstance(act, Cancel):
                    cancels.add(act.order_id)
                elif act.id in orders:
                    v.doubled.append(f"{act.id} was sent twice")
                else:
                    orders[act.id] = act
    v.orders, v.fills = len(orders), len(fills)
    v.doubled += [f"candidate {i} was decided {n} times" for i, n in scored.items() if n > 1]
    at_venue = venue(journal)
    _venue(v, at_venue, orders, numbers, refused)
    _positions(v, desk, at_venue, fills)
    _books(v, settings, desk, journal)
    if published is not None:
        there = Counter(msgspec.msgpack.encode(r) for r in published)
        for record in produced:
            if isinstance(record, (Approved, DroppedBatch, Outcomes)) and not there[msgspec.msgpack.encode(record)]:
                v.lost.append(f"a record that the ledger has was never published: {str(record)[:120]}")
    return v


def _venue(v: Verdict, at_venue: dict[str, list[Report | Fill]], orders: dict[str, Order], numbers: dict[str, list[int]],
           refused: set[str]) -> None:
    """Orders arrived, each once, or the executor said that they will not; what the venue told was consumed, each once."""
    taken: Counter[str] = Counter()
    ended: Counter[str] = Counter()
    for symbol, happened in at_venue.items():
        seqs = [one.seq for one in happened]
        if seqs != list(range(1, len(seqs) + 1)):
            v.gaps.append(f"{symbol}: the venue's own numbers have a hole")
        heard = Counter(numbers.get(symbol, []))
        v.doubled += [f"{symbol}: venue number {seq} was consumed {n} times" for seq, n in heard.items() if n > 1]
        v.lost += [f"{symbol}: venue number {seq} was never consumed" for seq in seqs if seq not in heard]
        for one in happened:
            if isinstance(one, Report) and one.reason not in ABOUT_REQUEST:
                taken[one.order_id] += one.status == ACCEPTED or (one.status == REJECTED)
                ended[one.order_id] += one.status in (CANCELLED, DONE, REJECTED)
    v.doubled += [f"{i} was taken {n} times by the venue" for i, n in taken.items() if n > 1]
    v.doubled += [f"the venue has {i}, which the ledger never sent" for i in taken if i not in orders]
    v.lost += [f"{i} was sent and never reached the venue" for i in orders if not taken[i] and i not in refused]
    v.wrong += [f"{i} was refused by the executor, and is at the venue" for i in sorted(refused) if taken[i]]


def _positions(v: Verdict, desk: Desk, at_venue: dict[str, list[Report | Fill]], fills: dict[str, Fill]) -> None:
    """The Desk's position is the sum of its fills is the venue's."""
    for account, books in ((MAIN, desk.portfolio), (TWIN, desk.state.twins)):
        for symbol, happened in at_venue.items():
            mine = [f for f in happened if isinstance(f, Fill) and account_of(f.order_id) == account]
            theirs = sum(f.qty if f.side == "BUY" else -f.qty for f in mine)
            ours = sum(f.qty if f.side == "BUY" else -f.qty for f in fills.values()
                       if f.symbol == symbol and account_of(f.order_id) == account)
            held = books.positions.get(symbol, 0.0)
            if max(abs(theirs - ours), abs(theirs - held)) > 1e-9:
                v.wrong.append(f"{symbol} {account}: position {held:g} on the desk, {ours:g} by its fills, {theirs:g} at the venue")
        if books.orphans:
            v.wrong.append(f"{books.orphans} venue facts of no order of ours")


def _books(v: Verdict, settings: Settings, desk: Desk, path: Path) -> None:
    """As the venue was left, both accounts: quantity to the lot, average price, result to the cent, resting orders; none is in doubt."""
    journal = VenueJournal(path)
    try:
        for symbol, (saved, _) in journal.floors().items():
            matching = Matching(symbol, settings.instrument(symbol), settings.matching, saved.session)
            matching.restore(saved.matching)
            lot, h, t = matching.instrument.lot, saved.holding, saved.twin
            resting = {o.order_id: o.qty - o.filled for o in matching.open_orders()}
            standing = Standing(symbol, journal.id, matching.seq, saved.known_ms, matching.position * lot, h.average, h.realized_usd,
                                h.fees_usd, resting, {}, (matching.positions[TWIN] * lot, t.average, t.realized_usd))
            found = differences(desk.portfolio, standing, matching.instrument)
            if desk.venue.mode == "real":
                found += differences(desk.state.twins, standing, matching.instrument, twin=True)
            v.wrong += [f"not as the venue says: {one}" for one in found]
            for order in (o for books in (desk.portfolio, desk.state.twins) for o in books.orders.values()
                          if not o.settled and books.entries[o.entry_id].symbol == symbol):
                if matching.status(order.id) not in ("open", "pending", "cancelling"):
                    v.wrong.append(f"{order.id} is at work on the desk, and {matching.status(order.id) or 'nothing known'} at the venue")
    finally:
        journal.db.close()
