"""Full, read-only and misplaced data folders on real file systems: one line that names the file, nothing half-written, and it goes on."""
import errno
import os
import subprocess
import sys
from pathlib import Path

import msgspec
import pyarrow as pa
import pytest
from builders import market, reframed
from models import files

from config.settings import ROOT, load
from engine.execution.floor import Saved
from engine.facts import Report
from store import dataset, disk
from store.archive import ArchiveWriter, read
from store.database import LedgerError
from store.ledger import Ledger
from store.registry import Registry
from store.state import Failures, Kept, StateFile
from store.venue_journal import JournalError, VenueJournal
from store.verify import verify
from streams.broker import free_port
from tests.fixtures_disk import Small

FULL = "No space left on device"


# files

def test_a_file_is_replaced_whole_or_stays_as_it_was_with_nothing_beside_it(small):
    path = small.path / "x.state"
    disk.replace(path, b"before")
    small.fill(but=8192)
    with pytest.raises(OSError, match=FULL) as full:
        disk.replace(path, bytes(1 << 20))
    assert small.files() == {"x.state": b"before"}
    assert disk.said(full.value) == f"{path}.tmp: {FULL} (free some space there and start again; what was written before stands)"
    small.free()
    disk.replace(path, b"after")
    assert path.read_bytes() == b"after"


def test_a_line_is_appended_whole_or_not_at_all(small):
    path = small.path / "book.jsonl"
    disk.append(path, b"one\n")
    small.fill(but=4096)
    with pytest.raises(OSError, match=FULL):
        disk.append(path, bytes(1 << 20) + b"\n")
    assert path.read_bytes() == b"one\n"
    small.free()
    disk.append(path, b"two\n")
    assert path.read_bytes() == b"one\ntwo\n"


def test_a_device_that_is_always_full_is_named():
    with pytest.raises(OSError) as full:
        disk.append(Path("/dev/full"), b"x")
    assert disk.said(full.value).startswith(f"/dev/full: {FULL}")


def test_marks_and_booked_records_stand_as_before_when_the_disk_is_full(small):
    state, failures = StateFile(small.path, "executor"), Failures(small.path, "executor")
    state.save(Kept([("e", "t", 0, 7)]))
    failures.again("t/0/8")
    failures.book("t/0/8", b"record", ValueError("no"))
    before = small.files()
    small.fill()
    with pytest.raises(OSError, match=FULL):
        state.save(Kept([("e", "t", 0, 9)], {"a": bytes(1 << 16)}))
    with pytest.raises(OSError, match=FULL):
        failures.book("t/0/9", bytes(1 << 16), ValueError("no"))
    assert small.files() == before and state.load().marks == [("e", "t", 0, 7)]
    small.free()
    state.save(Kept([("e", "t", 0, 9)]))
    assert state.load().marks == [("e", "t", 0, 9)]
    state.close()


def test_an_archive_goes_on_after_a_full_disk_and_loses_nothing_that_it_was_given_again(small):
    frames, instrument = reframed(market(4000), 500), load(env={}).instrument("BTCUSDT")
    with ArchiveWriter(small.path, "BTCUSDT", instrument, "test") as writer:
        for frame in frames[:4]:
            writer.add(frame)
    small.fill()
    writer = ArchiveWriter(small.path, "BTCUSDT", instrument, "test")
    for frame in frames[4:]:
        writer.add(frame)
    with pytest.raises(OSError, match=FULL):
        writer.flush()
    assert sum(f.n for f in read(small.path, "BTCUSDT")) == 2000 and not list(small.path.rglob("*.tmp"))
    small.free()
    with ArchiveWriter(small.path, "BTCUSDT", instrument, "test") as writer:
        for frame in frames:
            writer.add(frame)       # what is there already is passed over
    whole = list(read(small.path, "BTCUSDT", events=500))
    assert [(f.seq, f.ts, f.books) for f in whole] == [(f.seq, f.ts, f.books) for f in frames]


