"""The signal engine: when a candidate is proposed, at which prices, and that framing and restarts change nothing."""
from itertools import pairwise

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.facts import BUY, DEPTH, SELL, cut, frame_of
from engine.scoring import regime, triggers
from engine.scoring.features import FEATURES, SCHEMA_HASH
from engine.scoring.signals import decimals, warm
from tests.markets import INSTRUMENT, TRIGGERS, engine, market


def books(n, bid_size, ask_size, step_ms=10, bid=600_000, ask=600_005, session="s1"):
    """The same book n times."""
    rows = np.zeros((n, 4, DEPTH), np.int32)
    rows[:, :, 0] = bid, bid_size, ask, ask_size
    return frame_of("BTCUSDT", session, 0, 0.1, 0.001, 1_000_000 + step_ms * np.arange(n), np.zeros(n), rows, np.zeros((0, 3)))


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 50), st.lists(st.integers(1, 299), max_size=8, unique=True), st.booleans())
def test_candidates_are_the_same_whatever_the_framing(seed, cuts, restarts):
    frame = market(seed, 300)
    whole = engine().on(frame)
    one, parts = engine(), []
    edges = [0, *sorted(cuts), 300]
    for first, last in pairwise(edges):
        if restarts:
            blob = one.snapshot()
            one = engine()
            one.restore(blob)
        parts += one.on(cut(frame, first, last))
    assert parts == whole


def test_a_restored_engine_has_the_very_same_state():
    a, b = engine(), engine()
    a.on(market(3))
    b.restore(a.snapshot())
    assert b.snapshot() == a.snapshot()
    assert b.session == "s1"


def test_facts_and_columns_say_the_same():
    frame = market(1)
    facts, c = engine().on(frame), engine().columns(frame)
    assert len(facts) == len(c.event) > 20
    for k, fact in enumerate(facts):
        assert (fact.ts_ms, fact.side, fact.seq) == (c.ts_ms[k], BUY if c.side[k] > 0 else SELL, frame.seq + c.event[k])
        assert (fact.entry, fact.stop, fact.target) == (c.entry[k], c.stop[k], c.target[k])
        assert (fact.regime, fact.trigger) == (regime.NAMES[c.regime[k]], triggers.NAMES[c.trigger[k]])
        assert fact.features == c.features[k].tobytes()
        assert fact.schema_hash == SCHEMA_HASH
    assert len({fact.id for fact in facts}) == len(facts)


def test_columns_keep_their_values_when_the_next_frame_comes():
    one, frame = engine(), market(1)
    c = one.columns(frame)
    before = [np.array(a) for a in c]
    one.columns(market(2, session="s2"))
    assert all(np.array_equal(a, b) for a, b in zip(c, before, strict=True))


@pytest.mark.parametrize("bid_size, ask_size, sides",
                         [(90, 10, {BUY}), (10, 90, {SELL}), (50, 50, set()), (65, 35, {BUY}), (64, 36, set())])
def test_the_heavy_side_is_proposed(bid_size, ask_size, sides):
    found = engine(ofi_z=1e9).on(books(50, bid_size, ask_size))
    assert {c.side for c in found} == sides
    assert {c.trigger for c in found} <= {"imbalance"}


def test_order_flow_proposes_where_depth_does_not():
    rows = np.zeros((60, 4, DEPTH), np.int32)
    rows[:, :, 0] = 600_000, 50, 600_005, 50
    rows[:, :, 1] = 599_990, 5000, 600_015, 5000        # deep books hide the touch from the depth trigger
    rows[50:, 1, 0] += 20 * np.arange(1, 11)
    frame = frame_of("BTCUSDT", "s1", 0, 0.1, 0.001, 20 * np.arange(60), np.zeros(60), rows, np.zeros((0, 3)))
    found = engine(imbalance=0.9).on(frame)
    assert {(c.side, c.trigger) for c in found} == {(BUY, "ofi")}
    assert min(c.seq for c in found) == 50


def test_no_candidate_before_the_book_is_warm():
    assert [c.seq for c in engine(warm_events=30, cooldown_ms=1).on(books(32, 90, 10))] == [29, 30, 31]


def test_a_side_rests_for_its_cooldown_and_the_other_does_not():
    found = engine(cooldown_ms=100, warm_events=1, ofi_z=1e9).on(books(50, 90, 10))
    assert np.diff([c.ts_ms for c in found]).tolist() == [100] * 4
    one = engine(cooldown_ms=10_000, warm_events=1, ofi_z=1e9)
    rows = np.concatenate([books(5, 90, 10).book_rows, books(5, 10, 90).book_rows])
    flipped = frame_of("BTCUSDT", "s1", 0, 0.1, 0.001, np.arange(10), np.zeros(10), rows, np.zeros((0, 3)))
    assert [(c.side, c.seq) for c in one.on(flipped)] == [(BUY, 0), (SELL, 5)]


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10**6))
def test_there_is_at_most_one_candidate_a_millisecond_and_side(seed):
    found = engine(cooldown_ms=1, imbalance=0.0, ofi_z=0.0, warm_events=1).on(market(seed, 300, pace_ms=2.0))
    assert len({c.id for c in found}) == len(found) > 50


