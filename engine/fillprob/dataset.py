"""Executions into round trips: the rows of `fill_outcomes_v1`, what FillModelV0 learns from.

A symbol's fills are netted: a buy closes an open short first and opens or adds to a long with what is left, a sell mirrored. A row is
made when as much is closed as was opened; what a fill closes beyond that opens the other direction with its share of the fee, so that no
quantity and no money is lost. Decimals throughout, because a row's id is made of their digits.
"""
import hashlib
from collections.abc import Iterable
from decimal import ROUND_HALF_EVEN, Context, Decimal, localcontext
from typing import NamedTuple

import msgspec

from engine.facts import BUY, LONG, SHORT

SCHEMA = "fill_outcomes_v1"
WIN, LOSS, BREAKEVEN = "win", "loss", "breakeven"
PAPER, REAL, IMPORT = "paper", "real", "import"
NONE = Decimal(0)
BPS_MAX = 2**31 - 1
DIGITS = Context(prec=28, rounding=ROUND_HALF_EVEN)     # Python's own, whatever somebody has set


class Execution(NamedTuple):
    """A fill. `fee` in quote currency, positive when paid; fills of different accounts never close each other."""
    ts: int
    symbol: str
    side: str
    price: Decimal
    quantity: Decimal
    order_id: str = ""
    fee: Decimal = NONE
    account: str = ""
    source: str = PAPER


class Roundtrip(msgspec.Struct, frozen=True, gc=False):
    """A row; the fields are the 21 columns in their order. Times in ms, money in quote currency after `net_pnl = realized − fees`."""
    row_id: str
    symbol: str
    direction: str
    entry_ts: int
    entry_price: float
    entry_qty: float
    entry_fee: float
    entry_fill_count: int
    exit_ts: int
    exit_price: float
    exit_qty: float
    exit_fee: float
    exit_fill_count: int
    realized_pnl: float
    net_pnl: float
    pnl_bps: int
    holding_time_ms: int
    notional: float
    outcome: str
    source: str
    dataset_version: str


COLUMNS = Roundtrip.__struct_fields__


class Leg:
    """One way of a trip: what was traded so far."""

    def __init__(self) -> None:
        self.qty, self.value, self.fee, self.fills, self.ts = NONE, NONE, NONE, 0, 0

    def add(self, ts: int, price: Decimal, qty: Decimal, fee: Decimal) -> None:
        self.qty, self.value, self.fee = self.qty + qty, self.value + price * qty, self.fee + fee
        self.fills += 1
        self.ts = ts

    @property
    def price(self) -> Decimal:
        """Mean, weighted by quantity."""
        return self.value / self.qty


class Trip:
    """A position that is not closed yet."""

    def __init__(self, direction: str, ts: int, source: str):
        self.direction, self.since, self.source = direction, ts, source
        self.entry, self.exit = Leg(), Leg()

    @property
    def left(self) -> Decimal:
        """Quantity that is still open."""
        return self.entry.qty - self.exit.qty


def row_id(symbol: str, direction: str, entry_ts: int, exit_ts: int, entry: Decimal, exit_: Decimal, qty: Decimal) -> str:
    """sha1 over what a trip was, with the digits that its numbers were told in.

    >>> row_id("BTCUSDT", "long", 1, 2, Decimal("100.0"), Decimal("101"), Decimal("0.5"))[:12]
    '61b7ccb584e9'
    """
    said = "|".join((symbol, direction, str(entry_ts), str(exit_ts), str(entry), str(exit_), str(qty)))
    return hashlib.sha1(said.encode()).hexdigest()


def row(symbol: str, trip: Trip) -> Roundtrip:
    """A closed trip as a row."""
    entry, exit_ = trip.entry.price, trip.exit.price
    qty, sign = trip.entry.qty, 1 if trip.direction == LONG else -1
    realized = (exit_ - entry) * qty * sign
    net = realized - trip.entry.fee - trip.exit.fee
    notional = entry * qty
    bps = round(net / notional * 10_000) if notional else 0
    outcome = WIN if net > 0 else LOSS if net < 0 else BREAKEVEN
    return Roundtrip(
        row_id(symbol, trip.direction, trip.since, trip.exit.ts, entry, exit_, qty), symbol, trip.direction, trip.since, float(entry),
        float(qty), float(trip.entry.fee), trip.entry.fills, trip.exit.ts, float(exit_), float(trip.exit.qty), float(trip.exit.fee),
        trip.exit.fills, float(realized), float(net), max(-BPS_MAX, min(BPS_MAX, bps)), trip.exit.ts - trip.since, float(notional), outcome,
        trip.source, SCHEMA)


class RoundtripTracker:
    """Open trips by account and symbol."""

    def __init__(self) -> None:
        self.open: dict[tuple[str, str], Trip] = {}

    def on_fill(self, fill: Execution) -> Roundtrip | None:
        """The trip that this fill closed, if it closed one."""
        with localcontext(DIGITS):
            return self._take(fill)

    def _take(self, fill: Execution) -> Roundtrip | None:
        key, direction = (fill.account, fill.symbol), LONG if fill.side == BUY else SHORT
        trip = self.open.get(key)
        if trip is None or trip.direction == direction:
            if trip is None:
                trip = self.open[key] = Trip(direction, fill.ts, fill.source)
            trip.entry.add(fill.ts, fill.price, fill.quantity, fill.fee)
            return None
        closed = min(fill.quantity, trip.left)
        rest = fill.quantity - closed
        fee = fill.fee * closed / fill.quantity if rest else fill.fee
        trip.exit.add(fill.ts, fill.price, closed, fee)
        if trip.left:
            return None
        del self.open[key]
        if rest:
            self._take(fill._replace(quantity=rest, fee=fill.fee - fee))
        return row(fill.symbol, trip)


def roundtrips(fills: Iterable[Execution]) -> list[Roundtrip]:
    """Every trip that these fills closed, in the order in which they were closed; fills of one time stay as they came."""
    tracker = RoundtripTracker()
    return [done for fill in sorted(fills, key=lambda fill: fill.ts) if (done := tracker.on_fill(fill)) is not None]


def parts(rows: list[Roundtrip], first: float) -> tuple[list[Roundtrip], list[Roundtrip]]:
    """The first share of the rows by the time of their exit, and the rest: what one trains on, and what one judges by."""
    ordered = sorted(rows, key=lambda one: one.exit_ts)
    cut = int(len(ordered) * first)
    return ordered[:cut], ordered[cut:]
