"""S1's gates in front of an order: liquidity by side, near-liquidation, warm-up, backpressure, fail-safe; the seed's vectors."""
import doctest

import msgspec
import numpy as np
import pytest
from builders import shipped
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

import engine.execution.admission as admission
from engine import metrics as m
from engine import reasons
from engine.execution.admission import BEGUN, CLEARED, PAPER, REAL, Pressure, Safe, Warmth
from engine.facts import BUY, SELL, Dropped
from engine.guards import Rules, Wish, liquidation_price, liquidity_by_side, near_liquidation
from engine.settings import WarmUp
from engine.telemetry import Telemetry
from engine.watch import Watch

S = shipped()
WARMUP = WarmUp(True, 90)
RULES = Rules(S.risk, S.gates, S.controls, 0.0)
T, MINUTE = 1_700_000_000_000, 60_000
BTC = "BTCUSDT"


def wish(side=BUY, **more) -> Wish:
    return replace(Wish("E-1", BTC, side, 60_000.0, 10.0, 0.004, T, T, 60_000.0, 60_000.1, T, 100.0, 5_000.0, False, 1.0), **more)


# liquidity by side

@pytest.mark.parametrize("qty, depth, passes", [
    (1.0, 1.5, True), (1.0, 1.499, False), (0.333, 0.5, True), (2.0, 2.9, False), (0.2, 0.3, True)])
@pytest.mark.parametrize("side", [BUY, SELL])
def test_alpha_times_the_order_must_be_shown_on_its_own_side(side, qty, depth, passes):
    block = liquidity_by_side(wish(side, qty=qty, own_depth=depth), Watch(), RULES)
    assert (block is None) == passes and (passes or block.code == reasons.LIQUIDITY_INSUFFICIENT)


def test_the_liquidity_gate_can_be_off():
    off = replace(RULES, gates=replace(S.gates, liquidity_by_side=replace(S.gates.liquidity_by_side, enabled=False)))
    assert liquidity_by_side(wish(own_depth=0.0), Watch(), off) is None


# near liquidation

def test_the_seeds_liquidation_prices():
    assert round(liquidation_price(BUY, 60_000, 10, 0.004), 6) == 54_240.0
    assert round(liquidation_price(SELL, 60_000, 10, 0.004), 6) == 65_760.0


@pytest.mark.parametrize("leverage, blocks", [(10, False), (50, False), (117, False), (118, True), (125, True)])
@pytest.mark.parametrize("side, code", [(BUY, reasons.NEAR_LIQUIDATION), (SELL, reasons.NEAR_LIQUIDATION_SHORT)])
def test_at_the_shipped_stop_the_guard_bites_above_a_leverage_of_117(side, code, leverage, blocks):
    block = near_liquidation(wish(side, leverage=float(leverage)), Watch(), RULES)
    assert (block.code if block else None) == (code if blocks else None)


@pytest.mark.parametrize("side", [BUY, SELL])
def test_nine_and_a_half_percent_is_not_near_a_stop_of_one_and_a_distance_equal_to_the_buffer_passes(side):
    one = replace(RULES, risk=replace(S.risk, assumed_sl_pct=0.01))
    assert near_liquidation(wish(side, maintenance=0.005), Watch(), one) is None                              # 0.095 against 0.015
    assert near_liquidation(wish(side, leverage=100.0), Watch(), replace(RULES, risk=replace(S.risk, assumed_sl_pct=0.004))) is None
    assert near_liquidation(wish(side, leverage=100.0), Watch(), replace(RULES, risk=replace(S.risk, assumed_sl_pct=0.0041))) is not None


@pytest.mark.parametrize("side", [BUY, SELL])
@pytest.mark.parametrize("price", [0.0, -1.0, float("nan"), float("inf")])
def test_a_price_that_is_none_is_near_its_liquidation(side, price):
    assert near_liquidation(wish(side, price=price), Watch(), RULES) is not None


def test_without_a_stop_or_with_the_guard_off_nothing_is_near():
    near = wish(leverage=200.0)
    assert near_liquidation(near, Watch(), RULES) is not None
    assert near_liquidation(near, Watch(), replace(RULES, risk=replace(S.risk, assumed_sl_pct=0.0))) is None
    off = replace(S.risk, near_liq_guard=replace(S.risk.near_liq_guard, enabled=False))
    assert near_liquidation(near, Watch(), replace(RULES, risk=off)) is None


