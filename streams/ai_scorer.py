"""Candidates to scores: one ONNX batch over the frames that wait, one record a frame, active and shadow model side by side.

`python -m streams.ai_scorer`
"""

import asyncio
import importlib
import logging
import time
from collections import deque
from collections.abc import Callable

import numpy as np

from config.settings import Settings
from engine import metrics as m
from engine.facts import Candidate, Candidates, Scored, ScoredBatch
from store.exporter import Exporter
from store.scorer import Scorer
from streams.codec import decode, encode
from streams.shares import staged
from streams.topics import SIG_CANDIDATES, SIG_SCORED, STATE_SCORES
from streams.worker import Worker, since_ms

log = logging.getLogger("sluice.ai_scorer")
ROLLING = 2000
PARITY_S, PARITY_ROWS = 5.0, 64


class Scoring:
    """The active and the shadow model; candidates of another schema get no probability, which the desk refuses."""

    def __init__(self, settings: Settings):
        models = settings.folder("models")
        self.active = Scorer.load(models, "active")
        if self.active is None:
            raise SystemExit(
                f"no active model under {models / 'registry'}: python -m flows.train makes, registers and promotes a first one"
            )
        shadow = settings.shadow
        self.shadow = Scorer.load(models, "shadow") if shadow.enabled else None
        self.shadow_entry = (self.shadow.tau_entry if self.shadow else 0.0) if shadow.use_threshold_from_meta else (shadow.tau_entry or 0.0)

    def score(self, candidates: list[Candidate]) -> list[Scored]:
        """Every candidate with its probability, in their order."""
        if not candidates:
            return []
        active, shadow = self.active, self.shadow
        assert active is not None
        width = len(candidates[0].features)
        if any(c.schema_hash != active.schema_hash or len(c.features) != width for c in candidates):
            return [self.one(c) for c in candidates]
        rows = np.frombuffer(b"".join(c.features for c in candidates), np.float32).reshape(len(candidates), -1)
        probabilities = active.score(rows).tolist()
        if shadow is None:
            return [Scored(c, p, active.model_id, active.tau_entry, active.tau_hold) for c, p in zip(candidates, probabilities)]
        return [
            Scored(c, p, active.model_id, active.tau_entry, active.tau_hold, q, shadow.model_id)
            for c, p, q in zip(candidates, probabilities, shadow.score(rows).tolist())
        ]

    def one(self, candidate: Candidate) -> Scored:
        """A single candidate, not a number where its features are not those of the model."""
        assert self.active is not None
        if candidate.schema_hash != self.active.schema_hash:
            return Scored(candidate, float("nan"), self.active.model_id, self.active.tau_entry, self.active.tau_hold)
        return self.score([candidate])[0]


class Ahead:
    """Scores of several records made together, kept until each has its turn; a score is the same whatever rows stand beside it.

    What cannot be scored together is left to its own turn, where an error names its record.
    """

    def __init__(self, score: Callable[[list[Candidate]], list[Scored]]):
        self.score = score
        self.made: dict[tuple[str, int, int], tuple[Candidates, list[Scored]]] = {}

    def __call__(self, records: list) -> None:
        """All candidates of these records in one batch."""
        self.made.clear()
        try:
            batches = [decode(record.value) for record in records]
            items = iter(self.score([c for batch in batches for c in batch.items]))
        except Exception:
            return
        for record, batch in zip(records, batches):
            self.made[record.topic, record.partition, record.offset] = batch, [next(items) for _ in batch.items]

    def take(self, record) -> tuple[Candidates, list[Scored]]:
        """A record's candidates with their scores."""
        made = self.made.pop((record.topic, record.partition, record.offset), None)
        if made:
            return made
        batch = decode(record.value, f"{record.topic}/{record.partition}/{record.offset}")
        return batch, self.score(batch.items)


