"""FillModelV0: the share of round trips that won, by bins of direction, notional, fills and holding time.

What S2 calls fill probability is a win rate: the label is `outcome == "win"` after fees, a loss and a breakeven alike are none. Whole
numbers only, rounded half up, so that a model is the same bytes wherever it was trained.
"""
import re
from collections.abc import Iterable, Mapping
from typing import Any, Protocol, TypedDict

import msgspec

from engine.facts import BUY, LONG, SHORT
from engine.fillprob.dataset import WIN, Roundtrip
from engine.fillprob.documents import (
    BAD_TYPE,
    MISSING_FIELD,
    SCHEMA_UNSUPPORTED,
    Refused,
    declared,
    is_int,
    parsed,
    pinned,
    pretty,
    sha256,
)
from engine.fillprob.placement import Act

SCHEMA, FILE, MANIFEST = "fill_model_v0", "model.json", "manifest.json"
NOTIONAL, HOLDING_MS, MAX_FILLS = (100, 500, 1000, 5000), (1000, 10_000, 60_000, 300_000), 3
BUCKETS = {"notional": list(NOTIONAL), "holding_ms": list(HOLDING_MS), "max_fill_count": MAX_FILLS}
UNKNOWN_BPS, ALL_BPS = 5000, 10_000
KEY = re.compile(rf"({LONG}|{SHORT})\|[0-4]\|[1-3]\|[0-4]")


class FillFeatures(TypedDict):
    """What the model asks of a trip."""
    direction: str
    notional_bucket: int
    entry_fill_count: int
    holding_ms_bucket: int


class FillModel(Protocol):
    """What the gate asks of a model, whatever its kind."""
    @property
    def fingerprint(self) -> str: ...
    def served(self, act: Act) -> Mapping[str, Any] | None:
        """The features of an order; None where it cannot be judged."""
        ...
    @property
    def n_train_rows(self) -> int: ...
    def predict(self, features: Any) -> int: ...
    def about(self) -> dict[str, int | None]: ...
    def to_json(self) -> bytes: ...
    def manifest(self, created_at_utc: str, *datasets: str) -> bytes: ...


def bucket(value: float, thresholds: tuple[int, ...]) -> int:
    """The first threshold that is not exceeded, by its place.

    >>> bucket(100, NOTIONAL), bucket(100.01, NOTIONAL), bucket(5001, NOTIONAL)
    (0, 1, 4)
    """
    return next((place for place, limit in enumerate(thresholds) if value <= limit), len(thresholds))


def features(direction: str, notional: float, fills: int, holding_ms: int) -> FillFeatures:
    """A trip's features."""
    return {"direction": direction, "notional_bucket": bucket(notional, NOTIONAL), "entry_fill_count": min(max(fills, 1), MAX_FILLS),
            "holding_ms_bucket": bucket(holding_ms, HOLDING_MS)}


def of(row: Roundtrip) -> FillFeatures:
    """The features of a row of the dataset, which knows how the trip ended."""
    return features(row.direction, row.notional, row.entry_fill_count, row.holding_time_ms)


def served(side: str, notional: float) -> FillFeatures:
    """The features of an order that is about to be sent: of fills and holding time it can only assume the least."""
    return features(LONG if side == BUY else SHORT, notional, 1, 0)


def bin_key(f: FillFeatures) -> str:
    """A bin's name.

    >>> bin_key({"direction": "long", "notional_bucket": 1, "entry_fill_count": 1, "holding_ms_bucket": 0})
    'long|1|1|0'
    """
    return f"{f['direction']}|{f['notional_bucket']}|{f['entry_fill_count']}|{f['holding_ms_bucket']}"


