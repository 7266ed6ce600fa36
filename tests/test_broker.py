"""The broker on this machine and the bus: real processes, real sockets."""
import signal
import socket
import threading
import time
from pathlib import Path

import psutil
import pytest
from kafka.admin import ConfigResource

from config.settings import Settings, load
from store import bus
from streams import admin, jars
from streams import broker as brokers
from streams.topics import MD_FRAMES, TOPICS, named
from tests.fixtures_kafka import pointed_at


def test_the_lock_names_every_jar_by_coordinate_and_hash():
    found = jars.locked()
    assert len(found) == 46
    assert {j.version for j in found if j.group == "org.apache.kafka"} == {"4.3.1"}
    assert len({j.name for j in found}) == 46


def test_a_lock_line_that_is_none_is_refused_with_its_number(tmp_path: Path):
    (tmp_path / "lock").write_text("a:b:1 " + "0" * 64 + "\na:b 12\n")
    with pytest.raises(jars.JarsMissing, match=r"lock: line 2: 'group:artifact:version sha256' was expected, not 'a:b 12'"):
        jars.locked(tmp_path / "lock")


def test_jars_that_are_there_are_kept_and_a_foreign_one_is_told_by_its_bytes(tmp_path: Path):
    (tmp_path / "b-1.jar").write_bytes(b"bytes")
    good = jars.Jar("a", "b", "1", jars.digest(tmp_path / "b-1.jar"))
    (tmp_path / "lock").write_text(f"{good.group}:{good.artifact}:{good.version} {good.sha256}\n")
    assert jars.ensure(tmp_path, tmp_path / "lock") == [tmp_path / "b-1.jar"]
    (tmp_path / "b-1.jar").write_bytes(b"other bytes")
    assert jars.digest(tmp_path / "b-1.jar") != good.sha256


def test_offline_the_error_counts_what_is_missing_and_names_the_ways_out(tmp_path: Path, monkeypatch):
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:9")   # nobody listens at the discard port
    monkeypatch.setattr(jars, "TRIES", 1)
    (tmp_path / "lock").write_text("org.example:nothing:1 " + "0" * 64 + "\n")
    with pytest.raises(jars.JarsMissing) as caught:
        jars.ensure(tmp_path / "jars", tmp_path / "lock", say=lambda text: None)
    text = str(caught.value)
    assert "1 of 1 jars could not be had; the first: org.example:nothing:1" in text
    assert "HTTPS_PROXY" in text and "KAFKA_BOOTSTRAP_SERVERS" in text
    assert not list((tmp_path / "jars").glob("*.jar"))


def test_a_taken_port_is_named_with_the_key_that_moves_it():
    with socket.socket() as taken:
        taken.bind((brokers.HOST, 0))
        taken.listen()
        port = taken.getsockname()[1]
        [fault] = brokers.busy_ports(port, brokers.free_port())
    assert f"127.0.0.1:{port}" in fault and "kafka.port (SLUICE_KAFKA_PORT)" in fault


def test_a_dead_broker_is_an_error_within_seconds_that_names_address_and_setting_and_no_secret():
    secret = "hunter2hunter2"
    settings = load(env={"KAFKA_BOOTSTRAP_SERVERS": f"127.0.0.1:{brokers.free_port()}", "KAFKA_SECURITY_PROTOCOL": "SASL_PLAINTEXT",
                         "KAFKA_SASL_MECHANISM": "PLAIN", "KAFKA_SASL_USERNAME": "desk", "KAFKA_SASL_PASSWORD": secret})
    began = time.monotonic()
    with pytest.raises(bus.BusDown) as caught:
        bus.epochs(settings, ["a"])
    assert time.monotonic() - began < 3 * bus.PATIENCE_MS / 1000
    assert settings.kafka.bootstrap in str(caught.value) and "KAFKA_BOOTSTRAP_SERVERS" in str(caught.value)
    assert secret not in str(caught.value)


def test_tls_and_sasl_reach_the_client_as_they_are_set(tmp_path: Path):
    ca = tmp_path / "ca.pem"
    got = bus.options(load(env={"KAFKA_BOOTSTRAP_SERVERS": "a:1,b:2", "KAFKA_SECURITY_PROTOCOL": "SASL_SSL", "KAFKA_SSL_CAFILE": str(ca),
                                "KAFKA_SASL_MECHANISM": "SCRAM-SHA-512", "KAFKA_SASL_USERNAME": "desk", "KAFKA_SASL_PASSWORD": "x"}).kafka)
    assert got["bootstrap_servers"] == ["a:1", "b:2"] and got["security_protocol"] == "SASL_SSL" and got["ssl_cafile"] == str(ca)
    assert (got["sasl_mechanism"], got["sasl_plain_username"], got["sasl_plain_password"]) == ("SCRAM-SHA-512", "desk", "x")


