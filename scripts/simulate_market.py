"""Writes a stretch of the simulated market as an archive, to train or to backtest on.

    python -m scripts.simulate_market --hours 2
    python -m scripts.simulate_market --symbols BTCUSDT,SOLUSDT --hours 12 --seed 3 --to data/archive/sim3

The same seed and start give the same market, byte by byte. The exchange plays `exchange.seed`: train on another seed.
"""
import argparse
import os
import shutil
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

from rich.progress import Progress

from config.settings import load
from engine.market.simulator import Simulator
from scripts._arguments import ended, hours, whole
from store import archive, disk
from store.archive import ArchiveWriter

CHUNK = 65_536


@disk.told("simulate_market")
def main(argv: list[str] | None = None) -> int:
    """0 when the archive stands, 1 when its place is taken, 2 for arguments that do not go together."""
    p = argparse.ArgumentParser(prog="simulate_market", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--symbols", default="", help="comma-separated; default: exchange.symbols")
    p.add_argument("--hours", type=hours, default=2.0, help="of market time; default 2")
    p.add_argument("--seed", type=whole, help="default: training.seed")
    p.add_argument("--start", default="2026-01-05T00:00:00", help="market time of the first event (UTC); default 2026-01-05T00:00:00")
    p.add_argument("--to", type=Path, metavar="FOLDER", help="the archive to make; default data/archive/sim")
    p.add_argument("--force", action="store_true", help="replace the archive that is there")
    p.add_argument("--config", action="append", default=[], metavar="FILE", help="settings over the defaults")
    args = p.parse_args(argv)
    settings = load(*args.config)
    symbols = [s for s in args.symbols.split(",") if s] or settings.exchange.symbols
    seed = settings.training.seed if args.seed is None else args.seed
    target = args.to or settings.folder("data") / "archive" / "sim"
    unknown = [s for s in symbols if s not in settings.market]
    if unknown:
        p.error(f"--symbols {','.join(unknown)}: config/market.yaml has {', '.join(settings.market)}")
    try:
        start_ms = int(datetime.fromisoformat(args.start).replace(tzinfo=UTC).timestamp() * 1000)
    except ValueError:
        p.error(f"--start {args.start}: is not a time like 2026-01-05T00:00:00")
    if target.exists() and any(target.iterdir()):
        if not archive.symbols(target):
            print(f"simulate_market: {target}: holds something that is no archive; choose another --to", file=sys.stderr)
            return 1
        if not args.force:
            print(f"simulate_market: {target}: there is an archive already; --force replaces it", file=sys.stderr)
            return 1
    if seed == settings.exchange.seed:
        print(f"seed {seed} is the exchange's own: a model trained on this market has seen what it will trade", file=sys.stderr)
    staged = target.with_name(f".{target.name}-{os.getpid()}")
    shutil.rmtree(staged, ignore_errors=True)
    began, events, end_ms = time.monotonic(), 0, start_ms + round(args.hours * 3_600_000)
    try:
        with Progress(disable=not sys.stdout.isatty()) as progress:
            for symbol in symbols:
                task, instrument = progress.add_task(symbol, total=end_ms - start_ms), settings.instrument(symbol)
                market = Simulator(symbol, instrument, settings.market[symbol], seed, start_ms, f"sim{seed % 1000}")
                with ArchiveWriter(staged, symbol, instrument, f"simulated, seed {seed}") as writer:
                    while (frame := market.frame(end_ms - 1, CHUNK)) is not None:
                        writer.add(frame)
                        events += frame.n
                        progress.update(task, completed=int(frame.times[-1]) - start_ms)
        if target.exists():
            shutil.rmtree(target)
        target.parent.mkdir(parents=True, exist_ok=True)
        os.replace(staged, target)
    finally:
        shutil.rmtree(staged, ignore_errors=True)
    seconds = time.monotonic() - began
    print(f"{events:,} events of {', '.join(symbols)} over {args.hours:g} h in {seconds:.1f} s ({events / seconds:,.0f}/s) → {target}")
    return 0


if __name__ == "__main__":
    raise SystemExit(ended(main))
