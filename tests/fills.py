"""Trips for tests of fill probability: executions, rows with a known end, models and evaluations on disk."""
from decimal import Decimal
from pathlib import Path

from engine.facts import BUY, SELL
from engine.fillprob.dataset import Execution, Roundtrip, roundtrips
from engine.fillprob.evidence import evidence
from engine.fillprob.gate import PLACE, SHADOW
from engine.fillprob.model_v0 import FillModelV0, served
from store import fill_outcomes
from store.evidence import write as write_evidence
from store.fill_model import save_evaluation, save_model

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


def settled(root: Path, generated_at: str = MADE) -> dict[str, Path]:
    """Dataset, model, evaluation and shadow evidence of the runbook's first sample, as the commands leave them."""
    train, judged = ceremony(root)
    made = {name: fill_outcomes.write(rows, root / "ds", name, MADE) for name, rows in (("train", train), ("later", judged))}
    rows, train_sha = fill_outcomes.load(made["train"])
    model = FillModelV0.train(rows)
    made["model"] = save_model(model, root / "model", MADE, dataset=train_sha)
    rows, later_sha = fill_outcomes.load(made["later"])
    made["eval"] = root / "eval"
    save_evaluation(rows, model, made["eval"], dataset=made["later"], dataset_sha256=later_sha, model_dir=made["model"],
                    generated_at=generated_at)
    for k in range(42):
        artifact = evidence(T0 + k, SHADOW, 2450, 2500, False, served(BUY, 50), PLACE, "BTCUSDT", BUY, 50.0, 1.0, model.about())
        made["evidence"] = write_evidence(root / "artifacts", artifact).parent
    return made
