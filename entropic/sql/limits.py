"""What a database cannot have in a user's table, names of columns above all, and how to say it before anything runs.

SQLAlchemy quotes the words that it knows to be reserved; the rest of those that the servers reserve are here. Some
names cannot be had by quoting: PostgreSQL's system columns, and two that differ in case only where the database does
not tell case. And a row of MySQL's or MariaDB's has 65 535 bytes, of which every text takes as many as it may need.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from sqlalchemy import Dialect, Table
from sqlalchemy.exc import DBAPIError
from sqlalchemy.sql.elements import quoted_name

from entropic.errors import SchemaError

__all__ = [
    "FEWEST_LEVELS",
    "explained_limits",
    "free_name",
    "is_deeper",
    "json_levels",
    "quote_columns",
    "require_names",
]

# Reserved by some release of PostgreSQL, MariaDB or MySQL, and not quoted by every release of SQLAlchemy.
_WORDS = """
array_agg collation concurrently cube cume_dist current_role delete_domain_id dense_rank do_domain_ids empty
except first_value function grouping groups ignore_domain_ids intersect json_table lag last_value lateral lead
library manual master_demote_to_replica master_demote_to_slave nth_value ntile of offset over page_checksum
parallel parse_vcol_expr percent_rank portion qualify rank recursive ref_system_id returning row_number rows
stats_auto_recalc stats_persistent stats_sample_pages system system_user tablesample vector window within
"""
RESERVED_WORDS = frozenset(_WORDS.split())
FEWEST_LEVELS = 31  # of JSON, in MariaDB
TOO_WIDE = frozenset({1074, 1117, 1118})  # MySQL: a column too long, too many of them, a row too large
# Of every table of PostgreSQL's.
SYSTEM_COLUMNS = frozenset({"cmax", "cmin", "ctid", "tableoid", "xmax", "xmin"})


def json_levels(dialect: Dialect) -> int | None:
    """Return how many levels JSON may have in a database; None for any number.

    MariaDB's ``JSON_VALID``, which its JSON columns check, knows `FEWEST_LEVELS`, and MySQL 100.
    """
    if dialect.name not in {"mysql", "mariadb"}:
        return None
    return FEWEST_LEVELS if getattr(dialect, "is_mariadb", False) else 100


def is_deeper(document: Any, levels: int) -> bool:
    """Whether a document of JSON has more levels of lists and objects."""
    if not isinstance(document, list | dict):
        return False
    if levels == 0:
        return True
    return any(
        is_deeper(one, levels - 1) for one in (document.values() if isinstance(document, dict) else document)
    )


def quote_columns(table: Table) -> None:
    """Let every statement quote the columns of *table* that it must; the names stay what they are."""
    for column in table.columns:
        if column.name.lower() in RESERVED_WORDS:
            column.name = quoted_name(str(column.name), quote=True)


def free_name(name: str, taken: set[str]) -> str:
    """Return a column name for *name* that every database takes, and add it, in lower case, to those *taken*."""
    column, number = name, 2
    if column.lower() in SYSTEM_COLUMNS:
        column += "_"
    while column.lower() in taken:  # SQLite and MySQL do not tell n from N
        column, number = f"{name}_{number}", number + 1
    taken.add(column.lower())
    return column


def require_names(table: Table, dialect: Dialect, model_name: str) -> None:
    """Raise `SchemaError` if *dialect* cannot have a column of *table* beside the others; the text says what can."""
    seen: dict[str, str] = {}
    for column in table.columns:
        name = str(column.name)
        other = seen.setdefault(name.lower(), name)
        if dialect.name != "postgresql" and other != name:
            reason = f"beside {other!r}: {dialect.name} does not tell upper case from lower"
        elif dialect.name == "postgresql" and name in SYSTEM_COLUMNS:
            reason = "which every table of PostgreSQL's has for itself"
        else:
            continue
        raise SchemaError(
            f"{model_name} has the column {name!r}, {reason}. Keep the attribute, and give its column another name: "
            f"{column.key}: Mapped[...] = param({name + '_'!r}), or output({name + '_'!r})"
        )


@contextmanager
def explained_limits(table: Table, model_name: str) -> Iterator[None]:
    """Turn what MySQL and MariaDB say of a table that is too wide into a `SchemaError` in the user's terms."""
    try:
        yield
    except DBAPIError as error:
        if getattr(error.orig, "args", (None,))[0] not in TOO_WIDE:
            raise
        texts = [column for column in table.columns if getattr(column.type, "length", None)]
        widths = {str(c.name): c.type.length for c in texts if not c.primary_key}  # type: ignore[attr-defined]
        widest = [f"{name}: {width}" for name, width in sorted(widths.items(), key=lambda item: -item[1])]
        # All of them together; InnoDB keeps those of less than 64 characters in its page, which has an eighth of it.
        length = max(64, min(255, 56_000 // 4 // max(1, len(widths)) // 10 * 10))
        raise SchemaError(
            f"{model_name} has {len(table.columns)} columns, {len(widths)} of them texts, and a row of them is more "
            "than this database holds: 65 535 bytes, of which a text takes four for each character that it may have "
            f"({', '.join([*widest[:5], '...'][: len(widest)])}). Say how long they get, as in "
            f"Annotated[str, ByteString({length})] of a function or mapped_column(ByteString({length})) of a model, "
            "after from entropic.sql.columns import ByteString; or put several into one dict or list. Nothing was "
            f"run. The database says: {error.orig}"
        ) from error
