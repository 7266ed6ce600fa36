"""Every series, declared once: kind, name, help, closed label sets.

The exporter, the alerts, the dashboards and `docs/metrics.md` import these objects, so that a phantom metric is an
ImportError and a phantom label a LookupError. `str(series)` is its name; `series(route="paper")` a PromQL selector.
"""

from dataclasses import dataclass, field
from typing import Protocol

from engine import reasons
from engine.execution.admission import BEGUN, CLEARED, DEGRADE, HALT, ORDERED, PAPER, REAL
from engine.execution.ladder import BUCKETS
from engine.execution.reconcile import KINDS as MISMATCHES
from engine.facts import CAUSES, STATUSES
from engine.rewards.queue import MISSES, MODES, REFUSALS
from engine.sizing.caps import NAMES as CAPS
from engine.sizing.collateral import SOURCES as PRICE_SOURCES
from engine.sizing.risk import FACTORS

SYMBOL = ("*",)  # filled with the configured symbols when the exporter starts
SERVICES = ("exchange", "collector", "signal_engine", "ai_scorer", "risk", "executor", "supervisor", "api")
STAGES = ("collector", "signal_engine", "ai_scorer", "risk", "executor", "supervisor")
ROUTES = ("paper", "canary", "full")
ARM = ("o0-s100-p20…",)  # filled with the configured execution arms when the exporter starts
ANY = ("?",)  # open: a model's id, a topic


@dataclass(frozen=True)
class Series:
    """One declared series; labels map each name to its closed set of values."""

    kind: str
    name: str
    help: str
    labels: dict[str, tuple[str, ...]] = field(default_factory=dict)
    buckets: tuple[float, ...] = ()

    def __str__(self) -> str:
        return self.name

    def __hash__(self) -> int:
        return hash(self.name)

    def __call__(self, **labels: str) -> str:
        """A PromQL selector; `LookupError` for a label or value that the series cannot have."""
        for key, value in labels.items():
            if key not in self.labels:
                raise LookupError(f"{self.name} has no label {key}; it has {', '.join(self.labels) or 'none'}")
            if self.labels[key] not in (SYMBOL, ARM, ANY) and value not in self.labels[key]:
                raise LookupError(f"{self.name}: {key} is never {value!r}; it is one of {', '.join(self.labels[key])}")
        return self.name + ("{" + ",".join(f'{k}="{v}"' for k, v in labels.items()) + "}" if labels else "")


class Meter(Protocol):
    """What moves series; the exporter is one, a dict in a test another."""

    def inc(self, series: Series, by: float = 1, **labels: str) -> None: ...
    def set(self, series: Series, value: float, **labels: str) -> None: ...
    def observe(self, series: Series, value: float, **labels: str) -> None: ...


def counter(name, help, **labels) -> Series:
    return Series("counter", name, help, labels)


def gauge(name, help, **labels) -> Series:
    return Series("gauge", name, help, labels)


def histogram(name, help, buckets, **labels) -> Series:
    return Series("histogram", name, help, labels, buckets)


MS = (1, 2, 5, 10, 20, 40, 80, 160, 320, 640, 1280, 2560, 5120)
BAD_TICKS = ("crossed", "non_finite", "non_positive", "unordered", "off_market", "not_a_trade", "overflow", "late", "duplicate", "unsorted")
REPAIRS = ("locked", "clock_skew", "off_tick", "off_lot")

