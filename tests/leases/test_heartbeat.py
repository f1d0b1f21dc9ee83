"""Heartbeats: an owner that is alive keeps its claims, whatever its runner does; a silent one publishes nothing."""

import fcntl
import json
import os
import select
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from contextlib import closing
from pathlib import Path

import pytest
from sqlalchemy import NullPool, create_engine

from entropic import Database, Store
from entropic.leases import heartbeat, heartbeat_process
from entropic.leases.claims import Claims
from tests.support import heartbeat_cases as cases
from tests.support.counting import statements
from tests.support.executors import executor_of
from tests.support.heartbeat_cases import (
    attempts,
    child,
    ends_of_leases,
    heartbeat_of,
    heartbeats_of,
    open_holding,
    run_here,
    wait_for_beats,
)
from tests.support.process_states import is_alive, pipes_of, state_of
from tests.support.protocol_cases import Other, Place, claims_on
from tests.support.store_cases import warnings_of
from tests.support.stores import open_store
from tests.support.sweep_runs import ROOT, Runs, Swept, sets
from tests.support.sweep_runs import place as sweep_place
from tests.support.waiting import wait_for

LEASE_S = 5.0  # where a rival waits for it to end
BRISK_S = 0.6  # where nobody does: ten beats in a second


@pytest.fixture(params=["sqlite-file", "postgresql", pytest.param("mysql", marks=pytest.mark.slow)])
def shared_url(request):
    """URL of a database that several processes can open."""
    fixture = {"sqlite-file": "sqlite_url", "postgresql": "postgres_url", "mysql": "mysql_url"}
    return request.getfixturevalue(fixture[request.param])


@pytest.fixture
def shared(shared_url, tmp_path):
    return Place(shared_url, tmp_path)


@pytest.fixture
def started(monkeypatch):
    """Returns the heartbeat processes that this process has started in the test."""
    with cases.fresh_heartbeats(monkeypatch) as started:
        yield started


# Runners that hold the interpreter's lock


@pytest.mark.slow
def test_claim_of_a_runner_that_holds_the_gil_for_three_leases_is_kept(shared):
    with child(cases.run_holding_the_lock, shared, LEASE_S, 3 * LEASE_S) as owner:
        wait_for((shared.folder / "begun").exists)
        with child(cases.obtain, shared, "2", LEASE_S, None) as rival:
            got = rival.result()
        turns = owner.result()

    assert turns <= 2
    assert got == ("obtained", "1")
    assert len(shared.runner().calls) == 1
    assert (attempts(shared), ends_of_leases(shared)) == (["COMPLETED"], {})


@pytest.mark.slow
def test_claims_of_a_sweep_whose_runs_hold_the_gil_are_kept(place):
    with child(cases.sweep_holding_the_lock, place, LEASE_S, 6, 0.5 * LEASE_S) as owner:
        wait_for((place.folder / "begun").exists)
        first = float((place.folder / "begun").read_text())
        with child(cases.obtain, place, "2", LEASE_S, None, first) as rival:
            got = rival.result()
        owner.result()

    assert got == ("obtained", "1")
    assert len(place.runner().calls) == 6
    assert (attempts(place), ends_of_leases(place)) == (["COMPLETED"] * 6, {})


# Owners that are frozen


@pytest.mark.slow
def test_owner_that_is_frozen_past_its_lease_publishes_nothing_and_is_told_who_did(shared):
    with child(cases.obtain, shared, "1", LEASE_S, 0.0) as owner:
        wait_for((shared.folder / "begun").exists)
        beating = heartbeat_of(owner.pid)
        owner.stop_group()
        stopped = {pid: state_of(pid) for pid in (owner.pid, beating)}
        with child(cases.obtain, shared, "2", LEASE_S, None) as rival:
            won = rival.result()
        committed = shared.rows()
        (shared.folder / "go").touch()
        owner.signal_group(signal.SIGCONT)
        came_late = owner.result()

    assert stopped == {owner.pid: "T", beating: "T"}
    assert (won, came_late) == (("obtained", "2"), ("lost", "2"))
    assert shared.rows() == committed
    assert_published(shared, {0.0: "2"})
    assert (attempts(shared), ends_of_leases(shared)) == (["COMPLETED", "LOST"], {})


