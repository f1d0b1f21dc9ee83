"""Small HDF5 files that would be huge in memory, netCDF and values with arrays among them."""

import json
import re
import struct
from collections.abc import Callable
from io import BytesIO
from pathlib import Path

MUCH = (1 << 32) - 1  # the longest that can be said


def hdf5_never_written(path: Path) -> None:
    import h5py

    with h5py.File(path, "w") as file:
        file.create_dataset("x", (1 << 40,), "f8", chunks=(1 << 20,), fillvalue=1.5)


def hdf5_filled_with_a_long_text(path: Path) -> None:
    import h5py

    with h5py.File(path, "w") as file:
        dtype = h5py.string_dtype()
        file.create_dataset("x", (300, 1000), dtype, chunks=(100, 100), fillvalue="y" * 30_000)


def hdf5_of_short_texts_never_written(path: Path) -> None:
    import h5py

    with h5py.File(path, "w") as file:
        file.create_dataset("x", (50_000_000,), "S1", chunks=(1 << 20,), fillvalue=b"y")


def hdf5_of_one_chunk_larger_than_its_array(path: Path) -> None:
    import h5py
    import numpy as np

    with h5py.File(path, "w") as file:
        packed = {"compression": "gzip", "compression_opts": 1}
        x = file.create_dataset("x", (10,), "u1", maxshape=(None,), chunks=((1 << 32) - 1,), **packed)
        x.id.write_direct_chunk((0,), np.zeros(10, "u1").tobytes(), 1)


def hdf5_packed_twice(path: Path) -> None:
    import h5py

    with h5py.File(path, "w") as file:
        made = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        made.set_chunk((10,))
        made.set_deflate(9)
        made.set_deflate(9)
        space = h5py.h5s.create_simple((10,))
        h5py.h5d.create(file.id, b"x", h5py.h5t.NATIVE_DOUBLE, space, made)


def hdf5_whose_groups_double(path: Path) -> None:
    import h5py

    with h5py.File(path, "w") as file:
        group = file
        for _ in range(30):
            below = group.create_group("a")
            group["b"] = below
            group = below


def hdf5_that_is_deep(path: Path) -> None:
    import h5py

    with h5py.File(path, "w", libver="latest") as file:
        group = file.id
        for _ in range(5000):
            group = h5py.h5g.create(group, b"a")


def value_whose_array_claims_much(path: Path) -> None:
    import h5py
    import numpy as np

    octets = BytesIO()
    np.lib.format.write_array_header_1_0(
        octets, {"descr": "<M8[s]", "fortran_order": False, "shape": (1 << 35,)}
    )
    document = json.dumps({"__entropic__": "array", "value": "0"}).encode()
    with h5py.File(path, "w") as file:
        file["__document__"] = np.frombuffer(document, "u1")
        file["arrays/0"] = np.frombuffer(octets.getvalue(), "u1")
        file["arrays/0"].attrs["format"] = "npy"


def value_of_many_files(path: Path) -> None:
    files_in_a_value(path, stored=40, named=1)


def value_that_names_one_file_often(path: Path) -> None:
    files_in_a_value(path, stored=1, named=40)


def files_in_a_value(path: Path, *, stored: int, named: int) -> None:
    """Write a document of files each of which would be let through by itself, and all of them would not."""
    import h5py
    import numpy as np

    octets = BytesIO()
    with h5py.File(octets, "w") as file:
        file.create_dataset("x", (7_000_000,), "f8", fillvalue=1.5)
    tags = []
    for n in range(stored):
        array = {"__entropic__": "array", "value": str(n)}
        tags += [{"__entropic__": "file", "value": [".h5", array]}] * named
    with h5py.File(path, "w") as file:
        file["__document__"] = np.frombuffer(json.dumps(tags).encode(), "u1")
        for n in range(stored):
            file[f"arrays/{n}"] = np.frombuffer(octets.getbuffer(), "u1")


def value_whose_attribute_is_one_text_often(path: Path) -> None:
    import h5py
    import numpy as np

    document = json.dumps({"__entropic__": "array", "value": "0"}).encode()
    with h5py.File(path, "w") as file:
        file["__document__"] = np.frombuffer(document, "u1")
        file["arrays/0"] = np.zeros(3)
        file["arrays/0"].attrs.create("format", texts(3000), dtype=h5py.string_dtype())
    let_texts_be_one(path)


def netcdf_whose_attribute_is_one_text_often(path: Path) -> None:
    import h5py

    with h5py.File(path, "w") as file:
        file["v"] = 1
        file["v"].attrs.create("comment", texts(3000), dtype=h5py.string_dtype())
    let_texts_be_one(path)


