"""How many events a second features and scores carry through the broker, beside a loop that takes them record by record."""

import asyncio
import time
from collections.abc import Iterator
from itertools import islice

import msgspec
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition

from benchmarks._bench import cpu_s, running, scraped, until
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
POLL_S = 0.2        # a count costs the worker some milliseconds
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


def carried(env: dict[str, str], ports: list[int], frames: int, size: int, services: str, done: str) -> tuple[float, float]:
    """(events a second, events a processor-second) of worker processes, one a port, over `frames` frames that wait: from the first that
    counts at the features to the last that is through the series `done`, by the workers' own counts."""
    seen: list[tuple[float, float, float, float]] = []      # time, frames taken, frames done, processor time

    def all_done() -> bool:
        series = [scraped(port) for port in ports]
        taken, through = (sum(v for one in series for k, v in one.items() if k.startswith(name))
                          for name in ('frames_total{service="signal_engine"', done))
        seen.append((time.monotonic(), taken, through, sum(cpu_s(child.pid) for child in children)))
        return through >= frames

    commands = [["scripts.run_live", "--services", services, "--metrics-port", str(port)] for port in ports]
    with running(*commands, env=env) as children:
        until(all_done, children, 300, POLL_S)
    first, last = next(at for at in seen if at[1] >= WARM * frames), seen[-1]
    events = (frames - first[2]) * size      # of which some are on their way already: what is not done at the first count
    taken = (frames - first[1]) * size
    return taken / (last[0] - first[0]), events / (last[3] - first[3])


def told(settings: Settings, frames: int, size: int) -> int:
    """Candidates on sig.scored; every event must be there once."""
    topic = named(SIG_SCORED, settings)
    batches = [decode(r.value) for (name, partition) in bus.ends(settings, [topic]) for r in bus.read(settings, name, partition=partition)]
    assert sum(b.n for b in batches) == frames * size, "an event was lost or told twice"
    return sum(len(b.items) for b in batches)


def one_by_one(settings: Settings, events: int) -> tuple[float, float]:
    """The alternative, (events a second, events a processor-second): features and score in a plain aiokafka loop, one record and one
    answer an event, acks=all."""
    engines, scoring = Engines(settings), Scoring(settings)
    warm()
    source, out = named(SIG_CANDIDATES, settings), named(SIG_SCORED, settings)
    with bus.Publisher(settings) as publisher:
        whole = list(markets(settings, ["BTCUSDT"], events, events))
        publisher.send_all(source, (("BTCUSDT", encode(cut(f, i, i + 1))) for f in whole for i in range(f.n)))

    async def loop() -> tuple[float, float]:
        reader = AIOKafkaConsumer(group_id=None, enable_auto_commit=False, auto_offset_reset="none", **client_options(settings))
        writer = AIOKafkaProducer(acks="all", **client_options(settings))
        await reader.start()
        await writer.start()
        place = TopicPartition(source, bus.partition_of("BTCUSDT", settings.kafka.partitions))
        reader.assign([place])
        reader.seek(place, 0)
        done, began, used, waiting = 0, 0.0, 0.0, []
        async for record in reader:
            found = engines.on(decode(record.value))
            assert found is not None
            answer = ScoredBatch(found.symbol, found.session, found.seq, found.n, found.ts_ms, 0.0, scoring.score(found.items))
            waiting.append(await writer.send(out, encode(answer), key=b"BTCUSDT"))
            done += 1
            if done == int(WARM * events):
                began, used = time.perf_counter(), time.process_time()
            if done == events:
                break
        await asyncio.gather(*waiting)
        took, used = time.perf_counter() - began, time.process_time() - used
        await reader.stop()
        await writer.stop()
        rest = events - int(WARM * events)
        return rest / took, rest / used

    return asyncio.run(loop())
