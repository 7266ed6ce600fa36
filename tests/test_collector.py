"""The collector publishes each event once and in order, at once where the market is quiet, together where it is busy."""
import asyncio
import tempfile
from pathlib import Path

import msgspec
from builders import SYMBOL, market, reframed, settings
from hypothesis import given
from hypothesis import settings as bounded
from hypothesis import strategies as st

from config.settings import Settings
from engine.facts import Frame, join
from store import archive
from store.exporter import Exporter
from streams.codec import decode
from streams.collector import Collector
from streams.worker import Worker

LONG_MS = 10**9     # a period that no test lives to see the end of


class Wire(Worker):
    """A worker that keeps what it is given to send, acknowledged at once."""

    async def send(self, topic, key: str, blob: bytes) -> asyncio.Future:
        self.__dict__.setdefault("frames", []).append(decode(blob))
        done = asyncio.get_running_loop().create_future()
        done.set_result(None)
        return done


def made(folder: Path, max_ms: int = LONG_MS, max_events: int = 10**6, **env: str) -> Collector:
    """A collector with a folder of its own that has heard of session t1."""
    s = settings(SLUICE_DATA=str(folder), **env)
    s = msgspec.structs.replace(s, frames=msgspec.structs.replace(s.frames, max_ms=max_ms, max_events=max_events))
    exporter = Exporter(sorted(s.symbols))
    worker = Wire("collector", s, exporter, [])
    worker.frames = []  # type: ignore[attr-defined]
    collector = Collector(worker, s, exporter)
    collector.session = "t1"
    return collector


def real(s: Settings, n: int, seed: int = 1) -> Frame:
    """A market in the steps of the configured instrument."""
    one = s.instrument(SYMBOL)
    return market(n, seed, tick=one.tick, lot=one.lot)


def sent(collector: Collector) -> list[Frame]:
    """What it has published."""
    return collector.worker.frames  # type: ignore[attr-defined]


def test_on_a_quiet_market_a_frame_leaves_at_once_and_what_follows_it_closely_leaves_together(tmp_path):
    collector = made(tmp_path)
    first, second, third, fourth = reframed(real(collector.settings, 80), 20)

    async def go() -> None:
        await collector.take(first)
        assert [f.seq for f in sent(collector)] == [0]
        await collector.take(second)
        await collector.take(third)
        assert [f.seq for f in sent(collector)] == [0]
        collector.closed.clear()                          # the period is over
        await collector.take(fourth)

    asyncio.run(go())
    assert [(f.seq, f.n) for f in sent(collector)] == [(0, 20), (20, 60)]


def test_what_waits_is_published_when_its_time_has_come_without_another_event(tmp_path):
    collector = made(tmp_path, max_ms=1)
    first, second = reframed(real(collector.settings, 40), 20)

    async def go() -> None:
        closing = asyncio.ensure_future(collector.close_frames())
        await collector.take(first)
        collector.period = 0.01
        await collector.take(second)
        while sum(f.n for f in sent(collector)) < 40:
            await asyncio.sleep(0.001)
        closing.cancel()

    asyncio.run(asyncio.wait_for(go(), 20))
    assert not collector.open


def test_a_full_frame_does_not_wait(tmp_path):
    collector = made(tmp_path, max_events=30)

    async def go() -> None:
        for frame in reframed(real(collector.settings, 100), 20):
            await collector.take(frame)

    asyncio.run(go())
    assert [(f.seq, f.n) for f in sent(collector)] == [(0, 20), (20, 40), (60, 40)]


def test_events_that_wait_when_it_stops_are_asked_for_again_by_its_next_life(tmp_path):
    collector = made(tmp_path)

    async def live() -> None:
        for frame in reframed(real(collector.settings, 60), 20):
            await collector.take(frame)
        await collector.stage.save()

    asyncio.run(live())
    assert sum(f.n for f in sent(collector)) == 20, "the rest waits, unpublished"
    collector.stage.file.lock.close()
    again = made(tmp_path)
    assert (again.session, again.due) == ("t1", {SYMBOL: 20})


@bounded(max_examples=25, deadline=None)
@given(st.lists(st.integers(1, 299), max_size=30), st.lists(st.booleans(), min_size=40, max_size=40), st.integers(1, 200))
def test_however_the_venue_cuts_the_market_each_event_is_published_once_and_in_order(cuts, over, most):
    with tempfile.TemporaryDirectory() as folder:
        collector = made(Path(folder), max_events=most, SLUICE_MARKET="recording")
        whole = real(collector.settings, 300)

        async def go() -> None:
            for frame, is_over in zip(reframed(whole, cuts), over):
                if is_over:
                    collector.closed.clear()
                await collector.take(frame)
            await collector.flush(SYMBOL)

        asyncio.run(go())
        told = join([msgspec.structs.replace(f, sent_ms=0.0) for f in sent(collector)])
        assert told == whole
        collector.stage.file.lock.close()


def test_bad_ticks_among_frames_that_leave_together_are_counted_and_not_published(tmp_path):
    collector = made(tmp_path)
    whole = real(collector.settings, 60)
    rows = whole.book_rows.copy()
    rows[10, 0, 0] = rows[10, 2, 0] + 1                  # crossed
    bad = msgspec.structs.replace(whole, books=rows.tobytes())

    async def go() -> None:
        for frame in reframed(bad, 20):
            await collector.take(frame)
        await collector.flush(SYMBOL)

    asyncio.run(go())
    assert sum(f.n for f in sent(collector)) == 59
    assert 'bad_ticks_total{reason="crossed",symbol="BTCUSDT"} 1.0' in collector.exporter.text()


def test_the_archive_has_what_was_published(tmp_path):
    collector = made(tmp_path, SLUICE_FEED="f")
    whole = real(collector.settings, 300)

    async def go() -> None:
        for i, frame in enumerate(reframed(whole, 20)):
            await collector.take(frame)
            collector.closed.clear()
            if i == 7:
                await collector.write_archives()
        await collector.flush(SYMBOL)
        await collector.close()

    asyncio.run(go())
    kept = archive.read(tmp_path / "archive" / "f-t1", SYMBOL, session="t1")
    assert msgspec.structs.replace(join(list(kept)), sent_ms=0.0) == whole
