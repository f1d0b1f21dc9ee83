"""A miss: a run that writes 1 kB, kept so that a power cut does not lose it.

The baseline does the same by hand: write the file, fsync it, insert a row into SQLite's write-ahead log with
``synchronous=FULL``. Entropic reserves the key and keeps the record of the attempt and the file's digest as well.
"""

from __future__ import annotations

import itertools
import os
import sqlite3
import tempfile
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from benchmarks import data
from benchmarks.harness import Table, compare, main
from benchmarks.peers import memoizers
from benchmarks.published import PublishedMiss, python_with

DEFAULTS = {"rounds": 9, "calls": 20, "sweep": 2000, "sweep_rounds": 3, "batch": 100}

_IN_ONE_BLOCK = 10_000_000  # so that no two blocks of parameters share one


def run(*, rounds: int, calls: int, sweep: int, sweep_rounds: int, batch: int) -> list[Table]:
    """Compare single misses, and a serial sweep of *sweep* of them; the baseline's commits then take *batch* rows."""
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        one = compare(
            "One miss, 1 kB, durable",
            _single_misses(Path(folder, "one"), stack, (rounds + 1) * calls + 1),
            rounds=rounds,
            calls=calls,
        )
        many = compare(
            f"Serial sweep of {sweep} misses, 1 kB each, durable",
            _sweeps(Path(folder, "many"), stack, sweep=sweep, batch=batch),
            rounds=sweep_rounds,
            operations=sweep,
        )
    return [one, many]


def _single_misses(folder: Path, stack: ExitStack, count: int) -> dict[str, Callable[[], object]]:
    store = data.open_store(folder, stack)
    raw = _durable(folder, stack)
    by_hand, cached = iter(data.params(count)), iter(data.params(count))

    def write_and_insert() -> None:
        raw.execute(data.RAW_INSERT, _write(folder, next(by_hand)))

    cases: dict[str, Callable[[], object]] = {
        "raw: file, fsync, sqlite3 commit (WAL, FULL)": write_and_insert,
        "run_or_retrieve": lambda: store.run_or_retrieve(next(cached)),
    }
    if (python := python_with()) is not None:
        cases["entropic 2.3.0"] = PublishedMiss(python, folder / "published", stack, data.params(count))
    for name, peer in memoizers(folder / "peers", stack, _compute).items():
        cases[f"{name}, not synced"] = _first_calls(peer, data.params(count))
    return cases


def _compute(n: int, dt: float, method: str) -> bytes:
    return data.RESULT


def _first_calls(peer: Callable[..., object], sets: Sequence[dict[str, Any]]) -> Callable[[], object]:
    new = iter(sets)
    return lambda: peer(**next(new))


def _sweeps(folder: Path, stack: ExitStack, *, sweep: int, batch: int) -> dict[str, Callable[[], object]]:
    store = data.open_store(folder, stack)
    raw = _durable(folder, stack)
    by_hand, cached = itertools.count(0, _IN_ONE_BLOCK), itertools.count(0, _IN_ONE_BLOCK)

    def write_and_insert() -> None:
        sets = data.params(sweep, first=next(by_hand))
        for start in range(0, sweep, batch):
            _insert(raw, [_write(folder, one) for one in sets[start : start + batch]])

    return {
        f"raw: file and fsync each, sqlite3 commit of {batch}": write_and_insert,
        "sweep": lambda: store.sweep(data.params(sweep, first=next(cached))),
    }


def _durable(folder: Path, stack: ExitStack) -> sqlite3.Connection:
    raw = data.open_raw(folder, stack)
    raw.execute("PRAGMA synchronous=FULL")
    return raw


def _insert(raw: sqlite3.Connection, rows: Sequence[tuple[Any, ...]]) -> None:
    raw.execute("BEGIN IMMEDIATE")
    raw.executemany(data.RAW_INSERT, rows)
    raw.execute("COMMIT")


def _write(folder: Path, one: dict[str, Any]) -> tuple[Any, ...]:
    path = folder / f"raw-{data.raw_key(one)}.bin"
    with path.open("wb") as file:
        file.write(data.RESULT)
        file.flush()
        os.fsync(file.fileno())
    return data.raw_row(one, str(path))


if __name__ == "__main__":
    main("miss", run, __doc__, **DEFAULTS)
