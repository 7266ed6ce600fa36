"""The ledger: all of a transaction or nothing, whatever dies; and no byte of it changes unnoticed. On SQLite and on PostgreSQL."""
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import msgspec
import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from engine.facts import Control
from store import tables
from store.blob import decode, encode
from store.chain import GENESIS, digest
from store.database import LedgerError, connect
from store.ledger import Ledger
from store.revisions import REVISIONS, applied, migrate
from store.verify import Tally, verify
from tests.ledgers import BACKENDS, T0, entry, fresh, hand, market, said

ROOT = Path(__file__).parent.parent


@pytest.fixture(params=BACKENDS)
def url(request, tmp_path):
    return fresh(request.param, tmp_path)


def write(url: str, n: int = 10, writer: str = "risk", start: int = 0) -> None:
    with Ledger(url, writer) as ledger:
        for i in range(start, start + n):
            produced = [said(entry(i))] if i % 3 == 0 else []
            ledger.commit(T0 + i, [market(i, b"%d" % i * 30)], produced, {("e1", "md.frames", 0): i})


def faults(url: str, **how) -> list[tuple[str, int, str]]:
    return [(f.writer, f.seq, f.table) for f in verify(url, **how)]


# what was written is there

def test_what_was_committed_is_read_back_in_order_with_its_marks_and_orders(url):
    write(url)
    with Ledger(url, "risk") as ledger:
        assert ledger.head()[0] == 10
        assert [e.seq for e in ledger.entries()] == list(range(1, 11))
        assert [e.consumed[0].seq for e in ledger.entries(3, 6)] == [3, 4, 5]
        assert ledger.marks() == {("e1", "md.frames", 0): 9} == ledger.marks("e1")
        assert ledger.marks("another log") == {}
        assert ledger.entry_of(entry(6).id).produced[0].orders[0] == entry(6)
        with pytest.raises(LookupError, match="E-nobody"):
            ledger.entry_of("E-nobody")


def test_only_the_writer_whose_chain_it_is_finds_its_orders(url):
    write(url, 4, "risk")
    with Ledger(url, "supervisor") as other:
        assert other.head() == (0, GENESIS) and other.marks() == {}
        with pytest.raises(LookupError):
            other.entry_of(entry(0).id)


def test_every_field_is_under_the_hash():
    whole = ("risk", 7, T0, "facts", b"blob")
    changed = [("risc", *whole[1:]), ("risk", 8, *whole[2:]), ("risk", 7, T0 + 1, *whole[3:]), (*whole[:3], "orders", b"blob"),
               (*whole[:4], b"blub"), ("riskf", 7, T0, "acts", b"blob")]
    assert len({digest(GENESIS, *fields) for fields in [whole, *changed]} | {digest(b"\x01" + GENESIS[1:], *whole)}) == 8


def test_what_was_not_acknowledged_is_offered_again_after_a_crash(url):
    with Ledger(url, "risk") as ledger:
        for i in range(6):
            ledger.commit(T0, [], [said(entry(i))], {})
            if i < 4:
                ledger.acknowledge(i + 1)
        assert [e.seq for e in ledger.unacknowledged()] == [5, 6]
    with Ledger(url, "risk") as again:     # the pointer was last written with commit 6, when 4 was acknowledged
        assert [e.seq for e in again.unacknowledged()] == [5, 6]
        again.acknowledge(6)
        assert list(again.unacknowledged()) == []
        with pytest.raises(ValueError, match="never written"):
            again.acknowledge(7)


def test_a_second_process_that_would_write_the_same_chain_is_refused(url):
    with Ledger(url, "risk"):
        with pytest.raises(LedgerError, match="already writes as 'risk'"):
            Ledger(url, "risk")
        Ledger(url, "supervisor").close()
    Ledger(url, "risk").close()


