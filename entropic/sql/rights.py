"""Which rights a role lacks that has to write: asked when a Store opens, not found out after a run."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from sqlalchemy import Connection, Table, func, literal, select
from sqlalchemy.exc import DBAPIError

from entropic.errors import SchemaError
from entropic.sql.database import Database
from entropic.sql.tables import AttemptRow, ClaimRow, FileRow
from entropic.sql.urls import shown
from entropic.sql.versions import is_denied

__all__ = ["explained_denial", "missing_rights"]

_ALL = ("SELECT", "INSERT", "UPDATE", "DELETE")
_LACKS = re.compile(r"\b([A-Z]+) command denied")

Needed = Mapping[Any, tuple[str, ...]]
Lacks = list[tuple[str, str]]


class _ReadOnlyError(Exception):
    """Nobody may write, whatever the rights are: this is a replica, or a session or server that only reads."""


def missing_rights(database: Database, table: Table) -> str | None:
    """Return what this role may not do that a run needs, and what would give it; None if nothing is missing.

    SQLite has no rights but those of its file, which cannot be asked beforehand.
    """
    if database.dialect == "sqlite":
        return None
    needed = {
        table: _ALL,
        ClaimRow.__table__: _ALL,
        FileRow.__table__: ("SELECT", "INSERT", "DELETE"),
        AttemptRow.__table__: ("SELECT", "INSERT"),
    }
    is_postgresql = database.dialect == "postgresql"
    try:
        with database.reading() as connection:
            role, lacks = (_ask_postgresql if is_postgresql else _ask_mysql)(connection, needed)
    except _ReadOnlyError:
        return (
            f"the database {shown(database.url)} may only be read here, as a replica may. Records can be read; nothing "
            "was run. Name the server that may be written in the URL, or end what keeps it or this session read-only"
        )
    if not lacks:
        return None
    rights = ", ".join(right for right in _ALL if any(right == one for _, one in lacks))
    where = ", ".join(dict.fromkeys(name for name, _ in lacks))
    if is_postgresql:
        way = f'GRANT {rights} ON {where} TO "{role}"; or make the role a member of the group that owns them'
    else:
        names = dict.fromkeys(name for name, _ in lacks)
        each = {name: ", ".join(right for right in _ALL if (name, right) in lacks) for name in names}
        way = "; ".join(f"GRANT {lacking} ON {name} TO {role}" for name, lacking in each.items())
    return (
        f"the role {repr(role) if is_postgresql else role} may not write in the database "
        f"{shown(database.url)}: it lacks {rights} on {where}. Records can be read; nothing was run. Let the owner of "
        f"the tables run: {way}"
    )


def _ask_postgresql(connection: Connection, needed: Needed) -> tuple[str, Lacks]:
    quoted = connection.dialect.identifier_preparer.format_table
    # As a value, not in the text of a statement, for which some drivers want percent signs doubled.
    is_doubled = connection.dialect.paramstyle in {"format", "pyformat"}
    names = {table: quoted(table).replace("%%", "%") if is_doubled else quoted(table) for table in needed}
    asked = [(names[table], right) for table, rights in needed.items() for right in rights]
    columns = [func.has_table_privilege(literal(name), literal(right)) for name, right in asked]
    is_read_only = func.current_setting("transaction_read_only")
    role, read_only, *may = connection.execute(select(func.current_user(), is_read_only, *columns)).one()
    if read_only == "on":
        raise _ReadOnlyError
    return role, [one for one, is_given in zip(asked, may, strict=True) if not is_given]


def _ask_mysql(connection: Connection, needed: Needed) -> tuple[str, Lacks]:
    """Ask for the plans of statements, which takes their rights, in whatever way they were given; nothing is run."""
    quoted = connection.dialect.identifier_preparer
    lacks = []
    for table, rights in needed.items():
        name, column = quoted.format_table(table), quoted.format_column(next(iter(table.columns)))
        statements = {
            "INSERT": f"INSERT INTO {name} SELECT * FROM {name} WHERE FALSE",
            "UPDATE": f"UPDATE {name} SET {column} = {column} WHERE FALSE",
            "DELETE": f"DELETE FROM {name} WHERE FALSE",
        }
        lacking = [_denied(connection, statements[right]) for right in rights if right in statements]
        lacks += [(name, right) for right in dict.fromkeys(lacking) if right is not None]
    user, _, host = connection.exec_driver_sql("SELECT CURRENT_USER()").scalar_one().rpartition("@")
    return f"'{user}'@'{host}'", lacks


def _denied(connection: Connection, statement: str) -> str | None:
    """Return the right that a statement would take and this user does not have."""
    try:
        connection.exec_driver_sql(f"EXPLAIN {statement}")
    except DBAPIError as error:
        found = _LACKS.search(str(error.orig))
        if found is None and is_denied(error):
            raise _ReadOnlyError from error
        if found is None:
            raise
        return found[1]
    return None


@contextmanager
def explained_denial(database: Database) -> Iterator[None]:
    """Raise `SchemaError` for what a role may not do that registers a table or its folder, or adds a column to it."""
    try:
        yield
    except DBAPIError as error:
        if not is_denied(error):
            raise
        raise SchemaError(
            f"the database {shown(database.url)} does not let this user register the table or its folder, or bring it "
            f"up to date: {error.orig}. Nothing was run. Let somebody who may open the Store once, with the code of "
            "now, and adopt the folder if that is what you want"
        ) from error
