"""The fitted fill curve from paper fills to the desk: rows, fit, file, and what a file that is none does."""
import json

import msgspec
import numpy as np
import pytest
from builders import AROUND, book, candidate, closed_loop, market, reframed, settings, shipped
from hypothesis import given
from hypothesis import strategies as st

from config.settings import ConfigError, load
from engine.desk import Desk
from engine.execution.matching import Matching
from engine.facts import ACCEPTED, BUY, CANCELLED, DONE, ENTRY, LIMIT, Approved, Cancel, Fill, Order, Report, Scored
from engine.scoring.features import FEATURES
from engine.scoring.signals import SignalEngine
from engine.sizing.curve import COLUMNS, Curve, canonical, curve_of, sealed, unsealed
from engine.sizing.fill import FittedCurve, fit
from engine.sizing.predictors import moment
from scripts import fit_fill_curve, simulate_market
from store import archive
from store.closed import Digests
from store.fill_curve import DISTANCES_BPS, measured, own, split, virtual
from store.ledger import Ledger

T = 1_700_000_000_000


def fitted(seed: int = 1, n: int = 2_000) -> Curve:
    """A curve of a made market."""
    rng = np.random.default_rng(seed)
    x = np.column_stack([rng.random(n), rng.random(n), rng.random(n), rng.choice([0.0, 0.5, 2.0], n), rng.exponential(1.0, n)])
    z = 1.5 - x[:, 0] + x[:, 1] - 1.2 * x[:, 3]
    return curve_of(fit(x, (rng.random(n) < 1 / (1 + np.exp(-z))).astype(float)), 20_000)


CURVE = fitted()
FILE = sealed(CURVE, "2026-01-08T00:00:00Z", {"parts": []}, {"rows": 1})


# the file

def test_what_was_written_is_read_and_equal_values_are_equal_bytes():
    assert unsealed(FILE) == CURVE
    assert sealed(fitted(), "2026-01-08T00:00:00Z", {"parts": []}, {"rows": 1}) == FILE
    assert fitted(2).id != CURVE.id and curve_of(CURVE.parameters, 8_000).id != CURVE.id


@given(st.integers(0, len(FILE) - 1), st.integers(1, 255))
def test_a_file_with_any_byte_changed_is_refused_or_means_the_same(at, by):
    changed = FILE[:at] + bytes([FILE[at] ^ by]) + FILE[at + 1:]
    try:
        assert unsealed(changed) == CURVE
    except ValueError as error:
        assert str(error)


@given(st.integers(0, len(FILE) - 3))
def test_a_file_that_is_cut_is_refused(upto):
    with pytest.raises(ValueError, match="not JSON"):
        unsealed(FILE[:upto])


def resealed(**changes) -> bytes:
    """The file with other values and a seal that fits them."""
    import hashlib
    body = json.loads(FILE) | changes
    del body["sha256"]
    return json.dumps(body | {"sha256": hashlib.sha256(canonical(body)).hexdigest()}).encode()


def parameters(**changes) -> dict:
    return msgspec.to_builtins(CURVE.parameters) | changes


@pytest.mark.parametrize("blob, words", [
    (b"[1]", "an object was expected, not list"),
    (resealed(schema_version="fill_curve_v9"), "schema_version: 'fill_curve_v9' is not fill_curve_v1"),
    (FILE.replace(b'"horizon_ms": 20000', b'"horizon_ms": 20001'), "it was edited or cut"),
    (resealed(horizon_ms="soon"), "Expected `int`, got `str` - at `$.horizon_ms`"),
    (resealed(parameters=parameters(columns=["queue"])), "parameters.columns: queue are not queue, qi"),
    (resealed(parameters=parameters(weights=[1.0, 0.0, 0.0, -1.0, 0.0])), "rises with queue or distance"),
    (resealed(parameters=parameters(intercept=9.0)), "is not that of the parameters"),
    (resealed(horizon_ms=8_000), "is not that of the parameters"),
])
def test_a_file_that_is_none_is_refused_with_what_is_wrong(blob, words):
    with pytest.raises(ValueError) as caught:
        unsealed(blob)
    assert words in str(caught.value)


# in force

