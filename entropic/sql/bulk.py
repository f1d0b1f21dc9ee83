"""Many rows at once, as tuples: straight into the driver, and from it into NumPy.

SQLAlchemy's own way, a dictionary for each row, takes three times as long as the database. What its types would do to a
value that is a double is done here to whole columns.
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import Any

from sqlalchemy import Connection, Dialect, Integer, Table, insert

from entropic.sql.columns import AnyDouble, FiniteJSON
from entropic.sql.upsert import chunks, upsert

__all__ = ["insert_rows", "read_arrays"]

CHUNK = 10_000  # rows: enough to make the statement's own cost small, and little memory
_MYSQL = frozenset({"mysql", "mariadb"})
_MAX = sys.float_info.max


def insert_rows(
    connection: Connection, table: Table, rows: Sequence[tuple[Any, ...]], *, replace: Sequence[str] = ()
) -> None:
    """Insert *rows*, each with a value for every column of *table*.

    Parameters
    ----------
    rows : sequence of tuple
        Plain numbers and None; a NaN becomes NULL.
    replace : sequence of str
        Columns that take the new values where a row with the same primary key is there; without, that is an error. No
        two of *rows* may have the same key then.
    """
    text = _statement(connection.dialect, table, tuple(replace))
    doubles = [n for n, column in enumerate(table.columns) if isinstance(column.type, AnyDouble)]
    for chunk in chunks(rows, CHUNK):
        if connection.dialect.name == "postgresql":
            connection.exec_driver_sql(text, tuple(_columns(chunk, doubles, _without_nan)))
        elif connection.dialect.name in _MYSQL:
            connection.exec_driver_sql(text, list(zip(*_columns(chunk, doubles, _for_mysql), strict=True)))
        else:  # SQLite takes a NaN for NULL by itself
            connection.exec_driver_sql(text, chunk)


@lru_cache(maxsize=64)
def _statement(dialect: Dialect, table: Table, replace: tuple[str, ...]) -> str:
    if dialect.name == "postgresql":
        return _from_arrays(dialect, table, replace)
    names = [column.name for column in table.columns]
    statement = upsert(table, dialect.name, replace) if replace else insert(table)
    compiled = statement.compile(dialect=dialect, column_keys=names)
    return str(compiled) if compiled.positional else str(compiled) % dict.fromkeys(names, "%s")


def _from_arrays(dialect: Dialect, table: Table, replace: tuple[str, ...]) -> str:
    """Return an INSERT whose parameters are whole columns: row by row PostgreSQL is several times slower."""
    quote = dialect.identifier_preparer.quote
    names = ", ".join(quote(column.name) for column in table.columns)
    arrays = ", ".join(f"%s::{column.type.compile(dialect=dialect)}[]" for column in table.columns)
    text = f"INSERT INTO {quote(table.name)} ({names}) SELECT * FROM unnest({arrays})"
    if replace:
        key = ", ".join(quote(column.name) for column in table.primary_key)
        new = ", ".join(f"{quote(name)} = excluded.{quote(name)}" for name in replace)
        text += f" ON CONFLICT ({key}) DO UPDATE SET {new}"
    return text


def _columns(rows: Sequence[tuple[Any, ...]], doubles: Sequence[int], bind: Any) -> list[list[Any]]:
    columns = [list(column) for column in zip(*rows, strict=True)]
    for n in doubles:
        columns[n] = bind(columns[n])
    return columns


def _without_nan(values: list[Any]) -> list[Any]:
    return [value if value == value else None for value in values]


def _for_mysql(values: list[Any]) -> list[Any]:
    return [
        value if value is not None and -_MAX < value < _MAX else _rare_for_mysql(value) for value in values
    ]


def _rare_for_mysql(value: float | None) -> float | None:
    if value is None or value != value:
        return None
    return math.copysign(_MAX if math.isinf(value) else math.nextafter(_MAX, 0), value)


def read_arrays(connection: Connection, statement: Any) -> Any:
    """Return what a SELECT gives as a structured NumPy array with a field for each of its columns.

    Parameters
    ----------
    statement : sqlalchemy.Select
        Of integers that are not NULL, of `AnyDouble` and of `FiniteJSON`, which is an object.
    """
    import numpy

    columns = list(statement.selected_columns)
    dtype = [(column.name, _dtype(column.type)) for column in columns]
    parts = [numpy.array(rows, dtype) for rows in _driver_rows(connection, statement)]
    array = numpy.concatenate(parts) if parts else numpy.empty(0, dtype)
    for column in columns:
        if connection.dialect.name in _MYSQL and isinstance(column.type, AnyDouble):
            values = array[column.name]
            is_infinite = numpy.abs(values) == _MAX
            values[is_infinite] = numpy.copysign(numpy.inf, values[is_infinite])
        if isinstance(column.type, FiniteJSON):
            array[column.name] = [_decoded(value) for value in array[column.name]]
    return array


def _driver_rows(connection: Connection, statement: Any) -> Iterator[list[Any]]:
    with connection.execute(statement) as result:
        cursor: Any = result.cursor  # the driver's: its rows need nothing made of each
        while rows := cursor.fetchmany(CHUNK):
            yield rows if isinstance(rows, list) else list(rows)  # PyMySQL gives a tuple


def _dtype(kind: Any) -> str:
    if isinstance(kind, AnyDouble):
        return "f8"
    return "i8" if isinstance(kind, Integer) else "O"


def _decoded(value: Any) -> Any:
    return json.loads(value) if isinstance(value, str | bytes) else value  # psycopg decodes JSON by itself
