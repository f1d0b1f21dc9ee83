"""The schema of the library's own tables, for admins: which it is, whether it fits, and how it is upgraded.

Only `upgrade` changes a schema that is there, and it needs no Store; `entropic.sql.versions` makes a new one.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from sqlalchemy import Connection

from entropic.errors import SchemaError
from entropic.process.forked_locks import ForkedLock
from entropic.process.logs import get_logger
from entropic.sql import versions
from entropic.sql.database import Database, DatabaseLike
from entropic.sql.schema_lock import schema_lock
from entropic.sql.tables import every_table
from entropic.sql.urls import shown

if TYPE_CHECKING:
    from alembic.config import Config

__all__ = ["check", "current", "include_name", "include_object", "upgrade"]

log = get_logger(__name__)


_alembic_lock = ForkedLock()  # its `context` and `op` are one per process


def current(database: DatabaseLike) -> str | None:
    """Return the revision of the library's tables, or None if there are none."""
    database = Database.of(database)
    if _is_absent(database):
        return None
    with database.reading() as connection:
        return versions.peek(connection)


def check(database: DatabaseLike) -> None:
    """Return if the library's tables are those that this code needs.

    Raises
    ------
    SchemaError
        If there are none, or they are older, newer, or not as the migrations made them. The text names the command.
    """
    database = Database.of(database)
    version = current(database)
    if version is None:
        raise SchemaError(
            f"the database {shown(database.url)} has no tables of entropic's. The first Store makes them, or run: "
            f"{versions.upgrade_command(database)}"
        )
    with database.reading() as connection:
        versions.require_head(database, connection, version)
        versions.compare_library_tables(database, connection, every_table().sorted_tables)


def upgrade(database: DatabaseLike) -> None:
    """Bring the library's tables to `HEAD`; make them if there are none.

    Raises
    ------
    SchemaError
        If the schema is newer than this code, or library tables without a version do not fit.

    Notes
    -----
    Runs under the schema lock, in one transaction: on SQLite and PostgreSQL a migration that fails leaves everything
    as it was. No Store may be at work meanwhile.
    """
    database = Database.of(database)
    with schema_lock(database) as connection:
        version = versions.read_version(connection)
        if version is None and versions.present(connection):
            versions.make_library_tables(database, connection)
        elif version is not None and version not in versions.REVISIONS:
            versions.require_head(database, connection, version)
        elif version != versions.HEAD:
            from alembic import command

            log.info("upgrading the database %s from %s to %s", shown(database.url), version, versions.HEAD)
            with _alembic_lock.held():
                command.upgrade(_alembic_config(connection), "head")
        versions.add_facts(connection)


def include_name(name: str | None, type_: str, parent_names: Any) -> bool:
    """Keep Alembic's autogenerate in a user's project away from the library's tables: for ``env.py``."""
    return type_ != "table" or not (name or "").startswith("entropic_")


def include_object(thing: Any, name: str | None, type_: str, reflected: bool, compare_to: Any) -> bool:
    """Keep autogenerate from proposing to drop a stranger's table: for ``env.py`` next to `include_name`."""
    return not (type_ == "table" and reflected and compare_to is None)


def migrations_dir() -> Path:
    """Return the folder of the migration scripts, in a wheel or in a checkout."""
    package = Path(__file__).resolve().parent
    for folder in (package / "migrations", package.parent / "migrations"):
        if (folder / "env.py").is_file():
            return folder
    raise SchemaError(
        f"entropic's migrations are neither in {package} nor next to it: install entropic again"
    )


def _alembic_config(connection: Connection) -> Config:
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(migrations_dir()).replace("%", "%%"))
    config.attributes["connection"] = connection
    return config


def _is_absent(database: Database) -> bool:
    # Connecting would make the file.
    name = database.url.database or ""
    return (
        database.dialect == "sqlite"
        and not database.is_memory
        and not name.startswith("file:")
        and not Path(name).exists()
    )
