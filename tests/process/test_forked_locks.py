"""Locks that another thread holds at a fork: no child waits for one, as nobody would ever give it back there."""

import os
import shutil
import signal
import threading
import time
from contextlib import ExitStack

import pytest

import entropic
from entropic import migrate
from entropic.disk import staging
from entropic.process.forked_locks import ForkedLock
from entropic.sweeps.backends import processes
from entropic.values import codecs, hashing

pytestmark = pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")

LIMIT_S = 20


def exit_code_of_child(act, *locks):
    """Fork while another thread holds *locks*, and return how a child ends that does something with them."""
    held, done = threading.Event(), threading.Event()

    def hold():
        with ExitStack() as stack:
            for lock in locks:
                stack.enter_context(lock.held() if isinstance(lock, ForkedLock) else lock)
            held.set()
            done.wait()

    thread = threading.Thread(target=hold)
    thread.start()
    held.wait()
    pid = os.fork()
    if pid == 0:
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.alarm(LIMIT_S)
        try:
            act()
        finally:
            os._exit(1)
    done.set()
    thread.join()
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def ends(act):
    def acts():
        act()
        os._exit(0)

    return acts


@pytest.mark.parametrize("is_gone", [False, True])
def test_child_makes_a_folder_of_its_own(tmp_path, is_gone):
    of_parent = staging.staging_for(tmp_path, "of the parent", {})
    of_parent.take()
    if is_gone:
        shutil.rmtree(of_parent.folder)

    act = ends(lambda: staging.staging_for(tmp_path, "of the child", {}).take())

    assert exit_code_of_child(act, of_parent._lock, of_parent._syncing) == 0


def test_child_finds_a_lock_free_that_another_thread_holds():
    lock = ForkedLock()

    def act():
        with lock.held():
            os._exit(0)

    assert exit_code_of_child(act, lock) == 0


def test_lock_at_whose_holding_is_forked_is_left_in_both():
    lock = ForkedLock()
    with lock.held():
        pid = os.fork()
        if pid == 0:
            with lock.held():
                pass
    with lock.held():
        if pid == 0:
            os._exit(0)

    assert os.waitpid(pid, 0)[1] == 0


def test_only_one_thread_holds_a_lock():
    lock, inside, most = ForkedLock(), [0], []

    def work():
        for _ in range(200):
            with lock.held():
                inside[0] += 1
                most.append(inside[0])
                time.sleep(0)
                inside[0] -= 1

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert set(most) == {1}


class Given:
    """What the child registers."""


@pytest.mark.parametrize(
    ("module", "name", "act"),
    [
        (codecs, "_lock", lambda: entropic.register_loader(".forked", str)),
        (hashing, "_hashers_lock", lambda: entropic.register_hasher(Given, repr)),
        (migrate, "_alembic_lock", lambda: migrate.upgrade("sqlite:///forked.sqlite3")),
        (processes, "_starting", lambda: processes._hidden_main().__enter__()),
    ],
    ids=["codecs", "hashers", "alembic", "workers"],
)
def test_child_does_what_another_thread_was_at(tmp_path, monkeypatch, module, name, act):
    monkeypatch.chdir(tmp_path)

    assert exit_code_of_child(ends(act), getattr(module, name)) == 0
