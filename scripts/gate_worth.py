"""What the fill-probability gate is worth: a recorded market with it off, in shadow and enforced, side by side over the same candidates.

    python -m scripts.gate_worth standx --from 2026-01-07 --confidence 0.35 \\
        --model ml/models/fill_model_v0 --model ml/models/fill_model_v1 --threshold 2500 --threshold 5000
    python -m scripts.gate_worth standx --to 2026-01-07 --confidence 0.35 --fills fills.json
                              no model yet: the ungated desk's own fills, for build_fill_dataset_v1 --fixture

Each model is asked at each threshold (default: fill_prob.min_bps), once in shadow and once enforced. Shadow blocks nothing, and must
trade as without a gate: that is checked. Its table *by verdict* is the honest one: the same entries, those that the gate would have let
through beside those that it would have blocked. A model must not have learned from the stretch that it is judged on.
"""
import json
import sys
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

import msgspec

from scripts._arguments import ended, number, share
from scripts._stages import Progress, stamp
from scripts.backtest import arguments, market_of
from store import disk
from store.archive import ArchiveError
from store.figures_gate import worth_page
from store.fill_model import load_model
from store.gate_worth import ENFORCED, OFF, SHADOW, Judge, Part, Run, worth
from store.importers import RecordingError

WIDE = 34


def figure(value: float | None, error: float | None = None, form: str = "+.2f") -> str:
    """A number with its standard error; a dash where there is none."""
    if value is None:
        return "–"
    return f"{value:{form}}" + (f" ±{error:.2f}" if error is not None else "")


def row(name: str, cells: Iterable[str]) -> str:
    """A line of a table."""
    return f"{name:<{WIDE}}" + "".join(f"{cell:>17}" for cell in cells)


def of_parts(parts: list[Part]) -> Iterator[str]:
    """What entries came to."""
    yield row("entries sent", (f"{p.entries:,}" for p in parts))
    yield row("  of which anything was bought", (f"{p.fill_rate:.1%}" if p.fill_rate is not None else "–" for p in parts))
    yield row("closed, won", (f"{p.closed:,}, {p.won / p.closed:.1%}" if p.closed else "0" for p in parts))
    yield row("bought, USD", (f"{p.bought_usd:,.0f}" for p in parts))
    yield row("result after fees, USD", (f"{p.net_usd:+,.2f}" for p in parts))
    yield row("  a unit bought, bps", (figure(p.per_unit_bps, p.per_unit_error) for p in parts))
    for horizon in parts[0].markouts if parts else ():
        yield row(f"markout {horizon} ms, bps", (figure(p.markouts[horizon], p.markout_errors[horizon]) for p in parts))


def lines(runs: list[Run]) -> Iterator[str]:
    """The desks side by side, then the shadows' entries by what would have become of them. Errors are one standard error."""
    names: dict[tuple[str, int], None] = {(r.name.rpartition(" ")[0], r.threshold_bps): None for r in runs if r.mode != OFF}
    off = runs[0]
    for k in range(0, max(len(names), 1), 3):
        here = [*names][k:k + 3]
        some = [r for r in runs if r.mode == OFF or (r.mode == ENFORCED and (r.name.rpartition(" ")[0], r.threshold_bps) in here)]
        yield row("", (r.name.removesuffix(f" {ENFORCED}") for r in some))
        yield row("gate", (r.mode for r in some))
        yield row("orders judged", (f"{r.checks:,}" if r.mode != OFF else "" for r in some))
        yield row("  blocked", (f"{r.blocks:,}" if r.mode != OFF else "" for r in some))
        yield row("  passed a tripped breaker", (f"{r.bypassed:,} ({r.trips} trips)" if r.mode != OFF else "" for r in some))
        yield from of_parts([r.all() for r in some])
        yield row("fees, USD", (f"{r.told.fees_usd:,.2f}" for r in some))
        yield row("  result against off, USD", ("", *(f"{r.told.net_usd - off.told.net_usd:+,.2f}" for r in some[1:])))
        yield ""
    for r in (r for r in runs if r.mode == SHADOW):
        let, low = r.apart()
        yield row(r.name, ("at or above", f"below {r.threshold_bps} bps"))
        yield from of_parts([let, low])
        yield ""


