"""When a run is on the disk: before anybody is told of it or it is committed, and short ones of a sweep together."""

import errno
import os
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from entropic.disk import sidecars, staging
from entropic.disk.files import sync_together
from entropic.disk.staging import Staging, staging_for, sync_noted
from entropic.runs.attempts import Work
from entropic.runs.jobs import Failure, Job, Receipt
from tests.support.disk_order import disk_order
from tests.support.gone import Left, claim, elsewhere
from tests.support.protocol_cases import MARKER
from tests.support.waiting import wait_for

A_LINE = {"record_id": "k", "attempt": "a1"}


@pytest.fixture
def refusing(monkeypatch):
    """Lets the disk refuse to sync what has a name that was added."""
    names: set[str] = set()

    def refuse(real, descriptor):
        path = Path(os.readlink(f"/proc/self/fd/{descriptor}"))
        if path.name in names:
            names.remove(path.name)  # a disk that fails says so once
            raise OSError(errno.EIO, "Input/output error", str(path))
        return real(descriptor)

    for module, name in ((os, "fsync"), (staging, "sync_data")):
        real = getattr(module, name)
        monkeypatch.setattr(module, name, lambda descriptor, real=real: refuse(real, descriptor))
    return names


def synced(order) -> list[str]:
    return [Path(path).name for what, path in order if what == "synced"]


def file_in(staging: Staging, name: str) -> Path:
    path = staging.take() / name
    path.write_text(name)
    return path


# Files, together


def test_all_files_are_on_their_way_before_the_first_is_waited_for(tmp_path, monkeypatch):
    seen = []
    real = os.fsync
    monkeypatch.setattr(os, "posix_fadvise", lambda *_: seen.append("begun"))
    monkeypatch.setattr(os, "fsync", lambda descriptor: (seen.append("waited"), real(descriptor)))
    for name in "abc":
        (tmp_path / name).touch()

    sync_together({name: tmp_path / name for name in "abc"})

    assert seen == ["begun"] * 3 + ["waited"] * 3


def test_no_more_files_are_open_at_a_time_than_a_process_may_have(tmp_path, monkeypatch):
    monkeypatch.setattr("entropic.disk.files._TOGETHER", 2)
    for name in "abcde":
        (tmp_path / name).touch()
    before = set(os.listdir("/proc/self/fd"))
    open_at_once = []
    real = os.fsync
    monkeypatch.setattr(
        os, "fsync", lambda fd: (open_at_once.append(set(os.listdir("/proc/self/fd")) - before), real(fd))
    )

    sync_together({name: tmp_path / name for name in "abcde"})

    assert len(open_at_once) == 5
    assert max(len(files) for files in open_at_once) <= 3  # and the listing itself


def test_folder_is_synced_with_all_that_is_in_it(tmp_path):
    (tmp_path / "k" / "sub").mkdir(parents=True)
    (tmp_path / "k" / "sub" / "part").touch()

    with disk_order() as order:
        sync_together({"k": tmp_path / "k"})

    assert synced(order) == ["part", "sub", "k"]


def test_what_is_gone_is_no_trouble_and_what_fails_does_not_keep_the_others(tmp_path, refusing):
    for name in ("bad", "good"):
        (tmp_path / name).touch()
    refusing.add("bad")

    with disk_order() as order:
        trouble = sync_together({name: tmp_path / name for name in ("bad", "gone", "good")})

    assert {name: error.errno for name, error in trouble.items()} == {"bad": errno.EIO}
    assert synced(order) == ["good"]


# A process's folder


def test_line_that_shares_a_sync_is_in_the_kernel_and_on_the_disk_later(root):
    own = Staging(root, "process", {"pid": 1})
    path = file_in(own, "k")

    with disk_order() as order:
        own.append(A_LINE, [path])
        before = synced(order)
        is_noted = sidecars.read_sidecar(own.folder).lines == [A_LINE]
        own.sync()

    assert (before, is_noted) == ([], True)
    assert synced(order) == ["k", "0", sidecars.SIDECAR, "process"]


