"""Through the broker: events a second by workers, and the time from a tick to its order and to the venue, at several rates.

    python -m benchmarks.stream                        all of it, 100, 1,000 and 5,000 events/s
    python -m benchmarks.stream --only latency --rates 500 --seconds 10
    python -m benchmarks.stream --only carry --workers 1
    python -m benchmarks.stream --only paced

Latency: the whole route runs as it does live (the exchange, and all services in one process, as in the demo; a broker of its own on free
ports); the simulated market makes the events asked for. So that there are orders to time, every candidate may enter, nothing cools
down, candidates may follow each other by 50 ms, and entries and positions last 300 ms. Every figure is from exact samples, in ms from
the wall clock at which the collector took the *oldest* event of the frame; the first seconds (--warm) are left out. `venue→decided`
starts earlier, at the newest event's own time by the exchange's clock (less the least ever seen between that clock and the collector).

Carrying: simulated frames wait on the log, then workers of features and scores take them (the first tenth is left out), then one worker
of features, scores and desk; beside it the same features and scores in a plain aiokafka loop, one record an event, on one core.

Paced: the simulated market as fast as the desk paces it (SPEED=max), when decisions equal those of the loop in one process.
"""

import argparse
import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from benchmarks import _carry
from benchmarks._bench import counted, cpu_s, open_model, quantiles, running, until
from config import settings as config
from engine.metrics import STAGES
from scripts._arguments import ended, number, positive, seconds, several, some_seconds
from streams import broker
from streams.broker import free_port

TRADES_S = 35  # of the three simulated symbols together
OPEN = {
    "POLICY_COOLDOWN_SYMBOL": "0", "POLICY_COOLDOWN_GLOBAL": "0", "POLICY_MIN_CONFIDENCE": "0", "POLICY_MAX_POSITIONS_TOTAL": "30",
    "POLICY_MAX_PER_REGIME": "30", "POLICY_MAX_PER_SYMBOL": "10", "POLICY_SCALE_IN_MAX": "10", "POLICY_SCALE_IN_CONF_DELTA": "0",
    "POLICY_MAX_EXPOSURE_TOTAL": "1e9", "POLICY_MAX_EXPOSURE_PER_SYMBOL": "1e9", "SLUICE_EQUITY_USD": "1e8",
}
SPLITS = {1: [",".join(STAGES)], 2: ["collector,signal_engine,ai_scorer", "risk,executor,supervisor"],
          3: ["collector,signal_engine", "ai_scorer,risk", "executor,supervisor"], 6: [*STAGES]}
BRISK = ("desk: {entry_ttl_ms: 300, max_holding_ms: 300}\nlabels: {fill_within_ms: 300, horizon_ms: 300}\n"
         "triggers: {cooldown_ms: 50}\n")
STEPS = (("published", "stage_latency_ms/collector"), ("candidates", "stage_latency_ms/signal_engine"),
         ("scored", "stage_latency_ms/ai_scorer"), ("decided", "stage_latency_ms/risk"), ("order", "tick_to_order_ms"),
         ("venue", "tick_to_venue_ms"), ("venue→decided", "decided_past_ms"))


class Run:
    """What a measured stretch left: samples by series within it, and the processor time of each process."""

    def __init__(self, files: list[Path], began: float, ended: float, cpu: dict[str, float]):
        self.took, self.cpu = ended - began, cpu
        self.samples: dict[str, np.ndarray] = {}
        for file in files:
            with np.load(file) as kept:
                for name in (n.removesuffix(":at") for n in kept.files if n.endswith(":at")):
                    when = kept[f"{name}:at"]
                    within = kept[f"{name}:value"][(when > began) & (when < ended)]
                    self.samples[name] = np.concatenate([self.samples[name], within]) if name in self.samples else within
        if "decided_past_ms" in self.samples:
            self.samples["decided_past_ms"] = self.samples["decided_past_ms"] - self.of("taken_past_ms").min(initial=np.inf)

    def of(self, series: str) -> np.ndarray:
        """The samples of a series; none where it never moved."""
        return self.samples.get(series, np.zeros(0))

    def rate(self, series: str) -> float:
        """How much a counter grew a second."""
        return float(self.of(series).sum()) / self.took


def market_file(folder: Path, rate: float) -> Path:
    """An override under which the three simulated symbols make about this many events a second: more books, the same trades."""
    models = config.load().market
    base = sum(model.books_s for model in models.values())
    path = folder / f"market-{rate:g}.yaml"
    factor = max(rate - TRADES_S, 1.0) / base
    path.write_text("market:\n" + "".join(f"  {s}: {{books_s: {model.books_s * factor:.3f}}}\n" for s, model in models.items()) + BRISK)
    return path


