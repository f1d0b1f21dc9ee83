"""Parquet files that anybody may have put there: what their columns take in memory is bounded before it is taken.

A column keeps each text once and says in a few bits where it stands, so that its texts may take far more than its file.
How large the largest of a row group is, is seen when its dictionary is read, without a text for each row. What the
footer says of a column is not believed alone: its pages say themselves how many values they have and how.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from entropic.errors import DecodeError
from entropic.values.parquet_pages import Page, PageHeaders
from entropic.values.untrusted import Budget, packed_budget

__all__ = ["require_small_parquet"]

_VALUE_BYTES = 8
_OBJECT_BYTES = 256  # what an object takes that pandas makes of a list, a mapping, a decimal or a date
_PREFIXED = 7  # numbers of encodings: each text begins as the one before it
_BY_NUMBER = frozenset({2, 8})  # in a dictionary
_AT_ONCE = 1 << 26  # bytes: what may be read to see what it takes


@dataclass(frozen=True, slots=True)
class _Chunk:
    """The part of a column that is in a row group."""

    group: int
    name: str
    is_text: bool
    is_nested: bool
    pages: list[Page]

    def values(self, *encodings: int) -> int:
        """Return how many values it has in pages of these encodings, or in all."""
        return sum(
            one.values
            for one in self.pages
            if not one.is_dictionary and (not encodings or one.encoding in encodings)
        )

    @property
    def unpacked(self) -> int:
        """What its pages take when they are unpacked."""
        return sum(one.unpacked for one in self.pages)


def require_small_parquet(file: Any, path: str, stored: int) -> None:
    """Raise `DecodeError` if the columns of an open `ParquetFile` would take more than its bytes can hold."""
    _require_plain_notes(file, path)
    budget = packed_budget(path, stored)
    texts = []
    for chunk, size in _chunks(file, path):
        budget.take(size, chunk.name)
        budget.take(chunk.unpacked, chunk.name)
        if chunk.is_text and not _is_categorical(file, chunk.name):
            texts.append(chunk)
    _require_small_texts(path, Budget(path, stored), texts)


def _chunks(file: Any, path: str) -> Iterator[tuple[_Chunk, int]]:
    """Yield each part of each column, and how many bytes its values take."""
    leaves = _leaves_of(file)
    with PageHeaders(path) as headers:
        for number in range(file.metadata.num_row_groups):
            group = file.metadata.row_group(number)
            for place in range(group.num_columns):
                column, described, leaf = group.column(place), file.schema.column(place), leaves[place]
                is_text = "BYTE_ARRAY" in (column.physical_type, described.physical_type)
                is_nested = described.max_repetition_level > 0
                chunk = _Chunk(number, described.path, is_text, is_nested, list(headers.of_chunk(column)))
                rows = max(group.num_rows, column.num_values)
                width = max(_VALUE_BYTES, described.length or 0, _OBJECT_BYTES if leaf.is_object else 0)
                # A row of fixed size that is absent is one value in the file, and is of that size in memory.
                values = max(chunk.values(), rows) if leaf.is_in_list else rows
                yield chunk, width * max(chunk.values(), values * leaf.fixed)


@dataclass(frozen=True, slots=True)
class _Leaf:
    """What a column of parquet is in the field of an Arrow table that it is of.

    Attributes
    ----------
    is_object : bool
        Whether pandas makes objects of Python's of its values.
    fixed : int
        How many values a row of fixed size has, in another one perhaps.
    is_in_list : bool
        Whether it is in a list or mapping of any length.
    """

    is_object: bool = False
    fixed: int = 1
    is_in_list: bool = False


def _leaves_of(file: Any) -> list[_Leaf]:
    found = [leaf for field in file.schema_arrow for leaf in _leaves(field.type, _Leaf())]
    # Where they are fewer or more, nobody knows which is which.
    return found if len(found) == len(file.schema) else [_Leaf(is_object=True)] * len(file.schema)


def _leaves(kind: Any, above: _Leaf) -> Iterator[_Leaf]:
    import pyarrow.types as types

    if not types.is_nested(kind):
        is_object = any(is_kind(kind) for is_kind in (types.is_decimal, types.is_date, types.is_time))
        yield _Leaf(above.is_object or is_object, above.fixed, above.is_in_list)
        return
    fixed, is_in_list = above.fixed, above.is_in_list
    if types.is_fixed_size_list(kind):
        fixed *= max(1, kind.list_size)
    elif not types.is_struct(kind):
        is_in_list = True
    for number in range(kind.num_fields):
        yield from _leaves(kind.field(number).type, _Leaf(True, fixed, is_in_list))


def _require_plain_notes(file: Any, path: str) -> None:
    """Raise `DecodeError` if what pandas notes in a file has it make values of a type of any width."""
    import numpy as np

    notes = (file.schema_arrow.metadata or {}).get(b"pandas", b"{}")
    try:
        described = json.loads(notes)
        found = [*described.get("columns", []), *described.get("column_indexes", [])]
        types = [one.get("numpy_type") for one in found]
    except (ValueError, TypeError, AttributeError) as error:
        raise DecodeError(f"the notes of pandas in {path!r} are none, and it is not read") from error
    for name in types:
        try:
            width = np.dtype(name).itemsize
        except (TypeError, ValueError):  # of pandas' own
            continue
        if width > 32:
            raise DecodeError(f"{path!r} notes values of type {name!r:.80}, and is not read")


def _is_categorical(file: Any, name: str) -> bool:
    """Whether a column stays a dictionary, of which each text is kept once."""
    import pyarrow as pa

    place = file.schema_arrow.get_field_index(name)
    return place >= 0 and bool(pa.types.is_dictionary(file.schema_arrow.field(place).type))


def _require_small_texts(path: str, budget: Budget, chunks: list[_Chunk]) -> None:
    from pyarrow.parquet import ParquetFile

    names = list(dict.fromkeys(chunk.name for chunk in chunks))
    if not names:
        return
    with ParquetFile(path, read_dictionary=names) as as_dictionaries, ParquetFile(path) as plain:
        for chunk in chunks:
            if chunk.values(_PREFIXED):
                _take_prefixed(plain, chunk, budget)
            elif by_number := chunk.values(*_BY_NUMBER):
                budget.take(_longest(as_dictionaries, chunk) * by_number, chunk.name)


def _longest(file: Any, chunk: _Chunk) -> int:
    """Return how many bytes the largest text of a row group's dictionary has."""
    dictionaries = [one for one in chunk.pages if one.is_dictionary]
    data = [one for one in chunk.pages if not one.is_dictionary]
    # If its first values are not from the dictionary, that is not read with them: no text is longer than all.
    if data[0].encoding not in _BY_NUMBER:
        return sum(one.unpacked for one in dictionaries)
    for batch in file.iter_batches(
        batch_size=1, row_groups=[chunk.group], columns=[chunk.name], use_threads=False
    ):
        found = [_texts_in(array) for array in batch.columns]
        if sum(count for count, _ in found) >= sum(one.values for one in dictionaries):
            return max((longest for _, longest in found), default=0)
        break
    return sum(one.unpacked for one in dictionaries)


