"""How services end and how far behind they begin, as real processes and on a real broker."""
import asyncio
import logging
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from builders import market, reframed
from services import Services, until

from config.settings import ROOT
from engine import metrics as m
from streams import admin
from streams import broker as brokers
from streams.codec import encode
from streams.stage import Stateful
from streams.topics import MD_FRAMES
from tests.fixtures_kafka import pointed_at

SAYING = "import asyncio, logging, sys, time; from streams.stopping import Stop; logging.basicConfig(level='INFO', stream=sys.stderr)\n"
LOOP = """
async def main():
    over = asyncio.Event()
    stop.attach(over)
    print('up', flush=True)
    {body}
    await over.wait()
    print('closed', flush=True)
"""


def process(code: str) -> subprocess.Popen:
    """A child that has said `up`."""
    child = subprocess.Popen([sys.executable, "-c", SAYING + code], cwd=ROOT, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert child.stdout is not None and child.stdout.readline() == "up\n"
    return child


@pytest.mark.parametrize("sig", [signal.SIGTERM, signal.SIGINT])
def test_who_is_told_ends_in_order_with_the_signals_name(sig):
    child = process("stop = Stop('desk')" + LOOP.format(body="pass") + "asyncio.run(main()); stop.leave(0)")
    child.send_signal(sig)
    out, err = child.communicate(timeout=20)
    assert (child.returncode, out) == (0, "closed\n")
    assert f"desk: {sig.name}: stopping" in err and "cut off" not in err


def test_who_is_told_before_anything_began_ends_at_once():
    child = process("stop = Stop('desk', 30); print('up', flush=True); time.sleep(60)")
    child.terminate()
    _, err = child.communicate(timeout=20)
    assert child.returncode == 0 and "desk: ended before it was ready" in err


def test_who_hangs_where_no_handler_runs_is_cut_off_behind_the_grace_and_says_so():
    child = process("stop = Stop('desk', 0.3)" + LOOP.format(body="import threading; lock = threading.Lock(); "
                    "lock.acquire(); lock.acquire()") + "asyncio.run(main())")
    child.terminate()
    _, err = child.communicate(timeout=20)
    assert child.returncode == 1 and "desk: not ended within 0.3 s: cut off" in err


def test_a_failure_starts_the_grace_as_a_signal_does():
    hangs = "stop.begin('ended by its disk'); time.sleep(60)"
    child = process("stop = Stop('desk', 0.3)" + LOOP.format(body=hangs) + "asyncio.run(main())")
    _, err = child.communicate(timeout=20)
    assert child.returncode == 1 and "desk: ended by its disk: stopping" in err


def env_of(settings, **more: str) -> dict[str, str]:
    return os.environ | {"KAFKA_BOOTSTRAP_SERVERS": settings.kafka.bootstrap, "SLUICE_DATA": settings.paths.data,
                         "SLUICE_MODELS": settings.paths.models, "SLUICE_INSTANCE": settings.instance, "SLUICE_FEED": settings.feed} | more


def test_a_service_whose_broker_takes_the_line_and_never_answers_is_stopped_all_the_same(tmp_path: Path):
    with socket.socket() as mute:
        mute.bind(("127.0.0.1", 0))
        mute.listen()
        env = os.environ | {"KAFKA_BOOTSTRAP_SERVERS": f"127.0.0.1:{mute.getsockname()[1]}", "SLUICE_DATA": str(tmp_path / "data")}
        child = subprocess.Popen([sys.executable, "-m", "streams.supervisor", "--metrics-port", "0"], cwd=ROOT, env=env, text=True,
                                 stderr=subprocess.PIPE)
        mute.accept()
        child.terminate()
        _, err = child.communicate(timeout=20)
    assert child.returncode == 0 and "supervisor: SIGTERM: stopping" in err


@pytest.mark.broker
def test_the_desk_ends_in_order_while_its_broker_hangs_and_by_itself_when_it_is_gone(on_kafka, tmp_path: Path):
    with brokers.start(tmp_path / "kafka") as broker:
        settings = pointed_at(on_kafka, broker.address)
        admin.ensure(settings)
        services = [sys.executable, "-m", "scripts.run_live", "--services", "collector,signal_engine,risk,executor", "--metrics-port", "0"]
        for how in ("hangs", "gone"):
            with socket.socket() as s:
                s.bind(("127.0.0.1", 0))
                port = s.getsockname()[1]
            child = subprocess.Popen(services, cwd=ROOT, env=env_of(settings, SLUICE_EXCHANGE_PORT=str(port)), text=True,
                                     stderr=subprocess.PIPE)
            said = []
            assert child.stderr is not None
            while not said or ": started" not in said[-1]:
                said.append(child.stderr.readline())
                assert said[-1], f"it ended: {said}"
            if how == "hangs":
                broker.process.send_signal(signal.SIGSTOP)
                child.terminate()
            else:
                broker.kill()
            _, err = child.communicate(timeout=40)
            broker.process.send_signal(signal.SIGCONT) if how == "hangs" else None
            assert "Traceback" not in err and "cut off" not in err
            assert child.returncode == (0 if how == "hangs" else 1)
            assert ("ended in" if how == "hangs" else f"the broker at {broker.address} is gone") in err


@pytest.mark.broker
def test_a_service_says_how_far_behind_it_begins_and_when_it_has_caught_up(on_kafka, caplog, monkeypatch):
    frames, held, carry = [encode(f) for f in reframed(market(3000), 10)], asyncio.Event(), Stateful.on_record

    async def gated(self, record) -> None:
        await held.wait()
        await carry(self, record)

    async def life() -> None:
        topic = f"{on_kafka.feed}.md.frames"
        async with Services(on_kafka) as services:
            await services.tell(MD_FRAMES, *(("BTCUSDT", f) for f in frames))
            await services.start("signal_engine")
            await asyncio.sleep(0.3)
            assert services.shows(m.SERVICE_READY, service="signal_engine") == 0
            assert services.shows(m.CONSUMER_LAG_RECORDS, service="signal_engine", topic=topic) == len(frames)
            assert f"signal_engine: 300 records behind ({topic} 300): catching up" in caplog.text
            held.set()
            await until(lambda: services.shows(m.SERVICE_READY, service="signal_engine"))
            assert services.shows(m.FRAMES_TOTAL, service="signal_engine", symbol="BTCUSDT") == len(frames)
            assert services.shows(m.CONSUMER_LAG_RECORDS, service="signal_engine", topic=topic) == 0
            assert "signal_engine: caught up with 300 records in" in caplog.text
            await services.stop("signal_engine")
            assert services.shows(m.SERVICE_READY, service="signal_engine") == 0
            caplog.clear()
            await services.start("signal_engine")
            await until(lambda: services.shows(m.SERVICE_READY, service="signal_engine"))

    monkeypatch.setattr(Stateful, "on_record", gated)
    with caplog.at_level(logging.INFO, "sluice"):
        asyncio.run(life())
        assert "behind" not in caplog.text, "what was carried before the stop is not behind after it"
