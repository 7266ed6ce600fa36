"""A stage's state between two lives: marks and a blob, written whole or not at all."""
import os
import time
from pathlib import Path

import msgspec


class Kept(msgspec.Struct):
    """`marks`: (epoch, topic, partition, offset); `parts`: the stage's own blobs by name."""
    marks: list[tuple[str, str, int, int]] = []
    parts: dict[str, bytes] = {}


class StateFile:
    """`data/state/<instance><service>.state`; saved at most every `every_s` seconds unless asked."""

    def __init__(self, folder: Path, name: str, every_s: float = 2.0):
        self.path, self.every_s, self.saved_at = folder / "state" / f"{name}.state", every_s, 0.0
        self.path.parent.mkdir(parents=True, exist_ok=True)

    def load(self) -> Kept:
        """What was kept; nothing where there is no file. A file that cannot be read is set aside, never trusted."""
        try:
            return msgspec.msgpack.decode(self.path.read_bytes(), type=Kept)
        except FileNotFoundError:
            return Kept()
        except msgspec.MsgspecError:
            os.replace(self.path, self.path.with_suffix(".unreadable"))
            return Kept()

    @property
    def due(self) -> bool:
        """Whether it is time to save."""
        return time.monotonic() - self.saved_at >= self.every_s

    def save(self, kept: Kept) -> None:
        """Replaces the file atomically."""
        self.saved_at = time.monotonic()
        temporary = self.path.with_suffix(".new")
        temporary.write_bytes(msgspec.msgpack.encode(kept))
        os.replace(temporary, self.path)
