"""Rows that may be there already are left alone, or replaced: on every database, in one statement."""

import pytest
from sqlalchemy import CheckConstraint, Column, Float, Integer, MetaData, String, Table, bindparam, select
from sqlalchemy.exc import DBAPIError

from entropic import Database
from entropic.sql.upsert import chunks, insert_new, upsert

table = Table(
    "upserted",
    MetaData(),
    Column("key", String(8), primary_key=True),
    Column("part", Integer, primary_key=True, autoincrement=False),
    Column("value", String(8), nullable=False),
    Column("weight", Float),
    CheckConstraint("weight > 0", name="positive"),
)


@pytest.fixture
def database(database_url):
    database = Database(database_url)
    table.metadata.create_all(database.engine)
    write(database, table.insert(), [row("there", 1, "old", 0.5)])
    return database


def row(key, part, value, weight=None):
    return {"key": key, "part": part, "value": value, "weight": weight}


def write(database, statement, rows):
    database.write(lambda connection: connection.execute(statement, rows))


def stored(database):
    statement = select(table).order_by(table.c.key, table.c.part)
    return database.read(lambda connection: [tuple(found) for found in connection.execute(statement)])


def test_insert_new_leaves_alone_what_is_there_and_inserts_the_rest(database):
    write(database, insert_new(table, database.dialect), [row("there", 1, "new"), row("there", 2, "new")])

    assert stored(database) == [("there", 1, "old", 0.5), ("there", 2, "new", None)]


def test_insert_new_with_expressions_takes_them(database):
    values = {name: bindparam(name) for name in ("key", "part", "value")} | {"weight": bindparam("half") * 2}
    rows = [{"key": "a", "part": part, "value": "new", "half": part / 2} for part in (1, 2)]

    write(database, insert_new(table, database.dialect, values), rows)

    assert stored(database)[:2] == [("a", 1, "new", 1.0), ("a", 2, "new", 2.0)]


@pytest.mark.parametrize(
    "bad", [row("a", 1, None), row("a", 1, "new", -1.0)], ids=["null where none is allowed", "check"]
)
@pytest.mark.parametrize(
    "make", [insert_new, lambda t, d: upsert(t, d, ["value"])], ids=["insert_new", "upsert"]
)
def test_row_that_the_table_refuses_is_an_error_and_not_left_out(database, make, bad):
    with pytest.raises(DBAPIError):
        write(database, make(table, database.dialect), [bad])

    assert len(stored(database)) == 1


def test_text_that_is_too_long_is_an_error_and_not_cut(server_url):
    database = Database(server_url)
    table.metadata.create_all(database.engine)

    with pytest.raises(DBAPIError):
        write(database, insert_new(table, database.dialect), [row("a", 1, "longer than eight")])

    assert stored(database) == []


def test_upsert_replaces_the_named_columns_of_a_row_that_is_there(database):
    rows = [row("there", 1, "new", 9.0), row("there", 2, "new", 9.0)]

    write(database, upsert(table, database.dialect, ["value"]), rows)

    assert stored(database) == [("there", 1, "new", 0.5), ("there", 2, "new", 9.0)]


@pytest.mark.parametrize(
    ("count", "sizes"), [(0, []), (1, [1]), (3, [3]), (4, [3, 1]), (6, [3, 3])], ids=lambda value: str(value)
)
def test_chunks_are_full_but_for_the_last_and_keep_the_order(count, sizes):
    found = list(chunks(iter(range(count)), 3))

    assert [len(chunk) for chunk in found] == sizes
    assert [item for chunk in found for item in chunk] == list(range(count))


def test_chunks_take_no_more_items_than_they_yield():
    taken = []
    items = (taken.append(n) or n for n in range(10))

    next(chunks(items, 3))

    assert taken == [0, 1, 2]
