"""A KILL while parts of the desk hang or are dead: nothing more is entered, and what rests at the venue is taken back."""
import asyncio
import os
import signal
import subprocess
import sys

import msgspec
import pytest
from builders import SYMBOL
from services import Services, at, until

from benchmarks._bench import running, scraped
from config.settings import ROOT, Settings
from engine import metrics as m
from engine import reasons
from engine.facts import BUY, ENTRY, HEALTH, LIMIT, TARGET, Approved, Control, Order, Reports
from scripts import kill
from store import controls
from store.ledger import ledger_url
from streams import broker as brokers
from streams.codec import encode
from streams.topics import CONTROL_EVENTS, EXEC_REPORTS, SIG_APPROVED
from streams.venues.local import LocalVenue

pytestmark = pytest.mark.broker


@pytest.fixture
def desk(on_kafka) -> Settings:
    """A desk on one symbol, with an exchange's port of its own."""
    settings = at(on_kafka, port=brokers.free_port(), symbols=[SYMBOL])
    return msgspec.structs.replace(settings, warmup=msgspec.structs.replace(settings.warmup, enabled=False))


def environment(settings: Settings) -> dict[str, str]:
    """The same for processes."""
    return {**os.environ, "KAFKA_BOOTSTRAP_SERVERS": settings.kafka.bootstrap, "SLUICE_DATA": str(settings.folder("data")),
            "SLUICE_INSTANCE": settings.instance, "SLUICE_FEED": settings.feed, "SLUICE_SYMBOLS": SYMBOL, "SPEED": "1",
            "SLUICE_EXCHANGE_PORT": str(settings.exchange.port), "SLUICE_MARKET": "sim"}


def approved(name: str, epoch: int = 0, cause: str = ENTRY) -> tuple[str, bytes]:
    """An entry far below the market: it rests."""
    order = Order(name, cause, name, SYMBOL, BUY, 0.1, 30_000.0, LIMIT, True, False, "paper", epoch, 1)
    return SYMBOL, encode(Approved(SYMBOL, "s1", 0, 0, 0.0, [order], [], "o"))


async def resting(venue: LocalVenue) -> list[str]:
    return list((await venue.standing(SYMBOL)).open_orders)


async def until_resting(venue: LocalVenue, names: list[str]) -> None:
    async with asyncio.timeout(30):
        while await resting(venue) != names:
            await asyncio.sleep(0.02)


