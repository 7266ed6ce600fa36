"""Which threshold is in force, whatever has become of the files: a code for every no, and the configured one with each of them."""
import json
import shutil
from datetime import UTC, datetime
from pathlib import Path

import pytest
from builders import shipped
from fills import MADE, T0, settled, trips
from hypothesis import given
from hypothesis import strategies as st

from engine.fillprob import threshold as t
from engine.fillprob.documents import Refused, pretty, sha256
from engine.fillprob.evaluation import files
from engine.fillprob.model_v0 import FillModelV0
from engine.fillprob.threshold import Files, resolve
from store import evidence
from store.fill_model import opened, resolved, save_model

NOW = int(datetime(2026, 1, 6, 12, tzinfo=UTC).timestamp() * 1000)     # twelve hours after MADE


@pytest.fixture(scope="module")
def sound(tmp_path_factory) -> dict[str, Path]:
    return settled(tmp_path_factory.mktemp("ceremony"))


@pytest.fixture
def made(sound, tmp_path) -> dict[str, Path]:
    for name in ("model", "eval", "evidence"):
        shutil.copytree(sound[name], tmp_path / name)
    return {name: tmp_path / name for name in ("model", "eval", "evidence")}


def three(made) -> Files:
    paths = made["eval"] / "manifest.json", made["eval"] / "eval_report.json", made["model"] / "manifest.json"
    return Files(*(p.read_bytes() for p in paths))


def rewritten(made, **changes) -> Files:
    """The report with other values, and a manifest that pins it: what somebody could have written on purpose."""
    report = {**json.loads((made["eval"] / "eval_report.json").read_text()), **changes}
    again = files({key: value for key, value in report.items() if value is not ...})
    return Files(again["manifest.json"], again["eval_report.json"], three(made).model_manifest)


def code(some: Files, age: str = "", now: int = NOW) -> str:
    return resolve(some, age, now).reason_code


def test_what_is_as_it_was_written_is_resolved(made):
    got = resolve(three(made), "48", NOW)
    assert (got.reason_code, got.detail) == ("ok", "") and got.resolution is not None
    assert got.resolution == (2500, sha256((made["eval"] / "eval_report.json").read_bytes()),
                              sha256((made["model"] / "manifest.json").read_bytes()))


MISSING = [("eval_manifest", "missing_field"), ("eval_report", "missing_field"), ("model_manifest", "missing_field")]


@pytest.mark.parametrize("which, said", MISSING)
def test_a_file_that_is_gone(made, which, said):
    assert code(three(made)._replace(**{which: None})) == said


@pytest.mark.parametrize("which, said", [("eval_manifest", "parse_error"), ("eval_report", "sha256_mismatch"),
                                         ("model_manifest", "model_provenance_mismatch")])
def test_a_file_that_was_cut(made, which, said):
    whole = three(made)
    assert code(whole._replace(**{which: getattr(whole, which)[:-20]})) == said
    assert code(whole._replace(**{which: b""})) == said


@pytest.mark.parametrize("manifest", ["{}", '{"sha256": []}', '{"sha256": {}}', '{"sha256": {"eval_report.json": 5}}'])
def test_a_manifest_without_the_hash(made, manifest):
    assert code(three(made)._replace(eval_manifest=manifest.encode())) == "missing_field"


@pytest.mark.parametrize("manifest", [b"[]", b"null", b"{", b"\xff", b'{"a": NaN}', b'{"a": 1, "a": 2}', b"[" * 100_000])
def test_a_manifest_that_is_none(made, manifest):
    got = resolve(three(made)._replace(eval_manifest=manifest), "", NOW)
    assert got.reason_code == "parse_error" and len(got.detail) <= 200


