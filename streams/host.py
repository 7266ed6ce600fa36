"""The Desk's host: takes records in, keeps the order in which the Desk consumed its facts, writes it down, then speaks.

Everything that a record led to is one ledger transaction together with the marks; only then is it published. At a paced market
(`lockstep`) lanes hold the causal order; else facts are consumed as they come.
"""

import logging
from collections import deque
from collections.abc import Iterator

import msgspec

from config.settings import Settings
from engine import metrics as m
from engine.desk import Desk
from engine.facts import (
    GATING,
    HEALTH,
    SETTINGS,
    UNKNOWN,
    Approved,
    Cancel,
    Control,
    Dropped,
    DroppedBatch,
    Fill,
    Fills,
    Frame,
    Market,
    Order,
    Outcome,
    Outcomes,
    Report,
    Reports,
    Rewarded,
    ScoredBatch,
    Standing,
    Tick,
    WrittenOff,
    cut,
    market_of,
)
from engine.fillprob.gate import Gating
from engine.lane import FOREVER, Lane
from engine.rewards.attribution import Attributed, Missed
from engine.settings import Wired
from engine.telemetry import Telemetry
from store.ledger import Ledger
from streams.reconcile import Books, Reconciler
from streams.topics import SIG_APPROVED, named

log = logging.getLogger("sluice.risk")
Place = tuple[str, int, int]  # topic, partition, offset


class HostState(msgspec.Struct):
    """A snapshot: the Desk and how far each symbol's events have been consumed."""

    desk: bytes
    market: dict[str, tuple[str, int]]
    scored: dict[str, tuple[str, int]]
    heard: dict[str, int]
    sessions: dict[str, list[str]] = {}
    reached: dict[str, int] = {}
    books: dict[str, Books] = {}
    beyond: dict[str, set[int]] = {}
    journals: dict[str, str] = {}


class Road:
    """One symbol's waiting records (paced markets only)."""

    def __init__(self, lane: Lane):
        self.lane = lane
        self.frames: deque[tuple[Frame, Place]] = deque()
        self.batches: deque[tuple[ScoredBatch, Place]] = deque()
        self.working: deque[list[Place]] = deque()  # places of each stretch in the lane
        self.early: dict[int, Report | Fill] = {}
        self.upto = (0, 0)
        self.records: deque[tuple[int, Place]] = deque()  # (last number, place) of report records
        self.promised = (-1, -1)
        self.sessions: dict[str, None] = {}           # runs of the market that it has had frames of, in their order
        self.taken: dict[str, tuple[str, int]] = {}  # events that are in the lane already, thought about or not


class Open:
    """Which records are taken and not yet done, so that a mark never passes one that is not."""

    def __init__(self) -> None:
        self.open: dict[tuple[str, int], dict[int, bool]] = {}
        self.marks: dict[tuple[str, int], int] = {}

    def take(self, place: Place) -> None:
        """A record is in hand."""
        self.open.setdefault(place[:2], {})[place[2]] = False

    def done(self, place: Place) -> None:
        """It is through; the mark moves over all that are."""
        waiting = self.open[place[:2]]
        waiting[place[2]] = True
        while waiting and waiting[first := next(iter(waiting))]:
            self.marks[place[:2]] = first
            del waiting[first]


