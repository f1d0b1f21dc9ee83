"""What each column takes, and as what; the pairs of `key_pairs` go through a Store, these ask the caster."""

from __future__ import annotations

import enum
import math
import pickle
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal, localcontext
from fractions import Fraction
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    Column,
    Date,
    DateTime,
    Enum,
    Float,
    Integer,
    Interval,
    LargeBinary,
    Numeric,
    PickleType,
    SmallInteger,
    String,
    Text,
    Time,
    TypeDecorator,
    Uuid,
)
from sqlalchemy.dialects import mysql, postgresql, sqlite

from entropic.errors import UnhashableParamError
from entropic.model.coercion import caster, kind_of
from entropic.model.refused import Refused
from entropic.sql.columns import TYPES
from tests.support import strategies
from tests.support.every_type import Colour
from tests.support.naming import shown

SQLITE, POSTGRES, MYSQL = sqlite.dialect(), postgresql.dialect(), mysql.dialect()

quick = settings(deadline=None, max_examples=50)


def cast(kind: Any, value: Any, dialect: Any = SQLITE, *, nullable: bool = False) -> Any:
    return caster(Column("x", kind, nullable=nullable), dialect)(value)


def same(one: Any, other: Any) -> bool:
    return type(one) is type(other) and one == other


# None


@pytest.mark.parametrize("python", [*TYPES, Colour, bool], ids=lambda python: python.__name__)
def test_none_is_taken_by_a_nullable_column_only(python):
    kind = TYPES.get(python, Enum(Colour) if python is Colour else Boolean())

    assert cast(kind, None, nullable=True) is None
    with pytest.raises(Refused, match="not nullable"):
        cast(kind, None)


# Numbers


@pytest.mark.parametrize("value", [1, 1.0, np.int8(1), np.float32(1), Decimal(1), np.array(1)])
def test_float_column_makes_a_number_a_float(value):
    assert same(cast(Float(), value), 1.0)


@quick
@given(strategies.floats)
def test_float_column_keeps_a_float_and_has_one_zero(value):
    got = cast(TYPES[float], value)

    assert got == value
    assert math.copysign(1, got) == (1 if value == 0 else math.copysign(1, value))


@pytest.mark.parametrize("value", [True, np.True_, "1", b"1", None, [1], 1j, Colour.BLUE, 10**400, math.nan])
def test_float_column_refuses_what_is_no_number(value):
    with pytest.raises(Refused):
        cast(Float(), value)


def test_infinity_is_taken_where_the_dialect_has_one():
    assert [cast(TYPES[float], -math.inf, dialect) for dialect in (SQLITE, POSTGRES)] == [
        -math.inf,
        -math.inf,
    ]
    with pytest.raises(Refused, match="this database cannot hold"):
        cast(TYPES[float], math.inf, MYSQL)


@pytest.mark.parametrize(
    ("kind", "dialect", "bits"),
    [
        (TYPES[int], SQLITE, 64),
        (TYPES[int], POSTGRES, 64),
        (TYPES[int], MYSQL, 64),
        (SmallInteger(), SQLITE, 64),
        (SmallInteger(), MYSQL, 16),
        (Integer(), POSTGRES, 32),
        (BigInteger(), MYSQL, 64),
    ],
)
def test_int_column_takes_what_its_bits_hold(kind, dialect, bits):
    low, high = -(2 ** (bits - 1)), 2 ** (bits - 1) - 1

    assert (cast(kind, low, dialect), cast(kind, high, dialect)) == (low, high)
    for beyond in (low - 1, high + 1):
        with pytest.raises(Refused, match=f"{bits} bits"):
            cast(kind, beyond, dialect)


@quick
@given(st.floats(-(2.0**62), 2.0**62))
def test_int_column_takes_a_float_only_if_it_is_integral(value):
    if value.is_integer():
        assert same(cast(TYPES[int], value), int(value))
    else:
        with pytest.raises(Refused, match="must be an integer"):
            cast(TYPES[int], value)


@pytest.mark.parametrize(("value", "got"), [(0, False), (1, True), (np.True_, True), (np.int8(0), False)])
def test_bool_column_takes_bools_0_and_1(value, got):
    assert cast(Boolean(), value) is got


