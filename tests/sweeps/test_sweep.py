"""The contract of `Store.sweep`: what comes back, what fails, and what is never run."""

import contextlib
import gc
import multiprocessing
import os
import random
import re
import sys
import threading
from collections import Counter
from concurrent.futures import CancelledError, Executor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

import numpy as np
import pytest

from entropic import (
    ClusterError,
    HashCollisionError,
    ParameterError,
    ResultFileMissingError,
    ResultsDirUnavailableError,
    Store,
    SweepResult,
    expand_grid,
)
from entropic.disk.sidecars import process_folders
from entropic.leases.claims import Claims
from entropic.leases.trainings import claim_training
from entropic.model.records import RecordReader
from entropic.process.identity import this_process
from entropic.process.patience import Patience
from entropic.runs.attempts import Work
from entropic.runs.jobs import Receipt
from entropic.sql.asking import Question
from entropic.sweeps.sweep import Sweep
from tests.support.clusters import local_client
from tests.support.counting import statements
from tests.support.executors import executor_of
from tests.support.peculiar_errors import Frozen, Noted, Speechless
from tests.support.processes import run_together
from tests.support.stores import open_store
from tests.support.sweep_runs import PLACES, Odd, Runs, Swept, claims, files, place, query, rows, sets, states
from tests.support.waiting import wait_for


@pytest.fixture
def runs(tmp_path):
    return Runs(tmp_path / "log")


@pytest.fixture
def store(tmp_path, runs):
    return open_store(Swept, tmp_path, runs)


@pytest.fixture(params=PLACES)
def where(request):
    """The arguments of a sweep, once for each place where it can run."""
    with place(request.param, request) as arguments:
        yield arguments


workers_slowly = pytest.mark.parametrize(
    "where",
    [pytest.param(one, marks=pytest.mark.slow if one == "workers" else []) for one in PLACES],
    indirect=True,
)


# What comes back


def test_sweep_returns_records_in_input_order(tmp_path, runs, database_url):
    store = open_store(Swept, tmp_path, runs, database_url)
    order = [7, 3, 11, 0, 5, 2, 9, 1, 8, 4]
    store.sweep({"n": n} for n in (3, 9))

    result = store.sweep({"n": n} for n in order)

    assert isinstance(result, SweepResult)
    assert [record.n for record in result] == order
    assert [record.square for record in result] == [float(n * n) for n in order]
    assert runs.total() == len(order)


def test_sweep_anywhere_returns_what_the_runs_wrote(store, runs, where, tmp_path):
    result = store.sweep(sets(25), **where)

    assert [record.n for record in result] == list(range(25))
    assert [Path(record.result_file).read_text() for record in result] == [
        f'{{"n": {n}, "x": 0.5}}' for n in range(25)
    ]
    assert runs.count() == dict.fromkeys(range(25), 1)
    assert states(tmp_path) == {"COMPLETED": 25}
    assert claims(tmp_path) == 0


def test_sweep_of_equal_sets_gives_one_record_per_key(store, runs):
    same = [
        {"n": 1},
        {"n": np.int64(1), "x": 0.5},
        {"n": 1.0, "label": None},
        {"n": 2},
        {"n": 1, "x": 0.1 + 0.4},
    ]

    result = store.sweep(same)

    assert [record.n for record in result] == [1, 2]
    assert runs.count() == {1: 1, 2: 1}


def test_sweep_of_equal_sets_chunks_apart_gives_one_record_per_key(store, runs):
    store.sweep({"n": n % 7} for n in range(2500))

    assert runs.count() == dict.fromkeys(range(7), 1)


def test_sweep_of_nothing_is_empty(store):
    result = store.sweep([])

    assert (list(result), result.failed, result.align([])) == ([], [], [])


def test_sweep_consumes_a_generator_once(store):
    drawn = []

    def generate():
        for n in range(12):
            drawn.append(n)
            yield {"n": n}

    result = store.sweep(generate())

    assert [record.n for record in result] == drawn == list(range(12))


def test_sweep_of_a_grid_runs_every_combination(store):
    grid = {"n": range(3), "x": np.linspace(0, 1, 4), "label": ["a", "b"]}

    result = store.sweep(expand_grid(grid))

    assert [(r.n, round(r.x, 3), r.label) for r in result] == [
        (n, x, label) for n in range(3) for x in (0.0, 0.333, 0.667, 1.0) for label in ("a", "b")
    ]


