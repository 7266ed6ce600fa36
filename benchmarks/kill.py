"""From giving a KILL to the last entry that the venue accepts, and until it holds none, under load and with parts of the desk hung or dead.

    python -m benchmarks kill                                   200 trials with all alive, 50 with the desk hung, 10 of each other situation
    python -m benchmarks kill --trials 20 --others 2

Real processes on a broker of their own: the exchange (in real time, so that it goes on whatever the desk does), collector, signal engine,
scorer, risk and executor each alone. Every candidate may enter, entries rest for two seconds, so that there are some to take back. A trial
hangs (SIGSTOP) or kills what its situation says, runs `python -m scripts.kill`, and watches the venue by a line of its own; then all is
mended, the KILL released, and the next one waits for entries. `start`: from before the command's process was made; `word`: from the KILL's
own time, right before it was written. A trial is faulty where the venue accepts an entry later than a second after the word, or
still holds one when it ends. Exit 1 where one is.
"""

import argparse
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import deque
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from benchmarks._bench import GRACE_S, open_model, quantiles
from benchmarks.crashes.besieged import Ear
from benchmarks.crashes.market import model
from benchmarks.stream import OPEN, market_file
from config import settings as config
from config.settings import Settings
from engine.execution.matching import ABOUT_REQUEST
from engine.facts import ACCEPTED, CANCELLED, DONE, REJECTED, Report
from scripts._arguments import ended, natural, number
from store import killing
from streams import broker as brokers
from streams.broker import free_port
from streams.venues.port import Happened, Resume
from streams.venues.sweep import ENTRIES
from streams.venues.wire import packed

SERVICES = ("collector", "signal_engine", "ai_scorer", "risk", "executor")
ALIVE = "all alive"
HUNG = {"desk hung": "risk", "executor hung": "executor", "broker hung": "broker"}
DEAD = {"desk dead": "risk", "executor dead": "executor", "broker dead": "broker"}
BOUND_S = 1.0           # after the word: an entry that is accepted later is a fault
WATCH_S = 1.6           # after the word, at least
ENOUGH_S = 10.0         # after which an entry that the venue still holds is one that nobody takes back
BUSY = 3                # entries accepted within a second, before a trial begins
PATIENCE_S = 90.0
REST = ("desk: {entry_ttl_ms: 2000, max_holding_ms: 300}\nlabels: {fill_within_ms: 300, horizon_ms: 300}\ntriggers: {cooldown_ms: 50}\n"
        "controls: {max_orders_per_second: 0, max_orders_per_minute: 0}\n")
LIMITS = {"POLICY_MAX_POSITIONS_TOTAL": "400", "POLICY_MAX_PER_REGIME": "400", "POLICY_MAX_PER_SYMBOL": "200", "POLICY_SCALE_IN_MAX": "200",
          "SLUICE_WARMUP_SECONDS": "0", "SLUICE_LOSS_STREAK_MAX": "0", "SLUICE_DAILY_LOSS_CAP_USD": "0"}


class Watch:
    """The venue as a line of our own hears it: when each entry was accepted, and which are there."""

    def __init__(self, host: str, port: int):
        self.ear = Ear(host, port)
        self.asking = Ear(host, port)
        self.accepted: deque[float] = deque(maxlen=20_000)
        self.exits: deque[float] = deque(maxlen=20_000)
        self.held: set[str] = set()
        self.empty_at = time.time()
        self.ear.socket.settimeout(None)
        self.ear.socket.sendall(packed(Resume(dict.fromkeys(self.ear.hello.symbols, 2**62))))
        threading.Thread(target=self.hear, daemon=True).start()

    def hear(self) -> None:
        """Until the venue ends."""
        with suppress(ConnectionError):
            while True:
                told = self.ear.hear()
                now = time.time()
                for one in told.items if isinstance(told, Happened) else ():
                    if isinstance(one, Report) and one.reason not in ABOUT_REQUEST:
                        self.take(one, now)

    def take(self, report: Report, now: float) -> None:
        """One order's report."""
        entry = report.order_id.startswith(ENTRIES)
        if report.status == ACCEPTED:
            (self.accepted if entry else self.exits).append(now)
            if entry:
                self.held.add(report.order_id)
        elif entry and report.status in (CANCELLED, DONE, REJECTED) and report.order_id in self.held:
            self.held.discard(report.order_id)
            if not self.held:
                self.empty_at = now

    def since(self, at: float) -> list[float]:
        """When entries were accepted after that."""
        return [t for t in list(self.accepted) if t > at]

    def resting(self) -> list[str]:
        """Entries that the venue says it holds."""
        return [i for symbol in self.ear.hello.symbols for i in self.asking.standing(symbol).open_orders if i.startswith(ENTRIES)]


