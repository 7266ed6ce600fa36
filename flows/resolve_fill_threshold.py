"""Look at the fill-probability gate: what its evaluation recommends, and the go/no-go table of the running service. Changes nothing.

  python -m flows.resolve_fill_threshold                                    the table of the ceremony, from 127.0.0.1's metrics
  python -m flows.resolve_fill_threshold --metrics http://127.0.0.1:9090/metrics \\
      --control http://127.0.0.1:9091/metrics --control-artifacts ml/artifacts/control    a canary beside its control
  PREFECT_API_URL=http://127.0.0.1:4200/api python -m flows.resolve_fill_threshold        as a flow run of that server

Which model, evaluation and artifact folder: the environment that the service has (GRINDER_…; of a canary, the canary's). Hours are market
time, so that a replay walks the ceremony in minutes. A threshold is applied when a service starts, and by no flow. Exit status 0: go,
3: hold, 4: no-go. With GRINDER_ARTIFACT_DIR the table is kept as fill_prob/go_no_go_{ts}.json.
"""
import argparse
import os
import time
from collections.abc import Callable
from functools import partial
from typing import Any

os.environ.setdefault("DO_NOT_TRACK", "1")
os.environ.setdefault("PREFECT_SERVER_ANALYTICS_ENABLED", "false")
os.environ.setdefault("PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS", "120")

from prefect import flow, task
from prefect.artifacts import create_markdown_artifact, create_table_artifact
from prefect.cache_policies import NO_CACHE

from config import settings as config
from engine.fillprob.ceremony import GO, HOLD, NO_GO
from engine.fillprob.threshold import lines
from store import disk
from store.fill_ceremony import Table, table

STATUS = {GO: 0, HOLD: 3, NO_GO: 4}


@flow(name="resolve_fill_threshold", log_prints=True)
def resolve_fill_threshold(metrics: str = "", control: str = "", control_artifacts: str = "",
                           overrides: list[str] | None = None) -> dict[str, Any]:
    """Resolves and compares; the table and its verdict are artifacts."""
    settings = config.load(*(overrides or []))
    step: Callable[[Callable], Callable[..., Table]] = partial(task, cache_policy=NO_CACHE, persist_result=False)
    got = step(table)(settings, metrics or of(settings), int(time.time() * 1000), control, control_artifacts)
    for line in lines(got.threshold, settings.fill_prob.eval_dir):
        print(line)
    create_table_artifact([row._asdict() for row in got.rows], key="fill-threshold-go-no-go", description=f"{got.kind}: {got.verdict}")
    create_markdown_artifact(f"# {got.kind}: {got.verdict}\n\n```\n{got.text()}\n```\n", key="fill-threshold-verdict",
                             description=got.verdict)
    return {"kind": got.kind, "verdict": got.verdict, "recommended_bps": got.threshold.gauge_bps,
            "effective_bps": got.threshold.effective_bps, "artifact": str(got.path or "")}


def of(settings: config.Settings) -> str:
    """Where the service on this machine answers."""
    return f"http://127.0.0.1:{settings.ports.metrics}/metrics"


def url(text: str) -> str:
    """A type for argparse: an address of metrics."""
    if not text.startswith(("http://", "https://")):
        raise argparse.ArgumentTypeError(f"{text!r} is no http:// address")
    return text


@disk.told("resolve_fill_threshold")
def main(argv: list[str] | None = None) -> int:
    """Runs it; returns the exit status."""
    parser = argparse.ArgumentParser("python -m flows.resolve_fill_threshold", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--metrics", type=url, help="the running service's metrics (default http://127.0.0.1:<ports.metrics>/metrics)")
    parser.add_argument("--control", type=url, help="the metrics of a canary's control: asks the canary's criteria")
    parser.add_argument("--control-artifacts", default="", help="the control's GRINDER_ARTIFACT_DIR")
    parser.add_argument("--config", action="append", default=[], help="YAML that overrides config/default.yaml")
    args = parser.parse_args(argv)
    settings = config.load(*args.config)
    if os.environ.get("PREFECT_API_URL"):
        told = resolve_fill_threshold(args.metrics or "", args.control or "", args.control_artifacts, args.config)
        print(told)
        return STATUS[told["verdict"]]
    got = table(settings, args.metrics or of(settings), int(time.time() * 1000), args.control or "", args.control_artifacts)
    print("\n".join([*lines(got.threshold, settings.fill_prob.eval_dir), got.text()]))
    return STATUS[got.verdict]


if __name__ == "__main__":
    raise SystemExit(main())
