"""The broker's logs in memory: append-only, with offsets, acknowledged a moment later, delivered at least once.

A log is transport. What a producer had on its way when it died arrives up to some record of it, and not beyond; a broker that ends
takes with it what it had not acknowledged; one that comes back empty has another epoch.
"""
import asyncio
import time
from collections import deque
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from benchmarks.crashes.edges import LIFE, Life

ACK_S = 0.001


class Record(NamedTuple):
    """One record, as a reader hands it to a stage; `timestamp` is the wall clock of its writing in ms."""
    topic: str
    partition: int
    offset: int
    timestamp: int
    key: bytes
    value: bytes


class Logs:
    """All topics; `repeats` is the share of records that a producer's retry writes twice."""

    def __init__(self, topics: Sequence[str], rng: np.random.Generator, repeats: float = 0.0):
        self.rng, self.repeats, self.number, self.up, self.stops = rng, repeats, 1, True, 0
        self.names = list(topics)
        self.topics: dict[str, list[Record]] = {t: [] for t in topics}
        self.waiting: deque[tuple[str, bytes, bytes, Life | None, asyncio.Future]] = deque()
        self.cut: set[Life] = set()      # dead producers of which nothing more arrives
        self.grown = asyncio.Event()

    def epochs(self) -> dict[str, str]:
        """Which log each topic is."""
        if not self.up:
            raise ConnectionError("no broker")
        return dict.fromkeys(self.names, f"log{self.number}")

    def send(self, topic: str, key: bytes, blob: bytes) -> asyncio.Future:
        """On its way to the topic; the future is the acknowledgement."""
        if not self.up:
            raise ConnectionError("no broker")
        loop, life = asyncio.get_running_loop(), LIFE.get()
        done = loop.create_future()
        done.add_done_callback(lambda f: f.cancelled() or f.exception())
        self.waiting.append((topic, key, blob, life, done))
        loop.call_later(ACK_S, self._land, self.stops)
        return done

    def _land(self, stops: int) -> None:
        if stops != self.stops:
            return
        topic, key, blob, life, done = self.waiting.popleft()
        if life is not None and not life.alive and (life in self.cut or self.rng.random() < 0.5):
            self.cut.add(life)
            return
        for _ in range(2 if self.repeats and self.rng.random() < self.repeats else 1):
            log = self.topics[topic]
            log.append(Record(topic, 0, len(log), int(time.time() * 1000), key, blob))
        if not done.done():
            done.set_result(None)
        self.tell()

    def tell(self) -> None:
        """Wakes who waits for more."""
        self.grown.set()
        self.grown = asyncio.Event()

    def stop(self) -> None:
        """The broker's process ends."""
        self.up, self.stops = False, self.stops + 1
        for *_, done in self.waiting:
            if not done.done():
                done.set_exception(ConnectionError("the broker is gone"))
        self.waiting.clear()
        self.tell()

    def start(self, empty: bool) -> dict[str, int]:
        """It is back; `empty`: as another log, and how many records each topic had."""
        had = {t: len(log) for t, log in self.topics.items()}
        if empty:
            self.number += 1
            self.topics = {t: [] for t in self.names}
        self.up = True
        return had
