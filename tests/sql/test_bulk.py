"""Many rows as tuples, into the driver and out of it."""

import math

import pytest
from sqlalchemy import BigInteger, Column, MetaData, Table, func, select
from sqlalchemy.exc import IntegrityError

from entropic.sql import bulk
from entropic.sql.bulk import insert_rows, read_arrays
from entropic.sql.columns import AnyDouble, FiniteJSON
from tests.support.counting import statements

TABLE = Table(
    "bulk",
    MetaData(),
    Column("group", BigInteger, primary_key=True, autoincrement=False),
    Column("number", BigInteger, primary_key=True, autoincrement=False),
    Column("value", AnyDouble()),
    Column("shape", FiniteJSON()),
)
EVERY = select(TABLE).order_by(TABLE.c.group, TABLE.c.number)


@pytest.fixture
def table(database):
    database.write(lambda connection: TABLE.create(connection))
    return database


def put(database, rows, **options):
    database.write(lambda connection: insert_rows(connection, TABLE, rows, **options))


def test_more_rows_than_a_chunk_come_back_in_a_few_statements(table):
    rows = [(1, n, n / 7, None) for n in range(2 * bulk.CHUNK + 5)]
    with statements(table.engine) as seen:
        put(table, rows)
    array = table.read(lambda connection: read_arrays(connection, EVERY))

    assert sum("INSERT" in one for one in seen) == 3
    assert array["number"].tolist() == list(range(len(rows)))
    assert array["value"].tolist() == [row[2] for row in rows]
    assert array.dtype["group"] == "i8"


def test_rare_values_and_reserved_names_are_kept(table):
    values = [math.nan, math.inf, -math.inf, None, -1e-300]
    put(table, [(2**62, n, value, "[[1, 2], []]") for n, value in enumerate(values)])
    array = table.read(lambda connection: read_arrays(connection, EVERY))
    nulls = select(func.count()).where(TABLE.c.value.is_(None))

    assert [repr(value) for value in array["value"].tolist()] == ["nan", "inf", "-inf", "nan", "-1e-300"]
    assert array["shape"].tolist() == [[[1, 2], []]] * 5
    assert table.read(lambda connection: connection.scalar(nulls)) == 2


def test_rows_that_are_there_give_way_only_if_that_is_said(table):
    put(table, [(1, 1, 0.1, "[1]"), (1, 2, 0.2, "[2]")])
    with pytest.raises(IntegrityError):
        put(table, [(1, 2, 0.9, "[9]"), (1, 3, 0.3, "[3]")])
    put(table, [(1, 2, 0.9, "[9]"), (1, 3, 0.3, "[3]")], replace=["value"])
    array = table.read(lambda connection: read_arrays(connection, EVERY))

    assert array["value"].tolist() == [0.1, 0.9, 0.3]
    assert array["shape"].tolist() == [[1], [2], [3]]


def test_no_rows_are_no_statement_and_an_empty_array(table):
    with statements(table.engine) as seen:
        put(table, [])
    assert not [one for one in seen if "INSERT" in one]
    array = table.read(lambda connection: read_arrays(connection, EVERY))
    assert array.shape == (0,)
    assert array.dtype.names == ("group", "number", "value", "shape")
