from __future__ import annotations

import collections
import dataclasses
import datetime
import decimal
import enum
import functools
import hashlib
import json
import math
import os
import pathlib
import subprocess
import sys
import threading
import types
import uuid
from typing import Any

import attrs
import numpy as np
import pandas as pd
import pydantic
import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from entropic.errors import UnhashableParamError
from entropic.values import hashing
from entropic.values.hashing import (
    canonical,
    digest,
    exact,
    hash_params,
    normalise,
    register_hasher,
    rounded,
    rounded_apart,
)
from tests.support import strategies
from tests.support.naming import shown

VECTORS = json.loads((pathlib.Path(__file__).parents[1] / "assets" / "hash_vectors.json").read_text("utf-8"))
relaxed = settings(deadline=None)


class Color(enum.Enum):
    RED = "red"
    BLUE = 2


def evaluate(expression: str) -> dict[str, Any]:
    names = {"Color": Color, "datetime": datetime, "pathlib": pathlib, "decimal": decimal, "uuid": uuid}
    return eval(expression, names)


def of(value: Any) -> str:
    return hash_params({"x": value})


# The byte contract


@pytest.mark.parametrize("vector", VECTORS["hashes"], ids=lambda vector: vector["params"])
def test_hash_params_of_a_vector_is_the_published_hash(vector):
    assert hash_params(evaluate(vector["params"])) == vector["hash"]


@pytest.mark.parametrize(
    "vector",
    [
        entry
        for entry in VECTORS["record_ids"]
        if "'id'" not in entry["params"] and '"id"' not in entry["params"]
    ],
    ids=lambda vector: vector["params"],
)
def test_hash_params_of_a_record_vector_leaves_reserved_keys_out(vector):
    assert hash_params(evaluate(vector["params"])) == vector["id"]


@relaxed
@given(strategies.json_params)
def test_hash_params_of_json_values_is_the_digest_of_their_json(params):
    text = json.dumps(params, sort_keys=True, separators=(",", ":"))

    assert hash_params(params) == hashlib.sha256(text.encode()).hexdigest()[:16]


def test_hash_params_keeps_an_id_in():
    assert hash_params({"n": 5, "id": "a"}) != hash_params({"n": 5})


def test_hash_params_leaves_reserved_names_in_where_they_are_nested():
    assert hash_params({"cfg": {"created_at": 1}}) != hash_params({"cfg": {"created_at": 2}})


def test_hash_params_does_not_change_what_it_is_given():
    params = {"n": 5, "result_file": "a.h5", "cfg": {"b": (0.1 + 0.2,), "a": 1}}

    hash_params(params)

    assert params == {"n": 5, "result_file": "a.h5", "cfg": {"b": (0.1 + 0.2,), "a": 1}}
    assert list(params["cfg"]) == ["b", "a"]


def test_hash_params_of_another_mapping_equals_that_of_the_dict():
    params = {"n": 5, "dt": 0.1}

    assert hash_params(types.MappingProxyType(params)) == hash_params(params)


def test_hash_params_of_no_mapping_raises():
    with pytest.raises(UnhashableParamError, match=r"params is a builtins\.list: pass a mapping"):
        hash_params([1, 2])


def test_digest_is_the_start_of_the_sha256_of_the_canonical_text():
    form = normalise({"b": [1.5, None], "a": "é"})

    assert canonical(form) == '{"a":"\\u00e9","b":[1.5,null]}'
    assert digest(form) == hashlib.sha256(canonical(form).encode()).hexdigest()[:16]


# The table


@pytest.mark.parametrize("name", strategies.AS_TEXT)
def test_value_with_a_telling_text_hashes_as_that_text(name):
    value = strategies.AS_TEXT[name]
    text = repr(value) if isinstance(value, bytes) else str(value)

    assert normalise(value) == text


@pytest.mark.parametrize(
    ("scalar", "python"),
    [
        (np.int64(5), 5),
        (np.uint8(5), 5),
        (np.float64(0.1), 0.1),
        (np.float32(0.5), 0.5),
        (np.bool_(True), True),
        (np.str_("a"), "a"),
        (np.bytes_(b"a"), b"a"),
        (np.complex128(1 + 2j), 1 + 2j),
        (np.datetime64("2026-01-02"), datetime.date(2026, 1, 2)),
        (np.datetime64("2026-01-02T03:04:05"), datetime.datetime(2026, 1, 2, 3, 4, 5)),
        (np.timedelta64(90, "s"), datetime.timedelta(seconds=90)),
    ],
    ids=shown,
)
def test_numpy_scalar_hashes_as_its_python_value(scalar, python):
    assert of(scalar) == of(python)
    assert type(normalise(scalar)) is type(normalise(python))


