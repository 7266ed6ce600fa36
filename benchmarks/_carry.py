"""How many events a second features and scores carry through the broker, beside a loop that takes them record by record."""

import asyncio
import time
from collections.abc import Iterator
from itertools import islice

import msgspec
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition

from benchmarks._bench import counted, running, until
from config.settings import Settings
from engine.facts import Frame, ScoredBatch, cut
from engine.market.simulator import Simulator
from engine.scoring.signals import warm
from store import bus
from streams import admin
from streams.ai_scorer import Scoring
from streams.codec import decode, encode
from streams.signal_engine import Engines
from streams.topics import MD_FRAMES, SIG_CANDIDATES, SIG_SCORED, named
from streams.worker import client_options, wall_ms

START_MS = 1_700_000_000_000
TOGETHER = 50       # frames handed to the producer at once
WARM = 0.1          # of the frames are left out at the beginning


def markets(settings: Settings, symbols: list[str], events: int, size: int) -> Iterator[Frame]:
    """So many simulated events in frames of that size, the symbols in turn."""
    makers = [Simulator(s, settings.instrument(s), settings.market[s], 11, START_MS, "b1") for s in symbols]
    for _ in range(events // size // len(symbols)):
        for maker in makers:
            frame = maker.frame(2**62, size)
            assert frame is not None
            yield msgspec.structs.replace(frame, sent_ms=wall_ms())


def batched(frames: Iterator[Frame], n: int) -> Iterator[list[Frame]]:
    """Lists of up to n."""
    while some := list(islice(frames, n)):
        yield some


def published(settings: Settings, frames: Iterator[Frame]) -> int:
    """Frames on md.frames of fresh topics; how many."""
    admin.ensure(settings)
    topic = named(MD_FRAMES, settings)
    with bus.Publisher(settings) as out:
        return sum(out.send_all(topic, [(frame.symbol, encode(frame)) for frame in some]) for some in batched(frames, TOGETHER))


def stamps(settings: Settings, topic: str) -> list[tuple[int, bytes]]:
    """(wall clock in ms, bytes) of every record of the topic, in the order of writing."""
    found = [(r.ts_ms, r.value) for (name, partition) in bus.ends(settings, [topic]) for r in bus.read(settings, name, partition=partition)]
    return sorted(found, key=lambda r: r[0])


def framed(settings: Settings, env: dict[str, str], frames: int, size: int, workers: list[list[str]]) -> tuple[float, int]:
    """(events a second, candidates) of worker processes over `frames` frames that wait, by the clock of what they wrote."""
    topic = named(SIG_SCORED, settings)
    with running(*workers, env=env) as children:
        until(lambda: sum(last for _, last in bus.ends(settings, [topic]).values()) >= frames, children, 300)
    records = stamps(settings, topic)
    skipped = int(WARM * len(records))
    took = (records[-1][0] - records[skipped][0]) / 1000
    batches = [msgspec.msgpack.decode(blob, type=ScoredBatch) for _, blob in records]
    assert sum(b.n for b in batches) == frames * size, "an event was lost or told twice"
    return sum(b.n for b in batches[skipped + 1:]) / took, sum(len(b.items) for b in batches)


def decided(env: dict[str, str], frames: int, size: int) -> float:
    """Events a second of one worker of features, scores and desk over `frames` frames that wait, by its own count of what it decided."""
    port, series = int(env["SLUICE_METRICS_PORT"]), 'stage_latency_ms_count{service="risk"}'
    seen: list[tuple[float, float]] = []

    def all_decided() -> bool:
        seen.append((time.monotonic(), counted(port, series)))
        return seen[-1][1] >= frames

    with running(["scripts.run_live", "--services", "signal_engine,ai_scorer,risk"], env=env) as children:
        until(all_decided, children, 300, 0.05)
    first = next(at for at in seen if at[1] >= WARM * frames)
    return (frames - first[1]) * size / (seen[-1][0] - first[0])


def one_by_one(settings: Settings, events: int) -> float:
    """The alternative: one record an event, features and score in a plain aiokafka loop, one answer each, acks=all; events a second."""
    engines, scoring = Engines(settings), Scoring(settings)
    warm()
    source, out = named(SIG_CANDIDATES, settings), named(SIG_SCORED, settings)
    with bus.Publisher(settings) as publisher:
        whole = list(markets(settings, ["BTCUSDT"], events, events))
        publisher.send_all(source, (("BTCUSDT", encode(cut(f, i, i + 1))) for f in whole for i in range(f.n)))

    async def loop() -> float:
        reader = AIOKafkaConsumer(group_id=None, enable_auto_commit=False, auto_offset_reset="none", **client_options(settings))
        writer = AIOKafkaProducer(acks="all", **client_options(settings))
        await reader.start()
        await writer.start()
        place = TopicPartition(source, bus.partition_of("BTCUSDT", settings.kafka.partitions))
        reader.assign([place])
        reader.seek(place, 0)
        done, began, waiting = 0, 0.0, []
        async for record in reader:
            found = engines.on(decode(record.value))
            assert found is not None
            answer = ScoredBatch(found.symbol, found.session, found.seq, found.n, found.ts_ms, 0.0, scoring.score(found.items))
            waiting.append(await writer.send(out, encode(answer), key=b"BTCUSDT"))
            done += 1
            if done == int(WARM * events):
                began = time.perf_counter()
            if done == events:
                break
        await asyncio.gather(*waiting)
        took = time.perf_counter() - began
        await reader.stop()
        await writer.stop()
        return (events - int(WARM * events)) / took

    return asyncio.run(loop())
