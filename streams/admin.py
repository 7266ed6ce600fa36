"""Makes the desk's topics on the broker and shows what is in them.

    python -m streams.admin              makes what is missing, then one line a topic
"""
import argparse
import sys
from pathlib import Path

from config.settings import Settings, load
from store import bus
from streams.topics import TOPICS, named


def names(settings: Settings) -> list[str]:
    """The topics of this instance, in the order of the map."""
    return [named(t, settings) for t in TOPICS]


def ensure(settings: Settings) -> list[str]:
    """Makes the desk's topics where they are missing; those it made. Raises `store.bus.BusDown`."""
    return bus.ensure_topics(settings, names(settings))


def main(argv: list[str] | None = None) -> int:
    """The command."""
    parser = argparse.ArgumentParser("python -m streams.admin", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", type=Path, action="append", default=[], help="an override of config/default.yaml")
    settings = load(*parser.parse_args(argv).config)
    try:
        made, ends = ensure(settings), bus.ends(settings, names(settings))
    except bus.BusDown as error:
        print(error, file=sys.stderr)
        return 1
    for (topic, partition), (first, last) in sorted(ends.items()):
        print(f"{topic}/{partition}: {last - first} records from offset {first}{' (made now)' if topic in made else ''}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
