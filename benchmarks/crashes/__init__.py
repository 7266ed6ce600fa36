"""Kills every part of the desk at every moment that matters, and counts what was lost, doubled or skipped in silence.

    python -m benchmarks.crashes                        1,000 deaths in one process, then 50 of real processes
    python -m benchmarks.crashes --points 200 --real 0 --seed 3
    python -m benchmarks.crashes --hostile              the same numbers of risk and executor, beside a venue that does its worst
    python -m benchmarks.crashes --case 'one death a run' 17 4211     one run again: its way, seed and edge, as a fault names it

In-process: the real services over logs in memory on virtual time; an edge is every statement of a transaction, file, record and
message, and a death leaves the files as they are at that instant. Real: SIGKILL of the processes of a running stack, the broker
among them. After each run the ledger, the venue's journal and, at a paced market, the decisions of the undisturbed run are compared.
Hostile: between executor and venue the line breaks with a request in hand or its answer, hangs for longer than the executor's patience,
loses requests and answers, brings them twice, late and in another order, at seeded rates; KILL, CRIT and RELEASE come between the
deaths; half of the runs trade a real account beside its paper twins. Nothing may be lost, doubled, refused and yet at the venue, or sent
again before the venue was asked; after each death it is timed how long it takes until the desk (which is its ledger) and the venue agree
about orders, quantity, average price and result. Exit 1 where anything is lost, doubled, skipped in silence or wrong.
"""


def main(argv: list[str] | None = None) -> int:
    """The command."""
    from benchmarks.crashes.campaign import main as run
    return run(argv)
