"""Formats of result files, one record each: suffix, types, and how it is written, read and opened.

What `entropic.values.documents` holds is written as typed JSON or, where there are arrays in it, as HDF5: the arrays
are datasets under `arrays/`, named by their place in the value, and the rest is the document.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

from entropic.disk.files import size_of
from entropic.errors import DecodeError
from entropic.extras import need
from entropic.values import labelled
from entropic.values.documents import decode
from entropic.values.npy import load_npy, save_npy, write_npy
from entropic.values.untrusted import (
    Budget,
    files_within,
    packed_budget,
    require_small_npy,
    require_small_zip,
)
from entropic.values.untrusted_attributes import attribute_text
from entropic.values.untrusted_hdf5 import hdf5_children, read_hdf5, require_inside
from entropic.values.untrusted_zarr import read_zarr, require_no_links, require_plain_codecs

__all__ = ["FORMATS", "Format"]

_DOCUMENT = "__document__"  # dataset of an HDF5 file
_ARRAYS = "arrays"  # its group
_NATIVE_KINDS = frozenset("biufc")  # which HDF5 has, with either byte order


def save_value_json(encoded: tuple[Any, dict[str, Any]], path: str) -> None:
    """Write what `encode` made of a value without arrays."""
    Path(path).write_text(_text(encoded[0]), encoding="ascii")


def load_value_json(path: str) -> Any:
    """Return the value that `save_value_json` wrote."""
    return decode(load_json(path))


def _text(document: Any) -> str:
    return json.dumps(document, allow_nan=False)


def save_value_hdf5(encoded: tuple[Any, dict[str, Any]], path: str) -> None:
    """Write what `encode` made of a value with arrays."""
    import h5py
    import numpy as np

    document, arrays = encoded
    with h5py.File(path, "w") as file:
        file.create_dataset(_DOCUMENT, data=np.frombuffer(_text(document).encode("ascii"), "u1"))
        group = file.create_group(_ARRAYS)
        for name, array in arrays.items():
            if array.dtype.kind not in _NATIVE_KINDS or array.dtype.char in "gG":
                octets = BytesIO()  # texts, times and structures: HDF5 has none, or keeps them otherwise
                write_npy(octets, array)
                group.create_dataset(name, data=np.frombuffer(octets.getbuffer(), "u1")).attrs["format"] = (
                    "npy"
                )
            elif array.flags.f_contiguous and not array.flags.c_contiguous:
                group.create_dataset(name, data=array.T).attrs["order"] = "F"
            else:
                group.create_dataset(name, data=array)


def load_value_hdf5(path: str) -> Any:
    """Return the value that `save_value_hdf5` wrote."""
    import h5py
    import numpy as np

    def array(name: str) -> Any:
        node = file[_ARRAYS][name]
        written = attribute_text(node, "format", budget), attribute_text(node, "order", budget)
        if written not in {(None, None), ("npy", None), (None, "F")}:
            raise DecodeError(f"{path!r} has an array {name!r} that is written in no way that entropic knows")
        if written[0] == "npy":
            octets = read_hdf5(node, budget).tobytes()
            require_small_npy(stream := BytesIO(octets), path, len(octets))
            return np.lib.format.read_array(stream, allow_pickle=False)
        # h5py's own looks another.
        found = np.asarray(read_hdf5(node, budget), dtype=np.dtype(node.dtype.str))
        return found.T if written[1] == "F" else found

    stored = os.path.getsize(path)
    with h5py.File(path, "r") as file, files_within(path, stored):
        require_inside(file, path)
        budget = Budget(path, stored)
        return decode(_parsed(read_hdf5(file[_DOCUMENT], budget).tobytes(), path), array)


def load_npz(path: str) -> dict[str, Any]:
    """Return the arrays by name; pickled objects are refused."""
    import numpy as np

    # Opened here: of a damaged archive NumPy would leave it open.
    with Path(path).open("rb") as file:
        require_small_zip(file, path, os.path.getsize(path))
        with np.load(file, allow_pickle=False) as arrays:
            return dict(arrays)


def open_numpy(path: str) -> Any:
    """Return an array that is mapped into memory, or an `numpy.lib.npyio.NpzFile`."""
    import numpy as np

    return np.load(path, mmap_mode="r", allow_pickle=False)


def load_json(path: str) -> Any:
    """Return what the JSON says."""
    return _parsed(Path(path).read_bytes(), path)


def _parsed(text: bytes, path: str) -> Any:
    try:
        return json.loads(text)
    except RecursionError:
        raise DecodeError(f"the JSON in {path!r} is nested too deeply to be read") from None


def load_hdf5(path: str) -> dict[str, Any]:
    """Return groups as dicts and datasets as arrays, scalars or text; attributes are left out."""
    import h5py

    def read(node: Any, above: tuple[Any, ...] = ()) -> Any:
        if isinstance(node, h5py.Group):
            return {name: read(child, here) for name, child, here in hdf5_children(node, above, budget)}
        return read_hdf5(node, budget)

    with open_hdf5(path) as file:
        budget = Budget(path, os.path.getsize(path))
        return dict(read(file))


def open_hdf5(path: str) -> Any:
    """Return an `h5py.File`, in which nothing leads to another file."""
    import h5py

    file = h5py.File(path, "r")
    try:
        require_inside(file, path)
    except BaseException:
        file.close()
        raise
    return file


def load_zarr(path: str) -> Any:
    """Return an array, or groups as dicts of arrays; attributes are left out."""

    def read(node: Any) -> Any:
        if hasattr(node, "shape"):
            return read_zarr(node, budget)
        return {name: read(node[name]) for name in sorted([*node.array_keys(), *node.group_keys()])}

    opened = open_zarr(path)
    budget = packed_budget(path, size_of(Path(path)))
    return read(opened)


def open_zarr(path: str) -> Any:
    """Return a `zarr.Array` or `zarr.Group`."""
    zarr = need("zarr", "zarr", "reading zarr")
    if not Path(path).exists():  # zarr's own errors differ from release to release
        raise FileNotFoundError(path)
    require_no_links(path)
    opened = zarr.open(Path(path), mode="r")  # a text with "::" in it would be a URL to zarr
    require_plain_codecs(opened, path)
    return opened


def open_text(path: str) -> Any:
    """Return a text file."""
    return Path(path).open(encoding="utf-8")


def open_binary(path: str) -> Any:
    """Return a binary file."""
    return Path(path).open("rb")


@dataclass(frozen=True, slots=True)
class Format:
    """How files of one suffix are written, read and opened; each function takes the path as a str.

    Attributes
    ----------
    load : callable
        ``load(path)`` returns what the file holds.
    open : callable
        ``open(path)`` opens it without reading all of it.
    types : tuple of type or str
        Whose values are written so: classes, with their subclasses; or names, as of packages that need not be
        installed, of exactly these. Empty where what is in a value decides, or where nothing is written so.
    save : callable, optional
        ``save(value, path)`` writes a value; of the formats of documents what `encode` made of it.
    is_of_values : bool
        Whether the suffix says how entropic wrote a value, so that nobody may read it in another way.
    reader : callable, optional
        What a user gave to be used instead of *load*.
    """

    suffix: str
    load: Callable[[str], Any]
    open: Callable[[str], Any] = open_binary
    types: tuple[type | str, ...] = ()
    save: Callable[[Any, str], object] | None = None
    is_of_values: bool = False
    reader: Callable[[str], Any] | None = None


FORMATS = {
    one.suffix: one
    for one in (
        Format(".csv", labelled.load_csv, open_text),
        Format(
            ".dataarray.nc",
            labelled.load_dataarray,
            labelled.open_netcdf,
            ("xarray.DataArray",),
            labelled.save_xarray,
            is_of_values=True,
        ),
        Format(".h5", load_hdf5, open_hdf5),
        Format(".hdf5", load_hdf5, open_hdf5),
        Format(".json", load_json, open_text),
        Format(".nc", labelled.load_dataset, labelled.open_netcdf, ("xarray.Dataset",), labelled.save_xarray),
        Format(".npy", load_npy, open_numpy, (), save_npy),
        Format(".npz", load_npz, open_numpy),
        Format(
            ".parquet",
            labelled.load_parquet,
            labelled.open_parquet,
            ("pandas.DataFrame",),
            labelled.save_frame,
        ),
        Format(
            ".series.parquet",
            labelled.load_series,
            labelled.open_parquet,
            ("pandas.Series",),
            labelled.save_series,
            is_of_values=True,
        ),
        Format(".value.h5", load_value_hdf5, open_hdf5, (), save_value_hdf5, is_of_values=True),
        Format(".value.json", load_value_json, open_text, (), save_value_json, is_of_values=True),
        Format(".zarr", load_zarr, open_zarr),
    )
}
"""The formats that entropic has itself, by suffix."""
