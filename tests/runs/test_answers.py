"""Processes of pools that ask for what a run is at that waits for them: an error, and only where it is so."""

import asyncio
import contextlib
import itertools
import json
import logging
import multiprocessing
import threading
import time
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import pytest

from entropic import Store
from entropic.process.identity import this_process
from entropic.runs import answers, inside, waits
from entropic.runs.inside import Run
from entropic.runs.wait_notes import ASKED, Note
from tests.support.garbage import at_each_collection
from tests.support.nested_cases import Needs, Node, error_of, in_threads
from tests.support.processes import forkserver
from tests.support.waiting import wait_for

pytestmark = pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")

LIMIT_S = 60.0
SOON_S = 0.1


@pytest.fixture(autouse=True)
def answers_come_soon(monkeypatch):
    monkeypatch.setattr(answers, "LOOK_EVERY_S", SOON_S)


@pytest.fixture
def needs(tmp_path, sqlite_url):
    """3 needs 0."""
    return Needs(str(tmp_path), sqlite_url, {3: (0,)})


def noted_error(needs, n):
    """Ask for a number, and leave what is raised in a file."""
    Path(needs.folder, "error").write_text(json.dumps(error_of(needs, n, SOON_S)))


def error_in(needs):
    return json.loads(Path(needs.folder, "error").read_text())


def over_a_thread(needs, n):
    with ThreadPoolExecutor(1) as threads:
        return threads.submit(error_of, needs, n, SOON_S).result()


@contextlib.contextmanager
def executor(context=None):
    with ProcessPoolExecutor(1, mp_context=context or forkserver()) as pool:
        pool.submit(int).result()  # it is there before any run is
        yield lambda *given: pool.submit(error_of, *given, SOON_S).result()


@contextlib.contextmanager
def threads_in_executor():
    with ProcessPoolExecutor(1, mp_context=forkserver()) as pool:
        pool.submit(int).result()
        yield lambda *given: pool.submit(over_a_thread, *given).result()


@contextlib.contextmanager
def forks():
    with executor(multiprocessing.get_context("fork")) as ask:
        yield ask


@contextlib.contextmanager
def parts():
    pool = forkserver().Pool(1)
    try:
        yield lambda *given: pool.starmap(error_of, [(*given, SOON_S)])[0]
    finally:
        pool.terminate()
        pool.join()


def error_of_set(given):
    return error_of(*given)


@contextlib.contextmanager
def any_parts():
    pool = forkserver().Pool(2)
    try:
        yield lambda *given: next(pool.imap_unordered(error_of_set, [(*given, SOON_S)] * 2))
    finally:
        pool.terminate()
        pool.join()


@contextlib.contextmanager
def event_loop():
    with ProcessPoolExecutor(2, mp_context=forkserver()) as pool:
        list(pool.map(int, "01"))

        async def both(given):
            loop = asyncio.get_running_loop()
            return await asyncio.gather(
                *(loop.run_in_executor(pool, error_of, *given, SOON_S) for _ in range(2))
            )

        yield lambda *given: asyncio.run(both(given))[0]


@contextlib.contextmanager
def process():
    def ask(needs, n):
        one = forkserver().Process(target=noted_error, args=(needs, n))
        starts = threading.Thread(target=one.start)  # of which the process does not know what it is inside of
        starts.start()
        starts.join()
        one.join()
        return error_in(needs)

    yield ask


@contextlib.contextmanager
def joblib():
    from joblib import Parallel, delayed
    from joblib.externals.loky import get_reusable_executor

    Parallel(2)(delayed(int)() for _ in range(2))
    yield lambda *given: Parallel(2)(delayed(error_of)(*given, SOON_S) for _ in range(2))[0]
    get_reusable_executor().shutdown()


ASKING = {
    "executor": executor,
    "threads of it": threads_in_executor,
    "forks": forks,
    "pool": parts,
    "any part of a pool": any_parts,
    "event loop": event_loop,
    "process": process,
    "joblib": joblib,
}


@contextlib.contextmanager
def asking(kind, request):
    """Yield what asks for a number in another process, and waits for what that one says."""
    if kind == "dask":
        client = request.getfixturevalue("dask_client")
        yield lambda *given: client.submit(error_of, *given, SOON_S, pure=False).result()
        wait_for(lambda: not client.futures)
    else:
        with ASKING[kind]() as ask:
            yield ask


def assert_circle(error, *shown):
    name, text = error
    assert name == "DependencyCycleError"
    assert " → ".join(shown) in text
    assert "before you give work to another process" in text


