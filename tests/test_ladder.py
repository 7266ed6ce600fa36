"""The ladder of an entry: whole lots within what was wanted, makers only, and what is left out stays out."""
import doctest
from math import exp

import pytest
from builders import shipped
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

import engine.execution.ladder as ladder_module
from engine import reasons
from engine.execution.ladder import BUCKETS, bucket, entry_of, ladder, rung_id, shares
from engine.facts import BUY, SELL

S = shipped()
BTC, RULES = S.instrument("BTCUSDT"), S.ladder


def likely(level: float) -> float:
    return 0.9


def fading(level: float) -> float:
    return 0.9 * exp(-0.35 * level)


def rungs(side=BUY, entry=600_000, bid=600_000, ask=600_001, lots=10, fill=likely, min_p=0.3, **more):
    return ladder(side, entry, bid, ask, lots, more.pop("instrument", BTC), more.pop("rules", RULES), fill, min_p, **more)


def placed(r):
    return [(one.ticks, one.lots) for one in r.kept]


def test_four_quarters_two_ticks_apart_on_the_passive_side():
    assert placed(rungs()) == [(600_000, 3), (599_998, 2), (599_996, 3), (599_994, 2)]
    assert placed(rungs(SELL, entry=600_001)) == [(600_001, 3), (600_003, 2), (600_005, 3), (600_007, 2)]


def test_an_arm_moves_the_whole_ladder_away_from_the_market_or_towards_it():
    assert [t for t, _ in placed(rungs(offset=3))] == [599_997, 599_995, 599_993, 599_991]
    assert [t for t, _ in placed(rungs(offset=-2, ask=600_010))] == [600_002, 600_000, 599_998, 599_996]


def test_levels_that_would_cross_are_moved_to_the_touch_and_are_one_order_there():
    assert placed(rungs(entry=600_003, bid=600_000, ask=600_002)) == [(600_000, 3), (600_001, 2), (599_999, 3), (599_997, 2)]
    assert placed(rungs(entry=600_004, bid=600_000, ask=600_001)) == [(600_000, 8), (599_998, 2)]
    assert placed(rungs(SELL, entry=599_990, bid=600_000, ask=600_001)) == [(600_001, 10)]


def test_an_own_side_that_is_empty_or_locked_leaves_the_last_tick_before_the_other():
    assert placed(rungs(entry=600_005, bid=0, ask=600_001))[0][0] == 600_000
    assert placed(rungs(entry=600_005, bid=600_001, ask=600_001))[0][0] == 600_000
    assert placed(rungs(entry=600_005, ask=0))[0][0] == 600_005


def test_a_level_that_is_too_unlikely_is_left_out_with_its_quantity_and_says_why():
    got = rungs(fill=fading, min_p=0.5)
    assert placed(got) == [(600_000, 3), (599_998, 2)] and got.lots == 5
    assert [block for _, block in got.dropped] == [
        (reasons.LOW_FILL_PROBABILITY, "level=2: p=0.4469 < 0.5000"), (reasons.LOW_FILL_PROBABILITY, "level=3: p=0.3149 < 0.5000")]


def test_at_the_least_probability_a_level_stays_and_one_that_is_no_number_goes():
    assert rungs(fill=lambda level: 0.3).lots == 10
    assert rungs(fill=lambda level: float("nan")).refusal.code == reasons.LOW_FILL_PROBABILITY


def test_a_level_below_an_exchange_minimum_is_left_out_and_never_lifted():
    strict = replace(BTC, min_qty=0.003)
    got = rungs(instrument=strict)
    assert placed(got) == [(600_000, 3), (599_996, 3)]
    assert got.dropped[0][1] == (reasons.BELOW_MINIMUM, "level=1: qty=0.002 (min 0.003), notional=120.00 (min 5)")
    assert rungs(instrument=replace(BTC, min_notional_usd=170.0)).lots == 6


