"""What annotations say of the values inside a JSON parameter."""

from __future__ import annotations

import collections
import datetime
import enum
from collections.abc import Collection, Iterable, Mapping, Sequence
from decimal import Decimal
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, Literal, NamedTuple, NewType, NotRequired, Protocol, TypedDict, TypeVar

import numpy as np
import pytest
from sqlalchemy import JSON, Numeric
from sqlalchemy.dialects import sqlite
from typing_extensions import TypeAliasType

from entropic import Base, Mapped, ParameterError, Store, mapped_column, param
from entropic.model.contents import contents_of
from entropic.model.refused import Refused
from tests.support.naming import shown
from tests.support.values import Point


class Scheme(enum.Enum):
    EULER = 1
    RK4 = 4


class Span(NamedTuple):
    start: float
    shape: tuple[int, int] = (1, 1)


class Options(TypedDict):
    tol: float
    where: NotRequired[Path]


class Partly(TypedDict):
    """Some of its annotations only type checkers can read."""

    tol: float
    mesh: OnlyForTypeCheckers  # noqa: F821
    meshes: NotRequired[list[OnlyForTypeCheckers | Path]]  # noqa: F821
    array: NotRequired[OnlyForTypeCheckers[int]]  # noqa: F821


class PartlyToo(NamedTuple):
    mesh: OnlyForTypeCheckers  # noqa: F821
    tol: float


def local_class() -> Any:
    class Inner(TypedDict):
        tol: float

    class Outer(TypedDict):
        tol: float
        inner: Inner

    return Outer


class Unasked(Protocol):
    """Which no value is asked for, as nobody says that it can be when the program runs."""

    def __float__(self) -> float: ...


class Day(datetime.date):
    """A day of a calendar of its own."""


Kelvin = NewType("Kelvin", float)
T, U = TypeVar("T"), TypeVar("U")
Seconds = TypeAliasType("Seconds", float)  # as `type Seconds = float` says it, which Python 3.11 cannot read
Pairs = TypeAliasType("Pairs", dict[U, list[T]], type_params=(T, U))
DAY = datetime.date(2026, 1, 2)
NOON = datetime.datetime(2026, 1, 2, 12)
ARRAY = np.arange(2)


def exactly(value: Any) -> Any:
    """Return *value* with the types of all that is in it."""
    if isinstance(value, dict):
        return type(value), [(exactly(k), exactly(v)) for k, v in value.items()]
    if isinstance(value, list | tuple):
        return type(value), [exactly(item) for item in value]
    if isinstance(value, set | frozenset):
        return type(value), sorted(map(exactly, value), key=repr)
    return type(value), value


