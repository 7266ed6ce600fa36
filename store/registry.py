"""Models on disk: `registry/<id>/` with model.onnx and model.json, `manifest.json`, and the slots `active` and `shadow`.

A slot is a symbolic link, switched atomically; `models/latest` links to the active entry (DECISIONS, 39). An entry is whole or
absent: its files are written beside the registry and renamed into it, then the manifest names it, under a lock.
"""
import fcntl
import hashlib
import json
import os
import re
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from store import disk

SLOTS = ("active", "shadow")
REQUIRED = ("model.onnx", "model.json")
KEYS = ("id", "schema_hash", "calibration", "thresholds", "feature_names", "feature_schema", "metrics", "monitoring")
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,79}")


class RegistryError(Exception):
    """A model that may not be registered, promoted or loaded: which one, and what is wrong."""


def schema_hash_of(names) -> str:
    """sha256 of the feature names joined by "|" (DECISIONS, 31).

    >>> schema_hash_of(["spread", "bid1"])[:12]
    '227dad68a7c4'
    """
    return hashlib.sha256("|".join(names).encode()).hexdigest()


def schema_props(version: str, names, config_hash: str) -> dict[str, str]:
    """The keys that parquet sidecar, ONNX metadata and model.json share."""
    return {"feature_schema_version": version, "feature_field_order": json.dumps(list(names), separators=(",", ":")),
            "feature_field_order_hash": schema_hash_of(names), "feature_config_hash": config_hash}


def read_model_json(folder: Path) -> dict[str, Any]:
    """model.json, with every key that readers rely on and a feature hash that fits its names; else `RegistryError`."""
    path = folder / "model.json"
    try:
        meta = json.loads(path.read_text())
    except FileNotFoundError:
        raise RegistryError(f"{path}: missing") from None
    except ValueError as error:
        raise RegistryError(f"{path}: not JSON ({error})") from None
    if not isinstance(meta, dict):
        raise RegistryError(f"{path}: an object was expected, not {type(meta).__name__}")
    absent = [k for k in KEYS if k not in meta]
    if absent:
        raise RegistryError(f"{path}: {', '.join(absent)}: missing")
    want = schema_hash_of(meta["feature_names"])
    if meta["schema_hash"] != want or meta["feature_schema"].get("field_order_hash") != want:
        raise RegistryError(f"{path}: schema_hash: {str(meta['schema_hash'])[:12]} is not the hash of its feature_names, {want[:12]}")
    if meta["calibration"].get("method") != "platt" or not all(_finite(meta["calibration"].get(k)) for k in ("w", "b")):
        raise RegistryError(f"{path}: calibration: {meta['calibration']!r} is not {{method: platt, w, b}}")
    for tau in ("tau_entry", "tau_hold"):
        value = meta["thresholds"].get(tau)
        if not _finite(value) or not 0 <= value <= 1:
            raise RegistryError(f"{path}: thresholds.{tau}: {value!r} is not between 0 and 1")
    return meta


def check(folder: Path, schema_hash: str | None = None) -> dict[str, Any]:
    """The entry's model.json, after the comparison of everything that must agree; `RegistryError` names what does not."""
    if not folder.is_dir():
        raise RegistryError(f"{folder}: no such model")
    for name in REQUIRED:
        if not (folder / name).is_file():
            raise RegistryError(f"{folder / name}: missing")
    meta = read_model_json(folder)
    if meta["id"] != folder.resolve().name:
        raise RegistryError(f"{folder / 'model.json'}: id: {meta['id']!r} is not its folder's name, {folder.resolve().name!r}")
    schema = meta["feature_schema"]
    want = schema_props(str(schema.get("version")), meta["feature_names"], str(schema.get("config_hash")))
    have = onnx_props(folder / "model.onnx")
    for key, value in want.items():
        if have.get(key) != value:
            raise RegistryError(f"{folder / 'model.onnx'}: {key}: {have.get(key)!r} differs from model.json, {value!r}")
    if schema_hash is not None and meta["schema_hash"] != schema_hash:
        raise RegistryError(f"{folder / 'model.json'}: schema_hash: {meta['schema_hash'][:12]}… is trained on other features than this "
                            f"desk computes, {schema_hash[:12]}…; train a model on them (python -m scripts.train)")
    return meta


def onnx_props(path: Path) -> dict[str, str]:
    """The metadata of an ONNX file."""
    import onnx
    try:
        model = onnx.load(str(path), load_external_data=False)
    except Exception as error:  # protobuf raises its own classes
        raise RegistryError(f"{path}: not an ONNX model ({type(error).__name__})") from None
    return {p.key: p.value for p in model.metadata_props}