def test_sweep_never_touches_the_callers_sets(store):
    given = [{"n": 1, "x": np.float32(0.25)}]

    store.sweep(given)

    assert given == [{"n": 1, "x": np.float32(0.25)}]
    assert type(given[0]["x"]) is np.float32


def test_align_gives_one_entry_per_input(tmp_path):
    store = open_store(Swept, tmp_path, Runs(tmp_path / "log", raises=(2,)))
    result = store.sweep(sets(4), on_error="continue")

    aligned = result.align([{"n": 3}, {"n": 2}, {"n": 3, "x": 0.5}, {"n": 99}, {"n": 0}])

    assert [None if record is None else record.n for record in aligned] == [3, None, 3, None, 0]
    assert aligned[0] is aligned[2]


@workers_slowly
def test_sweep_again_runs_nothing_and_writes_nothing(store, runs, tmp_path, where):
    store.sweep(sets(30))
    before = query(tmp_path, "PRAGMA data_version"), sorted(os.listdir(tmp_path / "results"))

    with statements(store.database.engine) as seen:
        result = store.sweep(sets(30), **where)

    assert [record.n for record in result] == list(range(30))
    assert runs.total() == 30
    assert len(seen) == 1
    assert seen[0].startswith("SELECT")
    assert sorted(os.listdir(tmp_path / "results")) == before[1]


@workers_slowly
def test_sweep_leaves_nothing_of_its_own_behind(store, where, tmp_path):
    store.sweep(sets(12), **where)

    assert set(os.listdir(tmp_path / "results" / ".entropic")) <= {this_process().owner}
    assert len(files(tmp_path)) == 12


@pytest.mark.slow
def test_sweep_with_workers_leaves_no_process_behind(store):
    before = multiprocessing.active_children()

    store.sweep(sets(4), workers=2)

    assert set(multiprocessing.active_children()) <= set(before)


@pytest.mark.parametrize("kind", ["threads", "processes"])
def test_sweep_does_not_shut_down_an_executor(store, kind):
    with executor_of(kind) as executor:
        store.sweep(sets(4), executor=executor)

        assert executor.submit(abs, -1).result() == 1


@workers_slowly
def test_sweep_commits_results_as_they_arrive(tmp_path, where):
    runs = Runs(tmp_path / "log", holds_after=9)
    store = open_store(Swept, tmp_path, runs)
    seen = []

    def watch():
        wait_for(lambda: rows(tmp_path))
        seen.extend(rows(tmp_path))
        runs.release()

    watcher = threading.Thread(target=watch)
    watcher.start()
    result = store.sweep(sets(10), **where)
    watcher.join()

    assert len(result) == 10
    assert seen
    assert runs.order()[-1] not in seen


def test_sweep_in_two_threads_runs_each_key_once(store, runs):
    with ThreadPoolExecutor(2) as pool:
        results = list(pool.map(lambda _: store.sweep(sets(30)), range(2)))

    assert [[record.n for record in result] for result in results] == [list(range(30))] * 2
    assert runs.count() == dict.fromkeys(range(30), 1)


def sweep_elsewhere(folder: Path, url: str, workers: int | None) -> list[int]:
    store = open_store(Swept, folder, Runs(folder / "log", seconds=0.02), url)
    return [record.n for record in store.sweep(sets(60), workers=workers, progress=False)]


@pytest.mark.slow
@pytest.mark.parametrize("workers", [None, 2])
def test_sweep_in_two_processes_runs_each_key_once(tmp_path, sqlite_url, workers):
    results = run_together(sweep_elsewhere, [(tmp_path, sqlite_url, workers)] * 2)

    assert results == [list(range(60))] * 2
    assert Runs(tmp_path / "log").count() == dict.fromkeys(range(60), 1)


@pytest.mark.parametrize(
    "server_url", ["postgresql", pytest.param("mysql", marks=pytest.mark.slow)], indirect=True
)
def test_sweep_in_two_processes_on_a_server_runs_each_key_once(tmp_path, server_url):
    results = run_together(sweep_elsewhere, [(tmp_path, server_url, None)] * 2)

    runs = Runs(tmp_path / "log")
    assert results == [list(range(60))] * 2
    assert runs.count() == dict.fromkeys(range(60), 1)
    assert len(runs.processes()) == 2


