"""The global heaps of an HDF5 file that anybody may have written: how long a row of texts can be at most.

A text or a row is an object in a heap, and a row of texts is an object of references to others. Only the heaps say
whether the texts in a row are many short ones or a long one many times, and libhdf5 has a row no other way than whole.
"""

from __future__ import annotations

import mmap
import os
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

__all__ = ["largest_row"]

_SIGNATURE = b"GCOL"
_OBJECT = struct.Struct("<HHIQ")  # number, count of references, nothing, and size
_SIZE = struct.Struct("<Q")  # the last of it
_REFERENCE = struct.Struct("<IQI")  # size, address of the heap, and number in it
_REFERENCE_BYTES = _REFERENCE.size


def largest_row(file: Any, object_bytes: int) -> int | None:
    """Return how many bytes the texts of a row in an open HDF5 file can take; None if its heaps do not say it.

    Parameters
    ----------
    object_bytes : int
        What a text takes besides what is in it.

    Notes
    -----
    Whatever looks like a heap is taken for one: what is not makes the bound larger, never smaller.
    """
    path = file.filename
    made = file.id.get_create_plist()
    if not os.path.isfile(path) or made.get_sizes() != (8, 8):
        return None
    with Path(path).open("rb") as opened, mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ) as octets:
        most = len(octets) // _REFERENCE_BYTES  # as many objects, and references, as there is room for
        places: dict[int, int] = {}  # of one number each, as there are millions
        heaps: set[int] = set()
        for heap, number, start in _objects(octets):
            if len(places) >= most or heap << 32 | number in places:
                return None
            places[heap << 32 | number] = start
            heaps.add(heap)
        base = made.get_userblock()
        largest = 0
        for start in places.values():
            (size,) = _SIZE.unpack_from(octets, start - _SIZE.size)
            most -= size // _REFERENCE_BYTES
            if most < 0:  # they share bytes
                return None
            row = octets[start : start + size // _REFERENCE_BYTES * _REFERENCE_BYTES]
            in_row = 0
            for said, heap, number in _REFERENCE.iter_unpack(row):
                if heap + base not in heaps:  # nor does libhdf5 find it there
                    continue
                if (place := places.get(heap + base << 32 | number)) is None:
                    return None
                in_row += object_bytes + max(said, _SIZE.unpack_from(octets, place - _SIZE.size)[0])
            largest = max(largest, in_row)
        return largest


def _objects(octets: mmap.mmap) -> Iterator[tuple[int, int, int]]:
    """Yield heap, number and place of all objects in all heaps."""
    heap = octets.find(_SIGNATURE)
    while heap >= 0:
        (size,) = struct.unpack_from("<Q", octets, heap + 8) if heap + 16 <= len(octets) else (0,)
        place, end = heap + 16, min(heap + size, len(octets))
        while place + _OBJECT.size <= end:
            number, _, _, length = _OBJECT.unpack_from(octets, place)
            place += _OBJECT.size
            if number == 0:  # free, and its size is that of all of it; libhdf5 goes on behind it
                if length == 0:
                    break
                place += length - _OBJECT.size
                continue
            if length > end - place:  # libhdf5 reads nothing of such a heap
                break
            yield heap, number, place
            place += -(-length // 8) * 8
        heap = octets.find(_SIGNATURE, heap + 1)
