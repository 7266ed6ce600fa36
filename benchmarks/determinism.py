"""The same answer everywhere: digests of one market's scores and decisions by every road, and whether they are equal.

    python -m benchmarks.determinism                       the simulated market, three symbols
    python -m benchmarks.determinism standx hyperliquid    recordings, each its first events
    python -m benchmarks.determinism sim --events 300000 --kills 5

Roads: the closed loop in one process with frames of 256, 50 and 1,000 events; then a broker of its own, with the exchange, the signal
worker (features and scores), the desk (risk) and the rest as processes: left alone, with the signal worker killed by SIGKILL on the way,
and with the desk. `scores` is SHA-256 over candidates with their probabilities, `decisions` over orders, cancels, fills, refusals and
outcomes; of a road with processes both are made by running its journal again, every answer compared with what was written (`journal`).
Exit 1 where a road's digest is another than the first one's, or a journal's re-run differs.
"""

import argparse
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import sqlalchemy as sa

from benchmarks._bench import open_model, told
from benchmarks.stream import free_port
from config import settings as config
from config.settings import Settings
from engine.facts import cut
from engine.market.simulator import Simulator
from scripts._arguments import ended, filled, natural, positive
from store import archive, importers, tables
from store.audit import rerun
from store.closed import Closed, Digests, frames_of
from store.database import LedgerError, connect, reading
from store.ledger import ledger_url
from store.scorer import Scorer
from streams import broker

START_MS = 1_700_000_000_000
FRAMES = (256, 50, 1000)
SESSION = "s1"          # an exchange's first
QUICK = {"POLICY_COOLDOWN_SYMBOL": "3", "POLICY_COOLDOWN_GLOBAL": "1", "POLICY_MIN_CONFIDENCE": "0"}     # more decisions to differ in
PATIENCE_S = 900.0
SIGNALS, DESK = "signal_engine,ai_scorer", "risk"
REST = "collector,executor,supervisor"


class Row(NamedTuple):
    """One road's digests; `journal` says whether the re-run equals what was written, empty where there is no journal."""

    road: str
    candidates: int
    scores: str
    decisions: str
    journal: str = ""


def excerpt(settings: Settings, market: str, events: int, root: Path) -> list[str]:
    """The first events of each symbol as an archive under `root`; its symbols."""
    if market == "sim":
        symbols = settings.exchange.symbols
    else:
        source, symbols = importers.open_recording(market, settings.folder("data") / "recordings", settings)
    for symbol in symbols:
        instrument, left = settings.instrument(symbol), events
        with archive.ArchiveWriter(root, symbol, instrument, f"{market}, its first {events} events") as writer:
            if market == "sim":
                simulator = Simulator(symbol, instrument, settings.market[symbol], 11, START_MS, "x")
                while left and (frame := simulator.frame(2**62, min(left, 4096))) is not None:
                    writer.add(frame)
                    left -= frame.n
            else:
                for frame in archive.read(source, symbol, events=4096):
                    writer.add(cut(frame, 0, min(left, frame.n)))
                    left -= min(left, frame.n)
                    if not left:
                        break
    return symbols


def closed(settings: Settings, root: Path, symbols: list[str], events: int) -> Row:
    """In one process, with frames of this many events."""
    scorer = Scorer.load(settings.folder("models"), "active")
    assert scorer is not None
    digests = Digests()
    for _, fact, outs in Closed(settings, scorer, frames_of(root, symbols, events, SESSION), SESSION, finish=False):
        digests.step(fact, outs)
    return Row(f"in process, frames of {events}", digests.count, digests.scores, digests.decisions)


class Route:
    """The road's processes, each a run of `scripts.run_live` with some of the services."""

    def __init__(self, env: dict[str, str], log: Path):
        self.env, self.log = env, log.open("ab")
        self.settings = config.load(env=env)
        subprocess.run([sys.executable, "-m", "streams.admin"], env=env, cwd=config.ROOT, check=True, stdout=subprocess.DEVNULL)
        self.exchange = self.start("streams.exchange")
        self.parts = {services: self.live(services) for services in (SIGNALS, DESK, REST)}

    def start(self, *command: str) -> subprocess.Popen:
        """A process of ours."""
        return subprocess.Popen([sys.executable, "-m", *command], env=self.env, cwd=config.ROOT, stdout=self.log, stderr=self.log)

    def live(self, services: str) -> subprocess.Popen:
        """Some of the services."""
        return self.start("scripts.run_live", "--services", services, "--metrics-port", str(free_port()))

    def written(self) -> int:
        """Transactions of the desk so far."""
        try:
            engine = connect(ledger_url(self.settings), create=False)
        except LedgerError:
            return 0
        try:
            with reading(engine) as connection:
                return connection.scalar(sa.select(sa.func.max(tables.ledger.c.seq))) or 0
        except sa.exc.OperationalError:      # its schema is being made
            return 0
        finally:
            engine.dispose()

    def kill(self, services: str, at: int) -> bool:
        """SIGKILL once the desk has written so many transactions, and a new life; False where the market was over before."""
        while self.written() < at:
            if self.over():
                return False
            time.sleep(0.05)
        self.parts[services].kill()
        self.parts[services].wait()
        self.parts[services] = self.live(services)
        return True

    def over(self) -> bool:
        """Whether the market is over; `SystemExit` where a part has fallen, or nothing moves."""
        for name, part in self.parts.items():
            if part.poll() is not None:
                raise SystemExit(f"{name} ended with {part.returncode}; its words are in {self.log.name}")
        return self.exchange.poll() is not None

    def finish(self) -> None:
        """Until the market is over and the parts have ended in order."""
        until = time.monotonic() + PATIENCE_S
        while not self.over():
            if time.monotonic() > until:
                raise SystemExit(f"the market was not over within {PATIENCE_S:.0f} s; the parts' words are in {self.log.name}")
            time.sleep(0.2)
        for part in reversed(self.parts.values()):
            part.send_signal(signal.SIGTERM)
        for part in self.parts.values():
            part.wait(30)

    def close(self) -> None:
        """Ends what is left."""
        for part in (*self.parts.values(), self.exchange):
            if part.poll() is None:
                part.kill()
            part.wait()
        self.log.close()