def test_what_leaves_nothing_is_a_refusal_with_the_first_reason():
    assert rungs(lots=0).refusal == (reasons.QTY_ZERO, "lots=0")
    assert rungs(min_p=0.95).refusal == (reasons.LOW_FILL_PROBABILITY, "level=0: p=0.9000 < 0.9500")
    assert rungs().refusal is None


def test_the_probability_is_asked_in_steps_behind_the_touch():
    asked = []
    rungs(fill=lambda level: asked.append(level) or 0.9, offset=1)
    assert asked == [0.5, 1.5, 2.5, 3.5]
    asked.clear()
    rungs(fill=lambda level: asked.append(level) or 0.9, offset=-2, ask=600_010)
    assert asked == [-1.0, 0.0, 1.0, 2.0]


def test_levels_below_the_first_tick_are_left_out():
    got = rungs(entry=3, bid=3, ask=4, instrument=replace(BTC, min_notional_usd=0.0))
    assert [r.ticks for r in got.kept] == [3, 1] and [b.code for _, b in got.dropped] == [reasons.BELOW_MINIMUM] * 2


FRACTIONS = st.lists(st.floats(0, 1), max_size=6)


@given(st.integers(0, 10_000), FRACTIONS)
def test_the_levels_never_hold_more_than_was_wanted_and_all_of_it_where_the_fractions_are_whole(lots, fractions):
    parts = shares(lots, fractions)
    assert all(p >= 0 for p in parts) and sum(parts) <= lots and len(parts) == len(fractions)
    assert sum(parts) >= lots * min(1.0, sum(fractions)) - 1e-6
    assert sum(shares(lots, [0.25] * 4)) == lots


@given(st.sampled_from([BUY, SELL]), st.integers(50, 1000), st.integers(-60, 60), st.integers(0, 60), st.integers(0, 500), FRACTIONS,
       st.integers(0, 5), st.integers(-5, 5), st.floats(0, 1), st.floats(0, 20))
def test_whatever_the_market_a_ladder_is_passive_whole_within_the_wanted_and_each_price_once(
        side, bid, entry, spread, lots, fractions, step, offset, min_p, minimum):
    ask = bid + spread if spread else 0
    rules, small = replace(RULES, fractions=fractions, step_ticks=step), replace(BTC, min_notional_usd=minimum, min_qty=0.002)
    got = ladder(side, bid + entry, bid, ask, lots, small, rules, fading, min_p, offset)
    everything = [*got.kept, *(r for r, _ in got.dropped)]
    assert sum(r.lots for r in everything) <= lots
    assert all(r.lots > 0 for r in everything)
    assert len({r.ticks for r in everything}) == len(everything) == len({r.level for r in everything})
    for r in got.kept:
        assert r.ticks < ask if side == BUY and ask else r.ticks > bid if side == SELL else True
        assert r.p >= min_p and r.lots * small.lot >= small.min_qty - 1e-12
        assert r.lots * small.lot * r.ticks * small.tick >= minimum
    assert (got.refusal is None) == bool(got.kept)
    assert got == ladder(side, bid + entry, bid, ask, lots, small, rules, fading, min_p, offset)


@given(st.floats(0, 1))
def test_every_probability_is_in_the_bucket_that_its_label_says(p):
    low, high = {"lt_0.25": (0, 0.25), "0.25_0.5": (0.25, 0.5), "0.5_0.75": (0.5, 0.75), "gte_0.75": (0.75, 2)}[bucket(p)]
    assert low <= p < high and bucket(p) in BUCKETS


@pytest.mark.parametrize("level", range(5))
def test_an_order_of_a_level_leads_back_to_its_entry(level):
    entry = "E-BTCUSDT_SPOT-s10-1767654887210-S"
    assert entry_of(rung_id(entry, level)) == entry and (rung_id(entry, level) == entry) == (level == 0)
    assert len(rung_id("E-BTCUSDT-s12345-1767654887210-S", level)) <= 36


def test_the_examples_in_the_docstrings_run():
    got = doctest.testmod(ladder_module)
    assert got.attempted and not got.failed
