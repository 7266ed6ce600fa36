"""What bounded the size?"""
from html import escape

import pandas as pd
import streamlit as st

from dashboard import data, decided, standing, ui
from engine import metrics as m
from engine.facts import Decision
from engine.sizing.caps import NAMES
from engine.sizing.collateral import HINT
from engine.sizing.risk import FACTORS
from store import figures_desk as figures
from store.figures import words
from store.mirror import Seen

CAP_WORDS = {
    "arm_cap": "the execution arm's part of what the policy allotted", "wallet_free": "the free balance",
    "per_name_max": "an amount a symbol", "per_name_fraction": "a share of the equity a symbol",
    "lp_impact": "a share of the visible depth", "flow": "a share of the depth, shrunk with the trading",
    "daily_cap": "what is left of the day", "usd_cap": "dollars a symbol, by the price of the collateral",
    "symbol_exposure": "S4's limit of the symbol", "total_exposure": "S4's limit of the account", "notional_cap": "S1's largest order"}
COLUMNS = (ui.Column("", lambda r: "▶" if r.binds else "", tone=lambda r: "buy"),
           ui.Column("cap", lambda r: words(r.name), tone=lambda r: "buy" if r.binds else ""),
           ui.Column("margin $", lambda r: ui.number(r.usd) if r.usd is not None else "does not bind", True,
                     lambda r: "buy" if r.binds else "muted" if r.usd is None else ""),
           ui.Column("what it is", lambda r: r.what, tone=lambda r: "muted"))


def caps_table(d: Decision) -> pd.DataFrame:
    """The eleven caps of a decision, the binding one marked; `usd` None where a cap is infinite."""
    known = {c.name: c.usd for c in d.sized.caps} if d.sized else {}
    return pd.DataFrame([{"name": name, "usd": known[name] if known.get(name, float("inf")) < float("inf") else None,
                          "binds": name == d.cap, "what": CAP_WORDS[name]} for name in NAMES], dtype=object)


def collateral(seen: Seen) -> tuple[str, str]:
    """The source of the collateral's price now; and in words the price, its age, and how old it may be."""
    settings, worth = data.settings(), seen.collateral
    rules, unit = settings.sizing.collateral, settings.desk.collateral
    touch, most = seen.state.touches.get(rules.symbol), f"{rules.maxAgeMs / 1000:g} s is the most"
    age = "nobody follows a price of it"
    if touch is not None:
        age = f"{rules.symbol} is {(seen.state.now_ms - touch.ts_ms) / 1000:,.1f} s old, {most}"
    price = "no price: the USD cap is suspended" if worth.usd is None else f"{worth.usd:g} USD a {unit}"
    return worth.source, f"{worth.source}: {price}" + (f", the settings' hint ({age})" if worth.source == HINT else f" ({age})")


def share(counts: dict[str, float]) -> str:
    """Parts of a whole, the largest first."""
    whole = sum(counts.values())
    parts = sorted(((n, name) for name, n in counts.items() if n), reverse=True)
    return " · ".join(f"{words(name)} {n / whole:.0%}" for n, name in parts[:4]) if whole else ""


@ui.live(4)
def over_time() -> None:
    """What bounded sizes in the last stretch of market time."""
    span = decided.SPANS[st.session_state.get("sizing_span") or "hour"]
    sizes, step = decided.sizes(span), decided.step_of(span)
    ui.headline("What bounded the size?", market_ms=decided.newest() or None)
    vitals = data.vitals()
    totals = {cap: sum(data.health.values(vitals.samples, m.SIZING_CAP_LIMIT_TOTAL, cap=cap)) for cap in NAMES} if vitals.answered else {}
    sources = {s: sum(data.health.values(vitals.samples, m.SIZING_PRICE_SOURCE_TOTAL, source=s))
               for s in m.SIZING_PRICE_SOURCE_TOTAL.labels["source"]} if vitals.answered else {}
    n = len(sizes)
    by = sizes["cap"].value_counts() if n else pd.Series(dtype=int)
    scaled = sizes["multiplier"].dropna() if n else pd.Series(dtype=float)
    notional = float((sizes["qty"] * sizes["price"]).sum()) if n else 0.0
    source, age = collateral(standing.seen())
    ui.cards([
        ui.Card("Entries sized and sent", f"{n:,}", "", "of this time"),
        ui.Card("Planned volume", ui.number(notional, 0), "USD", f"{notional / n:,.0f} USD an entry" if n else "nothing planned"),
        ui.Card("Most often bound by", words(by.index[0]) if len(by) else "–", f"{by.iloc[0] / n:.0%}" if n else "",
                "arm cap: no cap took anything" if n and by.index[0] == "arm_cap" else CAP_WORDS.get(by.index[0], "") if n else ""),
        ui.Card("Risk left, in the mean", "–" if scaled.empty else f"{scaled.mean():.0%}", "of a size",
                f"{(scaled < 0.999).mean():.0%} of sizes scaled" if len(scaled) else "no size yet",
                share=float(scaled.mean()) if len(scaled) else 0),
        ui.Card("All sizings, refused too", f"{sum(totals.values()):,.0f}" if totals else "–", "",
                share(totals) or "since the services began"),
        ui.Card("Collateral's price", source, "", share(sources) or "its source")])
    st.html(f'<div class="none">Collateral: {escape(age)}</div>')
    left, mid, right = st.columns([1.2, 0.9, 1])
    with left.container(key="panel-caps", height="stretch"):
        ui.heading("Limiting cap", "share of the sizes, by market time")
        ui.chart(figures.caps_over_time(sizes, step, 250, NAMES), "caps")
    with mid.container(key="panel-multipliers", height="stretch"):
        ui.heading("What risk left", "number of sizes at each multiplier")
        ui.chart(figures.multipliers(sizes, 250), "multipliers")
    with right.container(key="panel-volume", height="stretch"):
        ui.heading("Planned volume", "notional by market time")
        ui.chart(figures.volume_over_time(sizes, step, 250), "volume")


