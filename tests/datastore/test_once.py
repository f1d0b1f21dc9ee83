"""Data that are computed once: in threads and processes, inside of runs and of each other, and after a kill."""

import os
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from entropic import (
    Base,
    ClaimLostError,
    ClaimTimeoutError,
    DependencyCycleError,
    Mapped,
    ResultsDirUnavailableError,
    Store,
    TransactionError,
    memoize,
)
from entropic.datastore import DataStore
from entropic.datastore.once import TABLE
from entropic.leases import held
from entropic.runs.inside import inside_of
from entropic.sql.tables import NAMES
from tests.support.component_cases import (
    Component,
    Filter,
    Source,
    chain,
    climb,
    compute,
    counts,
    files_of,
    in_a_circle,
    lines,
)
from tests.support.nested_cases import in_threads
from tests.support.processes import outcomes_of, run_together

slow = pytest.mark.slow
between_processes = pytest.mark.parametrize(
    "database_url",
    ["sqlite-file", pytest.param("postgresql", marks=slow), pytest.param("mysql", marks=slow)],
    indirect=True,
)
on_each = pytest.mark.parametrize("database_url", ["sqlite-file", "postgresql", "mysql"], indirect=True)


def calls(function, count):
    count.append(1)
    return function()


# One thread


def test_what_is_not_there_is_computed_and_stored(store):
    count = []
    for value in (np.arange(3), None, {"a": (1, 2)}):
        one = Filter({"v": str(value)}, Source({"rate": 1}))
        found = [
            store.compute_once(one, "x", lambda value=value: calls(lambda: value, count)) for _ in range(3)
        ]
        assert len(count) == 1
        for each in (*found, store.retrieve(one, "x", strict=True)):
            np.testing.assert_array_equal(each, value)
        count.clear()
    assert counts(store)["claims"] == 0
    assert [state.parameters for state in store.ancestors(one)] == [{"rate": 1}]


def test_what_fails_is_raised_as_it_is_and_computed_by_who_asks_next(store):
    one = Component({"rate": 3})

    def fail():
        raise KeyError("no such cell")

    with pytest.raises(KeyError, match="no such cell") as caught:
        store.compute_once(one, "x", fail)
    assert caught.value.__notes__ == ["while running Component.x with rate=3"]
    for leaves in (KeyboardInterrupt, SystemExit):
        with pytest.raises(leaves):
            store.compute_once(one, "x", lambda leaves=leaves: (_ for _ in ()).throw(leaves()))
    with pytest.raises(TypeError, match="cannot store the value"):
        store.compute_once(one, "x", object)

    assert counts(store) == dict.fromkeys(counts(store), 0)
    assert held._holds == {}
    assert inside_of() == ()
    assert store.compute_once(one, "x", lambda: 1) == 1


def test_component_that_changes_while_its_data_are_computed_has_them_as_it_was(local):
    one = Component({"n": 1})

    def change():
        one.parameters["n"] = 2
        return 1

    local.compute_once(one, "x", change)

    assert local.retrieve(Component({"n": 1}), "x") == 1
    assert not local.has(one, "x")


async def computed_later():
    raise AssertionError


def test_what_is_no_function_and_what_is_in_a_transaction_is_refused(local):
    with pytest.raises(TypeError, match="compute_once needs a function without arguments, not 3"):
        local.compute_once(Component(), "x", 3)
    with pytest.raises(
        TypeError, match="returns is still to be run, as of each coroutine and generator: give comp"
    ):
        local.compute_once(Component(), "x", computed_later)
    with local.database.transaction():
        local.store(Component(), "y", 1)
        assert local.compute_once(Component(), "y", lambda: 2) == 1  # nothing has to be computed
        with pytest.raises(TransactionError, match="compute_once is not possible inside a transaction"):
            local.compute_once(Component(), "x", lambda: 1)
    assert local.retrieve(Component(), "y") == 1


def test_claims_are_on_a_name_that_no_table_of_a_user_has(local):
    assert TABLE in NAMES
    seen = []

    def look():
        with local.database.reading() as connection:
            seen.extend(connection.exec_driver_sql("SELECT table_name, record_id FROM entropic_claims").all())

    names = ["x", "y" * 255]
    for name in names:
        local.compute_once(Component(), name, look)
    assert [row.table_name for row in seen] == [TABLE] * 2
    assert seen[0].record_id.endswith("/x")
    assert len(seen[1].record_id) == 64


# Inside of each other