def netcdf_whose_attributes_are_one_text(path: Path) -> None:
    import h5py

    with h5py.File(path, "w") as file:
        file["v"] = 1
        for number, one in enumerate(texts(1500)):
            file["v"].attrs.create(f"comment {number}", one, dtype=h5py.string_dtype())
    let_texts_be_one(path)


def hdf5_of_one_row_of_one_text(path: Path) -> None:
    import h5py

    with h5py.File(path, "w") as file:
        rows = file.create_dataset("x", (1,), h5py.vlen_dtype(h5py.string_dtype()))
        rows[0] = texts(3000)
    let_texts_be_one(path)


def texts(count: int) -> list[str]:
    """Return a long text and short ones."""
    return ["y" * 1_000_000, *(f"{n:x}" for n in range(count))]


def let_texts_be_one(path: Path) -> None:
    """Let every reference to a text in an HDF5 file be one to its longest, as no writer does it."""
    octets = path.read_bytes()
    collections = [found.start() for found in re.finditer(b"GCOL", octets)]
    sizes = {place: struct.unpack_from("<Q", octets, place + 8)[0] for place in collections}
    longest = max(collections, key=sizes.__getitem__)
    (length,) = struct.unpack_from("<Q", octets, longest + 24)
    one = struct.pack("<IQI", length, longest, 1)
    for place in collections:
        # Size, place and number.
        reference = b"(?s)...\\0" + re.escape(struct.pack("<Q", place)) + b"..\\0\\0"
        octets = re.sub(reference, one, octets) if place != longest else octets
    path.write_bytes(octets)


def hdf5_whose_text_claims_much(path: Path) -> None:
    import h5py

    with h5py.File(path, "w") as file:
        file["x"] = "y" * 40
    let_length_be(path, 40, MUCH)


def hdf5_whose_compact_text_claims_much(path: Path) -> None:
    import h5py

    with h5py.File(path, "w") as file:
        made = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        made.set_layout(h5py.h5d.COMPACT)
        space = h5py.h5s.create_simple((2,))
        h5py.h5d.create(file.id, b"x", _any_text(), space, made)
        file["x"][0] = "y" * 40
    let_length_be(path, 40, MUCH)


def _any_text() -> object:
    import h5py

    type_ = h5py.h5t.C_S1.copy()
    type_.set_size(h5py.h5t.VARIABLE)
    return type_


def hdf5_whose_row_in_a_chunk_claims_much(path: Path) -> None:
    import h5py
    import numpy as np

    with h5py.File(path, "w") as file:
        rows = file.create_dataset("x", (4,), h5py.vlen_dtype("f8"), chunks=(2,))
        rows[1] = np.arange(50.0)
    let_length_be(path, 50, MUCH)


def hdf5_whose_record_claims_much(path: Path) -> None:
    import h5py
    import numpy as np

    dtype = np.dtype([("n", "i4"), ("texts", h5py.string_dtype(), (2,))])
    with h5py.File(path, "w") as file:
        file.create_dataset("x", (2,), dtype)[0] = (1, ["a", "y" * 40])
    let_length_be(path, 40, MUCH)


def hdf5_whose_text_in_a_row_claims_much(path: Path) -> None:
    import h5py

    with h5py.File(path, "w") as file:
        file.create_dataset("x", (1,), h5py.vlen_dtype(h5py.string_dtype()))[0] = ["a", "y" * 40]
    let_length_be(path, 40, MUCH)


