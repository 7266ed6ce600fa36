"""Print the whole chain of an order: candidate, score, decision, size, arm, ladder, reports, fills, outcome, reward, and where each stands.

  python -m scripts.why E-BTCUSDT-s1-1767690012340-B
  python -m scripts.why BTCUSDT-s1-1767690012340-B           (a candidate's id, or a decision's, does as well)
  python -m scripts.why E-BTCUSDT-s1-1767690012340-B --json

Exits with 1 for an id that no chain knows (and names the nearest), with 2 where the ledger cannot be read.
"""
import argparse
import json
import math
import sys
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime

import msgspec
from rich.console import Console
from rich.table import Table

from config import settings as config
from config.settings import Settings
from engine.execution.ladder import rung_id
from engine.facts import BUY, CANCELLED, DONE, REJECTED, Cancel, Decision, Fill, Order, Outcome, Report, WrittenOff, account_of
from engine.guards import liquidation_price
from engine.reasons import TABLE
from engine.rewards.attribution import Attributed
from scripts._arguments import ended, filled
from store.database import LedgerError
from store.ledger import ledger_url
from store.why import Step, Story, UnknownOrder, features_of, refused, why

ENDS = (REJECTED, CANCELLED, DONE)


def clock(ts_ms: int) -> str:
    """Market time as people read it.

    >>> clock(1767690012340)
    '2026-01-06 09:00:12.340'
    """
    return f"{datetime.fromtimestamp(ts_ms / 1000, UTC):%Y-%m-%d %H:%M:%S}.{ts_ms % 1000:03d}"


def told(fact: Order | Cancel | Report | Fill | WrittenOff | Outcome | Attributed) -> tuple[str, str]:
    """What a step is called, and its numbers."""
    if isinstance(fact, Order):
        price = f"{fact.price:g}" if fact.price else "market"
        how = ", ".join(word for word, yes in (("post-only", fact.post_only), ("reduce-only", fact.reduce_only)) if yes)
        return "order sent", f"{fact.id}: {fact.cause}, {fact.side.lower()} {fact.qty:g} at {price}" + (f" ({how})" if how else "")
    if isinstance(fact, Cancel):
        return "cancel asked", f"{fact.order_id}: {fact.reason}"
    if isinstance(fact, Report):
        return f"venue: {fact.status}", f"{fact.order_id}, {fact.filled:g} filled" + (f": {fact.reason}" if fact.reason else "")
    if isinstance(fact, Fill):
        kind = "maker" if fact.maker else "taker"
        return "fill", f"{fact.order_id}: {fact.side.lower()} {fact.qty:g} at {fact.price:g} as {kind}, fee {fact.fee_usd:.4f} USD"
    if isinstance(fact, WrittenOff):
        return "written off", (f"{fact.entry}: {fact.side.lower()} {fact.qty:g} at {fact.price:g} in the books alone, by {fact.actor}: "
                               f"{fact.reason} ({fact.control})")
    if isinstance(fact, Attributed):
        learned = "the bandit refused it" if fact.learned is None else f"learned as {fact.learned:+.4f}"
        return "reward", f"{fact.reward:+.4f} to {fact.arm}, {learned}; expected {fact.expected:+.4f}, found by {fact.mode}"
    return "outcome", (f"{fact.cause}: in at {fact.entry_price:g}, out at {fact.exit_price:g}; gross {fact.gross_usd:+.4f}, fees "
                       f"{fact.fees_usd:.4f}, net {fact.net_usd:+.4f} USD")


def when(step: Step) -> int:
    """The market time of a step."""
    return step.fact.closed_ms if isinstance(step.fact, Outcome) else step.fact.ts_ms


def as_json(story: Story) -> str:
    """The story as one JSON object, the candidate's features by name."""
    whole = msgspec.to_builtins(story)
    whole["outcome"], whole["reward"] = msgspec.to_builtins(story.outcome), msgspec.to_builtins(story.reward)
    whole["features"] = features_of(story.decision.scored.signal) if story.decision else {}
    return json.dumps(whole, indent=2)


def pairs(title: str, rows: Iterable[tuple[str, str]]) -> Table:
    """Names and values."""
    table = Table(title=title, title_justify="left", show_header=False, box=None, padding=(0, 2, 0, 0))
    table.add_column(style="dim")
    for name, value in rows:
        table.add_row(name, value)
    return table


