"""One transaction over several stores: all of a block is committed, or nothing of it."""

import asyncio
import logging
import os
import pickle
import threading
from contextlib import suppress
from functools import partial
from pathlib import Path

import pytest
from sqlalchemy import Column, Integer, MetaData, String, Table, create_engine, func, insert, select, update
from sqlalchemy.exc import DBAPIError, IntegrityError, OperationalError

from entropic import Database, TransactionError
from entropic.sql import transactions
from entropic.sql.schema_lock import schema_lock
from tests.support.lost_commits import lose_commit, lose_connection
from tests.support.waiting import wait_for

TABLE = Table(
    "numbers", MetaData(), Column("n", Integer, primary_key=True), Column("word", String(20), nullable=False)
)


@pytest.fixture(autouse=True)
def table(request):
    if "database" in request.fixturenames:
        database = request.getfixturevalue("database")
        database.write(lambda connection: TABLE.create(connection))


@pytest.fixture(params=["sqlite_url", "postgres_url", "mysql_url"])
def shared(request):
    """A database that several threads and processes can use at once."""
    database = Database(request.getfixturevalue(request.param))
    database.write(lambda connection: TABLE.create(connection))
    yield database
    database.dispose()


def put(database, n, word="new"):
    database.write(lambda connection: connection.execute(insert(TABLE).values(n=n, word=word)))


def numbers(database):
    rows = select(TABLE.c.n).order_by(TABLE.c.n)
    return database.read(lambda connection: list(connection.scalars(rows)))


def seen_outside(database):
    """Return the numbers that another thread sees."""
    seen = []
    thread = threading.Thread(target=lambda: seen.extend(numbers(database)))
    thread.start()
    thread.join()
    return seen


def test_block_is_committed_as_a_whole(database):
    with database.transaction():
        put(database, 1)
        put(database, 2)
        assert numbers(database) == [1, 2]
        if not database.is_memory:
            assert seen_outside(database) == []

    assert numbers(database) == seen_outside(database) == [1, 2]


def test_exception_takes_all_of_it_back(database):
    def work():
        with database.transaction():
            put(database, 1)
            1 / 0  # noqa: B018

    with pytest.raises(ZeroDivisionError):
        work()

    assert numbers(database) == []


def test_every_way_to_ask_is_part_of_the_block(database):
    with database.transaction():
        put(database, 1)
        asked = select(func.count()).select_from(TABLE)
        with database.reading() as connection:
            assert connection.scalar(asked) == 1
        assert database.read(lambda connection: connection.scalar(asked)) == 1
        assert database.look(lambda connection: connection.scalar(asked)) == 1


def test_write_that_fails_costs_only_itself(database):
    with database.transaction():
        put(database, 1)
        with pytest.raises(IntegrityError):
            put(database, 1)
        put(database, 2)

    assert numbers(database) == [1, 2]


def test_blocks_inside_join(database):
    with database.transaction() as outer:
        put(database, 1)
        with database.transaction() as inner:
            put(database, 2)
        assert inner is outer
        if not database.is_memory:
            assert seen_outside(database) == []

    assert numbers(database) == [1, 2]


def test_exception_that_leaves_a_block_inside_ends_them_all(database):
    def work():
        with database.transaction():
            put(database, 1)
            with pytest.raises(ZeroDivisionError), database.transaction():
                1 / 0  # noqa: B018
            put(database, 2)

    with pytest.raises(TransactionError, match="is over, and nothing of it is committed: division by zero"):
        work()

    assert numbers(database) == []


def test_calls_follow_the_commit_or_the_rollback(database):
    calls = []
    with database.transaction() as block:
        put(database, 1)
        block.on_commit(lambda: calls.append(("committed", numbers(database), database.is_in_block)))
        block.on_commit(lambda: calls.append("then"))
        block.on_rollback(lambda: calls.append("never"))
        assert calls == []
    assert calls == [("committed", [1], False), "then"]

    calls.clear()

    def work():
        with database.transaction() as block:
            block.on_commit(lambda: calls.append("never"))
            block.on_rollback(lambda: calls.append("first made"))
            block.on_rollback(lambda: calls.append("last made"))
            1 / 0  # noqa: B018

    with pytest.raises(ZeroDivisionError):
        work()
    assert calls == ["last made", "first made"]

    database.on_commit(lambda: calls.append("at once"))
    assert calls[-1] == "at once"


