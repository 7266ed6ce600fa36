"""A transaction as bytes. A refusal names the score that it refused by its place among the scores consumed beside it.

Most of what a desk says is no: a refused candidate with its features would else stand in each transaction twice.
"""
from collections.abc import Iterator, Sequence
from itertools import chain

import msgspec

from engine.facts import Dropped, DroppedBatch, Fill, Record, Report, Scored, ScoredBatch


class Entry(msgspec.Struct, frozen=True, gc=False):
    """One transaction: facts in the order in which they were consumed, the answers, how far each log was read, and the last entry
    that was known to be published."""
    seq: int
    ts_ms: int
    consumed: list[Record | Report | Fill]
    produced: list[Record]
    marks: list[tuple[str, str, int, int]] = []
    acknowledged: int = 0


class Refusals(msgspec.Struct, frozen=True, gc=False, tag="refusals"):
    """A `DroppedBatch` without its scores: `of[i]` counts through the scores of the transaction; the columns are of one length."""
    symbol: str
    session: str
    ts_ms: int
    of: list[int]
    reasons: list[str]
    numbers: list[str]
    at_ms: list[int]


class Kept(msgspec.Struct, frozen=True, gc=False):
    """`Entry` as it is stored."""
    seq: int
    ts_ms: int
    consumed: list[Record | Report | Fill]
    produced: list[Record | Refusals]
    marks: list[tuple[str, str, int, int]] = []
    acknowledged: int = 0


_ENCODER = msgspec.msgpack.Encoder()
_DECODER = msgspec.msgpack.Decoder(Kept)


def scores(consumed: Sequence) -> Iterator[Scored]:
    """The scores among facts, in their order."""
    return chain.from_iterable(fact.items for fact in consumed if type(fact) is ScoredBatch)


def _referring(batch: DroppedBatch, places: dict[int, int]) -> DroppedBatch | Refusals:
    of = [places.get(id(item.scored), -1) for item in batch.items]
    if min(of, default=-1) < 0 or any(item.id != f"D-{item.scored.signal.id}" for item in batch.items):
        return batch
    return Refusals(batch.symbol, batch.session, batch.ts_ms, of, [item.reason for item in batch.items],
                    [item.numbers for item in batch.items], [item.ts_ms for item in batch.items])


def encode(entry: Entry) -> bytes:
    """The bytes of a transaction."""
    produced: list = entry.produced
    if any(type(said) is DroppedBatch for said in produced):
        places = {id(scored): k for k, scored in enumerate(scores(entry.consumed))}
        produced = [_referring(said, places) if type(said) is DroppedBatch else said for said in produced]
    return _ENCODER.encode(Kept(entry.seq, entry.ts_ms, entry.consumed, produced, entry.marks, entry.acknowledged))


def whole(consumed: Sequence, produced: Sequence) -> list:
    """Answers with every refusal's score put back; `IndexError` where it names one that was not consumed."""
    if not any(type(said) is Refusals for said in produced):
        return list(produced)
    told = list(scores(consumed))
    return [DroppedBatch(said.symbol, said.session, said.ts_ms, [
        Dropped(f"D-{told[k].signal.id}", told[k], reason, numbers, at_ms)
        for k, reason, numbers, at_ms in zip(said.of, said.reasons, said.numbers, said.at_ms, strict=True)])
        if type(said) is Refusals else said for said in produced]


def decode(blob: bytes) -> Entry:
    """The transaction of these bytes; msgspec's error where they are none."""
    kept = _DECODER.decode(blob)
    return Entry(kept.seq, kept.ts_ms, kept.consumed, whole(kept.consumed, kept.produced), kept.marks, kept.acknowledged)
