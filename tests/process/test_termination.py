"""SIGTERM: what is held is given back, what is finished is kept, and the process ends by it all the same."""

import os
import signal
import subprocess
import threading
from pathlib import Path

import pytest

from entropic.disk import staging
from entropic.leases import claims
from entropic.process.termination import Terminated, terminable
from entropic.runs import attempts
from tests.support.stores import open_store
from tests.support.sweep_runs import Runs, Swept, query, rows, sets, start, states
from tests.support.sweep_runs import claims as claims_in
from tests.support.waiting import wait_for

SCRIPT = """
import os, signal, sys, time
from pathlib import Path
from tests.support.stores import open_store
from tests.support.sweep_runs import Runs, Swept, sets
from tests.support.waiting import wait_for

def during(runner):
    def wrapped(params):
        HOW
        return runner(params)
    return wrapped

def main():
    folder, where = Path(sys.argv[1]), sys.argv[2]
    runs = Runs(folder / "log", holds=(3,))
    BEFORE
    store = open_store(Swept, folder, during(runs) if where in {"single", "serial"} else runs)
    if where == "single":
        store.run_or_retrieve({"n": 0})
        store.run_or_retrieve({"n": 3})
    elif where == "serial":
        store.sweep(sets(6))
    elif where == "workers":
        store.sweep(sets(40), workers=2)
    else:
        from distributed import Client
        store.sweep(sets(40), Client(where))
    AFTER

if __name__ == "__main__":
    main()
"""

SWALLOWING = """
        try:
            if params["n"] == 3:
                Path(f"{runner.log}.waits").touch()
                wait_for(lambda: False)
        except BaseException:
            pass
""".strip()


@pytest.fixture
def script(tmp_path):
    """Writes a script and returns its path; each of *parts* is Python for one place of it."""

    def write(**parts):
        text = SCRIPT
        for name in ("HOW", "BEFORE", "AFTER"):
            text = text.replace(name, parts.get(name.lower(), "pass"))
        path = tmp_path / "script.py"
        path.write_text(text)
        return str(path)

    return write


@pytest.fixture
def runs(tmp_path):
    runs = Runs(tmp_path / "log", holds=(3,))
    yield runs
    runs.release()  # a Dask worker may still be at it


def started(request, *arguments):
    """Start a script whose process is killed at the end of the test, if it is still there."""
    process = start(*arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE)

    def end():
        process.kill()
        process.communicate()

    request.addfinalizer(end)
    return process


def ended(process):
    """Return what the process printed and its exit code."""
    out, error = process.communicate(timeout=60)
    return out, error, process.returncode


def alive(pids):
    return [pid for pid in pids if Path(f"/proc/{pid}").exists()]


# The process that runs


@pytest.mark.parametrize("where", ["single", "serial"])
def test_sigterm_gives_back_what_is_held_and_keeps_what_is_finished(tmp_path, script, runs, request, where):
    process = started(request, script(), tmp_path, where)
    wait_for(lambda: runs.count()[3] == 1)

    process.send_signal(signal.SIGTERM)
    result = ended(process)
    kept = sorted(runs.count("ended"))

    assert result == ("", "", -signal.SIGTERM)
    assert (claims_in(tmp_path), rows(tmp_path)) == (0, kept)
    assert states(tmp_path) == {"CANCELLED": 1} | ({"COMPLETED": len(kept)} if kept else {})
    assert runs.count() == dict.fromkeys([*kept, 3], 1)
    assert kept == [0] or where == "serial"


@pytest.mark.parametrize("where", ["workers", pytest.param("dask", marks=pytest.mark.slow)])
def test_sigterm_in_a_sweep_elsewhere_ends_its_workers_and_gives_back_what_is_held(
    tmp_path, script, runs, request, where
):
    address = where
    if where == "dask":
        address = request.getfixturevalue("dask_client").scheduler.address
    process = started(request, script(), tmp_path, address)
    wait_for(lambda: runs.count()[3] == 1 and rows(tmp_path))

    process.send_signal(signal.SIGTERM)
    if where == "dask":
        # A run that goes on in a Dask worker is waited for, as on Ctrl-C: nobody could tell when it has ended.
        runs.release()
    _, error, code = ended(process)
    wait_for(lambda: where == "dask" or not alive(runs.processes()))
    at_the_end = runs.count()
    finished = set(runs.count("ended"))
    committed = set(rows(tmp_path))

    assert code == -signal.SIGTERM
    assert "Traceback" not in error
    assert claims_in(tmp_path) == 0
    assert set() < committed <= finished
    assert set(states(tmp_path)) <= {"COMPLETED", "CANCELLED"}
    runs.release()
    result = open_store(Swept, tmp_path, runs).sweep(sets(40))
    assert len(result) == 40
    repeated = {n for n, count in runs.count().items() if count > 1}
    # What ended in a worker that was killed a moment later may have been safe by then, or not.
    assert set(at_the_end) - finished <= repeated <= set(at_the_end) - committed


