"""What in a slot is the result: also whose a file is in one that another run has had before."""

import pytest

from entropic.disk import roots
from entropic.disk.roots import QUARANTINE, STATE, Marker
from entropic.disk.staged import stage
from entropic.disk.staging import Staging
from entropic.errors import ResultFileError, ResultFileMissingError

KEY, OTHER = "0123456789abcdef", "fedcba9876543210"


@pytest.fixture
def root(tmp_path):
    roots.write_marker(tmp_path, Marker("root", "database", "table"))
    return tmp_path


@pytest.fixture
def slot(root):
    return Staging(root, "process", {"pid": 1}).take()


@pytest.mark.parametrize("late", [f"{OTHER}.txt", f"{OTHER}.txt.log", f"{OTHER}-part", OTHER])
def test_what_begins_with_another_key_is_removed_and_said(slot, caplog, late):
    (slot / late).write_text("of another")
    (slot / f"{KEY}.txt").write_text("own")

    staged = stage(slot, f"{KEY}.txt", key=KEY)

    assert staged.name == f"{KEY}.txt"
    assert not (slot / late).exists()
    assert [r.levelname for r in caplog.records if late in r.getMessage()] == ["WARNING"]


def test_folder_that_begins_with_another_key_is_removed_too(slot):
    (slot / OTHER).mkdir()
    (slot / OTHER / "part").write_text("of another")
    (slot / KEY).write_text("own")

    assert stage(slot, KEY, key=KEY).name == KEY
    assert not (slot / OTHER).exists()


def test_run_that_wrote_nothing_does_not_get_the_file_of_another_key(slot):
    (slot / f"{OTHER}.txt").write_text("of another")

    with pytest.raises(ResultFileMissingError, match="wrote no file"):
        stage(slot, f"{KEY}.txt", key=KEY)


@pytest.mark.parametrize("name", ["out.npy", f"{KEY}f.txt", f"{OTHER}0.txt"])
def test_file_of_which_nothing_tells_whose_it_is_is_refused_and_kept(root, slot, name):
    (slot / name).write_text("whose?")

    with pytest.raises(ResultFileError, match="nothing tells which") as caught:
        stage(slot, f"{KEY}.txt", key=KEY)

    (kept,) = (root / STATE / QUARANTINE).rglob(name)
    assert kept.read_text() == "whose?"
    assert str(kept.parent) in str(caught.value)


@pytest.mark.parametrize("name", [f"{KEY}.txt", f"{KEY}.txt.npy", f"{KEY}_b", KEY])
def test_file_that_begins_with_the_runs_key_is_its_own(slot, name):
    (slot / name).write_text("own")

    assert stage(slot, f"{KEY}.txt", key=KEY).name == name


@pytest.mark.parametrize("name", ["out.npy", f"{OTHER}.txt"])
def test_one_file_of_any_name_is_the_result_where_no_run_was_before(slot, name):
    (slot / name).write_text("own")

    assert stage(slot, f"{KEY}.txt").name == name


def test_runner_that_removes_its_folder_has_written_nothing(slot):
    slot.rmdir()

    with pytest.raises(ResultFileMissingError, match="the runner wrote no file"):
        stage(slot, f"{KEY}.txt")


def test_two_files_of_a_run_are_two_where_another_was_before_too(slot):
    for name in (f"{KEY}.txt", "second"):
        (slot / name).write_text("own")

    with pytest.raises(ResultFileError, match="wrote 2 files"):
        stage(slot, f"{KEY}.txt", key=KEY)
