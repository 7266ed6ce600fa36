"""The messages on the wire: frozen, tagged, told apart by their class.

A fact's id is a pure function of its cause (symbol, session, time, side), never of a frame or an offset, and its
`ts_ms` is *market* time, given by the shell at ingress. Each stage wraps the fact before it (`scored.signal`,
`decision.scored`, `order.decision`), so that any row can answer why. Prices are in quote currency and quantities in
base units unless a name says ticks or lots; money is USD.
"""
from collections.abc import Iterable

import msgspec
import numpy as np

from engine.rewards.attribution import Attributed, Choice, Missed
from engine.sizing.size import Sized

BUY, SELL = "BUY", "SELL"
LONG, SHORT = "long", "short"
BOOK, TRADE = 0, 1
DEPTH = 10
MAX_INT32 = 2**31 - 1


def direction(side: str) -> str:
    """The position that an order of this side opens.

    >>> direction("BUY")
    'long'
    """
    return LONG if side == BUY else SHORT


def opposite(side: str) -> str:
    """The side that closes what `side` opened."""
    return SELL if side == BUY else BUY


class Frame(msgspec.Struct, frozen=True, gc=False, tag="frame"):
    """Market events of one symbol as columns; how many travel together is transport, and no decision depends on it.

    `ts` int64[n], market time in ms, never decreasing; `kind` uint8[n], BOOK or TRADE; `books` int32[n_books, 4, DEPTH]:
    bid prices (ticks), bid sizes (lots), ask prices, ask sizes, best level first, an absent level is 0 with size 0;
    `trades` int32[n_trades, 3]: price (ticks), size (lots), aggressor (+1 bought, -1 sold). All little-endian.
    `seq` numbers the first event within the session; `sent_ms` is the wall clock at ingress, for latency figures only;
    `skipped` are the event numbers right before it that were refused on the way in, so that they are not taken for lost.
    """
    symbol: str
    session: str
    seq: int
    tick: float
    lot: float
    ts: bytes
    kind: bytes
    books: bytes
    trades: bytes
    sent_ms: float = 0.0
    skipped: int = 0

    @property
    def n(self) -> int:
        """How many events it carries."""
        return len(self.kind)

    @property
    def times(self) -> np.ndarray:
        """int64[n]: market time of each event in ms."""
        return np.frombuffer(self.ts, np.int64)

    @property
    def kinds(self) -> np.ndarray:
        """uint8[n]: BOOK or TRADE."""
        return np.frombuffer(self.kind, np.uint8)

    @property
    def book_rows(self) -> np.ndarray:
        """int32[n_books, 4, DEPTH]: bid ticks, bid lots, ask ticks, ask lots."""
        return np.frombuffer(self.books, np.int32).reshape(-1, 4, DEPTH)

    @property
    def trade_rows(self) -> np.ndarray:
        """int32[n_trades, 3]: ticks, lots, aggressor."""
        return np.frombuffer(self.trades, np.int32).reshape(-1, 3)


def frame_of(symbol: str, session: str, seq: int, tick: float, lot: float, ts, kind, books, trades, sent_ms: float = 0.0) -> Frame:
    """A frame from arrays of the shapes that `Frame` names; types are cast, contiguity is made."""
    def packed(a, dtype) -> bytes:
        return np.ascontiguousarray(a, dtype).tobytes()
    return Frame(symbol, session, int(seq), float(tick), float(lot), packed(ts, np.int64), packed(kind, np.uint8),
                 packed(books, np.int32), packed(trades, np.int32), sent_ms)


def cut(frame: Frame, first: int, last: int) -> Frame:
    """Events `first` to `last` (exclusive) as a frame of their own."""
    kinds = frame.kinds
    b0, b1 = int(np.count_nonzero(kinds[:first] == BOOK)), int(np.count_nonzero(kinds[:last] == BOOK))
    t0, t1 = first - b0, last - b1
    row = 4 * DEPTH * 4
    return Frame(frame.symbol, frame.session, frame.seq + first, frame.tick, frame.lot, frame.ts[8 * first:8 * last],
                 frame.kind[first:last], frame.books[row * b0:row * b1], frame.trades[12 * t0:12 * t1], frame.sent_ms,
                 0 if first else frame.skipped)


def join(frames: list[Frame]) -> Frame:
    """Frames of one symbol and session that follow each other, as one; `ValueError` where one is missing."""
    head, due = frames[0], frames[0].seq
    for frame in frames:
        if (frame.symbol, frame.session, frame.seq) != (head.symbol, head.session, due):
            raise ValueError(f"{frame.symbol} {frame.session}: event {frame.seq} follows, {due} was due")
        due += frame.n
    return Frame(head.symbol, head.session, head.seq, head.tick, head.lot, b"".join(f.ts for f in frames),
                 b"".join(f.kind for f in frames), b"".join(f.books for f in frames), b"".join(f.trades for f in frames),
                 frames[-1].sent_ms)


