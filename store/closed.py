"""The closed loop put together from an archive, the registry and the settings: what replay, backtest and benchmarks run."""
import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from config.settings import Settings
from engine.desk import Desk
from engine.execution.matching import Matching
from engine.facts import GATING, Cancel, Candidate, Control, Dropped, Fill, Frame, Order, Outcome, Scored, ScoredBatch, WrittenOff
from engine.fillprob.gate import Gating
from engine.loop import Road, run
from engine.rewards.attribution import Attributed, Missed
from engine.scoring.signals import SignalEngine
from store import archive
from store.scorer import Scorer


def scored_by(scorer: Scorer) -> Callable[[list[Candidate]], list[Scored]]:
    """A function that scores candidates with this model, in one batch."""
    def score(candidates: list[Candidate]) -> list[Scored]:
        rows = np.frombuffer(b"".join(c.features for c in candidates), np.float32).reshape(len(candidates), -1)
        return [Scored(c, p, scorer.model_id, scorer.tau_entry, scorer.tau_hold) for c, p in zip(candidates, scorer.score(rows).tolist())]
    return score


class Closed:
    """Desk, signals, scorer and venue over frames; iterate it for (symbol, fact, answers)."""

    def __init__(self, settings: Settings, scorer: Scorer, frames: dict[str, Iterator[Frame]], session: str = "arch", batch: int = 1,
                 finish: bool = True, gating: Gating | None = None):
        self.settings, self.finish = settings, finish
        self.desk = Desk(settings)
        if gating is not None:
            self.desk.on(Control("gating-0", GATING, "closed", "as a start would find it", 0, 0, gating.details))
        score = scored_by(scorer)
        self.roads: dict[str, Road] = {}
        for symbol, source in frames.items():
            instrument = settings.instrument(symbol)
            engine = SignalEngine(symbol, instrument, settings.windows, settings.triggers, settings.regimes,
                                  settings.gates.liquidity_by_side.levels)
            self.roads[symbol] = Road(symbol, source, engine, score, self.desk, Matching(symbol, instrument, settings.matching, session),
                                      settings.matching.latency_ms, batch)

    def __iter__(self) -> Iterator[tuple[str, object, list]]:
        return run(self.roads, self.finish)

    @property
    def events(self) -> int:
        """Market events taken so far."""
        return sum(r.events for r in self.roads.values())

    @property
    def candidates(self) -> int:
        """Candidates scored so far."""
        return sum(r.candidates for r in self.roads.values())


def frames_of(root: Path, symbols: list[str], events: int, session: str = "arch", start_ms: int | None = None,
              end_ms: int | None = None) -> dict[str, Iterator[Frame]]:
    """Each symbol's frames from an archive."""
    return {s: archive.read(root, s, events=events, session=session, start_ms=start_ms, end_ms=end_ms) for s in symbols}


class Digests:
    """SHA-256 of a run: `scores` over candidates with their probabilities, `decisions` over all that the Desk said, with the fills.

    Candidates are unique by id and ordered by symbol, time, id; so the same set gives the same digest whatever its road here.
    Orders, cancels, fills and outcomes count in the one order in which they came; refusals in that of their symbol, since two
    symbols' refusals have no order that anything depends on. A fill's venue number is left out: a request that is repeated after a
    death takes one too.
    """

    def __init__(self) -> None:
        self._scored: dict[str, tuple[str, int, str, bytes]] = {}
        self._acts = hashlib.sha256()
        self._refusals: dict[str, Any] = {}

    def scored(self, scored: Scored) -> None:
        """One scored candidate."""
        s = scored.signal
        self._scored[s.id] = (s.symbol, s.ts_ms, s.id, hashlib.sha256(msgspec.msgpack.encode(scored)).digest())

    def step(self, fact, outs: list) -> None:
        """One fact and what the Desk answered."""
        if isinstance(fact, ScoredBatch):
            for scored in fact.items:
                self.scored(scored)
        elif isinstance(fact, Fill):
            self._acts.update(msgspec.msgpack.encode(msgspec.structs.replace(fact, seq=0)))
        for out in outs:
            if isinstance(out, Dropped):
                self._refusals.setdefault(out.scored.signal.symbol, hashlib.sha256()).update(msgspec.msgpack.encode(out))
            elif isinstance(out, (Order, Cancel, Outcome, WrittenOff, Attributed, Missed)):
                self._acts.update(msgspec.msgpack.encode(out))

    @property
    def decisions(self) -> str:
        """Of decisions, orders, cancels, fills and outcomes in their order."""
        whole = self._acts.copy()
        for symbol, refusals in sorted(self._refusals.items()):
            whole.update(symbol.encode() + refusals.digest())
        return whole.hexdigest()

    @property
    def scores(self) -> str:
        """Of candidates and scores."""
        out = hashlib.sha256()
        for _, _, _, digest in sorted(self._scored.values()):
            out.update(digest)
        return out.hexdigest()

    @property
    def count(self) -> int:
        """Candidates, unique by id."""
        return len(self._scored)
