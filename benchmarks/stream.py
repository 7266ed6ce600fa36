"""Through the broker: events a second, and the time from a tick to its order and to the venue, at several rates.

    python -m benchmarks.stream                     100, 1,000 and 5,000 events/s
    python -m benchmarks.stream --rates 500 --seconds 10

The whole route runs as it does live (exchange, collector, signals, scorer, risk, executor in their processes, a real broker of its
own on free ports); the market is simulated at the rate asked for, cooldowns and confidence are lowered so that there are orders to
time. Figures come from the services' own histograms: `tick→decided` is a frame's ingress to its scores decided (three hops).
"""

import argparse
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from urllib.request import urlopen

from config import settings as config
from engine import metrics as m
from streams import broker

QUANTILES = (0.5, 0.99)
TRADES_S = 35  # of the three simulated symbols together


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def scraped(port: int) -> dict[str, float]:
    """The services' series by their full name."""
    text = urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5).read().decode()
    return {name: float(value) for name, value in re.findall(r"^([a-z_]+(?:\{[^}]*\})?) ([-+0-9.eInfNa]+)$", text, re.M)}


def quantile(before: dict[str, float], after: dict[str, float], series: m.Series, q: float, **labels: str) -> float:
    """A histogram's quantile over an interval, linear within its bucket (as PromQL's `histogram_quantile`)."""
    counts = []
    for name, value in after.items():
        found = re.match(rf'{series.name}_bucket\{{(.*)le="([^"]+)"(.*)\}}$', name)
        if found and all(f'{k}="{v}"' in name for k, v in labels.items()):
            counts.append((float(found[2]), value - before.get(name, 0.0)))
    counts.sort()
    total = counts[-1][1] if counts else 0
    low, under = 0.0, 0.0
    for edge, count in counts:
        if total and count >= q * total:
            return low if edge == float("inf") else low + (edge - low) * (q * total - under) / max(count - under, 1e-9)
        low, under = edge, count
    return float("nan")


def run(env: dict[str, str], more: list[str], seconds: float, warm: float, port: int) -> tuple[dict[str, float], dict[str, float], float]:
    """(series before, series after, seconds between) of a running route."""
    exchange = subprocess.Popen([sys.executable, "-m", "streams.exchange", *more], env=env, cwd=config.ROOT, stderr=subprocess.DEVNULL)
    live = subprocess.Popen([sys.executable, "-m", "scripts.run_live", *more], env=env, cwd=config.ROOT, stderr=subprocess.DEVNULL)
    try:
        until = time.monotonic() + 90
        while True:
            if live.poll() is not None or exchange.poll() is not None or time.monotonic() > until:
                raise SystemExit("the route did not start; run it by hand: python -m scripts.run_live")
            try:
                if sum(v for k, v in scraped(port).items() if k.startswith('frames_total{service="risk"')) > 20:
                    break
            except OSError:
                pass
            time.sleep(0.2)
        time.sleep(warm)
        before, began = scraped(port), time.monotonic()
        time.sleep(seconds)
        return before, scraped(port), time.monotonic() - began
    finally:
        for child in (live, exchange):
            child.terminate()
        for child in (live, exchange):
            try:
                child.wait(10)
            except subprocess.TimeoutExpired:
                child.kill()


def market_file(folder: Path, rate: float) -> Path:
    """An override under which the three simulated symbols make about this many events a second: more books, the same trades."""
    models = config.load().market
    base = sum(model.books_s for model in models.values())
    path = folder / f"market-{rate:g}.yaml"
    factor = max(rate - TRADES_S, 1.0) / base
    path.write_text("market:\n" + "".join(f"  {s}: {{books_s: {model.books_s * factor:.3f}}}\n" for s, model in models.items()))
    return path


def line(rate: str, before: dict[str, float], after: dict[str, float], took: float) -> str:
    """One row of the table."""

    def grew(prefix: str) -> float:
        return sum(v - before.get(k, 0.0) for k, v in after.items() if k.startswith(prefix))

    def shown(series: m.Series, **labels: str) -> str:
        return "/".join(f"{quantile(before, after, series, q, **labels):.1f}" for q in QUANTILES)

    lag = max((v for k, v in after.items() if k.startswith("consumer_lag_records")), default=0)
    return (
        f"{rate:>8} {grew('market_events_total') / took:>9,.0f} {grew('candidates_total{') / took:>13,.1f} "
        f"{shown(m.STAGE_LATENCY_MS, service='risk'):>19} {shown(m.DECISION_MS):>17} {shown(m.ORDER_MS):>17} "
        f"{grew('tick_to_venue_ms_count'):>7.0f} {lag:>4.0f}"
    )


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.stream", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rates", default="100,1000,5000", help="market events a second (default 100,1000,5000)")
    parser.add_argument("--seconds", type=float, default=20.0, help="measured, after 5 s of warm-up (default 20)")
    args = parser.parse_args(argv)
    settings = config.load()
    folder = Path(tempfile.mkdtemp(prefix="sluice-stream-"))
    kafka = broker.start(folder / "kafka")
    free = {"POLICY_COOLDOWN_SYMBOL": "1", "POLICY_COOLDOWN_GLOBAL": "0", "POLICY_MIN_CONFIDENCE": "0.3"}  # more orders to time
    try:
        print(
            f"{'asked/s':>8} {'events/s':>9} {'candidates/s':>13} {'tick→decided p50/99':>19} {'tick→order p50/99':>17} "
            f"{'tick→venue p50/99':>17} {'orders':>7} {'lag':>4}      (ms)"
        )
        for i, rate in enumerate(args.rates.split(",")):
            port = free_port()
            env = (
                os.environ
                | free
                | {
                    "KAFKA_BOOTSTRAP_SERVERS": kafka.address,
                    "SLUICE_DATA": str(folder / f"data{i}"),
                    "SLUICE_MODELS": str(settings.folder("models")),
                    "SLUICE_METRICS_PORT": str(port),
                    "SLUICE_INSTANCE": f"r{i}",
                    "SLUICE_FEED": f"r{i}",
                    "SLUICE_EXCHANGE_PORT": str(free_port()),
                    "SLUICE_LOG_LEVEL": "ERROR",
                }
            )
            subprocess.run([sys.executable, "-m", "streams.admin"], env=env, cwd=config.ROOT, check=True, stdout=subprocess.DEVNULL)
            before, after, took = run(env, ["--config", str(market_file(folder, float(rate)))], args.seconds, 5.0, port)
            print(line(rate, before, after, took), flush=True)
    finally:
        kafka.stop()
        shutil.rmtree(folder, ignore_errors=True)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
