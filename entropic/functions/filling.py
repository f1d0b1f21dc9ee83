"""Columns of what a function returns, filled in rows that are older than they: from the results, and without a run.

A row is filled only if it is still the one that was read, so a run that replaces it meanwhile keeps its own columns.
What cannot be read is left as it is, and said.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from sqlalchemy import Connection, or_, update

from entropic.errors import CorruptFileError, DecodeError, ResultFileMissingError
from entropic.model.growth import has_unfilled, note_filled
from entropic.model.records import CHUNK
from entropic.process.logs import get_logger
from entropic.runs.attempts import kept
from entropic.runs.result_table import ResultTable
from entropic.sql.upsert import chunks

__all__ = ["fill_outputs", "warn_of_unfilled"]

log = get_logger(__name__)

_UNREADABLE = (ResultFileMissingError, CorruptFileError, DecodeError)


def fill_outputs(table: ResultTable[Any], outputs_of: Callable[[Any], Mapping[str, Any]]) -> int:
    """Fill the outputs that are NULL with what the results have for them; return how many rows were changed.

    Parameters
    ----------
    outputs_of : callable
        Returns, of a result's value, its outputs.
    """
    rows: Any = table.model.__table__
    columns = [rows.c[name] for name in table.parameters.by_column(table.parameters.outputs.nulls())]
    if not columns:
        return 0
    with table.database.reading() as connection:
        asked = table.reader.select([or_(*(one.is_(None) for one in columns))], [rows.c.id], None, connection)
        ids = [found.id for found in asked]
    changed, left = 0, 0
    for chunk in chunks(ids, CHUNK):
        changes = []
        for found in table.reader.find_many(chunk):
            try:
                value = table.reader.record(found).load()
            except _UNREADABLE as error:
                log.warning("the outputs of %s are not filled in: %s", found.id, error)
                left += 1
                continue
            returned, spelled = kept(outputs_of(value))
            outputs, _ = table.parameters.outputs.split_returned(returned, set(), spelled)
            new = {name: one for name, one in outputs.items() if one is not None and found.row[name] is None}
            if new:
                changes.append((found.id, found.row["created_at"], table.parameters.by_column(new)))
        changed += _write(table, changes)
    if not left:
        note_filled(table.database, table.parameters)
    return changed


def _write(table: ResultTable[Any], changes: Iterable[tuple[str, Any, Mapping[str, Any]]]) -> int:
    rows: Any = table.model.__table__

    def work(connection: Connection) -> int:
        return sum(
            connection.execute(
                update(rows).where(rows.c.id == key, rows.c.created_at == made).values(values)
            ).rowcount
            for key, made, values in changes
        )

    changes = list(changes)
    return table.database.write(work, repeatable=True) if changes else 0


def warn_of_unfilled(table: ResultTable[Any], frame: Any, call: str) -> None:
    """Say which *call* fills them in, if a frame of records lacks outputs because they are older than the columns."""
    holes = {name: int(frame[name].isna().sum()) for name in table.parameters.outputs.names}
    if any(holes.values()) and has_unfilled(table.database, table.parameters):
        log.warning(
            "results that are older than the columns %s have nothing in them, in up to %d rows; %s fills them in, and "
            "runs nothing",
            ", ".join(name for name, count in holes.items() if count),
            max(holes.values()),
            call,
        )
