"""Which threshold is in force: the configured one, or the one that a report recommends, if the report can be believed.

Three layers are asked, hash, schema, provenance, then age and range; the first objection has a code, and with it the configured
threshold stays (DECISIONS, ADR-074). Nothing here raises, for a wrong file must never stop a desk from trading.
"""
import math
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, NamedTuple

from engine.fillprob.documents import (
    BAD_TYPE,
    MISSING_FIELD,
    OUT_OF_RANGE,
    PARSE_ERROR,
    SAID,
    SCHEMA_UNSUPPORTED,
    SHA256_MISMATCH,
    Refused,
    differ,
    is_int,
    parsed,
    pinned,
    sha256,
)
from engine.fillprob.evaluation import FILE, MANIFEST, SCHEMA
from engine.fillprob.model_v0 import ALL_BPS

OK = "ok"
PROVENANCE_MISMATCH, ENV_INVALID = "model_provenance_mismatch", "env_invalid"
TIMESTAMP_FUTURE, TIMESTAMP_TOO_OLD = "timestamp_future", "timestamp_too_old"
CODES = (OK, MISSING_FIELD, PARSE_ERROR, SHA256_MISMATCH, SCHEMA_UNSUPPORTED, PROVENANCE_MISMATCH, ENV_INVALID, TIMESTAMP_FUTURE,
         TIMESTAMP_TOO_OLD, BAD_TYPE, OUT_OF_RANGE)
RECOMMEND_ONLY, AUTO_APPLY = "recommend_only", "auto_apply"
AUTO_APPLIED, RESOLUTION_FAILED = "auto_applied", "resolution_failed"
CLOCKS_APART_MS, HOUR_MS = 300_000, 3_600_000
VERSION = "threshold_resolution_v1"


class Files(NamedTuple):
    """What the resolver reads, as bytes; None where there is no such file."""
    eval_manifest: bytes | None
    eval_report: bytes | None
    model_manifest: bytes | None


class Resolution(NamedTuple):
    """A threshold that a report recommends and may be believed for."""
    recommended_bps: int
    eval_sha256: str
    model_manifest_sha256: str


class Result(NamedTuple):
    """A resolution, or the code and the detail of why there is none."""
    resolution: Resolution | None
    reason_code: str
    detail: str


def resolve(files: Files, max_age_hours: str, now_ms: int) -> Result:
    """The recommended threshold. `max_age_hours` as the environment has it, "" for any age; `now_ms` is the clock's."""
    try:
        return Result(_resolved(files, max_age_hours, now_ms), OK, "")
    except Refused as no:
        return Result(None, no.code, no.detail)
    except Exception as error:      # whatever else is wrong with a file: the desk trades on
        return Result(None, PARSE_ERROR, str(error)[:SAID])


def _resolved(files: Files, max_age_hours: str, now_ms: int) -> Resolution:
    report_blob = pinned(parsed(files.eval_manifest, MANIFEST), FILE, files.eval_report)
    report = parsed(report_blob, FILE)
    for key in ("schema_version", "recommended_threshold_bps", "model_manifest_sha256"):
        if key not in report:
            raise Refused(MISSING_FIELD, f"{FILE}: {key}: missing")
    if report["schema_version"] != SCHEMA:
        raise Refused(SCHEMA_UNSUPPORTED, f"{FILE}: schema_version: {report['schema_version']!r} is not {SCHEMA!r}")
    want = report["model_manifest_sha256"]
    if not isinstance(want, str):
        raise Refused(BAD_TYPE, f"{FILE}: model_manifest_sha256: {want!r} is no text")
    if not want or files.model_manifest is None:
        raise Refused(MISSING_FIELD, f"{FILE}: model_manifest_sha256: empty" if not want else "the model has no manifest.json")
    if (got := sha256(files.model_manifest)) != want:
        raise Refused(PROVENANCE_MISMATCH, differ(want, got))
    if max_age_hours.strip():
        fresh(report, max_age_hours, now_ms)
    value = report["recommended_threshold_bps"]
    if not is_int(value):
        raise Refused(BAD_TYPE, f"{FILE}: recommended_threshold_bps: {value!r} is no whole number")
    if not 0 <= value <= ALL_BPS:
        raise Refused(OUT_OF_RANGE, f"{FILE}: recommended_threshold_bps: {value} is not between 0 and {ALL_BPS}")
    return Resolution(value, sha256(report_blob), got)


