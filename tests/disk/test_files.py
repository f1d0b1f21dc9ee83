"""Files on their way: what a slot holds, what a sidecar says, and what is never overwritten or half there."""

import hashlib
import json
import logging
import os
import resource
import signal
import threading
from pathlib import Path

import pytest

from entropic.disk import files, roots, sidecars
from entropic.disk import staging as staging_module
from entropic.disk.files import digest_of, newest_change, size_of
from entropic.disk.roots import Marker, quarantine
from entropic.disk.sidecars import SidecarIndex, read_sidecar
from entropic.disk.staged import Staged, stage
from entropic.disk.staging import Staging, move
from entropic.errors import ResultFileError, ResultFileMissingError
from tests.support.disk_order import DiskOrder, disk_order
from tests.support.processes import run_together

MINE = Marker("root", "database", "table")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    roots.write_marker(tmp_path, MINE)
    return tmp_path


@pytest.fixture
def staging(root: Path) -> Staging:
    return Staging(root, "process", {"pid": 1})


def line(record_id: str = "k", attempt: str = "a1") -> dict[str, str]:
    return {"record_id": record_id, "attempt": attempt}


def synced(order: DiskOrder) -> list[str]:
    """What was synced, by path."""
    return [path for what, path in order if what == "synced"]


# Stage and digest


def test_stage_of_the_wanted_file_gives_its_size_and_digest(staging):
    slot = staging.take()
    (slot / "k.h5").write_bytes(b"result")

    staged = stage(slot, "k.h5")

    assert staged == Staged("k.h5", 6, hashlib.sha256(b"result").hexdigest())


def test_stage_takes_a_file_of_another_name_and_says_so(staging, caplog):
    slot = staging.take()
    (slot / "k.h5.npy").write_bytes(b"result")

    with caplog.at_level(logging.INFO, "entropic.disk.staged"):
        staged = stage(slot, "k.h5")

    assert staged.name == "k.h5.npy"
    assert [(r.levelname, "k.h5.npy" in r.getMessage()) for r in caplog.records] == [("INFO", True)]


def test_stage_of_an_empty_slot_raises_and_names_the_path(staging):
    slot = staging.take()

    with pytest.raises(ResultFileMissingError, match=str(slot / "k.h5")):
        stage(slot, "k.h5")


def test_stage_of_two_files_raises_and_keeps_both(staging, root):
    slot = staging.take()
    (slot / "k.h5").write_bytes(b"one")
    (slot / "extra").write_bytes(b"two")

    with pytest.raises(ResultFileError, match=r"k\.h5") as caught:
        stage(slot, "k.h5")

    kept = {p.name: p.read_bytes() for p in (root / roots.STATE / roots.QUARANTINE).rglob("*") if p.is_file()}
    assert kept == {"k.h5": b"one", "extra": b"two"}
    assert not isinstance(caught.value, ResultFileMissingError)
    assert "extra" in str(caught.value)


def test_stage_syncs_the_file(staging):
    slot = staging.take()
    (slot / "k.h5").write_bytes(b"result")

    with disk_order() as order:
        stage(slot, "k.h5")

    assert synced(order) == [str(slot / "k.h5")]


def test_stage_syncs_every_file_and_folder_of_a_folder(staging):
    slot = staging.take()
    (slot / "k" / "sub").mkdir(parents=True)
    (slot / "k" / "sub" / "part").write_bytes(b"x")
    (slot / "k" / "top").write_bytes(b"y")

    with disk_order() as order:
        stage(slot, "k")

    expected = {slot / "k", slot / "k" / "sub", slot / "k" / "sub" / "part", slot / "k" / "top"}
    assert set(synced(order)) == {str(path) for path in expected}


def folder_of(parent: Path, name: str, content: dict[str, bytes]) -> Path:
    for relative, data in content.items():
        path = parent / name / relative
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return parent / name


