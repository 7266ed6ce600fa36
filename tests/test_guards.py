"""S1's guards and the pre-trade controls, each at its edge; what they remember is a fold that a snapshot carries."""
import msgspec
import pytest
from builders import shipped
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from engine import reasons
from engine.facts import BUY, SELL
from engine.guards import AFTER, BEFORE, Rules, Wish, closing, first
from engine.watch import DAY_MS, MINUTE_MS, Watch
from scripts.validate_config import across

S = shipped()
S = msgspec.structs.replace(S, risk=msgspec.structs.replace(S.risk, loss_streak_max=3, session_cooldown_minutes=60.0))     # S1's own
RULES = Rules(S.risk, S.gates, S.controls, S.sizing.min_free_balance_usd)
T = 1_700_000_000_000
WISH = Wish("E-1", "BTCUSDT", BUY, 60_000.0, 10.0, 0.004, T, T, 60_000.0, 60_000.1, T, 100.0, 5_000.0, False, 0.333)


def wish(**more) -> Wish:
    return replace(WISH, **more)


def rules(**more) -> Rules:
    """The shipped rules with single values of risk or controls changed."""
    risk = {k: v for k, v in more.items() if k in S.risk.__struct_fields__}
    controls = {k: v for k, v in more.items() if k in S.controls.__struct_fields__}
    assert len(risk) + len(controls) == len(more)
    return replace(RULES, risk=replace(S.risk, **risk), controls=replace(S.controls, **controls))


def verdict(w: Wish, watch: Watch | None = None, r: Rules = RULES) -> str | None:
    block = first(BEFORE + AFTER, w, watch or Watch(), r)
    return block.code if block else None


def closed(*results: float, at: int = T, every_ms: int = 1, r: Rules = RULES) -> Watch:
    watch = Watch()
    for i, net in enumerate(results):
        watch.on_outcome(net, at + i * every_ms, r.risk)
    return watch


def test_an_orderly_wish_passes_every_row():
    assert verdict(WISH) is None and verdict(wish(side=SELL)) is None


# each row once, with what it says

REFUSED = [
    (wish(symbol="BTC"), Watch(), rules(not_tradable=["BTC", "SOL"]), reasons.NOT_TRADABLE, "BTC in BTC,SOL"),
    (wish(book_ms=T - 5_001), Watch(), RULES, reasons.STALE_DATA, "book_age=5001ms > 5000ms"),
    (WISH, closed(-500.0), RULES, reasons.DAILY_CAP, "day=-500.00 <= -500.00, resumes in 6400000ms"),
    (wish(now_ms=T + 2), closed(-1, -1, -1), RULES, reasons.STREAK_HALT, "losses=3, resumes in 3600000ms"),
    (wish(now_ms=T + 1), closed(-1, 1, r=rules(precision_window=2, precision_floor=0.6)), rules(precision_window=2, precision_floor=0.6),
     reasons.PRECISION_HALT, "precision=0.5000 < 0.6000, resumes in 3600000ms"),
    (WISH, Watch(rough={"BTCUSDT": 31.0}), rules(volatility_ceiling_bps=30.0), reasons.VOLATILITY_HALT, "sigma=31.00bps > 30bps"),
    (wish(free_usd=199.99), Watch(), RULES, reasons.MIN_FREE_BALANCE, "free=199.99 < 200"),
    (wish(leverage=125.0), Watch(), RULES, reasons.NEAR_LIQUIDATION, "distance=0.004000 < 0.0045 (1.5 x 0.003)"),
    (wish(leverage=125.0, side=SELL), Watch(), RULES, reasons.NEAR_LIQUIDATION_SHORT, "distance=0.004000 < 0.0045 (1.5 x 0.003)"),
    (wish(known=True), Watch(), RULES, reasons.DUPLICATE, "E-1 has been sent"),
    (wish(price=60_601.0), Watch(), RULES, reasons.PRICE_COLLAR, "price=60601, touch=60000.05: 100.2bps > 100bps"),
    (wish(price=59_399.0), Watch(), RULES, reasons.PRICE_COLLAR, "price=59399, touch=60000.05: 100.2bps > 100bps"),
    (wish(qty=0.417), Watch(), RULES, reasons.MAX_ORDER_VALUE, "value=25020.00 > 25000.00"),
    (wish(own_depth=0.499), Watch(), RULES, reasons.LIQUIDITY_INSUFFICIENT, "1.5 x qty=0.333 > depth=0.499 (3 levels)"),
    (wish(orders=4), Watch(sent=[T - 500] * 17), RULES, reasons.MAX_ORDER_RATE, "orders=17 + 4 > 20 a second"),
    (WISH, Watch(sent=[T - 30_000] * 300), RULES, reasons.MAX_ORDER_RATE, "orders=300 + 1 > 300 a minute"),
]


