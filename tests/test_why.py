"""Why was this order sent? The whole chain from the ledger, by command and as data. On SQLite and on PostgreSQL."""
import json
import re

import msgspec
import pytest

from engine import reasons
from engine.facts import ACCEPTED, CANCELLED, DONE, Approved, Cancel, Control, Fill, Order, Outcome, Outcomes, Report
from engine.scoring.features import FEATURES
from scripts import verify_ledger
from scripts import why as command
from store import tables
from store.database import LedgerError
from store.ledger import Ledger
from store.projections import Projector
from store.why import UnknownOrder, features_of, why
from tests.desks import Written, levelled
from tests.ledgers import BACKENDS, T0, dropped, entry, fill, fresh, hand, history, market, outcome, refusal, report, said, way_out

BOUGHT, OTHER, TAKEN_BACK, WAITING = entry(1), entry(50), entry(60), entry(70)
EXIT = way_out(BOUGHT, 1, BOUGHT.ts_ms + 4000)
CANCEL = Cancel(TAKEN_BACK.id, "BTCUSDT", T0 + 700, reasons.REQUESTED)


@pytest.fixture(params=BACKENDS)
def url(request, tmp_path):
    """A closed trade in nine transactions among others, an entry that was taken back, one that waits, and a refusal."""
    url = fresh(request.param, tmp_path)
    with Ledger(url, "risk") as ledger:
        for consumed, produced in (
                ([market(1)], [said(BOUGHT)]), ([market(2)], []), ([report(BOUGHT, ACCEPTED, 1)], [said(OTHER)]),
                ([fill(BOUGHT, 1, 0.005, 2), fill(OTHER, 1, 0.01, 3)], []),
                ([fill(BOUGHT, 2, 0.005, 4), fill(BOUGHT, 1, 0.005, 2)], [said(EXIT)]),
                ([report(EXIT, ACCEPTED, 5)], [dropped(refusal(9))]), ([fill(EXIT, 1, 0.01, 6), report(EXIT, DONE, 6, 0.01)], []),
                ([market(3)], [Outcomes("BTCUSDT", "s1", [outcome(BOUGHT, 0.42), outcome(OTHER, -1)])]),
                ([report(BOUGHT, ACCEPTED, 99)], [said(TAKEN_BACK)]),
                ([Control("c", "KILL", "op", "drill", 1, T0)], [said(WAITING), msgspec.structs.replace(said(), cancels=[CANCEL])]),
                ([report(TAKEN_BACK, CANCELLED, 8)], []), ([report(TAKEN_BACK, ACCEPTED, 7)], [])):
            ledger.commit(T0, consumed, produced, {})
    return url


def kinds(story) -> list[str]:
    return [type(s.fact).__name__ + getattr(s.fact, "status", "") for s in story.steps]


def test_the_story_of_an_entry_is_told_from_the_candidate_to_the_outcome(url):
    story = why(url, BOUGHT.id)
    assert story.order == story.entry == BOUGHT
    assert story.decision.scored.p == 0.82 and story.decision.scored.signal.id in BOUGHT.id
    assert kinds(story) == ["Order", "Reportaccepted", "Fill", "Fill", "Order", "Reportaccepted", "Fill", "Reportfilled", "Outcome"]
    assert [s.at.seq for s in story.steps] == [1, 3, 4, 5, 5, 6, 7, 7, 8]
    assert story.outcome.net_usd == 0.42
    assert {s.fact.symbol for s in story.steps} == {"BTCUSDT"} and all(len(s.at.hash) == 64 for s in story.steps)


def test_the_story_of_an_exit_is_that_of_its_entry(url):
    story = why(url, EXIT.id)
    assert (story.order, story.entry, story.outcome.id) == (EXIT, BOUGHT, BOUGHT.id)
    assert kinds(story) == kinds(why(url, BOUGHT.id))


def test_an_entry_that_was_taken_back_ends_with_its_cancel(url):
    story = why(url, TAKEN_BACK.id)
    assert kinds(story) == ["Order", "Cancel", "Reportcancelled"] and story.outcome is None


def test_an_order_that_waits_has_no_end_yet(url):
    assert kinds(why(url, WAITING.id)) == ["Order"]


