"""A store of the tests of this folder, on the one database of each kind that they share."""

import pytest

from entropic.datastore import DataStore
from entropic.sql.clock import ManualClock
from tests.support.component_cases import TABLES
from tests.support.databases import empty, one_database

kept = one_database("components")


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
def store(shared, tmp_path, clock):
    """A store on it."""
    return DataStore(shared, tmp_path / "data", clock=clock)


@pytest.fixture
def local(sqlite_url, tmp_path, clock):
    """A store on a SQLite file of its own."""
    return DataStore(sqlite_url, tmp_path / "data", clock=clock)
