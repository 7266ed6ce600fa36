"""The in-process part: which edges are tried, one run each or several deaths a run, and what came of it."""
import logging
import random
import shutil
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from itertools import count
from multiprocessing import get_context
from pathlib import Path

import msgspec

from benchmarks.crashes import market, siege
from benchmarks.crashes.town import RAISE, SERVICES, Plan, Town
from benchmarks.crashes.verdict import Verdict, judge
from benchmarks.crashes.virtual import Stalled
from config.settings import Settings, load
from streams.codec import decode
from streams.topics import EXEC_OUTCOMES, SIG_APPROVED, SIG_DROPPED, named

SINGLE, TOGETHER, SEQUENCE, UNPACED, EMPTY = "one death a run", "several at once", "sequences", "sequences, unpaced", "broker back empty"
RAISING = "handlers raise"
HOSTILE, TWINS = "hostile venue", "hostile venue, real account"
WAYS = (SINGLE, TOGETHER, SEQUENCE, UNPACED, EMPTY, RAISING, HOSTILE, TWINS)
BESET = (HOSTILE, TWINS)
DEATHS = 6               # in a sequence, on average
SHARE_RAISED = 0.05      # of the records that a handler is given, each at most once
SNAPSHOT_EVERY = 40
SAVE_EVERY_S = 0.05
SAVES_S = (0.0, SAVE_EVERY_S, 2.0)     # how often state files are written: with every record, now and then, hardly ever


@dataclass(frozen=True)
class Ground:
    """Where runs are played: a recording, a model, and how much of a market it is."""
    folder: Path
    symbols: tuple[str, ...] = ("BTCUSDT",)
    seconds: float = 45.0
    seed: int = 11

    def make(self) -> "Ground":
        """The recording and the model, on disk."""
        market.recording(self.folder / "recording", load(env={}), list(self.symbols), self.seconds, self.seed)
        market.model(self.folder / "models")
        return self

    def settings(self, speed: str = "max", way: str = "") -> Settings:
        """Settings under which a run plays it."""
        env = {"SLUICE_FRAME_EVENTS": "48", "SLUICE_MARKET": "recording", "RECORDING": str(self.folder / "recording"), "SPEED": speed,
               "SLUICE_MODELS": str(self.folder / "models")}
        s = siege.settings_of(env, way == TWINS) if way in BESET else load(env=market.EAGER | env)
        return msgspec.structs.replace(s, ledger=msgspec.structs.replace(s.ledger, snapshot_every=SNAPSHOT_EVERY))


@dataclass(frozen=True)
class Case:
    """One run: in which way somebody dies, and the seed of all that is left to chance; `edge` where there is just one."""
    way: str
    seed: int
    edge: int = 0
    edges: int = 0
    who: tuple[str, ...] = ()      # several at once: these, in place of those that the seed names
    kinds: tuple[tuple[str, str], ...] = ()        # beside a hostile venue: the edges that there are

    @property
    def saves_s(self) -> float:
        """How often state files are written; as in the undisturbed run where the edge is one of its."""
        return SAVE_EVERY_S if self.way == SINGLE else SAVES_S[self.seed % len(SAVES_S)]

    def plan(self) -> Plan:
        """Who dies at which edge."""
        rng = random.Random(self.seed)
        if self.way == SINGLE:
            return lambda n, who, kind: (who,) if n == self.edge else ()
        if self.way == TOGETHER:
            if self.who:
                return lambda n, who, kind: self.who if n == self.edge else ()
            others = rng.sample(SERVICES, rng.randint(2, len(SERVICES)))
            return lambda n, who, kind: tuple(dict.fromkeys((*others, who))) if n == self.edge else ()
        if self.way == EMPTY:
            return lambda n, who, kind: ("broker-empty",) if n == self.edge else ()

        if self.way == RAISING:
            raised: set[tuple[str, str]] = set()

            def once(n: int, who: str, kind: str) -> Sequence[str]:
                if not kind.startswith("handler") or (who, kind) in raised or rng.random() > SHARE_RAISED:
                    return ()
                raised.add((who, kind))
                return (RAISE,)
            return once

        def several(n: int, who: str, kind: str) -> Sequence[str]:
            if rng.random() >= DEATHS / self.edges:
                return ()
            return (who,) if rng.random() < 0.6 else rng.sample((*SERVICES, "broker"), rng.randint(1, 3))
        return several


@dataclass
class Result:
    """What became of a run."""
    case: Case
    kills: list[tuple[int, str, str]]
    faults: list[str]
    lost: int = 0
    doubled: int = 0
    gaps: int = 0
    wrong: int = 0
    said: dict[str, list[bytes]] = field(default_factory=dict)
    raised: int = 0
    healed: list[float] = field(default_factory=list)
    ills: Counter[str] = field(default_factory=Counter)
    orders: int = 0
    fills: int = 0


