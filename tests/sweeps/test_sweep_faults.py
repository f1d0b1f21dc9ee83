import contextlib
import multiprocessing.spawn
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
import warnings
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from functools import partial
from multiprocessing import active_children
from pathlib import Path

import pytest

from entropic.runs.jobs import WorkerDied
from entropic.sweeps.backends import backend_for
from entropic.sweeps.backends.base import Backend
from entropic.sweeps.window import BackendLost, dispatch
from tests.support.clusters import local_client
from tests.support.executors import executor_of
from tests.support.sweep_cases import Caller, Trace, crashed, double, expected, key, serially
from tests.support.waiting import wait_for

ROOT = Path(__file__).parents[2]


def needs_a_module(jobs):
    raise ModuleNotFoundError("No module named 'only_here'", name="only_here")


@pytest.fixture
def client(dask_client):
    return dask_client


def test_dispatch_on_processes_isolates_the_job_that_kills(tmp_path):
    jobs = [*range(60), -1, *range(60, 120)]
    caller = Caller(jobs)
    work = Trace(tmp_path / "runs")

    with backend_for(work, workers=2) as backend:
        caller.run(backend)

    assert sorted(o for o in caller.outcomes if o[0] != -1) == expected(range(120))
    assert [o for o in caller.outcomes if o[0] == -1] == [(-1, "crashed")]
    assert work.runs()[-1] <= 3


def test_dispatch_on_processes_goes_on_where_their_ends_are_ignored(tmp_path, caplog):
    """The system forgets such a process at once, and `multiprocessing` takes it for one that runs."""
    work = Trace(tmp_path / "runs")
    caller = Caller([-1, *range(5)])
    handler = signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    try:
        with backend_for(work, workers=1) as backend:
            caller.run(backend)
    finally:
        signal.signal(signal.SIGCHLD, handler)

    assert sorted(caller.outcomes, key=key) == [(-1, "crashed"), *expected(range(5))]
    assert "ended with an exit code that is not known" in caplog.text


@pytest.mark.slow
def test_dispatch_of_a_first_job_that_kills_runs_it_twice(tmp_path):
    caller = Caller([-1, 1, 2, 3])
    work = Trace(tmp_path / "runs", seconds=0.05)

    with backend_for(work, workers=2) as backend:
        caller.run(backend)

    assert sorted(caller.outcomes) == [(-1, "crashed"), (1, 2), (2, 4), (3, 6)]
    assert work.runs() == {-1: 2, 1: 1, 2: 1, 3: 1}


@pytest.mark.slow
def test_dispatch_on_a_broken_executor_goes_on_with_its_own_processes(tmp_path, caplog):
    caller = Caller([*range(10), -1, *range(10, 30)])
    work = Trace(tmp_path / "runs")

    with executor_of("processes") as pool, backend_for(work, executor=pool) as backend:
        caller.run(backend)

    assert sorted(o for o in caller.outcomes if o[0] != -1) == expected(range(30))
    assert [o for o in caller.outcomes if o[0] == -1] == [(-1, "crashed")]
    assert "pool is broken" in caplog.text


class NotingTrace(Trace):
    """Refuses a task that was begun and has not ended, as the work of a Store does."""

    def for_task(self, task):
        return partial(self.once, task)

    def once(self, task, jobs):
        note = Path(f"{self.path}-{task}")
        try:
            note.touch(exist_ok=False)
        except FileExistsError:
            raise WorkerDied("it was begun before") from None
        outcomes = self(jobs)
        note.unlink()  # what has ended may be asked for again: it may have been lost with its worker
        return outcomes

    def death(self, task):
        return None


@pytest.mark.slow
def test_dispatch_on_dask_isolates_the_job_that_kills(tmp_path):
    caller = Caller([*range(30), -1, *range(30, 60)])
    work = NotingTrace(tmp_path / "runs")

    with local_client() as client:
        with backend_for(work, client=client) as backend:
            caller.run(backend)
        wait_for(lambda: not client.futures)

    assert sorted(o for o in caller.outcomes if o[0] != -1) == expected(range(60))
    assert [o for o in caller.outcomes if o[0] == -1] == [(-1, "crashed")]
    assert 2 <= work.runs()[-1] <= 3


