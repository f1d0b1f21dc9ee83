"""Statistics as files: what is on the disk, and what kills and other processes do to it."""

import json
import math
import os
import signal
import subprocess
import sys
import time

import h5py
import pytest

from entropic import CorruptFileError
from entropic.disk import files, linked_lock
from entropic.process.identity import this_process
from entropic.stats import TrainingStats
from entropic.stats_store import FileStatsStore, collector
from tests.support.processes import run_together
from tests.support.stats_cases import full, losses, shown, training, validation
from tests.support.waiting import wait_for


@pytest.fixture
def store(tmp_path):
    return FileStatsStore(tmp_path / "stats")


def names(store):
    return sorted(str(path.relative_to(store.path)) for path in store.path.rglob("*") if path.is_file())


def test_each_run_has_a_file_of_each_kind_and_nothing_else_is_left(store):
    store.store_training_stats("a/b", training(range(3)))
    store.store_training_stats("a/b", training(range(5)))
    store.store_validation_iteration_scores("a/b", validation({1: 1}))
    store.log("a/b", 1, x=1)
    store.flush()

    assert names(store) == ["metrics/a%2Fb.h5", "training_stats/a%2Fb.h5", "validation_scores/a%2Fb.h5"]
    assert store.training_stats.name == "training_stats"
    assert store.validation_scores.parent == store.path
    store.delete_training_stats("a/b")
    assert not (store.training_stats / "a%2Fb.h5").exists()


def test_files_are_plain_hdf5_of_the_oldest_kind(store):
    store.store_training_stats("r", training(range(3)))
    store.store_training_stats("r", training(range(5), loss=lambda i: math.nan))

    path = store.training_stats / "r.h5"
    with h5py.File(path, locking=False) as file:
        assert file["iteration"][:].tolist() == [0, 1, 2, 3, 4]
        assert file["loss"].dtype == "f8"
        assert list(map(repr, file["loss"][3:].tolist())) == ["nan", "nan"]
    with path.open("rb") as raw:
        raw.seek(512)
        assert raw.read(9) == b"\x89HDF\r\n\x1a\n\0"  # superblock 0: nothing says that a writer has it open


def test_a_reader_needs_no_right_to_write(store):
    store.store_training_stats("r", training(range(3)))
    os.chmod(store.training_stats, 0o555)
    try:
        assert len(FileStatsStore(store.path).retrieve_training_stats("r").iteration_stats) == 3
    finally:
        os.chmod(store.training_stats, 0o755)


def test_appending_writes_what_is_new_and_not_the_whole_file(store, monkeypatch):
    store.store_training_stats("r", training(range(100_000)))
    size = (store.training_stats / "r.h5").stat().st_size
    written = []
    pwrite = os.pwrite
    monkeypatch.setattr(os, "pwrite", lambda fd, data, at: written.append(len(data)) or pwrite(fd, data, at))
    store.store_training_stats("r", training(range(100_000, 100_100)))

    assert size > 2_000_000
    assert 0 < sum(written) < 200_000


def test_each_call_is_on_the_disk_when_it_returns(store, monkeypatch):
    synced = []
    fsync, sync_data = os.fsync, files.sync_data
    monkeypatch.setattr(
        os, "fsync", lambda fd: synced.append(os.readlink(f"/proc/self/fd/{fd}")) or fsync(fd)
    )
    monkeypatch.setattr(
        "entropic.disk.journal.sync_data",
        lambda fd: synced.append(os.readlink(f"/proc/self/fd/{fd}")) or sync_data(fd),
    )
    store.store_training_stats("r", training(range(3)))
    assert [os.path.basename(one)[:10] for one in synced] == [".entropic-", "training_s"]
    synced.clear()
    store.store_training_stats("r", training(range(5)))
    assert [os.path.basename(one)[:10] for one in synced] == [".entropic-", "training_s", "r.h5"]


def test_folder_whose_place_is_taken_is_refused(tmp_path):
    (tmp_path / "stats").write_text("x")
    with pytest.raises(NotADirectoryError, match="is a file, where a folder of statistics is wanted"):
        FileStatsStore(tmp_path / "stats")


@pytest.mark.parametrize("name", ["β" * 60, "x" * 245])
def test_name_that_is_too_long_for_a_file_is_refused(store, name):
    with pytest.raises(ValueError, match="is too long"):
        store.store_training_stats(name, training(range(1)))
    with pytest.raises(ValueError, match="is too long"):
        store.log(name, 1, x=1)
    assert store._collector not in collector._waiting


