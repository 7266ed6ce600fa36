"""Governed events a second on one core: features → ONNX → Desk → matching → hashed ledger, with a profile by stage.

    python -m benchmarks.replay standx                     a recording; the active model
    python -m benchmarks.replay standx --sparse            fewer candidates an event (triggers.imbalance 0.9, cooldown 1 s)
    python -m benchmarks.replay standx --gate ml/models/fill_model_v1 --confidence 0.15
                                                           with the fill-probability gate in shadow: its share, and µs an event and an order

Beside it, in the same run, the named alternative: the same candidates and scores through a plain pandas loop backtest without
venue, policy or ledger. A figure without its candidates per event says little, so it is always printed with them.
"""

import argparse
import tempfile
import time
from collections import defaultdict
from pathlib import Path

import msgspec
import numpy as np
import pandas as pd

from benchmarks._bench import told
from config import settings as config
from engine.facts import Approved, Cancel, Dropped, DroppedBatch, Market, Order, Outcome, Outcomes
from engine.fillprob.gate import Gating
from engine.fillprob.models import ready
from engine.scoring.signals import SignalEngine
from scripts._arguments import ended, filled, natural, positive, share
from store import archive, importers
from store.closed import Closed, frames_of, scored_by
from store.fill_model import load_model
from store.ledger import Ledger
from store.scorer import Scorer
from store.stages import admitting, lowered


class Clock:
    """Seconds spent by stage."""

    def __init__(self) -> None:
        self.spent: dict[str, float] = defaultdict(float)
        self.judged: list[float] = []

    def each(self, function):
        """The function, each call's time kept."""

        def run(*args):
            began = time.perf_counter()
            got = function(*args)
            self.judged.append(time.perf_counter() - began)
            return got

        return run

    def timed(self, stage: str, function):
        """The function, its time booked to the stage."""

        def run(*args):
            began = time.perf_counter()
            got = function(*args)
            self.spent[stage] += time.perf_counter() - began
            return got

        return run


def governed(settings: config.Settings, scorer: Scorer, root: Path, symbols: list[str], events: int, limit: int,
             gating: Gating | None = None, admit: float | None = None) -> dict:
    """The whole loop with a ledger transaction a frame. `admit`: let candidates in from this probability on."""
    clock = Clock()
    frames = frames_of(root, symbols, events)
    if limit:
        frames = {s: (f for f in source if f.seq < limit) for s, source in frames.items()}
    closed = Closed(settings if admit is None else admitting(settings, admit), scorer, frames, gating=gating)
    if gating is not None:
        closed.desk.entering.gate.judge = clock.each(closed.desk.entering.gate.judge)  # type: ignore[method-assign]
    for road in closed.roads.values():
        if admit is not None:
            road.score = lowered(road.score, admit)
        road.signals.on = clock.timed("features", road.signals.on)  # type: ignore[method-assign]
        road.score = clock.timed("score", road.score)
        road.venue.advance = clock.timed("venue", road.venue.advance)  # type: ignore[method-assign]
    closed.desk._on = {kind: clock.timed("desk", on) for kind, on in closed.desk._on.items()}
    trades = orders = 0
    with tempfile.TemporaryDirectory() as folder, Ledger(f"sqlite:///{folder}/ledger.db", "risk") as ledger:
        consumed: list = []
        outs: list = []
        commit = clock.timed("ledger", lambda: ledger.commit(closed.desk.state.now_ms, consumed, produced(symbols[0], outs), {}))
        began, used, frame = time.perf_counter(), time.process_time(), -1
        for _, fact, said in closed:
            consumed.append(fact)
            outs += said
            for out in said:
                trades += isinstance(out, Outcome)
                orders += isinstance(out, Order)
            if isinstance(fact, Market) and fact.seq // events != frame:
                frame = fact.seq // events
                commit()
                consumed.clear()
                outs.clear()
        commit()
        took, used = time.perf_counter() - began, time.process_time() - used
        size = Path(folder, "ledger.db").stat().st_size
    return {
        "events": closed.events,
        "candidates": closed.candidates,
        "seconds": took,
        "processor_s": used,
        "trades": trades,
        "orders": orders,
        "gate": clock.judged,     # within the desk's time
        "stages": dict(clock.spent),
        "ledger_mb": size / 1e6,
    }


def produced(symbol: str, outs: list) -> list:
    """The Desk's answers as the records that the risk service would publish."""
    records: list = []
    acts = [o for o in outs if isinstance(o, (Order, Cancel))]
    if acts:
        records.append(
            Approved(
                symbol,
                "arch",
                0,
                0,
                0.0,
                [a for a in acts if isinstance(a, Order)],
                [a for a in acts if isinstance(a, Cancel)],
                "".join("o" if isinstance(a, Order) else "c" for a in acts),
            )
        )
    if dropped := [o for o in outs if isinstance(o, Dropped)]:
        records.append(DroppedBatch(symbol, "arch", 0, dropped))
    if outcomes := [o for o in outs if isinstance(o, Outcome)]:
        records.append(Outcomes(symbol, "arch", outcomes))
    return records


