"""FillModelV1: virtual orders meet the fate that the venue would have given them, and a model of them serves what it was fitted to."""
import hashlib
import json
from pathlib import Path

import msgspec
import numpy as np
import pytest
from builders import shipped
from fills import MADE, T0
from hypothesis import given, settings
from hypothesis import strategies as st
from numba import typeof

from engine.execution.matching import Matching
from engine.facts import BOOK, BUY, LIMIT, REJECTED, SELL, Cancel, Fill, Order, cut, market_of
from engine.fillprob import model_v1, models, order_features, virtual
from engine.fillprob.documents import Refused, pretty, sha256
from engine.fillprob.evaluation import files
from engine.fillprob.evaluation_v1 import auc, evaluate, measured
from engine.fillprob.gate import ALLOW, BLOCK, JUDGED, PLACE, UNREADABLE, Act, FillProbGate
from engine.fillprob.model_v0 import FillModelV0
from engine.fillprob.model_v1 import FillModelV1
from engine.fillprob.order_features import COLUMNS, NAMES, WAYS, order_row, order_rows
from engine.fillprob.placement import Placement, placement_of
from engine.scoring.labels import stream_of
from engine.scoring.signals import SignalEngine
from engine.settings import Matching as Rules
from scripts import build_virtual_orders, eval_fill_model_v0, train_fill_model_v0, train_fill_model_v1
from store import fill_training, virtual_orders
from store.archive import ArchiveWriter
from store.fill_model import load_model, served_model
from store.fill_preflight import Asked, preflight
from tests.fills import trips
from tests.markets import market
from tests.test_labels import INSTRUMENT
from tests.test_labels import frame as made
from tests.test_labels import market as jumpy

S = shipped()
BTC = S.instrument("BTCUSDT")


def run(module, *args: object) -> int:
    return module.main([str(a) for a in args])


@pytest.fixture(scope="module")
def whole():
    """More than an hour of a rough market."""
    return market(5, 45_000, 110.0)


@pytest.fixture(scope="module")
def folder(tmp_path_factory, whole) -> Path:
    """An archive of it, a dataset of its first part and one of its second, a model and its evaluation, by the commands."""
    root = tmp_path_factory.mktemp("v1")
    with ArchiveWriter(root / "archive", "BTCUSDT", BTC, "test") as writer:
        writer.add(whole)
    chain(root, root / "w")
    return root / "w"


def chain(root: Path, out: Path) -> None:
    made = ["--created-at-utc", MADE]
    cut = "2026-01-05T09:00"
    archive = ["--data", root / "archive", "--orders", 12_000, "--out-dir", out / "ds", *made]
    assert run(build_virtual_orders, *archive, "--to", cut, "--dataset-id", "earlier") == 0
    assert run(build_virtual_orders, *archive, "--from", cut, "--dataset-id", "later") == 0
    assert run(train_fill_model_v1, "--dataset", out / "ds/earlier", "--out-dir", out / "model", *made) == 0
    assert run(eval_fill_model_v0, "--dataset", out / "ds/later", "--model", out / "model", "--out-dir", out / "eval", *made) == 0


@pytest.fixture(scope="module")
def orders(folder) -> virtual_orders.Orders:
    return virtual_orders.load(folder / "ds/earlier")[0]


@pytest.fixture(scope="module")
def model(folder) -> FillModelV1:
    got = load_model(folder / "model")
    assert isinstance(got, FillModelV1)
    return got


# what would have become of an order

