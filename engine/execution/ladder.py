"""The price ladder of an entry: where its parts rest, how likely each is to be filled, and what is left out.

The parts follow S1's fractions from the entry price away from the market. A maker's level never crosses: one that would is moved back to
the touch, and levels that meet there are one order. A level that is too unlikely, or below an exchange minimum, is left out with its
quantity: nothing is lifted, nothing is given to its neighbours (DECISIONS, 12 and 74). The first level keeps the entry's id, level k is
`<entry>.k`.
"""
from collections.abc import Callable
from math import ceil
from typing import NamedTuple

import msgspec

from engine.facts import BUY
from engine.policy import Block
from engine.reasons import BELOW_MINIMUM, LOW_FILL_PROBABILITY, QTY_ZERO
from engine.settings import Instrument, Ladder

BUCKETS = ("lt_0.25", "0.25_0.5", "0.5_0.75", "gte_0.75")
FillAt = Callable[[float], float]     # steps of the ladder behind the touch → P(filled before it is taken back); below 0: inside the spread


def bucket(p: float) -> str:
    """The label of a fill probability in `exec_ladder_aggressiveness_total`; one that is no number is the lowest.

    >>> bucket(0.2499), bucket(0.25), bucket(0.5), bucket(0.75)
    ('lt_0.25', '0.25_0.5', '0.5_0.75', 'gte_0.75')
    """
    return BUCKETS[(p >= 0.25) + (p >= 0.5) + (p >= 0.75)]


def rung_id(entry_id: str, level: int) -> str:
    """The order id of a level.

    >>> rung_id("E-BTCUSDT-s1-1767654887210-B", 0), rung_id("E-BTCUSDT-s1-1767654887210-B", 2)
    ('E-BTCUSDT-s1-1767654887210-B', 'E-BTCUSDT-s1-1767654887210-B.2')
    """
    return f"{entry_id}.{level}" if level else entry_id


def entry_of(order_id: str) -> str:
    """The entry that a level's order belongs to; any other id is its own.

    >>> entry_of("E-X-s1-5-B.2"), entry_of("E-X-s1-5-B"), entry_of("X1-X.v2-s1-5-B")
    ('E-X-s1-5-B', 'E-X-s1-5-B', 'X1-X.v2-s1-5-B')
    """
    entry, dot, level = order_id.rpartition(".")
    return entry if dot and level.isdecimal() else order_id


class Rung(msgspec.Struct, frozen=True, gc=False, array_like=True):
    """One level: its number, price in ticks, quantity in lots, fill probability."""
    level: int
    ticks: int
    lots: int
    p: float


class Rungs(NamedTuple):
    """The levels to send, best first, and those left out with the reason."""
    kept: tuple[Rung, ...]
    dropped: tuple[tuple[Rung, Block], ...]

    @property
    def lots(self) -> int:
        """What is sent in all."""
        return sum(r.lots for r in self.kept)

    @property
    def refusal(self) -> Block | None:
        """Why nothing is sent; None where something is."""
        if self.kept:
            return None
        return self.dropped[0][1] if self.dropped else Block(QTY_ZERO, "lots=0")


def shares(lots: int, fractions: list[float]) -> list[int]:
    """Whole lots of each level: no more in all than `lots`, and what does not divide goes to the better levels.

    >>> shares(10, [0.25, 0.25, 0.25, 0.25]), shares(1, [0.25, 0.75]), shares(7, [0.5, 0.25])
    ([3, 2, 3, 2], [1, 0], [4, 2])
    """
    out, given, through = [], 0, 0.0
    for fraction in fractions:
        through = min(1.0, through + fraction)
        upto = min(lots, ceil(lots * through - 1e-9))
        out.append(upto - given)
        given = upto
    return out


def passive(sign: int, ticks: int, bid: int, ask: int) -> int:
    """The price as a maker's: moved to the own touch where it would meet the other side; an empty side (0) is none."""
    own, other = (bid, ask) if sign > 0 else (ask, bid)
    if not other or (other - ticks) * sign > 0:
        return ticks
    return own if own and (other - own) * sign > 0 else other - sign


def ladder(side: str, entry: int, bid: int, ask: int, lots: int, instrument: Instrument, rules: Ladder, fill: FillAt,
           min_p: float, offset: int = 0, maker_only: bool = True) -> Rungs:
    """The levels of an entry of `lots` at `entry` ticks in a market of `bid` and `ask` (ticks, 0 where the side is empty).

    `offset` shifts all levels away from the market (an arm's choice; below 0 towards it); `min_p` is `rules.min_fill_probability`, or what
    backpressure makes of it.
    """
    sign = 1 if side == BUY else -1
    touch, step = (bid if sign > 0 else ask) or entry, max(1, rules.step_ticks)
    at: dict[int, tuple[int, int]] = {}      # price → (level, lots); the first level of a price names it
    for level, part in enumerate(shares(lots, rules.fractions)):
        ticks = entry - sign * (offset + level * rules.step_ticks)
        ticks = passive(sign, ticks, bid, ask) if maker_only else ticks
        first, already = at.get(ticks, (level, 0))
        at[ticks] = (first, already + part)
    kept, dropped = [], []
    for ticks, (level, part) in at.items():
        if not part:
            continue
        p = fill((touch - ticks) * sign / step)
        qty, notional = part * instrument.lot, part * instrument.lot * ticks * instrument.tick
        block = None
        if ticks < 1:
            block = Block(BELOW_MINIMUM, f"level={level}: price={ticks} ticks < 1")
        elif not p >= min_p:
            block = Block(LOW_FILL_PROBABILITY, f"level={level}: p={p:.4f} < {min_p:.4f}")
        elif qty < instrument.min_qty - instrument.lot / 2 or notional < instrument.min_notional_usd:
            block = Block(BELOW_MINIMUM, f"level={level}: qty={qty:.10g} (min {instrument.min_qty:g}), "
                                         f"notional={notional:.2f} (min {instrument.min_notional_usd:g})")
        rung = Rung(level, ticks, part, p)
        if block is None:
            kept.append(rung)
        else:
            dropped.append((rung, block))
    return Rungs(tuple(kept), tuple(dropped))
