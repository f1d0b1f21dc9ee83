"""How the table of a memoized function grows with the function, and with the library, which made it and may alter it.

All of it happens under the schema lock, and can be repeated: MySQL commits each change of a table by itself. Old rows
are the runs at the new parameters' defaults, so their keys stay. What new outputs are in old rows is not known here:
that there are such rows is noted, until somebody has filled them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

from sqlalchemy import Column, Connection, Dialect, delete, inspect, literal, null, select, text, update

from entropic.errors import SchemaError
from entropic.model.base import is_output
from entropic.model.folders import registered
from entropic.model.parameters import Parameters
from entropic.model.registration import compare_registered, remembered
from entropic.process.logs import get_logger
from entropic.sql.columns import LONG_TEXT
from entropic.sql.database import Database
from entropic.sql.drift import holds_same, same_family
from entropic.sql.schema_lock import schema_lock
from entropic.sql.tables import MetaRow, TableRow
from entropic.sql.upsert import insert_new

if TYPE_CHECKING:
    from alembic.operations import Operations

__all__ = ["grow_table", "has_unfilled", "note_filled"]

log = get_logger(__name__)

_meta: Any = MetaRow.__table__
_tables: Any = TableRow.__table__


class _Growth(NamedTuple):
    """What a table lacks."""

    columns: list[Column[Any]]
    wants_null: bool
    """Whether a row must have a file, as before values stood in rows."""
    registered: dict[str, Any]
    """What is known of the parameters."""


def grow_table(database: Database, parameters: Parameters) -> None:
    """Add what is new of parameters, outputs and the library's own columns, in one transaction under the schema lock.

    Raises
    ------
    SchemaError
        If a parameter is new and has no default, or something else about the parameters changed. Nothing is altered.
    """
    table: Any = parameters.model.__table__
    with database.reading() as connection:
        growth = _growth(connection, parameters)
    if not (growth.columns or growth.wants_null):
        return
    with schema_lock(database) as connection:
        growth = _growth(connection, parameters)
        if not (growth.columns or growth.wants_null):
            return  # another process was first
        names = ", ".join(column.name for column in growth.columns)
        log.info(
            "altering the table %s, to which is added: %s", table.name, names or "that rows need no file"
        )
        if any(is_output(column) for column in growth.columns):
            _note_unfilled(connection, table)
        if growth.wants_null:
            _let_be_null(connection, table, "result_file")
        _add_columns(connection, table, growth.columns, parameters.by_column(parameters.defaults))
        change = update(_tables).where(_tables.c.table_name == table.fullname)
        connection.execute(change.values(parameters=remembered(parameters, growth.registered)))


def _growth(connection: Connection, parameters: Parameters) -> _Growth:
    table: Any = parameters.model.__table__
    row = registered(connection, table.fullname)
    if row is None:
        return _Growth([], wants_null=False, registered={})  # a new table, or one that is not ours
    known = dict(row.parameters)
    compare_registered(parameters, known, may_be_required=False)
    there = {
        column["name"]: column for column in inspect(connection).get_columns(table.name, schema=table.schema)
    }
    for name, p in parameters.params.items():
        if name not in known and p.column.name in there:
            _require_at_default(connection, parameters, name, there[p.column.name]["type"])
    for column in table.columns:
        if is_output(column) and column.name in there:
            _require_same_output(column, there[column.name]["type"], connection.dialect)
    is_strict = "result_file" in there and not there["result_file"]["nullable"]
    columns = [column for column in table.columns if column.name not in there]
    return _Growth(columns, is_strict and table.columns["result_file"].nullable, known)


def _require_at_default(connection: Connection, parameters: Parameters, name: str, actual: Any) -> None:
    """Raise `SchemaError` if rows have another value of a new parameter: its column was that of an output.

    One that was added and not registered, as by a process that was killed, has its default or nothing.
    """
    p = parameters.params[name]
    filled = select(p.column).where(p.column.is_not(None))
    if same_family(actual, p.column.type, connection.dialect):
        with connection.execute(filled) as found:
            is_at_default = all(parameters.is_equal(p, parameters.defaults[name], one) for (one,) in found)
    else:
        is_at_default = connection.scalar(select(literal(1)).where(filled.exists())) is None
    if not is_at_default:
        table: Any = parameters.model.__table__
        raise SchemaError(
            f"{name} is a new parameter, and the rows of the table {table.name!r} have other values in a column of "
            "this name: perhaps those that the function returned. Nothing was run or altered. Give the parameter "
            f"another name, such as {name + '_'!r}; or the function another table (memoize: "
            f"table={table.name + '_2'!r})"
        )


def _require_same_output(column: Any, actual: Any, dialect: Dialect) -> None:
    """Raise `SchemaError` if an output is of another type than what rows have in its column."""
    if not holds_same(column, actual, dialect):
        raise SchemaError(
            f"the column {column.name!r} of the table {column.table.name!r} has what was returned before, as "
            f"{actual.compile(dialect=dialect)}, and what is returned now is {column.type.compile(dialect=dialect)}. "
            "Nothing was run or altered. Keep that in another column, as in "
            f"@memoize(outputs={{{column.name + '_2'!r}: {column.name!r}}}), or in none, with outputs={{}}"
        )


def _add_columns(
    connection: Connection, table: Any, columns: list[Column[Any]], defaults: dict[str, Any]
) -> None:
    operations = _operations(connection)
    for column in columns:
        default = getattr(column.server_default, "arg", None)  # of None too
        # Some types take no default on some server; NULL is then what the rows have until they are filled.
        nullable = column.nullable or default is None
        operations.add_column(
            table.name,
            Column(column.name, column.type, nullable=nullable, server_default=default),
            schema=table.schema,
        )
        value = defaults.get(column.key)
        if column.server_default is None and value is not None:
            # Of rows that have none only: MySQL has committed the column, and others may have filled it by now.
            connection.execute(update(table).where(column.is_(null())).values({column.name: value}))


def _let_be_null(connection: Connection, table: Any, name: str) -> None:
    """Let a column hold NULL; SQLite makes the table anew for that, with all that it has."""
    with (
        _kept(connection, table.name),
        _operations(connection).batch_alter_table(table.name, schema=table.schema) as batch,
    ):
        batch.alter_column(name, existing_type=LONG_TEXT, existing_nullable=False, nullable=True)


@contextmanager
def _kept(connection: Connection, name: str) -> Iterator[None]:
    """Keep a table's triggers on SQLite, which go with the old table, and views of it, which may name what is gone."""
    if connection.dialect.name != "sqlite":
        yield
        return
    triggers = text("SELECT sql FROM sqlite_master WHERE type = 'trigger' AND lower(tbl_name) = lower(:name)")
    definitions = connection.scalars(triggers, {"name": name}).all()
    was_legacy = connection.exec_driver_sql("PRAGMA legacy_alter_table").scalar()
    connection.exec_driver_sql("PRAGMA legacy_alter_table=ON")
    try:
        yield
    finally:
        connection.exec_driver_sql(f"PRAGMA legacy_alter_table={was_legacy}")
    for definition in definitions:
        connection.exec_driver_sql(definition)


def _operations(connection: Connection) -> Operations:
    from alembic.migration import MigrationContext
    from alembic.operations import Operations

    return Operations(MigrationContext.configure(connection))


# Outputs that are newer than rows


def has_unfilled(database: Database, parameters: Parameters) -> bool:
    """Whether outputs were added when there were rows, and nobody has filled them since."""
    asked = select(_meta.c.name).where(_meta.c.name == _unfilled(parameters.model.__table__))
    return database.read(lambda connection: connection.scalar(asked)) is not None


def note_filled(database: Database, parameters: Parameters) -> None:
    """Note that every row has the outputs that its result has."""
    gone = delete(_meta).where(_meta.c.name == _unfilled(parameters.model.__table__))
    database.write(lambda connection: connection.execute(gone), repeatable=True)


def _note_unfilled(connection: Connection, table: Any) -> None:
    # Before the columns, which MySQL commits by themselves.
    if connection.scalar(select(table.c.id).limit(1)) is not None:
        name = {"name": _unfilled(table), "value": table.fullname}
        connection.execute(insert_new(_meta, connection.dialect.name), [name])


def _unfilled(table: Any) -> str:
    return f"unfilled:{hashlib.sha256(table.fullname.encode()).hexdigest()[:16]}"
