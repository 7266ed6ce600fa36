"""Markouts at real horizons, whatever the frames; fill rate and cancel-to-fill by route."""
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine import metrics as m
from engine.execution.markout import HORIZONS, Markouts
from engine.execution.rates import Rates
from engine.facts import BUY, ENTRY, SELL, Fill, Order, Report
from engine.telemetry import Telemetry

T, TICK = 1_700_000_000_000, 0.1


def told(k: Markouts, ts, bid, ask, upto=None, session="t1", symbol="X"):
    ts = np.array(ts, np.int64)
    return k.on_market(symbol, session, TICK, ts, np.array(bid, np.int32), np.array(ask, np.int32), int(ts[-1]) if upto is None else upto)


def marks(*marked):
    return {(one.fill_id, one.horizon): round(one.bps, 6) for some in marked for one in some}


def test_a_markout_is_the_mid_at_the_horizon_against_the_price_and_positive_where_the_price_went_the_fills_way():
    k = Markouts(30, 2000)
    k.on_fill("buy", "X", BUY, 100.0, T, "paper")
    k.on_fill("sell", "X", SELL, 100.0, T, "paper")
    got = marks(told(k, [T, T + 100, T + 400, T + 600, T + 1001], [999, 1000, 1009, 0, 900], [1001, 1002, 1011, 1012, 902]))
    assert got == {("buy", 100): 10.0, ("sell", 100): -10.0, ("buy", 500): 100.0, ("sell", 500): -100.0,
                   ("buy", 1000): 100.0, ("sell", 1000): -100.0}         # the book with an empty side at 600 ms has no mid


def test_a_horizon_is_only_known_once_a_later_event_has_come():
    k = Markouts(30, 2000)
    k.on_fill("a", "X", BUY, 100.0, T, "paper")
    assert told(k, [T, T + 100], [999, 999], [1001, 1001]) == []
    assert told(k, [T + 100], [1009], [1011]) == []                      # of the same moment, and the last of it counts
    assert marks(told(k, [], [], [], upto=T + 101)) == {("a", 100): 100.0}


def test_a_fill_before_the_first_book_or_told_too_late_or_in_a_run_that_ended_is_missed_and_counted():
    k = Markouts(30, 2000)
    k.on_fill("a", "X", BUY, 100.0, T, "paper")
    assert told(k, [T + 5000], [1000], [1002]) == [] and k.state.missed == 3
    assert k.on_fill("b", "X", BUY, 100.0, T + 2500, "paper") == [] and k.state.missed == 6
    k.on_fill("c", "X", BUY, 100.0, T + 5000, "paper")
    told(k, [T], [1000], [1002], session="t2")
    assert k.state.missed == 9 and not k.state.pending.get("X")


def test_averages_go_over_the_last_fills_of_their_route():
    k = Markouts(2, 2000)
    for i, (route, price) in enumerate([("paper", 100.0), ("paper", 200.0), ("canary", 50.0), ("paper", 100.0)]):
        k.on_fill(f"f{i}", "X", BUY, price, T + i, route)
    told(k, [T], [999], [1001])
    assert k.average("paper", 100) != k.average("paper", 100)
    told(k, [], [], [], upto=T + 5000)
    assert (k.average("paper", 100), k.average("canary", 1000)) == ((-5000.0 + 0.0) / 2, 10_000.0)


EVENTS = st.lists(st.tuples(st.integers(0, 400), st.integers(0, 6), st.integers(990, 1010), st.integers(1, 5)), min_size=1, max_size=60)
FILLS = st.lists(st.tuples(st.integers(0, 10_000), st.sampled_from([BUY, SELL]), st.integers(990, 1010)), max_size=5)


def expected(events, fills, upto):
    """The same by going through the list."""
    out = {}
    for i, (after, side, price) in enumerate(fills):
        for h in HORIZONS:
            due = T + after + h
            mids = [(bid + ask) * TICK / 2 for ts, bid, ask in events if ts <= due and bid]
            if due < upto and mids:
                out[f"f{i}", h] = round((1 if side == BUY else -1) * (mids[-1] - price * TICK) / (price * TICK) * 1e4, 6)
    return out


@given(EVENTS, FILLS, st.lists(st.integers(0, 60), max_size=8), st.integers(0, 60))
def test_however_the_market_is_cut_and_a_process_dies_between_the_markouts_are_the_same(raw, fills, cuts, death):
    events, at = [], T
    for wait, empty, bid, spread in raw:
        at += wait
        events.append((at, 0 if not empty else bid, bid + spread))
    upto = at
    bounds = [0, *sorted({c for c in cuts if 0 < c < len(events)}), len(events)]
    k, got, waiting = Markouts(30, 2000), [], sorted((T + after, i) for i, (after, _, _) in enumerate(fills))
    for a, b in pairwise(bounds):
        ts, bid, ask = zip(*events[a:b])
        while waiting and waiting[0][0] <= ts[0]:        # a fill is heard before the market goes on past it
            at_ms, i = waiting.pop(0)
            got.append(k.on_fill(f"f{i}", "X", fills[i][1], fills[i][2] * TICK, at_ms, "paper"))
        got.append(told(k, ts, bid, ask))
        if a <= death < b:
            blob, k = k.snapshot(), Markouts(30, 2000)
            k.restore(blob)
        for at_ms, i in [w for w in waiting if ts[-1] - w[0] <= 2000 and w[0] <= ts[-1]]:     # and one that is told late, in time
            waiting.remove((at_ms, i))
            got.append(k.on_fill(f"f{i}", "X", fills[i][1], fills[i][2] * TICK, at_ms, "paper"))
    heard = [f for i, f in enumerate(fills) if (T + f[0], i) not in waiting]
    ids = {i: f"f{j}" for j, i in enumerate(i for i, f in enumerate(fills) if (T + f[0], i) not in waiting)}
    want = expected(events, heard, upto)
    assert {(ids[int(name[1:])], h): bps for (name, h), bps in marks(*got).items()} == want


