"""A sweep of which every run is there: against hashing all parameters and fetching the rows in chunks."""

from __future__ import annotations

import sqlite3
import tempfile
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from benchmarks import data
from benchmarks.harness import Table, compare, main

DEFAULTS = {"few": 10_000, "many": 100_000, "rounds": 5}

_CHUNK = 1000
_SELECT = f"SELECT * FROM runs WHERE id IN ({', '.join('?' * _CHUNK)})"


def run(*, few: int, many: int, rounds: int) -> list[Table]:
    """Compare sweeps of *few* and of *many* cached sets."""
    return [_compare(size, rounds) for size in (few, many)]


def _compare(size: int, rounds: int) -> Table:
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        cases = _cases(Path(folder), stack, data.params(size))
        return compare(f"Sweep, {size} cached sets", cases, rounds=rounds, operations=size)


def _cases(folder: Path, stack: ExitStack, sets: Sequence[dict[str, Any]]) -> dict[str, Callable[[], object]]:
    store = data.open_store(folder, stack)
    data.fill(store, sets)
    return {
        "raw: hash all, sqlite3 SELECT in chunks": raw_sweep(data.open_raw(folder, stack, sets), sets),
        "sweep": lambda: store.sweep(sets, progress=False),
    }


def raw_sweep(raw: sqlite3.Connection, sets: Sequence[dict[str, Any]]) -> Callable[[], list[Any]]:
    """Return what one would write by hand: all keys, then the rows in chunks."""

    def look_up() -> list[Any]:
        keys = [data.raw_key(one) for one in sets]
        rows = []
        for start in range(0, len(keys), _CHUNK):
            chunk = keys[start : start + _CHUNK]
            chunk += [""] * (_CHUNK - len(chunk))  # one statement for all chunks
            rows += raw.execute(_SELECT, chunk).fetchall()
        return rows

    return look_up


if __name__ == "__main__":
    main("sweep", run, __doc__, **DEFAULTS)