def _texts_in(array: Any) -> tuple[int, int]:
    """Return how many texts there are in the dictionaries in an array, and the size of the longest."""
    import pyarrow as pa
    import pyarrow.compute as compute

    if pa.types.is_dictionary(array.type):
        return len(array.dictionary), compute.max(compute.binary_length(array.dictionary)).as_py() or 0
    if pa.types.is_struct(array.type):
        parts = array.flatten()
    elif pa.types.is_map(array.type):
        parts = [array.keys, array.items]
    else:
        parts = [array.values] if pa.types.is_nested(array.type) else []
    found = [_texts_in(part) for part in parts]
    return sum(count for count, _ in found), max((longest for _, longest in found), default=0)


def _take_prefixed(file: Any, chunk: _Chunk, budget: Budget) -> None:
    """Take what the texts of a row group have, each of which may begin as the one before it and be as long as all."""
    values, unpacked = chunk.values(), chunk.unpacked
    if chunk.is_nested or values * unpacked <= budget.left:  # a row may have all of them
        budget.take(values * unpacked, chunk.name)
        return
    size = max(1, _AT_ONCE // max(unpacked, 1))
    for batch in file.iter_batches(
        batch_size=size, row_groups=[chunk.group], columns=[chunk.name], use_threads=False
    ):
        budget.take(batch.nbytes, chunk.name)
