"""Which version the library's tables have: made once, checked at each start.

A fresh database is made and stamped in one transaction under a lock, so that any number of processes may start at
once. Every other start reads the version row and imports no Alembic. A schema that is older, newer or not ours is
refused before anything is read or written.
"""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from importlib import metadata
from typing import Any
from uuid import uuid4

from sqlalchemy import (
    Column,
    Connection,
    MetaData,
    PrimaryKeyConstraint,
    String,
    Table,
    insert,
    inspect,
    select,
)
from sqlalchemy.exc import DBAPIError

from entropic.errors import SchemaError
from entropic.process.logs import get_logger
from entropic.sql.columns import LibraryBase
from entropic.sql.database import Database
from entropic.sql.drift import drift
from entropic.sql.engines import why_unreadable
from entropic.sql.namespaces import note_schemas, refuse_shared_records
from entropic.sql.schema_lock import schema_lock
from entropic.sql.tables import NAMES, MetaRow, every_table
from entropic.sql.urls import shown

__all__ = [
    "HEAD",
    "NEEDS",
    "REVISIONS",
    "VERSION_TABLE",
    "add_facts",
    "compare_library_tables",
    "database_uuid",
    "ensure_schema",
    "installed_version",
    "is_denied",
    "make_library_tables",
    "peek",
    "present",
    "read_version",
    "require_head",
    "upgrade_command",
]

log = get_logger(__name__)
HEAD = "0005"
REVISIONS = ("0001", "0002", "0003", "0004", "0005")
"""Every revision in `migrations/`, oldest first; a test compares the two."""


NEEDS = "3.1.0"
"""The oldest entropic that may use the schema of `HEAD`."""


VERSION_TABLE = "entropic_alembic_version"
DENIED = {"42501", "25006", 1044, 1142, 1290, 1792}  # no privilege, read-only transaction or server
NO_SUCH_TABLE = {"42P01", 1146}


# Alembic would make the very same table; metadata of its own, so that nobody's autogenerate sees it.
_version = Table(
    VERSION_TABLE,
    MetaData(),
    Column("version_num", String(32), nullable=False),
    PrimaryKeyConstraint("version_num", name=f"{VERSION_TABLE}_pkc"),
)


_meta: Any = MetaRow.__table__


def _refuse_own_name(table: Table) -> None:
    """Raise `SchemaError` if a user's table has the name of one of the library's, in whatever case."""
    own = {VERSION_TABLE, *NAMES}
    if table.metadata is not LibraryBase.metadata and table.name.lower() in own:
        raise SchemaError(
            f"the table {table.name!r} has the name of one of entropic's own. Nothing was made. Give the model another "
            "__tablename__"
        )


def ensure_schema(database: Database, tables: Sequence[Table]) -> None:
    """Make what is missing of the library's tables and the user's *tables*; refuse a schema of another version.

    Parameters
    ----------
    tables : sequence of sqlalchemy.Table
        The user's tables. One that exists is left alone: `entropic.sql.drift` compares it.

    Raises
    ------
    SchemaError
        If the schema is older or newer than this code, if library tables without a version do not fit, or if tables
        are missing and this user may not make them. Nothing is written then.

    Notes
    -----
    Safe to call from any number of processes at once. Where nothing is missing it writes nothing, takes no lock and
    needs no right but to read.
    """
    for table in tables:
        _refuse_own_name(table)
    if not database.is_in_block:
        database.begin_anew()
    try:
        if _is_complete(database, tables):
            return
        with schema_lock(database) as connection:
            make_library_tables(database, connection)
            refuse_shared_records(connection, tables)
            lacking = _missing(connection, tables)
            for table in lacking:
                log.info("making the table %s", table.name)
                table.metadata.create_all(connection, tables=[table])
            note_schemas(connection, lacking)
    except DBAPIError as error:
        if "file is not a database" in str(error.orig):
            raise SchemaError(
                f"{shown(database.url)}: the file is no SQLite database, or it is damaged. Nothing was changed. Name "
                "another file in the URL, or restore this one from a backup"
            ) from error
        if (trouble := why_unreadable(database.engine)) is not None:
            raise SchemaError(trouble) from error
        if not is_denied(error):
            raise
        raise SchemaError(
            f"the database {shown(database.url)} lacks tables, and this user may not make them: {error.orig}. "
            f"Let somebody who may run: {upgrade_command(database)}, and open the Store there once"
        ) from error


def database_uuid(database: Database, connection: Connection | None = None) -> str:
    """Return the uuid that tells this database from every other.

    Parameters
    ----------
    connection : sqlalchemy.Connection, optional
        Inside `schema_lock`, the connection that it gives: a database in memory has no other.
    """
    if connection is not None:
        return add_facts(connection)["database"]
    with database.reading() as reading:
        found: str | None = reading.scalar(select(_meta.c.value).where(_meta.c.name == "database"))
    if found is not None:
        return found
    with schema_lock(database) as locked:
        return add_facts(locked)["database"]


def installed_version() -> str:
    """Return the version of the installed package, or ``"unknown"`` where it runs without being installed."""
    try:
        return metadata.version("entropic")
    except metadata.PackageNotFoundError:
        return "unknown"


def _is_complete(database: Database, tables: Sequence[Table]) -> bool:
    with database.reading() as connection:
        try:
            version = peek(connection)
            if version is None:
                return False
            if version != HEAD and database.dialect in {"mysql", "mariadb"}:
                return False  # a step of an upgrade that is under way is seen; under the lock there is none
            require_head(database, connection, version)
            refuse_shared_records(connection, tables)
            return not _missing(connection, tables)
        except DBAPIError as error:
            # MySQL does not describe a table that another process is making; under the lock there is none.
            log.debug("cannot read the schema without the lock: %s", error.orig)
            return False