# the stream itself
FRAMES_TOTAL = counter("frames_total", "Frames taken in", service=STAGES, symbol=SYMBOL)
MARKET_EVENTS_TOTAL = counter("market_events_total", "Market events framed by the collector", symbol=SYMBOL)
BAD_TICKS_TOTAL = counter("bad_ticks_total", "Market events refused, never traded on", symbol=SYMBOL, reason=BAD_TICKS)
REPAIRED_TICKS_TOTAL = counter("repaired_ticks_total", "Market events repaired", symbol=SYMBOL, kind=REPAIRS)
MARKET_GAPS_TOTAL = counter("market_gaps_total", "Holes in the venue's event numbers or in time", symbol=SYMBOL)
MARKET_DATA_AGE_MS = gauge("market_data_age_ms", "Wall-clock time since the last market event", symbol=SYMBOL)
CONSUMER_LAG_RECORDS = gauge("consumer_lag_records", "Records on the broker that this service has not taken", service=STAGES, topic=ANY)
STAGE_LATENCY_MS = histogram("stage_latency_ms", "Ingress of a frame to the end of this stage", MS, service=STAGES)
STAGE_ERRORS_TOTAL = counter("stage_errors_total", "Records that failed twice and were booked as errors", service=STAGES)
LOG_EPOCH_CHANGES_TOTAL = counter("log_epoch_changes_total", "A topic came back as another log", service=STAGES)
LOST_TOTAL = counter(
    "lost_on_the_way_total", "Market events, scores of them, or orders of a desk's lost life, that are not carried on",
    what=("events", "scores", "orders"),
)
LOG_HOLES_TOTAL = counter("log_holes_total", "Records missing between our mark and the log", service=STAGES)
CLOCK_JUMPS_TOTAL = counter("clock_jumps_total", "Times that the machine's clock was set by more than a second")
DISK_USED_PERCENT = gauge("disk_used_percent", "Share of the data folder's disk that is taken")
ARCHIVE_LOST_TOTAL = counter("archive_lost_total", "Market events that could not be written to the archive", symbol=SYMBOL)
PARTITIONS_READ = gauge("partitions_read", "Partitions that this worker has, where workers share them", service=STAGES)
REBALANCES_TOTAL = counter("rebalances_total", "Partitions were dealt out anew among the workers of a stage", service=STAGES)
SERVICE_READY = gauge("service_ready", "1 when the service has caught up with its topics", service=SERVICES)

# signals and scores
CANDIDATES_TOTAL = counter("candidates_total", "Candidates that the triggers proposed", symbol=SYMBOL, side=("BUY", "SELL"))
SCORES_TOTAL = counter("scores_total", "Candidates scored", symbol=SYMBOL)
SCORE_BATCH_MS = histogram("score_batch_ms", "Time of one scoring batch", (0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10))
MODEL_ACTIVE_ID = gauge("model_active_id", "1 for the model in the active slot", id=ANY)
MODEL_SHADOW_ID = gauge("model_shadow_id", "1 for the model in the shadow slot", id=ANY)
MODEL_SCORE_DISTRIBUTION = gauge(
    "model_score_distribution", "Scores of the active model, rolling", split=("online",), stat=("mean", "std", "p10", "p50", "p90")
)
SHADOW_SCORE_DISTRIBUTION = gauge(
    "shadow_score_distribution", "Scores of the shadow model, rolling", split=("online",), stat=("mean", "std", "p10", "p50", "p90")
)
SHADOW_SIGNALS_EVALUATED_TOTAL = counter("shadow_signals_evaluated_total", "Candidates that the shadow model scored")
SHADOW_SIGNALS_APPROVED_TOTAL = counter("shadow_signals_approved_total", "Candidates at or above the shadow model's tau_entry")
TAU_ENTRY_CURRENT = gauge("tau_entry_current", "Entry threshold in force", model=("active", "shadow"))
TAU_HOLD_CURRENT = gauge("tau_hold_current", "Hold threshold in force", model=("active", "shadow"))
ONNX_PARITY_FAIL_TOTAL = counter(
    "onnx_parity_fail_total", "Scores that differ from the trained model by more than 1e-6", stage=("export", "online")
)
SCHEMA_MISMATCH_TOTAL = counter("parquet_schema_version_mismatch_total", "Data or model with another feature schema")

