"""A day of trading in a ledger's projections, through the real tables; and services that speak, through the real exporter."""
import numpy as np
import sqlalchemy as sa

from engine import facts, reasons
from engine import metrics as m
from store import tables
from store.exporter import Exporter

START_MS = 1_767_690_000_000
PRICES = {"BTCUSDT": 93_400.0, "ETHUSDT": 3_210.0, "SOLUSDT": 138.0}
LOTS = {"BTCUSDT": 0.006, "ETHUSDT": 0.18, "SOLUSDT": 4.2}
MODEL = "2026-01-06-a1"
REGIMES = ("normal", "event", "high_vol")
REFUSALS = ((reasons.BELOW_TAU, "p 0.612 < tau_entry 0.700"), (reasons.BLOCK_COOLDOWN, "BTCUSDT: 120s < 300s"),
            (reasons.BLOCK_LOW_CONFIDENCE, "0.661 < 0.700"), (reasons.BLOCK_MAX_EXPOSURE, "1040.2 + 18.0 > 1000.0 USD"),
            (reasons.STALE_SIGNAL, "2310 ms > 2000 ms"), (reasons.BLOCK_EXISTING_POSITION, "BTCUSDT: 3 of 3 open"),
            (reasons.BELOW_MINIMUM, "3.11 < 5 USD notional"))


def trading_day(url: str, trades: int = 120, session: str = "s1", seed: int = 7, edge_bps: float = 0.9, start_ms: int = START_MS) -> dict:
    """Fills the projections at `url` (created where absent) with so many closed trades, refusals between them and two open ones.

    Returns what the console should show: `net`, `gross`, `fees`, `trades`, `allowed`, `refused`, `fills`, `maker`.
    """
    rng = np.random.default_rng(seed)
    rows: dict[str, list] = {name: [] for name in ("decisions", "orders", "fills", "outcomes")}
    now = start_ms
    for i in range(trades):
        now += int(rng.integers(40_000, 260_000))
        symbol, side = str(rng.choice(list(PRICES), p=(0.5, 0.3, 0.2))), str(rng.choice((facts.BUY, facts.SELL)))
        if i >= trades - 2:   # the two that stay open are of two symbols
            symbol = list(PRICES)[trades - 1 - i]
        for _ in range(int(rng.integers(2, 9))):
            code, numbers = REFUSALS[int(rng.choice(len(REFUSALS), p=(0.46, 0.2, 0.14, 0.08, 0.05, 0.05, 0.02)))]
            at = now - int(rng.integers(1, 39_000))
            rows["decisions"].append(decision(symbol, session, at, side, False, code, numbers, float(rng.uniform(0.35, 0.69)), rng))
        closed = i < trades - 2
        rows = trade(rows, rng, symbol, session, now, side, edge_bps, closed)
    unique = {d["id"]: d for d in rows["decisions"]}
    rows["decisions"] = list(unique.values())
    held = {s: {"symbol": s, "qty": 0.0, "avg_price": 0.0, "realized_usd": 0.0, "fees_usd": 0.0, "updated_ms": now} for s in PRICES}
    for o in rows["outcomes"]:
        held[o["symbol"]]["realized_usd"] += o["gross_usd"]
        held[o["symbol"]]["fees_usd"] += o["fees_usd"]
    for o in [o for o in rows["orders"] if o["cause"] == "entry"][-2:]:
        held[o["symbol"]]["qty"] += o["qty"] if o["side"] == facts.BUY else -o["qty"]
        held[o["symbol"]]["avg_price"] = o["price"]
    engine = sa.create_engine(url)
    tables.metadata.create_all(engine)
    with engine.begin() as connection:
        for name, some in rows.items():
            connection.execute(getattr(tables, name).insert(), some)
        connection.execute(tables.positions.delete())
        connection.execute(tables.positions.insert(), list(held.values()))
    engine.dispose()
    out, fills = rows["outcomes"], rows["fills"]
    return {"net": sum(o["net_usd"] for o in out), "gross": sum(o["gross_usd"] for o in out), "fees": sum(o["fees_usd"] for o in out),
            "trades": len(out), "allowed": sum(d["allowed"] for d in rows["decisions"]), "fills": len(fills),
            "refused": sum(not d["allowed"] for d in rows["decisions"]), "maker": sum(f["maker"] for f in fills),
            "entry": rows["orders"][0]["id"]}


def decision(symbol, session, ts_ms, side, allowed, code, numbers, p, rng) -> dict:
    """One row of `decisions`; sizes only where it was allowed."""
    price, qty = PRICES[symbol], LOTS[symbol] if allowed else 0.0
    return {"id": "d-" + facts.candidate_id(symbol, session, ts_ms, side), "ts_ms": ts_ms, "symbol": symbol, "side": side,
            "regime": str(rng.choice(REGIMES, p=(0.7, 0.2, 0.1))), "p": p, "model_id": MODEL, "allowed": allowed, "code": code,
            "numbers": numbers, "route": "paper", "margin_usd": qty * price / 10, "cap": "flow" if allowed else "", "qty": qty,
            "price": price if allowed else 0.0, "epoch": 1}


