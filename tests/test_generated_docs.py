"""What is generated is current, whole, and says what the declarations say."""
import doctest
import re
import typing
from pathlib import Path

import pytest
import yaml
from msgspec import Meta, Struct

import config.reference as reference
from config.settings import ROOT, Settings, load
from engine import metrics as m
from engine.sizing.curve import COLUMNS, FillParameters, curve_of, sealed
from scripts import build_generated

SETTINGS = load(env={})
FILES = build_generated.files(SETTINGS)
CONFIG, METRICS = (ROOT / "docs" / "config.md").read_text(), (ROOT / "docs" / "metrics.md").read_text()


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.name)
def test_a_generated_file_is_current(path):
    assert path.read_text() == FILES[path], "run python -m scripts.build_generated"


def test_the_check_says_so_when_a_file_is_not_current_and_building_mends_it(tmp_path, monkeypatch, capsys):
    page = tmp_path / "docs" / "metrics.md"
    monkeypatch.setattr(build_generated, "ROOT", tmp_path)
    monkeypatch.setattr(build_generated, "files", lambda settings: {page: "new\n"})
    assert build_generated.main(["--check"]) == 1 and not page.exists()
    assert "docs/metrics.md: not current" in capsys.readouterr().out
    assert build_generated.main([]) == 0 and page.read_text() == "new\n"
    assert build_generated.main(["--check"]) == 0
    assert [p.name for p in page.parent.iterdir()] == ["metrics.md"]


def leaves(value: Struct, at: str = "") -> dict[str, object]:
    out: dict[str, object] = {}
    for name in typing.get_type_hints(type(value)):
        one, path = getattr(value, name), f"{at}.{name}" if at else name
        if isinstance(one, Struct):
            out |= leaves(one, path)
        elif not isinstance(one, dict):
            out[path] = one
        elif name not in reference.BY_SYMBOL:
            out |= {f"{path}.{key}": plain for key, plain in one.items()}
    return out


def test_every_key_of_the_settings_is_on_the_page_once_with_its_default():
    rows = dict(re.findall(r"^\| `([a-z_]\w*(?:\.\w+)*)` \| [^|]*\| (`[^`]*`|empty) \|", CONFIG, re.M))
    real = leaves(SETTINGS)
    assert real.pop("curve") is None, "it stands in a file of its own, which sizing.fill_curve names"
    assert rows.keys() == real.keys()
    for key, shown in rows.items():
        value, text = real[key], "" if shown == "empty" else shown.strip("`")
        if isinstance(value, bool):
            assert text == str(value).lower(), key
        elif isinstance(value, (int, float)):
            assert float(text) == value, key
        else:
            assert text == (",".join(map(str, value)) if isinstance(value, list) else "null" if value is None else value), key


def another(text: str) -> str:
    """A value that the key of this default accepts as well."""
    words = {"true": "false", "false": "true", "paper": "real", "halt": "degrade", "sim": "recording", "PLAINTEXT": "SSL"}
    if text in words:
        return words[text]
    try:
        return "3" if float(text) != 3 and "." not in text else "4" if "." not in text else "0.5"
    except ValueError:
        return "SOLUSDT"


def a_curve(folder: Path) -> str:
    """A file that sizing.fill_curve may name."""
    parameters = FillParameters(0.5, [0.0] * len(COLUMNS), list(COLUMNS), 0.0, 1, 0.5, [])
    (folder / "curve.json").write_bytes(sealed(curve_of(parameters, SETTINGS.desk.entry_ttl_ms), "", {}, {}))
    return str(folder / "curve.json")


def test_every_environment_name_on_the_page_moves_its_key(tmp_path):
    rows = re.findall(r"^\| `([\w.]+)` \| `(\w+)` \| (`[^`]*`|empty) \|", CONFIG, re.M)
    assert len(rows) > 30
    chosen = {"sizing.fill_curve": a_curve(tmp_path), "fail_safe.prometheus_url": "http://127.0.0.1:9090"}
    for key, name, default in rows:
        other = chosen.get(key) or another("" if default == "empty" else default.strip("`"))
        assert leaves(load(env={name: other}))[key] != leaves(SETTINGS)[key], f"{name}={other} does not move {key}"


@pytest.mark.parametrize("symbol", SETTINGS.symbols)
def test_every_symbol_is_on_the_page(symbol):
    assert f"| `{symbol}` |" in CONFIG


@pytest.mark.parametrize("name, path", reference.BY_SYMBOL.items())
def test_what_a_file_says_of_each_symbol_is_on_the_page(name, path):
    section = CONFIG.split(f"## {name}\n")[1].split("\n## ")[0]
    assert f"config/{path.name}" in section
    for symbol, known in yaml.safe_load(path.read_text()).items():
        [row] = [line for line in section.splitlines() if line.startswith(f"| `{symbol}` |")]
        for value in known.values():
            assert f"| {value} |" in row, (symbol, value)


def test_a_mapping_of_plain_values_has_its_keys_with_their_environment_and_no_words_of_pythons_own():
    section = CONFIG.split("## schedules\n")[1].split("\n## ")[0]
    for key in SETTINGS.schedules:
        assert f"| `schedules.{key}` | `SLUICE_CRON_" in section
    for kind in (str, int, float, bool, list, dict):
        words = " ".join((kind.__doc__ or "").split())[:40]
        assert words not in CONFIG and words not in METRICS


@pytest.mark.parametrize("hint, words", [
    (typing.Annotated[int, Meta(ge=1)], "whole number, at least 1"), (typing.Annotated[float, Meta(gt=0)], "number, above 0"),
    (typing.Literal["a", "b"], "one of `a`, `b`"), (float | None, "number, or null"), (bool, "true or false"),
    (list[str], "list of text, comma-separated in the environment"),
])
def test_a_range_is_said_in_words(hint, words):
    assert reference.kind_of(hint) == words


def test_the_examples_in_the_docstrings_run():
    import alerts.build
    for module in (reference, alerts.build):
        got = doctest.testmod(module)
        assert got.attempted and not got.failed


@pytest.mark.parametrize("series", m.ALL, ids=str)
def test_every_series_is_on_the_page_once_with_its_help_and_labels(series):
    [row] = [line for line in METRICS.splitlines() if line.startswith(f"| `{series}` |")]
    assert series.help in row
    for label in series.labels:
        assert f"**{label}**" in row


def test_links_of_the_metrics_page_lead_to_headings_of_the_runbook():
    headings = {line[3:].lower() for line in (ROOT / "docs" / "runbook.md").read_text().splitlines() if line.startswith("## ")}
    links = re.findall(r"runbook\.md#([a-z]+)", METRICS)
    assert links and set(links) <= headings


def test_settings_are_documented_by_their_structs():
    for name, hint in typing.get_type_hints(Settings).items():
        if isinstance(hint, type) and issubclass(hint, Struct):
            assert hint.__doc__ and f"## {name}\n" in CONFIG
