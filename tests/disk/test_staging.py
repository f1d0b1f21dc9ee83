"""A process's own folder: what of it is on the disk by name, and who may use a slot."""

import itertools
import os
import shutil
import stat
from pathlib import Path

import pytest

from entropic.disk import roots, sidecars, staging
from entropic.disk.files import digest_of
from entropic.disk.roots import Marker
from entropic.disk.sidecars import read_sidecar
from entropic.disk.staged import stage
from entropic.disk.staging import Staging, move, staging_for
from entropic.errors import ResultFileError
from entropic.process.identity import this_process
from tests.support.disk_order import disk_order
from tests.support.garbage import at_each_collection
from tests.support.processes import open_files


@pytest.fixture
def root(tmp_path: Path) -> Path:
    roots.write_marker(tmp_path, Marker("root", "database", "table"))
    return tmp_path


def line(record_id: str = "k", attempt: str = "a1") -> dict[str, str]:
    return {"record_id": record_id, "attempt": attempt}


def test_names_of_the_state_folder_and_of_the_processs_own_are_on_the_disk_before_a_slot_is_used(root):
    """Else a power cut takes the folder with all its synced lines."""
    staging = Staging(root, "process", {"pid": 1})

    with disk_order() as order:
        slot = staging.take()

    names = [one for one in order if one[0] in {"made", "synced"}]
    assert names == [
        ("made", str(root / ".entropic")),
        ("synced", str(root)),
        ("made", str(root / ".entropic" / "process")),
        ("synced", str(root / ".entropic" / "process" / "process.json")),
        ("synced", str(root / ".entropic")),
        ("made", str(slot)),
    ]


def test_second_line_after_a_new_slot_makes_that_slots_name_survive(root):
    staging = Staging(root, "process", {"pid": 1})
    staging.take()
    staging.append(line())
    staging.sync()
    staging.take()

    with disk_order() as order:
        staging.append(line(attempt="a2"))
        staging.sync()

    assert ("synced", str(staging.folder)) in order


@pytest.mark.parametrize("error", [PermissionError(13, "refused"), OSError(28, "No space left on device")])
def test_move_that_the_disk_refuses_raises_its_error_and_leaves_both(root, monkeypatch, error):
    (root / "new").write_text("new")
    (root / "final").write_text("old")
    real = sidecars.os.replace

    def refuse(source, target, **folders):
        if Path(source).name == "new":
            raise error
        real(source, target, **folders)

    with monkeypatch.context() as patch:
        patch.setattr("os.replace", refuse)
        with pytest.raises(OSError, match=r"refused|No space") as caught:
            move(root / "new", root / "final")

    assert caught.value is error
    assert ((root / "new").read_text(), (root / "final").read_text()) == ("new", "old")
    assert not (root / roots.STATE).exists()


def test_group_may_write_where_the_umask_lets_it_and_the_world_nowhere(root):
    """Whoever of the group recovers a run moves it out of its slot; of what the world may write nothing is believed."""
    root.chmod(0o777)
    before = os.umask(0)
    try:
        staging = Staging(root, "process", {"pid": 1})
        slot = staging.take()
        staging.append(line())
    finally:
        os.umask(before)

    folders = [root / roots.STATE, staging.folder, slot]
    assert [stat.S_IMODE(path.stat().st_mode) for path in folders] == [0o775] * 3
    files = [staging.folder / name for name in (sidecars.SIDECAR, sidecars.PROCESS)]
    assert [stat.S_IMODE(path.stat().st_mode) for path in files] == [0o664] * 2


# Slots and their folder


def test_slot_that_is_full_yet_waits_behind_the_others(root):
    staging = Staging(root, "process", {"pid": 1})
    full, empty = staging.take(), staging.take()
    (full / "k").write_text("x")
    staging.give_back(full)
    staging.give_back(empty)

    first, second = staging.take(), staging.take()
    (full / "k").unlink()

    assert first not in {full, empty}  # one look is enough: a slot costs less than many looks
    assert second == empty
    assert staging.take() == full


def test_folder_that_others_cleared_away_is_gone_and_holds_no_file_open(root):
    staging = Staging(root, "process", {"pid": 1})
    before_use = staging.is_gone()
    staging.take()
    staging.append(line())
    in_use = staging.is_gone()
    sidecar = str(staging.folder / "sidecar.jsonl")
    was_open = sidecar in open_files()
    shutil.rmtree(staging.folder)

    assert (before_use, in_use, was_open) == (False, False, True)
    assert staging.is_gone()
    assert not any(path.startswith(sidecar) for path in open_files())


def test_sidecar_is_closed_with_its_folder_and_opened_anew_with_the_next(root):
    staging = Staging(root, "process", {"pid": 1})
    staging.give_back(staging.take())
    staging.append(line())
    staging.settle()
    staging.close()
    closed = not any(path.startswith(str(staging.folder)) for path in open_files())
    staging.take()
    staging.append(line(attempt="a2"))

    assert closed
    assert read_sidecar(staging.folder).process == {"pid": 1}
    assert [one["attempt"] for one in read_sidecar(staging.folder).lines] == ["a2"]


@pytest.mark.parametrize("way", ["give_back", "retire"])
def test_folder_in_which_a_run_goes_on_is_not_removed(root, way):
    staging = Staging(root, "process", {"pid": 1})
    going, ended = staging.take(), staging.take()
    staging.give_back(ended)
    (going / "half").touch()

    staging.close()
    is_there, was_in_use = (going / "half").exists(), staging.is_in_use()
    getattr(staging, way)(going)
    staging.close()

    assert (is_there, was_in_use, staging.is_in_use()) == (True, True, False)
    assert not staging.folder.exists()


