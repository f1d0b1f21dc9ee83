"""What functions return comes back equal in type: objects, members, containers, zones, and frames within them."""

import abc
import enum
from collections import Counter, OrderedDict, UserDict, defaultdict, deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, time, timedelta, timezone
from pathlib import Path
from types import SimpleNamespace
from typing import (
    Annotated,
    Any,
    Generic,
    Literal,
    NamedTuple,
    Optional,
    Protocol,
    TypedDict,
    TypeVar,
    runtime_checkable,
)
from zoneinfo import ZoneInfo

import attrs
import numpy as np
import numpy.typing as npt
import pandas as pd
import pydantic
import pytest

from entropic import memoize, register_codec
from entropic.errors import DecodeError
from entropic.functions.signatures import returned_classes
from entropic.values import codecs, documents
from entropic.values.codecs import load, save
from tests.support.naming import shown

BERLIN = ZoneInfo("Europe/Berlin")


class Row(TypedDict):
    a: float
    more: "Row | None"


class Fit(NamedTuple):
    slope: float
    errors: tuple[float, ...] = ()


@dataclass
class Mesh:
    points: Any
    fit: Fit | None = None


@dataclass(frozen=True, slots=True)
class Frozen:
    x: float


T = TypeVar("T")


@dataclass
class Box(Generic[T]):
    item: T


@dataclass
class Squared:
    x: float
    square: float = field(init=False)

    def __post_init__(self):
        self.square = self.x**2


@attrs.define
class Part:
    n: int
    _hidden: str = "h"


class Model(pydantic.BaseModel):
    model_config = {"extra": "allow"}
    n: int
    tags: list[str] = []


class Scheme(enum.Enum):
    EULER = 1
    RK4 = 4


class Level(enum.IntEnum):
    LOW = 1


class Bits(enum.Flag):
    A = 1
    B = 2
    C = 4


class Opaque:
    pass


VALUES = [
    Fit(1.0),
    {"x": Fit(1.0, (0.1, 0.2))},
    (Frozen(2.0), Fit(2.0)),
    Squared(3.0),
    Part(1, "x"),
    Model(n=1, tags=["a"], other=2.5),
    [Scheme.RK4, Level.LOW, Bits.A | Bits.C, Bits(0)],
    {Scheme.RK4: 1, Fit(0.0): 2},
    defaultdict(int, a=1),
    defaultdict(list, {1: [2]}),
    OrderedDict([("b", 1), ("a", 2)]),
    Counter("abca"),
    deque([1, 2, 3], maxlen=3),
    datetime(2024, 3, 31, 2, 30, tzinfo=BERLIN, fold=1),
    datetime(2024, 1, 1, tzinfo=UTC),
    [time(1, 2, tzinfo=timezone(timedelta(hours=2))), time(3, 4, tzinfo=BERLIN), time(5, 6, fold=1)],
    Model(n=1, **{"__entropic__": "tuple", "value": [1]}),
]


@pytest.fixture(autouse=True)
def _registries(monkeypatch):
    """Forget what a test registers."""
    monkeypatch.setattr(codecs, "_known", codecs._known)
    monkeypatch.setattr(documents, "_classes", dict(documents._classes))


def round_trip(folder, value):
    save(value, str(folder / "value"))
    (path,) = folder.glob("value.*")
    return load(str(path))


def types_in(value):
    """The types of a value and of all that is in it."""
    inner = []
    if isinstance(value, Mapping):
        inner = [part for pair in value.items() for part in pair]
    elif isinstance(value, Sequence | deque) and not isinstance(value, str):
        inner = list(value)
    elif hasattr(value, "__dict__") and not isinstance(value, enum.Enum | type):
        inner = list(vars(value).values())
    return [type(value), *map(types_in, inner)]


@pytest.mark.parametrize("value", VALUES, ids=shown)
def test_value_comes_back_equal_and_of_the_same_type(tmp_path, value):
    back = round_trip(tmp_path, value)

    assert back == value
    assert types_in(back) == types_in(value)
    assert repr(back) == repr(value)


