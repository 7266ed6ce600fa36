"""A clock that is set: forward, back, and while a market runs."""
import asyncio

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from config.settings import Settings, load
from store.exporter import Exporter
from store.state import Kept
from streams import worker as workers
from streams.exchange import Exchange
from streams.stage import Stateful
from streams.worker import Clock, Worker, since_ms, wall_ms

SYMBOL = "BTCUSDT"


class Hands:
    """A wall clock and a steady one, moved by hand (seconds)."""

    def __init__(self, wall: float = 1.75e9, steady: float = 40.0):
        self.now, self.run = wall, steady

    def wall(self) -> float:
        return self.now

    def steady(self) -> float:
        return self.run

    def pass_(self, seconds: float) -> None:
        """Both go on."""
        self.now += seconds
        self.run += seconds


@given(st.lists(st.tuples(st.floats(0, 3600), st.sampled_from([0.0, 0.0, 0.4, -0.4, 1.5, -1.5, 3600.0, -86_400.0])), max_size=30))
def test_every_setting_of_more_than_a_second_is_noticed_once_and_time_that_passes_never(moves):
    hands = Hands()
    clock = Clock(hands.wall, hands.steady)
    for passed, set_by in moves:
        hands.pass_(passed)
        hands.now += set_by
        told = clock.jumped()
        assert told == pytest.approx(set_by, abs=1e-3) if abs(set_by) > 1 else told == 0
        assert clock.jumped() == 0


def test_nothing_is_late_by_less_than_nothing_when_the_clock_was_set_back():
    assert since_ms(wall_ms() + 3_600_000) == 0.0
    assert since_ms(wall_ms() - 1000) >= 1000


def at_pace(tmp_path, speed: str = "1") -> Settings:
    s = load(env={"SLUICE_DATA": str(tmp_path)})
    return msgspec.structs.replace(s, exchange=msgspec.structs.replace(s.exchange, speed=speed, symbols=[SYMBOL]))


def last_ms(exchange: Exchange) -> int:
    return exchange.pits[SYMBOL].last_ms


def test_a_market_at_its_own_pace_neither_leaps_nor_stands_still_when_the_clock_is_set(tmp_path):
    hands = Hands()
    exchange = Exchange(at_pace(tmp_path), Exporter([SYMBOL]), hands.steady, hands.wall)
    exchange.beat()
    began = last_ms(exchange) or int(hands.now * 1000)
    for set_by in (0, 3600, -7200, 86_400):
        hands.now += set_by
        before = last_ms(exchange) or began
        hands.pass_(10)
        assert exchange.beat() > 0
        assert 8_000 < last_ms(exchange) - before < 12_000


def test_a_new_session_begins_behind_the_last_one_though_the_clock_was_set_back_between_them(tmp_path):
    hands, s = Hands(), at_pace(tmp_path)
    first = Exchange(s, Exporter([SYMBOL]), hands.steady, hands.wall)
    first.beat()
    hands.pass_(20)
    first.beat()
    first.keep(SYMBOL)
    ended, known = last_ms(first), first.pits[SYMBOL].floor.known_ms
    first.journal.end(first.session)
    hands.now -= 86_400
    second = Exchange(s, Exporter([SYMBOL]), hands.steady, hands.wall)
    second.beat()
    hands.pass_(10)
    second.beat()
    assert second.session != first.session and ended <= known
    assert second.pits[SYMBOL].ring[0][0].times[0] > ended


def test_a_session_that_goes_on_takes_its_place_up_again_whatever_the_clock_says(tmp_path):
    hands, s = Hands(), at_pace(tmp_path)
    first = Exchange(s, Exporter([SYMBOL]), hands.steady, hands.wall)
    first.beat()
    hands.pass_(20)
    first.beat()
    first.keep(SYMBOL)
    hands.now += 86_400 * 3
    hands.run = 5.0         # the machine was started anew
    second = Exchange(s, Exporter([SYMBOL]), hands.steady, hands.wall)
    second.beat()
    hands.pass_(10)
    second.beat()
    assert second.session == first.session
    assert last_ms(first) < last_ms(second) < last_ms(first) + 13_000


def test_marks_are_not_written_before_the_broker_has_what_they_led_to_though_a_save_was_broken_off(tmp_path):
    settings = load(env={"SLUICE_DATA": str(tmp_path)})

    async def life() -> tuple[Kept, Kept]:
        worker = Worker("supervisor", settings, Exporter([SYMBOL]), [])
        stage = Stateful(worker, lambda record: asyncio.sleep(0))
        acknowledged = asyncio.get_running_loop().create_future()
        stage.sent(acknowledged)
        stage.kept[("epoch", "topic", 0)] = 7
        for _ in range(2):
            broken = await workers.within(0.05, stage.save())
            assert isinstance(broken, TimeoutError)
            await asyncio.sleep(0)
        before = stage.file.load()
        acknowledged.set_result(None)
        await stage.save()
        return before, stage.file.load()

    before, after = asyncio.run(life())
    assert before.marks == [] and after.marks == [("epoch", "topic", 0, 7)]