@pytest.mark.parametrize("value", [2, 1.0, "True", Colour.RED])
def test_bool_column_refuses_all_else(value):
    with pytest.raises(Refused, match="must be True or False"):
        cast(Boolean(), value)


@quick
@given(st.decimals(-(10**17), 10**17, places=12))
def test_decimal_column_keeps_what_it_holds_in_any_context(value):
    with localcontext() as context:
        context.prec = 3

        got = cast(TYPES[Decimal], value)

    assert got == value
    assert got.as_tuple().exponent == -12


@pytest.mark.parametrize(("kind", "value"), [(Numeric(4, 2), 123), (TYPES[Decimal], 10**18)])
def test_decimal_column_refuses_more_digits_than_it_has(kind, value):
    with pytest.raises(Refused, match="digits"):
        cast(kind, value)


def test_numeric_column_of_floats_has_its_scale_and_refuses_more():
    assert same(cast(Numeric(8, 2, asdecimal=False), 1.25), 1.25)
    assert same(cast(Numeric(8, 2, asdecimal=False), 0.1 + 0.2), 0.3)
    with pytest.raises(Refused, match="more than the column's 2 decimals"):
        cast(Numeric(8, 2, asdecimal=False), 1.239)


@pytest.mark.parametrize(
    ("kind", "value", "dialect", "words"),
    [
        (mysql.TINYINT(), 128, MYSQL, "does not fit the column's 8 bits"),
        (mysql.TINYINT(unsigned=True), 256, MYSQL, "does not fit the column's 8 bits without a sign"),
        (mysql.TINYINT(unsigned=True), -1, MYSQL, "does not fit the column's 8 bits without a sign"),
        (mysql.MEDIUMINT(), 2**23, MYSQL, "24 bits"),
        (mysql.INTEGER(unsigned=True), 2**32, MYSQL, "32 bits without a sign"),
        (Integer().with_variant(mysql.TINYINT(), "mysql"), 200, MYSQL, "8 bits"),
        (BigInteger(), 2**63, MYSQL, r"64 bits: declare it as a Numeric\(40, 0\)"),
        (Float(), 0.1, MYSQL, "single precision of the column"),
        (postgresql.REAL(), 1e300, POSTGRES, "single precision of the column"),
        (Text(), "é" * 40_000, MYSQL, "has 80000 bytes, but the column holds 65535"),
        (mysql.TINYTEXT(), "a" * 256, MYSQL, "has 256 bytes, but the column holds 255"),
        (LargeBinary(), bytes(70_000), MYSQL, "has 70000 bytes, but the column holds 65535"),
        (String(3), "abcd", MYSQL, r"declare it as a String\(4\)"),
        (Interval(), timedelta(days=3_000_000), SQLITE, "cannot be stored: date value out of range"),
        (Interval(), timedelta(days=-800_000), SQLITE, "cannot be stored: date value out of range"),
        (TYPES[timedelta], timedelta.max, MYSQL, "more microseconds than 64 bits hold"),
        (
            TYPES[Decimal],
            Decimal("6.62607015e-34"),
            SQLITE,
            r"12 decimals: .* declare it as a Numeric\(43, 42\)",
        ),
        (TYPES[Decimal], Decimal("1e20"), SQLITE, r"30 digits, 12 of them decimals.* Numeric\(21, 0\)"),
        (
            Numeric(40, 0),
            Decimal("12345678901234567"),
            SQLITE,
            r"15 digits, or more decimals, than SQLite keeps in a Numeric column.* Numeric\(17, 0\)",
        ),
        (Numeric(40, 0), Decimal("1e30"), SQLITE, r"Numeric\(31, 0\)"),
        (Numeric(), Decimal("1e-11"), SQLITE, r"Numeric\(16, 11\)"),
        (Numeric(), Decimal("0.5"), MYSQL, r"column's 0 decimals.* Numeric\(2, 1\)"),
        (Numeric(5), Decimal("0.5"), POSTGRES, r"column's 0 decimals.* Numeric\(2, 1\)"),
        (TYPES[Decimal], Decimal("1e-31"), MYSQL, "12 decimals: .* declare it as a string"),
        (TYPES[Decimal], Decimal("1e66"), MYSQL, "30 digits, .* declare it as a string"),
        *[(kind, Decimal("sNaN"), SQLITE, "NaN") for kind in (Float(), Integer(), TYPES[Decimal])],
    ],
    ids=shown,
)
def test_value_that_is_wider_than_its_column_is_refused_with_what_would_hold_it(kind, value, dialect, words):
    with pytest.raises(Refused, match=words):
        cast(kind, value, dialect)