def test_line_is_on_the_disk_in_time_though_nobody_asks(root, monkeypatch):
    monkeypatch.setattr(staging, "LATEST_S", staging._EARLY_S + 0.01)
    own = Staging(root, "process", {"pid": 1})
    path = file_in(own, "k")

    with disk_order() as order:
        own.append(A_LINE, [path])
        wait_for(lambda: "process" in synced(order))

    assert synced(order) == ["k", "0", sidecars.SIDECAR, "process"]


def test_time_since_the_run_ended_counts(root, monkeypatch):
    monkeypatch.setattr(staging, "LATEST_S", 1e6)
    own = Staging(root, "process", {"pid": 1})
    path = file_in(own, "k")

    with disk_order() as order:
        own.append(A_LINE, [path], age_s=1e6)
        wait_for(lambda: "process" in synced(order))

    assert synced(order)[0] == "k"


def test_line_is_on_the_disk_at_once_where_no_thread_can_wait_for_it(root, monkeypatch):
    def refuse(self):
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr("threading.Timer.start", refuse)
    own = Staging(root, "process", {"pid": 1})
    path = file_in(own, "k")

    with disk_order() as order:
        own.append(A_LINE, [path])

    assert synced(order) == ["k", "0", sidecars.SIDECAR, "process"]


def test_what_was_synced_is_not_synced_again(root):
    own = Staging(root, "process", {"pid": 1})
    own.append(A_LINE, [file_in(own, "k")])
    own.sync()

    with disk_order() as order:
        own.sync(["a1"])

    assert synced(order) == []


def test_trouble_is_kept_for_who_asks(root, refusing):
    own = Staging(root, "process", {"pid": 1})
    refusing.add("k")
    own.append(A_LINE, [file_in(own, "k")])
    own.append({"record_id": "l", "attempt": "a2"}, [file_in(own, "l")])

    told = [own.sync(), own.sync(["a2"]), own.sync(["a1", "a2"]), own.sync(["a1"])]

    assert [set(trouble) for trouble in told] == [set(), set(), {"a1"}, {"a1"}]


def test_what_an_interrupt_kept_from_the_disk_is_synced_by_the_next_who_asks(root, monkeypatch):
    def interrupt(results):
        raise KeyboardInterrupt

    own = Staging(root, "process", {"pid": 1})
    own.append(A_LINE, [file_in(own, "k")])
    with monkeypatch.context() as patch:
        patch.setattr(staging, "sync_together", interrupt)
        with pytest.raises(KeyboardInterrupt):
            own.sync(["a1"])

    with disk_order() as order:
        own.sync(["a1"])

    assert synced(order)[:2] == ["k", "0"]


def test_folder_that_is_closed_waits_for_nothing(root):
    own = Staging(root, "process", {"pid": 1})
    path = file_in(own, "k")
    own.append(A_LINE, [path])
    own.give_back(path.parent)
    timer = own._timer
    own.settle()

    own.close()
    timer.join(60)

    assert not timer.is_alive()
    assert not own.folder.exists()


def test_finished_runs_are_gathered_in_one_slot_until_they_are_synced(root):
    own = Staging(root, "process", {"pid": 1})
    first = own.take()
    for name in "kl":
        (first / name).write_text(name)
        places = [own.gather(first, name)]
    own.sync()
    (first / "m").write_text("m")
    places.append(own.gather(first, "m"))

    assert places[0] not in (first, places[1])
    assert [sorted(os.listdir(place)) for place in (first, *places)] == [[], ["k", "l"], ["m"]]


def test_run_that_has_the_name_of_another_stays_in_its_slot(root):
    own = Staging(root, "process", {"pid": 1})
    slots = [file_in(own, "k").parent for _ in range(2)]

    places = [own.gather(slot, "k") for slot in slots]

    assert places[0] not in slots
    assert places[1] == slots[1]


def test_slot_of_which_the_run_was_gathered_is_the_next_to_be_used(root):
    outcomes = work(root, write, sweep="sweep")(jobs(5))

    (folder,) = sidecars.process_folders(root)
    assert sorted(path.name for path in folder.iterdir() if path.is_dir()) == ["0", "1"]
    assert {outcome.slot for outcome in outcomes} == {"1"}


