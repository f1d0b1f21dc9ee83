"""What the database remembers of a table: how its keys are made, and which folder holds its results.

The first Store of a table registers it, under the schema lock, and marks its results folder; every later one is
compared. A default that changed would give old rows' keys another meaning, and a folder that is not the marked one is
perhaps an unmounted share: both are refused rather than guessed.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, select, update

from entropic.disk.roots import Marker
from entropic.errors import SchemaError
from entropic.model.base import table_key
from entropic.model.folders import mark, registered
from entropic.model.parameters import KEY_RULE, Parameters
from entropic.process.logs import get_logger
from entropic.sql.database import Database
from entropic.sql.schema_lock import schema_lock
from entropic.sql.tables import TableRow
from entropic.sql.upsert import upsert
from entropic.sql.versions import database_uuid
from entropic.values.hashing import canonical

__all__ = ["compare_keys", "compare_registered", "refuse_other_case", "register_table", "remembered"]

log = get_logger(__name__)

_tables: Any = TableRow.__table__

_NONE = "no default"


def register_table(database: Database, parameters: Parameters, root: Path) -> Marker:
    """Compare a model with what is registered, or register it and mark its results folder.

    Returns
    -------
    Marker
        What the results folder's marker must say.

    Raises
    ------
    SchemaError
        If a default changed, or a parameter vanished or changed its type.
    ResultsDirUnavailableError
        If the table has no folder yet and *root* is another table's.
    """
    table = table_key(parameters.model)
    with database.reading() as connection:
        row = registered(connection, table)
    if row is None or row.root is None:
        with schema_lock(database) as connection:
            return _register(connection, database, parameters, root)
    compare_registered(parameters, dict(row.parameters))
    described = remembered(parameters, dict(row.parameters))
    if described != row.parameters:
        change = update(_tables).where(_tables.c.table_name == table).values(parameters=described)
        database.write(lambda connection: connection.execute(change))
    return Marker(row.root, database_uuid(database), table)


def _register(connection: Connection, database: Database, parameters: Parameters, root: Path) -> Marker:
    table = table_key(parameters.model)
    row = registered(connection, table)  # another process may have been first
    if row is not None and row.root is not None:
        compare_registered(parameters, dict(row.parameters))
        return Marker(row.root, database_uuid(database, connection), table)
    if row is None:
        refuse_other_case(connection, parameters)
    marker = mark(connection, root, database_uuid(database, connection), table)
    values = {
        "table_name": table,
        "key_rule": KEY_RULE,
        "parameters": parameters.describe(),
        "root": marker.root,
        "results_dir": str(root),
        "created_at": datetime.now(UTC),
    }
    connection.execute(upsert(_tables, database.dialect, list(values)), values)
    return marker


def remembered(parameters: Parameters, registered: Mapping[str, Any]) -> dict[str, Any]:
    """Return what is to be registered of a model, with all that was ever left out of the keys."""
    ignored = {name: before for name, before in registered.items() if "ignored" in before}
    return ignored | parameters.describe()


def refuse_other_case(connection: Connection, parameters: Parameters) -> None:
    """Raise `SchemaError` if the database takes a model's table and one that is registered for one table."""
    table = table_key(parameters.model)
    if connection.dialect.name == "sqlite":
        is_one = True
    elif connection.dialect.name in {"mysql", "mariadb"}:
        is_one = connection.exec_driver_sql("SELECT @@lower_case_table_names").scalar() != 0
    else:
        is_one = False
    for known in connection.scalars(select(_tables.c.table_name)) if is_one else ():
        if known != table and known.lower() == table.lower():
            raise SchemaError(
                f"this database holds the table {known!r} of another model, and takes {table!r} for the same one. "
                "Nothing was read or written. Give the model another __tablename__ (memoize: table=)"
            )


def compare_keys(database: Database, parameters: Parameters) -> None:
    """Raise `SchemaError` if the keys of the rows that there are do not fit the model; nothing is changed."""
    with database.reading() as connection:
        row = registered(connection, table_key(parameters.model))
    if row is not None:
        _refuse_other_keys(parameters, dict(row.parameters), parameters.describe())


