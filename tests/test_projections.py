"""Projections: what people query is what the ledger says, however and however often it was read. On SQLite and on PostgreSQL."""
import os
import signal
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

import msgspec
import pytest
import sqlalchemy as sa
from hypothesis import given, settings
from hypothesis import strategies as st

from engine import facts, reasons
from engine.facts import ACCEPTED, CANCELLED, DONE, REJECTED, UNKNOWN, Control, Outcomes
from scripts import rebuild_projections
from store import tables
from store.database import LedgerError, connect
from store.ledger import Ledger
from store.projections import Projector
from tests.ledgers import BACKENDS, T0, dropped, entry, fill, fresh, history, market, outcome, refusal, report, said, way_out

ROOT = Path(__file__).parent.parent


@pytest.fixture(params=BACKENDS)
def url(request, tmp_path):
    return fresh(request.param, tmp_path)


def write(url: str, transactions, writer: str = "risk") -> None:
    with Ledger(url, writer) as ledger:
        for at, consumed, produced, marks in transactions:
            ledger.commit(at, consumed, produced, marks)


def told(url: str, *heard, orders=()) -> None:
    """Orders first, then each fact in a transaction of its own; and all of it projected."""
    write(url, [(T0, [], [said(o)], {}) for o in orders] + [(T0, [fact], [], {}) for fact in heard])
    project(url)


def project(url: str, limit: int | None = None) -> int:
    projector = Projector(url)
    done = projector.run_once(limit)
    projector.close()
    return done


def rebuild(url: str) -> int:
    projector = Projector(url)
    done = projector.rebuild()
    projector.close()
    return done


def read(url: str, table: sa.Table) -> list[dict]:
    engine = connect(url)
    with engine.connect() as connection:
        found = [dict(r._mapping) for r in connection.execute(sa.select(table).order_by(next(iter(table.primary_key))))]
    engine.dispose()
    return found


def everything(url: str) -> dict[str, list[dict]]:
    return {t.name: read(url, t) for t in tables.PROJECTIONS}


# rebuilt is what ran along

@pytest.mark.parametrize("seed", range(4))
def test_rebuilt_projections_equal_those_that_ran_along_row_for_row(url, seed):
    days = history(seed)
    for i in range(0, len(days), 7):
        write(url, days[i:i + 7])
        project(url, limit=5)
    while project(url):
        pass
    along = everything(url)
    assert rebuild(url) == len(days)
    assert everything(url) == along
    assert all(along[name] for name in ("decisions", "orders", "fills", "outcomes", "positions"))


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10**6), cuts=st.lists(st.integers(1, 25), min_size=1, max_size=8))
def test_where_the_pages_are_cut_makes_no_difference(seed, cuts):
    with tempfile.TemporaryDirectory() as folder:
        url = f"sqlite:///{folder}/ledger.db"
        days = history(seed, trades=5)
        write(url, days)
        at_once = Projector(url)
        assert at_once.run_once() == len(days)
        whole = everything(url)
        assert at_once.rebuild() == len(days) and everything(url) == whole
        engine = at_once.engine
        with engine.begin() as connection:
            for table in tables.PROJECTIONS:
                connection.execute(table.delete())
        n, done = 0, 0
        while took := at_once.run_once(cuts[n % len(cuts)]):
            assert took <= cuts[n % len(cuts)]
            n, done = n + 1, done + took
        assert done == len(days) and everything(url) == whole
        at_once.close()


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10**6))
def test_money_adds_up_from_the_fills(seed):
    with tempfile.TemporaryDirectory() as folder:
        url = f"sqlite:///{folder}/ledger.db"
        write(url, history(seed, trades=6))
        project(url)
        fills = read(url, tables.fills)
        for position in read(url, tables.positions):
            own = [f for f in fills if f["symbol"] == position["symbol"]]
            signed = [(f["qty"] if f["side"] == facts.BUY else -f["qty"], f["price"]) for f in own]
            assert position["qty"] == pytest.approx(sum(q for q, _ in signed), abs=1e-9)
            assert position["fees_usd"] == pytest.approx(sum(f["fee_usd"] for f in own))
            # cash that came in, and what is held at its cost, is what was realised
            cash = -sum(q * p for q, p in signed) - position["fees_usd"]
            assert position["realized_usd"] == pytest.approx(cash + position["qty"] * position["avg_price"], abs=1e-6)
        for order in read(url, tables.orders):
            assert order["filled"] == pytest.approx(sum(f["qty"] for f in fills if f["order_id"] == order["id"]))


