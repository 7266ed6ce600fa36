"""S4: the seven scenarios of its document (also run as a program), and everything that DECISIONS 11–15 settle."""

import math

import pytest
from builders import settings
from hypothesis import given
from hypothesis import strategies as st

from engine import policy
from engine.policy import ExecutionPolicy, Intent, OpenEntry, PortfolioState, allocate, decide
from engine.reasons import (
    ALLOW_NEW_ENTRY,
    ALLOW_SCALE_IN,
    BLOCK_COOLDOWN,
    BLOCK_EXISTING_POSITION,
    BLOCK_INSUFFICIENT_CAPITAL,
    BLOCK_LOW_CONFIDENCE,
    BLOCK_MAX_EXPOSURE,
    BLOCK_MAX_POSITIONS,
    BLOCK_REGIME_RULE,
    BLOCK_SCALE_IN_RULE,
    DECISIONS,
    INVALID_INPUT,
    PORTFOLIO_UNREADABLE,
)

SEVEN = {
    "POLICY_MAX_POSITIONS_TOTAL": "5",
    "POLICY_MAX_PER_SYMBOL": "2",
    "POLICY_MAX_PER_REGIME": "3",
    "POLICY_MAX_EXPOSURE_TOTAL": "2000",
    "POLICY_MAX_EXPOSURE_PER_SYMBOL": "500",
    "POLICY_COOLDOWN_SYMBOL": "60",
    "POLICY_COOLDOWN_GLOBAL": "30",
}
BTC = {"symbol": "BTCUSDT", "side": "BUY", "confidence": 0.85, "entry_price": 50_000.0, "quantity": 0.01}
LONG_75 = {"BTCUSDT": [OpenEntry("long", 0.005, 50_000.0, 0.75)]}


def seven() -> list[tuple[str, bool]]:
    """The document's seven scenarios with its own limits: (name, as expected)."""
    s = settings(**SEVEN)
    p = ExecutionPolicy(s.policy, s.symbols)
    held = PortfolioState(1, LONG_75, {"bull": 1}, 250.0, {"BTCUSDT": 250.0}, 4750.0)
    heavy = PortfolioState(1, LONG_75, {"bull": 1}, 480.0, {"BTCUSDT": 480.0}, 4520.0)
    fresh = PortfolioState(available_capital_usdt=5000.0)
    return [
        ("a confident first entry is allowed", p.allow_new_entry(BTC, fresh)[0] == ALLOW_NEW_ENTRY),
        (
            "low confidence is blocked",
            p.allow_new_entry(BTC | {"confidence": 0.65}, fresh) == (BLOCK_LOW_CONFIDENCE, "confidence=0.65 < 0.70"),
        ),
        (
            "the fifth position is the last",
            p.allow_new_entry(BTC, PortfolioState(5, available_capital_usdt=5000.0))[0] == BLOCK_MAX_POSITIONS,
        ),
        ("a better signal scales in", p.allow_new_entry(BTC | {"entry_price": 51_000.0, "quantity": 0.002}, held)[0] == ALLOW_SCALE_IN),
        (
            "a barely better one does not",
            p.allow_new_entry(BTC | {"entry_price": 51_000.0, "quantity": 0.002, "confidence": 0.77}, held)
            == (BLOCK_SCALE_IN_RULE, "new_confidence=0.77 <= existing=0.75 + delta=0.05"),
        ),
        (
            "the symbol's exposure is bounded",
            p.allow_new_entry(BTC | {"entry_price": 51_000.0}, heavy) == (BLOCK_MAX_EXPOSURE, "symbol_exposure=$480 + $510 > max=$500"),
        ),
        ("the order has a size", math.isclose(p.compute_order_size(BTC | {"quantity": 0, "leverage": 10}, fresh), 0.1)),
    ]


@pytest.mark.parametrize("name, ok", seven())
def test_each_of_the_seven_scenarios_of_the_document_holds(name, ok):
    assert ok, name


def account(**more) -> PortfolioState:
    return PortfolioState(**({"available_capital_usdt": 5000.0} | more))


def wish(**more) -> Intent:
    return Intent(
        **({"symbol": "BTCUSDT", "side": "BUY", "confidence": 0.85, "price": 50_000.0, "now_s": 10_000.0, "leverage": 10.0} | more)
    )


LIMITS = settings().policy