@given(st.sampled_from([BUY, SELL]), st.integers(1, 250), st.floats(0, 0.05), st.floats(0.001, 0.05), st.floats(0, 5), st.floats(1, 1e6))
def test_the_guard_is_the_documents_formula_whatever_the_price(side, leverage, maintenance, stop, times, price):
    liquidation = liquidation_price(side, price, leverage, maintenance)
    distance = (price - liquidation) / price if side == BUY else (liquidation - price) / price
    risk = replace(S.risk, assumed_sl_pct=stop, near_liq_guard=replace(S.risk.near_liq_guard, sl_buffer_multiplier=times))
    asked = wish(side, price=price, leverage=float(leverage), maintenance=maintenance)
    blocked = near_liquidation(asked, Watch(), replace(RULES, risk=risk))
    if abs(distance - times * stop) > 1e-9:
        assert (blocked is not None) == (distance < times * stop)


# warm-up

def warmed(*times: int, session: str = "t1", gap_ms: int = 15_000) -> Warmth:
    warmth = Warmth()
    warmth.on_books(BTC, session, np.array(times, np.int64), gap_ms)
    return warmth


def test_a_market_is_too_young_until_its_seconds_have_passed():
    warmth = warmed(T, T + 10_000)
    assert warmth.block(BTC, T + 89_999, WARMUP) == (reasons.WARM_UP, "BTCUSDT: up 89999ms < 90000ms")
    assert warmth.block(BTC, T + 90_000, WARMUP) is None


def test_a_symbol_without_a_book_is_too_young_and_the_gate_can_be_off():
    assert Warmth().block(BTC, T, WARMUP).code == reasons.WARM_UP
    assert Warmth().block(BTC, T, replace(S.warmup, enabled=False)) is None


def test_a_gap_and_a_new_run_of_the_market_begin_anew_and_another_symbol_does_not():
    warmth = warmed(T, T + 15_000, T + 30_001, T + 30_002)
    assert warmth.ages[BTC].since_ms == T + 30_001
    warmth.on_books("ETHUSDT", "t1", np.array([T + 90_000]), 15_000)
    assert warmth.ages[BTC].since_ms == T + 30_001
    warmth.on_books(BTC, "t2", np.array([T - 5, T]), 15_000)
    assert (warmth.ages[BTC].since_ms, warmth.ages[BTC].last_ms) == (T - 5, T)


@given(st.lists(st.integers(0, 30_000), min_size=1, max_size=40), st.lists(st.integers(0, 40), max_size=6))
def test_the_age_of_a_market_does_not_depend_on_how_it_is_cut(waits, cuts):
    ts = T + np.cumsum(np.array(waits, np.int64))
    whole, parts = Warmth(), Warmth()
    whole.on_books(BTC, "t1", ts, 15_000)
    for part in np.split(ts, sorted(c for c in cuts if c < len(ts))):
        parts.on_books(BTC, "t1", part, 15_000)
        parts = msgspec.msgpack.decode(msgspec.msgpack.encode(parts), type=Warmth)
    last_gap = max((i for i in range(1, len(ts)) if ts[i] - ts[i - 1] > 15_000), default=0)
    assert whole == parts and whole.ages[BTC].since_ms == ts[last_gap]


# backpressure

def test_only_more_than_the_limit_is_too_much_and_lag_and_what_is_in_hand_count_together():
    p = Pressure()
    p.on_depth(9_990, 10, S.backpressure)
    assert p.block(S.backpressure) is None
    p.on_depth(9_990, 11, S.backpressure)
    assert p.block(S.backpressure) == (reasons.BACKPRESSURE, "queue=10001 > 10000")
    p.on_depth(0, 0, S.backpressure)
    assert p.block(S.backpressure) is None


def test_degrade_is_counted_on_entry_only_and_asks_more_of_each_level_until_the_depth_recovers():
    rules, p = replace(S.backpressure, drop_mode="degrade", max_queue_len=10), Pressure()
    least = []
    for depth in (11, 12, 10, 11, 0):
        p.on_depth(depth, 0, rules)
        assert p.block(rules) is None
        least.append(round(p.min_fill_probability(0.3, rules), 9))
    assert least == [0.45, 0.45, 0.3, 0.45, 0.3] and p.degraded == 2


def test_degrade_never_asks_for_more_than_95_percent_nor_for_less_than_without():
    rules, p = replace(S.backpressure, drop_mode="degrade"), Pressure(20_000, True)
    assert [p.min_fill_probability(x, rules) for x in (0.7, 0.97)] == [0.95, 0.97]


def test_backpressure_can_be_off():
    off, p = replace(S.backpressure, enabled=False), Pressure()
    p.on_depth(10**9, 0, off)
    assert p.block(off) is None and not p.over


# fail-safe

def test_a_crit_sends_the_desk_to_paper_for_the_cooldown_and_back_where_it_came_from():
    safe = Safe()
    assert safe.on_crit("ExecutionDegradation", T, REAL, False, S.fail_safe) and safe.mode(REAL) == PAPER
    assert not safe.on_time(T + 15 * MINUTE - 1) and safe.mode(REAL) == PAPER
    assert safe.on_time(T + 15 * MINUTE) and safe.mode(REAL) == REAL and not safe.on_time(T + 16 * MINUTE)
    assert safe.switches == {(REAL, PAPER, BEGUN): 1, (PAPER, REAL, CLEARED): 1} and safe.begun == {"ExecutionDegradation": 1}


