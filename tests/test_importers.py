"""Recordings become archives: the account on the real ones, and what a person sees when one is broken."""
import json
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from config.settings import load
from engine.facts import BOOK, DEPTH, TRADE, join
from scripts.import_recording import main
from store import archive, depth, importers, recorded
from store.importers import RecordingError, import_recording, open_recording

SETTINGS = load(env={})
T0 = 1_767_654_000_000


# a small recording of the shape of StandX, made here ------------------------------------------------------------------------------

def standx(folder: Path, n: int = 40, floats: bool = False, **columns) -> Path:
    """A day of books every 250 ms and prints between them; keywords replace columns (`trades_` before those of the prints)."""
    folder.mkdir(parents=True, exist_ok=True)
    ts = T0 + 250 * np.arange(n)
    number = np.float64 if floats else np.int32
    book = {"ts_exch_ms": ts, "ts_recv_us": (ts + 300) * 1000}
    for i in range(DEPTH):
        book |= {f"bid_px_{i}": np.full(n, 941250 - i, number), f"bid_qty_{i}": np.full(n, 10, number),
                 f"ask_px_{i}": np.full(n, 941252 + i, number), f"ask_qty_{i}": np.full(n, 10, number)}
    trades = {"ts_exch_ms": ts + 100, "ts_recv_us": (ts + 300) * 1000, "px": np.full(n, 9412520, number), "qty": np.full(n, 7, number)}
    for name, values in columns.items():
        (trades if name.startswith("trades_") else book)[name.removeprefix("trades_")] = values
    meta = {"px_tick": "0.1", "qty_step": "0.0001"}
    pq.write_table(pa.table({k: v for k, v in book.items() if v is not None}).replace_schema_metadata(meta),
                   folder / "BTCUSD_book10_2026-01-05.parquet")
    pq.write_table(pa.table({k: v for k, v in trades.items() if v is not None}), folder / "BTCUSD_trades_2026-01-05.parquet")
    return folder


def with_value(at: int, value, n: int = 40, usual: float = 10, dtype=np.int32) -> np.ndarray:
    out = np.full(n, usual, dtype)
    out[at] = value
    return out


def command(tmp_path: Path, capsys, *more: str) -> tuple[int, str, str]:
    code = main(["standx", "--from", str(tmp_path / "in"), "--to", str(tmp_path / "out"), *more])
    return code, *capsys.readouterr()


def test_books_and_prints_are_merged_by_exchange_time_and_the_side_is_inferred(tmp_path):
    report = import_recording("standx", standx(tmp_path / "in"), tmp_path / "out", SETTINGS)
    frame = join(list(archive.read(tmp_path / "out", "BTCUSD")))
    assert report["BTCUSD"].counts.books == report["BTCUSD"].counts.trades == 40 and not report["BTCUSD"].counts.refused
    assert frame.kinds.tolist() == [BOOK, TRADE] * 40 and (np.diff(frame.times) >= 0).all()
    assert frame.book_rows[0, 0, 0] == 9412500 and frame.trade_rows[0].tolist() == [9412520, 7, 1]
    assert (report["BTCUSD"].first_ms, report["BTCUSD"].last_ms) == (T0, T0 + 250 * 39 + 100)


def test_the_command_prints_the_account_and_a_second_run_reads_nothing(tmp_path, capsys):
    standx(tmp_path / "in", bid_qty_0=with_value(3, -1), ask_px_0=with_value(5, 941249, usual=941252),
           trades_px=with_value(2, 9700000, usual=9412520))
    code, out, _ = command(tmp_path, capsys)
    assert code == 0
    for line in ("refused: crossed", "refused: non_positive", "refused: off_market", "books taken", "BTCUSD", "77 events"):
        assert line in out
    assert "current; --force imports anew" in command(tmp_path, capsys)[1]
    assert "77 events" in command(tmp_path, capsys, "--force")[1]


