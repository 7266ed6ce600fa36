"""Whose reward it is: by order id, by symbol and time where there is none, and never twice."""
import pytest
from hypothesis import given
from hypothesis import settings as runs
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from engine.reasons import DUPLICATE_ORDER, NO_PENDING, PENDING_FULL, UNMATCHED_ORDER_ID
from engine.rewards.queue import (
    EXPIRED,
    MINT,
    MINT_NO_ORDER_ID,
    MODES,
    ORDER_ID,
    Match,
    Miss,
    Pending,
    PendingSelectionQueue,
    by_order_id,
    by_symbol_and_time,
)

JITTER, EXPIRY = 5_000, 60_000


def pending(order_id: str, symbol: str = "BTCUSDT", created_ms: int = 0) -> Pending:
    return Pending(order_id, symbol, "o0-s100-p20", [1.0], 0.5, 0.1, created_ms)


def queue(*waiting: Pending, most: int = 100) -> PendingSelectionQueue:
    q = PendingSelectionQueue(most)
    for p in waiting:
        assert q.put(p) is None
    return q


def test_an_order_is_paid_by_its_id_once_and_the_others_wait_on():
    q = queue(pending("a"), pending("b"))
    assert by_order_id(q, "b", "BTCUSDT", 10, JITTER) == Match(ORDER_ID, pending("b"))
    assert list(q.by_id) == ["a"] and q.by_symbol == {"BTCUSDT": ["a"]}
    assert by_order_id(q, "b", "BTCUSDT", 10, JITTER) == Miss(UNMATCHED_ORDER_ID, "order_id=b, pending=1")
    assert len(q) == 1, "the second outcome of one order takes nobody else's choice"


def test_an_unknown_id_is_a_miss_although_a_choice_of_the_symbol_waits():
    q = queue(pending("a"))
    assert by_order_id(q, "stranger", "BTCUSDT", 10, JITTER).reason == UNMATCHED_ORDER_ID
    assert "a" in q.by_id


def test_an_outcome_without_an_id_goes_by_symbol_and_time():
    q = queue(pending("a", "ETHUSDT"), pending("b"))
    assert by_order_id(q, "", "BTCUSDT", 10, JITTER) == Match(MINT_NO_ORDER_ID, pending("b"))
    assert by_order_id(q, "", "BTCUSDT", 10, JITTER) == Miss(NO_PENDING, "symbol=BTCUSDT, exec_ms=10, pending=1")


def test_with_the_flag_off_the_id_is_not_looked_at():
    q = queue(pending("a"), pending("b"))
    assert by_symbol_and_time(q, "b", "BTCUSDT", 10, JITTER) == Match(MINT, pending("a"))
    assert by_symbol_and_time(q, "zzz", "BTCUSDT", 10, JITTER) == Match(MINT, pending("b"))
    assert by_symbol_and_time(q, "a", "BTCUSDT", 10, JITTER).reason == NO_PENDING


@pytest.mark.parametrize("exec_ms, paid", [(15_000, "first"), (14_999, "second"), (10_000, "second"), (9_999, "first"), (0, "first")])
def test_the_legacy_match_is_the_first_made_up_to_the_jitter_after_the_outcome_else_the_oldest(exec_ms, paid):
    q = queue(pending("first", created_ms=20_000), pending("second", created_ms=15_000))
    assert by_symbol_and_time(q, "", "BTCUSDT", exec_ms, JITTER).pending.order_id == paid


def test_the_same_id_is_refused_and_the_first_stays():
    q = queue(pending("a", created_ms=7))
    assert q.put(pending("a", "ETHUSDT", 9)) == Miss(DUPLICATE_ORDER, "a waits since 7")
    assert q.by_id == {"a": pending("a", created_ms=7)} and q.by_symbol == {"BTCUSDT": ["a"]}


def test_a_full_queue_refuses_with_its_numbers():
    q = queue(pending("a"), most=1)
    assert q.put(pending("b")) == Miss(PENDING_FULL, "pending=1 >= max=1")


