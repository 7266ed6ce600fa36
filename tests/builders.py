"""Real objects for tests: settings as shipped, random but orderly markets, candidates that a fixed rule scores."""

import hashlib

import msgspec
import numpy as np

from config.settings import Settings, load
from engine.desk import Desk
from engine.execution.matching import Matching
from engine.facts import BOOK, BUY, DEPTH, SELL, TRADE, Candidate, Frame, Market, Scored, candidate_id, cut, frame_of, join
from engine.loop import Road, run
from engine.rewards.attribution import Attributed, Missed

SYMBOL = "BTCUSDT"


AROUND = (50_000, 100_000, 50_000, 100_000, 60)      # lots and trades around a candidate: a market that bounds nobody


def shipped(**env: str) -> Settings:
    """The shipped configuration under an environment of one's own."""
    return load(env=env)


def settings(**env: str) -> Settings:
    """The same without what a test of something else would trip over: one level, one arm, no warm-up, no streak, no risk scaling."""
    s, but = shipped(SLUICE_BANDIT="false", FEATURE_CONSTRAINED_RISK_SCALING="false", **env), msgspec.structs.replace
    return but(s, warmup=but(s.warmup, enabled=False), ladder=but(s.ladder, fractions=[1.0], min_fill_probability=0.0),
               risk=but(s.risk, loss_streak_max=0))


class Unpaid(Desk):
    """A desk that keeps its rewards to itself: what a test of something else looks at."""

    def on(self, fact) -> list:
        return [out for out in super().on(fact) if not isinstance(out, (Attributed, Missed))]


def desk(s: Settings | None = None, **env: str) -> Desk:
    """A desk with the shipped limits."""
    return Unpaid(s or settings(**env))


def market(
    n: int = 2000,
    seed: int = 1,
    symbol: str = SYMBOL,
    session: str = "t1",
    start_ms: int = 1_700_000_000_000,
    price: int = 600_000,
    tick: float = 0.1,
    lot: float = 0.001,
    gap_ms: int = 200,
) -> Frame:
    """A random walk of books with trades at the touch; times repeat now and then, as recorded ones do."""
    rng = np.random.default_rng(seed)
    kinds = (rng.random(n) < 0.4).astype(np.uint8)
    kinds[0] = BOOK
    ts = start_ms + np.cumsum(rng.integers(0, gap_ms, n) * (rng.random(n) < 0.9))
    books, trades, mid, spread = [], [], price, 1
    for kind in kinds:
        if kind == BOOK:
            mid += int(rng.integers(-6, 7))
            spread = int(rng.integers(1, 4))
            row = np.zeros((4, DEPTH), np.int32)
            row[0], row[2] = mid - np.arange(DEPTH), mid + spread + np.arange(DEPTH)
            row[1], row[3] = rng.integers(50, 3000, DEPTH), rng.integers(50, 3000, DEPTH)
            books.append(row)
        else:
            side = 1 if rng.random() < 0.5 else -1
            trades.append((mid + spread if side > 0 else mid, int(rng.integers(1, 2500)), side))
    assert TRADE == 1
    return frame_of(symbol, session, 0, tick, lot, ts, kinds, np.array(books), np.array(trades or np.zeros((0, 3))))


def reframed(frame: Frame, size: int | list[int]) -> list[Frame]:
    """The same events in frames of this size, or cut at these event numbers."""
    cuts = list(range(0, frame.n, size)) if isinstance(size, int) else [0, *sorted({c for c in size if 0 < c < frame.n})]
    return [cut(frame, a, b) for a, b in zip(cuts, [*cuts[1:], frame.n])]


class EveryNth:
    """Proposes a candidate at each book whose time hashes low: a pure function of the event, whatever the framing."""

    def __init__(self, symbol: str = SYMBOL, share: float = 0.2, target_ticks: int = 15, stop_ticks: int = 60):
        self.symbol, self.share, self.target, self.stop = symbol, share, target_ticks, stop_ticks
        self.last: dict[str, int] = {}

    def on(self, frame: Frame) -> list[Candidate]:
        """Candidates of one frame."""
        out, book, times = [], -1, frame.times
        for i, kind in enumerate(frame.kinds):
            if kind != BOOK:
                continue
            book += 1
            ts = int(times[i])
            u = hashlib.sha256(f"{self.symbol}{ts}".encode()).digest()
            side = BUY if u[1] < 128 else SELL
            if u[0] / 256 >= self.share or self.last.get(side) == ts:
                continue
            self.last[side] = ts
            row = frame.book_rows[book]
            entry = int(row[0, 0] if side == BUY else row[2, 0])
            sign = 1 if side == BUY else -1
            out.append(
                Candidate(
                    candidate_id(frame.symbol, frame.session, ts, side),
                    frame.symbol,
                    ts,
                    side,
                    round(entry * frame.tick, 6),
                    round((entry - sign * self.stop) * frame.tick, 6),
                    round((entry + sign * self.target) * frame.tick, 6),
                    "normal",
                    "test",
                    "schema",
                    b"",
                    frame.seq + i,
                    *AROUND,
                )
            )
        return out


def scores(candidates: list[Candidate]) -> list[Scored]:
    """A probability that is a pure function of the id."""
    return [Scored(c, 0.4 + 0.6 * hashlib.sha256(c.id.encode()).digest()[0] / 256, "m1", 0.7, 0.45) for c in candidates]


def closed_loop(frames: dict[str, list[Frame]], s: Settings | None = None) -> tuple[Desk, list[tuple[str, object, list]]]:
    """Runs the closed loop over these frames; the desk and every (symbol, fact, answers)."""
    s = s or settings()
    mind = Desk(s)
    roads = {
        symbol: Road(
            symbol,
            fs,
            EveryNth(symbol),
            scores,
            mind,
            Matching(symbol, s.instrument(symbol), s.matching, fs[0].session),
            s.matching.latency_ms,
        )
        for symbol, fs in frames.items()
    }
    return mind, list(run(roads))


def book(bid: float, ask: float, ts_ms: int, symbol: str = SYMBOL, tick: float = 0.1) -> Market:
    """One book as the Desk reads it."""
    return Market(
        symbol,
        "t1",
        0,
        1,
        ts_ms,
        tick,
        0.001,
        np.array([ts_ms], np.int64).tobytes(),
        np.array([round(bid / tick)], np.int32).tobytes(),
        np.array([round(ask / tick)], np.int32).tobytes(),
        100,
        100,
    )


def candidate(ts_ms: int, side: str = BUY, entry: float = 60_000.0, symbol: str = SYMBOL, regime: str = "normal") -> Candidate:
    """A candidate whose barriers lie 15 below and 3 above in percent of a percent times ten."""
    sign = 1 if side == BUY else -1
    return Candidate(
        candidate_id(symbol, "t1", ts_ms, side),
        symbol,
        ts_ms,
        side,
        entry,
        entry - sign * 60,
        entry + sign * 20,
        regime,
        "test",
        "schema",
        b"",
        0,
        *AROUND,
    )


def scored(ts_ms: int, p: float = 0.85, **more) -> Scored:
    """A candidate with its probability."""
    return Scored(candidate(ts_ms, **more), p, "m1", 0.7, 0.45)


__all__ = ["SYMBOL", "EveryNth", "book", "candidate", "closed_loop", "desk", "join", "market", "reframed", "scored", "scores", "settings"]
