"""The steps from a market to a registered model, each a function that may run alone, under Prefect or from a script.

Every step finds its own earlier result: an archive that is there is not simulated again, rows that are labelled are read, and a
model of the same data and settings is not trained twice. A step that is killed leaves nothing that looks finished.
"""
import json
import os
import shutil
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa

from config.settings import Settings, fingerprint
from engine.market.simulator import Simulator
from engine.scoring.features import SCHEMA_HASH
from store import archive, dataset, disk, training
from store.archive import ArchiveWriter
from store.registry import Registry

Say = Callable[[str], None]
START_MS = 1_767_225_600_000      # 2026-01-01, where the simulated archive begins
EVENTS = 8192


class Trained(NamedTuple):
    """What a run brought: the model, whether it is new, its metrics, and what was promoted, if anything."""
    model_id: str
    new: bool
    metrics: dict[str, Any]
    promoted: str = ""


def simulate(settings: Settings, root: Path, symbols: Sequence[str], say: Say = print) -> Path:
    """A simulated archive of `training.simulated_hours` at `root`, made once; the seed is training's, not the exchange's.

    So the market that a paper desk trades is not the one that its model has learned.
    """
    model = {s: fingerprint(settings.market[s]) for s in symbols if s in settings.market}
    missing = [s for s in symbols if s not in model]
    if missing:
        raise dataset.DatasetError(f"market.{missing[0]}: no such symbol in config/market.yaml, which has {', '.join(settings.market)}")
    hours, seed = settings.training.simulated_hours, settings.training.seed
    made = {"hours": hours, "seed": seed, "market": model, "instruments": {s: fingerprint(settings.instrument(s)) for s in symbols}}
    marker = root / "simulated.json"
    if marker.is_file() and json.loads(marker.read_text()) == made:
        say(f"{root}: simulated before")
        return root
    if root.exists() and any(root.iterdir()) and not marker.is_file():
        raise dataset.DatasetError(f"{root}: holds an archive that was not simulated here; name another folder")
    staged = root.with_name(f".{root.name}-{os.getpid()}")
    shutil.rmtree(staged, ignore_errors=True)
    try:
        for symbol in symbols:
            market = Simulator(symbol, settings.instrument(symbol), settings.market[symbol], seed, START_MS, "train")
            events = 0
            with ArchiveWriter(staged, symbol, settings.instrument(symbol), f"simulated, seed {seed}") as writer:
                while (frame := market.frame(START_MS + int(hours * 3_600_000), EVENTS)) is not None:
                    writer.add(frame)
                    events += frame.n
            say(f"{symbol}: {events:,} events of {hours:g} hours simulated")
        disk.replace(staged / "simulated.json", (json.dumps(made, indent=2) + "\n").encode())
        shutil.rmtree(root, ignore_errors=True)
        root.parent.mkdir(parents=True, exist_ok=True)
        os.replace(staged, root)
    finally:
        shutil.rmtree(staged, ignore_errors=True)
    return root


def source(settings: Settings, data: str, symbols: Sequence[str] | None, say: Say = print) -> Path:
    """Where the rows come from: the archive or table named; else the recording that the exchange plays; else a simulated market."""
    if data:
        path = Path(data)
        if path.exists():
            return path
        if path.suffix == ".parquet":
            raise dataset.DatasetError(f"{path}: no such table; python -m scripts.labeling --output {path} makes it")
        if path.name != "sim":
            raise dataset.DatasetError(f"{path}: no such archive; it is a folder with symbol=…, or a table that scripts.labeling wrote")
        return simulate(settings, path, symbols or settings.exchange.symbols, say)
    if settings.exchange.market == "recording" and settings.exchange.recording:
        from store.importers import open_recording
        root, _ = open_recording(settings.exchange.recording, settings.folder("data") / "recordings", settings, say)
        return root
    return simulate(settings, settings.folder("data") / "archive" / "sim", symbols or settings.exchange.symbols, say)


def label(settings: Settings, root: Path, symbols: Sequence[str] | None, say: Say = print) -> Path:
    """The labelled rows of an archive as a table under `data/labels/`, by the key of what they depend on."""
    if root.is_file():
        return root
    names = list(symbols or archive.symbols(root))
    key = dataset.data_key(root, names, settings)
    path = settings.folder("data") / "labels" / f"{key[:16]}.parquet"
    if path.is_file():
        say(f"{path}: labelled before")
        return path
    dataset.write(dataset.build(root, settings, names, say), path)
    return path


def identify(table: pa.Table, settings: Settings) -> str:
    """The id of the model that these rows and settings make."""
    key = (table.schema.metadata or {}).get(b"data_key")
    if key is None:
        raise dataset.DatasetError("data_key: missing from the table's metadata; make it with python -m scripts.labeling")
    return training.model_id(key.decode(), settings, int(table["end_ms"].to_numpy().max()))


def fit(settings: Settings, rows: Path, force: bool = False, say: Say = print) -> training.Model | str:
    """A model of the labelled rows, checked and measured; or the id of the registered one that they made before."""
    table = dataset.read(rows)
    now = datetime.now(UTC)
    identity = identify(table, settings)
    if Registry(settings.folder("models")).entry(identity):
        if not force:
            return identity
        identity = f"{identity}-{now:%Y%m%d%H%M%S}"
    return training.make(table, settings, identity, f"{now:%Y-%m-%dT%H:%M:%SZ}", say)


def register(settings: Settings, made: training.Model, notes: str = "") -> str:
    """The model into the registry, whole or not at all; its id."""
    release = {k: made.metrics[k] for k in ("pr_auc", "base_rate", "brier", "ece", "precision_at_tau", "winrate_at_tau", "share_at_70")}
    Registry(settings.folder("models")).add(made.model_id, made.files, json.loads(made.files["lgbm_meta.json"])["created_at"], notes,
                                            release={"metrics": json.loads(training.encode(release)), "span": made.metrics["span"]})
    return made.model_id


def promote_first(settings: Settings, model_id: str) -> str:
    """Promotes to `active` where that slot is empty, since a desk needs some model to begin with; later ones pass the gates."""
    registry = Registry(settings.folder("models"))
    return registry.promote(model_id, "active", SCHEMA_HASH) if registry.slot("active") is None else ""


def train(settings: Settings, data: str = "", symbols: Sequence[str] | None = None, force: bool = False, notes: str = "",
          step: Callable[[Callable], Callable] = lambda f: f, say: Say = print) -> Trained:
    """The whole way; `step` wraps each function (Prefect's `task`, or nothing)."""
    root = step(source)(settings, data, symbols, say)
    rows = step(label)(settings, root, symbols, say)
    made = step(fit)(settings, rows, force, say)
    if isinstance(made, str):
        say(f"{made}: the same data and settings have made this model before; --force trains again")
        promoted = step(promote_first)(settings, made)
        meta = json.loads((Registry(settings.folder("models")).root / made / "model.json").read_text())
        return Trained(made, False, meta["metrics"], promoted)
    model_id = step(register)(settings, made, notes)
    return Trained(model_id, True, made.metrics, step(promote_first)(settings, model_id))
