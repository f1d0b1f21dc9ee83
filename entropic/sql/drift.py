"""Compare a table in the database with its model.

The verdict needs the inspector only, so that every Store that opens can afford it: missing columns, columns that an
insert would have to fill, another kind of storage, single precision, another primary key. What changes no value is
left to the log. Alembic is imported only once something is wrong, to show the operations that put it right.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

from sqlalchemy import Column, Connection, Dialect, Enum, Inspector, Interval, Table, inspect
from sqlalchemy.exc import CompileError
from sqlalchemy.schema import CreateColumn
from sqlalchemy.types import TypeDecorator, TypeEngine

from entropic.errors import SchemaError
from entropic.printable import one_line
from entropic.process.logs import get_logger
from entropic.sql.capacity import Capacity, capacities
from entropic.sql.columns import Choice, ExactDecimal
from entropic.sql.database import Database

__all__ = ["check_user_table", "drift", "holds_same", "same_family"]

log = get_logger(__name__)

INTEGERS = frozenset(["BIGINT", "INT", "INTEGER", "MEDIUMINT", "SMALLINT", "TINYINT"])
FRACTIONS = frozenset(["DEC", "DECIMAL", "DOUBLE", "FLOAT", "NUMERIC", "REAL"])
FAMILIES = {
    "number": INTEGERS | FRACTIONS | {"BIT", "BOOL", "BOOLEAN", "YEAR"},
    "text": {
        "CHAR",
        "CLOB",
        "ENUM",
        "JSON",
        "LONGTEXT",
        "MEDIUMTEXT",
        "NCHAR",
        "NVARCHAR",
        "SET",
        "TEXT",
        "TINYTEXT",
    }
    | {"UUID", "VARCHAR"},
    "time": {"DATE", "DATETIME", "INTERVAL", "TIME", "TIMESTAMP"},
    "binary": {"BINARY", "BLOB", "BYTEA", "LONGBLOB", "MEDIUMBLOB", "TINYBLOB", "VARBINARY"},
}
FAMILY_OF = {word: family for family, words in FAMILIES.items() for word in words}

# PostgreSQL has these as types of their own and converts none of them to or from text or numbers by itself.
STRICT = {"BOOLEAN": "boolean", "INTERVAL": "interval", "JSON": "json", "JSONB": "json", "UUID": "uuid"}

# Which no other column of their family can stand in for: what was written as the one is not read as the other.
TOLD_APART = frozenset({"BOOLEAN", "DATE", "DATETIME", "TIME"})
SYNONYMS = {"BOOL": "BOOLEAN", "TINYINT": "BOOLEAN", "TIMESTAMP": "DATETIME"}

SINGLE_PRECISION = {"postgresql": {"REAL"}, "mysql": {"FLOAT"}, "mariadb": {"FLOAT"}}


@dataclass
class _Difference:
    """What is wrong with one table; empty lists for one that fits."""

    missing: list[Column[Any]] = field(default_factory=list)
    unfilled: list[dict[str, Any]] = field(default_factory=list)
    types: list[tuple[Column[Any], TypeEngine[Any], str]] = field(default_factory=list)
    generated: list[str] = field(default_factory=list)
    keys: tuple[list[str], list[str]] | None = None

    def lines(self, dialect: Dialect) -> list[str]:
        """Say it, one sentence part for each column."""
        found = [f"in the model, not in the table: {_definition(column, dialect)}" for column in self.missing]
        found += [
            f"in the table, NOT NULL without a default, not in the model: {each['name']} {_ddl(each['type'], dialect)}"
            for each in self.unfilled
        ]
        found += [
            f"type differs: {column.name} is {_ddl(actual, dialect)} in the table, the model says "
            f"{_ddl(column.type, dialect)}{hint}"
            for column, actual, hint in self.types
        ]
        found += [
            f"generated in the table, so that no row can say what the model does: {name}"
            for name in self.generated
        ]
        if self.keys is not None:
            actual_key, wanted_key = (", ".join(names) or "nothing" for names in self.keys)
            found.append(f"primary key differs: it is {actual_key} in the table, the model says {wanted_key}")
        return found


def drift(connection: Connection, table: Table) -> list[str]:
    """Say where *table* in the database no longer fits its definition; an empty list if it does.

    Extra columns that an insert need not fill, lengths and nullability are logged at DEBUG only.
    """
    return _compare(connection, inspect(connection), table).lines(connection.dialect)


def check_user_table(database: Database, table: Table, model_name: str) -> dict[str, Capacity]:
    """Compare a user's table with its model.

    Returns
    -------
    dict
        The columns that hold less than the model says.

    Raises
    ------
    SchemaError
        If they differ. The text names the columns, the ``ALTER TABLE`` and the Alembic operations that would help.
    """
    with database.reading() as connection:
        inspector = inspect(connection)
        difference = _compare(connection, inspector, table)
        if lines := difference.lines(connection.dialect):
            raise SchemaError(_explain(connection, table, difference, lines, model_name))
        return capacities(connection, inspector, table)


def same_family(one: TypeEngine[Any], other: TypeEngine[Any], dialect: Dialect) -> bool:
    """Whether both types are stored as the same kind of thing on *dialect*; true where one is not known."""
    families = {_family(one, dialect), _family(other, dialect)}
    return len(families) == 1 or None in families


def holds_same(column: Column[Any], actual: TypeEngine[Any], dialect: Dialect) -> bool:
    """Whether a column of type *actual* holds what *column* does, and gives what it has as that."""
    if _type_hint(column, actual, dialect) is not None:
        return False
    stored, wanted = (
        SYNONYMS.get(word, word) for word in (_word(actual, dialect), _word(column.type, dialect))
    )
    return stored == wanted or TOLD_APART.isdisjoint({stored, wanted})


def _compare(connection: Connection, inspector: Inspector, table: Table) -> _Difference:
    dialect = connection.dialect
    actual = {column["name"]: column for column in inspector.get_columns(table.name, schema=table.schema)}
    difference = _Difference(missing=[column for column in table.columns if column.name not in actual])
    for name, reflected in actual.items():
        if name in table.columns:
            hint = _type_hint(table.columns[name], reflected["type"], dialect)
            if hint is not None:
                difference.types.append((table.columns[name], reflected["type"], hint))
            if _is_generated(reflected):
                difference.generated.append(name)
            elif table.columns[name].nullable != reflected["nullable"]:
                log.debug("%s.%s: nullable is %s in the table only", table.name, name, reflected["nullable"])
        elif _must_be_filled(reflected):
            difference.unfilled.append(dict(reflected))
        else:
            log.debug("%s.%s is in the table, not in the model", table.name, name)
    difference.keys = _key_difference(inspector, table)
    return difference


def _is_generated(reflected: Any) -> bool:
    """Whether the database refuses any value that is given for a column."""
    return "computed" in reflected or bool((reflected.get("identity") or {}).get("always"))


def _must_be_filled(reflected: Any) -> bool:
    filled_by_server = (
        reflected.get("default") is not None
        or "computed" in reflected
        or "identity" in reflected
        or reflected.get("autoincrement") is True
    )
    return not reflected["nullable"] and not filled_by_server


def _key_difference(inspector: Inspector, table: Table) -> tuple[list[str], list[str]] | None:
    actual = inspector.get_pk_constraint(table.name, schema=table.schema)["constrained_columns"]
    wanted = [column.name for column in table.primary_key]
    return None if set(actual) == set(wanted) else (actual, wanted)


def _type_hint(column: Column[Any], actual: TypeEngine[Any], dialect: Dialect) -> str | None:
    """Return None if *actual* holds what the model's type holds, else what to add to the sentence, maybe nothing."""
    if not same_family(actual, column.type, dialect) and not _is_older_decimal(column.type, actual, dialect):
        return ""
    stored, wanted = _word(actual, dialect), _word(column.type, dialect)
    if stored in SINGLE_PRECISION.get(dialect.name, ()):
        return "; it keeps 7 digits only: declare it Mapped[float] or Double, and change the table's column"
    if dialect.name != "sqlite" and stored in INTEGERS and wanted in FRACTIONS:
        return "; it would round every value"
    return None


