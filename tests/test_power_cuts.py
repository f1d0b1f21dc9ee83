"""The file system of the power cuts: it forgets what was not synced, never what was, and knows what strace says."""

import random
import shutil
import sys

import pytest

from tests.support.power_cuts import PAGE, Disk, Op, record, require_strace

ROOT, FOLDER, FILE, OTHER = 0, 1, 2, 3
DRAWS = 60


def after(*ops, count=None, **shares):
    """What may be there after a power cut: each tree once, in many draws that lose all they may."""
    disk = Disk(list(ops))
    shares = {"data": 1.0, "names": 1.0, **shares}
    trees = [
        disk.after(len(ops) if count is None else count, random.Random(seed), **shares).contents()
        for seed in range(DRAWS)
    ]
    return [tree for number, tree in enumerate(trees) if tree not in trees[:number]]


def make(inode=FILE, name="k", folder=ROOT):
    return Op("make", inode, ((folder, name),))


def sync(inode, since):
    return Op("sync", inode, since=since)


MADE = [make(), sync(ROOT, 1)]
WRITE = Op("write", FILE, data=b"new")


def test_what_was_not_synced_may_be_there_or_not():
    assert sorted(tree["k"] for tree in after(*MADE, WRITE)) == [b"", b"new"]


def test_what_was_synced_is_there():
    assert after(*MADE, WRITE, sync(FILE, 3)) == [{"k": b"new"}]


def test_sync_that_had_begun_before_does_not_count():
    assert len(after(*MADE, WRITE, sync(FILE, 2))) == 2


def test_sync_that_is_cut_off_does_not_count():
    assert len(after(*MADE, WRITE, sync(FILE, 3), count=3)) == 2


def test_sync_of_another_file_does_not_count():
    assert len(after(*MADE, make(OTHER, "l"), sync(ROOT, 3), WRITE, sync(OTHER, 4))) == 2


def test_pages_go_one_by_one():
    two = Op("write", FILE, at=PAGE - 1, data=b"ab")

    found = {tree["k"] for tree in after(*MADE, two)}

    first, second = bytes(PAGE - 1) + b"a", bytes(PAGE) + b"b"
    assert found == {b"", first, second, first + b"b"}


def test_cut_of_a_file_that_was_not_synced_may_be_undone():
    found = {tree["k"] for tree in after(*MADE, WRITE, sync(FILE, 3), Op("truncate", FILE, at=1))}

    assert found == {b"new", b"n"}


def test_name_that_was_not_synced_may_be_gone():
    assert sorted(map(len, after(make()))) == [0, 1]


def test_new_file_that_was_synced_has_its_name():
    assert after(make(), WRITE, sync(FILE, 2)) == [{"k": b"new"}]


def test_file_in_a_folder_that_has_no_name_is_gone():
    folder = Op("mkdir", FOLDER, ((ROOT, "d"),))

    assert {} in after(folder, make(folder=FOLDER), sync(FILE, 2), sync(FOLDER, 2))
    assert after(folder, make(folder=FOLDER), sync(FILE, 2), sync(ROOT, 1)) == [{"d": None, "d/k": b""}]


def test_rename_that_was_not_synced_is_done_or_not():
    rename = Op("rename", FILE, ((ROOT, "k"), (ROOT, "l")))

    assert sorted(map(list, after(*MADE, rename))) == [["k"], ["l"]]
    assert after(*MADE, rename, sync(ROOT, 3)) == [{"l": b""}]


def test_rename_over_a_file_leaves_the_one_or_the_other():
    other = make(OTHER, "l")
    rename = Op("rename", FILE, ((ROOT, "k"), (ROOT, "l")))

    found = after(*MADE, WRITE, sync(FILE, 3), other, sync(ROOT, 5), rename)

    assert sorted(found, key=len) == [{"l": b"new"}, {"k": b"new", "l": b""}]


def test_removal_that_was_not_synced_may_be_undone():
    remove = Op("remove", FILE, ((ROOT, "k"),))

    assert sorted(map(len, after(*MADE, remove))) == [0, 1]
    assert after(*MADE, remove, sync(ROOT, 3)) == [{}]


def test_names_of_a_folder_go_in_their_order():
    """The later ones first: the names of a folder are in one journal."""
    names = [make(inode, name) for inode, name in enumerate("abc", start=5)]

    assert sorted("".join(tree) for tree in after(*names)) == ["", "a", "ab", "abc"]


def test_killed_process_leaves_everything():
    assert Disk([make(), WRITE]).after(2).contents() == {"k": b"new"}


# What strace says


SCRIPT = """
import os, sys
root = sys.argv[1]
folder = os.open(root, os.O_RDONLY)
os.mkdir("d", dir_fd=folder)
with open(f"{root}/d/one", "wb") as file:
    file.write(b"\\x00\\xff" * 5000)
    file.flush()
    os.fsync(file.fileno())
with open(f"{root}/d/one", "ab") as file:
    file.write(b"end")
with open(f"{root}/two", "w+b", buffering=0) as file:
    file.write(b"abcdef")
    file.seek(2)
    file.write(b"C")
    os.ftruncate(file.fileno(), 5)
    os.pwrite(file.fileno(), b"x", 7)
os.link(f"{root}/two", f"{root}/three")
os.rename("two", "four", src_dir_fd=folder, dst_dir_fd=folder)
os.unlink(f"{root}/three")
os.fsync(folder)
open(f"{root}/d/gone", "w").close()
os.unlink(f"{root}/d/gone")
"""


@pytest.fixture
def root(tmp_path):
    folder = tmp_path / "disk"
    folder.mkdir()
    return folder


def recorded(script, root):
    return record([sys.executable, "-c", script, str(root)], root, root.parent / "log")


def test_record_has_every_change_and_sync_in_its_order(root):
    require_strace()

    disk = recorded(SCRIPT, root)  # which compares what it has with what is there

    whole = b"\x00\xff" * 5000
    assert disk.after(len(disk.ops)).contents() == {"d": None, "d/one": whole + b"end", "four": b"abCde\0\0x"}
    kinds = " ".join(op.kind for op in disk.ops)
    assert kinds == (
        "mkdir make write sync write make write write truncate write link rename remove sync make remove"
    )


def test_way_to_write_that_is_not_understood_is_an_error(root):
    require_strace()
    script = "import os, sys; open(sys.argv[1] + '/k', 'w').close(); os.truncate(sys.argv[1] + '/k', 5)"

    with pytest.raises(AssertionError, match=r"truncate of .* was not understood"):
        recorded(script, root)


def test_command_that_fails_is_an_error(root):
    require_strace()

    with pytest.raises(AssertionError, match="ZeroDivisionError"):
        recorded("1 / 0", root)


def test_machine_without_strace_skips_and_says_so(monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda name: None)

    with pytest.raises(pytest.skip.Exception, match="strace is not installed"):
        require_strace()
