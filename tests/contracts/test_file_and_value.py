"""What is done with a result that is a file, and with one that is a value in its row: the table in the documentation.

Each of its rows is a test here, for both kinds; a row without a test, or a test without a row, fails.
"""

import hashlib
import inspect
import json
import logging
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from sqlalchemy import text

from entropic import AlreadyExistsError, CorruptFileError, Database
from entropic.disk import roots
from tests.support.memo_cases import memoized
from tests.support.processes import outcomes_of
from tests.support.protocol_cases import kill_self

PAGE = Path(__file__).parents[2] / "docs" / "explanation" / "results.md"
KINDS = {"a file": 0, "a value": 2000}

CALLS: list[int] = []
SCALE = [1.0]


def halves(n: int) -> float:
    CALLS.append(n)
    return SCALE[0] * n / 2


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(
    params=[
        "sqlite_url",
        pytest.param("postgres_url", marks=pytest.mark.slow),
        pytest.param("mysql_url", marks=pytest.mark.slow),
    ]
)
def database_url(request: pytest.FixtureRequest) -> str:
    """URL of a database that other processes can reach."""
    return str(request.getfixturevalue(request.param))


@pytest.fixture
def function(tmp_path: Path, kind: str, database_url: str) -> Any:
    """A memoized function with the result of 3, which ran once."""
    CALLS.clear()
    SCALE[0] = 1.0
    function = memoized(
        tmp_path, halves, url=Database(database_url), table="halves", inline_bytes=KINDS[kind]
    )
    assert function(3) == 1.5
    yield function
    function.store.database.dispose()


def sql(function: Any, statement: str) -> Any:
    def work(connection: Any) -> Any:
        result = connection.execute(text(statement))
        return result.one() if result.returns_rows else None

    return function.store.database.write(work)


def damage(function: Any, kind: str, content: str) -> None:
    """Put something else in the place of the result, past the code under test."""
    if kind == "a file":
        Path(function.record(3).result_file).write_text(content)
    else:
        sql(function, f"UPDATE halves SET result_value = '{content}'")


def remove(function: Any, kind: str) -> None:
    if kind == "a file":
        Path(function.record(3).result_file).unlink()
    else:
        sql(function, "UPDATE halves SET result_value = NULL")


def files_of(function: Any) -> list[str]:
    """The names of all results in the folder."""
    return sorted(
        path.name for path in function.results_dir.iterdir() if not path.name.startswith(".entropic")
    )


def test_present(function, kind):
    record = function.store.retrieve({"n": 3}, verify=True)
    row = sql(function, "SELECT h.result_file, h.result_value, f.name, f.size_bytes, f.sha256 "
                        "FROM halves h JOIN entropic_files f ON f.record_id = h.id")  # fmt: skip

    content = b"1.5"
    assert function(3) == 1.5
    assert (row.size_bytes, row.sha256) == (len(content), hashlib.sha256(content).hexdigest())
    if kind == "a file":
        assert record.result_file == row.result_file == str(function.results_dir / row.name)
        assert record.result_value is row.result_value is None
        assert Path(record.result_file).read_bytes() == content
    else:
        assert record.result_file is row.result_file is row.name is None
        assert record.result_value == row.result_value == "1.5"
        assert files_of(function) == []
    assert CALLS == [3]


@pytest.mark.parametrize("way", ["call", "sweep"])
def test_gone(function, kind, way, caplog):
    remove(function, kind)

    with caplog.at_level(logging.WARNING):
        record = function.record(3) if way == "call" else function.sweep([{"n": 3}], progress=False)[0]

    assert record.load() == 1.5
    assert CALLS == [3, 3]
    assert "gone" in caplog.text
    assert function.store.retrieve({"n": 3}) is not None
    assert not function.store.check(checksum=True)


@pytest.mark.parametrize("content", ["no JSON", '{"__entropic__": "unknown", "value": 1}'])
def test_corrupt(function, kind, content):
    damage(function, kind, content)

    with pytest.raises(CorruptFileError, match="is not what its run"):
        function(3)

    assert CALLS == [3]


def test_verify(function, kind):
    damage(function, kind, "2.5")

    assert function.record(3).load() == 2.5  # which can be read
    with pytest.raises(CorruptFileError):
        function.record(3).load(verify=True)
    with pytest.raises(CorruptFileError):
        function.store.retrieve({"n": 3}, verify=True)
    assert CALLS == [3]


def test_check(function, kind, caplog):
    damage(function, kind, "2.5")  # as large as what was there

    noun = kind.removeprefix("a ")
    quick, whole = function.store.check(), function.store.check(checksum=True)
    fixed = function.store.check(checksum=True, fix=True)

    assert [finding.kind for finding in quick] == ([] if kind == "a file" else ["corrupt-value"])
    assert [(finding.kind, finding.is_fixed) for finding in whole] == [(f"corrupt-{noun}", False)]
    assert [(finding.kind, finding.is_fixed) for finding in fixed] == [(f"corrupt-{noun}", True)]
    kept = [
        path.read_text() for path in (function.results_dir / roots.STATE / roots.QUARANTINE).rglob("*.json")
    ]
    assert kept == ["2.5"] if kind == "a file" else "'2.5'" in caplog.text
    assert function.store.count() == 0
    assert function(3) == 1.5
    remove(function, kind)
    assert [finding.kind for finding in function.store.check()] == [f"missing-{noun}"]
    assert [finding.is_fixed for finding in function.store.check(fix=True)] == [True]
    assert function.store.count() == 0


