"""Sweeps of sizes at which a statement, a list or a folder that grows with the sweep would show."""

import logging
import resource
import subprocess
import sys
import time
from pathlib import Path

import pytest

from entropic import Store
from tests.support.counting import statements
from tests.support.stores import open_store
from tests.support.sweep_runs import ROOT, Swept, files

pytestmark = pytest.mark.slow

log = logging.getLogger(__name__)

CACHED = 100_000
MISSES = 10_000


def write_little(params):
    Path(params["result_file"]).write_text(str(params["n"]))
    return {"square": params["n"] ** 2.0}


def refuse(params):
    raise AssertionError("nothing is to be run")


def fill(store: Store[Swept], folder: Path, count: int) -> None:
    """Write the rows, file records and empty results of *count* runs, as a sweep would have left them."""
    from datetime import UTC, datetime

    from sqlalchemy import insert

    from entropic.sql.tables import FileRow

    root = folder / "results"
    empty = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    for start in range(0, count, 10_000):
        numbers = range(start, min(start + 10_000, count))
        keys = [store.key({"n": n}) for n in numbers]
        rows = [
            {
                "id": key, "n": n, "x": 0.5, "label": None, "square": n * n, "custom_data": {},
                "result_file": str(root / f"{key}.json"), "created_at": datetime.now(UTC),
            }
            for key, n in zip(keys, numbers, strict=True)
        ]  # fmt: skip
        records = [
            {
                "table_name": "swept", "record_id": key, "attempt": None, "name": f"{key}.json", "size_bytes": 0,
                "sha256": empty,
            }
            for key in keys
        ]  # fmt: skip
        with store.database.engine.begin() as connection:
            connection.execute(insert(Swept.__table__), rows)
            connection.execute(insert(FileRow.__table__), records)
        for key in keys:
            (root / f"{key}.json").touch()


def peak_mb():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def say(capsys, what, count, seconds):
    with capsys.disabled():
        print(
            f"\n{what}: {seconds:.1f} s, {1e6 * seconds / count:.0f} µs each, peak {peak_mb():.0f} MB",
            flush=True,
        )


def test_sweep_of_100_000_cached_sets_keeps_their_order(tmp_path, capsys):
    store = open_store(Swept, tmp_path, refuse)
    fill(store, tmp_path, CACHED)
    order = [(n * 7919) % CACHED for n in range(CACHED)]  # 7919 is prime: a permutation

    with statements(store.database.engine) as seen:
        started = time.perf_counter()
        result = store.sweep({"n": n} for n in order)
        seconds = time.perf_counter() - started

    say(capsys, "100 000 cached", CACHED, seconds)
    assert [record.n for record in result] == order
    assert all(statement.startswith("SELECT") for statement in seen)
    assert len(seen) <= CACHED / 400
    assert max(len(statement) for statement in seen) < 100_000
    assert seconds < 120


def check_misses(store, folder, order, result):
    assert [record.n for record in result] == order
    assert store.count() == len(files(folder)) == len(order)
    assert store.sweep([{"n": order[0]}])[0].square == float(order[0] ** 2)


def test_sweep_of_10_000_misses_serial(tmp_path, capsys):
    store = open_store(Swept, tmp_path, write_little)
    order = [(n * 7919) % MISSES for n in range(MISSES)]

    started = time.perf_counter()
    result = store.sweep({"n": n} for n in order)
    seconds = time.perf_counter() - started

    say(capsys, "10 000 misses, serial, SQLite", MISSES, seconds)
    check_misses(store, tmp_path, order, result)
    assert seconds < 120


def test_sweep_of_10_000_misses_on_dask(tmp_path, capsys, dask_client):
    store = open_store(Swept, tmp_path, write_little)
    order = [(n * 7919) % MISSES for n in range(MISSES)]

    started = time.perf_counter()
    result = store.sweep(({"n": n} for n in order), dask_client)
    seconds = time.perf_counter() - started

    say(capsys, "10 000 misses, Dask, SQLite", MISSES, seconds)
    check_misses(store, tmp_path, order, result)
    assert seconds < 180


def test_sweep_of_10_000_misses_on_postgresql(tmp_path, capsys, postgres_url):
    store = open_store(Swept, tmp_path, write_little, postgres_url)
    order = [(n * 7919) % MISSES for n in range(MISSES)]

    started = time.perf_counter()
    result = store.sweep({"n": n} for n in order)
    seconds = time.perf_counter() - started

    say(capsys, "10 000 misses, serial, PostgreSQL", MISSES, seconds)
    check_misses(store, tmp_path, order, result)
    assert seconds < 180


MEMORY = """
import resource, sys
from pathlib import Path
from tests.sweeps.test_sweep_scale import Swept, open_store, write_little

def peak(): return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024

folder = Path(sys.argv[1])
store = open_store(Swept, folder, write_little)
store.sweep({"n": n} for n in range(500))
before = peak()
count = len(store.sweep({"n": n} for n in range(int(sys.argv[2]))))
print(count, peak() - before)
"""


def test_sweep_holds_little_more_in_memory_than_its_records(tmp_path):
    ran = subprocess.run(
        [sys.executable, "-c", MEMORY, str(tmp_path), str(MISSES)],
        env={"PYTHONPATH": str(ROOT)}, capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    count, grown_mb = ran.stdout.split()

    assert ran.stderr == ""
    assert int(count) == MISSES
    assert float(grown_mb) < 100, f"{float(grown_mb):.0f} MB for {count} records"
