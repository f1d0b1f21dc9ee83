"""How long a claim goes without a beat while its runner holds the interpreter's lock.

The baseline is the interval between two beats, a sixth of the lease. Another process watches the claim's end in the
database, from the first beat on; the runner sits in one call of a C library that keeps the lock.
"""

from __future__ import annotations

import ctypes
import statistics
import subprocess
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from benchmarks import data
from benchmarks.harness import Measurement, Table, main

DEFAULTS = {"rounds": 5, "lease_s": 12, "run_s": 12}

_WATCH = """
import sqlite3, sys, threading, time
over = threading.Event()
threading.Thread(target=lambda: (sys.stdin.read(), over.set()), daemon=True).start()
raw = sqlite3.connect(sys.argv[1], timeout=30)
ends, beat_at, longest = None, None, 0.0
while not over.wait(0.005):
    row = raw.execute("SELECT expires_at FROM entropic_claims").fetchone()
    now = time.perf_counter()
    if row is None:
        continue
    if row[0] != ends:
        ends, beat_at = row[0], now
    longest = max(longest, now - beat_at)
print(longest)
"""


def run(*, rounds: int, lease_s: int, run_s: int) -> list[Table]:
    """Watch *rounds* runs of *run_s* seconds each, under a lease of *lease_s* seconds."""
    interval_us = lease_s / 6 * 1e6
    silences = [_longest_silence_s(lease_s, run_s) * 1e6 for _ in range(rounds)]
    median, longest = statistics.median(silences), max(silences)
    return [
        Table(
            f"Longest silence in a run of {run_s} s that holds the interpreter's lock, lease {lease_s} s",
            [
                Measurement("interval between beats", rounds, interval_us, interval_us, interval_us, 1.0),
                Measurement("longest silence", rounds, median, longest, longest, median / interval_us),
            ],
        )
    ]


def _longest_silence_s(lease_s: int, run_s: int) -> float:
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        store = data.open_store(Path(folder), stack, runner=_Holds(run_s), lease_s=lease_s)
        watch = subprocess.Popen(
            [sys.executable, "-c", _WATCH, str(store.database.url.database)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        with watch:
            store.run_or_retrieve(next(iter(data.params(1))))
            said, _ = watch.communicate()
        return float(said)


class _Holds:
    """Writes its result after it has kept the interpreter's lock for a while."""

    def __init__(self, seconds: int) -> None:
        self.seconds = seconds

    def __call__(self, params: dict[str, Any]) -> None:
        ctypes.PyDLL(None).usleep(self.seconds * 1_000_000)
        Path(params["result_file"]).write_bytes(data.RESULT)


if __name__ == "__main__":
    main("heartbeat", run, __doc__, **DEFAULTS)
