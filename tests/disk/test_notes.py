"""Notes on files that stand or fall with a row: who reads them, and which are not believed."""

import json
import os
import subprocess
import sys

import pytest

from entropic.disk import notes as module
from entropic.disk.notes import Notes
from entropic.process.identity import this_process


@pytest.fixture
def notes(tmp_path):
    return Notes(tmp_path / "notes", "a database")


def ended():
    """Return who a process was that has ended."""
    who = "from entropic.process.identity import this_process; this_process().as_dict()"
    script = f"import json; {who.replace('; ', '; print(json.dumps(')}))"
    return json.loads(subprocess.run([sys.executable, "-c", script], capture_output=True, check=True).stdout)


@pytest.fixture(scope="module")
def gone():
    return ended()


def left_by(process, note):
    """Let a note be that of another process."""
    head, *rest = note.path.read_text().splitlines()
    head = json.loads(head) | {"process": process}
    note.path.write_text("\n".join([json.dumps(head), *rest, ""]))
    return note


def found(notes):
    return [(note.subject, note.files) for note in notes.left()]


def test_note_of_a_process_that_has_ended_is_found_with_all_that_it_names(notes, gone):
    note = notes.write("r", ["a", "b"])
    note.add("c")
    assert note.files == ["a", "b", "c"]

    left_by(gone, note)

    assert found(notes) == [("r", ["a", "b", "c"])]
    (again,) = notes.left()
    again.drop()
    assert found(notes) == []


def test_note_of_a_process_that_lives_is_left_alone(notes):
    notes.write("r", ["a"])

    assert found(notes) == []
    assert len(list(notes.folder.iterdir())) == 1


def test_note_of_a_process_of_which_nothing_is_known_is_left_alone_for_a_week(notes):
    elsewhere = this_process().as_dict() | {"owner": "0" * 32, "boot": "another host"}
    note = left_by(elsewhere, notes.write("r", ["a"]))
    assert found(notes) == []

    since = note.path.stat().st_mtime - module.LOST_S - 1
    os.utime(note.path, (since, since))

    assert found(notes) == [("r", ["a"])]


def test_note_on_another_database_is_left_alone(notes, gone, caplog):
    left_by(gone, Notes(notes.folder, "another").write("r", ["a"]))

    assert found(notes) == []
    assert caplog.records == []


def test_line_that_was_cut_off_counts_for_nothing(notes, gone):
    note = left_by(gone, notes.write("r", ["a", "b"]))
    note.path.write_bytes(note.path.read_bytes()[:-3])

    assert found(notes) == [("r", ["a"])]
    note.path.write_bytes(note.path.read_bytes()[:20])
    assert found(notes) == []


@pytest.mark.parametrize(
    "text", ["x\n", "[]\n", "{}\n", '{"database": "a database"}\n', "[" * 100_000 + "\n", "null\n"]
)
def test_what_is_no_note_is_left_alone_with_a_warning(notes, caplog, text):
    notes.write("r", [])
    path = notes.folder / "forged.note"
    path.write_text(text)

    assert found(notes) == []
    assert "is no note of entropic's, and was left alone" in caplog.text
    assert path.exists()


def test_link_and_fifo_are_not_read(notes, gone, tmp_path):
    note = left_by(gone, notes.write("r", ["a"]))
    outside = note.path.rename(tmp_path / "outside.note")
    (notes.folder / "link.note").symlink_to(outside)
    os.mkfifo(notes.folder / "fifo.note")

    assert found(notes) == []


def test_note_that_the_world_may_write_is_not_believed(notes, gone):
    note = left_by(gone, notes.write("r", ["a"]))
    note.path.chmod(0o666)

    assert found(notes) == []


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files to others")
def test_note_of_another_user_is_believed_only_if_the_folder_is_theirs(notes, gone):
    note = left_by(gone, notes.write("r", ["a"]))
    os.chown(note.path, 12345, -1)
    assert found(notes) == []

    os.chown(notes.folder, 12345, -1)
    assert found(notes) == [("r", ["a"])]
    notes.folder.chmod(0o777)
    assert found(notes) == []


def test_folder_that_is_absent_or_a_link_has_no_notes(notes, tmp_path):
    assert found(notes) == []
    notes.folder.symlink_to(tmp_path)

    with pytest.raises(OSError, match="notes"):
        list(notes.left())
