"""What was handed to the venue and has no word from it: waiting, unknown once the line broke, asked about by id, never guessed."""
import time
from collections.abc import Iterator

import msgspec

from engine.facts import ACCEPTED, ENTRY, Cancel, Fill, Order, Report, Standing
from engine.reasons import DUPLICATE_ORDER, NOT_FOUND

Act = Order | Cancel
_acts = msgspec.msgpack.Decoder(list[Act])


class One:
    """An order or a cancel on its way; `unknown`: nobody can say whether the venue has it; `told`: the desk knows that."""

    def __init__(self, act: Act):
        self.act, self.since = act, time.monotonic()
        self.unknown = self.told = self.complained = False

    @property
    def order_id(self) -> str:
        """The order that it is about."""
        return self.act.id if isinstance(self.act, Order) else self.act.order_id

    @property
    def key(self) -> tuple[bool, str]:
        """An order and its cancel are two."""
        return isinstance(self.act, Order), self.order_id

    @property
    def age_s(self) -> float:
        """How long it has waited in this life."""
        return time.monotonic() - self.since

    def __str__(self) -> str:
        return self.order_id if isinstance(self.act, Order) else f"the cancel of {self.order_id}"


class Waiting:
    """By key, in the order in which they were handed over."""

    def __init__(self) -> None:
        self.acts: dict[tuple[bool, str], One] = {}

    def __contains__(self, act: Act) -> bool:
        return One(act).key in self.acts

    def __iter__(self) -> Iterator[One]:
        return iter(list(self.acts.values()))

    def add(self, act: Act) -> None:
        """It is about to be handed over."""
        one = One(act)
        self.acts[one.key] = one

    def clear(self) -> None:
        """The venue that they were handed to is gone."""
        self.acts.clear()

    def save(self) -> bytes:
        """For the next life."""
        return msgspec.msgpack.encode([one.act for one in self])

    def load(self, blob: bytes) -> None:
        """From the life before."""
        for act in _acts.decode(blob) if blob else ():
            self.add(act)

    def answered(self, item: Report | Fill) -> None:
        """The venue's word: any but "no such order" is one of the order, an end or such a word one of its cancel."""
        if isinstance(item, Fill) or item.reason != NOT_FOUND:
            self.acts.pop((True, item.order_id), None)
        if isinstance(item, Report) and item.status != ACCEPTED and item.reason != DUPLICATE_ORDER:
            self.acts.pop((False, item.order_id), None)

    @property
    def unknown(self) -> list[One]:
        """Those of which nobody can say what became of them."""
        return [one for one in self if one.unknown]

    def doubt(self) -> list[One]:
        """The line broke: all are unknown; returns those of which the desk has not been told."""
        fresh = [one for one in self if not one.told]
        for one in self:
            one.unknown = one.told = True
        return fresh

    def overdue(self, after_s: float) -> list[One]:
        """Unknown for so long; each is returned once."""
        late = [one for one in self if one.unknown and not one.complained and one.age_s > after_s]
        for one in late:
            one.complained = True
        return late

    def of(self, symbol: str, older_s: float) -> list[One]:
        """Those of a symbol that have waited so long, or are unknown."""
        return [one for one in self if one.act.symbol == symbol and (one.unknown or one.age_s >= older_s)]

    def judge(self, one: One, standing: Standing, lockstep: bool) -> str:
        """What the venue's answer means: `kept` (its report will come), `again` (it never arrived, send it), `late` (it never did, and is
        not wanted any more) or nothing (answered meanwhile). At a venue that waits for us nothing is ever late."""
        if self.acts.get(one.key) is not one:
            return ""
        has, act = standing.asked[one.order_id], one.act
        one.unknown = False
        if isinstance(act, Cancel):
            if has in ("open", "pending"):
                return "again"
            if has != "cancelling":
                del self.acts[one.key]
            return "kept"
        if has:
            return "kept"
        if act.cause == ENTRY and not lockstep and (0 < act.expires_ms <= standing.ts_ms or (False, act.id) in self.acts):
            del self.acts[one.key]
            self.acts.pop((False, act.id), None)
            return "late"
        return "again"
