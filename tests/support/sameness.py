"""Values of every kind that a JSON parameter may be, and what it means that two are the same to a function."""

from __future__ import annotations

import collections
import copy
import dataclasses
import datetime
import enum
import functools
import math
import zoneinfo
from decimal import Decimal
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

import attrs
import numpy as np
import pandas as pd
import pydantic
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from entropic.values.hashing import rounded_apart
from tests.support import strategies
from tests.support.values import contents


class Scheme(enum.Enum):
    EULER = 1
    RK4 = 2


class Order(enum.IntEnum):
    EULER = 1
    RK4 = 2


class Access(enum.Flag):
    READ = 1
    WRITE = 2


@dataclasses.dataclass
class Solver:
    step: Any
    order: Any = 4


@dataclasses.dataclass(frozen=True)
class Filter:
    """Equal in its fields to a `Solver`, and another class."""

    step: Any
    order: Any = 4


@dataclasses.dataclass
class Grid:
    """Has what its fields determine."""

    n: Any
    cells: list[Any] = dataclasses.field(init=False)

    def __post_init__(self) -> None:
        self.cells = [self.n]

    @functools.cached_property
    def first(self) -> Any:
        return self.cells[0]


@dataclasses.dataclass
class Hidden:
    """Is more than its fields."""

    n: Any
    scale: dataclasses.InitVar[Any] = 1

    def __post_init__(self, scale: Any) -> None:
        self.scaled = (self.n, scale)


@attrs.define
class Mesh:
    cells: Any
    _level: Any = 0


class Settings(pydantic.BaseModel, extra="allow"):
    tol: Any = 1e-6
    _calls: int = pydantic.PrivateAttr(0)


class Span(NamedTuple):
    start: Any
    stop: Any = None


class Text(str):
    """A subclass that may carry more than its text."""

    __slots__ = ()


OBJECTS = (Solver, Filter, Grid, Mesh, Settings, Span)

zones = st.sampled_from(
    [None, datetime.UTC, datetime.timezone(datetime.timedelta(hours=2)), zoneinfo.ZoneInfo("Europe/Berlin")]
)
numbers = st.integers(-3, 3) | st.sampled_from(
    [0.3, 0.1 + 0.2, 1e-13, 2e-13, 0.0, -0.0, 1.0, 1.0 + 1e-13, 2**70]
)
keys = st.text("ab_", max_size=2) | st.sampled_from(["__entropic__", "value"])
hashable = st.one_of(
    st.none(),
    st.booleans(),
    numbers,
    strategies.floats,
    strategies.texts_to_store,
    st.binary(max_size=3),
    st.complex_numbers(allow_nan=False, allow_infinity=False),
    st.decimals(allow_nan=False, allow_infinity=False),
    st.fractions(),
    st.uuids(),
    st.builds(Path, strategies.names),
    st.builds(PurePosixPath, strategies.names),
    st.dates(),
    st.datetimes(timezones=zones, allow_imaginary=False),
    st.times(timezones=st.sampled_from([None, datetime.UTC])),
    st.timedeltas(),
    st.builds(range, st.integers(0, 3), st.integers(0, 3)),
    st.sampled_from([*Scheme, *Order, *Access, Access.READ | Access.WRITE]),
)
odd_arrays = npst.arrays(
    dtype=st.sampled_from([">i4", ">f8", "|S2", "<M8[D]", "<i2", np.dtype([("a", "<i2"), ("b", "|b1")])]),
    shape=npst.array_shapes(min_dims=0, max_dims=2, min_side=0, max_side=2),
)
masked = st.builds(
    lambda array, mask, is_hard: np.ma.array(array, mask=mask, hard_mask=is_hard),
    odd_arrays,
    st.sampled_from([np.ma.nomask, False, True]),
    st.booleans(),
)
leaves = st.one_of(
    hashable,
    st.frozensets(hashable, max_size=3),
    st.sets(hashable, max_size=3),
    st.builds(slice, st.none() | st.integers(0, 3)),
    st.builds(bytearray, st.binary(max_size=3)),
    strategies.arrays,
    odd_arrays,
    masked,
    st.builds(np.float32, st.sampled_from([0.5, 1.5])),
    st.builds(np.int64, st.integers(0, 3)),
)
cells = st.one_of(
    st.integers(0, 3),
    st.sampled_from([0.5, "1", Decimal(1), None, math.nan, (1,), [1], Scheme.EULER, pd.NaT]),
)
frames = st.one_of(
    st.builds(
        lambda column, name: pd.DataFrame({name: pd.Series(column, dtype=object)}),
        st.lists(cells, min_size=1, max_size=3),
        st.sampled_from(["a", "b", 1]),
    ),
    st.builds(pd.Series, st.lists(st.integers(0, 2), min_size=1, max_size=3), name=st.none() | st.just("a")),
)
refused = st.sampled_from(
    [
        np.ma.masked,
        np.zeros(1).view(np.recarray),
        np.array([1, "a"], object).view(np.matrix),
        Text("a"),
        math.nan,
        math.inf,
        object(),
        len,
        pd.Timestamp("2026-01-02"),
        "a\0",
        iter([]),
    ]
)
refused |= st.builds(Hidden, st.integers(0, 2), st.integers(2, 3))
refused |= st.builds(collections.Counter, st.text("ab", max_size=2))


