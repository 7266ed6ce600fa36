"""Paper fills as rows for a fill curve: virtual maker orders over a recorded market, and the desk's own paper orders out of its ledger.

A row says how an order of one lot (virtual) or of its whole size (own) stood in its moment, and whether it was filled before it was taken
back. What a curve is worth is measured on rows that are later than any it was fitted to.
"""
from collections.abc import Iterator
from itertools import pairwise
from typing import NamedTuple

import msgspec
import numpy as np

from config.settings import Settings
from engine.facts import BUY, CANCELLED, DONE, ENTRY, REJECTED, TWIN, Approved, Fill, Frame, Order, Report
from engine.scoring import labels as l
from engine.scoring.quality import brier, ece, reliability
from engine.scoring.signals import SignalEngine
from engine.sizing.curve import COLUMNS, DISTANCE, FillParameters
from engine.sizing.fill import FittedCurve, Formula
from engine.sizing.predictors import FillCurve, Moment, moment
from engine.state import PAPER
from store.audit import entries

DISTANCES_BPS = (0.0, 0.25, 0.5, 1.0, 2.0, 4.0)     # behind the entry; a ladder of the shipped tables reaches some of each
ON_PAPER = (PAPER, TWIN)
ENDS = (REJECTED, CANCELLED, DONE)


class Rows(NamedTuple):
    """`x` float64[n, 5] in the order of `COLUMNS`; `filled` 0 or 1, `ts_ms` of the decision, `step_bps` of the ladder, each [n]."""
    x: np.ndarray
    filled: np.ndarray
    ts_ms: np.ndarray
    step_bps: np.ndarray

    def only(self, which: np.ndarray) -> "Rows":
        """Those rows."""
        return Rows(*(column[which] for column in self))


NONE = Rows(np.zeros((0, len(COLUMNS))), np.zeros(0), np.zeros(0, np.int64), np.zeros(0))


def joined(some: list[Rows]) -> Rows:
    """All of them, by time."""
    whole = Rows(*(np.concatenate(parts) for parts in zip(*some, strict=True))) if some else NONE
    return whole.only(np.argsort(whole.ts_ms, kind="stable"))


