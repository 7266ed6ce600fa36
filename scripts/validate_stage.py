"""Checks the three switches of S0's rollout against a stage, before one deploys and after.

    python -m scripts.validate_stage 1 --config config/shadow.yaml
    FEATURE_ORDER_ID_REWARD_MATCHING=false python -m scripts.validate_stage 3

A stage is named by its number or by its switches, flowCapRewrite, constrainedRiskScaling and orderIdRewardMatching:

    1  000  shadow or replay: sizes and credits as before              config/shadow.yaml
    2  100  flow caps: watch policy_sizing_cap_limit_total{cap="flow"} and the plan's volume
    3  110  risk scaling: watch policy_sizing_risk_multiplier and policy_sizing_risk_scaled_total
    4  111  credits by order id: watch the bandit, and `no pending selection matched exec outcome`

0 is the state before the rollout, and where a rollback leads: 000. Exit status 0 where the loaded settings are that stage, 1 where
they are not (each switch that differs is named, with its variable) or cannot be loaded. docs/sizing.md tells what to look at, and
`python -m scripts.replay MARKET --stages` what each stage would have done to a recorded market.
"""
import argparse
import sys
from pathlib import Path

import msgspec

from config.settings import ConfigError, load
from config.where import said
from engine.settings import Flags
from scripts._arguments import ended

STAGES = {"0": "000", "1": "000", "2": "100", "3": "110", "4": "111"}
SEQUENCE = tuple(dict.fromkeys(STAGES.values()))


def stage(text: str) -> str:
    """The switches of a stage, as three digits."""
    if text in SEQUENCE:
        return text
    if text not in STAGES:
        raise argparse.ArgumentTypeError(f"{text!r} is no stage; one of {', '.join(STAGES)} or {', '.join(SEQUENCE)} was expected")
    return STAGES[text]


def differences(flags: Flags, wanted: str) -> list[str]:
    """What to change, a line a switch."""
    have = msgspec.structs.asdict(flags)
    return [f"{said(f'features.{name}')} is {str(value).lower()}, {str(digit == '1').lower()} was expected"
            for (name, value), digit in zip(have.items(), wanted, strict=True) if value != (digit == "1")]


def digits(flags: Flags) -> str:
    """The switches as three digits.

    >>> digits(Flags(True, True, False))
    '110'
    """
    return "".join(str(int(value)) for value in msgspec.structs.astuple(flags))


def main(argv: list[str] | None = None) -> int:
    """The command."""
    parser = argparse.ArgumentParser("python -m scripts.validate_stage", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("stage", type=stage, metavar="N", help="0 to 4, or 000, 100, 110, 111")
    parser.add_argument("--config", type=Path, action="append", default=[], help="an override of config/default.yaml; may be given again")
    args = parser.parse_args(argv)
    try:
        flags = load(*args.config).features
    except ConfigError as error:
        print(error, file=sys.stderr)
        return 1
    wrong = differences(flags, args.stage)
    have = digits(flags)
    if wrong:
        place = f"stage {SEQUENCE.index(have) + 1}" if have in SEQUENCE else "no stage of the sequence " + " → ".join(SEQUENCE)
        print(f"switches are {have}, {place}; stage {SEQUENCE.index(args.stage) + 1} is {args.stage}:", file=sys.stderr)
        print("\n".join(f"  {line}" for line in wrong), file=sys.stderr)
        return 1
    print(f"stage {SEQUENCE.index(args.stage) + 1}: switches are {have}")
    return 0


if __name__ == "__main__":
    raise SystemExit(ended(main))