@pytest.mark.parametrize("changes, said", [
    ({"schema_version": ...}, "missing_field"), ({"recommended_threshold_bps": ...}, "missing_field"),
    ({"model_manifest_sha256": ...}, "missing_field"), ({"schema_version": "fill_model_eval_v1"}, "schema_unsupported"),
    ({"schema_version": None}, "schema_unsupported"), ({"model_manifest_sha256": ""}, "missing_field"),
    ({"model_manifest_sha256": 7}, "bad_type"), ({"model_manifest_sha256": "0" * 64}, "model_provenance_mismatch"),
    ({"recommended_threshold_bps": "2500"}, "bad_type"), ({"recommended_threshold_bps": 2500.0}, "bad_type"),
    ({"recommended_threshold_bps": True}, "bad_type"), ({"recommended_threshold_bps": None}, "bad_type"),
    ({"recommended_threshold_bps": [2500]}, "bad_type"), ({"recommended_threshold_bps": -1}, "out_of_range"),
    ({"recommended_threshold_bps": 10_001}, "out_of_range"), ({"recommended_threshold_bps": 0}, "ok"),
    ({"recommended_threshold_bps": 10_000}, "ok"),
])
def test_a_report_that_says_something_else(made, changes, said):
    assert code(rewritten(made, **changes)) == said


def test_the_evaluation_of_another_model(made, tmp_path):
    save_model(FillModelV0.train(trips(9, 4)), tmp_path / "other", MADE)
    assert resolved(made["eval"], tmp_path / "other", "", NOW).reason_code == "model_provenance_mismatch"


def test_hash_comes_before_schema_and_schema_before_provenance_and_that_before_age_and_range(made):
    wrong = rewritten(made, schema_version="x", model_manifest_sha256="0" * 64, recommended_threshold_bps=-1)
    assert code(wrong._replace(eval_report=(wrong.eval_report or b"") + b" "), "nan") == "sha256_mismatch"
    assert code(wrong, "nan") == "schema_unsupported"
    assert code(rewritten(made, model_manifest_sha256="0" * 64, recommended_threshold_bps=-1), "nan") == "model_provenance_mismatch"
    assert code(rewritten(made, recommended_threshold_bps=-1), "nan") == "env_invalid"
    assert code(rewritten(made, recommended_threshold_bps=-1), "1") == "timestamp_too_old"


@pytest.mark.parametrize("age", ["soon", "nan", "inf", "-1", "0", "1e999", "48h"])
def test_an_age_that_is_no_number_of_hours(made, age):
    assert code(three(made), age) == "env_invalid"


@pytest.mark.parametrize("age, said", [("", "ok"), ("  ", "ok"), ("12", "ok"), ("11.99", "timestamp_too_old"), ("48", "ok")])
def test_a_report_grows_old(made, age, said):
    assert code(three(made), age) == said


@pytest.mark.parametrize("changes, said", [
    ({"generated_at": ...}, "ok"), ({"ts_ms": NOW - 3_600_000, "generated_at": "1999-01-01T00:00:00Z"}, "ok"),
    ({"ts_ms": NOW - 49 * 3_600_000}, "timestamp_too_old"), ({"created_at": "2026-01-06T06:00:00+00:00", "generated_at": "x"}, "ok"),
    ({"generated_at": "2026-01-06T11:00:00"}, "ok"), ({"generated_at": "2026-01-06T12:04:59Z"}, "ok"),
    ({"generated_at": "2026-01-06T12:05:01Z"}, "timestamp_future"), ({"generated_at": "yesterday"}, "parse_error"),
    ({"generated_at": 5}, "parse_error"), ({"generated_at": None}, "parse_error"), ({"ts_ms": True}, "parse_error"),
    ({"ts_ms": "1767"}, "parse_error"), ({"ts_ms": None}, "parse_error"),
])
def test_a_report_says_when_it_was_made(made, changes, said):
    assert code(rewritten(made, **changes), "48") == said
    assert code(rewritten(made, **changes), "") == "ok"


def test_a_time_beyond_all_numbers_is_no_time(made):
    huge = three(made)
    blob = (huge.eval_report or b"").replace(b'"ts_ms"', b"").replace(b'"schema_version"', b'"ts_ms": 1e999, "schema_version"', 1)
    manifest = pretty({"sha256": {"eval_report.json": sha256(blob)}})
    assert code(huge._replace(eval_report=blob, eval_manifest=manifest), "48") == "parse_error"