def containers(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """Everything that holds values, objects as often as all else."""
    objects = st.one_of(
        st.builds(Solver, inner, inner),
        st.builds(Filter, inner),
        st.builds(Grid, inner),
        st.builds(Mesh, inner, inner),
        st.builds(Settings, tol=inner),
        st.builds(Settings, tol=inner, more=inner),
        st.builds(Span, inner, inner),
    )
    return objects | st.one_of(
        st.lists(inner, max_size=3),
        st.lists(inner, max_size=3).map(tuple),
        st.dictionaries(keys, inner, max_size=3),
        st.dictionaries(keys | numbers, inner, max_size=2),
        st.dictionaries(keys, inner, max_size=2).map(collections.OrderedDict),
        st.lists(inner, min_size=1, max_size=2).map(array_of_objects),
    )


def array_of_objects(items: list[Any]) -> np.ndarray[Any, Any]:
    array = np.empty(len(items), object)
    for place, item in enumerate(items):
        array[place] = item
    return array


accepted = st.recursive(leaves | frames, containers, max_leaves=6)
broken = st.one_of(
    refused,
    refused.map(Solver),
    refused.map(lambda value: {"a": (value,)}),
    st.tuples(leaves, refused).map(list),
)
values = st.integers(0, 9).flatmap(
    lambda n: broken if n == 5 else containers(accepted) if n > 5 else accepted
)


def is_object(value: Any) -> bool:
    """Whether *value* is an object that is its fields, or holds one."""
    if isinstance(value, OBJECTS):
        return True
    if isinstance(value, dict):
        return any(map(is_object, value.values()))
    return isinstance(value, list | tuple) and any(map(is_object, value))


# Pairs that are nearly the same


def twisted(draw: Any, value: Any) -> Any:
    """Return a copy of *value* that is the same, or differs in one place by little."""
    fields = fields_of(value)
    inside = list(value.items()) if isinstance(value, dict) else list(enumerate(fields or []))
    if isinstance(value, list | tuple) and fields is None:
        inside = list(enumerate(value))
    if inside and draw(st.integers(0, 3)):
        step, item = draw(st.sampled_from(inside))
        other = twisted(draw, item)
        if isinstance(value, dict):
            return type(value)({**value, step: other})
        if fields is not None:
            return made(type(value), [other if place == step else one for place, one in enumerate(fields)])
        return type(value)(other if place == step else one for place, one in enumerate(value))
    return draw(st.sampled_from([copy.deepcopy, _other_type, _slightly_off, _reordered]))(value)


def _other_type(value: Any) -> Any:
    for one, make in _OTHER_TYPES.items():
        if type(value) is one:
            return make(value)
    return copy.deepcopy(value)


_OTHER_TYPES: dict[type, Any] = {
    list: tuple,
    tuple: list,
    set: frozenset,
    frozenset: set,
    bool: int,
    int: float,
    float: Decimal,
    bytes: bytearray,
    dict: collections.OrderedDict,
    collections.OrderedDict: dict,
    Scheme: lambda member: Order[member.name],
    Order: int,
    Solver: lambda one: Filter(one.step, one.order),
    Filter: lambda one: Solver(one.step, one.order),
    Span: tuple,
    type(Path()): str,
    np.float32: float,
    np.ma.MaskedArray: np.asarray,
    datetime.date: lambda day: datetime.datetime(day.year, day.month, day.day),
}


def _slightly_off(value: Any) -> Any:
    if type(value) is float:
        return value * (1 + 1e-15)
    if isinstance(value, np.ndarray) and value.dtype.kind in "if" and value.dtype.isnative:
        return value.astype(">" + value.dtype.str[1:])
    if isinstance(value, datetime.datetime):
        return value.replace(fold=1 - value.fold)
    if isinstance(value, pd.DataFrame | pd.Series):
        return value.set_axis([str(label) for label in value.index])
    return copy.deepcopy(value)


def _reordered(value: Any) -> Any:
    if isinstance(value, dict):
        return type(value)(reversed(value.items()))
    if isinstance(value, np.ndarray) and value.dtype != object:
        return np.asfortranarray(value)
    return copy.deepcopy(value)


# The oracle


def fields_of(value: Any) -> list[Any] | None:
    """Return what an object that is its fields is made from, extra fields last; None of anything else."""
    if isinstance(value, Solver | Filter):
        return [value.step, value.order]
    if isinstance(value, Grid):
        return [value.n]
    if isinstance(value, Mesh):
        return [value.cells, value._level]
    if isinstance(value, Span):
        return list(value)
    return [value.tol, *(value.model_extra or {}).values()] if isinstance(value, Settings) else None


def made(class_: Any, fields: list[Any]) -> Any:
    """Make an object of what `fields_of` gives."""
    if class_ is Settings:
        return Settings(tol=fields[0], **({"more": fields[1]} if len(fields) > 1 else {}))
    return class_(*fields)


def same(one: Any, other: Any, *, exactly: bool = False) -> bool:
    """Whether a function cannot tell two values apart, but for floats' last digits and the order of dicts and sets.

    Parameters
    ----------
    exactly : bool
        Whether the last digits of floats count: as the cells of frames they do.
    """
    one, other = (value.item() if isinstance(value, np.generic) else value for value in (one, other))
    if one is other:
        return True  # pandas' own missing values, too
    if type(one) is not type(other):
        return False
    if (fields := fields_of(one)) is not None:
        return _all_same(fields, fields_of(other) or [], exactly)
    if isinstance(one, float):
        if math.isnan(one) or exactly:
            return repr(one) == repr(other)
        one, other = rounded_apart(one), rounded_apart(other)
        return one == other and math.copysign(1, one) == math.copysign(1, other)
    if isinstance(one, complex):
        return same(one.real, other.real) and same(one.imag, other.imag)
    if isinstance(one, Decimal):
        return one.as_tuple() == other.as_tuple()
    if isinstance(one, datetime.datetime | datetime.time):
        zones_ = (repr(one.tzinfo), one.fold) == (repr(other.tzinfo), other.fold)
        return zones_ and one.replace(tzinfo=None) == other.replace(tzinfo=None)
    if isinstance(one, range | slice):
        return _all_same([one.start, one.stop, one.step], [other.start, other.stop, other.step], exactly)
    if isinstance(one, np.ndarray):
        return _same_arrays(one, other)
    if isinstance(one, pd.DataFrame | pd.Series):
        return _same_frames(one, other)
    return _same_containers(one, other, exactly)


def _same_containers(one: Any, other: Any, exactly: bool) -> bool:
    if isinstance(one, list | tuple):
        return _all_same(one, other, exactly)
    if isinstance(one, collections.OrderedDict):
        return _all_same(list(one.items()), list(other.items()), exactly)
    if isinstance(one, dict):
        return _matched(list(one.items()), list(other.items()), exactly)
    if isinstance(one, set | frozenset):
        return _matched(list(one), list(other), exactly)
    return bool(one == other)


def _all_same(one: Any, other: Any, exactly: bool) -> bool:
    pairs = zip(one, other, strict=False)
    return len(one) == len(other) and all(same(*pair, exactly=exactly) for pair in pairs)


def _matched(one: list[Any], other: list[Any], exactly: bool) -> bool:
    left = list(other)
    for item in one:
        found = next((place for place, o in enumerate(left) if same(item, o, exactly=exactly)), None)
        if found is None:
            return False
        del left[found]
    return not left


def _same_arrays(one: Any, other: Any) -> bool:
    if (one.dtype, one.shape) != (other.dtype, other.shape):
        return False
    if isinstance(one, np.ma.MaskedArray):
        masks = [(array.mask is np.ma.nomask, array.hardmask) for array in (one, other)]
        parts = [[np.asarray(part) for part in (a.data, a.mask, a.fill_value)] for a in (one, other)]
        return masks[0] == masks[1] and all(map(_same_arrays, *parts))
    if one.dtype == object:
        return _all_same(one.ravel().tolist(), other.ravel().tolist(), exactly=False)
    # The bytes: of one NaN and another, too.
    return one.tobytes() == other.tobytes() if one.dtype.names is None else contents(one) == contents(other)


def _same_frames(one: Any, other: Any) -> bool:
    def parts(frame: Any) -> list[Any]:
        columns = [frame.iloc[:, n] for n in range(frame.shape[1])] if frame.ndim == 2 else [frame]
        labels = list(frame.columns) if frame.ndim == 2 else [frame.name]
        return [labels, list(frame.index), [str(c.dtype) for c in columns], [list(c) for c in columns]]

    return same(parts(one), parts(other), exactly=True)
