"""The database server stops, restarts or has no place left, in the middle of runs and sweeps; a file is locked."""

import gc
import logging
import random
import socket
import sqlite3
import tempfile
import threading
from collections import Counter
from contextlib import closing, contextmanager
from functools import partial
from pathlib import Path

import pytest
from sqlalchemy import NullPool, create_engine, make_url, text
from sqlalchemy.exc import OperationalError

from entropic.disk import sidecars
from entropic.process.patience import Patience
from entropic.runs import single
from entropic.runs.result_table import ResultTable
from entropic.sql import engines, outages
from tests.support import servers
from tests.support.processes import outcomes_of, run_together
from tests.support.stores import open_store
from tests.support.sweep_runs import Runs, Swept, sets
from tests.support.waiting import wait_for

# Every connection is ended properly; a crash.
MODES = ("fast", pytest.param("immediate", marks=pytest.mark.slow))
IMPATIENT = Patience(limit_s=0.5)


@pytest.fixture(scope="module")
def server():
    """A PostgreSQL server that tests stop and start again."""
    with servers.own_postgres_server() as server:
        yield server


@pytest.fixture
def url(server):
    with servers.postgres_database(server.url) as url:
        yield url


@pytest.fixture
def runs(tmp_path):
    return Runs(tmp_path / "runs.log")


@contextmanager
def meanwhile(function, *arguments):
    """Do something in a thread while the block runs, and wait for its end; its error is the test's."""
    errors = []

    def work():
        try:
            function(*arguments)
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield
    finally:
        thread.join()
    assert errors == []


def ask(url, sql):
    """Ask a database through a connection that nothing else uses."""
    engine = create_engine(url, poolclass=NullPool)
    with engine.connect() as connection:
        return [tuple(row) for row in connection.execute(text(sql))]


def assert_each_once(url, folder, runs, n):
    """There are *n* rows, each of one run and one attempt, and nothing else."""
    assert ask(url, "SELECT n FROM swept ORDER BY n") == [(i,) for i in range(n)]
    assert ask(url, "SELECT state, count(*) FROM entropic_attempts GROUP BY state") == [("COMPLETED", n)]
    assert ask(url, "SELECT * FROM entropic_claims") == []
    assert runs.count("begun") == Counter(range(n))
    store = open_store(Swept, folder, runs, url)
    report = store.check(checksum=True)
    assert not report, str(report)
    assert list(sidecars.process_folders(store.results_dir)) == []
    store.database.dispose()


def restart_when(condition, server, mode, runs):
    wait_for(condition)
    server.restart(mode)
    runs.release()


# The server restarts


def run_one(folder, runs, url):
    open_store(Swept, folder, runs, url).run_or_retrieve({"n": 0})


@pytest.mark.parametrize("mode", ["fast", "immediate"])
def test_server_that_restarts_during_a_run_gets_its_result(server, url, tmp_path, mode):
    runs = Runs(tmp_path / "runs.log", holds=(0,))

    with meanwhile(restart_when, lambda: runs.total() == 1, server, mode, runs):
        run_together(run_one, [(tmp_path, runs, url)])

    assert_each_once(url, tmp_path, runs, 1)


def test_server_that_is_down_when_a_run_ends_is_waited_for_with_one_warning(
    server, url, tmp_path, runs, caplog
):
    def runner(params):
        server.stop()
        return runs(params)

    store = open_store(Swept, tmp_path, runner, url)

    def start_when_told():
        wait_for(lambda: "cannot be reached" in caplog.text)
        server.start()

    with meanwhile(start_when_told):
        record = store.run_or_retrieve({"n": 0})

    store.database.dispose()
    warnings = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
    assert record.square == 0.0
    assert ["cannot be reached: waiting for it, for 60 s at most" in text for text in warnings] == [True]


@pytest.mark.slow
@pytest.mark.parametrize("mode", MODES)
def test_server_that_restarts_between_the_runs_of_a_sweep_gets_all_results(server, url, tmp_path, runs, mode):
    def runner(params):
        if params["n"] in {2, 5}:
            server.restart(mode)
        return runs(params)

    store = open_store(Swept, tmp_path, runner, url)

    result = store.sweep(sets(8), progress=False)

    store.database.dispose()
    assert [record.n for record in result] == list(range(8))
    assert_each_once(url, tmp_path, runs, 8)


@pytest.mark.slow
@pytest.mark.parametrize("mode", MODES)
def test_server_that_restarts_during_a_sweep_with_workers_gets_all_results(server, url, tmp_path, mode):
    runs = Runs(tmp_path / "runs.log", holds=(6,))
    store = open_store(Swept, tmp_path, runs, url)

    with meanwhile(restart_when, lambda: runs.total("begun") >= 4, server, mode, runs):
        result = store.sweep(sets(12), workers=2, progress=False)

    store.database.dispose()
    assert [record.n for record in result] == list(range(12))
    assert_each_once(url, tmp_path, runs, 12)


