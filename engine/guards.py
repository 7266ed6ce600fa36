"""S1's guards and the pre-trade controls: rows of one table, the first that objects decides.

`BEFORE` asks nothing of the order's size and stands before sizing; `AFTER` looks at the order that sizing made. Every row is a function of
(wish, watch, rules) and changes nothing. Comparisons are written so that a number that is none blocks. An exit passes only `closing`:
nothing may keep a desk from getting smaller.
"""
from collections.abc import Callable

import msgspec

from engine.facts import BUY
from engine.policy import Block, exactly
from engine.reasons import (
    DAILY_CAP,
    DUPLICATE,
    LIQUIDITY_INSUFFICIENT,
    MAX_ORDER_RATE,
    MAX_ORDER_VALUE,
    MIN_FREE_BALANCE,
    NEAR_LIQUIDATION,
    NEAR_LIQUIDATION_SHORT,
    NOT_TRADABLE,
    PRECISION_HALT,
    PRICE_COLLAR,
    REDUCE_ONLY_VIOLATION,
    STALE_DATA,
    STREAK_HALT,
    VOLATILITY_HALT,
)
from engine.settings import Controls, Gates, Risk
from engine.watch import DAY_MS, MINUTE_MS, SECOND_MS, Watch


class Wish(msgspec.Struct, frozen=True, gc=False):
    """An entry that is about to be sent. Prices in quote currency, quantities in base units, times in market ms.

    `now_ms` is the Desk's time, `signal_ms` and `book_ms` the symbol's own; `own_depth` what the first levels of the order's side show;
    `qty` the sum of its levels and 0 before sizing, `orders` how many they are; `known`: an order of this id has been sent.
    """
    order_id: str
    symbol: str
    side: str
    price: float
    leverage: float
    maintenance: float
    now_ms: int
    signal_ms: int
    bid: float
    ask: float
    book_ms: int
    own_depth: float
    free_usd: float
    known: bool = False
    qty: float = 0.0
    orders: int = 1


def sized(wish: Wish, qty: float, orders: int, price: float) -> Wish:
    """The wish once it has a size: all levels together, and the price of the best."""
    return msgspec.structs.replace(wish, qty=qty, orders=orders, price=price)


class Rules(msgspec.Struct, frozen=True, gc=False):
    """The settings that the rows read."""
    risk: Risk
    gates: Gates
    controls: Controls
    min_free_balance_usd: float


def not_tradable(wish: Wish, watch: Watch, rules: Rules) -> Block | None:
    """The symbol is on the list."""
    if wish.symbol in rules.controls.not_tradable:
        return Block(NOT_TRADABLE, f"{wish.symbol} in {','.join(rules.controls.not_tradable)}")
    return None


def stale_data(wish: Wish, watch: Watch, rules: Rules) -> Block | None:
    """The signal is much younger than the last book: only trades came since, or nothing."""
    age, limit = wish.signal_ms - wish.book_ms, rules.controls.max_book_age_ms
    if limit and age > limit:
        return Block(STALE_DATA, f"book_age={age}ms > {limit}ms")
    return None


def daily_cap(wish: Wish, watch: Watch, rules: Rules) -> Block | None:
    """The day's realised loss has reached the cap; what is earned later in the day does not lift it."""
    cap = abs(rules.risk.daily_loss_cap_usd)
    if not watch.capped(wish.now_ms, cap):
        return None
    earned = "" if watch.day_usd <= -cap else f" now, -{watch.capped_usd:.2f} before"
    return Block(DAILY_CAP, f"day={watch.day_usd:.2f}{earned} <= -{cap:.2f}, resumes in {DAY_MS - wish.now_ms % DAY_MS}ms")


def streak_halt(wish: Wish, watch: Watch, rules: Rules) -> Block | None:
    """Within the cool-down after a streak of losses; elapsed passes."""
    if wish.now_ms < watch.streak_until_ms:
        return Block(STREAK_HALT, f"losses={rules.risk.loss_streak_max}, resumes in {watch.streak_until_ms - wish.now_ms}ms")
    return None


def precision_halt(wish: Wish, watch: Watch, rules: Rules) -> Block | None:
    """Within the cool-down after too few wins."""
    if wish.now_ms < watch.precision_until_ms:
        return Block(PRECISION_HALT, f"precision={watch.precision:.4f} < {rules.risk.precision_floor:.4f}, "
                                     f"resumes in {watch.precision_until_ms - wish.now_ms}ms")
    return None


def volatility_halt(wish: Wish, watch: Watch, rules: Rules) -> Block | None:
    """The symbol is rough."""
    if wish.symbol in watch.rough:
        return Block(VOLATILITY_HALT, f"sigma={watch.rough[wish.symbol]:.2f}bps > {rules.risk.volatility_ceiling_bps:g}bps")
    return None


def min_free_balance(wish: Wish, watch: Watch, rules: Rules) -> Block | None:
    """Too little is free to open anything."""
    if not wish.free_usd >= rules.min_free_balance_usd:
        return Block(MIN_FREE_BALANCE, f"free={wish.free_usd:.2f} < {rules.min_free_balance_usd:g}")
    return None


def liquidation_price(side: str, entry: float, leverage: float, maintenance: float) -> float:
    """Where the venue closes an isolated position: its margin is down to the maintenance margin (both fractions of the entry).

    >>> round(liquidation_price("BUY", 60_000, 10, 0.004), 6), round(liquidation_price("SELL", 60_000, 10, 0.004), 6)
    (54240.0, 65760.0)
    """
    return entry * (1 - 1 / leverage + maintenance) if side == BUY else entry * (1 + 1 / leverage - maintenance)


