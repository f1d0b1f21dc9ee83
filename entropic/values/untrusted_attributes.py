"""Attributes of HDF5 files that anybody may have put there: what they take in memory is bounded before they are read.

An attribute is read whole, and its texts may all be one in the file, or say that they are of any length. So before
whoever reads all attributes of a file does so, they are counted here.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from entropic.values.untrusted import Budget
from entropic.values.untrusted_hdf5 import hdf5_objects
from entropic.values.untrusted_lengths import take_contents

__all__ = ["attribute_text", "require_small_attributes"]


def require_small_attributes(file: Any, budget: Budget) -> None:
    """Raise `DecodeError` if the attributes in an open HDF5 file take more than it can hold."""
    for attribute, dtype in _attributes(file):
        budget.take(_size(attribute) * max(dtype.itemsize, 1), "attributes")
        if dtype.hasobject:
            take_contents(attribute, budget, attribute.name.decode("utf-8", "replace"))


def _attributes(file: Any) -> Iterator[tuple[Any, Any]]:
    """Yield each attribute that has values, and its NumPy type; one of a type that NumPy has not, nobody can read."""
    import h5py

    for node in hdf5_objects(file):
        names: list[bytes] = []
        h5py.h5a.iterate(node, names.append)
        for name in names:
            attribute = h5py.h5a.open(node, name)
            if attribute.get_space().get_simple_extent_type() == h5py.h5s.NULL:
                continue
            try:
                yield attribute, attribute.dtype
            except TypeError:
                continue


def _size(attribute: Any) -> int:
    return int(attribute.get_space().get_simple_extent_npoints())


def attribute_text(node: Any, name: str, budget: Budget) -> str | None:
    """Return an attribute of a node in an open HDF5 file: an empty text if it is not one text, None if it is absent."""
    import h5py

    if not h5py.h5a.exists(node.id, name.encode()):
        return None
    attribute = h5py.h5a.open(node.id, name.encode())
    if attribute.get_type().get_class() != h5py.h5t.STRING or _size(attribute) != 1:
        return ""
    take_contents(attribute, budget, name)
    found = node.attrs[name]
    found = found if isinstance(found, str | bytes) else found.ravel()[0]
    return found.decode("utf-8", "surrogateescape") if isinstance(found, bytes) else str(found)
