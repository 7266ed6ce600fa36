"""The dataset `fill_outcomes_v1`: fills from a JSON file, an order log or the desk's own ledger, and round trips as parquet.

Fills of the ledger are the desk's (`paper`, or `real` where their order was sent for real) and those of the paper account beside a real
one, which never close each other. The parquet file is the same bytes for the same rows and the same pyarrow.
"""
import json
from collections.abc import Iterable, Iterator, Sequence
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Any

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq
import sqlalchemy as sa

from engine.facts import BUY, SELL, account_of
from engine.fillprob.dataset import COLUMNS, IMPORT, PAPER, REAL, SCHEMA, Execution, Roundtrip
from engine.fillprob.documents import pretty, sha256
from store.artifacts import MANIFEST, ArtifactError, columns_of, publish
from store.database import connect, naming, reading, shown

DATA = "data.parquet"
KINDS: dict[type, pa.DataType] = {str: pa.string(), float: pa.float64(), int: pa.int64()}
NARROW = ("entry_fill_count", "exit_fill_count", "pnl_bps")
TABLE = pa.schema([(name, pa.int32() if name in NARROW else KINDS[kind]) for name, kind in Roundtrip.__annotations__.items()])
SENT_FOR_REAL = ("canary", "full")
LOG = ("venue", "symbol", "ts_ms", "side", "price", "amount", "order_id")


# where fills come from

def fixture(path: Path) -> list[Execution]:
    """A JSON list of {ts, symbol, side, price, quantity, order_id} and, if there is one, fee; numbers best as text, for their digits."""
    try:
        told = json.loads(path.read_bytes(), parse_float=Decimal)
    except (ValueError, RecursionError) as error:
        raise ArtifactError(f"{path}: not JSON ({error})") from None
    if not isinstance(told, list):
        raise ArtifactError(f"{path}: a list of fills was expected, not {type(told).__name__}")
    return [one(path, place, row) for place, row in enumerate(told)]


def one(path: Path, place: int, row: Any) -> Execution:
    """A fill of a fixture."""
    def no(key: str, expected: str) -> ArtifactError:
        return ArtifactError(f"{path}: fill {place}: {key}: {row.get(key)!r} is not {expected}")
    if not isinstance(row, dict):
        raise ArtifactError(f"{path}: fill {place}: an object was expected, not {row!r}")
    ts, side = row.get("ts"), row.get("side")
    if isinstance(ts, bool) or not isinstance(ts, int) or not 0 <= ts < 2**63:
        raise no("ts", "a time in ms")
    if side not in (BUY, SELL):
        raise no("side", "BUY or SELL")
    for key in ("symbol", "order_id"):
        if not isinstance(row.get(key), str) or not (row[key] or key != "symbol"):
            raise no(key, "text")
    numbers: dict[str, Decimal] = {}
    for key, least in (("price", True), ("quantity", True), ("fee", False)):
        value = row.get(key, "0" if key == "fee" else None)
        try:
            number = Decimal(value if isinstance(value, (str, int, Decimal)) and not isinstance(value, bool) else "none")
        except InvalidOperation:
            number = Decimal("nan")
        if not number.is_finite() or not abs(number.adjusted()) <= 30 or (least and number <= 0):
            raise no(key, "a number above 0" if least else "a number")
        numbers[key] = number
    return Execution(ts, row["symbol"], side, numbers["price"], numbers["quantity"], row["order_id"], numbers["fee"])


def order_log(path: Path) -> list[Execution]:
    """A parquet log of own fills: venue, symbol, ts_ms, side (1 bought, -1 sold), price, amount, order_id and, if there is one, fee_pct.
    Rows without a price or an amount are left out."""
    try:
        table = pq.read_table(pa.BufferReader(path.read_bytes()))
    except pa.ArrowInvalid as error:
        raise ArtifactError(f"{path}: not a parquet file ({error})") from None
    if missing := [name for name in LOG if name not in table.column_names]:
        raise ArtifactError(f"{path}: no column {', '.join(missing)}; a log of fills has {', '.join(LOG)}")
    out = []
    for row in table.to_pylist():
        price, qty = Decimal(repr(row["price"])), Decimal(repr(row["amount"]))
        if not (price.is_finite() and qty.is_finite() and price > 0 and qty > 0):
            continue
        fee = price * qty * Decimal(repr(row.get("fee_pct") or 0.0))
        out.append(Execution(row["ts_ms"], row["symbol"], BUY if row["side"] > 0 else SELL, price, qty, row["order_id"], fee,
                             f"{row.get('source') or ''}|{row['venue']}", IMPORT))
    return out


