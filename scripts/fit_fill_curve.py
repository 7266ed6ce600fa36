"""Fits the ladder's fill curve to paper fills, measures it on later ones, and writes it as a file that the desk loads.

    python -m scripts.fit_fill_curve standx --out models/fill_curve.json
    python -m scripts.fit_fill_curve --ledger --out models/fill_curve.json          the desk's own paper orders
    SLUICE_FILL_CURVE=models/fill_curve.json make demo                              with it in force (sizing.fill_curve)

Rows from a market (a recording's name or folder, or an archive; several may be named) are virtual maker orders: one lot at several
distances behind every tenth candidate, by the paper venue's own queue, filled within desk.entry_ttl_ms or not. Rows from a ledger are the
desk's own paper orders. The last quarter of the time is kept back; on it the curve is compared with S1's formula and with the base rate
(Brier score, calibration error, said against happened), and the file carries what came out. Where the curve is worse than the formula, or
than saying the base rate, nothing is written and the status is 1.

The file is JSON, versioned and sealed by its sha256; its id is of its parameters alone. One that was edited, cut or fitted for
another desk.entry_ttl_ms keeps a desk from starting. Two runs over the same rows write the same bytes with --created-at-utc (or
SOURCE_DATE_EPOCH) given.
"""
import argparse
import os
import sys
from datetime import UTC, datetime
from pathlib import Path

from config import settings as config
from engine.sizing.curve import COLUMNS, curve_of, sealed
from engine.sizing.fill import fit
from scripts._arguments import ended, filled, number, positive
from store import archive, disk, importers
from store.archive import ArchiveError
from store.database import LedgerError
from store.fill_curve import joined, measured, own, split, virtual
from store.ledger import ledger_url

EVENTS = 8192
LEAST = 200        # rows on either side of the split: fewer tell nothing


def created(said: str | None) -> str:
    """The time that the file carries."""
    if said:
        return said
    epoch = os.environ.get("SOURCE_DATE_EPOCH")
    at = datetime.fromtimestamp(int(epoch), UTC) if epoch else datetime.now(UTC)
    return at.strftime("%Y-%m-%dT%H:%M:%SZ")


def stamp(text: str) -> str:
    """A time like 2026-01-06T14:00:00Z; for argparse."""
    try:
        return datetime.strptime(text, "%Y-%m-%dT%H:%M:%SZ").strftime("%Y-%m-%dT%H:%M:%SZ")
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a time like 2026-01-06T14:00:00Z") from None


def show(m: dict) -> None:
    """What the curve is worth, beside the formula and the base rate."""
    b, e = m["brier"], m["ece"]
    print(f"on {m['rows']:,} later rows, {m['filled']:.1%} of them filled:")
    print(f"  Brier score    curve {b['curve']:.4f}   formula {b['formula']:.4f}   base rate {b['base_rate']:.4f}")
    print(f"  off by (ECE)   curve {e['curve']:.4f}   formula {e['formula']:.4f}")
    for name, rows in (("curve", m["reliability"]), ("formula", m["reliability_formula"])):
        print(f"  {name:<9} {'said':>10} {'happened':>10} {'rows':>9}")
        for r in rows:
            print(f"  {'':<9} {r['predicted']:>10.1%} {r['observed']:>10.1%} {r['n']:>9,}")
    print(f"  {'distance':<14} {'happened':>10} {'curve':>10} {'formula':>10} {'rows':>9}")
    for r in m["by_distance"]:
        print(f"  from {r['from_bps']:g} bps".ljust(16) + f" {r['filled']:>10.1%} {r['curve']:>10.1%} {r['formula']:>10.1%} {r['n']:>9,}")