def test_numpy_times_without_a_python_value_keep_apart():
    values = [
        5,
        None,
        "NaT",
        np.datetime64(5, "ns"),
        np.timedelta64(5, "ns"),
        np.timedelta64(5, "Y"),
        np.array([5]).astype("m8")[0],  # of no unit
        np.datetime64("NaT", "s"),
        np.datetime64("NaT", "ns"),
        np.timedelta64("NaT", "ns"),
        np.datetime64("20000-01-01"),
        np.datetime64("20000-01-02"),
    ]

    assert len({of(value) for value in values}) == len(values)


@pytest.mark.parametrize(
    "value",
    [np.longdouble(1), np.clongdouble(1), np.void(b"ab"), np.zeros((), [("a", "i4"), ("b", "f8")])[()]],
    ids=["longdouble", "clongdouble", "void", "record"],
)
def test_numpy_scalar_without_a_python_value_raises(value):
    with pytest.raises(UnhashableParamError, match=r"params\['x'\] is a numpy\."):
        of(value)


class Level(enum.IntEnum):
    LOW = 1


class Mode(enum.StrEnum):
    FAST = "fast"


class Pair(enum.Enum):
    HALF = (0.1 + 0.2, Color.RED)


@pytest.mark.parametrize(
    ("member", "value"),
    [(Color.BLUE, 2), (Level.LOW, 1), (Mode.FAST, "fast"), (Pair.HALF, [0.3, "red"])],
    ids=shown,
)
def test_enum_hashes_as_its_normalised_value(member, value):
    assert of(member) == of(value)
    assert type(normalise(member)) is type(value)


class Celsius(float):
    def __str__(self) -> str:
        return "warm"


class Name(str):
    def __str__(self) -> str:
        return "anonymous"


class Count(int):
    def __int__(self) -> int:
        return 0


@pytest.mark.parametrize(
    ("value", "plain"),
    [(Celsius(0.1 + 0.2), 0.3), (Name("bob"), "bob"), (Count(3), 3)],
    ids=["float", "str", "int"],
)
def test_subclass_of_a_scalar_hashes_as_the_scalar(value, plain):
    form = normalise(value)

    assert (form, type(form)) == (plain, type(plain))


Point = collections.namedtuple("Point", "x y")


class Steps(list):
    """A list of a class of its own."""


@pytest.mark.parametrize(
    ("value", "plain"),
    [
        (collections.OrderedDict(b=1, a=2), {"a": 2, "b": 1}),
        (collections.defaultdict(list, a=[1]), {"a": [1]}),
        (Steps([1, 2]), [1, 2]),
        (Point(1, 2), [1, 2]),
        ((1, (2,)), [1, [2]]),
    ],
    ids=["OrderedDict", "defaultdict", "list", "namedtuple", "tuple"],
)
def test_subclass_of_a_container_hashes_as_the_container(value, plain):
    assert of(value) == of(plain)


@dataclasses.dataclass
class Euler:
    dt: float
    tags: list[str] = dataclasses.field(default_factory=list)


@dataclasses.dataclass(slots=True, frozen=True)
class Rk4:
    dt: float
    tags: tuple[str, ...] = ()


@attrs.define
class Heun:
    dt: float


class Midpoint(pydantic.BaseModel):
    dt: float