def test_call_that_fails_does_not_keep_the_others_from_being_made(database, caplog):
    calls = []

    def work():
        with database.transaction() as block:
            put(database, 1)
            block.on_commit(partial({}.pop, "absent"))
            block.on_commit(partial([].pop))
            block.on_commit(lambda: calls.append("made"))

    with pytest.raises(KeyError):
        work()

    assert calls == ["made"]
    assert numbers(database) == [1]
    assert [record.message for record in caplog.records] == ["after the transaction: pop from empty list"]


def test_calls_before_the_commit_are_part_of_the_block(database):
    order = []
    with database.transaction():
        database.before_commit(lambda: put(database, 2))
        database.at_end(order.append)
        with database.transaction():
            database.before_commit(lambda: order.append(numbers(database)))
            database.on_commit(lambda: order.append("then"))
            put(database, 1)
        assert order == []

    assert order == [[1, 2], True, "then"]
    assert numbers(database) == [1, 2]


def test_calls_before_the_commit_are_not_made_where_there_is_none(database):
    order = []
    with suppress(KeyboardInterrupt), database.transaction():
        database.before_commit(lambda: put(database, 1))
        database.at_end(order.append)
        raise KeyboardInterrupt

    assert order == [False]
    assert numbers(database) == []


def test_call_before_the_commit_that_fails_takes_all_of_it_back(database):
    order = []

    def work():
        with database.transaction():
            put(database, 1)
            database.before_commit(lambda: put(database, 1))
            database.at_end(order.append)

    with pytest.raises(IntegrityError):
        work()
    assert order == [False]
    assert numbers(database) == []
    assert not database.is_in_block


def test_block_begins_with_its_first_statement(sqlite):
    sqlite.write(lambda connection: TABLE.create(connection))
    with sqlite.transaction():
        thread = threading.Thread(target=put, args=(sqlite, 1))  # a write lock would keep it waiting
        thread.start()
        thread.join(10)
        assert numbers(sqlite) == [1]
        put(sqlite, 2)

    assert numbers(sqlite) == [1, 2]


def test_block_is_synced_on_sqlite_and_leaves_the_connection_as_it_was(sqlite):
    sqlite.write(lambda connection: TABLE.create(connection))
    levels = []
    ask = lambda connection: levels.append(connection.exec_driver_sql("PRAGMA synchronous").scalar_one())  # noqa: E731
    with sqlite.transaction():
        sqlite.read(ask)
    sqlite.read(ask)

    assert levels == [2, 1]


def test_other_threads_are_not_in_the_block(shared):
    there = []
    with shared.transaction():
        thread = threading.Thread(target=lambda: there.append(shared.is_in_block))
        thread.start()
        thread.join()

    assert there == [False]


def test_other_tasks_of_the_event_loop_are_not_in_the_block(sqlite_url):
    database = Database(sqlite_url)
    database.write(lambda connection: TABLE.create(connection))

    async def block():
        with database.transaction():
            put(database, 1)
            await asyncio.sleep(0.01)
            put(database, 2)
            assert numbers(database) == [1, 2]

    async def other(use):
        await asyncio.sleep(0.001)
        with pytest.raises(
            TransactionError, match="another task of this thread's event loop has a transaction"
        ):
            use()

    def another_block():
        with database.transaction():
            pass

    async def together():
        await asyncio.gather(block(), other(lambda: put(database, 3)), other(another_block))
        put(database, 4)

    asyncio.run(together())
    assert numbers(database) == [1, 2, 4]


def test_task_that_a_block_runs_itself_is_in_it(sqlite_url):
    database = Database(sqlite_url)
    database.write(lambda connection: TABLE.create(connection))

    async def work():
        put(database, 1)

    with database.transaction():
        asyncio.run(work())
        assert seen_outside(database) == []

    assert numbers(database) == [1]


def test_stores_that_were_given_the_same_url_are_in_one_block(sqlite_url):
    one, other = Database(sqlite_url), Database(sqlite_url)
    one.write(lambda connection: TABLE.create(connection))

    def work():
        with one.transaction():
            put(other, 1)
            assert numbers(one) == [1]
            1 / 0  # noqa: B018

    with pytest.raises(ZeroDivisionError):
        work()

    assert numbers(other) == []


