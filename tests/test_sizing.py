"""How much an entry buys: every vector of the documents, S0's reference with the switches on and off, and what never happens."""

from math import inf, isfinite, nan

import msgspec
import numpy as np
import pytest
from builders import shipped
from hypothesis import given
from hypothesis import settings as runs
from hypothesis import strategies as st
from sizing_reference import LOT, reference

from engine import metrics as m
from engine import reasons
from engine.settings import Flags, Instrument, Sizing
from engine.sizing import caps, risk
from engine.sizing.collateral import DB, HINT, MISSING, Worth, worth
from engine.sizing.predictors import Moment, Predictors, Slip
from engine.sizing.risk import Predicted, constrained
from engine.sizing.size import NOTES, Sizer, Wish, compute_order_qty, round_down
from engine.sizing.telemetry import counted

SHIPPED = shipped()
BTC = SHIPPED.instrument("BTCUSDT")
CENT = Instrument(0.01, LOT, 0.0, 0.0, 0.0, 0.0, 0.0)
STILL = Moment(0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0)
replace = msgspec.structs.replace


class Said:
    """A predictor at each port that says what it was told to say."""

    def __init__(self, rug=None, fill=None, slip=None):
        self.rug, self.fill, self.slip = rug, fill, slip

    def ports(self) -> Predictors:
        return Predictors(self, type("F", (), {"id": "said", "p": lambda _, now, level, step_bps: self.fill})(), self)

    def p(self, now, stop_bps, holding_ms):
        return self.rug

    def of(self, lots, depth):
        return Slip(self.slip, False)


def flags(flow=True, scaled=True) -> Flags:
    return Flags(flow, scaled, True)


def bare(**changes) -> Sizing:
    """Sizing with every cap wide open but those named: names of `SizeCaps` or of `Sizing`."""
    wide = {"perNameCapFraction": 1.0, "perNameCapMaxUsd": 0.0, "lpImpactCapFraction": 1.0, "flowCapFraction": 1.0,
            "flowTradesPer5m": 60.0, "flowCapMinUsd": 0.0, "dailySpendCapPct": 0.0, "dailySpendCapUsd": 0.0, "perMintCapUsd": 0.0}
    own = {k: v for k, v in changes.items() if k not in wide}
    made = replace(SHIPPED.sizing.caps, **{**wide, **{k: v for k, v in changes.items() if k in wide}})
    return replace(SHIPPED.sizing, **{"leverage": 1.0, "notional_cap_usd": 1e12, "min_free_balance_usd": 0.0, "caps": made, **own})


def inputs(**changes) -> caps.Inputs:
    """An account of 10 with a pool of 10, as S0's vectors have it."""
    ten = caps.Inputs(5.0, 1.0, 1.0, 10.0, 10.0, 0.0, 0.0, 1e12, 1e12, 0.0, 10.0, 0.0, 240.0)
    return replace(ten, **changes)


def sized(sizing=None, flow=True, scaled=True, said=None, instrument=CENT, price=1.0, **changes):
    sizer = Sizer(sizing or bare(), flags(flow, scaled), (said or Said()).ports())
    return sizer.size(Wish(price, 12.0, 30_000, inputs(**changes), STILL), instrument)


def whole(qty: float, lot: float) -> bool:
    """Whether that many lots are a whole number, as far as a double can tell."""
    return abs(qty / lot - round(qty / lot)) < 1e-6 + 1e-14 * qty / lot


# S1

@pytest.mark.parametrize("price, free, qty", [(60_000, 2_000, 0.333), (60_000, 50_000, 0.333), (30_000, 500, 0.166)])
def test_the_documents_examples_come_out_to_the_lot(price, free, qty):
    assert compute_order_qty(price, free, 10, 20_000, 0.001) == qty


