"""Why was it blocked?"""
import pandas as pd
import streamlit as st

from dashboard import data, decided, tables, ui
from engine import reasons
from store import figures, figures_desk

MOST = 1000
ROWS = {row.code: row for row in reasons.TABLE}
MEANS = (ui.Column("reason", lambda r: figures.words(r.code)), ui.Column("code", lambda r: r.code, tone=lambda r: "muted"),
         ui.Column("refused", lambda r: f"{r.n:,}", True), ui.Column("it means", lambda r: r.meaning),
         ui.Column("said by", lambda r: r.who, tone=lambda r: "muted"), ui.Column("moved by", lambda r: r.settings, tone=lambda r: "buy"))
STEPS = ("by itself", "minute", "hour")


def meanings(counts: pd.DataFrame) -> pd.DataFrame:
    """Each refused code with its row of `docs/reasons.md`, the most frequent first. A code of another version says so."""
    rows = []
    for row in counts[~counts["allowed"].astype(bool)].itertuples():
        reason = ROWS.get(row.code, reasons.Reason(row.code, "", "no code of this version"))
        rows.append({"code": row.code, "n": int(row.n), "meaning": reason.meaning, "who": reason.who,
                     "settings": ", ".join(reason.settings)})
    return pd.DataFrame(rows)


def step_ms(span_ms: int) -> int:
    """How wide a bar is, as chosen."""
    chosen = st.session_state.get("why_step") or STEPS[0]
    return {"minute": decided.MINUTE_MS, "hour": decided.HOUR_MS}.get(chosen, decided.step_of(span_ms))


@ui.live(4)
def page(run: str) -> None:
    """Refusals over time and by reason, what each means, then the decisions that match."""
    counts = data.decision_counts(run)
    newest = data.decisions(run, most=1)
    ui.headline("Why was it blocked?", run, newest["ts_ms"].iloc[0] if len(newest) else None)
    one, two, three, four = st.columns([1.5, 1.1, 1.3, 1.6], vertical_alignment="center")
    span_name = one.segmented_control("Time", list(decided.SPANS), default="hour", label_visibility="collapsed", key="why_span")
    two.segmented_control("Bars", STEPS, default=STEPS[0], label_visibility="collapsed", key="why_step", help="how wide a bar is")
    symbols = tuple(three.multiselect("Symbol", sorted(data.settings().exchange.symbols), placeholder="any symbol",
                                      label_visibility="collapsed", key="why_symbol"))
    known = list(counts["code"].unique())
    codes = tuple(four.multiselect("Code", known, placeholder="any reason", label_visibility="collapsed", key="why_code"))
    span = decided.SPANS[span_name or "hour"]
    left, right = st.columns([1.6, 1])
    with left.container(key="panel-why-time", height="stretch"):
        ui.heading("Refused, over time", f"market time, a bar a{'n hour' if step_ms(span) == decided.HOUR_MS else ' minute'}")
        order = [c for c in counts["code"] if c not in reasons.ALLOWED]
        rows = decided.refusals(span, step_ms(span), symbols, codes)
        ui.chart(figures_desk.refusals_over_time(rows, step_ms(span), 300, order), "why-time")
    with right.container(key="panel-why-drops", height="stretch"):
        ui.heading("Refused, by reason", "all of the run; every refusal carries a code and the numbers that made it")
        ui.chart(figures.drops_by_reason(counts, 300), "why-drops")
    with st.container(key="panel-why-meaning"):
        ui.heading("What the reasons mean", "as docs/reasons.md has them, with the settings that move them")
        shown = meanings(counts)
        ui.table(shown[shown["code"].isin(codes)] if codes and len(shown) else shown, MEANS, "Nothing was refused.")
    with st.container(key="panel-why-rows"):
        head, verdict = st.columns([2.2, 1.2], vertical_alignment="center")
        with head:
            ui.heading("Decisions", f"the newest {MOST:,} that match")
        verdicts = verdict.segmented_control("Verdict", ["all", "allowed", "refused"], default="refused", label_visibility="collapsed",
                                          key="why_verdict")
        tables.decisions(data.decisions(run, verdicts or "all", symbols, codes, MOST), height=520)


if ui.waits_for(data.runs):
    page(ui.choose_run())
