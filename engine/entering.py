"""From a scored signal to the orders of an entry, or to the first objection: gates, guards, policy, arm, size, ladder, controls.

One road of stages; each returns a `Block` (the coded no with its numbers) or lets the signal pass. What a stage needs it reads from the
Desk's state, and nothing here changes it but the watch over volatility: only the Desk sends.
"""
from collections import deque
from collections.abc import Iterator
from math import isfinite
from typing import NamedTuple

import numpy as np

from engine import guards, policy, reasons
from engine.execution.ladder import Rung, ladder, rung_id
from engine.facts import BUY, ENTRY, LIMIT, MAIN, TWIN, Decision, Order, Scored, account_of
from engine.fillprob.gate import PLACE, FillProbGate, Gating, Judged
from engine.fillprob.placement import Act, Placement, placement_of
from engine.portfolio import Portfolio
from engine.rewards.attribution import Choice, Rewards
from engine.rewards.context import context_of
from engine.scoring.features import FEATURES
from engine.settings import Instrument, Mind
from engine.sizing.caps import Inputs
from engine.sizing.collateral import Worth, worth
from engine.sizing.fill import InForce, Modelled, wired
from engine.sizing.predictors import Diffusion, Predictors, Walk, moment
from engine.sizing.size import Sized, Sizer, Wish
from engine.state import DAY_MS, FULL, PAPER, State, Touch

KEPT = 1000
SIGMA = FEATURES.index("sigma")
ROUTED = {PAPER: "paper", FULL: "full"}


class Entry(NamedTuple):
    """What is sent: the decision with its orders, best level first, and the choice whose reward it earns."""
    decision: Decision
    orders: list[Order]
    choice: Choice
    sized: Sized
    rungs: tuple[Rung, ...]


def sigma_of(features: bytes) -> float:
    """The feature `sigma` of a row, bps of ten seconds; NaN where the row is not the declared one."""
    row = np.frombuffer(features, np.float32)
    return float(row[SIGMA]) if len(row) == len(FEATURES) else float("nan")


