"""FillModelV0 and its evaluation: whole numbers, exact bytes, and figures that add up."""
import json
from itertools import pairwise

import pytest
from fills import MADE, T0, ceremony, trips
from hypothesis import given
from hypothesis import strategies as st

from engine.facts import BUY, SELL
from engine.fillprob import evaluation
from engine.fillprob.documents import sha256
from engine.fillprob.evaluation import evaluate, files, sweep
from engine.fillprob.model_v0 import HOLDING_MS, NOTIONAL, FillModelV0, bin_key, bucket, features, of, rate_bps, served


def judged(rows, model, **more):
    return evaluate(rows, model, "data", "model", "d" * 64, "m" * 64, MADE, **more)


@pytest.mark.parametrize("value, place", [(0, 0), (100, 0), (100.1, 1), (500, 1), (501, 2), (1000, 2), (5000, 3), (5000.01, 4)])
def test_a_notional_falls_into_the_bucket_whose_bound_it_does_not_exceed(value, place):
    assert bucket(value, NOTIONAL) == place


@pytest.mark.parametrize("ms, place", [(0, 0), (1000, 0), (1001, 1), (10_000, 1), (60_000, 2), (300_000, 3), (300_001, 4)])
def test_a_holding_time_falls_into_the_bucket_whose_bound_it_does_not_exceed(ms, place):
    assert bucket(ms, HOLDING_MS) == place


def test_there_are_150_bins_and_fills_are_counted_to_three():
    keys = {bin_key(features(d, n, f, h)) for d in ("long", "short") for n in (0, 200, 600, 2000, 9999) for f in range(6)
            for h in (0, 2000, 20_000, 90_000, 400_000)}
    assert len(keys) == 150


def test_a_model_is_these_bytes_and_its_manifest_pins_them():
    model = FillModelV0.train(trips(3, 2) + trips(2, 1, "300", SELL, held_ms=70_000))
    assert model.to_json().decode() == """{
  "bins": {
    "long|0|1|0": 6667,
    "short|1|1|3": 5000
  },
  "bucket_thresholds": {
    "holding_ms": [
      1000,
      10000,
      60000,
      300000
    ],
    "max_fill_count": 3,
    "notional": [
      100,
      500,
      1000,
      5000
    ]
  },
  "global_prior_bps": 6000,
  "n_train_rows": 5,
  "schema_version": "fill_model_v0"
}
"""
    assert json.loads(model.manifest(MADE)) == {
        "schema_version": "fill_model_v0", "model_file": "model.json", "created_at_utc": MADE, "n_train_rows": 5, "global_prior_bps": 6000,
        "n_bins": 2, "sha256": {"model.json": sha256(model.to_json())}}


def test_no_rows_make_a_model_that_knows_nothing():
    assert FillModelV0.train([]) == FillModelV0({}, 5000, 0)


def test_a_breakeven_is_no_win():
    from fills import fill

    from engine.fillprob.dataset import roundtrips
    assert FillModelV0.train(roundtrips([fill(1, BUY, "100", "1"), fill(2, SELL, "100", "1")])).global_prior_bps == 0


def test_an_unknown_bin_is_answered_by_the_prior_and_every_answer_lies_between_0_and_10000():
    model = FillModelV0({"long|0|1|0": 12_000, "short|0|1|0": -3}, 6000, 1)
    assert model.predict(served(BUY, 50)) == 10_000
    assert model.predict(served(SELL, 50)) == 0
    assert model.predict(served(SELL, 5000)) == 6000


def test_an_order_is_served_with_one_fill_and_no_holding_time():
    assert served(SELL, 700) == {"direction": "short", "notional_bucket": 2, "entry_fill_count": 1, "holding_ms_bucket": 0}


@given(st.integers(0, 10_000), st.integers(1, 10_000))
def test_rates_round_half_up(wins, total):
    wins = min(wins, total)
    exact = wins * 10_000 / total
    assert abs(rate_bps(wins, total) - exact) <= 0.5
    assert rate_bps(1, 20_000) == 1 and 0 <= rate_bps(wins, total) <= 10_000


CASES = st.lists(st.tuples(st.integers(0, 10_000), st.booleans()), max_size=60)


