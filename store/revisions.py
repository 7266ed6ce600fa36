"""The schema's history: each revision applied once, in order, in one transaction with the line that says so."""
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime

import sqlalchemy as sa

from store import tables
from store.database import naming


@dataclass(frozen=True)
class Revision:
    """One step of the schema; `apply` runs inside the transaction that books it."""
    name: str
    what: str
    apply: Callable[[sa.Connection], None]


def _create(*some: sa.Table) -> Callable[[sa.Connection], None]:
    return lambda connection: tables.metadata.create_all(connection, tables=list(some))


def _refill(connection: sa.Connection) -> None:
    """Projections of another shape are made anew and filled again from the ledger by whoever follows it."""
    tables.metadata.drop_all(connection, tables=list(tables.PROJECTIONS))
    tables.metadata.create_all(connection, tables=list(tables.PROJECTIONS))


REVISIONS: tuple[Revision, ...] = (
    Revision("0001_ledger", "the hash chain, its order index, marks and snapshots", _create(*tables.LEDGER)),
    Revision("0002_projections", "decisions, orders, fills, outcomes, positions, controls", _create(*tables.PROJECTIONS)),
    Revision("0003_places", "where each entry's story stands in the ledger; every projection is filled again", _refill),
    Revision("0004_rewards", "what orders were worth, and how their sizes came about; every projection is filled again", _refill),
)


def applied(connection: sa.Connection) -> dict[str, str]:
    """Applied revisions with the wall-clock time (UTC) of each; empty on a new database."""
    if not sa.inspect(connection).has_table("schema_revisions"):
        return {}
    rows = connection.execute(sa.select(tables.schema_revisions).order_by(tables.schema_revisions.c.revision))
    return {row.revision: row.applied_at for row in rows}


def migrate(engine: sa.Engine) -> list[str]:
    """Applies what is missing and returns its names; two processes that start at once do not meet."""
    with naming(engine.url.render_as_string(False)), engine.begin() as connection:
        if engine.dialect.name == "postgresql":
            connection.execute(sa.text("SELECT pg_advisory_xact_lock(hashtext('schema_revisions'))"))
        known = applied(connection)
        missing = [r for r in REVISIONS if r.name not in known]
        for revision in missing:
            revision.apply(connection)
            connection.execute(tables.schema_revisions.insert().values(
                revision=revision.name, applied_at=datetime.now(UTC).isoformat(timespec="seconds")))
    return [r.name for r in missing]