@pytest.mark.parametrize("is_alone", [True, False])
def test_sweep_begins_at_its_first_key_or_at_a_random_place_beside_others(tmp_path, is_alone):
    """So that those who sweep one grid are apart from the first key on."""
    orders = []
    for number in range(4):
        (tmp_path / str(number)).mkdir()
        runs = Runs(tmp_path / str(number) / "log")
        store = open_store(Swept, tmp_path / str(number), runs)
        if not is_alone:
            Claims(store.database, "swept", lease_s=60.0).acquire(["elsewhere"])
            store.database.write(
                lambda connection: connection.exec_driver_sql("UPDATE entropic_claims SET owner = 'another'")
            )
        store.sweep(sets(50))
        orders.append(runs.order())

    starts = [order[0] for order in orders]
    assert orders == [[(start + n) % 50 for n in range(50)] for start in starts]
    assert (set(starts) == {0}) is is_alone  # by chance once in six million


def test_sweep_leaves_the_generator_of_the_program_alone_and_begins_where_its_seed_does_not_say(tmp_path):
    store = open_store(Swept, tmp_path, Runs(tmp_path / "log"))
    claims = Claims(store.database, "swept", lease_s=60.0)
    starts = []
    for number in range(4):
        claims.acquire([f"elsewhere{number}"])
        store.database.write(
            lambda connection: connection.exec_driver_sql("UPDATE entropic_claims SET owner = 'another'")
        )
        random.seed(1)
        before = random.getstate()
        store.sweep({"n": n + 50 * number} for n in range(50))
        assert random.getstate() == before
        starts.append(Runs(tmp_path / "log").order()[50 * number] % 50)

    assert len(set(starts)) > 1  # by chance once in a hundred thousand


def test_sweep_claims_no_key_that_another_has_finished_since_it_began(tmp_path, server_url, monkeypatch):
    acquire, claimed = Claims.acquire, []
    monkeypatch.setattr(Claims, "acquire", lambda *given: claimed.extend(given[1]) or acquire(*given))
    runs = Runs(tmp_path / "log")
    other = open_store(Swept, tmp_path, runs, server_url)

    def run_when_others_have_done_the_rest(params):
        if not runs.total():
            other.sweep(one for one in sets(30) if one["n"] != params["n"])
        return runs(params)

    store = open_store(Swept, tmp_path, run_when_others_have_done_the_rest, server_url)
    store._patience = Patience(look_again_s=0.0)
    result = store.sweep(sets(30))

    assert [record.n for record in result] == list(range(30))
    assert sorted(claimed) == sorted(record.id for record in result)  # each of them once
    assert runs.count() == dict.fromkeys(range(30), 1)


def test_sweep_looks_up_what_comes_next_now_and_then_only(store, monkeypatch):
    monkeypatch.setattr("entropic.sweeps.window._Pace.size", lambda self: 1)
    store._patience = Patience(look_again_s=3600.0)
    looked = Counter()

    def counted(find):
        return lambda self, ids: looked.update(ids) or find(self, ids)

    monkeypatch.setattr(RecordReader, "find_many", counted(RecordReader.find_many))
    monkeypatch.setattr(Question, "many", counted(Question.many))
    store.sweep(sets(10), progress=False)

    assert max(looked.values()) == 3  # before, under its claim, and when all is done


def test_sweep_that_waits_claims_what_others_hold_when_it_is_free(store, monkeypatch):
    keys = [store.key(one) for one in sets(3)]
    others = Claims(store.database, Swept.__tablename__, lease_s=120.0)
    held = others.acquire(keys)
    acquire, find_many, claimed, looks = Claims.acquire, RecordReader.find_many, Counter(), []
    monkeypatch.setattr(Claims, "acquire", lambda *given: claimed.update(list(given[1])) or acquire(*given))
    monkeypatch.setattr(RecordReader, "find_many", lambda *given: looks.append(1) or find_many(*given))

    def let_go():
        wait_for(lambda: len(looks) >= 8)
        others.release((key, grant.token) for key, grant in held.items())

    with ThreadPoolExecutor(1) as pool:
        released = pool.submit(let_go)
        store.sweep(sets(3), progress=False)
        released.result()

    assert claimed == dict.fromkeys(keys, 2)


