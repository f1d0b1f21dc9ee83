"""One Store in many hands: threads, pickles, forks."""

import os
import pickle
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from entropic import hash_params
from tests.support.counting import CountingRunner
from tests.support.processes import run_together
from tests.support.store_cases import PARAMS, Pendulum, Runner, attempts_of, claims_of, rows_of
from tests.support.stores import open_store

N_THREADS = 16


@pytest.fixture(params=["sqlite-file", "postgresql", pytest.param("mysql", marks=pytest.mark.slow)])
def shared_url(request):
    """URL of a database that other processes can reach."""
    name = {"sqlite-file": "sqlite_url", "postgresql": "postgres_url", "mysql": "mysql_url"}[request.param]
    return request.getfixturevalue(name)


class SlowRunner(Runner):
    def __call__(self, params):
        time.sleep(0.05)
        return super().__call__(params)


def together(function, arguments):
    """Call *function* in a thread for each of *arguments*, all at once."""
    barrier = threading.Barrier(len(arguments))

    def call(argument):
        barrier.wait(30)
        return function(argument)

    with ThreadPoolExecutor(len(arguments)) as pool:
        return list(pool.map(call, arguments))


def test_threads_that_want_one_key_run_it_once(database, tmp_path):
    runner = SlowRunner()
    store = open_store(Pendulum, tmp_path, runner, database)

    records = together(store.run_or_retrieve, [PARAMS] * N_THREADS)

    assert len(runner.seen) == 1
    assert {record.id for record in records} == {hash_params(PARAMS)}
    assert len({record.created_at for record in records}) == 1
    assert attempts_of(database) == [("COMPLETED", None)]
    assert claims_of(database) == 0


def test_threads_that_want_different_keys_run_all_of_them(database, tmp_path):
    runner = Runner()
    store = open_store(Pendulum, tmp_path, runner, database)
    given = [{**PARAMS, "swings": swings} for swings in range(N_THREADS)]

    records = together(store.run_or_retrieve, given)

    assert [record.swings for record in records] == list(range(N_THREADS))
    assert len(runner.seen) == len(rows_of(database)) == N_THREADS
    assert all(Path(record.result_file).exists() for record in records)


def test_threads_that_want_hits_get_them(database, tmp_path):
    store = open_store(Pendulum, tmp_path, Runner(), database)
    record = store.run_or_retrieve(PARAMS)

    found = together(lambda _: [store.run_or_retrieve(PARAMS).id for _ in range(20)], range(N_THREADS))

    assert {one for some in found for one in some} == {record.id}


def use_pickled(data):
    store = pickle.loads(data)
    hit, miss = store.run_or_retrieve(PARAMS), store.run_or_retrieve({**PARAMS, "swings": 4})
    return os.getpid(), hit.id, miss.id, store.runner.processes


def test_pickled_store_works_in_another_process(shared_url, tmp_path):
    store = open_store(Pendulum, tmp_path, CountingRunner(tmp_path / "calls"), shared_url)
    first = store.run_or_retrieve(PARAMS)

    ((child, hit, miss, runners),) = run_together(use_pickled, [(pickle.dumps(store),)])

    assert child != os.getpid()
    assert hit == first.id
    assert runners == {os.getpid(), child}
    assert store.retrieve({**PARAMS, "swings": 4}).id == miss
    store.database.dispose()


def test_pickled_store_of_the_same_process_shares_the_engine(database, tmp_path):
    store = open_store(Pendulum, tmp_path, Runner(), database)
    store.run_or_retrieve(PARAMS)

    again = pickle.loads(pickle.dumps(store))

    assert again.database.engine is store.database.engine
    assert again.retrieve(PARAMS).id == hash_params(PARAMS)
    assert (again.file_suffix, again.results_dir) == (store.file_suffix, store.results_dir)


def test_pickle_of_a_store_holds_no_connection(sqlite_url, tmp_path):
    store = open_store(Pendulum, tmp_path, Runner(), sqlite_url)
    store.run_or_retrieve(PARAMS)

    assert len(pickle.dumps(store)) < 5000
    store.database.dispose()


def use_across_a_fork(url, folder):
    """Use a Store, fork, use it in the child and in the parent; return the child's exit status."""
    store = open_store(Pendulum, folder, CountingRunner(folder / "calls"), url)
    store.run_or_retrieve(PARAMS)
    child = os.fork()
    if child == 0:
        status = 1
        try:
            hit = store.run_or_retrieve(PARAMS)
            miss = store.run_or_retrieve({**PARAMS, "swings": 4})
            status = 0 if (hit.swings, miss.swings) == (3, 4) else 2
        finally:
            os._exit(status)
    _, status = os.waitpid(child, 0)
    return (
        status,
        store.retrieve({**PARAMS, "swings": 4}).swings,
        store.run_or_retrieve({**PARAMS, "swings": 5}).swings,
    )


def test_store_is_usable_on_both_sides_of_a_fork(shared_url, tmp_path):
    runner = CountingRunner(tmp_path / "calls")

    (result,) = run_together(use_across_a_fork, [(shared_url, tmp_path)])

    assert result == (0, 4, 5)
    assert len(runner.calls) == 3
    assert len(runner.processes) == 2


def obtain(url, folder):
    store = open_store(Pendulum, folder, CountingRunner(folder / "calls"), url)
    return store.run_or_retrieve(PARAMS).created_at


def test_processes_that_want_one_key_run_it_once(shared_url, tmp_path):
    created = run_together(obtain, [(shared_url, tmp_path)] * 4)

    assert len(CountingRunner(tmp_path / "calls").calls) == 1
    assert len(set(created)) == 1


def test_run_waits_for_the_holder_of_the_claim_then_runs(database, tmp_path):
    entered, leave = threading.Event(), threading.Event()
    runner = Runner()

    def held(params):
        runner(params)
        entered.set()
        leave.wait(30)

    holder = open_store(Pendulum, tmp_path, held, database)
    other = open_store(Pendulum, tmp_path, runner, database)
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(holder.run_or_retrieve, PARAMS)
        entered.wait(30)
        second = pool.submit(other.run, PARAMS)
        time.sleep(0.2)
        before = len(runner.seen)
        leave.set()
        created = first.result(30).created_at, second.result(30).created_at

    assert before == 1
    assert len(runner.seen) == 2
    assert created[0] < created[1]
    assert len(rows_of(database)) == 1
