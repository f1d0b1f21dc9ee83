"""Sweeps of runs that need other runs, in several processes at once: they end, and each key runs once."""

import contextlib
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pytest

from entropic import ClusterError, Store
from entropic.disk.sidecars import WAITS
from entropic.process.patience import Patience
from entropic.runs.tenure import Tenure
from entropic.runs.wait_notes import ASKED
from entropic.sweeps.plan import Plan
from entropic.sweeps.result import SweepOptions
from entropic.sweeps.tasks import Tasks
from tests.support.clusters import local_client
from tests.support.executors import Immediate, Narrow, executor_of
from tests.support.nested_cases import (
    Needs,
    Node,
    Ring,
    Sweeps,
    chain,
    error_of,
    expected,
    failures_at,
    in_threads,
    shuffled,
    sweep,
)
from tests.support.processes import run_together
from tests.support.sweep_runs import place
from tests.support.waiting import wait_for

LIMIT_S = 120.0  # for what takes seconds, on a machine that does much else


def meet(needs, numbers, options):
    return sweep(needs, numbers, **options)


def test_two_processes_that_need_each_others_keys_share_them(tmp_path, sqlite_url):
    """One begins at each end of a chain: each holds what the other waits for, and gives back what it has not begun."""
    needs = Needs(str(tmp_path), sqlite_url, chain(16), meet=2)
    needs.store()
    up, down = list(range(16)), list(range(15, -1, -1))

    found = run_together(meet, [(needs, up, {}), (needs, down, {})], timeout_s=60)

    assert found == [[n + 1 for n in up], [n + 1 for n in down]]
    assert needs.calls() == {f"node{n}": 1 for n in up}
    assert len(needs.pids()) == 2


@pytest.mark.parametrize(
    "where", ["processes", *(pytest.param(place, marks=pytest.mark.slow) for place in ("workers", "dask"))]
)
def test_workers_take_from_each_other_what_they_need(tmp_path, sqlite_url, where, request):
    """From the wrong end: every run needs one that another worker was given, or its own further on in its chunk."""
    needs = Needs(str(tmp_path), sqlite_url, chain(10), meet=2)
    numbers = list(range(9, -1, -1))

    with place(where, request) as options:
        found = sweep(needs, numbers, fallback="raise", **options)

    assert found == [n + 1 for n in numbers]
    assert needs.calls() == {f"node{n}": 1 for n in numbers}
    assert len(needs.pids()) == 2
    assert not list(tmp_path.rglob(f"{WAITS}*"))


@pytest.mark.slow
@pytest.mark.parametrize(("workers", "threads"), [(2, 1), (1, 2)])
def test_tasks_in_threads_of_this_process_are_inside_of_nothing_but_their_own_run(tmp_path, workers, threads):
    """Dask starts a task in the context of whoever left the slot: of a run that waits, which the task is not inside of.

    Such runs wait for each other, or are taken for circles, in a good part of these sweeps.
    """
    with local_client(workers=workers, threads=threads, processes=False) as client:
        for seed in range(6):
            graph, numbers = shuffled(30, seed)
            folder = tmp_path / str(seed)
            folder.mkdir()
            needs = Needs(str(folder), f"sqlite:///{folder / 'entropic.sqlite3'}", graph)

            found = sweep(needs, numbers, client=client, fallback="raise")

            assert found == [expected(graph, n) for n in numbers]
            assert needs.calls() == {f"node{n}": 1 for n in numbers}


def test_circle_over_two_processes_is_an_error_that_shows_it(tmp_path, sqlite_url):
    needs = Needs(str(tmp_path), sqlite_url, {0: (1,), 1: (0,)}, meet=2)
    needs.store()

    errors = run_together(error_of, [(needs, 0), (needs, 1)], timeout_s=60)

    assert {name for name, _ in errors} == {"DependencyCycleError"}
    assert all("node(n=0)" in text and "node(n=1)" in text and "→" in text for _, text in errors)


