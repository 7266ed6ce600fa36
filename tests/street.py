"""A whole street in one process: drawn markets, the Desk's host with its ledger, the venue's floors, and the logs between them.

Logs are lists of real bytes; which of them is read next, what is told twice, and where a life of the host ends is up to the caller.
`Account` is the model: what must hold of any account that these facts and fills belong to.
"""

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import msgspec
import numpy as np
from builders import AROUND, settings

from engine.execution.floor import Floor
from engine.execution.matching import Matching
from engine.facts import (
    BOOK,
    BUY,
    DEPTH,
    ENTRY,
    KILL,
    RELEASE,
    SELL,
    TRADE,
    Approved,
    Candidate,
    Control,
    Fill,
    Fills,
    Frame,
    Order,
    Outcome,
    Report,
    Reports,
    Scored,
    ScoredBatch,
    Tick,
    candidate_id,
    frame_of,
    releasing,
)
from engine.telemetry import Telemetry
from store.ledger import Ledger
from streams.codec import decode, encode
from streams.host import DeskHost

FRAMES, SCORES, REPORTS, FILLS, CONTROLS = TOPICS = ("md.frames", "sig.scored", "exec.reports", "exec.fills", "control.events")
EPOCHS = dict.fromkeys(TOPICS, "log1")
START_MS = 1_700_000_000_000
PRICES = {"BTCUSDT": 600_000, "ETHUSDT": 300_000}     # in ticks

S = settings(
    POLICY_COOLDOWN_SYMBOL="1", POLICY_COOLDOWN_GLOBAL="0", POLICY_MIN_CONFIDENCE="0.5", POLICY_MAX_EXPOSURE_TOTAL="1500", SPEED="max"
)
S = msgspec.structs.replace(S, desk=msgspec.structs.replace(S.desk, entry_ttl_ms=3000, max_holding_ms=6000, cancel_timeout_ms=1000))


class Event(NamedTuple):
    """One market event to be made: a book (mid and spread in ticks, sizes in lots) or, where `side` is not 0, a trade at the touch."""

    gap_ms: int
    move: int
    spread: int
    lots: int
    side: int


class Wish(NamedTuple):
    """A candidate to be made: at which of the stretch's events, and how; `off` ticks from the touch, above 0 is into the other side."""

    at: int
    side: str
    p: float
    off: int
    target: int
    stop: int


def an_event(rng: np.random.Generator) -> Event:
    """A book or a trade of a market that moves."""
    return Event(int(rng.choice([20, 60, 300, 700])), int(rng.integers(-8, 9)), int(rng.integers(1, 4)),
                 int(rng.choice([1, 40, 150, 400])), int(rng.choice([0, 1, -1])))


def a_wish(rng: np.random.Generator) -> Wish:
    """A candidate, mostly at the touch."""
    return Wish(int(rng.integers(12)), str(rng.choice([BUY, SELL])), float(rng.uniform(0.55, 1)), int(rng.choice([0, 0, 0, -1, 2])),
                int(rng.integers(2, 12)), int(rng.integers(3, 20)))


class Silent:
    """A meter that nobody reads."""

    def inc(self, series, by=1, **labels) -> None: ...
    def set(self, series, value, **labels) -> None: ...
    def observe(self, series, value, **labels) -> None: ...


