"""From a signature to columns, from a call to parameters, and back to a call; what cannot be kept apart is refused."""

import dataclasses
import datetime
import enum
import functools
import math
import pickle
import typing
from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, NewType, TypeVar
from uuid import UUID, uuid4

import attrs
import numpy as np
import numpy.typing as npt
import pandas as pd
import pydantic
import pytest
from sqlalchemy import Numeric, String, Text
from sqlalchemy.dialects import mysql, postgresql, sqlite
from typing_extensions import TypeAliasType

from entropic import ParameterError, SchemaError, UnhashableParamError, memoize, register_hasher
from entropic.functions.signatures import (
    Arguments,
    derive_model,
    kinds_of,
    require_function,
    returned_classes,
    table_name_of,
)
from entropic.model.annotations import Unsupported, kind_of
from entropic.model.base import Base
from entropic.model.parameters import Parameters
from entropic.values import hashing
from tests.support.naming import shown
from tests.support.values import Mesh, Point


class Scheme(enum.Enum):
    EULER = 1
    RK4 = 4


class Span(NamedTuple):
    start: float
    shape: tuple[int, int]


Kelvin = NewType("Kelvin", float)


def model_of(function, *, ignore=()):
    kinds = kinds_of(function, ignore)
    return derive_model(function, kinds, table=f"t_{uuid4().hex}", outputs={})


# Annotations

T, U = TypeVar("T"), TypeVar("U")
Seconds = TypeAliasType("Seconds", float)  # as `type Seconds = float` says it, which Python 3.11 cannot read
Maybe = TypeAliasType("Maybe", T | None, type_params=(T,))
Pairs = TypeAliasType("Pairs", dict[U, list[T]], type_params=(T, U))


@pytest.mark.parametrize(
    ("annotation", "type_", "nullable"),
    [
        (int, "BIGINT", False),
        (float, "DOUBLE PRECISION", False),
        (str, "VARCHAR", False),
        (bool, "BOOLEAN", False),
        (bytes, "BYTEA", False),
        (datetime.datetime, "TIMESTAMP WITH TIME ZONE", False),
        (datetime.date, "DATE", False),
        (datetime.time, "TIME WITHOUT TIME ZONE", False),
        (datetime.timedelta, "INTERVAL", False),
        (Decimal, "NUMERIC(30, 12)", False),
        (UUID, "UUID", False),
        (Path, "VARCHAR", False),
        (Scheme, "VARCHAR(255)", False),
        (Literal["rk4", "euler"], "VARCHAR(255)", False),
        (float | None, "DOUBLE PRECISION", True),
        (typing.Optional[str], "VARCHAR", True),  # noqa: UP045
        (Literal["rk4", None], "VARCHAR(255)", True),
        (Literal[1, "a", None], "JSON", True),
        (Kelvin, "DOUBLE PRECISION", False),
        (Annotated[float, "in metres"], "DOUBLE PRECISION", False),
        (Annotated[float, Numeric(8, 3)], "NUMERIC(8, 3)", False),
        (Annotated[str | None, String(20)], "VARCHAR(20)", True),
        (Annotated[Any, Text], "TEXT", False),
        *[
            (annotation, "JSON", False)
            for annotation in (
                list, dict, tuple, set, frozenset, list[float], dict[str, int], tuple[int, ...], set[str],
                Sequence[float], Mapping[str, float], int | str, Literal[1, 2], Span,
                np.ndarray, npt.NDArray[np.float64], Point, pd.DataFrame, Pairs[int, str], Pairs[int, float],
            )
        ],
        (Seconds, "DOUBLE PRECISION", False),
        (Maybe[float], "DOUBLE PRECISION", True),
        (Maybe[Maybe[Literal["rk4"]]], "VARCHAR(255)", True),
    ],
    ids=shown,
)  # fmt: skip
def test_annotation_makes_a_column(annotation, type_, nullable):
    def function(x):
        pass

    function.__annotations__["x"] = annotation
    column = model_of(function).__table__.c.x

    assert str(column.type.compile(postgresql.dialect())) == type_
    assert column.nullable is nullable
    for dialect in (sqlite.dialect(), mysql.dialect()):
        column.type.compile(dialect)