def test_who_has_waited_for_the_expiry_leaves_in_the_order_in_which_he_came():
    q = queue(pending("a", created_ms=0), pending("b", created_ms=1), pending("c", created_ms=2))
    assert [p.order_id for p in q.expired(EXPIRY + 1, EXPIRY)] == ["a", "b"]
    assert q.expired(EXPIRY + 1, EXPIRY) == [] and list(q.by_id) == ["c"]


class Attributions(RuleBasedStateMachine):
    """Random puts, outcomes of both kinds and expiries against a plain list of who waits."""

    def __init__(self):
        super().__init__()
        self.queue, self.waiting, self.paid, self.now = PendingSelectionQueue(8), [], [], 0

    @rule(order=st.integers(0, 25), symbol=st.sampled_from("AB"), step=st.integers(0, 9_000))
    def put(self, order, symbol, step):
        self.now += step
        one = pending(f"{order}", symbol, self.now)
        refused = self.queue.put(one)
        duplicate = any(p.order_id == one.order_id for p in self.waiting)
        full = len(self.waiting) >= 8
        assert (refused.reason if refused else "") == (DUPLICATE_ORDER if duplicate else PENDING_FULL if full else "")
        if refused is None:
            self.waiting.append(one)

    def _pay(self, got):
        assert got in self.waiting, "only who waits is paid"
        self.waiting.remove(got)
        assert not any(p is got for p in self.paid), "nobody is paid twice"
        self.paid.append(got)

    @rule(order=st.integers(0, 25), symbol=st.sampled_from("AB"))
    def outcome_with_an_id(self, order, symbol):
        found = by_order_id(self.queue, f"{order}", symbol, self.now, JITTER)
        expected = next((p for p in self.waiting if p.order_id == f"{order}"), None)
        if expected is None:
            assert isinstance(found, Miss) and found.reason == UNMATCHED_ORDER_ID
        else:
            assert found.pending is expected and found.mode == ORDER_ID
            self._pay(found.pending)

    @rule(symbol=st.sampled_from("AB"), back=st.integers(0, 20_000), flag=st.booleans())
    def outcome_without_an_id(self, symbol, back, flag):
        at = self.now - back
        match = by_order_id if flag else by_symbol_and_time
        found = match(self.queue, "", symbol, at, JITTER)
        mine = [p for p in self.waiting if p.symbol == symbol]
        if not mine:
            assert isinstance(found, Miss) and found.reason == NO_PENDING
        else:
            assert found.pending is next((p for p in mine if p.created_ms <= at + JITTER), mine[0])
            self._pay(found.pending)

    @rule(step=st.integers(0, 70_000))
    def expire(self, step):
        self.now += step
        over = [p for p in self.waiting if p.created_ms <= self.now - EXPIRY]
        got = self.queue.expired(self.now, EXPIRY)
        assert got == over
        for p in got:
            self._pay(p)

    @invariant()
    def both_indices_say_the_same_and_the_bound_holds(self):
        assert list(self.queue.by_id.values()) == self.waiting and len(self.queue) <= 8
        assert self.queue.by_symbol == {s: ids for s in "AB" if (ids := [p.order_id for p in self.waiting if p.symbol == s])}


TestAttributions = Attributions.TestCase
TestAttributions.settings = runs(max_examples=40, deadline=None)


@given(st.lists(st.tuples(st.sampled_from("abc"), st.booleans()), max_size=20))
def test_repeated_outcomes_of_the_same_orders_are_paid_once_an_order(outcomes):
    q = queue(*(pending(i) for i in "abc"))
    paid = [m.pending.order_id for i, _ in outcomes if isinstance(m := by_order_id(q, i, "BTCUSDT", 0, JITTER), Match)]
    assert sorted(paid) == sorted({i for i, _ in outcomes})


def test_a_fallback_from_a_known_id_to_the_symbol_has_no_mode():
    assert MODES == (ORDER_ID, MINT_NO_ORDER_ID, MINT, EXPIRED)
