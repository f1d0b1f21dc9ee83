"""From a value as the user gave it to the value that a column holds, before anything runs.

`caster` makes, for one column and dialect, a function that returns the typed value or raises `Refused` with the
reason. What a column would change or lose silently is refused, so that two values which the runner could tell apart
never become one row.
"""

from __future__ import annotations

import enum
import functools
import math
import struct
import sys
from collections.abc import Callable, Collection
from datetime import date, time, timedelta
from decimal import ROUND_HALF_EVEN, Context, Decimal, InvalidOperation
from fractions import Fraction
from pathlib import PurePath
from typing import Any
from uuid import UUID

from sqlalchemy import (
    JSON,
    Boolean,
    Column,
    Date,
    DateTime,
    Dialect,
    Enum,
    Float,
    Integer,
    Interval,
    LargeBinary,
    Numeric,
    String,
    Time,
    TypeDecorator,
    Uuid,
)
from sqlalchemy.exc import StatementError

from entropic.display.hints import did_you_mean
from entropic.display.text import described, written
from entropic.model.refused import Refused
from entropic.model.times import plain_time, refuse_lossy_time
from entropic.sql.capacity import Capacity
from entropic.sql.columns import (
    ByteString,
    Choice,
    ExactDecimal,
    FiniteJSON,
    GoneMember,
    LongBytes,
    MicroTime,
    UTCDateTime,
    texts_of,
)
from entropic.sql.limits import is_deeper, json_levels
from entropic.sql.widths import (
    DECIMAL_DIGITS,
    SQLITE_DIGITS,
    Digits,
    byte_limit,
    decimals_of,
    int_range,
    integers_of,
    is_single_precision,
    most_digits,
    significant_digits,
    widths,
)
from entropic.values.hashing import exact, normalise
from entropic.values.plain import non_finite

__all__ = [
    "Caster",
    "caster",
    "holds",
    "is_float",
    "kind_of",
    "plain_scalar",
    "require_held",
    "require_levels",
    "within",
]

Caster = Callable[[Any], Any]

_MYSQL = frozenset({"mysql", "mariadb"})
_LONGEST = 400  # decimal digits of an integer, and no column has so many

# Some drivers bind one thing and give back another, but in the end these are what they were.
_ITSELF = (date, time, timedelta, UUID, bytes)

_KINDS: list[tuple[tuple[type[Any], ...], str]] = [  # the first that fits: an Enum is a String to SQLAlchemy
    ((Choice, Enum), "enum"),
    ((ByteString, String), "str"),
    ((FiniteJSON, JSON), "json"),
    ((Boolean,), "bool"),
    ((Integer,), "int"),
    ((ExactDecimal, Numeric, Float), "decimal"),
    ((UTCDateTime, DateTime), "datetime"),
    ((Date,), "date"),
    ((MicroTime, Time), "time"),
    ((Interval,), "timedelta"),
    ((LongBytes, LargeBinary), "bytes"),
    ((Uuid,), "uuid"),
]


def is_float(column: Column[Any]) -> bool:
    """Whether *column* holds floats."""
    return isinstance(column.type, Float) and not column.type.asdecimal


def kind_of(column: Column[Any]) -> str:
    """Name the kind of value that *column* holds; SQLAlchemy 2.0 and 2.1 do not agree on a type's ``python_type``."""
    kind: Any = column.type
    if isinstance(kind, (Float, Numeric)) and not kind.asdecimal:
        return "float"
    return _kind_of_class(type(kind))  # type: ignore[arg-type]  # to mypy no class can be hashed


@functools.lru_cache(maxsize=256)
def _kind_of_class(type_: type) -> str:
    return next((name for classes, name in _KINDS if issubclass(type_, classes)), type_.__name__)


NOT_NULLABLE = "but the column is not nullable: pass a value, or annotate it as ... | None"


def caster(column: Column[Any], dialect: Dialect) -> Caster:
    """Return the function that brings a value to the type of *column*; it raises `Refused`."""
    cast = _cast_not_null(column, dialect)

    def cast_or_null(value: Any) -> Any:
        if value is None:
            if column.nullable:
                return None
            raise Refused(f"is None, {NOT_NULLABLE}")
        return cast(value)

    return cast_or_null