@pytest.mark.parametrize(
    "annotation",
    [
        Any,
        object,
        Callable[[float], float],
        Mesh,
        complex,
        range,
        typing.TypeVar("T"),
        type,
    ],
    ids=shown,
)
def test_annotation_that_makes_no_column_is_refused(annotation):
    with pytest.raises(Unsupported):
        kind_of(annotation)


@pytest.mark.parametrize("class_", [pd.Timestamp, pd.Timedelta, pd.Categorical, pd.Interval])
def test_class_of_pandas_whose_values_have_no_document_is_refused_at_once(class_, monkeypatch):
    with pytest.raises(Unsupported, match=r"write datetime or timedelta|no stable hash"):
        kind_of(class_)

    monkeypatch.setattr(hashing, "_hashers", {})
    register_hasher(class_, repr)
    assert kind_of(class_).is_json


def test_numeric_of_an_annotation_keeps_every_digit_on_every_database():
    def function(x: Annotated[Decimal, Numeric(40, 0)]):
        return x

    exact = Decimal(10**39 + 1)

    assert call(function, exact) == exact
    assert str(model_of(function).__table__.c.x.type.compile(sqlite.dialect())) == "VARCHAR"


def test_class_with_a_hasher_makes_a_column(monkeypatch):
    monkeypatch.setattr(hashing, "_hashers", {})
    register_hasher(Mesh, lambda mesh: {"cells": mesh.cells})

    assert kind_of(Mesh).is_json


# Signatures


def test_default_is_the_key_default_and_none_makes_a_column_nullable():
    def function(n: int, dt: float = 0.1, label: str = None, *, xs: list = (1, 2)):  # noqa: RUF013
        pass

    model = model_of(function)
    parameters = Parameters(model, sqlite.dialect())

    assert parameters.names == ["n", "dt", "label", "xs"]
    assert parameters.defaults == {"dt": 0.1, "label": None, "xs": [1, 2]}
    assert model.__table__.c.label.nullable
    assert not model.__table__.c.n.nullable


def test_names_that_differ_in_case_only_have_columns_that_do_not():
    def function(n: int, N: int, N_2: int):
        pass

    assert [column.name for column in model_of(function).__table__.columns][5:] == ["n", "N_2", "N_2_2"]


def test_annotations_as_text_are_evaluated_but_for_the_returned_one():
    def function(n: "int", x: "npt.NDArray[np.float64]") -> "OnlyForTypeCheckers":  # noqa: F821
        pass

    assert {name: kind.is_json for name, kind in kinds_of(function).items()} == {"n": False, "x": True}


def bare(n, dt=0.1, *, scale: float = 1.0):
    pass


def strange(
    a: Any,
    b: Mesh,
    c: "Nowhere",  # noqa: F821
    *args: int,
    d: float = print,
    id: int = 0,
    metadata: str = "",
    **more: int,
):
    pass


@pytest.mark.parametrize(
    ("function", "named"),
    [(bare, ["n", "dt"]), (strange, ["a", "b", "c", "*args", "d", "id", "metadata", "**more"])],
)
def test_parameters_that_make_no_column_are_all_named(function, named):
    with pytest.raises(TypeError, match=f"^cannot memoize {function.__name__}: ") as caught:
        kinds_of(function)

    lines = str(caught.value).splitlines()[1:]
    assert len(lines) == len(named)
    assert all(re_name in line for re_name, line in zip(named, lines, strict=True))


@pytest.mark.parametrize("text", ["Nowhere", "np.ndarry", "list[", "int[3]"])
def test_annotation_that_cannot_be_evaluated_is_named(text):
    def function(x):
        pass

    function.__annotations__ = {"x": text, "return": text}

    with pytest.raises(TypeError, match=r"the annotation of 'x', .*, cannot be evaluated: "):
        kinds_of(function)
    assert returned_classes(function) == {}


