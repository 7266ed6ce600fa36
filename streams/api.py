"""The HTTP API: what time it is here and which version answers. `python -m streams.api`

Its first form: `/api/time` and `/api/version`; the policy endpoints move in with capital rebalancing.
"""

import argparse
import importlib.metadata
import subprocess
import time

import uvicorn
from fastapi import FastAPI

from config import settings as config
from config.settings import ROOT, Settings
from engine.scoring.features import SCHEMA_HASH
from store.exporter import Exporter


def revision() -> str:
    """The commit that runs, or nothing outside a checkout."""
    try:
        return subprocess.run(["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True, timeout=5).stdout.strip()
    except (OSError, subprocess.TimeoutExpired):
        return ""


def app(settings: Settings) -> FastAPI:
    """The application."""
    api = FastAPI(title="Sluice", version=importlib.metadata.version("sluice"), docs_url="/api/docs", openapi_url="/api/openapi.json")
    known = {
        "version": importlib.metadata.version("sluice"),
        "revision": revision(),
        "schema_hash": SCHEMA_HASH,
        "desk": settings.desk.name,
        "instance": settings.instance,
    }

    @api.get("/api/time")
    def now() -> dict:
        return {"now_ms": int(time.time() * 1000)}

    @api.get("/api/version")
    def version() -> dict:
        return known

    return api


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m streams.api", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--config", action="append", default=[], help="YAML that overrides config/default.yaml")
    parser.add_argument("--metrics-port", type=int, default=0, help="Prometheus metrics (default: none)")
    args = parser.parse_args(argv)
    settings = config.load(*args.config)
    stop = Exporter([]).serve(args.metrics_port, settings.ports.bind) if args.metrics_port else None
    uvicorn.run(app(settings), host=settings.ports.bind, port=settings.ports.api, log_level="warning", timeout_graceful_shutdown=3)
    if stop:
        stop()
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
