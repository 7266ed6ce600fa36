"""Every command and every benchmark answers nonsense with one line and status 2, before it does anything; a closed pipe ends it quietly."""
import ast
import importlib
import os
import subprocess
import sys
from pathlib import Path

import pytest

from config.settings import ROOT

NONSENSE = [
    ("scripts.kill", ["--reason", ""]), ("scripts.kill", ["--reason", "x", "--wait", "soon"]), ("scripts.release_kill", ["--kill", " "]),
    ("scripts.release_kill", ["--all", "--kill", "x"]), ("scripts.write_off", ["--price", "-1"]), ("scripts.write_off", ["--entry", ""]),
    ("benchmarks.crashes", ["--points", "-5"]), ("benchmarks.crashes", ["--seed", "x"]), ("benchmarks.crashes", ["--real", "-1"]),
    ("benchmarks.crashes", ["--jobs", "0"]), ("benchmarks.crashes", ["--seconds", "nan"]), ("benchmarks.crashes", ["--symbols", "NOSUCH"]),
    ("benchmarks.crashes", ["--real-symbols", ""]), ("benchmarks.crashes", ["--points", "0", "--real", "0"]),
    ("benchmarks.crashes", ["--case", "no way", "1", "2"]), ("benchmarks.crashes", ["--case", "one death a run", "x", "2"]),
    ("benchmarks.crashes", ["--keep", str(ROOT / "README.md")]),
    ("benchmarks.determinism", ["nosuch"]), ("benchmarks.determinism", [""]), ("benchmarks.determinism", ["--events", "0"]),
    ("benchmarks.determinism", ["--kills", "-1"]),
    ("benchmarks.growth", ["--most", "-5"]), ("benchmarks.growth", ["--most", "2000"]), ("benchmarks.growth", ["--events", "0"]),
    ("benchmarks.growth", ["--plot", str(ROOT)]), ("benchmarks.growth", ["--plot", "/nosuch/folder/x.html"]),
    ("benchmarks.ledger", ["--transactions", "-5"]), ("benchmarks.ledger", ["--transactions", "1"]),
    ("benchmarks.ledger", ["--facts", "0"]),
    ("benchmarks.ledger", ["--ledger", "nosuch"]), ("benchmarks.ledger", ["--ledger", f"sqlite:///{ROOT}"]),
    ("benchmarks.ledger_age", ["--ages", "-5"]), ("benchmarks.ledger_age", ["--ledger", "mysql://x/y"]),
    ("benchmarks.replay", [""]), ("benchmarks.replay", ["x", "--events", "0"]), ("benchmarks.replay", ["x", "--runs", "0"]),
    ("benchmarks.replay", ["x", "--limit", "-1"]), ("benchmarks.scale", ["nosuch"]), ("benchmarks.scale", ["--events", "-5"]),
    ("benchmarks.score", ["--seconds", "-1"]), ("benchmarks.score", ["--seconds", "nan"]), ("benchmarks.starts", ["--kills", "-1"]),
    ("benchmarks.stopping", ["--only", "nosuch"]), ("benchmarks.stopping", ["--speed", "fast"]), ("benchmarks.stream", ["--rates", "x"]),
    ("benchmarks.stream", ["--rates", "100,"]), ("benchmarks.stream", ["--workers", "0"]), ("benchmarks.stream", ["--sizes", "-1"]),
    ("benchmarks.stream", ["--warm", "-1"]), ("benchmarks.stream", ["--plain", "0"]), ("benchmarks.__main__", ["nosuch"]),
    ("benchmarks.__main__", [""]),
    ("scripts.backtest", ["--frame-events", "-5"]), ("scripts.backtest", ["--start", "soon"]), ("scripts.backtest", ["--symbols", ""]),
    ("scripts.replay", ["--frame-events", "0"]), ("scripts.replay", ["--end", "2026-13-01"]), ("scripts.replay", ["--session", ""]),
    ("scripts.replay", ["--journal", "nosuch"]), ("scripts.replay", ["--journal", f"sqlite:///{ROOT}/README.md"]),
    ("scripts.demo", ["--duration", "-5"]), ("scripts.demo", ["--duration", "nan"]), ("scripts.fit_market", ["--rounds", "-1"]),
    ("scripts.fit_market", ["--hours", "inf"]), ("scripts.fit_market", ["--symbols", ","]), ("scripts.fit_market", ["--to", str(ROOT)]),
    ("scripts.run_live", ["--metrics-port", "-5"]), ("scripts.run_live", ["--metrics-port", "99999"]),
    ("scripts.run_live", ["--services", "nosuch"]), ("scripts.screenshot", ["--width", "-5"]), ("scripts.screenshot", ["--page", "nosuch"]),
    ("scripts.simulate_market", ["--hours", "inf"]), ("scripts.simulate_market", ["--hours", "-1"]),
    ("scripts.simulate_market", ["--seed", "x"]), ("scripts.simulate_market", ["--symbols", "NOSUCH"]),
    ("scripts.verify_ledger", ["--anchors", "/nosuch"]), ("scripts.verify_ledger", ["--anchors", str(ROOT)]),
    ("scripts.verify_ledger", ["--anchor", ""]), ("scripts.verify_ledger", ["--ledger", f"sqlite:///{ROOT}"]),
    ("scripts.why", [""]), ("scripts.why", [" "]), ("scripts.why", ["x", "--ledger", "nosuch"]),
    ("scripts.off_policy", ["--clip", "nan"]), ("scripts.off_policy", ["--clip", "0"]), ("scripts.off_policy", ["--clip", "inf"]),
    ("scripts.off_policy", ["--confidence", "nan"]), ("scripts.off_policy", ["--confidence", "1"]),
    ("scripts.eval_fill_model_v0", ["--dataset", "x", "--model", "x", "--out-dir", "x", "--cost-ratio", "nan"]),
    ("benchmarks.bandit", ["--rounds", "0"]), ("benchmarks.bandit", ["--rows", "-1"]), ("benchmarks.bandit", ["--coverage", "x"]),
    ("flows.train_fill_model", ["--first", "nan"]), ("flows.train_fill_model", ["--first", "1.5"]),
    ("flows.train_fill_model", ["--cost-ratio", "nan"]), ("flows.train_fill_model", ["--cost-ratio", "-1"]),
    ("scripts.migrate", ["--ledger", "nosuch"]),
    ("scripts.rebuild_projections", ["--ledger", f"sqlite:///{ROOT}/README.md"]), ("scripts.promote_model", ["--to", "nosuch"]),
    ("scripts.backup", ["--ledger", "nosuch"]), ("scripts.warm", ["nosuch"]), ("scripts.cli", [""]), ("scripts.cli", ["--nosuch"])]


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    """Data and models of nobody."""
    monkeypatch.setenv("SLUICE_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("SLUICE_MODELS", str(tmp_path / "models"))
    monkeypatch.delenv("SLUICE_RECORDINGS", raising=False)


@pytest.mark.parametrize("module, args", NONSENSE, ids=lambda value: value if isinstance(value, str) else " ".join(value))
def test_nonsense_is_answered_with_one_line_and_status_2(module, args, capsys):
    main = importlib.import_module(module).main
    try:
        status = main(args)
    except SystemExit as leave:
        status = leave.code
    said = capsys.readouterr()
    assert status == 2, (status, said)
    lines = [line for line in said.err.splitlines() if line and not line.startswith(("usage:", " "))]
    assert len(lines) == 1 and len(lines[0]) > 10, lines


def programs() -> list[Path]:
    return [p for p in sorted((*ROOT.glob("scripts/*.py"), *ROOT.glob("benchmarks/*.py"), ROOT / "benchmarks/crashes/__main__.py"))
            if "__main__" in p.read_text() and not p.name.startswith("_")]


@pytest.mark.parametrize("path", programs(), ids=lambda p: str(p.relative_to(ROOT)))
def test_every_program_ends_quietly_where_its_reader_has_gone(path):
    text = path.read_text()
    assert "raise SystemExit(ended(main))" in text
    assert ast.get_docstring(ast.parse(text))


@pytest.mark.parametrize("path", programs(), ids=lambda p: str(p.relative_to(ROOT)))
def test_no_program_reads_a_number_that_nobody_checks(path):
    for call in (n for n in ast.walk(ast.parse(path.read_text())) if getattr(getattr(n, "func", None), "attr", "") == "add_argument"):
        kinds = [ast.unparse(k.value) for k in call.keywords if k.arg == "type"]
        assert not {"float", "int"} & {*kinds}, f"{ast.unparse(call)}: nan and a number out of range pass; scripts/_arguments.py has types"


@pytest.mark.parametrize("command", [["scripts.validate_config", "--show"], ["scripts.cli"], ["benchmarks"]], ids=" ".join)
def test_a_closed_pipe_is_no_error_that_anybody_sees(command):
    ours, theirs = os.pipe()
    os.close(ours)
    done = subprocess.run([sys.executable, "-m", *command], cwd=ROOT, stdout=theirs, stderr=subprocess.PIPE, text=True, timeout=120)
    os.close(theirs)
    assert (done.returncode, done.stderr) == (141, "")


@pytest.mark.parametrize("path", [p for p in programs() if p.parts[-2] == "benchmarks" and p.name != "__main__.py"], ids=lambda p: p.stem)
def test_a_benchmark_explains_itself_and_each_of_its_options(path, capsys):
    module = importlib.import_module(f"benchmarks.{path.stem}")
    with pytest.raises(SystemExit) as leave:
        module.main(["--help"])
    said = capsys.readouterr().out
    assert leave.value.code == 0 and f"python -m benchmarks.{path.stem}" in said and (module.__doc__ or "").split("\n")[0] in said
    options = [line.strip() for line in said.splitlines() if line.startswith("  --")]
    assert options
    calls = [n for n in ast.walk(ast.parse(path.read_text())) if isinstance(n, ast.Call)]
    for call in (n for n in calls if getattr(n.func, "attr", "") == "add_argument"):
        assert any(k.arg == "help" for k in call.keywords), ast.unparse(call)
