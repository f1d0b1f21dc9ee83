"""Arrays and a JSON document in one HDF5 file, written and read at the speed of the disk.

HDF5 lays the file out: each array is a dataset under its name, in one block, and the document says where each block is.
The values are written and read there without HDF5, which would take longer to do the same, front to back.
"""

from __future__ import annotations

import errno
import json
import math
import mmap
import os
from bisect import bisect_right
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from operator import itemgetter
from typing import Any

from entropic.disk.following import Following
from entropic.errors import DecodeError
from entropic.values.untrusted import Budget, require_regular
from entropic.values.untrusted_hdf5 import require_hard_links

__all__ = ["NATIVE", "ArraysFile", "save_arrays"]

NATIVE = frozenset("biufc")
"""Kinds of types that HDF5 has."""

_DOCUMENT = "__document__"
_PLACES = "places"
_ALIGNED = 64  # bytes, as processors read best
_ROOM = 1 << 12  # bytes: the document, which has numbers in it, may become so much longer in the same layout
_METADATA = 256  # bytes of what HDF5 writes for an array, or more
_REMEMBERED = 8  # layouts
_REMEMBERED_ARRAYS = 10_000  # of one, each of 500 bytes or so
_TOLD = 1 << 20  # bytes that are written before the digest is told
_AT_ONCE = 8 << 20  # bytes of small arrays that are read at once, and stay as long as one of them does


def save_arrays(path: str, arrays: Mapping[str, Any], document: dict[str, Any]) -> tuple[int, str]:
    """Write a new file, sync it, and return its size in bytes and its SHA-256.

    Parameters
    ----------
    arrays : mapping of str to numpy.ndarray
        In C order, of the kinds in `NATIVE`; a ``/`` in a name makes a group.
    document : dict
        JSON.

    Raises
    ------
    FileExistsError
        If there is a file.
    """
    text = json.dumps(document, allow_nan=False)[1:-1]
    kinds = tuple((name, array.dtype.str, array.shape) for name, array in arrays.items())
    layout = _layout(path, kinds, math.ceil(len(text) / _ROOM) * _ROOM)
    values = [array.reshape(-1).view("u1") for array in arrays.values()]
    blocks = zip(layout.offsets, [*values, layout.document(text)], strict=True)
    with open(path, "r+b", buffering=0) as file, Following(file) as following:
        told = 0
        for offset, octets in sorted(blocks, key=itemgetter(0)):
            # What comes before the next block is final, so that the digest can be made behind the writing.
            if offset - told >= _TOLD:
                following.follow(told := offset)
            _write_at(file.fileno(), octets, offset)
        return following.synced()


_Kinds = tuple[tuple[str, str, tuple[int, ...]], ...]  # names, types and shapes


@dataclass(frozen=True, slots=True)
class _Layout:
    """An HDF5 file but for the values.

    Attributes
    ----------
    size : int
        In bytes.
    metadata : list of (int, numpy.ndarray)
        What HDF5 wrote, and where.
    offsets : list of int
        Where the values of the arrays come, and then the document.
    places : str
        What the document says of them.
    room : int
        Bytes of the document.
    """

    size: int
    metadata: list[tuple[int, Any]]
    offsets: list[int]
    places: str
    room: int

    def document(self, text: str) -> Any:
        """Return what comes as the document, which has the members in *text*."""
        import numpy

        whole = "{" + ", ".join(filter(None, [text, self.places])) + "}"
        return numpy.frombuffer(whole.ljust(self.room).encode("ascii"), "u1")

    def write(self, path: str) -> None:
        """Write a new file."""
        with open(path, "xb", buffering=0) as file:
            for offset, octets in self.metadata:
                _write_at(file.fileno(), octets, offset)
            file.truncate(self.size)


# A training stores the same arrays many times, and to have HDF5 lay them out takes as long as to write some.
_layouts: dict[tuple[_Kinds, int], _Layout] = {}


def _layout(path: str, kinds: _Kinds, room: int) -> _Layout:
    """Write a new file that has no values yet, and return how it is laid out."""
    key = kinds, room
    if (layout := _layouts.get(key)) is not None:
        layout.write(path)
        return layout
    layout = _lay_out(path, kinds, room)
    if len(kinds) <= _REMEMBERED_ARRAYS:
        if len(_layouts) >= _REMEMBERED:
            _layouts.clear()
        _layouts[key] = layout
    return layout


