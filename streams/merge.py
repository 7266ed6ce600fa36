"""Several logs read as one, in the order in which the broker took their records.

A consumer hands over what it has fetched, one partition after the other: who comes back after a while would read all the scores of
that while before the market that they speak of, and take an old score for a fresh one.
"""
from collections import deque
from collections.abc import Mapping, Sequence

from aiokafka import AIOKafkaConsumer, ConsumerRecord, TopicPartition

WAIT_MS = 1000


class Merge:
    """What waited in the partitions of `reader` at the start, up to `ends`, by the broker's time of each record; at equal times in the
    order of `topics`. Afterwards what comes, each batch in that order.

    While there is a backlog, a record is given out once no other partition's backlog can still bring an older one. `most`: records
    given out, and held of a partition, at once.
    """

    def __init__(self, reader: AIOKafkaConsumer, topics: Sequence[str], ends: Mapping[TopicPartition, int], most: int):
        self.reader, self.most, self.ends = reader, most, dict(ends)
        self.rank = {topic: k for k, topic in enumerate(topics)}
        self.held: dict[TopicPartition, deque[ConsumerRecord]] = {tp: deque() for tp in ends}

    async def behind(self, tp: TopicPartition) -> bool:
        """Whether the backlog has more than was taken."""
        return await self.reader.position(tp) < self.ends[tp]

    async def fetch(self) -> list[ConsumerRecord]:
        """The next records in order; none where a second passed without any."""
        due = [tp for tp, records in self.held.items() if not records and await self.behind(tp)]
        if due or not any(self.held.values()):
            for tp, records in (await self.reader.getmany(*due, timeout_ms=WAIT_MS, max_records=self.most)).items():
                self.held[tp].extend(records)
        out: list[ConsumerRecord] = []
        while len(out) < self.most and not any([await self.behind(tp) for tp, records in self.held.items() if not records]):
            heads = [(records[0].timestamp, self.rank[tp.topic], tp) for tp, records in self.held.items() if records]
            if not heads:
                break
            out.append(self.held[min(heads)[2]].popleft())
        return out
