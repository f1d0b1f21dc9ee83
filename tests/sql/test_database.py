"""One engine per database: URLs, pragmas, transactions, threads, forks, pickles and many first starters."""

import gc
import logging
import os
import pickle
import sqlite3
import threading
import weakref
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import psycopg
import pytest
from sqlalchemy import create_engine, event, text
from sqlalchemy.engine import make_url
from sqlalchemy.exc import DBAPIError, OperationalError
from sqlalchemy.pool import NullPool, QueuePool

from entropic import Base, Database, Mapped, Store, output
from entropic.process.patience import Patience
from entropic.sql import outages
from tests.support import protocol_cases as cases
from tests.support.counting import statements
from tests.support.processes import outcomes_of, run_together
from tests.support.protocol_cases import Place, Sim
from tests.support.waiting import wait_for

A = {"a": 1.5}


class Session(Base):
    __tablename__ = "sessions"
    step: Mapped[float]
    at: Mapped[datetime]
    span: Mapped[timedelta]
    third: Mapped[float | None] = output()


def scalar(database: Database, sql: str):
    with database.reading() as connection:
        return connection.scalar(text(sql))


# URLs


@pytest.mark.parametrize(
    ("url", "driver"),
    [
        ("sqlite://", "sqlite"),
        ("postgresql://me@host/db", "postgresql+psycopg"),
        ("postgresql+psycopg2://me@host/db", "postgresql+psycopg2"),
        ("mysql://me@host/db", "mysql+pymysql"),
        ("mariadb://me@host/db", "mariadb+pymysql"),
        ("mysql+mysqldb://me@host/db", "mysql+mysqldb"),
    ],
)
def test_url_without_a_driver_gets_that_of_our_extras(url, driver):
    assert Database(url).url.drivername == driver


def test_url_may_be_a_string_a_url_an_engine_or_a_database(sqlite_url):
    engine = create_engine(sqlite_url)
    made = [
        Database(sqlite_url),
        Database(make_url(sqlite_url)),
        Database(engine),
        Database(Database(sqlite_url)),
    ]

    assert {str(database.url) for database in made} == {sqlite_url}
    assert made[2].engine is engine
    assert made[0].engine is made[1].engine is made[3].engine


def test_relative_path_is_resolved_when_the_database_is_made(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    database = Database("sqlite:///here.sqlite3")
    (tmp_path / "sub").mkdir()
    monkeypatch.chdir(tmp_path / "sub")

    scalar(database, "SELECT 1")

    assert (tmp_path / "here.sqlite3").exists()
    assert os.listdir(tmp_path / "sub") == []


def test_home_in_a_path_is_expanded(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))

    assert Database("sqlite:///~/x.sqlite3").url.database == str(tmp_path / "x.sqlite3")


def test_repr_does_not_tell_the_password():
    shown = repr(Database("postgresql://me:secret@host/db?password=secret2&sslmode=require"))

    assert shown == "Database('postgresql+psycopg://***@host/db?password=***&sslmode=***')"


def test_database_file_that_is_made_is_said_once(sqlite_url, caplog):
    with caplog.at_level(logging.INFO, "entropic.sql.engines"):
        scalar(Database(sqlite_url), "SELECT 1")
        first = [record.getMessage() for record in caplog.records if record.levelname == "INFO"]
        scalar(Database(sqlite_url), "SELECT 1")

    assert first == [f"making the database {make_url(sqlite_url).database}"]
    assert len([record for record in caplog.records if record.levelname == "INFO"]) == 1


def test_database_file_that_is_there_is_not_announced(sqlite_url, caplog):
    sqlite3.connect(make_url(sqlite_url).database).close()
    Path(make_url(sqlite_url).database).touch()

    with caplog.at_level(logging.INFO, "entropic.sql.engines"):
        scalar(Database(sqlite_url), "SELECT 1")

    assert caplog.records == []


# Pragmas


def pragmas(connection) -> dict[str, object]:
    names = ("journal_mode", "synchronous", "foreign_keys", "busy_timeout")
    return {name: connection.exec_driver_sql(f"PRAGMA {name}").scalar() for name in names}


WANTED = {"journal_mode": "wal", "synchronous": 1, "foreign_keys": 1, "busy_timeout": 30000}


def test_every_connection_has_the_pragmas(sqlite_url):
    engine = Database(sqlite_url).engine

    with engine.connect() as one, engine.connect() as two:
        assert pragmas(one) == pragmas(two) == WANTED


def test_connection_for_look_ups_has_the_pragmas(sqlite_url):
    assert Database(sqlite_url).look(pragmas) == WANTED


