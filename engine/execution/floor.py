"""One symbol's trading floor: the published market, the orders in it, and how far the venue may work.

Paced by the Desk (`lockstep`): it works no further than `promise_ms`, or the first report that the Desk has not answered yet, plus
the latency; an order then arrives at its decision's time plus the latency, however fast the market is played. Unpaced: it works
all that is published, as a real venue would, and an order takes effect when it comes.
"""
from collections import deque

import msgspec

from engine.execution.matching import Matching
from engine.facts import Cancel, Fill, Frame, Order, Report, account_of
from engine.holding import Holding


class Saved(msgspec.Struct):
    """What survives the process: the matching, its place in the market, and the clocks."""
    matching: bytes
    session: str
    next_seq: int
    known_ms: int
    promise_ms: int
    seen: int
    unseen: list[tuple[int, int]]
    holding: Holding = msgspec.field(default_factory=Holding)
    twin: Holding = msgspec.field(default_factory=Holding)


class Floor:
    """The venue side of one symbol."""

    def __init__(self, matching: Matching, session: str, latency_ms: int, lockstep: bool):
        self.matching, self.session, self.latency_ms, self.lockstep = matching, session, latency_ms, lockstep
        self.frames: deque[Frame] = deque()
        self.at = 0                      # next event of the first frame
        self.next_seq = 0                # its number in the session
        self.known_ms = 0                # all that happens before this has been told
        self.promise_ms = 0
        self.seen = 0
        self.told = 0                    # the last venue number given out
        self.unseen: deque[tuple[int, int]] = deque()   # (number, time) told and not answered
        self.holding, self.twin = Holding(), Holding()     # of the account that trades, and of its paper twin

    def publish(self, frame: Frame) -> None:
        """The next frame of the market; one that was worked already (after a restart) is dropped."""
        if frame.session != self.session:
            self.session, self.next_seq, self.at = frame.session, frame.seq, 0
            self.frames.clear()
        end = self.frames[-1].seq + self.frames[-1].n if self.frames else self.next_seq
        if frame.seq + frame.n > end:
            if not self.frames:
                self.at = max(0, end - frame.seq)
            self.frames.append(frame)

    def place(self, order: Order) -> None:
        """An order comes in."""
        self.matching.place(order)

    def cancel(self, cancel: Cancel) -> None:
        """A cancel comes in."""
        self.matching.cancel(cancel)

    def promise(self, upto_ms: int, seen: int) -> None:
        """The Desk has thought up to here and knows our reports up to that number; what it promised before it knew them is void."""
        if seen < self.seen:
            return
        self.promise_ms = upto_ms if seen > self.seen else max(self.promise_ms, upto_ms)
        self.seen = seen
        while self.unseen and self.unseen[0][0] <= self.seen:
            self.unseen.popleft()

    @property
    def limit_ms(self) -> int:
        """How far it may work."""
        if not self.lockstep:
            return 2**62
        first = self.unseen[0][1] if self.unseen else self.promise_ms
        return min(self.promise_ms, first) + self.latency_ms

    def work(self, now_ms: int = 0) -> list[Report | Fill]:
        """All that happens to own orders up to the limit; an unpaced floor also up to the clock where no event comes."""
        out: list[Report | Fill] = []
        while self.frames:
            frame = self.frames[0]
            last = int(frame.times[-1])
            upto = min(self.limit_ms, last)
            was = self.at
            self.at, happened = self.matching.advance(frame, self.at, upto)
            self.next_seq = frame.seq + self.at
            self._tell(happened)
            out += happened
            self.known_ms = max(self.known_ms, happened[0].ts_ms if happened else upto)
            if self.at >= frame.n and not happened:
                self.frames.popleft()
                self.at = 0
            elif not happened and (self.at == was or upto < last):
                break
        if now_ms > self.known_ms and not self.lockstep and not self.frames:
            _, happened = self.matching.advance(None, 0, now_ms)
            self._tell(happened)
            out += happened
            self.known_ms = now_ms
        return out

    def _tell(self, happened: list[Report | Fill]) -> None:
        for one in happened:
            self.unseen.append((one.seq, one.ts_ms))
            self.told = one.seq
            if isinstance(one, Fill):
                (self.twin if account_of(one.order_id) else self.holding).take(one)

    def renew(self, fresh: Matching, session: str) -> list[Report | Fill]:
        """Another run of the market begins: what rests is taken back, the position stays."""
        happened = self._emptied()
        fresh.inherit(self.matching)
        self._tell(happened)
        self.matching, self.session, self.next_seq = fresh, session, 0
        return happened

    def shut(self) -> list[Report | Fill]:
        """All that happens up to the limit where the symbol has no market any more: what comes is taken back."""
        happened = self._emptied()
        self._tell(happened)
        self.known_ms = max([self.known_ms, *(one.ts_ms for one in happened), *([self.limit_ms] if self.lockstep else [])])
        return happened

    def _emptied(self) -> list[Report | Fill]:
        happened: list[Report | Fill] = []
        while self.matching.live:       # an order still on its way arrives first, and is taken back then
            for order in self.matching.open_orders():
                self.matching.cancel(Cancel(order.order_id, self.matching.symbol, self.known_ms, "session"))
            while step := self.matching.advance(None, 0, self.matching.last_arrival_ms)[1]:
                happened += step
        return happened

    def save(self) -> Saved:
        """What a restart needs; the market itself is made or read again from `next_seq`."""
        return Saved(self.matching.snapshot(), self.session, self.next_seq, self.known_ms, self.promise_ms, self.seen, list(self.unseen),
                     self.holding, self.twin)

    def load(self, saved: Saved) -> None:
        """Continues where a saved floor stood."""
        self.matching.restore(saved.matching)
        self.session, self.next_seq, self.known_ms = saved.session, saved.next_seq, saved.known_ms
        self.promise_ms, self.seen, self.unseen = saved.promise_ms, saved.seen, deque(saved.unseen)
        self.told = self.unseen[-1][0] if self.unseen else self.seen
        self.holding, self.twin = msgspec.structs.replace(saved.holding), msgspec.structs.replace(saved.twin)