def hdf5_whose_row_of_texts_claims_much(path: Path) -> None:
    import h5py

    with h5py.File(path, "w") as file:
        file.create_dataset("x", (1,), h5py.vlen_dtype(h5py.string_dtype()))[0] = ["a"] * 37
    let_length_be(path, 37, MUCH // 16)


def value_whose_attribute_claims_much(path: Path) -> None:
    import h5py
    import numpy as np

    document = json.dumps({"__entropic__": "array", "value": "0"}).encode()
    with h5py.File(path, "w") as file:
        file["__document__"] = np.frombuffer(document, "u1")
        file["arrays/0"] = np.zeros(3)
        file["arrays/0"].attrs["format"] = "y" * 40
    let_length_be(path, 40, MUCH)


def netcdf_whose_attribute_claims_much(path: Path) -> None:
    import h5py

    with h5py.File(path, "w") as file:
        file["v"] = 1
        file["v"].attrs["comment"] = "y" * 40
    let_length_be(path, 40, MUCH)


def netcdf_whose_row_of_texts_is_one_often(path: Path) -> None:
    import h5py

    with h5py.File(path, "w") as file:
        file["v"] = 1
        rows = h5py.vlen_dtype(h5py.string_dtype())
        file["v"].attrs.create("comment", np_row(texts(3000)), shape=(1,), dtype=rows)
    let_texts_be_one(path)


def np_row(values: list[str]) -> object:
    """Return an array of one row."""
    import numpy as np

    row = np.empty(1, object)
    row[0] = np.array(values, object)
    return row


def let_length_be(path: Path, honest: int, said: int) -> None:
    """Let the one text or row of an HDF5 file that has so many elements say that it has others."""
    octets = path.read_bytes()
    places = [found.start() for found in re.finditer(b"GCOL", octets)]
    references = [struct.pack("<IQ", honest, place) for place in places]
    (reference,) = (one for one in references if one in octets)
    assert octets.count(reference) == 1
    path.write_bytes(octets.replace(reference, struct.pack("<I", said) + reference[4:]))


def netcdf_filled_with_a_long_text(path: Path) -> None:
    import h5netcdf
    import h5py

    with h5netcdf.File(path, "w") as file:
        file.dimensions = {"x": 1 << 18}
        file.create_variable("v", ("x",), h5py.string_dtype(), chunks=(1 << 10,), fillvalue="y" * 30_000)


def netcdf_that_is_small_until_decoded(path: Path) -> None:
    import h5netcdf

    with h5netcdf.File(path, "w") as file:
        file.dimensions = {"x": 50_000_000}
        file.create_variable("v", ("x",), "i1", chunks=(1 << 20,)).attrs["scale_factor"] = 0.5


def netcdf_whose_dimension_is_long(path: Path) -> None:
    import h5netcdf

    with h5netcdf.File(path, "w") as file:
        file.dimensions = {"x": 1 << 34}
        file.create_variable("x", ("x",), "f8", chunks=(1 << 20,))


def netcdf_that_is_classic(path: Path) -> None:
    path.write_bytes(classic(0, [1 << 30]))


def netcdf_that_is_classic_with_many_records(path: Path) -> None:
    path.write_bytes(classic(1 << 30, [0]))


def classic(records: int, lengths: list[int], data: bytes = b"") -> bytes:
    """Return a classic netCDF file of one variable of doubles."""

    def number(*values: int) -> bytes:
        return struct.pack(f">{len(values)}I", *values)

    dimensions = b"".join(number(4) + b"dim%d" % n + number(one) for n, one in enumerate(lengths))
    rank = number(len(lengths), *range(len(lengths)))
    head = b"CDF\x01" + number(records, 10, len(lengths)) + dimensions
    head += number(12, 1, 5) + b"title\0\0\0" + number(2, 5) + b"small\0\0\0"
    head += number(11, 1, 1) + b"v\0\0\0" + rank + number(0, 0) + number(6, 8)
    return head + number(len(head) + 4) + data


BOMBS: dict[Callable[[Path], None], str] = {
    hdf5_never_written: ".h5",
    hdf5_filled_with_a_long_text: ".h5",
    hdf5_of_short_texts_never_written: ".h5",
    hdf5_of_one_chunk_larger_than_its_array: ".h5",
    hdf5_packed_twice: ".h5",
    hdf5_whose_groups_double: ".hdf5",
    hdf5_that_is_deep: ".h5",
    hdf5_of_one_row_of_one_text: ".h5",
    hdf5_whose_text_claims_much: ".h5",
    hdf5_whose_compact_text_claims_much: ".h5",
    hdf5_whose_row_in_a_chunk_claims_much: ".h5",
    hdf5_whose_record_claims_much: ".h5",
    hdf5_whose_text_in_a_row_claims_much: ".h5",
    hdf5_whose_row_of_texts_claims_much: ".h5",
    value_whose_array_claims_much: ".value.h5",
    value_of_many_files: ".value.h5",
    value_that_names_one_file_often: ".value.h5",
    value_whose_attribute_is_one_text_often: ".value.h5",
    value_whose_attribute_claims_much: ".value.h5",
    netcdf_whose_attribute_is_one_text_often: ".nc",
    netcdf_whose_attributes_are_one_text: ".nc",
    netcdf_whose_attribute_claims_much: ".nc",
    netcdf_whose_row_of_texts_is_one_often: ".nc",
    netcdf_filled_with_a_long_text: ".nc",
    netcdf_that_is_small_until_decoded: ".nc",
    netcdf_whose_dimension_is_long: ".dataarray.nc",
    netcdf_that_is_classic: ".nc",
    netcdf_that_is_classic_with_many_records: ".nc",
}
