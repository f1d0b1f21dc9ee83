"""The digest of a file that is made while it is written."""

import hashlib
import os
import threading

import pytest

from entropic.disk.following import Following
from entropic.disk.publish import publish
from tests.support.processes import open_files

BLOCKS = [os.urandom(size) for size in (1, 5000, 3_000_000, 17)]


def written(path, sizes=BLOCKS):
    with path.open("w+b", buffering=0) as file, Following(file) as following:
        end = 0
        for block in sizes:
            file.write(block)
            end += len(block)
            following.follow(end)
        return following.synced()


def test_digest_is_that_of_the_file(tmp_path):
    size, sha256 = written(tmp_path / "f")

    octets = (tmp_path / "f").read_bytes()
    assert (size, sha256) == (len(octets), hashlib.sha256(octets).hexdigest())
    assert written(tmp_path / "empty", []) == (0, hashlib.sha256().hexdigest())


def test_nothing_is_measured_before_it_is_final(tmp_path):
    with (tmp_path / "f").open("w+b", buffering=0) as file, Following(file) as following:
        file.write(b"old!tail")
        os.pwrite(file.fileno(), b"new!", 0)
        following.follow(4)

        assert following.synced() == (8, hashlib.sha256(b"new!tail").hexdigest())


def test_digest_is_made_without_a_thread_where_none_can_be_had(tmp_path, monkeypatch):
    def refuse(thread):
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuse)

    assert written(tmp_path / "f")[1] == hashlib.sha256(b"".join(BLOCKS)).hexdigest()
    assert str(tmp_path / "f") not in open_files()


def test_file_that_becomes_shorter_is_an_error(tmp_path):
    with (tmp_path / "f").open("w+b", buffering=0) as file, Following(file) as following:
        file.write(b"x")
        following.follow(100)

        with pytest.raises(OSError, match="became shorter"):
            following.synced()


def test_who_is_interrupted_leaves_nothing_open(tmp_path):
    before = set(threading.enumerate())
    with pytest.raises(KeyboardInterrupt), (tmp_path / "f").open("w+b", buffering=0) as file, Following(file):
        raise KeyboardInterrupt
    made = set(threading.enumerate()) - before
    for thread in made:
        thread.join(timeout=10)

    assert not any(thread.is_alive() for thread in made)
    assert str(tmp_path / "f") not in open_files()


def test_what_was_measured_while_it_was_written_is_not_measured_again(tmp_path):
    with publish(tmp_path / "f") as part:
        part.size_bytes, part.sha256 = written(part.path)
        part.sha256 = "as it was given"

    assert (part.size_bytes, part.sha256) == (sum(map(len, BLOCKS)), "as it was given")
    assert (tmp_path / "f").stat().st_size == part.size_bytes
