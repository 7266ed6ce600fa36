"""Every plotly figure, once: tables of the ledger's projections in, a figure out. Flows, reports and the console draw with these.

A table is a DataFrame with the columns of `store/tables.py`; times are *market* time in ms and are shown in UTC. Money is USD.
Every function takes an empty table and then draws an empty figure that says so. Nothing is read, written or registered here.
"""
import html

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from plotly.offline import get_plotlyjs

from store.palette import ACCENT, FEES, INK, LINE, LOSS, MONO, MUTED, PROFIT, SANS, SURFACE, TEMPLATE, TEXT, WARN, faint, signed

MOST_POINTS = 2000
REASONS = {"target": "target reached", "stop": "stop", "time": "held too long", "hold": "score fell", "halt": "kill",
           "written_off": "written off by a person"}


def equity_curve(outcomes: pd.DataFrame, start_usd: float = 0.0, height: int = 300) -> go.Figure:
    """Realised equity over market time, after fees and before them: the gap between the lines is what the fees cost.

    `outcomes` needs `closed_ms`, `gross_usd`, `net_usd`. At most `MOST_POINTS` points are drawn, the last one always.
    """
    if outcomes.empty:
        return nothing("No closed trade yet", height)
    table = outcomes.sort_values("closed_ms", kind="stable")
    when = market_time(table["closed_ms"])
    gross, net = start_usd + table["gross_usd"].cumsum().to_numpy(), start_usd + table["net_usd"].cumsum().to_numpy()
    keep = thinned(len(table))
    when, gross, net = when.iloc[keep], gross[keep], net[keep]
    colour = signed(net[-1] - start_usd)
    figure = canvas(height)
    figure.add_scatter(x=when, y=gross, name="before fees", mode="lines", line={"color": MUTED, "width": 1.2, "shape": "hv"},
                       hovertemplate="%{y:,.2f} USD before fees<extra></extra>")
    figure.add_scatter(x=when, y=net, name="after fees", mode="lines", line={"color": colour, "width": 2.2, "shape": "hv"},
                       fill="tonexty", fillcolor=faint(FEES, 0.14), hovertemplate="<b>%{y:,.2f} USD</b> after fees<extra></extra>")
    figure.add_scatter(x=when[-1:], y=net[-1:], mode="markers", marker={"color": colour, "size": 8, "line": {"color": INK, "width": 2}},
                       hoverinfo="skip", showlegend=False)
    figure.add_hline(start_usd, line={"color": MUTED, "width": 1, "dash": "dot"})
    figure.update_layout(hovermode="x unified")
    figure.update_yaxes(tickformat=",.2f" if np.ptp(net) < 20 else ",.0f", ticksuffix=" $", side="right")
    return figure