def of_ledger(url: str) -> list[Execution]:
    """The desk's own fills, from the ledger's projections."""
    with naming(url):
        engine = connect(url, create=False)
        try:
            for name in ("fills", "orders"):
                if not sa.inspect(engine).has_table(name):
                    raise ArtifactError(f"ledger {shown(url)}: it has no table {name}; apply the schema: python -m scripts.migrate")
            meta = sa.MetaData()
            fills, orders = sa.Table("fills", meta, autoload_with=engine), sa.Table("orders", meta, autoload_with=engine)
            query = sa.select(fills, orders.c.route).join(orders, orders.c.id == fills.c.order_id, isouter=True).order_by(
                fills.c.ts_ms, fills.c.id)
            with reading(engine) as connection:
                return [of_row(row) for row in connection.execute(query).mappings()]
        finally:
            engine.dispose()


def of_row(row: Any) -> Execution:
    """A row of the table `fills` with its order's route."""
    return Execution(row["ts_ms"], row["symbol"], row["side"], Decimal(repr(float(row["price"]))), Decimal(repr(float(row["qty"]))),
                     row["order_id"], Decimal(repr(float(row["fee_usd"]))), account_of(row["order_id"]),
                     REAL if row["route"] in SENT_FOR_REAL else PAPER)


# the dataset on disk

def packed(rows: Sequence[Roundtrip]) -> bytes:
    """`data.parquet`."""
    columns = [pa.array([getattr(row, name) for row in rows], kind) for name, kind in zip(TABLE.names, TABLE.types)]
    sink = pa.BufferOutputStream()
    pq.write_table(pa.table(columns, schema=TABLE), sink, compression="snappy", write_statistics=False, store_schema=False)
    return sink.getvalue().to_pybytes()


def write(rows: Sequence[Roundtrip], out_dir: Path, dataset_id: str, created_at_utc: str, force: bool = False) -> Path:
    """`data.parquet` and `manifest.json` under out_dir/dataset_id."""
    if not dataset_id or Path(dataset_id).name != dataset_id:
        raise ArtifactError(f"--dataset-id: {dataset_id!r} is no folder's name")
    blob = packed(rows)
    source = "+".join(sorted({row.source for row in rows})) or PAPER
    manifest = {"schema_version": SCHEMA, "dataset_id": dataset_id, "created_at_utc": created_at_utc, "source": source,
                "row_count": len(rows), "columns": list(COLUMNS), "sha256": {DATA: sha256(blob)}}
    return publish(out_dir / dataset_id, {DATA: blob, MANIFEST: pretty(manifest)}, force)


def load(folder: Path) -> tuple[list[Roundtrip], str]:
    """The rows of a dataset and the hash of its manifest; `ArtifactError` where it is not what its manifest says."""
    blob, manifest, digest = columns_of(folder, DATA, SCHEMA, COLUMNS, "build_fill_dataset_v1")
    try:
        table = pq.read_table(pa.BufferReader(blob))
        rows = msgspec.convert(table.to_pylist(), list[Roundtrip])
    except (pa.ArrowInvalid, msgspec.ValidationError) as error:
        raise ArtifactError(f"{folder / DATA}: not the rows of {SCHEMA} ({error})") from None
    if len(rows) != manifest.get("row_count"):
        raise ArtifactError(f"{folder}: {len(rows)} rows, its manifest says {manifest.get('row_count')!r}")
    return rows, digest


def gathered(sources: Iterable[Iterable[Execution]]) -> Iterator[Execution]:
    """Fills of several sources."""
    for some in sources:
        yield from some
