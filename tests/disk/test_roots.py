"""The marker of a results folder: on the disk when it has been written, and what is said where it is not ours."""

import json
import os
from pathlib import Path

import pytest

from entropic.disk import roots
from entropic.disk.roots import Marker, access_problem, foreign_problem, quarantine, root_problem
from tests.support.disk_order import disk_order
from tests.support.users import ALICE, give, place_for_all

MINE = Marker("root", "database", "table")


@pytest.mark.parametrize("replace", [False, True])
def test_marker_and_its_name_are_on_the_disk_when_it_was_written(tmp_path: Path, monkeypatch, replace):
    """Without a marker no run can be made until the folder is adopted."""
    sizes = []
    real = os.fsync
    monkeypatch.setattr(os, "fsync", lambda file: (sizes.append(os.fstat(file).st_size), real(file)))

    with disk_order() as order:
        roots.write_marker(tmp_path, MINE, replace=replace)

    (content,) = {path for what, path in order if what == "synced"} - {str(tmp_path)}
    steps = [one for one in order if one[0] in {"synced", "renamed"}]
    assert steps == [
        ("synced", content),
        ("renamed", str(tmp_path / roots.MARKER)),
        ("synced", str(tmp_path)),
    ]
    assert sizes[0] == (tmp_path / roots.MARKER).stat().st_size
    assert json.loads((tmp_path / roots.MARKER).read_text()) == {
        "root": "root",
        "database": "database",
        "table": "table",
    }


def test_marker_that_was_replaced_is_read_anew(tmp_path):
    other = Marker("another", "database", "table")
    roots.write_marker(tmp_path, MINE)
    first = roots.read_marker(tmp_path)
    roots.write_marker(tmp_path, other, replace=True)

    assert (first, roots.read_marker(tmp_path)) == (MINE, other)


def test_marker_is_read_once_while_it_stays_the_same(tmp_path, monkeypatch):
    roots.write_marker(tmp_path, MINE)
    read = []
    real = roots.read_file
    monkeypatch.setattr(roots, "read_file", lambda path, **limits: read.append(path) or real(path, **limits))

    assert [roots.read_marker(tmp_path) for _ in range(3)] == [MINE] * 3
    assert len(read) == 1


def test_folder_with_the_own_marker_is_no_problem(tmp_path):
    roots.write_marker(tmp_path, MINE)

    assert root_problem(tmp_path, MINE) is None


@pytest.mark.parametrize(
    ("found", "said"),
    [
        (Marker("another", "database", "table"), "belongs to another database or to an earlier folder"),
        (Marker("root", "another", "table"), "belongs to another database or to an earlier folder"),
        (Marker("root", "database", "another"), "belongs to table 'another'; results of 'table' would share"),
        (None, "of table 'table' has no .entropic-root.json"),
    ],
)
def test_folder_that_is_not_ours_is_named_with_its_owner(tmp_path, found, said):
    if found is not None:
        roots.write_marker(tmp_path, found)

    problem = root_problem(tmp_path, MINE)

    assert said in problem
    assert str(tmp_path) in problem
    assert "Nothing was run or changed" in problem


def test_folder_that_is_not_there_is_named_with_the_ways_out(tmp_path):
    problem = root_problem(tmp_path / "gone", MINE)

    assert "is not there" in problem
    assert "store.adopt_root()" in problem


@pytest.mark.parametrize("has", ["marker", "state"])
def test_what_is_put_aside_lies_in_the_results_folder_however_deep_it_was(tmp_path, has):
    root = tmp_path / "results"
    (root / "folder" / "deep").mkdir(parents=True)
    (root / "folder" / "deep" / "part").write_text("x")
    (root / roots.MARKER).touch() if has == "marker" else (root / roots.STATE).mkdir()

    kept = quarantine(root / "folder" / "deep" / "part")

    assert kept.relative_to(root / roots.STATE / roots.QUARANTINE).name == "part"
    assert kept.read_text() == "x"


@pytest.mark.parametrize(("mode", "is_shared"), [(0o2775, True), (0o2777, True), (0o755, False)])
def test_group_that_may_write_in_the_results_folder_may_put_aside_too(tmp_path, mode, is_shared):
    root = tmp_path / "results"
    root.mkdir()
    root.chmod(mode)
    (root / roots.MARKER).touch()
    (root / "part").touch()

    quarantine(root / "part")

    modes = [(root / roots.STATE / name).stat().st_mode for name in ("", roots.QUARANTINE)]
    assert [(bool(mode & 0o020), bool(mode & 0o002)) for mode in modes] == [(is_shared, False)] * 2


# Who may write


def problems(*roots: Path) -> list[str | None]:
    return [access_problem(root) for root in roots]


def test_folder_in_which_this_user_may_not_write_is_named_with_its_owner_and_the_way_out():
    with place_for_all() as place:
        own, closed, state_closed = (place / name for name in ("own", "closed", "state"))
        for root in (own, closed, state_closed):
            (root / roots.STATE).mkdir(parents=True)
        give(own, ALICE.uid, ALICE.groups[0])
        give(state_closed, ALICE.uid, ALICE.groups[0])
        give(state_closed / roots.STATE, 0, 0, 0o644)
        give(closed, 0, 0, 0o644)

        found = ALICE.does(problems, own, place / "not there", closed, state_closed)

    assert found[:2] == [None, None]
    for problem, folder in zip(found[2:], (closed, state_closed / roots.STATE), strict=True):
        assert (
            f"this user (uid {ALICE.uid}, groups {list(ALICE.groups)}) may not write in '{folder}'" in problem
        )
        assert "of uid 0 and group 0, mode 755" in problem
        assert f"chgrp -R GROUP {folder}" in problem


@pytest.mark.parametrize(
    ("found", "said"),
    [
        (None, "belongs to another table; results of 'table' would"),
        (Marker("root", "database", "another"), "belongs to table 'another'; results of 'table' would"),
        (Marker("root", "another", "table"), "belongs to table 'table' of another database; results of"),
    ],
)
def test_folder_of_somebody_else_is_named_with_its_owner_and_one_of_ones_own(tmp_path, found, said):
    problem = foreign_problem(tmp_path, found, "table")

    assert said in problem
    assert f"such as {str(tmp_path / 'table')!r}" in problem
    assert problem.endswith("move the folder away") == ("of another database" in said)
