"""FillModelV1 in the desk's road: what the gate and the sizing port serve is what was fitted, and a wrong folder stops a start."""
from pathlib import Path

import msgspec
import numpy as np
import pytest
from builders import book, candidate, reframed, scores, settings, shipped

from config.settings import ConfigError, load
from engine.desk import Desk
from engine.execution.matching import Matching
from engine.facts import BOOK, BUY, GATING, SELL, Control, Order, Scored
from engine.fillprob.gate import Gating
from engine.fillprob.model_v1 import SCALE, FillModelV1, Tree
from engine.fillprob.order_features import NAMES, order_rows
from engine.loop import Road, run
from engine.scoring.features import FEATURES
from engine.scoring.signals import SignalEngine
from engine.sizing.fill import Modelled, wired
from store.fill_model import save_model
from tests.fills import MADE
from tests.markets import market

T = 1_700_000_000_000
HORIZON, BEHIND = NAMES.index("horizon_s"), NAMES.index("behind_ticks")
MODEL = FillModelV1([Tree([BEHIND, BEHIND], [0.5, 3.0], [-1, -2], [1, -3], [SCALE, 0, -2 * SCALE]),
                     Tree([HORIZON], [10.0], [-1], [-2], [-SCALE // 4, SCALE // 4])], [(-2 * SCALE, 1000), (2 * SCALE, 9000)], 4000, 100)
QUICK = {"POLICY_COOLDOWN_SYMBOL": "0", "POLICY_COOLDOWN_GLOBAL": "0", "SLUICE_WARMUP_SECONDS": "0", "SLUICE_EQUITY_USD": "500000"}


def test_what_the_gate_served_on_the_way_is_what_the_whole_recording_would_be_fitted_with():
    whole, s = market(9, 14_000, 110.0), settings(**QUICK)
    i, near = s.instrument("BTCUSDT"), s.gates.liquidity_by_side.levels
    desk, engines = Desk(s), [SignalEngine("BTCUSDT", i, s.windows, s.triggers, s.regimes, near) for _ in range(2)]
    rules = msgspec.structs.replace(s.fill_prob, evidence=True)
    desk.on(Control("g", GATING, "t", "t", 0, 0, Gating(rules, MODEL.to_json().decode(), 0).details))
    road = Road("BTCUSDT", reframed(whole, 97), engines[0], scores, desk, Matching("BTCUSDT", i, s.matching, "s1"), s.matching.latency_ms)
    served, decided = [], []
    for _, _, outs in run({"BTCUSDT": road}):
        served += [judged.evidence for judged in desk.entering.verdicts()]
        decided += [out.decision for out in outs if isinstance(out, Order) and out.decision is not None]
    assert len(served) == len(decided) > 20
    c = engines[1].columns(whole)
    rows = whole.book_rows[np.cumsum(whole.kinds == BOOK)[c.event] - 1]
    at = {(ts, side): k for k, (ts, side) in enumerate(zip(c.ts_ms.tolist(), c.side.tolist()))}
    for proof, decision in zip(served, decided):
        signal = decision.scored.signal
        k = at[signal.ts_ms, 1 if signal.side == BUY else -1]
        ticks = np.array([round(decision.price / i.tick)])
        fitted = order_rows(c.features[[k]], c.side[[k]], ticks, rows[[k]][:, [0, 2], 0], c.around[[k]],
                            np.array([desk.entering.rewards.arms[decision.choice.arm].patience_ms]))[0]
        assert proof is not None and list(proof["features"].values()) == [float(v) for v in fitted]
        assert proof["prob_bps"] == int(MODEL.bps(fitted[None])[0]) and f"prob_bps={proof['prob_bps']}" in decision.gate


@pytest.fixture
def folder(tmp_path) -> Path:
    return save_model(MODEL, tmp_path / "v1", MADE)


@pytest.mark.parametrize("side", [BUY, SELL])
def test_a_desk_that_is_told_of_a_model_asks_it_about_every_level_and_the_size(folder, side):
    desk = Desk(shipped(SLUICE_FILL_CURVE=str(folder), SLUICE_BANDIT="false", **QUICK))
    assert isinstance(desk.entering.curve, Modelled) and desk.entering.curve.id == f"fm-{MODEL.fingerprint[:12]}"
    desk.on(book(60_000, 60_000.1, T))
    row = np.zeros(len(FEATURES), np.float32)
    row[FEATURES.index("sigma")], row[FEATURES.index("spread")] = 2.0, 0.2
    signal = msgspec.structs.replace(candidate(T, side, 60_000.0 if side == BUY else 60_000.1), features=row.tobytes())
    orders = [out for out in desk.on(Scored(signal, 0.9, "m1", 0.7, 0.4)) if isinstance(out, Order)]
    decision = orders[0].decision
    assert decision is not None and decision.sized is not None and decision.sized.curve == desk.entering.curve.id
    own, way = (600_000, 1) if side == BUY else (600_001, -1)
    for _, ticks, _, p in decision.rungs:
        price = np.array([ticks])
        around = np.array([[signal.bid_lots, signal.bid_depth, signal.ask_lots, signal.ask_depth, signal.trades]])
        fitted = order_rows(row[None], np.array([way]), price, np.array([[600_000, 600_001]]), around, np.array([20_000]))
        assert p == MODEL.bps(fitted)[0] / 10_000 and fitted[0, BEHIND] == way * (own - ticks)
    assert decision.sized.predicted.p_fill == decision.rungs[0][3]
    assert len({p for *_, p in decision.rungs}) > 1


def test_a_model_without_an_order_or_a_market_has_no_answer():
    curve = wired(None, MODEL.to_json().decode())
    from tests.test_sizing_predictors import NOW
    assert isinstance(curve, Modelled) and np.isnan(curve.p(NOW, 0.0))


def test_a_folder_that_is_no_model_keeps_the_desk_from_starting_and_is_named_with_its_key(folder):
    blob = (folder / "model.json").read_bytes()
    for spoil, words in ((lambda: (folder / "model.json").write_bytes(blob.replace(b"4000", b"4001")), "sha256_mismatch"),
                         (lambda: (folder / "model.json").unlink(), "cannot be read"),
                         (lambda: (folder / "manifest.json").write_text('{"schema_version": "fill_model_v0"}'), "cannot be read")):
        spoil()
        with pytest.raises(ConfigError) as caught:
            load(env={"SLUICE_FILL_CURVE": str(folder)})
        [fault] = caught.value.faults
        assert fault.startswith("SLUICE_FILL_CURVE: sizing.fill_curve: ") and str(folder) in fault and words in fault
    (folder / "model.json").write_bytes(blob)
    with pytest.raises(ConfigError, match="schema_unsupported"):
        load(env={"SLUICE_FILL_CURVE": str(folder)})