@pytest.mark.slow
def test_serial_sweep_that_is_frozen_past_its_lease_takes_the_winners_record_and_goes_on(shared):
    with child(cases.sweep, shared, "1", LEASE_S, 5) as owner:
        wait_for((shared.folder / "begun").exists)
        owner.stop_group()
        with child(cases.obtain, shared, "2", LEASE_S, None) as rival:
            won = rival.result()
        (shared.folder / "go").touch()
        owner.signal_group(signal.SIGCONT)
        swept = owner.result()

    versions = {0.0: "2", 1.0: "1", 2.0: "1", 3.0: "1", 4.0: "1"}
    assert won == ("obtained", "2")
    assert dict(swept) == versions
    assert_published(shared, versions)
    assert attempts(shared) == [*["COMPLETED"] * 5, "LOST"]
    assert ends_of_leases(shared) == {}


def assert_published(place, versions):
    """There is a row for each parameter, its file has the bytes of the version given, and check() finds no fault."""
    rows = place.sql("SELECT a, result_file FROM protocol_sims")
    contents = {row.a: Path(row.result_file).read_bytes() for row in rows}
    assert len(rows) == len(versions)
    assert contents == {a: place.runner(version).result(a) for a, version in versions.items()}
    report = place.store().check(checksum=True)
    assert not report, str(report)


# Heartbeat processes that are killed or frozen


@pytest.mark.slow
def test_heartbeat_process_that_is_killed_is_replaced_and_the_claim_is_kept(shared, started, caplog):
    killed = []

    def kill_each(place):
        for _ in range(3):
            pid = heartbeat_of(os.getpid(), besides=frozenset({*former, *killed}))
            beaten_from_outside(place, database)
            os.kill(pid, signal.SIGKILL)
            killed.append(pid)
            wait_for_beats(place)
        heartbeat_of(os.getpid(), besides=frozenset({*former, *killed}))
        beaten_from_outside(place, database)

    former = heartbeats_of(os.getpid())
    database = Database(shared.url)
    run_here(shared, kill_each, lease_s=LEASE_S)

    assert warnings_of(caplog) == ["the heartbeat process ended with exit status -9"] * 3
    assert (attempts(shared), len(started())) == (["COMPLETED"], 1)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_heartbeat_process_that_is_ended_as_it_starts_is_replaced(place, started, number, monkeypatch):
    def replaced(place):
        heartbeat_of(os.getpid(), besides=frozenset(former | stillborn))
        beaten_from_outside(place, database)

    former, stillborn = heartbeats_of(os.getpid()), set()
    popen = subprocess.Popen

    def end_first(command, **options):
        process = popen(command, **options)
        if heartbeat_process.__file__ in command and not stillborn:
            stillborn.add(process.pid)
            process.send_signal(number)
        return process

    monkeypatch.setattr(subprocess, "Popen", end_first)
    database = Database(place.url)

    run_here(place, replaced, lease_s=BRISK_S)

    assert len(stillborn) == 1
    assert not started() & stillborn


@pytest.mark.slow
def test_heartbeat_process_that_is_frozen_is_made_up_for_and_replaced(shared, started, caplog):
    def freeze(place):
        pid = heartbeat_of(os.getpid(), besides=former)
        os.kill(pid, signal.SIGSTOP)
        wait_for_beats(place)
        wait_for(lambda: not is_alive(pid))
        heartbeat_of(os.getpid(), besides=frozenset({*former, pid}))
        beaten_from_outside(place, database)

    former = frozenset(heartbeats_of(os.getpid()))
    database = Database(shared.url)
    run_here(shared, freeze, lease_s=LEASE_S)

    assert warnings_of(caplog) == [
        "the heartbeat process is silent and is ended",
        "the heartbeat process ended with exit status -9",
    ]
    assert (attempts(shared), len(started())) == (["COMPLETED"], 1)