def test_dispatch_when_the_work_cannot_be_loaded_gives_all_jobs_back():
    caller = Caller(range(10))

    with backend_for(needs_a_module, workers=2) as backend, pytest.raises(BackendLost) as lost:
        caller.run(backend)

    assert isinstance(lost.value.cause, ModuleNotFoundError)
    assert sorted(lost.value.remaining) == list(range(caller.next))
    assert caller.outcomes == []


def test_dispatch_serial_lets_an_error_of_the_work_through():
    caller = Caller(range(10))

    with serially(needs_a_module) as backend, pytest.raises(ModuleNotFoundError):
        caller.run(backend)


def test_dispatch_when_processes_cannot_start_blames_no_job(monkeypatch):
    monkeypatch.setattr(multiprocessing.spawn, "_python_exe", "/bin/false")
    caller = Caller(range(10))

    with backend_for(double, workers=2) as backend, pytest.raises(BackendLost) as lost:
        caller.run(backend)

    assert sorted(lost.value.remaining) == list(range(caller.next))
    assert caller.outcomes == []


@pytest.mark.slow
def test_dispatch_sees_a_death_although_a_grandchild_lives(tmp_path):
    caller = Caller([1])

    def work(jobs):
        if os.fork() == 0:
            time.sleep(8)
            os._exit(0)
        os._exit(1)

    started = time.monotonic()
    with backend_for(work, workers=1) as backend:
        caller.run(backend)

    assert caller.outcomes == [(1, "crashed")]
    assert time.monotonic() - started < 16


def test_dispatch_on_a_shut_down_executor_is_lost():
    caller = Caller(range(10))
    with executor_of("threads") as pool:
        backend = backend_for(double, executor=pool)

    with backend, pytest.raises(BackendLost) as lost:
        caller.run(backend)

    assert sorted(lost.value.remaining) == list(range(caller.next))


@pytest.mark.slow
def test_dispatch_when_the_cluster_closes_gives_back_what_is_not_finished(tmp_path):
    caller = Caller(range(200))
    work = Trace(tmp_path / "runs", seconds=0.02)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Dask's, about the scheduler that was taken from it
        with local_client() as client, backend_for(work, client=client) as backend:
            closer = threading.Thread(
                target=lambda: (wait_for(lambda: caller.outcomes), client.cluster.close())
            )
            closer.start()
            backend.target_s = 0.1
            with pytest.raises(BackendLost) as lost:
                caller.run(backend)
            closer.join()

    done = [job for job, _ in caller.outcomes]
    assert 0 < len(done) < 200
    assert sorted(done + lost.value.remaining) == list(range(caller.next))


def test_dispatch_after_a_lost_backend_continues_serially():
    caller = Caller(range(30))
    with backend_for(needs_a_module, workers=2) as backend, pytest.raises(BackendLost) as lost:
        caller.run(backend)

    caller.jobs = lost.value.remaining + caller.jobs[caller.next :]
    caller.next = 0
    with serially(double) as backend:
        caller.run(backend)

    assert sorted(caller.outcomes) == expected(range(30))


class Cursed(Backend):
    """Every worker dies, then the backend as well."""

    def __init__(self, lives):
        self.lives = lives

    def slots(self):
        return 1

    def submit(self, jobs):
        if not self.lives:
            raise OSError("gone")
        self.lives -= 1
        future = Future()
        future.set_exception(WorkerDied("killed"))
        return future

    def stop(self, idle):
        return []

    def close(self):
        pass


def test_dispatch_lost_while_a_job_is_suspected_does_not_hand_it_back():
    caller = Caller([7])

    with Cursed(lives=1) as backend, pytest.raises(BackendLost) as lost:
        caller.run(backend)

    assert lost.value.remaining == []
    assert caller.outcomes == [(7, "crashed")]


