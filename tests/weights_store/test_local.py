"""Weights: kept by run and iteration, row and file in step, and which of them are the best."""

import hashlib
import logging
import os
import pickle
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import h5py
import numpy as np
import pytest
from sqlalchemy import create_engine, delete, insert, make_url
from sqlalchemy.exc import IntegrityError

from entropic import (
    AlreadyExistsError,
    BestNotFoundError,
    CorruptFileError,
    Database,
    DecodeError,
    InUseError,
    ResultsDirUnavailableError,
    WeightsNotFoundError,
)
from entropic.disk.files import digest_of
from entropic.sql.tables.weights import BestWeightsRow, WeightsRow
from entropic.weights_store import LocalWeightsStore, Weights, WeightsStore
from tests.support.weight_cases import NEW, OLD, files_of, value_of, weights

NAMES = ["group/run 7", "β/γ", "weights.sqlite3", ".hidden", "a:b", "CON", "ä" * 255]


@pytest.fixture
def store(tmp_path):
    return LocalWeightsStore(tmp_path / "weights")


def folder_of(store, run="r"):
    return store.basedir / run / "checkpoints" / "iterations"


def the_file(store, run="r"):
    (path,) = folder_of(store, run).iterdir()
    return path


class Part:
    """A model or an optimiser."""

    def __init__(self, **state):
        self.state = state

    def state_dict(self):
        return self.state

    def load_state_dict(self, state):
        self.state = state


# What there is, on every database


def test_weights_come_back_by_run_and_iteration(tmp_path, database):
    store = LocalWeightsStore(tmp_path, database)
    assert store.latest_iteration("r") is None

    for iteration, value in ((0, 0.0), (100, 100.0), (20, 20.0)):
        store.store_weights("r", iteration, weights(value))
    store.store_weights("other", 7, weights(7.0))

    assert store.latest_iteration("r") == 100
    assert store.iterations("r") == [0, 20, 100]
    assert [value_of(store.retrieve_weights("r", i, verify=True)) for i in (0, 20, 100)] == [0, 20, 100]
    assert store.iterations("absent") == []
    with pytest.raises(WeightsNotFoundError, match="no weights of the run 'r' at iteration 7 are stored"):
        store.retrieve_weights("r", 7)


def test_best_weights_are_those_that_were_stored_as_such_and_stay(tmp_path, database):
    store = LocalWeightsStore(tmp_path, database)
    for iteration in (0, 100):
        store.store_weights("r", iteration, weights(OLD))

    assert store.store_best("r", 0, "d", "c") is True
    assert store.store_best("r", 100, "d", "c") is True
    assert store.retrieve_best("r", "d", "c") == 100
    with pytest.raises(BestNotFoundError, match="as the best by 'd' on 'c'"):
        store.retrieve_best("r", "c", "d")
    with pytest.raises(WeightsNotFoundError, match="at iteration 7"):
        store.store_best("r", 7, "d", "c")
    with pytest.raises(InUseError, match="at iteration 100 are the best by 'c' on 'd'"):
        store.remove("r", 100)
    assert store.retrieve_best("r", "d", "c") == store.latest_iteration("r") == 100

    store.remove("r", 0)
    store.remove("r", 100, force=True)

    with pytest.raises(BestNotFoundError):
        store.retrieve_best("r", "d", "c")
    assert store.latest_iteration("r") is None
    assert files_of(tmp_path) == []


def test_pointer_to_no_weights_is_refused_by_the_database_itself(tmp_path, database):
    store = LocalWeightsStore(tmp_path, database)
    store.store_weights("r", 1, weights(OLD))
    store.store_best("r", 1, "d", "c")

    with pytest.raises(IntegrityError), database.engine.begin() as connection:
        connection.execute(delete(WeightsRow.__table__))
    row = {"run_name": "r", "dataset": "d", "criterion": "e", "iteration": 9, "created_at": None}
    with pytest.raises(IntegrityError), database.engine.begin() as connection:
        connection.execute(insert(BestWeightsRow.__table__), row)