@pytest.mark.parametrize(
    "missing",
    [
        {"price": 0},
        {"free_balance": 0},
        {"leverage": 0},
        {"notional_cap_usd": 0},
        {"price": nan},
        {"free_balance": float("inf")},
        {"min_free_balance": 3_000},
        {"min_qty": 0.4},
        {"min_notional": 30_000},
    ],
)
def test_what_is_missing_or_below_a_minimum_drops_the_signal_instead_of_inflating_it(missing):
    args = {"price": 60_000, "free_balance": 2_000, "leverage": 10, "notional_cap_usd": 20_000, "lot_step": 0.001} | missing
    assert compute_order_qty(**args) == 0.0


@given(st.floats(1e-3, 1e6), st.floats(0.01, 1e6), st.floats(1, 100), st.floats(1, 1e6), st.sampled_from([0.0001, 0.001, 0.1, 1.0]))
def test_a_size_is_whole_lots_and_never_past_cap_or_balance(price, free, leverage, cap, lot):
    qty = compute_order_qty(price, free, leverage, cap, lot)
    assert qty >= 0
    assert qty * price <= min(cap, free * leverage) * (1 + 1e-9)
    assert whole(qty, lot)


def test_three_tenths_are_three_lots_of_a_tenth():
    assert round_down(0.3, 0.1) == 0.3
    assert round_down(0.29999, 0.1) == 0.2


@pytest.mark.parametrize("price, free, qty", [(60_000, 2_000, 0.333), (60_000, 50_000, 0.333), (30_000, 500, 0.166)])
def test_all_in_is_s1s_whole_formula_under_the_same_caps(price, free, qty):
    s = bare(use_all_in=True, leverage=10.0, notional_cap_usd=20_000.0, min_free_balance_usd=200.0)
    account = {"free_usd": float(free), "equity_usd": 1e6, "liquidity_usd": 1e6, "leverage": 10.0, "base_usd": 1.0}
    got = sized(s, instrument=BTC, price=price, **account)
    assert got.qty == qty == compute_order_qty(price, free, 10, 20_000, 0.001, min_free_balance=200)
    bounded = sized(s, instrument=BTC, price=price, **account, total_limit_usd=100.0)
    assert bounded.cap == "total_exposure" and bounded.margin_usd <= 100


# S0: caps

@pytest.mark.parametrize("trades, flow, margin", [(0, True, 0), (240, True, 5), (0, False, 5)])
def test_flow_follows_the_trading_or_with_the_switch_off_the_liquidity_alone(trades, flow, margin):
    got = sized(flow=flow, trades_5m=float(trades))
    assert got.margin_usd == margin
    if not margin:
        assert (got.cap, got.code, got.numbers, got.note) == ("flow", reasons.NO_AVAILABLE_SIZE, "wanted=5.00 > flow=0.00", "flow")


def test_trades_of_five_minutes_count_as_they_are_and_those_of_a_minute_five_times():
    assert sized(trades_5m=None, trades_60s=3.0).margin_usd == 2.5      # 15 of 60 trades: a quarter of ten
    assert sized(trades_5m=15.0, trades_60s=99.0).margin_usd == 2.5
    assert sized(trades_5m=None, trades_60s=-3.0).margin_usd == 0.0


def test_the_flow_floor_never_makes_liquidity_out_of_nothing():
    assert sized(bare(flowCapMinUsd=4.0), trades_5m=0.0).margin_usd == 4.0
    assert sized(bare(flowCapMinUsd=40.0, lpImpactCapFraction=9.0), trades_5m=0.0, liquidity_usd=3.0).margin_usd == 3.0


BINDING = {
    "arm_cap": ({}, {"arm_fraction": 0.5}, 2.5),
    "wallet_free": ({}, {"free_usd": 2.0}, 2.0),
    "per_name_max": ({"perNameCapMaxUsd": 3.0}, {"name_usd": 1.0}, 2.0),
    "per_name_fraction": ({"perNameCapFraction": 0.3}, {"name_usd": 1.0}, 2.0),
    "lp_impact": ({"lpImpactCapFraction": 0.2}, {}, 2.0),
    "flow": ({"flowCapFraction": 0.2}, {}, 2.0),
    "daily_cap": ({"dailySpendCapPct": 0.8, "dailySpendCapUsd": 1.0}, {"spent_usd": 6.0}, 2.0),
    "usd_cap": ({"perMintCapUsd": 400.0}, {"collateral": Worth(160.0, DB), "name_usd": 0.5}, 2.0),
    "symbol_exposure": ({}, {"name_limit_usd": 3.0, "name_usd": 1.0}, 2.0),
    "total_exposure": ({}, {"total_limit_usd": 3.0, "total_usd": 1.0}, 2.0),
    "notional_cap": ({"notional_cap_usd": 2.0}, {}, 2.0),
}


