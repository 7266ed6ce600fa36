"""One Faust app a service: its stage is an agent on a bounded channel, filled by a reader of our own from our own marks.

Faust opens no consumer itself (no group, no rebalance, no hidden 1.5 s fetch wait): an `@app.service` reads assigned partitions
with aiokafka and puts what waits into the channel, which pushes back when full. An exception in the stage ends the process
and the restart reads the record again. Marks are kept by log epoch (cluster id + topic id): a log that came back as another one
is counted and read from its start, never taken for "already seen"; a hole is counted too. One idle connection to the broker
tells when its process has ended.
"""
import asyncio
import gc
import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

import faust
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.helpers import create_ssl_context
from faust.app.base import BootStrategy
from mode import Service
from mode.supervisors import CrashingSupervisor

from config.settings import Settings
from engine import metrics as m
from store import bus
from store.database import LedgerError
from store.exporter import Exporter
from streams.topics import TOPICS, Topic, named

log = logging.getLogger("sluice")
Marks = dict[tuple[str, str, int], int]   # (epoch, topic, partition) -> last offset done
FRAME_BYTES = 8 << 20
MOST = 64           # records handed to a stage at once: what waits, no more
AHEAD = 4           # such batches in the channel before the reader waits
GC_YOUNG = 10_000   # objects made and not yet freed that start a collection
SWITCH_S = 0.0005   # that a thread keeps the interpreter while another waits; Python's 5 ms is half a frame's wait
GRACE_S = 15.0      # from the wish to stop to the end of the process


class BrokerGone(ConnectionError):
    """The broker's process ended: what answers next may be another log."""


class NoGroup(BootStrategy):
    """Agents and services only: Faust itself opens no consumer."""
    enable_kafka = False


class Stage(Protocol):
    """What a service is, apart from its wiring."""

    def marks(self) -> Marks:
        """Where to read on."""

    async def on_record(self, record: Any) -> None:
        """One record of one of its topics; publishes through the worker it was given."""


def client_options(settings: Settings) -> dict:
    """aiokafka's connection options: address, TLS and SASL from the settings."""
    k = settings.kafka
    options: dict = {"bootstrap_servers": address(settings), "security_protocol": k.security_protocol}
    if k.sasl_mechanism:
        options |= {"sasl_mechanism": k.sasl_mechanism, "sasl_plain_username": k.sasl_username, "sasl_plain_password": k.sasl_password}
    if "SSL" in k.security_protocol:
        options["ssl_context"] = create_ssl_context(cafile=k.ssl_cafile or None)
    return options


def address(settings: Settings) -> str:
    """The broker's address: the one that is set, else the one on this machine."""
    return bus.address(settings.kafka)


class Worker:
    """One service: a Faust app, its reader, its producer, its metrics."""

    def __init__(self, name: str, settings: Settings, exporter: Exporter, reads: Sequence[Topic]):
        self.name, self.settings, self.exporter, self.reads = name, settings, exporter, reads
        self.instance = settings.instance
        self.stage: Stage | None = None
        self.producer: AIOKafkaProducer | None = None
        self.epochs: dict[str, str] = {}
        self.spread: dict[str, int] = {}      # partitions of the topics that it writes
        self.waiting = 0                      # records in the channel and in the stage
        self.ahead: Callable[[list], None] | None = None      # told of records that wait together, before each goes to the stage
        self.background: list[Callable[[], Awaitable[None]]] = []
        self.on_close: list[Callable[[], Awaitable[None]]] = []
        self.on_open: list[Callable[[], Awaitable[None]]] = []
        datadir = settings.folder("data") / "faust" / f"{self.instance}{name}"
        datadir.mkdir(parents=True, exist_ok=True)
        App = type("App", (faust.App,), {"BootStrategy": NoGroup})
        self.app = App(f"sluice-{self.instance}{name}", broker=f"kafka://{address(settings)}", web_enabled=False,
                       topic_allow_declare=False, worker_redirect_stdouts=False, worker_redirect_stdouts_level="WARNING",
                       datadir=str(datadir))
        self.inbox = self.app.channel(maxsize=AHEAD)
        worker = self

        @self.app.agent(self.inbox, supervisor_strategy=CrashingSupervisor, name=f"{name}.stage")
        async def stage(batches):
            async for records in batches:
                assert worker.stage is not None
                if worker.ahead and len(records) > 1:
                    worker.ahead(records)
                for record in records:
                    await worker.stage.on_record(record)
                    worker.waiting -= 1

        self.source = self.app.service(source_of(self))

    async def send(self, topic: Topic, key: str, blob: bytes) -> asyncio.Future:
        """Hands a record to the producer; awaiting the result waits for the broker's acknowledgement."""
        assert self.producer is not None
        name = named(topic, self.settings)
        if name not in self.spread:
            self.spread[name] = len(await self.producer.partitions_for(name))
        return await self.producer.send(name, blob, key=key.encode(), partition=bus.partition_of(key, self.spread[name]))

    def crash(self, error: BaseException) -> None:
        """Ends the process: a restart reads on from the marks."""
        log.error("%s: %s: %s", self.name, type(error).__name__, error, exc_info=None if isinstance(error, ConnectionError) else error)
        self.crashing = asyncio.ensure_future(self.app.crash(error))


