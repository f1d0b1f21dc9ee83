"""What the published 2.3.0 release wrote, opened by this one: it hits, runs again, sweeps, registers, deletes.

Each test has the database that is frozen in `assets/legacy`; the slow ones install 2.3.0 and have one written anew.
"""

import json
import logging
import shutil
import sqlite3
import subprocess
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import JSON, DateTime, create_engine, select
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

from entropic import AlreadyExistsError, Base, ResultFileMissingError, param
from tests.assets.legacy.make import CUSTOM_DATA, PARAMS, Method, write_result
from tests.support.counting import CountingRunner, statements
from tests.support.stores import open_store

ASSETS = Path(__file__).parents[1] / "assets" / "legacy"

RETRIEVE = """
import json, sys
from entropic import Base, Mapped, Store, mapped_column
from sqlalchemy import JSON

class Run(Base):
    __tablename__ = "runs"
    n: Mapped[int]
    dt: Mapped[float]
    method: Mapped[str]
    beta: Mapped[float] = mapped_column(default=0.0)
    label: Mapped[str | None]
    shape: Mapped[list | None] = mapped_column(JSON)

store = Store(None, Run, "results", file_suffix=".txt", db_url="sqlite:///runs.sqlite3")
record = store.retrieve(json.loads(sys.argv[1]))
print(json.dumps([record.id, record.result_file, record.created_at.isoformat(), record.custom_data]))
"""


class Run(Base):
    """The model of `make.py`, as its owner has it: nothing had to be changed but the import of `param`."""

    __tablename__ = "runs"

    n: Mapped[int]
    dt: Mapped[float]
    method: Mapped[str]
    beta: Mapped[float] = param(default=0.0)
    label: Mapped[str | None]
    shape: Mapped[list | None] = mapped_column(JSON)


class PlainBase(DeclarativeBase):
    """Of somebody who reads the table with SQLAlchemy alone."""


class PlainRun(PlainBase):
    __tablename__ = "runs"

    id: Mapped[str] = mapped_column(primary_key=True)
    result_file: Mapped[str]
    created_at: Mapped[Any] = mapped_column(DateTime)
    custom_data: Mapped[Any] = mapped_column(JSON)
    n: Mapped[int]
    dt: Mapped[float]
    method: Mapped[str]


@pytest.fixture(params=["frozen", pytest.param("written now", marks=pytest.mark.slow)])
def folder(request, tmp_path):
    """A folder with what 2.3.0 left: ``runs.sqlite3``, ``results/`` and ``external/``; moved since it was made."""
    made, moved = tmp_path / "made", tmp_path / "moved"
    if request.param == "frozen":
        shutil.copytree(ASSETS, made, ignore=shutil.ignore_patterns("*.py", "__pycache__"))
    else:
        python = request.getfixturevalue("former_python")
        subprocess.run([python, ASSETS / "make.py", made], check=True, cwd=tmp_path)
    return made.rename(moved)


@pytest.fixture
def ids(folder):
    """The id that 2.3.0 gave each of `PARAMS`."""
    return json.loads((folder / "ids.json").read_text())


@pytest.fixture
def runner(tmp_path):
    return CountingRunner(tmp_path / "calls")


HITS = [name for name in PARAMS if name not in ("enum", "numpy-int", "registered", "gone")]


def test_store_on_the_former_database_keeps_every_row_as_it_was(folder, runner):
    with closing(sqlite3.connect(folder / "runs.sqlite3")) as connection, connection:
        before = connection.execute("SELECT * FROM runs ORDER BY id").fetchall()

    store = open_store(Run, folder, runner, file_suffix=".txt")

    with closing(sqlite3.connect(folder / "runs.sqlite3")) as connection, connection:
        after = connection.execute("SELECT * FROM runs ORDER BY id").fetchall()
    assert after == before
    assert store.count() == len(PARAMS)


@pytest.mark.parametrize("name", HITS)
def test_run_or_retrieve_of_former_parameters_hits(folder, ids, runner, name):
    store = open_store(Run, folder, runner, file_suffix=".txt")

    record = store.run_or_retrieve(PARAMS[name])

    assert (record.id, runner.calls) == (ids[name], [])
    assert Path(record.result_file) == folder / "results" / f"{ids[name]}.txt"
    assert Path(record.result_file).read_text() == f"n = {PARAMS[name]['n']}\n"


def test_run_or_retrieve_of_a_former_enum_hits_though_its_column_holds_the_members_name(folder, ids, runner):
    store = open_store(Run, folder, runner, file_suffix=".txt")

    record = store.run_or_retrieve(PARAMS["enum"])

    assert (record.id, record.method, runner.calls) == (ids["enum"], "Method.RK4", [])


def test_former_row_of_a_tuple_is_that_of_the_list_and_a_run_of_the_tuple_has_a_row_of_its_own(
    folder, ids, runner
):
    store = open_store(Run, folder, runner, file_suffix=".txt")
    as_tuple, as_list = PARAMS["tuple"], {**PARAMS["tuple"], "shape": [2, 3]}
    assert store.retrieve(as_tuple).id == store.retrieve(as_list).id == ids["tuple"]

    record = store.run(as_tuple)

    assert record.id == store.key(as_tuple) != ids["tuple"]
    assert store.retrieve(as_tuple).id == record.id
    assert store.retrieve(as_list).id == ids["tuple"]


