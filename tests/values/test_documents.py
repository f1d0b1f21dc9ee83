"""Typed JSON: every plain value comes back equal, of the same type."""

import collections
import datetime
import enum
import fractions
import json
import math
from typing import Any

import numpy as np
import pydantic
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from entropic import DecodeError
from entropic.values.documents import MARKER, decode, encode, know
from tests.support.strategies import nested
from tests.support.values import Mesh, is_same, plain

KINDS = [
    "array bool bytearray bytes complex date datetime decimal dict float fraction frozenset int masked numpy path",
    "posix path|scalar|set|time|timedelta|tuple|uuid|windows path",
]
kinds = st.sampled_from([*KINDS[0].split(), *KINDS[1].split("|")])
json_leaves = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=4) | kinds
json_values = st.recursive(
    json_leaves,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.just(MARKER) | st.just("value") | st.text(max_size=2), inner, max_size=3)
        | st.fixed_dictionaries({MARKER: kinds, "value": inner})
    ),
    max_leaves=10,
)


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
        {"__entropic__": "tuple", "value": [1]},
        {1: "int", "1": "text", (1, 2): "tuple", None: 0, 2.5: 0, b"b": 0},
        float("nan"),
        [math.inf, -math.inf, -0.0],
        complex(float("nan"), -0.0),
        10**5000,
        fractions.Fraction(10**5000, 3),
        -(2**70),
        "\ud800 half a pair",
        ["\ud83d\ude00", "\ud83d\ud83d\ude00\ude00 and \U0001f600", "\ude00\ud83d"],
        {"\ud83d\ude00": 1, "\U0001f600": 2},
        collections.OrderedDict({"\ud83d\ude00": {"\ud83d\ude00", "\U0001f600"}}),
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
        np.datetime64("NaT", "s"),
        np.timedelta64(3, "h"),
        np.str_("ä"),
        np.bytes_(b"\xff"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_value_that_json_has_no_word_for_comes_back_as_it_was(value):
    assert is_same(there_and_back(value), value)


@given(
    st.recursive(plain, lambda inner: st.dictionaries(st.just(MARKER) | st.just("value"), inner, max_size=2))
)
def test_dict_that_has_the_marker_key_comes_back(value):
    assert is_same(there_and_back(value), value)


@pytest.mark.parametrize("value", [np.bytes_(b"a\0"), np.bytes_(b"\0"), np.str_("a\0\0"), np.str_("")])
def test_text_of_numpys_that_ends_in_nul_comes_back(value):
    back = there_and_back({"text": value})["text"]

    assert (type(back), back.dtype, len(back), back) == (type(value), value.dtype, len(value), value)


@pytest.mark.parametrize("type_", [np.longlong, np.ulonglong, np.int_, np.intc, np.uintp, np.short])
def test_integer_of_numpys_comes_back_of_its_own_type(type_):
    assert type(there_and_back([type_(5)])[0]) is type_


@pytest.mark.parametrize(
    "value",
    [
        np.ma.array([1, 2], mask=[0, 1], hard_mask=True, fill_value=7),
        np.ma.array([1, 2], hard_mask=True),
        np.ma.array([1, 2]),
        np.ma.array([1, 2], mask=[0, 0]),
        np.ma.array([(1, 2.0)], mask=[(0, 1)], dtype=[("a", "i4"), ("b", "f8")], hard_mask=True),
    ],
    ids=["hard", "hard without a mask", "no mask", "nothing masked", "fields"],
)
def test_masked_array_comes_back_with_what_its_mask_is(value):
    back = there_and_back([value])[0]

    assert (back.hardmask, back.mask is np.ma.nomask) == (value.hardmask, value.mask is np.ma.nomask)
    assert (str(back), back.fill_value, back.dtype) == (str(value), value.fill_value, value.dtype)


def test_name_of_an_offset_comes_back():
    zone = datetime.timezone(datetime.timedelta(hours=2), "there")

    moment, clock = there_and_back(
        [datetime.datetime(2026, 1, 2, tzinfo=zone), datetime.time(1, tzinfo=zone)]
    )

    assert (moment.tzname(), clock.tzname()) == ("there", "there")
    assert moment.utcoffset() == clock.utcoffset() == datetime.timedelta(hours=2)


def test_zone_of_pydantics_comes_back_as_one():
    read = pydantic.TypeAdapter(list[datetime.datetime]).validate_json(
        '["2026-01-02T00:00Z", "2026-01-02T00:00-01:30"]'
    )

    back = there_and_back([*read, datetime.time(1, tzinfo=read[1].tzinfo)])

    assert back[:2] == read
    assert [type(one.tzinfo) for one in back] == [type(read[0].tzinfo)] * 3
    assert [one.utcoffset() for one in back[1:]] == [-datetime.timedelta(minutes=90)] * 2


def test_member_that_is_gone_is_said_with_those_that_there_are():
    def methods(*names: str) -> Any:
        return enum.Enum("Method", names, module=__name__, qualname="Method")

    document, _ = encode([methods("EULER").EULER])
    know([methods("RK4", "HEUN")])

    with pytest.raises(
        DecodeError, match=r"the member EULER of .*Method, and the class has RK4, HEUN now: run"
    ):
        decode(document)


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
    assert document["all"][1] == {"__entropic__": "array", "value": "all/1"}


@pytest.mark.parametrize("key", ["a/b", ".", "..", "", "#1", "new\nline", "\ud800", 3, ("a", 1)])
def test_arrays_whose_place_is_no_name_are_numbered(key):
    document, arrays = encode({"first": np.zeros(1), key: np.ones(1)})

    assert list(arrays) == (["#0", "#1"] if not isinstance(key, str) else ["first", "#1"])
    assert decode(document, arrays.__getitem__)[key] is arrays["#1"]


class Elsewhere(datetime.tzinfo):
    """A zone without a name."""

    def utcoffset(self, when):
        return datetime.timedelta(hours=1)


class Longer(list):
    pass


STRANGE = [
    Longer([1]),
    collections.ChainMap({}),
    object(),
    lambda: 1,
    np.array([None, 1]),
    np.array([1, 2]).view(np.recarray),
    Mesh(1),
    datetime.datetime(2026, 1, 2, tzinfo=Elsewhere()),
    datetime.time(1, tzinfo=Elsewhere()),
]


@pytest.mark.parametrize("value", STRANGE, ids=lambda value: type(value).__name__)
def test_anything_else_is_refused_by_its_exact_type_and_place(value):
    with pytest.raises(TypeError) as caught:
        encode({"results": [0, value]})

    message = str(caught.value)
    assert "at [results][1]" in message
    assert type(value).__qualname__ in message
    # What cannot be registered must not be advised to be.
    is_fixed = hasattr(value, "tzinfo") or type(value) is object
    assert ("Return one with" if is_fixed else "entropic.register_codec(") in message


def test_value_that_contains_itself_is_refused():
    value = []
    value.append(value)

    with pytest.raises(TypeError, match="contains itself"):
        encode(value)


def test_document_of_a_type_from_the_future_is_an_error():
    with pytest.raises(DecodeError, match="'quaternion'"):
        decode({"__entropic__": "quaternion", "value": [1, 2, 3, 4]}, {}.__getitem__)


@given(json_values)
@example({MARKER: "tuple"})
@example({MARKER: ["tuple"], "value": []})
def test_any_json_decodes_or_is_a_decode_error(document):
    try:
        value = decode(document, {}.__getitem__)
    except DecodeError:
        return

    assert is_same(there_and_back(value), value)


@pytest.mark.parametrize(
    "document",
    [
        {MARKER: "tuple"},
        {MARKER: "tuple", "value": [], "more": 1},
        {MARKER: "tuple", "more": []},
        {MARKER: 1, "value": []},
        {MARKER: None, "value": []},
        {MARKER: ["tuple"], "value": []},
    ],
    ids=json.dumps,
)
def test_object_that_has_the_marker_key_without_being_ours_is_an_error(document):
    with pytest.raises(DecodeError, match=f"'{MARKER}', which marks what entropic wrote"):
        decode([document], {}.__getitem__)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("array", "nowhere"),
        ("array", ["a"]),
        ("int", 1),
        ("int", "0xz"),
        ("float", "one"),
        ("float", 1.0),
        ("tuple", "abc"),
        ("set", "abc"),
        ("set", [1, 1]),
        ("set", [[1]]),
        ("frozenset", {"a": 1}),
        ("dict", [["a"]]),
        ("dict", ["ab"]),
        ("dict", [["a", 1], ["a", 2]]),
        ("dict", [[[], 1]]),
        ("complex", [1.0]),
        ("complex", ["1", "2"]),
        ("bytes", "no base64!"),
        ("bytearray", [1]),
        ("datetime", ["2026-01-02", 0]),
        ("datetime", ["2026-01-02T00:00:00", 2, None]),
        ("datetime", ["2026-01-02T00:00:00", 0, 3600]),
        ("date", "yesterday"),
        ("time", ["25:00", 0]),
        ("timedelta", [10**12, 0, 0]),
        ("decimal", "1,5"),
        ("fraction", "1/0"),
        ("fraction", [1, 0]),
        ("fraction", [1, "2"]),
        ("fields", [1, 2, 3]),
        ("text", "a"),
        ("text", ["a", 1]),
        ("uuid", "1"),
        ("path", ["a", "b"]),
        ("numpy", ["<i1", 300]),
        ("numpy", ["<f8", "1.5"]),
        ("numpy", ["|O", 1]),
        ("numpy", ["<U1", "ab"]),
        ("numpy", ["<M8[eon]", 1]),
        ("scalar", [1]),
        ("masked", [1, 2, 3]),
        ("masked", [1, None, 3, True]),
        ("time", ["01:00", 0, {"__entropic__": "tuple", "value": [1, "x"]}]),
        ("numpy", ["q", 2**63]),
        ("numpy", ["d", 1.5]),
    ],
)
def test_content_that_does_not_fit_its_type_is_an_error(name, content):
    with pytest.raises(DecodeError, match=f"of type '{name}' whose content does not fit"):
        decode({"a": {MARKER: name, "value": content}}, {}.__getitem__)


def test_document_that_is_nested_too_deeply_is_an_error():
    document = []
    for _ in range(100_000):
        document = [document]

    with pytest.raises(DecodeError, match="too deeply"):
        decode(document, {}.__getitem__)
