"""The go/no-go table of a running service: its metrics, the evidence of its starts, and what its evaluation recommends now.

The service's metrics are scraped as the runbook's curl does, so that the table speaks of what runs and not of what is configured.
"""
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from prometheus_client.parser import text_string_to_metric_families

from config.settings import Settings
from engine import metrics as m
from engine.fillprob import ceremony, threshold
from engine.fillprob.ceremony import Row, Seen
from engine.fillprob.evidence import FOLDER
from store import evidence
from store.fill_model import at, resolved
from store.fill_preflight import Asked, preflight

TIMEOUT_S = 5


class Table(NamedTuple):
    """The rows, what they come to, and where they were kept."""
    kind: str
    rows: list[Row]
    threshold: threshold.Threshold
    path: Path | None = None

    @property
    def verdict(self) -> str:
        """go, hold or no_go."""
        return ceremony.verdict(self.rows)

    def text(self) -> str:
        """The table for a terminal."""
        wide = [max(len(str(row[k])) for row in self.rows) for k in range(3)]
        lines = [f"{row.verdict:<6} {row.name:<{wide[0]}}  {row.value:<{wide[1]}}  {row.limit}".rstrip() for row in self.rows]
        return "\n".join([*lines, "", f"verdict: {self.verdict}"])


def scraped(url: str) -> Seen | None:
    """What an instance says of its gate; None where it does not answer, or is no desk with a gate."""
    try:
        with urllib.request.urlopen(url, timeout=TIMEOUT_S) as answer:
            text = answer.read().decode()
        told: Mapping[tuple[str, str], float] = {
            (s.name, s.labels.get("what", "")): s.value for family in text_string_to_metric_families(text) for s in family.samples}
        if not told[m.LIVE_ENGINE_INITIALIZED.name, ""]:
            return None
        phase = {what: told[m.FILL_PROB_PHASE.name, what] for what in m.FILL_PROB_PHASE.labels["what"]}
        return Seen(phase["market_seconds"], int(phase["checks"]), int(phase["blocks"]), int(phase["low"]), int(phase["trips"]),
                    int(phase["window_checks"]), int(phase["window_blocks"]), told[m.FILL_PROB_ENFORCE_ENABLED.name, ""] == 1,
                    int(told[m.FILL_PROB_AUTO_THRESHOLD_BPS.name, ""]))
    except (urllib.error.URLError, OSError, ValueError, KeyError):
        return None


def starts(folder: Path | None, model_manifest_sha256: str | None) -> list[dict[str, Any]]:
    """The resolutions that starts left, of this model (or of any)."""
    if folder is None:
        return []
    found, _ = evidence.sound(folder, threshold.VERSION, "threshold_resolution_*")
    return [one for one in found if model_manifest_sha256 in (None, one["model_manifest_sha256"])]


def table(settings: Settings, metrics_url: str, now_ms: int, control_url: str = "", control_artifacts: str = "",
          look: Callable[[str], Seen | None] = scraped, keep: bool = True) -> Table:
    """The ceremony's table; with `control_url` that of a canary, whose settings these are, beside its control.

    `keep`: the table leaves its file.
    """
    s = settings.fill_prob
    result = resolved(at(s.eval_dir), at(s.model_dir), s.eval_max_age_hours, now_ms) if s.eval_dir and s.model_dir else None
    got = threshold.decide(result, s.min_bps, s.auto_threshold)
    model = result.resolution.model_manifest_sha256 if result and result.resolution else None
    mine = at(s.artifact_dir or evidence.DEFAULT) / FOLDER
    seen = look(metrics_url)
    if not control_url:
        kind, rows = "ceremony", ceremony.ceremony(got, seen, starts(mine, model), bool(s.artifact_dir))
    else:
        theirs = at(control_artifacts) / FOLDER if control_artifacts else None
        checks = preflight(Asked(at(s.model_dir), at(s.eval_dir), mine, s.min_bps, True, s.auto_threshold,
                                 s.eval_max_age_hours, now_ms)).checks
        kind, rows = "canary", ceremony.promotion(
            seen, look(control_url), [check.name for check in checks if not check.passed], starts(mine, model), starts(theirs, model),
            len(evidence.sound(mine)[0]))
    path = evidence.write(at(s.artifact_dir), ceremony.artifact(kind, now_ms, rows)) if s.artifact_dir and keep else None
    return Table(kind, rows, got, path)
