"""Virtual orders to a FillModelV1: trees by LightGBM, flattened; a sigmoid behind them that held-out orders agree with.

Held out are blocks of time spread over the whole span, not its end: an evening that happens to be calm would calibrate the model for calm
evenings (docs/fill-probability.md has both in figures). No order that is trained on rests, or was placed within `EMBARGO_MS`, in a held-out
block.
"""
from typing import Any

import lightgbm as lgb
import numpy as np

from engine.fillprob.model_v0 import ALL_BPS, rate_bps
from engine.fillprob.model_v1 import MAX_BYTES, SCALE, FillModelV1, Tree
from engine.fillprob.order_features import NAMES, WAYS
from engine.scoring.calibration import fit_platt, platt
from store.artifacts import ArtifactError
from store.virtual_orders import Orders

TREES, LEAVES, DEPTH, RATE, LEAST_ROWS = 80, 15, 6, 0.12, 400
BLOCK_MS, EVERY, EMBARGO_MS = 900_000, 4, 60_000
POINTS, REACH = 65, 8.0         # of the calibration: so many between these log-odds


def parameters(seed: int) -> dict[str, Any]:
    """LightGBM's parameters: the same rows and seed give the same trees, byte for byte."""
    return {"objective": "binary", "learning_rate": RATE, "num_leaves": LEAVES, "max_depth": DEPTH, "min_data_in_leaf": LEAST_ROWS,
            "lambda_l2": 5.0, "monotone_constraints": list(WAYS), "seed": seed, "deterministic": True, "force_row_wise": True,
            "num_threads": 1, "verbosity": -1}


def parts(orders: Orders) -> tuple[np.ndarray, np.ndarray]:
    """bool[m] of the orders to fit, and of those held out for the calibration."""
    def held(ms: np.ndarray) -> np.ndarray:
        return ms // BLOCK_MS % EVERY == EVERY - 1
    start, end = orders.ts_ms, orders.ts_ms + orders.horizon_ms
    return (~(held(start) | held(end + EMBARGO_MS) | held(start - EMBARGO_MS)),
            held(start) & (start // BLOCK_MS == end // BLOCK_MS))


def flattened(node: dict[str, Any], tree: Tree) -> int:
    """Writes a node of LightGBM's dump and all below it; the number by which its parent knows it."""
    if "leaf_value" in node:
        tree.leaves.append(round(node["leaf_value"] * SCALE))
        return -len(tree.leaves)
    at = len(tree.column)
    tree.column.append(node["split_feature"])
    tree.threshold.append(float(f"{node['threshold']:.7g}"))
    tree.left.append(0)
    tree.right.append(0)
    tree.left[at] = flattened(node["left_child"], tree)
    tree.right[at] = flattened(node["right_child"], tree)
    return at


def trees_of(booster: lgb.Booster) -> list[Tree]:
    """The booster as arrays of whole numbers and thresholds."""
    out = []
    for one in booster.dump_model()["tree_info"]:
        tree = Tree([], [], [], [], [])
        flattened(one["tree_structure"], tree)
        out.append(tree)
    return out


def fit(orders: Orders, seed: int) -> FillModelV1:
    """The model of these orders; `ArtifactError` where they are too few, or all met one fate."""
    train, held = parts(orders)
    y = orders.y
    for name, chosen in (("to fit", train), ("held out", held)):
        filled = int(y[chosen].sum())
        if not 0 < filled < int(chosen.sum()):
            raise ArtifactError(f"{filled} of {int(chosen.sum())} virtual orders {name} were filled; both fates are needed in several "
                                f"blocks of {BLOCK_MS // 60_000} minutes")
    if not np.isfinite(orders.rows).all():
        raise ArtifactError("a feature of a virtual order is no number")
    data = lgb.Dataset(orders.rows[train], y[train], feature_name=list(NAMES), params=parameters(seed))
    trees = trees_of(lgb.train(parameters(seed), data, TREES))
    raw = FillModelV1(trees, [(0, 0)], 0, 0).sums(orders.rows[held]) / SCALE
    w, b = fit_platt(1 / (1 + np.exp(-raw)), y[held].astype(np.float64))
    if w <= 0:
        raise ArtifactError(f"calibration: slope {w:.3f}: the held-out orders are ranked the wrong way round; more data is needed")
    at = np.linspace(-REACH, REACH, POINTS)
    said = platt(1 / (1 + np.exp(-at)), w, b)
    points = [(round(x * SCALE), round(p * ALL_BPS)) for x, p in zip(at.tolist(), said.tolist())]
    n = int(train.sum() + held.sum())
    model = FillModelV1(trees, points, rate_bps(int(y[train | held].sum()), n), n)
    if len(model.to_json()) > MAX_BYTES:
        raise ArtifactError(f"model.json: {len(model.to_json())} bytes, at most {MAX_BYTES} travel in a control")
    return model
