"""Halts the desk at once: entries are taken back, exits go on, nothing is opened until somebody releases it.

python -m scripts.kill --reason "feed looks wrong"
python -m scripts.release_kill --reason "feed is back"
"""

import argparse
import getpass
import sys
import time

from config import settings as config
from engine.facts import KILL, Control
from store import bus
from streams.codec import encode
from streams.topics import CONTROL_EVENTS, named


def send(kind: str, doc: str, prog: str, argv: list[str] | None) -> int:
    """Publishes one control fact with its actor and reason; exit 1 where the broker does not answer."""
    parser = argparse.ArgumentParser(
        prog=f"python -m scripts.{prog}", description=doc, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--reason", required=True, help="why; it stands in the ledger")
    parser.add_argument("--actor", default=getpass.getuser(), help="who (default: the user that runs this)")
    parser.add_argument("--config", action="append", default=[], help="YAML that overrides config/default.yaml")
    args = parser.parse_args(argv)
    settings = config.load(*args.config)
    now = int(time.time() * 1000)
    fact = Control(f"{kind.lower()}-{now}-{args.actor}", kind, args.actor, args.reason, 0, 0)
    try:
        with bus.Publisher(settings) as publisher:
            partition, offset = publisher.send(named(CONTROL_EVENTS, settings), encode(fact), "control")
    except bus.BusDown as error:
        print(error, file=sys.stderr)
        return 1
    print(f"{kind} by {args.actor} ({args.reason}): {named(CONTROL_EVENTS, settings)}/{partition}/{offset}")
    return 0


def main(argv: list[str] | None = None) -> int:
    return send(KILL, __doc__ or "", "kill", argv)


if __name__ == "__main__":
    raise SystemExit(main())