class Breaking(Executor):
    """Does what it is given first, in a thread, and breaks while the second waits for its turn."""

    _max_workers = 2

    def __init__(self):
        self.futures = []

    def submit(self, function, *arguments):
        if len(self.futures) == 2:
            self.futures[1].set_exception(BrokenProcessPool("broken"))
            raise BrokenProcessPool("broken")
        self.futures.append(Future())
        if len(self.futures) == 1:
            with ThreadPoolExecutor(1) as thread:
                self.futures[0].set_result(thread.submit(function, *arguments).result())
        return self.futures[-1]


@pytest.mark.slow
def test_dispatch_on_an_executor_that_breaks_takes_no_job_for_lost_that_it_may_not_have_begun():
    caller = Caller(range(6))
    lost = []

    with backend_for(double, executor=Breaking()) as backend:
        caller.run(backend, died=lambda job, error: lost.append(job))

    assert sorted(caller.outcomes) == expected(range(6))
    assert lost == []


@pytest.mark.slow
def test_dispatch_without_workers_waits_for_them(caplog, monkeypatch):
    monkeypatch.setattr("entropic.sweeps.window._QUIET_S", 0.3)
    caller = Caller(range(40))

    with local_client(workers=0) as client, backend_for(double, client=client) as backend:

        def hire():
            wait_for(lambda: "No workers" in caplog.text)
            client.cluster.scale(1)

        thread = threading.Thread(target=hire)
        thread.start()
        caller.run(backend)
        thread.join()

    assert sorted(caller.outcomes) == expected(range(40))
    assert next(r.levelname for r in caplog.records if "No workers" in r.message) == "WARNING"


@pytest.mark.parametrize(
    "where",
    ["threads", "workers", *(pytest.param(place, marks=pytest.mark.slow) for place in ("processes", "dask"))],
)
def test_dispatch_when_finish_raises_runs_nothing_afterwards(where, tmp_path, request):
    work = Trace(tmp_path / "runs", seconds=0.05)
    caller = Caller(range(1000))

    def full(outcomes):
        raise OSError(28, "No space left on device")

    with contextlib.ExitStack() as stack:
        if where in ("threads", "processes"):
            options = {"executor": stack.enter_context(executor_of(where))}
        else:
            options = {"workers": 2} if where == "workers" else {"client": request.getfixturevalue("client")}
        backend = stack.enter_context(backend_for(work, **options))
        with pytest.raises(OSError, match="No space left"):
            dispatch(caller.take, full, backend, key=key, crashed=crashed)
        at_return = work.runs()
        time.sleep(0.3)

        assert work.runs() == at_return
        assert sum(at_return.values()) < 20
        if where == "dask":
            wait_for(lambda: not options["client"].futures)


def test_dispatch_when_take_raises_hands_over_what_is_finished(tmp_path):
    caller = Caller(range(8))

    def take(n, *, wait):
        if caller.next:
            raise RuntimeError("database is gone")
        return caller.take(n, wait=wait)

    aborted = []
    abort = partial(aborted.append, True)
    with (
        executor_of("threads") as pool,
        backend_for(double, executor=pool) as backend,
        pytest.raises(RuntimeError, match="database is gone"),
    ):
        dispatch(take, caller.finish, backend, key=key, crashed=crashed, abort=abort)

    assert sorted(caller.outcomes) == expected(range(caller.next))
    assert len(aborted) == 1


@pytest.mark.slow
def test_stop_of_a_dask_backend_does_not_wait_for_a_callback_that_an_interrupt_left_out(client):
    with backend_for(double, client=client) as backend:
        forgotten: Future = Future()
        backend._flying[forgotten] = client.submit(len, b"ab"), b""

        backend.stop(lambda: None)

        assert not backend._flying
        assert forgotten.done()


