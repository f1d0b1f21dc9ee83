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
from typing import Any, cast

from sqlalchemy import Connection, Dialect, Table, insert

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


def read_arrays(connection: Connection, statement: Any) -> dict[str, Any]:
    """Return what a SELECT gives as NumPy arrays, one for each of its columns.

    Parameters
    ----------
    statement : sqlalchemy.Select
        Of `AnyDouble`, NaN where it is NULL; of `FiniteJSON`, which gives objects; and of integers that are not NULL.

    Notes
    -----
    Of the rows there is never more than a chunk in memory, the driver's included.
    """
    import numpy

    columns = list(statement.selected_columns)
    # Octets grow in their place; to join arrays in the end would take twice the memory.
    octets = [bytearray() for _ in columns]
    objects: list[list[Any]] = [[] for _ in columns]
    for rows in _driver_rows(connection, statement):
        for n, values in enumerate(zip(*rows, strict=True)):
            if isinstance(columns[n].type, FiniteJSON):
                objects[n] += map(_decoded, values)
            else:
                octets[n] += numpy.array(values, _dtype(columns[n].type)).data
    arrays = {}
    for column, found, others in zip(columns, octets, objects, strict=True):
        if isinstance(column.type, FiniteJSON):
            arrays[column.name] = numpy.fromiter(others, "O", len(others))
            continue
        arrays[column.name] = array = numpy.frombuffer(found, _dtype(column.type))
        if connection.dialect.name in _MYSQL and isinstance(column.type, AnyDouble):
            is_infinite = numpy.abs(array) == _MAX
            array[is_infinite] = numpy.copysign(numpy.inf, array[is_infinite])
    return arrays


def _driver_rows(connection: Connection, statement: Any) -> Iterator[list[Any]]:
    # PostgreSQL and MySQL send all rows before the first can be had, unless they are asked not to.
    if not _is_autocommit(connection):
        statement = statement.execution_options(stream_results=True)
    with connection.execute(statement) as result:
        # SQLAlchemy has fetched one row then. For the others the driver's cursor: nothing is to be made of each.
        first, cursor = result.fetchone(), cast(Any, result.cursor)
        if first is not None:
            yield [tuple(first)]
        while first is not None and (rows := cursor.fetchmany(CHUNK)):
            yield rows


def _is_autocommit(connection: Connection) -> bool:
    """Whether it is an engine's for PostgreSQL without transactions, outside which no cursor lives there."""
    driver: Any = connection.connection.dbapi_connection
    return connection.dialect.name == "postgresql" and bool(driver.autocommit)


def _dtype(kind: Any) -> str:
    return "f8" if isinstance(kind, AnyDouble) else "i8"


def _decoded(value: Any) -> Any:
    return json.loads(value) if isinstance(value, str | bytes) else value  # psycopg decodes JSON by itself
