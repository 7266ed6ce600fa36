"""Scores made for several frames at once are those made one by one, and a record that cannot be scored is met in its own turn."""
from types import SimpleNamespace

import msgspec
import numpy as np
import pytest
from builders import settings
from hypothesis import given
from hypothesis import strategies as st
from models import register

from engine.facts import BUY, Candidate, Candidates
from engine.scoring.features import FEATURES, SCHEMA_HASH
from streams.ai_scorer import Ahead, Scoring
from streams.codec import BadRecord, encode


@pytest.fixture(scope="module")
def scoring(tmp_path_factory) -> Scoring:
    """An active and a shadow model."""
    root = tmp_path_factory.mktemp("models")
    register(root, "m1", "active", names=FEATURES)
    register(root, "m2", "shadow", names=FEATURES, seed=3)
    return Scoring(settings(SLUICE_MODELS=str(root)))


def record(offset: int, candidates: list[Candidate], value: bytes | None = None) -> SimpleNamespace:
    """A record of sig.candidates."""
    frame = Candidates("BTCUSDT", "t1", offset * 100, 100, offset, 0.0, candidates)
    return SimpleNamespace(topic="sig.candidates", partition=0, offset=offset, value=encode(frame) if value is None else value)


def candidates(n: int, seed: int, schema: str = SCHEMA_HASH) -> list[Candidate]:
    """Candidates with random features."""
    rows = np.random.default_rng(seed).standard_normal((n, len(FEATURES))).astype(np.float32)
    return [Candidate(f"c{seed}-{i}", "BTCUSDT", i, BUY, 1.0, 0.9, 1.1, "normal", "ofi", schema, row.tobytes(), i)
            for i, row in enumerate(rows)]


@given(st.lists(st.integers(0, 5), min_size=1, max_size=8), st.booleans())
def test_scores_of_frames_that_wait_together_are_byte_for_byte_those_of_each_alone(scoring, sizes, one_of_another_schema):
    frames = [candidates(n, seed) for seed, n in enumerate(sizes)]
    if one_of_another_schema:
        frames[0] = candidates(2, 99, "another")
    records = [record(i, items) for i, items in enumerate(frames)]
    together, alone = Ahead(scoring.score), Ahead(scoring.score)
    together(records)
    for one in records:
        assert msgspec.msgpack.encode(together.take(one)) == msgspec.msgpack.encode(alone.take(one))


def test_frames_that_wait_together_are_scored_in_one_batch(scoring):
    asked: list[int] = []

    def counted(items):
        asked.append(len(items))
        return scoring.score(items)

    ahead, records = Ahead(counted), [record(i, candidates(3, i)) for i in range(4)]
    ahead(records)
    assert [len(ahead.take(one)[1]) for one in records] == [3, 3, 3, 3]
    assert asked == [12]


def test_a_record_that_is_no_fact_is_named_in_its_own_turn_and_the_others_are_scored(scoring):
    ahead, good = Ahead(scoring.score), [record(i, candidates(2, i)) for i in range(2)]
    bad = record(7, [], b"\xc1not a fact")
    ahead([good[0], bad, good[1]])
    assert [len(ahead.take(one)[1]) for one in good] == [2, 2]
    with pytest.raises(BadRecord, match=r"sig\.candidates/0/7"):
        ahead.take(bad)
