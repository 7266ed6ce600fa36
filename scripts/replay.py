"""Runs a recorded market, or a live run's own journal, through the Desk again and says whether it decides the same.

    python -m scripts.replay standx                  prints the two digests of a recording's run
    python -m scripts.replay --journal               re-runs the ledger of this desk; exit 1 where any answer differs by a byte
    python -m scripts.replay --journal sqlite:///data/ledger-standx1.db

    python -m scripts.replay standx --stages --plot stages.html
                                                     S0's stages 000, 100, 110 and 111 over the same candidates and scores, side by side:
                                                     planned volume, what bounded it, multipliers, refusals, result after fees

Every transaction of a journal is checked against its hash before the Desk sees it. Exits with 2 where the journal cannot be read or is
not what was written (which transaction is said), or where there is nothing to run; with 1 where a market cannot be read.
"""
import sys
import time
from pathlib import Path

import msgspec

from config import settings as config
from scripts._arguments import ended, share
from scripts._stages import side_by_side
from scripts.backtest import arguments, market_of, nothing, opened
from store.archive import ArchiveError
from store.audit import rerun
from store.closed import Digests
from store.database import LedgerError
from store.importers import RecordingError
from store.ledger import ledger_url


def journal(url: str, settings: config.Settings) -> int:
    """Re-runs the journal and says whether every answer is the one that was written."""
    digests, began = Digests(), time.perf_counter()
    facts, answers, wrong = rerun(url, settings, digests)
    if wrong:
        seq, said, written = (wrong[0], *(msgspec.msgpack.decode(blob) if blob else "nothing" for blob in wrong[1:]))
        print(f"transaction {seq}: the journal says {written},\nthe re-run says {said}", file=sys.stderr)
        return 1
    if not facts:
        print("replay: the journal holds no fact; nothing was run again", file=sys.stderr)
        return 2
    took = time.perf_counter() - began
    print(f"{facts:,} facts, {answers:,} answers: byte-equal ({facts / max(took, 1e-9):,.0f} facts/s)")
    print(f"sha256 candidates and scores  {digests.scores} ({digests.count:,})\nsha256 decisions and orders   {digests.decisions}")
    return 0


def main(argv: list[str] | None = None) -> int:
    parser = arguments(__doc__ or "", "replay")
    parser.add_argument("--journal", nargs="?", const="", metavar="URL", help="a ledger's URL (default: this desk's)")
    parser.add_argument("--stages", action="store_true", help="compare S0's four stages over this market; needs nothing running")
    parser.add_argument("--confidence", type=share, metavar="P", help="with --stages: let candidates in from this probability on, "
                        "where the model's never reach policy.min_confidence; the same for every stage")
    parser.add_argument("--plot", type=Path, metavar="FILE", help="with --stages: write the curves and counts as one HTML page")
    parser.add_argument("--json", type=Path, metavar="FILE", help="with --stages: write every figure for programs")
    args = parser.parse_args(argv)
    if not args.stages and (args.plot or args.json or args.confidence is not None):
        parser.error("--confidence, --plot and --json belong to --stages")
    if args.stages and args.journal is not None:
        parser.error("--stages runs a market; a journal has the decisions of one stage only")
    if args.journal is not None:
        settings = config.load(*args.config)
        try:
            return journal(args.journal or ledger_url(settings), settings)
        except LedgerError as error:
            print(error, file=sys.stderr)
            return 2
    try:
        if args.stages:
            settings, scorer, frames = market_of(args)
            return side_by_side(settings, scorer, frames, str(args.market or "the archive"), args.confidence, args.plot, args.json)
        _, closed = opened(args, finish=False)
        digests, began = Digests(), time.perf_counter()
        for _, fact, outs in closed:
            digests.step(fact, outs)
    except (ArchiveError, RecordingError) as error:
        print(error, file=sys.stderr)
        return 1
    if not closed.events:
        return nothing(args, "replay")
    took = time.perf_counter() - began
    print(f"{closed.events:,} events, {closed.candidates:,} candidates ({closed.events / took:,.0f} events/s)")
    print(f"sha256 candidates and scores  {digests.scores} ({digests.count:,})\nsha256 decisions and orders   {digests.decisions}")
    return 0


if __name__ == "__main__":
    raise SystemExit(ended(main))