# the desk
DECISIONS_TOTAL = counter("policy_decisions_total", "Entry decisions by S4's code", decision=reasons.DECISIONS)
DROPPED_TOTAL = counter("signals_dropped_total", "Scored signals refused", reason=reasons.DROPS)
SIZING_CAP_LIMIT_TOTAL = counter("policy_sizing_cap_limit_total", "Sizings by the cap that limited them; arm_cap: none did", cap=CAPS)
SIZING_PRICE_SOURCE_TOTAL = counter(
    "policy_sizing_sol_price_source_total", "Sizings by where the price of the collateral came from; missing: no USD cap",
    source=PRICE_SOURCES,
)
SIZING_RISK_MULTIPLIER = gauge("policy_sizing_risk_multiplier", "What risk left of the last size; 1 where it is off or took nothing")
SIZING_RISK_MULTIPLIER_SEEN = histogram(
    "policy_sizing_risk_multiplier_seen", "What risk left of each size", (0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1)
)
SIZING_FILL_CURVE_ID = gauge("policy_sizing_fill_curve_id", "1 for the fill curve in force (formula: S1's own)", id=ANY)
SIZING_RISK_SCALED_TOTAL = counter("policy_sizing_risk_scaled_total", "Sizings that a risk factor reduced", factor=FACTORS)
PLAN_NOTIONAL_USD_TOTAL = counter("policy_plan_notional_usd_total", "Notional of the planned entries", symbol=SYMBOL)
ORDERS_TOTAL = counter("orders_total", "Orders sent", cause=CAUSES)
TRADES_OPENED_TOTAL = counter("trades_opened_total", "Entries whose first fill came", route=ROUTES)
TRADES_WON_TOTAL = counter("trades_won_total", "Entries closed with a net profit", route=ROUTES)
WINRATE_ROLLING = gauge("winrate_rolling", "Share of won entries among the last 50", route=ROUTES)
EXITS_TOTAL = counter("exits_total", "Entries closed, by what closed them", cause=tuple(c for c in CAUSES if c != "entry"))
POSITION_QTY = gauge("position_qty", "Signed position, base units", symbol=SYMBOL)
EXPOSURE_USD = gauge("exposure_usd", "Margin of positions and open orders")
EQUITY_USD = gauge("equity_usd", "Start equity and realised result after fees")
REALIZED_PNL_USD = gauge("realized_pnl_usd", "Realised result after fees")
FEES_USD = gauge("fees_usd", "Fees paid")
OPEN_ORDERS = gauge("open_orders", "Orders that wait at the venue")
HALTED = gauge("halted", "1 while a kill is in force")
TRADING_STATE = gauge("trading_state", "1 for the state that the desk is in", state=("ACTIVE", "REDUCING", "HALTED"))
TWIN_ORDERS_TOTAL = counter("twin_orders_total", "Orders of the paper account beside a real one", cause=CAUSES)
TWIN_FILLS_TOTAL = counter("twin_fills_total", "Executions of the paper account beside a real one", symbol=SYMBOL)
TWIN_OUTCOMES_TOTAL = counter("twin_outcomes_total", "Paper twins of real entries that were closed", won=("true", "false"))
TWIN_RESULT_USD = gauge("twin_result_usd", "What the paper twins of real entries came to in this life of the desk, after fees")
DECISION_MS = histogram("tick_to_order_ms", "Ingress of the market event to the order built", MS)


# guards and admission
ROLLING_PRECISION = gauge("rolling_precision", "Share of won entries among the last of the desk; NaN where there is none")
DAY_RESULT_USD = gauge("day_result_usd", "Realised result after fees of the UTC day")
DAILY_CAP_TRIGGER_TOTAL = counter("daily_cap_trigger_total", "Days on which the realised loss reached its cap")
STREAK_HALT_TOTAL = counter("streak_halt_total", "Halts by a streak of losses")
PRECISION_HALT_TOTAL = counter("precision_halt_total", "Halts by too few wins")
VOLATILITY_HALT_TOTAL = counter("volatility_halt_total", "Halts of a symbol by its volatility")
WARMUP_DROP_TOTAL = counter("warmup_drop_total", "Signals refused because the symbol's market is too young", symbol=SYMBOL)
BACKPRESSURE_TOTAL = counter("backpressure_total", "Signals refused (halt), or times that the ladder was tightened (degrade)",
                             mode=(HALT, DEGRADE))
