"""A backup is taken while the desk writes, is whole or not there, and a desk that starts from it goes on. SQLite and PostgreSQL."""
import fcntl
import hashlib
import json
import multiprocessing
import os
import signal
import sqlite3
from pathlib import Path

import pytest
import sqlalchemy as sa

from config.settings import Settings, load
from engine.execution.floor import Saved
from scripts import backup as take
from scripts import restore as put_back
from store import tables
from store.backup import BackupError, backup, check
from store.database import LedgerError, connect
from store.ledger import Ledger, ledger_url
from store.projections import Projector
from store.restoring import restore
from store.state import Kept, StateFile
from store.venue_journal import VenueJournal
from store.verify import verify
from tests.ledgers import BACKENDS, T0, entry, fresh, hand, history, market, said

forked = multiprocessing.get_context("fork")


def desk(folder: Path, ledger: str = "") -> Settings:
    """Settings of a desk whose folders are here."""
    return load(env={"SLUICE_DATA": f"{folder}/data", "SLUICE_MODELS": f"{folder}/models", "SLUICE_LEDGER_URL": ledger})


def work(ledger: Ledger, n: int) -> None:
    for _ in range(n):
        i = ledger.head()[0]
        ledger.commit(T0 + i, [market(i, bytes(2000))], [said(entry(i))], {("e", "t", 0): i})


def furnished(folder: Path, backend: str = "sqlite", n: int = 30) -> Settings:
    """A desk that has worked: ledger with a snapshot, a service's state, a venue's journal, a registry."""
    folder.mkdir(exist_ok=True)
    settings = desk(folder, "" if backend == "sqlite" else fresh(backend, folder))
    settings.folder("data").mkdir(parents=True)
    with Ledger(ledger_url(settings), "risk") as ledger:
        work(ledger, n)
        ledger.snapshot(max(0, n - 5), T0, b"a desk")
    state = StateFile(settings.folder("data"), "executor")
    state.save(Kept([("e", "t", 0, 5)], {"after": b"7"}))
    state.lock.close()
    venue = VenueJournal(settings.folder("data") / "exchange.db")
    venue.session("sim", T0)
    venue.commit("BTCUSDT", Saved(b"", "s1", 0, 0, 0, 0, []), b"source")
    venue.db.close()
    entries = settings.folder("models") / "registry" / "2026-01-06-a1"
    entries.mkdir(parents=True)
    (entries / "model.onnx").write_bytes(b"a model")
    os.symlink("2026-01-06-a1", entries.parent / "active")
    (entries.parent / ".lock").touch()
    return settings


def rows(url: str, *some: sa.Table) -> dict[str, list]:
    engine = connect(url)
    with engine.connect() as connection:
        found = {t.name: [tuple(bytes(v) if isinstance(v, memoryview) else v for v in row)
                          for row in connection.execute(sa.select(t).order_by(*t.primary_key))] for t in some}
    engine.dispose()
    return found


KEPT = (tables.ledger, tables.order_index, tables.marks, tables.snapshots, tables.meta)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("into", BACKENDS)
def test_a_backup_taken_while_the_desk_writes_is_restored_and_goes_on(tmp_path, backend, into):
    here = furnished(tmp_path / "here", backend)
    there = desk(tmp_path / "there", "" if into == "sqlite" else fresh(into, tmp_path))
    url, began = ledger_url(here), forked.Event()

    def write() -> None:
        with Ledger(url, "risk") as ledger:
            while True:
                work(ledger, 1)
                began.set()

    writer = forked.Process(target=write, daemon=True)
    writer.start()
    assert began.wait(30)
    try:
        manifest = backup(here, tmp_path / "safe")
    finally:
        os.kill(writer.pid, signal.SIGKILL)
        writer.join()
    seq, hashed = manifest.heads["risk"]
    assert seq > 30
    assert check(tmp_path / "safe") == manifest == check(tmp_path / "safe")       # reading it changes no byte of it
    restore(there, tmp_path / "safe")
    assert list(verify(ledger_url(there), {"risk": [(seq, hashed)]})) == []
    mine = rows(url, tables.ledger)["ledger"]
    assert rows(ledger_url(there), tables.ledger)["ledger"] == mine[:seq]
    with Ledger(ledger_url(there), "risk") as ledger:
        assert ledger.head() == (seq, bytes.fromhex(hashed)) and ledger.marks() == {("e", "t", 0): seq - 1}
        assert ledger.restore()[:2] == (25, b"a desk")
        assert [e.seq for e in ledger.unacknowledged()] == list(range(1, seq + 1))
        work(ledger, 5)
    assert list(verify(ledger_url(there), {"risk": [(seq, hashed)]})) == []