def play(ground: Ground, settings: Settings, folder: Path, plan: Plan | None, seed: int, repeats: float = 0.0,
         save_every_s: float = SAVE_EVERY_S, by_record: bool = False, fate: siege.Siege | None = None) -> tuple[Town, Verdict]:
    """One town from beginning to end, and the verdict on what it left."""
    town = Town(folder, settings, seed, plan, repeats, save_every_s=save_every_s, siege=fate)
    town.by_record = by_record
    stalled = ""
    try:
        town.run()
    except Stalled as error:
        stalled = str(error)
    topics = [named(t, settings) for t in (SIG_APPROVED, SIG_DROPPED, EXEC_OUTCOMES)]
    whole = [decode(r.value) for t in topics for r in town.logs.topics[t]] if town.logs.number == 1 else None
    verdict = judge(settings, f"sqlite:///{town.folders['risk']}/ledger.db", town.folders["exchange"] / "exchange.db", whole)
    if stalled:
        verdict.wrong.append(f"stalled: {stalled}")
    if fate:
        verdict.doubled += [f"{i} was sent again on a guess" for i in fate.line.blind]
        verdict.wrong += [f"desk and venue never agreed after the death at {at:.3f} s: {fate.last}" for at in fate.waiting]
        verdict.wrong += ["nothing was sent: the run shows nothing"] * (not verdict.orders)
    return town, verdict


def run(ground: Ground, case: Case) -> Result:
    """The case in a folder of its own, which is gone afterwards."""
    folder = Path(tempfile.mkdtemp(prefix="town-", dir=ground.folder))
    try:
        if case.way in BESET:
            fate = siege.Siege(case.seed, ground.seconds, case.kinds)
            town, v = play(ground, ground.settings("1", case.way), folder, None, case.seed, 0.01, case.saves_s, fate=fate)
            return Result(case, town.kills, v.faults, len(v.lost), len(v.doubled), len(v.gaps), len(v.wrong), healed=fate.healed,
                          ills=fate.line.ills, orders=v.orders, fills=v.fills)
        paced = case.way != UNPACED
        town, v = play(ground, ground.settings("max" if paced else "1"), folder, case.plan(), case.seed,
                       0.01 if case.way in (SEQUENCE, UNPACED) else 0.0, case.saves_s, case.way == RAISING)
        return Result(case, town.kills, v.faults, len(v.lost), len(v.doubled), len(v.gaps), len(v.wrong), v.said,
                      sum(end.split(": ")[1] == "Failed" for end in town.ends))
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def base(ground: Ground, speed: str = "max") -> tuple[Town, Verdict]:
    """The run in which nobody dies; its edges are what there is to try."""
    folder = Path(tempfile.mkdtemp(prefix="town-", dir=ground.folder))
    try:
        return play(ground, ground.settings(speed), folder, None, 0)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def spread(trace: Sequence[tuple[str, str]], points: int, rng: random.Random) -> list[int]:
    """Edge numbers over all kinds of edges of all services: every kind at least once, then in turn, none twice."""
    by_kind: dict[tuple[str, str], list[int]] = {}
    for n, kind in enumerate(trace, 1):
        by_kind.setdefault(kind, []).append(n)
    for places in by_kind.values():
        rng.shuffle(places)
    chosen: list[int] = []
    while len(chosen) < points and any(by_kind.values()):
        for places in by_kind.values():
            if places and len(chosen) < points:
                chosen.append(places.pop())
    return chosen


def cases(trace: Sequence[tuple[str, str]], unpaced_edges: int, points: int, seed: int) -> Iterator[Case]:
    """The campaign: of `points` runs-and-deaths some seven tenths alone, the others together, in sequences, unpaced, and with the
    broker's log gone."""
    rng, edges = random.Random(seed), len(trace)
    for i, edge in enumerate(spread(trace, points * 7 // 10, rng)):
        yield Case(SINGLE, seed * 100_000 + i, edge)
    for i in range(points // 10):
        yield Case(TOGETHER, seed * 100_000 + 20_000 + i, rng.randrange(1, edges + 1))
    for i in range(max(1, points // 50)):
        yield Case(SEQUENCE, seed * 100_000 + 40_000 + i, edges=edges)
    for i in range(max(1, points // 200)):
        yield Case(UNPACED, seed * 100_000 + 60_000 + i, edges=unpaced_edges)
    for i in range(max(1, points // 50)):
        yield Case(RAISING, seed * 100_000 + 70_000 + i)
    for i in range(max(1, points // 40)):
        yield Case(EMPTY, seed * 100_000 + 80_000 + i, rng.randrange(1, edges + 1))


def besieged(trace: Sequence[tuple[str, str]], seed: int) -> Iterator[Case]:
    """The campaign beside a hostile venue, without an end: the paper account and the real one with its twins in turn."""
    kinds = tuple(sorted({edge for edge in trace if edge[0] in siege.VICTIMS}))
    for i in count():
        yield Case(BESET[i % 2], seed * 100_000 + 90_000 + i, kinds=kinds)


def _run(pair: tuple[Ground, Case]) -> Result:
    logging.disable(logging.CRITICAL)
    return run(*pair)


def all_of(ground: Ground, work: Sequence[Case], jobs: int) -> Iterator[Result]:
    """Every case, in `jobs` processes."""
    if jobs == 1:
        yield from map(_run, ((ground, case) for case in work))
        return
    with ProcessPoolExecutor(jobs, mp_context=get_context("spawn")) as pool:
        yield from pool.map(_run, ((ground, case) for case in work), chunksize=4)