def live(folder: Path, kafka: broker.Broker, env: dict[str, str], rate: float, warm: float, seconds: float, processes: int = 1) -> Run:
    """The route at that rate, in so many processes; 0 for the shipped market."""
    files = [folder / f"samples-{rate:g}-{i}.npz" for i in range(processes)]
    ports = [int(env["SLUICE_METRICS_PORT"]), *(free_port() for _ in files[1:])]
    desks = [["benchmarks._route", str(file), "--services", services] for file, services in zip(files, SPLITS[processes])]
    where = ports[next(i for i, services in enumerate(SPLITS[processes]) if "risk" in services)]
    more = ["--config", str(market_file(folder, rate))] if rate else []
    subprocess.run([sys.executable, "-m", "streams.admin"], env=env, cwd=config.ROOT, check=True, stdout=subprocess.DEVNULL)
    with contextlib.ExitStack() as stack:
        children = stack.enter_context(running(["streams.exchange", *more], env=env))
        for desk, port in zip(desks, ports):
            children = [*children, *stack.enter_context(running([*desk, *more], env=env | {"SLUICE_METRICS_PORT": str(port)}))]
        until(lambda: counted(where, 'frames_total{service="risk"') > 20, children, 90)
        time.sleep(warm)
        pids = {"exchange": [children[0].pid], "desk": [child.pid for child in children[1:]], "broker": [kafka.pid]}

        def used() -> dict[str, float]:
            return {name: sum(map(cpu_s, some)) for name, some in pids.items()}
        began, before = time.monotonic(), used()
        time.sleep(seconds)
        ended, after = time.monotonic(), used()
    return Run(files, began, ended, {name: (after[name] - before[name]) / (ended - began) for name in pids})


def latency(folder: Path, kafka: broker.Broker, base: dict[str, str], rates: list[float], warm: float, seconds: float,
            processes: int) -> None:
    """A row a rate, and below it where the time goes."""
    print(f"tick → …, p50/p99 ms over {seconds:g} s after {warm:g} s of warm-up, 6 services in {processes} "
          f"process{'es' if processes > 1 else ''}: {' · '.join(SPLITS[processes])}")
    print(f"{'events/s':>9} {'frames/s':>8} {'cand./s':>7} {'orders':>6} " + " ".join(f"{name:>13}" for name, _ in STEPS)
          + "   processors (desk, broker, exchange)   load")
    for i, rate in enumerate(rates):
        env = base | OPEN | {
            "SLUICE_DATA": str(folder / f"data{i}"), "SLUICE_MODELS": str(folder / "models"), "SLUICE_METRICS_PORT": str(free_port()),
            "SLUICE_INSTANCE": f"r{i}", "SLUICE_FEED": f"r{i}", "SLUICE_EXCHANGE_PORT": str(free_port())}
        run = live(folder, kafka, env, rate, warm, seconds, processes)
        cells = ["/".join(f"{q:.1f}" for q in quantiles(run.of(series), 0.5, 0.99)) for _, series in STEPS]
        used = " + ".join(f"{run.cpu[name]:.2f}" for name in ("desk", "broker", "exchange"))
        print(f"{run.rate('market_events_total'):>9,.0f} {len(run.of('market_events_total')) / run.took:>8,.0f} "
              f"{run.rate('candidates_total'):>7.1f} {len(run.of('tick_to_venue_ms')):>6} "
              + " ".join(f"{c:>13}" for c in cells) + f"   {used}   {os.getloadavg()[0]:.1f}", flush=True)
        work = ", ".join(f"{name} {'/'.join(f'{q:.2f}' for q in quantiles(run.of(series), 0.5, 0.99))}" for name, series in (
            ("signal_engine", "record_ms/signal_engine"), ("ai_scorer", "record_ms/ai_scorer"), ("risk", "record_ms/risk"),
            ("ledger commit", "ledger_commit_ms"), ("event loop late", "loop_late_ms")))
        pauses = np.concatenate([run.of(f"gc_ms/{g}") for g in range(3)])
        print(f"{'':>9} a record's work: {work}; {len(pauses)} collections, longest {pauses.max(initial=0.0):.1f} ms", flush=True)


CARRIED = (("signal_engine,ai_scorer", 'frames_total{service="ai_scorer"'),
           ("signal_engine,ai_scorer,risk", 'stage_latency_ms_count{service="risk"}'))


