"""Locks that another thread holds at a fork: no child waits for one, as nobody would ever give it back there."""

import os
import shutil
import signal
import threading
from contextlib import ExitStack

import pytest

import entropic
from entropic import migrate
from entropic.disk import staging
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
                stack.enter_context(lock)
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
