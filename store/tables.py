"""The schema, once: the ledger that is only ever appended to, and the projections that people query and anyone may drop.

Times are market time in ms unless a name says otherwise; money is USD; quantities are base units. The ledger's tables are the
truth (`LEDGER`), the projections (`PROJECTIONS`) are a function of it and are refilled by `scripts/rebuild_projections.py`.
"""
import sqlalchemy as sa
from sqlalchemy import BigInteger, Boolean, Column, Float, Index, Integer, LargeBinary, String, Table, Text

metadata = sa.MetaData()

# the ledger: written by its one writer, one transaction at a time; without rowid where rows are small and found by their key

ledger = Table(
    "ledger", metadata,
    Column("writer", String, primary_key=True), Column("seq", BigInteger, primary_key=True, autoincrement=False),
    Column("ts_ms", BigInteger, nullable=False), Column("prev_hash", LargeBinary, nullable=False),
    Column("hash", LargeBinary, nullable=False), Column("kind", String, nullable=False), Column("blob", LargeBinary, nullable=False))
order_index = Table(
    "order_index", metadata, Column("order_id", String, primary_key=True), Column("writer", String, nullable=False),
    Column("seq", BigInteger, nullable=False), Index("order_index_place", "writer", "seq"), sqlite_with_rowid=False)
marks = Table(
    "marks", metadata, Column("writer", String, primary_key=True), Column("epoch", String, primary_key=True),
    Column("topic", String, primary_key=True), Column("partition", Integer, primary_key=True, autoincrement=False),
    Column("offset", BigInteger, nullable=False), sqlite_with_rowid=False)
snapshots = Table(
    "snapshots", metadata, Column("writer", String, primary_key=True),
    Column("seq", BigInteger, primary_key=True, autoincrement=False), Column("ts_ms", BigInteger, nullable=False),
    Column("sha256", LargeBinary, nullable=False), Column("blob", LargeBinary, nullable=False))
meta = Table("meta", metadata, Column("name", String, primary_key=True), Column("value", Text, nullable=False), sqlite_with_rowid=False)
schema_revisions = Table(
    "schema_revisions", metadata, Column("revision", String, primary_key=True), Column("applied_at", String, nullable=False))
LEDGER = (ledger, order_index, marks, snapshots, meta, schema_revisions)

# the projections: written by the projector, read by the console, `scripts/why.py` and the flows


def _id(name: str = "id") -> Column:
    return Column(name, String, primary_key=True)


decisions = Table(
    "decisions", metadata, _id(), Column("ts_ms", BigInteger, nullable=False), Column("symbol", String, nullable=False),
    Column("side", String, nullable=False), Column("regime", String, nullable=False), Column("p", Float),
    Column("model_id", String, nullable=False), Column("allowed", Boolean, nullable=False), Column("code", String, nullable=False),
    Column("numbers", Text, nullable=False), Column("route", String, nullable=False), Column("margin_usd", Float, nullable=False),
    Column("cap", String, nullable=False), Column("qty", Float, nullable=False), Column("price", Float, nullable=False),
    Column("epoch", Integer),    # a refusal carries none; nor what follows, of the size
    Column("arm", String), Column("multiplier", Float), Column("note", String), Column("caps", Text),      # json: USD by cap
    Column("predicted", Text), Column("levels", Text),     # json: rugProb, pFill, expSlipBps, curve; each level's price, quantity, p
    Index("decisions_recent", sa.desc("ts_ms")), Index("decisions_symbol", "symbol", sa.desc("ts_ms")),
    Index("decisions_code", "code", "allowed", sa.desc("ts_ms")))
orders = Table(
    "orders", metadata, _id(), Column("entry_id", String, nullable=False), Column("decision_id", String, nullable=False),
    Column("cause", String, nullable=False), Column("symbol", String, nullable=False), Column("side", String, nullable=False),
    Column("kind", String, nullable=False), Column("price", Float, nullable=False), Column("qty", Float, nullable=False),
    Column("filled", Float, nullable=False), Column("status", String, nullable=False),      # "" until the venue has spoken
    Column("reason", Text, nullable=False), Column("post_only", Boolean, nullable=False), Column("reduce_only", Boolean, nullable=False),
    Column("route", String, nullable=False), Column("epoch", Integer, nullable=False), Column("ts_ms", BigInteger, nullable=False),
    Column("updated_ms", BigInteger, nullable=False),
    Index("orders_recent", sa.desc("ts_ms")), Index("orders_entry", "entry_id"), Index("orders_status", "status", sa.desc("ts_ms")),
    Index("orders_symbol", "symbol", sa.desc("ts_ms")))
