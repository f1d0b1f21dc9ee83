"""Statistics in a database: its transactions, its processes, and what each call costs."""

import math
import os
import resource
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager

import pytest
from sqlalchemy import event, text
from sqlalchemy.exc import IntegrityError, OperationalError

from entropic import Database, TransactionError
from entropic.stats_store import SQLStatsStore, collector
from tests.support.counting import statements
from tests.support.lost_commits import lose_commit
from tests.support.processes import run_together
from tests.support.stats_cases import full, losses, shown, training, validation
from tests.support.waiting import wait_for

between_processes = pytest.mark.parametrize(
    "database_url",
    ["sqlite-file", "postgresql", pytest.param("mysql", marks=pytest.mark.slow)],
    indirect=True,
)


@pytest.fixture
def store(sqlite):
    return SQLStatsStore(sqlite)


@pytest.fixture(params=["sqlite_url", "postgres_url", "mysql_url"])
def shared(request):
    """A store in a database that several threads can use at once."""
    database = Database(request.getfixturevalue(request.param))
    yield SQLStatsStore(database)
    database.dispose()


@pytest.fixture
def no_timer(monkeypatch):
    """Let nothing be written by itself."""
    monkeypatch.setattr(collector, "EVERY_S", 3600.0)


def count(url, table="entropic_metrics"):
    """Count rows as another process would."""
    with closing(sqlite3.connect(url.removeprefix("sqlite:///"))) as connection, connection:
        (found,) = connection.execute(f"SELECT count(*) FROM {table}").fetchone()
    connection.close()
    return found


# Transactions


def test_what_a_block_stores_is_committed_with_it_or_not_at_all(store, sqlite_url):
    def both():
        store.store_training_stats("r", training(range(3)))
        store.store_validation_iteration_scores("r", validation({3: 1}))
        store.log("r", 2, accuracy=0.5)
        assert store.to_numpy("r", "metrics")["accuracy"].tolist() == [0.5]
        assert store.best("r", "d0", "f1").score == 1.0

    with pytest.raises(KeyboardInterrupt):
        in_a_block_that_fails(store, both)
    assert [count(sqlite_url, name) for name in TABLES] == [0] * len(TABLES)

    with store.database.transaction():
        both()
        assert count(sqlite_url) == 0
    assert count(sqlite_url) == 1
    assert losses(store.retrieve_training_stats("r")) == losses(training(range(3)))
    assert shown(store.retrieve_validation_iteration_scores("r")) == {3: full(1)}


def in_a_block_that_fails(store, work):
    with store.database.transaction():
        work()
        raise KeyboardInterrupt


TABLES = ["entropic_training_stats", "entropic_validations", "entropic_validation_scores", "entropic_metrics"]


def test_what_is_logged_in_a_block_is_written_at_its_end_or_forgotten_with_it(store, sqlite_url, no_timer):
    store.log("r", 0, x=1)
    with store.database.transaction():
        store.log("r", 1, x=2)
        with store.database.transaction():
            store.log("r", 2, x=3)
        assert count(sqlite_url) == 0
    assert count(sqlite_url) == 3

    with pytest.raises(KeyboardInterrupt):
        in_a_block_that_fails(store, lambda: store.log("r", 3, x=4))
    with store.database.transaction():
        store.log("r", 5, x=6)

    assert store.to_numpy("r", "metrics")["iteration"].tolist() == [0, 1, 2, 5]


def in_a_thread(work):
    """Do something while this thread is in a block."""
    with ThreadPoolExecutor(1) as pool:
        pool.submit(work).result(60)


def test_what_was_logged_before_a_block_is_written_before_what_is_logged_in_it(shared, no_timer):
    shared.log("r", 0, x=1, y=1)
    with shared.database.transaction():
        shared.log("r", 0, x=2)
        shared.log("r", 1, x=3)
    shared.flush()

    columns = shared.to_numpy("r", "metrics")
    assert columns["x"].tolist() == [2, 3]
    assert columns["y"][0] == 1