@pytest.mark.parametrize("columns, reason", [
    ({"bid_px_3": with_value(7, np.nan, usual=941247, dtype=np.float64)}, "non_finite"),
    ({"trades_px": with_value(7, np.nan, usual=9412520, dtype=np.float64)}, "non_finite"),
    ({"trades_qty": with_value(7, np.inf, dtype=np.float64)}, "non_finite"),
    ({"trades_qty": with_value(7, -3)}, "non_positive"),
    ({"ask_qty_0": with_value(7, -3)}, "non_positive"),
    ({"bid_px_0": with_value(7, 941253, usual=941250)}, "crossed"),
    ({"ask_qty_9": with_value(7, 2**40, dtype=np.int64)}, "overflow"),
    ({"trades_ts_exch_ms": with_value(7, T0, usual=T0 + 5000, dtype=np.int64)}, "unordered"),
    ({"ts_exch_ms": np.where(np.arange(40) == 7, T0 * 1000, T0 + 250 * np.arange(40))}, "overflow"),
])
def test_a_bad_event_is_refused_under_its_name_and_the_others_are_taken(tmp_path, columns, reason):
    report = import_recording("standx", standx(tmp_path / "in", **columns), tmp_path / "out", SETTINGS)
    counts = report["BTCUSD"].counts
    assert counts.refused == {reason: 1} and counts.books + counts.trades == 79
    assert sum(f.n for f in archive.read(tmp_path / "out", "BTCUSD")) == 79
    said = [archive.sidecar(p)["refused"] for p in archive.files(tmp_path / "out", "BTCUSD")]
    assert said == [{reason: 1}]


def test_an_empty_price_is_no_price(tmp_path):
    prices = pa.array([None if i == 7 else 9412520 for i in range(40)], pa.int32())
    report = import_recording("standx", standx(tmp_path / "in", trades_px=prices), tmp_path / "out", SETTINGS)
    assert report["BTCUSD"].counts.refused == {"non_finite": 1}


def cut_short(folder: Path) -> None:
    path = folder / "BTCUSD_book10_2026-01-05.parquet"
    path.write_bytes(path.read_bytes()[:-50])


@pytest.mark.parametrize("columns, harm, words", [
    ({}, cut_short, "BTCUSD_book10_2026-01-05.parquet: not a whole parquet file"),
    ({}, lambda f: (f / "BTCUSD_trades_2026-01-05.parquet").write_text("px,qty"), "trades_2026-01-05.parquet: not a whole parquet file"),
    ({}, lambda f: (f / "BTCUSD_trades_2026-01-05.parquet").unlink(), "trades_2026-01-05.parquet: is missing"),
    ({"ts_exch_ms": None}, None, "column ts_exch_ms (a whole number): missing; it has ts_recv_us, bid_px_0"),
    ({"ts_exch_ms": np.full(40, float(T0))}, None, "column ts_exch_ms: double, expected a whole number"),
    ({"trades_px": np.full(40, "9")}, None, "column px: string, expected a number"),
    ({"trades_ts_exch_ms": pa.array([None, *range(T0, T0 + 39)])}, None, "column ts_exch_ms: 1 empty values, expected a whole number in"),
    ({"bid_px_0": np.full(40, 941300)}, None, "BTCUSD: no book could be taken; refused: {'crossed': 40}"),
])
def test_a_broken_recording_is_named_and_leaves_what_was_there(tmp_path, capsys, columns, harm, words):
    standx(tmp_path / "in")
    assert command(tmp_path, capsys)[0] == 0
    before = sorted(tmp_path.joinpath("out").rglob("*"))
    standx(tmp_path / "in", **columns)
    if harm:
        harm(tmp_path / "in")
    code, out, err = command(tmp_path, capsys, "--force")
    assert code == 1 and err.startswith("import_recording: ") and words in err and err.count("\n") == 1 and not out
    assert sorted(tmp_path.joinpath("out").rglob("*")) == before
    assert not [p for p in tmp_path.iterdir() if p.name.endswith((".part", ".old"))]


def emptied(path: Path) -> None:
    """The same columns and metadata, no rows."""
    pq.write_table(pq.read_table(path).slice(0, 0), path)


def test_a_recording_of_no_books_is_one_clear_line_and_of_no_prints_is_its_books(tmp_path, capsys):
    books, prints = sorted(standx(tmp_path / "in").glob("*.parquet"))
    emptied(prints)
    assert command(tmp_path, capsys)[0] == 0
    assert set(join(list(archive.read(tmp_path / "out", "BTCUSD"))).kinds) == {BOOK}
    emptied(books)
    code, out, err = command(tmp_path, capsys, "--force")
    assert code == 1 and not out and err.count("\n") == 1
    assert err.startswith("import_recording: ") and "BTCUSD: no book could be taken; refused: nothing" in err


