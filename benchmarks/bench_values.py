"""Small values of a memoized function, which stand in their rows: a hit, and sweeps of runs that take no time.

The baseline of a hit is a SELECT of the value; that of a sweep writes rows and commits a hundred at a time.
"""

from __future__ import annotations

import itertools
import json
import random
import sqlite3
import tempfile
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from benchmarks import data
from benchmarks.harness import Table, compare, main
from benchmarks.peers import in_turn, memoizers, warm
from entropic import Database, memoize

DEFAULTS = {"entries": 1000, "rounds": 9, "calls": 200, "runs": 10_000, "sweep_rounds": 3}

_IN_ONE_BLOCK = 10_000_000  # so that no two blocks of parameters share one
_BATCH = 100
_CHUNK = 500  # as a sweep's


def score(n: int, dt: float, method: str) -> float:
    """Return a number at once."""
    return n * dt + len(method)


def run(*, entries: int, rounds: int, calls: int, runs: int, sweep_rounds: int) -> list[Table]:
    """Compare hits among *entries* values, and serial sweeps of *runs* new ones."""
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        hits = compare(
            f"Memoized call, a number, {entries} entries",
            _hits(Path(folder, "hits"), stack, data.params(entries)),
            rounds=rounds,
            calls=calls,
        )
        sweeps = compare(
            f"Serial sweep of {runs} small values",
            _sweeps(Path(folder, "sweeps"), stack, runs),
            rounds=sweep_rounds,
            operations=runs,
        )
    return [hits, sweeps]


def memoized(folder: Path, stack: ExitStack) -> Any:
    folder.mkdir(parents=True)
    database = Database(f"sqlite:///{folder / 'cache.sqlite3'}")
    stack.callback(database.dispose)
    return memoize(results_dir=folder / "results", db_url=database)(score)


def _hits(folder: Path, stack: ExitStack, sets: Sequence[dict[str, Any]]) -> dict[str, Callable[[], object]]:
    ours = memoized(folder, stack)
    ours.sweep(sets, progress=False)
    raw = data.open_raw(folder, stack, sets)

    def look_up(one: dict[str, Any]) -> Any:
        *_, notes, _, _, _ = raw.execute(data.RAW_SELECT, (data.raw_key(one),)).fetchone()
        return json.loads(notes)

    return {
        "raw: SHA-256 of JSON, sqlite3 SELECT, json.loads": in_turn(look_up, sets),
        "memoize": warm(ours, sets),
        **{name: warm(peer, sets) for name, peer in memoizers(folder, stack, score).items()},
    }


def _sweeps(folder: Path, stack: ExitStack, runs: int) -> dict[str, Callable[[], object]]:
    ours = memoized(folder, stack)
    raw = data.open_raw(folder, stack)
    by_hand, cached = itertools.count(0, _IN_ONE_BLOCK), itertools.count(0, _IN_ONE_BLOCK)

    def write_rows() -> None:
        sets = data.params(runs, first=next(by_hand))
        for start in range(0, runs, _BATCH):
            rows = [data.raw_row(one, str(score(**one))) for one in sets[start : start + _BATCH]]
            raw.execute("BEGIN IMMEDIATE")
            raw.executemany(data.RAW_INSERT, rows)
            raw.execute("COMMIT")

    return {
        f"raw: sqlite3 commits of {_BATCH}": write_rows,
        "sqlite3: all rows that a sweep writes, no run": _bookkeeping(folder / "bookkeeping", stack, runs),
        "sweep": lambda: ours.sweep(data.params(runs, first=next(cached)), progress=False),
    }


def _bookkeeping(folder: Path, stack: ExitStack, runs: int) -> Callable[[], object]:
    """Return what writes *runs* rows with all that a sweep writes besides, as fast as SQLite takes it.

    These are a claim, which is deleted in the transaction that inserts the row, its file record and its attempt.
    """
    ours = memoized(folder, stack)
    ours.sweep(data.params(1, first=-1), progress=False)
    connection = sqlite3.connect(folder / "cache.sqlite3", isolation_level=None)
    stack.callback(connection.close)
    tables = [ours.table, "entropic_files", "entropic_attempts"]
    samples = {}
    for table in tables:
        cursor = connection.execute(f'SELECT * FROM "{table}"')
        samples[table] = dict(zip([name for name, *_ in cursor.description], cursor.fetchone(), strict=True))
    width = len(connection.execute("PRAGMA table_info(entropic_claims)").fetchall())
    bits = random.Random(data.SEED).getrandbits

    def insert_into(table: str, width: int) -> str:
        return f'INSERT INTO "{table}" VALUES ({", ".join("?" * width)})'

    def own(table: str, key: str, attempt: str) -> tuple[Any, ...]:
        new = {"id": attempt if table == "entropic_attempts" else key, "record_id": key, "attempt": attempt}
        return tuple(new.get(name, value) for name, value in samples[table].items())

    def write() -> None:
        for _ in range(0, runs, _CHUNK):
            ids = [(f"{bits(64):016x}", f"{bits(128):032x}") for _ in range(_CHUNK)]  # spread as keys are
            claims = [("table", key, "owner", token, *["text"] * (width - 6), 0.0, 0.0) for key, token in ids]
            connection.execute("BEGIN IMMEDIATE")
            connection.executemany(insert_into("entropic_claims", width), claims)
            connection.execute("COMMIT")
            connection.execute("BEGIN IMMEDIATE")
            connection.executemany(
                "DELETE FROM entropic_claims WHERE table_name = 'table' AND record_id = ? AND token = ?", ids
            )
            for table in tables:
                rows = [own(table, *one) for one in ids]
                connection.executemany(insert_into(table, len(samples[table])), rows)
            connection.execute("COMMIT")

    return write


if __name__ == "__main__":
    main("values", run, __doc__, **DEFAULTS)
