"""Many rows as tuples, into the driver and out of it."""

import math

import pytest
from sqlalchemy import BigInteger, Column, MetaData, NullPool, Table, create_engine, func, select
from sqlalchemy.exc import IntegrityError

from entropic import Database
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


@pytest.fixture
def server_table(server_url):
    database = Database(server_url)
    database.write(lambda connection: TABLE.create(connection))
    yield database
    database.dispose()


def put(database, rows, **options):
    database.write(lambda connection: insert_rows(connection, TABLE, rows, **options))


def test_more_rows_than_a_chunk_come_back_in_a_few_statements(table):
    rows = [(1, n, n / 7, None) for n in range(2 * bulk.CHUNK + 5)]
    with statements(table.engine) as seen:
        put(table, rows)
    arrays = table.read(lambda connection: read_arrays(connection, EVERY))

    assert sum("INSERT" in one for one in seen) == 3
    assert arrays["number"].tolist() == list(range(len(rows)))
    assert arrays["value"].tolist() == [row[2] for row in rows]
    assert {name: array.dtype.str for name, array in arrays.items()} == {
        "group": "<i8", "number": "<i8", "value": "<f8", "shape": "|O"
    }  # fmt: skip


def test_rare_values_and_reserved_names_are_kept(table):
    values = [math.nan, math.inf, -math.inf, None, -1e-300]
    put(table, [(2**62, n, value, "[[1, 2], []]") for n, value in enumerate(values)])
    arrays = table.read(lambda connection: read_arrays(connection, EVERY))
    from_each = [
        table.read(lambda connection, n=n: read_arrays(connection, EVERY.where(TABLE.c.number >= n)))
        for n in range(len(values))
    ]
    nulls = select(func.count()).where(TABLE.c.value.is_(None))

    assert [repr(value) for value in arrays["value"].tolist()] == ["nan", "inf", "-inf", "nan", "-1e-300"]
    assert arrays["shape"].tolist() == [[[1, 2], []]] * 5
    for n, found in enumerate(from_each):
        assert repr(found["value"]) == repr(arrays["value"][n:])
        assert found["shape"].tolist() == [[[1, 2], []]] * (5 - n)
    assert table.read(lambda connection: connection.scalar(nulls)) == 2


def test_rows_that_are_there_give_way_only_if_that_is_said(table):
    put(table, [(1, 1, 0.1, "[1]"), (1, 2, 0.2, "[2]")])
    with pytest.raises(IntegrityError):
        put(table, [(1, 2, 0.9, "[9]"), (1, 3, 0.3, "[3]")])
    put(table, [(1, 2, 0.9, "[9]"), (1, 3, 0.3, "[3]")], replace=["value"])
    arrays = table.read(lambda connection: read_arrays(connection, EVERY))

    assert arrays["value"].tolist() == [0.1, 0.9, 0.3]
    assert arrays["shape"].tolist() == [[1], [2], [3]]


def test_no_rows_are_no_statement_and_empty_arrays(table):
    with statements(table.engine) as seen:
        put(table, [])
    assert not [one for one in seen if "INSERT" in one]
    arrays = table.read(lambda connection: read_arrays(connection, EVERY))
    assert [(name, array.shape) for name, array in arrays.items()] == [
        ("group", (0,)), ("number", (0,)), ("value", (0,)), ("shape", (0,))
    ]  # fmt: skip


def test_engine_without_transactions_is_read_from_too(postgres_url):
    """PostgreSQL has no cursors there."""
    engine = create_engine(postgres_url, poolclass=NullPool, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        TABLE.create(connection)
        insert_rows(connection, TABLE, [(1, n, n / 7, None) for n in range(3)])
        arrays = read_arrays(connection, EVERY)

    assert arrays["value"].tolist() == [n / 7 for n in range(3)]


@pytest.mark.parametrize("rows", [0, 1, 2, bulk.CHUNK, bulk.CHUNK + 1])
def test_rows_are_there_once_wherever_a_chunk_ends(server_table, rows):
    put(server_table, [(1, n, n / 7, None) for n in range(rows)])

    arrays = server_table.read(lambda connection: read_arrays(connection, EVERY))

    assert arrays["number"].tolist() == list(range(rows))