def test_engine_of_the_users_gets_the_pragmas_on_connections_it_has_already(sqlite_url):
    engine = create_engine(sqlite_url)
    with engine.connect() as connection:
        before = pragmas(connection)

    with Database(engine).engine.connect() as connection:
        after = pragmas(connection)
    engine.dispose()

    assert (before["journal_mode"], before["foreign_keys"]) == ("delete", 0)
    assert {name: after[name] for name in ("journal_mode", "synchronous", "foreign_keys")} == {
        "journal_mode": "wal",
        "synchronous": 1,
        "foreign_keys": 1,
    }


def test_engine_of_the_users_that_is_given_twice_is_prepared_once(sqlite_url):
    engine = create_engine(sqlite_url)
    Database(engine)
    database = Database(engine)

    with statements(engine) as seen:
        database.write(lambda connection: connection.execute(text("CREATE TABLE t (x INTEGER)")))
    engine.dispose()

    assert [sql for sql in seen if sql.startswith("BEGIN")] == ["BEGIN IMMEDIATE"]


def test_engine_of_the_users_serves_a_store(sqlite_url, tmp_path):
    engine = create_engine(sqlite_url)
    place = Place(sqlite_url, tmp_path)
    store = Store(place.runner(), Sim, place.results, ".txt", engine)

    record = store.run_or_retrieve(A)

    assert store.database.engine is engine
    assert record.a == 1.5
    engine.dispose()


def test_durable_write_is_synced_and_the_next_one_is_not(sqlite_url):
    database = Database(sqlite_url)
    levels = []

    def work(connection):
        levels.append(pragmas(connection)["synchronous"])

    database.write(work, durable=True)
    database.write(work)

    assert levels == [2, 1]


def test_durable_write_that_fails_leaves_the_level_as_it_was(sqlite_url):
    database = Database(sqlite_url)

    with pytest.raises(OperationalError):
        database.write(lambda connection: connection.execute(text("no sql")), durable=True)

    with database.reading() as connection:
        assert pragmas(connection)["synchronous"] == 1


MOUNTS = """\
22 1 253:0 / / rw,relatime shared:1 - ext4 /dev/vda rw
30 22 0:40 / {point} rw,relatime shared:5 - {kind} server:/export rw
31 22 0:41 / {point}more rw,relatime shared:6 - tmpfs tmpfs rw
"""


def mount(monkeypatch, tmp_path: Path, point: Path, kind: str) -> None:
    """Let the kernel's list of mounts say that *point* is a file system of this kind."""
    listing = tmp_path / "mountinfo"
    listing.write_text(MOUNTS.format(point=str(point).replace(" ", "\\040"), kind=kind))
    real = Path.read_text

    def read_text(path, *args, **kwargs):
        return real(listing if str(path) == "/proc/self/mountinfo" else path, *args, **kwargs)

    monkeypatch.setattr(Path, "read_text", read_text)


@pytest.mark.parametrize("kind", ["nfs4", "lustre", "fuse.sshfs"])
def test_file_on_a_network_file_system_keeps_the_rollback_journal_and_warns(
    tmp_path, monkeypatch, caplog, kind
):
    share = tmp_path / "a share"
    share.mkdir()
    mount(monkeypatch, tmp_path, share, kind)
    database = Database(f"sqlite:///{share / 'db.sqlite3'}")

    with caplog.at_level(logging.WARNING, "entropic.sql.engines"), database.reading() as connection:
        found = pragmas(connection)

    assert (found["journal_mode"], found["synchronous"]) == ("delete", 2)
    assert ["PostgreSQL" in record.getMessage() for record in caplog.records] == [True]


def test_durable_write_on_a_network_file_system_leaves_every_commit_synced(tmp_path, monkeypatch):
    mount(monkeypatch, tmp_path, tmp_path, "nfs")
    database = Database(f"sqlite:///{tmp_path / 'db.sqlite3'}")

    database.write(lambda connection: None, durable=True)

    with database.reading() as connection:
        assert pragmas(connection)["synchronous"] == 2


def test_file_next_to_a_network_file_system_is_a_local_one(tmp_path, monkeypatch):
    (tmp_path / "sharemore").mkdir()
    mount(monkeypatch, tmp_path, tmp_path / "share", "nfs")
    database = Database(f"sqlite:///{tmp_path / 'sharemore' / 'db.sqlite3'}")

    with database.reading() as connection:
        assert pragmas(connection)["journal_mode"] == "wal"


# Transactions