def near_liquidation(wish: Wish, watch: Watch, rules: Rules) -> Block | None:
    """The liquidation price is nearer than the buffered stop; (entry − liq) / entry is 1/leverage − maintenance for both sides."""
    guard, code = rules.risk.near_liq_guard, NEAR_LIQUIDATION if wish.side == BUY else NEAR_LIQUIDATION_SHORT
    if not guard.enabled or not rules.risk.assumed_sl_pct:
        return None
    need = exactly(guard.sl_buffer_multiplier) * exactly(rules.risk.assumed_sl_pct)
    if not 0 < wish.price < float("inf") or not 0 < wish.leverage < float("inf") or not 0 <= wish.maintenance < 1:
        return Block(code, f"price={wish.price}, leverage={wish.leverage}, maintenance={wish.maintenance}")
    distance = 1 / exactly(wish.leverage) - exactly(wish.maintenance)
    if distance < need:
        return Block(code, f"distance={distance:.6f} < {need.normalize()} ({guard.sl_buffer_multiplier:g} x {rules.risk.assumed_sl_pct:g})")
    return None


def duplicate(wish: Wish, watch: Watch, rules: Rules) -> Block | None:
    """This order has been sent."""
    return Block(DUPLICATE, f"{wish.order_id} has been sent") if wish.known else None


def price_collar(wish: Wish, watch: Watch, rules: Rules) -> Block | None:
    """The price lies too far from the middle of the touch; a side that is empty (0) is no price."""
    collar = rules.controls.price_collar_bps
    if not collar:
        return None
    seen = [price for price in (wish.bid, wish.ask) if price > 0]
    middle = sum(seen) / len(seen) if seen else 0.0
    bps = abs(wish.price - middle) / middle * 1e4 if middle else float("inf")
    return None if bps <= collar else Block(PRICE_COLLAR, f"price={wish.price:.10g}, touch={middle:.10g}: {bps:.1f}bps > {collar:g}bps")


def max_order_value(wish: Wish, watch: Watch, rules: Rules) -> Block | None:
    """All levels together are worth too much."""
    value, limit = wish.price * wish.qty, rules.controls.max_order_value_usd
    return None if not limit or value <= limit else Block(MAX_ORDER_VALUE, f"value={value:.2f} > {limit:.2f}")


def max_order_rate(wish: Wish, watch: Watch, rules: Rules) -> Block | None:
    """With these orders more would have been sent within a second or a minute than may be."""
    for name, limit, span in (("second", rules.controls.max_orders_per_second, SECOND_MS),
                              ("minute", rules.controls.max_orders_per_minute, MINUTE_MS)):
        if limit and (sent := watch.sent_since(wish.now_ms - span)) + wish.orders > limit:
            return Block(MAX_ORDER_RATE, f"orders={sent} + {wish.orders} > {limit} a {name}")
    return None


def liquidity_by_side(wish: Wish, watch: Watch, rules: Rules) -> Block | None:
    """The own side of the book is too thin to stand in: who joins it alone is the liquidity."""
    gate = rules.gates.liquidity_by_side
    if gate.enabled and not round(gate.alpha * wish.qty, 9) <= round(wish.own_depth, 9):
        return Block(LIQUIDITY_INSUFFICIENT, f"{gate.alpha:g} x qty={wish.qty:.10g} > depth={wish.own_depth:.10g} ({gate.levels} levels)")
    return None


Row = tuple[tuple[str, ...], Callable[[Wish, Watch, Rules], Block | None]]
BEFORE: tuple[Row, ...] = (
    ((NOT_TRADABLE,), not_tradable),
    ((STALE_DATA,), stale_data),
    ((DAILY_CAP,), daily_cap),
    ((STREAK_HALT,), streak_halt),
    ((PRECISION_HALT,), precision_halt),
    ((VOLATILITY_HALT,), volatility_halt),
    ((MIN_FREE_BALANCE,), min_free_balance),
    ((NEAR_LIQUIDATION, NEAR_LIQUIDATION_SHORT), near_liquidation),
)
AFTER: tuple[Row, ...] = (
    ((DUPLICATE,), duplicate),
    ((PRICE_COLLAR,), price_collar),
    ((MAX_ORDER_VALUE,), max_order_value),
    ((LIQUIDITY_INSUFFICIENT,), liquidity_by_side),
    ((MAX_ORDER_RATE,), max_order_rate),
)


def first(rows: tuple[Row, ...], wish: Wish, watch: Watch, rules: Rules) -> Block | None:
    """The first objection of these rows."""
    for _, row in rows:
        if (block := row(wish, watch, rules)) is not None:
            return block
    return None


def closing(side: str, qty: float, held: float) -> Block | None:
    """A reduce-only order may close what is held (signed, base units), and no more of it.

    >>> closing("SELL", 0.3, 0.3) is None, closing("SELL", 0.4, 0.3).numbers
    (True, 'SELL 0.4 > held 0.3')
    """
    room = held if side != BUY else -held
    return None if 0 < round(qty, 9) <= round(room, 9) else Block(REDUCE_ONLY_VIOLATION, f"{side} {qty:.10g} > held {held:.10g}")


__all__ = ["AFTER", "BEFORE", "Block", "Rules", "Wish", "closing", "first", "liquidation_price"]
