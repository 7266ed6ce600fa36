"""The bandit where the best arm is known: regret against the best and the uniform choice, and whether off-policy intervals hold.

    python -m benchmarks.bandit                               20,000 orders in two worlds, regret by setting
    python -m benchmarks.bandit --plot data/regret.html       and the curves as a page
    python -m benchmarks.bandit --log data/choices.parquet    and the shipped setting's rows, for python -m scripts.off_policy
    python -m benchmarks.bandit --coverage 500                how often each interval holds the truth, of so many logs
    python -m benchmarks.bandit --market standx --confidence 0.2       on a market, through desk and venue

In worlds that are made, a reward's mean is written down. On a market (a recording's name or folder, or an archive) nobody has written it,
so every arm is also run alone, as a desk that always takes it, over the same candidates and scores: what an entry earned there is the
arm's worth, and the best of them the best arm.

In the made worlds orders go through the real queue, bandit and reward; outcomes come back up to 40 orders late and out of turn.
"""
import argparse
import time
from pathlib import Path

import msgspec
import numpy as np

from benchmarks._arms import World, lived, logged
from config import settings as config
from engine.rewards import ope
from scripts._arguments import ended, natural, positive, share, some_seconds
from store import choices, disk, importers
from store.closed import frames_of
from store.figures_rewards import regret_curves
from store.scorer import Scorer
from store.stages import flags_of, lined_up, run_all

WORLDS = {"one best arm": {"gap": 0.15, "slope": 0.1}, "the context decides": {"gap": 0.0, "slope": 0.4}}
AT = (0.05, 0.25, 1.0)


def regrets(settings: config.Settings, rounds: int, seed: int, plot: Path | None, log: Path | None) -> None:
    """The table of regret; the curves and the rows where they were asked for."""
    shipped = settings.bandit
    tried: dict[str, dict] = {"shipped": {}, "alpha 1": {"alpha": 1.0}, "alpha 0.3": {"alpha": 0.3},
                              "and no blending": {"alpha": 0.3, "smoothing": 0.0}}
    alpha = "√d" if shipped.alpha is None else f"{shipped.alpha:g}"
    print(f"{rounds:,} orders, {len(shipped.arms)} arms; shipped: alpha {alpha}, epsilon {shipped.epsilon_floor:g}, "
          f"smoothing {shipped.smoothing:g}; ± 0.4 of noise on each reward")
    heads = " ".join(f"{f'of uniform, {at * rounds:,.0f}':>18}" for at in AT)
    print(f"{'world':<20} {'choice':<16} {heads} {'best arm':>9} {'s':>5}")
    curves = {}
    for name, how in WORLDS.items():
        world = World(shipped.arms, seed, **how)
        means = world.means(world.contexts(200_000))
        uniform = float((means.max(axis=1) - means.mean(axis=1)).mean())
        best_fixed = float((means.max(axis=1) - means[:, means.mean(axis=0).argmax()]).mean())
        for setting, changed in tried.items():
            began = time.perf_counter()
            _, rows, regret = lived(world, settings, rounds, seed + 6, **changed)
            took = time.perf_counter() - began
            ratios = [regret[:int(at * rounds)].mean() / uniform for at in AT]
            print(f"{name:<20} {setting:<16} " + " ".join(f"{r:>18.1%}" for r in ratios)
                  + f" {(regret[-rounds // 10:] == 0).mean():>9.1%} {took:>5.1f}", flush=True)
            if name == "one best arm":
                curves[setting] = regret
                if log is not None and setting == "shipped":
                    choices.write(rows, log)
        print(f"{name:<20} {'best fixed arm':<16} " + " ".join(f"{best_fixed / uniform:>18.1%}" for _ in AT))
        curves |= {"uniform": np.full(rounds, uniform)} if name == "one best arm" else {}
    print("of uniform: mean regret so far over that of the uniform choice; best arm: its share among the last tenth of the orders")
    if plot is not None:
        plot.parent.mkdir(parents=True, exist_ok=True)
        disk.replace(plot, regret_curves(curves).to_html(include_plotlyjs=True).encode())
        print(f"curves of the first world: {plot}")
    if log is not None:
        print(f"rows: {log}; python -m scripts.off_policy --rows {log}")


def coverage(settings: config.Settings, replications: int, n: int, seed: int) -> None:
    """How often the intervals hold the truth."""
    names = settings.bandit.arms
    print(f"{replications} logs of {n:,} rows, a context-dependent policy with epsilon; share of 95 % intervals that hold the truth "
          "(mean width)")
    for epsilon in sorted({settings.bandit.epsilon_floor, 0.2}):
        held: dict[tuple[str, str], list[tuple[bool, bool, float, float]]] = {}
        rng = np.random.default_rng(seed)
        world = World(names, 1, 0.05, 0.4)
        big = world.contexts(400_000, rng)
        policies = {"best arm": lambda m: np.eye(len(names))[np.zeros(len(m), int)], "uniform": lambda m: np.full(m.shape, 1 / len(names)),
                    "best of context": lambda m: np.eye(len(names))[m.argmax(axis=1)]}
        truth = {p: float((of(world.means(big)) * world.means(big)).sum(axis=1).mean()) for p, of in policies.items()}
        for _ in range(replications):
            log_, means = logged(world, n, epsilon, rng)
            model = ope.crossfitted(log_)
            for p, of in policies.items():
                for e in ope.values(log_, of(means), model=model):
                    held.setdefault((p, e.how), []).append((
                        e.normal.low <= truth[p] <= e.normal.high, e.bernstein.low <= truth[p] <= e.bernstein.high,
                        e.normal.high - e.normal.low, e.bernstein.high - e.bernstein.low))
        for (p, how), got in held.items():
            normal, bernstein, wide, wider = np.mean(got, axis=0)
            print(f"epsilon {epsilon:<5g} {p:<16} {how:<6} normal {normal:>6.1%} ({wide:.3f})   Bernstein {bernstein:>6.1%} ({wider:.3f})",
                  flush=True)


