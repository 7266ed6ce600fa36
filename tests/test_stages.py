"""S0's stages over one market: the same candidates and scores, sizes apart, and what is told of them is what the desks did."""
import json

import msgspec
import pytest
from builders import shipped
from models import register

from benchmarks import bandit
from engine.facts import ENTRY, Order, Outcome
from engine.scoring.features import FEATURES
from scripts import backtest, replay, simulate_market
from scripts._stages import lines
from store.closed import Closed, frames_of
from store.figures_stages import leading, stages_figure
from store.ledger import Ledger
from store.scorer import Scorer
from store.stages import SEQUENCE, compared, flags_of

SYMBOLS = ["BTCUSDT", "ETHUSDT"]
QUICK = {"POLICY_COOLDOWN_SYMBOL": "2", "POLICY_COOLDOWN_GLOBAL": "0", "SLUICE_LOSS_STREAK_MAX": "0", "SLUICE_WARMUP_SECONDS": "1",
         "POLICY_MIN_CONFIDENCE": "0.3"}


@pytest.fixture(scope="module")
def ground(tmp_path_factory):
    """Five minutes of a simulated market, and a model of the shipped features."""
    folder = tmp_path_factory.mktemp("stages")
    assert simulate_market.main(["--symbols", ",".join(SYMBOLS), "--hours", "0.08", "--seed", "5", "--to", str(folder / "market")]) == 0
    register(folder / "models", "m1", "active", names=FEATURES, tau=0.3)
    return folder


def frames(ground):
    return frames_of(ground / "market", SYMBOLS, 256)


@pytest.fixture(scope="module")
def stages(ground):
    return compared(shipped(**QUICK), Scorer.load(ground / "models"), frames(ground))


def test_every_stage_hears_the_same_candidates_and_decides_as_it_would_alone(ground, stages):
    assert [s.digits for s in stages] == list(SEQUENCE) == ["000", "100", "110", "111"]
    for digits, told in (("000", stages[0]), ("111", stages[3])):
        s = msgspec.structs.replace(shipped(**QUICK), features=flags_of(digits))
        outs = [o for _, _, outs in Closed(s, Scorer.load(ground / "models"), frames(ground)) for o in outs]
        sent = [o for o in outs if isinstance(o, Order) and o.cause == ENTRY]
        assert told.sent_usd == pytest.approx(sum(o.qty * o.price for o in sent))
        assert told.entries == sum(o.decision is not None for o in sent)
        assert told.net_usd == pytest.approx(sum(o.net_usd for o in outs if isinstance(o, Outcome)))
    assert len({s.candidates for s in stages}) == 1 and stages[0].entries > 5


def test_switching_on_takes_from_the_same_wishes_and_never_adds(stages):
    same = [s.same_wishes_usd for s in stages]
    assert same[0] == pytest.approx(stages[0].planned_usd) and same == sorted(same, reverse=True)
    assert same[2] < same[1] and same[2] == same[3], "risk scaling takes, the queue of rewards touches no size"
    assert [bool(s.factors) for s in stages] == [False, False, True, True]
    assert [s.multipliers[0] == 1 for s in stages] == [True, True, False, False]


def test_only_the_last_stage_credits_by_order_id(stages):
    modes = [set(s.rewards) - {"expired"} for s in stages]
    assert modes == [{"mint"}, {"mint"}, {"mint"}, {"order_id"}]


def test_sizes_are_counted_by_what_bound_them_and_refusals_and_entries_are_all_candidates(stages):
    for s in stages:
        assert sum(s.caps.values()) == s.sizings >= s.entries
        assert sum(s.refused.values()) + s.entries == s.candidates
        assert [ms for ms, _, _ in s.curve] == sorted({ms for ms, _, _ in s.curve})
        assert s.curve[-1][1:] == (round(s.planned_usd, 2), round(s.net_usd, 4))


def test_the_table_and_the_figure_say_what_was_counted(stages):
    table = "\n".join(lines(stages))
    for s in stages:
        assert f"{s.planned_usd:,.0f}" in table and f"{s.net_usd:+,.2f}" in table
    figure = stages_figure(stages)
    assert [t.y[-1] for t in figure.data[:8:2]] == [round(s.planned_usd, 2) for s in stages]
    bars = [t for t in figure.data if t.type == "bar"]
    assert [sum(t.y) for t in bars[:4]] == [s.sizings for s in stages]


