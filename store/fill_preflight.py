"""The checks before enforcement: what S2's runbook wants to see PASS before anybody sets GRINDER_FILL_MODEL_ENFORCE=1.

Names, details and layout are the runbook's, to the letter; `scripts.preflight_fill_prob` prints them, the go/no-go table counts them.
"""
from pathlib import Path
from typing import Any, NamedTuple

from engine.fillprob import evaluation, model_v0, models, threshold
from engine.fillprob.documents import (
    BAD_TYPE,
    MISSING_FIELD,
    SCHEMA_UNSUPPORTED,
    SHA256_MISMATCH,
    Refused,
    is_int,
    parsed,
    pinned,
    sha256,
)
from store import evidence
from store.artifacts import read
from store.fill_model import resolved

WITHIN_BPS = 1000
FEW_ROWS, HALF_PCT = 100, 50
RULER = "=" * 60
PASSED = "All checks passed. Safe to set GRINDER_FILL_MODEL_ENFORCE=1."
FAILED = "One or more checks failed. Do NOT enable enforcement until all pass."
SKIPPED = "Skipped (eval report failed to load)"


class Check(NamedTuple):
    """One line of the list."""
    name: str
    passed: bool
    detail: str

    @property
    def line(self) -> str:
        return f"  [{'PASS' if self.passed else 'FAIL'}] {self.name}: {self.detail}"


class Asked(NamedTuple):
    """What is to be checked; `auto` asks for the resolution as well, `mode_auto` is whether a service would apply it."""
    model: Path
    evaluation: Path
    evidence: Path
    threshold_bps: int = 2500
    auto: bool = False
    mode_auto: bool = False
    max_age_hours: str = ""
    now_ms: int = 0


class Preflight(NamedTuple):
    """The checks, the threshold where it was asked for, and what is no failure but should be known."""
    checks: tuple[Check, ...]
    threshold: threshold.Threshold | None
    warnings: tuple[str, ...]

    @property
    def passed(self) -> bool:
        """Whether all of them passed."""
        return all(check.passed for check in self.checks)

    def text(self) -> str:
        """The page that the runbook shows."""
        out = [RULER, "Fill Probability Enforcement Pre-flight Checks", RULER, *(check.line for check in self.checks), ""]
        if self.threshold is not None:
            t = self.threshold
            known = t.result is not None and t.result.resolution is not None
            override = "" if t.mode == threshold.AUTO_APPLY else " (recommend-only: no override)"
            why = override if known else " (no recommendation available)"
            out += [RULER, "Threshold Summary", RULER, f"  configured_threshold_bps : {t.configured_bps}",
                    f"  recommended_threshold_bps: {t.gauge_bps if known else 'N/A'}",
                    f"  effective_threshold_bps  : {t.effective_bps}{why}",
                    f"  mode                     : {t.mode}", RULER, ""]
        return "\n".join([*out, PASSED if self.passed else FAILED])


def preflight(asked: Asked) -> Preflight:
    """Every check, whatever the others say."""
    model, of_model = model_loads(asked.model)
    report, of_report = report_loads(asked.evaluation, asked.model)
    checks = [of_model, of_report, calibrated(report), matches(report, asked), artifacts(asked.evidence)]
    got = None
    if asked.auto:
        result = resolved(asked.evaluation, asked.model, asked.max_age_hours, asked.now_ms)
        got = threshold.decide(result, asked.threshold_bps, asked.mode_auto)
        known = result.resolution is not None
        checks.append(Check("Auto-threshold resolution", known, f"Resolved: recommended_threshold_bps={got.gauge_bps}" if known else
                            f"resolution=FAILED reason_code={result.reason_code} detail={result.detail}"))
    return Preflight(tuple(checks), got, tuple(warnings(report, model)))


def loaded(kind: str, folder: Path, name: str, check) -> tuple[Any, str]:
    """What `check` makes of the folder's manifest and file, or None and the runbook's words for why not."""
    if not folder.is_dir():
        return None, f"{kind} directory not found: {folder}"
    manifest, path = folder / "manifest.json", folder / name
    for what, one in (("manifest", manifest), ("file", path)):
        if not one.is_file():
            return None, f"{kind} {what} not found: {one}"
    try:
        return check(read(manifest), read(path)), ""
    except Refused as no:
        if no.code == SHA256_MISMATCH:
            return None, f"{kind} sha256 mismatch: {no.detail}"
        return None, f"{kind} load error: {no}"


def model_loads(folder: Path) -> tuple[models.FillModelV | None, Check]:
    """The model and its line."""
    model, why = loaded("Model", folder, model_v0.FILE, models.loaded)
    return model, Check("Model loads", model is not None,
                        why or f"Loaded: {model.about()['n_bins']} bins, global_prior={model.global_prior_bps} bps")


