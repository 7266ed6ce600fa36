"""The bandit: exact probabilities, a state that is right, the same on every machine and kept whole, and rewards in comparable units."""
import doctest
import json
from collections import Counter

import msgspec
import numpy as np
import pytest
from builders import candidate, shipped
from hypothesis import given
from hypothesis import settings as runs
from hypothesis import strategies as st

from config.settings import ConfigError, load
from engine import metrics as m
from engine.rewards import arms, bandit, context, linear, reward
from engine.rewards.attribution import Attributed, Missed, Rewards, RewardState
from engine.rewards.bandit import Bandit, BanditState, vote
from engine.rewards.context import DIMENSION, NAMES, SCHEMA, context_of
from engine.rewards.queue import NOT_MATCHED
from engine.rewards.reward import Ended, net, slippage
from engine.rewards.telemetry import RewardTelemetry
from engine.scoring.features import FEATURES
from store.exporter import Exporter

S = shipped()
CONTEXTS = st.lists(st.floats(0, 1), min_size=DIMENSION, max_size=DIMENSION)
ROWS = st.lists(st.tuples(CONTEXTS, st.sampled_from(S.bandit.arms), st.floats(-1, 1)), max_size=40)


def rewards(s=S, **bandit_settings) -> Rewards:
    return Rewards(s.rewards, msgspec.structs.replace(s.bandit, **bandit_settings), s.features)


def walked(r: Rewards, n: int, seed: int = 3) -> list[Attributed | Missed]:
    """Orders with random contexts, of which most end one after the other; some never do, some end twice."""
    rng, out = np.random.default_rng(seed), []
    for i in range(n):
        choice = r.choose(f"E-{i}", "BTCUSDT", rng.random(DIMENSION).round(6).tolist(), 1_000 * i)
        r.sent(choice)
        for back in (int(rng.integers(0, 20)), 7):
            filled = float(rng.choice([0.0, 500.0, 1_000.0]))
            out.append(r.ended(Ended(f"E-{i - back}", "BTCUSDT", 1_000 * i, 1_000.0, filled, float(rng.normal(0, 0.3)) if filled else 0.0)))
        out += r.expire(1_000 * i)
    return out


# probabilities

@given(ROWS, CONTEXTS)
@runs(max_examples=60)
def test_propensities_sum_to_one_and_never_fall_below_the_floor(rows, x):
    b = Bandit(S.bandit, SCHEMA, DIMENSION)
    for row, arm, y in rows:
        b.learn(arm, row, y, 0.0, 0)
    p = b.propensities(x)
    assert sum(p.values()) == pytest.approx(1, abs=1e-12)
    assert min(p.values()) >= S.bandit.epsilon_floor / len(S.bandit.arms)
    assert b.choose("E-1", x).propensity == p[b.choose("E-1", x).arm]


def test_a_draw_happens_as_often_as_its_propensity_says():
    b = Bandit(msgspec.structs.replace(S.bandit, epsilon_floor=0.4), SCHEMA, DIMENSION)
    walked_rng = np.random.default_rng(1)
    for i in range(200):
        b.learn(S.bandit.arms[i % 8], walked_rng.random(DIMENSION).tolist(), (i % 8) / 8, 0.0, 0)
    x, n = [1.0] * DIMENSION, 20_000
    propensities = b.propensities(x)
    seen = Counter(bandit.drawn(propensities, vote(S.bandit.seed, f"E-{i}")) for i in range(n))
    assert Counter(b.choose(f"E-{i}", x).arm for i in range(100)) == Counter(
        bandit.drawn(propensities, vote(S.bandit.seed, f"E-{i}")) for i in range(100))
    for arm, p in propensities.items():
        assert abs(seen[arm] - n * p) < 5 * (n * p * (1 - p)) ** 0.5, arm


def test_arms_of_which_nothing_is_known_are_drawn_with_equal_chance():
    b = Bandit(S.bandit, SCHEMA, DIMENSION)
    assert set(b.propensities([0.5] * DIMENSION).values()) == {b.propensities([0.5] * DIMENSION)[S.bandit.arms[0]]}


