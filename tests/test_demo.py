"""What holds the parts of `make demo` together, on real processes."""
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from config.settings import ROOT, load
from engine import metrics as m
from scripts import _vitals as vitals
from scripts import demo
from scripts._children import Crew, Fell, Part, listens
from store.exporter import Exporter

SERVER = "import socket,time; s=socket.socket(); s.bind(('127.0.0.1',{port})); s.listen(); print('up',flush=True); time.sleep(60)"
STUBBORN = "import signal,subprocess,sys,time; signal.signal(15,signal.SIG_IGN); " \
           "c=subprocess.Popen([sys.executable,'-c','import time; time.sleep(60)']); print(c.pid,flush=True); time.sleep(60)"


def part(name: str, code: str, ready=lambda _: True, within_s: float = 20, grace_s: float = 5) -> Part:
    return Part(name, [sys.executable, "-c", code], ready, within_s, grace_s)


@pytest.fixture
def crew(tmp_path: Path):
    got = Crew(tmp_path / "logs", dict(os.environ), ROOT, lambda text: None)
    yield got
    got.stop()


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def until(what, seconds: float = 10) -> bool:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if what():
            return True
        time.sleep(0.05)
    return False


def test_a_part_is_ready_when_it_listens_and_not_before(crew: Crew):
    port = free_port()
    one = crew.launch(part("server", "import time; time.sleep(0.5); " + SERVER.format(port=port), listens(port)))
    assert not listens(port)(psutil.Process(one.process.pid))
    crew.wait(one)
    assert one.ready and time.monotonic() - one.began >= 0.5
    assert crew.memory() > 1 << 20 and crew.peak_bytes >= crew.memory() // 2


def test_a_part_that_ends_before_it_is_ready_falls_with_the_end_of_its_log(crew: Crew):
    one = crew.launch(part("broken", "print('the reason'); raise SystemExit(3)", lambda _: False))
    with pytest.raises(Fell, match=r"(?s)broken ended with status 3.*the reason.*broken\.log"):
        crew.wait(one)


def test_while_one_is_waited_for_the_fall_of_another_is_told(crew: Crew):
    crew.launch(part("other", "import time; time.sleep(0.2); raise SystemExit(4)"))
    slow = crew.launch(part("slow", "import time; time.sleep(60)", lambda _: False))
    with pytest.raises(Fell, match="other ended with status 4"):
        crew.wait(slow)


def test_a_part_that_is_never_ready_falls_in_time(crew: Crew):
    one = crew.launch(part("slow", "import time; time.sleep(60)", lambda _: False, within_s=0.3))
    with pytest.raises(Fell, match="slow was not ready within 0 s"):
        crew.wait(one)


def test_a_part_that_is_killed_is_told_by_the_signal(crew: Crew):
    one = crew.launch(part("victim", "import time; time.sleep(60)"))
    os.kill(one.process.pid, signal.SIGKILL)
    one.process.wait()
    with pytest.raises(Fell, match="victim was killed by SIGKILL"):
        crew.check()


def test_what_does_one_thing_and_ends_is_finished_or_falls(crew: Crew):
    crew.finished(crew.launch(part("job", "pass")))
    assert crew.running == []
    with pytest.raises(Fell, match=r"(?s)job ended with status 1.*ZeroDivisionError"):
        crew.finished(crew.launch(part("job", "1/0")))
    assert (crew.logs / "job.log.1").exists()


def test_all_end_the_last_started_first_and_who_does_not_is_killed_with_its_children(crew: Crew, tmp_path: Path):
    order = tmp_path / "order"
    polite = "import signal,time,sys; signal.signal(15,lambda *_: (open({f!r},'a').write({n!r}), sys.exit(0))); " \
             "print('up',flush=True); time.sleep(60)"
    first = crew.launch(part("first", polite.format(f=str(order), n="1")))
    stubborn = crew.launch(part("stubborn", STUBBORN, grace_s=0.5))
    last = crew.launch(part("last", polite.format(f=str(order), n="2")))
    assert until(lambda: all(x.log.read_text().strip() for x in (first, stubborn, last)))
    grandchild = int(stubborn.log.read_text())
    assert crew.stop() == ["stubborn"]
    assert order.read_text() == "21"
    assert until(lambda: not psutil.pid_exists(grandchild) or psutil.Process(grandchild).status() == psutil.STATUS_ZOMBIE)


