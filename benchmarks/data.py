"""The model, the parameters and the prepared caches that every benchmark measures on; all seeded."""

from __future__ import annotations

import hashlib
import json
import random
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from sqlalchemy import insert

from entropic import Base, Database, Mapped, Store
from entropic.sql.tables import FileRow

SEED = 20

RESULT = bytes(1000)
_METHODS = ("euler", "heun", "rk4", "dopri5")
_CHUNK = 1000
_EPOCH = datetime(2026, 1, 1, tzinfo=UTC)

RAW_TABLE = """
CREATE TABLE runs (
    id VARCHAR NOT NULL PRIMARY KEY, result_file TEXT NOT NULL, created_at DATETIME NOT NULL, custom_data JSON NOT NULL,
    n INTEGER NOT NULL, dt DOUBLE NOT NULL, method VARCHAR NOT NULL
)
"""
RAW_INSERT = "INSERT INTO runs VALUES (?, ?, ?, ?, ?, ?, ?)"
RAW_SELECT = "SELECT * FROM runs WHERE id = ?"


class Run(Base):
    """A run of three parameters, of the types that most have."""

    __tablename__ = "benchmark_runs"

    n: Mapped[int]
    dt: Mapped[float]
    method: Mapped[str]


class RunWithOptions(Base):
    """A run with a JSON parameter."""

    __tablename__ = "benchmark_runs_with_options"

    n: Mapped[int]
    options: Mapped[dict[str, Any]]


@dataclass
class Solver:
    """An object that is a parameter."""

    dt: float
    method: str
    order: int = 4


def nested_options(one: dict[str, Any]) -> dict[str, Any]:
    """Return the set *one* as a nested JSON parameter."""
    grid = {"cells": [one["n"], 2, 3], "spacing": [0.5, 0.25], "periodic": True, "label": None}
    return {"n": one["n"], "options": {"solver": {"dt": one["dt"], "method": one["method"]}, "grid": grid}}


def solver_options(one: dict[str, Any]) -> dict[str, Any]:
    """Return the set *one* as a parameter that holds a dataclass."""
    return {"n": one["n"], "options": {"solver": Solver(one["dt"], one["method"])}}


def params(count: int, *, first: int = 0) -> list[dict[str, Any]]:
    """Return *count* parameter sets, all different, and different from those of another *first* block."""
    rng = random.Random(SEED + first)
    return [
        {"n": first + i, "dt": rng.uniform(1e-4, 1.0), "method": rng.choice(_METHODS)} for i in range(count)
    ]


def shuffled(items: Sequence[Any]) -> Iterator[Any]:
    """Yield *items* for ever, each time through in another order."""
    rng = random.Random(SEED)
    while True:
        yield from rng.sample(items, len(items))


def write_result(parameters: dict[str, Any]) -> None:
    """Write 1 kB where the run is told to: the runner of every benchmark."""
    with open(parameters["result_file"], "wb") as file:
        file.write(RESULT)


def open_store(
    folder: Path, stack: ExitStack, *, runner: Any = None, model: type[Any] = Run, **options: Any
) -> Store[Any]:
    """Open a Store whose database and results lie in *folder*, until *stack* ends."""
    folder.mkdir(parents=True, exist_ok=True)
    database = Database(f"sqlite:///{folder / 'cache.sqlite3'}")
    stack.callback(database.dispose)
    return Store(runner or write_result, model, folder / "results", ".bin", database, **options)


def fill(store: Store[Run], sets: Sequence[dict[str, Any]]) -> None:
    """Put a row, a file record and an empty file for each of *sets* into the cache, without running anything."""
    root = store.results_dir
    rows = [
        {
            "id": (key := store.key(one)),
            "result_file": str(root / f"{key}.bin"),
            "created_at": _EPOCH,
            "custom_data": {"elapsed_seconds": 0.0},
            **one,
        }
        for one in sets
    ]
    files = [
        {
            "table_name": Run.__tablename__,
            "record_id": row["id"],
            "attempt": None,
            "name": f"{row['id']}.bin",
            "size_bytes": 0,
            "sha256": hashlib.sha256().hexdigest(),
        }
        for row in rows
    ]
    for row in rows:
        Path(row["result_file"]).touch()
    with store.database.engine.begin() as connection:
        for start in range(0, len(rows), _CHUNK):
            connection.execute(insert(Run.__table__), rows[start : start + _CHUNK])
            connection.execute(insert(FileRow.__table__), files[start : start + _CHUNK])


def raw_key(parameters: dict[str, Any]) -> str:
    """Return what a hand-written cache would hash: the SHA-256 of the JSON."""
    text = json.dumps(parameters, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def raw_row(parameters: dict[str, Any], path: str = "") -> tuple[Any, ...]:
    """Return the row that a hand-written cache would keep."""
    created = _EPOCH.isoformat(" ")
    return (raw_key(parameters), path, created, '{"elapsed_seconds": 0.0}', *parameters.values())


def open_raw(folder: Path, stack: ExitStack, sets: Sequence[dict[str, Any]] = ()) -> sqlite3.Connection:
    """Return a connection to a hand-written cache: one table, write-ahead log, synced at checkpoints."""
    connection = connect_raw(folder, stack)
    connection.execute("BEGIN IMMEDIATE")
    connection.execute(RAW_TABLE)
    connection.executemany(RAW_INSERT, [raw_row(one, str(folder / "raw.sqlite3")) for one in sets])
    connection.execute("COMMIT")
    return connection


def connect_raw(folder: Path, stack: ExitStack) -> sqlite3.Connection:
    """Return another connection to the hand-written cache of *folder*."""
    connection = stack.enter_context(closing(sqlite3.connect(folder / "raw.sqlite3", isolation_level=None)))
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=NORMAL")
    return connection
