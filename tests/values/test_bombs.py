"""Small files that would be huge in memory are refused in little of it, by an error that names file and reason."""

import json
import os
import subprocess
import sys

import h5py
import numpy as np
import pytest

from entropic import DecodeError
from entropic.values import untrusted, untrusted_hdf5
from entropic.values.classic_netcdf import require_small_classic
from entropic.values.codecs import load, open_file
from entropic.values.documents import decode, encode
from tests.support import bombs

NAMES = [bomb.__name__ for bomb in bombs.BOMBS]


@pytest.fixture(scope="module")
def became(tmp_path_factory):
    """What became of each file, in a process that has little memory."""
    folder = tmp_path_factory.mktemp("bombs")
    bombs.make(folder)
    command = [sys.executable, "-m", "tests.support.bombs", str(folder)]
    # Each thread of a pool would take address space for a heap of its own.
    alone = {name: "1" for name in ("MALLOC_ARENA_MAX", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS")}
    ended = subprocess.run(
        command, capture_output=True, text=True, timeout=120, check=False, env={**os.environ, **alone}
    )
    assert ended.returncode == 0, ended.stderr
    return json.loads(ended.stdout)


@pytest.mark.parametrize("name", NAMES)
def test_small_file_that_would_be_huge_is_not_read(became, name):
    error, text = became[f"load {name}"]

    assert error in {"DecodeError", "ResultFileError"}, text
    assert name in text


@pytest.mark.parametrize("name", sorted(bombs.REFUSED_TO_OPEN))
def test_small_file_of_which_much_is_read_at_once_is_not_opened(became, name):
    error, text = became[f"open_file {name}"]

    assert error in {"DecodeError", "ResultFileError"}, text
    assert name in text


@pytest.mark.parametrize("name", [name for name in NAMES if name not in bombs.REFUSED_TO_OPEN])
def test_file_that_would_be_huge_is_opened_in_little_memory(became, name):
    error, text = became[f"open_file {name}"]

    assert error not in {"MemoryError", "RecursionError"}, text


# What is honest stays readable


@pytest.fixture
def little(monkeypatch):
    """Grant no more than the file's size calls for, but for a little."""
    monkeypatch.setattr(untrusted, "_FREE_BYTES", 1 << 20)


@pytest.mark.usefixtures("little")
def test_parquet_of_categories_keeps_each_text_once(tmp_path):
    import pandas as pd

    frame = pd.DataFrame({"x": pd.Categorical.from_codes(np.zeros(100_000, "i4"), ["y" * 30_000])})
    frame.to_parquet(tmp_path / "result.parquet")

    pd.testing.assert_frame_equal(load(str(tmp_path / "result.parquet")), frame)


@pytest.mark.usefixtures("little")
def test_parquet_of_few_texts_is_read(tmp_path):
    import pandas as pd

    texts = np.random.default_rng(0).choice([f"station {n}" for n in range(1000)], 100_000)
    frame = pd.DataFrame({"x": texts, "lists": [["a", "b"]] * 100_000})
    frame.to_parquet(tmp_path / "result.parquet", row_group_size=10_000)

    assert (load(str(tmp_path / "result.parquet")).x == texts).all()


@pytest.mark.usefixtures("little")
@pytest.mark.parametrize("shape", [(), (5000,), (70, 80), (3, 4, 500), (0, 5)])
def test_hdf5_of_texts_is_read_in_blocks(tmp_path, monkeypatch, shape):
    monkeypatch.setattr(untrusted_hdf5, "_BLOCK", 7)
    texts = np.array([f"text {n}" for n in range(int(np.prod(shape)))], object).reshape(shape)
    with h5py.File(tmp_path / "result.h5", "w") as file:
        file.create_dataset("x", shape, h5py.string_dtype(), data=texts)

    found = load(str(tmp_path / "result.h5"))["x"]

    assert np.shape(found) == shape
    assert np.array_equal(found, texts)


def test_hdf5_of_rows_of_their_own_length_is_read(tmp_path):
    with h5py.File(tmp_path / "result.h5", "w") as file:
        rows = file.create_dataset("x", (3,), h5py.vlen_dtype("i4"))
        for n in range(3):
            rows[n] = range(n)
        file["empty"] = h5py.Empty("f8")

    found = load(str(tmp_path / "result.h5"))

    assert [list(row) for row in found["x"]] == [[], [0], [0, 1]]
    assert found["empty"] == h5py.Empty("f8")


def test_classic_netcdf_that_holds_what_it_says_is_let_through(tmp_path):
    (tmp_path / "fixed.nc").write_bytes(bombs.classic(0, [5], bytes(40)))
    (tmp_path / "records.nc").write_bytes(bombs.classic(5, [0], bytes(40)))
    (tmp_path / "streamed.nc").write_bytes(bombs.classic((1 << 32) - 1, [0], bytes(40)))

    for name in ("fixed.nc", "records.nc", "streamed.nc"):
        require_small_classic(str(tmp_path / name))


@pytest.mark.parametrize("size", range(5, 100, 7))
def test_classic_netcdf_whose_header_is_torn_is_refused(tmp_path, size):
    (tmp_path / "result.nc").write_bytes(bombs.classic(0, [5])[:size])

    with pytest.raises(DecodeError, match="header of"):
        load(str(tmp_path / "result.nc"))


@pytest.mark.parametrize("opener", [load, open_file])
def test_zarr_with_a_link_is_refused(tmp_path, opener):
    import zarr

    path = tmp_path / "result.zarr"
    zarr.create_array(str(path), shape=(2,), chunks=(1,), dtype="u1")[...] = 1
    (tmp_path / "secret").write_bytes(b"s")
    (path / "c" / "0").unlink()
    (path / "c" / "0").symlink_to(tmp_path / "secret")

    with pytest.raises(DecodeError, match="is a link"):
        opener(str(path))


def test_fraction_that_would_be_worked_out_is_refused(tmp_path):
    path = tmp_path / "result.value.json"
    path.write_text(json.dumps({"__entropic__": "fraction", "value": "1e99999999"}))

    with pytest.raises(DecodeError, match="two whole numbers"):
        load(str(path))


def test_csv_whose_quote_is_not_closed_is_not_read_to_its_end(tmp_path, monkeypatch):
    monkeypatch.setattr(untrusted, "_HEAD_BYTES", 1 << 18)
    (tmp_path / "result.csv").write_bytes(b'"' + b"1,\n" * (1 << 18))

    with pytest.raises(DecodeError, match="quote is not closed"):
        load(str(tmp_path / "result.csv"))


@pytest.mark.usefixtures("little")
@pytest.mark.parametrize(
    "head", ['"length ""in"" m",b', 'length ("),b', '"a\nb","c"', "a,", "", "a", '"",""']
)
@pytest.mark.parametrize("rows", [0, 1, 2, 60_000])
def test_csv_with_any_header_is_read_as_pandas_does(tmp_path, head, rows):
    import pandas as pd

    path = tmp_path / "result.csv"
    path.write_text(f"{head}\n" + "".join(f"{n},{n}.5\n" for n in range(rows)))
    try:
        expected = pd.read_csv(path)
    except pd.errors.EmptyDataError:
        return

    pd.testing.assert_frame_equal(load(str(path)), expected)


def sparse_document(**changed):
    import pandas as pd

    document, arrays = encode(pd.arrays.SparseArray([0, 0, 7, 0], kind="block"))
    text = json.dumps(document)
    for name, value in changed.items():
        assert f'"{name}": 4' in text
        text = text.replace(f'"{name}": 4', f'"{name}": {value}')
    return decode(json.loads(text), arrays.__getitem__)


def test_sparse_array_is_not_made_whole():
    import pandas as pd

    pd.testing.assert_extension_array_equal(
        sparse_document(), pd.arrays.SparseArray([0, 0, 7, 0], kind="block")
    )
    assert len(sparse_document(length=1 << 30)) == 1 << 30
