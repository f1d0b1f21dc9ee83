"""Files of arrays whose layout is remembered are those that HDF5 would lay out."""

import h5py
import numpy as np
import pytest

from entropic.values import array_files
from entropic.values.array_files import ArraysFile, save_arrays

ARRAYS = {
    "model/odd": np.arange(7, dtype="f4"),
    "model/big": np.arange(100_000, dtype=">f8"),
    "model/nothing": np.zeros((0, 3)),
    "model/scalar": np.array(2.5),
    "optimizer/flags": np.array([True, False]),
    "optimizer/complex": np.array([[1 + 2j]], "c8"),
}


@pytest.fixture
def laid_out(monkeypatch):
    """The paths of the files that HDF5 laid out; none is remembered from before."""
    paths = []
    original = array_files._lay_out

    def lay_out(path, kinds, room):
        paths.append(path)
        return original(path, kinds, room)

    monkeypatch.setattr(array_files, "_lay_out", lay_out)
    monkeypatch.setattr(array_files, "_layouts", {})
    return paths


def changed(arrays):
    return {name: array[::-1].copy() if array.ndim else array + 1 for name, array in arrays.items()}


def require_stored(path, arrays, document):
    with h5py.File(path) as file:
        for name, array in arrays.items():
            np.testing.assert_array_equal(file[name][()], array)
            assert file[name].dtype == array.dtype
    found = ArraysFile(str(path))
    assert {name: found.document[name] for name in document} == document
    for name, array in arrays.items():
        np.testing.assert_array_equal(found.load(name), array)
    found.close()


def test_arrays_of_the_same_shapes_are_laid_out_once_and_to_the_same_octets(tmp_path, laid_out):
    first, second, alone = (tmp_path / name for name in ("first.h5", "second.h5", "alone.h5"))
    save_arrays(str(first), ARRAYS, {"step": 9})
    save_arrays(str(second), changed(ARRAYS), {"step": 10})
    array_files._layouts.clear()
    save_arrays(str(alone), changed(ARRAYS), {"step": 10})

    assert laid_out == [str(first), str(alone)]
    assert second.read_bytes() == alone.read_bytes()
    require_stored(first, ARRAYS, {"step": 9})
    require_stored(second, changed(ARRAYS), {"step": 10})


@pytest.mark.parametrize(
    ("arrays", "document"),
    [
        ({**ARRAYS, "model/odd": np.arange(8, dtype="f4")}, {}),
        ({**ARRAYS, "model/odd": np.arange(7, dtype="i4")}, {}),
        ({**ARRAYS, "model/one more": np.arange(7, dtype="f4")}, {}),
        ({name.title(): array for name, array in ARRAYS.items()}, {}),
        (ARRAYS, {"text": "x" * array_files._ROOM}),
    ],
    ids=["shape", "type", "number", "names", "document"],
)
def test_arrays_that_are_others_or_a_longer_document_are_laid_out_anew(tmp_path, laid_out, arrays, document):
    save_arrays(str(tmp_path / "first.h5"), ARRAYS, {})
    save_arrays(str(tmp_path / "second.h5"), arrays, document)

    assert len(laid_out) == 2
    require_stored(tmp_path / "second.h5", arrays, document)


def test_few_layouts_are_remembered_and_none_of_very_many_arrays(tmp_path, laid_out, monkeypatch):
    for number in range(3 * array_files._REMEMBERED):
        save_arrays(str(tmp_path / f"{number}.h5"), {"a": np.zeros(number)}, {})
        assert len(array_files._layouts) <= array_files._REMEMBERED
    array_files._layouts.clear()
    monkeypatch.setattr(array_files, "_REMEMBERED_ARRAYS", len(ARRAYS) - 1)
    for name in ("x.h5", "y.h5"):
        save_arrays(str(tmp_path / name), ARRAYS, {})
        require_stored(tmp_path / name, ARRAYS, {})

    assert array_files._layouts == {}


def test_file_that_is_there_is_an_error_whether_the_layout_is_remembered_or_not(tmp_path, laid_out):
    path = tmp_path / "taken.h5"
    path.write_bytes(b"precious")
    for _ in range(2):
        with pytest.raises(FileExistsError):
            save_arrays(str(path), ARRAYS, {})
        save_arrays(str(tmp_path / f"{len(laid_out)}.h5"), ARRAYS, {})

    assert path.read_bytes() == b"precious"


def test_what_hdf5_writes_for_many_arrays_lies_in_few_places(tmp_path, laid_out):
    save_arrays(str(tmp_path / "f.h5"), {f"a{n}": np.zeros(50) for n in range(1000)}, {})

    (layout,) = array_files._layouts.values()
    assert len(layout.metadata) < 20
    assert sum(octets.size for _, octets in layout.metadata) < 600_000
