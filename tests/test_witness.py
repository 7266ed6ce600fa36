"""Heads kept outside the ledger: what was noted must still be so, whoever wrote all of the chain anew. On SQLite and on PostgreSQL."""
import pytest
import sqlalchemy as sa

from scripts import verify_ledger
from store import tables
from store.chain import GENESIS, digest, head_record
from store.database import LedgerError
from store.ledger import Ledger
from store.verify import verify
from store.witness import Witness, noted
from tests.ledgers import BACKENDS, T0, entry, fresh, hand, market, said


@pytest.fixture(params=BACKENDS)
def url(request, tmp_path):
    return fresh(request.param, tmp_path)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "elsewhere" / "anchors.log"


def write(url: str, n: int) -> None:
    with Ledger(url, "risk") as ledger:
        for _ in range(n):
            i = ledger.head()[0]
            ledger.commit(T0 + i, [market(i)], [said(entry(i))], {("e", "t", 0): i})


def forge(url: str, first: int) -> None:
    """Everything from `first` on written anew so that it fits itself."""
    with hand(url) as connection:
        t, prev = tables.ledger, GENESIS
        for row in connection.execute(sa.select(t).order_by(t.c.seq)).all():
            ts_ms, blob = row.ts_ms, bytes(row.blob)
            if row.seq == first:
                blob = blob.replace(b"BTCUSDT", b"BTCUSDX", 1)
            hashed = digest(prev, row.writer, row.seq, ts_ms, row.kind, blob)
            connection.execute(t.update().where(t.c.seq == row.seq).values(prev_hash=prev, hash=hashed, blob=blob))
            prev = hashed
        connection.execute(tables.meta.update().values(value=head_record(row.seq, prev)))


def test_a_head_is_noted_once_it_has_stood_for_a_round(url, path):
    witness = Witness(url, path)
    assert witness.round() == ([], [])
    write(url, 3)
    assert witness.round() == ([], []) and not path.exists()
    write(url, 2)
    [line], wrong = witness.round()
    assert line.startswith("risk=3:") and not wrong
    assert [witness.round()[0][0][:7], witness.round()] == ["risk=5:", ([], [])]       # and once only
    with Ledger(url, "risk") as ledger:
        assert noted(path)[0]["risk"][-1] == (5, ledger.head()[1].hex())
    witness.close()
    again = Witness(url, path)
    assert (again.round(), again.round()) == (([], []), ([], []))
    again.close()
    assert [seq for seq, _ in noted(path)[0]["risk"]] == [3, 5]


@pytest.mark.parametrize("first", (2, 4))
def test_an_end_written_anew_is_seen_in_the_next_round_and_located_between_two_heads(url, path, first):
    witness = Witness(url, path)
    for _ in range(4):
        write(url, 2)
        witness.round()
    assert [seq for seq, _ in noted(path)[0]["risk"]] == [2, 4, 6]
    forge(url, first)
    assert list(verify(url)) == []                              # the chain by itself sees nothing
    noted_now, [wrong, *_] = witness.round()
    assert not noted_now and "risk/6 was" in wrong
    assert [seq for seq, _ in noted(path)[0]["risk"]] == [2, 4, 6]      # what contradicts is not noted
    witness.close()
    [fault] = verify(url, noted(path)[0])
    assert fault.seq == first and "written anew" in fault.what


def test_an_end_that_was_not_noted_yet_is_seen_by_the_witness_that_saw_it(url, path):
    witness = Witness(url, path)
    write(url, 4)
    witness.round()
    forge(url, 4)
    assert witness.round()[1]
    assert not path.exists()
    witness.close()


def test_a_line_cut_short_by_a_crash_spoils_no_other(url, path):
    path.parent.mkdir()
    path.write_text("2026-01-06T09:00:00+00:00 risk=1:abcd")
    write(url, 2)
    witness = Witness(url, path)
    witness.round(), witness.round()
    witness.close()
    anchors, odd = noted(path)
    assert [seq for seq, _ in anchors["risk"]] == [2] and odd == 1
    assert list(verify(url, anchors)) == []


def test_a_place_that_cannot_be_written_is_one_error_that_names_it(tmp_path):
    (tmp_path / "file").touch()
    url = fresh("sqlite", tmp_path)
    with pytest.raises(LedgerError, match=r"file/anchors\.log: Not a directory.*ledger\.anchors"):
        Witness(url, tmp_path / "file" / "anchors.log")


def test_the_command_asks_for_every_noted_head(url, path, capsys):
    witness = Witness(url, path)
    for _ in range(3):
        write(url, 1)
        witness.round()
    witness.close()
    assert verify_ledger.main(["--ledger", url, "--anchors", str(path)]) == 0
    assert f"2 anchors of {path}" in capsys.readouterr().out
    forge(url, 2)
    assert verify_ledger.main(["--ledger", url]) == 0
    assert verify_ledger.main(["--ledger", url, "--anchors", str(path)]) == 1
    assert "risk/2 ledger: written anew after 1" in capsys.readouterr().out
