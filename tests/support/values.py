"""Values that memoized functions return, and what it means that one comes back equal."""

from __future__ import annotations

import dataclasses
import datetime
import math
from pathlib import Path
from typing import Any

import numpy as np
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from tests.support.strategies import nested, texts

zones = st.none() | st.timedeltas(datetime.timedelta(hours=-20), datetime.timedelta(hours=20)).map(
    datetime.timezone
)
plain = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),  # NaN, infinities and -0.0 among them
    st.text(max_size=8),
    st.complex_numbers(),
    st.binary(max_size=8).map(bytearray),
    st.datetimes(timezones=zones),
    st.frozensets(st.integers() | st.text(max_size=3), max_size=4),
    st.sets(st.floats(allow_nan=False), max_size=3),
    texts,
)
dtypes = st.one_of(
    npst.boolean_dtypes(),
    npst.integer_dtypes(endianness="?"),
    npst.unsigned_integer_dtypes(endianness="?"),
    npst.floating_dtypes(endianness="?"),
    npst.complex_number_dtypes(endianness="?"),
    npst.datetime64_dtypes(endianness="?"),
    npst.timedelta64_dtypes(endianness="?"),
    npst.byte_string_dtypes(endianness="?"),
    npst.unicode_string_dtypes(endianness="?"),
)
structures = npst.array_dtypes(dtypes, min_size=1, max_size=3) | npst.nested_dtypes(dtypes, max_leaves=4)


@st.composite
def arrays(draw: st.DrawFn) -> np.ndarray[Any, Any]:
    """An array of any dtype NumPy has but objects: also empty, without dimensions, structured, in Fortran's order."""
    shape = draw(npst.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4))
    array = draw(npst.arrays(draw(dtypes | structures), shape))
    return np.asfortranarray(array) if array.ndim > 1 and draw(st.booleans()) else array


@st.composite
def numpy_scalars(draw: st.DrawFn) -> np.generic:
    return draw(npst.arrays(draw(dtypes | structures), (1,)))[0]  # type: ignore[no-any-return]


leaves = plain | arrays() | numpy_scalars()
values = nested(leaves) | st.dictionaries(
    st.integers() | st.text(max_size=4) | st.tuples(st.integers()), leaves
)


def is_same(one: Any, other: Any) -> bool:
    """Whether two values are equal, of the same type, dtype and shape; NaN is NaN, and 0.0 is not -0.0."""
    if type(one) is not type(other):
        return False
    if isinstance(one, np.ma.MaskedArray):
        return all(
            is_same(np.asarray(getattr(one, part)), np.asarray(getattr(other, part)))
            for part in ("data", "mask", "fill_value")
        )
    if isinstance(one, np.ndarray | np.generic):
        is_alike = (one.dtype, one.shape) == (other.dtype, other.shape)
        return is_alike and contents(one) == contents(other)
    if isinstance(one, float):
        return (math.isnan(one) and math.isnan(other)) or (
            one == other and math.copysign(1, one) == math.copysign(1, other)
        )
    if isinstance(one, complex):
        return is_same(one.real, other.real) and is_same(one.imag, other.imag)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(is_same, one, other))
    if isinstance(one, dict):
        return is_same(list(one), list(other)) and all(map(is_same, one.values(), other.values()))
    if isinstance(one, datetime.datetime | datetime.time):
        return one == other and one.fold == other.fold and one.utcoffset() == other.utcoffset()
    return bool(one == other)


def contents(array: Any) -> Any:
    """Return the elements as bytes, field by field, since the padding between fields holds anything."""
    array = np.asarray(array)
    if array.dtype.names is not None:
        return [contents(array[name]) for name in array.dtype.names]
    if array.dtype.char in "gG":  # padded, too
        return [repr(item) for item in array.ravel()]
    if array.dtype.kind in "fc":
        return np.where(np.isnan(array), np.nan, array).astype(array.dtype).tobytes()
    return array.tobytes()


class Mesh:
    """A type that entropic knows nothing of."""

    def __init__(self, cells: int) -> None:
        self.cells = cells


@dataclasses.dataclass(frozen=True)
class Point:
    x: float
    y: float


def write_mesh(mesh: Mesh, path: str) -> None:
    Path(path).write_text(str(mesh.cells))


def read_mesh(path: str) -> Mesh:
    return Mesh(int(Path(path).read_text()))
