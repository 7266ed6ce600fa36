"""The Desk's host behind a real ledger: records in any interleaving give the decisions of the closed loop, and a restart goes on."""
from collections import deque

import msgspec
import numpy as np
import pytest
from builders import EveryNth, closed_loop, market, reframed, scores, settings

from engine.execution.floor import Floor
from engine.execution.matching import Matching
from engine.facts import Approved, Cancel, Dropped, Fill, Fills, Frame, Order, Outcome, Report, Reports, ScoredBatch
from engine.telemetry import Telemetry
from store.copying import copy_ledger
from store.ledger import Ledger
from streams.codec import decode, encode
from streams.host import DeskHost

S = settings(POLICY_COOLDOWN_SYMBOL="2", POLICY_COOLDOWN_GLOBAL="1", SPEED="max")
SYMBOL = "BTCUSDT"
EPOCHS = dict.fromkeys(("md.frames", "sig.scored", "exec.reports", "exec.fills"), "log1")


class Counted(dict):
    """A meter that counts."""

    def inc(self, series, by=1, **labels):
        self[str(series)] = self.get(str(series), 0) + by

    def set(self, series, value, **labels):
        self[str(series)] = value

    observe = set


def told(outs) -> list[bytes]:
    return [msgspec.msgpack.encode(o) for o in outs if isinstance(o, (Order, Cancel, Dropped, Outcome))]


def acts(said: list[bytes]) -> list[bytes]:
    """Without refusals, which have an order within their symbol only."""
    return [b for b in said if msgspec.msgpack.decode(b)["type"] != "dropped"]


def refusals(said: list[bytes], symbol: str) -> list[bytes]:
    """One symbol's."""
    return [b for b in said if msgspec.msgpack.decode(b)["type"] == "dropped" and symbol.encode() in b]


class Street:
    """The host with a floor on the other side; logs are lists, and which one is read next is up to `rng`."""

    def __init__(self, url: str, frames: list[Frame], seed: int):
        self.url, self.rng = url, np.random.default_rng(seed)
        symbols = sorted({f.symbol for f in frames})
        signals = {symbol: EveryNth(symbol) for symbol in symbols}
        batches = [ScoredBatch(f.symbol, f.session, f.seq, f.n, int(f.times[-1]), 0.0, scores(signals[f.symbol].on(f))) for f in frames]
        self.logs: dict[str, list[bytes]] = {"md.frames": [encode(f) for f in frames], "sig.scored": [encode(b) for b in batches],
                                             "exec.reports": [], "exec.fills": []}
        self.floors = {symbol: Floor(Matching(symbol, S.instrument(symbol), S.matching, "t1"), "t1", S.matching.latency_ms, True)
                       for symbol in symbols}
        self.over = {symbol: max(int(f.times[-1]) for f in frames if f.symbol == symbol) for symbol in symbols}
        for frame in frames:
            self.floors[frame.symbol].publish(frame)
        self.said: list[bytes] = []
        self.start()

    def start(self) -> None:
        """A new life of the host, from the ledger."""
        self.ledger = Ledger(self.url, "risk")
        self.host = DeskHost(S, self.ledger, Telemetry(Counted()), lockstep=True)
        marks = self.ledger.marks()
        self.at = {t: marks.get((EPOCHS[t], t, 0), -1) + 1 for t in self.logs}
        for entry in list(self.ledger.unacknowledged()):
            self.publish(entry.produced)

    def publish(self, produced: list) -> None:
        """To the venue, and what it answers to the logs."""
        for record in produced:
            if isinstance(record, Approved):
                floor = self.floors[record.symbol]
                for act in record.acts():
                    (floor.place if isinstance(act, Order) else floor.cancel)(act)
                floor.promise(record.upto_ms, record.seen)
                happened = floor.work()
                fills = [h for h in happened if isinstance(h, Fill)]
                if fills:
                    self.logs["exec.fills"].append(encode(Fills(record.symbol, "t1", 0.0, fills)))
                reports = [h for h in happened if isinstance(h, Report)]
                self.logs["exec.reports"].append(encode(Reports(record.symbol, "t1", floor.known_ms, floor.told, 0.0, reports, self.over)))

    def step(self) -> bool:
        """One record of one log; False when all are read."""
        ready = [t for t, log in self.logs.items() if self.at[t] < len(log)]
        if not ready:
            return False
        topic = ready[int(self.rng.integers(len(ready)))]
        offset = self.at[topic]
        self.at[topic] += 1
        consumed, outs = self.host.take(decode(self.logs[topic][offset]), (topic, 0, offset))
        if consumed:
            produced = self.host.produce(consumed, outs, 0.0)
            seq = self.host.commit(consumed, produced, EPOCHS)
            self.said += told(outs)
            self.publish(produced)
            self.ledger.acknowledge(seq)
        self.publish(self.host.promises())
        return True