@disk.told("fit_fill_curve")
def main(argv: list[str] | None = None) -> int:
    """Fits, measures, writes; returns the exit status."""
    parser = argparse.ArgumentParser("python -m scripts.fit_fill_curve", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("market", nargs="*", type=filled, help="recordings or archives")
    parser.add_argument("--ledger", nargs="?", const="", metavar="URL",
                        help="the desk's own paper orders, from a ledger (default: this desk's)")
    parser.add_argument("--symbols", type=filled, help="comma-separated (default: all)")
    parser.add_argument("--every", type=positive, default=10,
                        help="take every Nth candidate of a market (default 10: neighbours tell the same)")
    parser.add_argument("--later", type=number(float, 0, above=True, most=0.9), default=0.25, metavar="SHARE",
                        help="of the time, the last, on which the curve is measured (default 0.25)")
    parser.add_argument("--out", type=Path, help="write the file; without it the figures are printed only")
    parser.add_argument("--anyway", action="store_true", help="write it although it is worse than the formula or the base rate")
    parser.add_argument("--created-at-utc", type=stamp, metavar="T", help="the time that the file carries (default: now)")
    parser.add_argument("--config", action="append", default=[], help="YAML that overrides config/default.yaml")
    args = parser.parse_args(argv)
    if not args.market and args.ledger is None:
        parser.error("a market or --ledger is needed")
    settings = config.load(*args.config)
    parts, source = [], []
    try:
        for market in args.market:
            root, have = importers.open_recording(market, settings.folder("data") / "recordings", settings,
                                                  say=lambda line: print(line, file=sys.stderr))
            for symbol in [s for s in have if not args.symbols or s in args.symbols.split(",")]:
                rows = virtual(archive.read(root, symbol, events=EVENTS), symbol, settings, args.every)
                print(f"{market} {symbol}: {len(rows.filled):,} virtual orders, {rows.filled.mean() if len(rows.filled) else 0:.1%} filled",
                      file=sys.stderr)
                parts.append((rows, {"market": market, "symbol": symbol}))
        if args.ledger is not None:
            rows = own(args.ledger or ledger_url(settings), settings)
            print(f"ledger: {len(rows.filled):,} paper orders of the desk's own", file=sys.stderr)
            parts.append((rows, {"market": "ledger", "symbol": ""}))
        early, late = [], []
        for rows, said in parts:       # each market has its own last quarter
            if len(rows.filled):
                a, b = split(rows, args.later, settings.desk.entry_ttl_ms)
                early.append(a)
                late.append(b)
                upto = int(a.ts_ms[-1]) if len(a.filled) else 0
                source.append(said | {"rows": len(a.filled), "from_ms": int(rows.ts_ms[0]), "to_ms": upto})
        old, new = joined(early), joined(late)
        if min(len(old.filled), len(new.filled)) < LEAST:
            print(f"fit_fill_curve: {len(old.filled):,} rows to fit to and {len(new.filled):,} later ones: at least {LEAST} of each "
                  "are needed", file=sys.stderr)
            return 1
        parameters = fit(old.x, old.filled)
    except (ArchiveError, importers.RecordingError, LedgerError, ValueError) as error:
        print(f"fit_fill_curve: {error}", file=sys.stderr)
        return 1
    curve, m = curve_of(parameters, settings.desk.entry_ttl_ms), measured(parameters, new)
    print(f"{curve.id}: fitted to {parameters.rows:,} orders, {parameters.filled:.1%} filled within {curve.horizon_ms / 1000:g} s\nweights "
          + ", ".join(f"{name} {w:+.3f}" for name, w in zip(COLUMNS, parameters.weights, strict=True))
          + f", intercept {parameters.intercept:+.3f}")
    show(m)
    worse = [name for name in ("formula", "base_rate") if m["brier"]["curve"] > m["brier"][name]]
    if worse and not args.anyway:
        print(f"fit_fill_curve: worse than {' and '.join(worse).replace('_', ' ')} on later rows: nothing is written (--anyway writes it)",
              file=sys.stderr)
        return 1
    if args.out:
        args.out.parent.mkdir(parents=True, exist_ok=True)
        disk.replace(args.out, sealed(curve, created(args.created_at_utc), {"parts": source, "every": args.every,
                     "matching": config.fingerprint(settings.matching), "later": args.later}, m))
        print(f"written {args.out}; SLUICE_FILL_CURVE={args.out} puts it in force at the next start")
    return 0


if __name__ == "__main__":
    raise SystemExit(ended(main))
