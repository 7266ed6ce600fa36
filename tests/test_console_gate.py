"""The ceremony's page on a real desk's ledger, real evidence and instances that answer: what the flow judges, and what to do about it."""
from pathlib import Path

import msgspec
import pytest
from desks import SYMBOL
from fills import MADE, settled, trips
from test_console import desk, text  # noqa: F401
from test_dashboard import page, place  # noqa: F401
from test_fillprob_ceremony import asked, day, instance, promoted

from dashboard import ceremony, data
from engine.facts import BUY, GATING, SELL, Control, Dropped, Order
from engine.fillprob import advice, threshold
from engine.fillprob.ceremony import GO, HOLD, NO_GO
from engine.fillprob.gate import Gating
from engine.fillprob.model_v0 import FillModelV0
from store import evidence, figures_gate
from store.fill_ceremony import table
from store.fill_model import load_model, opened, save_model
from store.fill_preflight import Asked, preflight


@pytest.fixture(scope="module")
def sound(tmp_path_factory) -> dict[str, Path]:
    return settled(tmp_path_factory.mktemp("console-gate"))


@pytest.fixture
def environment(sound, tmp_path, place, monkeypatch):  # noqa: F811
    """A console with the environment of an instance that has been through pre-flight; its artifacts are `tmp_path/a`."""
    for name, value in {"FILL_MODEL_DIR": sound["model"], "FILL_PROB_EVAL_DIR": sound["eval"], "ARTIFACT_DIR": tmp_path / "a",
                        "FILL_PROB_EVIDENCE": "1", "FILL_MODEL_ENFORCE": "1"}.items():
        monkeypatch.setenv(f"GRINDER_{name}", str(value))
    return tmp_path


def at_work(monkeypatch, settings, low: int, high: int):
    """The instance's day, answering where the console looks first."""
    stop = day(settings, low, high).serve(0)
    monkeypatch.setenv("SLUICE_METRICS_PORT", str(stop.port))
    return stop


# advice

def test_every_row_and_every_check_that_is_no_go_says_what_to_do_and_a_go_says_nothing():
    for row in [*asked(), *promoted()]:
        assert advice.todo(row) == "nothing"
        for verdict in (HOLD, NO_GO):
            assert len(advice.todo(row._replace(verdict=verdict))) > 10, row
    for row in asked(seen=None) + promoted(canary=None, control=None):
        if "not answer" in row.value:
            assert advice.todo(row) == advice.ANSWER
    checks = preflight(Asked(Path("none"), Path("none"), Path("none"), auto=True)).checks
    assert len(checks) == 6 and all(len(advice.failing(c.name, False)) > 10 and advice.failing(c.name, True) == "nothing" for c in checks)
    assert set(threshold.CODES) - {threshold.OK} == set(advice.CODES)


@pytest.mark.parametrize("asked_for, phase, words", [
    (("", "", False, [], HOLD), 0, "train_fill_model"), (("m", "e", False, ["Calibration"], GO), 0, "Calibration: train on more"),
    (("m", "", False, [], HOLD), 1, "EVAL_DIR"), (("m", "e", False, [], HOLD), 1, "let it run"),
    (("m", "e", False, [], GO), 2, "AUTO_THRESHOLD=1"), (("m", "e", False, [], NO_GO), 2, "do not apply"),
    (("m", "e", True, [], GO), 3, "watch"), (("m", "e", True, ["Calibration"], NO_GO), 3, "AUTO_THRESHOLD=0")])
def test_the_phase_is_the_runbooks(asked_for, phase, words):
    got = advice.step(*asked_for)
    assert got.phase == phase and words in got.todo


# the page

def test_without_a_model_a_ledger_or_an_instance_the_page_says_where_to_begin(place):  # noqa: F811
    said = text(page("fillprob"))
    assert "Phase 0, no model." in said and "python -m flows.train_fill_model --out ml" in said
    assert "the instance does not answer" in said and advice.ANSWER in said
    assert "no evaluation that can be believed" in said and "No start has left one" in said


def test_the_page_shows_the_flows_rows_and_leaves_no_file(environment, sound, monkeypatch):
    s = instance(sound, environment / "a", GRINDER_FILL_MODEL_ENFORCE="1")
    stop = at_work(monkeypatch, s, 10, 90)
    try:
        before = sorted((environment / "a").rglob("*"))
        said = text(page("fillprob"))
        assert sorted((environment / "a").rglob("*")) == before
        got = table(s, f"http://127.0.0.1:{stop.port}/metrics", 3)
        assert got.verdict == GO
        for row in got.rows:
            assert f"{row.name} {row.value} {row.limit} go nothing" in said, row
        assert "Phase 2, go or no-go. auto-threshold: go. Next: GRINDER_FILL_PROB_AUTO_THRESHOLD=1" in said
        assert "10.0 % 10 of 100 judged" in said and "Calibration largest error 200 bps over 100 rows" in said
        assert said.count("recommend_only 2,500 2,500 2,500") == 2, "both starts' resolutions"
        ceremony.left.clear()
        assert "01-01 00:00:00 ceremony go none" in text(page("fillprob")), "the table just kept"
    finally:
        stop()


