"""An order that is about to be placed, with the market as it finds it: what the gate hands to a fill model."""
from typing import NamedTuple

from engine.facts import Candidate


class Placement(NamedTuple):
    """What the Desk knows when it places an order, beyond the order itself.

    `features`: the candidate's float32 row of the declared list. `bid` and `ask`: the touch in ticks, 0 where a side is empty. Lots at the
    touch and in the first levels of each side (`gates.liquidity_by_side.levels`) and trades of the last minute as in `Candidate`.
    `horizon_ms`: how long the order may rest.
    """
    features: bytes
    bid: int
    ask: int
    tick: float
    bid_lots: int
    bid_depth: int
    ask_lots: int
    ask_depth: int
    trades: int
    horizon_ms: int


def placement_of(signal: Candidate, bid: int, ask: int, tick: float, horizon_ms: int) -> Placement:
    """The placement of an entry that this candidate proposed, in a market of `bid` and `ask` (ticks)."""
    return Placement(signal.features, bid, ask, tick, signal.bid_lots, signal.bid_depth, signal.ask_lots, signal.ask_depth, signal.trades,
                     horizon_ms)


class Act(NamedTuple):
    """What is about to be done; of an entry over several levels the best price and the whole quantity.

    A model that needs the market asks for `placement`; where it is None, such a model has no answer, and the gate lets the order pass.
    """
    action_type: str
    symbol: str
    side: str
    price: float
    qty: float
    closing: bool = False       # it can only reduce a position
    placement: Placement | None = None
