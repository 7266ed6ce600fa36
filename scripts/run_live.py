"""All stream services in one process: the desk, live.

    python -m scripts.run_live --symbols BTCUSDT --metrics-port 9090

The exchange is a process of its own: `python -m streams.exchange`.
"""

import argparse
import os

from config import settings as config
from engine.metrics import STAGES
from engine.scoring.signals import warm
from scripts._arguments import ended, port
from streams.service import launch
from streams.worker import setup_logging


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m scripts.run_live", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--symbols", help="comma-separated; overrides exchange.symbols")
    parser.add_argument("--metrics-port", type=port, help="Prometheus metrics of all services (default ports.metrics)")
    parser.add_argument("--services", default=",".join(STAGES), help=f"which of {', '.join(STAGES)} (default all)")
    parser.add_argument("--config", action="append", default=[], help="YAML that overrides config/default.yaml; may be given again")
    args = parser.parse_args(argv)
    unknown = set(args.services.split(",")) - set(STAGES)
    if unknown:
        parser.error(f"--services: {', '.join(sorted(unknown))} is none of {', '.join(STAGES)}")
    env = dict(os.environ)
    if args.symbols:
        env["SLUICE_SYMBOLS"] = args.symbols
    setup_logging()
    settings = config.load(*args.config, env=env)
    for symbol in settings.exchange.symbols:
        settings.instrument(symbol)
    warm()
    return launch(args.services.split(","), settings, args.metrics_port if args.metrics_port is not None else settings.ports.metrics)


if __name__ == "__main__":
    raise SystemExit(ended(main))