def test_chunk_that_waits_in_an_executor_for_who_needs_it_is_withdrawn(tmp_path, sqlite_url):
    """All its processes are in runs that need what is queued behind them, and its futures cannot be cancelled."""
    needs = Needs(str(tmp_path), sqlite_url, chain(6))
    numbers = list(range(5, -1, -1))

    with executor_of("processes") as executor:
        executor._max_workers = 1
        one = Narrow(executor)
        (found,) = in_threads(
            lambda: sweep(needs, numbers, executor=one, fallback="raise"), timeout_s=LIMIT_S
        )

    assert found == [n + 1 for n in numbers]
    assert needs.calls() == {f"node{n}": 1 for n in numbers}
    assert not list(tmp_path.rglob("tasks-*"))


def shared(executor, workers):
    """An executor of so many processes, which does not say how many it has."""
    executor._max_workers = workers
    return Narrow(executor)


@pytest.mark.parametrize("workers", [1, pytest.param(2, marks=pytest.mark.slow)])
@pytest.mark.parametrize("is_up", [pytest.param(True, marks=pytest.mark.slow), False])
def test_sweeps_that_share_an_executor_give_each_other_what_they_need(tmp_path, sqlite_url, workers, is_up):
    """Each run of one table needs one of the other, and all processes are in runs that wait for what is queued."""
    numbers = list(range(5) if is_up else range(4, -1, -1))
    needs = Needs(
        str(tmp_path),
        sqlite_url,
        {},
        leaves={n: (n,) for n in numbers},
        back={n: (n - 1,) for n in range(1, 5)},
    )
    for is_leaf in (False, True):
        needs.store(is_leaf=is_leaf)

    with executor_of("processes") as executor:
        one = shared(executor, workers)
        found = in_threads(
            lambda: sweep(needs, numbers, executor=one, fallback="raise"),
            lambda: sweep(needs, numbers, is_leaf=True, executor=one, fallback="raise"),
            timeout_s=LIMIT_S,
        )

    assert found == [[2 * n + 2 for n in numbers], [2 * n + 1 for n in numbers]]
    assert needs.calls() == {f"{kind}{n}": 1 for n in numbers for kind in ("node", "leaf")}
    assert not claims_of(needs)
    assert not list(tmp_path.rglob(f"*{ASKED}"))


@pytest.mark.slow
@pytest.mark.parametrize("is_up", [True, False], ids=["up", "down"])
@pytest.mark.parametrize("where", ["threads", "processes", "one process", "dask"])
def test_three_sweeps_on_one_executor_give_each_other_what_they_need(
    tmp_path, sqlite_url, where, is_up, request
):
    """Each run needs one of the next table, around all three; on all threads or processes are runs that wait."""
    ring = Ring(str(tmp_path), sqlite_url, 0)
    numbers = list(range(4) if is_up else range(3, -1, -1))
    for number in range(3):
        ring.store(number)

    with contextlib.ExitStack() as stack:
        if where == "dask":
            options = stack.enter_context(place(where, request))
        else:
            one = stack.enter_context(executor_of("threads" if where == "threads" else "processes"))
            count = 1 if where == "one process" else 2
            options = {"executor": one if where == "threads" else shared(one, count)}
        found = in_threads(
            *(partial(ring.sweep, number, numbers, fallback="raise", **options) for number in range(3)),
            timeout_s=LIMIT_S,
        )

    assert found == [[3 * n + 3 - number for n in numbers] for number in range(3)]
    assert ring.calls() == {f"{number}.{n}": 1 for number in range(3) for n in numbers}
    with ring.store(0).database.reading() as connection:
        assert not connection.exec_driver_sql("SELECT record_id FROM entropic_claims").all()
    assert not list(tmp_path.rglob(f"*{ASKED}"))


