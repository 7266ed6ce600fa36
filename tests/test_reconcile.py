"""The desk's books beside the venue's word: equal when everything has been heard, different only where something is wrong."""
import msgspec
import pytest
from builders import SYMBOL, EveryNth, book, desk, market, reframed, scored, scores, settings
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from engine import metrics as m
from engine import reasons
from engine.execution.floor import Floor
from engine.execution.matching import Matching
from engine.execution.reconcile import AVERAGE, GAP, ORPHAN, POSITION, RESULT, differences
from engine.facts import (
    ACCEPTED,
    BUY,
    DONE,
    KILL,
    RELEASE,
    UNKNOWN,
    Cancel,
    Control,
    Fill,
    Fills,
    Order,
    Report,
    Reports,
    ScoredBatch,
    Standing,
    Tick,
    market_of,
    releasing,
)
from engine.holding import Holding
from engine.telemetry import Telemetry
from store.exporter import Exporter
from store.ledger import Ledger
from streams.host import DeskHost
from streams.waiting import Waiting

S = settings(POLICY_COOLDOWN_SYMBOL="2", POLICY_COOLDOWN_GLOBAL="1")
T, LOT = 1_700_000_000_000, S.instrument(SYMBOL).lot
JOURNAL = "j1"


class Venue:
    """A floor that answers at once, as an unpaced venue does; what it says stands is what `streams.exchange` says."""

    def __init__(self) -> None:
        self.floor = Floor(Matching(SYMBOL, S.instrument(SYMBOL), S.matching, "t1"), "t1", S.matching.latency_ms, False)

    def standing(self) -> Standing:
        f = self.floor
        return Standing(SYMBOL, JOURNAL, f.matching.seq, f.known_ms, f.matching.position * LOT, f.holding.average, f.holding.realized_usd,
                        f.holding.fees_usd, {o.order_id: o.qty - o.filled for o in f.matching.open_orders()})


class Hosted:
    """A host on a real ledger with the numbers that it exports."""

    def __init__(self, folder, s=S):
        self.exporter, self.offset = Exporter(sorted(s.symbols), arms=s.bandit.arms), 0
        self.ledger = Ledger(f"sqlite:///{folder}/ledger.db", "risk")
        self.host = DeskHost(s, self.ledger, Telemetry(self.exporter), lockstep=False)

    def take(self, record) -> list:
        """What the desk answers; journaled as the service does it."""
        self.offset += 1
        consumed, outs = self.host.take(record, ("exec.reports", 0, self.offset))
        if consumed:
            self.host.commit(consumed, self.host.produce(consumed, outs, 0.0), {"exec.reports": "log1"})
        return outs

    def again(self) -> None:
        """Killed and started: what the ledger has is what there is."""
        self.ledger.close()
        self.ledger = Ledger(self.ledger.url, "risk")
        self.host = DeskHost(S, self.ledger, self.host.telemetry, lockstep=False)

    def shows(self, series: m.Series, **labels: str) -> float:
        want = series(**labels)
        return next(float(line.split()[-1]) for line in self.exporter.text().splitlines() if line.rpartition(" ")[0] == want)

    @property
    def halted(self) -> str:
        return self.host.desk.state.halted

    @property
    def kills(self) -> list[str]:
        return list(self.host.desk.state.kills)


@pytest.fixture
def hosted(tmp_path):
    one = Hosted(tmp_path)
    yield one
    one.ledger.close()


def told(*items) -> list:
    """Happenings as the executor publishes them: fills first."""
    fills, reports = [i for i in items if isinstance(i, Fill)], [i for i in items if isinstance(i, Report)]
    return ([Fills(SYMBOL, "t1", 0.0, fills)] if fills else []) + [Reports(SYMBOL, "t1", 0, 0, 0.0, reports)]


def stands(seq: int, position: float = 0.0, average: float = 0.0, realized: float = 0.0, **orders: float) -> Standing:
    return Standing(SYMBOL, JOURNAL, seq, T, position, average, realized, 0.0, orders)