def test_row_of_a_list_that_this_release_wrote_is_not_that_of_the_tuple(folder, runner):
    store = open_store(Run, folder, runner, file_suffix=".txt")
    as_list = {**PARAMS["tuple"], "n": 2100, "shape": [2, 3]}

    listed = store.run_or_retrieve(as_list)

    assert store.retrieve({**as_list, "shape": (2, 3)}) is None
    assert store.sweep([as_list, {**as_list, "shape": (2, 3)}])[1].id != listed.id


def test_former_key_of_a_numpy_integer_is_a_miss_and_its_row_is_found_by_id(folder, ids, runner):
    """2.3.0 hashed the text, so the key is that of another run; computing it again is not wrong."""
    store = open_store(Run, folder, runner, file_suffix=".txt")

    former = store.retrieve({"id": ids["numpy-int"]})
    record = store.run_or_retrieve(PARAMS["numpy-int"])

    assert (former.n, record.n) == (20, 20)
    assert record.id != former.id
    assert runner.calls == [record.id]


@pytest.mark.parametrize(
    ("name", "other"),
    [
        ("noisy", {"dt": 0.3}),
        ("default-left-out", {"beta": 0.0}),
        ("default-left-out", {"label": None}),
        ("str-enum", {"method": "euler"}),
        ("path", {"label": "meshes/fine.msh"}),
        ("tuple", {"shape": [2, 3]}),
        ("numpy-float", {"dt": 0.25}),
    ],
)
def test_former_row_is_found_by_other_ways_to_say_the_same(folder, ids, runner, name, other):
    store = open_store(Run, folder, runner, file_suffix=".txt")

    record = store.run_or_retrieve({**PARAMS[name], **other})

    assert (record.id, runner.calls) == (ids[name], [])


def test_row_of_other_parameters_under_the_former_key_is_a_miss(folder, ids, runner):
    """2.3.0 rounded 2e-13 to 0.0, and so 1e-13: one key for two runs."""
    store = open_store(Run, folder, runner, file_suffix=".txt")

    record = store.run_or_retrieve({**PARAMS["tiny"], "dt": 2e-13})

    assert (record.dt, runner.calls) == (2e-13, [record.id])
    assert store.retrieve(PARAMS["tiny"]).id == ids["tiny"] != record.id


def test_former_custom_data_and_time_come_back(folder, runner):
    store = open_store(Run, folder, runner, file_suffix=".txt")

    record = store.retrieve(PARAMS["custom"])

    assert record.custom_data == CUSTOM_DATA
    assert record.created_at.utcoffset().total_seconds() == 0


def test_hit_on_a_former_row_is_one_select(folder, runner):
    store = open_store(Run, folder, runner, file_suffix=".txt")
    store.retrieve(PARAMS["plain"])

    with statements(store.database.engine) as seen:
        store.run_or_retrieve(PARAMS["default-given"])

    assert [statement.split()[0] for statement in seen] == ["SELECT"]


def test_run_of_a_former_row_replaces_row_and_file_in_place(folder, ids, runner):
    store = open_store(Run, folder, runner, file_suffix=".txt")

    record = store.run(PARAMS["int-for-float"], note="again")

    assert (record.id, record.custom_data["note"]) == (ids["int-for-float"], "again")
    assert Path(record.result_file).read_bytes() != b"n = 10\n"
    assert store.count() == len(PARAMS)


def test_former_row_whose_file_is_gone_is_run_again_with_a_warning(folder, ids, runner, caplog):
    store = open_store(Run, folder, runner, file_suffix=".txt")

    with caplog.at_level(logging.WARNING, logger="entropic"):
        record = store.run_or_retrieve(PARAMS["gone"])

    assert (record.id, runner.calls) == (ids["gone"], [ids["gone"]])
    assert Path(record.result_file).exists()
    assert f"the result of {ids['gone']} is gone" in caplog.text


def test_sweep_over_former_and_new_parameters_runs_the_new_ones(folder, ids, runner):
    store = open_store(Run, folder, runner, file_suffix=".txt")
    names = ["swept-1", "default-given", "int-for-float", "swept-2"]
    new = {"n": 99, "dt": 0.5, "method": "rk4"}

    records = store.sweep([*(PARAMS[name] for name in names), new], progress=False)

    assert [record.id for record in records] == [*(ids[name] for name in names), store.key(new)]
    assert runner.calls == [store.key(new)]


def test_former_registered_file_is_found_in_the_folder_where_it_was_registered(
    folder, ids, runner, monkeypatch
):
    monkeypatch.chdir(folder)
    store = open_store(Run, folder, runner, file_suffix=".txt")

    record = store.run_or_retrieve(PARAMS["registered"])

    assert (record.id, runner.calls) == (ids["registered"], [])
    assert record.result_file == str(folder / "external" / "measured.dat")