@pytest.mark.parametrize("name", caps.NAMES)
def test_each_cap_binds_counts_and_is_named(name):
    own, given_, margin = BINDING[name]
    got = sized(bare(**own), **given_)
    assert (got.cap, got.margin_usd) == (name, margin)
    assert got.note == ("ok" if name == "arm_cap" else name)
    assert [row.name for row in got.caps] == list(caps.NAMES)
    assert f"{name}={margin:.2f}" in caps.line(got.caps)


def test_a_share_of_the_equity_a_day_goes_before_an_amount_and_neither_is_no_cap():
    by_amount = sized(bare(dailySpendCapUsd=3.0), spent_usd=1.0)
    assert (by_amount.cap, by_amount.margin_usd) == ("daily_cap", 2.0)
    assert dict(sized().caps)["daily_cap"] == inf and "daily_cap" not in caps.line(sized().caps)


def test_an_account_without_equity_has_nothing_to_spend_a_day():
    assert dict(sized(bare(dailySpendCapPct=0.8, dailySpendCapUsd=9.0), equity_usd=0.0).caps)["daily_cap"] == 0


def test_what_is_said_of_a_notional_is_divided_by_the_leverage():
    rows = dict(sized(bare(leverage=10.0, notional_cap_usd=20.0), leverage=10.0).caps)
    assert (rows["lp_impact"], rows["flow"], rows["notional_cap"]) == (1.0, 1.0, 2.0)
    assert (rows["arm_cap"], rows["wallet_free"], rows["per_name_fraction"]) == (5.0, 10.0, 10.0)


def test_the_first_of_equal_caps_is_the_one_that_is_named():
    assert sized(free_usd=5.0, total_limit_usd=5.0).cap == "arm_cap"
    assert sized(free_usd=4.0, total_limit_usd=4.0).cap == "wallet_free"


def test_a_limit_that_is_overdrawn_leaves_nothing_and_is_not_forgotten():
    got = sized(name_limit_usd=1.0, name_usd=3.0)
    assert (got.qty, got.cap, got.code) == (0.0, "symbol_exposure", reasons.NO_AVAILABLE_SIZE)
    assert got.numbers == "wanted=5.00 > symbol_exposure=0.00"


# S0: the price of the collateral

NOW = 1_700_000_000_000


@pytest.mark.parametrize("price, age_ms, hint, told", [
    (150.0, 0, 0.0, Worth(150.0, DB)), (150.0, 300_000, 99.0, Worth(150.0, DB)), (150.0, 300_001, 99.0, Worth(99.0, HINT)),
    (150.0, 300_001, 0.0, Worth(None, MISSING)), (150.0, -1, 0.0, Worth(None, MISSING)), (None, 0, 99.0, Worth(99.0, HINT)),
    (nan, 0, 0.0, Worth(None, MISSING)), (0.0, 0, 0.0, Worth(None, MISSING)), (-1.0, 0, 2.0, Worth(2.0, HINT)),
])
def test_an_archived_price_counts_while_it_is_young_then_a_hint_then_none(price, age_ms, hint, told):
    limits = replace(SHIPPED.sizing.collateral, priceHintUsd=hint, maxAgeMs=300_000)
    assert worth(limits, NOW, price, NOW - age_ms) == told


