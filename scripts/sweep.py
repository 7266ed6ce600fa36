"""Takes back every entry that rests at the venue, whatever becomes of desk, executor and broker; a KILL does this as well.

  python -m scripts.sweep

It asks the venue itself, again until two looks in a row find nothing. It halts nobody: what the desk decides then is sent. Exits stay.
"""
import argparse

from config import settings as config
from scripts._arguments import ended
from scripts.kill import swept


def main(argv: list[str] | None = None) -> int:
    """Sweeps; status 1 where the venue could not be asked."""
    plain = argparse.RawDescriptionHelpFormatter
    made = argparse.ArgumentParser(prog="python -m scripts.sweep", description=__doc__, formatter_class=plain)
    made.add_argument("--config", action="append", default=[], help="YAML that overrides config/default.yaml")
    taken = swept(config.load(*made.parse_args(argv).config))
    if taken == []:
        print("no entry rests at the venue")
    return 1 if taken is None else 0


if __name__ == "__main__":
    raise SystemExit(ended(main))
