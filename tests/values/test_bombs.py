"""Small files that would be huge in memory are refused in little of it, by an error that names file and reason."""

import json
import os
import struct
import subprocess
import sys
from importlib.metadata import version

import h5py
import numpy as np
import pytest

from entropic import DecodeError
from entropic.values import untrusted
from entropic.values.classic_netcdf import require_small_classic
from entropic.values.codecs import load, open_file, save
from entropic.values.documents import decode, encode
from tests.support import bombs, hdf5_bombs, zarr_bombs

# Older releases of pyarrow neither write nor read an absent row of fixed size.
ABSENT_OF_FIXED_SIZE = int(version("pyarrow").partition(".")[0]) >= 15
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

    if name == "parquet_of_rows_that_are_absent_and_wide" and not ABSENT_OF_FIXED_SIZE:
        assert error == "ArrowInvalid", text  # nor is an honest one read
        return
    assert error in {"DecodeError", "ResultFileError"}, text
    assert name in text or text.startswith("the document has a value of type 'pandas'")


@pytest.mark.parametrize("name", sorted(bombs.REFUSED_TO_OPEN))
def test_small_file_of_which_much_is_read_at_once_is_not_opened(became, name):
    error, text = became[f"open_file {name}"]

    assert error in {"DecodeError", "ResultFileError"}, text
    assert name in text


@pytest.mark.parametrize("name", [name for name in NAMES if name not in bombs.REFUSED_TO_OPEN])
def test_file_that_would_be_huge_is_opened_in_little_memory(became, name):
    error, text = became[f"open_file {name}"]

    assert "MemoryError" not in error, text
    assert "memory" not in text
    assert error != "RecursionError", text


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


def nested_frame():
    import pyarrow as pa

    return pa.table(
        {
            "fixed": pa.array(
                [[1.0, 2.0], None if ABSENT_OF_FIXED_SIZE else [0.0, 0.0], [3.0, 4.0]] * 100,
                pa.list_(pa.float64(), 2),
            ),
            "of fixed": pa.array([[[1, 2]], None, []] * 100, pa.list_(pa.list_(pa.int8(), 2))),
            "map": pa.array([{"a": 1}, {}, None] * 100, pa.map_(pa.string(), pa.int64())),
            "struct": pa.array([{"a": 1, "b.c": "x"}, None, {"a": 2, "b.c": None}] * 100),
            "times": pa.array([1, None, 3] * 100, pa.date32()),
            "texts": pa.array(["a", None, "bcd"] * 100),
        }
    )


@pytest.mark.usefixtures("little")
@pytest.mark.parametrize("version", ["1.0", "2.0"])
@pytest.mark.parametrize("packing", ["none", "zstd"])
@pytest.mark.parametrize("by_number", [True, False])
def test_parquet_of_every_shape_is_read_as_pandas_does(tmp_path, version, packing, by_number):
    import pandas as pd
    import pyarrow.parquet as pq

    path = tmp_path / "result.parquet"
    options = {"compression": packing, "data_page_version": version, "use_dictionary": by_number}
    pq.write_table(nested_frame(), path, row_group_size=130, **options)

    pd.testing.assert_frame_equal(load(str(path)), pd.read_parquet(path))


def test_parquet_made_by_hand_is_read(tmp_path):
    (tmp_path / "list.parquet").write_bytes(bombs.one_long_list(500, values=500))
    (tmp_path / "text.parquet").write_bytes(bombs.one_long_text(20))

    assert load(str(tmp_path / "list.parquet"))["x"].tolist()[0].tolist() == [0] * 500
    assert load(str(tmp_path / "text.parquet"))["x"].tolist() == [b"x"] + [b"y" * 30_000] * 20


@pytest.mark.parametrize(
    "head",
    [
        b"\0",  # which says nothing
        b"\x15" + b"\xff" * 12,  # a number without end
        b"\x1b\x00",  # a map
        b"\x18\xff\xff\xff\x7f",  # a text that is longer than the file
        b"\x1c" * 20,  # structs in structs
        b"\x19" * 20,  # lists of lists
        b"\x19\xf7\xff\xff\xff\xff\x7f",  # a long list
        b"\x15\x00\x15\x01\x15\x01",  # pages of less than nothing
        b"\x15\x04\x15\x10\x15\x10\x00",  # a dictionary of unknown size
        b"\x15\x04\x15\x10\x15\x10\x4c\x15\x01\x15\x00\x00\x00",  # one of less than nothing
    ],
)
def test_parquet_whose_page_headers_are_damaged_is_refused(tmp_path, head):
    octets = bombs.one_long_list(500, values=500)
    (tmp_path / "result.parquet").write_bytes(octets[:4] + head + octets[4 + len(head) :])

    with pytest.raises(DecodeError, match="no page where its footer says so"):
        load(str(tmp_path / "result.parquet"))


@pytest.mark.usefixtures("little")
@pytest.mark.parametrize("shape", [(), (5000,), (70, 80), (3, 4, 500), (0, 5)])
def test_hdf5_of_texts_is_read(tmp_path, shape):
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


@pytest.mark.usefixtures("little")
def test_netcdf_with_many_attributes_is_read_as_xarray_does(tmp_path):
    import xarray

    path = tmp_path / "result.nc"
    attributes = {f"note_{n}": f"text {n}" for n in range(20)} | {"levels": np.arange(5)}
    variables = {f"v{n}": ("x", np.arange(300), attributes) for n in range(20)}
    xarray.Dataset(variables, attrs={"many": ["a", "bc", "d"]}).to_netcdf(path, engine="h5netcdf")

    expected = xarray.load_dataset(path, engine="h5netcdf")
    xarray.testing.assert_identical(load(str(path)), expected)
    with open_file(str(path)) as opened:
        xarray.testing.assert_identical(opened, expected)


