"""The stages of S0's rollout, checked as an operator checks them."""
import doctest

import pytest

from config.settings import ROOT, load
from scripts import validate_stage

NAMES = ("FEATURE_FLOW_CAP_REWRITE", "FEATURE_CONSTRAINED_RISK_SCALING", "FEATURE_ORDER_ID_REWARD_MATCHING")
SHADOW = str(ROOT / "config" / "shadow.yaml")


@pytest.fixture(autouse=True)
def no_switch_from_outside(monkeypatch):
    for name in NAMES:
        monkeypatch.delenv(name, raising=False)


def switch(monkeypatch, digits: str):
    for name, digit in zip(NAMES, digits, strict=True):
        monkeypatch.setenv(name, "yes" if digit == "1" else "off")


@pytest.mark.parametrize("said, digits", [*validate_stage.STAGES.items(), *((d, d) for d in validate_stage.SEQUENCE)])
def test_the_loaded_switches_are_that_stage_and_no_other(said, digits, monkeypatch, capsys):
    for have in ("000", "100", "110", "111", "010", "001"):
        switch(monkeypatch, have)
        assert validate_stage.main([said]) == int(have != digits)
        told = capsys.readouterr()
        assert told.err.count(", true was expected") + told.err.count(", false was expected") == sum(a != b for a, b in zip(have, digits))
        assert have == digits or f"switches are {have}" in told.err


def test_what_differs_is_named_with_its_variable(monkeypatch, capsys):
    switch(monkeypatch, "010")
    assert validate_stage.main(["2"]) == 1
    told = capsys.readouterr().err
    assert "no stage of the sequence 000 → 100 → 110 → 111" in told
    assert "features.flowCapRewrite (FEATURE_FLOW_CAP_REWRITE) is false, true was expected" in told
    assert "features.constrainedRiskScaling (FEATURE_CONSTRAINED_RISK_SCALING) is true, false was expected" in told
    assert "orderId" not in told


def test_as_shipped_the_desk_is_at_the_last_stage_and_the_shadow_file_at_the_first(capsys):
    assert validate_stage.main(["4"]) == 0 and validate_stage.main(["1", "--config", SHADOW]) == 0
    assert capsys.readouterr().out == "stage 4: switches are 111\nstage 1: switches are 000\n"


def test_the_shadow_file_changes_the_three_switches_and_nothing_else():
    import msgspec
    shadow, shipped = load(SHADOW, env={}), load(env={})
    assert msgspec.structs.replace(shadow, features=shipped.features) == shipped
    assert load(SHADOW, env={NAMES[0]: "true"}).features.flowCapRewrite, "the environment goes on with the rollout"


def test_a_stage_that_is_none_is_refused_with_those_that_are(capsys):
    with pytest.raises(SystemExit) as left:
        validate_stage.main(["5"])
    assert left.value.code == 2 and "one of 0, 1, 2, 3, 4 or 000, 100, 110, 111 was expected" in capsys.readouterr().err


def test_a_configuration_that_cannot_be_meant_is_no_stage(monkeypatch, capsys):
    monkeypatch.setenv(NAMES[0], "perhaps")
    assert validate_stage.main(["4"]) == 1
    assert "features.flowCapRewrite: 'perhaps' is not true or false" in capsys.readouterr().err


def test_the_examples_in_the_docstrings_run():
    got = doctest.testmod(validate_stage)
    assert got.attempted and not got.failed
