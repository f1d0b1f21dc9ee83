"""The database's clock."""

from __future__ import annotations

from typing import Any

from sqlalchemy import (
    Double,
)
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.expression import FunctionElement

__all__ = ["database_now"]


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