def within(capacity: Capacity | None, column: Column[Any], dialect: Dialect) -> Caster:
    """Return the `caster` of a column whose table is there, and perhaps holds less than its model says."""
    cast = caster(column, dialect)
    if capacity is None or not capacity.is_narrow or kind_of(column) == "json":
        return cast

    def cast_within(value: Any) -> Any:
        typed = cast(value)
        if (reason := _refusal(capacity, column, dialect, typed)) is not None:
            raise Refused(reason)
        return typed

    return cast_within


def holds(capacity: Capacity, column: Column[Any], dialect: Dialect, typed: Any) -> bool:
    """Whether a column that is there can hold a typed value."""
    return _refusal(capacity, column, dialect, typed) is None


def _refusal(capacity: Capacity, column: Column[Any], dialect: Dialect, typed: Any) -> str | None:
    bind = column.type.dialect_impl(dialect).bind_processor(dialect)
    return capacity.refusal(typed, bind(typed) if bind else typed)


def require_held(capacity: Capacity, document: Any) -> None:
    """Raise `Refused` unless a JSON column holds a *document*."""
    if (reason := capacity.refusal_of_document(document)) is not None:
        raise Refused(reason)


def require_levels(document: Any, dialect: Dialect) -> None:
    """Raise `Refused` if a *document* has more levels than JSON in the database, which is asked once it is known."""
    levels = json_levels(dialect)
    if levels is not None and is_deeper(document, levels - 1):  # one more has the attempt, of all parameters
        raise Refused(f"is nested deeper than the {levels - 1} levels that JSON in this database has for it")


def _cast_not_null(column: Column[Any], dialect: Dialect) -> Caster:
    kind: Any = column.type
    if isinstance(kind, Choice):
        kind = kind.enum  # which takes only what is a choice now
    if is_float(column):
        has_infinity = dialect.name not in _MYSQL
        return _float_caster(has_infinity=has_infinity, is_single=is_single_precision(kind, dialect))
    if isinstance(kind, Integer):
        return _int_caster(*int_range(kind, dialect))
    if isinstance(kind, Boolean):
        return _bool
    if isinstance(kind, ByteString) or (isinstance(kind, String) and not isinstance(kind, Enum)):
        elastic = dialect.name == "sqlite" or (dialect.name == "postgresql" and isinstance(kind, ByteString))
        return _str_caster(None if elastic else kind.length, byte_limit(kind, dialect))
    if isinstance(kind, FiniteJSON | JSON):
        return _json
    if isinstance(kind, ExactDecimal):
        return _decimal_caster(Digits(kind.precision, kind.scale), dialect)
    if isinstance(kind, Numeric):
        return _numeric_caster(kind, dialect)
    if isinstance(kind, Enum) and kind.enum_class is not None:
        return _member_caster(kind.enum_class, texts_of(kind), _round_trip(kind, dialect))
    return _round_trip(kind, dialect)


def _member_caster(enum_class: Any, known: Collection[str], cast: Caster) -> Caster:
    """Return *cast*, which also takes members of *enum_class* as it was defined before or since, as in a notebook."""
    members = enum_class.__members__
    ambiguous = {
        name for name, member in members.items() for one in enum_class if one == name and one is not member
    }

    def cast_member(value: Any) -> Any:
        class_ = type(value)
        if class_ is GoneMember:
            raise Refused(f"is {value!r}: no run can be asked for with it, but its rows can be read")
        if class_ is enum_class and value.name in known:
            return value
        if class_ is str and value in ambiguous:
            raise Refused(
                f"is {value!r}, which is the name of a member and the value of another: pass the member itself"
            )
        if (
            class_ is enum_class
            or not isinstance(value, enum.Enum)
            or _full_name(class_) != _full_name(enum_class)
        ):
            return cast(value)
        member = enum_class.__members__.get(value.name)
        if member is None or member.value != value.value:
            raise Refused(
                f"is {described(value)}, but {class_.__qualname__} was another class when the table was defined, "
                f"{'without this member' if member is None else f'where {value.name} was {member.value!r}'}: define "
                "the function or the model again"
            )
        return member

    return cast_member


