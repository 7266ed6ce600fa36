"""The archive: what goes in comes out, whatever the files; what is broken is named."""
import hashlib
import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from config.settings import load
from engine.facts import BOOK, DEPTH, Frame, cut, frame_of, join
from engine.market.repair import Counts
from scripts import train
from store import archive
from store.archive import ArchiveError, ArchiveWriter

INSTRUMENT = load(env={}).symbols["BTCUSDT"]
HOUR, T0 = archive.HOUR_MS, 1_767_654_000_000       # 2026-01-05 23:00 UTC


def market(n: int, seed: int = 1, step_ms: int = 60_000, session: str = "s1", t0: int = T0) -> Frame:
    """Events some step apart."""
    rng = np.random.default_rng(seed)
    kind = (rng.random(n) < 0.4).astype(np.uint8)
    books = rng.integers(1, 2**31 - 1, (int((kind == BOOK).sum()), 4, DEPTH))
    trades = rng.integers(1, 1000, (n - len(books), 3))
    trades[:, 2] = rng.choice([-1, 1], len(trades))
    ts = t0 + np.cumsum(rng.integers(0, 2 * step_ms, n))
    return frame_of("BTCUSDT", session, 0, INSTRUMENT.tick, INSTRUMENT.lot, ts, kind, books, trades)


def written(root, frame: Frame, by: int = 50) -> ArchiveWriter:
    writer = ArchiveWriter(root, frame.symbol, INSTRUMENT, "test")
    for a in range(0, frame.n, by):
        writer.add(cut(frame, a, min(a + by, frame.n)))
    writer.close()
    return writer


def same_events(a: Frame, b: Frame) -> bool:
    return (a.ts, a.kind, a.books, a.trades, a.tick, a.lot) == (b.ts, b.kind, b.books, b.trades, b.tick, b.lot)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.integers(1, 300), st.integers(1, 120), st.integers(1, 97), st.integers(0, 5))
