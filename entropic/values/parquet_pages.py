"""The headers of the pages of a parquet file: how many values each has, how they are packed, and what they unpack to.

The footer says that too, of each part of a column; but whoever reads the column believes the pages. A header is a
struct of Thrift's in its compact form, before the bytes of its page. The pages themselves are passed over.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from entropic.errors import DecodeError

__all__ = ["Page", "PageHeaders"]

_DEPTH = 8  # of structs in a header: two
_DATA, _DICTIONARY, _DATA_2 = 0, 2, 3  # kinds of pages
_DETAILS = {_DATA: (5, 1, 2), _DICTIONARY: (7, 1, 2), _DATA_2: (8, 1, 4)}
"""Of each kind the field with its own struct, and the fields within that of the count of values and the encoding."""
_STRUCT, _BOOLEANS = 12, (1, 2)


@dataclass(frozen=True, slots=True)
class Page:
    """What the header of a page says.

    Attributes
    ----------
    values : int
        Nulls included.
    encoding : int
        As the format numbers them.
    unpacked : int
        Bytes.
    """

    is_dictionary: bool
    values: int
    encoding: int
    unpacked: int


class PageHeaders:
    """The headers in one file; a context manager, which closes it."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._file: BinaryIO = Path(path).open("rb")  # noqa: SIM115  closed with this
        self._size = self._file.seek(0, 2)

    def __enter__(self) -> PageHeaders:
        return self

    def __exit__(self, *exception: object) -> None:
        self._file.close()

    def of_chunk(self, chunk: Any) -> Iterator[Page]:
        """Yield the pages that are read of a chunk, as pyarrow describes it: until it has as many values as it says.

        Raises
        ------
        DecodeError
            If something else is where a header should be.
        """
        place = chunk.data_page_offset
        if chunk.has_dictionary_page and 0 < chunk.dictionary_page_offset < place:
            place = chunk.dictionary_page_offset
        seen = 0
        while seen < chunk.num_values:
            page, place = self._page(place)
            if page is not None:
                seen += 0 if page.is_dictionary else page.values
                yield page

    def _page(self, place: int) -> tuple[Page | None, int]:
        """Return what the header at a place says, None if its page has no values; and where the next one is."""
        if place < 0:
            raise self._damaged()
        self._file.seek(place)
        fields = self._struct(0)
        kind, unpacked, packed = (_number(fields.get(key)) for key in (1, 2, 3))
        if unpacked is None or packed is None or unpacked < 0 or packed < 0:
            raise self._damaged()
        end = self._file.tell() + packed
        if kind not in _DETAILS:
            return None, end
        within, *keys = _DETAILS[kind]
        details = fields.get(within)
        if not isinstance(details, dict):
            raise self._damaged()
        values, encoding = (_number(details.get(key)) for key in keys)
        if values is None or encoding is None or values < 0:
            raise self._damaged()
        return Page(kind == _DICTIONARY, values, encoding, unpacked), end

    def _struct(self, depth: int) -> dict[int, Any]:
        """Return the fields of the struct that begins here, by number; of those that are skipped None."""
        if depth > _DEPTH:
            raise self._damaged()
        fields: dict[int, Any] = {}
        number = 0
        while (head := self._octet()) != 0:
            number = number + (head >> 4) if head >> 4 else _signed(self._varint())
            kind = head & 15
            fields[number] = kind == 1 if kind in _BOOLEANS else self._value(kind, depth)
        return fields

    def _value(self, kind: int, depth: int) -> Any:
        if kind == _STRUCT:
            return self._struct(depth + 1)
        if kind in {4, 5, 6}:
            return _signed(self._varint())
        if kind == 3:
            return self._octet()
        if kind == 7:
            return self._skip(8)
        if kind == 8:
            return self._skip(self._varint())
        if kind in {9, 10}:
            return self._items(depth + 1)
        raise self._damaged()  # a map, or nothing of Thrift's

    def _items(self, depth: int) -> None:
        if depth > _DEPTH:
            raise self._damaged()
        head = self._octet()
        count = self._varint() if head >> 4 == 15 else head >> 4
        kind = head & 15
        for _ in range(count):  # each has a byte at least
            if kind in _BOOLEANS:
                self._octet()
            else:
                self._value(kind, depth)

    def _skip(self, size: int) -> None:
        if self._file.tell() + size > self._size:
            raise self._damaged()
        self._file.seek(size, 1)

    def _varint(self) -> int:
        value = 0
        for shift in range(0, 70, 7):
            octet = self._octet()
            value |= (octet & 127) << shift
            if octet < 128:
                return value
        raise self._damaged()

    def _octet(self) -> int:
        read = self._file.read(1)
        if not read:
            raise self._damaged()
        return read[0]

    def _damaged(self) -> DecodeError:
        return DecodeError(f"{self._path!r} has no page where its footer says so, and is not read")


def _signed(value: int) -> int:
    return value >> 1 ^ -(value & 1)


def _number(value: Any) -> int | None:
    return value if type(value) is int else None