@pytest.mark.parametrize("w, watch, r, code, numbers", REFUSED, ids=[f"{row[3]}-{i}" for i, row in enumerate(REFUSED)])
def test_a_guard_says_its_code_and_its_numbers(w, watch, r, code, numbers):
    before = msgspec.msgpack.encode(watch)
    assert first(BEFORE + AFTER, w, watch, r) == (code, numbers)
    assert first(BEFORE + AFTER, w, watch, r) == (code, numbers) and msgspec.msgpack.encode(watch) == before


def test_every_row_has_a_refusal_above_and_every_code_of_the_table_has_a_row():
    said = {row[3] for row in REFUSED}
    declared = {code for codes, _ in BEFORE + AFTER for code in codes}
    assert said == declared
    assert declared == {*reasons.said_by(reasons.GUARD, reasons.CONTROL), reasons.DUPLICATE}


@pytest.mark.parametrize("w, r", [
    (wish(book_ms=T - 5_000), RULES), (wish(free_usd=200.0), RULES), (wish(own_depth=0.4995), RULES), (wish(qty=0.416), RULES),
    (wish(bid=49_999.0, ask=50_001.0, price=50_500.0), RULES), (wish(book_ms=0), rules(max_book_age_ms=0)),
    (wish(price=70_000.0), rules(price_collar_bps=0.0)), (wish(qty=9.0), rules(max_order_value_usd=0.0)),
    (wish(bid=0.0), RULES), (wish(leverage=125.0), rules(assumed_sl_pct=0.0)),
])
def test_at_the_limit_and_with_the_limit_off_a_wish_passes(w, r):
    assert verdict(w, r=r) is None


@pytest.mark.parametrize("field", ["price", "leverage", "maintenance", "free_usd", "qty", "own_depth"])
def test_a_number_that_is_none_blocks(field):
    assert verdict(wish(**{field: float("nan")})) is not None


def test_a_market_without_a_touch_has_no_collar_to_be_within():
    assert verdict(wish(bid=0.0, ask=0.0)) == reasons.PRICE_COLLAR


# the day