@pytest.mark.parametrize(
    ("kind", "value", "dialect"),
    [
        (mysql.TINYINT(), -128, MYSQL),
        (mysql.TINYINT(unsigned=True), 255, MYSQL),
        (mysql.BIGINT(unsigned=True), 2**64 - 1, MYSQL),
        (Float(), 0.5, MYSQL),
        (Float(53), 0.1, MYSQL),
        (Float(), 0.1, POSTGRES),
        (TYPES[float], 0.1, MYSQL),
        (Float(), 0.1, SQLITE),
        (mysql.MEDIUMTEXT(), "a" * 70_000, MYSQL),
        (TYPES[bytes], bytes(70_000), MYSQL),
        (Interval(), timedelta(days=3_000_000), POSTGRES),
        (Numeric(40, 0), Decimal("12345678901234567"), POSTGRES),
        (Numeric(), Decimal("1e-10"), SQLITE),
        (Numeric(15, 0), Decimal(10**15 - 1), SQLITE),
    ],
    ids=shown,
)
def test_value_that_its_column_just_holds_is_taken(kind, value, dialect):
    assert cast(kind, value, dialect) == value


# Text


def test_string_column_is_as_long_as_the_database_holds():
    long = "é" * 300

    assert cast(TYPES[str], long) == cast(TYPES[str], long, POSTGRES) == long
    assert cast(TYPES[str], "é" * 255, MYSQL) == "é" * 255
    with pytest.raises(Refused, match="300 characters, but the column holds 255"):
        cast(TYPES[str], long, MYSQL)
    with pytest.raises(Refused, match="the column holds 5"):
        cast(String(5), "123456", POSTGRES)
    assert cast(Text(), long * 1000, POSTGRES) == long * 1000


@pytest.mark.parametrize("value", ["a\0", "\ud800", 1, b"a", ["a"]])
def test_string_column_refuses_what_not_every_database_holds(value):
    with pytest.raises(Refused):
        cast(TYPES[str], value)


# Times


@quick
@given(st.datetimes(datetime(1, 1, 2), datetime(9999, 12, 30), timezones=st.timezones() | st.none()))
def test_datetime_column_makes_every_time_utc(value):
    got = cast(TYPES[datetime], value)

    assert got.tzinfo is UTC
    # Python calls times of two zones unequal where one of them comes twice; their difference is 0 all the same.
    assert got - (value if value.tzinfo else value.replace(tzinfo=UTC)) == timedelta(0)


@pytest.mark.parametrize(
    "value",
    [
        date(2026, 1, 2),
        time(1, 2, 3, 4),
        timedelta(-3, 4, 5),
        datetime(2026, 1, 2, tzinfo=UTC),
        UUID(int=7),
        b"a",
        Decimal("1.500000000000"),
        "a",
        3,
        0.5,
    ],
    ids=lambda value: type(value).__name__,
)
@pytest.mark.parametrize("dialect", [SQLITE, POSTGRES, MYSQL], ids=["sqlite", "postgresql", "mysql"])
def test_column_makes_its_plain_value_of_a_subclass(value, dialect):
    class Special(type(value)):
        def __str__(self):
            return "special"

    if isinstance(value, UUID):
        given = Special(int=value.int)
    elif isinstance(value, date | time | timedelta):
        given = Special(*value.__reduce__()[1])
    else:
        given = Special(value)
    assert isinstance(given, Special)

    assert same(cast(TYPES.get(type(value), Date), given, dialect), value)


@pytest.mark.parametrize("dialect", [SQLITE, POSTGRES, MYSQL], ids=["sqlite", "postgresql", "mysql"])
def test_fold_that_tells_nothing_apart_is_left_out(dialect):
    hour = datetime(2026, 10, 25, 1, 30, tzinfo=ZoneInfo("Europe/London"))  # which comes twice
    later = hour.replace(fold=1)

    assert cast(TYPES[time], time(1, fold=1), dialect).fold == 0
    assert cast(DateTime(), datetime(2026, 1, 2, fold=1), dialect).fold == 0
    assert cast(TYPES[datetime], datetime(2026, 1, 2, fold=1, tzinfo=UTC), dialect).fold == 0
    assert cast(TYPES[datetime], later, dialect) - cast(TYPES[datetime], hour, dialect) == timedelta(hours=1)


