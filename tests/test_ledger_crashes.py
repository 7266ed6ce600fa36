"""Whatever stops a write, and wherever in it, what is left is a whole chain that goes on. On SQLite and on PostgreSQL."""
import os
import random
import shutil
import signal
import subprocess
import tempfile
import time
from functools import cache
from pathlib import Path

import psutil
import pytest
import sqlalchemy as sa
from hypothesis import given, settings
from hypothesis import strategies as st

from store.database import LedgerError, connect
from store.ledger import Ledger
from store.verify import verify
from tests.ledgers import BACKENDS, T0, entry, fresh, market, said, server

MARK = ("e", "t", 0)
TABLES = ("ledger", "order_index", "marks", "meta")
KILLS = 20


@pytest.fixture(params=BACKENDS)
def url(request, tmp_path):
    return fresh(request.param, tmp_path)


def step(ledger: Ledger, size: int = 300) -> int:
    """The transaction that follows; it touches every table of the ledger."""
    i = ledger.head()[0]
    return ledger.commit(T0 + i, [market(i, bytes(size))], [said(entry(2 * i), entry(2 * i + 1))], {MARK: i})


def whole(ledger: Ledger, seq: int) -> None:
    """The chain ends at `seq`, and rows, index, marks and head say so together."""
    assert ledger.head()[0] == seq
    assert ledger.marks() == ({MARK: seq - 1} if seq else {})
    assert [e.seq for e in ledger.entries()] == list(range(1, seq + 1))
    assert list(verify(ledger.url)) == []


def run(url: str, *statements: str) -> None:
    engine = connect(url)
    with engine.begin() as connection:
        for statement in statements:
            connection.execute(sa.text(statement))
    engine.dispose()


def trap(backend: str, table: str, does: str) -> tuple[list[str], list[str]]:
    """Statements that lay a trigger behind the write to one table, and those that take it away."""
    if backend == "sqlite":
        laid = [f"CREATE TRIGGER trap_{verb} AFTER {verb} ON {table} BEGIN SELECT RAISE(ABORT, '{does}'); END"
                for verb in ("INSERT", "UPDATE")]
        return laid, ["DROP TRIGGER trap_INSERT", "DROP TRIGGER trap_UPDATE"]
    body = f"CREATE OR REPLACE FUNCTION trap() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN {does}; RETURN NULL; END $$"
    laid = [body, f"CREATE TRIGGER trap AFTER INSERT OR UPDATE ON {table} FOR EACH ROW EXECUTE FUNCTION trap()"]
    return laid, [f"DROP TRIGGER trap ON {table}"]


@pytest.mark.parametrize("table", TABLES)
def test_a_statement_that_fails_takes_the_whole_transaction_with_it(url, table):
    backend = url.split(":")[0].split("+")[0]
    laid, taken = trap(backend, table, "the disk broke" if backend == "sqlite" else "RAISE EXCEPTION 'the disk broke'")
    with Ledger(url, "risk") as ledger:
        step(ledger)
        run(url, *laid)
        for _ in range(2):
            with pytest.raises(LedgerError, match="the disk broke"):
                step(ledger)
        run(url, *taken)
        whole(ledger, 1)
        assert step(ledger) == 2
        whole(ledger, 2)


@pytest.mark.postgres
@pytest.mark.parametrize("when", [*TABLES, "commit"])
def test_a_server_that_ends_the_session_at_any_statement_leaves_a_whole_chain(tmp_path, when):
    url = fresh("postgresql", tmp_path)
    laid, taken = trap("postgresql", "meta" if when == "commit" else when, "PERFORM pg_terminate_backend(pg_backend_pid())")
    if when == "commit":       # a deferred trigger runs inside COMMIT
        laid[1] = ("CREATE CONSTRAINT TRIGGER trap AFTER INSERT OR UPDATE ON meta DEFERRABLE INITIALLY DEFERRED "
                   "FOR EACH ROW EXECUTE FUNCTION trap()")
    with Ledger(url, "risk") as ledger:
        step(ledger)
        run(url, *laid)
        with pytest.raises(LedgerError):
            step(ledger)
    run(url, *taken)
    with Ledger(url, "risk") as again:
        whole(again, 1)
        assert step(again) == 2
        whole(again, 2)


def test_a_write_interrupted_at_any_instruction_of_the_database_is_none_at_all(tmp_path):
    """SQLite counts the instructions of its machine: each one of a transaction, BEGIN and COMMIT included, is the last once."""
    url = f"sqlite:///{tmp_path}/ledger.db"
    ledger = Ledger(url, "risk")
    step(ledger)
    stopped, written = 0, 1
    for n in range(1, 2000):
        database, left = ledger._hot.driver_connection, [n]

        def stop(left=left) -> bool:
            left[0] -= 1
            return left[0] == 0

        database.set_progress_handler(stop, 1)
        try:
            step(ledger)
            break
        except LedgerError as error:
            assert "interrupted" in str(error)
            stopped += 1
        finally:
            database.set_progress_handler(None, 0)
        seq = int(database.execute("SELECT max(seq) FROM ledger").fetchone()[0])
        if seq > written:       # written, and the answer was lost: who goes on all the same is refused, who opens again finds it
            with pytest.raises(LedgerError, match="UNIQUE"):
                step(ledger)
            ledger.close()
            ledger = Ledger(url, "risk")
            written += 1
        if n % 10 == 0 or seq == written > 1:
            whole(ledger, written)
    assert stopped > 50 and written <= 3
    whole(ledger, written + 1)
    ledger.close()