def test_everything_that_a_restart_needs_comes_back_as_it_was(tmp_path):
    here, there = furnished(tmp_path / "here"), desk(tmp_path / "there")
    backup(here, tmp_path / "safe")
    restore(there, tmp_path / "safe")
    assert rows(ledger_url(there), *KEPT) == rows(ledger_url(here), *KEPT)
    assert StateFile(there.folder("data"), "executor").load() == Kept([("e", "t", 0, 5)], {"after": b"7"})
    assert VenueJournal(there.folder("data") / "exchange.db").id == VenueJournal(here.folder("data") / "exchange.db").id
    active = there.folder("models") / "registry" / "active"
    assert active.is_symlink() and (active / "model.onnx").read_bytes() == b"a model"


@pytest.mark.parametrize("into", BACKENDS)
def test_projections_of_a_restored_ledger_are_those_that_ran_along(tmp_path, into):
    here, there = desk(tmp_path / "here"), desk(tmp_path / "there", "" if into == "sqlite" else fresh(into, tmp_path))
    with Ledger(ledger_url(here), "risk") as ledger:
        for at, consumed, produced, marks in history(3, trades=6):
            ledger.commit(at, consumed, produced, marks)
    for settings in (here, there):
        projector = Projector(ledger_url(settings))
        projector.run_once()
        projector.close()
        if settings is here:
            backup(here, tmp_path / "safe")
            restore(there, tmp_path / "safe")
    assert rows(ledger_url(there), *tables.PROJECTIONS) == rows(ledger_url(here), *tables.PROJECTIONS)
    assert rows(ledger_url(here), tables.fills)["fills"]


# refused

@pytest.mark.parametrize("part", ["ledger.db", "exchange.db", "state/executor.state", "models/registry/2026-01-06-a1/model.onnx"])
def test_a_changed_missing_or_added_file_is_named_and_nothing_is_restored(tmp_path, part):
    backup(furnished(tmp_path / "here"), tmp_path / "safe")
    there, path = desk(tmp_path / "there"), tmp_path / "safe" / part       # `there` has no folder yet
    content = path.read_bytes()
    flipped = content[:-1] + bytes([content[-1] ^ 1])
    for what, change in {"not what was backed up": lambda: path.write_bytes(flipped), "missing": path.unlink,
                         "not in the manifest": lambda: (path.write_bytes(content), path.with_name("more").touch())}.items():
        change()
        with pytest.raises(BackupError, match=what) as caught:
            restore(there, tmp_path / "safe")
        assert str(path.parent) in str(caught.value)
    path.with_name("more").unlink()
    assert not list((tmp_path / "there").rglob("*.*"))
    restore(there, tmp_path / "safe")


