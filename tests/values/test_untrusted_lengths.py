"""How long texts and rows of HDF5 say that they are: seen before they are read, and never otherwise than they are."""

import threading

import h5py
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from entropic import DecodeError
from entropic.values import untrusted
from entropic.values.codecs import load
from entropic.values.untrusted import Budget
from entropic.values.untrusted_lengths import take_contents
from tests.support import hdf5_bombs
from tests.support.hdf5_bombs import let_length_be

TEXT = h5py.string_dtype()
WORDS = np.array(["", "a", "bcd"], object)
OBJECT = 64  # what a text in a row counts besides


def array_of(rows, dtype):
    """An array of rows, which NumPy would make one array of."""
    made = np.empty(len(rows), object)
    for number, row in enumerate(rows):
        made[number] = np.array(row, dtype)
    return made


KINDS = {  # a type, values, and how many bytes their texts and rows have
    "texts": (TEXT, WORDS, 4),
    "rows": (h5py.vlen_dtype("f8"), array_of([[1.0], [], [2.0, 3.0]], "f8"), 24),
    "rows of texts": (h5py.vlen_dtype(TEXT), array_of([["ab"], [], ["c", ""]], object), 3 * OBJECT + 3),
    "rows of records": (
        h5py.vlen_dtype(np.dtype([("n", "i4"), ("m", "i4")])),
        array_of([[(1, 2)], [(3, 4)] * 2, [(5, 6)]], [("n", "i4"), ("m", "i4")]),
        32,
    ),
    "records": (
        np.dtype([("n", "i4"), ("one", TEXT), ("two", TEXT, (2,))]),
        np.array(
            [(1, b"ab", [b"c", b"def"]), (2, b"", [b"", b"g"])],
            [("n", "i4"), ("one", "O"), ("two", "O", (2,))],
        ),
        7,
    ),
    "numbers": ("f8", np.arange(3.0), 0),
    "texts of one length": ("S5", np.array([b"a", b"bcd"]), 0),
    "references": (h5py.ref_dtype, np.array([h5py.Reference()] * 3, object), 0),
}


@pytest.fixture
def path(tmp_path):
    return tmp_path / "result.h5"


def taken(node, path):
    budget = Budget(str(path), 1 << 20)
    before = budget.left
    take_contents(node, budget, "x")
    return before - budget.left


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("how", [{}, {"chunks": (2,)}, {"chunks": (2,), "compression": "gzip"}])
@pytest.mark.parametrize("libver", ["earliest", "latest"])
def test_what_a_dataset_has_is_what_was_written(path, kind, how, libver):
    dtype, values, size = KINDS[kind]
    with h5py.File(path, "w", libver=libver, userblock_size=512) as file:
        x = file.create_dataset("x", values.shape, dtype, **how)
        for number, value in enumerate(values):
            x[number] = value

    with h5py.File(path) as file:
        written = repr(file["x"][()].tolist())
        assert taken(file["x"].id, path) == size
        assert repr(file["x"][()].tolist()) == written


@pytest.mark.parametrize("kind", KINDS)
def test_what_an_attribute_has_is_what_was_written(path, kind):
    dtype, values, size = KINDS[kind]
    with h5py.File(path, "w") as file:
        file.attrs.create("x", values, shape=values.shape, dtype=dtype)

    with h5py.File(path) as file:
        assert taken(h5py.h5a.open(file.id, b"x"), path) == size


