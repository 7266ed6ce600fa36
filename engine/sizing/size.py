"""How much an entry buys: what the policy allots, under the caps, less what risk takes, in whole lots.

Rounded down, and dropped rather than lifted below an exchange's minimum (S1). One function, `Sizer.size`; what it decided and every
number that it decided by is a `Sized`.
"""

from math import floor, isfinite
from typing import Any

import msgspec

from engine import reasons
from engine.settings import Flags, Instrument, Sizing
from engine.sizing import caps, risk
from engine.sizing.caps import Cap, Inputs
from engine.sizing.predictors import Moment, Predictors
from engine.sizing.risk import Predicted

OK, USD_CAP_SUSPENDED, RISK_SCALED = "ok", "usd_cap_suspended", "risk_scaled"
NOTES = (OK, *caps.NAMES, USD_CAP_SUSPENDED, RISK_SCALED, reasons.RISK_SCALED_ZERO, reasons.NO_AVAILABLE_SIZE)


def round_down(qty: float, step: float) -> float:
    """Whole steps, never up; `step` 0 leaves the quantity as it is.

    >>> round_down(20_000 / 60_000, 0.001)
    0.333
    """
    if step <= 0:
        return qty
    lots = floor(qty / step + 1e-12)
    return round(lots * step, 12)


def compute_order_qty(
    price: float,
    free_balance: float,
    leverage: float,
    notional_cap_usd: float,
    lot_step: float,
    min_qty: float = 0.0,
    min_notional: float = 0.0,
    min_free_balance: float = 0.0,
) -> float:
    """floor(min(cap, free × leverage) / price / lot) × lot; 0 where anything is missing, non-finite or below a minimum (S1).

    >>> compute_order_qty(60_000, 2_000, 10, 20_000, 0.001)
    0.333
    >>> compute_order_qty(30_000, 500, 10, 20_000, 0.001)
    0.166
    """
    if (
        not all(map(isfinite, (price, free_balance, leverage, notional_cap_usd)))
        or min(price, free_balance, leverage, notional_cap_usd) <= 0
    ):
        return 0.0
    if free_balance < min_free_balance:
        return 0.0
    qty = round_down(min(notional_cap_usd, free_balance * leverage) / price, lot_step)
    return 0.0 if qty < min_qty or qty * price < min_notional else qty


class Wish(msgspec.Struct, frozen=True, gc=False):
    """An entry that may be made: price, way to the stop in bps, the longest holding time.

    `near_lots` rest on the first `near` levels of the own side, where it would be closed; `moment` None where its features are unknown;
    `level` counts steps of the ladder behind the touch, `step_bps` wide each; `fill` is the fill curve of this very order, None where the
    one in force serves all orders alike.
    """

    price: float
    stop_bps: float
    holding_ms: int
    inputs: Inputs
    moment: Moment | None = None
    near_lots: float = 0.0
    near: int = 3
    level: float = 0.0
    step_bps: float = 0.0
    fill: Any = None


class Sized(msgspec.Struct, frozen=True, gc=False):
    """A size and its reasons. Money in USD of margin, `notional_usd` apart; `cap` is the smallest of `caps`.

    `factors` are the scales that count; `source` is where the collateral's price came from. Where nothing is left, `qty` is 0, `code`
    the refusal and `numbers` what made it.
    """

    note: str
    wanted_usd: float = 0.0
    caps: tuple[Cap, ...] = ()
    cap: str = ""
    capped_usd: float = 0.0
    predicted: Predicted = Predicted()
    multiplier: float = 1.0
    factors: dict[str, float] = {}
    source: str = ""
    qty: float = 0.0
    margin_usd: float = 0.0
    notional_usd: float = 0.0
    code: str = ""
    numbers: str = ""
    curve: str = ""       # id of the fill curve that was asked


def lots(notional_usd: float, price: float, instrument: Instrument) -> tuple[float, str, str]:
    """(quantity, code, numbers): whole lots, or 0 and why."""
    qty = round_down(notional_usd / price, instrument.lot)
    if qty <= 0:
        return 0.0, reasons.QTY_ZERO, f"{notional_usd:.2f} USD at {price:g} is less than one lot of {instrument.lot:g}"
    if qty < instrument.min_qty or qty * price < instrument.min_notional_usd:
        numbers = f"qty={qty:g} (min {instrument.min_qty:g}), notional={qty * price:.2f} (min {instrument.min_notional_usd:g})"
        return 0.0, reasons.BELOW_MINIMUM, numbers
    return qty, "", ""


