"""The figures of the fill-probability gate: its calibration, what it blocks over time, and what it is worth."""
import html
from collections.abc import Mapping, Sequence

import pandas as pd
import plotly.graph_objects as go
from plotly.offline import get_plotlyjs
from plotly.subplots import make_subplots

from engine.fillprob.ceremony import GO_BELOW_PCT, NO_GO_ABOVE_PCT
from engine.fillprob.evaluation import WELL_BPS
from engine.fillprob.model_v0 import ALL_BPS
from store.figures import market_time
from store.gate_worth import ENFORCED, OFF, SHADOW, Part, Run
from store.palette import ACCENT, INK, LOSS, MUTED, SANS, SERIES, TEMPLATE, TEXT, WARN

LAYOUT = {"template": TEMPLATE, "margin": {"l": 8, "r": 12, "t": 32, "b": 8}}


def gate_calibration(rows: Sequence[Mapping[str, int | str]], threshold_bps: int, height: int = 340) -> go.Figure:
    """Said against seen for each bin of an evaluation, in bps, the band within which a bin is well calibrated, the threshold in force.
    A marker grows with the bin's rows."""
    figure = go.Figure(layout={**LAYOUT, "height": height, "showlegend": False})
    for off, name in ((WELL_BPS, "within"), (-WELL_BPS, "within")):
        figure.add_scatter(x=[0, ALL_BPS], y=[off, ALL_BPS + off], mode="lines", name=name, hoverinfo="skip",
                           line={"color": MUTED, "dash": "dot", "width": 1})
    most = max((int(r["n_samples"]) for r in rows), default=1)
    figure.add_scatter(x=[r["predicted_bps"] for r in rows], y=[r["actual_bps"] for r in rows], mode="markers", name="bins",
                       marker={"color": [LOSS if int(r["error_bps"]) >= WELL_BPS else ACCENT for r in rows],
                               "size": [6 + 18 * (int(r["n_samples"]) / most) ** 0.5 for r in rows]},
                       customdata=[(r["bin_key"], r["n_samples"]) for r in rows],
                       hovertemplate="%{customdata[0]}<br>said %{x:,} bps<br>seen <b>%{y:,}</b> bps<br>%{customdata[1]:,} rows"
                                     "<extra></extra>")
    figure.add_vline(x=threshold_bps, line={"color": WARN, "width": 1}, annotation={"text": f"threshold {threshold_bps:,}"})
    figure.update_xaxes(title="said, bps", range=[0, ALL_BPS])
    return figure.update_yaxes(title="seen, bps", range=[0, ALL_BPS])


def block_rate(rows: pd.DataFrame, height: int = 300) -> go.Figure:
    """Share of judged orders that were blocked or would have been, by span of market time: `at_ms`, `judged`, `low`; the limits of a go
    and of a no-go, and how many orders stand behind each point."""
    figure = make_subplots(specs=[[{"secondary_y": True}]])
    figure.update_layout(**LAYOUT, height=height, showlegend=False)
    when = market_time(rows["at_ms"])
    figure.add_bar(x=when, y=rows["judged"], name="judged", marker={"color": MUTED, "opacity": 0.35}, secondary_y=True,
                   hovertemplate="%{y:,} judged<extra></extra>")
    figure.add_scatter(x=when, y=100 * rows["low"] / rows["judged"], name="below the threshold", mode="lines+markers",
                       line={"color": ACCENT, "width": 2}, hovertemplate="<b>%{y:.1f} %</b> below the threshold<extra></extra>")
    for limit, colour, word in ((GO_BELOW_PCT, WARN, "hold"), (NO_GO_ABOVE_PCT, LOSS, "no-go")):
        figure.add_hline(y=limit, line={"color": colour, "width": 1, "dash": "dot"}, annotation={"text": f"{limit} % {word}"},
                         annotation_position="top left" if colour == LOSS else "bottom left")
    figure.update_yaxes(title="%", range=[0, 100], secondary_y=False)
    most = max(int(rows["judged"].max()), 1)
    return figure.update_yaxes(title="orders judged", showgrid=False, range=[0, 1.1 * most], tick0=0, dtick=-(-most // 4),
                               tickmode="linear", secondary_y=True)


def worth_figure(runs: Sequence[Run], height: int = 820) -> go.Figure:
    """Net result over market time of each desk; and of every shadow's entries, let through beside below the threshold: fill rate, result
    of a unit bought and the longest markout, with one standard error."""
    titles = ("net result so far, after fees, USD", "share of entries of which anything was bought",
              "result of a unit bought, bps", "markout, bps")
    figure = make_subplots(2, 2, subplot_titles=titles, vertical_spacing=0.2, horizontal_spacing=0.08)
    figure.update_layout(template=TEMPLATE, height=height, barmode="group", margin={"l": 8, "r": 12, "t": 56, "b": 8})
    for k, run in enumerate(r for r in runs if r.mode in (OFF, ENFORCED)):
        when = market_time(pd.Series([ms for ms, _, _ in run.told.curve], dtype="int64"))
        figure.add_scatter(x=when, y=[net for _, _, net in run.told.curve], name=run.name, mode="lines", row=1, col=1,
                           line={"color": SERIES[k % len(SERIES)], "width": 2, "shape": "hv"},
                           hovertemplate=f"{run.name}: <b>%{{y:,.2f}}</b><extra></extra>")
    shadows = [r for r in runs if r.mode == SHADOW]
    names = [r.name.removesuffix(f" {SHADOW}") for r in shadows]
    for side, (word, colour) in enumerate((("at or above the threshold", ACCENT), ("below it", LOSS))):
        parts = [r.apart()[side] for r in shadows]
        longest = [max(p.markouts) for p in parts]
        for (at, col), values, errors in (
                ((1, 2), [p.fill_rate for p in parts], None), ((2, 1), [p.per_unit_bps for p in parts], [p.per_unit_error for p in parts]),
                ((2, 2), [p.markouts[h] for p, h in zip(parts, longest)], [p.markout_errors[h] for p, h in zip(parts, longest)])):
            figure.add_bar(x=names, y=values, name=word, legendgroup=word, showlegend=(at, col) == (1, 2), marker={"color": colour},
                           error_y=None if errors is None else {"type": "data", "array": [e or 0 for e in errors], "color": TEXT},
                           customdata=[_told(p) for p in parts], row=at, col=col,
                           hovertemplate=word + ": <b>%{y:.3f}</b><br>%{customdata}<extra></extra>")
    figure.update_annotations(font={"color": MUTED, "size": 13})
    return figure.update_layout(hovermode="closest", legend={"y": 1.08, "orientation": "h"})


def _told(part: Part) -> str:
    return f"{part.entries:,} entries, {part.filled:,} bought, {part.closed:,} closed"


def worth_page(runs: Sequence[Run], title: str, note: str = "") -> str:
    """One self-contained HTML page, plotly.js inside."""
    figure = worth_figure(runs).to_html(full_html=False, include_plotlyjs=False, config={"displayModeBar": False, "responsive": True})
    style = f"body{{margin:0 auto;max-width:1280px;padding:24px;background:{INK};color:{TEXT};font:15px/1.5 {SANS}}}p{{color:{MUTED}}}"
    return (f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{html.escape(title)}</title><style>{style}</style>'
            f"<script>{get_plotlyjs()}</script></head><body><h1>{html.escape(title)}</h1><p>{html.escape(note)}</p>{figure}</body></html>")
