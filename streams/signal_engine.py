"""Frames to candidates: book and flow features, entry triggers. `python -m streams.signal_engine`"""

import logging

from config.settings import Settings
from engine import metrics as m
from engine.facts import Candidates, Frame, cut
from engine.scoring.signals import SignalEngine, warm
from store.exporter import Exporter
from streams.codec import decode, encode
from streams.shares import staged
from streams.topics import MD_FRAMES, SIG_CANDIDATES, STATE_SIGNALS
from streams.worker import Worker, since_ms

log = logging.getLogger("sluice.signal_engine")


class Engines:
    """One signal engine a symbol; a frame told twice is passed over, a new session starts anew.

    `homes`: the partition that each symbol's frames came from, so that a partition's engines can be handed over.
    """

    def __init__(self, settings: Settings):
        self.settings = settings
        self.engines: dict[str, SignalEngine] = {}
        self.due: dict[str, tuple[str, int]] = {}
        self.homes: dict[str, int] = {}

    def fresh(self, symbol: str) -> SignalEngine:
        """An engine that has seen nothing."""
        s = self.settings
        return SignalEngine(symbol, s.instrument(symbol), s.windows, s.triggers, s.regimes,
                                  s.gates.liquidity_by_side.levels)

    def on(self, frame: Frame, partition: int = 0) -> Candidates | None:
        """The candidates of a frame, None where it brings nothing new."""
        self.homes[frame.symbol] = partition
        session, due = self.due.get(frame.symbol, ("", 0))
        if session != frame.session:
            self.engines[frame.symbol] = self.fresh(frame.symbol)
        elif frame.seq + frame.n <= due:
            return None
        elif frame.seq < due:
            frame = cut(frame, due - frame.seq, frame.n)
        self.due[frame.symbol] = (frame.session, frame.seq + frame.n)
        return Candidates(
            frame.symbol, frame.session, frame.seq, frame.n, int(frame.times[-1]), frame.sent_ms, self.engines[frame.symbol].on(frame)
        )

    def parts(self, partition: int | None = None) -> dict[str, bytes]:
        """The engines' states, of a partition or all."""
        return {
            f"{symbol}|{session}|{due}": self.engines[symbol].snapshot()
            for symbol, (session, due) in self.due.items()
            if partition is None or self.homes[symbol] == partition
        }

    def anew(self) -> None:
        """All windows begin anew with the next frame."""
        for kept in (self.homes, self.engines, self.due):
            kept.clear()

    def forget(self, partition: int) -> None:
        """Another worker has them from now on."""
        for symbol in [s for s, home in self.homes.items() if home == partition]:
            del self.homes[symbol], self.engines[symbol], self.due[symbol]

    def restore(self, parts: dict[str, bytes], partition: int = 0) -> None:
        """Continues from `parts`."""
        for name, blob in parts.items():
            symbol, session, due = name.split("|")
            self.homes[symbol] = partition
            self.engines[symbol] = self.fresh(symbol)
            self.due[symbol] = (session, int(due))
            try:
                self.engines[symbol].restore(blob)
            except ValueError as error:      # other settings or features than before: windows fill anew
                log.warning("%s: the kept state is not of this configuration, the engine warms up again (%s)", symbol, error)
                self.engines[symbol] = self.fresh(symbol)


def make(settings: Settings, exporter: Exporter, made: type[Worker] = Worker) -> Worker:
    """The service's worker; `made` is what carries its records."""
    warm()      # a worker that compiles is silent, and one that is silent for long loses its partitions
    worker = made("signal_engine", settings, exporter, [MD_FRAMES])
    engines = Engines(settings)

    async def on_frame(record) -> None:
        frame = decode(record.value, f"{record.topic}/{record.partition}/{record.offset}")
        exporter.inc(m.FRAMES_TOTAL, service="signal_engine", symbol=frame.symbol)
        candidates = engines.on(frame, record.partition)
        if candidates is not None:
            stage.sent(await worker.send(SIG_CANDIDATES, frame.symbol, encode(candidates)))
            for c in candidates.items:
                exporter.inc(m.CANDIDATES_TOTAL, symbol=c.symbol, side=c.side)
            exporter.observe(m.STAGE_LATENCY_MS, since_ms(frame.sent_ms), service="signal_engine")

    def anew() -> None:
        engines.anew()
        stage.kept.clear()

    stage = staged(worker, on_frame, STATE_SIGNALS, engines)
    stage.writes([SIG_CANDIDATES], anew)
    return worker


if __name__ == "__main__":
    from streams.service import main

    raise SystemExit(main("signal_engine"))
