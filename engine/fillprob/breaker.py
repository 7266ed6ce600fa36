"""The circuit breaker of the gate: when it blocks too much of what it judges, it steps aside until its window has emptied.

Time is the market's, in ms. While it is tripped nothing is recorded, so that it recovers as what it remembers grows old. Every trip
counts once, however many orders pass by it.
"""
from bisect import bisect_left

import msgspec


class BreakerState(msgspec.Struct):
    """What it remembers: the times of what was judged, of those what was blocked, and how often it has tripped."""
    judged: list[int] = []
    blocked: list[int] = []
    tripped: bool = False
    trips: int = 0


class Breaker:
    """Trips above `max_block_rate_pct` percent of at least `min_samples` judged within `window_seconds`; at 100 it never does."""

    def __init__(self, window_seconds: int = 300, max_block_rate_pct: int = 50, min_samples: int = 1, state: BreakerState | None = None):
        self.window_seconds = max(1, window_seconds)
        self.max_block_rate_pct = min(max(0, max_block_rate_pct), 100)
        self.min_samples = max(1, min_samples)
        self.state = state if state is not None else BreakerState()

    def record(self, blocked: bool, now_ms: int) -> bool:
        """An order was judged; true where that tripped the breaker."""
        s = self.state
        now_ms = max(now_ms, s.judged[-1] if s.judged else now_ms)      # another symbol's market may be behind
        s.judged.append(now_ms)
        if blocked:
            s.blocked.append(now_ms)
        self._forget(now_ms)
        if s.tripped or len(s.judged) < self.min_samples or not self._over():
            return False
        s.tripped = True
        s.trips += 1
        return True

    def is_tripped(self, now_ms: int) -> bool:
        """Whether it stands aside; whoever asks lets it recover."""
        self._forget(now_ms)
        if self.state.tripped and not self._over():
            self.state.tripped = False
        return self.state.tripped

    def line(self) -> str:
        """What the log says of a trip."""
        block, total = len(self.state.blocked), len(self.state.judged)
        return (f"FILL_PROB_CIRCUIT_BREAKER_TRIPPED block_count={block} total_count={total} "
                f"block_rate_pct={block * 100 // total if total else 0} window_seconds={self.window_seconds}")

    def _over(self) -> bool:
        return len(self.state.blocked) * 100 > self.max_block_rate_pct * len(self.state.judged)

    def _forget(self, now_ms: int) -> None:
        oldest = now_ms - 1000 * self.window_seconds
        for times in (self.state.judged, self.state.blocked):
            if times and times[0] < oldest:
                del times[:bisect_left(times, oldest)]