def test_the_daily_cap_holds_until_midnight_utc_whatever_is_earned_afterwards():
    midnight = (T // DAY_MS + 1) * DAY_MS
    watch = closed(-300, -200, +400)
    assert verdict(wish(now_ms=midnight - 1, signal_ms=T), watch, rules(loss_streak_max=0)) == reasons.DAILY_CAP
    assert verdict(wish(now_ms=midnight, signal_ms=T), watch) is None
    assert watch.triggers == {reasons.DAILY_CAP: 1}


def test_a_cap_that_a_restart_lowers_is_in_force_at_once_and_one_that_it_raises_lets_go():
    watch = closed(-200, r=rules(daily_loss_cap_usd=500.0))
    assert verdict(wish(), watch, rules(daily_loss_cap_usd=100.0, loss_streak_max=0)) == reasons.DAILY_CAP
    watch = closed(-200, +150, r=rules(daily_loss_cap_usd=100.0, loss_streak_max=0))
    again = first(BEFORE, wish(), watch, rules(daily_loss_cap_usd=100.0, loss_streak_max=0))
    assert again.numbers.startswith("day=-50.00 now, -100.00 before <= -100.00")
    assert verdict(wish(), watch, rules(daily_loss_cap_usd=300.0, loss_streak_max=0)) is None


def test_the_sign_of_the_cap_does_not_matter_and_zero_is_off():
    assert verdict(WISH, closed(-500.0, r=rules(daily_loss_cap_usd=-500.0)), rules(daily_loss_cap_usd=-500.0)) == reasons.DAILY_CAP
    assert verdict(WISH, closed(-499.99), RULES) is None
    assert verdict(WISH, closed(-1e9, r=rules(daily_loss_cap_usd=0.0)), rules(daily_loss_cap_usd=0.0)) is None


def test_a_new_day_begins_at_nothing_and_a_late_result_of_yesterday_is_not_todays():
    midnight = (T // DAY_MS + 1) * DAY_MS
    watch = closed(-499.0, -499.0, at=midnight - 1, every_ms=1)
    assert (watch.day_usd, watch.triggers) == (-499.0, {})
    watch.on_outcome(-499.0, midnight - 1, S.risk)
    assert watch.day_usd == -499.0


def test_ten_cents_ten_times_are_a_dollar():
    r = rules(daily_loss_cap_usd=1.0, loss_streak_max=0)
    assert verdict(WISH, closed(*[-0.1] * 9, r=r), r) is None
    assert verdict(WISH, closed(*[-0.1] * 10, r=r), r) == reasons.DAILY_CAP


@given(st.lists(st.tuples(st.integers(-20_000, 20_000), st.integers(0, DAY_MS // 3)), max_size=40), st.integers(1, 60_000))
def test_the_cap_halts_exactly_on_days_whose_running_loss_reached_it(steps, cap_cents):
    r, watch, at, days = rules(daily_loss_cap_usd=cap_cents / 100), Watch(), T, {}
    for cents, wait in steps:
        at += wait
        watch.on_outcome(cents / 100, at, r.risk)
        days.setdefault(at // DAY_MS, []).append(cents)
        running = [sum(days[at // DAY_MS][:i + 1]) for i in range(len(days[at // DAY_MS]))]
        blocked = first(BEFORE[2:3], wish(now_ms=at), watch, r)
        assert (blocked is not None) == (min(running) <= -cap_cents)
    reached = sum(any(sum(d[:i + 1]) <= -cap_cents for i in range(len(d))) for d in days.values())
    assert watch.triggers.get(reasons.DAILY_CAP, 0) == reached


# the streak

def test_a_streak_halts_for_the_cooldown_and_elapsed_passes():
    watch, until = closed(-1, -1, -1), T + 2 + 60 * MINUTE_MS
    assert verdict(wish(now_ms=until - 1), watch) == reasons.STREAK_HALT
    assert verdict(wish(now_ms=until), watch) is None


def test_a_result_of_zero_ends_a_streak():
    assert verdict(wish(now_ms=T + 5), closed(-1, -1, 0, -1, -1)) is None


def test_losses_of_what_was_open_when_the_halt_began_neither_prolong_it_nor_count_into_the_next():
    watch = closed(-1, -1, -1, -1, -1, -1, every_ms=MINUTE_MS)
    assert (watch.triggers, watch.streak_until_ms, watch.losses) == ({reasons.STREAK_HALT: 1}, T + 62 * MINUTE_MS, 0)


@given(st.lists(st.sampled_from([-1.0, 0.0, 1.0]), max_size=60), st.integers(0, 5))
def test_a_streak_halts_when_and_only_when_so_many_losses_came_in_a_row(results, limit):
    r, watch, run, halts = rules(loss_streak_max=limit, session_cooldown_minutes=0.0), Watch(), 0, 0
    for i, net in enumerate(results):
        watch.on_outcome(net, T + i, r.risk)
        run = run + 1 if net < 0 else 0
        if limit and run == limit:
            halts, run = halts + 1, 0
    assert watch.triggers.get(reasons.STREAK_HALT, 0) == halts


# precision and volatility

def test_precision_halts_only_over_a_full_window_and_comes_back_with_a_window_to_fill():
    r = rules(precision_window=4, precision_floor=0.5, loss_streak_max=0)
    watch = closed(-1, -1, -1, r=r)
    assert verdict(wish(now_ms=T + 3), watch, r) is None
    watch.on_outcome(1, T + 3, r.risk)
    until = T + 3 + 60 * MINUTE_MS
    assert verdict(wish(now_ms=until - 1), watch, r) == reasons.PRECISION_HALT
    assert verdict(wish(now_ms=until), watch, r) is None
    for i in range(3):
        watch.on_outcome(-1, until + i, r.risk)
        assert verdict(wish(now_ms=until + i), watch, r) is None
    watch.on_outcome(-1, until + 3, r.risk)
    assert verdict(wish(now_ms=until + 4), watch, r) == reasons.PRECISION_HALT


def test_precision_at_its_floor_passes_and_no_result_is_no_number():
    r = rules(precision_window=2, precision_floor=0.5)
    assert verdict(wish(now_ms=T + 2), closed(-1, 1, r=r), r) is None
    assert Watch().precision != Watch().precision


def test_volatility_halts_above_the_ceiling_and_resumes_only_at_the_lower_mark():
    r, watch = rules(volatility_ceiling_bps=30.0, volatility_resume_bps=20.0), Watch()
    said = []
    for sigma in (30.0, 30.1, 25.0, 20.1, 20.0, 25.0, 30.0, 31.0):
        watch.on_sigma("BTCUSDT", sigma, r.risk)
        said.append(verdict(WISH, watch, r))
    no = reasons.VOLATILITY_HALT
    assert said == [None, no, no, no, None, None, None, no]
    assert watch.triggers == {no: 2} and verdict(wish(symbol="ETHUSDT"), watch, r) is None


def test_volatility_that_is_no_number_is_rough_and_a_ceiling_of_zero_is_off():
    r, watch = rules(volatility_ceiling_bps=30.0), Watch()
    watch.on_sigma("BTCUSDT", float("nan"), r.risk)
    assert verdict(WISH, watch, r) == reasons.VOLATILITY_HALT
    watch.on_sigma("BTCUSDT", 1e9, RULES.risk)
    assert verdict(WISH, watch) is None


# the rate

def test_orders_older_than_a_minute_are_forgotten():
    watch = Watch()
    for after in (0, MINUTE_MS - 1, MINUTE_MS):
        watch.on_sent(T + after)
    assert watch.sent == [T + MINUTE_MS - 1, T + MINUTE_MS]


WAITS = st.one_of(st.integers(0, 700), st.integers(0, 20_000))


@given(st.lists(st.tuples(WAITS, st.integers(1, 4)), max_size=80), st.integers(1, 8), st.integers(1, 30))
def test_no_second_and_no_minute_ever_holds_more_orders_than_may_be(steps, per_second, per_minute):
    r, watch, at, sent = rules(max_orders_per_second=per_second, max_orders_per_minute=per_minute), Watch(), T, []
    for wait, orders in steps:
        at += wait
        if first(AFTER[4:], wish(now_ms=at, orders=orders), watch, r) is None:
            watch.on_sent(at, orders)
            sent += [at] * orders
        for span, limit in ((1_000, per_second), (MINUTE_MS, per_minute)):
            assert sum(at - span < t for t in sent) <= limit
    assert len(watch.sent) <= per_minute


def test_exits_count_into_the_rate_and_pass_it():
    watch = Watch()
    watch.on_sent(T, 20)
    assert verdict(WISH, watch) == reasons.MAX_ORDER_RATE and verdict(wish(now_ms=T + 1000), watch) is None
    assert closing(SELL, 0.1, 0.1) is None


@given(st.sampled_from([BUY, SELL]), st.integers(-50, 50), st.integers(-50, 50))
def test_a_closing_order_never_closes_more_than_is_held(side, lots, held):
    after = held + (lots if side == BUY else -lots)
    allowed = closing(side, lots * 0.001, held * 0.001) is None
    assert allowed == (lots > 0 and held != 0 and abs(after) < abs(held) and after * held >= 0)


# settings that no single key shows to be wrong

@pytest.mark.parametrize("section, values, words", [
    ("ladder", {"fractions": [0.5, 0.6]}, "ladder.fractions: 0.5,0.6: one to 4 shares above 0 were expected, 1 in all"),
    ("ladder", {"fractions": [0.1] * 5}, "ladder.fractions"), ("ladder", {"fractions": []}, "ladder.fractions"),
    ("risk", {"volatility_ceiling_bps": 20.0, "volatility_resume_bps": 30.0}, "risk.volatility_resume_bps: 30.0 is above"),
    ("controls", {"not_tradable": ["BTCUSD", "BTCSUDT"]}, "controls.not_tradable: 'BTCSUDT' is not in config/symbols.yaml"),
])
def test_settings_that_contradict_each_other_are_named(section, values, words):
    [fault] = across(replace(S, **{section: replace(getattr(S, section), **values)}))
    assert words in fault


# remembered

@given(st.lists(st.tuples(st.integers(0, 5), st.floats(-300, 300), st.integers(0, DAY_MS // 5)), max_size=30), st.integers(0, 30))
def test_a_snapshot_at_any_point_continues_as_if_nothing_had_been(steps, cut):
    r = rules(precision_window=3, precision_floor=0.5, volatility_ceiling_bps=100.0, volatility_resume_bps=50.0)
    whole, parted, at = Watch(), Watch(), T
    for i, (kind, value, wait) in enumerate(steps):
        if i == cut:
            parted = msgspec.msgpack.decode(msgspec.msgpack.encode(parted), type=Watch)
        at += wait
        for watch in (whole, parted):
            if kind < 3:
                watch.on_outcome(value, at, r.risk)
            elif kind == 3:
                watch.on_sigma("BTCUSDT", value, r.risk)
            else:
                watch.on_sent(at, kind)
    assert whole == parted and msgspec.msgpack.encode(whole) == msgspec.msgpack.encode(parted)