def test_a_forged_ledger_with_a_manifest_that_fits_it_is_located(tmp_path):
    backup(furnished(tmp_path / "here"), tmp_path / "safe")
    copy = f"sqlite:///{tmp_path}/safe/ledger.db"
    with hand(copy) as connection:
        connection.execute(tables.ledger.update().where(tables.ledger.c.seq == 7).values(ts_ms=1))
    with pytest.raises(BackupError, match=r"ledger\.db: not what was backed up"):
        check(tmp_path / "safe")
    manifest = json.loads((tmp_path / "safe" / "manifest.json").read_text())
    data = (tmp_path / "safe" / "ledger.db").read_bytes()
    manifest["files"]["ledger.db"] = {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    (tmp_path / "safe" / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(BackupError, match="risk/7 ledger: edited"):
        restore(desk(tmp_path / "there"), tmp_path / "safe")
    assert not (tmp_path / "there" / "data" / "ledger.db").exists()


def test_a_ledger_that_is_broken_is_not_backed_up_and_no_folder_is_left(tmp_path):
    here = furnished(tmp_path / "here")
    with hand(ledger_url(here)) as connection:
        connection.execute(tables.ledger.delete().where(tables.ledger.c.seq == 9))
    with pytest.raises(LedgerError, match="risk/9: the chain is broken"):
        backup(here, tmp_path / "safe" / "today")
    assert list((tmp_path / "safe").iterdir()) == []


@pytest.mark.parametrize("into", BACKENDS)
def test_a_place_that_is_not_empty_is_refused_and_left_alone(tmp_path, into):
    backup(furnished(tmp_path / "here"), tmp_path / "safe")
    there = furnished(tmp_path / "there", into, 3)
    before = rows(ledger_url(there), *KEPT)
    with pytest.raises(BackupError, match=r"there already|holds rows already"):
        restore(there, tmp_path / "safe")
    for part in ("ledger", "state", "venue", "models"):
        with pytest.raises(BackupError, match=r"there already|holds rows already"):
            restore(there, tmp_path / "safe", only=[part])
    assert rows(ledger_url(there), *KEPT) == before


def test_the_log_of_a_ledger_that_was_removed_is_in_the_way_too(tmp_path):
    backup(furnished(tmp_path / "here"), tmp_path / "safe")
    there = desk(tmp_path / "there")
    there.folder("data").mkdir(parents=True)
    (there.folder("data") / "ledger.db-wal").write_bytes(b"old pages")
    with pytest.raises(BackupError, match=r"ledger\.db-wal: is there already"):
        restore(there, tmp_path / "safe")


def test_a_running_service_is_in_the_way(tmp_path):
    backup(furnished(tmp_path / "here"), tmp_path / "safe")
    there = desk(tmp_path / "there")
    running = StateFile(there.folder("data"), "executor")
    with pytest.raises(BackupError, match=r"executor\.lock: a service holds it"):
        restore(there, tmp_path / "safe")
    fcntl.flock(running.lock, fcntl.LOCK_UN)
    restore(there, tmp_path / "safe")


def test_a_restore_that_fails_half_way_takes_away_what_it_had_put(tmp_path):
    backup(furnished(tmp_path / "here"), tmp_path / "safe")
    there = desk(tmp_path / "there", f"sqlite:///{tmp_path}/there/file/ledger.db")
    there.folder("data").mkdir(parents=True)
    url = f"sqlite:///{tmp_path}/there/data/sub/ledger.db"
    (tmp_path / "there" / "data" / "sub").mkdir()
    (tmp_path / "there" / "data" / "sub" / "ledger.db.restoring").mkdir()       # the ledger, last of all, cannot be put there
    with pytest.raises(BackupError, match=r"ledger\.db: .*nothing was restored"):
        restore(there, tmp_path / "safe", url)
    assert [p for p in (tmp_path / "there").rglob("*") if p.is_file() or p.is_symlink()] == []


# the commands

def test_the_commands_take_read_and_restore(tmp_path, capsys, monkeypatch):
    furnished(tmp_path / "here")
    monkeypatch.setenv("SLUICE_DATA", f"{tmp_path}/here/data")
    monkeypatch.setenv("SLUICE_MODELS", f"{tmp_path}/here/models")
    assert take.main(["--to", f"{tmp_path}/safe"]) == 0
    printed = capsys.readouterr().out
    assert "head risk=30:" in printed and f"{tmp_path}/safe: whole" in printed
    assert take.main(["--to", f"{tmp_path}/safe"]) == 1
    assert "exists already" in capsys.readouterr().err
    assert take.main(["--verify", f"{tmp_path}/safe"]) == 0
    assert take.main(["--verify", f"{tmp_path}/here"]) == 1
    assert "manifest.json is missing" in capsys.readouterr().err
    assert put_back.main([f"{tmp_path}/safe"]) == 1
    assert "is there already" in capsys.readouterr().err
    monkeypatch.setenv("SLUICE_DATA", f"{tmp_path}/there/data")
    monkeypatch.setenv("SLUICE_MODELS", f"{tmp_path}/there/models")
    assert put_back.main([f"{tmp_path}/safe"]) == 0
    assert "restored from" in capsys.readouterr().out
    assert sqlite3.connect(tmp_path / "there" / "data" / "ledger.db").execute("SELECT count(*) FROM ledger").fetchone() == (30,)
    assert take.main([]) == 0
    [made] = (tmp_path / "there" / "data" / "backups").iterdir()
    assert check(made).heads["risk"][0] == 30
