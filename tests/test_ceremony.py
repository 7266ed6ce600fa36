"""The runbook's ceremony on real processes, in short: what an operator types, and what the service says and does."""
import os
from pathlib import Path

import psutil
import pytest
from fills import settled
from models import register

from benchmarks import ceremony
from benchmarks._typed import Typed, Wrong, environment
from benchmarks.ceremony import GATE, Ceremony
from engine.fillprob.model_v0 import FillModelV0
from engine.scoring.features import FEATURES
from scripts import run_live
from store.fill_outcomes import fixture
from streams.broker import free_port

QUICK = {"POLICY_COOLDOWN_SYMBOL": "3", "POLICY_COOLDOWN_GLOBAL": "1", "POLICY_MIN_CONFIDENCE": "0.5", "SPEED": "max"}


@pytest.fixture
def terminal(tmp_path: Path):
    """A terminal whose services end with the test."""
    folders = {"SLUICE_DATA": str(tmp_path / "data"), "SLUICE_MODELS": str(tmp_path / "models")}
    t = Typed(tmp_path, environment() | QUICK | folders, lambda text: None)
    yield t
    t.close()


def test_an_instance_applies_its_threshold_and_with_a_touched_report_trades_on_without(terminal, tmp_path, kafka):
    terminal.env["KAFKA_BOOTSTRAP_SERVERS"] = kafka.address
    register(tmp_path / "models", "m1", "active", names=FEATURES, tau=0.5)
    made = settled(tmp_path)
    c = Ceremony(terminal, 0, 1, (free_port(), 0))
    c.model, c.eval, c.evidence = made["model"], made["eval"], made["evidence"].parent
    assert "All checks passed" in c.preflight("--threshold-bps 2500")
    terminal.export(GRINDER_FILL_MODEL_DIR=c.model, GRINDER_FILL_PROB_EVAL_DIR=c.eval, GRINDER_FILL_MODEL_ENFORCE=1,
                    GRINDER_FILL_PROB_MIN_BPS=2600, GRINDER_FILL_PROB_AUTO_THRESHOLD=1)

    one = c.grinder()
    c.resolved(one, "mode=auto_apply recommended_bps=2500 configured_bps=2600 effective_bps=2500 reason=auto_applied", 2500, 2500)
    c.orders(one, 1, 60)
    assert one.shows(GATE + "enforce_enabled") == 1
    [exchange] = psutil.Process(one.process.pid).children()
    assert "streams.exchange" in exchange.cmdline()

    report = c.eval / "eval_report.json"
    report.write_bytes(report.read_bytes().replace(b"2500", b"9500", 1))
    again = c.grinder()                                       # stopped, and started with the same environment
    assert psutil.wait_procs([exchange], 10)[0] == [exchange], "the exchange outlives its desk"
    assert one.process.returncode == 0
    assert again.told("FILL_PROB_THRESHOLD_RESOLUTION_FAILED reason_code=sha256_mismatch")
    assert again.told("THRESHOLD_RESOLVED mode=auto_apply recommended_bps=FAILED configured_bps=2600 effective_bps=2600 reason=resol")
    assert (again.shows(GATE + "auto_threshold_bps"), again.shows(GATE + "effective_threshold_bps")) == (0, 2600)
    c.entries(again)
    assert terminal.wrong == [] and str(tmp_path) + "/" not in (tmp_path / "transcript.md").read_text()


def test_without_a_broker_the_command_says_what_to_start(terminal):
    with pytest.raises(Wrong, match=r"(?s)status 1.*no answer from the broker at 127.0.0.1:1 .*python -m streams.broker starts one"):
        terminal.env["KAFKA_BOOTSTRAP_SERVERS"] = "127.0.0.1:1"
        terminal.up("grinder", "BTCUSDT", free_port(), 60)


def test_an_instance_has_a_feed_of_its_own_and_a_free_port_unless_they_are_said():
    got = run_live.own_market({"SLUICE_INSTANCE": "canary"})
    assert got["SLUICE_FEED"] == "canary" and int(got["SLUICE_EXCHANGE_PORT"])
    said = {"SLUICE_INSTANCE": "canary", "SLUICE_FEED": "x", "SLUICE_EXCHANGE_PORT": "7"}
    assert run_live.own_market(said) == said


def test_constructed_trips_win_as_often_as_is_wanted_in_each_half(tmp_path):
    from engine.fillprob.dataset import parts, roundtrips
    rows = roundtrips(fixture(ceremony.known_fills(tmp_path / "fills.json")))
    for half in parts(rows, 0.5):
        bins = FillModelV0.train(half).bins
        assert len(bins) == 10 and (bins["short|1|1|0"], bins["long|2|1|0"]) == (2450, 2950) and sorted(bins.values())[2:] == [6500] * 8


def test_a_command_that_ends_otherwise_than_the_runbook_says_stops_the_ceremony(terminal):
    assert terminal.type("echo ceremony") == "ceremony"
    with pytest.raises(Wrong, match=r"false: status 1, not 0"):
        terminal.type("false")
    terminal.check("the sky is green", False)
    assert terminal.wrong == ["the sky is green"] and "[WRONG] the sky is green" in (terminal.home / "transcript.md").read_text()


def test_an_unknown_phase_is_refused(capsys):
    with pytest.raises(SystemExit) as end:
        ceremony.main(["--phases", "enforce,nosuch"])
    assert end.value.code == 2 and "nosuch is none of" in capsys.readouterr().err
    assert os.environ.get("GRINDER_FILL_MODEL_ENFORCE") is None
