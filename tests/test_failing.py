"""A handler that raises ends its process, and the next life reads the record again; one that fails twice is booked and said."""
import json

import pytest

from benchmarks.crashes.points import RAISING, SAVE_EVERY_S, Case, Ground, base, run
from benchmarks.crashes.town import RAISE, Town
from benchmarks.crashes.verdict import Verdict
from benchmarks.crashes.virtual import Stalled
from engine import metrics as m


@pytest.fixture(scope="module")
def ground(tmp_path_factory) -> Ground:
    """Twenty seconds of market."""
    return Ground(tmp_path_factory.mktemp("failing"), seconds=20).make()


@pytest.fixture(scope="module")
def undisturbed(ground) -> tuple[Town, Verdict]:
    """The run in which nothing fails."""
    return base(ground)


def shown(town: Town, of: str, series: m.Series, **labels: str) -> float:
    """A series of a service as its endpoint answers it."""
    want = series(**labels)
    return next(float(line.rpartition(" ")[2]) for line in town.exporters[of].text().splitlines() if line.rpartition(" ")[0] == want)


def poisoned(ground: Ground, folder, service: str, record: str) -> Town:
    """A town in which this service's handler fails at this record, however often it comes."""
    def plan(n: int, who: str, kind: str):
        return (RAISE,) if who == service and kind == f"handler: {record}" else ()
    town = Town(folder, ground.settings(), 1, plan, save_every_s=SAVE_EVERY_S, patience_s=20)
    town.by_record = True
    return town


def test_handlers_that_raise_now_and_then_change_no_decision(ground, undisturbed):
    _, wanted = undisturbed
    result = run(ground, Case(RAISING, 3))
    assert result.raised > 2
    assert (result.faults, result.said) == ([], wanted.said)


def test_a_record_that_fails_twice_in_the_signal_engine_is_booked_counted_and_passed_over(ground, tmp_path):
    town = poisoned(ground, tmp_path, "signal_engine", "md.frames/3")
    town.run()
    assert sum("Failed" in end for end in town.ends) == 1, "it ended once, and passed the record over in its second life"
    assert shown(town, "signal_engine", m.STAGE_ERRORS_TOTAL, service="signal_engine") == 1
    [booked] = (town.folders["signal_engine"] / "errors" / "signal_engine.jsonl").read_text().splitlines()
    assert json.loads(booked)["where"] == "md.frames/0/3"
    lost = shown(town, "risk", m.LOST_TOTAL, what="scores")
    assert lost > 0, "the desk says that it never had the scores of these events"
    assert shown(town, "risk", m.LOST_TOTAL, what="events") == 0, "it took the events themselves"


def test_a_record_that_fails_twice_in_the_desk_halts_it(ground, tmp_path):
    town = poisoned(ground, tmp_path, "risk", "md.frames/5")
    with pytest.raises(Stalled):
        town.run()
    assert shown(town, "risk", m.STAGE_ERRORS_TOTAL, service="risk") == 1
    assert shown(town, "risk", m.HALTED) == 1
