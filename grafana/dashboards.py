"""The dashboards: what an on-call asks, in the order in which it is asked."""
from grafanalib import core as g

from config.settings import Settings
from engine import metrics as m
from grafana.panels import (
    GREEN,
    GREY,
    RED,
    YELLOW,
    Row,
    bars,
    graph,
    heat,
    lay,
    level,
    quantile,
    stacked,
    stat,
    states,
    steps,
    total,
    variables,
)

READY = {0: ("not ready", RED), 1: ("ready", GREEN)}
TRADING = {0: ("", GREY), 1: ("now", GREEN)}
YES_NO = [{"type": "value", "options": {"0": {"text": "trading", "color": GREEN}, "1": {"text": "HALTED", "color": RED}}}]
GATE = [{"type": "value", "options": {"0": {"text": "watching", "color": GREY}, "1": {"text": "blocking", "color": GREEN}}}]
BAD_IF_ANY = steps((GREEN, None), (RED, 1))


def route(settings: Settings) -> g.Dashboard:
    """Does market data flow, how late is it, and what was lost on the way?"""
    stale, lag = settings.monitoring.stale_ms, settings.monitoring.max_lag_records
    return dashboard("sluice-route", "The route", "Does market data flow, how late is it, and what was lost on the way?", [
        Row("Now", 4, (
            (4, stat("Market events/s", "Taken in by the collector", total(m.MARKET_EVENTS_TOTAL), decimals=0)),
            (4, stat("Oldest market data", "Wall-clock time since the last event of the quietest symbol", level(m.MARKET_DATA_AGE_MS), "ms",
                     steps((GREEN, None), (YELLOW, stale / 2), (RED, stale)), 0)),
            (4, stat("Records behind", "The worst lag of any service", level(m.CONSUMER_LAG_RECORDS), "short",
                     steps((GREEN, None), (YELLOW, lag / 2), (RED, lag)), 0)),
            (4, stat("Tick → order, p99", "Ingress of the market event to the order built", quantile(0.99, m.DECISION_MS), "ms", None, 1)),
            (4, stat("Holes, 1 h", "Records that were gone before they were read",
                     total(m.LOG_HOLES_TOTAL, window="1h", function="increase"), "short", BAD_IF_ANY, 0)),
            (4, stat("Errors, 1 h", "Records that failed twice", total(m.STAGE_ERRORS_TOTAL, window="1h", function="increase"), "short",
                     BAD_IF_ANY, 0)),
        )),
        Row("Flow", 8, (
            (12, graph("Market events by symbol", "Events a second, as framed by the collector",
                       {"{{symbol}}": total(m.MARKET_EVENTS_TOTAL, "symbol")}, "ops")),
            (12, graph("Frames by service", "Frames a second; services behind each other should agree",
                       {"{{service}}": total(m.FRAMES_TOTAL, "service")}, "ops")),
            (12, graph("Age of the market data", "Wall-clock time since the last event; the line is where it counts as stale",
                       {"{{symbol}}": level(m.MARKET_DATA_AGE_MS, "symbol")}, "ms", steps((GREEN, None), (RED, stale)))),
            (12, graph("Lag", "Records on the broker that a service has not taken; the line is where on-call hears of it",
                       {"{{service}} ← {{topic}}": level(m.CONSUMER_LAG_RECORDS, "service", "topic")}, "short",
                       steps((GREEN, None), (RED, lag)))),
        )),
        Row("Latency", 9, (
            (12, heat("Ingress to order at the venue", "Where the time of all orders lies, not only its quantiles", m.ORDER_MS)),
            (12, heat("Ingress to the end of the risk stage", "Every frame, traded on or not", m.STAGE_LATENCY_MS, service="risk")),
            (12, graph("Latency by stage, p50", "Half of the frames are faster",
                       {"{{service}}": quantile(0.5, m.STAGE_LATENCY_MS, "service")}, "ms")),
            (12, graph("Latency by stage, p99", "One frame in a hundred is slower",
                       {"{{service}}": quantile(0.99, m.STAGE_LATENCY_MS, "service")}, "ms")),
            (12, graph("Tick to order and to venue", "Ingress to the order built, and to the venue's acceptance", {
                "order p50": quantile(0.5, m.DECISION_MS), "order p99": quantile(0.99, m.DECISION_MS),
                "venue p50": quantile(0.5, m.ORDER_MS), "venue p99": quantile(0.99, m.ORDER_MS)}, "ms")),
            (12, graph("Scoring and ledger, p99", "A batch of scores; a ledger transaction", {
                "score batch": quantile(0.99, m.SCORE_BATCH_MS), "ledger commit": quantile(0.99, m.LEDGER_COMMIT_MS)}, "ms")),
        )),
        Row("Lost and refused", 8, (
            (12, stacked("Refused market events", "Never traded on, by reason", {"{{reason}}": total(m.BAD_TICKS_TOTAL, "reason")}, "ops")),
            (12, stacked("Repaired market events", "By what was repaired", {"{{kind}}": total(m.REPAIRED_TICKS_TOTAL, "kind")}, "ops")),
            (8, graph("Gaps", "Holes in the venue's numbers or in time, 5 minutes; what the desk was due and cannot get", {
                "{{symbol}}": total(m.MARKET_GAPS_TOTAL, "symbol", window="5m", function="increase"),
                "lost {{what}}": total(m.LOST_TOTAL, "what", window="5m", function="increase")})),
            (8, graph("Holes and changed logs", "10 minutes, by service", {
                "holes {{service}}": total(m.LOG_HOLES_TOTAL, "service", window="10m", function="increase"),
                "changed {{service}}": total(m.LOG_EPOCH_CHANGES_TOTAL, "service", window="10m", function="increase")})),
            (8, graph("Errors", "Records that failed twice, 10 minutes, by service",
                      {"{{service}}": total(m.STAGE_ERRORS_TOTAL, "service", window="10m", function="increase")})),
        )),
        Row("Services", 8, (
            (16, states("Ready", "Caught up with its topics", {"{{service}}": level(m.SERVICE_READY, "service")}, READY)),
            (8, graph("Ledger", "Transactions a second, and records that the broker has not acknowledged", {
                "{{writer}}": total(m.LEDGER_TRANSACTIONS_TOTAL, "writer"), "outbox": level(m.LEDGER_OUTBOX)})),
            (12, graph("Partitions read", "Of stages that several workers share: fewer than there are means that some have no reader",
                       {"{{service}}": level(m.PARTITIONS_READ, "service", how="sum")})),
            (12, graph("Dealt out anew", "Partitions changed hands among the workers of a stage, 10 minutes",
                       {"{{service}}": total(m.REBALANCES_TOTAL, "service", window="10m", function="increase")})),
        )),
        Row("The machine", 6, (
            (8, graph("Disk", "Share of the data folder's disk that is taken", {"taken": level(m.DISK_USED_PERCENT)}, "percent")),
            (8, graph("Not archived", "Market events that could not be archived, 10 minutes",
                      {"{{symbol}}": total(m.ARCHIVE_LOST_TOTAL, "symbol", window="10m", function="increase")})),
            (8, graph("Clock", "Times that the clock was set, 10 minutes",
                      {"set": total(m.CLOCK_JUMPS_TOTAL, window="10m", function="increase")})),
        )),
    ])


