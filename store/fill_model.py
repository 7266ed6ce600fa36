"""Fill models and their evaluations on disk, and what a service's start makes of them: model, threshold, log lines, evidence.

A start never fails for them: a model that is not what its manifest says is none, an evaluation that cannot be believed recommends
nothing, and a disk that takes no evidence is a line in the log.
"""
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from config.settings import ROOT, Settings
from engine.fillprob import evaluation, evaluation_v1, model_v0, models, threshold
from engine.fillprob.dataset import SCHEMA, Roundtrip
from engine.fillprob.documents import SHA256_MISMATCH, Refused, parsed, pinned, sha256
from engine.fillprob.evaluation import COST_RATIO, evaluate
from engine.fillprob.gate import Gating
from engine.fillprob.model_v0 import FillModel, FillModelV0
from store import evidence, virtual_orders
from store.artifacts import ArtifactError, publish, read
from store.virtual_orders import Orders


def save_model(model: FillModel, folder: Path, created_at_utc: str, force: bool = False,
               dataset: str | Sequence[str] | None = None) -> Path:
    """`model.json` and `manifest.json`; `dataset` is the hash of the training dataset's manifest, or those of several."""
    datasets = [dataset] if isinstance(dataset, str) else dataset or []
    return publish(folder, {model_v0.FILE: model.to_json(), model_v0.MANIFEST: model.manifest(created_at_utc, *datasets)}, force)


def load_model(folder: Path) -> models.FillModelV:
    """The model of a folder; `FileNotFoundError` where a file is missing, `ValueError` where one is not what it should be."""
    for name in (model_v0.MANIFEST, model_v0.FILE):
        if not (folder / name).is_file():
            raise FileNotFoundError(2, "no such file of a fill model", str(folder / name))
    blob = read(folder / model_v0.FILE)
    try:
        return models.loaded(read(folder / model_v0.MANIFEST), blob)
    except Refused as no:
        if no.code == SHA256_MISMATCH:
            want = parsed(read(folder / model_v0.MANIFEST), model_v0.MANIFEST)["sha256"][model_v0.FILE]
            raise ValueError(f"SHA256 mismatch for {model_v0.FILE}: expected {want}, got {sha256(blob or b'')}") from None
        raise ValueError(f"{folder}: {no}") from None


def served_model(folder: Path) -> tuple[models.FillModelV | None, str]:
    """The model that a service serves, or none; and what the log says of it."""
    if not folder.is_dir():
        return None, f"FILL_MODEL_LOAD_FAILED dir_missing=true path={folder}"
    try:
        model = models.loaded(read(folder / model_v0.MANIFEST), read(folder / model_v0.FILE))
    except Refused as no:
        return None, f"FILL_MODEL_LOAD_FAILED reason={no.code} path={folder} detail={no.detail}"
    models.ready(model)
    return model, (f"FILL_MODEL_LOADED n_bins={model.about()['n_bins']} global_prior_bps={model.global_prior_bps} "
                   f"n_train_rows={model.n_train_rows} path={folder}")


def save_evaluation(rows: Sequence[Roundtrip] | Orders, model: models.FillModelV, out: Path, *, dataset: Path, dataset_sha256: str,
                    model_dir: Path, generated_at: str, cost_ratio: float = COST_RATIO, force: bool = False) -> dict[str, Any]:
    """`eval_report.json` and its manifest; the report, as it was written. The model's manifest says what it was trained on.

    A win rate is judged by round trips, a fill probability by virtual orders; `ArtifactError` for the other.
    """
    head = read(model_dir / model_v0.MANIFEST)
    said = parsed(head, model_v0.MANIFEST)
    trained_on = said.get("datasets") or [said.get("dataset_manifest_sha256")]
    told = (str(dataset), str(model_dir), dataset_sha256, sha256(head or b""), generated_at, cost_ratio,
            None if trained_on == [None] else dataset_sha256 in trained_on)
    if isinstance(model, FillModelV0) and not isinstance(rows, Orders):
        report = evaluate(rows, model, *told)
    elif not isinstance(model, FillModelV0) and isinstance(rows, Orders):
        report = evaluation_v1.evaluate(rows.rows, rows.y, model, *told)
    else:
        raise ArtifactError(f"{dataset}: a {said.get('schema_version')} is judged by "
                            f"{SCHEMA if isinstance(model, FillModelV0) else virtual_orders.SCHEMA}, and this dataset is none")
    publish(out, evaluation.files(report), force)
    return evaluation.rounded(report)


