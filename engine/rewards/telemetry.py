"""Choices and rewards move series, and say S0's debug line; what a host of the Desk calls with what was decided."""
from collections.abc import Callable, Iterable

from engine import metrics as m
from engine.rewards.attribution import Attributed, Choice, Missed, Rewards
from engine.rewards.queue import NOT_MATCHED, Miss


class RewardTelemetry:
    """Counts into a meter; `debug` takes one line for each outcome that nobody is paid for."""

    def __init__(self, meter: m.Meter, debug: Callable[[str], object] | None = None):
        self.meter, self.debug = meter, debug or (lambda line: None)

    def sent(self, choice: Choice, refused: Miss | None = None) -> None:
        """A choice went out with its order, or was refused a place in the queue."""
        if refused is None:
            self.meter.inc(m.BANDIT_CHOICES_TOTAL, arm=choice.arm)
            self.meter.observe(m.BANDIT_PROPENSITY, choice.propensity)
        else:
            self.meter.inc(m.REWARD_PENDING_REFUSED_TOTAL, reason=refused.reason)

    def said(self, outs: Iterable[Attributed | Missed]) -> None:
        """What became of outcomes and of choices that waited too long."""
        for out in outs:
            if isinstance(out, Attributed):
                self.meter.inc(m.REWARD_MATCH_TOTAL, mode=out.mode)
                if out.learned is not None:
                    self.meter.inc(m.BANDIT_REWARDS_TOTAL, arm=out.arm)
            else:
                self.meter.inc(m.REWARD_MATCH_MISS_TOTAL, reason=out.reason)
                self.debug(f"{NOT_MATCHED} | {out.symbol} | reason={out.reason} | {out.numbers}")

    def stands(self, rewards: Rewards) -> None:
        """What waits, and the sums of every configured arm as they stand, also after a restart."""
        self.meter.set(m.PENDING_SELECTIONS, len(rewards.queue))
        self.meter.set(m.BANDIT_REFUSED_ROWS, rewards.bandit.state.refused)
        for name in rewards.arms:
            learned = rewards.bandit.state.arms[name]
            self.meter.set(m.BANDIT_REWARD_SUM, learned.reward_sum, arm=name)
            self.meter.set(m.BANDIT_REGRET_ESTIMATE, learned.regret, arm=name)
