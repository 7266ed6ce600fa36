"""The declared features: what they are, that they see no future, and that they are always numbers."""
import functools
import hashlib
from pathlib import Path

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.facts import BOOK, DEPTH, cut, frame_of
from engine.scoring import kernel
from engine.scoring.features import DECLARED, FEATURES, SCHEMA_HASH, config_hash, table
from tests.markets import REGIMES, TRIGGERS, WINDOWS, engine, market
from tests.naive_features import rows

SEEDS = (1, 2, 3, 4)


@functools.cache
def both_ways(seed):
    """Candidates of a rough market, and the same rows from the definitions."""
    frame = market(seed, 500)
    found = engine().columns(frame)
    wanted = list(zip(found.event.tolist(), found.side.tolist(), found.regime.tolist(), strict=True))
    return found.features, rows(frame, WINDOWS, wanted)


@functools.cache
def whole_and_parts(seed):
    """Candidates of a market, and those of its beginnings."""
    frame = market(seed, 400)
    return engine().columns(frame), [(n, engine().columns(cut(frame, 0, n))) for n in (60, 150, 151, 290, 399)]


def test_the_schema_hash_is_the_sha256_of_the_names_in_order():
    assert hashlib.sha256("|".join(FEATURES).encode()).hexdigest() == SCHEMA_HASH
    assert len(set(FEATURES)) == len(FEATURES)
    assert FEATURES[:12] == ("spread", "bid1", "ask1", "mid", "microprice", "microprice_velocity", "depth_bids", "depth_asks", "sigma",
                             "ofi", "ofi_instant", "cancel_rate")
    assert FEATURES[-1] == "anomaly_score"


def test_the_table_in_the_documents_is_the_declared_one():
    page = Path(__file__).parent.parent / "docs" / "features.md"
    assert page.read_text(encoding="utf-8") == table(), "python -m engine.scoring.features > docs/features.md"
    assert all(f.unit and f.meaning for f in DECLARED)


def test_another_window_is_another_configuration():
    longer = msgspec.structs.replace(WINDOWS, fast_ms=WINDOWS.fast_ms + 1)
    assert config_hash(longer, TRIGGERS, REGIMES) != config_hash(WINDOWS, TRIGGERS, REGIMES) == config_hash(WINDOWS, TRIGGERS, REGIMES)


@pytest.mark.parametrize("name", FEATURES)
def test_a_feature_is_what_its_definition_says(name):
    compared = 0
    for seed in SEEDS:
        fast, slow = both_ways(seed)
        assert set(slow[0]) == set(FEATURES)
        expected = np.array([row[name] for row in slow])
        np.testing.assert_allclose(fast[:, FEATURES.index(name)], expected, rtol=2e-4, atol=2e-5)
        compared += len(slow)
    assert compared > 100


@pytest.mark.parametrize("name", FEATURES)
def test_the_future_does_not_change_a_feature(name):
    k = FEATURES.index(name)
    for seed in SEEDS:
        whole, parts = whole_and_parts(seed)
        for n, part in parts:
            known = whole.event < n
            assert np.array_equal(part.event, whole.event[known])
            assert part.features[:, k].tobytes() == whole.features[known, k].tobytes()


@pytest.mark.parametrize("name", sorted(set(FEATURES) - {"news_spike_flag"}))
def test_a_feature_says_something(name):
    values = np.concatenate([both_ways(seed)[0][:, FEATURES.index(name)] for seed in SEEDS])
    assert len(np.unique(values)) > 1


def test_a_burst_of_volume_with_a_move_is_flagged_and_a_quiet_market_is_not():
    n = 400
    ts, kind, books = np.arange(n) * 20, np.zeros(n, np.uint8), np.zeros((n, 4, DEPTH), np.int32)
    books[:, :, 0] = 600_000, 90, 600_010, 10
    books[340:, 0, 0] += 600
    books[340:, 2, 0] += 600
    kind[300:400:4] = 1
    trades = np.tile([600_000, 100, 1], (25, 1))
    found = engine(cooldown_ms=1).columns(frame_of("BTCUSDT", "s", 0, 0.1, 0.001, ts, kind, books[kind == BOOK], trades))
    flag = found.features[:, FEATURES.index("news_spike_flag")]
    assert not flag[found.event < 300].any()
    assert flag[(found.event > 350) & (found.event < 380)].all()


def test_windows_start_anew_after_a_gap():
    frame = market(5, 300, rough=False)
    late = frame_of("BTCUSDT", "s1", 0, 0.1, 0.001, frame.times + np.where(np.arange(300) >= 150, WINDOWS.gap_ms + 1000, 0), frame.kinds,
                    frame.book_rows, frame.trade_rows)
    alone = engine().columns(cut(late, 150, 300))
    after = engine().columns(late)
    kept = after.event >= 150
    assert np.array_equal(after.event[kept] - 150, alone.event)
    names = [k for k, name in enumerate(FEATURES) if name != "regime"]     # a range of an hour outlives a gap
    assert after.features[kept][:, names].tobytes() == alone.features[:, names].tobytes()


def test_a_model_sees_the_same_market_at_another_price():
    frame = market(6, 300, rough=False)
    books, trades = frame.book_rows.copy(), frame.trade_rows.copy()
    books[:, [0, 2]] *= 10
    dear = frame_of("BTCUSDT", "s1", 0, 0.1, 0.001, frame.times, frame.kinds, books, trades)
    a, b = engine().columns(frame), engine().columns(dear)
    assert np.array_equal(a.event, b.event)
    np.testing.assert_allclose(a.features, b.features, rtol=1e-4, atol=1e-4)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32 - 1), st.sampled_from([1, 30, 2**20, 2**31 - 1]))
def test_features_are_finite_whatever_the_market(seed, size):
    rng = np.random.default_rng(seed)
    n = 120
    kind = (rng.random(n) < 0.4).astype(np.uint8)
    count = int((kind == BOOK).sum())
    books = rng.integers(0, size, (count, 4, DEPTH), endpoint=True)
    books[:, 2] = np.maximum(books[:, 0], books[:, 2])
    trades = np.stack([rng.integers(1, size, n - count, endpoint=True), rng.integers(0, size, n - count, endpoint=True),
                       rng.choice([-1, 1], n - count)], 1)
    frame = frame_of("BTCUSDT", "s1", 0, 0.1, 0.001, np.cumsum(rng.choice([0, 1, 50, 900, 4000], n)), kind, books, trades)
    found = engine(imbalance=0.0, ofi_z=0.0, cooldown_ms=1).columns(frame)
    assert np.isfinite(found.features).all()
    assert (np.abs(found.features) <= kernel.BOUND).all()


def test_the_pass_calls_no_compiled_function_of_another_file():
    """Numba's cache would not see a change there, and run yesterday's code."""
    compiled = {v.py_func.__module__ for v in vars(kernel).values() if hasattr(v, "py_func")}
    assert compiled == {"engine.scoring.kernel"}
