"""The console's door to data: the ledger's projections, the services' metrics, the model registry. Nothing here writes.

What cannot be read is raised as `Missing` with what an operator does about it; pages show that, never a traceback. Results are
cached for a second or a few, so that ten open browsers cost what one costs. Market time (`ts_ms`) and wall time never mix.
"""
import os
import re
import threading
from pathlib import Path

import pandas as pd
import sqlalchemy as sa
import streamlit as st

from config import settings as configuration
from dashboard import health
from engine import facts
from store import tables
from store.ledger import ledger_url
from store.registry import Registry, RegistryError

SESSION = re.compile(r"-([^-]{1,6})-\d{10,}")
NEWEST_OUTCOMES = 20_000
APART = ("T", "Y", "V")      # how order ids of the paper account beside a real one begin (`engine.facts.account_of`)
OVER = (facts.REJECTED, facts.CANCELLED, facts.DONE)


class Missing(Exception):
    """Something is not there yet: `what` in plain words, `todo` what to do about it (markdown)."""

    def __init__(self, what: str, todo: str):
        self.what, self.todo = what, todo
        super().__init__(f"{what}: {todo}")


def settings() -> configuration.Settings:
    """The settings that the services read, from the same file and environment; a fault is `Missing` with its words."""
    try:
        return _settings(tuple(sorted(os.environ.items())))
    except configuration.ConfigError as error:
        raise Missing("The configuration is refused", "\n".join(f"- `{fault}`" for fault in error.faults)) from None


@st.cache_resource(show_spinner=False, max_entries=2)
def _settings(env: tuple[tuple[str, str], ...]) -> configuration.Settings:
    return configuration.load(env=dict(env))


# the ledger's projections

@st.cache_resource(show_spinner=False, max_entries=4)
def reader(url: str) -> sa.Engine:
    """A door that can only read."""
    parsed = sa.make_url(url)
    if parsed.get_backend_name() == "sqlite":   # the console can never write, whatever it is asked
        path = Path(parsed.database or "").absolute()
        # no pool: a kept connection would go on reading a file that was deleted and made anew
        return sa.create_engine(f"sqlite:///file:{path}?mode=ro&uri=true", poolclass=sa.NullPool, connect_args={"timeout": 2})
    return sa.create_engine(parsed, pool_pre_ping=True, connect_args={"connect_timeout": 2},
                            execution_options={"postgresql_readonly": True})


def require(url: str) -> None:
    """`Missing` where no ledger lies."""
    parsed = sa.make_url(url)
    if parsed.get_backend_name() == "sqlite" and not Path(parsed.database or "").is_file():
        raise Missing("No ledger yet", f"Nothing has traded here: `{parsed.database}` does not exist.\n\nRun `make demo` in the project's "
                      "folder: it starts the market, the services and this console, and the first fills are here within a minute.")


def read(statement: sa.Select) -> pd.DataFrame:
    """The rows of a query on the projections; `Missing` where there is no ledger, or none that can be read."""
    url = ledger_url(settings())
    require(url)
    parsed = sa.make_url(url)
    try:
        with reader(url).connect() as connection:
            return pd.DataFrame(connection.execute(statement).mappings().all(), columns=[c.name for c in statement.selected_columns])
    except sa.exc.SQLAlchemyError as error:
        cause = str(getattr(error, "orig", None) or error).splitlines()[0]
        if "no such table" in cause or "does not exist" in cause:
            raise Missing("The ledger has no tables to read yet", "The projections are written by the risk service. Run `make demo`, or "
                          "`python -m scripts.rebuild_projections` to fill them from the ledger.") from None
        raise Missing("The ledger cannot be read", f"`{parsed.render_as_string(hide_password=True)}` says: {cause}") from None


