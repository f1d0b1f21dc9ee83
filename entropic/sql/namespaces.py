"""PostgreSQL's schemas: tables of one name must not share the library's records.

What the library knows of a table it keeps under its name, and with its schema only if the model names one. A search
path may lead the library's tables to a schema that all use, and each user's tables to one of their own. Then the table
that was made first has the name, and the library's facts say in which schema it is.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection, Table, bindparam, insert, select, text

from entropic.errors import SchemaError
from entropic.sql.tables import MetaRow

__all__ = ["note_schemas", "refuse_shared_records"]

_meta: Any = MetaRow.__table__
_FACT = "schema of {}"
_PLACES = text(
    "SELECT c.relname, n.nspname, pg_table_is_visible(c.oid) FROM pg_catalog.pg_class c "
    "JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace "
    "WHERE c.relkind IN ('r', 'p') AND c.relname IN :names "
    "UNION ALL SELECT NULL, current_schema(), false"
).bindparams(bindparam("names", expanding=True))


def refuse_shared_records(connection: Connection, tables: Sequence[Table]) -> None:
    """Raise `SchemaError` if what is known of one of *tables* is known of another of its name, in another schema.

    A table that is not there yet will be made in the first schema of the search path.
    """
    names = [table.name for table in tables if table.schema is None]
    if connection.dialect.name != "postgresql" or not names:
        return
    schemas, visible = _places(connection, names)
    known = _known(connection, names)
    library = visible[_meta.name]
    for name in names:
        own = visible[name]
        others = {known[name]} if name in known else schemas[name] if own != library else set()
        if other := min(others - {own}, default=None):
            raise SchemaError(
                f"the table {name} of the schema {own!r} and that of {other!r} would share what entropic knows of "
                f"their results, as its own tables are in {library!r}. Nothing was made. Name the schema in the "
                f"model, as in __table_args__ = {{'schema': {own!r}}}, or choose another __tablename__"
            )


def note_schemas(connection: Connection, tables: Sequence[Table]) -> None:
    """Note where tables are that have just been made, unless that is where the library's are."""
    names = [table.name for table in tables if table.schema is None]
    if connection.dialect.name != "postgresql" or not names:
        return
    _, visible = _places(connection, names)
    known = _known(connection, names)
    for name in names:
        if visible[name] != visible[_meta.name] and name not in known:
            connection.execute(insert(_meta).values(name=_FACT.format(name), value=visible[name]))


def _places(connection: Connection, names: Sequence[str]) -> tuple[dict[str, set[str]], dict[str, str]]:
    """Return by name all schemas that have such a table, and the one whose is meant, or will be made."""
    names = [_meta.name, *names]
    rows = connection.execute(_PLACES, {"names": names}).all()
    first = next(schema for name, schema, _ in rows if name is None)
    schemas: dict[str, set[str]] = {name: set() for name in names}
    visible = dict.fromkeys(names, first)
    for name, schema, is_visible in rows:
        if name is not None:
            schemas[name].add(schema)
            visible |= {name: schema} if is_visible else {}
    return schemas, visible


def _known(connection: Connection, names: Sequence[str]) -> dict[str, str]:
    facts = {_FACT.format(name): name for name in names}
    rows = connection.execute(select(_meta.c.name, _meta.c.value).where(_meta.c.name.in_(facts)))
    return {facts[fact]: schema for fact, schema in rows}
