"""Small files that would be huge in memory, one of each kind, and what loads them in a process of little memory.

Run as a script, with the folder of the files, it prints what became of each as JSON.
"""

import base64
import copy
import json
import multiprocessing
import resource
import struct
import sys
import warnings
import zipfile
from collections.abc import Callable
from io import BytesIO
from pathlib import Path

from tests.support.hdf5_bombs import BOMBS as HDF5_BOMBS
from tests.support.parquet_bytes import (
    BY_NUMBER,
    BYTE_ARRAY,
    INT64,
    PLAIN,
    REPEATED,
    REQUIRED,
    dictionary,
    levels,
    numbers,
    page,
    parquet,
    text,
)
from tests.support.zarr_bombs import BOMBS as ZARR_BOMBS
from tests.support.zarr_bombs import crc32c

LIMIT = 1 << 30  # what may be allocated to load one of them
FREE = 1 << 24  # what is granted whatever the size of the file, for these tests


def npy_of_the_third_version(path: Path) -> None:
    header = repr({"descr": "<f8", "fortran_order": False, "shape": (1 << 40,)}).encode()
    header += b" " * (-(len(header) + 13) % 64) + b"\n"
    path.write_bytes(b"\x93NUMPY\x03\x00" + struct.pack("<I", len(header)) + header)


def npz_whose_member_claims_much(path: Path) -> None:
    import numpy as np

    octets = BytesIO()
    described = {"descr": "<f8", "fortran_order": False, "shape": (1 << 35,)}
    np.lib.format.write_array_header_1_0(octets, described)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("x.npy", octets.getvalue())


def npz_packed_by_lzma(path: Path) -> None:
    import numpy as np

    array = BytesIO()
    np.save(array, np.zeros(3))
    with zipfile.ZipFile(path, "w", zipfile.ZIP_LZMA) as archive:
        archive.writestr("x.npy", array.getvalue())
    octets = bytearray(path.read_bytes())
    # After the version, the size of the properties, and their first.
    size = octets.index(b"x.npy") + len(b"x.npy") + 5
    octets[size : size + 4] = struct.pack("<I", (1 << 32) - 1)
    path.write_bytes(octets)


def npz_whose_members_are_one(path: Path) -> None:
    import numpy as np

    array = BytesIO()
    np.save(array, np.zeros(4_000_000))
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("x.npy", array.getvalue())
        (entry,) = archive.infolist()
        for number in range(2000):
            other = copy.copy(entry)
            other.filename = f"{number}.npy"
            archive.filelist.append(other)
        archive._didModify = True


def series_of_one_value(path: Path) -> None:
    series = {"name": None, "index": pandas_tag("RangeIndex", name=None, range=[0, 1 << 34, 1]), "data": 0.5}
    path.write_text(json.dumps(pandas_tag("Series", **series, attrs={}, unique=False)))


def times_of_a_long_range(path: Path) -> None:
    long = pandas_tag("RangeIndex", name=None, range=[0, 1 << 34, 1])
    path.write_text(json.dumps(pandas_tag("DatetimeIndex", name=None, data=long, freq=None)))


def pandas_tag(kind: str, **parts: object) -> dict:
    """Return a document of an object of pandas."""
    return {"__entropic__": "pandas", "value": {"kind": kind, **parts}}


def csv_whose_lines_end_in_returns(path: Path) -> None:
    path.write_bytes(b"," * 100_000 + b"\r" + b"1\r" * 20_000)


def csv_whose_header_has_a_break(path: Path) -> None:
    path.write_bytes(b'"x\n"' + b"," * 100_000 + b"\n" + b"1\n" * 20_000)


def csv_whose_first_row_is_wide(path: Path) -> None:
    path.write_bytes(b"a\n" + b"1," * 100_000 + b"1\n" + b"1\n" * 20_000)


def csv_whose_header_comes_after_blanks(path: Path) -> None:
    path.write_bytes(b" \n\t\n" + b"," * 100_000 + b"\n" + b"1\n" * 20_000)