@pytest.mark.parametrize("make", [Database, lambda engine: pickle.loads(pickle.dumps(Database(engine)))])
def test_stores_that_were_given_the_same_engine_are_in_one_block(sqlite_url, make):
    engine = create_engine(sqlite_url)
    one, other = Database(engine), make(engine)
    one.write(lambda connection: TABLE.create(connection))

    def work():
        with one.transaction():
            put(one, 1)
            put(other, 2)
            1 / 0  # noqa: B018

    with pytest.raises(ZeroDivisionError):
        work()

    assert numbers(other) == []
    assert Database(Database(sqlite_url).engine).token == Database(sqlite_url).token


def test_write_that_would_wait_for_the_block_of_its_own_thread_is_refused(sqlite_url, tmp_path, monkeypatch):
    one, elsewhere = Database(sqlite_url), Database(f"sqlite:///{tmp_path / 'other.sqlite3'}")
    monkeypatch.chdir(tmp_path)
    Path("link.sqlite3").symlink_to(one.url.database)
    other = Database(create_engine("sqlite:///link.sqlite3"))
    for database in (one, elsewhere):
        database.write(lambda connection: TABLE.create(connection))

    with one.transaction():
        put(other, 1)  # nobody has it locked yet
        put(one, 2)
        put(elsewhere, 3)
        for write in (lambda: put(other, 4), lambda: other.atomically(lambda: put(other, 5))):
            with pytest.raises(
                TransactionError, match="would wait for itself: give all stores the same Database"
            ):
                write()
        assert numbers(other) == [1]

    put(other, 6)
    assert numbers(one) == [1, 2, 6]


def test_child_of_a_fork_is_not_in_the_block(shared):
    with shared.transaction():
        put(shared, 1)
        pid = os.fork()
        if pid == 0:
            try:
                is_right = not shared.is_in_block and numbers(shared) == []
            finally:
                os._exit(0 if is_right else 1)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
        put(shared, 2)

    assert numbers(shared) == [1, 2]


