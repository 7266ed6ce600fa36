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
import sys
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, NoReturn, Protocol

import faust
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.errors import KafkaError, MessageSizeTooLargeError
from aiokafka.helpers import create_ssl_context
from faust.app.base import BootStrategy
from mode import Service
from mode.supervisors import CrashingSupervisor

from config.settings import Settings
from engine import metrics as m
from store import bus, disk
from store.database import LedgerError
from store.exporter import Exporter
from streams.merge import Merge
from streams.seek import start_of
from streams.stopping import Stop
from streams.topics import TOPICS, Topic, named

log = logging.getLogger("sluice")
Marks = dict[tuple[str, str, int], int]   # (epoch, topic, partition) -> last offset done
FRAME_BYTES = 8 << 20
LOOKS = 50          # of 100 ms between two questions how full the disk is
JUMP_S = 1.0        # what a clock is set by at once; to be a little off is mended by running faster or slower
MOST = 64           # records handed to a stage at once: what waits, no more
AHEAD = 4           # such batches in the channel before the reader waits
GC_YOUNG = 10_000   # objects made and not yet freed that start a collection
SWITCH_S = 0.0005   # that a thread keeps the interpreter while another waits; Python's 5 ms is half a frame's wait
CLOSE_S, CLIENTS_S, STOP_S = 2.5, 1.0, 4.5      # for a stage to save, for its clients to hang up, for all of it: within the grace


class BrokerGone(ConnectionError):
    """The broker's process ended: what answers next may be another log."""


class NoGroup(BootStrategy):
    """Agents and services only: Faust itself opens no consumer."""
    enable_kafka = False


class Membership(Protocol):
    """How a worker shares the partitions of its topics with others."""

    def options(self) -> dict:
        """The reader's options."""

    async def join(self, reader: AIOKafkaConsumer) -> None:
        """Asks for partitions; from then on they come and go."""

    async def fetch(self, reader: AIOKafkaConsumer) -> list:
        """Records of the partitions that are ours."""


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
        self.share: Membership | None = None      # None: all partitions are ours
        self.producer: AIOKafkaProducer | None = None
        self.epochs: dict[str, str] = {}
        self.spread: dict[str, int] = {}      # partitions of the topics that it writes
        self.ahead: Callable[[list], None] | None = None      # told of records that wait together, before each goes to the stage
        self.done: dict[TopicPartition, int] = {}       # the offset behind the last record that the stage has carried
        self.ends: dict[TopicPartition, int] | None = None      # where each log of ours ended when we came; None: none is ours yet
        self.behind, self.began, self.ready = 0, 0.0, False
        self.lag = 0            # records on the broker that the stage has not carried, when it was last looked
        self.background: list[Callable[[], Awaitable[None]]] = []
        self.on_close: list[Callable[[], Awaitable[None]]] = []
        self.on_open: list[Callable[[], Awaitable[None]]] = []
        datadir = settings.folder("data") / "faust" / f"{self.instance}{name}"
        datadir.mkdir(parents=True, exist_ok=True)
        App = type("App", (faust.App,), {"BootStrategy": NoGroup, "__module__": __name__})     # by which its logger is named
        self.app = App(f"sluice-{self.instance}{name}", broker=f"kafka://{address(settings)}", web_enabled=False,
                       topic_allow_declare=False, worker_redirect_stdouts=False, worker_redirect_stdouts_level="WARNING",
                       datadir=str(datadir))
        self.inbox = self.app.channel(maxsize=AHEAD)
        worker = self

        async def stage(batches):
            async for records in batches:
                assert worker.stage is not None
                if worker.ahead and len(records) > 1:
                    worker.ahead(records)
                for record in records:
                    await worker.stage.on_record(record)
                    if worker.share is None:
                        worker.done[TopicPartition(record.topic, record.partition)] = record.offset + 1

        # Faust's decorators would do the same, and look up their caller's source among all modules: a quarter of a start
        agent = faust.Agent(stage, name=f"{name}.stage", app=self.app, channel=self.inbox, supervisor_strategy=CrashingSupervisor)
        self.app.agents[agent.name] = agent
        self.app._extra_services.append(source_of(self))

    async def send(self, topic: Topic, key: str, blob: bytes) -> asyncio.Future:
        """Hands a record to the producer; awaiting the result waits for the broker's acknowledgement."""
        assert self.producer is not None
        name = named(topic, self.settings)
        if name not in self.spread:
            self.spread[name] = len(await self.producer.partitions_for(name))
        return await self.producer.send(name, blob, key=key.encode(), partition=bus.partition_of(key, self.spread[name]))

    def begin(self, spans: Mapping[TopicPartition, tuple[int, int]]) -> dict[TopicPartition, int]:
        """Where to read each partition from, by the stage's marks; from now on these are ours. `spans` as in `positions`."""
        assert self.stage is not None
        self.done = positions(self, spans, self.stage.marks())
        self.ends, self.began, self.ready = {tp: last for tp, (_, last) in spans.items()}, time.monotonic(), False
        lags = self.lags(self.ends)
        self.behind = sum(lags.values())
        if self.behind:
            log.info("%s: %s records behind (%s): catching up", self.name, f"{self.behind:,}",
                     ", ".join(f"{topic} {n:,}" for topic, n in lags.items() if n))
        return dict(self.done)

    def lags(self, ends: Mapping[TopicPartition, int]) -> dict[str, int]:
        """By topic, the records up to these ends that the stage has not carried; the gauge says the same."""
        lags: dict[str, int] = {}
        for tp, end in ends.items():
            lags[tp.topic] = lags.get(tp.topic, 0) + max(0, end - self.done[tp])
        for topic, lag in lags.items():
            self.exporter.set(m.CONSUMER_LAG_RECORDS, lag, service=self.name, topic=topic)
        self.lag = sum(lags.values())
        return lags

    def crash(self, error: BaseException) -> None:
        """Ends the process: a restart reads on from the marks."""
        log.error("%s: %s", self.name, why(error))
        self.crashing = asyncio.ensure_future(self.app.crash(error))


