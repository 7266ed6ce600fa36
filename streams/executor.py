"""Orders to the venue, reports and fills back. `python -m streams.executor`

Order ids are deterministic and the venue refuses one that it knows. What was sent and has no word from the venue is *waiting*; when
the line breaks it is *unknown*: the desk is told, and after reconnecting the venue is asked by id. What it has is left to its
reports, what it never had is sent again (an entry whose time is over is refused instead); nothing is sent twice on a guess.
Every `venue.reconcile_ms` the venue is asked what stands, and its answer goes to the desk, which compares (`streams.reconcile`).
"""

import asyncio
import logging
import time
from collections.abc import Iterable
from contextlib import suppress

import msgspec

from config.settings import Settings
from engine import metrics as m
from engine import reasons
from engine.facts import (
    ENTRY,
    KILL,
    REJECTED,
    UNKNOWN,
    Approved,
    Cancel,
    Control,
    Fill,
    Fills,
    Order,
    Report,
    Reports,
)
from store import controls
from store.exporter import Exporter
from store.ledger import ledger_url, sent_of
from streams.codec import decode, encode
from streams.stage import Stateful
from streams.topics import CONTROL_EVENTS, EXEC_FILLS, EXEC_REPORTS, SIG_APPROVED
from streams.venues.local import venue_of
from streams.venues.port import Happened, Hello, Venue
from streams.venues.sweep import sweep
from streams.waiting import Waiting
from streams.worker import Worker, since_ms, wall_ms

log = logging.getLogger("sluice.executor")
RETRY_S = 0.5
WATCH_S = 1.0
OLD_MS = 2000       # an approval that is read so late is not sent before the venue has been asked
HEED_S = 0.05       # between two looks for a word beside the broker
AGAIN_S = 0.1       # between two sweeps for as long as something may still be on its way
SWEPT_S = 3.0       # after a KILL; from then on every WATCH_S
REMEMBERED = 1000   # orders handed over, and controls that acted


