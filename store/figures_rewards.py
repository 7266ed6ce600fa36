"""The figure of a bandit in a world that is known: what it gave away, beside what others would have."""
from collections.abc import Mapping

import numpy as np
import plotly.graph_objects as go

from store.palette import SERIES, TEMPLATE

MOST_POINTS = 1_000


def regret_curves(curves: Mapping[str, np.ndarray], height: int = 420) -> go.Figure:
    """Cumulated regret over rounds, by name: float64[n] each, the regret of every round."""
    figure = go.Figure(layout={"template": TEMPLATE, "height": height})
    for (name, regret), colour in zip(curves.items(), SERIES * len(curves)):
        total = regret.cumsum()
        keep = np.unique(np.linspace(0, max(len(total) - 1, 0), min(MOST_POINTS, len(total))).astype(int))
        figure.add_scatter(x=keep + 1, y=total[keep], name=name, mode="lines", line={"color": colour, "width": 2},
                           hovertemplate=f"{name}: <b>%{{y:,.1f}}</b> after %{{x:,}}<extra></extra>")
    figure.update_xaxes(title="orders")
    figure.update_yaxes(title="reward given away, cumulated")
    return figure