def test_object_of_a_generic_class_comes_back_as_one_of_the_class(tmp_path):
    back = round_trip(tmp_path, [Box[int](3), Box("a")])

    assert back == [Box(3), Box("a")]


TABLE = np.array([(1, 2.0, "a"), (3, 4.0, "b")], [("n", "<i4"), ("x", ">f8"), ("s", "U2")])
INNER = np.dtype([("a", "i1"), ("b", "f8", (2,))])


@pytest.mark.parametrize(
    "value",
    [
        TABLE[["s", "n"]],
        TABLE[:0][["x", "n"]],
        np.zeros((2, 3), [("p", INNER), ("q", "M8[s]")])[["q", "p"]].T,
        np.zeros(3, {"names": ["a", "b"], "formats": ["<i4", "<i2"], "offsets": [0, 0], "itemsize": 8}),
        np.array((1, 2.0), [("n", "<i4"), ("x", "<f8")])[["x", "n"]],
    ],
    ids=["order", "empty", "nested", "overlapping", "no dimensions"],
)
def test_structured_array_whose_fields_stand_in_no_order_comes_back(tmp_path, value):
    for number, returned in enumerate((value, {"table": value})):
        folder = tmp_path / str(number)
        folder.mkdir()

        back = round_trip(folder, returned)

        array = back["table"] if number else back
        assert (array.dtype, array.shape, str(array)) == (value.dtype, value.shape, str(value))


def test_array_with_a_field_of_a_foreign_type_is_refused(tmp_path):
    ml_dtypes = pytest.importorskip("ml_dtypes")
    value = np.ones(3, [("a", "i4"), ("b", [("c", ml_dtypes.bfloat16, (2,))])])

    for returned in (value, [value], value[["b", "a"]]):
        with pytest.raises(TypeError, match="cannot store the returned value"):
            save(returned, str(tmp_path / "value"))


def test_zone_comes_back_by_name(tmp_path):
    back = round_trip(tmp_path, VALUES[13])

    assert (back.tzinfo.key, back.fold, back.utcoffset()) == ("Europe/Berlin", 1, VALUES[13].utcoffset())


def test_arrays_frames_and_registered_types_may_stand_in_containers_and_objects(tmp_path):
    class Dial:
        def __init__(self, position):
            self.position = position

    register_codec(
        Dial,
        ".dial12",
        save=lambda dial, path: Path(path).write_text(str(dial.position)),
        load=lambda path: Dial(int(Path(path).read_text())),
    )
    frame = pd.DataFrame({"x": [1, 2]}, index=pd.Index(["a", "b"], name="k"))

    back = round_trip(
        tmp_path, {"frame": frame, "mesh": Mesh(np.eye(2), Fit(1.0)), "list": [Dial(7), frame["x"]]}
    )

    pd.testing.assert_frame_equal(back["frame"], frame)
    pd.testing.assert_series_equal(back["list"][1], frame["x"])
    assert (back["mesh"].points.tolist(), back["mesh"].fit) == ([[1.0, 0.0], [0.0, 1.0]], Fit(1.0))
    assert (type(back["list"][0]), back["list"][0].position) == (Dial, 7)


FRAMES = [
    pd.DataFrame({"v": range(3)}, index=pd.date_range("2024", periods=3, freq="D")),
    pd.DataFrame(
        {"v": range(3)}, index=pd.date_range("2024", periods=3, freq="MS", tz="Europe/Berlin", unit="s")
    ),
    pd.DataFrame(
        {"d": np.array(["2024-01-01", "NaT"], "M8[s]"), "x": [1, 2], "e": np.array([1, 2], "m8[s]")}
    ),
    pd.DataFrame(
        {"c": pd.Categorical([3, 1, None], categories=[3, 2, 1], ordered=True), "s": ["a", "b", None]}
    ),
    pd.DataFrame(
        {"c": pd.Categorical([0.5, 1.5]), "b": pd.Categorical([True, False]), "t": pd.Categorical(["x", "y"])}
    ),
]


