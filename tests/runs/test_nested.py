"""Runs that ask for other runs in one process: they end, each runs once, and circles are shown."""

import threading
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from pathlib import Path

import pytest

from entropic import Base, DependencyCycleError, Mapped, Store
from entropic.disk.sidecars import WAITS
from entropic.disk.staging import Staging
from entropic.leases import held
from entropic.process.identity import this_process
from entropic.runs import tenure as module
from entropic.runs.holding import Holding
from entropic.runs.inside import Run, inside_of, running, wait_for
from entropic.runs.wait_notes import ASKED, notes
from entropic.runs.waits import Waiting
from entropic.sweeps.chunks import run_timed
from tests.support.counting import opened, statements
from tests.support.nested_cases import (
    Leaf,
    Needs,
    Node,
    Sweeps,
    chain,
    expected,
    in_threads,
    pool,
    sweep,
    sweep_at,
)

GRAPH = {0: (3, 7), 1: (0,), 2: (5, 6), 4: (1, 2), 5: (6, 9), 8: (4,)}


@pytest.fixture
def needing(tmp_path, sqlite_url):
    def make(graph, **others):
        return Needs(str(tmp_path), sqlite_url, graph, **others)

    return make


def claims(needs):
    with needs.store().database.reading() as connection:
        return connection.exec_driver_sql("SELECT count(*) FROM entropic_claims").scalar()


def test_call_runs_what_it_needs_once(needing):
    needs = needing(GRAPH)

    record = needs.store().run_or_retrieve({"n": 4})

    assert int(Path(record.result_file).read_text()) == expected(GRAPH, 4)
    assert set(needs.calls().values()) == {1}
    assert claims(needs) == 0


@pytest.mark.parametrize("numbers", [range(10), range(9, -1, -1)], ids=["up", "down"])
def test_serial_sweep_takes_what_a_run_needs_from_its_own_chunk(needing, numbers):
    needs = needing(GRAPH)

    assert sweep(needs, numbers) == [expected(GRAPH, n) for n in numbers]

    assert needs.calls() == {f"node{n}": 1 for n in numbers}
    assert claims(needs) == 0


def test_finished_run_of_the_same_chunk_is_committed_for_who_needs_it(needing, monkeypatch):
    needs = needing(chain(12))
    monkeypatch.setattr("entropic.sweeps.window._Pace.size", lambda self: 12)

    assert sweep(needs, range(12)) == list(range(1, 13))

    assert set(needs.calls().values()) == {1}


def test_run_that_sweeps_its_own_store_gets_what_its_sweep_holds(tmp_path, sqlite_url):
    class Summed(Base):
        __tablename__ = "summed"
        n: Mapped[int]

    calls = []

    def run(params):
        calls.append(params["n"])
        if params["n"] % 5 == 0:
            store.sweep([{"n": params["n"] + k} for k in range(1, 5)], progress=False)
        Path(params["result_file"]).write_text("x")

    store = Store(run, Summed, tmp_path / "summed", ".txt", sqlite_url)

    assert len(store.sweep([{"n": n} for n in range(20)], progress=False)) == 20
    assert sorted(calls) == list(range(20))


def test_threads_of_a_sweep_share_what_they_need(needing):
    needs = needing(GRAPH)

    with ThreadPoolExecutor(3) as threads:
        found = sweep(needs, range(10), executor=threads)

    assert found == [expected(GRAPH, n) for n in range(10)]

    assert needs.calls() == {f"node{n}": 1 for n in range(10)}
    assert claims(needs) == 0


def test_failure_in_the_same_chunk_is_run_again_by_who_needs_it(tmp_path, sqlite_url):
    class Shaky(Base):
        __tablename__ = "shaky"
        n: Mapped[int]

    calls = []

    def run(params):
        calls.append(params["n"])
        if calls == [0]:
            raise ValueError("once")
        if params["n"] == 1:
            store.run_or_retrieve({"n": 0})
        Path(params["result_file"]).write_text("x")

    store = Store(run, Shaky, tmp_path / "shaky", ".txt", sqlite_url)
    result = store.sweep([{"n": n} for n in range(3)], progress=False, on_error="continue")

    assert calls == [0, 1, 0, 2]
    assert [failed.error_type for failed in result.failed] == ["ValueError"]
    assert store.count() == 3


def test_what_a_worker_begins_is_not_inside_of_what_its_context_says():
    outer = Run(("root", "outer"), "outer", {})

    with running(outer):
        assert run_timed(lambda jobs: [inside_of()], []).outcomes == [()]
        assert inside_of() == (outer,)


class Kept(Base):
    __tablename__ = "nested_contexts"

    n: Mapped[int]


