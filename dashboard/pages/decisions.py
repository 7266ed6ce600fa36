"""Why was it blocked?"""
import streamlit as st

from dashboard import data, tables, ui
from engine import reasons
from store import figures

MOST = 1000
MEANING = {
    reasons.BLOCK_LOW_CONFIDENCE: "the calibrated probability is below `policy.min_confidence`",
    reasons.BLOCK_COOLDOWN: "too soon after the last trade, of this symbol or of any",
    reasons.BLOCK_MAX_POSITIONS: "as many positions as the policy allows, in all, in this symbol or in this regime",
    reasons.BLOCK_MAX_EXPOSURE: "margin of positions and open orders would exceed its limit",
    reasons.BLOCK_EXISTING_POSITION: "a position of this symbol is open, and adding to it is not allowed",
    reasons.BLOCK_SCALE_IN_RULE: "adding to the position breaks its rule: count, or confidence not enough above the last entry",
    reasons.BLOCK_REGIME_RULE: "the regime of the moment takes no entries",
    reasons.BLOCK_INSUFFICIENT_CAPITAL: "what is free does not carry the smallest allocation",
    reasons.HALTED: "a kill is in force", reasons.STALE_SIGNAL: "the score came later than `desk.max_signal_age_ms`",
    reasons.NO_MARKET: "no bid and ask known for the symbol", reasons.BELOW_TAU: "below the model's own entry threshold",
    reasons.SCHEMA_MISMATCH: "scored on other features than the model knows", reasons.DUPLICATE: "this candidate was decided before",
    reasons.QTY_ZERO: "the size rounds down to no lot", reasons.BELOW_MINIMUM: "below the exchange's minimum; it is dropped, never lifted",
    reasons.INVALID_INPUT: "a number was not finite", reasons.PORTFOLIO_UNREADABLE: "the portfolio could not be read: fail closed",
}


@ui.live(3)
def page(run: str) -> None:
    """Counts by reason, then the decisions that match."""
    counts = data.decision_counts(run)
    newest = data.decisions(run, most=1)
    ui.headline("Why was it blocked?", run, newest["ts_ms"].iloc[0] if len(newest) else None)
    left, right = st.columns([1.35, 1])
    with left.container(key="panel-why-drops", height="stretch"):
        ui.heading("Refused, by reason", "every refusal carries a code and the numbers that made it")
        ui.chart(figures.drops_by_reason(counts, 300), "why-drops")
    with right.container(key="panel-why-meaning", height="stretch"):
        ui.heading("What the reasons mean")
        refused = [c for c in counts.loc[~counts["allowed"].astype(bool), "code"] if c in MEANING]
        st.markdown("\n".join(f"- **{figures.words(c)}**: {MEANING[c]}" for c in refused[:9]) or "Nothing was refused.")
    with st.container(key="panel-why-rows"):
        head, verdict, symbol, code = st.columns([2.2, 1.2, 1.3, 1.6], vertical_alignment="center")
        with head:
            ui.heading("Decisions", f"the newest {MOST:,} that match")
        said = verdict.segmented_control("Verdict", ["all", "allowed", "refused"], default="refused", label_visibility="collapsed",
                                         key="why_verdict")
        symbols = symbol.multiselect("Symbol", sorted(data.settings().exchange.symbols), placeholder="any symbol",
                                     label_visibility="collapsed", key="why_symbol")
        codes = code.multiselect("Code", list(counts["code"].unique()), placeholder="any reason", label_visibility="collapsed",
                                 key="why_code")
        tables.decisions(data.decisions(run, said or "all", tuple(symbols), tuple(codes), MOST), height=520)


if ui.waits_for(data.runs):
    page(ui.choose_run())
