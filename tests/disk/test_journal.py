"""Files whose changes are made as a whole, whenever their writer is killed."""

import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from entropic import ClaimLostError, CorruptFileError
from entropic.disk import journal
from entropic.disk.journal import HEADER_BYTES, JournaledFile, header, opened, read_whole, recover


@pytest.fixture
def path(tmp_path):
    """A file of three pages and a bit."""
    made = tmp_path / "data.h5"
    made.write_bytes(header() + bytes(range(256)) * 50)
    return made


def beside(path):
    return sorted(one.name for one in path.parent.iterdir() if one != path)


def change(path, data, at):
    with opened(path) as file:
        file.seek(at)
        file.write(data)
        file.commit()


def test_change_is_made_by_commit_and_not_before(path):
    before = path.read_bytes()
    with opened(path) as file:
        file.seek(5000)
        file.write(b"new" * 3000)
        file.seek(5001)
        assert file.read(4) == b"ewne"
        assert read_whole(path) == before
        file.commit()
        assert read_whole(path) == path.read_bytes()
    assert read_whole(path)[HEADER_BYTES:] == (before[:5000] + b"new" * 3000 + before[14000:])[HEADER_BYTES:]
    assert beside(path) == []


def test_what_is_not_committed_is_forgotten(path):
    before = path.read_bytes()
    with opened(path) as file:
        file.seek(0, os.SEEK_END)
        file.write(b"new")
    assert path.read_bytes() == before
    with opened(path) as file:
        file.commit()
    assert path.read_bytes() == before


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(512, 20_000), st.integers(0, 9000), st.booleans()), max_size=6))
def test_file_in_memory_is_as_a_file_on_disk(tmp_path_factory, steps):
    path = tmp_path_factory.mktemp("journal") / "data.h5"
    path.write_bytes(header() + bytes(range(256)) * 30)
    plain = bytearray(path.read_bytes())
    with opened(path) as file:
        for number, (at, size, is_truncated) in enumerate(steps):
            if is_truncated:
                file.truncate(at)
                plain = plain[:at].ljust(at, b"\0")
            data = bytes([number + 1]) * size
            file.seek(at)
            file.write(data)
            if size:
                plain = plain.ljust(at, b"\0")
                plain[at : at + size] = data
            file.seek(0)
            assert file.read(len(plain) + 1) == plain
        file.commit()
    assert path.read_bytes()[HEADER_BYTES:] == plain[HEADER_BYTES:]
    assert read_whole(path) == path.read_bytes()


class KilledError(Exception):
    """What stands for a kill."""


STEPS = ["fsync", "link", "pwrite", "ftruncate", "sync_data", "unlink"]


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("which", [0, 1, 2])
def test_whoever_is_killed_while_writing_leaves_all_or_nothing(path, monkeypatch, step, which):
    before = read_whole(path)
    calls = []

    def killed(call):
        def instead(*args, **options):
            calls.append(step)
            if len(calls) > which:
                raise KilledError
            return call(*args, **options)

        return instead

    target = journal if step == "sync_data" else os
    with monkeypatch.context() as patch:
        patch.setattr(target, step, killed(getattr(target, step)))
        if step == "unlink":
            patch.setattr(journal.Path, "unlink", killed(journal.Path.unlink))
        with suppress(KilledError):
            change(path, b"new" * 3000, 5000)

    seen = read_whole(path)
    assert seen[HEADER_BYTES:] in {
        before[HEADER_BYTES:], (before[:5000] + b"new" * 3000 + before[14000:])[HEADER_BYTES:]
    }  # fmt: skip
    recover(path)
    assert path.read_bytes() == seen
    assert [one for one in beside(path) if not one.startswith(".entropic-")] == []
    change(path, b"again", 600)
    assert read_whole(path)[600:605] == b"again"


def test_journal_that_does_not_fit_is_ignored_and_removed(path, monkeypatch):
    late = JournaledFile(path)
    late.seek(600)
    late.write(b"late")
    monkeypatch.setattr(journal, "recover", None)
    published = []
    monkeypatch.setattr(late, "_publish", published.append)
    monkeypatch.setattr(journal._Journal, "apply", lambda self, descriptor: None)
    late.commit()
    monkeypatch.undo()
    change(path, b"meanwhile", 700)
    there = path.read_bytes()
    (path.parent / "data.h5.journal").write_bytes(published[0])
    late.close()

    assert read_whole(path) == there
    recover(path)
    assert path.read_bytes() == there
    assert beside(path) == []