def test_context_that_outlives_its_run_is_inside_of_it_no_more(tmp_path, sqlite_url):
    contexts = []

    def run(params):
        contexts.append(copy_context())
        if len(contexts) == 1:
            raise ValueError("first")
        Path(params["result_file"]).touch()

    store = Store(run, Kept, tmp_path / "kept", ".txt", sqlite_url)
    with pytest.raises(ValueError, match="first"):
        store.run_or_retrieve({"n": 1})

    record = contexts[0].run(store.run_or_retrieve, {"n": 1})

    assert (record.n, len(contexts)) == (1, 2)


def test_run_that_has_ended_waits_for_nothing_that_its_context_waits_for():
    run, key = Run(("root", "ended"), "ended", {}, folder="here"), ("root", "key")

    with running(run):
        context = copy_context()
        wait_for([key])
        assert held.circle(run.mark, {key})

    assert held.circle(run.mark, {key}) == []
    context.run(wait_for, [key])
    assert held.circle(run.mark, {key}) == []


def test_note_of_a_wait_goes_with_the_run_that_it_is_of(tmp_path, sqlite_url):
    needs = Needs(str(tmp_path), sqlite_url, {})
    table = needs.store()._table
    own = Staging(table.root, "own", this_process().as_dict())
    own.make()
    run = Run((table.marker.root, "ended"), "ended", {}, str(own.folder))

    with running(run):
        context = copy_context()
        waiting = context.run(Waiting, table, Holding(table))
        context.run(waiting.stand_aside, ["key"])
        assert any(file.name.startswith(WAITS) for file in own.folder.iterdir())
    context.run(waiting.stand_aside, ["key"])

    assert not any(file.name.startswith(WAITS) for file in own.folder.iterdir())
    assert list(notes(table.root, ASKED)) == []
    context.run(waiting.end)
    own.close()


# Sweeps inside of runs

GRID = [{"n": n} for n in range(4)]


def test_run_on_a_thread_pool_may_sweep_on_it(tmp_path, sqlite_url):
    """All threads of it are in runs that wait for their sweeps: those have no thread left, and run where they are."""
    runner = Sweeps(str(tmp_path), sqlite_url, "threads")
    with ThreadPoolExecutor(2) as threads:
        pool[:] = [threads]
        (ended,) = in_threads(lambda: runner.store().sweep(GRID, executor=threads, progress=False))

    assert len(ended) == 4
    assert runner.inner().count() == 12


def test_thread_that_a_run_starts_takes_what_its_sweep_has_not_begun(tmp_path, sqlite_url):
    class Beside(Base):
        __tablename__ = "beside"
        n: Mapped[int]

    calls = []

    def run(params):
        calls.append(params["n"])
        if params["n"] == 0:
            with ThreadPoolExecutor(3) as threads:
                list(threads.map(lambda n: store.run_or_retrieve({"n": n}), range(1, 4)))
        Path(params["result_file"]).write_text("x")

    store = Store(run, Beside, tmp_path / "beside", ".txt", sqlite_url)
    (ended,) = in_threads(lambda: store.sweep([{"n": n} for n in range(6)], progress=False))

    assert len(ended) == 6
    assert sorted(calls) == list(range(6))


# Circles


def test_run_that_needs_itself_is_a_circle(needing):
    needs = needing({1: (1,)})

    with pytest.raises(DependencyCycleError, match=r"node\(n=1\) → node\(n=1\)") as caught:
        needs.store().run_or_retrieve({"n": 1})

    assert isinstance(caught.value, RuntimeError)
    assert claims(needs) == 0


def test_circle_over_two_tables_shows_the_chain(needing):
    needs = needing({}, leaves={3: (2,)}, back={2: (3,)})

    with pytest.raises(DependencyCycleError, match=r"node\(n=3\) → leaf\(n=2\) → node\(n=3\)"):
        needs.store().run_or_retrieve({"n": 3})


def test_circle_in_a_sweep_fails_its_runs_and_no_others(needing):
    needs = needing({1: (2,), 2: (3,), 3: (1,)})

    result = needs.store().sweep([{"n": n} for n in range(6)], progress=False, on_error="continue")

    assert [record.n for record in result] == [0, 4, 5]
    assert {failed.error_type for failed in result.failed} == {"DependencyCycleError"}
    assert claims(needs) == 0