def make(settings: Settings, exporter: Exporter, made: type[Worker] = Worker) -> Worker:
    """The service's worker; `made` is what carries its records."""
    worker = made("ai_scorer", settings, exporter, [SIG_CANDIDATES])
    scoring = Scoring(settings)
    active, shadow = scoring.active, scoring.shadow
    assert active is not None
    exporter.set(m.MODEL_ACTIVE_ID, 1, id=active.model_id)
    exporter.set(m.TAU_ENTRY_CURRENT, active.tau_entry, model="active")
    exporter.set(m.TAU_HOLD_CURRENT, active.tau_hold, model="active")
    if shadow:
        exporter.set(m.MODEL_SHADOW_ID, 1, id=shadow.model_id)
        exporter.set(m.TAU_ENTRY_CURRENT, scoring.shadow_entry, model="shadow")
        exporter.set(m.TAU_HOLD_CURRENT, shadow.tau_hold, model="shadow")
    log.info("active model %s, tau_entry %.3f%s", active.model_id, active.tau_entry, f", shadow {shadow.model_id}" if shadow else "")
    rolling: list[float] = []
    shadowed: list[float] = []
    latest: deque[bytes] = deque(maxlen=PARITY_ROWS)

    def score(candidates: list[Candidate]) -> list[Scored]:
        began = time.perf_counter()
        items = scoring.score(candidates)
        if items:
            exporter.observe(m.SCORE_BATCH_MS, (time.perf_counter() - began) * 1000)
        return items

    async def on_candidates(record) -> None:
        batch, items = ahead.take(record)
        exporter.inc(m.FRAMES_TOTAL, service="ai_scorer", symbol=batch.symbol)
        stage.sent(
            await worker.send(
                SIG_SCORED,
                batch.symbol,
                encode(ScoredBatch(batch.symbol, batch.session, batch.seq, batch.n, batch.ts_ms, batch.sent_ms, items)),
            )
        )
        exporter.observe(m.STAGE_LATENCY_MS, since_ms(batch.sent_ms), service="ai_scorer")
        if items:
            exporter.inc(m.SCORES_TOTAL, len(items), symbol=batch.symbol)
            rolling.extend(s.p for s in items if s.p == s.p)
            latest.extend(s.signal.features for s in items if s.p == s.p)
            exporter.inc(m.SCHEMA_MISMATCH_TOTAL, sum(s.p != s.p for s in items))
            if shadow:
                shadowed.extend(s.shadow_p for s in items if s.shadow_p is not None)
                exporter.inc(m.SHADOW_SIGNALS_EVALUATED_TOTAL, len(items))
                exporter.inc(m.SHADOW_SIGNALS_APPROVED_TOTAL, sum((s.shadow_p or 0) >= scoring.shadow_entry for s in items))

    async def distribution() -> None:
        while True:
            await asyncio.sleep(2.0)
            for series, scores in ((m.MODEL_SCORE_DISTRIBUTION, rolling), (m.SHADOW_SCORE_DISTRIBUTION, shadowed)):
                del scores[:-ROLLING]
                if scores:
                    p = np.array(scores)
                    for stat, value in (("mean", p.mean()), ("std", p.std()), *zip(("p10", "p50", "p90"), np.quantile(p, (0.1, 0.5, 0.9)))):
                        exporter.set(series, float(value), split="online", stat=stat)

    async def parity() -> None:
        """Now and then the trained model is asked the same as the exported one."""
        booster = active.folder / "artifacts" / "booster.txt"
        if not booster.exists():
            log.warning("%s is not there: live scores are not compared with the trained model", booster)
            return
        differing = await asyncio.to_thread(lambda: importlib.import_module("store.parity").spot(booster))
        while True:
            await asyncio.sleep(PARITY_S)
            if not latest:
                continue
            rows = np.frombuffer(b"".join(latest), np.float32).reshape(len(latest), -1)
            wrong = await asyncio.to_thread(differing, rows, active.raw(rows))
            exporter.inc(m.ONNX_PARITY_FAIL_TOTAL, wrong, stage="online")
            if wrong:
                log.error("%d of %d live scores differ from the trained model", wrong, len(rows))

    worker.background += [distribution, parity]
    worker.ahead = ahead = Ahead(score)
    stage = staged(worker, on_candidates, STATE_SCORES)
    stage.writes([SIG_SCORED], stage.kept.clear)
    return worker


if __name__ == "__main__":
    from streams.service import main

    raise SystemExit(main("ai_scorer"))