@pytest.mark.parametrize("seed", range(2))
def test_the_story_is_the_same_however_far_the_projections_are(seed, tmp_path):
    url = f"sqlite:///{tmp_path}/ledger.db"
    days = history(seed, trades=5)
    with Ledger(url, "risk") as ledger:
        for at, consumed, produced, marks in days:
            ledger.commit(at, consumed, produced, marks)
    sent = [o.id for _, _, produced, _ in days for p in produced if isinstance(p, Approved) for o in p.orders]
    told = {order_id: why(url, order_id, scan=True) for order_id in sent}
    assert {kind for story in told.values() for kind in kinds(story)} > {"Order", "Fill", "Outcome"}
    projector = Projector(url)
    while True:
        for order_id, story in told.items():
            assert why(url, order_id) == story
        if not projector.run_once(11):
            break
    projector.close()


def test_a_projection_that_lies_tells_less_and_a_scan_tells_all(url):
    projector = Projector(url)
    projector.run_once()
    projector.close()
    whole = why(url, BOUGHT.id)
    with hand(url) as connection:
        connection.execute(tables.places.delete().where(tables.places.c.seq == 3))
    assert len(why(url, BOUGHT.id).steps) < len(whole.steps)
    assert why(url, BOUGHT.id, scan=True) == whole


@pytest.mark.parametrize("alias", [BOUGHT.id[2:], BOUGHT.decision.id])
def test_the_candidates_and_the_decisions_id_lead_there_too(url, alias):
    assert why(url, alias).entry == BOUGHT


def test_an_unknown_id_names_the_nearest(url):
    with pytest.raises(UnknownOrder) as caught:
        why(url, BOUGHT.id.replace("-B", "-S"))
    assert caught.value.nearest[0] == BOUGHT.id


def test_features_have_their_names_where_the_list_is_the_one_they_were_made_with():
    signal = BOUGHT.decision.scored.signal
    assert list(features_of(signal)) == list(FEATURES)
    other = msgspec.structs.replace(signal, schema_hash="another list", features=signal.features[:8])
    assert features_of(other) == {"feature 0": 1.0, "feature 1": 1.0}


def test_a_story_is_not_told_from_an_edited_row(url):
    with hand(url) as connection:
        connection.execute(tables.ledger.update().where(tables.ledger.c.seq == 4).values(ts_ms=1))
    with pytest.raises(LedgerError, match="risk/4: the row is not what was written"):
        why(url, BOUGHT.id)


# the commands

def test_the_command_prints_the_chain(url, capsys):
    assert command.main([EXIT.id, "--ledger", url]) == 0
    out = capsys.readouterr().out
    for words in (EXIT.id, BOUGHT.id, "p 0.8200 by 2026-01-06-a1", reasons.ALLOW_NEW_ENTRY, "bound by kelly", "microprice_velocity",
                  "order sent", "venue: accepted", "fill", "net +0.4200 USD", "risk/8", why(url, BOUGHT.id).steps[-1].at.hash[:12]):
        assert words in out, words