def allotted(inputs: Inputs, sizing: Sizing) -> float:
    """What the policy allots."""
    return inputs.base_usd


def all_in(inputs: Inputs, sizing: Sizing) -> float:
    """S1's `use_all_in`: the free balance × leverage under the notional cap, as margin."""
    return min(inputs.free_usd, sizing.notional_cap_usd / inputs.leverage)


def unsound(wish: Wish) -> str:
    """The inputs that are no numbers, or nothing where all are."""
    i = wish.inputs
    values = {"price": wish.price, "stop_bps": wish.stop_bps}
    values |= {name: getattr(i, name) for name in i.__struct_fields__ if name != "collateral"}
    wrong = [f"{name}={value}" for name, value in values.items() if value is not None and not isfinite(value)]
    wrong += [f"{name}={value:g} <= 0" for name, value in (("price", wish.price), ("leverage", i.leverage)) if value <= 0]
    return ", ".join(wrong)


class Sizer:
    """The rules as they are wired: `features.flowCapRewrite`, `features.constrainedRiskScaling`, `sizing.use_all_in` (DECISIONS, 7, 28)."""

    def __init__(self, sizing: Sizing, flags: Flags, predictors: Predictors):
        self.sizing, self.predictors = sizing, predictors
        self.table = caps.table(flags)
        self.scale = risk.scaling(flags)
        self.wanted = all_in if sizing.use_all_in else allotted

    def size(self, wish: Wish, instrument: Instrument) -> Sized:
        """What to buy, or why nothing. Never more than any cap allows, and risk has the last word."""
        i, s = wish.inputs, self.sizing
        if wrong := unsound(wish):
            return Sized(reasons.INVALID_INPUT, code=reasons.INVALID_INPUT, numbers=wrong)
        wanted = self.wanted(i, s)
        i = msgspec.structs.replace(i, base_usd=wanted)
        rows = caps.evaluate(self.table, i, s)
        cap = caps.limiting(rows)
        note = OK if cap.name == "arm_cap" else cap.name
        if note == OK and s.caps.perMintCapUsd > 0 and i.collateral.usd is None:
            note = USD_CAP_SUSPENDED
        so_far = Sized(note, wanted, rows, cap.name, cap.usd, source=i.collateral.source)

        def refused(code: str, numbers: str, note: str, **more) -> Sized:
            return msgspec.structs.replace(so_far, code=code, numbers=numbers, note=note, **more)
        if i.free_usd < s.min_free_balance_usd:
            return refused(reasons.MIN_FREE_BALANCE, f"free={i.free_usd:.2f} < {s.min_free_balance_usd:g}", "wallet_free")
        if cap.usd <= 0:
            note = reasons.NO_AVAILABLE_SIZE if cap.name == "arm_cap" else cap.name
            return refused(reasons.NO_AVAILABLE_SIZE, f"wanted={wanted:.2f} > {cap.name}={cap.usd:.2f}", note)
        whole, code, numbers = lots(cap.usd * i.leverage, wish.price, instrument)
        if code:
            return refused(code, numbers if cap.name == "arm_cap" else f"{numbers} ({cap.name})", note)
        predictors = self.predictors if wish.fill is None else self.predictors._replace(fill=wish.fill)
        predicted = predictors.of(
            wish.moment, wish.stop_bps, wish.holding_ms, wish.level, wish.step_bps, whole / instrument.lot, wish.near_lots, wish.near)
        scaling = self.scale(predicted, s.risk)
        qty, found = whole, {
            "predicted": predicted, "multiplier": scaling.multiplier, "factors": scaling.factors, "curve": self.predictors.fill.id}
        if scaling.multiplier < risk.COUNTS:
            qty, code, numbers = lots(cap.usd * scaling.multiplier * i.leverage, wish.price, instrument)
            if code:
                why = f"multiplier={scaling.multiplier:.4f} of {cap.usd:.2f}: {numbers}"
                return refused(reasons.RISK_SCALED_ZERO, why, reasons.RISK_SCALED_ZERO, **found)
            note = RISK_SCALED if note in (OK, USD_CAP_SUSPENDED) else note
        notional = qty * wish.price
        return msgspec.structs.replace(so_far, note=note, qty=qty, margin_usd=notional / i.leverage, notional_usd=notional, **found)
