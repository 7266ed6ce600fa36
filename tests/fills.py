"""Trips for tests of fill probability: executions, rows with a known end, models and evaluations on disk."""
from decimal import Decimal
from pathlib import Path

from engine.facts import BUY, SELL
from engine.fillprob.dataset import Execution, Roundtrip, roundtrips

T0 = 1_767_654_887_000
MADE = "2026-01-06T00:00:00Z"


def fill(ts: int, side: str, price: str, qty: str, symbol: str = "BTCUSDT", fee: str = "0", **more) -> Execution:
    """An execution, its numbers in digits."""
    return Execution(ts, symbol, side, Decimal(price), Decimal(qty), f"o{ts}", Decimal(fee), **more)


def trips(n: int, wins: int, notional: str = "50", side: str = BUY, held_ms: int = 500, start: int = T0) -> list[Roundtrip]:
    """n round trips of this notional, the first of them won, the others lost."""
    fills = []
    for k in range(n):
        ts = start + 10_000_000 * k
        out = SELL if side == BUY else BUY
        better = Decimal(1) if (k < wins) == (side == BUY) else Decimal(-1)
        qty = str(Decimal(notional) / 100)
        fills += [fill(ts, side, "100", qty), fill(ts + held_ms, out, str(100 + better), qty)]
    return roundtrips(fills)


def ceremony(root: Path) -> tuple[list[Roundtrip], list[Roundtrip]]:
    """Trips to train and to judge by, whose figures are those of the runbook's first sample: 8 bins, prior 6000, 100 rows, 200 bps."""
    train = trips(200, 49, "50") + trips(50, 37, "50", SELL)
    for notional, side in (("200", BUY), ("200", SELL), ("600", BUY), ("600", SELL), ("2000", BUY)):
        train += trips(27, 27, notional, side)
    train += trips(25, 25, "2000", SELL)
    judged = trips(50, 13, "50", start=T0 + 10**13) + trips(50, 38, "50", SELL, start=T0 + 10**13)
    return train, judged