def test_sweep_that_waits_looks_at_all_keys_at_once(tmp_path, server_url, monkeypatch):
    find_many, looks = RecordReader.find_many, []
    monkeypatch.setattr(
        RecordReader, "find_many", lambda self, ids: find_many(self, looks.append(list(ids)) or looks[-1])
    )
    store = open_store(Swept, tmp_path, Runs(tmp_path / "log"), server_url)
    keys = [store.key(one) for one in sets(30)]
    others = Claims(store.database, Swept.__tablename__, lease_s=120.0)
    held = others.acquire(keys)

    def let_go():
        wait_for(lambda: looks and sorted(looks[-1]) == sorted(keys) and len(looks) > 1 + len(keys))
        others.release((key, grant.token) for key, grant in held.items())

    with ThreadPoolExecutor(1) as pool:
        released = pool.submit(let_go)
        result = store.sweep(sets(30))
        released.result()

    assert [record.n for record in result] == list(range(30))
    assert not others.holders(keys)


@pytest.mark.parametrize("where", ["serial", "threads"], indirect=True)
def test_run_that_comes_back_without_an_outcome_is_an_error_and_leaves_no_claim(tmp_path, where, monkeypatch):
    call = Work.__call__

    def forgetful(work, jobs, *further):
        outcomes = call(work, jobs, *further)
        outcomes[:] = [outcome for outcome in outcomes if outcome.stored["n"] != 3]
        return outcomes

    monkeypatch.setattr(Work, "__call__", forgetful)
    store = open_store(Swept, tmp_path, Runs(tmp_path / "log"))

    with pytest.raises(ClusterError, match="without exactly one"):
        store.sweep(sets(5), **where)

    assert claims(tmp_path) == 0
    monkeypatch.undo()
    assert [record.n for record in store.sweep(sets(5))] == list(range(5))


def test_attempts_on_a_cluster_say_on_which_worker_they_ran(tmp_path, dask_client):
    store = open_store(Swept, tmp_path, Runs(tmp_path / "log", raises=(1, 3)))

    store.sweep(sets(4), dask_client, on_error="continue", fallback="raise")

    found = query(tmp_path, "SELECT state, worker FROM entropic_attempts")
    assert sorted(state for state, _ in found) == ["COMPLETED", "COMPLETED", "FAILED", "FAILED"]
    assert {worker for _, worker in found} <= set(dask_client.scheduler_info()["workers"])


def test_sweep_of_which_nothing_comes_back_is_no_result(tmp_path, monkeypatch):
    monkeypatch.setattr(Sweep, "_dispatch", lambda sweep, work: None)
    store = open_store(Swept, tmp_path, Runs(tmp_path / "log"))

    with pytest.raises(ClusterError, match="5 keys of the sweep have neither a record nor a failure"):
        store.sweep(sets(5))

    assert claims(tmp_path) == 0


@pytest.mark.parametrize(
    "at", ["executor", *(pytest.param(place, marks=pytest.mark.slow) for place in ("workers", "dask"))]
)
def test_runs_that_use_threads_are_fewer_at_once(tmp_path, at):
    runs = Runs(tmp_path / "log", seconds=0.1)
    store = open_store(Swept, tmp_path, runs)

    with contextlib.ExitStack() as stack:
        options = {"workers": 4}
        if at == "executor":
            options = {"executor": stack.enter_context(ThreadPoolExecutor(4))}
        elif at == "dask":  # two of each worker's five threads for a run
            options = {"client": stack.enter_context(local_client(workers=1, threads=5))}
        result = store.sweep(sets(10), **options, threads_per_run=2)

    assert [record.n for record in result] == list(range(10))
    assert runs.most_at_once() == 2


@pytest.mark.parametrize("threads", [0, -1, 1.5, True, None])
def test_impossible_number_of_threads_is_refused(tmp_path, threads):
    store = open_store(Swept, tmp_path, Runs(tmp_path / "log"))

    with pytest.raises(ValueError, match="threads_per_run must be an int of at least 1"):
        store.sweep(sets(1), threads_per_run=threads)


# Runs that fail


def test_sweep_of_ten_when_one_raises_stores_the_nine(tmp_path, where):
    runs = Runs(tmp_path / "log", raises=(5,))
    store = open_store(Swept, tmp_path, runs)

    with pytest.raises(Odd) as raised:
        store.sweep(sets(10), **where)

    assert (raised.value.n, raised.value.args) == (5, (5, "is odd"))
    notes = "\n".join(raised.value.__notes__)
    assert re.search(r"while running \w+ with .*\bn=5\b", notes)
    assert "1 of 10 runs of the sweep failed" in notes
    assert rows(tmp_path) == [0, 1, 2, 3, 4, 6, 7, 8, 9]
    assert len(files(tmp_path)) == 9
    assert states(tmp_path) == {"COMPLETED": 9, "FAILED": 1}
    assert claims(tmp_path) == 0
    assert runs.count() == dict.fromkeys(range(10), 1)