def beaten_from_outside(place, database):
    """Wait until the claims are extended although this process extends none."""

    def is_beaten():
        with statements(database.engine) as seen:
            wait_for_beats(place, 1)
        return not any(is_extension(statement) for statement in seen)

    wait_for(is_beaten)


def is_extension(statement):
    return statement.startswith("UPDATE entropic_claims SET expires_at")


# Owners that are killed


def test_waiter_takes_over_at_once_when_the_owner_on_its_host_is_killed(shared):
    lease_s = 3600.0

    with child(cases.obtain, shared, "1", lease_s, 0.0) as owner:
        wait_for((shared.folder / "begun").exists)
        beating = heartbeat_of(owner.pid)
        with child(cases.obtain, shared, "2", lease_s, None) as waiter:
            owner.signal(signal.SIGKILL)
            got = waiter.result()
        wait_for(lambda: not is_alive(beating))

    assert got == ("obtained", "2")
    assert (attempts(shared), ends_of_leases(shared)) == (["COMPLETED", "LOST"], {})


@pytest.mark.parametrize("how", ["by Python", pytest.param("by the C library", marks=pytest.mark.slow)])
def test_heartbeat_process_ends_with_its_owner_although_a_forked_child_lives_on(place, how):
    with child(cases.fork_and_hold, place, how, LEASE_S) as owner:
        wait_for((place.folder / "forked").exists)
        forked = int((place.folder / "forked").read_text())
        beating = heartbeat_of(owner.pid)
        shared_pipes = pipes_of(forked) & pipes_of(beating)
        owner.signal(signal.SIGKILL)
        wait_for(lambda: not is_alive(beating))
        outlived = is_alive(forked)

    assert bool(shared_pipes) == (how == "by the C library")
    assert outlived


# Heartbeats that fail


def test_heartbeat_that_the_database_refuses_is_made_up_for_by_the_owner(
    shared, started, caplog, monkeypatch
):
    monkeypatch.setattr(Claims, "extension_sql", lambda self: ("UPDATE no_such_table SET n = 1", []))

    def refused():
        return [message for message in warnings_of(caplog) if "a heartbeat failed" in message]

    def beaten(place):
        wait_for(refused)
        wait_for_beats(place, 3)

    run_here(shared, beaten, lease_s=BRISK_S)

    assert attempts(shared) == ["COMPLETED"]
    assert len(started()) == 1
    assert all("it is made up for: " in message and "no_such_table" in message for message in refused())


@pytest.mark.parametrize("executable", ["/bin/false", "/bin/echo", "/nowhere/python", "", None])
def test_heartbeat_process_that_does_not_start_leaves_it_to_a_thread(
    place, started, caplog, monkeypatch, executable
):
    monkeypatch.setattr(sys, "executable", executable)

    run_here(place, lambda place: wait_for_beats(place, 3), lease_s=BRISK_S)

    assert (attempts(place), ends_of_leases(place), started()) == (["COMPLETED"], {}, set())
    (warning,) = warnings_of(caplog)
    assert warning.startswith("the heartbeat process")


def test_run_goes_on_where_no_thread_can_be_started_and_the_next_one_is_seen_to(
    place, started, caplog, monkeypatch
):
    def refuse(thread):
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refuse)
        run_here(place, lambda _: None, lease_s=BRISK_S)
    (pid,) = started()
    os.kill(pid, signal.SIGKILL)
    run_here(place, lambda place: wait_for_beats(place, 3), a=2.0, lease_s=BRISK_S)

    first, second = warnings_of(caplog)
    assert first == "no thread can see to the heartbeat until the next run: can't start new thread"
    assert second == "the heartbeat process ended with exit status -9"
    assert attempts(place) == ["COMPLETED"] * 2


