"""Go, hold, no-go: each of the runbook's criteria at its edge, and the table of an instance that really answers."""
import json
import shutil
from pathlib import Path

import pytest
from builders import shipped
from fills import MADE, T0, settled

from config.settings import Settings
from engine.facts import BUY, SELL
from engine.fillprob import ceremony as c
from engine.fillprob import threshold as t
from engine.fillprob.ceremony import GO, HOLD, NO_GO, Seen
from engine.fillprob.gate import PLACE, Act, FillProbGate
from engine.fillprob.telemetry import FillProbTelemetry
from engine.fillprob.threshold import Resolution, Result
from flows import resolve_fill_threshold, train_fill_model
from store import evidence
from store.exporter import Exporter
from store.fill_ceremony import scraped, starts, table
from store.fill_model import opened

DAY_S = 86_400
FINE = Seen(DAY_S, 100, 10, 10, 0, 40, 4, True, 2500)
KNOWN = t.decide(Result(Resolution(2500, "e", "m"), "ok", ""), 2500, False)
STARTS = [{"recommended_bps": 2500}] * 2


def row(rows: list[c.Row], name: str) -> c.Row:
    [found] = [one for one in rows if one.name == name]
    return found


def asked(seen=FINE, threshold=KNOWN, of=STARTS, kept=True, **changes) -> list[c.Row]:
    return c.ceremony(threshold, seen._replace(**changes) if seen else None, of, kept)


def test_all_that_is_fine_is_a_go():
    assert {one.verdict for one in asked()} == {GO} and c.verdict(asked()) == GO


@pytest.mark.parametrize("name, changes, verdict", [
    ("ran", {"market_seconds": DAY_S - 1}, HOLD), ("ran", {"market_seconds": DAY_S}, GO),
    ("block rate", {"blocks": 19}, GO), ("block rate", {"blocks": 20}, HOLD), ("block rate", {"blocks": 30}, HOLD),
    ("block rate", {"blocks": 31}, NO_GO), ("block rate", {"checks": 19, "blocks": 0}, HOLD),
    ("block rate", {"checks": 20, "blocks": 0}, GO),
    ("block rate", {"enforce": False, "low": 31}, NO_GO), ("block rate", {"enforce": False, "low": 5, "blocks": 99}, GO),
    ("block rate climbing", {"window_blocks": 8}, GO), ("block rate climbing", {"window_blocks": 9}, NO_GO),
    ("block rate climbing", {"window_checks": 19, "window_blocks": 19}, GO),
    ("breaker trips", {"trips": 1}, NO_GO), ("auto-threshold gauge", {"auto_bps": 0}, NO_GO),
    ("auto-threshold gauge", {"auto_bps": 2400}, HOLD),
])
def test_a_criterion_at_its_edge(name, changes, verdict):
    assert row(asked(**changes), name).verdict == verdict
    assert c.verdict(asked(**changes)) in (verdict, NO_GO)


@pytest.mark.parametrize("recommended, verdict", [(3499, GO), (3500, NO_GO), (1501, GO), (1500, NO_GO)])
def test_a_delta_of_1000_is_too_wide(recommended, verdict):
    got = t.decide(Result(Resolution(recommended, "e", "m"), "ok", ""), 2500, False)
    assert row(asked(threshold=got), "delta").verdict == verdict


@pytest.mark.parametrize("of, verdict", [([], HOLD), ([2500], HOLD), ([2500, 2500], GO), ([2500, 2600], NO_GO), ([2600, 2600], NO_GO)])
def test_what_is_recommended_must_be_the_same_at_every_start_and_now(of, verdict):
    assert row(asked(of=[{"recommended_bps": bps} for bps in of]), "recommended_bps stable").verdict == verdict


def test_a_failed_resolution_is_a_no_go_by_its_code_and_a_silent_instance_holds():
    failed = t.decide(Result(None, "sha256_mismatch", ""), 2500, False)
    assert row(asked(threshold=failed), "resolution")[1:] == ("sha256_mismatch", "ok", NO_GO)
    assert c.verdict(asked(seen=None)) == HOLD
    assert row(asked(of=[], kept=False), "evidence of starts")[1:] == ("GRINDER_ARTIFACT_DIR is unset", ">= 1", HOLD)


