"""A worker's share of a stage: partitions come and go, and with each its marks and state, kept in a compacted topic.

Workers of one stage are a Kafka group. Who gives a partition up waits for the broker's acknowledgements, commits, and writes the
partition's state; who gets it reads the last state and goes on behind its marks. A worker that died has written its state a moment
before: the next one repeats that moment byte for byte, and who reads behind it passes over what it knows. A worker that was taken
for dead and is not cannot commit, and so does not write over the state of its successor.
"""
import asyncio
import logging
import os
import socket
import time
from collections.abc import Awaitable, Callable, Iterable
from typing import Any, Protocol

import msgspec
from aiokafka import AIOKafkaConsumer, ConsumerRebalanceListener, TopicPartition
from aiokafka.errors import CommitFailedError, IllegalStateError, NoOffsetForPartitionError
from aiokafka.structs import OffsetAndMetadata

from engine import metrics as m
from store.state import Failures, Kept
from streams.stage import Handled, Stateful
from streams.topics import Topic, group, named
from streams.worker import FRAME_BYTES, Worker, client_options, fetched

log = logging.getLogger("sluice")
EVERY_S = 2.0         # so much is repeated after a worker's death, at most
PATIENCE_S = 5.0      # for the group to answer


class Moved(RuntimeError):
    """A record came that was not the next one."""


class State(Protocol):
    """What a stage remembers of a partition."""

    def parts(self, partition: int | None = None) -> dict[str, bytes]:
        """Its blobs, of a partition or all."""

    def restore(self, parts: dict[str, bytes], partition: int = 0) -> None:
        """Continues from them."""

    def forget(self, partition: int) -> None:
        """The partition is another worker's."""


class Nothing:
    """A stage that remembers nothing."""

    def parts(self, partition: int | None = None) -> dict[str, bytes]:
        return {}

    def restore(self, parts: dict[str, bytes], partition: int = 0) -> None:
        pass

    def forget(self, partition: int) -> None:
        pass


def staged(worker: Worker, handle: Callable[..., Awaitable[None]], topic: Topic, state: State | None = None) -> Handled:
    """The worker's stage: its share with its state in `topic` where `scale.shared` is set, else all with its state in a file."""
    state = state or Nothing()
    if worker.settings.scale.shared:
        return Share(worker, handle, topic, state)
    return Stateful(worker, handle, state.parts, state.restore)


