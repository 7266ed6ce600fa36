"""Panels and queries: declared series become PromQL, rows of panels become a grid, grafanalib's output current JSON.

grafanalib emits an old schema with keys that Grafana has dropped; `current` brings it up to what Grafana 11 writes itself.
"""
from collections.abc import Iterable
from dataclasses import dataclass

from grafanalib import core as g

from engine.metrics import SYMBOL, Series

SOURCE = {"type": "prometheus", "uid": "${datasource}"}
SCHEMA_VERSION = 41
WINDOW = "$__rate_interval"
GREEN, YELLOW, RED, BLUE, GREY = "green", "yellow", "red", "blue", "text"


def pick(series: Series, part: str = "", **labels: str) -> str:
    """A selector of a series (or of its histogram's `part`: bucket, sum, count), of the chosen symbols where it has that label."""
    if series.labels.get("symbol") is SYMBOL:
        labels.setdefault("symbol", "$symbol")
    text = series(**labels).replace('symbol="$symbol"', 'symbol=~"$symbol"')
    return text if not part else f"{series.name}_{part}" + text[len(series.name):]


def total(series: Series, *by: str, window: str = WINDOW, function: str = "rate", **labels: str) -> str:
    """A counter's movement, summed over services' instances, grouped by labels."""
    return f"sum{grouped(by)} ({function}({pick(series, **labels)}[{window}]))"


def level(series: Series, *by: str, how: str = "max", **labels: str) -> str:
    """A gauge. Every service exports every series at 0, so that `max` or `sum` finds the one that moves it."""
    return f"{how}{grouped(by)} ({pick(series, **labels)})"


def quantile(q: float, series: Series, *by: str, **labels: str) -> str:
    """A quantile of a histogram, in its unit."""
    return f"histogram_quantile({q}, sum by ({', '.join(('le', *by))}) (rate({pick(series, 'bucket', **labels)}[{WINDOW}])))"


def grouped(by: tuple[str, ...]) -> str:
    return f" by ({', '.join(by)})" if by else ""


def targets(queries: dict[str, str], **more) -> list[g.Target]:
    """Queries by legend, refIds A, B, …"""
    return [g.Target(expr=expr, legendFormat=legend, refId=chr(65 + i), datasource=SOURCE, **more)
            for i, (legend, expr) in enumerate(queries.items())]


def steps(*limits: tuple[str, float | None]) -> list[dict]:
    """Colours from values up: `steps((GREEN, None), (RED, 5000))`."""
    return [{"color": color, "value": value} for color, value in limits]


def graph(title: str, what: str, queries: dict[str, str], unit: str = "short", limits: list[dict] | None = None, **more) -> g.Panel:
    """Lines over time; `limits` are drawn as lines as well."""
    return g.TimeSeries(title=title, description=what, targets=targets(queries), dataSource=SOURCE, unit=unit, fillOpacity=8,
                        showPoints="never", tooltipMode="multi", tooltipSort="desc", legendDisplayMode="table",
                        legendPlacement="right" if len(queries) > 4 else "bottom", legendCalcs=["lastNotNull", "max"],
                        thresholds=limits or [], thresholdsStyleMode="line" if limits else "off", spanNulls=False, **more)


def stacked(title: str, what: str, queries: dict[str, str], unit: str = "short") -> g.Panel:
    """Bars on top of each other, for parts of a whole."""
    return graph(title, what, queries, unit, drawStyle="bars", stacking={"mode": "normal", "group": "A"})


def stat(title: str, what: str, query: str, unit: str = "short", limits: list[dict] | None = None, decimals: int | None = None,
         mappings: list[dict] | None = None) -> g.Panel:
    """One number with its recent course."""
    return g.Stat(title=title, description=what, targets=targets({title: query}), dataSource=SOURCE, format=unit,
                  reduceCalc="lastNotNull", graphMode="area", colorMode="value", decimals=decimals, mappings=mappings or [],
                  thresholds=limits or steps((GREY, None)))


def bars(title: str, what: str, legend: str, query: str, unit: str = "short") -> g.Panel:
    """A bar for each label value, now."""
    return g.BarGauge(title=title, description=what, targets=targets({legend: query}, instant=True), dataSource=SOURCE, format=unit,
                      displayMode="gradient", orientation="horizontal", calc="lastNotNull", thresholds=steps((BLUE, None)))


def heat(title: str, what: str, series: Series, unit: str = "ms", **labels: str) -> g.Panel:
    """A histogram's buckets over time."""
    query = f"sum by (le) (increase({pick(series, 'bucket', **labels)}[{WINDOW}]))"
    return g.Heatmap(title=title, description=what, targets=targets({"{{le}}": query}, format="heatmap"), dataSource=SOURCE, options={
        "calculate": False, "cellGap": 1, "cellValues": {"unit": "short"}, "yAxis": {"unit": unit, "axisPlacement": "left"},
        "color": {"mode": "scheme", "scheme": "Spectral", "steps": 64, "reverse": True, "exponent": 0.5, "fill": "dark-orange"},
        "rowsFrame": {"layout": "auto"}, "legend": {"show": True}, "tooltip": {"mode": "single", "yHistogram": True},
        "filterValues": {"le": 1e-9}, "exemplars": {"color": "rgba(255,0,255,0.7)"}, "showValue": "never"})


