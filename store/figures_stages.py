"""The figures of S0's rollout, stage beside stage: what was planned, what bounded it, what was refused, what it earned."""
import html
from collections.abc import Iterable, Sequence

import pandas as pd
import plotly.graph_objects as go
from plotly.offline import get_plotlyjs
from plotly.subplots import make_subplots

from store.figures import market_time, words
from store.palette import INK, MUTED, SANS, SERIES, TEMPLATE, TEXT
from store.stages import Stage

MOST = 7       # kinds of a bar chart; the rest is one more
TITLES = ("planned notional so far, USD", "net result so far, after fees, USD", "sizes by what bounded them",
          "refused, by reason (but for low confidence)")


def stages_figure(stages: Sequence[Stage], height: int = 760) -> go.Figure:
    """Two curves over market time and two charts of counts, a colour or a bar a stage. Curves that are equal lie on each other."""
    figure = make_subplots(2, 2, subplot_titles=TITLES, vertical_spacing=0.14, horizontal_spacing=0.08)
    figure.update_layout(template=TEMPLATE, height=height, barmode="group", margin={"l": 8, "r": 12, "t": 56, "b": 8})
    dashes = ("solid", "solid", "solid", "dash")
    for stage, colour, dash in zip(stages, SERIES, dashes):
        when = market_time(pd.Series([ms for ms, _, _ in stage.curve], dtype="int64"))
        for column, values in ((1, [planned for _, planned, _ in stage.curve]), (2, [net for _, _, net in stage.curve])):
            figure.add_scatter(x=when, y=values, name=stage.digits, legendgroup=stage.digits, showlegend=column == 1, mode="lines",
                               line={"color": colour, "width": 2, "dash": dash, "shape": "hv"}, row=1, col=column,
                               hovertemplate=f"{stage.digits}: <b>%{{y:,.2f}}</b><extra></extra>")
    for column, of in ((1, lambda s: s.caps), (2, lambda s: {k: n for k, n in s.refused.items() if k != "BLOCK_LOW_CONFIDENCE"})):
        names = leading([of(stage) for stage in stages])
        for stage, colour in zip(stages, SERIES):
            counts = of(stage)
            rest = sum(counts.values()) - sum(counts.get(name, 0) for name in names)
            shown = [*names, *(["others"] if rest else [])]
            figure.add_bar(x=[words(name) for name in shown], y=[*(counts.get(name, 0) for name in names), *([rest] if rest else [])],
                           name=stage.digits, legendgroup=stage.digits, showlegend=False, marker={"color": colour}, row=2, col=column,
                           hovertemplate=f"{stage.digits}, %{{x}}: <b>%{{y:,}}</b><extra></extra>")
    figure.update_annotations(font={"color": MUTED, "size": 13})
    return figure.update_layout(hovermode="closest", legend={"y": 1.05})


def leading(counts: Iterable[dict[str, int]]) -> list[str]:
    """The most frequent names over all of them, at most `MOST`."""
    total: dict[str, int] = {}
    for some in counts:
        for name, n in some.items():
            total[name] = total.get(name, 0) + n
    return sorted(total, key=lambda name: (-total[name], name))[:MOST]


def stages_page(stages: Sequence[Stage], title: str, note: str = "") -> str:
    """One self-contained HTML page, plotly.js inside."""
    figure = stages_figure(stages).to_html(full_html=False, include_plotlyjs=False, config={"displayModeBar": False, "responsive": True})
    style = f"body{{margin:0 auto;max-width:1280px;padding:24px;background:{INK};color:{TEXT};font:15px/1.5 {SANS}}}p{{color:{MUTED}}}"
    return (f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{html.escape(title)}</title><style>{style}</style>'
            f"<script>{get_plotlyjs()}</script></head><body><h1>{html.escape(title)}</h1><p>{html.escape(note)}</p>{figure}</body></html>")