def test_all_weights_of_a_run_are_removed_together(tmp_path, database):
    store = LocalWeightsStore(tmp_path, database)
    for run in ("r", "s"):
        for iteration in range(3):
            store.store_weights(run, iteration, weights(iteration))
        store.store_best(run, 1, "d", "c")

    def taken_back():
        with store.database.transaction():
            assert store.remove_run("r") == 3
            assert store.iterations("r") == []
            1 / 0  # noqa: B018

    with pytest.raises(ZeroDivisionError):
        taken_back()
    assert store.iterations("r") == [0, 1, 2]
    assert value_of(store.retrieve_weights("r", store.retrieve_best("r", "d", "c"))) == 1

    assert (store.remove_run("r"), store.remove_run("r")) == (3, 0)
    assert store.iterations("r") == []
    with pytest.raises(BestNotFoundError):
        store.retrieve_best("r", "d", "c")
    assert store.retrieve_best("s", "d", "c") == 1
    assert len(files_of(tmp_path)) == 3


def test_all_weights_that_cannot_be_had_are_told(tmp_path, database):
    store = LocalWeightsStore(tmp_path, database)
    for iteration in range(4):
        store.store_weights("r", iteration, weights(iteration))
    assert store.check(checksum=True) == []

    gone, cut, changed, _ = sorted(folder_of(store).iterdir())
    gone.unlink()
    os.truncate(cut, 100)
    with changed.open("r+b") as file:
        file.seek(-8, os.SEEK_END)
        file.write(b"\xff" * 8)

    assert [(one.run, one.iteration) for one in store.check()] == [("r", 0), ("r", 1)]
    found = store.check(checksum=True)
    assert [(one.run, one.iteration) for one in found] == [("r", 0), ("r", 1), ("r", 2)]
    assert all(
        told in one.problem
        for one, told in zip(found, ["is gone", "it has 100 bytes", "its SHA-256"], strict=True)
    )

    store.store_weights("r", 0, weights(NEW))
    store.remove("r", 1)
    assert [one.iteration for one in store.check(checksum=True)] == [2]


def test_weights_that_are_replaced_while_they_are_checked_are_no_problem(store, monkeypatch):
    store.store_weights("r", 1, weights(OLD))
    of_before = store._rows.every

    def every(connection):
        found = of_before(connection)
        monkeypatch.undo()
        store.store_weights("r", 1, weights(NEW))
        return found

    monkeypatch.setattr(type(store._rows), "every", lambda rows, connection: every(connection))

    assert store.check() == []


@pytest.mark.parametrize(
    ("dataset", "file"), [("d", "d"), ("group/d", "group%2Fd"), ("iterations", "iterations")]
)
def test_best_weights_are_exported_where_others_look_for_them(store, dataset, file):
    for iteration in (100, 200):
        store.store_weights("r", iteration, weights(OLD))
    store.store_best("r", 100, SimpleNamespace(name=dataset), "c")
    with pytest.raises(BestNotFoundError):
        store.export_best("r", dataset, "e")

    path = store.export_best("r", SimpleNamespace(name=dataset), "c")
    assert path == store.basedir / "r" / "checkpoints" / file / "c.json"
    assert path.read_text() == '{"iteration": 100}'

    store.store_best("r", 200, dataset, "c")
    assert store.export_best("r", dataset, "c").read_text() == '{"iteration": 200}'
    assert store.iterations("r") == [100, 200]
    assert (store.remove_exported("r"), store.remove_exported("r"), store.remove_exported("absent")) == (
        1,
        0,
        0,
    )
    assert store.check() == []


def test_best_weights_are_not_exported_through_a_link(store, tmp_path):
    store.store_weights("r", 1, weights(OLD))
    store.store_best("r", 1, "d", "c")
    outside = tmp_path / "outside"
    outside.mkdir()
    outside.joinpath("theirs.json").touch()
    store.basedir.joinpath("r", "checkpoints", "d").symlink_to(outside)

    with pytest.raises(NotADirectoryError, match="is a link"):
        store.export_best("r", "d", "c")
    assert store.remove_exported("r") == 0
    assert [path.name for path in outside.iterdir()] == ["theirs.json"]


# Storing


def test_weights_of_a_run_are_the_state_dicts_of_its_model_and_optimizer(store):
    run = SimpleNamespace(name="r", model=Part(w=np.ones(2)), optimizer=Part(lr=0.1))
    store.store_weights(run, 5)
    run.model.state, run.optimizer.state = {}, {}

    store.load_weights(run, 5)

    assert run.model.state["w"].tolist() == [1, 1]
    assert run.optimizer.state == {"lr": 0.1}
    assert store.latest_iteration(run) == store.latest_iteration("r") == 5
    store.store_best(run, 5, SimpleNamespace(name="d"), "c")
    run.model.state = {}
    store.load_best(run, "d", "c")
    assert run.model.state["w"].tolist() == [1, 1]
    store.remove(run, 5, force=True)


