"""One market through the desk at each stage of S0's rollout, side by side: the same candidates and scores, everything after them apart.

What a stage plans depends on what it holds, and so on what it did before: beside the whole runs, the sizes that each stage would have given
to the first one's wishes are added up. That is the old against the new volume of the same entries, and nothing else.
"""
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import tee
from typing import TypeVar

import msgspec

from config.settings import Settings
from engine.facts import ENTRY, Candidate, Dropped, Frame, Order, Outcome, Scored, ScoredBatch
from engine.fillprob.gate import Gating
from engine.loop import Score, Signals
from engine.rewards.attribution import Attributed, Missed
from engine.settings import Flags, Instrument
from engine.sizing.size import Sized, Sizer, Wish
from store.closed import Closed
from store.scorer import Scorer

SEQUENCE = ("000", "100", "110", "111")
STRIDE = 512             # facts that a stage goes ahead before the one that is furthest behind has its turn
CURVE_MS = 600_000       # of market time between two points of a curve
MARKET_MS = 60_000       # between two words of progress


def flags_of(digits: str) -> Flags:
    """Three digits as switches.

    >>> flags_of("110")
    Flags(flowCapRewrite=True, constrainedRiskScaling=True, orderIdRewardMatching=False)
    """
    return Flags(*(digit == "1" for digit in digits))


def admitting(settings: Settings, p: float) -> Settings:
    """The settings with S4's least confidence at `p`."""
    return msgspec.structs.replace(settings, policy=msgspec.structs.replace(settings.policy, min_confidence=p))


def lowered(score: Score, entry: float) -> Score:
    """Scores whose model lets in from `entry` on, and holds in proportion."""
    def of(candidates: list[Candidate]) -> list[Scored]:
        return [msgspec.structs.replace(s, tau_entry=min(s.tau_entry, entry), tau_hold=s.tau_hold * min(1.0, entry / s.tau_entry))
                if s.tau_entry > 0 else s for s in score(candidates)]
    return of


class Shared:
    """A symbol's candidates and scores, found once and handed to `readers` roads that take the same frames one by one."""

    def __init__(self, signals: Signals, score: Score, readers: int):
        self.signals, self._score, self.readers = signals, score, readers
        self.found: dict[int, tuple[int, list[Candidate], list[Scored]]] = {}
        self.asked: list[Scored] = []

    def on(self, frame: Frame) -> list[Candidate]:
        """The frame's candidates; each reader asks once."""
        if frame.seq not in self.found:
            candidates = self.signals.on(frame)
            self.found[frame.seq] = (self.readers, candidates, self._score(candidates) if candidates else [])
        left, candidates, self.asked = self.found[frame.seq]
        if left == 1:
            del self.found[frame.seq]
        else:
            self.found[frame.seq] = (left - 1, candidates, self.asked)
        return candidates

    def score(self, candidates: list[Candidate]) -> list[Scored]:
        """Those of the frame that was asked for last."""
        return self.asked


class Beside:
    """A sizer that also asks the others what they would have made of each wish."""

    def __init__(self, own: Sizer, others: dict[str, Sizer], same: dict[str, float]):
        self.own, self.others, self.same = own, others, same

    def size(self, wish: Wish, instrument: Instrument) -> Sized:
        """The own size; the others' notionals are added up."""
        for digits, other in self.others.items():
            self.same[digits] += other.size(wish, instrument).notional_usd
        return self.own.size(wish, instrument)


class Stage(msgspec.Struct):
    """What a stage came to. Money in USD; volumes are notionals.

    `planned`: of the sizes (`policy_plan_notional_usd_total`); `sent`: what the ladder left of them; `bought`: what was filled and
    closed. `same_wishes`: planned on the first stage's wishes. `caps`, `factors`, `refused`, `rewards`: how often each. `multipliers`:
    least, quarter, median and three quarters of the risk multiplier. `curve`: market ms, planned so far, net result so far.
    """
    digits: str
    candidates: int = 0
    sizings: int = 0
    entries: int = 0
    planned_usd: float = 0.0
    same_wishes_usd: float = 0.0
    sent_usd: float = 0.0
    bought_usd: float = 0.0
    trades: int = 0
    won: int = 0
    gross_usd: float = 0.0
    fees_usd: float = 0.0
    net_usd: float = 0.0
    caps: dict[str, int] = {}
    factors: dict[str, int] = {}
    multipliers: list[float] = []
    refused: dict[str, int] = {}
    rewards: dict[str, int] = {}
    missed: dict[str, int] = {}
    arms: dict[str, int] = {}
    curve: list[tuple[int, float, float]] = []


