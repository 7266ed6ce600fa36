"""Train a fill model: fills → round trips → datasets of earlier and later ones → FillModelV0 → its evaluation.

  python -m flows.train_fill_model --out ml                          the desk's own fills, from its ledger
  python -m flows.train_fill_model --source fills.json --out /tmp/ml --first 0.7
  PREFECT_API_URL=http://127.0.0.1:4200/api python -m flows.train_fill_model    as a flow run of that server

Under --out come datasets/fill_outcomes_v1, datasets/fill_outcomes_v1_later, models/fill_model_v0 and eval/fill_model_v0, as the scripts
build_fill_dataset_v1, train_fill_model_v0 and eval_fill_model_v0 make them. What is there stays unless --force.
"""
import argparse
import os
import sys
from functools import partial
from math import inf
from pathlib import Path
from typing import Any

os.environ.setdefault("DO_NOT_TRACK", "1")
os.environ.setdefault("PREFECT_SERVER_ANALYTICS_ENABLED", "false")
os.environ.setdefault("PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS", "120")

from prefect import flow, get_run_logger, task
from prefect.artifacts import create_table_artifact
from prefect.cache_policies import NO_CACHE

from config import settings as config
from engine.fillprob.documents import Refused
from engine.fillprob.evaluation import COST_RATIO
from store import disk
from store.artifacts import ArtifactError
from store.database import LedgerError
from store.fill_model import at
from store.fill_pipeline import Made, train

FIRST = 0.7
REFUSED = (ArtifactError, LedgerError, Refused, FileExistsError, ValueError)


@flow(name="train_fill_model", log_prints=True)
def train_fill_model(source: str = "", out: str = "ml", first: float = FIRST, cost_ratio: float = COST_RATIO, created_at_utc: str = "",
                     force: bool = False, overrides: list[str] | None = None) -> dict[str, Any]:
    """Trains on the first share of the trips in `source` (nothing: the desk's ledger) and judges by the rest, under `out`."""
    step = partial(task, cache_policy=NO_CACHE, persist_result=False)
    made = train(config.load(*(overrides or [])), source, at(out), first, cost_ratio, created_at_utc, force, step, get_run_logger().info)
    create_table_artifact([row for row in made.report["threshold_sweep"] if row["threshold_bps"] % 500 == 0], key="fill-model-thresholds",
                          description=said(made))
    return {"model": str(made.folders["model"]), "eval": str(made.folders["eval"]), "n_rows": made.report["n_rows"],
            "recommended_threshold_bps": made.report["recommended_threshold_bps"],
            "calibration_well_calibrated": made.report["calibration_well_calibrated"]}


def said(made: Made) -> str:
    """What came of it in a line."""
    r = made.report
    return (f"{len(made.model.bins)} bins of {made.model.n_train_rows} round trips; judged by {r['n_rows']} later ones: recommended "
            f"{r['recommended_threshold_bps']} bps, calibration error {r['calibration_max_error_bps']} bps"
            f"{'' if r['calibration_well_calibrated'] else ' (not well calibrated)'}")


@disk.told("train_fill_model")
def main(argv: list[str] | None = None) -> int:
    """Runs it; returns the exit status."""
    parser = argparse.ArgumentParser("python -m flows.train_fill_model", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--source", default="", help="fills as .json or .parquet, or a ledger's URL; default: the desk's ledger")
    parser.add_argument("--out", default="ml", help="the folder of all that is made (default ml)")
    parser.add_argument("--first", type=float, default=FIRST, help=f"share of the trips that is trained on (default {FIRST})")
    parser.add_argument("--cost-ratio", type=float, default=COST_RATIO, help=f"worth of an avoided loss, in wins (default {COST_RATIO})")
    parser.add_argument("--created-at-utc", default="", metavar="T", help="written into what is made, like 2026-01-06T00:00:00Z")
    parser.add_argument("--force", action="store_true", help="replace what is there")
    parser.add_argument("--config", action="append", default=[], help="YAML that overrides config/default.yaml")
    args = parser.parse_args(argv)
    if not 0 < args.first < 1:
        parser.error(f"argument --first: {args.first:g} is not a share above 0 and below 1")
    if not 0 < args.cost_ratio < inf:
        parser.error(f"argument --cost-ratio: {args.cost_ratio:g} is not a number above 0")
    told = (args.source, args.out, args.first, args.cost_ratio, args.created_at_utc, args.force)
    try:
        if os.environ.get("PREFECT_API_URL"):
            print(train_fill_model(*told, args.config))
        else:
            source, out, *rest = told
            print(said(train(config.load(*args.config), source, Path(out), *rest)))
    except REFUSED as error:
        print(f"train_fill_model: {disk.said(error) if isinstance(error, OSError) else error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
