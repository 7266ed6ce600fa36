"""Keeps what people query up to date, and watches the outcomes. `python -m streams.supervisor`

Its first form: it runs the projections behind the ledger and counts outcomes; the rollout state machine moves in later.
"""
import asyncio
import logging

from config.settings import Settings
from engine import metrics as m
from store.exporter import Exporter
from store.ledger import ledger_url
from store.projections import Projector
from streams.codec import decode
from streams.stage import Stateful
from streams.topics import EXEC_OUTCOMES
from streams.worker import Worker

log = logging.getLogger("sluice.supervisor")
EVERY_S = 0.5


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
            done = await asyncio.to_thread(projector.run_once)
            if not done:
                await asyncio.sleep(EVERY_S)

    worker.background.append(project)
    Stateful(worker, on_outcomes)
    return worker


if __name__ == "__main__":
    from streams.service import main
    raise SystemExit(main("supervisor"))
