"""The signal engine with the settings as they stand, on a recorded market."""
import numpy as np
import pytest

from config.settings import load
from engine.facts import BOOK, cut
from engine.scoring.features import FEATURES
from engine.scoring.signals import SignalEngine
from tests.markets import standx

pytestmark = pytest.mark.recorded


@pytest.fixture(scope="module")
def frame(recordings):
    return standx(recordings, "2026-01-06")


def engine():
    s = load()
    return SignalEngine("BTCUSD", s.instrument("BTCUSD"), s.windows, s.triggers, s.regimes)


def test_a_candidate_comes_with_every_second_to_tenth_event(frame):
    found = engine().columns(frame)
    assert 0.1 <= len(found.event) / frame.n <= 0.5
    assert 0.4 <= np.mean(found.side > 0) <= 0.6
    assert np.isfinite(found.features).all()


def test_framing_changes_nothing_on_a_recorded_market(frame):
    n = 20_000
    whole, one = engine().on(cut(frame, 0, n)), engine()
    parts = [c for k in range(0, n, 97) for c in one.on(cut(frame, k, min(k + 97, n)))]
    assert parts == whole
    assert len({c.id for c in whole}) == len(whole)


def test_the_heavy_side_is_where_the_next_ten_seconds_go(frame):
    """The one edge that is known of this recording; of the mid, not of fills."""
    found, at = engine().columns(frame), frame.times[frame.kinds == BOOK]
    mid = frame.book_rows[:, 0, 0].astype(float) + frame.book_rows[:, 2, 0]

    def mids(ts):
        return mid[np.searchsorted(at, ts, side="right") - 1]
    ahead = mids(found.ts_ms + 10_000) / mids(found.ts_ms) - 1
    for name in ("depth_imbalance", "qi", "ofi"):
        assert np.corrcoef(found.features[:, FEATURES.index(name)], ahead)[0, 1] > 0.2
