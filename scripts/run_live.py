"""All stream services in one process: the desk, live.

    python -m scripts.run_live --symbols BTCUSDT --metrics-port 9090
    SLUICE_INSTANCE=canary python -m scripts.run_live --exchange --symbols BTCUSDT --metrics-port 9090

The exchange is a process of its own (`python -m streams.exchange`). With --exchange it is started beside the desk and ends with it, and
the instance's topics are made where they are missing: what is left to start before is a broker (`python -m streams.broker`). The scorer's
model is the first `make demo`'s. Several such instances share a broker; each has a SLUICE_INSTANCE of its own.
"""

import argparse
import os
import shutil
import signal
import subprocess
import sys
import threading

from config import settings as config
from engine.metrics import STAGES
from engine.scoring.signals import warm
from scripts._arguments import ended, port
from store import bus, disk
from streams import admin
from streams.broker import free_port
from streams.service import launch
from streams.stopping import Stop
from streams.worker import log, setup_logging


def arguments(argv: list[str] | None = None) -> argparse.Namespace:
    """What was asked for; a bad argument ends the process with one line."""
    parser = argparse.ArgumentParser(
        prog="python -m scripts.run_live", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--symbols", help="comma-separated; overrides exchange.symbols")
    parser.add_argument("--metrics-port", type=port, help="Prometheus metrics of all services (default ports.metrics)")
    parser.add_argument("--services", default=",".join(STAGES), help=f"which of {', '.join(STAGES)} (default all)")
    parser.add_argument("--exchange", action="store_true", help="with an exchange of its own beside it; makes missing topics")
    parser.add_argument("--config", action="append", default=[], help="YAML that overrides config/default.yaml; may be given again")
    args = parser.parse_args(argv)
    unknown = set(args.services.split(",")) - set(STAGES)
    if unknown:
        parser.error(f"--services: {', '.join(sorted(unknown))} is none of {', '.join(STAGES)}")
    return args


def own_market(env: dict[str, str]) -> dict[str, str]:
    """The environment of a desk with an exchange of its own: a feed by its instance and a free port, where none is said."""
    feed, at = env.get("SLUICE_FEED") or env.get("SLUICE_INSTANCE", ""), env.get("SLUICE_EXCHANGE_PORT") or str(free_port())
    return env | {"SLUICE_FEED": feed, "SLUICE_EXCHANGE_PORT": at}


def exchange(overrides: list[str], env: dict[str, str], stop: Stop) -> subprocess.Popen:
    """The exchange as a process that ends with this one, however this one ends; its lines come where ours do. One that fails ends the
    desk; one whose market is over leaves it, to be looked at."""
    setpriv = shutil.which("setpriv")
    command = [sys.executable, "-m", "streams.exchange", *(word for path in overrides for word in ("--config", path))]
    child = subprocess.Popen([*([setpriv, "--pdeathsig", "TERM"] if setpriv else []), *command], env=env, cwd=config.ROOT,
                             stdin=subprocess.DEVNULL, start_new_session=True)

    def watch() -> None:
        if status := child.wait():
            how = f"was killed by {signal.Signals(-status).name}" if status < 0 else f"ended with status {status}"
            stop.begin(f"its exchange {how}", 1)
        elif not stop.told:
            log.info("the market is over; the desk stays, to be looked at: Ctrl-C ends it")

    threading.Thread(target=watch, name="exchange", daemon=True).start()
    return child


def main(argv: list[str] | None = None) -> int:
    """The command."""
    args = arguments(argv)
    env = dict(os.environ)
    if args.symbols:
        env["SLUICE_SYMBOLS"] = args.symbols
    if args.exchange:
        env = own_market(env)
    setup_logging()
    settings = config.load(*args.config, env=env)
    for symbol in settings.exchange.symbols:
        settings.instrument(symbol)
    names, at = args.services.split(","), args.metrics_port if args.metrics_port is not None else settings.ports.metrics
    if not args.exchange:
        warm()
        return launch(names, settings, at)
    disk.usable(settings.folder("data"), "paths.data")
    try:
        made = admin.ensure(settings)
    except bus.BusDown as error:
        log.error("%s; python -m streams.broker starts one on this machine", error)
        return 1
    log.info("instance %s: %s, %s:%d is its exchange", settings.instance or "(none; SLUICE_INSTANCE names one)",
             f"{len(made)} topics made" if made else "topics all there", settings.exchange.host, settings.exchange.port)
    stop = Stop(", ".join(names))
    exchange(args.config, env, stop)
    warm()
    return launch(names, settings, at, stop)


if __name__ == "__main__":
    raise SystemExit(ended(main))
