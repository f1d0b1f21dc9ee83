"""How much a column of a type holds on a database: what is wider is refused before anything runs.

A server may cut or clip without a word what is too wide, if its SQL mode is lax. What a type is there, its DDL says.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, NamedTuple

from sqlalchemy import Dialect
from sqlalchemy.types import TypeEngine

from entropic.values.hashing import rounded_apart

__all__ = [
    "DECIMAL_DIGITS",
    "MYSQL",
    "SQLITE_DIGITS",
    "Digits",
    "Widths",
    "byte_limit",
    "decimals_of",
    "int_range",
    "integers_of",
    "is_single_precision",
    "most_digits",
    "significant_digits",
    "widths",
]

MYSQL = frozenset({"mysql", "mariadb"})
DECIMAL_DIGITS = 1000  # PostgreSQL's limit, where a column declares none
SQLITE_DIGITS = 15  # of a decimal that becomes a double
_INTEGERS = frozenset({"TINYINT", "SMALLINT", "MEDIUMINT", "INTEGER", "INT", "BIGINT", "BOOL"})
_DECIMALS = frozenset({"NUMERIC", "DECIMAL"})
_TIMES = frozenset({"DATETIME", "TIME", "TIMESTAMP"})
_TEXTS = frozenset({"VARCHAR", "CHAR", "NVARCHAR", "NCHAR"})
_FULL_FRACTION = 6  # of a second: microseconds
_BITS = {"BOOL": 8, "TINYINT": 8, "SMALLINT": 16, "MEDIUMINT": 24, "BIGINT": 64}
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
    return name == "FLOAT" and (dialect.name in MYSQL if bits is None else bits <= _DOUBLE_BITS)


def byte_limit(kind: TypeEngine[Any], dialect: Dialect) -> int | None:
    """Return how many bytes a text or binary column holds; None where that is no limit of its type's."""
    if dialect.name not in MYSQL:
        return None
    name, length, _ = _ddl(kind, dialect)
    if name in {"VARBINARY", "BINARY"} or (name == "BLOB" and length is not None):
        return length
    return _BYTES.get(name)


class Digits(NamedTuple):
    """How many digits a decimal may have, and how many of them after the point."""

    precision: int
    scale: int

    def holds(self, number: Decimal) -> bool:
        """Whether *number* can be written with these digits."""
        if not number:
            return True
        return number.is_finite() and decimals_of(number) <= self.scale and integers_of(number) <= self.before

    @property
    def before(self) -> int:
        """How many digits there are before the point."""
        return self.precision - self.scale


@dataclass(frozen=True, slots=True)
class Widths:
    """What a type holds; None for what is no limit of its, or not known."""

    integers: tuple[int, int] | None = None
    digits: Digits | None = None
    significant: int | None = None
    """Digits of a decimal, wherever the point is."""
    characters: int | None = None
    most_bytes: int | None = None
    fraction: int | None = None
    """Digits of a second after the point."""

    def where_narrower_than(self, other: Widths) -> Widths:
        """Return the limits that *other* does not have as well."""
        return Widths(
            integers=None if _covers(self.integers, other.integers) else self.integers,
            digits=None if _holds_all(self.digits, other.digits) else self.digits,
            significant=_smaller(self.significant, other.significant),
            characters=_smaller(self.characters, other.characters),
            most_bytes=_smaller(self.most_bytes, other.most_bytes),
            fraction=_smaller(self.fraction, other.fraction),
        )

    def refusal(self, value: Any, bound: Any) -> str | None:
        """Say what is too wide of a typed *value*, of which *bound* goes to the database; None if nothing is."""
        number = _number(value)
        if number is not None and self.digits is not None and not self.digits.holds(number):
            return f"is {value}, which has more digits than the column"
        if (
            number is not None
            and self.significant is not None
            and significant_digits(number) > self.significant
        ):
            return f"is {value}, which has more than the {self.significant} digits of the column"
        if (
            self.integers is not None
            and isinstance(bound, int)
            and not (self.integers[0] <= bound <= self.integers[1])
        ):
            return f"is {value}, which does not fit the column"
        if self.characters is not None and isinstance(bound, str) and len(bound) > self.characters:
            return f"has {len(bound)} characters, which is too long for the column"
        if self.most_bytes is not None and isinstance(bound, str | bytes) and _size(bound) > self.most_bytes:
            return f"has {_size(bound)} bytes, which is too long for the column"
        if self.fraction is not None and _microseconds(bound) % 10 ** (_FULL_FRACTION - self.fraction):
            return f"has a fraction of a second, {value}, which is too fine for the column"
        return None