def assert_nothing_left(needs):
    with needs.store().database.reading() as connection:
        assert not connection.exec_driver_sql("SELECT record_id FROM entropic_claims").all()
    folder = Path(needs.folder, "nodes", ".entropic")
    wait_for(lambda: not [*folder.glob(f"*{ASKED}"), *folder.glob("*-answer")], timeout_s=10)


# What is noted, and for whom

MARK, OTHER = ("root", "a"), ("root", "b")
RUNS = {1: [Run(MARK, "f", {"n": 1})], 2: [Run(OTHER, "g", {"n": 2})]}
TASKS = [("executor", "boot 7 1"), ("pool", "boot 8 1.0")]


class Keeping:
    def __init__(self, is_serial, lends, give_back):
        self.is_serial, self.lends, self.give_back = is_serial, lends, give_back


def asks(task, mark):
    return Note(Path(), this_process(), [(task, "a task")], [("path", mark)], {}, [])


def test_each_thread_that_waits_for_who_asks_has_a_note(monkeypatch, tmp_path):
    asked = []

    def waits_for(thread, tasks, closing):
        asked.append((thread, tasks, closing))
        return {TASKS[0]} if thread == 1 else set()

    monkeypatch.setattr(answers, "waits_for", waits_for)
    noted = answers._answers(tmp_path, [asks(TASKS[0], MARK), asks(TASKS[1], OTHER)], RUNS.items())

    assert asked == [(1, set(TASKS), {TASKS[0]}), (2, set(TASKS), {TASKS[1]})]
    assert list(noted) == ["waits-1"]
    content = json.loads(noted["waits-1"])
    assert content["runs"] == [[*MARK, "f(n=1)"]]
    assert content["waits"] == [[str(tmp_path), *TASKS[0]]]


def test_who_waits_for_a_run_that_waits_for_a_thread_waits_for_that_thread(monkeypatch, tmp_path):
    asked = []
    monkeypatch.setattr(answers, "waits_for", lambda thread, tasks, closing: asked.append(closing) or set())
    first = Note(Path(), this_process(), [(TASKS[0], "a task"), (OTHER, "g")], [("path", MARK)], {}, [])
    second = asks(TASKS[1], OTHER)
    apart = asks(("executor", "boot 9 1"), ("root", "of another"))

    answers._answers(tmp_path, [second, apart, first], [(1, RUNS[1])])

    assert asked == [set(TASKS)]


def test_runs_that_go_on_are_listed_while_another_thread_begins_one(monkeypatch):
    runs = {("root", str(number)): Run(("root", str(number)), "f", {}) for number in range(50)}
    monkeypatch.setattr(inside, "_going", runs)
    monkeypatch.setattr(inside, "_threads", dict.fromkeys(runs, 1))
    names = itertools.count()

    with at_each_collection(lambda: runs.update({("root", f"new {next(names)}"): RUNS[1][0]})):
        found = inside.going()

    assert next(names) > 0
    assert len(found[1]) == 50


def test_stacks_are_not_looked_at_where_nobody_asks(monkeypatch, tmp_path):
    monkeypatch.setattr(answers, "waits_for", lambda *given: pytest.fail("looked"))
    in_a_run = Note(Path(), this_process(), [(MARK, "f")], [("path", OTHER)], {}, [])

    assert answers._answers(tmp_path, [], RUNS.items()) == {}
    assert answers._answers(tmp_path, [in_a_run], RUNS.items()) == {}


@pytest.mark.parametrize(
    ("is_serial", "lends", "is_begun", "gives"),
    [(True, True, False, 1), (False, True, False, 0), (True, False, False, 0), (True, True, True, 0)],
)
def test_serial_sweep_gives_back_what_it_has_not_begun(monkeypatch, is_serial, lends, is_begun, gives):
    given = []
    keeper = Keeping(is_serial, lends, lambda: given.append(1))
    hold = SimpleNamespace(keeper=keeper, is_begun=is_begun)
    monkeypatch.setattr(answers.held, "find", {MARK: hold}.get)

    answers._give_back([asks(TASKS[0], MARK), asks(TASKS[1], MARK), asks(TASKS[1], OTHER)])

    assert given == [1] * gives


@pytest.mark.parametrize(
    ("modules", "children", "looks"),
    [({}, False, False), ({}, True, True), ({"distributed": None}, False, True)],
)
def test_folder_is_looked_at_only_where_a_process_can_wait_for_another(
    monkeypatch, tmp_path, modules, children, looks
):
    """Many processes share a folder; most of them have neither children nor a cluster."""
    looked = []
    monkeypatch.setattr(answers, "sys", SimpleNamespace(modules=modules))
    monkeypatch.setattr(answers, "has_children", lambda but: children)
    monkeypatch.setattr(answers, "notes", lambda root, suffix: looked.append((root, suffix)) or [])
    here = answers._Answers()

    here._look({1: [Run(MARK, "f", {}, folder=str(tmp_path / ".entropic" / "me"))]})
    here._look({})

    assert looked == ([(tmp_path, ASKED)] if looks else [])


