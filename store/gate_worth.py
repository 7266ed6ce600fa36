"""What the fill-probability gate is worth: one market with it off, in shadow and enforced, over the same candidates and scores.

A desk that is kept from an order goes another way afterwards, so that the runs differ by more than what was blocked. What a shadow would
have blocked, beside what it would have let through, is asked of the very same entries: nothing but the verdict is between the two.
"""
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import msgspec
import numpy as np

from config.settings import Settings
from engine import reasons
from engine.execution.markout import HORIZONS, Markouts
from engine.facts import ENTRY, Dropped, Fill, Frame, Market, Order, Outcome
from engine.fillprob.gate import Gating
from engine.fillprob.models import FillModelV
from engine.settings import FillProb
from store.closed import Closed
from store.scorer import Scorer
from store.stages import Running, Stage, abreast, run_all

OFF, SHADOW, ENFORCED = "off", "shadow", "enforced"
LATE_MS = 60_000


class Judge(NamedTuple):
    """A model under its name, and a threshold in bps."""
    name: str
    model: FillModelV
    threshold_bps: int


class Entry(msgspec.Struct):
    """An entry that was sent: what the gate said of it (None: nothing), its notional, and what became of it. USD and bps.

    `markouts` holds by horizon in ms the mean over its fills. `net_usd` is None where it was never closed.
    """
    id: str
    ts_ms: int
    prob_bps: int | None
    sent_usd: float
    orders: int = 1
    filled_orders: int = 0
    bought_usd: float = 0.0
    net_usd: float | None = None
    markouts: dict[int, float] = {}

    @property
    def filled(self) -> bool:
        """Whether any of it was bought."""
        return self.bought_usd > 0


class Part(msgspec.Struct):
    """What some entries came to. Rates are shares; money in USD, after fees; markouts in bps of the price, by horizon in ms.

    `per_unit_bps`: result of what was bought and closed; `…_error`: one standard error, over entries; None of fewer than two.
    """
    entries: int
    filled: int
    closed: int
    won: int
    sent_usd: float
    bought_usd: float
    net_usd: float
    per_unit_bps: float | None
    per_unit_error: float | None
    markouts: dict[int, float | None]
    markout_errors: dict[int, float | None]

    @property
    def fill_rate(self) -> float | None:
        """Share of the entries of which anything was bought."""
        return self.filled / self.entries if self.entries else None


class Run(msgspec.Struct):
    """One desk: its gate, its stage's figures, its entries, and what the gate counted. `fills` in the form of a dataset's fixture."""
    name: str
    mode: str
    threshold_bps: int
    told: Stage
    entries: list[Entry] = []
    checks: int = 0
    low: int = 0
    blocks: int = 0
    bypassed: int = 0
    trips: int = 0
    fills: list[dict[str, Any]] = []

    def all(self) -> Part:
        """All that was sent."""
        return part(self.entries)

    def apart(self) -> tuple[Part, Part]:
        """Its judged entries at or above the threshold, and those below it."""
        judged = [e for e in self.entries if e.prob_bps is not None]
        return (part([e for e in judged if (e.prob_bps or 0) >= self.threshold_bps]),
                part([e for e in judged if (e.prob_bps or 0) < self.threshold_bps]))


def mean(values: Sequence[float]) -> tuple[float | None, float | None]:
    """Mean and its standard error."""
    if not values:
        return None, None
    some = np.asarray(values, np.float64)
    return float(some.mean()), float(some.std(ddof=1) / np.sqrt(len(some))) if len(some) > 1 else None


def per_unit(entries: Sequence[Entry]) -> tuple[float | None, float | None]:
    """Result over notional bought, bps, and the standard error of that ratio over entries (linearised).

    >>> per_unit([Entry("a", 0, None, 1.0, bought_usd=100.0, net_usd=1.0), Entry("b", 0, None, 1.0, bought_usd=100.0, net_usd=-1.0)])
    (0.0, 100.0)
    """
    if not entries:
        return None, None
    x = np.array([e.bought_usd for e in entries])
    y = np.array([e.net_usd or 0.0 for e in entries])
    ratio, n = y.sum() / x.sum(), len(entries)
    error = np.sqrt(n / (n - 1) * np.square(y - ratio * x).sum()) / x.sum() if n > 1 else None
    return float(1e4 * ratio), None if error is None else float(1e4 * error)


def part(entries: Sequence[Entry]) -> Part:
    """What these came to."""
    closed = [e for e in entries if e.net_usd is not None and e.filled]
    unit, error = per_unit(closed)
    marks = {h: mean([e.markouts[h] for e in entries if h in e.markouts]) for h in HORIZONS}
    return Part(len(entries), sum(e.filled for e in entries), len(closed), sum((e.net_usd or 0) > 0 for e in closed),
                sum(e.sent_usd for e in entries), sum(e.bought_usd for e in entries), sum(e.net_usd or 0.0 for e in closed), unit, error,
                {h: m for h, (m, _) in marks.items()}, {h: s for h, (_, s) in marks.items()})