def test_sweep_when_a_run_raises_on_any_database_records_one_failure(tmp_path, database_url):
    store = open_store(Swept, tmp_path, Runs(tmp_path / "log", raises=(5,)), database_url)

    with pytest.raises(Odd):
        store.sweep(sets(10))

    (failed,) = store.failures()
    assert (failed.params["n"], failed.error_type) == (5, "Odd")
    assert "raise Odd(n" in failed.traceback
    assert store.count() == len(files(tmp_path)) == 9


@workers_slowly
def test_sweep_continued_after_an_error_returns_what_there_is(tmp_path, where):
    store = open_store(Swept, tmp_path, Runs(tmp_path / "log", raises=(2, 5)))

    result = store.sweep(sets(8), on_error="continue", **where)

    assert [record.n for record in result] == [0, 1, 3, 4, 6, 7]
    assert [failed.params["n"] for failed in result.failed] == [2, 5]
    assert [type(failed.exception) for failed in result.failed] == [Odd, Odd]
    assert [failed.id for failed in result.failed] == [store.key({"n": 2}), store.key({"n": 5})]
    assert {failed.id for failed in store.failures()} == {failed.id for failed in result.failed}


def test_sweep_again_after_a_failure_runs_only_what_failed(tmp_path, runs):
    with pytest.raises(Odd):
        open_store(Swept, tmp_path, Runs(tmp_path / "log", raises=(5,))).sweep(sets(10))

    store = open_store(Swept, tmp_path, runs)
    result = store.sweep(sets(10))

    assert len(result) == 10
    assert runs.count() == {**dict.fromkeys(range(10), 1), 5: 2}
    assert store.failures() == []


@workers_slowly
def test_sweep_with_retries_tries_again_after_all_others_and_records_each_attempt(tmp_path, where):
    runs = Runs(tmp_path / "log", raises_once=(2,), raises=(5,))
    store = open_store(Swept, tmp_path, runs)

    result = store.sweep(sets(8), on_error="continue", retries=2, **where)

    assert [record.n for record in result] == [0, 1, 2, 3, 4, 6, 7]
    assert [(failed.params["n"], type(failed.exception)) for failed in result.failed] == [(5, Odd)]
    assert runs.count() == {**dict.fromkeys(range(8), 1), 2: 2, 5: 3}
    assert states(tmp_path) == {"COMPLETED": 7, "FAILED": 4}
    assert [failed.params["n"] for failed in store.failures()] == [5]
    assert claims(tmp_path) == 0


def test_sweep_with_retries_of_a_single_run_that_fails_once_returns_it(tmp_path):
    runs = Runs(tmp_path / "log", raises_once=(0,))

    (record,) = open_store(Swept, tmp_path, runs).sweep(sets(1), retries=1)

    assert (record.n, runs.count()) == (0, {0: 2})


@pytest.mark.parametrize("retries", [-1, 1.5, True, "2"])
def test_sweep_with_an_impossible_number_of_retries_raises(store, runs, retries):
    with pytest.raises(ValueError, match="retries must be an int of at least 0"):
        store.sweep(sets(2), retries=retries)

    assert runs.total() == 0


@pytest.mark.parametrize("workers", [None, pytest.param(2, marks=pytest.mark.slow)])
def test_sweep_raises_the_first_failure_in_input_order(tmp_path, workers):
    store = open_store(Swept, tmp_path, Runs(tmp_path / "log", raises=(1, 2, 3), slow=(3,)))

    with pytest.raises(Odd) as raised:
        store.sweep([{"n": n} for n in (0, 3, 1, 2)], workers=workers)

    assert raised.value.n == 3
    assert "3 of 4 runs" in raised.value.__notes__[-1]


class Unpicklable(Exception):
    def __init__(self):
        super().__init__("holds a lock")
        self.lock = threading.Lock()


ERRORS = (OSError(5, "Input/output error"), BrokenProcessPool("mine"), TimeoutError(), ClusterError("mine"))


def raise_what_clusters_raise(params):
    raise ERRORS[params["n"]]


@workers_slowly
def test_sweep_takes_no_error_of_a_runner_for_the_clusters(tmp_path, where, caplog):
    store = open_store(Swept, tmp_path, raise_what_clusters_raise)

    result = store.sweep(sets(len(ERRORS)), on_error="continue", fallback="raise", **where)

    raised = [(type(failed.exception), failed.exception.args) for failed in result.failed]
    assert raised == [(type(error), error.args) for error in ERRORS]
    assert states(tmp_path) == {"FAILED": len(ERRORS)}
    assert "cluster" not in caplog.text


