"""A line between executor and venue that does what lines and venues do: it breaks, says nothing, says it twice, says it in another order.

A process of nobody's: it listens where the executor thinks the venue is and passes messages on, in the virtual town as between real
processes. What it may not do is what no client could survive: a request whose line broke arrives before the question that is asked on
the next line, or never.
"""
import asyncio
from collections import Counter
from typing import NamedTuple

import msgspec
import numpy as np

from streams.venues.port import Answered, Ask, Happened, Place, TakeBack
from streams.venues.wire import message, packed

DEAF_S = (0.2, 7.0)      # that nothing comes through; the executor's patience is 5
LATE_S = 1.5             # at most, that an answer is late, later ones before it
AGAIN_S = 1.0            # at most, after which something comes a second time


class Rates(NamedTuple):
    """The share of messages that each ill befalls: the first five orders, cancels and questions, the others what is told and answered.

    `cut`: the line breaks with the request in hand; `after`: when the venue has it; `deaf`: nothing comes through for a while, in either
    direction; `lost`: it alone gets lost; `twice`: it arrives twice. `unheard`, `again`, `late`, `torn` of answers: lost, told twice,
    behind later ones, each report and fill by itself and in any order.
    """
    cut: float = 0.04
    after: float = 0.04
    deaf: float = 0.02
    lost: float = 0.04
    twice: float = 0.08
    unheard: float = 0.04
    again: float = 0.08
    late: float = 0.08
    torn: float = 0.1

    @property
    def requests(self) -> dict[str, float]:
        """Of what the executor sends."""
        return dict(zip(self._fields[:5], self[:5]))

    @property
    def answers(self) -> dict[str, float]:
        """Of what the venue says."""
        return dict(zip(self._fields[5:], self[5:]))


def drawn(rng: np.random.Generator, shares: dict[str, float]) -> str:
    """One of the ills by its share, or none."""
    x = rng.random()
    for ill, share in shares.items():
        if x < share:
            return ill
        x -= share
    return ""


class Hostile:
    """Listens at `port`, passes on to `to`. `ills` counts what was done, `blind` names orders that came again though nobody had said that
    the venue never had them. `calm`: from now on everything comes through. `asked`: when an answer to a question came through, and how many
    lines there had been by then.
    """

    def __init__(self, port: int, to: int, rates: Rates, seed: int, host: str = "127.0.0.1"):
        self.host, self.port, self.to, self.rates, self.rng = host, port, to, rates, np.random.default_rng(seed)
        self.ills: Counter[str] = Counter()
        self.calm, self.deaf_until = False, 0.0
        self.handed: dict[str, bool] = {}      # orders that the executor has sent; True: and was told that the venue never had
        self.blind: list[str] = []
        self.lines = 0
        self.asked: list[tuple[float, int]] = []
        self.open: set[asyncio.StreamWriter] = set()
        self.tasks: set[asyncio.Task] = set()

    async def serve(self) -> None:
        """Until cancelled."""
        server = await asyncio.start_server(self.client, self.host, self.port, limit=1 << 20)
        try:
            await asyncio.Event().wait()
        finally:
            server.close()
            self.cut()

    @property
    def deaf(self) -> bool:
        """Whether nothing comes through."""
        return asyncio.get_running_loop().time() < self.deaf_until and not self.calm

    def cut(self) -> None:
        """Every line breaks."""
        for writer in self.open:
            writer.transport.abort()
        self.open.clear()

    def ill(self, shares: dict[str, float]) -> str:
        """What befalls this message."""
        ill = "" if self.calm else drawn(self.rng, shares)
        if ill:
            self.ills[ill] += 1
        return ill

    def later(self, seconds: float, writer: asyncio.StreamWriter, blob: bytes) -> None:
        """The same, after a while, where the line still stands."""
        async def send() -> None:
            await asyncio.sleep(seconds)
            if writer in self.open:
                writer.write(blob)
        task = asyncio.get_running_loop().create_task(send())
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)

    async def client(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One line of the executor's until it breaks."""
        try:
            back, out = await asyncio.open_connection(self.host, self.to, limit=1 << 20)
        except OSError:
            writer.transport.abort()
            return
        self.lines += 1
        self.open |= {writer, out}
        answers = asyncio.ensure_future(self.answers(back, writer))
        try:
            while await self.passed(await message(reader, "request"), out):
                await out.drain()
        except ConnectionError:
            pass
        finally:
            answers.cancel()
            for end in (writer, out):
                end.transport.abort()
                self.open.discard(end)

    async def passed(self, request, out: asyncio.StreamWriter) -> bool:
        """What the executor sends; False where the line breaks."""
        blob, act = packed(request), isinstance(request, (Place, TakeBack))
        if isinstance(request, Place):
            if self.handed.get(request.order.id) is False:
                self.blind.append(request.order.id)
            self.handed[request.order.id] = False
        ill = self.ill(self.rates.requests) if act or isinstance(request, Ask) else ""
        if ill == "deaf":
            self.deaf_until = asyncio.get_running_loop().time() + float(self.rng.uniform(*DEAF_S))
        if self.deaf or (ill == "lost" and act):
            return True
        if ill == "cut":
            return False
        out.write(blob)
        if ill == "twice" and act:
            self.later(float(self.rng.uniform(0, AGAIN_S)), out, blob)
        if ill == "after":
            await out.drain()
            await asyncio.sleep(0.002)
            return False
        return True

    async def answers(self, back: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """What the venue says."""
        try:
            while True:
                told = await message(back, "answer")
                if self.deaf:
                    continue
                ill = self.ill(self.rates.answers) if isinstance(told, Answered) or (isinstance(told, Happened) and told.items) else ""
                if ill == "unheard":
                    continue
                if isinstance(told, Answered):
                    self.asked.append((asyncio.get_running_loop().time(), self.lines))
                    for order_id in (i for i, has in told.standing.asked.items() if not has and i in self.handed):
                        self.handed[order_id] = True
                for piece in torn(told, self.rng) if ill == "torn" and isinstance(told, Happened) else [told]:
                    blob = packed(piece)
                    if ill == "late":
                        self.later(float(self.rng.uniform(0, LATE_S)), writer, blob)
                        continue
                    writer.write(blob)
                    if ill == "again":
                        self.later(float(self.rng.uniform(0, AGAIN_S)), writer, blob)
        except ConnectionError:
            writer.transport.abort()


def torn(told: Happened, rng: np.random.Generator) -> list[Happened]:
    """Each report and each fill by itself, in any order."""
    return [msgspec.structs.replace(told, items=[told.items[i]]) for i in rng.permutation(len(told.items))]