def test_the_command_speaks_json(url, capsys):
    assert command.main([BOUGHT.id, "--ledger", url, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["outcome"]["net_usd"] == 0.42 and told["features"][FEATURES[0]] == 1.0
    assert [s["at"]["seq"] for s in told["steps"]] == [1, 3, 4, 5, 5, 6, 7, 7, 8]


def test_the_command_says_what_it_does_not_know_and_what_is_near(url, capsys):
    assert command.main(["E-nothing", "--ledger", url]) == 1
    error = capsys.readouterr().err
    assert "E-nothing: no such order" in error and "near it are E-BTCUSDT" in error


def test_a_refused_candidate_is_answered_with_its_reason(url, capsys):
    projector = Projector(url)
    projector.run_once()
    projector.close()
    assert command.main([refusal(9).scored.signal.id, "--ledger", url]) == 0
    assert f"no order was sent: {reasons.BLOCK_COOLDOWN} (BTCUSDT: 120s < 300s)" in capsys.readouterr().out


def test_the_verifying_command_says_whole_with_heads_that_serve_as_anchors(url, capsys):
    assert verify_ledger.main(["--ledger", url]) == 0
    out = capsys.readouterr().out
    assert "whole; 12 records" in out and "records/s" in out
    head = next(line.removeprefix("head ") for line in out.splitlines() if line.startswith("head "))
    assert head.startswith("risk=12:") and verify_ledger.main(["--ledger", url, "--anchor", head]) == 0
    with hand(url) as connection:
        connection.execute(tables.ledger.update().where(tables.ledger.c.seq == 4).values(blob=b"?"))
    capsys.readouterr()
    assert verify_ledger.main(["--ledger", url]) == 1
    assert "risk/4 ledger: edited or swapped" in capsys.readouterr().out


@pytest.mark.parametrize("main", [verify_ledger.main, lambda argv: command.main(["E-x", *argv])])
def test_a_ledger_that_is_not_there_is_said_in_one_line(main, tmp_path, capsys):
    assert main(["--ledger", f"sqlite:///{tmp_path}/none.db"]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_steps_are_orders_cancels_reports_fills_and_outcomes(url):
    seen = {type(s.fact) for i in (BOUGHT, TAKEN_BACK) for s in why(url, i.id).steps}
    assert seen == {Order, Cancel, Report, Fill, Outcome}


# a ladder, its size, its arm and its reward; by a real desk

@pytest.fixture
def desk(tmp_path):
    made = Written(f"sqlite:///{tmp_path}/desk.db", levelled(real=True))
    made.market()
    yield made
    made.ledger.close()


def real_and_twin(orders: list[Order]) -> tuple[list[Order], list[Order]]:
    return [o for o in orders if o.route != "twin"], [o for o in orders if o.route == "twin"]


def test_a_story_goes_on_where_the_first_level_was_taken_back_and_another_was_filled(desk):
    (first, second, *others), _ = real_and_twin(desk.enter())
    for order in (first, *others):
        desk.seq += 1
        desk.tell(Report(order.id, order.symbol, CANCELLED, reasons.REQUESTED, 0.0, desk.seq, desk.now))
    [way] = [o for o in desk.filled(second) if isinstance(o, Order)]
    desk.filled(way)
    story = why(desk.url, first.id)
    assert {s.fact.order_id for s in story.steps if isinstance(s.fact, Fill)} == {second.id, way.id}
    assert story.outcome.qty == second.qty and story.reward.order_id == first.id and story.reward.arm == story.decision.choice.arm


def test_a_ladder_of_which_nothing_was_filled_ends_with_its_last_level(desk):
    mine, _ = real_and_twin(desk.enter())
    for order in mine:
        desk.seq += 1
        desk.tell(Report(order.id, order.symbol, CANCELLED, reasons.REQUESTED, 0.0, desk.seq, desk.now))
    story = why(desk.url, mine[0].id)
    assert story.outcome is None and not story.reward.filled
    assert [s.fact.order_id for s in story.steps if isinstance(s.fact, Report) and s.fact.status == CANCELLED] == [o.id for o in mine]


def test_a_twin_tells_its_own_story_with_the_decision_of_the_entry_that_it_doubles(desk, capsys):
    (real, *_), (twin, *_) = real_and_twin(desk.enter())
    desk.filled(twin)
    story = why(desk.url, twin.id)
    assert (story.entry, story.real, story.decision, story.reward) == (twin, real, real.decision, None)
    assert why(desk.url, real.id).real is None
    assert command.main([twin.id, "--ledger", desk.url]) == 0
    assert f"the twin of {real.id}: in no sum of the desk" in capsys.readouterr().out


def test_the_command_shows_caps_factors_arm_levels_guards_and_reward(desk, capsys):
    outcomes = desk.round_trip()
    story = why(desk.url, outcomes[0].id)
    d = story.decision
    assert command.main([outcomes[0].id, "--ledger", desk.url]) == 0
    out = capsys.readouterr().out
    for cap in d.sized.caps:
        assert re.search(rf"cap {cap.name} +{f'{cap.usd:.2f}' if cap.usd < float('inf') else 'does not bind'}", out), cap
    assert re.search(rf"cap {d.cap} .*<- binds", out) and f"multiplier {d.sized.multiplier:.4f}" in out
    assert f"{d.choice.arm}, drawn with probability {d.choice.propensity:.4f}" in out and "near liquidation" in out
    for n, (_, _, _, p) in enumerate(d.rungs):
        assert re.search(rf"{n + 1} +{re.escape(story.entry.id)}{f'.{n}' if n else ''} .* {p:.4f} .*filled", out), n
    assert f"{story.reward.reward:+.4f} to {d.choice.arm}" in out
    assert command.main([outcomes[0].id, "--ledger", desk.url, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["reward"]["reward"] == story.reward.reward and told["entry"]["decision"]["sized"]["cap"] == d.cap


def test_a_refused_candidate_is_explained_with_the_settings_that_move_its_code(desk, capsys):
    [no] = desk.signal(p=0.1)
    desk.projected()
    assert command.main([no.scored.signal.id, "--ledger", desk.url]) == 0
    out = capsys.readouterr().out
    assert no.numbers in out and "the probability is below the minimum" in out and "policy.min_confidence" in out
    assert command.main([no.id, "--ledger", desk.url, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["settings"] == ["policy.min_confidence"]