@pytest.mark.parametrize("given", [{"model": {"w": 1}, "optimizer": {"lr": 2}}, Weights({"w": 1}, {"lr": 2})])
def test_weights_are_given_in_several_forms(store, given):
    store.store_weights("r", 1, given)

    found = store.retrieve_weights("r", 1)

    assert (found.model, found.optimizer) == ({"w": 1}, {"lr": 2})


def test_weights_without_an_optimizer_leave_that_of_a_run_alone(store):
    store.store_weights("r", 1, Weights({"w": 1}))
    run = SimpleNamespace(name="r", model=Part(), optimizer=Part(lr=3))

    store.load_weights(run, 1)

    assert (run.model.state, run.optimizer.state) == ({"w": 1}, {"lr": 3})


def test_weights_that_are_there_give_way_unless_that_is_excluded(store):
    store.store_weights("r", 1, weights(OLD))
    former = the_file(store)

    with pytest.raises(
        AlreadyExistsError, match="are stored already, and were left alone: say exist_ok=True"
    ):
        store.store_weights("r", 1, weights(NEW), exist_ok=False)
    assert the_file(store) == former

    store.store_weights("r", 1, weights(NEW))
    store.store_weights("r", 2, weights(NEW), exist_ok=False)
    assert value_of(store.retrieve_weights("r", 1)) == NEW
    assert not former.exists()
    assert len(files_of(store.basedir)) == 2


def test_weights_that_another_process_stored_meanwhile_are_not_replaced_unasked(store, monkeypatch):
    other = LocalWeightsStore(store.basedir)
    real = LocalWeightsStore._written

    def written(self, *arguments):
        found = real(self, *arguments)
        monkeypatch.undo()
        other.store_weights("r", 1, weights(OLD))
        return found

    monkeypatch.setattr(LocalWeightsStore, "_written", written)
    with pytest.raises(AlreadyExistsError):
        store.store_weights("r", 1, weights(NEW), exist_ok=False)
    assert value_of(store.retrieve_weights("r", 1)) == OLD
    assert len(files_of(store.basedir)) == 1

    monkeypatch.setattr(LocalWeightsStore, "_written", written)
    store.store_weights("r", 1, weights(NEW))
    assert value_of(store.retrieve_weights("r", 1)) == NEW
    assert len(files_of(store.basedir)) == 1


@pytest.mark.parametrize(
    ("change", "error", "text"),
    [
        (lambda s: s.store_weights("r", 1), TypeError, "'r' has no model: give the weights"),
        (lambda s: s.store_weights("r", 1, {"optimizer": {}}), TypeError, "has no model"),
        (
            lambda s: s.store_weights("r", 1, Weights({"w": object()})),
            TypeError,
            r"model\[w\] cannot be stored",
        ),
        (lambda s: s.store_weights("r", -1, weights(1)), ValueError, "an iteration is 0 or more"),
        (lambda s: s.store_weights("r", 2**63, weights(1)), ValueError, "an iteration is 0 or more"),
        (lambda s: s.store_weights("r", 1.5, weights(1)), TypeError, "float"),
        (lambda s: s.store_weights("r", "7", weights(1)), TypeError, "an iteration is an integer, not '7'"),
        (lambda s: s.store_weights("r", True, weights(1)), TypeError, "an iteration is an integer, not True"),
        (lambda s: s.store_weights("", 1, weights(1)), ValueError, "a name has 1 to 255 characters"),
        (lambda s: s.store_weights(None, 1, weights(1)), ValueError, "a name has 1 to 255 characters"),
        (lambda s: s.store_weights("../r", 1, weights(1)), ValueError, "a name is no path"),
        (lambda s: s.store_weights(7, 1, weights(1)), TypeError, "a name, or an object that has one"),
        (lambda s: s.store_weights("r\ud800", 1, weights(1)), ValueError, "no half of a surrogate pair"),
        (lambda s: s.store_best("r", 1, "", "c"), ValueError, "a name has"),
        (lambda s: s.retrieve_best("r", "d", "/c"), ValueError, "a name is no path"),
        (lambda s: s.latest_iteration("a/../b"), ValueError, "a name is no path"),
        (lambda s: s.prune("r", keep_last=-1), ValueError, "0 or more: -1"),
    ],
)
def test_what_cannot_be_stored_is_an_error_that_leaves_nothing(store, change, error, text):
    with pytest.raises(error, match=text):
        change(store)

    assert files_of(store.basedir) == []
    assert store.iterations("r") == []


