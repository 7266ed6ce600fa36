"""The gate: what it blocks, what it never does, and the breaker that keeps it from blocking too much."""
import json
from functools import cache

import msgspec
import pytest
from builders import shipped
from fills import T0, trips
from hypothesis import given
from hypothesis import strategies as st

from engine import metrics as m
from engine.facts import BUY, SELL, Candidate
from engine.fillprob.breaker import Breaker
from engine.fillprob.documents import Refused, pretty
from engine.fillprob.evidence import checked, name_of, sidecar
from engine.fillprob.gate import (
    ALLOW,
    AMEND,
    BLOCK,
    BYPASSED,
    CANCEL,
    EXEMPT,
    JUDGED,
    NO_MODEL,
    NOOP,
    PLACE,
    SHADOW,
    UNREADABLE,
    Act,
    FillProbGate,
    GateState,
)
from engine.fillprob.model_v0 import FillModelV0
from engine.fillprob.placement import placement_of
from engine.fillprob.telemetry import FillProbTelemetry, seen
from engine.fillprob.threshold import decide
from engine.settings import FillProb
from store.exporter import Exporter

MODEL = FillModelV0({"long|0|1|0": 2000, "short|0|1|0": 8000}, 6000, 10)
CANDIDATE = Candidate("c", "BTCUSDT", T0, BUY, 50.0, 49.0, 51.0, "normal", "imbalance", "h", b"", 0, 1, 2, 3, 4, 2400)
LOW, HIGH = Act(PLACE, "BTCUSDT", BUY, 50.0, 1.0), Act(PLACE, "BTCUSDT", SELL, 50.0, 1.0)


def gate(model=MODEL, threshold=2500, state=None, **env: str) -> FillProbGate:
    names = {"enforce": "MODEL_ENFORCE", "evidence": "PROB_EVIDENCE", "symbols": "PROB_ENFORCE_SYMBOLS",
             "pct": "PROB_CB_MAX_BLOCK_RATE_PCT", "window": "PROB_CB_WINDOW_SECONDS", "samples": "PROB_CB_MIN_SAMPLES"}
    return FillProbGate(rules(tuple((names[key], value) for key, value in {"enforce": "1", **env}.items())), model, threshold, state)


@cache
def rules(env: tuple[tuple[str, str], ...]) -> FillProb:
    return shipped(**{f"GRINDER_FILL_{name}": value for name, value in env}).fill_prob


def test_an_order_below_the_threshold_is_blocked_and_one_at_it_is_not():
    g = gate()
    no = g.judge(LOW, T0)
    assert (no.verdict, no.reason, no.prob_bps, no.numbers) == (BLOCK, "FILL_PROB_LOW", 2000, "prob_bps=2000 < threshold_bps=2500")
    assert no.lines == ("FILL_PROB_EVIDENCE verdict=BLOCK prob_bps=2000 threshold_bps=2500 enforce=true symbol=BTCUSDT action=PLACE",)
    assert gate(threshold=2000).judge(LOW, T0).verdict == ALLOW
    assert g.judge(HIGH, T0).verdict == ALLOW and g.judge(LOW._replace(action_type=AMEND), T0).verdict == BLOCK


def test_the_shadow_judges_and_never_blocks():
    g = gate(enforce="0")
    assert [g.judge(act, T0).verdict for act in (LOW, HIGH)] == [SHADOW, SHADOW]
    assert g.judge(LOW, T0).reason == "" and g.judge(LOW, T0).lines == ()
    assert (g.state.checks, g.state.low, g.state.blocks, g.state.breaker.judged) == (4, 3, 0, [])


@pytest.mark.parametrize("act", [LOW._replace(closing=True), LOW._replace(action_type=CANCEL), LOW._replace(action_type=NOOP)])
def test_what_closes_a_position_or_takes_an_order_back_is_not_judged(act):
    g = gate()
    assert g.judge(act, T0)[:2] == (ALLOW, EXEMPT) and g.state == GateState(phase=g.state.phase) and g.state.phase.checks == 0


def test_without_a_model_everything_passes_also_where_enforced():
    got = gate(model=None).judge(LOW, T0)
    assert (got.verdict, got.why, got.prob_bps) == (ALLOW, NO_MODEL, 0)


@pytest.mark.parametrize("price", [float("nan"), float("inf")])
def test_an_order_whose_numbers_are_none_passes(price):
    assert gate().judge(LOW._replace(price=price), T0)[:2] == (ALLOW, UNREADABLE)


