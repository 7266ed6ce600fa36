"""Evidence on disk: `{artifact_dir}/fill_prob/{name}.json` with its `.sha256`, whole or absent, and never over another's."""
from pathlib import Path
from typing import Any

from engine.fillprob.documents import Refused, pretty
from engine.fillprob.evidence import FOLDER, checked, name_of, sidecar
from engine.fillprob.evidence import VERSION as EVIDENCE
from store import disk
from store.artifacts import read

DEFAULT = "artifacts"      # where evidence goes that is asked for while GRINDER_ARTIFACT_DIR is unset
SIDECAR = ".sha256"


def write(artifact_dir: Path, artifact: dict[str, Any]) -> Path:
    """The artifact's file. Another one of the same millisecond, verdict and symbol gets the next number; the same one again is the
    file that is there, so that a desk which repeats itself after a death leaves one. The hash comes first: a file without one is none.
    Nothing waits for the disk; a power cut may cost the last ones."""
    folder, stem, blob = artifact_dir / FOLDER, name_of(artifact), pretty(artifact)
    folder.mkdir(parents=True, exist_ok=True)
    number = 1
    while True:
        path = folder / (f"{stem}.json" if number == 1 else f"{stem}_{number}.json")
        there = path.read_bytes() if path.exists() else None
        if there is None or there == blob:
            break
        number += 1
    disk.replace(path.with_name(path.name + SIDECAR), sidecar(blob, path.name), sync=False)
    if there is None:
        disk.replace(path, blob, sync=False)
    return path


def verify(path: Path) -> dict[str, Any]:
    """The artifact, if file and sidecar are what was written; `Refused` says which code and why."""
    return checked(read(path), read(path.with_name(path.name + SIDECAR)), path.name)


def sound(folder: Path, version: str = EVIDENCE, names: str = "*") -> tuple[list[dict[str, Any]], dict[str, str]]:
    """The artifacts of one kind in a folder whose sidecars agree, by their time; and of every other file its name and why not.
    Files of another kind are neither. `names`: only files that are called so; a file is read in a sixth of a millisecond."""
    good: list[dict[str, Any]] = []
    bad: dict[str, str] = {}
    for path in sorted(folder.glob(f"{names}.json")):
        try:
            artifact = verify(path)
        except Refused as no:
            bad[path.name] = str(no)
        else:
            if artifact["artifact_version"] == version:
                good.append(artifact)
    return sorted(good, key=lambda one: one["ts_ms"]), bad