class Running:
    """A stage on its way."""

    def __init__(self, digits: str, closed: Closed):
        self.closed, self.steps = closed, iter(closed)
        self.told = Stage(digits)
        self.counts: dict[str, Counter[str]] = {name: Counter() for name in ("caps", "factors", "refused", "rewards", "missed", "arms")}
        self.multipliers: list[float] = []
        self.earned: list[Attributed] = []
        self.over = False

    @property
    def now_ms(self) -> int:
        """Market time that its desk has come to."""
        return self.closed.desk.state.now_ms

    def go(self, n: int) -> None:
        """Takes `n` facts, or what is left."""
        for _ in range(n):
            try:
                _, fact, outs = next(self.steps)
            except StopIteration:
                self.over = True
                break
            self.heard(fact, outs)

    def heard(self, fact, outs: list) -> None:
        """One fact and what the desk made of it."""
        told, counts = self.told, self.counts
        if isinstance(fact, ScoredBatch):
            told.candidates += len(fact.items)
        for _, sized in self.closed.desk.entering.drained():
            told.sizings += 1
            told.planned_usd += sized.notional_usd
            counts["caps"][sized.cap] += 1
            counts["factors"].update(sized.factors.keys())
            self.multipliers.append(sized.multiplier)
        for out in outs:
            if isinstance(out, Dropped):
                counts["refused"][out.reason] += 1
            elif isinstance(out, Order) and out.cause == ENTRY:
                told.sent_usd += out.qty * out.price
                if out.decision is not None:
                    told.entries += 1
            elif isinstance(out, Outcome):
                told.trades += 1
                told.won += out.net_usd > 0
                told.gross_usd += out.gross_usd
                told.fees_usd += out.fees_usd
                told.net_usd += out.net_usd
                told.bought_usd += out.qty * out.entry_price
            elif isinstance(out, Attributed):
                counts["rewards"][out.mode] += 1
                counts["arms"][out.arm] += 1
                self.earned.append(out)
            elif isinstance(out, Missed):
                counts["missed"][out.reason] += 1
        if not told.curve or self.now_ms - told.curve[-1][0] >= CURVE_MS:
            self.point()

    def point(self) -> None:
        """A point of the curve, where market time has gone on."""
        if not self.told.curve or self.now_ms > self.told.curve[-1][0]:
            self.told.curve.append((self.now_ms, round(self.told.planned_usd, 2), round(self.told.net_usd, 4)))

    def end(self, same_usd: float) -> Stage:
        """What it came to."""
        self.point()
        told, some = self.told, sorted(self.multipliers)
        told.multipliers = [round(some[int(q * (len(some) - 1))], 4) for q in (0.0, 0.25, 0.5, 0.75)] if some else []
        for name, count in self.counts.items():
            setattr(told, name, dict(count.most_common()))
        told.same_wishes_usd = same_usd
        return told


R = TypeVar("R", bound=Running)


def lined_up(variants: dict[str, Settings], scorer: Scorer, frames: dict[str, Iterator[Frame]],
             admit: float | None = None) -> list[Running]:
    """A desk for each of these settings, by name, over the same frames, candidates and scores.

    `admit`: probability from which candidates may enter, instead of S4's and the model's. What the signals depend on must not differ.
    """
    return abreast(Running, variants, scorer, frames, admit, {})


def abreast(kind: type[R], variants: dict[str, Settings], scorer: Scorer, frames: dict[str, Iterator[Frame]], admit: float | None,
            gates: Mapping[str, Gating | None]) -> list[R]:
    """The same, each watched by one of this kind; `gates`: by name, what its start finds for the fill-probability gate."""
    n = len(variants)
    copies = {symbol: tee(source, n) for symbol, source in frames.items()}
    running = [kind(name, Closed(settings if admit is None else admitting(settings, admit), scorer,
                                 {symbol: copies[symbol][i] for symbol in copies}, gating=gates.get(name)))
               for i, (name, settings) in enumerate(variants.items())]
    for symbol, road in running[0].closed.roads.items():
        shared = Shared(road.signals, road.score if admit is None else lowered(road.score, admit), n)
        for one in running:
            one.closed.roads[symbol].signals, one.closed.roads[symbol].score = shared, shared.score
    return running


def run_all(running: Sequence[Running], say: Callable[[int, list[Stage]], object] = lambda ms, stages: None) -> None:
    """All of them to the end, the one that is furthest behind first; `say` hears market time and how they stand, now and then."""
    said = 0
    while live := [r for r in running if not r.over]:
        behind = min(live, key=lambda r: r.now_ms)
        behind.go(STRIDE)
        if behind.now_ms - said >= MARKET_MS:
            said = behind.now_ms
            say(said, [r.told for r in running])


def compared(settings: Settings, scorer: Scorer, frames: dict[str, Iterator[Frame]], admit: float | None = None,
             say: Callable[[int, list[Stage]], object] = lambda ms, stages: None) -> list[Stage]:
    """Every stage over these frames; `admit` and `say` as above. Frames are read once and held only as far as stages are apart."""
    running = lined_up({digits: msgspec.structs.replace(settings, features=flags_of(digits)) for digits in SEQUENCE}, scorer, frames, admit)
    same = dict.fromkeys(SEQUENCE, 0.0)
    entering = running[0].closed.desk.entering
    entering.sizer = Beside(entering.sizer, {r.told.digits: r.closed.desk.entering.sizer for r in running}, same)  # type: ignore[assignment]
    run_all(running, say)
    return [r.end(same[r.told.digits]) for r in running]
