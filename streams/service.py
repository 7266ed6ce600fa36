"""One service as a process: `python -m streams.<service> [--config FILE] [--metrics-port N]`."""
import argparse
import importlib

from config import settings as config
from engine.metrics import SERVICES, STAGES
from store import disk
from store.database import LedgerError
from store.exporter import Exporter
from streams.stopping import Stop
from streams.worker import Worker, log, run, setup_logging, why


def symbols_of(settings: config.Settings) -> list[str]:
    """Every configured symbol: label sets are closed over them."""
    return sorted(settings.symbols)


def main(name: str, argv: list[str] | None = None) -> int:
    """Runs the named service until it is told to stop; its metrics port defaults to ports.metrics plus its place on the route."""
    module = importlib.import_module(f"streams.{name}")
    parser = argparse.ArgumentParser(prog=f"python -m streams.{name}", description=module.__doc__)
    parser.add_argument("--config", action="append", default=[], help="YAML that overrides config/default.yaml; may be given again")
    parser.add_argument("--metrics-port", type=int, help="Prometheus metrics; default ports.metrics + the service's number")
    args = parser.parse_args(argv)
    setup_logging()
    settings = config.load(*args.config)
    port = args.metrics_port if args.metrics_port is not None else settings.ports.metrics + SERVICES.index(name)
    return launch([name], settings, port)


def launch(names: list[str], settings: config.Settings, port: int, stop: Stop | None = None) -> int:
    """The named services in this process until they are told to stop; what a person can mend is one line and status 1."""
    stop = stop or Stop(", ".join(names))
    disk.usable(settings.folder("data"), "paths.data")
    exporter = Exporter(symbols_of(settings), arms=settings.bandit.arms)
    try:
        made = workers(names, settings, exporter)
    except (LedgerError, OSError) as error:
        log.error("%s: %s", stop.name, why(error))
        return 1
    return run(made, exporter, settings, port, stop)


def workers(names: list[str], settings: config.Settings, exporter: Exporter) -> list[Worker]:
    """The named services' workers, in the route's order."""
    return [importlib.import_module(f"streams.{name}").make(settings, exporter) for name in STAGES if name in names]