class Asks:
    """A model that needs the market, and has no answer without."""
    fingerprint = "f"

    def served(self, act: Act) -> dict[str, int] | None:
        return None if act.placement is None else {"trades": act.placement.trades}

    def predict(self, features: dict[str, int]) -> int:
        return features["trades"]

    def about(self) -> dict[str, int | None]:
        return {}


def test_a_model_hears_of_the_market_and_an_order_that_it_cannot_judge_passes():
    g = gate(model=Asks())
    assert g.judge(LOW, T0)[:2] == (ALLOW, UNREADABLE) and g.state.checks == 0
    around = placement_of(CANDIDATE, 99, 101, 0.5, 20_000)
    assert (around.bid, around.ask, around.tick, around.horizon_ms) == (99, 101, 0.5, 20_000)
    assert g.judge(LOW._replace(placement=around), T0)[:3] == (BLOCK, JUDGED, 2400)


def test_only_listed_symbols_are_enforced_and_the_others_watched():
    g = gate(symbols="ETHUSDT")
    assert g.judge(LOW, T0).verdict == SHADOW and g.judge(LOW._replace(symbol="ETHUSDT"), T0).verdict == BLOCK


def test_a_threshold_of_0_blocks_nothing_and_is_a_threshold():
    zero = rules((("MODEL_ENFORCE", "1"), ("PROB_MIN_BPS", "0")))
    assert zero.min_bps == 0 and FillProbGate(zero, FillModelV0({}, 0, 1)).judge(LOW, T0).verdict == ALLOW


def test_evidence_is_for_what_was_blocked_or_watched_and_its_bytes_check():
    g = gate(evidence="1")
    proof = g.judge(LOW, T0).evidence
    assert proof == {
        "artifact_version": "fill_prob_evidence_v1", "ts_ms": T0, "verdict": "BLOCK", "prob_bps": 2000, "threshold_bps": 2500,
        "enforce": True, "features": {"direction": "long", "notional_bucket": 0, "entry_fill_count": 1, "holding_ms_bucket": 0},
        "action": {"action_type": "PLACE", "symbol": "BTCUSDT", "side": "BUY", "price": "50.0", "qty": "1.0"},
        "model": {"global_prior_bps": 6000, "n_bins": 2, "n_train_rows": 10}}
    assert g.judge(HIGH, T0).evidence is None
    watched = gate(evidence="1", enforce="0").judge(HIGH, T0)
    assert watched.evidence is not None and watched.lines[0].startswith("FILL_PROB_EVIDENCE verdict=SHADOW prob_bps=8000")
    blob, name = pretty(proof), name_of(proof) + ".json"
    assert name == f"{T0}_BLOCK_BTCUSDT.json" and checked(blob, sidecar(blob, name), name) == proof
    with pytest.raises(Refused, match="sha256_mismatch"):
        checked(blob.replace(b"2000", b"2001"), sidecar(blob, name), name)


# the breaker

def test_the_constructors_breaker_trips_at_the_first_block_and_the_services_waits_for_twenty():
    assert Breaker().record(True, 0)
    service = gate().breaker
    assert [service.record(True, k) for k in range(20)] == [False] * 19 + [True]


def test_the_runbooks_line_is_what_15_of_20_say():
    b = Breaker(300, 50, 20)
    for k in range(20):
        tripped = b.record(k >= 5, k)
    assert tripped
    assert b.line() == "FILL_PROB_CIRCUIT_BREAKER_TRIPPED block_count=15 total_count=20 block_rate_pct=75 window_seconds=300"


def test_exactly_half_does_not_trip_and_a_hair_more_does():
    b = Breaker(300, 50, 200)
    assert not any(b.record(k % 2 == 0, k) for k in range(200))
    assert b.record(True, 200)      # 101 of 201 is 50.2 %, which whole percents would hide


def test_at_100_percent_it_never_trips_and_out_of_range_settings_are_clamped():
    b = Breaker(300, 100)
    assert not any(b.record(True, k) for k in range(50))
    assert (Breaker(0, 500, 0).window_seconds, Breaker(0, 500).max_block_rate_pct, Breaker(1, -3).max_block_rate_pct) == (1, 100, 0)


def test_a_tripped_gate_lets_all_pass_counts_them_apart_and_judges_again_when_its_window_has_emptied():
    g = gate(window="10", samples="2")
    assert [g.judge(LOW, T0 + k).verdict for k in range(2)] == [BLOCK, BLOCK]
    assert [g.judge(LOW, T0 + 5000).why for _ in range(3)] == [BYPASSED] * 3
    assert g.judge(LOW, T0 + 10_000).why == BYPASSED
    assert g.judge(LOW, T0 + 10_002).verdict == BLOCK       # 10 s after the last that it remembers
    s = g.state
    assert (s.breaker.trips, s.bypassed, s.blocks, s.checks, s.phase.trips) == (1, 4, 3, 3, 1)


