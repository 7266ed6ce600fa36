"""A person's word on the disk: the one thing that a KILL must not wait for, so that little has to be loaded before it lies there."""
import re
import time
from pathlib import Path

import msgspec

from config.settings import Settings
from engine.facts import Control
from store import disk


def control(kind: str, actor: str, reason: str, details: dict[str, str] | None = None) -> Control:
    """The fact, under an id that nobody else gives."""
    who = re.sub(r"[^\w.@-]+", "_", actor)
    return Control(f"{kind.lower()}-{time.time_ns() // 1000}-{who}", kind, actor, reason, 0, 0, details or {})


def folder(settings: Settings) -> Path:
    """Where the words for this instance's desk wait."""
    return settings.folder("data") / "controls" / settings.instance


def leave(settings: Settings, control: Control) -> Path:
    """The control as a file, on the disk when this returns; `OSError` where it cannot be written."""
    path = folder(settings) / f"{control.id}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    disk.replace(path, msgspec.json.format(msgspec.json.encode(control)))
    return path


def left(settings: Settings, control: Control) -> tuple[list[str], list[str]]:
    """The same for who says where it lies: its place, or what went wrong."""
    try:
        path = leave(settings, control)
    except OSError as error:
        return [], [disk.said(error)]
    return [str(relative(path))], []


def relative(path: Path) -> Path:
    """As seen from here, where it is below."""
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path