def test_writer_who_was_overtaken_writes_nothing(path):
    with opened(path) as late:
        late.seek(600)
        late.write(b"late")
        change(path, b"meanwhile", 600)
        with pytest.raises(ClaimLostError, match="was changed by another process meanwhile"):
            late.commit()
    assert read_whole(path)[600:609] == b"meanwhile"
    assert beside(path) == []


def test_two_journals_at_once_are_refused(path):
    with opened(path) as late:
        late.seek(600)
        late.write(b"late")
        (path.parent / "data.h5.journal").write_bytes(b"another")
        with pytest.raises(ClaimLostError):
            late.commit()
    assert beside(path) == ["data.h5.journal"]


def test_damaged_journal_is_not_passed_over(path):
    (path.parent / "data.h5.journal").write_bytes(b"half of")
    for act in (read_whole, recover):
        with pytest.raises(CorruptFileError, match=r"data\.h5\.journal' is damaged"):
            act(path)


def test_journal_that_only_has_its_name_does_not_count_and_goes(path):
    before = path.read_bytes()
    (path.parent / "data.h5.journal").touch()  # where there are no hard links, and its writer was killed

    assert read_whole(path) == before
    recover(path)
    change(path, b"new", 5000)

    assert path.read_bytes()[5000:5003] == b"new"
    assert beside(path) == []


def test_file_of_somebody_else_is_not_touched(tmp_path):
    strange = tmp_path / "strange.h5"
    strange.write_bytes(b"strange" * 1000)
    for act in (read_whole, JournaledFile):
        with pytest.raises(CorruptFileError, match="is no file of entropic's"):
            act(strange)
    assert strange.read_bytes() == b"strange" * 1000


def test_no_file_is_none_and_leaves_no_journal(tmp_path):
    assert read_whole(tmp_path / "absent.h5") is None
    recover(tmp_path / "absent.h5")


def test_reader_beside_a_writer_sees_whole_changes(path):
    path.write_bytes(header() + bytes(40_000))
    is_done = threading.Event()

    def write():
        for number in range(1, 120):
            with opened(path) as file:
                file.seek(HEADER_BYTES)
                file.write(bytes([number]) * 40_000)
                file.commit()
        is_done.set()

    writer = threading.Thread(target=write)
    writer.start()
    seen = set()
    while not is_done.is_set():
        seen.add(frozenset(read_whole(path)[HEADER_BYTES:]))
    writer.join()

    assert {len(one) for one in seen} == {1}
    assert len(seen) > 3


KILLED = """
import sys, itertools
from pathlib import Path
from entropic.disk.journal import opened, recover
path = Path(sys.argv[1])
recover(path)
print("ready", flush=True)
for number in itertools.cycle(range(256)):
    with opened(path) as file:
        file.seek(512)
        file.write(bytes([number]) * 200_000)
        file.commit()
"""


@pytest.mark.slow
def test_process_that_is_killed_costs_no_file(path):
    path.write_bytes(header() + bytes(200_000))
    for wait_ms in range(1, 40, 3):
        process = subprocess.Popen([sys.executable, "-c", KILLED, path], stdout=subprocess.PIPE)
        process.stdout.readline()
        time.sleep(wait_ms / 1000)
        os.kill(process.pid, signal.SIGKILL)
        process.communicate()
        assert len(set(read_whole(path)[HEADER_BYTES:])) == 1


def test_hdf5_in_it_is_hdf5_for_everybody(tmp_path):
    import io

    buffer = io.BytesIO()
    with h5py.File(buffer, "w", userblock_size=HEADER_BYTES) as file:
        file.create_dataset("x", (0,), "f8", maxshape=(None,), chunks=(64,))
    path = tmp_path / "data.h5"
    path.write_bytes(header() + buffer.getvalue()[HEADER_BYTES:])
    for number in range(30):
        with opened(path) as journaled:
            with h5py.File(journaled, "r+") as file:
                file["x"].resize(len(file["x"]) + 100, axis=0)
                file["x"][-100:] = number
            journaled.commit()
    with h5py.File(path) as file:
        assert file["x"][:].tolist() == np.repeat(np.arange(30.0), 100).tolist()
        assert file.userblock_size == HEADER_BYTES
