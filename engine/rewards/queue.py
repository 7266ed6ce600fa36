"""Choices that wait for what becomes of their order, and whose reward it is.

By order id (`features.orderIdRewardMatching`): an id that is present but unknown is a miss, never another order's credit; the symbol and
the time are asked only where an outcome carries no id. With the flag off, always symbol and time (S0 calls it mint): the first choice made
not later than the outcome plus a jitter, else the oldest. Taking is once and from both indices (DECISIONS, 8 and 73).
"""
from collections.abc import Callable
from typing import NamedTuple

import msgspec

from engine.reasons import DUPLICATE_ORDER, NO_PENDING, PENDING_FULL, UNMATCHED_ORDER_ID

ORDER_ID, MINT_NO_ORDER_ID, MINT, EXPIRED = "order_id", "mint_no_order_id", "mint", "expired"
MODES = (ORDER_ID, MINT_NO_ORDER_ID, MINT, EXPIRED)
MISSES = (UNMATCHED_ORDER_ID, NO_PENDING)
REFUSALS = (DUPLICATE_ORDER, PENDING_FULL)
NOT_MATCHED = "no pending selection matched exec outcome"      # S0's line, to the letter


class Pending(msgspec.Struct, frozen=True):
    """One choice and what it was made on. `expected` is the arm's estimated mean, without the bonus for what is unknown."""
    order_id: str
    symbol: str
    arm: str
    context: list[float]
    propensity: float
    expected: float
    created_ms: int


class Miss(NamedTuple):
    """Nobody is paid: the reason, and the numbers that made it."""
    reason: str
    numbers: str


class Match(NamedTuple):
    """Whose outcome it is, and how that is known."""
    mode: str
    pending: Pending


class PendingSelectionQueue(msgspec.Struct):
    """Choices in the order in which they were made, found by order id or by symbol; at most `most` of them."""
    most: int
    by_id: dict[str, Pending] = {}
    by_symbol: dict[str, list[str]] = {}

    def __len__(self) -> int:
        return len(self.by_id)

    def put(self, pending: Pending) -> Miss | None:
        """Takes a choice in; refused where its id waits already, or where the queue is full."""
        if pending.order_id in self.by_id:
            return Miss(DUPLICATE_ORDER, f"{pending.order_id} waits since {self.by_id[pending.order_id].created_ms}")
        if len(self.by_id) >= self.most:
            return Miss(PENDING_FULL, f"pending={len(self.by_id)} >= max={self.most}")
        self.by_id[pending.order_id] = pending
        self.by_symbol.setdefault(pending.symbol, []).append(pending.order_id)
        return None

    def take(self, order_id: str) -> Pending | None:
        """The choice of that order, out of both indices: who asks again gets none."""
        pending = self.by_id.pop(order_id, None)
        if pending is not None:
            ids = self.by_symbol[pending.symbol]
            ids.remove(order_id)
            if not ids:
                del self.by_symbol[pending.symbol]
        return pending

    def take_by_symbol(self, symbol: str, exec_ms: int, jitter_ms: int) -> Pending | None:
        """S0's legacy match: the first choice of the symbol made at most `jitter_ms` after the outcome, else its oldest."""
        ids = self.by_symbol.get(symbol)
        if not ids:
            return None
        return self.take(next((i for i in ids if self.by_id[i].created_ms <= exec_ms + jitter_ms), ids[0]))

    def expired(self, now_ms: int, expiry_ms: int) -> list[Pending]:
        """Takes out what has waited for `expiry_ms` or longer, in the order in which it came."""
        over = [i for i, p in self.by_id.items() if p.created_ms <= now_ms - expiry_ms]
        return [p for i in over if (p := self.take(i)) is not None]


Matcher = Callable[[PendingSelectionQueue, str, str, int, int], Match | Miss]


def by_order_id(queue: PendingSelectionQueue, order_id: str, symbol: str, exec_ms: int, jitter_ms: int) -> Match | Miss:
    """The order's own choice; symbol and time only for an outcome that carries no id."""
    if not order_id:
        return _by_symbol(queue, symbol, exec_ms, jitter_ms, MINT_NO_ORDER_ID)
    pending = queue.take(order_id)
    return Match(ORDER_ID, pending) if pending else Miss(UNMATCHED_ORDER_ID, f"order_id={order_id}, pending={len(queue)}")


def by_symbol_and_time(queue: PendingSelectionQueue, order_id: str, symbol: str, exec_ms: int, jitter_ms: int) -> Match | Miss:
    """S0's matching before order ids: the outcome's id is not looked at."""
    return _by_symbol(queue, symbol, exec_ms, jitter_ms, MINT)


def _by_symbol(queue: PendingSelectionQueue, symbol: str, exec_ms: int, jitter_ms: int, mode: str) -> Match | Miss:
    pending = queue.take_by_symbol(symbol, exec_ms, jitter_ms)
    return Match(mode, pending) if pending else Miss(NO_PENDING, f"symbol={symbol}, exec_ms={exec_ms}, pending={len(queue)}")