def test_a_draw_is_a_function_of_seed_and_order_id():
    assert vote(1337, "sig-0") == 0.31895604849315473
    x = [0.5] * DIMENSION
    one, other = (Bandit(msgspec.structs.replace(S.bandit, seed=seed), SCHEMA, DIMENSION) for seed in (1, 2))
    ids = [f"E-{i}" for i in range(100)]
    assert [one.choose(i, x) for i in ids] == [one.choose(i, x) for i in ids]
    assert [one.choose(i, x).arm for i in ids] != [other.choose(i, x).arm for i in ids]


@pytest.mark.parametrize("u, arm", [(0.0, "a"), (0.2499, "a"), (0.25, "b"), (0.9999999, "c"), (1.0, "c")])
def test_a_number_falls_on_the_stretch_of_one_arm(u, arm):
    assert bandit.drawn({"a": 0.25, "b": 0.5, "c": 0.25}, u) == arm


def test_switched_off_every_order_has_the_one_arm_for_certain():
    r = rewards(enabled=False)
    for i in range(50):
        choice = r.choose(f"E-{i}", "BTCUSDT", [0.5] * DIMENSION, 0)
        assert (choice.arm, choice.propensity) == (S.bandit.arm, 1.0)


# what is learned

@given(ROWS)
@runs(max_examples=60)
def test_a_stays_symmetric_and_positive_definite_and_its_inverse_an_inverse(rows):
    ridge = linear.fresh(DIMENSION)
    for x, _, y in rows:
        ridge.learn(x, y, 1_000_000)
    a = np.array(ridge.a).reshape(DIMENSION, DIMENSION)
    inverse = np.array(ridge.inverse).reshape(DIMENSION, DIMENSION)
    assert (a == a.T).all() and (inverse == inverse.T).all()
    assert np.linalg.eigvalsh(a).min() >= 1 - 1e-9 and np.linalg.eigvalsh(inverse).min() > 0
    assert np.abs(a @ inverse - np.eye(DIMENSION)).max() < 1e-8
    xs, ys = np.array([x for x, *_ in rows]).reshape(-1, DIMENSION), np.array([y for *_, y in rows])
    assert ridge.weights == pytest.approx(np.linalg.solve(np.eye(DIMENSION) + xs.T @ xs, xs.T @ ys).tolist(), abs=1e-8)


def test_the_inverse_drifts_and_is_put_right_from_time_to_time():
    rng = np.random.default_rng(2)
    drifting, mended = linear.fresh(DIMENSION), linear.fresh(DIMENSION)
    base = rng.random(DIMENSION)
    for _ in range(6_000):      # nearly the same direction again and again: the inverse becomes ill-conditioned
        x = (base + 1e-3 * rng.random(DIMENSION)).tolist()
        drifting.learn(x, 0.1, 10**9)
        mended.learn(x, 0.1, 256)

    def wrong(ridge):
        return np.abs(np.array(ridge.a).reshape(DIMENSION, -1) @ np.array(ridge.inverse).reshape(DIMENSION, -1) - np.eye(DIMENSION)).max()
    assert drifting.a == mended.a
    assert mended.since < 256 and wrong(mended) < 0.5 * wrong(drifting) < 1e-9
    assert wrong(linear.Ridge(mended.a, linear.inverted(mended.a, DIMENSION), mended.b)) < 0.2 * wrong(drifting)


def test_a_matrix_that_is_not_positive_definite_is_refused():
    with pytest.raises(ValueError, match="pivot 1"):
        linear.inverted([1.0, 2.0, 2.0, 1.0], 2)


def test_a_reward_is_learned_blended_with_the_mean_and_not_with_the_bonus():
    r = rewards(smoothing=0.25)
    x = [1.0] + [0.0] * (DIMENSION - 1)
    first = r.choose("E-1", "BTCUSDT", x, 0)
    assert first.expected == 0.0, "nothing is known: the mean is 0, whatever the bonus"
    r.sent(first)
    paid = r.ended(Ended("E-1", "BTCUSDT", 5, 1_000.0, 1_000.0, 0.5))
    assert paid.reward == reward.squashed(5.0 / 5.0) and paid.learned == pytest.approx(0.75 * paid.reward)
    assert r.bandit.state.arms[first.arm].ridge.mean(x) == pytest.approx(paid.learned / 2), "one row against the prior's one"
    assert r.bandit.state.arms[first.arm].reward_sum == paid.reward


