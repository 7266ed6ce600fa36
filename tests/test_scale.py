"""Several workers of a stage: they share its partitions, hand them over, die and wake up, and no fact changes by it."""
import asyncio
import signal
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace

import msgspec
import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as examples
from hypothesis import strategies as st
from kafka.admin import MemberToRemove
from models import register

from benchmarks.scale import Workers, alone, digest, in_time, said, simulated
from config.settings import Settings, load
from engine import metrics as m
from engine.facts import Frame
from engine.scoring.features import FEATURES
from store import bus
from store.archive import ArchiveWriter
from store.closed import Closed, Digests, frames_of
from store.exporter import Exporter
from store.ledger import Ledger, ledger_url
from store.scorer import Scorer
from store.state import Kept
from streams import admin, signal_engine
from streams.codec import encode
from streams.shares import Moved, Nothing, Share
from streams.signal_engine import Engines
from streams.topics import MD_FRAMES, STATE_SIGNALS, group, named
from streams.worker import TopicPartition, Worker
from tests.test_route import Route

SYMBOLS = ["BTCUSDT", "ETHUSDT"]      # of two partitions the one lies on the second, the other on the first
EVENTS = 6000


@pytest.fixture(scope="module")
def frames() -> list[Frame]:
    """A market of two symbols, in time."""
    settings = load(env={})
    assert {bus.partition_of(s, 2) for s in SYMBOLS} == {0, 1}
    return in_time([simulated(settings, s, EVENTS) for s in SYMBOLS])


@pytest.fixture
def desk(on_kafka: Settings) -> dict[str, str]:
    """The environment of a desk of two partitions whose workers share, with a model."""
    register(Path(on_kafka.paths.models), "m1", "active", names=FEATURES, tau=0.5)
    return {"KAFKA_BOOTSTRAP_SERVERS": on_kafka.kafka.bootstrap, "SLUICE_DATA": on_kafka.paths.data, "SLUICE_FEED": on_kafka.feed,
            "SLUICE_MODELS": on_kafka.paths.models, "SLUICE_INSTANCE": on_kafka.instance, "SLUICE_PARTITIONS": "2",
            "SLUICE_SHARED": "true", "SLUICE_SESSION_MS": "2000", "SLUICE_SYMBOLS": ",".join(SYMBOLS), "SLUICE_LOG_LEVEL": "WARNING"}


def dealt(settings: Settings, stage: str = "signal_engine") -> list[int]:
    """How many partitions each worker of the stage has."""
    return sorted(len(has) for has in bus.members(settings, group(stage, settings)).values())


def test_the_engines_of_one_partition_are_handed_over_and_the_others_stay(frames):
    settings = load(env={})
    one, other, wanted = Engines(settings), Engines(settings), Engines(settings)
    partition = {s: bus.partition_of(s, 2) for s in SYMBOLS}
    expected = [wanted.on(f) for f in frames]
    half = len(frames) // 2
    got = [one.on(f, partition[f.symbol]) for f in frames[:half]]
    handed = one.parts(1)
    assert {name.split("|")[0] for name in handed} == {s for s in SYMBOLS if partition[s] == 1}
    other.restore(handed, 1)
    one.forget(1)
    assert one.parts(1) == {} and one.parts(0) and other.parts(0) == {}
    got += [(other if partition[f.symbol] else one).on(f, partition[f.symbol]) for f in frames[half:]]
    assert got == expected and sum(len(c.items) for c in got if c) > 100


@pytest.fixture
def handled() -> list[int]:
    """The offsets that `share` has handled."""
    return []


@pytest.fixture
def share(tmp_path, handled) -> Share:
    """A share of a worker that is not started."""
    async def handle(record) -> None:
        handled.append(record.offset)
    worker = Worker("signal_engine", load(env={"SLUICE_DATA": str(tmp_path)}), Exporter(SYMBOLS), [MD_FRAMES])
    worker.epochs = {"md.frames": "e"}
    share = Share(worker, handle, STATE_SIGNALS, Nothing())
    share.saved_at = float("inf")      # it has no broker to save to
    return share


AT = TopicPartition("md.frames", 0)


class Log:
    """A reader of one partition that gives the offsets it is told."""

    def __init__(self, *offsets: int):
        self.offsets = offsets

    async def getmany(self, **_) -> dict:
        return {AT: [SimpleNamespace(topic=AT.topic, partition=AT.partition, offset=o, value=b"") for o in self.offsets]}


