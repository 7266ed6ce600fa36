"""What a unit of the desk's collateral is worth in USD, and how that is known (S0's SOL price; DECISIONS, 7).

The last archived price counts while it is young enough; a hint from the settings stands in for it; without either the price is
missing, the USD cap suspended, and the size says so. A dollar token's price is a price like any other.
"""

from math import isfinite
from typing import NamedTuple

from engine.settings import CollateralPrice

DB, HINT, MISSING = "db", "hint", "missing"
SOURCES = (DB, HINT, MISSING)


class Worth(NamedTuple):
    """The price in USD, None where it is missing, and its source."""

    usd: float | None
    source: str


def sound(price: float | None) -> bool:
    """Whether that can be a price."""
    return price is not None and isfinite(price) and price > 0


def worth(settings: CollateralPrice, now_ms: int, price: float | None = None, at_ms: int = 0) -> Worth:
    """The price in force at `now_ms`, from the last archived one (`price` of market time `at_ms`; None: there is none).

    A price from after `now_ms` is nobody's knowledge yet and does not count; one as old as the limit still does.
    """
    if sound(price) and 0 <= now_ms - at_ms <= settings.maxAgeMs:
        return Worth(price, DB)
    if sound(settings.priceHintUsd):
        return Worth(settings.priceHintUsd, HINT)
    return Worth(None, MISSING)