class Executor:
    """Keeps the venue's line, what was sent over it, and the numbers heard."""

    def __init__(self, worker: Worker, settings: Settings, exporter: Exporter):
        self.worker, self.settings, self.exporter = worker, settings, exporter
        self.venue: Venue | None = None
        self.connected = asyncio.Event()
        self.after: dict[str, int] = {}  # the last venue number published, by symbol
        self.early: dict[str, dict[int, Report | Fill]] = {}    # what came before a number that it follows
        self.missed: dict[str, int] = {}        # the number behind which something was last asked for again
        self.waiting = Waiting()
        self.promised: dict[str, tuple[int, int]] = {}
        self.journal = ""  # the venue's memory that our numbers belong to
        self.kills: dict[str, str] = {}  # that stand, with the code under which an entry is refused meanwhile
        self.acted: dict[str, None] = {}  # KILLs that have acted or are released: a file that stays must not act again
        self.handed: dict[str, None] = {}  # the last orders that were dealt with: the desk may say them again after its death
        self.epoch = 0  # the highest that an order or a control has named: what was decided under an earlier one opens nothing
        self.refused: dict[str, str] = {}  # entries that the desk has been told will not reach the venue, with the code; they never may
        self.killed = asyncio.Event()  # by one that the sweeper has not seen
        self.began_ms = wall_ms()
        self.stage = Stateful(worker, self.on_record, self.parts, self.restore)
        self.stage.writes([EXEC_REPORTS, EXEC_FILLS], self.anew)
        self.look()

    def parts(self) -> dict[str, bytes]:
        """What the next life needs."""
        return {
            "journal": self.journal.encode(),
            "after": msgspec.msgpack.encode(self.after),
            "kills": msgspec.msgpack.encode(self.kills),
            "epoch": msgspec.msgpack.encode(self.epoch),
            "acted": msgspec.msgpack.encode(self.acted),
            "handed": msgspec.msgpack.encode(self.handed),
            "refused": msgspec.msgpack.encode(self.refused),
            "promised": msgspec.msgpack.encode(self.promised),
            "waiting": self.waiting.save(),
        }

    def restore(self, parts: dict[str, bytes]) -> None:
        """Continues."""
        self.journal = parts.get("journal", b"").decode()
        self.kills = msgspec.msgpack.decode(parts["kills"], type=dict[str, str]) if "kills" in parts else {}
        self.acted, self.handed = (dict.fromkeys(msgspec.msgpack.decode(parts[p])) if p in parts else {} for p in ("acted", "handed"))
        self.acted |= dict.fromkeys(self.kills)
        self.epoch = msgspec.msgpack.decode(parts["epoch"], type=int) if "epoch" in parts else 0
        self.refused = msgspec.msgpack.decode(parts["refused"], type=dict[str, str]) if "refused" in parts else {}
        if "promised" in parts:      # a venue that dies with us has forgotten it, and nobody says it twice
            self.promised = msgspec.msgpack.decode(parts["promised"], type=dict[str, tuple[int, int]])
        self.after = msgspec.msgpack.decode(parts["after"])
        self.waiting.load(parts.get("waiting", b""))

    def anew(self) -> None:
        """Asks the venue again for what the desk has not said that it knows."""
        self.after = {symbol: min(after, self.promised.get(symbol, (0, 0))[1]) for symbol, after in self.after.items()}

    async def on_record(self, record) -> None:
        """What the desk approved, or a person's word. What was written before this life may have been sent in the one before."""
        fact = decode(record.value, f"{record.topic}/{record.partition}/{record.offset}")
        if isinstance(fact, Approved):
            await self.on_approved(fact, record.timestamp)
        elif isinstance(fact, Control):
            self.on_control(fact)

    def on_control(self, control: Control) -> None:
        """A KILL acts here too, at once: the desk may hang. A release ends what it names."""
        if control.kind == KILL and control.id not in self.acted:
            log.warning("killed by %s (%s): entries are refused, and those at the venue are taken back", control.actor, control.reason)
            self.kill(control.id, reasons.HALTED)
        self.epoch = max(self.epoch, control.epoch)
        for name in control.kills:
            self.kills.pop(name, None)
            remember(self.acted, name)

    def look(self) -> None:
        """Words beside the broker that the desk has not taken: it may be down, and the broker too."""
        for _, control in list(controls.left(self.settings)):
            self.on_control(control)

    def kill(self, name: str, code: str) -> None:
        """From here on no entry is handed over."""
        self.kills[name] = code
        remember(self.acted, name)
        self.killed.set()

    async def heed(self) -> None:
        """Words beside the broker, and the sweeps that a KILL asks for: nothing here waits for broker, desk or the orders' line."""
        until = due = 0.0
        while True:
            with suppress(TimeoutError):
                await asyncio.wait_for(self.killed.wait(), HEED_S)
            self.look()
            now = time.monotonic()
            if self.killed.is_set():
                self.killed.clear()
                until, due = now + SWEPT_S, now
            if self.kills and now >= due:
                if await self.sweep():
                    until = time.monotonic() + SWEPT_S
                due = time.monotonic() + (AGAIN_S if now < until else WATCH_S)

    async def sweep(self) -> bool:
        """Whether there may be more to take back."""
        try:
            taken = await sweep(self.settings)
        except OSError as error:
            log.warning("the venue does not take entries back (%s)", error or type(error).__name__)
            return True
        if taken:
            log.warning("taken back: %s", ", ".join(taken))
        return bool(taken)

    async def on_approved(self, approved: Approved, written_ms: float) -> None:
        """Orders, cancels and the promise of one stretch, written then; waits while the venue cannot be reached. What was handed to a line
        that broke is left to `reconcile`. What an earlier life may have sent, or has waited, is asked about first."""
        acts, asked = [a for a in approved.acts() if isinstance(a, Cancel) or a.id not in self.handed], False
        names = [a.id for a in acts if isinstance(a, Order)]
        self.epoch = max([self.epoch, *(a.epoch for a in acts if isinstance(a, Order))])
        while True:
            await self.connected.wait()
            venue = self.venue
            assert venue is not None
            try:
                again, waited_ms = written_ms < self.began_ms, wall_ms() - written_ms
                if acts and not asked and (again or (waited_ms > OLD_MS and not self.settings.lockstep)):
                    acts, asked = await self.unsent(venue, acts), True
                while acts:
                    act = acts.pop(0)
                    if isinstance(act, Cancel) and act in self.waiting:
                        continue        # asked already, and repeated by `reconcile` where it got lost
                    if isinstance(act, Order) and act.cause == ENTRY:
                        self.look()         # who hung for a while has not heeded meanwhile
                    if doomed := [a for a in (act, *acts) if self.barred(a)] if self.barred(act) else []:
                        acts = [a for a in acts if a not in doomed]
                        foreign = reasons.OTHER_VENUE in self.kills.values()
                        await self.refuse(doomed, reasons.OTHER_VENUE if foreign else reasons.HALTED if self.kills else reasons.STALE_EPOCH)
                        continue
                    self.waiting.add(act)
                    await self.hand(venue, act)
                    if isinstance(act, Order) and approved.sent_ms:
                        self.exporter.observe(m.ORDER_MS, since_ms(approved.sent_ms))
                if approved.upto_ms:
                    self.promised[approved.symbol] = (approved.upto_ms, approved.seen)
                    await venue.promise(approved.symbol, approved.upto_ms, approved.seen)
                break
            except (ConnectionError, TimeoutError):
                await self.hang_up(venue)
        for name in names:
            remember(self.handed, name)
        if approved.sent_ms:
            self.exporter.observe(m.STAGE_LATENCY_MS, since_ms(approved.sent_ms), service="executor")

    async def unsent(self, venue: Venue, acts: list[Order | Cancel]) -> list[Order | Cancel]:
        """Of what an earlier life may have sent: what the venue never had, and the cancels of what is still there.

        What the desk's ledger does not have was decided by a life that is lost (it was restored from a backup): it is nobody's order.
        """
        sent = sent_of(ledger_url(self.settings), [a.id if isinstance(a, Order) else a.order_id for a in acts])
        for act in [a for a in acts if isinstance(a, Order) and a.id not in sent]:
            self.exporter.inc(m.LOST_TOTAL, what="orders")
            log.error("%s is not in the desk's ledger: it was decided by a life that is lost, and is not sent", act.id)
        acts = [a for a in acts if (a.id if isinstance(a, Order) else a.order_id) in sent]
        if not acts:
            return []
        standing = await venue.standing(acts[0].symbol, [a.id if isinstance(a, Order) else a.order_id for a in acts])
        has = standing.asked
        for act in [a for a in acts if isinstance(a, Order) and a.cause == ENTRY and a not in self.waiting and has[a.id] == ""
                    and not self.settings.lockstep and 0 < a.expires_ms <= standing.ts_ms]:
            await self.refuse([act], reasons.NOT_ARRIVED)
            acts = [a for a in acts if (a.id if isinstance(a, Order) else a.order_id) != act.id]
        return [a for a in acts if a not in self.waiting
                and (has[a.id] == "" if isinstance(a, Order) else has[a.order_id] in ("open", "pending"))]

    async def hang_up(self, venue: Venue) -> None:
        """Ends a line that does not answer; `line` opens another one."""
        if venue is self.venue:
            self.connected.clear()
        await venue.close()

    async def hand(self, venue: Venue, act: Order | Cancel) -> None:
        """To the venue; what it made of it is a report's word."""
        await (venue.place(act) if isinstance(act, Order) else venue.cancel(act))

    def barred(self, act: Order | Cancel) -> bool:
        """Whether it is an entry that may not reach the venue: a KILL stands, a later epoch has begun, or it was refused before."""
        return isinstance(act, Order) and act.cause == ENTRY and (bool(self.kills) or act.epoch < self.epoch or act.id in self.refused)

    async def refuse(self, acts: Iterable[Order | Cancel], reason: str) -> None:
        """The executor's own word that entries will not reach the venue. It is written down first: the next life may read them again, and
        behind a release."""
        orders = [act for act in acts if isinstance(act, Order)]
        if fresh := [order.id for order in orders if order.id not in self.refused]:
            self.refused |= dict.fromkeys(fresh, reason)
            forget(self.refused)
            await self.stage.save()
        for order in orders:
            log.warning("%s is refused: %s", order.id, self.refused[order.id])
            await self.word(order, REJECTED, self.refused[order.id])

    async def word(self, act: Order | Cancel, status: str, reason: str) -> None:
        """A report of our own, which has no number of the venue's."""
        order_id = act.id if isinstance(act, Order) else act.order_id
        told = Report(order_id, act.symbol, status, reason, 0.0, 0, act.ts_ms)
        await (await self.worker.send(EXEC_REPORTS, act.symbol, encode(Reports(act.symbol, "", 0, 0, wall_ms(), [told]))))

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
                try:
                    await asyncio.sleep(0)
                    for symbol in hello.symbols:
                        await self.reconcile(venue, symbol, 0.0)
                    for symbol, (upto_ms, seen) in self.promised.items():  # a restarted exchange may have forgotten the last of them
                        await venue.promise(symbol, upto_ms, seen)
                    self.connected.set()
                    log.info("venue %s:%d, session %s", x.host, x.port, hello.session)
                    await hearing
                finally:
                    hearing.cancel()
            except (TimeoutError, OSError) as error:
                self.connected.clear()
                await venue.close()
                log.warning("the venue's line broke (%s)", error or type(error).__name__)
                await self.doubt("the line broke")
                await asyncio.sleep(RETRY_S)

    async def know(self, hello: Hello) -> None:
        """A venue with another memory than before is not believed: the desk is halted until somebody has looked."""
        if self.journal and hello.journal != self.journal:
            self.exporter.inc(m.LOG_EPOCH_CHANGES_TOTAL, service="executor")
            reason = f"the venue came back with another journal ({hello.journal[:8]}, not {self.journal[:8]}): it knows none of our orders"
            kill = Control(f"kill-venue-{hello.journal}-{wall_ms():.0f}", KILL, "executor", reason, 0, 0)
            log.error("%s; the desk is halted: compare positions, then python -m scripts.release_kill --kill %s", reason, kill.id)
            controls.leave(self.settings, kill)     # the broker may lose it before the desk has read it
            await (await self.worker.send(CONTROL_EVENTS, "control", encode(kill)))
            self.after, self.early, self.missed = {}, {}, {}
            self.kill(kill.id, reasons.OTHER_VENUE)
            self.waiting.clear()
        if self.journal != hello.journal:
            self.journal = hello.journal
            await self.stage.save()

    async def doubt(self, why: str) -> None:
        """Nobody knows what became of what is waiting: the desk is told once, the log names the ids."""
        doubted = self.waiting.doubt()
        if doubted:
            log.warning("%s: unknown until the venue has been asked: %s", why, ", ".join(map(str, doubted)))
        for one in doubted:
            await self.word(one.act, UNKNOWN, reasons.VENUE_UNREACHABLE)
        self.exporter.set(m.UNKNOWN_ORDERS, len(self.waiting.unknown))

    async def reconcile(self, venue: Venue, symbol: str, older_s: float) -> None:
        """Asks what stands of a symbol and what became of what has waited so long; its answer goes to the desk as well."""
        asked = self.waiting.of(symbol, older_s)
        standing = await venue.standing(symbol, [one.order_id for one in asked])
        lockstep = bool(venue.hello and venue.hello.lockstep)
        for one in asked:
            verdict = self.waiting.judge(one, standing, lockstep)
            if verdict == "again":
                log.info("%s has not arrived: sent again", one)
                await self.hand(venue, one.act)
            elif verdict == "late":
                assert isinstance(one.act, Order)
                await self.refuse([one.act], reasons.NOT_ARRIVED)
        self.exporter.set(m.UNKNOWN_ORDERS, len(self.waiting.unknown))
        if standing.seq > self.after.get(symbol, 0):        # told before this answer, and lost
            self.missed.pop(symbol, None)
            await self.miss(symbol)
        await self.worker.send(EXEC_REPORTS, symbol, encode(msgspec.structs.replace(standing, asked={})))

    async def watch(self) -> None:
        """Asks again and again what stands, and says which orders have been unknown for too long."""
        v = self.settings.venue
        asked_at = time.monotonic()
        while True:
            await asyncio.sleep(min(WATCH_S, v.reconcile_ms / 1000))
            for one in self.waiting.overdue(v.unknown_after_ms / 1000):
                log.error("%s has been unknown for %.1f s: the venue cannot be asked", one, one.age_s)
            venue = self.venue
            if venue is None or not self.connected.is_set() or time.monotonic() - asked_at < v.reconcile_ms / 1000:
                continue
            asked_at = time.monotonic()
            try:
                for symbol in venue.hello.symbols if venue.hello else ():
                    await self.reconcile(venue, symbol, v.unknown_after_ms / 1000)
            except (TimeoutError, OSError) as error:
                log.warning("the venue does not say what stands (%s): hung up", error or type(error).__name__)
                await self.hang_up(venue)

    async def hear(self, venue: Venue) -> None:
        """Everything that happens at the venue, published: fills first, then the reports that speak of them."""
        async for happened in venue.happenings(self.after):
            await self.publish(happened)

    async def publish(self, happened: Happened) -> None:
        """One batch of happenings: what is published already is passed over, what comes before its turn is kept until that."""
        after, early = self.after.get(happened.symbol, 0), self.early.setdefault(happened.symbol, {})
        early |= {i.seq: i for i in happened.items}
        items: list[Report | Fill] = []
        while one := early.pop(after + len(items) + 1, None):
            items.append(one)
        fills = [i for i in items if isinstance(i, Fill)]
        reports = [i for i in items if isinstance(i, Report)]
        for item in items:
            self.waiting.answered(item)
        if fills:
            told_fills = Fills(happened.symbol, happened.session, wall_ms(), fills, self.journal)
            await (await self.worker.send(EXEC_FILLS, happened.symbol, encode(told_fills)))
        told = Reports(happened.symbol, happened.session, happened.upto_ms, happened.upto_seq, wall_ms(), reports, happened.markets,
                       self.journal)
        acknowledged = await self.worker.send(EXEC_REPORTS, happened.symbol, encode(told))
        if items:
            await acknowledged
            self.after[happened.symbol] = after = items[-1].seq
        for seq in [seq for seq in early if seq <= after]:
            del early[seq]
        if early:
            await self.miss(happened.symbol)

    async def miss(self, symbol: str) -> None:
        """The venue has said something that did not come: it is asked to say it again, once behind each number."""
        after = self.after.get(symbol, 0)
        if self.venue and self.missed.get(symbol) != after:
            self.missed[symbol] = after
            log.info("%s: number %d of the venue has not come: asked for again", symbol, after + 1)
            await self.venue.again(self.after)


def remember(known: dict[str, None], name: str) -> None:
    """One more, and the oldest forgotten."""
    known[name] = None
    forget(known)


def forget(known: dict) -> None:
    """The oldest of too many."""
    while len(known) > REMEMBERED:
        del known[next(iter(known))]


def make(settings: Settings, exporter: Exporter, made: type[Worker] = Worker) -> Worker:
    """The service's worker; `made` is what carries its records."""
    venue_of(settings)
    worker = made("executor", settings, exporter, [SIG_APPROVED, CONTROL_EVENTS])
    executor = Executor(worker, settings, exporter)
    worker.background += [executor.line, executor.watch, executor.heed]
    return worker


if __name__ == "__main__":
    from streams.service import main

    raise SystemExit(main("executor"))
