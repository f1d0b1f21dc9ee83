"""Times and durations on their way into a column: what is one, and what the column would drop of it."""

from __future__ import annotations

import sys
from datetime import date, datetime, time, timedelta
from typing import Any

from sqlalchemy import Date, DateTime, Dialect, Interval, Time

from entropic.display.text import described
from entropic.model.refused import Refused
from entropic.sql.columns import Microseconds

__all__ = ["plain_time", "refuse_lossy_time"]

FULL_FSP = 6  # MySQL's name for microseconds


def plain_time(value: Any, *, is_date: bool = False) -> Any:
    """Return the datetime or timedelta of a pandas or NumPy time; other values as they are.

    Parameters
    ----------
    is_date : bool
        Whether a date is wanted, which is what NumPy calls a time without hours.
    """
    for convert in ("to_pydatetime", "to_pytimedelta"):
        if hasattr(value, convert):
            if type(value).__name__ == "NaTType":
                raise Refused("is NaT, which is no time; use None in a nullable column")
            if getattr(value, "nanosecond", 0) or getattr(value, "nanoseconds", 0):
                raise Refused(
                    f"has nanoseconds, but a time column holds microseconds: {described(value)}; round it, as in "
                    ".floor('us')"
                )
            value = getattr(value, convert)()
    if isinstance(value, datetime):
        return _plain_datetime(value)
    numpy = sys.modules.get("numpy")
    if numpy is not None and isinstance(value, numpy.datetime64 | numpy.timedelta64):
        if is_date and type(day := value.item()) is date:
            return day
        micros = value.astype(f"{value.dtype.name.partition('[')[0]}[us]")
        # A month has no length; and beyond its range NumPy gives a number.
        is_exact = (
            numpy.can_cast(value.dtype, micros.dtype, "same_kind") and micros.astype(value.dtype) == value
        )
        is_fine = is_exact and isinstance(micros.item(), datetime | timedelta)
        if not is_fine:
            raise Refused(f"is no time in microseconds: {described(value)}")
        return micros.item()
    return value


def _plain_datetime(value: datetime) -> datetime:
    """Return the datetime of a subclass's, and without a fold that says nothing, which its text would not show."""
    moment = value.date(), value.time()
    plain = datetime.combine(*moment, value.tzinfo)
    is_second = value.fold and plain.replace(fold=0).utcoffset() != value.utcoffset()
    return plain.replace(fold=1 if is_second else 0)


def refuse_lossy_time(kind: Any, dialect: Dialect, value: Any) -> None:
    """Raise `Refused` if a column would keep less of a time than there is."""
    if isinstance(kind, Date) and isinstance(value, datetime):
        raise Refused(f"must be a date, not a datetime: {described(value)}; write .date()")
    keeps_zone = isinstance(kind, DateTime) and kind.timezone and dialect.name == "postgresql"
    if isinstance(kind, DateTime) and isinstance(value, datetime) and value.tzinfo and not keeps_zone:
        raise Refused(
            f"has a time zone, which the column would drop: {described(value)}; "
            "annotate it as Mapped[datetime] without a type of its own"
        )
    if isinstance(value, time) and value.tzinfo is not None:
        raise Refused(
            f"has a time zone, which the column would drop: {described(value)}; pass it without one, or a datetime"
        )
    if (
        dialect.name in {"mysql", "mariadb"}
        and isinstance(kind, DateTime | Time | Interval)
        and _has_microseconds(value)
        and getattr(kind.dialect_impl(dialect), "fsp", None) != FULL_FSP
        and not isinstance(kind.dialect_impl(dialect), Microseconds)
    ):
        raise Refused(
            f"has microseconds, which the column would drop: {described(value)}; annotate it without a type of its own"
        )
    if isinstance(kind, Date) and not isinstance(value, date):
        raise Refused(f"must be a date, not {described(value)}")


def _has_microseconds(value: Any) -> bool:
    return bool(getattr(value, "microsecond", 0) or getattr(value, "microseconds", 0))