def test_digest_of_a_folder_does_not_depend_on_its_name_or_the_order_of_writing(tmp_path):
    one = folder_of(tmp_path, "one", {"a": b"1", "b/c": b"22"})
    two = folder_of(tmp_path, "two", {"b/c": b"22", "a": b"1"})

    assert digest_of(one) == digest_of(two)
    assert digest_of(one)[0] == 3


@pytest.mark.parametrize(
    "other",
    [
        {"a": b"1", "b/c": b"23"},
        {"a": b"1", "b/d": b"22"},
        {"a": b"12", "b/c": b"2"},
        {"a": b"1"},
        {"a/b": b"1", "c": b"22"},
    ],
    ids=["content", "name", "border", "missing", "place"],
)
def test_digest_of_folders_that_differ_differs(tmp_path, other):
    one = folder_of(tmp_path, "one", {"a": b"1", "b/c": b"22"})
    two = folder_of(tmp_path, "two", other)

    assert digest_of(one)[1] != digest_of(two)[1]


def test_digest_of_a_file_larger_than_a_block_is_that_of_its_bytes(tmp_path):
    data = os.urandom((1 << 20) + 17)
    (tmp_path / "big").write_bytes(data)

    assert digest_of(tmp_path / "big") == (len(data), hashlib.sha256(data).hexdigest())


def test_links_in_a_users_folder_count_for_the_files_that_they_lead_to_and_folders_for_nothing(tmp_path):
    plain = folder_of(tmp_path, "plain", {"a": b"1", "b": b"22"})
    linked = folder_of(tmp_path, "linked", {"a": b"1"})
    (linked / "b").symlink_to(plain / "b")
    (linked / "c").symlink_to(plain)

    assert digest_of(linked) == digest_of(plain)
    assert size_of(linked) == 3


def test_link_in_a_users_folder_that_leads_nowhere_is_not_left_out(tmp_path):
    linked = folder_of(tmp_path, "linked", {"a": b"1"})
    (linked / "b").symlink_to(tmp_path / "nowhere")

    for measure in (digest_of, size_of):
        with pytest.raises(FileNotFoundError):
            measure(linked)


def test_folder_in_a_slot_that_becomes_a_link_after_the_look_is_not_followed(root, monkeypatch):
    folder = folder_of(root / roots.STATE / "process" / "0", "k", {"a": b"1"})
    real = os.open

    def late(name, *args, **kwargs):
        if name == "k":
            folder.rename(root / "elsewhere")
            folder.symlink_to(root / "elsewhere")
        return real(name, *args, **kwargs)

    monkeypatch.setattr(os, "open", late)

    with pytest.raises(OSError, match=r"Not a directory|symbolic links"):
        digest_of(folder)

    assert folder.is_symlink()


@pytest.mark.parametrize("newest", ["", "part", "sub", "sub/part", "link"])
def test_newest_change_is_that_of_a_folder_or_of_anything_in_it(root, newest):
    folder = folder_of(root / roots.STATE, "process", {"part": b"1", "sub/part": b"2"})
    (root / "elsewhere").touch()
    (folder / "link").symlink_to(root / "elsewhere")
    for path in [folder, *folder.rglob("*")]:
        os.utime(path, (1000, 1000), follow_symlinks=False)
    os.utime(folder / newest, (2000, 2000), follow_symlinks=False)

    assert newest_change(folder) == 2000


# The marker of a folder


def test_marker_that_was_written_is_read_back(root):
    assert roots.read_marker(root) == MINE


def test_marker_is_never_overwritten_unless_it_is_to_be_replaced(root):
    with pytest.raises(FileExistsError):
        roots.write_marker(root, Marker("another", "database", "table"))
    kept = roots.read_marker(root)
    roots.write_marker(root, Marker("another", "database", "table"), replace=True)

    assert kept == MINE
    assert roots.read_marker(root) == Marker("another", "database", "table")
    assert os.listdir(root) == [roots.MARKER]


