"""The console's own look: cards, lights, tables and empty states as small pieces of HTML. Everything that is text is escaped here."""
import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

import pandas as pd
import plotly.graph_objects as go
import streamlit as st

from config.settings import Settings
from dashboard import data, gates, health
from engine.desk import ACTIVE, REDUCING
from engine.facts import Control
from store.mirror import Seen

STYLE = Path(__file__).parent / "style.css"
SIGNS = {health.READY: "●", health.BEHIND: "▲", health.STALE: "▲", health.WAITING: "◌", health.DOWN: "✕"}
NAMES = {"exchange": "exchange", "collector": "collector", "signal_engine": "signal", "ai_scorer": "scorer", "risk": "risk",
         "executor": "executor"}


def dress() -> None:
    """The style sheet, once a page."""
    st.html(STYLE)


def live(every_s: float) -> Callable:
    """A part of a page that draws itself again every so many seconds; what is missing is said in its place."""
    def wrap(draw: Callable[..., None]) -> Callable[..., None]:
        @st.fragment(run_every=every_s)
        @functools.wraps(draw)
        def drawn(*args: Any) -> None:
            try:
                draw(*args)
            except data.Missing as missing:
                empty(missing.what, missing.todo)
        return drawn
    return wrap


def waits_for(look: Callable[[], Any]) -> bool:
    """Whether there is something to show; if not, says what to do, looks again every two seconds and then draws the page anew."""
    try:
        look()
    except data.Missing as missing:
        empty(missing.what, missing.todo)
        _again(look)
        return False
    return True


@st.fragment(run_every=2)
def _again(look: Callable[[], Any]) -> None:
    try:
        look()
    except data.Missing:
        return
    st.rerun()


def empty(what: str, todo: str) -> None:
    """An empty state: what is not there, and what to do."""
    with st.container(border=True):
        st.html(f'<div class="empty"><b>{escape(what)}</b></div>')
        st.markdown(todo)


def headline(question: str, run: str = "", market_ms: float | None = None, model: str = "") -> None:
    """The page's question, and both clocks: the market's and the wall's. Run and model are named where given."""
    wall = pd.Timestamp.now(tz="UTC")
    market = f"{pd.Timestamp(market_ms, unit='ms'):%Y-%m-%d %H:%M:%S} UTC" if market_ms else "–"
    where = "".join(f"<span><i>{name}</i>{escape(value)}</span>" for name, value in (("model", model), ("run", run)) if value)
    st.html(f'<header class="headline"><h1>{escape(question)}</h1><div class="clocks">{where}<span><i>market time</i>{market}</span>'
            f"<span><i>wall clock</i>{wall:%H:%M:%S} UTC</span></div></header>")


@dataclass(frozen=True)
class Card:
    """One figure with its unit and what stands behind it; `tone` is `profit`, `loss`, `warn` or nothing; `share` draws a small bar."""
    name: str
    value: str
    unit: str = ""
    under: str = ""
    tone: str = ""
    share: float | None = None


def cards(row: Sequence[Card]) -> None:
    """A row of figures."""
    cells = []
    for c in row:
        bar = f'<div class="bar"><u style="width:{100 * min(1, max(0, c.share)):.1f}%"></u></div>' if c.share is not None else ""
        cells.append(f'<div class="card {c.tone}"><span>{escape(c.name)}</span><b>{escape(c.value)}<em>{escape(c.unit)}</em></b>'
                     f"{bar}<small>{escape(c.under)}</small></div>")
    st.html(f'<div class="cards">{"".join(cells)}</div>')


def route(vitals: health.Vitals, source: str, speed: str) -> None:
    """The way of a tick through the services, each with its light, its lag and its latency."""
    nodes = []
    for light in vitals.lights:
        if light.service == "exchange":
            numbers = [("market", number(vitals.events_per_s, 0), "events/s"), ("source", escape(source), escape(speed))]
        else:
            age = light.service == "collector"
            first = ("data age", number(vitals.market_age_ms, 0), "ms") if age else ("lag", number(light.lag, 0), "records")
            numbers = [first, ("p50 · p99", f"{number(light.p50_ms, 1)} · {number(light.p99_ms, 1)}", "ms")]
        lines = "".join(f"<p><span>{n}</span><b>{v}</b><em>{u}</em></p>" for n, v, u in numbers)
        nodes.append(f'<div class="node {light.state}" title="{escape(light.why)}"><h4><i>{SIGNS[light.state]}</i>'
                     f"{NAMES[light.service]}<em>{light.state}</em></h4>{lines}</div>")
    st.html(f'<div class="route">{"<s></s>".join(nodes)}</div>')


def verdict(tone: str, sentence: str, rest: str = "") -> None:
    """The answer to the page's question in one sentence."""
    st.html(f'<div class="verdict {tone}"><b>{escape(sentence)}</b><span>{escape(rest)}</span></div>')


