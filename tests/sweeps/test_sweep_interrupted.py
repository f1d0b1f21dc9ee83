"""Sweeps whose process, workers or cluster are killed, interrupted or blind: nothing is lost, nothing doubled."""

import asyncio
import contextlib
import io
import logging
import os
import pty
import signal
import subprocess
import sys
import termios
import threading
import time
import warnings
from dataclasses import dataclass
from pathlib import Path

import pytest

from entropic import ClusterError, ResultsDirUnavailableError
from entropic.leases import held
from entropic.runs.attempts import Work
from entropic.sweeps import sweep
from entropic.sweeps.backends.base import SerialBackend
from tests.support.clusters import local_client
from tests.support.executors import executor_of
from tests.support.stores import open_store
from tests.support.sweep_runs import ROOT, Runs, Swept, claims, files, place, query, rows, sets, start, states
from tests.support.waiting import wait_for

SWEEP = """
import sys
from pathlib import Path
from tests.support.stores import open_store
from tests.support.sweep_runs import Runs, Swept, sets

if __name__ == "__main__":
    folder, where, count, seconds = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), float(sys.argv[4])
    options = {}
    if where == "workers":
        options["workers"] = 2
    elif where.startswith("tcp:"):
        from distributed import Client
        options["client"] = Client(where)
    holds_after = int(sys.argv[5]) if sys.argv[5:] else None
    store = open_store(Swept, folder, Runs(folder / "log", seconds=seconds, holds_after=holds_after))
    result = store.sweep(sets(count), **options)
    print(len(result), "records")
"""


@pytest.fixture
def script(tmp_path):
    path = tmp_path / "script.py"
    path.write_text(SWEEP)
    return str(path)


def address_of(where, request):
    return request.getfixturevalue("dask_client").scheduler.address if where == "dask" else where


def kill(process):
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def alive(pids):
    return [pid for pid in pids if Path(f"/proc/{pid}").exists()]


# The sweeping process


def test_sweep_killed_in_the_middle_keeps_what_had_finished(tmp_path, script):
    runs = Runs(tmp_path / "log")
    process = start(script, tmp_path, "serial", 10, 0.0, 6)
    wait_for(lambda: runs.total() == 7)
    kill(process)
    finished = sorted(runs.count("ended"))
    (held,) = runs.count() - runs.count("ended")
    committed = rows(tmp_path)

    store = open_store(Swept, tmp_path, runs)
    after_opening = rows(tmp_path)
    store.sweep(sets(10))

    assert len(finished) == 6
    assert committed
    assert after_opening == finished
    assert runs.count() == {**dict.fromkeys(range(10), 1), held: 2}
    assert (claims(tmp_path), len(files(tmp_path))) == (0, 10)
    assert not store.check(checksum=True)


@pytest.mark.slow
def test_sweep_with_workers_killed_in_the_middle_keeps_what_had_finished(tmp_path, script):
    runs = Runs(tmp_path / "log")
    process = start(script, tmp_path, "workers", 40, 0.05)
    wait_for(lambda: runs.total("ended") >= 8)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    wait_for(lambda: not alive(runs.processes()))
    begun, finished = runs.count(), sorted(runs.count("ended"))

    open_store(Swept, tmp_path, runs).sweep(sets(40))

    assert 8 <= len(finished) < 40
    again = {n: count - begun[n] for n, count in runs.count().items()}
    assert again == {n: 0 if n in finished else 1 for n in range(40)}
    assert rows(tmp_path) == list(range(40))


@pytest.mark.parametrize(
    "where", ["workers", *(pytest.param(place, marks=pytest.mark.slow) for place in ("serial", "dask"))]
)
@pytest.mark.parametrize(
    "to_all", [pytest.param(False, marks=pytest.mark.slow), True], ids=["process", "terminal"]
)
def test_sweep_on_ctrl_c_keeps_what_is_finished_and_stops(tmp_path, script, where, to_all, request):
    runs = Runs(tmp_path / "log")
    process = start(script, tmp_path, address_of(where, request), 200, 0.05, stderr=subprocess.PIPE)
    wait_for(lambda: runs.total("ended") >= 12)
    (os.killpg if to_all else os.kill)(process.pid, signal.SIGINT)
    _, error = process.communicate(timeout=30)
    begun, ended, kept, held = runs.count(), runs.count("ended"), rows(tmp_path), claims(tmp_path)
    time.sleep(0.3)
    quiet = runs.count() == begun
    open_store(Swept, tmp_path, runs).sweep(sets(len(kept) + 5))

    assert error.rstrip().endswith("KeyboardInterrupt")
    assert process.returncode in {-signal.SIGINT, 1}
    assert set(kept) <= set(ended)
    assert 12 - 2 <= len(kept) < 100
    assert len(ended) - len(kept) <= 2  # one in each worker may have been killed before its file was safe
    assert held == 0
    assert quiet
    again = {n: count - begun[n] for n, count in runs.count().items() if count != begun[n]}
    assert again == {n: 1 for n in range(len(kept) + 5) if n not in kept}
    assert set(states(tmp_path)) <= {"COMPLETED", "CANCELLED"}


