"""What single services do when nothing comes: a scorer without candidates, a desk without a market."""
import asyncio
import time

import msgspec
import pytest
from builders import SYMBOL, book, candidate, scored, settings
from services import Services

from engine.facts import Candidates, Order
from engine.scoring.features import FEATURES, SCHEMA_HASH
from store.exporter import Exporter
from streams import ai_scorer
from streams.codec import encode
from streams.risk import Risk
from streams.topics import SIG_CANDIDATES, SIG_SCORED
from streams.worker import Worker
from tests.models import booster, data, register

T = 1_700_000_000_000


@pytest.mark.broker
def test_a_scorer_on_a_quiet_market_goes_on_and_scores_the_first_candidate_when_it_comes(on_kafka, monkeypatch):
    monkeypatch.setattr(ai_scorer, "PARITY_S", 0.05)
    folder = register(on_kafka.folder("models"), "m1", "active", names=FEATURES)
    x, y = data(features=len(FEATURES))
    (folder / "artifacts").mkdir()
    (folder / "artifacts" / "booster.txt").write_text(booster(x[:2000], y[:2000]).model_to_string())
    first = msgspec.structs.replace(candidate(T), schema_hash=SCHEMA_HASH, features=x[0].tobytes())

    async def story() -> None:
        async with Services(on_kafka) as services:
            await services.start("ai_scorer")
            await asyncio.sleep(0.5)            # ten times longer than between two comparisons
            app = services.workers["ai_scorer"].app
            assert not app.crashed and app.crash_reason is None
            await services.tell(SIG_CANDIDATES, (SYMBOL, encode(Candidates(SYMBOL, "t1", 0, 1, T, 0.0, [first]))))
            async with asyncio.timeout(30):
                while not (told := await services.said(SIG_SCORED)):
                    await asyncio.sleep(0.02)
            [score] = told[0].items
            assert score.signal == first and 0 < score.p < 1 and score.model_id == "m1"
            await asyncio.sleep(0.2)
            assert not app.crashed, "and the comparison that there is now something to compare for goes on as well"

    asyncio.run(story())


@pytest.mark.parametrize("venue, passes", [("sim", False), ("recording", False), ("bybit_v5", True)])
def test_time_passes_for_the_desk_without_a_market_only_where_the_venue_is_not_ours(tmp_path, venue, passes):
    s = settings(SLUICE_DATA=str(tmp_path))
    s = msgspec.structs.replace(s, venue=msgspec.structs.replace(s.venue, venue=venue))
    exporter = Exporter(sorted(s.symbols), arms=s.bandit.arms)
    risk = Risk(Worker("risk", s, exporter, []), s, exporter, lockstep=False)
    desk = risk.host.desk
    desk.on(book(60_000, 60_000.1, T))
    [order] = desk.on(scored(T))
    assert isinstance(order, Order), "an entry to watch over"

    async def quiet() -> None:
        risk.heard_at = time.monotonic() - 10
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(risk.beat(), 1.3)

    asyncio.run(quiet())
    assert desk.state.now_ms == (T + 1000 if passes else T)
    assert risk.ledger.head()[0] == int(passes), "a tick that the desk consumed stands in its journal"
    risk.ledger.close()
