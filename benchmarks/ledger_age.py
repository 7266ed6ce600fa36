"""Measure what a restart costs at every age of the ledger: opening, the desk up to its first decision, projections, audit.

  python -m benchmarks.ledger_age
  python -m benchmarks.ledger_age --ages 1000 10000 100000 1000000 --ledger postgresql+psycopg://sluice@db/bench

One ledger grows from age to age. At each its last snapshot is as old as it can get (`ledger.snapshot_every` less one), so that a start
folds as much as it ever must. Transactions are small (one book each): a start reads none but the last of them.
"""
import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import msgspec
import numpy as np

from benchmarks._bench import told
from benchmarks.ledger import T0, timed
from config import settings as config
from engine.facts import BUY, DEPTH, Candidate, Frame, Scored, ScoredBatch, candidate_id, frame_of, market_of
from engine.scoring.features import FEATURES, SCHEMA_HASH
from engine.telemetry import Telemetry
from scripts._arguments import ended, positive
from store.audit import Auditor
from store.ledger import Ledger
from store.projections import Projector
from streams.host import DeskHost, HostState

AGES = (1_000, 10_000, 100_000)
REPEATS = 3
EPOCHS = dict.fromkeys(("md.frames", "sig.scored"), "e")


class Silent:
    """A meter that nobody reads."""

    def inc(self, series, by: float = 1, **labels: str) -> None: ...

    def set(self, series, value: float, **labels: str) -> None: ...

    def observe(self, series, value: float, **labels: str) -> None: ...


def frame(i: int) -> Frame:
    """One book, a second after the one before."""
    row = np.zeros((1, 4, DEPTH), np.int32)
    row[0, 0], row[0, 2], row[0, 1], row[0, 3] = 600_000 - np.arange(DEPTH), 600_001 + np.arange(DEPTH), 900, 900
    return frame_of("BTCUSDT", "s1", i, 0.1, 0.001, np.array([T0 + 1000 * i]), np.zeros(1), row, np.zeros((0, 3)))


def batch(i: int) -> ScoredBatch:
    """The score to that book."""
    at = T0 + 1000 * i
    signal = Candidate(candidate_id("BTCUSDT", "s1", at, BUY), "BTCUSDT", at, BUY, 60_000.0, 59_952.0, 60_015.0, "normal", "imbalance",
                       SCHEMA_HASH, bytes(4 * len(FEATURES)), i)
    return ScoredBatch("BTCUSDT", "s1", i, 1, at, 0.0, [Scored(signal, 0.9, "m", 0.7, 0.35)])


def grow(url: str, to: int, settings: config.Settings) -> None:
    """Writes up to `to` entries, with a snapshot as far back as one may be."""
    with Ledger(url, "risk") as ledger:
        host = DeskHost(settings, ledger, Telemetry(Silent()), lockstep=False)
        kept = to - settings.ledger.snapshot_every + 1
        while (seq := ledger.head()[0]) < to:
            fact = market_of(frame(seq))
            ledger.commit(T0 + 1000 * seq, [fact], [], {("e", "md.frames", 0): seq})
            ledger.acknowledge(seq)
            if seq + 1 == max(1, kept):
                state = HostState(host.desk.snapshot(), {"BTCUSDT": ("s1", seq + 1)}, {}, {})
                ledger.snapshot(seq + 1, T0 + 1000 * seq, msgspec.msgpack.encode(state))


def restart(url: str, settings: config.Settings) -> tuple[float, float, int]:
    """(ms to open the ledger, ms from nothing to the first decision, facts folded)."""
    began = time.perf_counter()
    with Ledger(url, "risk") as ledger:
        opened = time.perf_counter()
        host = DeskHost(settings, ledger, Telemetry(Silent()), lockstep=False)
        i = ledger.head()[0]
        said = [out for offset, record in enumerate((frame(i), batch(i))) for out in host.take(record, ("md.frames", 0, offset))[1]]
        decided = time.perf_counter()
    if not said:
        raise RuntimeError("the desk said nothing to a score")
    return 1000 * (opened - began), 1000 * (decided - began), host.refolded


def ms(work: Callable[[], object]) -> float:
    """Median milliseconds of a few runs."""
    return statistics.median(1000 * timed(work)[1] for _ in range(REPEATS))


def projector(url: str) -> None:
    """A projector starts, looks, finds nothing."""
    following = Projector(url)
    following.run_once()
    following.close()


def measure(url: str, ages: list[int], settings: config.Settings) -> None:
    """A line for each age."""
    print(f"{'entries':>10} {'open':>8} {'to first decision':>18} {'folded':>7} {'projections':>12} {'audit':>8}")
    for age in sorted(ages):
        grow(url, age, settings)
        projector(url)
        lives = [restart(url, settings) for _ in range(REPEATS)]
        opened, decided = (statistics.median(life[k] for life in lives) for k in (0, 1))
        print(f"{age:>10,} {opened:>5.1f} ms {decided:>15.1f} ms {lives[0][2]:>7,} {ms(lambda: projector(url)):>9.1f} ms "
              f"{ms(lambda: Auditor(url, settings)):>5.1f} ms", flush=True)


@told
def main(argv: list[str] | None = None) -> int:
    """Measures; the database must be new."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.ledger_age", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ledger", help="the URL of an empty database; default: SQLite in a temporary folder")
    parser.add_argument("--ages", type=positive, nargs="+", default=list(AGES), metavar="ENTRIES",
                        help=f"at which it is restarted (default {' '.join(map(str, AGES))})")
    args = parser.parse_args(argv)
    with tempfile.TemporaryDirectory() as folder:
        measure(args.ledger or f"sqlite:///{Path(folder)}/ledger.db", args.ages, config.load(env={}))
    return 0


if __name__ == "__main__":
    raise SystemExit(ended(main))