def compare_registered(
    parameters: Parameters, registered: dict[str, Any], *, may_be_required: bool = True
) -> None:
    """Raise `SchemaError` if keys that are *registered* do not fit the model, or a new parameter cannot be added."""
    described = parameters.describe()
    new = [
        name
        for name in described.keys() - registered.keys()
        if not described[name].keys() & {"default", "ignored"}
    ]
    _refuse_other_keys(parameters, registered, described, () if may_be_required else sorted(new))
    for name in new:
        log.warning(
            "%s.%s is a new parameter without a default: rows from before it are found by their id only; "
            "with param(default=...) they would stay hits",
            table_key(parameters.model),
            name,
        )


def _refuse_other_keys(
    parameters: Parameters,
    registered: dict[str, Any],
    described: dict[str, Any],
    required: Iterable[str] = (),
) -> None:
    lines = [f"{name} is a new parameter, and has no default: give it one" for name in required]
    for name, before in registered.items():
        lines += _key_change(name, before, described.get(name), parameters.model.__entropic__.is_derived)
    if not lines:
        return
    table = parameters.model.__tablename__
    anew = (
        f"give the function another table (memoize: table={table + '_2'!r})"
        if parameters.model.__entropic__.is_derived
        else f"give the model another __tablename__, such as {table + '_2'!r}, and the Store another results_dir"
    )
    raise SchemaError(
        f"the model of table {table!r} does not fit the keys of its rows:\n  " + "\n  ".join(lines) + "\n"
        f"Nothing was read or written. If it is to begin anew, {anew}: the old rows stay as they are."
    )


def _key_change(
    name: str, before: dict[str, Any], now: dict[str, Any] | None, is_derived: bool
) -> Iterator[str]:
    if "ignored" in before:
        if now is not None and "ignored" not in now:
            yield (
                f"{name} was left out of the keys and is in them now: the rows may be runs at any value of it. Leave "
                f"it out, as in ignore=[{name!r}]"
            )
        return
    if now is None or "ignored" in now:
        form = f"with the default {before['default']!r}" if "default" in before else "without a default"
        none = "none" if now is None else "left out of the keys"
        yield (
            f"{name} was a parameter and is {none} now: the keys of the rows were made with it. Put it back as it was, "
            f"of type {before['type']}, {form}"
        )
        return
    if now["type"] != before["type"]:
        yield f"{name} was of type {before['type']} and is {now['type']} now: put the type back"
        return
    was, has = before.get("default", _NONE), now.get("default", _NONE)
    change = f"the default of {name} was {was!r} and is {has!r} now"
    if _is_same_default(before, now):
        return
    if "default" not in before and has is None:
        yield (
            f"{name} can be None now, and could not be before: no key was made with that. Take None out of its "
            "annotation again, and give it no default"
        )
    elif "default" not in before:
        yield (
            f"{change}: rows that were made with {has!r} would not be found by calls that leave it out. Take the "
            "default away, and give the value each time"
        )
    elif "default" not in now and was is None:
        yield (
            f"{name} could be None, and cannot any more: rows that were made at None are found only while it can. "
            "Annotate it as ... | None again, with the default that it had"
        )
    elif "default" not in now:
        yield f"{change}: rows that were made at it are found only while it is there. Put it back"
    else:
        made = f" (or, if the machine makes it and it changes no result, begin anew with ignore=[{name!r}])"
        yield (
            f"{change}: rows that were made at the old default would be taken for runs at the new one. Put the old "
            f"default back, and give the new value explicitly{made if is_derived else ''}"
        )


def _is_same_default(before: dict[str, Any], now: dict[str, Any]) -> bool:
    if ("default" in before) != ("default" in now):
        return False
    was, has = before.get("default"), now.get("default")
    # In a document 1, 1.0 and True are three values; the library's own column is text, which keeps them apart.
    return bool(was == has) and (now["type"] != "json" or canonical(was) == canonical(has))
