"""The executor and its venue, on a real broker: what stands when the venue is not the one it was."""
import asyncio

import msgspec
import pytest
from builders import SYMBOL, market, scored
from services import Services, at, until

from benchmarks.stream import free_port
from config.settings import Settings
from engine import metrics as m
from engine import reasons
from engine.facts import (
    BUY,
    ENTRY,
    KILL,
    LIMIT,
    RELEASE,
    TARGET,
    Approved,
    Cancel,
    Control,
    Order,
    Reports,
    ScoredBatch,
    releasing,
)
from store import controls
from store.ledger import Ledger, ledger_url
from streams.codec import decode, encode
from streams.topics import CONTROL_EVENTS, EXEC_REPORTS, MD_FRAMES, SIG_APPROVED, SIG_DROPPED, SIG_SCORED
from streams.venues import local
from streams.venues.local import LocalVenue
from streams.venues.port import Place, TakeBack
from streams.venues.wire import message, packed

POSTED = 30_000.0       # far below the market: it rests
pytestmark = pytest.mark.broker
T = 1_700_000_000_000


def order(name: str, price: float = POSTED, cause: str = ENTRY) -> Order:
    return Order(name, cause, name, SYMBOL, BUY, 0.1, price, LIMIT, True, cause != ENTRY, "paper", 0, T)


def approved(*acts: Order | Cancel) -> bytes:
    orders, cancels = [a for a in acts if isinstance(a, Order)], [a for a in acts if isinstance(a, Cancel)]
    return encode(Approved(SYMBOL, "s1", 0, 0, 0.0, orders, cancels, "".join("o" if isinstance(a, Order) else "c" for a in acts)))


def decided(settings: Settings, *acts: Order | Cancel) -> bytes:
    """The same, and the desk's ledger has it."""
    blob = approved(*acts)
    with Ledger(ledger_url(settings), "risk") as ledger:
        ledger.commit(T, [], [decode(blob)], {})
    return blob