def write_marker_of(folder: Path, name: str) -> bool:
    try:
        roots.write_marker(folder, Marker(name, "database", "table"))
    except FileExistsError:
        return False
    return True


def test_marker_that_eight_processes_write_at_once_is_that_of_one(tmp_path):
    names = [f"root{n}" for n in range(8)]

    won = run_together(write_marker_of, [(tmp_path, name) for name in names])

    found = roots.read_marker(tmp_path)
    assert [name for name, has_won in zip(names, won, strict=True) if has_won] == [found.root]
    assert os.listdir(tmp_path) == [roots.MARKER]


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"root": "r"}', b"\xff\xfe"])
def test_marker_that_cannot_be_read_is_none(tmp_path, content):
    (tmp_path / roots.MARKER).write_bytes(content)

    assert roots.read_marker(tmp_path) is None


# Slots


def test_slots_of_two_runs_at_once_are_two_and_empty(staging):
    one, two = staging.take(), staging.take()

    assert one != two
    assert os.listdir(one) == os.listdir(two) == []


def test_slot_is_used_again_once_its_file_has_been_moved(staging, root):
    first = staging.take()
    (first / "k").write_bytes(b"x")
    staging.give_back(first)
    while_full = staging.take()
    move(first / "k", root / "k")
    staging.give_back(while_full)

    reused = {staging.take(), staging.take()}

    assert while_full != first
    assert reused == {first, while_full}


def test_slot_of_a_failed_run_goes_with_what_is_in_it_and_is_not_used_again(staging):
    slot = staging.take()
    (slot / "part").write_bytes(b"x")
    (slot / "folder").mkdir()
    (slot / "folder" / "part").write_bytes(b"x")

    staging.retire(slot, clear=True)

    assert not slot.exists()
    assert slot not in {staging.take(), staging.take()}


def test_slot_that_is_retired_goes_once_its_file_has_been_moved(staging, root):
    slot = staging.take()
    (slot / "k").write_bytes(b"x")
    staging.retire(slot)
    while_full = staging.take()
    move(slot / "k", root / "k")

    assert slot.exists()
    assert slot not in {while_full, staging.take()}
    assert not slot.exists()


def test_slot_is_used_once_it_was_given_back(staging):
    slot = staging.take()
    fresh = staging.is_used(slot)
    staging.give_back(slot)

    assert staging.take() == slot
    assert (fresh, staging.is_used(slot)) == (False, True)


def test_slots_taken_by_many_threads_are_all_different(staging):
    taken: list[Path] = []
    threads = [threading.Thread(target=lambda: taken.append(staging.take())) for _ in range(16)]

    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len(set(taken)) == 16


def test_slot_that_was_quarantined_is_not_handed_out_again(staging):
    slot = staging.take()
    quarantine(slot)
    staging.retire(slot, clear=True)

    fresh = staging.take()

    assert fresh.is_dir()
    assert os.listdir(fresh) == []


def test_folders_that_are_made_have_names_that_survive(tmp_path):
    with disk_order() as order:
        files.make_folders(tmp_path / "a" / "b")
        files.make_folders(tmp_path / "a" / "b")

    assert synced(order) == [str(tmp_path), str(tmp_path / "a")]


# Sidecars


def test_line_is_on_the_disk_when_it_was_synced(staging):
    staging.take()

    with disk_order() as order:
        staging.append(line())
        staging.sync()

    sidecar = staging.folder / sidecars.SIDECAR
    assert str(sidecar) in synced(order)
    assert [json.loads(text) for text in sidecar.read_text().splitlines()] == [line()]


def test_first_line_makes_the_name_of_the_sidecar_survive_too(staging):
    staging.take()

    with disk_order() as first:
        staging.append(line())
        staging.sync()
    with disk_order() as second:
        staging.append(line(attempt="a2"))
        staging.sync()

    assert str(staging.folder) in synced(first)
    assert synced(second) == [str(staging.folder / sidecars.SIDECAR)]