def _is_older_decimal(wanted: TypeEngine[Any], actual: TypeEngine[Any], dialect: Dialect) -> bool:
    """Whether SQLite keeps as doubles what a new table would keep as text: up to 15 digits they are the same."""
    return (
        dialect.name == "sqlite"
        and isinstance(wanted, ExactDecimal)
        and _word(actual, dialect) in {"NUMERIC", "DECIMAL"}
    )


def _family(type_: TypeEngine[Any], dialect: Dialect) -> str | None:
    word = _word(type_, dialect)
    if dialect.name == "postgresql":
        if getattr(type_, "native_enum", False):
            return "enum"
        if word in STRICT:
            return STRICT[word]
    return FAMILY_OF.get(word)


def _word(type_: TypeEngine[Any], dialect: Dialect) -> str:
    """Return the first word of the type as *dialect* writes it in DDL; an array's keeps its brackets."""
    return _ddl(type_, dialect).partition("(")[0].partition(" ")[0].upper()


def _ddl(type_: TypeEngine[Any], dialect: Dialect) -> str:
    try:
        return type_.compile(dialect=dialect)
    except CompileError:  # a type that SQLAlchemy could not reflect
        return "of a type that SQLAlchemy does not know"


def _definition(column: Column[Any], dialect: Dialect) -> str:
    return str(CreateColumn(column).compile(dialect=dialect))


