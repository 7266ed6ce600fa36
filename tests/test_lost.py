"""What was on a log that is gone: said again by who still has it, passed over by who knows it, counted where nobody has it."""
import msgspec
import pytest
from builders import market, reframed, settings
from test_host import EPOCHS, Counted

from benchmarks.crashes.points import EMPTY, Case, Ground, base, run
from engine.facts import ACCEPTED, BUY, Fill, Fills, Market, Report, Reports, ScoredBatch
from engine.telemetry import Telemetry
from store.ledger import Ledger
from streams.host import DeskHost
from streams.seek import Start, start_of

PACED, UNPACED = settings(SPEED="max"), settings(SPEED="1")
FRAMES = reframed(market(400), 50)


class Desk:
    """A host with its ledger and its counters; records are given by hand."""

    def __init__(self, folder, lockstep: bool):
        self.counted, self.lockstep, self.url, self.offset = Counted(), lockstep, f"sqlite:///{folder}/ledger.db", 0
        self.start()

    def start(self) -> None:
        self.ledger = Ledger(self.url, "risk")
        self.host = DeskHost(PACED if self.lockstep else UNPACED, self.ledger, Telemetry(self.counted), self.lockstep)

    def again(self) -> None:
        self.ledger.close()
        self.start()

    def take(self, topic: str, record) -> list:
        self.offset += 1
        consumed, outs = self.host.take(record, (topic, 0, self.offset))
        if consumed:
            self.host.commit(consumed, self.host.produce(consumed, outs, 0.0), EPOCHS)
        return consumed

    def lost(self) -> float:
        return self.counted.get("lost_on_the_way_total", 0)


@pytest.fixture
def desk(tmp_path):
    """Builds desks whose ledgers are closed at the end."""
    made = []

    def build(lockstep: bool) -> Desk:
        made.append(Desk(tmp_path, lockstep))
        return made[-1]
    yield build
    for one in made:
        one.ledger.close()


def batch(frame) -> ScoredBatch:
    """The scorer found nothing to score: the desk has no reason to wait for the venue."""
    return ScoredBatch(frame.symbol, frame.session, frame.seq, frame.n, int(frame.times[-1]), 0.0, [])


def report(seq: int, order_id: str = "E-x") -> Report:
    return Report(order_id, "BTCUSDT", ACCEPTED, "", 0.0, seq, 1_700_000_000_000 + seq)


def fill(seq: int) -> Fill:
    return Fill(f"E-x:{seq}", "E-x", "BTCUSDT", BUY, 60_000.0, 0.001, 0.0, True, seq, 1_700_000_000_000 + seq)


def reports(*items, journal: str = "one") -> Reports:
    return Reports("BTCUSDT", "t1", 0, 0, 0.0, list(items), {}, journal)


def events(consumed: list) -> list[tuple[int, int]]:
    return [(fact.seq, fact.seq + fact.n) for fact in consumed if isinstance(fact, Market)]


def test_unpaced_a_venue_number_told_again_is_not_consumed_again_also_in_another_life(desk):
    one = desk(False)
    assert len(one.take("exec.fills", Fills("BTCUSDT", "t1", 0.0, [fill(3)], "one"))) == 1
    assert [f.seq for f in one.take("exec.reports", reports(report(1), report(2)))] == [1, 2]
    one.again()
    assert one.take("exec.fills", Fills("BTCUSDT", "t1", 0.0, [fill(3)], "one")) == []
    assert [f.seq for f in one.take("exec.reports", reports(report(2), report(4)))] == [4]
    assert one.host.heard["BTCUSDT"] == 4


def test_unpaced_a_report_that_comes_behind_a_later_fill_is_consumed(desk):
    one = desk(False)
    one.take("exec.fills", Fills("BTCUSDT", "t1", 0.0, [fill(2)], "one"))
    assert one.host.heard.get("BTCUSDT", 0) == 0, "the desk does not say that it knows what it does not"
    assert [f.seq for f in one.take("exec.reports", reports(report(1)))] == [1]
    assert one.host.heard["BTCUSDT"] == 2


@pytest.mark.parametrize("lockstep", [True, False])
def test_a_venue_with_another_memory_counts_anew_and_is_heard(desk, lockstep):
    one = desk(lockstep)
    for record in (reports(report(1), report(2), report(3)), reports(report(1, "E-y"), journal="two")):
        one.take("exec.reports", msgspec.structs.replace(record, upto_seq=record.items[-1].seq))
    if lockstep:
        [waiting] = one.host.roads["BTCUSDT"].lane.inbox
        assert waiting.order_id == "E-y"
    else:
        assert one.host.heard["BTCUSDT"] == 1


@pytest.mark.parametrize("lockstep", [True, False])
def test_events_that_never_come_are_counted_and_the_desk_goes_on(desk, lockstep):
    one = desk(lockstep)
    one.host.markets["t1"] = {"BTCUSDT": 0}
    got: list[tuple[int, int]] = []
    for frame in (*FRAMES[:2], *FRAMES[4:6]):
        for topic, record in (("md.frames", frame), ("sig.scored", batch(frame))):
            got += events(one.take(topic, record))
    assert one.lost() == 100
    assert got[-1][1] == 300


def test_events_that_were_refused_on_the_way_in_are_not_lost(desk):
    one = desk(False)
    for frame in (FRAMES[0], msgspec.structs.replace(FRAMES[2], skipped=50)):
        one.take("md.frames", frame)
    assert one.lost() == 0


def test_a_frame_whose_scores_are_on_no_log_any_more_is_thought_about_without_them(desk):
    one = desk(True)
    one.host.markets["t1"] = {"BTCUSDT": 0}
    got: list[tuple[int, int]] = []
    for frame in FRAMES[:4]:
        got += events(one.take("md.frames", frame))
        if frame is not FRAMES[1]:
            got += events(one.take("sig.scored", batch(frame)))
    assert one.lost() == FRAMES[1].n
    assert [b for _, b in got][-1] == 200
    assert all(first == before for (first, _), (_, before) in zip(got[1:], got)), "no event is passed over"


def test_where_a_reader_goes_on_depends_on_the_log_that_its_mark_is_of():
    marks = {("log1", "t", 0): 4}
    assert start_of(marks, "log1", "t", 0, 0, 9) == Start(5, 0, False)
    assert start_of(marks, "log1", "t", 0, 7, 9) == Start(7, 2, False)
    assert start_of(marks, "log1", "t", 0, 0, 3) == Start(3, 2, False)
    assert start_of(marks, "log2", "t", 0, 0, 9) == Start(0, 0, True)
    assert start_of({}, "log2", "t", 0, 2, 9) == Start(2, 0, False)


def test_a_broker_that_comes_back_empty_loses_no_order_no_fill_and_no_event(tmp_path):
    ground = Ground(tmp_path, seconds=20).make()
    undisturbed, _ = base(ground)
    for i, share in enumerate((0.3, 0.7)):
        result = run(ground, Case(EMPTY, i, int(undisturbed.edges * share)))
        assert [who for _, who, _ in result.kills] == ["broker, empty"]
        assert result.faults == []
        assert result.said != {}
