"""Kafka for whoever is no stream worker: topics, epochs, lag, publishing and reading, with kafka-python.

Everything here answers within seconds or fails within seconds: a broker that is not there is a `BusDown` that names the
address and the setting it came from. Addresses, TLS and SASL come from the settings; secrets are in no message.
"""
import contextlib
import logging
import time
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from kafka import KafkaAdminClient, KafkaConsumer, KafkaProducer, TopicPartition
from kafka.errors import CoordinatorNotAvailableError, KafkaError, TopicAlreadyExistsError

from config.settings import Kafka, Settings
from config.where import said

PATIENCE_MS = 5000        # until a broker that does not answer is an error
RECORD_BYTES = 8 << 20    # a frame of a full book is far below this
logging.getLogger("kafka").setLevel(logging.CRITICAL)   # what it logs comes back as an exception here


class BusDown(ConnectionError):
    """The broker does not answer, or refused; names address and setting."""


class Overdue(RuntimeError):
    """A record that was due did not come."""


@dataclass(frozen=True)
class Record:
    """One record as it stands in the log; `ts_ms` is the wall clock of its writing."""
    topic: str
    partition: int
    offset: int
    ts_ms: int
    key: bytes | None
    value: bytes


def partition_of(key: str, partitions: int) -> int:
    """Where a key's records lie: the same for every producer, whatever its client library, and for every Python.

    >>> partition_of("BTCUSDT", 2), partition_of("ETHUSDT", 2), partition_of("BTCUSDT", 1)
    (1, 0, 0)
    """
    return zlib.crc32(key.encode()) % partitions


def address(kafka: Kafka) -> str:
    """The configured broker, or the one on this machine."""
    return kafka.bootstrap or f"127.0.0.1:{kafka.port}"


def options(kafka: Kafka) -> dict[str, Any]:
    """kafka-python's connection options: address, TLS and SASL."""
    out: dict[str, Any] = {"bootstrap_servers": address(kafka).split(","), "security_protocol": kafka.security_protocol,
                           "bootstrap_timeout_ms": PATIENCE_MS, "request_timeout_ms": PATIENCE_MS}
    if kafka.sasl_mechanism:
        out |= {"sasl_mechanism": kafka.sasl_mechanism, "sasl_plain_username": kafka.sasl_username,
                "sasl_plain_password": kafka.sasl_password}
    if kafka.ssl_cafile:
        out["ssl_cafile"] = kafka.ssl_cafile
    return out


def down(kafka: Kafka, error: BaseException) -> BusDown:
    """The error in the operator's words."""
    key = "kafka.bootstrap" if kafka.bootstrap else "kafka.port"
    why = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
    if kafka.sasl_password:
        why = why.replace(kafka.sasl_password, "***")
    return BusDown(f"{key}: no answer from the broker at {address(kafka)} ({why}); is it running? the address is {said(key)}")


@contextlib.contextmanager
def answered(kafka: Kafka) -> Iterator[None]:
    """What the client library raises inside becomes `BusDown`."""
    try:
        yield
    except BusDown:
        raise
    except (KafkaError, OSError) as error:
        raise down(kafka, error) from None


@contextlib.contextmanager
def admin(kafka: Kafka) -> Iterator[KafkaAdminClient]:
    """An admin client for the block."""
    with answered(kafka):
        client = KafkaAdminClient(**options(kafka))
        try:
            yield client
        finally:
            client.close()


def ensure_topics(settings: Settings, names: Sequence[str], configs: Mapping[str, Mapping[str, object]] | None = None,
                  wait_s: float = 10, whole: Sequence[str] = ()) -> list[str]:
    """Makes the topics that are not there, waits until each has a leader for every partition; returns those it made.

    Partitions (one for those in `whole`), replication and retention are the settings'; `configs` adds to a topic's own. An
    existing topic is left as it is. Raises `BusDown`.
    """
    k = settings.kafka
    # a record is as old as its place in the log says, not as a producer's clock does: retention deletes by it
    base = {"message.timestamp.type": "LogAppendTime", "retention.ms": k.retention_ms, "retention.bytes": k.retention_bytes,
            "segment.bytes": k.segment_bytes, "max.message.bytes": RECORD_BYTES, "min.insync.replicas": k.min_insync}
    with admin(k) as client:
        missing = sorted(set(names) - set(client.list_topics()))
        if missing:
            wanted = {name: {"num_partitions": 1 if name in whole else k.partitions, "replication_factor": k.replication,
                             "configs": {a: str(b) for a, b in (base | dict((configs or {}).get(name, {}))).items()}} for name in missing}
            try:
                client.create_topics(wanted)
            except TopicAlreadyExistsError:   # somebody else made one of them meanwhile: the rest one by one
                for name, topic in wanted.items():
                    with contextlib.suppress(TopicAlreadyExistsError):
                        client.create_topics({name: topic})
        client.wait_for_topics(list(names), timeout_ms=int(wait_s * 1000))
    return missing


def epochs(settings: Settings, topics: Sequence[str]) -> dict[str, str]:
    """Which log each topic is: cluster id and topic id. Another log under the same name has another epoch.

    Topics that are not there are left out. Raises `BusDown`.
    """
    with admin(settings.kafka) as client:
        cluster = client.describe_cluster()["cluster_id"]
        there = set(client.list_topics()) & set(topics)
        described = client.describe_topics(sorted(there)) if there else []
    return {t["name"]: f"{cluster}/{t['topic_id']}" for t in described}


