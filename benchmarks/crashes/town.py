"""The whole desk in one process on virtual time: the services as they are, over logs in memory, each of which may die at any edge.

Exchange, collector, signal engine, scorer, risk and executor are the objects that run live, made by the same functions; what carries
their records (`Resident` for the Faust worker) and what they are connected by is transport. Each has a data folder of its own, and a
new life begins on a copy of what the last one left.
"""
import asyncio
import gc
import logging
import shutil
from collections import Counter
from collections.abc import Callable, Sequence
from contextvars import copy_context
from pathlib import Path
from typing import Any
from unittest import mock

import msgspec
import numpy as np

from benchmarks.crashes.edges import LIFE, Killed, Life, edge, watched
from benchmarks.crashes.log import Logs
from benchmarks.crashes.siege import LINGER_S, Siege
from benchmarks.crashes.virtual import Stalled, VirtualLoop
from config.settings import Settings
from engine import metrics as m
from store.exporter import Exporter
from streams import ai_scorer, collector, executor, risk, signal_engine
from streams.exchange import Exchange
from streams.seek import start_of
from streams.topics import TOPICS, Topic, named

MAKERS: dict[str, Any] = {"collector": collector, "signal_engine": signal_engine, "ai_scorer": ai_scorer, "risk": risk,
                          "executor": executor}
SERVICES = ("exchange", *MAKERS)
PATIENCE_S = 900.0        # of virtual time after which a town that has not come to the end of its market never will
SETTLE_S = 3.0
MOST = 8                  # records that a stage is handed at once
RAISE = "raise"           # in a plan's answer: the handler raises here
Plan = Callable[[int, str, str], Sequence[str]]     # (edge number, service, kind) -> who dies here

log = logging.getLogger("sluice.crashes")


class Resident:
    """What a stage is given instead of the Faust worker: the same hooks, records from the logs in memory."""

    town: "Town"

    def __init__(self, name: str, settings: Settings, exporter: Exporter, reads: Sequence[Topic]):
        self.name, self.settings, self.exporter, self.reads, self.instance = name, settings, exporter, reads, settings.instance
        self.stage: Any = None
        self.epochs: dict[str, str] = self.town.logs.epochs()
        self.background: list = []
        self.on_close: list = []
        self.on_open: list = []
        self.ahead: Callable[[list], None] | None = None
        self.at: dict[str, int] = {}
        self.lag = 0        # a log in memory is read as it is written

    async def send(self, topic: Topic, key: str, blob: bytes) -> asyncio.Future:
        """A record to the log."""
        edge(f"publish: before {topic}")
        done = self.town.logs.send(named(topic, self.settings), key.encode(), blob)
        edge(f"publish: after {topic}")
        return done

    async def run(self) -> None:
        """Until it fails or is killed."""
        for hook in self.on_open:
            await hook()
        marks = self.stage.marks()
        for topic in (named(t, self.settings) for t in self.reads):
            start = start_of(marks, self.epochs[topic], topic, 0, 0, len(self.town.logs.topics[topic]))
            if start.another:
                self.exporter.inc(m.LOG_EPOCH_CHANGES_TOTAL, service=self.name)
            if start.missing:
                self.exporter.inc(m.LOG_HOLES_TOTAL, start.missing, service=self.name)
            self.at[topic] = start.due
        await asyncio.gather(self.read(), *(each() for each in self.background))

    async def read(self) -> None:
        """Record by record, whichever topic has one; which is up to chance, as it is between brokers."""
        logs = self.town.logs
        while True:
            if not logs.up or logs.epochs() != self.epochs:
                raise ConnectionError("the broker is gone")
            ready = [t for t in self.at if self.at[t] < len(logs.topics[t])]
            if not ready:
                await logs.grown.wait()
                continue
            topic = ready[int(self.town.rng.integers(len(ready)))]
            batch = logs.topics[topic][self.at[topic]:self.at[topic] + 1 + int(self.town.rng.integers(MOST))]
            if self.ahead and len(batch) > 1:
                self.ahead(batch)
            for record in batch:
                self.at[topic] += 1
                edge("stage: a record taken")
                await self.stage.on_record(record)
                edge("stage: a record done")
            await asyncio.sleep(0)

    @property
    def idle(self) -> bool:
        """It has read all there is."""
        return bool(self.at or not self.reads) and all(n >= len(self.town.logs.topics[t]) for t, n in self.at.items())


class Failed(RuntimeError):
    """What a stage was made to raise."""