def test_ignored_parameters_need_no_annotation_but_a_default():
    def function(n: int, verbose=False, on_step=print):
        pass

    assert list(kinds_of(function, ["verbose", "on_step"])) == ["n"]
    assert model_of(function, ignore=["verbose", "on_step"]).__entropic__.ignored == {"verbose", "on_step"}


@pytest.mark.parametrize(
    ("ignore", "named"), [(["quiet"], "'quiet'"), (["n"], "'n' is ignored, so it needs a default")]
)
def test_ignoring_what_is_not_there_or_is_needed_is_refused(ignore, named):
    def function(n: int, verbose: bool = False):
        pass

    with pytest.raises(TypeError, match=named):
        kinds_of(function, ignore)


def test_ignore_is_advised_for_what_changes_no_result_only():
    def function(kernel: Callable = math.sqrt, generator: np.random.Generator = None):  # type: ignore[assignment]
        pass

    with pytest.raises(TypeError) as caught:
        kinds_of(function)

    for name in ("kernel", "generator"):
        assert f"if it changes no result, leave it out of the key, with ignore=['{name}']" in str(
            caught.value
        )


def test_default_that_is_no_value_of_its_column_is_refused():
    def function(x: float = math.nan):
        pass

    with pytest.raises(ParameterError, match=r"default of function\.x is NaN"):
        Parameters(model_of(function), sqlite.dialect())


# Calls


def call(function, *args, **kwargs):
    """Call *function* as a Store does: by parameters, typed by their columns, that travelled."""
    kinds = kinds_of(function)
    arguments = Arguments(function, kinds)
    model = derive_model(function, kinds, table=f"t_{uuid4().hex}", outputs={})
    identity = Parameters(model, sqlite.dialect()).identify(arguments.bind(args, kwargs))
    return arguments.call(function, {**identity.for_runner(), "id": identity.id, "result_file": "x"})


SENTINEL = object()


def positions(a: int, /, b: int, c: int = 3, *, d: int, e: int = 5):
    return a, b, c, d, e


def test_arguments_by_position_by_keyword_and_left_out_are_one_call():
    arguments = Arguments(positions, kinds_of(positions))

    assert arguments.bind((1, 2), {"d": 4}) == {"a": 1, "b": 2, "d": 4}
    assert arguments.bind((1,), {"d": 4, "b": 2}) == {"b": 2, "a": 1, "d": 4}
    assert call(positions, 1, 2, d=4) == call(positions, 1, b=2, c=3, d=4, e=5) == (1, 2, 3, 4, 5)


def quiet(a: int, verbose: object = SENTINEL, b: int = 2, log: object = SENTINEL, /, c: int = 3):
    return a, verbose is SENTINEL, b, log is SENTINEL, c


def test_what_comes_after_an_ignored_argument_that_is_left_out_reaches_the_function():
    def call_quietly(*args):
        kinds = kinds_of(quiet, ["verbose", "log"])
        params = {
            "b": 2,
            "c": 3,
            **Arguments(quiet, kinds).bind(args, {}),
        }  # with the defaults, as of a Store
        travelled = pickle.loads(pickle.dumps(Arguments(quiet, kinds)))
        return travelled.call(quiet, params)

    assert call_quietly(1) == (1, True, 2, True, 3)
    assert call_quietly(1, True) == (1, False, 2, True, 3)
    assert call_quietly(1, True, 4, None) == (1, False, 4, False, 3)


@pytest.mark.parametrize(
    ("args", "kwargs", "words"),
    [
        ((1,), {"d": 4}, "missing.*'b'"),
        ((1, 2, 3, 4), {"d": 4}, "too many"),
        ((1, 2), {}, "missing.*'d'"),
        ((1, 2), {"b": 2, "d": 4}, "multiple values.*'b'"),
        ((1, 2), {"d": 4, "z": 0}, "unexpected.*'z'"),
        ((), {"a": 1, "b": 2, "d": 4}, "positional.only.*'a'|'a'.*positional.only"),
    ],
)
def test_arguments_that_do_not_fit_are_a_type_error_as_of_the_function_itself(args, kwargs, words):
    with pytest.raises(TypeError):
        positions(*args, **kwargs)
    with pytest.raises(TypeError, match=words):
        Arguments(positions, kinds_of(positions)).bind(args, kwargs)