@pytest.mark.parametrize("is_read", [False, True])
def test_what_was_logged_before_a_block_outlives_it_when_it_comes_to_nothing(shared, no_timer, is_read):
    def work():
        shared.log("r", 0, x=2, z=2)
        if is_read:
            assert shared.to_numpy("r", "metrics")["x"].tolist() == [2, 1]
            in_a_thread(lambda: shared.log("r", 1, x=3))

    shared.log("r", 0, x=1, y=1)
    shared.log("r", 1, x=1)
    with pytest.raises(KeyboardInterrupt):
        in_a_block_that_fails(shared, work)

    columns = shared.to_numpy("r", "metrics")
    assert list(columns) == ["iteration", "x", "y"]
    assert columns["x"].tolist() == [1, 3 if is_read else 1]
    assert shared._collector not in collector._waiting


def test_deleted_values_do_not_come_back_after_a_block(shared, no_timer):
    shared.log("r", 0, x=1)
    with pytest.raises(KeyboardInterrupt):
        in_a_block_that_fails(shared, lambda: shared.delete_metrics("r"))
    assert shared.to_numpy("r", "metrics")["x"].tolist() == [1]

    shared.log("r", 1, x=1)
    with shared.database.transaction():
        shared.log("r", 2, x=1)
        assert shared.delete_metrics("r") == 3
        in_a_thread(lambda: shared.log("r", 3, x=1))
    assert shared.to_numpy("r", "metrics")["iteration"].tolist() == [3]


def test_timer_does_not_write_over_what_a_block_has_written_meanwhile(shared, monkeypatch, caplog):
    monkeypatch.setattr(collector, "EVERY_S", 0.01)
    shared.log("r", 0, x=0)
    shared.flush()
    with shared.database.transaction():
        shared.log("r", 0, x=2)
        shared.to_numpy("r", "metrics")  # writes
        in_a_thread(lambda: shared.log("r", 1, x=1))
        wait_for(lambda: math.inf in shared._collector._due.values())  # and waits for the block
        shared.log("r", 1, x=3)
    wait_for(lambda: not shared._collector._due)

    assert shared.to_numpy("r", "metrics")["x"].tolist() == [2, 3]
    assert caplog.text == ""


def test_values_given_back_by_a_block_are_written_in_time(store, sqlite_url, monkeypatch):
    monkeypatch.setattr(collector, "EVERY_S", 0.05)

    def work():
        store.log("r", 0, x=1)
        store.flush()

    in_a_thread(lambda: store.log("r", 1, x=1))
    with pytest.raises(KeyboardInterrupt):
        in_a_block_that_fails(store, work)
    wait_for(lambda: count(sqlite_url) == 1)


def test_what_a_savepoint_took_back_is_still_to_be_written(store, no_timer):
    store.log("r", 0, x=1)
    with store.database.transaction(), refusing(store, "r"):
        store.log("r", 1, x=2)
        with pytest.raises(IntegrityError, match="not now"):
            store.to_numpy("r", "metrics")
    assert store.to_numpy("r", "metrics")["x"].tolist() == [1, 2]


@pytest.mark.parametrize("arrives", [True, False])
def test_values_before_a_block_of_which_nothing_is_known_are_kept(store, no_timer, arrives):
    store.log("r", 0, x=1)
    lose_commit(store.database, arrives=arrives)
    with pytest.raises(OperationalError, match="lost"), store.database.transaction():
        store.log("r", 1, x=2)
    with store.database.transaction():
        store.log("r", 2, x=3)

    assert store.to_numpy("r", "metrics")["iteration"].tolist() == ([0, 1, 2] if arrives else [0, 2])


def test_block_that_runs_again_logs_once(store):
    calls = []

    def work():
        calls.append(1)
        store.log("r", 1, x=len(calls))
        store.log("r", len(calls), y=1)
        if len(calls) == 1:
            store.database.engine  # noqa: B018
            raise locked()

    store.database.atomically(work)

    assert len(calls) == 2
    columns = store.to_numpy("r", "metrics")
    assert columns["x"][0] == 2
    assert columns["iteration"].tolist() == [1, 2]


def locked():
    return OperationalError("INSERT", {}, sqlite3.OperationalError("database is locked"))


def test_many_values_in_a_block_do_not_wait_for_its_end(store, sqlite_url):
    with store.database.transaction(), statements(store.database.engine) as seen:
        for number in range(collector.FULL + 5):
            store.log("r", number, x=number)
        assert sum("entropic_metrics" in one for one in seen) == 1
    assert count(sqlite_url) == collector.FULL + 5


