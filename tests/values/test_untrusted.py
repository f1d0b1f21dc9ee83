"""Files that somebody made to do harm: nothing outside them is read, nothing is run, and little is allocated."""

import json
import os
import zipfile
from io import BytesIO

import h5py
import numpy as np
import pytest

from entropic import DecodeError, Store
from entropic.values import codecs, untrusted
from entropic.values.codecs import load, open_file
from tests.support.store_cases import PARAMS, Pendulum

OPENERS = {"load": load, "open": lambda path: open_file(path).close()}
both = pytest.mark.parametrize("opener", OPENERS.values(), ids=OPENERS)


@pytest.fixture
def path(tmp_path):
    """Where a file of HDF5 is to be, beside one that is nobody's to read."""
    with h5py.File(tmp_path / "secret.h5", "w") as file:
        file["x"] = [1.0, 2.0]
    return str(tmp_path / "result.h5")


def an_external_link(file):
    file["inner/link"] = h5py.ExternalLink("secret.h5", "/x")


def external_storage(file):
    file.create_dataset("x", (2,), "f8", external=[("secret.h5", 0, h5py.h5f.UNLIMITED)])


def a_virtual_dataset(file):
    layout = h5py.VirtualLayout((2,), "f8")
    layout[:] = h5py.VirtualSource("secret.h5", "x", (2,))
    file.create_virtual_dataset("x", layout)


@both
@pytest.mark.parametrize(
    "make", [an_external_link, external_storage, a_virtual_dataset], ids=lambda m: m.__name__
)
def test_hdf5_that_leads_to_another_file_is_refused(path, opener, make):
    with h5py.File(path, "w") as file:
        make(file)

    with pytest.raises(DecodeError, match="a result is one file"):
        opener(path)


@pytest.mark.parametrize(
    "make", [an_external_link, external_storage, a_virtual_dataset], ids=lambda m: m.__name__
)
def test_hdf5_of_values_that_leads_to_another_file_is_refused(path, make):
    path = path.replace(".h5", ".value.h5")
    with h5py.File(path, "w") as file:
        file["__document__"] = np.frombuffer(b"1", "u1")
        make(file)

    with pytest.raises(DecodeError, match="a result is one file"):
        load(path)


def a_soft_link(file):
    file.create_group("a/b")
    file["a/b/up"] = h5py.SoftLink("/a")


def a_hard_link(file):
    file.create_group("a/b")
    file["a/b/up"] = file["a"]


def a_link_to_the_root(file):
    file["up"] = h5py.SoftLink("/")


@pytest.mark.parametrize("make", [a_soft_link, a_hard_link, a_link_to_the_root], ids=lambda m: m.__name__)
def test_hdf5_that_goes_in_a_circle_is_refused(path, make):
    with h5py.File(path, "w") as file:
        make(file)

    with pytest.raises(DecodeError, match="leads back"):
        load(path)


def test_hdf5_with_two_names_for_one_array_is_read(path):
    with h5py.File(path, "w") as file:
        file["a"] = [1.0, 2.0]
        file["b"] = h5py.SoftLink("/a")
        file["c"] = file["a"]

    assert {name: list(values) for name, values in load(path).items()} == {key: [1.0, 2.0] for key in "abc"}


def test_hdf5_that_claims_more_than_it_can_hold_is_not_read(path):
    with h5py.File(path, "w") as file:
        file.create_dataset("x", (1 << 40,), "f8", chunks=(1 << 20,))

    with pytest.raises(DecodeError, match=r"claims to hold more.*record\.open\(\)"):
        load(path)
    with open_file(path) as file:
        assert file["x"][:3].tolist() == [0.0] * 3


def test_hdf5_that_names_one_array_many_times_is_not_read(path, monkeypatch):
    monkeypatch.setattr(untrusted, "_FREE_BYTES", 1 << 20)
    with h5py.File(path, "w") as file:
        file.create_dataset("x", (1 << 20,), "f8", chunks=(1 << 16,))
        for n in range(60):
            file[f"x{n}"] = file["x"]

    with pytest.raises(DecodeError, match="claims to hold more"):
        load(path)


