"""Our own `md.frames` as a market: paper trading on the data of another venue, with the local exchange's matching.

A thread reads the topic of another feed from its end; what comes is given a session and event numbers of its own. What was missed
while the exchange was down is a gap in time, which the collector counts.
"""
import logging
import queue
import threading

import msgspec

from config.settings import Settings
from engine.facts import Frame
from store import bus
from streams.codec import BadRecord, decode

log = logging.getLogger("sluice.exchange")
POLL_MS = 20


class Relay:
    """Frames of the wanted symbols as they come to `topic`, in a queue a symbol."""

    def __init__(self, settings: Settings, topic: str, symbols: list[str]):
        self.queues: dict[str, queue.SimpleQueue[Frame]] = {s: queue.SimpleQueue() for s in symbols}
        self.topic, self.settings, self.stopped = topic, settings, threading.Event()
        if not bus.ends(settings, [topic]):
            where = bus.address(settings.kafka)
            raise bus.BusDown(f"no topic {topic} on {where}: the desk of that feed makes it (exchange.recording names the feed)")
        self.thread = threading.Thread(target=self._read, name="relay", daemon=True)
        self.thread.start()

    def _read(self) -> None:
        with bus.consumer(self.settings.kafka, auto_offset_reset="latest") as client:
            parts = bus.partitions(client, [self.topic])
            client.assign(parts)
            client.seek_to_end(*parts)
            while not self.stopped.is_set():
                for records in client.poll(POLL_MS).values():
                    for record in records:
                        try:
                            self.take(decode(record.value, f"{record.topic}/{record.partition}/{record.offset}"))
                        except BadRecord as error:
                            log.error("passed over: %s", error)

    def take(self, frame: Frame) -> None:
        """A frame of the other feed; one in other ticks or lots than this desk's is passed over, and said once."""
        waiting = self.queues.get(frame.symbol)
        if waiting is None:
            return
        instrument = self.settings.instrument(frame.symbol)
        if (frame.tick, frame.lot) == (instrument.tick, instrument.lot):
            waiting.put(frame)
        else:
            log.error("%s: frames in ticks of %g and lots of %g, config/symbols.yaml says %g and %g: not traded", frame.symbol, frame.tick,
                      frame.lot, instrument.tick, instrument.lot)
            del self.queues[frame.symbol]


class Relayed:
    """One symbol of a relay as a source of frames."""

    def __init__(self, relay: Relay, symbol: str, session: str, due: int):
        self.relay, self.symbol, self.session, self.due, self.ended = relay, symbol, session, due, False

    def next(self, upto_ms: int, most: int) -> Frame | None:
        """The next frame that came, under our own session and numbers; the clock is the other venue's."""
        waiting = self.relay.queues.get(self.symbol)
        if waiting is None or waiting.empty():
            return None
        frame = msgspec.structs.replace(waiting.get(), session=self.session, seq=self.due)
        self.due += frame.n
        return frame

    def save(self) -> bytes:
        """Nothing: what was not taken is gone."""
        return b""
