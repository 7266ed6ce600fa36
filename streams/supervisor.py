"""Keeps what people query up to date, and watches the outcomes. `python -m streams.supervisor`

Its first form: it runs the projections behind the ledger, re-runs the desk's journal and compares every answer, notes the heads of
the chains where the ledger is not, tells the outcomes, and hears the alerts that call for the fail-safe; the rollout state machine
moves in later.
"""
import asyncio
import logging
import time

from config.settings import Settings
from engine import metrics as m
from store.audit import Auditor
from store.exporter import Exporter
from store.ledger import ledger_url
from store.projections import Projector
from store.witness import Witness, anchors_path
from streams.alarms import watch
from streams.codec import decode
from streams.stage import Stateful
from streams.topics import EXEC_OUTCOMES
from streams.worker import Worker

log = logging.getLogger("sluice.supervisor")
EVERY_S = 0.5
PAGE = 200        # transactions at once: a stop waits for no more


def make(settings: Settings, exporter: Exporter) -> Worker:
    """The service's worker."""
    worker = Worker("supervisor", settings, exporter, [EXEC_OUTCOMES])

    async def on_outcomes(record) -> None:
        outcomes = decode(record.value, f"{record.topic}/{record.partition}/{record.offset}")
        exporter.inc(m.FRAMES_TOTAL, service="supervisor", symbol=outcomes.symbol)
        for o in outcomes.items:
            log.info("%s closed by %s: net %.4f USD (gross %.4f, fees %.4f)", o.id, o.cause, o.net_usd, o.gross_usd, o.fees_usd)

    async def project() -> None:
        projector = Projector(ledger_url(settings))
        while True:
            if not await asyncio.to_thread(projector.run_once, PAGE):
                await asyncio.sleep(EVERY_S)

    async def audit() -> None:
        auditor = Auditor(ledger_url(settings), settings)
        while True:
            compared, differing = await asyncio.to_thread(auditor.run_once, PAGE)
            if differing:
                exporter.inc(m.LIVE_REPLAY_DIFF_TOTAL, differing)
                log.error("%d answers up to transaction %d differ from the journal's re-run", differing, auditor.at)
            if not compared:
                await asyncio.sleep(EVERY_S)

    async def witness() -> None:
        kept = Witness(ledger_url(settings), anchors_path(settings))
        while True:
            noted, wrong = await asyncio.to_thread(kept.round)
            for head in noted:
                log.info("head %s", head)
            if wrong:
                exporter.inc(m.LEDGER_CONTRADICTED_TOTAL)
                log.error("the ledger contradicts %s: %s; python -m scripts.verify_ledger", kept.path, "; ".join(wrong))
            await asyncio.sleep(settings.ledger.anchor_s)

    async def alarms() -> None:
        await watch(worker, settings, time.time)

    worker.background += [project, audit, witness, alarms]
    Stateful(worker, on_outcomes)
    return worker


if __name__ == "__main__":
    from streams.service import main
    raise SystemExit(main("supervisor"))