def size(d: Decision) -> Iterator[tuple[str, str]]:
    """How the size came about, step by step; money in USD of margin."""
    if (z := d.sized) is None:
        return
    p = z.predicted
    yield "allotted", f"{z.wanted_usd:.2f} USD"
    for cap in z.caps:
        binds = "  <- binds" if cap.name == z.cap else ""
        yield f"cap {cap.name}", (f"{cap.usd:.2f}" if math.isfinite(cap.usd) else "does not bind") + binds
    scales = ", ".join(f"{name} x{scale:.4f}" for name, scale in z.factors.items()) or "no factor takes anything"
    said = (("rugProb", p.rug_prob), ("pFill", p.p_fill), ("expSlipBps", p.exp_slip_bps))
    yield "risk", f"multiplier {z.multiplier:.4f}: {scales}; of " + ", ".join(
        f"{name}={'unknown' if value is None else format(value, '.4f')}" for name, value in said)
    yield "lots", f"{z.qty:g} = {z.notional_usd:.2f} USD notional, {z.margin_usd:.2f} margin ({z.note})"
    yield "fill curve", z.curve or "not said"
    yield "collateral", f"price from {z.source}"


def arm(d: Decision) -> str:
    """The execution arm and how it was drawn."""
    if (c := d.choice) is None:
        return "none"
    return f"{c.arm}, drawn with probability {c.propensity:.4f}; expected reward {c.expected:+.4f}, given away {c.regret:.4f}"


def levels(story: Story, d: Decision) -> Table:
    """The ladder as it was sent, and what became of each level."""
    ended: dict[str, str] = {}
    for fact in (s.fact for s in story.steps):
        if isinstance(fact, Report) and ended.get(fact.order_id) not in ENDS:
            ended[fact.order_id] = fact.status
    got: dict[str, float] = {}
    for fact in (s.fact for s in story.steps):
        if isinstance(fact, Fill):
            got[fact.order_id] = got.get(fact.order_id, 0.0) + fact.qty
    sent = {s.fact.id: s.fact for s in story.steps if isinstance(s.fact, Order)} | {story.entry.id: story.entry}
    table = Table(title="ladder", title_justify="left", box=None, padding=(0, 2, 0, 0))
    for name in ("level", "order", "price", "quantity", "fill predicted", "filled", "state"):
        table.add_column(name, no_wrap=True)
    for n, (level, _, _, p) in enumerate(d.rungs):
        name = rung_id(story.entry.id, n)
        order = sent.get(name)
        table.add_row(str(level + 1), name, f"{order.price:g}" if order else "-", f"{order.qty:g}" if order else "-", f"{p:.4f}",
                      f"{got.get(name, 0.0):g}", ended.get(name, "sent"))
    return table


def guards(d: Decision, settings: Settings) -> Iterator[tuple[str, str]]:
    """What the guards and controls look at, as the decision has it, beside today's limits."""
    s, z, g, c = d.scored.signal, settings.symbols.get(d.scored.signal.symbol), settings.gates.liquidity_by_side, settings.controls
    if z is None:
        return
    liquidation, stop_bps = liquidation_price(s.side, d.price, d.leverage, z.maintenance_margin_rate), 1e4 * abs(s.entry - s.stop) / s.entry
    buffer = settings.risk.near_liq_guard.sl_buffer_multiplier * settings.risk.assumed_sl_pct
    depth = (s.bid_depth if s.side == BUY else s.ask_depth) * z.lot
    yield "near liquidation", (f"{liquidation:.8g}, {abs(1 - liquidation / d.price):.4f} of the price away, at least {buffer:.4f} must be; "
                               f"the stop is {stop_bps:.1f} bps away")
    yield "liquidity", f"own side shows {depth:g}, {g.alpha:g} x the order is {g.alpha * d.qty:g}" + ("" if g.enabled else " (not used)")
    yield "order value", f"{d.qty * d.price:.2f} USD, at most {c.max_order_value_usd:g}"
    away = 1e4 * abs(d.price / s.entry - 1)
    yield "price collar", f"{away:.2f} bps from the signal's entry, at most {c.price_collar_bps:g} from the market"
    yield "age", f"decided {d.ts_ms - s.ts_ms} ms after the signal, at most {settings.desk.max_signal_age_ms}"


