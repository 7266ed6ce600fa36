"""Runs a recorded market, or a live run's own journal, through the Desk again and says whether it decides the same.

    python -m scripts.replay standx                  prints the two digests of a recording's run
    python -m scripts.replay --journal               re-runs the ledger of this desk; exit 1 where any answer differs by a byte
    python -m scripts.replay --journal sqlite:///data/ledger-standx1.db
"""
import sys
import time

import msgspec

from config import settings as config
from engine.desk import Desk
from scripts.backtest import arguments, opened
from store.archive import ArchiveError
from store.audit import answers_of, entries
from store.closed import Digests
from store.database import LedgerError
from store.importers import RecordingError
from store.ledger import ledger_url


def journal(url: str, settings: config.Settings) -> int:
    """Feeds the journal's facts to a fresh Desk in their order and compares every answer with what was written."""
    desk = Desk(settings.desk, settings.policy, settings.sizing, settings.venue, settings.symbols)
    digests, began, answers, facts = Digests(), time.perf_counter(), 0, 0
    for entry in entries(url):
        said: list[bytes] = []
        for fact in entry.consumed:
            outs = desk.on(fact)
            said += [msgspec.msgpack.encode(o) for o in outs]
            facts += 1
            digests.step(fact, outs)
        written = [msgspec.msgpack.encode(o) for record in entry.produced for o in answers_of(record)]
        if sorted(said) != sorted(written):
            wrong = next((a, b) for a, b in zip([*sorted(said), b""], [*sorted(written), b""]) if a != b)
            print(f"transaction {entry.seq}: the journal says {msgspec.msgpack.decode(wrong[1]) if wrong[1] else 'nothing'},\n"
                  f"the re-run says {msgspec.msgpack.decode(wrong[0]) if wrong[0] else 'nothing'}", file=sys.stderr)
            return 1
        answers += len(said)
    took = time.perf_counter() - began
    print(f"{facts:,} facts, {answers:,} answers: byte-equal ({facts / max(took, 1e-9):,.0f} facts/s)")
    print(f"sha256 candidates and scores  {digests.scores} ({digests.count:,})\nsha256 decisions and orders   {digests.decisions}")
    return 0


def main(argv: list[str] | None = None) -> int:
    parser = arguments(__doc__ or "", "replay")
    parser.add_argument("--journal", nargs="?", const="", metavar="URL", help="a ledger's URL (default: this desk's)")
    args = parser.parse_args(argv)
    if args.journal is not None:
        settings = config.load(*args.config)
        try:
            return journal(args.journal or ledger_url(settings), settings)
        except LedgerError as error:
            print(error, file=sys.stderr)
            return 1
    try:
        _, closed = opened(args, finish=False)
        digests, began = Digests(), time.perf_counter()
        for _, fact, outs in closed:
            digests.step(fact, outs)
    except (ArchiveError, RecordingError) as error:
        print(error, file=sys.stderr)
        return 1
    took = time.perf_counter() - began
    print(f"{closed.events:,} events, {closed.candidates:,} candidates ({closed.events / took:,.0f} events/s)")
    print(f"sha256 candidates and scores  {digests.scores} ({digests.count:,})\nsha256 decisions and orders   {digests.decisions}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
