"""The fill-probability gate for its page: the flow's own table and pre-flight, the evidence of starts, and block rates over market time.

Nothing is judged here: rows, checks and figures are those of `store.fill_ceremony` and `store.fill_preflight`, from the same files and
metrics.
"""
import time
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import pandas as pd
import sqlalchemy as sa
import streamlit as st

from config.settings import Settings
from dashboard import data
from engine import reasons
from engine.fillprob import advice, threshold
from engine.fillprob.ceremony import VERSION as TABLE_VERSION
from engine.fillprob.ceremony import Seen
from engine.fillprob.documents import Refused
from engine.fillprob.gate import SHADOW, Gating
from engine.metrics import SERVICES
from store import evidence, fill_ceremony, tables
from store.fill_model import at, load_evaluation
from store.fill_preflight import Asked, Preflight, preflight
from store.ledger import ledger_url

POINTS = 60             # of a block rate over time, at most
NEWEST = 3000           # watched orders whose evidence is read
SPANS_MS = tuple(60_000 * minutes for minutes in (1, 5, 15, 60, 240, 1440))


class Look(NamedTuple):
    """The table with what each address said, the checks, and where the ceremony is."""
    table: fill_ceremony.Table
    said: dict[str, Seen | None]
    checks: Preflight
    step: advice.Step


def addresses(settings: Settings) -> list[str]:
    """Where this machine's services may answer; the first is the flow's."""
    return [f"http://127.0.0.1:{settings.ports.metrics + i}/metrics" for i in range(len(SERVICES))]


def folder(settings: Settings) -> Path:
    """Where this instance's evidence is."""
    return at(settings.fill_prob.artifact_dir or evidence.DEFAULT) / evidence.FOLDER


def look(settings: Settings, metrics: str = "", control: str = "", control_artifacts: str = "") -> Look:
    """The ceremony as the flow judges it, and leaves no file; `metrics`: where the desk answers, asked for on this machine if empty."""
    return _look(repr(settings), settings, metrics, control, control_artifacts)


@st.cache_data(ttl=4, show_spinner=False, max_entries=8)
def _look(key: str, _settings: Settings, metrics: str, control: str, control_artifacts: str) -> Look:
    s, said = _settings.fill_prob, dict[str, Seen | None]()

    def asked(url: str) -> Seen | None:
        if url not in said:
            said[url] = fill_ceremony.scraped(url)
        return said[url]
    here = metrics or next((url for url in addresses(_settings) if asked(url)), addresses(_settings)[0])
    got = fill_ceremony.table(_settings, here, int(time.time() * 1000), control, control_artifacts, asked, keep=False)
    checks = _checks(key, _settings)
    failed = [check.name for check in checks.checks if not check.passed]
    step = advice.step(s.model_dir, s.eval_dir, s.auto_threshold, failed, got.verdict)
    kept = {url: seen for url, seen in said.items() if url in (here, control)}
    return Look(got, kept, checks, step)


@st.cache_data(ttl=30, show_spinner=False, max_entries=4)
def _checks(key: str, _settings: Settings) -> Preflight:
    s = _settings.fill_prob
    return preflight(Asked(at(s.model_dir), at(s.eval_dir), folder(_settings), s.min_bps, True, s.auto_threshold, s.eval_max_age_hours,
                           int(time.time() * 1000)))


def instances(seen: Look, control: str) -> list[tuple[str, Seen | None]]:
    """The instance, and its control where one was named."""
    first = [(url, one) for url, one in seen.said.items() if url != control]
    return [("this instance" if not control else "canary", first[0][1] if first else None),
            *([("control", seen.said.get(control))] if control else [])]


# the files

@st.cache_data(ttl=10, show_spinner=False, max_entries=8)
def left(where: Path) -> tuple[list[dict[str, Any]], list[dict[str, Any]], dict[str, str]]:
    """Of a folder of evidence: resolutions and tables, newest first, and of these kinds what is not sound, by name with the reason."""
    starts, bad = evidence.sound(where, threshold.VERSION, "threshold_resolution_*")
    judged, worse = evidence.sound(where, TABLE_VERSION, "go_no_go_*")
    return starts[::-1], judged[::-1], bad | worse


def report(settings: Settings) -> dict[str, Any] | None:
    """The evaluation; None where there is none that is what its manifest says."""
    if not settings.fill_prob.eval_dir:
        return None
    try:
        return load_evaluation(at(settings.fill_prob.eval_dir))
    except Refused:
        return None


def differing(settings: Settings, running: Gating | None) -> list[str]:
    """What the desk's last start found that is no longer what the settings say: it will be in force after the next start."""
    if running is None:
        return []
    mine, its = msgspec.to_builtins(settings.fill_prob), msgspec.to_builtins(running.rules)
    return [f"{name}: {its[name]!r} at its start, {mine[name]!r} now" for name in mine if mine[name] != its.get(name)]


# block rate over market time

def rates(settings: Settings, running: Gating | None, first_ms: int) -> pd.DataFrame:
    """`at_ms`, `judged`, `low`: orders of the phase by span of market time. What an enforcing gate blocked and what it let through is the
    ledger's; what a watching one would have blocked is its evidence's."""
    if running is not None and running.rules.enforce:
        return _enforced(ledger_url(settings), first_ms, tuple(running.rules.enforce_symbols))
    return _watched(folder(settings), first_ms)


def spans(times: pd.Series, low: pd.Series) -> pd.DataFrame:
    """Orders in spans as wide as it takes for `POINTS` of them.

    >>> spans(pd.Series([0, 1, 60_000]), pd.Series([True, False, False])).values.tolist()
    [[0, 2, 1], [60000, 1, 0]]
    """
    if times.empty:
        return pd.DataFrame(columns=["at_ms", "judged", "low"])
    width = next((w for w in SPANS_MS if (times.max() - times.min()) / w < POINTS), SPANS_MS[-1])
    rows = pd.DataFrame({"at_ms": times - times % width, "low": low.astype(int)})
    return rows.groupby("at_ms")["low"].agg(judged="size", low="sum").reset_index()


@st.cache_data(ttl=5, show_spinner=False, max_entries=8)
def _enforced(url: str, first_ms: int, symbols: tuple[str, ...]) -> pd.DataFrame:
    t = tables.decisions
    statement = sa.select(t.c.ts_ms, t.c.code).where(t.c.code.in_([*reasons.ALLOWED, reasons.FILL_PROB_LOW]), t.c.ts_ms >= first_ms)
    if symbols:
        statement = statement.where(t.c.symbol.in_(symbols))
    rows = data.read(statement.order_by(t.c.ts_ms.desc()).limit(data.NEWEST_OUTCOMES))
    return spans(rows["ts_ms"].astype("int64"), rows["code"] == reasons.FILL_PROB_LOW)


@st.cache_data(ttl=10, show_spinner=False, max_entries=8)
def _watched(where: Path, first_ms: int) -> pd.DataFrame:
    rows = []
    for path in sorted(where.glob(f"*_{SHADOW}_*.json"))[-NEWEST:]:
        if path.name.partition("_")[0].isdigit() and int(path.name.partition("_")[0]) >= first_ms:
            try:
                one = evidence.verify(path)
            except Refused:
                continue
            rows.append((one["ts_ms"], one["prob_bps"] < one["threshold_bps"]))
    return spans(pd.Series([ts for ts, _ in rows], dtype="int64"), pd.Series([low for _, low in rows], dtype=bool))
