"""How positions, orders, fills and decisions read as rows, on every page the same."""
from collections.abc import Callable
from typing import Literal

import pandas as pd
import streamlit as st

from dashboard import ui
from engine.facts import WRITTEN_OFF
from store import figures
from store.palette import ACCENT

SIDE = ui.Column("side", lambda r: ("▲ " if r.side == "BUY" else "▼ ") + r.side.lower(),
                 tone=lambda r: "buy" if r.side == "BUY" else "")
POSITIONS = (ui.Column("symbol", lambda r: r.symbol),
             ui.Column("position", lambda r: "flat" if abs(r.qty) < 1e-12 else f"{'▲ long' if r.qty > 0 else '▼ short'} {abs(r.qty):g}",
                       tone=lambda r: "muted" if abs(r.qty) < 1e-12 else "buy" if r.qty > 0 else ""),
             ui.Column("average price", lambda r: ui.price(r.avg_price) if abs(r.qty) > 1e-12 else "", True),
             ui.Column("before fees $", lambda r: ui.usd(r.realized_usd), True, lambda r: ui.tone(round(r.realized_usd, 2))),
             ui.Column("fees $", lambda r: ui.number(r.fees_usd), True, lambda r: "fees"))
ORDERS = (ui.Column("time", lambda r: ui.clock(r.ts_ms)[:8], tone=lambda r: "muted"), ui.Column("symbol", lambda r: r.symbol), SIDE,
          ui.Column("cause", lambda r: f"written off {r.reason}" if r.cause == WRITTEN_OFF else r.cause),
          ui.Column("route", lambda r: {"full": "real"}.get(r.route, r.route), tone=lambda r: "muted"),
          ui.Column("price", lambda r: ui.price(r.price), True),
          ui.Column("filled / qty", lambda r: f"{r.filled or 0:g} / {r.qty:g}", True), ui.Column("state", lambda r: r.status or "sent"))
FILLS = (ui.Column("time", lambda r: ui.clock(r.ts_ms), tone=lambda r: "muted"), ui.Column("symbol", lambda r: r.symbol), SIDE,
         ui.Column("qty", lambda r: f"{r.qty:g}", True), ui.Column("price", lambda r: ui.price(r.price), True),
         ui.Column("as", lambda r: "maker" if r.maker else "taker", tone=lambda r: "" if r.maker else "fees"),
         ui.Column("fee $", lambda r: f"{r.fee_usd:.3f}", True, lambda r: "fees"))
CONTROLS = (ui.Column("market time", lambda r: ui.clock(r.ts_ms) if r.ts_ms else "", tone=lambda r: "muted"),
            ui.Column("kind", lambda r: r.kind, tone=lambda r: "loss" if r.kind in ("KILL", "CRIT") else ""),
            ui.Column("who", lambda r: r.actor), ui.Column("why", lambda r: r.reason),
            ui.Column("id", lambda r: r.id, tone=lambda r: "muted"))


def decisions(rows: pd.DataFrame, height: int = 380) -> None:
    """Decisions as a table that can be sorted and searched; sizes stand only where something was allowed."""
    if rows.empty:
        st.html('<div class="none">No decision matches.</div>')
        return
    allowed = rows["allowed"].astype(bool)

    def sized(column: str, how: Callable[[float], str]) -> pd.Series:
        return pd.Series([how(v) if yes else "" for v, yes in zip(rows[column], allowed)], index=rows.index)

    shown = pd.DataFrame({
        "market time": pd.to_datetime(rows["ts_ms"], unit="ms"), "symbol": rows["symbol"], "side": rows["side"].str.lower(),
        "verdict": allowed.map({True: "✓ allowed", False: "✕ refused"}), "reason": rows["code"].map(figures.words), "p": rows["p"],
        "numbers": rows["numbers"], "qty": sized("qty", "{:g}".format), "price": sized("price", ui.price),
        "margin $": sized("margin_usd", "{:,.2f}".format), "bound by": sized("cap", str), "regime": rows["regime"],
        "model": rows["model_id"]})
    c = st.column_config
    likely = c.ProgressColumn("p", help="calibrated probability that the target is reached before the stop", format="%.3f",
                              min_value=0, max_value=1, width=110, color=ACCENT)
    widths: dict[str, int | Literal["large"]] = {"symbol": 80, "side": 50, "verdict": 85, "reason": 140, "numbers": "large",
                                              "bound by": 75, "regime": 75}
    right = {name: c.TextColumn(width=80, alignment="right") for name in ("qty", "price", "margin $")}
    st.dataframe(shown, hide_index=True, height=height, row_height=28, column_config={
        "market time": c.DatetimeColumn(format="HH:mm:ss.SSS", width=105), "p": likely,
        **{name: c.TextColumn(width=width) for name, width in widths.items()}, **right})