def positions(worker: Worker, spans: Mapping[TopicPartition, tuple[int, int]], marks: Marks) -> dict[TopicPartition, int]:
    """The next offset of each partition: behind our mark in this log; a log not known yet from its start, a hole is counted and said.

    `spans`: (first offset, next offset) of each partition as the log stands.
    """
    found = {}
    for tp, (first, last) in spans.items():
        start = start_of(marks, worker.epochs[tp.topic], tp.topic, tp.partition, first, last)
        if start.another:
            worker.exporter.inc(m.LOG_EPOCH_CHANGES_TOTAL, service=worker.name)
            log.warning("%s: %s is another log than before: read from its start", worker.name, tp.topic)
        if start.missing:
            worker.exporter.inc(m.LOG_HOLES_TOTAL, start.missing, service=worker.name)
            log.error("%s: %s/%s: %d records between our mark and the log are gone: read from %d, the log has %s to %s",
                      worker.name, tp.topic, tp.partition, start.missing, start.due, first, last)
        found[tp] = start.due
    return found


async def fetched(reader: AIOKafkaConsumer) -> list:
    """What has come, after a second at the latest."""
    got = await reader.getmany(timeout_ms=1000, max_records=MOST)
    return [record for some in got.values() for record in some]


def source_of(worker: Worker) -> type[Service]:
    """The service that reads for this worker."""

    class Source(Service):
        """Connects, asks for the epochs, seeks to the marks and reads."""
        reader: AIOKafkaConsumer | None = None
        canary_out: asyncio.StreamWriter | None = None

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
            for hook in worker.on_open:
                await hook()
            if worker.reads:
                group = worker.share.options() if worker.share else {"group_id": None}
                self.reader = AIOKafkaConsumer(enable_auto_commit=False, auto_offset_reset="none", fetch_max_wait_ms=500,
                                               max_partition_fetch_bytes=FRAME_BYTES, request_timeout_ms=10_000, **group, **options)
                await self.reader.start()
                await (worker.share.join(self.reader) if worker.share else self.seek())
            else:
                worker.exporter.set(m.SERVICE_READY, 1, service=worker.name)

        async def seek(self) -> None:
            """All partitions, each from our mark."""
            assert self.reader is not None
            topics = [named(t, worker.settings) for t in worker.reads]
            missing = [t for t in topics if t not in worker.epochs]
            if missing:
                raise ConnectionError(f"no topic {', '.join(missing)} on {address(worker.settings)}: python -m streams.admin makes them")
            spans = {TopicPartition(*tp): span for tp, span in (await asyncio.to_thread(bus.ends, worker.settings, topics)).items()}
            self.reader.assign(list(spans))
            for tp, due in worker.begin(spans).items():
                self.reader.seek(tp, due)
            self.merge = Merge(self.reader, topics, {tp: end for tp, (_, end) in spans.items()}, MOST)

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
                    if self.canary_out is not None:
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
            *others, last = address(worker.settings).split(",")
            for one in (*others, last):        # of a cluster, whichever answers
                host, port = one.rsplit(":", 1)
                try:
                    self.canary, self.canary_out = await asyncio.open_connection(host, int(port))
                    break
                except OSError:
                    if one == last:
                        raise

        @Service.task
        async def read(self) -> None:
            if self.reader is None:
                return
            try:
                while not self.should_stop:
                    records = await (worker.share.fetch(self.reader) if worker.share else self.merge.fetch())
                    if records:
                        await worker.inbox.put(records)
            except Exception as error:
                worker.crash(error)

        @Service.task
        async def tell(self) -> None:
            """Lag, once a second; and when what lay there at the start has been carried."""
            while not self.should_stop and self.reader is not None:
                await self.sleep(0.05 if not worker.ready else 1.0)
                if worker.ends is None:
                    continue
                worker.lags({tp: self.reader.highwater(tp) or end for tp, end in worker.ends.items()})
                if not worker.ready and all(worker.done[tp] >= end for tp, end in worker.ends.items()):
                    worker.ready = True
                    if worker.behind:
                        log.info("%s: caught up with %s records in %.1f s", worker.name, f"{worker.behind:,}",
                                 time.monotonic() - worker.began)
                    worker.exporter.set(m.SERVICE_READY, 1, service=worker.name)

        @Service.task
        async def more(self) -> None:
            """What else the service does."""
            try:
                await asyncio.gather(*(run() for run in worker.background))
            except asyncio.CancelledError:
                raise
            except BaseException as error:
                if not self.should_stop:      # what is closed under it now is no fault
                    worker.crash(error)

        async def on_stop(self) -> None:
            worker.exporter.set(m.SERVICE_READY, 0, service=worker.name)
            until = time.monotonic() + CLOSE_S
            for close in reversed(worker.on_close):
                if error := await within(max(0.2, until - time.monotonic()), close()):
                    log.warning("%s: while closing: %s", worker.name, why(error))
            if self.canary_out is not None:
                self.canary_out.close()
            await asyncio.gather(*(within(CLIENTS_S, c.stop()) for c in (self.reader, worker.producer) if c is not None))

    Source.__name__ = f"{worker.name}.Source"
    return Source


