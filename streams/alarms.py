"""Which alerts are firing, and a CRIT to the desk for each that calls for its fail-safe: what S1 lets `control:events` deliver.

Prometheus knows what is wrong with services that cannot say so themselves. The supervisor asks it every `fail_safe.poll_ms`; an alert of
`fail_safe.alerts` becomes a `Control` whose id follows from the alert and the time it has been firing, a new one every third of the
cooldown while it lasts: so a restart tells nothing twice, and the desk does not come back before the alert is gone.
"""
import asyncio
import json
import logging
import urllib.error
import urllib.request
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlsplit

from config.settings import Settings
from engine import metrics as m
from engine.facts import CRIT, Control
from engine.settings import FailSafe
from streams.codec import encode
from streams.topics import CONTROL_EVENTS
from streams.worker import Worker

log = logging.getLogger("sluice.alarms")
TIMEOUT_S = 3.0
KEPT = 1000


class Unread(Exception):
    """Prometheus did not say which alerts are firing."""


def firing(url: str) -> list[dict[str, Any]]:
    """What fires now, as Prometheus' `/api/v1/alerts` has it; `Unread` says which address did not answer, or what it answered instead."""
    address = url.rstrip("/") + "/api/v1/alerts"
    if urlsplit(address).scheme not in ("http", "https"):
        raise Unread(f"{address}: an http address was expected (fail_safe.prometheus_url, SLUICE_PROMETHEUS_URL)")
    try:
        with urllib.request.urlopen(address, timeout=TIMEOUT_S) as answer:
            told = json.load(answer)
        return [a for a in told["data"]["alerts"] if a["state"] == "firing"]
    except (OSError, ValueError, KeyError, TypeError, urllib.error.HTTPError) as error:
        raise Unread(f"{address}: {error or type(error).__name__}") from None


def crits(alerts: Iterable[dict[str, Any]], rules: FailSafe, now_s: float, speed: float = 1.0) -> list[Control]:
    """The CRITs that these firing alerts call for at `now_s` (epoch), the earliest first; alerts that are not listed call for none.

    The cooldown is market time, which passes at `speed` times the clock's: a third of it, and never oftener than anybody asks.
    """
    every_s, found = max(rules.poll_ms / 1000, rules.cooldown_minutes * 20 / speed), []
    for alert in alerts:
        name = alert["labels"].get("alertname", "")
        if name not in rules.alerts:
            continue
        since_s = datetime.fromisoformat(alert["activeAt"][:19]).replace(tzinfo=UTC).timestamp()     # nine digits of a second follow
        said = " ".join(alert.get("annotations", {}).get("summary", "").split())[:200]
        found.append(Control(f"crit-{name}-{since_s:.0f}-{max(0.0, now_s - since_s) // every_s:.0f}", CRIT, "prometheus",
                             f"{name}: {said}" if said else name, 0, 0))
    return sorted({c.id: c for c in found}.values(), key=lambda c: c.id)


def pace(settings: Settings) -> float:
    """How fast market time passes: 1 at a venue, a local exchange's speed else; one that runs as it can is asked about each time."""
    if settings.venue.venue not in ("sim", "recording"):
        return 1.0
    return 1e9 if settings.exchange.speed == "max" else float(settings.exchange.speed)


async def watch(worker: Worker, settings: Settings, clock) -> None:
    """Asks for as long as the service lives; with no address configured there is nothing to ask."""
    rules, told, silent = settings.fail_safe, dict[str, None](), ""
    worker.exporter.set(m.ALARMS_READ, 1)
    while rules.prometheus_url:
        try:
            alerts = await asyncio.to_thread(firing, rules.prometheus_url)
            worker.exporter.set(m.ALARMS_READ, 1)
            silent = ""
        except Unread as error:
            if str(error) != silent:
                log.warning("nobody says which alerts are firing: %s", error)
            silent, alerts = str(error), []
            worker.exporter.set(m.ALARMS_READ, 0)
        for control in crits(alerts, rules, clock(), pace(settings)):
            if control.id not in told:
                await (await worker.send(CONTROL_EVENTS, "control", encode(control)))
                log.warning("CRIT to the desk: %s", control.reason)
                told[control.id] = None
                while len(told) > KEPT:
                    del told[next(iter(told))]
        await asyncio.sleep(rules.poll_ms / 1000)
