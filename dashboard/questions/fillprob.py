"""May the fill gate act?"""
from html import escape
from typing import Any

import pandas as pd
import streamlit as st

from config.settings import Settings
from dashboard import ceremony, data, standing, ui
from engine.fillprob import advice
from engine.fillprob.ceremony import GO, HOLD, NO_GO, Seen
from engine.fillprob.gate import GateState, Gating
from store import figures_gate
from store.mirror import Seen as Desk

SIGNS, TONES = {GO: "●", HOLD: "▲", NO_GO: "✕"}, {GO: "profit", HOLD: "fees", NO_GO: "loss"}
LIGHTS = {GO: "good", HOLD: "warn", NO_GO: "bad"}
WORDS = {GO: "go", HOLD: "hold", NO_GO: "no-go"}
ROWS = (ui.Column("", lambda r: SIGNS[r.verdict], tone=lambda r: TONES[r.verdict]), ui.Column("criterion", lambda r: r.name),
        ui.Column("value", lambda r: r.value), ui.Column("limit", lambda r: r.limit, tone=lambda r: "muted"),
        ui.Column("verdict", lambda r: WORDS[r.verdict], tone=lambda r: TONES[r.verdict]),
        ui.Column("what to do next", lambda r: r.todo, tone=lambda r: "muted wrap" if r.verdict == GO else "wrap"))
CHECKS = (ui.Column("", lambda r: SIGNS[GO if r.passed else NO_GO], tone=lambda r: TONES[GO if r.passed else NO_GO]),
          ui.Column("check", lambda r: r.name), ui.Column("it says", lambda r: r.detail, tone=lambda r: "wrap"),
          ui.Column("what to do next", lambda r: r.todo, tone=lambda r: "muted wrap" if r.passed else "wrap"))
STARTS = (ui.Column("wall clock", lambda r: stamp(r.ts_ms), tone=lambda r: "muted"), ui.Column("mode", lambda r: r.mode),
          ui.Column("recommended", lambda r: f"{r.recommended_bps:,}", True),
          ui.Column("configured", lambda r: f"{r.configured_bps:,}", True),
          ui.Column("in force", lambda r: f"{r.effective_bps:,}", True),
          ui.Column("evaluation", lambda r: r.eval_sha256[:10], tone=lambda r: "muted"),
          ui.Column("model", lambda r: r.model_manifest_sha256[:10], tone=lambda r: "muted"))
JUDGED = (ui.Column("wall clock", lambda r: stamp(r.ts_ms), tone=lambda r: "muted"), ui.Column("of", lambda r: r.kind),
          ui.Column("verdict", lambda r: WORDS.get(r.verdict, r.verdict), tone=lambda r: TONES.get(r.verdict, "")),
          ui.Column("rows that were no go", lambda r: r.against, tone=lambda r: "wrap"))
MOST = 12


def stamp(ts_ms: int) -> str:
    """A time of the wall clock, UTC."""
    return f"{pd.Timestamp(ts_ms, unit='ms'):%m-%d %H:%M:%S}"


def desk() -> Desk | None:
    """The desk's mirror; None where there is no ledger yet."""
    try:
        return standing.seen()
    except data.Missing:
        return None