def test_write_begins_immediately_on_sqlite_and_reading_not_at_all(sqlite_url):
    database = Database(sqlite_url)

    with statements(database.engine) as seen:
        database.write(lambda connection: connection.execute(text("CREATE TABLE t (x INTEGER)")))
        scalar(database, "SELECT count(*) FROM t")

    assert [sql for sql in seen if sql.startswith(("BEGIN", "SELECT"))] == [
        "BEGIN IMMEDIATE",
        "SELECT count(*) FROM t",
    ]


def test_write_that_raises_is_rolled_back(database_url):
    database = Database(database_url)
    database.write(lambda connection: connection.execute(text("CREATE TABLE t (x INTEGER)")))

    def work(connection):
        connection.execute(text("INSERT INTO t VALUES (1)"))
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        database.write(work)

    assert scalar(database, "SELECT count(*) FROM t") == 0


def test_reads_then_writes_of_many_threads_lose_nothing(database_url):
    database = Database(database_url)
    database.write(lambda connection: connection.execute(text("CREATE TABLE t (x INTEGER)")))
    database.write(lambda connection: connection.execute(text("INSERT INTO t VALUES (0)")))
    lock = "" if database.dialect == "sqlite" else " FOR UPDATE"

    def work(connection):
        x = connection.scalar(text(f"SELECT x FROM t{lock}"))
        connection.execute(text("UPDATE t SET x = :x"), {"x": x + 1})

    threads = [threading.Thread(target=lambda: [database.write(work) for _ in range(10)]) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert scalar(database, "SELECT x FROM t") == 40


def deadlock(database: Database) -> int:
    """Let two threads lock two rows in two orders; return how often their work was called."""
    database.write(
        lambda connection: connection.execute(text("CREATE TABLE t (id INTEGER PRIMARY KEY, x INTEGER)"))
    )
    database.write(lambda connection: connection.execute(text("INSERT INTO t VALUES (1, 0), (2, 0)")))
    barrier, calls = threading.Barrier(2), []

    def update(order):
        def work(connection):
            calls.append(order)
            for n, key in enumerate(order):
                connection.execute(text("UPDATE t SET x = x + 1 WHERE id = :key"), {"key": key})
                if n == 0 and len(calls) <= 2:
                    barrier.wait(10)

        database.write(work)

    threads = [threading.Thread(target=update, args=(order,)) for order in ((1, 2), (2, 1))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return len(calls)


def test_deadlock_is_tried_again(server_url):
    database = Database(server_url)

    calls = deadlock(database)

    assert calls == 3
    assert [scalar(database, f"SELECT x FROM t WHERE id = {key}") for key in (1, 2)] == [2, 2]


def test_lock_of_another_process_is_waited_for_and_then_tried_again(sqlite_url, tmp_path):
    engine = create_engine(sqlite_url, connect_args={"timeout": 0.05})
    database = Database(engine)
    database.write(lambda connection: connection.execute(text("CREATE TABLE t (x INTEGER)")))
    other = sqlite3.connect(make_url(sqlite_url).database, isolation_level=None, check_same_thread=False)
    other.execute("BEGIN IMMEDIATE")
    timer = threading.Timer(0.4, other.rollback)
    timer.start()

    database.write(lambda connection: connection.execute(text("INSERT INTO t VALUES (1)")))

    timer.join()
    other.close()
    engine.dispose()
    assert scalar(database, "SELECT count(*) FROM t") == 1
    engine.dispose()


def test_error_that_is_not_transient_is_raised_at_once(database_url):
    database = Database(database_url)
    calls = []

    def work(connection):
        calls.append(1)
        connection.execute(text("SELECT * FROM not_there"))

    with pytest.raises(DBAPIError):
        database.write(work)

    assert len(calls) == 1


# Held connections


def test_look_keeps_one_connection_for_each_thread(sqlite_url):
    database = Database(sqlite_url)
    seen: list[int] = []

    def look():
        for _ in range(3):
            seen.append(id(database.look(lambda connection: connection.connection.dbapi_connection)))
        database.release()

    look()
    first = set(seen)
    thread = threading.Thread(target=look)
    thread.start()
    thread.join()

    assert len(first) == 1
    assert len(seen) == 6


def test_look_sees_what_was_committed_meanwhile(database_url):
    database = Database(database_url)
    database.write(lambda connection: connection.execute(text("CREATE TABLE t (x INTEGER)")))
    count = text("SELECT count(*) FROM t")
    before = database.look(lambda connection: connection.scalar(count))
    database.write(lambda connection: connection.execute(text("INSERT INTO t VALUES (1)")))

    after = database.look(lambda connection: connection.scalar(count))

    assert (before, after) == (0, 1)


def test_look_replaces_a_connection_that_the_server_closed(server_url):
    database = Database(server_url)
    own = "pg_backend_pid()" if database.dialect == "postgresql" else "connection_id()"
    kill = "SELECT pg_terminate_backend({})" if database.dialect == "postgresql" else "KILL {}"
    first = database.look(lambda connection: connection.scalar(text(f"SELECT {own}")))
    with database.engine.connect() as connection:
        connection.execute(text(kill.format(first)))

    second = database.look(lambda connection: connection.scalar(text(f"SELECT {own}")))

    assert second != first


def test_collecting_a_cycle_closes_the_connection_that_was_kept(postgres_url):
    database = Database(postgres_url)
    # The driver's connection is older than what keeps it, as in a Store: the collector comes to it first.
    database.write(lambda connection: connection.execute(text("SELECT 1")))
    database.look(lambda connection: connection.execute(text("SELECT 1")))
    kept = weakref.ref(database.look(lambda connection: connection.connection.dbapi_connection))
    cycle = [database]
    cycle.append(cycle)
    del cycle, database

    gc.collect()  # a connection that is dropped unclosed warns, which is an error here

    assert kept() is None


@pytest.mark.parametrize("database_url", ["sqlite-file", "postgresql", "mysql"], indirect=True)
def test_dispose_leaves_what_is_in_use_to_the_next_one(database_url):
    database = Database(database_url)
    opened, closed = [], []
    event.listen(database.engine, "connect", lambda connection, _: opened.append(id(connection)))
    event.listen(database.engine, "close", lambda connection, _: closed.append(id(connection)))
    with database.reading() as connection:
        assert connection.execute(text("SELECT 1")).scalar() == 1
        database.dispose()
        assert connection.execute(text("SELECT 1")).scalar() == 1
    database.dispose()

    assert len(opened) > 0
    assert closed == opened
    assert database.read(lambda c: c.execute(text("SELECT 1")).scalar()) == 1
    database.dispose()
    assert closed == opened


def test_dispose_closes_all_and_the_next_use_connects_again(sqlite_url):
    database = Database(sqlite_url)
    kept = database.look(lambda connection: connection.connection.dbapi_connection)
    database.dispose()

    again = database.look(lambda connection: connection.scalar(text("SELECT 1")))

    with pytest.raises(sqlite3.ProgrammingError):
        kept.execute("SELECT 1")
    assert again == 1
    database.dispose()


# Connections to a server


def connections(url: str) -> int:
    """How many connections others have to a server's database."""
    count = {
        "postgresql": "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()"
        " AND pid <> pg_backend_pid()",
        "mysql": "SELECT count(*) FROM information_schema.processlist WHERE db = DATABASE()"
        " AND id <> connection_id()",
    }
    engine = create_engine(url, poolclass=NullPool)
    with engine.connect() as connection:
        return connection.scalar(text(count[engine.dialect.name]))


def use_all_ways(database: Database) -> None:
    for call in (database.look, database.read, database.write):
        call(lambda connection: connection.execute(text("SELECT 1")))


def test_rest_leaves_no_connection_to_a_server_and_the_next_use_connects_again(server_url):
    database = Database(server_url)
    use_all_ways(database)
    before = connections(server_url)

    database.rest()

    wait_for(lambda: connections(server_url) == 0)
    use_all_ways(database)
    assert before == connections(server_url) == 2
    database.dispose()


def test_rest_leaves_alone_what_another_thread_is_using(server_url):
    database = Database(server_url)
    begun, rested = threading.Event(), threading.Event()

    def work(connection):
        connection.execute(text("CREATE TABLE t (x INTEGER)"))
        begun.set()
        rested.wait(30)
        connection.execute(text("INSERT INTO t VALUES (1)"))

    thread = threading.Thread(target=database.write, args=(work,))
    thread.start()
    begun.wait(30)
    database.rest()
    rested.set()
    thread.join()

    assert scalar(database, "SELECT count(*) FROM t") == 1
    database.rest()
    wait_for(lambda: connections(server_url) == 0)


def test_rest_keeps_the_pool_of_an_engine_of_the_users(server_url):
    engine = create_engine(server_url)
    database = Database(engine)
    use_all_ways(database)

    database.rest()

    wait_for(lambda: connections(server_url) == 1)
    assert engine.pool.checkedin() == 1
    engine.dispose()


def test_rest_does_nothing_on_sqlite(sqlite_url):
    database = Database(sqlite_url)
    kept = database.look(lambda connection: connection.connection.dbapi_connection)

    database.rest()

    assert database.look(lambda connection: connection.connection.dbapi_connection) is kept
    assert database.engine.pool.checkedin() == 1


# A server that has gone


def end_connection(database: Database, connection) -> None:
    """Let the server end a connection, as it does to all of them when it stops."""
    is_postgres = database.dialect == "postgresql"
    own = connection.scalar(text("SELECT pg_backend_pid()" if is_postgres else "SELECT connection_id()"))
    engine = create_engine(database.url, poolclass=NullPool)
    with engine.connect() as other:
        other.execute(text(f"SELECT pg_terminate_backend({own})" if is_postgres else f"KILL {own}"))


class Unreachable:
    """Lets the driver make no new connection, as if the server were down; counts the tries."""

    def __init__(self, database: Database) -> None:
        self.tries = 0
        self.is_down = True
        dialect = database.engine.dialect
        code = () if database.dialect == "postgresql" else (2003,)
        real = dialect.connect

        def connect(*arguments, **keywords):
            self.tries += 1
            if self.is_down:
                raise dialect.dbapi.OperationalError(*code, "connection refused")
            return real(*arguments, **keywords)

        dialect.connect = connect


@pytest.mark.parametrize(
    "setting",
    [
        "extra_float_digits=0",
        "DateStyle=German",
        "IntervalStyle=iso_8601",
        "TimeZone=Asia/Tokyo",
        "TimeZone=EST",
    ],
)
def test_values_come_back_as_they_were_stored_whatever_postgresql_is_set_to(postgres_url, tmp_path, setting):
    def write(params: Any) -> dict[str, float]:
        Path(params["result_file"]).touch()
        return {"third": 1 / 3}

    url = make_url(postgres_url).update_query_dict({"options": f"-c {setting}"})
    store = Store(write, Session, tmp_path, ".txt", url)
    given = [
        {
            "step": 0.1 + 0.2,
            "at": datetime.max.replace(tzinfo=UTC),
            "span": timedelta(days=1, microseconds=1),
        },
        {"step": 1e-7 / 3, "at": datetime.min.replace(tzinfo=UTC), "span": timedelta(days=-400, hours=5)},
    ]

    for params in given:
        store.run_or_retrieve(params)
        record = store.retrieve(params)
        assert {name: getattr(record, name) for name in params} == params
        assert record.third == 1 / 3
        assert record.created_at.tzinfo is not None
    assert len(store.records()) == 2
    store.close()


class OfPooler(psycopg.ConnectionInfo):
    """What a pooler says of itself: the server's process is another than the one that answered first."""

    backend_pid = 1


class Pooled(psycopg.Connection[Any]):
    """A connection by way of a pooler."""

    @property
    def info(self) -> psycopg.ConnectionInfo:
        return OfPooler(self.pgconn)


@pytest.mark.parametrize("class_", [psycopg.Connection, Pooled])
def test_statements_are_prepared_on_the_server_unless_a_pooler_is_in_between(postgres_url, class_):
    asked = make_url(postgres_url)
    plain = asked.set(drivername="postgresql").render_as_string(hide_password=False)
    engine = create_engine(asked, creator=lambda: class_.connect(plain))
    with Database(engine).engine.connect() as connection:
        raw = connection.connection.dbapi_connection
        is_idle = raw.pgconn.transaction_status == psycopg.pq.TransactionStatus.IDLE
    engine.dispose()

    assert (raw.prepare_threshold is None) == (class_ is Pooled)
    assert is_idle
    assert raw.autocommit is False


@pytest.fixture
def table_url(server_url):
    """URL of a database on a server with an empty table."""
    database = Database(server_url)
    database.write(lambda connection: connection.execute(text("CREATE TABLE t (x INTEGER)")))
    database.dispose()
    return server_url


@pytest.mark.parametrize("way", ["look", "read", "write"])
def test_connection_that_is_lost_in_the_middle_is_made_again(table_url, way):
    database = Database(table_url)
    calls = []

    def work(connection):
        calls.append(1)
        if len(calls) == 1:
            end_connection(database, connection)
        return connection.scalar(text("SELECT count(*) FROM t"))

    answer = getattr(database, way)(work)

    assert (answer, len(calls)) == (0, 2)
    database.dispose()


def test_write_that_loses_its_connection_before_the_commit_is_made_once(table_url):
    database = Database(table_url)
    calls = []

    def work(connection):
        calls.append(1)
        connection.execute(text("INSERT INTO t VALUES (1)"))
        if len(calls) == 1:
            end_connection(database, connection)
            connection.execute(text("INSERT INTO t VALUES (2)"))

    database.write(work)

    assert len(calls) == 2
    assert scalar(database, "SELECT count(*) FROM t") == 1
    database.dispose()


def end_at_commit(database: Database) -> None:
    """Let the server end the next connection that is about to commit."""

    @event.listens_for(database.engine, "commit", once=True)
    def commit(connection):
        end_connection(database, connection)


def test_write_that_loses_its_connection_at_the_commit_is_an_error_that_says_so(table_url):
    database = Database(table_url)
    calls = []

    def work(connection):
        calls.append(1)
        connection.execute(text("INSERT INTO t VALUES (1)"))

    end_at_commit(database)
    with pytest.raises(DBAPIError, match="may have been committed or not"):
        database.write(work)

    assert len(calls) == 1
    database.dispose()


def test_repeatable_write_that_loses_its_connection_at_the_commit_is_made_again(table_url):
    database = Database(table_url)

    def work(connection):
        connection.execute(text("DELETE FROM t"))
        connection.execute(text("INSERT INTO t VALUES (1)"))

    end_at_commit(database)
    database.write(work, repeatable=True)

    assert scalar(database, "SELECT count(*) FROM t") == 1
    database.dispose()


@pytest.mark.parametrize("way", ["look", "read", "write"])
def test_server_that_cannot_be_reached_any_more_is_waited_for_with_one_warning(
    table_url, way, caplog, monkeypatch
):
    monkeypatch.setattr(outages, "AWAY", Patience(limit_s=60.0, say_after_s=0.0))
    database = Database(table_url)
    scalar(database, "SELECT 1")
    database.dispose()
    server = Unreachable(database)
    seen = []

    def wait():
        seen.append(getattr(database, way)(lambda connection: connection.scalar(text("SELECT 7"))))
        database.rest()

    thread = threading.Thread(target=wait)
    thread.start()
    wait_for(lambda: server.tries >= 3 and len(caplog.records) > 0)
    server.is_down = False
    thread.join()

    assert seen == [7]
    (message,) = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert "cannot be reached: waiting for it, for 60 s at most (connection refused)" in message or (
        "cannot be reached: waiting for it, for 60 s at most ((2003, 'connection refused'))" in message
    )


@pytest.mark.parametrize("way", ["look", "read", "write"])
def test_server_that_stays_away_is_an_error_after_the_wait_and_at_once_the_next_time(
    table_url, way, monkeypatch
):
    monkeypatch.setattr(outages, "AWAY", Patience(limit_s=0.1))
    database = Database(table_url)
    scalar(database, "SELECT 1")
    database.dispose()
    server = Unreachable(database)

    with pytest.raises(OperationalError, match="connection refused"):
        getattr(database, way)(lambda connection: connection.scalar(text("SELECT 7")))
    tries = server.tries
    monkeypatch.setattr(outages, "AWAY", Patience(limit_s=60.0))
    with pytest.raises(OperationalError, match="connection refused"):
        database.read(lambda connection: connection.scalar(text("SELECT 7")))

    assert tries > 2
    assert server.tries == tries + 1


@pytest.mark.parametrize("way", ["look", "read", "write"])
def test_server_that_was_never_reached_is_an_error_at_once(table_url, way):
    database = Database(create_engine(table_url))
    server = Unreachable(database)

    with pytest.raises(OperationalError, match="connection refused"):
        getattr(database, way)(lambda connection: connection.scalar(text("SELECT 7")))

    assert server.tries == 1


def test_warning_does_not_tell_the_password(caplog, monkeypatch, postgres_url):
    monkeypatch.setattr(outages, "AWAY", Patience(limit_s=0.2, say_after_s=0.0))
    database = Database(make_url(postgres_url).set(password="secret"))
    scalar(database, "SELECT 1")
    database.dispose()
    Unreachable(database)

    with pytest.raises(OperationalError):
        database.read(lambda connection: None)

    assert "cannot be reached" in caplog.text
    assert "secret" not in caplog.text


@pytest.fixture
def limited_url(postgres_url):
    """Make a URL in the name of a user who may have so many connections at a time."""
    role = f"entropic_{uuid4().hex}"
    engine = create_engine(postgres_url, poolclass=NullPool, isolation_level="AUTOCOMMIT")

    def limit(places):
        with engine.connect() as connection:
            connection.execute(text(f"CREATE ROLE {role} LOGIN CONNECTION LIMIT {places}"))
        return make_url(postgres_url).set(username=role)

    yield limit
    with engine.connect() as connection:
        connection.execute(text(f"DROP ROLE {role}"))


def test_server_without_a_place_is_waited_for_from_the_first_connection_on(limited_url, caplog, monkeypatch):
    monkeypatch.setattr(outages, "FULL", Patience(limit_s=600.0, say_after_s=0.0))
    url = limited_url(1)
    other = create_engine(url, poolclass=NullPool).connect()
    database = Database(url)
    seen = []

    def wait():
        seen.append(database.read(lambda connection: connection.scalar(text("SELECT 7"))))

    thread = threading.Thread(target=wait)
    thread.start()
    wait_for(lambda: "too many connections" in caplog.text)
    other.close()
    thread.join()
    database.dispose()

    assert seen == [7]


def test_connection_for_look_ups_is_given_up_where_the_server_has_no_place_for_another(limited_url):
    database = Database(limited_url(1))
    database.look(lambda connection: connection.execute(text("SELECT 1")))

    answer = database.read(lambda connection: connection.scalar(text("SELECT 7")))

    assert answer == 7
    database.dispose()


def test_idle_connection_is_given_up_where_the_server_has_no_place_for_another(limited_url):
    database = Database(limited_url(1))
    other = Database(make_url(database.url).update_query_dict({"application_name": "another engine"}))
    other.read(lambda connection: connection.execute(text("SELECT 1")))

    answer = database.look(lambda connection: connection.scalar(text("SELECT 7")))

    assert answer == 7
    database.dispose()


# In memory


def test_memory_is_shared_by_threads_and_stores(tmp_path):
    database = Database("sqlite://")
    store = Store(cases.VersionedRunner(tmp_path / "log"), Sim, tmp_path / "results", ".txt", database)
    threads = [threading.Thread(target=store.run_or_retrieve, args=({"a": float(n)},)) for n in range(8)]

    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    second = Store(cases.VersionedRunner(tmp_path / "log"), Sim, tmp_path / "results", ".txt", database)
    assert second.count() == 8
    assert isinstance(database.engine.pool, QueuePool)


@pytest.mark.parametrize("place", ["file::memory:?uri=true", "file::memory:?cache=shared&uri=true"])
def test_memory_that_is_named_by_a_uri_is_no_file(tmp_path, monkeypatch, place):
    monkeypatch.chdir(tmp_path)
    database = Database(f"sqlite:///{place}")
    database.write(lambda connection: connection.execute(text("CREATE TABLE t (x INTEGER)")))

    assert database.is_memory
    assert list(tmp_path.iterdir()) == []
    database.dispose()


def test_two_databases_in_memory_are_two():
    one, two = Database("sqlite://"), Database("sqlite://")
    one.write(lambda connection: connection.execute(text("CREATE TABLE t (x INTEGER)")))

    assert scalar(two, "SELECT count(*) FROM sqlite_master") == 0


def look_at(database: Database) -> str:
    try:
        scalar(database, "SELECT 1")
    except RuntimeError as error:
        return str(error)
    return "answered"


def test_memory_says_in_another_process_that_it_is_not_there():
    (answer,) = run_together(look_at, [(Database("sqlite://"),)])

    assert "lives in the process that made it" in answer


# Travelling


def test_database_that_travels_opens_nothing_and_finds_the_same_engine_here(sqlite_url):
    database = Database(sqlite_url)
    data = pickle.dumps(database)

    arrived = pickle.loads(data)

    assert not Path(make_url(sqlite_url).database).exists()
    assert arrived.engine is database.engine


def test_password_travels():
    arrived = pickle.loads(pickle.dumps(Database("postgresql://me:secret@host/db")))

    assert arrived.url.password == "secret"


def run_with(store: Store, params) -> str:
    return Path(store.run_or_retrieve(params).result_file).read_text()


def test_store_travels_to_another_process_and_works_there(sqlite_url, tmp_path):
    place = Place(sqlite_url, tmp_path)
    store = place.store()
    store.run_or_retrieve(A)

    answers = run_together(run_with, [(store, A), (store, {"a": 2.5})])

    assert answers == ["version 1 of 1.5", "version 1 of 2.5"]
    assert store.count() == 2
    assert len(place.runner().calls) == 2


# Forks


def fork_and_use(place: Place) -> list[int]:
    """Use a Store, fork with its connections open, use it in both; return what both see."""
    store = place.store()
    store.run_or_retrieve(A)
    store.retrieve(A)
    receiver, sender = os.pipe()
    child = os.fork()
    if child == 0:
        status = 1
        try:
            store.run_or_retrieve({"a": 2.5})
            os.write(sender, str(store.count()).encode())
            status = 0
        finally:
            os._exit(status)
    os.close(sender)
    answer = int(os.read(receiver, 10) or -1)
    _, status = os.waitpid(child, 0)
    store.run_or_retrieve({"a": 3.5})
    return [status, answer, store.count(), len(place.runner().calls)]


@pytest.mark.parametrize("url", ["sqlite_url", "postgres_url", "mysql_url"])
def test_fork_with_open_connections_hurts_neither_parent_nor_child(request, tmp_path, url):
    (seen,) = run_together(fork_and_use, [(Place(request.getfixturevalue(url), tmp_path),)])

    assert seen == [0, 2, 3, 3]


def fork_and_tell_owner(place: Place) -> list[str]:
    store = place.store()
    store.run_or_retrieve(A)
    child = os.fork()
    if child == 0:
        try:
            store.run_or_retrieve({"a": 2.5})
        finally:
            os._exit(0)
    os.waitpid(child, 0)
    return [row.owner for row in place.sql("SELECT owner FROM entropic_attempts")]


def test_forked_process_is_another_owner(sqlite_url, tmp_path):
    (owners,) = run_together(fork_and_tell_owner, [(Place(sqlite_url, tmp_path),)])

    assert len(set(owners)) == 2


# First starters and readers


@pytest.mark.parametrize("processes", [4, pytest.param(16, marks=pytest.mark.slow)])
@pytest.mark.parametrize("url", ["sqlite_url", "postgres_url", "mysql_url"])
def test_many_processes_open_the_same_fresh_database(request, tmp_path, url, processes):
    place = Place(request.getfixturevalue(url), tmp_path)

    answers = run_together(cases.call, [(place, A)] * processes, timeout_s=120)

    assert answers == ["version 1 of 1.5"] * processes
    assert len(place.runner().calls) == 1


def test_read_only_database_opens_and_reads(sqlite_url, tmp_path):
    place = Place(sqlite_url, tmp_path)
    place.store().run_or_retrieve(A)
    path = make_url(sqlite_url).database

    store = Store(place.runner(), Sim, place.results, ".txt", f"sqlite:///file:{path}?mode=ro&uri=true")

    assert store.retrieve(A).a == 1.5
    assert Path(store.run_or_retrieve(A).result_file).exists()
    with pytest.raises(OperationalError, match="readonly"):
        store.run_or_retrieve({"a": 2.5})
    assert len(place.runner().calls) == 1


def test_read_only_database_opens_though_a_dead_process_left_a_finished_run(sqlite_url, tmp_path, caplog):
    place = Place(sqlite_url, tmp_path)
    place.store().run_or_retrieve(A)
    outcomes_of(cases.run_until, [(place, "line written", {"a": 2.5})])
    path = make_url(sqlite_url).database

    with cases.warned(caplog, "could not be recovered"):
        store = Store(place.runner(), Sim, place.results, ".txt", f"sqlite:///file:{path}?mode=ro&uri=true")

    assert store.count() == 1
    assert place.store().count() == 2


@pytest.mark.parametrize("durable", [False, True])
@pytest.mark.parametrize("moment", ["BEGIN", "INSERT", "SELECT"])
def test_interrupt_in_a_transaction_leaves_no_lock_to_who_handles_it(sqlite_url, moment, durable):
    database = Database(sqlite_url)
    database.write(lambda connection: connection.exec_driver_sql("CREATE TABLE t (n INTEGER)"))

    def interrupt(connection, cursor, statement, parameters, context, executemany):
        if statement.startswith(moment):
            event.remove(database.engine, "after_cursor_execute", interrupt)
            raise KeyboardInterrupt

    def work(connection):
        connection.exec_driver_sql("INSERT INTO t VALUES (1)")
        connection.exec_driver_sql("SELECT n FROM t")

    event.listen(database.engine, "after_cursor_execute", interrupt)
    try:
        database.write(work, durable=durable)
    except KeyboardInterrupt:  # its traceback keeps the cursor alive, and SQLite a connection that has one
        with closing(sqlite3.connect(database.url.database, timeout=0, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            assert other.execute("SELECT n FROM t").fetchall() == []
    else:
        pytest.fail("nothing was interrupted")
    database.dispose()


def test_roll_back_that_fails_does_not_hide_why_it_was_made(sqlite):
    def work(connection):
        try:
            connection.exec_driver_sql("SELECT absent")
        finally:
            connection.connection.dbapi_connection.close()

    with pytest.raises(OperationalError, match="no such column: absent"):
        sqlite.write(work)