def most_digits(dialect: Dialect) -> Digits:
    """Return how many digits a decimal can be declared with."""
    if dialect.name in MYSQL:
        return Digits(65, 30)
    return Digits(DECIMAL_DIGITS, DECIMAL_DIGITS)


def widths(kind: TypeEngine[Any], dialect: Dialect, *, is_bytewise: bool = False) -> Widths:
    """Return what *kind* holds on *dialect*.

    Parameters
    ----------
    is_bytewise : bool
        Whether the database counts bytes where its types say characters.
    """
    name, number, _ = _ddl(kind, dialect)
    if dialect.name == "sqlite":  # whose columns take any value but for decimals, which become doubles
        return Widths(significant=SQLITE_DIGITS if name in _DECIMALS else None)
    if name in _INTEGERS:
        return Widths(integers=int_range(kind, dialect))
    if name in _DECIMALS:
        return Widths(digits=_decimal(kind, dialect))
    if name in _TEXTS:
        return Widths(most_bytes=number) if is_bytewise else Widths(characters=number)
    if name in _TIMES:
        no_fraction = 0 if dialect.name in MYSQL else None
        return Widths(fraction=no_fraction if number is None else number)
    return Widths(most_bytes=byte_limit(kind, dialect))


def _decimal(kind: TypeEngine[Any], dialect: Dialect) -> Digits | None:
    found = re.search(r"\((\d+)(?:, *(\d+))?\)", kind.compile(dialect=dialect))
    if found is not None:
        return Digits(int(found[1]), int(found[2] or 0))
    return Digits(10, 0) if dialect.name in MYSQL else None


def _covers(one: tuple[int, int] | None, other: tuple[int, int] | None) -> bool:
    return one is None or (other is not None and one[0] <= other[0] and other[1] <= one[1])


def _holds_all(one: Digits | None, other: Digits | None) -> bool:
    return one is None or (other is not None and other.scale <= one.scale and other.before <= one.before)


def _smaller(one: int | None, other: int | None) -> int | None:
    return one if one is not None and (other is None or one < other) else None


def _number(value: Any) -> Decimal | None:
    if isinstance(value, float):
        return Decimal(repr(rounded_apart(value)))  # further digits were never meant
    return Decimal(value) if isinstance(value, int | Decimal) and not isinstance(value, bool) else None


def decimals_of(number: Decimal) -> int:
    """Return how many digits *number* has after the point."""
    _, digits, exponent = number.as_tuple()
    zeros = len(digits) - len("".join(map(str, digits)).rstrip("0"))
    return max(0, -int(exponent) - zeros)


def integers_of(number: Decimal) -> int:
    """Return how many digits *number* has before the point."""
    return max(0, number.adjusted() + 1) if number else 0


def significant_digits(number: Decimal) -> int:
    """Return how many digits *number* has, but for zeros at its ends."""
    return len("".join(map(str, number.as_tuple().digits)).strip("0"))


def _size(text: str | bytes) -> int:
    return len(text if isinstance(text, bytes) else text.encode())


def _microseconds(value: Any) -> int:
    return int(getattr(value, "microsecond", 0) or getattr(value, "microseconds", 0))