@pytest.mark.usefixtures("little")
def test_hdf5_with_rows_of_texts_is_read(tmp_path):
    dtype = h5py.vlen_dtype(h5py.string_dtype())
    with h5py.File(tmp_path / "result.h5", "w") as file:
        rows = file.create_dataset("x", (3,), dtype)
        for n in range(3):
            rows[n] = [f"text {m}" for m in range(n)]

    found = load(str(tmp_path / "result.h5"))["x"]

    assert [[text.decode() for text in row] for row in found] == [[], ["text 0"], ["text 0", "text 1"]]


@pytest.mark.usefixtures("little")
@pytest.mark.parametrize(("count", "length"), [(1, 30_000), (3000, 20)])
@pytest.mark.parametrize("userblock", [0, 512])
def test_hdf5_with_rows_of_many_texts_is_read(tmp_path, count, length, userblock):
    texts = [f"text {n}".encode() for n in range(count * length)]
    with h5py.File(tmp_path / "result.h5", "w", userblock_size=userblock) as file:
        rows = file.create_dataset("x", (count,), h5py.vlen_dtype(h5py.string_dtype()))
        for n in range(count):
            rows[n] = texts[n * length : (n + 1) * length]

    found = load(str(tmp_path / "result.h5"))["x"]

    assert [text for row in found for text in row] == texts


@pytest.mark.usefixtures("little")
def test_files_within_a_value_are_read(tmp_path):
    import pandas as pd

    frames = [pd.DataFrame({"x": np.arange(n), "y": [f"text {n}"] * n}) for n in range(1, 6)]
    save({"frames": frames, "codes": np.arange(3)}, str(tmp_path / "result"))

    found = load(str(tmp_path / "result.value.h5"))

    for frame, expected in zip(found["frames"], frames, strict=True):
        pd.testing.assert_frame_equal(frame, expected)


def test_array_that_is_written_in_an_unknown_way_is_refused(tmp_path):
    save([np.arange(3)], str(tmp_path / "result"))
    with h5py.File(tmp_path / "result.value.h5", "r+") as file:
        file["arrays/0"].attrs["order"] = "Z"

    with pytest.raises(DecodeError, match="in no way that entropic knows"):
        load(str(tmp_path / "result.value.h5"))


def test_classic_netcdf_that_holds_what_it_says_is_let_through(tmp_path):
    (tmp_path / "fixed.nc").write_bytes(hdf5_bombs.classic(0, [5], bytes(40)))
    (tmp_path / "records.nc").write_bytes(hdf5_bombs.classic(5, [0], bytes(40)))
    (tmp_path / "streamed.nc").write_bytes(hdf5_bombs.classic((1 << 32) - 1, [0], bytes(40)))

    for name in ("fixed.nc", "records.nc", "streamed.nc"):
        require_small_classic(str(tmp_path / name))


@pytest.mark.parametrize("size", range(5, 100, 7))
def test_classic_netcdf_whose_header_is_torn_is_refused(tmp_path, size):
    (tmp_path / "result.nc").write_bytes(hdf5_bombs.classic(0, [5])[:size])

    with pytest.raises(DecodeError, match="header of"):
        load(str(tmp_path / "result.nc"))


@pytest.mark.usefixtures("little")
@pytest.mark.parametrize("place", ["start", "end"])
@pytest.mark.parametrize("endian", ["little", "big"])
def test_zarr_in_shards_is_read(tmp_path, place, endian):
    import zarr
    from zarr.codecs import BytesCodec, Crc32cCodec, ShardingCodec, ZstdCodec

    index = {"index_codecs": [BytesCodec(endian=endian), Crc32cCodec()], "index_location": place}
    inner = ShardingCodec(chunk_shape=(2, 3), codecs=[BytesCodec(), ZstdCodec()], **index)
    values = np.arange(15 * 11, dtype="f8").reshape(15, 11)
    values[:5] = 0  # of which there are no chunks
    array = zarr.create_array(
        str(tmp_path / "result.zarr"),
        shape=values.shape,
        dtype="f8",
        chunks=(8, 6),
        compressors=None,
        serializer=ShardingCodec(chunk_shape=(4, 6), codecs=[inner], **index),
    )
    array[...] = values

    assert np.array_equal(load(str(tmp_path / "result.zarr")), values)


@pytest.mark.parametrize(
    ("entries", "text"),
    [
        ([(0, 4), (2, 4)], "shares bytes"),
        ([(0, 4), (4, 400)], "shares bytes"),
        ([(4, 4), (4, 4)], "shares bytes"),
        ([(0, 4)], "too small to be a shard"),
    ],
)
def test_zarr_whose_chunks_share_bytes_is_refused(tmp_path, entries, text):
    import zarr

    path = tmp_path / "result.zarr"
    zarr.create_array(str(path), shape=(8,), shards=(8,), chunks=(4,), dtype="u1", compressors=None)
    index = b"".join(struct.pack("<QQ", *entry) for entry in entries)
    (path / "c").mkdir()
    (path / "c" / "0").write_bytes(bytes(8) + index + struct.pack("<I", zarr_bombs.crc32c(index)))

    with pytest.raises(DecodeError, match=text):
        load(str(path))


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
