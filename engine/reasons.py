"""Every coded yes and no, a row each: the code, who says it, what it means, and the settings that move it.

A refusal carries one of these codes and the numbers behind it (`a=1 > b=2`). `docs/reasons.md` is generated from `TABLE`; the labels of
`signals_dropped_total`, `policy_decisions_total` and `orders_refused_total` are cut from it.
"""
from typing import NamedTuple

# S4's decisions
ALLOW_NEW_ENTRY = "ALLOW_NEW_ENTRY"
ALLOW_SCALE_IN = "ALLOW_SCALE_IN"
BLOCK_LOW_CONFIDENCE = "BLOCK_LOW_CONFIDENCE"
BLOCK_COOLDOWN = "BLOCK_COOLDOWN"
BLOCK_MAX_POSITIONS = "BLOCK_MAX_POSITIONS"
BLOCK_MAX_EXPOSURE = "BLOCK_MAX_EXPOSURE"
BLOCK_EXISTING_POSITION = "BLOCK_EXISTING_POSITION"
BLOCK_SCALE_IN_RULE = "BLOCK_SCALE_IN_RULE"
BLOCK_REGIME_RULE = "BLOCK_REGIME_RULE"
BLOCK_INSUFFICIENT_CAPITAL = "BLOCK_INSUFFICIENT_CAPITAL"

# the desk itself
HALTED = "halted"
STALE_SIGNAL = "stale_signal"
NO_MARKET = "no_market"
BELOW_TAU = "below_tau_entry"
SCHEMA_MISMATCH = "schema_mismatch"
DUPLICATE = "duplicate"
INVALID_INPUT = "invalid_input"
PORTFOLIO_UNREADABLE = "portfolio_unreadable"

# size and ladder
QTY_ZERO = "qty_zero"
BELOW_MINIMUM = "below_exchange_minimum"
NO_AVAILABLE_SIZE = "no_available_size"
RISK_SCALED_ZERO = "risk_scaled_zero"
LOW_FILL_PROBABILITY = "low_fill_probability"

# admission
WARM_UP = "warm_up"
BACKPRESSURE = "backpressure"

# guards: what the account or the market has done
DAILY_CAP = "daily_cap"
STREAK_HALT = "streak_halt"
PRECISION_HALT = "precision_halt"
VOLATILITY_HALT = "volatility_halt"
NEAR_LIQUIDATION = "near_liquidation"
NEAR_LIQUIDATION_SHORT = "near_liquidation_short"
LIQUIDITY_INSUFFICIENT = "liquidity_insufficient"
MIN_FREE_BALANCE = "min_free_balance"

# the fill-probability gate
FILL_PROB_LOW = "FILL_PROB_LOW"

# pre-trade controls: what no order may be, whatever the signal says
NOT_TRADABLE = "not_tradable"
STALE_DATA = "stale_data"
PRICE_COLLAR = "price_collar"
MAX_ORDER_VALUE = "max_order_value"
MAX_ORDER_RATE = "max_order_rate"
REDUCE_ONLY_VIOLATION = "reduce_only_violation"

# why the venue or the executor refused
POST_ONLY_WOULD_CROSS = "post_only_would_cross"
REDUCE_ONLY_WOULD_OPEN = "reduce_only_would_open"
DUPLICATE_ORDER = "duplicate_order_id"
BAD_TICK_OR_LOT = "bad_tick_or_lot"
BELOW_MIN_NOTIONAL = "below_min_notional"
NO_BOOK = "no_book"
NOT_FOUND = "order_not_found"
IOC_UNFILLED = "ioc_unfilled"
REQUESTED = "requested"
STALE_EPOCH = "stale_epoch"
VENUE_UNREACHABLE = "venue_unreachable"
NOT_ARRIVED = "not_arrived"
OTHER_VENUE = "other_venue"

# why nobody is paid for an outcome, or a choice cannot wait for one
UNMATCHED_ORDER_ID = "unmatched_order_id"
NO_PENDING = "no_pending"
PENDING_FULL = "pending_full"

POLICY, DESK, SIZE, ADMISSION, GUARD, GATE, CONTROL, EXIT, VENUE, EXECUTOR, REWARDS = (
    "policy", "desk", "size", "admission", "guard", "gate", "control", "exit", "venue", "executor", "rewards")
