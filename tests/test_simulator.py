"""The simulated market: the same whatever is asked of it, and much like the recorded one."""
import time

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st

from config.settings import load
from engine.facts import BOOK, Frame, join
from engine.market.fitting import BANDS, SOURCES, cadence, compared, off, simulated
from engine.market.simulator import BLOCK, Simulator
from engine.market.stylised import thinned
from scripts import simulate_market
from store import archive
from store.importers import open_recording

SETTINGS = load(env={})
START = 1_700_000_000_000
SYMBOLS = sorted(SETTINGS.market)


def simulator(symbol: str = "BTCUSDT", seed: int = 7, session: str = "s1", **changes) -> Simulator:
    model = msgspec.structs.replace(SETTINGS.market[symbol], **changes)
    return Simulator(symbol, SETTINGS.instrument(symbol), model, seed, START, session)


def taken(s: Simulator, n: int, upto_ms: int = 2**62) -> Frame:
    frame = s.frame(upto_ms, n)
    assert frame is not None
    return frame


@pytest.mark.parametrize("symbol", SYMBOLS)
def test_every_book_is_a_book_and_every_trade_a_trade(symbol):
    frame = taken(simulator(symbol), 60_000)
    books, trades = frame.book_rows, frame.trade_rows
    assert frame.n == 60_000 and frame.seq == 0 and frame.times[0] >= START
    assert (np.diff(frame.times) >= 0).all()
    assert (books[:, 0, 0] > 0).all() and (books[:, 0, 0] < books[:, 2, 0]).all()
    bids, asks = np.diff(books[:, 0], axis=1), np.diff(books[:, 2], axis=1)
    assert (bids[books[:, 0, 1:] > 0] < 0).all() and (asks[books[:, 2, 1:] > 0] > 0).all()
    assert ((books[:, 1] > 0) == (books[:, 0] > 0)).all() and ((books[:, 3] > 0) == (books[:, 2] > 0)).all()
    assert (books[:, 1, 0] > 0).all() and (books[:, 3, 0] > 0).all()
    assert (trades[:, :2] > 0).all() and set(np.unique(trades[:, 2])) == {-1, 1}


@examples(max_examples=25, deadline=None)
@given(st.sampled_from(SYMBOLS), st.integers(0, 2**63), st.integers(0, 11),
       st.lists(st.tuples(st.integers(1, 40_000), st.integers(1, 3000)), min_size=1, max_size=12))
def test_how_it_is_asked_changes_nothing_nor_does_a_restart(symbol, seed, restart, steps):
    s, parts, upto = simulator(symbol, seed), [], START
    for i, (wait, most) in enumerate(steps):
        upto += wait
        if i == restart:
            blob, s = s.snapshot(), simulator(symbol, seed)
            s.restore(blob)
        frame = s.frame(upto, most)
        if frame is not None:
            assert frame.n <= most and frame.times[-1] <= upto
            assert frame.n == most or s.now_ms > upto
            parts.append(frame)
    if parts:
        whole = join(parts)
        assert whole == taken(simulator(symbol, seed), whole.n)


def test_a_frame_may_span_blocks():
    s = simulator()
    whole = taken(s, 3 * BLOCK)
    other = simulator()
    assert join([taken(other, 1000) for _ in range(12)] + [taken(other, 3 * BLOCK - 12_000)]) == whole


def test_another_seed_or_symbol_is_another_market_and_the_session_only_a_name():
    a, b, c = taken(simulator(), 500), taken(simulator(seed=8), 500), taken(simulator(session="s2"), 500)
    assert a.books != b.books and a.books == c.books and (a.session, c.session) == ("s1", "s2")


def test_a_snapshot_of_another_market_is_refused():
    with pytest.raises(ValueError, match="another seed or model"):
        simulator(seed=8).restore(simulator().snapshot())


def test_nothing_comes_before_its_time():
    s = simulator()
    assert s.frame(START - 1, 100) is None
    assert s.frame(s.now_ms - 1, 100) is None and s.frame(s.now_ms, 100) is not None


@pytest.mark.parametrize("symbol", SYMBOLS)
def test_a_symbol_gives_some_twenty_to_sixty_events_a_second_and_its_regimes_change_within_minutes(symbol):
    s = simulator(symbol)
    seen, events = set(), 0
    for minute in range(1, 361):
        events += taken(s, 1 << 20, START + 60_000 * minute).n
        seen.add(s.regime)
    assert 18 <= events / 21_600 <= 60
    assert seen == {"calm", "event", "high_vol"}


