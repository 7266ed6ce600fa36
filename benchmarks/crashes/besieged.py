"""The real part beside a hostile venue: services as processes, the executor's line through this one, SIGKILLs of risk and executor.

The market is a recording in real time. This process reads along: it folds the desk's ledger as it grows and asks the venue what stands, so
that it knows when the two agree again.
"""
import asyncio
import random
import socket
import sqlite3
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.crashes import market
from benchmarks.crashes.hostile import Hostile, Rates
from benchmarks.crashes.siege import BUSY, CALM
from benchmarks.crashes.stack import APART, POLL_S, Shot, Stack
from benchmarks.crashes.verdict import Verdict, judge
from config.settings import load
from engine.desk import Desk
from engine.execution.reconcile import differences
from engine.facts import CRIT, KILL, RELEASE, Control, Fill, Report, Standing, releasing
from store import blob as blobs
from store import bus
from store.killing import publish
from streams import broker as brokers
from streams.venues.port import LENGTH, Answered, Ask, Hello
from streams.venues.wire import packed, unpacked

CONFIG = """
venue: {{reconcile_ms: 500, unknown_after_ms: 1500}}
fail_safe: {{cooldown_minutes: 0.05}}
rollout: {{mode: {mode}}}
"""
VICTIMS: tuple[tuple[str, ...], ...] = (("risk",), ("executor",), ("risk",), ("executor",), ("risk", "executor"))
QUIET_S = 1.5        # after a death, before the next at the earliest


@dataclass
class Outcome:
    """A run of the stack; `healed`: seconds from each death until all agreed."""
    shots: list[Shot]
    verdict: Verdict
    healed: list[float]
    ills: Counter[str]
    ended: dict[str, int] = field(default_factory=dict)


class Ear:
    """A line of our own to the venue, on which it is only asked."""

    def __init__(self, host: str, port: int):
        self.socket = socket.create_connection((host, port), timeout=5)
        self.hello: Hello = self.hear()

    def hear(self):
        """The next answer."""
        def read(n: int) -> bytes:
            got = b""
            while len(got) < n:
                if not (more := self.socket.recv(n - len(got))):
                    raise ConnectionError("the venue hung up")
                got += more
            return got
        return unpacked(read(int.from_bytes(read(LENGTH), "little")))

    def standing(self, symbol: str) -> Standing:
        """What stands."""
        self.socket.sendall(packed(Ask(symbol, [])))
        while not isinstance(got := self.hear(), Answered):
            pass
        return got.standing


