"""Dataset, model and evaluation on disk: the same bytes again, whole or absent, and a ledger's fills as trips."""
import hashlib
import json
import subprocess
import sys
from pathlib import Path

import msgspec
import pyarrow.parquet as pq
import pytest
from fills import MADE, ceremony

from engine.facts import Order
from engine.fillprob.dataset import COLUMNS, roundtrips
from engine.fillprob.model_v0 import FillModelV0
from scripts import build_fill_dataset_v1, eval_fill_model_v0, fill_prob_summary, train_fill_model_v0
from store import fill_outcomes
from store.artifacts import ArtifactError, created_at, publish
from store.fill_model import load_model, save_model
from store.ledger import Ledger
from store.projections import Projector
from tests.ledgers import BACKENDS, T0, entry, fill, fresh, said, way_out

TOLD = [{"ts": 1000 + 700 * k, "symbol": "BTCUSDT", "side": "BUY" if k % 2 == 0 else "SELL", "price": str(100 + k % 5),
         "quantity": "0.5", "order_id": f"o{k}"} for k in range(40)]


def run(module, *args: object) -> int:
    return module.main([str(a) for a in args])


def chain(root: Path, *more: str) -> dict[str, str]:
    """Dataset, model and evaluation as three commands make them; every file's hash."""
    root.mkdir(exist_ok=True)
    (root / "fills.json").write_text(json.dumps(TOLD))
    made = ["--created-at-utc", MADE, *more]
    assert run(build_fill_dataset_v1, "--fixture", root / "fills.json", "--out-dir", root / "ds", *made) == 0
    assert run(train_fill_model_v0, "--dataset", root / "ds" / "fill_outcomes_v1", "--out-dir", root / "model", *made) == 0
    assert run(eval_fill_model_v0, "--dataset", root / "ds" / "fill_outcomes_v1", "--model", root / "model", "--out-dir", root / "eval",
               *made) == 0
    return {str(p.relative_to(root)): hashlib.sha256(p.read_bytes()).hexdigest() for p in sorted(root.rglob("*")) if p.is_file()}


def test_the_three_commands_make_the_same_bytes_again(tmp_path, monkeypatch):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        monkeypatch.chdir(tmp_path / name)
        chain(Path("w"))
    first = chain(Path("w"), "--force")
    assert len(first) == 7      # the fixture, and two files each
    monkeypatch.chdir(tmp_path / "a")
    assert {str(p.relative_to("w")): hashlib.sha256(p.read_bytes()).hexdigest() for p in Path("w").rglob("*") if p.is_file()} == first


def test_the_dataset_has_its_columns_types_and_manifest(tmp_path):
    chain(tmp_path / "w")
    table = pq.read_table(tmp_path / "w/ds/fill_outcomes_v1/data.parquet")
    assert tuple(table.column_names) == COLUMNS and table.num_rows == 20
    kinds = {name: str(table.schema.field(name).type) for name in COLUMNS}
    assert kinds["entry_ts"] == kinds["exit_ts"] == kinds["holding_time_ms"] == "int64"
    assert kinds["pnl_bps"] == kinds["entry_fill_count"] == kinds["exit_fill_count"] == "int32"
    assert {kinds[n] for n in ("entry_price", "entry_qty", "exit_fee", "net_pnl", "notional")} == {"double"}
    manifest = json.loads((tmp_path / "w/ds/fill_outcomes_v1/manifest.json").read_text())
    assert manifest.keys() == {"schema_version", "dataset_id", "created_at_utc", "source", "row_count", "columns", "sha256"}
    assert (manifest["source"], manifest["row_count"], manifest["created_at_utc"]) == ("paper", 20, MADE)
    column = pq.ParquetFile(tmp_path / "w/ds/fill_outcomes_v1/data.parquet").metadata.row_group(0).column(4)
    assert column.compression == "SNAPPY" and not column.is_stats_set


def test_the_runbooks_four_figures_stand_in_the_first_20_lines(tmp_path):
    chain(tmp_path / "w")
    shown = subprocess.run([sys.executable, "-m", "json.tool"], stdin=(tmp_path / "w/eval/eval_report.json").open(), capture_output=True,
                           text=True, check=True).stdout.splitlines()[:20]
    for key in ("recommended_threshold_bps", "calibration_well_calibrated", "calibration_max_error_bps", "n_rows"):
        assert any(f'"{key}"' in line for line in shown)