GATE_SIGNS = {gates.OPEN: "●", gates.NARROW: "▲", gates.SHUT: "✕"}
GATE_TONES = {gates.OPEN: "profit", gates.NARROW: "fees", gates.SHUT: "loss"}


def gates_of(seen: Seen, settings: Settings, waiting: Sequence[Control]) -> list[gates.Gate]:
    """Every gate between a signal and an order."""
    return gates.gates(seen, settings, len(waiting))


def trading(seen: Seen, settings: Settings, waiting: Sequence[Control], strip: bool = True) -> None:
    """The trading state in one sentence, and every gate between a signal and an order as a row of lights."""
    all_gates = gates_of(seen, settings, waiting)
    closed = [g for g in all_gates if g.state != gates.OPEN]
    doing = {ACTIVE: "entries may be sent", REDUCING: "nothing is opened; what is held is being closed"}.get(
        seen.trading, "nothing is held and nothing is opened")
    tone = "bad" if seen.trading != ACTIVE or waiting else "warn" if closed or seen.differs else "good"
    rest = " · ".join([*(f"{g.name}: {g.words}" for g in closed), *_doubts(seen)]) or "every gate is open"
    verdict(tone, f"{seen.trading}: {doing}.", rest)
    if strip:
        lights = "".join(f'<span class="gate {g.state}"><i>{GATE_SIGNS[g.state]}</i>{escape(g.name)}<em>{escape(g.words)}</em></span>'
                         for g in all_gates)
        st.html(f'<div class="gates">{lights}</div>')


def _doubts(seen: Seen) -> list[str]:
    """What keeps the mirror from being the desk."""
    risk = next((light for light in data.vitals().lights if light.service == "risk"), None)
    found = []
    if risk and risk.state in (health.DOWN, health.WAITING):
        found.append(f"the risk service is {risk.state} ({risk.why}): this is how the ledger left it")
    if seen.behind:
        found.append(f"{seen.behind:,} transactions behind the ledger")
    if seen.differs:
        found.append(f"{seen.differs} answers differ from the ledger's: this console has other settings than the desk, or another version")
    return found


def heading(name: str, about: str = "") -> None:
    """The head of a panel."""
    st.html(f'<div class="panel"><b>{escape(name)}</b><span>{escape(about)}</span></div>')


def chart(figure: go.Figure, key: str) -> None:
    """A figure as it was drawn, without the toolbar."""
    st.plotly_chart(figure, key=key, theme=None, config={"displayModeBar": False})


@dataclass(frozen=True)
class Column:
    """A column of a small table: its head, how a row's cell reads, whether it is a number, and its tone."""
    head: str
    cell: Callable[[Any], str]
    number: bool = False
    tone: Callable[[Any], str] = lambda row: ""


def table(rows: pd.DataFrame, columns: Sequence[Column], none: str) -> None:
    """A small table; `none` is said where there is no row."""
    if rows.empty:
        st.html(f'<div class="none">{escape(none)}</div>')
        return
    head = "".join(f'<th class="{"n" if c.number else ""}">{escape(c.head)}</th>' for c in columns)
    body = "".join("<tr>" + "".join(f'<td class="{"n" if c.number else ""} {c.tone(row)}">{escape(c.cell(row))}</td>' for c in columns)
                   + "</tr>" for row in rows.itertuples())
    st.html(f'<div class="scroll"><table class="small"><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>')


def choose_run() -> str:
    """Which run of the market the page is about; empty means all. Nothing is asked where there was only one."""
    runs = data.runs()
    if len(runs) < 2:
        return ""
    chosen = st.session_state.setdefault("run", runs[0])
    options = [*runs, ""]
    return st.selectbox("Run of the market", options, index=options.index(chosen) if chosen in options else 0, key="run",
                        format_func=lambda r: r or "all runs", label_visibility="collapsed")


# words for numbers

def number(value: float | None, digits: int = 2) -> str:
    """A number, or a dash where there is none.

    >>> number(12345.678, 1), number(None)
    ('12,345.7', '–')
    """
    return "–" if value is None or value != value else f"{value:,.{digits}f}"


def usd(value: float) -> str:
    """A result in USD, always with its sign.

    >>> usd(-3.5), usd(0.0)
    ('−3.50', '0.00')
    """
    return "0.00" if abs(value) < 0.005 else f"{value:+,.2f}".replace("-", "−")


def tone(value: float) -> str:
    """`profit`, `loss` or nothing."""
    return "profit" if value > 0 else "loss" if value < 0 else ""


def clock(ts_ms: float) -> str:
    """Market time of day, to the millisecond, UTC."""
    return f"{pd.Timestamp(int(ts_ms), unit='ms'):%H:%M:%S.%f}"[:-3]


def price(value: float) -> str:
    """A price with as many digits as it needs.

    >>> price(60123.5), price(0.0), price(1.2345)
    ('60,123.5', 'market', '1.2345')
    """
    if not value:
        return "market"
    text = f"{value:,.6f}".rstrip("0")
    return text + "0" if text.endswith(".") else text
