"""How the services are: their own Prometheus endpoints, read, merged and turned into one light a service.

Every process exports every label set from its start, so a value is taken from the process that moved it: counters and
histograms are added up, of a gauge the reading farthest from zero counts. Latencies are those of the last minute.
"""
import threading
import time
from collections import deque
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from http.client import HTTPException
from urllib.request import urlopen

from prometheus_client.parser import text_string_to_metric_families

from engine import metrics as m

READY, BEHIND, STALE, WAITING, DOWN = "ready", "behind", "stale", "starting", "down"
ROUTE = ("exchange", "collector", "signal_engine", "ai_scorer", "risk", "executor")
WINDOW_S, TIMEOUT_S = 60.0, 0.4
Labels = tuple[tuple[str, str], ...]
Samples = dict[tuple[str, Labels], float]


@dataclass(frozen=True)
class Light:
    """One service: its state, records it has not taken, and the latency of its stage over the last minute (ms; None: unmeasured)."""
    service: str
    state: str
    lag: float | None
    p50_ms: float | None
    p99_ms: float | None
    why: str


@dataclass(frozen=True)
class Vitals:
    """All lights along the route, and the few figures of the whole. `answered`: at least one endpoint spoke."""
    answered: bool
    lights: tuple[Light, ...]
    events_per_s: float | None
    market_age_ms: float | None
    tick_to_order_p50_ms: float | None
    tick_to_order_p99_ms: float | None
    halted: bool
    errors: float
    exposure_usd: float | None
    samples: Samples = field(default_factory=dict, repr=False)

    def sick(self) -> list[Light]:
        """The services that are not ready."""
        return [light for light in self.lights if light.state != READY]


def parse(text: str) -> Samples:
    """The samples of one exposition in Prometheus' text format; `ValueError` where it is none."""
    return {(s.name, tuple(sorted(s.labels.items()))): s.value for family in text_string_to_metric_families(text)
            for s in family.samples if not s.name.endswith("_created")}


GAUGES = {s.name for s in m.ALL if s.kind == "gauge"}


def merge(parts: Iterable[Samples]) -> Samples:
    """One set of samples from those of several processes."""
    merged: Samples = {}
    for part in parts:
        for key, value in part.items():
            if key[0] in GAUGES:
                merged[key] = max(merged.get(key, 0.0), value, key=abs)
            else:
                merged[key] = merged.get(key, 0.0) + value
    return merged


def quantile(q: float, now: Samples, before: Samples, name: str, **labels: str) -> float | None:
    """The q-quantile of a histogram's observations between two readings, interpolated as PromQL does; None without any.

    What lies beyond the last bound is given as that bound.
    """
    wanted = set(labels.items())
    buckets: dict[float, float] = {}
    for (sample, sample_labels), value in now.items():
        if sample != f"{name}_bucket" or not wanted <= set(sample_labels):
            continue
        bound = float(dict(sample_labels)["le"])
        buckets[bound] = buckets.get(bound, 0.0) + max(0.0, value - before.get((sample, sample_labels), 0.0))
    bounds = sorted(buckets)
    if not bounds or buckets[bounds[-1]] <= 0:
        return None
    rank, low, below = q * buckets[bounds[-1]], 0.0, 0.0
    for bound in bounds:
        if buckets[bound] >= rank:
            if bound == float("inf"):
                return low
            inside = buckets[bound] - below
            return low + (bound - low) * ((rank - below) / inside if inside else 0.0)
        low, below = bound, buckets[bound]
    return low


def values(samples: Samples, series: m.Series, **labels: str) -> list[float]:
    """The values of a declared series under these labels; `LookupError` for a label that it cannot have."""
    series(**labels)
    wanted = set(labels.items())
    return [v for (name, sample_labels), v in samples.items() if name == series.name and wanted <= set(sample_labels)]


def diagnose(now: Samples, before: Samples, elapsed_s: float, stale_ms: float, max_lag: float, answered: bool) -> Vitals:
    """Lights and figures from two readings; `before` may be empty, then nothing has a rate."""
    ages = [v for v in values(now, m.MARKET_DATA_AGE_MS) if v > 0]
    age = min(ages) if ages else None
    lights = []
    for service in ROUTE:
        ready = any(values(now, m.SERVICE_READY, service=service))
        staged = service in m.STAGES
        lags = values(now, m.CONSUMER_LAG_RECORDS, service=service) if staged else []
        lag = max(lags) if lags else None
        p50, p99 = (quantile(q, now, before, m.STAGE_LATENCY_MS.name, service=service) if staged else None for q in (0.5, 0.99))
        if not answered:
            state, why = DOWN, "no answer on its metrics port"
        elif not ready:
            state, why = WAITING, "not started, or not caught up with its topics"
        elif service == "collector" and age is not None and age > stale_ms:
            state, why = STALE, f"last market event {age / 1000:,.1f} s ago, {stale_ms / 1000:g} s is the limit"
        elif lag is not None and lag > max_lag:
            state, why = BEHIND, f"{lag:,.0f} records behind, {max_lag:,.0f} is the limit"
        else:
            state, why = READY, "ready"
        lights.append(Light(service, state, lag, p50, p99, why))
    rate = None
    if answered and before and elapsed_s > 0:
        rate = max(0.0, sum(values(now, m.MARKET_EVENTS_TOTAL)) - sum(values(before, m.MARKET_EVENTS_TOTAL))) / elapsed_s
    order_ms = [quantile(q, now, before, m.DECISION_MS.name) for q in (0.5, 0.99)]
    exposures = values(now, m.EXPOSURE_USD)
    return Vitals(answered, tuple(lights), rate, age, order_ms[0], order_ms[1], any(values(now, m.HALTED)),
                  sum(values(now, m.STAGE_ERRORS_TOTAL)), exposures[0] if exposures else None, now)


class Scraper:
    """Reads the endpoints of all services at once, and remembers a minute of readings. One for all sessions."""

    def __init__(self, host: str, first_port: int):
        self.urls = [f"http://{host}:{first_port + i}/metrics" for i in range(len(m.SERVICES))]
        self.history: deque[tuple[float, Samples]] = deque()
        self.lock = threading.Lock()

    def look(self, stale_ms: float, max_lag: float) -> Vitals:
        """The vitals now."""
        with ThreadPoolExecutor(len(self.urls)) as pool:
            parts = [p for p in pool.map(fetch, self.urls) if p]
        now, at = merge(parts), time.monotonic()
        with self.lock:
            while self.history and at - self.history[0][0] > WINDOW_S:
                self.history.popleft()
            if self.history and restarted(now, self.history[-1][1]):
                self.history.clear()
            then, before = self.history[0] if self.history else (at, {})
            if now:
                self.history.append((at, now))
        return diagnose(now, before, at - then, stale_ms, max_lag, bool(parts))


def restarted(now: Samples, before: Samples) -> bool:
    """Whether a counter went backwards: another process answers, and differences to before mean nothing."""
    return any(value < before.get(key, 0.0) for key, value in now.items() if key[0].endswith(("_total", "_bucket")))


def fetch(url: str) -> Samples | None:
    """The samples of one endpoint; None where nobody answers in time, or something else than metrics does."""
    try:
        with urlopen(url, timeout=TIMEOUT_S) as answer:
            return parse(answer.read(4_000_000).decode())
    except (OSError, HTTPException, ValueError):
        return None
