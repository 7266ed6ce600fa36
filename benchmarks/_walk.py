"""A venue that answers as it likes within what a venue may say, a desk with everything switched on, and what must hold after each step.

The books are kept a second time here, from orders sent and fills told alone: what the desk believes is compared with them. A second desk,
restored from the first one's snapshot, hears the same and must answer with the same bytes.
"""
from collections import Counter, defaultdict, deque
from collections.abc import Iterable
from typing import NamedTuple

import msgspec
import numpy as np

from config.settings import Settings
from engine import reasons
from engine.desk import Desk
from engine.facts import (
    ACCEPTED,
    BUY,
    CANCELLED,
    CRIT,
    DONE,
    ENTRY,
    GATING,
    HEALTH,
    KILL,
    REJECTED,
    RELEASE,
    SELL,
    Cancel,
    Candidate,
    Control,
    Dropped,
    Fill,
    Market,
    Order,
    Outcome,
    Report,
    Scored,
    Tick,
    account_of,
    candidate_id,
    releasing,
)
from engine.fillprob.gate import Gating
from engine.fillprob.model_v0 import FillModelV0
from engine.portfolio import CANCELLING
from engine.rewards.attribution import Attributed, Missed
from engine.scoring.features import FEATURES
from engine.telemetry import Telemetry

T = 1_700_000_000_000
START = {"BTCUSDT": 60_000.0, "ETHUSDT": 3_000.0, "SOLUSDT": 150.0}
# what may happen, and how often in a long walk; scores come more often than a market's own would
WHAT = {"market": 8, "score": 6, "accept": 4, "fill": 10, "cancel": 4, "done": 5, "reject": 1, "late": 1, "owed": 2, "again": 2, "tick": 2,
        "kill": 0.03, "release": 0.3, "crit": 0.03, "health": 0.3, "gating": 0.2, "odd": 0.2, "death": 0.1}
ROUNDS = 400         # of an orderly venue after which nothing may be left
CENT = 0.005


class At(msgspec.Struct):
    """An order at this venue."""
    order: Order
    filled: float = 0.0
    accepted: bool = False


class Level(msgspec.Struct):
    """A level of an entry as its venue knows it: what is reserved until its order has ended, and what is held."""
    order: Order
    leverage: float
    bought: float = 0.0
    sold: float = 0.0
    ended: bool = False

    @property
    def margin_usd(self) -> float:
        """Reserved while the order lives, then what is held at its price."""
        return (self.bought - self.sold if self.ended else self.order.qty - self.sold) * self.order.price / self.leverage


class Broken(AssertionError):
    """What does not hold."""


class Step(NamedTuple):
    """One step: what, and two numbers that it is made of: 0 … 1 and 0 … 60."""
    what: str
    u: float
    k: int


def must(holds: bool, what: str, *numbers) -> None:
    """Raises `Broken` where it does not hold; said with its numbers."""
    if not holds:
        raise Broken(f"{what}: {', '.join(map(str, numbers))}")


def touch(symbol: str, bid: int, ask: int, ts_ms: int, tick: float, lot: float) -> Market:
    """One book as the Desk reads it."""
    return Market(symbol, "t1", 0, 1, ts_ms, tick, lot, np.array([ts_ms], np.int64).tobytes(), np.array([bid], np.int32).tobytes(),
                  np.array([ask], np.int32).tobytes(), 100, 100)


def steps(n: int, rng: np.random.Generator) -> Iterable[Step]:
    """So many steps of a long walk."""
    weights = np.array(list(WHAT.values()))
    names, drawn = list(WHAT), rng.choice(len(WHAT), n, p=weights / weights.sum())
    return (Step(names[i], u, k) for i, u, k in zip(drawn.tolist(), rng.random(n).tolist(), rng.integers(0, 61, n).tolist()))