def test_touches_without_a_book_behind_them_are_no_books(tmp_path, capsys):
    folder, ts = tmp_path / "in", T0 + 100 * np.arange(10)
    folder.mkdir()
    pq.write_table(pa.table({"ts_exch_ms": ts, "ts_recv_us": ts * 1000}
                            | dict.fromkeys(recorded.LEVELS, np.ones(10))), folder / "BTC_book20.parquet")
    emptied(folder / "BTC_book20.parquet")
    twice = np.repeat(ts, 2)
    pq.write_table(pa.table({"ts_exch_ms": twice, "ts_recv_us": twice * 1000, "side": np.tile([1, -1], 10),
                             "px": np.tile([59_999.0, 60_001.0], 10), "qty": np.ones(20)}), folder / "BTC_bbo.parquet")
    pq.write_table(pa.table({"ts_exch_ms": ts, "ts_recv_us": ts * 1000, "px": np.full(10, 60_001.0), "qty": np.ones(10),
                             "trade_id": np.arange(10), "aggressor": np.ones(10, np.int64)}), folder / "BTC_trades.parquet")
    assert main(["hyperliquid", "--from", str(folder), "--to", str(tmp_path / "out")]) == 1
    err = capsys.readouterr().err
    assert "BTC: no book could be taken" in err and err.count("\n") == 1


def test_what_no_import_made_is_not_overwritten(tmp_path, capsys):
    standx(tmp_path / "in")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.txt").write_text("mine")
    code, _, err = command(tmp_path, capsys, "--force")
    assert code == 1 and "holds something that no import made" in err and (tmp_path / "out" / "thesis.txt").read_text() == "mine"


def test_an_unknown_name_or_symbol_says_what_there_is(tmp_path, capsys):
    assert main(["kraken"]) == 1
    assert "recording 'kraken': not one of standx, binance_um" in capsys.readouterr().err
    standx(tmp_path / "in")
    code, _, err = command(tmp_path, capsys, "--symbol", "DOGE")
    assert code == 1 and "nothing of DOGE; it has BTCUSD" in err


def test_a_recording_is_opened_by_name_or_folder_imported_once_and_serves_without_its_sources(tmp_path, monkeypatch):
    standx(tmp_path / "venues" / "standx")
    monkeypatch.setenv("SLUICE_RECORDINGS", str(tmp_path / "venues"))
    said: list[str] = []
    root, symbols = open_recording("standx", tmp_path / "cache", SETTINGS, said.append)
    assert symbols == ["BTCUSD"] and root == tmp_path / "cache" / "standx" and len(said) == 2
    assert open_recording("standx", tmp_path / "cache", SETTINGS, said.append) == (root, symbols) and len(said) == 2
    assert open_recording(root, tmp_path / "elsewhere", SETTINGS, said.append) == (root, symbols) and len(said) == 2
    assert open_recording(tmp_path / "venues" / "standx", tmp_path / "other", SETTINGS, said.append)[1] == symbols and len(said) == 4

    standx(tmp_path / "venues" / "standx", n=30)        # other sources: read anew
    open_recording("standx", tmp_path / "cache", SETTINGS, said.append)
    assert len(said) == 6 and sum(f.n for f in archive.read(root, "BTCUSD")) == 60
    shutil.rmtree(tmp_path / "venues" / "standx")
    assert open_recording("standx", tmp_path / "cache", SETTINGS, said.append) == (root, symbols) and len(said) == 6
    with pytest.raises(RecordingError, match=r"recording hyperliquid: .* is not a folder"):
        open_recording("hyperliquid", tmp_path / "cache", SETTINGS, said.append)
    with pytest.raises(RecordingError, match="neither an archive"):
        open_recording(tmp_path / "venues", tmp_path / "cache", SETTINGS, said.append)
    monkeypatch.setenv("SLUICE_RECORDINGS", str(tmp_path / "none"))
    with pytest.raises(RecordingError, match=r"SLUICE_RECORDINGS: .*none is not a folder"):
        importers.recordings_folder()


# depth diffs ----------------------------------------------------------------------------------------------------------------------

