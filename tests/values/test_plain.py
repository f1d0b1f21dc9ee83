"""JSON as databases hold it: what becomes of each kind of value, and what none of them takes."""

import collections
import enum
import json
import math
from datetime import UTC, date, datetime, time
from decimal import Decimal
from fractions import Fraction
from pathlib import Path, PurePosixPath
from types import MappingProxyType
from uuid import UUID

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from entropic.errors import ParameterError
from entropic.sql.columns import FiniteJSON
from entropic.values.plain import checked_custom, non_finite, plain

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=8,
)


class Colour(enum.Enum):
    RED = ("red", 1)


class Level(enum.IntEnum):
    ONE = 1


@given(json_values)
def test_json_is_plain_as_it_is(value):
    assert repr(plain(value)) == repr(value)  # of NaN too, which is not equal to itself


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (Colour.RED, ["red", 1]),
        (Level.ONE, 1),
        (np.float32(0.5), 0.5),
        (np.int8(-3), -3),
        (np.bool_(True), True),
        (np.str_("a"), "a"),
        (np.array([[1, 2], [3, 4]]), [[1, 2], [3, 4]]),
        (np.array(2.5), 2.5),
        (np.array([None, Decimal("1.0")]), [None, "1.0"]),
        (np.datetime64("2026-01-02"), "2026-01-02"),
        ((1, (2, 3)), [1, [2, 3]]),
        ({1}, [1]),
        (frozenset([1]), [1]),
        ({1: "a", None: "b", (1, 2): "c"}, {"1": "a", "None": "b", "(1, 2)": "c"}),
        (MappingProxyType({"a": (1,)}), {"a": [1]}),
        (collections.OrderedDict(a=1), {"a": 1}),
        (datetime(2026, 1, 2, 3, 4, 5, 6, UTC), "2026-01-02T03:04:05.000006+00:00"),
        (date(2026, 1, 2), "2026-01-02"),
        (time(3, 4), "03:04:00"),
        (Decimal("1.50"), "1.50"),
        (UUID(int=1), "00000000-0000-0000-0000-000000000001"),
        (PurePosixPath("a/b"), "a/b"),
        (Path("a/b"), "a/b"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_value_that_has_a_form_in_json_becomes_it(value, expected):
    found = plain({"a": [value]})["a"][0]

    assert found == expected
    assert type(found) is type(expected)
    assert json.loads(json.dumps(found)) == expected


@pytest.mark.parametrize(
    ("value", "named"),
    [
        (object(), "object"),
        (1j, "complex"),
        (b"x", "bytes"),
        (np.array([1j]), "complex"),
        (len, "builtin_function_or_method"),
        ("\ud800", "half of a surrogate pair"),
        ({"\ud800": 1}, "half of a surrogate pair"),
        (10**5000, "an int of 16610 bits, which is too many digits"),
        ({10**5000: 1}, "the key 0x.*: it has too many digits"),
        (Fraction(10**5000), "Fraction"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_value_that_has_none_is_refused_by_its_type(value, named):
    with pytest.raises(TypeError, match=named):
        plain({"a": [value]})


def test_value_that_contains_itself_is_refused():
    value = {}
    value["a"] = [value]

    with pytest.raises(TypeError, match="contains itself"):
        plain(value)


@pytest.mark.parametrize(
    ("value", "path"),
    [
        (1.5, None),
        (math.nan, "value"),
        (-math.inf, "value"),
        ([1, [2.0, math.inf]], "value[1][1]"),
        ({"a": {"b": (0, math.nan)}}, "value['a']['b'][1]"),
        (MappingProxyType({"a": math.nan}), "value['a']"),
        (np.float64("nan"), "value"),
        (["nan", True, None, 10**400], None),
    ],
)
def test_non_finite_says_where_the_first_one_stands(value, path):
    assert non_finite(value) == path


@given(json_values)
def test_column_of_json_takes_what_is_finite_and_nothing_else(value):
    try:
        text = json.dumps(value, allow_nan=False)
    except ValueError:
        with pytest.raises(ValueError, match="no NaN or infinity"):
            FiniteJSON().process_bind_param(value, None)
    else:
        assert json.dumps(FiniteJSON().process_bind_param(value, None)) == text


def test_custom_data_is_as_databases_hold_it():
    assert checked_custom({"when": date(2026, 5, 1), "n": np.int64(3)}) == {"when": "2026-05-01", "n": 3}


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (object(), "custom_data 'note' cannot be stored: JSON cannot hold"),
        (
            {"a": [1.0, math.nan]},
            r"custom_data 'note' cannot be stored: value\['a'\]\[1\] is NaN or infinite",
        ),
    ],
)
def test_custom_data_that_no_database_holds_is_refused_by_its_name(value, message):
    with pytest.raises(ParameterError, match=message):
        checked_custom({"n": 1, "note": value})
