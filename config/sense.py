"""What no single type shows: values that are of the right kind and cannot be meant. Each fault names key, value and what was expected."""
from math import isclose
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import yaml

if TYPE_CHECKING:
    from config.settings import Settings

MAX_LEVELS = 4
# the alerts of `alerts/catalogue.py`, which is built from the settings and so cannot be asked by them
ALERTS = ("ServiceDown", "ServiceNotReady", "MarketDataStale", "ConsumerLag", "MarketGaps", "LogHole", "LostOnTheWay", "LogEpochChanged",
          "StageErrors", "DeskHalted", "FailSafeActive", "AlarmsUnread", "UnknownOrders", "VenueMismatch", "PositionMismatch",
          "OrphanOrders", "NotReconciled", "LedgerOutboxStuck", "DiskFull", "ArchiveLost", "FillProbCircuitBreakerTripped", "ClockJumped",
          "LiveReplayDiff", "LedgerContradicted", "OnnxParityFailure", "SchemaMismatch")
ABSENT = "Absent"        # how the twin of an alert ends that fires where its series is gone


def senseless(s: "Settings") -> list[str]:
    """Names that name nothing, shares that are none, an address that nobody can be asked at."""
    faults = [f"controls.not_tradable: {name!r} is not in config/symbols.yaml, which has {', '.join(sorted(s.symbols))}"
              for name in s.controls.not_tradable if name not in s.symbols]
    faults += [f"fail_safe.alerts: {name!r} is no alert; known are {', '.join(sorted(ALERTS))}"
               for name in s.fail_safe.alerts if name.removesuffix(ABSENT) not in ALERTS]
    fractions = s.ladder.fractions
    if not 1 <= len(fractions) <= MAX_LEVELS or min(fractions) <= 0 or not isclose(sum(fractions), 1, abs_tol=1e-9):
        faults.append(f"ladder.fractions: {','.join(map(str, fractions))}: one to {MAX_LEVELS} shares above 0 were expected, 1 in all")
    if (url := s.fail_safe.prometheus_url) and not is_address(url):
        faults.append(f"fail_safe.prometheus_url: {url!r} is no address of the form http://host:port or https://host:port")
    return faults


def is_address(url: str) -> bool:
    """Whether a service can be asked there over HTTP.

    >>> is_address("http://127.0.0.1:9090"), is_address("127.0.0.1:9090"), is_address("ftp://x"), is_address("http://x:y")
    (True, False, False, False)
    """
    try:
        parts = urlsplit(url)
        return parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port or 1) > 0
    except ValueError:       # no port
        return False


def repeated(node: yaml.Node | None, at: str = "") -> list[str]:
    """Keys that one mapping of a YAML document holds twice, which YAML answers with the last: line, key and both values."""
    faults: list[str] = []
    if isinstance(node, yaml.SequenceNode):
        return [fault for i, one in enumerate(node.value) for fault in repeated(one, f"{at}[{i}]")]
    if not isinstance(node, yaml.MappingNode):
        return faults
    seen: dict[tuple[str, str], yaml.Node] = {}
    for key, value in node.value:
        if not isinstance(key, yaml.ScalarNode):
            continue
        name = f"{at}.{key.value}" if at else str(key.value)
        if (key.tag, key.value) in seen:
            first, again = (one.value if isinstance(one, yaml.ScalarNode) else "a section" for one in (seen[key.tag, key.value], value))
            faults.append(f"line {key.start_mark.line + 1}: {name}: said twice, {first} and {again}; once was expected")
        seen[key.tag, key.value] = value
        faults += repeated(value, name)
    return faults
