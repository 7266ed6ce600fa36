"""One symbol's road to the Desk: market, scores and venue reports in the one order that causality allows.

The venue answers an order `latency_ms` after its decision, so the Desk may think about an event only when everything that
happened at the venue before that event is known: `known_ms`. In return it *promises* the venue that no order of an earlier time
will come. With both, a market may be delivered far ahead of the Desk (frames are only bytes) and still no decision sees the
future, nor misses the past: conservative parallel simulation (Chandy and Misra 1979) with the latency as look-ahead. In-process
and through a broker the same lane runs, which is why they give the same decisions. At equal times market events come first,
then reports in the venue's order, then the score of the event. A score too weak to enter anything, while the Desk holds nothing of
its symbol, has no consequence but its own refusal: a run of such scores is told at once.
"""
from collections import deque
from collections.abc import Iterator

import numpy as np

from engine.desk import Desk, Out
from engine.facts import BOOK, Fill, Frame, Market, Report, Scored, ScoredBatch

FOREVER = 2**62
NEAR = 3            # levels whose lots the Desk is told, as `market_of` counts them
Happening = Report | Fill


class Stretch:
    """A frame with its scores, as the Desk works through it: `at` is the next event."""

    def __init__(self, frame: Frame, scored: list[Scored], desk: Desk):
        self.frame, self.n, self.at = frame, frame.n, 0
        self.ts = frame.times
        is_book = frame.kinds == BOOK
        self.time = self.ts.tolist()
        self.books_before = np.concatenate(([0], np.cumsum(is_book)))
        self.event_of_book = np.flatnonzero(is_book)
        rows = frame.book_rows
        self.book_ts = self.ts[is_book]
        self.bid, self.ask = np.ascontiguousarray(rows[:, 0, 0]), np.ascontiguousarray(rows[:, 2, 0])
        self.rows = rows
        self.scored = deque(sorted(((s.signal.seq - frame.seq, s) for s in scored), key=lambda pair: pair[0]))
        self.strong = deque(event for event, s in self.scored if not desk.weak(s))

    def market(self, first: int, last: int) -> Market:
        """Events `first` to `last` (exclusive) as the Desk reads them."""
        a, b = int(self.books_before[first]), int(self.books_before[last])
        f = self.frame
        bid_depth, ask_depth = (int(self.rows[b - 1, side, :NEAR].sum()) if b > a else 0 for side in (1, 3))
        return Market(f.symbol, f.session, f.seq + first, last - first, self.time[last - 1], f.tick, f.lot, self.book_ts[a:b].tobytes(),
                      self.bid[a:b].tobytes(), self.ask[a:b].tobytes(), bid_depth, ask_depth, f.sent_ms)

    def before(self, event: int) -> list[Scored]:
        """Takes out the scores of earlier events than this."""
        taken = []
        while self.scored and self.scored[0][0] < event:
            taken.append(self.scored.popleft()[1])
        return taken

    def next_act(self, desk: Desk) -> int:
        """The first event from `at` at which the Desk acts by itself: a score, or a book that closes something; else the last event.

        A weak score to which the Desk is indifferent is none: it is refused whenever it is told.
        """
        if desk.indifferent(self.frame.symbol):
            while self.strong and self.strong[0] < self.at:
                self.strong.popleft()
            return self.strong[0] if self.strong else self.n - 1
        if desk.idle:
            return self.scored[0][0] if self.scored else self.n - 1
        row = int(self.books_before[self.at])
        due = row + desk.first_due(self.frame.symbol, self.book_ts[row:], self.bid[row:], self.ask[row:])
        event = int(self.event_of_book[due]) if due < len(self.event_of_book) else self.n - 1
        return min(event, self.scored[0][0]) if self.scored else event


class Lane:
    """Feeds one Desk with one symbol; `step` does the next thing that may be done, or says what it waits for."""

    def __init__(self, desk: Desk, symbol: str):
        self.desk, self.symbol = desk, symbol
        self.stretches: deque[Stretch] = deque()
        self.inbox: deque[Happening] = deque()
        self.known_ms = 0        # all that happened at the venue before this is in the inbox or handled
        self.session = ""
        self.promise_ms = 0      # no order of an earlier time will come, unless in answer to a report not yet seen
        self.seen = 0            # the last venue number handled
        self.done = False        # no further event will come

    def add(self, frame: Frame, scored: list[Scored]) -> None:
        """The next frame with the scores of its candidates."""
        self.stretches.append(Stretch(frame, scored, self.desk))

    def heard(self, happenings: list[Happening], known_ms: int) -> None:
        """What the venue says, in its order, and how far that is complete."""
        self.inbox.extend(happenings)
        self.known_ms = max(self.known_ms, known_ms)

    def _due_before(self, event_ms: int) -> bool:
        """The head of the inbox comes before the next event; at the end of what is here, only once nothing more can come."""
        return self.inbox[0].ts_ms < event_ms and (event_ms < FOREVER or self.done)

    def act_ms(self) -> int:
        """A lower bound for the time of the lane's next consequence, to order several lanes; `FOREVER` where there is none."""
        head = self.inbox[0].ts_ms if self.inbox else FOREVER
        if not self.stretches:
            return head if self.done else FOREVER
        s = self.stretches[0]
        act = s.time[s.next_act(self.desk)]
        return min(act, head, self.known_ms) if self.desk.working(self.symbol) else min(act, head)

    def step(self) -> Iterator[tuple[object, list[Out]]] | None:
        """(fact, what the Desk answered) for one stretch of quiet market and what ends it; None when the lane must wait.

        While it waits, `promise_ms` says up to which time the venue may go on.
        """
        if not self.stretches:
            if self.inbox and self.done:
                return self._hear()
            return None
        s = self.stretches[0]
        if s.frame.session != self.session:      # the Desk comes to another run of the market: its time begins anew
            self.session, self.known_ms, self.promise_ms = s.frame.session, 0, 0
        event_ms = s.time[s.at]
        if self.inbox and self._due_before(event_ms):
            return self._hear()
        act = s.next_act(self.desk)
        if self.desk.working(self.symbol):
            if self.known_ms < event_ms:
                self.promise_ms = s.time[act]
                return None
            act = min(act, int(np.searchsorted(s.ts, self.known_ms, side="right")) - 1)
        if self.inbox:
            act = min(act, int(np.searchsorted(s.ts, self.inbox[0].ts_ms, side="right")) - 1)
        return self._advance(s, act)

    def _hear(self) -> Iterator[tuple[object, list[Out]]]:
        happening = self.inbox.popleft()
        self.seen = happening.seq
        self.promise_ms = min(self.promise_ms, happening.ts_ms)     # it may make the Desk act sooner than was promised without it
        yield happening, self.desk.on(happening)

    def _told(self, items: list[Scored]) -> tuple[ScoredBatch, list[Out]]:
        first, last = items[0].signal, items[-1].signal
        batch = ScoredBatch(self.symbol, self.session, first.seq, last.seq - first.seq + 1, last.ts_ms, 0.0, items)
        return batch, self.desk.on(batch)

    def _advance(self, s: Stretch, act: int) -> Iterator[tuple[object, list[Out]]]:
        if weak := s.before(act):          # where there are any, the Desk is indifferent to them: told at once, ahead of their market
            yield self._told(weak)
        market = s.market(s.at, act + 1)
        s.at = act + 1
        self.promise_ms = market.upto_ms
        yield market, self.desk.on(market)
        if due := s.before(act + 1):
            yield self._told(due)
        if s.at == s.n:
            self.stretches.popleft()