def test_without_a_price_the_usd_cap_is_suspended_and_the_size_says_so():
    s = bare(perMintCapUsd=400.0)
    got = sized(s, collateral=Worth(None, MISSING))
    assert (got.note, got.source, got.margin_usd, dict(got.caps)["usd_cap"]) == ("usd_cap_suspended", MISSING, 5.0, inf)
    assert sized(s, collateral=Worth(None, MISSING), free_usd=4.0).note == "wallet_free"
    assert sized(bare(), collateral=Worth(None, MISSING)).note == "ok", "no USD cap, nothing suspended"


def test_the_hint_is_read_from_its_own_variable():
    assert shipped(SOL_PRICE_HINT="140").sizing.collateral.priceHintUsd == 140


# S0: risk

@pytest.mark.parametrize("slip, multiplier, margin", [(500, 0.021, 0.105), (5000, 0.014, 0.07)])
def test_the_three_factors_multiply_to_the_documents_sizes(slip, multiplier, margin):
    got = sized(said=Said(0.9, 0.1, slip))
    assert got.multiplier == pytest.approx(multiplier, abs=1e-12) and got.margin_usd == margin
    assert got.factors == pytest.approx({"rugProb": 0.28, "pFill": 0.25, "expSlipBps": {500: 0.3, 5000: 0.2}[slip]})
    assert (got.note, got.predicted) == ("risk_scaled", Predicted(0.9, 0.1, slip))


def test_with_the_switch_off_risk_is_told_and_takes_nothing():
    got = sized(scaled=False, said=Said(0.9, 0.1, 500))
    assert (got.margin_usd, got.multiplier, got.factors, got.note) == (5.0, 1.0, {}, "ok")
    assert got.predicted.rug_prob == 0.9


@pytest.mark.parametrize("predicted, scale", [
    (Predicted(), 1.0),
    (Predicted(rug_prob=-1.0), 1.0), (Predicted(rug_prob=0.5), 0.6), (Predicted(rug_prob=2.0), 0.2), (Predicted(rug_prob=nan), 1.0),
    (Predicted(p_fill=0.95), 1.0), (Predicted(p_fill=0.45), 0.5), (Predicted(p_fill=-1.0), 0.25), (Predicted(p_fill=inf), 1.0),
    (Predicted(exp_slip_bps=0.0), 1.0), (Predicted(exp_slip_bps=-9.0), 1.0), (Predicted(exp_slip_bps=150.0), 1.0),
    (Predicted(exp_slip_bps=300.0), 0.5), (Predicted(exp_slip_bps=1e9), 0.2), (Predicted(exp_slip_bps=nan), 1.0),
])
def test_each_factor_keeps_to_its_clamps_and_a_prediction_that_is_none_takes_nothing(predicted, scale):
    got = constrained(predicted, SHIPPED.sizing.risk)
    assert got.multiplier == pytest.approx(scale)
    assert len(got.factors) == int(scale < risk.COUNTS)


def test_the_product_is_never_below_its_floor():
    assert constrained(Predicted(1.0, 0.0, 1e9), replace(SHIPPED.sizing.risk, rugFloor=0.0)).multiplier == 0.01


def test_what_risk_leaves_is_dropped_below_a_lot_and_says_so():
    got = sized(said=Said(0.9, 0.1, 5000), instrument=replace(CENT, lot=0.1))
    assert (got.qty, got.code, got.note) == (0.0, reasons.RISK_SCALED_ZERO, reasons.RISK_SCALED_ZERO)
    assert got.numbers == "multiplier=0.0140 of 5.00: 0.07 USD at 1 is less than one lot of 0.1"
    small = sized(said=Said(0.9), instrument=replace(CENT, min_notional_usd=2.0))
    assert small.code == reasons.RISK_SCALED_ZERO and "notional=1.40 (min 2)" in small.numbers


def test_a_cap_that_bound_keeps_its_name_through_the_scaling():
    got = sized(free_usd=4.0, said=Said(0.5))
    assert (got.note, got.cap, got.capped_usd) == ("wallet_free", "wallet_free", 4.0) and 2.4 - LOT <= got.margin_usd <= 2.4


# refusals

ORDINARY = {"price": 60_000.0, "base_usd": 955.0, "leverage": 10.0, "equity_usd": 5000.0, "free_usd": 5000.0, "trades_5m": 400.0}


