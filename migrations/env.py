"""Alembic environment of the library's own tables; the user's migrations live in the user's project.

`entropic.migrate.upgrade` passes a connection that holds the schema lock. The ``alembic`` command passes none, and
names the database by ``-x url=...``, ``ENTROPIC_DB_URL`` or the ini file.
"""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from alembic import context
from alembic.util import CommandError
from sqlalchemy import Connection, inspect

# In a checkout its own package serves, installed or not; in the wheel there is no package below the parent.
PARENT = Path(__file__).resolve().parents[1]
if (PARENT / "entropic" / "__init__.py").is_file() and str(PARENT) not in sys.path:
    sys.path.insert(0, str(PARENT))

from entropic.sql.database import Database  # noqa: E402
from entropic.sql.drift import same_family  # noqa: E402
from entropic.sql.schema_lock import schema_lock  # noqa: E402
from entropic.sql.tables import every_table  # noqa: E402
from entropic.sql.versions import VERSION_TABLE  # noqa: E402

METADATA = every_table()
READERS = {"current", "check", "revision"}  # commands that must work without the right to write


def database() -> Database:
    """Return the database that the command line, the environment or the ini file names."""
    url = (
        context.get_x_argument(as_dictionary=True).get("url")
        or os.environ.get("ENTROPIC_DB_URL")
        or context.config.get_main_option("sqlalchemy.url")
    )
    if not url:
        raise CommandError("which database? alembic -x url=URL ..., or set ENTROPIC_DB_URL")
    return Database(url)


@contextmanager
def connected() -> Iterator[Connection]:
    """Give the connection that was passed, or one of our own: locked where the command may write."""
    passed: Connection | None = context.config.attributes.get("connection")
    command: Any = getattr(context.config.cmd_opts, "cmd", None)
    if passed is not None:
        yield passed
    elif command and command[0].__name__ in READERS:
        with database().engine.connect() as connection:
            yield connection
    else:
        with schema_lock(database()) as connection:
            yield connection


def include_name(name: str | None, type_: str, parent_names: Any) -> bool:
    """Leave every table alone that is not the library's, before it is even reflected."""
    return type_ != "table" or name in METADATA.tables


def compare_type(migration: Any, column: Any, ours: Any, column_type: Any, our_type: Any) -> bool | None:
    """Let Alembic decide, but for what a server stores under another name, as MariaDB does JSON."""
    if our_type.compile(dialect=migration.dialect) == "JSON":
        return not same_family(column_type, our_type, migration.dialect)
    return None


def options(dialect_name: str) -> dict[str, Any]:
    """Return what both modes configure."""
    return {
        "target_metadata": METADATA,
        "version_table": VERSION_TABLE,
        "include_name": include_name,
        "compare_type": compare_type,
        "render_as_batch": True,
        "transaction_per_migration": True,
        # Alembic's own choice for SQLite is False: a migration that fails would leave half of its tables behind.
        "transactional_ddl": True if dialect_name == "sqlite" else None,
    }


def pass_over(impl: Any, connection: Connection) -> None:
    """Let a step that was interrupted be taken again where each statement commits: what it made or dropped stays so."""
    create_table, create_index, drop_table = impl.create_table, impl.create_index, impl.drop_table

    def has_table(table: Any) -> bool:
        return inspect(connection).has_table(table.name)

    def has_index(index: Any) -> bool:
        there = inspect(connection).get_indexes(index.table.name)
        return any(one["name"] == index.name for one in there)

    impl.create_table = lambda table, **options: has_table(table) or create_table(table, **options)
    impl.create_index = lambda index, **options: has_index(index) or create_index(index, **options)
    impl.drop_table = lambda table, **options: has_table(table) and drop_table(table, **options)


def run() -> None:
    """Run the migrations, or print their SQL."""
    if context.is_offline_mode():
        url = database().url
        context.configure(
            url=url.render_as_string(hide_password=False),
            literal_binds=True,
            **options(url.get_backend_name()),
        )
        with context.begin_transaction():
            context.run_migrations()
        return
    with connected() as connection:
        context.configure(connection=connection, **options(connection.dialect.name))
        if connection.dialect.name in {"mysql", "mariadb"}:
            pass_over(context.get_context().impl, connection)
        with context.begin_transaction():
            context.run_migrations()


run()
