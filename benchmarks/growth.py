"""Cost and memory over runs of 10³ to 10⁷ events: the time of an event must not depend on the length of the run.

    python -m benchmarks.growth                            up to three million events, some three minutes
    python -m benchmarks.growth --most 10000000 --plot growth.html

The closed loop over the simulated market, which is made as it is read: signals → ONNX → Desk → matching → hashed ledger, a transaction a
frame. Every candidate may enter, a second after the last, so that orders, fills and closed entries grow with the run. Each size runs in
a process of its own, several times where it is short; its time is the processor's, so that other work on the machine disturbs it little,
and the least of the runs counts. Then the slope of log time over log events (1: linear) with its confidence interval, and the peak of
resident memory. The longest run is also cut into tenths: the last must cost what the first did.
"""

import argparse
import os
import resource
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import NamedTuple

import numpy as np
import plotly.graph_objects as go
from scipy import stats

from benchmarks.replay import produced
from config import settings as config
from engine.facts import Frame, Market
from engine.market.simulator import Simulator
from scripts._arguments import ended, filled, positive
from store.closed import Closed
from store.ledger import Ledger
from store.palette import ACCENT, MUTED, TEMPLATE
from store.scorer import Scorer

START_MS = 1_767_225_600_000
SYMBOL = "BTCUSDT"
BUSY = {"POLICY_MIN_CONFIDENCE": "0", "POLICY_COOLDOWN_SYMBOL": "1", "POLICY_COOLDOWN_GLOBAL": "0"}
TENTHS = 10
SHORT = 200_000       # events that the runs of a short size have together
SURE = 0.95


class Size(NamedTuple):
    """What one size cost: processor seconds of the best run, with its parts after each tenth of the events and the memory there."""

    events: int
    seconds: float
    candidates: int
    orders: int
    peak_mb: float
    ledger_mb: float
    tenths: list[float]
    memory_mb: list[float]


