"""Every number that the engine is told, as frozen structs without defaults: the values stand in `config/default.yaml`.

Ranges are part of the type, so that a wrong value is refused at the border with its key and what was expected.
"""
from collections.abc import Mapping
from typing import Annotated, Literal, Protocol

from msgspec import Meta, Struct, structs

from engine.sizing.curve import Curve

Fraction = Annotated[float, Meta(ge=0, le=1)]
Positive = Annotated[float, Meta(gt=0)]
NonNegative = Annotated[float, Meta(ge=0)]
Count = Annotated[int, Meta(ge=0)]
Many = Annotated[int, Meta(ge=1)]


class Instrument(Struct, frozen=True):
    """What a venue says of a symbol: sizes in quote and base units, fees as fractions of the notional (negative: rebate)."""
    tick: Positive
    lot: Positive
    min_qty: NonNegative
    min_notional_usd: NonNegative
    maker_fee: float
    taker_fee: float
    maintenance_margin_rate: Fraction


class EntryLimits(Struct, frozen=True):
    """S4's eleven limits, and the confidence multiplier of the capital allocation."""
    max_open_positions_total: Count
    max_open_positions_per_symbol: Count
    max_open_positions_per_regime: Count
    max_total_exposure_usdt: NonNegative
    max_exposure_per_symbol_usdt: NonNegative
    allow_scale_in: bool
    scale_in_max_count: Count
    scale_in_confidence_delta: NonNegative
    cooldown_seconds_per_symbol: NonNegative
    cooldown_seconds_global: NonNegative
    min_confidence: Fraction
    conf_mult_base: float
    conf_mult_slope: float
    capital_fraction: Fraction
    min_allocation_usd: NonNegative


class DeskSettings(Struct, frozen=True):
    """The account and how its orders are worked."""
    name: str
    collateral: str
    equity_usd: Positive
    risk_score: Annotated[float, Meta(ge=0, le=2)]
    entry_ttl_ms: Many
    max_signal_age_ms: Many
    max_holding_ms: Many
    cancel_timeout_ms: Many


class SizeCaps(Struct, frozen=True):
    """S0's caps under its own names; what was SOL there is USD of margin here, what was a pool's liquidity is the visible book's.

    `perNameCapMaxUsd`, `dailySpendCapPct`, `dailySpendCapUsd`, `perMintCapUsd`: 0 is no cap.
    """
    perNameCapFraction: NonNegative
    perNameCapMaxUsd: NonNegative
    lpImpactCapFraction: NonNegative
    flowCapFraction: NonNegative
    flowTradesPer5m: NonNegative
    flowCapMinUsd: NonNegative
    dailySpendCapPct: NonNegative
    dailySpendCapUsd: NonNegative
    perMintCapUsd: NonNegative


class CollateralPrice(Struct, frozen=True):
    """The instrument whose middle is the price of `desk.collateral` in USD, how old that may be, and what stands in for it (0: nothing)."""
    symbol: str
    priceHintUsd: NonNegative
    maxAgeMs: Count


class RiskScaling(Struct, frozen=True):
    """The clamps of S0's three risk factors."""
    rugWeight: NonNegative
    rugFloor: Fraction
    pFillTarget: Annotated[float, Meta(gt=0, le=1)]
    pFillFloor: Fraction
    slipFreeBps: Positive
    slipMaxBps: Positive
    slipFloor: Fraction
    minMultiplier: Fraction


class TailModel(Struct, frozen=True):
    """The tail-risk estimate: Student's t of so many degrees, a share of the realised volatility, its floor, and what thinness adds."""
    degrees: Annotated[int, Meta(ge=1, le=60)]
    scale: Positive
    floorBps: NonNegative
    thinWeight: NonNegative
    thinMax: NonNegative


