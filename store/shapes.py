"""Of which types a row's values are. SQLite keeps in any column whatever it is given, so that a forger may turn bytes to text or a number
to letters: nothing is believed of a row before its values are of the types that were written.
"""
from typing import Any

import sqlalchemy as sa

from store import tables

SHOWN = 24
CALLED = {bytes: "bytes", str: "text", int: "a whole number", float: "a fraction", type(None): "nothing"}
WRITTEN = {bytes: "bytes were written", str: "text was written", int: "a whole number was written"}


class NotText(bytes):
    """Kept as text, and no UTF-8."""


CALLED[NotText] = "text that is none"


def text(raw: bytes) -> str | NotText:
    """How SQLite's text is read: what is no UTF-8 is a value of another type and no error of the whole query."""
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return NotText(raw)


SHAPES = {t: tuple(c.type.python_type for c in t.c) for t in tables.LEDGER}


def odd(table: sa.Table, row: Any) -> str:
    """What is of another type than was written, in words; empty where nothing is. `row`: every column, in the table's order."""
    shape = SHAPES[table]
    if tuple(map(type, row)) == shape:
        return ""
    return "; ".join(f"{column.name} is {called(value)}, {WRITTEN[wanted]}"
                     for column, value, wanted in zip(table.c, row, shape) if type(value) is not wanted)


def called(value: object) -> str:
    """A value's type, and its beginning, in words."""
    if value is None:
        return CALLED[type(None)]
    said = ascii(bytes(value) if isinstance(value, bytes) else value)
    return f"{CALLED.get(type(value), type(value).__name__)} ({said[:SHOWN]}{'…' * (len(said) > SHOWN)})"
