"""Configuration: what can be meant is read, what cannot is named with file, key, value and expectation."""
import typing
from pathlib import Path

import msgspec
import pytest
import yaml
from hypothesis import HealthCheck, given
from hypothesis import settings as runs
from hypothesis import strategies as st

from alerts import build
from alerts.catalogue import catalogue
from config.sense import ABSENT, ALERTS
from config.settings import ALIASES, DEFAULT, ConfigError, Settings, expand, fingerprint, load
from config.where import said, variables

QUICK = runs(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def faults(text: str, tmp_path: Path, env: dict[str, str] | None = None) -> list[str]:
    """What `load` says about an override with that text."""
    path = tmp_path / "override.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError) as caught:
        load(path, env=env or {})
    assert caught.value.code, "a refused configuration ends a process with an error"
    return caught.value.faults


def test_the_defaults_are_sound_and_complete():
    settings = load(env={})
    written = yaml.safe_load(DEFAULT.read_text())
    assert set(written) | {"symbols", "market", "curve", "fill_model"} == set(msgspec.to_builtins(settings))
    for symbol in settings.exchange.symbols:
        assert settings.instrument(symbol).tick > 0


def test_every_number_has_its_why_or_its_name_beside_it():
    names = variables()
    assert len(set(names.values())) == len(names), "one variable moves one key"
    assert said("kafka.port") == "kafka.port (SLUICE_KAFKA_PORT)" and said("kafka.heap") == "kafka.heap"


@pytest.mark.parametrize("text, words", [
    ("policy: {min_confidense: 0.5}", "policy.min_confidense: unknown key; did you mean min_confidence?"),
    ("polcy: {}", "polcy: unknown key; did you mean policy?"),
    ("policy: {zzz: 1}", "policy.zzz: unknown key; known are allow_scale_in"),
    ("policy: {min_confidence: 1.7}", "policy.min_confidence: 1.7 is not between 0 and 1"),
    ("policy: {min_confidence: high}", "policy.min_confidence: 'high' is not a finite number"),
    ("policy: {min_confidence: .nan}", "policy.min_confidence: nan is not a finite number"),
    ("policy: {min_confidence: true}", "policy.min_confidence: True is not a finite number"),
    ("policy: {max_open_positions_total: 2.5}", "policy.max_open_positions_total: 2.5 is not a whole number"),
    ("policy: {max_open_positions_total: -1}", "policy.max_open_positions_total: -1 is not at least 0"),
    ("policy: {allow_scale_in: maybe}", "policy.allow_scale_in: 'maybe' is not true or false"),
    ("policy: {allow_scale_in: 2}", "policy.allow_scale_in: 2 is not true or false"),
    ("policy: 7", "policy: a section was expected, not 7"),
    ("venue: {mode: shadow}", "venue.mode: 'shadow' is not one of paper, real"),
    ("kafka: {port: 70000}", "kafka.port: 70000 is not between 0 and 65535"),
    ("exchange: {symbols: {BTCUSDT: 1}}", "exchange.symbols: a list was expected"),
    ("desk: {equity_usd: 0}", "desk.equity_usd: 0.0 is not above 0"),
    ("bandit: {arm: o9-s100-p20}", "bandit.arm: 'o9-s100-p20' is not one of bandit.arms (o0-s100-p20,"),
    ("desk: {max_holding_ms: 300000}", "rewards.pending_expiry_ms: 120000 is not above desk.entry_ttl_ms + desk.max_holding_ms (320000)"),
    ("sizing: {collateral: {symbol: USDTUSD}}", "sizing.collateral.symbol: 'USDTUSD' is not one of exchange.symbols (BTCUSDT, "),
    ("symbols: {BTCUSDT: {tick: -1}}", "symbols.BTCUSDT.tick: -1.0 is not above 0"),
])
def test_each_fault_is_named_with_file_key_value_and_expectation(text: str, words: str, tmp_path: Path):
    [fault] = faults(text, tmp_path)
    assert words in fault and str(tmp_path / "override.yaml") in fault


def test_all_faults_are_told_at_once(tmp_path: Path):
    told = faults("policy: {min_confidence: 2, nope: 1}\nkafka: {port: -1}", tmp_path)
    assert len(told) == 3


@pytest.mark.parametrize("text, words", [("policy: [1", "not YAML"), ("- a list", "a mapping of keys was expected, not list")])
def test_a_file_that_is_no_mapping_is_refused_with_its_name(text: str, words: str, tmp_path: Path):
    [fault] = faults(text, tmp_path)
    assert words in fault and "override.yaml" in fault


def test_a_file_that_is_not_there_is_named(tmp_path: Path):
    with pytest.raises(ConfigError, match=r"nowhere\.yaml: cannot be read"):
        load(tmp_path / "nowhere.yaml", env={})


def test_an_empty_override_changes_nothing(tmp_path: Path):
    (tmp_path / "empty.yaml").write_text("# nothing\n")
    assert load(tmp_path / "empty.yaml", env={}) == load(env={})


@pytest.mark.parametrize("word, meant", [(w, True) for w in ("true", "1", "yes", "on", "TRUE", "Yes", " on ")]
                         + [(w, False) for w in ("false", "0", "no", "off", "FALSE", "No", "Off")])
def test_a_boolean_may_be_said_in_any_of_its_words(word: str, meant: bool):
    assert load(env={"POLICY_ALLOW_SCALE_IN": word}).policy.allow_scale_in is meant


def test_the_environment_wins_over_files_and_an_empty_variable_is_unset(tmp_path: Path):
    (tmp_path / "a.yaml").write_text("kafka: {port: '${SLUICE_KAFKA_PORT:-1111}'}")
    (tmp_path / "b.yaml").write_text("frames: {max_ms: 3}")
    got = load(tmp_path / "a.yaml", tmp_path / "b.yaml", env={"SLUICE_KAFKA_PORT": ""})
    assert (got.kafka.port, got.frames.max_ms) == (1111, 3)
    assert load(tmp_path / "a.yaml", env={"SLUICE_KAFKA_PORT": "2222"}).kafka.port == 2222


@pytest.mark.parametrize("old, new", sorted(ALIASES.items()))
def test_a_name_of_another_time_is_read_as_ours(old: tuple[str, str], new: tuple[str, ...], tmp_path: Path):
    at: typing.Any = msgspec.to_builtins(load(env={}))
    for step in new:
        at = at[step]
    (tmp_path / "old.yaml").write_text(yaml.safe_dump({old[0]: {old[1]: at}}))
    assert load(tmp_path / "old.yaml", env={}) == load(env={})


def test_the_same_key_said_twice_with_two_values_is_refused(tmp_path: Path):
    [fault] = faults("exchange: {mode: real}\nvenue: {mode: paper}", tmp_path)
    assert "exchange.mode: 'real' contradicts venue.mode: 'paper'" in fault


@pytest.mark.parametrize("text, line, key, both", [
    ("sizing: {leverage: 10, leverage: 20}", 1, "sizing.leverage", "10 and 20"),
    ("policy:\n  min_confidence: 0.7\ngates:\n  slippage: {}\npolicy: {}", 5, "policy", "a section and a section"),
    ("policy:\n  min_confidence: 0.7\n  min_confidence: 0.7", 3, "policy.min_confidence", "0.7 and 0.7"),
])
def test_a_key_that_one_file_says_twice_is_refused_and_not_the_last_taken(text, line, key, both, tmp_path: Path):
    assert f"{tmp_path / 'override.yaml'}: line {line}: {key}: said twice, {both}; once was expected" in faults(text, tmp_path)


SENSELESS = [
    ("controls", "not_tradable", "BTCUSDT,BTCSUDT", "'BTCSUDT' is not in config/symbols.yaml", "SLUICE_NOT_TRADABLE"),
    ("fail_safe", "alerts", "OrphanOrders,OrphanOrder", "'OrphanOrder' is no alert; known are", ""),
    ("ladder", "fractions", "0,0", "0.0,0.0: one to 4 shares above 0 were expected, 1 in all", ""),
    ("ladder", "fractions", "0.9,0.9", "0.9,0.9: one to 4 shares", ""), ("ladder", "fractions", "0.5,0.4", "0.5,0.4: one to 4 shares", ""),
    ("ladder", "fractions", "1,0", "1.0,0.0: one to 4 shares", ""),
    ("fail_safe", "prometheus_url", "127.0.0.1:9090", "'127.0.0.1:9090' is no address of the form http://", "SLUICE_PROMETHEUS_URL"),
    ("fail_safe", "prometheus_url", "http://", "'http://' is no address", "SLUICE_PROMETHEUS_URL"),
    ("fail_safe", "prometheus_url", "file:///etc/passwd", "is no address", "SLUICE_PROMETHEUS_URL"),
]


@pytest.mark.parametrize("section, key, value, words, variable", SENSELESS)
def test_what_cannot_be_meant_is_refused_with_its_file_or_its_variable(section, key, value, words, variable, tmp_path):
    [fault] = faults(yaml.safe_dump({section: {key: value}}), tmp_path)
    assert fault.startswith(f"{tmp_path / 'override.yaml'}: {section}.{key}: ") and words in fault
    if variable:
        with pytest.raises(ConfigError) as caught:
            load(env={variable: value})
        [fault] = caught.value.faults
        assert fault.startswith(f"{variable}: {section}.{key}: ") and words in fault


def test_a_value_of_the_wrong_kind_that_a_variable_gave_names_the_variable():
    with pytest.raises(ConfigError) as caught:
        load(env={"SLUICE_KAFKA_PORT": "soon", "SPEED": "fast"})
    assert caught.value.faults == ["SLUICE_KAFKA_PORT: kafka.port: 'soon' is not a whole number"]


def test_the_alerts_that_settings_may_name_are_those_of_the_catalogue():
    assert sorted(ALERTS) == sorted(alert.name for alert in catalogue(load(env={}))) and ABSENT == build.ABSENT


def test_a_symbol_that_is_not_described_is_named_with_those_that_are():
    with pytest.raises(ConfigError, match=r"symbols.NOPE: not in config/symbols.yaml, which has .*BTCUSDT"):
        load(env={}).instrument("NOPE")


@QUICK
@given(st.floats(0, 1), st.integers(0, 10**6), st.booleans(), st.integers(0, 65535))
def test_what_is_written_is_what_is_read(tmp_path: Path, confidence: float, positions: int, scale: bool, port: int):
    policy = {"min_confidence": confidence, "max_open_positions_total": positions, "allow_scale_in": scale}
    (tmp_path / "some.yaml").write_text(yaml.safe_dump({"policy": policy, "kafka": {"port": port}}))
    got = load(tmp_path / "some.yaml", env={})
    assert (got.policy.min_confidence, got.policy.max_open_positions_total, got.policy.allow_scale_in) == (confidence, positions, scale)
    assert got.kafka.port == port


@QUICK
@given(st.data())
def test_settings_survive_being_written_out_and_read_back(tmp_path: Path, data: st.DataObject):
    tree = msgspec.to_builtins(load(env={}))
    section = data.draw(st.sampled_from(sorted(k for k, v in tree.items() if isinstance(v, dict) and k != "symbols")))
    (tmp_path / "whole.yaml").write_text(yaml.safe_dump({section: tree[section]}))
    again = load(tmp_path / "whole.yaml", env={})
    assert again == load(env={}) and fingerprint(again) == fingerprint(load(env={}))


@QUICK
@given(st.sampled_from(["A", "SLUICE_X", "Z_9_"]), st.text("abc123./:-", max_size=12), st.text("abc123./:", min_size=1, max_size=12))
def test_a_variable_is_replaced_or_its_default_stands(name: str, default: str, value: str):
    text = f"${{{name}:-{default}}}"
    assert expand(text, {}) == default and expand(text, {name: value}) == value and expand(text, {name: ""}) == default


def test_two_settings_differ_in_their_fingerprint_when_one_number_does():
    assert fingerprint(load(env={}).policy) != fingerprint(load(env={"POLICY_MIN_CONFIDENCE": "0.71"}).policy)
    assert isinstance(load(env={}), Settings)
