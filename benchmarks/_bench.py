"""What the benchmarks of the route share: processes that end with the block, a model that lets every candidate in, and quantiles."""

import functools
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from urllib.request import urlopen

import numpy as np

from config import settings as config
from store.archive import ArchiveError
from store.database import LedgerError
from store.recorded import RecordingError
from store.registry import Registry

GRACE_S = 15.0


@contextmanager
def running(*commands: list[str], env: Mapping[str, str], loud: bool = False) -> Iterator[list[subprocess.Popen]]:
    """Python modules as processes for the block: SIGTERM at its end, SIGKILL after a grace."""
    said = None if loud else subprocess.DEVNULL
    children = [subprocess.Popen([sys.executable, "-m", *command], env=env, cwd=config.ROOT, stdout=said, stderr=said)
                for command in commands]
    try:
        yield children
    finally:
        for child in children:
            child.send_signal(signal.SIGTERM)
        for child in children:
            try:
                child.wait(GRACE_S)
            except subprocess.TimeoutExpired:
                child.kill()
                child.wait()


def scraped(port: int) -> dict[str, float]:
    """A process's series by their full name; empty while it does not answer."""
    try:
        text = urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5).read().decode()
    except OSError:
        return {}
    lines = (line.rsplit(" ", 1) for line in text.splitlines() if line and not line.startswith("#"))
    return {name: float(value) for name, value in lines}


def counted(port: int, series: str) -> float:
    """The sum of a process's series that begin so."""
    return sum(value for name, value in scraped(port).items() if name.startswith(series))


def until(what, children: list[subprocess.Popen], patience_s: float, every_s: float = 0.2):
    """What `what()` returns once it is true; `SystemExit` where a child ends before, or none of it in time."""
    end = time.monotonic() + patience_s
    while not (got := what()):
        for child in children:
            if child.poll() is not None:
                raise SystemExit(f"a process of the route ended with {child.returncode}; run it by hand to see why: {child.args!r}")
        if time.monotonic() > end:
            raise SystemExit(f"nothing came within {patience_s:.0f} s; is the machine busy?")
        time.sleep(every_s)
    return got


def cpu_s(pid: int) -> float:
    """Seconds of processor time that the process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def open_model(models: Path, to: Path) -> Path:
    """A registry under `to` whose active model is that of `models` with thresholds of zero: every candidate may enter."""
    folder = Registry(models).slot("active")
    if folder is None:
        raise SystemExit(f"no active model under {models / 'registry'}: python -m flows.train makes, registers and promotes a first one")
    meta = json.loads((folder / "model.json").read_text())
    meta["id"], meta["thresholds"] = "open", {**meta["thresholds"], "tau_entry": 0.0, "tau_hold": 0.0}
    registry = Registry(to)
    registry.add("open", {"model.onnx": (folder / "model.onnx").read_bytes(), "model.json": json.dumps(meta).encode()},
                 "2026-01-05T00:00:00Z", "for a benchmark")
    registry.promote("open", "active")
    return to


def told(main: Callable[..., int]) -> Callable[..., int]:
    """For a benchmark's `main`: a ledger, a recording or an archive that is not there is one line on stderr and status 2."""
    @functools.wraps(main)
    def run(*args, **more) -> int:
        try:
            return main(*args, **more)
        except (LedgerError, RecordingError, ArchiveError) as error:
            print(f"{Path(sys.modules[main.__module__].__file__ or '').stem}: {error}", file=sys.stderr)
            return 2
    return run


def quantiles(values: np.ndarray, *wanted: float) -> list[float]:
    """Exact quantiles of the samples; NaN where there is none."""
    return [float(q) for q in np.quantile(values, wanted)] if len(values) else [float("nan")] * len(wanted)