class Sizing(Struct, frozen=True):
    """S1's order size, S0's caps on it, and what risk leaves of it. `fill_curve`: a fitted curve's file, the folder of a
    FillModelV1, or `formula` for S1's own.
    """
    leverage: Positive
    notional_cap_usd: NonNegative
    use_all_in: bool
    min_free_balance_usd: NonNegative
    lot_size_rounding: Literal["floor"]
    caps: SizeCaps
    collateral: CollateralPrice
    risk: RiskScaling
    tail: TailModel
    fill_curve: str


class Venue(Struct, frozen=True):
    """Which venue, and how orders are sent to it.

    Every `reconcile_ms` it is asked what stands, and the desk compares; an order without its word for `unknown_after_ms` is asked
    about by id and, until the venue has answered, unknown.
    """
    mode: Literal["paper", "real"]
    venue: Literal["sim", "recording", "bybit_v5"]
    maker_only: bool
    reduce_only: bool
    post_only: bool
    reconcile_ms: Many
    unknown_after_ms: Many


class WarmUp(Struct, frozen=True):
    """Whether and how long (market time) a symbol's market must have run, without a gap, before anything is entered on it."""
    enabled: bool
    seconds: NonNegative


class Backpressure(Struct, frozen=True):
    """What the desk does while more than `max_queue_len` records wait for it or are in its hands.

    `halt` refuses every entry, `degrade` asks more of each level of the ladder, until the depth has recovered.
    """
    enabled: bool
    max_queue_len: Many
    drop_mode: Literal["halt", "degrade"]


class FailSafe(Struct, frozen=True):
    """Whether a CRIT sends the desk to paper, and for how long; which firing alerts of a Prometheus are one, and how often it is asked."""
    switch_to_paper_on_crit: bool
    cooldown_minutes: NonNegative
    prometheus_url: str
    alerts: list[str]
    poll_ms: Many


class NearLiquidation(Struct, frozen=True):
    """An entry is refused whose liquidation price is nearer than so many times the assumed distance of its stop."""
    enabled: bool
    sl_buffer_multiplier: NonNegative


class Risk(Struct, frozen=True):
    """S1's halts. A limit of zero is off.

    The loss cap counts realised results of the UTC day, whatever its sign; precision is the share of won entries among the last
    `precision_window`; volatility is the feature `sigma` (bps of ten seconds), halted above the ceiling and resumed at or below `resume`.
    """
    daily_loss_cap_usd: float
    loss_streak_max: Count
    session_cooldown_minutes: NonNegative
    assumed_sl_pct: NonNegative
    near_liq_guard: NearLiquidation
    precision_window: Many
    precision_floor: Fraction
    volatility_ceiling_bps: NonNegative
    volatility_resume_bps: NonNegative


class LiquidityBySide(Struct, frozen=True):
    """`alpha` times the order may be no more than what the first `levels` of its own side show."""
    enabled: bool
    alpha: NonNegative
    levels: Annotated[int, Meta(ge=1, le=10)]


class Gates(Struct, frozen=True):
    """What the book must show before an order joins it."""
    liquidity_by_side: LiquidityBySide


class Controls(Struct, frozen=True):
    """What no entry may be, whatever its signal says. A limit of zero is off.

    The collar is the distance from the middle of the touch; the value is that of all levels together; the rate counts every order
    sent in the last second and minute of market time, and stops entries only.
    """
    not_tradable: list[str]
    max_book_age_ms: Count
    price_collar_bps: NonNegative
    max_order_value_usd: NonNegative
    max_orders_per_second: Count
    max_orders_per_minute: Count


class Ladder(Struct, frozen=True):
    """How an entry is spread over prices: the shares of its levels from the first on, 1 in all, and the ticks between
    two of them.

    A level whose fill probability is below `min_fill_probability` is left out, with its quantity.
    """
    fractions: list[Fraction]
    step_ticks: Count
    min_fill_probability: Fraction