def test_run_that_had_ended_before_an_interrupt_is_kept_whatever_was_not_begun_after_it(
    tmp_path, monkeypatch
):
    begin, begun = held.begin, []

    def begin_all_but(mark, name):
        begun.append(mark)
        if len(begun) == 3:  # of the second chunk the second one
            monkeypatch.setattr(held, "begin", begin)
            monkeypatch.setattr(sweep, "raise_if_terminated", interrupt)
            return False
        return begin(mark, name)

    def interrupt():
        raise KeyboardInterrupt

    runs = Runs(tmp_path / "log")
    store = open_store(Swept, tmp_path, runs)
    monkeypatch.setattr(SerialBackend, "target_s", 1e9)
    monkeypatch.setattr(held, "begin", begin_all_but)

    with pytest.raises(KeyboardInterrupt):
        store.sweep(sets(10), progress=False)

    monkeypatch.undo()
    assert runs.total() == 2
    assert rows(tmp_path) == [0, 1]
    assert states(tmp_path) == {"COMPLETED": 2}
    assert claims(tmp_path) == 0


@dataclass(frozen=True)
class Cancelled:
    """Is cancelled at one run, as what waits for a task of asyncio's."""

    runs: Runs
    at: int

    def __call__(self, params):
        if params["n"] == self.at:
            raise asyncio.CancelledError("not my fault")
        return self.runs(params)


@pytest.mark.parametrize(
    "where",
    [
        "serial",
        "threads",
        "workers",
        *(pytest.param(p, marks=pytest.mark.slow) for p in ("processes", "dask")),
    ],
)
def test_what_a_runner_raises_that_is_no_error_ends_the_sweep_anywhere(tmp_path, where, request):
    runs = Runs(tmp_path / "log")
    store = open_store(Swept, tmp_path, Cancelled(runs, at=30))

    with place(where, request) as arguments, pytest.raises(asyncio.CancelledError, match="not my fault"):
        store.sweep(sets(60), progress=False, **arguments)

    there, begun = rows(tmp_path), runs.count()
    assert len(there) > 20
    assert 30 not in begun
    # Workers of our own are killed at what they are at by then.
    assert len(set(begun) - set(there)) <= (2 if where == "workers" else 0)
    assert states(tmp_path) == {"COMPLETED": len(there), "CANCELLED": 1}
    assert claims(tmp_path) == 0

    result = open_store(Swept, tmp_path, runs).sweep(sets(60), progress=False)

    assert len(result) == 60
    assert {n for n, times in runs.count().items() if times > 1} == set(begun) - set(there)


def test_trouble_around_a_run_in_a_thread_repeats_none_that_had_ended(tmp_path, monkeypatch, caplog):
    attempt, failed = Work._attempt, []

    def attempt_once_in_vain(work, job, place, outcomes):
        if job.params["n"] == 30 and not failed:
            failed.append(job)
            raise OSError(28, "No space left on device")
        return attempt(work, job, place, outcomes)

    monkeypatch.setattr(Work, "_attempt", attempt_once_in_vain)
    runs = Runs(tmp_path / "log")

    with executor_of("threads") as executor:
        result = open_store(Swept, tmp_path, runs).sweep(sets(60), executor=executor)

    assert len(result) == 60
    assert runs.count() == dict.fromkeys(range(60), 1)
    assert (states(tmp_path), claims(tmp_path)) == ({"COMPLETED": 60}, 0)
    assert "what is left runs in this process: OSError: [Errno 28]" in caplog.text