def test_thread_that_cannot_be_started_is_tried_again_with_the_next_run(monkeypatch):
    def refuse(thread):
        raise RuntimeError("can't start new thread")

    here = answers._Answers()
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refuse)
        here.watch()
    here.watch()

    assert here._thread is not None
    assert here._thread.is_alive()
    here.close()


def test_note_goes_when_it_holds_no_more(tmp_path):
    here = answers._Answers()
    here._note(tmp_path, {"waits-1": "text"})
    (path,) = tmp_path.rglob("waits-1")
    assert path.read_text() == "text"
    assert path.parent.name.endswith("-answer")

    here._look({})

    assert not path.parent.exists()


# With real processes


@pytest.mark.slow
@pytest.mark.parametrize("n", [0, 3], ids=["itself", "over another"])
@pytest.mark.parametrize("kind", [*ASKING, "dask"])
def test_process_of_a_pool_may_not_ask_for_the_run_that_waits_for_it(needs, kind, n, request):
    def run(params):
        if params["n"] == 0:
            errors.append(ask(needs, n))
        Path(params["result_file"]).write_text("1")

    errors = []
    store = Store(run, Node, Path(needs.folder, "nodes"), ".txt", needs.url)
    with asking(kind, request) as ask:
        (record,) = in_threads(lambda: store.run_or_retrieve({"n": 0}), timeout_s=LIMIT_S)

    assert record.n == 0
    between = ["run(n=0)"] if n == 0 else ["node(n=3)", "run(n=0)"]
    assert_circle(errors[0], *between)
    assert_nothing_left(needs)


@pytest.mark.slow
@pytest.mark.parametrize("method", ["fork", "forkserver"])
def test_process_of_a_pool_that_a_run_has_started_may_not_ask_for_it(needs, method):
    def run(params):
        with ProcessPoolExecutor(1, mp_context=context) as pool:
            errors.append(pool.submit(error_of, needs, 0, SOON_S).result())
        Path(params["result_file"]).write_text("1")

    errors = []
    context = forkserver() if method == "forkserver" else multiprocessing.get_context("fork")
    store = Store(run, Node, Path(needs.folder, "nodes"), ".txt", needs.url)
    in_threads(lambda: store.run_or_retrieve({"n": 0}), timeout_s=LIMIT_S)

    assert_circle(errors[0], "run(n=0)")


@dataclass(frozen=True)
class Gives:
    """A runner that lets a process of its own pool, or another worker of its cluster, ask for its key."""

    needs: Needs
    where: str

    def __call__(self, params):
        if params["n"] == 0:
            answers.LOOK_EVERY_S = SOON_S
            if self.where == "dask":
                from distributed import get_client

                get_client().submit(noted_error, self.needs, 0, pure=False).result()
            else:
                with ProcessPoolExecutor(1, mp_context=forkserver()) as pool:
                    pool.submit(noted_error, self.needs, 0).result()
        Path(params["result_file"]).write_text("1")

    @property
    def __name__(self):
        return "gives"


@pytest.mark.slow
@pytest.mark.parametrize("where", ["workers", "dask"])
def test_worker_may_not_let_its_pool_ask_for_what_it_is_at(needs, where, request):
    """The claim is of the process that sweeps; who waits is the worker."""
    options = {"workers": 1} if where == "workers" else {}
    if where == "dask":
        options["client"] = request.getfixturevalue("dask_client")
    store = Store(Gives(needs, where), Node, Path(needs.folder, "nodes"), ".txt", needs.url)

    (found,) = in_threads(
        lambda: store.sweep([{"n": 0}, {"n": 1}], progress=False, fallback="raise", **options),
        timeout_s=LIMIT_S,
    )

    assert len(found) == 2
    assert_circle(error_in(needs), "gives(n=0)")