@pytest.mark.parametrize("frame", FRAMES, ids=range(len(FRAMES)))
def test_frame_keeps_frequency_units_and_categories(tmp_path, frame):
    frame.attrs["unit"] = "m"

    back = round_trip(tmp_path, frame)

    pd.testing.assert_frame_equal(back, frame, check_exact=True)
    assert (list(back.dtypes), back.index.dtype, back.attrs) == (
        list(frame.dtypes),
        frame.index.dtype,
        frame.attrs,
    )
    assert getattr(back.index, "freq", None) == getattr(frame.index, "freq", None)


def test_series_keeps_frequency_and_units(tmp_path):
    series = FRAMES[1].index.to_series().rename(None)

    back = round_trip(tmp_path, series)

    pd.testing.assert_series_equal(back, series, check_exact=True)
    assert (back.dtype, back.index.freq) == (series.dtype, series.index.freq)


@dataclass
class Counting:
    x: float

    def __post_init__(self):
        self.x += 1


@pytest.mark.parametrize("value", [Counting(1.0), defaultdict(lambda: 0), Opaque(), [Opaque()]], ids=shown)
def test_value_that_its_fields_do_not_make_again_is_refused(tmp_path, value):
    with pytest.raises(TypeError, match="cannot store the returned value"):
        save(value, str(tmp_path / "value"))


def test_class_is_found_by_what_this_process_has_named_and_never_imported(tmp_path, monkeypatch):
    save(Fit(1.0), str(tmp_path / "value"))
    monkeypatch.setattr(documents, "_classes", {})

    with pytest.raises(DecodeError, match=r"holds a .*Fit, a class that this process has not named.*-> Fit"):
        load(str(tmp_path / "value.value.json"))

    def again(n: int) -> "list[Fit]":
        return []

    memoize(again)
    assert load(str(tmp_path / "value.value.json")) == Fit(1.0)


def test_class_that_a_parameter_names_is_known_to_results(tmp_path, monkeypatch):
    save({"fits": [Fit(1.0)], "choice": Scheme.RK4}, str(tmp_path / "value"))
    monkeypatch.setattr(documents, "_classes", {})  # as in another process

    def used(fits: dict[str, Fit], choice: Scheme) -> dict:
        return {}

    memoize(used)
    assert load(str(tmp_path / "value.value.json")) == {"fits": [Fit(1.0)], "choice": Scheme.RK4}


def test_class_that_was_defined_again_takes_the_place_of_the_former(tmp_path):
    first, second = (NamedTuple("Again", [("x", float)]) for _ in range(2))
    save(first(1.0), str(tmp_path / "value"))

    documents.know([second])

    assert type(load(str(tmp_path / "value.value.json"))) is second


class Sized(Protocol):
    size: float


@runtime_checkable
class Checkable(Protocol):
    size: float


class Shape(abc.ABC):  # noqa: B024
    """A base that says nothing of what its subclasses hold."""


class Area(abc.ABC):
    @abc.abstractmethod
    def area(self) -> float: ...


class Base:
    """A base with a subclass that can be stored."""


@dataclass
class Derived(Base, Area, Shape):
    size: float

    def area(self) -> float:
        return self.size


class WithSized(TypedDict):
    sized: Sized


ANNOTATIONS = [
    float | None,
    npt.NDArray[np.float64],
    npt.ArrayLike,
    dict[str, np.ndarray[tuple[int], np.dtype[np.float32]]],
    Sized,
    list[Sized],
    Checkable | None,
    WithSized,
    Shape,
    Area,
    Base,
    Optional[np.ndarray],  # noqa: UP045
    Annotated[float, "metre"],
    Row,
    dict[str, Fit],
    tuple[Mesh, Fit],
    list[pd.DataFrame] | None,
    Literal["a", 1],
    Scheme,
    defaultdict[str, int],
    Annotated[dict[str, Model | Part], ""],
    Sequence[Mapping[str, float]],
    tuple[int, ...],
    "Row | list[Fit]",
    Any,
    None,
]


