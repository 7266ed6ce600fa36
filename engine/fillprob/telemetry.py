"""The gate moves its series, under S2's names."""
from engine import metrics as m
from engine.fillprob.gate import FillProbGate
from engine.fillprob.threshold import Threshold

COUNTS = {m.FILL_PROB_CHECKS_TOTAL: "checks", m.FILL_PROB_BLOCKS_TOTAL: "blocks", m.FILL_PROB_LOW_TOTAL: "low",
          m.FILL_PROB_CB_BYPASSED_TOTAL: "bypassed"}


class FillProbTelemetry:
    """Looks at a gate after each batch; the first look only remembers, so that an earlier life's counts are not counted again."""

    def __init__(self, meter: m.Meter):
        self.meter, self.before = meter, dict[m.Series, int]()

    def opened(self, gate: FillProbGate, threshold: Threshold) -> None:
        """What a start came to: flags and thresholds, which do not change until the next."""
        set_, rules = self.meter.set, gate.rules
        set_(m.FILL_PROB_ENFORCE_ENABLED, int(rules.enforce))
        set_(m.FILL_PROB_ENFORCE_ALLOWLIST_ENABLED, int(bool(rules.enforce_symbols)))
        set_(m.FILL_PROB_AUTO_THRESHOLD_BPS, threshold.gauge_bps)
        set_(m.FILL_PROB_EFFECTIVE_THRESHOLD_BPS, gate.threshold_bps)
        set_(m.FILL_MODEL_LOADED, int(gate.model is not None))
        set_(m.LIVE_ENGINE_INITIALIZED, 1)
        self.on(gate)

    def on(self, gate: FillProbGate) -> None:
        """What happened since the last look."""
        s = gate.state
        now = {series: getattr(s, name) for series, name in COUNTS.items()} | {m.FILL_PROB_CB_TRIPS_TOTAL: s.breaker.trips}
        if self.before:
            for series, count in now.items():
                if more := count - self.before[series]:
                    self.meter.inc(series, more)
        self.before = now
        self.meter.set(m.FILL_PROB_BPS_LAST, s.last_bps)
        for what, value in seen(gate).items():
            self.meter.set(m.FILL_PROB_PHASE, value, what=what)


def seen(gate: FillProbGate) -> dict[str, float]:
    """The phase and the breaker's window, as the go/no-go table reads them."""
    phase, window = gate.state.phase, gate.state.breaker
    return {"market_seconds": (phase.last_ms - phase.first_ms) / 1000, "checks": phase.checks, "blocks": phase.blocks, "low": phase.low,
            "bypassed": phase.bypassed, "trips": phase.trips, "window_checks": len(window.judged), "window_blocks": len(window.blocked)}
