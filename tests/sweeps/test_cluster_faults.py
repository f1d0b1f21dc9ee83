"""A Dask cluster whose parts are killed, frozen and woken under a sweep: nothing is lost, nothing doubled."""

import contextlib
import hashlib
import logging
import os
import signal
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from entropic import ClusterError
from entropic.disk.roots import Marker, write_marker
from entropic.process.identity import this_process
from entropic.runs.attempts import Work
from entropic.runs.jobs import Job, WorkerDied
from entropic.sweeps.backends.task_notes import NotedWork
from tests.support.clusters import cluster, is_idle, local_client
from tests.support.memo_cases import memoized
from tests.support.process_states import is_alive
from tests.support.processes import outcomes_of, run_together
from tests.support.stores import open_store
from tests.support.sweep_runs import Runs, Swept, claims, files, query, rows, sets, start, states
from tests.support.waiting import wait_for

TTL = "10s"  # less, and a healthy worker on a busy machine would be taken for a frozen one


@dataclass(frozen=True)
class Halves(Runs):
    """Writes half of its file, in the first run of what it holds waits to be released, and writes the rest."""

    def __call__(self, params):
        n = params["n"]
        self._note("begun", n)
        first = self.count("begun")[n] == 1
        with open(params["result_file"], "w") as file:
            file.write(f"begun by {os.getpid()}\n")
            file.flush()
            if first and n in self.holds:
                wait_for(Path(f"{self.log}.go").exists, timeout_s=300)
            file.write(f"ended by {os.getpid()}\n")
        self._note("ended", n)


@dataclass(frozen=True)
class InTasks(Runs):
    """Notes the task of each run as well; the first time the eighth run of a task begins, its worker dies."""

    def __call__(self, params):
        self.note_task(params["n"])
        return super().__call__(params)

    def note_task(self, n):
        from distributed import get_worker

        task = get_worker().get_current_task()
        self._note(f"in {task}", n)
        if self.count(f"in {task}").total() == 8 and self._is_first(task):
            self._note("begun", n)
            os.kill(os.getpid(), signal.SIGKILL)

    def value(self, n):
        """Do as much, and return a value for the row."""
        self.note_task(n)
        self._note("begun", n)
        self._note("ended", n)
        return n / 2

    def _is_first(self, task):
        try:
            with open(f"{self.log}.died", "x") as file:
                file.write(task)
        except FileExistsError:
            return False
        return True

    def of_the_task_that_died(self):
        task = Path(f"{self.log}.died").read_text()
        return sorted(self.count(f"in {task}"))


@contextlib.contextmanager
def meanwhile(action):
    """Call *action* in a thread, and raise in the end what it raises."""
    with ThreadPoolExecutor(1) as executor:
        future = executor.submit(action)
        yield
        future.result()


def left_behind(folder):
    return sorted(path.name for path in (folder / "results" / ".entropic").iterdir())


def committed_digests(folder):
    return dict(query(folder, "SELECT name, sha256 FROM entropic_files"))


def digests(folder):
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in files(folder)}


def messages(caplog):
    return [f"{r.levelname} {r.message}" for r in caplog.records if r.name.startswith("entropic")]


# A worker dies


@pytest.mark.slow
def test_sweep_when_a_worker_is_killed_after_seven_runs_of_a_task_repeats_none_of_them(tmp_path, monkeypatch):
    monkeypatch.setattr("entropic.sweeps.window._Pace.size", lambda pace: 10)
    runs = InTasks(tmp_path / "log")
    store = open_store(Swept, tmp_path, runs)

    with local_client() as client:
        result = store.sweep(sets(40), client, fallback="raise")
        at_return = runs.count()
        wait_for(lambda: is_idle(client))
        wait_for(lambda: not client.futures)

    (killed,) = (n for n, count in at_return.items() if count > 1)
    assert [record.n for record in result] == rows(tmp_path) == list(range(40))
    assert len(runs.of_the_task_that_died()) == 8
    assert killed in runs.of_the_task_that_died()
    assert at_return == {**dict.fromkeys(range(40), 1), killed: 2}
    assert runs.count("ended") == dict.fromkeys(range(40), 1)
    assert runs.count() == at_return
    assert states(tmp_path) == {"COMPLETED": 40, "LOST": 1}
    assert (claims(tmp_path), left_behind(tmp_path)) == (0, [])


def halved(n: int, log: str = "") -> float:
    return InTasks(Path(log)).value(n)