@pytest.mark.parametrize(
    "confidence, code",
    [
        (0.69, BLOCK_LOW_CONFIDENCE),
        (0.70, ALLOW_NEW_ENTRY),
        (1.0, ALLOW_NEW_ENTRY),
        (1.01, BLOCK_LOW_CONFIDENCE),
        (math.nan, BLOCK_LOW_CONFIDENCE),
        (math.inf, BLOCK_LOW_CONFIDENCE),
    ],
)
def test_confidence_at_the_minimum_passes_and_anything_that_is_no_probability_does_not(confidence, code):
    assert decide(wish(confidence=confidence), account(), LIMITS)[0] == code


@pytest.mark.parametrize(
    "last, code", [(None, ALLOW_NEW_ENTRY), (9_941.0, BLOCK_COOLDOWN), (9_940.0, ALLOW_NEW_ENTRY), (10_005.0, BLOCK_COOLDOWN)]
)
def test_the_global_cooldown_passes_when_it_has_elapsed_and_a_clock_that_ran_back_has_elapsed_nothing(last, code):
    assert decide(wish(), account(last_trade_time=last), LIMITS)[0] == code


def test_the_remaining_cooldown_is_said_in_seconds():
    assert decide(wish(), account(last_trade_time=9_970.0), LIMITS)[:2] == (BLOCK_COOLDOWN, "global_cooldown=30s remaining")
    assert decide(wish(), account(last_trade_by_symbol={"BTCUSDT": 9_880.0}), LIMITS)[:2] == (
        BLOCK_COOLDOWN,
        "symbol_cooldown=180s remaining",
    )


def test_a_cooldown_without_a_clock_is_not_over():
    assert decide(wish(now_s=None), account(last_trade_time=1.0), LIMITS)[0] == BLOCK_COOLDOWN


@pytest.mark.parametrize(
    "exposure, quantity, code",
    [
        (4_500.0, 0.1, ALLOW_NEW_ENTRY),  # 4,500 + 500 = 5,000 is not beyond
        (4_500.0, 0.1001, BLOCK_MAX_EXPOSURE),
        (5_000.0, 0.0001, BLOCK_MAX_EXPOSURE),  # at the limit already
    ],
)
def test_total_exposure_is_margin_and_blocks_at_the_limit_or_beyond_it(exposure, quantity, code):
    assert decide(wish(quantity=quantity), account(total_exposure_usdt=exposure), LIMITS)[0] == code


def entries(n: int, side: str = "long", confidence: float = 0.71) -> dict:
    return {"positions_by_symbol": {"BTCUSDT": [OpenEntry(side, 0.01, 50_000.0, confidence)] * n}, "total_positions": n}


@pytest.mark.parametrize(
    "held, more, code",
    [
        (entries(1), {}, ALLOW_SCALE_IN),
        (entries(2), {}, ALLOW_SCALE_IN),
        (entries(3), {}, BLOCK_SCALE_IN_RULE),
        (entries(1, "short"), {}, BLOCK_SCALE_IN_RULE),
        (entries(1, confidence=0.80), {}, BLOCK_SCALE_IN_RULE),
        (entries(1, confidence=0.75), {"confidence": 0.80}, BLOCK_SCALE_IN_RULE),  # 0.80 is not above 0.75 + 0.05
        (entries(1, confidence=0.75), {"confidence": 0.81}, ALLOW_SCALE_IN),
    ],
)
def test_scaling_in_needs_the_same_direction_a_better_confidence_and_at_most_two_entries_after_the_first(held, more, code):
    assert decide(wish(**more), account(**held), LIMITS)[0] == code


def test_all_open_entries_must_have_the_direction():
    mixed = [OpenEntry("long", 0.01, 50_000.0, 0.71), OpenEntry("short", 0.01, 50_000.0, 0.71)]
    code, numbers, _ = decide(wish(), account(positions_by_symbol={"BTCUSDT": mixed}, total_positions=2), LIMITS)
    assert (code, numbers) == (BLOCK_SCALE_IN_RULE, "existing_direction=short, new_side=BUY")


def test_with_scaling_in_off_an_existing_position_blocks():
    off = settings(POLICY_ALLOW_SCALE_IN="no").policy
    assert decide(wish(), account(**entries(1)), off)[:2] == (BLOCK_EXISTING_POSITION, "existing_position=true, scale_in=DISABLED")


def test_a_scale_in_goes_through_the_later_steps_too():
    assert decide(wish(), account(**entries(1), exposure_by_symbol={"BTCUSDT": 1000.0}), LIMITS)[0] == BLOCK_MAX_EXPOSURE
    assert decide(wish(), account(**entries(2)), settings(POLICY_MAX_PER_SYMBOL="2").policy)[:2] == (
        BLOCK_MAX_POSITIONS,
        "symbol_positions=3 > max=2",
    )
    assert decide(wish(regime="bull"), account(**entries(1), positions_by_regime={"bull": 5}), LIMITS)[:2] == (
        BLOCK_REGIME_RULE,
        "regime=bull, positions=5 >= max=5",
    )


