"""Print the whole chain of an order: market, candidate, score, decision, order, reports, fills, outcome, and where each is written.

  python -m scripts.why E-BTCUSDT-s1-1767690012340-B
  python -m scripts.why BTCUSDT-s1-1767690012340-B           (a candidate's id, or a decision's, does as well)
  python -m scripts.why E-BTCUSDT-s1-1767690012340-B --json

Exits with 1 for an id that no chain knows (and names the nearest), with 2 where the ledger cannot be read.
"""
import argparse
import json
import sys
from datetime import UTC, datetime

import msgspec
from rich.console import Console
from rich.table import Table

from config import settings as config
from engine.facts import Cancel, Fill, Order, Outcome, Report
from scripts._arguments import ended, filled
from store.database import LedgerError
from store.ledger import ledger_url
from store.why import Step, Story, UnknownOrder, features_of, refused, why


def clock(ts_ms: int) -> str:
    """Market time as people read it.

    >>> clock(1767690012340)
    '2026-01-06 09:00:12.340'
    """
    return f"{datetime.fromtimestamp(ts_ms / 1000, UTC):%Y-%m-%d %H:%M:%S}.{ts_ms % 1000:03d}"


def told(fact: Order | Cancel | Report | Fill | Outcome) -> tuple[str, str]:
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
    return "outcome", (f"{fact.cause}: in at {fact.entry_price:g}, out at {fact.exit_price:g}; gross {fact.gross_usd:+.4f}, fees "
                       f"{fact.fees_usd:.4f}, net {fact.net_usd:+.4f} USD")


def when(step: Step) -> int:
    """The market time of a step."""
    return step.fact.closed_ms if isinstance(step.fact, Outcome) else step.fact.ts_ms


def as_json(story: Story) -> str:
    """The story as one JSON object, the candidate's features by name."""
    whole = msgspec.to_builtins(story)
    whole["outcome"] = msgspec.to_builtins(story.outcome)
    whole["features"] = features_of(story.decision.scored.signal) if story.decision else {}
    return json.dumps(whole, indent=2)


def show(story: Story, console: Console) -> None:
    """Tables that fit a terminal."""
    console.print(f"\n[bold]{story.order.id}[/]  {story.order.symbol} {story.order.side.lower()} {story.order.qty:g}, {story.order.cause}"
                  + ("" if story.order.id == story.entry.id else f" of [bold]{story.entry.id}[/]"))
    if d := story.decision:
        s, score = d.scored.signal, d.scored
        facts = Table(show_header=False, box=None, padding=(0, 2, 0, 0))
        facts.add_column(style="dim")
        shadow = f"; shadow {score.shadow_id}: {score.shadow_p:.4f}" if score.shadow_p is not None else ""
        for name, value in (
                ("candidate", f"{s.id} at {clock(s.ts_ms)}: {s.trigger}, {s.regime}"),
                ("levels", f"entry {s.entry:g}, stop {s.stop:g}, target {s.target:g}"),
                ("score", f"p {score.p:.4f} by {score.model_id} (tau_entry {score.tau_entry:g}, tau_hold {score.tau_hold:g}){shadow}"),
                ("decision", f"{d.decision}: {d.reason}"),
                ("size", f"{d.margin_usd:.2f} USD margin x {d.leverage:g} = {d.qty:g} at {d.price:g}; bound by {d.cap or 'nothing'}"),
                ("route", f"{d.route}, epoch {d.epoch}")):
            facts.add_row(name, value)
        console.print(facts)
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
    url = args.ledger or ledger_url(config.load(*args.config))
    try:
        story = why(url, args.order_id, args.scan)
    except UnknownOrder as error:
        if (no := refused(url, args.order_id)) is None:
            print(error, file=sys.stderr)
            return 1
        print(json.dumps(no, indent=2) if args.json else f"{no['id']}: no order was sent: {no['code']} ({no['numbers']}); "
              f"{no['symbol']} {no['side'].lower()} at {clock(no['ts_ms'])}, p {no['p']} by {no['model_id']}")
        return 0
    except LedgerError as error:
        print(error, file=sys.stderr)
        return 2
    if args.json:
        print(as_json(story))
    else:
        show(story, Console(width=None if sys.stdout.isatty() else 180, highlight=False))
    return 0


if __name__ == "__main__":
    raise SystemExit(ended(main))