@pytest.mark.parametrize("content", [b"", b"\x80\x04]\x94.", b"text" * 1000])
def test_file_of_somebody_else_is_refused_and_kept(store, content):
    path = store.training_stats / "r.h5"
    path.write_bytes(content)
    for act in (
        lambda: store.retrieve_training_stats("r"),
        lambda: store.store_training_stats("r", training(range(3))),
    ):
        with pytest.raises(CorruptFileError, match=r"r\.h5' is no file of entropic's"):
            act()
    assert path.read_bytes() == content
    assert names(store) == ["training_stats/r.h5"]


def test_damaged_file_is_said_to_be_damaged(store):
    store.store_training_stats("r", training(range(3)))
    path = store.training_stats / "r.h5"
    path.write_bytes(path.read_bytes()[:600])
    with pytest.raises(CorruptFileError, match="is no HDF5 file, or is damaged"):
        store.retrieve_training_stats("r")


@pytest.mark.parametrize(("part", "other"), [(b"TREE", b"TREF"), (b"iteration\0", b"iteratiom\0")])
def test_file_that_is_damaged_inside_is_named(store, part, other):
    store.store_training_stats("r", training(range(3)))
    path = store.training_stats / "r.h5"
    damaged = path.read_bytes().replace(part, other)
    path.write_bytes(damaged)

    with pytest.raises(CorruptFileError, match=r"r\.h5' is no HDF5 file, or is damaged"):
        store.retrieve_training_stats("r")
    with pytest.raises((CorruptFileError, KeyError)):
        store.store_training_stats("r", training(range(5)))
    assert path.read_bytes() == damaged


def test_refused_training_leaves_the_file_as_it_was(store):
    store.store_training_stats("r", training(range(3)))
    before = (store.training_stats / "r.h5").read_bytes()
    with pytest.raises(ValueError, match="must ascend"):
        store.store_training_stats("r", training([5, 4]))
    store.store_training_stats("r", TrainingStats())
    assert (store.training_stats / "r.h5").read_bytes() == before


def test_values_are_kept_while_the_file_cannot_be_written(store, monkeypatch, caplog):
    monkeypatch.setattr(collector, "EVERY_S", 0.01)
    path = store.path / "metrics"
    path.rename(store.path / "away")
    store.log("r", 1, x=1)
    wait_for(lambda: "logged values of the run 'r' could not be written, and are kept" in caplog.text)
    (store.path / "away").rename(path)
    assert store.to_numpy("r", "metrics")["x"].tolist() == [1]


# Other processes


def goes_on(path, until, step):
    store = FileStatsStore(path)
    for end in range(step, until + 1, step):
        store.store_training_stats("r", training(range(end)))


def fills(path, first):
    store = FileStatsStore(path)
    for number in range(first, 60, 2):
        store.store_training_stats("r", training([number]), on_behind="merge")
        store.log("r", number, both=number)
        store.flush()


def test_two_processes_that_store_one_training_lose_and_double_nothing(store):
    run_together(goes_on, [(store.path, 200, 10), (store.path, 200, 7)])
    found = list(losses(store.retrieve_training_stats("r")))
    assert found == list(range(len(found)))
    assert len(found) in {196, 200}
    assert names(store) == ["training_stats/r.h5"]


@pytest.mark.slow
def test_two_processes_that_fill_one_run_lose_and_double_nothing(store):
    run_together(fills, [(store.path, 0), (store.path, 1)])
    assert list(losses(store.retrieve_training_stats("r"))) == list(range(60))
    assert store.to_numpy("r", "metrics")["both"].tolist() == list(range(60))


def reads(path):
    store = FileStatsStore(path)
    seen = []
    while not seen or seen[-1] < 1500:
        seen.append(len(store.retrieve_training_stats("r").iteration_stats))
    return seen


def writes(path):
    goes_on(path, 1500, 50)


def test_reader_beside_a_writer_sees_what_was_written_last(store):
    seen, _ = run_together(_either, [(reads, store.path), (writes, store.path)])
    assert seen == sorted(seen)
    assert {one % 50 for one in seen} == {0}


def _either(call, path):
    return call(path)


