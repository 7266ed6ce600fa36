"""The book of each symbol as the collector framed it last, read from the broker beside the desk while somebody looks.

One thread for all who look; it ends itself when nobody has asked for a while. Without a broker there is no book, and why is said.
"""
import threading
import time

import msgspec
import pandas as pd
import streamlit as st

from config.settings import Settings
from dashboard import data
from engine.facts import BOOK, BUY, SELL, Frame
from store import bus

IDLE_S, AGAIN_S, POLL_MS = 20.0, 5.0, 300
COLUMNS = ["price", "qty", "side"]
STARTING = "reading the book from the broker …"


class Books:
    """The last book of each symbol as a table of `COLUMNS`, and why there is none."""

    def __init__(self, settings: Settings):
        self.settings, self.topic = settings, f"{settings.feed}.md.frames" if settings.feed else "md.frames"
        self.lock, self.asked = threading.Lock(), 0.0
        self.thread: threading.Thread | None = None
        self.last: dict[str, Frame] = {}
        self.why = STARTING

    def of(self, symbol: str) -> tuple[pd.DataFrame | None, str]:
        """The book now, or none and why."""
        with self.lock:
            self.asked = time.monotonic()
            if self.thread is None or not self.thread.is_alive():
                self.thread = threading.Thread(target=self._run, name="console-books", daemon=True)
                self.thread.start()
            frame = self.last.get(symbol)
        return (None, self.why) if frame is None else (table(frame), "")

    def _run(self) -> None:
        while time.monotonic() - self.asked < IDLE_S:
            try:
                self._read()
            except (bus.BusDown, msgspec.MsgspecError) as error:
                self.last.clear()
                self.why = f"no book beside it: {error}"
                time.sleep(AGAIN_S)
        self.last.clear()
        self.why = STARTING

    def _read(self) -> None:
        decode = msgspec.msgpack.Decoder(Frame).decode
        with bus.consumer(self.settings.kafka) as client:
            parts = bus.partitions(client, [self.topic])
            if not parts:
                self.why = f"no book beside it: the broker has no topic {self.topic}"
                time.sleep(AGAIN_S)
                return
            client.assign(parts)
            client.seek_to_end(*parts)
            while time.monotonic() - self.asked < IDLE_S:
                for records in client.poll(POLL_MS).values():
                    for record in records:
                        frame = decode(record.value)
                        if BOOK in frame.kind:
                            self.last[frame.symbol] = frame


def table(frame: Frame) -> pd.DataFrame:
    """The last book of a frame, both sides, in quote currency and base units."""
    row = frame.book_rows[-1]
    return pd.DataFrame([(round(int(ticks) * frame.tick, 10), int(lots) * frame.lot, side) for side, at in ((BUY, 0), (SELL, 2))
                         for ticks, lots in zip(row[at], row[at + 1]) if lots], columns=COLUMNS)


@st.cache_resource(show_spinner=False, max_entries=2)
def _books(_settings: Settings, name: int) -> Books:
    return Books(_settings)


def book(symbol: str) -> tuple[pd.DataFrame | None, str]:
    """The symbol's book, or none and why."""
    settings = data.settings()
    return _books(settings, hash(repr(settings))).of(symbol)