def rate_bps(wins: int, total: int) -> int:
    """wins / total in basis points, half up.

    >>> rate_bps(1, 3), rate_bps(2, 3), rate_bps(1, 20_000)
    (3333, 6667, 1)
    """
    return (wins * ALL_BPS + total // 2) // total


class FillModelV0(msgspec.Struct, frozen=True):
    """`bins` and `global_prior_bps` in basis points; a bin that no row fell into is answered by the prior."""
    bins: dict[str, int]
    global_prior_bps: int
    n_train_rows: int

    @classmethod
    def train(cls, rows: Iterable[Roundtrip]) -> "FillModelV0":
        """The win rate of each bin, and of all; without rows half."""
        counts: dict[str, list[int]] = {}
        for row in rows:
            count = counts.setdefault(bin_key(of(row)), [0, 0])
            count[0] += row.outcome == WIN
            count[1] += 1
        wins, total = sum(w for w, _ in counts.values()), sum(n for _, n in counts.values())
        bins = {key: rate_bps(w, n) for key, (w, n) in sorted(counts.items())}
        return cls(bins, rate_bps(wins, total) if total else UNKNOWN_BPS, total)

    @property
    def fingerprint(self) -> str:
        """Hash of the model's file."""
        return sha256(self.to_json())

    def served(self, act: Act) -> FillFeatures:
        """An order's features, of which the market is none."""
        return served(act.side, act.price * act.qty)

    def predict(self, features: FillFeatures) -> int:
        """Basis points, 0 to 10,000."""
        return min(max(self.bins.get(bin_key(features), self.global_prior_bps), 0), ALL_BPS)

    def about(self) -> dict[str, int | None]:
        """What an artifact says of the model that was asked."""
        return {"global_prior_bps": self.global_prior_bps, "n_bins": len(self.bins), "n_train_rows": self.n_train_rows}

    def to_json(self) -> bytes:
        """`model.json`."""
        return pretty({"schema_version": SCHEMA, "bins": self.bins, "global_prior_bps": self.global_prior_bps,
                       "n_train_rows": self.n_train_rows, "bucket_thresholds": BUCKETS})

    def manifest(self, created_at_utc: str, *datasets: str) -> bytes:
        """`manifest.json`, which pins the model's bytes and, where it is known, names the dataset that it was trained on."""
        said: dict[str, Any] = {"schema_version": SCHEMA, "model_file": FILE, "created_at_utc": created_at_utc,
                                "n_train_rows": self.n_train_rows, "global_prior_bps": self.global_prior_bps, "n_bins": len(self.bins),
                                "sha256": {FILE: sha256(self.to_json())}}
        if datasets:
            said["dataset_manifest_sha256"] = datasets[0]
        return pretty(said)


def loaded(manifest: bytes | None, model: bytes | None) -> FillModelV0:
    """A model from its two files; `Refused` says which code and why."""
    return of_json(pinned(declared(manifest, MANIFEST, SCHEMA), FILE, model))


def of_json(blob: bytes) -> FillModelV0:
    """A model from its file; `Refused` says which code and why."""
    got = parsed(blob, FILE)
    for key in ("schema_version", "bins", "global_prior_bps", "n_train_rows", "bucket_thresholds"):
        if key not in got:
            raise Refused(MISSING_FIELD, f"{FILE}: {key}: missing")
    if got["schema_version"] != SCHEMA or got["bucket_thresholds"] != BUCKETS:
        raise Refused(SCHEMA_UNSUPPORTED, f"{FILE}: schema_version or bucket_thresholds are not those of {SCHEMA}")
    bins = got["bins"]
    if not isinstance(bins, dict) or not all(is_int(v) for v in (*bins.values(), got["global_prior_bps"], got["n_train_rows"])):
        raise Refused(BAD_TYPE, f"{FILE}: bins, global_prior_bps and n_train_rows must be whole numbers")
    if wrong := next((key for key in bins if not KEY.fullmatch(key)), None):
        raise Refused(BAD_TYPE, f"{FILE}: bins: {wrong!r} is no bin's name")
    return FillModelV0(bins, got["global_prior_bps"], got["n_train_rows"])