QUEUE_DEPTH = gauge("queue_depth", "Records that wait for the desk and that it has in hand, as backpressure measures them")
FAIL_SAFE = gauge("fail_safe", "1 while the desk is on paper after a CRIT")
ALARMS_READ = gauge("alarms_read", "1 while the alerts that call for the fail-safe are read (or none are to be), 0 while nobody tells them")
FAIL_SAFE_TRIGGER_TOTAL = counter("fail_safe_trigger_total", "CRITs that sent the desk to paper", reason=ANY)
MODE_SWITCH_TOTAL = counter("mode_switch_total", "Changes of the exchange mode",
                            **{"from": (PAPER, REAL), "to": (PAPER, REAL), "reason": (BEGUN, CLEARED, ORDERED)})
ORDERS_REFUSED_TOTAL = counter("orders_refused_total", "Orders that the venue, the executor or a control refused or ended",
                               reason=reasons.REFUSALS)

# the fill-probability gate, under S2's names
FILL_PROB_CHECKS_TOTAL = counter("grinder_router_fill_prob_checks_total", "Orders that the gate judged, blocked or not")
FILL_PROB_BLOCKS_TOTAL = counter("grinder_router_fill_prob_blocks_total", "Orders blocked by the fill-probability gate")
FILL_PROB_LOW_TOTAL = counter(
    "grinder_router_fill_prob_low_total", "Orders judged below the threshold, blocked or only watched: what enforcement would block")
FILL_PROB_CB_TRIPS_TOTAL = counter("grinder_router_fill_prob_cb_trips_total", "Times that the gate's circuit breaker tripped")
FILL_PROB_CB_BYPASSED_TOTAL = counter("grinder_router_fill_prob_cb_bypassed_total", "Orders that passed because the breaker was tripped")
FILL_PROB_ENFORCE_ENABLED = gauge("grinder_router_fill_prob_enforce_enabled", "1 where orders of a low fill probability are blocked")
FILL_PROB_ENFORCE_ALLOWLIST_ENABLED = gauge(
    "grinder_router_fill_prob_enforce_allowlist_enabled", "1 where only listed symbols are enforced")
FILL_PROB_AUTO_THRESHOLD_BPS = gauge(
    "grinder_router_fill_prob_auto_threshold_bps", "Threshold that the evaluation recommends; 0: not asked for, or not resolved")
FILL_PROB_EFFECTIVE_THRESHOLD_BPS = gauge("grinder_router_fill_prob_effective_threshold_bps", "Threshold in force")
FILL_PROB_PHASE = gauge(
    "grinder_router_fill_prob_phase", "What the gate saw under the model, threshold and switch in force, over restarts; window_…: lately",
    what=("market_seconds", "checks", "blocks", "low", "bypassed", "trips", "window_checks", "window_blocks"))
FILL_PROB_BPS_LAST = gauge("grinder_ml_fill_prob_bps_last", "Fill probability of the last order that was judged")
FILL_MODEL_LOADED = gauge("grinder_ml_fill_model_loaded", "1 where the gate has a model")
LIVE_ENGINE_INITIALIZED = gauge("grinder_live_engine_initialized", "1 where a desk with the gate decides in this process")

