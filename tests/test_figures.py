"""Every figure draws what the table says, also where the table is empty."""
import re

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from store import figures as f
from store import palette

NOTHING = pd.DataFrame()
MONEY = st.floats(-1000, 1000, allow_nan=False)
OUTCOMES = st.lists(st.tuples(st.integers(0, 10**9), MONEY, st.floats(0, 10)), min_size=1, max_size=60)


def closed(rows) -> pd.DataFrame:
    return pd.DataFrame([{"closed_ms": 1_767_690_000_000 + t, "gross_usd": g, "fees_usd": fee, "net_usd": g - fee, "cause": "target",
                          "regime": "normal"} for t, g, fee in rows])


@pytest.mark.parametrize("draw", [f.equity_curve, f.pnl_by_hour, f.pnl_by_regime, f.exits_by_cause, f.drops_by_reason,
                                  f.fills_by_liquidity, f.latency_bars, lambda t: f.market_with_fills(t, t)])
def test_an_empty_table_is_an_empty_figure_that_says_so(draw):
    figure = draw(NOTHING)
    assert not figure.data and figure.layout.annotations[0].text


@given(OUTCOMES, st.floats(100, 10_000))
def test_the_curve_ends_at_start_plus_everything_earned_and_the_gap_is_the_fees(rows, start):
    table = closed(rows)
    before, after = f.equity_curve(table, start).data[:2]
    assert after.y[-1] == pytest.approx(start + table["net_usd"].sum(), abs=1e-6)
    assert before.y[-1] - after.y[-1] == pytest.approx(table["fees_usd"].sum(), abs=1e-6)
    assert list(after.x) == sorted(after.x)


@given(st.integers(1, 20_000))
def test_thinning_keeps_both_ends_and_the_bound(n):
    kept = f.thinned(n)
    assert kept[0] == 0 and kept[-1] == n - 1 and len(kept) <= f.MOST_POINTS and (np.diff(kept) > 0).all()


@given(OUTCOMES)
def test_hours_and_regimes_and_causes_lose_no_money(rows):
    table = closed(rows)
    assert sum(f.pnl_by_hour(table).data[0].y) == pytest.approx(table["net_usd"].sum(), abs=1e-6)
    assert sum(f.pnl_by_regime(table).data[0].x) == pytest.approx(table["net_usd"].sum(), abs=1e-6)
    assert sum(f.exits_by_cause(table).data[0].x) == len(table)


def test_refusals_are_counted_alike_from_rows_and_from_counts_and_yeses_are_left_out():
    rows = pd.DataFrame({"code": ["BLOCK_COOLDOWN", "BLOCK_COOLDOWN", "halted", "ALLOW_NEW_ENTRY"], "allowed": [False, False, 0, True]})
    summed = rows.groupby(["code", "allowed"], as_index=False).size().rename(columns={"size": "n"})
    for table in (rows, summed):
        bar = f.drops_by_reason(table).data[0]
        assert dict(zip(bar.y, bar.x)) == {"halted": 1, "cooldown": 2}


def test_profit_and_loss_have_their_colours_and_a_sign_beside_them():
    table = pd.DataFrame({"regime": ["calm", "wild"], "net_usd": [3.0, -2.0]})
    bar = f.pnl_by_regime(table).data[0]
    assert dict(zip(bar.y, bar.marker.color)) == {"calm": palette.PROFIT, "wild": palette.LOSS}
    assert {t.split(" $")[0] for t in bar.text} == {"+3.00", "−2.00"}


def test_maker_and_taker_share_fills_turnover_and_fees_also_when_a_rebate_is_paid():
    fills = pd.DataFrame({"maker": [True, True, False], "price": [100.0] * 3, "qty": [1.0, 2.0, 1.0], "fee_usd": [-0.1, -0.2, 0.4]})
    maker, taker = f.fills_by_liquidity(fills).data
    assert dict(zip(maker.y, maker.x)) == {"fills": pytest.approx(2 / 3), "turnover": 0.75, "fees": 0.0}
    assert dict(zip(maker.y, maker.text))["fees"] == "-0.30 $" and dict(zip(taker.y, taker.x))["fees"] == 1.0


def test_fills_stand_on_the_market_by_side_and_liquidity():
    mid = pd.DataFrame({"ts_ms": [0, 1000, 2000], "price": [10.0, 11.0, 10.5]})
    fills = pd.DataFrame({"ts_ms": [500, 1500], "price": [10.0, 11.0], "side": ["BUY", "SELL"], "maker": [True, False], "qty": [1, 1]})
    assert [t.name for t in f.market_with_fills(mid, fills).data] == ["mid", "buy as maker", "sell as taker"]
    candles = mid.assign(open=10.0, high=11.5, low=9.5, close=11.0)
    assert f.market_with_fills(candles, fills).data[0].type == "candlestick"


def test_latency_of_an_unmeasured_stage_is_left_out_not_drawn_as_zero():
    stages = pd.DataFrame({"stage": ["risk", "executor"], "p50_ms": [1.0, None], "p99_ms": [4.0, None]})
    assert [list(t.y) for t in f.latency_bars(stages).data] == [["risk"], ["risk"]]


def test_the_report_is_one_page_that_asks_the_network_for_nothing_and_escapes_what_it_is_told():
    table = closed([(0, 2.0, 0.5), (3_600_000, -1.0, 0.5)])
    decisions = pd.DataFrame({"code": ["ALLOW_NEW_ENTRY", "BLOCK_COOLDOWN"], "allowed": [True, False]})
    page = f.backtest_report(table, decisions, title="<b>run</b>", start_usd=5000, note="seed 7 & fees")
    assert "&lt;b&gt;run&lt;/b&gt;" in page and "seed 7 &amp; fees" in page
    assert not re.findall(r"<(?:script|link|img|iframe)[^>]+(?:src|href)=", page) and "plotly.js v" in page
    assert "+0.00 $" in page and "50.0%" in page and page.count("plotly-graph-div") == 5


def test_the_report_of_a_run_that_did_nothing_still_reads():
    page = f.backtest_report(NOTHING, NOTHING)
    assert "No closed trade yet" in page and "Nothing was refused" in page
