"""The closed loop: the same decisions however the market is framed, and no decision that sees the future."""
import hashlib

import msgspec
import pytest
from builders import closed_loop, market, reframed, settings
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from engine.facts import Dropped, Fill, Market, Order, Outcome, Report, ScoredBatch

QUICK = settings(POLICY_COOLDOWN_SYMBOL="2", POLICY_COOLDOWN_GLOBAL="1")


def digest(run) -> str:
    """SHA-256 over everything that happened and was decided, market slices apart: each symbol in its order, acts in that of all."""
    whole, each = hashlib.sha256(), {}
    for symbol, fact, outs in run:
        for one in (*([fact] if isinstance(fact, (Report, Fill)) else []), *outs):
            said = symbol.encode() + msgspec.msgpack.encode(one)
            each.setdefault(symbol, hashlib.sha256()).update(said)
            if not isinstance(one, Dropped):
                whole.update(said)
    return whole.hexdigest() + "".join(each[symbol].hexdigest() for symbol in sorted(each))


WALK = market(3000, gap_ms=120)
OTHER = market(3000, seed=2, symbol="ETHUSDT", price=300_000, tick=0.01, lot=0.01, gap_ms=120)


def test_decisions_orders_and_fills_are_byte_equal_for_frames_of_1_50_256_and_1000_events():
    runs = {size: closed_loop({"BTCUSDT": reframed(WALK, size)}, QUICK) for size in (1, 50, 256, 1000)}
    assert len({digest(run) for _, run in runs.values()}) == 1
    outcomes = [o for _, _, outs in runs[50][1] for o in outs if isinstance(o, Outcome)]
    assert len(outcomes) > 10, "a run in which nothing trades shows nothing"


@given(st.lists(st.integers(1, WALK.n - 1), max_size=40))
@hypothesis_settings(max_examples=25, deadline=None)
def test_decisions_are_equal_wherever_the_frames_are_cut(cuts):
    assert digest(closed_loop({"BTCUSDT": reframed(WALK, cuts)}, QUICK)[1]) == WHOLE


WHOLE = digest(closed_loop({"BTCUSDT": [WALK]}, QUICK)[1])


@pytest.mark.parametrize("sizes", [(7, 300), (256, 256), (1000, 50)])
def test_two_symbols_share_one_desk_in_market_time_whatever_their_framing(sizes):
    frames = {"BTCUSDT": reframed(WALK, sizes[0]), "ETHUSDT": reframed(OTHER, sizes[1])}
    assert digest(closed_loop(frames, QUICK)[1]) == BOTH


BOTH = digest(closed_loop({"BTCUSDT": [WALK], "ETHUSDT": [OTHER]}, QUICK)[1])


def test_the_desk_hears_of_the_market_the_venue_and_the_scores_that_may_enter_in_order_of_time():
    mind, run = closed_loop({"BTCUSDT": reframed(WALK, 100)}, QUICK)
    clock = ahead = 0
    for _, fact, outs in run:
        at = fact.upto_ms if isinstance(fact, Market) else fact.ts_ms
        if at < clock or (isinstance(fact, ScoredBatch) and at > clock):
            assert all(mind.weak(s) for s in fact.items), "only what cannot enter is told at another time than its own"
            assert all(isinstance(out, Dropped) for out in outs)
            ahead += 1
        else:
            clock = at
    assert ahead, "a run in which no weak scores are told together shows nothing"


def test_refusals_of_weak_scores_are_those_that_each_would_have_had_at_its_own_event():
    one, together = (closed_loop({"BTCUSDT": reframed(WALK, size)}, QUICK)[1] for size in (1, 1000))
    refused = [[o for _, _, outs in run for o in outs if isinstance(o, Dropped)] for run in (one, together)]
    assert refused[0] == refused[1]
    assert {r.ts_ms - r.scored.signal.ts_ms for r in refused[0]} == {0}, "in lock-step a score is answered at its own time"


def test_no_order_is_answered_before_its_latency_has_passed():
    _, run = closed_loop({"BTCUSDT": reframed(WALK, 100)}, QUICK)
    sent = {o.id: o.ts_ms for _, _, outs in run for o in outs if isinstance(o, Order)}
    answers = [(fact.order_id, fact.ts_ms) for _, fact, _ in run if isinstance(fact, (Report, Fill))]
    assert answers
    assert all(ts >= sent[order_id] + QUICK.matching.latency_ms for order_id, ts in answers)


def test_the_position_is_the_sum_of_the_fills_and_money_adds_up():
    mind, run = closed_loop({"BTCUSDT": reframed(WALK, 100)}, QUICK)
    fills = [fact for _, fact, _ in run if isinstance(fact, Fill)]
    outcomes = [o for _, _, outs in run for o in outs if isinstance(o, Outcome)]
    position = sum(f.qty if f.side == "BUY" else -f.qty for f in fills)
    assert mind.portfolio.positions["BTCUSDT"] == pytest.approx(position, abs=1e-9)
    assert position == pytest.approx(sum(e.sign * e.held for e in mind.portfolio.entries.values()), abs=1e-9)
    assert mind.portfolio.realized_usd == pytest.approx(sum(o.net_usd for o in outcomes))
    assert mind.portfolio.fees_usd == pytest.approx(sum(f.fee_usd for f in fills))
    assert all(o.net_usd == pytest.approx(o.gross_usd - o.fees_usd) for o in outcomes)
    assert mind.portfolio.orphans == 0


def test_a_desk_restored_from_a_snapshot_goes_on_byte_for_byte():
    _, run = closed_loop({"BTCUSDT": reframed(WALK, 100)}, QUICK)
    facts = [fact for _, fact, _ in run]
    for at in (len(facts) // 3, 2 * len(facts) // 3):
        from builders import desk
        first, second = desk(QUICK), desk(QUICK)
        for fact in facts[:at]:
            first.on(fact)
        second.restore(first.snapshot())
        for fact in facts[at:]:
            assert msgspec.msgpack.encode(first.on(fact)) == msgspec.msgpack.encode(second.on(fact))
        assert first.snapshot() == second.snapshot()