def test_named_arguments_of_a_sweep_may_be_positional_only_and_must_be_complete():
    arguments = Arguments(positions, kinds_of(positions))

    assert arguments.bind_named({"a": 1, "b": 2, "d": 4, "z": 1}) == {"a": 1, "b": 2, "d": 4, "z": 1}
    with pytest.raises(
        ParameterError, match="positions needs 'a', 'd', which were not given and have no default"
    ):
        arguments.bind_named({"b": 1})


class Place(enum.StrEnum):
    DATA = "./data"


class PlaceOfOld(enum.Enum):
    DATA = "data/"


def of_paths(path: Path = "./data", other: Path | None = None):  # type: ignore[assignment]
    return dict(locals())


def test_texts_of_one_path_are_one_call():
    arguments = Arguments(of_paths, kinds_of(of_paths))
    parameters = Parameters(model_of(of_paths), sqlite.dialect())

    texts = ("data", "./data", "data/", np.str_("./data"), Place.DATA, PlaceOfOld.DATA)
    bound = [arguments.bind((text,), {}) for text in texts]
    named = [arguments.bind_named({"path": path}) for path in ("data/", Path("data"))]

    ids = {parameters.identify(params).id for params in ({}, *bound, *named)}
    assert len(ids) == 1
    assert parameters.identify({"path": "other"}).id not in ids


def of_contents(path: Path, several: list[Path] = []):  # noqa: B006
    return dict(locals())


def test_hasher_says_that_a_path_is_what_is_in_its_file(tmp_path, monkeypatch):
    monkeypatch.setattr(hashing, "_hashers", {})
    register_hasher(Path, lambda path: path.read_text())
    arguments = Arguments(of_contents, kinds_of(of_contents))
    parameters = Parameters(model_of(of_contents), sqlite.dialect())
    file = tmp_path / "a"

    def identity(text: str, path: Any, *several: Any) -> Any:
        file.write_text(text)
        return parameters.identify(arguments.bind((path,), {"several": list(several)}))

    one, same = identity("one", file), identity("one", str(file))
    several = identity("one", file, file)
    other, others = identity("two", file), identity("two", file, file)

    assert one.id == same.id
    assert len({one.id, several.id, other.id, others.id}) == 4
    assert arguments.call(of_contents, others.for_runner()) == {"path": file, "several": [file]}
    with pytest.raises(ParameterError, match="was changed since it was given"):
        one.for_runner()


def test_hasher_of_paths_that_comes_too_late_is_refused(monkeypatch):
    monkeypatch.setattr(hashing, "_hashers", {})
    arguments = Arguments(of_paths, kinds_of(of_paths))
    register_hasher(Path, str)

    with pytest.raises(
        ParameterError, match=r"of_paths\.path is kept by the text of its paths, .* tell it before"
    ):
        arguments.bind(("data",), {})


def seen(
    n: int,
    x: float,
    scheme: Scheme,
    path: Path,
    shape: tuple[int, ...],
    span: Span,
    pairs: list[tuple[str, float]],
    steps: Sequence[tuple[int, int]],
    table: dict[str, tuple[int, int] | None],
    points: list,
    array: np.ndarray,
    words: set[str],
    point: Point,
    frame: pd.DataFrame,
    when: datetime.datetime,
    kind: Literal["a", "b"] = "a",
    weights: np.ndarray = np.ones(2),  # noqa: B008
    empty: list[int] = [],  # noqa: B006
):
    return dict(locals())