WALK = market(3000, gap_ms=120)
FRAMES = reframed(WALK, 64)


@pytest.fixture(scope="module")
def expected() -> list[bytes]:
    """What the closed loop in one process says, up to the end of the market."""
    _, run = closed_loop({SYMBOL: FRAMES}, S)
    return [b for _, _, outs in run for b in told(outs)]


@pytest.mark.parametrize("seed", range(4))
def test_records_in_any_interleaving_give_the_decisions_of_the_closed_loop(tmp_path, expected, seed):
    street = Street(f"sqlite:///{tmp_path}/ledger.db", FRAMES, seed)
    while street.step():
        pass
    assert len(street.said) > 300
    assert street.said == expected[:len(street.said)]
    assert len(expected) - len(street.said) < 5, "only what comes after the last event is missing"
    street.ledger.close()


@pytest.mark.parametrize("seed", range(4))
def test_two_symbols_are_thought_about_in_market_time_whatever_comes_first(tmp_path, seed):
    other = reframed(market(2500, seed=5, symbol="ETHUSDT", price=300_000, tick=0.01, lot=0.01, gap_ms=120), 97)
    _, run = closed_loop({SYMBOL: FRAMES, "ETHUSDT": other}, S)
    wanted = [b for _, _, outs in run for b in told(outs)]
    street = Street(f"sqlite:///{tmp_path}/ledger.db", [*FRAMES, *other], seed)
    while street.step():
        pass
    assert len(street.said) > 500
    for part in (acts, lambda said: refusals(said, SYMBOL), lambda said: refusals(said, "ETHUSDT")):
        assert part(street.said) == part(wanted)[:len(part(street.said))]
    assert len(wanted) - len(street.said) < 8
    street.ledger.close()


@pytest.mark.parametrize("seed", range(3))
def test_a_host_that_dies_between_records_goes_on_with_the_same_decisions(tmp_path, expected, seed):
    street = Street(f"sqlite:///{tmp_path}/ledger.db", FRAMES, seed)
    lives, steps = 1, 0
    while street.step():
        steps += 1
        if steps % 29 == 0 and lives < 8:
            street.ledger.close()
            street.start()
            lives += 1
    assert lives == 8
    assert street.said == expected[:len(street.said)]
    assert len(expected) - len(street.said) < 5
    street.ledger.close()


@pytest.mark.parametrize("seed", range(2))
def test_a_desk_put_back_from_an_older_backup_decides_the_same_again(tmp_path, expected, seed):
    """The broker's log is still there and the venue has gone on: what was decided since is decided again, under the same ids."""
    street, backup = Street(f"sqlite:///{tmp_path}/ledger.db", FRAMES, seed), f"sqlite:///{tmp_path}/backup.db"
    for step in range(160):
        assert street.step()
        if step == 90:
            copy_ledger(street.url, backup)
            said_then = len(street.said)
    assert len(street.said) > said_then + 20
    street.ledger.close()
    street.url, street.said = backup, street.said[:said_then]
    street.start()
    while street.step():
        pass
    assert street.said == expected[:len(street.said)]
    assert len(expected) - len(street.said) < 5
    street.ledger.close()


def test_the_journal_run_again_gives_byte_equal_answers(tmp_path):
    street = Street(f"sqlite:///{tmp_path}/ledger.db", FRAMES, 1)
    while street.step():
        pass
    from engine.desk import Desk
    desk = Desk(S)
    again: deque[bytes] = deque()
    for entry in street.ledger.entries():
        for fact in entry.consumed:
            again.extend(told(desk.on(fact)))
    assert list(again) == street.said
    street.ledger.close()


def test_a_desk_that_never_lives_long_is_snapshotted_all_the_same(tmp_path, monkeypatch):
    """What a start folds again is bounded by the chain, not by how long the process before it lived."""
    every = 40
    monkeypatch.setattr(__name__ + ".S", msgspec.structs.replace(S, ledger=msgspec.structs.replace(S.ledger, snapshot_every=every)))
    street = Street(f"sqlite:///{tmp_path}/ledger.db", FRAMES, 1)
    tails, steps = [], 0
    while street.step():
        steps += 1
        if steps % 31 == 0:
            street.ledger.close()
            street.start()
            tails.append(street.ledger.head()[0] - street.host.kept)
    assert street.ledger.head()[0] > 2 * every and len(tails) > 3
    assert max(tails) < every
    street.ledger.close()