@st.cache_data(ttl=10, show_spinner=False, max_entries=8)
def _runs(url: str) -> list[str]:
    t = tables.orders
    ids = read(sa.select(t.c.entry_id).where(t.c.cause == "entry").order_by(t.c.ts_ms.desc()).limit(20_000))["entry_id"]
    found = {m[1] for m in map(SESSION.search, ids) if m}
    return sorted(found, key=lambda s: (len(re.sub(r"\D", "", s)), re.sub(r"\D", "", s), s), reverse=True)


def runs() -> list[str]:
    """The runs of a market that traded, newest first: market time may repeat itself from run to run."""
    return _runs(ledger_url(settings()))


def of_run(statement: sa.Select, id_column: sa.ColumnElement, run: str) -> sa.Select:
    """The statement, narrowed to facts whose id names this run; all runs where `run` is empty."""
    return statement.where(id_column.contains(f"-{run}-", autoescape=True)) if run else statement


def of_desk(statement: sa.Select, id_column: sa.ColumnElement, apart: bool = False) -> sa.Select:
    """The statement, narrowed to the account that trades, or to the paper account beside it: never both in one sum (DECISIONS, 28)."""
    first = sa.func.substr(id_column, 1, 1)
    return statement.where(first.in_(APART) if apart else first.not_in(APART))


@st.cache_data(ttl=1.5, show_spinner=False, max_entries=64)
def _outcomes(url: str, run: str) -> pd.DataFrame:
    t = tables.outcomes
    rows = read(of_desk(of_run(sa.select(t), t.c.id, run), t.c.id).order_by(t.c.closed_ms.desc()).limit(NEWEST_OUTCOMES))
    return rows.iloc[::-1].reset_index(drop=True)


def outcomes(run: str = "") -> pd.DataFrame:
    """Closed trades of the account that trades, oldest first; the newest `NEWEST_OUTCOMES`."""
    return _outcomes(ledger_url(settings()), run)


@st.cache_data(ttl=1.5, show_spinner=False, max_entries=64)
def _sums(url: str, run: str) -> dict[str, float]:
    t = tables.outcomes
    total = [sa.func.coalesce(sa.func.sum(t.c[name]), 0.0).label(name) for name in ("gross_usd", "fees_usd", "net_usd")]
    return read(of_desk(of_run(sa.select(sa.func.count().label("n"), *total), t.c.id, run), t.c.id)).iloc[0].to_dict()


def outcome_sums(run: str = "") -> dict[str, float]:
    """`n`, `gross_usd`, `fees_usd`, `net_usd` of all closed trades, however many; of the account that trades."""
    return _sums(ledger_url(settings()), run)


@st.cache_data(ttl=4, show_spinner=False, max_entries=64)
def _apart(url: str, run: str) -> pd.DataFrame:
    t = tables.outcomes
    total = [sa.func.coalesce(sa.func.sum(t.c[name]), 0.0).label(name) for name in ("gross_usd", "fees_usd", "net_usd")]
    return read(of_desk(of_run(sa.select(t.c.route, sa.func.count().label("n"), *total).group_by(t.c.route), t.c.id, run), t.c.id, True))


def apart_sums(run: str = "") -> pd.DataFrame:
    """The same of the paper account beside a real one, by `route`: `twin` of a real entry, `paper` after a CRIT."""
    return _apart(ledger_url(settings()), run)


@st.cache_data(ttl=4, show_spinner=False, max_entries=64)
def _decision_counts(url: str, run: str) -> pd.DataFrame:
    t = tables.decisions
    counted = sa.select(t.c.code, t.c.allowed, sa.func.count().label("n")).group_by(t.c.code, t.c.allowed)
    if not run or sa.make_url(url).get_backend_name() != "sqlite":
        return read(of_run(counted, t.c.id, run).order_by(sa.desc("n")))
    return _tally(url, run).counts(of_run(counted, t.c.id, run))