def test_function_gets_each_argument_as_it_is_annotated():
    given = {
        "n": 3.0,
        "x": np.float32(0.5),
        "scheme": Scheme.RK4,
        "path": "data/in.csv",
        "shape": [2, 3],
        "span": Span(0.5, (1, 2)),
        "pairs": [("a", 1.0), ["b", 2.0]],
        "steps": [(1, 2), [3, 4]],
        "table": {"k": (1, 2), "none": None},
        "points": (1, 2),
        "array": np.arange(3),
        "words": {"a"},
        "point": Point(1.0, 2.0),
        "frame": pd.DataFrame({"a": [1]}),
        "when": datetime.datetime(2026, 1, 2),
    }

    got = call(seen, **given)

    assert type(got["n"]) is int
    assert (type(got["x"]), got["x"]) == (float, 0.5)
    assert got["scheme"] is Scheme.RK4
    assert got["path"] == Path("data/in.csv")
    assert got["shape"] == (2, 3)
    assert type(got["span"]) is Span
    assert got["span"] == Span(0.5, (1, 2))
    assert got["pairs"] == [("a", 1.0), ("b", 2.0)]
    assert got["steps"] == [(1, 2), (3, 4)]
    assert got["table"] == {"k": (1, 2), "none": None}
    assert got["points"] == [1, 2]
    assert got["array"].tolist() == [0, 1, 2]
    assert got["words"] == {"a"}
    assert got["point"] == Point(1.0, 2.0)
    assert got["frame"].equals(given["frame"])
    assert got["when"] == datetime.datetime(2026, 1, 2, tzinfo=datetime.UTC)
    assert got["kind"] == "a"
    assert isinstance(got["weights"], np.ndarray)
    assert got["weights"].tolist() == [1.0, 1.0]
    assert got["empty"] == []
    assert got["empty"] is not seen.__defaults__[-1]
    assert call(seen, **given, weights=np.ones(2))["weights"].tolist() == [1.0, 1.0]


def test_object_with_a_hasher_reaches_the_function_as_it_is(monkeypatch):
    monkeypatch.setattr(hashing, "_hashers", {})
    register_hasher(Mesh, lambda mesh: mesh.cells)

    def function(mesh: Mesh):
        return mesh

    assert isinstance(call(function, Mesh(3)), Mesh)


@pytest.mark.parametrize(
    ("value", "place"),
    [
        ([1, object()], r"function\.values\[1\] is a builtins\.object"),
        ({"t": [lambda: 1]}, r"function\.values\['t'\]\[0\] is a builtins\.function"),
        ([Mesh(1)], r"function\.values\[0\] is a tests\.support\.values\.Mesh.*register_hasher\(Mesh"),
    ],
    ids=shown,
)
def test_value_that_has_no_document_is_refused_with_its_place(value, place):
    def function(values: list | dict):
        raise AssertionError

    with pytest.raises(UnhashableParamError, match=place):
        call(function, value)


class Noted(Span):
    """A named tuple that may have attributes."""

    @functools.cached_property
    def end(self):
        return self.start + 1


def test_attribute_of_a_named_tuple_is_refused_or_determined_by_its_fields():
    def function(span: Noted, spans: list[Noted] = ()):
        return span, spans

    span = Noted(1, [2, 3])
    assert span.end == 2
    got = call(function, span, [span])
    assert got == (Noted(1.0, (2, 3)), [Noted(1.0, (2, 3))])
    assert vars(got[0]) == {}

    span.note = "x"
    for args in ((span,), (Noted(1.0, (2, 3)), [span])):
        with pytest.raises(UnhashableParamError, match=r"Noted\.note is not determined by the fields"):
            call(function, *args)


# Functions


class Body:
    def method(self, n: int) -> int:
        return n

    @classmethod
    def of_class(cls, n: int) -> int:
        return n

    @staticmethod
    def static(n: int) -> int:
        return n


def made(scale):
    def scaled(n: int) -> float:
        return scale * n

    return scaled


def made_with_helpers():
    import math as maths

    def half(x):
        return x / 2

    class Local:
        pass

    def whole(n: int) -> float:
        assert Local
        return maths.sqrt(half(n)) if n else whole(n + 1)

    return whole