@given(st.data())
def test_whatever_one_byte_is_changed_the_threshold_is_the_recommended_or_the_configured_one(sound, data):
    whole = three(sound)
    which = data.draw(st.sampled_from(Files._fields))
    blob = getattr(whole, which)
    place = data.draw(st.integers(0, len(blob) - 1))
    spoilt = blob[:place] + bytes([data.draw(st.integers(0, 255))]) + blob[place + 1:]
    got = resolve(whole._replace(**{which: spoilt}), "48", NOW)
    in_force = t.decide(got, 3100, True)
    if got.resolution is None:
        assert got.reason_code in t.CODES and in_force.effective_bps == 3100 and in_force.gauge_bps == 0
    else:
        assert in_force.effective_bps == 2500
        assert spoilt == blob or which == "eval_manifest"       # its own bytes are pinned by nobody: it only pins


@given(st.binary(max_size=60), st.binary(max_size=60), st.binary(max_size=60), st.sampled_from(("", "48", "x")))
def test_no_bytes_at_all_make_the_resolver_raise(a, b, c, age):
    assert resolve(Files(a, b, c), age, NOW).resolution is None


def test_the_codes_are_the_runbooks():
    assert set(t.CODES) == {"ok", "missing_field", "parse_error", "sha256_mismatch", "schema_unsupported", "model_provenance_mismatch",
                            "env_invalid", "timestamp_too_old", "timestamp_future", "bad_type", "out_of_range"}


# the start of a service

def start(made, **env: str):
    names = {"GRINDER_FILL_MODEL_DIR": str(made["model"]), "GRINDER_FILL_PROB_EVAL_DIR": str(made["eval"]), **env}
    return opened(shipped(**{key: value for key, value in names.items() if value}), NOW)


def test_with_nothing_set_nothing_is_read_and_nothing_said():
    got = opened(shipped(), NOW)
    assert (got.model, got.lines, got.evidence) == (None, (), None)
    assert (got.threshold.effective_bps, got.threshold.gauge_bps, got.threshold.reason) == (2500, 0, "")


def test_recommend_only_says_what_it_would_be_and_leaves_what_is(made):
    got = start(made, GRINDER_FILL_PROB_MIN_BPS="2000")
    assert got.lines == (
        f"FILL_MODEL_LOADED n_bins=8 global_prior_bps=6000 n_train_rows=410 path={made['model']}",
        "FILL_PROB_THRESHOLD_RESOLUTION_OK mode=recommend_only recommended_bps=2500 configured_bps=2000 effective_bps=2000 "
        "provenance_ok=true",
        "THRESHOLD_RESOLVED mode=recommend_only recommended_bps=2500 configured_bps=2000 effective_bps=2000 reason=recommend_only")
    assert (got.threshold.effective_bps, got.threshold.gauge_bps) == (2000, 2500) and got.evidence is None


def test_auto_apply_puts_it_in_force_and_leaves_evidence(made, tmp_path):
    got = start(made, GRINDER_FILL_PROB_MIN_BPS="2000", GRINDER_FILL_PROB_AUTO_THRESHOLD="1", GRINDER_ARTIFACT_DIR=str(tmp_path / "a"))
    assert got.lines[-1] == ("THRESHOLD_RESOLVED mode=auto_apply recommended_bps=2500 configured_bps=2000 effective_bps=2500 "
                             "reason=auto_applied")
    assert got.evidence == tmp_path / "a/fill_prob" / f"threshold_resolution_{NOW}.json"
    assert evidence.verify(got.evidence) == {
        "artifact_version": "threshold_resolution_v1", "ts_ms": NOW, "mode": "auto_apply", "recommended_bps": 2500, "configured_bps": 2000,
        "effective_bps": 2500, "eval_sha256": sha256((made["eval"] / "eval_report.json").read_bytes()),
        "model_manifest_sha256": sha256((made["model"] / "manifest.json").read_bytes()), "eval_dir": str(made["eval"])}
    name = got.evidence.name
    assert (got.evidence.parent / f"{name}.sha256").read_text() == f"{sha256(got.evidence.read_bytes())}  {name}\n"


