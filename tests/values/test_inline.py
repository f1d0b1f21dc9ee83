"""A value as one text: it comes back equal and of the same types, or it is refused."""

import enum
import math
import subprocess
import sys
from collections import Counter, OrderedDict, defaultdict, deque
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from entropic import DecodeError
from entropic.values import inline
from entropic.values.inline import from_text, is_alike, to_text
from entropic.values.payloads import payload_of
from tests.support import strategies
from tests.support.values import is_same


class Colour(enum.Enum):
    RED = 1


@dataclass
class Point:
    x: int


surrogates = st.text(st.characters(), max_size=12)
values = strategies.nested(
    strategies.json_scalars
    | surrogates
    | st.floats()
    | strategies.texts
    | strategies.arrays
    | st.dictionaries(surrogates, st.integers(), max_size=3)
    | st.sets(st.integers(), max_size=3)
)


@given(values)
@example({"__entropic__": "arrays", "value": [1, {}]})
@example({"__entropic__": "object", "value": {"__entropic__": "tuple"}})
@example('"__entropic__":"object"')
@example(["\ud800", "\0", "\U0001f4a5", "%s", "'"])
@example({"a": np.arange(3), "#0": [np.array(["ß"]), np.zeros((0, 3)), np.array("2020", "M8[D]")]})
def test_value_comes_back_equal_and_of_the_same_types(value):
    text = to_text(value)

    assert text.isascii()
    assert "\0" not in text
    assert is_same(from_text(text), value)


@pytest.mark.parametrize(
    "value",
    [
        np.zeros(3, [("a", "<f4"), ("ü", ">i8", 2)]), np.asfortranarray(np.arange(6.0).reshape(2, 3)),
        np.arange(12)[::3], np.array([b"a\0", b"b"]), np.float32(0.1), np.ma.masked_array([1, 2], [True, False]),
        Counter("aab"), OrderedDict(b=1, a=2), defaultdict(list, a=[1]), deque([1], 3), 10**5000,
        datetime(2026, 1, 1, tzinfo=UTC), timedelta(microseconds=1), Decimal("1.10"), -0.0, math.inf,
    ],
    ids=lambda value: type(value).__name__,
)  # fmt: skip
def test_more_types_come_back(value):
    assert is_same(from_text(to_text([value])), [value])


class Text(str):
    __slots__ = ()


