"""The map: every topic, its key, who writes and who reads it."""
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True)
class Topic:
    """One log. `by_symbol`: its symbols are spread over `kafka.partitions`; else it is one partition, whose order is kept whole."""
    name: str
    writer: str
    readers: tuple[str, ...]
    what: str
    by_symbol: bool = True
    compact: bool = False      # keeps the last record of each key, for ever

    def __str__(self) -> str:
        return self.name


MD_FRAMES = Topic("md.frames", "collector", ("signal_engine", "risk", "executor"), "market events, framed, key symbol")
SIG_CANDIDATES = Topic("sig.candidates", "signal_engine", ("ai_scorer",), "what the triggers propose, one record a frame")
SIG_SCORED = Topic("sig.scored", "ai_scorer", ("risk",), "candidates with probabilities, one record a frame")
SIG_APPROVED = Topic("sig.approved", "risk", ("executor",), "orders and cancels, and how far the Desk has thought", by_symbol=False)
SIG_DROPPED = Topic("sig.dropped", "risk", ("supervisor",), "refusals with their numbers", by_symbol=False)
EXEC_REPORTS = Topic("exec.reports", "executor", ("risk",), "accepted, rejected, cancelled, unknown, filled", by_symbol=False)
EXEC_FILLS = Topic("exec.fills", "executor", ("risk",), "executions", by_symbol=False)
EXEC_OUTCOMES = Topic("exec.outcomes", "risk", ("supervisor",), "closed entries with their result", by_symbol=False)
EXEC_REWARDS = Topic("exec.rewards", "risk", ("supervisor",), "what orders were worth to the arms that shaped them", by_symbol=False)
CONTROL_EVENTS = Topic("control.events", "supervisor", ("collector", "risk", "executor"), "kill, release, mode, health", by_symbol=False)
STATE_SIGNALS = Topic("state.signal_engine", "signal_engine", ("signal_engine",), "marks and windows, where its partitions are shared",
                      compact=True)
STATE_SCORES = Topic("state.ai_scorer", "ai_scorer", ("ai_scorer",), "marks, where its partitions are shared", compact=True)

TOPICS = (MD_FRAMES, SIG_CANDIDATES, SIG_SCORED, SIG_APPROVED, SIG_DROPPED, EXEC_REPORTS, EXEC_FILLS, EXEC_OUTCOMES, EXEC_REWARDS,
          CONTROL_EVENTS, STATE_SIGNALS, STATE_SCORES)

SHARED = ("signal_engine", "ai_scorer")     # stages whose workers may share partitions


class Names(Protocol):
    """The settings that name logs: who we are, and which market we share."""
    @property
    def instance(self) -> str: ...
    @property
    def feed(self) -> str: ...


def named(topic: Topic, names: Names) -> str:
    """The topic's name on the broker: `md.frames` by its feed, which instances share; all others by instance (DECISIONS, 21)."""
    prefix = names.feed if topic is MD_FRAMES else names.instance
    return f"{prefix}.{topic.name}" if prefix else topic.name


def group(stage: str, names: Names) -> str:
    """The Kafka group of a stage's workers."""
    return f"sluice-{names.instance}{stage}"