@pytest.mark.slow
@pytest.mark.parametrize("n", range(len(ERRORS)))
def test_sweep_raises_an_error_of_a_runner_as_it_is(tmp_path, where, n):
    store = open_store(Swept, tmp_path, raise_what_clusters_raise)

    with pytest.raises(type(ERRORS[n])) as raised:
        store.sweep([{"n": n}], fallback="raise", **where)

    assert raised.value.args == ERRORS[n].args


def raise_unpicklable(params):
    raise Unpicklable


def test_sweep_when_the_exception_does_not_pickle_tells_of_it(tmp_path):
    store = open_store(Swept, tmp_path, raise_unpicklable)

    with pytest.raises(RuntimeError, match="Unpicklable: holds a lock"):
        store.sweep(sets(3), workers=1)

    assert [failed.error_type for failed in store.failures()] == ["Unpicklable"] * 3


class Exiting(Exception):
    def __reduce__(self):
        return sys.exit, (7,)


PECULIAR = (Frozen, Noted, Speechless, Exiting)


def raise_peculiar(params):
    if params["n"] == len(PECULIAR):
        Path(params["result_file"]).touch()
    else:
        raise PECULIAR[params["n"]](params["n"])


@pytest.mark.parametrize("workers", [None, 1])
def test_sweep_takes_any_exception_of_a_runner_for_what_it_is(tmp_path, workers):
    store = open_store(Swept, tmp_path, raise_peculiar)

    result = store.sweep(sets(len(PECULIAR) + 1), on_error="continue", workers=workers)

    assert [record.n for record in result] == [len(PECULIAR)]
    assert [failed.error_type for failed in result.failed] == [kind.__name__ for kind in PECULIAR]
    # Pickle makes the one anew by setting its attributes, the other it does not make at all.
    lost = (Frozen, Exiting) if workers else ()
    come = [RuntimeError if kind in lost else kind for kind in PECULIAR]
    assert [type(failed.exception) for failed in result.failed] == come
    assert claims(tmp_path) == 0


def test_exception_that_cannot_be_written_to_leaves_every_block_as_it_is(tmp_path):
    store, error = open_store(Swept, tmp_path, raise_peculiar), Frozen(0)

    def failing():
        yield {"n": 0}
        raise error

    with pytest.raises(Frozen):
        store.run_or_retrieve({"n": 0})
    with pytest.raises(Frozen):
        store.sweep(failing())
    with pytest.raises(Frozen), store.database.transaction():
        raise error
    with pytest.raises(Frozen), claim_training(store.database, "a run"):
        raise error


# What is refused before anything runs


@pytest.mark.parametrize(
    ("bad", "named"),
    [
        ({"n": 5, "colour": "red"}, "colour"),
        ({"x": 1.0}, "'n'"),
        ({"n": "five"}, "n.*'five'"),
        ({"n": 5, "x": float("nan")}, "x.*nan"),
        ({"n": 5.5}, "n.*5.5"),
    ],
)
@pytest.mark.parametrize("workers", [None, 2])
def test_sweep_with_a_bad_set_runs_and_writes_nothing(store, runs, tmp_path, bad, named, workers):
    given = [*sets(5), bad, *sets(5)]

    with pytest.raises(ParameterError, match=named) as raised:
        store.sweep(given, workers=workers)

    assert f"parameter set 5 of the sweep: {bad!r}" in "\n".join(raised.value.__notes__)
    assert (rows(tmp_path), states(tmp_path), claims(tmp_path), runs.total()) == ([], {}, 0, 0)
    assert files(tmp_path) == []


@pytest.mark.parametrize("apart", [0, 1500])
def test_sweep_of_two_runs_under_one_key_raises(store, runs, tmp_path, apart):
    given = [{"n": 1, "id": "mine"}, *sets(apart), {"n": 2, "id": "mine"}]

    with pytest.raises(HashCollisionError, match=r"'mine'.*n \(2, 1\)"):
        store.sweep(given)

    assert (rows(tmp_path), states(tmp_path), runs.total()) == ([], {}, 0)


def test_sweep_of_another_run_under_a_stored_key_raises(store, runs):
    store.run_or_retrieve({"n": 1, "id": "mine"})

    with pytest.raises(HashCollisionError, match="mine"):
        store.sweep([{"n": 5}, {"n": 2, "id": "mine"}])

    assert runs.count() == {1: 1}


