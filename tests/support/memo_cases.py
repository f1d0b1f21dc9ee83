"""Functions that the tests of `memoize` decorate, and what they share: they leave a line for each call.

Children import this module, so it imports no more than they need.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from entropic import memoize
from tests.support.counting import append_line


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
