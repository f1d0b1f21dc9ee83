"""Files of one array, in NumPy's format (NEP 1): written by NumPy, and read with one look at what they begin with.

A header is a Python literal, and to parse it takes NumPy longer than all else that a small array needs. Few are in use
at a time, so what those of numbers say is remembered, and the elements are read into place. Other files NumPy reads.
"""

from __future__ import annotations

import functools
import io
import math
import os
from pathlib import Path
from typing import Any

from entropic.errors import DecodeError
from entropic.values.untrusted import require_small_npy

__all__ = ["load_npy", "save_npy", "write_npy"]

# Of what NumPy writes before the elements, unless fields or very many axes are to be described.
_HEADER_BYTES = 128
_BEGINNING = b"\x93NUMPY\x01\x00" + (_HEADER_BYTES - 10).to_bytes(2, "little")
_NUMBERS = frozenset("biufc")


def save_npy(array: Any, path: str) -> None:
    """Write a plain array."""
    with Path(path).open("wb") as file:
        write_npy(file, array)


def write_npy(file: Any, array: Any) -> None:
    """Write a plain array to an open file."""
    from numpy.lib.format import write_array

    try:
        write_array(file, array, version=(1, 0), allow_pickle=False)
    except ValueError:  # its fields take more than 64 kB to describe, or have names that are not Latin
        write_array(file, array, version=(3, 0), allow_pickle=False)


def load_npy(path: str) -> Any:
    """Return the array; pickled objects are refused.

    Raises
    ------
    DecodeError
        If the file claims to hold more than it does.
    ValueError
        If NumPy reads no array from it.
    """
    with open(path, "rb", buffering=0) as file:
        stored = os.fstat(file.fileno()).st_size
        described = _described(file.read(_HEADER_BYTES))
        if described is not None:
            return _read(file, path, stored, *described)
    import numpy as np

    with open(path, "rb") as buffered:
        require_small_npy(buffered, path, stored)
        return np.load(buffered, allow_pickle=False)


@functools.lru_cache(maxsize=256)
def _described(header: bytes) -> tuple[tuple[int, ...], bool, Any] | None:
    """Return shape, whether that is in Fortran's order, and dtype; None of all but numbers with a usual header."""
    if not header.startswith(_BEGINNING) or len(header) != _HEADER_BYTES:
        return None
    from numpy.lib.format import read_array_header_1_0

    try:
        shape, is_fortran, dtype = read_array_header_1_0(io.BytesIO(header[8:]))
    except ValueError:
        return None
    return (shape, is_fortran, dtype) if dtype.kind in _NUMBERS else None


def _read(file: Any, path: str, stored: int, shape: tuple[int, ...], is_fortran: bool, dtype: Any) -> Any:
    """Return the array whose elements are the rest of *file*."""
    import numpy as np

    if _HEADER_BYTES + math.prod(shape) * dtype.itemsize > stored:
        raise DecodeError(
            f"{path!r} claims to hold an array of shape {shape} and type {dtype!s}, which is more than its {stored} "
            "bytes can, and is not read"
        )
    array = np.empty(shape[::-1] if is_fortran else shape, dtype)
    octets: Any = array.reshape(-1).view("u1")
    left = memoryview(octets)
    while left:  # one call reads 2 GB at most
        count = file.readinto(left)
        if not count:
            raise DecodeError(f"{path!r} became shorter while it was read")
        left = left[count:]
    return array.T if is_fortran else array