def test_a_book_rebuilt_from_diffs_is_the_one_that_a_dictionary_keeps():
    rng = np.random.default_rng(3)
    n = 4000
    first = np.unique(np.concatenate(([0, n], rng.integers(0, n, 300))))
    side, size = rng.choice([-1, 1], n), rng.integers(0, 4, n)
    price = np.where(side > 0, rng.integers(900, 1000, n), rng.integers(1000, 1100, n))
    snapshot = (rng.random(len(first) - 1) < 0.02).astype(np.uint8)
    got = np.zeros((len(snapshot), 4, DEPTH), np.int64)
    depth.rebuild(first, snapshot, side, price, size, got)
    kept: dict[int, dict[int, int]] = {1: {}, -1: {}}
    for m in range(len(snapshot)):
        if snapshot[m]:
            kept = {1: {}, -1: {}}
        for i in range(first[m], first[m + 1]):
            kept[side[i]].pop(price[i], None)
            if size[i]:
                kept[side[i]][price[i]] = size[i]
        for s, row in ((1, 0), (-1, 2)):
            best = sorted(kept[s], reverse=s > 0)[:DEPTH]
            assert got[m, row].tolist() == best + [0] * (DEPTH - len(best))
            assert got[m, row + 1].tolist() == [kept[s][p] for p in best] + [0] * (DEPTH - len(best))


def test_a_full_side_forgets_its_worst_level():
    n = depth.DEEP + 50
    price = np.random.default_rng(1).permutation(n) + 1
    got = np.zeros((1, 4, DEPTH), np.int64)
    depth.rebuild(np.array([0, n]), np.zeros(1, np.uint8), np.ones(n, np.int64), price, np.ones(n, np.int64), got)
    assert got[0, 0].tolist() == list(range(n, n - DEPTH, -1))


def test_a_snapshot_takes_its_place_by_its_update_id(tmp_path):
    path = tmp_path / "BTCUSDT_20240808_depth.parquet"
    #       u, prev, snapshot, side, px, qty: the snapshot came after the diffs 10 and 12, and is older than 12
    rows = [(10, 9, 0, 1, 1000, 5), (12, 10, 0, 1, 1001, 6), (11, -1, 1, 1, 1000, 9), (11, -1, 1, -1, 1005, 9),
            (13, 12, 0, -1, 1004, 2), (16, 14, 0, 1, 1001, 0)]
    u, prev, snap, side, px, qty = (np.array(c) for c in zip(*rows))
    table = pa.table({"ts_local_ns": u * 10**6, "ts_txn_ms": T0 + u, "last_u": u, "prev_u": prev, "is_snapshot": snap, "side": side,
                      "px": px, "qty": qty})
    pq.write_table(table.replace_schema_metadata({"px_tick": "0.1", "qty_step": "0.001"}), path)
    books, updates, breaks = recorded.diffs(path, SETTINGS.instrument("BTCUSDT"))
    assert updates.tolist() == [11, 12, 13, 16] and breaks == 1          # 14 never came
    assert books.rows[:, :, 0].tolist() == [[1000, 9, 1005, 9], [1001, 6, 1005, 9], [1001, 6, 1004, 2], [1000, 9, 1004, 2]]


# the real recordings --------------------------------------------------------------------------------------------------------------

@pytest.fixture(scope="module")
def imported(recordings, tmp_path_factory):
    """Imports a recording once for this module: name → (archive, account by symbol)."""
    root, done = tmp_path_factory.mktemp("recordings"), {}

    def get(name: str):
        if name not in done:
            kind, day = importers.parse(name)
            folder = recordings / importers.IMPORTERS[kind].folder
            done[name] = root / name, import_recording(kind, folder, root / name, SETTINGS, day)
        return done[name]
    return get


@pytest.mark.recorded
def test_half_the_books_of_standx_are_locked_and_repaired_and_none_is_crossed(imported):
    root, report = imported("standx")
    counts = report["BTCUSD"].counts
    assert (counts.books, counts.trades, counts.repaired["locked"], counts.refused) == (528_904, 306_657, 245_878, {})
    assert (counts.gaps, counts.longest_gap_ms) == (6, 107_970)
    lots, n = np.zeros(2, np.int64), 0
    for frame in archive.read(root, "BTCUSD", 1 << 16):
        assert (frame.book_rows[:, 0, 0] < frame.book_rows[:, 2, 0]).all()
        lots += [frame.trade_rows[frame.trade_rows[:, 2] == side, 1].sum() for side in (-1, 1)]
        n += frame.n
    assert n == 835_561 and 0.45 < lots[1] / lots.sum() < 0.55         # by quantity, as much was bought as sold