def test_each_episode_is_one_trip():
    g = gate(window="1", samples="1")
    lines = [line for k in range(4) for line in g.judge(LOW, T0 + 2000 * k).lines if "TRIPPED" in line]
    assert len(lines) == g.state.breaker.trips == 4


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 3000)), max_size=60), st.integers(1, 20), st.integers(0, 100), st.integers(1, 6))
def test_the_breaker_is_what_its_definition_says(told, window, pct, least):
    b, now, kept, tripped, trips = Breaker(window, pct, least), 0, [], False, 0
    for blocked, step in told:
        now += step
        kept = [(t, x) for t, x in kept if t >= now - 1000 * window]
        tripped = tripped and sum(x for _, x in kept) * 100 > pct * len(kept)
        assert b.is_tripped(now) == tripped
        if tripped:
            continue
        kept.append((now, blocked))
        if len(kept) >= least and sum(x for _, x in kept) * 100 > pct * len(kept):
            tripped, trips = True, trips + 1
        b.record(blocked, now)
        assert (b.state.tripped, b.state.trips) == (tripped, trips)


ACTS = st.lists(st.tuples(st.sampled_from((LOW, HIGH, LOW._replace(closing=True))), st.integers(0, 20_000)), max_size=50)


@given(ACTS, st.integers(0, 50))
def test_a_gate_that_is_restored_on_the_way_says_the_same(acts, cut):
    def said(g, restored):
        now, out = T0, []
        for k, (act, step) in enumerate(acts):
            now += step
            if restored and k == cut:
                g = gate(samples="3", evidence="1", state=msgspec.msgpack.decode(msgspec.msgpack.encode(g.state), type=GateState))
            out.append(g.judge(act, now))
        return out, g.state
    assert said(gate(samples="3", evidence="1"), False) == said(gate(samples="3", evidence="1"), True)


def test_a_phase_goes_on_over_a_restart_and_begins_anew_under_another_threshold():
    g = gate()
    g.judge(LOW, T0)
    again = gate(state=g.state)
    again.judge(HIGH, T0 + 3_600_000)
    assert seen(again) == {"market_seconds": 3600.0, "checks": 2, "blocks": 1, "low": 1, "bypassed": 0, "trips": 0, "window_checks": 1,
                           "window_blocks": 0}
    other = gate(threshold=3000, state=again.state)
    assert seen(other)["checks"] == 0 and other.state.checks == 2
    assert gate(model=FillModelV0.train(trips(4, 1)), threshold=3000, state=other.state).state.phase.under != other.under


# series

def test_the_series_say_what_the_gate_did_and_an_earlier_lifes_counts_are_not_counted_again():
    g = gate(window="10", samples="2")
    g.judge(LOW, T0)
    exporter = Exporter(["BTCUSDT"])
    telemetry = FillProbTelemetry(exporter)
    telemetry.opened(g, decide(None, 2500, False))
    for act in (LOW, LOW, HIGH):
        g.judge(act, T0)
    telemetry.on(g)
    text = exporter.text()
    for line in ("grinder_router_fill_prob_checks_total 1.0", "grinder_router_fill_prob_blocks_total 1.0",
                 "grinder_router_fill_prob_cb_trips_total 1.0", "grinder_router_fill_prob_cb_bypassed_total 2.0",
                 "grinder_router_fill_prob_enforce_enabled 1.0", "grinder_router_fill_prob_auto_threshold_bps 0.0",
                 "grinder_router_fill_prob_effective_threshold_bps 2500.0", "grinder_ml_fill_model_loaded 1.0",
                 "grinder_ml_fill_prob_bps_last 2000.0", "grinder_router_fill_prob_enforce_allowlist_enabled 0.0",
                 'grinder_router_fill_prob_phase{what="checks"} 2.0', "grinder_live_engine_initialized 1.0"):
        assert f"\n{line}\n" in text, line


def test_the_gates_series_have_help_and_none_of_the_labels_that_would_never_end():
    some = [s for s in m.ALL if s.name.startswith("grinder_")]
    assert len(some) == 13
    for series in some:
        assert series.help and not {"symbol", "order_id", "key", "client_id", "idempotency_key"} & series.labels.keys()
    json.dumps([s.name for s in some])