def _explain(
    connection: Connection, table: Table, difference: _Difference, lines: Sequence[str], model_name: str
) -> str:
    text = f"the table {table.name} does not match the model {model_name}. Nothing was read or written."
    text += "".join(f"\n  {one_line(line)}" for line in lines)
    if statements := list(_alter_statements(connection, table, difference)):
        text += "\nIn SQL:" + "".join(f"\n  {statement}" for statement in statements)
    if operations := _operations(connection, table, difference):
        text += "\nIn an Alembic migration of your project:" + "".join(f"\n  {line}" for line in operations)
    if any(not column.nullable and column.server_default is None for column in difference.missing):
        text += (
            "\nThe rows that are there need a value for a NOT NULL column: "
            "declare it with param(default=...), or server_default=..."
        )
    return text


def _alter_statements(connection: Connection, table: Table, difference: _Difference) -> Iterator[str]:
    from sqlalchemy.dialects.postgresql import CreateEnumType

    name = connection.dialect.identifier_preparer.format_table(table)
    for column in difference.missing:
        if not column.primary_key:
            if (own := _own_type(column.type, connection.dialect)) is not None:
                yield f"{str(CreateEnumType(own).compile(dialect=connection.dialect)).strip()};"
            yield f"ALTER TABLE {name} ADD COLUMN {_definition(column, connection.dialect)};"


def _operations(connection: Connection, table: Table, difference: _Difference) -> list[str]:
    """Return the Alembic operations, as lines of Python. None of them drops anything."""
    from alembic.autogenerate import render_python_code
    from alembic.migration import MigrationContext
    from alembic.operations import ops

    place: Any = {"schema": table.schema}
    changes: list[Any] = [
        ops.AddColumnOp(table.name, _portable(column, connection.dialect), **place)
        for column in difference.missing
        if not column.primary_key
    ]
    changes += [
        ops.AlterColumnOp(
            table.name,
            column.name,
            existing_type=actual,
            modify_type=_plain(column.type, connection.dialect),
            existing_nullable=column.nullable,
            **place,
        )
        for column, actual, _ in difference.types
    ]
    changes += [
        ops.AlterColumnOp(table.name, each["name"], existing_type=each["type"], modify_nullable=True, **place)
        for each in difference.unfilled
    ]
    if not changes:
        return []
    script = ops.UpgradeOps([ops.ModifyTableOps(table.name, changes, **place)])
    code = render_python_code(
        script,
        render_as_batch=connection.dialect.name == "sqlite",
        # What is true is 1 to some, and an error to others.
        migration_context=MigrationContext.configure(connection),
    )
    lines = [line for line in code.splitlines() if line.strip() and not line.lstrip().startswith("#")]
    lines = textwrap.dedent("\n".join(lines)).splitlines()
    own = [_own_type(column.type, connection.dialect) for column in difference.missing]
    creations = [f"sa.{type_!r}.create(op.get_bind(), checkfirst=True)" for type_ in own if type_ is not None]
    names = [name for name in ("postgresql", "mysql") if f"{name}." in code]
    imports = [f"from sqlalchemy.dialects import {', '.join(names)}"] if names else []
    return [*imports, *creations, *lines]


def _own_type(type_: TypeEngine[Any], dialect: Dialect) -> Any:
    """Return the type that another statement must make before a column can have it; None if there is no need."""
    enum = type_.enum if isinstance(type_, Choice) else type_
    return enum if dialect.name == "postgresql" and isinstance(enum, Enum) and enum.native_enum else None


def _plain(type_: TypeEngine[Any], dialect: Dialect) -> TypeEngine[Any]:
    """Return a type of SQLAlchemy's own that is the same on *dialect*, and has a name that can be pasted."""
    type_ = getattr(type_, "_variant_mapping", {}).get(dialect.name, type_)
    if isinstance(type_, Interval):
        return Interval()
    if not isinstance(type_, TypeDecorator):
        return type_
    # A migration that names a type of entropic's would change when entropic does.
    loaded: Any = type_.load_dialect_impl(dialect)
    places = ("sqlalchemy.sql.sqltypes", "sqlalchemy.dialects.mysql")
    for class_ in type(loaded).__mro__:
        if class_.__module__.startswith(places) and not class_.__name__.startswith("_"):
            loaded = loaded if class_ is type(loaded) else loaded.adapt(class_)
            break
    return cast("TypeEngine[Any]", loaded)


def _portable(column: Column[Any], dialect: Dialect) -> Column[Any]:
    return Column(
        column.name,
        _plain(column.type, dialect),
        nullable=column.nullable,
        server_default=column.server_default.arg if column.server_default is not None else None,  # type: ignore[attr-defined]
    )
