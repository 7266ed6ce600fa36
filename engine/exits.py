"""When an entry ends: target, stop, maximum holding time, hold. Rows of one table, asked at every book of its symbol.

The target rests at the venue as a reduce-only maker order; the others take it back first and close at the touch, so that no
two closing orders work at once. Exits are exempt from the entry policy.
"""
from engine.facts import ENTRY, STOP, TIME
from engine.portfolio import CANCELLING, ENTERING, OPEN, Entry


def stop_reached(entry: Entry, bid: int, ask: int, ts_ms: int) -> bool:
    """The touch (in ticks) that a close would meet is at or beyond the stop; an empty side (0) is no price."""
    return 0 < bid <= entry.stop_ticks if entry.sign > 0 else ask >= entry.stop_ticks


def time_over(entry: Entry, bid: int, ask: int, ts_ms: int) -> bool:
    """Held as long as allowed."""
    return 0 < entry.deadline_ms <= ts_ms


def patience(entry: Entry, cancel_timeout_ms: int) -> int:
    """How long an answer to the last cancel is waited for: twice as long each time, up to sixteen times."""
    return cancel_timeout_ms << min(max(entry.asks - 1, 0), 4)


RULES = ((STOP, stop_reached), (TIME, time_over))


def due(entry: Entry, bid: int, ask: int, ts_ms: int, cancel_timeout_ms: int) -> str:
    """What this book asks of the entry: a cause to close, ENTRY to take the entry order back, or nothing."""
    if entry.state == OPEN:
        for cause, rule in RULES:
            if rule(entry, bid, ask, ts_ms):
                return cause
    elif entry.state == ENTERING:
        if entry.asked_ms == 0:
            if ts_ms >= entry.expires_ms:
                return ENTRY
            if entry.bought and stop_reached(entry, bid, ask, ts_ms):
                return STOP
        elif ts_ms - entry.asked_ms >= patience(entry, cancel_timeout_ms):
            return entry.cause or ENTRY
    elif entry.state == CANCELLING and ts_ms - entry.asked_ms >= patience(entry, cancel_timeout_ms):
        return entry.cause
    return ""
