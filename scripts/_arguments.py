"""What the commands share: numbers that are checked as they are read, and an end without a word where the reader has gone."""
import argparse
import math
import os
import select
import sys
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T", int, float)


def number(kind: Callable[[str], T], least: float, above: bool = False, most: float = math.inf) -> Callable[[str], T]:
    """A type for argparse: a whole or any finite number, at least `least` (or above it), and at most `most`."""
    def read(text: str) -> T:
        what = "a whole number" if kind is int else "a number"
        bound = f"{'above' if above else 'of at least'} {least:g}" + (f" and at most {most:g}" if most < math.inf else "")
        try:
            value = kind(text)
        except (ValueError, OverflowError):
            value = None
        if value is None or not math.isfinite(value) or not least <= value <= most or (above and value == least):
            raise argparse.ArgumentTypeError(f"{text!r} is not {what} {bound}")
        return value
    return read


natural: Callable[[str], int] = number(int, 0, most=2**53)
positive: Callable[[str], int] = number(int, 1, most=2**53)
whole: Callable[[str], int] = number(int, -2**53, most=2**53)
port: Callable[[str], int] = number(int, 0, most=65535)
seconds: Callable[[str], float] = number(float, 0, above=True, most=1e9)
some_seconds: Callable[[str], float] = number(float, 0, most=1e9)
share: Callable[[str], float] = number(float, 0, most=1)
hours: Callable[[str], float] = number(float, 0, above=True, most=1e6)


def several(one: Callable[[str], T]) -> Callable[[str], list[T]]:
    """A type for argparse: such numbers with commas between them, at least one."""
    def read(text: str) -> list[T]:
        return [one(part) for part in text.split(",")]
    return read


def filled(text: str) -> str:
    """A type for argparse: a word that is not empty."""
    if not text.strip():
        raise argparse.ArgumentTypeError("is empty")
    return text


def ended(main: Callable[[], int]) -> int:
    """The status of a command's `main`. Where nobody reads its output any more (`| head`) it is 141 and nothing is said, as of any
    command that SIGPIPE ends."""
    try:
        try:
            return main()
        finally:
            sys.stdout.flush()
    except BrokenPipeError:
        if not _reader_gone(sys.stdout.fileno()):
            raise        # it was another pipe
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())       # what is left in the buffer goes nowhere
        return 141


def _reader_gone(descriptor: int) -> bool:
    poll = select.poll()
    poll.register(descriptor, select.POLLOUT)
    return any(event & select.POLLERR for _, event in poll.poll(0))
