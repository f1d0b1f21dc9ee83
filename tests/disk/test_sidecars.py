"""Sidecars as others read them, and the end of a folder that others may clear away at the same moment."""

import os
import shutil
from pathlib import Path

import pytest

from entropic.disk import sidecars
from entropic.disk.files import remove
from entropic.disk.sidecars import (
    SidecarIndex,
    clear_away,
    count_lines,
    process_folders,
    read_sidecar,
    read_waits,
)


def test_bad_lines_are_counted_one_by_one(tmp_path):
    folder = tmp_path / ".entropic" / "process"
    folder.mkdir(parents=True)
    (folder / "sidecar.jsonl").write_text('no json\n[]\n{"record_id": "k", "attempt": "a1"}\n17\n')

    sidecar = read_sidecar(folder)

    assert [one["attempt"] for one in sidecar.lines] == ["a1"]
    assert sidecar.malformed == 3


def test_file_of_which_no_line_is_one_is_not_read_to_its_end(tmp_path, monkeypatch):
    monkeypatch.setattr(sidecars, "MALFORMED", 3)
    folder = write(tmp_path, "process", ("k", "a1")).parent
    with (folder / "sidecar.jsonl").open("a") as file:
        file.write("no json\n" * 5 + '{"record_id": "k", "attempt": "a2"}\n')

    sidecar = read_sidecar(folder)

    assert ([one["attempt"] for one in sidecar.lines], sidecar.malformed) == (["a1"], 3)


def test_whole_lines_are_counted_whatever_they_are(tmp_path, monkeypatch):
    monkeypatch.setattr(sidecars, "_BLOCK_BYTES", 3)
    folder = write(tmp_path, "process", ("k", "a1")).parent
    with (folder / "sidecar.jsonl").open("a") as file:
        file.write('no json\n{"record_id": "torn')

    assert count_lines(folder) == 2
    assert count_lines(folder.with_name("gone")) == 0


def test_lines_of_a_sidecar_that_is_no_file_are_unknown(tmp_path):
    (tmp_path / ".entropic" / "process" / "sidecar.jsonl").mkdir(parents=True)

    assert count_lines(tmp_path / ".entropic" / "process") == -1


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files to others")
@pytest.mark.parametrize("closed", ["root", "state", "folder", None])
def test_lines_of_another_are_those_of_an_invited_group_only(tmp_path, closed):
    stranger, group = 47001, 47002
    folder = write(tmp_path, "process", ("k", "a1")).parent
    places = {"root": tmp_path, "state": folder.parent, "folder": folder, "file": folder / "sidecar.jsonl"}
    for name, path in places.items():
        os.chown(path, stranger if name in {"folder", "file"} else -1, group)
        path.chmod(0o755 if name == closed else 0o775)

    assert [line["attempt"] for line in read_sidecar(folder).lines] == ([] if closed else ["a1"])


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


# The index of what others have finished


def write(root: Path, folder: str, *lines: tuple[str, str]) -> Path:
    """Write the sidecar of a process anew, a line for each key and attempt."""
    path = root / ".entropic" / folder / "sidecar.jsonl"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f'{{"record_id": "{key}", "attempt": "{attempt}"}}\n' for key, attempt in lines))
    return path


def attempt_of(index: SidecarIndex, key: str) -> str | None:
    """Return the attempt of the only line that the index gives of a key."""
    lines = index.get(key)
    assert len(lines) < 2
    return lines[0]["attempt"] if lines else None


def test_index_gives_the_newest_line_of_a_key_and_its_folder(tmp_path):
    write(tmp_path, "one", ("k1", "a1"), ("k2", "a2"), ("k1", "a3"))
    write(tmp_path, "two", ("k3", "a4"))
    index = SidecarIndex(tmp_path)
    index.refresh()

    assert [attempt_of(index, key) for key in ("k1", "k2", "k3", "k4")] == ["a3", "a2", "a4", None]
    assert index.get("k3")[0]["folder"] == "two"


def test_index_gives_the_line_of_each_sidecar_that_has_the_key(tmp_path):
    """That of a value may have been committed long ago, and another one of the same key not."""
    write(tmp_path, "one", ("k1", "a1"))
    write(tmp_path, "two", ("k1", "a2"), ("k1", "a3"))
    index = SidecarIndex(tmp_path)
    index.refresh()

    assert {line["folder"]: line["attempt"] for line in index.get("k1")} == {"one": "a1", "two": "a3"}


def test_index_reads_a_line_once_it_is_whole(tmp_path):
    path = write(tmp_path, "one", ("k1", "a1"))
    whole = path.read_bytes() + b'{"record_id": "k2", "attempt": "a2"}\n'
    path.write_bytes(whole[:-5])
    index = SidecarIndex(tmp_path)
    index.refresh()
    torn = attempt_of(index, "k2")
    path.write_bytes(whole)
    index.refresh()

    assert torn is None
    assert [attempt_of(index, key) for key in ("k1", "k2")] == ["a1", "a2"]


