"""A memoized call that is known: the array comes back, against looking its path up and loading it, and peers."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import data
from benchmarks.harness import Table, compare, main
from benchmarks.peers import in_turn, memoizers, warm
from entropic import Database, memoize

DEFAULTS = {"entries": 200, "rounds": 9, "calls": 100, "large_entries": 5, "large_calls": 5}

SIZES = {"1 kB": 128, "10 MB": 1_310_720}
"""Elements of float64."""


def simulate(n: int, dt: float, method: str, elements: int) -> np.ndarray:
    """Return an array of 8 bytes an element."""
    return np.random.default_rng(n).normal(dt, 1.0, elements)


def run(*, entries: int, rounds: int, calls: int, large_entries: int, large_calls: int) -> list[Table]:
    """Compare hits on small arrays, and on large ones."""
    tables = []
    for name, count, calls_each in (("1 kB", entries, calls), ("10 MB", large_entries, large_calls)):
        with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
            cases = _cases(Path(folder), stack, data.params(count), SIZES[name])
            title = f"Memoized call, array of {name}, {count} entries"
            tables.append(compare(title, cases, rounds=rounds, calls=calls_each))
    return tables


def _cases(
    folder: Path, stack: ExitStack, sets: Sequence[dict[str, Any]], elements: int
) -> dict[str, Callable[[], object]]:
    raw = data.open_raw(folder, stack)
    (folder / "arrays").mkdir()
    for one in sets:
        path = folder / "arrays" / f"{data.raw_key(one)}.npy"
        np.save(path, simulate(**one, elements=elements))
        raw.execute(data.RAW_INSERT, data.raw_row(one, str(path)))

    def look_up(one: dict[str, Any]) -> Any:
        _, path, *_ = raw.execute(data.RAW_SELECT, (data.raw_key(one),)).fetchone()
        return np.load(path, allow_pickle=False)

    database = Database(f"sqlite:///{folder / 'cache.sqlite3'}")
    stack.callback(database.dispose)
    ours = memoize(results_dir=folder / "results", db_url=database)(simulate)
    sized = [{**one, "elements": elements} for one in sets]
    return {
        "raw: SHA-256 of JSON, sqlite3 SELECT, numpy.load": in_turn(look_up, sets),
        "memoize": warm(ours, sized),
        **{name: warm(peer, sized) for name, peer in memoizers(folder, stack, simulate).items()},
    }


if __name__ == "__main__":
    main("memoize", run, __doc__, **DEFAULTS)
