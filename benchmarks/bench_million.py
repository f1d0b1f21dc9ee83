"""A sweep of a million sets that are all there, in a process of its own: time for each, and memory beyond the records.

The baseline hashes all and selects the rows in chunks, and keeps them.
"""

from __future__ import annotations

import gc
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from benchmarks import bench_sweep, data
from benchmarks.harness import Measurement, Table, main

DEFAULTS = {"sets": 1_000_000, "rounds": 1}


def run(*, sets: int, rounds: int) -> list[Table]:
    """Sweep *sets* cached sets, and a tenth of them, *rounds* times each."""
    times, memory = [], []
    for count in (sets // 10, sets):
        with tempfile.TemporaryDirectory() as folder:
            _fill(Path(folder), count)
            measured = [
                (_measure(folder, count, "raw"), _measure(folder, count, "sweep")) for _ in range(rounds)
            ]
        for name, number in (("raw: hash all, sqlite3 SELECT in chunks", 0), ("sweep", 1)):
            us = [pair[number]["seconds"] / count * 1e6 for pair in measured]
            ratios = [pair[number]["seconds"] / pair[0]["seconds"] for pair in measured]
            middle = sorted(us)[len(us) // 2]
            times.append(
                (count, Measurement(name, rounds, middle, max(us), max(us), sorted(ratios)[len(ratios) // 2]))
            )
            most = max(pair[number]["beyond_bytes"] for pair in measured) / count
            of = name if count == sets else f"{name}, a tenth of the sets"
            memory.append(Measurement(of, rounds, most, most, most, most / 1000))
    return [
        *(
            Table(
                f"Sweep, {count} cached sets, a process of its own", [row for n, row in times if n == count]
            )
            for count in (sets // 10, sets)
        ),
        Table(
            "Memory at the peak beyond what is returned: bytes a set instead of µs, and × 1 kB",
            [Measurement("limit", rounds, 1000, 1000, 1000, 1.0), *memory],
        ),
    ]


def _fill(folder: Path, count: int) -> None:
    with ExitStack() as stack:
        sets = data.params(count)
        data.fill(data.open_store(folder, stack), sets)
        data.open_raw(folder, stack, sets)


def _measure(folder: str, count: int, what: str) -> dict[str, Any]:
    command = [sys.executable, "-m", "benchmarks.bench_million", "--child", folder, str(count), what]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def _child(folder: str, count: int, what: str) -> None:
    with ExitStack() as stack:
        sets = data.params(count)
        gc.collect()
        call: Callable[[], Any]
        if what == "sweep":
            store = data.open_store(Path(folder), stack)

            def call() -> Any:
                return store.sweep(sets, progress=False)
        else:
            call = bench_sweep.raw_sweep(data.connect_raw(Path(folder), stack), sets)
        _reset_peak()
        begun = time.perf_counter()
        kept = call()
        seconds = time.perf_counter() - begun
        peak, now = _memory("VmHWM"), _memory("VmRSS")
        print(json.dumps({"seconds": seconds, "beyond_bytes": max(0, peak - now), "kept": len(kept)}))


def _reset_peak() -> None:
    Path("/proc/self/clear_refs").write_text("5")


def _memory(field: str) -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1]) * 1024
    raise RuntimeError(f"/proc/self/status has no {field}")


if __name__ == "__main__":
    if sys.argv[1:2] == ["--child"]:
        _child(sys.argv[2], int(sys.argv[3]), sys.argv[4])
    else:
        main("million", run, __doc__, **DEFAULTS)
