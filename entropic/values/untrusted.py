"""Files that anybody may have put there: what they refer to elsewhere is not followed, what they claim is not believed.

An HDF5 file may link to other files and keep its data in them, a zarr array may be packed by a codec that unpickles,
and either may claim to be larger than anything that its bytes can hold. All this stands in what describes the data, and
is looked at before the data are read: no file is read twice.
"""

from __future__ import annotations

import io
import math
import os
import stat
import zipfile
from collections.abc import Iterator
from typing import Any

from entropic.errors import DecodeError

__all__ = [
    "Budget",
    "CountedText",
    "hdf5_children",
    "require_hard_links",
    "require_inside",
    "require_plain_codecs",
    "require_regular",
    "require_small_hdf5",
    "require_small_npy",
    "require_small_parquet",
    "require_small_zip",
    "zarr_budget",
]

_FREE_BYTES = 1 << 30  # what was never written is not stored, and comes back as zeros
_RATIO = 1100  # of deflate's best, 1032 to 1
_ZARR_RATIO = 1 << 15  # of zstd's
_NO_VARIABLE = b"This is a netCDF dimension but not a netCDF variable"
_UNPICKLING = frozenset({"pickle", "numcodecs.pickle"})


def require_regular(path: str) -> None:
    """Raise `DecodeError` at once if there is neither a file nor a folder: to open a FIFO would wait for ever."""
    mode = os.stat(path).st_mode
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
        raise DecodeError(f"{path!r} is neither a file nor a folder, and is not opened")


class Budget:
    """How many bytes a result may take in memory, by what its file can hold.

    Parameters
    ----------
    stored : int
        Size of the file, or of all files in the folder.
    """

    def __init__(self, path: str, stored: int, ratio: int = _RATIO) -> None:
        self._path = path
        self._left = _FREE_BYTES + ratio * stored

    def take(self, size: int, name: str) -> None:
        """Note that so many bytes are about to be read; raise `DecodeError` if the file cannot hold them."""
        self._left -= size
        if self._left < 0:
            raise DecodeError(
                f"{self._path!r} claims to hold more than its bytes can ({name!r} alone {size} bytes), and is not read "
                "as a whole: read what you need of it by record.open()"
            )


def require_small_npy(file: Any, path: str, stored: int) -> None:
    """Raise `DecodeError` if the header of an open npy file claims more than the file, which packs nothing, holds."""
    from numpy.lib import format

    version = format.read_magic(file)
    read_header = format.read_array_header_1_0 if version == (1, 0) else format.read_array_header_2_0
    if version <= (2, 0):
        shape, _, dtype = read_header(file)
        if not dtype.hasobject and math.prod(shape) * dtype.itemsize > stored:
            raise DecodeError(
                f"{path!r} claims to hold an array of shape {shape} and type {dtype}, which is more than its {stored} "
                "bytes can, and is not read"
            )
    file.seek(0)


class CountedText(io.RawIOBase):
    """A file of lines of which a table is made: who reads it is stopped before the table is larger than it may be.

    A line may leave out its last columns, so that a few bytes make a row of any width.
    """

    def __init__(self, path: str, separator: bytes = b",") -> None:
        self._file = open(path, "rb", buffering=0)  # noqa: SIM115  closed with this
        self._separator = separator
        self._cells: int | None = None  # in a line; None before the first is whole
        self._first = 1
        self._budget = Budget(path, os.fstat(self._file.fileno()).st_size)

    def readable(self) -> bool:
        """Whether it can be read."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Read on, and count; raise `DecodeError` if the table would be larger than the file's bytes can hold."""
        size = self._file.readinto(buffer) or 0
        block = bytes(memoryview(buffer)[:size])
        if self._cells is None:
            line, end, block = (
                block.lstrip(b"\r\n").partition(b"\n") if self._first == 1 else block.partition(b"\n")
            )
            self._first += line.count(self._separator)
            self._cells = self._first if end else None
        if self._cells is not None:
            self._budget.take(8 * self._cells * block.count(b"\n"), "the table")
        return size

    def close(self) -> None:
        """Close the file."""
        self._file.close()
        super().close()


def require_small_parquet(metadata: Any, path: str, stored: int) -> None:
    """Raise `DecodeError` if the columns of a parquet file claim more values than its bytes can hold."""
    budget = Budget(path, stored, _ZARR_RATIO)
    for number in range(metadata.num_row_groups):
        group = metadata.row_group(number)
        for place in range(group.num_columns):
            column = group.column(place)
            budget.take(8 * max(column.num_values, 0), column.path_in_schema)
            budget.take(max(column.total_uncompressed_size, 0), column.path_in_schema)


