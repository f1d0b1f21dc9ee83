"""Statements that were compiled once do what SQLAlchemy would have done, on every database."""

from datetime import UTC, datetime

import pytest
from sqlalchemy import (
    Column,
    Integer,
    MetaData,
    String,
    Table,
    bindparam,
    delete,
    event,
    func,
    insert,
    select,
    tuple_,
)
from sqlalchemy.exc import IntegrityError

from entropic import Database
from entropic.sql.columns import FiniteJSON, UTCDateTime
from entropic.sql.prepared import PreparedInsert, PreparedQuery
from tests.support.counting import statements

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
table = Table(
    "prepared",
    MetaData(),
    Column("key", String(8), primary_key=True),
    Column("kind", String(8), primary_key=True),
    Column("at (%)", UTCDateTime()),
    Column("notes", FiniteJSON()),
    Column("size", Integer, nullable=False, server_default="7"),
)
plain = Table("plain", MetaData(), Column("key", String(8), primary_key=True), Column("at", UTCDateTime()))
made = Table("made", MetaData(), Column("key", String(8), primary_key=True), Column("n", Integer, default=5))


@pytest.fixture
def database(database_url):
    database = Database(database_url)
    for one in (table, plain, made):
        one.metadata.create_all(database.engine)
    return database


def put(database, statement, *rows):
    database.write(lambda connection: statement(connection, rows))


def rows_of(database, one):
    return database.read(lambda connection: [tuple(row) for row in connection.execute(select(one))])


def row(key, kind="a", notes=None):
    return {"key": key, "kind": kind, "notes": notes, "size": 1}


@pytest.mark.parametrize("count", [1, 3])
def test_rows_are_stored_as_their_types_say(database, count):
    prepared = PreparedInsert(insert(table))

    for again in "xy":
        put(database, prepared, *[row(f"{again}{n}", notes={"n": [n, None]}) for n in range(count)])

    expected = [(f"{again}{n}", "a", None, {"n": [n, None]}, 1) for again in "xy" for n in range(count)]
    assert sorted(rows_of(database, table)) == expected


def test_rows_of_other_columns_are_another_statement(database):
    prepared = PreparedInsert(insert(plain))

    put(database, prepared, {"key": "a", "at": NOON})
    put(database, prepared, {"at": NOON, "key": "b"})
    put(database, prepared, {"key": "c"})

    assert sorted(rows_of(database, plain)) == [("a", NOON), ("b", NOON), ("c", None)]


def test_column_whose_name_no_driver_takes_for_a_parameter_is_stored(database):
    put(database, PreparedInsert(insert(table)), {**row("a"), "at (%)": NOON})

    assert rows_of(database, table) == [("a", "a", NOON, None, 1)]


def test_default_that_python_computes_is_stored(database):
    put(database, PreparedInsert(insert(made)), {"key": "a"}, {"key": "b"})

    assert sorted(rows_of(database, made)) == [("a", 5), ("b", 5)]


def test_row_that_is_there_is_the_error_of_sqlalchemy(database):
    prepared = PreparedInsert(insert(plain))
    put(database, prepared, {"key": "a"})
    heard = []
    event.listen(database.engine, "handle_error", lambda context: heard.append(context.sqlalchemy_exception))

    with pytest.raises(IntegrityError) as raised:
        put(database, prepared, {"key": "a"}, {"key": "b"})

    assert heard == [raised.value]
    assert "INSERT INTO plain" in str(raised.value)
    assert rows_of(database, plain) == [("a", None)]


def test_whoever_listens_to_the_engine_hears_of_each_statement(database):
    heard = []
    event.listen(
        database.engine, "before_cursor_execute", lambda c, cursor, text, *rest: heard.append(text.split()[0])
    )
    insertion = PreparedInsert(insert(plain))
    keys = bindparam("keys", expanding=True)
    removal = PreparedQuery(delete(plain).where(plain.c.key.in_(keys)))

    put(database, insertion, {"key": "a"})
    database.write(lambda connection: removal.count(connection, ["a"]))

    assert [one for one in heard if one in {"INSERT", "DELETE"}] == ["INSERT", "DELETE"]


@pytest.mark.parametrize("keys", [[], ["a"], ["b", "a", "c"], list("abcdefg")])
def test_rows_under_keys_are_found_whatever_their_number(database, keys):
    put(database, PreparedInsert(insert(table)), *[row(key) for key in "abcde"], row("a", "other"))
    statement = select(table.c.key).where(
        table.c.kind == bindparam("kind"), table.c.key.in_(bindparam("keys", expanding=True))
    )
    prepared = PreparedQuery(statement)

    for _ in range(2):
        found = database.look(lambda connection: prepared.rows(connection, keys, kind="a"))
        assert sorted(key for (key,) in found) == sorted(set(keys) & set("abcde"))


def test_pairs_are_deleted_and_counted_once(database):
    put(database, PreparedInsert(insert(table)), *[row(key, kind) for key in "abc" for kind in "xy"])
    is_pair = tuple_(table.c.key, table.c.kind).in_(bindparam("keys", expanding=True))
    prepared = PreparedQuery(delete(table).where(is_pair), width=2)

    def remove(connection):
        return prepared.count(connection, [("a", "x"), ("b", "y"), ("c", "neither")])

    assert database.write(remove) == 2
    assert database.write(remove) == 0
    assert len(rows_of(database, table)) == 4


def test_value_that_is_computed_at_each_execution_is_not_kept(database):
    now = 0
    moment = bindparam("now", callable_=lambda: now, type_=Integer())
    put(database, PreparedInsert(insert(plain)), {"key": "a"})
    keys = bindparam("keys", expanding=True)
    prepared = PreparedQuery(select(func.abs(moment)).where(plain.c.key.in_(keys)))

    seen = []
    for _ in range(2):
        now += 1
        seen.append(database.look(lambda connection: prepared.rows(connection, ["a"])[0][0]))

    assert seen == [1, 2]


def test_schema_that_the_engine_translates_is_the_one_that_is_meant(sqlite_url):
    database = Database(sqlite_url)
    plain.metadata.create_all(database.engine)
    insertion = PreparedInsert(insert(plain))
    put(database, insertion, {"key": "a"})

    def work(connection):
        connection.exec_driver_sql("ATTACH ':memory:' AS other")
        other = connection.execution_options(schema_translate_map={None: "other"})
        plain.metadata.create_all(other)
        insertion(other, [{"key": "b"}])
        return other.exec_driver_sql("SELECT key FROM other.plain").scalars().all()

    assert database.read(work) == ["b"]


def test_prepared_statement_costs_one_statement(database):
    insertion = PreparedInsert(insert(plain))

    with statements(database.engine) as seen:
        put(database, insertion, {"key": "a"}, {"key": "b"})

    assert sum(text.startswith("INSERT") for text in seen) == 1