def test_the_first_step_that_objects_decides():
    worst = account(last_trade_time=9_999.0, total_positions=10, total_exposure_usdt=5_000.0, positions_by_regime={"unknown": 5})
    assert decide(wish(confidence=0.5), worst, LIMITS)[0] == BLOCK_LOW_CONFIDENCE
    assert decide(wish(), worst, LIMITS)[0] == BLOCK_COOLDOWN
    worst.last_trade_time = None
    assert decide(wish(), worst, LIMITS)[0] == BLOCK_MAX_POSITIONS
    worst.total_positions = 0
    assert decide(wish(), worst, LIMITS)[0] == BLOCK_MAX_EXPOSURE


@pytest.mark.parametrize(
    "field, value", [("available_capital_usdt", math.nan), ("total_exposure_usdt", math.inf), ("exposure_by_symbol", {"X": math.nan})]
)
def test_a_portfolio_that_cannot_be_read_blocks(field, value):
    assert decide(wish(), account(**{field: value}), LIMITS)[0] == PORTFOLIO_UNREADABLE


def test_no_portfolio_at_all_blocks():
    assert ExecutionPolicy(LIMITS).allow_new_entry(BTC, None) == (PORTFOLIO_UNREADABLE, "no portfolio")


@pytest.mark.parametrize(
    "more, held, numbers",
    [
        ({"confidence": 0.65}, {}, "confidence=0.65 < 0.70"),
        ({}, {"last_trade_time": 9_970.0}, "global_cooldown=30s remaining"),
        ({}, {"last_trade_by_symbol": {"BTCUSDT": 9_760.0}}, "symbol_cooldown=60s remaining"),
        ({}, {"total_positions": 10}, "total_positions=10 >= max=10"),
        ({"quantity": 0.12}, {"total_exposure_usdt": 4_500.0}, "total_exposure=$4500 + $600 > max=$5000"),
        ({"quantity": 0.1}, {"exposure_by_symbol": {"BTCUSDT": 510.0}}, "symbol_exposure=$510 + $500 > max=$1000"),
        ({"side": "SELL"}, entries(1), "existing_direction=long, new_side=SELL"),
        ({}, entries(3), "scale_in_count=2 >= max=2"),
        ({"regime": "bull"}, {"positions_by_regime": {"bull": 5}}, "regime=bull, positions=5 >= max=5"),
    ],
)
def test_each_objection_is_said_in_the_documents_words(more, held, numbers):
    assert decide(wish(**more), account(**held), LIMITS)[1] == numbers


@pytest.mark.parametrize("price", [0.0, -1.0, math.nan, math.inf])
def test_a_price_that_is_none_blocks(price):
    assert decide(wish(price=price), account(), LIMITS)[0] == INVALID_INPUT


@pytest.mark.parametrize(
    "exposure, margin, cap, code",
    [
        (0.0, 955.0, "wanted", ""),
        (500.0, 500.0, "symbol_exposure", ""),
        (990.0, 10.0, "symbol_exposure", ""),
        (990.5, 0.0, "symbol_exposure", BLOCK_INSUFFICIENT_CAPITAL),
        (1_200.0, 0.0, "symbol_exposure", BLOCK_INSUFFICIENT_CAPITAL),
    ],
)
def test_the_allocation_is_a_fifth_times_the_multiplier_under_the_hard_caps(exposure, margin, cap, code):
    got = allocate(wish(), account(exposure_by_symbol={"BTCUSDT": exposure}), LIMITS)
    assert (got.margin_usd, got.cap, got.block.code if got.block else "") == (pytest.approx(margin), cap, code)


def test_a_small_allocation_is_lifted_to_ten_dollars_within_headroom_and_nothing_is_never_lifted():
    assert allocate(wish(), account(available_capital_usdt=30.0), LIMITS).margin_usd == 10.0
    assert allocate(wish(), account(available_capital_usdt=9.99), LIMITS).block.code == BLOCK_INSUFFICIENT_CAPITAL
    assert allocate(wish(), account(), LIMITS, risk_score=0.0).margin_usd == 0.0
    assert allocate(wish(), account(available_capital_usdt=0.0), LIMITS).margin_usd == 0.0