def at_the_venue(whole, event: int, sign: int, price: int, lots: int, horizon: int, rules: Rules) -> tuple[int, int, int]:
    """(kind, first, whole) of the same order sent to the venue and taken back when its horizon is over."""
    venue, start = Matching("X", INSTRUMENT, rules, "s"), int(whole.times[event])
    at, _ = venue.advance(whole, 0, start)
    venue.place(Order("E", "entry", "E", "X", BUY if sign > 0 else SELL, float(lots), float(price), LIMIT, True, False, "paper", 0, start))
    venue.cancel(Cancel("E", "X", start + horizon, "over"))
    first, got = -1, 0
    while True:
        at, happened = venue.advance(whole, at, int(whole.times[-1]))
        for fact in happened:
            if isinstance(fact, Fill):
                first, got = (fact.ts_ms - start if first < 0 else first), got + round(fact.qty)
                if got == lots:
                    return virtual.RESTED, first, fact.ts_ms - start
            elif fact.order_id == "E" and fact.status == REJECTED:
                return virtual.REFUSED, -1, -1
            elif not venue.live:
                return virtual.RESTED, first, -1
        if not happened and at >= whole.n:
            return virtual.UNSEEN, -1, -1


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(120, 300), st.sampled_from([0.0, 0.5, 1.0]), st.sampled_from([0, 50]), st.booleans())
def test_a_virtual_order_meets_the_fate_that_the_venue_gives_it(seed, n, queue_ahead, latency, through):
    whole, rng = jumpy(seed, n), np.random.default_rng(seed)
    rules = Rules(latency_ms=latency, queue_ahead=queue_ahead, through_fills=through)
    event = np.flatnonzero(whole.kinds == BOOK)[1::9]
    m = len(event)
    sign, behind, lots, horizon = rng.choice([-1, 1], m), rng.integers(-2, 4, m), rng.integers(1, 9, m), rng.integers(50, 3000, m)
    rows = whole.book_rows[np.cumsum(whole.kinds == BOOK)[event] - 1]
    price = np.where(sign > 0, rows[:, 0, 0], rows[:, 2, 0]) - sign * behind
    got = virtual.fates(stream_of([whole]), event, sign, price, lots, horizon, rules)
    for k in range(m):
        kind, first, done = at_the_venue(whole, int(event[k]), int(sign[k]), int(price[k]), int(lots[k]), int(horizon[k]), rules)
        assert got.kind[k] == kind or got.kind[k] == virtual.UNSEEN, f"order {k} at event {event[k]}"
        if got.kind[k] == virtual.RESTED:
            assert (got.first_ms[k], got.whole_ms[k]) == (first, done), f"order {k} at event {event[k]}"


@pytest.mark.parametrize("at, filled", [(1049, 1049), (1050, 1050), (1051, -1)])
def test_an_order_is_taken_back_one_latency_after_its_horizon(at, filled):
    events = [(0, "book", 1000, 1001, 5), (at, "trade", 999, 9, -1), *((t, "book", 1000, 1001) for t in range(2000, 4000, 100))]
    got = virtual.fates(stream_of([made(events)]), np.array([0]), np.array([1]), np.array([1000]), np.array([1]), np.array([1000]),
                        Rules(50, 1.0, True))
    assert (got.kind[0], got.first_ms[0]) == (virtual.RESTED, filled)


def test_the_first_lot_comes_no_later_than_the_last_and_both_within_the_horizon(orders):
    latency = S.matching.latency_ms
    assert ((orders.first_ms <= orders.whole_ms) | (orders.whole_ms < 0)).all() and (orders.y | (orders.whole_ms < 0)).all()
    assert (orders.first_ms <= orders.horizon_ms + latency).all() and (orders.first_ms[orders.y] > latency).all()
    assert 0.05 < orders.y.mean() < 0.95 and (orders.whole_ms[orders.y] < 0).any()


# features

