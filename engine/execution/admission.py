"""The gates in front of the Desk: a market that is too young, more work than can be done in time, and a CRIT.

State machines over msgspec state; every time is market ms and comes in. What the broker holds for us is no part of the market, so its depth
comes in as a fact of its own: a re-run of the journal hears the same depths at the same places.
"""
import re

import msgspec
import numpy as np

from engine.policy import Block
from engine.reasons import BACKPRESSURE, WARM_UP
from engine.settings import Backpressure, FailSafe, WarmUp

PAPER, REAL = "paper", "real"
HALT, DEGRADE = "halt", "degrade"
BEGUN, CLEARED, ORDERED = "fail_safe", "fail_safe_clear", "ordered"
TIGHTER, TIGHTEST = 1.5, 0.95
OTHER, REASONS_KEPT = "other", 32


class Age(msgspec.Struct):
    """Since when a symbol's market has run without a gap."""
    session: str
    since_ms: int
    last_ms: int


class Warmth(msgspec.Struct):
    """The warm-up gate: by symbol, how long its books have come without a hole. The same however the market is cut into frames."""
    ages: dict[str, Age] = {}

    def on_books(self, symbol: str, session: str, ts: np.ndarray, gap_ms: int) -> None:
        """Books of these times (int64[k], never decreasing) were seen; more than `gap_ms` between two is a gap."""
        if not len(ts):
            return
        age, last = self.ages.get(symbol), int(ts[-1])
        if age is None or age.session != session:
            age = self.ages[symbol] = Age(session, int(ts[0]), int(ts[0]))
        if last - age.last_ms > gap_ms:      # only then can there be a gap
            wide = np.flatnonzero(np.diff(ts, prepend=age.last_ms) > gap_ms)
            if len(wide):
                age.since_ms = int(ts[wide[-1]])
        age.last_ms = last

    def block(self, symbol: str, now_ms: int, rules: WarmUp) -> Block | None:
        """Whether the symbol is too young at its own time `now_ms`; elapsed passes."""
        if not rules.enabled:
            return None
        age = self.ages.get(symbol)
        if age is None:
            return Block(WARM_UP, f"no book of {symbol} yet")
        up_ms, need_ms = now_ms - age.since_ms, round(rules.seconds * 1000)
        return Block(WARM_UP, f"{symbol}: up {up_ms}ms < {need_ms}ms") if up_ms < need_ms else None


class Pressure(msgspec.Struct):
    """Backpressure: `depth` is what waits on the broker and what is in hand; `degraded` counts how often that mode was entered."""
    depth: int = 0
    over: bool = False
    degraded: int = 0

    def on_depth(self, lag: int, in_flight: int, rules: Backpressure) -> None:
        """So many records wait on the broker, and so many are taken and not done."""
        was, self.depth = self.over, lag + in_flight
        self.over = rules.enabled and self.depth > rules.max_queue_len
        if self.over and not was and rules.drop_mode == DEGRADE:
            self.degraded += 1

    def block(self, rules: Backpressure) -> Block | None:
        """In `halt` every signal is refused while the depth is over its limit."""
        if self.over and rules.drop_mode == HALT:
            return Block(BACKPRESSURE, f"queue={self.depth} > {rules.max_queue_len}")
        return None

    def min_fill_probability(self, least: float, rules: Backpressure) -> float:
        """What a level of the ladder must have: in `degrade` half as much again, at most 0.95, and never less than without.

        >>> rules = Backpressure(True, 10, "degrade")
        >>> Pressure(11, True).min_fill_probability(0.3, rules), Pressure(11, True).min_fill_probability(0.7, rules)
        (0.44999999999999996, 0.95)
        """
        return max(least, min(TIGHTEST, least * TIGHTER)) if self.over and rules.drop_mode == DEGRADE else least


class Safe(msgspec.Struct):
    """Fail-safe: after a CRIT the desk goes on on paper until `until_ms`, and then by itself where it came from.

    `begun` counts by reason how often it began, `switches` by (from, to, reason) how often the mode changed.
    """
    until_ms: int = 0
    base: str = ""                        # the mode that it came from; empty where no fail-safe is on
    reason: str = ""
    begun: dict[str, int] = {}
    switches: dict[tuple[str, str, str], int] = {}

    def on_crit(self, reason: str, now_ms: int, base: str, halted: bool, rules: FailSafe) -> bool:
        """A CRIT; True where it began a fail-safe. One more prolongs it; while a kill is in force it changes nothing (DECISIONS, 28)."""
        if halted or not rules.switch_to_paper_on_crit:
            return False
        self.on_time(now_ms)
        self.until_ms = max(self.until_ms, now_ms + round(rules.cooldown_minutes * 60_000))
        if self.base:
            return False
        self.base, self.reason = base, reason
        name = label(reason, self.begun)
        self.begun[name] = self.begun.get(name, 0) + 1
        self._switched(base, PAPER, BEGUN)
        return True

    def on_time(self, now_ms: int) -> bool:
        """Time passed; True where that ended the fail-safe."""
        if not self.base or now_ms < self.until_ms:
            return False
        self._switched(PAPER, self.base, CLEARED)
        self.base = self.reason = ""
        return True

    def on_ordered(self, old: str, new: str) -> None:
        """A person changed the mode; in a fail-safe that is the one to return to."""
        if self.base:
            self.base = new
        else:
            self._switched(old, new, ORDERED)

    def mode(self, base: str) -> str:
        """The mode in force."""
        return PAPER if self.base else base

    def _switched(self, old: str, new: str, why: str) -> None:
        if old != new:
            self.switches[old, new, why] = self.switches.get((old, new, why), 0) + 1


def label(reason: str, known: dict[str, int]) -> str:
    """A reason as a metric's label: a word, and one of a bounded number of them.

    >>> label("WinRateDrop: 0.41", {}), label("", {}), label("new", {str(i): 1 for i in range(32)})
    ('WinRateDrop', 'other', 'other')
    """
    word = re.match(r"\w{1,48}", reason)
    if word is None or (word[0] not in known and len(known) >= REASONS_KEPT):
        return OTHER
    return word[0]
