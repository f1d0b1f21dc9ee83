"""Files that anybody may have put there: what they refer to elsewhere is not followed, what they claim is not believed.

An HDF5 file may link to other files and keep its data in them, a zarr array may be packed by a codec that unpickles,
and either may claim to be larger than anything that its bytes can hold. All this stands in what describes the data, and
is looked at before the data are read: no file is read twice.
"""

from __future__ import annotations

import io
import math
import os
import re
import stat
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from entropic.errors import DecodeError

__all__ = [
    "Budget",
    "CountedText",
    "files_within",
    "packed_budget",
    "require_regular",
    "require_small_npy",
    "require_small_zip",
    "take_file_within",
]

_FREE_BYTES = 1 << 30  # what was never written is not stored, and comes back as zeros
_RATIO = 1100  # of deflate's best, 1032 to 1
_ZARR_RATIO = 1 << 15  # of zstd's
_HEAD_BYTES = 1 << 24  # of the first two lines of a table
_CELL = rb'(?:"(?:[^"]|"")*+"[^,\n]*+|(?!")[^,\n]*+)'
_LINE = rb"[ \t\n]*+(" + _CELL + rb"(?:," + _CELL + rb")*+)\n"  # after those that are blank
_HEAD = re.compile(rb"(?:\xef\xbb\xbf)?" + _LINE + _LINE)


def require_regular(path: str) -> None:
    """Raise `DecodeError` at once if there is neither a file nor a folder: to open a FIFO would wait for ever."""
    mode = os.stat(path).st_mode
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
        raise DecodeError(f"{path!r} is neither a file nor a folder, and is not opened")


class _Granted:
    """What a file and all files within it share: what is granted whatever its size, and how large those may be.

    Attributes
    ----------
    path : str
        Of the outermost file.
    """

    def __init__(self, path: str, stored: int) -> None:
        self.path = path
        self.left = _FREE_BYTES
        self.within = stored


_granted: ContextVar[_Granted | None] = ContextVar("granted", default=None)


@contextmanager
def files_within(path: str, stored: int) -> Iterator[None]:
    """Let the budgets of all files that a document of a file has within it be no more together than that of one."""
    if _granted.get() is not None:  # it is within one itself
        yield
        return
    token = _granted.set(_Granted(path, stored))
    try:
        yield
    finally:
        _granted.reset(token)


def take_file_within(size: int, suffix: str) -> None:
    """Note that there is a file of so many bytes within another; raise `DecodeError` if that cannot have them all."""
    granted = _granted.get()
    if granted is None:
        return
    if size > granted.within:
        raise DecodeError(
            f"{granted.path!r} claims to have more files within it than its bytes can hold (one for {suffix!r} alone "
            f"has {size} bytes), and is not read"
        )
    granted.within -= size


class Budget:
    """How many bytes a result may take in memory, by what its file can hold.

    Parameters
    ----------
    stored : int
        Size of the file, or of all files in the folder.
    ratio : int
        How many bytes one of them may become.

    Notes
    -----
    What is granted besides, it shares with the budgets of all that is read in `files_within`.
    """

    def __init__(self, path: str, stored: int, ratio: int = _RATIO) -> None:
        self._granted = _granted.get() or _Granted(path, stored)
        self._packed = ratio * stored
        self.path = self._granted.path
        self.stored = stored

    @property
    def left(self) -> int:
        """How many bytes may still be taken."""
        return self._packed + self._granted.left

    def take(self, size: int, name: str) -> None:
        """Note that so many bytes are about to be read; raise `DecodeError` if the file cannot hold them."""
        self.require(size, name)
        of_its_own = min(size, self._packed)
        self._packed -= of_its_own
        self._granted.left -= size - of_its_own

    def require(self, size: int, name: str) -> None:
        """Raise `DecodeError` if the file cannot hold so many bytes, which are needed for a moment only."""
        if size > self.left:
            raise DecodeError(
                f"{self.path!r} claims to hold more than its bytes can ({name!r} alone {size} bytes), and is not read "
                "as a whole: read what you need of it by record.open()"
            )


def require_small_npy(file: Any, path: str, stored: int) -> None:
    """Raise `DecodeError` if the header of an open npy file claims more than the file, which packs nothing, holds."""
    from numpy.lib import format

    # The third version differs from the second in the encoding of the fields' names alone.
    version = format.read_magic(file)
    read_header = format.read_array_header_1_0 if version == (1, 0) else format.read_array_header_2_0
    shape, _, dtype = read_header(file)
    if not dtype.hasobject and math.prod(shape) * dtype.itemsize > stored:
        raise DecodeError(
            f"{path!r} claims to hold an array of shape {shape} and type {dtype!s:.80}, which is more than its "
            f"{stored} bytes can, and is not read"
        )
    file.seek(0)


class CountedText(io.RawIOBase):
    """A file of lines of which a table is made: who reads it is stopped before the table is larger than it may be.

    A line may leave out its last columns, so that a few bytes make a row of any width. How wide a row is, the first
    line says or, where it has more, the second, each of which may have breaks within its quotes.
    """

    def __init__(self, path: str) -> None:
        self._file = open(path, "rb", buffering=0)  # noqa: SIM115  closed with this
        self._head: bytearray | None = bytearray()  # until the first two lines are whole
        self._cells = 0
        self._lines = 0
        self._budget = Budget(path, os.fstat(self._file.fileno()).st_size)

    def readable(self) -> bool:
        """Whether it can be read."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Read on, and count; raise `DecodeError` if the table would be larger than the file's bytes can hold."""
        size = self._file.readinto(buffer) or 0
        # Either ends a line, and an empty one costs too little to matter.
        block = bytes(memoryview(buffer)[:size]).replace(b"\r", b"\n")
        self._lines += block.count(b"\n")
        if self._head is not None:
            self._look(self._head, block)
        if self._head is None:
            self._budget.take(8 * self._cells * self._lines, "the table")
            self._lines = 0
        return size

    def _look(self, head: bytearray, block: bytes) -> None:
        head += block
        found = _HEAD.match(head)
        if found is not None:
            self._cells = 1 + max(line.count(b",") for line in found.groups())
            self._head = None
        elif len(head) > _HEAD_BYTES:
            raise DecodeError(
                f"the first two lines of {self._budget.path!r} have more than {_HEAD_BYTES} bytes, as where a quote is "
                "not closed, and it is not read as a whole: read what you need of it by record.open()"
            )

    def close(self) -> None:
        """Close the file."""
        self._file.close()
        super().close()


def packed_budget(path: str, stored: int) -> Budget:
    """Return the budget of a zarr folder or parquet file, whose codecs pack more densely."""
    return Budget(path, stored, _ZARR_RATIO)


def require_small_zip(file: Any, path: str, stored: int) -> None:
    """Raise `DecodeError` if the entries of a zip file claim more than its bytes can hold."""
    budget = Budget(path, stored)
    with zipfile.ZipFile(file) as archive:
        for entry in archive.infolist():
            # LZMA takes as much as it says, before it has read anything.
            if entry.compress_type == zipfile.ZIP_LZMA:
                raise DecodeError(f"{entry.filename!r} in {path!r} is packed by LZMA, and is not read")
            budget.take(entry.file_size, entry.filename)
        for entry in archive.infolist():
            if entry.filename.endswith(".npy"):
                with archive.open(entry) as member:
                    require_small_npy(member, f"{path}:{entry.filename}", entry.file_size)
    file.seek(0)
