"""What a desk's metrics say, for people at a terminal: one line now and then, a report at the end."""
import time
from dataclasses import dataclass
from http.client import HTTPException
from urllib.request import urlopen

from prometheus_client.parser import text_string_to_metric_families

from engine import metrics as m
from engine.metrics import Series

Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]


def scrape(url: str, timeout_s: float = 1.0) -> Samples:
    """All samples of a metrics endpoint; empty where nobody answers."""
    try:
        with urlopen(url, timeout=timeout_s) as answer:
            text = answer.read().decode()
    except (OSError, HTTPException):
        return {}
    return {(s.name, frozenset(s.labels.items())): s.value for family in text_string_to_metric_families(text) for s in family.samples}


@dataclass(frozen=True)
class Look:
    """One look at the endpoint."""
    at: float
    samples: Samples

    def sum(self, series: Series, **labels: str) -> float:
        """The series added up over all labels but those given."""
        want = set(labels.items())
        return sum(v for (name, have), v in self.samples.items() if name == series.name and want <= have)

    def by(self, series: Series, label: str) -> dict[str, float]:
        """The series added up for each value of a label, without zeros, the greatest first."""
        out: dict[str, float] = {}
        for (name, labels), value in self.samples.items():
            if name == series.name and value:
                key = dict(labels)[label]
                out[key] = out.get(key, 0) + value
        return dict(sorted(out.items(), key=lambda kv: -kv[1]))

    def largest(self, series: Series) -> float:
        """The greatest value over all labels."""
        return max((v for (name, _), v in self.samples.items() if name == series.name), default=0.0)

    def ready(self, services: tuple[str, ...]) -> bool:
        """Whether all these services say so."""
        return all(self.sum(m.SERVICE_READY, service=s) == 1 for s in services)


def look(url: str) -> Look:
    """The endpoint as it is now."""
    return Look(time.monotonic(), scrape(url))


def reasons(now: Look) -> str:
    """Why candidates became no orders, most frequent first."""
    dropped = now.by(m.DROPPED_TOTAL, "reason")
    return ", ".join(f"{reason} {count:,.0f}" for reason, count in dropped.items()) or "nothing was dropped"


def line(before: Look, now: Look) -> str:
    """A status line: rates since the look before, totals since the start."""
    seconds = max(now.at - before.at, 1e-9)
    rate = (now.sum(m.MARKET_EVENTS_TOTAL) - before.sum(m.MARKET_EVENTS_TOTAL)) / seconds
    return (f"{rate:,.0f} events/s · lag {now.largest(m.CONSUMER_LAG_RECORDS):,.0f} · {now.sum(m.CANDIDATES_TOTAL):,.0f} candidates · "
            f"{now.sum(m.DECISIONS_TOTAL):,.0f} decisions · {now.sum(m.ORDERS_TOTAL):,.0f} orders · {now.sum(m.FILLS_TOTAL):,.0f} fills · "
            f"{now.sum(m.REALIZED_PNL_USD):+,.2f} USD")


def report(started: Look, now: Look) -> list[str]:
    """What a finished market came to; the rate is of what came after the first look."""
    events, seconds = now.sum(m.MARKET_EVENTS_TOTAL), max(now.at - started.at, 1e-9)
    rate = (events - started.sum(m.MARKET_EVENTS_TOTAL)) / seconds
    return [f"market events   {events:,.0f}; {rate:,.0f}/s over the last {seconds:.1f} s, the whole route through the broker",
            f"candidates      {now.sum(m.CANDIDATES_TOTAL):,.0f}, scored {now.sum(m.SCORES_TOTAL):,.0f}",
            f"decisions       {', '.join(f'{k} {v:,.0f}' for k, v in now.by(m.DECISIONS_TOTAL, 'decision').items()) or 'none'}",
            f"dropped         {reasons(now)}",
            f"orders          {', '.join(f'{k} {v:,.0f}' for k, v in now.by(m.ORDERS_TOTAL, 'cause').items()) or 'none'}",
            f"fills           {now.sum(m.FILLS_TOTAL):,.0f}",
            f"result          {now.sum(m.REALIZED_PNL_USD):+,.2f} USD after fees of {now.sum(m.FEES_USD):,.2f}"]
