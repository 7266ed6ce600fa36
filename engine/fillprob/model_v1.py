"""FillModelV1: the probability that a resting maker order is filled within its horizon, from what stands around it at its placement.

Gradient-boosted trees flattened into arrays, and a calibration behind them. Leaves and calibration are whole numbers: the trees' sum is
exact in any order, so that the same file says the same basis points on every machine. The probability never rises with the distance nor
with the queue, and never falls with the horizon (`order_features.WAYS`).
"""
import json
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from itertools import pairwise
from typing import Any

import msgspec
import numpy as np
from numba import njit

from engine.fillprob.documents import (
    BAD_TYPE,
    MISSING_FIELD,
    OUT_OF_RANGE,
    SCHEMA_UNSUPPORTED,
    Refused,
    declared,
    is_int,
    parsed,
    pinned,
    pretty,
    sha256,
)
from engine.fillprob.model_v0 import ALL_BPS, FILE, MANIFEST
from engine.fillprob.order_features import COLUMNS, NAMES, order_row
from engine.fillprob.placement import Act

SCHEMA = "fill_model_v1"
LABEL = "first lot filled within horizon_ms of placement"
SCALE = 100_000         # of a leaf: log-odds
LEAF_MAX = 100 * SCALE
MAX_BYTES = 50_000
KEYS = ("schema_version", "label", "features", "trees", "calibration", "global_prior_bps", "n_train_rows")


class Tree(msgspec.Struct, frozen=True, array_like=True):
    """Inner nodes by number: column, threshold, where to go on if the value is at most the threshold, and else; a leaf's number k is
    written as −1−k. `leaves` in 1/SCALE of log-odds."""
    column: list[int]
    threshold: list[float]
    left: list[int]
    right: list[int]
    leaves: list[int]


class OrderSeen(Mapping[str, float]):
    """A row of features by their names; made into a mapping only where somebody reads it."""

    def __init__(self, row: np.ndarray):
        self.row = row

    def __getitem__(self, name: str) -> float:
        return float(self.row[NAMES.index(name)])

    def __iter__(self) -> Iterator[str]:
        return iter(NAMES)

    def __len__(self) -> int:
        return COLUMNS


@njit(cache=True)
def _sums(rows, roots, column, threshold, left, right, leaves, out):
    """Σ leaves of each row; nodes and leaves of all trees stand behind each other, and `left`, `right` count over all of them."""
    for k in range(len(rows)):
        total = np.int64(0)
        for root in roots:
            node = root
            while node >= 0:
                node = left[node] if rows[k, column[node]] <= threshold[node] else right[node]
            total += leaves[-1 - node]
        out[k] = total


@njit(cache=True)
def _calibrated(sums, xs, ys, out):
    """Linear between the points of the calibration, in whole numbers, half up; flat outside them."""
    last = len(xs) - 1
    for k in range(len(sums)):
        x = sums[k]
        if x <= xs[0]:
            out[k] = ys[0]
        elif x >= xs[last]:
            out[k] = ys[last]
        else:
            i = np.searchsorted(xs, x, side="right") - 1
            wide = xs[i + 1] - xs[i]
            out[k] = ys[i] + (2 * (ys[i + 1] - ys[i]) * (x - xs[i]) + wide) // (2 * wide)


class FillModelV1(msgspec.Struct, frozen=True, dict=True):
    """`calibration` [[sum, bps], …], both rising; `global_prior_bps` the share of filled orders among those that it was fitted to;
    `features` the columns that it was fitted to, which must be the program's."""
    trees: list[Tree]
    calibration: list[tuple[int, int]]
    global_prior_bps: int
    n_train_rows: int
    features: tuple[str, ...] = NAMES

    @cached_property
    def _arrays(self) -> tuple[np.ndarray, ...]:
        roots, column, threshold, left, right, leaves = [], [], [], [], [], []      # type: ignore[var-annotated]
        for tree in self.trees:
            at, first = len(column), len(leaves)
            roots.append(at if tree.column else -1 - first)
            column += tree.column
            threshold += tree.threshold
            for side, to in ((left, tree.left), (right, tree.right)):
                side += [node + at if node >= 0 else node - first for node in to]
            leaves += tree.leaves
        return (*(np.array(a, np.int64) for a in (roots, column, left, right, leaves)), np.array(threshold, np.float64))

    @cached_property
    def _points(self) -> tuple[np.ndarray, np.ndarray]:
        points = np.array(self.calibration, np.int64)
        return points[:, 0].copy(), points[:, 1].copy()

    @cached_property
    def fingerprint(self) -> str:
        """Hash of the model's file."""
        return sha256(self.to_json())

    def sums(self, rows: np.ndarray) -> np.ndarray:
        """int64[m]: what the trees say of rows float32[m, COLUMNS], in 1/SCALE of log-odds, before calibration."""
        out = np.empty(len(rows), np.int64)
        roots, column, left, right, leaves, threshold = self._arrays
        _sums(np.ascontiguousarray(rows, np.float32), roots, column, threshold, left, right, leaves, out)
        return out

    def bps(self, rows: np.ndarray) -> np.ndarray:
        """int64[m]: probabilities of rows float32[m, COLUMNS], in basis points."""
        sums = self.sums(rows)
        out = np.empty_like(sums)
        xs, ys = self._points
        _calibrated(sums, xs, ys, out)
        return out

    def served(self, act: Act) -> OrderSeen | None:
        """The features of an order; None where it comes without its market."""
        row = order_row(act)
        return None if row is None else OrderSeen(row)

    def predict(self, features: OrderSeen) -> int:
        """Basis points, 0 to 10,000."""
        return int(self.bps(features.row[None])[0])

    @property
    def n_bins(self) -> int:
        """How many different sums a tree can add, over all trees."""
        return sum(len(tree.leaves) for tree in self.trees)

    def about(self) -> dict[str, int | None]:
        """What an artifact says of the model that was asked."""
        return {"global_prior_bps": self.global_prior_bps, "n_bins": self.n_bins, "n_train_rows": self.n_train_rows}

    def to_json(self) -> bytes:
        """`model.json`, a tree a line."""
        said = {"schema_version": SCHEMA, "label": LABEL, "features": list(self.features),
                "calibration": self.calibration, "global_prior_bps": self.global_prior_bps, "n_train_rows": self.n_train_rows}
        head = ",\n".join(f" {_said(key)}: {_said(value)}" for key, value in sorted(said.items()))
        trees = ",\n".join(f"  {_said(msgspec.to_builtins(tree))}" for tree in self.trees)
        return f'{{\n{head},\n "trees": [\n{trees}\n ]\n}}\n'.encode()

    def manifest(self, created_at_utc: str, *datasets: str) -> bytes:
        """`manifest.json`, which pins the model's bytes and names the datasets that it was trained on by their manifests' hashes."""
        said: dict[str, Any] = {"schema_version": SCHEMA, "model_file": FILE, "created_at_utc": created_at_utc,
                                "n_train_rows": self.n_train_rows, "global_prior_bps": self.global_prior_bps, "n_bins": self.n_bins,
                                "n_trees": len(self.trees), "label": LABEL, "sha256": {FILE: sha256(self.to_json())}}
        if datasets:
            said |= {"dataset_manifest_sha256": datasets[0], "datasets": list(datasets)}
        return pretty(said)


