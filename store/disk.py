"""The one way to a file: whole or not at all, and an error that names it and what to do.

The kernel's error of a failed write names no file, and a temporary file that stays takes the space that somebody has just freed.
"""
import errno
import functools
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from config.where import said as setting

FREE, WRITE, PLACE = ("free some space there and start again; what was written before stands",
                      "this user must be able to write there", "a file stands where a folder was expected")
HINTS = {errno.ENOSPC: FREE, errno.EDQUOT: FREE, errno.EFBIG: "the limit on file sizes of this process is reached (ulimit -f)",
         errno.EROFS: "the file system is mounted read-only", errno.EACCES: WRITE, errno.EPERM: WRITE, errno.ENOTDIR: PLACE,
         errno.EEXIST: PLACE, errno.EISDIR: "a folder stands where a file was expected",
         errno.EIO: "the disk fails: look at the kernel's log", errno.ENOENT: "it must exist",
         errno.EMFILE: "the limit on open files of this process is reached (ulimit -n)"}
PROBE = b"\0" * 4096     # a block, so that a full disk is noticed


def is_disk(error: BaseException) -> bool:
    """Whether it is a file's error, which a person can mend, and not a socket's."""
    return isinstance(error, OSError) and error.filename is not None and error.errno in HINTS


def said(error: OSError) -> str:
    """The error in one line: which file, why, what to do.

    >>> said(OSError(errno.ENOSPC, "No space left on device", "/data/x.state"))
    '/data/x.state: No space left on device (free some space there and start again; what was written before stands)'
    """
    hint = HINTS.get(error.errno or 0, "")
    return f"{error.filename}: {error.strerror}" + (f" ({hint})" if hint else "")


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Errors inside that name no file name this one."""
    try:
        yield
    except OSError as error:
        if error.filename is None and error.errno is not None:
            raise OSError(error.errno, os.strerror(error.errno), str(path)) from error
        raise


def replace(path: Path, blob, sync: bool = True) -> None:
    """The file with these bytes, with `sync` on the disk when this returns; raising, the file as it was, and nothing beside it."""
    part = path.with_name(path.name + ".tmp")
    try:
        with naming(part), part.open("wb") as out:
            out.write(blob)
            out.flush()
            if sync:
                os.fsync(out.fileno())
        os.replace(part, path)
    except BaseException:
        with suppress(OSError):
            part.unlink()
        raise


def append(path: Path, line: bytes) -> None:
    """The line at the file's end, on the disk when this returns; raising, the file as it was."""
    with naming(path), path.open("ab", buffering=0) as out:
        size, rest = out.tell(), memoryview(line)
        try:
            while rest:
                rest = rest[out.write(rest):]
            os.fsync(out.fileno())
        except OSError:
            with suppress(OSError):
                os.ftruncate(out.fileno(), size)
            raise


def usable(folder: Path, key: str) -> None:
    """Makes the run-time folder `key` and writes a block to it; `SystemExit` names folder, setting and what to do where it cannot."""
    probe = folder / f".probe-{os.getpid()}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        replace(probe, PROBE)
        probe.unlink()
    except OSError as error:
        raise SystemExit(f"{setting(key)}: {folder} cannot be written: {said(error)}") from None


def used_percent(folder: Path) -> float:
    """How much of the folder's disk is taken, of what a user may write."""
    at = os.statvfs(folder)
    return 100 * (1 - at.f_bavail / at.f_blocks) if at.f_blocks else 0.0


def told(name: str) -> Callable[[Callable[..., int]], Callable[..., int]]:
    """For a command's `main`: a file that cannot be read or written is one line on stderr and status 1, not a traceback."""
    def around(main: Callable[..., int]) -> Callable[..., int]:
        @functools.wraps(main)
        def run(*args, **more) -> int:
            try:
                return main(*args, **more)
            except OSError as error:
                if not is_disk(error):
                    raise
                print(f"{name}: {said(error)}", file=sys.stderr)
                return 1
        return run
    return around