@pytest.mark.parametrize("dialect", [SQLITE, MYSQL], ids=["sqlite", "mysql"])
def test_datetime_column_of_the_users_refuses_a_zone_that_it_would_drop(dialect):
    with pytest.raises(Refused, match=r"time zone.*Mapped\[datetime\]"):
        cast(DateTime(), datetime(2026, 1, 2, tzinfo=UTC), dialect)
    assert cast(DateTime(), datetime(2026, 1, 2), dialect) == datetime(2026, 1, 2)


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        (DateTime(), datetime(2026, 1, 2, 0, 0, 0, 1)),
        (Time(), time(1, 2, 3, 4)),
        (Interval(), timedelta(microseconds=1)),
    ],
)
def test_column_of_the_users_on_mysql_refuses_microseconds_that_it_would_drop(kind, value):
    with pytest.raises(Refused, match="microseconds"):
        cast(kind, value, MYSQL)
    assert cast(kind, value) == value


@pytest.mark.parametrize(
    ("python", "value", "got"),
    [
        (datetime, pd.Timestamp(2026, 1, 2), datetime(2026, 1, 2, tzinfo=UTC)),
        (datetime, np.datetime64("2026-01-02"), datetime(2026, 1, 2, tzinfo=UTC)),
        (timedelta, pd.Timedelta("1h"), timedelta(hours=1)),
        (timedelta, np.timedelta64(5, "ms"), timedelta(milliseconds=5)),
    ],
)
@pytest.mark.parametrize("dialect", [SQLITE, POSTGRES, MYSQL], ids=["sqlite", "postgresql", "mysql"])
def test_time_column_takes_the_times_of_numpy_and_pandas(python, value, got, dialect):
    assert same(cast(TYPES[python], value, dialect), got)


@pytest.mark.parametrize(
    ("python", "value"),
    [
        (datetime, pd.NaT),
        (datetime, np.datetime64("NaT", "s")),
        (datetime, np.datetime64(1, "ns")),
        (datetime, date(2026, 1, 2)),
        (datetime, datetime.min.replace(tzinfo=timezone(timedelta(hours=1)))),
        (timedelta, np.timedelta64(1, "ns")),
        (timedelta, np.timedelta64(1, "Y")),
        (timedelta, pd.NaT),
        (timedelta, 5),
        (time, time(1, tzinfo=UTC)),
        (time, datetime(2026, 1, 2)),
        (date, datetime(2026, 1, 2)),
        (date, np.datetime64("2026-01-02T05")),
    ],
)
def test_time_column_refuses_what_it_would_change(python, value):
    kind = {**TYPES, date: Date()}[python]

    with pytest.raises(Refused):
        cast(kind, value)


@pytest.mark.parametrize("kind", [*(TYPES[one] for one in (datetime, timedelta, time)), Date()], ids=repr)
def test_missing_time_of_pandas_is_refused_as_what_it_is(kind):
    with pytest.raises(Refused, match="is NaT, which is no time; use None in a nullable column"):
        cast(kind, pd.NaT)


# Everything else


def test_json_column_gives_the_normal_form():
    assert cast(TYPES[dict], {"a": (1, np.float32(0.5)), "b": {2, 1}}) == {
        "a": [1, 0.5],
        "b": {"__set__": [1, 2]},
    }


@pytest.mark.parametrize(("value", "path"), [({"a": math.nan}, r"\['a'\]"), ([1, [math.inf]], r"\[1\]\[0\]")])
def test_json_column_refuses_nan_and_says_where(value, path):
    with pytest.raises(Refused, match=path):
        cast(JSON(), value)


def test_enum_column_takes_members_and_their_names():
    assert cast(Enum(Colour), Colour.BLUE) is Colour.BLUE
    assert cast(Enum(Colour), "BLUE") is Colour.BLUE


@pytest.mark.parametrize("value", ["blue", 2, "red", object()])
def test_enum_column_refuses_all_else(value):
    with pytest.raises(Refused, match=r"must be one of Colour\.\w+, "):
        cast(Enum(Colour), value)