def _full_name(class_: type) -> str:
    return f"{class_.__module__}.{class_.__qualname__}"


def _scalar(value: Any) -> Any:
    """Return the Python scalar of a NumPy one, or of an array of no dimensions; other values as they are."""
    numpy = sys.modules.get("numpy")
    if numpy is not None and (
        isinstance(value, numpy.generic) or (isinstance(value, numpy.ndarray) and value.shape == ())
    ):
        return value.item()
    return value


def plain_scalar(value: Any) -> Any:
    """Return the Python scalar of a NumPy one that is no time; other values, and arrays, as they are."""
    numpy = sys.modules.get("numpy")
    if numpy is not None and isinstance(value, numpy.generic) and value.dtype.kind in "biufcSU":
        return value.item()
    return value


def _float_caster(*, has_infinity: bool, is_single: bool) -> Caster:
    def cast(value: Any) -> float:
        if type(value) is not float:
            value = _float(value)
        if value - value == 0.0:  # finite
            if is_single:
                _require_single(value)
            return float(value) if value else 0.0  # -0.0 is 0.0
        if value != value:
            raise Refused("is NaN, which is equal to nothing and no key; use None in a nullable column")
        if not has_infinity:
            raise Refused(f"is {value}, which this database cannot hold; use None in a nullable column")
        return float(value)

    return cast


def _require_single(value: float) -> None:
    try:
        if struct.unpack("f", struct.pack("f", value))[0] == value:
            return
    except OverflowError:
        pass
    raise Refused(
        f"has more digits than the single precision of the column: {described(value)}; declare it as a Double, which "
        "Mapped[float] is"
    )


def _float(value: Any) -> float:
    value = _scalar(value)
    if isinstance(value, bool | enum.Enum) or not isinstance(value, int | float | Decimal | Fraction):
        raise Refused(f"must be a number, not {described(value)}")
    try:
        return float(value)
    except OverflowError:
        raise Refused(
            f"is too large for a double: {described(value)}; annotate it as Decimal, or as int"
        ) from None
    except ValueError:
        raise Refused(f"is NaN, which is equal to nothing and no key: {described(value)}") from None


def _int_caster(low: int, high: int) -> Caster:
    bits = (high - low).bit_length()

    def cast(value: Any) -> int:
        if type(value) is not int:
            value = _int(value)
        if not low <= value <= high:
            sign = "bits" if low else "bits without a sign"
            raise Refused(
                f"is {written(value)}, which does not fit the column's {bits} {sign}: declare it as a Numeric(40, 0) "
                "of SQLAlchemy's, as in Annotated[int, Numeric(40, 0)], or as a str"
            )
        return int(value)

    return cast


def _int(value: Any) -> int:
    value = _scalar(value)
    if isinstance(value, bool | enum.Enum) or not isinstance(value, int | float | Decimal | Fraction):
        raise Refused(f"must be an integer, not {described(value)}")
    if isinstance(value, Decimal):
        # Of one with a large exponent the digits alone would fill the memory.
        is_endless = not value.is_finite() or value.adjusted() > _LONGEST
    else:
        is_endless = isinstance(value, float) and not math.isfinite(value)
    if is_endless or value != int(value):
        raise Refused(f"must be an integer, not {described(value)}")
    return int(value)


def _bool(value: Any) -> bool:
    value = _scalar(value)
    if isinstance(value, enum.Enum) or not isinstance(value, int) or value not in (0, 1):
        raise Refused(f"must be True or False, not {described(value)}")
    return bool(value)


