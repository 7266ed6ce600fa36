"""Services and the local exchange in the test's own process, on a real broker: started, stopped and looked into one by one."""
import asyncio
import importlib
from collections.abc import Callable
from pathlib import Path

import msgspec

from config.settings import Settings
from engine import metrics as m
from store import bus
from store.exporter import Exporter
from streams import admin
from streams.codec import decode
from streams.exchange import Exchange
from streams.topics import Topic, named
from streams.worker import Worker


async def until(true: Callable[[], object], seconds: float = 30) -> None:
    """Waits for something that must become true; `TimeoutError` where it does not."""
    async with asyncio.timeout(seconds):
        while not true():
            await asyncio.sleep(0.02)


def at(settings: Settings, folder: Path | None = None, **exchange) -> Settings:
    """The settings with another data folder, and fields of the exchange replaced."""
    paths = msgspec.structs.replace(settings.paths, data=str(folder)) if folder else settings.paths
    return msgspec.structs.replace(settings, paths=paths, exchange=msgspec.structs.replace(settings.exchange, **exchange))


class Services:
    """What runs in this loop; everything that is left is ended by `async with`."""

    def __init__(self, settings: Settings):
        self.settings, self.exporter = settings, Exporter(sorted(settings.symbols), arms=settings.bandit.arms)
        self.workers: dict[str, Worker] = {}
        self.running: dict[Exchange, asyncio.Task] = {}

    async def __aenter__(self) -> "Services":
        await asyncio.to_thread(admin.ensure, self.settings)
        return self

    async def __aexit__(self, *_) -> None:
        for exchange in list(self.running):
            await self.close(exchange)
        for name in list(self.workers):
            await self.stop(name)

    async def start(self, *names: str) -> None:
        """Services by name; ready when this returns."""
        for name in names:
            worker = self.workers[name] = importlib.import_module(f"streams.{name}").make(self.settings, self.exporter)
            worker.app.loop = asyncio.get_running_loop()
            await worker.app.start()

    async def stop(self, name: str) -> None:
        """One service, in order."""
        await self.workers.pop(name).app.stop()

    async def exchange(self, settings: Settings | None = None) -> Exchange:
        """A local exchange that listens."""
        one = Exchange(settings or self.settings, self.exporter)
        self.running[one] = asyncio.create_task(one.run())
        await asyncio.sleep(0.05)
        return one

    async def close(self, exchange: Exchange) -> None:
        """Ends an exchange; its port is free when this returns."""
        exchange.over.set()
        await self.running.pop(exchange)

    async def said(self, topic: Topic) -> list:
        """Everything on a topic up to now."""
        name = named(topic, self.settings)
        records = await asyncio.to_thread(lambda: list(bus.read(self.settings, name)))
        return [decode(r.value) for r in records]

    async def tell(self, topic: Topic, *records: tuple[str, bytes]) -> None:
        """Records (key, value) on a topic, as the service would write that comes before."""
        def send() -> None:
            with bus.Publisher(self.settings) as out:
                out.send_all(named(topic, self.settings), records)
        await asyncio.to_thread(send)

    def shows(self, series: m.Series, **labels: str) -> float:
        """A series as the endpoint answers it."""
        want = series(**labels)
        for line in self.exporter.text().splitlines():
            name, _, value = line.rpartition(" ")
            if name == want:
                return float(value)
        raise LookupError(want)
