"""How long texts and rows in HDF5 files are that anybody may have written: known before libhdf5 makes room for them.

Where a text or a row belongs, there is its length and where it is. libhdf5 makes room for the length before it looks
whether that is there, and has no conversion that leaves the two as they are. So one that does nothing is registered
with it meanwhile. In a row of texts are such references, too: when all rows are known to be small enough they are read,
to see how long their texts are.

Sources: "Variable-length datatypes" and "Disk format: level 1E, global heap" in the HDF5 file format specification,
and `H5Tregister` in the reference of libhdf5.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from itertools import accumulate
from typing import Any, NamedTuple

from entropic.errors import DecodeError
from entropic.values.untrusted import Budget

__all__ = ["take_contents"]

_LENGTH_BYTES = 4
_NUMBER_BYTES = 4  # which object of its heap
_ROW_IN_MEMORY = [("count", "P"), ("place", "P")]
_IN_MEMORY = 8  # times a reference's bytes: what an object of Python's takes that is made of one
_DEEPEST = 32  # rows in rows
_NAME = b"entropic's lengths"
_SOFT = 1  # for all types of a class
_ID, _POINTER, _SIZE = ctypes.c_int64, ctypes.c_void_p, ctypes.c_size_t
_CONVERT = ctypes.CFUNCTYPE(
    ctypes.c_int, _ID, _ID, _POINTER, _SIZE, _SIZE, _SIZE, _POINTER, _POINTER, _ID
)  # H5T_conv_t


class _Lengths(NamedTuple):
    """As what a value is read to see how long the texts and rows in it are: its type for libhdf5, and for NumPy.

    Attributes
    ----------
    found : callable
        Yields of an array of such values the lengths, and how many bytes in the file and in memory each counts.
    """

    type_: Any
    dtype: Any
    found: Callable[[Any], Iterator[tuple[Any, int, int]]]


def take_contents(node: Any, budget: Budget, name: str) -> None:
    """Take what the texts and rows in a dataset or attribute have, none of which is read.

    Parameters
    ----------
    node : h5py.h5d.DatasetID or h5py.h5a.AttrID
        Of which a caller has taken what it has without them.

    Raises
    ------
    DecodeError
        If one is longer than the file, or all are more than it can hold.
    """
    try:
        for depth in range(_DEEPEST):
            lengths = _lengths(node.get_type(), depth, _head(node))
            if lengths is None or not _take(node, lengths, depth, budget, name):
                return
    except RecursionError:
        pass
    raise DecodeError(f"the type of {name!r} in {budget.path!r} is nested too deeply to be read")


def _take(node: Any, lengths: _Lengths, depth: int, budget: Budget, name: str) -> int:
    """Take what the texts and rows within so many rows have, and return how much that is."""
    taken = 0
    with _read(node, lengths, depth, budget, name) as values:
        for said, stored, counted in lengths.found(values):
            longest = int(said.max(initial=0)) * stored
            if longest > budget.stored:
                raise DecodeError(
                    f"{budget.path!r} claims to have a text or row of {longest} bytes in {name!r}, which is more than "
                    f"its {budget.stored} bytes, and is not read"
                )
            budget.take(size := int(said.sum(dtype="u8")) * counted, name)
            taken += size
    return taken


def _head(node: Any) -> tuple[Any, Any]:
    """Return the type of what is in a text's or row's place, for libhdf5 and for NumPy."""
    import h5py
    import numpy as np

    address, _ = h5py.h5i.get_file_id(node).get_create_plist().get_sizes()
    head = h5py.h5t.STD_B8LE.copy()  # of which there is no conversion from any other
    head.set_size(_LENGTH_BYTES + address + _NUMBER_BYTES)
    return head, np.dtype([("length", "<u4"), ("place", f"V{address + _NUMBER_BYTES}")])


def _lengths(type_: Any, depth: int, head: tuple[Any, Any]) -> _Lengths | None:
    """Return how to see the lengths of what is within so many rows; None if there is nothing."""
    from h5py import h5t

    kind = type_.get_class()
    if kind == h5t.COMPOUND:
        return _of_members(type_, depth, head)
    if kind == h5t.ARRAY and (of := _lengths(type_.get_super(), depth, head)):
        shape = type_.get_array_dims()
        return _Lengths(h5t.array_create(of.type_, shape), (of.dtype, shape), of.found)
    if kind == h5t.STRING and type_.is_variable_str() and not depth:
        return _Lengths(*head, lambda values: iter([(values["length"], 1, 1)]))
    if kind != h5t.VLEN:
        return None
    if not depth:
        each = type_.get_super().get_size()
        taken = each * (_IN_MEMORY if any(map(type_.get_super().detect_class, (h5t.VLEN, h5t.STRING))) else 1)
        return _Lengths(*head, lambda values: iter([(values["length"], each, taken)]))
    within = _lengths(type_.get_super(), depth - 1, head)
    return within and _of_rows(within)


def _of_members(type_: Any, depth: int, head: tuple[Any, Any]) -> _Lengths | None:
    import numpy as np
    from h5py import h5t

    members = {}
    for number in range(type_.get_nmembers()):
        if of := _lengths(type_.get_member_type(number), depth, head):
            members[type_.get_member_name(number)] = of
    if not members:
        return None
    dtype = np.dtype([(f"{number}", of.dtype) for number, of in enumerate(members.values())])
    offsets = [0, *accumulate(dtype[number].itemsize for number in range(len(members)))]
    compound = h5t.create(h5t.COMPOUND, dtype.itemsize)
    for number, (name, of) in enumerate(members.items()):
        compound.insert(name, offsets[number], of.type_)

    def found(values: Any) -> Iterator[tuple[Any, int, int]]:
        for number, of in enumerate(members.values()):
            yield from of.found(values[f"{number}"])

    return _Lengths(compound, dtype, found)


def _of_rows(within: _Lengths) -> _Lengths:
    import numpy as np
    from h5py import h5t

    dtype = np.dtype(within.dtype)

    def found(values: Any) -> Iterator[tuple[Any, int, int]]:
        rows = zip(values["count"].ravel().tolist(), values["place"].ravel().tolist(), strict=True)
        octets = b"".join(ctypes.string_at(place, count * dtype.itemsize) for count, place in rows if count)
        yield from within.found(np.frombuffer(octets, dtype))

    return _Lengths(h5t.vlen_create(within.type_), np.dtype(_ROW_IN_MEMORY), found)


@contextmanager
def _read(node: Any, lengths: _Lengths, depth: int, budget: Budget, name: str) -> Iterator[Any]:
    """Give the values of a node with lengths for what is within so many rows, which are there as long."""
    import h5py
    import numpy as np
    from h5py._objects import phil

    library, space, type_ = _library(), node.get_space(), lengths.type_
    values = np.zeros(space.get_simple_extent_npoints(), lengths.dtype)
    place = values.ctypes.data
    any_row = h5py.h5t.vlen_create(h5py.h5t.STD_I8LE)
    with phil:  # h5py's own lock: libhdf5 is not safe to use from two threads
        if library.H5Tregister(_SOFT, _NAME, any_row.id, h5py.h5t.STD_B8LE.id, _leave) < 0:
            raise RuntimeError("libhdf5 takes no conversion of types")
        try:
            if isinstance(node, h5py.h5a.AttrID):
                failed = library.H5Aread(node.id, type_.id, place)
            else:
                failed = library.H5Dread(node.id, type_.id, 0, 0, 0, place)
        finally:
            library.H5Tunregister(_SOFT, _NAME, -1, -1, _leave)  # it may not be called when Python has ended
    if failed:
        raise DecodeError(f"how long the texts and rows in {name!r} in {budget.path!r} are cannot be read")
    try:
        yield values
    finally:
        if depth:
            with phil:
                library.H5Treclaim(type_.id, space.id, 0, place)


@cache
def _library() -> Any:
    """Return the libhdf5 that h5py has loaded."""
    import h5py

    library = ctypes.PyDLL(h5py.h5t.__file__)
    for name, parameters in {
        "H5Tregister": [ctypes.c_int, ctypes.c_char_p, _ID, _ID, _CONVERT],
        "H5Tunregister": [ctypes.c_int, ctypes.c_char_p, _ID, _ID, _CONVERT],
        "H5Aread": [_ID, _ID, _POINTER],
        "H5Dread": [_ID, _ID, _ID, _ID, _ID, _POINTER],
        "H5Treclaim": [_ID, _ID, _ID, _POINTER],
    }.items():
        getattr(library, name).argtypes = parameters
    return library


def _leave_as_it_is(*arguments: object) -> int:
    return 0


_leave = _CONVERT(_leave_as_it_is)
