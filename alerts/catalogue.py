"""Every alert, a row each: what is wrong, from when it counts, and what its series looks like when it is right and wrong.

Rows name declared series and settings fields, so that an alert on a series that does not exist is an ImportError and an
alert's threshold is the guard's. The samples make the promtool tests, so that no alert is without them.
"""
from dataclasses import dataclass

from config.settings import Settings
from engine.metrics import (
    ALARMS_READ,
    ARCHIVE_LOST_TOTAL,
    CLOCK_JUMPS_TOTAL,
    CONSUMER_LAG_RECORDS,
    DISK_USED_PERCENT,
    FAIL_SAFE,
    FILL_PROB_CB_TRIPS_TOTAL,
    HALTED,
    LEDGER_CONTRADICTED_TOTAL,
    LEDGER_OUTBOX,
    LIVE_REPLAY_DIFF_TOTAL,
    LOG_EPOCH_CHANGES_TOTAL,
    LOG_HOLES_TOTAL,
    LOST_TOTAL,
    MARKET_DATA_AGE_MS,
    MARKET_GAPS_TOTAL,
    ONNX_PARITY_FAIL_TOTAL,
    ORPHAN_ORDERS,
    POSITION_DIFFERENCE,
    SCHEMA_MISMATCH_TOTAL,
    SERVICE_READY,
    STAGE_ERRORS_TOTAL,
    UNKNOWN_ORDERS,
    UNRECONCILED_MS,
    VENUE_MISMATCHES_TOTAL,
    Series,
)

JOB = "sluice"  # the scrape job of every service
UP = Series("gauge", "up", "Prometheus' own: 1 when the last scrape succeeded", {"job": (JOB,)})
ON_THE_ROUTE = ("collector", "signal_engine", "ai_scorer", "risk", "executor")
CRITICAL, WARNING = "critical", "warning"


@dataclass(frozen=True)
class Alert:
    """One row.

    `expr` fires after it held for `for_`; `watches` is the series whose absence pages as well. `sample` is one label set
    of it; `good` and `bad` are its values (a counter's: growth a minute); `edge` is the last value that is still right.
    """
    name: str
    severity: str
    expr: str
    for_: str
    summary: str
    watches: Series
    sample: str
    good: float
    bad: float
    edge: float
    memory: str = ""  # the range of `increase()`: a counter's alert goes this long after the last increment

    @property
    def anchor(self) -> str:
        """The runbook's heading as a link."""
        return self.name.lower()


def grew(series: Series, by: str, window: str) -> str:
    """A counter that moved at all within `window`; exact 0 otherwise, since every label set is exported from the start."""
    return f"sum by ({by}) (increase({series}[{window}])) > 0" if by else f"sum(increase({series}[{window}])) > 0"


def counted(name: str, severity: str, series: Series, by: str, window: str, summary: str, **sample: str) -> Alert:
    """An alert on any increment within `window`."""
    return Alert(name, severity, grew(series, by, window), "0m", summary, series, series(**sample), 0, 1, 0, window)


