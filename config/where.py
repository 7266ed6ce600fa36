"""Where a setting is said: its environment name and how to change it, for messages that name what to do."""
from functools import cache

import yaml

from config.settings import DEFAULT, VARIABLE


@cache
def variables() -> dict[str, str]:
    """Every key of `default.yaml` that the environment overrides, with the variable's name.

    >>> variables()["kafka.port"]
    'SLUICE_KAFKA_PORT'
    """
    found: dict[str, str] = {}

    def walk(at: str, value) -> None:
        if isinstance(value, dict):
            for key, below in value.items():
                walk(f"{at}.{key}" if at else str(key), below)
        elif isinstance(value, str) and (m := VARIABLE.search(value)):
            found[at] = m[1]

    walk("", yaml.safe_load(DEFAULT.read_text()))
    return found


def said(key: str) -> str:
    """The key and its environment name as a message says them.

    >>> said("kafka.port")
    'kafka.port (SLUICE_KAFKA_PORT)'
    """
    env = variables().get(key)
    return f"{key} ({env})" if env else key
