"""A function with a parameter of every type, and what it is called with."""

from __future__ import annotations

import enum
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd

from tests.support.values import Point


class Scheme(enum.Enum):
    EULER = 1
    RK4 = 4


def everything(
    x: float,
    scheme: Scheme,
    path: Path,
    when: datetime,
    exact: Decimal,
    span: timedelta,
    kind: Literal["a", "b"],
    raw: bytes,
    shape: tuple[int, ...],
    weights: np.ndarray,
    point: Point,
    options: dict[str, Any],
    words: frozenset[str],
    table: pd.DataFrame,
    label: str | None = None,
    n: int = 1,
    N: int = 2,
    bias: np.ndarray = np.zeros(2),  # noqa: B008
) -> dict[str, Any]:
    """Return what the function saw, as text, and the sum of the arrays."""
    CALLS.append(x)
    return {
        "seen": repr((scheme, path, when, exact, span, kind, raw, shape, point, label, n, N)),
        "sum": float(weights.sum() + bias.sum() + table.to_numpy().sum()),
        "words": set(words),
        "options": options,
    }


CALLS: list[float] = []
EVERYTHING: dict[str, Any] = {
    "x": 0.1,
    "scheme": Scheme.RK4,
    "path": Path("data/in.csv"),
    "when": datetime(2026, 1, 2, 3, 4, 5, 6, tzinfo=UTC),
    "exact": Decimal("1.25"),
    "span": timedelta(hours=1, microseconds=3),
    "kind": "b",
    "raw": b"\x00\xff",
    "shape": (2, 3),
    "weights": np.linspace(0.0, 1.0, 2000),
    "point": Point(1.0, 2.0),
    "options": {"nested": [1, {"deep": None}], "ä": True},
    "words": frozenset({"a", "b"}),
    "table": pd.DataFrame({"k": [1.0, 2.0]}),
}
