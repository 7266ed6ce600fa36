"""Reads a venue's recording into an archive: what was taken, repaired and refused, by reason.

    python -m scripts.import_recording standx
    python -m scripts.import_recording binance_um_20230405 --symbol BTCUSDT --to data/recordings/april
    python -m scripts.import_recording hyperliquid --from ~/recordings/hyperliquid_20250904 --force
"""
import argparse
import sys
import time
from pathlib import Path

from rich.console import Console
from rich.table import Table

from config.settings import load
from scripts._arguments import ended
from store import disk, importers
from store.archive import ArchiveError
from store.importers import Imported, RecordingError


@disk.told("import_recording")
def main(argv: list[str] | None = None) -> int:
    """0 when the archive stands, 1 when the recording cannot be read, 2 for arguments that do not go together."""
    p = argparse.ArgumentParser(prog="import_recording", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("name", help=f"one of {', '.join(importers.IMPORTERS)}; with _YYYYMMDD for one day of it")
    p.add_argument("--from", dest="source", type=Path, metavar="FOLDER", help="the venue's files; else its folder under SLUICE_RECORDINGS")
    p.add_argument("--to", type=Path, metavar="FOLDER", help="the archive to make; else data/recordings/NAME")
    p.add_argument("--symbol", default="", help="only this one")
    p.add_argument("--force", action="store_true", help="anew, even where the archive is current")
    p.add_argument("--config", action="append", default=[], metavar="FILE", help="settings over the defaults")
    args = p.parse_args(argv)
    settings = load(*args.config)
    try:
        kind, day = importers.parse(args.name)
        base = args.source or importers.recordings_folder()
        if base is None:
            raise RecordingError(f"recording {args.name}: say --from FOLDER, or set SLUICE_RECORDINGS to the folder of recordings")
        folder = base if args.source else base / importers.IMPORTERS[kind].folder
        if not folder.is_dir():
            raise RecordingError(f"{folder}: not a folder")
        target = args.to or settings.folder("data") / "recordings" / args.name
        if target.exists() and any(target.iterdir()) and not (target / importers.MARKER).exists():
            raise RecordingError(f"{target}: holds something that no import made; choose another --to")
        with importers.locked(target):
            if not args.force and not args.symbol and importers.current(target, folder, kind, day, settings):
                print(f"{target}: current; --force imports anew")
                return 0
            began = time.monotonic()
            report = importers.import_recording(kind, folder, target, settings, day, args.symbol)
    except (RecordingError, ArchiveError) as error:
        print(f"import_recording: {error}", file=sys.stderr)
        return 1
    seconds, rows = time.monotonic() - began, sum(i.counts.books + i.counts.trades for i in report.values())
    Console(width=None if sys.stdout.isatty() else 160).print(table(args.name, report))
    print(f"{rows:,} events in {seconds:.1f} s ({rows / seconds:,.0f}/s) → {target}")
    return 0


def table(name: str, report: dict[str, Imported]) -> Table:
    """The account as people read it: a column a symbol."""
    out = Table(title=name, title_justify="left")
    out.add_column("")
    for symbol in report:
        out.add_column(symbol, justify="right")

    def row(title: str, cell) -> None:
        out.add_row(title, *(cell(i) for i in report.values()))
    row("from (UTC)", lambda i: utc(i.first_ms))
    row("to", lambda i: utc(i.last_ms))
    row("books taken", lambda i: f"{i.counts.books:,}")
    row("trades taken", lambda i: f"{i.counts.trades:,}")
    for reason in sorted({r for i in report.values() for r in i.counts.repaired}):
        row(f"repaired: {reason}", lambda i, r=reason: share(i.counts.repaired.get(r, 0), i, "books" if r == "locked" else "events"))
    for reason in sorted({r for i in report.values() for r in i.counts.refused}):
        row(f"refused: {reason}", lambda i, r=reason: share(i.counts.refused.get(r, 0), i))
    row("gaps", lambda i: f"{i.counts.gaps:,}")
    row("longest gap", lambda i: f"{i.counts.longest_gap_ms / 1000:.1f} s at {utc(i.counts.longest_gap_at_ms)}" if i.counts.gaps else "–")
    for check in sorted({c for i in report.values() for c in i.checks}):
        row(check.replace("_", " "), lambda i, c=check: f"{i.checks.get(c, 0):,}")
    return out


def utc(ms: int) -> str:
    """Market time as people read it."""
    return time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(ms / 1000))


def share(n: int, i: Imported, of: str = "events") -> str:
    """A count, and what part it is of all books (what only books can be) or of all events."""
    whole = i.counts.books if of == "books" else i.counts.books + i.counts.trades + sum(i.counts.refused.values())
    return f"{n:,} ({n / whole:.1%} of {of})" if n else "0"


if __name__ == "__main__":
    raise SystemExit(ended(main))