@pytest.mark.slow
def test_sweep_on_ctrl_c_leaves_only_its_own_folder(tmp_path, script):
    runs = Runs(tmp_path / "log")
    process = start(script, tmp_path, "workers", 200, 0.05, stderr=subprocess.DEVNULL)
    wait_for(lambda: runs.total("ended") >= 6)
    process.send_signal(signal.SIGINT)
    process.wait(30)

    open_store(Swept, tmp_path, runs).sweep(sets(1))

    left = os.listdir(tmp_path / "results" / ".entropic")
    assert all("-" not in name for name in left), left
    assert not alive(runs.processes() - {os.getpid()})


# Its workers


@pytest.mark.parametrize(
    "where", ["workers", *(pytest.param(place, marks=pytest.mark.slow) for place in ("processes", "dask"))]
)
def test_sweep_when_a_worker_is_killed_completes_and_repeats_nothing_finished(tmp_path, where):
    runs = Runs(tmp_path / "log", seconds=0.01, kills_once=(20,))
    store = open_store(Swept, tmp_path, runs)

    with one_of(where) as arguments:
        result = store.sweep(sets(40), fallback="raise", **arguments)

    assert [record.n for record in result] == list(range(40))
    assert runs.count()[20] == 2
    assert set(runs.count("ended")) == set(range(40))
    assert runs.total("ended") <= 40 + others_killed(where)
    assert os.getpid() not in runs.processes()


@pytest.mark.parametrize(
    "where", ["workers", *(pytest.param(place, marks=pytest.mark.slow) for place in ("processes", "dask"))]
)
def test_sweep_with_a_run_that_kills_its_worker_fails_that_run_only(tmp_path, where):
    runs = Runs(tmp_path / "log", kills=(7,))
    store = open_store(Swept, tmp_path, runs)

    with one_of(where) as arguments:
        result = store.sweep(sets(30), on_error="continue", **arguments)

    assert [record.n for record in result] == [n for n in range(30) if n != 7]
    assert [(failed.params["n"], type(failed.exception)) for failed in result.failed] == [(7, ClusterError)]
    assert "killed its worker twice" in str(result.failed[0].exception)
    assert os.getpid() not in runs.processes(7)
    assert 2 <= runs.count()[7] <= 3  # what is put together with others in one task is not blamed at first
    assert set(runs.count("ended")) == {n for n in range(30) if n != 7}
    assert runs.total("ended") <= 29 + others_killed(where)
    assert [failed.error_type for failed in store.failures()] == ["ClusterError"]
    lost = states(tmp_path).pop("LOST", 0)
    assert states(tmp_path) == {"COMPLETED": 29, "FAILED": 1} | ({"LOST": lost} if lost else {})
    assert lost == 1 or (where == "processes" and lost == 0)  # a broken executor does not tell who broke it
    if where == "workers":
        codes = query(tmp_path, "SELECT state, exit_code FROM entropic_attempts WHERE state != 'COMPLETED'")
        assert sorted(codes) == [("FAILED", -9), ("LOST", -9)]
    assert claims(tmp_path) == 0


def others_killed(where):
    """Return how many runs may be killed after their last line, before their file is safe, with one that dies."""
    return 1 if where == "processes" else 0  # a ProcessPoolExecutor of two ends its other process as well


@contextlib.contextmanager
def one_of(where):
    """Yield a place whose workers may be killed: never the session's cluster."""
    if where == "dask":
        with local_client() as client:
            yield {"client": client}
            wait_for(lambda: not client.futures)
    elif where == "processes":
        with executor_of("processes") as executor:
            yield {"executor": executor}
    else:
        yield {"workers": 2}


@pytest.mark.slow
def test_sweep_when_a_killing_run_is_alone_raises_a_cluster_error(tmp_path):
    store = open_store(Swept, tmp_path, Runs(tmp_path / "log", kills=(0,)))

    with pytest.raises(ClusterError, match="killed its worker twice"):
        store.sweep(sets(1), workers=1)

    assert Runs(tmp_path / "log").count() == {0: 2}
    ((begun_at, ended_at),) = query(
        tmp_path, "SELECT started_at, ended_at FROM entropic_attempts WHERE state = 'FAILED'"
    )
    assert begun_at == ended_at  # when it was given up: how long it had run nobody knows


# Its cluster