def trade(rows, rng, symbol, session, at, side, edge_bps, closed) -> dict:
    """An entry as maker, and its exit where it is closed."""
    p = float(rng.uniform(0.7, 0.93))
    yes = decision(symbol, session, at, side, True, reasons.ALLOW_NEW_ENTRY, f"p {p:.3f} >= 0.700", p, rng)
    rows["decisions"].append(yes)
    entry_id = facts.candidate_id(symbol, session, at, side)
    price, qty = yes["price"], yes["qty"]
    rows["orders"].append(order(entry_id, entry_id, yes["id"], "entry", symbol, side, price, qty, "filled", at, True))
    rows["fills"].append(fill(f"f-{entry_id}", entry_id, symbol, side, price, qty, True, at + 900))
    if not closed:
        exit_id = entry_id + "-t"
        rows["orders"].append(order(exit_id, entry_id, "", "target", symbol, facts.opposite(side), price, qty, "accepted", at + 950, True))
        return rows
    cause = str(rng.choice(("target", "time", "stop", "hold"), p=(0.52, 0.28, 0.12, 0.08)))
    bps = {"target": 5.5, "time": rng.normal(0, 2), "stop": -8.0, "hold": rng.normal(-1, 1.5)}[cause] + edge_bps
    sign = 1 if side == facts.BUY else -1
    out = price * (1 + sign * bps / 1e4)
    maker = cause == "target"
    exit_id, done = entry_id + "-x", at + int(rng.integers(2_000, 30_000))
    rows["orders"].append(order(exit_id, entry_id, "", cause, symbol, facts.opposite(side), out, qty, "filled", done, maker))
    rows["fills"].append(fill(f"f-{exit_id}", exit_id, symbol, facts.opposite(side), out, qty, maker, done))
    gross, fees = sign * (out - price) * qty, sum(f["fee_usd"] for f in rows["fills"][-2:])
    rows["outcomes"].append({"id": entry_id, "symbol": symbol, "side": side, "regime": yes["regime"], "model_id": yes["model_id"], "p": p,
                             "qty": qty, "entry_price": price, "exit_price": out, "gross_usd": gross, "fees_usd": fees,
                             "net_usd": gross - fees, "cause": cause, "route": "paper", "opened_ms": at, "closed_ms": done})
    return rows


def order(id, entry_id, decision_id, cause, symbol, side, price, qty, status, at, post_only) -> dict:
    """One row of `orders`."""
    return {"id": id, "entry_id": entry_id, "decision_id": decision_id, "cause": cause, "symbol": symbol, "side": side,
            "kind": "limit", "price": round(price, 2), "qty": qty, "filled": qty if status == "filled" else 0.0, "status": status,
            "reason": "", "post_only": post_only, "reduce_only": cause != "entry", "route": "paper", "epoch": 1,
            "ts_ms": at, "updated_ms": at}


def fill(id, order_id, symbol, side, price, qty, maker, at) -> dict:
    """One row of `fills`, at the fees of the simulated market."""
    return {"id": id, "order_id": order_id, "symbol": symbol, "side": side, "price": round(price, 2), "qty": qty,
            "fee_usd": price * qty * (0.0001 if maker else 0.0004), "maker": maker, "ts_ms": at}


def services(port: int, ready: tuple[str, ...] = m.SERVICES, lag: float = 0.0, age_ms: float = 14.0, halted: bool = False):
    """Services that speak on this port as one process does; `beat()` moves their counters, `stop()` ends them."""
    exporter = Exporter(list(PRICES))
    for service in m.SERVICES:
        exporter.set(m.SERVICE_READY, float(service in ready), service=service)
    for symbol in PRICES:
        exporter.set(m.MARKET_DATA_AGE_MS, age_ms, symbol=symbol)
    for stage in m.STAGES:
        exporter.set(m.CONSUMER_LAG_RECORDS, lag, service=stage, topic="md.frames")
    exporter.set(m.HALTED, float(halted))
    exporter.set(m.EXPOSURE_USD, 143.2)
    rng = np.random.default_rng(3)

    def beat() -> None:
        for i, stage in enumerate(m.STAGES):
            for ms in rng.gamma(2.0, 0.9 + 0.8 * i, 200):
                exporter.observe(m.STAGE_LATENCY_MS, float(ms), service=stage)
        for ms in rng.gamma(2.0, 3.0, 50):
            exporter.observe(m.DECISION_MS, float(ms))
        for symbol in PRICES:
            exporter.inc(m.MARKET_EVENTS_TOTAL, 1700, symbol=symbol)

    beat()
    return beat, exporter.serve(port)
