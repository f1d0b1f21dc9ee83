"""Rows by their keys, asked of the driver itself on the connection that a thread keeps for look-ups.

SQLAlchemy compiles the statement, once. Running it that way is what a hit costs most after the hash. It is for rows
that are there, and for a driver that is well: of anything else, errors included, nothing is said but `NotAsked`, and
whoever asked goes the way through SQLAlchemy, which connects, waits, tries again and says what is wrong.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from sqlalchemy import Select, bindparam
from sqlalchemy.sql.elements import ColumnElement

from entropic.sql.database import Database
from entropic.sql.forks import statements
from entropic.sql.listeners import unheard
from entropic.sql.transactions import blocks

__all__ = ["NotAsked", "Question", "can_ask"]

_DRIVERS = frozenset({"pysqlite", "psycopg", "pymysql"})


class NotAsked(Exception):
    """The driver could not be asked, or did not answer."""


def can_ask(database: Database) -> bool:
    """Whether there is a connection to keep, and a driver that is known here."""
    return not database.is_memory and database.engine.dialect.driver in _DRIVERS


class Question:
    """A SELECT of rows by the key in one column, of one database.

    Parameters
    ----------
    statement : Select
        Without the condition on the key; its other values are literals.
    column : ColumnElement
        The key.

    Notes
    -----
    Safe between threads: each has a connection of its own, and a cursor on it. What interrupts a thread that asks, such
    as a signal's handler, may ask too.
    """

    def __init__(self, database: Database, statement: Select[Any], column: ColumnElement[Any]) -> None:
        self._database = database
        self._dialect: Any = database.engine.dialect
        self._by_key = statement.where(column == bindparam("key"))
        self._by_keys = statement.where(column.in_(bindparam("keys", expanding=True)))
        self._many: dict[int, tuple[str, list[str]]] = {}
        self.is_unheard = unheard(database.engine)
        self.description: Any = None  # of the rows, as the driver gives it with the first answer
        self.one = self._one()

    def _one(self) -> Callable[[str], Any]:
        """Return the function that asks for one row; it is called on each hit."""
        expanded = self._by_key.compile(dialect=self._dialect).construct_expanded_state({"key": ""})
        sql, database, is_unheard = expanded.statement, self._database, self.is_unheard
        is_positional = self._dialect.positional
        is_sqlite, row = database.dialect == "sqlite", statements.row
        if not is_positional and sql.count("%(key)s") == 1:  # psycopg takes either, and this one quicker
            sql, is_positional = sql.replace("%(key)s", "%s"), True

        def one(key: str) -> Any:
            """Return the row of *key*, None if there is none; with `NotAsked` or an error of the driver's, unknown."""
            if blocks.open or not is_unheard():
                raise NotAsked
            held = database._held.value  # AttributeError: this thread has no connection yet
            if is_sqlite:
                found = row(held.cursor, sql, (key,))
            else:
                found = _row(held, sql, (key,) if is_positional else {"key": key})
            if self.description is None:
                self.description = held.cursor.description
            return found

        return one

    def many(self, keys: Sequence[str]) -> list[Any]:
        """Return the rows under *keys*, in any order: one statement."""
        if blocks.open or not self.is_unheard():
            raise NotAsked
        # Filled up by a key that is there already, so that few statements are compiled.
        places = 1 << (len(keys) - 1).bit_length()
        sql, names = self._many.get(places) or self._compile(places)
        filled = [*keys, *[keys[-1]] * (places - len(keys))]
        parameters = filled if self._dialect.positional else dict(zip(names, filled, strict=True))

        def fetch(connection: Any) -> list[Any]:
            cursor = connection.connection.dbapi_connection.cursor()
            cursor.execute(sql, parameters)
            self.description = cursor.description
            rows: list[Any] = cursor.fetchall()
            return rows

        return self._database.look(fetch)

    def _compile(self, places: int) -> tuple[str, list[str]]:
        marks = [f"key_{place}" for place in range(places)]
        expanded = self._by_keys.compile(dialect=self._dialect).construct_expanded_state({"keys": marks})
        name_of = {mark: name for name, mark in expanded.parameters.items()}
        names = [] if self._dialect.positional else [name_of[mark] for mark in marks]
        self._many[places] = made = expanded.statement, names
        return made


def _row(held: Any, sql: str, parameters: Any) -> Any:
    """Do what `Statements.row` does, on a server, for whose answer no fork need wait."""
    cursor, is_asked = held.cursor, held.is_asked
    if is_asked:
        cursor = cursor.connection.cursor()
    held.is_asked = True
    try:
        cursor.execute(sql, parameters)
        return cursor.fetchone()
    finally:
        held.is_asked = is_asked
