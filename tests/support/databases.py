"""A database for many tests, where each would pay for tables of its own."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text

from entropic import Database
from entropic.sql.versions import ensure_schema
from tests.support import servers


@contextmanager
def database_of(request: pytest.FixtureRequest, folder: Path) -> Iterator[Database]:
    """Give an empty database of the kind that the fixture's parameter names; a file lies in *folder*."""
    if request.param == "postgresql":
        with servers.postgres_database(request.getfixturevalue("postgres_server")) as url:
            yield Database(url)
    elif request.param == "mysql":
        with servers.mysql_database(request.getfixturevalue("mysql_server")) as url:
            yield Database(url)
    else:
        yield Database(f"sqlite:///{folder / 'entropic.sqlite3'}")


def one_database(name: str) -> Any:
    """Return a fixture for a folder of tests: a database of each kind with tables, as on a server these are dear."""

    @pytest.fixture(scope="package", params=["sqlite-file", "postgresql", "mysql"])
    def kept(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Database]:
        with database_of(request, tmp_path_factory.mktemp(name)) as database:
            ensure_schema(database, [])
            yield database
            database.dispose()

    return kept


def empty(database: Database, *tables: str) -> None:
    """Delete all rows of *tables*."""
    database.write(lambda connection: [connection.execute(text(f"DELETE FROM {table}")) for table in tables])
