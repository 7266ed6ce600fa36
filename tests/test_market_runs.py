"""The market started anew, a writer killed just then, a restart in between: what is told late or twice neither acts nor holds up."""

import pytest
from msgspec.structs import replace
from street import CONTROLS, FRAMES, SCORES, Event, Street, Wish

from engine.facts import BUY, Order, ScoredBatch, join
from streams.codec import decode, encode

QUIET = [Event(300, 0, 1, 400, 0)] * 4
TRADED = [Event(300, 0, 1, 400, 0), *[Event(300, 0, 1, 400, -1)] * 3]
BOUGHT = [Wish(0, BUY, 0.9, 0, 10, 20)]
ONE = ("BTCUSDT",)


@pytest.fixture
def street(tmp_path, request):
    """A street; the parameter says whether its market waits for the desk."""
    lockstep, symbols = request.param
    made = Street(tmp_path, lockstep, symbols)
    yield made
    made.ledger.close()


paced_and_not = pytest.mark.parametrize("street", [(True, ONE), (False, ONE)], indirect=True, ids=["paced", "unpaced"])
paced_two = pytest.mark.parametrize("street", [(True, ("BTCUSDT", "ETHUSDT"))], indirect=True, ids=["paced"])


@paced_and_not
def test_a_release_told_twice_does_not_undo_the_kill_between(street):
    street.kill("k1")
    street.release("r1", "k1", "k2")        # whoever wrote it knew no k2
    street.kill("k2")
    street.drain()
    street.logs[CONTROLS].append(street.logs[CONTROLS][1])
    street.restart()
    street.drain()
    assert street.host.desk.state.halted


@paced_and_not
def test_a_kill_told_twice_does_not_undo_the_release_after_it(street):
    street.kill("k1")
    street.release("r1", "k1")
    street.logs[CONTROLS].append(street.logs[CONTROLS][0])
    street.drain()
    assert not street.host.desk.state.halted


@paced_and_not
def test_frames_of_an_earlier_run_told_again_are_not_the_market_of_today(street):
    street.market("BTCUSDT", QUIET)
    street.drain()
    street.renew()
    street.mid["BTCUSDT"] += 500
    street.market("BTCUSDT", QUIET)
    street.drain()
    touch = street.host.desk.state.touches["BTCUSDT"].bid
    for topic in (FRAMES, SCORES):
        street.logs[topic].append(street.logs[topic][0])
    street.drain()
    assert street.host.desk.state.touches["BTCUSDT"].bid == touch
    assert street.host.market["BTCUSDT"] == (street.session, 4)


@paced_and_not
@pytest.mark.parametrize("restarts", [False, True])
def test_scores_of_an_earlier_run_told_again_cost_no_frame_of_the_new_one(street, restarts):
    street.market("BTCUSDT", QUIET, BOUGHT)
    street.drain()
    street.renew()
    street.logs[SCORES].append(street.logs[SCORES][0])       # by a scorer that was killed behind its acknowledgement
    street.market("BTCUSDT", QUIET, BOUGHT)
    if restarts:
        street.restart()
    street.drain()
    assert street.host.market["BTCUSDT"] == (street.session, 4)
    assert len([o for o in street.account.sent.values() if o.id == o.entry_id]) == 2


@paced_and_not
def test_scores_that_overlap_what_was_read_act_only_where_they_are_new(street):
    street.market("BTCUSDT", QUIET[:2], BOUGHT)
    street.drain()
    street.market("BTCUSDT", QUIET, [Wish(3, BUY, 0.97, 0, 10, 20)])
    frame, batch = decode(street.logs[FRAMES].pop()), decode(street.logs[SCORES].pop())
    first, scored = decode(street.logs[FRAMES][0]), decode(street.logs[SCORES][0])
    street.logs[FRAMES].append(encode(join([first, frame])))
    street.logs[SCORES].append(encode(replace(batch, seq=0, n=6, items=[*scored.items, *batch.items])))
    street.drain()
    said = [s for s in street.said if b"dropped" in s]
    assert not any(scored.items[0].signal.id.encode() in s for s in said), "a score that had been read was judged again"
    assert street.host.market["BTCUSDT"] == (street.session, 6)


