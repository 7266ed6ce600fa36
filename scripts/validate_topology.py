"""Check instances that shall run side by side (canary and control): disjoint symbols, folders of their own, the same settings otherwise.

  python -m scripts.validate_topology canary.env control.env --symbols BTCUSDT,ETHUSDT
  python -m scripts.validate_topology --compose docker-compose.yml --compose docker-compose.ha.yml grinder_canary grinder_control

An .env file has a KEY=VALUE a line (SLUICE_INSTANCE, SLUICE_SYMBOLS, GRINDER_…); what it does not say is the default. Of a compose file
the services are named. --symbols is everything that shall be traded (default exchange.symbols). Limits hold for an instance, not for
an account: their sum is printed. Exit status 1 with a line for each fault.
"""
import argparse
import os
import sys
from pathlib import Path

from config.settings import ConfigError, load
from config.topology import Instance, faults, of_compose, of_env_file, sums
from scripts._arguments import ended


def table(instances: list[Instance]) -> str:
    """Who trades what, and the limits with their sum."""
    names = [one.name for one in instances]
    wide = max(12, *map(len, names)) + 2
    lines = [f"{one.name:<{wide}}{one.role:<9}enforce={int(one.settings.fill_prob.enforce)} symbols={','.join(one.symbols)} "
             f"artifacts={one.artifacts or 'unset'}" for one in instances]
    lines += ["", f"{'limit':<40}{''.join(f'{n:>{wide}}' for n in names)}{'together':>{wide}}"]
    lines += [f"{key:<40}{''.join(f'{v:>{wide}g}' for v in values)}{total:>{wide}g}" for key, values, total in sums(instances)]
    return "\n".join(lines)


def main(argv: list[str] | None = None) -> int:
    """The command."""
    parser = argparse.ArgumentParser("python -m scripts.validate_topology", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("instances", nargs="+", metavar="INSTANCE", help="an .env file each; with --compose a service's name each")
    parser.add_argument("--compose", type=Path, action="append", default=[], help="a compose file; may be given again, later ones override")
    parser.add_argument("--symbols", help="comma-separated: all that shall be traded")
    args = parser.parse_args(argv)
    try:
        some = of_compose(args.compose, args.instances, os.environ) if args.compose else [of_env_file(Path(p)) for p in args.instances]
        traded = [s.strip() for s in args.symbols.split(",") if s.strip()] if args.symbols else load().exchange.symbols
    except ConfigError as error:
        print(error, file=sys.stderr)
        return 1
    print(table(some))
    wrong = faults(some, traded)
    for fault in wrong:
        print(f"FAIL {fault}", file=sys.stderr)
    if not wrong:
        print(f"\nOK: {len(some)} instances, {', '.join(traded)}")
    return 1 if wrong else 0


if __name__ == "__main__":
    raise SystemExit(ended(main))