def catalogue(settings: Settings) -> tuple[Alert, ...]:
    """The rows under these settings."""
    limits = settings.monitoring
    symbol = settings.exchange.symbols[0]
    route = "|".join(ON_THE_ROUTE)
    return (
        Alert("ServiceDown", CRITICAL, f"{UP(job=JOB)} == 0", "1m",
              "{{ $labels.instance }} does not answer its scrape.", UP, UP(job=JOB), 1, 0, 1),
        Alert("ServiceNotReady", CRITICAL, f'max by (service) ({SERVICE_READY}{{service=~"{route}"}}) == 0', "2m",
              "{{ $labels.service }} runs but has not caught up with its topics.",
              SERVICE_READY, SERVICE_READY(service="risk"), 1, 0, 1),
        Alert("MarketDataStale", CRITICAL, f"max by (symbol) ({MARKET_DATA_AGE_MS}) > {limits.stale_ms}", "30s",
              "{{ $labels.symbol }}: no market event for {{ $value | printf \"%.0f\" }} ms "
              f"(limit {limits.stale_ms}).", MARKET_DATA_AGE_MS, MARKET_DATA_AGE_MS(symbol=symbol),
              40, limits.stale_ms + 1, limits.stale_ms),
        Alert("ConsumerLag", WARNING, f"max by (service, topic) ({CONSUMER_LAG_RECORDS}) > {limits.max_lag_records}", "1m",
              "{{ $labels.service }} is {{ $value }} records behind on {{ $labels.topic }} "
              f"(limit {limits.max_lag_records}).", CONSUMER_LAG_RECORDS, CONSUMER_LAG_RECORDS(service="risk", topic="md.frames"),
              3, limits.max_lag_records + 1, limits.max_lag_records),
        counted("MarketGaps", WARNING, MARKET_GAPS_TOTAL, "symbol", "10m",
                "{{ $labels.symbol }}: the venue's event numbers or times have a hole.", symbol=symbol),
        counted("LogHole", CRITICAL, LOG_HOLES_TOTAL, "service", "10m",
                "{{ $labels.service }}: records between its mark and the log are gone.", service="risk"),
        counted("LostOnTheWay", CRITICAL, LOST_TOTAL, "what", "10m",
                "Market {{ $labels.what }} that the desk was due were on a log that is gone; the risk log says which.", what="events"),
        counted("LogEpochChanged", CRITICAL, LOG_EPOCH_CHANGES_TOTAL, "service", "10m",
                "{{ $labels.service }}: a topic came back as another log.", service="risk"),
        counted("StageErrors", CRITICAL, STAGE_ERRORS_TOTAL, "service", "10m",
                "{{ $labels.service }} failed twice on one record and booked it as an error.", service="risk"),
        Alert("DeskHalted", CRITICAL, f"max({HALTED}) > 0", "0m",
              "A kill is in force: nothing is opened until it is released.", HALTED, HALTED(), 0, 1, 0),
        Alert("FailSafeActive", WARNING, f"max({FAIL_SAFE}) > 0", "0m",
              "After a CRIT the desk sends nothing to the real venue; it returns by itself.", FAIL_SAFE, FAIL_SAFE(), 0, 1, 0),
        Alert("AlarmsUnread", WARNING, f"min({ALARMS_READ}) < 1", "2m",
              "The supervisor cannot read which alerts are firing: none of them would send the desk to paper.",
              ALARMS_READ, ALARMS_READ(), 1, 0, 1),
        Alert("UnknownOrders", CRITICAL, f"sum({UNKNOWN_ORDERS}) > 0", "1m",
              "{{ $value }} orders were sent and the venue's answer is not known.", UNKNOWN_ORDERS, UNKNOWN_ORDERS(), 0, 1, 0),
        counted("VenueMismatch", CRITICAL, VENUE_MISMATCHES_TOTAL, "kind", "10m",
                "{{ $labels.kind }}: the desk's books and the venue's word differ; the desk has halted.", kind="position"),
        Alert("PositionMismatch", CRITICAL, f"max by (symbol) (abs({POSITION_DIFFERENCE})) > 0", "0m",
              "{{ $labels.symbol }}: the venue's position and the desk's are {{ $value }} apart.",
              POSITION_DIFFERENCE, POSITION_DIFFERENCE(symbol=symbol), 0, 0.25, 0),
        Alert("OrphanOrders", CRITICAL, f"max({ORPHAN_ORDERS}) > 0", "0m",
              "{{ $value }} orders rest at the venue that were never the desk's.", ORPHAN_ORDERS, ORPHAN_ORDERS(), 0, 1, 0),
        Alert("NotReconciled", CRITICAL, f"max({UNRECONCILED_MS}) > {limits.max_unreconciled_ms}", "30s",
              "For {{ $value | printf \"%.0f\" }} ms the desk has not been compared with its venue "
              f"(limit {limits.max_unreconciled_ms}).", UNRECONCILED_MS, UNRECONCILED_MS(), 3000, limits.max_unreconciled_ms + 1,
              limits.max_unreconciled_ms),
        Alert("LedgerOutboxStuck", CRITICAL, f"max({LEDGER_OUTBOX}) > {limits.max_outbox_records}", "1m",
              "{{ $value }} records stand in the ledger and the broker has not acknowledged them "
              f"(limit {limits.max_outbox_records}).",
              LEDGER_OUTBOX, LEDGER_OUTBOX(), 0, limits.max_outbox_records + 1, limits.max_outbox_records),
        Alert("DiskFull", CRITICAL, f"max({DISK_USED_PERCENT}) > {limits.max_disk_percent:g}", "1m",
              "{{ $value | printf \"%.0f\" }} % of the data folder's disk are taken "
              f"(limit {limits.max_disk_percent:g}): the desk stops when it is full.",
              DISK_USED_PERCENT, DISK_USED_PERCENT(), 50, limits.max_disk_percent + 1, limits.max_disk_percent),
        counted("ArchiveLost", WARNING, ARCHIVE_LOST_TOTAL, "symbol", "10m",
                "{{ $labels.symbol }}: market events could not be archived.", symbol=symbol),
        counted("FillProbCircuitBreakerTripped", WARNING, FILL_PROB_CB_TRIPS_TOTAL, "", "5m",
                "The fill-probability gate blocked more than its breaker allows and has stepped aside."),
        counted("ClockJumped", WARNING, CLOCK_JUMPS_TOTAL, "", "10m", "The machine's clock was set by more than a second."),
        counted("LiveReplayDiff", CRITICAL, LIVE_REPLAY_DIFF_TOTAL, "", "1h",
                "A re-run of the journal decides otherwise than the live desk did."),
        counted("LedgerContradicted", CRITICAL, LEDGER_CONTRADICTED_TOTAL, "", "1h",
                "The ledger no longer holds a head that was noted earlier: its end was cut off or written anew."),
        counted("OnnxParityFailure", WARNING, ONNX_PARITY_FAIL_TOTAL, "stage", "10m",
                "stage={{ $labels.stage }}: the served model and the trained model disagree by more than 1e-6.", stage="online"),
        counted("SchemaMismatch", WARNING, SCHEMA_MISMATCH_TOTAL, "", "10m",
                "Data or a model with another feature schema was met and refused."),
    )
