"""Length-prefixed msgpack over a socket: what both ends of the local exchange speak."""
import asyncio

import msgspec

from streams.venues.port import LENGTH, Answer, Request

MOST = 64 << 20
_encode = msgspec.msgpack.Encoder().encode
_requests = msgspec.msgpack.Decoder(Request)
_answers = msgspec.msgpack.Decoder(Answer)


def packed(message) -> bytes:
    """A message with its length before it."""
    blob = _encode(message)
    return len(blob).to_bytes(LENGTH, "little") + blob


def unpacked(blob: bytes) -> Answer:
    """An answer without its length; `msgspec.MsgspecError` where it is none."""
    return _answers.decode(blob)


async def message(reader: asyncio.StreamReader, kind: str):
    """The next message of the other end: `kind` is "request" or "answer"; `ConnectionError` when it hung up or speaks otherwise."""
    try:
        size = int.from_bytes(await reader.readexactly(LENGTH), "little")
        if size > MOST:
            raise ConnectionError(f"a message of {size} bytes: not our protocol")
        blob = await reader.readexactly(size)
    except asyncio.IncompleteReadError as error:
        raise ConnectionError("the other end hung up") from error
    try:
        return (_requests if kind == "request" else _answers).decode(blob)
    except msgspec.MsgspecError as error:
        raise ConnectionError(f"not our protocol: {error}") from error
