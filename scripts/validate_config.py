"""Checks the configuration: every fault with its file, key, value and what was expected; nothing is started.

    python -m scripts.validate_config
    python -m scripts.validate_config --config config/app.yml --show policy
"""
import argparse
import sys
from pathlib import Path

import msgspec
import yaml

from config.sense import senseless
from config.settings import ConfigError, Settings, load
from config.where import variables
from scripts._arguments import ended

SECRET = ("password", "secret", "token", "url")


def shown(settings: Settings, section: str | None) -> str:
    """The settings as YAML, or one section of them; what may hold a secret is starred."""
    tree = msgspec.to_builtins(settings)
    for key in variables():
        *path, last = key.split(".")
        at = tree
        for step in path:
            at = at.get(step, {})
        if at.get(last) and any(word in last for word in SECRET) and key != "monitoring.runbook_url":
            at[last] = "***"
    if section is not None and section not in tree:
        raise ConfigError([f"--show: {section!r} is no section; known are {', '.join(sorted(tree))}"])
    return yaml.safe_dump(tree if section is None else {section: tree[section]}, sort_keys=False).rstrip()


def across(settings: Settings) -> list[str]:
    """What no single key shows: symbols that are not described, thresholds the wrong way round."""
    faults = [f"exchange.symbols: {s!r} is not in config/symbols.yaml, which has {', '.join(sorted(settings.symbols))}"
              for s in settings.exchange.symbols if s not in settings.symbols]
    if not settings.exchange.symbols:
        faults.append("exchange.symbols: at least one symbol was expected")
    t = settings.training
    if t.tau_hold > t.tau_entry:
        faults.append(f"training.tau_hold: {t.tau_hold} is above training.tau_entry, {t.tau_entry}: every entry would be closed at once")
    p = settings.policy
    if p.max_exposure_per_symbol_usdt > p.max_total_exposure_usdt:
        faults.append(f"policy.max_exposure_per_symbol_usdt: {p.max_exposure_per_symbol_usdt} is above "
                      f"policy.max_total_exposure_usdt, {p.max_total_exposure_usdt}")
    if settings.venue.mode == "real" and settings.venue.venue == "recording":
        faults.append("venue.mode: real orders cannot be sent to a recording (EXCHANGE_MODE, EXCHANGE_VENUE)")
    if settings.regimes.high_vol_bps <= settings.regimes.event_bps:
        faults.append(f"regimes.high_vol_bps: {settings.regimes.high_vol_bps} is not above regimes.event_bps, {settings.regimes.event_bps}")
    r = settings.risk
    if r.volatility_resume_bps > r.volatility_ceiling_bps:
        faults.append(f"risk.volatility_resume_bps: {r.volatility_resume_bps} is above risk.volatility_ceiling_bps, "
                      f"{r.volatility_ceiling_bps}")
    return faults + senseless(settings)


def main(argv: list[str] | None = None) -> int:
    """The command."""
    parser = argparse.ArgumentParser("python -m scripts.validate_config", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", type=Path, action="append", default=[], help="an override of config/default.yaml; may be given again")
    parser.add_argument("--show", nargs="?", const="", metavar="SECTION", help="print what is in force, secrets starred")
    args = parser.parse_args(argv)
    try:
        settings = load(*args.config)
        if faults := across(settings):
            raise ConfigError(faults)
        if args.show is not None:
            print(shown(settings, args.show or None))
    except ConfigError as error:
        print(error, file=sys.stderr)
        return 1
    if args.show is None:
        print(f"configuration is sound: {len(msgspec.to_builtins(settings))} sections, {len(settings.symbols)} symbols")
    return 0


if __name__ == "__main__":
    raise SystemExit(ended(main))
