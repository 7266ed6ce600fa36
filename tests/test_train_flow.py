"""From a market to a model: registered whole and once, honest about itself, and refused where it should be."""
import json
from itertools import pairwise
from pathlib import Path

import msgspec
import numpy as np
import pyarrow.parquet as pq
import pytest

from config.settings import Settings, load
from engine.scoring import labels
from engine.scoring.features import FEATURES, SCHEMA_HASH
from scripts import labeling, promote_model
from scripts import train as train_script
from store import dataset, figures_model, pipeline, training
from store.model_card import edge
from store.registry import Registry, RegistryError, check
from store.scorer import Scorer

SMALL = """
training: {simulated_hours: 2, min_rows: 300, trees: 20, leaves: 7, min_leaf_rows: 50}
labels: {embargo_ms: 5000}
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("desk")
    (root / "small.yaml").write_text(SMALL + f"paths: {{data: {root / 'data'}, models: {root / 'models'}, recordings: ''}}\n")
    return root


@pytest.fixture(scope="module")
def settings(place) -> Settings:
    return load(place / "small.yaml")


@pytest.fixture(scope="module")
def trained(settings) -> pipeline.Trained:
    return pipeline.train(settings, say=lambda text: None)


@pytest.fixture(scope="module")
def table(settings, trained):
    [path] = (settings.folder("data") / "labels").glob("*.parquet")
    return dataset.read(path)


def at(settings: Settings, folder: Path) -> Settings:
    return msgspec.structs.replace(settings, paths=msgspec.structs.replace(settings.paths, models=str(folder / "models")))


def test_the_first_model_is_registered_whole_and_becomes_active(settings, trained):
    registry = Registry(settings.folder("models"))
    assert trained.new
    assert trained.promoted == f"promoted {trained.model_id} -> active"
    folder = registry.slot("active")
    assert {p.name for p in folder.iterdir()} == {"model.onnx", "model.json", "lgbm_meta.json", "model_card.md", "artifacts"}
    meta = check(folder, SCHEMA_HASH)
    assert meta["calibration"]["w"] > 0
    assert meta["feature_names"] == list(FEATURES)
    assert meta["metrics"]["parity_max"] <= 1e-6
    assert json.loads((settings.folder("models") / "latest" / "lgbm_meta.json").read_text())["pr_auc"] == meta["metrics"]["pr_auc"]
    assert registry.entries()[0]["release"]["metrics"]["pr_auc"] == meta["metrics"]["pr_auc"]


def test_the_same_data_and_settings_are_not_trained_twice(settings, trained):
    said: list[str] = []
    again = pipeline.train(settings, say=said.append)
    assert (again.model_id, again.new) == (trained.model_id, False)
    assert any("labelled before" in line for line in said)
    assert len(Registry(settings.folder("models")).entries()) == 1


def test_other_settings_make_another_model(settings, table, trained):
    other = msgspec.structs.replace(settings, training=msgspec.structs.replace(settings.training, leaves=8))
    assert pipeline.identify(table, settings) == trained.model_id
    assert pipeline.identify(table, other) != trained.model_id


def test_training_is_deterministic_to_the_byte(settings, table, trained):
    again = training.make(table, settings, trained.model_id, "2026-01-01T00:00:00Z")
    folder = Registry(settings.folder("models")).root / trained.model_id
    assert again.files["model.onnx"] == (folder / "model.onnx").read_bytes()
    assert again.files["model.json"] == (folder / "model.json").read_bytes()


def test_a_forced_model_does_not_take_the_active_slot(settings, trained, tmp_path):
    mine = at(settings, tmp_path)
    first = pipeline.train(mine, say=lambda text: None)
    second = pipeline.train(mine, force=True, say=lambda text: None)
    assert second.new
    assert second.promoted == ""
    assert Registry(mine.folder("models")).slot("active").name == first.model_id
    assert Registry(mine.folder("models")).previous(second.model_id) == first.model_id


def test_the_scorer_serves_what_was_measured(settings, table, trained):
    scorer = Scorer.load(settings.folder("models"), "active")
    rows = training.rows_of(table, settings)
    held = (rows.part == labels.TEST) & (rows.kind != labels.UNFINISHED)
    p = scorer.score(rows.x[held])
    assert (p >= 0.7).mean() == trained.metrics["share_at_70"]
    assert scorer.schema_hash == SCHEMA_HASH


def test_no_candidate_is_measured_that_was_trained_on(settings, table, trained):
    m, spans = trained.metrics, trained.metrics["span"]
    order = [spans[part] for part in ("train", "calibrate", "test")]
    assert all(earlier[1] + settings.labels.embargo_ms <= later[0] for earlier, later in pairwise(order))
    assert m["candidates"] == len(table) == sum(m["outcomes"].values())
    assert m["thresholds"][0]["fills"] == m["test_fills"] == sum(r["n"] for r in m["reliability"])
    assert sum(r["fills"] for r in m["symbols"]) == sum(r["fills"] for r in m["regimes"]) == m["test_fills"]


def test_drift_references_are_shares_between_rising_edges(settings, trained):
    monitoring = check(Registry(settings.folder("models")).slot("active"))["monitoring"]
    assert set(monitoring["features"]) == set(FEATURES)
    for name, reference in [("score", monitoring["score"]), *monitoring["features"].items()]:
        assert len(reference["reference"]) == len(reference["bins"]) + 1, name
        assert sum(reference["reference"]) == pytest.approx(1), name
        assert (np.diff(reference["bins"]) > 0).all(), name


@pytest.mark.parametrize("net, error, fills, says", [
    (0.9, 0.2, 400, "an edge on this data"), (0.3, 0.2, 400, "no edge is shown"), (-2.8, 0.2, 400, "loses money"),
    (5.0, 0.1, 12, "No edge is shown: only 12")])
def test_the_card_claims_no_more_than_its_numbers(net, error, fills, says):
    assert says in edge({"tau_entry": 0.7, "at_tau": {"net_bps": net, "net_se": error, "fills": fills}})


def test_the_figures_show_the_cards_numbers(trained):
    honest = figures_model.reliability(trained.metrics)
    assert list(honest.data[1].x) == [r["predicted"] for r in trained.metrics["reliability"]]
    bars = figures_model.earnings(trained.metrics).data[0]
    assert list(bars.y) == [r["net_bps"] for r in trained.metrics["thresholds"] if r["fills"] > 1]


def test_a_label_is_what_the_desk_will_do():
    settings = load(env={})
    assert settings.labels.horizon_ms == settings.desk.max_holding_ms
    assert settings.labels.fill_within_ms == settings.desk.entry_ttl_ms
    assert settings.labels.embargo_ms >= settings.windows.sigma_ms


def test_too_little_data_is_refused_with_the_key_and_nothing_is_registered(settings, table, tmp_path):
    mine = at(settings, tmp_path)
    dataset.write(table.slice(0, 400), tmp_path / "few.parquet")
    with pytest.raises(training.TrainingError, match=r"training\.min_rows"):
        pipeline.train(mine, str(tmp_path / "few.parquet"), say=lambda text: None)
    assert Registry(mine.folder("models")).entries() == []


def test_a_simulation_that_is_interrupted_leaves_no_archive(settings, tmp_path):
    def interrupted(text: str) -> None:
        raise KeyboardInterrupt
    with pytest.raises(KeyboardInterrupt):
        pipeline.simulate(settings, tmp_path / "sim", ["BTCUSDT"], interrupted)
    assert list(tmp_path.iterdir()) == []


def test_a_recorded_archive_is_never_overwritten_by_a_simulated_one(settings, tmp_path):
    (tmp_path / "sim" / "symbol=BTCUSD").mkdir(parents=True)
    with pytest.raises(dataset.DatasetError, match="was not simulated here"):
        pipeline.simulate(settings, tmp_path / "sim", ["BTCUSDT"], print)


@pytest.mark.parametrize("spoil, says", [
    (lambda t: t.drop_columns(["y"]), "y: missing"),
    (lambda t: t.drop_columns(["feature.spread"]), r"feature\.spread: missing"),
    (lambda t: t.replace_schema_metadata({}), "feature_field_order_hash: none"),
    (lambda t: t.replace_schema_metadata({"feature_field_order_hash": "0" * 64}), "feature_field_order_hash: 000000000000"),
    (lambda t: t.slice(0, 0), "no rows: nothing was proposed on that market"),
])
def test_a_table_that_is_not_ours_is_refused_by_name(table, tmp_path, spoil, says):
    path = tmp_path / "rows.parquet"
    pq.write_table(spoil(table), path)
    with pytest.raises(dataset.DatasetError, match=says):
        dataset.read(path)


def test_a_truncated_table_is_refused(table, tmp_path):
    path = tmp_path / "rows.parquet"
    dataset.write(table, path)
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(dataset.DatasetError, match="not a parquet file"):
        dataset.read(path)


def test_the_commands_of_the_runbook_work_as_typed(place, settings, trained, tmp_path, capsys):
    config = ["--config", str(place / "small.yaml")]
    table = tmp_path / "training.parquet"
    assert labeling.main(["--output", str(table), *config]) == 0
    assert f"written to {table}" in capsys.readouterr().out
    assert train_script.main(["--data", str(table), "--output-dir", "models/latest", *config]) == 0
    assert f"{trained.model_id}: already registered" in capsys.readouterr().out
    assert train_script.main(["--data", str(table), "--output-dir", str(tmp_path / "copy"), *config]) == 0
    assert (tmp_path / "copy" / "model.onnx").is_file()
    capsys.readouterr()
    assert promote_model.main(["--to", "shadow", "--id", trained.model_id, *config]) == 0
    assert capsys.readouterr().out == f"promoted {trained.model_id} -> shadow\n"
    assert promote_model.main(["--list", *config]) == 0
    assert capsys.readouterr().out.split()[-2:] == ["active", "shadow"]


@pytest.mark.parametrize("data, says", [("nowhere/archive", "no such archive"), ("nowhere.parquet", "scripts.labeling")])
def test_a_wrong_path_is_said_in_one_line(place, data, says, capsys):
    assert train_script.main(["--data", data, "--config", str(place / "small.yaml")]) == 1
    err = capsys.readouterr().err
    assert says in err
    assert err.count("\n") == 1


def test_a_table_of_no_rows_is_said_in_one_line(place, table, tmp_path, capsys):
    dataset.write(table.slice(0, 0), tmp_path / "none.parquet")
    assert train_script.main(["--data", str(tmp_path / "none.parquet"), "--config", str(place / "small.yaml")]) == 1
    err = capsys.readouterr().err
    assert err.startswith("train: ") and "none.parquet: no rows" in err
    assert err.count("\n") == 1


def test_an_output_folder_with_other_files_is_not_touched(place, tmp_path, capsys):
    (tmp_path / "thesis.tex").write_text("years of work")
    assert train_script.main(["--output-dir", str(tmp_path), "--config", str(place / "small.yaml")]) == 1
    assert "other files" in capsys.readouterr().err
    assert (tmp_path / "thesis.tex").read_text() == "years of work"


def test_promoting_an_unknown_model_fails_with_a_line(place, capsys):
    assert promote_model.main(["--to", "active", "--id", "nothing", "--config", str(place / "small.yaml")]) == 1
    assert "nothing: no such model" in capsys.readouterr().err


def test_a_model_of_other_features_is_not_promoted(settings, trained, tmp_path):
    from tests.models import register
    register(tmp_path / "models", "other")
    with pytest.raises(RegistryError, match="other features"):
        pipeline.promote_first(at(settings, tmp_path), "other")