class Walk:
    """A desk under `mind`, warm, with its venue. `step` does one thing and checks everything; `rest` lets all come to an end.

    `twice`: beside it a restored one that must answer alike. `telemetry` is told what a host would tell it.
    """

    def __init__(self, mind: Settings, at_ms: int = T, twice: bool = True, telemetry: Telemetry | None = None):
        self.telemetry = telemetry
        self.mind, self.desk, self.now, self.n = mind, Desk(mind), at_ms, 0
        self.ticks = {s: round(price / mind.instrument(s).tick) for s, price in START.items()}
        self.live: dict[str, At] = {}
        self.owed: list[tuple[Order, float]] = []            # told of in a report, the fill itself still on its way
        self.levels: dict[str, Level] = {}
        self.cash: dict[str, float] = defaultdict(float)
        self.fees: dict[str, float] = defaultdict(float)
        self.net: dict[str, float] = defaultdict(float)
        self.held: dict[tuple[str, str], float] = defaultdict(float)
        self.told: deque[Report | Fill] = deque(maxlen=40)
        self.sent: set[str] = set()
        self.asked: set[str] = set()
        self.chosen: set[str] = set()
        self.rewarded: set[str] = set()
        self.seen: Counter[str] = Counter()
        for ago in range(20_000, -1, -1_000):
            for symbol in START:
                self.desk.on(self.book(symbol, self.now - ago))
        self.other: Desk | None = None
        if twice:
            self.other = Desk(mind)
            self.other.restore(self.desk.snapshot())

    def book(self, symbol: str, ts_ms: int) -> Market:
        """The symbol's touch, one tick wide."""
        i, bid = self.mind.instrument(symbol), self.ticks[symbol]
        return touch(symbol, bid, bid + 1, ts_ms, i.tick, i.lot)

    def score(self, symbol: str, u: float, k: int) -> Scored:
        """A candidate at the touch with features, depth and trading drawn from its two numbers."""
        i, held = self.mind.instrument(symbol), self.held["", symbol]
        side = BUY if k % 2 else SELL
        if abs(held) > 1e-9 and k % 7:          # mostly with what is held: against it is refused at once
            side = BUY if held > 0 else SELL
        rng = np.random.default_rng(self.n)
        row = np.clip(rng.normal(0, 1, len(FEATURES)), -1, 1).astype(np.float32)
        for name, top in (("sigma", 12.0), ("spread", 2.0), ("gap_bids", 1.0), ("gap_asks", 1.0), ("trade_intensity_slow", 10.0)):
            row[FEATURES.index(name)] = rng.random() * top
        price = (self.ticks[symbol] + (side == SELL)) * i.tick
        sign, lots = (1 if side == BUY else -1), [int(x / (price * i.lot)) for x in rng.choice([2e3, 2e4, 2e5, 2e7], 2)]
        return Scored(
            Candidate(candidate_id(symbol, "t1", self.now, side), symbol, self.now, side, price, price * (1 - sign * 0.001),
                      price * (1 + sign * 0.0003), ("normal", "event", "high_vol")[k % 3], "walk", "schema",
                      row.tobytes() if k % 5 else b"", 0, lots[0] // 2, lots[0], lots[1] // 2, lots[1], int(rng.integers(0, 80))),
            0.6 + 0.4 * u, "m1", 0.7, 0.45)

    # one step

    def step(self, step: Step) -> None:
        """One thing happens, and everything is looked at."""
        what, u, k = step
        self.now, self.n = self.now + 1 + int(u * 300), self.n + 1
        symbol = list(START)[k % len(START)]
        ids = list(self.live)
        at = self.live[ids[k % len(ids)]] if ids else None
        if what == "market":
            self.ticks[symbol] += round((u - 0.5) * 60)
            self.feed(self.book(symbol, self.now))
        elif what == "score":
            self.feed(self.score(symbol, u, k))
        elif what == "odd":
            wrong = msgspec.structs.replace(self.score(symbol, u, k), p=float("nan"))
            self.feed(wrong)
        elif what == "tick":
            self.feed(Tick(self.now))
        elif what in ("kill", "crit"):
            self.feed(Control(f"c{self.n}", KILL if what == "kill" else CRIT, "t", "t", 0, self.now))
        elif what == "release":
            self.feed(Control(f"c{self.n}", RELEASE, "t", "t", 0, self.now, releasing(list(self.desk.state.kills))))
        elif what == "health":
            self.feed(Control(f"c{self.n}", HEALTH, "t", "t", 0, self.now, {"lag": "9900", "in_flight": str(int(u * 120))}))
        elif what == "gating":
            self.feed(Control(f"c{self.n}", GATING, "t", "t", 0, self.now, self.gating(u, k).details))
        elif what == "death":
            self.die()
        elif what == "again" and self.told:
            answers = self.feed(self.told[k % len(self.told)], new=False)
            must(not answers, "what was told before says nothing new", answers)
        elif what == "owed" and self.owed:
            self.fill(*self.owed.pop(k % len(self.owed)))
        elif at is not None:
            self.answer(what, at, u)
        self.hold()

    def gating(self, u: float, k: int) -> Gating:
        """What a start might find: a model or none, enforced or watched, and a breaker that trips soon."""
        rules = msgspec.structs.replace(self.mind.fill_prob, enforce=k % 3 > 0, evidence=k % 2 > 0, cb_window_seconds=1 + k,
                                        cb_min_samples=1 + k % 5)
        bins = {f"{way}|{size}|1|0": round(1e4 * abs(np.sin(u + size + (way == "long")))) for way in ("long", "short") for size in range(5)}
        model = FillModelV0(bins, 5000, 100).to_json().decode() if k % 4 else "" if k % 8 else "{not a model"
        return Gating(rules, model, round(u * 9000))

    def die(self) -> None:
        """The desk is lost; one that is restored from its last snapshot takes its place."""
        self.seen["deaths"] += 1
        restored = Desk(self.mind)
        restored.restore(self.desk.snapshot())
        self.desk, self.other = (self.other, restored) if self.other is not None else (restored, None)

    def answer(self, what: str, at: At, u: float) -> None:
        """The venue says something of an order, where it may."""
        order = at.order
        rest = round(order.qty - at.filled, 12)
        lot = self.mind.instrument(order.symbol).lot
        part = min(rest, round(max(1, int(order.qty * u / lot)) * lot, 12))
        if what == "accept":
            at.accepted = True
            self.feed(Report(order.id, order.symbol, ACCEPTED, "", at.filled, 0, self.now))
        elif what == "fill" and rest > 0:
            at.filled = round(at.filled + part, 12)
            self.fill(order, part)
        elif what == "late" and rest > 0:
            at.filled = round(at.filled + part, 12)
            self.owed.append((order, part))
            self.end(at, DONE if at.filled >= order.qty - 1e-12 else CANCELLED)
        elif what == "done" and rest <= 1e-12:
            self.end(at, DONE)
        elif (what == "cancel" and rest > 1e-12) or (what == "reject" and not (at.filled or at.accepted)):
            self.end(at, CANCELLED if what == "cancel" else REJECTED)

    def end(self, at: At, status: str) -> None:
        """The venue is through with the order."""
        del self.live[at.order.id]
        self.settled(at.order.id)
        self.feed(Report(at.order.id, at.order.symbol, status, "", at.filled, 0, self.now))

    def settled(self, order_id: str) -> None:
        """What its entry reserved is free again, once nothing of it is owed."""
        if order_id in self.levels and not any(order.id == order_id for order, _ in self.owed):
            self.levels[order_id].ended = True

    def fill(self, order: Order, qty: float) -> None:
        """An execution of this much, at the order's price or at the touch."""
        bid, i = self.ticks[order.symbol], self.mind.instrument(order.symbol)
        buys, who = order.side == BUY, account_of(order.id)
        price = order.price or round((bid + buys) * i.tick, 10)
        fee = round(price * qty * (0.0002 if order.price else 0.0005), 6)
        sign = 1 if buys else -1
        self.held[who, order.symbol] += sign * qty
        self.cash[who] -= sign * qty * price + fee
        self.fees[who] += fee
        if order.cause == ENTRY:
            self.levels[order.id].bought += qty
        else:
            self.levels[self.entry_of(order)].sold += qty
        if order.id not in self.live:
            self.settled(order.id)
        self.seen["fills"] += 1
        self.feed(Fill(f"{order.id}:{self.n}", order.id, order.symbol, order.side, price, qty, fee, bool(order.price), self.n, self.now))

    def entry_of(self, order: Order) -> str:
        """The level that a closing order closes."""
        return f"{'T' if account_of(order.id) else 'E'}-{order.id.split('-', 1)[1]}"

    # what the desk says

    def feed(self, fact, new: bool = True) -> list:
        """The desk hears a fact; its answers, looked at one by one."""
        answers = self.desk.on(fact)
        if self.telemetry is not None:
            self.telemetry.on(self.desk, [fact], answers)
        if self.other is not None:
            again = self.other.on(fact)
            must(msgspec.msgpack.encode(answers) == msgspec.msgpack.encode(again), "the restored desk answers otherwise", fact)
        if new and isinstance(fact, (Report, Fill)):
            self.told.append(fact)
        entries = [o for o in answers if isinstance(o, Order) and o.cause == ENTRY]
        for out in answers:
            self.heard(out)
        if isinstance(fact, Scored):
            refused = [o for o in answers if isinstance(o, Dropped)]
            must(bool(entries) != bool(refused), "a signal is refused or enters, not both and not neither", fact.signal.id, refused)
            must(all(o.id.split(".")[0][2:] == fact.signal.id for o in entries), "an entry is its signal's", fact.signal.id)
        if entries:
            self.entered(entries)
        return answers

    def heard(self, out) -> None:
        """One answer."""
        if isinstance(out, Order):
            must(out.id not in self.sent, "an id is used once", out.id)
            must(out.qty > 0, "an order has a quantity", out)
            self.sent.add(out.id)
            self.live[out.id] = At(out)
            self.seen["orders"] += 1
            if out.cause != ENTRY:
                must(out.reduce_only != bool(account_of(out.id)), "what closes only reduces", out.id)
        elif isinstance(out, Cancel):
            self.asked.add(out.order_id)
        elif isinstance(out, Dropped):
            must(out.reason in reasons.DROPS, "a refusal has a known code", out.reason)
            must(bool(out.numbers) and (out.reason == reasons.HALTED or "=" in out.numbers or any(c.isdigit() for c in out.numbers)),
                 "a refusal has its numbers", out.reason, out.numbers)
            self.seen[out.reason] += 1
        elif isinstance(out, Outcome):
            who = account_of(out.id)
            self.net[who] += out.net_usd
            self.seen["outcomes"] += 1
        elif isinstance(out, Attributed):
            must(out.order_id not in self.rewarded, "one reward an entry", out)
            self.rewarded.add(out.order_id)
            self.seen[f"reward {out.mode}"] += 1
        elif isinstance(out, Missed):       # its choice had waited for too long and was paid as unfilled
            must(out.order_id in self.rewarded, "an outcome without a reward", out)

    def entered(self, orders: list[Order]) -> None:
        """The orders of an entry: what it may be, and that every cap holds with it."""
        state, first = self.desk.state, orders[0].decision
        must(not state.kills, "nothing is entered under a kill", first)
        if first is None or first.sized is None:
            raise Broken(f"the first level carries no decision: {orders[0].id}")
        for who in {account_of(o.id) for o in orders}:
            some = [o for o in orders if account_of(o.id) == who]
            margin = sum(o.qty * o.price for o in some) / first.leverage
            for cap in first.sized.caps:
                must(margin <= cap.usd + 1e-6, f"{cap.name} is breached", margin, cap.usd)
            must(margin <= first.sized.margin_usd + 1e-6 and sum(o.qty for o in some) <= first.sized.qty + 1e-9, "no more than its size")
            for o in some:
                must(o.route != "full" or not state.safe.base, "nothing real in the fail-safe", o.id)
                self.levels[o.id] = Level(o, first.leverage)
        if first.choice and orders[0].route != "twin":
            self.chosen.add(first.choice.order_id)
        self.seen["entries"] += 1
        self.seen[f"cap {first.sized.cap}"] += 1
        self.seen["risk scaled"] += bool(first.sized.factors)
        own = [level for level in self.levels.values() if account_of(level.order.id) == account_of(orders[0].id)]
        books, limits = self.desk.books(orders[0].id), self.mind.policy
        must(sum(level.margin_usd for level in own) <= min(limits.max_total_exposure_usdt, books.equity_usd + books.realized_usd) + 1e-6,
             "the account's limit", orders[0].id)
        must(sum(level.margin_usd for level in own if level.order.symbol == orders[0].symbol)
             <= limits.max_exposure_per_symbol_usdt + 1e-6, "the symbol's limit", orders[0].id)

    # what must hold

    def hold(self) -> None:
        """The desk's books are the fold of the fills, money adds up, and whatever is held has a way out."""
        owed = {order.id for order, _ in self.owed}
        for who, books in (("", self.desk.state.portfolio), ("twin", self.desk.state.twins)):
            entries = books.entries.values()
            held: dict[str, float] = defaultdict(float)
            closing: dict[str, float] = defaultdict(float)
            under_way = 0.0
            for e in entries:
                held[e.symbol] += e.sign * e.held
                under_way += e.sign * (e.got - e.paid) - e.fees
            for symbol in START:
                mine = self.held[who, symbol]
                must(abs(books.positions.get(symbol, 0.0) - mine) < 1e-8, "the position is the sum of the fills", symbol, mine)
                must(abs(held[symbol] - mine) < 1e-8, "the entries hold the position", symbol, mine, held[symbol])
            must(abs(books.realized_usd + under_way - self.cash[who]) < CENT,
                 "money adds up", books.realized_usd, under_way, self.cash[who])
            must(abs(books.fees_usd - self.fees[who]) < CENT, "fees add up", books.fees_usd, self.fees[who])
            must(books.orphans == 0 and sum(p.open for p in books.plans.values()) == len(books.entries), "no order is nobody's")
            for at in self.live.values():
                if at.order.cause != ENTRY and account_of(at.order.id) == who:
                    closing[self.entry_of(at.order)] += at.order.qty - at.filled
            for order, qty in self.owed:
                if order.cause != ENTRY and account_of(order.id) == who:
                    closing[self.entry_of(order)] += qty
            for e in entries:
                must(closing[e.id] <= e.held + 1e-9, "never more closing than held", e.id, closing[e.id], e.held)
                at_work = e.order_id in self.live or e.order_id in owed
                must(at_work or (e.state == CANCELLING and e.asked_ms > 0), "something is at work on what is open", e.id, e.state, e.held)
        # a seat is one plan: ten at most, whatever their levels
        must(self.desk.portfolio.total_positions <= self.mind.policy.max_open_positions_total, "too many positions")

    def rest(self) -> None:
        """An orderly venue from now on: whatever is open ends, and the account is what the venue's cash says."""
        for _ in range(ROUNDS):
            self.now += 1_000
            for symbol in START:
                self.feed(self.book(symbol, self.now))
            while self.owed:
                self.fill(*self.owed.pop())
            for order_id in list(self.live):
                at = self.live.get(order_id)
                if at is None:
                    continue
                rest = round(at.order.qty - at.filled, 12)
                if at.order.cause != ENTRY and rest > 0:
                    at.filled = at.order.qty
                    self.n += 1
                    self.fill(at.order, rest)
                if order_id in self.live:
                    self.end(at, DONE if at.filled >= at.order.qty - 1e-12 else CANCELLED)
            self.hold()
            if self.desk.idle and not self.live:
                break
        must(self.desk.idle and not self.live, "every open entry ends", len(self.live), [e.id for e in self.desk.entries()])
        for who, books in (("", self.desk.state.portfolio), ("twin", self.desk.state.twins)):
            must(all(abs(self.held[who, symbol]) < 1e-9 for symbol in START), "nothing is held at the end", who)
            must(abs(books.realized_usd - self.cash[who]) < CENT, "the result is the venue's cash", books.realized_usd, self.cash[who])
            must(abs(self.net[who] - self.cash[who]) < CENT, "the outcomes are the venue's cash", self.net[who], self.cash[who])
        must(self.rewarded == self.chosen, "every choice has its reward", len(self.chosen), len(self.rewarded))
        if self.other is not None:
            must(self.desk.snapshot() == self.other.snapshot(), "the restored desk is the same")
