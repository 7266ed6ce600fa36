"""Recordings into archives: once, whole or not at all, with the account of what was taken, repaired and refused.

The recordings are not part of the project: `SLUICE_RECORDINGS` names their folder.
"""
import fcntl
import hashlib
import json
import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np

from config.settings import ROOT, Settings, fingerprint
from config.settings import load as load_settings
from engine.facts import BOOK
from engine.market.repair import Cleaner, Counts, Raw, orderly
from store import archive, disk, recorded
from store.recorded import RecordingError

VERSION = 2             # of the importers: another one reads the recordings anew
MARKER = "import.json"
RECORDINGS = Path("..") / "shared" / "data" / "book_trades"


@dataclass(frozen=True)
class Importer:
    """One venue's reader, the folder where its recording lies, and the files by which it is known."""
    read: Callable
    folder: str
    known_by: str


IMPORTERS = {
    "standx": Importer(recorded.standx, "standx", "*_book10_*.parquet"),
    "binance_um": Importer(recorded.binance_um, "binance_um", "*_depth.parquet"),
    "binance_um_spot": Importer(recorded.binance_um_spot, "binance_um_spot_20260216", "*_fut_book20.parquet"),
    "hyperliquid": Importer(recorded.hyperliquid, "hyperliquid_20250904", "*_book20.parquet"),
}


@dataclass(frozen=True)
class Imported:
    """What became of one symbol's recording; `checks` are comparisons with the venue's own touch."""
    counts: Counts
    first_ms: int
    last_ms: int
    checks: dict[str, int]


def recordings_folder() -> Path | None:
    """Where the recordings lie: `SLUICE_RECORDINGS`, else beside the project, else None."""
    said = os.environ.get("SLUICE_RECORDINGS", "").strip()
    if said and not Path(said).is_dir():
        raise RecordingError(f"SLUICE_RECORDINGS: {said} is not a folder")
    path = Path(said) if said else ROOT / RECORDINGS
    return path.resolve() if path.is_dir() else None


def parse(name: str) -> tuple[str, str]:
    """A recording's importer and day.

    >>> parse("binance_um_20230405")
    ('binance_um', '20230405')
    """
    kind, _, day = name.rpartition("_")
    if kind in IMPORTERS and day.isdigit() and len(day) == 8:
        return kind, day
    if name in IMPORTERS:
        return name, ""
    raise RecordingError(f"recording {name!r}: not one of {', '.join(IMPORTERS)} (or such a name with _YYYYMMDD), nor a folder")


def recognised(folder: Path) -> str:
    """Which importer a folder is for; `RecordingError` where its files tell none."""
    for kind, importer in IMPORTERS.items():
        if any(folder.glob(importer.known_by)):
            return kind
    raise RecordingError(f"{folder}: neither an archive (symbol=…) nor a recording that is known by one of "
                         + ", ".join(i.known_by for i in IMPORTERS.values()))


def open_recording(name_or_path: str | Path, cache_root: Path, settings: Settings | None = None,
                   say: Callable[[str], None] = print) -> tuple[Path, list[str]]:
    """The archive of a recording, imported into `cache_root/NAME` if need be, and its symbols.

    `name_or_path`: a name (`standx`, `hyperliquid`, `binance_um`, `binance_um_20230405`, `binance_um_spot`), a folder of such a
    recording, or an archive. A second call checks the sources' hashes only; without the sources, what was imported serves.
    """
    path = Path(name_or_path).expanduser()
    if path.is_dir() and (have := archive.symbols(path)):
        return path, have
    folder: Path | None = path
    if path.is_dir():
        kind, day, name = recognised(path), "", path.resolve().name
    else:
        kind, day = parse(str(name_or_path))
        name, base = str(name_or_path), recordings_folder()
        folder = base / IMPORTERS[kind].folder if base else None
    target = Path(cache_root) / name
    if folder is None or not folder.is_dir():
        if (target / MARKER).exists():
            return target, archive.symbols(target)
        where = f"{folder} is not a folder" if folder else "set SLUICE_RECORDINGS to the folder of recordings"
        raise RecordingError(f"recording {name}: {where}")
    settings = settings or load_settings()
    with locked(target):
        if not current(target, folder, kind, day, settings):
            say(f"importing {name} from {folder} …")
            began = time.monotonic()
            report = import_recording(kind, folder, target, settings, day=day)
            rows = sum(i.counts.books + i.counts.trades for i in report.values())
            say(f"imported {rows:,} events of {', '.join(report)} in {time.monotonic() - began:.1f} s to {target}")
    return target, archive.symbols(target)


