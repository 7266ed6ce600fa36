"""Measure the ledger: a commit, verifying, projecting, one order's story, a backup, at transactions of about 10 KB.

  python -m benchmarks.ledger
  python -m benchmarks.ledger --facts 5000000       (some 2 GB in the temporary folder; the market is not counted, each score is)
  python -m benchmarks.ledger --ledger postgresql+psycopg://sluice@db/bench --transactions 2000
"""
import argparse
import tempfile
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from benchmarks._bench import told
from engine import reasons
from engine.facts import (
    ACCEPTED,
    BUY,
    LIMIT,
    SELL,
    Approved,
    Candidate,
    Decision,
    Dropped,
    DroppedBatch,
    Fill,
    Market,
    Order,
    Outcome,
    Outcomes,
    Report,
    Scored,
    ScoredBatch,
)
from engine.scoring.features import FEATURES, SCHEMA_HASH
from scripts._arguments import ended, number, positive
from store.copying import copy_ledger
from store.ledger import Ledger
from store.projections import Projector
from store.verify import Tally, verify
from store.why import why

T0 = 1_767_690_000_000
BOOKS, SCORES = 200, 10     # in a transaction: a frame's books, and its candidates
LEAST = 10               # transactions, among them two orders, of which one is answered
EVERY = 5                   # one order in so many transactions
FACTS = 2 * SCORES + 3      # in a transaction, at the least


def transaction(i: int, rng: np.random.Generator) -> tuple[list, list, str]:
    """What one frame leads to: facts consumed, answers, and the id of the order among them or nothing."""
    at = T0 + 1000 * i
    market = Market("BTCUSDT", "s1", BOOKS * i, BOOKS, at, 0.1, 0.001, rng.bytes(8 * BOOKS), rng.bytes(4 * BOOKS), rng.bytes(4 * BOOKS),
                    9, 9)
    scored = []
    for k in range(SCORES):
        side = (BUY, SELL)[k % 2]
        signal = Candidate(f"BTCUSDT-s1-{at + k}-{side[0]}", "BTCUSDT", at + k, side, 6e4, 59_952.0, 60_015.0, "normal", "imbalance",
                           SCHEMA_HASH, rng.bytes(4 * len(FEATURES)), k)
        scored.append(Scored(signal, float(rng.random()), "2026-01-06-a1", 0.7, 0.35))
    consumed: list = [market, ScoredBatch("BTCUSDT", "s1", BOOKS * i, BOOKS, at, 0.0, scored)]
    first = 1 if i % EVERY == 0 else 0
    no = [Dropped(f"D-{s.signal.id}", s, reasons.BELOW_TAU, f"p {s.p:.3f} < tau_entry 0.700", at) for s in scored[first:]]
    produced: list = [DroppedBatch("BTCUSDT", "s1", at, no)]
    if not first:
        return consumed, produced, ""
    s = scored[0]
    order_id = f"E-{s.signal.id}"
    yes = Decision(f"D-{s.signal.id}", s, reasons.ALLOW_NEW_ENTRY, "p", 60.0, "kelly", 0.01, 6e4, 10.0, "paper", 1, at)
    order = Order(order_id, "entry", order_id, "BTCUSDT", BUY, 0.01, 6e4, LIMIT, True, False, "paper", 1, at, at + 5000, yes)
    return consumed, [Approved("BTCUSDT", "s1", at, i, 0.0, [order], []), *produced], order_id


def timed(work: Callable[[], Any]) -> tuple[Any, float]:
    """What the work gives, and its seconds."""
    began = time.perf_counter()
    result = work()
    return result, time.perf_counter() - began


def asked(url: str, orders: list[str], scan: bool = False) -> str:
    """Median and most milliseconds to tell why these were sent."""
    told = [1000 * timed(partial(why, url, order_id, scan))[1] for order_id in orders]
    return f"p50 {np.median(told):,.1f} ms, most {max(told):,.1f} ms"


def measure(url: str, transactions: int, folder: str) -> None:
    """Prints the figures of a new ledger at `url`."""
    rng = np.random.default_rng(7)
    took: list[float] = []
    sent: list[str] = []
    facts = 0
    with Ledger(url, "risk") as ledger:
        for i in range(transactions):
            consumed, produced, order_id = transaction(i, rng)
            if order_id:
                sent.append(order_id)
            elif i % EVERY == 1 and i > 1:      # of the first order the venue never says a word
                consumed += [Report(sent[-1], "BTCUSDT", ACCEPTED, "", 0.0, 2 * i, T0),
                             Fill(f"f{i}", sent[-1], "BTCUSDT", (BUY, SELL)[i // EVERY % 2], 6e4, 0.01, 0.06, True, 2 * i + 1, T0)]
            elif i % EVERY == 4 and i > 4:
                produced.append(Outcomes("BTCUSDT", "s1", [
                    Outcome(sent[-1], "BTCUSDT", BUY, "normal", "m", 0.8, 0.01, 6e4, 6e4, 0.0, 0.12, -0.12, "time", "paper", T0, T0)]))
            facts += len(consumed) + len(produced) + 2 * SCORES     # each score, and the answer to it
            marks = {("e", "md.frames", 0): i, ("e", "sig.scored", 0): i}
            began = time.perf_counter()
            ledger.commit(T0 + i, consumed, produced, marks)
            took.append(1000 * (time.perf_counter() - began))
            ledger.acknowledge(i)
    p50, p99 = np.percentile(took, (50, 99))
    tally = Tally()
    faults, verified = timed(lambda: list(verify(url, tally=tally)))
    print(f"{transactions:,} transactions of {tally.size / transactions / 1e3:.1f} KB, {facts:,} facts, {len(faults)} faults")
    print(f"commit    p50 {p50:.3f} ms, p99 {p99:.3f} ms, {1000 * len(took) / sum(took):,.0f} a second")
    print(f"verify    {tally.rows / verified:,.0f} records/s, {tally.size / verified / 1e6:,.0f} MB/s")
    projector = Projector(url)
    done, projected = timed(projector.run_once)
    projector.close()
    print(f"project   {done / projected:,.0f} transactions/s, {done * SCORES / projected:,.0f} decisions/s")
    print(f"why       {asked(url, sent[1::max(1, len(sent) // 40)])}")
    print(f"          {asked(url, sent[:1])} for the first order of all, which never ended")
    print(f"          {asked(url, sent[:1], scan=True)} for the same by the chain alone")
    heads, copied = timed(lambda: copy_ledger(url, f"sqlite:///{folder}/copy.db"))
    print(f"backup    {heads['risk'][0] / copied:,.0f} records/s, {tally.size / copied / 1e6:,.0f} MB/s")


@told
def main(argv: list[str] | None = None) -> int:
    """Measures; the database must be new."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.ledger", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ledger", help="the URL of an empty database; default: SQLite in a temporary folder")
    parser.add_argument("--transactions", type=number(int, LEAST, most=10**9), default=10_000,
                        help=f"how many, at least {LEAST} (default 10,000)")
    parser.add_argument("--facts", type=positive, help="as many transactions as hold these facts")
    args = parser.parse_args(argv)
    with tempfile.TemporaryDirectory() as folder:
        measure(args.ledger or f"sqlite:///{folder}/ledger.db", -(-args.facts // FACTS) if args.facts else args.transactions, folder)
    return 0


if __name__ == "__main__":
    raise SystemExit(ended(main))