def test_file_where_a_folder_is_wanted_is_named_and_kept(store, tmp_path):
    path = tmp_path / "file"
    path.write_text("precious")
    for make in (lambda: LocalWeightsStore(path), lambda: LocalWeightsStore(path / "below")):
        with pytest.raises(NotADirectoryError, match="is a file, where a folder is wanted"):
            make()
    path.rename(store.basedir / "r")
    with pytest.raises(NotADirectoryError, match="is a file, where a folder is wanted"):
        store.store_weights("r", 1, weights(NEW))

    assert store.basedir.joinpath("r").read_text() == "precious"
    assert store.iterations("r") == []


@pytest.mark.parametrize("place", ["r", "r/checkpoints", "r/checkpoints/iterations"])
def test_link_in_the_place_of_a_runs_folder_is_not_followed(store, tmp_path, place):
    outside = tmp_path / "outside"
    outside.mkdir()
    link = store.basedir / place
    link.parent.mkdir(parents=True, exist_ok=True)
    link.symlink_to(outside)

    with pytest.raises(NotADirectoryError, match="is a link, which may lead anywhere"):
        store.store_weights("r", 1, weights(NEW))

    assert list(outside.iterdir()) == []
    assert store.iterations("r") == []


@pytest.mark.parametrize("name", NAMES)
def test_any_name_can_be_that_of_a_run(store, name):
    store.store_weights(name, 1, weights(OLD))
    store.store_best(name, 1, name, name)

    assert value_of(store.retrieve_weights(name, 1)) == OLD
    assert store.retrieve_best(name, name, name) == 1
    (path,) = store.basedir.rglob("*.h5")
    assert path.parts[-4] not in {"weights.sqlite3", ".hidden"}
    assert LocalWeightsStore(store.basedir).latest_iteration(name) == 1


def test_full_disk_leaves_nothing_and_the_former_weights(store, monkeypatch):
    store.store_weights("r", 1, weights(OLD))
    former = files_of(store.basedir)

    def no_space(*arguments):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "pwrite", no_space)
    with pytest.raises(OSError, match="No space left"):
        store.store_weights("r", 1, weights(NEW))
    monkeypatch.undo()

    assert files_of(store.basedir) == former
    assert value_of(store.retrieve_weights("r", 1, verify=True)) == OLD


def test_name_that_was_given_twice_does_no_harm(store, monkeypatch):
    """Of two in four billion."""
    store.store_weights("r", 1, weights(OLD))
    former = files_of(store.basedir)
    monkeypatch.setattr("entropic.weights_store.local.new_file_name", lambda iteration: former[0])

    with pytest.raises(FileExistsError):
        store.store_weights("r", 1, weights(NEW))

    assert files_of(store.basedir) == former
    assert value_of(store.retrieve_weights("r", 1, verify=True)) == OLD


# Reading


def test_single_arrays_are_read_when_they_are_asked_for(store):
    store.store_weights("r", 1, weights(OLD))

    with store.retrieve_weights("r", 1, lazy=True) as found:
        array = found.model["layer.weight"]
        assert (array.shape, array.dtype, len(array)) == ((2, 3), "float32", 2)
        assert array[1, :2].tolist() == [OLD, OLD]
        assert found.optimizer["state"][0]["step"] == np.float32(OLD)
        store.remove("r", 1)
        np.testing.assert_array_equal(array, array.load())
    with pytest.raises(ValueError, match="was closed before 'model/layer"):
        array.load()


def test_weights_that_are_replaced_between_row_and_file_are_read_anew(store, monkeypatch):
    store.store_weights("r", 1, weights(OLD))
    real, other = LocalWeightsStore._find, LocalWeightsStore(store.basedir)

    def find(self, *arguments):
        found = real(self, *arguments)
        monkeypatch.undo()
        other.store_weights("r", 1, weights(NEW))
        return found

    monkeypatch.setattr(LocalWeightsStore, "_find", find)

    assert value_of(store.retrieve_weights("r", 1)) == NEW