def source_of(worker: Worker) -> type[Service]:
    """The service that reads for this worker."""

    class Source(Service):
        """Connects, asks for the epochs, seeks to the marks and reads."""

        async def on_start(self) -> None:
            worker.app.flow_control.resume()   # no consumer of Faust's will: without it the first put waits for ever
            try:
                await self.listen()
            except OSError as error:
                raise bus.down(worker.settings.kafka, error) from None
            names = [named(t, worker.settings) for t in TOPICS]
            worker.epochs = await asyncio.to_thread(bus.epochs, worker.settings, names)
            options = client_options(worker.settings)
            worker.producer = AIOKafkaProducer(acks="all", linger_ms=0, request_timeout_ms=10_000, max_request_size=FRAME_BYTES,
                                               max_batch_size=1 << 20, **options)
            await worker.producer.start()
            self.reader: AIOKafkaConsumer | None = None
            for hook in worker.on_open:
                await hook()
            if worker.reads:
                self.reader = AIOKafkaConsumer(group_id=None, enable_auto_commit=False, auto_offset_reset="none",
                                               fetch_max_wait_ms=500, max_partition_fetch_bytes=FRAME_BYTES, request_timeout_ms=10_000,
                                               **options)
                await self.reader.start()
                await self.seek()
            worker.exporter.set(m.SERVICE_READY, 1, service=worker.name)

        async def seek(self) -> None:
            """To our marks in this log; a log not known yet from its beginning, a hole is counted and said."""
            assert self.reader is not None and worker.stage is not None
            topics = [named(t, worker.settings) for t in worker.reads]
            missing = [t for t in topics if t not in worker.epochs]
            if missing:
                raise ConnectionError(f"no topic {', '.join(missing)} on {address(worker.settings)}: python -m streams.admin makes them")
            spans = {TopicPartition(*tp): span for tp, span in (await asyncio.to_thread(bus.ends, worker.settings, topics)).items()}
            self.reader.assign(list(spans))
            marks = worker.stage.marks()
            for tp, (first, last) in spans.items():
                known = marks.get((worker.epochs[tp.topic], tp.topic, tp.partition))
                if known is None and any((t, p) == (tp.topic, tp.partition) for _, t, p in marks):
                    worker.exporter.inc(m.LOG_EPOCH_CHANGES_TOTAL, service=worker.name)
                    log.warning("%s: %s is another log than before: read from its start", worker.name, tp.topic)
                due = first if known is None else known + 1
                if not first <= due <= last:
                    worker.exporter.inc(m.LOG_HOLES_TOTAL, abs(first - due) or 1, service=worker.name)
                    log.error("%s: %s/%s: record %s was due, the log has %s to %s", worker.name, tp.topic, tp.partition, due, first, last)
                    due = first if due < first else last
                self.reader.seek(tp, due)

        @Service.task
        async def watch(self) -> None:
            """A silent connection to the broker: its end means that the process may have ended, and what answers next be another log.

            A broker also hangs up on who is silent for ten minutes: then the epochs are the same, and nothing has happened.
            """
            while not self.should_stop:
                await self.canary.read()
                if self.should_stop:
                    break
                try:
                    self.canary_out.close()
                    await self.listen()
                    again = await asyncio.to_thread(bus.epochs, worker.settings, list(worker.epochs))
                except OSError as error:
                    worker.crash(BrokerGone(f"the broker at {address(worker.settings)} is gone ({error})"))
                    break
                if again != worker.epochs:
                    worker.crash(BrokerGone(f"the broker at {address(worker.settings)} came back with other logs"))
                    break

        async def listen(self) -> None:
            """Opens the silent connection; before the epochs are asked."""
            host, port = address(worker.settings).split(",")[0].rsplit(":", 1)
            self.canary, self.canary_out = await asyncio.open_connection(host, int(port))

        @Service.task
        async def read(self) -> None:
            if self.reader is None:
                return
            try:
                while not self.should_stop:
                    got = await self.reader.getmany(timeout_ms=1000, max_records=MOST)
                    records = [record for some in got.values() for record in some]
                    worker.waiting += len(records)
                    if records:
                        await worker.inbox.put(records)
            except Exception as error:
                worker.crash(error)

        @Service.task
        async def tell(self) -> None:
            """Lag, once a second."""
            while not self.should_stop and self.reader is not None:
                lags = dict.fromkeys((tp.topic for tp in self.reader.assignment()), worker.waiting)
                for tp in self.reader.assignment():
                    high = self.reader.highwater(tp)
                    if high is not None:
                        lags[tp.topic] += high - await self.reader.position(tp)
                for topic, lag in lags.items():
                    worker.exporter.set(m.CONSUMER_LAG_RECORDS, lag, service=worker.name, topic=topic)
                await self.sleep(1.0)

        @Service.task
        async def more(self) -> None:
            """What else the service does."""
            try:
                await asyncio.gather(*(run() for run in worker.background))
            except asyncio.CancelledError:
                raise
            except BaseException as error:
                worker.crash(error)

        async def on_stop(self) -> None:
            for close in worker.on_close:
                try:
                    await asyncio.wait_for(close(), 3)
                except Exception as error:
                    log.warning("%s: while closing: %s", worker.name, error)
            self.canary_out.close()
            stops = [asyncio.wait_for(c.stop(), 3) for c in (self.reader, worker.producer) if c is not None]
            await asyncio.gather(*stops, return_exceptions=True)

    Source.__name__ = f"{worker.name}.Source"
    return Source


