"""What a column of a table that is there holds, where that is less than its model says.

A table may be older than its model, or made by others: narrower, in another character set, with an Enum type that lacks
the newest member. A server would refuse such a value only once the run is over, or cut it without a word. So a Store
finds out when it opens, and refuses the value before anything runs.
"""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import JSON, Column, Connection, Dialect, Inspector, String, Table
from sqlalchemy.exc import CompileError
from sqlalchemy.schema import CreateColumn
from sqlalchemy.types import TypeEngine

from entropic.sql.columns import FiniteJSON
from entropic.sql.widths import MYSQL, Widths, widths

__all__ = ["Capacity", "capacities", "foreign_character"]

# MySQL's is that of Windows; PostgreSQL's own is asked for in upper case.
_NARROW_CODECS = {"latin1": "cp1252"}
_TWO_BYTES = frozenset({"utf8", "utf8mb3", "ucs2"})
_EVERY = frozenset({"utf8mb4", "utf16", "utf16le", "utf32", "gb18030", "UTF8", "SQL_ASCII", "binary"})


@dataclass(frozen=True, slots=True)
class Capacity:
    """What a column holds, where that is less than its model says.

    Attributes
    ----------
    type_ : str
        The column's type in the database.
    charsets : mapping
        Character sets that a text has to pass through, by name; each with what to do about it.
    choices : frozenset of str or None
        Those of the column's own Enum type, of all such columns.
    is_narrow : bool
        Whether there is anything that the model takes and the column does not.
    widths : Widths
        Of what the type holds.
    way : str
        What makes the column hold more, with a place for the value.
    """

    type_: str
    widths: Widths
    charsets: Mapping[str, str]
    choices: frozenset[str] | None
    is_narrow: bool
    way: str

    def refusal(self, value: Any, bound: Any) -> str | None:
        """Say why the column cannot hold a typed *value*, of which *bound* goes to the database; None if it can."""
        if self.choices is not None and isinstance(bound, str) and bound not in self.choices:
            return (
                f"is {bound!r}, which the column in the database, {self.type_}, does not take: "
                f"{self.way.format(value=_literal(bound))}, then open it again"
            )
        if isinstance(bound, str):
            for charset, way in self.charsets.items():
                if (character := foreign_character(bound, charset)) is not None:
                    return (
                        f"holds {character!r} (U+{ord(character):04X}), which the character set {charset} lacks: "
                        f"{way}, then open it again"
                    )
        reason = self.widths.refusal(value, bound)
        return reason and f"{reason} in the database, which is {self.type_}: {self.way}, then open it again"

    def refusal_of_document(self, document: Any) -> str | None:
        """Say why a JSON column cannot hold a *document*; None if it can."""
        return self.refusal(None, json.dumps(document, ensure_ascii=False)) if self.charsets else None


def foreign_character(text: str, charset: str) -> str | None:
    """Return the first character of *text* that a server's character set lacks; None if it has all."""
    if text.isascii() or charset in _EVERY:
        return None
    if charset in _TWO_BYTES:
        return next((one for one in text if one > "\uffff"), None)
    codec = _codec(charset)
    return next((one for one in text if not _has(codec, one)), None)


def _codec(charset: str) -> str:
    name = _NARROW_CODECS.get(charset) or charset.lower().replace("win", "cp").replace("koi8", "koi8_")
    try:
        return codecs.lookup(name).name
    except LookupError:
        return "ascii"  # which all others have


def _has(codec: str, character: str) -> bool:
    try:
        return character.encode(codec).decode(codec) == character
    except UnicodeError:
        return False


def capacities(connection: Connection, inspector: Inspector, table: Table) -> dict[str, Capacity]:
    """Return the capacity of each column that holds less than its model says, by the name of the column.

    One statement, where there are character sets; what the inspector has seen is not asked for again.
    """
    dialect = connection.dialect
    reflected = inspector.get_columns(table.name, schema=table.schema)
    charsets = _Charsets(connection, inspector, table)
    found = {}
    for each in reflected:
        column = table.columns.get(each["name"])
        if column is not None and (one := _capacity(column, each["type"], dialect, charsets)) is not None:
            found[column.name] = one
    for column in table.columns:
        if getattr(column.type, "create_constraint", False) and column.name not in found:
            found.update(_of_check(column, inspector, dialect))
    return found


def _of_check(column: Column[Any], inspector: Inspector, dialect: Dialect) -> dict[str, Capacity]:
    """Return the capacity of a column of text whose choices a CHECK lists."""
    start = re.compile(rf'[("`]*{re.escape(column.name)}[)"`]*(::\w+)? *(IN|= ANY)\b', re.IGNORECASE)
    for check in inspector.get_check_constraints(column.table.name, schema=column.table.schema):
        if start.match(check["sqltext"]):
            listed = re.findall(r"'((?:[^']|'')*)'", check["sqltext"])
            choices = frozenset(text.replace("''", "'") for text in listed)
            lacks = not set(column.type.enums) <= choices  # type: ignore[attr-defined]
            type_ = f"restricted by the CHECK {check['name']}"
            way = f"drop or change that constraint of the table {column.table.name}, in a migration of your project"
            return {column.name: Capacity(type_, Widths(), {}, choices, lacks, way)}
    return {}