def append_on_a_full_disk(root: Path) -> list[str]:
    """Append three lines, the second while files may not grow that far; return the attempts that are read back."""
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    staging = Staging(root, "process", {"pid": 1})
    staging.take()
    staging.append(line())
    size = (staging.folder / sidecars.SIDECAR).stat().st_size
    resource.setrlimit(resource.RLIMIT_FSIZE, (size + 10, resource.RLIM_INFINITY))
    try:
        staging.append(line(attempt="lost"))
    except OSError as error:
        said = str(error)
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    staging.append(line(attempt="a2"))
    return [said, *(one["attempt"] for one in read_sidecar(staging.folder).lines)]


def test_line_for_which_the_disk_was_too_full_spoils_no_other(root):
    (found,) = run_together(append_on_a_full_disk, [(root,)])

    assert "disk is full" in found[0]
    assert found[1:] == ["a1", "a2"]


def test_sidecar_says_who_writes_it(staging):
    staging.take()
    staging.append(line())

    sidecar = read_sidecar(staging.folder)

    assert sidecar.process == {"pid": 1}
    assert (sidecar.lines, sidecar.malformed) == ([line()], 0)


def test_torn_last_line_counts_for_nothing(staging):
    staging.take()
    staging.append(line())
    with (staging.folder / sidecars.SIDECAR).open("ab") as file:
        file.write(b'{"record_id": "k2", "att')

    sidecar = read_sidecar(staging.folder)

    assert (sidecar.lines, sidecar.malformed) == ([line()], 0)


@pytest.mark.parametrize(
    "bad", [b"no json", b"[]", b"17", b'{"record_id": "k"}', b"\xff\xfe", b"", b'{"attempt": "a"}']
)
def test_malformed_line_in_the_middle_is_counted_and_the_others_are_read(staging, bad):
    staging.take()
    staging.append(line())
    with (staging.folder / sidecars.SIDECAR).open("ab") as file:
        file.write(bad + b"\n")
    staging.append(line(attempt="a2"))

    sidecar = read_sidecar(staging.folder)

    assert [one["attempt"] for one in sidecar.lines] == ["a1", "a2"]
    assert sidecar.malformed == 1


def test_folder_without_anything_readable_is_an_empty_sidecar(root):
    folder = root / roots.STATE / "strange"
    folder.mkdir(parents=True)
    (folder / sidecars.PROCESS).write_bytes(b"\xff no json")

    sidecar = read_sidecar(folder)

    assert (sidecar.process, sidecar.lines, sidecar.malformed) == ({}, [], 0)


def test_index_reads_what_was_appended_since(staging, root):
    staging.take()
    staging.append(line("k1"))
    index = SidecarIndex(root)
    index.refresh()
    before = (index.get("k1"), index.get("k2"))
    staging.append(line("k2"))
    index.refresh()

    assert before == ([{**line("k1"), "folder": "process"}], [])
    assert index.get("k2") == [{**line("k2"), "folder": "process"}]


def test_index_reads_a_sidecar_that_was_emptied_and_begun_anew(staging, root):
    staging.take()
    staging.append(line("k1-with-a-long-name"))
    index = SidecarIndex(root)
    index.refresh()
    staging.settle()
    staging.forget()
    staging.append(line("k2"))

    index.refresh()

    assert len(index.get("k2")) == 1


def test_index_leaves_out_the_folder_that_is_to_be_skipped(staging, root):
    staging.take()
    staging.append(line("k1"))
    index = SidecarIndex(root)

    index.refresh(skip="process")

    assert index.get("k1") == []


# The end of a process's folder


def test_sidecar_is_due_after_many_lines_when_all_are_committed(staging, monkeypatch):
    monkeypatch.setattr(staging_module, "LINES", 3)
    staging.take()
    due = []
    for n in range(3):
        staging.append(line(attempt=f"a{n}"))
        due.append(staging.settle())
    staging.append(line(attempt="open"))
    staging.append(line(attempt="a4"))

    assert due == [False, False, True]
    assert staging.settle() is False
    assert staging.settle() is True