def test_heartbeat_that_fails_in_the_owner_too_does_not_disturb_the_run(place, started, caplog, monkeypatch):
    def refuse(self):
        raise sqlite3.OperationalError("no")

    monkeypatch.setattr(Claims, "extension_sql", lambda self: ("UPDATE no_such_table SET n = 1", []))
    monkeypatch.setattr(Claims, "extend", refuse)

    run_here(place, lambda _: wait_for(lambda: len(warnings_of(caplog)) >= 4), lease_s=BRISK_S)

    assert attempts(place) == ["COMPLETED"]
    assert any(message.endswith("the next one is in 0.1 s: no") for message in warnings_of(caplog))


# Where threads beat


def test_thread_beats_for_a_database_in_memory(tmp_path, started):
    def beaten(_):
        with statements(store.database.engine) as seen:
            wait_for(lambda: sum(map(is_extension, seen)) >= 3)

    store = open_holding(Place("sqlite://", tmp_path), during=beaten, lease_s=BRISK_S)
    store.run_or_retrieve({"a": 0.0})

    assert started() == set()


def test_run_goes_on_where_the_thread_that_beats_cannot_be_started(tmp_path, caplog, monkeypatch):
    def refuse(thread):
        raise RuntimeError("can't start new thread")

    store = open_holding(Place("sqlite://", tmp_path), during=lambda _: None, lease_s=BRISK_S)
    monkeypatch.setattr(threading.Thread, "start", refuse)

    assert store.run_or_retrieve({"a": 0.0}).a == 0.0
    assert "can't start new thread" in warnings_of(caplog)[0]


def test_thread_beats_for_an_engine_of_the_users(place, started):
    engine = create_engine(place.url, poolclass=NullPool)
    runner = cases.HoldingRunner(place, during=lambda place: wait_for_beats(place, 3))
    store = Store(runner, cases.Sim, place.results, ".txt", engine, lease_s=BRISK_S)

    store.run_or_retrieve({"a": 0.0})

    assert (attempts(place), started()) == (["COMPLETED"], set())


@pytest.mark.parametrize(
    "where", ["processes", *(pytest.param(place, marks=pytest.mark.slow) for place in ("workers", "dask"))]
)
def test_thread_extends_all_claims_of_a_sweeps_window_in_one_statement(tmp_path, started, where, request):
    runs = Runs(tmp_path / "log", holds=tuple(range(40)))
    store = open_store(Swept, tmp_path, runs, lease_s=BRISK_S)
    place = Place(store.database.url.render_as_string(), tmp_path)
    seen_ends, errors = [], []

    def watch():
        try:
            wait_for(lambda: runs.total() >= 2 and len(ends_of_leases(place)) >= 2)
            wait_for_beats(place, 2)
            # No beat between two claims: the ends of one statement are one.
            wait_for(lambda: len(set(ends_of_leases(place).values())) == 1)
            seen_ends.append(ends_of_leases(place))
        except BaseException as error:
            errors.append(error)
        finally:
            runs.release()

    with statements(store.database.engine) as seen, sweep_place(where, request) as arguments:
        watcher = threading.Thread(target=watch)
        watcher.start()
        result = store.sweep(sets(40), **arguments)
        watcher.join()

    assert errors == []
    assert len(seen_ends[0]) >= 2
    assert len(result) == 40
    assert not any("record_id" in statement for statement in seen if is_extension(statement))
    assert started() == set()


def test_sweep_in_threads_is_beaten_for_by_a_process(tmp_path, started):
    runs = Runs(tmp_path / "log", holds=(0, 1))
    store = open_store(Swept, tmp_path, runs, lease_s=BRISK_S)
    pids = []

    def watch():
        wait_for(lambda: runs.total() == 2 and started())
        pids.extend(started())
        runs.release()

    watcher = threading.Thread(target=watch)
    watcher.start()
    with executor_of("threads") as executor:
        store.sweep(sets(2), executor=executor)
    watcher.join()

    assert len(pids) == 1


# One process, and only where it is needed


def test_hit_starts_no_heartbeat_process(place, monkeypatch):
    run_here(place, lambda _: None, lease_s=60.0)

    with cases.fresh_heartbeats(monkeypatch) as started:
        store = open_holding(place)
        store.run_or_retrieve({"a": 0.0})
        store.sweep([{"a": 0.0}], progress=False)
        assert started() == set()


