"""The port to the local exchange: one socket for the market, one for orders."""
import asyncio
from collections.abc import AsyncIterator, Sequence

from config.settings import Settings
from engine.facts import Cancel, Frame, Order, Standing
from streams.venues.port import Answered, Ask, Ended, Happened, Hello, Place, Promise, Resume, Subscribe, TakeBack
from streams.venues.wire import message, packed

ANSWER_S = 5.0


def venue_of(settings: Settings) -> "LocalVenue":
    """The configured venue's adapter; `SystemExit` for one that has none."""
    if settings.venue.venue not in ("sim", "recording"):
        raise SystemExit(f"venue.venue: {settings.venue.venue} has no adapter in this version; sim and recording have (EXCHANGE_VENUE)")
    return LocalVenue(settings.exchange.host, settings.exchange.port)


class LocalVenue:
    """A client of `python -m streams.exchange`."""

    def __init__(self, host: str, port: int):
        self.host, self.port = host, port
        self.hello: Hello | None = None
        self._answers: asyncio.Queue[Answered | None] = asyncio.Queue()
        self._asking = asyncio.Lock()
        self._asked = 0

    async def connect(self, patience_s: float = 30.0) -> Hello:
        """Waits for the exchange as long as told; `ConnectionError` names its address."""
        loop = asyncio.get_running_loop()
        until = loop.time() + patience_s
        while True:
            try:
                self.reader, self.writer = await asyncio.open_connection(self.host, self.port, limit=1 << 20)
                try:
                    async with asyncio.timeout(ANSWER_S):
                        hello = await message(self.reader, "answer")
                    break
                except OSError:
                    await self.close()
                    raise
            except OSError as error:
                if loop.time() >= until:
                    raise ConnectionError(f"no exchange at {self.host}:{self.port} (exchange.host, exchange.port): {error}") from error
                await asyncio.sleep(0.1)
        assert isinstance(hello, Hello)
        self.hello = hello
        return hello

    async def market(self, symbols: Sequence[str], session: str, due: dict[str, int]) -> AsyncIterator[Frame | Ended]:
        """Frames from the event numbers that are due; the exchange starts at 0 in a session that we do not know."""
        self.writer.write(packed(Subscribe(list(symbols), session, due)))
        await self.writer.drain()
        while True:
            got = await message(self.reader, "answer")
            if isinstance(got, (Frame, Ended)):
                yield got

    async def _send(self, request) -> None:
        self.writer.write(packed(request))
        await self.writer.drain()

    async def place(self, order: Order) -> None:
        """Sends an order; whether the venue took it is a report's word."""
        await self._send(Place(order))

    async def cancel(self, cancel: Cancel) -> None:
        """Asks an order back."""
        await self._send(TakeBack(cancel))

    async def promise(self, symbol: str, upto_ms: int, seen: int) -> None:
        """Lets a paced market go on."""
        await self._send(Promise(symbol, upto_ms, seen))

    async def happenings(self, after: dict[str, int]) -> AsyncIterator[Happened]:
        """Reports and fills after these numbers, told again where need be, then as they come."""
        await self.again(after)
        async for got in self._told():
            yield got

    async def read(self) -> None:
        """Hears answers to questions where nobody listens to `happenings`, until the line breaks."""
        async for _ in self._told():
            pass

    async def _told(self) -> AsyncIterator[Happened]:
        try:
            while True:
                got = await message(self.reader, "answer")
                if isinstance(got, Happened):
                    yield got
                elif isinstance(got, Answered):
                    self._answers.put_nowait(got)
        finally:
            self._answers.put_nowait(None)

    async def again(self, after: dict[str, int]) -> None:
        """Has what happened after these numbers told again, to `happenings`."""
        await self._send(Resume(after))

    async def standing(self, symbol: str, orders: Sequence[str] = ()) -> Standing:
        """What stands, after all that `happenings` (which must run, or `read`) has told by then; `TimeoutError` without an answer."""
        async with self._asking:
            self._asked += 1
            await self._send(Ask(symbol, list(orders), self._asked))
            async with asyncio.timeout(ANSWER_S):
                while True:
                    got = await self._answers.get()
                    if got is None:
                        raise ConnectionError("the exchange hung up")
                    if got.number == self._asked:       # an answer to an earlier question says what stood then
                        return got.standing

    async def close(self) -> None:
        """Hangs up at once, whatever the other end does."""
        self.writer.transport.abort()