def desk(settings: Settings) -> g.Dashboard:
    """What does the desk hold, what has it earned, and why did it act or refuse?"""
    cap = settings.policy.max_total_exposure_usdt
    return dashboard("sluice-desk", "The desk", "What does the desk hold, what has it earned, and why did it act or refuse?", [
        Row("Now", 4, (
            (4, stat("Desk", "Trading, or halted by a kill", level(m.HALTED), "short", steps((GREEN, None), (RED, 1)), 0, YES_NO)),
            (4, stat("Equity", "Start equity and realised result after fees", level(m.EQUITY_USD, how="sum"), "currencyUSD", None, 2)),
            (4, stat("Result", "Realised, after fees", level(m.REALIZED_PNL_USD, how="sum"), "currencyUSD",
                     steps((RED, None), (GREY, 0), (GREEN, 0.01)), 2)),
            (4, stat("Exposure", "Margin of positions and open orders", level(m.EXPOSURE_USD, how="sum"), "currencyUSD",
                     steps((GREEN, None), (YELLOW, cap * 0.8), (RED, cap)), 0)),
            (4, stat("Open orders", "Waiting at the venue", level(m.OPEN_ORDERS, how="sum"), "short", None, 0)),
            (4, stat("Unknown orders", "Sent, and the venue's answer is not known", level(m.UNKNOWN_ORDERS, how="sum"), "short",
                     BAD_IF_ANY, 0)),
        )),
        Row("Money", 8, (
            (12, graph("Equity", "Start equity and realised result after fees", {"equity": level(m.EQUITY_USD, how="sum")}, "currencyUSD")),
            (12, graph("Result and fees", "Realised after fees, and the fees in it", {
                "result": level(m.REALIZED_PNL_USD, how="sum"), "fees": level(m.FEES_USD, how="sum")}, "currencyUSD")),
            (12, graph("Exposure", "Margin of positions and open orders; the line is `policy.max_total_exposure_usdt`",
                       {"exposure": level(m.EXPOSURE_USD, how="sum")}, "currencyUSD", steps((GREEN, None), (RED, cap)))),
            (12, graph("Position", "Signed, base units", {"{{symbol}}": level(m.POSITION_QTY, "symbol", how="sum")})),
        )),
        Row("Beside the venue's word", 6, (
            (6, graph("Differences with the venue", "The venue's position less the desk's, base units, and orders that rest there and are "
                      "not ours", {"{{symbol}}": level(m.POSITION_DIFFERENCE, "symbol", how="sum"),
                                   "orphan orders": level(m.ORPHAN_ORDERS, how="sum")})),
            (6, graph("Difference in the result", "The venue's realised result less the desk's",
                      {"{{symbol}}": level(m.RESULT_DIFFERENCE_USD, "symbol", how="sum")}, "currencyUSD")),
            (6, graph("Comparisons", "Made, and differences found, a second", {
                "made": total(m.VENUE_COMPARISONS_TOTAL), "{{kind}}": total(m.VENUE_MISMATCHES_TOTAL, "kind")}, "ops")),
            (6, graph("Since the last comparison", "The line is `monitoring.max_unreconciled_ms`",
                      {"age": level(m.UNRECONCILED_MS)}, "ms", steps((GREEN, None), (RED, settings.monitoring.max_unreconciled_ms)))),
        )),
        Row("Yes and no", 9, (
            (12, stacked("Decisions", "Entry decisions a second, by code", {"{{decision}}": total(m.DECISIONS_TOTAL, "decision")}, "ops")),
            (12, bars("Refusals, 1 h", "Scored signals refused, by reason", "{{reason}}",
                      total(m.DROPPED_TOTAL, "reason", window="1h", function="increase"))),
            (12, graph("Candidates and scores", "Proposed by the triggers, and scored", {
                "{{symbol}} {{side}}": total(m.CANDIDATES_TOTAL, "symbol", "side"), "{{symbol}} scored": total(m.SCORES_TOTAL, "symbol")},
                "ops")),
            (12, stacked("Orders", "Sent, by cause", {"{{cause}}": total(m.ORDERS_TOTAL, "cause")}, "ops")),
        )),
        Row("Guards", 7, (
            (8, graph("The day's result", "Realised after fees, UTC day; the line is `risk.daily_loss_cap_usd`",
                      {"day": level(m.DAY_RESULT_USD, how="sum")}, "currencyUSD",
                      steps((RED, None), (GREEN, -abs(settings.risk.daily_loss_cap_usd))))),
            (8, graph("Precision", "Share of won entries among the last; the line is S1's half",
                      {"precision": level(m.ROLLING_PRECISION)}, "percentunit", steps((YELLOW, None), (GREEN, 0.5)))),
            (8, graph("Halts begun", "1 hour", {
                "daily cap": total(m.DAILY_CAP_TRIGGER_TOTAL, window="1h", function="increase"),
                "streak": total(m.STREAK_HALT_TOTAL, window="1h", function="increase"),
                "precision": total(m.PRECISION_HALT_TOTAL, window="1h", function="increase"),
                "volatility": total(m.VOLATILITY_HALT_TOTAL, window="1h", function="increase")})),
            (12, bars("Orders refused or ended, 1 h", "By the venue, the executor or a control", "{{reason}}",
                      total(m.ORDERS_REFUSED_TOTAL, "reason", window="1h", function="increase"))),
            (12, graph("Admission", "Refused in a warm-up and by backpressure, 5 minutes; the depth that backpressure measures", {
                "warm-up {{symbol}}": total(m.WARMUP_DROP_TOTAL, "symbol", window="5m", function="increase"),
                "backpressure {{mode}}": total(m.BACKPRESSURE_TOTAL, "mode", window="5m", function="increase"),
                "depth": level(m.QUEUE_DEPTH)})),
            (12, graph("Mode switches", "30 minutes; 1 while the desk is on paper after a CRIT", {
                "{{from}} → {{to}} ({{reason}})": total(m.MODE_SWITCH_TOTAL, "from", "to", "reason", window="30m", function="increase"),
                "CRIT {{reason}}": total(m.FAIL_SAFE_TRIGGER_TOTAL, "reason", window="30m", function="increase"),
                "on paper": level(m.FAIL_SAFE), "alerts heard": level(m.ALARMS_READ)})),
        )),
        Row("Fill probability", 7, (
            (6, stat("Gate", "Watching, or blocking orders of a low fill probability", level(m.FILL_PROB_ENFORCE_ENABLED), "short",
                     steps((GREY, None), (GREEN, 1)), 0, GATE)),
            (6, graph("Judged and blocked", "Orders in five minutes; passed by: while the breaker was tripped", {
                "judged": total(m.FILL_PROB_CHECKS_TOTAL, window="5m", function="increase"),
                "blocked": total(m.FILL_PROB_BLOCKS_TOTAL, window="5m", function="increase"),
                "below the threshold": total(m.FILL_PROB_LOW_TOTAL, window="5m", function="increase"),
                "passed by": total(m.FILL_PROB_CB_BYPASSED_TOTAL, window="5m", function="increase")})),
            (6, graph("Thresholds", "In force, and recommended by the evaluation (0: none); the last order's probability; bps", {
                "in force": level(m.FILL_PROB_EFFECTIVE_THRESHOLD_BPS), "recommended": level(m.FILL_PROB_AUTO_THRESHOLD_BPS),
                "last order": level(m.FILL_PROB_BPS_LAST)})),
            (6, stat("Breaker trips, 1 h", "The gate blocked more than it may and stepped aside",
                     total(m.FILL_PROB_CB_TRIPS_TOTAL, window="1h", function="increase"), "short", BAD_IF_ANY, 0)),
            (12, graph("This phase", "Under the model, threshold and switch in force, over restarts: what a go or a no-go is decided on",
                       {"{{what}}": level(m.FILL_PROB_PHASE, "what")})),
            (12, states("Gate, model and list", "Whether a desk with the gate runs, has a model, and enforces listed symbols only", {
                "desk": level(m.LIVE_ENGINE_INITIALIZED), "model": level(m.FILL_MODEL_LOADED),
                "listed symbols only": level(m.FILL_PROB_ENFORCE_ALLOWLIST_ENABLED)}, {0: ("no", GREY), 1: ("yes", GREEN)})),
        )),
        Row("What came of it", 8, (
            (8, graph("Win rate by route", "Share of won entries among the last 50; below a half needs a look",
                      {"{{route}}": level(m.WINRATE_ROLLING, "route")}, "percentunit", steps((YELLOW, None), (GREEN, 0.5)))),
            (8, graph("Fill rate by route", "Entries filled of entries placed, last 50",
                      {"{{route}}": level(m.FILL_RATE_ROLLING, "route")}, "percentunit", steps((RED, None), (GREEN, 0.25)))),
            (8, bars("Exits, 1 h", "What closed the entries", "{{cause}}",
                     total(m.EXITS_TOTAL, "cause", window="1h", function="increase"))),
            (8, stacked("Fills", "As maker and as taker", {"{{liquidity}}": total(m.FILLS_TOTAL, "liquidity")}, "ops")),
            (8, stacked("Venue reports", "By status", {"{{status}}": total(m.REPORTS_TOTAL, "status")}, "ops")),
            (8, graph("Opened and won", "Entries an hour, by route", {
                "opened {{route}}": total(m.TRADES_OPENED_TOTAL, "route", window="1h", function="increase"),
                "won {{route}}": total(m.TRADES_WON_TOTAL, "route", window="1h", function="increase")})),
        )),
        Row("Sizes", 8, (
            (6, bars("What bounded a size, 1 h", "The smallest cap, on every sizing", "{{cap}}",
                     total(m.SIZING_CAP_LIMIT_TOTAL, "cap", window="1h", function="increase"))),
            (6, graph("Risk multiplier", "Of the last size, and its median over five minutes: 1 where risk takes nothing; watch the dips", {
                "last": level(m.SIZING_RISK_MULTIPLIER), "median": quantile(0.5, m.SIZING_RISK_MULTIPLIER_SEEN)}, "percentunit")),
            (6, stacked("What risk took from", "Sizes that a factor reduced, a second",
                        {"{{factor}}": total(m.SIZING_RISK_SCALED_TOTAL, "factor")}, "ops")),
            (6, graph("Planned, and by which price of the collateral", "Notional of the plans, USD an hour; sizings by source", {
                "{{symbol}}": total(m.PLAN_NOTIONAL_USD_TOTAL, "symbol", window="1h", function="increase"),
                "price: {{source}}": total(m.SIZING_PRICE_SOURCE_TOTAL, "source", window="1h", function="increase")})),
        )),
        Row("Paper twins", 7, (
            (6, states("Trading state", "ACTIVE; under a KILL REDUCING while anything is held, then HALTED",
                       {"{{state}}": level(m.TRADING_STATE, "state")}, TRADING)),
            (6, stacked("Orders of the twins", "Of the paper account beside a real one, by cause",
                        {"{{cause}}": total(m.TWIN_ORDERS_TOTAL, "cause")}, "ops")),
            (6, graph("Fills of the twins, and entries closed", "1 hour", {
                "fills {{symbol}}": total(m.TWIN_FILLS_TOTAL, "symbol", window="1h", function="increase"),
                "won {{won}}": total(m.TWIN_OUTCOMES_TOTAL, "won", window="1h", function="increase")})),
            (6, graph("Result of the twins", "After fees, in this life of the desk: the venue's effect is the desk's result less this",
                      {"twins": level(m.TWIN_RESULT_USD, how="sum")}, "currencyUSD")),
        )),
        Row("Rewards", 8, (
            (8, stacked("Choices", "Orders a second, by the arm that shaped them",
                        {"{{arm}}": total(m.BANDIT_CHOICES_TOTAL, "arm")}, "ops")),
            (8, graph("Rewards", "Realised, summed by arm: the slope is the mean",
                      {"{{arm}}": level(m.BANDIT_REWARD_SUM, "arm", how="sum")})),
            (8, graph("Regret, estimated", "Given away against the best estimated mean of the moment, summed by arm",
                      {"{{arm}}": level(m.BANDIT_REGRET_ESTIMATE, "arm", how="sum")})),
            (8, graph("Attribution", "Rewards an hour by how their choice was found; outcomes that nobody is paid for", {
                "{{mode}}": total(m.REWARD_MATCH_TOTAL, "mode", window="1h", function="increase"),
                "missed: {{reason}}": total(m.REWARD_MATCH_MISS_TOTAL, "reason", window="1h", function="increase")})),
            (8, graph("Waiting", "Choices without an outcome yet; those refused a place, and rows that were not used", {
                "waiting": level(m.PENDING_SELECTIONS, how="sum"), "not used": level(m.BANDIT_REFUSED_ROWS, how="sum"),
                "refused: {{reason}}": total(m.REWARD_PENDING_REFUSED_TOTAL, "reason", window="1h", function="increase")})),
            (8, stacked("Learned", "Rewards an hour, by arm",
                        {"{{arm}}": total(m.BANDIT_REWARDS_TOTAL, "arm", window="1h", function="increase")})),
            (24, heat("Propensities", "How certain the draws were", m.BANDIT_PROPENSITY, "percentunit")),
        )),
        Row("How it was executed", 8, (
            (8, graph("Markout", "Mid after an entry's fill against its price, bps; below zero the desk is picked off", {
                "100 ms {{route}}": level(m.AVG_MARKOUT_100MS, "route"), "500 ms {{route}}": level(m.AVG_MARKOUT_500MS, "route"),
                "1 s {{route}}": level(m.AVG_MARKOUT_1000MS, "route")}, "short", steps((RED, None), (GREEN, 0)))),
            (8, stacked("Execution ladder aggressiveness", "Levels sent a second, by fill probability",
                        {"{{bucket}}": total(m.EXEC_LADDER_AGGRESSIVENESS_TOTAL, "bucket", window="5m")}, "ops")),
            (8, graph("Cancel to fill", "Entries taken back for each that was filled, last 50; markouts that were missed, 1 hour", {
                "{{route}}": level(m.CANCEL_TO_FILL_RATIO, "route"),
                "missed": total(m.MARKOUTS_MISSED_TOTAL, window="1h", function="increase")}, "short", steps((GREEN, None), (RED, 2)))),
        )),
        Row("The model", 8, (
            (12, graph("Score distribution, active", "Rolling; a collapsing spread warns of calibration, the line is `tau_entry`", {
                "{{stat}}": level(m.MODEL_SCORE_DISTRIBUTION, "stat"), "tau_entry": level(m.TAU_ENTRY_CURRENT, model="active"),
                "tau_hold": level(m.TAU_HOLD_CURRENT, model="active")}, "percentunit")),
            (12, graph("Score distribution, shadow", "Should stand beside the active model's", {
                "{{stat}}": level(m.SHADOW_SCORE_DISTRIBUTION, "stat"), "tau_entry": level(m.TAU_ENTRY_CURRENT, model="shadow"),
                "tau_hold": level(m.TAU_HOLD_CURRENT, model="shadow")}, "percentunit")),
            (8, graph("Shadow", "Candidates a second that the shadow model scored, and would have approved", {
                "scored": total(m.SHADOW_SIGNALS_EVALUATED_TOTAL), "approved": total(m.SHADOW_SIGNALS_APPROVED_TOTAL)}, "ops")),
            (8, graph("Parity and schema", "Disagreements and mismatches, 5 minutes", {
                "parity {{stage}}": total(m.ONNX_PARITY_FAIL_TOTAL, "stage", window="5m", function="increase"),
                "schema": total(m.SCHEMA_MISMATCH_TOTAL, window="5m", function="increase")})),
            (8, states("Models in their slots", "Which model was where, and which fill curve predicts", {
                "active {{id}}": level(m.MODEL_ACTIVE_ID, "id"), "shadow {{id}}": level(m.MODEL_SHADOW_ID, "id"),
                "fill {{id}}": level(m.SIZING_FILL_CURVE_ID, "id")},
                {0: ("out", GREY), 1: ("in", GREEN)})),
            (8, stat("Live ≠ replay", "Decisions that a re-run of the journal takes otherwise",
                     total(m.LIVE_REPLAY_DIFF_TOTAL, window="1d", function="increase"), "short", BAD_IF_ANY, 0)),
            (8, stat("Ledger contradicted", "Rounds in which a noted head of the ledger was gone",
                     total(m.LEDGER_CONTRADICTED_TOTAL, window="1d", function="increase"), "short", BAD_IF_ANY, 0)),
        )),
    ])


def dashboard(uid: str, title: str, what: str, rows: list[Row]) -> g.Dashboard:
    return g.Dashboard(uid=uid, title=title, description=what, tags=["sluice"], timezone="utc", refresh="5s", editable=False,
                       time=g.Time("now-15m", "now"), templating=variables(m.MARKET_EVENTS_TOTAL), panels=lay(rows))


DASHBOARDS = {"route.json": route, "desk.json": desk}