def test_file_that_is_gone_is_an_error_that_says_so(store):
    store.store_weights("r", 1, weights(OLD))
    the_file(store).unlink()

    with pytest.raises(
        WeightsNotFoundError, match=r"are recorded, but their file .* is gone: mount its folder"
    ):
        store.retrieve_weights("r", 1)
    store.remove("r", 1)
    assert store.iterations("r") == []


def damage(path, at):
    octets = bytearray(path.read_bytes())
    octets[at] ^= 255
    path.write_bytes(octets)


def test_damage_is_found_out(store):
    store.store_weights("r", 1, weights(OLD))
    path = the_file(store)
    place = path.read_bytes().index(np.full(6, OLD, "f4").tobytes())
    damage(path, place)
    assert store.retrieve_weights("r", 1).model["layer.weight"][0, 0] != OLD
    with pytest.raises(CorruptFileError, match="is not what was stored: its SHA-256 is"):
        store.retrieve_weights("r", 1, verify=True)

    damage(path, 1)  # no HDF5 any more
    with pytest.raises(CorruptFileError, match="SHA-256"):
        store.retrieve_weights("r", 1)
    with path.open("ab") as file:
        file.write(b"x")
    with pytest.raises(CorruptFileError, match=r"it has \d+ bytes, not \d+"):
        store.retrieve_weights("r", 1)


def test_sha256_of_the_row_is_that_of_the_file(store):
    store.store_weights("r", 1, weights(OLD))
    with store.database.reading() as connection:
        row = connection.exec_driver_sql("SELECT file_name, size_bytes, sha256 FROM entropic_weights").one()

    octets = the_file(store).read_bytes()
    assert tuple(row) == (the_file(store).name, len(octets), hashlib.sha256(octets).hexdigest())


def test_file_with_a_link_is_not_read(store):
    """It has the digest of its row: somebody wrote both."""
    store.store_weights("r", 1, weights(OLD))
    path = the_file(store)
    with h5py.File(path, "r+") as file:
        file["model/elsewhere"] = h5py.ExternalLink("/etc/passwd", "/")
    with store.database.engine.begin() as connection:
        size, sha256 = digest_of(path)
        connection.exec_driver_sql(f"UPDATE entropic_weights SET size_bytes = {size}, sha256 = '{sha256}'")

    with pytest.raises(DecodeError, match=r"'model/elsewhere' in .* is a link, which is not followed"):
        store.retrieve_weights("r", 1)


# Removing


def test_what_is_not_there_cannot_be_removed(store):
    with pytest.raises(WeightsNotFoundError) as caught:
        store.remove("r", 1)

    assert isinstance(caught.value, FileNotFoundError)
    assert files_of(store.basedir) == []


def test_the_last_and_the_best_are_kept(store):
    for iteration in range(6):
        store.store_weights("r", iteration, weights(OLD))
        store.store_weights("other", iteration, weights(OLD))
    store.store_best("r", 1, "d", "c")
    store.store_best("r", 5, "d", "e")

    assert store.prune("r", keep_last=2) == [0, 2, 3]
    assert store.iterations("r") == [1, 4, 5]
    assert len(list(folder_of(store).iterdir())) == 3
    assert store.prune("r", keep_last=2) == []
    assert store.prune("r", keep_last=0) == [4]
    assert store.iterations("other") == [0, 1, 2, 3, 4, 5]
    assert len(files_of(store.basedir)) == 8


def test_file_that_cannot_be_removed_is_left_to_who_opens_the_store_later(store, caplog, monkeypatch):
    store.store_weights("r", 1, weights(OLD))

    def refuse(path):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "unlink", refuse)
    store.remove("r", 1)
    monkeypatch.undo()

    assert "is left to whoever opens the store later" in caplog.text
    assert store.iterations("r") == []
    assert len(files_of(store.basedir)) == 2  # the file, and a note


# The best


@pytest.mark.parametrize(
    ("first", "second", "higher", "best"),
    [
        (0.5, 0.6, True, 2),
        (0.5, 0.4, True, 1),
        (0.5, 0.4, False, 2),
        (0.5, 0.5, True, 1),
        (0.5, None, True, 2),
        (None, 0.1, True, 2),
        (float("nan"), 0.1, True, 2),
        (0.5, float("nan"), True, 1),
        (float("nan"), float("nan"), True, 1),
        (0.5, float("inf"), True, 2),
    ],
)
def test_with_a_score_only_the_better_weights_become_the_best(store, first, second, higher, best):
    for iteration in (1, 2):
        store.store_weights("r", iteration, weights(OLD))
    assert store.store_best("r", 1, "d", "c", score=first, higher_is_better=higher)

    is_best = store.store_best("r", 2, "d", "c", score=second, higher_is_better=higher)

    assert store.retrieve_best("r", "d", "c") == best
    assert is_best == (best == 2)


