"""The console's and the reports' one set of colours, and the plotly template made of them.

Profit and loss are teal and orange: told apart with any of the common colour-vision deficiencies, and never by colour
alone (a sign or an arrow always stands beside them). `.streamlit/config.toml` repeats the ground colours; a test compares.
"""
import plotly.graph_objects as go

INK, SURFACE, LINE = "#0A0F16", "#111924", "#1E2A38"
TEXT, MUTED = "#E4EBF3", "#8C9CAF"
ACCENT, PROFIT, LOSS, FEES, WARN = "#6CA8FF", "#2EC4B6", "#FF8F5A", "#B79CED", "#F2C14E"
SERIES = (ACCENT, PROFIT, LOSS, FEES, WARN, MUTED)
SANS = '"Source Sans", "Source Sans Pro", Inter, system-ui, sans-serif'
MONO = '"Source Code Pro", "Source Code VF", ui-monospace, Menlo, monospace'

AXIS = {"gridcolor": LINE, "zerolinecolor": "#33445A", "linecolor": LINE, "tickcolor": LINE, "ticks": "", "automargin": True,
        "tickfont": {"color": MUTED, "size": 12}, "title": {"font": {"color": MUTED, "size": 12}, "standoff": 8}}

TEMPLATE = go.layout.Template(layout={
    "paper_bgcolor": "rgba(0,0,0,0)", "plot_bgcolor": "rgba(0,0,0,0)", "colorway": list(SERIES),
    "font": {"family": SANS, "color": TEXT, "size": 13}, "margin": {"l": 8, "r": 12, "t": 12, "b": 8},
    "xaxis": AXIS, "yaxis": AXIS, "bargap": 0.32, "hovermode": "closest",
    "hoverlabel": {"bgcolor": "#18222F", "bordercolor": "#2B3B4F", "font": {"family": SANS, "color": TEXT, "size": 13}},
    "legend": {"orientation": "h", "x": 0, "y": 1.02, "yanchor": "bottom", "font": {"color": MUTED, "size": 12},
               "bgcolor": "rgba(0,0,0,0)"},
    "separators": ".,",
})


def faint(colour: str, alpha: float) -> str:
    """The colour as rgba with this opacity.

    >>> faint("#2EC4B6", 0.2)
    'rgba(46,196,182,0.2)'
    """
    r, g, b = (int(colour[i:i + 2], 16) for i in (1, 3, 5))
    return f"rgba({r},{g},{b},{alpha:g})"


def signed(value: float) -> str:
    """The colour of a result: profit, loss, or nothing happened."""
    return PROFIT if value > 0 else LOSS if value < 0 else MUTED
