"""The real part: a broker, an exchange and the services as processes, SIGKILLed on a seeded schedule and kept alive by a keeper.

The market is a recording at full speed, paced by the desk; who dies when is spread evenly over its *market* time, so that a run ends
soon after its last death. A keeper starts again what has ended, as a process manager would, once the broker listens.
"""
import os
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from types import MappingProxyType

from benchmarks.crashes import market
from benchmarks.crashes.verdict import Verdict, judge, told
from config.settings import ROOT, Settings, load
from engine.facts import Approved, DroppedBatch
from store import blob as blobs
from store.closed import Closed, frames_of
from store.ledger import ledger_url
from store.scorer import Scorer
from streams import broker as brokers

SERVICES = ("collector", "signal_engine", "ai_scorer", "risk", "executor", "supervisor")
APART, TOGETHER, EMPTY = "services apart", "one process", "broker back empty"
POLL_S = 0.01
PATIENCE_S = 120.0       # without any progress


@dataclass
class Shot:
    """One death: who, at which share of the market, and how long no decision was written down afterwards (s)."""
    who: tuple[str, ...]
    share: float
    at: float = 0.0
    silence: float = 0.0


@dataclass
class Outcome:
    """A run of the stack."""
    way: str
    shots: list[Shot]
    verdict: Verdict
    different: bool
    ended: dict[str, int] = field(default_factory=dict)


def schedule(way: str, deaths: int, rng: random.Random) -> list[Shot]:
    """Who dies when. A broker that comes back empty stands at the end of every fourth place of its runs."""
    single = [(s,) for s in SERVICES[:-1]] + [("exchange",)] if way == APART else [("desk",), ("desk",), ("exchange",)]
    shots = []
    for i in range(deaths):
        kind = rng.random()
        if way == EMPTY and i % 2 == 0:
            who: tuple[str, ...] = ("broker, empty",)
        elif kind < 0.15:
            who = ("broker",)
        elif kind < 0.4:
            who = tuple(sorted(set(rng.choice(single)) | set(rng.choice(single)) | set(rng.choice([*single, ("broker",)]))))
        else:
            who = rng.choice(single)
        shots.append(Shot(who, (i + 1) / (deaths + 1)))
    return shots