@ui.live(10)
def one_order() -> None:
    """How one size came about: allotted → caps → risk → lots."""
    sizes = decided.sizes(decided.SPANS["day"]).head(200)
    with st.container(key="panel-one"):
        head, choice = st.columns([1, 1.6], vertical_alignment="center")
        with head:
            ui.heading("One size, step by step", "margin in USD")
        if sizes.empty:
            st.html('<div class="none">No entry was sized yet: <b>Why was it blocked?</b> shows the reasons.</div>')
            return
        labels = {r.id: f"{ui.clock(r.ts_ms)}  {r.symbol}  {r.side.lower()}  {r.qty:g}  ·  {words(r.cap) if r.cap else 'nothing'}"
                  for r in sizes.itertuples()}
        asked = f"D-{st.query_params.get('id', '')[2:]}"
        options = [*labels] if asked in labels or asked == "D-" else [asked, *labels]
        chosen = choice.selectbox("Entry", options, index=options.index(asked) if asked in options else 0, key="sizing_order",
                                  format_func=lambda i: labels.get(i, i), label_visibility="collapsed")
        order = decided.order(chosen)
        if order is None or order.decision is None or order.decision.sized is None:
            st.html('<div class="none">The ledger has no size of it.</div>')
            return
        explain(order.decision)


def explain(d: Decision) -> None:
    """The waterfall, the caps, and the factors of risk."""
    z = d.sized
    assert z is not None
    left, right = st.columns([1.15, 1])
    with left:
        ui.chart(figures.waterfall(d, 300), "waterfall")
        said = {"rugProb": z.predicted.rug_prob, "pFill": z.predicted.p_fill, "expSlipBps": z.predicted.exp_slip_bps}
        rows = pd.DataFrame([{"factor": figures.FACTOR_WORDS[f], "name": f, "says": ui.number(said[f], 4), "takes": z.factors.get(f)}
                             for f in FACTORS], dtype=object)
        ui.table(rows, (ui.Column("risk factor", lambda r: r.factor), ui.Column("seed's name", lambda r: r.name, tone=lambda r: "muted"),
                        ui.Column("predicted", lambda r: r.says, True),
                        ui.Column("leaves", lambda r: f"× {r.takes:.3f}" if r.takes is not None else "all", True,
                                  lambda r: "loss" if r.takes is not None else "muted")), "")
    with right:
        ui.table(caps_table(d), COLUMNS, "")
    rest = (f"{d.qty:g} at {ui.price(d.price)} = {d.qty * d.price:,.2f} USD notional, {d.margin_usd:,.2f} USD margin at {d.leverage:g}×"
            f" · note {z.note} · arm {d.choice.arm if d.choice else '–'}"
            f" ({decided.arm_words(d.choice.arm) if d.choice else ''}) · price of the collateral: {z.source}")
    st.html(f'<div class="none">{escape(rest)}</div>')


def page() -> None:
    """Drawn where there is a ledger."""
    st.segmented_control("Time", list(decided.SPANS), default="hour", key="sizing_span", label_visibility="collapsed")
    over_time()
    one_order()


if ui.waits_for(lambda: (standing.seen(), decided.newest())):
    page()
