"""Execution arms: how far behind the touch an entry rests, with which part of its size, and for how long.

An arm is its id, so that a label, a row of the ledger and a line of the settings say the same thing: `o1-s50-p8` rests one tick
behind the entry price with 50 % of the size for 8 seconds. An arm never makes an order larger, nearer or longer than the desk asked.
"""
import re

import msgspec

FORM = re.compile(r"o(\d{1,3})-s(\d{1,3})-p(\d{1,4}(?:\.\d{1,3})?)")


class Arm(msgspec.Struct, frozen=True):
    """`offset` ticks behind the entry price (away from the other side), `fraction` of the sized quantity, `patience_ms` at the venue."""
    id: str
    offset: int
    fraction: float
    patience_ms: int

    def price(self, sign: int, entry: float, tick: float) -> float:
        """Where the entry rests, `sign` +1 for a buy: never nearer to the other side than `entry`.

        >>> arm("o2-s100-p20").price(1, 60_000.0, 0.1), arm("o2-s100-p20").price(-1, 60_000.0, 0.1)
        (59999.8, 60000.2)
        """
        return round((round(entry / tick) - sign * self.offset) * tick, 10)

    def patience(self, ttl_ms: int) -> int:
        """How long it waits, never longer than the desk's own limit `ttl_ms`."""
        return min(self.patience_ms, ttl_ms)


def arm(text: str) -> Arm:
    """The arm that an id names; `ValueError` says what is expected.

    >>> arm("o1-s50-p8")
    Arm(id='o1-s50-p8', offset=1, fraction=0.5, patience_ms=8000)
    """
    found = FORM.fullmatch(text)
    if not found:
        raise ValueError(f"{text!r} is no arm: o<ticks>-s<percent of the size>-p<seconds> was expected, as o1-s50-p8")
    offset, percent, patience_ms = int(found[1]), int(found[2]), round(float(found[3]) * 1000)
    if not 1 <= percent <= 100:
        raise ValueError(f"{text!r}: s{percent} is not between 1 and 100 percent; an arm never makes an order larger")
    if patience_ms <= 0:
        raise ValueError(f"{text!r}: p{found[3]} is not above 0 seconds")
    return Arm(text, offset, percent / 100, patience_ms)


def table(ids: list[str]) -> dict[str, Arm]:
    """The arms of a table by id, in its order; `ValueError` for fewer than two, or the same twice."""
    arms = {text: arm(text) for text in ids}
    if len(arms) != len(ids):
        raise ValueError(f"{', '.join(sorted({i for i in ids if ids.count(i) > 1}))}: named twice")
    if len({(a.offset, a.fraction, a.patience_ms) for a in arms.values()}) != len(arms):
        raise ValueError(f"two ids of {', '.join(ids)} mean the same arm")
    if len(arms) < 2:
        raise ValueError(f"{len(arms)} arms: at least 2 were expected, else there is nothing to choose")
    return arms
