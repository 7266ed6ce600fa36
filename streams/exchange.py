"""The local exchange: a simulated or recorded market with matching, in a process of its own behind the venue port.

    python -m streams.exchange                         the simulated market at its own pace
    RECORDING=standx SPEED=60 python -m streams.exchange --market recording

SPEED=1 plays in real time; any other speed is paced by the desk, so that an order arrives at its decision's time plus the latency.
"""

import argparse
import asyncio
import hashlib
import logging
import os
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from config import settings as config
from config.settings import Settings
from engine import metrics as m
from engine.execution.floor import Floor
from engine.execution.matching import Matching
from engine.facts import TWIN, Fill, Frame, Report, Standing, cut
from engine.market.simulator import Simulator
from store import archive, bus, disk, importers
from store.archive import ArchiveError
from store.exporter import Exporter
from store.venue_journal import JournalError, VenueJournal
from streams.relay import Relay, Relayed
from streams.stopping import Stop
from streams.topics import MD_FRAMES, named
from streams.venues.port import Answered, Ask, Ended, Happened, Hello, Place, Promise, Resume, Subscribe, TakeBack
from streams.venues.wire import message, packed
from streams.worker import setup_logging

log = logging.getLogger("sluice.exchange")
LEAD_FRAMES = 64  # published and not yet worked, at a paced market
RING_FRAMES = 2000  # kept for a client that comes back
BUFFER = 64 << 20  # a client that reads no more than this behind is hung up on
BEAT_S = 0.005
AWAY_S = 600  # that a market which is over waits for a desk that is away
LINGER_S = 2  # that it stays open once all is worked: for who was away for a moment


class Simulated:
    """A seeded market as a source of frames."""

    def __init__(self, simulator: Simulator, saved: bytes):
        self.simulator = simulator
        if saved:
            simulator.restore(saved)
        self.ended = False

    def next(self, upto_ms: int, most: int) -> Frame | None:
        """The next events up to that time."""
        return self.simulator.frame(upto_ms, most)

    def save(self) -> bytes:
        """Where the market stands."""
        return self.simulator.snapshot()


class Recorded:
    """An archive as a source of frames, from an event number on."""

    def __init__(self, root: Path, symbol: str, session: str, due: int, events: int):
        self.frames: Iterator[Frame] = archive.read(root, symbol, events=events, session=session)
        self.due, self.ended = due, False
        self.rest: Frame | None = None

    def next(self, upto_ms: int, most: int) -> Frame | None:
        """The next events up to that time."""
        while self.rest is None:
            frame = next(self.frames, None)
            if frame is None:
                self.ended = True
                return None
            if frame.seq + frame.n > self.due:
                self.rest = cut(frame, self.due - frame.seq, frame.n) if frame.seq < self.due else frame
        frame, last = self.rest, int(self.rest.times.searchsorted(upto_ms, side="right"))
        if last == 0:
            return None
        self.rest = cut(frame, last, frame.n) if last < frame.n else None
        return cut(frame, 0, last) if last < frame.n else frame

    def save(self) -> bytes:
        """Nothing: the archive stays where it is."""
        return b""


class Pit:
    """One symbol: its source, its floor, and the frames that a returning client may ask for."""

    def __init__(self, floor: Floor, source: Simulated | Recorded | Relayed):
        self.floor, self.source = floor, source
        self.ring: deque[tuple[Frame, bytes]] = deque(maxlen=RING_FRAMES)
        self.before: deque[tuple[int, bytes]] = deque()  # (first event, source as it was before) of each unworked frame
        self.last_ms = 0

    def source_before(self) -> bytes:
        """The source as it stood before the first event that is not worked."""
        while len(self.before) > 1 and self.before[1][0] <= self.floor.next_seq:
            self.before.popleft()
        return self.before[0][1] if self.before and self.floor.frames else self.source.save()


