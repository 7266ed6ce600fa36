"""No byte of a ledger changes unnoticed: every way of changing it that one hand knows, found, and found where it happened."""
import shutil
import sqlite3
import string
import tempfile
from functools import cache
from pathlib import Path

import msgspec
import pytest
import sqlalchemy as sa
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.facts import Control
from store import tables
from store.blob import decode, encode
from store.chain import digest, head_record
from store.database import LedgerError, connect
from store.ledger import Ledger
from store.verify import Fault, verify
from tests.ledgers import BACKENDS, T0, entry, fresh, hand, market, said

N = 12                       # entries of "risk"; "supervisor" has three
WRITERS = {"risk": N, "supervisor": 3}
KEPT = (tables.ledger, tables.order_index, tables.marks, tables.snapshots, tables.meta)
Rows = dict[str, list[dict]]


@cache
def ledger(backend: str) -> tuple[str, Rows]:
    """A ledger with two chains, and its rows as they were written."""
    url = fresh(backend, Path(tempfile.mkdtemp(prefix="tamper-")))
    with Ledger(url, "risk") as risk, Ledger(url, "supervisor") as other:
        for i in range(N):
            produced = [said(entry(i))] if i % 3 == 0 else []
            risk.commit(T0 + i, [market(i, b"%d" % i * 9)], produced, {("e1", "md.frames", 0): i, ("e1", "b", 1): i})
            risk.acknowledge(i + 1)
            if i % 4 == 3:
                risk.snapshot(i + 1, T0, b"state %d" % i)
        for i in range(3):
            other.commit(T0 + i, [], [Control(f"c{i}", "KILL", "operator", "drill", i, T0)], {("e1", "control", 0): i})
    with hand(url) as connection:
        rows = {t.name: [{k: bytes(v) if isinstance(v, memoryview) else v for k, v in row._mapping.items()}
                         for row in connection.execute(sa.select(t).order_by(*t.primary_key))] for t in KEPT}
    return url, rows


def found(backend: str, changed: Rows, anchors: dict | None = None) -> list[Fault]:
    """What verify says when the tables hold these rows instead."""
    with forger(backend).begin() as connection:
        for table in KEPT:
            connection.execute(table.delete())
            if changed[table.name]:
                connection.execute(table.insert(), changed[table.name])
    return list(verify(ledger(backend)[0], anchors))


@cache
def forger(backend: str) -> sa.Engine:
    """Connections of somebody who took the guard down; kept, so that no example waits for the disk."""
    url, _ = ledger(backend)
    with hand(url):
        pass
    engine = connect(url)
    engine.connect()
    assert list(verify(url)) == []
    return engine


def copy_of(rows: Rows) -> Rows:
    return {name: [dict(row) for row in some] for name, some in rows.items()}


