"""What the gate leaves behind of an order that it blocked, or would judge: one small JSON file and its hash beside it."""
from collections.abc import Mapping
from typing import Any

from engine.fillprob.ceremony import VERSION as TABLE_VERSION
from engine.fillprob.documents import (
    BAD_TYPE,
    MISSING_FIELD,
    PARSE_ERROR,
    SCHEMA_UNSUPPORTED,
    SHA256_MISMATCH,
    Refused,
    differ,
    is_int,
    parsed,
    sha256,
)
from engine.fillprob.threshold import VERSION as RESOLUTION_VERSION

VERSION = "fill_prob_evidence_v1"
# of each kind the whole numbers and the texts that it must have
FIELDS = {
    VERSION: (("ts_ms", "prob_bps", "threshold_bps"), ("verdict",)),
    RESOLUTION_VERSION: (("ts_ms", "recommended_bps", "configured_bps", "effective_bps"), ("mode", "eval_sha256", "model_manifest_sha256")),
    TABLE_VERSION: (("ts_ms",), ("kind", "verdict")),
}
FOLDER = "fill_prob"
NO_MODEL: dict[str, int | None] = {"global_prior_bps": None, "n_bins": None, "n_train_rows": None}


def evidence(ts_ms: int, verdict: str, prob_bps: int, threshold_bps: int, enforce: bool, features: Mapping[str, Any], action_type: str,
             symbol: str, side: str, price: float, qty: float, model: Mapping[str, int | None] = NO_MODEL) -> dict[str, Any]:
    """The artifact; times are the market's."""
    return {"artifact_version": VERSION, "ts_ms": ts_ms, "verdict": verdict, "prob_bps": prob_bps, "threshold_bps": threshold_bps,
            "enforce": enforce, "features": dict(features),
            "action": {"action_type": action_type, "symbol": symbol, "side": side, "price": str(price), "qty": str(qty)},
            "model": dict(model)}


def name_of(artifact: Mapping[str, Any]) -> str:
    """The file's name, but for what tells two of one millisecond apart.

    >>> name_of({"artifact_version": "threshold_resolution_v1", "ts_ms": 5})
    'threshold_resolution_5'
    """
    if artifact["artifact_version"] == RESOLUTION_VERSION:
        return f"threshold_resolution_{artifact['ts_ms']}"
    if artifact["artifact_version"] == TABLE_VERSION:
        return f"go_no_go_{artifact['ts_ms']}"
    return f"{artifact['ts_ms']}_{artifact['verdict']}_{artifact['action']['symbol']}"


def sidecar(blob: bytes, name: str) -> bytes:
    """The line that `sha256sum -c` reads."""
    return f"{sha256(blob)}  {name}\n".encode()


def checked(blob: bytes | None, beside: bytes | None, name: str) -> dict[str, Any]:
    """An artifact whose sidecar agrees and whose fields are what they should be; `Refused` says which code and why."""
    if blob is None or beside is None:
        raise Refused(MISSING_FIELD, f"{name}{'' if blob is None else '.sha256'}: no such file")
    try:
        want, _, named = beside.decode().rstrip("\n").partition("  ")
    except UnicodeDecodeError as error:
        raise Refused(PARSE_ERROR, f"{name}.sha256: {error}") from None
    if named != name or len(want) != 64:
        raise Refused(PARSE_ERROR, f"{name}.sha256: `<hash>  {name}` was expected")
    if (got := sha256(blob)) != want:
        raise Refused(SHA256_MISMATCH, differ(want, got))
    artifact = parsed(blob, name)
    version = artifact.get("artifact_version")
    if not isinstance(version, str) or version not in FIELDS:
        raise Refused(SCHEMA_UNSUPPORTED, f"{name}: artifact_version: {version!r} is none of {', '.join(FIELDS)}")
    numbers, texts = FIELDS[version]
    for key in (*numbers, *texts):
        if key not in artifact:
            raise Refused(MISSING_FIELD, f"{name}: {key}: missing")
    if not all(is_int(artifact[key]) for key in numbers) or not all(isinstance(artifact[key], str) for key in texts):
        raise Refused(BAD_TYPE, f"{name}: {', '.join(numbers)} must be whole numbers, {', '.join(texts)} text")
    return artifact
