"""The path by which users' migrations name our column types, which has to stay for as long as they do."""

import math
import re
import sys

import pytest
from alembic.autogenerate import produce_migrations, render_python_code
from alembic.migration import MigrationContext
from sqlalchemy import Column, Integer, MetaData, Table, func, insert, select

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


def test_any_double_keeps_nan_and_infinities_on_every_database(database):
    values = [math.nan, math.inf, -math.inf, None, 0.1, 5e-324, -1e308]
    number = Column("n", Integer, primary_key=True, autoincrement=False)
    table = Table("doubles", MetaData(), number, Column("x", columns.AnyDouble()))
    rows = [{"n": n, "x": x} for n, x in enumerate(values)]

    def work(connection):
        table.create(connection)
        connection.execute(insert(table), rows)
        is_null = select(func.count()).where(table.c.x.is_(None))
        return connection.scalars(select(table.c.x).order_by(table.c.n)).all(), connection.scalar(is_null)

    kept, nulls = database.write(work)

    assert [repr(x) for x in kept] == ["nan", "inf", "-inf", "nan", "0.1", "5e-324", "-1e+308"]
    assert nulls == 2


@pytest.mark.parametrize("sign", [1, -1])
def test_largest_double_is_no_infinity_on_mysql(sign):
    from sqlalchemy.dialects import mysql

    kind, dialect, largest = columns.AnyDouble(), mysql.dialect(), sign * sys.float_info.max
    stored = kind.process_bind_param(largest, dialect)

    assert kind.process_result_value(stored, dialect) == math.nextafter(largest, 0)
    assert kind.process_bind_param(sign * math.inf, dialect) == largest
