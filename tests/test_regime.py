"""The regime is the range of the trailing hour; beside the recordings stand the labels it must agree with."""
import csv
from datetime import UTC, datetime

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from config.settings import load
from engine.facts import DEPTH
from engine.scoring import regime
from engine.settings import Regimes

RULE = Regimes(window_ms=60_000, event_bps=45, high_vol_bps=90)


def codes(ts, mids, rule=RULE):
    """The code after each of these mids (in half ticks, even)."""
    books = np.zeros((len(ts), 4, DEPTH), np.int32)
    books[:, 0, 0] = books[:, 2, 0] = np.asarray(mids) // 2
    books[:, [1, 3], 0] = 1
    out = np.empty(len(ts), np.uint8)
    regime.fold(np.asarray(ts, np.int64), np.zeros(len(ts), np.uint8), books, regime.parameters(rule), regime.empty(), out)
    return out.tolist()


@pytest.mark.parametrize("move_bps, name", [(0, "normal"), (44, "normal"), (45, "event"), (89, "event"), (90, "high_vol"),
                                            (500, "high_vol")])
def test_the_range_names_the_regime(move_bps, name):
    assert regime.NAMES[codes([0, 1000], [2_000_000, 2_000_000 + 200 * move_bps])[-1]] == name
    assert regime.NAMES[codes([0, 1000], [2_000_000 + 200 * move_bps, 2_000_000])[-1]] == name


def test_a_move_is_forgotten_when_it_has_left_the_window():
    assert codes([0, 500, 30_000, 59_999, 60_000, 61_000], [2_000_000] + 5 * [2_020_000]) == [0, 2, 2, 2, 0, 0]


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 9000), st.integers(-40, 40)), min_size=1, max_size=120))
def test_it_is_the_range_over_the_buckets_of_the_window(steps):
    ts = np.cumsum([s for s, _ in steps])
    mids = 2_000_000 + 200 * np.cumsum([m for _, m in steps])
    expected = []
    for t in ts:
        seen = mids[(ts <= t) & (ts // 1000 > t // 1000 - 60)]
        expected.append(1e4 * (seen.max() - seen.min()) / seen.min())
    # events that share a time are compared after the last of them
    last = [k for k in range(len(ts)) if k + 1 == len(ts) or ts[k + 1] > ts[k]]
    found = codes(ts, mids)
    assert [found[k] for k in last] == [2 if expected[k] >= 90 else 1 if expected[k] >= 45 else 0 for k in last]


@pytest.mark.recorded
def test_it_agrees_with_the_hourly_labels_of_the_recording(recordings):
    pandas = pytest.importorskip("pandas")
    folder = recordings / "standx"
    columns = ["ts_exch_ms", "bid_px_0", "ask_px_0"]
    book = pandas.concat([pandas.read_parquet(path, columns=columns) for path in sorted(folder.glob("BTCUSD_book10_*.parquet"))])
    ts = book.ts_exch_ms.to_numpy()
    rule = load().regimes
    found = codes(ts, (book.bid_px_0 + book.ask_px_0).to_numpy() // 2 * 2, rule)
    labels = list(csv.DictReader((folder / "regimes_hourly.csv").open()))
    agree = 0
    for row in labels[1:]:       # the recording begins within the first
        start = datetime.strptime(row["hour_utc"], "%Y-%m-%d %H").replace(tzinfo=UTC).timestamp() * 1000
        at = int(np.searchsorted(ts, start + rule.window_ms)) - 1
        agree += regime.NAMES[found[at]] == row["regime"]
    assert agree / len(labels[1:]) >= 0.9, f"{agree} of {len(labels) - 1}"
