"""Rebuild what is generated: dashboards, alert rules and their tests, scrape files, docs/metrics.md, docs/config.md,
docs/reasons.md, and the table of an order's life in docs/execution.md.

    python -m scripts.build_generated             writes what changed and names it
    python -m scripts.build_generated --check     writes nothing; exit status 1 where a file is not current

Thresholds in the rules come from `config/default.yaml`. A desk with limits of its own passes them, so that the alerts
and the guards go on to agree: `python -m scripts.build_generated --config config/ours.yml`.
"""
import argparse
import os
from pathlib import Path

import alerts.build
import alerts.reference
import config.reference
import config.refusals
import grafana.build
from config.settings import ROOT, Settings, load
from scripts._arguments import ended


def files(settings: Settings) -> dict[Path, str]:
    """Every generated file and its text."""
    execution = ROOT / "docs" / "execution.md"
    return {**alerts.build.files(settings), **grafana.build.files(settings),
            ROOT / "docs" / "metrics.md": alerts.reference.markdown(settings), ROOT / "docs" / "config.md": config.reference.markdown(),
            ROOT / "docs" / "reasons.md": config.refusals.markdown(), execution: config.refusals.execution(execution.read_text())}


def write(path: Path, text: str) -> None:
    """The whole file or nothing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.part")
    part.write_text(text)
    os.replace(part, path)


def main(argv: list[str] | None = None) -> int:
    """The command."""
    parser = argparse.ArgumentParser("python -m scripts.build_generated", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="write nothing, fail where a file is not current")
    parser.add_argument("--config", type=Path, action="append", default=[], help="an override of config/default.yaml")
    args = parser.parse_args(argv)
    stale = {p: t for p, t in files(load(*args.config, env={} if not args.config else None)).items()
             if not p.exists() or p.read_text() != t}
    for path, text in stale.items():
        if not args.check:
            write(path, text)
        print(f"{path.relative_to(ROOT)}: {'not current; run python -m scripts.build_generated' if args.check else 'written'}")
    return int(args.check and bool(stale))


if __name__ == "__main__":
    raise SystemExit(ended(main))
