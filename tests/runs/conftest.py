"""A Store of the tests of this folder, and a results folder where there is none."""

from pathlib import Path

import pytest

from entropic.disk.roots import write_marker
from tests.support.protocol_cases import MARKER, Place


@pytest.fixture
def store(place: Place):
    """A Store that is open from before the test."""
    store = place.store()
    yield store
    store.database.dispose()


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A results folder that is marked as `MARKER` says, for work that asks no database."""
    folder = tmp_path / "results"
    folder.mkdir()
    write_marker(folder, MARKER)
    return folder
