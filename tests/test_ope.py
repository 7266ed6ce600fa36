"""Off-policy values: right on paper, unbiased, and between bounds that hold; and the command that prints them."""
import doctest
import json

import msgspec
import numpy as np
import pytest
import sqlalchemy as sa
from builders import shipped
from hypothesis import given
from hypothesis import settings as runs
from hypothesis import strategies as st

from benchmarks import bandit as benchmark
from benchmarks._arms import World, lived, logged
from engine.rewards import ope
from engine.rewards.attribution import Attributed
from engine.rewards.context import DIMENSION
from scripts import off_policy
from store import choices

S = shipped()
NAMES = S.bandit.arms
WORLD = World(NAMES, 1, 0.05, 0.4)
_, ROWS, _ = lived(WORLD, S, 600)


def paper(rewards=(1.0, 0.0, -0.5, 0.5), propensities=(0.5, 0.5, 0.25, 0.25), arms=(0, 1, 0, 1)) -> ope.Log:
    return ope.checked(["a", "b"], [[1.0]] * len(arms), arms, propensities, rewards)


# the estimators

def test_the_values_are_what_paper_and_pencil_say():
    log = paper()
    a = ope.fixed(log, "a")                                   # weights 2, 0, 4, 0
    assert ope.ips(log, a).value == (2 * 1.0 + 4 * -0.5) / 4
    assert ope.snips(log, a).value == (2 * 1.0 + 4 * -0.5) / 6
    assert ope.ips(log, a).ess == 6**2 / (4 + 16) and ope.on_policy(log).value == 0.25
    model = np.array([[0.5, 0.25]] * 4)                       # 0.5 + w (r − 0.5) for the rows of a
    assert ope.dr(log, a, model=model).value == 0.5 + (2 * 0.5 + 4 * -1.0) / 4
    cut = ope.ips(log, a, clip=3.0)
    assert cut.value == (2 * 1.0 + 3 * -0.5) / 4 and cut.clipped == 0.25


def test_the_bernstein_radius_is_the_theorems():
    # √(2 V ln(4/δ)/n) + 7 R ln(4/δ)/(3(n − 1)), V = 0.25, n = 101, R = 2, δ = 0.05
    doubt = np.log(80.0)
    assert ope.radius(0.25, 101, 2.0, 0.95) == pytest.approx(np.sqrt(2 * 0.25 * doubt / 101) + 7 * 2 * doubt / 300)


@pytest.mark.parametrize("freedom, t", [(2, 4.303), (3, 3.182), (5, 2.571), (10, 2.228), (30, 2.042), (1000, 1.962)])
def test_students_quantile_is_that_of_the_tables(freedom, t):
    assert ope.student(0.975, freedom) == pytest.approx(t, rel=0.015)


def test_a_policy_valued_on_its_own_rows_is_the_mean():
    log = logged(WORLD, 500, 0.3, np.random.default_rng(2))[0]
    same = np.tile(log.propensities[:, None], len(NAMES))
    for e in (ope.ips(log, same), ope.snips(log, same)):
        assert e.value == pytest.approx(log.rewards.mean()) and e.ess == pytest.approx(500)


def test_what_the_log_never_did_has_no_value():
    log = paper(arms=(0, 0, 0, 0))
    for e in ope.values(log, ope.fixed(log, "b")):
        assert np.isnan(e.value) and e.ess == 0 and e.normal == e.bernstein == (-1.0, 1.0)


def test_a_row_is_predicted_by_models_that_have_not_seen_it():
    log = logged(WORLD, 400, 0.5, np.random.default_rng(3))[0]
    before = ope.crossfitted(log)
    changed = log.rewards.copy()
    changed[7] = -changed[7]
    after = ope.crossfitted(log._replace(rewards=changed))
    same_fold = np.arange(400) % ope.FOLDS == 7 % ope.FOLDS
    assert (before[same_fold] == after[same_fold]).all() and (before[~same_fold] != after[~same_fold]).any()
    straight = logged(World(NAMES, 4, 0.1, 0.4), 8_000, 0.9, np.random.default_rng(4))
    error = ope.crossfitted(straight[0]) - straight[1]
    assert float(np.sqrt((error**2).mean())) < 0.06, "the world is linear, so the model can learn it"


@given(st.lists(st.tuples(st.integers(0, 1), st.floats(0.05, 1), st.floats(-1, 1)), min_size=2, max_size=60),
       st.sampled_from([None, 2.0, 5.0]))
@runs(max_examples=50)
def test_an_interval_holds_its_value_and_stays_within_what_rewards_can_be(rows, clip):
    arms, propensities, rewards = zip(*rows)
    log = paper(rewards, propensities, arms)
    for policy in (ope.fixed(log, "a"), ope.fixed(log, "b"), ope.uniform(log)):
        for e in ope.values(log, policy, clip=clip):
            if np.isnan(e.value):
                continue
            for interval in (e.normal, e.bernstein):
                assert -1 <= interval.low <= interval.high <= 1
                assert interval.low <= np.clip(e.value, -1, 1) + 1e-9 and np.clip(e.value, -1, 1) - 1e-9 <= interval.high
            assert 0 < e.ess <= log.n + 1e-9


