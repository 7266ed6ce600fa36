"""From an order to the arm that shaped it and back: choose, wait, be paid once.

`choose` changes nothing; `sent` says that the order went out; `ended` and `expire` bring rewards home and let the bandit learn. All
state is one struct, changed by these calls alone, so that it can stand in the Desk's snapshot. The two switches (a bandit or one fixed
arm; order ids or symbol and time) choose functions once.
"""
from collections.abc import Mapping

import msgspec

from engine.rewards import arms as a
from engine.rewards.bandit import Bandit, BanditState, Draw
from engine.rewards.context import DIMENSION, SCHEMA
from engine.rewards.queue import (
    EXPIRED,
    Match,
    Matcher,
    Miss,
    Pending,
    PendingSelectionQueue,
    by_order_id,
    by_symbol_and_time,
)
from engine.rewards.reward import FORMS, Ended
from engine.settings import BanditSettings, Flags, RewardSettings


class Choice(msgspec.Struct, frozen=True, tag="choice"):
    """The arm of one order, and all that an off-policy value needs to know of the draw."""
    order_id: str
    symbol: str
    arm: str
    propensity: float
    expected: float
    regret: float
    context: list[float]
    ts_ms: int


class Attributed(msgspec.Struct, frozen=True, tag="attributed"):
    """A reward and whose it is: one row of the log that off-policy values are computed from (`docs/rewards.md`).

    `reward` is realised, in [−1, 1]; `learned` what the bandit took after blending, None where it refused the row.
    """
    order_id: str
    symbol: str
    arm: str
    propensity: float
    context: list[float]
    reward: float
    learned: float | None
    expected: float
    mode: str
    filled: bool
    created_ms: int
    ts_ms: int


class Missed(msgspec.Struct, frozen=True, tag="missed"):
    """An outcome that nobody is paid for."""
    order_id: str
    symbol: str
    reason: str
    numbers: str
    ts_ms: int


class RewardState(msgspec.Struct):
    """What waits and what was learned."""
    queue: PendingSelectionQueue
    bandit: BanditState


class Rewards:
    """One desk's attribution; `arms` holds what the ids mean."""

    def __init__(self, rewards: RewardSettings, bandit: BanditSettings, flags: Flags):
        self.settings = rewards
        self.arms: Mapping[str, a.Arm] = a.table(bandit.arms)
        self.fixed = a.arm(bandit.arm)
        if self.fixed.id not in self.arms:
            raise ValueError(f"bandit.arm: {bandit.arm!r} is not one of {', '.join(self.arms)}")
        self.bandit = Bandit(bandit, SCHEMA, DIMENSION)
        self.queue = PendingSelectionQueue(rewards.max_pending)
        self.match: Matcher = by_order_id if flags.orderIdRewardMatching else by_symbol_and_time
        self.draw = self.bandit.choose if bandit.enabled else self._always
        self.reward = FORMS[rewards.form]

    @property
    def state(self) -> RewardState:
        """To be kept; `restore` of it goes on byte for byte."""
        return RewardState(self.queue, self.bandit.state)

    def restore(self, state: RewardState) -> None:
        """Goes on from there; the bound of the queue is today's."""
        self.queue, self.queue.most = state.queue, self.settings.max_pending
        self.bandit.restore(state.bandit)

    def _always(self, order_id: str, x: list[float]) -> Draw:
        return Draw(self.fixed.id, 1.0, self.bandit.state.arms[self.fixed.id].ridge.mean(x) if len(x) == DIMENSION else 0.0, 0.0)

    def choose(self, order_id: str, symbol: str, context: list[float], ts_ms: int) -> Choice:
        """The arm for this order at market time `ts_ms`; `context` as `engine.rewards.context.context_of` makes it."""
        draw = self.draw(order_id, context)
        return Choice(order_id, symbol, draw.arm, draw.propensity, draw.expected, draw.regret, context, ts_ms)

    def sent(self, choice: Choice) -> Miss | None:
        """The order went out: it waits for its reward from now on. A refusal where its id waits already, or too many do."""
        c = choice
        refused = self.queue.put(Pending(c.order_id, c.symbol, c.arm, c.context, c.propensity, c.expected, c.ts_ms))
        if refused is None:
            self.bandit.counted(Draw(c.arm, c.propensity, c.expected, c.regret))
        return refused

    def ended(self, ended: Ended) -> Attributed | Missed:
        """The end of an order, be it all, part or nothing filled. To be told once an order, when no fill of it can follow."""
        found = self.match(self.queue, ended.order_id, ended.symbol, ended.ts_ms, self.settings.jitter_ms)
        if isinstance(found, Miss):
            return Missed(ended.order_id, ended.symbol, found.reason, found.numbers, ended.ts_ms)
        return self._paid(found, ended)

    def expire(self, now_ms: int) -> list[Attributed]:
        """Choices whose outcome never came count as unfilled.

        To be asked at decisions and outcomes, not once a frame: else what is learned before a choice would depend on how market events
        are cut into frames.
        """
        return [self._paid(Match(EXPIRED, p), Ended(p.order_id, p.symbol, now_ms, 1.0))
                for p in self.queue.expired(now_ms, self.settings.pending_expiry_ms)]

    def _paid(self, match: Match, ended: Ended) -> Attributed:
        p, realised = match.pending, self.reward(ended, self.settings)
        learned = self.bandit.learn(p.arm, p.context, realised, p.expected, p.created_ms)
        return Attributed(p.order_id, p.symbol, p.arm, p.propensity, p.context, realised, learned, p.expected, match.mode,
                          ended.filled_usd > 0, p.created_ms, ended.ts_ms)
