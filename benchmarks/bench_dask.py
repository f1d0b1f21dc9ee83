"""A Dask sweep of trivial runs on two workers: against a raw `client.map` that writes, syncs and commits the same.

One task for a hundred runs, their files synced, and a commit of their rows as each task comes back, is what somebody
writes who knows that tasks cost and power fails. One task per run, with neither rows nor syncs, is what everybody
writes first. Neither survives a crash of the client.

Runs of a memoized function that return small values make no files: there a task appends what it returns to a file of
its own and syncs that.
"""

from __future__ import annotations

import itertools
import json
import os
import sqlite3
import tempfile
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks import data
from benchmarks.bench_values import memoized, score
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
        raw = data.open_raw(Path(folder), stack)
        raw.execute("PRAGMA synchronous=FULL")
        files = cases(store, client, raw, runs, in_a_task)
        function = memoized(Path(folder, "values"), stack)
        values = _values(function, Path(folder), client, raw, runs, in_a_task)
        return [
            compare(f"Dask, {runs} runs, 2 workers", files, rounds=rounds, operations=runs),
            compare(f"Dask, {runs} small values, 2 workers", values, rounds=rounds, operations=runs),
        ]


def cases(
    store: Store[data.Run],
    client: Any,
    raw: sqlite3.Connection,
    runs: int,
    in_a_task: int,
    *,
    first: int = 0,
) -> dict[str, Callable[[], object]]:
    """Return what is compared for runs with a file: each call is a sweep of *runs* misses, in a block of its own."""
    blocks = itertools.count(first, _IN_ONE_BLOCK)
    raw_blocks = itertools.count(first, _IN_ONE_BLOCK)

    def tasks(in_each: int) -> list[list[tuple[Any, ...]]]:
        sets = data.params(runs, first=next(raw_blocks))
        rows = [data.raw_row(one, str(store.results_dir.parent / f"raw-{one['n']}.bin")) for one in sets]
        return [rows[start : start + in_each] for start in range(0, runs, in_each)]

    def map_runs(in_each: int, *, is_durable: bool) -> None:
        futures = client.map(_write_all, tasks(in_each), is_durable=is_durable, pure=False)
        if not is_durable:
            client.gather(futures)
            return
        _commit_as_completed(raw, futures)

    return {
        f"raw: client.map, {in_a_task} runs a task, synced and committed": partial(
            map_runs, in_a_task, is_durable=True
        ),
        "raw: client.map, one run a task, neither": partial(map_runs, 1, is_durable=False),
        "sweep(client)": lambda: store.sweep(data.params(runs, first=next(blocks)), client),
    }


def _values(
    function: Any, folder: Path, client: Any, raw: sqlite3.Connection, runs: int, in_a_task: int
) -> dict[str, Callable[[], object]]:
    blocks = itertools.count(0, _IN_ONE_BLOCK)
    raw_blocks = itertools.count(_IN_ONE_BLOCK // 2, _IN_ONE_BLOCK)  # beside the runs with files

    def map_values() -> None:
        first = next(raw_blocks)
        sets = data.params(runs, first=first)
        tasks = [sets[start : start + in_a_task] for start in range(0, runs, in_a_task)]
        logs = [str(folder / f"raw-{first}-{number}.jsonl") for number in range(len(tasks))]
        _commit_as_completed(raw, client.map(_score_all, tasks, logs, pure=False))

    return {
        f"raw: client.map, {in_a_task} values a task, synced and committed": map_values,
        "sweep(client)": lambda: function.sweep(
            data.params(runs, first=next(blocks)), client, progress=False
        ),
    }


def _commit_as_completed(raw: sqlite3.Connection, futures: Sequence[Any]) -> None:
    from distributed import as_completed

    for _, rows in as_completed(futures, with_results=True):
        raw.execute("BEGIN IMMEDIATE")
        raw.executemany(data.RAW_INSERT, rows)
        raw.execute("COMMIT")


def _score_all(sets: Sequence[dict[str, Any]], log: str) -> Sequence[tuple[Any, ...]]:
    rows = [data.raw_row(one, str(score(**one))) for one in sets]
    with open(log, "w") as file:
        file.writelines(f"{json.dumps(row)}\n" for row in rows)
        file.flush()
        os.fsync(file.fileno())
    return rows


def _write_all(rows: Sequence[tuple[Any, ...]], *, is_durable: bool) -> Sequence[tuple[Any, ...]]:
    for _, path, *_ in rows:
        with open(path, "wb") as file:
            file.write(data.RESULT)
            if is_durable:
                file.flush()
                os.fsync(file.fileno())
    return rows


if __name__ == "__main__":
    main("dask", run, __doc__, **DEFAULTS)