def members(settings: Settings, group: str) -> dict[str, list[tuple[str, int]]]:
    """Who shares the group's topics: each client with the (topic, partition)s that it has now. Raises `BusDown`."""
    with admin(settings.kafka) as client:
        try:
            [found] = client.describe_groups([group]).values()
        except CoordinatorNotAvailableError:      # a broker that never had a group has nobody for them yet
            return {}
    return {f"{one['client_id']}@{one['client_host'].strip('/')}":
            sorted((t["topic"], p) for t in (one["member_assignment"] or {}).get("assigned_partitions", []) for p in t["partitions"])
            for one in found["members"]}


@contextlib.contextmanager
def consumer(kafka: Kafka, **more: Any) -> Iterator[KafkaConsumer]:
    """A consumer without a group, for the block."""
    with answered(kafka):
        client = KafkaConsumer(**options(kafka), group_id=None, enable_auto_commit=False, max_partition_fetch_bytes=RECORD_BYTES, **more)
        try:
            yield client
        finally:
            client.close()


def partitions(client: KafkaConsumer, topics: Iterable[str]) -> list[TopicPartition]:
    """All partitions of the topics that are there."""
    return [TopicPartition(t, p) for t in topics for p in sorted(client.partitions_for_topic(t) or ())]


def ends(settings: Settings, topics: Sequence[str]) -> dict[tuple[str, int], tuple[int, int]]:
    """(first offset, next offset) of every partition of the topics. Raises `BusDown`."""
    with consumer(settings.kafka) as client:
        tps = partitions(client, topics)
        first, last = client.beginning_offsets(tps), client.end_offsets(tps)
    return {(tp.topic, tp.partition): (first[tp], last[tp]) for tp in tps}


def lag(settings: Settings, marks: Mapping[tuple[str, int], int]) -> dict[tuple[str, int], int]:
    """Records behind the last offset done (-1: none yet), for each (topic, partition). Raises `BusDown`."""
    at = ends(settings, sorted({topic for topic, _ in marks}))
    return {tp: max(0, at[tp][1] - (done + 1)) for tp, done in marks.items() if tp in at}


def read(settings: Settings, topic: str, from_: int = 0, upto: int | None = None, partition: int = 0,
         wait_s: float = 10) -> Iterator[Record]:
    """The records [from_, upto) of one partition in order, up to the present end unless told; then it ends.

    A `from_` before the first kept record begins at that one. Raises `BusDown`; `Overdue` where nothing comes for `wait_s`.
    """
    with consumer(settings.kafka, auto_offset_reset="none") as client:
        tp = TopicPartition(topic, partition)
        first, end = client.beginning_offsets([tp])[tp], client.end_offsets([tp])[tp]
        at, upto = max(from_, first), end if upto is None else upto
        if at >= upto:
            return
        client.assign([tp])
        client.seek(tp, at)
        until = time.monotonic() + wait_s
        while at < upto:
            got = client.poll(500).get(tp, [])
            if got:
                until = time.monotonic() + wait_s
            elif client.position(tp) >= upto:   # markers of transactions stand at the end
                return
            elif time.monotonic() > until:
                raise Overdue(f"{topic}/{partition}: nothing after offset {at - 1} for {wait_s:.0f} s, {upto} was due")
            for r in got:
                if r.offset >= upto:
                    return
                at = r.offset + 1
                yield Record(topic, partition, r.offset, r.timestamp, r.key, r.value)


class Publisher:
    """Sends records and knows that they arrived (`acks=all`). Use it as a context, or close it."""

    def __init__(self, settings: Settings):
        self.kafka = settings.kafka
        with answered(self.kafka):
            self.client = KafkaProducer(**options(self.kafka), acks="all", max_request_size=RECORD_BYTES,
                                        delivery_timeout_ms=2 * PATIENCE_MS, max_block_ms=PATIENCE_MS)

    def _send(self, topic: str, value: bytes, key: str):
        """Hands one record over; one with a key to the key's partition."""
        partition = partition_of(key, len(self.client.partitions_for(topic))) if key else None
        return self.client.send(topic, value, key=key.encode() or None, partition=partition)

    def send(self, topic: str, value: bytes, key: str = "") -> tuple[int, int]:
        """One record, acknowledged; its (partition, offset). Raises `BusDown`."""
        with answered(self.kafka):
            done = self._send(topic, value, key).get(2 * PATIENCE_MS / 1000)
        return done.partition, done.offset

    def send_all(self, topic: str, records: Iterable[tuple[str, bytes]]) -> int:
        """Many (key, value) in their order, all acknowledged when this returns; how many. Raises `BusDown`."""
        with answered(self.kafka):
            waiting = [self._send(topic, value, key) for key, value in records]
            for one in waiting:
                one.get(2 * PATIENCE_MS / 1000)
        return len(waiting)

    def close(self) -> None:
        """Ends the connection."""
        self.client.close(timeout=2)

    def __enter__(self) -> "Publisher":
        return self

    def __exit__(self, *_) -> None:
        self.close()
