"""FillModelV1 on the last recorded day, which it never saw, against the win rate, the sizing curve and the base rate; and on real orders.

    python -m benchmarks.fill_model standx                                       fits on the days before, judges by the last
    python -m benchmarks.fill_model standx --orders DIR --figure reliability.html also order-level recordings, and a plot

The same virtual orders for all: FillModelV0 is trained on the round trips of a desk that lets every candidate in over the earlier days;
S1's formula, and the fitted curve where sizing.fill_curve names one. ECE over twenty bins. Also: microseconds of a prediction.
"""
import argparse
import re
import time
from decimal import Decimal
from pathlib import Path

import msgspec
import numpy as np
import pyarrow as pa

from benchmarks._bench import quantiles
from benchmarks._fates import known, report
from config import settings as config
from engine.facts import BUY, SELL, Fill, Order
from engine.fillprob.dataset import Execution, roundtrips
from engine.fillprob.evaluation_v1 import measured
from engine.fillprob.gate import PLACE, Gating
from engine.fillprob.model_v0 import ALL_BPS, FillModelV0, served
from engine.fillprob.model_v1 import FillModelV1
from engine.fillprob.order_features import NAMES
from engine.fillprob.placement import Act, Placement
from engine.scoring import quality
from engine.sizing.fill import FittedCurve, Formula
from engine.sizing.predictors import Moment, queue_share
from scripts._arguments import ended, number
from store import archive, fill_model, fill_training, importers, level3, virtual_orders
from store.closed import Closed, frames_of
from store.figures_fill import fill_reliability
from store.virtual_orders import Orders

DAY_MS = 86_400_000
PROB = re.compile(r"prob_bps=(\d+)")


class Everything:
    """A scorer that lets every candidate in."""
    model_id, tau_entry, tau_hold = "everything", 0.0, 0.0

    def score(self, rows: np.ndarray) -> np.ndarray:
        return np.full(len(rows), 0.99)


def orders_of(root: Path, symbols: list[str], settings: config.Settings, many: int, start: int | None, end: int | None) -> Orders:
    """Virtual orders of a stretch."""
    made = virtual_orders.of_archive(root, symbols, settings, many, 1337, start, end)
    return virtual_orders.of_table(pa.concat_tables([one.table for _, one in made]))


def win_rate(root: Path, symbols: list[str], settings: config.Settings, end: int) -> FillModelV0:
    """FillModelV0 of the desk's own round trips before a time."""
    closed = Closed(settings, Everything(), frames_of(root, symbols, 256, "bench", None, end))      # type: ignore[arg-type]
    fills = [Execution(f.ts_ms, f.symbol, f.side, Decimal(repr(f.price)), Decimal(repr(f.qty)), f.order_id, Decimal(repr(f.fee_usd)))
             for _, f, _ in closed if isinstance(f, Fill)]
    return FillModelV0.train(roundtrips(fills))


def column(orders: Orders, name: str) -> np.ndarray:
    return orders.rows[:, NAMES.index(name)].astype(np.float64)


def sizing_curve(orders: Orders, curve: Formula | FittedCurve, settings: config.Settings) -> np.ndarray:
    """What a curve of sizing says of each."""
    out = []
    mid = (orders.bid + orders.ask) / 2.0
    columns = (column(orders, n) for n in ("sigma", "depth_own", "qi", "imbalance", "spread", "gap_own", "behind_ticks"))
    for sigma, own_depth, qi, imbalance, spread, gap, behind, touch, at in zip(*columns, orders.touch_own.tolist(), mid.tolist()):
        queue = queue_share(float(np.exp(min(max(touch, -20.0), 20.0))))
        now = Moment(sigma, own_depth, queue, 0.5 * (1 - qi), 0.5 * (1 - imbalance), spread, gap)
        step = settings.ladder.step_ticks
        out.append(curve.p(now, behind / step, 1e4 * step / at))
    return ALL_BPS * np.array(out)


def speed(model: FillModelV1, orders: Orders, settings: config.Settings) -> list[str]:
    """One order as the gate asks, and many at once."""
    some = min(20_000, len(orders.y))
    features = np.zeros(len(virtual_orders.FEATURES), np.float32)
    features[virtual_orders.SIGMA] = 1.0
    blob = features.tobytes()
    acts = [Act(PLACE, s, BUY if way > 0 else SELL, p * 0.5, 1.0, placement=Placement(blob, b, a, 0.5, 5, 20, 6, 18, 40, h))
            for s, way, p, b, a, h in zip(orders.symbol[:some], orders.side[:some].tolist(), orders.price_ticks[:some].tolist(),
                                          orders.bid[:some].tolist(), orders.ask[:some].tolist(), orders.horizon_ms[:some].tolist())]
    took = []
    for act in acts:
        began = time.perf_counter()
        row = model.served(act)
        assert row is not None
        model.predict(row)
        took.append(1e6 * (time.perf_counter() - began))
    p50, p99 = quantiles(np.array(took), 0.5, 0.99)
    began = time.process_time()
    model.bps(orders.rows)
    many = 1e6 * (time.process_time() - began) / len(orders.y)
    return [f"a prediction as the gate asks (features and {len(model.trees)} trees): {p50:.1f} µs p50, {p99:.1f} p99; many at once: "
            f"{many:.2f} µs of a processor each; model.json {len(model.to_json()):,} bytes"]