def test_a_desk_that_is_told_of_the_file_asks_the_curve_and_its_decisions_say_which(tmp_path):
    path = tmp_path / "curve.json"
    path.write_bytes(FILE)
    quick = {"POLICY_COOLDOWN_SYMBOL": "0", "POLICY_COOLDOWN_GLOBAL": "0", "SLUICE_BANDIT": "false", "SLUICE_WARMUP_SECONDS": "0"}
    row = np.zeros(len(FEATURES), np.float32)
    row[FEATURES.index("sigma")], row[FEATURES.index("spread")] = 2.0, 0.2
    asked = {}
    for said in ("formula", str(path)):
        d = Desk(shipped(SLUICE_FILL_CURVE=said, **quick))
        d.on(book(60_000, 60_000.1, T))
        c = msgspec.structs.replace(candidate(T), features=row.tobytes())
        decision = next(o.decision for o in d.on(Scored(c, 0.9, "m1", 0.7, 0.4)) if isinstance(o, Order))
        asked[decision.sized.curve] = decision.sized.predicted.p_fill
        here = moment(row.tobytes(), 1)
        step_bps = 1e4 * 2 * 0.1 / 60_000
        assert [p for *_, p in decision.rungs] == [d.entering.curve.p(here, k, step_bps) for k, *_ in decision.rungs]
    assert set(asked) == {"formula", CURVE.id} and asked[CURVE.id] == FittedCurve(CURVE.parameters).p(here, 0.0, step_bps)


SHORT = sealed(curve_of(CURVE.parameters, 8_000), "", {}, {})


@pytest.mark.parametrize("text, words", [(None, "cannot be read (No such file or directory)"), (FILE[:-40], "not JSON"),
                                         (SHORT, "rest for 8000 ms, desk.entry_ttl_ms is 20000")])
def test_a_bad_file_keeps_the_desk_from_starting_and_is_named_with_its_key(tmp_path, text, words):
    path = tmp_path / "curve.json"
    if text is not None:
        path.write_bytes(text)
    with pytest.raises(ConfigError) as caught:
        load(env={"SLUICE_FILL_CURVE": str(path)})
    [fault] = caught.value.faults
    assert fault.startswith(f"SLUICE_FILL_CURVE: sizing.fill_curve: {path}: ") and words in fault


def test_a_curve_cannot_be_written_into_the_settings_themselves(tmp_path):
    (tmp_path / "a.yaml").write_text("curve: {id: fc-0}")
    with pytest.raises(ConfigError, match="curve: unknown key; a fitted curve is a file"):
        load(tmp_path / "a.yaml", env={})


def test_two_runs_under_one_file_decide_the_same_bytes_and_otherwise_than_under_the_formula():
    whole = market(3000)
    told = []
    for curve in (CURVE, CURVE, None):
        digests = Digests()
        s = msgspec.structs.replace(settings(POLICY_COOLDOWN_SYMBOL="1", POLICY_COOLDOWN_GLOBAL="0"), curve=curve)
        for _, fact, outs in closed_loop({"BTCUSDT": reframed(whole, 100)}, s)[1]:
            digests.step(fact, outs)
        told.append(digests.decisions)
    assert told[0] == told[1] != told[2]


# rows

@pytest.fixture(scope="module")
def simulated(tmp_path_factory):
    """Twenty minutes of a simulated market."""
    folder = tmp_path_factory.mktemp("curve") / "market"
    assert simulate_market.main(["--symbols", "BTCUSDT", "--hours", "0.3", "--seed", "9", "--to", str(folder)]) == 0
    return folder


def by_hand(frames, s, signal, ticks: int) -> bool:
    """Whether one lot at that price is filled, order by order at the paper venue."""
    i = s.instrument("BTCUSDT")
    venue = Matching("BTCUSDT", i, s.matching, frames[0].session)
    asked = told = None
    for frame in frames:
        if int(frame.times[-1]) < signal.ts_ms:
            venue._remember(frame, 0, frame.n)      # what the market showed before; nothing of ours rests yet
            venue.now = int(frame.times[-1])
            continue
        at = 0
        books = frame.times[frame.kinds == 0]
        if told is None:
            price = round(ticks * i.tick, 10)
            told = Order("E-1", ENTRY, "E-1", "BTCUSDT", signal.side, i.lot, price, LIMIT, True, False, "paper", 0, signal.ts_ms)
            venue.place(told)
        late = books[books >= signal.ts_ms + s.desk.entry_ttl_ms]
        if asked is None and len(late):
            asked = int(late[0])
            venue.cancel(Cancel("E-1", "BTCUSDT", asked, "ttl"))
        while at < frame.n:
            at, happened = venue.advance(frame, at, int(frame.times[-1]))
            for fact in happened:
                if isinstance(fact, Fill):
                    return True
                if fact.status != ACCEPTED:
                    return False
    return False


