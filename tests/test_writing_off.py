"""What a person wrote off leaves every book alike: the desk's, the ledger's, the projections', and the story that is told of it."""
import msgspec
import pytest
from builders import SYMBOL

from engine.facts import BUY, KILL, SELL, WRITE_OFF, WRITTEN_OFF, Approved, Control, Order, Outcome, Outcomes, WrittenOff
from scripts import why as command
from scripts import write_off
from store import tables
from store.audit import Auditor, rerun
from store.closed import Digests
from store.database import connect
from store.projections import Projector
from store.verify import verify
from store.why import UnknownOrder, why
from tests.desks import Written, levelled
from tests.ledgers import BACKENDS, fresh


@pytest.fixture(params=BACKENDS)
def desk(request, tmp_path):
    made = Written(fresh(request.param, tmp_path), levelled(real=True))
    made.market()
    yield made
    made.ledger.close()


def word(desk: Written, entry: str, price: float, name: str) -> list:
    return desk.control(Control(name, WRITE_OFF, "ann", "closed by hand", 0, desk.now, {"entry": entry, "price": repr(price)}))


def table(desk: Written, which) -> list[dict]:
    engine = connect(desk.url)
    with engine.connect() as connection:
        rows = [dict(row) for row in connection.execute(which.select()).mappings()]
    engine.dispose()
    return rows


def held(desk: Written) -> list[Order]:
    """Every level of an entry filled, its twins too; the entry orders, best level first and twins last."""
    orders = desk.enter()
    for order in orders:
        desk.filled(order)
    return orders


def test_what_is_written_off_is_flat_in_every_table_as_in_the_desk_and_the_journal_says_the_same_again(desk):
    orders = held(desk)
    desk.control(Control("k1", KILL, "ann", "position differs", 0, desk.now))
    said = [out for n, order in enumerate(orders) for out in word(desk, order.id, 59_000.0, f"w{n}")]
    off = [out for out in said if isinstance(out, WrittenOff)]
    assert [(o.entry, o.qty, o.price, o.side, o.control, o.actor, o.reason) for o in off] == [
        (order.id, order.qty, 59_000.0, SELL, f"w{n}", "ann", "closed by hand") for n, order in enumerate(orders)]
    assert {o.id[0] for o in off} == {"W", "V"} and not desk.desk.portfolio.entries

    def compared() -> None:
        books = desk.desk.portfolio.holdings[SYMBOL], desk.desk.state.twins.holdings[SYMBOL]
        rows = {row["symbol"]: row for row in table(desk, tables.positions)}
        for name, book in zip((SYMBOL, f"{SYMBOL} twin"), books):
            assert (rows[name]["qty"], rows[name]["realized_usd"]) == (0.0, pytest.approx(book.realized_usd)), name
        assert desk.desk.portfolio.realized_usd == pytest.approx(books[0].realized_usd) and books[0].realized_usd < 0
        sent = {row["id"]: row for row in table(desk, tables.orders)}
        fills = {row["id"]: row for row in table(desk, tables.fills)}
        for one in off:
            row = sent[one.id]
            assert (row["cause"], row["entry_id"], row["status"], row["filled"]) == (WRITTEN_OFF, one.plan, "filled", one.qty)
            assert "ann" in row["reason"] and "closed by hand" in row["reason"]
            assert (fills[one.control]["order_id"], fills[one.control]["price"]) == (one.id, 59_000.0)

    desk.projected()
    compared()
    projector = Projector(desk.url)
    projector.rebuild()
    projector.close()
    compared()
    digests, without = Digests(), Digests()
    again = rerun(desk.url, desk.settings, digests)
    assert again.wrong is None and again.answers > len(off)
    for entry in desk.ledger.entries():
        for fact in entry.consumed:
            without.step(fact, [o for record in entry.produced if not isinstance(record, Outcomes) for o in getattr(record, "items", [])])
    assert digests.decisions != without.decisions
    assert list(verify(desk.url)) == []
    written = [r for e in desk.ledger.entries() for r in e.produced]
    assert not any(o.id == one.id for r in written if isinstance(r, Approved) for o in r.orders for one in off)


def test_the_audit_counts_what_was_written_off_as_an_answer(desk):
    auditor = Auditor(desk.url, desk.settings)
    orders = held(desk)
    desk.control(Control("k1", KILL, "ann", "position differs", 0, desk.now))
    word(desk, orders[0].id, 59_000.0, "w1")
    while auditor.run_once()[0]:
        pass
    assert auditor.differs == 0 and auditor.at == desk.ledger.head()[0]


