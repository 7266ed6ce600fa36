"""Runs the Desk over an archive in one process and reports what it earned, by hour and regime, with plots.

python -m scripts.backtest standx                         a recording by name
python -m scripts.backtest data/archive/sim --symbols BTCUSDT --report backtest.html
"""

import argparse
import sys
import time
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pandas as pd

from config import settings as config
from engine.facts import Dropped, Fill, Frame, Order, Outcome, ScoredBatch
from scripts._arguments import ended, filled, positive
from store import disk, fill_model, importers
from store.archive import ArchiveError
from store.closed import Closed, Digests, frames_of
from store.scorer import Scorer


def when(text: str) -> int:
    """An ISO time (UTC) as ms; for argparse."""
    try:
        return int(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp() * 1000)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a time like 2026-01-06T14:00") from None


def arguments(doc: str, prog: str) -> argparse.ArgumentParser:
    """The options that backtest and replay share."""
    parser = argparse.ArgumentParser(
        prog=f"python -m scripts.{prog}", description=doc, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("market", nargs="?", default="", help="a recording's name or folder, or an archive (default: data/archive)")
    parser.add_argument("--symbols", type=filled, help="comma-separated (default: all of the archive)")
    parser.add_argument("--start", "--from", type=when, help="first market time, ISO, UTC")
    parser.add_argument("--end", "--to", type=when, help="last market time, ISO, UTC")
    parser.add_argument("--frame-events", type=positive, help="events a frame; changes no decision (default frames.max_events)")
    parser.add_argument("--config", action="append", default=[], help="YAML that overrides config/default.yaml; may be given again")
    parser.add_argument("--models", type=filled, help="registry folder (default paths.models)")
    parser.add_argument(
        "--session", type=filled, default="arch", help="the market session, which is part of every id (default arch; live runs: s1, s2 …)"
    )
    return parser


def market_of(args: argparse.Namespace) -> tuple[config.Settings, Scorer, dict[str, Iterator[Frame]]]:
    """Settings, the active model and the frames that the arguments ask for; a clear exit where the market or the model is missing."""
    settings = config.load(*args.config)
    models = Path(args.models) if args.models else settings.folder("models")
    scorer = Scorer.load(models, "active")
    if scorer is None:
        raise SystemExit(f"no active model under {models / 'registry'}: python -m flows.train makes, registers and promotes a first one")
    root, symbols = importers.open_recording(
        args.market or settings.folder("data") / "archive",
        settings.folder("data") / "recordings",
        settings,
        say=lambda line: print(line, file=sys.stderr),
    )
    wanted = args.symbols.split(",") if args.symbols else symbols
    missing = sorted(set(wanted) - set(symbols))
    if missing:
        raise SystemExit(f"--symbols: {', '.join(missing)} not in {root}, which has {', '.join(symbols)}")
    return settings, scorer, frames_of(root, wanted, args.frame_events or settings.frames.max_events, args.session, args.start, args.end)


def opened(args: argparse.Namespace, finish: bool = True) -> tuple[config.Settings, Closed]:
    """Settings and the closed loop that the arguments ask for."""
    settings, scorer, frames = market_of(args)
    found = fill_model.opened(settings, time.time_ns() // 1_000_000, keep=False)
    for line in found.lines:
        print(line, file=sys.stderr)
    return settings, Closed(settings, scorer, frames, args.session, finish=finish, gating=fill_model.gating(settings, found))


def nothing(args: argparse.Namespace, prog: str) -> int:
    """Says that the arguments leave no event of the market, and the status for it."""
    bounds = [f"{word} {datetime.fromtimestamp(ms / 1000, UTC):%Y-%m-%d %H:%M}" for word, ms in (("from", args.start), ("to", args.end))
              if ms is not None]
    print(f"{prog}: {' '.join([args.market or 'the archive', *bounds])}: no event of the market is there; nothing was run", file=sys.stderr)
    return 2


@disk.told("backtest")
def main(argv: list[str] | None = None) -> int:
    parser = arguments(__doc__ or "", "backtest")
    parser.add_argument("--report", type=Path, help="writes one self-contained HTML page with the plots")
    args = parser.parse_args(argv)
    try:
        settings, closed = opened(args)
        outcomes, decisions, orders, fills = [], Counter[str](), Counter[str](), Counter[str]()
        digests, began, last, first_ms, ms = Digests(), time.perf_counter(), time.perf_counter(), 0, 0
        for _, fact, outs in closed:
            digests.step(fact, outs)
            if isinstance(fact, ScoredBatch):
                ms = fact.ts_ms
                first_ms = first_ms or ms
            elif isinstance(fact, Fill):
                fills["maker" if fact.maker else "taker"] += 1
            for out in outs:
                if isinstance(out, Dropped):
                    decisions[out.reason] += 1
                elif isinstance(out, Order):
                    orders[out.cause] += 1
                elif isinstance(out, Outcome):
                    outcomes.append(out)
            if time.perf_counter() - last > 5:
                last = time.perf_counter()
                print(
                    f"  {datetime.fromtimestamp(ms / 1000, UTC):%Y-%m-%d %H:%M}  {closed.events:,} events, "
                    f"{closed.candidates:,} candidates, "
                    f"{len(outcomes)} trades",
                    file=sys.stderr,
                )
    except (ArchiveError, importers.RecordingError) as error:
        print(error, file=sys.stderr)
        return 1
    if not closed.events:
        return nothing(args, "backtest")
    took = time.perf_counter() - began
    print(
        f"{closed.events:,} events, {closed.candidates:,} candidates, {(ms - first_ms) / 3.6e6:.1f} hours of market in {took:.1f} s "
        f"({closed.events / took:,.0f} events/s)"
    )
    print(f"orders   {dict(orders)}\nrefused  {dict(decisions.most_common())}\nfills    {dict(fills)}")
    table = pd.DataFrame([{f: getattr(o, f) for f in Outcome.__struct_fields__} for o in outcomes], columns=list(Outcome.__struct_fields__))
    if outcomes:
        table["hour"] = pd.to_datetime(table.closed_ms, unit="ms").dt.strftime("%Y-%m-%d %H")
        for by in ("cause", "regime", "hour"):
            rows = table.groupby(by).agg(
                trades=("id", "size"),
                won=("net_usd", lambda x: (x > 0).mean()),
                gross_usd=("gross_usd", "sum"),
                fees_usd=("fees_usd", "sum"),
                net_usd=("net_usd", "sum"),
            )
            print(rows.round(3).to_string(), "\n")
    print(f"net {table.net_usd.sum():.2f} USD in {len(table)} trades after {table.fees_usd.sum():.2f} USD of fees")
    print(f"sha256 candidates and scores  {digests.scores} ({digests.count:,})\nsha256 decisions and orders   {digests.decisions}")
    if args.report:
        from store.figures import backtest_report

        drops = pd.DataFrame({"code": list(decisions), "n": list(decisions.values()), "allowed": False})
        args.report.write_text(
            backtest_report(table, drops, title=f"Backtest of {args.market or 'the archive'}", start_usd=settings.desk.equity_usd)
        )
        print(f"report   {args.report}")
    return 0


if __name__ == "__main__":
    raise SystemExit(ended(main))
