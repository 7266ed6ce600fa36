"""S4: when a position may be opened, and how much capital it gets.

Nine checks in the seed's order, the first that objects decides; then 20 % of the available capital × confidence multiplier ×
risk score under the hard caps. Exposure is margin (notional / leverage), everywhere (DECISIONS, 13). A scale-in goes through
steps 7–9 as well (14). Anything non-finite blocks (15).
"""

from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal
from math import isfinite
from typing import NamedTuple, Protocol

import msgspec

from engine.facts import direction
from engine.reasons import (
    ALLOW_NEW_ENTRY,
    ALLOW_SCALE_IN,
    ALLOWED,
    BLOCK_COOLDOWN,
    BLOCK_EXISTING_POSITION,
    BLOCK_INSUFFICIENT_CAPITAL,
    BLOCK_LOW_CONFIDENCE,
    BLOCK_MAX_EXPOSURE,
    BLOCK_MAX_POSITIONS,
    BLOCK_REGIME_RULE,
    BLOCK_SCALE_IN_RULE,
    INVALID_INPUT,
    PORTFOLIO_UNREADABLE,
)
from engine.settings import EntryLimits, Instrument
from engine.sizing.size import round_down


class Intent(msgspec.Struct, frozen=True, gc=False):
    """The wish to enter: `now_s` is market time in seconds, `quantity` 0 where the size is still to be decided."""

    symbol: str
    side: str
    confidence: float
    price: float
    now_s: float | None = None
    quantity: float = 0.0
    regime: str = "unknown"
    leverage: float = 1.0


class OpenEntry(msgspec.Struct, frozen=True, gc=False):
    """One entry of a position: what S4 asks of it."""

    side: str
    quantity: float
    entry_price: float
    confidence: float


class PortfolioState(msgspec.Struct):
    """What the policy sees of the account; money is USD margin, times are market seconds, None is never (DECISIONS, 15)."""

    total_positions: int = 0
    positions_by_symbol: dict[str, list[OpenEntry]] = {}
    positions_by_regime: dict[str, int] = {}
    total_exposure_usdt: float = 0.0
    exposure_by_symbol: dict[str, float] = {}
    available_capital_usdt: float = 0.0
    last_trade_time: float | None = None
    last_trade_by_symbol: dict[str, float] = {}


class Account(Protocol):
    """Whatever can be read as S4's portfolio: the view above, or the Desk's own books."""

    @property
    def total_positions(self) -> int: ...
    @property
    def positions_by_symbol(self) -> Mapping[str, Sequence[OpenEntry]]: ...
    @property
    def positions_by_regime(self) -> Mapping[str, int]: ...
    @property
    def total_exposure_usdt(self) -> float: ...
    @property
    def exposure_by_symbol(self) -> Mapping[str, float]: ...
    @property
    def available_capital_usdt(self) -> float: ...
    @property
    def last_trade_time(self) -> float | None: ...
    @property
    def last_trade_by_symbol(self) -> Mapping[str, float]: ...


class Block(NamedTuple):
    """A no: the code and the numbers."""

    code: str
    numbers: str


class Allocation(NamedTuple):
    """What an entry may commit: margin in USD, the limit that bound it, and the block where it is nothing."""

    margin_usd: float
    cap: str
    block: Block | None


def usd(amount: float) -> str:
    """Dollars as the log lines write them: no cents where there are none.

    >>> usd(500.0), usd(499.5)
    ('$500', '$499.50')
    """
    return f"${amount:.0f}" if amount == round(amount) else f"${amount:.2f}"


def exactly(value: float) -> Decimal:
    """The decimal that a person reads, so that 0.80 is not above 0.75 + 0.05."""
    return Decimal(repr(float(value)))


def low_confidence(confidence: float, limits: EntryLimits) -> Block | None:
    """Step 1 of a bare number: it asks nothing of the account."""
    if not limits.min_confidence <= confidence <= 1:
        return Block(BLOCK_LOW_CONFIDENCE, f"confidence={confidence:.2f} < {limits.min_confidence:.2f}")
    return None


def min_confidence(intent: Intent, account: Account, limits: EntryLimits, margin: float) -> Block | None:
    """Step 1."""
    return low_confidence(intent.confidence, limits)