@paced_two
def test_a_symbol_whose_market_is_over_does_not_hold_the_others_after_a_restart(street):
    street.market("ETHUSDT", QUIET)
    street.market("BTCUSDT", QUIET, BOUGHT)
    street.over = {"ETHUSDT": int(street.frames["ETHUSDT"][-1].times[-1]), "BTCUSDT": 0}
    street.drain()
    street.restart()
    street.market("BTCUSDT", TRADED, BOUGHT)
    street.drain()
    assert street.host.market["BTCUSDT"] == ("t1", 8)


@paced_two
def test_frames_that_an_earlier_run_left_behind_are_worked_off_after_a_restart(street):
    street.market("ETHUSDT", QUIET)
    street.market("BTCUSDT", QUIET)
    street.drain()
    street.market("BTCUSDT", QUIET)                          # the desk waits for the other symbol: this stays unread in the lane
    street.drain()
    assert street.host.roads["BTCUSDT"].lane.stretches
    street.renew()
    for symbol in street.symbols:
        street.market(symbol, QUIET)
    street.restart()
    street.drain()
    for symbol in street.symbols:
        street.market(symbol, QUIET)
    street.drain()
    assert street.host.market["BTCUSDT"][0] == street.session
    assert street.host.market["ETHUSDT"][0] == street.session


@pytest.mark.parametrize("street", [(False, ONE)], indirect=True, ids=["unpaced"])
def test_an_order_on_its_way_when_the_market_is_started_anew_arrives_and_is_taken_back(street):
    street.market("BTCUSDT", QUIET, BOUGHT)
    street.host.desk.state.now_ms += 5000                    # another symbol's market is ahead: the order carries that time
    street.drain()
    assert [isinstance(o, Order) for o in street.account.sent.values()] == [True]
    street.renew()
    street.drain()
    assert not street.host.desk.portfolio.entries


@paced_two
def test_an_order_at_work_in_frames_that_an_earlier_run_left_behind_is_settled_after_a_restart(street):
    for symbol, events, gap_ms in (("ETHUSDT", 2, 300), ("BTCUSDT", 5, 300), ("ETHUSDT", 5, 60)):
        street.market(symbol, [Event(gap_ms, 0, 1, 400, 0)] * events, BOUGHT)
        street.drain()
    assert street.host.desk.working("ETHUSDT")
    street.renew()                                           # the order is taken back; nobody has read of it yet
    for symbol in street.symbols:
        street.market(symbol, QUIET)
    street.restart()
    for _ in range(4):
        street.drain()
        for symbol in street.symbols:
            street.market(symbol, QUIET)
    street.drain()
    assert not street.host.desk.working("ETHUSDT")
    assert {session for session, _ in street.host.market.values()} == {street.session}


@pytest.mark.parametrize("street", [(True, ONE)], indirect=True, ids=["paced"])
def test_a_new_run_does_not_forget_what_the_venue_said_of_the_one_before(street):
    quiet = [Event(20, 0, 1, 400, 0)] * 3
    street.market("BTCUSDT", quiet, BOUGHT)
    street.drain()
    assert street.host.desk.working("BTCUSDT")
    lane = street.host.roads["BTCUSDT"].lane
    known_ms = lane.known_ms
    kept = street.session
    street.market("BTCUSDT", [Event(40, 0, 1, 400, 0), Event(2000, 0, 1, 400, 0)], [Wish(1, BUY, 0.3, 0, 10, 20)])
    street.renew()
    street.market("BTCUSDT", QUIET)
    street.drain()
    street.market("BTCUSDT", QUIET)
    street.drain()
    assert lane.known_ms > known_ms
    assert not street.host.desk.working("BTCUSDT")
    assert street.host.market["BTCUSDT"] == (street.session, 8)
    told = [fact for entry in street.ledger.entries() for fact in entry.consumed if isinstance(fact, ScoredBatch)]
    assert [fact.session for fact in told] == [kept, kept], "a score is of the run that its market was of"