def test_an_order_about_to_be_sent_has_the_features_that_orders_were_fitted_with_byte_for_byte(whole):
    engine = SignalEngine("BTCUSDT", BTC, S.windows, S.triggers, S.regimes, S.gates.liquidity_by_side.levels)
    again = SignalEngine("BTCUSDT", BTC, S.windows, S.triggers, S.regimes, S.gates.liquidity_by_side.levels)
    some = cut(whole, 0, 20_000)
    found, facts, touch = engine.columns(some), again.on(some), market_of(some)
    assert len(facts) > 500
    at = np.cumsum(some.kinds == BOOK)[found.event] - 1
    bid, ask = np.frombuffer(touch.bid, np.int32)[at], np.frombuffer(touch.ask, np.int32)[at]
    behind = np.arange(len(at)) % 9 - 2
    price = np.where(found.side > 0, bid, ask) - found.side * behind
    fitted = order_rows(found.features, found.side, price, np.stack([bid, ask], 1), found.around, np.full(len(at), 8000))
    for k, fact in enumerate(facts):
        placement = placement_of(fact, int(bid[k]), int(ask[k]), BTC.tick, 8000)
        row = order_row(Act(PLACE, "BTCUSDT", fact.side, round(int(price[k]) * BTC.tick, 10), 1.0, placement=placement))
        assert row is not None and row.tobytes() == fitted[k].tobytes()


def placed(orders, k: int, model, **changes) -> int:
    """What the model says of an order like one of the dataset, in a market with these sizes."""
    return int(model.bps(changed(orders, k, **changes)[None])[0])


def changed(orders, k: int, behind: int = 0, more: int = 0, horizon: int = 8000) -> np.ndarray:
    features = np.zeros((1, len(virtual_orders.FEATURES)), np.float32)
    for name, of in (("sigma", "sigma"), ("spread", "spread"), ("touch_bids", "touch_other"), ("touch_asks", "touch_other"),
                     ("gap_bids", "gap_own"), ("gap_asks", "gap_other"), ("qi", "qi"), ("trade_flow_slow", "flow_slow")):
        features[0, virtual_orders.FEATURES.index(name)] = orders.rows[k, NAMES.index(of)]
    sign, touch = int(orders.side[k]), np.array([[int(orders.bid[k]), int(orders.ask[k])]])
    own = int(touch[0, 0 if sign > 0 else 1])
    around = np.array([[40 + more, 160 + more, 50, 150, 30]])
    return order_rows(features, np.array([sign]), np.array([own - sign * behind]), touch, around, np.array([horizon]))[0]


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_every_feature_goes_the_way_that_it_is_declared_to_go(orders, data):
    k, step = data.draw(st.integers(0, len(orders.y) - 1)), data.draw(st.integers(1, 5000))
    behind, more, horizon = data.draw(st.integers(-3, 200)), data.draw(st.integers(0, 9999)), data.draw(st.integers(500, 60_000))
    here, ways = changed(orders, k, behind, more, horizon), np.array(WAYS)
    likelier = [(changed(orders, k, behind, more, horizon + step), 1), (changed(orders, k, behind + step, more, horizon), -1)]
    if orders.side[k] > 0:
        likelier.append((changed(orders, k, behind, more + step, horizon), -1))
    for there, sign in likelier:
        moved = there - here
        assert (moved[ways == 0] == 0).all() and (sign * ways * moved >= 0).all() and moved.any()


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_further_away_or_behind_more_is_never_likelier_and_longer_never_less_likely(model, orders, data):
    k = data.draw(st.integers(0, len(orders.y) - 1))
    behind, more = data.draw(st.integers(-3, 200)), data.draw(st.integers(0, 10_000))
    horizon, step = data.draw(st.integers(500, 60_000)), data.draw(st.integers(1, 5000))
    here = placed(orders, k, model, behind=behind, more=more, horizon=horizon)
    assert placed(orders, k, model, behind=behind + step, more=more, horizon=horizon) <= here
    assert placed(orders, k, model, behind=behind, more=more, horizon=horizon + step) >= here
    if orders.side[k] > 0:      # the queue is on the bid side
        assert placed(orders, k, model, behind=behind, more=more + step, horizon=horizon) <= here


