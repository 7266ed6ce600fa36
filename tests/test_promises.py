"""What the desk promises a paced venue holds for what it knew: a report heard since makes the promise void."""

import pytest
from builders import desk, market, settings
from street import Street

from engine.execution.floor import Floor
from engine.execution.matching import Matching
from engine.facts import BUY, DONE, ENTRY, LIMIT, Order, Report
from engine.lane import Lane

S = settings(SPEED="max")
WALK = market(400, gap_ms=100)
START = int(WALK.times[0])


def test_a_floor_works_no_further_than_the_promise_that_knows_its_last_report():
    floor = Floor(Matching("BTCUSDT", S.instrument("BTCUSDT"), S.matching, "t1"), "t1", S.matching.latency_ms, True)
    floor.publish(WALK)
    floor.place(Order("E-1", ENTRY, "E-1", "BTCUSDT", BUY, 0.01, 50_000.0, LIMIT, True, False, "paper", 0, START))
    floor.promise(START + 10_000, 0)
    [accepted] = floor.work()
    floor.promise(accepted.ts_ms + 1000, accepted.seq)      # the desk knows of it, and may act that soon
    assert not floor.work()
    assert floor.known_ms == accepted.ts_ms + 1000 + S.matching.latency_ms
    floor.promise(START + 10_000, 0)                        # told again by who was killed: it was void already
    assert not floor.work()
    assert floor.known_ms == accepted.ts_ms + 1000 + S.matching.latency_ms


def test_a_lane_that_hears_of_an_order_takes_back_what_it_promised_beyond():
    lane = Lane(desk(S), "BTCUSDT")
    lane.add(WALK, [])
    lane.session, lane.promise_ms = WALK.session, START + 10_000
    lane.heard([Report("E-1", "BTCUSDT", DONE, "", 0.01, 1, START - 1)], START)
    moves = lane.step()
    assert moves is not None
    list(moves)
    assert (lane.seen, lane.promise_ms) == (1, START - 1)


@pytest.mark.parametrize("seed", range(6))
def test_however_two_symbols_wait_for_each_other_an_order_arrives_its_latency_after_it_was_decided(tmp_path, seed):
    street = Street(tmp_path, True)
    street.trade(seed, 60)          # the street itself objects to an order that comes late
    street.drain()
    assert len([o for o in street.account.sent.values() if o.id in street.venue.sent]) > 3
    street.ledger.close()