class Stack:
    """The processes of one run."""

    def __init__(self, folder: Path, recording: Path, models: Path, way: str, span: tuple[int, int], config: Path | None = None,
                 more: Mapping[str, str] = MappingProxyType({}), only: Mapping[str, Mapping[str, str]] = MappingProxyType({})):
        """`config`: an override file for all; `more` and `only`: environment for all, and for single services."""
        self.folder, self.way, self.span, self.only = folder, way, span, only
        self.config = ["--config", str(config)] if config else []
        self.port, self.controller = brokers.free_port(), brokers.free_port()
        self.env = os.environ | market.EAGER | {
            "KAFKA_BOOTSTRAP_SERVERS": f"127.0.0.1:{self.port}", "SLUICE_DATA": str(folder / "data"), "SLUICE_MODELS": str(models),
            "SLUICE_INSTANCE": "", "SLUICE_FEED": "", "SLUICE_EXCHANGE_PORT": str(brokers.free_port()), "SLUICE_MARKET": "recording",
            "RECORDING": str(recording), "SPEED": "max", "SLUICE_LOG_LEVEL": "INFO", **more}
        self.settings: Settings = load(*self.config[1:], env=self.env)
        self.url = ledger_url(self.settings)
        self.broker = brokers.start(folder / "kafka", self.settings.kafka, self.port, self.controller)
        self.admin()
        self.names = ("exchange", *SERVICES) if way == APART else ("exchange", "desk")
        self.children: dict[str, subprocess.Popen] = {}
        self.ended: dict[str, int] = {}
        self.over = False
        self.lock = threading.Lock()
        self.closing = threading.Event()
        self.decided: list[float] = []       # when entries with a decision were seen
        self.at_ms = 0
        for name in self.names:
            self.launch(name)
        self.begin()

    def begin(self) -> None:
        """Who keeps the processes alive, and who reads along."""
        self.threads = [threading.Thread(target=each, daemon=True) for each in (self.keep, self.watch)]
        for thread in self.threads:
            thread.start()

    def admin(self) -> None:
        """Makes the topics."""
        subprocess.run([sys.executable, "-m", "streams.admin"], cwd=ROOT, env=self.env, check=True, stdout=subprocess.DEVNULL, timeout=60)

    def launch(self, name: str) -> None:
        """A service's process."""
        module = "scripts.run_live" if name == "desk" else f"streams.{name}"
        more = [] if name == "exchange" else ["--metrics-port", "0"]
        with (self.folder / f"{name}.log").open("ab") as log:
            self.children[name] = subprocess.Popen([sys.executable, "-m", module, *self.config, *more], cwd=ROOT,
                                                   env={**self.env, **self.only.get(name, {})}, stdout=log, stderr=log)

    def keep(self) -> None:
        """Starts again what has ended."""
        while not self.closing.wait(0.05):
            with self.lock:
                for name, child in list(self.children.items()):
                    status = child.poll()
                    if status is None or (name == "exchange" and self.over):
                        continue
                    if name == "exchange" and status == 0:
                        self.over = True
                        continue
                    if not brokers.listening(self.port):
                        continue
                    if status != -signal.SIGKILL:
                        self.ended[name] = self.ended.get(name, 0) + 1
                    self.launch(name)

    def watch(self) -> None:
        """Follows the ledger: how far in market time, and when decisions were written down."""
        path, last = Path(self.url.removeprefix("sqlite:///")), 0
        while not self.closing.wait(POLL_S):
            try:
                with sqlite3.connect(f"file:{path}?mode=ro", uri=True) as db:
                    found = db.execute("SELECT seq, ts_ms, blob FROM ledger WHERE writer='risk' AND seq>? ORDER BY seq", (last,)).fetchall()
            except sqlite3.Error:       # not there yet
                continue
            now = time.monotonic()
            for seq, ts_ms, blob in found:
                last, self.at_ms = seq, max(self.at_ms, ts_ms)
                if any(isinstance(r, DroppedBatch) or (isinstance(r, Approved) and r.orders) for r in blobs.decode(blob).produced):
                    self.decided.append(now)

    def kill(self, shot: Shot) -> None:
        """SIGKILL, all of them at once; the broker comes back at once too."""
        shot.at = time.monotonic()
        with self.lock:
            for name in shot.who:
                if name.startswith("broker"):
                    self.broker.kill()
                elif (child := self.children[name]).poll() is None:
                    child.send_signal(signal.SIGKILL)
            for name in shot.who:
                if not name.startswith("broker"):
                    self.children[name].wait()
            if any(name.startswith("broker") for name in shot.who):
                if "broker, empty" in shot.who:
                    shutil.rmtree(self.folder / "kafka")
                self.broker = brokers.start(self.folder / "kafka", self.settings.kafka, self.port, self.controller)
                if "broker, empty" in shot.who:
                    self.admin()

    def run(self, shots: Sequence[Shot], say) -> None:
        """Until the market is over. `TimeoutError` where it does not go on."""
        first, last = self.span
        waiting, moved, was = list(shots), time.monotonic(), 0
        while not self.over:
            time.sleep(POLL_S)
            if self.at_ms != was:
                was, moved = self.at_ms, time.monotonic()
            if time.monotonic() - moved > PATIENCE_S:
                at = (was - first) / (last - first)
                raise TimeoutError(f"no progress for {PATIENCE_S:.0f} s at {at:.0%} of the market; logs in {self.folder}")
            if waiting and was and (was - first) / (last - first) >= waiting[0].share:
                shot = waiting.pop(0)
                self.kill(shot)
                say(f"{self.way}: {(was - first) / (last - first):4.0%} {', '.join(shot.who)}")
        time.sleep(3)

    def close(self) -> None:
        """Ends what was started here."""
        self.closing.set()
        for thread in self.threads:
            thread.join(10)
        for child in self.children.values():
            child.terminate()
        for child in self.children.values():
            try:
                child.wait(20)
            except subprocess.TimeoutExpired:
                child.kill()
                child.wait()
        self.broker.stop()

    def silences(self, shots: Sequence[Shot]) -> None:
        """The longest time without a decision after each death and before the next."""
        for shot, following in zip(shots, [*shots[1:], None]):
            end = following.at if following else time.monotonic()
            seen = [shot.at, *(t for t in self.decided if shot.at < t < end)]
            shot.silence = max((b - a for a, b in pairwise(seen)), default=end - shot.at)


def expected(settings: Settings, recording: Path, symbols: list[str]) -> dict[str, list[bytes]]:
    """What the closed loop in one process decides about the same events."""
    scorer = Scorer.load(settings.folder("models"), "active")
    assert scorer is not None
    out: dict[str, list[bytes]] = {}
    for _, fact, outs in Closed(settings, scorer, frames_of(recording, symbols, 100, "s1"), "s1", finish=False):
        for key, blob in told(fact, outs):
            out.setdefault(key, []).append(blob)
    return out


def play(folder: Path, recording: Path, models: Path, way: str, symbols: list[str], seconds: float, deaths: int, seed: int, say) -> Outcome:
    """One run of the stack and its verdict."""
    shots = schedule(way, deaths, random.Random(seed))
    folder.mkdir(parents=True)
    stack = Stack(folder, recording, models, way, (market.START_MS, market.START_MS + int(seconds * 1000)))
    stalled = ""
    try:
        stack.run(shots, say)
    except TimeoutError as error:
        stalled = str(error)
    finally:
        stack.close()
    fired = [s for s in shots if s.at]
    stack.silences(fired)
    verdict = judge(stack.settings, stack.url, folder / "data" / "exchange.db")
    if stalled:
        verdict.wrong.append(f"stalled: {stalled}")
    same = way == EMPTY or verdict.said == expected(stack.settings, recording, symbols)
    return Outcome(way, fired, verdict, not same, stack.ended)
