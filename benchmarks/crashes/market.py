"""A small market and a small model, made once: what every run of a campaign is played on."""
import json
from pathlib import Path

import lightgbm as lgb
import numpy as np

from config.settings import Settings
from engine.market.simulator import Simulator
from engine.scoring.features import FEATURES
from store.archive import ArchiveWriter
from store.export import floored, to_onnx
from store.registry import Registry, schema_hash_of, schema_props

START_MS = 1_700_000_000_000
EAGER = {      # many orders, quickly
    "SLUICE_WARMUP_SECONDS": "0", "SLUICE_LOSS_STREAK_MAX": "0", "SLUICE_DAILY_LOSS_CAP_USD": "0", "POLICY_COOLDOWN_SYMBOL": "2",
    "POLICY_COOLDOWN_GLOBAL": "0.5", "POLICY_MIN_CONFIDENCE": "0.5"}


def recording(root: Path, settings: Settings, symbols: list[str], seconds: float, seed: int) -> Path:
    """So many seconds of the simulated market as an archive."""
    for i, symbol in enumerate(symbols):
        instrument = settings.instrument(symbol)
        simulator = Simulator(symbol, instrument, settings.market[symbol], seed + i, START_MS, "x")
        with ArchiveWriter(root, symbol, instrument, "crashes") as writer:
            while (frame := simulator.frame(START_MS + int(seconds * 1000), 500)) is not None:
                writer.add(frame)
    return root


def model(models: Path, seed: int = 0) -> None:
    """A model that prefers at random and often: it is there to be asked, not to be right."""
    rng = np.random.default_rng(seed)
    x = (rng.standard_normal((2000, len(FEATURES))) * 10.0 ** rng.integers(-3, 4, len(FEATURES))).astype(np.float32)
    y = (rng.random(2000) < 1 / (1 + np.exp(-1.5 * x[:, 0] / x[:, 0].std()))).astype(np.int8)
    params = {"objective": "binary", "num_leaves": 15, "verbosity": -1, "num_threads": 1, "deterministic": True, "force_row_wise": True}
    booster = lgb.train(params, lgb.Dataset(x, y), 20)
    card = {"id": "crashes", "schema_hash": schema_hash_of(FEATURES), "calibration": {"method": "platt", "w": 1.0, "b": 1.0},
            "thresholds": {"tau_entry": 0.5, "tau_hold": 0.25}, "feature_names": list(FEATURES),
            "feature_schema": {"version": "3", "field_order": list(FEATURES), "field_order_hash": schema_hash_of(FEATURES),
                               "config_hash": "crashes"}, "metrics": {}, "monitoring": {}}
    registry = Registry(models)
    registry.add("crashes", {"model.onnx": to_onnx(floored(booster), schema_props("3", FEATURES, "crashes")),
                             "model.json": json.dumps(card).encode()}, "2026-01-01T00:00:00Z", "made for the crash campaign")
    registry.promote("crashes", "active")