WRITER = """
import sys
from entropic.stats_store import FileStatsStore
from tests.support.stats_cases import training, validation
store = FileStatsStore(sys.argv[1])
print("ready", flush=True)
end = 0
while True:
    end += 500
    store.store_training_stats("r", training(range(end)))
    store.store_validation_iteration_scores("r", validation(dict.fromkeys(range(500, end + 1, 500), 1)))
"""


@pytest.mark.slow
def test_killed_writer_costs_no_file(store):
    for round_ms in range(1, 120, 7):
        process = subprocess.Popen([sys.executable, "-c", WRITER, store.path], stdout=subprocess.PIPE)
        process.stdout.readline()
        time.sleep(round_ms / 1000)
        os.kill(process.pid, signal.SIGKILL)
        process.communicate()

        found = losses(store.retrieve_training_stats("r"))
        assert len(found) % 500 == 0
        assert list(found) == list(range(len(found)))
        validations = shown(store.retrieve_validation_iteration_scores("r"))
        assert set(validations.values()) <= {full(1)}
        begun = time.monotonic()
        end = len(found) + 500
        store.store_training_stats("r", training(range(end)))
        assert time.monotonic() - begun < 5
        assert len(losses(store.retrieve_training_stats("r"))) == end
        store.delete_training_stats("r")
        store.delete_validation_scores("r")


def test_lock_of_another_host_is_waited_for_and_read_past(store, monkeypatch):
    store.store_training_stats("r", training(range(3)))
    facts = {**this_process().as_dict(), "host": "elsewhere", "boot": "another", "owner": "x"}
    (store.training_stats / "r.h5.lock").write_text(json.dumps(facts))
    assert len(store.retrieve_training_stats("r").iteration_stats) == 3

    locks = []
    original = linked_lock.LinkedLock.__init__

    def quick(self, path, **_):
        locks.append(path.name)
        original(self, path, lease_s=0.1)

    monkeypatch.setattr(linked_lock.LinkedLock, "__init__", quick)
    store.store_training_stats("r", training(range(5)))
    assert locks == ["r.h5.lock"]
    assert len(store.retrieve_training_stats("r").iteration_stats) == 5
    assert names(store) == ["training_stats/r.h5"]


FORKS = """
import os, sys, threading
from entropic.stats_store import FileStatsStore
from tests.support.stats_cases import training

store = FileStatsStore(sys.argv[1])
is_done = threading.Event()

def write():
    end = 0
    while not is_done.is_set():
        end += 100
        store.store_training_stats("parent", training(range(end)))

thread = threading.Thread(target=write)
thread.start()
for number in range(30):
    child = os.fork()
    if not child:
        store.store_training_stats(f"child {number}", training(range(3)))
        os._exit(0)
    os.waitpid(child, 0)
is_done.set()
thread.join()
"""


@pytest.mark.slow
def test_child_that_is_forked_while_another_thread_writes_writes_too(store):
    subprocess.run([sys.executable, "-W", "ignore", "-c", FORKS, store.path], check=True, timeout=120)
    assert len(names(store)) == 31


EXIT = """
import sys
from entropic.stats_store import FileStatsStore
store = FileStatsStore(sys.argv[1])
store.log("r", 1, x=1)
"""


def test_file_of_one_run_that_cannot_be_written_keeps_no_other_runs_values(store, monkeypatch):
    monkeypatch.setattr(collector, "EVERY_S", 3600.0)
    (store.path / "metrics" / "bad.h5").write_bytes(b"somebody else's")
    for name in ("a", "bad", "z"):
        store.log(name, 1, x=1)
    for _ in range(2):
        with pytest.raises(CorruptFileError, match=r"bad\.h5"):
            store.flush()

    with h5py.File(store.path / "metrics" / "a.h5", locking=False) as file:
        assert file["value"][:].tolist() == [1]  # and was not written twice
    assert store.to_numpy("z", "metrics")["x"].tolist() == [1]
    with pytest.raises(CorruptFileError):
        store.to_numpy("bad", "metrics")
    (store.path / "metrics" / "bad.h5").unlink()
    assert store.to_numpy("bad", "metrics")["x"].tolist() == [1]


def test_values_are_written_at_exit(store):
    subprocess.run([sys.executable, "-c", EXIT, store.path], check=True)
    assert store.to_numpy("r", "metrics")["x"].tolist() == [1]
