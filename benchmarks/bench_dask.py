"""A Dask sweep of trivial runs on two workers: against a raw `client.map` of the same file writes.

One task for a hundred runs is what somebody writes who knows that tasks cost; one task per run is what everybody
writes first. Neither stores rows or survives a crash.
"""

from __future__ import annotations

import itertools
import tempfile
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from benchmarks import data
from benchmarks.harness import Table, compare, main
from entropic import Store

DEFAULTS = {"runs": 2000, "rounds": 3, "in_a_task": 100}

_IN_ONE_BLOCK = 10_000_000  # so that no two blocks of parameters share one


def run(*, runs: int, rounds: int, in_a_task: int) -> list[Table]:
    """Compare sweeps of *runs* misses; the baseline runs *in_a_task* of them in one task."""
    from distributed import Client, LocalCluster

    with (
        tempfile.TemporaryDirectory() as folder,
        ExitStack() as stack,
        LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=":0") as cluster,
        Client(cluster) as client,
    ):
        store = data.open_store(Path(folder), stack)
        cases = _cases(store, client, runs, in_a_task)
        return [compare(f"Dask, {runs} runs, 2 workers", cases, rounds=rounds, operations=runs)]


def _cases(store: Store[data.Run], client: Any, runs: int, in_a_task: int) -> dict[str, Callable[[], object]]:
    blocks = itertools.count(0, _IN_ONE_BLOCK)
    raw_blocks = itertools.count(0, _IN_ONE_BLOCK)

    def map_runs(in_each: int) -> None:
        first = next(raw_blocks)
        paths = [str(store.results_dir.parent / f"raw-{first + i}.bin") for i in range(runs)]
        tasks = [paths[start : start + in_each] for start in range(0, runs, in_each)]
        client.gather(client.map(_write_all, tasks, pure=False))

    return {
        f"raw: client.map, {in_a_task} runs a task": lambda: map_runs(in_a_task),
        "raw: client.map, one run a task": lambda: map_runs(1),
        "sweep(client)": lambda: store.sweep(data.params(runs, first=next(blocks)), client),
    }


def _write_all(paths: Sequence[str]) -> None:
    for path in paths:
        data.write_result({"result_file": path})


if __name__ == "__main__":
    main("dask", run, __doc__, **DEFAULTS)
