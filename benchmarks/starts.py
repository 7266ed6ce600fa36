"""How long it takes to be there: the broker, the desk from nothing to its first decision, and the risk service killed -9 to its next.

    python -m benchmarks.starts
    python -m benchmarks.starts --kills 10

Seconds. Imports are told apart: a process counts from its start, and again from the moment at which everything is imported. The route
runs as it does live, at 300 market events a second; `next decision` is the first scored frame that the new process has decided.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from benchmarks._bench import counted, open_model, quantiles, running, until
from benchmarks.stream import OPEN, market_file
from config import settings as config
from engine.metrics import STAGES
from scripts._arguments import ended, natural
from streams import broker
from streams.broker import free_port

RATE = 300.0
DECIDED = 'stage_latency_ms_count{service="risk"}'


class Life:
    """One process of services that keeps its moments in a file."""

    def __init__(self, file: Path, services: str, env: Mapping[str, str], more: list[str]):
        self.file, self.port, self.spawned = file, free_port(), time.monotonic()
        command = [sys.executable, "-m", "benchmarks._route", str(file), "--services", services, *more]
        self.process = subprocess.Popen(command, env={**env, "SLUICE_METRICS_PORT": str(self.port)}, cwd=config.ROOT,
                                        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def until_decided(self, frames: int) -> None:
        """Waits for so many decisions, by its own count."""
        until(lambda: counted(self.port, DECIDED) >= frames, [self.process], 120, 0.5)

    def first(self) -> tuple[float, float]:
        """Waits for its first decision; seconds from its start to imported, and from there to that decision."""
        first = self.file.with_suffix(".first.npz")
        until(first.exists, [self.process], 120)
        with np.load(first) as kept:
            imported, decided = float(kept["imported:at"][0]), float(kept["stage_latency_ms/risk:at"][0])
        return imported - self.spawned, decided - imported

    def kill(self) -> float:
        """Ends it as a crash would; when."""
        self.process.kill()
        self.process.wait()
        return time.monotonic()


def row(what: str, values: list[float]) -> None:
    """A line of the table."""
    p50, most = quantiles(np.array(values), 0.5, 1.0)
    print(f"{what:<58} {p50:>6.2f} {most:>6.2f} {len(values):>3}", flush=True)


def brokers(folder: Path, times: int) -> None:
    """The broker, formatted and not."""
    settings = config.load()
    formatted, listening = list[float](), list[float]()
    for i in range(times):
        data = folder / f"kafka{i}"
        began = time.monotonic()
        broker.format_once(data, settings.kafka, free_port(), free_port())
        formatted.append(time.monotonic() - began)
        began = time.monotonic()
        with broker.start(data, settings.kafka):
            listening.append(time.monotonic() - began)
    row("broker: an empty folder → formatted", formatted)
    row(f"broker: formatted → listening ({'with' if broker.aot_cache().is_file() else 'without'} its start-up cache)", listening)


def desks(folder: Path, kafka: broker.Broker, kills: int) -> None:
    """The desk from nothing, then the risk service killed again and again."""
    env = os.environ | OPEN | {
        "KAFKA_BOOTSTRAP_SERVERS": kafka.address, "SLUICE_LOG_LEVEL": "ERROR", "SLUICE_DATA": str(folder / "data"),
        "SLUICE_MODELS": str(folder / "models"), "SLUICE_EXCHANGE_PORT": str(free_port()), "SLUICE_INSTANCE": "s", "SLUICE_FEED": "s"}
    more = ["--config", str(market_file(folder, RATE))]
    subprocess.run([sys.executable, "-m", "streams.admin"], env=env, cwd=config.ROOT, check=True, stdout=subprocess.DEVNULL)
    with running(["streams.exchange", *more], env=env):
        whole = Life(folder / "whole.npz", ",".join(STAGES), env, more)
        imports, decided = whole.first()
        whole.kill()
        row("desk, six services in one process: start → imported", [imports])
        row("desk: imported → first decision", [decided])
        others = ",".join(stage for stage in STAGES if stage != "risk")
        with running(["scripts.run_live", "--services", others, "--metrics-port", str(free_port()), *more], env=env):
            lives, downs, killed = list[tuple[float, float]](), list[float](), 0.0
            for i in range(kills + 1):
                life = Life(folder / f"risk{i}.npz", "risk", env, more)
                got = life.first()
                if i:
                    lives.append(got)
                    downs.append(life.spawned - killed + sum(got))
                life.until_decided(100)
                killed = life.kill()
    row("risk killed -9: start → imported", [one[0] for one in lives])
    row("risk killed -9: imported → next decision", [one[1] for one in lives])
    row("risk killed -9: kill → next decision, imports in it", downs)


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.starts", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--kills", type=natural, default=5, help="of the risk service (default 5)")
    parser.add_argument("--brokers", type=natural, default=3, help="starts of a broker (default 3)")
    args = parser.parse_args(argv)
    folder = Path(tempfile.mkdtemp(prefix="sluice-starts-"))
    try:
        open_model(config.load().folder("models"), folder / "models")
        print(f"{'':<58} {'p50 s':>6} {'max s':>6} {'n':>3}")
        brokers(folder, args.brokers)
        with broker.start(folder / "kafka") as kafka:
            desks(folder, kafka, args.kills)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return 0


if __name__ == "__main__":
    raise SystemExit(ended(main))