def cards(settings: Settings, look: ceremony.Look, seen: Seen | None, running: Gating | None, state: GateState) -> None:
    """Threshold, rate, breaker, phase."""
    t, rules = look.table.threshold, settings.fill_prob
    known = t.result is not None and t.result.resolution is not None
    in_force = running.threshold_bps if running else None
    window = state.breaker
    rate = None if seen is None else seen.rate_pct
    tripped = bool(window.tripped)
    ui.cards([
        ui.Card("Threshold configured", f"{t.configured_bps:,}", "bps", "GRINDER_FILL_PROB_MIN_BPS"),
        ui.Card("Recommended", f"{t.gauge_bps:,}" if known else "–", "bps" if known else "",
                "by the evaluation" if known else "not asked for" if t.result is None else t.result.reason_code,
                "" if known or t.result is None else "loss"),
        ui.Card("In force", "–" if in_force is None else f"{in_force:,}", "" if in_force is None else "bps",
                "since the desk's last start" if in_force is not None else "no start has found a gate yet",
                "warn" if in_force not in (None, t.effective_bps) else ""),
        ui.Card("Block rate", "–" if rate is None else f"{rate:.1f}", "%" if rate is not None else "",
                "no answer" if seen is None else f"{seen.blocks if seen.enforce else seen.low:,} of {seen.checks:,} judged"
                + ("" if seen.enforce else ", would be"), share=None if rate is None else rate / 100),
        ui.Card("Breaker", "tripped" if tripped else "closed", "", f"{len(window.blocked):,} of {len(window.judged):,} blocked in "
                f"{rules.cb_window_seconds:g} s; {window.trips:,} trips", "warn" if tripped or window.trips else ""),
        ui.Card("Phase", "–" if seen is None else f"{seen.market_seconds / 3600:.1f}", "h of market time" if seen else "",
                "no answer" if seen is None else "enforced" if seen.enforce else "in shadow")])


@ui.live(5)
def whole() -> None:
    """The ceremony, looked at anew."""
    settings = data.settings()
    control = str(st.session_state.get("fp_control", "")).strip()
    look = ceremony.look(settings, str(st.session_state.get("fp_metrics", "")).strip(), control,
                         str(st.session_state.get("fp_artifacts", "")).strip())
    there = desk()
    running, state = (there.state.gating, there.state.gate) if there else (None, GateState())
    sides = ceremony.instances(look, control)
    ui.headline("May the fill gate act?", market_ms=(there.state.now_ms or None) if there else None)
    kind = "promotion of the canary" if look.table.kind == "canary" else "auto-threshold"
    ui.verdict(LIGHTS[look.table.verdict], f"Phase {look.step.phase}, {look.step.name}. {kind}: {WORDS[look.table.verdict]}.",
               f"Next: {look.step.todo}")
    if changed := ceremony.differing(settings, running):
        ui.verdict("warn", "The desk runs with what its last start found.", " · ".join(changed))
    cards(settings, look, sides[0][1], running, state)
    with st.container(key="panel-rows"):
        ui.heading("Go or no-go", "as python -m flows.resolve_fill_threshold judges it, this moment; the worst row decides")
        ui.table(pd.DataFrame([row._asdict() | {"todo": advice.todo(row)} for row in look.table.rows]), ROWS, "")
    if control:
        beside(sides)
    charts(settings, running, state)
    with st.container(key="panel-checks"):
        ui.heading("Pre-flight", "as python3 -m scripts.preflight_fill_prob … --auto-threshold prints it")
        ui.table(pd.DataFrame([c._asdict() | {"todo": advice.failing(c.name, c.passed)} for c in look.checks.checks]), CHECKS, "")
        for word in look.checks.warnings:
            ui.heading("", f"▲ {word}")
    history(settings)


def beside(sides: list[tuple[str, Seen | None]]) -> None:
    """Canary and control, figure by figure."""
    rows: list[dict[str, Any]] = []
    for name, of in (("enforces", lambda s: "yes" if s.enforce else "no"), ("market time", lambda s: f"{s.market_seconds / 3600:.2f} h"),
                     ("orders judged", lambda s: f"{s.checks:,}"), ("blocked", lambda s: f"{s.blocks:,}"),
                     ("below the threshold", lambda s: f"{s.low:,}"),
                     ("block rate", lambda s: "–" if s.rate_pct is None else f"{s.rate_pct:.1f} %"),
                     ("blocked lately", lambda s: f"{s.window_blocks:,} of {s.window_checks:,}"),
                     ("breaker trips", lambda s: f"{s.trips:,}"), ("auto-threshold gauge", lambda s: f"{s.auto_bps:,} bps")):
        rows.append({"figure": name} | {who: "no answer" if one is None else of(one) for who, one in sides})
    with st.container(key="panel-beside"):
        ui.heading("Canary beside control", "as their metrics say")
        ui.table(pd.DataFrame(rows), (ui.Column("", lambda r: r.figure, tone=lambda r: "muted"),
                                      ui.Column("canary", lambda r: r.canary, True), ui.Column("control", lambda r: r.control, True)), "")


