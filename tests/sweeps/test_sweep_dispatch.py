import os
import threading
import time
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from itertools import groupby

import pytest

from entropic.errors import ClusterError
from entropic.process.patience import Patience
from entropic.sweeps.backends import backend_for
from entropic.sweeps.backends.base import Backend
from entropic.sweeps.chunks import Reply
from entropic.sweeps.result import SweepOptions
from entropic.sweeps.window import MAX_CHUNK, dispatch
from tests.support.executors import executor_of
from tests.support.sweep_cases import Caller, Trace, crashed, double, expected, key, serially
from tests.support.waiting import wait_for


@pytest.fixture
def client(dask_client):
    return dask_client


def test_two_places_to_run_are_refused():
    with (
        pytest.raises(ValueError, match="workers= and executor= exclude each other"),
        executor_of("threads") as pool,
    ):
        SweepOptions(patience=Patience(), workers=2, executor=pool)


@pytest.mark.parametrize("workers", [0, -1, 1.5, True])
def test_impossible_number_of_workers_is_refused(workers):
    with pytest.raises(ValueError, match="workers must be an int of at least 1"):
        SweepOptions(patience=Patience(), workers=workers)


def test_backend_for_work_that_does_not_pickle_names_the_culprit():
    lock = threading.Lock()

    def work(jobs):
        with lock:
            return jobs

    with pytest.raises(ClusterError, match=r"lock \(a lock\).*open files, locks and database connections"):
        backend_for(work, workers=2)


def test_dispatch_serial_runs_in_order():
    caller = Caller(range(50))

    with serially(double) as backend:
        caller.run(backend)

    assert caller.outcomes == double(range(50))


@pytest.mark.parametrize("count", [20_000, pytest.param(100_000, marks=pytest.mark.slow)])
def test_dispatch_of_many_trivial_jobs_hands_them_over_in_large_batches(count):
    caller = Caller(range(count))

    with serially(double) as backend:
        caller.run(backend)

    assert len(caller.outcomes) == count
    assert max(caller.commits) <= 500
    assert len(caller.commits) < count / 50


def test_dispatch_serial_commits_slow_jobs_one_by_one(tmp_path):
    caller = Caller(range(4))

    with serially(Trace(tmp_path / "runs", seconds=0.06)) as backend:
        backend.target_s = 0.05
        caller.run(backend)

    assert caller.commits == [1, 1, 1, 1]


@pytest.mark.parametrize("kind", ["threads", "processes"])
def test_dispatch_on_an_executor_gives_every_outcome_and_leaves_it_open(kind):
    caller = Caller(range(300))

    with executor_of(kind) as pool:
        with backend_for(double, executor=pool) as backend:
            caller.run(backend)
        still_open = pool.submit(abs, -1).result()

    assert sorted(caller.outcomes) == expected(range(300))
    assert still_open == 1


def test_dispatch_on_processes_runs_a_closure_with_its_own_exceptions():
    class Mine(Exception):
        pass

    def work(jobs):
        return [(job, Mine(str(job))) for job in jobs]

    caller = Caller(range(40))

    with backend_for(work, workers=2) as backend:
        caller.run(backend)

    assert sorted(job for job, _ in caller.outcomes) == list(range(40))
    assert all(type(error) is Mine for _, error in caller.outcomes)


def test_dispatch_on_threads_needs_no_pickling():
    lock = threading.Lock()

    def work(jobs):
        with lock:
            return double(jobs)

    caller = Caller(range(20))

    with executor_of("threads") as pool, backend_for(work, executor=pool) as backend:
        caller.run(backend)

    assert sorted(caller.outcomes) == expected(range(20))


@pytest.mark.parametrize("count", [100, *(pytest.param(n, marks=pytest.mark.slow) for n in (500, 2000))])
def test_dispatch_on_dask_gives_every_outcome_and_holds_no_future(client, count):
    caller = Caller(range(count))

    with backend_for(lambda jobs: [(job, 2 * job) for job in jobs], client=client) as backend:
        caller.run(backend)

    assert sorted(caller.outcomes) == expected(range(count))
    wait_for(lambda: not client.futures)


def test_dispatch_on_dask_with_a_large_work_sends_it_once(client):
    table = os.urandom(300_000)

    def work(jobs):
        return [(job, table[job]) for job in jobs]

    caller = Caller(range(60))

    with backend_for(work, client=client) as backend:
        caller.run(backend)

    assert sorted(caller.outcomes) == [(job, table[job]) for job in range(60)]
    wait_for(lambda: not client.futures)


class Recorder(Backend):
    """Counts what is in flight; runs chunks in threads."""

    def __init__(self, work, slots):
        self.pool = ThreadPoolExecutor(slots)
        self.work = work
        self.count = slots
        self.sizes = []
        self.flying = self.most = 0
        self.lock = threading.Lock()

    def slots(self):
        return self.count

    def submit(self, jobs, *, alone=False):
        with self.lock:
            self.flying += 1
            self.most = max(self.most, self.flying)
        self.sizes.append(len(jobs))
        future = Future()
        self.pool.submit(self._run, future, jobs)
        return future

    def _run(self, future, jobs):
        started = time.perf_counter()
        outcomes = self.work(jobs)
        with self.lock:
            self.flying -= 1
        future.set_result(Reply(outcomes, time.perf_counter() - started))

    def stop(self, idle):
        return []

    def close(self):
        self.pool.shutdown()