def test_store_is_not_opened_in_a_block(sqlite):
    SQLStatsStore(sqlite)
    with (
        sqlite.transaction(),
        pytest.raises(TransactionError, match="opening a SQLStatsStore is not"),
    ):
        SQLStatsStore(sqlite)


# What is deleted


def test_labels_of_a_deleted_run_are_gone_and_their_numbers_are_not_given_again(store, sqlite_url):
    for labels in (["a", "b"], ["c"]):
        store.store_validation_iteration_scores("r", validation({1: 1}, labels))
        store.log("r", 1, **dict.fromkeys(labels, 1.0))
        store.delete_validation_scores("r")
        store.delete_metrics("r")

    with store.database.reading() as connection:
        rows = connection.execute(
            text("SELECT axis, number, label FROM entropic_stats_labels ORDER BY axis")
        ).all()
    assert rows == [
        ("gone criterion", 3, ""), ("gone dataset", 2, ""), ("gone metric", 2, ""), ("gone parameters", 3, "")
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("read", "second", "expected"),
    [
        (lambda store: store.to_numpy("r", "scores")["dataset"].tolist(), "stats_labels", ["b", "b"]),
        (lambda store: store.to_frame("r", "metrics").to_dict("records"), "stats_labels", [{"y": 3}]),
        (lambda store: store.best("r", "b", "f1")[:3], "validation_scores", (1, "b", "threshold_0.3")),
    ],
)
def test_reader_that_a_delete_overtakes_takes_no_label_for_another(store, read, second, expected):
    store.store_validation_iteration_scores("r", validation({1: 1}, ["a", "b"]))
    store.log("r", 1, x=1, y=2)
    store.flush()

    replaced = []

    def replace(connection, cursor, statement, *_):
        if f"FROM entropic_{second}" in statement and not replaced:
            replaced.append(1)
            with store.database.transaction():
                store.delete_validation_scores("r")
                store.delete_metrics("r")
                store.store_validation_iteration_scores("r", validation({1: [[[2.0, 0]]]}, ["b"], [0.3]))
                store.log("r", 1, y=3)

    event.listen(store.database.engine, "before_cursor_execute", replace)

    assert read(store) == expected


# What is logged


def test_values_are_written_in_a_second_by_themselves(store, sqlite_url):
    begun = time.monotonic()
    store.log("r", 1, x=1)
    assert count(sqlite_url) == 0

    wait_for(lambda: count(sqlite_url) == 1, timeout_s=30)
    assert time.monotonic() - begun > 0.5


