"""Makes the desk's topics on the broker and shows what is in them.

    python -m streams.admin              makes what is missing, then one line a partition, and who shares a stage's
"""
import argparse
import sys
from pathlib import Path

from config.settings import Settings, load
from store import bus
from streams.topics import SHARED, TOPICS, group, named

STATE_BYTES = 16 << 20    # a segment of a compacted log: the newest is never compacted


def names(settings: Settings) -> list[str]:
    """The topics of this instance, in the order of the map."""
    return [named(t, settings) for t in TOPICS]


def ensure(settings: Settings) -> list[str]:
    """Makes the desk's topics where they are missing; those it made. Raises `store.bus.BusDown`."""
    compact = {named(t, settings): {"cleanup.policy": "compact", "segment.bytes": STATE_BYTES} for t in TOPICS if t.compact}
    return bus.ensure_topics(settings, names(settings), compact, whole=[named(t, settings) for t in TOPICS if not t.by_symbol])


def otherwise(settings: Settings, ends: dict[tuple[str, int], tuple[int, int]]) -> list[str]:
    """What stands on the broker in another number of partitions than is configured: it is left so."""
    there = {name: sum(topic == name for topic, _ in ends) for name in names(settings)}
    wanted = {named(t, settings): settings.kafka.partitions if t.by_symbol else 1 for t in TOPICS}
    return [f"{name}: {there[name]} partitions, kafka.partitions asks for {n}; it stays as it is (docs/operations.md, Repartitioning)"
            for name, n in wanted.items() if there[name] != n]


def main(argv: list[str] | None = None) -> int:
    """The command."""
    parser = argparse.ArgumentParser("python -m streams.admin", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", type=Path, action="append", default=[], help="an override of config/default.yaml")
    settings = load(*parser.parse_args(argv).config)
    try:
        made, ends = ensure(settings), bus.ends(settings, names(settings))
        members = {stage: bus.members(settings, group(stage, settings)) for stage in SHARED if settings.scale.shared}
    except bus.BusDown as error:
        print(error, file=sys.stderr)
        return 1
    for (topic, partition), (first, last) in sorted(ends.items()):
        print(f"{topic}/{partition}: {last - first} records from offset {first}{' (made now)' if topic in made else ''}")
    for stage in SHARED if settings.scale.shared else ():
        for client, has in members[stage].items():
            print(f"{stage}: {client} has {', '.join(f'{t}/{p}' for t, p in has) or 'no partition: a stand-by'}")
    for fault in otherwise(settings, ends):
        print(fault, file=sys.stderr)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
