"""Why this order?"""
from html import escape

import pandas as pd
import streamlit as st

from dashboard import data, tables, ui
from store import figures


def story(order_id: str, found: dict[str, pd.DataFrame]) -> None:
    """From the decision to the outcome, in the order of what happened."""
    if found["orders"].empty:
        ui.empty("No such order", f"`{order_id}` is not in the ledger's projections. Choose one of the list above, or ask the ledger "
                 f"itself: `python -m scripts.why {order_id}`.")
        return
    decision = found["decision"].iloc[0] if len(found["decision"]) else None
    outcome = found["outcome"].iloc[0] if len(found["outcome"]) else None
    entry = found["orders"].iloc[0]
    if outcome is not None:
        held_s = (outcome["closed_ms"] - outcome["opened_ms"]) / 1000
        tone = "good" if outcome["net_usd"] > 0 else "bad"
        ui.verdict(tone, f"{outcome['symbol']} {outcome['side'].lower()}: {ui.usd(outcome['net_usd'])} USD net",
                   f"{ui.usd(outcome['gross_usd'])} before fees − {outcome['fees_usd']:,.2f} fees · closed by "
                   f"{figures.REASONS.get(outcome['cause'], outcome['cause'])} after {held_s:,.1f} s")
    else:
        ui.verdict("warn", f"{entry['symbol']} {entry['side'].lower()}: not closed yet", f"entry is {entry['status'] or 'sent'}")
    left, right = st.columns([1, 1.4])
    with left.container(key="panel-decision", height="stretch"):
        ui.heading("Decision", "what was decided, and on which numbers")
        if decision is None:
            st.html('<div class="none">The ledger names no decision for it.</div>')
        else:
            rows = {"when": f"{ui.clock(decision['ts_ms'])} market time", "verdict": figures.words(decision["code"]),
                    "why": decision["numbers"] or "", "probability": f"{ui.number(decision['p'], 3)} by {decision['model_id']}",
                    "regime": decision["regime"],
                    "size": f"{decision['qty']:g} at {ui.price(decision['price'])}, {decision['margin_usd']:,.2f} USD margin",
                    "bound by": decision["cap"] or "nothing", "route": f"{decision['route']}, epoch {decision['epoch']}",
                    "id": decision["id"]}
            st.html('<div class="chain">' + "".join(f"<span>{escape(k)}</span><b>{escape(str(v))}</b>" for k, v in rows.items()) + "</div>")
    with right.container(key="panel-chain", height="stretch"):
        ui.heading("Orders", "the entry and what closed it")
        ui.table(found["orders"], tables.ORDERS, "None.")
        ui.heading("Fills")
        ui.table(found["fills"], tables.FILLS, "No fill yet.")
    if len(found["fills"]) > 1:
        with st.container(key="panel-price"):
            ui.heading("Where it traded", "market time, UTC · filled: as maker, hollow: as taker")
            points = pd.DataFrame({"ts_ms": found["fills"]["ts_ms"], "price": found["fills"]["price"]})
            ui.chart(figures.market_with_fills(points, found["fills"], 260), "order-price")


head = st.empty()
with head:
    ui.headline("Why this order?")
if ui.waits_for(data.runs):
    recent = data.orders(ui.choose_run(), most=300)
    entries = recent[recent["cause"] == "entry"]
    labels = {r.id: f"{ui.clock(r.ts_ms)}  {r.symbol}  {r.side.lower()}  {r.qty:g}  {r.status or 'sent'}  ·  {r.id}"
              for r in entries.itertuples()}
    asked = st.query_params.get("id", "")
    if asked and asked not in labels:
        labels = {asked: asked, **labels}
    if not labels:
        ui.empty("No order yet", "Nothing passed the policy so far: **Why was it blocked?** shows the reasons.")
    else:
        options = list(labels)
        chosen = st.selectbox("Order", options, index=options.index(asked) if asked else 0, format_func=lambda i: labels.get(i, i),
                              accept_new_options=True, help="Choose one of the newest entries, or paste any order id.")
        found = data.chain(chosen or options[0])
        with head:
            ui.headline("Why this order?", market_ms=found["orders"]["updated_ms"].max() if len(found["orders"]) else None)
        story(chosen or options[0], found)