def test_what_was_written_is_read_in_equal_frames_whatever_the_files(tmp_path_factory, n, by, events, seed):
    root, frame = tmp_path_factory.mktemp("a"), market(n, seed)
    written(root, frame, by)
    got = list(archive.read(root, "BTCUSDT", events=events, session="r1"))
    assert [f.n for f in got] == [events] * (n // events) + ([n % events] if n % events else [])
    whole = join(got)
    assert same_events(whole, frame) and (whole.seq, whole.session) == (0, "r1")


def test_a_span_of_time_is_read_from_its_first_to_before_its_last_ms(tmp_path):
    frame = market(400)
    written(tmp_path, frame)
    low, high = int(frame.times[100]), int(frame.times[300])
    a, b = frame.times.searchsorted([low, high])
    assert same_events(join(list(archive.read(tmp_path, "BTCUSDT", 64, start_ms=low, end_ms=high))), cut(frame, int(a), int(b)))
    assert list(archive.read(tmp_path, "BTCUSDT", start_ms=int(frame.times[-1]) + 1)) == []


def test_a_file_of_no_rows_is_named_as_is_one_with_other_rows_than_its_sidecar_says(tmp_path, capsys):
    written(tmp_path, market(50, step_ms=1000))
    [path] = archive.files(tmp_path, "BTCUSDT")
    rows, side = pq.read_table(path), path.with_suffix(".json")
    said = json.loads(side.read_text())
    for n in (0, 20):
        pq.write_table(rows.slice(0, n), path)
        side.write_text(json.dumps(said | {"sha256": hashlib.sha256(path.read_bytes()).hexdigest()}))
        with pytest.raises(ArchiveError, match=rf"{path.name}: {n} rows, its sidecar says 50; at least one was expected"):
            list(archive.read(tmp_path, "BTCUSDT"))
        assert train.main(["--data", str(tmp_path)]) == 1
        err = capsys.readouterr().err
        assert err.startswith("train: ") and f"{n} rows" in err and err.count("\n") == 1


def test_files_are_hourly_and_their_sidecars_say_what_is_in_them(tmp_path):
    frame = market(300)
    writer = ArchiveWriter(tmp_path, "BTCUSDT", INSTRUMENT, "test")
    writer.add(frame)
    writer.count(Counts(refused={"crossed": 2}, repaired={"locked": 3}, gaps=1))
    writer.close()
    paths = archive.files(tmp_path, "BTCUSDT")
    assert len(paths) == len(set(frame.times // HOUR)) > 2
    assert str(paths[0].relative_to(tmp_path)).startswith("symbol=BTCUSDT/date=2026-01-05/hour=23/")
    said = [archive.sidecar(p) for p in paths]
    assert sum(s["row_count"] for s in said) == 300 and said[0]["min_ts"] == frame.times[0] and said[-1]["max_ts"] == frame.times[-1]
    for s in said:
        assert (s["schema_ver"], s["src"], s["symbols"], s["tick"], s["lot"]) == (archive.SCHEMA_VER, "test", ["BTCUSDT"], 0.1, 0.001)
    assert sum(s["refused"].get("crossed", 0) for s in said) == 2 and sum(s["gaps"] for s in said) == 1
    assert [pq.read_metadata(p).num_rows for p in paths] == [s["row_count"] for s in said]
    assert archive.symbols(tmp_path) == ["BTCUSDT"] and archive.span(tmp_path, "BTCUSDT") == (frame.times[0], frame.times[-1])
    assert not list(tmp_path.rglob("*.tmp"))


def test_a_restarted_writer_goes_on_and_passes_over_what_is_there(tmp_path):
    frame = market(200)
    written(tmp_path, cut(frame, 0, 130))
    again = ArchiveWriter(tmp_path, "BTCUSDT", INSTRUMENT, "test")
    again.add(cut(frame, 90, 120))
    again.add(cut(frame, 120, 200))
    again.close()
    assert same_events(join(list(archive.read(tmp_path, "BTCUSDT", 33))), frame)


def test_files_of_one_and_the_same_millisecond_keep_their_order(tmp_path):
    frame = market(60, step_ms=1)
    frame = frame_of("BTCUSDT", "s1", 0, 0.1, 0.001, np.full(60, T0), frame.kinds, frame.book_rows, frame.trade_rows)
    writer = ArchiveWriter(tmp_path, "BTCUSDT", INSTRUMENT, "test")
    for a in range(0, 60, 5):
        writer.add(cut(frame, a, a + 5))
        writer.flush()
    assert len(archive.files(tmp_path, "BTCUSDT")) == 12
    assert same_events(join(list(archive.read(tmp_path, "BTCUSDT", 7))), frame)


def test_a_crash_between_the_two_files_leaves_an_archive_that_reads(tmp_path):
    frame = market(200)
    written(tmp_path, cut(frame, 0, 130))
    last = archive.files(tmp_path, "BTCUSDT")[-1]
    kept = sum(archive.sidecar(p)["row_count"] for p in archive.files(tmp_path, "BTCUSDT")[:-1])
    last.unlink()                                       # the sidecar came first, the parquet never
    assert sum(f.n for f in archive.read(tmp_path, "BTCUSDT")) == kept
    again = ArchiveWriter(tmp_path, "BTCUSDT", INSTRUMENT, "test")
    assert not last.with_suffix(".json").exists()
    again.add(frame)
    again.close()
    assert same_events(join(list(archive.read(tmp_path, "BTCUSDT"))), frame)


def test_events_that_go_back_in_time_or_have_another_tick_are_refused(tmp_path):
    writer = written(tmp_path, market(50))
    with pytest.raises(ArchiveError, match="goes back in time"):
        writer.add(market(5, session="s2"))
    with pytest.raises(ArchiveError, match=r"tick 0.5 and lot 0.001 came, BTCUSDT with 0.1 and 0.001 was due"):
        writer.add(frame_of("BTCUSDT", "s2", 0, 0.5, 0.001, [T0 + 10**9], [1], [], [[1, 1, 1]]))


def truncate(path):
    path.write_bytes(path.read_bytes()[:-100])


def other_column(path):
    pq.write_table(pq.read_table(path).rename_columns(["time", *archive.SCHEMA.names[1:]]), path)


def other_type(path):
    table = pq.read_table(path)
    pq.write_table(table.set_column(0, "ts_ms", table["ts_ms"].cast(pa.float64())), path)


def other_version(path):
    side = path.with_suffix(".json")
    side.write_text(json.dumps(json.loads(side.read_text()) | {"schema_ver": "v0"}))


def edited(path):
    table = pq.read_table(path)
    pq.write_table(table.set_column(0, archive.SCHEMA.field(0), pa.array(table["ts_ms"].to_numpy() + 1)), path)


@pytest.mark.parametrize("harm, words", [
    (truncate, "not a whole parquet file"), (other_column, "column ts_ms: missing, expected int64"),
    (other_type, "column ts_ms: double, expected int64"), (other_version, "schema_ver: v0, expected market_events_v1"),
    (edited, "its bytes are not those that its sidecar hashed"), (lambda p: p.with_suffix(".json").unlink(), "is missing"),
    (lambda p: p.with_suffix(".json").write_text("{"), "not a readable sidecar"),
    (lambda p: p.with_suffix(".json").write_text(json.dumps({"schema_ver": archive.SCHEMA_VER})), "min_ts, max_ts"),
    (lambda p: p.rename(p.with_name("x.parquet")), "its name is not MIN-MAX_ROWS.parquet"),
])
def test_a_broken_file_is_named_in_one_line_with_what_was_expected(tmp_path, harm, words):
    written(tmp_path, market(100))
    path = archive.files(tmp_path, "BTCUSDT")[1]
    harm(path)
    with pytest.raises(ArchiveError, match=words) as error:
        list(archive.read(tmp_path, "BTCUSDT"))
    assert str(path.parent) in str(error.value) and "\n" not in str(error.value)


def test_an_archive_that_is_not_there_has_no_symbols(tmp_path):
    assert archive.symbols(tmp_path / "none") == [] and list(archive.read(tmp_path / "none", "BTCUSDT")) == []
    with pytest.raises(ArchiveError, match="the archive has no symbol"):
        archive.span(tmp_path, "BTCUSDT")
