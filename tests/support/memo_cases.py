"""Functions that the tests of `memoize` decorate, and what they share: they leave a line for each call."""

from __future__ import annotations

import enum
import json
import os
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd

from entropic import memoize
from tests.support.counting import append_line
from tests.support.values import Point


def simulate(n: int, dt: float = 0.01, method: str = "rk4", log: str = "") -> np.ndarray:
    """Return *n* numbers; *log* is ignored."""
    append_line(Path(log), json.dumps([n, dt, method, os.getpid()]))
    return np.arange(n) * dt


def runs(folder: Path) -> list[Any]:
    """Return the calls that ran: n, dt, method, process."""
    log = folder / "log"
    return [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []


def memoized(folder: Path, function: Callable[..., Any] = simulate, url: Any = None, **options: Any) -> Any:
    """Memoize *function* in a folder: results in ``results``, the database in ``db.sqlite3``."""
    options = {"ignore": ["log"]} | options if function is simulate else options
    return memoize(
        results_dir=folder / "results", db_url=url or f"sqlite:///{folder / 'db.sqlite3'}", **options
    )(function)


def call_once(folder: Path, url: str, n: int) -> list[float]:
    """Call `simulate` in this process."""
    values: list[float] = memoized(folder, url=url)(n, log=str(folder / "log")).tolist()
    return values


def grow(folder: Path, url: str) -> list[Any]:
    """Call a function that has one parameter more than `simulate` had, in this process."""
    grown = memoized(folder, with_more_parameters, url=url, table="simulate", ignore=["log"])
    return [grown(n, log=str(folder / "log")).tolist() for n in range(3)]


def with_more_parameters(
    n: int, dt: float = 0.01, method: str = "rk4", noise: float = 0.0, log: str = ""
) -> np.ndarray:
    return simulate(n, dt, method, log) + noise


class Thing:
    """A type that nobody registered, returned without an annotation."""


def unstorable(n: int):
    return {"n": n, "thing": Thing()}


def ranked(degree: int, scale: float = 1.0) -> dict[str, Any]:
    return {"rmse": scale / degree, "coefficients": np.arange(degree), "note": "x"}


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