def die_before_the_commit(folder: Path, url: str, inline_bytes: int) -> None:
    function = memoized(folder, halves, url=url, table="halves", inline_bytes=inline_bytes)
    type(function.store._table.publisher).publish = kill_self
    function(4)


def test_recover(function, kind, tmp_path, database_url):
    (outcome,) = outcomes_of(die_before_the_commit, [(tmp_path, database_url, KINDS[kind])])
    unfinished = [finding.kind for finding in function.store.check()]

    recovered = function.store.recover()

    assert outcome.exitcode == -9
    assert "unfinished" in unfinished
    assert recovered == 1
    assert function(4) == 2.0
    assert CALLS == [3]
    assert not function.store.check(checksum=True)


def test_register(function, kind, tmp_path):
    made = tmp_path / "made.value.json"
    made.write_text("7.5")

    with pytest.raises(AlreadyExistsError):
        function.store.register({"n": 3}, made)
    record = function.store.register({"n": 3}, made, overwrite=True)

    assert (record.result_file, record.result_value, record.load()) == (str(made), None, 7.5)
    assert function(3) == 7.5
    # Whatever was there is not removed: of a file, that is one without a row now.
    assert [finding.kind for finding in function.store.check(checksum=True)] == (
        ["stray-file"] if kind == "a file" else []
    )


def test_delete(function, kind):
    kept = function.store.retrieve({"n": 3})

    assert function.delete(3)

    assert files_of(function) == []
    assert function.store.count() == 0
    assert not function.store.check(checksum=True)
    assert function.retrieve(3) is None
    assert (kept.result_file is None) == (kind == "a value")


def test_load(function):
    assert (function.record(3).load(), type(function.record(3).load())) == (1.5, float)


def test_open(function):
    with function.record(3).open() as file:
        assert file.read() == "1.5"


@pytest.mark.parametrize("to", KINDS)
def test_run_over(function, tmp_path, to):
    SCALE[0] = 2.0
    other = memoized(tmp_path, halves, url=function.store.database, table="halves", inline_bytes=KINDS[to])

    assert other.run(3) == 3.0

    record = other.record(3)
    assert (record.result_file is None) == (to == "a value")
    assert (record.result_value is None) == (to == "a file")
    assert files_of(other) == ([] if to == "a value" else [Path(record.result_file).name])
    assert function(3) == record.load(verify=True) == 3.0
    assert other.store.count() == 1
    assert not other.store.check(checksum=True)


def test_dask_receipt(function, kind):
    """As a worker makes it, wherever it is; it comes to the sweep by way of the cluster."""
    (_, receipt) = worked(function)

    assert (receipt.staged.name == "") == (receipt.value is not None) == (kind == "a value")
    assert (receipt.staged.size_bytes, receipt.staged.sha256) == (3, hashlib.sha256(b"2.5").hexdigest())


def test_sidecar_line(function, kind):
    ((sidecar, receipt)) = worked(function)

    line = json.loads(sidecar.read_text().splitlines()[-1])
    name, value = (receipt.staged.name, None) if kind == "a file" else (None, "2.5")
    assert (line["name"], line["value"]) == (name, value)
    assert (line["size_bytes"], line["sha256"]) == (3, hashlib.sha256(b"2.5").hexdigest())


def worked(function: Any) -> tuple[Path, Any]:
    """The sidecar and the receipt of a worker that has run 5."""
    from entropic.runs.attempts import Work

    table = function.store._table
    identity = table.parameters.identify({"n": 5})
    work = Work(function.runner, str(table.root), table.marker, sweep="swept")
    (receipt,) = work([table.job(identity, identity.id, None)])
    return table.root / roots.STATE / receipt.folder / "sidecar.jsonl", receipt


def test_to_frame(function, kind):
    frame, whole = function.to_frame(), function.to_frame(bookkeeping=True)

    assert frame.to_dict("list") == {"n": [3], "value": [1.5]}
    assert list(whole.columns) == ["n", "value", "result_file", "created_at", "custom_data", "result_value"]
    assert whole.index.name == "id"
    assert (whole["result_file"].isna().all(), whole["result_value"].isna().all()) == (
        kind == "a value",
        kind == "a file",
    )


def test_every_row_of_the_table_is_a_test():
    lines = PAGE.read_text().partition("## What each does")[2].partition("\n## ")[0].splitlines()
    rows = [line.split("|")[1].strip() for line in lines if line.startswith("|")][2:]
    tests = SimpleNamespace(**globals()).__dict__
    here = {name for name in tests if name.startswith("test_") and inspect.isfunction(tests[name])}

    assert {f"test_{row.lower().replace(' ', '_')}" for row in rows} == here - {
        "test_every_row_of_the_table_is_a_test"
    }