def test_hdf5_of_zeros_that_was_packed_well_is_read(path):
    with h5py.File(path, "w") as file:
        file.create_dataset("x", data=np.zeros(1 << 20), compression="gzip", compression_opts=9)

    assert load(path)["x"].shape == (1 << 20,)


def npz_of_many(path):
    """Write an archive whose entries share their bytes, so that it unpacks to far more than deflate could do."""
    octets = BytesIO()
    np.lib.format.write_array(octets, np.zeros(1 << 20))
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        archive.writestr("x.npy", octets.getvalue())
        (entry,) = archive.infolist()
        for n in range(2000):
            other = zipfile.ZipInfo(f"x{n}.npy")
            for name in ("compress_type", "CRC", "compress_size", "file_size", "header_offset"):
                setattr(other, name, getattr(entry, name))
            archive.filelist.append(other)
        archive._didModify = True


def test_npz_that_unpacks_to_more_than_it_can_hold_is_not_read(tmp_path):
    npz_of_many(tmp_path / "result.npz")

    with pytest.raises(DecodeError, match="claims to hold more"):
        load(str(tmp_path / "result.npz"))


@pytest.mark.parametrize("name", ["result.json", "result.value.json"])
def test_json_that_is_deep_is_refused(tmp_path, name):
    (tmp_path / name).write_text("[" * 200_000 + "]" * 200_000)

    with pytest.raises((DecodeError, ValueError), match="nested"):
        load(str(tmp_path / name))


@both
@pytest.mark.parametrize("suffix", [*sorted(codecs.FORMATS), ".other"])
def test_fifo_is_not_waited_for(tmp_path, opener, suffix):
    os.mkfifo(tmp_path / f"result{suffix}")
    if suffix == ".other":
        opener = OPENERS["open"]

    with pytest.raises(DecodeError, match="not opened"):
        opener(str(tmp_path / f"result{suffix}"))


# zarr


class Harm:
    def __reduce__(self):
        return os.mkdir, (os.environ["HARM"],)


def zarr_with_pickle(path, inner=""):
    import zarr
    from numcodecs import Pickle

    folder = path / inner
    folder.mkdir(parents=True)
    if inner:
        zarr.create_group(str(path), zarr_format=2)
    described = {
        "zarr_format": 2,
        "shape": [1],
        "chunks": [1],
        "dtype": "|O",
        "order": "C",
        "fill_value": None,
    }
    described |= {"compressor": None, "filters": [{"id": "pickle", "protocol": 5}]}
    (folder / ".zarray").write_text(json.dumps(described))
    (folder / "0").write_bytes(Pickle().encode(np.array([Harm()], dtype=object)))


@pytest.mark.parametrize("inner", ["", "inner"])
@pytest.mark.parametrize("opener", [load, open_file], ids=["load", "open"])
def test_zarr_packed_by_pickle_is_refused_and_nothing_is_run(tmp_path, monkeypatch, opener, inner):
    monkeypatch.setenv("HARM", str(tmp_path / "harmed"))
    zarr_with_pickle(tmp_path / "result.zarr", inner)

    with pytest.raises((DecodeError, ValueError), match="pickle"):
        opener(str(tmp_path / "result.zarr"))

    assert not (tmp_path / "harmed").exists()


def test_zarr_that_claims_more_than_it_can_hold_is_not_read(tmp_path):
    import zarr

    zarr.create_array(str(tmp_path / "result.zarr"), shape=(1 << 45,), chunks=(1 << 20,), dtype="f8")

    with pytest.raises(DecodeError, match="claims to hold more"):
        load(str(tmp_path / "result.zarr"))