def _str_caster(limit: int | None, most_bytes: int | None) -> Caster:
    def cast(value: Any) -> str:
        if type(value) is not str:
            value = _str(value)
        if not value.isascii():
            try:
                value.encode("utf-8")
            except UnicodeEncodeError:
                raise Refused(
                    f"is no valid Unicode: {described(value)}; pass bytes, or what is left of it by errors='replace'"
                ) from None
        if "\0" in value:
            raise Refused(
                f"holds a NUL character, which a text column cannot: {described(value)}; pass bytes"
            )
        if limit is not None and len(value) > limit:
            raise Refused(
                f"has {len(value)} characters, but the column holds {limit}: declare it as a String({len(value)}) or "
                "a longer one"
            )
        if most_bytes is not None and len(value) > most_bytes // 4 and len(value.encode()) > most_bytes:
            raise Refused(
                f"has {len(value.encode())} bytes, but the column holds {most_bytes}: use a LONGTEXT"
            )
        return str(value)

    return cast


def _str(value: Any) -> str:
    if isinstance(value, enum.Enum):
        value = value.value
    if isinstance(value, PurePath):
        return str(value)
    if not isinstance(value, str):
        raise Refused(f"must be a string, not {described(value)}; write str(...) if its text is meant")
    return str.__str__(value)


def _json(value: Any) -> Any:
    plain = normalise(value, exact)
    if (path := non_finite(plain)) is not None:
        raise Refused(f"holds NaN or an infinity at {path}, which JSON cannot; use None or a string")
    return plain


def _numeric_caster(kind: Any, dialect: Dialect) -> Caster:
    if dialect.name != "sqlite":
        cast = _decimal_caster(widths(kind, dialect).digits, dialect)
        return cast if kind.asdecimal else lambda value: float(cast(value))
    # SQLite makes a double of a decimal, of which SQLAlchemy reads so many decimals.
    limit = None if kind.precision is None else Digits(kind.precision, kind.scale or 0)
    exact = _decimal_caster(limit, dialect)
    if not kind.asdecimal:
        return lambda value: float(exact(value))
    implementation = kind.dialect_impl(dialect)
    bind, result = implementation.bind_processor(dialect), implementation.result_processor(dialect, None)

    def cast_to_double(value: Any) -> Decimal:
        number: Decimal = exact(value)
        kept: Decimal = result(bind(number))
        is_kept = significant_digits(number) <= SQLITE_DIGITS and kept == number
        if not is_kept and not isinstance(value, float):
            raise Refused(
                f"has more than the {SQLITE_DIGITS} digits, or more decimals, than SQLite keeps in a Numeric column "
                f"of this width: {described(value)}; {_wider(number, dialect, at_least=SQLITE_DIGITS + 1)}"
            )
        return kept

    return cast_to_double


def _decimal_caster(limit: Digits | None, dialect: Dialect) -> Caster:
    context = Context(prec=DECIMAL_DIGITS if limit is None else limit.precision)

    def cast(value: Any) -> Decimal:
        value = _scalar(value)
        if isinstance(value, bool | enum.Enum) or not isinstance(value, int | float | Decimal):
            raise Refused(f"must be a number, not {described(value)}")
        number = Decimal(repr(value)) if isinstance(value, float) else Decimal(value)
        if not number.is_finite():
            raise Refused(f"must be finite, not {described(value)}")
        if limit is None:
            return number if number else number.copy_abs()
        try:
            rounded = number.quantize(
                Decimal(1).scaleb(-limit.scale), rounding=ROUND_HALF_EVEN, context=context
            )
        except InvalidOperation:
            raise Refused(
                f"has more than the column's {limit.precision} digits, {limit.scale} of them decimals: "
                f"{described(value)}; {_wider(number, dialect)}"
            ) from None
        # Of a float, digits that the key rounds away were never meant.
        is_kept = (
            math.isclose(rounded, value, rel_tol=1e-9) if isinstance(value, float) else rounded == number
        )
        if not is_kept:
            raise Refused(
                f"has more than the column's {limit.scale} decimals: {described(value)}; {_wider(number, dialect)}"
            )
        return rounded if rounded else rounded.copy_abs()  # no negative zero

    return cast