def entering(hosted: Hosted) -> Order:
    """An entry on its way to the venue."""
    hosted.take(market(5))
    now = hosted.host.desk.state.now_ms
    [order] = hosted.take(ScoredBatch(SYMBOL, "t1", 0, 5, now, 0.0, [scored(now)]))
    return order


def bought(hosted: Hosted) -> Order:
    """A filled entry: numbers 1 to 3 of the venue's."""
    order = entering(hosted)
    for record in told(Report(order.id, SYMBOL, ACCEPTED, "", 0.0, 1, T), Report(order.id, SYMBOL, DONE, "", order.qty, 3, T),
                       Fill("f", order.id, SYMBOL, BUY, 60_000.0, order.qty, 1.0, True, 2, T)):
        hosted.take(record)
    return order


def live(seed: int, size: int) -> int:
    """A desk at an unpaced venue, compared after all that it hears; how many fills there were."""
    venue, mind, signals, fills = Venue(), desk(S), EveryNth(), 0
    for frame in reframed(market(1500, seed=seed, gap_ms=300), size):
        venue.floor.publish(frame)
        outs = mind.on(market_of(frame))
        for one in scores(signals.on(frame)):
            outs += mind.on(one)
        while True:
            for act in outs:
                if isinstance(act, Order):
                    venue.floor.place(act)
                elif isinstance(act, Cancel):
                    venue.floor.cancel(act)
            happened = venue.floor.work()
            if not happened:
                break
            fills += sum(isinstance(h, Fill) for h in happened)
            outs = [o for fact in happened for o in mind.on(fact)]
            assert differences(mind.portfolio, venue.standing(), S.instrument(SYMBOL)) == []
    return fills


@hypothesis_settings(max_examples=10, deadline=None)
@given(st.integers(0, 10_000), st.integers(7, 90))
def test_whenever_the_desk_has_heard_all_that_the_venue_said_they_agree_to_the_lot_the_tick_and_the_cent(seed, size):
    live(seed, size)


def test_there_is_something_to_agree_about():
    assert live(2, 30) > 8


@pytest.mark.parametrize("says, kind", [
    (stands(3, 0.5, 60_000.0, -1.0), POSITION), (stands(3, 0.0, 0.0, -1.0), POSITION), (stands(3, -0.1, 60_000.0, -1.0), POSITION),
    (stands(3, None, 60_001.0, -1.0), AVERAGE), (stands(3, None, 60_000.0, -1.5), RESULT),
    (stands(3, None, 60_000.0, -1.0, stranger=0.01), ORPHAN),
])
def test_each_kind_of_difference_is_counted_shown_and_halts_the_desk_with_both_numbers(hosted, says, kind):
    order = bought(hosted)
    if says.position is None:
        says = msgspec.structs.replace(says, position=order.qty)
    [outs] = [hosted.take(says)]
    assert hosted.shows(m.VENUE_MISMATCHES_TOTAL, kind=kind) == 1
    assert "killed by risk: not as the venue says: " + kind in hosted.halted and "the venue's" in hosted.halted
    held = hosted.host.desk.portfolio.positions[SYMBOL]
    assert hosted.shows(m.POSITION_DIFFERENCE, symbol=SYMBOL) == pytest.approx(says.position - held)
    assert hosted.shows(m.ORPHAN_ORDERS) == (kind == ORPHAN)
    assert outs == [], "nothing is cancelled that is not ours, and exits go on"
    touch = hosted.host.desk.state.touches[SYMBOL]
    assert hosted.host.desk.on(scored(touch.ts_ms + 400_000))[0].reason == reasons.HALTED


def test_what_agrees_is_counted_as_compared_and_halts_nobody(hosted):
    order = bought(hosted)
    [target] = [o for o in hosted.host.desk.portfolio.orders.values() if o.id != order.id]
    hosted.take(stands(3, order.qty, 60_000.0, -1.0))
    assert (hosted.shows(m.VENUE_COMPARISONS_TOTAL), hosted.halted) == (1, "")
    hosted.take(told(Report(target.id, SYMBOL, ACCEPTED, "", 0.0, 4, T))[0])
    hosted.take(stands(4, order.qty, 60_000.0, -1.0, **{target.id: order.qty}))
    assert (hosted.shows(m.VENUE_COMPARISONS_TOTAL), hosted.halted) == (2, "")
    hosted.take(stands(4, order.qty, 60_000.0, -1.0))
    assert f"order {target.id}: ours {order.qty:g}, the venue's 0" in hosted.halted


