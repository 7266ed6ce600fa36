"""What the services say of themselves becomes one light each."""
import socket
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dashboard import health
from engine import metrics as m
from store.exporter import Exporter
from tests.console_builders import services

STALE_MS, MAX_LAG = 5000, 1000
MS = st.floats(0.01, 4000)


@pytest.fixture
def port():
    """The first of as many free ports in a row as there are services."""
    for first in range(21_000, 29_000, 17):
        held = []
        try:
            for i in range(len(m.SERVICES)):
                one = socket.socket()
                held.append(one)
                one.bind(("127.0.0.1", first + i))
            return first
        except OSError:
            continue
        finally:
            for one in held:
                one.close()
    pytest.skip("no row of free ports")


def spoken(**levels) -> health.Samples:
    """The samples of an exporter whose gauges stand at these levels, all services ready."""
    exporter = Exporter(["BTCUSDT"])
    for service in m.SERVICES:
        exporter.set(m.SERVICE_READY, 1, service=service)
    exporter.set(m.MARKET_DATA_AGE_MS, levels.get("age", 12), symbol="BTCUSDT")
    exporter.set(m.CONSUMER_LAG_RECORDS, levels.get("lag", 0), service="risk", topic="md.frames")
    exporter.set(m.HALTED, levels.get("halted", 0))
    return health.parse(exporter.text())


def states(samples: health.Samples, answered: bool = True) -> dict[str, str]:
    vitals = health.diagnose(samples, {}, 0, STALE_MS, MAX_LAG, answered)
    return {light.service: light.state for light in vitals.lights}


def test_all_services_ready_is_healthy():
    assert set(states(spoken()).values()) == {health.READY}


def test_old_market_data_makes_the_collector_stale_and_a_lag_its_service_late():
    assert states(spoken(age=STALE_MS + 1))["collector"] == health.STALE
    assert states(spoken(age=STALE_MS))["collector"] == health.READY
    assert states(spoken(lag=MAX_LAG + 1))["risk"] == health.BEHIND
    assert states(spoken(lag=MAX_LAG))["risk"] == health.READY


def test_an_exporter_that_was_just_started_is_not_ready_and_silence_is_down():
    assert set(states(health.parse(Exporter(["BTCUSDT"]).text())).values()) == {health.WAITING}
    assert set(states({}, answered=False).values()) == {health.DOWN}


def test_a_kill_is_seen():
    assert health.diagnose(spoken(halted=1), {}, 0, STALE_MS, MAX_LAG, True).halted


@settings(max_examples=40, deadline=None)
@given(st.lists(MS, min_size=1, max_size=80), st.lists(MS, max_size=40), st.sampled_from((0.5, 0.9, 0.99)))
def test_a_quantile_lies_in_the_bucket_of_the_true_one_and_forgets_what_was_before(new, old, q):
    exporter = Exporter(["BTCUSDT"], [m.STAGE_LATENCY_MS])
    for v in old:
        exporter.observe(m.STAGE_LATENCY_MS, v, service="risk")
    before = health.parse(exporter.text())
    for v in new:
        exporter.observe(m.STAGE_LATENCY_MS, v, service="risk")
    got = health.quantile(q, health.parse(exporter.text()), before, "stage_latency_ms", service="risk")
    true = np.quantile(new, q, method="inverted_cdf")
    bounds = np.array([0, *m.MS])
    high = bounds[np.searchsorted(bounds, true)]
    assert bounds[np.searchsorted(bounds, true) - 1] <= got <= high
    assert health.quantile(q, before, before, "stage_latency_ms", service="risk") is None


def test_of_several_processes_counters_add_up_and_the_one_that_moved_a_gauge_counts():
    one, two = Exporter(["BTCUSDT"]), Exporter(["BTCUSDT"])
    one.set(m.REALIZED_PNL_USD, -12.5)
    one.inc(m.FILLS_TOTAL, 3, symbol="BTCUSDT", liquidity="maker")
    two.inc(m.FILLS_TOTAL, 4, symbol="BTCUSDT", liquidity="maker")
    both = health.merge(health.parse(e.text()) for e in (one, two))
    assert health.values(both, m.REALIZED_PNL_USD) == [-12.5]
    assert health.values(both, m.FILLS_TOTAL, liquidity="maker") == [7]


def test_a_phantom_label_is_an_error_not_an_empty_light():
    with pytest.raises(LookupError):
        health.values(spoken(), m.SERVICE_READY, service="nobody")


def test_real_endpoints_are_read_rates_come_from_two_looks_and_their_end_is_noticed(port):
    scraper = health.Scraper("127.0.0.1", port)
    assert not scraper.look(STALE_MS, MAX_LAG).answered
    beat, stop = services(port)
    try:
        first = scraper.look(STALE_MS, MAX_LAG)
        assert first.answered and not first.sick() and first.events_per_s is None
        time.sleep(0.05)
        beat()
        second = scraper.look(STALE_MS, MAX_LAG)
        assert second.events_per_s > 0 and second.lights[-1].p99_ms > second.lights[-1].p50_ms > 0
        assert second.tick_to_order_p99_ms > 0 and second.exposure_usd == 143.2
    finally:
        stop()
    last = scraper.look(STALE_MS, MAX_LAG)
    assert not last.answered and last.events_per_s is None


def test_something_else_on_the_port_is_no_metrics(port):
    import threading
    with socket.create_server(("127.0.0.1", port)) as server:
        threading.Thread(target=lambda: server.accept()[0].sendall(b"SSH-2.0-x\r\n"), daemon=True).start()
        assert health.fetch(f"http://127.0.0.1:{port}/metrics") is None