class Share(Handled, ConsumerRebalanceListener):
    """The partitions that are this worker's at the moment."""

    def __init__(self, worker: Worker, handle: Callable[..., Awaitable[None]], topic: Topic, state: State):
        super().__init__(worker, handle)
        self.topic, self.state = named(topic, worker.settings), state
        self.due: dict[TopicPartition, int] = {}       # the next record to come of each partition that is ours
        self.saved: dict[TopicPartition, int] = {}
        self.saved_at = time.monotonic()
        self.turn = asyncio.Lock()                     # a record, or a change of hands
        self.reader: AIOKafkaConsumer | None = None
        worker.share = self

    def options(self) -> dict:
        """Our place in the group; a worker with a lasting name keeps it over a restart."""
        scale, worker = self.worker.settings.scale, self.worker
        return {"group_id": group(worker.name, worker.settings), "group_instance_id": scale.member or None,
                "client_id": scale.member or f"{worker.name}-{socket.gethostname()}-{os.getpid()}",
                "session_timeout_ms": scale.session_ms, "heartbeat_interval_ms": scale.session_ms // 5, "rebalance_timeout_ms": 30_000}

    async def join(self, reader: AIOKafkaConsumer) -> None:
        """Asks for partitions of the topic."""
        assert self.worker.producer is not None
        [topic] = [named(t, self.worker.settings) for t in self.worker.reads]      # a partition's state is of one topic
        read, kept = [len(await self.worker.producer.partitions_for(t)) for t in (topic, self.topic)]
        if kept < read:
            raise ConnectionError(f"{self.topic} has {kept} partitions, {topic} has {read}: their states have no room "
                                  "(docs/operations.md, Repartitioning)")
        self.reader = reader
        reader.subscribe([topic], listener=self)

    async def fetch(self, reader: AIOKafkaConsumer) -> list:
        """Records of the partitions that are ours, each the next one of its partition; else `Moved`."""
        try:
            records = await fetched(reader)
        except NoOffsetForPartitionError:      # asked before the listener has sought; it will
            return []
        ours = []
        for record in records:
            tp = TopicPartition(record.topic, record.partition)
            if tp not in self.due:
                continue
            if record.offset != self.due[tp]:
                raise Moved(f"{tp.topic}/{tp.partition}: record {self.due[tp]} was due, {record.offset} came")
            self.due[tp] += 1
            ours.append(record)
        return ours

    async def on_record(self, record: Any) -> None:
        """One record where it is the next to be done; what was read before its partition changed hands is not, or comes again."""
        tp = TopicPartition(record.topic, record.partition)
        async with self.turn:
            if record.offset == self.worker.done.get(tp):
                await super().on_record(record)
                self.worker.done[tp] = record.offset + 1

    def failures(self, record) -> Failures:
        return Failures(self.worker.settings.folder("data"), f"{self.worker.instance}{self.worker.name}.{record.partition}")

    # partitions come and go

    async def on_partitions_revoked(self, revoked: Iterable[TopicPartition]) -> None:
        """Saves what is done and forgets it; what was read and not done is the next one's."""
        self.due.clear()
        self.worker.ends = None
        try:
            async with self.turn:
                self.worker.done.clear()
                await self.save()
                for tp in revoked:
                    self.state.forget(tp.partition)
                self.kept.clear()
                self.saved.clear()
        except Exception as error:
            self.worker.crash(error)
        service, topic = self.worker.name, named(self.worker.reads[0], self.worker.settings)
        self.worker.exporter.set(m.PARTITIONS_READ, 0, service=service)
        self.worker.exporter.set(m.CONSUMER_LAG_RECORDS, 0, service=service, topic=topic)

    async def on_partitions_assigned(self, assigned: Iterable[TopicPartition]) -> None:
        """Goes on behind what was last saved of each partition."""
        assert self.reader is not None
        began, ours = time.monotonic(), sorted(assigned)
        try:
            async with self.turn:
                for tp, kept in (await self.load(ours)).items():
                    self.kept |= {(epoch, topic, partition): offset for epoch, topic, partition, offset in kept.marks}
                    self.state.restore(kept.parts, tp.partition)
                first, last = await self.reader.beginning_offsets(ours), await self.reader.end_offsets(ours)
                for tp, due in self.worker.begin({tp: (first[tp], last[tp]) for tp in ours}).items():
                    self.reader.seek(tp, due)
                    self.due[tp] = due
        except Exception as error:
            self.worker.crash(error)
            return
        self.worker.exporter.inc(m.REBALANCES_TOTAL, service=self.worker.name)
        self.worker.exporter.set(m.PARTITIONS_READ, len(ours), service=self.worker.name)
        log.info("%s: %s, after %.0f ms", self.worker.name, ", ".join(f"partition {tp.partition} from {self.due[tp]}" for tp in ours)
                 or "no partition: a stand-by", (time.monotonic() - began) * 1000)

    # their state

    @property
    def time_to_save(self) -> bool:
        return time.monotonic() - self.saved_at >= EVERY_S

    async def save(self) -> None:
        """Each partition's marks and state where it moved: behind the acknowledgements, and only while the group knows us."""
        assert self.reader is not None and self.worker.producer is not None
        self.saved_at = time.monotonic()
        moved = {TopicPartition(topic, partition): Kept([(epoch, topic, partition, offset)], self.state.parts(partition))
                 for (epoch, topic, partition), offset in self.kept.items()
                 if epoch == self.worker.epochs[topic] and self.saved.get(TopicPartition(topic, partition)) != offset}
        await self.settle()
        if not moved:
            return
        offsets = {tp: kept.marks[0][3] for tp, kept in moved.items()}
        try:
            await asyncio.wait_for(self.reader.commit({tp: OffsetAndMetadata(at + 1, "") for tp, at in offsets.items()}), PATIENCE_S)
        except (CommitFailedError, IllegalStateError, TimeoutError) as error:
            log.warning("%s: not saved, the partitions are being dealt out anew (%s)", self.worker.name, type(error).__name__)
            return
        acknowledged = [await self.worker.producer.send(self.topic, msgspec.msgpack.encode(kept), key=f"{tp.topic}/{tp.partition}".encode(),
                                                        partition=tp.partition) for tp, kept in moved.items()]
        await asyncio.gather(*acknowledged)
        self.saved |= offsets

    async def load(self, partitions: list[TopicPartition]) -> dict[TopicPartition, Kept]:
        """The last state of each partition that has one."""
        if not partitions:
            return {}
        client = AIOKafkaConsumer(group_id=None, enable_auto_commit=False, auto_offset_reset="none", fetch_max_wait_ms=50,
                                  max_partition_fetch_bytes=FRAME_BYTES, request_timeout_ms=10_000, **client_options(self.worker.settings))
        await client.start()
        try:
            homes = {TopicPartition(self.topic, tp.partition): tp for tp in partitions}
            first, last = await client.beginning_offsets(list(homes)), await client.end_offsets(list(homes))
            due = [at for at in homes if last[at] > first[at]]
            client.assign(due)         # not before the offsets are known: nothing may be fetched without one
            for at in due:
                client.seek(at, last[at] - 1)
            found: dict[TopicPartition, Kept] = {}
            while len(found) < len(due):
                record = await asyncio.wait_for(client.getone(), PATIENCE_S)
                found[homes[TopicPartition(record.topic, record.partition)]] = msgspec.msgpack.decode(record.value, type=Kept)
            return found
        finally:
            await client.stop()
