"""Notes of those who wait: what one says is what the others read, and ways lead over runs and tasks."""

from dataclasses import replace
from pathlib import Path

import pytest

from entropic.disk.sidecars import WAITS
from entropic.disk.staging import Staging
from entropic.process.identity import this_process
from entropic.runs.wait_notes import ASKED, asked_of, notes, text_of, way_to

TASK = ("executor", "boot 7 1")


@pytest.fixture
def leave(tmp_path):
    """Leave a note of runs, each shown by its key, and of what they wait for."""

    def write(runs, waits, name="one", **others):
        folder = Staging(tmp_path, name, this_process().as_dict())
        shown = [(mark, mark[1]) for mark in runs]
        folder.write(f"{WAITS}1", text_of(shown, [(str(tmp_path), mark) for mark in waits], **others))

    return write


def test_note_is_read_as_it_was_written(leave, tmp_path):
    leave([TASK, ("root", "a")], [("root", "b")], struck={"sweep": ["c"]}, above=[5, 1])

    (note,) = notes(tmp_path)

    assert note.process == this_process()
    assert note.runs == [(TASK, TASK[1]), (("root", "a"), "a")]
    assert note.waits == [(str(tmp_path), ("root", "b"))]
    assert (note.struck, note.above) == ({"sweep": ["c"]}, [5, 1])


def test_note_is_of_a_process_below_if_this_one_has_started_it(leave, tmp_path):
    leave([], [], above=[this_process().pid, 1])
    (note,) = notes(tmp_path)

    assert note.is_below_us()
    assert not replace(note, above=[1]).is_below_us()
    assert not replace(note, process=replace(note.process, boot="another")).is_below_us()


def test_keys_that_are_asked_for_are_those_of_one_folder_and_of_who_asks(leave, tmp_path):
    leave([], [("root", "a"), ("other", "b")], name=f"one{ASKED}")
    leave([], [("root", "c")], name="two")

    assert asked_of(tmp_path, "root") == {"a"}


def test_way_leads_over_what_a_run_waits_for_to_who_is_at_that(leave, tmp_path):
    leave([("root", "a"), ("root", "b")], [TASK], name="runs")
    leave([TASK, ("root", "c")], [("root", "d")], name="at the task")

    assert way_to(str(tmp_path), [("root", "b")], {("root", "d")}) == (
        ["b", TASK[1], "c"],
        ("root", "d"),
    )
    assert way_to(str(tmp_path), [("root", "b")], {("root", "x")}) == ([], None)
    assert way_to(str(tmp_path), [("root", "x")], {("root", "d")}) == ([], None)


def test_note_of_another_release_is_left_out(leave, tmp_path):
    leave([("root", "a")], [("root", "b")])
    (path,) = Path(tmp_path).rglob(f"{WAITS}1")
    path.write_text('{"process": {}, "runs": []}')

    assert not list(notes(tmp_path))
