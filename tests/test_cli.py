"""The `sluice` command and the small ones of this room, run as people run them."""
import importlib
import os
import subprocess
import sys
from pathlib import Path

import pytest

from scripts import cli, validate_config

ROOT = Path(cli.ROOT)


def sluice(*args: str, env: dict[str, str] | None = None) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, "-m", "scripts.cli", *args], cwd=ROOT, capture_output=True, text=True, timeout=60,
                          env=os.environ | (env or {}))


def test_the_list_has_every_runnable_module_with_its_first_line(capsys):
    assert cli.main([]) == 0
    text = capsys.readouterr().out
    for name, (_, doc) in cli.modules().items():
        assert doc, f"{name} has no docstring"
        assert f"  {name} " in text and doc[:20] in text
    assert {"demo", "validate_config", "streams.broker"} <= set(cli.modules())
    assert not any(name.startswith("_") for name in cli.modules())


@pytest.mark.parametrize("typed", ["validate_config", "validate-config", "scripts.validate_config", "scripts/validate_config.py"])
def test_a_name_may_be_typed_in_any_of_its_spellings(typed: str):
    assert cli.spelt(typed) == "validate_config" in cli.modules()


def test_an_unknown_name_is_answered_with_the_nearest(capsys):
    assert cli.main(["valdate_confg"]) == 2
    assert "did you mean validate_config" in capsys.readouterr().err
    assert cli.main(["zzzzzz"]) == 2
    assert "`sluice` lists them" in capsys.readouterr().err


def test_arguments_and_exit_status_pass_through_untouched():
    done = sluice("validate_config", "--show", "kafka", env={"KAFKA_SASL_PASSWORD": "hunter2hunter2"})
    assert done.returncode == 0 and "partitions: 1" in done.stdout
    assert "hunter2" not in done.stdout + done.stderr and "sasl_password: '***'" in done.stdout
    done = sluice("validate_config", env={"SLUICE_KAFKA_PORT": "many"})
    assert done.returncode == 1 and "kafka.port: 'many' is not a whole number" in done.stderr
    done = sluice("streams.broker", "--help")
    assert done.returncode == 0 and "--prepare" in done.stdout


@pytest.mark.parametrize("name", [name for name, (folder, _) in cli.modules().items() if folder == "scripts"])
def test_a_command_explains_itself_without_doing_anything(name: str, capsys):
    module = importlib.import_module(f"scripts.{name}")
    with pytest.raises(SystemExit) as leave:
        module.main(["--help"])
    assert leave.value.code in (0, None)
    assert "usage" in capsys.readouterr().out.lower()


def test_completion_offers_the_names(tmp_path: Path):
    script = f'eval "$({sys.executable} -m scripts.cli --completion bash)"; sluice() {{ {sys.executable} -m scripts.cli "$@"; }}; ' \
             'COMP_CWORD=1; _sluice sluice valid; echo "${COMPREPLY[@]}"'
    done = subprocess.run(["bash", "-c", script], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.stdout.split() == [n for n in cli.modules() if n.startswith("valid")], done.stderr
    assert sluice("--completion", "tcsh").returncode == 2


@pytest.mark.parametrize("said, fault", [
    ("policy: {max_exposure_per_symbol_usdt: 9000.0}", "policy.max_exposure_per_symbol_usdt: 9000.0 is above"),
    ("exchange: {symbols: [NOPEUSDT]}", "exchange.symbols: 'NOPEUSDT' is not in config/symbols.yaml"),
    ("exchange: {symbols: []}", "exchange.symbols: at least one"),
    ("training: {tau_hold: 0.9}", "training.tau_hold: 0.9 is above training.tau_entry"),
    ("venue: {mode: real, venue: recording}", "real orders cannot be sent to a recording"),
    ("regimes: {high_vol_bps: 10}", "regimes.high_vol_bps: 10.0 is not above"),
])
def test_what_no_single_key_shows_is_refused_too(said: str, fault: str, tmp_path: Path, capsys):
    (tmp_path / "more.yaml").write_text(said)
    assert validate_config.main(["--config", str(tmp_path / "more.yaml")]) == 1
    assert fault in capsys.readouterr().err
