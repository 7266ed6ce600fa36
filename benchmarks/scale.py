"""One worker or many: the same candidates and scores, byte for byte, also when a worker is killed and another added on the way.

    python -m benchmarks.scale                              a simulated market of three symbols
    python -m benchmarks.scale hyperliquid --events 300000  a recording

Frames lie on a real broker of its own; each worker is a process with the signal engine and the scorer. Digests are SHA-256 over
candidates and over scores, unique by id, ordered by symbol, time and id; the first row is the engine alone, without a broker.
`repeated`: batches that were told twice after a death. A figure of speed on two cores says little about eight.
"""

import argparse
import hashlib
import heapq
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from benchmarks._bench import told
from config import settings as config
from config.settings import Settings
from engine.facts import Candidate, Frame, Scored
from engine.market.simulator import Simulator
from engine.scoring.signals import SignalEngine
from scripts._arguments import ended, filled, positive
from store import archive, bus, importers
from store.closed import scored_by
from store.scorer import Scorer
from streams import admin, broker
from streams.codec import decode, encode
from streams.topics import MD_FRAMES, SIG_CANDIDATES, SIG_SCORED, named

SESSION = "s1"
START_MS = 1_700_000_000_000
PATIENCE_S = 180.0
AT_ONCE = 200      # frames on their way to the broker


def digest(facts: dict[str, Candidate] | dict[str, Scored]) -> str:
    """SHA-256 over facts by id, ordered by symbol, time and id."""
    def place(item: tuple[str, Candidate | Scored]) -> tuple[str, int, str]:
        name, fact = item
        signal = fact.signal if isinstance(fact, Scored) else fact
        return signal.symbol, signal.ts_ms, name
    out = hashlib.sha256()
    for _, fact in sorted(facts.items(), key=place):
        out.update(msgspec.msgpack.encode(fact))
    return out.hexdigest()


@dataclass
class Said:
    """What the stages said: facts by id, how far each symbol's scores came without a gap, and what was told twice or otherwise.

    `told` counts batches of candidates, `repeated` batches of scores that bring nothing new.
    """

    candidates: dict[str, Candidate] = field(default_factory=dict)
    scores: dict[str, Scored] = field(default_factory=dict)
    upto: dict[str, int] = field(default_factory=dict)
    told: int = 0
    repeated: int = 0
    otherwise: list[str] = field(default_factory=list)

    def scored(self, scored: Scored) -> None:
        """One scored candidate; the same id must say the same."""
        if self.scores.setdefault(scored.signal.id, scored) != scored:
            self.otherwise.append(scored.signal.id)

    def proposed(self, candidate: Candidate) -> None:
        """One candidate, likewise."""
        if self.candidates.setdefault(candidate.id, candidate) != candidate:
            self.otherwise.append(candidate.id)


def said(settings: Settings) -> Said:
    """Everything on the broker that the stages of this instance said."""
    out = Said()
    for topic in (SIG_SCORED, SIG_CANDIDATES):      # what is scored by now was proposed before
        name = named(topic, settings)
        for _, partition in sorted(bus.ends(settings, [name])):
            for record in bus.read(settings, name, partition=partition):
                batch = decode(record.value)
                for item in batch.items:
                    (out.scored if topic is SIG_SCORED else out.proposed)(item)
                if topic is SIG_CANDIDATES:
                    out.told += 1
                else:
                    due, end = out.upto.get(batch.symbol, 0), batch.seq + batch.n
                    out.repeated += end <= due
                    if batch.seq <= due < end:
                        out.upto[batch.symbol] = end
    return out


def alone(settings: Settings, frames: list[Frame]) -> Said:
    """What the engine says to the same frames, without a broker."""
    scorer = Scorer.load(settings.folder("models"), "active")
    assert scorer is not None
    score, out = scored_by(scorer), Said()
    engines = {s: SignalEngine(s, settings.instrument(s), settings.windows, settings.triggers, settings.regimes,
                                  settings.gates.liquidity_by_side.levels)
               for s in {f.symbol for f in frames}}
    for frame in frames:
        candidates = engines[frame.symbol].on(frame)
        for candidate in candidates:
            out.proposed(candidate)
        for scored in score(candidates) if candidates else []:
            out.scored(scored)
        out.upto[frame.symbol] = frame.seq + frame.n
    return out