@pytest.mark.parametrize("name", [sidecars.SIDECAR, "process", "0"])
def test_lines_that_the_disk_refuses_are_trouble_of_all_that_they_note(root, refusing, name):
    own = Staging(root, "process", {"pid": 1})
    paths = [file_in(own, name) for name in "kl"]
    for number, path in enumerate(paths):
        own.append({"record_id": path.name, "attempt": f"a{number}"}, [path])
    refusing.add(name)

    assert set(own.sync(["a0", "a1"])) == ({"a0"} if name == "0" else {"a0", "a1"})


def test_notes_of_a_process_that_is_gone_are_synced_by_who_takes_them_over(root):
    other = Staging(root, "process", {"pid": 1})
    path = file_in(other, "k")
    other.append(A_LINE, [path])

    with disk_order() as order:
        trouble = sync_noted(root, "process", {"a1": path})
    other.sync()

    assert trouble == {}
    assert synced(order) == ["k", "0", sidecars.SIDECAR, "process"]


def test_folder_that_has_gone_with_all_its_lines_is_no_trouble(root):
    assert sync_noted(root, "process", {"a1": root / ".entropic" / "process" / "0" / "k"}) == {}


# Runs


def work(root, runner, **fields):
    return Work(runner, str(root), MARKER, **fields)


def jobs(count: int) -> list[Job]:
    return [Job(f"k{n}", f"k{n}.txt", {"a": float(n)}, {"a": float(n)}) for n in range(count)]


def write(params):
    Path(params["result_file"]).write_text(str(params["a"]))


def test_chunk_syncs_its_short_runs_together_before_any_is_reported(root):
    with disk_order() as order:
        outcomes = work(root, write, sweep="sweep")(jobs(3))

    own = staging_for(root, outcomes[0].folder, {}).folder.name
    (slot,) = {outcome.slot for outcome in outcomes}
    # Its folder and what is above are made first, then all runs go on.
    names = ["k0.txt", "k1.txt", "k2.txt", slot, sidecars.SIDECAR, own]
    assert synced(order) == [root.name, sidecars.PROCESS, ".entropic", *names]
    assert all(outcome.is_synced for outcome in outcomes)


def test_run_that_is_not_short_is_on_the_disk_before_the_next_begins(root, monkeypatch):
    clock = [0.0]
    monkeypatch.setattr(time, "perf_counter", lambda: clock[0])
    begun = []

    def runner(params):
        begun.append(synced(order)[3:])
        clock[0] += params["a"]
        write(params)

    with disk_order() as order:
        outcomes = work(root, runner, sweep="sweep")(jobs(3)[::-1])  # 2 s, 1 s, no time

    own = outcomes[0].folder
    assert begun == [
        [],
        ["k2.txt", sidecars.SIDECAR, own],
        ["k2.txt", sidecars.SIDECAR, own, "k1.txt", sidecars.SIDECAR, own],
    ]


def test_single_run_is_on_the_disk_before_it_is_reported(root):
    with disk_order() as order:
        (outcome,) = work(root, write)(jobs(1))

    assert outcome.is_synced
    assert synced(order)[3:] == ["k0.txt", sidecars.SIDECAR, outcome.folder]


def test_run_that_cannot_be_noted_leaves_nothing(root, monkeypatch):
    def full(self, *_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Staging, "append", full)

    outcomes = work(root, write, sweep="sweep")(jobs(2))

    assert [outcome.error().errno for outcome in outcomes] == [errno.ENOSPC] * 2
    (folder,) = sidecars.process_folders(root)
    assert list(folder.glob("*/*")) == []


def test_run_that_the_disk_does_not_keep_has_failed_and_the_others_have_not(root, refusing):
    refusing.add("k1.txt")

    outcomes = work(root, write, sweep="sweep")(jobs(3))

    assert [type(outcome) for outcome in outcomes] == [Receipt, Failure, Receipt]
    assert outcomes[1].error().errno == errno.EIO
    (folder,) = sidecars.process_folders(root)
    # Without it its line counts for nothing.
    assert sorted(path.name for path in folder.glob("*/*")) == ["k0.txt", "k2.txt"]


def test_single_run_that_the_disk_does_not_keep_has_failed(root, refusing):
    refusing.add(sidecars.SIDECAR)

    (outcome,) = work(root, write)(jobs(1))

    assert isinstance(outcome, Failure)
    (folder,) = sidecars.process_folders(root)
    assert list(folder.glob("*/*")) == []


