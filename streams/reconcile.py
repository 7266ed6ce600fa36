"""The desk's books beside the venue's word: compared at the same number, outside the decisions; only its KILL is a fact.

The venue's `Standing` after its number n comes with the reports; the desk's portfolio is compared when it has consumed everything
up to n and nothing after, so that what is on its way is no difference. A difference that nobody has accepted halts the desk by a KILL
that tells it; who releases that KILL accepts what it told, and nothing that was found since.
"""
import logging
import time
from itertools import chain

import msgspec

from config.settings import Settings
from engine import metrics as m
from engine.desk import Desk
from engine.execution.reconcile import GAP, ORDER, ORPHAN, POSITION, RESULT, Difference, differences
from engine.facts import KILL, Control, Standing

log = logging.getLogger("sluice.risk")
PATIENCE = 3           # answers with the same missing numbers, until those are a gap
MOST = 1000            # missing numbers that are waited for one by one
TOLD = "differences"


class Books(msgspec.Struct):
    """One symbol: the venue's memory, its numbers consumed up to `upto` but for `missing`, and what a person has accepted.

    `due`: the first number that the last answer spoke of and the desk had not consumed, `tries` how often in a row it was that one.
    `reported`: what each KILL that stands has told.
    """
    journal: str = ""
    upto: int = 0
    missing: list[int] = []
    due: int = 0
    tries: int = 0
    before_usd: float = 0.0
    found: list[Difference] = []
    accepted: list[Difference] = []
    reported: dict[str, list[Difference]] = {}

    def fresh(self) -> list[Difference]:
        """What was found last and is neither accepted nor in a KILL that stands."""
        told = {d.key for differences in self.reported.values() for d in differences}
        return [d for d in self.found if d.key not in told and not any(d.like(known) for known in self.accepted)]


class Reconciler:
    """Takes what the venue says stands, waits for its number, compares."""

    def __init__(self, settings: Settings, desk: Desk, meter: m.Meter, in_order: bool):
        self.settings, self.desk, self.meter = settings, desk, meter
        self.in_order = in_order        # numbers come to the desk without a hole, or not at all
        self.books: dict[str, Books] = {}
        self.waiting: dict[str, Standing] = {}
        self.halting: dict[str, list[Difference]] = {}
        self.number = 0                 # of the last comparison that found something
        self.compared_at = time.monotonic()

    @property
    def age_ms(self) -> float:
        """Since the last comparison."""
        return (time.monotonic() - self.compared_at) * 1000

    def of(self, symbol: str) -> Books:
        """The symbol's books."""
        return self.books.setdefault(symbol, Books())

    def numbered(self, symbol: str, seq: int) -> None:
        """The desk has consumed the venue's number."""
        b = self.of(symbol)
        if seq > b.upto:
            if b.upto and not self.in_order:
                b.missing += range(max(b.upto + 1, seq - MOST), seq)
            b.upto = seq
        elif seq in b.missing:
            b.missing.remove(seq)
        if symbol in self.waiting:
            self._try(symbol)

    def offer(self, standing: Standing) -> None:
        """The venue's word on what stands."""
        symbol, b = standing.symbol, self.of(standing.symbol)
        if b.journal != standing.journal:
            if b.journal:       # numbers of another memory: from here on
                b.upto, b.missing = standing.seq, []
            b.journal = standing.journal
        due = b.missing[0] if b.missing else b.upto + 1 if standing.seq > b.upto else 0
        b.tries, b.due = b.tries + 1 if due and due == b.due else 1, due
        if symbol not in self.waiting or self.waiting[symbol].seq < b.upto:
            self.waiting[symbol] = standing
        self._try(symbol)
        if due and b.tries > PATIENCE and not self.in_order and symbol in self.waiting:
            del self.waiting[symbol]
            lost = len(b.missing) + max(0, standing.seq - b.upto)
            self._compare(standing, b, [Difference(GAP, symbol, standing.seq - lost, standing.seq)])

    def _try(self, symbol: str) -> None:
        """Compares where the desk stands exactly at the number; later it is too late, and the next answer will do."""
        standing, b = self.waiting[symbol], self.of(symbol)
        if b.upto == standing.seq and not b.missing:
            del self.waiting[symbol]
            self._compare(standing, b, [])

    def _compare(self, standing: Standing, b: Books, gap: list[Difference]) -> None:
        symbol, portfolio = standing.symbol, self.desk.portfolio
        if symbol not in portfolio.holdings:
            b.before_usd = standing.realized_usd
        instrument = self.settings.instrument(symbol)
        found = gap + differences(portfolio, standing, instrument, b.before_usd)
        if self.desk.venue.mode == "real":
            found += differences(self.desk.state.twins, standing, instrument, twin=True)
        self.compared_at = time.monotonic()
        self.meter.inc(m.VENUE_COMPARISONS_TOTAL)
        self.meter.set(m.POSITION_DIFFERENCE, sum(d.theirs - d.ours for d in found if d.key == (POSITION, symbol)), symbol=symbol)
        self.meter.set(m.RESULT_DIFFERENCE_USD, sum(d.theirs - d.ours for d in found if d.key == (RESULT, symbol)), symbol=symbol)
        for one in found:
            if not any(one.like(known) for known in chain(b.found, b.accepted, *b.reported.values())):
                self.meter.inc(m.VENUE_MISMATCHES_TOTAL, kind=one.kind)
                log.error("not as the venue says: %s (number %d)", one, standing.seq)
        b.found = found
        self.meter.set(m.ORPHAN_ORDERS, sum(d.kind == ORPHAN for books in self.books.values() for d in books.found))
        gone = {d.key for d in b.accepted if d.kind in (POSITION, ORDER, ORPHAN)} - {d.key for d in found}
        b.accepted = [d for d in b.accepted if d.key not in gone]       # the same again later is another one
        if fresh := b.fresh():
            self.number = standing.seq
            self.halting[symbol] = fresh

    def halt(self) -> Control | None:
        """The KILL that tells what was found since the last call; None where nothing was."""
        if not self.halting:
            return None
        told, self.halting = self.halting, {}
        fresh = [d for differences in told.values() for d in differences]
        reason = "not as the venue says: " + "; ".join(map(str, fresh[:3])) + (f" and {len(fresh) - 3} more" if len(fresh) > 3 else "")
        state = self.desk.state
        name, again = f"kill-venue-{state.now_ms}-{self.number}", 0
        while f"{name}-{again}" in state.controls:      # an id acts once
            again += 1
        return Control(f"{name}-{again}", KILL, "risk", reason, state.epoch, state.now_ms, {TOLD: msgspec.json.encode(told).decode()})

    def on_control(self, control: Control) -> None:
        """A KILL of ours tells what was found; who releases it accepts that, and numbers that were lost are lost."""
        if control.kind == KILL and TOLD in control.details:
            for symbol, told in msgspec.json.decode(control.details[TOLD], type=dict[str, list[Difference]]).items():
                self.of(symbol).reported[control.id] = told
        for name in control.kills:
            for symbol, b in self.books.items():
                told = b.reported.pop(name, [])
                keys = {d.key for d in told}
                b.accepted = [d for d in b.accepted if d.key not in keys] + told
                for gap in (int(d.theirs) for d in told if d.kind == GAP):
                    b.upto, b.missing = max(b.upto, gap), [n for n in b.missing if n > gap]
                if told and (fresh := b.fresh()):       # it has moved on since
                    self.halting[symbol] = fresh