def test_of_many_names_the_most_frequent_are_shown():
    assert leading([{f"c{i}": i for i in range(12)}, {"c1": 100}]) == ["c1", *(f"c{i}" for i in range(11, 5, -1))]


def test_the_command_prints_them_side_by_side_and_writes_a_page_and_json(ground, tmp_path, capsys, monkeypatch):
    for name, value in (QUICK | {"POLICY_MIN_CONFIDENCE": "0.99"}).items():
        monkeypatch.setenv(name, value)
    more = ["--models", str(ground / "models"), "--symbols", "BTCUSDT", "--to", "2026-01-05T00:02"]
    common = [str(ground / "market"), "--stages", *more]
    assert replay.main(common) == 0
    said = capsys.readouterr()
    assert "nothing entered: no score reaches 0.99" in said.err and "BLOCK_LOW_CONFIDENCE" in said.out
    assert replay.main([*common, "--confidence", "0.3", "--plot", str(tmp_path / "s.html"), "--json", str(tmp_path / "s.json")]) == 0
    said = capsys.readouterr()
    got = json.loads((tmp_path / "s.json").read_text())["stages"]
    assert [g["digits"] for g in got] == list(SEQUENCE) and got[0]["entries"] > 0 and f"{got[0]['planned_usd']:,.0f}" in said.out
    assert (tmp_path / "s.html").read_text().startswith("<!doctype html>") and "nothing entered" not in said.err


@pytest.mark.parametrize("args, words", [(["--plot", "x.html"], "belong to --stages"), (["--stages", "--journal"], "one stage only"),
                                         (["--stages", "--confidence", "1.5"], "at most 1")])
def test_what_cannot_be_meant_is_said_before_anything_runs(args, words, capsys):
    with pytest.raises(SystemExit) as left:
        replay.main(args)
    assert left.value.code == 2 and words in capsys.readouterr().err


def test_on_a_market_the_bandit_is_measured_against_every_arm_run_alone(ground, capsys, monkeypatch):
    for name, value in (QUICK | {"SLUICE_BANDIT": "true"}).items():
        monkeypatch.setenv(name, value)
    few = ground / "few.yaml"
    few.write_text("bandit: {arms: 'o0-s100-p20,o2-s50-p20'}")
    assert bandit.main(["--market", str(ground / "market"), "--models", str(ground / "models"), "--confidence", "0.3", "--cooldown", "2",
                        "--config", str(few)]) == 0
    told = {line[:20].strip(): line[20:].split() for line in capsys.readouterr().out.splitlines()[3:]}
    assert set(told) == {"o0-s100-p20", "o2-s50-p20", "uniform", "bandit, shipped", "bandit, alpha 0.3"}
    alone = {name: float(told[name][2]) for name in ("o0-s100-p20", "o2-s50-p20")}
    best = max(alone, key=alone.get)
    assert float(told[best][4]) == 0 and float(told["uniform"][4]) == pytest.approx(alone[best] - float(told["uniform"][2]), abs=2e-4)
    assert told["uniform"][5] == "100.0%"


@pytest.mark.parametrize("command", [replay, backtest])
def test_a_stretch_of_market_in_which_nothing_is_there_is_said_and_has_no_digest(ground, capsys, monkeypatch, command):
    monkeypatch.setenv("SLUICE_DATA", str(ground / "data"))
    common = [str(ground / "market"), "--models", str(ground / "models")]
    assert command.main([*common, "--start", "2030-01-01"]) == 2
    told = capsys.readouterr()
    assert "from 2030-01-01 00:00: no event of the market is there; nothing was run" in told.err and "sha256" not in told.out
    assert command.main(common) == 0 and "sha256" in capsys.readouterr().out


def test_a_journal_without_a_fact_is_no_proof(tmp_path, capsys):
    url = f"sqlite:///{tmp_path}/ledger.db"
    Ledger(url, "risk").close()
    assert replay.main(["--journal", url]) == 2
    told = capsys.readouterr()
    assert "the journal holds no fact" in told.err and "byte-equal" not in told.out