def test_another_crit_prolongs_it_and_is_no_second_one():
    safe = Safe()
    safe.on_crit("a", T, REAL, False, S.fail_safe)
    assert safe.on_crit("b", T + 10 * MINUTE, REAL, False, S.fail_safe) is False
    assert not safe.on_time(T + 15 * MINUTE) and safe.on_time(T + 25 * MINUTE)
    assert safe.begun == {"a": 1}


def test_one_that_comes_after_the_end_begins_a_new_one_even_where_nobody_told_the_time_between():
    safe = Safe()
    safe.on_crit("a", T, REAL, False, S.fail_safe)
    assert safe.on_crit("a", T + 15 * MINUTE, REAL, False, S.fail_safe)
    assert safe.begun == {"a": 2} and safe.switches == {(REAL, PAPER, BEGUN): 2, (PAPER, REAL, CLEARED): 1}


def test_a_crit_changes_nothing_while_a_kill_is_in_force_or_where_the_switch_is_off():
    for halted, rules in ((True, S.fail_safe), (False, replace(S.fail_safe, switch_to_paper_on_crit=False))):
        safe = Safe()
        assert not safe.on_crit("a", T, REAL, halted, rules) and safe == Safe()


def test_on_paper_a_crit_counts_and_switches_nothing():
    safe = Safe()
    assert safe.on_crit("a", T, PAPER, False, S.fail_safe) and safe.switches == {} and safe.mode(PAPER) == PAPER
    assert safe.on_time(T + 15 * MINUTE) and safe.switches == {}


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 20 * MINUTE), st.booleans()), max_size=30), st.integers(0, 30))
def test_the_desk_is_on_paper_exactly_within_the_cooldown_after_the_last_crit_that_counted(steps, cut):
    safe, now, last = Safe(), T, None
    for i, (crit, wait, halted) in enumerate(steps):
        if i == cut:
            safe = msgspec.msgpack.decode(msgspec.msgpack.encode(safe), type=Safe)
        now += wait
        safe.on_time(now)
        if crit:
            safe.on_crit("x", now, REAL, halted, S.fail_safe)
            last = now if not halted else last
        assert (safe.mode(REAL) == PAPER) == (last is not None and now < last + 15 * MINUTE)


def test_a_reason_is_a_label_and_there_is_an_end_to_them():
    got = doctest.testmod(admission)
    assert got.attempted and not got.failed
    safe = Safe()
    for i in range(100):
        safe.on_crit(f"reason_{i} with words", T + i * 20 * MINUTE, REAL, False, S.fail_safe)
    assert len(safe.begun) == 33 and safe.begun["other"] == 68


# what is seen of them

class Counts(dict):
    def inc(self, series, by=1, **labels):
        key = series.name, *labels.items()
        self[key] = self.get(key, 0) + by

    def set(self, series, value, **labels):
        self[(series.name, *labels.items())] = value


def test_halts_are_counted_once_and_those_of_an_earlier_life_not_again():
    counts, watch, pressure, safe = Counts(), Watch(triggers={reasons.DAILY_CAP: 3}), Pressure(), Safe()
    t = Telemetry(counts)
    t.guarded(watch, pressure, safe)
    watch.on_outcome(-600, T, S.risk)
    safe.on_crit("venue down", T, REAL, False, S.fail_safe)
    pressure.on_depth(11, 0, replace(S.backpressure, drop_mode="degrade", max_queue_len=10))
    for _ in range(2):
        t.guarded(watch, pressure, safe)
    assert counts[(m.DAILY_CAP_TRIGGER_TOTAL.name,)] == 1
    assert counts[m.MODE_SWITCH_TOTAL.name, ("from", REAL), ("to", PAPER), ("reason", BEGUN)] == 1
    assert counts[m.FAIL_SAFE_TRIGGER_TOTAL.name, ("reason", "venue")] == 1
    assert counts[m.BACKPRESSURE_TOTAL.name, ("mode", "degrade")] == 1
    assert (counts[(m.QUEUE_DEPTH.name,)], counts[(m.FAIL_SAFE.name,)], counts[(m.DAY_RESULT_USD.name,)]) == (11, 1, -600)


def test_each_signal_refused_by_a_warm_up_or_by_backpressure_is_counted():
    from builders import scored
    counts = Counts()
    Telemetry(counts).said([Dropped("D-1", scored(T), code, "", T) for code in (reasons.WARM_UP, reasons.WARM_UP, reasons.BACKPRESSURE)])
    assert counts[m.WARMUP_DROP_TOTAL.name, ("symbol", BTC)] == 2
    assert counts[m.BACKPRESSURE_TOTAL.name, ("mode", "halt")] == 1