def test_a_no_go_names_the_row_and_its_way_out(environment, sound, monkeypatch):
    stop = at_work(monkeypatch, instance(sound, environment / "a", GRINDER_FILL_MODEL_ENFORCE="1"), 40, 60)
    try:
        said = text(page("fillprob"))
        assert "auto-threshold: no-go." in said and "a lower threshold or a newer model" in said
    finally:
        stop()


def test_edited_files_are_named_and_their_code_has_a_remedy(environment, sound, monkeypatch, tmp_path):
    bad = settled(tmp_path / "bad")
    report = bad["eval"] / "eval_report.json"
    report.write_bytes(report.read_bytes().replace(b"2500", b"2501", 1))
    monkeypatch.setenv("GRINDER_FILL_PROB_EVAL_DIR", str(bad["eval"]))
    start = opened(instance(sound, environment / "a"), 1).evidence
    start.write_bytes(start.read_bytes().replace(b"2500", b"2600", 1))
    said = text(page("fillprob"))
    assert "sha256_mismatch ok no-go python -m scripts.eval_fill_model_v0 again; ask who edited the report" in said
    assert "threshold_resolution_1.json is not believed: sha256_mismatch" in said and "no evaluation that can be believed" in said


def test_a_canary_stands_beside_its_control(environment, sound, monkeypatch):
    canary = instance(sound, environment / "a", GRINDER_FILL_MODEL_ENFORCE="1")
    control = instance(sound, environment / "c", GRINDER_FILL_MODEL_ENFORCE="0")
    one, two = at_work(monkeypatch, canary, 10, 90), day(control, 12, 88).serve(0)
    try:
        at = page("fillprob")
        at.text_input(key="fp_control").set_value(f"http://127.0.0.1:{two.port}/metrics")
        at.text_input(key="fp_artifacts").set_value(str(environment / "c")).run()
        assert not at.exception
        said = text(at)
        assert "promotion of the canary: go." in said and "control's blocks 0 0 go nothing" in said
        assert "enforces yes no" in said and "blocked 10 0" in said and "below the threshold 10 12" in said
    finally:
        one()
        two()


# block rate

@pytest.fixture
def sided(tmp_path) -> Path:
    """A model that thinks little of buys of any size."""
    rows = [one for notional in ("50", "200", "700", "2000", "9000") for side, wins in ((BUY, 4), (SELL, 16))
            for one in trips(20, wins, notional, side)]
    return save_model(FillModelV0.train(rows), tmp_path / "sided", MADE)


def gated(desk, model: Path, enforce: bool) -> None:  # noqa: F811
    """The desk's start finds this gate."""
    rules = data.settings().fill_prob
    found = Gating(msgspec.structs.replace(rules, enforce=enforce), load_model(model).to_json().decode(), 5000)
    desk.tell(Control("gating-1", GATING, "risk", "start", 0, desk.now, found.details))


def test_an_enforcing_gates_rate_is_the_ledgers(environment, desk, sided):  # noqa: F811
    gated(desk, sided, True)
    desk.market()
    outs = []
    for side in (BUY, BUY, BUY, SELL):
        desk.market(later_ms=61_000)
        outs += desk.signal(side=side)
    assert [o.reason for o in outs if isinstance(o, Dropped)] == ["FILL_PROB_LOW"] * 3 and any(isinstance(o, Order) for o in outs)
    desk.projected()
    state = desk.desk.state
    rows = ceremony.rates(data.settings(), state.gating, state.gate.phase.first_ms)
    assert rows[["judged", "low"]].values.tolist() == [[1, 1], [1, 1], [1, 1], [1, 0]] and (rows["at_ms"] % 60_000 == 0).all()
    figure = figures_gate.block_rate(rows)
    assert [list(t.y) for t in figure.data] == [[1, 1, 1, 1], [100, 100, 100, 0]]
    said = text(page("fillprob"))
    assert "The desk runs with what its last start found." not in said and "5,000 bps since the desk's last start" in said
    assert "3 of 4 blocked" in said


def test_a_watching_gates_rate_is_its_evidences_and_another_setting_is_said(environment, desk, sound, sided):  # noqa: F811
    gated(desk, sided, False)
    for k, prob in enumerate((2000, 8000, 2000)):
        evidence.write(environment / "a", {
            "artifact_version": evidence.EVIDENCE, "ts_ms": desk.now + 60_000 * k, "verdict": "SHADOW", "prob_bps": prob,
            "threshold_bps": 5000, "enforce": False, "features": {}, "action": {"symbol": SYMBOL}, "model": {}})
    rows = ceremony.rates(data.settings(), desk.desk.state.gating, desk.now)
    assert rows["low"].tolist() == [1, 0, 1] and ceremony.rates(data.settings(), desk.desk.state.gating, desk.now + 1)["judged"].sum() == 2
    desk.projected()
    assert "enforce: False at its start, True now" in text(page("fillprob"))


def test_the_figure_of_a_calibration_marks_the_bins_that_are_off():
    rows = [{"bin_key": "a", "predicted_bps": 2000, "actual_bps": 2100, "n_samples": 100, "error_bps": 100},
            {"bin_key": "b", "predicted_bps": 6000, "actual_bps": 6500, "n_samples": 25, "error_bps": 500}]
    figure = figures_gate.gate_calibration(rows, 2500)
    [bins] = [t for t in figure.data if t.mode == "markers"]
    assert len(set(bins.marker.color)) == 2 and list(bins.marker.size) == [24, 15]
