"""A Store of the tests of this folder."""

import pytest

from tests.support.protocol_cases import Place


@pytest.fixture
def store(place: Place):
    """A Store that is open from before the test."""
    store = place.store()
    yield store
    store.database.dispose()
