"""Every deployment and its cron: `python -m flows.schedules` serves them to the Prefect server at PREFECT_API_URL.

Crons stand in `schedules` of the configuration. A flow finds by itself what its window has already brought, so that a run missed
while nothing served is made up for by the next one. `--list` prints what would be served.
"""
import argparse
from typing import Any

from config import settings as config
from flows.resolve_fill_threshold import resolve_fill_threshold
from flows.train import train_model
from flows.train_fill_model import train_fill_model

DEPLOYMENTS = (
    (train_model, "Labels what the archive holds, trains, and registers the model; the first becomes active"),
    (train_fill_model, "Round trips of the desk's fills, a fill model on the earlier ones, its evaluation on the later ones"),
    (resolve_fill_threshold, "What the evaluation recommends, and the go/no-go table of the running gate; changes nothing"),
)


def main(argv: list[str] | None = None) -> int:
    """Serves until it is stopped; returns the exit status."""
    parser = argparse.ArgumentParser("python -m flows.schedules", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--list", action="store_true", help="print the deployments and end")
    parser.add_argument("--config", action="append", default=[], help="YAML that overrides config/default.yaml")
    args = parser.parse_args(argv)
    crons = config.load(*args.config).schedules
    unknown = crons.keys() - {flow.name for flow, _ in DEPLOYMENTS}
    if unknown:
        raise config.ConfigError([f"schedules.{name}: no such flow; there are {', '.join(f.name for f, _ in DEPLOYMENTS)}"
                                  for name in sorted(unknown)])
    if args.list:
        for flow, why in DEPLOYMENTS:
            print(f"{flow.name:<24} {crons.get(flow.name) or 'by hand':<16} {why}")
        return 0
    from prefect import serve
    from prefect.client.schemas.schedules import CronSchedule
    deployments: list[Any] = [
        flow.to_deployment(flow.name.replace("_", "-"), description=why, tags=["sluice"], parameters={"overrides": args.config},
                           schedules=[CronSchedule(cron=cron, timezone="UTC")] if (cron := crons.get(flow.name)) else None)
        for flow, why in DEPLOYMENTS]
    serve(*deployments, pause_on_shutdown=False, limit=1)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
