"""How a fact becomes a row of a projection, and how a later fact moves it."""
import json
import math
from typing import Any

from engine.facts import ACCEPTED, CANCELLED, DONE, REJECTED, UNKNOWN, Control, Decision, Dropped, Fill, Order, Outcome, Report, WrittenOff
from engine.holding import DUST, Holding
from engine.reasons import DUPLICATE_ORDER, NOT_FOUND
from engine.rewards.attribution import Attributed
from store import tables

RANK = {"": 0, UNKNOWN: 1, ACCEPTED: 2, REJECTED: 3, CANCELLED: 3, DONE: 3}
ENDED = 3

Row = list[Any]        # values in the order of the table's columns


def _finite(p: float) -> float | None:
    return p if math.isfinite(p) else None


def allowed_row(d: Decision) -> Row:
    """A yes as a row of `decisions`."""
    s = d.scored.signal
    return [d.id, d.ts_ms, s.symbol, s.side, s.regime, _finite(d.scored.p), d.scored.model_id, True, d.decision, d.reason, d.route,
            d.margin_usd, d.cap, d.qty, d.price, d.epoch, *_size(d)]


def _size(d: Decision) -> Row:
    """How the size came about: arm, multiplier, note, caps, predictions, levels."""
    z = d.sized
    if z is None or d.choice is None:
        return [None] * 6
    caps = {c.name: round(c.usd, 6) for c in z.caps if math.isfinite(c.usd)}
    predicted = {"rugProb": z.predicted.rug_prob, "pFill": z.predicted.p_fill, "expSlipBps": z.predicted.exp_slip_bps}
    known = {name: value if value is None or math.isfinite(value) else None for name, value in predicted.items()}
    return [d.choice.arm, z.multiplier, z.note, json.dumps(caps), json.dumps(known | {"curve": z.curve}), json.dumps(d.rungs)]


def refused_row(d: Dropped) -> Row:
    """A no as a row of `decisions`."""
    s = d.scored.signal
    return [d.id, d.ts_ms, s.symbol, s.side, s.regime, _finite(d.scored.p), d.scored.model_id, False, d.reason, d.numbers, "", 0.0, "",
            0.0, 0.0, *[None] * 7]


def order_row(o: Order) -> Row:
    """An order just sent as a row of `orders`."""
    return [o.id, o.entry_id, o.decision.id if o.decision else "", o.cause, o.symbol, o.side, o.kind, o.price, o.qty, 0.0, "", "",
            o.post_only, o.reduce_only, o.route, o.epoch, o.ts_ms, o.ts_ms]


def fill_row(f: Fill) -> Row:
    """A fill as a row of `fills`."""
    return [f.id, f.order_id, f.symbol, f.side, f.price, f.qty, f.fee_usd, f.maker, f.ts_ms]


def outcome_row(o: Outcome) -> Row:
    """A closed entry as a row of `outcomes`."""
    return [o.id, o.symbol, o.side, o.regime, o.model_id, _finite(o.p), o.qty, o.entry_price, o.exit_price, o.gross_usd, o.fees_usd,
            o.net_usd, o.cause, o.route, o.opened_ms, o.closed_ms]


def reward_row(a: Attributed) -> Row:
    """A reward as a row of `rewards`."""
    return [a.order_id, a.symbol, a.arm, a.propensity, json.dumps(a.context), a.reward, a.learned, a.expected, a.mode, a.filled,
            a.created_ms, a.ts_ms]


def control_row(c: Control) -> Row:
    """A control as a row of `controls`."""
    return [c.id, c.kind, c.actor, c.reason, c.epoch, c.ts_ms, json.dumps(c.details, sort_keys=True)]


FILLED, STATUS, REASON, QTY, UPDATED = (list(tables.orders.c.keys()).index(n) for n in ("filled", "status", "reason", "qty", "updated_ms"))


def off_row(off: WrittenOff) -> Row:
    """What a person wrote off as a row of `orders`, over at once; its execution fills it."""
    row = order_row(off.order)
    row[STATUS], row[REASON] = DONE, f"by {off.actor}: {off.reason}"
    return row


def reported(row: Row, report: Report) -> None:
    """Moves an order's row by what the venue said of it: an end is final, and a repeated request says nothing of the first."""
    if report.reason in (DUPLICATE_ORDER, NOT_FOUND) or RANK[report.status] < RANK[row[STATUS]] or RANK[row[STATUS]] == ENDED:
        return
    row[STATUS], row[REASON], row[UPDATED] = report.status, report.reason, max(row[UPDATED], report.ts_ms)


def filled(row: Row, fill: Fill) -> None:
    """Moves an order's row by an execution: it is at the venue, and done when all of it is filled."""
    row[FILLED] = round(row[FILLED] + fill.qty, 12)
    row[UPDATED] = max(row[UPDATED], fill.ts_ms)
    if row[FILLED] >= row[QTY] - DUST:
        row[STATUS] = DONE
    elif row[STATUS] in ("", UNKNOWN, REJECTED):
        row[STATUS] = ACCEPTED


def moved(position: Row, fill: Fill) -> None:
    """Moves a position `[symbol, qty, avg_price, realized_usd, fees_usd, updated_ms]` by an execution, at average cost."""
    holding = Holding(*position[1:5])
    holding.take(fill)
    position[1:] = [holding.qty, holding.average, holding.realized_usd, holding.fees_usd, max(position[5], fill.ts_ms)]