def report_loads(folder: Path, model: Path) -> tuple[dict[str, Any] | None, Check]:
    """The evaluation and its line. One of nothing, or of another model, is none."""
    def check(manifest: bytes | None, blob: bytes | None) -> dict[str, Any]:
        report = parsed(pinned(parsed(manifest, evaluation.MANIFEST), evaluation.FILE, blob), evaluation.FILE)
        if report.get("schema_version") != evaluation.SCHEMA:
            raise Refused(SCHEMA_UNSUPPORTED, f"schema_version: {report.get('schema_version')!r} is not {evaluation.SCHEMA!r}")
        for key in ("n_rows", "calibration_max_error_bps", "calibration_well_calibrated", "model_manifest_sha256"):
            if key not in report:
                raise Refused(MISSING_FIELD, f"{key}: missing")
        if not is_int(report["n_rows"]) or not is_int(report["calibration_max_error_bps"]):
            raise Refused(BAD_TYPE, "n_rows and calibration_max_error_bps must be whole numbers")
        if report["n_rows"] <= 0:
            raise Refused(MISSING_FIELD, "no rows were evaluated (n_rows=0)")
        head = read(model / model_v0.MANIFEST)
        if head is not None and report["model_manifest_sha256"] != sha256(head):
            raise Refused(threshold.PROVENANCE_MISMATCH, "it judges another model than this one; run eval_fill_model_v0 again")
        return report
    report, why = loaded("Eval", folder, evaluation.FILE, check)
    return report, Check("Eval report loads", report is not None, why or f"Loaded: {report['n_rows']} rows evaluated")


def calibrated(report: dict[str, Any] | None) -> Check:
    """Whether what the model says happens; both the report's word and its figure are asked."""
    if report is None:
        return Check("Calibration", False, SKIPPED)
    error, said, limit = report["calibration_max_error_bps"], report["calibration_well_calibrated"], evaluation.WELL_BPS
    if said is True and 0 <= error < limit:
        return Check("Calibration", True, f"Well-calibrated (max_error={error} bps < {limit} bps)")
    if error >= limit:
        return Check("Calibration", False, f"NOT well-calibrated (max_error={error} bps >= {limit} bps)")
    return Check("Calibration", False, f"NOT well-calibrated (calibration_well_calibrated={said!r}, max_error={error} bps)")


def matches(report: dict[str, Any] | None, asked: Asked) -> Check:
    """Whether the configured threshold is the recommended one; on the way to an auto-applied one, whether it is near it."""
    if report is None:
        return Check("Threshold match", False, SKIPPED)
    got, have = report.get("recommended_threshold_bps"), asked.threshold_bps
    if got is None:
        return Check("Threshold match", False, "Eval report missing recommended_threshold_bps")
    if is_int(got) and got == have:
        return Check("Threshold match", True, f"Recommended={got} bps matches configured={have} bps")
    if is_int(got) and asked.auto and abs(got - have) < WITHIN_BPS:
        return Check("Threshold match", True, f"Recommended={got} bps within {WITHIN_BPS} bps of configured={have} bps "
                                              f"(delta={abs(got - have)} bps)")
    return Check("Threshold match", False, f"MISMATCH: recommended={got} bps, configured={have} bps. Consider updating "
                                           "GRINDER_FILL_PROB_MIN_BPS or re-running evaluation.")


def artifacts(folder: Path) -> Check:
    """Whether the gate has watched orders: its evidence with hashes that agree, resolutions not among it."""
    name = "Evidence artifacts"
    if not folder.is_dir():
        return Check(name, False, f"Evidence directory not found: {folder}")
    good, _ = evidence.sound(folder)
    if not good:
        return Check(name, False, f"No evidence artifacts found in {folder} (run shadow mode first)")
    return Check(name, True, f"Found {len(good)} evidence artifact(s)")


def warnings(report: dict[str, Any] | None, model: models.FillModelV | None) -> list[str]:
    """What is no failure: figures that say less than they seem to."""
    out = []
    if report is not None and report.get("in_sample") is True:
        out.append("the model was evaluated on the rows that it was trained on: its calibration proves nothing; evaluate on later ones")
    if report is not None and report["n_rows"] < FEW_ROWS:
        out.append(f"only {report['n_rows']} rows were evaluated; below {FEW_ROWS} a calibration is chance")
    served, blocked = (report.get(f"as_served_{key}_pct") if report else None for key in ("coverage", "block_rate"))
    if isinstance(served, (int, float)) and served < HALF_PCT:
        out.append(f"asked as the gate asks, the model knows {served:.0f} % of the rows; the others get its prior, one answer for all")
    if isinstance(blocked, (int, float)) and blocked > HALF_PCT:
        out.append(f"asked as the gate asks, the recommended threshold blocks {blocked:.0f} %: the breaker would trip")
    if model is not None and not model.n_train_rows:
        out.append("the model was trained on no rows")
    return out
