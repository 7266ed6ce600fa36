"""Kills every part of the desk at every moment that matters, and counts what was lost, doubled or skipped in silence.

    python -m benchmarks.crashes                        1,000 deaths in one process, then 50 of real processes
    python -m benchmarks.crashes --points 200 --real 0 --seed 3
    python -m benchmarks.crashes --case 'one death a run' 17 4211     one run again: its way, seed and edge, as a fault names it

In-process: the real services over logs in memory on virtual time; an edge is every statement of a transaction, file, record and
message, and a death leaves the files as they are at that instant. Real: SIGKILL of the processes of a running stack, the broker
among them. After each run the ledger, the venue's journal and, at a paced market, the decisions of the undisturbed run are compared.
Exit 1 where anything is lost, doubled, skipped in silence or wrong.
"""


def main(argv: list[str] | None = None) -> int:
    """The command."""
    from benchmarks.crashes.campaign import main as run
    return run(argv)
