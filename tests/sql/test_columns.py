"""The path by which users' migrations name our column types, which has to stay for as long as they do."""

import re

import pytest
from alembic.autogenerate import produce_migrations, render_python_code
from alembic.migration import MigrationContext
from sqlalchemy import MetaData

from entropic.model.base import Base
from entropic.sql import columns
from tests.support.every_type import Everything

KEPT = {
    "ByteString",
    "Choice",
    "ExactDecimal",
    "FiniteJSON",
    "LongBytes",
    "LongText",
    "MicroTime",
    "Microseconds",
    "UTCDateTime",
}


@pytest.fixture
def script(sqlite):
    """What autogenerate writes for a table with a column of every type."""
    wanted = MetaData(naming_convention=Base.metadata.naming_convention)
    Everything.__table__.to_metadata(wanted)
    with sqlite.engine.connect() as connection:
        context = MigrationContext.configure(connection)
        return render_python_code(produce_migrations(context, wanted).upgrade_ops)


def test_migration_made_by_autogenerate_names_types_by_the_one_path(script):
    named = re.findall(r"(entropic[\w.]*)\.(\w+)\(", script)

    assert {module for module, _ in named} == {"entropic.sql.columns"}
    assert {name for _, name in named} <= KEPT
    assert "UTCDateTime" in {name for _, name in named}


def test_types_that_migrations_name_are_where_they_were():
    assert {name for name in KEPT if getattr(columns, name).__module__ == "entropic.sql.columns"} == KEPT
