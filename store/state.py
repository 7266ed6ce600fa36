"""A stage's state between two lives: marks and a blob, written whole or not at all."""
import fcntl
import json
import os
import time
from pathlib import Path

import msgspec

from store import disk


class Kept(msgspec.Struct):
    """`marks`: (epoch, topic, partition, offset); `parts`: the stage's own blobs by name; `wrote`: the log epoch of each topic that it
    writes to."""
    marks: list[tuple[str, str, int, int]] = []
    parts: dict[str, bytes] = {}
    wrote: dict[str, str] = {}


class StateFile:
    """`data/state/<instance><service>.state`; saved at most every `every_s` seconds unless asked. One process at a time: `SystemExit`."""

    def __init__(self, folder: Path, name: str, every_s: float = 2.0):
        self.path, self.every_s, self.saved_at = folder / "state" / f"{name}.state", every_s, 0.0
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.lock = self.path.with_suffix(".lock").open("w")
        try:
            fcntl.flock(self.lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise SystemExit(f"{name}: another one runs on {folder} already (it holds {self.lock.name}); stop it, or give this one an "
                             "instance of its own: SLUICE_INSTANCE=NAME") from None

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
        disk.replace(self.path, msgspec.msgpack.encode(kept), sync=False)     # a power cut reads on from an older mark

    def close(self) -> None:
        """Lets go of it: another may open it."""
        self.lock.close()


class Failures:
    """Records that a stage could not carry: the first time the process ends and reads the record again, the second time it is booked.

    `data/state/<name>.failed` remembers where it was, `data/errors/<name>.jsonl` keeps what was booked, with its bytes.
    """

    def __init__(self, folder: Path, name: str):
        self.mark, self.book_path = folder / "state" / f"{name}.failed", folder / "errors" / f"{name}.jsonl"

    def again(self, where: str) -> bool:
        """Whether this very record failed in the life before; remembers it where not."""
        try:
            if self.mark.read_text() == where:
                return True
        except FileNotFoundError:
            pass
        self.mark.parent.mkdir(parents=True, exist_ok=True)
        disk.replace(self.mark, where.encode())
        return False

    def book(self, where: str, value: bytes, error: BaseException) -> None:
        """Keeps the record for a person to look at."""
        self.book_path.parent.mkdir(parents=True, exist_ok=True)
        line = json.dumps({"where": where, "error": f"{type(error).__name__}: {error}", "value": value.hex()}) + "\n"
        disk.append(self.book_path, line.encode())