def test_a_regime_is_as_volatile_as_it_is_told():
    def hourly(regime: int) -> float:
        sigma = [SETTINGS.market["BTCUSDT"].sigma_bps_hour[regime]] * 3
        s = simulator(sigma_bps_hour=sigma)
        rows = taken(s, 1 << 24, START + 8 * 3_600_000)
        at, mid = rows.times[rows.kinds == BOOK], rows.book_rows[:, [0, 2], 0].mean(1)
        minute = np.log(mid[np.searchsorted(at, np.arange(at[0], at[-1], 60_000), "right") - 1])
        return float(np.diff(minute).std() * np.sqrt(60) * 1e4)
    for regime in range(3):
        told = SETTINGS.market["BTCUSDT"].sigma_bps_hour[regime]
        assert 0.6 * told < hourly(regime) < 1.6 * told


def test_it_makes_a_million_events_a_second_on_one_core():
    s = simulator()
    taken(s, BLOCK)
    began = time.perf_counter()
    events = sum(taken(s, 50_000).n for _ in range(10))
    assert events / (time.perf_counter() - began) > 500_000       # half, so that a busy machine does not fail it


def test_a_resting_order_is_met_by_those_who_know_better():
    got = compared(simulated("BTCUSDT", SETTINGS.instrument("BTCUSDT"), SETTINGS.market["BTCUSDT"], 2.0, 5))
    assert got["markout_1000ms_bps"] < got["markout_500ms_bps"] < 0
    assert 0.2 <= got["imbalance_10s"] <= 0.45


def test_a_thinned_feed_keeps_every_trade_and_the_last_book_of_each_interval():
    frame = taken(simulator(), 5000)
    thin = thinned(frame, 500)
    assert thin.trade_rows.tobytes() == frame.trade_rows.tobytes()
    at = thin.times[thin.kinds == BOOK]
    assert len(np.unique(at // 500)) == len(at) and (thin.book_rows[-1] == frame.book_rows[-1]).all()


@pytest.fixture(scope="module")
def imported(tmp_path_factory):
    return tmp_path_factory.mktemp("recordings")


@pytest.mark.recorded
@pytest.mark.parametrize("symbol", sorted(SOURCES))
def test_the_simulated_market_behaves_like_the_recorded_one(recordings, imported, symbol, capsys):
    name, theirs = SOURCES[symbol]
    root, _ = open_recording(name, imported, SETTINGS)
    recorded = join(list(archive.read(root, theirs, events=1 << 16)))
    wanted = compared(recorded)
    frame = simulated(symbol, SETTINGS.instrument(symbol), SETTINGS.market[symbol], 4.0, 11)
    got = compared(frame, cadence(recorded), wanted["minutes"])
    with capsys.disabled():
        print(f"\n{symbol} against {name} {theirs}" + " " * 20 + "simulated  recorded  off (tolerances)")
        for figure in got:
            far = f"{off(figure, got[figure], wanted[figure]):+10.2f} ± 2" if figure in BANDS else ""
            print(f"  {figure:38s}{got[figure]:14.3f}{wanted[figure]:10.3f}{far}")
    assert {f: (got[f], wanted[f]) for f in BANDS if abs(off(f, got[f], wanted[f])) > 2} == {}
    assert 0.2 <= got["imbalance_10s"] <= 0.4 and got["markout_1000ms_bps"] < 0 and wanted["markout_1000ms_bps"] < 0


def test_an_archive_of_the_market_is_written_whole_and_not_over_another(tmp_path, capsys):
    place = ["--symbols", "SOLUSDT", "--hours", "0.1", "--seed", "3", "--to", str(tmp_path / "sim")]
    assert simulate_market.main(place) == 0
    frames = list(archive.read(tmp_path / "sim", "SOLUSDT"))
    assert sum(f.n for f in frames) > 1000 and frames[-1].times[-1] - frames[0].times[0] < 360_000
    assert simulate_market.main(place) == 1 and "--force" in capsys.readouterr().err
    assert simulate_market.main([*place, "--force"]) == 0
    assert [f.books for f in archive.read(tmp_path / "sim", "SOLUSDT")] == [f.books for f in frames]
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "x.txt").write_text("mine")
    assert simulate_market.main([*place[:-1], str(tmp_path / "notes"), "--force"]) == 1
    assert (tmp_path / "notes" / "x.txt").read_text() == "mine"
