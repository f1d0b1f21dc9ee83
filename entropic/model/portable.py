"""Typed values as JSON can hold them, and back: how they travel to workers and lie in sidecars, whatever the database.

A value goes through SQLAlchemy's own type for SQLite, which has a text or a number for every type there is.
"""

from __future__ import annotations

import functools
import math
from base64 import b64decode, b64encode
from collections.abc import Callable
from datetime import timedelta
from decimal import Decimal
from typing import Any

from sqlalchemy import Column, Dialect

from entropic.model.coercion import is_float, kind_of

__all__ = ["Convert", "dumper", "loader"]

Convert = Callable[[Any], Any]

_BARE = frozenset({"bool", "int", "float", "str", "json"})  # kinds whose typed values JSON holds as they are


@functools.cache
def _portable() -> Dialect:
    """Return the dialect that has a text or a number for every type of SQLAlchemy's."""
    from sqlalchemy.dialects import sqlite

    return sqlite.dialect()


def dumper(column: Column[Any]) -> Convert:
    """Return the function that makes of a typed value of *column* what JSON can hold."""
    kind = kind_of(column)
    if kind in _BARE:
        return _dump_bare
    portable = _portable()
    bind = column.type.dialect_impl(portable).bind_processor(portable)

    def dump(value: Any) -> Any:
        if value is None:
            return None
        if isinstance(value, float) and not math.isfinite(value):
            return str(value)
        if isinstance(value, Decimal):
            return str(value)
        if isinstance(value, timedelta) and kind == "timedelta":
            return value // timedelta(microseconds=1)  # SQLite's own form ends with the year 9999
        bound = bind(value) if bind else value
        return {"base64": b64encode(bound).decode()} if isinstance(bound, bytes) else bound

    return dump


def loader(column: Column[Any]) -> Convert:
    """Return the function that makes the typed value again of what `dumper`'s has made."""
    kind = kind_of(column)
    if is_float(column):
        return _load_float
    if kind in _BARE:
        return _same
    portable = _portable()
    result = column.type.dialect_impl(portable).result_processor(portable, None)

    def load(value: Any) -> Any:
        if value is None:
            return None
        if kind == "decimal":
            return Decimal(value)
        if kind == "timedelta" and isinstance(value, int):
            return timedelta(microseconds=value)
        if isinstance(value, dict) and set(value) == {"base64"}:
            value = b64decode(value["base64"])
        return result(value) if result else value

    return load


def _dump_bare(value: Any) -> Any:
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


def _load_float(value: Any) -> Any:
    return float(value) if isinstance(value, str) else value


def _same(value: Any) -> Any:
    return value