def test_killed_at_random_moments_a_writer_leaves_what_it_reported_and_at_most_one_more(url):
    rng, seq = random.Random(11), 0
    for _ in range(KILLS):
        heard, say = os.pipe()
        child = os.fork()
        if child == 0:       # ends by the kill, or at once by what it raises
            try:
                os.close(heard)
                with Ledger(url, "risk") as ledger:
                    while True:
                        os.write(say, b"%d\n" % step(ledger, 3000))
                        if ledger.head()[0] % 10 == 0:
                            ledger.snapshot(ledger.head()[0], T0, b"state")
            finally:
                os._exit(1)
        os.close(say)
        with os.fdopen(heard, "rb", 0) as pipe:
            lines = [pipe.readline()]        # it has opened the ledger and written once
            time.sleep(rng.uniform(0, 0.03))
            os.kill(child, signal.SIGKILL)
            lines += pipe.readlines()
        _, status = os.waitpid(child, 0)
        assert os.WTERMSIG(status) == signal.SIGKILL
        reported = int([line for line in lines if line.endswith(b"\n")][-1])
        with Ledger(url, "risk") as ledger:
            assert max(seq, reported) <= ledger.head()[0] <= reported + 1
            seq = ledger.head()[0]
            assert ledger.marks() == {MARK: seq - 1}
            assert ledger.entry_of(entry(2 * seq - 1).id).seq == seq
            kept, _, tail = ledger.restore()
            assert [e.seq for e in tail] == list(range(kept + 1, seq + 1))
    assert seq > 2 * KILLS
    assert list(verify(url)) == []


def running_again(postgres, url: str) -> None:
    """Starts the server; it recovers for as long as the machine lets it take."""
    for attempt in range(60):
        try:
            postgres.ensure_postgres_running()
            connect(url).connect().close()
            return
        except (subprocess.TimeoutExpired, sa.exc.OperationalError):
            if attempt == 59:
                raise
            time.sleep(1)


@pytest.mark.postgres
@pytest.mark.parametrize("synchronous", ("FULL", "NORMAL"))
def test_a_database_server_that_is_killed_leaves_a_whole_chain_and_with_full_all_of_it(tmp_path, synchronous):
    url, postgres = fresh("postgresql", tmp_path), server()
    heard, say = os.pipe()
    child = os.fork()
    if child == 0:       # ends by the error that the lost server is
        try:
            os.close(heard)
            with Ledger(url, "risk", synchronous) as ledger:
                while True:
                    os.write(say, b"%d\n" % step(ledger, 3000))
        finally:
            os._exit(1)
    os.close(say)
    with os.fdopen(heard, "rb", 0) as pipe:
        for _ in range(40):
            pipe.readline()
        postmaster = psutil.Process(postgres.get_pid())
        for process in (postmaster, *postmaster.children(recursive=True)):
            process.kill()
        lines = pipe.readlines()
    os.waitpid(child, 0)
    reported = int(lines[-1]) if lines else 40
    for name in ("postmaster.pid", ".s.PGSQL.5432.lock"):       # the pid lives on as long as nobody has reaped it
        (postgres.pgdata / name).unlink(missing_ok=True)
    running_again(postgres, url)
    with Ledger(url, "risk") as ledger:
        seq = ledger.head()[0]
        assert seq <= reported + 1 and (seq >= reported or synchronous == "NORMAL")
        whole(ledger, seq)
        assert step(ledger) == seq + 1
    assert list(verify(url)) == []


@cache
def folder_of_a_running_ledger() -> tuple[Path, list[int]]:
    """A database with its log as they lie on the disk while it is written, and the log's length after each entry."""
    folder = Path(tempfile.mkdtemp(prefix="torn-"))
    ledger = Ledger(f"sqlite:///{folder}/live.db", "risk")
    ledger._closed.set()       # nobody folds the log meanwhile
    lengths = [0]
    for _ in range(12):
        step(ledger, 2000)
        lengths.append((folder / "live.db-wal").stat().st_size)
    for part in ("", "-wal"):
        shutil.copy(folder / f"live.db{part}", folder / f"ledger.db{part}")
    ledger.close()
    return folder, lengths


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_a_log_torn_at_any_byte_by_a_power_cut_is_a_whole_shorter_chain(data):
    source, lengths = folder_of_a_running_ledger()
    at = data.draw(st.integers(0, lengths[-1]), "bytes that reached the disk")
    rest = data.draw(st.sampled_from(("nothing", "zeros", "noise")), "what stands behind them")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        shutil.copy(source / "ledger.db", folder / "ledger.db")
        log = (source / "ledger.db-wal").read_bytes()
        noise = random.Random(at).randbytes(lengths[-1] - at)
        torn = log[:at] + {"nothing": b"", "zeros": bytes(lengths[-1] - at), "noise": noise}[rest]
        (folder / "ledger.db-wal").write_bytes(torn)
        with Ledger(f"sqlite:///{folder}/ledger.db", "risk") as ledger:
            seq = ledger.head()[0]
            # each transaction that is there whole, and no other; one whose end was zeros is whole with zeros behind the tear
            assert seq == sum(torn[:length] == log[:length] for length in lengths[1:])
            whole(ledger, seq)
            assert step(ledger) == seq + 1
        assert list(verify(f"sqlite:///{folder}/ledger.db")) == []