@pytest.mark.parametrize("columns, words", [
    ({"rewards": (1.0, 0.0, 1.5, 0.5)}, "row 2: reward 1.5 is not between"),
    ({"rewards": (1.0, float("nan"), 0.0, 0.5)}, "row 1: reward nan"),
    ({"propensities": (0.5, 0.5, 0.25, 0.0)}, "row 3: propensity 0.0"), ({"propensities": (1.1, 0.5, 0.25, 0.5)}, "row 0: propensity 1.1"),
])
def test_a_row_that_cannot_be_is_named(columns, words):
    with pytest.raises(ValueError, match=words):
        paper(**columns)
    with pytest.raises(ValueError, match="least propensity"):
        ope.checked(["a"], [[1.0]], [0], [0.5], [0.0], least=0.6)


def test_in_five_hundred_logs_the_intervals_hold_the_truth_as_often_as_they_say():
    rng, n, replications = np.random.default_rng(12), 1_000, 500
    means = WORLD.means(WORLD.contexts(400_000, rng))
    policies = {"best arm": lambda m: np.eye(len(NAMES))[np.zeros(len(m), int)],
                "best of context": lambda m: np.eye(len(NAMES))[m.argmax(axis=1)]}
    truth = {name: float((of(means) * means).sum(axis=1).mean()) for name, of in policies.items()}
    held, values = {}, {}
    for _ in range(replications):
        log, expected = logged(WORLD, n, 0.2, rng)
        model = ope.crossfitted(log)
        for name, of in policies.items():
            for e in (ope.ips(log, of(expected)), ope.dr(log, of(expected), model=model)):
                held.setdefault((name, e.how), []).append([i.low <= truth[name] <= i.high for i in (e.normal, e.bernstein)])
                values.setdefault((name, e.how), []).append(e.value)
    for key, got in held.items():
        normal, bernstein = np.mean(got, axis=0)
        assert normal >= 0.93 and bernstein >= 0.95, f"{key}: {normal:.1%} {bernstein:.1%}"
        error = np.std(values[key]) / np.sqrt(replications)
        assert abs(np.mean(values[key]) - truth[key[0]]) < 4 * error, f"{key} is biased"


# the bandit in a world that is known

@pytest.mark.parametrize("propensity", [0.05, 0.5, 1.0])
def test_a_self_normalised_mean_of_one_effective_row_is_as_uncertain_as_rewards_can_be(propensity):
    log = paper(rewards=(0.7, 0.1, -0.3, 0.2), propensities=(propensity, 0.5, 0.5, 0.5), arms=(1, 0, 0, 0))
    found = ope.snips(log, ope.fixed(log, "b"))
    assert (found.value, found.ess, found.normal) == (pytest.approx(0.7), pytest.approx(1.0), (-1.0, 1.0))


def test_the_bandit_finds_the_best_arm_and_gives_away_less_than_uniform_draws():
    world = World(NAMES, 1, 0.3, 0.1)
    contexts = world.contexts(50_000)
    means = world.means(contexts)
    uniform = float((means.max(axis=1) - means.mean(axis=1)).mean())
    r, rows, regret = lived(world, S, 3_000, alpha=0.5)
    assert regret.mean() < 0.3 * uniform and regret[-300:].mean() < 0.15 * uniform
    assert [r.bandit.greedy(x) for x in contexts[:200].tolist()].count(NAMES[0]) > 190
    assert len(rows) == 3_000 and {row.mode for row in rows} == {"order_id"} and len({row.order_id for row in rows}) == 3_000
    shipped = lived(world, S, 3_000)[2]
    assert shipped.mean() < 0.6 * uniform


# the log and the command

@pytest.mark.parametrize("suffix", [".parquet", ".jsonl"])
def test_rows_come_back_as_they_were_written(tmp_path, suffix):
    path = tmp_path / f"rows{suffix}"
    rows = [*ROWS[:50], msgspec.structs.replace(ROWS[50], learned=None)]
    choices.write(rows, path)
    assert choices.read(path) == rows


def in_a_ledger(url: str, rows: list[Attributed], drop: str = "") -> None:
    """A projection's table as the reader expects it."""
    engine = sa.create_engine(url)
    kinds = {"propensity": sa.Float, "reward": sa.Float, "learned": sa.Float, "expected": sa.Float, "filled": sa.Boolean,
             "created_ms": sa.BigInteger, "ts_ms": sa.BigInteger}
    table = sa.Table(choices.TABLE, sa.MetaData(), *(sa.Column(c, kinds.get(c, sa.Text)) for c in choices.COLUMNS if c != drop))
    with engine.begin() as connection:
        table.create(connection)
        connection.execute(table.insert(), [
            {**{c: getattr(r, c) for c in choices.COLUMNS if c != drop}, "context": json.dumps(r.context)} for r in rows])
    engine.dispose()


