"""A ledger that a real desk has written, transaction by transaction, and its projections: what the console reads."""
import msgspec
from builders import SYMBOL, book, scored, shipped
from street import Silent

from config.settings import Settings
from engine.execution.ladder import entry_of
from engine.facts import ACCEPTED, DONE, Control, Fill, Order, Outcome, Report, ScoredBatch
from engine.telemetry import Telemetry
from store.ledger import Ledger
from store.projections import Projector
from streams.host import DeskHost

T = 1_767_690_000_000


def levelled(real: bool = False, **env: str) -> Settings:
    """The shipped settings as a test of pages wants them: four levels, no warm-up, no cooldown; on request a real venue's."""
    s, but = shipped(POLICY_COOLDOWN_SYMBOL="0", POLICY_COOLDOWN_GLOBAL="0", **env), msgspec.structs.replace
    s = but(s, warmup=but(s.warmup, enabled=False), ladder=but(s.ladder, min_fill_probability=0.0))
    return but(s, venue=but(s.venue, mode="real"), rollout=but(s.rollout, mode="full")) if real else s


class Written:
    """A desk whose every fact is a transaction of its ledger."""

    def __init__(self, url: str, settings: Settings):
        self.url, self.settings, self.ledger = url, settings, Ledger(url, "risk", "OFF" if url.startswith("sqlite") else "NORMAL")
        self.host = DeskHost(settings, self.ledger, Telemetry(Silent()), False)  # type: ignore[arg-type]
        self.seq, self.now = 0, T

    @property
    def desk(self):
        return self.host.desk

    def tell(self, *facts) -> list:
        """One transaction; what the desk answered."""
        outs = [out for fact in facts for out in self.desk.on(fact)]
        self.host.commit(list(facts), self.host.produce(list(facts), outs, 0.0), {})
        return outs

    def market(self, bid: float = 60_000.0, ask: float = 60_000.1, later_ms: int = 100) -> list:
        """The next book."""
        self.now += later_ms
        return self.tell(book(bid, ask, self.now))

    def signal(self, p: float = 0.9, **more) -> list:
        """A scored candidate at this book."""
        one = scored(self.now, p, **more)
        return self.tell(ScoredBatch(one.signal.symbol, "t1", 0, 1, self.now, 0.0, [one]))

    def accepted(self, *orders: Order) -> None:
        """The venue takes them."""
        for order in orders:
            self.seq += 1
            self.tell(Report(order.id, order.symbol, ACCEPTED, "", 0.0, self.seq, self.now))

    def filled(self, order: Order, qty: float = 0.0, price: float = 0.0) -> list:
        """(Part of) an order is filled; the whole ends it."""
        qty, self.seq = qty or order.qty, self.seq + 2
        outs = self.tell(Fill(f"f{self.seq}", order.id, order.symbol, order.side, price or order.price or 60_000.0, qty,
                              qty * 6.0, True, self.seq - 1, self.now))
        if qty >= order.qty:
            outs += self.tell(Report(order.id, order.symbol, DONE, "", order.qty, self.seq, self.now))
        return outs

    def enter(self, **more) -> list[Order]:
        """A signal that enters; its orders, taken by the venue, best level first and twins last."""
        orders = [o for o in self.signal(**more) if isinstance(o, Order)]
        self.accepted(*orders)
        return orders

    def round_trip(self, **more) -> list[Outcome]:
        """An entry that is filled at every level, twins' too, and closed at its targets."""
        exits = [o for order in self.enter(**more) for o in self.filled(order) if isinstance(o, Order)]
        return [out for order in exits for out in self.filled(order) if isinstance(out, Outcome)]

    def control(self, fact: Control) -> list:
        """A person's word."""
        return self.tell(fact)

    def projected(self) -> "Written":
        """The projections as far as the ledger."""
        projector = Projector(self.url)
        projector.run_once()
        projector.close()
        return self


__all__ = ["SYMBOL", "T", "Written", "entry_of", "levelled"]
