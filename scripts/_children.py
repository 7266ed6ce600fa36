"""Processes that belong together: each with its log, its own group and a sign that it is ready; all end when one must."""
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import psutil

TAIL_LINES = 25


@dataclass(frozen=True)
class Part:
    """One process: its command, how to tell that it is ready, and how long that may take."""
    name: str
    command: Sequence[str]
    ready: Callable[[psutil.Process], bool]
    within_s: float
    grace_s: float = 8
    env: dict[str, str] = field(default_factory=dict)


@dataclass
class Running:
    """A part that was started."""
    part: Part
    process: subprocess.Popen
    began: float
    log: Path
    ready: bool = False


class Fell(RuntimeError):
    """A part ended, or was not ready in time; the message has the end of its log."""


class Crew:
    """The parts that run, in the order of their start."""

    def __init__(self, logs: Path, env: dict[str, str], cwd: Path, say: Callable[[str], None]):
        self.logs, self.env, self.cwd, self.say = logs, env, cwd, say
        self.running: list[Running] = []
        self.peak_bytes = 0
        logs.mkdir(parents=True, exist_ok=True)

    def launch(self, part: Part) -> Running:
        """Starts it and does not wait. It ends with this process, however that ends."""
        log = self.logs / f"{part.name}.log"
        if log.exists():
            os.replace(log, log.with_suffix(".log.1"))
        setpriv = shutil.which("setpriv")
        command = [*([setpriv, "--pdeathsig", "TERM"] if setpriv else []), *map(str, part.command)]
        with log.open("wb") as out:
            process = subprocess.Popen(command, cwd=self.cwd, env=self.env | part.env, stdin=subprocess.DEVNULL, stdout=out, stderr=out,
                                       start_new_session=True)
        one = Running(part, process, time.monotonic(), log)
        self.running.append(one)
        return one

    def poll(self, one: Running) -> bool:
        """Whether it is ready. Raises `Fell` where it took too long, or any part ended."""
        self.check()
        if one.ready:
            return True
        try:
            one.ready = one.part.ready(psutil.Process(one.process.pid))
        except psutil.Error:
            return False   # it has just ended: the next check says so
        took = time.monotonic() - one.began
        if one.ready:
            self.say(f"{one.part.name}: ready after {took:.1f} s")
        elif took > one.part.within_s:
            raise Fell(f"{one.part.name} was not ready within {one.part.within_s:.0f} s\n{self.tail(one)}")
        return one.ready

    def wait(self, *ones: Running) -> None:
        """Until all are ready. Raises `Fell`, also when another part falls meanwhile."""
        while sum(not self.poll(one) for one in ones):
            time.sleep(0.05)

    def finished(self, one: Running) -> None:
        """Until a part that does one thing and ends has done it. Raises `Fell` where it did not."""
        while one.process.poll() is None:
            self.check(but=one)
            if time.monotonic() - one.began > one.part.within_s:
                raise Fell(f"{one.part.name} did not finish within {one.part.within_s:.0f} s\n{self.tail(one)}")
            time.sleep(0.05)
        self.running.remove(one)
        if one.process.returncode:
            raise Fell(f"{one.part.name} ended with status {one.process.returncode}\n{self.tail(one)}")
        self.say(f"{one.part.name}: done after {time.monotonic() - one.began:.1f} s")

    def check(self, but: Running | None = None) -> None:
        """Raises `Fell` for a part that ended."""
        for one in self.running:
            if one is not but and (status := one.process.poll()) is not None:
                how = f"was killed by {signal.Signals(-status).name}" if status < 0 else f"ended with status {status}"
                raise Fell(f"{one.part.name} {how}\n{self.tail(one)}")

    def tail(self, one: Running) -> str:
        """The end of its log, indented, and where the rest is."""
        lines = one.log.read_text(errors="replace").splitlines()[-TAIL_LINES:]
        return "\n".join([*(f"    {line[:300]}" for line in lines), f"  all of it: {one.log}"])

    def memory(self) -> int:
        """Resident bytes of all parts and their children now; the greatest so far is `peak_bytes`."""
        total = 0
        for one in self.running:
            try:
                parent = psutil.Process(one.process.pid)
                for process in (parent, *parent.children(recursive=True)):
                    total += process.memory_info().rss
            except psutil.Error:
                continue
        self.peak_bytes = max(self.peak_bytes, total)
        return total

    def stop(self) -> list[str]:
        """Ends all, the last started first: SIGTERM, after the grace SIGKILL to the whole group; the names of those killed."""
        killed = []
        while self.running:
            one = self.running.pop()
            signalled(one, signal.SIGTERM, alone=True)
            try:
                one.process.wait(one.part.grace_s)
            except subprocess.TimeoutExpired:
                killed.append(one.part.name)
            signalled(one, signal.SIGKILL)   # and what it left behind in its group
            one.process.wait()
        return killed


def signalled(one: Running, sig: int, alone: bool = False) -> None:
    """The signal to the part, or to its whole group; one that is gone already is fine."""
    try:
        if alone:
            one.process.send_signal(sig)
        else:
            os.killpg(one.process.pid, sig)
    except ProcessLookupError:
        pass


def listens(port: int) -> Callable[[psutil.Process], bool]:
    """Ready when the process listens on the port; opens no connection to find out."""
    def ready(process: psutil.Process) -> bool:
        return any(c.status == psutil.CONN_LISTEN and c.laddr.port == port for c in process.net_connections("tcp"))
    return ready