def _lay_out(path: str, kinds: _Kinds, room: int) -> _Layout:
    """Do what `_layout` does with HDF5."""
    import h5py
    import numpy

    # Of one block each: what is in chunks or compressed is written more slowly than the disk is.
    made = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    made.set_layout(h5py.h5d.CONTIGUOUS)
    made.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
    made.set_fill_time(h5py.h5d.FILL_TIME_NEVER)
    made.set_obj_track_times(False)
    linked = h5py.h5p.create(h5py.h5p.LINK_CREATE)
    linked.set_create_intermediate_group(True)
    linked.set_char_encoding(h5py.h5t.CSET_UTF8)
    types = {kind: numpy.dtype(kind) for kind in ("|u1", *(kind for _, kind, _ in kinds))}
    handles = {kind: h5py.h5t.py_create(dtype, logical=True) for kind, dtype in types.items()}
    blocks = []
    # What HDF5 writes of its own lies together in few places, which a cold disk reads at once.
    together = min(max(_METADATA * len(kinds), 1 << 11), 1 << 16)
    aligned = {"alignment_threshold": _ALIGNED, "alignment_interval": _ALIGNED}
    with h5py.File(path, "x", meta_block_size=together, **aligned) as file:

        def place(name: str, kind: str, shape: tuple[int, ...]) -> int:
            space = h5py.h5s.create_simple(shape)
            node = h5py.h5d.create(file.id, name.encode(), handles[kind], space, made, linked)
            offset: int = node.get_offset() or 0
            blocks.append((offset, math.prod(shape) * types[kind].itemsize))
            return offset

        offsets = [place(*kind) for kind in kinds]
        places = {
            name: [offset, kind, shape] for offset, (name, kind, shape) in zip(offsets, kinds, strict=True)
        }
        text = f"{json.dumps(_PLACES)}: {json.dumps(places)}"
        room += len(text) + len("{, }")
        offsets.append(place(_DOCUMENT, "|u1", (room,)))
    size, metadata = _between(path, blocks)
    return _Layout(size, metadata, offsets, text, room)


def _between(path: str, blocks: list[tuple[int, int]]) -> tuple[int, list[tuple[int, Any]]]:
    """Return the size of a file, and what is in it before, between and behind *blocks* but for zeros."""
    import numpy

    found = []
    with open(path, "rb", buffering=0) as file:
        size, done = os.fstat(file.fileno()).st_size, 0
        for offset, length in sorted([*blocks, (size, 0)]):
            if offset > done:
                octets = numpy.empty(offset - done, "u1")
                _read_at(file.fileno(), octets, done)
                if octets.any():
                    found.append((done, octets))
            done = max(done, offset + length)
    return size, found


def _write_at(descriptor: int, octets: Any, offset: int) -> None:
    while octets.size:  # one call writes 2 GB at most
        count = os.pwrite(descriptor, octets.data, offset)
        octets, offset = octets[count:], offset + count


def _read_at(descriptor: int, octets: Any, offset: int) -> None:
    while octets.size:
        count = os.preadv(descriptor, [octets.data], offset)
        if not count:
            raise OSError(errno.EIO, "the file ends within an array")
        octets, offset = octets[count:], offset + count


@dataclass(frozen=True, slots=True)
class _Place:
    """Where an array is in a file, and what it is."""

    offset: int
    size: int
    dtype: Any
    shape: tuple[int, ...]

    def is_inside(self, size: int) -> bool:
        """Whether a file of this size can have it."""
        numbers = (self.offset, *self.shape)
        is_native = self.dtype.kind in NATIVE and {int}.issuperset(map(type, numbers))
        return is_native and min(numbers) >= 0 and self.offset + self.size <= size


