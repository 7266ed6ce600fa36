"""The runbook's two samples to the letter, and every way to fail."""
import json
import shutil
from pathlib import Path

import pytest
from fills import settled

from engine.fillprob.documents import pretty, sha256
from engine.fillprob.evaluation import files
from scripts import preflight_fill_prob
from store import evidence
from store.fill_preflight import FAILED, PASSED

SAMPLE = """============================================================
Fill Probability Enforcement Pre-flight Checks
============================================================
  [PASS] Model loads: Loaded: 8 bins, global_prior=6000 bps
  [PASS] Eval report loads: Loaded: 100 rows evaluated
  [PASS] Calibration: Well-calibrated (max_error=200 bps < 500 bps)
  [PASS] Threshold match: Recommended=2500 bps matches configured=2500 bps
  [PASS] Evidence artifacts: Found 42 evidence artifact(s)

All checks passed. Safe to set GRINDER_FILL_MODEL_ENFORCE=1.
"""
SUMMARY = """============================================================
Threshold Summary
============================================================
  configured_threshold_bps : 2500
  recommended_threshold_bps: 3000
  effective_threshold_bps  : 2500 (recommend-only: no override)
  mode                     : recommend_only
============================================================
"""


@pytest.fixture(scope="module")
def sound(tmp_path_factory) -> dict[str, Path]:
    return settled(tmp_path_factory.mktemp("ceremony"))


@pytest.fixture
def made(sound, tmp_path, monkeypatch) -> dict[str, Path]:
    for name in ("AUTO_THRESHOLD", "EVAL_MAX_AGE_HOURS", "MIN_BPS"):
        monkeypatch.delenv(f"GRINDER_FILL_PROB_{name}", raising=False)
    for name in ("model", "eval", "evidence"):
        shutil.copytree(sound[name], tmp_path / name)
    return {name: tmp_path / name for name in ("model", "eval", "evidence")}


def run(made, *more: str) -> int:
    return preflight_fill_prob.main(["--model", str(made["model"]), "--eval", str(made["eval"]), "--evidence-dir", str(made["evidence"]),
                                     *more])


def rewritten(made, **changes) -> None:
    """The report with other values, pinned by its manifest."""
    report = {**json.loads((made["eval"] / "eval_report.json").read_text()), **changes}
    for name, blob in files({key: value for key, value in report.items() if value is not ...}).items():
        (made["eval"] / name).write_bytes(blob)


def line(text: str, name: str) -> str:
    [found] = [one for one in text.splitlines() if f"] {name}: " in one]
    return found.strip()


def test_the_first_sample_is_printed_byte_for_byte_from_real_files(made, capsys):
    assert run(made, "--threshold-bps", "2500") == 0
    got = capsys.readouterr()
    assert got.out == SAMPLE and got.err == ""


def test_the_second_sample_is_printed_byte_for_byte_and_says_how_far_the_threshold_is(made, capsys):
    rewritten(made, recommended_threshold_bps=3000)
    assert run(made, "--auto-threshold") == 0
    out = capsys.readouterr().out
    assert SUMMARY in out and out.endswith(SUMMARY + "\n" + PASSED + "\n")
    assert line(out, "Threshold match") == (
        "[PASS] Threshold match: Recommended=3000 bps within 1000 bps of configured=2500 bps (delta=500 bps)")
    assert line(out, "Auto-threshold resolution") == "[PASS] Auto-threshold resolution: Resolved: recommended_threshold_bps=3000"


def test_without_the_flag_a_delta_fails_and_no_summary_is_printed(made, capsys):
    rewritten(made, recommended_threshold_bps=3000)
    assert run(made) == 1
    out = capsys.readouterr().out
    assert "Threshold Summary" not in out and out.endswith(f"\n\n{FAILED}\n")
    assert line(out, "Threshold match") == (
        "[FAIL] Threshold match: MISMATCH: recommended=3000 bps, configured=2500 bps. Consider updating GRINDER_FILL_PROB_MIN_BPS or "
        "re-running evaluation.")


@pytest.mark.parametrize("recommended, status", [(3499, 0), (3500, 1), (1501, 0), (1500, 1)])
def test_with_the_flag_a_delta_passes_below_1000_and_fails_at_it(made, recommended, status):
    rewritten(made, recommended_threshold_bps=recommended)
    assert run(made, "--auto-threshold") == status


def test_a_service_that_would_apply_it_shows_the_recommended_threshold_in_force(made, capsys, monkeypatch):
    rewritten(made, recommended_threshold_bps=3000)
    monkeypatch.setenv("GRINDER_FILL_PROB_AUTO_THRESHOLD", "YES")
    assert run(made, "--auto-threshold") == 0
    out = capsys.readouterr().out
    assert "  effective_threshold_bps  : 3000\n  mode                     : auto_apply\n" in out


def test_a_resolution_that_fails_is_a_check_that_fails_and_nothing_is_recommended(made, capsys, monkeypatch):
    monkeypatch.setenv("GRINDER_FILL_PROB_EVAL_MAX_AGE_HOURS", "1")
    assert run(made, "--auto-threshold") == 1
    out = capsys.readouterr().out
    assert line(out, "Auto-threshold resolution").startswith(
        "[FAIL] Auto-threshold resolution: resolution=FAILED reason_code=timestamp_too_old detail=age ")
    assert "  recommended_threshold_bps: N/A\n  effective_threshold_bps  : 2500 (no recommendation available)\n" in out


