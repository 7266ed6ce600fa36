"""KILL and RELEASE as people give them: in force when the command says so, whatever the broker and the desk are doing."""
import asyncio
import re

import msgspec
import pytest
from builders import SYMBOL, market, scored
from services import Services, at, until

from engine import reasons
from engine.facts import BUY, ENTRY, KILL, LIMIT, Approved, Control, Fill, Fills, Order, ScoredBatch
from scripts import kill, release_kill, write_off
from store import bus, controls
from store.ledger import Ledger, ledger_url
from streams.codec import encode
from streams.topics import CONTROL_EVENTS, EXEC_FILLS, EXEC_OUTCOMES, MD_FRAMES, SIG_APPROVED, SIG_DROPPED, SIG_SCORED, named

pytestmark = pytest.mark.broker


@pytest.fixture
def desk(on_kafka, monkeypatch):
    """Settings of a desk, also for the commands that are given here."""
    settings = at(on_kafka, symbols=[SYMBOL])
    settings = msgspec.structs.replace(settings, warmup=msgspec.structs.replace(settings.warmup, enabled=False))
    monkeypatch.setenv("SLUICE_DATA", str(settings.folder("data")))
    monkeypatch.setenv("SLUICE_INSTANCE", settings.instance)
    monkeypatch.setenv("SLUICE_WARMUP_SECONDS", "0")
    monkeypatch.setenv("KAFKA_BOOTSTRAP_SERVERS", settings.kafka.bootstrap)
    return settings


def given(capsys, command, *args: str) -> tuple[int, str, str]:
    """Status, stdout and stderr of a command."""
    try:
        status = command.main(list(args))
    except SystemExit as end:
        status = int(end.code or 0)
    said = capsys.readouterr()
    return status, said.out, said.err


async def ordered(capsys, command, *args: str) -> tuple[int, str, str]:
    return await asyncio.to_thread(given, capsys, command, *args)


def test_a_kill_is_confirmed_from_the_ledger_and_each_is_ended_by_its_own_name(desk, capsys):
    async def story() -> None:
        async with Services(desk) as services:
            await services.start("risk")
            status, out, _ = await ordered(capsys, kill, "--reason", "feed looks wrong", "--actor", "Ann Lee")
            assert status == 0 and "in the desk's ledger; halted: killed by Ann Lee: feed looks wrong" in out
            await until(lambda: not list(controls.folder(desk).glob("*.json")))      # it waits for nobody any more
            await ordered(capsys, kill, "--reason", "mine too", "--actor", "bob")
            status, out, _ = await ordered(capsys, release_kill)
            first, second = re.findall(r"^(kill-\d+-\S+)  killed by", out, re.M)
            assert (status, first.endswith("Ann_Lee"), second.endswith("bob")) == (0, True, True)

            status, _, err = await ordered(capsys, release_kill, "--reason", "back")
            assert status == 2 and "name what ends" in err
            status, _, err = await ordered(capsys, release_kill, "--reason", "back", "--kill", "kill-1-nobody")
            assert status == 2 and "knows no kill-1-nobody" in err
            state = services.workers["risk"].stage.host.desk.state
            assert list(state.kills) == [first, second]

            status, out, _ = await ordered(capsys, release_kill, "--reason", "back", "--kill", first)
            assert status == 0 and "halted: killed by bob: mine too" in out and list(state.kills) == [second]
            status, out, _ = await ordered(capsys, release_kill, "--reason", "drill over", "--all")
            assert status == 0 and "nothing halts it" in out and not state.kills
            assert all(one.ts_ms == 0 for one in await services.said(CONTROL_EVENTS))

    asyncio.run(story())


def test_a_kill_that_the_desk_was_too_dead_to_hear_is_said_to_be_so_and_halts_it_before_it_decides_also_at_an_empty_broker(desk, capsys):
    async def story() -> None:
        async with Services(desk) as services:
            status, _, err = await ordered(capsys, kill, "--reason", "stop", "--actor", "ann", "--wait", "0.3")
            assert status == 1 and "NOT yet taken by the desk" in err
            await asyncio.to_thread(emptied, desk)
            frame = market(50)
            now = int(frame.times[-1])
            await services.tell(MD_FRAMES, (SYMBOL, encode(frame)))
            await services.tell(SIG_SCORED, (SYMBOL, encode(ScoredBatch(SYMBOL, "t1", 0, 50, now, 0.0, [scored(now)]))))
            await services.start("risk")
            while not (dropped := [one for batch in await services.said(SIG_DROPPED) for one in batch.items]):
                await asyncio.sleep(0.05)
            assert [(one.reason, one.numbers) for one in dropped] == [(reasons.HALTED, "killed by ann: stop")]
            status, out, _ = await ordered(capsys, release_kill)
            assert "killed by ann: stop" in out

    asyncio.run(story())