def resident_mb() -> float:
    """Resident memory now."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize() / 1e6


def market(settings: config.Settings, events: int, frame: int) -> Iterator[Frame]:
    """The first events of the simulated market, in frames, none of which is kept."""
    simulator, left = Simulator(SYMBOL, settings.instrument(SYMBOL), settings.market[SYMBOL], 1, START_MS, "arch"), events
    while left and (made := simulator.frame(2**62, min(frame, left))) is not None:
        left -= made.n
        yield made


def lived(settings: config.Settings, scorer: Scorer, events: int, frame: int) -> Size:
    """One run with a ledger of its own."""
    closed = Closed(settings, scorer, {SYMBOL: market(settings, events, frame)})
    consumed: list = []
    outs: list = []
    orders, at = 0, 0
    tenths: list[float] = []
    memory: list[float] = []
    with tempfile.TemporaryDirectory() as folder, Ledger(f"sqlite:///{folder}/ledger.db", "risk") as ledger:
        began = time.process_time()
        for _, fact, said in closed:
            consumed.append(fact)
            outs += said
            if isinstance(fact, Market) and (fact.seq + fact.n) // frame != at:
                at = (fact.seq + fact.n) // frame
                records = produced(SYMBOL, outs)
                orders += sum(len(r.orders) for r in records if hasattr(r, "orders"))
                ledger.acknowledge(ledger.commit(closed.desk.state.now_ms, consumed, records, {}))
                consumed.clear()
                outs.clear()
                if (fact.seq + fact.n) * TENTHS // events > len(tenths):
                    tenths.append(time.process_time() - began)
                    memory.append(resident_mb())
        took = time.process_time() - began
        size_mb = sum(f.stat().st_size for f in Path(folder).iterdir()) / 1e6
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3
    return Size(events, took, closed.candidates, orders, peak, size_mb, tenths, memory)


def measured(models: str, events: int, frame: int) -> Size:
    """The best of the runs of one size, in this process."""
    settings = config.load(env=os.environ | BUSY)
    scorer = Scorer.load(Path(models), "active")
    assert scorer is not None
    scorer.tau_entry = scorer.tau_hold = 0.0
    lived(settings, scorer, 20_000, frame)       # kernels and caches
    return min((lived(settings, scorer, events, frame) for _ in range(max(1, min(20, SHORT // events)))), key=lambda s: s.seconds)


def slope(sizes: list[Size]) -> tuple[float, float, float]:
    """(slope of log time over log events, and the bounds of its confidence interval)."""
    fit = stats.linregress(np.log([s.events for s in sizes]), np.log([s.seconds for s in sizes]))
    half = float(stats.t.ppf((1 + SURE) / 2, len(sizes) - 2) * fit.stderr)
    return float(fit.slope), float(fit.slope) - half, float(fit.slope) + half


def drawn(sizes: list[Size]) -> go.Figure:
    """Time an event and peak memory over the number of events."""
    figure = go.Figure(layout={"template": TEMPLATE, "height": 380, "width": 760,
                               "title": {"text": "An event costs the same however long the run"}})
    events = [s.events for s in sizes]
    figure.add_scatter(x=events, y=[1e6 * s.seconds / s.events for s in sizes], name="µs an event", line={"color": ACCENT, "width": 2.2})
    figure.add_scatter(x=events, y=[s.peak_mb for s in sizes], name="peak memory, MB", yaxis="y2", line={"color": MUTED, "width": 1.6})
    figure.update_xaxes(type="log", title="events")
    figure.update_yaxes(rangemode="tozero", ticksuffix=" µs")
    return figure.update_layout(yaxis2={"overlaying": "y", "side": "right", "rangemode": "tozero", "ticksuffix": " MB", "showgrid": False})


def sizes_upto(most: int) -> list[int]:
    """Half decades from a thousand.

    >>> sizes_upto(20_000)
    [1000, 3162, 10000]
    """
    return [n for n in (round(10 ** (3 + k / 2)) for k in range(12)) if n <= most]


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.growth", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--most", type=positive, default=3_200_000, help="events of the longest run (default 3,200,000)")
    parser.add_argument("--events", type=positive, default=256, help="events a frame (default 256)")
    parser.add_argument("--models", type=filled, help="registry folder (default paths.models)")
    parser.add_argument("--plot", type=Path, help="writes the figure: one self-contained HTML page")
    args = parser.parse_args(argv)
    sizes = sizes_upto(args.most)
    if len(sizes) < 3:
        parser.error(f"--most: {args.most} leaves {len(sizes)} sizes; a slope needs three, so at least 10000")
    if args.plot and (args.plot.is_dir() or not args.plot.absolute().parent.is_dir()):
        parser.error(f"--plot {args.plot}: a file in a folder that is there was expected")
    models = args.models or str(config.load().folder("models"))
    if Scorer.load(Path(models), "active") is None:
        raise SystemExit(f"no active model under {models}/registry: python -m flows.train makes, registers and promotes a first one")
    print(f"{'events':>11} {'seconds':>9} {'µs an event':>12} {'candidates an event':>20} {'orders':>7} {'peak MB':>8} {'ledger MB':>10}")
    done: list[Size] = []
    for events in sizes:
        with ProcessPoolExecutor(1, get_context("spawn")) as alone:
            one = alone.submit(measured, models, events, args.events).result()
        done.append(one)
        print(f"{one.events:>11,} {one.seconds:>9.3f} {1e6 * one.seconds / one.events:>12.2f} {one.candidates / one.events:>20.3f} "
              f"{one.orders:>7,} {one.peak_mb:>8.0f} {one.ledger_mb:>10.1f}", flush=True)
    value, low, high = slope(done)
    longest = done[-1]
    parts = np.diff([0.0, *longest.tenths])
    print(f"log-log slope {value:.3f} ({100 * SURE:.0f} %: {low:.3f} to {high:.3f}; 1 is linear)")
    print(f"longest run by tenths: first {1e6 * TENTHS * parts[0] / longest.events:.2f} µs an event, last "
          f"{1e6 * TENTHS * parts[-1] / longest.events:.2f}, most {1e6 * TENTHS * parts.max() / longest.events:.2f}; "
          f"memory {longest.memory_mb[0]:.0f} MB after the first, {longest.memory_mb[-1]:.0f} at the end")
    if args.plot:
        args.plot.write_text(drawn(done).to_html(include_plotlyjs=True, full_html=True))
        print(args.plot)
    return 0


if __name__ == "__main__":
    raise SystemExit(ended(main))