class Crossed(enum.StrEnum):
    LEFT = "RIGHT"
    RIGHT = "left"


def test_text_that_is_one_members_name_and_anothers_value_is_refused():
    assert [cast(Enum(Crossed), one) for one in ("LEFT", "left", *Crossed)] == [
        Crossed.LEFT,
        Crossed.RIGHT,
        *Crossed,
    ]
    with pytest.raises(Refused, match="is 'RIGHT', which is the name of a member and the value of another"):
        cast(Enum(Crossed), "RIGHT")


def test_enum_column_of_strings_takes_its_strings():
    assert cast(Enum("a", "b"), "a") == "a"
    with pytest.raises(Refused, match="must be one of 'a', 'b', not 'c'"):
        cast(Enum("a", "b"), "c")


class Kelvin(TypeDecorator[float]):
    """Of a user's: degrees Celsius in Python, kelvin in the table."""

    impl = Float
    cache_ok = True

    def process_bind_param(self, value, dialect):
        return None if value is None else float(value) + 273.15

    def process_result_value(self, value, dialect):
        return None if value is None else round(value - 273.15, 6)


def test_type_of_the_users_gives_what_its_column_would_give_back():
    assert cast(Kelvin(), "20.0000001") == 20.0
    with pytest.raises(Refused, match="could not convert"):
        cast(Kelvin(), "warm")


def test_pickle_column_gives_an_equal_value():
    assert cast(PickleType(pickler=pickle), {"a": (1, 2)}) == {"a": (1, 2)}


@pytest.mark.parametrize("python", list(TYPES), ids=lambda python: python.__name__)
@pytest.mark.parametrize("dialect", [SQLITE, POSTGRES, MYSQL], ids=["sqlite", "postgresql", "mysql"])
def test_refusal_of_a_stranger_shows_it_and_its_type(python, dialect):
    class Stranger:
        pass

    with pytest.raises((Refused, UnhashableParamError), match="Stranger"):
        cast(TYPES[python], Stranger(), dialect)


@pytest.mark.parametrize("kind", [TYPES[int], TYPES[float], TYPES[Decimal], TYPES[str], Date(), Boolean()])
@pytest.mark.parametrize(
    "value", [10**5000, [10**5000], Fraction(10**5000, 7)], ids=["int", "list", "Fraction"]
)
def test_refusal_shows_a_value_of_more_digits_than_python_writes(kind, value):
    with pytest.raises(Refused, match="0x"):
        cast(kind, value)


@pytest.mark.parametrize(
    "value", [Decimal("1e999999999"), Decimal("-1e500"), Decimal("sNaN"), Decimal("inf")]
)
def test_decimal_that_is_no_integer_of_any_column_is_refused_at_once(value):
    with pytest.raises(Refused, match="must be an integer, not "):
        cast(TYPES[int], value)


def test_combination_of_flags_is_refused_with_what_would_take_it():
    class Access(enum.Flag):
        READ = 1
        WRITE = 2

    kind = Enum(Access)

    assert cast(kind, Access.READ) is Access.READ
    with pytest.raises(Refused, match=r"give it a name in the class, or .* annotated as set\[Access\]"):
        cast(kind, Access.READ | Access.WRITE)


def test_refusal_shows_a_long_value_in_short():
    with pytest.raises(Refused) as caught:
        cast(Float(), "x" * 1000)

    assert len(str(caught.value)) < 120


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        *((kind, python.__name__.lower()) for python, kind in TYPES.items() if python not in (dict, list)),
        *((kind, "json") for kind in (TYPES[dict], TYPES[list], JSON())),
        *((Float(), "float"), (Float(asdecimal=True), "decimal"), (Numeric(), "decimal")),
        *((Numeric(asdecimal=False), "float"), (Integer(), "int"), (String(5), "str"), (Text(), "str")),
        *((Enum(Colour), "enum"), (Boolean(), "bool"), (Date(), "date"), (Time(), "time"), (Uuid(), "uuid")),
        *(
            (Interval(), "timedelta"),
            (LargeBinary(), "bytes"),
            (DateTime(), "datetime"),
            (Kelvin(), "Kelvin"),
        ),
    ],
)
def test_kind_of_a_column_is_the_same_in_every_release_of_sqlalchemy(kind, name):
    assert kind_of(Column("x", kind)) == name