def test_lines_are_counted_anew_after_the_sidecar_was_emptied(root, monkeypatch):
    monkeypatch.setattr("entropic.disk.staging.LINES", 2)
    staging = Staging(root, "process", {"pid": 1})
    staging.take()
    due = []
    for n in range(4):
        staging.append(line(attempt=f"a{n}"))
        due.append(staging.settle())
        if due[-1]:
            staging.forget()

    assert due == [False, True, False, True]


def test_process_that_has_noted_nothing_has_nothing_to_forget(root):
    staging = Staging(root, "process", {"pid": 1})
    staging.take()

    staging.forget()

    assert not (staging.folder / sidecars.SIDECAR).exists()


def test_several_lines_are_settled_at_once(root, monkeypatch):
    monkeypatch.setattr("entropic.disk.staging.LINES", 2)
    staging = Staging(root, "process", {"pid": 1})
    staging.take()
    for n in range(3):
        staging.append(line(attempt=f"a{n}"))

    assert (staging.settle(2), staging.settle()) == (False, True)


def test_folder_of_a_name_is_the_same_each_time_and_says_who_holds_the_claims(root):
    holder = {"owner": "another"}
    one = staging_for(root, "process", holder)
    one.take()

    assert staging_for(root, "process", holder) is one
    assert staging_for(root, "another", holder) is not one
    said = read_sidecar(one.folder).process
    assert said == {**this_process().as_dict(), "holder": holder}


def test_folders_that_are_gone_are_forgotten_when_another_is_made(root):
    one = staging_for(root, "first", {})
    one.take()
    shutil.rmtree(one.folder)
    staging_for(root, "second", {})

    assert staging_for(root, "first", {}) is not one


def test_slots_of_a_folder_that_is_made_anew_have_other_names(root):
    """What a run has left behind may write to one of before."""
    name = this_process().owner
    before = staging_for(root, name, {})
    slots = [before.take()]
    before.give_back(slots[0])
    before.close()
    slots.append(before.take())
    shutil.rmtree(before.folder)
    staging_for(root, "another", {})

    anew = staging_for(root, name, {})
    slots.append(anew.take())

    assert anew is not before
    assert len(set(slots)) == 3


# Links in what a runner wrote


def test_folder_may_be_made_while_another_thread_makes_one(root, monkeypatch):
    for number in range(50):
        staging_for(root, f"old-{number}", {})
    names = itertools.count()

    def make_another():
        name = f"new-{next(names)}"
        staging._staging[name, name, name] = Staging(root, name, {})

    monkeypatch.setattr(staging, "_staging", staging._staging.copy())
    with at_each_collection(make_another):
        made = staging_for(root, "mine", {})

    assert next(names) > 0
    assert staging_for(root, "mine", {}) is made


def test_links_in_a_folder_are_copies_afterwards_however_deep(root):
    elsewhere = root / "elsewhere"
    elsewhere.write_text("kept")
    slot = Staging(root, "process", {"pid": 1}).take()
    deep = slot / "k" / "a" / "b"
    deep.mkdir(parents=True)
    for link in (slot / "k" / "top", deep / "part"):
        link.symlink_to(elsewhere)

    stage(slot, "k")
    elsewhere.write_text("changed")

    assert [(path.is_symlink(), path.read_text()) for path in (slot / "k" / "top", deep / "part")] == [
        (False, "kept")
    ] * 2
    assert sorted(path.name for path in deep.iterdir()) == ["part"]


@pytest.mark.parametrize("place", ["k", "k/part"])
def test_file_that_has_another_name_is_a_copy_afterwards(root, place):
    elsewhere = root / "elsewhere"
    elsewhere.write_text("kept")
    slot = Staging(root, "process", {"pid": 1}).take()
    path = slot / place
    path.parent.mkdir(exist_ok=True)
    path.hardlink_to(elsewhere)

    staged = stage(slot, "k")
    elsewhere.write_text("changed")

    assert path.read_text() == "kept"
    assert (staged.size_bytes, staged.sha256) == digest_of(slot / "k")
    assert len(list(path.parent.iterdir())) == 1


@pytest.mark.parametrize("place", ["k", "k/part"])
@pytest.mark.parametrize("target", ["folder", "nothing"])
def test_link_to_what_is_no_file_is_refused_and_named(root, place, target):
    (root / "folder").mkdir()
    slot = Staging(root, "process", {"pid": 1}).take()
    path = slot / place
    path.parent.mkdir(exist_ok=True)
    path.symlink_to(root / target)

    with pytest.raises(ResultFileError, match="is a link to") as caught:
        stage(slot, "k")

    assert str(path) in str(caught.value)
    assert str(root / target) in str(caught.value)


@pytest.mark.parametrize(
    ("wanted", "written", "is_said"),
    [
        ("k.h5", "k.h5", False),
        ("k", "k", False),
        ("k", "k.npy", False),
        ("k", "kk", True),
        ("k.h5", "k.h5.npy", True),
        ("k.h5", "other", True),
    ],
)
def test_name_that_was_not_asked_for_is_taken_and_said(root, caplog, wanted, written, is_said):
    slot = Staging(root, "process", {"pid": 1}).take()
    (slot / written).write_text("x")

    with caplog.at_level("INFO", "entropic"):
        staged = stage(slot, wanted)

    assert staged.name == written
    assert (f"was to write {wanted} and wrote {written}" in caplog.text) == is_said