def test_fills_on_their_way_are_no_difference_they_are_waited_for(hosted):
    order = bought(hosted)
    fills, reports = told(Fill("g", order.id, SYMBOL, BUY, 60_010.0, 0.001, 0.0, True, 4, T), Report("x", SYMBOL, ACCEPTED, "", 0, 5, T))
    after = stands(5, order.qty + 0.001, (60_000.0 * order.qty + 60.01) / (order.qty + 0.001), -1.0)
    hosted.take(reports)
    hosted.take(after)
    assert (hosted.shows(m.VENUE_COMPARISONS_TOTAL), hosted.halted) == (0, "")
    hosted.take(fills)
    assert (hosted.shows(m.VENUE_COMPARISONS_TOTAL), hosted.halted) == (1, "")


def test_an_answer_that_comes_too_late_to_be_compared_is_passed_over(hosted):
    bought(hosted)
    hosted.take(stands(2, 99.0))
    assert (hosted.shows(m.VENUE_COMPARISONS_TOTAL), hosted.halted) == (0, "")


def test_numbers_that_never_come_are_a_gap_after_some_answers(hosted):
    order = bought(hosted)
    for _ in range(4):
        assert hosted.halted == ""
        hosted.take(stands(6, order.qty, 60_000.0, -1.0))
    assert hosted.shows(m.VENUE_MISMATCHES_TOTAL, kind=GAP) == 1 and f"gap {SYMBOL}: ours 3, the venue's 6" in hosted.halted


def release(hosted: Hosted, *kills: str) -> None:
    hosted.take(Control(f"r{hosted.offset}", RELEASE, "ann", "the half is mine", 0, T, releasing(kills)))


def test_who_releases_accepts_what_differs_also_over_a_restart_and_only_that(hosted):
    order = bought(hosted)
    hosted.take(stands(3, order.qty + 0.5, 60_000.0, -1.0))
    assert hosted.halted
    release(hosted, *hosted.kills)
    for _ in range(2):
        hosted.take(stands(3, order.qty + 0.5, 60_000.0, -1.0))
        assert hosted.halted == "" and hosted.shows(m.POSITION_DIFFERENCE, symbol=SYMBOL) == pytest.approx(0.5)
        hosted.again()
    assert hosted.shows(m.VENUE_MISMATCHES_TOTAL, kind=POSITION) == 1
    hosted.take(stands(3, order.qty + 0.6, 60_000.0, -1.0))
    assert hosted.halted


def test_who_releases_another_kill_accepts_nothing_that_the_venue_says(hosted):
    order = bought(hosted)
    hosted.take(Control("drill", KILL, "ann", "a drill", 0, T))
    hosted.take(stands(3, order.qty + 0.5, 60_000.0, -1.0))
    own = [name for name in hosted.kills if name != "drill"]
    assert len(own) == 1, "a desk that is halted already is told all the same"
    release(hosted, "drill")
    assert hosted.kills == own and "position" in hosted.halted
    hosted.again()
    for _ in range(3):
        hosted.take(stands(3, order.qty + 0.5, 60_000.0, -1.0))
    assert hosted.kills == own, "and once is enough"
    release(hosted, *own)
    hosted.take(stands(3, order.qty + 0.5, 60_000.0, -1.0))
    assert hosted.halted == ""


@pytest.mark.parametrize("killed_between", [False, True])
def test_what_was_found_after_the_kill_that_somebody_looked_at_halts_the_desk_in_the_same_breath(hosted, killed_between):
    order = bought(hosted)
    hosted.take(stands(3, order.qty + 0.5, 60_000.0, -1.0))
    [first] = hosted.kills
    hosted.take(stands(3, order.qty + 0.7, 60_000.0, -1.0, stranger=0.01))      # it moves on, and something else comes
    assert len(hosted.kills) == 2 and hosted.kills[0] == first
    release(hosted, first)
    assert len(hosted.kills) == 2, "0.7 is not the 0.5 that was accepted; what the second tells stands by itself"
    if killed_between:
        hosted.again()
    assert [("ours" in text, text.count("position"), text.count("orphan")) for text in hosted.host.desk.state.kills.values()] == [
        (True, 0, 1), (True, 1, 0)]
    release(hosted, *hosted.kills)
    hosted.take(stands(3, order.qty + 0.7, 60_000.0, -1.0, stranger=0.01))
    assert hosted.halted == ""


