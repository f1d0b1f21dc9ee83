"""Sidecars as others read them, and the end of a folder that others may clear away at the same moment."""

import os
import shutil
from pathlib import Path

import pytest

from entropic.disk.files import remove
from entropic.disk.sidecars import clear_away, read_sidecar


def test_bad_lines_are_counted_one_by_one(tmp_path):
    folder = tmp_path / ".entropic" / "process"
    folder.mkdir(parents=True)
    (folder / "sidecar.jsonl").write_text('no json\n[]\n{"record_id": "k", "attempt": "a1"}\n17\n')

    sidecar = read_sidecar(folder)

    assert [one["attempt"] for one in sidecar.lines] == ["a1"]
    assert sidecar.malformed == 3


@pytest.mark.parametrize("clear", [clear_away, remove])
@pytest.mark.parametrize("step", ["unlink", "rmdir", "scandir"])
def test_folder_that_another_clears_away_meanwhile_is_no_error(tmp_path: Path, monkeypatch, clear, step):
    folder = tmp_path / "process"
    (folder / "0").mkdir(parents=True)
    for name in ("process.json", "sidecar.jsonl", "0/part"):
        (folder / name).write_text("x")
    real = getattr(os, step)

    def late(*args, **kwargs):
        monkeypatch.setattr(os, step, real)
        shutil.rmtree(folder)  # the other one
        return real(*args, **kwargs)

    monkeypatch.setattr(os, step, late)

    clear(folder)

    assert getattr(os, step) is real, "the other one has not come between"
    assert not folder.exists()


def test_folder_that_is_gone_already_is_no_error(tmp_path):
    clear_away(tmp_path / "gone")
    remove(tmp_path / "gone")
