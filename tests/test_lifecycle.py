"""The life of an order: every pair of the table is entered, ends hold, and the books that trade live the same lives."""
import msgspec
import pytest
from builders import candidate, settings
from hypothesis import given
from hypothesis import strategies as st

from config import refusals
from config.settings import ROOT
from engine import reasons
from engine.execution import lifecycle as lc
from engine.execution.lifecycle import ENDS, EVENTS, FAULTS, STATES, TABLE, Life, state_of
from engine.facts import ACCEPTED, CANCELLED, DONE, REJECTED, UNKNOWN, Decision, Fill, Order, Report, Scored
from engine.portfolio import Portfolio

T = 1_700_000_000_000
LOT = 0.001
S = settings()


def test_every_state_has_an_entry_for_every_event_and_no_other():
    assert set(TABLE) == set(STATES) == set(lc.MEANS)
    for row in TABLE.values():
        assert set(row) == set(EVENTS)
        assert all(to in TABLE or to in FAULTS or to == "its end" for to in row.values())


def test_every_state_can_be_reached_and_every_fault_happens():
    reached, frontier = {lc.NEW}, [lc.NEW]
    while frontier:
        for to in TABLE[frontier.pop()].values():
            for one in ENDS if to == "its end" else (to,):
                if one in TABLE and one not in reached:
                    reached.add(one)
                    frontier.append(one)
    assert reached == set(STATES)
    assert {to for row in TABLE.values() for to in row.values() if to in FAULTS} == set(FAULTS)


@pytest.mark.parametrize("end", ENDS)
@pytest.mark.parametrize("event", EVENTS)
def test_no_event_leads_out_of_an_end(end, event):
    life = Life("E-1", 1.0, end)
    assert life.on(event) in FAULTS and life.state == end and sum(life.faults.values()) == 1


@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize("event", EVENTS)
def test_a_fault_is_counted_and_moves_nothing(state, event):
    life = Life("E-1", 1.0, state, end=lc.FILLED)
    to = life.on(event)
    assert (to in FAULTS) == bool(life.faults) and (life.state == state if to in FAULTS else life.state == to)


def report(status: str, filled: float = 0.0, reason: str = "", order_id: str = "E-1") -> Report:
    return Report(order_id, "BTCUSDT", status, reason, filled, 1, T)


def fill(name: str, lots: int, order_id: str = "E-1") -> Fill:
    return Fill(name, order_id, "BTCUSDT", "BUY", 60_000.0, round(lots * LOT, 3), 0.0, True, 1, T)


def lived(*steps, lots: int = 10) -> tuple[Life, list[str]]:
    life = Life("E-1", round(lots * LOT, 3))
    return life, [life.on(x) if isinstance(x, str) else life.on_fill(x) if isinstance(x, Fill) else life.on_report(x) for x in steps]


@pytest.mark.parametrize("steps, states", [
    (["send", report(ACCEPTED), fill("a", 4), fill("b", 6), report(DONE, 0.01)],
     ["sent", "accepted", "partly filled", "partly filled", "filled"]),
    (["send", fill("a", 4), report(ACCEPTED), "ask cancel", fill("b", 1), report(CANCELLED, 0.005, reasons.REQUESTED)],
     ["sent", "partly filled", "partly filled", "cancel asked", "cancel asked", "cancelled"]),
    (["send", report(ACCEPTED), report(DONE, 0.01), fill("a", 4), fill("b", 6)], ["sent", "accepted", "ending", "ending", "filled"]),
    (["send", report(ACCEPTED), report(CANCELLED, 0.004, reasons.IOC_UNFILLED), fill("a", 4)], ["sent", "accepted", "ending", "expired"]),
    (["send", report(REJECTED, 0.0, reasons.POST_ONLY_WOULD_CROSS)], ["sent", "rejected"]),
    (["send", report(UNKNOWN), "not found", "send", report(ACCEPTED), report(ACCEPTED)],
     ["sent", "unknown", "unknown", "unknown", "accepted", "repeated"]),
    (["send", report(UNKNOWN), "not found", report(REJECTED, 0.0, reasons.NOT_ARRIVED)], ["sent", "unknown", "unknown", "rejected"]),
    (["send", report(ACCEPTED), "not found"], ["sent", "accepted", "vanished"]),
    ([report(ACCEPTED), fill("a", 1)], ["not ours", "not ours"]),
    (["send", "send", report(ACCEPTED), "send"], ["sent", "sent", "accepted", "sent twice"]),
    (["send", report(ACCEPTED), "ask cancel", report(REJECTED, 0.0, reasons.NOT_FOUND), report(DONE, 0.01)],
     ["sent", "accepted", "cancel asked", "repeated", "ending"]),
], ids=lambda x: "" if not isinstance(x, list) or not isinstance(x[0], str) else None)
def test_lives_that_orders_have(steps, states):
    assert lived(*steps)[1] == states


def test_a_fill_after_the_end_and_one_beyond_the_order_are_counted_and_kept_apart():
    life, said = lived("send", report(ACCEPTED), fill("a", 9), fill("b", 2), report(CANCELLED, 0.011), fill("c", 1), fill("c", 1))
    assert said[2:] == ["partly filled", "overfill", "cancelled", "fill after the end", "repeated"]
    assert (life.filled, round(life.beyond, 3)) == (0.009, 0.003)
    assert life.faults == {lc.OVERFILL: 1, lc.FILL_AFTER_END: 1, lc.REPEATED: 1}