class Candidate(msgspec.Struct, frozen=True, gc=False, tag="candidate", array_like=True):
    """A trigger fired: this side, from this entry to this target or stop. `features` is float32[F] of the declared list.

    What stood around it, in lots: at the best bid and ask, and in the first levels of each side (`gates.liquidity_by_side.levels`); and
    how many trades there were in the last minute (`windows.sigma_ms`). Features are ratios, so that a model can serve any symbol; sizes
    need the thing itself.
    """
    id: str
    symbol: str
    ts_ms: int
    side: str
    entry: float
    stop: float
    target: float
    regime: str
    trigger: str
    schema_hash: str
    features: bytes
    seq: int = 0     # the number of the event that fired it, within the session
    bid_lots: int = 0
    bid_depth: int = 0
    ask_lots: int = 0
    ask_depth: int = 0
    trades: int = 0


def candidate_id(symbol: str, session: str, ts_ms: int, side: str) -> str:
    """At most one candidate a symbol, millisecond and side; 36 characters at most with a session of six.

    >>> candidate_id("BTCUSDT", "s1", 1767654887210, "BUY")
    'BTCUSDT-s1-1767654887210-B'
    """
    return f"{symbol}-{session}-{ts_ms}-{side[0]}"


class Candidates(msgspec.Struct, frozen=True, gc=False, tag="candidates"):
    """What the signal engine says to one frame, be it nothing."""
    symbol: str
    session: str
    seq: int
    n: int
    ts_ms: int
    sent_ms: float
    items: list[Candidate]


class Scored(msgspec.Struct, frozen=True, gc=False, tag="scored", array_like=True):
    """A candidate with the calibrated probability that its target is reached before its stop."""
    signal: Candidate
    p: float
    model_id: str
    tau_entry: float
    tau_hold: float
    shadow_p: float | None = None
    shadow_id: str = ""


class ScoredBatch(msgspec.Struct, frozen=True, gc=False, tag="scored_batch"):
    """What the scorer says to one frame, be it nothing."""
    symbol: str
    session: str
    seq: int
    n: int
    ts_ms: int
    sent_ms: float
    items: list[Scored]


class Market(msgspec.Struct, frozen=True, gc=False, tag="market"):
    """The Desk's view of a stretch of market: touch by book event, and the near depth at its end.

    `ts` int64[k], `bid` and `ask` int32[k] in ticks; `bid_depth`, `ask_depth` the lots of the first three levels of the
    last book; `upto_ms` the time of the last event, book or not. k may be 0 (trades only).
    """
    symbol: str
    session: str
    seq: int
    n: int
    upto_ms: int
    tick: float
    lot: float
    ts: bytes
    bid: bytes
    ask: bytes
    bid_depth: int
    ask_depth: int
    sent_ms: float = 0.0


def market_of(frame: Frame, levels: int = 3) -> Market:
    """The summary of a frame that the Desk reads."""
    rows, times = frame.book_rows, frame.times
    ts = times[frame.kinds == BOOK]
    depth = (int(rows[-1, 1, :levels].sum()), int(rows[-1, 3, :levels].sum())) if len(rows) else (0, 0)
    return Market(frame.symbol, frame.session, frame.seq, frame.n, int(times[-1]), frame.tick, frame.lot, ts.tobytes(),
                  rows[:, 0, 0].tobytes(), rows[:, 2, 0].tobytes(), *depth, frame.sent_ms)


class Decision(msgspec.Struct, frozen=True, gc=False, tag="decision"):
    """A yes, with what was decided and why; `cap` names the limit that bound the size."""
    id: str
    scored: Scored
    decision: str
    reason: str
    margin_usd: float
    cap: str
    qty: float
    price: float
    leverage: float
    route: str
    epoch: int
    ts_ms: int
    wanted_usd: float = 0.0      # notional, before the arm took its part
    choice: Choice | None = None
    sized: Sized | None = None
    rungs: tuple[tuple[int, int, int, float], ...] = ()      # of the ladder: level, ticks, lots, fill probability
    gate: str = ""               # what the fill-probability gate said: verdict and numbers; "" where it had nothing to judge by


class Dropped(msgspec.Struct, frozen=True, gc=False, tag="dropped"):
    """A no is a value: the coded reason, and the numbers that made it."""
    id: str
    scored: Scored
    reason: str
    numbers: str
    ts_ms: int


MAIN, TWIN = "", "twin"      # the account that trades, and the paper account beside a real one