class Tally:
    """Counts of one run, kept up by the rows that came since: no index knows runs, and a day has half a million decisions."""

    def __init__(self) -> None:
        self.lock, self.row, self.known = threading.Lock(), 0, pd.DataFrame(columns=["code", "allowed", "n"])

    def counts(self, counted: sa.Select) -> pd.DataFrame:
        """`code`, `allowed`, `n` of a statement over `decisions`, the most frequent first. Rows are only ever added there."""
        number: sa.ColumnElement[int] = sa.literal_column("decisions.rowid", sa.Integer)
        with self.lock:
            last = int(read(sa.select(sa.func.coalesce(sa.func.max(number), 0).label("row")).select_from(tables.decisions))["row"].iloc[0])
            if last < self.row:         # filled again from nothing
                self.row, self.known = 0, self.known.iloc[:0]
            new = read(counted.where(number > self.row, number <= last))
            self.row, both = last, [part for part in (self.known, new) if len(part)]
            if both:
                self.known = pd.concat(both).groupby(["code", "allowed"], as_index=False)["n"].sum()
            return self.known.sort_values("n", ascending=False, kind="stable").reset_index(drop=True)


@st.cache_resource(show_spinner=False, max_entries=16)
def _tally(url: str, run: str) -> Tally:
    return Tally()


def decision_counts(run: str = "") -> pd.DataFrame:
    """`code`, `allowed`, `n`: how often each reason was given."""
    return _decision_counts(ledger_url(settings()), run)


@st.cache_data(ttl=1.5, show_spinner=False, max_entries=64)
def _decisions(url: str, run: str, verdict: str, symbols: tuple[str, ...], codes: tuple[str, ...], most: int) -> pd.DataFrame:
    t = tables.decisions
    statement = of_run(sa.select(t), t.c.id, run).order_by(t.c.ts_ms.desc()).limit(most)
    if verdict != "all":
        statement = statement.where(t.c.allowed.is_(verdict == "allowed"))
    if symbols:
        statement = statement.where(t.c.symbol.in_(symbols))
    if codes:
        statement = statement.where(t.c.code.in_(codes))
    return read(statement)


def decisions(run: str = "", verdict: str = "all", symbols: tuple[str, ...] = (), codes: tuple[str, ...] = (),
              most: int = 300) -> pd.DataFrame:
    """Decisions, newest first; `verdict` is `all`, `allowed` or `refused`; empty `symbols` or `codes` mean any."""
    return _decisions(ledger_url(settings()), run, verdict, symbols, codes, most)


@st.cache_data(ttl=1.5, show_spinner=False, max_entries=64)
def _fills(url: str, run: str, most: int) -> pd.DataFrame:
    t = tables.fills
    return read(of_desk(of_run(sa.select(t), t.c.order_id, run), t.c.order_id).order_by(t.c.ts_ms.desc()).limit(most))


def fills(run: str = "", most: int = 200) -> pd.DataFrame:
    """Fills of the account that trades, newest first."""
    return _fills(ledger_url(settings()), run, most)


@st.cache_data(ttl=4, show_spinner=False, max_entries=64)
def _fill_counts(url: str, run: str) -> pd.DataFrame:
    t = tables.fills
    counted = sa.select(t.c.maker, sa.func.count().label("n"), sa.func.sum(t.c.fee_usd).label("fee_usd"),
                        sa.func.sum(t.c.price * t.c.qty).label("turnover_usd")).group_by(t.c.maker)
    return read(of_desk(of_run(counted, t.c.order_id, run), t.c.order_id))


def fill_counts(run: str = "") -> pd.DataFrame:
    """`maker`, `n`, `fee_usd`, `turnover_usd`: fills by liquidity."""
    return _fill_counts(ledger_url(settings()), run)


@st.cache_data(ttl=1.5, show_spinner=False, max_entries=8)
def _positions(url: str) -> pd.DataFrame:
    return read(sa.select(tables.positions).order_by(tables.positions.c.symbol))


