"""One database of each kind for all tests of this folder: on a server tables are dear."""

import pytest

from entropic.execution_store import ExecutionStore, ExecutionStoreService
from entropic.sql.clock import ManualClock
from entropic.sql.versions import ensure_schema
from tests.support.databases import database_of, empty

TABLES = ("entropic_execution_keys", "entropic_execution_stores")


@pytest.fixture(scope="package", params=["sqlite-file", "postgresql", "mysql"])
def kept(request, tmp_path_factory):
    """A database with tables."""
    with database_of(request, tmp_path_factory.mktemp("execution")) as database:
        ensure_schema(database, [])
        yield database
        database.dispose()


@pytest.fixture
def shared(kept):
    """The folder's database, with nothing in it."""
    empty(kept, *TABLES)
    return kept


@pytest.fixture
def clock():
    """A clock that the test moves."""
    return ManualClock(1.7e9)


@pytest.fixture
def service(shared, clock):
    """The service of the global context."""
    return ExecutionStoreService(database=shared, clock=clock)


@pytest.fixture
def store(service):
    """The store "jobs" of it."""
    return ExecutionStore("jobs", service)