def _said(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"), allow_nan=False)


def loaded(manifest: bytes | None, model: bytes | None) -> FillModelV1:
    """A model from its two files; `Refused` says which code and why."""
    return of_json(pinned(declared(manifest, MANIFEST, SCHEMA), FILE, model))


def of_json(blob: bytes) -> FillModelV1:
    """A model from its file; `Refused` says which code and why."""
    got = parsed(blob, FILE)
    for key in KEYS:
        if key not in got:
            raise Refused(MISSING_FIELD, f"{FILE}: {key}: missing")
    if got["schema_version"] != SCHEMA or got["label"] != LABEL:
        raise Refused(SCHEMA_UNSUPPORTED, f"{FILE}: schema_version or label are not those of {SCHEMA}")
    if got["features"] != list(NAMES):
        raise Refused(SCHEMA_UNSUPPORTED, f"{FILE}: features are not the {COLUMNS} columns of this program; train the model again")
    if not all(is_int(got[key]) for key in ("global_prior_bps", "n_train_rows")):
        raise Refused(BAD_TYPE, f"{FILE}: global_prior_bps and n_train_rows must be whole numbers")
    try:
        model = FillModelV1([msgspec.convert(tree, Tree) for tree in _list(got["trees"])],
                            msgspec.convert(got["calibration"], list[tuple[int, int]]), got["global_prior_bps"], got["n_train_rows"])
    except msgspec.ValidationError as error:
        raise Refused(BAD_TYPE, f"{FILE}: trees or calibration: {error}") from None
    for place, tree in enumerate(model.trees):
        if wrong := _wrong(tree):
            raise Refused(OUT_OF_RANGE, f"{FILE}: trees: {place}: {wrong}")
    if wrong := _wrong_points(model.calibration):
        raise Refused(OUT_OF_RANGE, f"{FILE}: {wrong}")
    if not 0 <= model.global_prior_bps <= ALL_BPS:
        raise Refused(OUT_OF_RANGE, f"{FILE}: global_prior_bps: {model.global_prior_bps} is not between 0 and {ALL_BPS}")
    return model


def _list(value: Any) -> list[Any]:
    if not isinstance(value, list):
        raise Refused(BAD_TYPE, f"{FILE}: trees: a list was expected, not {type(value).__name__}")
    return value


def _wrong(tree: Tree) -> str:
    """What is wrong with a tree, for no file may lead the kernel outside its arrays or in a circle; "" where nothing is."""
    n = len(tree.column)
    if not n == len(tree.threshold) == len(tree.left) == len(tree.right) or len(tree.leaves) != n + 1:
        return f"{n} columns, {len(tree.threshold)} thresholds, {len(tree.left)} and {len(tree.right)} ways, {len(tree.leaves)} leaves"
    if not all(0 <= c < COLUMNS for c in tree.column):
        return f"a column outside 0…{COLUMNS - 1}"
    if not all(-np.inf < t < np.inf for t in tree.threshold) or not all(abs(v) <= LEAF_MAX for v in tree.leaves):
        return "a threshold or a leaf that is no possible number"
    for node in range(n):
        for to in (tree.left[node], tree.right[node]):
            if not (node < to < n or -1 - n <= to < 0):
                return f"node {node} leads to {to}"
    return ""


def _wrong_points(points: Sequence[tuple[int, int]]) -> str:
    """What is wrong with a calibration."""
    if not points or not all(0 <= y <= ALL_BPS and abs(x) <= 1000 * LEAF_MAX for x, y in points):
        return f"calibration: it has no points, or some outside 0…{ALL_BPS}"
    if any(b[0] <= a[0] or b[1] < a[1] for a, b in pairwise(points)):
        return "calibration: it does not rise"
    return ""


def warm() -> None:
    """Compiles the kernels, or loads them from the cache."""
    FillModelV1([Tree([0], [0.0], [-1], [-2], [1, -1])], [(-1, 0), (1, ALL_BPS)], 0, 0).bps(np.zeros((1, COLUMNS), np.float32))
