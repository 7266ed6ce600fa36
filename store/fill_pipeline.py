"""From fills to a judged model: datasets of earlier and later trips, FillModelV0, its evaluation; each a folder to check."""
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from config.settings import Settings
from engine.fillprob.dataset import SCHEMA, Execution, Roundtrip, parts, roundtrips
from engine.fillprob.evaluation import COST_RATIO
from engine.fillprob.model_v0 import FillModelV0
from store.artifacts import ArtifactError, created_at
from store.fill_model import save_evaluation, save_model
from store.fill_outcomes import fixture, load, of_ledger, order_log, write
from store.ledger import ledger_url

LATER = f"{SCHEMA}_later"
MODEL, EVALUATION, DATASETS = "models/fill_model_v0", "eval/fill_model_v0", "datasets"
Step = Callable[[Callable], Callable]


class Made(NamedTuple):
    """What came of it, and where it lies."""
    model: FillModelV0
    report: dict[str, Any]
    folders: dict[str, Path]


def fills_of(settings: Settings, source: str) -> list[Execution]:
    """Fills of a .json or .parquet file, of a ledger's URL or, with nothing said, of the desk's own ledger."""
    if not source or "://" in source:
        return of_ledger(source or ledger_url(settings))
    return order_log(Path(source)) if source.endswith(".parquet") else fixture(Path(source))


def train(settings: Settings, source: str, out: Path, first: float, cost_ratio: float = COST_RATIO, created_at_utc: str = "",
          force: bool = False, step: Step = lambda work: work, say: Callable[[str], object] = print) -> Made:
    """Trains on the first share of the trips by time and judges by the rest, under `out`; `ArtifactError` where there are too few."""
    made = created_at(created_at_utc)
    if not 0 < first < 1:
        raise ArtifactError(f"--first: {first} is not a share between 0 and 1")
    fills = step(fills_of)(settings, source)
    rows: list[Roundtrip] = step(roundtrips)(fills)
    earlier, later = parts(rows, first)
    if not earlier or not later:
        raise ArtifactError(f"{source or 'the ledger'}: {len(rows)} round trips of {len(fills)} fills; some to train on and some to "
                            "judge by were expected")
    say(f"{len(fills)} fills, {len(earlier)} round trips to train on, {len(later)} later ones to judge by")

    def datasets() -> tuple[Path, Path]:
        return (write(earlier, out / DATASETS, SCHEMA, made, force), write(later, out / DATASETS, LATER, made, force))

    def model() -> tuple[FillModelV0, Path]:
        train_rows, pinned = load(folders[0])
        got = FillModelV0.train(train_rows)
        return got, save_model(got, out / MODEL, made, force, pinned)

    def evaluation() -> dict[str, Any]:
        judged, pinned = load(folders[1])
        return save_evaluation(judged, trained, out / EVALUATION, dataset=folders[1], dataset_sha256=pinned, model_dir=folder,
                               generated_at=made, cost_ratio=cost_ratio, force=force)
    folders = step(datasets)()
    trained, folder = step(model)()
    report = step(evaluation)()
    return Made(trained, report, {"train": folders[0], "later": folders[1], "model": folder, "eval": out / EVALUATION})
