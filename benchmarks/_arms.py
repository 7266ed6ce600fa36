"""Worlds in which the worth of every arm in every context is known, and orders that come back late and out of turn."""
import heapq
from math import sqrt

import msgspec
import numpy as np

from config.settings import Settings
from engine.rewards import ope
from engine.rewards.attribution import Attributed, Missed, Rewards
from engine.rewards.context import DIMENSION
from engine.rewards.reward import Ended

NOISE = 0.4


class World:
    """Rewards are mean + uniform noise of ±0.4; a mean is the arm's own plus a linear part of the context, within ±0.6.

    Contexts are uniform on [0, 1] but for the constant first component, so that an arm's own mean is also its value. `gap`: how much
    the first arm is better on average; `slope`: how much of a mean, at most, the context decides.
    """

    def __init__(self, names: list[str], seed: int = 1, gap: float = 0.15, slope: float = 0.1):
        self.names, self.rng = list(names), np.random.default_rng(seed)
        k = len(self.names)
        self.own = self.rng.uniform(-0.2, 0.0, k)
        self.own[0] = self.own[1:].max() + gap
        parts = self.rng.uniform(-1, 1, (k, DIMENSION - 1))
        self.slopes = 2.0 * slope * parts / np.abs(parts).sum(axis=1, keepdims=True)

    def contexts(self, n: int, rng: np.random.Generator | None = None) -> np.ndarray:
        """float64[n, DIMENSION]."""
        out = (rng or self.rng).random((n, DIMENSION))
        out[:, 0] = 1.0
        return out

    def means(self, contexts: np.ndarray) -> np.ndarray:
        """float64[n, K]."""
        return self.own + (contexts[:, 1:] - 0.5) @ self.slopes.T

    def rewards(self, means: np.ndarray, rng: np.random.Generator | None = None) -> np.ndarray:
        """One realisation of these means."""
        return means + (rng or self.rng).uniform(-NOISE, NOISE, means.shape)


Life = tuple[Rewards, list[Attributed], np.ndarray]


def lived(world: World, settings: Settings, rounds: int, seed: int = 7, late: int = 40, **bandit) -> Life:
    """`rounds` orders through a real queue and bandit, each outcome up to `late` orders later and not in their order.

    The attribution, its rows in the order in which they came, and the regret of each round against the best arm of its context.
    """
    s = msgspec.structs.replace(settings.bandit, arms=world.names, arm=world.names[0], **bandit)
    r, rng = Rewards(settings.rewards, s, settings.features), np.random.default_rng(seed)
    contexts = world.contexts(rounds, rng)
    means = world.means(contexts)
    realised = world.rewards(means, rng)
    back = rng.integers(1, late + 1, rounds)
    regret = np.zeros(rounds)
    rows: list[Attributed] = []
    due: list[tuple[int, int, float]] = []
    for i in range(rounds + late + 1):
        while due and due[0][0] <= i:
            _, order, worth = heapq.heappop(due)
            bps = settings.rewards.scale_bps * worth / sqrt(1.0 - worth * worth)      # the inverse of what a reward is made by
            out = r.ended(Ended(f"E-{order}", "BTCUSDT", 1_000 * i, 1e4, 1e4, bps))
            if isinstance(out, Missed):
                raise SystemExit(f"{out.reason}: {out.numbers}")
            rows.append(out)
        if i < rounds:
            choice = r.choose(f"E-{i}", "BTCUSDT", contexts[i].tolist(), 1_000 * i)
            if (refused := r.sent(choice)) is not None:
                raise SystemExit(f"{refused.reason}: {refused.numbers}")
            arm = world.names.index(choice.arm)
            regret[i] = means[i].max() - means[i, arm]
            heapq.heappush(due, (i + int(back[i]), i, float(realised[i, arm])))
    return r, rows, regret


def logged(world: World, n: int, epsilon: float, rng: np.random.Generator) -> tuple[ope.Log, np.ndarray]:
    """`n` independent rows of a fixed policy that misjudges the slopes and draws with `epsilon` any arm; and their means."""
    k = len(world.names)
    contexts = world.contexts(n, rng)
    means = world.means(contexts)
    guess = world.own + (contexts[:, 1:] - 0.5) @ (world.slopes + np.random.default_rng(5).normal(0, 0.2, world.slopes.shape)).T
    p = np.full((n, k), epsilon / k)
    p[np.arange(n), guess.argmax(axis=1)] += 1.0 - epsilon
    arms = np.minimum((p.cumsum(axis=1) < rng.random(n)[:, None]).sum(axis=1), k - 1)
    each = np.arange(n), arms
    return ope.checked(world.names, contexts, arms, p[each], world.rewards(means, rng)[each], epsilon / k), means
