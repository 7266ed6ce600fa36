"""Labelled rows to a model that may be registered: fit, calibrate, export, compare, measure. Nothing here writes a file.

The model is asked only what it can know: of candidates that the venue filled, which reach the target before the stop. All
figures are of the test part, which neither the trees nor the calibration have seen (`engine.scoring.labels.split`).
"""
import hashlib
import json
from datetime import UTC, datetime
from typing import Any, NamedTuple

import lightgbm as lgb
import numpy as np
import pyarrow as pa

from config.settings import Settings, fingerprint
from engine.scoring import labels as l
from engine.scoring.calibration import fit_platt, platt
from engine.scoring.features import FEATURES, SCHEMA_VERSION
from engine.settings import Training
from store.dataset import feature_config_hash, matrix
from store.export import answer_of, floored, refuse_silently_wrong, to_onnx
from store.measure import Rows, measure
from store.model_card import card
from store.parity import TOLERANCE, require
from store.registry import schema_hash_of, schema_props


class TrainingError(Exception):
    """Rows from which no model can be made: what is missing."""


class Model(NamedTuple):
    """A trained model and all that its registry entry holds."""
    model_id: str
    files: dict[str, bytes]
    metrics: dict[str, Any]
    booster: lgb.Booster


def rows_of(table: pa.Table, settings: Settings) -> Rows:
    """The table as arrays, with each row's part of the split."""
    def column(name: str) -> np.ndarray:
        return table[name].to_numpy(zero_copy_only=False)
    kind = column("kind")
    return Rows(matrix(table), column("y"), kind >= l.TARGET, l.split(column("ts_ms"), column("end_ms"), settings.labels),
                column("net_bps"), np.stack([column(f"markout_{ms}") for ms in l.MARKOUTS_MS], 1), column("regime").astype(str),
                column("symbol").astype(str), kind, column("ts_ms"))


def parameters(training: Training) -> dict[str, Any]:
    """LightGBM's parameters: the same rows and seed give the same trees, byte for byte."""
    params = {"objective": "binary", "learning_rate": training.learning_rate, "num_leaves": training.leaves,
              "min_data_in_leaf": training.min_leaf_rows, "feature_fraction": training.feature_fraction, "seed": training.seed,
              "deterministic": True, "force_row_wise": True, "num_threads": 1, "metric": "binary_logloss", "verbosity": -1}
    refuse_silently_wrong(params)
    return params


def model_key(data_key: str, settings: Settings) -> str:
    """sha256 of all that a model depends on: the data with its labels, and the training settings."""
    return hashlib.sha256(f"{data_key}|{fingerprint(settings.training)}".encode()).hexdigest()


def model_id(data_key: str, settings: Settings, last_ms: int) -> str:
    """An id that is the same for the same data and settings: the data's last minute, and its key."""
    return f"lgbm-{datetime.fromtimestamp(last_ms / 1000, UTC):%Y%m%dT%H%M}-{model_key(data_key, settings)[:8]}"


def fit(rows: Rows, training: Training) -> lgb.Booster:
    """Trees on the fills of the train part, their number by the calibration part; `TrainingError` without rows enough."""
    train, held = (rows.filled & (rows.part == p) for p in (l.TRAIN, l.CALIBRATE))
    if int(train.sum()) < training.min_rows:
        raise TrainingError(f"training.min_rows: {int(train.sum())} filled candidates to train on, {training.min_rows} wanted: "
                            f"more hours of data, or other triggers and barriers")
    for name, chosen in (("train", train), ("calibration", held), ("test", rows.filled & (rows.part == l.TEST))):
        won = int(rows.y[chosen].sum())
        if not 0 < won < int(chosen.sum()):
            raise TrainingError(f"the {name} part has {won} targets reached of {int(chosen.sum())} fills; both outcomes are needed")
    if not np.isfinite(rows.x).all():
        raise TrainingError("features: not finite; the signal engine promises finite ones")
    params = parameters(training)
    data = lgb.Dataset(rows.x[train], rows.y[train], feature_name=list(FEATURES), params=params, free_raw_data=False)
    check = lgb.Dataset(rows.x[held], rows.y[held], reference=data)
    stop: list[Any] = [lgb.early_stopping(training.early_stopping, verbose=False)] if training.early_stopping else []
    return lgb.train(params, data, training.trees, valid_sets=[check], callbacks=stop)


