"""How long each service takes to end: idle, at work, with the broker or the venue gone or hanging, told to or by itself.

    python -m benchmarks.stopping                       every situation
    python -m benchmarks.stopping --only hang           those whose name has it

Real processes on a broker of its own, each service alone and all in one; all of a situation are told at the same moment, so that
the figures are those of a whole machine going down. An active model is needed (`python -m flows.train`). `hung` is a process that
was stopped with SIGSTOP: its sockets stay open and nothing answers.
"""

import argparse
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from urllib.request import urlopen

from config import settings as config
from engine.metrics import SERVICE_READY, STAGES
from scripts._arguments import ended, number
from streams import broker
from streams.broker import free_port

ENOUGH_S = 60.0     # a process that lives on for so long after it was told is counted as one that never ends


@dataclass
class Child:
    """One process: its name, its metrics, its log."""

    name: str
    process: subprocess.Popen
    port: int
    log: Path
    took_s: float = float("nan")

    @property
    def ready(self) -> bool:
        """Whether every service in it says so."""
        try:
            text = urlopen(f"http://127.0.0.1:{self.port}/metrics", timeout=2).read().decode()
        except OSError:
            return False
        names = STAGES if self.name == "run_live" else (self.name,)
        return all(f'{SERVICE_READY}{{service="{n}"}} 1.0' in text for n in names)

    @property
    def last_words(self) -> str:
        """The last line that it wrote."""
        lines = self.log.read_text(errors="replace").splitlines()
        return lines[-1][:110] if lines else "(it said nothing)"


@dataclass
class Stack:
    """A broker, the exchange, and the services: each alone under an instance of its own, and all in one."""

    folder: Path
    speed: str
    children: list[Child] = field(default_factory=list)
    kafka: broker.Broker | None = None

    def env(self, instance: str, exchange_port: int) -> dict[str, str]:
        """What a process of this stack is told."""
        assert self.kafka is not None
        return os.environ | {"KAFKA_BOOTSTRAP_SERVERS": self.kafka.address, "SLUICE_DATA": str(self.folder / "data"), "SPEED": self.speed,
                             "SLUICE_INSTANCE": instance, "SLUICE_FEED": instance, "SLUICE_EXCHANGE_PORT": str(exchange_port),
                             "SLUICE_MARKET": "sim"}

    def spawn(self, name: str, module: str, env: dict[str, str], *more: str) -> Child:
        """Starts one and does not wait."""
        port = free_port()
        log = self.folder / f"{name}.log"
        with log.open("wb") as out:
            process = subprocess.Popen([sys.executable, "-m", module, "--metrics-port", str(port), *more], env=env, cwd=config.ROOT,
                                       stdin=subprocess.DEVNULL, stdout=out, stderr=out)
        child = Child(name, process, port, log)
        self.children.append(child)
        return child

    def services(self, venue: bool) -> None:
        """All of them; with `venue`, each group beside an exchange of its own."""
        for instance, names in (("apart", STAGES), ("together", ("run_live",))):
            port = free_port()
            env = self.env(instance, port)
            subprocess.run([sys.executable, "-m", "streams.admin"], env=env, cwd=config.ROOT, check=True, stdout=subprocess.DEVNULL)
            if venue:
                self.spawn("exchange" if instance == "apart" else "exchange2", "streams.exchange", env)
            for name in names:
                self.spawn(name, "scripts.run_live" if name == "run_live" else f"streams.{name}", env)

    def until_ready(self, seconds: float = 120) -> None:
        """Until all services say that they are; `SystemExit` with the last words of one that is not."""
        until = time.monotonic() + seconds
        for child in self.children:
            while not (child.name.startswith("exchange") or child.ready):
                if child.process.poll() is not None or time.monotonic() > until:
                    raise SystemExit(f"{child.name} did not start: {child.last_words}")
                time.sleep(0.1)

    def tell(self, sig: int) -> None:
        """The signal to every process, then the time until each has ended."""
        began = time.monotonic()
        for child in self.children:
            child.process.send_signal(sig)
        self.watch(began)

    def watch(self, began: float) -> None:
        """Waits until each has ended, or long enough."""
        waiting = list(self.children)
        while waiting and time.monotonic() - began < ENOUGH_S:
            for child in list(waiting):
                if child.process.poll() is not None:
                    child.took_s = time.monotonic() - began
                    waiting.remove(child)
            time.sleep(0.01)

    def close(self) -> None:
        """Ends what is left."""
        for child in self.children:
            if child.process.poll() is None:
                child.process.send_signal(signal.SIGCONT)
                child.process.kill()
                child.process.wait()
        if self.kafka is not None and self.kafka.process.poll() is None:
            self.kafka.process.send_signal(signal.SIGCONT)
            self.kafka.stop()


def at_work(stack: Stack) -> None:
    """Everything runs and trades for a moment."""
    stack.services(venue=True)
    stack.until_ready()
    time.sleep(4)


