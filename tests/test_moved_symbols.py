"""A symbol that is taken away from an instance: what rested there is taken back, and nobody waits for its market."""
import asyncio

import pytest
from services import at

from benchmarks.stream import free_port
from config.settings import Settings, load
from engine.facts import ACCEPTED, BUY, CANCELLED, ENTRY, LIMIT, REJECTED, Frame, Order
from store.exporter import Exporter
from streams.exchange import Exchange
from streams.venues.local import LocalVenue

GONE, STAYS = "ETHUSDT", "SOLUSDT"


class Venue:
    """An exchange on a paced market in this loop and a desk's line to it; `told` has what it said."""

    def __init__(self, settings: Settings):
        self.settings, self.exchange = settings, Exchange(settings, Exporter(sorted(settings.symbols)))
        self.line, self.told = LocalVenue("127.0.0.1", settings.exchange.port), []

    async def __aenter__(self) -> "Venue":
        self.running = asyncio.create_task(self.exchange.run())
        self.hello = await self.line.connect(10)
        self.hearing = asyncio.create_task(self.hear())
        return self

    async def hear(self) -> None:
        async for happened in self.line.happenings({}):
            self.told.append(happened)

    async def until(self, true) -> None:
        async with asyncio.timeout(20):
            while not any(true(h) for h in self.told):
                await asyncio.sleep(0.01)

    async def reported(self, order_id: str, status: str) -> None:
        await self.until(lambda h: any(getattr(i, "status", "") == status and i.order_id == order_id for i in h.items))

    async def __aexit__(self, *_) -> None:
        self.hearing.cancel()
        self.exchange.over.set()
        await self.running
        await self.line.close()


def order(name: str, ts_ms: int) -> Order:
    return Order(name, ENTRY, name, GONE, BUY, 0.1, 300.0, LIMIT, True, False, "paper", 0, ts_ms)      # far below: it rests


@pytest.mark.parametrize("again", [1, 2])
def test_what_rested_in_a_symbol_that_is_taken_away_is_taken_back_and_the_desk_is_let_go_on_in_it(tmp_path, again):
    async def story() -> None:
        settings = at(load(env={"SPEED": "max"}), tmp_path, port=free_port(), symbols=[GONE, STAYS])
        async with Venue(settings) as before:
            market = LocalVenue("127.0.0.1", settings.exchange.port)
            await market.connect(10)
            async for frame in market.market([GONE], before.hello.session, {}):
                if isinstance(frame, Frame) and frame.symbol == GONE:
                    break
            ts = int(frame.times[0])
            await before.line.place(order("E-1", ts))
            await before.line.promise(GONE, ts + 1000, 0)
            await before.reported("E-1", ACCEPTED)
            await market.close()
        for _ in range(again):          # taken away, and started once more without it
            async with Venue(at(settings, port=free_port(), symbols=[STAYS])) as after:
                assert after.hello.symbols == [STAYS]
                await after.reported("E-1", CANCELLED)
                assert all(set(h.markets) == {STAYS} for h in after.told), "a symbol without a market would be waited for"
        async with Venue(at(settings, port=free_port(), symbols=[STAYS])) as after:
            await after.until(lambda h: h.symbol == GONE)
            seen = max(h.upto_seq for h in after.told if h.symbol == GONE)
            await after.line.promise(GONE, ts + 50_000, seen)
            await after.until(lambda h: h.symbol == GONE and h.upto_ms >= ts + 50_000)
            await after.line.place(order("E-2", ts + 60_000))
            await after.reported("E-2", REJECTED)          # there is no book
            standing = await after.line.standing(GONE, ["E-2"])
            assert (standing.open_orders, standing.asked) == ({}, {"E-2": "ended"})
        async with Venue(at(settings, port=free_port(), symbols=[GONE, STAYS])) as back:      # and is given back
            assert set(back.hello.symbols) == {GONE, STAYS}
            await back.reported("E-2", REJECTED)
    asyncio.run(story())