def test_a_failed_resolution_is_said_in_both_families_and_changes_nothing(made, tmp_path):
    (made["eval"] / "eval_report.json").write_bytes(b"{}")
    got = start(made, GRINDER_FILL_PROB_AUTO_THRESHOLD="1", GRINDER_ARTIFACT_DIR=str(tmp_path / "a"))
    assert got.lines[1].startswith("FILL_PROB_THRESHOLD_RESOLUTION_FAILED reason_code=sha256_mismatch detail=expected ")
    assert got.lines[1].endswith(f" eval_path={made['eval']} mode=auto_apply configured_bps=2500")
    assert got.lines[2:] == ("THRESHOLD_RESOLVE_FAILED reason=sha256_mismatch",
                             "THRESHOLD_RESOLVED mode=auto_apply recommended_bps=FAILED configured_bps=2500 effective_bps=2500 "
                             "reason=resolution_failed")
    assert (got.threshold.effective_bps, got.threshold.gauge_bps, got.evidence) == (2500, 0, None)


def test_an_evaluation_without_a_model_is_skipped_aloud(made):
    got = start(made, GRINDER_FILL_MODEL_DIR="")
    assert got.lines == (f"THRESHOLD_RESOLVE_SKIPPED reason=model_dir_unset eval_dir={made['eval']}",) and got.threshold.gauge_bps == 0


def test_a_symbol_that_is_to_be_enforced_and_does_not_exist_is_said(made):
    got = start(made, GRINDER_FILL_PROB_ENFORCE_SYMBOLS="BTCUSDT,ETHUSD")
    assert "FILL_PROB_ENFORCE_SYMBOLS_SKIPPED symbols=ETHUSD reason=unknown_symbol" in got.lines


def test_a_disk_that_takes_no_evidence_is_a_line_and_no_more(made, tmp_path):
    (tmp_path / "a").write_text("a file")
    got = start(made, GRINDER_ARTIFACT_DIR=str(tmp_path / "a"))
    assert got.lines[-1].startswith("FILL_PROB_EVIDENCE_NOT_WRITTEN path=") and got.threshold.gauge_bps == 2500


@pytest.mark.parametrize("spoil, said", [
    (lambda m: shutil.rmtree(m), "FILL_MODEL_LOAD_FAILED dir_missing=true path="),
    (lambda m: (m / "model.json").unlink(), "FILL_MODEL_LOAD_FAILED reason=missing_field path="),
    (lambda m: (m / "manifest.json").unlink(), "FILL_MODEL_LOAD_FAILED reason=missing_field path="),
    (lambda m: (m / "model.json").write_text("{}"), "FILL_MODEL_LOAD_FAILED reason=sha256_mismatch path="),
    (lambda m: (m / "manifest.json").write_text("{"), "FILL_MODEL_LOAD_FAILED reason=parse_error path="),
    (lambda m: (m / "manifest.json").write_text('{"schema_version": "fill_model_v9"}'),
     "FILL_MODEL_LOAD_FAILED reason=schema_unsupported path="),
    (lambda m: pinned_model(m, bins={"long|0|1|0": "2000"}), "FILL_MODEL_LOAD_FAILED reason=bad_type path="),
    (lambda m: pinned_model(m, bins={"long|0|1|0": True}), "FILL_MODEL_LOAD_FAILED reason=bad_type path="),
    (lambda m: pinned_model(m, bins={"up|0|1|0": 2000}), "FILL_MODEL_LOAD_FAILED reason=bad_type path="),
    (lambda m: pinned_model(m, bins=[]), "FILL_MODEL_LOAD_FAILED reason=bad_type path="),
    (lambda m: pinned_model(m, global_prior_bps=0.5), "FILL_MODEL_LOAD_FAILED reason=bad_type path="),
    (lambda m: pinned_model(m, bucket_thresholds={"notional": [1]}), "FILL_MODEL_LOAD_FAILED reason=schema_unsupported path="),
    (lambda m: pinned_model(m, n_train_rows=...), "FILL_MODEL_LOAD_FAILED reason=missing_field path="),
])
def test_a_model_that_is_not_what_it_was_is_none_and_the_desk_trades_on(made, spoil, said):
    spoil(made["model"])
    got = start(made)
    assert got.model is None and got.lines[0].startswith(said) and got.threshold.effective_bps == 2500