@pytest.mark.slow
def test_second_sigterm_ends_the_process_at_once(tmp_path, script, runs, request):
    process = started(request, script(how=SWALLOWING), tmp_path, "single")
    wait_for(Path(f"{runs.log}.waits").exists)

    process.send_signal(signal.SIGTERM)
    wait_for(lambda: runs.count()[3] == 1)  # it runs on, and would for a minute
    process.send_signal(signal.SIGTERM)
    result = ended(process)

    assert result == ("", "", -signal.SIGTERM)
    assert runs.count("ended")[3] == 0
    assert claims_in(tmp_path) == 1
    runs.release()
    assert open_store(Swept, tmp_path, runs).run_or_retrieve({"n": 3}).n == 3


@pytest.mark.slow
def test_runner_that_swallows_the_exception_cannot_keep_the_process_alive(tmp_path, script, runs, request):
    process = started(request, script(how=SWALLOWING, after="print('went on')"), tmp_path, "single")
    wait_for(Path(f"{runs.log}.waits").exists)

    process.send_signal(signal.SIGTERM)
    runs.release()
    result = ended(process)

    assert result == ("", "", -signal.SIGTERM)
    assert (claims_in(tmp_path), rows(tmp_path)) == (0, [0, 3])


@pytest.mark.slow
def test_runner_that_swallows_the_exception_is_the_last_of_its_sweep(tmp_path, script, runs, request):
    process = started(request, script(how=SWALLOWING), tmp_path, "serial")
    wait_for(Path(f"{runs.log}.waits").exists)

    process.send_signal(signal.SIGTERM)
    runs.release()
    result = ended(process)

    assert result == ("", "", -signal.SIGTERM)
    assert runs.order()[-1] == 3
    assert (claims_in(tmp_path), rows(tmp_path)) == (0, sorted(runs.order()))


@pytest.mark.slow
def test_handler_of_the_programs_own_is_called_and_kept(tmp_path, script, runs, request):
    own = "handler = lambda *_: runs.release(); signal.signal(signal.SIGTERM, handler)"
    told = "print(signal.getsignal(signal.SIGTERM) is handler)"
    process = started(request, script(before=own, after=told), tmp_path, "serial")
    wait_for(lambda: runs.count()[3] == 1)

    process.send_signal(signal.SIGTERM)
    result = ended(process)

    assert result == ("True\n", "", 0)
    assert rows(tmp_path) == list(range(6))


FORKING = """
        if params["n"] == 3:
            import multiprocessing
            child = multiprocessing.get_context("fork").Process(target=CHILD)
            child.start()
            wait_for(lambda: not when or Path(f"{runner.log}.forked").exists())
            child.terminate()
            child.join()
            print(child.exitcode)
            runner.release()
""".strip()


@pytest.mark.parametrize("when", [pytest.param("at once", marks=pytest.mark.slow), "at work"])
def test_process_that_a_runner_forks_ends_by_sigterm_as_it_would_without_a_store(
    tmp_path, script, runs, request, when
):
    """As `multiprocessing` ends the processes of a pool; what they are at is none of the library's business."""
    is_awaited = f"when = {when == 'at work'}\n        "
    work = 'lambda: (Path(f"{runner.log}.forked").touch(), wait_for(lambda: False))'
    text = script(how=is_awaited + FORKING.replace("CHILD", work))
    process = started(request, text, tmp_path, "single")

    result = ended(process)

    assert result == ("-15\n", "", 0)
    assert rows(tmp_path) == [0, 3]


