"""The predictors as shipped, on a recorded day that none of their numbers was fitted to."""
import numpy as np
import pytest
from scipy.stats import rankdata

from config.settings import load
from engine.facts import BOOK
from engine.scoring import labels
from engine.scoring.signals import SignalEngine
from engine.sizing.fill import COLUMNS, FittedCurve, Formula, fit
from engine.sizing.predictors import Diffusion, moment
from tests.markets import standx

pytestmark = pytest.mark.recorded
S = load(env={})
BTC = S.instrument("BTCUSD")
EVERY = 25      # of the candidates, which come four times a second
DISTANCES_BPS = (0.0, 0.5, 1.0, 2.0, 4.0)


@pytest.fixture(scope="module")
def frame(recordings):
    return standx(recordings, "2026-01-07")


@pytest.fixture(scope="module")
def candidates(frame):
    """Columns of every so many candidates, and the moment of each."""
    found = SignalEngine("BTCUSD", BTC, S.windows, S.triggers, S.regimes).columns(frame)
    found = type(found)(*(column[::EVERY] for column in found))
    return found, [moment(row.tobytes(), int(side)) for row, side in zip(found.features, found.side)]


@pytest.fixture(scope="module")
def worst_bps(frame, candidates):
    """How far the own touch went against each candidate within the holding time."""
    found, _ = candidates
    rows, at = frame.book_rows, frame.times[frame.kinds == BOOK]
    bid, ask = rows[:, 0, 0].astype(float), rows[:, 2, 0].astype(float)
    first = np.searchsorted(at, found.ts_ms, side="right")
    last = np.searchsorted(at, found.ts_ms + S.desk.max_holding_ms, side="right")
    return np.array([0.0 if a == b else 1e4 * (entry - bid[a:b].min() if side > 0 else ask[a:b].max() - entry) / entry
                     for a, b, side, entry in zip(first, last, found.side, found.ticks[:, 0])])


def auc(score, happened) -> float:
    """P(one that happened is ranked above one that did not)."""
    ones = int(happened.sum())
    return (rankdata(score)[happened].sum() - ones * (ones + 1) / 2) / (ones * (len(score) - ones))


@pytest.mark.parametrize("stop_bps", [4.0, 6.0, 8.0])
def test_tail_risk_ranks_what_moves_beyond_the_stop_and_says_about_how_often(stop_bps, candidates, worst_bps):
    _, moments = candidates
    tail = Diffusion(S.sizing.tail)
    p = np.array([tail.p(now, stop_bps, S.desk.max_holding_ms) for now in moments])
    happened = worst_bps >= stop_bps
    assert happened.sum() >= 20
    assert auc(p, happened) > 0.6
    assert 0.4 < happened.mean() / p.mean() < 2.5
    risky = p >= np.quantile(p, 0.9)
    assert happened[risky].mean() > 2 * happened[~risky].mean()


def paper_fills(frame, found, moments, part):
    """Rows and fills of resting orders at several distances behind the touch, by the paper venue's queue."""
    stream, rows, filled = labels.stream_of([frame]), [], []
    side, entry = found.side[part].astype(np.int64), found.ticks[part, 0]
    for distance in DISTANCES_BPS:
        price = np.round(entry * (1 - side * distance / 1e4)).astype(np.int64)
        got = labels.label(stream, found.event[part], side, price, price - 5000 * side, price + 5000 * side, BTC, S.matching, S.labels)
        for now, kind in zip(moments[part], got.kind):
            if kind not in (labels.UNFINISHED, labels.CROSSED):
                rows.append((now.queue, now.qi, now.depth, distance, now.spread_bps))
                filled.append(float(kind != labels.UNFILLED))
    return np.array(rows), np.array(filled)


def test_a_curve_fitted_to_the_first_half_of_a_days_paper_fills_tells_the_second(frame, candidates):
    found, moments = candidates
    half = len(moments) // 2
    early, late = (paper_fills(frame, found, moments, part) for part in (slice(0, half), slice(half, None)))
    parameters = fit(*early)
    assert parameters.weights[COLUMNS.index("distance_bps")] < 0 and parameters.weights[COLUMNS.index("queue")] < 0
    curve, formula, (rows, filled) = FittedCurve(parameters), Formula(), late
    of = [type(moments[0])(2.0, 0.0, queue, qi, depth, spread, 0.1) for queue, qi, depth, _, spread in rows]
    fitted = np.array([curve.p(now, row[3], 1.0) for now, row in zip(of, rows)])
    guessed = np.array([formula.p(now, row[3]) for now, row in zip(of, rows)])
    assert auc(fitted, filled > 0) > 0.7
    brier = np.mean((fitted - filled) ** 2)
    assert brier < filled.var() and brier < np.mean((guessed - filled) ** 2)
