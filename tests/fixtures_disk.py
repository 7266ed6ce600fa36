"""File systems of their own, small enough to be filled, for the tests that fill one or make it read-only."""
import errno
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest


class Small:
    """A file system of its own with little room."""

    def __init__(self, path: Path):
        self.path, self.ballast = path, path / "ballast"

    def fill(self, but: int = 0) -> None:
        """Leaves `but` bytes free."""
        with self.ballast.open("ab", buffering=0) as out:
            try:
                while out.write(bytes(1 << 16)):
                    pass
            except OSError as error:
                assert error.errno == errno.ENOSPC
            out.truncate(max(0, out.tell() - but))

    def free(self) -> None:
        """Room again."""
        self.ballast.unlink()

    def read_only(self, on: bool) -> None:
        """Mounts it anew, to be read only or to be written."""
        subprocess.run(["mount", "-o", f"remount,{'ro' if on else 'rw'}", str(self.path)], check=True)

    def files(self) -> dict[str, bytes]:
        """Every file but the ballast, with its bytes."""
        return {str(p.relative_to(self.path)): p.read_bytes() for p in sorted(self.path.rglob("*")) if p.is_file() and p != self.ballast}


@contextmanager
def mounted(at: Path, size: str) -> Iterator[Small]:
    """So much in memory; the test is skipped where this user may mount nothing."""
    at.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={size}", "sluice-test", str(at)]
    if not shutil.which("mount") or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("this user may not mount a small file system")
    try:
        yield Small(at)
    finally:
        subprocess.run(["umount", "-l", str(at)], check=True)


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Small]:
    """Four megabytes."""
    with mounted(tmp_path / "small", "4m") as one:
        yield one


@pytest.fixture
def roomy(tmp_path: Path) -> Iterator[Small]:
    """Room for a desk's data."""
    with mounted(tmp_path / "roomy", "64m") as one:
        yield one
