"""The right to write a file, as a second file."""

import json
import logging
import os
import threading
import time

import pytest

from entropic import ClaimLostError, ClaimTimeoutError
from entropic.disk import linked_lock
from entropic.disk.linked_lock import LinkedLock
from entropic.process.identity import this_process
from entropic.process.patience import Patience, Wait
from tests.support.processes import run_together

SHORT = Patience(limit_s=0.2)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "data.h5.lock"


def ended_process():
    """Who was in a process that has ended."""
    return run_together(this_process, [()])[0]


def written_by(path, **facts):
    path.write_text(json.dumps({**this_process().as_dict(), "token": "t", **facts}))


def test_lock_names_its_holder_and_goes_with_it(path):
    with LinkedLock(path) as lock:
        facts = json.loads(path.read_text())
        lock.require()
    process = this_process()
    assert {name: facts[name] for name in ("host", "boot", "pid", "started")} == {
        "host": process.host, "boot": process.boot, "pid": os.getpid(), "started": process.started
    }  # fmt: skip
    assert os.listdir(path.parent) == []


def test_lock_goes_when_an_error_leaves_the_block(path):
    with pytest.raises(ZeroDivisionError), LinkedLock(path):
        1 / 0  # noqa: B018
    assert os.listdir(path.parent) == []


def test_interrupt_that_comes_when_it_is_there_already_leaves_none(path, monkeypatch):
    link = os.link

    def interrupted(source, target):
        link(source, target)
        raise KeyboardInterrupt

    monkeypatch.setattr(linked_lock.os, "link", interrupted)
    with pytest.raises(KeyboardInterrupt):
        LinkedLock(path).__enter__()
    assert os.listdir(path.parent) == []


def test_one_at_a_time_has_it(path):
    seen = []

    def work(number):
        for _ in range(20):
            with LinkedLock(path):
                seen.append(number)
                time.sleep(0.0005)
                seen.append(number)

    threads = [threading.Thread(target=work, args=(n,)) for n in range(3)]
    for one in threads:
        one.start()
    for one in threads:
        one.join()

    assert len(seen) == 120
    assert seen[::2] == seen[1::2]


def test_lock_of_a_living_process_is_waited_for_and_never_broken(path):
    written_by(path)
    with pytest.raises(ClaimTimeoutError, match=f"held by process {os.getpid()} on .*end that process"):
        LinkedLock(path, lease_s=0.0, patience=SHORT).__enter__()
    assert path.exists()


def test_lock_of_a_process_that_ended_is_broken_at_once(path, caplog):
    process = ended_process()
    path.write_text(json.dumps({**process.as_dict(), "token": "t"}))
    with caplog.at_level(logging.WARNING), LinkedLock(path, patience=SHORT):
        assert json.loads(path.read_text())["pid"] == os.getpid()
    assert f"as process {process.pid} on {process.host} is gone" in caplog.text
    assert os.listdir(path.parent) == []


@pytest.mark.parametrize("facts", [{"boot": "another", "host": "elsewhere", "owner": "x"}, None])
def test_lock_of_one_that_cannot_be_seen_is_broken_when_it_was_there_for_a_lease(path, facts):
    if facts is None:
        path.write_bytes(b"half")
    else:
        written_by(path, **facts)
    with pytest.raises(ClaimTimeoutError):
        LinkedLock(path, lease_s=60, patience=SHORT).__enter__()
    with LinkedLock(path, lease_s=0.05, patience=SHORT):
        pass
    assert os.listdir(path.parent) == []


def test_lock_that_changes_hands_is_not_silent(path, monkeypatch):
    """Ten times, each after most of a lease, by the clock of who waits."""
    now, hands = 0.0, 0

    def change_hands(wait):
        nonlocal now, hands
        now, hands = now + 50, hands + 1
        written_by(path, boot="another", host="elsewhere", owner=str(hands))

    monkeypatch.setattr(linked_lock, "_now", lambda: now)
    monkeypatch.setattr(Wait, "pause", change_hands)
    monkeypatch.setattr(Wait, "is_over", lambda wait: hands == 10)
    change_hands(None)

    with pytest.raises(ClaimTimeoutError):
        LinkedLock(path, lease_s=60, patience=SHORT).__enter__()

    assert json.loads(path.read_text())["owner"] == "10"


def test_who_lost_the_lock_is_told_and_leaves_the_other_one_alone(path):
    lock = LinkedLock(path)
    with lock:
        written_by(path, token="of another")
        with pytest.raises(ClaimLostError, match="may have taken it over"):
            lock.require()
    assert json.loads(path.read_text())["token"] == "of another"


def test_who_stood_still_for_long_writes_nothing(path, monkeypatch):
    with LinkedLock(path) as lock:
        now = linked_lock._now()
        monkeypatch.setattr(linked_lock, "_now", lambda: now + linked_lock.LEASE_S)
        with pytest.raises(ClaimLostError):
            lock.require()


def test_lock_that_another_one_broke_and_got_is_put_back(path, monkeypatch):
    """Between the look and the rename another process broke it, and took it."""
    path.write_text(json.dumps({**ended_process().as_dict(), "token": "t"}))
    rename, is_first = os.rename, [True]

    def late(source, target):
        if is_first.pop() if is_first else False:
            written_by(path, token="new")
        rename(source, target)

    monkeypatch.setattr(linked_lock.os, "rename", late)
    with pytest.raises(ClaimTimeoutError):
        LinkedLock(path, patience=SHORT).__enter__()
    assert json.loads(path.read_text())["token"] == "new"