def test_with_the_desks_process_hung_a_kill_takes_entries_back_and_lets_none_through_and_the_desk_takes_it_when_it_lives_again(desk):
    env = environment(desk)
    command = [sys.executable, "-m", "scripts.kill", "--reason", "drill", "--actor", "ann", "--wait", "0.1", "--no-sweep"]

    async def story(risk: subprocess.Popen, port: int) -> None:
        async with Services(desk) as services:
            venue = LocalVenue("127.0.0.1", desk.exchange.port)
            await venue.connect()
            reading = asyncio.ensure_future(venue.read())
            async with asyncio.timeout(60):
                while (await asyncio.to_thread(scraped, port)).get(m.SERVICE_READY(service="risk")) != 1:
                    await asyncio.sleep(0.1)
            risk.send_signal(signal.SIGSTOP)
            await services.tell(SIG_APPROVED, approved("E-1"), approved("E-2"))
            await until_resting(venue, ["E-1", "E-2"])
            given = await asyncio.to_thread(subprocess.run, command, env=env, cwd=ROOT, capture_output=True, text=True)
            assert given.returncode == 1 and "NOT yet taken by the desk" in given.stderr
            await until_resting(venue, [])
            await services.tell(SIG_APPROVED, approved("E-3"))
            async with asyncio.timeout(30):
                while not (refused := [r for told in await services.said(EXEC_REPORTS) if isinstance(told, Reports)
                                       for r in told.items if r.order_id == "E-3"]):
                    await asyncio.sleep(0.05)
            assert [(r.status, r.reason) for r in refused] == [("rejected", reasons.HALTED)]
            assert (await venue.standing(SYMBOL, ["E-3"])).asked == {"E-3": ""}, "it never was at the venue"
            assert not any("ann: drill" in why for why in controls.in_force(ledger_url(desk)).kills.values())
            risk.send_signal(signal.SIGCONT)
            await until(lambda: any("ann: drill" in why for why in controls.in_force(ledger_url(desk)).kills.values()))
            reading.cancel()
            await venue.close()

    subprocess.run([sys.executable, "-m", "streams.admin"], env=env, cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
    port = brokers.free_port()
    processes = [[f"streams.{name}", "--metrics-port", str(port if name == "risk" else 0)] for name in ("exchange", "executor", "risk")]
    with running(*processes, env=env) as (_, _, risk):
        try:
            asyncio.run(story(risk, port))
        finally:
            risk.send_signal(signal.SIGCONT)


def test_an_entry_of_an_epoch_that_is_over_reaches_no_venue_in_this_life_or_the_next_and_an_exit_does(desk):
    async def story() -> None:
        async with Services(desk) as services:
            exchange = await services.exchange()
            floor = exchange.pits[SYMBOL].floor
            await services.start("executor")
            await until(lambda: floor.known_ms and floor.matching.now)

            def there(*names: str):
                return until(lambda: {o.order_id for o in floor.matching.open_orders()} == {*names})

            await services.tell(SIG_APPROVED, approved("E-new", 2), approved("E-old", 1), approved("X1-old", 1, TARGET))
            await there("E-new", "X1-old")
            executor = services.workers["executor"].background[0].__self__
            await services.tell(CONTROL_EVENTS, ("control", encode(Control("c1", HEALTH, "rollout", "begins", 3, 0))))
            await until(lambda: executor.epoch == 3)
            await services.tell(SIG_APPROVED, approved("E-two", 2), approved("E-three", 3))
            await there("E-new", "X1-old", "E-three")
            await services.stop("executor")
            await services.start("executor")
            await services.tell(SIG_APPROVED, approved("E-late", 2), approved("X2-late", 2, TARGET))
            await there("E-new", "X1-old", "E-three", "X2-late")
            refused = {r.order_id: r.reason for told in await services.said(EXEC_REPORTS) if isinstance(told, Reports)
                       for r in told.items if r.status == "rejected"}
            assert refused == dict.fromkeys(("E-old", "E-two", "E-late"), reasons.STALE_EPOCH)

    asyncio.run(story())


def test_where_the_executor_is_dead_the_command_itself_takes_entries_back(desk, monkeypatch, capsys):
    for key, value in environment(desk).items():
        monkeypatch.setenv(key, value)

    async def story() -> None:
        async with Services(desk) as services:
            exchange = await services.exchange()
            floor = exchange.pits[SYMBOL].floor
            await services.start("executor")
            await until(lambda: floor.known_ms and floor.matching.now)
            await services.tell(SIG_APPROVED, approved("E-1"), approved("X1-1"))
            await until(lambda: len(floor.matching.open_orders()) == 2)
            await services.stop("executor")
            status = await asyncio.to_thread(kill.main, ["--reason", "drill", "--wait", "0"])
            assert status == 0 and "asked back at the venue: E-1\n" in capsys.readouterr().out
            await until(lambda: [o.order_id for o in floor.matching.open_orders()] == ["X1-1"])

    asyncio.run(story())


def test_a_venue_that_cannot_be_asked_is_said_and_the_kill_is_given_all_the_same(desk, monkeypatch, capsys):
    for key, value in environment(desk).items():
        monkeypatch.setenv(key, value)
    assert kill.main(["--reason", "drill", "--wait", "0"]) == 0
    assert "the venue was not asked for entries back: no exchange at" in capsys.readouterr().err
    assert list(controls.folder(desk).glob("kill-*.json"))