@pytest.mark.parametrize(
    ("annotation", "given", "got"),
    [
        (list[float], [0, np.float32(0.5), Decimal(2)], [0.0, 0.5, 2.0]),
        (list[float], (0, 1), [0.0, 1.0]),
        (list[Seconds], [1], [1.0]),
        (Pairs[int, str], {"a": (1.0,)}, {"a": [1]}),
        (list[Pairs[float, int]], [{1.0: [2]}], [{1: [2.0]}]),
        (list, (1, (2,)), [1, (2,)]),
        (tuple, [1, [2]], (1, [2])),
        (tuple[float, float], (0, 1), (0.0, 1.0)),
        (tuple[int, ...], [1.0, 2], (1, 2)),
        (tuple[Path, ...], ["a", PurePosixPath("b")], (Path("a"), Path("b"))),
        (tuple[()], [], ()),
        (list[datetime.date], [DAY], [DAY]),
        (list[datetime.date], [Day(2026, 1, 2)], [DAY]),
        (list[datetime.time], [datetime.time(1, fold=1)], [datetime.time(1)]),
        (list[datetime.datetime], [NOON], [NOON.replace(tzinfo=datetime.UTC)]),
        (list[Decimal], ["1.5", Decimal(1)][1:], [Decimal("1.000000000000")]),
        (list[Annotated[Decimal, Numeric(10, 2)]], [Decimal("1.5")], [Decimal("1.50")]),
        (dict[str, Scheme], {"a": Scheme.RK4, "b": "EULER"}, {"a": Scheme.RK4, "b": Scheme.EULER}),
        (dict[int, list[float]], {1.0: [1]}, {1: [1.0]}),
        (Mapping[str, float], {"a": 1}, {"a": 1.0}),
        (dict[str, float], collections.OrderedDict(a=1), collections.OrderedDict(a=1.0)),
        (set[float], {1, 2}, {1.0, 2.0}),
        (frozenset[str], {"a"}, frozenset({"a"})),
        (Sequence[float], (1, 2), (1.0, 2.0)),
        (Sequence[float], [1, 2], [1.0, 2.0]),
        (Iterable[float], (1,), (1.0,)),
        (Collection[float], [1], [1.0]),
        (list[float | None], [1, None], [1.0, None]),
        (list[int | float], [1, 2.0], [1, 2.0]),
        (list[int | float], [np.int64(1), np.float64(1.5), np.float64(2)], [1, 1.5, 2.0]),
        (list[str | Path], [np.str_("a")], ["a"]),
        (
            list[datetime.datetime | int],
            [np.datetime64("2026-01-02T12")],
            [NOON.replace(tzinfo=datetime.UTC)],
        ),
        (list[str | Path], ["a", Path("b")], ["a", Path("b")]),
        (list[int | Path], ["a", 1], [Path("a"), 1]),
        (list[list[float] | np.ndarray], [[1], ARRAY], [[1.0], ARRAY]),
        (list[tuple[int, int] | int], [(1, 2), 3], [(1, 2), 3]),
        (list[Literal[1, "a", Scheme.RK4]], [1, "a", Scheme.RK4], [1, "a", Scheme.RK4]),
        (list[Literal[1, "a"]], [np.int64(1), np.str_("a")], [1, "a"]),
        (list[Unasked | None], [1.5, None], [1.5, None]),
        (list[Any], [(1,), "a", None], [(1,), "a", None]),
        (list[Kelvin], [1], [1.0]),
        (list[Point], [Point(1, 2)], [Point(1, 2)]),
        (list[complex], [1j], [1j]),
        (Span, [1, [2, 3]], Span(1.0, (2, 3))),
        (list[Span], [Span(1, (2, 3))], [Span(1.0, (2, 3))]),
        (Options, {"tol": 1}, {"tol": 1.0}),
        (Partly, {"tol": 1, "mesh": 2}, {"tol": 1.0, "mesh": 2}),
        (
            Partly,
            {"tol": 1, "mesh": (2,), "meshes": ["a", 1], "array": [1]},
            {"tol": 1.0, "mesh": (2,), "meshes": ["a", 1], "array": [1]},
        ),
        (list[PartlyToo], [("a", 1)], [PartlyToo("a", 1.0)]),
        (local_class(), {"tol": 1, "inner": {"tol": 1}}, {"tol": 1.0, "inner": {"tol": 1}}),
        (list[Options], [{"tol": 1, "where": "a"}], [{"tol": 1.0, "where": Path("a")}]),
    ],
    ids=shown,
)
def test_items_are_converted_as_parameters_of_their_type_are(annotation, given, got):
    assert str(exactly(contents_of(annotation, sqlite.dialect())(given))) == str(exactly(got))


