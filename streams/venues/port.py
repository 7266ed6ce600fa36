"""What a venue is to us: a market feed, orders in, reports and fills out, and an answer to "what stands?".

The messages are those of the local exchange's socket; another venue's adapter speaks its own protocol and offers the same port.
"""
from collections.abc import AsyncIterator, Sequence
from typing import Protocol

import msgspec

from engine.facts import Cancel, Fill, Frame, Order, Report, Standing

LENGTH = 4   # bytes of the little-endian length before each message


class Subscribe(msgspec.Struct, frozen=True, tag="subscribe"):
    """Frames of these symbols from these event numbers of this session on."""
    symbols: list[str]
    session: str
    due: dict[str, int]


class Place(msgspec.Struct, frozen=True, tag="place"):
    """An order."""
    order: Order


class TakeBack(msgspec.Struct, frozen=True, tag="take_back"):
    """A cancel."""
    cancel: Cancel


class Promise(msgspec.Struct, frozen=True, tag="promise"):
    """No order of an earlier time will come, unless in answer to a report after `seen`."""
    symbol: str
    upto_ms: int
    seen: int


class Resume(msgspec.Struct, frozen=True, tag="resume"):
    """Tell me again what happened after these numbers."""
    after: dict[str, int]


class Ask(msgspec.Struct, frozen=True, tag="ask"):
    """What stands of this symbol, and what is known of these orders? The answer carries the question's number."""
    symbol: str
    orders: list[str]
    number: int = 0


class Hello(msgspec.Struct, frozen=True, tag="hello"):
    """The venue says who it is; `journal` names its memory, another one has other numbers."""
    session: str
    lockstep: bool
    symbols: list[str]
    market: str
    journal: str


class Happened(msgspec.Struct, frozen=True, tag="happened"):
    """Reports and fills in the venue's order; what happened before `upto_ms` has numbers up to `upto_seq`. `markets` as in `Reports`."""
    symbol: str
    session: str
    upto_ms: int
    upto_seq: int
    items: list[Report | Fill]
    markets: dict[str, int] = {}


class Answered(msgspec.Struct, frozen=True, tag="answered"):
    """What stood when the question of this number was asked."""
    number: int
    standing: Standing


class Ended(msgspec.Struct, frozen=True, tag="ended"):
    """The market is over (a recording's end)."""
    symbol: str


Request = Subscribe | Place | TakeBack | Promise | Resume | Ask
Answer = Frame | Hello | Happened | Answered | Ended


class Venue(Protocol):
    """The port."""

    hello: Hello | None

    async def connect(self, patience_s: float = 30.0) -> Hello: ...
    def market(self, symbols: Sequence[str], session: str, due: dict[str, int]) -> AsyncIterator[Frame | Ended]: ...
    async def place(self, order: Order) -> None: ...
    async def cancel(self, cancel: Cancel) -> None: ...
    async def promise(self, symbol: str, upto_ms: int, seen: int) -> None: ...
    def happenings(self, after: dict[str, int]) -> AsyncIterator[Happened]: ...
    async def again(self, after: dict[str, int]) -> None: ...
    async def standing(self, symbol: str, orders: Sequence[str] = ()) -> Standing: ...
    async def close(self) -> None: ...