def test_the_configured_threshold_is_the_environments_where_none_is_told(made, monkeypatch, capsys):
    monkeypatch.setenv("GRINDER_FILL_PROB_MIN_BPS", "2400")
    assert run(made) == 1 and "configured=2400 bps" in capsys.readouterr().out
    assert run(made, "--threshold-bps", "2500") == 0


@pytest.mark.parametrize("spoil, name, said", [
    (lambda m: shutil.rmtree(m["model"]), "Model loads", "Model directory not found: {model}"),
    (lambda m: (m["model"] / "manifest.json").unlink(), "Model loads", "Model manifest not found: {model}/manifest.json"),
    (lambda m: (m["model"] / "model.json").unlink(), "Model loads", "Model file not found: {model}/model.json"),
    (lambda m: flip(m["model"] / "model.json"), "Model loads", "Model sha256 mismatch: expected "),
    (lambda m: (m["model"] / "manifest.json").write_text("{"), "Model loads", "Model load error: parse_error: "),
    (lambda m: shutil.rmtree(m["eval"]), "Eval report loads", "Eval directory not found: {eval}"),
    (lambda m: (m["eval"] / "manifest.json").unlink(), "Eval report loads", "Eval manifest not found: {eval}/manifest.json"),
    (lambda m: (m["eval"] / "eval_report.json").unlink(), "Eval report loads", "Eval file not found: {eval}/eval_report.json"),
    (lambda m: flip(m["eval"] / "eval_report.json"), "Eval report loads", "Eval sha256 mismatch: expected "),
    (lambda m: rewritten(m, n_rows=0), "Eval report loads", "Eval load error: missing_field: no rows were evaluated (n_rows=0)"),
    (lambda m: rewritten(m, n_rows="100"), "Eval report loads", "Eval load error: bad_type: "),
    (lambda m: rewritten(m, schema_version="x"), "Eval report loads", "Eval load error: schema_unsupported: "),
    (lambda m: rewritten(m, model_manifest_sha256="0" * 64), "Eval report loads", "Eval load error: model_provenance_mismatch: "),
    (lambda m: rewritten(m, calibration_max_error_bps=500, calibration_well_calibrated=False), "Calibration",
     "NOT well-calibrated (max_error=500 bps >= 500 bps)"),
    (lambda m: rewritten(m, calibration_max_error_bps=900), "Calibration", "NOT well-calibrated (max_error=900 bps >= 500 bps)"),
    (lambda m: rewritten(m, calibration_well_calibrated=1), "Calibration", "NOT well-calibrated (calibration_well_calibrated=1, "),
    (lambda m: rewritten(m, recommended_threshold_bps=...), "Threshold match", "Eval report missing recommended_threshold_bps"),
    (lambda m: rewritten(m, recommended_threshold_bps=2500.0), "Threshold match", "MISMATCH: recommended=2500.0 bps"),
    (lambda m: shutil.rmtree(m["evidence"]), "Evidence artifacts", "Evidence directory not found: {evidence}"),
    (lambda m: [p.unlink() for p in m["evidence"].glob("*.sha256")], "Evidence artifacts",
     "No evidence artifacts found in {evidence} (run shadow mode first)"),
])
def test_every_way_to_fail_has_its_words_and_status_1(made, capsys, spoil, name, said):
    spoil(made)
    assert run(made) == 1
    out = capsys.readouterr().out
    assert line(out, name).startswith(f"[FAIL] {name}: {said.format(**made)}") and out.endswith(FAILED + "\n")


def flip(path: Path) -> None:
    blob = path.read_bytes()
    path.write_bytes(blob[:50] + bytes([blob[50] ^ 1]) + blob[51:])


def test_what_needs_a_report_that_does_not_load_is_skipped_and_failed(made, capsys):
    shutil.rmtree(made["eval"])
    assert run(made) == 1
    out = capsys.readouterr().out
    assert line(out, "Calibration") == "[FAIL] Calibration: Skipped (eval report failed to load)"
    assert line(out, "Threshold match") == "[FAIL] Threshold match: Skipped (eval report failed to load)"


def test_a_resolution_is_no_evidence_of_a_shadow(made, capsys):
    for path in made["evidence"].iterdir():
        path.unlink()
    resolution = {"artifact_version": "threshold_resolution_v1", "ts_ms": 1, "mode": "recommend_only", "recommended_bps": 1,
                  "configured_bps": 1, "effective_bps": 1, "eval_sha256": "", "model_manifest_sha256": ""}
    blob = pretty(resolution)
    (made["evidence"] / "threshold_resolution_1.json").write_bytes(blob)
    (made["evidence"] / "threshold_resolution_1.json.sha256").write_text(f"{sha256(blob)}  threshold_resolution_1.json\n")
    assert len(evidence.sound(made["evidence"], "threshold_resolution_v1")[0]) == 1
    assert run(made) == 1 and "No evidence artifacts found" in capsys.readouterr().out


def test_what_the_gate_cannot_know_is_told_on_the_side(made, capsys):
    rewritten(made, as_served_coverage_pct=49.9, as_served_block_rate_pct=50.1)
    assert run(made) == 0
    assert capsys.readouterr().err.splitlines() == [
        "WARN: asked as the gate asks, the model knows 50 % of the rows; the others get its prior, one answer for all",
        "WARN: asked as the gate asks, the recommended threshold blocks 50 %: the breaker would trip"]


def test_a_model_judged_by_its_own_rows_and_few_rows_are_told_on_the_side(made, capsys):
    rewritten(made, in_sample=True, n_rows=99)
    assert run(made) == 0
    err = capsys.readouterr().err
    assert "WARN: the model was evaluated on the rows that it was trained on" in err and "WARN: only 99 rows" in err