def test_what_nobody_asked_for_is_no_failure_and_no_go_either():
    off = asked(threshold=t.decide(None, 2500, False), of=[], auto_bps=0)
    assert c.verdict(off) == HOLD and row(off, "resolution").value.startswith("not asked for")


CANARY, CONTROL = FINE, FINE._replace(enforce=False, blocks=0)


def promoted(canary=CANARY, control=CONTROL, failed=(), mine=STARTS, theirs=STARTS, proofs=42) -> list[c.Row]:
    return c.promotion(canary, control, failed, mine, theirs, proofs)


@pytest.mark.parametrize("changes, name, verdict", [
    ({"canary": CANARY._replace(market_seconds=1)}, "canary ran", HOLD),
    ({"canary": CANARY._replace(trips=1)}, "canary's breaker trips", NO_GO),
    ({"control": CONTROL._replace(trips=1)}, "control's breaker trips", NO_GO),
    ({"canary": CANARY._replace(blocks=31)}, "canary's block rate", NO_GO),
    ({"canary": CANARY._replace(blocks=25)}, "canary's block rate", HOLD),
    ({"canary": CANARY._replace(auto_bps=0)}, "canary's resolution", NO_GO),
    ({"mine": [{"recommended_bps": 1}, {"recommended_bps": 2}]}, "canary's recommended_bps stable", NO_GO),
    ({"theirs": STARTS[:1]}, "control's recommended_bps stable", HOLD),
    ({"control": CONTROL._replace(auto_bps=2600)}, "auto_threshold_bps of both", NO_GO),
    ({"failed": ["Calibration"]}, "pre-flight", NO_GO), ({"proofs": 0}, "evidence of the canary", HOLD),
    ({"canary": CANARY._replace(enforce=False)}, "canary enforces", NO_GO),
    ({"control": CONTROL._replace(enforce=True)}, "control enforces", NO_GO),
    ({"control": CONTROL._replace(blocks=1)}, "control's blocks", HOLD), ({"control": None}, "auto_threshold_bps of both", HOLD),
])
def test_a_canarys_criterion(changes, name, verdict):
    assert c.verdict(promoted()) == GO
    assert row(promoted(**changes), name).verdict == verdict and c.verdict(promoted(**changes)) in (verdict, NO_GO)


# an instance that answers

@pytest.fixture(scope="module")
def sound(tmp_path_factory) -> dict[str, Path]:
    return settled(tmp_path_factory.mktemp("ceremony"))


def instance(made, folder: Path, **more: str) -> Settings:
    """The settings of an instance whose artifacts are a folder of its own."""
    return shipped(GRINDER_FILL_MODEL_DIR=str(made["model"]), GRINDER_FILL_PROB_EVAL_DIR=str(made["eval"]),
                   GRINDER_ARTIFACT_DIR=str(folder), GRINDER_FILL_PROB_EVIDENCE="1", **more)