@pytest.mark.broker
@pytest.mark.xdist_group("kafka")
class TestOnABroker:
    """What needs a running one."""

    def test_topics_are_made_once_with_the_retention_of_the_settings(self, on_kafka: Settings):
        assert set(admin.ensure(on_kafka)) == {named(t, on_kafka) for t in TOPICS}
        assert admin.ensure(on_kafka) == []
        assert set(bus.ends(on_kafka, admin.names(on_kafka)).values()) == {(0, 0)}
        with bus.admin(on_kafka.kafka) as client:
            told = client.describe_configs([ConfigResource("TOPIC", named(MD_FRAMES, on_kafka))])
        [[configs]] = [list(by_name.values()) for by_name in told.values()]
        assert int(configs["retention.bytes"]["value"]) == on_kafka.kafka.retention_bytes
        assert configs["message.timestamp.type"]["value"] == "LogAppendTime", "retention goes by the broker's clock alone"

    def test_a_topic_made_anew_is_another_log(self, on_kafka: Settings):
        name = f"{on_kafka.instance}.log"
        bus.ensure_topics(on_kafka, [name])
        first = bus.epochs(on_kafka, [name, "nobody.made.this"])
        assert set(first) == {name} and bus.epochs(on_kafka, [name]) == first
        with bus.admin(on_kafka.kafka) as client:
            client.delete_topics([name])
        until = time.monotonic() + 10
        while name in bus.epochs(on_kafka, [name]) and time.monotonic() < until:
            time.sleep(0.05)
        bus.ensure_topics(on_kafka, [name])
        again = bus.epochs(on_kafka, [name])
        assert again[name] != first[name] and again[name].split("/")[0] == first[name].split("/")[0]

    def test_what_was_published_is_read_back_in_order_and_the_lag_counts_the_rest(self, on_kafka: Settings):
        name = f"{on_kafka.instance}.read"
        bus.ensure_topics(on_kafka, [name])
        assert list(bus.read(on_kafka, name)) == []
        with bus.Publisher(on_kafka) as out:
            assert out.send(name, b"0", "BTCUSDT") == (0, 0)
            assert out.send_all(name, [("", str(i).encode()) for i in range(1, 300)]) == 299
        records = list(bus.read(on_kafka, name))
        assert [int(r.value) for r in records] == [r.offset for r in records] == list(range(300))
        assert records[0].key == b"BTCUSDT" and records[1].key is None
        assert [r.offset for r in bus.read(on_kafka, name, 10, 13)] == [10, 11, 12]
        assert bus.lag(on_kafka, {(name, 0): 9}) == {(name, 0): 290}
        assert bus.lag(on_kafka, {(name, 0): -1}) == {(name, 0): 300}

    def test_a_read_waits_for_what_is_due_and_says_what_did_not_come(self, on_kafka: Settings):
        name = f"{on_kafka.instance}.due"
        bus.ensure_topics(on_kafka, [name])
        with bus.Publisher(on_kafka) as out:
            out.send(name, b"0")
            later = threading.Timer(0.3, out.send, (name, b"1"))
            later.start()
            assert [r.value for r in bus.read(on_kafka, name, 0, 2)] == [b"0", b"1"]
            later.join()
        with pytest.raises(bus.Overdue, match=rf"{name}/0: nothing after offset 1 for 1 s, 3 was due"):
            list(bus.read(on_kafka, name, 0, 3, wait_s=1))


@pytest.mark.broker
@pytest.mark.xdist_group("kafka")
def test_killed_and_started_again_it_has_all_that_was_acknowledged_and_is_the_same_log(tmp_path: Path):
    settings = load(env={})
    first = brokers.start(tmp_path, settings.kafka)
    there = pointed_at(settings, first.address)
    bus.ensure_topics(there, ["kept"])
    with bus.Publisher(there) as out:
        out.send_all("kept", [("", b"x")] * 100)
    epoch = bus.epochs(there, ["kept"])
    first.kill()
    assert first.process.returncode == -signal.SIGKILL
    with pytest.raises(bus.BusDown):
        bus.epochs(there, ["kept"])
    with brokers.start(tmp_path, settings.kafka, port=first.port) as again:
        assert bus.epochs(there, ["kept"]) == epoch
        assert sum(1 for _ in bus.read(there, "kept")) == 100
        rival = brokers.busy_ports(again.port, again.controller_port)
        assert len(rival) == 2
        pid = again.pid
    assert not psutil.pid_exists(pid)


@pytest.mark.broker
@pytest.mark.xdist_group("kafka")
def test_a_broker_that_cannot_start_says_why(tmp_path: Path):
    (tmp_path / "log").mkdir()
    (tmp_path / "log" / "meta.properties").write_text("version=1\ncluster.id=x\nnode.id=7\n")   # another node's folder
    with pytest.raises(brokers.BrokerFailed, match=r"(?s)kafka ended with 1 before it listened.*node"):
        brokers.start(tmp_path, load(env={}).kafka)
