"""The dashboards: current JSON, declared series, and an answer from a real Prometheus for every query."""
import json
import shutil
import socket
import subprocess
import time
import urllib.parse
import urllib.request

import pytest
import yaml

from config.settings import ROOT, load
from engine import metrics as m
from grafana import build
from grafana.dashboards import DASHBOARDS
from grafana.panels import LEGACY, SOURCE, current, pick
from store.exporter import Exporter
from tests.promql_check import faults, selectors

SETTINGS = load(env={})
RENDERED = {name: build.rendered(name, SETTINGS) for name in DASHBOARDS}
PANELS = [(name, panel) for name, tree in RENDERED.items() for panel in tree["panels"] if panel["type"] != "row"]
QUERIES = [(f"{name}: {panel['title']}", target) for name, panel in PANELS for target in panel["targets"]]
each_dashboard = pytest.mark.parametrize("tree", RENDERED.values(), ids=RENDERED)
each_panel = pytest.mark.parametrize("panel", [p for _, p in PANELS], ids=[f"{n}-{p['title']}" for n, p in PANELS])


def filled(expr: str) -> str:
    """Grafana's macros and variables as Grafana would fill them."""
    return expr.replace("$__rate_interval", "1m").replace("$symbol", "BTCUSDT|ETHUSDT|SOLUSDT")


@pytest.mark.parametrize("path", build.files(SETTINGS), ids=lambda p: p.name)
def test_a_generated_dashboard_is_what_the_rows_say(path):
    assert path.read_text() == build.files(SETTINGS)[path], "run python -m scripts.build_generated"


@each_dashboard
def test_ids_are_unique_and_no_panel_covers_another_or_leaves_the_grid(tree):
    ids = [p["id"] for p in tree["panels"]]
    assert len(ids) == len(set(ids)) > 10
    taken = {}
    for panel in tree["panels"]:
        g = panel["gridPos"]
        assert g["x"] >= 0 and g["x"] + g["w"] <= 24
        for cell in ((x, y) for x in range(g["x"], g["x"] + g["w"]) for y in range(g["y"], g["y"] + g["h"])):
            assert cell not in taken, f"{panel['title']} covers {taken[cell]}"
            taken[cell] = panel["title"]


@each_dashboard
def test_every_variable_that_is_used_is_defined_and_the_other_way_round(tree):
    text = json.dumps(tree["panels"])
    defined = {v["name"] for v in tree["templating"]["list"]}
    assert defined == {"datasource", "symbol"}
    assert "${datasource}" in text and "$symbol" in text
    rest = text.replace("${datasource}", "").replace("$symbol", "").replace("$__rate_interval", "")
    assert "$" not in rest


@each_panel
def test_a_panel_is_todays_json_with_a_title_a_description_and_a_chosen_data_source(panel):
    assert panel["title"] and panel["description"]
    assert panel["type"] in ("timeseries", "stat", "bargauge", "heatmap", "state-timeline")
    assert panel["datasource"] == SOURCE
    assert not LEGACY & panel.keys()
    refs = [t["refId"] for t in panel["targets"]]
    assert len(refs) == len(set(refs)) > 0
    assert all(t["datasource"] == SOURCE for t in panel["targets"])


@pytest.mark.parametrize("where, target", QUERIES, ids=[f"{w}/{t['refId']}" for w, t in QUERIES])
def test_a_query_names_only_declared_series_labels_and_values_and_its_legend_has_its_labels(where, target):
    expr = filled(target["expr"])
    assert faults(expr) == []
    legend = target["legendFormat"]
    for label in [part.partition("}}")[0] for part in legend.split("{{")[1:]]:
        assert f"by ({label}" in expr or f", {label}" in expr, f"{legend} speaks of {label}, which the query sums away"


def test_every_declared_series_is_on_a_dashboard():
    shown = {node.name for _, t in QUERIES for node in selectors(filled(t["expr"]))}
    names = {n.removesuffix("_bucket") for n in shown}
    assert {s.name for s in m.ALL} - names == set()


def test_a_selector_of_a_phantom_label_is_a_lookup_error():
    with pytest.raises(LookupError):
        pick(m.EXITS_TOTAL, cause="entry")
    assert pick(m.STAGE_LATENCY_MS, "bucket", service="risk") == 'stage_latency_ms_bucket{service="risk"}'
    assert pick(m.FRAMES_TOTAL) == 'frames_total{symbol=~"$symbol"}'


def test_nulls_and_legacy_keys_go_and_a_thresholds_null_stays():
    tree = {"id": None, "templating": {"list": []}, "panels": [
        {"type": "stat", "title": "t", "id": 1, "gridPos": {}, "span": 3, "nullPointMode": "x", "options": {"legend": {"show": None}},
         "fieldConfig": {"defaults": {"thresholds": {"steps": [{"color": "red", "value": None}]}}}, "targets": []}]}
    [panel] = current(tree)["panels"]
    assert panel["fieldConfig"]["defaults"]["thresholds"]["steps"] == [{"color": "red", "value": None}]
    assert "span" not in panel and panel["options"] == {"legend": {}}


