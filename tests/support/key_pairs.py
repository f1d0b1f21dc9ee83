"""Pairs of parameter values that are easily taken for each other, or for different ones, and what they must be.

Values are expressions, so that the documentation shows what is tested: `python -m tests.support.key_pairs` writes the
table of `docs/explanation/keys.md`.
"""

from __future__ import annotations

import collections
import dataclasses
import datetime
import decimal
import enum
import fractions
import functools
import itertools
import pathlib
import sys
import threading
import types
import uuid
import zoneinfo
from collections.abc import Iterator
from datetime import date, time, timedelta, timezone
from decimal import Decimal
from typing import Any

import attrs
import numpy as np
import pandas as pd
import pydantic
import pydantic_core
from sqlalchemy import JSON

from entropic import Base, Mapped, mapped_column, param
from tests.support.key_rows import ROWS

PAGE = pathlib.Path(__file__).parents[2] / "docs" / "explanation" / "keys.md"
BEGIN, END = "<!-- pairs: begin -->\n", "<!-- pairs: end -->\n"

LEFT_OUT = "—"

SAME, DIFFERENT, ERROR, UNHASHABLE = "same", "different", "ParameterError", "UnhashableParamError"

#: CODATA 2022, in SI units; names as the table shows them.
CONSTANTS = {
    "Planck constant": 6.62607015e-34,
    "reduced Planck constant": 1.054571817e-34,
    "electron mass": 9.1093837139e-31,
    "electron mass, CODATA 2018": 9.1093837015e-31,
    "Thomson cross section": 6.6524587051e-29,
    "proton mass": 1.67262192595e-27,
    "proton mass, CODATA 2018": 1.67262192369e-27,
    "neutron mass": 1.67492750056e-27,
    "Bohr magneton": 9.2740100657e-24,
    "Boltzmann constant": 1.380649e-23,
    "elementary charge": 1.602176634e-19,
    "Hartree energy": 4.3597447222060e-18,
    "classical electron radius": 2.8179403205e-15,
    "vacuum permittivity": 8.8541878188e-12,
    "gravitational constant": 6.67430e-11,
}


class Colour(enum.Enum):
    RED = "red"
    ROUGE = "red"
    BLUE = "blue"


class Flag(enum.Enum):
    RED = "red"


class Scheme(enum.Enum):
    FAST = "rk4"


class Shade(enum.StrEnum):
    RED = "red"


class Level(enum.IntEnum):
    LOW = 1


class Tag(str):
    __slots__ = ()


class Metres(float):
    __slots__ = ()


class Holiday(date):
    def __str__(self) -> str:
        return "a holiday"


class Quantity:
    """As libraries of units have it: a number and a unit that its text shows."""

    def __init__(self, value: float, unit: str) -> None:
        self.value, self.unit = value, unit

    def __str__(self) -> str:
        return f"{self.value} {self.unit}"


class Silent:
    """An object whose repr is an address."""


class Samples:
    """A container whose text elides."""

    def __len__(self) -> int:
        return 3

    def __str__(self) -> str:
        return "Samples(...)"


@dataclasses.dataclass
class Rk4:
    dt: float
    order: int = 4


@dataclasses.dataclass
class Euler:
    dt: float
    order: int = 4


@attrs.define
class Mesh:
    cells: int


@attrs.define
class Grid:
    cells: int


class Settings(pydantic.BaseModel):
    dt: float


class Options(pydantic.BaseModel):
    dt: float


Point = collections.namedtuple("Point", "x y")


class Access(enum.Flag, boundary=enum.KEEP):
    READ = 1
    WRITE = 2


@dataclasses.dataclass
class Select:
    """Holds anything."""

    where: Any


@dataclasses.dataclass
class Spaced:
    """Made from more than its fields."""

    n: int
    length: dataclasses.InitVar[float] = 1.0

    def __post_init__(self, length: float) -> None:
        self.dx = length / self.n


@dataclasses.dataclass
class Halved:
    """Has attributes that its fields determine."""

    n: int
    half: float = dataclasses.field(init=False)

    def __post_init__(self) -> None:
        self.half = self.n / 2

    @functools.cached_property
    def squared(self) -> int:
        return self.n**2