@pytest.mark.parametrize("change", [{"bid": 0}, {"ask": 0}, {"features": b""}, {"features": b"\0" * 8}, {"tick": 0.0}, {"horizon_ms": 0}])
def test_an_order_whose_market_is_not_known_has_no_features(change):
    sound = Placement(np.zeros(len(virtual_orders.FEATURES), np.float32).tobytes(), 999, 1001, 0.1, 1, 2, 3, 4, 5, 1000)
    act = Act(PLACE, "BTCUSDT", BUY, 99.9, 1.0, placement=sound)
    assert order_row(act) is not None
    assert order_row(act._replace(placement=sound._replace(**change))) is None and order_row(act._replace(placement=None)) is None
    nan = np.full(len(virtual_orders.FEATURES), np.nan, np.float32).tobytes()
    assert order_row(act._replace(placement=sound._replace(features=nan))) is None


# the model

def test_the_commands_make_the_same_bytes_again(folder, tmp_path, monkeypatch):
    def hashes(at: Path) -> dict[str, str]:
        return {str(p.relative_to(at)): hashlib.sha256(p.read_bytes()).hexdigest() for p in sorted(at.rglob("*"))
                if p.is_file() and "eval" not in p.parts}       # a report says where its files lay
    chain(folder.parent, tmp_path)
    assert hashes(tmp_path) == hashes(folder) and len(hashes(folder)) == 6


def test_a_model_is_the_same_from_its_file_and_small(model, orders, folder):
    blob = (folder / "model/model.json").read_bytes()
    again = models.of_json(blob)
    assert again.to_json() == blob == model.to_json() and again.fingerprint == sha256(blob) and len(blob) < model_v1.MAX_BYTES
    assert isinstance(again, FillModelV1) and (again.bps(orders.rows) == model.bps(orders.rows)).all()
    assert all(model.predict(model_v1.OrderSeen(row)) == said for row, said in zip(orders.rows[:50], model.bps(orders.rows[:50])))


def test_the_flattened_trees_say_what_lightgbms_say(model, orders):
    import lightgbm as lgb
    train, _ = fill_training.parts(orders)
    params = fill_training.parameters(1337)
    booster = lgb.train(params, lgb.Dataset(orders.rows[train], orders.y[train], params=params), fill_training.TREES)
    theirs, ours = booster.predict(orders.rows, raw_score=True), model.sums(orders.rows) / model_v1.SCALE
    assert np.mean(np.abs(theirs - ours) < 1e-3) > 0.999


