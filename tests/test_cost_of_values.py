"""What a small value costs that stands in its row: statements, files, syncs and bytes, counted and never timed."""

import os
from pathlib import Path

import pytest

from tests.support.counting import opened, statements
from tests.support.disk_order import disk_order
from tests.support.memo_cases import memoized

CALLS = []


def half(n: int) -> float:
    CALLS.append(n)
    return n / 2


@pytest.fixture(params=["value", "file"])
def warm(tmp_path, sqlite, request):
    """A function whose folder, connections and slot are there; each result is a value, or is a file."""
    CALLS.clear()
    function = memoized(tmp_path, half, url=sqlite, inline_bytes=0 if request.param == "file" else 2000)
    for n in (-1, -1, -2):
        function(n)
    return function


@pytest.fixture
def values(warm, request):
    if request.node.callspec.params["warm"] == "file":
        pytest.skip("of values")
    return warm


def syncs(order, root: Path) -> list[str]:
    """The names under the results folder of what was synced."""
    return [Path(path).name for what, path in order if what == "synced" and str(root) in path]


def state_bytes(root: Path) -> int:
    return sum(path.stat().st_size for path in (root / ".entropic").rglob("*") if path.is_file())


def test_hit_is_one_select_and_no_file_is_opened(values, tmp_path):
    with statements(values.store.database.engine) as seen, opened() as files, disk_order() as order:
        assert values(-1) == -0.5

    assert [statement.split()[0] for statement in seen] == ["SELECT"]
    assert [name for name in files if str(tmp_path) in name] == []
    assert list(order) == []


def test_run_costs_no_file_and_one_sync(warm):
    """The line of the sidecar; a file costs its own sync besides."""
    is_file = warm.record(-1).result_file is not None
    before, held = sorted(warm.results_dir.iterdir()), state_bytes(warm.results_dir)

    with statements(warm.store.database.engine) as seen, disk_order() as order:
        assert warm(3) == 1.5

    written = [statement for statement in seen if statement.startswith(("INSERT", "UPDATE", "DELETE"))]
    assert len(sorted(warm.results_dir.iterdir())) == len(before) + is_file
    assert sorted(syncs(order, warm.results_dir))[-1] == "sidecar.jsonl"
    assert len(syncs(order, warm.results_dir)) == 1 + is_file
    assert [name for name in order if name[0] == "renamed"] == [] or is_file
    # Claim; its end, the file record of before, row, file record, attempt.
    assert len(written) == 6
    assert len(seen) <= 14
    line = state_bytes(warm.results_dir) - held
    assert 500 < line < 1000


def test_statements_that_write_a_value_are_those_of_a_file(tmp_path, database):
    seen = {}
    for kind, inline_bytes in (("file", 0), ("value", 2000)):
        function = memoized(tmp_path, half, url=database, table=f"half_{kind}", inline_bytes=inline_bytes)
        for n in (1, 1, 2):
            function(n)
        with statements(database.engine) as one:
            function(3)
        seen[kind] = [word for statement in one if (word := statement.split()[0]) != "SELECT"]

    assert seen["value"] == seen["file"]


def test_sweep_of_values_makes_no_file_and_one_folder(values):
    names = set(os.listdir(values.results_dir))

    with statements(values.store.database.engine) as seen, opened() as files:
        result = values.sweep([{"n": n} for n in range(200)], progress=False)

    assert [record.load() for record in result] == [n / 2 for n in range(200)]
    assert set(os.listdir(values.results_dir)) == names
    made = [name for name in files if name.startswith("os.mkdir")]
    assert len(made) <= 3  # that of the state is asked for; of the sweep, and its slot
    assert len(files) < 200  # the marker, the state's folders, a slot: looked at once a chunk, not once a run
    assert len(seen) < 200 * 3


def test_bytes_of_a_value_in_the_database(values):
    """The text, once; beside what the row of a file has."""
    with values.store.database.reading() as connection:
        row = connection.exec_driver_sql(
            f'SELECT length(result_value), result_file FROM "{values.table}" LIMIT 1'
        ).one()

    assert tuple(row) == (4, None)  # -0.5