def test_the_comment_of_the_document_is_the_profile_015_and_1():
    annotated = settings(POLICY_CONF_MULT_BASE="0.15", POLICY_CONF_MULT_SLOPE="1.0").policy
    assert allocate(wish(confidence=0.7), account(available_capital_usdt=1000.0), annotated).margin_usd == pytest.approx(200 * 0.85)
    assert allocate(wish(confidence=1.0), account(available_capital_usdt=1000.0), annotated).margin_usd == pytest.approx(200 * 1.15)


def test_the_log_lines_are_those_of_the_document():
    lines: list[str] = []
    s = settings()
    p = ExecutionPolicy(s.policy, s.symbols, lines.append)
    held = PortfolioState(1, LONG_75, {}, 500.0, {"BTCUSDT": 500.0}, 4500.0)
    intent = BTC | {"quantity": 0, "leverage": 10}
    p.allow_new_entry(BTC | {"leverage": 1}, account())
    p.allow_new_entry(BTC | {"symbol": "ethusdt"}, account(total_positions=10))
    p.allow_new_entry(BTC | {"leverage": 1}, PortfolioState(1, LONG_75, {}, 350.0, {"BTCUSDT": 350.0}, 4650.0))
    p.compute_order_size(intent, held)
    assert lines == [
        "✅ ENTRY_POLICY_DECISION | BTCUSDT | decision=ALLOW_NEW_ENTRY | confidence=0.85, exposure_after=$500, positions_after=1",
        "🚫 ENTRY_POLICY_DECISION | ETHUSDT | decision=BLOCK_MAX_POSITIONS | total_positions=10 >= max=10",
        "✅ ENTRY_POLICY_DECISION | BTCUSDT | decision=ALLOW_SCALE_IN | confidence=0.85, exposure_after=$850, positions_after=2",
        "💰 CAPITAL_ALLOCATION | BTCUSDT | allocated=$500 (cap=$1000, avail=$4500) | qty=0.100 @ $50000 | lev=10x",
    ]
    assert policy.blocked_line("BLOCK_COOLDOWN", "x") == "🚫 Entry blocked: BLOCK_COOLDOWN | x"
    assert policy.approved_line("ALLOW_NEW_ENTRY", 0.1, "x") == "✅ Policy approved: ALLOW_NEW_ENTRY | qty=0.1 | x"


money = st.floats(0, 20_000, allow_nan=False)
portfolios = st.builds(
    PortfolioState,
    total_positions=st.integers(0, 12),
    positions_by_symbol=st.dictionaries(
        st.just("BTCUSDT"),
        st.lists(
            st.builds(OpenEntry, side=st.sampled_from(["long", "short"]), quantity=money, entry_price=money, confidence=st.floats(0, 1)),
            max_size=4,
        ),
    ),
    positions_by_regime=st.dictionaries(st.sampled_from(["unknown", "bull"]), st.integers(0, 6)),
    total_exposure_usdt=money,
    exposure_by_symbol=st.dictionaries(st.just("BTCUSDT"), money),
    available_capital_usdt=money,
    last_trade_time=st.none() | st.floats(0, 20_000),
    last_trade_by_symbol=st.dictionaries(st.just("BTCUSDT"), st.floats(0, 20_000)),
)


@given(portfolios, st.floats(0, 1), st.floats(1, 1e6), st.floats(0, 2), st.floats(1, 50))
def test_whatever_the_portfolio_no_hard_cap_is_breached_and_every_answer_has_a_known_code(
    portfolio, confidence, price, risk_score, leverage
):
    code, numbers, given_ = decide(wish(confidence=confidence, price=price, leverage=leverage), portfolio, LIMITS, risk_score)
    assert numbers
    assert code in (*DECISIONS, INVALID_INPUT, PORTFOLIO_UNREADABLE)
    if code in (ALLOW_NEW_ENTRY, ALLOW_SCALE_IN):
        margin = given_.margin_usd
        assert LIMITS.min_allocation_usd <= margin <= portfolio.available_capital_usdt + 1e-9
        assert portfolio.exposure_by_symbol.get("BTCUSDT", 0.0) + margin <= LIMITS.max_exposure_per_symbol_usdt + 1e-6
        assert portfolio.total_exposure_usdt + margin <= LIMITS.max_total_exposure_usdt + 1e-6


if __name__ == "__main__":
    results = seven()
    for name, ok in results:
        print(f"{'PASS' if ok else 'FAIL'}  {name}")
    print(f"{sum(ok for _, ok in results)}/{len(results)} tests PASSED")
    raise SystemExit(0 if all(ok for _, ok in results) else 1)