def remaining_s(cooldown_s: float, last_s: float | None, now_s: float | None) -> float:
    """Seconds of a cooldown that are left; a clock that ran backwards counts as no time elapsed."""
    if last_s is None:
        return 0.0
    if now_s is None:
        return cooldown_s
    return cooldown_s - max(0.0, now_s - last_s)


def global_cooldown(intent: Intent, account: Account, limits: EntryLimits, margin: float) -> Block | None:
    """Step 2; elapsed = cooldown passes."""
    left = remaining_s(limits.cooldown_seconds_global, account.last_trade_time, intent.now_s)
    return Block(BLOCK_COOLDOWN, f"global_cooldown={left:.0f}s remaining") if left > 0 else None


def symbol_cooldown(intent: Intent, account: Account, limits: EntryLimits, margin: float) -> Block | None:
    """Step 3."""
    left = remaining_s(limits.cooldown_seconds_per_symbol, account.last_trade_by_symbol.get(intent.symbol), intent.now_s)
    return Block(BLOCK_COOLDOWN, f"symbol_cooldown={left:.0f}s remaining") if left > 0 else None


def max_positions(intent: Intent, account: Account, limits: EntryLimits, margin: float) -> Block | None:
    """Step 4."""
    if account.total_positions >= limits.max_open_positions_total:
        return Block(BLOCK_MAX_POSITIONS, f"total_positions={account.total_positions} >= max={limits.max_open_positions_total}")
    return None


def over(current: float, margin: float, limit: float) -> bool:
    """At the limit already, or beyond it with this entry; compared as decimals."""
    return exactly(current) >= exactly(limit) or exactly(current) + exactly(margin) > exactly(limit)


def max_exposure(intent: Intent, account: Account, limits: EntryLimits, margin: float) -> Block | None:
    """Step 5."""
    if over(account.total_exposure_usdt, margin, limits.max_total_exposure_usdt):
        return Block(
            BLOCK_MAX_EXPOSURE,
            f"total_exposure={usd(account.total_exposure_usdt)} + {usd(margin)} > max={usd(limits.max_total_exposure_usdt)}",
        )
    return None


def scale_in(intent: Intent, account: Account, limits: EntryLimits, margin: float) -> Block | None:
    """Step 6: what must hold where the symbol has entries already; the count is of entries after the first."""
    held = account.positions_by_symbol.get(intent.symbol)
    if not held:
        return None
    if not limits.allow_scale_in:
        return Block(BLOCK_EXISTING_POSITION, "existing_position=true, scale_in=DISABLED")
    if len(held) - 1 >= limits.scale_in_max_count:
        return Block(BLOCK_SCALE_IN_RULE, f"scale_in_count={len(held) - 1} >= max={limits.scale_in_max_count}")
    for entry in held:
        if entry.side != direction(intent.side):
            return Block(BLOCK_SCALE_IN_RULE, f"existing_direction={entry.side}, new_side={intent.side}")
    best = max(entry.confidence for entry in held)
    if exactly(intent.confidence) <= exactly(best) + exactly(limits.scale_in_confidence_delta):
        return Block(
            BLOCK_SCALE_IN_RULE,
            f"new_confidence={intent.confidence:.2f} <= existing={best:.2f} + delta={limits.scale_in_confidence_delta:.2f}",
        )
    return None


def symbol_exposure(intent: Intent, account: Account, limits: EntryLimits, margin: float) -> Block | None:
    """Step 7."""
    current = account.exposure_by_symbol.get(intent.symbol, 0.0)
    if over(current, margin, limits.max_exposure_per_symbol_usdt):
        return Block(BLOCK_MAX_EXPOSURE, f"symbol_exposure={usd(current)} + {usd(margin)} > max={usd(limits.max_exposure_per_symbol_usdt)}")
    return None


def symbol_positions(intent: Intent, account: Account, limits: EntryLimits, margin: float) -> Block | None:
    """Step 8."""
    after = len(account.positions_by_symbol.get(intent.symbol, ())) + 1
    if after > limits.max_open_positions_per_symbol:
        return Block(BLOCK_MAX_POSITIONS, f"symbol_positions={after} > max={limits.max_open_positions_per_symbol}")
    return None


