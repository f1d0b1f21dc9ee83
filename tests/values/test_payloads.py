"""Values in a row or in a file: equal and of the same types when they come back, or refused."""

import enum
import math
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from entropic import DecodeError, register_codec
from entropic.values.payloads import INLINE, load_payload, parse_payload, payload_of

plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text() | st.binary() | st.datetimes()
    | st.builds(range, st.integers(), st.integers()),
    lambda inner: st.lists(inner, max_size=3)
    | st.tuples(inner, inner)
    | st.dictionaries(st.text(max_size=3) | st.integers(), inner, max_size=3)
    | st.sets(st.integers() | st.text(max_size=3), max_size=3),
    max_leaves=6,
)  # fmt: skip


def types_of(value):
    if isinstance(value, dict):
        return dict, [(types_of(key), types_of(item)) for key, item in value.items()]
    if isinstance(value, list | tuple):
        return type(value), [types_of(item) for item in value]
    return type(value)


@given(plain)
@example(range(1000))
@example(range(10, 0, -3))
@example({"a": (1, {2, 3}, b"\0"), 1: range(0)})
@example("\0\ud800😀%'")
def test_plain_value_comes_back_equal_from_its_text(value):
    payload = payload_of(value)

    back = parse_payload(payload.text)

    assert back == value
    assert types_of(back) == types_of(value)
    assert payload.text.isascii()


@pytest.mark.parametrize(
    "value",
    [
        np.arange(3), np.asfortranarray(np.arange(6.0).reshape(2, 3)), np.array(["ß", ""]), np.float32(0.1),
        np.array("2020", "M8[D]"), np.zeros((0, 3)), np.zeros(2, [("a", "<f4"), ("ü", ">i8", 2)]), np.array(1 + 2j),
        np.ma.masked_array([1, 2], [True, False]),
    ],
    ids=str,
)  # fmt: skip
def test_arrays_come_back_from_a_file_in_whatever_holds_them(value, tmp_path):
    payload = payload_of({"a": [value, {"b": (value, 1)}], 2: "text"})
    payload.save(str(tmp_path / "x.h5"))

    back = load_payload(str(tmp_path / "x.h5"))

    assert list(back) == ["a", 2]
    for found in (back["a"][0], back["a"][1]["b"][0]):
        assert (type(found), found.dtype, found.shape) == (type(value), value.dtype, value.shape)
        np.testing.assert_array_equal(found, value)
    assert not payload.is_inline or isinstance(value, np.float32)


def test_long_text_goes_into_a_file(tmp_path):
    assert payload_of("x" * (INLINE - 2)).is_inline
    payload = payload_of(["x" * INLINE, float("nan")])
    assert not payload.is_inline

    payload.save(str(tmp_path / "x.h5"))

    back = load_payload(str(tmp_path / "x.h5"))
    assert back[0] == "x" * INLINE
    assert math.isnan(back[1])


class Colour(enum.Enum):
    RED = 1


@dataclass
class Point:
    x: int = 0


class Strange:
    pass


class Dial:
    def __init__(self, position):
        self.position = position


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (Colour.RED, "a member of an Enum: store its name"),
        ({"p": Point()}, "an object of a class: store a dict"),
        ([Strange()], r"at \[0\]: it is a .*Strange\. Store plain values .*register_codec\(Strange, suffix"),
        (iter([]), r"can be read once only\. Store what it gives"),
        (np.array([None]), "of dtype object"),
        (lambda: 1, "function"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_another_process_may_not_know_is_refused(value, text):
    with pytest.raises(TypeError, match=text):
        payload_of(value)


def test_value_that_contains_itself_is_refused():
    value = []
    value.append(value)

    with pytest.raises(TypeError, match="contains itself"):
        payload_of(value)


def test_type_with_a_codec_is_kept_wherever_it_stands(tmp_path):
    def write(dial, path):
        Path(path).write_text(str(dial.position))

    register_codec(Dial, ".payloads_dial", save=write, load=lambda path: Dial(int(Path(path).read_text())))
    payload = payload_of({"dials": (Dial(3), 1)})
    payload.save(str(tmp_path / "x.h5"))

    back = load_payload(str(tmp_path / "x.h5"))

    assert back["dials"][0].position == 3
    assert back["dials"][1] == 1


@pytest.mark.parametrize(
    ("one", "other", "is_same"),
    [
        ({"a": 1, "b": 2}, {"b": 2, "a": 1}, True),
        ({"a": 1}, {"a": 1.0}, False),
        (np.arange(6).reshape(2, 3), np.asfortranarray(np.arange(6).reshape(2, 3)), True),
        (np.arange(6), np.arange(6).reshape(2, 3), False),
        (np.arange(3), np.arange(3.0), False),
        (np.arange(3), [0, 1, 2], False),
        (np.zeros(0), np.zeros(0), True),
        (np.array(1), np.array(2), False),
        (float("nan"), float("nan"), True),
        ({1, 2, 3}, {3, 2, 1}, True),
    ],
    ids=str,
)
def test_content_tells_values_apart_and_not_how_they_are_written(one, other, is_same):
    assert (payload_of(one).content() == payload_of(other).content()) is is_same


@pytest.mark.parametrize(
    "text",
    ["{", '{"__entropic__":"array","value":"a"}', "[" * 5000, '{"__entropic__":"range","value":[1,2]}'],
)
def test_text_that_this_release_does_not_write_is_an_error(text):
    with pytest.raises(DecodeError):
        parse_payload(text)


@given(st.lists(st.integers(), min_size=3, max_size=3))
@settings(max_examples=20)
def test_range_that_is_none_is_an_error(parts):
    text = f'{{"__entropic__":"range","value":{parts}}}'.replace(" ", "")
    if parts[2]:
        assert parse_payload(text) == range(*parts)
    else:
        with pytest.raises(DecodeError):
            parse_payload(text)


def test_pipe_in_the_place_of_a_file_is_not_opened(tmp_path):
    os.mkfifo(tmp_path / "x.h5")

    with pytest.raises(DecodeError, match="neither a file nor a folder"):
        load_payload(str(tmp_path / "x.h5"))
