"""One process a state, and what is left of a state file that was written half."""
import subprocess
import sys

import pytest

from config.settings import ROOT
from store.state import Kept, StateFile


def test_a_second_process_on_the_same_state_is_refused_by_name_and_one_of_another_name_is_not(tmp_path):
    first = StateFile(tmp_path, "executor")
    with pytest.raises(SystemExit) as refused:
        StateFile(tmp_path, "executor")
    assert str(refused.value).startswith(f"executor: another one runs on {tmp_path} already")
    assert "SLUICE_INSTANCE=NAME" in str(refused.value)
    StateFile(tmp_path, "canary-executor").lock.close()
    first.lock.close()
    StateFile(tmp_path, "executor").lock.close()


@pytest.mark.parametrize("service", ["executor", "signal_engine", "supervisor"])
def test_a_second_service_on_the_same_data_says_who_is_there_and_ends(tmp_path, service):
    held = StateFile(tmp_path, service)
    second = subprocess.run([sys.executable, "-c", f"import streams.{service} as s; from config.settings import load; "
                             "from store.exporter import Exporter; s.make(load(), Exporter(['BTCUSDT']))"],
                            cwd=ROOT, env={"SLUICE_DATA": str(tmp_path), "PATH": ""}, capture_output=True, text=True, timeout=300)
    held.lock.close()
    assert second.returncode == 1
    assert second.stderr.splitlines() == [line for line in second.stderr.splitlines() if line.startswith(f"{service}: another one runs on")]


def test_a_state_that_cannot_be_read_is_set_aside_and_never_trusted(tmp_path):
    one = StateFile(tmp_path, "executor")
    one.save(Kept([("e", "t", 0, 7)], {"a": b"b"}))
    assert one.load() == Kept([("e", "t", 0, 7)], {"a": b"b"})
    one.path.write_bytes(one.path.read_bytes()[:-3])
    assert one.load() == Kept()
    assert one.path.with_suffix(".unreadable").exists() and not one.path.exists()
    one.lock.close()