@dataclasses.dataclass
class Guarded:
    """Holds what cannot be compared."""

    n: int

    def __post_init__(self) -> None:
        self.lock = threading.Lock()


@attrs.define
class Rescaled:
    cells: int = attrs.field(converter=int)


class Secret(pydantic.BaseModel):
    dt: float
    _count: int = pydantic.PrivateAttr(0)


class Open(pydantic.BaseModel, extra="allow"):
    dt: float = 0.0


def marked(value: Any) -> Any:
    """Return *value* with an attribute that is no field."""
    value.mark = 1
    return value


def counted(value: Any) -> Any:
    """Return *value* with another private attribute."""
    value._count = 5
    return value


def read_once(value: Any) -> Any:
    """Return *value*, which has kept its cached property."""
    assert value.squared
    return value


def with_attrs(values: Any, **attributes: Any) -> Any:
    """Return a pandas object with attributes of its own."""
    values.attrs = attributes
    return values


def daily(freq: str | None) -> pd.Series:
    """Return a Series of three days, whose index knows its frequency or not."""
    index = pd.date_range("2026", periods=3, freq="D")
    return pd.Series([1, 2, 3], index=pd.DatetimeIndex(index, freq=freq) if freq else index._with_freq(None))


def dated(freq: Any) -> pd.Series:
    """Return a Series of three days, whose index has a frequency."""
    return pd.Series([1, 2, 3], index=pd.date_range("2026-02-02", periods=3, freq=freq))


def nested(depth: int) -> list[Any]:
    """Return lists in lists."""
    values: list[Any] = []
    for _ in range(depth - 1):
        values = [values]
    return values


def changed(values: Any, place: Any, value: Any) -> Any:
    """Return a copy of an array, Series or DataFrame in which one element is another."""
    copy = values.copy()
    if isinstance(copy, np.ndarray):
        copy[place] = value
    else:
        copy.iloc[place] = value
    return copy


def cyclic() -> list[Any]:
    """Return a list that contains itself."""
    values: list[Any] = [1]
    values.append(values)
    return values


def read_only(values: np.ndarray) -> np.ndarray:
    """Return *values*, which nobody can write to any more."""
    values.flags.writeable = False
    return values


NAMES: dict[str, Any] = {
    name: value
    for name, value in globals().items()
    if isinstance(value, type) or (isinstance(value, types.FunctionType) and not name.startswith("_"))
} | {
    "np": np,
    "UTC": datetime.UTC,
    "pd": pd,
    "sys": sys,
    "collections": collections,
    "types": types,
    "uuid": uuid,
    "datetime": datetime.datetime,
    "timezone": timezone,
    "Fraction": fractions.Fraction,
    "Path": pathlib.Path,
    "PurePosixPath": pathlib.PurePosixPath,
    "ZoneInfo": zoneinfo.ZoneInfo,
    "TzInfo": pydantic_core.TzInfo,
    "context": decimal.Context(prec=40),
}

#: What each column is declared as.
COLUMNS: dict[str, tuple[Any, Any]] = {
    "float": (Mapped[float], {}),
    "float | None": (Mapped[float | None], {}),
    "float = 0.3": (Mapped[float], {"default": 0.3}),
    "float | None = 0.5": (Mapped[float | None], {"default": 0.5}),
    "int": (Mapped[int], {}),
    "int | None": (Mapped[int | None], {}),
    "int = 5": (Mapped[int], {"default": 5}),
    "bool": (Mapped[bool], {}),
    "bool = False": (Mapped[bool], {"default": False}),
    "str": (Mapped[str], {}),
    "str | None": (Mapped[str | None], {}),
    "str = 'rk4'": (Mapped[str], {"default": "rk4"}),
    "datetime": (Mapped[datetime.datetime], {}),
    "datetime = datetime(2026, 1, 2)": (
        Mapped[datetime.datetime],
        {"default": datetime.datetime(2026, 1, 2)},
    ),
    "date": (Mapped[date], {}),
    "date = date(2026, 1, 2)": (Mapped[date], {"default": date(2026, 1, 2)}),
    "time": (Mapped[time], {}),
    "timedelta": (Mapped[timedelta], {}),
    "Decimal": (Mapped[Decimal], {}),
    "Decimal = Decimal('0.3')": (Mapped[Decimal], {"default": Decimal("0.3")}),
    "Colour (an Enum)": (Mapped[Colour], {}),
    "Colour = Colour.RED": (Mapped[Colour], {"default": Colour.RED}),
    "UUID": (Mapped[uuid.UUID], {}),
    "bytes": (Mapped[bytes], {}),
    "dict (JSON)": (Mapped[dict], {}),
    "list (JSON)": (Mapped[list], {}),
    "Any (JSON)": (Mapped[Any], {"type_": JSON(none_as_null=True), "nullable": False}),
    "dict = {'tol': 0.3}": (Mapped[dict], {"default": {"tol": 0.3}}),
    "dict[str, float]": (Mapped[dict[str, float]], {}),
    "list[int]": (Mapped[list[int]], {}),
}


