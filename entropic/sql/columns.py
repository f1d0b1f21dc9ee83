"""Column types that mean the same on every database, and the base of the library's own tables."""

from __future__ import annotations

import hashlib
import math
import sys
from datetime import UTC, datetime, time, timedelta
from decimal import Context, Decimal
from typing import Any
from uuid import UUID

from sqlalchemy import (
    DECIMAL,
    JSON,
    NUMERIC,
    BigInteger,
    DateTime,
    Dialect,
    Double,
    Enum,
    Integer,
    Interval,
    LargeBinary,
    MetaData,
    Numeric,
    String,
    Text,
    Time,
    Uuid,
)
from sqlalchemy.orm import DeclarativeBase
from sqlalchemy.types import TypeDecorator, TypeEngine

from entropic.values.plain import non_finite

__all__ = [
    "ID_LENGTH",
    "LONG_TEXT",
    "NAMING",
    "TYPES",
    "AnyDouble",
    "ByteString",
    "Choice",
    "ExactDecimal",
    "FiniteJSON",
    "GoneMember",
    "LibraryBase",
    "LongBytes",
    "LongText",
    "MicroTime",
    "Microseconds",
    "UTCDateTime",
    "exact_decimal",
    "texts_of",
]


ID_LENGTH = 200


def _check_name(constraint: Any, table: Any) -> str:
    """Return the name that a CHECK was given, or one made of what it says: databases would number them."""
    name = constraint.name
    if isinstance(name, str):
        return str(name)
    return hashlib.sha256(str(constraint.sqltext).encode()).hexdigest()[:8]


NAMING: dict[str, Any] = {
    "entropic_constraint_name": _check_name,
    "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    "ck": "ck_%(table_name)s_%(entropic_constraint_name)s",
    "fk": "fk_%(table_name)s_%(column_0_N_name)s_%(referred_table_name)s",
    "pk": "pk_%(table_name)s",
}


# A dialect's own types are imported where they are needed: each dialect costs as much as a tenth of SQLAlchemy.
class ByteString(TypeDecorator[str]):
    """A string that compares bytewise: no folding of case, accents or trailing spaces.

    MariaDB's and MySQL's default collations call ``'Ab '`` and ``'ab'`` equal, even in a primary key.
    """

    impl = String
    cache_ok = True
    python_type = str

    def __init__(self, length: int = 255) -> None:
        super().__init__(length)
        self.length = length

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        if dialect.name in {"mysql", "mariadb"}:
            from sqlalchemy.dialects import mysql

            nopad = "utf8mb4_nopad_bin" if getattr(dialect, "is_mariadb", False) else "utf8mb4_0900_bin"
            return dialect.type_descriptor(mysql.VARCHAR(self.length, charset="utf8mb4", collation=nopad))
        return dialect.type_descriptor(String())  # a limit would only cut what the others hold