class Timed(Backend):
    """Answers at once that each job took *each_s*."""

    def __init__(self, each_s, slots):
        self.each_s = each_s
        self.count = slots
        self.sizes = []

    def slots(self):
        return self.count

    def submit(self, jobs):
        self.sizes.append(len(jobs))
        future = Future()
        future.set_result(Reply(double(jobs), self.each_s * len(jobs)))
        return future

    def stop(self, idle):
        return []

    def close(self):
        pass


class Answering(Backend):
    """Answers a chunk at once, with whatever *answer* makes of it."""

    remote = False

    def __init__(self, answer):
        self.answer = answer

    def slots(self):
        return 1

    def submit(self, jobs):
        future = Future()
        future.set_result(Reply(self.answer(jobs), 0.1))
        return future

    def stop(self, idle):
        return []

    def close(self):
        pass


def test_dispatch_never_has_more_in_flight_than_two_chunks_per_slot():
    caller = Caller(range(3000))

    with Recorder(double, slots=3) as backend:
        caller.run(backend)

    assert len(caller.outcomes) == 3000
    assert backend.most <= 6


def test_dispatch_chunks_grow_to_the_target_and_shrink_at_the_tail():
    def work(jobs):
        time.sleep(0.001 * len(jobs))
        return double(jobs)

    caller = Caller(range(1500))

    with Recorder(work, slots=2) as backend:
        backend.target_s = 0.05
        caller.run(backend)

    assert backend.sizes[:4] == [1, 1, 1, 1]
    assert 20 <= max(backend.sizes) <= 60
    assert backend.sizes[-1] < 10


@pytest.mark.parametrize(
    ("each_s", "jobs", "slots", "sizes"),
    [
        (0.001, 1000, 1, [(1, 2), (4, 2), (16, 2), (64, 2), (256, 2), (159, 2)]),
        # Though a hundredth of what is left is less.
        (0.001, 3000, 50, [(1, 100), (4, 100), (16, 100), (50, 18)]),
        (0.1, 107, 4, [(1, 8), (4, 8), (9, 7), (4, 1)]),
        (3.0, 107, 4, [(1, 107)]),
    ],
    ids=["short", "short, many slots", "tenths", "long"],
)
def test_dispatch_chunks_grow_fast_and_are_no_smaller_than_what_a_task_is_worth(each_s, jobs, slots, sizes):
    assert [(size, len(list(same))) for size, same in groupby(sizes_of(each_s, jobs, slots=slots))] == sizes


def sizes_of(each_s, jobs, *, slots):
    """Return how many jobs each chunk had of so many that take *each_s*."""
    caller, backend = Caller(range(jobs)), Timed(each_s, slots)
    caller.run(backend)
    assert sorted(caller.outcomes) == expected(range(jobs))
    return backend.sizes


def test_dispatch_chunks_are_capped():
    caller = Caller(range(6000))

    with Recorder(double, slots=2) as backend:
        backend.target_s = 1e9
        caller.run(backend)

    assert max(backend.sizes) == MAX_CHUNK


@pytest.mark.parametrize(
    ("answer", "sure"),
    [
        (lambda jobs: double(jobs[:-1]), [0, 1, 2]),
        (lambda jobs: [], []),
        (lambda jobs: [*double(jobs), (jobs[1], 0)], [0, 2, 3]),
        (lambda jobs: [*double(jobs), (99, 0)], [0, 1, 2, 3]),
        (lambda jobs: [*double(jobs[:-1]), (99, 0)], [0, 1, 2]),
    ],
    ids=["one left out", "all left out", "one twice", "a foreign one", "a foreign one instead"],
)
def test_reply_without_exactly_one_outcome_for_each_job_is_an_error(answer, sure, monkeypatch):
    monkeypatch.setattr("entropic.sweeps.window._Pace.size", lambda pace: 4)
    caller, aborted = Caller(range(12)), []
    backend = Answering(lambda jobs: answer(jobs) if jobs[0] == 0 else double(jobs))

    with backend, pytest.raises(ClusterError, match="a chunk of 4 runs came back"):
        dispatch(
            caller.take, caller.finish, backend, key=key, crashed=crashed, abort=partial(aborted.append, 1)
        )

    assert sorted(job for job, _ in caller.outcomes) == sure
    assert aborted == [1]


def test_dispatch_while_others_hold_the_jobs_asks_again():
    asked = []

    def take(n, *, wait):
        asked.append(wait)
        if len(asked) < 4:
            return []
        return [len(asked)] if len(asked) < 6 else None

    outcomes = []

    with backend_for(double, workers=1) as backend:
        dispatch(take, outcomes.extend, backend, key=key, crashed=crashed)

    assert sorted(outcomes) == [(4, 8), (5, 10)]
    assert asked[:4] == [True] * 4


def test_dispatch_of_nothing_returns():
    caller = Caller([])

    with backend_for(double, workers=2) as backend:
        caller.run(backend)

    assert caller.commits == []