@pytest.mark.slow
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("workers", [None, 2])
def test_server_that_restarts_at_random_moments_of_a_sweep_gets_all_results(
    server, url, tmp_path, workers, mode
):
    runs = Runs(tmp_path / "runs.log", seconds=0.02)
    store = open_store(Swept, tmp_path, runs, url)
    ended = threading.Event()

    def restart():
        wait_for(lambda: runs.total() > 0)
        for _ in range(12):
            if ended.wait(random.uniform(0.05, 0.6)):
                return
            server.restart(mode)

    with meanwhile(restart):
        result = store.sweep(sets(150), workers=workers, progress=False)
        ended.set()

    store.database.dispose()
    assert [record.n for record in result] == list(range(150))
    assert_each_once(url, tmp_path, runs, 150)


# The server stays down


def run_and_stop(folder, runs, url, stopped):
    """Run one set; the server is stopped while it runs, and it is not waited for."""
    outages.AWAY = IMPATIENT

    def runner(params):
        Path(f"{runs.log}.stop").touch()
        wait_for(stopped.exists)
        return runs(params)

    open_store(Swept, folder, runner, url).run_or_retrieve({"n": 0})


def test_run_whose_server_stays_down_is_an_error_and_kept_for_the_next_process(server, url, tmp_path, runs):
    stopped = tmp_path / "stopped"

    def stop():
        wait_for(Path(f"{runs.log}.stop").exists)
        server.stop()
        stopped.touch()

    with meanwhile(stop):
        (outcome,) = outcomes_of(run_and_stop, [(tmp_path, runs, url, stopped)])
    server.start()

    store = open_store(Swept, tmp_path, runs, url)
    count = store.count()
    store.database.dispose()
    assert "OperationalError" in outcome.traceback
    assert count == 1
    assert_each_once(url, tmp_path, runs, 1)


@pytest.mark.slow
def test_run_whose_server_stays_down_is_committed_when_it_is_asked_for_again(
    server, url, tmp_path, runs, monkeypatch
):
    monkeypatch.setattr(outages, "AWAY", IMPATIENT)
    stops = iter([True])

    def runner(params):
        if next(stops, False):
            server.stop()
        return runs(params)

    store = open_store(Swept, tmp_path, runner, url, wait_timeout_s=10.0)
    with pytest.raises(OperationalError):
        store.run_or_retrieve({"n": 0})
    server.start()
    monkeypatch.setattr(outages, "AWAY", Patience(limit_s=60.0))

    record = store.run_or_retrieve({"n": 0})

    assert record.square == 0.0
    assert runs.total() == 1
    assert not store.check(checksum=True)
    store.database.dispose()


@pytest.mark.slow
def test_sweep_whose_server_stays_down_keeps_what_finished(server, url, tmp_path, runs, monkeypatch):
    monkeypatch.setattr(outages, "AWAY", IMPATIENT)
    stops = iter([True])

    def runner(params):
        if params["n"] == 4 and next(stops, False):
            server.stop()
        return runs(params)

    store = open_store(Swept, tmp_path, runner, url, wait_timeout_s=10.0)
    with pytest.raises(OperationalError):
        store.sweep(sets(8), progress=False)
    server.start()
    monkeypatch.setattr(outages, "AWAY", Patience(limit_s=60.0))

    result = store.sweep(sets(8), progress=False)

    assert [record.n for record in result] == list(range(8))
    assert ask(url, "SELECT state, count(*) FROM entropic_attempts GROUP BY state") == [("COMPLETED", 8)]
    assert ask(url, "SELECT * FROM entropic_claims") == []
    assert runs.count("begun") == Counter(range(8))
    assert not store.check(checksum=True)
    store.database.dispose()


def test_end_of_a_process_does_not_wait_for_a_server_that_is_away(
    server, url, tmp_path, runs, monkeypatch, caplog
):
    def is_there(table):  # as of a folder that another process has marked anew
        asked.append(table)
        return (
            table.database.read(lambda connection: connection.exec_driver_sql("SELECT 1").scalar_one()) == 1
        )

    asked = []
    monkeypatch.setattr(single, "_used", {})
    store = open_store(Swept, tmp_path, runs, url)
    store.run_or_retrieve({"n": 0})
    (own,) = sidecars.process_folders(store.results_dir)
    monkeypatch.setattr(ResultTable, "has_root", is_there)

    server.stop()
    single._clear_all_away()  # as the interpreter does
    server.start()

    assert len(asked) == 1
    assert own.exists()
    assert "waiting for it" not in caplog.text
    single._clear_all_away()
    assert not own.exists()
    store.database.dispose()


# The server has few places