@pytest.mark.parametrize("changes, code, words", [
    ({"free_usd": 150.0}, reasons.MIN_FREE_BALANCE, "free=150.00 < 200"),
    ({"base_usd": 0.001}, reasons.QTY_ZERO, "0.01 USD at 60000 is less than one lot of 0.001"),
    ({"total_limit_usd": 0.001}, reasons.QTY_ZERO, "less than one lot of 0.001 (total_exposure)"),
    ({"base_usd": nan}, reasons.INVALID_INPUT, "base_usd=nan"),
    ({"liquidity_usd": inf, "equity_usd": -inf}, reasons.INVALID_INPUT, "equity_usd=-inf, liquidity_usd=inf"),
    ({"leverage": 0.0}, reasons.INVALID_INPUT, "leverage=0 <= 0"),
    ({"price": 0.0}, reasons.INVALID_INPUT, "price=0 <= 0"),
    ({"liquidity_usd": 0.0}, reasons.NO_AVAILABLE_SIZE, "wanted=955.00 > lp_impact=0.00"),
    ({"base_usd": 0.0}, reasons.NO_AVAILABLE_SIZE, "wanted=0.00 > arm_cap=0.00"),
    ({"base_usd": 1.0, "price": 5000.0, "min": 0.005}, reasons.BELOW_MINIMUM, "qty=0.002 (min 0.005), notional=10.00 (min 5)"),
    ({"base_usd": 0.9, "price": 4000.0, "notional": 50.0}, reasons.BELOW_MINIMUM, "qty=0.002 (min 0.001), notional=8.00 (min 50)"),
])
def test_a_refusal_carries_its_code_and_the_numbers_that_made_it(changes, code, words):
    changes = ORDINARY | {"liquidity_usd": 1e6} | changes
    instrument = replace(BTC, min_qty=changes.pop("min", BTC.min_qty), min_notional_usd=changes.pop("notional", BTC.min_notional_usd))
    got = sized(SHIPPED.sizing, instrument=instrument, **changes)
    assert (got.qty, got.margin_usd, got.code) == (0.0, 0.0, code) and words in got.numbers
    assert code in reasons.DROPS


def test_as_shipped_the_caps_leave_an_ordinary_entry_as_the_policy_made_it():
    got = sized(SHIPPED.sizing, scaled=False, instrument=BTC, **ORDINARY, name_limit_usd=1000.0, total_limit_usd=5000.0,
                liquidity_usd=70_000.0, collateral=Worth(1.0, HINT))
    assert (got.note, got.qty) == ("ok", 0.159)
    assert min(row.usd for row in got.caps[1:]) >= 1000


# the reference

def drawn(rng: np.random.Generator) -> dict:
    """One set of numbers; zeros, ties and missing values come often."""
    def some(top, none=0.15):
        return 0.0 if rng.random() < none else float(np.round(rng.random() * top, rng.integers(1, 12)))
    x = {"base": some(20), "arm": float(rng.choice([0.005, 0.01, 0.02, 0.5, 1.0])), "free": some(20), "equity": some(40, 0.05),
         "lp": some(60), "trades": float(rng.integers(0, 150)), "spent": some(10),
         "sol": None if rng.random() < 0.2 else float(rng.choice([1.0, 150.0])),
         "name_part": some(1), "name_max": some(10, 0.5), "lp_part": some(1), "flow_part": some(1), "flow_trades": some(90),
         "flow_min": some(20, 0.5), "day_pct": some(1, 0.5), "day_max": some(20, 0.5), "mint_usd": some(800, 0.3)}
    for name, top in (("rug", 1.2), ("fill", 1.2), ("slip", 6000)):
        x[name] = [None, nan, inf, -0.1, some(top), some(top), some(top / 20)][int(rng.integers(0, 7))]
    return x


