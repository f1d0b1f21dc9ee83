"""What the global heaps of HDF5 say of rows of texts, and what libhdf5 makes of those that lie."""

import re
import struct

import h5py
import numpy as np
import pytest

from entropic.values import untrusted
from entropic.values.codecs import load
from entropic.values.untrusted_heaps import largest_row

ROWS = [["a" * 40, "b" * 50], ["c" * 60]]


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "result.h5"
    with h5py.File(path, "w") as file:
        rows = file.create_dataset("x", (2,), h5py.vlen_dtype(h5py.string_dtype()))
        for number, row in enumerate(ROWS):
            rows[number] = row
    return path


def row_bytes(path):
    with h5py.File(path) as file:
        return largest_row(file, 64)


def heap_and_objects(octets):
    """Return where the heap is, and where the head of each object in it and how large that is."""
    (heap,) = (found.start() for found in re.finditer(b"GCOL", octets))
    place, found = heap + 16, {}
    while (head := struct.unpack_from("<HHIQ", octets, place))[0]:
        found[place] = head[3]
        place += 16 + -(-head[3] // 8) * 8
    return heap, found


def test_largest_row_is_that_of_the_longest_texts_together(path):
    assert row_bytes(path) == 64 + 40 + 64 + 50


def test_texts_that_have_what_looks_like_a_heap_are_no_less(path):
    with h5py.File(path, "r+") as file:
        file["y"] = np.frombuffer(b"GCOL" + bytes(4) + struct.pack("<Q", 4096) + b"\1" * 64, "u1")

    assert row_bytes(path) >= 64 + 40 + 64 + 50


def test_row_behind_what_is_free_is_found(path):
    octets = bytearray(path.read_bytes())
    _, objects = heap_and_objects(octets)
    first, size = next(iter(objects.items()))
    struct.pack_into("<HHIQ", octets, first, 0, 0, 0, 16 + -(-size // 8) * 8)
    path.write_bytes(octets)

    assert row_bytes(path) is None  # a row refers to the first, which is none


@pytest.mark.parametrize("damage", ["twice", "shared"])
def test_heap_that_no_writer_makes_says_nothing(path, damage):
    octets = bytearray(path.read_bytes())
    _, objects = heap_and_objects(octets)
    if damage == "twice":
        struct.pack_into("<H", octets, list(objects)[1], 1)
    else:
        large = b"GCOL" + bytes(4) + struct.pack("<QHHIQ", 1 << 20, 1, 0, 0, 10_000)
        octets += large * 2000 + bytes(20_000)
    path.write_bytes(octets)

    assert row_bytes(path) is None


def lying(path, *, field, length):
    """Write a text, an attribute and a row of numbers, and let the length of one be another."""
    with h5py.File(path, "w") as file:
        file["texts"] = "a" * 40
        file.create_dataset("rows", (1,), h5py.vlen_dtype("i4"))[0] = np.arange(50)
    octets = bytearray(path.read_bytes())
    heap, objects = heap_and_objects(octets)
    honest = {"texts": 40, "rows": 50}
    if field == "heap":
        struct.pack_into("<Q", octets, heap + 8, length)
    elif field == "object":
        struct.pack_into("<Q", octets, next(iter(objects)) + 8, length)
    else:
        reference = struct.pack("<IQ", honest[field], heap)
        assert octets.count(reference) == 1
        struct.pack_into("<I", octets, octets.index(reference), length)
    path.write_bytes(octets)


@pytest.mark.parametrize("field", ["texts", "rows", "object", "heap"])
@pytest.mark.parametrize("length", [57, 5000, 1 << 24])
def test_libhdf5_reads_no_text_whose_length_lies(tmp_path, field, length):
    lying(tmp_path / "result.h5", field=field, length=length)

    with pytest.raises(OSError, match=r"size does not match|ran off end|exceeds EOA|read data"):
        load(str(tmp_path / "result.h5"))


@pytest.mark.parametrize("length", [11, 5000, 1 << 24])
def test_libhdf5_reads_no_attribute_whose_length_lies(tmp_path, length):
    path = tmp_path / "result.nc"
    with h5py.File(path, "w") as file:
        file["v"] = 1
        file["v"].attrs.create("comment", "a" * 10, dtype=h5py.string_dtype())
    octets = bytearray(path.read_bytes())
    heap, _ = heap_and_objects(octets)
    struct.pack_into("<I", octets, octets.index(struct.pack("<IQ", 10, heap)), length)
    path.write_bytes(octets)

    with pytest.raises(OSError, match="size does not match"):
        load(str(path))


def test_row_of_texts_whose_length_lies_is_refused_before_it_is_read(path, monkeypatch):
    monkeypatch.setattr(untrusted, "_FREE_BYTES", 1 << 10)
    octets = bytearray(path.read_bytes())
    heap, _ = heap_and_objects(octets)
    struct.pack_into("<I", octets, octets.index(struct.pack("<IQ", 40, heap)), (1 << 32) - 1)
    path.write_bytes(octets)

    with pytest.raises(untrusted.DecodeError, match="claims to hold more than its bytes can"):
        load(str(path))
