"""A desk from a backup: into empty places only, checked before and after, and nothing half-written."""
import fcntl
import os
import shutil
import time
from collections.abc import Callable, Collection
from contextlib import suppress
from pathlib import Path

import sqlalchemy as sa

from config.settings import Settings
from engine.facts import KILL, Control
from store import controls
from store.backup import LEDGER, MODELS, STATE, VENUE, BackupError, Manifest, check, settle, venue_path
from store.copying import TRUTH, copy_ledger
from store.database import connect, naming, reading, shown
from store.ledger import ledger_url
from store.verify import verify
from store.witness import anchors_path

PARTS = {"ledger": LEDGER, "state": STATE, "venue": VENUE, "models": MODELS}


def restore(settings: Settings, folder: Path, url: str = "", only: Collection[str] = ()) -> Manifest:
    """Puts a backup's parts (all, or those named in `only`) where the settings say; returns its manifest.

    `BackupError` where the backup is not whole, a place is not empty, or a service still runs there; `LedgerError` where the ledger's
    database refuses. Whatever fails, what this call had put there is taken away again.
    """
    url = url or ledger_url(settings)
    manifest = check(folder)
    wanted = [part for part in PARTS if (not only or part in only) and manifest.of(PARTS[part])]
    _nobody_there(settings)
    targets = {"state": settings.folder("data") / STATE, "venue": venue_path(settings), "models": settings.folder("models")}
    for part in wanted:
        _empty(part, url) if part == "ledger" else _vacant(targets[part])
    if "ledger" in wanted:
        _vacant(anchors_path(settings))     # what it noted after the backup will not be so
    undo: list[Callable[[], object]] = []
    try:
        for part in ("models", "venue", "state"):
            if part in wanted:
                for name in manifest.of(PARTS[part]):
                    to = targets[part] / Path(name).relative_to(part) if part != "venue" else targets[part]
                    _put(folder / name, to, undo)
        if "ledger" in wanted:       # last: a desk without one has not been restored
            _ledger(folder / LEDGER, url, manifest, undo)
            undo.append(controls.leave(settings, halted(manifest)).unlink)
    except BaseException:
        for take_away in reversed(undo):
            take_away()
        raise
    return manifest


def halted(manifest: Manifest) -> Control:
    """What a restored desk begins with: nobody knows here what was sent, killed or released after the backup."""
    reason = (f"restored from the backup of {manifest.made_at}: what was sent, killed and released after it is not known here; "
              "compare positions with the venue's, then release this")
    return Control(f"kill-restored-{time.time_ns() // 1000}", KILL, "restore", reason, 0, 0)


def _nobody_there(settings: Settings) -> None:
    data = settings.folder("data")
    for path in (*(data / STATE).glob("*.lock"), *data.glob("ledger*.lock")):
        with path.open() as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                raise BackupError(f"{path}: a service holds it; stop the desk first") from None


def _vacant(place: Path) -> None:
    """A folder may hold locks, and a database may not even have left its log: SQLite would play it into the restored one."""
    there = [p for p in (place, *(place.with_name(place.name + end) for end in ("-wal", "-shm", "-journal"))) if p.exists()]
    if place.is_dir():
        there = [p for p in place.rglob("*") if p.is_symlink() or (p.is_file() and p.suffix != ".lock" and p.name != ".lock")]
    if there:
        raise BackupError(f"{there[0]}: is there already; an empty place was expected: move it away first")


def _empty(part: str, url: str) -> None:
    engine = connect(url)
    path = Path(str(engine.url.database))
    try:
        if engine.dialect.name == "sqlite":
            _vacant(path)
            return
        with naming(url), reading(engine) as connection:
            for table in TRUTH:
                if sa.inspect(connection).has_table(table.name) and connection.execute(sa.select(table).limit(1)).first():
                    raise BackupError(f"{part} {shown(url)}: {table.name} holds rows already; an empty database was expected")
    finally:
        engine.dispose()


def _put(source: Path, target: Path, undo: list) -> None:
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        beside = target.with_name(target.name + ".restoring")
        undo.append(lambda: _remove(beside))
        shutil.copyfile(source, beside, follow_symlinks=False)
        settle(beside)
        os.replace(beside, target)
        undo.append(lambda: _remove(target))
        settle(target.parent)
    except OSError as error:
        raise BackupError(f"{target}: {error.strerror or error}; nothing was restored") from error


def _remove(path: Path) -> None:
    with suppress(OSError):
        path.unlink()


def _ledger(source: Path, url: str, manifest: Manifest, undo: list) -> None:
    parsed = sa.make_url(url)
    if parsed.get_backend_name() == "sqlite":
        _put(source, Path(str(parsed.database)), undo)
    else:
        copy_ledger(f"sqlite:///{source}", url)
    if faults := list(verify(url, {writer: [place] for writer, place in manifest.heads.items() if place[0]})):
        raise BackupError(f"ledger {shown(url)}: {faults[0]}: it was restored and is not what was backed up")
