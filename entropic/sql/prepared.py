"""Statements that SQLAlchemy compiles once, and that are then run as the text they became.

Compiling is cached by SQLAlchemy too; but to find a statement in that cache, and to turn its parameters into what the
driver takes, costs several times what a small statement costs SQLite. There, unless somebody listens to the engine, the
driver is given the text by ourselves; elsewhere by SQLAlchemy. Errors are SQLAlchemy's either way, and with them what
others do about them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from operator import itemgetter
from typing import Any, NamedTuple

from sqlalchemy import Connection, Dialect

from entropic.sql.listeners import is_unheard

__all__ = ["PreparedInsert", "PreparedQuery", "execute_text"]

_TRANSLATED = "schema_translate_map"  # of a user's engine: which table is meant is decided at each execution


class _Insertion(NamedTuple):
    sql: str
    names: Sequence[str]
    binds: Sequence[Callable[[Any], Any] | None]
    is_positional: bool


class PreparedInsert:
    """An INSERT of rows that are given by name.

    Parameters
    ----------
    statement : sqlalchemy.Insert
        As it would be given to ``connection.execute``.
    """

    def __init__(self, statement: Any) -> None:
        self._statement = statement
        self._compiled: dict[tuple[str, tuple[str, ...]], _Insertion | None] = {}

    def __call__(self, connection: Connection, rows: Sequence[Mapping[str, Any]]) -> None:
        """Insert *rows*, which have all the same names; there is one at least."""
        dialect, names = connection.dialect, tuple(rows[0])
        key = f"{dialect.name}+{dialect.driver}", names
        insertion = self._compiled.get(key)
        if insertion is None and key not in self._compiled:
            insertion = self._compiled[key] = self._compile(dialect, names)
        if insertion is None or connection.get_execution_options().get(_TRANSLATED):
            connection.execute(self._statement, rows)
            return
        columns: list[Iterable[Any]] = []
        for name, bind in zip(insertion.names, insertion.binds, strict=True):
            values = map(itemgetter(name), rows)
            columns.append(values if bind is None else map(bind, values))
        given: Iterable[Any] = zip(*columns, strict=True)
        if not insertion.is_positional:
            given = (dict(zip(insertion.names, values, strict=True)) for values in given)
        execute_text(connection, insertion.sql, list(given))

    def _compile(self, dialect: Dialect, names: tuple[str, ...]) -> _Insertion | None:
        """Return the text; None if SQLAlchemy has more to do for each row, as for a default that Python computes."""
        compiled: Any = self._statement.compile(dialect=dialect, column_keys=list(names))
        order = compiled.positiontup if compiled.positional else list(compiled.binds)
        if compiled.insert_prefetch or compiled.escaped_bind_names or not set(order) <= set(names):
            return None
        binds = [compiled.binds[name].type.dialect_impl(dialect).bind_processor(dialect) for name in order]
        return _Insertion(str(compiled), order, binds, bool(compiled.positional))


@dataclass(frozen=True, slots=True)
class _Place:
    """Where a statement's parameters have a value that is given."""

    name: str
    number: int


class PreparedQuery:
    """A SELECT or DELETE of the rows under some keys.

    Parameters
    ----------
    statement : sqlalchemy.Select or sqlalchemy.Delete
        With ``bindparam("keys", expanding=True)``, and others that are no lists.
    width : int
        How many values a key has.

    Notes
    -----
    Values are texts, and given to the driver as they are; so are those of the rows that come back.
    """

    def __init__(self, statement: Any, *, width: int = 1) -> None:
        self._statement = statement
        self._width = width
        self._compiled: dict[tuple[str, int], tuple[str, Any]] = {}

    def rows(self, connection: Connection, keys: Sequence[Any], **values: str) -> Sequence[Any]:
        """Return the rows of a SELECT, as tuples."""
        return self._run(connection, keys, values).fetchall()  # type: ignore[no-any-return]

    def count(self, connection: Connection, keys: Sequence[Any], **values: str) -> int:
        """Return how many rows a DELETE has deleted."""
        return int(self._run(connection, keys, values).rowcount)

    def _run(self, connection: Connection, keys: Sequence[Any], values: Mapping[str, str]) -> Any:
        if not keys or connection.get_execution_options().get(_TRANSLATED):
            return connection.execute(self._statement, {"keys": keys, **values})
        # Filled up to a power of two by a key that is there already, so that few texts are made.
        places = 1 << (len(keys) - 1).bit_length()
        filled = [*keys, *[keys[-1]] * (places - len(keys))]
        flat = filled if self._width == 1 else [value for key in filled for value in key]
        dialect = connection.dialect
        kind = f"{dialect.name}+{dialect.driver}", places
        sql, template = self._compiled.get(kind) or self._compile(kind, dialect, values)
        if not sql:
            return connection.execute(self._statement, {"keys": keys, **values})

        def given(value: Any) -> Any:
            if type(value) is not _Place:
                return value
            return flat[value.number] if value.name == "keys" else values[value.name]

        if isinstance(template, dict):
            return execute_text(connection, sql, [{name: given(value) for name, value in template.items()}])
        return execute_text(connection, sql, [tuple(map(given, template))])

    def _compile(self, kind: tuple[str, int], dialect: Dialect, values: Mapping[str, str]) -> tuple[str, Any]:
        """Return the text and its parameters; "" if one of them is computed anew at each execution."""
        flat = [_Place("keys", number) for number in range(kind[1] * self._width)]
        marks: Any = flat
        if self._width > 1:
            marks = [tuple(flat[at : at + self._width]) for at in range(0, len(flat), self._width)]
        places = {name: _Place(name, 0) for name in values}
        compiled = self._statement.compile(dialect=dialect)
        if any(bind.callable for bind in compiled.binds.values()):
            made = self._compiled[kind] = "", ()
            return made
        expanded = compiled.construct_expanded_state({**places, "keys": marks})
        template: Any = expanded.positional_parameters if compiled.positional else expanded.parameters
        made = self._compiled[kind] = expanded.statement, template
        return made


def execute_text(connection: Connection, sql: str, parameters: Sequence[Any] = ((),)) -> Any:
    """Run a text with one set of parameters or several; return the driver's cursor, or SQLAlchemy's result of it."""
    dialect: Any = connection.dialect
    if dialect.driver != "pysqlite" or not is_unheard(connection.engine):
        return connection.exec_driver_sql(sql, parameters if len(parameters) > 1 else parameters[0])
    raw: Any = connection.connection.dbapi_connection
    try:
        if len(parameters) == 1:
            return raw.execute(sql, parameters[0])
        return raw.executemany(sql, parameters)
    except dialect.loaded_dbapi.Error as error:
        # As SQLAlchemy itself does with what a driver raises: its own error, and whoever listens for that.
        connection._handle_dbapi_exception(error, sql, parameters, None, None)