def test_runs_before_one_that_ends_its_worker_are_on_the_disk(root):
    def runner(params):
        if params["a"] == 2:
            raise KeyboardInterrupt
        write(params)

    with disk_order() as order, pytest.raises(KeyboardInterrupt):
        work(root, runner, sweep="sweep")(jobs(3))

    assert synced(order)[3:7] == ["k0.txt", "k1.txt", "1", sidecars.SIDECAR]


# Commits


def before_publishing(order, results: Path) -> list[str]:
    """What was synced before the first result was moved to its place."""
    first = next(
        n for n, (what, path) in enumerate(order) if what == "renamed" and Path(path).parent == results
    )
    return synced(order[:first])


@pytest.mark.parametrize("threads", [0, 2])
def test_sweep_in_this_process_commits_what_it_has_synced_together(place, store, threads):
    with disk_order() as order, ThreadPoolExecutor(max(1, threads)) as executor:
        sets = [{"a": float(n)} for n in range(20)]
        records = store.sweep(sets, progress=False, executor=executor if threads else None)

    published = [
        (at, Path(path).name)
        for at, (what, path) in enumerate(order)
        if what == "renamed" and Path(path).parent == place.results
    ]
    assert {name for _, name in published} == {Path(record.result_file).name for record in records}
    for at, name in published:
        assert {name, sidecars.SIDECAR} <= set(synced(order[:at]))
    assert synced(order).count(sidecars.SIDECAR) < 20


def test_finished_run_of_a_dead_process_is_synced_before_it_is_committed(place, store):
    left = Left(place)
    staged = left.finish(1.5, "1")

    with disk_order() as order:
        store.recover()

    first = before_publishing(order, place.results)
    assert staged.name in first
    assert sidecars.SIDECAR in first
    assert left.folder.name in first


def test_finished_run_that_the_disk_does_not_keep_is_not_recovered(place, store, refusing, caplog):
    left = Left(place)
    staged = left.finish(1.5, "1")
    refusing.add(staged.name)

    store.recover()

    assert store.count() == 0
    assert "could not be brought to the disk" in caplog.text
    assert list((place.results / ".entropic" / "quarantine").glob(f"*/{staged.name}"))


def test_finished_run_of_a_process_that_may_live_is_neither_synced_nor_put_aside(place, store, refusing):
    process = elsewhere()
    left = Left(place, process)
    staged = left.finish(1.5, "1")
    claim(place, store.key({"a": 1.5}), process, left_s=60.0)
    refusing.add(staged.name)

    store.recover()

    assert staged.exists()
    assert not (place.results / ".entropic" / "quarantine").exists()


def test_run_of_a_serial_sweep_that_the_disk_does_not_keep_has_failed_alone(place, store, refusing):
    bad = store.key({"a": 1.0})
    suffix = Path(store.run_or_retrieve({"a": 9.0}).result_file).suffix
    refusing.add(f"{bad}{suffix}")

    result = store.sweep([{"a": float(n)} for n in range(3)], progress=False, on_error="continue")

    assert [failed.id for failed in result.failed] == [bad]
    assert [failed.exception.errno for failed in result.failed] == [errno.EIO]
    assert [failure.id for failure in store.failures()] == [bad]
    assert store.count() == 3
    assert place.sql("SELECT count(*) FROM entropic_claims") == [(0,)]
    assert store.run_or_retrieve({"a": 1.0}) is not None


# A move that a power cut took back


def test_committed_result_that_lies_in_its_slot_is_moved_to_its_place_again(place, store, caplog):
    left = Left(place)
    staged = left.finish(1.5, "1")
    line = left.sidecar.read_bytes()
    process = (left.folder / sidecars.PROCESS).read_bytes()
    store.recover()
    record = store.retrieve({"a": 1.5})
    expected = Path(record.result_file).read_bytes()
    staged.parent.mkdir(parents=True)
    (left.folder / sidecars.PROCESS).write_bytes(process)
    left.sidecar.write_bytes(line)
    os.replace(record.result_file, staged)

    store.recover()

    assert Path(store.retrieve({"a": 1.5}).result_file).read_bytes() == expected
    assert "in its place again" in caplog.text
    assert not left.folder.exists()