def test_register_of_another_file_for_a_former_row_asks_for_overwrite(folder, ids, runner, tmp_path):
    store = open_store(Run, folder, runner, file_suffix=".txt")
    better = tmp_path / "better.dat"
    better.write_text("better")

    with pytest.raises(AlreadyExistsError, match="overwrite=True"):
        store.register(PARAMS["default-given"], better)
    record = store.register(PARAMS["default-given"], better, overwrite=True)

    assert (record.id, record.result_file) == (ids["default-given"], str(better))


@pytest.mark.parametrize("name", ["plain", "default-given", "explicit-id"])
def test_delete_of_a_former_row_with_its_file_leaves_neither(folder, ids, runner, name):
    store = open_store(Run, folder, runner, file_suffix=".txt")

    deleted = store.delete(PARAMS[name], remove_file=True)

    assert deleted
    assert store.retrieve(PARAMS[name]) is None
    assert not (folder / "results" / f"{ids[name]}.txt").exists()


def test_check_reports_what_former_rows_lack_and_fix_completes_it(folder, ids, runner, monkeypatch):
    monkeypatch.chdir(folder)
    store = open_store(Run, folder, runner, file_suffix=".txt")

    report = store.check()
    fixed = store.check(fix=True)

    found = {finding.id: finding.kind for finding in report}
    assert found == {key: "unrecorded-file" for key in ids.values()} | {ids["gone"]: "missing-file"}
    assert all(finding.is_fixed for finding in fixed)
    assert not store.check(checksum=True)
    assert store.count() == len(PARAMS) - 1
    assert store.retrieve(PARAMS["registered"]).result_file.endswith("measured.dat")


def test_recorded_former_file_that_is_damaged_is_found(folder, ids, runner, monkeypatch):
    monkeypatch.chdir(folder)
    store = open_store(Run, folder, runner, file_suffix=".txt")
    store.check(fix=True)
    (folder / "results" / f"{ids['plain']}.txt").write_text("n = 11\n")

    (finding,) = store.check(checksum=True)

    assert (finding.kind, finding.id) == ("corrupt-file", ids["plain"])


def test_former_registered_file_that_went_after_its_completion_is_not_run(folder, runner, monkeypatch):
    monkeypatch.chdir(folder)
    store = open_store(Run, folder, runner, file_suffix=".txt")
    store.check(fix=True)
    (folder / "external" / "measured.dat").unlink()

    with pytest.raises(ResultFileMissingError, match="registered file"):
        store.run_or_retrieve(PARAMS["registered"])

    assert runner.calls == []


def test_former_registered_file_that_is_gone_is_only_reported_and_not_run(folder, ids, runner, monkeypatch):
    monkeypatch.chdir(folder)
    (folder / "external" / "measured.dat").unlink()
    store = open_store(Run, folder, runner, file_suffix=".txt")

    found = {finding.id: finding for finding in store.check(fix=True)}[ids["registered"]]

    with pytest.raises(ResultFileMissingError, match="registered file"):
        store.run_or_retrieve(PARAMS["registered"])
    assert (found.kind, found.is_fixed) == ("missing-file", False)
    assert runner.calls == []
    assert store.count() == len(PARAMS) - 1


def test_plain_sqlalchemy_reads_rows_of_both_releases(folder, ids):
    store = open_store(Run, folder, write_result, file_suffix=".txt")
    new = store.run_or_retrieve({"n": 40, "dt": 0.25, "method": "rk4"}, note="new")
    engine = create_engine(f"sqlite:///{folder / 'runs.sqlite3'}")

    with Session(engine) as session:
        rows = {row.id: row for row in session.scalars(select(PlainRun))}
    engine.dispose()

    assert set(rows) == {*ids.values(), new.id}
    assert Path(rows[new.id].result_file).read_text() == "n = 40\n"
    assert (rows[new.id].dt, rows[new.id].custom_data["note"]) == (0.25, "new")
    assert rows[new.id].created_at == new.created_at.replace(tzinfo=None)


@pytest.mark.slow
def test_former_release_retrieves_what_this_one_wrote(folder, former_python):
    store = open_store(Run, folder, write_result, file_suffix=".txt")
    params = {"n": 40, "dt": 0.25, "method": "rk4", "label": "new"}
    record = store.run_or_retrieve(params, note="for 2.3.0")

    done = subprocess.run(
        [former_python, "-c", RETRIEVE, json.dumps(params)],
        cwd=folder,
        capture_output=True,
        text=True,
        check=True,
    )

    created_at = record.created_at.replace(tzinfo=None).isoformat()
    assert json.loads(done.stdout) == [record.id, record.result_file, created_at, record.custom_data]


def test_methods_of_a_former_enum_in_one_sweep_are_two_runs(folder, ids, runner):
    store = open_store(Run, folder, runner, file_suffix=".txt")

    records = store.sweep([PARAMS["enum"], {**PARAMS["enum"], "n": 98}], progress=False)

    assert records[0].id == ids["enum"]
    assert records[1].method == Method.RK4.value
