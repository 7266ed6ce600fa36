"""Go, hold or no-go: the runbook's criteria as rows, each a value beside its limit. A row without enough to judge holds.

Block rates below 20 % go, from 20 to 30 % hold, above 30 % are a no-go (above 50 % the breaker acts on its own); hours are the market's
(DECISIONS, 20 and 21).
"""
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from engine.fillprob.threshold import Threshold

GO, HOLD, NO_GO = "go", "hold", "no_go"
HOURS, DELTA_BPS = 24, 1000
GO_BELOW_PCT, NO_GO_ABOVE_PCT, CLIMBING_PCT = 20, 30, 10
ENOUGH = 20     # judged orders, below which a rate is chance
VERSION = "fill_prob_go_no_go_v1"


class Row(NamedTuple):
    """One criterion."""
    name: str
    value: str
    limit: str
    verdict: str


class Seen(NamedTuple):
    """What a running instance says of its gate, as it is scraped: the phase under the model, threshold and switch in force."""
    market_seconds: float
    checks: int
    blocks: int
    low: int
    trips: int
    window_checks: int
    window_blocks: int
    enforce: bool
    auto_bps: int

    @property
    def rate_pct(self) -> float | None:
        """Share of judged orders that are blocked or, where nothing is enforced, would be; None with too few."""
        return 100 * (self.blocks if self.enforce else self.low) / self.checks if self.checks >= ENOUGH else None


def verdict(rows: Iterable[Row]) -> str:
    """The worst of the rows."""
    said = {row.verdict for row in rows}
    return NO_GO if NO_GO in said else HOLD if HOLD in said else GO


def ran(seen: Seen | None, what: str) -> Row:
    limit = f">= {HOURS} h of market time"
    if seen is None:
        return Row(what, "the instance does not answer", limit, HOLD)
    hours = seen.market_seconds / 3600
    return Row(what, f"{hours:.1f} h", limit, GO if hours >= HOURS else HOLD)


def block_rate(seen: Seen | None, what: str = "block rate") -> Row:
    limit = f"< {GO_BELOW_PCT} % (to {NO_GO_ABOVE_PCT} % hold)"
    if seen is None or seen.rate_pct is None:
        return Row(what, f"{seen.checks if seen else 0} orders judged", limit, HOLD)
    rate = seen.rate_pct
    said = f"{rate:.1f} % of {seen.checks}" + ("" if seen.enforce else " (would be)")
    return Row(what, said, limit, GO if rate < GO_BELOW_PCT else NO_GO if rate > NO_GO_ABOVE_PCT else HOLD)


def climbing(seen: Seen | None) -> Row:
    limit = f"lately at most {CLIMBING_PCT} points above the phase"
    if seen is None or seen.rate_pct is None or seen.window_checks < ENOUGH:
        return Row("block rate climbing", f"{seen.window_checks if seen else 0} orders lately", limit, GO if seen else HOLD)
    lately = 100 * seen.window_blocks / seen.window_checks
    return Row("block rate climbing", f"{lately:.1f} % lately, {seen.rate_pct:.1f} % in all", limit,
               NO_GO if lately > seen.rate_pct + CLIMBING_PCT else GO)


def trips(seen: Seen | None, what: str = "breaker trips") -> Row:
    if seen is None:
        return Row(what, "the instance does not answer", "0", HOLD)
    return Row(what, str(seen.trips), "0", NO_GO if seen.trips else GO)


def stable(starts: Sequence[Mapping[str, Any]], now_bps: int | None, what: str = "recommended_bps stable") -> Row:
    """`starts`: the resolutions that the starts of the service left, for the model that is resolved now."""
    limit = "the same at every start, two at least"
    values = [int(one["recommended_bps"]) for one in starts] + ([now_bps] if now_bps is not None else [])
    if len(set(values)) > 1:
        return Row(what, ", ".join(map(str, dict.fromkeys(values))), limit, NO_GO)
    return Row(what, f"{values[0] if values else 'none'} at {len(starts)} starts", limit, GO if len(starts) >= 2 else HOLD)


def ceremony(threshold: Threshold, seen: Seen | None, starts: Sequence[Mapping[str, Any]], kept: bool) -> list[Row]:
    """Whether a recommended threshold may be auto-applied. `kept`: whether the service is told to keep evidence at all."""
    result = threshold.result
    known = result is not None and result.resolution is not None
    why = "not asked for (GRINDER_FILL_PROB_EVAL_DIR, GRINDER_FILL_MODEL_DIR)" if result is None else result.reason_code
    delta = abs(threshold.gauge_bps - threshold.configured_bps)
    gauge = None if seen is None or result is None else seen.auto_bps
    return [
        ran(seen, "ran"),
        stable(starts, threshold.gauge_bps if known else None),
        Row("delta", f"{delta} bps" if known else "no recommendation", f"< {DELTA_BPS} bps",
            HOLD if not known else GO if delta < DELTA_BPS else NO_GO),
        block_rate(seen), climbing(seen), trips(seen),
        Row("resolution", f"recommended_bps={threshold.gauge_bps}" if known else why, "ok",
            GO if known else HOLD if result is None else NO_GO),
        Row("auto-threshold gauge", "none" if gauge is None else str(gauge), "> 0, as resolved now",
            HOLD if gauge is None else NO_GO if gauge == 0 else GO if gauge == threshold.gauge_bps else HOLD),
        Row("evidence of starts", str(len(starts)) if kept else "GRINDER_ARTIFACT_DIR is unset", ">= 1", GO if starts else HOLD),
    ]


def promotion(canary: Seen | None, control: Seen | None, preflight_failed: Sequence[str], of_canary: Sequence[Mapping[str, Any]],
              of_control: Sequence[Mapping[str, Any]], evidence: int) -> list[Row]:
    """Whether a canary may have more symbols. `evidence`: sound artifacts of orders in the canary's own folder."""
    def flag(seen: Seen | None, name: str, wanted: bool) -> Row:
        return Row(f"{name} enforces", "does not answer" if seen is None else str(int(seen.enforce)), str(int(wanted)),
                   HOLD if seen is None else GO if seen.enforce is wanted else NO_GO)
    same = None if canary is None or control is None else canary.auto_bps == control.auto_bps
    return [
        ran(canary, "canary ran"), trips(canary, "canary's breaker trips"), trips(control, "control's breaker trips"),
        block_rate(canary, "canary's block rate"), climbing(canary),
        Row("canary's resolution", "does not answer" if canary is None else str(canary.auto_bps), "> 0",
            HOLD if canary is None else GO if canary.auto_bps else NO_GO),
        stable(of_canary, None, "canary's recommended_bps stable"), stable(of_control, None, "control's recommended_bps stable"),
        Row("auto_threshold_bps of both", "unknown" if same is None or canary is None or control is None else
            f"{canary.auto_bps}, {control.auto_bps}", "the same", HOLD if same is None else GO if same else NO_GO),
        Row("pre-flight", ", ".join(preflight_failed) or "passed", "every check passes", NO_GO if preflight_failed else GO),
        Row("evidence of the canary", str(evidence), ">= 1", GO if evidence else HOLD),
        flag(canary, "canary", True), flag(control, "control", False),
        Row("control's blocks", "unknown" if control is None else str(control.blocks), "0", GO if control and not control.blocks else HOLD),
    ]


def artifact(kind: str, ts_ms: int, rows: Sequence[Row]) -> dict[str, Any]:
    """The table as it is kept; `kind` is `ceremony` or `canary`."""
    return {"artifact_version": VERSION, "ts_ms": ts_ms, "kind": kind, "verdict": verdict(rows), "rows": [row._asdict() for row in rows]}