class Besieged(Stack):
    """The processes, the line, and who reads along."""

    def __init__(self, folder: Path, recording: Path, models: Path, real: bool, span: tuple[int, int], seed: int):
        config = folder / "siege.yaml"
        config.write_text(CONFIG.format(mode="full" if real else "disabled"))
        self.line = Hostile(brokers.free_port(), 0, Rates(), seed)
        super().__init__(folder, recording, models, APART, span, config=config,
                         more=BUSY | {"SPEED": "1", "EXCHANGE_MODE": "real" if real else "paper"},
                         only={"executor": {"SLUICE_EXCHANGE_PORT": str(self.line.port)}})

    def begin(self) -> None:
        self.line.to = self.settings.exchange.port
        self.desk, self.heard, self.last = Desk(self.settings), dict[str, set[int]](), 0
        self.since: dict[str, float] = {}      # of each that died: when its next life began
        self.waiting: list[tuple[float, tuple[str, ...], int, int]] = []     # deaths: when, who, the ledger's head and our lines then
        self.healed: list[float] = []
        self.threads = [threading.Thread(target=each, daemon=True) for each in (self.pass_on, self.keep, self.watch)]
        for thread in self.threads:
            thread.start()

    def pass_on(self) -> None:
        """The line, on a loop of its own."""
        async def until_closed() -> None:
            serving = asyncio.ensure_future(self.line.serve())
            while not self.closing.is_set() and not serving.done():
                await asyncio.sleep(0.05)
            serving.cancel()
        asyncio.run(until_closed())

    def watch(self) -> None:
        """Folds the ledger; while somebody's death is not mended, compares with the venue."""
        ear: Ear | None = None
        while not self.closing.wait(POLL_S):
            try:
                self.fold()
                if self.waiting and self.back():
                    ear = ear or Ear(self.settings.exchange.host, self.settings.exchange.port)
                    if self.agreed(ear):
                        now = time.monotonic()
                        self.healed += [now - at for at, *_ in self.waiting]
                        self.waiting = []
            except (sqlite3.Error, OSError):       # not there yet, or no more
                ear = None

    def fold(self) -> None:
        """What is new in the ledger."""
        path = Path(self.url.removeprefix("sqlite:///"))
        with sqlite3.connect(f"file:{path}?mode=ro", uri=True) as db:
            found = db.execute("SELECT seq, ts_ms, blob FROM ledger WHERE writer='risk' AND seq>? ORDER BY seq", (self.last,)).fetchall()
        for seq, ts_ms, blob in found:
            for fact in blobs.decode(blob).consumed:
                self.desk.on(fact)
                if isinstance(fact, (Report, Fill)) and fact.seq:
                    self.heard.setdefault(fact.symbol, set()).add(fact.seq)
            self.last, self.at_ms = seq, max(self.at_ms, ts_ms)

    def back(self) -> bool:
        """Whether all that died has a next life at work: a desk has written, an executor has been answered."""
        for _, who, head, lines in self.waiting:
            if "risk" in who and self.last <= head:
                return False
            if "executor" in who and not any(n > lines for _, n in self.line.asked[-3:]):
                return False
        return True

    def agreed(self, ear: Ear) -> bool:
        """Orders, quantity, average price and result of both accounts, at one number of the venue's."""
        for symbol in self.settings.exchange.symbols if self.settings.exchange.market == "sim" else list(self.desk.state.touches):
            standing = ear.standing(symbol)
            self.fold()
            heard = self.heard.get(symbol, set())
            if len(heard) != standing.seq or max(heard, default=0) != standing.seq:
                return False
            both = (self.desk.portfolio, self.desk.state.twins)
            if any(not o.accepted and o.told < 0 for books in both for o in books.orders.values()):
                return False
            instrument = self.settings.instrument(symbol)
            if differences(self.desk.portfolio, standing, instrument):
                return False
            if self.desk.venue.mode == "real" and differences(self.desk.state.twins, standing, instrument, twin=True):
                return False
        return True

    def kill(self, shot: Shot) -> None:
        if self.waiting:        # a stretch of market that was read at once holds several
            time.sleep(max(0.0, self.waiting[-1][0] + QUIET_S - time.monotonic()))
        lines = self.line.lines
        self.fold()
        head = self.last
        super().kill(shot)
        self.waiting.append((shot.at, shot.who, head, lines))

    def govern(self, rng: random.Random, until: Callable[[], bool]) -> None:
        """KILL, CRIT and RELEASE now and then."""
        n = 0
        while not until():
            time.sleep(rng.uniform(3, 15))
            n += 1
            try:
                if rng.random() < 0.3:
                    publish(self.settings, Control(f"crit-{n}", CRIT, "anna", "drawn", 0, 0))
                    continue
                kill = Control(f"kill-{n}", KILL, "anna", "drawn", 0, 0)
                publish(self.settings, kill)
                while kill.id not in self.desk.state.controls and not until():
                    time.sleep(0.1)
                time.sleep(rng.uniform(0.2, 3))
                while not until():
                    try:
                        publish(self.settings, Control(f"release-{n}", RELEASE, "anna", "drawn", 0, 0, releasing([kill.id])))
                        break
                    except bus.BusDown:
                        time.sleep(0.5)
            except bus.BusDown:
                time.sleep(0.5)


def play(folder: Path, models: Path, real: bool, symbols: list[str], seconds: float, deaths: int, seed: int, say) -> Outcome:
    """One run of the stack and its verdict."""
    folder.mkdir(parents=True)
    recording = market.recording(folder / "recording", load(env={}), symbols, seconds, seed)
    rng = random.Random(seed)
    shots = [Shot(VICTIMS[i % len(VICTIMS)], 0.06 + (CALM - 0.06) * (i + 0.5 * rng.random()) / deaths) for i in range(deaths)]
    stack = Besieged(folder, recording, models, real, (market.START_MS, market.START_MS + int(seconds * 1000)), seed)
    stalled = ""

    def calm() -> bool:
        first, last = stack.span
        stack.line.calm = stack.over or (stack.at_ms - first) / (last - first) > CALM + 0.05
        return stack.line.calm
    governing = threading.Thread(target=stack.govern, args=(rng, calm), daemon=True)
    governing.start()
    try:
        stack.run(shots, say)
    except TimeoutError as error:
        stalled = str(error)
    finally:
        stack.close()
    fired = [s for s in shots if s.at]
    verdict = judge(stack.settings, stack.url, folder / "data" / "exchange.db")
    if stalled:
        verdict.wrong.append(f"stalled: {stalled}")
    verdict.doubled += [f"{i} was sent again on a guess" for i in stack.line.blind]
    verdict.wrong += [f"after the death of {', '.join(who)} desk and venue never agreed" for _, who, *_ in stack.waiting]
    return Outcome(fired, verdict, stack.healed, stack.line.ills, stack.ended)