@pytest.mark.parametrize("arm, x, realised", [
    ("o0-s100-p20", [0.5] * (DIMENSION - 1), 0.1), ("o0-s100-p20", [0.5] * (DIMENSION + 1), 0.1), ("o9-s1-p1", [0.5] * DIMENSION, 0.1),
    ("o0-s100-p20", [0.5] * DIMENSION, float("nan")), ("o0-s100-p20", [float("inf")] + [0.5] * (DIMENSION - 1), 0.1),
])
def test_a_row_that_does_not_fit_is_counted_and_changes_nothing(arm, x, realised):
    b = Bandit(S.bandit, SCHEMA, DIMENSION)
    before = msgspec.msgpack.encode(b.state.arms)
    assert b.learn(arm, x, realised, 0.0, 9) is None
    assert msgspec.msgpack.encode(b.state.arms) == before and (b.state.refused, b.state.upto_ms) == (1, 0)


def test_a_context_of_another_dimension_is_drawn_for_uniformly():
    draw = Bandit(S.bandit, SCHEMA, DIMENSION).choose("E-1", [0.5])
    assert (draw.propensity, draw.expected) == (1 / len(S.bandit.arms), 0.0)


# the state

def test_equal_facts_give_equal_state_byte_for_byte_also_through_a_snapshot():
    whole, first, second = rewards(), rewards(), rewards()
    said = walked(whole, 300)
    half = walked(first, 150)
    kept = msgspec.msgpack.encode(first.state)
    second.restore(msgspec.msgpack.decode(kept, type=RewardState))
    assert msgspec.msgpack.encode(second.state) == kept
    rng = np.random.default_rng(5)
    for r in (first, second):
        rng = np.random.default_rng(5)
        for i in range(150, 300):
            r.sent(r.choose(f"E-{i}", "BTCUSDT", rng.random(DIMENSION).tolist(), 1_000 * i))
            r.ended(Ended(f"E-{i - int(rng.integers(0, 40))}", "BTCUSDT", 1_000 * i, 1_000.0, 1_000.0, 0.2))
            r.expire(1_000 * i)
    assert msgspec.msgpack.encode(first.state) == msgspec.msgpack.encode(second.state) != kept
    assert said[:len(half)] == half


def test_a_state_of_another_schema_or_dimension_is_not_used_and_counted():
    r = rewards()
    walked(r, 60)
    for schema, d in (("another", DIMENSION), (SCHEMA, DIMENSION + 1)):
        b = Bandit(S.bandit, schema, d)
        b.restore(msgspec.msgpack.decode(msgspec.msgpack.encode(r.bandit.state), type=BanditState))
        assert b.state.refused == len(S.bandit.arms) and {v.rewards for v in b.state.arms.values()} == {0}
    torn = msgspec.msgpack.decode(msgspec.msgpack.encode(r.bandit.state), type=BanditState)
    torn.arms["o0-s50-p20"].ridge.b.pop()
    kept = torn.arms["o1-s50-p20"].rewards
    b = Bandit(S.bandit, SCHEMA, DIMENSION, torn)
    assert b.state.refused == 1 and b.state.arms["o0-s50-p20"].choices == 0 and b.state.arms["o1-s50-p20"].rewards == kept


def test_an_arm_that_leaves_the_table_keeps_what_it_learned_and_is_drawn_no_more():
    r = rewards()
    walked(r, 200)
    kept = r.bandit.state.arms["o2-s50-p20"]
    fewer = rewards(arms=S.bandit.arms[:-1])
    fewer.restore(r.state)
    assert "o2-s50-p20" not in fewer.bandit.propensities([0.5] * DIMENSION)
    assert fewer.bandit.state.arms["o2-s50-p20"] is kept and kept.choices > 0


# attribution