def test_the_time_of_making_is_what_is_told_then_the_epoch_then_now():
    assert created_at(MADE, {"SOURCE_DATE_EPOCH": "0"}) == MADE
    assert created_at(None, {"SOURCE_DATE_EPOCH": "86400"}) == "1970-01-02T00:00:00Z"
    assert created_at(None, {}) > "2024"
    for wrong, env in (("2026-1-6T00:00:00Z", {}), ("yesterday", {}), (None, {"SOURCE_DATE_EPOCH": "-1"})):
        with pytest.raises(ArtifactError):
            created_at(wrong, env)


def test_what_is_there_stays_unless_forced_and_other_files_stay_also_then(tmp_path, capsys):
    root = tmp_path / "w"
    chain(root)
    before = (root / "model/model.json").read_bytes()
    dataset = root / "ds/fill_outcomes_v1"
    assert run(train_fill_model_v0, "--dataset", dataset, "--out-dir", root / "model") == 1
    assert "ERROR: " in (said := capsys.readouterr().err) and "--force" in said
    (root / "model/notes.txt").write_text("mine")
    assert run(train_fill_model_v0, "--dataset", dataset, "--out-dir", root / "model", "--force") == 1
    assert "holds other files" in capsys.readouterr().err
    assert (root / "model/model.json").read_bytes() == before and (root / "model/notes.txt").read_text() == "mine"


def test_a_folder_that_cannot_be_written_whole_is_left_as_it_was(tmp_path):
    publish(tmp_path / "a", {"x": b"1"})
    with pytest.raises(TypeError):
        publish(tmp_path / "a", {"x": b"2", "y": None}, force=True)     # type: ignore[dict-item]
    assert (tmp_path / "a/x").read_bytes() == b"1" and [p.name for p in tmp_path.iterdir()] == ["a"]


@pytest.mark.parametrize("change, said", [
    ({"side": "buy"}, "side: 'buy' is not BUY or SELL"), ({"price": "0"}, "price: '0' is not a number above 0"),
    ({"price": "nan"}, "price"), ({"quantity": True}, "quantity: True"), ({"ts": 1.5}, "ts"), ({"ts": True}, "ts"),
    ({"symbol": ""}, "symbol"),
    ({"order_id": None}, "order_id"), ({"fee": "x"}, "fee"), ({"price": "1e999"}, "price"),
])
def test_a_fill_that_is_none_is_refused_by_file_place_key_and_value(tmp_path, capsys, change, said):
    (tmp_path / "fills.json").write_text(json.dumps([TOLD[0], {**TOLD[1], **change}]))
    assert run(build_fill_dataset_v1, "--fixture", tmp_path / "fills.json", "--out-dir", tmp_path) == 1
    error = capsys.readouterr().err
    assert error.startswith(f"ERROR: {tmp_path / 'fills.json'}: fill 1: ") and said in error
    assert [p.name for p in tmp_path.iterdir()] == ["fills.json"]


def test_a_dataset_that_was_edited_cut_or_lost_is_refused(tmp_path, capsys):
    chain(tmp_path / "w")
    data = tmp_path / "w/ds/fill_outcomes_v1/data.parquet"
    whole = data.read_bytes()
    for spoilt in (whole[:-1], whole[:100] + bytes([whole[100] ^ 1]) + whole[101:], b""):
        data.write_bytes(spoilt)
        assert run(train_fill_model_v0, "--dataset", data.parent, "--out-dir", tmp_path / "again") == 1
        assert "sha256_mismatch" in capsys.readouterr().err
    data.unlink()
    assert run(train_fill_model_v0, "--dataset", data.parent, "--out-dir", tmp_path / "again") == 1
    assert "missing_field" in capsys.readouterr().err and not (tmp_path / "again").exists()


def test_a_model_is_read_as_it_was_written_and_a_changed_one_is_an_error_of_both_hashes(tmp_path):
    train, _ = ceremony(tmp_path)
    model = FillModelV0.train(train)
    save_model(model, tmp_path / "m", MADE)
    assert load_model(tmp_path / "m") == model and (len(model.bins), model.global_prior_bps) == (8, 6000)
    blob = (tmp_path / "m/model.json").read_bytes()
    (tmp_path / "m/model.json").write_bytes(blob.replace(b"6000", b"6001"))
    was = hashlib.sha256(blob).hexdigest()
    with pytest.raises(ValueError, match=rf"SHA256 mismatch for model.json: expected {was}, got [0-9a-f]{{64}}"):
        load_model(tmp_path / "m")
    (tmp_path / "m/model.json").unlink()
    with pytest.raises(FileNotFoundError):
        load_model(tmp_path / "m")
    with pytest.raises(FileExistsError):
        save_model(model, tmp_path / "m", MADE)


