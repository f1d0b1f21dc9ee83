"""What the table of attempts tells: which keys failed last, and which rows another version of the code made."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import and_, exists, func, select

from entropic.display.text import short
from entropic.model.base import table_key
from entropic.printable import one_line
from entropic.process.logs import get_logger
from entropic.runs.result_table import ResultTable
from entropic.sql.tables import AttemptRow, FileRow
from entropic.sql.tables.attempts import COMPLETED, FAILED

__all__ = ["FailedRun", "failed_runs", "warn_of_other_code"]

log = get_logger(__name__)

_attempts: Any = AttemptRow.__table__
_files: Any = FileRow.__table__


@dataclass(frozen=True)
class FailedRun:
    """The last attempt of a key that failed.

    Attributes
    ----------
    params : dict
        The typed parameters.
    error_type, message, traceback : str
        Of the exception, as the runner raised it.
    host : str or None
        Where it ran.
    ended_at : datetime
        Aware, UTC.
    exception : BaseException or None
        The exception itself, in the sweep in which it was raised; None when read back from the database.
    """

    id: str
    params: dict[str, Any]
    error_type: str
    message: str
    traceback: str
    host: str | None
    ended_at: datetime
    exception: BaseException | None = None

    def __repr__(self) -> str:
        params = ", ".join(f"{name}={short(value)}" for name, value in self.params.items())
        ended = f"{self.ended_at:%Y-%m-%d %H:%M}"
        message = " ".join(self.message.split())
        return one_line(f"FailedRun({params}: {self.error_type}: {message:.200}; {self.host}, {ended})")


def failed_runs(table: ResultTable[Any]) -> list[FailedRun]:
    """Return the last attempt of every key whose last one failed, oldest first."""
    later = _attempts.alias()
    succeeded_or_failed_since = exists().where(
        later.c.table_name == _attempts.c.table_name,
        later.c.record_id == _attempts.c.record_id,
        later.c.ended_at > _attempts.c.ended_at,
        later.c.state.in_([COMPLETED, FAILED]),
    )
    results: Any = table.model.__table__
    registered_since = exists().where(
        results.c.id == _attempts.c.record_id, results.c.created_at > _attempts.c.ended_at
    )
    statement = (
        select(_attempts)
        .where(
            _attempts.c.table_name == table_key(table.model),
            _attempts.c.state == FAILED,
            ~succeeded_or_failed_since,
            ~registered_since,
        )
        .order_by(_attempts.c.ended_at)
    )
    rows = table.database.read(lambda connection: connection.execute(statement).all())
    return [
        FailedRun(
            id=row.record_id,
            params=table.parameters.for_people(row.params),
            error_type=row.error_type or "",
            message=row.message or "",
            traceback=row.traceback or "",
            host=row.host,
            ended_at=row.ended_at,
        )
        for row in rows
    ]


def warn_of_other_code(table: ResultTable[Any]) -> None:
    """Say once, in one WARNING, how many rows another version of the runner made, and since when."""
    if table.code.label is None:
        return
    statement = (
        select(func.count(), func.min(_attempts.c.ended_at))
        .select_from(_attempts)
        .join(_files, and_(_files.c.attempt == _attempts.c.id, _files.c.table_name == _attempts.c.table_name))
        .where(
            _attempts.c.table_name == table_key(table.model),
            _attempts.c.state == COMPLETED,
            _attempts.c.code != table.code.label,
            _files.c.record_id == _attempts.c.record_id,
        )
    )
    count, since = table.database.read(lambda connection: connection.execute(statement).one())
    if count:
        log.warning(
            "rows of %s that were computed by another version of the runner: %d, the first of them on %s; they are "
            "used as they are. run(...) computes one again",
            table_key(table.model),
            count,
            since.strftime("%Y-%m-%d"),
        )