@pytest.mark.parametrize(
    ("value", "why"),
    [
        ({1: "a"}, "the keys of a dict must be text, and one is 1"),
        ([{"deep": {None: 1}}], "must be text, and one is null"),
        ({"__entropic__": 1, (1, 2): 3}, "must be text"),
        (Point(1), "an object of a class: store a dict"),
        ({"a": [Colour.RED]}, "a member of an Enum"),
        ({"a": [object()]}, r" at \[a\]\[0\]: it is <object"),
        (print, "builtin_function_or_method"),
        (np.array([object()]), "of dtype object"),
        (iter([1]), "can be read once only. Store what it gives"),
        (Text("a"), "Store plain values"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_would_not_come_back_everywhere_is_refused(value, why):
    with pytest.raises(TypeError, match=f"cannot store the value.*{why}") as caught:
        to_text(value)

    assert "register_codec" not in str(caught.value)
    assert "returned" not in str(caught.value)


def test_nesting_that_is_too_deep_is_refused():
    deep: list[object] = []
    for _ in range(100_000):
        deep = [deep]
    circle: list[object] = []
    circle.append(circle)

    for value in (deep, circle):
        with pytest.raises(TypeError, match="contains itself, or is nested too deeply"):
            to_text(value)


@pytest.mark.parametrize("depth", [1, 10, 50, 100])
def test_nesting_comes_back(depth):
    value: object = 1
    for number in range(depth):
        value = {"a": [value]} if number % 2 else (value,)

    assert is_same(from_text(to_text(value)), value)


@pytest.mark.parametrize(
    "text",
    [
        "", "{", "[" * 100_000, '{"__entropic__":"no such"}', '{"__entropic__":"array","value":"a"}',
        '{"__entropic__":"arrays","value":[1]}', '{"__entropic__":"arrays","value":3}', '{"__entropic__":"arrays"}',
        '{"__entropic__":"arrays","value":[{"__entropic__":"array","value":"a"},{}]}',
        '{"__entropic__":"arrays","value":[{"__entropic__":"array","value":"a"},{"a":"gASVBAAAAAAA"}]}',
        '{"__entropic__":"arrays","value":[{"__entropic__":"array","value":"a"},[1]]}',
    ],
)  # fmt: skip
def test_text_that_nobody_wrote_is_refused(text):
    with pytest.raises(DecodeError):
        from_text(text)


def test_arrays_without_numpy_loaded_are_read():
    text = to_text({"a": np.arange(3)})
    script = f"from entropic.values.inline import from_text; print(from_text({text!r})['a'].sum())"

    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)

    assert done.stdout == "3\n"


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [
        (1, True, True), (math.nan, float("nan"), True), ([math.nan], [float("nan")], True),
        (np.arange(2), np.arange(2), True),
        (np.arange(2), np.arange(3), False), (np.zeros(0), np.zeros(0), True), (np.zeros(0), np.zeros((0, 1)), False),
        ({"a": np.arange(2)}, {"a": np.arange(2)}, True), (np.arange(2), None, False), (1, object(), False),
        ((1,), [1], False), ({"a": 1, "b": np.ones(2)}, {"b": np.ones(2), "a": 1}, True),
        ([np.arange(6).reshape(2, 3)], [np.asfortranarray(np.arange(6).reshape(2, 3))], True),
        (np.arange(2, dtype="<i8"), np.arange(2, dtype=">i4"), False),
    ],
)  # fmt: skip
def test_values_are_alike_if_equal_or_of_the_same_content(one, other, expected):
    assert is_alike(one, other) is expected


ALIGNED = np.dtype([("a", "i1"), ("b", "f8")], align=True)
PADDED = {
    "aligned": ALIGNED,
    "nested": np.dtype([("x", ALIGNED, (2,)), ("y", "i2")], align=True),
    "disordered": np.dtype({"names": ["b", "a"], "formats": ["f8", "i1"], "offsets": [8, 0], "itemsize": 16}),
    "overlapping": np.dtype({"names": ["a", "b"], "formats": ["i4", "i2"], "offsets": [0, 2], "itemsize": 8}),
}


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("kind", PADDED)
def test_what_stands_between_the_fields_of_a_structure_is_no_part_of_it(kind, order):
    dtype = PADDED[kind]
    bare = np.zeros((2, 3), dtype, order=order)
    littered = np.full(6 * dtype.itemsize, 255, "u1").view(dtype).reshape(2, 3)
    for name in dtype.names:
        littered[name] = bare[name]

    assert is_alike(littered, bare)
    assert payload_of(littered).content() == payload_of(bare).content()
    assert to_text(np.array(littered, order=order)) == to_text(bare)
    back = from_text(to_text(littered))
    assert back.dtype == dtype
    for name in dtype.names:
        assert back[name].tolist() == bare[name].tolist()


@pytest.mark.parametrize(
    "value",
    [None, True, "é\ud800\0", 0, -(10**18), 10**18, 10**30, 1e17, 1e300, -0.0, [], {}, [[[[1]]]], {"a": [{"b": None}]},
     {"a": {"b": {"c": {"d": 1}}}}, float("nan"), [float("-inf")], {"__entropic__": 1}],
)  # fmt: skip
def test_plain_value_is_written_as_any_other(value, monkeypatch):
    text = to_text(value)
    monkeypatch.setattr(inline, "_is_plain", lambda value, depth: False)

    assert to_text(value) == text
    assert repr(from_text(text)) == repr(value)