def pnl_by_hour(outcomes: pd.DataFrame, height: int = 240) -> go.Figure:
    """Net result of each hour of market time, fees already paid. Needs `closed_ms`, `net_usd`."""
    if outcomes.empty:
        return nothing("No closed trade yet", height)
    hours = outcomes.groupby(outcomes["closed_ms"] // 3_600_000 * 3_600_000)["net_usd"].agg(["sum", "size"])
    figure = canvas(height)
    figure.add_bar(x=market_time(pd.Series(hours.index)), y=hours["sum"], customdata=hours["size"], width=3_600_000 * 0.72,
                   marker={"color": [signed(v) for v in hours["sum"]]},
                   hovertemplate="%{x|%d %b %H:00} UTC<br><b>%{y:+,.2f} USD</b> net · %{customdata} trades<extra></extra>")
    figure.update_yaxes(ticksuffix=" $", zeroline=True)
    return figure


def pnl_by_regime(outcomes: pd.DataFrame, height: int = 240) -> go.Figure:
    """Net result and share of won trades by regime at the entry. Needs `regime`, `net_usd`."""
    if outcomes.empty:
        return nothing("No closed trade yet", height)
    by = outcomes.groupby("regime")["net_usd"].agg(net="sum", n="size", won=lambda v: (v > 0).mean()).sort_values("n")
    return bars(by.index, by["net"], [f"{dollars(net)} · {won:.0%} of {n:,} won" for net, n, won in zip(by["net"], by["n"], by["won"])],
                [signed(v) for v in by["net"]], "%{y}: <b>%{text}</b><extra></extra>", height)


def exits_by_cause(outcomes: pd.DataFrame, height: int = 240) -> go.Figure:
    """What closed the trades: how many by each cause, coloured by what they brought net. Needs `cause`, `net_usd`."""
    if outcomes.empty:
        return nothing("No closed trade yet", height)
    by = outcomes.groupby("cause")["net_usd"].agg(["size", "sum"]).sort_values("size")
    text = [f"{n:,.0f} · {dollars(net)}" for n, net in by.to_numpy()]
    return bars([REASONS.get(c, c) for c in by.index], by["size"], text, [signed(v) for v in by["sum"]],
                "%{y}: <b>%{text}</b> net<extra></extra>", height)


def drops_by_reason(decisions: pd.DataFrame, height: int = 240) -> go.Figure:
    """Refusals by coded reason, the most frequent first. Needs `code`, `allowed`; a column `n` counts rows already summed up."""
    refused = decisions[~decisions["allowed"].astype(bool)] if len(decisions) else decisions
    if refused.empty:
        return nothing("Nothing was refused", height)
    weight = refused["n"] if "n" in refused else pd.Series(1, index=refused.index)
    by = weight.groupby(refused["code"]).sum().sort_values()
    share = by / by.sum()
    text = [f"{n:,.0f} · {part:.0%}" if part >= 0.005 else f"{n:,.0f}" for n, part in zip(by, share)]
    return bars([words(c) for c in by.index], by, text, [faint(WARN, 0.85)] * len(by), "%{y}: <b>%{text}</b><extra></extra>", height)


def fills_by_liquidity(fills: pd.DataFrame, height: int = 170) -> go.Figure:
    """Maker against taker: their shares of the fills, of the turnover and of the fees.

    Needs `maker`, `fee_usd` and `price`, `qty`; or, summed up already, `maker`, `n`, `fee_usd`, `turnover_usd`. A venue that pays
    its makers more than they cost makes a fee share negative: it is then drawn as nothing, its amount still written.
    """
    if fills.empty:
        return nothing("No fill yet", height)
    n = fills["n"] if "n" in fills else pd.Series(1, index=fills.index)
    turnover = fills["turnover_usd"] if "turnover_usd" in fills else fills["price"] * fills["qty"]
    maker = fills["maker"].astype(bool)
    rows = (("fees", fills["fee_usd"], "{:,.2f} $"), ("turnover", turnover, "{:,.0f} $"), ("fills", n, "{:,.0f}"))
    figure = canvas(height)
    for name, of, colour in (("maker", maker, ACCENT), ("taker", ~maker, FEES)):
        sums = [float(column[of].sum()) for _, column, _ in rows]
        shares = [max(0.0, v) / (float(column.clip(lower=0).sum()) or 1.0) for v, (_, column, _) in zip(sums, rows)]
        text = [how.format(v) for v, (_, _, how) in zip(sums, rows)]
        figure.add_bar(y=[row[0] for row in rows], x=shares, name=name, orientation="h", text=text, textposition="inside",
                       insidetextanchor="middle", textangle=0, constraintext="none", textfont={"color": INK, "size": 12},
                       marker={"color": colour, "line": {"color": SURFACE, "width": 2}},
                       hovertemplate=f"{name}: <b>%{{text}}</b> · %{{x:.0%}} of %{{y}}<extra></extra>")
    figure.update_layout(barmode="stack", legend={"traceorder": "normal"})
    figure.update_xaxes(visible=False, range=[0, 1])
    figure.update_yaxes(showgrid=False, tickfont={"color": TEXT, "size": 12}, ticks="outside", ticklen=5, tickcolor="rgba(0,0,0,0)")
    return figure


def market_with_fills(mid: pd.DataFrame, fills: pd.DataFrame, height: int = 320) -> go.Figure:
    """The mid price with the fills on it: triangles up for buys, down for sells; filled as maker, hollow as taker.

    `mid` needs `ts_ms`, `price`; with `open`, `high`, `low`, `close` candles are drawn. `fills` needs `ts_ms, price, side, maker, qty`.
    """
    if mid.empty and fills.empty:
        return nothing("No market seen yet", height)
    figure = canvas(height)
    if {"open", "high", "low", "close"} <= set(mid.columns):
        figure.add_candlestick(x=market_time(mid["ts_ms"]), open=mid["open"], high=mid["high"], low=mid["low"], close=mid["close"],
                               name="price", increasing={"line": {"color": PROFIT, "width": 1}, "fillcolor": faint(PROFIT, 0.5)},
                               decreasing={"line": {"color": LOSS, "width": 1}, "fillcolor": faint(LOSS, 0.5)}, showlegend=False)
        figure.update_xaxes(rangeslider={"visible": False})
    elif len(mid):
        keep = thinned(len(mid))
        figure.add_scatter(x=market_time(mid["ts_ms"]).iloc[keep], y=mid["price"].iloc[keep], mode="lines", name="mid",
                           line={"color": MUTED, "width": 1.2, "shape": "hv"}, hovertemplate="mid %{y:,.2f}<extra></extra>")
    for side, shape, colour in (("BUY", "triangle-up", ACCENT), ("SELL", "triangle-down", TEXT)):
        for maker in (True, False):
            rows = fills[(fills["side"] == side) & (fills["maker"].astype(bool) == maker)] if len(fills) else fills
            if rows.empty:
                continue
            figure.add_scatter(x=market_time(rows["ts_ms"]), y=rows["price"], mode="markers", customdata=rows["qty"],
                               name=f"{side.lower()} as {'maker' if maker else 'taker'}",
                               marker={"symbol": shape + ("" if maker else "-open"), "size": 10, "color": colour,
                                       "line": {"width": 1.2, "color": INK if maker else colour}},
                               hovertemplate=f"{side} %{{customdata:g}} at <b>%{{y:,.2f}}</b><extra></extra>")
    figure.update_yaxes(tickformat=",.2f", side="right")
    return figure


def latency_bars(stages: pd.DataFrame, height: int = 240) -> go.Figure:
    """Latency of each stage, p50 within p99, in ms. Needs `stage`, `p50_ms`, `p99_ms`; NaN where nothing was measured."""
    known = stages.dropna(subset=["p50_ms", "p99_ms"]) if len(stages) else stages
    if known.empty:
        return nothing("No latency measured yet", height)
    known = known.iloc[::-1]
    figure = canvas(height)
    for column, colour, width in (("p99_ms", faint(ACCENT, 0.28), 0.62), ("p50_ms", ACCENT, 0.34)):
        figure.add_bar(y=known["stage"], x=known[column], orientation="h", name=column[:3], width=width, marker={"color": colour},
                       hovertemplate=f"%{{y}} {column[:3]}: <b>%{{x:.1f}} ms</b><extra></extra>")
    figure.update_layout(barmode="overlay")
    figure.update_xaxes(ticksuffix=" ms", rangemode="tozero")
    figure.update_yaxes(showgrid=False)
    return figure


def backtest_report(outcomes: pd.DataFrame, decisions: pd.DataFrame, title: str = "Backtest", start_usd: float = 0.0,
                    note: str = "") -> str:
    """One self-contained HTML page (plotly.js inside, no network): the figures of a run and its counts in one line.

    `outcomes` and `decisions` as above; `note` says on which data, under which settings; it is escaped, as the title is.
    """
    parts = (("Equity", "after fees; the shaded gap is what the fees cost", equity_curve(outcomes, start_usd, 340)),
             ("Net result by hour", "market time, UTC", pnl_by_hour(outcomes)),
             ("Net result by regime", "regime when the entry was decided", pnl_by_regime(outcomes)),
             ("Exits by cause", "colour: what they brought net", exits_by_cause(outcomes)),
             ("Refused, by reason", "every refusal has a code", drops_by_reason(decisions, 340)))
    look = {"displayModeBar": False, "responsive": True}
    cells = "".join(f'<section class="{"wide" if i == 0 else ""}"><h2>{name}</h2><p>{sub}</p>'
                    f"{figure.to_html(full_html=False, include_plotlyjs=False, config=look)}</section>"
                    for i, (name, sub, figure) in enumerate(parts))
    facts = "".join(f"<div><b>{value}</b><span>{name}</span></div>" for name, value in summary(outcomes, decisions).items())
    return (f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{html.escape(title)}</title><style>{REPORT_STYLE}</style>'
            f"<script>{get_plotlyjs()}</script></head><body><h1>{html.escape(title)}</h1><p>{html.escape(note)}</p>"
            f'<div class="facts">{facts}</div><main>{cells}</main></body></html>')


def summary(outcomes: pd.DataFrame, decisions: pd.DataFrame) -> dict[str, str]:
    """The counts that stand above a report, as text with units."""
    n, net = len(outcomes), float(outcomes["net_usd"].sum()) if len(outcomes) else 0.0
    allowed = int(decisions["allowed"].astype(bool).sum()) if len(decisions) else 0
    return {"net result": dollars(net), "fees paid": f"{float(outcomes['fees_usd'].sum()) if n else 0:,.2f} $", "trades": f"{n:,}",
            "won": f"{(outcomes['net_usd'] > 0).mean():.1%}" if n else "–", "candidates decided": f"{len(decisions):,}",
            "allowed": f"{allowed:,}" + (f" · {allowed / len(decisions):.1%}" if len(decisions) else "")}


REPORT_STYLE = f"""body{{margin:0 auto;max-width:1180px;padding:40px 24px;background:{INK};color:{TEXT};font:15px/1.5 {SANS}}}
h1{{font-size:26px;margin:0}}p{{color:{MUTED};margin:2px 0 16px}}h2{{font-size:15px;margin:0}}
main{{display:grid;grid-template-columns:1fr 1fr;gap:16px}}section{{background:{SURFACE};border:1px solid {LINE};border-radius:10px;
padding:16px 18px;min-width:0}}section.wide{{grid-column:1/-1}}section p{{font-size:13px;margin:0 0 6px}}
.facts{{display:flex;gap:36px;margin:8px 0 24px;flex-wrap:wrap}}.facts b{{display:block;font:600 21px {MONO}}}
.facts span{{color:{MUTED};font-size:13px}}@media(max-width:800px){{main{{grid-template-columns:1fr}}}}"""


def canvas(height: int) -> go.Figure:
    """An empty figure in the house's clothes."""
    return go.Figure(layout={"template": TEMPLATE, "height": height})


def nothing(words: str, height: int) -> go.Figure:
    """An empty figure that says what is not there."""
    figure = canvas(height)
    figure.add_annotation(text=words, x=0.5, y=0.5, xref="paper", yref="paper", showarrow=False, font={"color": MUTED, "size": 14})
    return figure.update_xaxes(visible=False).update_yaxes(visible=False)


def bars(names, values, text, colours, hover: str, height: int) -> go.Figure:
    """Lying bars with their numbers written at the end; in a column of their own where a bar goes to the left."""
    figure = canvas(height)
    names, values, text = list(names), list(values), list(text)
    apart = any(v < 0 for v in values)
    figure.add_bar(y=names, x=values, orientation="h", marker={"color": list(colours)}, text=text,
                   textposition="none" if apart else "outside",
                   textfont={"color": TEXT, "size": 12}, cliponaxis=False, hovertemplate=hover)
    low, high = min(0.0, *map(float, values), 0.0), max(0.0, *map(float, values), 0.0)
    room = (high - low or 1.0) * (0.04 if apart else 0.55)
    figure.update_xaxes(visible=False, range=[low - room * apart, high + room], domain=[0, 0.56] if apart else [0, 1])
    for name, words in zip(names, text) if apart else ():
        figure.add_annotation(x=1, y=name, xref="paper", text=words, showarrow=False, xanchor="right", font={"color": TEXT, "size": 12})
    if apart:
        figure.add_vline(0, line={"color": MUTED, "width": 1})
    figure.update_yaxes(showgrid=False, tickfont={"color": TEXT, "size": 12}, ticks="outside", ticklen=5, tickcolor="rgba(0,0,0,0)")
    return figure.update_layout(showlegend=False)


def dollars(value: float) -> str:
    """A result with its sign and unit.

    >>> dollars(-2.5)
    '−2.50 $'
    """
    return f"{value:+,.2f} $".replace("-", "−")


def words(code: str) -> str:
    """A coded reason as people read it.

    >>> words("BLOCK_LOW_CONFIDENCE"), words("below_tau_entry")
    ('low confidence', 'below tau entry')
    """
    return code.removeprefix("BLOCK_").removeprefix("ALLOW_").replace("_", " ").lower()


def market_time(ts_ms: pd.Series) -> pd.Series:
    """Milliseconds of market time as UTC timestamps."""
    return pd.to_datetime(ts_ms, unit="ms", utc=True)


def thinned(n: int) -> np.ndarray:
    """Positions of at most `MOST_POINTS` of `n` points, evenly spread, first and last among them."""
    return np.arange(n) if n <= MOST_POINTS else np.unique(np.linspace(0, n - 1, MOST_POINTS).astype(int))
