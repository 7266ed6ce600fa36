"""The console on real ledgers and real endpoints: what it says, and what it says when something is missing."""
import os
import re
import socket
import subprocess
import sys
import time
import tomllib
from pathlib import Path

import pytest
import sqlalchemy as sa
from streamlit.testing.v1 import AppTest

from dashboard import data
from scripts import screenshot
from store import palette, tables
from store.registry import Registry
from tests import console_builders as b
from tests import models

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A console of its own: empty folders, no ledger, a metrics port where nobody answers."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        free = one.getsockname()[1]
    for name, value in {"SLUICE_DATA": tmp_path, "SLUICE_MODELS": tmp_path / "models", "SLUICE_METRICS_PORT": min(free, 65_000),
                        "SLUICE_LEDGER_URL": f"sqlite:///{tmp_path}/ledger.db"}.items():
        monkeypatch.setenv(name, str(value))
    return tmp_path


def url(place: Path) -> str:
    return f"sqlite:///{place}/ledger.db"


def page(name: str = "") -> AppTest:
    """A page, drawn; it must not have raised."""
    at = AppTest.from_file(str(ROOT / "dashboard" / (f"questions/{name}.py" if name else "app.py")), default_timeout=30).run()
    assert not at.exception, at.exception
    return at


def text(at: AppTest) -> str:
    """All that a person reads on it, tags taken out."""
    parts = [e.proto.body for e in at.get("html")] + [m.value for m in at.markdown]
    return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", " ".join(parts)))


@pytest.mark.parametrize("name", ["", "decisions", "order"])
def test_without_a_ledger_every_page_says_what_to_do(place, name):
    said = text(page(name))
    assert "No ledger yet" in said and "make demo" in said


def test_without_services_the_desk_says_so_and_shows_what_the_ledger_remembers(place):
    b.trading_day(url(place), trades=20)
    said = text(page())
    assert "The services are down." in said and said.count("✕") >= 6 and "18 trades closed" in said


def test_an_empty_database_and_a_broken_one_are_told_apart(place):
    (place / "ledger.db").touch()
    assert "no tables to read yet" in text(page())
    (place / "ledger.db").write_bytes(b"not a database" * 400)
    assert "cannot be read" in text(page())


def test_a_ledger_whose_day_has_not_begun_is_shown_without_a_traceback(place):
    engine = sa.create_engine(url(place))
    tables.metadata.create_all(engine)
    engine.dispose()
    said = text(page())
    assert "no trade closed yet" in said and "No order waits at the venue." in said and "No decision matches." in said
    assert "No order yet" in text(page("order"))


def test_the_desk_shows_the_ledgers_own_sums(place):
    day = b.trading_day(url(place), trades=60)
    said = text(page())
    assert f"{5000 + day['net']:,.2f}" in said
    assert f"{day['fees']:,.2f} fees" in said
    assert f"{day['trades']:,} trades closed" in said
    assert f"{day['allowed']:,} of {day['allowed'] + day['refused']:,}" in said
    assert f"{day['maker'] / day['fills']:.0%} as maker" in said


def test_a_long_day_loses_no_money_to_the_bound_of_what_is_drawn(place, monkeypatch):
    day = b.trading_day(url(place), trades=60)
    monkeypatch.setattr(data, "NEWEST_OUTCOMES", 10)
    said = text(page())
    assert len(data.outcomes()) == 10
    assert f"{5000 + day['net']:,.2f}" in said and f"{day['trades']:,} trades closed" in said and f"{day['fees']:,.2f} fees" in said


def test_the_desk_lists_what_is_held_and_what_waits(place):
    b.trading_day(url(place), trades=30)
    engine = sa.create_engine(url(place))
    with engine.connect() as c:
        held = [r for r in c.execute(sa.select(tables.positions)).mappings() if r["qty"]]
        waiting = c.execute(sa.select(tables.orders).where(tables.orders.c.status == "accepted")).mappings().all()
    engine.dispose()
    said = text(page())
    assert held and all(f"{'long' if r['qty'] > 0 else 'short'} {abs(r['qty']):g}" in said for r in held)
    assert len(waiting) == 2 and all(f"0 / {o['qty']:g}" in said for o in waiting)


def test_healthy_services_are_said_to_be(place, monkeypatch):
    b.trading_day(url(place), trades=12)
    _, stop = b.services(0)
    try:
        monkeypatch.setenv("SLUICE_METRICS_PORT", str(stop.port))
        said = text(page())
    finally:
        stop()
    assert "Healthy: all 6 services are ready." in said and "no kill in force" in said and "14 ms" in said


@pytest.mark.parametrize("how, words", [({"lag": 5e3}, "5,000 records behind"), ({"age_ms": 9000.0}, "9.0 s ago"),
                                        ({"ready": ("exchange", "risk")}, "2 of 6 services"), ({"halted": True}, "a kill is in force")])
def test_what_is_wrong_with_the_services_is_said_in_words(place, monkeypatch, how, words):
    b.trading_day(url(place), trades=12)
    _, stop = b.services(0, **how)
    try:
        monkeypatch.setenv("SLUICE_METRICS_PORT", str(stop.port))
        assert words in text(page())
    finally:
        stop()


def test_decisions_can_be_asked_by_verdict_symbol_and_reason(place):
    b.trading_day(url(place), trades=40)
    at = page("decisions")
    assert set(at.dataframe[0].value["verdict"]) == {"✕ refused"}
    at.multiselect(key="why_code").select("BLOCK_COOLDOWN").run()
    at.multiselect(key="why_symbol").select("ETHUSDT").run()
    assert not at.exception
    rows = at.dataframe[0].value
    assert len(rows) and set(rows["reason"]) == {"cooldown"} and set(rows["symbol"]) == {"ETHUSDT"} and rows["numbers"].str.len().min() > 0