@pytest.mark.parametrize("flow", [True, False])
@pytest.mark.parametrize("scaled", [True, False])
def test_ten_thousand_sizes_are_the_references(flow, scaled):
    rng = np.random.default_rng([1337, flow, scaled])
    seen: dict[str, int] = {}
    for _ in range(2500):
        x = drawn(rng)
        s = bare(perNameCapFraction=x["name_part"], perNameCapMaxUsd=x["name_max"], lpImpactCapFraction=x["lp_part"],
                 flowCapFraction=x["flow_part"], flowTradesPer5m=x["flow_trades"], flowCapMinUsd=x["flow_min"],
                 dailySpendCapPct=x["day_pct"], dailySpendCapUsd=x["day_max"], perMintCapUsd=x["mint_usd"])
        got = sized(s, flow, scaled, Said(x["rug"], x["fill"], x["slip"]), base_usd=x["base"], arm_fraction=x["arm"], free_usd=x["free"],
                    equity_usd=x["equity"], liquidity_usd=x["lp"], trades_5m=x["trades"], spent_usd=x["spent"],
                    collateral=Worth(x["sol"], MISSING if x["sol"] is None else DB))
        told = reference(x, flow, scaled)
        mine = {"cap": got.cap, "note": got.note, "multiplier": got.multiplier, "factors": set(got.factors), "lots": round(got.qty / LOT)}
        assert mine == told, x
        seen[got.note] = seen.get(got.note, 0) + 1
    assert len(seen) >= 7, f"the draws are too tame: {seen}"


# what never happens

money = st.floats(0, 1e5)
limit = st.floats(-1e4, 1e5)


@st.composite
def wishes(draw):
    i = caps.Inputs(draw(money), draw(st.floats(0, 1)), draw(st.floats(1, 50)), draw(money), draw(money), draw(money), draw(money),
                    draw(limit), draw(limit), draw(money), draw(st.floats(0, 1e7)), draw(st.floats(0, 500)),
                    draw(st.none() | st.floats(0, 2000)),
                    draw(st.sampled_from([Worth(None, MISSING), Worth(1.0, HINT), Worth(150.0, DB)])))
    return Wish(draw(st.floats(0.01, 1e5)), 12.0, 30_000, i, STILL, draw(st.floats(0, 1e4)))


@st.composite
def sizings(draw):
    some = st.floats(0, 1e4)
    made = {"perNameCapFraction": draw(st.floats(0, 2)), "perNameCapMaxUsd": draw(some), "lpImpactCapFraction": draw(st.floats(0, 2)),
            "flowCapFraction": draw(st.floats(0, 2)), "flowTradesPer5m": draw(st.floats(0, 500)), "flowCapMinUsd": draw(some),
            "dailySpendCapPct": draw(st.floats(0, 2)), "dailySpendCapUsd": draw(some), "perMintCapUsd": draw(some)}
    return bare(**made, notional_cap_usd=draw(st.floats(0, 1e6)), use_all_in=draw(st.booleans()),
                min_free_balance_usd=draw(st.floats(0, 500)))


predictions = st.builds(Said, st.none() | st.floats(), st.none() | st.floats(), st.none() | st.floats())
none, lot_sizes = st.just(0.0), st.sampled_from([0.0001, 0.001, 0.1, 1.0])
instruments = st.builds(Instrument, st.just(0.01), lot_sizes, st.floats(0, 5), st.floats(0, 100), none, none, none)


@runs(max_examples=400)
@given(wishes(), sizings(), predictions, instruments, st.booleans(), st.booleans())
def test_no_cap_is_breached_and_every_refusal_has_its_numbers(wish, sizing, said, instrument, flow, scaled):
    got = Sizer(sizing, flags(flow, scaled), said.ports()).size(wish, instrument)
    smallest = min(row.usd for row in got.caps)
    assert got.cap == next(row.name for row in got.caps if row.usd == smallest) and got.capped_usd == smallest
    left = got.multiplier if got.multiplier < risk.COUNTS else 1.0
    assert got.margin_usd <= smallest * left * (1 + 1e-9)
    assert 0 < got.multiplier <= 1 and got.note in NOTES
    if got.qty:
        assert not got.code and whole(got.qty, instrument.lot)
        assert got.qty >= instrument.min_qty and got.notional_usd >= instrument.min_notional_usd
        assert wish.inputs.free_usd >= sizing.min_free_balance_usd
    else:
        assert got.code in reasons.DROPS and got.numbers and not got.margin_usd and not got.notional_usd