@pytest.mark.slow
def test_stop_of_a_dask_backend_does_not_wait_for_a_worker_that_cannot_be_reached(client, monkeypatch):
    """Ctrl-C in a terminal ends a `LocalCluster`'s workers, too, and Dask tries for half a minute to reach them."""
    reached = threading.Event()
    monkeypatch.setattr(client, "run", lambda *_, **__: reached.wait(30))
    monkeypatch.setattr("entropic.sweeps.backends.dask._TELL_S", 0.1)
    started = time.monotonic()

    with backend_for(double, client=client) as backend:
        flying: Future = Future()
        backend._flying[flying] = client.submit(len, b"abc"), b""
        backend.stop(lambda: None)
    waited_s = time.monotonic() - started
    reached.set()

    assert flying.done()
    assert waited_s < 20


def test_stop_of_an_executor_backend_does_not_wait_for_a_callback_that_an_interrupt_left_out():
    with executor_of("threads") as executor, backend_for(double, executor=executor) as backend:
        forgotten: Future = Future()
        backend._flying[forgotten] = executor.submit(len, b"ab"), ""

        backend.stop(lambda: None)

    assert forgotten.result(timeout=0) == 2


def test_dispatch_serial_when_interrupted_keeps_what_is_finished():
    def work(jobs):
        if jobs[0] == 25:
            raise KeyboardInterrupt
        return double(jobs)

    caller = Caller(range(50))

    with serially(work) as backend, pytest.raises(KeyboardInterrupt):
        caller.run(backend)

    assert caller.outcomes == double(range(25))


def test_dispatch_on_processes_when_interrupted_ends_the_children(tmp_path):
    work = Trace(tmp_path / "runs", seconds=60.0)
    caller = Caller(range(10))
    others = active_children()
    started = time.monotonic()

    def interrupt():
        wait_for(lambda: Path(work.path).exists() and len(work.runs()) == 2)
        os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=interrupt)
    thread.start()
    with backend_for(work, workers=2) as backend, pytest.raises(KeyboardInterrupt):
        caller.run(backend)
    thread.join()

    assert set(active_children()) <= set(others)
    assert time.monotonic() - started < 10


@pytest.mark.slow
def test_ctrl_c_cannot_reach_the_first_child_of_a_script_even_while_it_starts(tmp_path):
    """The first one starts Python's resource tracker, too, which unblocks signals; the tests' process has one."""
    script = tmp_path / "script.py"
    script.write_text(
        textwrap.dedent(
            """
            import signal
            from entropic.sweeps.backends import backend_for

            def is_blocked(jobs):
                return [signal.SIGINT in signal.pthread_sigmask(signal.SIG_BLOCK, [])]
            with backend_for(is_blocked, workers=1) as backend:
                print(backend.submit([0]).result().outcomes)
            """
        )
    )

    ran = subprocess.run(
        [sys.executable, str(script)],
        env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip

    assert (ran.stdout, ran.stderr) == ("[True]\n", "")


def test_script_without_a_main_guard_runs_once_with_workers(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(
        textwrap.dedent(
            """
            from entropic.sweeps.backends import backend_for
            from entropic.sweeps.window import dispatch

            print("started")
            class Failed(Exception): pass
            class Job:
                def __init__(self, n): self.n = n
            def work(jobs): return [(job.n, Failed()) for job in jobs]

            left = [Job(n) for n in range(20)]
            done = []
            def take(n, *, wait):
                taken, left[:n] = left[:n], []
                return taken or None
            def key(one): return one[0] if isinstance(one, tuple) else one.n
            with backend_for(work, workers=2) as backend:
                dispatch(take, done.extend, backend, key=key, crashed=print)
            print(sorted(n for n, _ in done) == list(range(20)), {type(e) is Failed for _, e in done})
            print(__file__.endswith("script.py"), __spec__)
            """
        )
    )

    ran = subprocess.run(
        [sys.executable, "-W", "error", str(script)],
        env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip

    assert ran.stderr == ""
    assert ran.stdout.splitlines() == ["started", "True {True}", "True None"]
