"""Processes that a run starts, and which ask for runs: what would wait for itself is an error, the rest ends."""

import multiprocessing
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import pytest

from entropic import Store
from entropic.runs import answers, descent
from entropic.runs.descent import is_waiting_for_us
from entropic.runs.inside import Origin, Run
from entropic.runs.wait_notes import ASKED
from tests.support.nested_cases import Needs, Node, error_of, in_threads, sweep
from tests.support.processes import run_together
from tests.support.waiting import wait_for

pytestmark = pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")

LIMIT_S = 60.0
SOON_S = 0.1


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


@pytest.fixture(autouse=True)
def answers_come_soon(monkeypatch):
    monkeypatch.setattr(answers, "LOOK_EVERY_S", SOON_S)


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


def assert_refused(errors):
    assert [name for name, _ in errors] == ["DependencyCycleError"]
    assert "before you start the process" in errors[0][1]


@pytest.mark.slow
@pytest.mark.parametrize("kind", STARTED)
def test_process_that_a_run_starts_gets_what_its_sweep_runs_next(starting, needs, kind):
    """The sweep is at the run that waits for it, so another thread gives the key back."""
    store, errors = starting(STARTED[kind], 1, SOON_S)

    (found,) = in_threads(
        lambda: store.sweep([{"n": n} for n in range(3)], progress=False), timeout_s=LIMIT_S
    )

    assert len(found) == 3
    assert errors == [None]
    assert needs.calls() == {"node1": 1}


@pytest.mark.parametrize("n", [0, pytest.param(3, marks=pytest.mark.slow)], ids=["itself", "over another"])
@pytest.mark.parametrize("kind", ["fork", pytest.param("server", marks=pytest.mark.slow)])
def test_process_that_a_run_starts_may_not_ask_for_that_run(starting, needs, kind, n):
    """Over another: it begins a run of its own first, which then asks. However the run waits for it."""
    store, errors = starting(STARTED[kind], n)

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


@pytest.mark.slow
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


@pytest.mark.parametrize(
    ("token", "held_s", "is_waiting"),
    [("the same", 0.0, True), ("another", 1e9, False), (None, 1e9, True), (None, -1.0, False)],
    ids=["held then", "held anew", "of a worker", "of a worker since"],
)
def test_fork_knows_the_run_that_it_came_out_of_by_its_claim(monkeypatch, token, held_s, is_waiting):
    """What the fork of a run asks for later may be another try's, which it is not inside of."""
    mark = ("root", "key")
    tokens = {} if token is None else {mark: token}
    monkeypatch.setattr(descent, "origin", lambda: Origin((Run(mark, "f", {}),), tokens, time.monotonic()))
    holder = SimpleNamespace(token="the same", held_s=held_s)

    assert is_waiting_for_us(mark, holder) is is_waiting
    assert not is_waiting_for_us(("root", "other"), holder)
