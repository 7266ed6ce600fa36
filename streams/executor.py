"""Orders to the venue, reports and fills back. `python -m streams.executor`

Order ids are deterministic and the venue refuses one that it knows, so a repeated request changes nothing. An order without any
word from the venue when the line broke is *unknown*: after reconnecting the venue is asked what happened and what stands, and
only what it does not know is sent again.
"""

import asyncio
import logging

import msgspec

from config.settings import Settings
from engine import metrics as m
from engine import reasons
from engine.facts import ENTRY, KILL, REJECTED, RELEASE, Approved, Control, Fill, Fills, Order, Report, Reports
from store.exporter import Exporter
from streams.codec import decode, encode
from streams.stage import Stateful
from streams.topics import CONTROL_EVENTS, EXEC_FILLS, EXEC_REPORTS, SIG_APPROVED
from streams.venues.local import venue_of
from streams.venues.port import Happened, Hello, Venue
from streams.worker import Worker, since_ms, wall_ms

log = logging.getLogger("sluice.executor")
RETRY_S = 0.5


class Executor:
    """Keeps the venue's line, what was sent over it, and the numbers heard."""

    def __init__(self, worker: Worker, settings: Settings, exporter: Exporter):
        self.worker, self.settings, self.exporter = worker, settings, exporter
        self.venue: Venue | None = None
        self.connected = asyncio.Event()
        self.after: dict[str, int] = {}  # the last venue number published, by symbol
        self.unanswered: dict[str, Order] = {}  # sent, and not a word yet
        self.promised: dict[str, tuple[int, int]] = {}
        self.journal = ""  # the venue's memory that our numbers belong to
        self.estranged = False  # the venue has another memory, and nobody has released the desk since
        self.stage = Stateful(worker, self.on_record, self.parts, self.restore)

    def parts(self) -> dict[str, bytes]:
        """What the next life needs."""
        return {
            "journal": self.journal.encode(),
            "after": msgspec.msgpack.encode(self.after),
            "estranged": b"1" if self.estranged else b"",
            "promised": msgspec.msgpack.encode(self.promised),
            "unanswered": msgspec.msgpack.encode(list(self.unanswered.values())),
        }

    def restore(self, parts: dict[str, bytes]) -> None:
        """Continues."""
        self.journal = parts.get("journal", b"").decode()
        self.estranged = bool(parts.get("estranged"))
        if "promised" in parts:      # a venue that dies with us has forgotten it, and nobody says it twice
            self.promised = msgspec.msgpack.decode(parts["promised"], type=dict[str, tuple[int, int]])
        self.after = msgspec.msgpack.decode(parts["after"])
        self.unanswered = {o.id: o for o in msgspec.msgpack.decode(parts["unanswered"], type=list[Order])}

    async def on_record(self, record) -> None:
        """What the desk approved, or a person's word."""
        fact = decode(record.value, f"{record.topic}/{record.partition}/{record.offset}")
        if isinstance(fact, Approved):
            await self.on_approved(fact)
        elif isinstance(fact, Control) and fact.kind == RELEASE:
            self.estranged = False

    async def on_approved(self, approved: Approved) -> None:
        """Orders, cancels and the promise of one stretch; waits while the venue cannot be reached."""
        while True:
            await self.connected.wait()
            venue = self.venue
            assert venue is not None
            try:
                for act in approved.acts():
                    if isinstance(act, Order) and act.cause == ENTRY and self.estranged:
                        await self.refuse(act, reasons.OTHER_VENUE)
                    elif isinstance(act, Order):
                        self.unanswered[act.id] = act
                        await venue.place(act)
                        if approved.sent_ms:
                            self.exporter.observe(m.ORDER_MS, since_ms(approved.sent_ms))
                    else:
                        await venue.cancel(act)
                if approved.upto_ms:
                    self.promised[approved.symbol] = (approved.upto_ms, approved.seen)
                    await venue.promise(approved.symbol, approved.upto_ms, approved.seen)
                break
            except ConnectionError:
                self.connected.clear()
        self.exporter.set(m.UNKNOWN_ORDERS, 0 if self.connected.is_set() else len(self.unanswered))
        if approved.sent_ms:
            self.exporter.observe(m.STAGE_LATENCY_MS, since_ms(approved.sent_ms), service="executor")

    async def refuse(self, order: Order, reason: str) -> None:
        """The executor's own word that an order will not reach the venue; it has no number of the venue's."""
        log.warning("%s is refused: %s", order.id, reason)
        told = Report(order.id, order.symbol, REJECTED, reason, 0.0, 0, order.ts_ms)
        await (await self.worker.send(EXEC_REPORTS, order.symbol, encode(Reports(order.symbol, "", 0, 0, wall_ms(), [told]))))

    async def line(self) -> None:
        """The venue's line: connects, hears, connects again."""
        x = self.settings.exchange
        while True:
            venue = venue_of(self.settings)
            try:
                hello = await venue.connect(patience_s=3600)
                await self.know(hello)
                self.venue = venue
                hearing = asyncio.ensure_future(self.hear(venue))
                await self.reconcile(venue)
                self.connected.set()
                log.info("venue %s:%d, session %s", x.host, x.port, venue.hello.session if venue.hello else "?")
                await hearing
            except (TimeoutError, OSError) as error:
                self.connected.clear()
                self.exporter.set(m.UNKNOWN_ORDERS, len(self.unanswered))
                log.warning("the venue's line broke (%s); %d orders are unknown until it is back", error, len(self.unanswered))
                await asyncio.sleep(RETRY_S)

    async def know(self, hello: Hello) -> None:
        """A venue with another memory than before is not believed: the desk is halted until somebody has looked."""
        if self.journal and hello.journal != self.journal:
            self.exporter.inc(m.LOG_EPOCH_CHANGES_TOTAL, service="executor")
            reason = f"the venue came back with another journal ({hello.journal[:8]}, not {self.journal[:8]}): it knows none of our orders"
            log.error("%s; the desk is halted: compare positions, then python -m scripts.release_kill", reason)
            kill = Control(f"kill-venue-{hello.journal}-{wall_ms():.0f}", KILL, "executor", reason, 0, 0)
            await (await self.worker.send(CONTROL_EVENTS, "control", encode(kill)))
            self.after, self.unanswered, self.estranged = {}, {}, True
        if self.journal != hello.journal:
            self.journal = hello.journal
            await self.stage.save()

    async def reconcile(self, venue: Venue) -> None:
        """Asks before it sends again: what the venue neither reports nor has standing has not arrived."""
        await asyncio.sleep(0)
        standing = await venue.standing()
        for order in list(self.unanswered.values()):
            if order.id not in standing.orders:
                log.info("%s has not arrived: sent again", order.id)
                await venue.place(order)
        for symbol, (upto_ms, seen) in self.promised.items():  # a restarted exchange may have forgotten the last of them
            await venue.promise(symbol, upto_ms, seen)
        self.exporter.set(m.UNKNOWN_ORDERS, 0)

    async def hear(self, venue: Venue) -> None:
        """Everything that happens at the venue, published: fills first, then the reports that speak of them."""
        async for happened in venue.happenings(self.after):
            await self.publish(happened)

    async def publish(self, happened: Happened) -> None:
        """One batch of happenings; what was published already is passed over."""
        after = self.after.get(happened.symbol, 0)
        items = [i for i in happened.items if i.seq > after]
        fills = [i for i in items if isinstance(i, Fill)]
        reports = [i for i in items if isinstance(i, Report)]
        for item in items:
            self.unanswered.pop(item.order_id, None)
        if fills:
            await (await self.worker.send(EXEC_FILLS, happened.symbol, encode(Fills(happened.symbol, happened.session, wall_ms(), fills))))
        told = Reports(happened.symbol, happened.session, happened.upto_ms, happened.upto_seq, wall_ms(), reports, happened.markets)
        acknowledged = await self.worker.send(EXEC_REPORTS, happened.symbol, encode(told))
        if items:
            await acknowledged
            self.after[happened.symbol] = max(after, items[-1].seq)


def make(settings: Settings, exporter: Exporter, made: type[Worker] = Worker) -> Worker:
    """The service's worker; `made` is what carries its records."""
    venue_of(settings)
    worker = made("executor", settings, exporter, [SIG_APPROVED, CONTROL_EVENTS])
    executor = Executor(worker, settings, exporter)
    worker.background.append(executor.line)
    return worker


if __name__ == "__main__":
    from streams.service import main

    raise SystemExit(main("executor"))
