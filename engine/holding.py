"""A position at average cost: what the desk, its venue and the projections all make of the same executions."""
import msgspec

from engine.facts import BUY, Fill

DUST = 1e-9            # below this a position is flat: sums of lots leave crumbs


class Holding(msgspec.Struct):
    """`qty` signed, base units; `average` the mean price of what is held, 0 when flat; `realized_usd` after the fees paid so far.

    >>> h = Holding()
    >>> h.take(Fill("1", "a", "X", "BUY", 100.0, 2.0, 0.5, True, 1, 0))
    >>> h.take(Fill("2", "b", "X", "SELL", 103.0, 1.0, 0.5, True, 2, 0))
    >>> h.qty, h.average, h.realized_usd
    (1.0, 100.0, 2.0)
    """
    qty: float = 0.0
    average: float = 0.0
    realized_usd: float = 0.0
    fees_usd: float = 0.0

    def take(self, fill: Fill) -> None:
        """Moves by an execution."""
        signed = fill.qty if fill.side == BUY else -fill.qty
        now = self.qty + signed
        if self.qty * signed >= 0:
            self.average = (abs(self.qty) * self.average + fill.qty * fill.price) / (abs(self.qty) + fill.qty) if fill.qty else self.average
        else:
            closing = min(abs(self.qty), fill.qty)
            self.realized_usd += closing * (fill.price - self.average) * (1 if self.qty > 0 else -1)
            if fill.qty > abs(self.qty):
                self.average = fill.price        # through zero: the rest opens anew
        self.qty = 0.0 if abs(now) < DUST else now
        self.average = self.average if self.qty else 0.0
        self.realized_usd -= fill.fee_usd
        self.fees_usd += fill.fee_usd