@pytest.mark.parametrize("workers", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_key_that_is_queued_behind_who_waits_for_it_is_given_back(tmp_path, sqlite_url, workers):
    """The first of the sweeps is at a run that needs what the other one has claimed and queued behind that."""
    needs = Needs(str(tmp_path), sqlite_url, chain(4), holds=(3, 9))

    def second(executor):
        wait_for(lambda: len(needs.calls()) == workers)
        return sweep(needs, [2, 1, 0], executor=executor, fallback="raise")

    def release():
        wait_for(lambda: len(claims_of(needs)) > workers)
        Path(needs.folder, "go").touch()

    with executor_of("processes") as executor:
        one = shared(executor, workers)
        first = [3, 9][:workers]
        found = in_threads(
            lambda: sweep(needs, first, executor=one, fallback="raise"),
            lambda: second(one),
            release,
            timeout_s=LIMIT_S,
        )

    assert found[:2] == [[4, 1][:workers], [3, 2, 1]]
    assert needs.calls() == {f"node{n}": 1 for n in [0, 1, 2, *first]}
    assert not claims_of(needs)


@pytest.mark.slow
@pytest.mark.parametrize("where", ["workers", "dask"])
def test_run_that_is_tried_again_is_not_kept_back_by_those_who_wait_for_it(
    tmp_path, sqlite_url, where, request
):
    """Its worker died with it, and all workers are in runs that need it."""
    needs = Needs(str(tmp_path), sqlite_url, {n: (0,) for n in range(1, 6)}, meet=2, falls=(0,))
    with place(where, request) as options:
        (found,) = in_threads(lambda: sweep(needs, range(6), fallback="raise", **options), timeout_s=LIMIT_S)

    assert found == [1, 2, 2, 2, 2, 2]
    assert needs.calls() == {"node0": 2} | {f"node{n}": 1 for n in range(1, 6)}


RING = {0: (1,), 1: (2,), 2: (0,)}


def assert_ring(needs, records, errors):
    """The runs of the circle failed, each with the way around; no other did, and nothing is held."""
    assert records == [3, 4]
    assert [name for name, _ in errors] == ["DependencyCycleError"] * 3
    assert all(f"node(n={n})" in text and "→" in text for _, text in errors for n in RING)
    assert not claims_of(needs)
    assert not list(Path(needs.folder).rglob(f"{WAITS}*"))


def claims_of(needs):
    with needs.store().database.reading() as connection:
        return connection.exec_driver_sql("SELECT record_id FROM entropic_claims").all()


@pytest.mark.parametrize(
    "where",
    [
        "threads",
        pytest.param("processes", marks=pytest.mark.slow),
        pytest.param("workers", marks=pytest.mark.slow),
    ],
)
def test_circle_whose_parts_run_in_several_places_of_a_sweep_is_an_error(tmp_path, sqlite_url, where):
    needs = Needs(str(tmp_path), sqlite_url, RING, meet=2)

    ((records, errors),) = in_threads(lambda: failures_at(needs, range(5), where), timeout_s=LIMIT_S)

    assert_ring(needs, records, errors)


@pytest.mark.slow
@pytest.mark.parametrize("processes", [True, False])
def test_circle_whose_parts_run_on_a_cluster_is_an_error(tmp_path, sqlite_url, processes):
    needs = Needs(str(tmp_path), sqlite_url, RING, meet=2)
    with local_client(processes=processes) as client:
        address = client.scheduler.address

        ((records, errors),) = in_threads(
            lambda: failures_at(needs, range(5), "dask", address), timeout_s=LIMIT_S
        )

    assert_ring(needs, records, errors)


@pytest.mark.slow
@pytest.mark.parametrize("where", ["serial", "threads", "workers"])
def test_circle_over_the_sweeps_of_two_processes_is_an_error(tmp_path, sqlite_url, where):
    needs = Needs(str(tmp_path), sqlite_url, RING, meet=2)
    needs.store()

    found = run_together(
        failures_at, [(needs, [0, 1, 2, 3, 4], where), (needs, [2, 1, 0, 3, 4], where)], timeout_s=LIMIT_S
    )

    for records, errors in found:
        assert_ring(needs, records, errors)


def test_worker_gets_what_its_run_needs_from_further_on_in_its_chunk(tmp_path, sqlite_url, monkeypatch):
    needs = Needs(str(tmp_path), sqlite_url, chain(4))
    monkeypatch.setattr("entropic.sweeps.window._Pace.size", lambda self: 2)

    (found,) = in_threads(lambda: sweep(needs, [3, 2, 1, 0], workers=1, fallback="raise"))

    assert found == [4, 3, 2, 1]
    assert needs.calls() == {f"node{n}": 1 for n in range(4)}


@pytest.mark.parametrize(
    "after", [0, pytest.param(1, marks=pytest.mark.slow)], ids=["always", "when it is at work"]
)
def test_executor_that_calls_what_it_is_given_at_once_is_this_thread(tmp_path, sqlite_url, after, caplog):
    needs = Needs(str(tmp_path), sqlite_url, chain(6))

    with executor_of("processes") as others, caplog.at_level("INFO", "entropic.sweeps"):
        options = {"executor": Immediate(others, after), "fallback": "raise"}
        (found,) = in_threads(lambda: sweep(needs, [5, 4, 3, 2, 1, 0], **options))

    assert found == [6, 5, 4, 3, 2, 1]
    assert needs.calls() == {f"node{n}": 1 for n in range(6)}
    assert claims_of(needs) == []
    assert "runs in this thread, where its executor (Immediate) calls what it is given" in caplog.text


def test_what_a_worker_has_finished_is_committed_for_who_waits_while_its_chunk_goes_on(
    tmp_path, sqlite_url, monkeypatch
):
    needs = Needs(str(tmp_path), sqlite_url, {}, holds=(1,))
    monkeypatch.setattr("entropic.sweeps.window._Pace.size", lambda self: 2)

    def nine(params):
        Path(params["result_file"]).write_text(Path(store.run_or_retrieve({"n": 0}).result_file).read_text())

    store = Store(nine, Node, tmp_path / "nodes", ".txt", sqlite_url, wait_timeout_s=10.0)

    def ask():
        try:
            wait_for(lambda: needs.calls()["node1"])
            return store.run_or_retrieve({"n": 9}).n
        finally:
            (tmp_path / "go").touch()

    found, asked = in_threads(lambda: sweep(needs, range(4), workers=1, fallback="raise"), ask)

    assert (found, asked) == ([1, 1, 1, 1], 9)
    assert needs.calls() == {f"node{n}": 1 for n in range(4)}


def test_key_that_is_left_to_others_is_come_back_to_later_each_time(tmp_path, sqlite_url, monkeypatch):
    now = [0.0]
    monkeypatch.setattr("entropic.sweeps.tasks.time", SimpleNamespace(monotonic=lambda: now[0]))
    table = Needs(str(tmp_path), sqlite_url, {}).store()._table
    one = Tasks(table, Tenure(table), SweepOptions(Patience(longest_pause_s=1.0)), Plan({}, {}, {}, []))

    left = []
    for now[0], leaves in [(0.0, True), (1.9, True), (2.0, False), (3.0, True), (6.9, False), (7.0, False)]:
        if leaves:
            one._leave("k")
        left.append(one._is_left("k"))

    assert left == [True, True, False, True, True, False]


# Sweeps inside of runs


@pytest.mark.slow
@pytest.mark.parametrize("inner", ["dask", "serial"])
def test_tasks_of_a_cluster_may_sweep_on_it(tmp_path, sqlite_url, dask_client, inner):
    """All its workers are in runs that wait for their sweeps: they let go of their slots meanwhile."""
    runner = Sweeps(str(tmp_path), sqlite_url, inner)

    found = runner.store().sweep([{"n": n} for n in range(4)], dask_client, progress=False, fallback="raise")

    assert len(found) == 4
    assert sorted(runner.ran()) == [10 * n + k for n in range(4) for k in range(3)]


@pytest.mark.slow
def test_workers_may_sweep_with_workers(tmp_path, sqlite_url):
    runner = Sweeps(str(tmp_path), sqlite_url, "workers")

    assert len(runner.store().sweep([{"n": 1}, {"n": 2}], workers=2, progress=False, fallback="raise")) == 2
    assert sorted(runner.ran()) == [10, 11, 12, 20, 21, 22]


@pytest.mark.slow
def test_worker_that_cannot_have_children_says_so(tmp_path, sqlite_url, dask_client):
    runner = Sweeps(str(tmp_path), sqlite_url, "workers")

    with pytest.raises(ClusterError, match=r"workers=2 was asked for .* which cannot have children"):
        runner.store().sweep([{"n": 1}], dask_client, progress=False, fallback="raise")


@pytest.mark.parametrize("where", ["processes", pytest.param("dask", marks=pytest.mark.slow)])
def test_worker_cannot_reach_a_database_in_memory_and_says_which(tmp_path, where, request):
    runner = Sweeps(str(tmp_path), "sqlite://", "serial")

    with place(where, request) as options, pytest.raises(ClusterError, match=r"'sqlite://'.* in the memory"):
        runner.store().sweep([{"n": 1}], progress=False, fallback="raise", **options)

    assert not runner.ran()
    assert not (tmp_path / "leaves").exists()
    assert runner.inner().count() == 0
