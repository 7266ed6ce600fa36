"""What do we hold, and where do we wait?"""
from html import escape

import pandas as pd
import streamlit as st

from dashboard import books, data, decided, ladders, standing, tables, ui
from engine.facts import BUY
from store import figures_desk as figures
from store.mirror import Seen

STATE_TONE = {"open": "profit", "entering": "buy", "closed": "muted"}
LEVELS = (ui.Column("level", lambda r: f"{r.level + 1}"), ui.Column("price", lambda r: ui.price(r.price), True),
          ui.Column("ticks behind", lambda r: "–" if missing(r.behind) else f"{r.behind:+.0f}", True),
          ui.Column("quantity", lambda r: f"{r.qty:.10g}", True),
          ui.Column("filled", lambda r: amount(r.filled), True, lambda r: "profit" if r.filled else "muted"),
          ui.Column("sold", lambda r: amount(r.sold), True),
          ui.Column("fill predicted", lambda r: "–" if missing(r.p) else f"{r.p:.0%}", True),
          ui.Column("state", lambda r: r.state, tone=lambda r: STATE_TONE.get(r.state.split(" (")[0], "fees")),
          ui.Column("order at work", lambda r: r.order, tone=lambda r: "muted"),
          ui.Column("margin $", lambda r: ui.number(r.margin_usd), True))
ROUTES = ("real", "real (canary)", "paper", "twin")
RECENT = (
    ui.Column("time", lambda r: ui.clock(r.ts_ms)[:8], tone=lambda r: "muted"), ui.Column("symbol", lambda r: r.symbol), tables.SIDE,
    ui.Column("route", lambda r: ladders.ROUTES.get(r.route, r.route), tone=lambda r: "fees" if r.route == "twin" else ""),
    ui.Column("price", lambda r: ui.price(r.price), True),
    ui.Column("filled / qty", lambda r: f"{r.filled or 0:.10g} / {r.qty:.10g}", True),
    ui.Column("levels", lambda r: f"{r.levels:.0f}", True),
    ui.Column("state", lambda r: r.status or "sent"),
    ui.Column("decision", lambda r: "twin of the real one" if missing(r.code) else figures.words(r.code)),
    ui.Column("p", lambda r: "" if missing(r.p) else f"{r.p:.3f}", True),
    ui.Column("bound by", lambda r: "" if missing(r.cap) or not r.cap else figures.words(r.cap)),
    ui.Column("arm", lambda r: "" if missing(r.arm) else r.arm),
    ui.Column("drawn with", lambda r: "" if missing(r.propensity) else f"{r.propensity:.0%}", True),
    ui.Column("reward", lambda r: "" if missing(r.reward) else f"{r.reward:+.3f}".replace("-", "−"), True,
              lambda r: "" if missing(r.reward) else ui.tone(r.reward)),
    ui.Column("net $", lambda r: "" if missing(r.net_usd) else ui.usd(r.net_usd), True,
              lambda r: "" if missing(r.net_usd) else ui.tone(round(r.net_usd, 2))))


def missing(value: object) -> bool:
    """Whether a table has nothing there."""
    return value is None or value != value


def amount(value: float | None) -> str:
    """A quantity, or a dash."""
    return "–" if value is None or value != value else f"{value:.10g}"


