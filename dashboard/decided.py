"""What was decided over time: refusals by reason, sizes by what bound them, and entries with their arm and reward."""
import pandas as pd
import sqlalchemy as sa
import streamlit as st

from dashboard import data, standing
from engine import reasons
from engine.facts import ENTRY, Order
from engine.rewards.arms import arm as arm_of
from store import tables
from store.ledger import ledger_url
from store.why import order_of

MINUTE_MS, HOUR_MS = 60_000, 3_600_000
MOST_BARS = 120
SIZED = ("id", "ts_ms", "symbol", "side", "cap", "margin_usd", "qty", "price", "multiplier")
SPANS = {"15 minutes": 15 * MINUTE_MS, "hour": HOUR_MS, "6 hours": 6 * HOUR_MS, "day": 24 * HOUR_MS}


def step_of(span_ms: int) -> int:
    """How wide a bar is over this span: a minute, then an hour where that were too many.

    >>> step_of(3_600_000) // 60_000, step_of(86_400_000) // 60_000
    (1, 60)
    """
    return MINUTE_MS if span_ms <= MOST_BARS * MINUTE_MS else HOUR_MS


@st.cache_data(ttl=3, show_spinner=False, max_entries=8)
def _newest(url: str) -> int:
    t = tables.decisions
    found = data.read(sa.select(sa.func.max(t.c.ts_ms).label("ts_ms")))["ts_ms"].iloc[0]
    return 0 if pd.isna(found) else int(found)


def newest() -> int:
    """Market time of the newest decision, ms; 0 without one."""
    return _newest(ledger_url(data.settings()))


@st.cache_data(ttl=8, show_spinner=False, max_entries=64)
def _refusals(url: str, since_ms: int, step_ms: int, symbols: tuple[str, ...], codes: tuple[str, ...]) -> pd.DataFrame:
    t = tables.decisions
    bucket = (t.c.ts_ms - t.c.ts_ms % step_ms).label("at_ms")
    statement = sa.select(bucket, t.c.code, sa.func.count().label("n")).where(t.c.allowed.is_(False), t.c.ts_ms >= since_ms)
    if symbols:
        statement = statement.where(t.c.symbol.in_(symbols))
    # by code even where all are wanted: the index of codes and times holds all that is asked for, and no row of the table is read
    statement = statement.where(t.c.code.in_(codes or data.decision_counts()["code"].tolist()))
    return data.read(statement.group_by(bucket, t.c.code).order_by(bucket))


def refusals(span_ms: int, step_ms: int, symbols: tuple[str, ...] = (), codes: tuple[str, ...] = ()) -> pd.DataFrame:
    """`at_ms`, `code`, `n`: refusals of the last stretch of market time in bars so wide; empty `symbols` or `codes` mean any."""
    since = newest() - span_ms
    return _refusals(ledger_url(data.settings()), since - since % step_ms, step_ms, symbols, codes)


@st.cache_data(ttl=4, show_spinner=False, max_entries=64)
def _sizes(url: str, since_ms: int) -> pd.DataFrame:
    t = tables.decisions
    statement = sa.select(*(t.c[name] for name in SIZED)).where(
        t.c.code.in_(reasons.ALLOWED), t.c.allowed.is_(True), t.c.ts_ms >= since_ms)
    return data.read(statement.order_by(t.c.ts_ms.desc()).limit(data.NEWEST_OUTCOMES))


def sizes(span_ms: int) -> pd.DataFrame:
    """Decisions that were sized and sent in the last stretch of market time, newest first."""
    return _sizes(ledger_url(data.settings()), newest() - span_ms)


@st.cache_data(ttl=3600, show_spinner=False, max_entries=256)
def _order(url: str, order_id: str) -> Order | None:
    return standing.read(lambda: order_of(data.reader(url), order_id))


def order(order_id: str) -> Order | None:
    """An order as the ledger itself has it, with its decision where it opens an entry; None where none was sent. It never changes."""
    return _order(ledger_url(data.settings()), order_id)


@st.cache_data(ttl=2, show_spinner=False, max_entries=16)
def _entries(url: str, most: int) -> pd.DataFrame:
    o, d, r, x = tables.orders, tables.decisions, tables.rewards, tables.outcomes
    first = data.read(sa.select(o.c.id, o.c.ts_ms, o.c.symbol, o.c.side, o.c.price, o.c.route, o.c.decision_id)
                      .where(o.c.cause == ENTRY, o.c.id == o.c.entry_id).order_by(o.c.ts_ms.desc()).limit(most))
    ids, decided = list(first["id"]), [i for i in first["decision_id"] if i]
    levels = data.read(sa.select(o.c.entry_id, sa.func.count().label("levels"), sa.func.sum(o.c.qty).label("qty"),
                                 sa.func.sum(o.c.filled).label("filled"), sa.func.min(o.c.status).label("status"))
                       .where(o.c.cause == ENTRY, o.c.entry_id.in_(ids)).group_by(o.c.entry_id))
    why = data.read(sa.select(d.c.id.label("decision_id"), d.c.arm, d.c.code, d.c.cap, d.c.multiplier, d.c.p).where(d.c.id.in_(decided)))
    paid = data.read(sa.select(r.c.order_id.label("id"), r.c.propensity, r.c.reward).where(r.c.order_id.in_(ids)))
    ended = data.read(sa.select(x.c.id, x.c.net_usd, x.c.cause).where(x.c.id.in_(ids)))
    return (first.merge(levels, how="left", left_on="id", right_on="entry_id").merge(why, how="left", on="decision_id")
            .merge(paid, how="left", on="id").merge(ended, how="left", on="id"))


def entries(most: int = 60) -> pd.DataFrame:
    """The newest entries of every route, an entry a row: levels, filled, arm, what was decided, reward, result."""
    return _entries(ledger_url(data.settings()), most)


@st.cache_data(ttl=2, show_spinner=False, max_entries=64)
def _rungs(url: str, plans: tuple[str, ...]) -> dict[str, str]:
    t = tables.decisions
    rows = data.read(sa.select(t.c.id, t.c.levels).where(t.c.id.in_([f"D-{plan[2:]}" for plan in plans])))
    found = {str(row.id): str(row.levels or "") for row in rows.itertuples()}
    return {plan: found.get(f"D-{plan[2:]}", "") for plan in plans}


def rungs(plans: tuple[str, ...]) -> dict[str, str]:
    """By entry id, the levels of its ladder as they were decided (json); a twin has those of the entry that it doubles."""
    return _rungs(ledger_url(data.settings()), plans)


def arm_words(arm: str | None) -> str:
    """An execution arm in words.

    >>> arm_words("o1-s50-p8"), arm_words(None)
    ('1 tick behind, 50 % of the size, 8 s', '')
    """
    if not isinstance(arm, str) or not arm:
        return ""
    a = arm_of(arm)
    where = "at the touch" if not a.offset else f"{a.offset} tick{'s' * (a.offset > 1)} behind"
    return f"{where}, {100 * a.fraction:.0f} % of the size, {a.patience_ms / 1000:g} s"
