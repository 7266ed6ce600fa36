"""The desk beside a hostile venue: who dies where and when, which controls come between, and how long it takes until all agree again.

Deaths are of risk and executor, each at the next edge of its kind after a seeded moment; the kinds take turns, so that a campaign goes
through all of them. KILL, CRIT and RELEASE come on the log, a KILL now and then by its file. Before the market's end the line is healthy
again and nobody dies, so that what is then still wrong is no more on its way.
"""
import asyncio
import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import msgspec

from benchmarks.crashes import market
from benchmarks.crashes.hostile import Hostile, Rates
from config.settings import Settings, load
from engine.execution.reconcile import differences
from engine.facts import CRIT, KILL, RELEASE, Control, releasing
from engine.state import FULL
from store import controls
from streams.codec import encode
from streams.topics import CONTROL_EVENTS, named

if TYPE_CHECKING:
    from benchmarks.crashes.town import Town

PORT = 4077              # in the virtual town, where every port is free
VICTIMS = ("risk", "executor")
DEATHS = 12              # in a run
CALM = 0.72              # the share of the market after which the line is healthy and nobody dies
POLL_S = 0.005
LINGER_S = 20.0          # that the venue stays after its market is over
BUSY = {"POLICY_COOLDOWN_SYMBOL": "0.5", "POLICY_COOLDOWN_GLOBAL": "0.2", "POLICY_MAX_POSITIONS_TOTAL": "8",
        "POLICY_MAX_PER_SYMBOL": "6", "POLICY_MAX_PER_REGIME": "8", "POLICY_SCALE_IN_MAX": "4", "POLICY_SCALE_IN_CONF_DELTA": "0"}


def settings_of(base: dict[str, str], real: bool) -> Settings:
    """Those under which a siege is played: an executor that asks often and, with `real`, an account beside the paper one."""
    s = load(env=market.EAGER | BUSY | base | ({"EXCHANGE_MODE": "real"} if real else {}))
    return msgspec.structs.replace(
        s, venue=msgspec.structs.replace(s.venue, reconcile_ms=500, unknown_after_ms=1500),
        fail_safe=msgspec.structs.replace(s.fail_safe, cooldown_minutes=0.05),
        rollout=msgspec.structs.replace(s.rollout, mode=FULL if real else s.rollout.mode))


def acted(town: "Town") -> dict[str, None]:
    """The controls that the desk has in its ledger."""
    risk = town.residents.get("risk")
    return risk.stage.host.desk.state.controls if risk else {}


@dataclass(frozen=True)
class Death:
    """Whoever has the next edge of this kind after `after_s` dies at it."""
    who: str
    kind: str
    after_s: float


@dataclass
class Siege:
    """One run's fate. `kinds`: the edges (service, kind) that there are; `healed`: seconds from each death until all agreed."""
    seed: int
    seconds: float
    kinds: Sequence[tuple[str, str]]
    rates: Rates = field(default_factory=Rates)
    deaths: list[Death] = field(default_factory=list)
    waiting: list[float] = field(default_factory=list)
    healed: list[float] = field(default_factory=list)
    last: str = ""      # what kept them apart last

    def __post_init__(self) -> None:
        self.rng = random.Random(self.seed)
        self.line = Hostile(PORT, 0, self.rates, self.seed)
        first = self.seed * DEATHS
        for i in range(DEATHS):
            who, kind = self.kinds[(first + i) % len(self.kinds)]
            self.deaths.append(Death(who, kind, self.seconds * (0.08 + (CALM - 0.08) * (i + self.rng.random()) / DEATHS)))

    def at(self, town: "Town", who: str, kind: str) -> Sequence[str]:
        """Who dies at this edge."""
        now = town.loop.now
        for death in self.deaths:
            if (death.who, death.kind) == (who, kind) and now >= death.after_s:
                self.deaths.remove(death)
                return (who,)
        return ()

    def died(self, town: "Town") -> None:
        """Somebody has: the clock runs until all agree."""
        self.waiting.append(town.loop.now)

    async def run(self, town: "Town") -> None:
        """The line, the controls and the clock, until cancelled."""
        self.line.to = town.settings.exchange.port
        await asyncio.gather(self.line.serve(), self.govern(town), self.watch(town), self.end(town))

    async def end(self, town: "Town") -> None:
        """Calm."""
        await asyncio.sleep(self.seconds * CALM)
        self.line.calm, self.deaths = True, []

    async def govern(self, town: "Town") -> None:
        """KILL, CRIT and RELEASE at seeded moments; what is killed is released a while later."""
        topic, n = named(CONTROL_EVENTS, town.settings), 0

        def say(control: Control) -> None:
            town.logs.send(topic, b"control", encode(control))
        while town.loop.now < self.seconds * CALM:
            await asyncio.sleep(self.rng.uniform(2, 12))
            n += 1
            if self.rng.random() < 0.3:
                say(Control(f"crit-{n}", CRIT, "anna", "drawn", 0, 0))
                continue
            kill = Control(f"kill-{n}", KILL, "anna", "drawn", 0, 0)
            if self.rng.random() < 0.5:
                say(kill)
            else:
                for who in VICTIMS:
                    controls.leave(msgspec.structs.replace(town.settings, paths=msgspec.structs.replace(
                        town.settings.paths, data=str(town.folders[who]))), kill)
            while kill.id not in acted(town):       # nobody can name what is not in the ledger
                await asyncio.sleep(0.1)
            await asyncio.sleep(self.rng.uniform(0.2, 4))
            say(Control(f"release-{n}", RELEASE, "anna", "drawn", 0, 0, releasing([kill.id])))

    async def watch(self, town: "Town") -> None:
        """Looks again and again whether all agree."""
        while True:
            await asyncio.sleep(POLL_S)
            if self.waiting and (apart := self.apart(town)):
                self.last = apart
            elif self.waiting:
                self.healed += [town.loop.now - at for at in self.waiting]
                self.waiting.clear()

    def apart(self, town: "Town") -> str:
        """What still keeps desk and venue apart; "" where both are at the same number with the same orders, quantity, average price and
        result, nobody is away and nothing unknown.

        The desk is its ledger: what it consumes is written down before it waits for anything.
        """
        if away := [who for who in VICTIMS if not town.lives[who].alive or who not in town.residents]:
            return f"{', '.join(away)} away"
        exchange, host, executor = town.residents["exchange"], town.residents["risk"].stage.host, town.residents["executor"].background[0]
        executor = executor.__self__
        if not (executor.connected.is_set() or town.over):
            return "no line"
        if executor.waiting.unknown:
            return f"unknown: {', '.join(map(str, executor.waiting.unknown))}"
        desk = host.desk
        for symbol, pit in exchange.pits.items():
            standing = exchange.standing(symbol, [])
            if (heard := host.heard.get(symbol, 0)) != standing.seq or host.beyond.get(symbol):
                return f"number {heard} of {standing.seq}"
            both = (desk.portfolio, desk.state.twins)
            if waits := [o.id for books in both for o in books.orders.values() if not o.accepted and o.told < 0]:
                return f"no word on {', '.join(waits)}"
            found = differences(desk.portfolio, standing, pit.floor.matching.instrument)
            if desk.venue.mode == "real":
                found += differences(desk.state.twins, standing, pit.floor.matching.instrument, twin=True)
            if found:
                return "; ".join(map(str, found))
        return ""