def test_a_virtual_order_is_filled_when_the_paper_venue_would_have_filled_it(simulated):
    s = shipped()
    frames = list(archive.read(simulated, "BTCUSDT", events=64))
    rows = virtual(iter(frames), "BTCUSDT", s, every=1)
    engine = SignalEngine("BTCUSDT", s.instrument("BTCUSDT"), s.windows, s.triggers, s.regimes)
    found = {c.ts_ms: c for frame in frames for c in engine.on(frame)}
    seen = {True: 0, False: 0}
    for k in range(0, len(rows.filled), max(1, len(rows.filled) // 20)):
        signal = found[int(rows.ts_ms[k])]
        sign = 1 if signal.side == BUY else -1
        entry = round(signal.entry / 0.1)
        ticks = entry - sign * round(rows.x[k, COLUMNS.index("distance_bps")] * entry / 1e4)
        assert by_hand(frames, s, signal, ticks) == bool(rows.filled[k])
        seen[bool(rows.filled[k])] += 1
    assert min(seen.values()) >= 2


def test_orders_further_away_are_filled_less_often_and_the_fit_says_so(simulated):
    rows = virtual(archive.read(simulated, "BTCUSDT", events=512), "BTCUSDT", shipped(), every=2)
    at = rows.x[:, COLUMNS.index("distance_bps")]
    shares = [rows.filled[np.isclose(at, d, atol=0.05)].mean() for d in DISTANCES_BPS]
    assert shares[0] > shares[-1] and list(rows.ts_ms) == sorted(rows.ts_ms)
    early, late = split(rows, 0.25, 20_000)
    assert early.ts_ms.max() < late.ts_ms.min() - 20_000 + 1
    told = measured(fit(early.x, early.filled), late)
    assert told["brier"]["curve"] < told["brier"]["formula"]
    assert sum(r["n"] for r in told["by_distance"]) == told["rows"] == len(late.filled)


def test_the_desks_own_paper_orders_are_rows_if_their_time_was_theirs(tmp_path):
    s = shipped(SLUICE_BANDIT="false", SLUICE_WARMUP_SECONDS="0")
    d, url = Desk(s), f"sqlite:///{tmp_path / 'ledger.db'}"
    d.on(book(60_000, 60_000.1, T))
    row = np.zeros(len(FEATURES), np.float32)
    row[FEATURES.index("spread")], row[FEATURES.index("qi")], row[FEATURES.index("depth_imbalance")] = 0.25, -1.0, -1.0
    c = msgspec.structs.replace(candidate(T), features=row.tobytes(), bid_depth=AROUND[1])
    levels = [o for o in d.on(Scored(c, 0.9, "m1", 0.7, 0.4)) if isinstance(o, Order)]
    assert len(levels) == 4
    ends = [(DONE, levels[0].qty, T + 5), (CANCELLED, 0.0, levels[1].expires_ms + 50), (CANCELLED, 0.0, T + 900),
            (CANCELLED, 0.001, levels[3].expires_ms + 50)]
    with Ledger(url, "risk") as ledger:
        ledger.commit(T, [], [Approved("BTCUSDT", "t1", T, 0, 0.0, levels, [])], {})
        ledger.commit(T, [Fill("f1", levels[0].id, "BTCUSDT", BUY, 60_000.0, levels[0].qty, 0.0, True, 1, T + 5)], [], {})
        reports = [Report(o.id, "BTCUSDT", status, "", qty, n, at) for n, (o, (status, qty, at)) in enumerate(zip(levels, ends))]
        ledger.commit(T, reports, [], {})
    rows = own(url, s)
    assert rows.filled.tolist() == [1.0, 0.0, 0.0], "the third was taken back before its time and says nothing"
    assert rows.x[:, COLUMNS.index("distance_bps")] == pytest.approx([0.0, 1e4 * 0.2 / 60_000, 1e4 * 0.6 / 60_000])
    assert set(rows.x[:, COLUMNS.index("spread_bps")]) == {0.25}


# the command

def test_the_command_fits_measures_and_writes_the_same_bytes_again(simulated, tmp_path, capsys):
    args = [str(simulated), "--every", "2", "--created-at-utc", "2026-01-08T00:00:00Z", "--out"]
    assert fit_fill_curve.main([*args, str(tmp_path / "a.json")]) == 0
    said = capsys.readouterr().out
    assert fit_fill_curve.main([*args, str(tmp_path / "b.json")]) == 0
    assert (tmp_path / "a.json").read_bytes() == (tmp_path / "b.json").read_bytes()
    got = load(env={"SLUICE_FILL_CURVE": str(tmp_path / "a.json")}).curve
    assert got.id in said and "Brier score" in said and json.loads((tmp_path / "a.json").read_text())["evaluation"]["rows"] > 200


def test_too_little_is_no_curve(simulated, tmp_path, capsys):
    assert fit_fill_curve.main([str(simulated), "--every", "100000", "--out", str(tmp_path / "a.json")]) == 1
    assert "at least 200 of each are needed" in capsys.readouterr().err and not (tmp_path / "a.json").exists()