@given(wishes(), sizings(), predictions, instruments)
def test_risk_never_adds_and_no_liquidity_is_no_size(wish, sizing, said, instrument):
    plain = Sizer(sizing, flags(scaled=False), said.ports()).size(wish, instrument)
    under_risk = Sizer(sizing, flags(scaled=True), said.ports()).size(wish, instrument)
    assert under_risk.qty <= plain.qty
    dry = replace(wish, inputs=replace(wish.inputs, liquidity_usd=0.0))
    assert Sizer(sizing, flags(), said.ports()).size(dry, instrument).qty == 0


@given(wishes(), sizings(), instruments, st.sampled_from(["free_usd", "name_limit_usd", "total_limit_usd", "liquidity_usd", "equity_usd"]))
def test_more_room_is_never_a_smaller_size(wish, sizing, instrument, name):
    sizer = Sizer(sizing, flags(), Said().ports())
    wider = replace(wish, inputs=replace(wish.inputs, **{name: 2 * abs(getattr(wish.inputs, name)) + 1}))
    assert sizer.size(wider, instrument).qty >= sizer.size(wish, instrument).qty


# metrics

class Tally:
    """A meter that adds up."""

    def __init__(self):
        self.values: dict[str, float] = {}

    def inc(self, series, by=1, **labels):
        self.values[series(**labels)] = self.values.get(series(**labels), 0) + by

    def set(self, series, value, **labels):
        self.values[series(**labels)] = value

    def observe(self, series, value, **labels):
        self.values[f"{series} seen"] = self.values.get(f"{series} seen", 0) + 1


def test_every_sizing_is_counted_by_its_cap_and_a_plan_by_its_volume():
    meter = Tally()
    counted(meter, "BTCUSDT", sized(said=Said(0.9, 0.1, 500)))
    counted(meter, "BTCUSDT", sized(trades_5m=0.0))
    counted(meter, "BTCUSDT", sized(free_usd=4.0, collateral=Worth(1.0, HINT)))
    counted(meter, "BTCUSDT", sized(base_usd=nan))
    assert meter.values == {
        'policy_sizing_cap_limit_total{cap="arm_cap"}': 1, 'policy_sizing_cap_limit_total{cap="flow"}': 1,
        'policy_sizing_cap_limit_total{cap="wallet_free"}': 1, 'policy_sizing_sol_price_source_total{source="missing"}': 2,
        'policy_sizing_sol_price_source_total{source="hint"}': 1, "policy_sizing_risk_multiplier": 1.0,
        "policy_sizing_risk_multiplier_seen seen": 3, 'policy_sizing_risk_scaled_total{factor="rugProb"}': 1,
        'policy_sizing_risk_scaled_total{factor="pFill"}': 1, 'policy_sizing_risk_scaled_total{factor="expSlipBps"}': 1,
        'policy_plan_notional_usd_total{symbol="BTCUSDT"}': pytest.approx(4.105)}
    assert m.SIZING_CAP_LIMIT_TOTAL.labels["cap"] == caps.NAMES and "flow" in caps.NAMES


def test_with_the_switch_off_the_gauge_stands_at_one_and_no_factor_is_counted():
    meter = Tally()
    counted(meter, "BTCUSDT", sized(scaled=False, said=Said(0.9, 0.1, 500)))
    assert meter.values[str(m.SIZING_RISK_MULTIPLIER)] == 1.0
    assert not [name for name in meter.values if name.startswith(str(m.SIZING_RISK_SCALED_TOTAL))]


def test_a_size_survives_the_wire_with_its_whole_table():
    got = sized(said=Said(0.9, 0.1, 500))
    again = msgspec.msgpack.decode(msgspec.msgpack.encode(got), type=type(got))
    assert again == got and all(isfinite(row.usd) or row.usd == inf for row in again.caps)