@given(st.lists(st.tuples(st.integers(0, 8), st.integers(0, 4)), max_size=6), st.integers(0, 8))
@examples(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_however_often_a_partition_comes_and_goes_each_record_is_done_once_and_in_order(share, handled, hands, late):
    """`hands`: how many records are read in a term, and how many more another worker has done before it comes back."""
    handled.clear()

    async def life() -> int:
        done, waiting = 0, []
        for read, others in hands:
            share.due[AT] = share.worker.done[AT] = done
            waiting += await share.fetch(Log(*range(done, done + read)))        # behind what was read in the terms before
            while len(waiting) > late:
                await share.on_record(waiting.pop(0))
            done = share.worker.done[AT]
            share.due.clear()
            share.worker.done.clear()
            for record in waiting[:2]:
                await share.on_record(record)
            handled.extend(range(done, done + others))
            done += others
        return done

    assert [*range(asyncio.run(life()))] == handled


def test_a_record_of_a_partition_that_is_another_workers_is_not_taken(share):
    assert asyncio.run(share.fetch(Log(5, 6))) == []


@pytest.mark.parametrize("offsets", [(5, 7), (5, 5), (4,)])
def test_a_record_that_is_not_the_next_one_ends_the_worker_and_says_which_was_due(share, offsets):
    share.due[AT] = 5
    with pytest.raises(Moved, match=rf"md.frames/0: record {5 + len(offsets) - 1} was due, {offsets[-1]} came"):
        asyncio.run(share.fetch(Log(*offsets)))


class Pair:
    """Workers of the signal engine in one loop, on a real broker."""

    def __init__(self, settings: Settings):
        self.settings, self.running = settings, list[tuple[Worker, Exporter]]()

    async def add(self) -> Share:
        exporter = Exporter(SYMBOLS)
        worker = signal_engine.make(self.settings, exporter)
        worker.app.loop = asyncio.get_running_loop()
        await worker.app.start()
        self.running.append((worker, exporter))
        assert isinstance(worker.stage, Share)
        return worker.stage

    async def until(self, done: Callable[[], bool]) -> None:
        async with asyncio.timeout(30):
            while not done():
                for worker, _ in self.running:
                    assert not worker.app.crash_reason
                await asyncio.sleep(0.02)

    async def feed(self, frames: list[Frame]) -> None:
        def send() -> None:
            with bus.Publisher(self.settings) as out:
                out.send_all(named(MD_FRAMES, self.settings), ((f.symbol, encode(f)) for f in frames))
        await asyncio.to_thread(send)

    async def leave(self) -> None:
        worker, _ = self.running.pop(0)
        await worker.app.stop()


def read_upto(*shares: Share) -> dict[int, int]:
    """The last record done of each partition, over several workers."""
    return {partition: offset for share in shares for (_, _, partition), offset in share.kept.items()}


@pytest.mark.broker
def test_a_partition_that_is_handed_over_in_order_is_told_once_and_goes_on_with_its_windows(desk, frames):
    settings = load(env=desk)
    admin.ensure(settings)
    halves = frames[:len(frames) // 2], frames[len(frames) // 2:]
    last = [{p: sum(bus.partition_of(f.symbol, 2) == p for f in some) - 1 for p in (0, 1)} for some in (halves[0], frames)]

    async def life() -> tuple[list[int], list[int]]:
        pair = Pair(settings)
        one = await pair.add()
        await pair.feed(halves[0])
        await pair.until(lambda: read_upto(one) == last[0])
        other = await pair.add()
        await pair.until(lambda: len(one.due) == len(other.due) == 1)
        parted = [*one.due], [*other.due]
        await pair.feed(halves[1])
        await pair.until(lambda: read_upto(one, other) == last[1])
        await pair.leave()
        await pair.until(lambda: len(other.due) == 2)
        assert f"{m.PARTITIONS_READ(service='signal_engine')} 2.0" in pair.running[0][1].text()
        await pair.leave()
        return [tp.partition for tp in parted[0]], [tp.partition for tp in parted[1]]

    one, other = asyncio.run(life())
    assert sorted(one + other) == [0, 1]
    out, wanted = said(settings), alone(settings, frames)
    assert digest(out.candidates) == digest(wanted.candidates) and len(out.candidates) > 100
    assert out.told == len(frames)


@pytest.mark.broker
def test_a_worker_that_was_taken_for_dead_does_not_write_over_its_successors_state(desk, frames, caplog):
    settings = load(env=desk)
    admin.ensure(settings)
    topic, stage = named(STATE_SIGNALS, settings), group("signal_engine", settings)
    last = {p: sum(bus.partition_of(f.symbol, 2) == p for f in frames) - 1 for p in (0, 1)}

    def evict(member_id: str) -> None:
        with bus.admin(settings.kafka) as client:
            client.remove_group_members(stage, [MemberToRemove(member_id)])

    async def life() -> None:
        pair = Pair(settings)
        one, other = await pair.add(), await pair.add()
        await pair.until(lambda: len(one.due) == len(other.due) == 1)
        await pair.feed(frames)
        await pair.until(lambda: read_upto(one, other) == last)
        await one.save()
        for key in one.kept:
            one.kept[key] -= 5                   # what a worker would write that lagged behind its successor
        assert one.reader is not None
        await asyncio.to_thread(evict, one.reader._coordinator.member_id)
        await pair.until(lambda: "not saved" in caplog.text)
        await pair.until(lambda: len(one.due) == len(other.due) == 1 and read_upto(one, other) == last)
        await pair.leave()
        await pair.leave()

    asyncio.run(life())
    for partition in (0, 1):
        marks = [msgspec.msgpack.decode(r.value, type=Kept).marks[0][3] for r in bus.read(settings, topic, partition=partition)]
        assert marks == sorted(marks) and marks[-1] == last[partition]


@pytest.mark.broker
def test_a_worker_killed_one_added_and_one_that_only_slept_change_no_byte(desk, frames, tmp_path):
    parts = [frames[a:b] for a, b in pairwise([0, len(frames) // 3, 2 * len(frames) // 3, len(frames)])]
    with Workers(desk, tmp_path / "log") as workers:
        workers.add(), workers.add()
        workers.until(lambda: dealt(workers.settings) == dealt(workers.settings, "ai_scorer") == [1, 1], "two workers share")
        workers.feed(parts[0])
        workers.scored(len(parts[0]) // 2)
        workers.kill()
        workers.feed(parts[1])
        workers.scored(len(parts[0]) + len(parts[1]))
        workers.add()
        workers.until(lambda: dealt(workers.settings) == dealt(workers.settings, "ai_scorer") == [1, 1], "another shares")
        sleeper = workers.running[0]
        sleeper.send_signal(signal.SIGSTOP)
        workers.feed(parts[2])
        workers.until(lambda: dealt(workers.settings) == dealt(workers.settings, "ai_scorer") == [2], "the sleeper is given up")
        sleeper.send_signal(signal.SIGCONT)
        out = workers.finished()
        workers.until(lambda: dealt(workers.settings) == [1, 1], "it is back")
    wanted = alone(workers.settings, frames)
    assert out.otherwise == []
    assert wanted.candidates.keys() ^ out.candidates.keys() == set() == wanted.scores.keys() ^ out.scores.keys()
    assert digest(out.candidates) == digest(wanted.candidates) and digest(out.scores) == digest(wanted.scores)
    assert len(out.scores) > 100 and out.upto == wanted.upto


@pytest.mark.broker
def test_a_desk_of_two_partitions_decides_as_the_closed_loop_also_when_a_worker_is_killed(on_kafka, tmp_path):
    from engine.desk import Desk
    plain, archived = load(env={}), tmp_path / "archive"
    for symbol in SYMBOLS:
        with ArchiveWriter(archived, symbol, plain.instrument(symbol), "test") as writer:
            for frame in simulated(plain, symbol, EVENTS):
                writer.add(frame)
    route = Route(on_kafka, archived, SLUICE_PARTITIONS="2", SLUICE_SHARED="true", SLUICE_SESSION_MS="2000",
                  SLUICE_SYMBOLS=",".join(SYMBOLS))
    route.exchange.send_signal(signal.SIGSTOP)
    try:
        with Workers(route.env, tmp_path / "log") as others:       # of the signal engine and the scorer, beside the desk's own
            others.add()
            others.until(lambda: dealt(route.settings) == dealt(route.settings, "ai_scorer") == [1, 1], "two workers share")
            route.exchange.send_signal(signal.SIGCONT)
            others.scored(4)
            others.kill()
            route.until_over()
    finally:
        route.close()
    scorer = Scorer.load(route.settings.folder("models"), "active")
    assert scorer is not None
    wanted, lived = Digests(), Digests()
    for _, fact, outs in Closed(route.settings, scorer, frames_of(archived, SYMBOLS, 100, "s1"), "s1", finish=False):
        wanted.step(fact, outs)
    s = route.settings
    desk = Desk(s)
    with Ledger(ledger_url(s), "risk") as ledger:
        for entry in ledger.entries():
            for fact in entry.consumed:
                lived.step(fact, desk.on(fact))
    assert lived.count == wanted.count > 100
    assert (lived.scores, lived.decisions) == (wanted.scores, wanted.decisions)