class FillProb(Struct, frozen=True):
    """S2's gate: which model judges an order, from which probability on it passes, and when the breaker steps in. Basis points.

    Folders are the project's unless they are absolute; an empty one is unset. `eval_max_age_hours` stays text, so that what is no number of
    hours is a reason of the resolver and not of the start.
    """
    model_dir: str
    model_enabled: bool
    enforce: bool
    enforce_symbols: list[str]
    min_bps: Annotated[int, Meta(ge=0, le=10_000)]
    eval_dir: str
    auto_threshold: bool
    eval_max_age_hours: str
    evidence: bool
    artifact_dir: str
    cb_window_seconds: Many
    cb_max_block_rate_pct: Annotated[int, Meta(ge=0, le=100)]
    cb_min_samples: Many


class Markout(Struct, frozen=True):
    """Over how many fills the markouts of a route are averaged, and how late a fill may be told."""
    window: Many
    late_ms: Count


class Matching(Struct, frozen=True):
    """The local exchange's treatment of own orders.

    `latency_ms` from decision to the book; `queue_ahead` the share of the visible size at a level that stands before a
    new order; `through_fills`: a trade strictly through the price fills whatever stood before it.
    """
    latency_ms: Count
    queue_ahead: Fraction
    through_fills: bool


class Triggers(Struct, frozen=True):
    """When a candidate is proposed, and where its stop and target stand (in bps of the entry price)."""
    imbalance: Fraction
    ofi_z: NonNegative
    cooldown_ms: Many
    warm_events: Many
    target_bps: Positive
    stop_bps: Positive
    sigma_multiple: NonNegative


class Windows(Struct, frozen=True):
    """Trailing windows of the features, in ms of market time."""
    fast_ms: Many
    slow_ms: Many
    sigma_ms: Many
    spike_ms: Many
    gap_ms: Many


class Cleaning(Struct, frozen=True):
    """What market data are refused for: a print further than `off_market_bps` outside the touch is no market trade."""
    off_market_bps: Positive


class Regimes(Struct, frozen=True):
    """The trailing range over the last hour (bps) that separates normal, event and high_vol."""
    window_ms: Many
    event_bps: Positive
    high_vol_bps: Positive


class Labels(Struct, frozen=True):
    """Triple barrier: net of fees, conditional on the paper venue's fill of the entry."""
    horizon_ms: Many
    fill_within_ms: Many
    embargo_ms: Count
    test_fraction: Fraction
    calibration_fraction: Fraction


class Training(Struct, frozen=True):
    """How a model is trained; without an archive on so many hours of a simulated market of its own seed."""
    seed: int
    simulated_hours: Positive
    trees: Many
    leaves: Many
    learning_rate: Positive
    min_leaf_rows: Many
    feature_fraction: Fraction
    early_stopping: Count
    min_rows: Many
    tau_entry: Fraction
    tau_hold: Fraction


class Shadow(Struct, frozen=True):
    """Scoring by a second model beside the active one."""
    enabled: bool
    use_threshold_from_meta: bool
    tau_entry: Annotated[float, Meta(ge=0, le=1)] | None
    tau_hold: Annotated[float, Meta(ge=0, le=1)] | None


class Flags(Struct, frozen=True):
    """S0's three switches."""
    flowCapRewrite: bool
    constrainedRiskScaling: bool
    orderIdRewardMatching: bool


class RewardSettings(Struct, frozen=True):
    """What an order's end is worth to the arm that shaped it, and how long a choice waits for it."""
    pending_expiry_ms: Many
    jitter_ms: Count
    max_pending: Many
    form: Literal["net", "slippage"]
    scale_bps: Positive
    unfilled_bps: NonNegative
    slippage_scale_bps: Positive
    slippage_unfilled: Annotated[float, Meta(ge=-1, le=1)]


class BanditSettings(Struct, frozen=True):
    """LinUCB over execution arms; an arm is its id: o<ticks behind the touch>-s<percent of the size>-p<seconds of patience>."""
    enabled: bool
    arm: str
    arms: list[str]
    seed: int
    alpha: Annotated[float, Meta(ge=0)] | None
    epsilon_floor: Annotated[float, Meta(ge=0.02, le=1)]
    smoothing: Annotated[float, Meta(ge=0, lt=1)]
    invert_every: Many