class Loose(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(extra="allow")
    dt: float


SOLVERS = [Euler, Rk4, Heun, Midpoint, Loose]


def test_objects_of_different_classes_keep_apart():
    keys = {of(solver(dt=0.1)) for solver in SOLVERS} | {of({"dt": 0.1})}

    assert len(keys) == len(SOLVERS) + 1


@pytest.mark.parametrize("solver", SOLVERS)
def test_objects_with_equal_fields_are_one_and_with_others_two(solver):
    assert of(solver(dt=0.1 + 0.2)) == of(solver(dt=0.3))
    assert of(solver(dt=0.1)) != of(solver(dt=0.2))


def test_pydantic_extra_fields_count():
    assert of(Loose(dt=0.1, order=2)) != of(Loose(dt=0.1, order=3))
    assert of(Loose(dt=0.1, order=2)) != of(Loose(dt=0.1))


@dataclasses.dataclass
class Partly:
    a: int
    b: int = dataclasses.field(init=False)


def test_dataclass_field_that_is_not_set_is_left_out():
    value = Partly(1)

    unset = of(value)
    value.b = 2

    assert normalise(value)["fields"] == {"a": 1, "b": 2}
    assert of(value) != unset


class Tuned(Euler):
    def __init__(self, dt: float, gain: float) -> None:
        super().__init__(dt)
        self.gain = gain


class Renamed(Euler):
    pass


def test_undecorated_subclass_with_its_own_attribute_raises():
    with pytest.raises(UnhashableParamError, match="'gain' is not a field"):
        of(Tuned(0.1, 2.0))


def test_undecorated_subclass_without_attributes_of_its_own_hashes_under_its_name():
    assert normalise(Renamed(0.1))["__object__"].endswith("Renamed")


def test_sets_of_equal_elements_are_one_and_no_list():
    assert of({1, 2, 3}) == of(frozenset([3, 2, 1]))
    assert of({1, 2}) != of([1, 2])
    assert of({1, "1", (2, 3), None}) == of({None, (2, 3), "1", 1})


class Version:
    def __init__(self, text: str) -> None:
        self.text = text

    def __str__(self) -> str:
        return self.text


def test_object_with_its_own_text_hashes_as_that_text():
    assert of(Version("1.2")) == of("1.2")


class Opaque:
    pass


class Bag:
    def __str__(self) -> str:
        return "a bag"

    def __len__(self) -> int:
        return 1


class Stream:
    def __str__(self) -> str:
        return "a stream"

    def __iter__(self):
        return iter(())


class Tensor:
    def __str__(self) -> str:
        return "[0 ... 0]"

    def __array__(self):
        return np.zeros(3)


class Labelled(np.ndarray):
    pass


class Frame(pd.DataFrame):
    pass


class Raw(np.void):
    """Like the dtypes of other packages, whose dtype.str says nothing but the size."""


REFUSED = {
    "object": (Opaque(), "Opaque"),
    "function": (evaluate, r"builtins\.function"),
    "lambda": (lambda: None, r"builtins\.function"),
    "builtin": (len, r"builtins\.builtin_function_or_method"),
    "method": (Version("1").__str__, r"builtins\.method"),
    "partial": (functools.partial(len), r"functools\.partial"),
    "class": (Opaque, r"builtins\.type"),
    "dataclass": (Euler, r"builtins\.type"),
    "generator": ((i for i in ()), r"builtins\.generator"),
    "sized": (Bag(), "Bag"),
    "iterable": (Stream(), "Stream"),
    "array-like": (Tensor(), "Tensor"),
    "address": (Version("<Engine at 0x7f0012AB>"), "Version"),
    "range": (range(3), r"builtins\.range"),
    "bytearray": (bytearray(b"a"), r"builtins\.bytearray"),
    "deque": (collections.deque([1]), r"collections\.deque"),
    "array subclass": (np.zeros(3).view(Labelled), "Labelled"),
    "matrix": (np.zeros((2, 2)).view(np.matrix), "matrix"),
    "object array": (np.array([1, "a"], dtype=object), r"numpy\.ndarray"),
    "longdouble array": (np.zeros(2, "g"), r"float64"),
    "clongdouble array": (np.zeros(2, "G"), r"float64"),
    "object field": (np.zeros(2, [("a", "O")]), r"numpy\.ndarray"),
    "foreign dtype": (np.zeros(2, np.dtype((Raw, 2))), r"numpy\.ndarray"),
    "generator of numbers": (np.random.default_rng(1), r"pass the seed"),
    "frame subclass": (Frame({"a": [1]}), "Frame"),
    "object masked array": (np.ma.array([1, None], dtype=object), r"numpy\.ndarray"),
}
if hasattr(np, "dtypes") and hasattr(np.dtypes, "StringDType"):
    REFUSED["variable strings"] = (np.array(["a"], np.dtypes.StringDType()), r"numpy\.ndarray")


@pytest.mark.parametrize("name", REFUSED)
def test_value_without_a_stable_form_raises_with_its_place_type_and_remedy(name):
    value, type_ = REFUSED[name]

    with pytest.raises(UnhashableParamError, match=type_) as caught:
        hash_params({"cfg": {"f": [1, value]}})

    assert str(caught.value).startswith("params['cfg']['f'][1] ")
    assert "register_hasher" in str(caught.value)


@pytest.mark.parametrize(
    ("params", "place"),
    [
        ({"x": Euler(dt=Opaque())}, "params['x'].dt "),
        ({"x": Heun(dt=[Opaque()])}, "params['x'].dt[0] "),
        ({"x": {Opaque()}}, "params['x']{...} "),
        ({"x": {1: Opaque()}}, "params['x'][1] "),
        ({"x": pd.Series([1, Opaque()])}, "params['x'][1] "),
        ({"x": pd.DataFrame({"a": [Opaque()]})}, "params['x']['a'][0] "),
        ({"x": Loose(dt=1, f=Opaque())}, "params['x']['f'] "),
    ],
    ids=["dataclass", "attrs", "set", "number key", "series", "frame", "extra"],
)
def test_refusal_names_the_way_to_the_value(params, place):
    with pytest.raises(UnhashableParamError) as caught:
        hash_params(params)

    assert str(caught.value).startswith(place)


def test_normalise_with_a_name_uses_it_in_the_refusal():
    with pytest.raises(UnhashableParamError, match=r"^params\['x'\]\[0\] is a "):
        normalise([Opaque()], name="params['x']")


# Keys of dicts


def test_dict_with_number_keys_sorts_them_as_numbers():
    value = {10: "a", 9: "b", 2.5: "c", -1: "d"}

    assert canonical(normalise(value)) == '{"-1":"d","2.5":"c","9":"b","10":"a"}'


@pytest.mark.parametrize(
    ("key", "plain"),
    [(np.int64(3), 3), (np.float32(0.5), 0.5), (np.bool_(True), True), (np.str_("a"), "a"), (Level.LOW, 1)],
    ids=shown,
)
def test_dict_key_that_is_a_scalar_hashes_as_the_plain_key(key, plain):
    form = normalise({key: 0})

    assert form == {plain: 0}
    assert [type(key) for key in form] == [type(plain)]


def test_dict_with_mixed_keys_hashes_them_as_text():
    assert of({1: "a", "b": 2, 2.0: 3}) == of({"1": "a", "b": 2, "2.0": 3})
    assert of({True: "a", "b": 2}) == of({"true": "a", "b": 2})


def test_dict_with_a_nan_key_hashes_alike_in_each_order():
    assert of({math.nan: 1, 2: 3, 10: 4}) == of({10: 4, 2: 3, math.nan: 1})


@pytest.mark.parametrize(
    "value", [{1: "a", "1": "b"}, {True: 1, "true": 2}, {float("nan"): 1, float("nan"): 2}], ids=shown
)
def test_dict_keys_that_are_the_same_text_raise(value):
    with pytest.raises(
        UnhashableParamError, match=r"params\['x'\] has two keys that are the same as text.*register_"
    ):
        of(value)


@pytest.mark.parametrize(
    "key",
    [
        None,
        (1, 2),
        Color.RED,
        b"a",
        1j,
        np.datetime64(5, "ns"),
        np.timedelta64(5, "ns"),
        datetime.date(2026, 1, 2),
    ],
)
def test_dict_key_that_is_no_scalar_raises(key):
    with pytest.raises(UnhashableParamError, match=r"^params\['x'\] has the key .*register_hasher"):
        of({key: 1})


# Floats


def is_moved(number: float) -> bool:
    return abs(round(number, 12) - number) > 1e-9 * abs(number)


@relaxed
@given(strategies.floats)
@example(0.0)
@example(-0.0)
@example(1e-13)
@example(5e-324)
@example(6.62607015e-34)
def test_rounded_apart_stays_within_a_billionth(number):
    assert abs(rounded_apart(number) - number) <= 1.001e-9 * abs(number)


@relaxed
@given(strategies.floats.filter(lambda number: not is_moved(number)) | strategies.ordinary_floats)
def test_rounded_apart_of_a_float_that_rounding_keeps_is_the_rounded(number):
    assert repr(rounded_apart(number)) == repr(rounded(number))


@relaxed
@given(
    st.floats(1e-307, 1e290) | st.floats(1e-14, 1e-2), st.floats(1.00000001001, 1.1), st.sampled_from([1, -1])
)
def test_rounded_apart_keeps_floats_apart_that_differ_by_a_hundred_millionth(number, factor, sign):
    assert rounded_apart(sign * number) != rounded_apart(sign * number * factor)


@relaxed
@given(strategies.floats | st.floats(1e-4, 1e-3))
@example(4.000000004e-4 + 1e-16)
def test_rounded_apart_of_its_result_is_its_result(number):
    once = rounded_apart(number)

    assert repr(rounded_apart(once)) == repr(once)


@pytest.mark.parametrize("number", [0.0, -0.0, math.inf, -math.inf, math.nan])
def test_rounded_apart_of_a_special_float_is_the_float(number):
    assert repr(rounded_apart(number)) == repr(number)


def test_small_floats_are_one_run_when_rounded_and_several_when_apart():
    values = [0.0, 1e-13, 2e-13, 6.62607015e-34, 1.380649e-23, 1.602176634e-19, 9.1093837015e-31]

    assert {rounded(value) for value in values} == {0.0}
    assert len({rounded_apart(value) for value in values}) == len(values)


def test_exact_leaves_the_float_as_it_is():
    assert normalise([0.1 + 0.2, np.float64(1e-300)], exact) == [0.1 + 0.2, 1e-300]


def test_normalise_applies_number_once_to_each_float():
    seen: list[float] = []

    def number(value: float) -> float:
        seen.append(value)
        return value

    normalise(
        {"a": 1.5, "b": [2.5, (3.5, 4)], "c": {"d": np.float64(5.5)}, "e": np.ones(3), "f": True}, number
    )

    assert seen == [1.5, 2.5, 3.5, 5.5]


# Arrays and frames


def test_array_form_shows_digest_dtype_and_shape():
    octets = np.arange(6, dtype="<i4").tobytes()

    assert normalise(np.arange(6, dtype="<i4").reshape(2, 3)) == {
        "__ndarray__": hashlib.sha256(octets).hexdigest(),
        "dtype": "<i4",
        "shape": [2, 3],
    }


def test_arrays_that_differ_in_the_middle_keep_apart():
    one, other = np.zeros(100_000), np.zeros(100_000)
    other[50_000] = 1e-300

    assert str(one) == str(other)
    assert of(one) != of(other)


def test_array_in_another_memory_order_hashes_alike():
    array = np.arange(24.0).reshape(2, 3, 4)

    assert of(np.asfortranarray(array)) == of(array)
    assert of(np.concatenate([array, array], axis=2)[:, :, ::2][:, :, :4]) != of(array)
    assert of(array[::-1][::-1]) == of(array)


def test_arrays_of_the_same_bytes_keep_apart_by_dtype_and_shape():
    array = np.zeros(4, "<i8")
    others = [
        array.view("<u8"),
        array.view("<f8"),
        array.view("<M8[ns]"),
        array.view("<M8[s]"),
        array.reshape(2, 2),
    ]
    empty = [np.zeros((0, 3)), np.zeros((3, 0)), np.zeros(0), np.zeros(3, "<U0")]
    values = [array, *others, *empty, np.array(0), 0, [0, 0, 0, 0]]

    assert len({of(value) for value in values}) == len(values)


def test_structured_array_hashes_its_fields_and_not_its_padding():
    dtype = np.dtype([("a", "u1"), ("b", "<f8", (2,)), ("c", [("d", "<i2")])], align=True)
    one, other = np.zeros(3, dtype), np.frombuffer(bytearray(b"\xff" * (3 * dtype.itemsize)), dtype)
    for name in dtype.names:
        other[name] = one[name]
    changed = one.copy()
    changed["c"]["d"][1] = 7

    assert one.tobytes() != other.tobytes()
    assert of(one) == of(other)
    assert of(one) != of(changed)


@relaxed
@given(strategies.arrays.filter(lambda array: array.size > 0), st.data())
def test_arrays_that_differ_in_one_element_keep_apart(array, data):
    place = data.draw(st.integers(0, array.size - 1))
    changed = array.copy()
    octets = changed.reshape(-1)[place : place + 1].view("u1")
    octets[0] ^= 1

    assert of(changed) != of(array)
    assert of(array.copy()) == of(array)


def test_masked_arrays_keep_apart_by_data_mask_and_fill_value():
    values = [
        np.ma.array([1, 2, 3]),
        np.ma.array([1, 2, 3], mask=[0, 1, 0]),
        np.ma.array([1, 2, 3], mask=[0, 0, 1]),
        np.ma.array([1, 2, 4]),
        np.ma.array([1, 2, 3], fill_value=7),
        np.array([1, 2, 3]),
    ]

    assert len({of(value) for value in values}) == len(values)
    assert of(np.ma.array([1, 2, 3], mask=False)) == of(values[0])


def variants_of_series() -> list[Any]:
    attributed = pd.Series([1.0, 2.0])
    attributed.attrs["unit"] = "m"
    zoned = pd.Series(pd.to_datetime(["2026-01-01", "2026-01-02"], utc=True))
    return [
        pd.Series([1.0, 2.0]),
        pd.Series([1.0, 2.0 + 1e-15]),
        pd.Series([1, 2]),
        pd.Series([1, 2], dtype="Int64"),
        pd.Series([1, None], dtype="Int64"),
        pd.Series([1.0, 2.0], dtype="Float64"),
        pd.Series([1.0, 2.0 + 1e-15], dtype="Float64"),
        pd.Series([1.0, 2.0], name="a"),
        pd.Series([1.0, 2.0], index=[1, 2]),
        pd.Series([1.0, 2.0], index=["a", "b"]),
        pd.Series([1.0, 2.0], index=pd.Index([0, 1], name="i")),
        pd.Series([1.0, 2.0], index=pd.MultiIndex.from_tuples([(0, "a"), (1, "b")])),
        pd.Series([1.0, 2.0], index=pd.MultiIndex.from_tuples([(0, "a"), (1, "c")])),
        attributed,
        pd.Series(["a", "b"], dtype="string"),
        pd.Series(["a", None], dtype="string"),
        pd.Series(["a", "b"], dtype=object),
        pd.Series([1, "1"], dtype=object),
        pd.Series([1, 1], dtype=object),
        pd.Series([1, 1.0], dtype=object),
        pd.Series([1, pd.NA], dtype=object),
        pd.Series([1, pd.NaT], dtype=object),
        pd.Series([1, None], dtype=object),
        pd.Series([1, float("nan")], dtype=object),
        pd.Series(["a", "b"], dtype="category"),
        pd.Series(pd.Categorical(["a", "b"], categories=["a", "b", "c"])),
        pd.Series(pd.Categorical(["a", "b"], categories=["b", "a"])),
        pd.Series(pd.Categorical(["a", "b"], ordered=True)),
        pd.Series(pd.to_datetime(["2026-01-01", "2026-01-02"])),
        zoned,
        zoned.dt.tz_convert("Europe/Paris"),
        zoned.dt.tz_localize(None).dt.to_period("D"),
        zoned.dt.tz_localize(None).dt.to_period("h"),
        pd.Series(pd.to_timedelta([1, 2], unit="s")),
        pd.Series(pd.arrays.IntervalArray.from_breaks([0.0, 1.0, 2.0])),
        pd.Series(pd.arrays.IntervalArray.from_breaks([0.0, 1.0, 2.0], closed="left")),
        pd.Series(pd.arrays.SparseArray([1.0, 2.0])),
    ]


def variants_of_frames_and_labels() -> list[Any]:
    return [
        pd.DataFrame({"a": [1, 2], "b": [3.0, 4.0]}),
        pd.DataFrame({"a": [1, 2], "c": [3.0, 4.0]}),
        pd.DataFrame({"b": [3.0, 4.0], "a": [1, 2]}),
        pd.DataFrame({"a": [1, 2], "b": [3.0, 5.0]}),
        pd.DataFrame({"a": [1, 2], "b": [3, 4]}),
        pd.DataFrame({"a": [1, 2], "b": [3.0, 4.0]}, index=[0, 2]),
        pd.DataFrame([[1, 2], [3, 4]], columns=["a", "a"]),
        pd.DataFrame([[1, 9], [3, 4]], columns=["a", "a"]),
        pd.DataFrame(),
        pd.Index([1, 2]),
        pd.Index([1, 3]),
        pd.Index([1, 2], name="a"),
        pd.MultiIndex.from_arrays([[1, 2]]),
        pd.Period("2026-01-01 00:00", "h"),
        pd.Period("2026-01-01 00:00", "min"),
        pd.Interval(0, 1),
        pd.Interval(0, 1, closed="left"),
        pd.Timestamp(2026, 1, 1),
        pd.NaT,
        pd.NA,
        None,
    ]


@pytest.mark.parametrize("variants", [variants_of_series, variants_of_frames_and_labels])
def test_pandas_values_that_differ_keep_apart_and_equal_ones_are_one(variants):
    keys = [of(value) for value in variants()]

    assert [key for key, times in collections.Counter(keys).items() if times > 1] == []
    assert keys == [of(value) for value in variants()]


@pytest.mark.parametrize(
    ("value", "key"),
    [
        (pd.Period("2026-01-02", "D"), "4c68ce223881f9a7"),
        (pd.Interval(0, 1), "d9cbedd9bde94613"),
        (pd.Interval(0.5, 1.5, closed="left"), "38dc343d6c568965"),
        (pd.NaT, "c1c833183bce719b"),
        (pd.NA, "324d8e4716ea74e2"),
        (pd.Timestamp("2026-01-02 03:04:05"), "6f1bd39d06d87868"),
        (pd.Timedelta("1h"), "15c97f51a0c1aef8"),
    ],
    ids=shown,
)
def test_key_of_a_pandas_scalar_never_changes(value, key):
    assert hash_params({"x": value}) == key


def test_series_index_hashes_by_its_values_and_not_by_how_it_is_kept():
    assert of(pd.Series([1, 2], index=pd.RangeIndex(2))) == of(pd.Series([1, 2], index=pd.Index([0, 1])))


@relaxed
@given(st.lists(strategies.floats, min_size=1, max_size=6), st.data())
def test_series_that_differ_in_one_element_keep_apart(elements, data):
    place = data.draw(st.integers(0, len(elements) - 1))
    changed = list(elements)
    changed[place] = math.nextafter(changed[place], math.inf)

    for dtype in ("float64", "Float64", object):
        assert of(pd.Series(changed, dtype=dtype)) != of(pd.Series(elements, dtype=dtype))


@relaxed
@given(st.sets(st.integers() | st.text(max_size=4), min_size=1), st.integers() | st.text(max_size=4))
def test_sets_that_differ_in_one_element_keep_apart(elements, other):
    assume(other not in elements)

    assert of(elements | {other}) != of(elements)
    assert of({*list(elements)[1:], other}) != of(elements)


# Properties


@relaxed
@given(strategies.params, st.randoms(use_true_random=False))
def test_hash_params_does_not_depend_on_order(params, random):
    def shuffled(value: Any) -> Any:
        if isinstance(value, dict):
            items = [(key, shuffled(item)) for key, item in value.items()]
            random.shuffle(items)
            return dict(items)
        return [shuffled(item) for item in value] if isinstance(value, list) else value

    assert hash_params(shuffled(params)) == hash_params(params)


@relaxed
@given(strategies.params, st.sampled_from([rounded, rounded_apart, exact]))
def test_normal_form_is_its_own_normal_form(params, number):
    form = normalise(params, number)

    assert canonical(normalise(form, number)) == canonical(form)


@pytest.mark.parametrize("variants", [variants_of_series, variants_of_frames_and_labels])
def test_normal_form_of_pandas_values_is_its_own_normal_form(variants):
    for value in variants():
        assert of(normalise(value)) == of(value)


@pytest.mark.parametrize(
    "value",
    [
        Euler(1e-13, ["a"]),
        Heun(0.1),
        Loose(dt=1, a={1: 2}),
        np.ma.array([1], mask=[1]),
        np.datetime64(5, "ns"),
    ],
    ids=shown,
)
def test_normal_form_of_an_object_is_its_own_normal_form(value):
    assert of(normalise(value)) == of(value)


@relaxed
@given(st.dictionaries(strategies.dict_keys, strategies.scalars, max_size=5))
def test_dict_with_keys_of_any_kind_hashes_alike_in_each_order_or_raises(value):
    backwards = dict(reversed(value.items()))
    try:
        form = normalise(value)
    except UnhashableParamError:
        with pytest.raises(UnhashableParamError):
            normalise(backwards)
    else:
        assert canonical(normalise(backwards)) == canonical(form)
        assert canonical(normalise(form)) == canonical(form)


PROCESS = """
import dataclasses, datetime, decimal, uuid
from entropic.values.hashing import hash_params

@dataclasses.dataclass
class Solver:
    dt: float
    names: frozenset

words = "alpha beta gamma delta epsilon zeta eta theta".split()
values = [
    set(words), frozenset(words), {frozenset(words[:4]), frozenset(words[4:])},
    {word: {other: 0.1 for other in set(words)} for word in set(words)},
    Solver(0.1, frozenset(words)), {1, "1", 2.5, None}, uuid.UUID(int=7), {datetime.date(2026, 1, 2), b"a"},
]
print([hash_params({"x": value}) for value in values])
"""


def run_python(code: str, **environment: str) -> str:
    path = os.pathsep.join(entry for entry in sys.path if entry)
    environment = {**os.environ, "PYTHONPATH": path, **environment}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    )
    return done.stdout