def timed(function):
    @functools.wraps(function)
    def wrapper(*args, **kwargs):
        return function(*args, **kwargs)

    return wrapper


@timed
def decorated(n: int) -> int:
    return n


async def coroutine(n: int) -> int:
    return n


def generator(n: int):
    yield n


async def async_generator(n: int):
    yield n


@functools.wraps(len)
def wrapping_a_builtin(n: int) -> int:
    return n


@pytest.mark.parametrize(
    "function", [made_with_helpers(), Body.static, decorated, positions, wrapping_a_builtin]
)
def test_function_that_its_parameters_describe_is_taken(function):
    require_function(function)


@pytest.mark.parametrize(
    ("function", "reason"),
    [
        (Body.method, "method"),
        (Body().method, "method"),
        (Body.of_class, "method"),
        (lambda n: n, "lambda"),
        (coroutine, "still to be run"),
        (generator, "still to be run"),
        (async_generator, "generator"),
        (functools.partial(positions, 1), "memoize takes a function"),
        (Body, "memoize takes a function"),
        (len, "memoize takes a function"),
        ("simulate", "memoize takes a function"),
        ("results", r"Options are given by name, as in @memoize\(results_dir='results'\)$"),
        (made(2), "a closure over 'scale', of type int: another call of made"),
        (made([2]), "a closure over 'scale', of type list"),
        (made(positions), "a closure over 'scale', of type function"),
        (made(made), "a closure over 'scale', of type function"),
    ],
    ids=shown,
)
def test_function_that_more_than_its_parameters_decides_is_refused_with_the_reason(function, reason):
    with pytest.raises(TypeError, match=reason):
        require_function(function)


# Functions that another one makes


def scaled(factor):
    def decorate(function):
        @functools.wraps(function)
        def wrapper(*args, **kwargs):
            return factor * function(*args, **kwargs)

        return wrapper

    return decorate


class Scaled:
    """A decorator that is an object."""

    def __init__(self, function, factor):
        functools.update_wrapper(self, function)
        self.factor = factor

    def __call__(self, n):
        return self.factor * self.__wrapped__(n)


def of_a_helpers_default(k):
    def helper(n, k=k):
        return n * k

    def function(n: int) -> int:
        return helper(n)

    return function


def of_a_helpers_keyword(k):
    def helper(n, *, factor=k):
        return n * factor

    def function(n: int) -> int:
        return helper(n)

    return function


def of_a_helpers_helper(k):
    def inner(n, k=k):
        return n * k

    @timed
    def helper(n):
        return inner(n)

    def function(n: int) -> int:
        return helper(n)

    return function


def of_a_helpers_attribute(k):
    def helper(n):
        return n * helper.k

    helper.k = k

    def function(n: int) -> int:
        return helper(n)

    return function


def of_its_own_attribute(k):
    @timed
    def function(n: int) -> int:
        return n * function.k

    function.k = k
    return function


def of_a_choice_of_helpers(k):
    def double(n):
        return 2 * n

    def treble(n):
        return 3 * n

    helper = double if k == 2 else treble

    def function(n: int) -> int:
        return helper(n)

    return function


def of_a_choice_of_bodies(k):
    if k == 2:

        def helper(n):
            return 2 * n
    else:

        def helper(n):
            return 3 * n

    def function(n: int) -> int:
        return helper(n)

    return function


def of_a_module(k):
    def function(n: int) -> int:
        return k.prod([n])

    return function


def of_a_choice_of_modules(k):
    if k == 2:
        import math as maths
    else:
        import cmath as maths

    def function(n: int) -> int:
        return maths.sqrt(n)

    return function


def of_a_class_attribute(k):
    class K:
        factor = k

    def function(n: int) -> int:
        return n * K.factor

    return function


def of_a_class_attribute_that_is_set(k):
    class K:
        factor = None

    K.factor = k

    def function(n: int) -> int:
        return n * K.factor

    return function


def of_a_class_decorator(k):
    def tag(class_):
        class_._factor = k
        return class_

    @tag
    class K:
        pass

    def function(n: int) -> int:
        return n * K._factor

    return function