class ArraysFile:
    """A file of `save_arrays`, open for reading.

    Attributes
    ----------
    path : str
    size : int
        In bytes.
    document : dict
        As it was written.

    Raises
    ------
    DecodeError
        If it is another file, or leads to other files.
    OSError
        If it is no HDF5, or damaged.

    Notes
    -----
    What is open stays readable when the file is removed. Safe to share between threads.
    """

    def __init__(self, path: str) -> None:
        require_regular(path)
        self.path = path
        self._map: mmap.mmap | None = None
        self._file = open(path, "rb", buffering=0)  # noqa: SIM115  closed with this
        try:
            self.size = os.fstat(self._file.fileno()).st_size
            self.document = self._parsed()
            self._places = self._placed()
        except BaseException:
            self._file.close()
            raise

    def _parsed(self) -> dict[str, Any]:
        import h5py
        import numpy

        with h5py.File(self.path, "r") as file:
            require_hard_links(file, self.path)
            try:
                node = h5py.h5d.open(file.id, _DOCUMENT.encode())
                offset, size = node.get_offset(), node.get_storage_size()
            except (KeyError, ValueError) as error:
                raise self._is_no_such_file(error) from error
        if offset is None or size > self.size:  # in chunks, or in another file
            raise self._is_no_such_file("its document is not in one block")
        octets = numpy.empty(size, "u1")
        _read_at(self._file.fileno(), octets, offset)
        try:
            return dict(json.loads(octets.tobytes()))
        except (ValueError, TypeError, RecursionError) as error:
            raise self._is_no_such_file(error) from error

    def _placed(self) -> dict[str, _Place]:
        import numpy

        places: dict[str, _Place] = {}
        types: dict[str, Any] = {}
        try:
            for name, (offset, kind, shape) in self.document[_PLACES].items():
                if kind not in types:
                    types[kind] = numpy.dtype(kind)
                dtype = types[kind]
                places[name] = _Place(offset, math.prod(shape) * dtype.itemsize, dtype, tuple(shape))
            wrong = next((name for name, place in places.items() if not place.is_inside(self.size)), None)
        except (LookupError, TypeError, ValueError, AttributeError) as error:
            raise self._is_no_such_file(error) from error
        if wrong is not None:
            raise self._is_no_such_file(f"{wrong!r} is not in it")
        return places

    def _is_no_such_file(self, why: object) -> DecodeError:
        return DecodeError(f"{self.path!r} is no file of arrays that entropic wrote: {why!s:.200}")

    def place(self, name: str) -> _Place:
        """Return where an array is, and what; raise `DecodeError` if there is none."""
        try:
            return self._places[name]
        except (KeyError, TypeError) as error:
            raise DecodeError(f"{self.path!r} has no array {name!r}") from error

    def reader(self) -> Callable[[str], Any]:
        """Return a function that returns arrays by name, small ones that lie beside each other read at once."""
        import numpy

        # A document may name one array many times, or say that many are in one place.
        budget = Budget(self.path, self.size, ratio=1)
        starts, ends = _batches(self._places.values())
        buffers: dict[int, Any] = {}

        def read(name: str) -> Any:
            place = self.place(name)
            budget.take(place.size, name)
            number = bisect_right(starts, place.offset) - 1
            if place.size > _AT_ONCE or not place.size:
                return self.load(name)
            if number not in buffers:
                buffer = buffers[number] = numpy.empty(ends[number] - starts[number], "u1")
                _read_at(self._file.fileno(), buffer, starts[number])
            first = place.offset - starts[number]
            found = buffers[number][first : first + place.size].view(place.dtype).reshape(place.shape)
            return found if found.flags.aligned else found.copy()

        return read

    def load(self, name: str) -> Any:
        """Return one array."""
        import numpy

        place = self.place(name)
        values = numpy.empty(place.shape, place.dtype)
        if place.size:
            _read_at(self._descriptor(name), values.reshape(-1).view("u1"), place.offset)
        return values

    def part(self, name: str, key: Any) -> Any:
        """Return what ``array[key]`` is of one array, and read no more of it."""
        import numpy

        place, descriptor = self.place(name), self._descriptor(name)
        if not place.size:
            return numpy.empty(place.shape, place.dtype)[key]
        if self._map is None:
            self._map = mmap.mmap(descriptor, 0, access=mmap.ACCESS_READ)
        octets = numpy.frombuffer(self._map, "u1", place.size, place.offset)
        return numpy.array(octets.view(place.dtype).reshape(place.shape)[key])

    def _descriptor(self, name: str) -> int:
        if self._file.closed:
            raise ValueError(f"the file {self.path!r} was closed before {name!r} was read from it")
        return self._file.fileno()

    def close(self) -> None:
        """Close the file."""
        if self._map is not None:
            with suppress(BufferError):  # an error that was caught still shows it: it goes with that
                self._map.close()
            self._map = None
        self._file.close()


def _batches(places: Any) -> tuple[list[int], list[int]]:
    """Return where the parts of a file that are read at once begin and end; they do not overlap."""
    starts: list[int] = []
    ends: list[int] = []
    for place in sorted(places, key=lambda place: place.offset):
        end = place.offset + place.size
        if place.size > _AT_ONCE or not place.size:
            continue
        if starts and end - starts[-1] <= _AT_ONCE and place.offset - ends[-1] <= _AT_ONCE // 64:
            ends[-1] = max(ends[-1], end)
        else:
            starts.append(place.offset)
            ends.append(end)
    return starts, ends
