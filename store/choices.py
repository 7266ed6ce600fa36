"""The log of attributed choices, from the ledger's projection or a file: what off-policy values are computed from.

A row is an `engine.rewards.attribution.Attributed`: `order_id, symbol, arm, propensity, context, reward, learned, expected, mode, filled,
created_ms, ts_ms`. In JSON lines `context` is an array, in parquet a list of doubles, in the projection's table `rewards` JSON text.
"""
import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq
import sqlalchemy as sa

from engine.rewards.attribution import Attributed
from store import disk
from store.database import connect, naming, reading, shown

TABLE = "rewards"
COLUMNS = Attributed.__struct_fields__
SCHEMA = pa.schema([
    ("order_id", pa.string()), ("symbol", pa.string()), ("arm", pa.string()), ("propensity", pa.float64()),
    ("context", pa.list_(pa.float64())), ("reward", pa.float64()), ("learned", pa.float64()), ("expected", pa.float64()),
    ("mode", pa.string()), ("filled", pa.bool_()), ("created_ms", pa.int64()), ("ts_ms", pa.int64())])


class ChoicesError(Exception):
    """A log that cannot be read: where, which row, which column, and what was expected."""


def read(source: str | Path) -> list[Attributed]:
    """The rows of a ledger's URL, a .parquet or a .jsonl file, in the order in which their rewards came; `ChoicesError` names a fault."""
    text = str(source)
    if "://" in text:
        where, rows = f"ledger {shown(text)}, table {TABLE}", _of_ledger(text)
    elif not Path(text).is_file():
        raise ChoicesError(f"{text}: no such file; a .parquet or .jsonl file, or a ledger's URL, was expected")
    elif text.endswith(".parquet"):
        where, rows = text, _of_parquet(text)
    elif text.endswith(".jsonl"):
        where, rows = text, _of_lines(text)
    else:
        raise ChoicesError(f"{text}: a name that ends in .parquet or .jsonl was expected")
    out = []
    for number, row in enumerate(rows, 1):
        try:
            out.append(msgspec.convert(row, Attributed))
        except msgspec.ValidationError as error:
            raise ChoicesError(f"{where}, row {number}: {error}") from error
        if len(out[-1].context) != len(out[0].context):
            raise ChoicesError(f"{where}, row {number}: context: {len(out[-1].context)} numbers, the first row has {len(out[0].context)}")
    return sorted(out, key=lambda row: row.ts_ms)


def _of_lines(path: str) -> Iterator[Any]:
    with open(path, encoding="utf-8") as lines:
        for number, line in enumerate(lines, 1):
            if not line.strip():
                continue
            try:
                yield json.loads(line)
            except json.JSONDecodeError as error:
                raise ChoicesError(f"{path}, line {number}: not JSON ({error.msg})") from error


def _of_parquet(path: str) -> Iterator[Any]:
    try:
        yield from pq.read_table(path).to_pylist()
    except (pa.ArrowInvalid, OSError) as error:
        raise ChoicesError(f"{path}: not a parquet file ({error})") from error


def _of_ledger(url: str) -> Iterator[Mapping[str, Any]]:
    with naming(url):
        engine = connect(url, create=False)
        try:
            if not sa.inspect(engine).has_table(TABLE):
                raise ChoicesError(f"ledger {shown(url)}: it has no table {TABLE}; apply the schema: python -m scripts.migrate")
            table = sa.Table(TABLE, sa.MetaData(), autoload_with=engine)
            missing = [c for c in COLUMNS if c not in table.c]
            if missing:
                raise ChoicesError(f"ledger {shown(url)}, table {TABLE}: no column {', '.join(missing)}")
            with reading(engine) as connection:
                for row in connection.execute(sa.select(*(table.c[c] for c in COLUMNS))).mappings():
                    plain = {c: row[c] for c in COLUMNS}
                    plain["filled"] = bool(plain["filled"])
                    if isinstance(plain["context"], str):
                        plain["context"] = json.loads(plain["context"])
                    yield plain
        finally:
            engine.dispose()


def write(rows: Iterable[Attributed], path: Path) -> None:
    """The rows as .parquet or .jsonl, the whole file or nothing."""
    plain = [{c: getattr(row, c) for c in COLUMNS} for row in rows]
    if path.suffix == ".parquet":
        sink = pa.BufferOutputStream()
        pq.write_table(pa.Table.from_pylist(plain, SCHEMA), sink)
        disk.replace(path, sink.getvalue())
    elif path.suffix == ".jsonl":
        disk.replace(path, b"".join(msgspec.json.encode(row) + b"\n" for row in plain))
    else:
        raise ChoicesError(f"{path}: a name that ends in .parquet or .jsonl was expected")