@given(st.data())
@runs(max_examples=40)
def test_no_order_is_paid_twice_and_none_with_anothers_choice(data):
    r = rewards()
    sent, paid = {}, []
    for i in range(data.draw(st.integers(1, 15))):
        choice = r.choose(f"E-{i}", data.draw(st.sampled_from(["A", "B"])), [0.5] * DIMENSION, 0)
        assert r.sent(choice) is None
        sent[choice.order_id] = choice
    for _ in range(data.draw(st.integers(0, 40))):
        order_id = f"E-{data.draw(st.integers(0, 20))}"
        out = r.ended(Ended(order_id, data.draw(st.sampled_from(["A", "B"])), 0, 100.0, 100.0, 1.0))
        if isinstance(out, Attributed):
            assert (out.order_id, out.arm, out.context) == (order_id, sent[order_id].arm, sent[order_id].context)
            paid.append(out.order_id)
        else:
            assert order_id not in sent or order_id in paid
    late = r.expire(10**9)
    assert len(set(paid)) == len(paid) and {a.order_id for a in late} == set(sent) - set(paid)
    assert sum(v.rewards for v in r.bandit.state.arms.values()) == len(sent) == sum(v.choices for v in r.bandit.state.arms.values())


def test_the_flag_off_pays_the_first_choice_of_the_symbol():
    s = shipped(FEATURE_ORDER_ID_REWARD_MATCHING="false")
    r = rewards(s)
    for i in (1, 2):
        r.sent(r.choose(f"E-{i}", "BTCUSDT", [0.5] * DIMENSION, i))
    out = r.ended(Ended("E-2", "BTCUSDT", 9, 1.0, 1.0, 0.0))
    assert (out.order_id, out.mode) == ("E-1", "mint")


def test_what_is_counted_is_what_happened_and_the_debug_line_is_the_documents():
    r, lines = rewards(), []
    exporter = Exporter(["BTCUSDT"], arms=S.bandit.arms)
    telemetry = RewardTelemetry(exporter, lines.append)
    one, two = (r.choose(f"E-{i}", "BTCUSDT", [0.5] * DIMENSION, 0) for i in (1, 2))
    for choice in (one, two, two):
        telemetry.sent(choice, r.sent(choice))
    out = [r.ended(Ended("E-1", "BTCUSDT", 5, 1_000.0, 1_000.0, 0.5)), r.ended(Ended("E-1", "BTCUSDT", 6, 1_000.0)), *r.expire(10**7)]
    telemetry.said(out)
    telemetry.stands(r)
    text = exporter.text().splitlines()
    for series, value in (
            (m.REWARD_MATCH_TOTAL(mode="order_id"), 1), (m.REWARD_MATCH_TOTAL(mode="expired"), 1), (m.REWARD_MATCH_TOTAL(mode="mint"), 0),
            (m.REWARD_MATCH_MISS_TOTAL(reason="unmatched_order_id"), 1), (m.REWARD_PENDING_REFUSED_TOTAL(reason="duplicate_order_id"), 1),
            (m.PENDING_SELECTIONS(), 0), (m.BANDIT_REFUSED_ROWS(), 0)):
        assert f"{series} {float(value)}" in text
    assert sum(float(t.split()[1]) for t in text if t.startswith("bandit_choices_total{")) == 2
    assert sum(float(t.split()[1]) for t in text if t.startswith("bandit_rewards_total{")) == 2
    assert sum(float(t.split()[1]) for t in text if t.startswith("bandit_reward_sum{")) == pytest.approx(out[0].reward + out[2].reward)
    assert NOT_MATCHED == "no pending selection matched exec outcome"
    assert lines == ["no pending selection matched exec outcome | BTCUSDT | reason=unmatched_order_id | order_id=E-1, pending=1"]


# what an order is worth

@given(st.floats(-200, 200), st.floats(0, 1_000))
def test_a_reward_is_within_one_and_grows_with_the_result(net_usd, filled):
    at = Ended("a", "X", 0, 1_000.0, filled, net_usd)
    assert -1 < net(at, S.rewards) < 1
    assert net(msgspec.structs.replace(at, net_usd=net_usd + 1), S.rewards) >= net(at, S.rewards)


def test_half_a_size_is_half_a_result_and_what_was_not_bought_costs_what_it_may_have_brought():
    s, q = S.rewards, reward.squashed
    assert net(Ended("a", "X", 0, 1_000.0, 1_000.0, 0.5), s) == q(5.0 / s.scale_bps)
    assert net(Ended("a", "X", 0, 1_000.0, 500.0, 0.25), s) == q((2.5 - 0.5 * s.unfilled_bps) / s.scale_bps)
    assert net(Ended("a", "X", 0, 1_000.0), s) == net(Ended("a", "X", 0, 0.0), s) == q(-s.unfilled_bps / s.scale_bps)
    assert net(Ended("a", "X", 0, 1_000.0, 500.0, -0.6), s) > net(Ended("a", "X", 0, 1_000.0, 1_000.0, -1.2), s)