def test_hash_params_is_the_same_in_processes_of_every_hash_seed():
    answers = {run_python(PROCESS, PYTHONHASHSEED=seed) for seed in ("0", "4294967295", "random")}

    assert len(answers) == 1
    assert answers.pop().count("'") == 16


def test_hashing_loads_no_optional_package():
    loaded = run_python(
        "import sys, pathlib\n"
        "from entropic.values.hashing import hash_params\n"
        "hash_params({'a': pathlib.PurePosixPath('b'), 'c': {1, 2}, 'd': {1: 2, 'e': 3}})\n"
        "print(*{'numpy', 'pandas', 'pydantic', 'attr', 'attrs'} & set(sys.modules))"
    )

    assert loaded.strip() == ""


# What cannot be written


def test_container_in_itself_raises():
    listed: list[Any] = [1]
    listed.append(listed)
    mapped: dict[str, Any] = {"a": 1}
    mapped["self"] = mapped
    solver = Euler(0.1)
    solver.tags.append(solver)

    for value in (listed, mapped, solver):
        with pytest.raises(UnhashableParamError, match="contains itself or is nested too deeply"):
            of(value)


def test_nesting_of_any_depth_hashes_or_raises_our_error():
    refused = 0
    for depth in range(10, sys.getrecursionlimit() + 200, 10):
        value: Any = 1
        for _ in range(depth):
            value = [value]
        try:
            of(value)
        except UnhashableParamError:
            refused += 1

    assert 0 < refused < depth / 10


