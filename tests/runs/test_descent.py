"""Processes that a run starts, and which ask for runs: what would wait for itself is an error, the rest ends."""

import multiprocessing
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import pytest

from entropic import Store
from entropic.process.identity import this_process
from entropic.runs import descent
from entropic.runs.descent import is_waiting_for_us
from entropic.runs.waits import ASKED
from tests.support.nested_cases import Needs, Node, error_of, in_threads, sweep
from tests.support.processes import run_together
from tests.support.waiting import wait_for

pytestmark = pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")

LIMIT_S = 60.0


def in_fork(function, *given):
    """Return what a function returns in a fork of this process."""
    context = multiprocessing.get_context("fork")
    receiver, sender = context.Pipe(duplex=False)
    child = context.Process(target=lambda: sender.send(function(*given)))
    child.start()
    assert receiver.poll(LIMIT_S)
    child.join()
    return receiver.recv()


def in_server(function, *given):
    """Return what a function returns in a process that another one starts for this one."""
    return run_together(function, [given], timeout_s=LIMIT_S)[0]


def in_thread(function, *given):
    """Return what a function returns in a fork of this process that another thread makes."""
    with ThreadPoolExecutor(1) as threads:
        return threads.submit(in_fork, function, *given).result()


STARTED = {"fork": in_fork, "server": in_server, "thread": in_thread}


@pytest.fixture
def needs(tmp_path, sqlite_url):
    """The first of three numbers may be asked for by the last one."""
    return Needs(str(tmp_path), sqlite_url, {3: (0,)})


@pytest.fixture
def starting(needs, monkeypatch):
    """A Store whose runs of 0 start a process that asks for another number, and what that one was told."""
    monkeypatch.setattr("entropic.sweeps.window._Pace.size", lambda self: 3)

    def make(start, *given):
        errors = []

        def run(params):
            if params["n"] == 0:
                errors.append(start(error_of, needs, *given))
            Path(params["result_file"]).write_text("1")

        store = Store(run, Node, Path(needs.folder, "nodes"), ".txt", needs.url)
        return store, errors

    return make


@pytest.mark.parametrize(
    ("held_s", "age", "threads", "verdict"),
    [
        (10.0, 5.0, 1, True),
        (10.0, 5.0, 2, None),
        (10.0, 5.0, None, None),
        (5.0, 5.01, 1, None),  # the kernel counts a process's age in hundredths
        (1.0, 5.0, 1, False),
        (1.0, None, 1, None),
    ],
)
def test_claim_that_is_older_than_a_process_may_be_of_who_started_it(
    monkeypatch, held_s, age, threads, verdict
):
    monkeypatch.setattr(descent, "fork", lambda: None)
    monkeypatch.setattr(descent, "age_s", lambda: age)
    monkeypatch.setattr(descent, "threads_of", lambda pid: threads)
    holder = SimpleNamespace(held_s=held_s, process=this_process())

    assert is_waiting_for_us(("root", "key"), holder) is verdict


def assert_refused(errors):
    assert [name for name, _ in errors] == ["DependencyCycleError"]
    assert "before you start the process" in errors[0][1]


@pytest.mark.parametrize(
    "kind", ["fork", *(pytest.param(one, marks=pytest.mark.slow) for one in ("server", "thread"))]
)
def test_process_that_a_run_starts_may_not_ask_for_what_its_sweep_runs_next(starting, needs, kind):
    store, errors = starting(STARTED[kind], 1, 4.0)

    assert len(store.sweep([{"n": n} for n in range(3)], progress=False)) == 3

    assert_refused(errors)
    assert not needs.calls()


@pytest.mark.parametrize("n", [0, 3], ids=["itself", "over another"])
def test_process_that_a_run_starts_may_not_ask_for_that_run(starting, needs, n):
    """Over another: it begins a run of its own first, which then asks."""
    store, errors = starting(in_fork, n, 600.0)

    store.run_or_retrieve({"n": 0})

    assert_refused(errors)


def test_process_that_a_run_starts_may_ask_for_what_has_ended(starting, needs):
    store, errors = starting(in_fork, 1)
    store.run_or_retrieve({"n": 1})

    store.run_or_retrieve({"n": 0})

    assert errors == [None]


@pytest.mark.parametrize("kind", [pytest.param("fork", marks=pytest.mark.slow), "server"])
def test_process_that_another_thread_starts_gets_what_is_being_run(needs, kind):
    """It waits for longer than it takes to see that the holder is the process that started it."""
    slow = Needs(needs.folder, needs.url, {}, holds=(0,))

    def start():
        wait_for(slow.lines)
        return STARTED[kind](error_of, slow, 0)

    def release():
        wait_for(lambda: list(Path(needs.folder).rglob(f"*{ASKED}")))
        Path(needs.folder, "go").touch()

    found = in_threads(lambda: sweep(slow, [0]), start, release, timeout_s=LIMIT_S)

    assert found[:2] == [[1], None]
    assert slow.calls() == {"node0": 1}
    assert not list(Path(needs.folder).rglob(f"*{ASKED}"))


def test_process_that_a_thread_of_a_pool_starts_gets_what_another_thread_is_at(needs):
    """One run starts it, another one has the key; neither is in the way of the other."""
    both = threading.Barrier(2)

    def run(params):
        both.wait(LIMIT_S)
        if params["n"] == 0:
            errors.append(in_fork(error_of, needs, 1))
        else:
            wait_for(lambda: list(Path(needs.folder).rglob(f"*{ASKED}")))
        Path(params["result_file"]).write_text("1")

    errors = []
    store = Store(run, Node, Path(needs.folder, "nodes"), ".txt", needs.url)
    with ThreadPoolExecutor(2) as threads:
        (found,) = in_threads(
            lambda: store.sweep([{"n": 0}, {"n": 1}], executor=threads, progress=False), timeout_s=LIMIT_S
        )

    assert len(found) == 2
    assert errors == [None]


def test_process_that_a_run_starts_gets_what_is_queued_behind_that(starting, needs, monkeypatch):
    monkeypatch.setattr("entropic.sweeps.window._Pace.size", lambda self: 1)
    store, errors = starting(in_fork, 1)

    with ThreadPoolExecutor(1) as threads:
        (found,) = in_threads(
            lambda: store.sweep([{"n": 0}, {"n": 1}], executor=threads, progress=False), timeout_s=LIMIT_S
        )

    assert len(found) == 2
    assert errors == [None]
    assert needs.calls() == {"node1": 1}