# HDF5


def require_small_hdf5(file: Any, path: str, stored: int) -> None:
    """Raise `DecodeError` if the arrays in the root of an open HDF5 file claim more than its bytes can hold."""
    import h5py

    budget = Budget(path, stored)
    for name in file:
        node = file.get(name)
        # A dimension without values of its own is a dataset too, which nobody reads.
        if isinstance(node, h5py.Dataset) and not bytes(node.attrs.get("NAME", b"")).startswith(_NO_VARIABLE):
            budget.take(node.nbytes, name)


def require_inside(file: Any, path: str) -> None:
    """Raise `DecodeError` if something in an open HDF5 file is in another file, or links to one."""
    import h5py

    def look(
        name: bytes, info: Any
    ) -> tuple[bytes, str] | None:  # what it returns ends the visit; it may not raise
        if info.type == h5py.h5l.TYPE_EXTERNAL:
            return name, "a link to another file"
        is_hard = info.type == h5py.h5l.TYPE_HARD
        if not is_hard or h5py.h5o.get_info(file.id, name).type != h5py.h5o.TYPE_DATASET:
            return None
        made = h5py.h5d.open(file.id, name).get_create_plist()
        if made.get_layout() == h5py.h5d.VIRTUAL:
            return name, "put together from other files"
        return (name, "kept in another file") if made.get_external_count() else None

    if (found := file.id.links.visit(look, info=True)) is not None:
        name, what = found
        raise DecodeError(
            f"{name.decode('utf-8', 'replace')!r} in {path!r} is {what}, which is not read: a result is one file. Copy "
            "what it holds into the file"
        )


def require_hard_links(file: Any, path: str) -> None:
    """Raise `DecodeError` if there is a link in an open HDF5 file that leads by a name, in whichever file."""
    import h5py

    found = file.id.links.visit(
        lambda name, info: name if info.type != h5py.h5l.TYPE_HARD else None, info=True
    )
    if found is not None:
        raise DecodeError(
            f"{found.decode('utf-8', 'replace')!r} in {path!r} is a link, which is not followed"
        )


def hdf5_children(
    group: Any, above: tuple[Any, ...], path: str
) -> Iterator[tuple[str, Any, tuple[Any, ...]]]:
    """Yield name, node and where we are then of all in a group; raise `DecodeError` where a link leads back up."""
    import h5py

    here = (*above, _address(h5py.h5o.get_info(group.id)))
    for name in group:
        child = group[name]
        if _address(h5py.h5o.get_info(child.id)) in here:
            raise DecodeError(
                f"{name!r} in {path!r} leads back to a group that it is in: read it by record.open()"
            )
        yield name, child, here


def _address(info: Any) -> Any:
    return info.fileno, info.addr


# zarr and npz


def require_plain_codecs(node: Any, path: str) -> None:
    """Raise `DecodeError` if an open zarr array, or one in a group, is packed by a codec that unpickles."""
    arrays = [node] if hasattr(node, "shape") else _arrays(node)
    for array in arrays:
        metadata = getattr(array, "metadata", None)
        described = metadata.to_dict() if metadata is not None else [array.compressor, *(array.filters or [])]
        if _names(described) & _UNPICKLING:
            raise DecodeError(
                f"an array in {path!r} is packed by pickle, which could run code, and is not read"
            )


def _arrays(group: Any) -> Iterator[Any]:
    yield from (array for _, array in group.arrays())
    for _, inner in group.groups():
        yield from _arrays(inner)


def _names(described: Any) -> set[str]:
    found: set[str] = set()
    waiting = [described]
    while waiting:
        one = waiting.pop()
        if isinstance(one, dict):
            found.update(str(one[key]) for key in ("id", "name", "codec_id") if key in one)
            waiting.extend(one.values())
        elif isinstance(one, list | tuple):
            waiting.extend(one)
        elif hasattr(one, "codec_id"):
            found.add(str(one.codec_id))
    return found


def zarr_budget(path: str, stored: int) -> Budget:
    """Return the budget of a zarr folder, whose codecs pack more densely."""
    return Budget(path, stored, _ZARR_RATIO)


def require_small_zip(file: Any, path: str, stored: int) -> None:
    """Raise `DecodeError` if the entries of a zip file claim more than its bytes can hold."""
    budget = Budget(path, stored)
    with zipfile.ZipFile(file) as archive:
        for entry in archive.infolist():
            budget.take(entry.file_size, entry.filename)
    file.seek(0)