def pinned_model(folder: Path, **changes) -> None:
    """A model with other values and a manifest that pins it."""
    got = {**json.loads((folder / "model.json").read_text()), **changes}
    blob = pretty({key: value for key, value in got.items() if value is not ...})
    head = json.loads((folder / "manifest.json").read_text())
    (folder / "model.json").write_bytes(blob)
    (folder / "manifest.json").write_bytes(pretty({**head, "sha256": {"model.json": sha256(blob)}}))


def test_every_single_byte_of_a_model_is_pinned(made):
    settings = shipped(GRINDER_FILL_MODEL_DIR=str(made["model"]), GRINDER_FILL_PROB_EVAL_DIR=str(made["eval"]))
    for name in ("model.json", "manifest.json"):
        path, whole = made["model"] / name, (made["model"] / name).read_bytes()
        for place in range(len(whole)):
            path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1:])
            got = opened(settings, NOW)
            assert got.threshold.effective_bps == 2500
            if name == "model.json":
                assert got.model is None
            else:       # a manifest may say another day; the threshold then is of another model
                assert got.threshold.result is not None and got.threshold.result.reason_code == "model_provenance_mismatch"
        path.write_bytes(whole)


def test_a_model_that_is_switched_off_is_not_read(made):
    assert start(made, GRINDER_FILL_MODEL_ENABLED="0").model is None


# evidence

def one(made) -> Path:
    return made["evidence"] / f"{T0}_SHADOW_BTCUSDT.json"


@pytest.mark.parametrize("spoil, said", [
    (lambda p: p.unlink(), "missing_field"), (lambda p: beside(p).unlink(), "missing_field"),
    (lambda p: p.write_bytes(p.read_bytes()[:-1]), "sha256_mismatch"), (lambda p: p.write_bytes(p.read_bytes() + b" "), "sha256_mismatch"),
    (lambda p: beside(p).write_bytes(b""), "parse_error"), (lambda p: beside(p).write_bytes(b"\xff"), "parse_error"),
    (lambda p: beside(p).write_text(f"{'0' * 64}  other.json\n"), "parse_error"),
    (lambda p: beside(p).write_text(f"{'0' * 64}  {p.name}\n"), "sha256_mismatch"),
    (lambda p: forged(p, artifact_version="fill_prob_evidence_v9"), "schema_unsupported"),
    (lambda p: forged(p, prob_bps=...), "missing_field"),
    (lambda p: forged(p, prob_bps="2450"), "bad_type"), (lambda p: forged(p, ts_ms=True), "bad_type"),
    (lambda p: forged(p, verdict=None), "bad_type"),
])
def test_evidence_that_is_not_what_was_written_does_not_count_and_has_its_code(made, spoil, said):
    assert len(evidence.sound(made["evidence"])[0]) == 42
    spoil(one(made))
    with pytest.raises(Refused) as no:
        evidence.verify(one(made))
    assert no.value.code == said
    good, bad = evidence.sound(made["evidence"])
    assert len(good) == 41 and all(name == one(made).name for name in bad)


def beside(path: Path) -> Path:
    return path.with_name(path.name + ".sha256")


def forged(path: Path, **changes) -> None:
    got = {**json.loads(path.read_text()), **changes}
    blob = pretty({key: value for key, value in got.items() if value is not ...})
    path.write_bytes(blob)
    beside(path).write_text(f"{sha256(blob)}  {path.name}\n")


def test_two_events_of_one_millisecond_are_two_files_and_the_same_event_again_is_one(tmp_path):
    first = {"artifact_version": "fill_prob_evidence_v1", "ts_ms": 5, "verdict": "BLOCK", "prob_bps": 1, "threshold_bps": 2,
             "action": {"symbol": "BTCUSDT"}}
    paths = [evidence.write(tmp_path, one) for one in (first, {**first, "prob_bps": 0}, first, {**first, "prob_bps": 0})]
    assert [p.name for p in paths] == ["5_BLOCK_BTCUSDT.json", "5_BLOCK_BTCUSDT_2.json"] * 2
    assert len(list((tmp_path / "fill_prob").iterdir())) == 4 and evidence.verify(paths[1])["prob_bps"] == 0