def _capacity(
    column: Column[Any], actual: TypeEngine[Any], dialect: Dialect, charsets: _Charsets
) -> Capacity | None:
    try:
        held = widths(actual, dialect, is_bytewise=charsets.is_bytewise)
    except CompileError:  # a type that SQLAlchemy could not reflect
        return None
    narrower = held.where_narrower_than(widths(column.type, dialect))
    there, wanted = getattr(actual, "enums", None), getattr(column.type, "enums", None)
    lacks_choices = there is not None and (wanted is None or not set(wanted) <= set(there))
    lacking = charsets.of(column, actual)
    is_narrow = lacks_choices or bool(lacking) or narrower != Widths()
    if there is None and not is_narrow:
        return None
    way = _with_choice(column, actual, dialect) if lacks_choices else _wider(column, dialect)
    choices = None if there is None else frozenset(there)
    return Capacity(actual.compile(dialect=dialect), narrower, lacking, choices, is_narrow, way)


def _with_choice(column: Column[Any], actual: Any, dialect: Dialect) -> str:
    prepare: Any = dialect.identifier_preparer
    if dialect.name == "postgresql":
        return _plain_braces(f"ALTER TYPE {prepare.format_type(actual)} ADD VALUE ") + "{value}"
    every = ", ".join(map(_literal, actual.enums))
    null = "" if column.nullable else " NOT NULL"
    start = f"ALTER TABLE {prepare.format_table(column.table)} MODIFY {prepare.format_column(column)} ENUM({every}, "
    return _plain_braces(start) + "{value})" + null


def _plain_braces(text: str) -> str:
    return text.replace("{", "{{").replace("}", "}}")


def _literal(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def _wider(column: Column[Any], dialect: Dialect) -> str:
    """Return the statement that gives a column the type of its model."""
    prepare = dialect.identifier_preparer
    table, name = prepare.format_table(column.table), prepare.format_column(column)
    if dialect.name == "postgresql":
        return f"ALTER TABLE {table} ALTER COLUMN {name} TYPE {column.type.compile(dialect=dialect)}"
    if dialect.name in MYSQL:
        return f"ALTER TABLE {table} MODIFY {str(CreateColumn(column).compile(dialect=dialect)).strip()}"
    return "SQLite changes no column's type, so give the model another __tablename__ (memoize: table=)"


class _Charsets:
    """The character sets of a table, and what to do about each."""

    def __init__(self, connection: Connection, inspector: Inspector, table: Table) -> None:
        self.is_bytewise = False
        self._everywhere: dict[str, str] = {}
        self._default: str | None = None
        self._of_documents: dict[str, str] = {}
        self._is_escaping = _is_escaping(connection.dialect)
        self._column_way = ""
        if connection.dialect.name == "postgresql":
            self._ask_postgresql(connection)
        elif connection.dialect.name in MYSQL:
            self._ask_mysql(connection, inspector, table)

    def _ask_postgresql(self, connection: Connection) -> None:
        server, client = connection.exec_driver_sql(
            "SELECT current_setting('server_encoding'), current_setting('client_encoding')"
        ).one()
        self.is_bytewise = server == "SQL_ASCII"
        if client not in _EVERY:
            way = "connect with ?client_encoding=utf8 in the URL"
            self._of_documents = {"US_ASCII": way}  # psycopg reads documents as UTF-8 whatever they are in
            self._everywhere = {} if client == server else {client: way}
        if server not in _EVERY:
            self._everywhere[server] = "use a database that was made with ENCODING 'UTF8'"

    def _ask_mysql(self, connection: Connection, inspector: Inspector, table: Table) -> None:
        client = connection.exec_driver_sql("SELECT @@character_set_client").scalar_one()
        if client not in _EVERY:
            self._everywhere[client] = "connect with ?charset=utf8mb4 in the URL"
        options = inspector.get_table_options(table.name, schema=table.schema)
        self._default = next(
            (value for name, value in options.items() if name.endswith("default charset")), None
        )
        name = connection.dialect.identifier_preparer.format_table(table)
        collation = (
            "utf8mb4_nopad_bin" if getattr(connection.dialect, "is_mariadb", False) else "utf8mb4_0900_bin"
        )
        self._column_way = f"ALTER TABLE {name} CONVERT TO CHARACTER SET utf8mb4 COLLATE {collation}"

    def of(self, column: Column[Any], actual: Any) -> dict[str, str]:
        """Return the character sets that a text of *column* passes through, of which some lack characters."""
        if isinstance(column.type, JSON | FiniteJSON):
            # JSONB keeps no escapes.
            is_spelled_out = not self._is_escaping or type(actual).__name__ == "JSONB"
            return {**self._everywhere, **self._of_documents} if is_spelled_out else {}
        if not isinstance(actual, String):
            return {}
        own = getattr(actual, "charset", None) or self._default
        return {**self._everywhere, **({} if own is None or own in _EVERY else {own: self._column_way})}


def _is_escaping(dialect: Dialect) -> bool:
    """Whether JSON is written in ASCII, as it is unless the user's engine was given a serializer."""
    write = getattr(dialect, "_json_serializer", None) or json.dumps
    return str(write("\u00e9")).isascii()
