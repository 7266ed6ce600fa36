"""The alerts: rendered from rows, about series that exist, tested by promtool, each with a page for three in the morning."""
import importlib.util
import re
import shutil
import subprocess

import msgspec
import pytest
import yaml

from alerts import build
from alerts.catalogue import catalogue
from config.settings import ROOT, load
from grafana.build import rendered
from grafana.dashboards import DASHBOARDS
from tests.promql_check import faults, selectors

SETTINGS = load(env={})
ROWS = catalogue(SETTINGS)
RULES = [rule for group in build.rules(SETTINGS)["groups"] for rule in group["rules"]]
RUNBOOK = (ROOT / "docs" / "runbook.md").read_text()


def anchors(markdown: str) -> set[str]:
    return {re.sub(r"[^\w -]", "", line.lstrip("# ").lower()).replace(" ", "-") for line in markdown.splitlines() if line.startswith("#")}


def promtool(*args: object, cwd=None) -> subprocess.CompletedProcess:
    tool = shutil.which("promtool")
    if not tool:
        pytest.skip("promtool is not installed (Debian package prometheus)")
    return subprocess.run([tool, *map(str, args)], capture_output=True, text=True, cwd=cwd, timeout=120)


@pytest.mark.parametrize("path", build.files(SETTINGS), ids=lambda p: p.name)
def test_a_generated_file_is_what_the_rows_say(path):
    assert path.read_text() == build.files(SETTINGS)[path], "run python -m scripts.build_generated"


@pytest.mark.parametrize("rule", RULES, ids=lambda r: r["alert"])
def test_every_rule_names_only_declared_series_labels_and_values(rule):
    assert faults(rule["expr"]) == []


@pytest.mark.parametrize("alert", ROWS, ids=lambda a: a.name)
def test_an_alert_watches_the_series_that_it_reads(alert):
    assert {node.name for node in selectors(alert.expr)} == {alert.watches.name}


@pytest.mark.parametrize("expr, fault", [
    ("phantom_total > 0", "not declared"), ('halted{why="x"} > 0', "no label why"), ('exits_total{cause="entry"} > 0', "never 'entry'"),
    ("sum by (symbol) (halted)", "grouped by symbol"), ('orders_total{cause=~"stop|tea"}', "never 'tea'"),
])
def test_the_check_of_expressions_finds_phantoms(expr, fault):
    assert any(fault in f for f in faults(expr))


@pytest.mark.parametrize("alert", ROWS, ids=lambda a: a.name)
def test_every_alert_has_an_absence_twin_that_pages(alert):
    [twin] = [r for r in RULES if r["alert"] == alert.name + build.ABSENT]
    assert twin["labels"]["severity"] == "critical"
    assert twin["expr"].startswith(f"absent({alert.watches.name}")


def test_names_are_unique_and_every_link_leads_to_a_heading_of_the_runbook():
    assert len({r["alert"] for r in RULES}) == len(RULES) == 2 * len(ROWS)
    found = anchors(RUNBOOK)
    for rule in RULES:
        page, _, anchor = rule["annotations"]["runbook_url"].partition("#")
        assert page == SETTINGS.monitoring.runbook_url and anchor in found, rule["alert"]


@pytest.mark.parametrize("alert", ROWS, ids=lambda a: a.name)
def test_every_alert_has_a_page_with_what_it_means_where_to_look_and_what_to_do(alert):
    [page] = re.findall(rf"^## {alert.name}\n(.*?)(?=^## |\Z)", RUNBOOK, re.M | re.S)
    for part in ("**Means.**", "**Look first.**", "**Do.**"):
        assert part in page


def test_the_runbook_has_no_page_for_an_alert_that_is_gone():
    pages = set(re.findall(r"^## ([A-Z]\w+)$", RUNBOOK, re.M))
    assert pages == {a.name for a in ROWS}