@pytest.mark.slow
def test_sweep_when_a_worker_is_killed_after_seven_values_of_a_task_repeats_none_of_them(
    tmp_path, monkeypatch
):
    monkeypatch.setattr("entropic.sweeps.window._Pace.size", lambda pace: 10)
    runs = InTasks(tmp_path / "log")
    function = memoized(
        tmp_path, halved, f"sqlite:///{tmp_path / 'runs.sqlite3'}", table="halved", ignore=["log"]
    )

    with local_client() as client:
        params = [{"n": n, "log": str(tmp_path / "log")} for n in range(40)]
        result = function.sweep(params, client, fallback="raise")
        at_return = runs.count()
        wait_for(lambda: is_idle(client))

    (killed,) = (n for n, count in at_return.items() if count > 1)
    assert [record.load(verify=True) for record in result] == [n / 2 for n in range(40)]
    assert query(tmp_path, "SELECT count(*) FROM halved WHERE result_file IS NULL AND value = n / 2.0") == [
        (40,)
    ]
    assert killed in runs.of_the_task_that_died()
    assert at_return == {**dict.fromkeys(range(40), 1), killed: 2}
    assert runs.count("ended") == dict.fromkeys(range(40), 1)
    assert states(tmp_path) == {"COMPLETED": 40, "LOST": 1}
    assert claims(tmp_path) == 0
    assert not function.store.check(checksum=True)
    assert os.listdir(function.results_dir / ".entropic") == []


@pytest.mark.slow
def test_sweep_with_a_run_that_kills_its_worker_costs_two_workers(tmp_path, caplog):
    runs = Runs(tmp_path / "log", kills=(7,))
    store = open_store(Swept, tmp_path, runs)

    with cluster(tmp_path / "cluster", nanny=True) as dask:
        result = store.sweep(sets(30), dask.client, on_error="continue")
        lost = dask.lost_workers()

    others = [n for n in range(30) if n != 7]
    (failed,) = result.failed
    assert [record.n for record in result] == rows(tmp_path) == others
    assert (failed.params["n"], type(failed.exception)) == (7, ClusterError)
    assert "killed its worker twice" in failed.message
    assert (runs.count()[7], lost) == (2, 2)
    assert runs.count("ended") == dict.fromkeys(others, 1)
    assert os.getpid() not in runs.processes()
    assert (claims(tmp_path), left_behind(tmp_path)) == (0, [])
    told, given_up = (message for message in messages(caplog) if "worker" in message)
    assert told.startswith(
        "WARNING A worker was lost, and the run that it was at is tried once more: the Dask"
    )
    assert given_up.startswith(
        "WARNING A run has lost its second worker and is given up (its workers' logs tell why, often memory): the "
        "Dask worker tcp:"
    )


@pytest.mark.slow
def test_sweep_whose_workers_are_retired_in_the_middle_of_a_run_blames_no_run(tmp_path, caplog):
    """As when a cluster shrinks, or the time of a batch job is up."""
    runs = Halves(tmp_path / "log")
    store = open_store(Swept, tmp_path, AllHeld(runs.log))

    with cluster(tmp_path / "cluster", workers=4) as dask:

        def retire():
            for number in range(3):
                wait_for(lambda n=number: len(in_order(runs, 0)) == n + 1)
                dask.client.retire_workers([dask.address_of(in_order(runs, 0)[number])])
            wait_for(lambda: len(in_order(runs, 0)) == 4)
            runs.release()

        with meanwhile(retire):
            result = store.sweep(sets(1), dask.client, fallback="raise")

    assert len(result) == 1
    assert "lost" not in caplog.text


@dataclass(frozen=True)
class AllHeld(Runs):
    """Holds each run until the release."""

    def __call__(self, params):
        self._note("begun", params["n"])
        wait_for(Path(f"{self.log}.go").exists, timeout_s=300)
        Path(params["result_file"]).write_text("x")


@pytest.mark.slow
def test_sweep_on_workers_with_threads_fails_only_the_run_that_kills(tmp_path):
    """What runs beside it dies with it each time, and is not blamed."""
    runs = Runs(tmp_path / "log", seconds=0.02, kills=(7,))
    store = open_store(Swept, tmp_path, runs)

    with local_client(workers=2, threads=3) as client:
        result = store.sweep(sets(30), client, on_error="continue")
        wait_for(lambda: not client.futures)

    others = [n for n in range(30) if n != 7]
    assert [record.n for record in result] == rows(tmp_path) == others
    assert [failed.params["n"] for failed in result.failed] == [7]
    assert runs.count()[7] == 2
    assert os.getpid() not in runs.processes()
    assert (claims(tmp_path), left_behind(tmp_path)) == (0, [])


# The note of a task


@pytest.fixture
def work(tmp_path):
    root = tmp_path / "results"
    root.mkdir()
    write_marker(root, Marker("root", "database", "table"))
    runs = Runs(tmp_path / "log", kills=(3,))
    holder = {**this_process().as_dict(), "owner": "the client"}  # which lives, and is another process
    return Work(runs, str(root), Marker("root", "database", "table"), sweep="s1", holder=holder)


