"""Typed JSON: every plain value comes back equal, of the same type."""

import collections
import datetime
import enum
import json
import math
from zoneinfo import ZoneInfo

import numpy as np
import pytest
from hypothesis import given

from entropic import DecodeError
from entropic.values.documents import decode, encode
from tests.support.strategies import nested
from tests.support.values import Mesh, Point, is_same, plain


def there_and_back(value):
    document, arrays = encode(value)
    return decode(json.loads(json.dumps(document, allow_nan=False)), arrays.__getitem__)


@given(nested(plain))
def test_plain_value_comes_back_equal_and_of_its_type(value):
    assert is_same(there_and_back(value), value)


@pytest.mark.parametrize(
    "value",
    [
        (),
        {},
        {"__type__": "tuple", "value": [1]},
        {1: "int", "1": "text", (1, 2): "tuple", None: 0, 2.5: 0, b"b": 0},
        float("nan"),
        [math.inf, -math.inf, -0.0],
        complex(float("nan"), -0.0),
        10**5000,
        -(2**70),
        "\ud800 half a pair",
        'quote " and \0 and \u2028',
        datetime.datetime(2026, 10, 25, 2, 30, fold=1),
        datetime.datetime(2026, 1, 2, tzinfo=datetime.UTC),
        datetime.datetime(2026, 1, 2, tzinfo=datetime.timezone(datetime.timedelta(microseconds=1))),
        datetime.time(2, 30, fold=1),
        {frozenset([frozenset([1]), "a"])},
        np.float64("nan"),
        np.float32(0.1),
        np.int8(-3),
        np.bool_(True),
        np.complex64(1 - 2j),
        np.datetime64("2026-01-02T03:04:05.123456789"),
        np.datetime64("NaT"),
        np.timedelta64(3, "h"),
        np.str_("ä"),
        np.bytes_(b"\xff"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_value_that_json_has_no_word_for_comes_back_as_it_was(value):
    assert is_same(there_and_back(value), value)


def test_what_json_has_stands_as_it_is():
    document, arrays = encode({"a": [1, 2.5, "x", None, True]})

    assert document == {"a": [1, 2.5, "x", None, True]}
    assert arrays == {}


def test_equal_sets_make_equal_documents():
    words = [f"word {n}" for n in range(50)]

    assert encode(set(words)) == encode(set(reversed(words)))


def test_arrays_are_named_by_their_place():
    one, two = np.zeros(2), np.ones(3)

    document, arrays = encode({"run": {"x": one}, "all": [1, two]})

    assert list(arrays) == ["run/x", "all/1"]
    assert arrays["run/x"] is one
    assert document["all"][1] == {"__type__": "array", "value": "all/1"}


@pytest.mark.parametrize("key", ["a/b", ".", "..", "", "#1", "new\nline", "\ud800", 3, ("a", 1)])
def test_arrays_whose_place_is_no_name_are_numbered(key):
    document, arrays = encode({"first": np.zeros(1), key: np.ones(1)})

    assert list(arrays) == (["#0", "#1"] if not isinstance(key, str) else ["first", "#1"])
    assert decode(document, arrays.__getitem__)[key] is arrays["#1"]


class Level(enum.IntEnum):
    ONE = 1


Pair = collections.namedtuple("Pair", "a b")

STRANGE = [
    Level.ONE,
    Pair(1, 2),
    Point(1.0, 2.0),
    collections.OrderedDict(a=1),
    object(),
    lambda: 1,
    range(3),
    np.array([None, 1]),
    np.array([1, 2]).view(np.recarray),
    Mesh(1),
    datetime.datetime(2026, 1, 2, tzinfo=ZoneInfo("UTC")),
    datetime.time(1, tzinfo=datetime.UTC),
]


@pytest.mark.parametrize("value", STRANGE, ids=lambda value: type(value).__name__)
def test_anything_else_is_refused_by_its_exact_type_and_place(value):
    with pytest.raises(TypeError) as caught:
        encode({"results": [0, value]})

    message = str(caught.value)
    assert "at [results][1]" in message
    assert type(value).__qualname__ in message
    assert "entropic.register_codec(" in message


def test_value_that_contains_itself_is_refused():
    value = []
    value.append(value)

    with pytest.raises(TypeError, match="contains itself"):
        encode(value)


def test_document_of_a_type_from_the_future_is_an_error():
    with pytest.raises(DecodeError, match="'quaternion'"):
        decode({"__type__": "quaternion", "value": [1, 2, 3, 4]}, {}.__getitem__)
