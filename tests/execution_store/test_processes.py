"""Real processes and threads at one store: nothing is lost, and nothing is done twice."""

import threading

import pytest

from entropic import Database
from entropic.execution_store import ExecutionStore
from tests.support.execution_cases import (
    LAST,
    ROUNDS,
    TURNS,
    change_much,
    come_and_go,
    count_up,
    follow,
    take,
)
from tests.support.processes import forkserver, run_together
from tests.support.waiting import wait_for

between_processes = pytest.mark.parametrize(
    "database_url",
    ["sqlite-file", "postgresql", pytest.param("mysql", marks=pytest.mark.slow)],
    indirect=True,
)
on_each = pytest.mark.parametrize("database_url", ["sqlite-file", "postgresql", "mysql"], indirect=True)


@pytest.mark.slow
@on_each
@pytest.mark.parametrize("how", ["update", "compare_and_set", "set_if_version"])
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


@pytest.mark.slow
@on_each
def test_subscriber_that_is_killed_is_told_of_every_change_of_eight_writers_once(database_url, tmp_path):
    store = ExecutionStore.create("watched", database=database_url)
    path = tmp_path / "seen"
    path.write_text(f"{store.place()}\n")
    kills = []

    def follow_and_kill():
        while LAST not in path.read_text():
            before = len(path.read_text().splitlines())
            process = forkserver().Process(target=follow, args=(database_url, str(path)))
            process.start()
            goal = before + 300
            wait_for(lambda goal=goal, process=process: _lines(path) >= goal or not process.is_alive(), 300)
            kills.append(process.is_alive())
            process.kill()
            process.join()

    thread = threading.Thread(target=follow_and_kill)
    thread.start()
    done = run_together(change_much, [(database_url, number) for number in range(8)], timeout_s=300)
    store.purge_expired()
    store.set(LAST, 1)
    thread.join()

    lines = path.read_text().splitlines()[1:]
    numbers = [int(line.split("-")[1], 16) for line in lines]
    seen = [line.partition(" ")[2] for line in lines]
    assert numbers == list(range(1, len(numbers) + 1))
    for number, own in enumerate(done):
        assert [one for one in seen if one.split()[1].startswith(f"{number}-") and "expire" not in one] == own
    assert seen.count("set shared") == 8 * TURNS == store.get("shared")
    expired = [one.split()[1] for one in seen if one.startswith("expire")]
    assert sorted(expired) == sorted(
        f"{number}-{turn:02}{part}" for number in range(8) for turn in range(0, TURNS, 4) for part in "ab"
    )
    assert sum(kills) >= 2


def _lines(path):
    return path.read_text().count("\n")