@pytest.mark.parametrize("option", ["on_error", "fallback", "missing"])
def test_sweep_with_an_unknown_option_raises(store, runs, option):
    with pytest.raises(ValueError, match=f"{option} must be one of"):
        store.sweep(sets(3), **{option: "ignore"})

    assert runs.total() == 0


class Cluster:
    scheduler_address = "tcp://127.0.0.1:8786"


class Client:
    def nthreads(self): ...

    def submit(self): ...


class Pool:
    def apply_async(self): ...


@pytest.mark.parametrize(
    ("given", "way"),
    [
        ({"client": 4}, "a Dask client, not 4: .*workers=4"),
        ({"client": "tcp://127.0.0.1:8786"}, r"distributed\.Client\('tcp://127.0.0.1:8786'\)"),
        ({"client": Client}, "not the class Client: connect one"),
        ({"client": Cluster()}, r"not a Cluster: .*cluster\.get_client\(\)"),
        ({"client": ThreadPoolExecutor(1)}, "not a ThreadPoolExecutor: give an executor as executor="),
        ({"executor": ThreadPoolExecutor}, r"not the class ThreadPoolExecutor: .*ThreadPoolExecutor\(4\)"),
        ({"executor": Pool()}, r"not a Pool: .*ProcessPoolExecutor\(4\); or say workers=4"),
        ({"executor": Client()}, "not a Dask client: give it as client="),
    ],
    ids=lambda one: "" if isinstance(one, str) else next(iter(one)),
)
def test_sweep_in_a_place_that_is_none_says_what_to_give(store, runs, given, way):
    with pytest.raises(TypeError, match=way):
        store.sweep(sets(2), **given)

    assert runs.total() == 0


def test_sweep_says_what_happened_to_a_cluster_that_says_nothing(store, caplog):
    class Silent(Executor):
        def submit(self, *_):
            raise CancelledError

    assert len(store.sweep(sets(2), executor=Silent())) == 2

    assert "what is left runs in this process: CancelledError" in caplog.text
    with pytest.raises(ClusterError, match=r"the cluster failed: CancelledError\. What is finished"):
        store.sweep(sets(3), executor=Silent(), fallback="raise")


def test_sweep_in_two_places_raises(store, runs):
    with pytest.raises(ValueError, match="exclude each other"), ThreadPoolExecutor(1) as executor:
        store.sweep(sets(3), workers=2, executor=executor)

    assert runs.total() == 0


# Files that are gone


def remove_some(result, count):
    for record in result[:count]:
        Path(record.result_file).unlink()


def test_sweep_when_one_file_is_gone_runs_it_again_with_a_warning(store, runs, caplog):
    remove_some(store.sweep(sets(20)), 1)

    result = store.sweep(sets(20))

    assert runs.count() == {**dict.fromkeys(range(20), 1), 0: 2}
    assert all(Path(record.result_file).exists() for record in result)
    assert [r.levelname for r in caplog.records if "gone" in r.message] == ["WARNING"]


@pytest.mark.parametrize(("gone", "of"), [(10, 20), (11, 111)])
def test_sweep_when_few_files_are_gone_runs_them_again(store, runs, gone, of):
    remove_some(store.sweep(sets(of)), gone)

    store.sweep(sets(of))

    assert runs.total() == of + gone


@pytest.mark.parametrize(("gone", "of"), [(11, 20), (12, 111)])
def test_sweep_when_many_files_are_gone_raises_with_the_count(store, runs, gone, of):
    remove_some(store.sweep(sets(of)), gone)

    with pytest.raises(ResultFileMissingError, match=f"{gone} of {of} results are gone.*missing='rerun'"):
        store.sweep(sets(of + 5))

    assert runs.total() == of


def test_sweep_told_to_rerun_runs_what_is_gone(store, runs):
    remove_some(store.sweep(sets(20)), 15)

    result = store.sweep(sets(20), missing="rerun", workers=2)

    assert runs.count() == {n: 2 if n < 15 else 1 for n in range(20)}
    assert all(Path(record.result_file).exists() for record in result)


def test_sweep_when_the_folder_is_gone_runs_nothing(store, runs, tmp_path):
    store.sweep(sets(5))
    (tmp_path / "results").rename(tmp_path / "unmounted")

    with pytest.raises(ResultsDirUnavailableError):
        store.sweep(sets(8))

    assert runs.total() == 5