@dataclass
class Trial:
    """Seconds: `start`, `word` to the last entry accepted (0: none after it), `empty` from the word until the venue held no entry; how many
    it held at the word, and what was accepted after the bound. `exits` were accepted meanwhile."""
    situation: str
    start: float
    word: float
    wrote: float
    empty: float
    held: int
    late: int
    left: int
    exits: int


@dataclass
class Stack:
    """The processes."""
    folder: Path
    env: dict[str, str]
    config: list[str]
    kafka: brokers.Broker
    children: dict[str, subprocess.Popen] = field(default_factory=dict)

    def launch(self, name: str) -> None:
        """A service."""
        with (self.folder / f"{name}.log").open("ab") as log:
            self.children[name] = subprocess.Popen([sys.executable, "-m", f"streams.{name}", *self.config, "--metrics-port", "0"],
                                                   cwd=config.ROOT, env=self.env, stdout=log, stderr=log)

    def pid(self, name: str) -> int:
        """Of a service, or of the broker."""
        return self.kafka.pid if name == "broker" else self.children[name].pid

    def mend(self, settings: Settings) -> None:
        """Everything runs again."""
        for name in ("broker", *self.children):
            with suppress(ProcessLookupError):
                os.kill(self.pid(name), signal.SIGCONT)
        if self.kafka.process.poll() is not None:
            address = self.env["KAFKA_BOOTSTRAP_SERVERS"].rsplit(":", 1)[1]
            self.kafka = brokers.start(self.folder / "kafka", settings.kafka, int(address), free_port())
        self.keep()

    def keep(self) -> None:
        """Starts again what has ended."""
        for name, child in list(self.children.items()):
            if child.poll() is not None:
                self.launch(name)

    def close(self) -> None:
        """Ends what was started here."""
        for child in self.children.values():
            with suppress(ProcessLookupError):
                child.send_signal(signal.SIGCONT)
                child.terminate()
        for child in self.children.values():
            try:
                child.wait(GRACE_S)
            except subprocess.TimeoutExpired:
                child.kill()
                child.wait()
        with suppress(ProcessLookupError):
            os.kill(self.kafka.pid, signal.SIGCONT)
        self.kafka.stop()


def busy(stack: Stack, watch: Watch) -> None:
    """Waits until entries are accepted again; `SystemExit` where they are not."""
    until = time.monotonic() + PATIENCE_S
    while len(watch.since(time.time() - 1)) < BUSY:
        if time.monotonic() > until:
            raise SystemExit(f"no entries for {PATIENCE_S:.0f} s; logs in {stack.folder}")
        stack.keep()
        time.sleep(0.05)


def trial(stack: Stack, watch: Watch, settings: Settings, situation: str) -> Trial:
    """One KILL."""
    busy(stack, watch)
    if what := HUNG.get(situation):
        os.kill(stack.pid(what), signal.SIGSTOP)
    elif what := DEAD.get(situation):
        os.kill(stack.pid(what), signal.SIGKILL)
    began = time.time()
    words = [*stack.config, "--reason", situation, "--actor", "bench", "--wait", "0"]
    command = subprocess.Popen([sys.executable, "-m", "scripts.kill", *words], cwd=config.ROOT, env=stack.env, stdout=subprocess.PIPE,
                               stderr=subprocess.DEVNULL, text=True)
    folder = killing.controls.folder(settings)
    name = ""
    while not name and time.time() < began + PATIENCE_S:
        name = next((p.stem for p in folder.glob("kill-*-bench.json")), "")
        if not name and command.poll() is not None:     # the desk was faster than our look at the folder
            name = (re.search(r"kill-\d+-bench", command.communicate()[0]) or [""])[0]
        time.sleep(0.001)
    wrote = int(name.split("-")[1]) / 1e6
    held = len(watch.held)
    time.sleep(max(0.0, wrote + WATCH_S - time.time()))
    while watch.resting() and time.time() < wrote + ENOUGH_S:
        time.sleep(0.02)
    after, left = watch.since(began), watch.resting()
    last = max(after, default=began)
    now = time.time()
    empty = now - wrote if left else max(0.0, watch.empty_at - wrote)
    done = Trial(situation, last - began if after else 0.0, max(0.0, last - wrote), wrote - began, empty, held,
                 sum(t > wrote + BOUND_S for t in after), len(left), sum(t > wrote for t in list(watch.exits)))
    stack.mend(settings)
    with suppress(subprocess.TimeoutExpired):
        command.communicate(timeout=PATIENCE_S)
    released(stack, settings)
    return done


