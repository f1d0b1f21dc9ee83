"""A store of the tests of this folder, on the one database of each kind that they share."""

import pytest

from entropic.execution_store import ExecutionStore, ExecutionStoreService
from entropic.sql.clock import ManualClock
from tests.support.databases import empty, one_database

TABLES = ("entropic_execution_events", "entropic_execution_keys", "entropic_execution_stores")


kept = one_database("execution")


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