def test_rows_are_read_from_a_ledgers_projection(tmp_path):
    url = f"sqlite:///{tmp_path / 'ledger.db'}"
    in_a_ledger(url, ROWS[:20])
    assert choices.read(url) == ROWS[:20]


def test_what_cannot_be_read_is_named(tmp_path, capsys):
    good = msgspec.to_builtins(ROWS[0])
    short = json.dumps(good) + "\n" + json.dumps(good | {"context": [1.0]})
    cases = {"a.jsonl": ('{"order_id": ', "line 1: not JSON"),
             "b.jsonl": (json.dumps(good | {"propensity": "x"}), "row 1: Expected `float`"),
             "c.jsonl": (short, f"row 2: context: 1 numbers, the first row has {DIMENSION}"),
             "d.parquet": ("oops", "not a parquet file"), "e.csv": ("", "ends in .parquet or .jsonl"),
             "f.jsonl": (json.dumps(good | {"propensity": 0.0}), "propensity 0.0 is not above 0")}
    for name, (text, words) in cases.items():
        (tmp_path / name).write_text(text)
        assert off_policy.main(["--rows", str(tmp_path / name)]) == 2
        assert words in capsys.readouterr().err, name
    assert off_policy.main(["--rows", str(tmp_path / "none.jsonl")]) == 2
    url = f"sqlite:///{tmp_path / 'ledger.db'}"
    in_a_ledger(url, ROWS[:2], drop="propensity")
    assert off_policy.main(["--rows", url]) == 2
    assert "no column propensity" in capsys.readouterr().err
    (tmp_path / "empty.jsonl").write_text("")
    assert off_policy.main(["--rows", str(tmp_path / "empty.jsonl")]) == 1
    assert "no row to value" in capsys.readouterr().err


def test_the_command_values_every_policy_by_every_estimator(tmp_path, capsys):
    path = tmp_path / "rows.parquet"
    guessed = [msgspec.structs.replace(r, mode="mint") for r in ROWS[:10]]
    choices.write([*guessed, *ROWS[10:]], path)
    assert off_policy.main(["--rows", str(path)]) == 0
    text = capsys.readouterr().out
    assert "590 rows (order_id 590; 10 rows left out); 95% intervals; weights uncut" in text
    for name in ("as logged", *NAMES, "uniform", "greedy, first half"):
        assert f"\n{name} " in text
    assert off_policy.main(["--rows", str(path), "--json", "--how", "dr", "--matched", "all", "--clip", "20"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["rows"] == 600 and [v["how"] for v in said["values"]] == ["mean"] + ["dr"] * (len(NAMES) + 2)
    [logged_] = [v for v in said["values"] if v["policy"] == "as logged"]
    assert logged_["value"] == pytest.approx(np.mean([r.reward for r in ROWS]))


def test_a_saved_bandit_is_valued_on_the_rows_that_it_has_not_learned_from(tmp_path, capsys):
    young, seen, _ = lived(WORLD, S, 300)
    choices.write(ROWS, tmp_path / "rows.jsonl")
    (tmp_path / "state").write_bytes(msgspec.msgpack.encode(young.bandit.state))
    assert off_policy.main(["--rows", str(tmp_path / "rows.jsonl"), "--state", str(tmp_path / "state"), "--json", "--how", "snips"]) == 0
    greedy = json.loads(capsys.readouterr().out)["values"][-1]
    later = [r for r in ROWS if r.created_ms > max(s.created_ms for s in seen)]
    assert (greedy["policy"], greedy["rows"]) == ("greedy, saved", len(later)) and 0 < len(later) < len(ROWS)
    old, _, _ = lived(WORLD, S, 700)
    (tmp_path / "state").write_bytes(msgspec.msgpack.encode(old.bandit.state))
    assert off_policy.main(["--rows", str(tmp_path / "rows.jsonl"), "--state", str(tmp_path / "state"), "--how", "dr"]) == 0
    assert "greedy, saved (in-sample)" in capsys.readouterr().out
    (tmp_path / "state").write_bytes(b"nothing")
    assert off_policy.main(["--rows", str(tmp_path / "rows.jsonl"), "--state", str(tmp_path / "state")]) == 2
    assert "not a saved bandit" in capsys.readouterr().err


def test_the_benchmark_says_what_was_given_away_and_writes_curves_and_rows(tmp_path, capsys):
    plot, rows = tmp_path / "regret.html", tmp_path / "rows.jsonl"
    assert benchmark.main(["--rounds", "120", "--plot", str(plot), "--log", str(rows)]) == 0
    text = capsys.readouterr().out
    assert "the context decides" in text and "best fixed arm" in text and plot.stat().st_size > 10_000
    assert len(choices.read(rows)) == 120
    assert benchmark.main(["--coverage", "3", "--rows", "200"]) == 0
    assert "Bernstein" in capsys.readouterr().out


def test_the_examples_in_the_docstrings_run():
    for module in (ope, off_policy):
        got = doctest.testmod(module)
        assert got.attempted and not got.failed