fills = Table(
    "fills", metadata, _id(), Column("order_id", String, nullable=False), Column("symbol", String, nullable=False),
    Column("side", String, nullable=False), Column("price", Float, nullable=False), Column("qty", Float, nullable=False),
    Column("fee_usd", Float, nullable=False), Column("maker", Boolean, nullable=False), Column("ts_ms", BigInteger, nullable=False),
    Index("fills_recent", sa.desc("ts_ms")), Index("fills_order", "order_id"), Index("fills_symbol", "symbol", sa.desc("ts_ms")))
outcomes = Table(
    "outcomes", metadata, _id(), Column("symbol", String, nullable=False), Column("side", String, nullable=False),
    Column("regime", String, nullable=False), Column("model_id", String, nullable=False), Column("p", Float),
    Column("qty", Float, nullable=False), Column("entry_price", Float, nullable=False), Column("exit_price", Float, nullable=False),
    Column("gross_usd", Float, nullable=False), Column("fees_usd", Float, nullable=False), Column("net_usd", Float, nullable=False),
    Column("cause", String, nullable=False), Column("route", String, nullable=False),
    Column("opened_ms", BigInteger, nullable=False), Column("closed_ms", BigInteger, nullable=False),
    Index("outcomes_recent", sa.desc("closed_ms")), Index("outcomes_symbol", "symbol", sa.desc("closed_ms")))
positions = Table(    # average cost; realized_usd is after the fees paid so far
    "positions", metadata, Column("symbol", String, primary_key=True), Column("qty", Float, nullable=False),
    Column("avg_price", Float, nullable=False), Column("realized_usd", Float, nullable=False), Column("fees_usd", Float, nullable=False),
    Column("updated_ms", BigInteger, nullable=False))
controls = Table(
    "controls", metadata, _id(), Column("kind", String, nullable=False), Column("actor", String, nullable=False),
    Column("reason", Text, nullable=False), Column("epoch", Integer, nullable=False), Column("ts_ms", BigInteger, nullable=False),
    Column("details", Text, nullable=False),      # json
    Index("controls_recent", sa.desc("ts_ms")), Index("controls_kind", "kind", sa.desc("ts_ms")))
rewards = Table(     # what each order was worth to the arm that shaped it (engine.rewards.attribution.Attributed)
    "rewards", metadata, Column("order_id", String, primary_key=True), Column("symbol", String, nullable=False),
    Column("arm", String, nullable=False), Column("propensity", Float, nullable=False), Column("context", Text, nullable=False),    # json
    Column("reward", Float, nullable=False), Column("learned", Float), Column("expected", Float, nullable=False),
    Column("mode", String, nullable=False), Column("filled", Boolean, nullable=False), Column("created_ms", BigInteger, nullable=False),
    Column("ts_ms", BigInteger, nullable=False), Index("rewards_recent", sa.desc("ts_ms")))
places = Table(      # where the ledger speaks of an entry: its orders, cancels, reports, fills, outcome
    "places", metadata, Column("entry_id", String, primary_key=True), Column("writer", String, primary_key=True),
    Column("seq", BigInteger, primary_key=True, autoincrement=False), sqlite_with_rowid=False)
projection_marks = Table(
    "projection_marks", metadata, Column("writer", String, primary_key=True), Column("seq", BigInteger, nullable=False))
PROJECTIONS = (decisions, orders, fills, outcomes, positions, controls, rewards, places, projection_marks)

# the database itself refuses to edit a row of the ledger: no accident does, and who drops the guard is found by the chain

GUARD = "append_only"
for _dialect, _statements in {
    "sqlite": [f"CREATE TRIGGER IF NOT EXISTS ledger_{GUARD}_{verb.lower()} BEFORE {verb} ON ledger "
               "BEGIN SELECT RAISE(ABORT, 'the ledger is only ever appended to'); END" for verb in ("UPDATE", "DELETE")],
    "postgresql": [f"CREATE OR REPLACE FUNCTION ledger_{GUARD}() RETURNS trigger LANGUAGE plpgsql AS "
                   "$$ BEGIN RAISE EXCEPTION 'the ledger is only ever appended to'; END $$",
                   f"CREATE OR REPLACE TRIGGER ledger_{GUARD} BEFORE UPDATE OR DELETE OR TRUNCATE ON ledger "
                   f"FOR EACH STATEMENT EXECUTE FUNCTION ledger_{GUARD}()"],
}.items():
    for _statement in _statements:
        sa.event.listen(ledger, "after_create", sa.DDL(_statement.replace("%", "%%")).execute_if(dialect=_dialect))