def test_the_summary_prints_block_rates_at_both_thresholds(tmp_path, capsys):
    chain(tmp_path / "w")
    assert run(fill_prob_summary, "--eval", tmp_path / "w/eval") == 0
    said = capsys.readouterr().out
    assert "configured_threshold_bps   : 2500 (blocks" in said and "the rows that it was trained on" in said
    report = tmp_path / "w/eval/eval_report.json"
    report.write_text(report.read_text().replace("2.0", "2.1"))
    assert run(fill_prob_summary, "--eval", tmp_path / "w/eval") == 1
    assert "sha256_mismatch" in capsys.readouterr().err


def renamed(order: Order, letter: str, route: str) -> Order:
    return msgspec.structs.replace(order, id=letter + order.id[1:], entry_id=letter + order.id[1:], route=route)


@pytest.mark.parametrize("backend", BACKENDS)
def test_the_desks_own_fills_become_trips_of_each_account_for_itself(tmp_path, backend):
    url = fresh(backend, tmp_path)
    paper, real = entry(0), renamed(entry(100_000), "E", "full")
    twin = renamed(entry(200_000), "T", "twin")
    orders = [paper, way_out(paper, 1, paper.ts_ms + 50), real, way_out(real, 1, real.ts_ms + 50), twin]
    with Ledger(url, "risk") as ledger:
        ledger.commit(T0, [], [said(o) for o in orders], {})
        fills = [fill(paper, 0, 0.004, 1), fill(paper, 1, 0.006, 2), fill(orders[1], 0, 0.01, 3, 60_090.5), fill(real, 0, 0.01, 4),
                 fill(twin, 0, 0.01, 5), fill(orders[3], 0, 0.01, 6, 59_990.0)]
        ledger.commit(T0 + 1, fills, [], {})
    projector = Projector(url)
    projector.run_once()
    projector.close()
    first, second = roundtrips(fill_outcomes.of_ledger(url))
    assert (first.source, first.outcome, first.entry_fill_count, first.entry_qty) == ("paper", "win", 2, 0.01)
    assert (round(first.entry_fee, 12), first.exit_fee) == (0.06, 0.06)        # 6 USD a unit
    assert round(first.net_pnl, 9) == round(0.01 * 90.5 - 0.12, 9)
    assert (second.source, second.outcome) == ("real", "loss")      # and the twin's is open still
    assert run(build_fill_dataset_v1, "--ledger", url, "--out-dir", tmp_path / "ds", "--first", "0.5") == 0
    manifest = json.loads((tmp_path / "ds/fill_outcomes_v1/manifest.json").read_text())
    assert (manifest["row_count"], manifest["source"]) == (1, "paper")


def test_an_order_log_that_is_none_is_an_error_that_names_it(tmp_path, capsys):
    log = tmp_path / "log.parquet"
    other = fill_outcomes.packed([])
    for told, words in ((None, "No such file"), (b"text", "not a parquet file"), (other, "no column venue, ts_ms, side")):
        if told is not None:
            log.write_bytes(told)
        assert run(build_fill_dataset_v1, "--fixture", log, "--out-dir", tmp_path / "ds") == 1
        assert f"ERROR: {log}: {words}" in capsys.readouterr().err


def test_no_ledger_is_an_error_that_names_it(tmp_path, capsys):
    assert run(build_fill_dataset_v1, "--ledger", f"sqlite:///{tmp_path}/none.db", "--out-dir", tmp_path) == 1
    assert f"ERROR: ledger {tmp_path}/none.db: there is none" in capsys.readouterr().err


@pytest.mark.recorded
@pytest.mark.parametrize("name, trips, won", [("hummingbot_fills", 59, 19), ("binance_spot_BTCUSDT_own_maker_fills_2022", 548, 356)])
def test_a_recorded_order_log_becomes_trips(recordings, tmp_path, name, trips, won):
    path = recordings.parent / "orders" / f"{name}.parquet"
    if not path.is_file():
        pytest.skip(f"{path} is not among the recordings")
    assert run(build_fill_dataset_v1, "--fixture", path, "--out-dir", tmp_path) == 0
    rows, _ = fill_outcomes.load(tmp_path / "fill_outcomes_v1")
    assert (len(rows), sum(row.outcome == "win" for row in rows)) == (trips, won)
    assert {row.source for row in rows} == {"import"} and all(row.entry_qty == row.exit_qty for row in rows)