def test_forked_child_that_runs_gives_back_what_it_holds(tmp_path, script, runs, request):
    fork = """
        if params["n"] == 0:
            pid = os.fork()
            if pid == 0:
                open_store(Swept, folder, runs).run_or_retrieve({"n": 3})
                os._exit(0)
            Path(f"{runner.log}.pid").write_text(str(pid))
            print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
            sys.stdout.flush()
            os._exit(0)
    """.strip()
    before = """
    globals().update(folder=folder, runs=runs)
    import warnings
    warnings.filterwarnings("ignore", "This process", DeprecationWarning)  # of a fork beside a thread
    """.strip()
    process = started(request, script(how=fork, before=before), tmp_path, "single")
    wait_for(lambda: runs.count()[3] == 1 and Path(f"{runs.log}.pid").exists())

    os.kill(int(Path(f"{runs.log}.pid").read_text()), signal.SIGTERM)
    result = ended(process)

    assert result == ("-15\n", "", 0)
    assert query(tmp_path, "SELECT record_id FROM entropic_claims WHERE pid != " + str(process.pid)) == []
    assert states(tmp_path) == {"CANCELLED": 1}


# The handler


def test_handler_is_there_during_a_run_and_gone_after_it(tmp_path):
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    during = []

    def runner(params):
        during.append(signal.getsignal(signal.SIGTERM))
        Path(params["result_file"]).touch()
        if params["n"] == 1:
            raise ValueError("no")

    store = open_store(Swept, tmp_path, runner)
    store.run_or_retrieve({"n": 0})
    after_a_run = signal.getsignal(signal.SIGTERM)
    with pytest.raises(ValueError, match="no"):
        store.run_or_retrieve({"n": 1})
    after_a_failure = signal.getsignal(signal.SIGTERM)
    store.sweep([{"n": 2}])

    assert len(during) == 3
    assert all(callable(handler) for handler in during)
    assert after_a_run is after_a_failure is signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


def test_hit_installs_no_handler(tmp_path, monkeypatch):
    store = open_store(Swept, tmp_path, Runs(tmp_path / "log"))
    store.run_or_retrieve({"n": 0})
    installed = []
    monkeypatch.setattr(signal, "signal", lambda *arguments: installed.append(arguments))

    store.run_or_retrieve({"n": 0})
    store.sweep([{"n": 0}])

    assert installed == []


def test_run_in_another_thread_installs_no_handler(tmp_path):
    during = []

    def runner(params):
        during.append(signal.getsignal(signal.SIGTERM))
        Path(params["result_file"]).touch()

    store = open_store(Swept, tmp_path, runner)
    thread = threading.Thread(target=store.run_or_retrieve, args=({"n": 0},))
    thread.start()
    thread.join()

    assert during == [signal.SIG_DFL]
    assert rows(tmp_path) == [0]


def test_blocks_within_each_other_leave_the_outermost_in_charge():
    with terminable():
        outer = signal.getsignal(signal.SIGTERM)
        with terminable():
            assert signal.getsignal(signal.SIGTERM) is outer
        assert signal.getsignal(signal.SIGTERM) is outer

    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


def test_handler_that_the_runner_installs_is_left_in_place():
    def own(*_):
        pass

    try:
        with terminable():
            signal.signal(signal.SIGTERM, own)

        assert signal.getsignal(signal.SIGTERM) is own
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


# An interrupt between two steps of a run

STEPS = {
    "claim acquired": (claims.Claims, "acquire"),
    "slot taken": (staging.Staging, "take"),
    "file staged": (attempts, "stage"),
    "line written": (staging.Staging, "append"),
}


@pytest.mark.parametrize("interrupt", [KeyboardInterrupt, Terminated])
@pytest.mark.parametrize("step", STEPS)
def test_interrupt_right_after_a_step_of_a_run_gives_the_key_back(tmp_path, monkeypatch, step, interrupt):
    runs = Runs(tmp_path / "log")
    store = open_store(Swept, tmp_path, runs)
    owner, name = STEPS[step]
    function = getattr(owner, name)

    def interrupted(*args, **kwargs):
        function(*args, **kwargs)
        raise interrupt

    with monkeypatch.context() as patch:
        patch.setattr(owner, name, interrupted)
        with pytest.raises(interrupt):
            store.run_or_retrieve({"n": 0})

    assert (claims_in(tmp_path), rows(tmp_path)) == (0, [])
    assert store.run_or_retrieve({"n": 0}).n == 0
    assert query(tmp_path, "SELECT n FROM swept") == [(0,)]
    assert not store.check(checksum=True)
