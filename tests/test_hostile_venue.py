"""Risk and executor die beside a venue that loses, repeats, delays and reorders: nothing is lost, doubled, guessed, or refused and sent."""
import asyncio
import socket

import numpy as np
import pytest

from benchmarks.crashes.hostile import Hostile, Rates, torn
from benchmarks.crashes.points import HOSTILE, TWINS, Case, Ground, Result, base, besieged, run
from benchmarks.crashes.siege import DEATHS
from config.settings import load
from engine.facts import BUY, ENTRY, LIMIT, Order, Report, Standing
from streams.venues.local import LocalVenue
from streams.venues.port import Answered, Ask, Happened, Hello, Place
from streams.venues.sweep import sweep
from streams.venues.wire import message, packed

# a ledger that dies as it starts has its folder taken from under its thread
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
NOTHING = Rates(*[0.0] * len(Rates._fields))
SYMBOL = "BTCUSDT"


@pytest.fixture(scope="module")
def ground(tmp_path_factory) -> Ground:
    """Twenty seconds of market."""
    return Ground(tmp_path_factory.mktemp("hostile"), seconds=20).make()


@pytest.fixture(scope="module")
def some(ground) -> dict[str, tuple[Case, Result]]:
    """The first of a campaign: the paper account, and the real one."""
    cases = besieged(base(ground, "1")[0].trace, 1)
    return {case.way: (case, run(ground, case)) for case in (next(cases), next(cases))}


@pytest.mark.parametrize("way", [HOSTILE, TWINS])
def test_whatever_line_and_deaths_do_orders_arrive_once_and_both_accounts_are_exact(some, way):
    _, result = some[way]
    assert len(result.kills) > DEATHS // 3 and result.ills.total() > 5 and result.orders > 4, "a quiet run shows nothing"
    assert result.faults == []
    assert len(result.healed) == len(result.kills), "after each death desk and venue agreed again"


def test_a_seed_gives_the_same_siege_again(ground, some):
    case, first = some[TWINS]
    second = run(ground, case)
    assert (first.kills, first.ills, first.healed) == (second.kills, second.ills, second.healed)


def order(name: str) -> Order:
    return Order(name, ENTRY, name, SYMBOL, BUY, 0.1, 30_000.0, LIMIT, True, False, "paper", 0, 1)


def test_an_order_that_comes_again_before_anybody_said_that_it_never_arrived_is_a_guess_and_is_told():
    async def story() -> None:
        line = Hostile(0, 0, NOTHING, 1)
        here, there = socket.socketpair()
        _, out = await asyncio.open_connection(sock=here)
        for name in ("E-1", "E-2", "E-1"):
            assert await line.passed(Place(order(name)), out)
        assert line.blind == ["E-1"]
        line.handed["E-2"] = True           # as an answer said that the venue never had it
        await line.passed(Place(order("E-2")), out)
        assert line.blind == ["E-1"]
        out.close()
        there.close()

    asyncio.run(story())


def test_what_is_torn_is_all_there():
    told = Happened(SYMBOL, "s1", 5, 3, [Report("E-1", SYMBOL, "accepted", "", 0.0, n, n) for n in (1, 2, 3)])
    pieces = torn(told, np.random.default_rng(3))
    assert sorted(p.items[0].seq for p in pieces) == [1, 2, 3] and [p.items[0].seq for p in pieces] != [1, 2, 3]


class Odd:
    """A venue that answers each question twice, the first time as if it were the one before, and may be dumb."""

    def __init__(self, dumb: bool = False):
        self.dumb, self.asked = dumb, 0

    async def __aenter__(self) -> int:
        self.server = await asyncio.start_server(self.client, "127.0.0.1", 0)
        return self.server.sockets[0].getsockname()[1]

    async def __aexit__(self, *_) -> None:
        self.server.close()

    async def client(self, reader, writer) -> None:
        try:
            if not self.dumb:
                writer.write(packed(Hello("s1", False, [SYMBOL], "sim", "j")))
            while True:
                request = await message(reader, "request")
                if isinstance(request, Ask):
                    self.asked += 1
                    for n, number in enumerate((request.number - 1, request.number)):
                        writer.write(packed(Answered(number, Standing(SYMBOL, "j", n, 0, 0.0, 0.0, 0.0, 0.0, {}, {"E-1": "open" * n}))))
        except ConnectionError:
            writer.close()


def test_an_answer_to_an_earlier_question_is_not_taken_for_one_to_this():
    async def story() -> None:
        async with Odd() as port:
            venue = LocalVenue("127.0.0.1", port)
            await venue.connect()
            reading = asyncio.ensure_future(venue.read())
            for _ in range(3):
                assert (await venue.standing(SYMBOL, ["E-1"])).asked == {"E-1": "open"}
            reading.cancel()
            await venue.close()

    asyncio.run(story())


def test_a_venue_that_takes_the_line_and_says_nothing_is_given_up(monkeypatch):
    monkeypatch.setattr("streams.venues.local.ANSWER_S", 0.1)

    async def story() -> None:
        async with Odd(dumb=True) as port:
            with pytest.raises(ConnectionError, match=f"no exchange at 127.0.0.1:{port}"):
                await asyncio.wait_for(LocalVenue("127.0.0.1", port).connect(patience_s=0), 5)
            with pytest.raises(OSError):
                await asyncio.wait_for(sweep(load(env={"SLUICE_EXCHANGE_PORT": str(port)})), 5)

    asyncio.run(story())