def in_time(sources: list[Iterator[Frame]]) -> list[Frame]:
    """Frames of several symbols in the order of their ends, as a collector would publish them."""
    return list(heapq.merge(*sources, key=lambda frame: (int(frame.times[-1]), frame.symbol)))


def simulated(settings: Settings, symbol: str, events: int, frame: int = 100) -> Iterator[Frame]:
    """So many events of a seeded market."""
    market = Simulator(symbol, settings.instrument(symbol), settings.market[symbol], 11, START_MS, SESSION)
    made = 0
    while made < events and (one := market.frame(START_MS + 10**10, frame)) is not None:
        made += one.n
        yield one


def recorded(root: Path, symbol: str, events: int) -> Iterator[Frame]:
    """So many events of an archive."""
    return (f for f in archive.read(root, symbol, events=256, session=SESSION) if f.seq < events)


class Workers:
    """Processes with both stages, on topics of their own; `env` is the desk's."""

    def __init__(self, env: dict[str, str], log: Path):
        self.env, self.settings, self.log = os.environ | env, config.load(env=os.environ | env), log
        self.running: list[subprocess.Popen] = []
        self.sent: dict[str, int] = {}
        admin.ensure(self.settings)

    def add(self) -> subprocess.Popen:
        """One more worker."""
        port = str(broker.free_port())
        with self.log.open("ab") as out:
            command = [sys.executable, "-m", "scripts.run_live", "--services", "signal_engine,ai_scorer", "--metrics-port", port]
            one = subprocess.Popen(command, env=self.env, cwd=config.ROOT, stdout=out, stderr=out)
        self.running.append(one)
        return one

    def kill(self) -> None:
        """The first one, at once and for good."""
        one = self.running.pop(0)
        one.send_signal(signal.SIGKILL)
        one.wait()

    def leave(self) -> int:
        """The first one, in order; its exit status."""
        one = self.running.pop(0)
        one.terminate()
        return one.wait(30)

    def feed(self, frames: list[Frame]) -> None:
        """Publishes frames in their order."""
        with bus.Publisher(self.settings) as out:
            for first in range(0, len(frames), AT_ONCE):
                out.send_all(named(MD_FRAMES, self.settings), ((f.symbol, encode(f)) for f in frames[first:first + AT_ONCE]))
        self.sent |= {f.symbol: f.seq + f.n for f in frames}

    def ends(self) -> dict[int, int]:
        """The end of each partition of the scores."""
        return {p: last for (_, p), (_, last) in bus.ends(self.settings, [named(SIG_SCORED, self.settings)]).items()}

    def until(self, done: Callable[[], bool], what: str) -> float:
        """Seconds until it is so. `RuntimeError` with the end of the log where it takes too long, or a worker ended."""
        began = time.monotonic()

        def asked() -> bool:
            try:
                return done()
            except bus.BusDown:      # one node that stalls for a second is without itself for a moment (DECISIONS, 50)
                return False
        while not asked():
            if time.monotonic() - began > PATIENCE_S or any(w.poll() is not None for w in self.running):
                raise RuntimeError(f"{what}: not within {time.monotonic() - began:.0f} s; the workers' log:\n"
                                   + "\n".join(self.log.read_text().splitlines()[-40:]))
            time.sleep(0.05)
        return time.monotonic() - began

    def scored(self, records: int) -> float:
        """Seconds until so many batches are scored."""
        return self.until(lambda: sum(self.ends().values()) >= records, f"{records} batches scored")

    def finished(self) -> Said:
        """What was said, once every event that was fed is scored."""
        seen: list[tuple[int, Said]] = []

        def complete() -> bool:
            end = sum(self.ends().values())
            if not seen or end != seen[-1][0]:
                seen[:] = [(end, said(self.settings))]
            return seen[-1][1].upto == self.sent
        self.until(complete, "every event scored")
        return seen[-1][1]

    def close(self) -> None:
        """Ends those that run."""
        for one in self.running:
            one.terminate()
        for one in self.running:
            try:
                one.wait(20)
            except subprocess.TimeoutExpired:
                one.kill()
                one.wait()
        self.running = []

    def __enter__(self) -> "Workers":
        return self

    def __exit__(self, *_) -> None:
        self.close()


