"""The scorer answers as the trained model does, row by row the same whatever its company; parity refuses what does not."""
import logging

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.scoring.calibration import fit_platt, platt
from engine.scoring.quality import average_precision, brier, ece, precision_recall
from store.export import ExportError, answer_of, floor32, floored, refuse_silently_wrong, to_onnx
from store.parity import ParityError, largest_difference, probes, require, thresholds
from store.registry import RegistryError, schema_hash_of
from store.scorer import Scorer
from tests.models import NAMES, booster, data, files, register

HASH = schema_hash_of(NAMES)


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    root = tmp_path_factory.mktemp("models")
    register(root, "m1", "active")
    return root


@pytest.fixture(scope="module")
def scorer(models) -> Scorer:
    return Scorer.load(models, "active", HASH)


def test_a_score_does_not_depend_on_the_rows_beside_it(scorer):
    x, _ = data(700, seed=5)
    together = scorer.score(x)
    for size in (1, 2, 3, 7, 64, 100, 255, 256, 257):
        apart = np.concatenate([scorer.score(x[at:at + size]) for at in range(0, len(x), size)])
        assert apart.tobytes() == together.tobytes(), f"in batches of {size}"


def test_the_exported_model_answers_as_the_trained_one_at_every_split(scorer):
    x, y = data(seed=0)
    trained = booster(x[:2000], y[:2000])
    worst, asked = largest_difference(trained, scorer.raw, x)
    assert asked == len(x) + 3 * len(thresholds(trained))
    assert worst <= 1e-6


def test_a_model_that_answers_differently_is_refused(scorer):
    x, y = data(seed=0)
    other = booster(x[:2000], 1 - y[:2000])
    with pytest.raises(ParityError, match="differs"):
        require(other, scorer.raw, x[:50])


def test_a_nan_answer_is_refused():
    x, y = data(500)
    with pytest.raises(ParityError):
        require(booster(x, y), lambda rows: np.full(len(rows), np.nan), x[:10])


def test_flooring_changes_no_answer_on_float32_rows():
    x, y = data(seed=3)
    trained = booster(x, y)
    rows = np.concatenate([x, probes(trained, x)]).astype(np.float64)
    assert np.array_equal(floored(trained).predict(rows), trained.predict(rows))


def test_values_next_to_zero_are_zero_in_the_exported_model_as_in_the_trained_one(tmp_path):
    rng = np.random.default_rng(0)
    x = np.where(rng.random((4000, 3)) < 0.5, 0, rng.standard_normal((4000, 3))).astype(np.float32)
    trained = booster(x, ((x[:, 0] < 0) ^ (rng.random(4000) < 0.2)) | (x[:, 1] > 0))
    assert any(t == pytest.approx(-1e-35) for _, t in thresholds(trained))
    answer = answer_of(to_onnx(floored(trained), {}))
    tiny = np.repeat(x[:200], 5, 0)
    tiny[:, 0] = np.tile(np.array([-1e-35, 1e-35, -5e-36, 1e-40, 0], np.float32), 200)
    assert largest_difference(trained, answer, tiny)[0] <= 1e-6


@given(st.lists(st.floats(-1e30, 1e30), min_size=1, max_size=20))
def test_floor32_is_the_greatest_float32_not_above(values):
    v = np.array(values)
    low = floor32(v)
    assert (low <= v).all()
    assert (np.nextafter(low.astype(np.float32), np.float32(np.inf)).astype(np.float64) > v).all()


@pytest.mark.parametrize("params", [{"linear_tree": True}, {"boosting": "rf"}, {"zero_as_missing": True}, {"sigmoid": 2.0}])
def test_parameters_that_convert_silently_wrong_are_refused(params):
    with pytest.raises(ExportError, match=next(iter(params))):
        refuse_silently_wrong(params)


def test_the_calibrated_score_is_platts_sigmoid_of_the_raw_one(scorer):
    x, _ = data(20, seed=9)
    c = scorer.meta["calibration"]
    assert np.array_equal(scorer.score(x), platt(scorer.raw(x), c["w"], c["b"]))
    assert scorer.model_id == "m1"
    assert scorer.tau_entry == 0.6
    assert scorer.score(x[:0]).shape == (0,)


def test_rows_of_another_width_are_refused(scorer):
    with pytest.raises(ValueError, match="6 features"):
        scorer.score(np.zeros((2, 5), np.float32))


def test_an_empty_slot_gives_no_scorer(models):
    assert Scorer.load(models, "shadow", HASH) is None


def test_another_schema_is_fatal_when_active_and_only_a_warning_in_shadow(tmp_path, caplog):
    register(tmp_path, "m1", "active")
    register(tmp_path, "m2", "shadow")
    with pytest.raises(RegistryError, match="other features"):
        Scorer.load(tmp_path, "active", "f" * 64)
    with caplog.at_level(logging.WARNING):
        assert Scorer.load(tmp_path, "shadow", "f" * 64) is None
    assert "shadow scoring is off" in caplog.text


def test_an_onnx_of_another_width_than_its_names_is_refused(tmp_path):
    folder = register(tmp_path, "m1")
    narrow = files("m1", names=NAMES[:4])["model.onnx"]
    import onnx
    model = onnx.load_model_from_string(narrow)
    onnx.helper.set_model_props(model, {p.key: p.value for p in onnx.load(str(folder / "model.onnx")).metadata_props})
    (folder / "model.onnx").write_bytes(model.SerializeToString())
    with pytest.raises(RegistryError, match="takes 4 features"):
        Scorer(folder)


def test_platt_undoes_a_known_distortion():
    rng = np.random.default_rng(0)
    p = rng.uniform(0.02, 0.98, 40_000)
    y = rng.random(len(p)) < platt(p, 0.5, -1.0)
    w, b = fit_platt(p, y)
    assert (w, b) == pytest.approx((0.5, -1.0), abs=0.05)
    assert ece(platt(p, w, b), y) < 0.02 < ece(p, y)


def test_platt_is_finite_on_separable_data_and_refuses_one_sided_ones():
    w, b = fit_platt(np.array([0.1, 0.2, 0.8, 0.9] * 10), np.array([0, 0, 1, 1] * 10))
    assert np.isfinite([w, b]).all()
    with pytest.raises(ValueError, match="both outcomes"):
        fit_platt(np.array([0.1, 0.2]), np.array([1, 1]))


@given(st.lists(st.tuples(st.integers(0, 10), st.booleans()), min_size=1, max_size=60))
def test_measures_stay_within_their_bounds_and_ties_stand_together(rows):
    p, y = np.array([a / 10 for a, _ in rows]), np.array([b for _, b in rows])
    assert 0 <= brier(p, y) <= 1
    assert 0 <= ece(p, y) <= 1
    assert precision_recall(p, y, 0.0)["recall"] in (0, 1) or not y.any()
    if y.any():
        turned = average_precision(p[::-1], y[::-1])
        assert average_precision(p, y) == pytest.approx(turned)
        assert average_precision(np.ones(len(y)), y) == pytest.approx(y.mean())