@contextmanager
def route(folder: Path, name: str, address: str, root: Path, models: Path) -> Iterator[Route]:
    """A running road; what is left of it at the end is ended."""
    env = os.environ | QUICK | {
        "KAFKA_BOOTSTRAP_SERVERS": address, "SLUICE_DATA": str(folder / name), "SLUICE_MODELS": str(models), "SLUICE_INSTANCE": name,
        "SLUICE_FEED": name, "SLUICE_EXCHANGE_PORT": str(free_port()), "SLUICE_MARKET": "recording", "RECORDING": str(root),
        "SPEED": "max", "SLUICE_LOG_LEVEL": "WARNING"}
    running = Route(env, folder / f"{name}.log")
    try:
        yield running
    finally:
        running.close()


def through(running: Route, road: str, victim: str = "", kills: int = 0, usual: int = 0) -> tuple[Row, int]:
    """The road's row, and how many transactions it was; the victim is killed at even distances of the usual number."""
    killed = sum(running.kill(victim, usual * (i + 1) // (kills + 1)) for i in range(kills))
    running.finish()
    digests = Digests()
    again = rerun(ledger_url(running.settings), running.settings, digests)
    told = f"transaction {again.wrong[0]} DIFFERS" if again.wrong else f"{again.answers:,} answers equal"
    name = f"broker, {road}" + (f" killed {killed} times" if victim else "")
    return Row(name, digests.count, digests.scores, digests.decisions, told), running.written()


def rows(settings: Settings, market: str, events: int, kills: int, kafka: broker.Broker, folder: Path, models: Path) -> Iterator[Row]:
    """Every road of one market."""
    root = folder / f"{Path(market).name}-archive"
    symbols = excerpt(settings, market, events, root)
    for size in FRAMES:
        yield closed(settings, root, symbols, size)
    usual = 0
    for victim, road in (("", "left alone"), (SIGNALS, "signal worker"), (DESK, "desk")):
        name = f"{market.split('/')[-1]}{len(road)}"
        with route(folder, name, kafka.address, root, models) as running:
            row, written = through(running, road, victim, kills if victim else 0, usual)
        usual = usual or written
        yield row


@told
def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.determinism", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("markets", type=filled, nargs="*", default=["sim"], help="sim, or recordings by name (default sim)")
    parser.add_argument("--events", type=positive, default=40_000, help="of each symbol, the first ones (default 40,000)")
    parser.add_argument("--kills", type=natural, default=3, help="of the signal worker, and of the desk (default 3)")
    args = parser.parse_args(argv)
    for market in args.markets:
        if market != "sim" and not Path(market).is_dir():
            importers.parse(market)
    given = config.load()
    folder = Path(tempfile.mkdtemp(prefix="sluice-determinism-"))
    models = open_model(given.folder("models"), folder / "models")
    settings = config.load(env=os.environ | QUICK | {"SLUICE_MODELS": str(models)})
    differ, whole = 0, False
    print(f"{'market':<12} {'road':<38} {'candidates':>10}  {'scores':<16} {'decisions':<16}")
    try:
        with broker.start(folder / "kafka") as kafka:
            for market in args.markets:
                first: Row | None = None
                for row in rows(settings, market, args.events, args.kills, kafka, folder, models):
                    first = first or row
                    same = (row.scores, row.decisions) == (first.scores, first.decisions) and "DIFFERS" not in row.journal
                    differ += not same
                    print(f"{market:<12} {row.road:<38} {row.candidates:>10,}  {row.scores[:16]} {row.decisions[:16]}  "
                          f"{'equal' if same else 'DIFFERENT'}{row.journal and ', journal: ' + row.journal}", flush=True)
        whole = True
    finally:
        if whole and not differ:
            shutil.rmtree(folder, ignore_errors=True)
        else:
            print(f"ledgers and logs are kept in {folder}", file=sys.stderr)
    return 1 if differ else 0


if __name__ == "__main__":
    raise SystemExit(ended(main))