def road(root: Path, symbols: list[str], settings: config.Settings, model: FillModelV1, start: int) -> list[str]:
    """The desk itself from a time on, every candidate let in, without daily cap and streak: what was said of the entries that it made, what
    share of their first levels was filled, and what they earned."""
    text, out = model.to_json().decode(), []
    settings = msgspec.structs.replace(settings, risk=msgspec.structs.replace(settings.risk, daily_loss_cap_usd=0, loss_streak_max=0))
    runs = (("in shadow", False, ""), ("enforced at 2500 bps", True, ""), ("behind the sizing port, gate in shadow", False, text))
    for name, enforce, curve in runs:
        s = msgspec.structs.replace(settings, fill_model=curve)
        gating = Gating(msgspec.structs.replace(s.fill_prob, enforce=enforce), text, 2500)
        closed = Closed(s, Everything(), frames_of(root, symbols, 256, "bench", start, None), gating=gating)     # type: ignore[arg-type]
        said, filled = dict[str, int](), set[str]()
        for _, fact, outs in closed:
            if isinstance(fact, Fill):
                filled.add(fact.order_id)
            for order in outs:
                if isinstance(order, Order) and order.decision is not None and (found := PROB.search(order.decision.gate)):
                    said[order.id] = int(found[1])
        happened = np.array([one in filled for one in said])
        got = measured(np.array(list(said.values())), happened)
        out.append(f"  {name:<40} {len(said):,} entries, said {got['mean']:.3f}, filled {got['base_rate']:.3f}, AUC {got['auc']:.3f}, "
                   f"Brier {got['brier']:.4f} (base rate {got['brier_base']:.4f}), net {closed.desk.portfolio.realized_usd:+.2f} USD")
    return out


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.fill_model", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("market", nargs="?", default="standx", help="a recording's name or folder, or an archive, of two days at least")
    parser.add_argument("--many", type=number(int, 1000), default=160_000, help="virtual orders of a symbol to fit to, half to judge by")
    parser.add_argument("--model", type=Path, help="judges the model of this folder instead of fitting one")
    parser.add_argument("--orders", type=Path, help="a folder of order-level recordings")
    parser.add_argument("--figure", type=Path, help="writes the reliability of all as a page of its own")
    parser.add_argument("--config", action="append", default=[], help="YAML that overrides config/default.yaml")
    args = parser.parse_args(argv)
    settings = config.load(*args.config)
    root, symbols = importers.open_recording(args.market, settings.folder("data") / "recordings", settings)
    last = max(archive.bounds(archive.files(root, s)[-1])[1] for s in symbols)
    cut = last // DAY_MS * DAY_MS
    earlier, later = (orders_of(root, symbols, settings, n, a, b) for n, a, b in ((args.many, None, cut), (args.many // 2, cut, None)))
    loaded = fill_model.load_model(args.model) if args.model else fill_training.fit(earlier, 1337)
    assert isinstance(loaded, FillModelV1)
    v0 = win_rate(root, symbols, settings, cut)
    lots = np.array([settings.instrument(s).tick * settings.instrument(s).lot for s in later.symbol])
    notional = later.price_ticks * later.lots * lots
    said = {
        "FillModelV1": loaded.bps(later.rows),
        f"win rate (FillModelV0, {v0.n_train_rows:,} trips)":
            np.array([v0.predict(served(BUY if s > 0 else SELL, n)) for s, n in zip(later.side.tolist(), notional.tolist())]),
        "S1's formula": sizing_curve(later, Formula(), settings),
        **({} if settings.curve is None else
           {f"the fitted curve {settings.curve.id}": sizing_curve(later, FittedCurve(settings.curve.parameters), settings)}),
        "base rate of the days before": np.full(len(later.y), ALL_BPS * earlier.y.mean())}
    slices = {"all": np.ones(len(later.y), bool), "the desk's candidates": later.candidate, "random moments": ~later.candidate,
              "rest 20 s, at most 1 bps behind": (later.horizon_ms == 20_000) & (column(later, "behind_bps") <= 1)}
    for name, chosen in slices.items():
        print(f"{name}: {int(chosen.sum()):,} virtual orders of the last day, {later.y[chosen].mean():.1%} filled")
        for who, bps in said.items():
            got = measured(bps[chosen], later.y[chosen])
            print(f"  {who:<44} Brier {got['brier']:.4f}  AUC {got['auc']:.3f}  ECE {got['ece']:.4f}  said {got['mean']:.3f}")
    print("reliability of FillModelV1: said, seen, orders")
    for row in quality.reliability(said["FillModelV1"] / ALL_BPS, later.y):
        print(f"  {row['predicted']:.3f}  {row['observed']:.3f}  {row['n']:,}")
    print("\n".join(["in the desk's road on the last day:", *road(root, symbols, settings, loaded, cut)]))
    print("\n".join(speed(loaded, later, settings)))
    if args.figure:
        tables = {who: quality.reliability(bps / ALL_BPS, later.y) for who, bps in said.items()}
        fill_reliability(tables).write_html(args.figure, include_plotlyjs=True)
    for name in level3.FILES if args.orders else ():
        print("\n".join(report(known(args.orders, name, settings), loaded)))
    return 0


if __name__ == "__main__":
    raise SystemExit(ended(main))