@pytest.mark.parametrize("filled, slip, worth", [(1.0, 0.0, 1.0), (1.0, 250.0, 0.75), (1.0, -250.0, 0.75), (1.0, 5_000.0, 0.0),
                                                 (0.0, 0.0, -0.5)])
def test_the_documents_form_of_a_reward(filled, slip, worth):
    assert slippage(Ended("a", "X", 0, 1.0, filled, 0.0, slip), S.rewards) == worth


# arms and contexts

@pytest.mark.parametrize("text", ["", "o0", "o-1-s100-p20", "o0-s0-p20", "o0-s101-p20", "o0-s100-p0", "o0-s100-p0.0", "o0-s100-pfast",
                                  "O0-s100-p20"])
def test_what_is_no_arm_is_refused(text):
    with pytest.raises(ValueError, match=r"expected|percent|seconds"):
        arms.arm(text)


@pytest.mark.parametrize("text, words", [
    ("bandit: {arms: [o0-s100-p20, oops]}", "bandit.arms: 'oops' is no arm"), ("bandit: {arms: [o0-s100-p20]}", "at least 2"),
    ("bandit: {arms: [o0-s100-p20, o0-s100-p20]}", "named twice"), ("bandit: {arms: [o0-s50-p8, o00-s50-p8]}", "mean the same arm"),
    ("bandit: {arm: o5-s100-p20}", "bandit.arm: 'o5-s100-p20' is not one of bandit.arms"), ("bandit: {epsilon_floor: 0}", "0.02"),
])
def test_a_table_that_cannot_be_meant_is_refused_at_the_border(tmp_path, text, words):
    path = tmp_path / "o.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError) as refused:
        load(path, env={})
    assert any(words in fault for fault in refused.value.faults)


@given(st.sampled_from(S.bandit.arms), st.sampled_from([1, -1]), st.integers(1_000, 1_000_000))
def test_no_arm_makes_an_order_nearer_larger_or_longer(text, sign, ticks):
    arm = arms.arm(text)
    assert sign * (ticks * 0.1 - arm.price(sign, ticks * 0.1, 0.1)) >= -1e-6
    assert 0 < arm.fraction <= 1 and 0 < arm.patience(S.desk.entry_ttl_ms) <= S.desk.entry_ttl_ms


def test_the_shipped_table_has_more_than_six_arms_and_no_two_of_a_meaning():
    assert len(S.bandit.arms) >= 6
    assert json.dumps(S.bandit.arms) == json.dumps(list(arms.table(S.bandit.arms)))


@given(st.lists(st.floats(width=32), min_size=len(FEATURES), max_size=len(FEATURES)), st.floats(), st.floats(), st.floats())
def test_a_context_lies_in_the_unit_cube_whatever_comes_in(row, p, exposure, equity):
    x = context_of(np.array(row, np.float32).tobytes(), p, exposure, equity)
    assert len(x) == DIMENSION and all(0 <= v <= 1 for v in x)


def test_a_context_reads_the_features_that_it_names():
    row = dict.fromkeys(FEATURES, 0.0) | {"spread": 1.0, "sigma": 5.0, "aligned_imbalance": 0.5, "aligned_flow": -1.0,
                                          "trade_intensity_slow": 4.0, "volatility_burst": 9.0}
    x = dict(zip(NAMES, context_of(list(row.values()), 0.8, 1_250.0, 5_000.0)))
    assert x == pytest.approx({"one": 1, "spread": 0.2, "sigma": 0.25, "imbalance": 0.75, "flow": 0, "intensity": 0.2, "burst": 1,
                               "confidence": 0.6, "exposure": 0.25})
    assert context_of(candidate(0).features, 0.8, 1_250.0, 5_000.0) == context_of([0.0] * len(FEATURES), 0.8, 1_250.0, 5_000.0)


def test_the_examples_in_the_docstrings_run():
    for module in (arms, bandit, context, reward):
        got = doctest.testmod(module, extraglobs={"arm": arms.arm})
        assert got.attempted and not got.failed