class Entering:
    """The stages as the settings wire them."""

    def __init__(self, mind: Mind):
        self.mind = mind
        self.rules = guards.Rules(mind.risk, mind.gates, mind.controls, mind.sizing.min_free_balance_usd)
        self.curve = wired(mind.curve, mind.fill_model)
        self.sizer = Sizer(mind.sizing, mind.features, Predictors(Diffusion(mind.sizing.tail), self.curve, Walk()))
        self.rewards = Rewards(mind.rewards, mind.bandit, mind.features)
        self.gate = FillProbGate(mind.fill_prob, None)
        self.sizings: deque[tuple[str, Sized]] = deque(maxlen=KEPT)     # for who counts them; decisions read nothing of it
        self.judged: deque[Judged] = deque(maxlen=KEPT)                 # likewise

    def drained(self) -> Iterator[tuple[str, Sized]]:
        """The sizings since the last look, refused ones too, with their symbols."""
        while self.sizings:
            yield self.sizings.popleft()

    def verdicts(self) -> Iterator[Judged]:
        """What the gate had to say since the last look."""
        while self.judged:
            yield self.judged.popleft()

    def gated(self, gating: Gating | None, state: State) -> None:
        """The gate of this start; None: as the settings have it, without a model."""
        self.gate = gating.gate(state.gate) if gating else FillProbGate(self.mind.fill_prob, None, None, state.gate)

    # what it costs nothing to say

    def known(self, scored: Scored, state: State) -> policy.Block | None:
        """Halts, and signals that nobody can judge."""
        signal = scored.signal
        if state.kills:
            return policy.Block(reasons.HALTED, state.halted)
        touch = state.touches.get(signal.symbol)
        if touch is None:
            return policy.Block(reasons.NO_MARKET, f"no book of {signal.symbol} yet")
        age = touch.ts_ms - signal.ts_ms     # by its own market: another symbol's clock, or a tick's, says nothing of it
        if age > self.mind.desk.max_signal_age_ms:
            return policy.Block(reasons.STALE_SIGNAL, f"age={age}ms > {self.mind.desk.max_signal_age_ms}ms")
        if not isfinite(scored.p + signal.entry + signal.stop + signal.target):
            return policy.Block(reasons.INVALID_INPUT, f"p={scored.p}, entry={signal.entry}, stop={signal.stop}, target={signal.target}")
        return policy.low_confidence(scored.p, self.mind.policy)

    # what may be sent

    def enter(self, scored: Scored, state: State) -> Entry | policy.Block:
        """The orders of an entry, or the first objection."""
        signal, mind = scored.signal, self.mind
        instrument, touch = mind.symbols[signal.symbol], state.touches[signal.symbol]
        if mind.risk.volatility_ceiling_bps:
            state.watch.on_sigma(signal.symbol, sigma_of(signal.features), mind.risk)
        if block := state.warmth.block(signal.symbol, signal.ts_ms, mind.warmup) or state.pressure.block(mind.backpressure):
            return block
        account, route = self.account(state)
        books = state.twins if account else state.portfolio
        order_id = f"{'T' if account else 'E'}-{signal.id}"
        wish = self.wish(scored, order_id, books, instrument, touch, state)
        if block := guards.first(guards.BEFORE, wish, state.watch, self.rules):
            return block
        leverage = mind.sizing.leverage
        intent = policy.Intent(signal.symbol, signal.side, scored.p, signal.entry, state.now_ms / 1000, 0.0, signal.regime, leverage)
        code, numbers, allocation = policy.decide(intent, books, mind.policy, mind.desk.risk_score)
        if code not in reasons.ALLOWED:
            return policy.Block(code, numbers)
        if scored.p < scored.tau_entry:
            return policy.Block(reasons.BELOW_TAU, f"p={scored.p:.4f} < tau_entry={scored.tau_entry:.4f}")
        equity = books.equity_usd + books.realized_usd
        choice = self.rewards.choose(
            order_id, signal.symbol, context_of(signal.features, scored.p, books.total_exposure_usdt, equity), state.now_ms)
        sized = self.size(scored, books, allocation.margin_usd, choice, instrument, state)
        self.sizings.append((signal.symbol, sized))
        if sized.code:
            return policy.Block(sized.code, sized.numbers)
        return self.spread(scored, code, numbers, wish, sized, choice, instrument, route, state)

    def account(self, state: State) -> tuple[str, str]:
        """Which account the next entry is for, and its route: on a real venue whatever is not real is the paper account's."""
        mode = state.safe.mode(state.mode)
        real = self.mind.venue.mode == "real"
        return (TWIN if real and mode == PAPER else MAIN), ROUTED[mode if real else PAPER]

    def wish(self, scored: Scored, order_id: str, books: Portfolio, instrument: Instrument, touch: Touch, state: State) -> guards.Wish:
        """The entry as the guards see it, before it has a size."""
        s, tick = scored.signal, instrument.tick
        depth = s.bid_depth if s.side == BUY else s.ask_depth
        return guards.Wish(
            order_id, s.symbol, s.side, s.entry, self.mind.sizing.leverage, instrument.maintenance_margin_rate, state.now_ms, s.ts_ms,
            touch.bid * tick, touch.ask * tick, touch.ts_ms, depth * instrument.lot, books.available_capital_usdt,
            known=order_id in books.plans or order_id in books.orders or order_id in books.closed)

    def size(self, scored: Scored, books: Portfolio, base_usd: float, choice: Choice, instrument: Instrument, state: State) -> Sized:
        """What it may commit and buys, under every cap and after risk."""
        s, mind = scored.signal, self.mind
        sign, limits = (1, mind.policy) if s.side == BUY else (-1, mind.policy)
        lots = s.bid_depth if sign > 0 else s.ask_depth
        inputs = Inputs(
            base_usd, self.rewards.arms[choice.arm].fraction, mind.sizing.leverage, books.equity_usd + books.realized_usd,
            books.available_capital_usdt, books.exposure_by_symbol.get(s.symbol, 0.0), books.total_exposure_usdt,
            limits.max_exposure_per_symbol_usdt, limits.max_total_exposure_usdt,
            state.spent_on(state.now_ms // DAY_MS, account_of(choice.order_id)), lots * instrument.lot * s.entry, float(s.trades),
            collateral=self.collateral(state))
        stop_bps = 1e4 * abs(s.entry - s.stop) / s.entry if s.entry > 0 else float("nan")
        step_bps = 1e4 * mind.ladder.step_ticks * instrument.tick / s.entry if s.entry > 0 else 0.0
        price = self.dearest(scored, choice, instrument, state)
        wish = Wish(price, stop_bps, mind.desk.max_holding_ms, inputs, moment(s.features, sign), float(lots),
                    mind.gates.liquidity_by_side.levels, step_bps=step_bps, fill=self.filling(scored, choice, instrument, state))
        return self.sizer.size(wish, instrument)

    def found(self, scored: Scored, choice: Choice, instrument: Instrument, state: State) -> Placement:
        """The market as the entry finds it, and how long it may rest."""
        touch, patience_ms = state.touches[scored.signal.symbol], self.rewards.arms[choice.arm].patience(self.mind.desk.entry_ttl_ms)
        return placement_of(scored.signal, touch.bid, touch.ask, instrument.tick, patience_ms)

    def filling(self, scored: Scored, choice: Choice, instrument: Instrument, state: State) -> InForce:
        """The fill curve in force; a model's is one for each order."""
        if not isinstance(self.curve, Modelled):
            return self.curve
        return self.curve.at(self.found(scored, choice, instrument, state), scored.signal.side, self.mind.ladder.step_ticks)

    def collateral(self, state: State) -> Worth:
        """The price of the collateral in force."""
        of = self.mind.sizing.collateral
        touch = state.touches.get(of.symbol) if of.symbol else None
        if touch is None or touch.bid <= 0 or touch.ask <= 0:
            return worth(of, state.now_ms)
        return worth(of, state.now_ms, (touch.bid + touch.ask) / 2 * self.mind.symbols[of.symbol].tick, touch.ts_ms)

    def dearest(self, scored: Scored, choice: Choice, instrument: Instrument, state: State) -> float:
        """The highest price at which a level may rest, so that all levels together commit no more than the caps allow."""
        s, tick, rules = scored.signal, instrument.tick, self.mind.ladder
        if s.side == BUY or not 0 < s.entry < float("inf"):
            return s.entry
        touch = state.touches[s.symbol]
        first = max(round(s.entry / tick), touch.ask, touch.bid + 1) + self.rewards.arms[choice.arm].offset
        return round((first + (len(rules.fractions) - 1) * rules.step_ticks) * tick, 10)

    def spread(self, scored: Scored, code: str, numbers: str, wish: guards.Wish, sized: Sized, choice: Choice, instrument: Instrument,
               route: str, state: State) -> Entry | policy.Block:
        """Over the levels of the ladder, past the controls on the order itself and the fill-probability gate, into orders."""
        s, mind, now = scored.signal, self.mind, state.now_ms
        arm, sign, touch = self.rewards.arms[choice.arm], 1 if s.side == BUY else -1, state.touches[s.symbol]
        here, step_bps = moment(s.features, sign), 1e4 * mind.ladder.step_ticks * instrument.tick / s.entry

        curve = self.filling(scored, choice, instrument, state)

        def fill(steps: float) -> float:
            return curve.p(here, steps, step_bps) if here is not None else 1.0
        least = state.pressure.min_fill_probability(mind.ladder.min_fill_probability, mind.backpressure)
        rungs = ladder(s.side, round(s.entry / instrument.tick), touch.bid, touch.ask, round(sized.qty / instrument.lot), instrument,
                       mind.ladder, fill, least, arm.offset, mind.venue.maker_only)
        if rungs.refusal:
            return rungs.refusal
        qty = round(rungs.lots * instrument.lot, 12)
        wish = guards.sized(wish, qty, len(rungs.kept), rungs.kept[0].ticks * instrument.tick)
        if block := guards.first(guards.AFTER, wish, state.watch, self.rules):
            return block
        leverage = mind.sizing.leverage
        wanted = sized.wanted_usd * leverage
        price = round(rungs.kept[0].ticks * instrument.tick, 10)
        patience_ms = arm.patience(mind.desk.entry_ttl_ms)
        found = self.found(scored, choice, instrument, state)
        judged = self.gate.judge(Act(PLACE, s.symbol, s.side, price, qty, placement=found), now)
        if judged.lines or judged.evidence:
            self.judged.append(judged)
        if judged.reason:
            return policy.Block(judged.reason, judged.numbers)
        decision = Decision(
            f"D-{s.id}", scored, code, numbers, qty * price / leverage, sized.cap, qty, price, leverage, route, state.epoch, now, wanted,
            choice, sized, tuple((r.level, r.ticks, r.lots, r.p) for r in rungs.kept), judged.word)
        expires = now + patience_ms
        orders = [
            Order(rung_id(wish.order_id, n), ENTRY, wish.order_id, s.symbol, s.side, round(rung.lots * instrument.lot, 12),
                  round(rung.ticks * instrument.tick, 10), LIMIT, mind.venue.post_only, False, route, state.epoch, now, expires,
                  None if n else decision)
            for n, rung in enumerate(rungs.kept)]
        return Entry(decision, orders, choice, sized, rungs.kept)