def test_nothing_new_is_no_work_and_changes_nothing(url):
    write(url, history(1))
    project(url)
    before = everything(url)
    assert project(url) == 0
    assert everything(url) == before


def test_two_projectors_at_once_project_everything_once(url):
    days = history(2, trades=30)
    write(url, days)
    stop = threading.Event()
    both = [Projector(url) for _ in range(2)]
    threads = [threading.Thread(target=p.follow, args=(stop, 0.01)) for p in both]
    for thread in threads:
        thread.start()
    write(url, [(T0, [market(1)], [], {})] * 20)
    while any(both[0].behind().values()):
        stop.wait(0.02)
    stop.set()
    for thread in threads:
        thread.join()
    along = everything(url)
    both[0].rebuild()
    assert everything(url) == along
    for p in both:
        p.close()


FOLLOW = """
import sys
from store.projections import Projector
projector = Projector(sys.argv[1])
while True:
    projector.run_once(1)
    print(flush=True)
"""


def test_a_killed_projector_goes_on_where_it_stood_and_counts_nothing_twice(url):
    days = history(5, trades=15)
    write(url, days)
    for _ in range(2):
        process = subprocess.Popen([sys.executable, "-c", FOLLOW, url], stdout=subprocess.PIPE, cwd=ROOT,
                                   env=os.environ | {"PYTHONPATH": str(ROOT)})
        for _ in range(10):
            process.stdout.readline()
        process.send_signal(signal.SIGKILL)
        process.wait()
        process.stdout.close()
    left = project(url)
    assert 0 < left <= len(days) - 20
    along = everything(url)
    rebuild(url)
    assert everything(url) == along


@pytest.mark.parametrize("table", [t.name for t in tables.PROJECTIONS if t.name != "controls"])
def test_a_projector_that_dies_at_any_statement_leaves_nothing_of_that_page(url, table):
    """The database refuses the write to one table after the other, as a full disk would; then it goes on."""
    days = history(3, trades=4)
    write(url, days)
    project(url, 7)
    before = everything(url)
    sqlite = url.startswith("sqlite")
    body = "BEGIN SELECT RAISE(ABORT, 'the disk broke'); END" if sqlite else "FOR EACH STATEMENT EXECUTE FUNCTION trap()"
    engine, verbs = connect(url), ("INSERT", "UPDATE")
    with engine.begin() as connection:
        if not sqlite:
            connection.execute(sa.text("CREATE FUNCTION trap() RETURNS trigger LANGUAGE plpgsql AS "
                                       "$$ BEGIN RAISE EXCEPTION 'the disk broke'; END $$"))
        for verb in verbs:
            connection.execute(sa.text(f"CREATE TRIGGER trap_{verb} AFTER {verb} ON {table} {body}"))
    with pytest.raises(LedgerError, match="the disk broke"):
        project(url)
    assert everything(url) == before
    with engine.begin() as connection:
        for verb in verbs:
            connection.execute(sa.text(f"DROP TRIGGER trap_{verb}" + ("" if sqlite else f" ON {table}")))
    engine.dispose()
    assert project(url) == len(days) - 7
    along = everything(url)
    assert rebuild(url) == len(days) and everything(url) == along


# each row

