"""`record.load()` and `record.open()`: each suffix as its library reads it, damage told from a loader that fails."""

import json
import os
import pickle
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import pytest
from sqlalchemy import select
from sqlalchemy.orm import Session

from entropic import (
    Base,
    CorruptFileError,
    Mapped,
    ResultFileMissingError,
    Store,
    mapped_column,
    register_loader,
)
from entropic.values import codecs
from tests.support.scripts import run_text

zarr = pytest.importorskip("zarr", reason="zarr is not installed")
xarray = pytest.importorskip("xarray", reason="xarray is not installed")


class Loaded(Base):
    __tablename__ = "loaded"

    n: Mapped[int]


@pytest.fixture(autouse=True)
def _registry(monkeypatch):
    """Forget what a test registers."""
    monkeypatch.setattr(codecs, "_known", codecs._known)


@pytest.fixture
def record_of(tmp_path):
    """Runs a function that writes a file of some suffix, and returns the record."""

    def run(suffix, write):
        def runner(params):
            write(params["result_file"])

        url = f"sqlite:///{tmp_path / 'db.sqlite3'}"
        return Store(runner, Loaded, tmp_path / "results", suffix, url).run_or_retrieve({"n": 3})

    return run


def write_hdf5(path):
    with h5py.File(path, "w") as file:
        file["x"] = np.arange(3.0)
        file["run/name"] = "warm"
        file["run/n"] = 7


def write_zarr(path):
    group = zarr.open_group(path, mode="w")
    group["x"] = np.arange(3)
    group.create_group("run")["y"] = np.ones(2)


WRITERS = {
    ".npy": lambda path: np.save(path, np.arange(3)),
    ".npz": lambda path: np.savez(path, x=np.arange(3), y=np.ones(2)),
    ".json": lambda path: Path(path).write_text('{"__entropic__": "tuple", "value": [1]}'),
    ".csv": lambda path: Path(path).write_text("n,x\n1,0.5\n"),
    ".parquet": lambda path: pd.DataFrame({"n": [1]}).to_parquet(path),
    ".h5": write_hdf5,
    ".hdf5": write_hdf5,
    ".nc": lambda path: xarray.Dataset({"x": ("t", [1, 2])}).to_netcdf(path, engine="h5netcdf"),
    ".zarr": write_zarr,
}


def shown(value):
    """Return a value with lists in place of arrays and frames."""
    if isinstance(value, dict):
        return {name: shown(item) for name, item in value.items()}
    if isinstance(value, pd.DataFrame):
        return value.to_dict("list")
    if isinstance(value, xarray.Dataset):
        return {name: list(array.values) for name, array in value.items()}
    return value.tolist() if hasattr(value, "tolist") else value


@pytest.mark.parametrize(
    ("suffix", "expected"),
    [
        (".npy", [0, 1, 2]),
        (".npz", {"x": [0, 1, 2], "y": [1.0, 1.0]}),
        (".json", {"__entropic__": "tuple", "value": [1]}),
        (".csv", {"n": [1], "x": [0.5]}),
        (".parquet", {"n": [1]}),
        (".h5", {"x": [0.0, 1.0, 2.0], "run": {"name": "warm", "n": 7}}),
        (".hdf5", {"x": [0.0, 1.0, 2.0], "run": {"name": "warm", "n": 7}}),
        (".nc", {"x": [1, 2]}),
        (".zarr", {"x": [0, 1, 2], "run": {"y": [1.0, 1.0]}}),
    ],
)
def test_load_gives_what_the_file_holds_by_its_suffix(record_of, suffix, expected):
    record = record_of(suffix, WRITERS[suffix])

    assert shown(record.load()) == expected
    assert shown(record.load(verify=True)) == expected


def test_open_gives_what_the_libraries_open(record_of, tmp_path):
    opened = {}
    for number, suffix in enumerate(WRITERS):
        path = tmp_path / f"{number}{suffix}"
        WRITERS[suffix](str(path))
        file = codecs.open_file(str(path))
        opened[suffix] = type(file).__name__
        if hasattr(file, "close"):
            file.close()

    assert opened == {
        ".npy": "memmap", ".npz": "NpzFile", ".json": "TextIOWrapper", ".csv": "TextIOWrapper",
        ".parquet": "ParquetFile", ".h5": "File", ".hdf5": "File", ".nc": "Dataset", ".zarr": "Group",
    }  # fmt: skip