def test_what_the_runbook_tells_one_to_type_exists():
    modules = set(re.findall(r"python -m ([\w.]+)", RUNBOOK))
    verbs = r"docker compose (?:--profile \w+ )?(?:restart|stop|start|ps|logs|exec)"
    services = set(re.findall(verbs + r"(?: --?\w+(?: \d+)?)* ([a-z][\w-]*)", RUNBOOK))
    assert modules and services
    assert {name for name in modules if not importlib.util.find_spec(name)} == set()
    assert services - yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"].keys() == set()


def test_panels_that_the_runbook_points_to_are_on_the_dashboards():
    titles = {p["title"] for name in DASHBOARDS for p in rendered(name, SETTINGS)["panels"]}
    pointed = set(re.findall(r"\*The (?:route|desk)\* → \*([^*]+)\*", RUNBOOK))
    assert pointed and pointed <= titles


def test_every_alert_watches_a_series_of_its_own_so_that_they_can_be_tested_together():
    assert len({a.watches.name for a in ROWS}) == len(ROWS)


@pytest.mark.parametrize("alert", ROWS, ids=lambda a: a.name)
def test_every_alert_is_told_to_fire_to_hold_still_to_page_by_absence_and_to_recover(alert):
    told = {story["name"]: [c for c in story["alert_rule_test"] if c["alertname"].removesuffix(build.ABSENT) == alert.name]
            for story in build.tests(SETTINGS)["tests"]}
    fired = [bool(c["exp_alerts"]) for c in told["fires and recovers"] if c["alertname"] == alert.name]
    assert fired == [False, True, False]
    assert [c["exp_alerts"] for c in told["does not fire at the edge"]] == [[]] * 3
    gone = told["absence fires while the series is gone and recovers with it"]
    paged = [bool(c["exp_alerts"]) for c in gone if c["alertname"] != alert.name]
    assert paged == [False, True, False]
    assert bool(told["does not fire on a blip"]) == (build.minutes(alert.for_) > 0)


def test_thresholds_follow_the_settings_that_the_guards_read():
    replace = msgspec.structs.replace
    loud = replace(SETTINGS, monitoring=replace(SETTINGS.monitoring, stale_ms=1234, max_lag_records=77))
    exprs = {a.name: a.expr for a in catalogue(loud)}
    assert exprs["MarketDataStale"].endswith("> 1234") and exprs["ConsumerLag"].endswith("> 77")


def test_prometheus_accepts_the_rules_and_the_configuration():
    got = promtool("check", "rules", build.GENERATED / "rules.yml")
    assert got.returncode == 0, got.stderr
    for name in ("prometheus.yml", "prometheus.local.yml"):
        got = promtool("check", "config", ROOT / "config" / name)
        assert got.returncode == 0, got.stderr


def test_every_alert_fires_recovers_holds_still_at_its_edge_and_its_absence_pages():
    got = promtool("test", "rules", "tests.yml", cwd=build.GENERATED)
    assert got.returncode == 0, got.stdout + got.stderr


@pytest.mark.parametrize("group, was, becomes", [
    (0, " > 0", " > 1e9"), (0, " > 5000", " >= 5000"), (0, "== 0", "== 2"), (0, "== 0", "<= 1"), (1, "absent(", "count("),
])
def test_the_promtool_tests_notice_a_broken_rule(tmp_path, group, was, becomes):
    tree = build.rules(SETTINGS)
    broken = [r for r in tree["groups"][group]["rules"] if was in r["expr"]]
    assert broken
    for rule in broken:
        rule["expr"] = rule["expr"].replace(was, becomes)
    (tmp_path / "rules.yml").write_text(yaml.safe_dump(tree))
    (tmp_path / "tests.yml").write_text((build.GENERATED / "tests.yml").read_text())
    got = promtool("test", "rules", "tests.yml", cwd=tmp_path)
    assert got.returncode != 0
    for rule in broken:
        assert f"alertname: {rule['alert']}," in got.stdout + got.stderr, f"{rule['alert']} is broken and no test says so"
