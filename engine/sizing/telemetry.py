"""A size moves its series: S0's names, so that S0's readers find them."""

from engine import metrics as m
from engine.sizing.size import Sized


def counted(meter: m.Meter, symbol: str, sized: Sized) -> None:
    """Every sizing once, refused or not; a refusal adds nothing to the plan's volume."""
    if not sized.cap:
        return     # refused for inputs that are no numbers: no table was made
    meter.inc(m.SIZING_CAP_LIMIT_TOTAL, cap=sized.cap)
    meter.inc(m.SIZING_PRICE_SOURCE_TOTAL, source=sized.source)
    meter.set(m.SIZING_RISK_MULTIPLIER, sized.multiplier)
    meter.observe(m.SIZING_RISK_MULTIPLIER_SEEN, sized.multiplier)
    for factor in sized.factors:
        meter.inc(m.SIZING_RISK_SCALED_TOTAL, factor=factor)
    meter.inc(m.PLAN_NOTIONAL_USD_TOTAL, sized.notional_usd, symbol=symbol)
