"""The venue's market to `md.frames`: stamps, cleans, frames, counts gaps, writes the archive. `python -m streams.collector`"""

import asyncio
import logging
import time
from collections import deque

from config.settings import Settings
from engine import metrics as m
from engine.facts import Frame, join
from engine.market.repair import Cleaner, Raw
from store import disk
from store.archive import ArchiveError, ArchiveWriter
from store.exporter import Exporter
from store.importers import cleaner
from streams.codec import encode
from streams.stage import Stateful
from streams.topics import MD_FRAMES
from streams.venues.local import venue_of
from streams.venues.port import Ended
from streams.worker import Worker, since_ms, wall_ms

log = logging.getLogger("sluice.collector")
RETRY_S = 0.5
ARCHIVE_S = 300  # a crash loses at most this much of the archive; the log keeps it
ARCHIVE_ROWS = 200_000  # of a symbol in memory
HOUSE_S = 0.5


class Collector:
    """Frames of every symbol, each event once and in order.

    A frame is published when the one before it is `frames.max_ms` old, or when it is full: on a quiet market at once, on a busy one
    every `max_ms`, and no event waits longer than that.
    """

    def __init__(self, worker: Worker, settings: Settings, exporter: Exporter):
        self.worker, self.settings, self.exporter = worker, settings, exporter
        self.session, self.due = "", dict[str, int]()
        self.ends: dict[str, int] = {}  # the event after the last one that was published: behind it are refused ones
        self.published: dict[str, int] = {}  # the event after the last one that was handed to the producer
        self.open: dict[str, list[Frame]] = {}
        self.opened: dict[str, float] = {}  # wall clock of the first event that waits
        self.closed: dict[str, float] = {}  # when the symbol's last frame was published, monotonic
        self.period = settings.frames.max_ms / 1000
        self.some = asyncio.Event()
        self.flushing = asyncio.Lock()
        self.last: dict[str, float] = {}
        self.ended: set[str] = set()
        self.cleaners: dict[str, Cleaner] = {}
        self.archives: dict[str, ArchiveWriter] = {}
        self.to_archive: deque[Frame] = deque()
        self.archiving = asyncio.Lock()
        self.archived, self.rests_until = time.monotonic(), 0.0
        self.keeps = settings.exchange.market != "recording"  # a recording is an archive already
        self.lockstep = settings.lockstep
        self.stage = Stateful(worker, self.nothing, self.parts, self.restore)
        self.stage.writes([MD_FRAMES], self.anew)

    async def nothing(self, record) -> None:
        """The collector reads no topic."""

    def parts(self) -> dict[str, bytes]:
        """How far each symbol was published."""
        return {f"{symbol}|{self.session}": f"{due} {self.ends.get(symbol, due)}".encode() for symbol, due in self.published.items()}

    def restore(self, parts: dict[str, bytes]) -> None:
        """Continues there."""
        for name, due in parts.items():
            symbol, self.session = name.split("|")
            self.due[symbol] = self.published[symbol] = int(due.split()[0])
            self.ends[symbol] = int(due.split()[-1])

    def anew(self) -> None:
        """Asks the venue for all that it still has of the session."""
        self.due, self.published, self.ends = {}, {}, {}

    async def feed(self) -> None:
        """The market line: connects, takes frames, connects again; whatever waits is published before another session begins."""
        x = self.settings.exchange
        while True:
            venue = venue_of(self.settings)
            try:
                hello = await venue.connect(patience_s=3600)
                if hello.session != self.session:
                    for symbol in list(self.open):
                        await self.flush(symbol)
                    await self.write_archives(closing=True)
                    self.session, self.due, self.published, self.ends, self.cleaners = hello.session, {}, {}, {}, {}
                log.info("market of %s:%d, session %s: %s", x.host, x.port, hello.session, ", ".join(hello.symbols))
                async for got in venue.market(hello.symbols, self.session, dict(self.due)):
                    if isinstance(got, Ended):
                        self.ended.add(got.symbol)
                        await self.flush(got.symbol)
                        log.info("%s: the market is over", got.symbol)
                    else:
                        await self.take(got)
            except OSError as error:
                log.warning("the market line broke: %s", error)
                await asyncio.sleep(RETRY_S)

    async def take(self, frame: Frame) -> None:
        """One frame of the venue: checked for holes, joined with its neighbours, published when full or old enough."""
        symbol = frame.symbol
        self.last[symbol] = time.monotonic()
        due = self.due.get(symbol)
        if due is not None and frame.seq != due:
            self.exporter.inc(m.MARKET_GAPS_TOTAL, symbol=symbol)
            log.error("%s: event %d was due, %d came", symbol, due, frame.seq)
            await self.flush(symbol)
            self.ends.pop(symbol, None)
        self.due[symbol] = frame.seq + frame.n
        waiting = self.open.setdefault(symbol, [])
        if not waiting:
            self.opened[symbol] = wall_ms()
        waiting.append(frame)
        if self.lockstep or sum(f.n for f in waiting) >= self.settings.frames.max_events or time.monotonic() >= self.closes(symbol):
            await self.flush(symbol)
        else:
            self.some.set()

    def closes(self, symbol: str) -> float:
        """When what waits of the symbol is published at the latest."""
        return self.closed.get(symbol, float("-inf")) + self.period

    def clean(self, frame: Frame) -> list[Frame]:
        """What of a venue's events may be traded on, under the numbers that they came with; the rest is counted by its reason."""
        symbol = frame.symbol
        if symbol not in self.cleaners:
            self.cleaners[symbol] = cleaner(symbol, self.settings)
        sieve = self.cleaners[symbol]
        columns, counts = sieve.clean(Raw(frame.times, frame.kinds, frame.book_rows, frame.trade_rows))
        for reason, n in counts.refused.items():
            self.exporter.inc(m.BAD_TICKS_TOTAL, n, symbol=symbol, reason=reason)
        for kind, n in counts.repaired.items():
            self.exporter.inc(m.REPAIRED_TICKS_TOTAL, n, symbol=symbol, kind=kind)
        if counts.gaps:
            self.exporter.inc(m.MARKET_GAPS_TOTAL, counts.gaps, symbol=symbol)
        return sieve.frames(columns, frame.session, frame.seq) if counts.refused or counts.repaired else [frame]

    def archive(self, frames: list[Frame], closing: bool) -> None:
        """Keeps frames for training and replay, in a folder a session. One that fails is counted and rests a while: the market goes on."""
        if time.monotonic() < self.rests_until:
            self.lose(frames)
            return
        added = 0
        try:
            for frame in frames:
                if frame.symbol not in self.archives:
                    name = f"{self.settings.feed or self.settings.exchange.market}-{frame.session}"
                    root = self.settings.folder("data") / "archive" / name
                    self.archives[frame.symbol] = ArchiveWriter(root, frame.symbol, self.settings.instrument(frame.symbol), "collector")
                self.archives[frame.symbol].add(frame)
                added += 1
            late = closing or time.monotonic() - self.archived > ARCHIVE_S
            for writer in self.archives.values():
                if late or writer.rows > ARCHIVE_ROWS:
                    writer.flush()
            if late:
                self.archived = time.monotonic()
        except (ArchiveError, OSError) as error:
            self.lose(frames[added:])
            for symbol, writer in self.archives.items():
                self.exporter.inc(m.ARCHIVE_LOST_TOTAL, writer.rows, symbol=symbol)
            self.archives, self.rests_until = {}, time.monotonic() + ARCHIVE_S
            reason = disk.said(error) if isinstance(error, OSError) else error
            log.error("the archive rests for %d s, what comes meanwhile is missing in it: %s", ARCHIVE_S, reason)
        if closing:
            self.archives = {}

    def lose(self, frames: list[Frame]) -> None:
        """Counts what the archive will not have."""
        for frame in frames:
            self.exporter.inc(m.ARCHIVE_LOST_TOTAL, frame.n, symbol=frame.symbol)

    async def write_archives(self, closing: bool = False) -> None:
        """Hands what was published to the archive, on a thread of its own: a file takes longer than a frame may wait."""
        async with self.archiving:
            frames = list(self.to_archive)
            self.to_archive.clear()
            if self.keeps and (frames or closing):
                await asyncio.to_thread(self.archive, frames, closing)

    async def flush(self, symbol: str) -> None:
        """Publishes what is open of the symbol: joined, cleaned, stamped."""
        async with self.flushing:
            waiting = self.open.pop(symbol, [])
            if not waiting:
                return
            opened, after = self.opened[symbol], waiting[-1].seq + waiting[-1].n
            self.closed[symbol] = time.monotonic()
            for frame in self.clean(join(waiting)):
                stamped = Frame(frame.symbol, frame.session, frame.seq, frame.tick, frame.lot, frame.ts, frame.kind, frame.books,
                                frame.trades, opened, max(0, frame.seq - self.ends.get(symbol, frame.seq)))
                self.ends[symbol] = frame.seq + frame.n
                self.stage.sent(await self.worker.send(MD_FRAMES, symbol, encode(stamped)))
                if self.keeps:
                    self.to_archive.append(stamped)
                self.exporter.inc(m.MARKET_EVENTS_TOTAL, frame.n, symbol=symbol)
                self.exporter.inc(m.FRAMES_TOTAL, service="collector", symbol=symbol)
                self.exporter.observe(m.STAGE_LATENCY_MS, since_ms(opened), service="collector")
            self.published[symbol] = after
        if len(self.stage.pending) > 500:
            await self.stage.settle()

    async def close_frames(self) -> None:
        """Publishes what waits when its time has come."""
        while True:
            await self.some.wait()
            if self.open:
                await asyncio.sleep(min(self.closes(symbol) for symbol in self.open) - time.monotonic())
                now = time.monotonic()
                for symbol in [s for s in self.open if now >= self.closes(s)]:
                    await self.flush(symbol)
            if not self.open:
                self.some.clear()

    async def beat(self) -> None:
        """Keeps the state and the archive, tells the age of the data."""
        while True:
            await asyncio.sleep(HOUSE_S)
            for symbol, at in self.last.items():
                self.exporter.set(m.MARKET_DATA_AGE_MS, 0 if symbol in self.ended else (time.monotonic() - at) * 1000, symbol=symbol)
            if self.stage.file.due:
                await self.stage.save()
            await self.write_archives()

    async def close(self) -> None:
        """Writes what waits for the archive."""
        await self.write_archives(closing=True)


def make(settings: Settings, exporter: Exporter, made: type[Worker] = Worker) -> Worker:
    """The service's worker; `made` is what carries its records."""
    venue_of(settings)
    worker = made("collector", settings, exporter, [])
    collector = Collector(worker, settings, exporter)
    worker.background += [collector.feed, collector.close_frames, collector.beat]
    worker.on_close.append(collector.close)
    return worker


if __name__ == "__main__":
    from streams.service import main

    raise SystemExit(main("collector"))
