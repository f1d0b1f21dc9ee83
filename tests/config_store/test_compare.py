"""What counts as the same config, and what a document gives back."""

import enum
import math
from collections import deque
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import pytest
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PlainSerializer, PrivateAttr

from entropic import DecodeError
from entropic.config_store.compare import require_readable
from entropic.configs import DatasetConfig, TaskConfig


class Mode(enum.Enum):
    FAST = "fast"


class Inner(BaseModel):
    size: int = 1


class Wider(Inner):
    more: int = 2


@dataclass
class Point:
    x: float
    cache: Any = field(default=None, compare=False)


class Region:
    """A class of a user's, which pydantic knows nothing of."""

    def __init__(self, begin):
        self.begin = begin


class Everything(TaskConfig):
    model_config = ConfigDict(arbitrary_types_allowed=True)

    rates: list[float] = Field(default_factory=list)
    names: set[str] = Field(default_factory=set)
    floats: frozenset[float] = frozenset()
    shape: tuple[int, ...] = ()
    last: deque[int] = Field(default_factory=deque)
    by_number: dict[int, Mode] = Field(default_factory=dict)
    mode: Mode | None = None
    path: Path | None = None
    exact: Decimal = Decimal(1)
    since: datetime | None = None
    inner: Inner | None = None
    point: Point | None = None
    region: Annotated[Region, BeforeValidator(lambda r: r if isinstance(r, Region) else Region(r)),
                      PlainSerializer(lambda region: region.begin)] = Region(0)  # fmt: skip
    array: Annotated[
        np.ndarray, BeforeValidator(lambda a: np.asarray(a)), PlainSerializer(lambda a: a.tolist())
    ] = np.zeros(1)
    plain: Any = None
    _model: Any = PrivateAttr(default=None)


def readable(config):
    require_readable(config, config.document())


@pytest.mark.parametrize(
    "fields",
    [
        {"rates": [math.nan, math.inf, -0.0], "exact": Decimal("1.20")},
        {"names": {"a", "b"}, "floats": frozenset({math.nan, 1.0})},
        {"shape": (1, 2), "last": deque([1, 2])},
        {"by_number": {1: Mode.FAST}, "mode": Mode.FAST},
        {"path": Path("/a"), "since": datetime(2026, 1, 2, tzinfo=UTC)},
        {"inner": Inner(size=3), "point": Point(math.nan, cache=[1])},
        {"region": Region([1, 2]), "array": np.array([1.0, math.nan])},
        {"plain": {"a": [1, 2.5, None, True, "x", {"b": math.nan}]}},
    ],
    ids=lambda fields: "-".join(fields),
)
def test_what_comes_back_as_it_is_may_be_stored(fields):
    readable(Everything(name="x", **fields))


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({"inner": Wider()}, r"inner \(Wider\(size=1, more=2\) would be Inner\(size=1\)\)"),
        ({"plain": {"a": [0, (1,)]}}, r"plain\.a\[1\] \(\(1,\) would be \[1\]\)"),
        ({"plain": {1}}, r"plain \(\{1\} would be \[1\]\)"),
        ({"plain": b"a"}, "plain .*would be 'a'"),
        ({"plain": {1: "a"}}, r"plain\.1 \('a' would be nothing\), plain\.1 \(nothing would be 'a'\)"),
        ({"plain": Mode.FAST}, "plain .*would be 'fast'"),
        ({"plain": Path("a")}, "plain .*would be 'a'"),
        ({"plain": Inner()}, r"plain \(Inner\(size=1\) would be \{'size': 1\}\)"),
        ({"plain": TaskConfig(name="t")}, "plain .*__type__"),
    ],
)
def test_what_would_come_back_as_another_is_named(fields, text):
    with pytest.raises(DecodeError, match=text):
        readable(Everything(name="x", **fields))


def test_field_without_validation_is_checked_as_any_other():
    config = Everything(name="x")
    config.shape = [1, 2]
    with (
        pytest.warns(UserWarning, match="serializer warnings"),
        pytest.raises(DecodeError, match=r"shape \(\[1, 2\] would be \(1, 2\)\)"),
    ):
        readable(config)


def test_field_that_no_document_has_must_be_at_its_default():
    class Seeded(TaskConfig):
        seed: int = Field(default=0, exclude=True)

    readable(Seeded(name="x"))
    with pytest.raises(DecodeError, match=r"seed \(5 would be 0\)"):
        readable(Seeded(name="x", seed=5))


def test_private_attributes_are_no_part_of_a_config():
    config = Everything(name="x")
    config._model = object()
    readable(config)


def test_config_of_a_class_that_was_defined_again_may_be_stored():
    def cell():
        class Again(TaskConfig):
            number: int = 1

        return Again

    former, _ = cell()(name="x", number=2), cell()

    readable(former)


def test_equality_of_a_users_own_does_not_hide_what_is_lost():
    class ByName(DatasetConfig):
        inner: Inner = Inner()

        def __eq__(self, other):
            return self.name == other.name

        __hash__ = DatasetConfig.__hash__

    with pytest.raises(DecodeError, match="inner"):
        readable(ByName(name="x", inner=Wider()))