def test_chain_of_components_computes_what_it_needs(store):
    components, count = chain(8), []

    def wanted(number):
        return store.compute_once(components[number], "data", lambda: calls(lambda: data(number), count))

    def data(number):
        assert len(inside_of()) == len(components) - number
        return np.arange(3) if number == 0 else wanted(number - 1) + 1

    np.testing.assert_array_equal(wanted(7), np.arange(3) + 7)

    assert len(count) == 8
    np.testing.assert_array_equal(wanted(7), wanted(6) + 1)
    assert len(count) == 8
    assert len(store.list_contents(attribute="data")) == 8
    assert counts(store)["claims"] == 0


def test_data_that_need_themselves_are_an_error_that_shows_the_way(store):
    one, two = Source({"n": 1}), Filter({"k": 2})

    def first():
        return store.compute_once(two, "signal", second)

    def second():
        return store.compute_once(one, "spikes", first)

    with pytest.raises(DependencyCycleError) as caught:
        store.compute_once(one, "spikes", first)

    assert "Source.spikes(n=1) → Filter.signal(k=2) → Source.spikes(n=1)" in str(caught.value)
    assert counts(store)["claims"] == 0
    assert store.list_contents() == []


@pytest.mark.slow
def test_chain_that_is_too_deep_says_how_to_go_on_and_is_never_stuck(local):
    def wanted(number):
        one = Component({"n": number})
        return local.compute_once(one, "data", lambda: wanted(number - 1) + 1 if number else 0)

    with pytest.raises(RecursionError) as caught:
        wanted(200)

    assert any("too many runs were inside of each other" in note for note in caught.value.__notes__)
    # What a clean-up could not give back, too.
    assert [wanted(number) for number in range(201)] == list(range(201))
    assert counts(local)["claims"] == 0


class Leaf(Base):
    __tablename__ = "once_leaves"

    n: Mapped[int]


def test_runs_and_data_need_each_other_by_one_rule(tmp_path, sqlite_url):
    store = DataStore(sqlite_url, tmp_path / "data")
    asked = []

    def run(params):
        asked.append(("run", params["n"]))
        total = 1
        if params["n"]:
            total += store.compute_once(Component({"n": params["n"]}), "data", lambda: data(params["n"]))
        Path(params["result_file"]).write_text(str(total))

    def data(number):
        asked.append(("data", number))
        return int(
            Path(runs.run_or_retrieve({"n": number - 1 if number < 9 else number}).result_file).read_text()
        )

    runs = Store(run, Leaf, tmp_path / "runs", ".txt", sqlite_url)

    found = runs.sweep([{"n": n} for n in (3, 2, 1, 0)], progress=False)

    assert [int(Path(one.result_file).read_text()) for one in found] == [4, 3, 2, 1]
    assert sorted(asked) == sorted([*(("run", n) for n in range(4)), *(("data", n) for n in range(1, 4))])
    with pytest.raises(DependencyCycleError, match=r"run\(n=9\) → Component.data\(n=9\) → run\(n=9\)"):
        runs.run_or_retrieve({"n": 9})
    assert counts(store)["claims"] == 0


def test_memoized_function_asks_for_data(tmp_path, sqlite_url):
    @memoize(db_url=sqlite_url, results_dir=tmp_path / "memo")
    def total(n: int, url: str, folder: str) -> int:
        store = DataStore(url, folder)
        return int(store.compute_once(Source({"n": n}), "x", lambda: np.arange(n)).sum())

    given = (4, sqlite_url, str(tmp_path / "data"))
    assert total(*given) == total(*given) == 6


# Threads


def test_one_of_many_threads_computes_and_all_get_it(store):
    count, barrier = [], threading.Barrier(6)

    def ask():
        barrier.wait()
        return store.compute_once(Component(), "x", lambda: calls(lambda: time.sleep(0.2) or 7, count))

    assert in_threads(*[ask] * 6) == [7] * 6
    assert len(count) == 1


def test_threads_whose_data_need_each_others_are_told(local):
    begun = threading.Barrier(2)

    def ask(number):
        def first():
            begun.wait()
            return local.compute_once(Component({"n": 1 - number}), "x", lambda: "never")

        return local.compute_once(Component({"n": number}), "x", first)

    found = in_threads(lambda: ask(0), lambda: ask(1))

    assert any(isinstance(one, DependencyCycleError) for one in found)
    assert counts(local)["claims"] == 0


def test_store_that_waits_for_a_time_only_gives_up(local):
    impatient = DataStore(local.database, local.root_dir, wait_timeout_s=0.05)
    begun, over = threading.Event(), threading.Event()

    def slow():
        begun.set()
        over.wait(30)
        return 1

    def ask():
        begun.wait(30)
        try:
            with pytest.raises(
                ClaimTimeoutError, match=r"Component\.x is held by process \d+ .* for longer than wait"
            ):
                impatient.compute_once(Component(), "x", lambda: 2)
        finally:
            over.set()

    assert in_threads(lambda: local.compute_once(Component(), "x", slow), ask) == [1, None]


