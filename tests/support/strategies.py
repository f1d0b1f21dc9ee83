"""Hypothesis strategies: parameters, keys, arrays."""

from __future__ import annotations

import datetime
import enum
import pathlib
import uuid
from decimal import Decimal
from fractions import Fraction
from typing import Any

from hypothesis import strategies as st
from hypothesis.extra import numpy as npst


class Flavour(enum.Enum):
    PLAIN = "plain"
    NUMBER = 2
    PAIR = (1, 0.5)


names = st.text("abcdefghijklmnopqrstuvwxyz_", min_size=1, max_size=8)
floats = st.floats(allow_nan=False, allow_infinity=False)
# 12 decimals keep these to a relative 1e-9.
ordinary_floats = st.floats(min_value=1e-3, max_value=1e15) | st.floats(min_value=-1e15, max_value=-1e-3)
# Databases do not keep NUL.
texts_to_store = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=12)
json_scalars = st.none() | st.booleans() | st.integers() | texts_to_store
scalars = json_scalars | floats
texts = st.one_of(
    st.dates(),
    st.datetimes(),
    st.timedeltas(),
    st.times(),
    st.uuids(),
    st.fractions(),
    st.decimals(allow_nan=False),
    st.complex_numbers(allow_nan=False),
    st.binary(max_size=8),
    st.builds(pathlib.PurePosixPath, names),
)
dict_keys = st.text(max_size=6) | st.integers(-50, 50) | st.floats(-50, 50) | st.booleans()
arrays = npst.arrays(
    dtype=st.sampled_from(["<f8", "<f4", "<i8", "|u1", "|b1", "<c16", "<M8[ns]", "<m8[s]", "<U3"]),
    shape=npst.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4),
)


def nested(leaves: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """*leaves* in lists, tuples and dicts whose keys are text."""
    return st.recursive(
        leaves,
        lambda inner: (
            st.lists(inner, max_size=4)
            | st.lists(inner, max_size=3).map(tuple)
            | st.dictionaries(names, inner, max_size=4)
        ),
        max_leaves=12,
    )


json_params = st.dictionaries(names, nested(json_scalars), max_size=5)
params = st.dictionaries(
    names,
    nested(
        st.one_of(
            scalars,
            texts,
            arrays,
            st.sampled_from(Flavour),
            st.sets(st.integers() | st.text(max_size=3), max_size=4),
            st.frozensets(st.integers(), max_size=4),
        )
    ),
    max_size=5,
)

#: One value for each row of the contract's table that becomes text.
AS_TEXT = {
    "path": pathlib.PurePosixPath("data/in.h5"),
    "date": datetime.date(2026, 1, 2),
    "datetime": datetime.datetime(2026, 1, 2, 3, 4, 5, tzinfo=datetime.UTC),
    "time": datetime.time(3, 4, 5),
    "timedelta": datetime.timedelta(days=1, microseconds=2),
    "decimal": Decimal("1.50"),
    "fraction": Fraction(1, 3),
    "uuid": uuid.UUID(int=7),
    "complex": complex(1, 2),
    "bytes": b"abc",
}
