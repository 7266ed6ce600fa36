"""The fill-probability gate in the desk's road and in a service: what it blocks, what it never touches, and that a re-run judges alike."""
import asyncio
import logging
import shutil

import msgspec
import pytest
from builders import SYMBOL, market, scored, settings
from fills import MADE, T0, trips
from services import Services, at, until
from test_entering import T, done, orders
from test_entering import desk as warm

from engine.desk import Desk
from engine.facts import GATING, TARGET, Control, Dropped, Report, ScoredBatch, Tick
from engine.fillprob.gate import Gating
from engine.fillprob.model_v0 import FillModelV0
from engine.reasons import FILL_PROB_LOW
from store import fill_model
from store.audit import rerun
from store.closed import Digests
from store.evidence import sound
from store.ledger import ledger_url
from streams.codec import encode
from streams.topics import MD_FRAMES, SIG_APPROVED, SIG_DROPPED, SIG_SCORED

SHOWN = {"blocks": "router_fill_prob_blocks_total", "enforce": "router_fill_prob_enforce_enabled", "loaded": "ml_fill_model_loaded",
         "effective": "router_fill_prob_effective_threshold_bps", "auto": "router_fill_prob_auto_threshold_bps"}
POOR = FillModelV0({}, 1200, 10)        # whatever is asked: 1200 bps


def gating(id_: str = "g1", model: FillModelV0 | None = POOR, threshold_bps: int = 2500, **rules) -> Control:
    """What a start found."""
    found = Gating(msgspec.structs.replace(settings().fill_prob, **rules), model.to_json().decode() if model else "", threshold_bps)
    return Control(id_, GATING, "risk", "a start", 0, T, found.details)


def test_an_unlikely_entry_is_blocked_with_its_numbers_and_nothing_is_reserved_for_it():
    d = warm()
    d.on(gating(enforce=True))
    [no] = d.on(scored(T))
    assert isinstance(no, Dropped) and (no.reason, no.numbers) == (FILL_PROB_LOW, "prob_bps=1200 < threshold_bps=2500")
    assert not d.portfolio.entries and d.portfolio.total_exposure_usdt == 0 and d.state.spent.usd == 0


def test_what_is_watched_is_sent_and_the_decision_says_what_the_gate_thought():
    d = warm()
    d.on(gating(evidence=True))
    first, *_ = orders(d.on(scored(T)))
    assert first.decision.gate == "SHADOW prob_bps=1200 threshold_bps=2500"
    [judged] = d.entering.verdicts()
    assert judged.evidence["action"]["qty"] == str(first.decision.qty) and judged.evidence["verdict"] == "SHADOW"


def test_what_closes_a_position_is_never_judged():
    d = warm()
    level = orders(d.on(scored(T)))[0]
    d.on(gating(enforce=True))
    [target] = [o for o in orders(done(d, level)) if o.cause == TARGET]
    assert target.reduce_only and d.state.gate.checks == 0
    out = [o for ms in range(1000, 60_000, 1000) for o in d.on(Tick(T + ms))]
    d.on(Report(target.id, SYMBOL, "cancelled", "requested", 0.0, 9, T + 61_000))
    assert any(o.order_id == target.id for o in out) and d.state.gate.checks == 0


def test_a_threshold_that_a_later_start_brings_is_in_force_from_then_on_and_a_restored_desk_goes_on_with_it():
    d = warm()
    d.on(gating(enforce=True, threshold_bps=1000))
    assert orders(d.on(scored(T))), "1200 is enough"
    other = Desk(d.mind)
    other.restore(d.snapshot())
    for one in (d, other):
        one.on(gating("g2", enforce=True, threshold_bps=1300))
        one.on(gating("g2", enforce=False))     # an id acts once
        [no] = one.on(scored(T + 1, p=0.99))
        assert no.reason == FILL_PROB_LOW
    assert d.snapshot() == other.snapshot()


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"gating": 1}', "not json"])
def test_a_word_about_the_gate_that_cannot_be_read_changes_nothing(text):
    d = warm()
    d.on(Control("g0", GATING, "t", "t", 0, T, {"gating": text}))
    assert d.state.gating is None and orders(d.on(scored(T)))


def test_a_model_that_cannot_be_read_lets_all_pass():
    d = warm()
    found = Gating(msgspec.structs.replace(settings().fill_prob, enforce=True), "{broken", 9000)
    d.on(Control("g0", GATING, "t", "t", 0, T, found.details))
    assert orders(d.on(scored(T)))


