"""Weights of a network: stored so that a power cut does not lose them, and read back.

The baseline is the disk: the bytes of all arrays in one file, with fsync, and read into arrays again. Entropic writes
HDF5, makes a digest of the file, and commits a row. safetensors, where it is installed, writes a header and the bytes;
an fsync is added.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import data
from benchmarks.harness import Table, compare, main
from entropic.weights_store import LocalWeightsStore, Weights

DEFAULTS = {"rounds": 7, "small": 1000, "small_kb": 200, "large": 20, "large_kb": 10_000}


def run(*, rounds: int, small: int, small_kb: int, large: int, large_kb: int) -> list[Table]:
    """Compare storing and reading *small* arrays of *small_kb* kB, and *large* ones of *large_kb*."""
    tables = []
    for count, size_kb in ((small, small_kb), (large, large_kb)):
        with (
            tempfile.TemporaryDirectory(dir=os.environ.get("ENTROPIC_BENCH_DIR")) as folder,
            ExitStack() as stack,
        ):
            arrays = _arrays(count, size_kb)
            write, read = _cases(Path(folder), stack, arrays)
            tables += [
                compare(f"Store {count} arrays of {size_kb} kB", write, rounds=rounds),
                compare(f"Read {count} arrays of {size_kb} kB, from the page cache", read, rounds=rounds),
            ]
    return tables


def _arrays(count: int, size_kb: int) -> dict[str, Any]:
    rng = np.random.default_rng(data.SEED)
    return {f"layers.{n}.weight": rng.random(size_kb * 250, dtype="f4") for n in range(count)}


def _cases(
    folder: Path, stack: ExitStack, arrays: dict[str, Any]
) -> tuple[dict[str, Callable[[], object]], dict[str, Callable[[], object]]]:
    store = LocalWeightsStore(folder / "weights")
    stack.callback(store.database.dispose)
    weights = Weights(arrays)
    path = folder / "raw.bin"

    def write_raw() -> None:
        with path.open("wb") as file:
            for array in arrays.values():
                file.write(array.data)
            file.flush()
            os.fsync(file.fileno())

    def read_raw() -> list[Any]:
        found = []
        with path.open("rb", buffering=0) as file:
            for array in arrays.values():
                found.append(np.empty_like(array))
                file.readinto(found[-1])
        return found

    safe_write, safe_read = _peers(folder, arrays)
    write = {
        "raw: one file and fsync": write_raw,
        **safe_write,
        "store_weights": lambda: store.store_weights("run", 0, weights),
    }
    read = {
        "raw: one file": read_raw,
        **safe_read,
        "retrieve_weights": lambda: store.retrieve_weights("run", 0),
        "retrieve_weights(verify=True)": lambda: store.retrieve_weights("run", 0, verify=True),
        "retrieve_weights(lazy=True), one array": lambda: _read_one(store),
    }
    return write, read


def _peers(
    folder: Path, arrays: dict[str, Any]
) -> tuple[dict[str, Callable[[], object]], dict[str, Callable[[], object]]]:
    try:
        from safetensors.numpy import load_file, save_file
    except ImportError:
        return {}, {}
    path = str(folder / "peer.safetensors")

    def write() -> None:
        save_file(arrays, path)
        with open(path, "rb") as file:
            os.fsync(file.fileno())

    return {"safetensors: save_file and fsync": write}, {"safetensors: load_file": lambda: load_file(path)}


def _read_one(store: LocalWeightsStore) -> Any:
    with store.retrieve_weights("run", 0, lazy=True) as weights:
        return next(iter(weights.model.values())).load()


if __name__ == "__main__":
    main("weights", run, __doc__, **DEFAULTS)