def test_record_of_a_file_that_leads_elsewhere_is_refused(sqlite, tmp_path):
    def run(params):
        with h5py.File(params["result_file"], "w") as file:
            an_external_link(file)

    store = Store(run, Pendulum, tmp_path / "results", ".h5", sqlite)
    record = store.run_or_retrieve(PARAMS)

    with pytest.raises(DecodeError, match="another file"):
        record.load()
    with pytest.raises(DecodeError, match="another file"):
        record.open()


# Arrays, tables and netCDF


def test_npy_whose_header_claims_more_than_the_file_holds_is_not_read(tmp_path):
    with (tmp_path / "result.npy").open("wb") as file:
        np.lib.format.write_array_header_1_0(
            file, {"descr": "<f8", "fortran_order": False, "shape": (1 << 40,)}
        )
        file.write(b"x" * 80)

    with pytest.raises(DecodeError, match=r"shape \(1099511627776,\)"):
        load(str(tmp_path / "result.npy"))


@pytest.mark.parametrize("array", [np.arange(3.0), np.zeros((0, 5)), np.array(1), np.zeros(2, "U3")])
def test_npy_is_read_as_it_is(tmp_path, array):
    np.save(tmp_path / "result.npy", array)

    found = load(str(tmp_path / "result.npy"))

    assert (found.shape, found.dtype) == (array.shape, array.dtype)
    assert (found == array).all()


def test_csv_whose_short_lines_make_wide_rows_is_not_read(tmp_path):
    (tmp_path / "result.csv").write_text("," * 200_000 + "\n" + "1\n" * 20_000)

    with pytest.raises(DecodeError, match="claims to hold more"):
        load(str(tmp_path / "result.csv"))


@pytest.mark.parametrize("head", ["a,b\n", "\n\na,b\n", "﻿a,b\n", '"a","b"\r\n'])
def test_csv_is_read_as_pandas_does(tmp_path, head):
    import pandas as pd

    path = tmp_path / "result.csv"
    path.write_text(head + "".join(f"{n},{n}.5\n" for n in range(100_000)), newline="")

    pd.testing.assert_frame_equal(load(str(path)), pd.read_csv(path))


def test_parquet_that_claims_more_values_than_it_can_hold_is_not_read(tmp_path, monkeypatch):
    import pandas as pd

    monkeypatch.setattr(untrusted, "_FREE_BYTES", 0)
    monkeypatch.setattr(untrusted, "_ZARR_RATIO", 10)
    pd.DataFrame({"x": np.zeros(1 << 20)}).to_parquet(tmp_path / "result.parquet", compression="zstd")

    with pytest.raises(DecodeError, match=r"claims to hold more.*'x'"):
        load(str(tmp_path / "result.parquet"))


def test_parquet_whose_notes_are_deep_is_refused(tmp_path):
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = pa.table({"x": [1.0]}).replace_schema_metadata({b"entropic": b"[" * 100_000})
    pq.write_table(table, tmp_path / "result.parquet")

    with pytest.raises(ValueError, match="nested too deeply"):
        load(str(tmp_path / "result.parquet"))


def test_netcdf_that_claims_more_than_it_can_hold_is_not_read(tmp_path):
    import h5netcdf

    with h5netcdf.File(tmp_path / "result.nc", "w") as file:
        file.dimensions = {"x": 1 << 34}
        file.create_variable("v", ("x",), "f8", chunks=(1 << 20,))

    with pytest.raises(DecodeError, match=r"claims to hold more.*'v'"):
        load(str(tmp_path / "result.nc"))
    with open_file(str(tmp_path / "result.nc")) as opened:
        assert opened.sizes == {"x": 1 << 34}


def test_netcdf_with_a_link_to_another_file_is_refused(path):
    path = path.replace(".h5", ".nc")
    with h5py.File(path, "w") as file:
        an_external_link(file)

    for opener in (load, open_file):
        with pytest.raises(DecodeError, match="a result is one file"):
            opener(path)