def setup_logging() -> None:
    """One line a message, with the wall clock; the level by SLUICE_LOG_LEVEL."""
    logging.basicConfig(level=os.environ.get("SLUICE_LOG_LEVEL", "INFO"), format="%(asctime)s %(levelname)s %(message)s", stream=sys.stderr)
    logging.getLogger("asyncio").setLevel(logging.ERROR)
    for noisy in ("aiokafka", "faust", "mode", "streams", "kafka"):
        logging.getLogger(noisy).setLevel(logging.CRITICAL)     # what those log comes back as an exception


def why(error: BaseException) -> str:
    """An error in a line: what a person can mend in the words for it, anything else with its kind."""
    if isinstance(error, OSError) and disk.is_disk(error):
        return disk.said(error)
    if isinstance(error, (bus.BusDown, LedgerError)):
        return str(error)
    if isinstance(error, KafkaError) and elsewhere(error):
        return f"the broker does not answer ({type(error).__name__})"
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__


async def within(seconds: float, work: Awaitable[None]) -> BaseException | None:
    """Its error, `TimeoutError` where it takes longer: it is left behind then, for what ignores its cancellation would be waited for."""
    task = asyncio.ensure_future(work)
    await asyncio.wait([task], timeout=seconds)
    if task.done():
        return TimeoutError("cancelled") if task.cancelled() else task.exception()
    task.cancel()
    return TimeoutError(f"not done within {seconds:.1f} s")


