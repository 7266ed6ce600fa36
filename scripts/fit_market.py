"""Fits the simulated market to recordings: what config/market.yaml says and what would be nearer, side by side.

    python -m scripts.fit_market                                   (how near it is now)
    python -m scripts.fit_market --symbols BTCUSDT --rounds 3      (searches nearer parameters)
    python -m scripts.fit_market --rounds 3 --to fitted.yaml       (and writes them for --config)

A search compares simulated with recorded figures (engine/market/stylised.py) after thinning the simulated books to the
recording's cadence. It changes only what is searched (FREE in engine/market/fitting.py); what the recording gives directly
(print sizes, depth) is printed beside the present values, to be chosen by hand: a recording's venue is not the simulated one.
"""
import argparse
import os
import sys
from pathlib import Path

import msgspec
import yaml
from rich.console import Console
from rich.table import Table

from config.settings import Settings, load
from engine.facts import Frame, join
from engine.market.fitting import BANDS, FREE, SOURCES, cadence, compared, distance, measured, off, search, simulated
from engine.settings import MarketModel
from scripts._arguments import ended, hours, natural
from store import archive, disk
from store.archive import ArchiveError
from store.importers import RecordingError, open_recording

SEEDS = (1, 2)
UNSEEN = 11            # the seed of the table, on which nothing was searched


@disk.told("fit_market")
def main(argv: list[str] | None = None) -> int:
    """0 when the table stands, 1 when a recording cannot be read, 2 for arguments that do not go together."""
    p = argparse.ArgumentParser(prog="fit_market", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--symbols", default=",".join(SOURCES), help="comma-separated; default: all that have a recording")
    p.add_argument("--rounds", type=natural, default=0, help="of the search; 0 only compares")
    p.add_argument("--hours", type=hours, default=4.0, help="simulated for each comparison, for each of two seeds")
    p.add_argument("--to", type=Path, metavar="FILE", help="write the new parameters as YAML for --config")
    p.add_argument("--config", action="append", default=[], metavar="FILE", help="settings over the defaults")
    args = p.parse_args(argv)
    settings = load(*args.config)
    symbols = [s for s in args.symbols.split(",") if s]
    unknown = [s for s in symbols if s not in SOURCES or s not in settings.market]
    if unknown or not symbols:
        p.error(f"--symbols {','.join(unknown)}: known are {', '.join(SOURCES)}")
    if args.to and (args.to.is_dir() or not args.to.absolute().parent.is_dir()):
        p.error(f"--to {args.to}: a file in a folder that is there was expected")
    console, fitted = Console(width=None if sys.stdout.isatty() else 150), {}
    for symbol in symbols:
        try:
            recorded = recording(symbol, settings)
        except (RecordingError, ArchiveError) as error:
            print(f"fit_market: {error}", file=sys.stderr)
            return 1
        fitted[symbol] = fit(symbol, recorded, settings, args.rounds, args.hours, console)
    if args.to:
        part = args.to.with_name(f".{args.to.name}-{os.getpid()}")
        part.write_text(yaml.safe_dump({"market": {s: {k: getattr(m, k) for k in FREE} for s, m in fitted.items()}}, sort_keys=False))
        os.replace(part, args.to)
        console.print(f"written to {args.to}; try it with --config {args.to}")
    return 0


def recording(symbol: str, settings: Settings) -> Frame:
    """The whole recording that the symbol is fitted to."""
    name, theirs = SOURCES[symbol]
    root, _ = open_recording(name, settings.folder("data") / "recordings", settings)
    return join(list(archive.read(root, theirs, events=1 << 16)))


def fit(symbol: str, recorded: Frame, settings: Settings, rounds: int, hours: float, console: Console) -> MarketModel:
    """Searches if asked to, and prints old, new and recorded."""
    instrument, old, ms = settings.instrument(symbol), settings.market[symbol], cadence(recorded)
    wanted = compared(recorded)
    minutes = wanted["minutes"]

    def loss(model: MarketModel) -> float:
        each = [distance(compared(simulated(symbol, instrument, model, hours, seed), ms, minutes), wanted) for seed in SEEDS]
        return sum(each) / len(each)

    new = old
    for model, value in search(old, loss, rounds) if rounds else ():
        new = model
        console.print(f"{symbol}: distance {value:.3f}")
    new = msgspec.structs.replace(new, **{k: float(f"{getattr(new, k):.3g}") for k in FREE}) if rounds else old
    columns = {"now": compared(simulated(symbol, instrument, old, hours, UNSEEN), ms, minutes)}
    if rounds:
        columns["new"] = compared(simulated(symbol, instrument, new, hours, UNSEEN), ms, minutes)
    console.print(facts(f"{symbol} against {' '.join(SOURCES[symbol])}, books every {ms} ms", columns, wanted))
    values = Table(title=f"{symbol}: parameters", title_justify="left")
    for title in ("", "now", "new", "measured"):
        values.add_column(title, justify="right" if title else "left")
    direct = measured(recorded)
    for name in (*FREE, *direct):
        values.add_row(name, f"{getattr(old, name):.4g}", f"{getattr(new, name):.4g}", f"{direct[name]:.4g}" if name in direct else "")
    console.print(values)
    return new


def facts(title: str, columns: dict[str, dict[str, float]], wanted: dict[str, float]) -> Table:
    """Figures of simulated markets beside a recording's; the distance of the last in tolerances, where there is a band."""
    out = Table(title=title, title_justify="left")
    out.add_column("")
    for name in (*columns, "recorded", "distance"):
        out.add_column(name, justify="right")
    last = list(columns.values())[-1]
    for name, value in wanted.items():
        out.add_row(name, *(f"{c[name]:.3f}" for c in columns.values()), f"{value:.3f}",
                    f"{off(name, last[name], value):+.2f}" if name in BANDS else "")
    return out


if __name__ == "__main__":
    raise SystemExit(ended(main))