def test_what_was_accepted_went_away_and_came_back_is_another_difference(hosted):
    order = bought(hosted)
    hosted.take(stands(3, order.qty + 0.5, 60_000.0, -1.0))
    release(hosted, *hosted.kills)
    hosted.take(stands(3, order.qty, 60_000.0, -1.0))
    assert hosted.halted == ""
    hosted.take(stands(3, order.qty + 0.5, 60_000.0, -1.0))
    assert hosted.halted


def test_a_release_told_again_accepts_nothing_more(hosted):
    order = bought(hosted)
    hosted.take(stands(3, order.qty + 0.5, 60_000.0, -1.0))
    [first] = hosted.kills
    again = Control("r", RELEASE, "ann", "seen", 0, T, releasing([first]))
    hosted.take(again)
    hosted.take(stands(3, order.qty + 0.6, 60_000.0, -1.0))
    assert hosted.halted
    hosted.take(again)
    hosted.take(stands(3, order.qty + 0.6, 60_000.0, -1.0))
    assert hosted.halted


def test_a_mismatch_stands_in_the_journal_and_its_rerun_answers_the_same(hosted):
    d, order = desk(S), entering(hosted)
    [cancel] = hosted.take(stands(0, 0.25))
    assert cancel.order_id == order.id, "an entry on its way in is taken back"
    facts = [fact for entry in hosted.ledger.entries() for fact in entry.consumed]
    assert [type(f).__name__ for f in facts] == ["Market", "ScoredBatch", "Control"]
    assert [o for fact in facts for o in d.on(fact)] == [order, cancel]


def test_what_the_account_had_won_before_this_desk_is_no_difference(hosted):
    hosted.take(stands(0, 0.0, 0.0, 1234.5))
    order = bought(hosted)
    hosted.take(stands(3, order.qty, 60_000.0, 1233.5))
    assert (hosted.shows(m.VENUE_COMPARISONS_TOTAL), hosted.halted) == (2, "")


@given(st.lists(st.tuples(st.booleans(), st.integers(1, 50), st.integers(59_000, 61_000)), max_size=40))
def test_a_holding_closed_has_realised_what_came_in_less_what_went_out(trades):
    h, cash, qty = Holding(), 0.0, 0
    for i, (buys, lots, price) in enumerate(trades):
        h.take(Fill(str(i), "o", SYMBOL, "BUY" if buys else "SELL", float(price), lots * LOT, 0.01, True, i, T))
        qty += lots if buys else -lots
        cash += (-lots if buys else lots) * LOT * price - 0.01
    assert h.qty == pytest.approx(qty * LOT, abs=1e-9)
    assert h.realized_usd == pytest.approx(cash + h.qty * h.average, abs=1e-6)


# orders of which nobody knows ---------------------------------------------------------------------------------------------------

def unknown(order_id: str, at: int = T) -> Report:
    return Report(order_id, SYMBOL, UNKNOWN, reasons.VENUE_UNREACHABLE, 0.0, 0, at)


def test_an_unknown_entry_keeps_its_reservation_gets_no_second_order_and_is_settled_by_the_venues_word():
    d = desk(POLICY_COOLDOWN_SYMBOL="0", POLICY_COOLDOWN_GLOBAL="0")
    d.on(book(60_000, 60_000.1, T))
    [order] = d.on(scored(T))
    reserved = d.portfolio.total_exposure_usdt
    assert d.on(unknown(order.id)) == [] and d.portfolio.orders[order.id].status == UNKNOWN
    assert d.portfolio.total_exposure_usdt == reserved > 0
    [again] = d.on(scored(T, p=0.99))
    assert again.reason in (reasons.DUPLICATE, reasons.BLOCK_SCALE_IN_RULE, reasons.BLOCK_MAX_EXPOSURE)
    d.on(Report(order.id, SYMBOL, "rejected", reasons.NOT_ARRIVED, 0.0, 0, T))
    assert d.portfolio.total_exposure_usdt == 0 and not d.portfolio.entries