def test_forget_keeps_a_sidecar_with_a_line_that_is_not_committed(staging):
    staging.take()
    staging.append(line())
    staging.forget()
    kept = read_sidecar(staging.folder).lines
    staging.settle()
    staging.forget()

    assert kept == [line()]
    assert read_sidecar(staging.folder).lines == []


def test_close_keeps_a_folder_with_a_line_that_is_not_committed(staging):
    staging.give_back(staging.take())
    staging.append(line())
    staging.close()
    kept = staging.folder.is_dir()
    staging.settle()
    staging.close()

    assert kept
    assert not staging.folder.exists()


def test_staging_can_be_used_again_after_its_folder_went(staging):
    staging.give_back(staging.take())
    staging.append(line())
    staging.settle()
    staging.close()

    slot = staging.take()
    staging.append(line(attempt="a2"))

    assert slot.is_dir()
    assert [one["attempt"] for one in read_sidecar(staging.folder).lines] == ["a2"]


def test_staging_whose_folder_others_cleared_away_begins_anew(staging):
    staging.take()
    staging.append(line())
    files.remove(staging.folder)

    gone = staging.is_gone()
    slot = staging.take()
    staging.append(line(attempt="a2"))

    assert gone
    assert slot.is_dir()
    assert [one["attempt"] for one in read_sidecar(staging.folder).lines] == ["a2"]


# Move and quarantine


def test_move_replaces_a_file_in_one_step(tmp_path):
    (tmp_path / "new").write_bytes(b"new")
    (tmp_path / "final").write_bytes(b"old")

    move(tmp_path / "new", tmp_path / "final")

    assert (tmp_path / "final").read_bytes() == b"new"
    assert not (tmp_path / "new").exists()


def test_move_of_a_file_that_was_moved_already_is_fine(tmp_path):
    (tmp_path / "final").write_bytes(b"there")

    move(tmp_path / "new", tmp_path / "final")

    assert (tmp_path / "final").read_bytes() == b"there"


def test_move_of_nothing_to_nothing_raises(tmp_path):
    with pytest.raises(FileNotFoundError):
        move(tmp_path / "new", tmp_path / "final")


@pytest.mark.parametrize("new_is_folder", [True, False])
@pytest.mark.parametrize("old_is_folder", [True, False])
def test_move_over_what_a_rename_cannot_replace_keeps_the_old_in_quarantine(
    root, new_is_folder, old_is_folder
):
    new, final = root / "new", root / "final"
    for path, is_folder in ((new, new_is_folder), (final, old_is_folder)):
        if is_folder:
            path.mkdir()
            (path / "part").write_text(path.name)
        else:
            path.write_text(path.name)

    move(new, final)

    content = (final / "part" if new_is_folder else final).read_text()
    kept = list((root / roots.STATE / roots.QUARANTINE).rglob("final"))
    assert content == "new"
    assert len(kept) == (new_is_folder or old_is_folder)


def test_quarantine_keeps_two_of_the_same_name_apart(root):
    for content in ("one", "two"):
        (root / "k").write_text(content)
        quarantine(root / "k")

    kept = (root / roots.STATE / roots.QUARANTINE).rglob("k")

    assert sorted(path.read_text() for path in kept) == ["one", "two"]


def test_quarantine_is_no_folder_of_a_process(root):
    (root / "k").write_text("x")
    quarantine(root / "k")

    assert list(sidecars.process_folders(root)) == []


def test_remove_of_a_link_leaves_what_it_points_to(tmp_path):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "part").write_text("x")
    (tmp_path / "link").symlink_to(tmp_path / "data")

    files.remove(tmp_path / "link")
    files.remove(tmp_path / "not there")

    assert not (tmp_path / "link").is_symlink()
    assert (tmp_path / "data" / "part").read_text() == "x"
