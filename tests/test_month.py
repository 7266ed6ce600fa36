"""A month in miniature: markets, scores, reports, fills, kills, restarts, repetitions in any order, against a model of ten lines.

`HYPOTHESIS_PROFILE=long make test ARGS='tests/test_month.py -s'` lives 600 long lives of each kind instead of 25 short ones, and says
how many steps, orders, fills and restarts that were: half an hour of one core.
"""

import atexit
import os
import shutil
import tempfile
from collections import Counter
from pathlib import Path

import hypothesis.strategies as st
import msgspec
from hypothesis import HealthCheck
from hypothesis import settings as hypothesis_settings
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from street import TOPICS, Account, Event, S, Street, Wish

from engine.desk import Desk
from engine.execution.matching import Matching
from engine.facts import BUY, SELL, Frame
from engine.loop import Road, run
from store.audit import answers_of
from store.ledger import Ledger
from store.verify import verify

LONG = os.environ.get("HYPOTHESIS_PROFILE") == "long"
SYMBOLS = ("BTCUSDT", "ETHUSDT")
EMPTY = Path(tempfile.mkdtemp(prefix="sluice-month-"))
LIVED: Counter[str] = Counter()
atexit.register(lambda: (shutil.rmtree(EMPTY, ignore_errors=True), LONG and print(dict(LIVED))))

symbols = st.sampled_from(SYMBOLS)
events = st.lists(
    st.builds(
        Event,
        gap_ms=st.sampled_from([0, 20, 60, 300, 1100, 4000]),
        move=st.sampled_from([0, 1, -1, 3, -3, 12, -12, 40, -40]),
        spread=st.integers(1, 3),
        lots=st.sampled_from([1, 40, 150, 400]),
        side=st.sampled_from([0, 0, 1, -1]),
    ),
    min_size=1,
    max_size=8,
)
wishes = st.lists(
    st.builds(
        Wish,
        at=st.integers(0, 7),
        side=st.sampled_from([BUY, SELL]),
        p=st.sampled_from([0.3, 0.65, 0.75, 0.85, 0.95]),
        off=st.sampled_from([0, 0, 0, -2, 3]),
        target=st.sampled_from([2, 10]),
        stop=st.sampled_from([3, 20]),
    ),
    max_size=3,
)


def empty_ledger() -> Path:
    """A ledger with its schema and nothing in it, made once: it is copied for each run."""
    path = EMPTY / "ledger.db"
    if not path.exists():
        Ledger(f"sqlite:///{path}", "risk", "OFF").close()
    return path