def released(stack: Stack, settings: Settings) -> None:
    """The desk has taken the KILL and its release; `SystemExit` where it does not."""
    until = time.monotonic() + PATIENCE_S
    while time.monotonic() < until:
        stack.keep()
        waiting = list(killing.controls.folder(settings).glob("*.json"))     # first: a file goes once its word is in the ledger
        heard = killing.controls.in_force(killing.ledger_url(settings)).kills
        if heard and not waiting:
            given = killing.release(settings, "bench", "the trial is over", heard)
            ends = time.monotonic() + 5
            while given.places and time.monotonic() < ends and not killing.heard(settings, given.fact).taken:
                time.sleep(0.02)
        elif not heard and not waiting:
            return
        time.sleep(0.05)
    raise SystemExit(f"a KILL was not released within {PATIENCE_S:.0f} s; logs in {stack.folder}")


def told(name: str, some: list[Trial]) -> None:
    """One situation's row."""
    cells = []
    for column in ("wrote", "start", "word", "empty"):
        values = np.array([getattr(t, column) for t in some]) * 1000
        p50, p99 = quantiles(values, 0.5, 0.99)
        cells.append(f"{p50:.0f} / {p99:.0f} / {values.max():.0f}")
    late, left, exits = (sum(getattr(t, column) for t in some) for column in ("late", "left", "exits"))
    print(f"{name:<15}{len(some):>7}" + "".join(f"{c:>22}" for c in cells)
          + f"{np.mean([t.held for t in some]):>7.1f}{late:>6}{left:>6}{exits:>7}", flush=True)


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.kill", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--trials", type=natural, default=200, help="with all alive (default 200)")
    parser.add_argument("--hung", type=natural, default=50, help="with the desk hung (default 50)")
    parser.add_argument("--others", type=natural, default=10, help=f"of each other situation (default 10): "
                                                                  f"{', '.join([*HUNG, *DEAD][1:])}")
    parser.add_argument("--rate", type=number(float, 0, above=True, most=1e6), default=1000.0, help="market events a second (default 1000)")
    parser.add_argument("--keep", type=Path, help="a folder for logs and ledger, kept")
    args = parser.parse_args(argv)
    wanted = {ALIVE: args.trials, **{name: args.hung if name == "desk hung" else args.others for name in (*HUNG, *DEAD)}}
    folder = args.keep or Path(tempfile.mkdtemp(prefix="sluice-kill-"))
    folder.mkdir(parents=True, exist_ok=True)
    bad = 0
    try:
        model(folder / "closed")
        open_model(folder / "closed", folder / "models")
        file = market_file(folder, args.rate)
        file.write_text(file.read_text().split("desk:")[0] + REST)
        kafka = brokers.start(folder / "kafka")
        env = os.environ | OPEN | LIMITS | {
            "KAFKA_BOOTSTRAP_SERVERS": kafka.address, "SLUICE_DATA": str(folder / "data"), "SLUICE_MODELS": str(folder / "models"),
            "SLUICE_INSTANCE": "", "SLUICE_FEED": "", "SLUICE_EXCHANGE_PORT": str(free_port()), "SLUICE_MARKET": "sim", "SPEED": "1",
            "SLUICE_LOG_LEVEL": "WARNING"}
        stack = Stack(folder, dict(env), ["--config", str(file)], kafka)
        settings = config.load(str(file), env=stack.env)
        try:
            subprocess.run([sys.executable, "-m", "streams.admin"], env=stack.env, cwd=config.ROOT, check=True, stdout=subprocess.DEVNULL)
            for name in ("exchange", *SERVICES):
                stack.launch(name)
            watch = watching(settings)
            print(f"{'':<15}{'trials':>7}{'word written':>22}{'start → last entry':>22}{'word → last entry':>22}{'word → none held':>22}"
                  f"{'held':>7}{'late':>6}{'left':>6}{'exits':>7}    ms: p50 / p99 / longest")
            for situation, n in wanted.items():
                some = []
                for i in range(n):
                    some.append(trial(stack, watch, settings, situation))
                    if i % 20 == 19:
                        print(f"{situation}: {i + 1} of {n}, load {os.getloadavg()[0]:.1f}", file=sys.stderr, flush=True)
                if some:
                    told(situation, some)
                    bad += sum(bool(t.late or t.left) for t in some)
        finally:
            stack.close()
    finally:
        if not args.keep:
            shutil.rmtree(folder, ignore_errors=True)
    return 1 if bad else 0


def watching(settings: Settings) -> Watch:
    """Once the exchange listens."""
    until = time.monotonic() + PATIENCE_S
    while True:
        try:
            return Watch(settings.exchange.host, settings.exchange.port)
        except OSError:
            if time.monotonic() > until:
                raise
            time.sleep(0.1)


if __name__ == "__main__":
    raise SystemExit(ended(main))