def make(table: pa.Table, settings: Settings, identity: str, created_at: str, progress=lambda text: None) -> Model:
    """The whole way from a table to the files of a registry entry; raises where anything would be wrong with it."""
    rows = rows_of(table, settings)
    booster = fit(rows, settings.training)
    progress(f"fitted {booster.best_iteration or booster.num_trees()} trees on {int((rows.filled & (rows.part == l.TRAIN)).sum()):,} fills")
    held = rows.filled & (rows.part == l.CALIBRATE)
    exported = floored(booster)
    config = feature_config_hash(settings)
    onnx = to_onnx(exported, schema_props(SCHEMA_VERSION, FEATURES, config))
    raw = answer_of(onnx)
    w, b = fit_platt(raw(rows.x[held]), rows.y[held])
    if w <= 0:
        raise TrainingError(f"calibration: slope {w:.3f}: on the held-out part the model ranks the wrong way round; more data is needed")
    test = rows.part == l.TEST
    worst, asked = require(booster, raw, rows.x[test][:20_000], settings.training.seed)
    progress(f"parity: largest difference {worst:.1e} on {asked:,} rows, {TOLERANCE:.0e} allowed")
    p = np.full(len(rows.y), np.nan)
    p[test] = platt(raw(rows.x[test]), w, b)
    metrics = measure(rows, p, settings)
    metrics |= {"parity_max": worst, "parity_rows": asked, "trees": booster.best_iteration or booster.num_trees()}
    metrics["importance"] = importance(booster)
    meta = {
        "id": identity, "schema_hash": schema_hash_of(FEATURES), "calibration": {"method": "platt", "w": w, "b": b, "on": "logit"},
        "thresholds": {"tau_entry": settings.training.tau_entry, "tau_hold": settings.training.tau_hold},
        "feature_names": list(FEATURES),
        "feature_schema": {"version": SCHEMA_VERSION, "field_order": list(FEATURES), "field_order_hash": schema_hash_of(FEATURES),
                           "config_hash": config},
        "metrics": metrics, "monitoring": monitoring(rows, platt(raw(rows.x[held]), w, b)),
        "label": {"target_bps": settings.triggers.target_bps, "stop_bps": settings.triggers.stop_bps,
                  "horizon_ms": settings.labels.horizon_ms, "fill_within_ms": settings.labels.fill_within_ms},
    }
    brief = {k: metrics[k] for k in ("pr_auc", "base_rate", "brier", "ece", "precision_at_tau", "winrate_at_tau", "test_fills", "span")}
    origin = table.schema.metadata or {}
    lgbm = {"id": identity, "created_at": created_at, "params": parameters(settings.training), "trees": metrics["trees"], **brief,
            "parity_max": worst, "data": json.loads(origin.get(b"made_under", b"{}"))}
    files = {"model.onnx": onnx, "model.json": encode(meta), "lgbm_meta.json": encode(lgbm),
             "artifacts/booster.txt": exported.model_to_string().encode()}
    files["model_card.md"] = card(identity, created_at, metrics, settings, origin.get(b"source", b"").decode()).encode()
    return Model(identity, files, metrics, exported)


def encode(value: dict) -> bytes:
    """Readable JSON; a figure that is not a number is null."""
    def plain(v):
        if isinstance(v, dict):
            return {k: plain(x) for k, x in v.items()}
        if isinstance(v, (list, tuple)):
            return [plain(x) for x in v]
        if isinstance(v, np.generic):
            v = v.item()
        return None if isinstance(v, float) and not np.isfinite(v) else v
    return (json.dumps(plain(value), indent=2) + "\n").encode()


def importance(booster: lgb.Booster, most: int = 12) -> list[dict[str, Any]]:
    """The features by their share of the total gain, greatest first."""
    gain = booster.feature_importance("gain")
    order = np.argsort(-gain)[:most]
    return [{"feature": FEATURES[f], "gain": float(gain[f] / max(gain.sum(), 1e-12))} for f in order.tolist()]


def monitoring(rows: Rows, score: np.ndarray) -> dict[str, Any]:
    """What drift is measured against: inner decile edges and the share of rows between them, outermost bins open-ended.

    The score's of the calibration part, out of sample as live scores are; each feature's of all candidates trained on.
    """
    train = rows.part == l.TRAIN
    return {"score": reference(score), "features": {name: reference(rows.x[train, f]) for f, name in enumerate(FEATURES)},
            "rows": int(train.sum())}


def reference(values: np.ndarray) -> dict[str, list[float]]:
    """{bins: inner edges, reference: shares}; fewer edges where values repeat (a flag has one)."""
    edges = np.unique(np.quantile(values, np.linspace(0.1, 0.9, 9)))
    counts = np.bincount(np.searchsorted(edges, values, side="left"), minlength=len(edges) + 1)
    return {"bins": edges.tolist(), "reference": (counts / len(values)).tolist()}
