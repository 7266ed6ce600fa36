"""All that stands between a signal and an order, as the desk has it now: a row a gate, shut, narrow or open, with its numbers.

Market time throughout: a halt that ends at 10:15 ends when the market's clock says so.
"""
from typing import NamedTuple

import pandas as pd

from config.settings import Settings
from engine.execution.admission import DEGRADE
from engine.state import DAY_MS, FULL
from store.mirror import Seen

OPEN, NARROW, SHUT = "open", "narrow", "shut"


class Gate(NamedTuple):
    """`name`, as an operator says it; `state` open, narrow (something is held back) or shut; `words` with the numbers."""
    name: str
    state: str
    words: str


def clock(ts_ms: int) -> str:
    """Market time of day, UTC."""
    return f"{pd.Timestamp(ts_ms, unit='ms'):%H:%M:%S}"


def until(ts_ms: int, now_ms: int) -> str:
    """The end of a halt, and how far it is."""
    return f"until {clock(ts_ms)}, in {(ts_ms - now_ms) / 1000:,.0f} s"


def gates(seen: Seen, settings: Settings, waiting: int = 0) -> list[Gate]:
    """Every gate, in the order in which a signal meets them."""
    return [kill(seen, waiting), mode(seen, settings), fail_safe(seen, settings), warm_up(seen, settings), backpressure(seen, settings),
            daily_loss(seen, settings), loss_streak(seen, settings), precision(seen, settings), volatility(seen, settings),
            exposure(seen, settings), free_balance(seen, settings), fill_probability(seen)]


def kill(seen: Seen, waiting: int) -> Gate:
    """KILLs in force, and those that the desk has not taken."""
    standing = list(seen.state.kills.values())
    if waiting:
        return Gate("kill", SHUT, f"{waiting} not yet taken by the desk" + (f"; in force: {'; '.join(standing)}" if standing else ""))
    return Gate("kill", SHUT if standing else OPEN, "; ".join(standing) or "none in force")


def mode(seen: Seen, settings: Settings) -> Gate:
    """Where the next entry goes."""
    real, now = settings.venue.mode == "real", seen.state.safe.mode(seen.state.mode)
    if not real:
        return Gate("mode", OPEN, f"paper: {settings.venue.venue} without money")
    if now == FULL:
        return Gate("mode", OPEN, "full: real orders, a paper twin of each")
    return Gate("mode", NARROW, "paper, beside a real venue")


def fail_safe(seen: Seen, settings: Settings) -> Gate:
    """On paper after a CRIT."""
    safe, now = seen.state.safe, seen.state.now_ms
    if safe.base:
        return Gate("fail-safe", NARROW, f"on paper after {safe.reason or 'a CRIT'}, {until(safe.until_ms, now)}; then back to {safe.base}")
    return Gate("fail-safe", OPEN, "off" if settings.fail_safe.switch_to_paper_on_crit else "not used: a CRIT changes nothing")


def warm_up(seen: Seen, settings: Settings) -> Gate:
    """Symbols whose market is too young."""
    rules = settings.warmup
    if not rules.enabled:
        return Gate("warm-up", OPEN, "not used")
    ages = seen.state.warmth.ages
    cold = {s: (age.last_ms - age.since_ms) / 1000 for s, age in ages.items() if age.last_ms - age.since_ms < round(rules.seconds * 1000)}
    if not ages:
        return Gate("warm-up", SHUT, "no book of any symbol yet")
    if cold:
        return Gate("warm-up", SHUT if len(cold) == len(ages) else NARROW,
                    ", ".join(f"{s} {up:,.0f} of {rules.seconds:g} s" for s, up in sorted(cold.items())))
    return Gate("warm-up", OPEN, f"{len(ages)} symbols warm ({rules.seconds:g} s)")


def backpressure(seen: Seen, settings: Settings) -> Gate:
    """What waits, and what that does."""
    rules, now = settings.backpressure, seen.state.pressure
    if not rules.enabled:
        return Gate("backpressure", OPEN, "not used")
    numbers = f"{now.depth:,} of {rules.max_queue_len:,} records"
    if not now.over:
        return Gate("backpressure", OPEN, numbers)
    if rules.drop_mode == DEGRADE:
        return Gate("backpressure", NARROW, f"{numbers}: only likelier levels are sent")
    return Gate("backpressure", SHUT, f"{numbers}: entries are refused")


