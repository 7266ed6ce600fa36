"""What the gate is worth: a shadow trades as no gate at all, an enforced one what it lets through, and the figures are the desks'."""
import json

import msgspec
import pytest
from builders import shipped
from fills import MADE, trips
from models import register
from test_stages import QUICK, SYMBOLS, frames

from engine.facts import BUY, SELL
from engine.fillprob.dataset import roundtrips
from engine.fillprob.model_v0 import FillModelV0
from engine.scoring.features import FEATURES
from scripts import gate_worth as command
from scripts import simulate_market
from store.figures_gate import worth_figure
from store.fill_model import save_model
from store.fill_outcomes import fixture
from store.gate_worth import ENFORCED, OFF, SHADOW, Entry, Judge, part, worth
from store.scorer import Scorer

BPS = 5000


@pytest.fixture(scope="module")
def ground(tmp_path_factory):
    """Five minutes of a simulated market, a model of the shipped features, and a fill model that thinks little of buys."""
    folder = tmp_path_factory.mktemp("worth")
    assert simulate_market.main(["--symbols", ",".join(SYMBOLS), "--hours", "0.08", "--seed", "5", "--to", str(folder / "market")]) == 0
    register(folder / "models", "m1", "active", names=FEATURES, tau=0.3)
    rows = [one for notional in ("50", "200", "700", "2000", "9000") for side, wins in ((BUY, 4), (SELL, 16))
            for one in trips(20, wins, notional, side)]
    save_model(FillModelV0.train(rows), folder / "fills", MADE)
    return folder


@pytest.fixture(scope="module")
def runs(ground):
    model = command.load_model(ground / "fills")
    return worth(shipped(**QUICK), Scorer.load(ground / "models"), frames(ground), [Judge("v0", model, BPS)], breaker=False)


def test_a_shadow_trades_as_no_gate_and_says_of_every_entry_what_it_would_have_done(runs):
    off, shadow, enforced = runs
    assert [r.mode for r in runs] == [OFF, SHADOW, ENFORCED] and len(off.entries) > 5
    assert command.differs(runs) == [] and shadow.blocks == 0 < shadow.low
    assert {e.prob_bps for e in off.entries} == {None} and all(e.prob_bps is not None for e in shadow.entries)
    let, low = shadow.apart()
    assert let.entries + low.entries == len(off.entries) and low.entries == shadow.low
    assert let.net_usd + low.net_usd == pytest.approx(off.told.net_usd)
    changed = msgspec.structs.replace(shadow, entries=shadow.entries[1:])
    assert command.differs([off, changed, enforced]) == [shadow.name]


def test_what_an_enforced_gate_blocks_is_not_sent_and_what_it_sends_it_has_let_through(runs):
    off, _, enforced = runs
    assert enforced.blocks > 0 and enforced.blocks == enforced.told.refused["FILL_PROB_LOW"]
    assert all((e.prob_bps or 0) >= BPS and e.id.endswith("-S") for e in enforced.entries) and enforced.entries
    assert any(e.id.endswith("-B") for e in off.entries)


def test_fills_and_results_are_those_of_the_desk(runs, tmp_path):
    for run in runs:
        (tmp_path / "fills.json").write_text(json.dumps(run.fills))
        rows = roundtrips(fixture(tmp_path / "fills.json"))
        whole = run.all()
        assert sum(r.net_pnl for r in rows) == pytest.approx(run.told.net_usd, abs=1e-6) == pytest.approx(whole.net_usd)
        closed = [e for e in run.entries if e.net_usd is not None and e.filled]
        assert whole.closed == run.told.trades and sum(e.bought_usd for e in closed) == pytest.approx(run.told.bought_usd)
        assert whole.sent_usd == pytest.approx(run.told.sent_usd) and whole.filled <= whole.entries == run.told.entries
        assert all(set(e.markouts) == {100, 500, 1000} for e in run.entries if e.filled and e.net_usd is not None)


def test_a_breaker_that_trips_lets_the_rest_pass(ground):
    model = command.load_model(ground / "fills")
    settings = shipped(**QUICK, GRINDER_FILL_PROB_CB_MIN_SAMPLES="2", GRINDER_FILL_PROB_CB_WINDOW_SECONDS="3600")
    *_, enforced = worth(settings, Scorer.load(ground / "models"), frames(ground), [Judge("v0", model, 10_000)])
    assert enforced.trips == 1 and enforced.blocks == 2 and enforced.bypassed > 0
    assert enforced.entries and {e.prob_bps for e in enforced.entries} == {None}


def test_of_nothing_there_is_no_rate_and_of_one_no_error():
    none, one = part([]), part([Entry("E-1", 0, 1, 10.0, bought_usd=10.0, net_usd=-0.01, markouts={100: 1.0})])
    assert none.fill_rate is None and none.per_unit_bps is None and none.markouts[100] is None
    assert one.per_unit_bps == pytest.approx(-10) and one.per_unit_error is None and one.markout_errors[100] is None


def test_the_command_prints_desks_and_verdicts_and_writes_page_json_and_fills(ground, tmp_path, capsys, monkeypatch):
    for name, value in QUICK.items():
        monkeypatch.setenv(name, value)
    args = [str(ground / "market"), "--models", str(ground / "models"), "--symbols", "BTCUSDT", "--to", "2026-01-05T00:02", "--model",
            str(ground / "fills"), "--threshold", str(BPS), "--no-breaker"]
    files = {name: tmp_path / name for name in ("json", "plot", "fills")}
    assert command.main([*args, *(word for name, path in files.items() for word in (f"--{name}", str(path)))]) == 0
    said = capsys.readouterr().out
    told = json.loads(files["json"].read_text())["runs"]
    assert [t["mode"] for t in told] == [OFF, SHADOW, ENFORCED]
    assert f"below {BPS} bps" in said and f"{told[2]['all']['net_usd']:+,.2f}" in said
    assert f"{told[1]['by_verdict']['below']['entries']}" in said
    assert len(json.loads(files["fills"].read_text())) > 0 and files["plot"].read_text().startswith("<!doctype html>")
    assert command.main([*args[:-5], "--model", str(tmp_path)]) == 1
    assert "no such file of a fill model" in capsys.readouterr().err


def test_the_figure_has_a_curve_a_desk_and_bars_of_both_verdicts(runs):
    figure = worth_figure(runs)
    curves, bars = ([t for t in figure.data if t.type == kind] for kind in ("scatter", "bar"))
    assert [c.y[-1] for c in curves] == [round(r.told.net_usd, 4) for r in runs if r.mode != SHADOW]
    let, low = runs[1].apart()
    assert [b.y[0] for b in bars[::3]] == [let.fill_rate, low.fill_rate]
