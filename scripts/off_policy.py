"""Print what other ways to work entries would have earned on the same orders, from the log of attributed choices.

  python -m scripts.off_policy                                 the ledger's projection
  python -m scripts.off_policy --rows data/choices.parquet     or .jsonl; python -m benchmarks.bandit --log FILE makes one
  python -m scripts.off_policy --how dr --clip 50 --json

Valued are the policy that wrote the log (its mean reward), each arm alone, all arms with equal chance, and the arm that the bandit
thinks best: learned from the first half of the rows and valued on the other, or with --state FILE (a saved bandit) valued on the rows
that it has not learned from. Rewards lie in [-1, 1] (docs/rewards.md). Every value has a normal and an empirical Bernstein interval; few
effective rows mean that the log hardly knows that policy. Exits with 1 where there is no row, with 2 where the log cannot be read.
"""
import argparse
import json
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import msgspec

from config import settings as config
from engine.rewards import ope
from engine.rewards.attribution import Attributed
from engine.rewards.bandit import Bandit, BanditState
from scripts._arguments import ended, number
from store.choices import ChoicesError, read
from store.database import LedgerError
from store.ledger import ledger_url

Valued = tuple[str, int, tuple[ope.Estimate, ...]]        # the policy, of how many rows, by each estimator


def log_of(rows: Sequence[Attributed], arms: Sequence[str], epsilon: float) -> ope.Log:
    """The rows as columns; no arm was drawn with less than ε/K, unless a row says so."""
    names = [*arms, *sorted({r.arm for r in rows} - {*arms})]
    propensities = [r.propensity for r in rows]
    least = min(epsilon / len(arms), *propensities)
    return ope.checked(names, [r.context for r in rows], [names.index(r.arm) for r in rows], propensities, [r.reward for r in rows],
                       least if least > 0 else None)


def best_guess(rows: list[Attributed], log_: ope.Log, settings: config.Settings,
               saved: Path | None) -> tuple[str, slice | list[bool], Bandit]:
    """A name, the rows that the bandit has not learned from, and the bandit."""
    bandit = Bandit(msgspec.structs.replace(settings.bandit, arms=list(log_.names)), "log", log_.contexts.shape[1])
    if saved is not None:
        try:
            state = msgspec.msgpack.decode(saved.read_bytes(), type=BanditState)
        except (OSError, msgspec.MsgspecError) as error:
            raise ChoicesError(f"--state {saved}: not a saved bandit ({error})") from error
        if state.dimension != log_.contexts.shape[1]:
            raise ChoicesError(f"--state {saved}: dimension {state.dimension}, the log's contexts have {log_.contexts.shape[1]}")
        state.schema = bandit.schema
        bandit.restore(state)
        new = [r.created_ms > state.upto_ms for r in rows]
        return ("greedy, saved", new, bandit) if any(new) else ("greedy, saved (in-sample)", slice(None), bandit)
    half = len(rows) // 2
    for r in rows[:half]:
        bandit.learn(r.arm, r.context, r.reward, r.expected, r.created_ms)
    return "greedy, first half", slice(half, None), bandit


def valued(rows: list[Attributed], settings: config.Settings, confidence: float, clip: float | None, saved: Path | None) -> list[Valued]:
    """Every policy's values."""
    log_ = log_of(rows, settings.bandit.arms, settings.bandit.epsilon_floor)
    model = ope.crossfitted(log_)
    out: list[Valued] = [("as logged", log_.n, (ope.on_policy(log_, confidence),))]
    for name, policy in [*((arm, ope.fixed(log_, arm)) for arm in log_.names), ("uniform", ope.uniform(log_))]:
        out.append((name, log_.n, ope.values(log_, policy, confidence, clip, model)))
    name, which, bandit = best_guess(rows, log_, settings, saved)
    held = log_.rows(which)
    greedy = ope.deterministic(held, [bandit.greedy(x) for x in held.contexts.tolist()])
    out.append((name, held.n, ope.values(held, greedy, confidence, clip, ope.crossfitted(held))))
    return out


def interval(i: ope.Interval) -> str:
    """As a person reads it.

    >>> interval(ope.Interval(-0.0512, 0.25))
    '[-0.051, +0.250]'
    """
    return f"[{i.low:+.3f}, {i.high:+.3f}]"


def show(some: list[Valued], how: Sequence[str]) -> None:
    """A line for each policy and estimator."""
    print(f"{'policy':<26} {'rows':>8} {'by':<6} {'value':>7}  {'normal':<17} {'Bernstein':<17} {'effective':>10} {'clipped':>8}")
    for name, n, estimates in some:
        for e in estimates:
            if e.how in ("mean", *how):
                print(f"{name:<26} {n:>8,} {e.how:<6} {e.value:>+7.3f}  {interval(e.normal):<17} {interval(e.bernstein):<17} "
                      f"{e.ess:>10,.0f} {e.clipped:>8.1%}")
                name, n = "", n


def main(argv: list[str] | None = None) -> int:
    """Prints the values; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m scripts.off_policy", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", help="a .parquet or .jsonl file, or a ledger's URL; default: the settings' ledger")
    parser.add_argument("--state", type=Path, help="a saved bandit (msgpack) whose best arm is valued")
    parser.add_argument("--how", choices=(*ope.HOWS, "all"), default="all", help="importance sampling, self-normalised, doubly robust")
    parser.add_argument("--clip", type=number(float, 0, above=True),
                        help="cut weights to this: less spread, biased towards 0 (default: uncut)")
    parser.add_argument("--confidence", type=number(float, 0, above=True, most=1), default=0.95, help="of each interval (default 0.95)")
    parser.add_argument("--matched", choices=("certain", "all"), default="certain",
                        help="certain (default): rows found by order id, or without an outcome; all: those guessed by symbol and time too")
    parser.add_argument("--json", action="store_true", help="for programs: every field")
    parser.add_argument("--config", action="append", default=[], help="YAML that overrides config/default.yaml")
    args = parser.parse_args(argv)
    if args.confidence == 1:
        parser.error("argument --confidence: 1 is certainty: no interval has it")
    settings = config.load(*args.config)
    try:
        everything = read(args.rows or ledger_url(settings))
        rows = [r for r in everything if r.learned is not None and (args.matched == "all" or not r.mode.startswith("mint"))]
        if not rows:
            print(f"off_policy: no row to value ({len(everything):,} read); a desk writes one for each entry that ended", file=sys.stderr)
            return 1
        some = valued(rows, settings, args.confidence, args.clip, args.state)
    except (ChoicesError, LedgerError, ValueError) as error:
        print(f"off_policy: {error}", file=sys.stderr)
        return 2
    how = ope.HOWS if args.how == "all" else (args.how,)
    if args.json:
        print(json.dumps({"rows": len(rows), "confidence": args.confidence, "values": [
            {"policy": name, "rows": n, **e._asdict()} for name, n, es in some for e in es if e.how in ("mean", *how)]}, indent=2))
        return 0
    modes = ", ".join(f"{mode} {n:,}" for mode, n in sorted(Counter(r.mode for r in rows).items()))
    left = f"; {len(everything) - len(rows):,} rows left out" if len(rows) < len(everything) else ""
    print(f"{len(rows):,} rows ({modes}{left}); {args.confidence:.0%} intervals; weights "
          f"{'uncut' if args.clip is None else f'cut to {args.clip:g}'}")
    show(some, how)
    return 0


if __name__ == "__main__":
    raise SystemExit(ended(main))