def test_a_model_that_does_not_fit_leaves_the_registry_as_it_was(small):
    registry, model = Registry(small.path), files("m1")
    registry.add("m1", model, "2026-01-05T00:00:00Z")
    registry.promote("m1", "active")
    before = small.files()
    small.fill(but=len(model["model.onnx"]) // 2)
    with pytest.raises(OSError, match=FULL):
        registry.add("m2", files("m2", seed=1), "2026-01-06T00:00:00Z")
    assert small.files() == before and registry.slot("active").name == "m1"
    small.free()
    registry.add("m2", files("m2", seed=1), "2026-01-06T00:00:00Z")
    assert [e["id"] for e in registry.entries()] == ["m1", "m2"]


def test_labelled_rows_that_do_not_fit_leave_no_file(small):
    small.fill(but=8192)
    with pytest.raises(OSError, match=FULL):
        dataset.write(pa.table({"x": list(os.urandom(200_000))}), small.path / "rows.parquet")
    assert small.files() == {}


# databases

def reports(first: int, n: int) -> list[Report]:
    return [Report(f"E-{i}", "BTCUSDT", "rejected", "x" * 200, 0.0, i, 1000 + i) for i in range(first, first + n)]


def test_what_the_venue_cannot_write_down_has_not_happened_and_is_told_again_when_there_is_room(small):
    journal = VenueJournal(small.path / "exchange.db")
    floor = Saved(b"m", "s1", 0, 0, 0, 0, [])
    journal.commit("BTCUSDT", floor, b"", reports(1, 5))
    small.fill()
    with pytest.raises(JournalError, match=r"exchange\.db: the venue's journal cannot be written: .*full.*free some space"):
        for at in range(6, 20_000, 500):
            journal.commit("BTCUSDT", msgspec.structs.replace(floor, next_seq=at), b"", reports(at, 500))
    held = list(journal.after("BTCUSDT", 0))
    assert [h.seq for h in held] == list(range(1, len(held) + 1)) and len(held) % 500 == 5, "a commit is there whole or not at all"
    small.free()
    journal.commit("BTCUSDT", floor, b"", reports(len(held) + 1, 10))
    assert len(list(VenueJournal(small.path / "exchange.db").after("BTCUSDT", 0))) == len(held) + 10


def test_a_ledger_on_a_full_disk_refuses_and_goes_on_whole_when_there_is_room(small):
    url = f"sqlite:///{small.path}/ledger.db"
    frames = reframed(market(6000), 100)
    with Ledger(url, "risk") as ledger:
        ledger.commit(1, frames[:1], [], {("e", "t", 0): 0})
        small.fill()
        written = 1
        with pytest.raises(LedgerError, match=r"ledger\.db: .*(full|I/O error).*nothing of this transaction was written"):
            for i, frame in enumerate(frames[1:], 1):
                ledger.commit(1 + i, [frame], [], {("e", "t", 0): i})
                written = i + 1
        assert ledger.head()[0] == written and ledger.marks() == {("e", "t", 0): written - 1}
    with pytest.raises(LedgerError), Ledger(url, "risk") as ledger:        # started again while it is still full
        for i in range(written, len(frames)):
            ledger.commit(1 + i, [frames[i]], [], {("e", "t", 0): i})
    small.free()
    with Ledger(url, "risk") as ledger:
        done = ledger.head()[0]
        assert done >= written and ledger.marks() == {("e", "t", 0): done - 1}
        for i in range(done, 20):
            ledger.commit(1 + i, [frames[i]], [], {("e", "t", 0): i})
        entries = list(ledger.entries())
    assert [e.consumed[0].seq for e in entries] == [f.seq for f in frames[:len(entries)]] and not list(verify(url))


# folders

def started(module: str, data: Path, *more: str, **env: str) -> subprocess.CompletedProcess:
    """A command on that data folder, with no broker near."""
    return subprocess.run([sys.executable, "-m", module, *more], cwd=ROOT, capture_output=True, text=True, timeout=60,
                          env=os.environ | {"SLUICE_DATA": str(data), "KAFKA_BOOTSTRAP_SERVERS": "127.0.0.1:9"} | env)


def misplaced(kind: str, small: Small) -> tuple[Path, str]:
    """A data folder that cannot be one, and what the line must say of it."""
    if kind == "file":
        (small.path / "data").write_text("a file")
        return small.path / "data", "File exists (a file stands where a folder was expected)"
    if kind == "below":
        (small.path / "file").write_text("a file")
        return small.path / "file" / "data", "Not a directory (a file stands where a folder was expected)"
    if kind == "full":
        small.fill()
        return small.path, f"{FULL} (free some space there"
    small.read_only(True)
    return small.path / "data", "Read-only file system (the file system is mounted read-only)"


@pytest.mark.parametrize("kind", ["file", "below", "full", "read-only"])
def test_a_folder_that_is_none_is_named_with_its_setting_and_what_to_do(small, kind):
    data, words = misplaced(kind, small)
    before = small.files()
    with pytest.raises(SystemExit) as refused:
        disk.usable(data, "paths.data")
    assert str(refused.value).startswith(f"paths.data (SLUICE_DATA): {data} cannot be written: ") and words in str(refused.value)
    assert small.files() == before


SIMULATED = ("--hours", "0.01")


@pytest.mark.parametrize("module, more", [("streams.risk", ()), ("streams.exchange", ()), ("streams.broker", ()),
                                          ("scripts.simulate_market", SIMULATED), ("scripts.demo", ("--desk-only",)),
                                          ("scripts.migrate", ())])
def test_a_command_that_cannot_write_is_one_line_and_a_status(small, module, more):
    small.read_only(True)
    done = started(module, small.path / "data", *more, SLUICE_EXCHANGE_PORT=str(free_port()), SLUICE_METRICS_PORT=str(free_port()),
                   SLUICE_MODELS=str(small.path))
    assert done.returncode in (1, 2) and "Traceback" not in done.stderr, done.stderr
    assert "Read-only file system" in done.stderr + done.stdout and str(small.path) in done.stderr + done.stdout


def test_what_is_no_files_error_stays_an_error():
    @disk.told("x")
    def refused() -> int:
        raise ConnectionRefusedError(errno.ECONNREFUSED, "refused")
    with pytest.raises(ConnectionRefusedError):
        refused()
    assert not disk.is_disk(ValueError("no"))
