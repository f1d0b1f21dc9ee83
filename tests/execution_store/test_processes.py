"""Real processes and threads at one store: nothing is lost, and nothing is done twice."""

import threading

import pytest

from entropic import Database
from entropic.execution_store import ExecutionStore
from tests.support.execution_cases import ROUNDS, come_and_go, count_up, take
from tests.support.processes import run_together

between_processes = pytest.mark.parametrize(
    "database_url",
    ["sqlite-file", "postgresql", pytest.param("mysql", marks=pytest.mark.slow)],
    indirect=True,
)
on_each = pytest.mark.parametrize("database_url", ["sqlite-file", "postgresql", "mysql"], indirect=True)


@pytest.mark.slow
@on_each
@pytest.mark.parametrize("how", ["update", "compare_and_set"])
def test_no_change_of_eight_processes_is_lost(database_url, how):
    store = ExecutionStore.create("counter", "d", database=database_url)

    run_together(count_up, [(database_url, how)] * 8, timeout_s=300)

    assert store.get("n") == 8 * ROUNDS


@between_processes
def test_each_key_is_taken_by_one_process(database_url):
    store = ExecutionStore.create("jobs", database=database_url)

    taken = run_together(take, [(database_url, name) for name in range(4)])

    assert sorted(key for keys in taken for key in keys) == sorted(map(str, range(20)))
    assert store.items() == {key: name for name, keys in enumerate(taken) for key in keys}


@pytest.mark.slow
@on_each
def test_stores_come_and_go_under_those_who_write(database_url):
    store = ExecutionStore.create("busy", database=database_url)

    assert run_together(come_and_go, [(database_url, number) for number in range(4)]) == [0, 1, 2, 3]

    assert store.list_stores() == []


@pytest.mark.parametrize(
    "database_url", ["sqlite-file", "sqlite-memory", "postgresql", "mysql"], indirect=True
)
def test_one_of_eight_threads_sets_what_it_compared(database_url):
    database = Database(database_url)
    store = ExecutionStore.create("s", database=database)
    store.set("k", 0)
    barrier, won, counted = threading.Barrier(8), [], []

    def race(number):
        barrier.wait()
        won.append(store.compare_and_set("k", 0, number))
        counted.append(store.update("n", lambda value: (value or 0) + 1))
        database.release()

    threads = [threading.Thread(target=race, args=(number,)) for number in range(1, 9)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert won.count(True) == 1
    assert sorted(counted) == list(range(1, 9))
    database.dispose()