def test_a_transaction_that_fails_leaves_nothing_behind(url):
    with Ledger(url, "risk") as ledger:
        ledger.commit(T0, [], [said(entry(0))], {("e", "t", 0): 1})
        before = ledger.head()
        with pytest.raises(LedgerError):    # the order id is taken: its index row fails after the ledger's row was written
            ledger.commit(T0 + 1, [], [said(entry(1), entry(0))], {("e", "t", 0): 2})
        assert ledger.head() == before and ledger.marks() == {("e", "t", 0): 1}
        with pytest.raises(LookupError):
            ledger.entry_of(entry(1).id)
        assert ledger.commit(T0 + 2, [], [said(entry(1))], {}) == 2
    assert faults(url) == []


def test_the_database_itself_refuses_to_edit_a_row(url):
    write(url, 3)
    engine = connect(url)
    for statement in (tables.ledger.update().values(ts_ms=1), tables.ledger.delete()):
        with pytest.raises(sa.exc.DBAPIError, match="only ever appended"), engine.begin() as connection:
            connection.execute(statement)
    engine.dispose()
    assert faults(url) == []


# starting again

def test_the_last_good_snapshot_and_the_tail_after_it_come_back(url):
    write(url, 10)
    with Ledger(url, "risk") as ledger:
        for seq in (2, 4, 6, 8):
            ledger.snapshot(seq, T0, b"state %d" % seq)
        seq, state, tail = ledger.restore()
        assert (seq, state, [e.seq for e in tail]) == (8, b"state 8", [9, 10])
        with pytest.raises(ValueError, match="head is 10"):
            ledger.snapshot(11, T0, b"")
    with hand(url) as connection:
        assert sorted(connection.scalars(sa.select(tables.snapshots.c.seq))) == [4, 6, 8]     # the last three are kept
        connection.execute(tables.snapshots.update().where(tables.snapshots.c.seq == 8).values(blob=b"state ?"))
    assert faults(url) == [("risk", 8, "snapshots")]
    with Ledger(url, "risk") as ledger:
        seq, state, tail = ledger.restore()
        assert (seq, state, [e.seq for e in tail]) == (6, b"state 6", [7, 8, 9, 10])


def test_an_empty_ledger_restores_nothing(url):
    with Ledger(url, "risk") as ledger:
        seq, state, tail = ledger.restore()
        assert (seq, state, list(tail)) == (0, None, [])


def test_a_chain_whose_end_was_cut_is_not_continued(url):
    write(url, 5)
    with hand(url) as connection:
        connection.execute(tables.ledger.delete().where(tables.ledger.c.seq == 5))
    with pytest.raises(LedgerError, match=r"ends at 4, its head record says '5'.*verify_ledger"):
        Ledger(url, "risk")


def test_folding_stops_at_an_edited_row_and_names_it(url):
    write(url, 9)
    with hand(url) as connection:
        connection.execute(tables.ledger.update().where(tables.ledger.c.seq == 4).values(ts_ms=1))
    with Ledger(url, "risk") as ledger, pytest.raises(LedgerError, match="risk/4: the row is not what was written"):
        list(ledger.restore()[2])


LOOP = """
import os, sys
from store.ledger import Ledger
from tests.ledgers import T0, entry, market, said
with Ledger(sys.argv[1], "risk") as ledger:
    for i in range(ledger.head()[0], 10**6):
        seq = ledger.commit(T0 + i, [market(i, bytes(5000))], [said(entry(i))], {("e", "t", 0): i})
        os.write(1, b"%d\\n" % seq)
"""