@given(texts=st.lists(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0")), min_size=1))
def test_texts_take_their_bytes(tmp_path_factory, texts):
    path = tmp_path_factory.mktemp("texts") / "result.h5"
    with h5py.File(path, "w") as file:
        file.create_dataset("x", data=np.array(texts, object), dtype=TEXT)

    with h5py.File(path) as file:
        assert taken(file["x"].id, path) == sum(len(text.encode()) for text in texts)
    assert list(load(str(path))["x"]) == texts


def test_part_that_was_never_written_has_nothing(path):
    with h5py.File(path, "w") as file:
        file.create_dataset("x", (10,), TEXT, chunks=(2,))[3] = "abc"

    with h5py.File(path) as file:
        assert taken(file["x"].id, path) == 3


def test_many_texts_are_counted(path):
    """More than libhdf5 converts at once."""
    with h5py.File(path, "w") as file:
        file.create_dataset("x", data=np.array([b"abc"] * 200_000, object), dtype=TEXT, chunks=(70_000,))

    with h5py.File(path) as file:
        assert taken(file["x"].id, path) == 600_000


def test_empty_dataset_and_a_scalar_have_what_they_say(path):
    with h5py.File(path, "w") as file:
        file.create_dataset("none", (0,), TEXT)
        file["null"] = h5py.Empty(TEXT)
        file["one"] = "abc"

    with h5py.File(path) as file:
        assert [taken(file[name].id, path) for name in ("none", "null", "one")] == [0, 0, 3]


def test_file_with_short_addresses_is_understood(path):
    made = h5py.h5p.create(h5py.h5p.FILE_CREATE)
    made.set_sizes(4, 4)
    h5py.h5f.create(str(path).encode(), h5py.h5f.ACC_TRUNC, made).close()
    with h5py.File(path, "r+") as file:
        file["x"] = ["a" * 40, "b"]

    with h5py.File(path) as file:
        assert taken(file["x"].id, path) == 41


@pytest.mark.parametrize("length", [57, 5000, 1 << 24, hdf5_bombs.MUCH])
@pytest.mark.parametrize("kind", ["text", "row", "attribute"])
def test_length_that_lies_is_refused(path, kind, length):
    """By libhdf5, if there is room for it in the file."""
    with h5py.File(path, "w") as file:
        if kind == "text":
            file["x"] = "y" * 40
        elif kind == "row":
            file.create_dataset("x", (1,), h5py.vlen_dtype("i4"))[0] = np.arange(40)
        else:
            file["x"] = 1
            file["x"].attrs["comment"] = "y" * 40
    let_length_be(path, 40, length)
    if kind == "attribute":
        path = path.rename(path.with_suffix(".nc"))

    each = 4 if kind == "row" else 1
    is_too_long = length * each > path.stat().st_size
    with pytest.raises(
        DecodeError if is_too_long else OSError, match="claims to have" if is_too_long else "size|read"
    ):
        load(str(path))


def test_all_texts_together_may_not_be_more_than_the_file_holds(path, monkeypatch):
    monkeypatch.setattr(untrusted, "_FREE_BYTES", 1 << 10)
    with h5py.File(path, "w") as file:
        file["x"] = hdf5_bombs.texts(3000)
    hdf5_bombs.let_texts_be_one(path)

    with pytest.raises(DecodeError, match="claims to hold more than its bytes can"):
        load(str(path))


@pytest.mark.parametrize("depth", [31, 33, 3000])
def test_rows_in_rows_are_read_to_a_depth(path, depth):
    type_ = h5py.h5t.STD_I8LE
    for _ in range(depth):
        type_ = h5py.h5t.vlen_create(type_)
    with h5py.File(path, "w") as file:
        h5py.h5d.create(file.id, b"x", type_, h5py.h5s.create_simple((2,)))

    with h5py.File(path) as file:
        assert taken(file["x"].id, path) == 0  # there are no rows, so that nothing is in them


def test_records_in_records_are_refused_where_they_are_too_deep(path):
    type_ = h5py.h5t.vlen_create(h5py.h5t.STD_I8LE)
    for _ in range(1500):
        compound = h5py.h5t.create(h5py.h5t.COMPOUND, type_.get_size())
        compound.insert(b"a", 0, type_)
        type_ = compound
    with h5py.File(path, "w", libver="latest") as file:
        h5py.h5d.create(file.id, b"x", type_, h5py.h5s.create_simple((2,)))

    with h5py.File(path) as file, pytest.raises(DecodeError, match="nested too deeply"):
        taken(file["x"].id, path)


def test_texts_are_read_in_several_threads(path):
    with h5py.File(path, "w") as file:
        for number in range(8):
            file[f"{number}"] = ["a" * number] * 500
    found = {}

    def read(number):
        for _ in range(20):
            found[number] = load(str(path))[f"{number}"].tolist()

    threads = [threading.Thread(target=read, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert found == {number: ["a" * number] * 500 for number in range(8)}