@pytest.mark.parametrize("annotation", ANNOTATIONS, ids=shown)
def test_return_annotation_is_accepted(annotation):
    def function(n: int):
        pass

    function.__annotations__["return"] = annotation

    memoize(function)


@pytest.mark.parametrize("annotation", [Callable[[int], Opaque], type[Opaque]], ids=shown)
def test_class_that_a_returned_callable_or_class_would_give_is_not_what_is_refused(annotation):
    def function(n: int):
        pass

    function.__annotations__["return"] = annotation

    assert Opaque not in returned_classes(function)
    with pytest.raises(TypeError, match=r"it returns a (Callable|type), "):
        memoize(function)


@pytest.mark.parametrize(
    "annotation", [Opaque, Opaque | None, dict[str, Opaque], Annotated[list[Opaque], ""]], ids=shown
)
def test_return_annotation_with_a_class_that_cannot_be_stored_is_refused(annotation):
    def function(n: int):
        pass

    function.__annotations__["return"] = annotation

    with pytest.raises(TypeError, match=r"it returns a Opaque, .*register_codec\(Opaque, "):
        memoize(function)


def test_classes_of_fields_are_known_too():
    def function(n: int) -> dict[str, Mesh]:
        return {}

    assert returned_classes(function) == {
        dict: True,
        str: True,
        Mesh: True,
        Fit: False,
        float: False,
        tuple: False,
    } | {type(None): False}


def test_subclasses_of_a_base_are_known_too():
    def function(n: int) -> Shape:
        return Derived(n)

    assert returned_classes(function) == {Shape: True, Derived: False}


class Result:
    def __init__(self, **state):
        self.__dict__.update(state)


class Named(dict):
    pass


LARGE = np.arange(5000.0)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (Result(field=LARGE, inner=Result(fit=Fit(1.0))), lambda b: b["parts"]["field"]),
        ({"a": Result(field=LARGE)}, lambda b: b["a"]["parts"]["field"]),
        (Named(field=LARGE, code=len), lambda b: b["parts"]["field"]),
        (np.array([LARGE, None], object), lambda b: b["parts"][0]),
        (LARGE.view(np.matrix), lambda b: np.array(b["parts"][0])),
        (UserDict(field=LARGE), lambda b: b["parts"]["field"]),
        (SimpleNamespace(field=LARGE), lambda b: b["parts"]["field"]),
    ],
    ids=["object", "object inside", "dict of its own", "objects", "matrix", "user's dict", "namespace"],
)
def test_parts_of_an_object_that_no_format_holds_are_kept_whole(tmp_path, value, expected):
    with pytest.raises(TypeError, match="cannot store the returned value"):
        save(value, str(tmp_path / "value"))

    path, left_out = codecs.save_rest(value, str(tmp_path / "rest"))

    assert expected(load(str(path))).tolist() == LARGE.tolist()
    assert left_out


def test_object_that_contains_itself_is_kept_without_end(tmp_path):
    value = Result(n=1)
    value.itself = value

    path, _ = codecs.save_rest(value, str(tmp_path / "rest"))

    parts = load(str(path))["parts"]
    assert parts["n"] == 1
    assert "Result object" in parts["itself"]


def in_a_list(levels: int):
    value = ["at the bottom"]
    for _ in range(levels):
        value = [value]
    return value


def tree(levels: int):
    value = {"leaf": -1}
    for number in range(levels):
        value = {"right": value, "left": {"leaf": number}}
    return value


def everybody_knows_everybody(count: int):
    people = [{"name": number} for number in range(count)]
    for one in people:
        one["friends"] = people
        one["others"] = [other for other in people if other is not one]
    return people[0]


