"""Train, calibrate, export and register a model, as the train_model flow does, without a Prefect server.

  python -m scripts.train --data data/archive/sim --output-dir models/latest
  python -m scripts.train --data data/training.parquet          (rows that scripts.labeling wrote)
  python -m scripts.train --force                               (again, although the same data have made a model)

The model goes to models/registry/ID. `models/latest` always links to the active model: the first model becomes it, a later one only
by `python -m scripts.promote_model --to active --id ID`. Any other --output-dir gets a copy of the new model's files.
"""
import argparse
import os
import shutil
import sys
from pathlib import Path

from config import settings as config
from flows.train import REFUSED, report
from scripts._arguments import ended
from store import disk
from store.pipeline import train
from store.registry import Registry


@disk.told("train")
def main(argv: list[str] | None = None) -> int:
    """Trains; returns the exit status."""
    parser = argparse.ArgumentParser("python -m scripts.train", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="", help="an archive folder or a table of labelled rows; default: a simulated market")
    parser.add_argument("--output-dir", type=Path, help="models/latest, or a folder for a copy of the model's files")
    parser.add_argument("--symbols", default="", help="comma-separated; default: all of the archive")
    parser.add_argument("--force", action="store_true", help="train again although the same data and settings made a model before")
    parser.add_argument("--config", action="append", default=[], help="YAML that overrides config/default.yaml")
    args = parser.parse_args(argv)
    settings = config.load(*args.config)
    models = settings.folder("models")
    output = None if args.output_dir in (None, Path("models/latest"), models / "latest") else args.output_dir.absolute()
    if output is not None and output.is_symlink():
        print(f"train: --output-dir {args.output_dir}: is a link; name a folder of its own", file=sys.stderr)
        return 1
    if output is not None and output.exists() and any(output.iterdir()) and not (output / "model.json").is_file():
        print(f"train: --output-dir {args.output_dir}: holds other files than a model's; name another folder", file=sys.stderr)
        return 1
    try:
        got = train(settings, args.data, [s for s in args.symbols.split(",") if s] or None, args.force)
    except REFUSED as error:
        print(f"train: {error}", file=sys.stderr)
        return 1
    print(report(got))
    registry = Registry(models)
    active = registry.slot("active")
    if output is not None:
        staged = output.with_name(f".{output.name}-{os.getpid()}")
        shutil.rmtree(staged, ignore_errors=True)
        staged.parent.mkdir(parents=True, exist_ok=True)
        shutil.copytree(registry.root / got.model_id, staged)
        shutil.rmtree(output, ignore_errors=True)
        os.replace(staged, output)
        print(f"copied to {args.output_dir}")
    elif active is not None and active.name != got.model_id:
        print(f"{models / 'latest'} stays at the active model {active.name}; "
              f"python -m scripts.promote_model --to active --id {got.model_id} changes that")
    return 0


if __name__ == "__main__":
    raise SystemExit(ended(main))