@given(EVENTS, FILLS)
def test_averages_do_not_depend_on_whether_fills_or_market_are_told_first(raw, fills):
    first, later, at, events = Markouts(3, 10**6), Markouts(3, 10**6), T, []
    for wait, _, bid, spread in raw:
        at += wait
        events.append((at, bid, bid + spread))
    for k, market_first in ((first, False), (later, True)):
        if market_first:
            told(k, *zip(*events))
        for i, (after, side, price) in enumerate(fills):
            k.on_fill(f"f{i}", "X", side, price * TICK, T + after, "paper")
        if not market_first:
            told(k, *zip(*events))
    assert first.state.last == later.state.last


# rates

def rated(*steps) -> Rates:
    rates = Rates(3)
    for verb, *args in steps:
        getattr(rates, f"on_{verb}")(*args)
    return rates


def test_an_entry_counts_once_however_many_levels_it_has():
    r = rated(("placed", "E-1", "paper"), ("placed", "E-1.1", "paper"), ("placed", "E-2", "paper"), ("filled", "E-1.1"), ("filled", "E-1"),
              ("ended", "E-2"))
    assert (r.fill_rate("paper"), r.cancel_to_fill("paper")) == (0.5, 1.0)


def test_an_entry_is_cancelled_when_all_its_levels_have_ended_without_a_fill():
    r = rated(("placed", "E-1", "paper"), ("placed", "E-1.1", "paper"), ("ended", "E-1"))
    assert r.cancel_to_fill("paper") == 0.0
    r.on_ended("E-1.1")
    assert r.cancel_to_fill("paper") == 1.0


def test_only_the_last_entries_count_and_no_entry_is_no_number():
    r = rated(*[("placed", f"E-{i}", "paper") for i in range(5)], ("filled", "E-0"), ("filled", "E-4"))
    assert r.fill_rate("paper") == pytest.approx(1 / 3)
    assert r.fill_rate("canary") != r.fill_rate("canary") and r.on_filled("X1-9") == "" == r.on_ended("E-77")


def test_the_first_fill_of_an_entry_names_its_route_once():
    r = rated(("placed", "E-1", "canary"))
    assert [r.on_filled("E-1"), r.on_filled("E-1")] == ["canary", ""]


class Gauges(dict):
    def inc(self, series, by=1, **labels):
        self[series.name, *labels.values()] = self.get((series.name, *labels.values()), 0) + by

    def set(self, series, value, **labels):
        self[series.name, *labels.values()] = value


def test_what_an_operator_sees_of_fills_cancels_markouts_and_ladders():
    gauges = Gauges()
    t = Telemetry(gauges)
    for order_id in ("E-1", "E-2", "E-2.1"):
        t.said([Order(order_id, ENTRY, order_id, "X", BUY, 1.0, 1.0, "limit", True, False, "paper", 1, T)])
    t.heard(Fill("f", "E-2.1", "X", BUY, 1.0, 1.0, 0.0, True, 1, T))
    t.heard(Fill("g", "E-2", "X", BUY, 1.0, 1.0, 0.0, True, 2, T))
    t.heard(Report("E-1", "X", "cancelled", "requested", 0.0, 3, T))
    assert gauges[m.FILL_RATE_ROLLING.name, "paper"] == 0.5 and gauges[m.CANCEL_TO_FILL_RATIO.name, "paper"] == 1.0
    assert gauges[m.TRADES_OPENED_TOTAL.name, "paper"] == 1
    k = Markouts(30, 2000)
    k.on_fill("f", "X", BUY, 100.0, T, "paper")
    t.marked(k, told(k, [T, T + 600], [999, 999], [1003, 1003]))
    assert gauges[m.AVG_MARKOUT_500MS.name, "paper"] == pytest.approx(10.0) and (m.AVG_MARKOUT_1000MS.name, "paper") not in gauges
    told(k, [T], [999], [1003], session="t2")
    t.marked(k, [])
    assert gauges[(m.MARKOUTS_MISSED_TOTAL.name,)] == 1
    t.laddered([0.1, 0.3, 0.9, 0.8])
    assert gauges[m.EXEC_LADDER_AGGRESSIVENESS_TOTAL.name, "gte_0.75"] == 2