def test_a_desk_that_finds_a_kill_beside_the_broker_still_publishes_what_the_life_before_did_not(desk):
    order = Order("E-1", ENTRY, "E-1", SYMBOL, BUY, 0.1, 30_000.0, LIMIT, True, False, "paper", 0, 1)

    async def story() -> None:
        async with Services(desk) as services:
            with Ledger(ledger_url(desk), "risk") as ledger:
                ledger.commit(1, [], [Approved(SYMBOL, "s1", 0, 0, 0.0, [order], [], "o")], {})
            controls.leave(desk, Control("k1", KILL, "ann", "stop", 0, 0))
            await services.start("risk")
            assert services.workers["risk"].stage.host.desk.state.kills
            async with asyncio.timeout(20):
                while not (said := [o for told in await services.said(SIG_APPROVED) for o in told.orders]):
                    await asyncio.sleep(0.05)
            assert said == [order]

    asyncio.run(story())


def emptied(settings) -> None:
    """The control topic as a broker has it that lost its log: made anew."""
    topic = named(CONTROL_EVENTS, settings)
    with bus.admin(settings.kafka) as client:
        client.delete_topics([topic])
    while True:
        try:
            bus.ensure_topics(settings, [topic])
            if not list(bus.read(settings, topic)):
                return
        except bus.BusDown:
            continue


def test_a_desk_at_work_takes_a_kill_that_the_broker_never_had(desk, capsys, monkeypatch):
    async def story() -> None:
        async with Services(desk) as services:
            await services.start("risk")
            monkeypatch.setenv("KAFKA_BOOTSTRAP_SERVERS", "127.0.0.1:1")
            status, out, err = await ordered(capsys, kill, "--reason", "stop", "--actor", "ann")
            assert status == 0 and "127.0.0.1:1" in err and "halted: killed by ann: stop" in out
            [name] = services.workers["risk"].stage.host.desk.state.kills
            status, _, err = await ordered(capsys, release_kill, "--reason", "over", "--kill", name)
            assert status == 1 and "127.0.0.1:1" in err, "a release is for every service: it goes by the broker or not at all"

    asyncio.run(story())


@pytest.mark.parametrize("name, content", [
    ("kill-1-ann.json", b'{"id": "kill-1-ann", "kind": '), ("kill-1-\u00a0b c.json", b"garbage{"), ("kill-1-utf.json", b'{"id":"k-\xff"}'),
    ("kill-1-x.json", b'{"type":"control","id":1}')])
def test_a_word_that_nobody_can_read_halts_the_desk_each_time_and_is_kept(desk, capsys, name, content):
    async def story() -> None:
        async with Services(desk) as services:
            folder = controls.folder(desk)
            folder.mkdir(parents=True)
            bad = folder / name
            bad.write_bytes(content)
            await services.start("risk")
            state = services.workers["risk"].stage.host.desk.state
            for times in (1, 2):                    # the same file again is another word
                [(kill_id, why)] = state.kills.items()
                assert why.startswith("killed by risk: ") and kill_id.startswith("kill-unreadable-kill-1-")
                assert [p.suffix for p in folder.iterdir()] == [".unreadable"] * times
                status, out, _ = await ordered(capsys, release_kill, "--all", "--reason", "looked")
                assert (status, state.kills) == (0, {}) and "nothing halts it" in out
                if times == 1:
                    bad.write_bytes(content)
                    await until(lambda: state.kills)

    asyncio.run(story())


def test_what_halts_the_desk_is_read_from_snapshot_and_tail_and_outlives_a_restart(desk, capsys):
    async def story() -> None:
        async with Services(desk) as services:
            await services.start("risk")
            await ordered(capsys, kill, "--reason", "one", "--actor", "ann")
            await services.stop("risk")            # leaves a snapshot
            await services.start("risk")
            await ordered(capsys, kill, "--reason", "two", "--actor", "bob")
            state = services.workers["risk"].stage.host.desk.state
            await until(lambda: len(state.kills) == 2)
            found = controls.in_force(ledger_url(desk))
            assert found.kills == state.kills and list(found.controls) == list(state.controls)

    asyncio.run(story())