def test_a_one_sided_or_crossed_book_proposes_nothing():
    for row in ((600_000, 90, 0, 0), (0, 0, 600_000, 90), (600_010, 90, 600_000, 1)):
        one = engine()
        one.on(books(40, 50, 50))
        rows = np.zeros((20, 4, DEPTH), np.int32)
        rows[:, :, 0] = row
        assert one.on(frame_of("BTCUSDT", "s1", 40, 0.1, 0.001, 1_001_000 + np.arange(20), np.zeros(20), rows, np.zeros((0, 3)))) == []


def test_time_that_runs_backwards_counts_as_the_last_time():
    rows = books(40, 90, 10).book_rows.copy()
    rows[19, 1, 0] = rows[19, 3, 0] = 50          # nothing is proposed at 19, so that 20 may be
    ts = 1_000_000 + 10 * np.arange(40)
    ts[20] -= 500
    one = engine(cooldown_ms=1, ofi_z=1e9)
    back = one.on(frame_of("BTCUSDT", "s1", 0, 0.1, 0.001, ts, np.zeros(40), rows, np.zeros((0, 3))))
    assert [c.ts_ms for c in back if c.seq == 20] == [ts[19]]
    assert all(b.ts_ms > a.ts_ms for a, b in pairwise(back))


@settings(max_examples=60, deadline=None)
@given(bid=st.integers(10, 2**30), spread=st.integers(0, 500), sigma=st.floats(0, 500), way=st.sampled_from([1, -1]),
       target=st.floats(0.01, 500), stop=st.floats(0.01, 5000), multiple=st.floats(0, 3))
def test_target_and_stop_stand_on_their_sides_of_a_resting_entry(bid, spread, sigma, way, target, stop, multiple):
    prices = np.empty((1, 3), np.int64)
    settings_of = np.array([target, stop, multiple])
    triggers.barriers(np.array([way], np.int8), np.array([[bid, bid + spread]]), np.array([sigma]), settings_of, prices)
    entry, lose, win = prices[0].tolist()
    assert entry < bid + spread if way > 0 else entry > bid                 # it rests: the other side is not reached
    assert way * (win - entry) >= 1 or win == 1
    assert way * (entry - lose) >= 1 or lose == 1
    assert abs(win - entry) >= min(entry * (target + multiple * sigma) / 1e4 - 1e-6, entry - 1)
    assert abs(entry - lose) >= min(entry * stop / 1e4 - 1e-6, entry - 1)
    assert abs(win - entry) <= entry * (target + multiple * sigma) / 1e4 + 1


def test_prices_are_whole_ticks_as_people_write_them():
    found = engine().on(books(50, 90, 10, bid=938_695, ask=938_698))
    assert {(c.entry, c.target, c.stop) for c in found} == {(93_869.5, 93_893.0, 93_794.4)}
    assert [decimals(t) for t in (0.1, 0.01, 0.25, 1.0, 5.0, 1e-8)] == [1, 2, 2, 0, 0, 8]


def test_a_target_stands_beyond_the_fees_of_both_maker_orders():
    free, dear = (triggers.parameters(TRIGGERS, msgspec.structs.replace(INSTRUMENT, maker_fee=fee)) for fee in (0.0, 0.0001))
    assert free[0] == TRIGGERS.target_bps
    assert dear[0] == pytest.approx(TRIGGERS.target_bps + 2.0)
    assert dear[1] == free[1] == TRIGGERS.stop_bps


def test_a_wider_sigma_sets_a_farther_target():
    frame = market(2)
    near, far = engine(sigma_multiple=0.0).columns(frame), engine(sigma_multiple=2.0).columns(frame)
    assert (np.abs(far.ticks[:, 2] - far.ticks[:, 0]) >= np.abs(near.ticks[:, 2] - near.ticks[:, 0])).all()
    assert far.ticks[:, 2].tolist() != near.ticks[:, 2].tolist()


def test_another_session_starts_anew():
    one, second = engine(), market(8, session="s2")
    one.on(market(7))
    assert one.on(second) == engine().on(second)


def test_a_frame_of_another_symbol_or_tick_is_refused_by_name():
    with pytest.raises(ValueError, match=r"ETHUSDT.*expected BTCUSDT in ticks of 0\.1"):
        engine().on(frame_of("ETHUSDT", "s", 0, 0.1, 0.001, [], [], [], []))
    with pytest.raises(ValueError, match=r"in ticks of 0\.5"):
        engine().on(frame_of("BTCUSDT", "s", 0, 0.5, 0.001, [], [], [], []))


def test_a_snapshot_of_other_settings_or_length_is_refused():
    one = engine()
    one.on(market(1))
    with pytest.raises(ValueError, match="configuration"):
        engine(target_bps=9.0).restore(one.snapshot())
    with pytest.raises(ValueError, match="bytes of state"):
        engine().restore(one.snapshot()[:-8])


def test_a_refused_snapshot_leaves_the_engine_as_it_was():
    one = engine()
    one.on(market(1))
    before = one.snapshot()
    with pytest.raises(ValueError):
        one.restore(before[:-8])
    assert one.snapshot() == before


def test_a_frame_longer_than_any_before_is_folded_whole():
    frame, parted = market(4, 1500), engine()
    assert engine().on(frame) == [c for k in range(0, 1500, 100) for c in parted.on(cut(frame, k, k + 100))]


def test_a_row_has_a_value_for_each_declared_feature():
    [first, *_] = engine().on(market(1))
    assert len(np.frombuffer(first.features, np.float32)) == len(FEATURES)
    assert TRIGGERS.cooldown_ms == 40 and warm() is None