def test_canonical_of_a_form_nested_too_deeply_raises():
    form: Any = 1
    for _ in range(200_000):
        form = [form]

    with pytest.raises(UnhashableParamError, match="nested too deeply"):
        canonical(form)


def test_integer_too_long_for_text_raises():
    with pytest.raises(UnhashableParamError, match=r"hex\(n\)"):
        of(10**5000)


# Hashers


class Mesh:
    def __init__(self, cells: Any) -> None:
        self.cells = cells


class FineMesh(Mesh):
    pass


class FinestMesh(FineMesh):
    pass


def test_registered_hasher_stands_for_the_value_without_a_tag():
    calls = []
    register_hasher(Mesh, lambda mesh: calls.append(mesh) or (np.float64(0.1 + 0.2), mesh.cells))

    assert of(Mesh(Color.RED)) == of([0.3, "red"])
    assert len(calls) == 1


def test_registered_hasher_of_the_nearest_class_wins():
    register_hasher(Mesh, lambda mesh: "coarse")
    register_hasher(FineMesh, lambda mesh: "fine")

    assert normalise([Mesh(1), FineMesh(1), FinestMesh(1)]) == ["coarse", "fine", "fine"]


def test_registered_hasher_wins_over_every_rule():
    class Shade(enum.Enum):
        DARK = 1

    class Length(float):
        pass

    @dataclasses.dataclass
    class Grid:
        n: int

    class Units(np.ndarray):
        pass

    class Table(pd.DataFrame):
        pass

    values = [Shade.DARK, Length(1), Grid(1), np.zeros(2).view(Units), Table({"a": [1]})]
    for value in values:
        register_hasher(type(value), lambda value: type(value).__name__)

    assert normalise(values) == ["Shade", "Length", "Grid", "Units", "Table"]