@dataclasses.dataclass(frozen=True)
class Pair:
    """Two values of one parameter.

    Attributes
    ----------
    column : str
        Key in `COLUMNS`.
    left, right : str
        Expressions, or `LEFT_OUT`.
    outcome : str
        ``"same"``, ``"different"``, or the name of the error that *right* raises.
    reason : str
        Why.
    elsewhere : dict
        Outcome on a dialect on which it is another one, by the dialect's name.
    """

    column: str
    left: str
    right: str
    outcome: str
    reason: str
    elsewhere: dict[str, str] = dataclasses.field(default_factory=dict)

    @property
    def label(self) -> str:
        """The pair in one line."""
        return f"{self.column}: {self.left} / {self.right}"

    def values(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """Return both values as parameters named ``x``; empty where it is left out."""
        return _parameters(self.left), _parameters(self.right)


def _parameters(expression: str) -> dict[str, Any]:
    return {} if expression == LEFT_OUT else {"x": eval(expression, dict(NAMES))}


def _constants() -> Iterator[Pair]:
    for (one, left), (other, right) in itertools.combinations(CONSTANTS.items(), 2):
        yield Pair("float", repr(left), repr(right), DIFFERENT, f"{one}, {other}")
    for name, value in CONSTANTS.items():
        yield Pair("float", repr(value), "0.0", DIFFERENT, f"{name}, nothing")


PAIRS = [*(Pair(*row) for row in ROWS), *_constants()]


@functools.cache
def model_of(column: str) -> type[Base]:
    """Return a model whose parameter ``x`` is declared as *column*; ``pair`` keeps the pairs apart."""
    annotation, options = COLUMNS[column]
    declare = param if "default" in options else mapped_column
    number = list(COLUMNS).index(column)
    body = {
        "__module__": __name__,
        "__tablename__": f"pairs_{number}",
        "__annotations__": {"pair": Mapped[int], "x": annotation},
        "x": declare(options["type_"], nullable=False) if "type_" in options else declare(**options),
    }
    return type(f"Pairs{number}", (Base,), body)


def table() -> str:
    """Return all pairs as Markdown: a table for each column."""
    parts = []
    for column in COLUMNS:
        rows = [pair for pair in PAIRS if pair.column == column]
        if rows:
            lines = [
                f"### `{column}`",
                "",
                "| one value | another | outcome | why |",
                "|---|---|---|---|",
                *(
                    f"| {_code(pair.left)} | {_code(pair.right)} | {_outcome(pair)} | {pair.reason} |"
                    for pair in rows
                ),
                "",
            ]
            parts.append("\n".join(lines) + "\n")
    return "".join(parts)


def _code(expression: str) -> str:
    return "left out" if expression == LEFT_OUT else "`" + expression.replace("|", "\\|") + "`"


def _outcome(pair: Pair) -> str:
    def shown(outcome: str) -> str:
        return f"`{outcome}`" if outcome in {ERROR, UNHASHABLE} else outcome

    others = [f"; on {dialect} {shown(outcome)}" for dialect, outcome in pair.elsewhere.items()]
    return shown(pair.outcome) + "".join(others)


def page(text: str) -> str:
    """Return *text*, the page, with the table of today's pairs in its place."""
    head, rest = text.split(BEGIN)
    _, tail = rest.split(END)
    return f"{head}{BEGIN}\n{table()}{END}{tail}"


if __name__ == "__main__":
    PAGE.write_text(page(PAGE.read_text("utf-8")), "utf-8")