def test_a_killed_writer_loses_nothing_that_it_reported(url):
    reported = 0
    for _ in range(3):
        process = subprocess.Popen([sys.executable, "-c", LOOP, url], stdout=subprocess.PIPE, cwd=ROOT,
                                   env=os.environ | {"PYTHONPATH": str(ROOT)})
        for _ in range(25):
            reported = int(process.stdout.readline())
        process.send_signal(signal.SIGKILL)
        reported = int(([b"%d" % reported, *process.stdout.read().rsplit(b"\n", 1)[0].split()])[-1])
        process.wait()
        with Ledger(url, "risk") as ledger:
            seq, _ = ledger.head()
            assert reported <= seq <= reported + 1       # at most the one that was written and not yet said
            assert ledger.marks() == {("e", "t", 0): seq - 1}
            assert ledger.entry_of(entry(seq - 1).id).seq == seq
    assert faults(url) == []
    assert reported >= 75


class Crashes(RuleBasedStateMachine):
    """Commits, acknowledgements, snapshots and crashes in any order, beside a model of plain lists."""

    backend = "sqlite"

    def __init__(self):
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        self.url = fresh(self.backend, Path(self.folder.name))
        self.ledger = Ledger(self.url, "risk")
        self.written: list[tuple] = []
        self.marks: dict = {}
        self.acknowledged = self.acknowledged_on_disk = 0
        self.snapshots: dict[int, bytes] = {}

    @rule(orders=st.integers(0, 3), partition=st.integers(0, 2), epoch=st.sampled_from(("e1", "e2")))
    def commit(self, orders, partition, epoch):
        n = len(self.written)
        sent = [entry(10 * n + k) for k in range(orders)]
        seq = self.ledger.commit(T0 + n, [market(n)], [said(*sent)], {(epoch, "t", partition): n})
        self.written.append(tuple(o.id for o in sent))
        self.marks[(epoch, "t", partition)] = n
        self.acknowledged_on_disk = self.acknowledged
        assert seq == n + 1

    @precondition(lambda self: self.written)
    @rule(data=st.data())
    def acknowledge(self, data):
        seq = data.draw(st.integers(1, len(self.written)))
        self.ledger.acknowledge(seq)
        self.acknowledged = max(self.acknowledged, seq)

    @precondition(lambda self: self.written)
    @rule(state=st.binary(max_size=20))
    def snapshot(self, state):
        self.ledger.snapshot(len(self.written), T0, state)
        self.snapshots[len(self.written)] = state

    @rule()
    def crash(self):
        self.ledger.close()        # nothing is flushed on closing: what a kill would leave
        self.ledger = Ledger(self.url, "risk")
        self.acknowledged = self.acknowledged_on_disk

    @invariant()
    def it_is_what_was_written(self):
        assert self.ledger.head()[0] == len(self.written)
        assert [tuple(o.id for p in e.produced for o in p.orders) for e in self.ledger.entries()] == self.written
        assert self.ledger.marks() == self.marks
        assert [e.seq for e in self.ledger.unacknowledged()] == list(range(self.acknowledged + 1, len(self.written) + 1))
        last = max(self.snapshots, default=0)
        seq, state, tail = self.ledger.restore()
        assert (seq, state, len(list(tail))) == (last, self.snapshots.get(last), len(self.written) - last)

    def teardown(self):
        self.ledger.close()
        assert list(verify(self.url)) == []
        self.folder.cleanup()


Crashes.TestCase.settings = settings(max_examples=15, stateful_step_count=20, deadline=None, suppress_health_check=list(HealthCheck))
TestCrashes = Crashes.TestCase


class CrashesOnPostgres(Crashes):
    """The same beside the same model."""
    backend = "postgresql"


CrashesOnPostgres.TestCase.settings = settings(max_examples=3, stateful_step_count=12, deadline=None,
                                               suppress_health_check=list(HealthCheck))
TestCrashesOnPostgres = pytest.mark.postgres(CrashesOnPostgres.TestCase)


# nothing changes unnoticed

def set_row(at: int, **values):
    return lambda c: c.execute(tables.ledger.update().where(tables.ledger.c.seq == at).values(**values))


def remove(table: sa.Table, *where):
    return lambda c: c.execute(table.delete().where(*where))