def plain(settings: config.Settings, scorer: Scorer, root: Path, symbol: str, events: int, limit: int) -> dict:
    """The alternative: features and scores as columns, then a loop over the candidates' rows with pandas."""
    began, used = time.perf_counter(), time.process_time()
    engine = SignalEngine(symbol, settings.instrument(symbol), settings.windows, settings.triggers, settings.regimes,
                                  settings.gates.liquidity_by_side.levels)
    score, rows, times, bids, asks, n = scored_by(scorer), [], [], [], [], 0
    for frame in archive.read(root, symbol, events=events):
        if limit and frame.seq >= limit:
            break
        n += frame.n
        book = frame.book_rows
        times.append(frame.times[frame.kinds == 0])
        bids.append(book[:, 0, 0] * frame.tick)
        asks.append(book[:, 2, 0] * frame.tick)
        if found := engine.on(frame):
            rows += [(s.signal.ts_ms, s.signal.side, s.signal.entry, s.signal.stop, s.signal.target, s.p) for s in score(found)]
    table = pd.DataFrame(rows, columns=["ts", "side", "entry", "stop", "target", "p"])
    ts, bid, ask = np.concatenate(times), np.concatenate(bids), np.concatenate(asks)
    limits, free_at, trades = settings.policy, 0, 0
    for row in table.itertuples():
        if row.p < limits.min_confidence or row.ts < free_at:
            continue
        first = int(np.searchsorted(ts, row.ts, "right"))
        last = int(np.searchsorted(ts, row.ts + settings.desk.max_holding_ms, "right"))
        touch = bid[first:last] if row.side == "BUY" else ask[first:last]
        if len(touch):
            trades += 1
            free_at = row.ts + int(limits.cooldown_seconds_per_symbol * 1000)
    return {"events": n, "candidates": len(table), "seconds": time.perf_counter() - began,
            "processor_s": time.process_time() - used, "trades": trades}


@told
def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.replay", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("market", type=filled, help="a recording's name or folder, or an archive")
    parser.add_argument("--models", type=filled, help="registry folder (default paths.models)")
    parser.add_argument("--events", type=positive, default=256, help="events a frame (default 256)")
    parser.add_argument("--limit", type=natural, default=0, help="only the first N events")
    parser.add_argument("--sparse", action="store_true", help="about one candidate in ten events")
    parser.add_argument("--gate", type=Path, metavar="MODEL", help="a fill model's folder: every entry is judged by it, and none blocked")
    parser.add_argument("--confidence", type=share, metavar="P", help="let candidates in from this probability on, where none reaches "
                        "policy.min_confidence")
    parser.add_argument("--runs", type=positive, default=3, help="repetitions; the median is printed (default 3)")
    args = parser.parse_args(argv)
    settings = config.load()
    if args.sparse:
        settings = msgspec.structs.replace(settings, triggers=msgspec.structs.replace(settings.triggers, imbalance=0.9, cooldown_ms=1000))
    scorer = Scorer.load(Path(args.models) if args.models else settings.folder("models"), "active")
    if scorer is None:
        raise SystemExit("no active model: python -m flows.train makes a first one")
    gating = None
    if args.gate:
        try:
            model = load_model(args.gate)
        except (OSError, ValueError) as error:
            raise SystemExit(f"--gate: {error}") from None
        ready(model)
        gating = Gating(msgspec.structs.replace(settings.fill_prob, enforce=False, evidence=False), model.to_json().decode())
    root, symbols = importers.open_recording(args.market, settings.folder("data") / "recordings", settings)
    symbol = symbols[0]
    governed(settings, scorer, root, [symbol], args.events, 20_000, gating, args.confidence)  # kernels and caches
    runs = [
        (
            governed(settings, scorer, root, [symbol], args.events, args.limit, gating, args.confidence),
            plain(settings, scorer, root, symbol, args.events, args.limit),
        )
        for _ in range(args.runs)
    ]
    mine, other = sorted(runs, key=lambda r: r[0]["seconds"])[len(runs) // 2]
    rate, named = mine["events"] / mine["seconds"], other["events"] / other["seconds"]
    print(f"{symbol}, {mine['events']:,} events, {args.events} a frame, {mine['candidates'] / mine['events']:.3f} candidates an event")
    print(
        f"governed, hashed ledger   {rate:>10,.0f} events/s   {mine['trades']} trades, {mine['orders']} orders, "
        f"ledger {mine['ledger_mb']:.0f} MB"
    )
    print(f"plain pandas loop         {named:>10,.0f} events/s   {other['trades']} trades   ratio {rate / named:.2f}")
    alone, other_alone = mine["events"] / mine["processor_s"], other["events"] / other["processor_s"]
    print(f"a processor-second, which other work disturbs less: governed {alone:,.0f}, plain {other_alone:,.0f} events, "
          f"ratio {alone / other_alone:.2f}")
    rest = mine["seconds"] - sum(mine["stages"].values())
    for stage, seconds in sorted([*mine["stages"].items(), ("lanes and facts", rest)], key=lambda s: -s[1]):
        print(f"  {stage:<16} {100 * seconds / mine['seconds']:5.1f} %   {1e6 * seconds / mine['events']:6.2f} µs an event")
    if args.gate:
        times = 1e6 * np.array(mine["gate"] or [0.0])
        print(f"of the desk's time, the gate: {100e-6 * times.sum() / mine['seconds']:.3f} % of the run, "
              f"{times.sum() / mine['events']:.4f} µs an event; {len(mine['gate']):,} orders judged, {np.median(times):.1f} µs each in the "
              f"median, {times.mean():.1f} in the mean, {times.max():,.0f} at most")
    return 0


if __name__ == "__main__":
    raise SystemExit(ended(main))