@pytest.mark.slow
def test_all_processes_of_a_pool_that_ask_are_told(needs):
    """More of them than processes, and whoever is first would do."""

    def run(params):
        futures = [pool.submit(error_of, needs, 0, SOON_S) for _ in range(5)]
        errors.extend(future.result() for future in as_completed(futures))
        Path(params["result_file"]).write_text("1")

    errors = []
    store = Store(run, Node, Path(needs.folder, "nodes"), ".txt", needs.url)
    with ProcessPoolExecutor(2, mp_context=forkserver()) as pool:
        in_threads(lambda: store.run_or_retrieve({"n": 0}), timeout_s=2 * LIMIT_S)

    assert len(errors) == 5
    for error in errors:
        assert_circle(error, "run(n=0)")


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["executor", "pool", "dask"])
def test_process_of_a_pool_gets_what_another_thread_is_at(needs, kind, request):
    """However long that takes: here for many looks."""

    def run(params):
        begun.set()
        wait_for(lambda: list(Path(needs.folder).rglob(f"*{ASKED}")))
        time.sleep(30 * SOON_S)
        Path(params["result_file"]).write_text("1")

    def ask_later():
        begun.wait(LIMIT_S)
        return ask(needs, 0)

    begun = threading.Event()
    store = Store(run, Node, Path(needs.folder, "nodes"), ".txt", needs.url)
    with asking(kind, request) as ask:
        record, error = in_threads(lambda: store.run_or_retrieve({"n": 0}), ask_later, timeout_s=LIMIT_S)

    assert record.n == 0
    assert error is None
    assert_nothing_left(needs)


@pytest.mark.slow
@pytest.mark.parametrize("method", ["fork", "forkserver"])
def test_process_of_a_pool_that_a_run_has_started_gets_that_run_where_another_thread_asks(needs, method):
    """Whoever starts a pool need not be the one that waits for its tasks."""

    def run(params):
        pool.submit(int).result()
        begun.set()
        wait_for(lambda: list(Path(needs.folder).rglob(f"*{ASKED}")))
        time.sleep(30 * SOON_S)
        Path(params["result_file"]).write_text("1")

    def ask():
        begun.wait(LIMIT_S)
        return pool.submit(error_of, needs, 0, SOON_S).result()

    begun = threading.Event()
    context = forkserver() if method == "forkserver" else multiprocessing.get_context("fork")
    store = Store(run, Node, Path(needs.folder, "nodes"), ".txt", needs.url)
    with ProcessPoolExecutor(1, mp_context=context) as pool:
        record, error = in_threads(lambda: store.run_or_retrieve({"n": 0}), ask, timeout_s=LIMIT_S)

    assert record.n == 0
    assert error is None


@pytest.mark.slow
def test_process_of_a_pool_gets_what_a_run_is_at_that_waits_for_its_neighbour(needs):
    """The run waits for the same pool, but for another of its tasks."""

    def run(params):
        waited.append(pool.submit(time.sleep, 30 * SOON_S))
        begun.set()
        waited[0].result()
        Path(params["result_file"]).write_text("1")

    def ask():
        begun.wait(LIMIT_S)
        return pool.submit(error_of, needs, 0, SOON_S).result()

    begun, waited = threading.Event(), []
    store = Store(run, Node, Path(needs.folder, "nodes"), ".txt", needs.url)
    with ProcessPoolExecutor(2, mp_context=forkserver()) as pool:
        record, error = in_threads(lambda: store.run_or_retrieve({"n": 0}), ask, timeout_s=LIMIT_S)

    assert record.n == 0
    assert error is None


def warned(needs):
    """Ask for what may wait for this process, for a while; return what is logged and raised."""
    waits.WARN_AFTER_S = waits.LOOK_AFTER_S = waits.LOOK_EVERY_S = SOON_S
    said = []
    handler = logging.Handler()
    handler.emit = lambda record: said.append(record.getMessage())
    logging.getLogger("entropic.runs.waits").addHandler(handler)
    store = Store(needs, Node, Path(needs.folder, "nodes"), ".txt", needs.url, wait_timeout_s=1.0)
    try:
        store.run_or_retrieve({"n": 0})
    except TimeoutError as error:
        return said, type(error).__name__
    return said, None


@pytest.mark.slow
def test_wait_that_may_be_for_itself_is_warned_of_and_has_the_limit_that_is_given(needs):
    """Nobody can tell that this run waits for it, so it is not refused."""

    def run(params):
        future = pool.submit(warned, needs)
        while not future.done():
            time.sleep(0.05)
        told.append(future.result())
        Path(params["result_file"]).write_text("1")

    told = []
    store = Store(run, Node, Path(needs.folder, "nodes"), ".txt", needs.url)
    with ProcessPoolExecutor(1, mp_context=forkserver()) as pool:
        in_threads(lambda: store.run_or_retrieve({"n": 0}), timeout_s=LIMIT_S)

    ((said, error),) = told
    assert len(said) == 1
    assert "has started this process" in said[0]
    assert "wait_timeout_s" in said[0]
    assert error == "ClaimTimeoutError"