def test_tables_and_databases_share_one_heartbeat_process(tmp_path, started, postgres_url):
    places = [
        Place(f"sqlite:///{tmp_path / 'one.sqlite3'}", tmp_path / "one"),
        Place(f"sqlite:///{tmp_path / 'two.sqlite3'}", tmp_path / "two"),
        Place(postgres_url, tmp_path / "three"),
    ]
    stores = []
    for place in places:
        place.folder.mkdir()
        for number, model in enumerate((cases.Sim, Other)):
            runner = cases.HoldingRunner(place)
            results = place.folder / f"results{number}"
            stores.append(Store(runner, model, results, ".txt", place.url, lease_s=BRISK_S))
    threads = [threading.Thread(target=store.run_or_retrieve, args=({"a": 0.0},)) for store in stores]

    for thread in threads:
        thread.start()
    try:
        wait_for(lambda: all(len(place.runner().calls) == 2 for place in places))
        for place in places:
            wait_for_beats(place, 3)
        during = started()
    finally:
        for place in places:
            (place.folder / "go").touch()
        for thread in threads:
            thread.join()

    assert len(during) == 1
    assert started() == during
    assert [attempts(place) for place in places] == [["COMPLETED"] * 2] * 3


def test_run_in_a_run_keeps_both_claims(place, started):
    def nest(_):
        inner.run_or_retrieve({"a": 1.0})
        wait_for_beats(place, 2)

    def beaten(_):
        assert len(ends_of_leases(place)) == 2
        wait_for_beats(place, 2)

    inner = open_holding(place, held=1.0, during=beaten, lease_s=BRISK_S)
    run_here(place, nest, lease_s=BRISK_S)

    assert (attempts(place), len(started())) == (["COMPLETED"] * 2, 1)


@pytest.fixture
def told(started, monkeypatch):
    """What the heartbeat process is told, the order alone."""
    lines = []
    tell = heartbeat._outside._tell

    def noted(line):
        lines.append(next(iter(json.loads(line))))
        tell(line)

    monkeypatch.setattr(heartbeat._outside, "_tell", noted)
    return lines


def test_heartbeat_process_is_told_once_for_many_short_runs(place, told):
    store = open_holding(place, held=None)

    for number in range(20):
        store.run_or_retrieve({"a": float(number)})

    assert told == ["parent", "hold"]


def test_heartbeat_process_rests_when_nothing_has_run_for_a_while_and_is_told_of_the_next_run(place, told):
    store = open_holding(place, held=None, lease_s=BRISK_S)

    for number in range(2):
        store.run_or_retrieve({"a": float(number)})
        wait_for(lambda: told[-1] == "rest")

    assert told == ["parent", "hold", "rest", "hold", "rest"]


def test_trouble_with_a_beat_that_nobody_needs_is_not_told(place, told, caplog):
    store = open_holding(place, held=None)
    store.run_or_retrieve({"a": 0.0})
    (beating,) = heartbeat._outside._held

    heartbeat._outside._hear({"name": beating.name, "error": "no such table"})
    before = beating.beat_at = -1e9
    heartbeat._outside._make_up(late=1)

    assert (warnings_of(caplog), beating.beat_at) == ([], before)


# The process itself


