"""The desk in one process on virtual time: whoever dies at whatever edge, the decisions are those of the undisturbed run."""
import random
from collections.abc import Iterator

import pytest

from benchmarks.crashes.points import SEQUENCE, SINGLE, TOGETHER, Case, Ground, base, run, spread
from benchmarks.crashes.town import Town
from benchmarks.crashes.verdict import Verdict, told
from store.closed import Closed, frames_of
from store.scorer import Scorer

# a ledger that dies as it starts has its folder taken from under its thread
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")


@pytest.fixture(scope="module")
def ground(tmp_path_factory) -> Ground:
    """Twenty seconds of market."""
    return Ground(tmp_path_factory.mktemp("crashes"), seconds=20).make()


@pytest.fixture(scope="module")
def undisturbed(ground) -> tuple[Town, Verdict]:
    """The run in which nobody dies."""
    return base(ground)


def test_the_town_decides_as_the_closed_loop_in_one_process(ground, undisturbed):
    settings = ground.settings()
    scorer = Scorer.load(settings.folder("models"), "active")
    assert scorer is not None
    wanted: dict[str, list[bytes]] = {}
    for _, fact, outs in Closed(settings, scorer, frames_of(ground.folder / "recording", ["BTCUSDT"], 100, "s1"), "s1", finish=False):
        for key, blob in told(fact, outs):
            wanted.setdefault(key, []).append(blob)
    _, verdict = undisturbed
    assert verdict.orders > 2, "a run without orders shows nothing"
    assert (verdict.faults, verdict.said) == ([], wanted)


def every_kind(town: Town) -> Iterator[Case]:
    """A death at one edge of each kind that moves money or marks."""
    kinds = {kind: n for n, kind in enumerate(town.trace, 1)}
    for i, ((who, kind), _) in enumerate(sorted(kinds.items())):
        if (who, kind.split(":")[0]) in (("risk", "sql"), ("exchange", "sql"), ("executor", "publish"), ("executor", "file")):
            places = [n for n, one in enumerate(town.trace, 1) if one == (who, kind)]
            yield Case(SINGLE, i, places[len(places) * 2 // 3])


def test_a_death_at_any_kind_of_edge_of_ledger_journal_or_executor_changes_no_decision(ground, undisturbed):
    town, wanted = undisturbed
    cases = list(every_kind(town))
    assert len(cases) > 20
    for case in cases[::6]:
        result = run(ground, case)
        assert (result.faults, result.said) == ([], wanted.said), result.kills


@pytest.mark.parametrize("seed", range(3))
def test_several_deaths_at_once_change_no_decision(ground, undisturbed, seed):
    town, wanted = undisturbed
    result = run(ground, Case(TOGETHER, seed, random.Random(seed).randrange(1, len(town.trace))))
    assert len(result.kills) > 1
    assert (result.faults, result.said) == ([], wanted.said), result.kills


def test_a_venue_and_an_executor_that_die_together_go_on_with_what_the_desk_has_promised(ground, undisturbed):
    town, wanted = undisturbed
    with_every_record = next(seed for seed in range(9) if Case(TOGETHER, seed).saves_s == 0)
    for share in (0.3, 0.45, 0.6):
        result = run(ground, Case(TOGETHER, with_every_record, int(len(town.trace) * share), who=("exchange", "executor")))
        assert (result.faults, result.said) == ([], wanted.said), result.kills


@pytest.mark.parametrize("seed", range(1))
def test_sequences_of_deaths_with_records_that_come_twice_change_no_decision(ground, undisturbed, seed):
    town, wanted = undisturbed
    result = run(ground, Case(SEQUENCE, seed, edges=len(town.trace)))
    assert (result.faults, result.said) == ([], wanted.said), result.kills


def test_a_seed_gives_the_same_run_again(ground, undisturbed):
    town, _ = undisturbed
    case = Case(TOGETHER, 5, len(town.trace) // 2)
    first, second = run(ground, case), run(ground, case)
    assert (first.kills, first.said) == (second.kills, second.said)


def test_every_kind_of_edge_is_tried_before_any_is_tried_again():
    trace = [("risk", "a")] * 50 + [("risk", "b")] + [("executor", "a")] * 3
    chosen = spread(trace, 4, random.Random(1))
    assert {trace[n - 1] for n in chosen} == set(trace)
    assert len(set(spread(trace, 40, random.Random(1)))) == 40