class DeskHost:
    """Hosts one Desk for one account."""

    def __init__(self, settings: Settings, ledger: Ledger, telemetry: Telemetry, lockstep: bool):
        self.settings, self.ledger, self.telemetry, self.lockstep = settings, ledger, telemetry, lockstep
        self.desk = Desk(settings)
        self.market: dict[str, tuple[str, int]] = {}
        self.scored: dict[str, tuple[str, int]] = {}
        self.heard: dict[str, int] = {}       # all venue numbers of a symbol up to this one are consumed,
        self.beyond: dict[str, set[int]] = {}  # and these after it: unpaced, a fill may come before the report that it follows
        self.journals: dict[str, str] = {}    # the venue's memory that a symbol's numbers belong to
        self.sessions: dict[str, list[str]] = {}      # of each symbol the runs of its market that were consumed, in their order
        self.reached: dict[str, int] = {}             # and the market time of the last event
        self.roads: dict[str, Road] = {}
        self.markets: dict[str, dict[str, int]] = {}  # a session's symbols, with the last event's time where one is over
        self.open = Open()
        self.reconciler = Reconciler(settings, self.desk, telemetry.meter, lockstep)
        self.commits = 0
        self.kept, blob, tail = ledger.restore()
        if blob:
            state = msgspec.msgpack.decode(blob, type=HostState)
            self.desk.restore(state.desk)
            self.market, self.scored, self.heard = state.market, state.scored, state.heard
            self.sessions, self.reached = state.sessions, state.reached
            self.reconciler.books = state.books
            self.beyond, self.journals = state.beyond, state.journals
        self.refolded = 0
        for entry in tail:
            for fact in entry.consumed:
                self.desk.on(fact)
                self.note(fact)
                self.refolded += 1
        for symbol in self.market if lockstep else ():
            self.road(symbol)
        telemetry.restored(self.desk)

    def pressed(self, lag: int, outbox: int) -> Control | None:
        """The fact that says how much waits, where it comes over the limit or back under it; a re-run hears it at the same place."""
        rules, in_hand = self.settings.backpressure, outbox + sum(map(len, self.open.open.values()))
        if not rules.enabled or (lag + in_hand > rules.max_queue_len) == self.desk.state.pressure.over:
            return None
        details = {"lag": str(lag), "in_flight": str(in_hand)}
        return Control(f"health-{self.ledger.head()[0]}", HEALTH, "risk", "depth of the queue", self.desk.state.epoch, 0, details)

    def gating(self, found: Gating) -> Control | None:
        """The fact that says by what the fill-probability gate judges from now on, where that is another than before."""
        known = self.desk.state.gating
        if found == known or (known is None and not found.model):
            return None
        return Control(f"gating-{self.ledger.head()[0]}", GATING, "risk", "what this start found", self.desk.state.epoch, 0, found.details)

    def settled(self) -> Control | None:
        """The fact that says by which settings the Desk decides from now on, where they are others than before: so that the journal
        can be run again across a restart that changed them."""
        mind = msgspec.json.encode(Wired.of(self.settings))
        if mind == self.desk.state.mind:
            return None
        why = "settings of this start" + (", others than before" if self.desk.state.mind else "")
        return Control(f"settings-{self.ledger.head()[0]}", SETTINGS, "risk", why, self.desk.state.epoch, 0, {"mind": mind.decode()})

    def note(self, fact) -> None:
        """Remembers how far a symbol has been consumed."""
        if isinstance(fact, (Market, ScoredBatch)) and fact.session not in (runs := self.sessions.setdefault(fact.symbol, [])):
            runs.append(fact.session)
        if isinstance(fact, Market):
            self.market[fact.symbol] = (fact.session, fact.seq + fact.n)
            self.reached[fact.symbol] = fact.upto_ms
        elif isinstance(fact, ScoredBatch):
            self.scored[fact.symbol] = (
                fact.session,
                max(
                    fact.seq + fact.n,
                    self.scored.get(fact.symbol, ("", 0))[1] if self.scored.get(fact.symbol, ("", 0))[0] == fact.session else 0,
                ),
            )
        elif isinstance(fact, (Report, Fill)) and fact.seq:
            self._number(fact.symbol, fact.seq)
            self.reconciler.numbered(fact.symbol, fact.seq)
        elif isinstance(fact, Control):
            self.reconciler.on_control(fact)

    def _number(self, symbol: str, seq: int) -> None:
        """A venue number is consumed. One that was already belongs to another memory of the venue: numbers began anew."""
        heard, beyond = self.heard.get(symbol, 0), self.beyond.setdefault(symbol, set())
        if seq <= heard or seq in beyond:
            heard = 0
            beyond.clear()
        beyond.add(seq)
        while heard + 1 in beyond:
            heard += 1
            beyond.discard(heard)
        self.heard[symbol] = heard

    def _journal(self, symbol: str, journal: str, consumed: list, outs: list) -> None:
        """A venue with another memory counts anew; what the one before had told is consumed first."""
        if not journal or self.journals.setdefault(symbol, journal) == journal:
            return
        road = self.roads.get(symbol)
        while road and road.lane.inbox:
            self._feed(road.lane.inbox.popleft(), consumed, outs)
        self.heard[symbol], self.journals[symbol] = 0, journal
        self.beyond.pop(symbol, None)
        if road:
            road.upto, road.lane.seen = (0, 0), 0
            road.early.clear()

    # records in

    def take(self, record, place: Place) -> tuple[list, list]:
        """(facts consumed, what to publish) that this record leads to."""
        self.open.take(place)
        consumed: list = []
        outs: list = []
        if isinstance(record, (Frame, ScoredBatch)):
            self._market(record, place, consumed, outs) if self.lockstep else self._at_once(record, place, consumed, outs)
        elif isinstance(record, (Reports, Fills)):
            self._venue(record, place, consumed, outs)
        elif isinstance(record, (Control, Tick)):
            self._feed(self.dated(record), consumed, outs)
            self.open.done(place)
        else:
            if isinstance(record, Standing):
                self.reconciler.offer(record)
            self.open.done(place)
        if kill := self.reconciler.halt():
            self._feed(kill, consumed, outs)
        return consumed, outs

    def order(self, control: Control) -> tuple[list, list]:
        """A person's word that came beside the log; nothing where it has acted already."""
        consumed: list = []
        outs: list = []
        if control.id not in self.desk.state.controls:
            self._feed(self.dated(control), consumed, outs)
        return consumed, outs

    def dated(self, fact: Control | Tick) -> Control | Tick:
        """A control whose writer knows no market time gets the Desk's."""
        return msgspec.structs.replace(fact, ts_ms=self.desk.state.now_ms) if isinstance(fact, Control) and not fact.ts_ms else fact

    def _feed(self, fact, consumed: list, outs: list) -> None:
        consumed.append(fact)
        outs += self.desk.on(fact)
        self.note(fact)

    def _new(self, known: dict[str, tuple[str, int]], record: Frame | ScoredBatch) -> int:
        """The first event of the record that is not consumed yet."""
        session, due = known.get(record.symbol, ("", 0))
        return max(record.seq, due) if session == record.session else record.seq

    def _past(self, symbol: str, session: str, than: str) -> bool:
        """Whether this run of the symbol's market came before that one."""
        runs = [*self.sessions.get(symbol, ()), *(self.roads[symbol].sessions if symbol in self.roads else ())]
        return bool(than) and session != than and session in runs and (than not in runs or runs.index(session) < runs.index(than))

    def _missing(self, frame: Frame, *behind: tuple[str, int]) -> None:
        """Counts the events between what the Desk has had of the session and this frame: they are on no log any more."""
        session, due = max((b for b in (self.market.get(frame.symbol, ("", 0)), *behind) if b[0] == frame.session), default=("", 0))
        if session and frame.seq - frame.skipped > due:
            self.telemetry.meter.inc(m.LOST_TOTAL, frame.seq - frame.skipped - due, what="events")
            log.error(
                "%s: events %d to %d of session %s never came: the desk goes on without them", frame.symbol, due, frame.seq - 1, session
            )

    def _at_once(self, record, place: Place, consumed: list, outs: list) -> None:
        known = self.market if isinstance(record, Frame) else self.scored
        if self._past(record.symbol, record.session, known.get(record.symbol, ("", 0))[0]):
            self.open.done(place)      # told again by who was killed when the market was started anew
            return
        due = self._new(known, record)
        if due < record.seq + record.n:
            if isinstance(record, Frame):
                self._missing(record)
                self._feed(market_of(cut(record, due - record.seq, record.n) if due > record.seq else record), consumed, outs)
            elif record.items:
                fresh = [s for s in record.items if s.signal.seq >= due]
                self._feed(record if len(fresh) == len(record.items) else msgspec.structs.replace(record, items=fresh), consumed, outs)
        self.open.done(place)

    def _market(self, record, place: Place, consumed: list, outs: list) -> None:
        road = self.road(record.symbol)
        (road.frames if isinstance(record, Frame) else road.batches).append((record, place))
        while road.frames and road.batches:
            (frame, at), (batch, bat) = road.frames[0], road.batches[0]
            if (frame.session, frame.seq + frame.n) != (batch.session, batch.seq + batch.n):
                behind = (
                    frame.seq + frame.n < batch.seq + batch.n
                    if frame.session == batch.session
                    else not self._past(record.symbol, batch.session, frame.session)
                )
                if behind:
                    road.frames.popleft()       # told twice, or its scores are on no log any more
                    self._work(road, frame, None, [at])
                else:
                    road.batches.popleft()
                    self.open.done(bat)
                continue
            road.frames.popleft(), road.batches.popleft()
            self._work(road, frame, batch, [at, bat])
        self._run(consumed, outs)

    def _work(self, road: Road, frame: Frame, batch: ScoredBatch | None, places: list[Place]) -> None:
        """What is new of a frame goes into the lane with its scores; `batch` None: they are on no log any more, which is counted."""
        due = max(self._new(self.market, frame), self._new(road.taken, frame))
        latest = road.taken.get(frame.symbol) or self.market.get(frame.symbol, ("", 0))
        if due >= frame.seq + frame.n or self._past(frame.symbol, frame.session, latest[0]):
            for place in places:
                self.open.done(place)
            return
        self._missing(frame, road.taken.get(frame.symbol, ("", 0)))
        if batch is None:
            self.telemetry.meter.inc(m.LOST_TOTAL, frame.seq + frame.n - due, what="scores")
            log.error("%s: events %d to %d of session %s were scored by nobody: the desk takes them without", frame.symbol, due,
                      frame.seq + frame.n - 1, frame.session)
        road.taken[frame.symbol] = (frame.session, frame.seq + frame.n)
        fresh = [s for s in batch.items if s.signal.seq >= due] if batch else []
        road.sessions[frame.session] = None
        road.lane.add(cut(frame, due - frame.seq, frame.n) if due > frame.seq else frame, fresh)
        road.working.append(places)

    def _venue(self, record: Reports | Fills, place: Place, consumed: list, outs: list) -> None:
        self._journal(record.symbol, record.journal, consumed, outs)
        if not self.lockstep:
            for item in record.items:
                if not item.seq or (item.seq > self.heard.get(item.symbol, 0) and item.seq not in self.beyond.get(item.symbol, ())):
                    self._feed(item, consumed, outs)
            self.open.done(place)
            return
        road = self.road(record.symbol)
        heard = self.heard.get(record.symbol, 0)
        for item in record.items:
            if isinstance(item, Report) and (item.status == UNKNOWN or not item.seq):      # the executor's own word has no number
                self._feed(item, consumed, outs)
            elif item.seq > heard:
                road.early[item.seq] = item
        road.records.append((max((i.seq for i in record.items), default=0), place))
        if isinstance(record, Reports):
            self.markets[record.session] = record.markets
            # apart: a venue that died works the last stretch again, and may number a repeated request in what it had told as quiet
            road.upto = max(road.upto[0], record.upto_ms), max(road.upto[1], record.upto_seq)
        told = road.lane.inbox[-1].seq if road.lane.inbox else max(heard, road.lane.seen)
        upto_ms, upto_seq = road.upto
        if all(seq in road.early for seq in range(told + 1, upto_seq + 1)):
            road.lane.heard([road.early.pop(seq) for seq in range(told + 1, upto_seq + 1)], upto_ms)
        self._run(consumed, outs)

    def road(self, symbol: str) -> Road:
        """The symbol's road; in a new life it begins where the last one had thought to."""
        if symbol not in self.roads:
            road = self.roads[symbol] = Road(Lane(self.desk, symbol))
            if symbol in self.market:
                session = road.lane.session = self.market[symbol][0]
                road.lane.promise_ms, road.sessions[session] = self.reached.get(symbol, 0), None
        return self.roads[symbol]

    def _run(self, consumed: list, outs: list) -> None:
        """Whatever may be thought about now, over all symbols in market time: the lane whose next consequence is earliest goes first."""
        while (road := self._next()) is not None and (moves := road.lane.step()) is not None:
            for fact, said in moves:
                consumed.append(fact)
                outs += said
                self.note(fact)
        for road in self.roads.values():
            while len(road.working) > len(road.lane.stretches):
                for place in road.working.popleft():
                    self.open.done(place)
            seen = max(road.lane.seen, self.heard.get(road.lane.symbol, 0))
            while road.records and road.records[0][0] <= seen:
                self.open.done(road.records.popleft()[1])

    def _next(self) -> Road | None:
        """The road that goes first; None while one that may come before it is not known yet."""
        waiting = [road for road in self.roads.values() if road.lane.stretches]
        if not waiting:
            return None
        session = min(waiting, key=lambda road: road.lane.symbol).lane.stretches[0].frame.session
        members = self._members(session)
        if members is None:
            return None
        _, symbol = min((self._bound(symbol, session), symbol) for symbol in {*members, *(r.lane.symbol for r in waiting)})
        road = self.roads.get(symbol)
        return road if road and road.lane.stretches else None

    def _members(self, session: str) -> dict[str, int] | None:
        """The symbols of this run of the market; None where the venue has not spoken of it yet.

        None of them where it speaks of a later run already: of this one nothing comes that is not here.
        """
        members = self.markets.get(session)
        if members is None and any(self._past(symbol, session, other) for symbol in self.roads for other in self.markets):
            return {}
        return members

    def _bound(self, symbol: str, session: str) -> int:
        """A lower bound for the time of the symbol's next consequence in this run of the market."""
        road = self.roads.get(symbol)
        if road is not None and road.lane.stretches:
            return road.lane.act_ms()
        if road is None:
            return 0
        lane, over = road.lane, self.markets.get(session, {}).get(symbol, 0)
        if session not in road.sessions:
            return FOREVER if self._past(symbol, session, lane.session) else 0
        return FOREVER if lane.session != session or (over and lane.promise_ms >= over) else lane.promise_ms

    # records out

    def produce(self, consumed: list, outs: list, sent_ms: float) -> list:
        """The Desk's answers as records: one a topic and symbol."""
        acts: dict[str, list[Order | Cancel]] = {}
        dropped: dict[str, list[Dropped]] = {}
        outcomes: dict[str, Outcomes] = {}
        rewards: dict[str, list[Attributed | Missed]] = {}
        for out in outs:
            if isinstance(out, Dropped):
                dropped.setdefault(out.scored.signal.symbol, []).append(out)
            elif isinstance(out, (Outcome, WrittenOff)):
                both = outcomes.setdefault(out.symbol, Outcomes(out.symbol, self.session(out.symbol), [], []))
                both.items.append(out) if isinstance(out, Outcome) else both.written_off.append(out)
            elif isinstance(out, (Attributed, Missed)):
                rewards.setdefault(out.symbol, []).append(out)
            else:
                acts.setdefault(out.symbol, []).append(out)
        now = self.desk.state.now_ms
        records: list = [self.approved(symbol, sent_ms, said) for symbol, said in acts.items()]
        records += [DroppedBatch(symbol, self.session(symbol), now, items) for symbol, items in dropped.items()]
        records += outcomes.values()
        records += [Rewarded(symbol, self.session(symbol), paid) for symbol, paid in rewards.items()]
        return records

    def session(self, symbol: str) -> str:
        """The market session that the symbol is in."""
        return self.market.get(symbol, ("", 0))[0]

    def approved(self, symbol: str, sent_ms: float, acts: list[Order | Cancel]) -> Approved:
        """Orders and cancels, with how far the Desk has thought."""
        lane = self.roads[symbol].lane if symbol in self.roads else None
        upto, seen = (lane.promise_ms, lane.seen) if lane else (self.desk.state.now_ms, self.heard.get(symbol, 0))
        if lane:
            seen = max(seen, self.heard.get(symbol, 0))
            self.roads[symbol].promised = (upto, seen)
        return Approved(
            symbol,
            self.session(symbol),
            upto,
            seen,
            sent_ms,
            [a for a in acts if isinstance(a, Order)],
            [a for a in acts if isinstance(a, Cancel)],
            "".join("o" if isinstance(a, Order) else "c" for a in acts),
        )

    def in_flight(self, epochs: dict[str, str]) -> Iterator[Approved]:
        """Where the log that orders go to is another one than before: those of which the venue has not spoken, as they were sent.

        The executor may have had them; it and the venue know them by their ids. What the venue has told is on its own record.
        """
        topic = named(SIG_APPROVED, self.settings)
        known = {epoch for epoch, t, _ in self.ledger.marks() if t == topic}
        if epochs[topic] in known:
            return
        self.open.marks[topic, 0] = self.ledger.head()[0]       # with the next commit: from here on it is this log
        if not known:
            return
        self.telemetry.meter.inc(m.LOG_EPOCH_CHANGES_TOTAL, service="risk")
        state = self.desk.state
        waiting = [o.id for books in (state.portfolio, state.twins) for o in books.orders.values() if not o.accepted and o.told < 0]
        by_symbol: dict[str, list[Order]] = {}
        for order_id in waiting:
            for record in self.ledger.entry_of(order_id).produced:
                if isinstance(record, Approved):
                    for order in (o for o in record.orders if o.id == order_id):
                        by_symbol.setdefault(order.symbol, []).append(order)
        for symbol, orders in by_symbol.items():
            yield Approved(symbol, self.session(symbol), 0, self.heard.get(symbol, 0), 0.0, orders, [], "o" * len(orders))

    def promises(self) -> list[Approved]:
        """What a paced venue must know to go on, where it has moved since it was last told."""
        out = []
        for symbol, road in self.roads.items():
            now = (road.lane.promise_ms, max(road.lane.seen, self.heard.get(symbol, 0)))
            if road.lane.stretches and self._members(road.lane.stretches[0].frame.session) is None:
                now = (1, now[1])          # the answer says which symbols the market has
            if now[0] and now != road.promised:
                road.promised = now
                out.append(Approved(symbol, self.session(symbol), *now, 0.0, [], []))
        return out

    def commit(self, consumed: list, produced: list, epochs: dict[str, str]) -> int:
        """One transaction: facts in their order, answers, marks."""
        marks = {(epochs[topic], topic, partition): offset for (topic, partition), offset in self.open.marks.items()}
        self.open.marks.clear()
        seq = self.ledger.commit(self.desk.state.now_ms, consumed, produced, marks)
        self.commits += 1
        if seq - self.kept >= self.settings.ledger.snapshot_every:     # counted in the chain: a short life adds to the last
            self.snapshot(seq)
        self.telemetry.meter.inc(m.LEDGER_TRANSACTIONS_TOTAL, writer="risk")
        return seq

    def snapshot(self, seq: int) -> None:
        """Bounds the next start."""
        state = HostState(
            self.desk.snapshot(), self.market, self.scored, self.heard, self.sessions, self.reached, self.reconciler.books,
            self.beyond, self.journals
        )
        self.ledger.snapshot(seq, self.desk.state.now_ms, msgspec.msgpack.encode(state))
        self.kept = seq