def jobs(count):
    return [Job(f"k{n}", f"k{n}.json", {"n": n, "x": 0.5}, {"n": n, "x": 0.5}) for n in range(count)]


def run_task(work, count):
    """Run in a process of its own."""
    return len(NotedWork(work).for_task("task")(jobs(count)))


def test_task_that_has_ended_may_run_again(work):
    """As when the worker dies that holds its answer."""
    first = NotedWork(work).for_task("task")(jobs(3))
    again = NotedWork(work).for_task("task")(jobs(3))

    assert [receipt.attempt for receipt in first] == [receipt.attempt for receipt in again]
    assert NotedWork(work).death("task") is None


def test_task_whose_process_was_killed_is_not_run_by_the_next(work):
    (outcome,) = outcomes_of(run_task, [(work, 6)])

    for _ in range(2):
        with pytest.raises(WorkerDied, match="ran out of memory, or could not be reached") as refused:
            NotedWork(work).for_task("task")(jobs(6))
        assert refused.value.at == 3
    assert outcome.exitcode == -signal.SIGKILL
    assert work.runner.count() == dict.fromkeys(range(4), 1)
    assert len(NotedWork(work).for_task("another task")(jobs(2))) == 2


def test_task_that_another_worker_has_taken_begins_no_further_run(work):
    def runner(params):
        work.runner(params)
        if params["n"] == 1:
            with pytest.raises(WorkerDied) as refused:
                NotedWork(work).for_task("task")(jobs(3))
            assert refused.value.at == 1

    with pytest.raises(WorkerDied, match="given to another Dask worker"):
        NotedWork(replace(work, runner=runner)).for_task("task")(jobs(3))

    assert work.runner.count() == {0: 1, 1: 1}
    assert NotedWork(work).death("task").at == 1


def test_task_whose_note_was_torn_names_no_run(work, tmp_path):
    note = tmp_path / "results" / ".entropic" / "tasks-s1" / "task"
    note.parent.mkdir(parents=True)
    note.touch()

    with pytest.raises(WorkerDied) as refused:
        NotedWork(work).for_task("task")(jobs(3))

    assert refused.value.at is None
    assert work.runner.count() == {}


def test_task_that_cannot_be_noted_runs_all_the_same(work, tmp_path, caplog):
    (tmp_path / "results" / ".entropic").mkdir()
    (tmp_path / "results" / ".entropic" / "tasks-s1").write_text("no folder")

    assert len(NotedWork(work).for_task("task")(jobs(3))) == 3
    assert "the task could not be noted" in caplog.text


def test_task_of_a_holder_that_died_begins_nothing(work):
    (pid,) = run_together(os.getpid, [()])
    dead = {**this_process().as_dict(), "owner": "another", "pid": pid}

    assert replace(work, holder=dead)(jobs(3)) == []
    assert work.runner.count() == {}


# A node freezes


@pytest.mark.slow
def test_worker_and_nanny_woken_after_the_run_was_repeated_elsewhere_change_nothing(tmp_path):
    runs = Halves(tmp_path / "log", holds=(0,))
    store = open_store(Swept, tmp_path, runs)

    with cluster(tmp_path / "cluster", nanny=True, worker_ttl=TTL) as dask:
        with meanwhile(lambda: freeze_the_holder(dask, runs)):
            result = store.sweep(sets(6), dask.client, fallback="raise")
        published = digests(tmp_path)
        (frozen, repeated) = in_order(runs, 0)
        wake(dask, runs, frozen)
        ended = runs.count("ended")
        store.recover()
        problems = store.check(checksum=True)

    assert [record.n for record in result] == rows(tmp_path) == list(range(6))
    assert ended[0] == 2  # the woken one wrote the rest of its file
    assert Path(result[0].result_file).read_text() == f"begun by {repeated}\nended by {repeated}\n"
    assert digests(tmp_path) == published == committed_digests(tmp_path)
    assert not problems
    assert (states(tmp_path)["COMPLETED"], claims(tmp_path), left_behind(tmp_path)) == (6, 0, [])


@pytest.mark.slow
def test_sweep_goes_on_without_a_frozen_node_which_begins_nothing_when_woken(tmp_path, monkeypatch):
    monkeypatch.setattr("entropic.sweeps.window._Pace.size", lambda pace: 5)
    runs = Halves(tmp_path / "log", holds=(12,))
    store = open_store(Swept, tmp_path, runs)

    with cluster(tmp_path / "cluster", worker_ttl=TTL) as dask:
        with meanwhile(lambda: freeze_the_holder(dask, runs)):
            result = store.sweep(sets(40), dask.client, fallback="raise")
        begun = runs.count()
        wake(dask, runs, in_order(runs, 12)[0])
        store.recover()
        problems = store.check(checksum=True)

    assert [record.n for record in result] == rows(tmp_path) == list(range(40))
    assert begun == {**dict.fromkeys(range(40), 1), 12: 2}
    assert runs.count() == begun
    assert digests(tmp_path) == committed_digests(tmp_path)
    assert not problems
    assert (states(tmp_path)["COMPLETED"], claims(tmp_path), left_behind(tmp_path)) == (40, 0, [])


