"""Several logs as one: what a service reads after a while away comes in the order in which it was written."""
import asyncio
import random

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition

from streams.admin import ensure
from streams.merge import Merge
from streams.topics import EXEC_REPORTS, MD_FRAMES, SIG_SCORED, named
from streams.worker import client_options


def test_logs_that_grew_while_nobody_read_are_read_in_the_order_in_which_they_were_written(on_kafka):
    ensure(on_kafka)
    topics = [named(t, on_kafka) for t in (MD_FRAMES, SIG_SCORED, EXEC_REPORTS)]      # the last stays empty
    rng = random.Random(3)

    async def go() -> tuple[list[str], list[str]]:
        producer = AIOKafkaProducer(acks="all", **client_options(on_kafka))
        await producer.start()
        reader = AIOKafkaConsumer(group_id=None, auto_offset_reset="none", **client_options(on_kafka))
        await reader.start()
        tps = [TopicPartition(t, 0) for t in topics]
        reader.assign(tps)
        for tp, end in (await reader.end_offsets(tps)).items():
            reader.seek(tp, end)
        written = []

        async def write(topic: str, pause: float = 0.003) -> None:
            written.append(f"{topic} {len(written)}")
            await producer.send_and_wait(topic, written[-1].encode(), partition=0)
            await asyncio.sleep(pause)                    # the broker's clock counts milliseconds

        for _ in range(150):
            await write(topics[0] if rng.random() < 0.5 else topics[1])
        merge, read = Merge(reader, topics, await reader.end_offsets(tps), 16), []
        while len(read) < len(written):
            read += [r.value.decode() for r in await merge.fetch()]
        for _ in range(20):                               # and so it goes on when there is no backlog
            await write(topics[rng.randrange(3)])
            got: list[str] = []
            while not got:
                got = [r.value.decode() for r in await merge.fetch()]
            read += got
        await producer.stop()
        await reader.stop()
        return written, read

    written, read = asyncio.run(asyncio.wait_for(go(), 60))
    assert len({name.split()[0] for name in written[:150]}) == 2
    assert read == written