class UTCDateTime(TypeDecorator[datetime]):
    """A point in time, to the microsecond; naive values are taken as UTC, and what comes back is aware."""

    impl = DateTime
    cache_ok = True
    python_type = datetime

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        if dialect.name in {"mysql", "mariadb"}:
            from sqlalchemy.dialects import mysql

            return dialect.type_descriptor(mysql.DATETIME(fsp=6))
        return dialect.type_descriptor(DateTime(timezone=True))

    def process_bind_param(self, value: Any, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        if not isinstance(value, datetime):
            raise TypeError(f"a time must be a datetime, not {value!r}")
        aware = value.replace(tzinfo=UTC) if value.tzinfo is None else value
        if aware.tzinfo is not UTC:
            aware = aware.astimezone(UTC)
        return aware if dialect.name == "postgresql" else aware.replace(tzinfo=None)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


class MicroTime(TypeDecorator[time]):
    """A time of day, to the microsecond: MySQL's TIME holds seconds unless told otherwise."""

    impl = Time
    cache_ok = True
    python_type = time

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        if dialect.name in {"mysql", "mariadb"}:
            from sqlalchemy.dialects import mysql

            return dialect.type_descriptor(mysql.TIME(fsp=6))
        return dialect.type_descriptor(Time())


class Microseconds(TypeDecorator[timedelta]):
    """A duration as a number, for databases that would keep it in whole seconds."""

    impl = BigInteger
    cache_ok = True
    python_type = timedelta

    def process_bind_param(self, value: timedelta | None, dialect: Dialect) -> int | None:
        return None if value is None else value // timedelta(microseconds=1)

    def process_result_value(self, value: int | None, dialect: Dialect) -> timedelta | None:
        return None if value is None else timedelta(microseconds=value)


class FiniteJSON(TypeDecorator[Any]):
    """JSON that every database and every other reader accepts: no NaN, no infinities. ``None`` is NULL."""

    impl = JSON
    cache_ok = True

    def __init__(self) -> None:
        super().__init__(none_as_null=True)

    def __repr__(self) -> str:
        return "FiniteJSON()"  # what Alembic writes into a migration; SQLAlchemy's own would name the JSON's argument

    def process_bind_param(self, value: Any, dialect: Dialect) -> Any:
        if (path := non_finite(value)) is not None:
            raise ValueError(
                f"JSON holds no NaN or infinity, but the value at {path} is one; store None or a string"
            )
        return value


class GoneMember:
    """A member that a row names and its Enum class has no more: it was renamed or removed.

    It is equal to no member. Rows can be selected by it, or by its name; a run with it cannot be asked for.

    Attributes
    ----------
    enum_class : type
        The class, without the member.
    name : str
        What the member was called.
    """

    def __init__(self, enum_class: type, name: str) -> None:
        self.enum_class = enum_class
        self.name = name

    def __repr__(self) -> str:
        return f"<{self.enum_class.__qualname__}.{self.name}, which is gone>"

    def __str__(self) -> str:
        return f"{self.enum_class.__qualname__}.{self.name}"

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, GoneMember):
            return NotImplemented
        return (str(self), self.enum_class.__module__) == (str(other), other.enum_class.__module__)

    def __hash__(self) -> int:
        return hash(str(self))


def texts_of(kind: Enum) -> dict[str, str]:
    """Return what stands in the database for each member of an Enum, by its name; empty where that is not known."""
    members = {} if kind.enum_class is None else kind.enum_class.__members__
    names = [name for name, member in members.items() if member.name == name]
    return dict(zip(names, kind.enums, strict=True)) if len(names) == len(kind.enums) else {}


class Choice(TypeDecorator[Any]):
    """An `sqlalchemy.Enum` whose rows stay readable when its members change.

    A name that is no member's any more is read as a `GoneMember`; a string that is no choice any more, as it stands.
    Where the choices are texts to the database, case and accents count: ``m`` is not ``M``.
    """

    impl = Enum
    cache_ok = True

    def __init__(self, *choices: Any, enum: Enum | None = None, **options: Any) -> None:
        super().__init__(*choices, **options)
        self.enum: Enum = self.impl if enum is None else enum  # type: ignore[assignment]
        self.impl = self.enum  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"Choice{repr(self.impl).removeprefix('Enum')}"  # what Alembic writes into a migration

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        if dialect.name in {"mysql", "mariadb"} and not self.enum.native_enum:
            from sqlalchemy.dialects import mysql

            return dialect.type_descriptor(mysql.VARCHAR(self.enum.length, binary=True))
        return super().load_dialect_impl(dialect)

    def literal_processor(self, dialect: Dialect) -> Any:
        """Return the processor of the Enum, which knows the members, whatever the column is."""
        return self.enum.dialect_impl(dialect).literal_processor(dialect)

    def bind_processor(self, dialect: Dialect) -> Any:
        """Return a processor that takes a gone member's name, for a search and for a row that has it."""
        bind = self.enum.dialect_impl(dialect).bind_processor(dialect)
        plain = String().dialect_impl(dialect).bind_processor(dialect)
        enum_class, texts = self.enum.enum_class, texts_of(self.enum)

        def process(value: Any) -> Any:
            # By its name: SQLAlchemy looks a member up as it is, and one of a StrEnum is equal to another's name.
            text = texts.get(value.name) if type(value) is enum_class and enum_class is not None else None
            if isinstance(value, GoneMember):
                text = value.name
            if text is not None:
                return plain(text) if plain else text
            return bind(value) if bind else value

        return process

    def result_processor(self, dialect: Dialect, coltype: object) -> Any:
        """Return a processor that reads what is no choice any more."""
        result = self.enum.dialect_impl(dialect).result_processor(dialect, coltype)
        enum_class = self.enum.enum_class

        def process(value: Any) -> Any:
            try:
                return result(value) if result else value
            except LookupError:
                return value if enum_class is None else GoneMember(enum_class, value)

        return process