def states(title: str, what: str, queries: dict[str, str], names: dict[int, tuple[str, str]]) -> g.Panel:
    """A lane each, coloured by value; `names` gives each value its word and colour."""
    return g.StateTimeline(title=title, description=what, targets=targets(queries), dataSource=SOURCE, showValue="never", rowHeight=0.8,
                           mergeValues=True, mappings=[{"type": "value", "options": {
                               str(value): {"text": word, "color": color, "index": i} for i, (value, (word, color)) in
                               enumerate(names.items())}}])


@dataclass(frozen=True)
class Row:
    """A heading and the panels under it with their widths of 24, all of one height."""
    title: str
    height: int
    panels: tuple[tuple[int, g.Panel], ...]


def lay(rows: Iterable[Row]) -> list[g.Panel]:
    """Ids and places: left to right, a new line where 24 columns are full."""
    out, y, number = [], 0, 1
    for row in rows:
        head = g.RowPanel(title=row.title, gridPos=g.GridPos(1, 24, 0, y), panels=[])
        head.id = number
        out.append(head)
        y, x, number = y + 1, 0, number + 1
        for width, panel in row.panels:
            if x + width > 24:
                x, y = 0, y + row.height
            panel.id, panel.gridPos = number, g.GridPos(row.height, width, x, y)
            out.append(panel)
            x, number = x + width, number + 1
        y += row.height
    return out


def variables(symbols: Series) -> g.Templating:
    """The two choices of every dashboard: which Prometheus, which symbols."""
    return g.Templating([
        g.Template(name="datasource", label="Prometheus", type="datasource", query="prometheus", default="default"),
        g.Template(name="symbol", label="Symbol", type="query", query=f"label_values({symbols}, symbol)", dataSource=SOURCE,
                   includeAll=True, multi=True, refresh=2, sort=1, default="$__all"),
    ])


LEGACY = {"alert", "bars", "cacheTimeout", "cards", "color", "dataFormat", "editable", "error", "height", "heatmap", "hideTimeOverride",
          "hideZeroBuckets", "highlightCards", "isNew", "legend", "lines", "minSpan", "nullPointMode", "renderer", "repeatDirection",
          "reverseYBuckets", "rows", "sharedCrosshair", "span", "tooltip", "xAxis", "xBucketNumber", "xBucketSize", "yAxis", "yBucketBound",
          "yBucketNumber", "yBucketSize"}
KEEP_IN = {"options", "fieldConfig"}  # below these the names mean something else


def current(tree: dict) -> dict:
    """A dashboard of grafanalib as Grafana 11 writes it: today's schema version, no nulls, no legacy keys, dict data sources."""
    out = {k: v for k, v in pruned(tree, False).items() if k not in ("id", "hideControls", "style", "__inputs")}
    out["timepicker"] = {}
    out["schemaVersion"] = SCHEMA_VERSION
    out["editable"] = False
    out["panels"] = [panel(p) for p in out["panels"]]
    for one in out["templating"]["list"]:
        for key in ("useTags", "auto", "auto_count", "auto_min", "tagsQuery", "tagValuesQuery"):
            one.pop(key, None)
        if one["type"] == "query":
            one["query"] = {"query": one["query"], "refId": one["name"]}
            one["definition"] = one["query"]["query"]
        one["current"] = {"text": ["All"], "value": ["$__all"]} if one.get("includeAll") else {}
        one["options"] = []
    return out


def panel(one: dict) -> dict:
    """One panel: field settings beside the options that its kind knows."""
    if one["type"] == "row":
        return {"type": "row", "title": one["title"], "id": one["id"], "gridPos": one["gridPos"], "collapsed": False, "panels": []}
    out = {k: v for k, v in one.items() if k not in ("maxDataPoints", "transformations") and not (k in ("links", "interval") and not v)}
    out["fieldConfig"] = {"overrides": [], **out.get("fieldConfig", {})}
    fields = out["fieldConfig"].setdefault("defaults", {})
    if not fields.get("thresholds", {}).get("steps"):
        fields["thresholds"] = {"mode": "absolute", "steps": steps((GREEN, None))}
    if not fields.get("custom", {"stacking": 1}).get("stacking"):
        fields["custom"]["stacking"] = {"mode": "none", "group": "A"}
    old = out["options"].pop("fieldOptions", None)
    if old:  # the bar gauge's, as it was before Grafana 7
        fields |= {"unit": old["defaults"]["unit"], "min": 0}
        out["options"] |= {"reduceOptions": {"calcs": old["calcs"], "fields": "", "values": False}, "showUnfilled": True,
                           "valueMode": "color"}
    out["pluginVersion"] = "11.6.0"
    out["targets"] = [{k: v for k, v in t.items() if k in ("expr", "legendFormat", "refId", "datasource", "format", "instant")}
                      | {"range": not t.get("instant"), "editorMode": "code"} for t in out["targets"]]
    for t in out["targets"]:
        if t.get("format") == "":
            t["format"] = "time_series"
    return out


def pruned(tree, keep: bool):
    """Without nulls anywhere, except a threshold's, and without legacy keys outside of options."""
    if isinstance(tree, dict):
        return {k: pruned(v, keep or k in KEEP_IN) for k, v in tree.items()
                if (v is not None or (k == "value" and "color" in tree)) and (keep or k not in LEGACY)}
    return [pruned(v, keep) for v in tree] if isinstance(tree, (list, tuple)) else tree