def lived(workers: Workers, frames: list[Frame], count: int, accident: bool) -> tuple[Said, float, float]:
    """(what was said, seconds of work, seconds without a word of the dead one's partitions) of one life."""
    workers.feed(frames)
    for _ in range(count):
        workers.add()
    workers.scored(1)
    began, silent = time.monotonic(), 0.0
    if accident:
        workers.scored(len(frames) // 3)
        workers.kill()
        at = workers.ends()
        whole = Counter(bus.partition_of(f.symbol, len(at)) for f in frames)
        silent = workers.until(lambda: all(end > at[p] or end >= whole[p] for p, end in workers.ends().items()), "taken over")
        workers.scored(2 * len(frames) // 3)
        workers.add()
    workers.scored(len(frames))
    out = workers.finished()
    return out, time.monotonic() - began, silent


@told
def main(argv: list[str] | None = None) -> int:
    """Prints a row a life; 1 where a digest differs."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.scale", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recording", type=filled, nargs="?", help="a recording by name or path; else a simulated market")
    parser.add_argument("--events", type=positive, default=200_000, help="of each symbol (default 200,000)")
    args = parser.parse_args(argv)
    settings, folder = config.load(), Path(tempfile.mkdtemp(prefix="sluice-scale-"))
    if args.recording:
        root, symbols = importers.open_recording(args.recording, settings.folder("data") / "recordings")
        frames = in_time([recorded(root, s, args.events) for s in symbols])
    else:
        symbols = settings.exchange.symbols
        frames = in_time([simulated(settings, s, args.events, 256) for s in symbols])
    events = sum(f.n for f in frames)
    wanted = alone(settings, frames)
    names = digest(wanted.candidates), digest(wanted.scores)
    print(f"{events:,} events of {', '.join(symbols)}, {len(wanted.scores):,} candidates\n"
          f"{'':<48} {'candidates':<14} {'scores':<14} {'repeated':>8} {'events/s':>9} {'silent s':>8}\n"
          f"{'the engine alone':<48} {names[0][:12]:<14} {names[1][:12]:<14}", flush=True)
    kafka, wrong = broker.start(folder / "kafka"), 0
    try:
        for i, (label, partitions, count, accident) in enumerate((
                ("1 partition, 1 worker", 1, 1, False), ("2 partitions, 2 workers", 2, 2, False),
                ("2 × 2, one killed at a third, one added at two", 2, 2, True))):
            env = {"KAFKA_BOOTSTRAP_SERVERS": kafka.address, "SLUICE_DATA": str(folder / f"d{i}"), "SLUICE_INSTANCE": f"w{i}",
                   "SLUICE_MODELS": str(settings.folder("models")), "SLUICE_FEED": f"w{i}", "SLUICE_PARTITIONS": str(partitions),
                   "SLUICE_SHARED": str(count > 1).lower(), "SLUICE_SYMBOLS": ",".join(symbols), "SLUICE_LOG_LEVEL": "WARNING"}
            with Workers(env, folder / "log") as workers:
                out, took, silent = lived(workers, frames, count, accident)
            found = digest(out.candidates), digest(out.scores)
            wrong += found != names or bool(out.otherwise)
            print(f"{label:<48} {found[0][:12]:<14} {found[1][:12]:<14} {out.repeated:>8} {events / took:>9,.0f} {silent:>8.1f}",
                  flush=True)
    finally:
        kafka.stop()
        shutil.rmtree(folder, ignore_errors=True)
    print("the same" if not wrong else f"{wrong} of 3 differ", flush=True)
    return int(wrong > 0)


if __name__ == "__main__":
    raise SystemExit(ended(main))