ANYTHING = st.one_of(
    st.sampled_from(["send", "ask cancel", "doubt", "found", "not found"]),
    st.builds(report, st.sampled_from([ACCEPTED, CANCELLED, DONE, REJECTED, UNKNOWN]), st.integers(0, 14).map(lambda n: n * LOT),
              st.sampled_from(["", reasons.REQUESTED, reasons.IOC_UNFILLED, reasons.NOT_FOUND, reasons.DUPLICATE_ORDER])),
    st.builds(fill, st.sampled_from("abcdef"), st.integers(1, 9)))


@given(st.lists(ANYTHING, max_size=25))
def test_whatever_a_venue_says_an_order_never_holds_more_than_was_ordered_and_nothing_is_lost(steps):
    life, seen = Life("E-1", 0.01), {}
    for step in steps:
        before = life.state
        to = life.on(step) if isinstance(step, str) else life.on_fill(step) if isinstance(step, Fill) else life.on_report(step)
        if isinstance(step, Fill) and to != lc.NOT_OURS:
            seen.setdefault(step.id, step.qty)
        assert life.state == before or before not in ENDS
        assert 0 <= life.filled <= life.qty
        assert abs(life.filled + life.beyond - sum(seen.values())) < 1e-9
        assert life.state != lc.FILLED or life.filled + life.beyond >= life.told - 1e-9
    again = msgspec.msgpack.decode(msgspec.msgpack.encode(life), type=Life)
    assert again == life


# the books

def books() -> Portfolio:
    c = candidate(T)
    decision = Decision("D-1", Scored(c, 0.9, "m", 0.7, 0.4), reasons.ALLOW_NEW_ENTRY, "", 60.0, "x", 0.01, 60_000.0, 10.0, "paper", 1, T)
    p = Portfolio(5000.0)
    p.enter(Order("E-1", "entry", "E-1", "BTCUSDT", "BUY", 0.01, 60_000.0, "limit", True, False, "paper", 1, T, T + 1, decision), decision,
            S.instrument("BTCUSDT"))
    return p


@st.composite
def histories(draw):
    """What a venue may say of an order of ten lots: fills of its own, one end that tells their sum, in any order, some of it twice."""
    cuts = sorted(draw(st.sets(st.integers(1, 9), max_size=4)))
    total = draw(st.sampled_from([0, *cuts, 10]))
    parts = [b - a for a, b in zip([0, *cuts], [*cuts, 10]) if b <= total]
    said: list = [fill(f"f{i}", n) for i, n in enumerate(parts)]
    if draw(st.booleans()):
        said.append(report(ACCEPTED))
    if draw(st.booleans()):
        status, reason = (DONE, "") if total == 10 else draw(st.sampled_from(
            [(CANCELLED, reasons.REQUESTED), (CANCELLED, reasons.IOC_UNFILLED), (REJECTED, reasons.NOT_ARRIVED)]))
        said.append(report(status, total * LOT, reason))
    said += draw(st.lists(st.sampled_from([report(UNKNOWN), "ask cancel", report(REJECTED, 0.0, reasons.NOT_FOUND),
                                           report(REJECTED, 0.0, reasons.DUPLICATE_ORDER)]), max_size=4))
    said += draw(st.lists(st.sampled_from(said), max_size=3)) if said else []
    return draw(st.permutations(said))


@given(histories())
def test_the_books_of_the_desk_are_in_the_tables_state_after_every_word_of_the_venue(history):
    p, life, asked, reason = books(), Life("E-1", 0.01), False, ""
    life.on("send")
    order = p.orders["E-1"]
    for step in history:
        if isinstance(step, str):
            asked = asked or order.told < 0
            life.on(step)
            passed_over = False
        else:
            before = p.duplicates, sum(n for f, n in life.faults.items())
            if isinstance(step, Fill):
                p.on_fill(step)
                life.on_fill(step)
            else:
                reason = step.reason if order.told < 0 and step.status in (CANCELLED, DONE, REJECTED) else reason
                p.on_report(step)
                life.on_report(step)
            passed_over = (p.duplicates - before[0], sum(life.faults.values()) - before[1])
            assert passed_over[0] == passed_over[1]
        assert state_of(order, asked, reason) == life.state
        assert (round(order.filled, 9), order.accepted) == (round(life.filled, 9), life.accepted)
        assert order.settled == (life.state in ENDS)


def test_the_books_book_what_a_venue_fills_beyond_an_order_or_after_its_end_because_the_position_is_there():
    p, life = books(), Life("E-1", 0.01)
    life.on("send")
    for step in (report(ACCEPTED), fill("a", 9), fill("b", 2), report(CANCELLED, 0.011), fill("c", 1)):
        for one in (p, life):
            one.on_fill(step) if isinstance(step, Fill) else one.on_report(step)
    assert round(p.positions["BTCUSDT"], 9) == round(life.filled + life.beyond, 9) == 0.012


def test_what_no_order_of_ours_hears_is_an_orphan_to_both():
    p, life = books(), Life("E-2", 0.01)
    for step in (report(ACCEPTED, order_id="E-2"), fill("a", 1, order_id="E-2")):
        for one in (p, life):
            one.on_fill(step) if isinstance(step, Fill) else one.on_report(step)
    assert p.orphans == life.faults[lc.NOT_OURS] == 2 and state_of(p.orders.get("E-2"), False) == lc.NEW == life.state


def test_the_page_shows_the_table_as_it_is_and_nothing_else_between_its_marks():
    page = (ROOT / "docs" / "execution.md").read_text()
    assert "\n".join(lc.markdown()) in page and refusals.execution(page) == page
    stale = page.replace("*overfill*", "fine", 1)
    assert refusals.execution(stale) == page


def test_a_page_without_its_marks_is_refused():
    with pytest.raises(ValueError, match="the marks"):
        refusals.execution("# a page\n")