def test_a_yes_and_a_no_are_rows_of_one_table(url):
    order = entry(1)
    write(url, [(T0, [], [said(order), dropped(refusal(2))], {})])
    project(url)
    no, yes = sorted(read(url, tables.decisions), key=lambda row: row["allowed"])
    assert (yes["id"], yes["code"], yes["numbers"], yes["qty"], yes["cap"], yes["route"], yes["epoch"]) == (
        order.decision.id, reasons.ALLOW_NEW_ENTRY, "p 0.820 >= 0.700", 0.01, "kelly", "paper", 1)
    assert (no["code"], no["numbers"]) == (reasons.BLOCK_COOLDOWN, "BTCUSDT: 120s < 300s")
    assert (no["qty"], no["margin_usd"], no["epoch"]) == (0, 0, None)
    assert {yes["p"], no["p"]} == {0.82} and yes["allowed"] is True and no["allowed"] is False


def test_a_duplicate_candidate_does_not_overwrite_what_was_decided_first(url):
    order = entry(1)
    again = facts.Dropped(order.decision.id, order.decision.scored, reasons.DUPLICATE, "decided", T0)
    write(url, [(T0, [], [said(order)], {}), (T0, [], [dropped(again)], {})])
    project(url)
    assert [d["code"] for d in read(url, tables.decisions)] == [reasons.ALLOW_NEW_ENTRY]


ORDER = entry(1, qty=0.02)
HALF, REST = fill(ORDER, 1, 0.01, 3), fill(ORDER, 2, 0.01, 4)
LIVES = {
    "sent": ([], "", 0.0),
    "accepted": ([report(ORDER, ACCEPTED, 1)], ACCEPTED, 0.0),
    "rejected": ([report(ORDER, REJECTED, 1, reason=reasons.POST_ONLY_WOULD_CROSS)], REJECTED, 0.0),
    "ambiguous, then there": ([report(ORDER, UNKNOWN, 1), report(ORDER, ACCEPTED, 2)], ACCEPTED, 0.0),
    "told in the wrong order": ([report(ORDER, ACCEPTED, 2), report(ORDER, UNKNOWN, 1)], ACCEPTED, 0.0),
    "half filled": ([report(ORDER, ACCEPTED, 1), HALF], ACCEPTED, 0.01),
    "half filled, nothing reported": ([HALF], ACCEPTED, 0.01),
    "filled": ([report(ORDER, ACCEPTED, 1), HALF, REST, report(ORDER, DONE, 5, 0.02)], DONE, 0.02),
    "filled before it was accepted": ([HALF, REST, report(ORDER, ACCEPTED, 1)], DONE, 0.02),
    "filled, told twice": ([HALF, HALF, REST, HALF, REST], DONE, 0.02),
    "reported filled, the fills still on their way": ([report(ORDER, DONE, 5, 0.02), HALF], DONE, 0.01),
    "cancelled half filled": ([HALF, report(ORDER, CANCELLED, 5, 0.01), report(ORDER, ACCEPTED, 1)], CANCELLED, 0.01),
    "cancelled, then refused": ([report(ORDER, CANCELLED, 5), report(ORDER, REJECTED, 6, reason=reasons.NO_BOOK)], CANCELLED, 0.0),
    "cancelled, a fill came after all": ([report(ORDER, CANCELLED, 5, 0.01), HALF], CANCELLED, 0.01),
    "a repeated request refused": ([report(ORDER, ACCEPTED, 1), report(ORDER, REJECTED, 2, reason=reasons.DUPLICATE_ORDER)], ACCEPTED, 0.0),
    "a cancel of what is over": ([HALF, REST, report(ORDER, REJECTED, 6, reason=reasons.NOT_FOUND)], DONE, 0.02),
}