def virtual(frames: Iterator[Frame], symbol: str, settings: Settings, every: int = 10) -> Rows:
    """One lot resting at each of `DISTANCES_BPS` behind every `every`-th candidate of a symbol, by the paper venue's own queue.

    Filled within `desk.entry_ttl_ms` and the way of the cancel, or not; orders that would have crossed or outlive the market are no rows.
    """
    instrument = settings.instrument(symbol)
    # only the entry is asked about: once filled it is closed at the next book
    rules = msgspec.structs.replace(settings.labels, fill_within_ms=settings.desk.entry_ttl_ms, horizon_ms=1)
    engine = SignalEngine(symbol, instrument, settings.windows, settings.triggers, settings.regimes)
    taken, parts, before = [], [], 0
    for frame in frames:
        got = engine.columns(frame)
        parts.append((got.event + before, got.side, got.ticks[:, 0], got.ts_ms, got.features))
        before += frame.n
        taken.append(frame)
    if not taken:
        return NONE
    event, side, entry, ts_ms, features = (np.concatenate(p)[::every] for p in zip(*parts, strict=True))
    stream = l.stream_of(taken)
    sign = side.astype(np.int64)
    here = [moment(row.tobytes(), way) for row, way in zip(features, sign.tolist(), strict=True)]
    usable = np.array([m is not None for m in here], bool)
    near = np.array([(m.queue, m.qi, m.depth, m.spread_bps) if m is not None else (0.0,) * 4 for m in here]).reshape(-1, 4)
    step = settings.ladder.step_ticks * instrument.tick
    some = []
    for distance in DISTANCES_BPS:
        price = np.round(entry * (1 - sign * distance / 1e4)).astype(np.int64)
        far = sign * (entry // 2)
        out = l.label(stream, event, sign, price, price - far, price + far, instrument, settings.matching, rules)
        known = (out.kind != l.UNFINISHED) & (out.kind != l.CROSSED) & usable
        behind = 1e4 * sign * (entry - price) / entry
        x = np.column_stack([near[:, :3], behind, near[:, 3]])
        some.append(Rows(x[known], (out.kind[known] != l.UNFILLED).astype(float), ts_ms[known].astype(np.int64),
                        1e4 * step / (entry[known] * instrument.tick)))
    return joined(some)


class Waiting(NamedTuple):
    """A paper entry order of which the end is not known yet."""
    order: Order
    row: tuple[float, ...]
    step_bps: float


def own(url: str, settings: Settings) -> Rows:
    """The desk's own paper entries (twins of real ones too) as its ledger has them; `LedgerError` where it cannot be read.

    Orders that were to rest for another time than `desk.entry_ttl_ms` are left out, and so are those taken back before their time.
    """
    waiting: dict[str, Waiting] = {}
    filled: dict[str, float] = {}
    rows: list[tuple[tuple[float, ...], float, int, float]] = []
    for entry in entries(url):
        for record in entry.produced:
            decision = None
            for order in record.orders if isinstance(record, Approved) else ():
                decision = order.decision or decision
                if order.cause != ENTRY or order.route not in ON_PAPER or order.expires_ms - order.ts_ms != settings.desk.entry_ttl_ms:
                    continue
                signal = decision.scored.signal if decision else None
                here = moment(signal.features, 1 if order.side == BUY else -1) if signal else None
                if signal is None or here is None or signal.symbol != order.symbol:
                    continue
                behind = max(0.0, 1e4 * (1 if order.side == BUY else -1) * (1 - order.price / signal.entry))
                step = 1e4 * settings.ladder.step_ticks * settings.instrument(order.symbol).tick / signal.entry
                waiting[order.id] = Waiting(order, (here.queue, here.qi, here.depth, behind, here.spread_bps), step)
        for fact in entry.consumed:
            if isinstance(fact, Fill) and fact.order_id in waiting:
                filled[fact.order_id] = filled.get(fact.order_id, 0.0) + fact.qty
            elif isinstance(fact, Report) and fact.order_id in waiting and fact.status in ENDS:
                one = waiting.pop(fact.order_id)
                whole = max(fact.filled, filled.pop(fact.order_id, 0.0)) >= one.order.qty - 1e-12
                if whole or (fact.status == CANCELLED and fact.ts_ms >= one.order.expires_ms):
                    rows.append((one.row, float(whole), one.order.ts_ms, one.step_bps))
    if not rows:
        return NONE
    x, y, ts, step_bps = zip(*rows, strict=True)
    return joined([Rows(np.array(x), np.array(y), np.array(ts, np.int64), np.array(step_bps))])


def said(curve: FillCurve, rows: Rows) -> np.ndarray:
    """What a curve says of each row, asked as the desk asks: by steps of the ladder behind the touch."""
    out = np.empty(len(rows.filled))
    for i, ((queue, qi, depth, distance, spread), step) in enumerate(zip(rows.x.tolist(), rows.step_bps.tolist(), strict=True)):
        out[i] = curve.p(Moment(0.0, 0.0, queue, qi, depth, spread, 0.0), distance / step, step)
    return out


def measured(parameters: FillParameters, rows: Rows) -> dict:
    """Brier score and calibration error of the curve, of S1's formula and of the base rate, on rows that it was not fitted to."""
    p, guess, y = said(FittedCurve(parameters), rows), said(Formula(), rows), rows.filled
    base = np.full(len(y), parameters.filled)
    at = rows.x[:, DISTANCE]
    edges = sorted({0.0, *DISTANCES_BPS[1:], np.inf})
    by_distance = [{"from_bps": low, "n": int(some.sum()), "filled": float(y[some].mean()), "curve": float(p[some].mean()),
                    "formula": float(guess[some].mean())}
                   for low, high in pairwise(edges) if (some := (at >= low) & (at < high)).any()]
    return {"rows": len(y), "filled": float(y.mean()), "from_ms": int(rows.ts_ms[0]), "to_ms": int(rows.ts_ms[-1]),
            "brier": {"curve": brier(p, y), "formula": brier(guess, y), "base_rate": brier(base, y)},
            "ece": {"curve": ece(p, y), "formula": ece(guess, y)},
            "reliability": reliability(p, y), "reliability_formula": reliability(guess, y), "by_distance": by_distance}


def split(rows: Rows, share: float, gap_ms: int) -> tuple[Rows, Rows]:
    """The earlier rows and the last `share` of the time, with a gap between in which an order of the earlier may still rest."""
    first, last = int(rows.ts_ms[0]), int(rows.ts_ms[-1])
    at = first + round((1.0 - share) * (last - first))
    return rows.only(rows.ts_ms < at - gap_ms), rows.only(rows.ts_ms >= at)

