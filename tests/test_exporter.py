"""The exporter: what Prometheus reads is what was declared, from the first scrape."""
import ast
import socket
import urllib.request

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from config.settings import ROOT, ConfigError
from engine import metrics as m
from store.exporter import VERBS, Exporter

SYMBOLS = ("BTCUSDT", "ETHUSDT")
ARMS = ("o0-s100-p20", "o1-s50-p8", "o2-s100-p20")
ALL_VERBS = {verb for verbs in VERBS.values() for verb in verbs}


def samples(exporter: Exporter) -> dict[tuple[str, frozenset], float]:
    return {(s.name, frozenset(s.labels.items())): s.value
            for family in text_string_to_metric_families(exporter.text()) for s in family.samples}


def closed_sets(series: m.Series) -> int:
    n = 1
    for values in series.labels.values():
        n *= len(SYMBOLS) if values is m.SYMBOL else len(ARMS) if values is m.ARM else 0 if values is m.ANY else len(values)
    return n


@pytest.mark.parametrize("series", m.ALL, ids=str)
def test_every_declared_series_stands_at_zero_for_every_closed_label_set_before_anything_happened(series):
    suffix = "_count" if series.kind == "histogram" else ""
    mine = {k: v for k, v in samples(Exporter(SYMBOLS, arms=ARMS)).items() if k[0] == series.name + suffix}
    assert len(mine) == closed_sets(series)
    assert set(mine.values()) <= {0.0}
    assert all({name for name, _ in labels} == set(series.labels) for _, labels in mine)


def test_nothing_is_exported_that_is_not_declared():
    known = {s.name for s in m.ALL} | {s.name + e for s in m.ALL if s.kind == "histogram" for e in ("_bucket", "_count", "_sum")}
    assert {name for name, _ in samples(Exporter(SYMBOLS, arms=ARMS))} <= known


def test_what_is_moved_is_what_is_read_in_any_order_of_the_labels():
    exporter = Exporter(SYMBOLS)
    exporter.inc(m.FRAMES_TOTAL, service="risk", symbol="BTCUSDT")
    exporter.inc(m.FRAMES_TOTAL, 4, symbol="BTCUSDT", service="risk")
    exporter.set(m.EQUITY_USD, 5012.5)
    exporter.inc(m.OPEN_ORDERS, 3)
    exporter.inc(m.OPEN_ORDERS, -1)
    exporter.observe(m.STAGE_LATENCY_MS, 7, service="executor")
    got = samples(exporter)
    assert got["frames_total", frozenset({("service", "risk"), ("symbol", "BTCUSDT")})] == 5
    assert got["equity_usd", frozenset()] == 5012.5
    assert got["open_orders", frozenset()] == 2
    assert got["stage_latency_ms_bucket", frozenset({("service", "executor"), ("le", "10.0")})] == 1
    assert got["stage_latency_ms_bucket", frozenset({("service", "executor"), ("le", "5.0")})] == 0


@given(st.lists(st.tuples(st.sampled_from(m.BAD_TICKS), st.sampled_from(SYMBOLS), st.integers(0, 1000)), max_size=30))
def test_a_counter_is_the_sum_of_what_was_added_to_it_and_to_no_other(moves):
    exporter, total = Exporter(SYMBOLS, [m.BAD_TICKS_TOTAL]), {}
    for reason, symbol, by in moves:
        exporter.inc(m.BAD_TICKS_TOTAL, by, symbol=symbol, reason=reason)
        key = ("bad_ticks_total", frozenset({("symbol", symbol), ("reason", reason)}))
        total[key] = total.get(key, 0) + by
    assert {k: v for k, v in samples(exporter).items() if v} == {k: v for k, v in total.items() if v}


