"""Which model trades?"""
import pandas as pd
import streamlit as st

from dashboard import data, ui


def taus(thresholds: dict) -> str:
    """Both thresholds as text; a dash for one that the manifest does not have."""
    return " / ".join(ui.number(thresholds.get(name), 3) for name in ("tau_entry", "tau_hold"))


ui.headline("Which model trades?")
slots, manifest, cards = data.models()
if not slots:
    ui.empty("No model is active", "Train and register the first one with `python -m scripts.train`, or let `make demo` do it.")
else:
    ui.verdict("good" if "active" in slots else "warn", f"{slots.get('active', 'none')} is active.",
               f"{slots['shadow']} scores beside it, without trading." if "shadow" in slots else "No shadow model scores beside it.")
if manifest:
    with st.container(key="panel-manifest"):
        ui.heading("Registered models", "newest first")
        by_model = {}
        try:
            closed = data.outcomes()
            by_model = closed.groupby("model_id")["net_usd"].agg(["size", "sum"]).to_dict("index")
        except data.Missing:
            pass
        rows = pd.DataFrame([{"id": e["id"], "slot": ", ".join(s for s, i in slots.items() if i == e["id"]),
                              "created": str(e.get("created_at", "")), "tau": taus(e.get("thresholds") or {}),
                              "schema": str(e.get("schema_hash", ""))[:12], "trades": by_model.get(e["id"], {}).get("size", 0),
                              "net": float(by_model.get(e["id"], {}).get("sum", 0.0)), "notes": str(e.get("notes") or "")}
                             for e in manifest])
        ui.table(rows, (ui.Column("model", lambda r: r.id), ui.Column("slot", lambda r: r.slot, tone=lambda r: "profit"),
                        ui.Column("created", lambda r: r.created[:19].replace("T", " ")),
                        ui.Column("tau entry / hold", lambda r: r.tau, True),
                        ui.Column("feature schema", lambda r: r.schema, tone=lambda r: "muted"),
                        ui.Column("trades", lambda r: f"{r.trades:,}", True),
                        ui.Column("net $", lambda r: ui.usd(r.net), True, lambda r: ui.tone(round(r.net, 2))),
                        ui.Column("notes", lambda r: r.notes)), "No model is registered.")
    with st.container(key="panel-card"):
        ids = [e["id"] for e in manifest if e["id"] in cards]
        if ids:
            chosen = st.selectbox("Model card", ids, index=ids.index(slots["active"]) if slots.get("active") in ids else 0)
            st.markdown(cards[chosen])
        else:
            st.html('<div class="none">No model has a card yet.</div>')
