"""Hosts the Desk: market, scores, reports and fills in; orders, refusals and outcomes out, by way of the ledger. `python -m streams.risk`

What a record led to is written in one transaction, then published (outbox): what was not acknowledged is published again after a
restart, and receivers know it by its ids.
"""
import asyncio
import logging
import time
from collections import deque
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from config.settings import Settings
from engine import metrics as m
from engine.facts import Approved, Control, DroppedBatch, Frame, Order, Outcomes, Rewarded, ScoredBatch, Tick
from engine.state import FULL, PAPER
from engine.telemetry import Telemetry
from store import controls, evidence, fill_model
from store.exporter import Exporter
from store.ledger import Ledger, ledger_url
from store.state import Failures
from streams.codec import decode, encode
from streams.host import DeskHost
from streams.topics import (
    CONTROL_EVENTS,
    EXEC_FILLS,
    EXEC_OUTCOMES,
    EXEC_REPORTS,
    EXEC_REWARDS,
    MD_FRAMES,
    SIG_APPROVED,
    SIG_DROPPED,
    SIG_SCORED,
    Topic,
)
from streams.worker import Marks, Worker, elsewhere, since_ms, wall_ms

log = logging.getLogger("sluice.risk")
TOPIC_OF: dict[type, Topic] = {Approved: SIG_APPROVED, DroppedBatch: SIG_DROPPED, Outcomes: EXEC_OUTCOMES,
                            Rewarded: EXEC_REWARDS, Control: CONTROL_EVENTS}
QUIET_MS = 1000     # without a record for this long, the desk is told that time passes


@dataclass
class Outgoing:
    """A transaction's records on their way to the broker; none yet while they are handed over."""
    seq: int
    futures: list[asyncio.Future] | None = None