# Where it cannot run


def unpicklable_runner(tmp_path):
    lock, runs = threading.Lock(), Runs(tmp_path / "log")

    def runner(params):
        with lock:
            return runs(params)

    return runner


@pytest.mark.parametrize("at", ["workers", "processes", "dask"])
def test_sweep_with_an_unpicklable_runner_runs_here_with_a_warning(tmp_path, at, request, caplog):
    store = open_store(Swept, tmp_path, unpicklable_runner(tmp_path))

    with place(at, request) as arguments:
        result = store.sweep(sets(6), **arguments)

    assert [record.n for record in result] == list(range(6))
    assert Runs(tmp_path / "log").processes() == {os.getpid()}
    (warning,) = [r for r in caplog.records if "runs in this process" in r.message]
    assert warning.levelname == "WARNING"
    assert "lock (a lock) cannot be pickled" in warning.message


def test_sweep_with_an_unpicklable_runner_and_no_fallback_raises(tmp_path):
    store = open_store(Swept, tmp_path, unpicklable_runner(tmp_path))

    with pytest.raises(ClusterError, match=r"lock \(a lock\) cannot be pickled.*inside the runner"):
        store.sweep(sets(6), workers=2, fallback="raise")

    assert (Runs(tmp_path / "log").total(), claims(tmp_path)) == (0, 0)


def test_sweep_in_threads_needs_no_pickling(tmp_path):
    store = open_store(Swept, tmp_path, unpicklable_runner(tmp_path))

    with executor_of("threads") as executor:
        result = store.sweep(sets(6), executor=executor, fallback="raise")

    assert len(result) == 6


def test_sweep_on_threads_that_cannot_begin_blames_no_run(store, runs, caplog):
    def fail():
        raise ValueError("of the initializer")

    with ThreadPoolExecutor(2, initializer=fail) as executor:
        result = store.sweep(sets(6), executor=executor)

    assert len(result) == 6
    assert runs.count() == dict.fromkeys(range(6), 1)
    (warning,) = [record for record in caplog.records if record.name.startswith("entropic")]
    assert "what is left runs in this process: BrokenThreadPool: " in warning.message


def test_sweep_on_an_executor_that_was_shut_down_runs_here(store, runs, caplog):
    executor = ThreadPoolExecutor(2)
    executor.shutdown()

    result = store.sweep(sets(6), executor=executor)

    assert len(result) == 6
    assert runs.count() == dict.fromkeys(range(6), 1)
    assert "cannot schedule new futures after shutdown" in caplog.text


def test_sweep_with_a_client_leaves_no_future_even_after_an_error(tmp_path, dask_client):
    store = open_store(Swept, tmp_path, Runs(tmp_path / "log", raises=(1,)))

    with pytest.raises(Odd):
        store.sweep(sets(40), dask_client)

    wait_for(lambda: not dask_client.futures)
    assert store.count() == 39


def test_sweep_through_a_store_of_another_database_object_agrees(tmp_path, runs):
    open_store(Swept, tmp_path, runs).sweep(sets(4))

    other: Store[Swept] = open_store(Swept, tmp_path, runs)

    assert [record.n for record in other.sweep(sets(4))] == [0, 1, 2, 3]
    assert runs.total() == 4


@pytest.mark.parametrize(
    ("young", "frozen", "calls"),
    [(100_000, 0, ["ask", "freeze", "unfreeze"] * 2), (100_000, 5, ["ask"] * 2), (100, 0, [])],
)
def test_collector_does_not_walk_the_much_that_a_sweep_has_made_unless_something_is_frozen(
    store, monkeypatch, young, frozen, calls
):
    made = []
    monkeypatch.setattr(gc, "get_count", lambda: (young, 0, 0))
    monkeypatch.setattr(gc, "get_freeze_count", lambda: made.append("ask") or frozen)
    monkeypatch.setattr(gc, "freeze", lambda: made.append("freeze"))
    monkeypatch.setattr(gc, "unfreeze", lambda: made.append("unfreeze"))

    store.sweep(sets(2), progress=False)

    assert made == calls
    assert gc.isenabled()


def test_lines_of_workers_that_were_all_committed_are_counted_and_not_read(store, monkeypatch):
    read = []
    monkeypatch.setattr(Receipt, "from_line", read.append)

    result = store.sweep(sets(25), workers=2)

    assert len(result) == 25
    assert read == []
    assert list(process_folders(store.results_dir)) == []
