"""Where to read on in a log: our mark in *this* log, what is missing before it, and whether it is another log than before."""
from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Start:
    """`due`: the offset to read from; `missing`: how far that is from the one that was due; `another`: the log we knew is gone."""
    due: int
    missing: int
    another: bool


def start_of(marks: Mapping[tuple[str, str, int], int], epoch: str, topic: str, partition: int, first: int, last: int) -> Start:
    """Where a reader with these marks goes on in a partition that holds the offsets [first, last).

    A log that is not known yet is read from its beginning, and so is one that came back as another.

    >>> start_of({("log1", "t", 0): 4}, "log1", "t", 0, 0, 9)
    Start(due=5, missing=0, another=False)
    >>> start_of({("log1", "t", 0): 4}, "log1", "t", 0, 7, 9)
    Start(due=7, missing=2, another=False)
    >>> start_of({("log1", "t", 0): 4}, "log2", "t", 0, 0, 2)
    Start(due=0, missing=0, another=True)
    >>> start_of({("log1", "t", 0): 8}, "log1", "t", 0, 0, 6)
    Start(due=6, missing=3, another=False)
    """
    known = marks.get((epoch, topic, partition))
    another = known is None and any((t, p) == (topic, partition) for _, t, p in marks)
    due = first if known is None else known + 1
    if first <= due <= last:
        return Start(due, 0, another)
    return Start(first, first - due, another) if due < first else Start(last, due - last, another)