def test_a_thousand_values_are_written_at_once(store, sqlite_url, no_timer):
    for number in range(collector.FULL // 2 - 1):
        store.log("r", number, x=1, y=2)
    assert count(sqlite_url) == 0
    store.log("r", number + 1, x=1, y=2)
    assert count(sqlite_url) == collector.FULL


@contextmanager
def refusing(store, run_name):
    """Let the database take no value of a run."""

    def refuse(connection, cursor, statement, parameters, *_):
        if statement.startswith("INSERT INTO entropic_metrics"):
            query = "SELECT name FROM entropic_stats_runs WHERE id = ?"
            run_id = parameters[0] if isinstance(parameters, tuple) else parameters[0][0]
            if cursor.execute(query, [run_id]).fetchone() == (run_name,):
                raise IntegrityError(statement, None, sqlite3.IntegrityError("not now"))

    event.listen(store.database.engine, "before_cursor_execute", refuse)
    yield
    event.remove(store.database.engine, "before_cursor_execute", refuse)


def test_values_that_cannot_be_written_are_kept_and_written_later(store, monkeypatch, caplog):
    with refusing(store, "r"):
        store.log("r", 1, x=1)
        with pytest.raises(IntegrityError, match="not now"):
            store.flush()
        monkeypatch.setattr(collector, "EVERY_S", 0.01)
        store.log("r", 1, x=2)
        store.log("s", 1, x=3)
        wait_for(
            lambda: caplog.text.count("logged values of the run 'r' could not be written, and are kept") > 1
        )
        assert "(sqlite3.IntegrityError) not now" in caplog.text
        assert "of the run 's'" not in caplog.text
    store.flush()

    assert store.to_numpy("r", "metrics")["x"].tolist() == [2]
    assert store._collector not in collector._waiting


def test_run_that_cannot_be_written_keeps_no_other_ones_values(store, sqlite_url, no_timer, caplog):
    with refusing(store, "b"):
        for name in ("c", "b", "a"):
            store.log(name, 1, x=1)
        assert store.to_numpy("a", "metrics")["x"].tolist() == [1]
        collector._flush_all()
        assert count(sqlite_url) == 2
        assert "logged values of the run 'b' are lost, as they could not be written at exit" in caplog.text
        for number in range(collector.FULL):
            store.log("c", number, x=1)
        assert count(sqlite_url) == collector.FULL + 1

    assert store.delete_metrics("b") == 1


def test_threads_that_log_lose_nothing(store, no_timer):
    def many(thread):
        for number in range(500):
            store.log("r", number, **{f"x{thread}": number})

    threads = [threading.Thread(target=many, args=(n,)) for n in range(4)]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    columns = store.to_numpy("r", "metrics")

    assert sorted(columns) == ["iteration", "x0", "x1", "x2", "x3"]
    assert all(columns[f"x{n}"].tolist() == list(range(500)) for n in range(4))


EXIT = """
import os, sys
from multiprocessing import get_context
from entropic.stats_store import SQLStatsStore

def child(store):
    store.log("child", 1, x=1)

if __name__ == "__main__":
    store = SQLStatsStore(sys.argv[1])
    store.log("parent", 1, x=1)
    if sys.argv[2] == "fork":
        process = get_context("fork").Process(target=child, args=(store,))
        process.start()
        process.join()
    if sys.argv[2] == "raise":
        1 / 0
"""


@pytest.mark.parametrize(("way", "runs"), [("end", 1), ("raise", 1), ("fork", 2)])
def test_values_are_written_at_exit_and_by_the_process_that_logged_them(sqlite_url, tmp_path, way, runs):
    script = tmp_path / "training.py"
    script.write_text(EXIT)

    done = subprocess.run(
        [sys.executable, script, sqlite_url, way], capture_output=True, text=True, check=False
    )

    assert done.returncode == (way == "raise"), done.stderr
    assert "logged values" not in done.stderr
    assert count(sqlite_url) == count(sqlite_url, "entropic_stats_runs") == runs


# Other processes


def goes_on(url, run_name, until, step):
    """Store a training again and again as it grows."""
    store = SQLStatsStore(url)
    for end in range(step, until + 1, step):
        store.store_training_stats(run_name, training(range(end)))
    store.database.dispose()


def fills(url, run_name, first, count_of):
    """Store every other iteration, and log as much."""
    store = SQLStatsStore(url)
    for number in range(first, 2 * count_of, 2):
        store.store_training_stats(run_name, training([number]), on_behind="merge")
        store.log(run_name, number, **{f"x{first}": number, "both": number})
        store.flush()
    store.database.dispose()


@between_processes
def test_two_processes_that_store_one_training_lose_and_double_nothing(database_url):
    run_together(goes_on, [(database_url, "r", 200, 10), (database_url, "r", 200, 7)])

    database = Database(database_url)
    found = losses(SQLStatsStore(database).retrieve_training_stats("r"))
    database.dispose()
    assert list(found) == list(range(len(found)))
    assert len(found) in {196, 200}


@between_processes
def test_two_processes_that_fill_one_run_lose_and_double_nothing(database_url):
    run_together(fills, [(database_url, "r", first, 40) for first in (0, 1)])

    database = Database(database_url)
    store = SQLStatsStore(database)
    columns = store.to_numpy("r", "metrics")
    found = losses(store.retrieve_training_stats("r"))
    database.dispose()
    assert list(found) == list(range(80))
    assert columns["both"].tolist() == list(range(80))
    assert [int(math.fsum(columns[f"x{n}"][n::2])) for n in (0, 1)] == [sum(range(n, 80, 2)) for n in (0, 1)]


KILLED = """
import sys
from entropic.stats_store import SQLStatsStore
from tests.support.stats_cases import training
store = SQLStatsStore(sys.argv[1])
print("ready", flush=True)
end = 0
while True:
    end += 500
    store.store_training_stats("r", training(range(end)))
"""


@pytest.mark.slow
def test_killed_writer_leaves_whole_calls(sqlite_url):
    for round_s in (0.02, 0.05, 0.1, 0.2):
        process = subprocess.Popen([sys.executable, "-c", KILLED, sqlite_url], stdout=subprocess.PIPE)
        process.stdout.readline()
        time.sleep(round_s)
        os.kill(process.pid, signal.SIGKILL)
        process.communicate()
        database = Database(sqlite_url)
        found = losses(SQLStatsStore(database).retrieve_training_stats("r"))
        database.dispose()
        assert len(found) % 500 == 0
        assert list(found) == list(range(len(found)))


# What it costs


def grown(url, count):
    """How much more memory a training of so many iterations takes than one of a few, and its arrays, in bytes."""
    store = SQLStatsStore(Database(url))
    peaks = []
    for run, total in ("few", 20_000), ("many", count):
        for start in range(0, total, 1000):
            store.store_training_stats(run, training(range(start, start + 1000)))
        peaks.append(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)
        arrays = store.to_numpy(run)
        peaks.append(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)
    store.database.dispose()
    _, few, written, read = peaks
    assert arrays["iteration"].tolist() == list(range(count))
    return written - few, read - few, sum(array.nbytes for array in arrays.values())


@pytest.mark.slow
@pytest.mark.parametrize("database_url", ["sqlite-file", "postgresql", "mysql"], indirect=True)
def test_memory_stays_flat_however_long_a_training_is(database_url):
    ((written, read, arrays),) = run_together(grown, [(database_url, 200_000)], timeout_s=300)

    assert written < 2_000_000
    assert arrays == 200_000 * 24
    assert read - written < 2 * arrays + 1_000_000  # the rows of the driver would be eight times the arrays


def test_each_call_has_a_few_statements_however_much_it_stores(store):
    store.store_training_stats("r", training(range(10)))
    store.store_validation_iteration_scores("r", validation({1: 1}))
    calls = {
        "append": lambda: store.store_training_stats("r", training(range(5000))),
        "read": lambda: store.to_numpy("r"),
        "subsample": lambda: store.to_numpy("r", subsample=True),
        "scores": lambda: store.store_validation_iteration_scores("r", validation({1: 1, 2: 1, 3: 1})),
        "read scores": lambda: store.retrieve_validation_iteration_scores("r"),
        "best": lambda: store.best("r", "d0", "f1"),
    }
    costs = {}
    for name, call in calls.items():
        with statements(store.database.engine) as seen:
            call()
        costs[name] = sum(not one.startswith(("BEGIN", "COMMIT")) for one in seen)

    assert costs == {
        "append": 3, "read": 2, "subsample": 3, "scores": 8, "read scores": 4, "best": 3
    }  # fmt: skip


def test_best_and_subsample_are_found_by_the_database(store):
    store.store_training_stats("r", training(range(3000)))
    store.store_validation_iteration_scores("r", validation(dict.fromkeys(range(1, 50), 1)))
    with statements(store.database.engine) as seen:
        store.best("r", "d0", "f1")
        store.to_numpy("r", subsample=True)
    assert any("LIMIT" in one and "entropic_validation_scores" in one for one in seen)
    assert any("%" in one and "entropic_training_stats" in one for one in seen)


def test_nan_is_null_in_the_tables(store):
    store.store_training_stats("r", training(range(2), loss=lambda i: math.nan))
    store.store_validation_iteration_scores("r", validation({1: math.nan}))
    store.log("r", 1, x=math.nan)
    store.flush()
    with store.database.reading() as connection:
        for table, column in (
            ("training_stats", "loss"),
            ("validation_scores", "score"),
            ("metrics", "value"),
        ):
            found = connection.execute(text(f"SELECT count(*), count({column}) FROM entropic_{table}")).one()
            assert found[0] > 0
            assert found[1] == 0


def test_plain_store_knows_no_statistics():
    script = "import entropic, entropic.store, sys; print([n for n in sys.modules if 'stats' in n])"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
