"""The document of a JSON parameter: what has one, what is refused, and that the same value is made of it again."""

from __future__ import annotations

import abc
import dataclasses
import enum
import fractions
import functools
import json
import threading
from typing import Any, ClassVar, Generic, NamedTuple, TypeVar

import attrs
import numpy as np
import pandas as pd
import pydantic
import pytest

from entropic import hash_params, register_hasher
from entropic.values import hashing
from entropic.values.hashing import NoForm, digest
from entropic.values.parameter_documents import Documents, alike, key_form, rebuild
from tests.support.key_pairs import PAIRS, SAME
from tests.support.naming import shown

T = TypeVar("T")
AWKWARD = [[], 1e-13, -0.0, 2**70]  # of which the published release made another key


def made(value: Any) -> Any:
    """Return what the function gets."""
    documents = Documents()
    return rebuild(documents.of(value).stored, documents.sources)


def refusal(value: Any) -> str:
    with pytest.raises(NoForm) as caught:
        Documents().of(value)
    return "".join(reversed(caught.value.steps)) + f" {caught.value}"


@pytest.mark.parametrize("value", [1, "é", None, [1, {"a": [True, 0.3]}], {"x": {}}, AWKWARD], ids=shown)
def test_plain_json_is_its_own_document(value):
    document = Documents().of(value)

    assert document.stored == value
    assert document.is_plain
    assert value == AWKWARD or digest({"x": document.key}) == hash_params({"x": value})


# Objects that are their fields


@dataclasses.dataclass
class Plain:
    x: Any
    y: Any = 1


@dataclasses.dataclass(frozen=True, slots=True)
class Slotted:
    x: Any


@dataclasses.dataclass
class Box(Generic[T], abc.ABC):
    item: T


@dataclasses.dataclass
class Checked(Generic[T]):
    item: T

    def __post_init__(self) -> None:
        assert self.item


@dataclasses.dataclass
class Sorted:
    """Its constructor changes what it is given."""

    values: list[int]

    def __post_init__(self) -> None:
        self.values.sort()


@dataclasses.dataclass
class Undecorated(Plain):
    pass


class Heir(Plain):
    """A subclass without the decorator."""


class Keyed(NamedTuple):
    a: Any
    b: Any = 2


class Subclassed(Keyed):
    """A named tuple with attributes of its own."""


@attrs.define
class Private:
    _a: int
    b: int = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        self.b = self._a + 1

    @functools.cached_property
    def c(self) -> int:
        return self.b + 1


class Model(pydantic.BaseModel):
    x: float = pydantic.Field(alias="ex")
    _seen: list[int] = pydantic.PrivateAttr(default_factory=list)


class Late(pydantic.BaseModel):
    x: int
    _twice: int = 0

    def model_post_init(self, context: Any) -> None:
        self._twice = 2 * self.x


def with_attribute(value: Any, **attributes: Any) -> Any:
    vars(value).update(attributes)
    return value


def touched(value: Private) -> Private:
    assert value.c
    return value


@pytest.mark.parametrize(
    "value",
    [
        Plain(1, (2,)),
        Slotted({1, 2}),
        Box([1]),
        Box[int]([1]),
        Checked[int](1),
        Sorted([3, 1]),
        Undecorated(1),
        Heir(1),
        Keyed((1,), b=[2]),
        Subclassed(1),
        Private(3),
        touched(Private(3)),
        Model(ex=1),
        Late(x=3),
    ],
    ids=lambda value: type(value).__name__,
)
def test_object_is_made_again_of_its_fields(value):
    got = made(value)

    assert type(got) is type(value)
    assert got is not value
    assert got == value
    assert Documents().of(got) == Documents().of(value)


@pytest.mark.parametrize("class_", [Box, Checked])
def test_type_that_a_generic_class_was_called_with_is_no_part_of_its_object(class_):
    assert Documents().of(class_[int](1)) == Documents().of(class_(1))
    assert vars(made(class_[int](1))) == {"item": 1}


def test_object_is_not_changed_by_a_constructor_that_sorts_in_place():
    given = Sorted([1, 3])
    given.values = values = [3, 1]

    assert "Sorted.values is not determined by the fields" in refusal(given)
    assert values == [3, 1]


class Dict(dict):  # type: ignore[type-arg]
    pass


