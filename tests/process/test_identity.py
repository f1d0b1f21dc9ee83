"""Whether a process is there: dead only where that is sure, whatever `/proc` shows and to whom."""

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from entropic.process import identity
from entropic.process.identity import Process, this_process

ROOT = Path(__file__).parents[2]
PAUSE = [sys.executable, "-S", "-c", "import sys; sys.stdin.read()"]


@pytest.fixture
def child():
    """A process that lives until its standard input ends."""
    process = subprocess.Popen(PAUSE, stdin=subprocess.PIPE)
    yield process
    process.stdin.close()
    process.wait(20)


def process_of(pid: int, started: str | None = None) -> Process:
    """Another process of this host as it would call itself."""
    seen = identity._started(pid) or ""
    return replace(this_process(), owner="another", pid=pid, started=seen if started is None else started)


def test_process_that_lives_is_alive(child):
    assert process_of(child.pid).is_alive() is True
    assert this_process().is_alive() is True


def test_process_that_has_ended_is_dead():
    ended = subprocess.Popen(PAUSE, stdin=subprocess.DEVNULL)
    process = process_of(ended.pid)
    ended.wait(20)

    assert process.is_alive() is False
    assert process.is_dead()


def test_process_that_nobody_has_waited_for_yet_is_dead():
    pid = os.fork()
    if pid == 0:
        os._exit(0)
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    is_alive = process_of(pid, "1").is_alive()
    os.waitpid(pid, 0)

    assert is_alive is False


def test_process_whose_pid_is_anothers_now_is_dead(child):
    assert process_of(child.pid, "1").is_alive() is False


def test_process_whose_start_nobody_knows_is_neither(child):
    assert process_of(child.pid, "").is_alive() is None
    assert not process_of(child.pid, "").is_dead()


def test_process_of_another_host_or_namespace_is_neither(child):
    assert replace(process_of(child.pid, "1"), boot="another").is_alive() is None
    assert replace(process_of(child.pid, "1"), boot="").is_alive() is None


@pytest.mark.parametrize("pid", [0, -1, 1 << 40])
def test_pid_that_can_be_nobodys_is_not_dead(pid):
    assert not process_of(pid, "1").is_dead()


def test_proc_of_another_namespace_tells_nothing(child, monkeypatch):
    process = process_of(child.pid, "1")
    real = identity._stat
    monkeypatch.setattr(identity, "_stat", lambda pid: real(str(child.pid)) if pid == "self" else real(pid))

    assert process.is_alive() is None


def test_proc_that_hides_a_process_does_not_make_it_dead(child, monkeypatch):
    process = process_of(child.pid)
    real = identity._stat
    monkeypatch.setattr(identity, "_stat", lambda pid: real(pid) if pid == "self" else None)

    assert process.is_alive() is None


# With other users, and in namespaces

CLAIM = """
import sys
from entropic import Database
from tests.support.protocol_cases import claims_on

claims = claims_on(Database(sys.argv[1]))
former = claims.holders(["k"]).get("k")
granted = claims.acquire(["k"])
print(list(granted), former and former.process.is_alive(), flush=True)
sys.stdin.read()
"""

MEETING = """
import subprocess, sys

def user(number):
    # The right to read the interpreter, wherever it is installed; not that to see or signal what is another's.
    rights = "+dac_override,+dac_read_search"
    how = ["--reuid", number, "--regid", number, "--clear-groups", "--inh-caps", rights, "--ambient-caps", rights]
    return subprocess.Popen(
        ["setpriv", *how, sys.executable, "-c", CLAIM, sys.argv[1]],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )

def ended(process):
    process.stdin.close()
    process.wait()

owner = user("65534")
print(owner.stdout.readline(), end="")
taker = user("65533")
print(taker.stdout.readline(), end="")
ended(owner)
late = user("65533")
print(late.stdout.readline(), end="")
for process in (taker, late):
    ended(process)
"""

NAMESPACES = {
    "hidepid": ["unshare", "--mount", "sh", "-c", 'mount -t proc -o hidepid=2 proc /proc && exec "$@"', "sh"],
    "pid namespace": ["unshare", "--pid", "--fork", "--kill-child"],  # under the /proc of the one outside
}


@pytest.mark.slow
@pytest.mark.parametrize("namespace", NAMESPACES)
def test_claim_of_a_live_process_of_another_user_is_kept_and_that_of_a_dead_one_taken(
    namespace, sqlite_url, tmp_path
):
    """Needs root, or the capabilities to make namespaces and to change users."""
    script = tmp_path / "meeting.py"
    script.write_text(f"CLAIM = {CLAIM!r}\n{MEETING}")

    done = subprocess.run(
        [*NAMESPACES[namespace], sys.executable, str(script), sqlite_url],
        env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True, timeout=120,
    )  # fmt: skip

    assert done.stdout.splitlines() == ["['k'] None", "[] None", "['k'] False"], done.stderr


def test_process_that_has_started_one_has_a_child(child):
    assert identity.has_children()
    assert identity.has_children([child.pid + 1])


def test_children_that_do_not_count_are_left_out():
    """In a fork, which has none but its own."""
    pid = os.fork()
    if pid == 0:
        child = subprocess.Popen(PAUSE, stdin=subprocess.PIPE)
        has = [identity.has_children(), identity.has_children([child.pid])]
        child.kill()
        child.wait()
        os._exit(0 if [*has, identity.has_children()] == [True, False, False] else 1)

    assert os.waitpid(pid, 0)[1] == 0


def test_children_of_a_thread_that_ended_meanwhile_may_be_there(monkeypatch):
    """As its children become another thread's, which may have been looked at before."""
    threads = [*os.listdir("/proc/self/task"), "0"]
    monkeypatch.setattr(identity.os, "listdir", lambda path: threads)

    pid = os.fork()
    if pid == 0:
        threads[:-1] = [str(os.getpid())]
        os._exit(0 if identity.has_children() else 1)

    assert os.waitpid(pid, 0)[1] == 0


def test_children_that_nobody_counts_may_be_there(monkeypatch):
    monkeypatch.setattr(identity, "Path", lambda path: Path("/proc/self/no such file"))

    assert identity.has_children()
