"""A model with a column of every type that the library maps, and values for it."""

from __future__ import annotations

import enum
import uuid
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from typing import Any

import numpy as np
from hypothesis import strategies as st

from entropic import Base, Mapped, output, param
from tests.support import strategies


class Colour(enum.Enum):
    RED = "red"
    BLUE = 2


class Everything(Base):
    __tablename__ = "everything"

    number: Mapped[float]
    count: Mapped[int]
    flag: Mapped[bool]
    name: Mapped[str]
    octets: Mapped[bytes]
    moment: Mapped[datetime]
    day: Mapped[date]
    clock: Mapped[time]
    duration: Mapped[timedelta]
    price: Mapped[Decimal]
    colour: Mapped[Colour]
    key: Mapped[uuid.UUID]
    tree: Mapped[dict[str, Any]]
    items: Mapped[list[Any]]
    maybe: Mapped[float | None]
    rate: Mapped[float] = param(default=0.25)
    score: Mapped[float | None] = output()
    seen: Mapped[datetime | None] = output()
    tag: Mapped[str | None] = output()
    rank: Mapped[int | None] = output()


EXAMPLE: dict[str, Any] = {
    "number": 1 / 3,
    "count": 2**40,
    "flag": True,
    "name": "Ab ",
    "octets": b"\x00\xff" * 40_000,
    "moment": datetime(2026, 1, 2, 3, 4, 5, 678901, UTC),
    "day": date(2026, 1, 2),
    "clock": time(3, 4, 5, 678901),
    "duration": timedelta(days=-400, microseconds=1),
    "price": Decimal("123456789012345678.123456789012"),
    "colour": Colour.BLUE,
    "key": uuid.UUID(int=7),
    "tree": {"text": "x" * 70_000, "é": [1, 2.5, None, True, {"1": 2**60}]},
    "items": [[0.1, -0.0], {}, "a"],
    "maybe": 5e-324,
}

texts = strategies.texts_to_store
trees = st.dictionaries(
    texts,
    strategies.nested(
        strategies.json_scalars | strategies.floats | strategies.arrays | st.sets(st.integers())
    ),
    max_size=3,
)
# MySQL's times begin in the year 1000.
moments = st.datetimes(datetime(1000, 1, 3), datetime(9999, 12, 29), timezones=st.none() | st.just(UTC)) | (
    st.datetimes(datetime(1900, 1, 1), timezones=st.just(timezone(timedelta(hours=-5)))).filter(
        lambda moment: moment.year < 9999
    )
)


def parameters(numbers: st.SearchStrategy[float] = strategies.floats) -> st.SearchStrategy[dict[str, Any]]:
    """Values for every parameter of `Everything`."""
    return st.fixed_dictionaries(
        {
            "number": numbers,
            "count": st.integers(-(2**63), 2**63 - 1),
            "flag": st.booleans(),
            "name": texts,
            "octets": st.binary(max_size=20),
            "moment": moments,
            "day": st.dates(date(1000, 1, 1)),
            "clock": st.times(),
            "duration": st.timedeltas(timedelta(days=-9999), timedelta(days=9999)),
            "price": st.decimals(-(10**17), 10**17, places=12),
            "colour": st.sampled_from(Colour),
            "key": st.uuids(),
            "tree": trees,
            "items": st.lists(texts | numbers | st.integers(), max_size=3),
            "maybe": st.none() | numbers,
        },
        optional={"rate": numbers | st.just(0.25) | st.just(np.float32(0.25))},
    )
