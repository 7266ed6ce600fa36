"""A value of another type: SQLite keeps text where bytes were, letters where a number was, and nothing where something must be. Whoever
reads the ledger says where, in one line, and no reader falls over it."""
import shutil
import sqlite3
import tempfile
from collections.abc import Callable
from contextlib import closing
from functools import cache
from pathlib import Path

import msgspec
import pytest

from config import settings as config
from engine.desk import Desk
from engine.facts import Control, Tick
from scripts import rebuild_projections, replay, verify_ledger
from scripts import why as why_script
from store.audit import Auditor, rerun
from store.closed import Digests
from store.controls import in_force
from store.copying import copy_ledger
from store.database import LedgerError
from store.ledger import Ledger
from store.projections import Projector
from store.verify import Fault, verify
from store.why import UnknownOrder, why
from store.witness import Witness
from tests.ledgers import T0, entry, said

N, AT = 8, 4
FIRST = f"E-{entry(1).id[2:]}"
TABLES = {"ledger": f"writer = 'risk' AND seq = {AT}", "order_index": f"seq = {AT}", "marks": "writer = 'risk' AND topic = 'md.frames'",
          "snapshots": f"seq = {AT}", "meta": "name = 'head:risk'"}
COLUMNS = [("ledger", c) for c in ("writer", "seq", "ts_ms", "prev_hash", "hash", "kind", "blob")] + [
    ("order_index", c) for c in ("order_id", "writer", "seq")] + [
    ("marks", c) for c in ("writer", "epoch", "topic", "partition", "offset")] + [
    ("snapshots", c) for c in ("writer", "seq", "ts_ms", "sha256", "blob")] + [("meta", "name"), ("meta", "value")]
BECOMES = {"text": "CAST(CAST({} AS BLOB) AS TEXT)", "other text": "'x' || {}", "bytes": "CAST({} AS BLOB)", "a fraction": "0.5",
           "no UTF-8": "CAST(x'ff00fe' AS TEXT)", "nothing": "NULL", "a number": "7"}


@cache
def original() -> Path:
    """A ledger with two chains, orders, marks and snapshots, as a file."""
    path = Path(tempfile.mkdtemp(prefix="retyped-")) / "ledger.db"
    s = config.load(env={})
    state = msgspec.msgpack.encode({"desk": Desk(s).snapshot()})
    with Ledger(f"sqlite:///{path}", "risk") as risk, Ledger(f"sqlite:///{path}", "supervisor") as other:
        for i in range(1, N + 1):
            risk.commit(T0 + i, [Tick(T0 + i)], [said(entry(i))], {("e1", "md.frames", 0): i, ("e1", "b", 1): i})
            if i % 2 == 0:
                risk.snapshot(i, T0, state)
        other.commit(T0, [], [Control("c", "KILL", "operator", "drill", 0, T0)], {("e1", "control", 0): 1})
    with closing(sqlite3.connect(path)) as db:
        db.execute("PRAGMA journal_mode=DELETE")
    return path


@pytest.fixture
def edited(tmp_path) -> Callable[[str, str, str], str]:
    """A copy in which one value of one row became another, as somebody does it who took the guards and the table's rules down; its URL."""
    def edit(table: str, column: str, becomes: str, where: str = "") -> str:
        path = tmp_path / "ledger.db"
        shutil.copy(original(), path)
        with closing(sqlite3.connect(path)) as db, db:
            columns = [row[1] for row in db.execute(f"PRAGMA table_info({table})")]
            db.execute(f"CREATE TABLE free ({', '.join(f'[{c}]' for c in columns)})")        # any type, and nothing, in any column
            db.execute(f"INSERT INTO free SELECT * FROM {table}")
            db.execute(f"DROP TABLE {table}")
            db.execute(f"ALTER TABLE free RENAME TO {table}")
            done = db.execute(f"UPDATE {table} SET [{column}] = {BECOMES[becomes].format(f'[{column}]')} WHERE {where or TABLES[table]}")
            assert done.rowcount == 1
        return f"sqlite:///{path}"
    return edit


def same(table: str, column: str, becomes: str) -> bool:
    """Whether the value is of its own type still, if another one."""
    with closing(sqlite3.connect(original())) as db:
        [kind] = db.execute(f"SELECT typeof([{column}]) FROM {table} WHERE {TABLES[table]}").fetchone()
        [now] = db.execute(f"SELECT typeof({BECOMES[becomes].format(f'[{column}]')}) FROM {table} WHERE {TABLES[table]}").fetchone()
    return kind == now and becomes != "no UTF-8"


CASES = [(t, c, b) for t, c in COLUMNS for b in BECOMES if not same(t, c, b)]


