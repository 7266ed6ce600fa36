"""The whole route as processes on a real broker: the decisions of the closed loop, also when the desk is killed on the way."""
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import msgspec
import pytest
from models import register

from config.settings import ROOT, Settings, load
from engine.facts import Fill
from engine.market.simulator import Simulator
from engine.scoring.features import FEATURES
from store.archive import ArchiveWriter
from store.audit import answers_of
from store.closed import Closed, frames_of
from store.ledger import Ledger, ledger_url
from store.scorer import Scorer
from store.verify import verify

SYMBOL = "BTCUSDT"
QUICK = {"POLICY_COOLDOWN_SYMBOL": "3", "POLICY_COOLDOWN_GLOBAL": "1", "POLICY_MIN_CONFIDENCE": "0.5", "SLUICE_LOG_LEVEL": "WARNING"}
START_MS = 1_700_000_000_000


@pytest.fixture(scope="module")
def recording(tmp_path_factory) -> Path:
    """Eight minutes of simulated market as an archive."""
    root = tmp_path_factory.mktemp("archive")
    s = load(env={})
    simulator = Simulator(SYMBOL, s.instrument(SYMBOL), s.market[SYMBOL], 11, START_MS, "x")
    with ArchiveWriter(root, SYMBOL, s.instrument(SYMBOL), "test") as writer:
        while (frame := simulator.frame(START_MS + 480_000, 500)) is not None:
            writer.add(frame)
    return root


class Route:
    """Exchange and desk as child processes; `more` is added to their environment."""

    def __init__(self, on: Settings, recording: Path, **more: str):
        from benchmarks.stream import free_port
        self.env = os.environ | QUICK | {
            "KAFKA_BOOTSTRAP_SERVERS": on.kafka.bootstrap, "SLUICE_DATA": on.paths.data, "SLUICE_MODELS": on.paths.models,
            "SLUICE_INSTANCE": on.instance, "SLUICE_FEED": on.feed, "SLUICE_EXCHANGE_PORT": str(free_port()),
            "SLUICE_METRICS_PORT": str(free_port()), "SLUICE_MARKET": "recording", "RECORDING": str(recording), "SPEED": "max"} | more
        register(Path(on.paths.models), "m1", "active", names=FEATURES, tau=0.5)
        self.settings = load(env=self.env)
        self.run("streams.admin").wait(30)
        self.exchange, self.desk = self.run("streams.exchange"), self.run("scripts.run_live")

    def run(self, module: str) -> subprocess.Popen:
        return subprocess.Popen([sys.executable, "-m", module], cwd=ROOT, env=self.env, stdout=subprocess.DEVNULL)

    def until_over(self, timeout_s: float = 120) -> None:
        assert self.exchange.wait(timeout_s) == 0
        self.desk.terminate()
        assert self.desk.wait(20) == 0

    def close(self) -> None:
        for child in (self.desk, self.exchange):
            if child.poll() is None:
                child.kill()
                child.wait()


@pytest.fixture
def route(on_kafka, recording):
    """A running route; what is left of it is ended."""
    running = Route(on_kafka, recording)
    yield running
    running.close()


def expected(settings: Settings, recording: Path) -> list[bytes]:
    """What the closed loop in one process decides about the same events."""
    scorer = Scorer.load(settings.folder("models"), "active")
    assert scorer is not None
    frames = frames_of(recording, [SYMBOL], 100, "s1")
    return [b for _, fact, outs in Closed(settings, scorer, frames, "s1", finish=False) for b in told(fact, outs)]


def told(fact, outs: list) -> list[bytes]:
    """A fill and the Desk's answers. A request that is repeated after a kill takes a venue number too, so numbers are left out."""
    fills = [msgspec.structs.replace(fact, seq=0)] if isinstance(fact, Fill) else []
    return [msgspec.msgpack.encode(o) for o in (*fills, *outs)]


def lived(settings: Settings) -> list[bytes]:
    """What the ledger of the live run holds, in the order of its journal."""
    from engine.desk import Desk
    desk, said = Desk(settings), []
    with Ledger(ledger_url(settings), "risk") as ledger:
        for entry in ledger.entries():
            answers = []
            for fact in entry.consumed:
                outs = desk.on(fact)
                answers += outs
                said += told(fact, outs)
            written = [a for record in entry.produced for a in answers_of(record)]
            assert sorted(map(msgspec.msgpack.encode, answers)) == sorted(map(msgspec.msgpack.encode, written))
    return said


@pytest.mark.broker
def test_through_the_broker_the_desk_decides_byte_for_byte_as_the_closed_loop(route, recording):
    route.until_over()
    said, wanted = lived(route.settings), expected(route.settings, recording)
    assert sum(b"order" in s for s in said) > 20, "a run without orders shows nothing"
    assert said == wanted
    assert not list(verify(ledger_url(route.settings)))


@pytest.mark.broker
@pytest.mark.parametrize("part", ["desk", "exchange"])
def test_a_part_killed_twice_on_the_way_goes_on_with_the_same_decisions(route, recording, part):
    settings = route.settings
    path = Path(ledger_url(settings).removeprefix("sqlite:///"))
    for _ in range(2):
        began = time.monotonic()
        size = path.stat().st_size if path.exists() else 0
        while time.monotonic() - began < 30 and route.exchange.poll() is None:
            if path.exists() and path.stat().st_size > size + 200_000:
                break
            time.sleep(0.02)
        child = getattr(route, part)
        child.send_signal(signal.SIGKILL)
        child.wait()
        setattr(route, part, route.run("scripts.run_live" if part == "desk" else "streams.exchange"))
    route.until_over()
    said, wanted = lived(settings), expected(settings, recording)
    assert said == wanted
    assert not list(verify(ledger_url(settings)))


@pytest.mark.broker
def test_a_disk_that_fills_on_the_way_ends_the_desk_by_name_and_with_room_again_it_goes_on_with_the_same_decisions(
        on_kafka, recording, roomy, capfd):
    on = msgspec.structs.replace(on_kafka, paths=msgspec.structs.replace(on_kafka.paths, data=str(roomy.path / "data")))
    route = Route(on, recording)
    try:
        path = Path(ledger_url(route.settings).removeprefix("sqlite:///"))
        began = time.monotonic()
        while time.monotonic() - began < 60 and not (path.exists() and path.stat().st_size > 200_000):
            time.sleep(0.02)
        roomy.fill()
        assert route.desk.wait(60) == 1
        told = capfd.readouterr().err
        assert "ended by" in told and str(roomy.path / "data") in told and "free some space" in told and "Traceback" not in told
        again = route.run("scripts.run_live")               # still full: it does not begin
        assert again.wait(60) == 1 and "paths.data (SLUICE_DATA)" in capfd.readouterr().err
        roomy.free()
        if route.exchange.poll() is not None:
            assert route.exchange.returncode == 1
            route.exchange = route.run("streams.exchange")
        route.desk = route.run("scripts.run_live")
        route.until_over()
        assert lived(route.settings) == expected(route.settings, recording)
        assert not list(verify(ledger_url(route.settings)))
    finally:
        route.close()
