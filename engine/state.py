"""All that the Desk remembers: one struct, written whole into a snapshot, from which a restart goes on byte for byte."""
import msgspec

from engine.execution.admission import Pressure, Safe, Warmth
from engine.facts import MAIN
from engine.fillprob.gate import GateState, Gating
from engine.portfolio import Portfolio
from engine.rewards.attribution import RewardState
from engine.watch import Watch

DAY_MS = 86_400_000
PAPER, FULL = "paper", "full"       # modes: nothing real, everything real; which signals of a canary are real is rollout's to say


class Touch(msgspec.Struct):
    """The last known best prices of a symbol, in ticks."""

    bid: int
    ask: int
    ts_ms: int


class Spent(msgspec.Struct):
    """Margin of the entries sent on a UTC day."""
    day: int = -1
    usd: float = 0.0


class State(msgspec.Struct):
    """All that the Desk remembers. `twins` are the books of the paper account beside a real one; empty on paper."""

    portfolio: Portfolio
    twins: Portfolio
    rewards: RewardState
    touches: dict[str, Touch] = {}
    now_ms: int = 0
    epoch: int = 0
    mode: str = PAPER
    controls: dict[str, None] = {}     # ids of the last that acted
    kills: dict[str, str] = {}         # by id those that stand, with who and why
    watch: Watch = msgspec.field(default_factory=Watch)
    warmth: Warmth = msgspec.field(default_factory=Warmth)
    pressure: Pressure = msgspec.field(default_factory=Pressure)
    safe: Safe = msgspec.field(default_factory=Safe)
    spent: Spent = msgspec.field(default_factory=Spent)
    paper_spent: Spent = msgspec.field(default_factory=Spent)      # by the paper account beside a real one
    mind: bytes = b""                  # the settings that the journal has last (`Wired`, JSON); empty: none, those of its maker
    gating: Gating | None = None       # by what the fill-probability gate judges, and what it remembers
    gate: GateState = msgspec.field(default_factory=GateState)

    @property
    def halted(self) -> str:
        """Who halted the desk and why; empty where no KILL stands."""
        if not self.kills:
            return ""
        first = next(iter(self.kills.values()))
        return first if len(self.kills) == 1 else f"{first} (and {len(self.kills) - 1} more)"

    def spent_on(self, day: int, account: str = MAIN) -> float:
        """Margin that the account has committed so far on that day."""
        spent = self.paper_spent if account else self.spent
        return spent.usd if spent.day == day else 0.0

    def spend(self, day: int, usd: float, account: str = MAIN) -> None:
        """An entry of the account commits so much margin."""
        spent = self.paper_spent if account else self.spent
        spent.day, spent.usd = day, round(self.spent_on(day, account) + usd, 6)