@pytest.mark.slow
def test_sweep_when_the_cluster_is_closed_runs_the_rest_here(tmp_path, caplog):
    runs = Runs(tmp_path / "log", seconds=0.02)
    store = open_store(Swept, tmp_path, runs)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Dask's, about the scheduler that was taken from it
        with local_client() as client:
            closer = threading.Thread(
                target=lambda: (wait_for(lambda: rows(tmp_path)), client.cluster.close())
            )
            closer.start()
            result = store.sweep(sets(150), client)
            closer.join()

    here = {n for n in range(150) if os.getpid() in runs.processes(n)}
    assert [record.n for record in result] == list(range(150))
    assert 0 < len(here) < 150
    assert runs.count("ended") == dict.fromkeys(range(150), 1)
    assert (len(files(tmp_path)), claims(tmp_path), states(tmp_path)["COMPLETED"]) == (150, 0, 150)
    assert any("what is left runs in this process" in r.message for r in caplog.records)


SCHEDULER = "import sys; from distributed.cli.dask_scheduler import main; main()"


@pytest.mark.slow
def test_sweep_when_the_scheduler_is_killed_runs_nothing_twice(tmp_path, caplog):
    """Workers that outlive their scheduler must not go on with a chunk that this process runs too."""
    from distributed import Client

    runs = Runs(tmp_path / "log", seconds=0.05)
    store = open_store(Swept, tmp_path, runs)
    with contextlib.ExitStack() as stack, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        address = tmp_path / "scheduler.json"
        scheduler = started(stack, "scheduler", "--scheduler-file", address, "--no-dashboard", "--port", 0)
        started(
            stack, "worker", "--scheduler-file", address, "--nworkers", 2, "--nthreads", 1, "--no-dashboard"
        )
        client = stack.enter_context(Client(scheduler_file=str(address), timeout=60))
        killer = threading.Thread(
            target=lambda: (wait_for(lambda: runs.total("ended") > 40), kill(scheduler))
        )
        killer.start()
        result = store.sweep(sets(150), client)
        killer.join()
        after = runs.count()
        time.sleep(1.0)

    assert len(result) == 150
    assert runs.count() == after
    assert runs.total("ended") <= 150 + 2  # the one that each worker was at
    assert states(tmp_path)["COMPLETED"] == 150


def started(stack, *command):
    process = subprocess.Popen(
        [sys.executable, "-m", "dask", *map(str, command)],
        env={**os.environ, "PYTHONPATH": str(ROOT)}, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        start_new_session=True,
    )  # fmt: skip
    stack.callback(kill_if_alive, process)
    return process


def kill_if_alive(process):
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


@pytest.mark.slow
def test_sweep_without_workers_waits_for_them(tmp_path, caplog):
    runs = Runs(tmp_path / "log")
    store = open_store(Swept, tmp_path, runs)

    with local_client(workers=0) as client:
        scaler = threading.Timer(1.0, client.cluster.scale, [1])
        scaler.start()
        result = store.sweep(sets(20), client)
        scaler.join()
        wait_for(lambda: not client.futures)

    assert len(result) == 20
    assert os.getpid() not in runs.processes()
    assert "cluster failed" not in caplog.text


@pytest.fixture
def blind_client():
    with local_client(workers=1) as client:
        yield client


@pytest.mark.parametrize("there", ["nothing", pytest.param("another results folder", marks=pytest.mark.slow)])
def test_sweep_when_workers_do_not_see_the_folder_says_so(tmp_path, blind_client, there, caplog, monkeypatch):
    """The folder's path leads through the working directory, which is another one for the worker."""
    (tmp_path / "here").mkdir()
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    if there == "another results folder":
        open_store(Swept, elsewhere, Runs(tmp_path / "log"))
    monkeypatch.chdir(tmp_path / "here")
    blind_client.run(os.chdir, str(elsewhere))
    runs = Runs(tmp_path / "log")
    url = f"sqlite:///{tmp_path / 'here' / 'runs.sqlite3'}"
    store = open_store(Swept, Path("/proc/self/cwd"), runs, url)

    with pytest.raises(ResultsDirUnavailableError, match="Workers must share the results folder"):
        store.sweep(sets(5), blind_client, fallback="raise")
    ran_before = runs.total()
    result = store.sweep(sets(5), blind_client)

    assert ran_before == 0
    assert len(result) == 5
    assert runs.processes() == {os.getpid()}
    (warning,) = [r for r in caplog.records if "runs in this process" in r.message]
    assert warning.levelno == logging.WARNING
    assert "does not see the results folder '/proc/self/cwd/results'" in warning.message
    assert files(elsewhere) == [] if there != "nothing" else os.listdir(elsewhere) == []