class Account:
    """The model. What was sent, what was filled, what is halted; each fact and fill once, whatever the rest does."""

    def __init__(self) -> None:
        self.sent: dict[str, Order] = {}
        self.fills: dict[str, Fill] = {}
        self.told: dict[str, Report] = {}
        self.halts: dict[str, Control] = {}
        self.kills: set[str] = set()
        self.outcomes: dict[str, Outcome] = {}

    def on(self, facts: Sequence, outs: Sequence) -> None:
        """One transaction of the Desk's."""
        for fact in facts:
            if isinstance(fact, Fill):
                self.fills.setdefault(fact.id, fact)
            elif isinstance(fact, Report) and fact.status in ("rejected", "cancelled", "filled") and "duplicate" not in fact.reason:
                self.told.setdefault(fact.order_id, fact)
            elif isinstance(fact, Control) and fact.id not in self.halts:
                self.halts[fact.id] = fact
                ended = msgspec.json.decode(fact.details.get("kills", "[]"))
                self.kills = self.kills | {fact.id} if fact.kind == KILL else self.kills - set(ended)
        for out in outs:
            if isinstance(out, Order):
                assert out.id not in self.sent, f"{out.id} was sent twice"
                assert not (self.kills and out.cause == ENTRY), f"{out.id} was opened while the desk was halted"
                self.sent[out.id] = out
            elif isinstance(out, Outcome):
                assert out.id not in self.outcomes, f"{out.id} ended twice"
                self.outcomes[out.id] = out

    def through(self, entry_id: str, into: bool) -> float:
        """The quantity filled of an entry's own order, or of its exits."""
        return sum(f.qty for f in self.fills.values() if (s := self.sent[f.order_id]).entry_id == entry_id and (s.id == entry_id) is into)

    def position(self, symbol: str) -> float:
        """The sum of the fills."""
        return sum(f.qty if f.side == BUY else -f.qty for f in self.fills.values() if f.symbol == symbol)

    def cash(self, ended: Sequence[str] | None = None) -> float:
        """What all fills, or those of these entries, brought and cost, fees taken off."""
        mine = [f for f in self.fills.values() if ended is None or self.sent[f.order_id].entry_id in ended]
        return sum((-1 if f.side == BUY else 1) * f.qty * f.price - f.fee_usd for f in mine)

    def exposure(self, symbol: str) -> float:
        """Margin of what is held and of what open entries may still become."""
        total = 0.0
        for order in (o for o in self.sent.values() if o.cause == ENTRY and o.symbol == symbol):
            into = self.through(order.id, True)
            ended = order.id in self.told and into >= self.told[order.id].filled - 1e-9
            total += ((into if ended else order.qty) - self.through(order.id, False)) * order.price / S.sizing.leverage
        return total