def deadlock(database, *, work=None):
    """Update two rows in one order while another block updates them in the other; return what befell either."""
    for n in (1, 2):
        put(database, n)
    at_barrier = threading.Barrier(2, timeout=30)
    ended = []

    def change(first, second):
        def both():
            for number, n in enumerate((first, second)):
                if number and not at_barrier.broken:
                    with suppress(threading.BrokenBarrierError):
                        at_barrier.wait()
                database.write(
                    lambda connection: connection.execute(
                        update(TABLE).where(TABLE.c.n == n).values(word=f"{first}")  # noqa: B023
                    )
                )

        try:
            (work or in_block)(database, both, at_barrier)
        except Exception as error:
            ended.append(error)
        else:
            ended.append(None)

    threads = [threading.Thread(target=change, args=order) for order in ((1, 2), (2, 1))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return ended


def in_block(database, both, barrier):
    with database.transaction():
        try:
            both()
        except OperationalError:
            with pytest.raises(TransactionError, match="is over, and nothing of it is committed"):
                numbers(database)
            raise


def test_after_a_deadlock_the_block_is_over_and_says_so(server_url):
    database = Database(server_url)
    database.write(lambda connection: TABLE.create(connection))

    ended = deadlock(database)

    assert sorted(type(error).__name__ for error in ended) == ["NoneType", "OperationalError"]
    words = database.read(lambda connection: set(connection.scalars(select(TABLE.c.word))))
    assert words in ({"1"}, {"2"})
    database.dispose()


def test_atomically_runs_again_after_a_deadlock(server_url):
    database = Database(server_url)
    database.write(lambda connection: TABLE.create(connection))

    def repeated(database, both, barrier):
        def work():
            try:
                both()
            except DBAPIError:
                barrier.abort()  # the second time nobody is waited for
                raise

        database.atomically(work)

    assert deadlock(database, work=repeated) == [None, None]
    database.dispose()


def test_atomically_runs_again_where_the_work_went_on_after_the_error(server_url):
    database = Database(server_url)
    database.write(lambda connection: TABLE.create(connection))
    calls = []

    def work():
        calls.append(len(calls))
        put(database, 1)
        if len(calls) == 1:
            lose_connection(database)
            with pytest.raises(DBAPIError):
                numbers(database)
        return put(database, 2)

    database.atomically(work)

    assert calls == [0, 1]
    assert numbers(database) == [1, 2]
    database.dispose()


def test_lost_connection_ends_the_block(server_url):
    database = Database(server_url)
    database.write(lambda connection: TABLE.create(connection))

    def work():
        with database.transaction():
            put(database, 1)
            lose_connection(database)
            with pytest.raises(DBAPIError):
                put(database, 2)

    with pytest.raises(TransactionError, match=r"Leave the block and run all of it again"):
        work()

    assert numbers(database) == []
    database.dispose()


@pytest.mark.parametrize("arrives", [True, False], ids=["arrives", "does not arrive"])
@pytest.mark.parametrize("is_told", [True, False], ids=["told", "not told"])
def test_commit_whose_answer_is_lost_is_decided_by_what_was_written(server_url, is_told, arrives):
    database = Database(server_url)
    database.write(lambda connection: TABLE.create(connection))
    is_there = select(TABLE.c.n).where(TABLE.c.n == 1)
    calls, errors = [], []
    lose_commit(database, arrives=arrives)

    try:
        with database.transaction() as block:
            put(database, 1)
            block.on_commit(lambda: calls.append("committed"))
            block.on_rollback(lambda: calls.append("rolled back"))
            if is_told:
                database.decide_by(lambda connection: connection.scalar(is_there) == 1)
    except DBAPIError as error:
        errors.append(error)

    assert numbers(database) == ([1] if arrives else [])
    if is_told:
        assert calls == (["committed"] if arrives else ["rolled back"])
        assert bool(errors) is not arrives
    else:
        (error,) = errors
        assert "it may have been committed or not" in error.__notes__[0]
        assert calls == []
    database.dispose()


def test_two_writers_on_sqlite_wait_for_each_other(sqlite):
    sqlite.write(lambda connection: TABLE.create(connection))
    is_begun, may_end = threading.Event(), threading.Event()

    def first():
        with sqlite.transaction():
            put(sqlite, 1)
            is_begun.set()
            may_end.wait(30)

    thread = threading.Thread(target=first)
    thread.start()
    assert is_begun.wait(30)
    other = threading.Thread(target=put, args=(sqlite, 2))
    other.start()
    other.join(0.1)
    assert other.is_alive()
    may_end.set()
    thread.join()
    other.join()

    assert numbers(sqlite) == [1, 2]


def test_block_that_keeps_others_waiting_is_a_warning_with_the_reason(sqlite, monkeypatch, caplog):
    sqlite.write(lambda connection: TABLE.create(connection))
    monkeypatch.setattr(transactions, "LONG_S", 0.0)
    with sqlite.transaction():
        pass
    assert not caplog.records

    with caplog.at_level(logging.WARNING), sqlite.transaction():
        put(sqlite, 1)

    (record,) = caplog.records
    assert "was open for 0.0 s" in record.message
    assert (
        "heartbeats of running sweeps too: write files and compute before its first statement"
        in record.message
    )


def test_engine_without_transactions_has_them_for_what_is_written(server_url):
    engine = create_engine(server_url, isolation_level="AUTOCOMMIT")
    database = Database(engine)
    database.write(lambda connection: TABLE.create(connection))

    def put_and_fail(connection):
        connection.execute(insert(TABLE).values(n=1, word="never"))
        return 1 // 0

    with pytest.raises(ZeroDivisionError):
        database.write(put_and_fail)
    with pytest.raises(ZeroDivisionError), database.transaction():
        database.write(put_and_fail)
    with pytest.raises(ZeroDivisionError), schema_lock(database) as connection:
        put_and_fail(connection)
    with database.transaction():
        put(database, 3)

    assert numbers(database) == [3]
    with engine.connect() as connection:  # it is as it was
        connection.execute(insert(TABLE).values(n=4, word="own"))
    assert numbers(database) == [3, 4]
    engine.dispose()


def test_foreign_thread_ends_nothing_of_the_block(sqlite):
    sqlite.write(lambda connection: TABLE.create(connection))
    with sqlite.transaction():
        put(sqlite, 1)
        seen = []
        thread = threading.Thread(target=lambda: seen.append(numbers(sqlite)))
        thread.start()
        wait_for(lambda: seen)
        thread.join()

    assert seen == [[]]
    assert numbers(sqlite) == [1]
