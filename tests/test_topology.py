"""Canary beside control: what the runbook's two instances need, and every way in which they would step on each other."""
import doctest
from pathlib import Path

import pytest

from config import topology
from scripts import validate_topology

SHARED = """
# both
export GRINDER_FILL_MODEL_DIR=ml/models/fill_model_v0
export GRINDER_FILL_PROB_EVAL_DIR=ml/eval/fill_model_v0
export GRINDER_FILL_PROB_AUTO_THRESHOLD=0          # recommend-only (safest for canary)
export GRINDER_FILL_PROB_MIN_BPS=2500              # same threshold on both
"""
CANARY = "SLUICE_INSTANCE=canary\nSLUICE_SYMBOLS=BTCUSDT\nGRINDER_FILL_MODEL_ENFORCE=1\nGRINDER_ARTIFACT_DIR=ml/artifacts/canary\n"
CONTROL = "SLUICE_INSTANCE=control\nSLUICE_SYMBOLS='ETHUSDT,SOLUSDT'\n" \
          "GRINDER_FILL_MODEL_ENFORCE=0\nGRINDER_ARTIFACT_DIR=ml/artifacts/control\n"


def run(folder: Path, canary: str = CANARY, control: str = CONTROL, *more: str) -> int:
    (folder / "canary.env").write_text(SHARED + canary)
    (folder / "control.env").write_text(SHARED + control)
    return validate_topology.main([str(folder / "canary.env"), str(folder / "control.env"), *more])


def test_the_runbooks_two_instances_are_fine_and_their_limits_add_up(tmp_path, capsys):
    assert run(tmp_path) == 0
    out = capsys.readouterr().out
    assert "canary        canary   enforce=1 symbols=BTCUSDT" in out and "control       control  enforce=0 symbols=ETHUSDT,SOLUSDT" in out
    [line] = [one.split() for one in out.splitlines() if one.startswith("policy.max_total_exposure_usdt")]
    assert line[1:] == ["5000", "5000", "10000"] and out.endswith("OK: 2 instances, BTCUSDT, ETHUSDT, SOLUSDT\n")


@pytest.mark.parametrize("was, becomes, said", [
    ("SYMBOLS='ETHUSDT,SOLUSDT'", "SYMBOLS=ETHUSDT,BTCUSDT,SOLUSDT", "symbols: BTCUSDT would be traded twice"),
    ("SYMBOLS='ETHUSDT,SOLUSDT'", "SYMBOLS=ETHUSDT", "symbols: SOLUSDT would be traded by none"),
    ("artifacts/control", "artifacts/./canary/", "share files"), ("artifacts/control", "artifacts/canary/control", "share files"),
    ("GRINDER_ARTIFACT_DIR=ml/artifacts/control", "", "control: GRINDER_ARTIFACT_DIR: unset"),
    ("INSTANCE=control", "INSTANCE=canary", "SLUICE_INSTANCE: both are 'canary'"),
    ("ENFORCE=0", "ENFORCE=0\nGRINDER_FILL_PROB_MIN_BPS=2600", "fill_prob.min_bps: 2500 and 2600; the same was expected"),
    ("ENFORCE=0", "ENFORCE=0\nGRINDER_FILL_PROB_EVAL_DIR=elsewhere", "fill_prob.eval_dir: 'ml/eval/fill_model_v0' and 'elsewhere'"),
    ("ENFORCE=0", "ENFORCE=0\nPOLICY_MIN_CONFIDENCE=0.8", "policy.min_confidence: 0.7 and 0.8"),
])
def test_two_that_step_on_each_other_or_differ_are_refused(tmp_path, capsys, was, becomes, said):
    assert was in CONTROL and run(tmp_path, control=CONTROL.replace(was, becomes)) == 1
    err = capsys.readouterr().err
    assert said in err and all(line.startswith("FAIL ") for line in err.splitlines())


def test_a_symbol_that_shall_not_be_traded_is_refused(tmp_path, capsys):
    assert run(tmp_path, CANARY, CONTROL, "--symbols", "BTCUSDT,ETHUSDT") == 1
    assert "control: symbols: SOLUSDT shall not be traded" in capsys.readouterr().err


@pytest.mark.parametrize("text", ["just text", "services: {grinder: 5}", "- a list"])
def test_a_file_that_is_no_compose_file_is_named(tmp_path, capsys, text):
    (tmp_path / "x.yml").write_text(text)
    assert validate_topology.main(["--compose", str(tmp_path / "x.yml"), "grinder"]) == 1
    assert "x.yml: a mapping with services was expected" in capsys.readouterr().err


@pytest.mark.parametrize("line, said", [("NONSENSE", "line 11: 'NONSENSE' is not KEY=VALUE"), ("SLUICE_KAFKA_PORT=none", "kafka.port")])
def test_a_file_that_cannot_be_meant_is_named(tmp_path, capsys, line, said):
    assert run(tmp_path, CANARY + line + "\n") == 1
    assert said in capsys.readouterr().err


COMPOSE = """
x-env: &env {GRINDER_FILL_MODEL_DIR: ml/models/fill_model_v0, SLUICE_LATENCY_MS: "${LATENCY:-50}"}
services:
  grinder_canary:
    environment: {<<: *env, SLUICE_INSTANCE: canary, GRINDER_FILL_MODEL_ENFORCE: 1, GRINDER_ARTIFACT_DIR: a/canary}
    command: ["--symbols", "BTCUSDT", "--metrics-port", "9090"]
  grinder_control:
    environment: [GRINDER_FILL_MODEL_DIR=ml/models/fill_model_v0, SLUICE_INSTANCE=control, GRINDER_ARTIFACT_DIR=a/control]
    command: ["--symbols", "ETHUSDT", "--metrics-port", "9090"]
"""


def test_services_of_compose_files_are_read_with_their_overlays(tmp_path, capsys):
    (tmp_path / "a.yml").write_text(COMPOSE)
    both = ["grinder_canary", "grinder_control", "--symbols", "BTCUSDT,ETHUSDT"]
    assert validate_topology.main(["--compose", str(tmp_path / "a.yml"), *both]) == 0
    (tmp_path / "b.yml").write_text("services: {grinder_control: {environment: {GRINDER_ARTIFACT_DIR: a/canary}}}\n")
    assert validate_topology.main(["--compose", str(tmp_path / "a.yml"), "--compose", str(tmp_path / "b.yml"), *both]) == 1
    assert "share files" in capsys.readouterr().err
    assert validate_topology.main(["--compose", str(tmp_path / "a.yml"), "grinder"]) == 1
    assert "grinder: no such service" in capsys.readouterr().err


def test_the_examples_in_the_docstrings_run():
    got = doctest.testmod(topology)
    assert got.attempted and not got.failed
