"""Train a model: archive → labels → fit and calibrate → registry; the first one becomes active.

  python -m flows.train                                  a simulated market, where no data are named
  python -m flows.train --data data/archive/bybit --symbols BTCUSDT
  PREFECT_API_URL=http://127.0.0.1:4200/api python -m flows.train    as a flow run of that server

Without PREFECT_API_URL the same steps run in this process, and no server is started for them; --prefect starts a short-lived one.
"""
import argparse
import os
import sys
from functools import partial
from typing import Any

os.environ.setdefault("DO_NOT_TRACK", "1")
os.environ.setdefault("PREFECT_SERVER_ANALYTICS_ENABLED", "false")
os.environ.setdefault("PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS", "120")

from prefect import flow, get_run_logger, task
from prefect.artifacts import create_markdown_artifact, create_table_artifact
from prefect.cache_policies import NO_CACHE

from config import settings as config
from store import disk
from store.archive import ArchiveError
from store.dataset import DatasetError
from store.export import ExportError
from store.model_card import edge
from store.parity import ParityError
from store.pipeline import Trained, train
from store.recorded import RecordingError
from store.registry import Registry, RegistryError
from store.training import TrainingError

REFUSED = (ArchiveError, DatasetError, ExportError, ParityError, RecordingError, RegistryError, TrainingError)


@flow(name="train_model", log_prints=True)
def train_model(data: str = "", symbols: list[str] | None = None, force: bool = False,
                overrides: list[str] | None = None) -> dict[str, Any]:
    """Trains on the archive `data` (nothing: a simulated one) and registers the model, unless the same one is there."""
    settings = config.load(*(overrides or []))
    step = partial(task, cache_policy=NO_CACHE, persist_result=False)
    got = train(settings, data, symbols, force, "flow train_model", step, get_run_logger().info)
    card = Registry(settings.folder("models")).root / got.model_id / "model_card.md"
    create_markdown_artifact(card.read_text(), key="model-card", description=f"{got.model_id}: {edge(got.metrics)}")
    create_table_artifact([{k: row[k] for k in ("tau", "candidates", "fills", "precision", "winrate", "net_bps")}
                           for row in got.metrics["thresholds"]], key="model-thresholds", description=f"{got.model_id} out of sample")
    return {"model_id": got.model_id, "new": got.new, "promoted": got.promoted}


def report(got: Trained) -> str:
    """What a person wants to read after a training."""
    m = got.metrics
    lines = [f"{got.model_id}: {'registered' if got.new else 'already registered'}",
             f"PR-AUC {m['pr_auc']:.3f} (base rate {m['base_rate']:.3f}), Brier {m['brier']:.3f}, ECE {m['ece']:.3f}; "
             f"{100 * m['share_at_70']:.2f} % of candidates score 0.7 or more", edge(m)]
    return "\n".join([*lines, *([got.promoted] if got.promoted else [])])


@disk.told("train")
def main(argv: list[str] | None = None) -> int:
    """Runs it; returns the exit status."""
    parser = argparse.ArgumentParser("python -m flows.train", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="", help="an archive folder, or a table of labelled rows (scripts.labeling)")
    parser.add_argument("--symbols", default="", help="comma-separated; default: all of the archive")
    parser.add_argument("--force", action="store_true", help="train again although the same data and settings made a model before")
    parser.add_argument("--config", action="append", default=[], help="YAML that overrides config/default.yaml")
    parser.add_argument("--prefect", action="store_true", help="as a Prefect flow run also without PREFECT_API_URL")
    args = parser.parse_args(argv)
    symbols = [s for s in args.symbols.split(",") if s] or None
    try:
        if args.prefect or os.environ.get("PREFECT_API_URL"):
            print(train_model(args.data, symbols, args.force, args.config))
        else:
            print(report(train(config.load(*args.config), args.data, symbols, args.force)))
    except REFUSED as error:
        print(f"train: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
