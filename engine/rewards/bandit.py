"""LinUCB over execution arms (Li, Chu, Langford & Schapire 2010), with the true probability of every draw.

The arm with the highest mean + α·√(xᵀ A⁻¹ x) is taken, equal ones with equal chance; with probability ε any arm, uniformly. So the
probability of a draw is ε/K, or that and (1 − ε) shared among the best: exact, and never below ε/K, which is what off-policy values
divide by (engine/rewards/ope.py). A softmax over the scores was rejected: its probabilities depend on a temperature that nobody can
set in units of reward, and on the last bit of `exp`. The draw is the first 8 bytes of sha256("{seed}:{order id}"), as the canary's
vote: equal facts give equal choices.
"""
import hashlib
from collections.abc import Mapping
from math import isfinite, sqrt

import msgspec

from engine.rewards.linear import Ridge, fresh
from engine.settings import BanditSettings


class Learned(msgspec.Struct):
    """What is known of an arm; sums of realised rewards, and of what its choices gave away by the estimate of their moment."""
    ridge: Ridge
    choices: int = 0
    rewards: int = 0
    reward_sum: float = 0.0
    regret: float = 0.0


class BanditState(msgspec.Struct):
    """All that a bandit remembers: `schema` says what the vectors mean; `refused` counts rows and arms of another dimension."""
    schema: str
    dimension: int
    arms: dict[str, Learned] = {}
    refused: int = 0
    upto_ms: int = 0        # when the last choice was made that it has learned from


class Draw(msgspec.Struct, frozen=True):
    """A choice: the arm, the probability with which it was drawn, its estimated mean, and what the best mean would give beyond it."""
    arm: str
    propensity: float
    expected: float
    regret: float


def vote(seed: int, order_id: str) -> float:
    """A number in [0, 1) that is a function of the two alone (DECISIONS, 22).

    >>> vote(1337, "sig-0")
    0.31895604849315473
    """
    return int.from_bytes(hashlib.sha256(f"{seed}:{order_id}".encode()).digest()[:8], "big") / 2**64


def drawn(propensities: Mapping[str, float], u: float) -> str:
    """The arm on whose stretch of [0, 1) the number `u` falls, in the order of the arms.

    >>> drawn({"a": 0.25, "b": 0.75}, 0.3)
    'b'
    """
    upto, last = 0.0, ""
    for last, p in propensities.items():
        upto += p
        if u < upto:
            return last
    return last


def adopted(state: BanditState, schema: str, d: int, arms: tuple[str, ...]) -> BanditState:
    """The state as these arms can use it: of another meaning or dimension nothing is kept, and counted; an arm that is not among them
    any more keeps what it learned, in case it comes back."""
    if state.schema != schema or state.dimension != d:
        state = BanditState(schema, d, {}, state.refused + len(state.arms))
    for name in [*state.arms]:
        ridge = state.arms[name].ridge
        if (len(ridge.b), len(ridge.a), len(ridge.inverse)) != (d, d * d, d * d):
            del state.arms[name]
            state.refused += 1
    for name in arms:
        if name not in state.arms:
            state.arms[name] = Learned(fresh(d))
    return state


class Bandit:
    """The state and how it is asked: `choose` and `counted` when an order is decided, `learn` when its reward is known."""

    def __init__(self, settings: BanditSettings, schema: str, dimension: int, state: BanditState | None = None):
        self.settings, self.schema, self.dimension = settings, schema, dimension
        self.names = tuple(settings.arms)
        self.alpha = sqrt(dimension) if settings.alpha is None else settings.alpha
        self.state = adopted(state or BanditState(schema, dimension), schema, dimension, self.names)

    def restore(self, state: BanditState) -> None:
        """Goes on from a state; what does not fit is not used, and counted."""
        self.state = adopted(state, self.schema, self.dimension, self.names)

    def scores(self, x: list[float]) -> dict[str, tuple[float, float]]:
        """By arm the estimated mean and the mean with its bonus. Changes nothing."""
        out = {}
        for name in self.names:
            mean, width = self.state.arms[name].ridge.estimate(x)
            out[name] = mean, mean + self.alpha * width
        return out

    def propensities(self, x: list[float]) -> dict[str, float]:
        """By arm the probability with which it would be drawn at x: ≥ ε/K, together 1. Changes nothing."""
        return self._shared({name: ucb for name, (_, ucb) in self.scores(x).items()})

    def greedy(self, x: list[float]) -> str:
        """The arm with the best estimated mean, the first on a tie: what the bandit would do if it stopped exploring."""
        means = {name: self.state.arms[name].ridge.mean(x) for name in self.names}
        return max(means, key=means.__getitem__)

    def _shared(self, ucb: dict[str, float]) -> dict[str, float]:
        most, epsilon = max(ucb.values()), self.settings.epsilon_floor
        best = sum(v == most for v in ucb.values())
        return {name: epsilon / len(ucb) + ((1.0 - epsilon) / best if v == most else 0.0) for name, v in ucb.items()}

    def choose(self, order_id: str, x: list[float]) -> Draw:
        """The arm of this order. Changes nothing; a context of another dimension is drawn for uniformly."""
        if len(x) != self.dimension:
            p = 1.0 / len(self.names)
            return Draw(drawn(dict.fromkeys(self.names, p), vote(self.settings.seed, order_id)), p, 0.0, 0.0)
        scores = self.scores(x)
        propensities = self._shared({name: ucb for name, (_, ucb) in scores.items()})
        name = drawn(propensities, vote(self.settings.seed, order_id))
        mean = scores[name][0]
        return Draw(name, propensities[name], mean, max(m for m, _ in scores.values()) - mean)

    def counted(self, draw: Draw) -> None:
        """The choice was used."""
        learned = self.state.arms[draw.arm]
        learned.choices += 1
        learned.regret += draw.regret

    def learn(self, arm: str, x: list[float], realised: float, expected: float, created_ms: int) -> float | None:
        """A reward of a choice made at `created_ms`: the value learned, blended with the estimate of that moment by `smoothing`.

        None, and counted, where the arm is unknown, the context has another dimension, or a number is none; nothing is learned then.
        """
        learned = self.state.arms.get(arm)
        if learned is None or len(x) != self.dimension or not isfinite(sum(x) + realised + expected):
            self.state.refused += 1
            return None
        s = self.settings.smoothing
        value = expected * s + realised * (1.0 - s) if 0 < s < 1 else realised
        learned.ridge.learn(x, value, self.settings.invert_every)
        learned.rewards += 1
        learned.reward_sum += realised
        self.state.upto_ms = max(self.state.upto_ms, created_ms)
        return value