@pytest.fixture
def enforced(on_kafka, tmp_path):
    """Settings of a desk with a poor model that is enforced, its evaluation, and where evidence goes."""
    fill_model.save_model(POOR, tmp_path / "model", MADE)
    rows = trips(50, 13, start=T0)
    fill_model.save_evaluation(rows, POOR, tmp_path / "eval", dataset=tmp_path, dataset_sha256="0" * 64, model_dir=tmp_path / "model",
                               generated_at=MADE)
    s, but = at(on_kafka, symbols=[SYMBOL]), msgspec.structs.replace
    return but(s, warmup=but(s.warmup, enabled=False), fill_prob=but(
        s.fill_prob, model_dir=str(tmp_path / "model"), eval_dir=str(tmp_path / "eval"), enforce=True, evidence=True,
        artifact_dir=str(tmp_path / "artifacts")))


@pytest.mark.broker
def test_a_service_resolves_at_its_start_blocks_leaves_evidence_and_its_journal_is_judged_alike_without_the_model(
        enforced, tmp_path, caplog):
    caplog.set_level(logging.INFO)
    but = msgspec.structs.replace

    async def life(s, ts_ms: int, seq: int) -> tuple[dict, list, list]:
        async with Services(s) as services:
            await services.start("risk")
            held = services.workers["risk"].stage.host.desk
            await services.tell(MD_FRAMES, (SYMBOL, encode(market(50))))
            await until(lambda: held.state.touches)
            one = scored(ts_ms)
            one = but(one, signal=but(one.signal, seq=seq))
            batch, checks = ScoredBatch(SYMBOL, "t1", seq, 50, ts_ms, 0.0, [one]), held.state.gate.checks
            await services.tell(SIG_SCORED, (SYMBOL, encode(batch)))
            await until(lambda: held.state.gate.checks > checks or held.portfolio.entries)
            await asyncio.sleep(0.3)
            values = dict(line.rsplit(" ", 1) for line in services.exporter.text().splitlines() if not line.startswith("#"))
            shown = {key: float(values[f"grinder_{name}"]) for key, name in SHOWN.items()}
            return shown, await services.said(SIG_DROPPED), await services.said(SIG_APPROVED)

    last = int(market(50).times[-1])
    shown, dropped, approved = asyncio.run(life(enforced, last, 0))
    assert [d.reason for batch in dropped for d in batch.items] == [FILL_PROB_LOW] and not [o for a in approved for o in a.orders]
    assert shown == {"blocks": 1, "enforce": 1, "loaded": 1, "effective": 2500, "auto": shown["auto"]} and shown["auto"] > 0
    said = "\n".join(caplog.messages)
    for line in ("FILL_MODEL_LOADED n_bins=0 global_prior_bps=1200", "FILL_PROB_THRESHOLD_RESOLUTION_OK mode=recommend_only",
                 f"THRESHOLD_RESOLVED mode=recommend_only recommended_bps={shown['auto']:.0f} configured_bps=2500 effective_bps=2500",
                 "FILL_PROB_EVIDENCE verdict=BLOCK prob_bps=1200 threshold_bps=2500 enforce=true symbol=BTCUSDT"):
        assert line in said, line
    [proof], bad = sound(tmp_path / "artifacts" / "fill_prob")
    assert not bad and proof["verdict"] == "BLOCK"
    assert len(list((tmp_path / "artifacts" / "fill_prob").glob("threshold_resolution_*.json"))) == 1

    shutil.rmtree(tmp_path / "model")
    caplog.clear()
    tighter = but(enforced, policy=but(enforced.policy, max_exposure_per_symbol_usdt=100.0))
    shown, _, approved = asyncio.run(life(tighter, last + 1, 50))
    assert [o.decision.gate for a in approved for o in a.orders if o.decision] == [""], "without its model it fails open"
    assert shown["loaded"] == 0 and shown["blocks"] == 0
    assert "FILL_MODEL_LOAD_FAILED dir_missing=true" in "\n".join(caplog.messages)
    assert all(o.decision.margin_usd <= 100 for a in approved for o in a.orders if o.decision)
    other = but(enforced, fill_prob=settings().fill_prob, sizing=but(enforced.sizing, leverage=3.0))
    again = rerun(ledger_url(enforced), other, Digests())
    assert again.wrong is None and again.answers >= 2, "the journal has the settings of both lives"