class Registry:
    """The registry under a models folder. Readers need no lock; writers take one."""

    def __init__(self, models: Path | str):
        self.models = Path(models)
        self.root = self.models / "registry"

    def entries(self) -> list[dict[str, Any]]:
        """The manifest, oldest first; empty where none is written yet."""
        path = self.root / "manifest.json"
        try:
            got = json.loads(path.read_text())
        except FileNotFoundError:
            return []
        except ValueError as error:
            raise RegistryError(f"{path}: not JSON ({error})") from None
        if not isinstance(got, list) or not all(isinstance(e, dict) and isinstance(e.get("id"), str) for e in got):
            raise RegistryError(f"{path}: a list of entries with an id each was expected")
        return got

    def entry(self, model_id: str) -> dict[str, Any] | None:
        """The manifest's entry, or None."""
        return next((e for e in self.entries() if e["id"] == model_id), None)

    def previous(self, model_id: str) -> str | None:
        """The manifest entry before this one: where a rollback returns to."""
        ids = [e["id"] for e in self.entries()]
        at = ids.index(model_id) if model_id in ids else 0
        return ids[at - 1] if at > 0 else None

    def slot(self, slot: str) -> Path | None:
        """The folder that a slot points to, or None where the slot is empty; a dangling link is an error."""
        link = self.root / slot
        if not link.is_symlink():
            return None
        folder = self.root / os.readlink(link)
        if not folder.is_dir():
            raise RegistryError(f"{link}: points to {folder.name}, which is not there")
        return folder

    def add(self, model_id: str, files: Mapping[str, bytes], created_at: str, notes: str = "", **release) -> Path:
        """Registers a model from its files and returns its folder; nothing is left behind when it is refused or killed.

        `release` is kept in the manifest entry (metrics, data window). An id is registered once.
        """
        if not NAME.fullmatch(model_id) or model_id in (*SLOTS, "manifest.json"):
            raise RegistryError(f"{model_id!r}: a model id is letters, digits, dots, dashes; at most 80, and no slot's name")
        self.root.mkdir(parents=True, exist_ok=True)
        with self._locked():
            if any(e["id"] == model_id for e in self.entries()):
                raise RegistryError(f"{model_id}: already registered; an entry never changes")
            staged = self.root / f".staging-{os.getpid()}" / model_id
            for old in self.root.glob(".staging-*"):
                shutil.rmtree(old)
            try:
                for name, content in files.items():
                    path = staged / name
                    path.parent.mkdir(parents=True, exist_ok=True)
                    disk.replace(path, content)
                meta = check(staged)
                folder = self.root / model_id
                if folder.exists():     # a folder that the manifest does not name is the remains of a crash
                    shutil.rmtree(folder)
                os.replace(staged, folder)
            finally:
                shutil.rmtree(staged.parent, ignore_errors=True)
            entry = {"id": model_id, "created_at": created_at, "schema_hash": meta["schema_hash"], "thresholds": meta["thresholds"],
                     "path": f"registry/{model_id}", "notes": notes,
                     "sha256": {n: hashlib.sha256(files[n]).hexdigest() for n in REQUIRED}, **release}
            self._write_manifest([*self.entries(), entry])
        return folder

    def promote(self, model_id: str, slot: str, schema_hash: str | None = None) -> str:
        """Points the slot at the model after every check; returns `promoted ID -> slot`. Only one model is in a slot at any time."""
        if slot not in SLOTS:
            raise RegistryError(f"{slot}: a slot is {' or '.join(SLOTS)}")
        if not NAME.fullmatch(model_id):
            raise RegistryError(f"{model_id!r}: not a model id")
        folder = self.root / model_id
        check(folder, schema_hash)
        entries = self.entries()
        entry = next((e for e in entries if e["id"] == model_id), None)
        if entries and entry is None:
            raise RegistryError(f"{model_id}: not in {self.root / 'manifest.json'}")
        for name, want in ((entry or {}).get("sha256") or {}).items():
            if hashlib.sha256((folder / name).read_bytes()).hexdigest() != want:
                raise RegistryError(f"{folder / name}: changed since it was registered (sha256 differs from the manifest)")
        with self._locked():
            _point(self.root / slot, model_id)
            if slot == "active":
                _point(self.models / "latest", "registry/active")
        return f"promoted {model_id} -> {slot}"

    def clear(self, slot: str) -> None:
        """Empties a slot; an empty shadow slot is shadow scoring off."""
        if slot not in SLOTS:
            raise RegistryError(f"{slot}: a slot is {' or '.join(SLOTS)}")
        with self._locked():
            (self.root / slot).unlink(missing_ok=True)
            if slot == "active" and (self.models / "latest").is_symlink():
                (self.models / "latest").unlink()

    def _write_manifest(self, entries: list[dict[str, Any]]) -> None:
        disk.replace(self.root / "manifest.json", (json.dumps(entries, indent=2) + "\n").encode())

    @contextmanager
    def _locked(self) -> Iterator[None]:
        self.root.mkdir(parents=True, exist_ok=True)
        with open(self.root / ".lock", "w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield


def _point(link: Path, target: str) -> None:
    if link.exists() and not link.is_symlink():
        raise RegistryError(f"{link}: is not a link; move it away, it belongs to the registry")
    temporary = link.with_name(f".{link.name}-{os.getpid()}")
    temporary.unlink(missing_ok=True)
    os.symlink(target, temporary)
    os.replace(temporary, link)


def _finite(value) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and value - value == 0
