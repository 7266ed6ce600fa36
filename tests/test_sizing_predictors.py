"""What is expected of an order before it is sent: against closed forms, against simulation, and against what can never be."""

import doctest
from math import erfc, inf, isnan, nan, sqrt

import msgspec
import numpy as np
import pytest
from builders import shipped
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from engine.scoring.features import FEATURES
from engine.sizing import fill, predictors
from engine.sizing.fill import COLUMNS, FittedCurve, Formula, fit, s1_fill
from engine.sizing.predictors import Depth, Diffusion, Moment, Predictors, Walk, beyond_t, levels, moment
from engine.sizing.risk import Predicted

TAIL = shipped().sizing.tail
NOW = Moment(sigma_bps=2.0, own_depth=0.0, queue=0.5, qi=0.5, depth=0.5, spread_bps=0.2, gap_bps=0.1)
replace = msgspec.structs.replace
share = st.floats(0, 1)
moments = st.builds(Moment, st.floats(0, 100), st.floats(-5, 5), share, share, share, st.floats(0, 50), st.floats(0, 10))


# the moment

def features(**values: float) -> bytes:
    row = np.zeros(len(FEATURES), np.float32)
    for name, value in values.items():
        row[FEATURES.index(name)] = value
    return row.tobytes()


def test_a_moment_is_what_the_features_say_of_the_orders_own_side():
    row = features(sigma=2.5, depth_bids=-1.0, depth_asks=0.5, touch_bids=0.0, touch_asks=np.log(3.0), qi=0.5, depth_imbalance=-0.25,
                   spread=0.5, gap_bids=0.125, gap_asks=0.25)
    assert moment(row, 1) == Moment(2.5, -1.0, 0.5, 0.25, 0.625, 0.5, 0.125)
    sell = moment(row, -1)
    assert (sell.own_depth, sell.qi, sell.depth, sell.gap_bps) == (0.5, 0.75, 0.375, 0.25) and sell.queue == pytest.approx(0.75)


def test_features_of_another_schema_are_no_moment_and_predict_nothing():
    assert moment(b"", 1) is None and moment(features()[4:], 1) is None
    assert Predictors(Diffusion(TAIL), Formula(), Walk()).of(None, 12.0, 30_000, 0.0, 0.0, 1.0, 9.0, 3) == Predicted()


# tail risk

@given(st.floats(0, 50), st.integers(1, 30))
def test_the_tail_is_students(t, degrees):
    assert beyond_t(t, degrees) == pytest.approx(2 * stats.t.sf(t, degrees), abs=1e-8)     # SciPy's is no nearer at 0


@given(moments, st.floats(0.1, 200), st.integers(1, 600_000))
def test_tail_risk_is_a_probability_that_rises_with_volatility_time_and_thinness_and_falls_with_the_distance(now, stop, holding):
    tail = Diffusion(TAIL)
    p = tail.p(now, stop, holding)
    assert 0 <= p <= 1
    assert tail.p(replace(now, sigma_bps=now.sigma_bps * 1.5), stop, holding) >= p
    assert tail.p(now, stop, holding * 2) >= p
    assert tail.p(replace(now, own_depth=now.own_depth - 0.5), stop, holding) >= p
    assert tail.p(now, stop * 1.5, holding) <= p


def test_many_degrees_and_a_unit_of_volatility_are_the_reflection_principle():
    normal = replace(TAIL, degrees=60, scale=1.0, floorBps=0.0, thinWeight=0.0)
    reach = 2.0 * sqrt(3.0)     # two bps of ten seconds, over thirty
    for stop in (1.0, 3.0, 6.0):
        assert Diffusion(normal).p(NOW, stop, 30_000) == pytest.approx(erfc(stop / reach / sqrt(2)), abs=0.01)


def test_simulated_walks_touch_a_distance_as_often_as_said():
    steps = np.random.default_rng(7).normal(0, 2.0 / sqrt(100), (5_000, 300))      # of a tenth of a second
    lowest = np.minimum.accumulate(np.cumsum(steps, 1), 1)[:, -1]
    normal = Diffusion(replace(TAIL, degrees=60, scale=1.0, floorBps=0.0))
    for stop in (2.0, 4.0, 8.0):
        assert np.mean(lowest <= -stop) == pytest.approx(normal.p(NOW, stop, 30_000), abs=0.04)


def test_fewer_degrees_are_fatter_tails():
    far = [Diffusion(replace(TAIL, degrees=d)).p(NOW, 12.0, 30_000) for d in (3, 6, 30)]
    assert far == sorted(far, reverse=True) and far[0] > 10 * far[2]