def elsewhere(error: BaseException) -> bool:
    """Whether the fault is the line's, the disk's or the ledger's: the record is not booked for it, and read again."""
    return isinstance(error, (OSError, LedgerError, KafkaError)) and not isinstance(error, MessageSizeTooLargeError)


def run(workers: Sequence[Worker], exporter: Exporter, settings: Settings, port: int, stop: Stop) -> int:
    """Runs the workers in this process until it is told to stop or one fails, and ends it."""
    try:
        known = bus.epochs(settings, [named(t, settings) for t in TOPICS])
        missing = [named(t, settings) for t in TOPICS if named(t, settings) not in known]
        if missing:
            raise bus.BusDown(f"no topic {', '.join(missing)} on {address(settings)}: python -m streams.admin makes them")
    except bus.BusDown as error:
        log.error("%s: %s", stop.name, error)
        return 1
    exporter.serve(port, settings.ports.bind)
    failed: list[BaseException] = []
    clock = Clock()

    async def main() -> NoReturn:
        over = asyncio.Event()
        stop.attach(over)
        looked = 0
        for worker in workers:
            worker.app.loop = asyncio.get_running_loop()
        starting = asyncio.ensure_future(start())
        asked = asyncio.ensure_future(over.wait())
        await asyncio.wait([starting, asked], return_when=asyncio.FIRST_COMPLETED)
        if starting.done() and (error := starting.exception()):
            failed.append(error)
        while not failed and not over.is_set():
            if looked % LOOKS == 0:
                exporter.set(m.DISK_USED_PERCENT, disk.used_percent(settings.folder("data")))
            looked += 1
            if seconds := clock.jumped():
                exporter.inc(m.CLOCK_JUMPS_TOTAL)
                log.warning("%s: the clock was set by %+.1f s: latencies of what was on its way then mean nothing", stop.name, seconds)
            failed.extend(e for w in workers if (e := w.app.crash_reason or (w.app.crashed and RuntimeError(f"{w.name} crashed"))))
            await asyncio.wait([asked], timeout=0.1)
        stop.begin(f"ended by {why(failed[0])}" if failed else "stopped")
        starting.cancel()
        await asyncio.gather(*map(end, workers))
        if failed:
            plain = elsewhere(failed[0])
            log.error("%s: ended by %s", stop.name, why(failed[0]), exc_info=None if plain else failed[0])
        else:
            log.info("%s: ended in %.1f s", stop.name, time.monotonic() - stop.since)
        stop.leave(1 if failed else stop.status)      # from in here: the loop would wait for whatever a client library left hanging in it

    async def start() -> None:
        for worker in workers:
            await worker.app.start()
        steady()
        log.info("%s: started", ", ".join(w.name for w in workers))

    async def end(worker: Worker) -> None:
        if error := await within(STOP_S, worker.app.stop()):
            log.warning("%s: while stopping: %s", worker.name, why(error))

    return asyncio.run(main())


def steady() -> None:
    """Short pauses from here on: what is loaded is never collected again, and a thread in the background hands over soon."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(GC_YOUNG, 10, 10)
    sys.setswitchinterval(SWITCH_S)


def wall_ms() -> float:
    """The wall clock in ms; the shell's, never the engine's."""
    return time.time() * 1000


def since_ms(stamp_ms: float) -> float:
    """Milliseconds since another process stamped this; none where the clock was set back meanwhile."""
    return max(0.0, wall_ms() - stamp_ms)


class Clock:
    """Notices when the wall clock is set: it has moved otherwise than the steady one."""

    def __init__(self, wall: Callable[[], float] = time.time, steady: Callable[[], float] = time.monotonic):
        self.wall, self.steady = wall, steady
        self.apart = wall() - steady()

    def jumped(self) -> float:
        """Seconds that it was set forward (or back, below 0) since the last question; 0 where it runs."""
        apart = self.wall() - self.steady()
        moved, self.apart = apart - self.apart, apart
        return moved if abs(moved) > JUMP_S else 0.0