def test_no_part_outlives_whoever_started_it(tmp_path: Path):
    code = f"from scripts._children import *; import os; c=Crew(Path({str(tmp_path)!r}), dict(os.environ), Path('.'), print); " \
           f"one=c.launch(Part('child', [{sys.executable!r}, '-c', 'import time; print(1, flush=True); time.sleep(60)'], " \
           "lambda _: True, 9)); " \
           "print(one.process.pid, flush=True); time.sleep(60)"
    starter = subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert starter.stdout is not None
    child = int(starter.stdout.readline())
    assert until(lambda: (tmp_path / "child.log").read_text() == "1\n")   # setpriv has become the child
    starter.kill()
    starter.wait()
    assert until(lambda: not psutil.pid_exists(child) or psutil.Process(child).status() == psutil.STATUS_ZOMBIE)


def test_every_taken_port_is_told_at_once_with_the_variable_that_moves_it():
    with socket.socket() as a, socket.socket() as b:
        for s in (a, b):
            s.bind(("127.0.0.1", 0))
            s.listen()
        told = demo.port_faults({"kafka.port": a.getsockname()[1], "ports.console": b.getsockname()[1], "ports.prefect": free_port()})
    assert len(told) == 2 and "kafka.port (SLUICE_KAFKA_PORT)" in told[0] and "ports.console (SLUICE_CONSOLE_PORT)" in told[1]
    twice = free_port()
    assert any("is both" in t for t in demo.port_faults({"kafka.port": twice, "exchange.port": twice}))


def test_with_taken_ports_nothing_is_started(tmp_path: Path):
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        s.listen()
        env = os.environ | {"SLUICE_DATA": str(tmp_path / "data"), "SLUICE_EXCHANGE_PORT": str(s.getsockname()[1])}
        done = subprocess.run([sys.executable, "-m", "scripts.demo", "--desk-only"], cwd=ROOT, env=env, capture_output=True, text=True,
                              timeout=60)
    assert done.returncode == 1 and "nothing was started" in done.stderr and "SLUICE_EXCHANGE_PORT" in done.stderr
    assert not (tmp_path / "data").exists()


def test_a_broker_of_ones_own_needs_no_port_here():
    own = load(env={"KAFKA_BOOTSTRAP_SERVERS": "elsewhere:9092"})
    assert not {"kafka.port", "kafka.controller_port"} & set(demo.ports_of(own, desk_only=True))
    assert {"kafka.port", "kafka.controller_port"} <= set(demo.ports_of(load(env={}), desk_only=True))


def test_each_play_of_a_recording_is_an_instance_of_its_own(tmp_path: Path):
    env = {"RECORDING": "standx", "SLUICE_DATA": str(tmp_path)}
    settings, told = demo.configured(env)
    assert (settings.exchange.market, settings.instance, settings.feed) == ("recording", "standx1", "standx1")
    assert told["SLUICE_INSTANCE"] == "standx1"
    (tmp_path / "ledger-standx1.db").touch()
    assert demo.configured(env)[0].instance == "standx2"
    assert demo.configured(env | {"SLUICE_INSTANCE": "mine"})[0].instance == "mine"
    assert demo.configured({"SLUICE_DATA": str(tmp_path)})[0].instance == ""


def test_the_status_line_and_the_report_read_the_real_endpoint():
    exporter = Exporter(["BTCUSDT"])
    stop = exporter.serve(0)
    try:
        url = f"http://127.0.0.1:{stop.port}/metrics"
        before = vitals.look(url)
        assert before.sum(m.FILLS_TOTAL) == 0 and not before.ready(m.STAGES)
        exporter.inc(m.MARKET_EVENTS_TOTAL, 500, symbol="BTCUSDT")
        exporter.inc(m.FILLS_TOTAL, 3, symbol="BTCUSDT", liquidity="maker")
        exporter.inc(m.FILLS_TOTAL, 1, symbol="BTCUSDT", liquidity="taker")
        for service in m.STAGES:
            exporter.set(m.SERVICE_READY, 1, service=service)
        now = vitals.look(url)
    finally:
        stop()
    assert now.ready(m.STAGES) and now.sum(m.FILLS_TOTAL) == 4 and now.sum(m.FILLS_TOTAL, liquidity="taker") == 1
    assert "4 fills" in vitals.line(before, now)
    assert "market events   500; 250/s" in vitals.report(vitals.Look(now.at - 2, before.samples), now)[0]
    assert vitals.reasons(now) == "nothing was dropped"
    assert vitals.scrape(url) == {}