def test_a_quiet_minute_is_not_taken_for_a_market_without_risk():
    assert Diffusion(TAIL).p(replace(NOW, sigma_bps=0.0), 12.0, 30_000) > 0
    assert Diffusion(replace(TAIL, floorBps=0.0)).p(replace(NOW, sigma_bps=0.0), 12.0, 30_000) == 0


@pytest.mark.parametrize("now, stop", [(replace(NOW, sigma_bps=nan), 12.0), (replace(NOW, own_depth=inf), 12.0), (NOW, nan)])
def test_what_is_no_number_predicts_none(now, stop):
    assert isnan(Diffusion(TAIL).p(now, stop, 30_000))


def test_a_stop_at_the_entry_is_touched():
    assert Diffusion(TAIL).p(NOW, 0.0, 30_000) == 1.0


# slippage

def test_the_visible_levels_are_taken_one_after_the_other():
    depth = Depth((1.0, 2.0, 4.0), (10.0, 10.0, 20.0))
    assert Walk().of(5.0, depth) == (1.0, False)
    assert Walk().of(20.0, depth) == (1.5, False)
    assert Walk().of(40.0, depth) == ((10 + 20 + 80) / 40, False)


def test_beyond_what_is_visible_the_side_goes_on_as_dense_and_the_answer_says_so():
    slip = Walk().of(40.0, Depth((1.0, 2.0, 4.0), (10.0, 10.0, 0.0)))
    assert slip.beyond and slip.bps == pytest.approx((10 + 20 + 20 * (4 + 0.5 * 4)) / 40)     # twenty lots span four bps: the next, 4 to 8


@pytest.mark.parametrize("lots, near", [(1.0, 0.0), (nan, 9.0), (-1.0, 9.0)])
def test_without_a_book_slippage_is_not_known(lots, near):
    slip = Walk().of(lots, levels(near, 3, 1.0, 1.0))
    assert isnan(slip.bps) and slip.beyond


@given(st.floats(1e-3, 1e4), st.floats(0, 1e4), st.floats(0.1, 1e4), st.floats(0, 20), st.floats(0, 5))
def test_slippage_rises_with_the_lots_from_half_the_spread_on(lots, more, near, spread, gap):
    depth = levels(near, 3, spread, gap)
    small, large = Walk().of(lots, depth), Walk().of(lots + more, depth)
    assert small.bps >= 0.5 * spread - 1e-9
    assert large.bps >= small.bps * (1 - 1e-9) - 1e-9
    assert small.beyond == (lots > near) or abs(lots - near) < 1e-6 * near


# fill probability

@given(share, share, share, st.floats(0, 10), st.floats(0, 10))
def test_s1s_formula_stays_within_its_clamps_and_fades_by_the_level(queue, qi, depth, level, spread):
    p = s1_fill(queue, qi, depth, level, spread)
    assert 0.05 <= p <= 0.95
    assert s1_fill(queue, qi, depth, level + 1, spread) <= p
    assert s1_fill(queue, qi, depth, level, spread + 1) <= p


@pytest.mark.parametrize("args, p", [
    ((1, 0, 0, 0, 0), 0.3), ((0, 0, 0, 0, 0), 0.65), ((1, 1, 0, 0, 0), 0.55), ((1, 0, 1, 0, 0), 0.5), ((1, 0, 0, 0, 1), 0.25),
    ((0.5, 0.5, 0.5, 0, 0), 0.7), ((1, 0, 0, 1, 0), 0.3 * 0.7046880897187134),
])
def test_each_part_of_s1s_formula_has_its_weight(args, p):
    assert s1_fill(*args) == pytest.approx(p)
    queue, qi, depth, level, spread = args
    assert Formula().p(replace(NOW, queue=queue, qi=qi, depth=depth, spread_bps=spread), level) == pytest.approx(p)


def paper(seed: int, n: int, weights=(-1.0, 1.5, 0.5, -0.8, -0.3), intercept=0.2, distances=(0.0, 0.5, 1.0, 2.0)):
    """Rows and fills of a market whose curve is known."""
    rng = np.random.default_rng(seed)
    rows = np.column_stack([rng.random(n), rng.random(n), rng.random(n), rng.choice(distances, n), rng.exponential(1.0, n)])
    return rows, (rng.random(n) < 1 / (1 + np.exp(-(intercept + rows @ np.array(weights))))).astype(float)