def pull(folder, runs, url, n):
    store = open_store(Swept, folder, runs, url)
    return [record.n for record in store.sweep(sets(n), progress=False)]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("places", "pullers", "count", "seconds"),
    [(20, 40, 60, 0.2), pytest.param(100, 200, 200, 5.0, id="as many as PostgreSQL has by default")],
)
def test_twice_as_many_processes_as_the_server_has_places_for_sweep_one_grid(
    tmp_path, places, pullers, count, seconds
):
    runs = Runs(tmp_path / "runs.log", seconds=seconds)

    with (
        servers.own_postgres_server(max_connections=places) as server,
        servers.postgres_database(server.url) as url,
    ):
        answers = run_together(pull, [(tmp_path, runs, url, count)] * pullers, timeout_s=600)

        assert answers == [list(range(count))] * pullers
        assert_each_once(url, tmp_path, runs, count)


@contextmanager
def full_queue(path):
    """Listen on a local socket, accept nobody, and let the queue before it be full."""
    with socket.socket(socket.AF_UNIX) as listener, socket.socket(socket.AF_UNIX) as first:
        listener.bind(str(path))
        listener.listen(0)
        first.connect(str(path))
        yield


@pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning")  # PyMySQL, when it cannot connect
@pytest.mark.parametrize("kind", ["postgres_url", pytest.param("mysql_url", marks=pytest.mark.slow)])
def test_first_connection_waits_while_the_queue_before_a_local_socket_is_full(
    request, tmp_path, runs, monkeypatch, caplog, kind
):
    url = make_url(request.getfixturevalue(kind))
    monkeypatch.setattr(outages, "FULL", Patience(limit_s=60.0, say_after_s=0.1))
    option, name = ("host", ".s.PGSQL.5432") if kind == "postgres_url" else ("unix_socket", "mysql.sock")
    if option not in url.query:
        pytest.skip(f"{servers.MYSQL_VARIABLE}, or the server found without it, names no unix_socket to fill")
    behind = Path(url.query[option], name) if option == "host" else Path(url.query[option])
    with tempfile.TemporaryDirectory() as folder:  # a socket's name has at most 107 characters
        path = Path(folder, name)

        def make_room():
            wait_for(lambda: "has no place left: waiting for it" in caplog.text)
            path.unlink()
            path.symlink_to(behind)

        with full_queue(path), meanwhile(make_room):
            way = folder if option == "host" else str(path)
            store = open_store(Swept, tmp_path, runs, url.update_query_dict({option: way}))
            assert store.run_or_retrieve({"n": 3}).square == 9.0

    assert runs.total() == 1
    store.database.dispose()
    if kind == "mysql_url":
        gc.collect()  # the sockets of tries that failed


# A SQLite file is locked


def hold_lock(path, how, locked, warned):
    """Lock a SQLite file, as another process may, until somebody has been warned."""
    with closing(sqlite3.connect(path, isolation_level=None, timeout=60)) as connection:
        connection.execute(how)
        locked.touch()
        wait_for(warned.exists, 120)
        connection.rollback()


@contextmanager
def locked_by_another(path, how, caplog):
    """Let another process hold the lock of a SQLite file, from the begin of the block until this one has warned."""
    locked, warned = Path(f"{path}.locked"), Path(f"{path}.warned")

    def tell():
        wait_for(lambda: "is locked by another process: waiting for it" in caplog.text, 120)
        warned.touch()

    with meanwhile(partial(run_together, hold_lock, [(path, how, locked, warned)], timeout_s=120)):
        wait_for(locked.exists)
        with meanwhile(tell):
            yield


@pytest.mark.parametrize("how", [pytest.param("BEGIN IMMEDIATE", marks=pytest.mark.slow), "BEGIN EXCLUSIVE"])
@pytest.mark.parametrize("way", ["run", "sweep"])
def test_file_that_another_process_locks_for_longer_than_the_time_out_is_waited_for(
    tmp_path, runs, monkeypatch, caplog, how, way
):
    monkeypatch.setattr(engines, "BUSY_TIMEOUT_S", 0.3)
    monkeypatch.setattr(outages, "AWAY", Patience(say_after_s=0.1))
    store = open_store(Swept, tmp_path, runs)

    with locked_by_another(tmp_path / "runs.sqlite3", how, caplog):
        if way == "run":
            assert store.run_or_retrieve({"n": 0}).square == 0.0
        else:
            assert [record.n for record in store.sweep(sets(3), progress=False)] == [0, 1, 2]

    assert caplog.text.count("is locked by another process") == 1
    assert set(runs.count().values()) == {1}
    assert not store.check(checksum=True)
    store.database.dispose()


@pytest.mark.slow
def test_file_that_is_locked_for_longer_than_half_a_minute_is_waited_for(tmp_path, runs, caplog):
    store = open_store(Swept, tmp_path, runs)

    with locked_by_another(tmp_path / "runs.sqlite3", "BEGIN IMMEDIATE", caplog):
        record = store.run_or_retrieve({"n": 3})

    assert record.square == 9.0
    assert not store.check(checksum=True)
    store.database.dispose()