def charts(settings: Settings, running: Gating | None, state: GateState) -> None:
    """Calibration, and the block rate over market time."""
    left, right = st.columns([1, 1.4])
    with left.container(key="panel-calibration", height="stretch"):
        report = ceremony.report(settings)
        if report is None:
            ui.heading("Calibration", "of the evaluation in GRINDER_FILL_PROB_EVAL_DIR")
            st.html('<div class="none">There is no evaluation that can be believed: python -m scripts.eval_fill_model_v0 makes one.</div>')
        else:
            ui.heading("Calibration", f"largest error {report['calibration_max_error_bps']:,} bps over {report['n_rows']:,} rows"
                       + (", the rows that it was trained on" if report.get("in_sample") else ""))
            in_force = running.threshold_bps if running else settings.fill_prob.min_bps
            ui.chart(figures_gate.gate_calibration(report["calibration"], in_force), "calibration")
    with right.container(key="panel-rate", height="stretch"):
        enforced = running is not None and running.rules.enforce
        ui.heading("Block rate", "blocked, of what an enforcing gate judged or let pass; by market time" if enforced else
                   "what would be blocked, of what was watched; by market time")
        try:
            rows = ceremony.rates(settings, running, state.phase.first_ms)
        except data.Missing as missing:
            rows, none = pd.DataFrame(), missing.what
        else:
            none = "No order was judged in this phase yet." if enforced else \
                "No watched order has left evidence in this phase: GRINDER_FILL_PROB_EVIDENCE=1 keeps it."
        if rows.empty:
            st.html(f'<div class="none">{escape(none)}</div>')
        else:
            ui.chart(figures_gate.block_rate(rows), "rate")


def history(settings: Settings) -> None:
    """What starts resolved and flows judged."""
    starts, judged, bad = ceremony.left(ceremony.folder(settings))
    left, right = st.columns([1.4, 1])
    with left.container(key="panel-starts", height="stretch"):
        ui.heading("Thresholds that starts resolved", "newest first; each a file with its hash")
        ui.table(pd.DataFrame(starts[:MOST]), STARTS,
                 "No start has left one: GRINDER_ARTIFACT_DIR and GRINDER_FILL_PROB_EVAL_DIR keep them.")
        for name, why in bad.items():
            ui.heading("", f"✕ {name} is not believed: {why}")
    with right.container(key="panel-judged", height="stretch"):
        ui.heading("Tables that the flow left", "newest first")
        rows = [one | {"against": ", ".join(r["name"] for r in one.get("rows", ()) if r["verdict"] != GO) or "none"}
                for one in judged[:MOST]]
        ui.table(pd.DataFrame(rows), JUDGED, "None yet: python -m flows.resolve_fill_threshold leaves one each time.")


def named() -> None:
    """Which instances the page is about."""
    with st.expander("Instances: where they answer, and a canary's control"):
        one, two, three = st.columns(3)
        one.text_input("Metrics of the instance", key="fp_metrics", placeholder=ceremony.addresses(data.settings())[0])
        two.text_input("Metrics of its control", key="fp_control", placeholder="http://localhost:9091/metrics")
        three.text_input("GRINDER_ARTIFACT_DIR of its control", key="fp_artifacts", placeholder="ml/artifacts/control")
        st.markdown("The settings are those of this console: start it with the instance's environment, of a canary the canary's.")


named()
whole()