def regime_positions(intent: Intent, account: Account, limits: EntryLimits, margin: float) -> Block | None:
    """Step 9."""
    held = account.positions_by_regime.get(intent.regime, 0)
    if held >= limits.max_open_positions_per_regime:
        return Block(BLOCK_REGIME_RULE, f"regime={intent.regime}, positions={held} >= max={limits.max_open_positions_per_regime}")
    return None


FIRST: tuple[Callable[..., Block | None], ...] = (
    min_confidence,
    global_cooldown,
    symbol_cooldown,
    max_positions,
)  # steps 1–4 ask no margin
CHECKS: tuple[Callable[..., Block | None], ...] = (*FIRST, max_exposure, scale_in, symbol_exposure, symbol_positions, regime_positions)


def readable(account: Account) -> Block | None:
    """A portfolio whose numbers cannot be trusted blocks (fail closed)."""
    numbers = (account.total_exposure_usdt, account.available_capital_usdt, *account.exposure_by_symbol.values())
    if all(isfinite(n) for n in numbers) and account.total_positions >= 0:
        return None
    return Block(PORTFOLIO_UNREADABLE, "exposure or capital is not a finite number")


def allocate(intent: Intent, account: Account, limits: EntryLimits, risk_score: float = 1.0) -> Allocation:
    """S4's capital: base × confidence multiplier × risk score, under the hard caps, with the $10 rule of DECISIONS 12."""
    if not all(map(isfinite, (intent.price, intent.confidence, account.available_capital_usdt, risk_score))) or intent.price <= 0:
        return Allocation(0.0, "", Block(INVALID_INPUT, f"price={intent.price}, confidence={intent.confidence}, risk_score={risk_score}"))
    wanted = (
        account.available_capital_usdt
        * limits.capital_fraction
        * (limits.conf_mult_base + limits.conf_mult_slope * intent.confidence)
        * risk_score
    )
    if wanted <= 0:
        return Allocation(
            0.0, "wanted", Block(BLOCK_INSUFFICIENT_CAPITAL, f"available={usd(account.available_capital_usdt)}, risk_score={risk_score:g}")
        )
    caps = (
        ("symbol_exposure", limits.max_exposure_per_symbol_usdt - account.exposure_by_symbol.get(intent.symbol, 0.0)),
        ("total_exposure", limits.max_total_exposure_usdt - account.total_exposure_usdt),
        ("wallet_free", account.available_capital_usdt),
    )
    name, headroom = min(caps, key=lambda c: c[1])
    if headroom < limits.min_allocation_usd:
        return Allocation(
            0.0, name, Block(BLOCK_INSUFFICIENT_CAPITAL, f"headroom={usd(headroom)} < {usd(limits.min_allocation_usd)} ({name})")
        )
    margin = min(wanted, headroom)
    return Allocation(max(margin, limits.min_allocation_usd), name if headroom < wanted else "wanted", None)


def decide(intent: Intent, account: Account, limits: EntryLimits, risk_score: float = 1.0) -> tuple[str, str, Allocation]:
    """The nine steps and the allocation: (code, numbers, allocation). Times are `intent.now_s`."""
    nothing = Allocation(0.0, "", None)
    for check in FIRST:
        if block := check(intent, account, limits, 0.0):
            return block.code, block.numbers, nothing
    if block := readable(account):
        return block.code, block.numbers, nothing
    allocation = allocate(intent, account, limits, risk_score)
    if allocation.block and allocation.block.code == INVALID_INPUT:
        return allocation.block.code, allocation.block.numbers, allocation
    margin = intent.price * intent.quantity / intent.leverage if intent.quantity > 0 else allocation.margin_usd
    for check in CHECKS[len(FIRST) :]:
        if block := check(intent, account, limits, margin):
            return block.code, block.numbers, allocation
    if allocation.block:
        return allocation.block.code, allocation.block.numbers, allocation
    code = ALLOW_SCALE_IN if account.positions_by_symbol.get(intent.symbol) else ALLOW_NEW_ENTRY
    return (
        code,
        (
            f"confidence={intent.confidence:.2f}, exposure_after={usd(account.total_exposure_usdt + margin)}, "
            f"positions_after={account.total_positions + 1}"
        ),
        allocation,
    )


