"""The executor and its venue, on a real broker: what stands when the venue is not the one it was."""
import asyncio

import pytest
from builders import SYMBOL, market, scored
from services import Services, at, until

from benchmarks.stream import free_port
from engine import metrics as m
from engine import reasons
from engine.facts import BUY, ENTRY, KILL, LIMIT, RELEASE, Approved, Control, Order, ScoredBatch
from streams.codec import encode
from streams.topics import CONTROL_EVENTS, EXEC_REPORTS, MD_FRAMES, SIG_APPROVED, SIG_DROPPED, SIG_SCORED

pytestmark = pytest.mark.broker
T = 1_700_000_000_000


def order(name: str, price: float, cause: str = ENTRY) -> Order:
    return Order(name, cause, name, SYMBOL, BUY, 0.01, price, LIMIT, True, cause != ENTRY, "paper", 0, T)


def approved(*orders: Order) -> bytes:
    return encode(Approved(SYMBOL, "s1", 0, 0, 0.0, list(orders), [], "o" * len(orders)))


def test_a_venue_with_another_memory_halts_the_desk_and_gets_no_entry_until_somebody_has_released_it(on_kafka, tmp_path):
    settings = at(on_kafka, port=free_port(), symbols=[SYMBOL])

    async def story() -> None:
        async with Services(settings) as services:
            first = await services.exchange(at(settings, tmp_path / "one"))
            await services.start("risk", "executor")
            await until(lambda: first.traders)
            await services.close(first)
            # decided before anybody knew: it reads it only with the other venue on the line
            await services.tell(SIG_APPROVED, (SYMBOL, approved(order("E-before", 1000.0))))
            other = await services.exchange(at(settings, tmp_path / "other"))
            await until(lambda: services.shows(m.HALTED))
            assert services.shows(m.LOG_EPOCH_CHANGES_TOTAL, service="executor") == 1
            [kill] = await services.said(CONTROL_EVENTS)
            assert (kill.kind, kill.actor) == (KILL, "executor") and other.journal.id[:8] in kill.reason

            frame = market(50)
            now = int(frame.times[-1])
            await services.tell(MD_FRAMES, (SYMBOL, encode(frame)))
            await asyncio.sleep(0.3)
            await services.tell(SIG_SCORED, (SYMBOL, encode(ScoredBatch(SYMBOL, "t1", 49, 1, now, 0.0, [scored(now)]))))
            while not (dropped := [one for batch in await services.said(SIG_DROPPED) for one in batch.items]):
                await asyncio.sleep(0.05)
            assert [one.reason for one in dropped] == [reasons.HALTED] and "another journal" in dropped[0].numbers
            while not (rejected := [r for told in await services.said(EXEC_REPORTS) for r in told.items]):
                await asyncio.sleep(0.05)
            assert [(r.order_id, r.status, r.reason) for r in rejected] == [("E-before", "rejected", reasons.OTHER_VENUE)]
            assert other.pits[SYMBOL].floor.matching.seq == 0 and not other.pits[SYMBOL].floor.matching.live

            await services.tell(CONTROL_EVENTS, ("control", encode(Control("r1", RELEASE, "ann", "looked", 0, 0))))
            await until(lambda: not services.shows(m.HALTED))
            await services.tell(SIG_APPROVED, (SYMBOL, approved(order("E-after", 1000.0))))
            await until(lambda: other.pits[SYMBOL].floor.matching.live)

    asyncio.run(story())


def test_the_same_venue_started_again_halts_nobody(on_kafka, tmp_path):
    settings = at(on_kafka, port=free_port(), symbols=[SYMBOL])

    async def story() -> None:
        async with Services(settings) as services:
            first = await services.exchange(at(settings, tmp_path / "one"))
            await services.start("executor")
            await until(lambda: first.traders)
            await services.close(first)
            again = await services.exchange(at(settings, tmp_path / "one"))
            await until(lambda: again.traders)
            await services.tell(SIG_APPROVED, (SYMBOL, approved(order("E-1", 1000.0))))
            await until(lambda: again.pits[SYMBOL].floor.matching.live)
            assert await services.said(CONTROL_EVENTS) == []
            assert services.shows(m.LOG_EPOCH_CHANGES_TOTAL, service="executor") == 0

    asyncio.run(story())