def _wider(number: Decimal, dialect: Dialect, *, at_least: int = 1) -> str:
    """Say what column would hold *number*, of those that the database has."""
    decimals = decimals_of(number)
    digits = max(at_least, max(1, integers_of(number)) + decimals)
    most = most_digits(dialect)
    if digits > most.precision or decimals > most.scale:
        return "declare it as a string, and give its text, or as a float"
    return f"declare it as a Numeric({digits}, {decimals}) or a wider one, or as a string, and give its text"


def _round_trip(kind: Any, dialect: Dialect) -> Caster:
    """Return a caster for any other type: what the column would give back."""
    implementation = kind.dialect_impl(dialect)
    bind = implementation.bind_processor(dialect)
    result = implementation.result_processor(dialect, None)
    ours = isinstance(kind, UTCDateTime | LongBytes | MicroTime | Interval)
    foreign = isinstance(kind, TypeDecorator) and not ours
    wanted = None if foreign or isinstance(kind, Enum) else _python_type(kind)
    most_bytes = None if isinstance(kind, LongBytes) else byte_limit(kind, dialect)
    is_date = isinstance(kind, Date)

    def cast(value: Any) -> Any:
        value = plain_time(value, is_date=is_date)
        if wanted is not None and not isinstance(value, wanted):
            is_text = isinstance(value, str) and hasattr(wanted, "fromisoformat")
            hint = f"; write {wanted.__name__}.fromisoformat({value!r})" if is_text else ""
            raise Refused(f"must be a {wanted.__name__}, not {described(value)}{hint}")
        refuse_lossy_time(kind, dialect, value)
        if wanted is bytes and most_bytes is not None and len(value) > most_bytes:
            raise Refused(f"has {len(value)} bytes, but the column holds {most_bytes}: use Mapped[bytes]")
        try:
            bound = bind(value) if bind else value
            if wanted in _ITSELF:
                return _itself(value, bound, wanted)
            return result(bound) if result else bound
        except (StatementError, TypeError, ValueError, LookupError, AttributeError, OverflowError) as error:
            if isinstance(kind, Enum):
                raise Refused(_no_choice(kind, value)) from None
            raise Refused(
                f"cannot be stored: {error}, of {described(value)}; pass another value, or annotate it as what can, "
                "such as float or str"
            ) from error

    return cast


def _no_choice(kind: Enum, value: Any) -> str:
    """Say what would be a choice of an Enum or a Literal, and which of them may have been meant."""
    class_ = kind.enum_class
    if class_ is None:
        hint = did_you_mean(value, kind.enums) if isinstance(value, str) else ""
        return f"must be one of {', '.join(map(repr, kind.enums))}, not {described(value)}{hint}"
    names = [f"{class_.__name__}.{name}" for name in kind.enums]
    meant = [
        f"{class_.__name__}.{m.name}" for m in class_ if type(m.value) is type(value) and m.value == value
    ]
    hint = did_you_mean(value, kind.enums) if isinstance(value, str) else ""
    hint = f"; did you mean {meant[0]}?" if meant else hint
    if issubclass(class_, enum.Flag) and isinstance(value, class_):
        hint = f"; give it a name in the class, or pass its members to a parameter annotated as set[{class_.__name__}]"
    return f"must be one of {', '.join(names)}, not {described(value)}{hint}"


def _itself(value: Any, bound: Any, wanted: type[Any]) -> Any:
    """Return what a column gives back as it was, once it is sure that it can be held; of a subclass its plain value."""
    if wanted is timedelta and isinstance(bound, int) and bound.bit_length() > 63:
        raise OverflowError(f"{described(value)} has more microseconds than 64 bits hold")
    if wanted is time:  # of which no column keeps the fold
        return time(value.hour, value.minute, value.second, value.microsecond)
    if type(value) is wanted:
        return value
    if wanted is date:
        return date(value.year, value.month, value.day)
    if wanted is timedelta:
        return timedelta(value.days, value.seconds, value.microseconds)
    return UUID(int=value.int) if wanted is UUID else wanted(value)


def _python_type(kind: Any) -> type[Any] | None:
    try:
        python_type: type[Any] = kind.python_type
    except NotImplementedError:
        return None
    return python_type