@dataclasses.dataclass
class FieldsInADict(dict):  # type: ignore[type-arg]
    x: int


@dataclasses.dataclass
class Picky:
    x: int

    def __post_init__(self) -> None:
        if self.x > 1:
            raise ValueError("too large")


def test_fraction_of_more_digits_than_python_writes_is_kept_and_told_from_the_next():
    one, other = fractions.Fraction(10**5000, 7), fractions.Fraction(10**5000 + 1, 7)

    assert made([one]) == [one]
    assert digest(key_form(Documents().of([one]).key)) != digest(key_form(Documents().of([other]).key))


def grown(value: Picky) -> Picky:
    value.x = 5
    return value


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (with_attribute(Plain(1), extra=2), "Plain.extra is not determined by the fields (x, y)"),
        (with_attribute(Heir(1), extra=2), "Heir.extra is not determined by the fields (x, y)"),
        (with_attribute(Plain(1), lock=threading.Lock()), "Plain.lock is not determined"),
        (with_attribute(Subclassed(1), extra=2), "Subclassed.extra is not determined by the fields (a, b)"),
        (grown(Picky(1)), "Picky, of which none can be made from its fields (x): ValueError: too large"),
        (FieldsInADict(1), "FieldsInADict, which has no stable form: pass dict(value)"),
        (Dict(a=1), "Dict, which has no stable form: pass dict(value), or say what identifies it"),
        ([Plain({"a": [1, object()]})], "[0].x['a'][1] is a builtins.object, which has no stable form"),
        (Plain(float("nan")), ".x is NaN, which is equal to nothing, which JSON cannot hold"),
        ({("a", 1): object()}, "[('a', 1)] is a builtins.object"),
        (np.arange(2).view(np.matrix), "numpy.matrix, which has no stable form"),
        (np.arange(2).astype(np.longdouble), "whose bytes differ between machines"),
        (pd.Timestamp("2026-01-02"), "such as value.to_pydatetime()"),
        (type, "builtins.type, which has no stable form"),
    ],
    ids=shown,
)
def test_value_that_its_document_would_not_hold_is_refused_with_place_and_way_out(value, words):
    assert words in refusal(value)


def test_two_classes_of_one_name_in_one_call_are_refused():
    def define() -> Any:
        @dataclasses.dataclass
        class Local:
            x: int

        return Local

    one, other = define(), define()

    assert Documents().of(one(1)) == Documents().of(other(1))  # a notebook's cell that ran again
    assert "Local, and so is something else in this call" in refusal([one(1), other(1)])


def closing(width: int) -> Any:
    @dataclasses.dataclass
    class Kernel:
        name: str

        @property
        def scaled(self) -> str:
            return self.name * width

    return Kernel("k")


def calling(function: Any) -> Any:
    class Kernel(pydantic.BaseModel):
        name: str

        def apply(self) -> Any:
            return function(self.name)

    return Kernel(name="k")


def inheriting(width: int) -> Any:
    class Base:
        def scaled(self) -> int:
            return width

    @dataclasses.dataclass
    class Kernel(Base):
        name: str

    return Kernel("k")


def helping(width: int) -> Any:
    def helper() -> int:
        return width

    @attrs.define
    class Kernel:
        name: str

        def scaled(self) -> int:
            return helper()

    return Kernel("k")


def having(width: int) -> Any:
    @dataclasses.dataclass
    class Kernel:
        name: str
        scale: ClassVar[int] = width

    return Kernel("k")


def of_members(width: int) -> Any:
    class Kernel(enum.Enum):
        K = 1

        def scaled(self) -> int:
            return width

    return Kernel.K


@pytest.mark.parametrize(
    ("make", "name"),
    [
        (closing, "width"),
        (calling, "function"),
        (inheriting, "width"),
        (helping, "helper.width"),
        (having, "width"),
        (of_members, "width"),
    ],
    ids=shown,
)
def test_class_that_another_call_would_make_otherwise_is_refused(make, name):
    assert f"which was made in a function and hangs there on {name!r}" in refusal([make(1)])


