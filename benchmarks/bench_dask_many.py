"""A Dask sweep of very many short runs, against sweeps of few: what each costs must not grow with their number.

Half of the short sweeps come before the long one and half after it, so that a machine that slows down meanwhile is in
both.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

from benchmarks import data
from benchmarks.bench_dask import cases
from benchmarks.harness import Table, main, tabulate

DEFAULTS = {"few": 2000, "many": 100_000, "rounds": 3, "in_a_task": 100}

_SHORT_SWEEPS = 3  # on either side of the long one


def run(*, few: int, many: int, rounds: int, in_a_task: int) -> list[Table]:
    """Compare what a run costs in sweeps of *few* misses and of *many*; the raw code does *in_a_task* in a task."""
    from distributed import Client, LocalCluster

    times: dict[str, list[float]] = {}
    with (
        LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=":0") as cluster,
        Client(cluster) as client,
    ):
        for _ in range(rounds):
            with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
                store = data.open_store(Path(folder), stack)
                raw = data.open_raw(Path(folder), stack)
                raw.execute("PRAGMA synchronous=FULL")
                raw_few, _, short = cases(store, client, raw, few, in_a_task).values()
                beside = cases(store, client, raw, many, in_a_task, first=many)
                raw_many, _, long = beside.values()
                for call in (raw_few, short):
                    call()  # once, for what is loaded then
                before = [_us(short, few) for _ in range(_SHORT_SWEEPS)]
                taken = _us(long, many)
                of_raw = _us(raw_many, many)
                after = [_us(short, few) for _ in range(_SHORT_SWEEPS)]
            for name, us in {
                "sweep(client), few runs": statistics.median(before + after),
                "sweep(client), many runs": taken,
                f"raw: client.map, many runs, {in_a_task} a task, synced and committed": of_raw,
            }.items():
                times.setdefault(name, []).append(us)
    return [tabulate(f"Dask, {many} runs in a sweep (many) and {few} (few), 2 workers", times)]


def _us(call: Callable[[], object], runs: int) -> float:
    begun = time.perf_counter()
    call()
    return (time.perf_counter() - begun) / runs * 1e6


if __name__ == "__main__":
    main("dask_many", run, __doc__, **DEFAULTS)