def freeze_the_holder(dask, runs):
    """Stop the node that began what *runs* holds; return when another one has begun it."""
    (held,) = runs.holds
    wait_for(lambda: runs.count()[held] == 1)
    dask.worker_of(in_order(runs, held)[0]).stop()


def in_order(runs, n):
    """Return the processes that began *n*, the first one first."""
    return [pid for kind, k, pid in runs._lines() if (kind, k) == ("begun", n)]


def wake(dask, runs, pid):
    """Let a frozen run go on to its end, and its node after it; return when its process is gone."""
    (held,) = runs.holds
    worker = dask.worker_of(pid)
    runs.release()
    os.kill(pid, signal.SIGCONT)
    wait_for(lambda: runs.count("ended")[held] == 2)
    worker.resume()
    wait_for(lambda: not is_alive(pid))


# No workers


@pytest.mark.slow
def test_sweep_without_workers_for_a_minute_says_so_and_goes_on_when_they_come(tmp_path, caplog):
    caplog.set_level(logging.INFO, "entropic")
    runs = Runs(tmp_path / "log")
    store = open_store(Swept, tmp_path, runs)

    with cluster(tmp_path / "cluster", workers=0) as dask:

        def start_one_after_a_minute():
            wait_for(lambda: len(said(caplog)) == 2, timeout_s=120)
            dask.add_worker()

        with meanwhile(start_one_after_a_minute):
            result = store.sweep(sets(20), dask.client, fallback="raise")

    first, second, *_ = said(caplog)
    assert first.startswith("WARNING No workers for ")
    assert first.endswith("the sweep waits until some come (Ctrl-C stops it and keeps what is finished)")
    assert second.startswith("INFO No workers for ")
    assert int(second.split()[4]) >= 60
    assert len(result) == 20
    assert runs.count("ended") == dict.fromkeys(range(20), 1)
    assert os.getpid() not in runs.processes()


def said(caplog):
    return [message for message in messages(caplog) if "No workers" in message]


# The client dies, or freezes

SWEEP = """
import sys
from pathlib import Path
import entropic.sweeps.window
from distributed import Client
from tests.support.stores import open_store
from tests.support.sweep_runs import Runs, Swept, sets

entropic.sweeps.window._Pace.size = lambda pace: 50  # many short runs in each task

folder = Path(sys.argv[1])
with Client(sys.argv[2]) as client:
    store = open_store(Swept, folder, Runs(folder / "log", seconds=0.05))
    print(len(store.sweep(sets(400), client, fallback="raise")), "records")
"""


@pytest.fixture
def script(tmp_path):
    path = tmp_path / "script.py"
    path.write_text(SWEEP)
    return str(path)


@pytest.mark.slow
def test_client_killed_leaves_no_task_at_work_and_the_next_sweep_does_the_rest(tmp_path, script):
    runs = Runs(tmp_path / "log")

    with cluster(tmp_path / "cluster") as dask:
        process = start(script, tmp_path, dask.address)
        wait_for(lambda: runs.total("ended") >= 20)
        process.kill()
        process.wait()
        at_death = runs.total()
        wait_for(lambda: is_idle(dask.client))
        begun, ended = runs.count(), runs.count("ended")

        result = open_store(Swept, tmp_path, runs).sweep(sets(400), dask.client, fallback="raise")

    assert begun.total() <= at_death + 20  # each of the two tasks had 50 runs
    assert 20 <= len(ended) < 400
    assert [record.n for record in result] == rows(tmp_path) == list(range(400))
    assert runs.count() == dict.fromkeys(range(400), 1)
    assert (states(tmp_path)["COMPLETED"], claims(tmp_path)) == (400, 0)


@pytest.mark.slow
def test_client_frozen_and_woken_within_its_lease_goes_on(tmp_path, script):
    runs = Runs(tmp_path / "log")

    with cluster(tmp_path / "cluster") as dask:
        process = start(script, tmp_path, dask.address)
        wait_for(lambda: runs.total("ended") >= 20)
        process.send_signal(signal.SIGSTOP)
        wait_for(lambda: not any(dask.client.processing().values()))
        done = runs.total("ended")
        process.send_signal(signal.SIGCONT)
        code = process.wait(120)

    assert done < 400
    assert code == 0
    assert rows(tmp_path) == list(range(400))
    assert runs.count() == dict.fromkeys(range(400), 1)
    assert (states(tmp_path), claims(tmp_path), left_behind(tmp_path)) == ({"COMPLETED": 400}, 0, [])
