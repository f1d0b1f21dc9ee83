"""The statistics of a training: written as it goes on, and read into arrays.

The baseline does it by hand with `sqlite3`: a batch of rows in a transaction, and a SELECT into a structured NumPy
array. Both have one row for each iteration, with a primary key of run and iteration.
"""

from __future__ import annotations

import itertools
import sqlite3
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import data
from benchmarks.harness import Table, compare, main
from entropic import Database
from entropic.stats import TrainingIterationStats, TrainingStats
from entropic.stats_store import FileStatsStore, SQLStatsStore, StatsStore

DEFAULTS = {"iterations": 100_000, "batch": 1000, "rounds": 7}

_TABLE = """
CREATE TABLE training_stats (
    run VARCHAR NOT NULL, iteration INTEGER NOT NULL, loss DOUBLE, time DOUBLE, PRIMARY KEY (run, iteration)
)
"""
_INSERT = "INSERT INTO training_stats VALUES (?, ?, ?, ?)"
_SELECT = "SELECT iteration, loss, time FROM training_stats WHERE run = ? ORDER BY iteration"
_DTYPE = [("iteration", "i8"), ("loss", "f8"), ("time", "f8")]


def run(*, iterations: int, batch: int, rounds: int) -> list[Table]:
    """Compare writing *iterations* in batches of *batch*, and reading them."""
    rows = [(number, 1 / (number + 1), 0.25) for number in range(iterations)]
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        raw = data.open_raw(Path(folder), stack)
        raw.execute(_TABLE)
        database = Database(f"sqlite:///{folder}/stats.sqlite3")
        stack.callback(database.dispose)
        in_sql, in_files = SQLStatsStore(database), FileStatsStore(Path(folder, "files"))
        written = compare(
            f"Writing {iterations} iterations in batches of {batch}",
            {
                "raw: sqlite3 executemany, a commit a batch": _by_hand(raw, rows, batch),
                "SQLStatsStore.store_training_stats": _stored(in_sql, rows, batch),
                "SQLStatsStore.log": _logged(in_sql, rows),
                "FileStatsStore.store_training_stats, synced": _stored(in_files, rows, batch),
            },
            rounds=rounds,
            operations=iterations,
        )
        read = compare(
            f"Reading {iterations} iterations",
            {
                "raw: sqlite3 SELECT into NumPy": lambda: np.array(
                    raw.execute(_SELECT, ("run 0",)).fetchall(), _DTYPE
                ),
                "SQLStatsStore.to_numpy": lambda: in_sql.to_numpy("run 0"),
                "SQLStatsStore.to_numpy, a subsample": lambda: in_sql.to_numpy("run 0", subsample=True),
                "SQLStatsStore.retrieve_training_stats": lambda: in_sql.retrieve_training_stats("run 0"),
                "FileStatsStore.to_numpy": lambda: in_files.to_numpy("run 0"),
            },
            rounds=rounds,
            operations=iterations,
        )
    return [written, read]


def _runs() -> Iterator[str]:
    return map("run {}".format, itertools.count())


def _by_hand(raw: sqlite3.Connection, rows: list[Any], batch: int) -> Callable[[], object]:
    names = _runs()

    def write() -> None:
        name = next(names)
        for start in range(0, len(rows), batch):
            raw.execute("BEGIN IMMEDIATE")
            raw.executemany(_INSERT, [(name, *row) for row in rows[start : start + batch]])
            raw.execute("COMMIT")

    return write


def _stored(store: StatsStore, rows: list[Any], batch: int) -> Callable[[], object]:
    names = _runs()
    entries = [TrainingIterationStats(*row) for row in rows]
    parts = [TrainingStats(entries[start : start + batch]) for start in range(0, len(rows), batch)]

    def write() -> None:
        name = next(names)
        for part in parts:
            store.store_training_stats(name, part)

    return write


def _logged(store: StatsStore, rows: list[Any]) -> Callable[[], object]:
    names = _runs()

    def write() -> None:
        name = next(names)
        for iteration, loss, _ in rows:
            store.log(name, iteration, loss=loss)
        store.flush()

    return write


if __name__ == "__main__":
    main("stats", run, __doc__, **DEFAULTS)
