"""The header of a classic netCDF file: what its variables claim to hold, before whoever reads them believes it.

Nothing in such a file is packed, so that it is as large as its variables; other records than there are have no bytes.
The header is a list of dimensions, of attributes and of variables, each with a tag and a count.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import BinaryIO

from entropic.errors import DecodeError

__all__ = ["require_small_classic"]

# And the bytes of a count and of an offset.
_MAGIC = {b"CDF\x01": (4, 4), b"CDF\x02": (4, 8), b"CDF\x05": (8, 8)}
_WIDTHS = {1: 1, 2: 1, 3: 2, 4: 4, 5: 4, 6: 8, 7: 1, 8: 2, 9: 4, 10: 8, 11: 8}


def require_small_classic(path: str) -> None:
    """Raise `DecodeError` if the variables of a classic netCDF file claim more than it holds; look at no other file."""
    with Path(path).open("rb") as file:
        counted = _MAGIC.get(file.read(4))
        if counted is not None:
            _Header(file, path, *counted).require_small()


class _Header:
    def __init__(self, file: BinaryIO, path: str, count_bytes: int, offset_bytes: int) -> None:
        self._file = file
        self._path = path
        self._count_bytes = count_bytes
        self._offset_bytes = offset_bytes
        self._stored = file.seek(0, 2)
        file.seek(4)

    def require_small(self) -> None:
        # Who wrote it did not know how many records there would be.
        streaming = (1 << 8 * self._count_bytes) - 1
        records = self._number(self._count_bytes)
        records = 0 if records == streaming else records
        lengths = [self._dimension() for _ in range(self._list())]
        self._skip_attributes()
        claimed = 0
        for _ in range(self._list()):
            name, shape, width = self._variable(lengths)
            if shape and shape[0] == 0:
                shape = (records, *shape[1:])
            claimed += math.prod(shape) * width
            if claimed > self._stored:
                raise DecodeError(
                    f"{self._path!r} claims to hold more than its {self._stored} bytes (with {name!r} of shape "
                    f"{shape} {claimed} bytes), and is not read"
                )

    def _dimension(self) -> int:
        self._name()
        return self._number(self._count_bytes)

    def _variable(self, lengths: list[int]) -> tuple[str, tuple[int, ...], int]:
        name = self._name()
        rank = self._number(self._count_bytes)
        if rank > self._stored:
            raise self._damaged()
        numbers = [self._number(self._count_bytes) for _ in range(rank)]
        if any(number >= len(lengths) for number in numbers):
            raise self._damaged()
        self._skip_attributes()
        width = self._width()
        self._skip(self._count_bytes + self._offset_bytes)  # the size, which may be wrong, and the place
        return name, tuple(lengths[number] for number in numbers), width

    def _skip_attributes(self) -> None:
        for _ in range(self._list()):
            self._name()
            width = self._width()
            self._skip(_padded(width * self._number(self._count_bytes)))

    def _list(self) -> int:
        """Return how many entries the list has that begins here."""
        self._number(4)  # its tag; of a list that is absent zero, as is its count
        return self._number(self._count_bytes)

    def _width(self) -> int:
        width = _WIDTHS.get(self._number(4))
        if width is None:
            raise self._damaged()
        return width

    def _name(self) -> str:
        size = self._number(self._count_bytes)
        if size > self._stored:
            raise self._damaged()
        name = self._file.read(size)
        self._skip(_padded(size) - size)
        return name.decode("utf-8", "replace")

    def _number(self, size: int) -> int:
        read = self._file.read(size)
        if len(read) < size:
            raise self._damaged()
        return int.from_bytes(read, "big")

    def _skip(self, size: int) -> None:
        if self._file.tell() + size > self._stored:
            raise self._damaged()
        self._file.seek(size, 1)

    def _damaged(self) -> DecodeError:
        return DecodeError(f"the header of {self._path!r} is not one of a netCDF file, and is not read")


def _padded(size: int) -> int:
    return -(-size // 4) * 4