class Risk:
    """The stage: a DeskHost, its ledger and its outbox."""

    def __init__(self, worker: Worker, settings: Settings, exporter: Exporter, lockstep: bool):
        self.worker, self.exporter, self.lockstep = worker, exporter, lockstep
        self.ledger = Ledger(ledger_url(settings), "risk", settings.ledger.synchronous)
        self.artifacts = fill_model.at(settings.fill_prob.artifact_dir or evidence.DEFAULT)
        self.telemetry = Telemetry(exporter, log.info, markout=settings.markout, evidence=self.keep)
        self.host = DeskHost(settings, self.ledger, self.telemetry, lockstep)
        self.ticks = settings.venue.venue not in ("sim", "recording")    # at a local exchange time stands still when its market does
        self.outbox: deque[Outgoing] = deque()
        self.acknowledging = asyncio.Lock()
        self.heard_at = time.monotonic()
        with suppress(OSError):      # ours, so that it is ours to empty, whoever leaves a word there
            controls.folder(settings).mkdir(parents=True, exist_ok=True)
        self.stay: set[Path] = set()      # words that are taken, and whose files cannot be removed
        self.found = fill_model.opened(settings, round(wall_ms()))
        self.failures, self.stuck = Failures(settings.folder("data"), settings.instance + "risk"), ""
        log.info("desk restored: ledger at %d, %d facts folded again, %d open entries", self.ledger.head()[0], self.host.refolded,
                 len(self.host.desk.portfolio.entries))

    def keep(self, artifact: dict) -> None:
        """Evidence of the fill-probability gate goes to its folder; a disk that does not take it stops nobody."""
        _, line = fill_model.kept(self.artifacts, artifact)
        if line:
            log.warning(line)

    async def settle(self) -> None:
        """The settings of this start, and what it found for the fill-probability gate: said, and told to the Desk where it is news."""
        state, wanted = self.host.desk.state, self.worker.settings.rollout.mode
        if self.ledger.head()[0] and state.mode != (FULL if wanted == FULL else PAPER):
            log.warning("rollout.mode is %s in the configuration and %s in the ledger: the ledger is right (python -m scripts.mode)",
                        wanted, state.mode)
        if told := self.host.settled():
            await self.speak(*self.host.order(told), 0.0)
        for line in self.found.lines:
            log.log(logging.WARNING if "FAILED" in line or "SKIPPED" in line else logging.INFO, line)
        if told := self.host.gating(fill_model.gating(self.worker.settings, self.found)):
            await self.speak(*self.host.order(told), 0.0)
        self.telemetry.fill_prob.opened(self.host.desk.entering.gate, self.found.threshold)

    def marks(self) -> Marks:
        """Where to read on: the ledger's word."""
        return self.ledger.marks()

    async def republish(self) -> None:
        """What was written and not acknowledged before the last end; on another log, also the orders that the venue may never have had."""
        said = 0
        for orders in self.host.in_flight(self.worker.epochs):
            said += len(orders.orders)
            await (await self.worker.send(SIG_APPROVED, orders.symbol, encode(orders)))
        if said:
            log.error("risk: %s is another log: %d orders of which the venue has not spoken are said again", SIG_APPROVED, said)
        for entry in list(self.ledger.unacknowledged()):
            await self.publish(entry.seq, entry.produced)
        await self.ordered()        # last: its transaction comes after those, and so must its acknowledgement
        await self.settle()

    async def ordered(self) -> None:
        """What people left beside the broker: it may be down, or have lost what it was told."""
        for path, control in list(controls.left(self.worker.settings)):
            consumed, outs = self.host.order(control)
            if path in self.stay and not consumed:
                continue
            if consumed:
                log.warning("%s %s by %s (%s), from %s", control.kind, control.id, control.actor, control.reason, path)
            await self.speak(consumed, outs, 0.0)
            if not controls.taken(path) and path not in self.stay:
                self.stay.add(path)
                log.error("%s: it is in the ledger and cannot be taken away (this user must be able to write there)", path)

    async def publish(self, seq: int, produced: list) -> None:
        """Records to their topics; the ledger learns of the acknowledgement in order."""
        one = Outgoing(seq)
        self.outbox.append(one)     # at once: who comes while this one is handed over is behind it
        one.futures = [await self.worker.send(TOPIC_OF[type(r)], getattr(r, "symbol", "control"), encode(r)) for r in produced]
        await self.acknowledge(len(self.outbox) > 500)

    async def acknowledge(self, wait: bool = False) -> None:
        """Moves the ledger's pointer over what the broker has."""
        async with self.acknowledging:
            while self.outbox:
                one = self.outbox[0]
                if one.futures is None or not (wait or all(f.done() for f in one.futures)):
                    break
                await asyncio.gather(*one.futures)
                self.outbox.popleft()
                self.ledger.acknowledge(one.seq)
        self.exporter.set(m.LEDGER_OUTBOX, len(self.outbox))

    async def on_record(self, record) -> None:
        """One record: consumed, written, spoken. One that fails twice halts the desk until a person has looked (fail closed)."""
        try:
            await self.consume(record)
        except Exception as error:
            if elsewhere(error):
                raise
            where = f"{record.topic}/{record.partition}/{record.offset}"
            if not self.failures.again(where):
                raise
            self.failures.book(where, record.value, error)
            self.exporter.inc(m.STAGE_ERRORS_TOTAL, service="risk")
            self.exporter.set(m.HALTED, 1)
            self.stuck = where
            log.error("risk: %s failed twice: the desk stays halted; it is booked in %s: %s", where, self.failures.book_path, error)
            await asyncio.Event().wait()

    async def consume(self, record) -> None:
        """One record."""
        self.heard_at = time.monotonic()
        fact = decode(record.value, f"{record.topic}/{record.partition}/{record.offset}")
        if isinstance(fact, Frame):
            self.exporter.inc(m.FRAMES_TOTAL, service="risk", symbol=fact.symbol)
        consumed, outs = self.host.take(fact, (record.topic, record.partition, record.offset))
        await self.speak(consumed, outs, fact.sent_ms if isinstance(fact, (Frame, ScoredBatch)) else 0.0)
        if isinstance(fact, ScoredBatch) and fact.sent_ms:
            self.exporter.observe(m.STAGE_LATENCY_MS, since_ms(fact.sent_ms), service="risk")

    async def speak(self, consumed: list, outs: list, sent_ms: float) -> None:
        """Writes down what was consumed and said, then says it."""
        if consumed:
            began = time.perf_counter()
            produced = self.host.produce(consumed, outs, sent_ms)
            seq = self.host.commit(consumed, produced, self.worker.epochs)
            self.exporter.observe(m.LEDGER_COMMIT_MS, (time.perf_counter() - began) * 1000)
            await self.publish(seq, produced)
            self.telemetry.on(self.host.desk, consumed, outs)
            if sent_ms and any(isinstance(o, Order) for o in outs):
                self.exporter.observe(m.DECISION_MS, since_ms(sent_ms))
        if self.lockstep:
            for promise in self.host.promises():
                await self.worker.send(SIG_APPROVED, promise.symbol, encode(promise))

    async def beat(self) -> None:
        """Figures of the account; and time, where the market is silent."""
        while True:
            await asyncio.sleep(1.0)
            desk = self.host.desk
            self.telemetry.stands(desk, self.stuck)
            self.exporter.set(m.UNRECONCILED_MS, self.host.reconciler.age_ms)
            await self.acknowledge()
            await self.ordered()
            if health := self.host.pressed(self.worker.lag, len(self.outbox)):
                log.warning("%s records wait: %s", health.details, "entries are held back" if not desk.state.pressure.over else "over")
                await self.speak(*self.host.order(health), 0.0)
            quiet_ms = (time.monotonic() - self.heard_at) * 1000
            if self.ticks and quiet_ms > QUIET_MS and not desk.idle:
                tick = Tick(desk.state.now_ms + 1000)
                await self.speak([tick], self.host.desk.on(tick), 0.0)

    async def close(self) -> None:
        """Acknowledges what can be, snapshots, lets go of the ledger."""
        try:
            await asyncio.wait_for(self.acknowledge(True), 2)
        except TimeoutError:
            log.warning("%d transactions are not acknowledged by the broker; the next start publishes them again", len(self.outbox))
        try:
            if self.ledger.head()[0]:
                self.host.snapshot(self.ledger.head()[0])
        finally:
            self.ledger.close()


def make(settings: Settings, exporter: Exporter, made: type[Worker] = Worker) -> Worker:
    """The service's worker; `made` is what carries its records."""
    worker = made("risk", settings, exporter, [MD_FRAMES, SIG_SCORED, EXEC_REPORTS, EXEC_FILLS, CONTROL_EVENTS])
    stage = Risk(worker, settings, exporter, settings.lockstep)
    worker.stage = stage
    worker.on_open.append(stage.republish)
    worker.background.append(stage.beat)
    worker.on_close.append(stage.close)
    return worker


if __name__ == "__main__":
    from streams.service import main
    raise SystemExit(main("risk"))