def show(story: Story, console: Console, settings: Settings) -> None:
    """Tables that fit a terminal."""
    console.print(f"\n[bold]{story.order.id}[/]  {story.order.symbol} {story.order.side.lower()} {story.order.qty:g}, {story.order.cause}"
                  + ("" if story.order.id == story.entry.id else f" of [bold]{story.entry.id}[/]")
                  + (f"  [dim]on the paper account, the twin of {story.real.id}: in no sum of the desk[/]" if story.real else
                     "  [dim]on the paper account: in no sum of the desk[/]" if account_of(story.entry.id) else ""))
    if d := story.decision:
        s, score = d.scored.signal, d.scored
        shadow = f"; shadow {score.shadow_id}: {score.shadow_p:.4f}" if score.shadow_p is not None else ""
        console.print(pairs("", (
                ("candidate", f"{s.id} at {clock(s.ts_ms)}: {s.trigger}, {s.regime}"),
                ("levels", f"entry {s.entry:g}, stop {s.stop:g}, target {s.target:g}"),
                ("score", f"p {score.p:.4f} by {score.model_id} (tau_entry {score.tau_entry:g}, tau_hold {score.tau_hold:g}){shadow}"),
                ("decision", f"{d.decision}: {d.reason}"),
                ("size", f"{d.margin_usd:.2f} USD margin x {d.leverage:g} = {d.qty:g} at {d.price:g}; bound by {d.cap or 'nothing'}"),
                ("arm", arm(d)), ("route", f"{d.route}, epoch {d.epoch}"))))
        if d.sized:
            console.print(pairs("size, USD of margin", size(d)))
        console.print(pairs("guards, beside the limits of today's settings", guards(d, settings)))
        if d.rungs:
            console.print(levels(story, d))
        features = Table(title="features", title_justify="left", box=None, show_header=False, padding=(0, 2, 0, 0))
        named = list(features_of(s).items())
        for i in range(0, len(named), 3):
            features.add_row(*(f"[dim]{name}[/] {value:.5g}" for name, value in named[i:i + 3]))
        console.print(features)
    steps = Table(title="what followed", title_justify="left", box=None, padding=(0, 2, 0, 0))
    for name in ("market time", "what", "numbers", "ledger", "hash"):
        steps.add_column(name, no_wrap=name != "numbers", overflow="fold")
    for step in story.steps:
        what, numbers = told(step.fact)
        steps.add_row(clock(when(step)), what, numbers, f"{step.at.writer}/{step.at.seq}", step.at.hash[:12])
    console.print(steps)
    if story.outcome is None:
        console.print("[dim]no outcome: it is open still, or nothing was filled[/]")


def explained(code: str) -> dict[str, object]:
    """What a code means, and the settings that move it, as `docs/reasons.md` has them."""
    found = next((row for row in TABLE if row.code == code), None)
    return {"meaning": found.meaning if found else "no code of this version", "settings": list(found.settings) if found else []}


def main(argv: list[str] | None = None) -> int:
    """Prints the story; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m scripts.why", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("order_id", type=filled, help="an order, decision or candidate id")
    parser.add_argument("--ledger", help="sqlite:///path or postgresql+psycopg://…; default: the settings' ledger")
    parser.add_argument("--scan", action="store_true", help="believe no projection: read the chain from the entry on")
    parser.add_argument("--json", action="store_true", help="for programs: every field")
    parser.add_argument("--config", action="append", default=[], help="YAML that overrides config/default.yaml")
    args = parser.parse_args(argv)
    settings = config.load(*args.config)
    url = args.ledger or ledger_url(settings)
    try:
        story = why(url, args.order_id, args.scan)
    except UnknownOrder as error:
        if (no := refused(url, args.order_id)) is None:
            print(error, file=sys.stderr)
            return 1
        no |= explained(no["code"])
        print(json.dumps(no, indent=2) if args.json else f"{no['id']}: no order was sent: {no['code']} ({no['numbers']}); "
              f"{no['symbol']} {no['side'].lower()} at {clock(no['ts_ms'])}, p {no['p']} by {no['model_id']}\n"
              f"{no['code']}: {no['meaning']}" + "".join(f"; moved by {', '.join(no['settings'])}" for _ in no["settings"][:1])
              + " (docs/reasons.md)")
        return 0
    except LedgerError as error:
        print(error, file=sys.stderr)
        return 2
    if args.json:
        print(as_json(story))
    else:
        show(story, Console(width=None if sys.stdout.isatty() else 180, highlight=False), settings)
    return 0


if __name__ == "__main__":
    raise SystemExit(ended(main))
