"""Many short runs through one process, and through Dask: memory and file handles must not grow.

``python -m benchmarks.soak`` prints both after each tenth of the runs; nothing is written down.
"""

from __future__ import annotations

import argparse
import gc
import os
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

from benchmarks import data

TENTHS = 10


def main() -> None:
    """Read the sizes from the command line, and run both."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--runs", type=int, default=200_000)
    parser.add_argument("--only", choices=["process", "dask"])
    asked = parser.parse_args()
    for name, soak in (("process", _in_one_process), ("dask", _on_dask)):
        if asked.only in {None, name}:
            with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
                print(f"{asked.runs} runs, {name}")
                soak(Path(folder), stack, asked.runs)


def _in_one_process(folder: Path, stack: ExitStack, runs: int) -> None:
    store = data.open_store(folder, stack)

    def run(first: int, count: int) -> None:
        store.sweep(data.params(count, first=first), progress=False)

    _tenths(run, runs, [os.getpid()])


def _on_dask(folder: Path, stack: ExitStack, runs: int) -> None:
    from distributed import Client, LocalCluster

    cluster = stack.enter_context(
        LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=":0", processes=True)
    )
    client = stack.enter_context(Client(cluster))
    store = data.open_store(folder, stack)
    workers = list(client.run(os.getpid).values())

    def run(first: int, count: int) -> None:
        store.sweep(data.params(count, first=first), client, progress=False)

    _tenths(run, runs, [os.getpid(), *workers])


def _tenths(run: Callable[[int, int], None], runs: int, pids: list[int]) -> None:
    each = max(1, runs // TENTHS)
    for tenth in range(TENTHS):
        begun = time.perf_counter()
        run(tenth * each, each)
        seconds = time.perf_counter() - begun
        gc.collect()
        facts = ", ".join(f"{_resident_mb(pid):.0f} MB {_handles(pid)} handles" for pid in pids)
        print(f"{(tenth + 1) * each:>8} runs: {facts}; {each / seconds:.0f} runs a second", flush=True)


def _resident_mb(pid: int) -> float:
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def _handles(pid: int) -> int:
    return len(os.listdir(f"/proc/{pid}/fd"))


if __name__ == "__main__":
    main()