def of_a_method(k):
    class K:
        @staticmethod
        def times(n):
            return n * k

    def function(n: int) -> int:
        return K.times(n)

    return function


def of_a_methods_default(k):
    class K:
        def times(self, n, k=k):
            return n * k

    def function(n: int) -> int:
        return K().times(n)

    return function


def of_a_decorated_method(k):
    class K:
        @scaled(k)
        def times(self, n):
            return n

    def function(n: int) -> int:
        return K().times(n)

    return function


def of_a_field(k):
    @dataclasses.dataclass
    class K:
        factor: int = k

    def function(n: int) -> int:
        return n * K().factor

    return function


def of_a_base(k):
    class K(k):
        pass

    def function(n: int) -> int:
        return issubclass(K, Body)

    return function


def of_a_local_base(k):
    class Base:
        factor = k

    class K(Base):
        pass

    def function(n: int) -> int:
        return n * K.factor

    return function


def of_a_decorator(k):
    @timed
    @scaled(k)
    def function(n: int) -> int:
        return n

    return function


def of_a_decorators_default(k):
    def decorate(function):
        @functools.wraps(function)
        def wrapper(n, k=k):
            return k * function(n)

        return wrapper

    @decorate
    def function(n: int) -> int:
        return n

    return function


def of_a_decorating_object(k):
    @timed
    @functools.partial(Scaled, factor=k)
    def function(n: int) -> int:
        return n

    return function


def of_a_memoized_function(k):
    @memoize(db_url="sqlite://")
    def inner(n: int, k: int = k) -> int:
        return n * k

    def function(n: int) -> int:
        return inner(n)

    return function


@pytest.mark.parametrize(
    ("make", "names"),
    [
        (of_a_helpers_default, "'helper', by which it depends on 'k', of type int"),
        (of_a_helpers_keyword, "'helper', by which it depends on 'factor', of type int"),
        (of_a_helpers_helper, "'helper', by which it depends on 'inner.k', of type int"),
        (of_a_helpers_attribute, "'helper', by which it depends on 'k', of type int"),
        (of_its_own_attribute, "'k', of type int"),
        (of_a_choice_of_helpers, "'helper', of type function"),
        (of_a_choice_of_bodies, "'helper', of type function"),
        (of_a_choice_of_modules, "'maths', of type module"),
        (of_a_class_attribute, "'K', by which it depends on 'k'"),
        (of_a_class_attribute_that_is_set, "'K', by which it depends on 'factor', of type int"),
        (of_a_class_decorator, "'K', by which it depends on '_factor', of type int"),
        (of_a_method, "'K', by which it depends on 'k', of type int"),
        (of_a_methods_default, "'K', by which it depends on 'k'"),
        (of_a_decorated_method, "'K', by which it depends on 'k'"),
        (of_a_field, "'K', by which it depends on 'k'"),
        (of_a_local_base, "'K', by which it depends on 'Base.k'"),
        (of_a_decorator, "'factor', of type int"),
        (of_a_decorators_default, "'k', of type int"),
        (of_a_decorating_object, "'factor', of type int"),
        (of_a_memoized_function, "'inner', by which it depends on 'k', of type int"),
    ],
    ids=lambda one: getattr(one, "__name__", ""),
)
def test_function_that_hangs_on_what_its_maker_was_given_is_refused(make, names):
    with pytest.raises(
        TypeError, match=rf"it is a closure over {names}: another call of {make.__name__}\(\)"
    ):
        require_function(make(2))


def test_module_or_base_that_the_maker_was_given_is_refused():
    with pytest.raises(TypeError, match="a closure over 'k', of type module"):
        require_function(of_a_module(math))
    with pytest.raises(TypeError, match="a closure over 'K', by which it depends on 'Body', of type type"):
        require_function(of_a_base(Body))


