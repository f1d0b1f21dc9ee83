"""Formats of result files: npy, npz, JSON, HDF5, zarr and text; for each, how it is read and opened.

`save_value` writes what `entropic.values.documents` holds: an array as npy, plain values as typed JSON, and both
together as HDF5, where the arrays are datasets under `arrays/`, named by their place in the value, and the rest is
the document.
"""

from __future__ import annotations

import json
from io import BytesIO
from pathlib import Path
from typing import Any

from entropic.errors import DecodeError
from entropic.extras import need
from entropic.values.documents import decode, encode, is_plain_array

__all__ = [
    "load_hdf5",
    "load_json",
    "load_npy",
    "load_npz",
    "load_value_hdf5",
    "load_value_json",
    "load_zarr",
    "open_binary",
    "open_hdf5",
    "open_numpy",
    "open_text",
    "open_zarr",
    "save_value",
]

_DOCUMENT = "__document__"  # dataset of an HDF5 file
_ARRAYS = "arrays"  # its group
_NATIVE_KINDS = frozenset("biufc")  # which HDF5 has, with either byte order


def save_value(value: Any, stem: str) -> None:
    """Write an array, or plain values with or without arrays in them, to a file named *stem* and a suffix.

    Raises
    ------
    TypeError
        If there is something else in *value*.
    """
    if is_plain_array(value):
        with Path(f"{stem}.npy").open("wb") as file:
            _write_npy(file, value)
        return
    document, arrays = encode(value)
    text = json.dumps(document, allow_nan=False)
    if arrays:
        _save_hdf5(f"{stem}.value.h5", text, arrays)
    else:
        Path(f"{stem}.value.json").write_text(text, encoding="ascii")


def _write_npy(file: Any, array: Any) -> None:
    from numpy.lib.format import write_array

    try:
        write_array(file, array, version=(1, 0), allow_pickle=False)
    except ValueError:  # its fields take more than 64 kB to describe, or have names that are not Latin
        write_array(file, array, version=(3, 0), allow_pickle=False)


def load_value_json(path: str) -> Any:
    """Return the value that `save_value` wrote."""
    return decode(load_json(path), _no_arrays)


def _no_arrays(name: str) -> Any:
    raise DecodeError(f"the document refers to the array {name!r}, but JSON has none")


def _save_hdf5(path: str, document: str, arrays: dict[str, Any]) -> None:
    import h5py
    import numpy as np

    with h5py.File(path, "w") as file:
        file.create_dataset(_DOCUMENT, data=np.frombuffer(document.encode("ascii"), "u1"))
        group = file.create_group(_ARRAYS)
        for name, array in arrays.items():
            if array.dtype.kind not in _NATIVE_KINDS or array.dtype.char in "gG":
                octets = BytesIO()  # texts, times and structures: HDF5 has none, or keeps them otherwise
                _write_npy(octets, array)
                group.create_dataset(name, data=np.frombuffer(octets.getbuffer(), "u1")).attrs["format"] = (
                    "npy"
                )
            elif array.flags.f_contiguous and not array.flags.c_contiguous:
                group.create_dataset(name, data=array.T).attrs["order"] = "F"
            else:
                group.create_dataset(name, data=array)


def load_value_hdf5(path: str) -> Any:
    """Return the value that `save_value` wrote."""
    import h5py
    import numpy as np

    def array(name: str) -> Any:
        node = file[_ARRAYS][name]
        if node.attrs.get("format") == "npy":
            return np.lib.format.read_array(BytesIO(node[()].tobytes()), allow_pickle=False)
        found = np.asarray(node[()], dtype=node.dtype)
        return found.T if node.attrs.get("order") == "F" else found

    with h5py.File(path, "r") as file:
        return decode(json.loads(file[_DOCUMENT][()].tobytes()), array)


def load_npy(path: str) -> Any:
    """Return the array; pickled objects are refused."""
    import numpy as np

    return np.load(path, allow_pickle=False)


def load_npz(path: str) -> dict[str, Any]:
    """Return the arrays by name; pickled objects are refused."""
    import numpy as np

    # Opened here: of a damaged archive NumPy would leave it open.
    with Path(path).open("rb") as file, np.load(file, allow_pickle=False) as arrays:
        return dict(arrays)


def open_numpy(path: str) -> Any:
    """Return an array that is mapped into memory, or an `numpy.lib.npyio.NpzFile`."""
    import numpy as np

    return np.load(path, mmap_mode="r", allow_pickle=False)


def load_json(path: str) -> Any:
    """Return what the JSON says."""
    return json.loads(Path(path).read_bytes())


def load_hdf5(path: str) -> dict[str, Any]:
    """Return groups as dicts and datasets as arrays, scalars or text; attributes are left out."""
    import h5py

    def read(node: Any) -> Any:
        if isinstance(node, h5py.Group):
            return {name: read(child) for name, child in node.items()}
        return node.asstr()[()] if h5py.check_string_dtype(node.dtype) else node[()]

    with h5py.File(path, "r") as file:
        return dict(read(file))


def open_hdf5(path: str) -> Any:
    """Return an `h5py.File`."""
    import h5py

    return h5py.File(path, "r")


def load_zarr(path: str) -> Any:
    """Return an array, or groups as dicts of arrays; attributes are left out."""

    def read(node: Any) -> Any:
        if hasattr(node, "shape"):
            return node[...]
        return {name: read(node[name]) for name in sorted([*node.array_keys(), *node.group_keys()])}

    return read(open_zarr(path))


def open_zarr(path: str) -> Any:
    """Return a `zarr.Array` or `zarr.Group`."""
    zarr = need("zarr", "zarr", "reading zarr")
    if not Path(path).exists():  # zarr's own errors differ from release to release
        raise FileNotFoundError(path)
    return zarr.open(path, mode="r")


def open_text(path: str) -> Any:
    """Return a text file."""
    return Path(path).open(encoding="utf-8")


def open_binary(path: str) -> Any:
    """Return a binary file."""
    return Path(path).open("rb")
