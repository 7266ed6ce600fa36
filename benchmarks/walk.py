"""A long random walk of the desk: at least a million facts, after each of which every cap, sum and way out is looked at.

    python -m benchmarks.walk                            1,000,000 steps
    python -m benchmarks.walk --steps 50000 --seed 7     a short one of another seed
    python -m benchmarks.walk --seed 7 --life 12         one life again, as a fault names it

A life is a fresh desk under settings of its own (venue, switches, limits, bandit), some thousands of steps at a venue that fills in parts,
cancels, refuses, repeats itself and tells of fills late, with scores, kills, a fail-safe and deaths in between; then the venue becomes
orderly and everything must end. Exit 1 at the first thing that does not hold, with the numbers and how to see it again.
"""
import argparse
import functools
import time
from collections import Counter

import msgspec
import numpy as np

from benchmarks._walk import Broken, Walk, steps
from config.settings import Settings, load
from engine import reasons
from engine.rewards.queue import MODES
from engine.sizing.caps import NAMES as CAPS
from scripts._arguments import ended, natural, positive

LIFE = 2_500        # steps of a life
QUICK = {"POLICY_COOLDOWN_SYMBOL": "0", "POLICY_COOLDOWN_GLOBAL": "0", "POLICY_SCALE_IN_CONF_DELTA": "0"}
LIMITS: tuple[dict[str, str], ...] = (
    {"SLUICE_LOSS_STREAK_MAX": "0", "SLUICE_DAILY_LOSS_CAP_USD": "0"},
    {"SLUICE_LOSS_STREAK_MAX": "0", "SLUICE_DAILY_LOSS_CAP_USD": "0", "POLICY_MAX_PER_SYMBOL": "8", "POLICY_SCALE_IN_MAX": "7"},
    {"SLUICE_LOSS_STREAK_MAX": "4", "SLUICE_DAILY_LOSS_CAP_USD": "60"},
    {"SLUICE_LOSS_STREAK_MAX": "0", "POLICY_MAX_POSITIONS_TOTAL": "3", "POLICY_MAX_EXPOSURE_TOTAL": "1500"},
    {"SLUICE_LOSS_STREAK_MAX": "0", "POLICY_MAX_EXPOSURE_PER_SYMBOL": "300", "SLUICE_DROP_MODE": "degrade"},
)
SWITCHES = ("000", "100", "110", "111")


@functools.cache
def mind(limits: int, switches: str, bandit: bool, real: bool) -> Settings:
    """The shipped settings but for these."""
    names = ("FEATURE_FLOW_CAP_REWRITE", "FEATURE_CONSTRAINED_RISK_SCALING", "FEATURE_ORDER_ID_REWARD_MATCHING")
    flags = {name: str(digit == "1").lower() for name, digit in zip(names, switches)}
    s, but = load(env={**QUICK, **flags, "SLUICE_BANDIT": str(bandit).lower(), **LIMITS[limits]}), msgspec.structs.replace
    return but(s, venue=but(s.venue, mode="real"), rollout=but(s.rollout, mode="full")) if real else s


def live(seed: int, life: int, n: int) -> Walk:
    """One life of `n` steps, to its end; `Broken` where something does not hold."""
    rng = np.random.default_rng([seed, life])
    walk = Walk(mind(int(rng.integers(len(LIMITS))), str(rng.choice(SWITCHES)), bool(rng.integers(2)), bool(rng.integers(2))))
    try:
        for step in steps(n, rng):
            walk.step(step)
        walk.rest()
    except Broken as broken:
        raise Broken(f"life {life}, step {walk.n}: {broken}") from None
    return walk


def main(argv: list[str] | None = None) -> int:
    """The command."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.walk", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=positive, default=1_000_000, help="in all (default 1,000,000)")
    parser.add_argument("--seed", type=natural, default=1, help="of the walk (default 1)")
    parser.add_argument("--life", type=natural, help="this life alone")
    args = parser.parse_args(argv)
    lives = range(-(-args.steps // LIFE)) if args.life is None else [args.life]
    seen: Counter[str] = Counter()
    began = last = time.perf_counter()
    done = 0
    for life in lives:
        n = min(LIFE, args.steps - done) if args.life is None else LIFE
        try:
            seen += live(args.seed, life, n).seen
        except Broken as broken:
            print(f"does not hold: {broken}\nagain: python -m benchmarks.walk --seed {args.seed} --life {life}")
            return 1
        done += n
        if time.perf_counter() - last > 10:
            last = time.perf_counter()
            print(f"  {done:,} steps, {done / (last - began):,.0f}/s", flush=True)
    took = time.perf_counter() - began
    print(f"{done:,} steps of {len(lives)} lives in {took:.0f} s ({done / took:,.0f} steps/s, every one checked, two desks): all holds")
    print(f"entries {seen['entries']:,} ({seen['orders']:,} orders), fills {seen['fills']:,}, closed {seen['outcomes']:,}, "
          f"deaths {seen['deaths']:,}")
    for title, names in (("bound by", [f"cap {name}" for name in CAPS]), ("rewards", [f"reward {mode}" for mode in MODES]),
                         ("refused", list(reasons.DROPS))):
        print(f"{title:<9}" + (", ".join(f"{name.split(' ')[-1]} {seen[name]:,}" for name in names if seen[name]) or "nothing"))
    print(f"never refused here: {', '.join(code for code in reasons.DROPS if not seen[code])}")
    return 0


if __name__ == "__main__":
    raise SystemExit(ended(main))
