"""What the console shows of the desk is the desk: a mirror of its ledger, whenever one looks."""
import msgspec
import pytest
import sqlalchemy as sa
from desks import SYMBOL, Written, levelled
from ledgers import BACKENDS, fresh, hand

from engine.facts import KILL, Control
from store import tables
from store.database import LedgerError
from store.mirror import Mirror


def reader(url: str) -> sa.Engine:
    """A door that can only read."""
    if not url.startswith("sqlite"):
        return sa.create_engine(url, execution_options={"postgresql_readonly": True})
    return sa.create_engine(url.replace("sqlite:///", "sqlite:///file:") + "?mode=ro&uri=true", poolclass=sa.NullPool)


@pytest.fixture(autouse=True)
def patient(monkeypatch):
    """A machine with other work on it is no fault of what is tested."""
    monkeypatch.setattr("store.mirror.PATIENCE_S", 60.0)


def trade(w: Written, rounds: int = 3) -> None:
    for i in range(rounds):
        w.market(60_000 + i, 60_000.1 + i)
        w.round_trip(entry=60_000.0 + i) if i % 2 else w.enter(entry=60_000.0 + i)
        w.signal(p=0.1)


@pytest.fixture
def written(tmp_path):
    made = Written(f"sqlite:///{tmp_path}/ledger.db", levelled(real=True))
    yield made
    made.ledger.close()


@pytest.fixture(params=BACKENDS)
def anywhere(request, tmp_path):
    made = Written(fresh(request.param, tmp_path), levelled(real=True))
    yield made
    made.ledger.close()


def same(seen, w: Written) -> bool:
    return msgspec.msgpack.encode(seen.state) == w.desk.snapshot()


@pytest.mark.parametrize("snapshot", [False, True])
def test_a_look_is_the_desk_byte_for_byte_and_the_next_look_follows_it(anywhere, snapshot):
    written = anywhere
    trade(written)
    if snapshot:
        written.host.snapshot(written.ledger.head()[0])
        trade(written, 2)
    mirror = Mirror(reader(written.url), written.settings)
    first = mirror.look(0)
    assert same(first, written) and (first.at, first.behind, first.differs) == (written.ledger.head()[0], 0, 0)
    assert first.state.portfolio.entries and first.state.twins.entries and first.trading == "ACTIVE"
    written.control(Control("kill-1-ann", KILL, "ann", "feed", 0, written.now))
    trade(written, 1)
    after = mirror.look(0)
    assert same(after, written) and after.at > first.at and after.differs == 0
    assert (after.trading, after.state.kills) == ("REDUCING", {"kill-1-ann": "killed by ann: feed"})
    assert after.touches[SYMBOL][-1].bid == written.desk.state.touches[SYMBOL].bid * 0.1


def test_a_copy_is_handed_out_that_a_later_look_does_not_change(written):
    trade(written, 1)
    mirror = Mirror(reader(written.url), written.settings)
    first = mirror.look(0)
    before = msgspec.msgpack.encode(first.state)
    trade(written, 2)
    mirror.look(0)
    assert msgspec.msgpack.encode(first.state) == before


def test_what_follows_a_far_snapshot_is_not_run_again(written, monkeypatch):
    monkeypatch.setattr("store.mirror.FAR", 5)
    mirror = Mirror(reader(written.url), written.settings)
    trade(written, 1)
    mirror.look(0)
    trade(written, 3)
    written.host.snapshot(written.ledger.head()[0])
    run = []
    monkeypatch.setattr(mirror, "_page", lambda: run.append(1) or False)
    seen = mirror.look(0)
    assert same(seen, written) and not run


def test_no_look_takes_longer_than_its_patience_and_says_how_far_it_is_behind(written, monkeypatch):
    monkeypatch.setattr("store.mirror.PATIENCE_S", -1.0)
    trade(written)
    seen = Mirror(reader(written.url), written.settings).look(0)
    assert (seen.at, seen.behind) == (0, written.ledger.head()[0])


def test_other_settings_than_the_desks_are_noticed(written):
    trade(written)
    mirror = Mirror(reader(written.url), levelled(real=True, POLICY_MIN_CONFIDENCE="0.95"))
    seen = mirror.look(0)
    assert seen.differs > 0 and not same(seen, written)
    written.host.snapshot(written.ledger.head()[0])
    assert same(mirror.look(0), written) and mirror.look(0).differs > 0, "from the next snapshot on it is the desk again, and says what was"


def test_another_ledger_at_the_same_place_is_read_from_its_beginning(written, tmp_path):
    mirror = Mirror(reader(written.url), written.settings)
    trade(written, 3)
    mirror.look(0)
    written.ledger.close()
    for file in tmp_path.iterdir():
        file.unlink()
    written.__init__(written.url, written.settings)
    trade(written, 1)
    assert same(mirror.look(0), written)


def test_an_edited_row_is_located_and_not_shown(written):
    trade(written, 1)
    with hand(written.url) as connection:
        connection.execute(tables.ledger.update().where(tables.ledger.c.seq == 2).values(ts_ms=1))
    with pytest.raises(LedgerError, match="risk/2: the row is not what was written"):
        Mirror(reader(written.url), written.settings).look(0)


def test_a_mirror_writes_nothing(written):
    trade(written, 1)
    before = written.ledger.head()
    Mirror(reader(written.url), written.settings).look(0)
    assert written.ledger.head() == before
