"""Put a registered model into a slot, after every check: `--to active` or `--to shadow`; services read it when they start.

  python -m scripts.promote_model --to shadow --id lgbm-20260101T1000-0a1b2c3d
  python -m scripts.promote_model --to active --id PREVIOUS_ID          (a rollback by hand)
  python -m scripts.promote_model --list
"""
import argparse
import sys

from config import settings as config
from engine.scoring.features import SCHEMA_HASH
from scripts._arguments import ended
from store import disk
from store.registry import SLOTS, Registry, RegistryError


@disk.told("promote_model")
def main(argv: list[str] | None = None) -> int:
    """Promotes; returns the exit status."""
    parser = argparse.ArgumentParser("python -m scripts.promote_model", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--to", choices=SLOTS, help="the slot")
    parser.add_argument("--id", help="the model, as the manifest names it")
    parser.add_argument("--list", action="store_true", help="print the registered models, oldest first, with their slots")
    parser.add_argument("--config", action="append", default=[], help="YAML that overrides config/default.yaml")
    args = parser.parse_args(argv)
    registry = Registry(config.load(*args.config).folder("models"))
    try:
        if args.list:
            held = {slot: folder.name for slot in SLOTS if (folder := registry.slot(slot))}
            for entry in registry.entries():
                print(entry["id"], entry["created_at"], *(slot for slot in SLOTS if held.get(slot) == entry["id"]))
            return 0
        if not args.to or not args.id:
            parser.error("--to and --id are needed, or --list")
        print(registry.promote(args.id, args.to, SCHEMA_HASH))
    except RegistryError as error:
        print(f"promote_model: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(ended(main))
