"""A desk in a folder: its ledger, its services' state, the local venue's journal and its models, taken while they are at work.

The ledger in a backup is a SQLite ledger whatever it came from, so that `verify_ledger` and `why` read it as it lies there, and so that a
restore moves a desk between SQLite and PostgreSQL. The order matters: state first, then the ledger, the venue last. Whoever starts from
it finds services no further than the ledger, which repeat and are known by their ids, and a venue no less far, which is asked.
`manifest.json` is written last and names every file with its hash; a folder without one is no backup.
"""
import hashlib
import os
import shutil
import sqlite3
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from config.settings import Settings
from store.copying import copy_ledger
from store.database import shown
from store.ledger import ledger_url
from store.verify import verify

MANIFEST, LEDGER, STATE, VENUE, MODELS = "manifest.json", "ledger.db", "state", "exchange.db", "models"
BLOCK = 1 << 20


class BackupError(Exception):
    """A backup that cannot be made, or is not what its manifest says: which file, and what was expected."""


class Copied(msgspec.Struct, frozen=True):
    """A file of a backup: its size and sha256; `link` the target of a symbolic link, which has neither."""
    bytes: int = 0
    sha256: str = ""
    link: str = ""


class Manifest(msgspec.Struct, frozen=True):
    """What a backup holds. `heads`: by writer the last seq and its hash; `made_at` wall clock, UTC."""
    made_at: str
    ledger: str
    instance: str
    heads: dict[str, tuple[int, str]]
    files: dict[str, Copied]

    def of(self, part: str) -> list[str]:
        """The paths of one part: `ledger.db`, `exchange.db`, or below `state/` or `models/`."""
        return [path for path in self.files if path.split("/")[0] == part]


def venue_path(settings: Settings) -> Path:
    """Where the local exchange keeps its journal."""
    return settings.folder("data") / f"exchange{'-' + settings.instance if settings.instance else ''}.db"


def default_place(settings: Settings, now: datetime) -> Path:
    """`data/backups/<time>`, with an instance id `data/backups/<instance>-<time>`."""
    return settings.folder("data") / "backups" / f"{settings.instance + '-' if settings.instance else ''}{now:%Y%m%dT%H%M%SZ}"


def backup(settings: Settings, to: Path, url: str = "") -> Manifest:
    """Takes a backup into the new folder `to`, reads it again, and returns its manifest.

    `BackupError` where `to` exists, `LedgerError` where the ledger cannot be read or its chain is broken; then `to` is not made.
    """
    url = url or ledger_url(settings)
    if to.exists():
        raise BackupError(f"{to}: exists already; a new folder was expected")
    with made_whole(to) as folder:
        for path in sorted((settings.folder("data") / STATE).glob("*.state")):
            (folder / STATE).mkdir(exist_ok=True)
            shutil.copyfile(path, folder / STATE / path.name)       # replaced whole by its writer, so a copy is one of its versions
        heads = copy_ledger(url, f"sqlite:///{folder / LEDGER}")
        if venue_path(settings).exists():
            _copy_database(venue_path(settings), folder / VENUE)
        if settings.folder("models").is_dir():
            _copy_models(settings.folder("models"), folder / MODELS)
        manifest = Manifest(datetime.now(UTC).isoformat(timespec="seconds"), shown(url), settings.instance,
                            {writer: (seq, hashed.hex()) for writer, (seq, hashed) in heads.items()}, dict(_files(folder)))
        (folder / MANIFEST).write_bytes(msgspec.json.format(msgspec.json.encode(manifest), indent=1))
        check(folder)
    return manifest


def check(folder: Path) -> Manifest:
    """Reads a backup whole: every file against its hash, the ledger's chains, and their ends; the manifest, or `BackupError`."""
    try:
        manifest = msgspec.json.decode((folder / MANIFEST).read_bytes(), type=Manifest)
    except FileNotFoundError:
        raise BackupError(f"{folder}: no backup, or one that was never finished: {MANIFEST} is missing") from None
    except msgspec.MsgspecError as error:
        raise BackupError(f"{folder / MANIFEST}: {error}") from None
    there = dict(_files(folder))
    for path in sorted(there.keys() | manifest.files.keys()):
        if there.get(path) != manifest.files.get(path):
            what = "missing" if path not in there else "not in the manifest" if path not in manifest.files else "not what was backed up"
            raise BackupError(f"{folder / path}: {what}" + (f"; sha256 {manifest.files[path].sha256[:12]}… was expected, "
                              f"{there[path].sha256[:12]}… found" if what.startswith("not what") else ""))
    anchors = {writer: [place] for writer, place in manifest.heads.items() if place[0]}
    if faults := list(verify(f"sqlite:///{folder / LEDGER}", anchors)):
        raise BackupError(f"{folder / LEDGER}: {faults[0]}" + (f" (and {len(faults) - 1} more)" if len(faults) > 1 else ""))
    return manifest


@contextmanager
def made_whole(to: Path) -> Iterator[Path]:
    """A folder beside `to` that becomes `to` when all is in it and on the disk; nothing is left where anything fails."""
    try:
        to.parent.mkdir(parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(prefix=f".{to.name}-", dir=to.parent))
    except OSError as error:
        raise BackupError(f"{to}: {error.strerror}; a folder that can be made was expected") from None
    try:
        yield folder
        for path in (*folder.rglob("*"), folder):
            settle(path)
        os.rename(folder, to)
        settle(to.parent)
    except OSError as error:
        shutil.rmtree(folder, ignore_errors=True)
        raise BackupError(f"{to}: {error.strerror or error}; nothing was left there") from error
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise


def settle(path: Path) -> None:
    """Waits until a file or folder is on the disk."""
    if path.is_symlink():
        return
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _copy_database(source: Path, target: Path) -> None:
    try:
        with closing(sqlite3.connect(f"file:{source}?mode=ro", uri=True)) as old, closing(sqlite3.connect(target)) as new:
            old.backup(new)        # one step: one consistent view, whoever writes meanwhile
    except sqlite3.Error as error:
        raise BackupError(f"{source}: {error}") from error


def _copy_models(source: Path, target: Path) -> None:
    """Slots and lists first, then what they name: an entry is there before anything names it. What begins with a dot is being made."""
    names = [p.relative_to(source) for p in source.rglob("*") if p.is_symlink() or p.is_file()]
    for name in sorted((n for n in names if not any(part.startswith(".") for part in n.parts)), key=lambda n: (len(n.parts), n)):
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source / name, target / name, follow_symlinks=False)


def _files(folder: Path) -> Iterator[tuple[str, Copied]]:
    for path in sorted(folder.rglob("*")):
        name = str(path.relative_to(folder))
        if path.is_symlink():
            yield name, Copied(link=os.readlink(path))
        elif path.is_file() and name != MANIFEST:
            yield name, Copied(path.stat().st_size, _sha256(path))


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