def test_a_phantom_label_or_value_or_series_is_a_lookup_error_and_moves_nothing():
    exporter = Exporter(SYMBOLS)
    before = exporter.text()
    for series, labels in ((m.EXITS_TOTAL, {"cause": "entry"}), (m.EXITS_TOTAL, {"why": "stop"}), (m.EXITS_TOTAL, {}),
                           (m.FRAMES_TOTAL, {"service": "risk", "symbol": "DOGEUSDT"}), (m.FRAMES_TOTAL, {"service": "risk"}),
                           (m.FRAMES_TOTAL, {"service": "BTCUSDT", "symbol": "risk"}),
                           (m.counter("phantom_total", "not declared"), {})):
        with pytest.raises(LookupError, match=series.name):
            exporter.inc(series, **labels)
    assert exporter.text() == before


def test_a_verb_that_the_kind_does_not_have_is_refused():
    exporter = Exporter(SYMBOLS)
    with pytest.raises(TypeError, match="counter"):
        exporter.set(m.LIVE_REPLAY_DIFF_TOTAL, 1)
    with pytest.raises(TypeError, match="histogram"):
        exporter.inc(m.LEDGER_COMMIT_MS)
    with pytest.raises(ValueError):
        exporter.inc(m.LIVE_REPLAY_DIFF_TOTAL, -1)


def test_an_open_label_appears_with_its_first_use_and_goes_when_it_is_forgotten():
    exporter = Exporter(SYMBOLS)
    assert "model_active_id{" not in exporter.text()
    exporter.set(m.MODEL_ACTIVE_ID, 1, id="m-1")
    exporter.set(m.MODEL_ACTIVE_ID, 1, id="m-2")
    exporter.forget(m.MODEL_ACTIVE_ID, id="m-1")
    exporter.forget(m.MODEL_ACTIVE_ID, id="never-seen")
    assert {dict(k[1])["id"] for k in samples(exporter) if k[0] == "model_active_id"} == {"m-2"}
    exporter.set(m.MODEL_ACTIVE_ID, 1, id="m-1")
    assert samples(exporter)["model_active_id", frozenset({("id", "m-1")})] == 1
    with pytest.raises(LookupError):
        exporter.forget(m.HALTED)


def test_the_endpoint_answers_what_the_exporter_holds_and_stops_when_told():
    exporter = Exporter(SYMBOLS)
    exporter.inc(m.LOG_HOLES_TOTAL, 2, service="risk")
    stop = exporter.serve(0)
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{stop.port}/metrics", timeout=5) as answer:
            assert b'log_holes_total{service="risk"} 2.0' in answer.read()
    finally:
        stop()
    with pytest.raises(OSError):
        socket.create_connection(("127.0.0.1", stop.port), timeout=1).close()


def test_a_busy_port_is_named_with_its_key():
    with socket.create_server(("127.0.0.1", 0)) as busy:
        port = busy.getsockname()[1]
        with pytest.raises(ConfigError, match=rf"ports\.metrics: 127\.0\.0\.1:{port} .*SLUICE_METRICS_PORT"):
            Exporter(SYMBOLS).serve(port)


def moves() -> list[tuple[str, m.Series, str, set[str]]]:
    """Every `….inc(SERIES, …)`, `set` and `observe` in the source: where, which series, which verb, which labels."""
    declared, found = {k: v for k, v in vars(m).items() if isinstance(v, m.Series)}, []
    for path in sorted(p for room in ("engine", "store", "streams", "flows", "scripts") for p in (ROOT / room).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.args and node.func.attr in ALL_VERBS:
                first = node.args[0]
                name = first.attr if isinstance(first, ast.Attribute) else getattr(first, "id", "")
                labels = {k.arg for k in node.keywords} - {"by", "value"}
                if name in declared and None not in labels:
                    found.append((f"{path.relative_to(ROOT)}:{node.lineno}", declared[name], node.func.attr, {str(k) for k in labels}))
    return found


def test_every_move_of_a_series_in_the_source_has_its_labels_and_a_verb_of_its_kind():
    found = moves()
    assert len(found) > 10
    wrong = [f"{where}: {series}.{verb}({', '.join(sorted(labels))}), declared ({', '.join(series.labels)})"
             for where, series, verb, labels in found if labels != series.labels.keys() or verb not in VERBS[series.kind]]
    assert wrong == []
