"""Figures of the desk at work: what refused, what bounded a size, how one size came about, and a ladder beside its market.

As in `store/figures.py`: tables in, a figure out, market time in UTC, money in USD, an empty table draws an empty figure that says so.
"""
from collections.abc import Mapping, Sequence
from itertools import pairwise

import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from engine.facts import BUY, Decision
from engine.sizing.risk import FACTORS
from store.figures import canvas, market_time, nothing, thinned, words
from store.palette import ACCENT, FEES, LINE, LOSS, MUTED, PROFIT, SERIES, SURFACE, TEMPLATE, TEXT, WARN, faint

MORE = (*SERIES, "#5FB0D9", "#D98BB5", "#8FCB7A", "#D9A35F", "#7F8CD9", "#5FD9C4", "#C9D95F")
FACTOR_WORDS = dict(zip(FACTORS, ("tail risk", "doubtful fill", "slippage")))


def stacked(rows: pd.DataFrame, by: str, value: str, step_ms: int, height: int, hover: str, order: Sequence[str] = (),
            share: bool = False) -> go.Figure:
    """Bars of each stretch of market time, stacked by a column, the largest at the bottom. Needs `at_ms`, `by`, `value`.

    `order` gives each name the same colour whatever else is drawn; `share` draws parts of each bar's whole.
    """
    figure = canvas(height)
    totals = rows.groupby(by)[value].sum().sort_values(ascending=False)
    colours = {name: MORE[i % len(MORE)] for i, name in enumerate(order or totals.index)}
    whole = rows.groupby("at_ms")[value].sum()
    for name in totals.index:
        part = rows[rows[by] == name].groupby("at_ms")[value].sum()
        shown = part / whole.reindex(part.index) if share else part
        figure.add_bar(x=market_time(pd.Series(part.index + step_ms // 2)), y=shown.to_numpy(), name=words(name),
                       customdata=part.to_numpy(), width=step_ms * 0.86, hovertemplate=hover,
                       marker={"color": colours.get(name, MUTED), "line": {"width": 0}})
    figure.update_layout(barmode="stack", legend={"traceorder": "normal"}, hovermode="x unified" if len(totals) < 8 else "closest")
    if share:
        figure.update_yaxes(tickformat=".0%", range=[0, 1])
    return figure


def refusals_over_time(rows: pd.DataFrame, step_ms: int, height: int = 260, order: Sequence[str] = ()) -> go.Figure:
    """How many candidates each reason refused, a bar a minute or an hour. Needs `at_ms`, `code`, `n`."""
    if rows.empty:
        return nothing("Nothing was refused in this time", height)
    return stacked(rows, "code", "n", step_ms, height, "%{customdata:,} %{fullData.name}<extra></extra>", order)


def caps_over_time(sizes: pd.DataFrame, step_ms: int, height: int = 240, order: Sequence[str] = ()) -> go.Figure:
    """The share of the sizes that each cap limited. Needs `ts_ms`, `cap`."""
    if sizes.empty:
        return nothing("Nothing was sized in this time", height)
    rows = pd.DataFrame({"at_ms": sizes["ts_ms"] - sizes["ts_ms"] % step_ms, "cap": sizes["cap"].replace("", "none"), "n": 1})
    return stacked(rows, "cap", "n", step_ms, height, "%{customdata:,} · %{y:.0%} by %{fullData.name}<extra></extra>", order, True)


def volume_over_time(sizes: pd.DataFrame, step_ms: int, height: int = 240) -> go.Figure:
    """The notional that entries were planned with, by symbol. Needs `ts_ms`, `symbol`, `qty`, `price`."""
    if sizes.empty:
        return nothing("Nothing was planned in this time", height)
    rows = pd.DataFrame({"at_ms": sizes["ts_ms"] - sizes["ts_ms"] % step_ms, "symbol": sizes["symbol"],
                         "usd": sizes["qty"] * sizes["price"]})
    figure = stacked(rows, "symbol", "usd", step_ms, height, "%{customdata:,.0f} $ %{fullData.name}<extra></extra>",
                     sorted(set(rows["symbol"])))
    return figure.for_each_trace(lambda bar: bar.update(name=bar.name.upper())).update_yaxes(ticksuffix=" $", tickformat=",.0f")


def multipliers(sizes: pd.DataFrame, height: int = 240) -> go.Figure:
    """What risk left of each size: how many sizes at each multiplier. Needs `multiplier`; rows without one are left out."""
    known = sizes["multiplier"].dropna() if len(sizes) else pd.Series(dtype=float)
    if known.empty:
        return nothing("No size with a risk multiplier in this time", height)
    figure = canvas(height)
    figure.add_histogram(x=known, xbins={"start": 0.0, "end": 1.0001, "size": 0.05}, marker={"color": ACCENT},
                         hovertemplate="%{y:,} sizes between %{x}<extra></extra>")
    figure.add_vline(float(known.mean()), line={"color": WARN, "width": 1.5, "dash": "dot"}, annotation_text=f"mean {known.mean():.2f}",
                     annotation_font={"color": WARN, "size": 12}, annotation_position="top left")
    figure.update_xaxes(range=[0, 1.02], title="risk multiplier: 1 takes nothing")
    return figure.update_layout(bargap=0.06)


def steps(d: Decision) -> list[tuple[str, float]]:
    """How the margin of an entry came about, USD: what was wanted, then what each step took (below 0), in their order. Their sum is
    what was sent."""
    z = d.sized
    if z is None:
        return [("sent", d.margin_usd)]
    scaled = z.capped_usd * z.multiplier
    return [("allotted", z.wanted_usd), (f"cap: {words(z.cap)}", z.capped_usd - z.wanted_usd),
            (f"risk × {z.multiplier:.2f}", scaled - z.capped_usd), ("whole lots", z.margin_usd - scaled),
            ("levels left out", d.margin_usd - z.margin_usd)]


def waterfall(d: Decision, height: int = 280) -> go.Figure:
    """The margin of one entry from what the policy allotted to what was sent."""
    figure, some = canvas(height), steps(d)
    text = [f"{usd:,.2f}" if i == 0 else f"{usd:+,.2f}".replace("-", "−") if abs(usd) >= 0.005 else "–" for i, (_, usd) in enumerate(some)]
    figure.add_waterfall(
        x=[name for name, _ in some] + ["sent"], y=[usd for _, usd in some] + [0.0],
        measure=["absolute", *["relative"] * (len(some) - 1), "total"], text=[*text, f"{d.margin_usd:,.2f}"], textposition="outside",
        textfont={"color": TEXT, "size": 12}, cliponaxis=False, connector={"line": {"color": LINE, "width": 1}},
        increasing={"marker": {"color": PROFIT}}, decreasing={"marker": {"color": LOSS}}, totals={"marker": {"color": ACCENT}},
        hovertemplate="%{x}: <b>%{text} $</b> margin<extra></extra>")
    figure.update_yaxes(ticksuffix=" $", rangemode="tozero")
    figure.update_layout(showlegend=False, margin={"t": 26})
    return figure


def ladder(levels: pd.DataFrame, side: str, touches: pd.DataFrame, lines: Mapping[str, float], since_ms: int, now_ms: int,
           book: pd.DataFrame | None = None, height: int = 420) -> go.Figure:
    """An entry's levels beside its market: to the left best bid and ask over time with every level from its sending on, to the right
    quantities at each price, own ones in colour over the book's, closer.

    `levels` needs `price`, `qty`, `filled`, `p`, `state`; `touches` `ts_ms`, `bid`, `ask`; `book` `price`, `qty`, `side` (BUY: bids);
    `lines` are named prices (stop, target, average). Only lines near the market are drawn, so that the levels stay apart.
    """
    if levels.empty:
        return nothing("No level is live", height)
    own = ACCENT if side == BUY else TEXT
    figure = make_subplots(rows=1, cols=2, column_widths=[0.64, 0.36], horizontal_spacing=0.08)
    figure.update_layout(template=TEMPLATE, height=height)
    first = since_ms
    if len(touches):
        keep = thinned(len(touches))
        when = market_time(touches["ts_ms"]).iloc[keep]
        first = min(first, int(touches["ts_ms"].iloc[0]))
        for name, colour in (("bid", PROFIT), ("ask", LOSS)):
            figure.add_scatter(x=when, y=touches[name].iloc[keep], name=f"best {name}", mode="lines", row=1, col=1,
                               line={"color": colour, "width": 1.3, "shape": "hv"}, hovertemplate=f"{name} %{{y:,.8~f}}<extra></extra>")
    span = [market_time(pd.Series([since_ms, max(now_ms, since_ms + 1)]))]
    for row in levels.itertuples():
        waits = row.state == "entering"
        label = f"{row.qty:.10g}" + (f" · p {row.p:.0%}" if row.p == row.p and row.p is not None else "") + f" · {row.state}"
        figure.add_scatter(x=span[0], y=[row.price, row.price], mode="lines+text", text=["", label], textposition="top left", row=1, col=1,
                           textfont={"size": 11, "color": own if waits else MUTED}, showlegend=False,
                           line={"color": own, "width": 2 if waits else 1, "dash": "solid" if waits else "dot"},
                           hovertemplate=f"{label} at <b>%{{y:,.8~f}}</b><extra></extra>")
    prices = [*levels["price"], *(touches[["bid", "ask"]].iloc[-200:].to_numpy().ravel() if len(touches) else ())]
    low, high = min(prices), max(prices)
    room = max((high - low), low * 2e-5)
    for name, price in lines.items():
        if low - 4 * room <= price <= high + 4 * room:
            low, high = min(low, price), max(high, price)
            colour = {"stop": LOSS, "target": PROFIT}.get(name, FEES)
            figure.add_hline(price, line={"color": colour, "width": 1, "dash": "dash"}, row=1, col=1, annotation_text=name,
                             annotation_position="bottom left", annotation_font={"size": 11, "color": MUTED})
    if book is not None and len(book):
        for name, colour in ((BUY, PROFIT), ("SELL", LOSS)):
            part = book[book["side"] == name]
            figure.add_bar(y=part["price"], x=part["qty"], orientation="h", marker={"color": faint(colour, 0.35)}, row=1, col=2,
                           name="the book", showlegend=False, hovertemplate="%{x:,.8~f} at %{y:,.8~f}<extra>the book</extra>")
    open_qty = (levels["qty"] - levels["filled"].fillna(levels["qty"])).clip(lower=0)
    for name, qty, colour in (("own, waits", open_qty, own), ("own, filled", levels["filled"].fillna(0.0), faint(own, 0.45))):
        figure.add_bar(y=levels["price"], x=qty, orientation="h", name=name, row=1, col=2,
                       marker={"color": colour, "line": {"color": SURFACE, "width": 1}},
                       hovertemplate=f"%{{x:,.8~f}} {name} at %{{y:,.8~f}}<extra></extra>")
    figure.update_xaxes(title="base units at a price", row=1, col=2, type="log" if book is not None and len(book) else "linear")
    figure.update_yaxes(tickformat=",.8~f")
    figure.update_yaxes(range=[low - 0.08 * (high - low or room), high + 0.12 * (high - low or room)], row=1, col=1)
    near = sorted({*levels["price"], *(book["price"] if book is not None else ())})
    pitch = min((b - a for a, b in pairwise(near)), default=room / 20)
    figure.update_traces(width=0.85 * pitch, selector={"type": "bar"})
    figure.update_yaxes(range=[near[0] - 2 * pitch, near[-1] + 2 * pitch], side="right", row=1, col=2)
    figure.update_layout(barmode="overlay", hovermode="closest")
    if len(touches):
        figure.update_xaxes(range=[*market_time(pd.Series([max(first, now_ms - 300_000), now_ms + 1500]))], row=1, col=1)
    return figure
