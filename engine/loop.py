"""The closed loop in one process: market → signals → scores → Desk → matching → Desk; what replay and backtest run.

Several symbols share the Desk in market time: the lane whose next consequence is earliest goes first, by symbol at a tie.
"""
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import islice
from typing import Protocol

from engine.desk import Desk, Out
from engine.execution.matching import Matching
from engine.facts import Cancel, Candidate, Frame, Order, Scored
from engine.lane import FOREVER, Lane


class Signals(Protocol):
    """What turns a frame into candidates."""

    def on(self, frame: Frame) -> list[Candidate]: ...


Score = Callable[[list[Candidate]], list[Scored]]


class Road:
    """One symbol's frames, signals, lane and venue."""

    def __init__(self, symbol: str, frames: Iterable[Frame], signals: Signals, score: Score, desk: Desk, venue: Matching, latency_ms: int,
                 batch: int = 1):
        self.symbol, self.signals, self.score, self.venue, self.latency_ms = symbol, signals, score, venue, latency_ms
        self.frames, self.batch = iter(frames), batch
        self.lane = Lane(desk, symbol)
        self.events = self.candidates = 0
        self.at_venue = 0               # next event of the lane's first frame for the venue
        self.frame: Frame | None = None

    def fill(self) -> bool:
        """Takes frames in, scores their candidates in one batch; False at the end."""
        taken = list(islice(self.frames, self.batch))
        proposed = [self.signals.on(frame) for frame in taken]
        flat = [c for candidates in proposed for c in candidates]
        scored = iter(self.score(flat) if flat else [])
        for frame, candidates in zip(taken, proposed):
            self.lane.add(frame, list(islice(scored, len(candidates))))
            self.events += frame.n
        self.candidates += len(flat)
        self.lane.done = not taken
        return bool(taken)

    def serve(self) -> None:
        """Lets the venue work up to what the Desk has promised, until something happens to an order."""
        lane = self.lane
        frame = lane.stretches[0].frame
        last = int(frame.times[-1])
        upto = min(lane.promise_ms + self.latency_ms, last)
        self.at_venue, happened = self.venue.advance(frame, self.at_venue, upto)
        lane.heard(happened, happened[0].ts_ms if happened else upto)

    def leave(self, frame: Frame) -> None:
        """The Desk is through with the frame: the venue works off the rest of it."""
        last = int(frame.times[-1])
        while True:
            self.at_venue, happened = self.venue.advance(frame, self.at_venue, last)
            if happened:
                self.lane.heard(happened, happened[0].ts_ms)
            elif self.at_venue >= frame.n:
                break
        self.lane.heard([], last)
        self.at_venue = 0

    def act(self) -> Iterator[tuple[object, list[Out]]]:
        """The next facts and the Desk's answers, or, where the venue must be heard first, nothing yet."""
        lane = self.lane
        first = lane.stretches[0].frame
        moves = lane.step()
        if moves is None:
            self.serve()
            return
        for fact, outs in moves:
            self.send(outs)
            yield fact, outs
        if not lane.stretches or lane.stretches[0].frame is not first:
            self.leave(first)

    def send(self, outs: list[Out]) -> None:
        """Orders and cancels to the venue."""
        for out in outs:
            if isinstance(out, Order):
                self.venue.place(out)
            elif isinstance(out, Cancel):
                self.venue.cancel(out)

    def finish(self) -> Iterator[tuple[object, list[Out]]]:
        """After the last event: what the venue still had to say."""
        lane = self.lane
        for _ in range(10_000):
            _, happened = self.venue.advance(None, 0, FOREVER)
            lane.heard(happened, FOREVER)
            if not lane.inbox:
                return
            while (moves := lane.step()) is not None:
                for fact, outs in moves:
                    self.send(outs)
                    yield fact, outs


def run(roads: Mapping[str, Road], finish: bool = True) -> Iterator[tuple[str, object, list[Out]]]:
    """(symbol, fact, the Desk's answers) of the whole run, in the one order that market time gives.

    `finish`: what the venue still says after the last event belongs to it; a live run ends with its market.
    """
    waiting = {symbol: roads[symbol] for symbol in sorted(roads)}
    ended = dict.fromkeys(waiting, False)
    while True:
        for symbol, road in waiting.items():
            if not road.lane.stretches and not ended[symbol]:
                ended[symbol] = not road.fill()
        live = [symbol for symbol, road in waiting.items() if road.lane.stretches]
        if not live:
            break
        symbol = min((waiting[s].lane.act_ms(), s) for s in live)[1] if len(live) > 1 else live[0]
        for fact, outs in waiting[symbol].act():
            yield symbol, fact, outs
    if finish:
        for symbol, road in waiting.items():
            for fact, outs in road.finish():
                yield symbol, fact, outs