def test_runs_over_the_same_market_time_are_told_apart_and_the_newest_is_shown_first(place):
    b.trading_day(url(place), trades=10, session="s9")
    b.trading_day(url(place), trades=30, session="s10", seed=8)
    at = page()
    assert at.selectbox(key="run").value == "s10" and "28 trades closed" in text(at)
    at.selectbox(key="run").select("s9").run()
    assert "8 trades closed" in text(at)
    at.selectbox(key="run").select("").run()
    assert "36 trades closed" in text(at)


def test_an_order_is_explained_from_its_decision_to_its_result(place):
    day = b.trading_day(url(place), trades=15)
    at = AppTest.from_file(str(ROOT / "dashboard/questions/order.py"), default_timeout=30)
    at.query_params["id"] = day["entry"]
    said = text(at.run())
    assert not at.exception
    assert "USD net" in said and "new entry" in said and f"d-{day['entry']}" in said and "maker" in said


def test_an_order_that_nobody_knows_is_answered_with_what_to_do(place):
    b.trading_day(url(place), trades=5)
    at = AppTest.from_file(str(ROOT / "dashboard/questions/order.py"), default_timeout=30)
    at.query_params["id"] = "nobody-1"
    assert "No such order" in text(at.run()) and not at.exception


def test_the_exit_of_an_entry_leads_to_the_same_story(place):
    day = b.trading_day(url(place), trades=15)
    assert data.chain(day["entry"] + "-x")["orders"]["id"].tolist() == data.chain(day["entry"])["orders"]["id"].tolist()


def test_models_are_read_from_the_registry_and_none_is_said(place):
    assert "No model is active" in text(page("models"))


def test_the_active_model_its_thresholds_its_result_and_its_card_are_shown(place):
    day = b.trading_day(url(place), trades=10)
    files = models.files(b.MODEL) | {"model_card.md": b"# What it earned\nNothing yet."}
    registry = Registry(place / "models")
    registry.add(b.MODEL, files, "2026-01-06T00:00:00Z", "first")
    registry.promote(b.MODEL, "active")
    said = text(page("models"))
    assert f"{b.MODEL} is active." in said and "0.600 / 0.300" in said and "What it earned" in said
    assert f"{day['net']:+,.2f}".replace("-", "−") in said
    assert f"model {b.MODEL}" in text(page())


def test_a_broken_manifest_is_named(place):
    (place / "models/registry").mkdir(parents=True)
    (place / "models/registry/manifest.json").write_text("{")
    with pytest.raises(data.Missing, match=r"manifest\.json"):
        data.models()


def test_the_console_cannot_write(place):
    b.trading_day(url(place), trades=5)
    with data.reader(url(place)).connect() as c, pytest.raises(sa.exc.OperationalError, match="readonly"):
        c.execute(tables.positions.delete())


def test_text_from_the_ledger_is_never_markup(place):
    b.trading_day(url(place), trades=5)
    engine = sa.create_engine(url(place))
    with engine.begin() as c:
        c.execute(tables.positions.insert(), [{"symbol": "<img src=x onerror=1>", "qty": 1.0, "avg_price": 1.0, "realized_usd": 0.0,
                                               "fees_usd": 0.0, "updated_ms": 1}])
    engine.dispose()
    bodies = " ".join(e.proto.body for e in page().get("html"))
    assert "<img" not in bodies and "&lt;img" in bodies


def test_a_refused_configuration_is_shown_by_key(place, monkeypatch):
    monkeypatch.setenv("POLICY_MIN_CONFIDENCE", "1.7")
    assert "policy.min_confidence" in text(page())


def test_theme_style_sheet_and_figures_share_one_palette():
    theme = tomllib.loads((ROOT / ".streamlit/config.toml").read_text())
    assert (theme["theme"]["backgroundColor"], theme["theme"]["secondaryBackgroundColor"], theme["theme"]["textColor"],
            theme["theme"]["borderColor"], theme["theme"]["primaryColor"]) == (palette.INK, palette.SURFACE, palette.TEXT, palette.LINE,
                                                                              palette.ACCENT)
    declared = dict(re.findall(r"--(\w+):(#\w{6})", (ROOT / "dashboard/style.css").read_text()))
    assert declared == {n.lower(): getattr(palette, n) for n in ("INK", "SURFACE", "LINE", "TEXT", "MUTED", "ACCENT", "PROFIT", "LOSS",
                                                                  "FEES", "WARN")}
    assert theme["runner"]["magicEnabled"] is False and theme["browser"]["gatherUsageStats"] is False
    assert theme["server"]["address"] == "127.0.0.1"


@pytest.mark.browser
@pytest.mark.skipif(screenshot.chromium() is None, reason="no Chromium on this machine (apt-get install chromium)")
def test_a_person_with_a_browser_sees_the_desk(place, tmp_path):
    b.trading_day(url(place), trades=40)
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port = one.getsockname()[1]
    log = (tmp_path / "console.log").open("w")
    console = subprocess.Popen([sys.executable, "-m", "streamlit", "run", "dashboard/app.py", "--server.port", str(port)], cwd=ROOT,
                               env=dict(os.environ), stdout=log, stderr=subprocess.STDOUT)
    try:
        for _ in range(300):
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            time.sleep(0.1)
        complaints = screenshot.picture(f"http://127.0.0.1:{port}/", tmp_path / "desk.png", whole=True)
    finally:
        console.terminate()
        console.wait(10)
        log.close()
    assert (tmp_path / "desk.png").stat().st_size > 60_000 and not complaints
    assert "Traceback" not in (tmp_path / "console.log").read_text()