def swap(a: int, b: int):
    def work(c):
        for old, new in ((a, -1), (b, a), (-1, b)):
            set_row(old, seq=new)(c)
    return work


def rewrite(seq: int, ts_ms: int):
    """A forger who knows the scheme: an edited row with a hash that fits it."""
    def work(c):
        row = c.execute(sa.select(tables.ledger).where(tables.ledger.c.seq == seq)).one()
        blob = encode(msgspec.structs.replace(decode(bytes(row.blob)), ts_ms=ts_ms))
        set_row(seq, ts_ms=ts_ms, blob=blob, hash=digest(bytes(row.prev_hash), row.writer, seq, ts_ms, row.kind, blob))(c)
    return work


def insert(seq: int):
    def work(c):
        row = c.execute(sa.select(tables.ledger).where(tables.ledger.c.seq == 2)).one()
        c.execute(tables.ledger.insert().values({**row._mapping, "seq": seq}))
    return work


L, INDEX = tables.ledger.c, tables.order_index.c
TAMPERED = {
    "a time edited": (set_row(5, ts_ms=1), ("risk", 5, "ledger")),
    "a blob edited": (set_row(5, blob=b"x"), ("risk", 5, "ledger")),
    "a kind edited": (set_row(5, kind="control"), ("risk", 5, "ledger")),
    "a hash edited": (set_row(5, hash=bytes(32)), ("risk", 5, "ledger")),
    "a link edited": (set_row(5, prev_hash=bytes(32)), ("risk", 5, "ledger")),
    "the last row edited": (set_row(10, ts_ms=1), ("risk", 10, "ledger")),
    "a row rewritten with its hash": (rewrite(5, T0 + 70), ("risk", 6, "ledger")),
    "the last row rewritten with its hash": (rewrite(10, T0 + 70), ("risk", 10, "meta")),
    "a row removed": (remove(tables.ledger, L.seq == 5), ("risk", 5, "ledger")),
    "the first row removed": (remove(tables.ledger, L.seq == 1), ("risk", 1, "ledger")),
    "rows swapped": (swap(4, 8), ("risk", 4, "ledger")),
    "a row inserted at the end": (insert(11), ("risk", 11, "ledger")),
    "a row inserted before the first": (insert(0), ("risk", 0, "ledger")),
    "the tail cut off": (remove(tables.ledger, L.seq > 7), ("risk", 8, "ledger")),
    "everything cut off": (remove(tables.ledger, L.seq > 0), ("risk", 1, "ledger")),
    "the head record removed": (remove(tables.meta, tables.meta.c.name == "head:risk"), ("risk", 10, "meta")),
    "an order taken out of the index": (remove(tables.order_index, INDEX.seq == 4), ("risk", 4, "order_index")),
    "an order put into the index": (lambda c: c.execute(tables.order_index.insert().values(order_id="E-x", writer="risk", seq=3)),
                                    ("risk", 3, "order_index")),
    "an order moved in the index": (lambda c: c.execute(tables.order_index.update().where(INDEX.seq == 4).values(seq=5)),
                                    ("risk", 5, "order_index")),
    "a mark moved": (lambda c: c.execute(tables.marks.update().values(offset=99)), ("risk", 10, "marks")),
    "a mark removed": (remove(tables.marks), ("risk", 10, "marks")),
}


@pytest.mark.parametrize("what", TAMPERED)
def test_tampering_is_found_where_it_happened(url, what):
    work, place = TAMPERED[what]
    write(url, 10)
    assert faults(url) == []
    with hand(url) as connection:
        work(connection)
    found = faults(url)
    assert place in found, found
    assert [f for f in found if f[2] == "ledger"][:1] in ([], [place])      # the first that is named is the place


def test_a_tail_cut_off_with_its_head_record_is_found_by_the_index_of_orders(url):
    write(url, 10)
    with hand(url) as connection:
        remove(tables.ledger, L.seq > 6)(connection)
        remove(tables.meta)(connection)
    assert ("risk", 7, "ledger") in faults(url) and ("risk", 7, "order_index") in faults(url)