class Exchange:
    """Pits, clients and the clock."""

    def __init__(self, settings: Settings, exporter: Exporter, clock: Callable[[], float] = time.monotonic,
                 wall: Callable[[], float] = time.time):
        x = self.x = settings.exchange
        self.settings, self.exporter, self.clock = settings, exporter, clock
        self.speed = 0.0 if x.speed == "max" else float(x.speed)
        self.lockstep = settings.lockstep
        self.journal = VenueJournal(settings.folder("data") / f"exchange{'-' + settings.instance if settings.instance else ''}.db")
        root, symbols = (Path(), x.symbols)
        if x.market == "recording":
            root, symbols = importers.open_recording(x.recording, settings.folder("data") / "recordings")
        relay = None
        if x.market == "frames":
            topic = f"{x.recording}.{MD_FRAMES}" if x.recording else str(MD_FRAMES)
            if topic == named(MD_FRAMES, settings):
                raise config.ConfigError(["feed: the desk would trade on what it writes itself; give it a feed of its own (SLUICE_FEED)"])
            relay = Relay(settings, topic, symbols)
        made_from = x.recording if x.market != "sim" else f"{x.seed} {self.model_of(symbols)}"
        what = f"{x.market}|{made_from}|{','.join(symbols)}"
        saved = self.journal.floors()
        before_ms = max((floor.known_ms for floor, _ in saved.values()), default=0)
        starts_ms = max(int(wall() * 1000), before_ms + 1)       # market time never goes back, whatever the clock was set to
        self.session, start_ms, goes_on = self.journal.session(what, starts_ms, x.session)
        if start_ms == before_ms + 1 and not goes_on:
            log.info("the clock stands before the market's last event: the new session begins behind that, at %d ms", start_ms)
        if x.market == "recording" and saved and not goes_on:
            raise SystemExit(
                f"exchange.recording: {x.recording!r} was played in this instance before, and its account lives on after it; "
                "name another run: SLUICE_INSTANCE=NAME SLUICE_FEED=NAME"
            )
        self.pits: dict[str, Pit] = {}
        for symbol in symbols:
            instrument = settings.instrument(symbol)
            state = saved.get(symbol)
            floor = Floor(
                Matching(symbol, instrument, settings.matching, state[0].session if state else self.session),
                self.session,
                settings.matching.latency_ms,
                self.lockstep,
            )
            ended: list[Report | Fill] = []
            if state:
                floor.load(state[0])
                if not goes_on:
                    ended = floor.renew(Matching(symbol, instrument, settings.matching, self.session), self.session)
            source: Simulated | Recorded | Relayed
            if x.market == "sim":
                model = settings.market[symbol]
                source = Simulated(
                    Simulator(symbol, instrument, model, x.seed, start_ms, self.session), state[1] if state and goes_on else b""
                )
            elif relay:
                source = Relayed(relay, symbol, self.session, floor.next_seq)
            else:
                source = Recorded(root, symbol, self.session, floor.next_seq, settings.frames.max_events)
            self.pits[symbol] = Pit(floor, source)
            if ended:
                self.keep(symbol, ended)
        self.shut: dict[str, Floor] = {}     # of symbols that an earlier session had, and this one has not: nothing rests there
        for symbol in sorted((saved.keys() - set(symbols)) & settings.symbols.keys()):
            floor = self.shut[symbol] = Floor(Matching(symbol, settings.instrument(symbol), settings.matching, saved[symbol][0].session),
                                              saved[symbol][0].session, settings.matching.latency_ms, self.lockstep)
            floor.load(saved[symbol][0])
            if floor.session != self.session:
                ended = floor.renew(Matching(symbol, settings.instrument(symbol), settings.matching, self.session), self.session)
                self.journal.commit(symbol, floor.save(), b"", ended)
        self.feeds: dict[asyncio.StreamWriter, dict[str, int]] = {}
        self.traders: dict[asyncio.StreamWriter, None] = {}      # in the order in which they came
        self.base: tuple[float, int] | None = None
        self.over = asyncio.Event()
        self.failure: JournalError | None = None
        self.wake = asyncio.Event()
        log.info(
            "market %s, session %s%s, speed %s%s",
            what,
            self.session,
            " (goes on)" if goes_on else "",
            x.speed,
            ", paced by the desk" if self.lockstep else "",
        )

    def markets(self) -> dict[str, int]:
        """The session's symbols; the time of the last event where one is over, else 0."""
        return {symbol: pit.last_ms if pit.source.ended else 0 for symbol, pit in self.pits.items()}

    def model_of(self, symbols: list[str]) -> str:
        """Which simulated market: another model or instrument is another session."""
        parts = [config.fingerprint(part) for s in symbols for part in (self.settings.market[s], self.settings.instrument(s))]
        return hashlib.sha256("".join(parts).encode()).hexdigest()[:12]

    # the market

    def now_ms(self) -> int:
        """Market time that the clock has reached; on relayed frames, that of the last of them."""
        if self.x.market == "frames":
            return max(pit.last_ms for pit in self.pits.values())
        if not self.speed:
            return 2**62
        if self.base is None:
            firsts = [self._peek(p) for p in self.pits.values()]
            self.base = (self.clock(), min(f for f in firsts if f is not None)) if any(f is not None for f in firsts) else (self.clock(), 0)
        wall, market = self.base
        return market + int((self.clock() - wall) * 1000 * self.speed)

    @staticmethod
    def _peek(pit: Pit) -> int | None:
        if isinstance(pit.source, Simulated):
            return pit.source.simulator.now_ms
        assert isinstance(pit.source, Recorded)
        frame = pit.source.next(2**62, 1 << 30)
        if frame is None:
            return None
        pit.source.rest = frame
        return int(frame.times[0])

    def beat(self) -> int:
        """Publishes what the clock allows, the earliest symbol first; returns how many events."""
        now, events = self.now_ms(), 0
        waiting = {s: p for s, p in self.pits.items() if not p.source.ended}
        while waiting:
            symbol, pit = min(waiting.items(), key=lambda item: (item[1].last_ms, item[0]))
            if self.lockstep and len(pit.floor.frames) >= LEAD_FRAMES:
                break
            before = pit.source.save() if self.lockstep else b""
            frame = pit.source.next(now, self.settings.frames.max_events)
            if frame is None:
                if pit.source.ended:
                    self._tell_feeds(symbol, packed(Ended(symbol)), None)
                    self.work(symbol, answer=self.lockstep)
                del waiting[symbol]
                continue
            pit.before.append((frame.seq, before))
            pit.last_ms = int(frame.times[-1])
            events += frame.n
            blob = packed(frame)
            pit.ring.append((frame, blob))
            pit.floor.publish(frame)
            self._tell_feeds(symbol, blob, frame)
            if events > 20_000:
                break
        for symbol, pit in self.pits.items():
            if not self.lockstep:
                self.work(symbol, now)
            elif pit.floor.frames and min(pit.floor.limit_ms, pit.last_ms) > pit.floor.known_ms:
                self.work(symbol, answer=True)      # promised before it was published, as after a restart
        return events

    def work(self, symbol: str, now_ms: int = 0, answer: bool = False) -> None:
        """Lets a floor go as far as it may, writes down what happened, then tells it."""
        pit = self.pits[symbol]
        happened = pit.floor.work(now_ms)
        if happened:
            self.keep(symbol, happened)
        now = (pit.floor.known_ms, pit.floor.told)
        if happened or answer:
            self._tell_traders(Happened(symbol, self.session, *now, happened, self.markets()))

    def keep(self, symbol: str, happened: list[Report | Fill] | None = None) -> None:
        """Writes the floor down."""
        if symbol in self.shut:
            self.journal.commit(symbol, self.shut[symbol].save(), b"", happened or [])
            return
        pit = self.pits[symbol]
        self.journal.commit(symbol, pit.floor.save(), pit.source_before(), happened or [])

    def closed(self, symbol: str) -> None:
        """Works and answers what came for a symbol that has no market any more."""
        floor = self.shut[symbol]
        happened = floor.shut()
        self.keep(symbol, happened)
        self._tell_traders(Happened(symbol, self.session, floor.known_ms, floor.told, happened, self.markets()))

    def _tell_feeds(self, symbol: str, blob: bytes, frame: Frame | None) -> None:
        for writer, due in list(self.feeds.items()):
            if symbol not in due:
                continue
            if writer.transport.get_write_buffer_size() > BUFFER:
                log.warning("a market client is more than %d MB behind: hung up", BUFFER >> 20)
                writer.close()
                self.feeds.pop(writer, None)
                continue
            if frame is not None:
                if frame.seq + frame.n <= due[symbol]:
                    continue
                if frame.seq < due[symbol]:
                    blob = packed(cut(frame, due[symbol] - frame.seq, frame.n))
                due[symbol] = frame.seq + frame.n
            writer.write(blob)

    def _tell_traders(self, happened: Happened) -> None:
        blob = packed(happened)
        for writer in self.traders:
            writer.write(blob)

    # clients

    async def client(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection until it hangs up."""
        try:
            writer.write(packed(Hello(self.session, self.lockstep, list(self.pits), self.x.market, self.journal.id)))
            while True:
                self.request(await message(reader, "request"), writer)
                await writer.drain()
        except (ConnectionError, asyncio.CancelledError):
            pass
        except JournalError as error:       # what cannot be written down has not happened: nobody is told, and the venue ends
            self.failure = error
            self.over.set()
            self.wake.set()
        finally:
            self.feeds.pop(writer, None)
            self.traders.pop(writer, None)
            writer.close()

    def request(self, request, writer: asyncio.StreamWriter) -> None:
        """What a client asks for."""
        if isinstance(request, Place):
            self.order(request.order.symbol, lambda floor: floor.place(request.order))
        elif isinstance(request, TakeBack):
            self.order(request.cancel.symbol, lambda floor: floor.cancel(request.cancel))
        elif isinstance(request, Promise):
            if request.symbol in self.shut:
                self.shut[request.symbol].promise(request.upto_ms, request.seen)
                self.closed(request.symbol)
            elif request.symbol in self.pits:
                self.pits[request.symbol].floor.promise(request.upto_ms, request.seen)
                if self.lockstep:
                    self.work(request.symbol, answer=True)
                    self.wake.set()
        elif isinstance(request, Subscribe):
            self.subscribe(request, writer)
        elif isinstance(request, Resume):
            self.traders[writer] = None
            for symbol, floor in (*((symbol, pit.floor) for symbol, pit in self.pits.items()), *self.shut.items()):
                missed = list(self.journal.after(symbol, request.after.get(symbol, 0)))
                writer.write(packed(Happened(symbol, self.session, floor.known_ms, floor.told, missed, self.markets())))
        elif isinstance(request, Ask):
            writer.write(packed(Answered(request.number, self.standing(request.symbol, request.orders))))

    def standing(self, symbol: str, asked: Sequence[str]) -> Standing:
        """What stands of a symbol; nothing of one that is not traded here."""
        floor = self.pits[symbol].floor if symbol in self.pits else self.shut.get(symbol)
        if floor is None:
            return Standing(symbol, self.journal.id, 0, 0, 0.0, 0.0, 0.0, 0.0, {}, dict.fromkeys(asked, ""))
        matching = floor.matching
        resting = {o.order_id: o.qty - o.filled for o in matching.open_orders()}
        return Standing(
            symbol,
            self.journal.id,
            matching.seq,
            floor.known_ms,
            matching.position * matching.instrument.lot,
            floor.holding.average,
            floor.holding.realized_usd,
            floor.holding.fees_usd,
            resting,
            {order_id: matching.status(order_id) for order_id in asked},
            (matching.positions[TWIN] * matching.instrument.lot, floor.twin.average, floor.twin.realized_usd),
        )

    def order(self, symbol: str, act: Callable[[Floor], None]) -> None:
        """An order or cancel: taken, written down, worked."""
        if symbol in self.shut:
            act(self.shut[symbol])
            self.closed(symbol)
            return
        pit = self.pits.get(symbol)
        if pit is None:
            log.error("an order for %s, which is not traded here", symbol)
            return
        act(pit.floor)
        self.keep(symbol)
        self.work(symbol)

    def subscribe(self, request: Subscribe, writer: asyncio.StreamWriter) -> None:
        """What the client missed from the ring, then all that comes."""
        due = {s: (request.due.get(s, 0) if request.session == self.session else 0) for s in request.symbols if s in self.pits}
        self.feeds[writer] = due
        for symbol in due:
            for frame, blob in self.pits[symbol].ring:
                if frame.seq + frame.n > due[symbol]:
                    writer.write(blob if frame.seq >= due[symbol] else packed(cut(frame, due[symbol] - frame.seq, frame.n)))
                    due[symbol] = frame.seq + frame.n
            if self.pits[symbol].source.ended:
                writer.write(packed(Ended(symbol)))

    def through(self, pit: Pit) -> bool:
        """All of its market is worked, and a desk that paces it has thought about its last event."""
        return not pit.floor.frames and (not self.lockstep or pit.floor.promise_ms >= pit.last_ms)

    async def run(self) -> None:
        """Serves until stopped, or until a recording is played and worked to its end."""
        server = await asyncio.start_server(self.client, self.x.host, self.x.port, limit=1 << 20)
        saved, quiet, thought = self.clock(), 0, [(0, 0)]
        try:
            while not self.over.is_set():
                if self.feeds or not self.lockstep:
                    events = self.beat()
                else:
                    events = 0
                if self.clock() - saved > 1:
                    saved = self.clock()
                    for symbol in self.pits:
                        self.keep(symbol)
                if all(p.source.ended for p in self.pits.values()):
                    promised = [(pit.floor.promise_ms, pit.floor.seen) for pit in self.pits.values()]
                    quiet, thought = quiet + 1 if promised == thought else 0, promised      # a desk that is slow is waited for
                    patience = LINGER_S if all(map(self.through, self.pits.values())) else 60 if self.traders else AWAY_S
                    if quiet * 0.05 > patience:
                        log.info("the market is over")
                        self.journal.end(self.session)
                        break
                    await asyncio.sleep(0.05)
                else:
                    self.wake.clear()
                    try:
                        await asyncio.wait_for(self.wake.wait(), 0.0005 if events and not self.speed else BEAT_S)
                    except TimeoutError:
                        pass
            if self.failure:
                raise self.failure
            for symbol in self.pits:
                self.keep(symbol)
        finally:
            server.close()
            for writer in [*self.feeds, *self.traders]:
                writer.close()


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m streams.exchange", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--config", action="append", default=[], help="YAML that overrides config/default.yaml")
    parser.add_argument("--market", choices=("sim", "recording", "frames"), help="overrides exchange.market")
    parser.add_argument("--metrics-port", type=int, default=0, help="Prometheus metrics (default: none)")
    args = parser.parse_args(argv)
    setup_logging()
    settings = config.load(*args.config, env=None if not args.market else {**os.environ, "SLUICE_MARKET": args.market})
    exporter = Exporter(settings.exchange.symbols)
    stop, status = Stop("exchange"), 0
    disk.usable(settings.folder("data"), "paths.data")
    served = exporter.serve(args.metrics_port, settings.ports.bind) if args.metrics_port else None

    async def serve() -> None:
        exchange = Exchange(settings, exporter)
        exporter.set(m.SERVICE_READY, 1, service="exchange")
        stop.attach(exchange.over)
        await exchange.run()

    try:
        asyncio.run(serve())
    except (ArchiveError, importers.RecordingError, bus.BusDown, JournalError) as error:
        print(f"exchange: {error}", file=sys.stderr)
        status = 1
    except OSError as error:
        where = f"exchange.port: {settings.exchange.host}:{settings.exchange.port} cannot be opened ({error.strerror}); "
        print(f"exchange: {disk.said(error)}" if disk.is_disk(error) else f"{where}set SLUICE_EXCHANGE_PORT", file=sys.stderr)
        status = 1
    finally:
        if served:
            served()
    stop.leave(status)


if __name__ == "__main__":
    raise SystemExit(main())