def test_a_known_curve_is_found_again_and_what_it_says_is_what_happens():
    got = fit(*paper(1, 40_000))
    assert got.intercept == pytest.approx(0.2, abs=0.1)
    assert got.weights == pytest.approx([-1.0, 1.5, 0.5, -0.8, -0.3], abs=0.1)
    rows, filled = paper(2, 20_000)
    curve = FittedCurve(got)
    p = np.array([curve.p(Moment(2.0, 0.0, q, qi, d, s, 0.1), 2.0, dist / 2) for q, qi, d, dist, s in rows[:4000]])
    for low, high in ((0, 0.2), (0.2, 0.4), (0.4, 0.6), (0.6, 1)):
        some = (p >= low) & (p < high)
        assert np.mean(filled[:4000][some]) == pytest.approx(np.mean(p[some]), abs=0.06)


def test_equal_rows_give_equal_parameters_and_they_survive_json():
    one, two = fit(*paper(3, 2000)), fit(*paper(3, 2000))
    assert one == two
    assert msgspec.json.decode(msgspec.json.encode(one), type=fill.FillParameters) == one


@given(st.integers(0, 50), moments, st.floats(0, 5), st.floats(0, 5))
def test_a_fitted_curve_never_rises_with_distance_or_queue_whatever_it_was_fitted_to(seed, now, level, more):
    rng = np.random.default_rng(seed)
    upside_down = paper(seed, 300, weights=rng.normal((2, 0, 0, 2, 0), 2))
    curve = FittedCurve(fit(*upside_down))
    p = curve.p(now, level, 0.7)
    assert 0 <= p <= 1
    assert curve.p(now, level + more, 0.7) <= p + 1e-12
    assert curve.p(replace(now, queue=min(1.0, now.queue + 0.3)), level, 0.7) <= p + 1e-12
    assert curve.p(now, -more, 0.7) == curve.p(now, 0.0, 0.7), "inside the spread as at the touch"


def test_rows_of_one_distance_leave_the_fading_to_s1():
    curve = FittedCurve(fit(*paper(4, 2000, distances=(0.0,))))
    assert curve.parameters.weights[COLUMNS.index("distance_bps")] == 0 and curve.parameters.fades == 0.35
    assert curve.p(NOW, 1.0, 0.5) == pytest.approx(curve.p(NOW, 0.0, 0.5) * np.exp(-0.35))


def test_the_table_of_deciles_is_s1s():
    rows, filled = paper(5, 1000)
    table = fit(rows, filled).deciles
    assert [d.count for d in table] == [100] * 10 and sum(d.fill_probability for d in table) / 10 == pytest.approx(filled.mean())
    assert table[-1].queue_upto == rows[:, 0].max() and [d.queue_upto for d in table] == sorted(d.queue_upto for d in table)
    first = np.argsort(rows[:, 0])[:100]
    assert table[0].fill_probability == filled[first].mean() and table[0].avg_depth == pytest.approx(rows[first, 2].mean())
    assert table[0].fill_probability > table[-1].fill_probability


@pytest.mark.parametrize("rows, filled, words", [
    (np.zeros((3, 4)), np.zeros(3), "of shape (3, 4)"), (np.full((3, 5), nan), np.array([0, 1, 0]), "finite"),
    (np.zeros((3, 5)), np.array([0, 2, 0]), "0 or 1"), (np.zeros((3, 5)), np.ones(3), "need both outcomes: 3 of 3"),
])
def test_rows_that_say_nothing_are_refused(rows, filled, words):
    with pytest.raises(ValueError) as caught:
        fit(rows, filled)
    assert words in str(caught.value)


def test_a_curve_of_other_columns_is_refused():
    got = fit(*paper(6, 500))
    with pytest.raises(ValueError, match="expected queue, qi, depth, distance_bps, spread_bps"):
        FittedCurve(msgspec.structs.replace(got, columns=["queue"]))


def test_a_moment_that_is_no_number_has_no_fill_probability():
    assert isnan(FittedCurve(fit(*paper(6, 500))).p(replace(NOW, qi=nan), 0.0))


def test_the_three_ports_together_are_what_risk_looks_at():
    got = Predictors(Diffusion(TAIL), Formula(), Walk()).of(NOW, 12.0, 30_000, 0.0, 0.0, 6.0, 9.0, 3)
    assert got == (Diffusion(TAIL).p(NOW, 12.0, 30_000), Formula().p(NOW, 0.0), pytest.approx(0.15), False)


def test_the_examples_in_the_docstrings_run():
    from engine.sizing import caps, size
    for module in (predictors, fill, caps, size):
        got = doctest.testmod(module)
        assert got.attempted and not got.failed
