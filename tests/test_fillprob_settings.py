"""S2's variables: one reading of yes, no and numbers, and no value that keeps a desk from starting."""
import pytest

from config.settings import ConfigError, load

PREFIX = "GRINDER_FILL_"


@pytest.mark.parametrize("word", ["1", "true", "YES", "On", " on "])
def test_a_yes_in_any_case_is_one(word):
    assert load(env={PREFIX + "MODEL_ENFORCE": word}).fill_prob.enforce is True


@pytest.mark.parametrize("word", ["0", "false", "NO", "off", ""])
def test_a_no_in_any_case_is_one_and_so_is_an_empty_word(word):
    assert load(env={PREFIX + "MODEL_ENFORCE": word}).fill_prob.enforce is False


def test_a_word_that_is_neither_is_told_and_the_default_taken(caplog):
    assert load(env={PREFIX + "MODEL_ENFORCE": "maybe"}).fill_prob.enforce is False
    assert "GRINDER_FILL_MODEL_ENFORCE: 'maybe' is not true or false (true/false, 1/0, yes/no, on/off); False is taken" in caplog.text


@pytest.mark.parametrize("name, text, key, value", [
    ("PROB_MIN_BPS", "0", "min_bps", 0), ("PROB_MIN_BPS", "-5", "min_bps", 0), ("PROB_MIN_BPS", "12000", "min_bps", 10_000),
    ("PROB_MIN_BPS", "many", "min_bps", 2500), ("PROB_MIN_BPS", "2.5", "min_bps", 2500),
    ("PROB_CB_WINDOW_SECONDS", "0", "cb_window_seconds", 1),
    ("PROB_CB_MAX_BLOCK_RATE_PCT", "250", "cb_max_block_rate_pct", 100), ("PROB_CB_MIN_SAMPLES", "0", "cb_min_samples", 1),
])
def test_a_number_is_taken_to_its_nearest_bound_and_no_number_is_the_default(name, text, key, value):
    assert getattr(load(env={PREFIX + name: text}).fill_prob, key) == value


def test_a_file_is_held_to_what_it_says(tmp_path):
    (tmp_path / "wrong.yaml").write_text("fill_prob: {min_bps: 12000, enforce: maybe}\n")
    with pytest.raises(ConfigError) as refused:
        load(tmp_path / "wrong.yaml", env={})
    assert len(refused.value.faults) == 2


def test_by_default_all_of_it_is_off():
    s = load(env={}).fill_prob
    assert (s.enforce, s.auto_threshold, s.evidence, s.min_bps) == (False, False, False, 2500)
    assert (s.model_dir, s.eval_dir, s.artifact_dir, s.eval_max_age_hours, s.enforce_symbols) == ("", "", "", "", [])
    assert (s.cb_window_seconds, s.cb_max_block_rate_pct, s.cb_min_samples) == (300, 50, 20)
