"""Parquet files that anybody may have put there: what their columns take in memory is bounded before it is taken.

A column keeps each text once and says in a few bits where it stands, so that its texts may take far more than its file.
How large the largest of a row group is, is seen when its dictionary is read, without a text for each row.
"""

from __future__ import annotations

from typing import Any

from entropic.values.untrusted import Budget, packed_budget

__all__ = ["require_small_parquet"]

_VALUE_BYTES = 8
_PREFIXED = "DELTA_BYTE_ARRAY"
_AT_ONCE = 1 << 26  # bytes: what may be read to see what it takes


def require_small_parquet(file: Any, path: str, stored: int) -> None:
    """Raise `DecodeError` if the columns of an open `ParquetFile` would take more than its bytes can hold."""
    budget = packed_budget(path, stored)
    described = [file.schema.column(place) for place in range(len(file.schema))]
    widths = {one.path: max(_VALUE_BYTES, one.length or 0) for one in described}
    for _, name, column, rows in _chunks(file):
        budget.take(widths[name] * max(column.num_values, rows, 0), name)
        budget.take(max(column.total_uncompressed_size, 0), name)
    texts = [one for one in _chunks(file) if one[2].physical_type == "BYTE_ARRAY"]
    _require_small_texts(
        path, Budget(path, stored), [one for one in texts if not _is_categorical(file, one[1])]
    )


def _chunks(file: Any) -> Any:
    """Yield row group, name, description and rows of each part of each column."""
    for number in range(file.metadata.num_row_groups):
        group = file.metadata.row_group(number)
        for place in range(group.num_columns):
            column = group.column(place)
            yield number, column.path_in_schema, column, group.num_rows


def _is_categorical(file: Any, name: str) -> bool:
    """Whether a column stays a dictionary, of which each text is kept once."""
    import pyarrow as pa

    place = file.schema_arrow.get_field_index(name)
    return place >= 0 and bool(pa.types.is_dictionary(file.schema_arrow.field(place).type))


def _require_small_texts(path: str, budget: Budget, chunks: list[Any]) -> None:
    from pyarrow.parquet import ParquetFile

    names = list(dict.fromkeys(name for _, name, _, _ in chunks))
    if not names:
        return
    with ParquetFile(path, read_dictionary=names) as as_dictionaries, ParquetFile(path) as plain:
        for number, name, column, _ in chunks:
            if _PREFIXED in column.encodings:
                _take_prefixed(plain, number, column, budget)
                continue
            longest = _longest(as_dictionaries, number, name)
            budget.take(longest * column.num_values, name)


def _longest(file: Any, number: int, name: str) -> int:
    """Return how many bytes the largest text of a row group's dictionary has."""
    for batch in file.iter_batches(batch_size=1, row_groups=[number], columns=[name], use_threads=False):
        return max(map(_longest_in, batch.columns), default=0)
    return 0


def _longest_in(array: Any) -> int:
    import pyarrow as pa
    import pyarrow.compute as compute

    if pa.types.is_dictionary(array.type):
        return compute.max(compute.binary_length(array.dictionary)).as_py() or 0
    if pa.types.is_struct(array.type):
        return max(map(_longest_in, array.flatten()), default=0)
    if pa.types.is_map(array.type):
        return max(_longest_in(array.keys), _longest_in(array.items))
    if pa.types.is_nested(array.type):
        return _longest_in(array.values)
    return 0


def _take_prefixed(file: Any, number: int, column: Any, budget: Budget) -> None:
    """Take what the texts of a row group have, each of which may begin as the one before it and be as long as all."""
    if column.num_values * column.total_uncompressed_size <= budget.left:
        budget.take(column.num_values * column.total_uncompressed_size, column.path_in_schema)
        return
    size = max(1, _AT_ONCE // max(column.total_uncompressed_size, 1))
    for batch in file.iter_batches(
        batch_size=size, row_groups=[number], columns=[column.path_in_schema], use_threads=False
    ):
        budget.take(batch.nbytes, column.path_in_schema)
