"""Firing alerts become CRITs: which, how often, and by way of a real Prometheus up to a real desk's mode."""
import asyncio
import shutil
import socket
import subprocess

import msgspec
import pytest
from builders import SYMBOL, market, shipped
from hypothesis import given
from hypothesis import strategies as st
from services import Services, at, until
from test_controls import ordered

from alerts.catalogue import catalogue
from engine.facts import CRIT
from engine.state import FULL, PAPER
from scripts import crit, kill
from store import controls
from streams.alarms import Unread, crits, firing, pace
from streams.codec import encode
from streams.topics import CONTROL_EVENTS, MD_FRAMES

RULES = shipped().fail_safe
SINCE = 1_700_000_000
FIRES = {"labels": {"alertname": "UnknownOrders", "severity": "critical"}, "annotations": {"summary": "3 orders\nwere sent"},
         "state": "firing", "activeAt": "2023-11-14T22:13:20.123456789Z"}


def test_an_alert_of_the_list_is_a_crit_and_another_is_none():
    other = FIRES | {"labels": {"alertname": "ConsumerLag"}}
    [control] = crits([other, FIRES, FIRES], RULES, SINCE + 1)
    assert (control.kind, control.actor, control.reason) == (CRIT, "prometheus", "UnknownOrders: 3 orders were sent")
    assert control.id == f"crit-UnknownOrders-{SINCE}-0"


@given(st.floats(0, 1e6), st.floats(0, 1e6), st.sampled_from([0.0, 0.5, 1.0, 15.0, 240.0]), st.sampled_from([0.5, 1.0, 60.0, 1e9]))
def test_while_it_fires_the_fail_safe_is_prolonged_before_it_ends_and_told_no_oftener_than_needed(a, b, minutes, speed):
    rules = msgspec.structs.replace(RULES, cooldown_minutes=minutes)
    first, last = sorted((a, b))
    ids = [crits([FIRES], rules, SINCE + t, speed)[0].id for t in (first, last)]
    every_s = max(RULES.poll_ms / 1000, minutes * 60 / 3 / speed)
    if last - first >= every_s:
        assert ids[0] != ids[1], "said anew"
    if ids[0] == ids[1]:
        assert last - first <= every_s * 1.0001, "the same only within a third of the cooldown"


def test_market_time_passes_at_the_local_exchanges_speed_and_at_a_venue_as_the_clock_does():
    but, s = msgspec.structs.replace, shipped(SPEED="60")
    assert pace(s) == 60 and pace(shipped(SPEED="max")) > 1e6
    assert pace(but(s, venue=but(s.venue, venue="bybit_v5"))) == 1


def test_every_alert_that_calls_for_the_fail_safe_exists_and_is_critical():
    severities = {a.name: a.severity for a in catalogue(shipped())}
    assert {severities.get(name) for name in RULES.alerts} == {"critical"}


@pytest.mark.parametrize("url, said", [("http://127.0.0.1:9", "127.0.0.1:9/api/v1/alerts"), ("file:///etc", "an http address was expected"),
                                       ("nonsense", "an http address was expected")])
def test_who_does_not_answer_is_named(url, said):
    with pytest.raises(Unread, match=said):
        firing(url)


@pytest.fixture(scope="module")
def prometheus(tmp_path_factory):
    """A real one in which the alert `UnknownOrders` fires."""
    if not shutil.which("prometheus"):
        pytest.skip("prometheus is not installed (Debian package prometheus)")
    folder = tmp_path_factory.mktemp("alarms")
    (folder / "prometheus.yml").write_text("global: {evaluation_interval: 200ms}\nrule_files: [rules.yml]\n")
    (folder / "rules.yml").write_text("groups: [{name: g, rules: [{alert: UnknownOrders, expr: vector(1) > 0, "
                                      "annotations: {summary: three orders}}, {alert: ConsumerLag, expr: vector(1) > 0}]}]\n")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(["prometheus", "--config.file=prometheus.yml", "--storage.tsdb.path=data",
                                    f"--web.listen-address=127.0.0.1:{port}"], cwd=folder, stdout=log, stderr=log)
    yield f"http://127.0.0.1:{port}"
    process.terminate()
    process.wait(20)


@pytest.mark.broker
def test_a_firing_alert_sends_a_real_desk_to_paper_and_a_person_does_too_but_nothing_does_while_a_kill_stands(
        on_kafka, prometheus, monkeypatch, capsys):
    but = msgspec.structs.replace
    settings = at(on_kafka, symbols=[SYMBOL])
    settings = but(settings, venue=but(settings.venue, mode="real"), rollout=but(settings.rollout, mode=FULL),
                   fail_safe=but(settings.fail_safe, prometheus_url=prometheus, poll_ms=100))
    monkeypatch.setenv("SLUICE_DATA", str(settings.folder("data")))
    monkeypatch.setenv("SLUICE_INSTANCE", settings.instance)
    monkeypatch.setenv("KAFKA_BOOTSTRAP_SERVERS", settings.kafka.bootstrap)

    async def story() -> None:
        async with Services(settings) as services:
            await services.start("risk")
            await services.tell(MD_FRAMES, (SYMBOL, encode(market(50))))
            desk = services.workers["risk"].stage.host.desk
            await until(lambda: desk.state.touches)
            assert desk.state.safe.mode(desk.state.mode) == FULL
            status, out, _ = await ordered(capsys, crit, "--reason", "venue answers slowly")
            assert status == 0 and "in the desk's ledger; nothing halts it" in out
            assert (desk.state.safe.mode(desk.state.mode), desk.state.safe.reason) == (PAPER, "venue answers slowly")
            await services.start("supervisor")
            await until(lambda: any(name.startswith("crit-UnknownOrders-") for name in desk.state.controls))
            await services.stop("supervisor")
            await services.start("supervisor")
            await asyncio.sleep(1)
            told = [c for c in await services.said(CONTROL_EVENTS) if c.actor == "prometheus"]
            assert {c.reason for c in told} == {"UnknownOrders: three orders"}
            assert len({c.id for c in told}) == 1 < len(told), "a restart says it again under the same id"
            await ordered(capsys, kill, "--reason", "stop")
            before = desk.state.safe.until_ms
            await ordered(capsys, crit, "--reason", "worse")
            assert desk.state.safe.until_ms == before and desk.state.kills
            await until(lambda: not list(controls.folder(settings).glob("*.json")))

    asyncio.run(story())