def day(s: Settings, low: int, high: int, starts_ms: tuple[int, ...] = (1, 2)) -> Exporter:
    """The service started so often, and then a day of market with so many orders; its exporter."""
    gate, last = None, None
    for at in starts_ms:
        last = opened(s, at)
        gate = FillProbGate(s.fill_prob, last.model, last.threshold.effective_bps, gate.state if gate else None)
    assert gate and last
    exporter = Exporter(["BTCUSDT"])
    telemetry = FillProbTelemetry(exporter)
    telemetry.opened(gate, last.threshold)
    for k in range(low + high):
        said = gate.judge(Act(PLACE, "BTCUSDT", BUY if k < low else SELL, 50.0, 1.0), T0 + k * 86_400_000 // (low + high - 1))
        if said.evidence:
            evidence.write(Path(s.fill_prob.artifact_dir), said.evidence)
        telemetry.on(gate)
    return exporter


def test_a_day_of_a_running_gate_is_a_go_and_the_table_is_kept(sound, tmp_path, capsys, monkeypatch):
    s = instance(sound, tmp_path / "a", GRINDER_FILL_MODEL_ENFORCE="1")
    stop = day(s, 10, 90).serve(0)
    try:
        url = f"http://127.0.0.1:{stop.port}/metrics"
        got = table(s, url, 3)
        assert got.verdict == GO, got.text()
        assert got.path == tmp_path / "a/fill_prob/go_no_go_3.json" and evidence.verify(got.path)["verdict"] == GO
        assert scraped(url) == Seen(86_400.0, 100, 10, 10, 0, 1, 0, True, 2500)
        for name, value in (("FILL_MODEL_DIR", sound["model"]), ("FILL_PROB_EVAL_DIR", sound["eval"]), ("ARTIFACT_DIR", tmp_path / "a")):
            monkeypatch.setenv(f"GRINDER_{name}", str(value))
        assert resolve_fill_threshold.main(["--metrics", url]) == 0
        out = capsys.readouterr().out
        assert "THRESHOLD_RESOLVED mode=recommend_only recommended_bps=2500" in out and out.endswith("verdict: go\n")
    finally:
        stop()
    assert scraped(url) is None and resolve_fill_threshold.main(["--metrics", url]) == 3


def test_a_canary_beside_its_control_is_read_from_both(sound, tmp_path):
    canary = instance(sound, tmp_path / "canary", GRINDER_FILL_MODEL_ENFORCE="1")
    control = instance(sound, tmp_path / "control", GRINDER_FILL_MODEL_ENFORCE="0")
    one, two = day(canary, 10, 90).serve(0), day(control, 10, 90).serve(0)
    try:
        urls = [f"http://127.0.0.1:{stop.port}/metrics" for stop in (one, two)]
        got = table(canary, urls[0], 3, urls[1], str(tmp_path / "control"))
        assert got.verdict == GO, got.text()
        swapped = table(canary, urls[1], 4, urls[0], str(tmp_path / "control"))
        assert swapped.verdict == NO_GO and row(swapped.rows, "canary enforces").verdict == NO_GO
    finally:
        one()
        two()


def test_starts_of_another_model_are_not_of_this_ceremony(sound, tmp_path):
    s = instance(sound, tmp_path / "a")
    opened(s, 1)
    folder = tmp_path / "a/fill_prob"
    [first] = starts(folder, None)
    assert starts(folder, first["model_manifest_sha256"]) == [first] and starts(folder, "other") == []
    shutil.rmtree(folder)
    assert starts(folder, None) == []


# the flow's way from fills to a judged model, without a server

def test_fills_become_a_model_and_its_evaluation_by_later_trips_in_the_same_bytes(tmp_path, capsys):
    told = [{"ts": 1000 + 700 * k, "symbol": "BTCUSDT", "side": "BUY" if k % 2 == 0 else "SELL", "price": str(100 + k % 5),
             "quantity": "0.5", "order_id": f"o{k}"} for k in range(40)]
    (tmp_path / "fills.json").write_text(json.dumps(told))
    made = []
    for force in ([], ["--force"]):
        assert train_fill_model.main(["--source", str(tmp_path / "fills.json"), "--out", str(tmp_path / "ml"), "--created-at-utc", MADE,
                                      *force]) == 0
        made.append({p.relative_to(tmp_path): p.read_bytes() for p in sorted((tmp_path / "ml").rglob("*")) if p.is_file()})
    assert made[0] == made[1] and len(made[0]) == 8
    report = json.loads((tmp_path / "ml/eval/fill_model_v0/eval_report.json").read_text())
    assert report["in_sample"] is False and report["n_rows"] == 6 and report["generated_at"] == MADE
    assert train_fill_model.main(["--source", str(tmp_path / "fills.json"), "--out", str(tmp_path / "ml")]) == 1
    assert "--force" in capsys.readouterr().err
    for share in ("0", "1", "-0.5", "nan"):
        with pytest.raises(SystemExit) as ended:
            train_fill_model.main(["--source", str(tmp_path / "fills.json"), "--out", str(tmp_path / "none"), f"--first={share}"])
        assert ended.value.code == 2 and "--first: " in capsys.readouterr().err
    (tmp_path / "fills.json").write_text("[]")
    assert train_fill_model.main(["--source", str(tmp_path / "fills.json"), "--out", str(tmp_path / "none")]) == 1
    assert "0 round trips of 0 fills" in capsys.readouterr().err and not (tmp_path / "none").exists()