@pytest.mark.parametrize("args", [["--reason", " "], ["--reason", "x", "--actor", ""], ["--reason", "x", "--wait", "soon"],
                                  ["--reason", "x", "--wait", "-1"], []])
def test_bad_words_are_refused_before_anything_is_said(desk, capsys, args):
    status, _, err = given(capsys, kill, *args)
    assert status == 2 and "python -m scripts.kill: error:" in err
    assert not controls.folder(desk).exists()


def test_a_kill_that_waits_for_the_desk_is_shown_beside_those_that_stand(desk, capsys):
    async def story() -> None:
        async with Services(desk) as services:
            await services.start("risk")
            await ordered(capsys, kill, "--reason", "one", "--actor", "ann")
            await services.stop("risk")
            await ordered(capsys, kill, "--reason", "two", "--actor", "bob", "--wait", "0")
            status, out, _ = await ordered(capsys, release_kill)
            assert status == 0 and re.search(r"-bob  killed by bob: two  \(NOT yet taken", out) and "killed by ann: one" in out

    asyncio.run(story())


@pytest.mark.parametrize("name", ["two words", "tab\there", "nbsp\u00a0", 'quote"s', "comma,"])
def test_a_kill_of_any_id_can_be_released_by_it(desk, capsys, name):
    async def story() -> None:
        async with Services(desk) as services:
            await services.start("risk")
            await services.tell(CONTROL_EVENTS, ("control", encode(Control(name, KILL, "ann", "odd", 0, 0))))
            state = services.workers["risk"].stage.host.desk.state
            await until(lambda: state.kills)
            status, out, _ = await ordered(capsys, release_kill, "--kill", name, "--reason", "looked")
            assert (status, state.kills) == (0, {}) and "nothing halts it" in out

    asyncio.run(story())


def test_a_file_that_cannot_be_taken_away_is_said_to_stay(tmp_path):
    (tmp_path / "file").write_text("no folder")
    assert not controls.taken(tmp_path / "file" / "kill.json") and controls.taken(tmp_path / "gone.json")


def test_an_entry_that_the_venue_does_not_hold_is_written_off_by_a_person_while_the_desk_is_halted(desk, capsys):
    async def story() -> None:
        async with Services(desk) as services:
            await services.start("risk")
            frame = market(50)
            now = int(frame.times[-1])
            await services.tell(MD_FRAMES, (SYMBOL, encode(frame)))
            held = services.workers["risk"].stage.host.desk
            await until(lambda: held.state.touches)
            await services.tell(SIG_SCORED, (SYMBOL, encode(ScoredBatch(SYMBOL, "t1", 0, 50, now, 0.0, [scored(now)]))))
            await until(lambda: held.portfolio.entries)
            entry = next(iter(held.portfolio.entries))
            fill = Fill("f1", entry, SYMBOL, "BUY", 60_000.0, held.portfolio.entries[entry].qty, 0.5, True, 1, now)
            await services.tell(EXEC_FILLS, (SYMBOL, encode(Fills(SYMBOL, "t1", 0.0, [fill]))))
            await until(lambda: held.portfolio.positions)
            wish = ["--entry", entry, "--price", "59000", "--reason", "closed by hand"]
            status, out, _ = await ordered(capsys, write_off)
            assert status == 0 and f"{entry}  {SYMBOL} +{fill.qty:g} at 60000, entering" in out
            status, _, err = await ordered(capsys, write_off, *wish)
            assert status == 2 and "not halted" in err
            await ordered(capsys, kill, "--reason", "position differs")
            status, _, err = await ordered(capsys, write_off, "--entry", "E-none", *wish[2:])
            assert status == 2 and "holds no E-none" in err
            for level in list(held.portfolio.entries):      # the one that is held and those that the venue never answered
                status, out, _ = await ordered(capsys, write_off, "--entry", level, *wish[2:])
                assert status == 0 and "in the desk's ledger" in out
            await until(lambda: not held.portfolio.entries)
            assert held.portfolio.positions[SYMBOL] == 0
            [outcome] = [one for told in await services.said(EXEC_OUTCOMES) for one in told.items]
            assert (outcome.cause, outcome.exit_price) == ("written_off", 59_000.0)
            assert {o.cause for told in await services.said(SIG_APPROVED) for o in told.orders} == {ENTRY}

    asyncio.run(story())
