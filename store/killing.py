"""A KILL, a CRIT or a RELEASE as a person gives it: the one way that the commands and the console share.

A KILL (or CRIT) is a file in `data/controls/` first, then a record on the broker, and each is tried whatever became of the other: a desk
that is down takes the file, the executor hears the record while the desk hangs. A RELEASE is for every service: it goes by the broker or
not at all. Whether either is in force says the ledger alone.
"""
from collections.abc import Iterable
from typing import NamedTuple

import msgspec

from config.settings import Settings
from engine.facts import KILL, RELEASE, Control, releasing
from store import bus, controls
from store.database import LedgerError
from store.ledger import ledger_url
from store.words import control, left

TOPIC = "control.events"


class Given(NamedTuple):
    """A word and where it lies now; `faults` are the ways that failed, in words. No place: nobody will hear it."""
    fact: Control
    places: list[str]
    faults: list[str]


class Heard(NamedTuple):
    """Whether the desk has it in its ledger; `kills` are those that stand there, `why` says what keeps one from knowing;
    `vain` that it is a CRIT which a KILL in force left without effect."""
    taken: bool
    kills: dict[str, str]
    why: str
    vain: bool = False

    def left_of(self, fact: Control) -> list[str]:
        """What a RELEASE names and what stands all the same: it was told again since."""
        return [name for name in fact.kills if name in self.kills]


def topic(settings: Settings) -> str:
    """The topic's name on the broker."""
    return f"{settings.instance}.{TOPIC}" if settings.instance else TOPIC


def publish(settings: Settings, fact: Control) -> str:
    """Its place on the broker; `BusDown`."""
    with bus.Publisher(settings) as publisher:
        partition, offset = publisher.send(topic(settings), msgspec.msgpack.encode(fact), "control")
    return f"{topic(settings)}/{partition}/{offset}"


def kill(settings: Settings, actor: str, reason: str) -> Given:
    """Halts the desk."""
    return give(settings, KILL, actor, reason)


def give(settings: Settings, kind: str, actor: str, reason: str, details: dict[str, str] | None = None) -> Given:
    """A KILL, a CRIT or a change of the mode: the file where a dead desk finds it, and the record that a living one hears."""
    fact = control(kind, actor, reason, details)
    return told(settings, Given(fact, *left(settings, fact)))


def release(settings: Settings, actor: str, reason: str, kills: Iterable[str]) -> Given:
    """Ends these KILLs, and no others."""
    return told(settings, Given(control(RELEASE, actor, reason, releasing(kills)), [], []))


def told(settings: Settings, given: Given) -> Given:
    """The word on the broker as well."""
    try:
        given.places.append(publish(settings, given.fact))
    except bus.BusDown as error:
        given.faults.append(str(error))
    return given


def heard(settings: Settings, fact: Control) -> Heard:
    """What the desk's ledger says of it now."""
    try:
        found = controls.in_force(ledger_url(settings))
    except LedgerError as error:
        return Heard(False, {}, str(error))
    return Heard(fact.id in found.controls, found.kills, "the desk is down, or behind", fact.id in found.vain)