def account_of(order_id: str) -> str:
    """Whose order this is: entries are `E-…` and exits `X1-…`, on the paper account beside a real one `T-…` and `Y1-…`; what a
    person wrote off is `W-…` and `V-…`.

    >>> account_of("E-BTCUSDT-s1-1767654887210-B"), account_of("Y2-BTCUSDT-s1-1767654887210-B")
    ('', 'twin')
    """
    return TWIN if order_id[:1] in ("T", "Y", "V") else MAIN


ENTRY, TARGET, STOP, TIME, HOLD, HALT, WRITTEN_OFF = "entry", "target", "stop", "time", "hold", "halt", "written_off"
CAUSES = (ENTRY, TARGET, STOP, TIME, HOLD, HALT, WRITTEN_OFF)
LIMIT, MARKET = "limit", "market"


class Order(msgspec.Struct, frozen=True, gc=False, tag="order"):
    """What the executor shall have done. `entry_id` is the entry's order id, its own for an entry.

    `price` 0 for a market order. `expires_ms` 0: the Desk decides when it is cancelled; else the Desk cancels it then.
    """
    id: str
    cause: str
    entry_id: str
    symbol: str
    side: str
    qty: float
    price: float
    kind: str
    post_only: bool
    reduce_only: bool
    route: str
    epoch: int
    ts_ms: int
    expires_ms: int = 0
    decision: Decision | None = None


class Cancel(msgspec.Struct, frozen=True, gc=False, tag="cancel"):
    """Take this order back."""
    order_id: str
    symbol: str
    ts_ms: int
    reason: str


class Approved(msgspec.Struct, frozen=True, gc=False, tag="approved"):
    """What the risk service says to one stretch of market: orders and cancels, and how far the Desk has thought.

    `upto_ms`: no order of an earlier time will follow for this symbol. `seen`: the last venue sequence number consumed.
    """
    symbol: str
    session: str
    upto_ms: int
    seen: int
    sent_ms: float
    orders: list[Order]
    cancels: list[Cancel]
    turns: str = ""      # the order in which they were decided: o for the next order, c for the next cancel

    def acts(self) -> list[Order | Cancel]:
        """Orders and cancels as they were decided; the venue hears them so."""
        orders, cancels = iter(self.orders), iter(self.cancels)
        return [next(orders) if turn == "o" else next(cancels) for turn in self.turns]


class DroppedBatch(msgspec.Struct, frozen=True, gc=False, tag="dropped_batch"):
    """The refusals of one stretch of market."""
    symbol: str
    session: str
    ts_ms: int
    items: list[Dropped]


ACCEPTED, REJECTED, CANCELLED, UNKNOWN, DONE = "accepted", "rejected", "cancelled", "unknown", "filled"
STATUSES = (ACCEPTED, REJECTED, CANCELLED, UNKNOWN, DONE)


class Report(msgspec.Struct, frozen=True, gc=False, tag="report"):
    """What became of an order at the venue; `seq` is the venue's number for it, `filled` the quantity filled so far."""
    order_id: str
    symbol: str
    status: str
    reason: str
    filled: float
    seq: int
    ts_ms: int


class Fill(msgspec.Struct, frozen=True, gc=False, tag="fill"):
    """What the venue did with (part of) an order. `id` is the venue's execution id; `fee_usd` positive when paid."""
    id: str
    order_id: str
    symbol: str
    side: str
    price: float
    qty: float
    fee_usd: float
    maker: bool
    seq: int
    ts_ms: int


class Reports(msgspec.Struct, frozen=True, gc=False, tag="reports"):
    """Reports of one symbol. `upto_ms`, `upto_seq`: what happened before that market time has venue numbers up to this one."""
    symbol: str
    session: str
    upto_ms: int
    upto_seq: int
    sent_ms: float
    items: list[Report]
    markets: dict[str, int] = {}     # the session's symbols; the time of the last event where a market is over, else 0
    journal: str = ""                # the venue's memory that the numbers belong to


class Fills(msgspec.Struct, frozen=True, gc=False, tag="fills"):
    """Fills of one symbol; `journal` as in `Reports`."""
    symbol: str
    session: str
    sent_ms: float
    items: list[Fill]
    journal: str = ""


class Standing(msgspec.Struct, frozen=True, gc=False, tag="standing"):
    """What the venue says stands after its number `seq` of this symbol: position (signed, base units), average price, the result
    after fees, and the orders that rest with their unfilled quantity. `journal` names the memory that the number belongs to.

    `asked` answers for single orders: `pending` (taken, not yet in the book), `open`, `cancelling`, `ended`; "" where the venue
    never had it.
    """
    symbol: str
    journal: str
    seq: int
    ts_ms: int
    position: float
    average: float
    realized_usd: float
    fees_usd: float
    open_orders: dict[str, float] = {}
    asked: dict[str, str] = {}
    twin: tuple[float, float, float] = (0.0, 0.0, 0.0)     # position, average and result of the paper account beside a real one


