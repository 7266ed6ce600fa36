"""From an archive to labelled rows: every candidate that the signal engine would have proposed, and what became of it.

A table has one row a candidate, symbol after symbol in time order: `COLUMNS`, then a float32 column `feature.NAME` for each
declared feature. Its parquet metadata carry the feature schema and what the labels were made under.
"""
import hashlib
import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from config.settings import Settings, fingerprint
from engine.facts import Frame
from engine.scoring import labels as l
from engine.scoring import regime
from engine.scoring.features import FEATURES, SCHEMA_HASH, SCHEMA_VERSION, config_hash
from engine.scoring.signals import Columns, SignalEngine
from store import archive, disk
from store.registry import schema_props

COLUMNS = ("symbol", "ts_ms", "side", "regime", "kind", "y", "net_bps", "markout_100", "markout_500", "markout_1000", "fill_ms", "end_ms")
FEATURE_COLUMNS = tuple(f"feature.{name}" for name in FEATURES)
EVENTS = 8192


class DatasetError(Exception):
    """An archive or a table of labelled rows that cannot be used: which, and why."""


def feature_config_hash(settings: Settings) -> str:
    """sha256 of the settings that the feature values depend on."""
    return config_hash(settings.windows, settings.triggers, settings.regimes)


def made_under(settings: Settings, symbols: Sequence[str]) -> dict:
    """Every setting that a labelled row depends on, for keys of data and models."""
    parts = {name: fingerprint(getattr(settings, name)) for name in ("windows", "regimes", "triggers", "labels", "matching")}
    return {**parts, "features": SCHEMA_HASH, "instruments": {s: fingerprint(settings.instrument(s)) for s in symbols}}


def data_key(root: Path, symbols: Sequence[str], settings: Settings) -> str:
    """sha256 of what a table of this archive depends on: the archive's sidecars (which hash their parquet) and the settings."""
    digest = hashlib.sha256(json.dumps(made_under(settings, symbols), sort_keys=True).encode())
    for symbol in symbols:
        for path in sorted((root / f"symbol={symbol}").rglob("*.json")):
            digest.update(str(path.relative_to(root)).encode() + path.read_bytes())
    return digest.hexdigest()


def label_symbol(frames: Iterator[Frame], symbol: str, settings: Settings) -> pa.Table:
    """The labelled candidates of one symbol's frames."""
    instrument = settings.instrument(symbol)
    engine = SignalEngine(symbol, instrument, settings.windows, settings.triggers, settings.regimes)
    taken: list[Frame] = []
    found: list[Columns] = []
    before = 0
    for frame in frames:
        got = engine.columns(frame)
        found.append(got._replace(event=got.event + before))
        before += frame.n
        taken.append(frame)
    if not taken:
        raise DatasetError(f"{symbol}: the archive has no events")
    c = Columns(*(np.concatenate(parts) for parts in zip(*found)))
    stream = l.stream_of(taken)
    del taken, found
    entry, stop, target = c.ticks.T
    out = l.label(stream, c.event, c.side, entry, stop, target, instrument, settings.matching, settings.labels)
    columns: dict[str, object] = {
        "symbol": pa.array([symbol] * len(c.event)), "ts_ms": c.ts_ms, "side": c.side,
        "regime": np.array(regime.NAMES, object)[c.regime], "kind": out.kind, "y": out.y, "net_bps": out.net_bps,
        **{f"markout_{ms}": np.ascontiguousarray(out.markouts[:, h]) for h, ms in enumerate(l.MARKOUTS_MS)},
        "fill_ms": out.fill_ms, "end_ms": out.end_ms}
    features = {column: np.ascontiguousarray(c.features[:, f]) for f, column in enumerate(FEATURE_COLUMNS)}
    return pa.table(columns | features)


def build(root: Path, settings: Settings, symbols: Sequence[str] | None = None, progress=lambda text: None) -> pa.Table:
    """The labelled candidates of an archive, all its symbols or those named; `DatasetError` where there is none."""
    have = archive.symbols(root)
    symbols = list(symbols or have)
    missing = [s for s in symbols if s not in have]
    if missing or not symbols:
        raise DatasetError(f"{root}: no {', '.join(missing) or 'symbol'} in this archive; it has {', '.join(have) or 'none'}")
    tables = []
    for symbol in symbols:
        table = label_symbol(archive.read(root, symbol, events=EVENTS), symbol, settings)
        tables.append(table)
        kinds = np.bincount(table["kind"].to_numpy(), minlength=len(l.KINDS))
        progress(f"{symbol}: {len(table):,} candidates; " + ", ".join(f"{n:,} {k}" for k, n in zip(l.KINDS, kinds)))
    props = schema_props(SCHEMA_VERSION, FEATURES, feature_config_hash(settings))
    return pa.concat_tables(tables).replace_schema_metadata(
        props | {"made_under": json.dumps(made_under(settings, symbols), sort_keys=True), "data_key": data_key(root, symbols, settings),
                 "source": str(root)})


def write(table: pa.Table, path: Path) -> None:
    """The table as parquet, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, compression="zstd")
    disk.replace(path, sink.getvalue())


def read(path: Path) -> pa.Table:
    """A table that `write` made; `DatasetError` names what is wrong with any other."""
    try:
        table = pq.read_table(path)
    except (OSError, pa.ArrowInvalid) as error:
        raise DatasetError(f"{path}: not a parquet file of labelled rows ({str(error).splitlines()[0]})") from None
    missing = [c for c in (*COLUMNS, *FEATURE_COLUMNS) if c not in table.column_names]
    if missing:
        raise DatasetError(f"{path}: {', '.join(missing[:5])}{'…' if len(missing) > 5 else ''}: missing; "
                           "make it with python -m scripts.labeling")
    have = (table.schema.metadata or {}).get(b"feature_field_order_hash", b"").decode()
    if have != SCHEMA_HASH:
        raise DatasetError(f"{path}: feature_field_order_hash: {have[:12] or 'none'} is not this program's schema, {SCHEMA_HASH[:12]}")
    if not len(table):
        raise DatasetError(f"{path}: no rows: nothing was proposed on that market; more hours of data, or other triggers")
    return table


def matrix(table: pa.Table) -> np.ndarray:
    """float32[m, F] of the declared features, in their order."""
    out = np.empty((len(table), len(FEATURE_COLUMNS)), np.float32)
    for f, name in enumerate(FEATURE_COLUMNS):
        out[:, f] = table[name].to_numpy()
    return out