def csv_with_a_quote_within_a_name(path: Path) -> None:
    path.write_bytes(b'a"' + b"," * 100_000 + b"\n" + b"1\n" * 20_000)


def parquet_of_one_long_text(path: Path) -> None:
    import numpy as np
    import pyarrow as pa
    import pyarrow.parquet as pq

    texts = pa.array(["y" * 30_000]).take(pa.array(np.zeros(1000, "i4")))
    pq.write_table(pa.table({"x": pa.chunked_array([texts] * 50)}), path, compression="zstd")


def parquet_of_one_long_text_in_lists(path: Path) -> None:
    import numpy as np
    import pyarrow as pa
    import pyarrow.parquet as pq

    texts = pa.array(["y" * 30_000]).take(pa.array(np.zeros(1000, "i4")))
    lists = pa.ListArray.from_arrays(pa.array(range(0, 1001, 10), "i4"), texts)
    table = pa.table({"x": pa.chunked_array([pa.StructArray.from_arrays([lists], ["of"])] * 50)})
    pq.write_table(table, path, compression="zstd")


def parquet_of_texts_that_share_their_beginning(path: Path) -> None:
    import numpy as np
    import pyarrow as pa
    import pyarrow.parquet as pq

    texts = pa.array(["y" * 100_000]).take(pa.array(np.zeros(1000, "i4")))
    table = pa.table({"x": pa.chunked_array([texts] * 10)})
    pq.write_table(table, path, use_dictionary=False, column_encoding={"x": "DELTA_BYTE_ARRAY"})


def parquet_of_one_wide_value(path: Path) -> None:
    import numpy as np
    import pyarrow as pa
    import pyarrow.parquet as pq

    wide = pa.array([b"y" * 30_000], pa.binary(30_000)).take(pa.array(np.zeros(1000, "i4")))
    pq.write_table(pa.table({"x": pa.chunked_array([wide] * 80)}), path, compression="zstd")


def parquet_whose_page_has_more_than_the_footer_says(path: Path) -> None:
    path.write_bytes(one_long_list(1 << 28, values=1))


def one_long_list(count: int, **says: int) -> bytes:
    """Return a parquet file with one row, a list of zeros."""
    head = dictionary(bytes(8), 1)
    content = levels((1, 0), (count - 1, 1)) + levels((count, 1)) + numbers(count)
    return parquet(INT64, REPEATED, [head, page(content, count, BY_NUMBER)], rows=1, **says)


def parquet_whose_dictionary_is_used_late(path: Path) -> None:
    path.write_bytes(one_long_text(100_000))


def one_long_text(count: int) -> bytes:
    """Return a parquet file with a short text that stands there as it is, and a long one that does not, many times."""
    head = dictionary(text(b"y" * 30_000), 1)
    first, others = page(text(b"x"), 1, PLAIN), page(numbers(count), count, BY_NUMBER)
    return parquet(BYTE_ARRAY, REQUIRED, [head, first, others], rows=count + 1, values=count + 1)


def parquet_that_hides_what_its_texts_share(path: Path) -> None:
    parquet_of_texts_that_share_their_beginning(path)
    octets = path.read_bytes()
    said = b"\x19\x25\x06\x0e"  # of a list the two encodings: of the levels and of the texts
    assert 1 <= octets.count(said) <= 2  # older writers say it behind the column, too
    path.write_bytes(octets.replace(said, b"\x19\x25\x06\x00"))


