"""Forks beside other threads: none in the middle of a statement, and nothing of the parent's is closed in a child."""

import gc
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from entropic import Database
from entropic.sql import forks, held
from entropic.sql.forks import Statements
from tests.support.counting import append_line

ROOT = Path(__file__).parents[2]

MANY = """
import os, signal, sys, threading, time
from pathlib import Path
from entropic import Base, Mapped, Store

class Forked(Base):
    __tablename__ = "forked"
    n: Mapped[int]

def run(params):
    time.sleep(0.005)
    Path(params["result_file"]).write_text(str(params["n"]))

store = Store(run, Forked, "results", ".txt", "sqlite:///forks.sqlite3")
children = []

def fork():
    for k in range(80):
        pid = os.fork()
        if pid == 0:
            try:
                store.run_or_retrieve({"n": 1000 + k})
            finally:
                os._exit(0)
        children.append(pid)
        time.sleep(0.03)

thread = threading.Thread(target=fork)
thread.start()
store.sweep({"n": n} for n in range(250))
thread.join()
until = time.monotonic() + 60
while children and time.monotonic() < until:
    children = [pid for pid in children if os.waitpid(pid, os.WNOHANG)[0] == 0]
    time.sleep(0.1)
for pid in children:
    os.kill(pid, signal.SIGKILL)
print(len(children), "hang,", store.count(), "rows")
"""


def fork_and_end():
    """Fork a child that does nothing, and wait for it."""
    pid = os.fork()
    if pid == 0:
        os._exit(0)
    os.waitpid(pid, 0)


@pytest.fixture
def lock():
    """A lock of the test's own."""
    return Statements()


def in_thread(function):
    thread = threading.Thread(target=function, daemon=True)
    thread.start()
    return thread


def held_by_another_thread(lock):
    """Hold *lock* as a statement of another thread; return what ends it."""
    begun, end = threading.Event(), threading.Event()

    def statement():
        with lock:
            begun.set()
            end.wait(20)

    in_thread(statement)
    begun.wait(20)
    return end


@pytest.mark.parametrize("way", ["write", "look"])
def test_fork_waits_for_a_statement_of_another_thread(sqlite, way):
    begun, end, forked = threading.Event(), threading.Event(), threading.Event()

    def work(connection):
        begun.set()
        return end.wait(20)

    other = in_thread(lambda: getattr(sqlite, way)(work))
    begun.wait(20)
    forker = in_thread(lambda: (fork_and_end(), forked.set()))

    forked_at_once = forked.wait(0.1)
    end.set()

    assert not forked_at_once
    assert forked.wait(20)
    other.join(20)
    forker.join(20)


def test_statement_that_begins_during_a_fork_waits_for_it(lock):
    entered = threading.Event()

    def statement():
        with lock:
            entered.set()

    lock.before_fork()
    thread = in_thread(statement)
    entered_at_once = entered.wait(0.05)
    lock.after_fork()

    assert not entered_at_once
    assert entered.wait(20)
    thread.join(20)


def test_statement_inside_a_statement_is_not_held_up_by_a_fork_that_waits(lock):
    outer, go, inner = threading.Event(), threading.Event(), threading.Event()

    def statement():
        with lock:
            outer.set()
            go.wait(20)
            with lock:
                inner.set()

    thread = in_thread(statement)
    outer.wait(20)
    forker = in_thread(lambda: (lock.before_fork(), lock.after_fork()))
    while lock._forking is None:
        pass
    go.set()

    assert inner.wait(20)
    thread.join(20)
    forker.join(20)


def test_thread_in_a_statement_may_fork(lock):
    with lock:
        lock.before_fork()
        lock.after_fork()

    lock.before_fork()
    lock.after_fork()


def test_fork_that_waited_in_vain_goes_on_and_warns(lock, monkeypatch, caplog):
    monkeypatch.setattr(forks, "WAIT_S", 0.01)
    end = held_by_another_thread(lock)

    lock.before_fork()
    lock.after_fork()
    end.set()

    assert "forks while another thread has been in a statement" in caplog.text


def test_child_forgets_the_statements_of_the_parents_other_threads(lock, monkeypatch, caplog):
    end = held_by_another_thread(lock)

    lock.after_fork_in_child()
    lock.before_fork()
    lock.after_fork()
    end.set()

    assert caplog.text == ""


@pytest.mark.slow
def test_child_closes_nothing_of_the_parents(server_url, tmp_path, monkeypatch):
    log, close = tmp_path / "closed", held._close

    def closed(*args):
        append_line(log, str(os.getpid()))
        close(*args)

    monkeypatch.setattr(held, "_close", closed)
    database = Database(server_url)
    begun, end = threading.Event(), threading.Event()

    def keep():
        database.look(lambda connection: connection.exec_driver_sql("SELECT 1").scalar())
        begun.set()
        end.wait(20)
        return database.look(lambda connection: connection.exec_driver_sql("SELECT 1").scalar())

    thread = in_thread(keep)
    begun.wait(20)
    pid = os.fork()
    if pid == 0:
        gc.collect()
        os._exit(0)
    os.waitpid(pid, 0)

    end.set()
    thread.join(20)
    database.dispose()

    assert set(log.read_text().split()) == {str(os.getpid())}


@pytest.mark.slow
def test_none_of_eighty_children_forked_beside_a_sweep_hangs(tmp_path):
    (tmp_path / "script.py").write_text(MANY)

    done = subprocess.run(
        [sys.executable, "script.py"], cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True, text=True, timeout=240,
    )  # fmt: skip

    assert done.stdout == "0 hang, 330 rows\n", done.stderr
