"""A person at a terminal: commands that are typed, services that are started and stopped, what is looked for, and the transcript of it."""
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from benchmarks._bench import scraped
from config.settings import ROOT

STOP_S = 20
TYPED_S = 600


class Wrong(RuntimeError):
    """Something did not come as the runbook says, and nothing behind it would mean anything."""


class Live:
    """A service that was started: its name, its log and where its metrics are."""

    def __init__(self, name: str, line: str, env: dict[str, str], log: Path, port: int):
        self.name, self.line, self.log, self.port = name, line, log, port
        with log.open("wb") as out:
            self.process = subprocess.Popen(["bash", "-c", f"exec {line}"], cwd=ROOT, env=env, stdin=subprocess.DEVNULL, stdout=out,
                                            stderr=out)

    def told(self, pattern: str) -> list[str]:
        """The lines of its log that match, without the clock."""
        lines = self.log.read_text(errors="replace").splitlines()
        return [re.sub(r"^\S+ \S+ (INFO|WARNING|ERROR) ", "", line) for line in lines if re.search(pattern, line)]

    def shows(self, series: str) -> float:
        """The sum of its series that begin so."""
        return sum(value for name, value in scraped(self.port).items() if name.startswith(series))


class Typed:
    """The terminal. Everything is made under `home`, from which the transcript's paths count. `wrong`: what was not as it should be."""

    def __init__(self, home: Path, env: dict[str, str], say: Callable[[str], None] = print):
        self.home, self.say = home, say
        self.env = {**env, "PATH": f"{Path(sys.executable).parent}:{env.get('PATH', '')}", "PYTHONUNBUFFERED": "1", "DO_NOT_TRACK": "1"}
        self.exported: dict[str, str] = {}
        self.lines: list[str] = []
        self.wrong: list[str] = []
        self.live: dict[str, Live] = {}
        self.starts = 0
        (home / "logs").mkdir(parents=True, exist_ok=True)

    def write(self, text: str) -> None:
        """Lines of the transcript, kept at once."""
        text = text.replace(f"{self.home}/", "")
        self.lines.append(text)
        self.say(text)
        (self.home / "transcript.md").write_text("\n".join(self.lines) + "\n")

    def heading(self, text: str) -> None:
        """A phase."""
        self.write(f"\n## {text}\n")

    def check(self, what: str, true: object) -> None:
        """What the runbook says to verify."""
        self.write(f"    {'[ok]' if true else '[WRONG]'} {what}")
        if not true:
            self.wrong.append(what)

    # what is typed

    def export(self, **values: object) -> None:
        """`export NAME=value`; None: `unset NAME`."""
        for name, value in values.items():
            if value is None:
                self.exported.pop(name, None)
                self.write(f"$ unset {name}")
            else:
                self.exported[name] = str(value)
                self.write(f"$ export {name}={value}")

    def type(self, line: str, keep: int = 40, status: tuple[int, ...] = (0,)) -> str:
        """A command and what it printed; `Wrong` with another exit status."""
        self.write(f"$ {line}")
        done = subprocess.run(["bash", "-c", line], cwd=ROOT, env=self.env | self.exported, capture_output=True, text=True, timeout=TYPED_S)
        text = (done.stdout + done.stderr).rstrip("\n")
        lines = text.splitlines()
        if lines:
            self.write("\n".join(lines[:keep] + ([f"… {len(lines) - keep} more"] if len(lines) > keep else [])))
        if done.returncode not in status:
            raise Wrong(f"{line}: status {done.returncode}, not {' or '.join(map(str, status))}\n{text[-2000:]}")
        return text

    # services

    def up(self, name: str, symbols: str, port: int, within_s: float = 240, **env: str) -> Live:
        """Starts an instance, as a person would in a terminal of its own; ready when all of its services are."""
        words = [f"{k}={shlex.quote(v)}" for k, v in env.items()]
        command = f"python3 -m scripts.run_live --exchange --symbols {symbols} --metrics-port {port}"
        self.write(" \\\n    ".join([f"$ SLUICE_INSTANCE={name}", *words, f"{command} &"]))
        self.starts += 1
        one = Live(name, command, self.env | self.exported | env | {"SLUICE_INSTANCE": name},
                   self.home / "logs" / f"{name}.{self.starts}.log", port)
        self.live[name] = one
        self.until(one, "it is started", lambda: one.told("supervisor: started") and one.shows("grinder_live_engine_initialized"), within_s)
        return one

    def down(self, one: Live) -> None:
        """Ctrl-C in its terminal."""
        self.write(f"^C    ({one.name})")
        one.process.send_signal(signal.SIGINT)
        try:
            status = one.process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            one.process.kill()
            status = one.process.wait()
        self.live.pop(one.name, None)
        if status:
            raise Wrong(f"{one.name} ended with status {status}\n" + "\n".join(one.told("")[-8:]))

    def until(self, one: Live, what: str, true: Callable[[], object], within_s: float) -> None:
        """Waits for something that must come; `Wrong` where it does not, or where the service ends meanwhile."""
        end = time.monotonic() + within_s
        while not true():
            ended = one.process.poll()
            if ended is not None or time.monotonic() > end:
                how = f"ended with status {ended}" if ended is not None else f"not within {within_s:.0f} s"
                raise Wrong(f"{one.name}: {what}: {how}\n" + "\n".join(one.told("")[-8:]))
            time.sleep(0.3)

    def close(self) -> None:
        """Ends what still runs."""
        for one in list(self.live.values()):
            one.process.send_signal(signal.SIGTERM)
        for one in list(self.live.values()):
            try:
                one.process.wait(STOP_S)
            except subprocess.TimeoutExpired:
                one.process.kill()
                one.process.wait()
        self.live.clear()


def environment() -> dict[str, str]:
    """The caller's, without what a ceremony exports itself."""
    own = ("SLUICE_INSTANCE", "SLUICE_FEED", "SLUICE_SYMBOLS")
    return {k: v for k, v in os.environ.items() if not k.startswith("GRINDER_") and k not in own}