def test_index_reads_a_folder_that_went_and_came_again_from_its_beginning(tmp_path):
    path = write(tmp_path, "one", ("k1", "a1"))
    index = SidecarIndex(tmp_path)
    index.refresh()
    shutil.rmtree(path.parent)
    index.refresh()
    gone = attempt_of(index, "k1")
    write(tmp_path, "one", ("k2", "a2"), ("k3", "a3"))
    index.refresh()

    assert gone is None
    assert [attempt_of(index, key) for key in ("k1", "k2", "k3")] == [None, "a2", "a3"]


def test_index_never_gives_the_line_of_another_key(tmp_path):
    """The sidecar was emptied and begun anew since it was read."""
    write(tmp_path, "one", ("k1", "a1"))
    index = SidecarIndex(tmp_path)
    index.refresh()
    write(tmp_path, "one", ("k2", "a2"))

    assert index.get("k1") == []


def test_index_reads_one_line_to_give_it(tmp_path, monkeypatch):
    """A sidecar may have millions."""
    write(tmp_path, "one", *((f"k{n}", f"a{n}") for n in range(9)))
    index = SidecarIndex(tmp_path)
    index.refresh()
    read = []
    real = sidecars.load_json
    monkeypatch.setattr(sidecars, "load_json", lambda text: read.append(text) or real(text))

    assert attempt_of(index, "k3") == "a3"
    assert len(read) == 1


def test_line_that_is_too_long_is_malformed_and_the_others_are_read(tmp_path, monkeypatch):
    monkeypatch.setattr(sidecars, "LINE_BYTES", 50)
    path = write(tmp_path, "one", ("k1", "a1"), ("k" * 300, "a2"), ("k3", "a3"))
    with path.open("a") as file:
        file.write("torn" * 100)

    sidecar = read_sidecar(path.parent)

    assert [one["attempt"] for one in sidecar.lines] == ["a1", "a3"]
    assert sidecar.malformed == 2


@pytest.mark.parametrize("kind", ["link", "FIFO", "folder"])
def test_sidecar_that_is_no_file_is_one_malformed_line(tmp_path, kind):
    path = write(tmp_path, "one")
    path.unlink()
    write(tmp_path, "two", ("k1", "a1"))
    make = {"link": lambda: path.symlink_to("../two/sidecar.jsonl"), "FIFO": lambda: os.mkfifo(path)}
    make.get(kind, path.mkdir)()

    sidecar = read_sidecar(path.parent)

    assert (sidecar.lines, sidecar.malformed) == ([], 1)


def test_index_leaves_out_one_folder_and_reads_it_when_it_no_longer_is_to(tmp_path):
    write(tmp_path, "mine", ("k1", "a1"))
    write(tmp_path, "other", ("k2", "a2"))
    index = SidecarIndex(tmp_path)
    index.refresh(skip="mine")
    skipped = [attempt_of(index, key) for key in ("k1", "k2")]
    index.refresh()

    assert skipped == [None, "a2"]
    assert attempt_of(index, "k1") == "a1"


# Which folders there are


def test_folders_of_processes_are_those_by_name_without_files_and_quarantine(tmp_path):
    assert list(process_folders(tmp_path)) == []

    for name in ("two", "quarantine", "one"):
        (tmp_path / ".entropic" / name).mkdir(parents=True)
    (tmp_path / ".entropic" / "stray").touch()

    assert [path.name for path in process_folders(tmp_path)] == ["one", "two"]


@pytest.mark.parametrize(
    ("says", "process"), [("[]", {}), ("17", {}), ("no json", {}), ("", {}), ('{"pid": 1}', {"pid": 1})]
)
def test_process_that_is_not_named_is_empty(tmp_path, says, process):
    folder = tmp_path / ".entropic" / "process"
    folder.mkdir(parents=True)
    (folder / "process.json").write_text(says)

    assert read_sidecar(folder).process == process


# Who waits


def test_notes_of_who_waits_are_read_and_what_is_none_is_left_out(tmp_path):
    folder = tmp_path / ".entropic" / "process"
    folder.mkdir(parents=True)
    for name, says in {
        "waits-1": '{"run": 1}',
        "waits-2": "[]",
        "waits-3": "no json",
        "waits-4": '{"run": 4}',
        "process.json": '{"pid": 1}',
    }.items():
        (folder / name).write_text(says)
    (folder / "waits-5").symlink_to("waits-1")
    os.mkfifo(folder / "waits-6")

    assert sorted(note["run"] for note in read_waits(folder)) == [1, 4]
    assert list(read_waits(tmp_path / ".entropic" / "gone")) == []