@pytest.mark.recorded
@pytest.mark.parametrize("stem", ["BTCUSDT_20240808", "ETHUSDT_20240808"])
def test_the_rebuilt_touch_is_the_venues_own_at_every_update_id(recordings, stem):
    folder = recordings / "binance_um"
    plain = SETTINGS.instrument("BTCUSDT")
    bbo = pq.read_table(folder / f"{stem}_bbo.parquet")
    steps = {k: float(bbo.schema.metadata[k.encode()]) for k in ("px_tick", "qty_step")}
    instrument = type(plain)(steps["px_tick"], steps["qty_step"], 0.001, 5, 0, 0, 0)
    books, updates, breaks = recorded.diffs(folder / f"{stem}_depth.parquet", instrument)
    at = np.searchsorted(bbo["u"].to_numpy(), updates, side="right") - 1
    known = at >= 0
    theirs = np.stack([bbo[c].to_numpy()[at[known]] for c in ("bid_px", "bid_qty", "ask_px", "ask_qty")], 1)
    assert breaks == 0 and known.sum() > 6500
    assert (books.rows[known][:, :, 0] == theirs).all()


@pytest.mark.recorded
def test_a_day_without_snapshot_starts_where_its_touch_is_the_venues_and_its_insurance_fund_print_is_refused(imported):
    _, report = imported("binance_um_20230405")
    assert report["BTCUSDT"].counts.refused == {"not_a_trade": 1, "duplicate": 1}
    assert report["BTCUSDT"].checks["touch_agrees"] > 11_700 and report["BTCUSDT"].checks["touch_differs"] == 0


@pytest.mark.recorded
def test_the_insurance_fund_print_would_be_refused_by_its_price_too(recordings, tmp_path):
    for path in (recordings / "binance_um").glob("BTCUSDT_20230405_*"):
        shutil.copy(path, tmp_path)
    path = tmp_path / "BTCUSDT_20230405_trades.parquet"
    table = pq.read_table(path)
    at = table.schema.get_field_index("kind")
    path.unlink()
    pq.write_table(table.set_column(at, "kind", pa.array(["MARKET"] * len(table))), path)
    report = import_recording("binance_um", tmp_path, tmp_path / "out", SETTINGS)
    assert report["BTCUSDT"].counts.refused["off_market"] == 1


@pytest.mark.recorded
def test_the_bare_name_of_binance_is_its_last_day_and_the_recorders_slow_clock_is_counted(imported):
    root, report = imported("binance_um")
    assert archive.symbols(root) == ["BTCUSDT", "ETHUSDT"] and report["BTCUSDT"].first_ms > 1_723_000_000_000
    counts = report["BTCUSDT"].counts
    assert counts.repaired["clock_skew"] == counts.books + counts.trades and counts.refused == {}


@pytest.mark.recorded
@pytest.mark.parametrize("name, symbols", [("hyperliquid", ["BTC", "ETH", "SOL"]), ("binance_um_spot", ["BTCUSDT", "BTCUSDT_SPOT"])])
def test_the_other_recordings_are_taken_nearly_whole(imported, name, symbols):
    root, report = imported(name)
    assert archive.symbols(root) == symbols
    for symbol in symbols:
        counts = report[symbol].counts
        assert set(counts.refused) <= {"duplicate"} and sum(counts.refused.values()) <= 3 and "off_tick" not in counts.repaired
        frame = join(list(archive.read(root, symbol)))
        assert frame.n == counts.books + counts.trades
    marker = json.loads((root / importers.MARKER).read_text())
    assert set(marker["symbols"]) == set(symbols)


@pytest.mark.recorded
def test_hyperliquids_touch_between_full_books_is_the_venues(recordings, imported):
    root, _ = imported("hyperliquid")
    frame = join(list(archive.read(root, "BTC")))
    bbo = pq.read_table(recordings / "hyperliquid_20250904" / "BTC_bbo.parquet")
    bids = dict(zip(bbo["ts_exch_ms"].to_numpy()[::2].tolist(), bbo["px"].to_numpy()[::2].tolist()))
    mine = dict(zip(frame.times[frame.kinds == BOOK].tolist(), frame.book_rows[:, 0, 0].tolist()))
    both = bids.keys() & mine.keys()
    assert len(both) > 13_000 and all(mine[t] * frame.tick == bids[t] for t in both)