@pytest.mark.parametrize("table, column, becomes", CASES)
def test_a_value_of_another_type_is_located_by_table_writer_and_position(edited, table, column, becomes):
    faults = list(verify(edited(table, column, becomes)))
    places = {(f.writer, f.seq) for f in faults}
    at = {"ledger": {("risk", AT)}, "order_index": {("risk", AT)}, "snapshots": {("risk", AT)},
          "marks": {("risk", N)}, "meta": {("risk", N)}}[table]
    if table == "snapshots" and column in ("writer", "seq"):      # which state that was, nothing else says
        at = {(f.writer, f.seq) for f in faults if f.table == "snapshots"}
    assert at and at <= places, [str(f) for f in faults]
    named = [f for f in faults if (f.table == table and f"{column} is " in f.what) or (table, f.table) == ("meta", "meta")]
    assert named, [str(f) for f in faults]
    assert {f.table for f in faults} <= {table, "ledger", "order_index", "marks"}


def read_all(url: str, folder: Path) -> dict[str, str]:
    """What each reader of the ledger says of it, one way in after the other; what was no `LedgerError` is raised."""
    settings = config.load(env={"SLUICE_DATA": str(folder / "data")})

    def opened() -> None:
        with Ledger(url, "risk") as ledger:
            ledger.marks()
            list(ledger.unacknowledged())
            list(ledger.restore()[2])
            ledger.entry_of(entry(AT).id)

    def projected() -> None:
        projector = Projector(url)
        try:
            projector.run_once()
        finally:
            projector.close()

    def witnessed() -> None:
        witness = Witness(url, folder / "anchors.log")
        witness.round()
        witness.round()
        witness.close()

    ways: dict[str, Callable[[], object]] = {
        "open": opened, "why": lambda: why(url, entry(AT).id), "scan": lambda: why(url, FIRST, scan=True),
        "rerun": lambda: rerun(url, settings, Digests()), "audit": lambda: Auditor(url, settings).run_once(),
        "controls": lambda: in_force(url), "copy": lambda: copy_ledger(url, f"sqlite:///{folder}/copy.db"), "project": projected,
        "witness": witnessed}
    told: dict[str, str] = {}
    for name, way in ways.items():
        try:
            way()
        except (LedgerError, UnknownOrder) as error:
            told[name] = str(error)
        except LookupError as error:
            assert name == "open" and "never sent" in str(error)
    return told


@pytest.mark.parametrize("table, column, becomes", CASES)
def test_no_reader_falls_over_a_value_of_another_type(edited, table, column, becomes, tmp_path):
    told = read_all(edited(table, column, becomes), tmp_path)
    assert all("\n" not in text for text in told.values())
    if table == "ledger" and column not in ("writer", "seq"):
        for name in ("open", "why", "rerun", "copy", *(("project", "scan") if column == "blob" else ())):
            assert f"risk/{AT}" in told[name], (name, told)


@pytest.mark.parametrize("becomes", ["text", "nothing", "no UTF-8"])
def test_the_commands_say_in_one_line_where_a_blob_is_no_bytes(edited, becomes, capsys):
    url = edited("ledger", "blob", becomes)
    for main, args, status in ((verify_ledger.main, ["--ledger", url], 1), (why_script.main, ["--ledger", url, entry(AT).id], 2),
                               (replay.main, ["--journal", url], 2), (rebuild_projections.main, ["--ledger", url], 2)):
        assert main(args) == status
        out = capsys.readouterr()
        [line] = [one for one in (out.out + out.err).splitlines() if f"risk/{AT}" in one and "blob is" in one]
        assert "bytes were written" in line


def test_the_last_row_and_the_last_snapshot_are_looked_at_when_a_ledger_is_opened(edited):
    with pytest.raises(LedgerError, match=f"risk/{N}: blob is text"):
        Ledger(edited("ledger", "blob", "text", f"writer = 'risk' AND seq = {N}"), "risk")
    with Ledger(edited("snapshots", "blob", "text", f"seq = {N - 2}"), "risk") as ledger:
        assert ledger.restore()[0] == N
    with Ledger(edited("snapshots", "blob", "no UTF-8", f"seq = {N}"), "risk") as ledger:
        assert ledger.restore()[0] == N - 2        # a state that is not what was kept is passed over, as any edited one


def test_a_bit_that_makes_an_order_id_no_text_is_a_fault_and_no_error_of_the_whole(tmp_path):
    path = tmp_path / "ledger.db"
    shutil.copy(original(), path)
    with closing(sqlite3.connect(path)) as db, db:
        db.execute("DROP TRIGGER ledger_append_only_update")
        [blob] = db.execute(f"SELECT blob FROM ledger WHERE {TABLES['ledger']}").fetchone()
        at = blob.index(entry(AT).id.encode())
        db.execute(f"UPDATE ledger SET blob = ? WHERE {TABLES['ledger']}", (blob[:at] + b"\xff" + blob[at + 1:],))
    faults = list(verify(f"sqlite:///{path}"))
    assert faults[0] == Fault("risk", AT, "ledger", "edited or swapped: it is not what its hash was made of")
