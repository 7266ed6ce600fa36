"""All services in one process, as `python -m scripts.run_live` runs them, keeping every observation of every histogram.

A child of `benchmarks.stream` and `benchmarks.starts`, not a command of its own: `python -m benchmarks._route FILE.npz` writes FILE when it
is told to end, and what there is at its first decision to FILE.first.npz.
Beside the services' own series it keeps how late the event loop was, every pause of the garbage collector, the time that each stage took
for each record, and by how much the wall clock was past an event's own time when the collector took it and when its scores were decided:
that has in it what the time at ingress cannot see, the feed before the collector's stamp.
"""

import argparse
import asyncio
import gc
import sys
import time
from array import array
from collections import defaultdict
from pathlib import Path

import numpy as np

from config import settings as config
from engine import metrics as m
from engine.facts import ScoredBatch
from engine.metrics import STAGES
from engine.scoring.signals import warm
from store.exporter import Exporter
from streams.service import symbols_of, workers
from streams.stopping import Stop
from streams.worker import Worker, run, setup_logging, wall_ms

PROBE_S = 0.001
DECIDED = "stage_latency_ms/risk"


class Samples(Exporter):
    """An exporter that keeps what its histograms were told, each value with the moment (`time.monotonic`, s) it came at."""

    def __init__(self, symbols, first: Path):
        super().__init__(symbols)
        self.first = first
        self.kept: dict[str, tuple[array, array]] = defaultdict(lambda: (array("d"), array("d")))

    def keep(self, name: str, value: float) -> None:
        """One value of a series."""
        at, values = self.kept[name]
        at.append(time.monotonic())
        values.append(value)
        if name == DECIDED and len(at) == 1:
            self.write(self.first)

    def observe(self, series: m.Series, value: float, **labels: str) -> None:
        """As the exporter does, and kept."""
        super().observe(series, value, **labels)
        self.keep("/".join((series.name, *labels.values())), value)

    def inc(self, series: m.Series, by: float = 1, **labels: str) -> None:
        """As the exporter does; what the market and the triggers brought is kept too."""
        super().inc(series, by, **labels)
        if series in (m.MARKET_EVENTS_TOTAL, m.CANDIDATES_TOTAL, m.ORDERS_TOTAL):
            self.keep(series.name, by)

    def write(self, path: Path) -> None:
        """All series as NAME:at and NAME:value."""
        columns = {f"{name}:{part}": np.frombuffer(a) for name, pair in self.kept.items() for part, a in zip(("at", "value"), pair) if a}
        part = path.with_suffix(".part.npz")
        np.savez(part, **columns)  # type: ignore[arg-type]
        part.rename(path)


def watched(worker: Worker, samples: Samples) -> None:
    """Keeps how long the worker's stage takes for each record, waiting included (ms)."""
    stage = worker.stage
    assert stage is not None
    on_record, name = stage.on_record, f"record_ms/{worker.name}"

    async def timed(record) -> None:
        began = time.perf_counter()
        await on_record(record)
        samples.keep(name, (time.perf_counter() - began) * 1000)

    stage.on_record = timed  # type: ignore[method-assign]


def past_ms(ts_ms: int) -> float:
    """The wall clock less an event's time."""
    return wall_ms() - ts_ms


def clocked(worker: Worker, samples: Samples) -> None:
    """Keeps the clocks of the collector's and the desk's records against the events' own."""
    if worker.name == "collector":
        collector = worker.background[0].__self__  # type: ignore[attr-defined]
        take = collector.take

        async def taken(frame) -> None:
            samples.keep("taken_past_ms", past_ms(int(frame.times[-1])))
            await take(frame)

        collector.take = taken
    elif worker.name == "risk":
        host, speak = worker.stage.host, worker.stage.speak  # type: ignore[union-attr]
        last = [0]
        consume = host.take

        def heard(fact, place):
            last[0] = fact.ts_ms if isinstance(fact, ScoredBatch) else 0
            return consume(fact, place)

        async def spoken(consumed, outs, sent_ms) -> None:
            await speak(consumed, outs, sent_ms)
            if last[0]:
                samples.keep("decided_past_ms", past_ms(last[0]))

        host.take, worker.stage.speak = heard, spoken  # type: ignore[union-attr]


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks._route", description=__doc__)
    parser.add_argument("file", type=Path)
    parser.add_argument("--services", default=",".join(STAGES))
    parser.add_argument("--config", action="append", default=[])
    args = parser.parse_args(argv)
    setup_logging()
    stop = Stop(args.services)
    settings = config.load(*args.config)
    samples = Samples(symbols_of(settings), args.file.with_suffix(".first.npz"))
    samples.keep("imported", 0.0)
    if "signal_engine" in args.services:
        warm()
    made = workers(args.services.split(","), settings, samples)
    for worker in made:
        watched(worker, samples)
        clocked(worker, samples)

    async def probe() -> None:
        """How much later than asked a sleeper wakes: what every waiting record feels."""
        while True:
            began = time.perf_counter()
            await asyncio.sleep(PROBE_S)
            samples.keep("loop_late_ms", (time.perf_counter() - began - PROBE_S) * 1000)

    pause = [0.0]

    def collected(phase: str, info: dict) -> None:
        if phase == "start":
            pause[0] = time.perf_counter()
        else:
            samples.keep(f"gc_ms/{info['generation']}", (time.perf_counter() - pause[0]) * 1000)

    async def cpu() -> None:
        while True:
            samples.keep("cpu_s", time.process_time())
            await asyncio.sleep(0.2)

    gc.callbacks.append(collected)
    made[-1].background += [probe, cpu]
    async def keep() -> None:
        samples.write(args.file)

    made[-1].on_close.append(keep)
    return run(made, samples, settings, settings.ports.metrics, stop)


if __name__ == "__main__":
    sys.exit(main())