class Wire:
    """Stands between the executor and the exchange and does to the next order or cancel what lines do.

    `ill`: `before`, the line breaks with it in hand; `after`, it breaks when the exchange has it; `lost`, it alone gets lost;
    `deaf`, from it on nothing comes through in either direction. `through` and `seen` count what was handed over, by id.
    """

    def __init__(self, port: int, to: int):
        self.port, self.to, self.ill, self.mute, self.deaf = port, to, "", False, False
        self.seen: list[str] = []
        self.through: list[str] = []
        self.open: list[asyncio.StreamWriter] = []

    async def __aenter__(self) -> "Wire":
        self.server = await asyncio.start_server(self.client, "127.0.0.1", self.port)
        return self

    async def __aexit__(self, *_) -> None:
        self.server.close()
        self.cut()

    def cut(self) -> None:
        for writer in self.open:
            writer.transport.abort()
        self.open.clear()

    async def client(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            back, out = await asyncio.open_connection("127.0.0.1", self.to)
        except OSError:
            return writer.transport.abort()
        self.open += [writer, out]
        self.mute = False
        answers = asyncio.ensure_future(self.answers(back, writer))
        try:
            while True:
                request = await message(reader, "request")
                name = ("cancel " + request.cancel.order_id if isinstance(request, TakeBack) else request.order.id
                        if isinstance(request, Place) else "")
                if name:
                    self.seen.append(name)
                ill = self.ill
                if name and ill in ("before", "after", "lost"):
                    self.ill = ""
                self.deaf = ill == "deaf" and (self.deaf or bool(name))
                if self.deaf or (name and ill == "lost"):
                    continue
                if name and ill == "before":
                    return self.cut()
                self.mute = bool(name) and ill == "after"
                out.write(packed(request))
                await out.drain()
                if name:
                    self.through.append(name)
                if name and ill == "after":
                    await asyncio.sleep(0.02)
                    return self.cut()
        except ConnectionError:
            self.cut()
        finally:
            answers.cancel()

    async def answers(self, back: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while blob := await back.read(1 << 16):
            if not self.deaf and not self.mute:
                writer.write(blob)
        writer.transport.abort()


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
            await services.tell(SIG_SCORED, (SYMBOL, encode(ScoredBatch(SYMBOL, "t1", 0, 50, now, 0.0, [scored(now)]))))
            while not (dropped := [one for batch in await services.said(SIG_DROPPED) for one in batch.items]):
                await asyncio.sleep(0.05)
            assert [one.reason for one in dropped] == [reasons.HALTED] and "another journal" in dropped[0].numbers
            while not (rejected := [r for told in await services.said(EXEC_REPORTS) if isinstance(told, Reports) for r in told.items]):
                await asyncio.sleep(0.05)
            assert [(r.order_id, r.status, r.reason) for r in rejected] == [("E-before", "rejected", reasons.OTHER_VENUE)]
            assert other.pits[SYMBOL].floor.matching.seq == 0 and not other.pits[SYMBOL].floor.matching.live

            await services.tell(CONTROL_EVENTS, ("control", encode(Control("r0", RELEASE, "ann", "my drill", 0, 0, releasing(["drill"])))))
            await services.tell(SIG_APPROVED, (SYMBOL, approved(order("E-drill", 1000.0))))
            await heard(services, "E-drill", "rejected")
            assert services.shows(m.HALTED), "a word on another halt ends none"
            await services.tell(CONTROL_EVENTS, ("control", encode(Control("r1", RELEASE, "ann", "looked", 0, 0, releasing([kill.id])))))
            await until(lambda: not services.shows(m.HALTED))
            await services.tell(SIG_APPROVED, (SYMBOL, approved(order("E-after", 1000.0))))
            await until(lambda: other.pits[SYMBOL].floor.matching.seq)

            for n, folder in enumerate(("one", "other")):       # a memory that was known before is another one all the same
                await services.close(other)
                other = await services.exchange(at(settings, tmp_path / folder))
                await until(lambda: services.shows(m.HALTED))
                kills = services.workers["risk"].stage.host.desk.state.kills
                word = Control(f"r{n + 2}", RELEASE, "ann", "looked", 0, 0, releasing(kills))
                await services.tell(CONTROL_EVENTS, ("control", encode(word)))
                await until(lambda: not services.shows(m.HALTED))

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


async def reports(services: Services, order_id: str) -> list[tuple[str, str]]:
    """(status, reason) of what was told of an order."""
    return [(r.status, r.reason) for told in await services.said(EXEC_REPORTS) if isinstance(told, Reports)
            for r in told.items if r.order_id == order_id]


async def heard(services: Services, order_id: str, status: str) -> list[tuple[str, str]]:
    async with asyncio.timeout(30):
        while True:
            told = await reports(services, order_id)
            if status in [s for s, _ in told]:
                return told
            await asyncio.sleep(0.05)


def test_whatever_the_line_does_to_an_order_or_a_cancel_it_takes_effect_once_and_was_unknown_meanwhile(on_kafka, tmp_path, monkeypatch):
    settings = at(on_kafka, port=free_port(), symbols=[SYMBOL])
    venue = msgspec.structs.replace(settings.venue, reconcile_ms=100, unknown_after_ms=300)
    wired = msgspec.structs.replace(at(settings, port=free_port()), venue=venue)

    async def story() -> None:
        async with Services(wired) as services, Wire(wired.exchange.port, settings.exchange.port) as wire:
            exchange = await services.exchange(settings)
            floor = exchange.pits[SYMBOL].floor
            await services.start("executor")
            await until(lambda: floor.known_ms and floor.matching.now)
            for ill in ("before", "after", "lost"):
                name = f"E-{ill}"
                wire.ill = ill
                await services.tell(SIG_APPROVED, (SYMBOL, approved(order(name))))
                told = await heard(services, name, "accepted")
                assert told == [("unknown", reasons.VENUE_UNREACHABLE)] * (ill != "lost") + [("accepted", "")]
                wire.ill = ill
                await services.tell(SIG_APPROVED, (SYMBOL, approved(Cancel(name, SYMBOL, T, "entry_ttl"))))
                told = (await heard(services, name, "cancelled"))[len(told):]
                assert told == [("unknown", reasons.VENUE_UNREACHABLE)] * (ill != "lost") + [("cancelled", "requested")]
                assert wire.through.count(name) == wire.through.count(f"cancel {name}") == 1, "nothing is sent twice on a guess"
                assert wire.seen.count(name) == wire.seen.count(f"cancel {name}") == (1 if ill == "after" else 2)
            assert services.shows(m.UNKNOWN_ORDERS) == 0
            assert floor.matching.seq == 6 and not floor.matching.live

    asyncio.run(story())


def test_orders_at_a_venue_that_says_nothing_are_unknown_with_their_ids_in_the_log_until_it_speaks(on_kafka, tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(local, "ANSWER_S", 0.3)
    settings = at(on_kafka, port=free_port(), symbols=[SYMBOL])
    venue = msgspec.structs.replace(settings.venue, reconcile_ms=100, unknown_after_ms=500)
    wired = msgspec.structs.replace(at(settings, port=free_port()), venue=venue)

    async def story() -> None:
        async with Services(wired) as services, Wire(wired.exchange.port, settings.exchange.port) as wire:
            exchange = await services.exchange(settings)
            floor = exchange.pits[SYMBOL].floor
            await services.start("executor")
            await until(lambda: floor.known_ms and floor.matching.now)
            wire.ill = "deaf"
            await services.tell(SIG_APPROVED, (SYMBOL, approved(order("E-1"), order("E-2"))))
            await until(lambda: services.shows(m.UNKNOWN_ORDERS) == 2)
            assert await heard(services, "E-1", "unknown") == [("unknown", reasons.VENUE_UNREACHABLE)]
            await until(lambda: "E-2 has been unknown for" in caplog.text)
            assert caplog.text.count("E-1 has been unknown for") == 1 and wire.through == []
            wire.ill, wire.deaf = "", False
            wire.cut()
            await heard(services, "E-1", "accepted")
            await heard(services, "E-2", "accepted")
            await until(lambda: services.shows(m.UNKNOWN_ORDERS) == 0)
            assert wire.through == ["E-1", "E-2"] and floor.matching.seq == 2

    asyncio.run(story())


def test_an_executor_that_lost_its_memory_asks_ledger_and_venue_before_it_sends_what_it_finds_on_the_topic(on_kafka, tmp_path, caplog):
    settings = at(on_kafka, port=free_port(), symbols=[SYMBOL])
    wired = at(settings, port=free_port())

    async def story() -> None:
        async with Services(wired) as services, Wire(wired.exchange.port, settings.exchange.port) as wire:
            exchange = await services.exchange(settings)
            floor = exchange.pits[SYMBOL].floor
            await services.start("executor")
            await until(lambda: floor.known_ms and floor.matching.now)
            await services.tell(SIG_APPROVED, (SYMBOL, decided(settings, order("E-1"), order("E-2"),
                                                                Cancel("E-1", SYMBOL, T, "entry_ttl"))))
            await heard(services, "E-1", "cancelled")
            await services.stop("executor")
            for path in (settings.folder("data") / "state").glob("*executor.state"):
                path.unlink()
            # what a life that is lost decided: no ledger has it
            await services.tell(SIG_APPROVED, (SYMBOL, approved(order("E-lost"))), (SYMBOL, decided(settings, order("E-3"))))
            await services.start("executor")
            await heard(services, "E-3", "accepted")
            assert wire.seen == ["E-1", "E-2", "cancel E-1", "E-3"]
            assert {o.order_id for o in floor.matching.open_orders()} == {"E-2", "E-3"}
            assert services.shows(m.LOST_TOTAL, what="orders") == 1 and "E-lost is not in the desk's ledger" in caplog.text

    asyncio.run(story())


def test_the_venue_is_compared_on_start_and_then_again_and_an_order_that_is_not_ours_halts_the_desk_and_stays(on_kafka, tmp_path):
    settings = at(on_kafka, port=free_port(), symbols=[SYMBOL])
    settings = msgspec.structs.replace(settings, venue=msgspec.structs.replace(settings.venue, reconcile_ms=100))

    async def story() -> None:
        async with Services(settings) as services:
            exchange = await services.exchange()
            floor = exchange.pits[SYMBOL].floor
            await services.start("risk", "executor")
            await until(lambda: services.shows(m.VENUE_COMPARISONS_TOTAL) > 2)
            assert services.shows(m.VENUE_MISMATCHES_TOTAL, kind="orphan") == 0
            await until(lambda: floor.matching.now)
            stranger = LocalVenue("127.0.0.1", settings.exchange.port)
            await stranger.connect()
            await stranger.place(order("S-1"))
            await until(lambda: services.shows(m.HALTED))
            assert services.shows(m.VENUE_MISMATCHES_TOTAL, kind="orphan") == services.shows(m.ORPHAN_ORDERS) == 1
            assert "orphan S-1" in services.workers["risk"].stage.host.desk.state.halted
            assert [o.order_id for o in floor.matching.open_orders()] == ["S-1"]
            await stranger.close()

    asyncio.run(story())


def test_an_entry_whose_time_is_over_when_the_venue_can_be_reached_again_is_refused_with_its_cancels(on_kafka):
    settings = at(on_kafka, port=free_port(), symbols=[SYMBOL])
    wired = at(settings, port=free_port())

    async def story() -> None:
        async with Services(wired) as services:
            exchange = await services.exchange(settings)
            async with Wire(wired.exchange.port, settings.exchange.port):
                await services.start("executor")
                await until(lambda: exchange.traders and exchange.pits[SYMBOL].floor.known_ms)
                now = exchange.pits[SYMBOL].floor.known_ms
            late = msgspec.structs.replace(order("E-late"), expires_ms=now + 1000)
            good = msgspec.structs.replace(order("E-good"), expires_ms=now + 600_000)
            again = [Cancel("E-late", SYMBOL, now + n, "entry_ttl") for n in range(20)]
            await services.tell(SIG_APPROVED, (SYMBOL, decided(settings, late, good)), (SYMBOL, approved(*again)))
            await asyncio.sleep(2.5)
            async with Wire(wired.exchange.port, settings.exchange.port) as wire:
                await heard(services, "E-good", "accepted")
                assert await reports(services, "E-late") == [("rejected", reasons.NOT_ARRIVED)]
                assert wire.seen == ["E-good"]

    asyncio.run(story())


@pytest.mark.parametrize("by_file", [False, True], ids=["broker", "file"])
def test_a_kill_takes_entries_back_and_refuses_new_ones_without_the_desk_and_lets_exits_through(on_kafka, tmp_path, by_file):
    settings = at(on_kafka, port=free_port(), symbols=[SYMBOL])

    async def story() -> None:
        async with Services(settings) as services:
            exchange = await services.exchange(at(settings, tmp_path / "venue"))
            floor = exchange.pits[SYMBOL].floor
            await services.start("executor")        # the desk is dead, or hangs
            await until(lambda: floor.known_ms and floor.matching.now)
            await services.tell(SIG_APPROVED, (SYMBOL, approved(order("E-1"), order("E-2"))))
            await heard(services, "E-2", "accepted")
            kill = Control("k1", KILL, "ann", "drill", 0, 0)
            if by_file:
                controls.leave(settings, kill)
            else:
                await services.tell(CONTROL_EVENTS, ("control", encode(kill)))
            for name in ("E-1", "E-2"):
                assert ("cancelled", "requested") in await heard(services, name, "cancelled")
            exit_ = msgspec.structs.replace(order("X1-1", 90_000.0, TARGET), side="SELL")
            await services.tell(SIG_APPROVED, (SYMBOL, approved(order("E-3"), exit_)))
            assert await heard(services, "E-3", "rejected") == [("rejected", reasons.HALTED)]
            [(_, reason)] = await heard(services, "X1-1", "rejected")
            assert reason == reasons.REDUCE_ONLY_WOULD_OPEN, "it reached the venue"
            await services.stop("executor")
            await services.start("executor")
            await services.tell(SIG_APPROVED, (SYMBOL, approved(order("E-4"))))
            assert await heard(services, "E-4", "rejected") == [("rejected", reasons.HALTED)], "it holds over a restart"
            for path in controls.folder(settings).glob("*.json"):
                controls.taken(path)
            await services.tell(CONTROL_EVENTS, ("control", encode(Control("r1", RELEASE, "ann", "over", 0, 0, releasing(["k1"])))))
            await services.tell(SIG_APPROVED, (SYMBOL, approved(order("E-5"))))
            await heard(services, "E-5", "accepted")

    asyncio.run(story())
