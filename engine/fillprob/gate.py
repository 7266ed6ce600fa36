"""The fill-probability gate: an order that is about to be placed or amended is let through, blocked, or only watched.

It fails open: without a model, with numbers that are none, or while its breaker is tripped, everything passes. Cancels pass unseen,
and so does whatever closes a position. What it says is a value with the evidence and the log lines in it; nothing is written here.
"""
from math import isfinite
from typing import Any, NamedTuple

import msgspec

from engine.fillprob.breaker import Breaker, BreakerState
from engine.fillprob.documents import Refused, pretty, sha256
from engine.fillprob.evidence import evidence
from engine.fillprob.model_v0 import FillModel
from engine.fillprob.models import of_json
from engine.fillprob.placement import Act
from engine.reasons import FILL_PROB_LOW
from engine.settings import FillProb

ALLOW, BLOCK, SHADOW = "ALLOW", "BLOCK", "SHADOW"
PLACE, AMEND, CANCEL, NOOP = "PLACE", "AMEND", "CANCEL", "NOOP"
JUDGED, EXEMPT, NO_MODEL, BYPASSED, UNREADABLE = "judged", "exempt", "no_model", "bypassed", "unreadable"


class Judged(NamedTuple):
    """What the gate says of it. `why` tells how it came to that; `evidence` is None where none is due; `lines` are the log's."""
    verdict: str
    why: str
    prob_bps: int = 0
    threshold_bps: int = 0
    enforce: bool = False
    evidence: dict[str, Any] | None = None
    lines: tuple[str, ...] = ()

    @property
    def reason(self) -> str:
        """The coded no; "" where it is none."""
        return FILL_PROB_LOW if self.verdict == BLOCK else ""

    @property
    def numbers(self) -> str:
        """The numbers behind a no."""
        return f"prob_bps={self.prob_bps} < threshold_bps={self.threshold_bps}"

    @property
    def word(self) -> str:
        """As a decision keeps it; "" where there was nothing to judge by."""
        if self.why == JUDGED:
            return f"{self.verdict} prob_bps={self.prob_bps} threshold_bps={self.threshold_bps}"
        return self.why if self.why in (BYPASSED, UNREADABLE) else ""


class Phase(msgspec.Struct):
    """What was seen under one model, threshold and switch, over restarts: what a go or a no-go is decided on.

    `low` counts judged orders below the threshold, blocked or only watched; market times in ms.
    """
    under: str = ""
    first_ms: int = 0
    last_ms: int = 0
    checks: int = 0
    blocks: int = 0
    low: int = 0
    bypassed: int = 0
    trips: int = 0


class GateState(msgspec.Struct):
    """What the gate remembers; written with the Desk's state. The counts never fall."""
    breaker: BreakerState = msgspec.field(default_factory=BreakerState)
    phase: Phase = msgspec.field(default_factory=Phase)
    checks: int = 0
    blocks: int = 0
    low: int = 0
    bypassed: int = 0
    last_bps: int = 0


class Gating(msgspec.Struct, frozen=True):
    """What one start of a service found: the rules, the model's file as text ("" for none), and the threshold in force (bps).

    It enters the Desk as a fact, so that a re-run of the journal judges by the same model wherever it runs.
    """
    rules: FillProb
    model: str = ""
    threshold_bps: int = 2500

    @property
    def details(self) -> dict[str, str]:
        """As a control carries it."""
        return {"gating": msgspec.json.encode(self).decode()}

    @classmethod
    def of(cls, details: dict[str, str]) -> "Gating | None":
        """From a control; None where it carries none that can be read."""
        try:
            return msgspec.json.decode(details.get("gating", ""), type=cls)
        except msgspec.MsgspecError:
            return None

    def gate(self, state: GateState) -> "FillProbGate":
        """The gate, going on from what an earlier one remembered. A model that cannot be read is none: it fails open."""
        try:
            model = of_json(self.model.encode()) if self.model else None
        except Refused:
            model = None
        return FillProbGate(self.rules, model, self.threshold_bps, state)


class FillProbGate:
    """A gate as one start of the desk has it: settings, model and threshold do not change while it lives."""

    def __init__(self, rules: FillProb, model: FillModel | None, threshold_bps: int | None = None, state: GateState | None = None):
        self.rules, self.model = rules, model
        self.threshold_bps = rules.min_bps if threshold_bps is None else threshold_bps
        self.allowed = frozenset(rules.enforce_symbols)
        self.restore(state if state is not None else GateState())

    def restore(self, state: GateState) -> None:
        """Goes on from what an earlier life remembered; under another model, threshold or switch a new phase begins."""
        self.state = state
        self.breaker = Breaker(self.rules.cb_window_seconds, self.rules.cb_max_block_rate_pct, self.rules.cb_min_samples, state.breaker)
        if state.phase.under != self.under:
            state.phase = Phase(self.under)

    @property
    def under(self) -> str:
        """What a phase is told apart by."""
        return sha256(pretty({"model": self.model.fingerprint if self.model else None, "threshold_bps": self.threshold_bps,
                              "enforce": self.rules.enforce, "symbols": sorted(self.allowed)}))[:16]

    def enforces(self, symbol: str) -> bool:
        """Whether an order of this symbol may be blocked."""
        return self.rules.enforce and (not self.allowed or symbol in self.allowed)

    def judge(self, act: Act, now_ms: int) -> Judged:
        """The verdict on this, at this market time."""
        if act.action_type not in (PLACE, AMEND) or act.closing:
            return Judged(ALLOW, EXEMPT)
        if self.model is None:
            return Judged(ALLOW, NO_MODEL, 0, self.threshold_bps, self.rules.enforce)
        features = self.model.served(act) if isfinite(act.price * act.qty) else None
        if features is None:
            return Judged(ALLOW, UNREADABLE, 0, self.threshold_bps, self.rules.enforce)
        s, phase, enforce = self.state, self.state.phase, self.enforces(act.symbol)
        phase.first_ms, phase.last_ms = phase.first_ms or now_ms, max(phase.last_ms, now_ms)
        if enforce and self.breaker.is_tripped(now_ms):
            s.bypassed += 1
            phase.bypassed += 1
            return Judged(ALLOW, BYPASSED, 0, self.threshold_bps, True)
        prob = self.model.predict(features)
        low = prob < self.threshold_bps
        verdict = SHADOW if not enforce else BLOCK if low else ALLOW
        s.last_bps = prob
        for count in (s, phase):
            count.checks += 1
            count.low += low
            count.blocks += verdict == BLOCK
        lines: list[str] = []
        if enforce and self.breaker.record(low, now_ms):
            phase.trips += 1
            lines.append(self.breaker.line())
        proof = None
        if verdict != ALLOW and self.rules.evidence:
            proof = evidence(now_ms, verdict, prob, self.threshold_bps, enforce, features, act.action_type, act.symbol, act.side,
                             act.price, act.qty, self.model.about())
        if verdict == BLOCK or proof is not None:
            lines.append(f"FILL_PROB_EVIDENCE verdict={verdict} prob_bps={prob} threshold_bps={self.threshold_bps} "
                         f"enforce={str(enforce).lower()} symbol={act.symbol} action={act.action_type}")
        return Judged(verdict, JUDGED, prob, self.threshold_bps, enforce, proof, tuple(lines))
