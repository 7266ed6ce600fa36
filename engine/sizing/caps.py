"""How much an entry may commit at most: one ordered table, the smallest wins, the first on a tie (DECISIONS, 6).

Each cap is a function of the inputs and the settings to USD of margin, infinite where it does not bind. What is said of a notional
(liquidity, flow, S1's cap) is divided by the leverage; what is said of a name counts what the name holds already.
"""

from collections.abc import Callable
from math import inf
from typing import NamedTuple

import msgspec

from engine.settings import Flags, Sizing
from engine.sizing.collateral import MISSING, Worth

FLOW = "flow"


class Inputs(msgspec.Struct, frozen=True, gc=False):
    """What the caps look at. Money is USD of margin unless a name says otherwise.

    `base_usd` is what the policy allotted; `free_usd` the balance; `name_usd` and `total_usd` what this symbol and the account hold,
    reservations included, under `name_limit_usd` and `total_limit_usd`; `spent_usd` the margin of the entries since midnight UTC.
    `liquidity_usd` is notional: the visible lots of the own side's first levels, 0 where no book is known. `trades_5m` counts
    trades of five minutes, None where only those of the last minute, `trades_60s`, are known. `collateral` is the price of one unit
    of collateral with its source (`engine.sizing.collateral`).
    """

    base_usd: float
    arm_fraction: float
    leverage: float
    equity_usd: float
    free_usd: float
    name_usd: float
    total_usd: float
    name_limit_usd: float
    total_limit_usd: float
    spent_usd: float
    liquidity_usd: float
    trades_60s: float
    trades_5m: float | None = None
    collateral: Worth = Worth(None, MISSING)


class Cap(NamedTuple):
    """A row of the table as it came out: margin in USD."""

    name: str
    usd: float


Rule = Callable[[Inputs, Sizing], float]


def arm_cap(i: Inputs, s: Sizing) -> float:
    """The execution arm's fraction of what the policy allotted."""
    return i.arm_fraction * i.base_usd


def wallet_free(i: Inputs, s: Sizing) -> float:
    """The free balance."""
    return i.free_usd


def per_name_max(i: Inputs, s: Sizing) -> float:
    """An amount a name; 0 is none."""
    return s.caps.perNameCapMaxUsd - i.name_usd if s.caps.perNameCapMaxUsd > 0 else inf


def per_name_fraction(i: Inputs, s: Sizing) -> float:
    """A share of the equity a name."""
    return s.caps.perNameCapFraction * i.equity_usd - i.name_usd


def lp_impact(i: Inputs, s: Sizing) -> float:
    """A share of the liquidity, so that the order does not move what it trades in."""
    return s.caps.lpImpactCapFraction * i.liquidity_usd / i.leverage


def per_5m(i: Inputs) -> float:
    """Trades of five minutes: as counted, else five times those of the last minute.

    >>> per_5m(msgspec.structs.replace(NOTHING, trades_60s=12.0))
    60.0
    """
    return max(i.trades_5m if i.trades_5m is not None else 5.0 * i.trades_60s, 0.0)


def flow(i: Inputs, s: Sizing) -> float:
    """A share of the liquidity, shrunk with the trading that there is (`flowCapRewrite` on); never more than liquidity."""
    scale = min(1.0, per_5m(i) / max(s.caps.flowTradesPer5m, 1.0))
    floor = min(s.caps.flowCapMinUsd, i.liquidity_usd)
    return s.caps.flowCapFraction * max(i.liquidity_usd * scale, floor) / i.leverage


def flow_by_liquidity(i: Inputs, s: Sizing) -> float:
    """A share of the liquidity, whatever is traded (`flowCapRewrite` off)."""
    return s.caps.flowCapFraction * i.liquidity_usd / i.leverage


def daily_cap(i: Inputs, s: Sizing) -> float:
    """What is left of the day: a share of the equity, else an amount, else no end."""
    if s.caps.dailySpendCapPct > 0:
        return s.caps.dailySpendCapPct * i.equity_usd - i.spent_usd
    return s.caps.dailySpendCapUsd - i.spent_usd if s.caps.dailySpendCapUsd > 0 else inf


def usd_cap(i: Inputs, s: Sizing) -> float:
    """Dollars a name, in units of collateral; suspended without a price."""
    if s.caps.perMintCapUsd <= 0 or i.collateral.usd is None:
        return inf
    return s.caps.perMintCapUsd / i.collateral.usd - i.name_usd


def symbol_exposure(i: Inputs, s: Sizing) -> float:
    """S4's limit of the symbol."""
    return i.name_limit_usd - i.name_usd


def total_exposure(i: Inputs, s: Sizing) -> float:
    """S4's limit of the account."""
    return i.total_limit_usd - i.total_usd


def notional_cap(i: Inputs, s: Sizing) -> float:
    """S1's largest order."""
    return s.notional_cap_usd / i.leverage


TABLE: tuple[tuple[str, Rule], ...] = (
    ("arm_cap", arm_cap),
    ("wallet_free", wallet_free),
    ("per_name_max", per_name_max),
    ("per_name_fraction", per_name_fraction),
    ("lp_impact", lp_impact),
    (FLOW, flow),
    ("daily_cap", daily_cap),
    ("usd_cap", usd_cap),
    ("symbol_exposure", symbol_exposure),
    ("total_exposure", total_exposure),
    ("notional_cap", notional_cap),
)
NAMES = tuple(name for name, _ in TABLE)
NOTHING = Inputs(0.0, 1.0, 1.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0)


def table(flags: Flags) -> tuple[tuple[str, Rule], ...]:
    """The rows in force: `flowCapRewrite` chooses which flow cap stands among them (DECISIONS, 7)."""
    rule = flow if flags.flowCapRewrite else flow_by_liquidity
    return tuple((name, rule if name == FLOW else row) for name, row in TABLE)


def evaluate(rules: tuple[tuple[str, Rule], ...], inputs: Inputs, sizing: Sizing) -> tuple[Cap, ...]:
    """Every cap; a limit that is overdrawn is 0, never dropped from the table."""
    return tuple(Cap(name, max(rule(inputs, sizing), 0.0)) for name, rule in rules)


def limiting(caps: tuple[Cap, ...]) -> Cap:
    """The smallest, the first of equals.

    >>> limiting((Cap("arm_cap", 5.0), Cap("flow", 2.0), Cap("daily_cap", 2.0)))
    Cap(name='flow', usd=2.0)
    """
    return min(caps, key=lambda cap: cap.usd)


def line(caps: tuple[Cap, ...]) -> str:
    """The table as one line of a why-chain; what does not bind is left out.

    >>> line((Cap("arm_cap", 955.0), Cap("flow", 2.5), Cap("daily_cap", inf)))
    'arm_cap=955.00 flow=2.50'
    """
    return " ".join(f"{cap.name}={cap.usd:.2f}" for cap in caps if cap.usd < inf)