def decision_line(symbol: str, code: str, numbers: str) -> str:
    """S4's log line of a decision."""
    return f"{'✅' if code in ALLOWED else '🚫'} ENTRY_POLICY_DECISION | {symbol} | decision={code} | {numbers}"


def blocked_line(code: str, numbers: str) -> str:
    """S4's log line of a refusal."""
    return f"🚫 Entry blocked: {code} | {numbers}"


def approved_line(code: str, qty: float, numbers: str) -> str:
    """S4's log line of an approval with its size."""
    return f"✅ Policy approved: {code} | qty={qty} | {numbers}"


def allocation_line(
    symbol: str, margin_usd: float, cap_usd: float, available_usd: float, qty: float, price: float, leverage: float, lot: float
) -> str:
    """S4's log line of an allocation.

    >>> allocation_line("BTCUSDT", 500, 1000, 4500, 0.1, 50000, 10, 0.001)
    '💰 CAPITAL_ALLOCATION | BTCUSDT | allocated=$500 (cap=$1000, avail=$4500) | qty=0.100 @ $50000 | lev=10x'
    """
    places = max(0, -(exactly(lot).normalize().as_tuple().exponent)) if lot else 3  # type: ignore[operator]
    return (
        f"💰 CAPITAL_ALLOCATION | {symbol} | allocated={usd(margin_usd)} (cap={usd(cap_usd)}, avail={usd(available_usd)}) | "
        f"qty={qty:.{places}f} @ {usd(price)} | lev={leverage:g}x"
    )


def intent_of(wish: Intent | Mapping) -> Intent:
    """S4's plain-dict intent as a value: `entry_price` or `price`, `timestamp` in seconds."""
    if isinstance(wish, Intent):
        return wish
    price = wish.get("entry_price")
    return Intent(
        str(wish["symbol"]).upper(),
        str(wish["side"]).upper(),
        float(wish["confidence"]),
        float(wish.get("price", 0.0) if price is None else price),
        wish.get("timestamp"),
        float(wish.get("quantity") or 0.0),
        str(wish.get("regime") or "unknown"),
        float(wish.get("leverage") or 1.0),
    )


class ExecutionPolicy:
    """S4's one class through which every entry goes; the Desk and its tests call the same functions."""

    def __init__(
        self, limits: EntryLimits, instruments: Mapping[str, Instrument] | None = None, log: Callable[[str], object] | None = None
    ):
        self.limits = limits
        self.instruments = instruments or {}
        self.log = log or (lambda line: None)

    def allow_new_entry(self, intent: Intent | Mapping, portfolio: Account | None) -> tuple[str, str]:
        """(decision, reason) of S4's nine steps; a portfolio that cannot be read blocks."""
        wish = intent_of(intent)
        if portfolio is None:
            code, numbers = PORTFOLIO_UNREADABLE, "no portfolio"
        else:
            code, numbers, _ = decide(wish, portfolio, self.limits)
            if (
                code == BLOCK_INSUFFICIENT_CAPITAL and wish.quantity > 0
            ):  # the size is given: whether capital is there is compute_order_size's word
                code = ALLOW_SCALE_IN if portfolio.positions_by_symbol.get(wish.symbol) else ALLOW_NEW_ENTRY
        self.log(decision_line(wish.symbol, code, numbers))
        return code, numbers

    def compute_order_size(self, intent: Intent | Mapping, portfolio: Account, risk_score: float = 1.0) -> float:
        """The quantity in base units, rounded down to the lot; 0 with BLOCK_INSUFFICIENT_CAPITAL logged where capital is missing."""
        wish = intent_of(intent)
        given = allocate(wish, portfolio, self.limits, risk_score)
        if given.block:
            self.log(decision_line(wish.symbol, given.block.code, given.block.numbers))
            return 0.0
        instrument = self.instruments.get(wish.symbol)
        lot = instrument.lot if instrument else 0.0
        qty = round_down(given.margin_usd * wish.leverage / wish.price, lot)
        self.log(
            allocation_line(
                wish.symbol,
                given.margin_usd,
                self.limits.max_exposure_per_symbol_usdt,
                portfolio.available_capital_usdt,
                qty,
                wish.price,
                wish.leverage,
                lot,
            )
        )
        return qty