def positions() -> pd.DataFrame:
    """One row a symbol that ever traded; a flat one has `qty` 0. A paper account beside a real one has rows of its own (`… twin`)."""
    return _positions(ledger_url(settings()))


@st.cache_data(ttl=1.5, show_spinner=False, max_entries=16)
def _orders(url: str, run: str, waiting: bool, most: int) -> pd.DataFrame:
    t = tables.orders
    statement = of_desk(of_run(sa.select(t), t.c.entry_id, run), t.c.entry_id).order_by(t.c.ts_ms.desc()).limit(most)
    return read(statement.where(sa.or_(t.c.status.is_(None), t.c.status.not_in(OVER))) if waiting else statement)


def orders(run: str = "", waiting: bool = False, most: int = 200) -> pd.DataFrame:
    """Orders of the account that trades, newest first; only those that still wait at the venue, where asked."""
    return _orders(ledger_url(settings()), run, waiting, most)


def chain(order_id: str) -> dict[str, pd.DataFrame]:
    """All that belongs to the entry of this order: `decision`, `orders`, `fills`, `outcome`. Empty tables where nothing is known."""
    o, d, f, x = tables.orders, tables.decisions, tables.fills, tables.outcomes
    entry = read(sa.select(o.c.entry_id).where(o.c.id == order_id))
    entry_id = entry["entry_id"].iloc[0] if len(entry) else order_id
    all_orders = read(sa.select(o).where(o.c.entry_id == entry_id).order_by(o.c.ts_ms))
    named = [i for i in all_orders["decision_id"] if i]
    return {"decision": read(sa.select(d).where(d.c.id.in_(named))), "orders": all_orders,
            "fills": read(sa.select(f).where(f.c.order_id.in_(list(all_orders["id"]))).order_by(f.c.ts_ms)),
            "outcome": read(sa.select(x).where(x.c.id == entry_id))}


@st.cache_data(ttl=2, show_spinner=False, max_entries=8)
def _controls(url: str) -> pd.DataFrame:
    t = tables.controls
    return read(sa.select(t).order_by(t.c.epoch.desc(), t.c.ts_ms.desc()).limit(50))


def controls() -> pd.DataFrame:
    """Kills, releases and switches, newest first."""
    return _controls(ledger_url(settings()))


# the running services

@st.cache_resource(show_spinner=False, max_entries=4)
def _scraper(host: str, first_port: int) -> health.Scraper:
    return health.Scraper(host, first_port)


@st.cache_data(ttl=1, show_spinner=False, max_entries=4)
def _vitals(host: str, first_port: int, stale_ms: int, max_lag: int) -> health.Vitals:
    return _scraper(host, first_port).look(stale_ms, max_lag)


def vitals() -> health.Vitals:
    """What the services say of themselves now; a service that does not answer is `down`, never an error."""
    s = settings()
    return _vitals(s.ports.bind, s.ports.metrics, s.monitoring.stale_ms, s.monitoring.max_lag_records)


# the models

@st.cache_data(ttl=5, show_spinner=False, max_entries=4)
def _models(root: str) -> tuple[dict[str, str], list[dict], dict[str, str]]:
    registry = Registry(root)
    entries = registry.entries()
    slots = {name: folder.name for name in ("active", "shadow") if (folder := registry.slot(name))}
    cards = {e["id"]: card.read_text() for e in entries if (card := registry.root / e["id"] / "model_card.md").is_file()}
    return slots, entries, cards


def models() -> tuple[dict[str, str], list[dict], dict[str, str]]:
    """Slots (`active`, `shadow`) with the model in each, the manifest newest first, and the cards by model id."""
    try:
        slots, entries, cards = _models(str(settings().folder("models")))
    except (OSError, RegistryError) as error:
        raise Missing("The model registry cannot be read", str(error)) from None
    return slots, sorted(entries, key=lambda e: str(e.get("created_at", "")), reverse=True), cards