def test_circle_through_a_sweep_in_other_threads_is_an_error(tmp_path, sqlite_url):
    def node(params):
        with ThreadPoolExecutor(2) as executor:
            leaves.sweep([{"n": params["n"]}], executor=executor, progress=False)
        Path(params["result_file"]).write_text("1")

    def leaf(params):
        nodes.run_or_retrieve({"n": params["n"]})

    nodes = Store(node, Node, tmp_path / "nodes", ".txt", sqlite_url, wait_timeout_s=5.0)
    leaves = Store(leaf, Leaf, tmp_path / "leaves", ".txt", sqlite_url)

    with pytest.raises(DependencyCycleError, match="node"):
        nodes.run_or_retrieve({"n": 1})

    assert nodes.count() == leaves.count() == 0


def test_circle_that_two_threads_close_is_seen(tmp_path, sqlite_url):
    class Crossed(Base):
        __tablename__ = "crossed"
        n: Mapped[int]

    first, both = {0, 1}, threading.Barrier(2)

    def run(params):
        if params["n"] in first:
            first.discard(params["n"])
            both.wait(10)
        store.run_or_retrieve({"n": 1 - params["n"]})

    store = Store(run, Crossed, tmp_path / "crossed", ".txt", sqlite_url)
    ended = in_threads(*(lambda n=n: store.run_or_retrieve({"n": n}) for n in (0, 1)))

    # One sees it first; the other one's need has failed by then, and is a circle by itself when it is run again.
    assert {type(one) for one in ended} == {DependencyCycleError}
    assert all("run(n=0)" in str(one) and "run(n=1)" in str(one) for one in ended)


# Claims that nobody knows of


def test_own_claim_that_nobody_knows_of_is_taken_at_once(needing, monkeypatch):
    needs = needing({})
    store = needs.store()

    def fail(*given):
        if given[0]:
            raise RecursionError

    monkeypatch.setattr(store._table.claims, "release", fail)
    monkeypatch.setattr(store._table.endings, "fail", fail)
    monkeypatch.setattr(Needs, "__call__", lambda self, params: 1 / 0)
    with pytest.raises(RecursionError):
        store.run_or_retrieve({"n": 1})
    monkeypatch.undo()
    assert claims(needs) == 1

    assert store.run_or_retrieve({"n": 1}).n == 1
    assert claims(needs) == 0


def test_claim_of_another_call_in_this_process_is_known(needing):
    store = needing({}).store()
    identity = store._table.parameters.identify({"n": 1})

    with module.Tenure(store._table) as one, module.Tenure(store._table) as other:
        assert one.claim({identity.id: identity}).granted
        assert other.claim({identity.id: identity}) == ({}, {})


def test_nothing_is_held_any_more_when_all_has_ended(needing):
    needs = needing(GRAPH)
    sweep(needs, range(10))

    assert not {mark for mark in held._holds if mark[0] == needs.store()._table.marker.root}
    assert not held._inner
    assert not held._waits


# Deep ones


@pytest.mark.slow
def test_call_that_is_too_deep_says_how_to_go_on_and_leaves_no_claim(needing, caplog):
    needs = needing(chain(400))

    with pytest.raises(RecursionError) as caught:
        needs.store().run_or_retrieve({"n": 399})

    assert any("sweep the parameters from those that need no other run" in n for n in caught.value.__notes__)
    assert claims(needs) == 0
    assert "could not be released" not in caplog.text
    assert needs.store().run_or_retrieve({"n": 0}).n == 0
    sweep(needs, range(400))  # what a clean-up could not give back, either


@pytest.mark.slow
def test_sweep_tries_a_run_that_was_too_deep_again_after_all_others(needing):
    needs = needing(chain(300))

    assert sweep(needs, [299, *range(299)]) == [300, *range(1, 300)]
    assert claims(needs) == 0


@pytest.mark.slow
@pytest.mark.parametrize("where", ["serial", "threads", "workers"])
def test_chain_of_a_thousand_is_a_thousand_runs(needing, where):
    needs = needing(chain(1000))

    assert sweep_at(needs, range(1000), where) == list(range(1, 1001))
    assert needs.calls() == {f"node{n}": 1 for n in range(1000)}
    assert claims(needs) == 0


@pytest.mark.parametrize("where", ["serial", pytest.param("threads", marks=pytest.mark.slow)])
def test_run_of_a_long_chain_costs_as_much_as_one_of_a_short_chain(tmp_path, where):
    def cost(n):
        folder = tmp_path / str(n)
        folder.mkdir()
        needs = Needs(str(folder), f"sqlite:///{folder / 'entropic.sqlite3'}", chain(n))
        with opened() as files, statements(needs.store().database.engine) as seen:
            sweep_at(needs, range(n), where)
        return len(seen) / n, len(files) / n

    short, long = cost(25), cost(100)

    assert long[0] <= 1.3 * short[0]
    assert long[1] <= 1.3 * short[1]