@ui.live(2)
def now() -> None:
    """What is held and what waits, entry by entry."""
    seen, settings = standing.seen(), data.settings()
    ui.headline("What do we hold, and where do we wait?", market_ms=seen.state.now_ms or None)
    ui.trading(seen, settings, standing.waiting(seen))
    plans = (*seen.state.portfolio.plans, *seen.state.twins.plans)
    live = ladders.live(seen, settings, decided.rungs(plans))
    mine = [entry for entry in live if not entry.twin]
    held = data.positions()
    apart = held["symbol"].str.endswith(" twin")
    one, two = st.columns([1, 1.15])
    with one.container(key="panel-held", height="stretch"):
        ui.heading("Positions", "of the account that trades; signed, base units")
        ui.table(held[~apart].sort_values("qty", key=lambda q: q.abs() < 1e-12), tables.POSITIONS, "Nothing held, nothing traded yet.")
        if apart.any():
            ui.heading("Paper twins", "the same entries on paper, counted apart: in no sum of the desk")
            ui.table(held[apart], tables.POSITIONS, "")
    with two.container(key="panel-live", height="stretch"):
        ui.heading("Live entries", f"{len(mine)} of the desk, {len(live) - len(mine)} on the paper account beside it")
        ui.table(pd.DataFrame([{
            "id": e.id, "symbol": e.symbol, "side": e.side, "route": e.route, "held": e.held, "average": e.average, "levels": len(e.levels),
            "stop": e.stop, "target": e.target, "liquidation": e.liquidation, "margin": e.margin_usd,
            "left_s": (e.deadline_ms - seen.state.now_ms) / 1000 if e.deadline_ms else None,
            "end": "closed" if e.filled_yet else "taken back"} for e in live]), (
            ui.Column("symbol", lambda r: r.symbol), tables.SIDE, ui.Column("route", lambda r: r.route),
            ui.Column("levels", lambda r: f"{r.levels}", True), ui.Column("held", lambda r: f"{r.held:.10g}", True),
            ui.Column("average", lambda r: ui.price(round(r.average, 6)), True),
            ui.Column("stop", lambda r: ui.price(r.stop), True, lambda r: "loss"),
            ui.Column("target", lambda r: ui.price(r.target), True, lambda r: "profit"),
            ui.Column("liquidation", lambda r: ui.price(round(r.liquidation, 2)), True, lambda r: "muted"),
            ui.Column("margin $", lambda r: ui.number(r.margin), True),
            ui.Column("deadline", lambda r: "–" if missing(r.left_s) else f"{r.end} in {max(0, r.left_s):,.0f} s", True)),
            "Nothing is held and nothing waits.")
    for entry in live[:6]:
        draw(entry, seen)


def draw(entry: ladders.Live, seen: Seen) -> None:
    """One entry: its levels beside the market."""
    with st.container(key=f"panel-ladder-{entry.id}"):
        touch = "no book"
        if entry.bid is not None and entry.ask is not None:
            touch = f"bid {ui.price(round(entry.bid, 8))} · ask {ui.price(round(entry.ask, 8))}"
        depth = seen.depth.get(entry.symbol)
        near = f" · first levels show {depth[0]:.6g} / {depth[1]:.6g}" if depth else ""
        ui.heading(f"{entry.symbol} {'▲ buy' if entry.side == BUY else '▼ sell'} · {entry.route}", f"{touch}{near} · {entry.id}")
        left, right = st.columns([1.25, 1])
        with right:
            ui.table(entry.levels, LEVELS, "")
            st.markdown(f"[Why this order?](order?id={entry.id}) · [What bounded its size?](sizing?id={entry.id})")
        with left:
            rows = seen.touches.get(entry.symbol, [])[-1500:]
            touches = pd.DataFrame([(t.ts_ms, t.bid, t.ask) for t in rows if t.bid > 0 and t.ask > 0], columns=["ts_ms", "bid", "ask"])
            lines = {"stop": entry.stop, "target": entry.target} | ({"average": entry.average} if entry.held else {})
            book, why = books.book(entry.symbol)
            figure = figures.ladder(entry.levels, entry.side, touches, lines, entry.sent_ms, seen.state.now_ms, book, 320)
            ui.chart(figure, f"ladder-{entry.id}")
            if why:
                st.html(f'<div class="none">{escape(why)}</div>')


@ui.live(3)
def recent() -> None:
    """The newest entries with what became of them."""
    rows = decided.entries()
    with st.container(key="panel-recent"):
        head, choice = st.columns([2.2, 1], vertical_alignment="center")
        with head:
            ui.heading("Recent entries", "decision, arm and reward; a twin is the same entry on paper")
        routes = choice.multiselect("Route", ROUTES, placeholder="any route", label_visibility="collapsed", key="positions_route")
        if routes and len(rows):
            rows = rows[rows["route"].map(lambda r: ladders.ROUTES.get(r, r)).isin(routes)]
        ui.table(rows, RECENT, "No entry matches.")


if ui.waits_for(lambda: (standing.seen(), data.positions())):
    now()
    recent()