def of_helpers():
    from math import sqrt
    from os import path

    import numpy.linalg
    import numpy.linalg as algebra

    def helper(n, power=2, *more):
        return twice(n) ** power if n else other(n)

    def other(n):
        return helper(n)

    twice = lambda n: 2 * n  # noqa: E731

    @functools.cache
    def kept(n):
        return helper(n)

    @timed
    def timed_one(n, start=0):
        return kept(n)

    @memoize(db_url="sqlite://")
    def memoized(n: int, k: int = 2) -> int:
        return timed_one(n)

    @timed
    def function(n: int) -> int:
        return memoized(n) + len(path.sep) + sqrt(n) + algebra.norm([n]) + numpy.linalg.norm([n])

    return function


def of_classes():
    import abc

    @dataclasses.dataclass(frozen=True)
    class Grid:
        n: int
        factor: float = 2.0
        more: list[int] = dataclasses.field(default_factory=list)

    @dataclasses.dataclass(slots=True)
    class Slotted(Body):
        n: int = 0

    class Colour(enum.Enum):
        RED = 1

    class Pair(NamedTuple):
        a: int
        b: int = 2

    class Options(typing.TypedDict):
        a: int

    @attrs.define
    class Attrs:
        n: int = 3

    class Model(pydantic.BaseModel):
        n: int = 3

    class Box(typing.Generic[T], abc.ABC):
        scale = 1

        class Inner:
            grid = 3

            def method(self):
                return Grid

        def __init__(self, n=2):
            super().__init__()

        @property
        def size(self):
            return helper(self.scale)

        @functools.cached_property
        def half(self):
            return Pair(1)

        @timed
        def whole(self):
            return self.Inner()

    class Larger(Box):
        pass

    def helper(n):
        return Larger()

    def function(n: int) -> int:
        return [Grid, Slotted, Colour, Pair, Options, Attrs, Model, Box, Larger][n]

    return function


def of_two_makers():
    def helper(n):
        return n

    def make(k):
        def function(n: int) -> int:
            return helper(n)

        return function

    return make(2)


class Maker:
    def make(self):
        def helper(n, k=2):
            return n

        def function(n: int) -> int:
            return helper(n)

        return function


@pytest.mark.parametrize("make", [of_helpers, of_classes, of_two_makers, Maker().make])
def test_function_that_hangs_on_nothing_its_maker_was_given_is_taken(make):
    require_function(make())


# Tables


def test_table_is_named_by_the_function_and_what_tells_it_from_others():
    names = {table_name_of(function) for function in (made(1), positions, made_with_helpers())}

    assert len(names) == 3
    assert table_name_of(positions).startswith("positions_")
    assert len(table_name_of(positions)) == len("positions_") + 8
    assert table_name_of(made(1)) == table_name_of(made(2))


@pytest.mark.parametrize("name", ["f" * 100, "ä" * 100, "日本" * 50])
def test_table_of_a_long_name_fits_every_database(name):
    def function(n: int):
        pass

    function.__name__ = name

    assert len(table_name_of(function).encode()) <= 40 + 9
    assert name.startswith(table_name_of(function)[:-9])


def test_function_defined_again_takes_the_place_of_the_former():
    def define():
        def function(n: int):
            pass

        return derive_model(function, kinds_of(function), table="defined_again", outputs={})

    first, second = define(), define()

    assert first is not second
    assert Base.metadata.tables["defined_again"] is second.__table__


def test_two_functions_of_one_table_are_refused():
    def one(n: int):
        pass

    def other(n: int):
        pass

    kept = derive_model(one, kinds_of(one), table="of_two", outputs={})

    with pytest.raises(SchemaError, match=r"other\.model and .*one\.model both have the table 'of_two'"):
        derive_model(other, kinds_of(other), table="of_two", outputs={})
    assert kept.__table__ is Base.metadata.tables["of_two"]


def test_model_says_whose_calls_it_has():
    model = model_of(positions)

    assert model.__module__ == __name__
    assert model.__qualname__ == "positions.model"
    assert dataclasses.asdict(model.__entropic__) == {
        "title": "positions",
        "ignored": frozenset(),
        "is_derived": True,
    }