def test_claim_that_was_lost_stores_nothing(store):
    def lose():
        with store.database.engine.begin() as connection:
            connection.exec_driver_sql("DELETE FROM entropic_claims")
        DataStore(store.database, store.root_dir).store(Component(), "x", "another's")
        return np.arange(3)

    with pytest.raises(ClaimLostError, match=r"Component\.x was taken over while it was computed"):
        store.compute_once(Component(), "x", lose)

    assert store.retrieve(Component(), "x") == "another's"
    assert files_of(store) == []
    assert held._holds == {}


def test_data_of_a_former_owner_that_has_ended_are_computed_by_the_next(local):
    outcomes_of(compute, [(str(local.database.url), local.root_dir, [1], 0.0, (1,))])
    assert counts(local)["claims"] == 1
    assert len(os.listdir(local.root_dir / ".entropic")) == 1
    DataStore(local.database, local.root_dir)
    assert os.listdir(local.root_dir / ".entropic") == []

    assert local.compute_once(Component({"n": 1}), "data", lambda: "next") == "next"
    assert counts(local)["claims"] == 0


def test_process_that_is_forked_while_it_computes_ends_where_that_does(local):
    marks = local.root_dir / "marks"
    marks.mkdir()

    def fork():
        pid = os.fork()
        if pid == 0:
            return "child"
        os.waitpid(pid, 0)
        return "parent"

    found = local.compute_once(Component(), "x", fork)
    (marks / str(os.getpid())).touch()

    assert found == local.retrieve(Component(), "x") == "parent"
    assert len(os.listdir(marks)) == 1


# Processes


@between_processes
def test_each_is_computed_once_among_processes(database_url, tmp_path):
    found = run_together(compute, [(database_url, tmp_path, [1, 2, 3], 0.05)] * 3)

    assert found == [[1, 4, 9]] * 3
    assert sorted(line.split()[0] for line in lines(tmp_path)) == ["1", "2", "3"]
    assert counts(DataStore(database_url, tmp_path))["claims"] == 0
    assert os.listdir(tmp_path / ".entropic") == []


@pytest.mark.slow
def test_circle_over_two_processes_is_found(tmp_path, sqlite_url):
    found = run_together(in_a_circle, [(sqlite_url, tmp_path, number, 2) for number in range(2)])

    assert "DependencyCycleError" in found
    assert counts(DataStore(sqlite_url, tmp_path))["claims"] == 0


@pytest.mark.slow
@on_each
def test_each_is_computed_once_among_many_processes_of_which_some_are_killed(database_url, tmp_path):
    numbers, doomed = list(range(12)), (2, 5, 7)
    outcomes = outcomes_of(compute, [(database_url, tmp_path, numbers, 0.02, doomed)] * 8, timeout_s=240)

    killed = [outcome for outcome in outcomes if not outcome.finished]
    assert len(killed) == len(doomed)
    assert all(outcome.value == [n**2 for n in numbers] for outcome in outcomes if outcome.finished)
    begun = [int(line.split()[0]) for line in lines(tmp_path)]
    assert sorted(begun) == sorted([*numbers, *doomed])
    assert sorted(int(line.split()[0]) for line in lines(tmp_path, "ended")) == numbers
    store = DataStore(database_url, tmp_path)
    assert counts(store)["claims"] == 0
    assert len(store.list_contents()) == len(numbers)


@pytest.mark.slow
@on_each
def test_chains_are_climbed_once_by_many_processes_of_which_some_are_killed(database_url, tmp_path):
    outcomes = outcomes_of(climb, [(database_url, tmp_path, 10, (3, 8))] * 6, timeout_s=240)

    assert len([outcome for outcome in outcomes if not outcome.finished]) == 2
    assert {outcome.value for outcome in outcomes if outcome.finished} == {10}
    assert sorted(int(line.split()[0]) for line in lines(tmp_path, "ended")) == list(range(10))
    assert counts(DataStore(database_url, tmp_path))["claims"] == 0


@pytest.mark.slow
def test_long_circle_over_processes_is_found(tmp_path, sqlite_url):
    found = run_together(in_a_circle, [(sqlite_url, tmp_path, number, 4) for number in range(4)])

    assert "DependencyCycleError" in found


def test_folder_that_is_gone_is_said_before_anything_is_computed(tmp_path, sqlite_url):
    store = DataStore(sqlite_url, tmp_path / "data")
    store.store(Component(), "x", np.arange(3))
    (tmp_path / "data").rename(tmp_path / "away")

    with pytest.raises(ResultsDirUnavailableError, match="Mount it"):
        store.compute_once(Component(), "y", lambda: pytest.fail("it was computed"))
