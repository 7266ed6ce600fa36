"""Instances side by side: who trades which symbol, what they must share, what they may not, and what their limits come to together.

Nothing at run time keeps two instances from trading one symbol: each has its own ledger, and bounds what it sees.
"""
import os
import re
from collections.abc import Mapping, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import yaml

from config.settings import ROOT, ConfigError, Settings, load

# what an instance is told apart by; everything else must be the same, or a difference in figures could be anybody's
OWN = ("instance", "feed", "exchange.symbols", "exchange.session", "exchange.port", "fill_prob.enforce",
       "fill_prob.enforce_symbols", "fill_prob.artifact_dir", "ledger.url", "ledger.anchors", "scale.member", "ports.metrics", "ports.bind")
LIMITS = ("desk.equity_usd", "policy.max_open_positions_total", "policy.max_total_exposure_usdt", "policy.max_exposure_per_symbol_usdt",
          "risk.daily_loss_cap_usd", "controls.max_orders_per_minute")
VARIABLE = re.compile(r"\$\{(\w+)(?:(:?[-?])([^}]*))?\}")


class Instance(NamedTuple):
    """One of them as it would start."""
    name: str
    settings: Settings

    @property
    def symbols(self) -> list[str]:
        """What it trades."""
        return self.settings.exchange.symbols

    @property
    def role(self) -> str:
        """Canary where it enforces, else control."""
        return "canary" if self.settings.fill_prob.enforce else "control"

    @property
    def artifacts(self) -> Path | None:
        """Where it leaves evidence."""
        said = self.settings.fill_prob.artifact_dir
        return Path(os.path.normpath(ROOT / said)) if said else None


def leaves(value: Any, at: str = "") -> dict[str, Any]:
    """Every setting by its path."""
    if isinstance(value, dict):
        return {path: one for key, below in value.items() for path, one in leaves(below, f"{at}.{key}" if at else key).items()}
    return {at: value}


def faults(instances: Sequence[Instance], traded: Sequence[str]) -> list[str]:
    """Why these may not run side by side; `traded` is every symbol that shall be traded."""
    out = []
    for a, b in combinations(instances, 2):
        if a.settings.instance == b.settings.instance:
            out.append(f"{a.name}, {b.name}: SLUICE_INSTANCE: both are {a.settings.instance!r}; their topics and ledgers would be one")
        if both := sorted({*a.symbols} & {*b.symbols}):
            out.append(f"{a.name}, {b.name}: symbols: {', '.join(both)} would be traded twice")
        if a.artifacts and b.artifacts and (a.artifacts.is_relative_to(b.artifacts) or b.artifacts.is_relative_to(a.artifacts)):
            out.append(f"{a.name}, {b.name}: GRINDER_ARTIFACT_DIR: {a.artifacts} and {b.artifacts} share files")
        mine, yours = leaves(msgspec.to_builtins(a.settings)), leaves(msgspec.to_builtins(b.settings))
        out += [f"{a.name}, {b.name}: {key}: {mine.get(key)!r} and {yours.get(key)!r}; the same was expected"
                for key in sorted(mine.keys() | yours.keys()) if mine.get(key) != yours.get(key) and key not in OWN]
    for one in instances:
        if not one.artifacts and len(instances) > 1:
            out.append(f"{one.name}: GRINDER_ARTIFACT_DIR: unset; a folder of its own was expected")
        if unknown := sorted({*one.symbols} - {*traded}):
            out.append(f"{one.name}: symbols: {', '.join(unknown)} shall not be traded ({', '.join(traded)} shall)")
    if missing := [s for s in traded if not any(s in one.symbols for one in instances)]:
        out.append(f"symbols: {', '.join(missing)} would be traded by none")
    return out


def sums(instances: Sequence[Instance]) -> list[tuple[str, list[float], float]]:
    """Each limit, by instance and together: what an account that they share can come to."""
    told = [leaves(msgspec.to_builtins(one.settings)) for one in instances]
    return [(key, [one[key] for one in told], sum(one[key] for one in told)) for key in LIMITS]


# where instances are described

def of_env_file(path: Path, overrides: Sequence[str] = ()) -> Instance:
    """KEY=VALUE lines, with or without `export`, as Docker and the shell read them."""
    env: dict[str, str] = {}
    try:
        text = path.read_text()
    except OSError as error:
        raise ConfigError([f"{path}: cannot be read ({error.strerror})"]) from None
    for number, line in enumerate(text.splitlines(), 1):
        said = line.strip().removeprefix("export ").strip()
        if not said or said.startswith("#"):
            continue
        key, equals, value = said.partition("=")
        if not equals or not key.isidentifier():
            raise ConfigError([f"{path}: line {number}: {line!r} is not KEY=VALUE"])
        env[key] = plain(value.strip())
    return Instance(path.stem, load(*overrides, env=env))


def plain(value: str) -> str:
    """A value without its quotes, or without the comment behind it.

    >>> plain("'a # b' # c"), plain("0   # off")
    ('a # b', '0')
    """
    quoted = re.match(r"(['\"])(.*?)\1", value)
    return quoted[2] if quoted else value.split(" #")[0].strip()


def of_compose(paths: Sequence[Path], names: Sequence[str], env: Mapping[str, str]) -> list[Instance]:
    """Services of compose files, later files over earlier ones; `--symbols` of a command is its symbols."""
    services: dict[str, dict[str, Any]] = {}
    for path in paths:
        try:
            tree = yaml.safe_load(path.read_text()) or {}
        except OSError as error:
            raise ConfigError([f"{path}: cannot be read ({error.strerror})"]) from None
        except yaml.YAMLError as error:
            raise ConfigError([f"{path}: not YAML ({error})"]) from None
        if not isinstance(tree, dict) or not all(isinstance(one, dict) for one in (tree.get("services") or {}).values()):
            raise ConfigError([f"{path}: a mapping with services was expected"])
        for name, service in (tree.get("services") or {}).items():
            into = services.setdefault(name, {"environment": {}, "command": []})
            said = service.get("environment") or {}
            pairs = said.items() if isinstance(said, dict) else (str(one).split("=", 1) for one in said if "=" in str(one))
            into["environment"] |= {key: filled(str(value), env) for key, value in pairs if value is not None}
            into["command"] = service.get("command", into["command"])
    if absent := [name for name in names if name not in services]:
        raise ConfigError([f"{', '.join(absent)}: no such service in {', '.join(map(str, paths))}"])
    out = []
    for name in names:
        command = services[name]["command"]
        words = [filled(str(w), env) for w in (command.split() if isinstance(command, str) else command or [])]
        symbols = {"SLUICE_SYMBOLS": words[words.index("--symbols") + 1]} if "--symbols" in words[:-1] else {}
        out.append(Instance(name, load(env={**services[name]["environment"], **symbols})))
    return out


def filled(text: str, env: Mapping[str, str]) -> str:
    """Compose's variables.

    >>> filled("${A:-x}-${B:?must}", {"B": "y"})
    'x-y'
    """
    return VARIABLE.sub(lambda m: env.get(m[1]) or (m[3] if "-" in (m[2] or "") else ""), text)