def peek(connection: Connection) -> str | None:
    """Return the version, if there is one, in one statement."""
    try:
        return _join(connection.scalars(select(_version.c.version_num)).all())
    except DBAPIError as error:
        # Not by another statement: the table may be there by then.
        if _is_missing_table(error):
            return None
        raise


def read_version(connection: Connection) -> str | None:
    """Return the version without a statement that could fail: PostgreSQL would give up the transaction."""
    if not inspect(connection).has_table(VERSION_TABLE):
        return None
    return _join(connection.scalars(select(_version.c.version_num)).all())


def _join(versions: Sequence[str]) -> str | None:
    return ", ".join(sorted(versions)) or None


def _missing(connection: Connection, tables: Sequence[Table]) -> list[Table]:
    inspector = inspect(connection)
    return [table for table in tables if not inspector.has_table(table.name, schema=table.schema)]


def present(connection: Connection) -> list[Table]:
    """Return which of the library's tables there are."""
    own = every_table().sorted_tables
    if connection.dialect.name == "postgresql":  # which finds them in any schema of the search path
        missing = _missing(connection, own)
        return [table for table in own if table not in missing]
    inspector = inspect(connection)
    names = {*inspector.get_table_names(), *inspector.get_view_names()}
    if connection.dialect.name == "sqlite":  # to which names in another case are the same
        names = {name.lower() for name in names}
    return [table for table in own if table.name in names]


def make_library_tables(database: Database, connection: Connection) -> None:
    """Make and stamp the library's tables, inside the schema lock, unless they are there."""
    version = read_version(connection)
    if version is not None:
        require_head(database, connection, version)  # another process was here first
    else:
        # There may be tables: on MySQL a first start that was killed has left them.
        there = present(connection)
        compare_library_tables(database, connection, there)
        log.info("making entropic's tables in %s", shown(database.url))
        lacking = [table for table in every_table().sorted_tables if table not in there]
        every_table().create_all(connection, tables=lacking, checkfirst=False)
        _version.create(connection, checkfirst=True)
        connection.execute(insert(_version).values(version_num=HEAD))
    add_facts(connection)


def compare_library_tables(database: Database, connection: Connection, tables: Sequence[Table]) -> None:
    """Raise `SchemaError` if *tables* are not as the migrations made them."""
    lacking = _missing(connection, tables)
    lines = [f"there is no table {table.name}" for table in lacking]
    lines += [
        f"{table.name}: {line}"
        for table in tables
        if table not in lacking
        for line in drift(connection, table)
    ]
    if lines:
        raise SchemaError(
            f"the tables of entropic's in the database {shown(database.url)} are not those of schema {HEAD}: "
            f"{'; '.join(lines)}. Nothing was read or written. Restore them from a backup, or use another database"
        )


def add_facts(connection: Connection) -> dict[str, str]:
    """Write what the database does not yet say of itself, and return what it says."""
    there = _facts(connection)
    facts = {"database": uuid4().hex, "created_by": installed_version(), "needs": NEEDS}
    for name, value in facts.items():
        if name not in there:
            connection.execute(insert(_meta).values(name=name, value=value))
    return facts | there


def require_head(database: Database, connection: Connection, version: str) -> None:
    """Raise `SchemaError` unless *version* is that of this code; the text names the command."""
    if version == HEAD:
        return
    facts = _facts(connection) if inspect(connection).has_table(_meta.name) else {}
    here, maker = installed_version(), facts.get("created_by", "unknown")
    found = f"the database {shown(database.url)} has entropic schema {version}, made by entropic {maker}"
    if version in REVISIONS:
        raise SchemaError(
            f"{found}; this entropic ({here}) needs {HEAD}. Nothing was read or written. Back the database up, stop "
            f"whatever writes to it, then run: {upgrade_command(database)}"
        )
    needs = facts.get("needs")
    wanted = f'"entropic>={needs}"' if needs else "entropic"
    raise SchemaError(
        f"{found}; it is newer than this entropic ({here}), which knows up to {HEAD}"
        + (f", and needs entropic {needs} or later" if needs else "")
        + f". Nothing was read or written. Run: pip install -U {wanted}"
    )


def _facts(connection: Connection) -> dict[str, str]:
    # By these names only: a newer schema may have other columns besides.
    return {name: value for name, value in connection.execute(select(_meta.c.name, _meta.c.value))}


def upgrade_command(database: Database) -> str:
    """Return the command that upgrades *database*, for people."""
    command = f"entropic db upgrade --url {shlex.quote(shown(database.url))}"
    return (
        f"{command} (with its password in the URL, or the URL in ENTROPIC_DB_URL)"
        if database.url.password
        else command
    )


def is_denied(error: DBAPIError) -> bool:
    """Whether the database does not let this user do it."""
    return "readonly database" in str(error.orig) or not DENIED.isdisjoint(_codes(error))


def _is_missing_table(error: DBAPIError) -> bool:
    return "no such table" in str(error.orig) or not NO_SUCH_TABLE.isdisjoint(_codes(error))


def _codes(error: DBAPIError) -> set[Any]:
    """Return PostgreSQL's SQLSTATE or MySQL's number, and what else stands in their places."""
    return {getattr(error.orig, "sqlstate", None), *getattr(error.orig, "args", ())[:1]}