# Scripts


MAIN = """
import os, sys
from pathlib import Path
from entropic import Base, Mapped, Store, output

print("started")

class Sim(Base):
    __tablename__ = "sims"
    n: Mapped[int]
    square: Mapped[float | None] = output()

class Mine(Exception):
    pass

def simulate(params):
    if params["n"] == 3:
        raise Mine(os.getpid())
    Path(params["result_file"]).write_text(str(params["n"]))
    return {"square": params["n"] ** 2.0}

OPTIONS

store = Store(simulate, Sim, "results", ".txt")
result = store.sweep(({"n": n} for n in range(8)), on_error="continue", fallback="raise", **options)
print([int(r.square) for r in result])
print([type(f.exception) is Mine and f.exception.args[0] != os.getpid() for f in result.failed])
"""


@pytest.mark.parametrize("where", ["workers", pytest.param("dask", marks=pytest.mark.slow)])
def test_script_with_its_model_in_main_sweeps_without_a_guard(tmp_path, where, request):
    options = "options = {'workers': 2}"
    if where == "dask":
        options = (
            f"from distributed import Client; options = {{'client': Client({address_of(where, request)!r})}}"
        )
    path = tmp_path / "script.py"
    path.write_text(MAIN.replace("OPTIONS", options))

    process = start(str(path), cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    out, error = process.communicate(timeout=60)

    assert error == ""
    assert out.splitlines() == ["started", "[0, 1, 4, 16, 25, 36, 49]", "[True]"]


# Progress


def shown_in_a_terminal(script, *arguments):
    ours, theirs = pty.openpty()
    termios.tcsetwinsize(theirs, (40, 120))
    process = start(script, *arguments, stdout=subprocess.DEVNULL, stderr=theirs)
    os.close(theirs)
    text = b""
    with contextlib.suppress(OSError):  # the terminal hangs up when the process has ended
        while data := os.read(ours, 65536):
            text += data
    os.close(ours)
    assert process.wait() == 0
    return text.decode()


def test_sweep_in_a_terminal_shows_a_bar(tmp_path, script):
    open_store(Swept, tmp_path, Runs(tmp_path / "log")).sweep(sets(5))

    shown = shown_in_a_terminal(script, tmp_path, "serial", 20, 0.01)

    last = shown.replace("\r", "\n").strip().splitlines()[-1]
    assert "20/20" in last
    assert "15 done, 5 cached" in last


@pytest.mark.slow
def test_sweep_in_a_terminal_told_to_be_quiet_shows_nothing(tmp_path):
    path = tmp_path / "script.py"
    path.write_text(SWEEP.replace("sets(count),", "sets(count), progress=False,"))

    assert shown_in_a_terminal(str(path), tmp_path, "serial", 20, 0.01) == ""


def test_sweep_without_a_terminal_shows_nothing(tmp_path, script):
    process = start(script, tmp_path, "serial", 20, 0.0, stdout=subprocess.PIPE, stderr=subprocess.PIPE)

    assert process.communicate(timeout=60) == ("20 records\n", "")


def test_sweep_told_to_show_progress_shows_it_anywhere(tmp_path, capsys):
    open_store(Swept, tmp_path, Runs(tmp_path / "log", raises=(1,))).sweep(
        sets(6), progress=True, on_error="continue"
    )

    assert "6/6" in (shown := capsys.readouterr().err)
    assert "5 done, 1 failed" in shown


def test_sweep_shows_what_others_run_and_counts_what_they_have_finished(tmp_path, monkeypatch):
    runs, shown = Runs(tmp_path / "log", holds=(0,)), io.StringIO()
    store = open_store(Swept, tmp_path, runs)
    monkeypatch.setattr(sys, "stderr", shown)

    def release():
        try:
            wait_for(lambda: "2 done, 1 waiting" in shown.getvalue(), 10.0)
        finally:
            runs.release()

    other = threading.Thread(target=store.run_or_retrieve, args=({"n": 0},))
    other.start()
    wait_for(lambda: runs.total() == 1)
    releasing = threading.Thread(target=release)
    releasing.start()
    store.sweep(sets(3), progress=True)
    other.join()
    releasing.join()

    assert "2 done, 1 waiting" in shown.getvalue()
    assert "2 done, 1 cached" in shown.getvalue()
