"""Heads of the chains kept outside them: who writes a whole end of the ledger anew, or cuts it off, contradicts what was noted before.

A line is `<wall clock, UTC> <writer>=<seq>:<hash>`, appended and never changed, by another process than the writer. A head is noted once
it has stood for a round, so that a power cut that takes the ledger's last moments never contradicts a line. The file protects as far
as it is out of the forger's reach: another disk, another host, `chattr +a`, or the supervisor's log, which says the same.
"""
import os
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import sqlalchemy as sa

from config.settings import Settings
from store import tables
from store.chain import seq_of
from store.database import LedgerError, connect, naming, reading
from store.revisions import migrate
from store.shapes import called

Anchors = dict[str, list[tuple[int, str]]]


def anchors_path(settings: Settings) -> Path:
    """`ledger.anchors`, or `data/ledger-anchors.log`, with an instance id `ledger-anchors-<instance>.log`."""
    name = f"ledger-anchors{'-' + settings.instance if settings.instance else ''}.log"
    return Path(settings.ledger.anchors).expanduser() if settings.ledger.anchors else settings.folder("data") / name


def parse(text: str) -> tuple[str, tuple[int, str]]:
    """`writer=seq:hash`; `ValueError` for anything else."""
    writer, rest = text.split("=")
    seq, hashed = rest.split(":")
    if not writer or len(bytes.fromhex(hashed)) != 32 or int(seq) < 1:
        raise ValueError(text)
    return writer, (int(seq), hashed.lower())


def noted(path: Path) -> tuple[Anchors, int]:
    """What was noted, by writer in the order of noting, and how many lines are none (a crash may cut one short); `LedgerError` where the
    file cannot be read. Nothing where there is no file."""
    anchors: Anchors = {}
    odd = 0
    try:
        with path.open("r", encoding="utf-8", errors="replace") as lines:
            for line in lines:
                try:
                    writer, place = parse(line.split()[1])
                    anchors.setdefault(writer, []).append(place)
                except (ValueError, IndexError):
                    odd += bool(line.strip())
    except FileNotFoundError:
        pass
    except OSError as error:
        raise LedgerError(f"{path}: {error.strerror}; anchors of the ledger are kept there (ledger.anchors)") from None
    return anchors, odd


class Witness:
    """Notes the heads of a ledger's chains in a file, and sees at once when a noted one is no longer there."""

    def __init__(self, url: str, path: Path):
        self.url, self.path, self.engine = url, path, connect(url)
        migrate(self.engine)
        self.seen: dict[str, tuple[int, str]] = {}                      # the heads of the round before
        self.last = {writer: places[-1] for writer, places in noted(path)[0].items()}

    def close(self) -> None:
        """Lets go of the connections."""
        self.engine.dispose()

    def round(self) -> tuple[list[str], list[str]]:
        """(heads noted now, as they are written; what contradicts the last note or the round before). Nothing is noted in a
        round that contradicts."""
        t, heads = tables.ledger, tables.meta
        now: dict[str, tuple[int, str]] = {}
        wrong = []
        with naming(self.url), reading(self.engine) as connection:
            for name, value in connection.execute(sa.select(heads.c.name, heads.c.value).where(heads.c.name.like("head:%"))).all():
                if isinstance(name, str) and isinstance(value, str) and (seq := seq_of(value)):
                    now[name.removeprefix("head:")] = (seq, value.partition(" ")[2])
            for writer, (seq, hashed) in [*self.last.items(), *self.seen.items()]:
                there = connection.scalar(sa.select(t.c.hash).where(t.c.writer == writer, t.c.seq == seq))
                if type(there) is not bytes or there.hex() != hashed:
                    now_is = there.hex()[:12] if type(there) is bytes else "gone" if there is None else called(there)
                    wrong.append(f"{writer}/{seq} was {hashed[:12]}… and is {now_is}")
        fresh = {w: head for w, head in self.seen.items() if head[0] > self.last.get(w, (0, ""))[0]}
        self.seen = {} if wrong else now
        lines = [f"{writer}={seq}:{hashed}" for writer, (seq, hashed) in fresh.items()]
        if lines and not wrong:
            self._append(lines)
            self.last |= fresh
        return ([] if wrong else lines), wrong

    def _append(self, lines: Sequence[str]) -> None:
        at = datetime.now(UTC).isoformat(timespec="seconds")
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open("ab+") as file:
                if file.seek(0, os.SEEK_END):
                    file.seek(-1, os.SEEK_END)
                    file.write(b"" if file.read(1) == b"\n" else b"\n")       # behind what a crash left of a line
                file.write("".join(f"{at} {line}\n" for line in lines).encode())
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise LedgerError(f"{self.path}: {error.strerror}; anchors of the ledger are kept there (ledger.anchors)") from error