def test_class_that_every_call_makes_alike_is_taken():
    import fractions as numbers
    from math import sin

    count = 3

    def helper(x: float) -> float:
        return sin(x)

    class Method(enum.Enum):
        RK4 = count

    @dataclasses.dataclass(frozen=True, slots=True)
    class Part:
        x: int = 3
        order: ClassVar[int] = 4

        def scaled(self) -> float:
            return helper(super().__hash__()) * self.x

    @attrs.define
    class Whole:
        parts: list[Part]
        share: numbers.Fraction = attrs.field(default=numbers.Fraction(1, 3))

        @functools.cached_property
        def first(self) -> Any:
            return Part(self.parts[0].x)

    class Settings(pydantic.BaseModel):
        whole: Any
        method: Method = Method.RK4

        @pydantic.field_validator("method")
        @classmethod
        def take(cls, method: Method) -> Method:
            return method

    value = Settings(whole=Whole([Part()]))

    assert made([value]) == [value]


def test_hasher_says_what_identifies_an_object_and_its_class_counts(monkeypatch):
    monkeypatch.setattr(hashing, "_hashers", {})
    register_hasher(Dict, lambda value: sorted(value))

    document = Documents().of(Dict(b=1, a=2))

    assert document.stored["value"] == [f"{__name__}.Dict", ["a", "b"]]
    assert type(made(Dict(b=1))) is Dict


def test_depth_is_limited_and_not_by_python():
    deep: Any = []
    for _ in range(199):
        deep = [deep]
    cyclic: list[Any] = [1]
    cyclic.append({"a": (cyclic,)})

    assert Documents().of(deep).is_plain
    assert "nested more than 200 levels deep" in refusal([deep])
    assert "contains itself" in refusal(cyclic)


@pytest.mark.parametrize(
    "frame",
    [
        pd.DataFrame({"a": [1, 2], "b": [[1], {"x": (2,)}], "c": ["x", None]}, index=["p", "q"]),
        pd.Series([[1], np.nan, None, pd.Timestamp("2026-01-02", tz="UTC"), pd.NA], dtype=object, name="s"),
        pd.DataFrame(
            {"t": pd.date_range("2026", periods=3, tz="Europe/Berlin"), "i": pd.array([1, None, 3])}
        ),
        pd.DataFrame({"a": pd.Categorical([3, 1, 3])}, index=pd.MultiIndex.from_product([["a"], [1, 2, 3]])),
        pd.Index(["a", 1], dtype=object),
    ],
    ids=shown,
)
def test_frame_is_copied_and_shares_nothing_with_the_one_given(frame):
    got = made([frame])[0]

    assert type(got) is type(frame)
    assert Documents().of(got) == Documents().of(frame)
    (pd.testing.assert_index_equal if isinstance(frame, pd.Index) else require_equal)(got, frame)
    if isinstance(frame, pd.DataFrame) and "b" in frame:
        assert got["b"].iloc[0] is not frame["b"].iloc[0]


def require_equal(one: Any, other: Any) -> None:
    equal = pd.testing.assert_frame_equal if isinstance(one, pd.DataFrame) else pd.testing.assert_series_equal
    equal(one, other)


def test_array_comes_back_as_a_copy_that_can_be_written_to():
    given = np.broadcast_to(np.float32(1.5), (2, 3))

    got = made({"a": given})["a"]
    got[0, 0] = 2

    assert (got.dtype, got.shape, given[0, 0]) == (np.float32, (2, 3), 1.5)


# Keys and rows


JSON_PAIRS = [pair for pair in PAIRS if pair.column == "Any (JSON)" and pair.outcome == SAME]


@pytest.mark.parametrize("pair", JSON_PAIRS, ids=lambda pair: shown(pair.label))
def test_stored_document_survives_json_and_is_alike(pair):
    left, right = (Documents().of(values["x"]) for values in pair.values())

    travelled = json.loads(json.dumps(left.stored, allow_nan=False))

    assert left.key == right.key
    assert alike(right.stored, travelled)


def test_sets_of_floats_are_sorted_as_the_key_has_them():
    one, other = ({(0.1 + 0.2, "b"), (0.3, "a")}, {(0.3, "b"), (0.1 + 0.2, "a")})

    documents = [Documents().of(value) for value in (one, other)]

    assert documents[0].stored != documents[1].stored
    assert documents[0].key == documents[1].key
    assert alike(documents[0].stored, documents[1].stored)
    assert key_form(documents[0].key) == documents[0].key
