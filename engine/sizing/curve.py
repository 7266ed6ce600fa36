"""A fitted fill curve as it is kept: parameters, what they were fitted to, and a seal, so that an edited or cut file is none."""
import hashlib
import json
from math import isfinite
from typing import Any

import msgspec

SCHEMA = "fill_curve_v1"
COLUMNS = ("queue", "qi", "depth", "distance_bps", "spread_bps")
QUEUE, DEPTH, DISTANCE = (COLUMNS.index(name) for name in ("queue", "depth", "distance_bps"))
FORMULA = "formula"       # the id of S1's own


class Decile(msgspec.Struct, frozen=True):
    """A tenth of the rows by queue position, as S1's table has it; `avg_depth` is the mean of `depth`."""

    queue_upto: float
    fill_probability: float
    avg_depth: float
    count: int


class FillParameters(msgspec.Struct, frozen=True):
    """A fitted curve: what a registry or a ledger keeps of it. `weights` stand in the order of `columns`.

    `fades` is S1's fading by level where the rows could not tell how the distance matters, else 0.
    """

    intercept: float
    weights: list[float]
    columns: list[str]
    fades: float
    rows: int
    filled: float
    deciles: list[Decile]


class Curve(msgspec.Struct, frozen=True):
    """What a desk is told of a fitted curve: P(filled within `horizon_ms`); `id` is of parameters and horizon, and of nothing else."""

    id: str
    horizon_ms: int
    parameters: FillParameters


def canonical(value: Any) -> bytes:
    """The one way to write a value down for its hash."""
    return json.dumps(msgspec.to_builtins(value), sort_keys=True, separators=(",", ":"), allow_nan=False).encode()


def curve_of(parameters: FillParameters, horizon_ms: int) -> Curve:
    """The curve with its id: equal parameters have equal ids whoever fitted them, and when."""
    return Curve(f"fc-{hashlib.sha256(canonical([horizon_ms, parameters])).hexdigest()[:12]}", horizon_ms, parameters)


def sealed(curve: Curve, created_at_utc: str, source: dict, evaluation: dict) -> bytes:
    """The file's bytes; equal values give equal bytes."""
    body = {"schema_version": SCHEMA, "id": curve.id, "created_at_utc": created_at_utc, "source": source, "horizon_ms": curve.horizon_ms,
            "parameters": msgspec.to_builtins(curve.parameters), "evaluation": evaluation}
    return json.dumps(body | {"sha256": hashlib.sha256(canonical(body)).hexdigest()}, indent=1, allow_nan=False).encode() + b"\n"


def unsealed(blob: bytes) -> Curve:
    """The curve in a file's bytes; `ValueError` says what is wrong with any other bytes."""
    try:
        body = json.loads(blob)
    except ValueError as error:
        raise ValueError(f"not JSON ({error})") from None
    if not isinstance(body, dict):
        raise ValueError(f"an object was expected, not {type(body).__name__}")
    if (version := body.get("schema_version")) != SCHEMA:
        raise ValueError(f"schema_version: {version!r} is not {SCHEMA}")
    said = body.pop("sha256", None)
    try:
        own = hashlib.sha256(canonical(body)).hexdigest()
    except ValueError as error:
        raise ValueError(f"a number that is none ({error})") from None
    if said != own:
        raise ValueError(f"sha256: {str(said)[:16]} is not that of the content, {own[:16]}: it was edited or cut")
    try:
        curve = msgspec.convert({key: body.get(key) for key in ("id", "horizon_ms", "parameters")}, Curve)
    except msgspec.ValidationError as error:
        raise ValueError(str(error)) from None
    p = curve.parameters
    if tuple(p.columns) != COLUMNS or len(p.weights) != len(COLUMNS):
        raise ValueError(f"parameters.columns: {', '.join(p.columns)} are not {', '.join(COLUMNS)}, a weight each")
    if not all(map(isfinite, (p.intercept, p.fades, *p.weights))):
        raise ValueError("parameters: every number must be finite")
    if p.weights[QUEUE] > 0 or p.weights[DISTANCE] > 0 or p.fades < 0:
        raise ValueError("parameters: a fill probability that rises with queue or distance is none")
    if curve.horizon_ms < 1 or curve.id != curve_of(p, curve.horizon_ms).id:
        raise ValueError(f"id: {curve.id} is not that of the parameters, {curve_of(p, curve.horizon_ms).id}")
    return curve