def carry(folder: Path, base: dict[str, str], workers: list[int], sizes: list[int], events: int, plainly: int) -> None:
    """A row a number of workers and size of frame, the desk's, then the alternative."""
    print(f"{'workers':>7} {'of':<30} {'a frame':>7} {'events/s':>10} {'a processor-second':>19} {'candidates an event':>20}")
    for services, done in CARRIED:
        for n in workers if "risk" not in services else [1]:
            for size in sizes:
                name = f"c{len(services)}x{n}x{size}"
                env = base | OPEN | {"SLUICE_DATA": str(folder / name), "SLUICE_INSTANCE": name, "SLUICE_FEED": name,
                                     "SLUICE_MODELS": str(folder / "models"), "SLUICE_PARTITIONS": str(n),
                                     "SLUICE_SHARED": str(n > 1).lower()}
                settings = config.load(env=env)
                frames = _carry.published(settings, _carry.markets(settings, ["BTCUSDT", "ETHUSDT"][:n], events * n, size))
                rate, each = _carry.carried(env, [free_port() for _ in range(n)], frames, size, services, done)
                share = _carry.told(settings, frames, size) / (frames * size)
                print(f"{n:>7} {services:<30} {size:>7} {rate:>10,.0f} {each:>19,.0f} {share:>20.3f}", flush=True)
    env = base | {"SLUICE_DATA": str(folder / "plain"), "SLUICE_INSTANCE": "plain", "SLUICE_FEED": "plain",
                  "SLUICE_MODELS": str(folder / "models")}
    settings = config.load(env=env)
    _carry.published(settings, iter(()))
    rate, each = _carry.one_by_one(settings, plainly)
    print(f"{1:>7} {'plain aiokafka loop':<30} {1:>7} {rate:>10,.0f} {each:>19,.0f}   features and scores, a record and an answer an event",
          flush=True)


def paced(folder: Path, kafka: broker.Broker, base: dict[str, str], warm: float, seconds: float) -> None:
    """One row: the three simulated symbols as fast as the desk lets them go."""
    env = base | {"SLUICE_DATA": str(folder / "paced"), "SLUICE_METRICS_PORT": str(free_port()), "SLUICE_INSTANCE": "p", "SLUICE_FEED": "p",
                  "SLUICE_EXCHANGE_PORT": str(free_port()), "SPEED": "max"}
    run = live(folder, kafka, env, 0.0, warm, seconds)
    events = run.rate("market_events_total")
    print(f"paced by the desk: {events:,.0f} events/s, {run.rate('candidates_total') / events:.3f} candidates an event, "
          f"{run.rate('orders_total'):.1f} orders/s; processors: desk {run.cpu['desk']:.2f}, broker {run.cpu['broker']:.2f}, "
          f"exchange {run.cpu['exchange']:.2f}", flush=True)


RATE = number(float, 0, above=True, most=1e6)


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.stream", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", choices=("latency", "carry", "paced"), help="one of the three (default all)")
    parser.add_argument("--rates", type=several(RATE), default="100,1000,5000", help="market events a second (default 100,1000,5000)")
    parser.add_argument("--seconds", type=seconds, default=20.0, help="measured at each rate (default 20)")
    parser.add_argument("--processes", type=positive, choices=sorted(SPLITS), default=1,
                        help="that the six services are spread over for the latency (default 1, as in the demo)")
    parser.add_argument("--warm", type=some_seconds, default=8.0, help="left out before (default 8)")
    parser.add_argument("--workers", type=several(positive), default="1,2",
                        help="processes of features and scores, each with a symbol of its own (default 1,2)")
    parser.add_argument("--sizes", type=several(positive), default="200,1000", help="events a frame (default 200,1000)")
    parser.add_argument("--events", type=positive, default=400_000, help="carried for each worker (default 400,000)")
    parser.add_argument("--plain", type=positive, default=10_000, help="events of the alternative (default 10,000)")
    args = parser.parse_args(argv)
    settings = config.load()
    folder = Path(tempfile.mkdtemp(prefix="sluice-stream-"))
    try:
        open_model(settings.folder("models"), folder / "models")
        with broker.start(folder / "kafka") as kafka:
            base = os.environ | {"KAFKA_BOOTSTRAP_SERVERS": kafka.address, "SLUICE_LOG_LEVEL": "ERROR"}
            if args.only in (None, "latency"):
                latency(folder, kafka, base, args.rates, args.warm, args.seconds, args.processes)
            if args.only in (None, "carry"):
                carry(folder, base, args.workers, args.sizes, args.events, args.plain)
            if args.only in (None, "paced"):
                paced(folder, kafka, base, args.warm, args.seconds)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return 0


if __name__ == "__main__":
    raise SystemExit(ended(main))