@pytest.mark.parametrize(
    ("value", "pieces"),
    [
        (in_a_list(400), ["at the bottom"]),
        (tree(400), range(-1, 400)),
        (everybody_knows_everybody(30), range(30)),
        ([Opaque(), in_a_list(10_000)], ["Opaque object", "at the bottom"]),
    ],
    ids=["list", "tree", "graph", "with a part that has no format"],
)
def test_value_that_is_nested_too_deeply_is_kept_whole_and_at_once(tmp_path, value, pieces):
    with pytest.raises(TypeError, match=r"contains itself, or is nested too deeply|Opaque"):
        save(value, str(tmp_path / "value"))

    path, left_out = codecs.save_rest(value, str(tmp_path / "rest"))

    back = repr(load(str(path)))
    assert all(str(piece) in back for piece in pieces)
    assert "what contains itself, or is nested too deeply" in left_out
    assert path.stat().st_size < 200_000


def test_objects_in_objects_are_compared_once_each(tmp_path):
    value = Part(0)
    for _ in range(30):
        value = Part(value)

    assert round_trip(tmp_path, value) == value


RETURNED: dict[str, Any] = {}


def returned_one(n: int):
    return RETURNED["value"]


def kept(n: int):
    """Return a value of which one part has no format, however long it took."""
    return {
        "array": np.arange(n),
        "fit": Fit(1.0),
        "inner": [1, Opaque()],
        "frame": pd.DataFrame({"u": [2**70, Opaque()]}),
    }


@pytest.mark.parametrize("inside", [False, True], ids=["itself", "inside"])
@pytest.mark.parametrize("error", [ValueError, RuntimeError])
def test_value_whose_codec_fails_is_kept_aside(tmp_path, monkeypatch, error, inside):
    def fail(value, path):
        Path(path).write_text("half")
        raise error("a mesh of no cells")

    register_codec(Opaque, ".opaque", save=fail, load=lambda path: None)
    value = Opaque()
    value.cells = [1, 2]
    monkeypatch.setitem(RETURNED, "value", [value, 5] if inside else value)
    function = memoize(results_dir=tmp_path, db_url="sqlite://")(returned_one)

    with pytest.raises(TypeError, match=f"{error.__name__}.*a mesh of no cells.*is not lost: ") as caught:
        function(1)
    back = load(str(caught.value).partition("is not lost: '")[2].partition("'")[0])

    assert (back[0] if inside else back)["parts"] == {"cells": [1, 2]}
    assert isinstance(caught.value.__cause__, error)


def test_disk_that_refuses_a_value_is_said_as_it_is(tmp_path, monkeypatch):
    def fail(value, path):
        raise OSError(28, "No space left on device")

    register_codec(Opaque, ".opaque", save=fail, load=lambda path: None)
    monkeypatch.setitem(RETURNED, "value", [Opaque()])
    function = memoize(results_dir=tmp_path, db_url="sqlite://")(returned_one)

    with pytest.raises(OSError, match="No space left"):
        function(1)


def test_value_that_was_computed_is_kept_aside_and_the_error_says_where(tmp_path):
    function = memoize(results_dir=tmp_path, db_url="sqlite://")(kept)

    with pytest.raises(TypeError, match=r"at \[inner\]\[1\]: it is a .*Opaque.*is not lost: ") as caught:
        function(3)
    path = str(caught.value).partition("is not lost: '")[2].partition("'")[0]
    back = load(path)

    assert back["array"].tolist() == [0, 1, 2]
    assert back["fit"] == Fit(1.0)
    assert back["inner"][0] == 1
    assert "Opaque object" in back["inner"][1]
    assert back["frame"]["u"][0] == 2**70
    assert str(caught.value).endswith("([inner][1], [frame][data][u][objects][1])")
    assert (function.records(), len(function.store.failures())) == ([], 1)
