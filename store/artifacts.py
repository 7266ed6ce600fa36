"""Folders of artifacts: whole or absent, the same bytes for the same input, and never over somebody's other files."""
import errno
import os
import re
import shutil
import time
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from engine.fillprob.documents import PARSE_ERROR, Refused, parsed, pinned, sha256
from store import disk

MANIFEST = "manifest.json"
STAMP = "%Y-%m-%dT%H:%M:%SZ"
PLAIN = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ")


class ArtifactError(Exception):
    """An artifact that cannot be made or read: which, and what was expected."""


def created_at(said: str | None = None, env: Mapping[str, str] = os.environ) -> str:
    """When an artifact says that it was made: as told (`2026-01-06T00:00:00Z`), else SOURCE_DATE_EPOCH, else now."""
    if said:
        try:
            datetime.strptime(said, STAMP)
        except ValueError:
            raise ArtifactError(f"--created-at-utc: {said!r} is not a time like 2026-01-06T00:00:00Z") from None
        if not PLAIN.fullmatch(said):
            raise ArtifactError(f"--created-at-utc: {said!r} is not a time like 2026-01-06T00:00:00Z")
        return said
    epoch = env.get("SOURCE_DATE_EPOCH", "")
    if epoch and not re.fullmatch(r"\d{1,10}", epoch):
        raise ArtifactError(f"SOURCE_DATE_EPOCH: {epoch!r} is not a number of seconds since 1970")
    return datetime.fromtimestamp(int(epoch) if epoch else int(time.time()), UTC).strftime(STAMP)


def columns_of(folder: Path, name: str, schema: str, columns: Sequence[str], maker: str) -> tuple[bytes, dict[str, Any], str]:
    """The data file `name` of a dataset, its manifest and the manifest's hash; `ArtifactError` where it is not what that says."""
    if not folder.is_dir():
        raise ArtifactError(f"{folder}: no such dataset; python -m scripts.{maker} makes one")
    try:
        head = read(folder / MANIFEST)
        manifest = parsed(head, MANIFEST)
        blob = pinned(manifest, name, read(folder / name))
    except Refused as no:
        raise ArtifactError(f"{folder}: {no}") from None
    if manifest.get("schema_version") != schema or manifest.get("columns") != list(columns):
        raise ArtifactError(f"{folder / MANIFEST}: schema_version or columns are not those of {schema}")
    return blob, manifest, sha256(head or b"")


def publish(folder: Path, files: Mapping[str, bytes], force: bool = False, known: Iterable[str] = ()) -> Path:
    """The folder with exactly these files. One that holds anything is `FileExistsError`, with `force` only where it holds other
    files than these and the `known` ones."""
    folder = Path(os.path.abspath(folder))
    there = {p.name for p in folder.iterdir()} if folder.is_dir() else set()
    if there and not force:
        raise FileExistsError(errno.EEXIST, "exists; --force replaces it", str(folder))
    if others := there - {*files, *known}:
        raise ArtifactError(f"{folder}: holds other files as well ({', '.join(sorted(others)[:3])}); name a folder of its own")
    folder.parent.mkdir(parents=True, exist_ok=True)
    staged, aside = (folder.with_name(f".{folder.name}-{os.getpid()}.{word}") for word in ("new", "old"))
    for left in (staged, aside):
        shutil.rmtree(left, ignore_errors=True)
    try:
        staged.mkdir()
        for name, blob in files.items():
            disk.replace(staged / name, blob)
        if folder.exists():
            os.rename(folder, aside)
        os.rename(staged, folder)
    except BaseException:
        if aside.exists() and not folder.exists():
            os.rename(aside, folder)
        raise
    finally:
        shutil.rmtree(staged, ignore_errors=True)
        shutil.rmtree(aside, ignore_errors=True)
    return folder


def read(path: Path) -> bytes | None:
    """A file's bytes; None where there is no such file, `Refused` where it cannot be read."""
    try:
        return path.read_bytes()
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
        return None
    except (OSError, ValueError) as error:
        raise Refused(PARSE_ERROR, f"{path}: {error}") from None