def setup_logging() -> None:
    """One line a message, with the wall clock; the level by SLUICE_LOG_LEVEL."""
    logging.basicConfig(level=os.environ.get("SLUICE_LOG_LEVEL", "INFO"), format="%(asctime)s %(levelname)s %(message)s", stream=sys.stderr)
    for noisy in ("aiokafka", "faust", "mode", "asyncio", "streams"):
        logging.getLogger(noisy).setLevel(logging.ERROR)
    logging.getLogger("kafka").setLevel(logging.CRITICAL)      # what it logs comes back as store.bus.BusDown


def run(workers: Sequence[Worker], exporter: Exporter, settings: Settings, port: int) -> int:
    """Runs the workers in this process until SIGTERM, SIGINT or a failure; the exit status."""
    os.makedirs(Path(settings.folder("data")), exist_ok=True)
    try:
        known = bus.epochs(settings, [named(t, settings) for t in TOPICS])
        missing = [named(t, settings) for t in TOPICS if named(t, settings) not in known]
        if missing:
            raise bus.BusDown(f"no topic {', '.join(missing)} on {address(settings)}: python -m streams.admin makes them")
    except bus.BusDown as error:
        log.error("%s", error)
        return 1
    stop = exporter.serve(port, settings.ports.bind)
    failed: list[BaseException] = []

    async def main() -> None:
        loop, over = asyncio.get_running_loop(), asyncio.Event()
        for sig in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(sig, over.set)
        for worker in workers:
            worker.app.loop = loop
        for worker in workers:
            await worker.app.start()
        steady()
        log.info("%s: ready", ", ".join(w.name for w in workers))
        while not over.is_set():
            for worker in workers:
                error = worker.app.crash_reason or (worker.app.crashed and RuntimeError(f"{worker.name} crashed"))
                if error:
                    failed.append(error)
                    over.set()
            try:
                await asyncio.wait_for(over.wait(), 0.1)
            except TimeoutError:
                pass
        deadline = threading.Timer(GRACE_S, os._exit, (1 if failed else 0,))      # whatever hangs, the process ends
        deadline.daemon = True
        deadline.start()
        for worker in reversed(workers):
            try:
                await asyncio.wait_for(worker.app.stop(), 6)
            except Exception as error:
                log.warning("%s: while stopping: %s", worker.name, error or type(error).__name__)

    try:
        asyncio.run(main())
    except (bus.BusDown, LedgerError) as error:      # what a person can mend: said, without a traceback
        log.error("%s", error)
        return 1
    finally:
        stop()
    for reason in failed[:1]:
        log.error("ended by %s: %s", type(reason).__name__, reason)
    return 1 if failed else 0


def steady() -> None:
    """Short pauses from here on: what is loaded is never collected again, and a thread in the background hands over soon."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(GC_YOUNG, 10, 10)
    sys.setswitchinterval(SWITCH_S)


def wall_ms() -> float:
    """The wall clock in ms; the shell's, never the engine's."""
    return time.time() * 1000