def load_evaluation(folder: Path) -> dict[str, Any]:
    """The report of a folder; `Refused` where it is not what its manifest says."""
    blob = pinned(parsed(read(folder / evaluation.MANIFEST), evaluation.MANIFEST), evaluation.FILE, read(folder / evaluation.FILE))
    return parsed(blob, evaluation.FILE)


def resolved(eval_dir: Path, model_dir: Path, max_age_hours: str, now_ms: int) -> threshold.Result:
    """What the evaluation of a folder recommends for the model of another, or why nothing."""
    try:
        files = threshold.Files(read(eval_dir / evaluation.MANIFEST), read(eval_dir / evaluation.FILE), read(model_dir / model_v0.MANIFEST))
    except Refused as no:
        return threshold.Result(None, no.code, no.detail)
    return threshold.resolve(files, max_age_hours, now_ms)


def at(folder: str) -> Path:
    """A folder of the settings: the project's unless it is absolute."""
    return ROOT / Path(folder).expanduser()


class Opened(NamedTuple):
    """What a start of the service has: a model or none, the threshold, the log's lines, and the resolution's evidence."""
    model: models.FillModelV | None
    threshold: threshold.Threshold
    lines: tuple[str, ...]
    evidence: Path | None


def gating(settings: Settings, found: Opened) -> Gating:
    """The same as the Desk hears it."""
    return Gating(settings.fill_prob, found.model.to_json().decode() if found.model else "", found.threshold.effective_bps)


def opened(settings: Settings, now_ms: int, keep: bool = True) -> Opened:
    """Loads the model and resolves the threshold, once, at a service's start; `now_ms` is the clock's. Never raises for a file.

    `keep`: the resolution leaves its evidence; a backtest's start is none.
    """
    s = settings.fill_prob
    model, lines, result = None, [], None
    if s.model_dir and s.model_enabled:
        model, line = served_model(at(s.model_dir))
        lines.append(line)
    if s.eval_dir and not s.model_dir:
        lines.append(f"THRESHOLD_RESOLVE_SKIPPED reason=model_dir_unset eval_dir={s.eval_dir}")
    elif s.eval_dir:
        result = resolved(at(s.eval_dir), at(s.model_dir), s.eval_max_age_hours, now_ms)
    if unknown := sorted({*s.enforce_symbols} - settings.symbols.keys()):
        lines.append(f"FILL_PROB_ENFORCE_SYMBOLS_SKIPPED symbols={','.join(unknown)} reason=unknown_symbol")
    got = threshold.decide(result, s.min_bps, s.auto_threshold)
    lines += threshold.lines(got, s.eval_dir)
    proof, path = threshold.artifact(got, now_ms, s.eval_dir), None
    if proof is not None and s.artifact_dir and keep:
        path, line = kept(at(s.artifact_dir), proof)
        lines += [line] if line else []
    return Opened(model, got, tuple(lines), path)


def kept(artifact_dir: Path, artifact: dict[str, Any]) -> tuple[Path | None, str]:
    """The artifact's file; or None, and a line for the log, where the disk does not take it."""
    try:
        return evidence.write(artifact_dir, artifact), ""
    except OSError as error:
        return None, f"FILL_PROB_EVIDENCE_NOT_WRITTEN path={error.filename or artifact_dir} reason={error.strerror or error}"