def test_no_order_that_was_fitted_reaches_into_the_time_that_was_held_out(orders):
    train, held = fill_training.parts(orders)
    spans = orders.ts_ms[held] // fill_training.BLOCK_MS
    assert train.any() and held.any() and not (train & held).any()
    for ms in (orders.ts_ms[train], (orders.ts_ms + orders.horizon_ms)[train]):
        assert not np.isin(ms // fill_training.BLOCK_MS, spans).any()


def test_the_model_knows_more_than_the_base_rate_of_orders_that_it_has_not_seen(model, folder):
    later, _ = virtual_orders.load(folder / "ds/later")
    got = measured(model.bps(later.rows), later.y)
    assert got["auc"] > 0.7 and got["brier"] < 0.9 * got["brier_base"] and got["ece"] < 0.06


def altered(blob: bytes, **change) -> bytes:
    return json.dumps({**json.loads(blob), **change}).encode()


CASES = [
    ({"trees": [[[0], [0.0], [0], [-1], [1, 2]]]}, "out_of_range"),                 # goes in a circle
    ({"trees": [[[0], [0.0], [-1], [-3], [1, 2]]]}, "out_of_range"),                # a leaf that is not there
    ({"trees": [[[COLUMNS], [0.0], [-1], [-2], [1, 2]]]}, "out_of_range"),
    ({"trees": [[[0], [0.0], [-1], [-2], [1]]]}, "out_of_range"),
    ({"trees": [[[0], [0.0], [-1], [-2], [1, 10**9]]]}, "out_of_range"),
    ({"trees": [[[0], ["0"], [-1], [-2], [1, 2]]]}, "bad_type"),
    ({"trees": {}}, "bad_type"), ({"global_prior_bps": True}, "bad_type"), ({"global_prior_bps": -1}, "out_of_range"),
    ({"calibration": [[0, 1.5]]}, "bad_type"), ({"calibration": []}, "out_of_range"), ({"calibration": [[0, 5], [1, 4]]}, "out_of_range"),
    ({"calibration": [[0, 5], [0, 6]]}, "out_of_range"), ({"calibration": [[0, 10_001]]}, "out_of_range"),
    ({"features": ["distance"]}, "schema_unsupported"), ({"label": "win"}, "schema_unsupported"),
    ({"schema_version": "fill_model_v9"}, "schema_unsupported"),
]


@pytest.mark.parametrize("change, code", CASES)
def test_a_file_that_somebody_wrote_on_purpose_is_refused_with_its_code(model, change, code):
    with pytest.raises(Refused) as no:
        models.of_json(altered(model.to_json(), **change))
    assert no.value.code == code


def test_every_key_is_needed_and_every_byte_is_pinned(model):
    blob, manifest = model.to_json(), model.manifest(MADE, "a" * 64)
    assert models.loaded(manifest, blob).to_json() == blob
    for key in model_v1.KEYS[1:]:
        left = {k: v for k, v in json.loads(blob).items() if k != key}
        with pytest.raises(Refused, match="missing_field"):
            models.of_json(json.dumps(left).encode())
    wrong = {"sha256_mismatch": (manifest, blob[:-2] + b" \n"), "missing_field": (manifest, None), "parse_error": (manifest[:-9], blob),
             "schema_unsupported": (manifest.replace(b"fill_model_v1", b"fill_model_v9"), blob)}
    for code, files_ in wrong.items():
        with pytest.raises(Refused, match=code):
            models.loaded(*files_)
    v0 = FillModelV0({}, 5000, 1).to_json()
    with pytest.raises(Refused, match="schema_unsupported"):      # another kind of model than its manifest says
        models.loaded(altered(manifest, sha256={"model.json": sha256(v0)}), v0)


# the ceremony

def test_v1_passes_the_preflight_and_its_report_recommends_a_threshold(folder, tmp_path, orders, model):
    report = json.loads((folder / "eval/eval_report.json").read_text())
    assert report["schema_version"] == "fill_model_eval_v0" and report["label"] == "filled" and report["in_sample"] is False
    assert report["n_wins"] + report["n_losses"] == report["n_rows"] == 2 * report["as_served_coverage_pct"] * report["n_rows"] / 200
    for row in report["threshold_sweep"]:
        assert row["tp"] + row["fp"] + row["tn"] + row["fn"] == report["n_rows"]
    text = preflight(Asked(folder / "model", folder / "eval", tmp_path, report["recommended_threshold_bps"], True)).text()
    assert f"[PASS] Model loads: Loaded: {model.n_bins} bins" in text and "[PASS] Auto-threshold resolution" in text
    got, line = served_model(folder / "model")
    assert got == model and line.startswith(f"FILL_MODEL_LOADED n_bins={model.n_bins} ")


def test_the_gate_blocks_by_v1_with_its_features_as_evidence_and_lets_pass_what_it_cannot_judge(model, whole):
    rules = shipped(GRINDER_FILL_MODEL_ENFORCE="1", GRINDER_FILL_PROB_EVIDENCE="1").fill_prob
    engine = SignalEngine("BTCUSDT", BTC, S.windows, S.triggers, S.regimes)
    fact = engine.on(cut(whole, 0, 9000))[300]
    row = whole.book_rows[np.cumsum(whole.kinds == BOOK)[fact.seq] - 1]
    near, way = placement_of(fact, int(row[0, 0]), int(row[2, 0]), BTC.tick, 8000), -1 if fact.side == BUY else 1
    own = near.bid if fact.side == BUY else near.ask
    act = Act(PLACE, "BTCUSDT", fact.side, own * BTC.tick, 1.0, placement=near)
    far = act._replace(price=(own + way * 5000) * BTC.tick)
    features = model.served(act)
    assert features is not None
    gate = FillProbGate(rules, model, model.predict(features))
    assert gate.judge(act._replace(placement=None), T0)[:2] == (ALLOW, UNREADABLE)
    no, yes = gate.judge(far, T0), gate.judge(act, T0)
    assert (no.verdict, no.why) == (BLOCK, JUDGED) and no.prob_bps < yes.prob_bps == gate.threshold_bps and yes.verdict == ALLOW
    assert no.evidence is not None and list(no.evidence["features"]) == list(NAMES) and no.evidence["features"]["behind_ticks"] == 5000
    assert json.loads(pretty(no.evidence))["model"] == model.about()


def test_a_win_rate_is_not_judged_by_orders_nor_a_fill_probability_by_trips(folder, tmp_path, capsys):
    from engine.fillprob.dataset import SCHEMA
    from store.fill_outcomes import write
    write(trips(20, 9), tmp_path, SCHEMA, MADE)
    assert run(train_fill_model_v0, "--dataset", tmp_path / SCHEMA, "--out-dir", tmp_path / "v0") == 0
    for dataset, judged in ((tmp_path / SCHEMA, folder / "model"), (folder / "ds/later", tmp_path / "v0")):
        assert run(eval_fill_model_v0, "--dataset", dataset, "--model", judged, "--out-dir", tmp_path / "eval") == 1
        assert "is judged by" in capsys.readouterr().err and not (tmp_path / "eval").exists()


def test_a_dataset_that_is_not_what_it_says_is_refused_by_name(folder, tmp_path, capsys):
    import shutil
    other = b"virtual_orders_v1", b"virtual_orders_v9"
    for name, spoil in (("data.parquet", lambda b: b[:-1] + b"x"), ("manifest.json", lambda b: b.replace(*other))):
        at = tmp_path / name
        shutil.copytree(folder / "ds/earlier", at)
        (at / name).write_bytes(spoil((at / name).read_bytes()))
        assert run(train_fill_model_v1, "--dataset", at, "--out-dir", tmp_path / "m") == 1
        assert str(at) in capsys.readouterr().err and not (tmp_path / "m").exists()
    few = virtual_orders.load(folder / "ds/earlier")[0]
    with pytest.raises(virtual_orders.ArtifactError, match="both fates are needed"):
        fill_training.fit(few.where(~few.y), 1)


def test_an_auc_is_the_share_of_pairs_in_order():
    rng = np.random.default_rng(3)
    p, y = rng.integers(0, 6, 60) / 10, rng.random(60) < 0.4
    pairs = [(a > b) + 0.5 * (a == b) for a in p[y] for b in p[~y]]
    assert auc(p, y) == pytest.approx(np.mean(pairs)) and np.isnan(auc(p, np.zeros(60, bool)))


def test_a_report_of_orders_is_a_report_of_trips_with_the_same_probabilities(model, orders):
    some = orders.where(np.arange(len(orders.y)) % 40 == 0)
    blob = files(evaluate(some.rows, some.y, model, "d", "m", "a", "b", MADE))["eval_report.json"]
    report = json.loads(blob)
    assert report["calibration_max_error_bps"] == max(row["error_bps"] for row in report["calibration"])
    assert sum(row["n_samples"] for row in report["calibration"]) == len(some.y) == report["n_rows"]
    assert msgspec.json.decode(blob) == report


def test_warming_meets_the_very_types_of_an_order_so_that_the_first_one_waits_for_no_compiler(monkeypatch):
    kernel, met = order_features._fill_rows, []

    def seen(*args):
        met.append([str(typeof(arg)) for arg in args])
        kernel(*args)
    monkeypatch.setattr(order_features, "_fill_rows", seen)
    order_features.warm()
    placement = Placement(np.ones(order_features.WIDTH, np.float32).tobytes(), 600_000, 600_001, 0.1, 5, 50, 6, 60, 40, 20_000)
    assert order_row(Act(PLACE, "BTCUSDT", SELL, 60_000.1, 0.1, placement=placement)) is not None
    assert met[0] == met[1]