SAYS = {
    POLICY: "S4's nine checks (`engine/policy.py`)",
    DESK: "the Desk, before or after the policy (`engine/desk.py`)",
    SIZE: "sizing and the ladder (`engine/sizing/`, `engine/execution/ladder.py`)",
    ADMISSION: "the gates in front of the Desk (`engine/execution/admission.py`)",
    GUARD: "guards on what the account and the market have done (`engine/guards.py`)",
    GATE: "the fill-probability gate on an entry that has its size (`engine/fillprob/gate.py`)",
    CONTROL: "pre-trade controls on the order itself (`engine/guards.py`)",
    EXIT: "pre-trade control on a closing order (`engine/guards.py`)",
    VENUE: "the venue, in its report",
    EXECUTOR: "the executor, in the venue's place",
    REWARDS: "the attribution of rewards to choices (`engine/rewards/queue.py`)",
}


class Reason(NamedTuple):
    """A row: `settings` are the keys of `config/default.yaml` that move it."""
    code: str
    who: str
    meaning: str
    settings: tuple[str, ...] = ()


TABLE = (
    Reason(ALLOW_NEW_ENTRY, POLICY, "the first entry of its symbol"),
    Reason(ALLOW_SCALE_IN, POLICY, "an addition to a symbol that has entries"),
    Reason(BLOCK_LOW_CONFIDENCE, POLICY, "the probability is below the minimum, or is none", ("policy.min_confidence",)),
    Reason(BLOCK_COOLDOWN, POLICY, "too soon after an entry of the symbol, or of any",
           ("policy.cooldown_seconds_per_symbol", "policy.cooldown_seconds_global")),
    Reason(BLOCK_MAX_POSITIONS, POLICY, "as many entries are live as may be",
           ("policy.max_open_positions_total", "policy.max_open_positions_per_symbol")),
    Reason(BLOCK_MAX_EXPOSURE, POLICY, "the margin of the symbol or of the account is used up",
           ("policy.max_total_exposure_usdt", "policy.max_exposure_per_symbol_usdt")),
    Reason(BLOCK_EXISTING_POSITION, POLICY, "the symbol has an entry and scaling in is off", ("policy.allow_scale_in",)),
    Reason(BLOCK_SCALE_IN_RULE, POLICY, "an addition of another direction, one too many, or not confident enough",
           ("policy.scale_in_max_count", "policy.scale_in_confidence_delta")),
    Reason(BLOCK_REGIME_RULE, POLICY, "as many entries of this regime are live as may be", ("policy.max_open_positions_per_regime",)),
    Reason(BLOCK_INSUFFICIENT_CAPITAL, POLICY, "less capital is left than the smallest allocation", ("policy.min_allocation_usd",)),
    Reason(HALTED, DESK, "a kill is in force"),
    Reason(STALE_SIGNAL, DESK, "the score came too late", ("desk.max_signal_age_ms",)),
    Reason(NO_MARKET, DESK, "no touch of the symbol is known"),
    Reason(BELOW_TAU, DESK, "below the model's own threshold", ("training.tau_entry",)),
    Reason(SCHEMA_MISMATCH, DESK, "scored on other features than the model knows"),
    Reason(DUPLICATE, DESK, "this id has been decided"),
    Reason(INVALID_INPUT, DESK, "a number that is none"),
    Reason(PORTFOLIO_UNREADABLE, DESK, "the account cannot be read"),
    Reason(QTY_ZERO, SIZE, "what may be bought rounds down to no lot"),
    Reason(BELOW_MINIMUM, SIZE, "below the venue's smallest quantity or value; dropped, never lifted"),
    Reason(NO_AVAILABLE_SIZE, SIZE, "a cap of the sizing table leaves nothing", ("sizing.caps",)),
    Reason(RISK_SCALED_ZERO, SIZE, "what risk leaves is less than a lot, or than the venue takes",
           ("features.constrainedRiskScaling", "sizing.risk")),
    Reason(LOW_FILL_PROBABILITY, SIZE, "no level of the ladder is likely enough to be filled", ("ladder.min_fill_probability",)),
    Reason(WARM_UP, ADMISSION, "the symbol's market is too young, or had a gap", ("warmup.enabled", "warmup.seconds")),
    Reason(BACKPRESSURE, ADMISSION, "more is waiting than may wait, and the mode is to drop",
           ("backpressure.enabled", "backpressure.max_queue_len", "backpressure.drop_mode")),
    Reason(DAILY_CAP, GUARD, "the day's realised loss has reached its cap; until midnight UTC", ("risk.daily_loss_cap_usd",)),
    Reason(STREAK_HALT, GUARD, "so many losses in a row; until the cool-down is over",
           ("risk.loss_streak_max", "risk.session_cooldown_minutes")),
    Reason(PRECISION_HALT, GUARD, "too few of the last entries won; until the cool-down is over",
           ("risk.precision_floor", "risk.precision_window", "risk.session_cooldown_minutes")),
    Reason(VOLATILITY_HALT, GUARD, "the symbol moves more than the desk trades in; until it is calm again",
           ("risk.volatility_ceiling_bps", "risk.volatility_resume_bps")),
    Reason(NEAR_LIQUIDATION, GUARD, "a long's liquidation price is nearer than its stop with the buffer",
           ("risk.near_liq_guard.enabled", "risk.near_liq_guard.sl_buffer_multiplier", "risk.assumed_sl_pct")),
    Reason(NEAR_LIQUIDATION_SHORT, GUARD, "a short's, likewise",
           ("risk.near_liq_guard.enabled", "risk.near_liq_guard.sl_buffer_multiplier", "risk.assumed_sl_pct")),
    Reason(LIQUIDITY_INSUFFICIENT, GUARD, "the own side of the book shows too little beside the order",
           ("gates.liquidity_by_side.enabled", "gates.liquidity_by_side.alpha", "gates.liquidity_by_side.levels")),
    Reason(MIN_FREE_BALANCE, GUARD, "less than this is free", ("sizing.min_free_balance_usd",)),
    Reason(FILL_PROB_LOW, GATE, "the predicted fill probability is below the threshold in force",
           ("fill_prob.enforce", "fill_prob.enforce_symbols", "fill_prob.min_bps", "fill_prob.auto_threshold")),
    Reason(NOT_TRADABLE, CONTROL, "the symbol is on the list of those that are not traded", ("controls.not_tradable",)),
    Reason(STALE_DATA, CONTROL, "the last book is older than an order may rely on", ("controls.max_book_age_ms",)),
    Reason(PRICE_COLLAR, CONTROL, "the price is further from the market than an order's may be", ("controls.price_collar_bps",)),
    Reason(MAX_ORDER_VALUE, CONTROL, "the entry is worth more than one may be", ("controls.max_order_value_usd",)),
    Reason(MAX_ORDER_RATE, CONTROL, "as many orders were sent lately as may be",
           ("controls.max_orders_per_second", "controls.max_orders_per_minute")),
    Reason(REDUCE_ONLY_VIOLATION, EXIT, "a closing order that would close more than is held"),
    Reason(POST_ONLY_WOULD_CROSS, VENUE, "a maker's order that would have taken"),
    Reason(REDUCE_ONLY_WOULD_OPEN, VENUE, "nothing is left to reduce"),
    Reason(DUPLICATE_ORDER, VENUE, "an order of this id is known; the request changes nothing"),
    Reason(BAD_TICK_OR_LOT, VENUE, "not a whole number of ticks or lots"),
    Reason(BELOW_MIN_NOTIONAL, VENUE, "below the venue's smallest quantity or value"),
    Reason(NO_BOOK, VENUE, "no market to trade in"),
    Reason(NOT_FOUND, VENUE, "no such order is open; the request changes nothing"),
    Reason(IOC_UNFILLED, VENUE, "a market order's rest that found nothing"),
    Reason(REQUESTED, VENUE, "taken back as asked"),
    Reason(STALE_EPOCH, EXECUTOR, "an entry that was decided under a rollout that is over: a later epoch has been heard of"),
    Reason(VENUE_UNREACHABLE, EXECUTOR, "handed over, and no answer came: unknown until asked about"),
    Reason(NOT_ARRIVED, EXECUTOR, "the venue never had it, and it is too late to send it now"),
    Reason(OTHER_VENUE, EXECUTOR, "decided against a venue whose memory is gone"),
    Reason(UNMATCHED_ORDER_ID, REWARDS, "an outcome's order id is not known, or has been paid", ("features.orderIdRewardMatching",)),
    Reason(NO_PENDING, REWARDS, "an outcome without an id, and no choice of its symbol waits"),
    Reason(PENDING_FULL, REWARDS, "as many choices wait for a reward as may", ("rewards.max_pending",)),
)


def said_by(*who: str) -> tuple[str, ...]:
    """The codes of these, in the table's order."""
    return tuple(r.code for r in TABLE if r.who in who)


ALLOWED = (ALLOW_NEW_ENTRY, ALLOW_SCALE_IN)
DECISIONS = said_by(POLICY)
BLOCKS = tuple(code for code in DECISIONS if code not in ALLOWED)
DROPS = BLOCKS + said_by(DESK, SIZE, ADMISSION, GUARD, GATE, CONTROL)
REFUSALS = said_by(EXIT, VENUE, EXECUTOR)
UNPAID = said_by(REWARDS)