@pytest.mark.parametrize("life", LIVES)
def test_an_order_stands_where_reports_and_fills_put_it(life, tmp_path):
    heard, status, filled = LIVES[life]
    url = f"sqlite:///{tmp_path}/ledger.db"
    told(url, *heard, orders=[ORDER])
    [row] = read(url, tables.orders)
    assert (row["status"], row["filled"]) == (status, filled)
    assert row["decision_id"] == ORDER.decision.id and row["entry_id"] == ORDER.id


def test_a_position_is_held_at_average_cost_and_turns_through_zero(url):
    buy, more, sell = entry(1, qty=0.02), entry(2, qty=0.02), entry(3, facts.SELL, qty=0.06)
    told(url, fill(buy, 1, 0.02, 1, 100.0), fill(more, 1, 0.02, 2, 110.0), orders=[buy, more, sell])
    [held] = read(url, tables.positions)
    assert (held["qty"], held["avg_price"]) == (pytest.approx(0.04), pytest.approx(105.0))
    assert held["realized_usd"] == pytest.approx(-held["fees_usd"]) and held["fees_usd"] == pytest.approx(0.24)
    told(url, fill(sell, 1, 0.06, 3, 115.0))
    [held] = read(url, tables.positions)
    assert (held["qty"], held["avg_price"]) == (pytest.approx(-0.02), pytest.approx(115.0))
    assert held["realized_usd"] == pytest.approx(0.04 * 10 - held["fees_usd"])


def test_a_closed_position_is_flat_and_keeps_its_result(url):
    first = entry(1, qty=0.03)
    out = way_out(first, 1, T0 + 4000)
    told(url, fill(first, 1, 0.01, 1, 100.0), fill(first, 2, 0.02, 2, 100.0), fill(out, 1, 0.03, 3, 101.0), orders=[first, out])
    [held] = read(url, tables.positions)
    assert (held["qty"], held["avg_price"]) == (0.0, 0.0)
    assert held["realized_usd"] == pytest.approx(0.03 - held["fees_usd"])


def test_outcomes_and_controls_are_told_once_whoever_told_them(url):
    first = entry(1)
    kill = Control("c1", "KILL", "operator", "drill", 3, T0, {"b": "2", "a": "1"})
    end = Outcomes("BTCUSDT", "s1", [outcome(first, 0.5)])
    write(url, [(T0, [kill], [end], {}), (T0, [], [end], {})])
    write(url, [(T0, [], [kill], {})], "supervisor")
    assert project(url) == 3
    [row] = read(url, tables.outcomes)
    assert (row["id"], row["net_usd"], row["cause"]) == (first.id, 0.5, "target")
    [control] = read(url, tables.controls)
    assert (control["kind"], control["details"], control["epoch"]) == ("KILL", '{"a": "1", "b": "2"}', 3)
    assert {m["writer"]: m["seq"] for m in read(url, tables.projection_marks)} == {"risk": 2, "supervisor": 1}


def test_a_probability_that_is_no_number_is_no_value_rather_than_an_error(url):
    nonsense = msgspec.structs.replace(refusal(1).scored, p=float("nan"))
    write(url, [(T0, [], [dropped(facts.Dropped("D-x", nonsense, reasons.INVALID_INPUT, "p nan", T0))], {})])
    project(url)
    assert [d["p"] for d in read(url, tables.decisions)] == [None]


# the command

def test_the_command_rebuilds_and_says_how_fast(url, capsys):
    write(url, history(3))
    assert rebuild_projections.main(["--ledger", url]) == 0
    assert "entries projected in" in capsys.readouterr().out
    assert len(read(url, tables.orders)) > 0
    assert rebuild_projections.main(["--ledger", url, "--behind"]) == 0
    assert ": 0 entries projected" in capsys.readouterr().out


def test_the_command_names_a_ledger_that_is_not_there(tmp_path, capsys):
    assert rebuild_projections.main(["--ledger", f"sqlite:///{tmp_path}/none.db"]) == 2
    assert f"{tmp_path}/none.db: there is none" in capsys.readouterr().err
    assert not (tmp_path / "none.db").exists()