def idle(sig: int) -> Callable[[Stack], None]:
    """Ready, with no venue to hear of."""

    def run(stack: Stack) -> None:
        stack.services(venue=False)
        stack.until_ready()
        stack.tell(sig)

    return run


def busy(sig: int) -> Callable[[Stack], None]:
    """In the middle of trading."""

    def run(stack: Stack) -> None:
        at_work(stack)
        stack.tell(sig)

    return run


def broker_killed(stack: Stack) -> None:
    """Nobody tells them: the services see it and end, the exchange stays and is told."""
    at_work(stack)
    assert stack.kafka is not None
    began = time.monotonic()
    stack.kafka.kill()
    venues = [c for c in stack.children if c.name.startswith("exchange")]
    stack.children = [c for c in stack.children if c not in venues]
    stack.watch(began)
    for venue in venues:
        venue.process.terminate()
        venue.process.wait()


def broker_hung(after_s: float) -> Callable[[Stack], None]:
    """Told to end this long after the broker stopped answering."""

    def run(stack: Stack) -> None:
        at_work(stack)
        assert stack.kafka is not None
        stack.kafka.process.send_signal(signal.SIGSTOP)
        time.sleep(after_s)
        stack.tell(signal.SIGTERM)

    return run


def venue_gone(sig: int) -> Callable[[Stack], None]:
    """The exchange is killed or hangs, then the services are told."""

    def run(stack: Stack) -> None:
        at_work(stack)
        venues = [c for c in stack.children if c.name.startswith("exchange")]
        for venue in venues:
            venue.process.send_signal(sig)
        stack.children = [c for c in stack.children if c not in venues]
        time.sleep(2)
        stack.tell(signal.SIGTERM)
        for venue in venues:
            venue.process.kill()
            venue.process.wait()

    return run


def no_broker(hung: bool, told: bool) -> Callable[[Stack], None]:
    """Started on a broker that is not there, or hangs; `told` to end after three seconds, or left to notice."""

    def run(stack: Stack) -> None:
        env = {name: stack.env(name, free_port()) for name in ("apart", "together")}
        for e in env.values():
            subprocess.run([sys.executable, "-m", "streams.admin"], env=e, cwd=config.ROOT, check=True, stdout=subprocess.DEVNULL)
        assert stack.kafka is not None
        if hung:
            stack.kafka.process.send_signal(signal.SIGSTOP)
        else:
            stack.kafka.kill()
        began = time.monotonic()
        for name in STAGES:
            stack.spawn(name, f"streams.{name}", env["apart"])
        stack.spawn("run_live", "scripts.run_live", env["together"])
        if told:
            time.sleep(3)
            stack.tell(signal.SIGTERM)
        else:
            stack.watch(began)

    return run


SITUATIONS: dict[str, Callable[[Stack], None]] = {
    "idle, SIGTERM": idle(signal.SIGTERM),
    "idle, Ctrl-C": idle(signal.SIGINT),
    "busy, SIGTERM": busy(signal.SIGTERM),
    "busy, Ctrl-C": busy(signal.SIGINT),
    "broker killed, by itself": broker_killed,
    "broker hung 2 s, SIGTERM": broker_hung(2),
    "broker hung 15 s, SIGTERM": broker_hung(15),
    "venue killed, SIGTERM": venue_gone(signal.SIGKILL),
    "venue hung, SIGTERM": venue_gone(signal.SIGSTOP),
    "started without broker, by itself": no_broker(hung=False, told=False),
    "started on a hung broker, by itself": no_broker(hung=True, told=False),
    "started on a hung broker, SIGTERM": no_broker(hung=True, told=True),
}


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.stopping", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", default="", metavar="TEXT", help=f"situations whose name contains this: {'; '.join(SITUATIONS)}")
    parser.add_argument("--speed", type=number(float, 0, above=True, most=1e6), default="60", help="of the simulated market (default 60)")
    args = parser.parse_args(argv)
    chosen = {name: situation for name, situation in SITUATIONS.items() if args.only in name}
    if not chosen:
        parser.error(f"--only {args.only!r}: in no name of these: {'; '.join(SITUATIONS)}")
    for name, situation in chosen.items():
        folder = Path(tempfile.mkdtemp(prefix="sluice-stopping-"))
        stack = Stack(folder, f"{args.speed:g}")
        try:
            stack.kafka = broker.start(folder / "kafka")
            situation(stack)
            print(f"\n{name}: seconds to the end, status, last words")
            for child in stack.children:
                print(f"  {child.name:<14} {child.took_s:6.1f}  {child.process.returncode!s:>4}  {child.last_words}", flush=True)
        finally:
            stack.close()
            shutil.rmtree(folder, ignore_errors=True)
    return 0


if __name__ == "__main__":
    raise SystemExit(ended(main))
