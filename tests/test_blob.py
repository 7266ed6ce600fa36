"""A transaction as bytes: what is read is what was written, and a refused score stands in it once."""
import msgspec
import pytest
from builders import closed_loop, market, reframed, settings
from hypothesis import given
from hypothesis import strategies as st

from engine.facts import Approved, Cancel, Dropped, DroppedBatch, Order, Outcome, Outcomes, ScoredBatch
from store.blob import Entry, Kept, Refusals, decode, encode

QUICK = settings(POLICY_COOLDOWN_SYMBOL="2", POLICY_COOLDOWN_GLOBAL="1")
WALK = closed_loop({"BTCUSDT": reframed(market(1500, gap_ms=120), 100)}, QUICK)[1]


def entry_of(steps) -> Entry:
    """A stretch of the closed loop as one transaction."""
    outs = [out for _, _, said in steps for out in said]
    acts = [o for o in outs if isinstance(o, (Order, Cancel))]
    produced = [Approved("BTCUSDT", "t1", 1, 2, 0.0, [a for a in acts if isinstance(a, Order)], [a for a in acts if isinstance(a, Cancel)],
                         "".join("o" if isinstance(a, Order) else "c" for a in acts)),
                DroppedBatch("BTCUSDT", "t1", 3, [o for o in outs if isinstance(o, Dropped)]),
                Outcomes("BTCUSDT", "t1", [o for o in outs if isinstance(o, Outcome)])]
    return Entry(7, 11, [fact for _, fact, _ in steps], produced, [("log1", "md.frames", 0, 5)], 6)


@given(st.integers(0, len(WALK) - 1), st.integers(1, 60))
def test_any_stretch_of_a_run_is_read_back_byte_for_byte(first, length):
    entry = entry_of(WALK[first:first + length])
    again = decode(encode(entry))
    assert msgspec.msgpack.encode(again) == msgspec.msgpack.encode(entry)


def test_the_features_of_a_refused_candidate_stand_in_the_bytes_once():
    entry = entry_of(WALK)
    refused = entry.produced[1].items
    assert len(refused) > 50
    blob = encode(entry)
    names = [item.scored.signal.id.encode() for item in refused]
    assert all(blob.count(name) == 1 for name in names)
    assert isinstance(msgspec.msgpack.decode(blob, type=Kept).produced[1], Refusals)


def test_a_refusal_of_a_score_that_was_not_consumed_beside_it_is_kept_whole():
    entry = entry_of(WALK[:40])
    alone = msgspec.structs.replace(entry, consumed=[fact for fact in entry.consumed if not isinstance(fact, ScoredBatch)])
    assert alone.produced[1].items
    assert msgspec.msgpack.encode(decode(encode(alone))) == msgspec.msgpack.encode(alone)


def test_a_refusal_that_names_a_missing_score_is_no_transaction():
    kept = Kept(1, 1, [], [Refusals("BTCUSDT", "t1", 1, [0], ["no_market"], [""], [1])])
    with pytest.raises(IndexError):
        decode(msgspec.msgpack.encode(kept))
