"""Halts the desk at once: entries are taken back, exits go on, nothing is opened until somebody releases it.

  python -m scripts.kill --reason "feed looks wrong"
  python -m scripts.release_kill                          # what stands, with its id
  python -m scripts.release_kill --kill kill-1767690000000-ann --reason "feed is back"

It ends with status 0 once the desk has the KILL in its ledger, where it holds over restarts. Until then it lies in data/controls/ as
well as on the broker: a desk that is down takes it before it decides again, also from a broker that came back empty. Beside the executor,
which may be down, the command itself asks the venue for every entry back (--no-sweep: it does not).
"""

import argparse
import asyncio
import getpass
import sys
import threading
import time

from config import settings as config
from config.settings import Settings
from engine.facts import CRIT, KILL, Control
from scripts._arguments import ended, some_seconds
from store import words as word

POLL_S = 0.1
SWEEPS, AGAIN_S = 12, 0.25      # at most; two in a row that find nothing end it: the second looks for what was on its way to the book


def words(text: str) -> str:
    """An argument that says something; `ArgumentTypeError` for blanks."""
    if not text.strip():
        raise argparse.ArgumentTypeError("is empty; it stands in the ledger: say it in words")
    return text.strip()


def name(text: str) -> str:
    """An id, as it is."""
    words(text)
    return text


def parser(prog: str, doc: str) -> argparse.ArgumentParser:
    """What both commands take."""
    made = argparse.ArgumentParser(prog=f"python -m scripts.{prog}", description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--actor", type=words, default=getpass.getuser(), help="who (default: the user that runs this)")
    made.add_argument("--wait", type=some_seconds, default=10.0, metavar="SECONDS",
                      help="how long to wait until the desk has it in its ledger (default: 10; 0: do not wait, and do not know)")
    made.add_argument("--config", action="append", default=[], help="YAML that overrides config/default.yaml")
    return made


def confirm(settings: Settings, fact: Control, until: float, places: list[str]) -> int:
    """Waits for the ledger to have it, until that time of the steady clock: status 0, else 1 with what is known."""
    from store import killing
    said = f"{fact.id} ({', '.join(places)})"
    if not until:
        print(f"{said}: handed over; nobody has waited for the desk to take it")
        return 0
    while True:
        heard = killing.heard(settings, fact)
        if heard.taken:
            print(f"{said}: in the desk's ledger; {'halted: ' + '; '.join(heard.kills.values()) if heard.kills else 'nothing halts it'}")
            if left := heard.left_of(fact):
                print(f"{', '.join(left)} stands all the same: it was told again since", file=sys.stderr)
            if heard.vain:
                print(f"{fact.id} changed nothing: a KILL stood, and what follows its release is no fail-safe; give the CRIT again then",
                      file=sys.stderr)
            elif fact.kind == CRIT and not settings.fail_safe.switch_to_paper_on_crit:
                print(f"{fact.id} changed nothing: fail_safe.switch_to_paper_on_crit is false", file=sys.stderr)
                return 1
            return 1 if left or heard.vain else 0
        if time.monotonic() > until:
            print(f"{said}: NOT yet taken by the desk: {heard.why}", file=sys.stderr)
            return 1
        time.sleep(POLL_S)


def main(argv: list[str] | None = None) -> int:
    """Gives the KILL; returns the exit status."""
    made = parser("kill", __doc__ or "")
    made.add_argument("--no-sweep", action="store_true", help="leave the taking back of entries to the executor")
    return give(KILL, made, argv)


def swept(settings: Settings) -> list[str] | None:
    """Takes entries back at the venue and says what came of it: their ids, None where it could not be asked. Nobody waits for it."""
    from streams.venues.sweep import sweep
    taken: list[str] = []
    empty = 0
    try:
        for again in range(SWEEPS):
            if again:
                time.sleep(AGAIN_S)
            found = asyncio.run(sweep(settings))
            taken, empty = taken + found, 0 if found else empty + 1
            if empty == 2:
                break
    except (OSError, SystemExit) as error:
        print(f"the venue was not asked for entries back: {error or 'it does not answer'}", file=sys.stderr)
        return taken or None
    if taken:
        print(f"asked back at the venue: {', '.join(dict.fromkeys(taken))}")
    return taken


def give(kind: str, made: argparse.ArgumentParser, argv: list[str] | None) -> int:
    """Leaves the word where a dead desk finds it, tells a living one, and waits for the ledger.

    The word lies on the disk before anything else is loaded: clients of brokers and databases take a second.
    """
    made.add_argument("--reason", type=words, required=True, help="why; it stands in the ledger")
    args = made.parse_args(argv)
    settings, until = config.load(*args.config), deadline(args.wait)
    fact = word.control(kind, args.actor, args.reason)
    places, faults = word.left(settings, fact)
    sweeping = threading.Thread(target=swept, args=(settings,)) if kind == KILL and not args.no_sweep else None
    if sweeping:
        sweeping.start()        # beside the broker, which may hang
    from store import killing
    given = killing.told(settings, killing.Given(fact, places, faults))
    for fault in given.faults:
        print(fault, file=sys.stderr)
    status = confirm(settings, given.fact, until, given.places) if given.places else 1
    if sweeping:
        sweeping.join()
    return status


def deadline(wait_s: float) -> float:
    """So long from now; 0 for not at all."""
    return time.monotonic() + wait_s if wait_s else 0.0


if __name__ == "__main__":
    raise SystemExit(ended(main))
