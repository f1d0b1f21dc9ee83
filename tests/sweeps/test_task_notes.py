"""Notes of tasks that somebody else may have written."""

import os

import pytest

from entropic.disk.roots import Marker
from entropic.runs.attempts import Work
from entropic.sweeps.backends.task_notes import NotedWork
from tests.support.hostile import DEEP


@pytest.fixture
def noted(tmp_path):
    (tmp_path / ".entropic" / "tasks-s").mkdir(parents=True)
    return NotedWork(Work(print, str(tmp_path), Marker("root", "database", "table"), "s"))


@pytest.mark.parametrize("text", ["17\n0", DEEP, "[1, 2]\n0", '["w", "h", 1]\nx', "", "\xff"])
def test_note_that_is_malformed_names_no_run(noted, tmp_path, text):
    (tmp_path / ".entropic" / "tasks-s" / "t").write_text(text)

    death = noted.death("t")

    assert death is None or death.at is None


def test_note_that_is_a_fifo_or_a_link_is_not_read(noted, tmp_path):
    (tmp_path / "elsewhere").write_text('["worker", "host", 1]\n3')
    os.mkfifo(tmp_path / ".entropic" / "tasks-s" / "fifo")
    (tmp_path / ".entropic" / "tasks-s" / "link").symlink_to(tmp_path / "elsewhere")

    assert noted.death("fifo") is None
    assert noted.death("link") is None