def differs(runs: list[Run]) -> list[str]:
    """Shadows that did not trade as the desk without a gate: there must be none."""
    def done(r: Run) -> list[tuple]:
        return [(e.id, e.sent_usd, e.bought_usd, e.net_usd) for e in r.entries]
    return [r.name for r in runs if r.mode == SHADOW and (done(r) != done(runs[0]) or r.blocks)]


def judges(folders: list[Path], thresholds: list[int]) -> list[Judge]:
    """Every model at every threshold; `ValueError` or `OSError` where one cannot be read."""
    return [Judge(folder.name, model, bps) for folder, model in ((f, load_model(f)) for f in folders) for bps in thresholds]


@disk.told("gate_worth")
def main(argv: list[str] | None = None) -> int:
    parser = arguments(__doc__ or "", "gate_worth")
    parser.add_argument("--model", type=Path, action="append", default=[], help="the folder of a fill model; may be given several times")
    parser.add_argument("--threshold", type=number(int, 0, most=10_000), action="append", default=[], metavar="BPS",
                        help="block below this probability; may be given several times (default fill_prob.min_bps)")
    parser.add_argument("--confidence", type=share, metavar="P", help="let candidates in from this probability on, where the scoring "
                        "model's never reach policy.min_confidence; the same for every desk")
    parser.add_argument("--no-breaker", action="store_true", help="enforced desks go on blocking however much they block")
    parser.add_argument("--fills", type=Path, metavar="FILE",
                        help="write the ungated desk's fills, as build_fill_dataset_v1 --fixture reads them")
    parser.add_argument("--plot", type=Path, metavar="FILE", help="write the curves and verdicts as one HTML page")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every figure and entry for programs")
    args = parser.parse_args(argv)
    try:
        settings, scorer, frames = market_of(args)
        asked = judges(args.model, args.threshold or [settings.fill_prob.min_bps])
        began = time.perf_counter()
        runs = worth(settings, scorer, frames, asked, args.confidence, not args.no_breaker, Progress())
    except (ArchiveError, RecordingError, FileNotFoundError, ValueError) as error:
        print(f"gate_worth: {disk.said(error) if isinstance(error, OSError) else error}", file=sys.stderr)
        return 1
    off = runs[0].told
    if not off.candidates:
        print("gate_worth: no candidate in this stretch of market", file=sys.stderr)
        return 1
    note = (f"{', '.join(sorted(frames))}, {stamp(off.curve[0][0])} to {stamp(off.curve[-1][0])} UTC, model {scorer.model_id}, "
            + ("entries as the settings allow" if args.confidence is None else f"entries from a probability of {args.confidence:g} on")
            + (", without the breaker" if args.no_breaker else ""))
    title = str(args.market or "the archive")
    print(f"{title}: {note} ({time.perf_counter() - began:.0f} s)\n{off.candidates:,} candidates, the same for every desk; ± is one "
          "standard error over entries\n")
    print("\n".join(lines(runs)))
    if not runs[0].entries:
        print(f"nothing entered: no score reaches {settings.policy.min_confidence:g} here; --confidence P lets them in", file=sys.stderr)
    if args.fills is not None:
        disk.replace(args.fills, json.dumps(runs[0].fills, indent=0).encode() + b"\n")
        print(f"fills {args.fills}: {len(runs[0].fills):,}")
    if args.json is not None:
        told = [msgspec.to_builtins(msgspec.structs.replace(r, fills=[])) | {"all": msgspec.to_builtins(r.all()),
                "by_verdict": dict(zip(("at_or_above", "below"), msgspec.to_builtins(r.apart())))} for r in runs]
        disk.replace(args.json, json.dumps({"market": title, "note": note, "runs": told}, indent=1).encode() + b"\n")
        print(f"json  {args.json}")
    if args.plot is not None:
        disk.replace(args.plot, worth_page(runs, f"What the gate is worth on {title}", note).encode())
        print(f"plot  {args.plot}")
    if wrong := differs(runs):
        print(f"gate_worth: {', '.join(wrong)}: did not trade as without a gate, which a shadow must", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(ended(main))