def test_the_cause_of_an_entry_of_which_one_level_was_written_off_says_so(desk):
    orders = [o for o in desk.enter() if o.route != "twin"]
    ways = [out for order in orders for out in desk.filled(order) if isinstance(out, Order)]
    desk.control(Control("k1", KILL, "ann", "position differs", 0, desk.now))
    word(desk, orders[0].id, 59_000.0, "w1")
    said = [out for way in ways[1:] for out in desk.filled(way)]
    [outcome] = [out for out in said if isinstance(out, Outcome)]
    assert (outcome.id, outcome.cause, outcome.qty) == (orders[0].id, WRITTEN_OFF, pytest.approx(sum(o.qty for o in orders)))


def test_why_tells_of_a_writing_off_by_its_own_id_and_in_the_story_of_its_entry(desk, capsys):
    orders = held(desk)
    desk.control(Control("k1", KILL, "ann", "position differs", 0, desk.now))
    [one, *_] = word(desk, orders[1].id, 59_000.0, "w1")
    with pytest.raises(UnknownOrder):
        why(desk.url, "W-nothing")
    for projected in (False, True):
        if projected:
            desk.projected()
        for asked in (one.id, orders[0].id):
            for scan in (False, True):
                story = why(desk.url, asked, scan)
                assert story.entry.id == orders[0].id and one in [s.fact for s in story.steps]
    assert why(desk.url, one.id).order.cause == WRITTEN_OFF
    for asked in (one.id, orders[0].id):
        assert command.main([asked, "--ledger", desk.url]) == 0
        out = capsys.readouterr().out
        assert "written off" in out and "by ann: closed by hand" in out and "59000" in out
    assert command.main([one.id, "--ledger", desk.url, "--json"]) == 0
    assert '"written_off"' in capsys.readouterr().out


def test_a_level_that_holds_nothing_is_written_off_without_a_fill(desk):
    orders = desk.enter()
    desk.control(Control("k1", KILL, "ann", "the venue does not know it", 0, desk.now))
    [one, *_] = word(desk, orders[0].id, 59_000.0, "w1")
    desk.projected()
    assert (one.qty, one.side, orders[0].side) == (0.0, SELL, BUY) and table(desk, tables.fills) == table(desk, tables.positions) == []
    assert [row["status"] for row in table(desk, tables.orders) if row["id"] == one.id] == ["filled"]


def test_records_without_a_writing_off_are_the_bytes_that_they_were(desk):
    assert b"written_off" not in msgspec.msgpack.encode(Outcomes(SYMBOL, "s1", []))


def test_the_command_lists_both_accounts_and_says_which(desk, monkeypatch, capsys):
    orders = held(desk)
    desk.host.snapshot(desk.ledger.head()[0])
    monkeypatch.setenv("SLUICE_LEDGER_URL", desk.url)
    assert write_off.main([]) == 0
    lines = {line.split("  ")[0]: line for line in capsys.readouterr().out.splitlines()}
    assert lines.keys() == {o.id for o in orders}
    assert all(("paper account" in line) == name.startswith("T-") for name, line in lines.items())


@pytest.mark.parametrize("account", ["E-", "T-"])
def test_an_entry_of_either_account_is_written_off_near_the_last_price_and_farther_off_only_on_demand(desk, account):
    name = next(o.id for o in held(desk) if o.id.startswith(account))

    def why_not(price: float, anyway: bool = False) -> str:
        return write_off.refusal(desk.desk, desk.settings, name, price, anyway)

    assert "not halted" in why_not(60_000.0)
    desk.control(Control("k1", KILL, "ann", "position differs", 0, desk.now))
    assert why_not(54_001.0) == why_not(65_999.0) == why_not(100.0, True) == ""
    for price in (53_999.0, 66_001.0, 100.0):
        assert f"{price:g}" in why_not(price) and "60000.05" in why_not(price) and "--anyway" in why_not(price)
    assert "holds no E-none" in write_off.refusal(desk.desk, desk.settings, "E-none", 60_000.0, False)
    desk.desk.state.touches.clear()
    assert "no price" in why_not(60_000.0) and why_not(60_000.0, True) == ""