@contextmanager
def locked(target: Path) -> Iterator[None]:
    """One importer at a time for a target, over processes."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with (target.parent / f".{target.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def made_from(folder: Path, kind: str, day: str, settings: Settings) -> dict:
    """What an import depends on: importer, settings, and every source file by hash."""
    rules = [fingerprint(settings.cleaning), settings.windows.gap_ms, settings.monitoring.clock_skew_ms,
             {s: (i.tick, i.lot) for s, i in settings.symbols.items()}]
    under = hashlib.sha256(json.dumps(rules, sort_keys=True).encode()).hexdigest()
    return {"importer": kind, "day": day, "version": VERSION, "rules": under,
            "sources": {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in sorted(folder.glob("*.parquet"))}}


def current(target: Path, folder: Path, kind: str, day: str, settings: Settings) -> bool:
    """Whether the archive was made from just these files under these rules."""
    try:
        said = json.loads((target / MARKER).read_text())
    except (OSError, ValueError):
        return False
    return said.get("from") == made_from(folder, kind, day, settings)


def import_recording(kind: str, folder: Path, target: Path, settings: Settings, day: str = "", only: str = "") -> dict[str, Imported]:
    """A venue's recording into the archive `target`, which appears whole or stays as it was; the account by symbol.

    `RecordingError` where a file is missing, broken, of another shape, or holds nothing that could be taken.
    """
    part = target.with_name(f".{target.name}.{os.getpid()}.part")
    for left in target.parent.glob(f".{target.name}.*.part"):
        shutil.rmtree(left, ignore_errors=True)         # of an import that was killed: the caller holds the lock
    try:
        report = take(kind, folder, part, settings, day, only)
        said = {"from": made_from(folder, kind, day, settings) | ({"only": only} if only else {}),
                "symbols": {s: asdict(i) for s, i in report.items()}}
        disk.replace(part / MARKER, (json.dumps(said, indent=1) + "\n").encode())
        old = target.with_name(f".{target.name}.{os.getpid()}.old")
        if target.exists():
            target.rename(old)
        part.rename(target)
        shutil.rmtree(old, ignore_errors=True)
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return report


def take(kind: str, folder: Path, root: Path, settings: Settings, day: str, only: str) -> dict[str, Imported]:
    """Reads, cleans and writes; see `import_recording`."""
    cleaners: dict[str, Cleaner] = {}
    writers: dict[str, archive.ArchiveWriter] = {}
    breaks: dict[str, int] = {}
    checks: dict[str, dict[str, int]] = {}
    seen = []
    for part in IMPORTERS[kind].read(folder, day, settings.instrument):
        s = part.symbol
        seen.append(s)
        if only and s != only:
            continue
        if s not in cleaners:
            cleaners[s] = cleaner(s, settings)
            writers[s] = archive.ArchiveWriter(root, s, cleaners[s].instrument, kind)
        breaks[s] = breaks.get(s, 0) + part.breaks
        checks[s] = checks.get(s, {}) | part.checks
        for hour in hours(part.raw):
            columns, counts = cleaners[s].clean(hour)
            writers[s].count(counts)
            if len(columns.ts):
                writers[s].add(cleaners[s].frame(columns, "rec", writers[s].due))
                writers[s].flush()
    if not cleaners:
        raise RecordingError(f"{folder}: nothing of {only or kind}{' on ' + day if day else ''}; "
                             f"it has {', '.join(dict.fromkeys(seen)) or 'no files of it'}")
    report = {}
    for s, c in cleaners.items():
        if not c.total.books:
            raise RecordingError(f"{folder}: {s}: no book could be taken; refused: {c.total.refused or 'nothing'}")
        report[s] = Imported(c.total + Counts(gaps=breaks[s]), *archive.span(root, s), checks[s])
    return report


def cleaner(symbol: str, settings: Settings) -> Cleaner:
    """A cleaner of one symbol under the settings, for importers and collector alike."""
    return Cleaner(symbol, settings.instrument(symbol), settings.cleaning.off_market_bps, settings.windows.gap_ms,
                   settings.monitoring.clock_skew_ms)


def hours(raw: Raw) -> Iterator[Raw]:
    """Raw events in pieces of an hour, so that each file's account is its own."""
    if not len(raw.ts):
        return
    late = orderly(raw.ts) // archive.HOUR_MS
    edges = [0, *(np.flatnonzero(np.diff(late)) + 1).tolist(), len(late)]
    books = np.concatenate(([0], np.cumsum(raw.kind == BOOK)))

    def cut(values: np.ndarray | None, a: int, b: int) -> np.ndarray | None:
        return None if values is None else values[a:b]
    for a, b in pairwise(edges):
        b0, b1 = books[a], books[b]
        yield Raw(raw.ts[a:b], raw.kind[a:b], raw.books[b0:b1], raw.trades[a - b0:b - b1], cut(raw.ids, a - b0, b - b1),
                  cut(raw.received, a, b), cut(raw.bad, a, b), cut(raw.off, a, b))
