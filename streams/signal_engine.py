"""Frames to candidates: book and flow features, entry triggers. `python -m streams.signal_engine`"""

import logging

from config.settings import Settings
from engine import metrics as m
from engine.facts import Candidates, Frame, cut
from engine.scoring.signals import SignalEngine
from store.exporter import Exporter
from streams.codec import decode, encode
from streams.stage import Stateful
from streams.topics import MD_FRAMES, SIG_CANDIDATES
from streams.worker import Worker, since_ms

log = logging.getLogger("sluice.signal_engine")


class Engines:
    """One signal engine a symbol; a frame told twice is passed over, a new session starts anew."""

    def __init__(self, settings: Settings):
        self.settings = settings
        self.engines: dict[str, SignalEngine] = {}
        self.due: dict[str, tuple[str, int]] = {}

    def fresh(self, symbol: str) -> SignalEngine:
        """An engine that has seen nothing."""
        s = self.settings
        return SignalEngine(symbol, s.instrument(symbol), s.windows, s.triggers, s.regimes)

    def on(self, frame: Frame) -> Candidates | None:
        """The candidates of a frame, None where it brings nothing new."""
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

    def parts(self) -> dict[str, bytes]:
        """All engines' states."""
        return {f"{symbol}|{session}|{due}": self.engines[symbol].snapshot() for symbol, (session, due) in self.due.items()}

    def restore(self, parts: dict[str, bytes]) -> None:
        """Continues from `parts`."""
        for name, blob in parts.items():
            symbol, session, due = name.split("|")
            self.engines[symbol] = self.fresh(symbol)
            self.due[symbol] = (session, int(due))
            try:
                self.engines[symbol].restore(blob)
            except ValueError as error:      # other settings or features than before: windows fill anew
                log.warning("%s: the kept state is not of this configuration, the engine warms up again (%s)", symbol, error)
                self.engines[symbol] = self.fresh(symbol)


def make(settings: Settings, exporter: Exporter, made: type[Worker] = Worker) -> Worker:
    """The service's worker; `made` is what carries its records."""
    worker = made("signal_engine", settings, exporter, [MD_FRAMES])
    engines = Engines(settings)

    async def on_frame(record) -> None:
        frame = decode(record.value, f"{record.topic}/{record.partition}/{record.offset}")
        exporter.inc(m.FRAMES_TOTAL, service="signal_engine", symbol=frame.symbol)
        candidates = engines.on(frame)
        if candidates is not None:
            stage.sent(await worker.send(SIG_CANDIDATES, frame.symbol, encode(candidates)))
            for c in candidates.items:
                exporter.inc(m.CANDIDATES_TOTAL, symbol=c.symbol, side=c.side)
            exporter.observe(m.STAGE_LATENCY_MS, since_ms(frame.sent_ms), service="signal_engine")

    stage = Stateful(worker, on_frame, engines.parts, engines.restore)
    return worker


if __name__ == "__main__":
    from streams.service import main

    raise SystemExit(main("signal_engine"))