class Month(RuleBasedStateMachine):
    """One desk's life; the subclasses say whether the market waits for it."""

    lockstep = False

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp(prefix="sluice-month-"))
        self.street = Street(self.folder, self.lockstep, SYMBOLS, empty_ledger())
        self.controls = 0

    @rule(symbol=symbols, events=events, wishes=wishes)
    def market(self, symbol, events, wishes):
        """The market moves, and scores are made of it; nobody has read them yet."""
        self.street.market(symbol, events, wishes)

    @rule(symbol=symbols, events=events, wishes=wishes, order=st.permutations(TOPICS))
    def market_at_once(self, symbol, events, wishes, order):
        """The market moves and everybody reads what is there."""
        self.street.market(symbol, events, wishes)
        self.street.drain(order)

    @rule(seed=st.integers(0, 1 << 16), stretches=st.integers(2, 8))
    def trading(self, seed, stretches):
        """A while of both markets, everybody reading along."""
        self.street.trade(seed, stretches)

    @rule(order=st.lists(st.sampled_from(TOPICS), min_size=1, max_size=12))
    def reorder(self, order):
        """Records of different logs come in this order."""
        for topic in order:
            self.street.read(topic)

    @rule(order=st.permutations(TOPICS))
    def drain(self, order):
        """All that is there is read."""
        self.street.drain(order)

    @rule()
    def kill(self):
        """Somebody halts the desk."""
        self.controls += 1
        self.street.kill(f"c{self.controls}")

    @rule(of=st.sets(st.integers(1, 6), max_size=4))
    def release(self, of):
        """Somebody ends some of the halts, of the last ones; a few may not have been given yet."""
        self.controls += 1
        self.street.release(f"c{self.controls}", *(f"c{self.controls + 1 - n}" for n in sorted(of)))

    @rule(topic=st.sampled_from(TOPICS), most=st.integers(1, 5))
    def duplicate(self, topic, most):
        """The end of a log is told twice."""
        self.street.again(topic, most)

    @rule(topic=st.sampled_from(TOPICS), edge=st.sampled_from(Street.EDGES))
    def restart(self, topic, edge):
        """The host is killed: between two records, or at an edge of one."""
        if not edge or not self.street.read(topic, edge):
            self.street.restart()

    @rule()
    def snapshot(self):
        """The next start goes on from here."""
        if head := self.street.ledger.head()[0]:
            self.street.host.snapshot(head)

    @precondition(lambda self: self.street.runs < 3)
    @rule()
    def renew(self):
        """The market is started anew, under another name."""
        self.street.drain()
        self.street.renew()

    @precondition(lambda self: not self.lockstep)
    @rule()
    def tick(self):
        """A second without a record."""
        self.street.clock += 1000
        self.street.tick()

    @invariant()
    def the_desk_is_what_the_model_says(self):
        self.street.check()
        LIVED["steps"] += 1

    def teardown(self):
        street = self.street
        try:
            street.drain()
            if not self.controls and street.runs == 1 and self.lockstep:
                self.same_as_the_closed_loop()
            self.ends_flat()
            self.journal_says_the_same()
            LIVED.update(runs=1, transactions=street.ledger.head()[0], answers=len(street.said), orders=len(street.account.sent),
                         fills=len(street.venue.fills), ended=len(street.account.outcomes), lives=street.lives)
        finally:
            street.ledger.close()
            shutil.rmtree(self.folder, ignore_errors=True)

    def ends_flat(self):
        """A halted desk in a market that goes on gets rid of all that it holds, and no cent is missing."""
        street = self.street
        street.kill("the-last")
        for _ in range(30):
            for symbol in SYMBOLS:
                street.market(symbol, [Event(600, move, 1, 4000, side) for move, side in ((0, 0), (0, 1), (0, -1), (1, 0))])
            street.drain()
        books = street.host.desk.portfolio
        assert not books.entries and not books.orders, f"halted, and yet open: {books.entries}, {books.orders}"
        for symbol in SYMBOLS:
            assert street.floors[symbol].matching.position == 0
            assert abs(street.venue.position(symbol)) < 1e-9
        assert street.venue.fills.keys() == street.account.fills.keys()
        assert abs(books.realized_usd - street.venue.cash()) < 1e-6
        street.check()

    def journal_says_the_same(self):
        """A fresh desk fed the journal answers what was written, and every row is what was written."""
        desk, again = Desk(S), Account()
        for entry in self.street.ledger.entries():
            outs = [o for fact in entry.consumed for o in desk.on(fact)]
            written = [a for record in entry.produced for a in answers_of(record)]
            assert sorted(map(msgspec.msgpack.encode, outs)) == sorted(map(msgspec.msgpack.encode, written))
            again.on(entry.consumed, outs)
        assert desk.snapshot() == self.street.host.desk.snapshot()
        assert again.fills == self.street.account.fills
        assert not list(verify(self.street.url))

    def same_as_the_closed_loop(self):
        """What was said at a paced market is what one process says about the same events."""
        street = self.street
        wanted = closed(street)
        different = next((i for i, (a, b) in enumerate(zip(street.said, wanted)) if a != b), None)
        assert different is None, (different, msgspec.msgpack.decode(street.said[different]), msgspec.msgpack.decode(wanted[different]))
        assert len(street.said) <= len(wanted)


class Drawn:
    """The drawn candidates as a signal engine."""

    def __init__(self, street: Street):
        self.street = street

    def on(self, frame: Frame) -> list:
        return [s.signal for s in self.street.scored[(frame.symbol, frame.session, frame.seq)]]


def closed(street: Street) -> list[bytes]:
    """All that the closed loop says about the street's market."""
    scored = {s.signal.id: s for batch in street.scored.values() for s in batch}
    desk = Desk(S)
    roads = {
        symbol: Road(symbol, frames, Drawn(street), lambda cs: [scored[c.id] for c in cs], desk,
                     Matching(symbol, S.instrument(symbol), S.matching, "t1"), S.matching.latency_ms)
        for symbol, frames in street.frames.items()
    }
    return [msgspec.msgpack.encode(o) for _, _, outs in run(roads) for o in outs]


class Paced(Month):
    """The market waits for the desk."""

    lockstep = True


Month.TestCase.settings = Paced.TestCase.settings = hypothesis_settings(
    max_examples=600 if LONG else 25, stateful_step_count=120 if LONG else 40, deadline=None, print_blob=True,
    suppress_health_check=list(HealthCheck))


TestUnpaced, TestPaced = Month.TestCase, Paced.TestCase