class ExactDecimal(TypeDecorator[Decimal]):
    """A `decimal.Decimal` of fixed scale; text on SQLite, which has no exact numbers."""

    impl = Numeric
    cache_ok = True
    python_type = Decimal

    def __init__(self, precision: int = 30, scale: int = 12) -> None:
        super().__init__(precision, scale)
        self.precision = precision
        self.scale = scale

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        if dialect.name == "sqlite":
            return dialect.type_descriptor(String())
        return dialect.type_descriptor(Numeric(self.precision, self.scale))

    def process_bind_param(self, value: Any, dialect: Dialect) -> Any:
        if value is None:
            return None
        exact = self._rounded(value)
        return str(exact) if dialect.name == "sqlite" else exact

    def process_result_value(self, value: Any, dialect: Dialect) -> Decimal | None:
        return None if value is None else self._rounded(value)

    def _rounded(self, value: Any) -> Decimal:
        # The thread's own context would refuse more than 28 digits. A double is what an older table of SQLite has.
        value = repr(value) if isinstance(value, float) else value
        return Decimal(value).quantize(Decimal(1).scaleb(-self.scale), context=Context(prec=self.precision))


def exact_decimal(kind: TypeEngine[Any], *, from_digits: int = 0) -> TypeEngine[Any]:
    """Return a type that keeps all digits on SQLite, too, for a Numeric that has that many; other types as they are."""
    if type(kind) not in (Numeric, NUMERIC, DECIMAL):
        return kind
    precision, scale, is_decimal = kind.precision, kind.scale, kind.asdecimal  # type: ignore[attr-defined]
    if not is_decimal or precision is None or precision < from_digits:
        return kind
    return ExactDecimal(precision, scale or 0)


class AnyDouble(TypeDecorator[float]):
    """A double that may be NaN or infinite on every database, in a nullable column: NULL is NaN.

    MySQL has no infinities: its largest doubles stand for them, and these themselves become their neighbours.
    """

    impl = Double
    cache_ok = True
    python_type = float

    def process_bind_param(self, value: float | None, dialect: Dialect) -> float | None:
        if value is None or value != value:
            return None
        if dialect.name in {"mysql", "mariadb"} and abs(value) >= sys.float_info.max:
            largest = sys.float_info.max if math.isinf(value) else math.nextafter(sys.float_info.max, 0)
            return math.copysign(largest, value)
        return value

    def process_result_value(self, value: float | None, dialect: Dialect) -> float | None:
        if value is None:
            return math.nan
        if dialect.name in {"mysql", "mariadb"} and abs(value) == sys.float_info.max:
            return math.copysign(math.inf, value)
        return value


class LongText(TypeDecorator[str]):
    """Text of any length: MySQL's TEXT ends at 64 kB."""

    impl = Text
    cache_ok = True
    python_type = str

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        if dialect.name in {"mysql", "mariadb"}:
            from sqlalchemy.dialects import mysql

            return dialect.type_descriptor(mysql.LONGTEXT())
        return super().load_dialect_impl(dialect)


class LongBytes(TypeDecorator[bytes]):
    """Bytes of any length: MySQL's BLOB ends at 64 kB."""

    impl = LargeBinary
    cache_ok = True
    python_type = bytes

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        if dialect.name in {"mysql", "mariadb"}:
            from sqlalchemy.dialects import mysql

            return dialect.type_descriptor(mysql.LONGBLOB())
        return super().load_dialect_impl(dialect)


LONG_TEXT = LongText()
TYPES: dict[Any, Any] = {
    int: BigInteger().with_variant(Integer(), "sqlite"),  # SQLite: only INTEGER can be a rowid
    float: Double(),  # SQLAlchemy 2.0 would say FLOAT, single precision on MySQL
    str: ByteString(),
    bytes: LongBytes(),
    datetime: UTCDateTime(),
    time: MicroTime(),
    timedelta: Interval().with_variant(Microseconds(), "mysql", "mariadb"),
    Decimal: ExactDecimal(),
    # MariaDB's own UUID refuses those of a version that it does not know.
    UUID: Uuid().with_variant(Uuid(native_uuid=False), "mysql", "mariadb"),
    dict: FiniteJSON(),
    list: FiniteJSON(),
}


class LibraryBase(DeclarativeBase):
    """Base of the library's own tables, ``entropic_*``; `migrations/` owns them, and only them."""

    metadata = MetaData(naming_convention=NAMING)
    type_annotation_map = TYPES
