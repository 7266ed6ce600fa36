"""Paper trading on another feed: the local exchange matches our orders against frames that somebody else's collector wrote."""
import asyncio
import os
import subprocess
import sys

import pytest
from builders import SYMBOL, market, reframed

from config.settings import ROOT
from engine.facts import ACCEPTED, BUY, ENTRY, LIMIT, Order
from store import bus
from streams.codec import encode
from streams.venues.local import LocalVenue


@pytest.mark.broker
def test_frames_of_another_feed_are_a_market_with_matching(on_kafka, tmp_path):
    from benchmarks.stream import free_port
    topic, port = f"{on_kafka.instance}src.md.frames", free_port()
    bus.ensure_topics(on_kafka, [topic])
    env = os.environ | {"KAFKA_BOOTSTRAP_SERVERS": on_kafka.kafka.bootstrap, "SLUICE_DATA": str(tmp_path / "data"), "SLUICE_FEED": "mine",
                        "SLUICE_MARKET": "frames", "RECORDING": f"{on_kafka.instance}src", "SLUICE_SYMBOLS": SYMBOL,
                        "SLUICE_EXCHANGE_PORT": str(port)}
    exchange = subprocess.Popen([sys.executable, "-m", "streams.exchange"], cwd=ROOT, env=env, stderr=subprocess.DEVNULL)
    frames = reframed(market(400, gap_ms=20), 20)

    async def trade() -> tuple[list, list]:
        feed, line = LocalVenue("127.0.0.1", port), LocalVenue("127.0.0.1", port)
        hello = await feed.connect()
        await line.connect()
        assert hello.market == "frames" and not hello.lockstep
        await asyncio.sleep(1.5)         # the relay reads from the end: it must be there first
        got, told = [], []
        keep = got.append

        async def listen() -> None:
            async for frame in feed.market([SYMBOL], hello.session, {}):
                keep(frame)          # one by one: the other side looks on

        async def hear() -> None:
            async for happened in line.happenings({}):
                told.extend(happened.items)

        tasks = [asyncio.ensure_future(listen()), asyncio.ensure_future(hear())]
        with bus.Publisher(on_kafka) as publisher:
            publisher.send_all(topic, [(SYMBOL, encode(f)) for f in frames[:10]])
            while sum(f.n for f in got) < 200:
                await asyncio.sleep(0.02)
            last = got[-1]
            bid = int(last.book_rows[-1, 0, 0]) - 50
            await line.place(Order("E-1", ENTRY, "E-1", SYMBOL, BUY, 0.01, round(bid * last.tick, 1), LIMIT, True, False, "paper", 0,
                                   int(last.times[-1])))
            publisher.send_all(topic, [(SYMBOL, encode(f)) for f in frames[10:]])
            while not told:
                await asyncio.sleep(0.02)
        for task in tasks:
            task.cancel()
        return got, told

    try:
        got, told = asyncio.run(asyncio.wait_for(trade(), 60))
    finally:
        exchange.terminate()
        exchange.wait(10)
    assert [f.seq for f in got[:3]] == [0, got[0].n, got[0].n + got[1].n]
    assert {f.session for f in got} == {"s1"}
    assert b"".join(f.books for f in got) == b"".join(f.books for f in frames)[: sum(len(f.books) for f in got)]
    assert (told[0].order_id, told[0].status) == ("E-1", ACCEPTED)
    assert told[0].ts_ms >= int(frames[9].times[-1]) + 50