class Street:
    """Market, logs, host and venue; `crash` of `read` is the edge at which a life ends."""

    EDGES = ("", "consumed", "written", "published")

    def __init__(self, folder: Path, lockstep: bool, symbols: Sequence[str] = ("BTCUSDT", "ETHUSDT"), empty: Path | None = None):
        self.lockstep, self.symbols, self.url = lockstep, symbols, f"sqlite:///{folder}/ledger.db"
        if empty:
            shutil.copy(empty, folder / "ledger.db")
        self.logs: dict[str, list[bytes]] = {t: [] for t in TOPICS}
        self.session, self.runs, self.clock = "t1", 1, START_MS
        self.frames: dict[str, list[Frame]] = {s: [] for s in symbols}
        self.scored: dict[tuple[str, str, int], list[Scored]] = {}
        self.over: dict[str, int] = dict.fromkeys(symbols, 0)
        self.mid = {s: PRICES[s] for s in symbols}
        self.spread = dict.fromkeys(symbols, 1)
        self.seq = dict.fromkeys(symbols, 0)
        self.proposed: set[str] = set()
        self.floors = {s: Floor(self.matching(s), self.session, S.matching.latency_ms, lockstep) for s in symbols}
        self.account, self.venue = Account(), Account()
        self.said: list[bytes] = []
        self.lives = 0
        self.start()

    def matching(self, symbol: str) -> Matching:
        return Matching(symbol, S.instrument(symbol), S.matching, self.session)

    # the market

    def market(self, symbol: str, events: Sequence[Event], wishes: Sequence[Wish] = ()) -> Frame:
        """The next stretch of market with the scores of its candidates, on their logs and on the floor."""
        instrument = S.instrument(symbol)
        ts, kinds, books, trades, touch = [], [], [], [], []
        for event in events:
            self.clock += event.gap_ms
            ts.append(self.clock)
            first = not self.seq[symbol] and len(ts) == 1
            if event.side and not first:
                kinds.append(TRADE)
                trades.append((self.mid[symbol] + (self.spread[symbol] if event.side > 0 else 0), event.lots, event.side))
            else:
                kinds.append(BOOK)
                self.mid[symbol] += event.move
                self.spread[symbol] = event.spread
                row = np.zeros((4, DEPTH), np.int32)
                row[0], row[2] = self.mid[symbol] - np.arange(DEPTH), self.mid[symbol] + event.spread + np.arange(DEPTH)
                row[1], row[3] = event.lots, event.lots + np.arange(DEPTH)
                books.append(row)
            touch.append((self.mid[symbol], self.mid[symbol] + self.spread[symbol]))
        seq = self.seq[symbol]
        frame = frame_of(symbol, self.session, seq, instrument.tick, instrument.lot, ts, kinds,
                         np.array(books or np.zeros((0, 4, DEPTH))), np.array(trades or np.zeros((0, 3))))
        self.seq[symbol] += frame.n
        scored = []
        for wish in sorted(wishes, key=lambda w: w.at % frame.n):
            i = wish.at % frame.n
            name = candidate_id(symbol, self.session, ts[i], wish.side)
            if name in self.proposed or kinds[i] != BOOK:
                continue
            self.proposed.add(name)
            sign = 1 if wish.side == BUY else -1
            entry = touch[i][0 if sign > 0 else 1] + sign * wish.off
            prices = [round(ticks * instrument.tick, 6) for ticks in (entry, entry - sign * wish.stop, entry + sign * wish.target)]
            signal = Candidate(name, symbol, ts[i], wish.side, *prices, "normal", "drawn", "schema", b"", seq + i, *AROUND)
            scored.append(Scored(signal, wish.p, "m1", 0.6, 0.45))
        self.frames[symbol].append(frame)
        self.scored[(symbol, self.session, seq)] = scored
        self.logs[FRAMES].append(encode(frame))
        self.logs[SCORES].append(encode(ScoredBatch(symbol, self.session, seq, frame.n, ts[-1], 0.0, scored)))
        floor = self.floors[symbol]
        floor.publish(frame)
        if not self.lockstep:
            for s in self.symbols:
                self.work(s)
        elif min(floor.limit_ms, ts[-1]) > floor.known_ms:
            self.work(symbol)          # promised before it was published
        return frame

    def renew(self) -> None:
        """Another run of the market: what rests is taken back, the position stays, events are numbered anew."""
        self.runs += 1
        self.session = f"t{self.runs}"
        self.clock += 1
        for symbol, floor in self.floors.items():
            self.seq[symbol] = 0
            self.tell(symbol, floor.renew(self.matching(symbol), self.session))
            floor.frames.clear()

    def trade(self, seed: int, stretches: int) -> None:
        """A while of all markets, everybody reading along at a pace of his own."""
        rng = np.random.default_rng(seed)
        for i in range(stretches):
            self.market(self.symbols[i % len(self.symbols)], [an_event(rng) for _ in range(rng.integers(3, 12))],
                        [a_wish(rng) for _ in range(rng.integers(4))])
            for topic in rng.permutation(TOPICS):
                for _ in range(rng.integers(4)):
                    self.read(str(topic))

    # the venue

    def work(self, symbol: str) -> None:
        """The floor goes as far as it may, and tells."""
        floor = self.floors[symbol]
        happened = floor.work(0 if self.lockstep else self.clock)
        if happened or self.lockstep:
            self.tell(symbol, happened)

    def tell(self, symbol: str, happened: list) -> None:
        """What happened onto the logs: fills first."""
        self.watch(symbol, happened)
        floor = self.floors[symbol]
        fills = [h for h in happened if isinstance(h, Fill)]
        if fills:
            self.logs[FILLS].append(encode(Fills(symbol, self.session, 0.0, fills)))
        reports = [h for h in happened if isinstance(h, Report)]
        self.logs[REPORTS].append(encode(Reports(symbol, self.session, floor.known_ms, floor.told, 0.0, reports, self.over)))

    def watch(self, symbol: str, happened: list) -> None:
        """The venue's own truth: reduce-only orders neither open nor turn, no order gets more than it asked, no entry leaves twice."""
        for report in (h for h in happened if isinstance(h, Report) and h.status == "accepted" and self.lockstep and self.runs == 1):
            due = self.account.sent[report.order_id].ts_ms + S.matching.latency_ms
            assert report.ts_ms == due, f"{report.order_id} was due at {due} and arrived at {report.ts_ms}: the venue had run ahead"
        for fill in (h for h in happened if isinstance(h, Fill)):
            order = self.account.sent[fill.order_id]
            self.venue.sent[order.id] = order
            before = self.venue.position(symbol)
            assert fill.id not in self.venue.fills, f"{fill.id} happened twice"
            self.venue.fills[fill.id] = fill
            after = self.venue.position(symbol)
            got = sum(f.qty for f in self.venue.fills.values() if f.order_id == order.id)
            assert got <= order.qty + 1e-9, f"{order.id} was filled with {got} of {order.qty}"
            if order.reduce_only:
                assert abs(after) < abs(before) and after * before >= -1e-9, f"{order.id} is reduce-only: {before} became {after}"
            left, came = (self.venue.through(order.entry_id, into) for into in (False, True))
            assert left <= came + 1e-9, f"{order.entry_id} left twice"

    # the host

    def start(self) -> None:
        """A new life of the host, from the ledger; what it had not acknowledged is published again."""
        self.ledger = Ledger(self.url, "risk", "OFF")
        self.host = DeskHost(S, self.ledger, Telemetry(Silent()), self.lockstep)  # type: ignore[arg-type]
        marks = self.ledger.marks()
        self.at = {t: marks.get((EPOCHS[t], t, 0), -1) + 1 for t in TOPICS}
        self.lives += 1
        for entry in list(self.ledger.unacknowledged()):
            self.publish(entry.produced)

    def state(self) -> bytes:
        """All that a life hands to the next."""
        host = self.host
        return msgspec.msgpack.encode((host.desk.snapshot(), host.market, host.scored, host.heard))

    def restart(self, was: bytes | None = None) -> None:
        """The life ends here; the next must be the same to the byte."""
        was = self.state() if was is None else was
        self.ledger.close()
        self.start()
        assert self.state() == was, "a restart made another desk"

    def publish(self, produced: list) -> None:
        """To the venue."""
        for record in produced:
            if isinstance(record, Approved):
                floor = self.floors[record.symbol]
                for act in record.acts():
                    (floor.place if isinstance(act, Order) else floor.cancel)(act)
                floor.promise(record.upto_ms, record.seen)
                self.work(record.symbol)

    def read(self, topic: str, crash: str = "") -> bool:
        """One record of a log, written down and published; False where there is none. `crash` ends this life at that edge."""
        if self.at[topic] >= len(self.logs[topic]):
            return False
        offset, log = self.at[topic], self.logs[topic]
        self.at[topic] += 1
        was = self.state()
        known = log[offset] in log[:offset]
        consumed, outs = self.host.take(decode(log[offset]), (topic, 0, offset))
        if known and not self.lockstep:
            assert not outs, f"{topic}/{offset} was told before, and yet {outs} was said"
            assert plain(self.state()) == plain(was), f"{topic}/{offset} was told before, and yet changed the desk"
        if crash == "consumed":
            self.restart(was)
            return True
        if consumed:
            self.spoken(consumed, outs, crash)
        elif crash:
            self.restart()
        if self.lockstep:
            self.publish(self.host.promises())
        return True

    def tick(self) -> None:
        """The clock says that time passed (never at a paced market)."""
        tick = Tick(self.clock)
        self.spoken([tick], self.host.desk.on(tick))

    def spoken(self, consumed: list, outs: list, crash: str = "") -> None:
        """One transaction: written, published, acknowledged."""
        produced = self.host.produce(consumed, outs, 0.0)
        seq = self.host.commit(consumed, produced, EPOCHS)
        self.account.on(consumed, outs)
        self.said += [msgspec.msgpack.encode(o) for o in outs]
        if crash == "written":
            self.restart()
            return
        self.publish(produced)
        if crash == "published":
            self.restart()
            return
        self.ledger.acknowledge(seq)

    def drain(self, order: Sequence[str] = TOPICS) -> None:
        """Everything that is there, the logs taken in turn."""
        while sum(self.read(topic) for topic in order):
            pass

    def kill(self, name: str) -> None:
        """Somebody halts the desk."""
        self.logs[CONTROLS].append(encode(Control(name, KILL, "anna", "drawn", 0, 0)))

    def release(self, name: str, *kills: str) -> None:
        """Somebody ends these halts."""
        self.logs[CONTROLS].append(encode(Control(name, RELEASE, "anna", "drawn", 0, 0, releasing(kills))))

    def again(self, topic: str, most: int) -> None:
        """The last records of a log are told twice, as by a writer that was killed behind its acknowledgement."""
        self.logs[topic] += self.logs[topic][-most:]

    def check(self) -> None:
        """The desk against the model."""
        books, account = self.host.desk.portfolio, self.account
        for symbol in self.symbols:
            assert abs(books.positions.get(symbol, 0.0) - account.position(symbol)) < 1e-9
            held = sum(e.sign * e.held for e in books.entries.values() if e.symbol == symbol)
            assert abs(held - account.position(symbol)) < 1e-9, "a position without an entry that will close it"
            assert abs(books.exposure_by_symbol.get(symbol, 0.0) - account.exposure(symbol)) < 1e-6
            assert account.exposure(symbol) <= S.policy.max_exposure_per_symbol_usdt + 1e-6
        assert sum(account.exposure(s) for s in self.symbols) <= S.policy.max_total_exposure_usdt + 1e-6
        assert set(self.host.desk.state.kills) == account.kills
        assert abs(books.realized_usd - account.cash(list(account.outcomes))) < 1e-6
        assert books.orphans == 0
        for order in account.sent.values():
            if order.id == order.entry_id:
                assert account.through(order.id, False) <= account.through(order.id, True) + 1e-9


def plain(state: bytes) -> bytes:
    """A state without the count of duplicates, the only thing that one may move."""
    desk, *rest = msgspec.msgpack.decode(state)
    inner = msgspec.msgpack.decode(desk)
    inner["portfolio"]["duplicates"] = 0
    return msgspec.msgpack.encode((inner, *rest))