def prob_of(word: str) -> int | None:
    """The probability in a decision's word of the gate.

    >>> prob_of("SHADOW prob_bps=2450 threshold_bps=2500"), prob_of("bypassed")
    (2450, None)
    """
    found = [part.partition("=")[2] for part in word.split() if part.startswith("prob_bps=")]
    return int(found[0]) if found else None


class Judging(Running):
    """A desk on its way, its entries one by one."""

    def __init__(self, name: str, closed: Closed):
        super().__init__(name, closed)
        self.entries: dict[str, Entry] = {}
        self.entry_of: dict[str, str] = {}
        self.filled: set[str] = set()
        self.marks: dict[tuple[str, int], list[float]] = {}
        self.of_fill: dict[str, str] = {}
        self.markouts = Markouts(1, LATE_MS)
        self.blocked = 0
        self.fills: list[dict[str, Any]] = []

    def heard(self, fact, outs: list) -> None:
        """One fact and what the desk made of it."""
        if isinstance(fact, Market):
            ts, bid, ask = np.frombuffer(fact.ts, np.int64), np.frombuffer(fact.bid, np.int32), np.frombuffer(fact.ask, np.int32)
            self.marked(self.markouts.on_market(fact.symbol, fact.session, fact.tick, ts, bid, ask, fact.upto_ms))
        elif isinstance(fact, Fill):
            self.bought(fact)
        super().heard(fact, outs)
        for out in outs:
            if isinstance(out, Order) and out.cause == ENTRY:
                self.sent(out)
            elif isinstance(out, Outcome) and out.id in self.entries:
                self.entries[out.id].net_usd = out.net_usd
            elif isinstance(out, Dropped):
                self.blocked += out.reason == reasons.FILL_PROB_LOW

    def sent(self, order: Order) -> None:
        """An order of an entry."""
        self.entry_of[order.id] = order.entry_id
        entry = self.entries.get(order.entry_id)
        if entry is None:
            word = order.decision.gate if order.decision else ""
            self.entries[order.entry_id] = Entry(order.entry_id, order.ts_ms, prob_of(word), order.qty * order.price)
        else:
            entry.sent_usd += order.qty * order.price
            entry.orders += 1

    def bought(self, fill: Fill) -> None:
        """A fill; of an entry's it is asked what became of the price."""
        self.fills.append({"ts": fill.ts_ms, "symbol": fill.symbol, "side": fill.side, "price": repr(fill.price),
                           "quantity": repr(fill.qty), "order_id": fill.order_id, "fee": repr(fill.fee_usd)})
        if (entry := self.entries.get(self.entry_of.get(fill.order_id, ""))) is None:
            return
        entry.bought_usd += fill.qty * fill.price
        if fill.order_id not in self.filled:
            self.filled.add(fill.order_id)
            entry.filled_orders += 1
        self.of_fill[fill.id] = entry.id
        self.marked(self.markouts.on_fill(fill.id, fill.symbol, fill.side, fill.price, fill.ts_ms, ""))

    def marked(self, came: Iterable) -> None:
        """Markouts that came due."""
        for one in came:
            self.marks.setdefault((self.of_fill[one.fill_id], one.horizon), []).append(one.bps)

    def run(self, mode: str, threshold_bps: int) -> Run:
        """What it came to."""
        for (entry, horizon), bps in self.marks.items():
            self.entries[entry].markouts[horizon] = sum(bps) / len(bps)
        state = self.closed.desk.state.gate
        return Run(self.told.digits, mode, threshold_bps, self.end(0.0), list(self.entries.values()), state.checks, state.low, self.blocked,
                   state.bypassed, state.breaker.trips, self.fills)


def gatings(rules: FillProb, judges: Sequence[Judge], breaker: bool) -> Iterator[tuple[str, str, Gating | None]]:
    """A name, a mode and the gate for each desk: off, and every judge in shadow and enforced. `breaker`: as the settings have it."""
    yield OFF, OFF, None
    but = msgspec.structs.replace
    rules = but(rules, enforce_symbols=[], evidence=False) if breaker else but(rules, enforce_symbols=[], evidence=False,
                                                                              cb_max_block_rate_pct=100)
    for judge in judges:
        text = judge.model.to_json().decode()
        for mode in (SHADOW, ENFORCED):
            yield (f"{judge.name} {judge.threshold_bps} {mode}", mode,
                   Gating(but(rules, enforce=mode == ENFORCED), text, judge.threshold_bps))


def worth(settings: Settings, scorer: Scorer, frames: dict[str, Iterator[Frame]], judges: Sequence[Judge], admit: float | None = None,
          breaker: bool = True, say=lambda ms, stages: None) -> list[Run]:
    """A desk without the gate, and two for each judge, over these frames; `admit` and `say` as of the stages."""
    wanted = list(gatings(settings.fill_prob, judges, breaker))
    running = abreast(Judging, {name: settings for name, _, _ in wanted}, scorer, frames, admit, {name: gate for name, _, gate in wanted})
    run_all(running, say)
    thresholds = [0, *(judge.threshold_bps for judge in judges for _ in (SHADOW, ENFORCED))]
    return [r.run(mode, bps) for r, (_, mode, _), bps in zip(running, wanted, thresholds)]