def test_a_forger_who_rewrites_all_of_the_end_is_found_by_an_anchor_kept_elsewhere(url):
    write(url, 10)
    tally = Tally()
    assert faults(url, tally=tally) == []
    seq, hashed = tally.heads["risk"]
    write(url, 2, start=10)
    assert faults(url, anchors={"risk": [(seq, hashed.hex())]}) == []         # it grew, and the old head is still in it
    assert faults(url, anchors={"risk": [(seq, "00" * 32)]}) == [("risk", seq, "ledger")]
    assert faults(url, anchors={"nobody": [(1, "00" * 32)]}) == [("nobody", 0, "ledger")]


def test_each_writer_has_a_chain_of_its_own(url):
    write(url, 4, "risk")
    with Ledger(url, "supervisor") as other:
        other.commit(T0, [], [Control("c1", "KILL", "operator", "drill", 1, T0)], {})
    tally = Tally()
    assert faults(url, tally=tally) == []
    assert {w: seq for w, (seq, _) in tally.heads.items()} == {"risk": 4, "supervisor": 1} and tally.rows == 5
    with hand(url) as connection:
        connection.execute(tables.ledger.update().where(L.writer == "supervisor").values(writer="risc"))
    assert {f.writer for f in verify(url)} == {"risc", "supervisor"}


# the border

def test_a_full_disk_is_one_error_that_names_the_file_and_nothing_is_written(tmp_path):
    ledger = Ledger(f"sqlite:///{tmp_path}/ledger.db", "risk")
    ledger.commit(T0, [], [], {})
    pages = ledger._hot.driver_connection.execute("PRAGMA page_count").fetchone()[0]
    ledger._hot.driver_connection.execute(f"PRAGMA max_page_count={pages + 2}")
    with pytest.raises(LedgerError, match=rf"{tmp_path}/ledger\.db: database or disk is full .*free some space"):
        ledger.commit(T0, [market(1, bytes(100_000))], [said(entry(1))], {})
    assert ledger.head()[0] == 1
    ledger._hot.driver_connection.execute("PRAGMA max_page_count=1000000")
    assert ledger.commit(T0, [market(1, bytes(100_000))], [said(entry(1))], {}) == 2
    ledger.close()
    assert faults(f"sqlite:///{tmp_path}/ledger.db") == []


def test_a_place_that_cannot_be_a_ledger_is_one_error_that_names_it(tmp_path):
    (tmp_path / "file").write_text("text, not a database; long enough to have a first page" * 50)
    for url, words in ((f"sqlite:///{tmp_path}/file", r"/file: file is not a database"),
                       (f"sqlite:///{tmp_path}/file/ledger.db", r"/file/ledger.db: .*"),
                       ("sqlite://", "names no file"), ("mysql://x/y", "no driver of ours"), ("ledger.db", "is not a URL"),
                       ("postgresql+psycopg://u:secret@127.0.0.1:1/x", r"u:\*\*\*@127\.0\.0\.1:1/x: .*is the server up")):
        with pytest.raises(LedgerError, match=words) as caught:
            Ledger(url, "risk")
        assert "secret" not in str(caught.value)


def test_reading_a_ledger_that_is_not_there_makes_none(tmp_path):
    with pytest.raises(LedgerError, match="there is none"):
        list(verify(f"sqlite:///{tmp_path}/ledger.db"))
    assert list(tmp_path.iterdir()) == []


def test_revisions_are_applied_once_and_listed(url):
    engine = connect(url)
    assert migrate(engine) == [r.name for r in REVISIONS]
    assert migrate(engine) == []
    with engine.connect() as connection:
        assert list(applied(connection)) == sorted(r.name for r in REVISIONS)
    engine.dispose()