def parquet_of_rows_that_are_absent_and_wide(path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    def rows(width: int) -> pa.Array:
        return pa.array([None] * 1000, pa.list_(pa.int64(), width))

    # Where each value would be there, the file would be large: the width is noted in the schema alone.
    pq.write_table(pa.table({"x": rows(1)}), path)
    schema = pa.schema({"x": rows(1).type}).serialize().to_pybytes()
    wide = pa.schema({"x": pa.list_(pa.int64(), 1 << 18)}).serialize().to_pybytes()
    octets = path.read_bytes()
    assert len(schema) == len(wide)
    assert octets.count(base64.b64encode(schema)) == 1
    path.write_bytes(octets.replace(base64.b64encode(schema), base64.b64encode(wide)))


def parquet_with_notes_of_pandas_of_a_wide_type(path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    column = {"name": None, "field_name": None, "pandas_type": "unicode", "metadata": None}
    notes = {
        "index_columns": [],
        "columns": [],
        "column_indexes": [{**column, "numpy_type": "S1000000000"}],
    }
    metadata = {b"pandas": json.dumps(notes).encode()}
    pq.write_table(pa.table({"x": [1], "y": [2]}).replace_schema_metadata(metadata), path)


def parquet_of_many_rows_of_objects(path: Path) -> None:
    import numpy as np
    import pyarrow as pa
    import pyarrow.parquet as pq

    rows = pa.StructArray.from_arrays([pa.array(np.zeros(1_000_000, "i8"))], ["of"])
    pq.write_table(pa.table({"x": pa.chunked_array([rows] * 4)}), path, compression="zstd")


def parquet_with_notes_of_a_wide_type(path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    notes = {b"entropic": json.dumps({"columns": {"0": "S1000000000"}}).encode()}
    pq.write_table(pa.table({"x": ["a", "b"]}).replace_schema_metadata(notes), path)


def zarr_never_written(path: Path) -> None:
    import zarr

    zarr.create_array(str(path), shape=(1 << 45,), chunks=(1 << 20,), dtype="f8", fill_value=1.5)


def zarr_of_the_second_version(path: Path) -> None:
    import zarr

    zarr.create_array(str(path), shape=(1 << 45,), chunks=(1 << 20,), dtype="f8", zarr_format=2)


def zarr_filled_with_a_long_text(path: Path) -> None:
    import zarr

    with warnings.catch_warnings():
        # Of texts, which earlier releases call no part of the format yet.
        warnings.simplefilter("ignore", UserWarning)
        zarr.create_array(
            str(path), shape=(1 << 18,), chunks=(1 << 10,), dtype="str", fill_value="y" * 30_000
        )


def zarr_packed_twice(path: Path) -> None:
    import zarr
    from zarr.codecs import GzipCodec, ZstdCodec

    zarr.create_array(
        str(path), shape=(10,), chunks=(10,), dtype="f8", compressors=[ZstdCodec(), GzipCodec()]
    )


def zarr_whose_shard_has_one_chunk_often(path: Path) -> None:
    import zarr

    chunk, count = 1 << 16, 1 << 16
    zarr.create_array(
        str(path),
        shape=(chunk * count,),
        shards=(chunk * count,),
        chunks=(chunk,),
        dtype="u1",
        compressors=None,
    )
    index = struct.pack("<QQ", 0, chunk) * count
    shard = bytes(range(256)) * (chunk // 256) + index + struct.pack("<I", crc32c(index))
    (path / "c").mkdir()
    (path / "c" / "0").write_bytes(shard)


def zarr_of_one_shard_larger_than_its_array(path: Path) -> None:
    import zarr

    zarr.create_array(str(path), shape=(10,), shards=(1 << 34,), chunks=(1 << 34,), dtype="u1")


def zarr_that_is_deep(path: Path) -> None:
    (path / "/".join("a" * 200)).mkdir(parents=True)
    (path / "zarr.json").write_text('{"zarr_format": 3, "node_type": "group", "attributes": {}}')


def zarr_whose_metadata_are_deep(path: Path) -> None:
    path.mkdir()
    (path / "zarr.json").write_text("[" * 100_000 + "]" * 100_000)


def json_that_is_deep(path: Path) -> None:
    path.write_text("[" * 200_000 + "]" * 200_000)


BOMBS: dict[Callable[[Path], None], str] = {
    npy_of_the_third_version: ".npy",
    npz_whose_member_claims_much: ".npz",
    npz_packed_by_lzma: ".npz",
    npz_whose_members_are_one: ".npz",
    series_of_one_value: ".value.json",
    times_of_a_long_range: ".value.json",
    csv_whose_lines_end_in_returns: ".csv",
    csv_whose_header_has_a_break: ".csv",
    csv_whose_first_row_is_wide: ".csv",
    csv_whose_header_comes_after_blanks: ".csv",
    csv_with_a_quote_within_a_name: ".csv",
    parquet_of_one_long_text: ".parquet",
    parquet_of_one_long_text_in_lists: ".parquet",
    parquet_of_texts_that_share_their_beginning: ".parquet",
    parquet_of_one_wide_value: ".parquet",
    parquet_with_notes_of_a_wide_type: ".parquet",
    parquet_whose_page_has_more_than_the_footer_says: ".parquet",
    parquet_whose_dictionary_is_used_late: ".parquet",
    parquet_that_hides_what_its_texts_share: ".parquet",
    parquet_of_rows_that_are_absent_and_wide: ".parquet",
    parquet_with_notes_of_pandas_of_a_wide_type: ".parquet",
    parquet_of_many_rows_of_objects: ".parquet",
    zarr_never_written: ".zarr",
    zarr_of_the_second_version: ".zarr",
    zarr_filled_with_a_long_text: ".zarr",
    zarr_packed_twice: ".zarr",
    zarr_whose_shard_has_one_chunk_often: ".zarr",
    zarr_of_one_shard_larger_than_its_array: ".zarr",
    zarr_that_is_deep: ".zarr",
    zarr_whose_metadata_are_deep: ".zarr",
    json_that_is_deep: ".json",
    **HDF5_BOMBS,
    **ZARR_BOMBS,
}
REFUSED_TO_OPEN = {  # by what record.open() does, which reads little
    "netcdf_filled_with_a_long_text",
    "netcdf_whose_attribute_is_one_text_often",
    "netcdf_whose_attributes_are_one_text",
    "netcdf_whose_attribute_claims_much",
    "netcdf_whose_row_of_texts_is_one_often",
    "netcdf_whose_dimension_is_long",
    "netcdf_that_is_classic",
    "netcdf_that_is_classic_with_many_records",
    "zarr_that_is_deep",
    "zarr_whose_metadata_are_deep",
}


def main(folder: Path) -> None:
    """Load and open each file, and print the name of the error's class and its text, or of what came."""
    import pandas  # noqa: F401
    import pyarrow.parquet  # noqa: F401
    import xarray  # noqa: F401
    import zarr  # noqa: F401

    from entropic.values import untrusted

    untrusted._FREE_BYTES = FREE
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + LIMIT, used + LIMIT))
    # Each in a process of its own: what one of them has left mapped is no trouble of the next.
    with multiprocessing.get_context("fork").Pool(1, maxtasksperchild=1) as pool:
        tried = pool.map_async(_tried, sorted(folder.iterdir()), chunksize=1).get(timeout=100)
    print(json.dumps({name: what for one in tried for name, what in one.items()}))


def _tried(path: Path) -> dict[str, list[str]]:
    from entropic.values import codecs

    became = {}
    for way in (codecs.load, codecs.open_file):
        try:
            what = [type(way(str(path))).__name__, ""]
        except Exception as error:
            what = [type(error).__name__, str(error)]
        became[f"{way.__name__} {path.name.partition('.')[0]}"] = what
    return became


def make(folder: Path) -> None:
    """Write them all."""
    for bomb, suffix in BOMBS.items():
        path = folder / f"{bomb.__name__}{suffix}"
        bomb(path)
        size = sum(one.stat().st_size for one in [path, *path.rglob("*")])
        assert size < 10 << 20, f"{path} takes {size} bytes"


if __name__ == "__main__":
    main(Path(sys.argv[1]))
