"""Typed values as JSON can hold them, and back: how they travel to workers and lie in sidecars, whatever the database.

A value goes through SQLAlchemy's own type for SQLite, which has a text or a number for every type there is.
"""

from __future__ import annotations

import functools
import math
from base64 import b64decode, b64encode
from datetime import timedelta
from decimal import Decimal
from typing import Any

from sqlalchemy import Column, Dialect

from entropic.model.coercion import is_float, kind_of

__all__ = ["dump_value", "load_value"]

_BARE = frozenset({"bool", "int", "float", "str", "json"})  # kinds whose typed values JSON holds as they are


@functools.cache
def _portable() -> Dialect:
    """Return the dialect that has a text or a number for every type of SQLAlchemy's."""
    from sqlalchemy.dialects import sqlite

    return sqlite.dialect()


def dump_value(column: Column[Any], value: Any) -> Any:
    """Return a typed value of *column* as JSON can hold it."""
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if value is None or kind_of(column) in _BARE:
        return value
    if isinstance(value, Decimal):
        return str(value)
    if isinstance(value, timedelta) and kind_of(column) == "timedelta":
        return value // timedelta(microseconds=1)  # SQLite's own form ends with the year 9999
    portable = _portable()
    bind = column.type.dialect_impl(portable).bind_processor(portable)
    bound = bind(value) if bind else value
    return {"base64": b64encode(bound).decode()} if isinstance(bound, bytes) else bound


def load_value(column: Column[Any], value: Any) -> Any:
    """Return the typed value of which `dump_value` made *value*."""
    if is_float(column) and isinstance(value, str):
        return float(value)
    if value is None or (kind := kind_of(column)) in _BARE:
        return value
    if kind == "decimal":
        return Decimal(value)
    if kind == "timedelta" and isinstance(value, int):
        return timedelta(microseconds=value)
    if isinstance(value, dict) and set(value) == {"base64"}:
        value = b64decode(value["base64"])
    portable = _portable()
    result = column.type.dialect_impl(portable).result_processor(portable, None)
    return result(value) if result else value
