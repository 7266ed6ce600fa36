"""Small real models for tests: trained, exported and registered as the flow does it."""
import json
from pathlib import Path

import lightgbm as lgb
import numpy as np

from engine.scoring.calibration import fit_platt
from store.export import floored, to_onnx
from store.registry import Registry, schema_hash_of, schema_props

NAMES = tuple(f"feature_{i}" for i in range(6))


def data(rows: int = 3000, seed: int = 0, features: int = len(NAMES)) -> tuple[np.ndarray, np.ndarray]:
    """Rows on market-like scales and outcomes that depend on the first two features."""
    rng = np.random.default_rng(seed)
    x = (rng.standard_normal((rows, features)) * 10.0 ** rng.integers(-3, 4, features)).astype(np.float32)
    lean = x[:, 0] / x[:, 0].std() + 0.5 * x[:, 1] / x[:, 1].std()
    return x, (rng.random(rows) < 1 / (1 + np.exp(-1.5 * lean))).astype(np.int8)


def booster(x: np.ndarray, y: np.ndarray, trees: int = 25) -> lgb.Booster:
    params = {"objective": "binary", "num_leaves": 15, "verbosity": -1, "num_threads": 1, "deterministic": True, "force_row_wise": True,
              "min_data_in_leaf": 20}
    return lgb.train(params, lgb.Dataset(x, y, free_raw_data=False), trees)


def files(model_id: str, names: tuple[str, ...] = NAMES, seed: int = 0, tau: float = 0.6, **changes) -> dict[str, bytes]:
    """model.onnx and model.json of a small model; `changes` replace keys of model.json."""
    x, y = data(seed=seed, features=len(names))
    trained = booster(x[:2000], y[:2000])
    w, b = fit_platt(np.asarray(trained.predict(x[2000:])), y[2000:])
    meta = {"id": model_id, "schema_hash": schema_hash_of(names), "calibration": {"method": "platt", "w": w, "b": b},
            "thresholds": {"tau_entry": tau, "tau_hold": tau / 2}, "feature_names": list(names),
            "feature_schema": {"version": "3", "field_order": list(names), "field_order_hash": schema_hash_of(names),
                               "config_hash": "c0ffee"},
            "metrics": {}, "monitoring": {}, **changes}
    return {"model.onnx": to_onnx(floored(trained), schema_props("3", names, "c0ffee")), "model.json": json.dumps(meta).encode()}


def register(models: Path, model_id: str, slot: str | None = None, **kwargs) -> Path:
    """A small model in the registry under `models`, in a slot if asked."""
    registry = Registry(models)
    folder = registry.add(model_id, files(model_id, **kwargs), "2026-01-05T00:00:00Z", "for a test")
    if slot:
        registry.promote(model_id, slot)
    return folder
