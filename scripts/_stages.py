"""S0's stages side by side, as replay prints them."""
import json
import sys
import time
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path

import msgspec

from config.settings import Settings
from engine.facts import Frame
from store import disk
from store.figures_stages import stages_page
from store.scorer import Scorer
from store.stages import Stage, compared

MOST = 8


def stamp(ms: int) -> str:
    """Market time as people read it."""
    return f"{datetime.fromtimestamp(ms / 1000, UTC):%Y-%m-%d %H:%M}"


class Progress:
    """A line on stderr every few seconds."""

    def __init__(self, every_s: float = 5.0):
        self.every_s, self.last = every_s, time.perf_counter()

    def __call__(self, ms: int, stages: list[Stage]) -> None:
        if time.perf_counter() - self.last > self.every_s:
            self.last = time.perf_counter()
            print(f"  {stamp(ms)}  {stages[0].candidates:,} candidates, entries " + ", ".join(f"{s.digits} {s.entries:,}" for s in stages),
                  file=sys.stderr)


def changed(now: float, before: float) -> str:
    """How a volume differs from another.

    >>> changed(60.0, 100.0), changed(1.0, 0.0)
    ('-40.0 %', '')
    """
    return f"{100 * (now / before - 1):+.1f} %" if before else ""


def lines(stages: list[Stage]) -> Iterator[str]:
    """The table: a row a figure, a column a stage."""
    def row(name: str, cells: Iterable[str]) -> str:
        return f"{name:<34}" + "".join(f"{cell:>16}" for cell in cells)
    first = stages[0]
    yield row("stage", (s.digits for s in stages))
    for name, of in (("candidates scored", "candidates"), ("sizes made", "sizings"), ("entries sent", "entries"),
                     ("trades closed", "trades")):
        yield row(name, (f"{getattr(s, of):,}" for s in stages))
    yield row("planned notional, USD", (f"{s.planned_usd:,.0f}" for s in stages))
    yield row("  against the stage before", ("", *(changed(b.planned_usd, a.planned_usd) for a, b in pairwise(stages))))
    yield row("  against the first", ("", *(changed(s.planned_usd, first.planned_usd) for s in stages[1:])))
    yield row("on the first stage's wishes, USD", (f"{s.same_wishes_usd:,.0f}" for s in stages))
    yield row("  against the first", ("", *(changed(s.same_wishes_usd, first.same_wishes_usd) for s in stages[1:])))
    yield row("sent after the ladder, USD", (f"{s.sent_usd:,.0f}" for s in stages))
    yield row("bought and closed, USD", (f"{s.bought_usd:,.0f}" for s in stages))
    yield row("multiplier, median (least)", (f"{s.multipliers[2]:.3f} ({s.multipliers[0]:.3f})" if s.multipliers else "–" for s in stages))
    yield row("trades won", (f"{s.won / s.trades:.1%}" if s.trades else "–" for s in stages))
    yield row("result before fees, USD", (f"{s.gross_usd:+,.2f}" for s in stages))
    yield row("fees, USD", (f"{s.fees_usd:,.2f}" for s in stages))
    yield row("result after fees, USD", (f"{s.net_usd:+,.2f}" for s in stages))
    yield row("  a unit bought, bps", (f"{1e4 * s.net_usd / s.bought_usd:+.2f}" if s.bought_usd else "–" for s in stages))
    for title, of in (("bound by", "caps"), ("scaled by", "factors"), ("rewards", "rewards"), ("rewards missed", "missed"),
                      ("arms", "arms"), ("refused", "refused")):
        counts: list[dict[str, int]] = [getattr(s, of) for s in stages]
        total = {name: sum(c.get(name, 0) for c in counts) for c in counts for name in c}
        names = sorted(total, key=lambda name: (-total[name], name))
        yield f"{title}{'' if names else ': nothing'}"
        for name in names[:MOST]:
            yield row(f"  {name}", (f"{c.get(name, 0):,}" for c in counts))
        if len(names) > MOST:
            yield row(f"  {len(names) - MOST} others", (f"{sum(c.get(name, 0) for name in names[MOST:]):,}" for c in counts))


def side_by_side(settings: Settings, scorer: Scorer, frames: dict[str, Iterator[Frame]], title: str, admit: float | None,
                 plot: Path | None, to_json: Path | None) -> int:
    """Runs them, prints the table, writes what was asked for."""
    began = time.perf_counter()
    stages = compared(settings, scorer, frames, admit, Progress())
    if not stages[0].candidates:
        print(f"replay: {title}: no candidate in this stretch of market", file=sys.stderr)
        return 1
    note = (f"{', '.join(sorted(frames))}, {stamp(stages[0].curve[0][0])} to {stamp(stages[0].curve[-1][0])} UTC, model {scorer.model_id}, "
            + ("entries as the settings allow" if admit is None else f"entries from a probability of {admit:g} on"))
    print(f"{title}: {note} ({time.perf_counter() - began:.0f} s)\nflowCapRewrite, constrainedRiskScaling, orderIdRewardMatching; "
          "every stage hears the same candidates and scores\n")
    print("\n".join(lines(stages)))
    if not any(s.entries for s in stages):
        print(f"\nnothing entered: no score reaches {settings.policy.min_confidence:g} here (or another reason above); "
              "--confidence P compares the sizes all the same", file=sys.stderr)
    if to_json is not None:
        disk.replace(to_json, json.dumps({"market": title, "note": note, "stages": msgspec.to_builtins(stages)}, indent=1).encode() + b"\n")
        print(f"\njson  {to_json}")
    if plot is not None:
        disk.replace(plot, stages_page(stages, f"S0's stages on {title}", note).encode())
        print(f"plot  {plot}")
    return 0
