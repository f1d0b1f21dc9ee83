"""How much a column of a type holds on a database: what is wider is refused before anything runs.

A server may cut or clip without a word what is too wide, if its SQL mode is lax. What a type is there, its DDL says.
"""

from __future__ import annotations

import re
from typing import Any

from sqlalchemy import Dialect
from sqlalchemy.types import TypeEngine

__all__ = ["byte_limit", "int_range", "is_single_precision"]

_MYSQL = frozenset({"mysql", "mariadb"})
_BITS = {"TINYINT": 8, "SMALLINT": 16, "MEDIUMINT": 24, "BIGINT": 64}
_BYTES = {
    prefix + kind: size for kind in ("TEXT", "BLOB") for prefix, size in (("TINY", 2**8 - 1), ("", 2**16 - 1))
}
_BYTES |= {f"MEDIUM{kind}": 2**24 - 1 for kind in ("TEXT", "BLOB")}
_DOUBLE_BITS = 24  # of a FLOAT's precision, above which it is a double


def _ddl(kind: TypeEngine[Any], dialect: Dialect) -> tuple[str, int | None, str]:
    """Return the name of a type, the number in its parentheses, and what stands after them."""
    text = kind.compile(dialect=dialect).upper()
    name, length, rest = re.fullmatch(r"(\w*)(?:\((\d+)[^)]*\))?(.*)", text, re.DOTALL).groups()  # type: ignore[union-attr]
    return name, int(length) if length else None, rest


def int_range(kind: TypeEngine[Any], dialect: Dialect) -> tuple[int, int]:
    """Return the smallest and the largest number that an integer column holds."""
    if dialect.name == "sqlite":
        return -(2**63), 2**63 - 1
    name, _, rest = _ddl(kind, dialect)
    bits = _BITS.get(name, 32)
    return (0, 2**bits - 1) if "UNSIGNED" in rest else (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)


def is_single_precision(kind: TypeEngine[Any], dialect: Dialect) -> bool:
    """Whether a column of floats keeps seven digits only."""
    name, bits, _ = ("", None, "") if dialect.name == "sqlite" else _ddl(kind, dialect)
    if name == "REAL":
        return dialect.name == "postgresql"
    # FLOAT is a double on PostgreSQL, and single on MySQL and MariaDB, unless it says how many bits it has.
    return name == "FLOAT" and (dialect.name in _MYSQL if bits is None else bits <= _DOUBLE_BITS)


def byte_limit(kind: TypeEngine[Any], dialect: Dialect) -> int | None:
    """Return how many bytes a text or binary column holds; None where that is no limit of its type's."""
    if dialect.name not in _MYSQL:
        return None
    name, length, _ = _ddl(kind, dialect)
    if name in {"VARBINARY", "BINARY"} or (name == "BLOB" and length is not None):
        return length
    return _BYTES.get(name)