def test_while_an_exit_is_unknown_no_other_exit_is_sent():
    d = desk()
    d.on(book(60_000, 60_000.1, T))
    [entry] = d.on(scored(T))
    d.on(Fill("f", entry.id, SYMBOL, BUY, 60_000.0, entry.qty, 0.0, True, 1, T))
    [target] = d.on(Report(entry.id, SYMBOL, DONE, "", entry.qty, 2, T))
    assert d.on(unknown(target.id)) == []
    sent = [o for ms in range(0, 300_000, 500) for o in d.on(book(59_000, 59_000.1, T + 1000 + ms)) + d.on(Tick(T + 1000 + ms))]
    assert sent and not [o for o in sent if isinstance(o, Order)], "the target is asked back, and nothing is sent in its place"
    assert {o.order_id for o in sent} == {target.id}
    [close] = d.on(Report(target.id, SYMBOL, "cancelled", "requested", 0.0, 3, T + 400_000))
    assert d.on(unknown(close.id, T + 400_000)) == []
    assert not [o for ms in range(0, 300_000, 500) for o in d.on(book(59_000, 59_000.1, T + 400_001 + ms)) if isinstance(o, Order)]
    d.on(Fill("g", close.id, SYMBOL, "SELL", 59_000.0, entry.qty, 0.0, False, 4, T + 800_000))
    [outcome] = d.on(Report(close.id, SYMBOL, DONE, "", entry.qty, 5, T + 800_000))
    assert outcome.qty == entry.qty and d.portfolio.positions[SYMBOL] == 0


def act(order_id: str, cause: str = "entry", expires: int = 0) -> Order:
    return Order(order_id, cause, order_id, SYMBOL, BUY, 0.01, 1000.0, "limit", True, cause != "entry", "paper", 0, T, expires)


@pytest.mark.parametrize("has, order, now, lockstep, verdict", [
    ("open", act("a"), T, False, "kept"), ("pending", act("a"), T, False, "kept"), ("ended", act("a"), T, False, "kept"),
    ("", act("a", expires=T + 20), T + 10, False, "again"), ("", act("a", expires=T + 20), T + 20, False, "late"),
    ("", act("a", expires=T + 20), T + 20, True, "again"), ("", act("a", "stop", T + 20), T + 99, False, "again"),
])
def test_what_the_venue_says_of_an_id_decides_and_an_entry_whose_time_is_over_is_not_sent_any_more(has, order, now, lockstep, verdict):
    waiting = Waiting()
    waiting.add(order)
    [one] = waiting.doubt()
    answer = msgspec.structs.replace(stands(1), ts_ms=now, asked={"a": has})
    assert waiting.judge(one, answer, lockstep) == verdict
    assert (order in waiting) == (verdict != "late") and waiting.unknown == []


def test_a_cancel_of_an_order_that_never_arrived_does_not_make_it_answered():
    waiting = Waiting()
    waiting.add(act("a"))
    waiting.add(Cancel("a", SYMBOL, T, "entry_ttl"))
    waiting.answered(Report("a", SYMBOL, "rejected", reasons.NOT_FOUND, 0.0, 1, T))
    assert [str(one) for one in waiting] == ["a"]
    again = Waiting()
    again.load(waiting.save())
    assert [str(one) for one in again] == ["a"]
    waiting.answered(Report("a", SYMBOL, ACCEPTED, "", 0.0, 2, T))
    assert list(waiting) == []


def test_who_is_unknown_for_too_long_is_named_once():
    waiting = Waiting()
    waiting.add(act("a"))
    assert waiting.overdue(0) == [], "waiting is not yet unknown"
    waiting.doubt()
    assert [str(one) for one in waiting.overdue(0)] == ["a"]
    assert waiting.overdue(0) == []
    assert waiting.doubt() == [], "and the desk is told once"