class RolloutSeed(Struct, frozen=True):
    """The rollout mode of an empty ledger; from then on it is a fact."""
    mode: Literal["disabled", "canary", "full"]
    canary_fraction: Fraction
    rng_seed: int


Triple = Annotated[list[float], Meta(min_length=3, max_length=3)]


class MarketModel(Struct, frozen=True):
    """One symbol of the simulated market, in the units of the recordings; triples are calm, event, high_vol.

    What each number was fitted to stands in `config/market.yaml`, what it does in `docs/market.md`.
    """
    start_price: Positive
    opening: Literal["calm", "event", "high_vol"]
    books_s: Positive
    orders_s: Positive
    sigma_bps_hour: Triple
    sojourn_s: Triple
    activity: Triple
    transitions: list[Triple]
    vol_fast: NonNegative
    vol_fast_tau_s: Positive
    vol_slow: NonNegative
    vol_slow_tau_s: Positive
    jumps_s: NonNegative
    jump_sigmas: NonNegative
    alpha_tau_s: Positive
    drift: NonNegative
    tilt: NonNegative
    sticky_bps: NonNegative
    follow: Fraction
    spread_ticks: NonNegative
    spread_sigmas: NonNegative
    touch_kusd: Positive
    touch_spread: NonNegative
    deep_kusd: Positive
    deep_spread: NonNegative
    occupied: Fraction
    growth: NonNegative
    refresh: Fraction
    trade_kusd: Positive
    trade_spread: NonNegative
    prints: Annotated[float, Meta(ge=1, le=10)]
    excite: NonNegative
    heat_tau_s: Positive
    snipe: NonNegative
    toxicity: NonNegative
    lean: NonNegative
    persist: NonNegative
    impact: NonNegative


class Mind(Protocol):
    """What a Desk is told of the settings; `config.settings.Settings` is one."""

    @property
    def desk(self) -> DeskSettings: ...
    @property
    def policy(self) -> EntryLimits: ...
    @property
    def sizing(self) -> Sizing: ...
    @property
    def venue(self) -> Venue: ...
    @property
    def features(self) -> Flags: ...
    @property
    def rollout(self) -> RolloutSeed: ...
    @property
    def windows(self) -> Windows: ...
    @property
    def risk(self) -> Risk: ...
    @property
    def gates(self) -> Gates: ...
    @property
    def controls(self) -> Controls: ...
    @property
    def warmup(self) -> WarmUp: ...
    @property
    def backpressure(self) -> Backpressure: ...
    @property
    def fail_safe(self) -> FailSafe: ...
    @property
    def ladder(self) -> Ladder: ...
    @property
    def fill_prob(self) -> FillProb: ...
    @property
    def rewards(self) -> RewardSettings: ...
    @property
    def bandit(self) -> BanditSettings: ...
    @property
    def symbols(self) -> Mapping[str, Instrument]: ...
    @property
    def curve(self) -> Curve | None: ...
    @property
    def fill_model(self) -> str: ...


class Wired(Struct, frozen=True):
    """The same as a value of its own, as the journal keeps it: by these settings a re-run decides from here on."""
    desk: DeskSettings
    policy: EntryLimits
    sizing: Sizing
    venue: Venue
    features: Flags
    rollout: RolloutSeed
    windows: Windows
    risk: Risk
    gates: Gates
    controls: Controls
    warmup: WarmUp
    backpressure: Backpressure
    fail_safe: FailSafe
    ladder: Ladder
    fill_prob: FillProb
    rewards: RewardSettings
    bandit: BanditSettings
    symbols: dict[str, Instrument]
    curve: Curve | None
    fill_model: str

    @classmethod
    def of(cls, mind: Mind) -> "Wired":
        """What a Desk of these settings is told; where a Prometheus is (its address may carry a password) is none of its business."""
        told = {name: getattr(mind, name) for name in cls.__struct_fields__}
        return cls(**told | {"symbols": dict(mind.symbols), "fail_safe": structs.replace(mind.fail_safe, prometheus_url="")})
