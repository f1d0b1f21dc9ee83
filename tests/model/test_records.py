"""Records are made without a session, and must be what a session would have made."""

import pickle
from pathlib import Path

import pytest
from sqlalchemy import inspect, select, text
from sqlalchemy.orm import Session

from benchmarks.data import Run, params, write_result
from entropic import Base, Database, Mapped, SchemaError, Store
from entropic.model.records import CHUNK
from tests.support.counting import statements


@pytest.fixture
def store(tmp_path, sqlite_url):
    database = Database(sqlite_url)
    yield Store(write_result, Run, tmp_path / "results", ".bin", database)
    database.dispose()


def test_record_is_what_a_session_loads_and_lets_go(store):
    record = store.run_or_retrieve(params(1)[0])

    with Session(store.database.engine) as session:
        loaded = session.scalars(select(Run)).one()
    assert inspect(record).detached
    assert inspect(record).identity_key == inspect(loaded).identity_key
    assert not inspect(record).modified
    assert inspect(record).unloaded == set()
    columns = {k: v for k, v in vars(record).items() if not k.startswith("_")}
    assert columns == {k: v for k, v in vars(loaded).items() if not k.startswith("_")}


def test_record_says_what_it_is(store):
    one = params(1)[0]
    record = store.run_or_retrieve(one)

    expected = f"Run(id={record.id!r}, n={one['n']}, dt={one['dt']!r}, method={one['method']!r})"
    assert repr(record) == expected
    with Session(store.database.engine) as session:
        loaded = session.scalars(select(Run)).one()
        session.expire(loaded)
        assert repr(loaded) == "Run()"


def test_change_of_an_added_record_when_flushed_writes_that_column_only(store):
    record = store.run_or_retrieve(params(1)[0])

    with Session(store.database.engine) as session, statements(store.database.engine) as seen:
        session.add(record)
        record.custom_data["note"] = "seen"
        session.commit()
        written = [statement for statement in seen if statement.startswith("UPDATE")]

    assert written == ["UPDATE benchmark_runs SET custom_data=? WHERE benchmark_runs.id = ?"]


def test_record_when_pickled_comes_back_equal_and_detached(store):
    record = store.run_or_retrieve(params(1)[0])

    back = pickle.loads(pickle.dumps(record))

    assert (back.id, back.n, back.dt, back.custom_data) == (
        record.id,
        record.n,
        record.dt,
        record.custom_data,
    )
    assert inspect(back).detached


@pytest.mark.parametrize("echo", [False, True], ids=["driver", "sqlalchemy"])
@pytest.mark.parametrize("count", [1, 2, 3, 5])
def test_find_many_gives_each_row_once_whoever_asks(store, count, echo):
    sets = params(count)
    keys = {store.sweep([one])[0].id for one in sets}

    store.database.engine.echo = echo
    found = [row.id for row in store._table.reader.find_many(keys)]

    assert sorted(found) == sorted(keys)


def test_find_many_of_more_than_a_chunk_leaves_out_what_is_not_there(store):
    there = store.run_or_retrieve(params(1)[0]).id
    keys = [f"{n:016x}" for n in range(CHUNK + 1)]

    found = [row.id for row in store._table.reader.find_many([*keys, there])]

    assert found == [there]


def fold_case(database: Database) -> None:
    """Let the table's keys be equal that differ by case, as an export and import may."""

    def work(connection):
        if database.dialect != "sqlite":
            connection.execute(
                text("ALTER TABLE benchmark_runs CONVERT TO CHARACTER SET utf8mb4 COLLATE utf8mb4_general_ci")
            )
            return
        made = connection.scalar(text("SELECT sql FROM sqlite_master WHERE name = 'benchmark_runs'"))
        connection.execute(text("DROP TABLE benchmark_runs"))
        connection.execute(text(made.replace("id VARCHAR", "id VARCHAR COLLATE NOCASE")))

    database.write(work)


@pytest.mark.parametrize("url", ["sqlite_url", "mysql_url"])
def test_key_that_the_database_takes_for_another_is_refused(tmp_path, request, url):
    database = Database(request.getfixturevalue(url))
    opened = Store(write_result, Run, tmp_path / "results", ".bin", database)
    fold_case(database)
    one, other = params(2)
    record = opened.run_or_retrieve({**one, "id": "RunA"})

    calls = [
        lambda: opened.run_or_retrieve({**one, "id": "runa"}),
        lambda: opened.run({**other, "id": "RUNA"}),
        lambda: opened.retrieve({"id": "runa"}),
        lambda: opened.delete(hash="RUNA"),
        lambda: opened.sweep([{**one, "id": "runa"}], progress=False),
    ]
    for call in calls:
        with pytest.raises(SchemaError, match=r"(?i)took 'runa' for 'RunA'.*binary collation"):
            call()

    assert opened.run_or_retrieve({**one, "id": "RunA"}).created_at == record.created_at
    assert opened.count() == 1
    database.dispose()


class NamedLikeAParameter(Base):
    __tablename__ = "id_0"
    n: Mapped[int]


def test_rows_of_a_table_that_is_named_like_a_parameter_are_found(sqlite, tmp_path):
    def write_number(given):
        Path(given["result_file"]).write_text(str(given["n"]))

    store = Store(write_number, NamedLikeAParameter, tmp_path, ".txt", sqlite)
    records = [store.run_or_retrieve({"n": n}) for n in range(3)]

    assert [record.n for record in store.sweep({"n": range(3)}, progress=False)] == [0, 1, 2]
    assert [store.retrieve({"n": n}).id for n in range(3)] == [record.id for record in records]