def fresh(report: Mapping[str, Any], max_age_hours: str, now_ms: int) -> None:
    """Refuses a report that is older than so many hours, or of tomorrow; one without a time of its own passes."""
    try:
        limit = float(max_age_hours)
    except ValueError:
        limit = math.nan
    if not 0 < limit < math.inf:
        raise Refused(ENV_INVALID, f"GRINDER_FILL_PROB_EVAL_MAX_AGE_HOURS: {max_age_hours!r} is no number of hours above 0")
    made = made_ms(report)
    if made is None:
        return
    if made > now_ms + CLOCKS_APART_MS:
        raise Refused(TIMESTAMP_FUTURE, f"made {(made - now_ms) / HOUR_MS:.2f} h from now")
    if now_ms - made > limit * HOUR_MS:
        raise Refused(TIMESTAMP_TOO_OLD, f"age {(now_ms - made) / HOUR_MS:.2f} h > {limit:g} h")


def made_ms(report: Mapping[str, Any]) -> float | None:
    """When a report says that it was made, in ms; None where it does not say."""
    if "ts_ms" in report:
        value = report["ts_ms"]
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
            raise Refused(PARSE_ERROR, f"{FILE}: ts_ms: {value!r} is no number of ms")
        return value
    for key in ("created_at", "generated_at"):
        if key in report:
            try:
                made = datetime.fromisoformat(report[key])
            except (TypeError, ValueError):
                raise Refused(PARSE_ERROR, f"{FILE}: {key}: {report[key]!r} is no time") from None
            return (made if made.tzinfo else made.replace(tzinfo=UTC)).timestamp() * 1000
    return None


class Threshold(NamedTuple):
    """What a start of the service came to: `effective_bps` is in force, `gauge_bps` what the auto-threshold gauge shows."""
    mode: str
    configured_bps: int
    effective_bps: int
    gauge_bps: int
    result: Result | None       # None: nothing was asked

    @property
    def reason(self) -> str:
        """`auto_applied`, `recommend_only` or `resolution_failed`; "" where nothing was asked."""
        if self.result is None:
            return ""
        return RESOLUTION_FAILED if self.result.resolution is None else AUTO_APPLIED if self.mode == AUTO_APPLY else RECOMMEND_ONLY


def decide(result: Result | None, configured_bps: int, auto: bool) -> Threshold:
    """The threshold in force. Only an auto-applied one is not the configured one."""
    mode = AUTO_APPLY if auto else RECOMMEND_ONLY
    if result is None or result.resolution is None:
        return Threshold(mode, configured_bps, configured_bps, 0, result)
    recommended = result.resolution.recommended_bps
    return Threshold(mode, configured_bps, recommended if auto else configured_bps, recommended, result)


def lines(t: Threshold, eval_path: str) -> list[str]:
    """What the log says of it: both families of S2's names (DECISIONS, 17)."""
    if t.result is None:
        return []
    if t.result.resolution is None:
        return [f"FILL_PROB_THRESHOLD_RESOLUTION_FAILED reason_code={t.result.reason_code} detail={t.result.detail} eval_path={eval_path} "
                f"mode={t.mode} configured_bps={t.configured_bps}",
                f"THRESHOLD_RESOLVE_FAILED reason={t.result.reason_code}",
                f"THRESHOLD_RESOLVED mode={t.mode} recommended_bps=FAILED configured_bps={t.configured_bps} "
                f"effective_bps={t.effective_bps} reason={t.reason}"]
    numbers = f"recommended_bps={t.gauge_bps} configured_bps={t.configured_bps} effective_bps={t.effective_bps}"
    return [f"FILL_PROB_THRESHOLD_RESOLUTION_OK mode={t.mode} {numbers} provenance_ok=true",
            f"THRESHOLD_RESOLVED mode={t.mode} {numbers} reason={t.reason}"]


def artifact(t: Threshold, ts_ms: int, eval_dir: str) -> dict[str, Any] | None:
    """The evidence of a resolution; None where there was none."""
    if t.result is None or t.result.resolution is None:
        return None
    r = t.result.resolution
    return {"artifact_version": VERSION, "ts_ms": ts_ms, "mode": t.mode, "recommended_bps": r.recommended_bps,
            "configured_bps": t.configured_bps, "effective_bps": t.effective_bps, "eval_sha256": r.eval_sha256,
            "model_manifest_sha256": r.model_manifest_sha256, "eval_dir": eval_dir}