def test_grafana_is_told_where_the_dashboards_and_the_data_are():
    [source] = yaml.safe_load((ROOT / "grafana/provisioning/datasources/prometheus.yml").read_text())["datasources"]
    [provider] = yaml.safe_load((ROOT / "grafana/provisioning/dashboards/sluice.yml").read_text())["providers"]
    assert source["type"] == SOURCE["type"] and provider["options"]["path"] == "/var/lib/grafana/dashboards"


def busy_minutes(minutes: int, end: int) -> str:
    """OpenMetrics text of a real exporter that everything happened to, sampled every 5 s until `end` (seconds)."""
    exporter = Exporter(SETTINGS.exchange.symbols, arms=SETTINGS.bandit.arms)
    lines: dict[str, list[str]] = {}
    kinds = {s.name: s.kind for s in m.ALL}
    for step in range(minutes * 12):
        for series in m.ALL:
            for values in product(series):
                labels = dict(zip(series.labels, values))
                if series.kind == "counter":
                    exporter.inc(series, 1 + step % 3, **labels)
                elif series.kind == "gauge":
                    exporter.set(series, step % 7 / 7, **labels)
                else:
                    exporter.observe(series, step % 50, **labels)
        at = end - (minutes * 12 - step) * 5
        for line in exporter.text().splitlines():
            if not line.startswith("#"):
                lines.setdefault(line.split("{")[0].split(" ")[0], []).append(f"{line} {at}")
    out = []
    for name, kind in kinds.items():
        out.append(f"# TYPE {name.removesuffix('_total') if kind == 'counter' else name} {kind}")
        members = [name] if kind != "histogram" else [f"{name}_bucket", f"{name}_count", f"{name}_sum"]
        out += sorted((line for member in members for line in lines[member]), key=lambda line: line.rsplit(" ", 2)[0])
    return "\n".join([*out, "# EOF", ""])


def product(series: m.Series) -> list[tuple[str, ...]]:
    import itertools
    firsts = {m.SYMBOL: SETTINGS.exchange.symbols[:1], m.ARM: SETTINGS.bandit.arms[:1], m.ANY: ("first",)}
    return list(itertools.product(*(firsts.get(v, v[:2]) for v in series.labels.values())))


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """A real Prometheus over a quarter of an hour of a real exporter's samples."""
    if not (shutil.which("prometheus") and shutil.which("promtool")):
        pytest.skip("prometheus and promtool are not installed (Debian package prometheus)")
    folder = tmp_path_factory.mktemp("tsdb")
    end = int(time.time()) // 60 * 60
    (folder / "metrics.txt").write_text(busy_minutes(15, end))
    (folder / "prometheus.yml").write_text("{}")
    loaded = subprocess.run(["promtool", "tsdb", "create-blocks-from", "openmetrics", "metrics.txt", "data"], cwd=folder,
                            capture_output=True, text=True, timeout=120)
    assert loaded.returncode == 0, loaded.stderr
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(["prometheus", "--config.file=prometheus.yml", "--storage.tsdb.path=data",
                                    "--storage.tsdb.retention.time=100d", f"--web.listen-address=127.0.0.1:{port}"],
                                   cwd=folder, stdout=log, stderr=log)
    try:
        for _ in range(100):
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}/-/ready", timeout=1).close()
                break
            except OSError:
                assert process.poll() is None, (folder / "log").read_text()[-2000:]
                time.sleep(0.1)
        yield f"http://127.0.0.1:{port}", end
    finally:
        process.terminate()
        process.wait(20)


def ask(server, expr: str) -> list:
    url, end = server
    query = urllib.parse.urlencode({"query": expr, "time": end - 10})
    with urllib.request.urlopen(f"{url}/api/v1/query?{query}", timeout=20) as answer:
        return json.load(answer)["data"]["result"]


def test_every_query_of_every_panel_has_an_answer_from_a_real_prometheus(server):
    silent = [f"{where}: {target['expr']}" for where, target in QUERIES
              if not [r for r in ask(server, filled(target["expr"])) if r["value"][1] != "NaN"]]
    assert silent == []


def test_a_query_of_nothing_is_noticed_as_empty(server):
    assert ask(server, 'exits_total{cause="entry"}') == []


def test_the_answer_is_the_number_that_was_exported(server):
    [got] = ask(server, filled('sum (increase(policy_decisions_total{decision="ALLOW_NEW_ENTRY"}[10m]))'))
    assert float(got["value"][1]) == pytest.approx(2 * 120, rel=0.02)
