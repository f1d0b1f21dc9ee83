"""The database's clock, by which leases and times to live are counted; and one that is set by hand."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from sqlalchemy import ColumnElement, Double, bindparam
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.expression import FunctionElement

__all__ = ["Clock", "ManualClock", "database_now"]

Clock = Callable[[], ColumnElement[float]]
"""Returns the SQL expression of the time now, in seconds since 1970-01-01 UTC; `database_now` is one."""


class database_now(FunctionElement[float]):
    """Seconds since 1970-01-01 UTC by the database's clock, at the moment of the statement."""

    type = Double()
    inherit_cache = True


@compiles(database_now, "sqlite")
def _now_sqlite(element: Any, compiler: Any, **kw: Any) -> str:
    return "((julianday('now') - 2440587.5) * 86400.0)"


@compiles(database_now, "postgresql")
def _now_postgresql(element: Any, compiler: Any, **kw: Any) -> str:
    # now() would be the start of the transaction.
    return "CAST(EXTRACT(EPOCH FROM clock_timestamp()) AS DOUBLE PRECISION)"


@compiles(database_now, "mysql")
@compiles(database_now, "mariadb")
def _now_mysql(element: Any, compiler: Any, **kw: Any) -> str:
    # UNIX_TIMESTAMP() of a local time is ambiguous in the hour when summer time ends.
    return "(TIMESTAMPDIFF(MICROSECOND, '1970-01-01', UTC_TIMESTAMP(6)) / 1e6)"


class ManualClock:
    """A clock that stands still until it is moved: with it a lease ends in a test without anybody waiting.

    Attributes
    ----------
    now : float
        Seconds since 1970-01-01 UTC. It may be set at any time: statements that were made before see it too.
    """

    def __init__(self, now: float = 1.0e9) -> None:
        self.now = now

    def __call__(self) -> ColumnElement[float]:
        """Return the time as a parameter that takes its value when the statement runs."""
        return bindparam("now", callable_=lambda: self.now, type_=Double(), unique=True)

    def advance(self, seconds: float) -> None:
        """Move the clock on."""
        self.now += seconds
