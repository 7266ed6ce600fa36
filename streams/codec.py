"""Facts to bytes and back: msgpack, tagged by class. A record of an unknown shape is an error that says where it lay."""
import msgspec

from engine.facts import Record

_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(Record)


class BadRecord(ValueError):
    """Bytes on a topic that are no fact of ours."""


def encode(record) -> bytes:
    """The wire form of a record."""
    return _encoder.encode(record)


def decode(blob: bytes, where: str = ""):
    """The record in these bytes; `BadRecord` names where they lay."""
    try:
        return _decoder.decode(blob)
    except msgspec.MsgspecError as error:
        raise BadRecord(f"{where or 'record'}: not one of our facts ({error})") from error
