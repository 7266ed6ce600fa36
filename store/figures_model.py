"""The figures of a model, from the metrics in its model.json: is it honest, and what do its fills earn?"""
from typing import Any

import plotly.graph_objects as go

from store.palette import ACCENT, FEES, LOSS, MUTED, PROFIT, TEMPLATE


def reliability(metrics: dict[str, Any], height: int = 320) -> go.Figure:
    """Said against seen, out of sample: on the diagonal a probability may be taken at its word. A marker grows with its rows."""
    rows = metrics["reliability"]
    most = max((r["n"] for r in rows), default=1)
    figure = go.Figure(layout={"template": TEMPLATE, "height": height})
    figure.add_scatter(x=[0, 1], y=[0, 1], mode="lines", line={"color": MUTED, "dash": "dot", "width": 1}, hoverinfo="skip", name="honest")
    figure.add_scatter(x=[r["predicted"] for r in rows], y=[r["observed"] for r in rows], mode="lines+markers", name="model",
                       line={"color": ACCENT}, marker={"color": ACCENT, "size": [6 + 18 * (r["n"] / most) ** 0.5 for r in rows]},
                       customdata=[r["n"] for r in rows],
                       hovertemplate="said %{x:.3f}<br>seen %{y:.3f}<br>%{customdata:,} fills<extra></extra>")
    figure.update_xaxes(title="said", range=[0, 1])
    figure.update_yaxes(title="target reached", range=[0, 1])
    return figure


def earnings(metrics: dict[str, Any], height: int = 320) -> go.Figure:
    """What a fill earns after fees, in bps, at and above each threshold, with two standard errors; only where fills are."""
    rows = [r for r in metrics["thresholds"] if r["fills"] > 1]
    figure = go.Figure(layout={"template": TEMPLATE, "height": height})
    figure.add_bar(x=[f"≥ {r['tau']:g}" for r in rows], y=[r["net_bps"] for r in rows],
                   marker={"color": [PROFIT if r["net_bps"] > 0 else LOSS for r in rows]},
                   error_y={"type": "data", "array": [2 * r["net_se"] for r in rows], "color": FEES}, customdata=[r["fills"] for r in rows],
                   hovertemplate="%{y:+.2f} bps a fill<br>%{customdata:,} fills<extra></extra>", name="net")
    figure.update_xaxes(title="score", type="category")
    figure.update_yaxes(title="bps a fill, after fees", zeroline=True)
    return figure