# rewards
REWARD_MATCH_TOTAL = counter("policy_reward_match_total", "Rewards attributed to a choice, by how it was found", mode=MODES)
REWARD_MATCH_MISS_TOTAL = counter("policy_reward_match_miss_total", "Outcomes that no choice is paid for", reason=MISSES)
REWARD_PENDING_REFUSED_TOTAL = counter("policy_pending_refused_total", "Choices that cannot wait for their reward", reason=REFUSALS)
PENDING_SELECTIONS = gauge("policy_pending_selections", "Choices that wait for what becomes of their order")
BANDIT_CHOICES_TOTAL = counter("bandit_choices_total", "Orders shaped by this arm", arm=ARM)
BANDIT_REWARDS_TOTAL = counter("bandit_rewards_total", "Rewards that the arm has learned from", arm=ARM)
BANDIT_REWARD_SUM = gauge("bandit_reward_sum", "Sum of the arm's realised rewards, each in [-1, 1]; it may fall", arm=ARM)
BANDIT_REGRET_ESTIMATE = gauge(
    "bandit_regret_estimate", "What the arm's choices gave away against the best estimated mean of their moment, summed", arm=ARM
)
BANDIT_PROPENSITY = histogram("bandit_propensity", "Probability with which the arm was drawn", (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 0.9, 1))
BANDIT_REFUSED_ROWS = gauge("bandit_refused_rows", "Rewards, and arms of a restored state, of another dimension or unknown: not used")

# the executor and the venue
REPORTS_TOTAL = counter("reports_total", "Venue reports", status=STATUSES)
FILLS_TOTAL = counter("fills_total", "Executions", symbol=SYMBOL, liquidity=("maker", "taker"))
FILL_RATE_ROLLING = gauge("fill_rate_rolling", "Entries filled / entries placed, last 50", route=ROUTES)
CANCEL_TO_FILL_RATIO = gauge("cancel_to_fill_ratio", "Entries taken back for each that was filled, last 50", route=ROUTES)
AVG_MARKOUT_100MS = gauge("avg_markout_100ms", "Mid 100 ms after an entry's fill against its price, bps, last 30 fills", route=ROUTES)
AVG_MARKOUT_500MS = gauge("avg_markout_500ms", "Mid 500 ms after an entry's fill against its price, bps, last 30 fills", route=ROUTES)
AVG_MARKOUT_1000MS = gauge("avg_markout_1000ms", "Mid 1 s after an entry's fill against its price, bps, last 30 fills", route=ROUTES)
MARKOUTS_MISSED_TOTAL = counter("markouts_missed_total", "Markouts of fills that were told too late, or across a new run of the market")
EXEC_LADDER_AGGRESSIVENESS_TOTAL = counter(
    "exec_ladder_aggressiveness_total", "Levels of ladders sent, by fill probability", bucket=BUCKETS)
ORDER_MS = histogram("tick_to_venue_ms", "Ingress of the market event to the order handed to the venue", MS)
UNKNOWN_ORDERS = gauge("unknown_orders", "Orders whose submit is ambiguous and not yet reconciled")

VENUE_COMPARISONS_TOTAL = counter("venue_comparisons_total", "Comparisons of the desk's books with what the venue says stands")
VENUE_MISMATCHES_TOTAL = counter("venue_mismatches_total", "Differences between the desk's books and the venue's word", kind=MISMATCHES)
POSITION_DIFFERENCE = gauge("position_difference", "The venue's position less the desk's, base units", symbol=SYMBOL)
RESULT_DIFFERENCE_USD = gauge("result_difference_usd", "The venue's realised result less the desk's", symbol=SYMBOL)
ORPHAN_ORDERS = gauge("orphan_orders", "Orders that rest at the venue and were never the desk's")
UNRECONCILED_MS = gauge("unreconciled_ms", "Time since the desk was last compared with its venue")

# the ledger
LEDGER_TRANSACTIONS_TOTAL = counter("ledger_transactions_total", "Transactions written", writer=STAGES)
LEDGER_COMMIT_MS = histogram("ledger_commit_ms", "Time of one ledger transaction", (0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 100))
LEDGER_OUTBOX = gauge("ledger_outbox", "Records written and not yet acknowledged by the broker")
LIVE_REPLAY_DIFF_TOTAL = counter("live_replay_diff_total", "Decisions in which a re-run of the journal differs from the live run")
LEDGER_CONTRADICTED_TOTAL = counter("ledger_contradicted_total", "Rounds in which a head of the ledger that was noted before was not there")

ALL = tuple(v for v in list(globals().values()) if isinstance(v, Series))