@given(CASES, st.floats(0.01, 20))
def test_at_every_threshold_the_four_counts_are_all_rows_and_recall_only_falls(cases, ratio):
    rows = sweep(cases, ratio)
    assert len(rows) == 101 and [r["threshold_bps"] for r in rows] == list(range(0, 10_001, 100))
    for row in rows:
        assert row["tp"] + row["fp"] + row["tn"] + row["fn"] == len(cases)
        assert row["tp"] == sum(won and p >= row["threshold_bps"] for p, won in cases)
        assert row["fn"] == sum(won and p < row["threshold_bps"] for p, won in cases)
        assert row["cost_score"] == row["tp"] + ratio * row["tn"]
    assert rows[0]["tp"] + rows[0]["fp"] == len(cases)
    assert all(a["recall_pct"] >= b["recall_pct"] for a, b in pairwise(rows))
    assert all(a["block_rate_pct"] <= b["block_rate_pct"] for a, b in pairwise(rows))
    best = evaluation.recommended(rows)
    scores = {r["threshold_bps"]: r["cost_score"] for r in rows}
    assert scores[best] == max(scores.values()) and all(scores[t] < scores[best] for t in scores if t < best)


@pytest.mark.parametrize("ratio, best", [(1 / 3, 2500), (1.0, 5000), (2.0, 6700), (3.0, 7500)])
def test_on_a_calibrated_spectrum_the_break_even_is_recommended(ratio, best):
    cases = [(p, k < p / 100) for p in range(0, 10_001, 100) for k in range(100)]
    got = evaluation.recommended(sweep(cases, ratio))
    assert got == best and abs(evaluation.break_even_bps(ratio) - got) < 100


@pytest.mark.parametrize("ratio", [0, -1, float("nan"), float("inf")])
def test_a_cost_ratio_that_is_none_is_refused(ratio):
    with pytest.raises(ValueError, match="cost_ratio must be positive"):
        judged([], FillModelV0({}, 5000, 0), cost_ratio=ratio)


def test_the_report_has_the_runbooks_figures_first_and_its_arrays_last():
    train, later = ceremony(None)
    report = judged(later, FillModelV0.train(train))
    assert list(report)[:5] == ["schema_version", "recommended_threshold_bps", "calibration_well_calibrated", "calibration_max_error_bps",
                                "n_rows"]
    assert list(report)[-2:] == ["calibration", "threshold_sweep"] and not any(isinstance(v, list) for v in list(report.values())[:-2])
    assert (report["recommended_threshold_bps"], report["calibration_max_error_bps"], report["n_rows"]) == (2500, 200, 100)
    assert report["calibration_well_calibrated"] is True and report["generated_at"] == MADE
    assert (report["n_wins"], report["n_losses"], report["n_breakeven"]) == (51, 49, 0)
    assert report["calibration"] == [
        {"bin_key": "long|0|1|0", "predicted_bps": 2450, "actual_bps": 2600, "n_samples": 50, "error_bps": 150},
        {"bin_key": "short|0|1|0", "predicted_bps": 7400, "actual_bps": 7600, "n_samples": 50, "error_bps": 200}]


def test_fractions_are_rounded_in_the_file_only_and_the_manifest_pins_it():
    report = judged(trips(3, 1), FillModelV0.train(trips(3, 1)))
    made = files(report)
    assert files(judged(trips(3, 1), FillModelV0.train(trips(3, 1)))) == made
    got = json.loads(made["eval_report.json"])
    assert got["threshold_sweep"][0]["precision_pct"] == 33.33 and report["threshold_sweep"][0]["precision_pct"] == 100 / 3
    assert json.loads(made["manifest.json"]) == {"schema_version": "fill_model_eval_v0",
                                                 "sha256": {"eval_report.json": sha256(made["eval_report.json"])}}


def test_an_error_of_500_bps_is_not_well_calibrated_and_one_of_499_is():
    rows = trips(2, 1)
    for prior, well in ((5500, False), (5499, True), (4501, True), (4500, False)):
        assert judged(rows, FillModelV0({}, prior, 1))["calibration_well_calibrated"] is well


def test_nothing_to_judge_is_a_report_of_nothing():
    report = judged([], FillModelV0({}, 5000, 0))
    assert (report["n_rows"], report["recommended_threshold_bps"], report["calibration"]) == (0, 0, [])
    assert report["as_served_coverage_pct"] == 0.0


def test_what_the_gate_cannot_know_is_judged_as_it_is_served():
    rows = trips(4, 3, held_ms=20_000) + trips(4, 1, held_ms=500, start=T0 + 10**12)
    model = FillModelV0.train(rows)
    report = judged(rows, model)
    assert {bin_key(of(r)) for r in rows} == {"long|0|1|2", "long|0|1|0"}
    assert report["as_served_coverage_pct"] == 100.0        # all are asked of the short-lived bin
    assert report["calibration_max_error_bps"] == 0 and report["as_served_max_error_bps"] == 2500
    assert judged(rows[:4], FillModelV0.train(rows[:4]))["as_served_coverage_pct"] == 0.0