@pytest.mark.parametrize(
    ("annotation", "given", "words"),
    [
        (list[float], [1.0, "2"], "[1] must be a number, not '2' (str)"),
        (list[float], [True], "[0] must be a number, not True"),
        (list[float], [None], "[0] is None, which its annotation does not say"),
        (list[float], "abc", " must be a list, not 'abc' (str)"),
        (list[float], ARRAY, " must be a list, not array([0, 1]) (ndarray)"),
        (list[int], [1.5], "[0] must be an integer"),
        (list[str], [Path("a"), 1], "[1] must be a string, not 1"),
        (list[Path], [1], "[0] must be a string"),
        (list[datetime.date], [NOON], "[0] must be a date, not a datetime"),
        (list[list[float]], [[1.0], [2.0, float("nan")]], "[1][1] is NaN"),
        (dict[str, Scheme], {"a": "NOPE"}, "['a'] must be one of Scheme."),
        (dict[str, int], [1], " must be a dict, not [1] (list)"),
        (dict[int, int], {1: 1, 1.5: 2}, "[1.5] must be an integer"),
        (tuple[int, int], (1, 2, 3), " must have 2 items, not 3"),
        (tuple[int, int], 5, " must be a tuple, not 5"),
        (Iterable[float], iter([1.0]), " is an iterator, which can be read once only: pass list(...)"),
        (set[int], [1], " must be a set, not [1] (list)"),
        (list[Literal[1]], [True], "[0] must be one of 1, not True (bool)"),
        (list[Literal[1]], [np.bool_(True)], "[0] must be one of 1, not True (bool)"),
        (list[int | float], [Decimal(1)], "[0] may become more than one of int, float"),
        (list[int] | list[str], [1, "a"], " must be one of list[int], list[str], not [1, 'a'] (list)"),
        (Literal["auto"] | int, "x", " must be one of Literal['auto'], int, not 'x' (str)"),
        (list[int | str], [Scheme], "[0] must be one of int, str, not"),
        (list[float | None], ["a"], "[0] must be a number"),
        (list[complex], [1], "[0] must be a complex, not 1"),
        (Span, [1.0], " must have 2 items, not 1"),
        (Options, {"where": "a"}, " needs 'tol', as Options says"),
        (Options, {"tol": 1.0, "tl": 2}, " has 'tl', which Options has not; it has: tol, where"),
        (list[Options], [{"tol": "x"}], "[0]['tol'] must be a number"),
        (Partly, {"tol": "x", "mesh": 2}, "['tol'] must be a number"),
        (Partly, {"tol": 1}, " needs 'mesh', as Partly says"),
    ],
    ids=shown,
)
def test_items_are_refused_with_their_place_as_parameters_of_their_type_are(annotation, given, words):
    cast = contents_of(annotation, sqlite.dialect())

    with pytest.raises(Refused) as caught:
        cast(given)

    assert f"{''.join(reversed(caught.value.steps))} {caught.value}".startswith(words)


def test_refusal_names_the_place_of_an_int_that_python_does_not_write():
    large = 10**5000
    for annotation, given, place in [
        (list[int], [1, large], "[1]"),
        (dict[str, list[int]], {"a": [large]}, "['a'][0]"),
        (dict[str, int], {large: 1}, "[0x31e2"),
        (dict[str, int], [large], ""),
    ]:
        with pytest.raises(Refused) as caught:
            contents_of(annotation, sqlite.dialect())(given)
        assert "".join(reversed(caught.value.steps)).startswith(place)


def test_nothing_that_was_given_is_changed():
    given = {"a": [1, 2], "b": [3]}

    got = contents_of(dict[str, list[float]], sqlite.dialect())(given)

    assert str(given) == "{'a': [1, 2], 'b': [3]}"
    assert str(got) == "{'a': [1.0, 2.0], 'b': [3.0]}"


class Typed(Base):
    __tablename__ = "typed_contents"
    floats: Mapped[list[float]]
    days: Mapped[dict[str, datetime.date]] = mapped_column(JSON)
    paths: Mapped[tuple[Path, ...]]
    options: Mapped[Options | None]
    either: Mapped[int | str] = param(default="x")
    schemes: Mapped[set[Scheme]] = param(default={Scheme.EULER})
    point: Mapped[Point]


GIVEN = {
    "floats": [1, 2.5],
    "days": {"a": datetime.date(2026, 1, 2)},
    "paths": ["a.csv", Path("b")],
    "options": None,
    "point": Point(1, 2),
}


def write(params: dict[str, Any]) -> None:
    Path(params["result_file"]).write_text(repr({name: params[name] for name in Typed.__annotations__}))


def test_columns_of_a_model_type_what_is_inside_as_parameters_of_a_function_do(database, tmp_path):
    store = Store(write, Typed, tmp_path / "results", ".txt", database)

    record = store.run_or_retrieve(GIVEN)

    got = {
        **GIVEN,
        "floats": [1.0, 2.5],
        "paths": (Path("a.csv"), Path("b")),
        "either": "x",
        "schemes": {Scheme.EULER},
    }
    assert Path(record.result_file).read_text() == repr({name: got[name] for name in Typed.__annotations__})
    assert store.run_or_retrieve({**got, "either": "x"}).id == record.id
    for name, bad, words in [
        ("floats", ["1"], r"Typed\.floats\[0\] must be a number"),
        ("days", {"a": 1}, r"Typed\.days\['a'\] must be a date"),
        ("paths", [1], r"Typed\.paths\[0\] must be a string"),
        ("options", {}, r"Typed\.options needs"),
        ("either", 1.5, r"Typed\.either must be one of int, str"),
        ("schemes", [1], r"Typed\.schemes must be a set"),
    ]:
        with pytest.raises(ParameterError, match=words):
            store.run_or_retrieve({**GIVEN, name: bad})
    assert len(store.records()) == 1
