"""The stage of a stateless or restartable service: marks and state in one file, re-emitting what a crash may have cost.

State is saved only behind the broker's acknowledgement of what it led to, so a restart repeats the last moments byte for byte
and never skips; who reads behind it passes over what it knows by its event numbers.
"""
import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence

from engine import metrics as m
from store.state import Failures, Kept, StateFile
from streams.topics import Topic, named
from streams.worker import Marks, Worker, elsewhere

log = logging.getLogger("sluice")
MANY = 1000     # outputs under way: the stage waits for the broker


class Handled:
    """A handler of records: how far it is, what is on its way to the broker, and what it could not carry."""

    def __init__(self, worker: Worker, handle: Callable[..., Awaitable[None]]):
        self.worker, self.handle = worker, handle
        self.kept: Marks = {}
        self.pending: list[asyncio.Future] = []
        worker.stage = self
        worker.on_close.append(self.close)

    def marks(self) -> Marks:
        """Where to read on."""
        return self.kept

    def writes(self, topics: Sequence[Topic], anew: Callable[[], object]) -> None:
        """Tells which topics it writes to. Where one came back as another log, what was on it and not read is gone: `anew` sets the
        state back so far that it is said again, and who has read it passes over it. A state that is on the same broker is gone too."""

    def sent(self, acknowledgement) -> None:
        """Something is on its way to the broker; the next save waits for it."""
        self.pending.append(acknowledgement)

    def failures(self, record) -> Failures:
        """Where it is remembered that this record failed."""
        return Failures(self.worker.settings.folder("data"), self.worker.instance + self.worker.name)

    async def on_record(self, record) -> None:
        """One record, then its mark. One that fails twice is booked, counted and passed over."""
        try:
            await self.handle(record)
        except Exception as error:
            if elsewhere(error):
                raise
            where, failures = f"{record.topic}/{record.partition}/{record.offset}", self.failures(record)
            if not failures.again(where):
                raise
            failures.book(where, record.value, error)
            self.worker.exporter.inc(m.STAGE_ERRORS_TOTAL, service=self.worker.name)
            log.error("%s: %s failed twice and is booked in %s: %s", self.worker.name, where, failures.book_path, error)
        self.kept[(self.worker.epochs[record.topic], record.topic, record.partition)] = record.offset
        if self.time_to_save:
            await self.save()
        elif len(self.pending) > MANY:
            await self.settle()

    async def settle(self) -> None:
        """Waits until the broker has everything."""
        if self.pending:
            waiting = list(self.pending)
            await asyncio.wait(waiting)         # not gathered: cancelled here, what is on its way must still be waited for by the next
            for one in waiting:
                one.result()
            settled = set(waiting)
            self.pending = [one for one in self.pending if one not in settled]

    @property
    def time_to_save(self) -> bool:
        """Whether the last save is long enough ago."""
        raise NotImplementedError

    async def save(self) -> None:
        """State and marks as they stand, behind the broker's acknowledgements."""
        raise NotImplementedError

    async def close(self) -> None:
        """Saves once more."""
        await self.save()


class Stateful(Handled):
    """All partitions are this process's; its state is a file."""

    def __init__(self, worker: Worker, handle: Callable[..., Awaitable[None]], parts: Callable[[], dict[str, bytes]] | None = None,
                 restore: Callable[[dict[str, bytes]], None] | None = None):
        super().__init__(worker, handle)
        self.parts = parts or dict
        self.saving = asyncio.Lock()        # one after the other: the last to be written is the last that was looked at
        self.file = StateFile(worker.settings.folder("data"), worker.instance + worker.name)
        kept = self.file.load()
        self.kept = {(epoch, topic, partition): offset for epoch, topic, partition, offset in kept.marks}
        self.wrote = kept.wrote
        if restore and kept.parts:
            restore(kept.parts)

    def writes(self, topics: Sequence[Topic], anew: Callable[[], object]) -> None:
        names = [named(topic, self.worker.settings) for topic in topics]

        async def opened() -> None:
            now = {name: self.worker.epochs[name] for name in names}
            gone = [name for name in names if self.wrote.get(name, now[name]) != now[name]]
            self.wrote = now
            if gone:
                self.worker.exporter.inc(m.LOG_EPOCH_CHANGES_TOTAL, len(gone), service=self.worker.name)
                log.error("%s: %s came back as another log: what was on it and not read is said again", self.worker.name, ", ".join(gone))
                anew()
                await self.save()
        self.worker.on_open.append(opened)

    @property
    def time_to_save(self) -> bool:
        return self.file.due

    async def save(self) -> None:
        async with self.saving:
            kept = Kept([(*key, offset) for key, offset in self.kept.items()], self.parts(), self.wrote)
            await self.settle()
            self.file.save(kept)

    async def close(self) -> None:
        """Saves once more and lets go of the file."""
        try:
            await self.save()
        finally:
            self.file.close()