# Opening


def test_store_keeps_its_rows_in_its_folder_unless_told_where(tmp_path):
    folder = tmp_path / "deep" / "what? #1 %20"
    LocalWeightsStore(str(folder)).store_weights("r", 1, weights(OLD))

    assert (folder / "weights.sqlite3").is_file()
    assert LocalWeightsStore(folder).latest_iteration("r") == 1


@pytest.mark.parametrize("form", [str, make_url, create_engine, Database])
def test_database_is_given_in_any_form(tmp_path, sqlite_url, form):
    given = form(sqlite_url)
    store = LocalWeightsStore(tmp_path / "w", given)
    store.store_weights("r", 1, weights(OLD))

    assert LocalWeightsStore(tmp_path / "w", sqlite_url).latest_iteration("r") == 1
    if form is create_engine:
        given.dispose()
    assert files_of(tmp_path) == [the_file(store).name]


def test_weights_in_another_database_of_the_folder_are_left_alone(tmp_path):
    first = LocalWeightsStore(tmp_path, f"sqlite:///{tmp_path / 'a.sqlite3'}")
    second = LocalWeightsStore(tmp_path, f"sqlite:///{tmp_path / 'b.sqlite3'}")
    first.store_weights("r", 1, weights(OLD))
    second.store_weights("r", 1, weights(NEW))

    second.remove("r", 1)

    assert value_of(first.retrieve_weights("r", 1)) == OLD
    assert second.latest_iteration("r") is None


def test_folder_that_is_not_that_of_the_weights_is_not_written_to(tmp_path, sqlite_url):
    """It is not mounted, or another one: its weights would take the rows of the others."""
    store = LocalWeightsStore(tmp_path / "share", sqlite_url)
    store.store_weights("r", 1, weights(OLD))
    (tmp_path / "share").rename(tmp_path / "mounted elsewhere")

    for change in (
        lambda: store.store_weights("r", 1, weights(NEW)),
        lambda: store.store_weights("s", 1, weights(NEW)),
        lambda: store.remove("r", 1),
        lambda: store.prune("r", keep_last=0),
        lambda: store.remove_run("r"),
        store.check,
        lambda: LocalWeightsStore(tmp_path / "another", sqlite_url).store_weights("r", 1, weights(NEW)),
    ):
        with pytest.raises(
            ResultsDirUnavailableError, match=r"is not the folder of the weights in .* Mount it"
        ):
            change()
    assert not (tmp_path / "share").exists()

    again = LocalWeightsStore(tmp_path / "mounted elsewhere", sqlite_url)
    assert value_of(again.retrieve_weights("r", 1)) == OLD
    again.store_weights("r", 1, weights(NEW))
    assert len(files_of(tmp_path)) == 1


def test_store_and_weights_travel_to_other_processes(store):
    store.store_weights("r", 1, weights(OLD))

    again = pickle.loads(pickle.dumps(store))

    assert value_of(pickle.loads(pickle.dumps(again.retrieve_weights("r", 1)))) == OLD


def test_interface_cannot_be_made():
    with pytest.raises(TypeError, match="abstract"):
        WeightsStore()


def test_store_of_results_loads_nothing_of_it(tmp_path):
    script = (
        "import sys, entropic; from entropic import Base, Database, Mapped, Store\n"
        "class Run(Base):\n    __tablename__ = 'runs'\n    n: Mapped[int]\n"
        "Store(print, Run, 'results', '.txt', 'sqlite://')\n"
        "print([name for name in sys.modules if name in ('h5py', 'entropic.weights_store')])"
    )
    command = [sys.executable, "-c", script]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=tmp_path)

    assert done.stdout.strip() == "[]"


def test_nothing_is_said_where_nothing_was_repaired(store, caplog):
    caplog.set_level(logging.WARNING)
    store.store_weights("r", 1, weights(OLD))
    LocalWeightsStore(Path(store.basedir))

    assert caplog.records == []