class Talk:
    """A heartbeat process, told and listened to as its owner does; each order counts in a SQLite file of its own."""

    def __init__(self, folder, *, pipe_bytes=None):
        self.folder = folder
        self.process = subprocess.Popen(
            [sys.executable, "-I", "-S", heartbeat_process.__file__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            bufsize=0,
        )
        if pipe_bytes is not None:
            fcntl.fcntl(self.process.stdout, fcntl.F_SETPIPE_SZ, pipe_bytes)
        self.tell({"parent": os.getpid(), "path": sys.path})

    def tell(self, message):
        self.process.stdin.write(json.dumps(message).encode() + b"\n")

    def hold(self, name, **changes):
        path = self.folder / f"{name}.sqlite3"
        with closing(sqlite3.connect(path, isolation_level=None)) as connection:
            connection.execute("PRAGMA synchronous=OFF")
            connection.execute("CREATE TABLE counter (n INTEGER)")
            connection.execute("INSERT INTO counter VALUES (0)")
        order = {
            "hold": name,
            "driver": "sqlite3",
            "args": [str(path)],
            "kwargs": {"timeout": 30.0},
            "before": ["PRAGMA synchronous=OFF"],
            "statement": "UPDATE counter SET n = n + 1",
            "parameters": [],
            "every_s": 0.01,
        }
        self.tell(order | changes)

    def count(self, name):
        with closing(sqlite3.connect(self.folder / f"{name}.sqlite3", timeout=30)) as connection:
            return connection.execute("SELECT n FROM counter").fetchone()[0]

    def heard(self):
        """Return the next message."""
        line = b""
        while not line.endswith(b"\n"):
            assert select.select([self.process.stdout], [], [], 60)[0], "it says nothing"
            line += os.read(self.process.stdout.fileno(), 1)
        return json.loads(line)

    def close(self):
        self.process.stdin.close()
        self.process.stdout.close()
        self.process.kill()
        self.process.wait()


@pytest.fixture
def talk(tmp_path):
    talks = []

    def make(**options):
        talks.append(Talk(tmp_path, **options))
        return talks[-1]

    yield make
    for one in talks:
        one.close()


def test_heartbeat_process_says_that_it_is_ready_and_then_each_beat(talk):
    process = talk()
    process.hold("one")

    assert process.heard() == {"ready": True}
    assert [process.heard() for _ in range(3)] == [{"name": "one", "error": None}] * 3
    assert process.count("one") >= 3


def test_heartbeat_process_told_to_rest_leaves_the_database_alone(talk):
    process = talk()
    process.hold("one")
    wait_for(lambda: process.count("one") >= 3)

    process.tell({"rest": "one"})
    process.hold("two")
    wait_for(lambda: process.count("two") >= 3)  # so it has read the line before
    at_rest = process.count("one")
    wait_for(lambda: process.count("two") >= 20)

    assert process.count("one") <= at_rest + 1  # a beat that was on its way


@pytest.mark.slow
def test_heartbeat_process_whose_owner_does_not_listen_goes_on_beating(talk):
    """A runner that holds the interpreter's lock for hours keeps the owner from reading what the process says."""
    process = talk(pipe_bytes=4096)

    process.hold("one")

    wait_for(lambda: process.count("one") > 4096 // len('{"name": "one", "error": null}'))


def test_heartbeat_process_tries_a_beat_that_failed_again_sooner(talk):
    process = talk()

    process.hold("one", statement="UPDATE nowhere SET n = 1", every_s=0.02)

    process.heard()
    messages = [process.heard() for _ in range(3)]
    assert messages == [{"name": "one", "error": "OperationalError: no such table: nowhere"}] * 3


def test_heartbeat_process_tells_of_a_driver_that_is_not_there(talk):
    process = talk()

    process.hold("one", driver="no_such_driver")

    process.heard()
    assert process.heard() == {
        "name": "one",
        "error": "ModuleNotFoundError: No module named 'no_such_driver'",
    }


def test_heartbeat_process_ends_with_its_standard_input_whatever_it_waits_for(talk):
    process = talk()
    process.hold("one")
    with closing(sqlite3.connect(process.folder / "one.sqlite3", isolation_level=None)) as connection:
        connection.execute("BEGIN EXCLUSIVE")
        time.sleep(0.1)  # so that a beat waits for the lock; it ends whether or not one does
        process.process.stdin.close()

        assert process.process.wait(60) == 0


def test_heartbeat_process_leaves_signals_of_the_group_to_its_owner(talk):
    process = talk()
    process.heard()

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        process.process.send_signal(number)
    process.hold("one")

    wait_for(lambda: process.count("one") >= 3)
    assert process.process.poll() is None


AWKWARD = """it's "quoted", 100%s \\ :name ? %(x)s ünïcode"""


@pytest.mark.parametrize("table", [AWKWARD, "plain"])
def test_extension_by_a_driver_reaches_a_table_of_any_name(shared_url, table):
    database = Database(shared_url)
    claims_on(database, table, lease_s=60.0).acquire(["k"])
    claims_on(database, "other", lease_s=60.0).acquire(["k"])
    claims = claims_on(database, table, lease_s=6000.0)
    order = json.loads(heartbeat._order(database, claims, "name", 1.0))

    heartbeat_process.beat(order)

    rows = Place(shared_url, Path()).sql("SELECT table_name, expires_at FROM entropic_claims")
    ends = {row.table_name: row.expires_at for row in rows}
    assert ends[table] - ends["other"] > 3000
    database.dispose()


# Forks, and the end


FORKED = """
import os, sys, traceback
from pathlib import Path
from tests.support import heartbeat_cases as cases
from tests.support.protocol_cases import Place
from tests.support.waiting import wait_for

place = Place(sys.argv[1], Path(sys.argv[2]))

def in_the_child(place):
    own = cases.heartbeat_of(os.getpid())
    assert own not in former, (own, former)
    cases.wait_for_beats(place, 3)  # the parent's claim too

def fork(place):
    global former
    former = cases.heartbeats_of(os.getpid())
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            cases.run_here(place, in_the_child, lease_s=0.6, a=1.0)
            status = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(status)
    _, status = os.waitpid(pid, 0)
    assert status == 0, status
    assert cases.heartbeats_of(os.getpid()) == former
    cases.wait_for_beats(place, 3)

cases.run_here(place, fork, lease_s=0.6)
print(*former)
"""

QUIET = """
import os, sys
from pathlib import Path
from tests.support import heartbeat_cases as cases
from tests.support.protocol_cases import Place

place = Place(sys.argv[1], Path(sys.argv[2]))
store, _ = cases.run_here(place, lambda _: None, lease_s=60.0)
store.sweep([{"a": float(a)} for a in range(4)])
print(*cases.heartbeats_of(os.getpid()))
"""


def run_script(text, place, *options):
    """Run a script to its end; return what it printed, on either output, and its exit code."""
    path = place.folder / "script.py"
    path.write_text(text)
    done = subprocess.run(
        [sys.executable, *options, str(path), place.url, str(place.folder)],
        env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    return done.stdout, done.stderr, done.returncode


# Not every warning: from Python 3.12 on any fork of a process with threads is one.
RESOURCES = ("-W", "error::ResourceWarning")
FORKS = ("-W", "ignore:This process:DeprecationWarning")  # CPython 3.12, of a fork beside a thread


@pytest.mark.parametrize(
    "url",
    ["sqlite_url", *(pytest.param(one, marks=pytest.mark.slow) for one in ("postgres_url", "mysql_url"))],
)
def test_forked_child_that_runs_has_a_heartbeat_process_of_its_own(url, tmp_path, request):
    shared = Place(request.getfixturevalue(url), tmp_path)

    out, error, code = run_script(FORKED, shared, *RESOURCES, *FORKS)

    assert (error, code) == ("", 0)
    assert not is_alive(int(out))
    assert attempts(shared) == ["COMPLETED"] * 2


@pytest.mark.parametrize("options", [pytest.param((), marks=pytest.mark.slow), ("-W", "error")])
def test_process_that_ends_leaves_no_heartbeat_process_and_says_nothing(place, options):
    out, error, code = run_script(QUIET, place, *options)

    assert (error, code) == ("", 0)
    assert not is_alive(int(out))


def test_end_is_not_delayed_by_a_heartbeat_process_that_cannot_be_started(place, monkeypatch, caplog):
    monkeypatch.setattr(heartbeat, "_END_S", 60.0)
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    begun = time.monotonic()

    with cases.fresh_heartbeats(monkeypatch):
        run_here(place, lambda _: None, lease_s=3600.0)

    assert time.monotonic() - begun < 30
    assert "could not be started" in caplog.text