def daily_loss(seen: Seen, settings: Settings) -> Gate:
    """The day's result against its cap."""
    watch, now, cap = seen.state.watch, seen.state.now_ms, abs(settings.risk.daily_loss_cap_usd)
    today = watch.day_usd if watch.day == now // DAY_MS else 0.0
    if not cap:
        return Gate("daily loss", OPEN, f"not used; {today:+,.2f} USD today".replace("-", "−"))
    numbers = f"{today:+,.2f} of {-cap:,.2f} USD".replace("-", "−")
    if watch.capped(now, cap):
        return Gate("daily loss", SHUT, f"{numbers}, {until((now // DAY_MS + 1) * DAY_MS, now)}")
    return Gate("daily loss", OPEN, numbers)


def loss_streak(seen: Seen, settings: Settings) -> Gate:
    """Losses in a row."""
    watch, now, most = seen.state.watch, seen.state.now_ms, settings.risk.loss_streak_max
    if now < watch.streak_until_ms:
        return Gate("loss streak", SHUT, f"{most} losses in a row, {until(watch.streak_until_ms, now)}")
    return Gate("loss streak", OPEN, f"{watch.losses} of {most} losses in a row" if most else "not used")


def precision(seen: Seen, settings: Settings) -> Gate:
    """The share of won entries."""
    watch, now, rules = seen.state.watch, seen.state.now_ms, settings.risk
    if now < watch.precision_until_ms:
        return Gate("precision", SHUT, f"{watch.precision:.0%} won < {rules.precision_floor:.0%}, {until(watch.precision_until_ms, now)}")
    won = f"{watch.precision:.0%} of the last {len(watch.wins)} won" if watch.wins else "nothing closed yet"
    return Gate("precision", OPEN, f"{won}, floor {rules.precision_floor:.0%}" if rules.precision_floor else f"not used; {won}")


def volatility(seen: Seen, settings: Settings) -> Gate:
    """Symbols that move too much."""
    rough, ceiling = seen.state.watch.rough, settings.risk.volatility_ceiling_bps
    if rough:
        return Gate("volatility", NARROW, ", ".join(f"{s} {v:,.1f} > {ceiling:g} bps" for s, v in sorted(rough.items())))
    return Gate("volatility", OPEN, f"none above {ceiling:g} bps" if ceiling else "not used")


def exposure(seen: Seen, settings: Settings) -> Gate:
    """Margin and entries against S4's limits."""
    books, limits = seen.state.portfolio, settings.policy
    usd, n = books.total_exposure_usdt, books.total_positions
    full = usd >= limits.max_total_exposure_usdt or n >= limits.max_open_positions_total
    return Gate("exposure", SHUT if full else OPEN,
                f"{usd:,.2f} of {limits.max_total_exposure_usdt:,.0f} USD margin, {n} of {limits.max_open_positions_total} entries")


def free_balance(seen: Seen, settings: Settings) -> Gate:
    """What no margin binds."""
    free, least = seen.state.portfolio.available_capital_usdt, settings.sizing.min_free_balance_usd
    return Gate("free balance", OPEN if free >= least else SHUT, f"{free:,.2f} USD, at least {least:,.0f} must be")


def fill_probability(seen: Seen) -> Gate:
    """S2's gate, as the desk's last start found it."""
    found = seen.state.gating
    if found is None or not found.model:
        return Gate("fill probability", OPEN, "no model judges")
    numbers = f"threshold {found.threshold_bps:,} bps, {len(seen.state.gate.breaker.blocked):,} blocked lately"
    if not found.rules.enforce:
        return Gate("fill probability", OPEN, f"in shadow: {numbers}")
    if seen.state.gate.breaker.tripped:
        return Gate("fill probability", OPEN, f"its breaker lets everything pass: {numbers}")
    return Gate("fill probability", OPEN, f"{', '.join(found.rules.enforce_symbols) or 'every symbol'} is judged: {numbers}")