class Outcome(msgspec.Struct, frozen=True, gc=False, tag="outcome"):
    """An entry that is closed: what it paid, what it brought, and how it ended."""
    id: str
    symbol: str
    side: str
    regime: str
    model_id: str
    p: float
    qty: float
    entry_price: float
    exit_price: float
    gross_usd: float
    fees_usd: float
    net_usd: float
    cause: str
    route: str
    opened_ms: int
    closed_ms: int


class WrittenOff(msgspec.Struct, frozen=True, gc=False, tag="written_off"):
    """A level of an entry that left the books by a person's word, by the control `control`: no order was sent, and nothing was traded.

    The books take it as `order` with the one execution `fill`, so that the entry's result and the position follow. `qty` is what the level
    held, 0 where it held nothing; `id` is `W-…`, on the paper account `V-…`; `plan` the entry that the level belongs to.
    """
    id: str
    entry: str
    plan: str
    symbol: str
    side: str
    qty: float
    price: float
    route: str
    epoch: int
    ts_ms: int
    control: str
    actor: str
    reason: str

    @property
    def order(self) -> Order:
        """What the books have it as; it goes to nobody."""
        return Order(self.id, WRITTEN_OFF, self.plan, self.symbol, self.side, self.qty, self.price, LIMIT, False, True, self.route,
                     self.epoch, self.ts_ms)

    @property
    def fill(self) -> Fill | None:
        """The execution at the price that was named, its id the control's; None where nothing was held."""
        return Fill(self.control, self.id, self.symbol, self.side, self.price, self.qty, 0.0, True, 0, self.ts_ms) if self.qty > 0 else None


class Rewarded(msgspec.Struct, frozen=True, gc=False, tag="rewarded"):
    """Rewards that came home in one stretch, and outcomes that nobody is paid for."""
    symbol: str
    session: str
    items: list[Attributed | Missed]


class Outcomes(msgspec.Struct, frozen=True, gc=False, tag="outcomes", omit_defaults=True):
    """Entries closed in one stretch, and what left the books by a person's word: never among orders, which an executor takes."""
    symbol: str
    session: str
    items: list[Outcome]
    written_off: list[WrittenOff] = []


KILL, RELEASE, WRITE_OFF, MODE_SWITCH, HEALTH, CRIT = "KILL", "RELEASE", "WRITE_OFF", "MODE_SWITCH", "HEALTH", "CRIT"
GATING, SETTINGS = "GATING", "SETTINGS"


def releasing(kills: Iterable[str]) -> dict[str, str]:
    """The details of a RELEASE of these."""
    return {"kills": msgspec.json.encode([*kills]).decode()}


class Control(msgspec.Struct, frozen=True, gc=False, tag="control"):
    """A change to the desk, by whom and why; `details` holds the kind's own values as text.

    A KILL of the reconciler's: `differences`, what it found. A RELEASE: `kills`, a JSON list of the ids that it ends. A WRITE_OFF: `entry`
    and the `price` at which it leaves the books. A GATING: `gating`, what a start found for the fill-probability gate (`Gating`, JSON).
    SETTINGS: `mind`, those of this start (`Wired`, JSON). MODE_SWITCH: `mode`, paper or full.
    """
    id: str
    kind: str
    actor: str
    reason: str
    epoch: int
    ts_ms: int          # market time; 0: not known to who wrote it, and set by the desk's host
    details: dict[str, str] = {}

    @property
    def word(self) -> str:
        """Who halted the desk and why."""
        return f"killed by {self.actor}: {self.reason}"

    @property
    def kills(self) -> list[str]:
        """The KILLs that this RELEASE ends; whoever wrote it has seen those and no others."""
        try:
            return msgspec.json.decode(self.details.get("kills", "[]"), type=list[str]) if self.kind == RELEASE else []
        except msgspec.MsgspecError:
            return []       # a release that cannot be read ends nothing


class Tick(msgspec.Struct, frozen=True, gc=False, tag="tick"):
    """Time passed, also where no market event came."""
    ts_ms: int


Fact = (Frame | Candidate | Candidates | Scored | ScoredBatch | Market | Decision | Dropped | Order | Cancel | Approved | DroppedBatch
        | Report | Fill | Reports | Fills | Standing | Outcome | WrittenOff | Outcomes | Rewarded | Control
        | Tick)
# array_like and mapping structs cannot share one tagged union: what travels inside others stays out of the wire's union
Record = (Frame | Candidates | ScoredBatch | Market | Approved | DroppedBatch | Reports | Fills | Standing | Outcomes | Rewarded
          | Control | Tick)
Consumed = Market | ScoredBatch | Report | Fill | Control | Tick