def test_open_of_a_record_reads_where_it_is_asked(record_of):
    record = record_of(".h5", write_hdf5)

    with record.open() as file:
        assert file["x"][1] == 1.0


def test_open_of_an_unknown_suffix_gives_the_bytes(record_of):
    record = record_of(".raw", lambda path: Path(path).write_bytes(b"\x00\x01"))

    with record.open() as file:
        assert file.read() == b"\x00\x01"


@pytest.mark.parametrize("suffix", ["", ".runs", ".csv"])
def test_open_of_a_folder_says_what_is_in_it(record_of, suffix):
    def write(path):
        Path(path).mkdir()
        Path(path, "mean.txt").write_text("1.5")

    record = record_of(suffix, write)

    with pytest.raises(IsADirectoryError, match=r"is a folder with 'mean\.txt': .*Path\(record\.result_file"):
        record.open()


def test_load_of_an_unknown_suffix_says_how_to_register_it(record_of):
    record = record_of(".raw", lambda path: Path(path).write_bytes(b"abc"))

    with pytest.raises(ValueError, match=r"entropic\.register_loader\('\.raw', function\)"):
        record.load()


def test_registered_loader_reads_its_suffix_and_the_longest_one_wins(record_of, tmp_path):
    register_loader(".raw", lambda path: len(Path(path).read_bytes()))
    register_loader(".fine.raw", lambda path: "fine")

    assert record_of(".raw", lambda path: Path(path).write_bytes(b"abc")).load() == 3
    (tmp_path / "x.FINE.raw").touch()
    assert codecs.load(str(tmp_path / "x.FINE.raw")) == "fine"


def test_loader_of_a_known_suffix_may_be_replaced(record_of):
    register_loader(".NPY", lambda path: "mine")

    assert record_of(".npy", WRITERS[".npy"]).load() == "mine"


@pytest.mark.parametrize("suffix", ["npy", ".", "", ".a/b", ".value.json", ".series.parquet"])
def test_suffix_that_cannot_be_registered_is_refused(suffix):
    with pytest.raises(ValueError, match=repr(suffix).replace(".", r"\.")):
        register_loader(suffix, len)


def test_suffix_and_function_in_each_others_place_are_refused():
    with pytest.raises(TypeError, match=r"a suffix is a text, such as '\.vtk', not <built-in function len>"):
        register_loader(len, ".vtk")


def test_loader_that_is_no_function_is_refused():
    with pytest.raises(TypeError, match="'len'"):
        register_loader(".x", "len")


# Damage


def flip(path):
    data = bytearray(Path(path).read_bytes())
    data[-1] ^= 1
    Path(path).write_bytes(data)


def test_flipped_byte_is_found_on_request(record_of):
    record = record_of(".npy", WRITERS[".npy"])
    flip(record.result_file)

    with pytest.raises(CorruptFileError, match="is not what its run wrote"):
        record.load(verify=True)


@pytest.mark.parametrize("how", ["replaced", "changed", "gone"])
def test_file_that_changes_after_it_was_verified_is_not_taken_for_verified(record_of, tmp_path, how):
    record = record_of(".swapped", lambda path: Path(path).write_text("first"))

    def read_another(path):
        if how == "replaced":
            (tmp_path / "other").write_text("other")
            os.replace(tmp_path / "other", path)
        elif how == "changed":
            Path(path).write_text("other")
        text = Path(path).read_text()
        if how == "gone":
            os.unlink(path)
        return text

    register_loader(".swapped", read_another)

    error, says = (ResultFileMissingError, "not there") if how == "gone" else (CorruptFileError, "replaced")
    with pytest.raises(error, match=says):
        record.load(verify=True)


@pytest.mark.parametrize("suffix", sorted(set(WRITERS) - {".csv", ".zarr"}))
def test_truncated_file_is_told_as_such_without_being_asked(record_of, suffix):
    record = record_of(suffix, WRITERS[suffix])
    data = Path(record.result_file).read_bytes()
    Path(record.result_file).write_bytes(data[: len(data) - 20])

    with pytest.raises(CorruptFileError, match="is not what its run wrote") as caught:
        record.load()

    assert caught.value.__cause__ is not None


def test_error_of_a_loader_on_a_good_file_is_its_own(record_of):
    register_loader(".odd", lambda path: 1 / 0)
    record = record_of(".odd", lambda path: Path(path).write_text("good"))

    with pytest.raises(ZeroDivisionError):
        record.load()