def other_than(value, draw):
    """Another value of the same type: a flipped bit, a changed or lost letter, another number."""
    if isinstance(value, bytes):
        how = draw(st.sampled_from(("flip", "cut", "grow")))
        if how == "flip" and value:
            at = draw(st.integers(0, 8 * len(value) - 1))
            return value[:at // 8] + bytes([value[at // 8] ^ 1 << at % 8]) + value[at // 8 + 1:]
        return value[:-1] if how == "cut" and value else value + b"\0"
    if isinstance(value, str):
        changed = draw(st.one_of(st.text(string.ascii_letters + string.digits + " :-é", max_size=12),
                                 st.integers(0, len(value)).map(lambda i: value[:i] + value[i + 1:])))
        return changed if changed != value else value + "x"
    return draw(st.integers(-5, 40).filter(lambda n: n != value)) if abs(value) < 1000 else value + draw(st.sampled_from((-1, 1, 10**9)))


def places(table: str, row: dict) -> set[tuple[str, int]]:
    """Where a fault in this row may be said to be: the chain's position, or its end for what is told of the end alone."""
    if table == "meta":
        writer = row["name"].removeprefix("head:")
        return {(writer, WRITERS.get(writer, 0)), (writer, WRITERS.get(writer, 0) + 1)}
    if table == "marks":
        return {(row["writer"], WRITERS.get(row["writer"], 0))}
    return {(row["writer"], row["seq"])}


def keys(table: sa.Table, rows: list[dict]) -> list[tuple]:
    return [tuple(row[c.name] for c in table.primary_key) for row in rows]


@st.composite
def tampered(draw, rows: Rows) -> tuple[str, Rows, set[tuple[str, int]]]:
    """One change, in words; the rows after it; where it happened (a fault must name one of these places)."""
    new = copy_of(rows)
    what = draw(st.sampled_from(("a value", "a value", "a value", "rows removed", "rows swapped", "contents swapped", "a row inserted",
                                 "the tail cut off and the head set back", "a row rewritten with its hash")))
    chain = [r for r in new["ledger"] if r["writer"] == "risk"]
    if what == "a value":
        table = draw(st.sampled_from(KEPT))
        i = draw(st.integers(0, len(new[table.name]) - 1))
        column = draw(st.sampled_from([c.name for c in table.c]))
        row = new[table.name][i]
        row[column] = other_than(row[column], draw)
        if keys(table, new[table.name]).count(keys(table, [row])[0]) > 1:      # the database would refuse: change another column
            row[column] = rows[table.name][i][column]
            column = {"ledger": "blob", "snapshots": "blob", "marks": "offset", "order_index": "seq", "meta": "value"}[table.name]
            row[column] = other_than(row[column], draw)
        old = rows[table.name][i]
        return f"{table.name}.{column} of {old}"[:150], new, places(table.name, old) | places(table.name, row)
    if what == "rows removed":
        first = draw(st.integers(1, N))
        last = draw(st.integers(first, N))
        new["ledger"] = [r for r in new["ledger"] if r["writer"] != "risk" or not first <= r["seq"] <= last]
        return f"{first} to {last} removed", new, {("risk", first)}
    if what in ("rows swapped", "contents swapped"):
        a, b = sorted(draw(st.lists(st.integers(0, N - 1), min_size=2, max_size=2, unique=True)))
        for column in ("seq",) if what == "rows swapped" else ("blob",):
            chain[a][column], chain[b][column] = chain[b][column], chain[a][column]
        return f"{a + 1} and {b + 1}: {what}", new, {("risk", a + 1)}
    if what == "a row inserted":
        at, like = draw(st.integers(1, N + 1)), draw(st.integers(0, N - 1))
        for row in chain:
            row["seq"] += row["seq"] >= at
        new["ledger"].append({**chain[like], "seq": at})
        return f"a copy of {like + 1} inserted at {at}", new, {("risk", at + (like + 1 == at))}
    if what == "a row rewritten with its hash":
        at = draw(st.integers(1, N))
        rewritten(chain[at - 1])
        return f"{at} rewritten", new, {("risk", at), ("risk", at + 1)}
    keep = draw(st.integers(0, N - 1))
    new["ledger"] = [r for r in new["ledger"] if r["writer"] != "risk" or r["seq"] <= keep]
    new["meta"] = [r for r in new["meta"] if r["name"] != "head:risk"]
    if keep:
        new["meta"].append({"name": "head:risk", "value": head_record(keep, chain[keep - 1]["hash"])})
    return f"cut off after {keep}, with its head", new, {("risk", keep), ("risk", keep + 1)} | {("risk", n) for n in range(keep, N + 1)}


def rewritten(row: dict, prev: bytes | None = None) -> None:
    """As a forger who knows the scheme does it: other facts, and the hash that fits them."""
    old = decode(row["blob"])
    if prev is None:
        row["blob"] = encode(msgspec.structs.replace(old, consumed=[market(999)]))
    row["prev_hash"] = row["prev_hash"] if prev is None else prev
    row["hash"] = digest(row["prev_hash"], row["writer"], row["seq"], row["ts_ms"], row["kind"], row["blob"])


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_any_single_change_is_found_and_its_place_is_named(data):
    tampering(data.draw, "sqlite")


@pytest.mark.postgres
@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_any_single_change_is_found_and_its_place_is_named_on_postgresql(data):
    tampering(data.draw, "postgresql")


def tampering(draw, backend: str) -> None:
    _, rows = ledger(backend)
    what, changed, where = draw(tampered(rows))
    faults = found(backend, changed)
    assert faults, what
    assert where & {(f.writer, f.seq) for f in faults}, f"{what} is not among {[str(f) for f in faults]}, expected {where}"


def forged(rows: Rows, first: int) -> Rows:
    """Everything from `first` on written anew, hash by hash, with head: what a chain alone cannot see."""
    new = copy_of(rows)
    chain = [r for r in new["ledger"] if r["writer"] == "risk"]
    rewritten(chain[first - 1])
    for before, row in zip(chain[first - 1:], chain[first:]):
        rewritten(row, before["hash"])
    next(r for r in new["meta"] if r["name"] == "head:risk")["value"] = head_record(N, chain[-1]["hash"])
    return new


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("first", (1, 7, N))
def test_a_forger_who_writes_the_whole_end_anew_is_seen_only_with_heads_kept_elsewhere_and_between_which_of_them(backend, first):
    _, rows = ledger(backend)
    true = {row["seq"]: row["hash"].hex() for row in rows["ledger"] if row["writer"] == "risk"}
    changed = forged(rows, first)
    assert found(backend, changed) == []        # by itself it looks whole: that is the limit of a chain
    anchors = {"risk": [(seq, true[seq]) for seq in (3, 6, 9, N)]}
    assert found(backend, rows, anchors) == []
    faults = found(backend, changed, anchors)
    good = max((seq for seq in (3, 6, 9, N) if seq < first), default=0)
    bad = min(seq for seq in (3, 6, 9, N) if seq >= first)
    assert (faults[0].writer, faults[0].seq) == ("risk", bad)
    assert f"written anew after {good}" in faults[0].what


def test_a_tail_cut_off_with_every_record_of_it_is_seen_by_an_anchor():
    _, rows = ledger("sqlite")
    new, keep = copy_of(rows), 6
    for name in ("ledger", "order_index", "snapshots"):
        new[name] = [r for r in new[name] if r["writer"] != "risk" or r["seq"] <= keep]
    for row in new["marks"]:
        row["offset"] = keep - 1 if row["writer"] == "risk" else row["offset"]
    last = next(r for r in new["ledger"] if (r["writer"], r["seq"]) == ("risk", keep))
    next(r for r in new["meta"] if r["name"] == "head:risk")["value"] = head_record(keep, last["hash"])
    assert found("sqlite", new) == []
    true = next(r["hash"].hex() for r in rows["ledger"] if (r["writer"], r["seq"]) == ("risk", 9))
    [fault] = found("sqlite", new, {"risk": [(9, true)]})
    assert (fault.writer, fault.seq) == ("risk", 7) and "cut off" in fault.what


@cache
def file() -> tuple[Path, bytes, Rows]:
    """The database's file as bytes, with the log folded in."""
    url, rows = ledger("sqlite")
    path = Path(tempfile.mkdtemp(prefix="bytes-")) / "ledger.db"
    found("sqlite", rows)
    with sqlite3.connect(sa.make_url(url).database) as connection:
        connection.execute("VACUUM INTO ?", (str(path),))
    return path, path.read_bytes(), rows


@settings(max_examples=100, deadline=None)
@given(data=st.data())
def test_a_byte_of_the_file_that_changes_on_the_disk_is_found_or_held_nothing_of_the_ledger(data):
    path, whole, rows = file()
    at = data.draw(st.integers(0, len(whole) - 1), "byte")
    value = data.draw(st.integers(0, 255).filter(lambda b: b != whole[at]), "becomes")
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "ledger.db"
        shutil.copy(path, copy)
        copy.write_bytes(whole[:at] + bytes([value]) + whole[at + 1:])
        try:
            if list(verify(f"sqlite:///{copy}")):
                return
        except LedgerError as error:
            assert str(copy) in str(error)
            return
        with hand(f"sqlite:///{copy}") as connection:
            for table in (t for t in KEPT if t is not tables.snapshots):
                assert [dict(r._mapping) for r in connection.execute(sa.select(table).order_by(*table.primary_key))] == rows[table.name]


def test_each_place_of_an_order_id_in_the_file_is_under_guard():
    """The index of orders is two trees on the disk, by id and by place: damage to either is named."""
    path, whole, _ = file()
    order_id = entry(9).id.encode()
    places = [at for at in range(len(whole)) if whole.startswith(order_id, at)]
    assert len(places) == 4        # twice in the ledger's row, once in each tree
    for at in places:
        damaged = path.with_name("damaged.db")
        damaged.write_bytes(whole[:at + 5] + b"?" + whole[at + 6:])
        faults = list(verify(f"sqlite:///{damaged}"))
        assert ("risk", 10) in {(f.writer, f.seq) for f in faults}


def test_a_head_record_that_is_no_record_is_a_fault_and_no_crash():
    _, rows = ledger("sqlite")
    for value in ("", " ", "twelve", "12", "-1 zz", "é 00"):
        new = copy_of(rows)
        next(r for r in new["meta"] if r["name"] == "head:risk")["value"] = value
        assert [(f.writer, f.seq, f.table) for f in found("sqlite", new)] == [("risk", N, "meta")], value
        with pytest.raises(LedgerError, match="head record"):
            Ledger(ledger("sqlite")[0], "risk")