def test_registered_again_replaces_the_hasher():
    class Cell:
        pass

    register_hasher(Cell, lambda cell: 1)
    register_hasher(Cell, lambda cell: 2)

    assert normalise(Cell()) == 2


def test_registered_hasher_that_returns_its_argument_raises():
    class Loop:
        pass

    register_hasher(Loop, lambda loop: loop)

    with pytest.raises(UnhashableParamError, match="contains itself"):
        of(Loop())


def test_registered_hasher_that_raises_raises_as_itself():
    class Broken:
        pass

    register_hasher(Broken, lambda broken: 1 / 0)

    with pytest.raises(ZeroDivisionError):
        of(Broken())


@pytest.mark.parametrize("type_", [str, int, float, bool, type(None), dict, list, tuple])
def test_register_hasher_for_a_json_type_raises(type_):
    with pytest.raises(ValueError, match=f"form of {type_.__name__} is fixed"):
        register_hasher(type_, repr)

    assert type_ not in hashing._hashers


@pytest.mark.parametrize(("type_", "function"), [("Mesh", repr), (list[int], repr), (Mesh, "repr")])
def test_register_hasher_of_something_else_raises(type_, function):
    with pytest.raises(TypeError, match="register_hasher needs a"):
        register_hasher(type_, function)


def test_register_hasher_from_many_threads_loses_none():
    kinds = [type(f"Kind{i}", (), {}) for i in range(400)]
    start = threading.Barrier(8)

    def register(part: int) -> None:
        start.wait()
        for kind in kinds[part::8]:
            register_hasher(kind, lambda value: type(value).__name__)

    threads = [threading.Thread(target=register, args=(part,)) for part in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert normalise([kind() for kind in kinds]) == [kind.__name__ for kind in kinds]