def on_market(settings: config.Settings, args: argparse.Namespace) -> None:
    """Every arm alone, the uniform choice and the bandit over one market."""
    but = msgspec.structs.replace
    settings = but(settings, policy=but(settings.policy, cooldown_seconds_per_symbol=args.cooldown, cooldown_seconds_global=0.0),
                   risk=but(settings.risk, loss_streak_max=0, daily_loss_cap_usd=0.0), features=flags_of("111"))
    scorer = Scorer.load(Path(args.models) if args.models else settings.folder("models"), "active")
    if scorer is None:
        raise SystemExit("no active model: python -m flows.train makes a first one")
    root, symbols = importers.open_recording(args.market, settings.folder("data") / "recordings", settings)
    bandit = settings.bandit
    variants = {arm: but(settings, bandit=but(bandit, enabled=False, arm=arm)) for arm in bandit.arms}
    variants["uniform"] = but(settings, bandit=but(bandit, epsilon_floor=1.0))
    variants |= {"bandit, shipped": settings, "bandit, alpha 0.3": but(settings, bandit=but(bandit, alpha=0.3))}
    began = time.perf_counter()
    running = lined_up(variants, scorer, frames_of(root, symbols, settings.frames.max_events), args.confidence)
    run_all(running)
    worth = {r.told.digits: np.array([e.reward for e in r.earned]) for r in running}
    alone = {arm: float(worth[arm].mean()) for arm in bandit.arms if len(worth[arm])}
    if not alone:
        raise SystemExit(f"nothing entered on {args.market}: --confidence P lets candidates in")
    best, worst = max(alone, key=alone.__getitem__), min(alone, key=alone.__getitem__)
    print(f"{args.market}: {', '.join(symbols)}, {running[0].told.candidates:,} candidates, cooldown {args.cooldown:g} s, no halts "
          f"({time.perf_counter() - began:.0f} s)")
    print(f"best arm alone: {best}, worst: {worst}; regret: what an entry earned less than with the best alone")
    print(f"{'choice':<20} {'entries':>8} {'filled':>7} {'reward':>8} {'± (1 s.e.)':>11} {'regret':>8} {'of uniform':>10} "
          f"{'best arm, last tenth':>21}")
    uniform = alone[best] - float(worth["uniform"].mean()) if len(worth["uniform"]) else float("nan")
    for r in running:
        name, got = r.told.digits, worth[r.told.digits]
        if not len(got):
            continue
        last = r.earned[-max(1, len(got) // 10):]
        regret, filled = alone[best] - float(got.mean()), sum(e.filled for e in r.earned) / len(got)
        tail = "" if name in alone else f"{sum(e.arm == best for e in last) / len(last):.1%}"
        late = "" if name in alone else f"{regret / uniform:.1%}"
        print(f"{name:<20} {len(got):>8,} {filled:>7.1%} {got.mean():>+8.4f} {got.std() / np.sqrt(len(got)):>11.4f} {regret:>8.4f} "
              f"{late:>10} {tail:>21}")


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.bandit", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--market", help="a recording's name or folder, or an archive: run every arm alone and the bandit over it")
    parser.add_argument("--models", help="with --market: registry folder (default paths.models)")
    parser.add_argument("--confidence", type=share, metavar="P", help="with --market: let candidates in from this probability on")
    parser.add_argument("--cooldown", type=some_seconds, default=5.0, metavar="S",
                        help="with --market: between two entries of a symbol, so that there is something to learn from (default 5)")
    parser.add_argument("--rounds", type=positive, default=20_000, help="orders in each world (default 20,000)")
    parser.add_argument("--seed", type=natural, default=1, help="of the worlds (default 1)")
    parser.add_argument("--plot", type=Path, help="write the curves of cumulated regret as a page")
    parser.add_argument("--log", type=Path, help="write the rows of the first world, .parquet or .jsonl")
    parser.add_argument("--coverage", type=natural, default=0, metavar="N", help="value N logs instead, and count")
    parser.add_argument("--rows", type=positive, default=3_000, help="of each of those logs (default 3,000)")
    parser.add_argument("--config", action="append", default=[], help="YAML that overrides config/default.yaml")
    args = parser.parse_args(argv)
    settings = config.load(*args.config)
    if args.market:
        on_market(settings, args)
    elif args.coverage:
        coverage(settings, args.coverage, args.rows, args.seed)
    else:
        regrets(settings, args.rounds, args.seed, args.plot, args.log)
    return 0


if __name__ == "__main__":
    raise SystemExit(ended(main))
