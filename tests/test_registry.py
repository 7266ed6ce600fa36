"""The registry: what it holds is whole, a slot moves at once, and nothing that disagrees is promoted."""
import json
import os

import pytest

from store.registry import Registry, RegistryError, check, schema_hash_of
from tests.models import NAMES, files, register

NOW = "2026-01-05T00:00:00Z"


def test_a_registered_model_stands_in_the_manifest_with_its_thresholds(tmp_path):
    register(tmp_path, "m1")
    [entry] = Registry(tmp_path).entries()
    assert {"id", "created_at", "schema_hash", "thresholds", "path", "notes"} <= entry.keys()
    assert entry["schema_hash"] == schema_hash_of(NAMES)
    assert (tmp_path / entry["path"] / "model.onnx").is_file()


def test_promotion_says_so_and_latest_follows_the_active_model(tmp_path):
    registry = Registry(tmp_path)
    register(tmp_path, "m1")
    register(tmp_path, "m2")
    assert registry.promote("m1", "active") == "promoted m1 -> active"
    assert registry.promote("m2", "shadow") == "promoted m2 -> shadow"
    assert (registry.slot("active").name, registry.slot("shadow").name) == ("m1", "m2")
    assert (tmp_path / "latest").resolve().name == "m1"
    registry.promote("m2", "active")
    assert (tmp_path / "latest").resolve().name == "m2"
    assert registry.previous("m2") == "m1"
    assert registry.previous("m1") is None


def test_an_empty_slot_is_none_and_a_dangling_one_an_error(tmp_path):
    registry = Registry(tmp_path)
    assert registry.slot("shadow") is None
    register(tmp_path, "m1", "shadow")
    registry.clear("shadow")
    assert registry.slot("shadow") is None
    os.symlink("gone", tmp_path / "registry" / "active")
    with pytest.raises(RegistryError, match="gone"):
        registry.slot("active")


def test_an_unknown_model_is_not_promoted_and_the_slot_stays(tmp_path):
    register(tmp_path, "m1", "active")
    with pytest.raises(RegistryError, match="m9: no such model"):
        Registry(tmp_path).promote("m9", "active")
    assert Registry(tmp_path).slot("active").name == "m1"


def test_a_model_that_the_manifest_does_not_name_is_not_promoted(tmp_path):
    register(tmp_path, "m1")
    folder = tmp_path / "registry" / "m2"
    folder.mkdir()
    for name, content in files("m2").items():
        (folder / name).write_bytes(content)
    with pytest.raises(RegistryError, match="manifest"):
        Registry(tmp_path).promote("m2", "active")


@pytest.mark.parametrize("name", ["model.onnx", "model.json"])
def test_a_missing_file_is_named(tmp_path, name):
    (register(tmp_path, "m1") / name).unlink()
    with pytest.raises(RegistryError, match=name):
        Registry(tmp_path).promote("m1", "active")


def test_a_model_edited_after_registration_is_refused(tmp_path):
    folder = register(tmp_path, "m1")
    meta = json.loads((folder / "model.json").read_text())
    meta["thresholds"]["tau_entry"] = 0.01
    (folder / "model.json").write_text(json.dumps(meta))
    with pytest.raises(RegistryError, match="changed since"):
        Registry(tmp_path).promote("m1", "active")


@pytest.mark.parametrize("change, says", [
    ({"schema_hash": "0" * 64}, "schema_hash"),
    ({"thresholds": {"tau_entry": 1.7, "tau_hold": 0.1}}, r"tau_entry: 1\.7 is not between 0 and 1"),
    ({"calibration": {"method": "isotonic"}}, "platt"),
    ({"calibration": {"method": "platt", "w": float("nan"), "b": 0}}, "platt"),
    ({"id": "other"}, "other"),
    ({"feature_schema": {"version": "3", "field_order": list(NAMES), "field_order_hash": schema_hash_of(NAMES), "config_hash": "dead"}},
     "feature_config_hash"),
])
def test_a_model_whose_parts_disagree_is_not_registered_and_leaves_nothing(tmp_path, change, says):
    with pytest.raises(RegistryError, match=says):
        Registry(tmp_path).add("m1", files("m1", **change), NOW)
    assert Registry(tmp_path).entries() == []
    assert [p.name for p in (tmp_path / "registry").iterdir()] == [".lock"]


def test_features_in_another_order_are_another_schema(tmp_path):
    register(tmp_path, "m1")
    with pytest.raises(RegistryError, match="other features"):
        Registry(tmp_path).promote("m1", "active", schema_hash_of(NAMES[::-1]))


def test_the_remains_of_a_crash_are_not_an_entry_and_do_not_stand_in_the_way(tmp_path):
    register(tmp_path, "m0")
    half = tmp_path / "registry" / "m1"
    half.mkdir()
    (half / "model.onnx").write_bytes(b"half")
    with pytest.raises(RegistryError):
        Registry(tmp_path).promote("m1", "active")
    register(tmp_path, "m1", "active")
    assert check(Registry(tmp_path).slot("active"))["id"] == "m1"


def test_an_entry_never_changes(tmp_path):
    register(tmp_path, "m1")
    with pytest.raises(RegistryError, match="already registered"):
        Registry(tmp_path).add("m1", files("m1", seed=1), NOW)


@pytest.mark.parametrize("name", ["../m1", "active", "", "a b", "x" * 81])
def test_a_name_that_could_escape_the_registry_is_refused(tmp_path, name):
    with pytest.raises(RegistryError):
        Registry(tmp_path).add(name, {}, NOW)


def test_a_broken_manifest_is_named(tmp_path):
    register(tmp_path, "m1")
    (tmp_path / "registry" / "manifest.json").write_text("{")
    with pytest.raises(RegistryError, match=r"manifest\.json"):
        Registry(tmp_path).entries()
