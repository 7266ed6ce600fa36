"""A fill model of whatever kind from its files: the manifest and the model say by their schema which one it is."""
from collections.abc import Callable

from engine.fillprob import model_v0, model_v1, order_features
from engine.fillprob.documents import SCHEMA_UNSUPPORTED, Refused, parsed, pinned
from engine.fillprob.model_v0 import FILE, MANIFEST, FillModelV0
from engine.fillprob.model_v1 import FillModelV1

FillModelV = FillModelV0 | FillModelV1
READERS: dict[str, Callable[[bytes], FillModelV]] = {model_v0.SCHEMA: model_v0.of_json, model_v1.SCHEMA: model_v1.of_json}


def loaded(manifest: bytes | None, model: bytes | None) -> FillModelV:
    """A model from its two files; `Refused` says which code and why."""
    schema = _schema(parsed(manifest, MANIFEST).get("schema_version"), MANIFEST)
    got = of_json(pinned(parsed(manifest, MANIFEST), FILE, model))
    if not isinstance(got, FillModelV0 if schema == model_v0.SCHEMA else FillModelV1):
        raise Refused(SCHEMA_UNSUPPORTED, f"{FILE}: schema_version is not that of {MANIFEST}, {schema}")
    return got


def of_json(blob: bytes) -> FillModelV:
    """A model from its file; `Refused` says which code and why."""
    said = parsed(blob, FILE).get("schema_version")
    return READERS[model_v0.SCHEMA if said is None else _schema(said, FILE)](blob)      # without one: the older reader says what is missing


def _schema(said: object, name: str) -> str:
    if not isinstance(said, str) or said not in READERS:
        raise Refused(SCHEMA_UNSUPPORTED, f"{name}: schema_version: {said!r} is none of {', '.join(READERS)}")
    return said


def ready(model: FillModelV) -> None:
    """Has a model's kernels compiled before the first order waits for them."""
    if isinstance(model, FillModelV1):
        model_v1.warm()
        order_features.warm()