def test_file_that_is_gone_is_missing(record_of):
    record = record_of(".npy", WRITERS[".npy"])
    Path(record.result_file).unlink()

    for ask in (record.load, record.open, lambda: record.load(verify=True)):
        with pytest.raises(ResultFileMissingError, match="the result is not there"):
            ask()


# Records from elsewhere


def test_record_of_a_plain_session_loads_and_has_nothing_to_verify_with(record_of, tmp_path):
    record_of(".npy", WRITERS[".npy"])
    store = Store(print, Loaded, tmp_path / "results", ".npy", f"sqlite:///{tmp_path / 'db.sqlite3'}")

    with Session(store.database.engine) as session:
        record = session.scalars(select(Loaded)).one()

    assert record.load().tolist() == [0, 1, 2]
    with pytest.raises(ResultFileMissingError, match="no digest"):
        record.load(verify=True)


def test_record_that_travelled_loads_and_verifies(record_of):
    record = pickle.loads(pickle.dumps(record_of(".npy", WRITERS[".npy"])))

    assert record.load(verify=True).tolist() == [0, 1, 2]


@pytest.mark.parametrize("suffix", sorted(WRITERS))
def test_file_whose_path_looks_like_a_url_is_read(tmp_path, suffix):
    def runner(params):
        write = zarr.storage.LocalStore(params["result_file"]) if suffix == ".zarr" else params["result_file"]
        WRITERS[suffix](write)

    store = Store(runner, Loaded, tmp_path / "a::b", suffix, f"sqlite:///{tmp_path / 'db.sqlite3'}")
    record = store.run_or_retrieve({"id": "file::x", "n": 3})

    opened = record.open()
    getattr(opened, "close", lambda: None)()

    assert opened is not None
    assert record.load(verify=True) is not None


def test_registered_file_loads_from_anywhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    np.save("mine.npy", np.arange(2))
    store = Store(print, Loaded, "results", ".npy", "sqlite:///db.sqlite3")
    record = store.register({"n": 1}, "mine.npy")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")

    assert record.result_file == "mine.npy"
    assert record.load(verify=True).tolist() == [0, 1]


@pytest.mark.parametrize(
    ("suffix", "missing", "extra"),
    [
        (".csv", "pandas", "frames"),
        (".parquet", "pyarrow", "frames"),
        (".nc", "xarray", "xarray"),
        (".zarr", "zarr", "zarr"),
    ],
)
def test_load_without_the_package_says_how_to_get_it(tmp_path, suffix, missing, extra):
    path = tmp_path / f"x{suffix}"
    WRITERS[suffix](str(path))
    script = (
        f"import sys; sys.modules[{missing!r}] = None\n"
        f"from entropic.values.codecs import load\nload({str(path)!r})"
    )

    done = run_text(script, tmp_path)

    assert done.stderr.splitlines()[-1].startswith("ImportError: reading ")
    assert f"pip install 'entropic[{extra}]'" in done.stderr.splitlines()[-1]


def test_load_of_hdf5_and_npy_needs_no_optional_package(tmp_path):
    write_hdf5(tmp_path / "x.h5")
    np.save(tmp_path / "x.npy", np.arange(2))
    script = (
        "import json, sys\nfor name in ('pandas', 'pyarrow', 'xarray', 'h5netcdf', 'zarr'): sys.modules[name] = None\n"
        "from entropic.values.codecs import load\n"
        f"print(json.dumps([list(load({str(tmp_path / 'x.h5')!r})), load({str(tmp_path / 'x.npy')!r}).tolist()]))"
    )

    done = run_text(script, tmp_path)

    assert json.loads(done.stdout) == [["run", "x"], [0, 1]]


class Beam(Base):
    """A mechanical load is a parameter like any other; only its attribute must not hide a method of records."""

    __tablename__ = "beams"

    load_: Mapped[float] = mapped_column("load")


def test_column_may_be_called_as_a_method_of_records_is(tmp_path):
    store = Store(
        lambda params: np.save(params["result_file"], params["load_"]),
        Beam,
        tmp_path / "results",
        ".npy",
        f"sqlite:///{tmp_path / 'db.sqlite3'}",
    )

    record = store.run_or_retrieve({"load_": 2.5})

    assert record.load_ == 2.5
    assert record.load() == 2.5
    assert record.open()[()] == 2.5
