"""What the guards remember: the day's result, the streak, the last wins, rough markets, and when orders were sent.

A fold of closed entries, of the feature `sigma` and of own orders; the rows of `engine/guards.py` read it. All times are market ms.
Results of the paper account beside a real one are not handed in, neither twins' nor those of a fail-safe: they are no trades of
the desk (DECISIONS, 28).
"""
import msgspec

from engine.reasons import DAILY_CAP, PRECISION_HALT, STREAK_HALT, VOLATILITY_HALT
from engine.settings import Risk

DAY_MS, MINUTE_MS, SECOND_MS = 86_400_000, 60_000, 1_000


class Watch(msgspec.Struct):
    """`triggers` counts by reason how often a halt began; a halt that is prolonged or repeated within the same day counts once."""
    day: int = -1                      # UTC day of the last result
    day_usd: float = 0.0
    capped_day: int = -1               # the day on which the cap was reached,
    capped_usd: float = 0.0            # and the cap that it was
    losses: int = 0                    # in a row
    streak_until_ms: int = 0
    wins: list[bool] = []              # of the last entries, oldest first
    fresh: int = 0                     # entries closed since the last precision halt
    precision_until_ms: int = 0
    rough: dict[str, float] = {}       # symbols whose volatility halts, with the value that began it
    sent: list[int] = []               # of the last minute
    triggers: dict[str, int] = {}

    def on_outcome(self, net_usd: float, closed_ms: int, rules: Risk) -> None:
        """An entry of one level was closed with this result after fees."""
        self.on_result(net_usd, closed_ms, rules)
        self.on_ended(net_usd, closed_ms, rules)

    def on_ended(self, net_usd: float, closed_ms: int, rules: Risk) -> None:
        """The last level of an entry was closed, and all of them came to this after fees."""
        self._streak(net_usd, closed_ms, rules)
        self._precision(net_usd, closed_ms, rules)

    def capped(self, now_ms: int, cap_usd: float) -> bool:
        """Whether the day's loss has reached this cap (0: none). What is earned later does not lift it; a cap that is raised does."""
        day = now_ms // DAY_MS
        reached = self.day == day and not self.day_usd > -cap_usd
        return cap_usd > 0 and (reached or (self.capped_day == day and self.capped_usd >= cap_usd))

    def on_sigma(self, symbol: str, sigma_bps: float, rules: Risk) -> None:
        """The symbol's realised volatility; one that is no number counts as rough."""
        if not rules.volatility_ceiling_bps:
            self.rough.pop(symbol, None)
        elif symbol in self.rough:
            if sigma_bps <= min(rules.volatility_resume_bps or rules.volatility_ceiling_bps, rules.volatility_ceiling_bps):
                del self.rough[symbol]
        elif not sigma_bps <= rules.volatility_ceiling_bps:
            self.rough[symbol] = sigma_bps
            self._count(VOLATILITY_HALT)

    def on_sent(self, now_ms: int, orders: int = 1) -> None:
        """So many orders left the desk, entries or exits."""
        gone = sum(1 for at in self.sent if at <= now_ms - MINUTE_MS)
        self.sent[:gone] = []
        self.sent += [now_ms] * orders

    def sent_since(self, after_ms: int) -> int:
        """Orders sent later than this."""
        return sum(1 for at in self.sent if at > after_ms)

    @property
    def precision(self) -> float:
        """Share of won entries among the last; NaN where there is none."""
        return sum(self.wins) / len(self.wins) if self.wins else float("nan")

    def _count(self, reason: str) -> None:
        self.triggers[reason] = self.triggers.get(reason, 0) + 1

    def on_result(self, net_usd: float, closed_ms: int, rules: Risk) -> None:
        """A level was closed with this result after fees; the day knows it at once, whatever else of its entry is still open."""
        day = closed_ms // DAY_MS
        if day < self.day:      # another symbol's clock is a little behind: yesterday is over
            return
        if day > self.day:
            self.day, self.day_usd = day, 0.0
        self.day_usd = round(self.day_usd + net_usd, 6)
        cap = abs(rules.daily_loss_cap_usd)
        if cap and not self.day_usd > -cap and self.capped_day != day:
            self.capped_day, self.capped_usd = day, cap
            self._count(DAILY_CAP)

    def _streak(self, net_usd: float, closed_ms: int, rules: Risk) -> None:
        self.losses = 0 if net_usd >= 0 else self.losses + 1
        if not rules.loss_streak_max or self.losses < rules.loss_streak_max:
            return
        self.losses = 0
        if closed_ms >= self.streak_until_ms:      # what was open when the halt began does not prolong it
            self.streak_until_ms = closed_ms + round(rules.session_cooldown_minutes * MINUTE_MS)
            self._count(STREAK_HALT)

    def _precision(self, net_usd: float, closed_ms: int, rules: Risk) -> None:
        self.wins.append(net_usd > 0)
        del self.wins[:-rules.precision_window]
        self.fresh += 1
        # a window of results from after the halt: the old ones are no news, and while it lasts no new ones come
        if self.fresh >= rules.precision_window and self.precision < rules.precision_floor and closed_ms >= self.precision_until_ms:
            self.fresh, self.precision_until_ms = 0, closed_ms + round(rules.session_cooldown_minutes * MINUTE_MS)
            self._count(PRECISION_HALT)
