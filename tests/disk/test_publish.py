"""A file is whole, synced and measured under its name, or it is not there."""

import errno
import hashlib
import os
import threading

import pytest

from entropic.disk import files
from entropic.disk.files import digest_of
from entropic.disk.publish import publish
from entropic.errors import ResultFileMissingError
from tests.support.disk_order import disk_order
from tests.support.processes import outcomes_of, run_together
from tests.support.protocol_cases import kill_self


@pytest.fixture
def target(tmp_path):
    return tmp_path / "weights-7.h5"


def test_file_has_its_name_size_and_digest_after_the_block_and_none_before(target):
    with publish(target) as part:
        part.path.write_bytes(b"weights")
        during = target.exists()

    assert not during
    assert target.read_bytes() == b"weights"
    assert (part.size_bytes, part.sha256) == (7, hashlib.sha256(b"weights").hexdigest())
    assert os.listdir(target.parent) == [target.name]


def test_path_has_the_suffix_of_the_target_and_is_in_its_folder(target):
    with publish(target) as part:
        part.path.touch()

    assert part.path.parent == target.parent
    assert part.path.suffix == ".h5"


def test_file_is_synced_before_it_has_its_name_and_its_folder_afterwards(target):
    with disk_order() as order, publish(target) as part:
        part.path.write_bytes(b"weights")

    steps = [one for one in order if one[0] in {"synced", "renamed"}]
    assert steps == [("synced", str(part.path)), ("renamed", str(target)), ("synced", str(target.parent))]


@pytest.mark.parametrize("replace", [False, True])
def test_file_that_is_there_is_replaced_only_if_it_may_be(target, replace):
    target.write_bytes(b"old")

    def write():
        with publish(target, replace=replace) as part:
            part.path.write_bytes(b"new")

    if replace:
        write()
    else:
        with pytest.raises(FileExistsError):
            write()

    assert target.read_bytes() == (b"new" if replace else b"old")
    assert os.listdir(target.parent) == [target.name]


@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "No space left on device"), KeyboardInterrupt()])
@pytest.mark.parametrize("replace", [False, True])
def test_writer_that_fails_leaves_nothing_but_what_was_there(target, error, replace):
    target.write_bytes(b"old")

    def write():
        with publish(target, replace=replace) as part:
            part.path.write_bytes(b"half")
            raise error

    with pytest.raises(type(error)):
        write()

    assert target.read_bytes() == b"old"
    assert os.listdir(target.parent) == [target.name]


@pytest.mark.parametrize("size_bytes", [10, files._BESIDE_BYTES + 1], ids=["small", "large"])
def test_disk_that_refuses_the_sync_leaves_nothing(target, monkeypatch, size_bytes):
    def full(descriptor):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)

    with pytest.raises(OSError, match="No space left"), publish(target) as part:
        part.path.write_bytes(bytes(size_bytes))

    assert os.listdir(target.parent) == []


def test_block_that_writes_nothing_is_an_error_that_names_the_file(target):
    with pytest.raises(ResultFileMissingError, match=r"weights-7\.h5"), publish(target):
        pass

    assert os.listdir(target.parent) == []


def publish_and_die(target, when):
    if when == "before the rename":
        os.link = lambda *args: kill_self()
    with publish(target) as part:
        part.path.write_bytes(b"half")
        if when == "while it is written":
            kill_self()


@pytest.mark.parametrize("when", ["while it is written", "before the rename"])
def test_process_that_is_killed_leaves_nothing_under_the_name(target, when):
    (outcome,) = outcomes_of(publish_and_die, [(target, when)])

    assert outcome.exitcode == -9
    assert not target.exists()
    assert all(name.startswith(".entropic-") for name in os.listdir(target.parent))


def publish_own(target, text):
    try:
        with publish(target) as part:
            part.path.write_text(text)
    except FileExistsError:
        return False
    return True


def test_of_several_processes_that_publish_one_name_one_does(target):
    texts = [f"text {n}" for n in range(4)]

    won = run_together(publish_own, [(target, text) for text in texts])

    assert [text for text, has_won in zip(texts, won, strict=True) if has_won] == [target.read_text()]


# The digest of a large file is made while it is synced


@pytest.fixture
def large(tmp_path):
    path = tmp_path / "large"
    path.write_bytes(os.urandom(1 << 10) * (files._BESIDE_BYTES // 1024) + b"end")
    return path


def test_large_file_is_read_while_it_is_synced_and_waited_for(large, monkeypatch):
    real, was_read, was_read_meanwhile = os.fsync, threading.Event(), []

    def sync(descriptor):
        was_read_meanwhile.append(was_read.wait(20))
        real(descriptor)
        was_read_meanwhile.append("synced")

    class Noting:
        def __init__(self):
            self.digest = hashlib.new("sha256")
            self.hexdigest = self.digest.hexdigest

        def update(self, block):
            self.digest.update(block)
            if block.endswith(b"end"):
                was_read.set()

    monkeypatch.setattr(os, "fsync", sync)
    expected = large.stat().st_size, hashlib.sha256(large.read_bytes()).hexdigest()
    monkeypatch.setattr(hashlib, "sha256", Noting)

    found = digest_of(large, sync=True)

    assert found == expected
    assert was_read_meanwhile == [True, "synced"]


def test_large_file_is_synced_where_no_thread_can_be_started(large, monkeypatch):
    def refuse(thread):
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuse)

    with disk_order() as order:
        digest_of(large, sync=True)

    assert order == [("synced", str(large))]


def test_large_file_that_is_only_read_is_not_synced(large):
    with disk_order() as order:
        digest_of(large)

    assert order == []
