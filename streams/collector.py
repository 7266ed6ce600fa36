"""The venue's market to `md.frames`: stamps, cleans, frames, counts gaps, writes the archive. `python -m streams.collector`"""

import asyncio
import logging
import time

from config.settings import Settings
from engine import metrics as m
from engine.facts import Frame, join
from engine.market.repair import Cleaner, Raw
from store.archive import ArchiveError, ArchiveWriter
from store.exporter import Exporter
from store.importers import cleaner
from streams.codec import encode
from streams.stage import Stateful
from streams.topics import MD_FRAMES
from streams.venues.local import venue_of
from streams.venues.port import Ended
from streams.worker import Worker, wall_ms

log = logging.getLogger("sluice.collector")
RETRY_S = 0.5
ARCHIVE_S = 300  # a crash loses at most this much of the archive; the log keeps it


class Collector:
    """Frames of every symbol, each event once and in order."""

    def __init__(self, worker: Worker, settings: Settings, exporter: Exporter):
        self.worker, self.settings, self.exporter = worker, settings, exporter
        self.session, self.due = "", dict[str, int]()
        self.open: dict[str, list[Frame]] = {}
        self.opened: dict[str, float] = {}
        self.last: dict[str, float] = {}
        self.ended: set[str] = set()
        self.cleaners: dict[str, Cleaner] = {}
        self.archives: dict[str, ArchiveWriter] = {}
        self.archived = time.monotonic()
        self.keeps = settings.exchange.market != "recording"  # a recording is an archive already
        self.lockstep = settings.lockstep
        self.stage = Stateful(worker, self.nothing, self.parts, self.restore)

    async def nothing(self, record) -> None:
        """The collector reads no topic."""

    def parts(self) -> dict[str, bytes]:
        """How far each symbol was published."""
        return {f"{symbol}|{self.session}": str(due).encode() for symbol, due in self.due.items()}

    def restore(self, parts: dict[str, bytes]) -> None:
        """Continues there."""
        for name, due in parts.items():
            symbol, self.session = name.split("|")
            self.due[symbol] = int(due)

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
                    self.close_archives()
                    self.session, self.due, self.cleaners = hello.session, {}, {}
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
        self.due[symbol] = frame.seq + frame.n
        frame = self.clean(frame)
        if not frame.n:
            return
        waiting = self.open.setdefault(symbol, [])
        if waiting and waiting[-1].seq + waiting[-1].n != frame.seq:
            await self.flush(symbol)
            waiting = self.open.setdefault(symbol, [])
        if not waiting:
            self.opened[symbol] = wall_ms()
        waiting.append(frame)
        most = self.settings.frames.max_events
        if self.lockstep or sum(f.n for f in waiting) >= most or wall_ms() - self.opened[symbol] >= self.settings.frames.max_ms:
            await self.flush(symbol)

    def clean(self, frame: Frame) -> Frame:
        """What of a venue's frame may be traded on; the rest is counted by its reason. The venue's event numbers are kept."""
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
        return sieve.frame(columns, frame.session, frame.seq) if counts.refused or counts.repaired else frame

    def archive(self, frame: Frame) -> None:
        """Keeps the frame for training and replay, in a folder a session; an archive that fails stops, the market goes on."""
        if not self.keeps:
            return
        try:
            if frame.symbol not in self.archives:
                root = self.settings.folder("data") / "archive" / f"{self.settings.feed or self.settings.exchange.market}-{frame.session}"
                self.archives[frame.symbol] = ArchiveWriter(root, frame.symbol, self.settings.instrument(frame.symbol), "collector")
            self.archives[frame.symbol].add(frame)
        except (ArchiveError, OSError) as error:
            self.keeps = False
            log.error("the archive stops: %s", error)

    def close_archives(self) -> None:
        """Writes what waits of every symbol."""
        for writer in self.archives.values():
            writer.close()
        self.archives = {}

    async def flush(self, symbol: str) -> None:
        """Publishes what is open of the symbol."""
        waiting = self.open.pop(symbol, [])
        if not waiting:
            return
        frame = join(waiting)
        stamped = Frame(
            frame.symbol,
            frame.session,
            frame.seq,
            frame.tick,
            frame.lot,
            frame.ts,
            frame.kind,
            frame.books,
            frame.trades,
            self.opened[symbol],
        )
        self.archive(stamped)
        self.stage.sent(await self.worker.send(MD_FRAMES, symbol, encode(stamped)))
        self.exporter.inc(m.MARKET_EVENTS_TOTAL, frame.n, symbol=symbol)
        self.exporter.inc(m.FRAMES_TOTAL, service="collector", symbol=symbol)
        self.exporter.observe(m.STAGE_LATENCY_MS, wall_ms() - self.opened[symbol], service="collector")
        if len(self.stage.pending) > 500:
            await self.stage.settle()

    async def beat(self) -> None:
        """Closes frames by age, keeps the state, tells the age of the data."""
        step = self.settings.frames.max_ms / 4000      # a frame waits a quarter over its time at most
        while True:
            await asyncio.sleep(step)
            now = wall_ms()
            for symbol in [s for s, frames in self.open.items() if frames and now - self.opened[s] >= self.settings.frames.max_ms]:
                await self.flush(symbol)
            if self.stage.file.due and not any(self.open.values()):
                for symbol, at in self.last.items():
                    self.exporter.set(m.MARKET_DATA_AGE_MS, 0 if symbol in self.ended else (time.monotonic() - at) * 1000, symbol=symbol)
                await self.stage.save()
            if time.monotonic() - self.archived > ARCHIVE_S:
                self.archived = time.monotonic()
                for writer in self.archives.values():
                    writer.flush()

    async def close(self) -> None:
        """Writes what waits for the archive."""
        self.close_archives()


def make(settings: Settings, exporter: Exporter) -> Worker:
    """The service's worker."""
    venue_of(settings)
    worker = Worker("collector", settings, exporter, [])
    collector = Collector(worker, settings, exporter)
    worker.background += [collector.feed, collector.beat]
    worker.on_close.append(collector.close)
    return worker


if __name__ == "__main__":
    from streams.service import main

    raise SystemExit(main("collector"))