def fallible(resident: Resident) -> None:
    """Gives the stage's handler an edge of its own, inside what it does about its errors: here it may also raise."""
    name = "consume" if isinstance(resident.stage, risk.Risk) else "handle"
    handle = getattr(resident.stage, name)

    async def handled(record) -> None:
        edge(f"handler: {record.topic}/{record.offset}" if resident.town.by_record else "handler: a record")
        await handle(record)
    setattr(resident.stage, name, handled)


def copied(before: Path, after: Path) -> None:
    """The folder as it is. A database that is just being closed, on its own thread, takes its log away meanwhile: then once more."""
    while True:
        try:
            shutil.copytree(before, after)
            return
        except (shutil.Error, FileNotFoundError):
            shutil.rmtree(after, ignore_errors=True)


class Town:
    """One run from the beginning of a market to its end. `plan` says who dies at which edge."""

    def __init__(self, folder: Path, settings: Settings, seed: int = 0, plan: Plan | None = None, repeats: float = 0.0,
                 away_s: tuple[float, float] = (0.05, 0.6), save_every_s: float = 0.05, patience_s: float = PATIENCE_S,
                 siege: Siege | None = None):
        self.save_every_s, self.patience_s = save_every_s, patience_s
        self.folder, self.settings, self.plan, self.away_s = folder, settings, plan or (lambda n, who, kind: ()), away_s
        self.rng = np.random.default_rng(seed)
        self.loop = VirtualLoop()
        self.logs = Logs([named(t, settings) for t in TOPICS], self.rng, repeats)
        self.exporters = {name: Exporter(sorted(settings.symbols), arms=settings.bandit.arms) for name in SERVICES}
        self.lives: dict[str, Life] = {}
        self.folders: dict[str, Path] = {}
        self.residents: dict[str, Any] = {}
        self.edges = 0
        self.trace: list[tuple[str, str]] = []      # (service, kind) of every edge
        self.kills: list[tuple[int, str, str]] = []
        self.ends: list[str] = []          # of lives that ended by themselves
        self.generation = 0
        self.over = False
        self.by_record = False     # handlers' edges name their record
        self.frozen = False
        self.siege = siege

    # lives

    def start(self, name: str) -> None:
        """A new life of a service."""
        life = Life(name, self.at)
        self.lives[name] = life
        context = copy_context()
        context.run(LIFE.set, life)
        self.loop.create_task(self.live(life), context=context)

    async def live(self, life: Life) -> None:
        name, resident = life.name, None
        try:
            data = self.folders.setdefault(name, self.folder / name)
            data.mkdir(parents=True, exist_ok=True)
            settings = msgspec.structs.replace(self.settings, paths=msgspec.structs.replace(self.settings.paths, data=str(data)))
            if name == "executor":      # reads the desk's ledger, wherever its last death has left it
                url = f"sqlite:///{self.folder / 'desk' / 'ledger.db'}"
                settings = msgspec.structs.replace(settings, ledger=msgspec.structs.replace(settings.ledger, url=url))
                if self.siege:
                    venue = msgspec.structs.replace(settings.exchange, port=self.siege.line.port)
                    settings = msgspec.structs.replace(settings, exchange=venue)
            if name == "risk":
                self.points_to(data)
            if name == "exchange":
                exchange = self.residents[name] = Exchange(settings, self.exporters[name], self.loop.wall)
                await exchange.run()
                self.over = True
                life.alive = False
                return
            resident = self.residents[name] = MAKERS[name].make(settings, self.exporters[name], Resident)
            if hasattr(resident.stage, "file"):
                resident.stage.file.every_s = self.save_every_s
            if hasattr(resident.stage, "ledger"):
                life.at_death.append(resident.stage.ledger._closed.set)
            fallible(resident)
            await resident.run()
        except Killed:
            pass
        except (Exception, SystemExit, asyncio.CancelledError) as error:
            if isinstance(error, asyncio.CancelledError) and not life.alive:
                return
            self.ends.append(f"{name}: {type(error).__name__}: {error}")
            log.info("%s ends: %r", name, error, exc_info=None if isinstance(error, ConnectionError) else error)
            if life.alive:
                await self.leave(life, resident)

    async def leave(self, life: Life, resident: Resident | None) -> None:
        """A process that ends by its own error still closes what it can."""
        try:
            for close in resident.on_close if resident else ():
                try:
                    await asyncio.wait_for(close(), 3)
                except Exception as error:
                    log.info("%s: while closing: %r", life.name, error)
        except Killed:
            return
        self.bury(life)

    def bury(self, life: Life) -> None:
        """The process is gone; its files stay as they are now."""
        if not life.alive:
            return
        life.alive = False
        self.generation += 1
        before, after = self.folders.get(life.name), self.folder / f"{life.name}-{self.generation}"
        if before and before.exists():
            copied(before, after)
            shutil.rmtree(before, ignore_errors=True)
            self.folders[life.name] = after
            if life.name == "risk":
                self.points_to(after)
        for last in life.at_death:
            last()
        for i in self.rng.permutation(len(life.tasks)).tolist():
            self.loop.call_soon(life.tasks[i].cancel)
        self.loop.call_later(float(self.rng.uniform(*self.away_s)), self.start, life.name)

    def points_to(self, data: Path) -> None:
        """Where the desk's ledger lies now."""
        (self.folder / "desk").unlink(missing_ok=True)
        (self.folder / "desk").symlink_to(data, target_is_directory=True)

    def at(self, life: Life, kind: str) -> None:
        """An edge of a living process."""
        if self.frozen:
            return
        self.edges += 1
        self.trace.append((life.name, kind))
        for name in (self.siege.at(self, life.name, kind) if self.siege else self.plan(self.edges, life.name, kind)):
            if name == RAISE:
                raise Failed("made to fail")
            self.kill(name, f"{life.name}: {kind}")

    def kill(self, name: str, where: str) -> None:
        """SIGKILL."""
        if name.startswith("broker"):
            self.stop_broker(empty=name.endswith("empty"))
        elif (life := self.lives.get(name)) and life.alive:
            self.kills.append((self.edges, name, where))
            if self.siege:
                self.siege.died(self)
            self.bury(life)

    def stop_broker(self, empty: bool) -> None:
        """The broker's process ends and comes back, with its log or without."""
        if self.logs.up:
            self.kills.append((self.edges, "broker, empty" if empty else "broker", ""))
            self.logs.stop()
            self.loop.call_later(float(self.rng.uniform(0.5, 2.0)), self.logs.start, empty)

    # the run

    def run(self) -> None:
        """To the end of the market and of all that follows from it. Raises `Stalled` where it does not get there."""
        def task_of(loop, coroutine, context=None):
            task = asyncio.Task(coroutine, loop=loop, context=context)
            if life := context.run(LIFE.get) if context else LIFE.get():
                life.tasks = [*(t for t in life.tasks if not t.done()), task]
            return task
        self.loop.set_task_factory(task_of)
        self.loop.set_exception_handler(lambda loop, context: None)
        Resident.town = self
        asyncio.set_event_loop(self.loop)
        gc.collect()
        gc.disable()        # when a dead life's coroutines are collected must not be up to the allocator
        try:
            with watched(self.loop.wall, self.loop.time), mock.patch("streams.exchange.LINGER_S", LINGER_S if self.siege else 2):
                self.loop.run_until_complete(self.main())
        finally:
            self.frozen = True
            for life in self.lives.values():
                life.alive = False
                for last in life.at_death:
                    last()
            while tasks := asyncio.all_tasks(self.loop):
                for task in tasks:
                    task.cancel()
                self.loop.run_until_complete(asyncio.sleep(0.01))
            self.loop.run_until_complete(self.loop.shutdown_asyncgens())
            asyncio.set_event_loop(None)
            self.loop.close()
            gc.enable()
            gc.collect()

    async def main(self) -> None:
        """Starts everybody and waits."""
        for name in SERVICES:
            self.start(name)
        around = asyncio.ensure_future(self.siege.run(self)) if self.siege else None
        until, size, since = self.loop.now + self.patience_s, -1, self.loop.now
        while self.loop.now < until:
            await asyncio.sleep(0.25)
            now = self.edges_outside()
            if now != size or not self.quiet():
                size, since = now, self.loop.now
            elif self.loop.now - since > SETTLE_S:
                if around:
                    around.cancel()
                return
            if around and around.done():
                around.result()
        raise Stalled(f"after {self.patience_s:.0f} s of virtual time: market over {self.over}, records "
                      f"{ {t: len(v) for t, v in self.logs.topics.items()} }, alive {[n for n, life in self.lives.items() if life.alive]}, "
                      f"ends {dict(Counter(self.ends).most_common(8))}")

    def edges_outside(self) -> int:
        """Grows as long as anything is said."""
        return sum(map(len, self.logs.topics.values())) + len(self.kills)

    def quiet(self) -> bool:
        """The market is over, everybody lives and has read everything; the executor waits for a venue that is no more."""
        def done(name: str) -> bool:
            resident = self.residents.get(name)
            return self.lives[name].alive and resident is not None and (resident.idle or name == "executor")
        return self.over and self.logs.up and not self.logs.waiting and all(map(done, MAKERS))
