"""The figure of fill models: what each said of orders against how many were filled."""
from collections.abc import Mapping, Sequence

import plotly.graph_objects as go

from store.palette import MUTED, SERIES, TEMPLATE


def fill_reliability(tables: Mapping[str, Sequence[Mapping[str, float]]], height: int = 420) -> go.Figure:
    """Said against seen for each model; on the diagonal a probability may be taken at its word. A marker grows with its orders."""
    figure = go.Figure(layout={"template": TEMPLATE, "height": height, "margin": {"l": 8, "r": 12, "t": 32, "b": 8}})
    figure.add_scatter(x=[0, 1], y=[0, 1], mode="lines", line={"color": MUTED, "dash": "dot", "width": 1}, hoverinfo="skip", name="honest")
    for (name, rows), colour in zip(tables.items(), SERIES):
        most = max((r["n"] for r in rows), default=1)
        figure.add_scatter(x=[r["predicted"] for r in rows], y=[r["observed"] for r in rows], mode="lines+markers", name=name,
                           line={"color": colour}, marker={"color": colour, "size": [5 + 15 * (r["n"] / most) ** 0.5 for r in rows]},
                           customdata=[r["n"] for r in rows],
                           hovertemplate="said %{x:.3f}<br>filled %{y:.3f}<br>%{customdata:,} orders<extra></extra>")
    figure.update_xaxes(title="said", range=[0, 1])
    return figure.update_yaxes(title="filled", range=[0, 1])
