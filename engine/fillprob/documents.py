"""Files of fill probability as bytes: JSON that is read strictly, hashes that pin it, and a coded no where either is wrong.

A report, a model and an artifact come from disks that anybody may write. So text is parsed without Python's liberties (NaN, two values of
one key), numbers are not bools, and every refusal has a code that operators grep for.
"""
import hashlib
import json
from typing import Any

MISSING_FIELD, PARSE_ERROR, SHA256_MISMATCH = "missing_field", "parse_error", "sha256_mismatch"
SCHEMA_UNSUPPORTED, BAD_TYPE, OUT_OF_RANGE = "schema_unsupported", "bad_type", "out_of_range"
SAID = 200      # characters of a parser's own words that a detail carries


class Refused(Exception):
    """A file that is not what it should be: the code, and the detail in words."""

    def __init__(self, code: str, detail: str):
        self.code, self.detail = code, detail[:SAID]
        super().__init__(f"{code}: {self.detail}")


def sha256(blob: bytes) -> str:
    """The hash in hex."""
    return hashlib.sha256(blob).hexdigest()


def pretty(document: dict[str, Any], ordered: bool = False) -> bytes:
    """JSON as all these files have it: two spaces, a newline at the end, keys sorted unless `ordered` keeps them as they stand."""
    return (json.dumps(document, indent=2, sort_keys=not ordered, allow_nan=False) + "\n").encode()


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    out = dict(pairs)
    if len(out) != len(pairs):
        raise ValueError("a key stands twice")
    return out


def _no_number(word: str) -> Any:
    raise ValueError(f"{word} is no number")


def parsed(blob: bytes | None, name: str) -> dict[str, Any]:
    """A JSON object; `missing_field` where there is no file, `parse_error` where it is no JSON object."""
    if blob is None:
        raise Refused(MISSING_FIELD, f"{name}: no such file")
    try:
        document = json.loads(blob.decode(), object_pairs_hook=_unique, parse_constant=_no_number)
    except (ValueError, RecursionError) as error:
        raise Refused(PARSE_ERROR, str(error)) from None
    if not isinstance(document, dict):
        raise Refused(PARSE_ERROR, f"{name}: an object was expected, not {type(document).__name__}")
    return document


def declared(blob: bytes | None, name: str, schema: str) -> dict[str, Any]:
    """A manifest that says to be of this schema."""
    head = parsed(blob, name)
    if head.get("schema_version") != schema:
        raise Refused(SCHEMA_UNSUPPORTED, f"{name}: schema_version: {head.get('schema_version')!r} is not {schema!r}")
    return head


def pinned(manifest: dict[str, Any], name: str, blob: bytes | None) -> bytes:
    """The file that a manifest names, if its bytes are the ones that were hashed."""
    if blob is None:
        raise Refused(MISSING_FIELD, f"{name}: no such file")
    hashes = manifest.get("sha256")
    if not isinstance(hashes, dict) or not isinstance(hashes.get(name), str):
        raise Refused(MISSING_FIELD, f"manifest.json: sha256.{name}: missing")
    if (got := sha256(blob)) != hashes[name]:
        raise Refused(SHA256_MISMATCH, differ(hashes[name], got))
    return blob


def differ(expected: str, got: str) -> str:
    """Two hashes that should be one.

    >>> differ("a" * 64, "b" * 64)
    'expected aaaaaaaaaaaaaaaa..., got bbbbbbbbbbbbbbbb...'
    """
    return f"expected {expected[:16]}..., got {got[:16]}..."


def is_int(value: object) -> bool:
    """A whole number, and not true or false."""
    return isinstance(value, int) and not isinstance(value, bool)
