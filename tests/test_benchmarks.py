"""The benchmarks run, tiny: what they measure is nobody's promise, but they must not rot."""

import importlib
from pathlib import Path

import pytest

import benchmarks
from benchmarks import harness

TINY = {
    "bench_lookup": {"rows": 5, "many_rows": 8, "rounds": 3, "calls": 3},
    "bench_memoize": {"entries": 4, "rounds": 3, "calls": 2, "large_entries": 2, "large_calls": 1},
    "bench_miss": {"rounds": 3, "calls": 1, "sweep": 4, "sweep_rounds": 3, "batch": 2},
    "bench_sweep": {"few": 5, "many": 8, "rounds": 3},
    "bench_dask": {"runs": 4, "rounds": 3, "in_a_task": 2},
    "bench_import": {"rounds": 3},
    "bench_weights": {"rounds": 3, "small": 3, "small_kb": 1, "large": 2, "large_kb": 2},
    "bench_heartbeat": {"rounds": 3, "lease_s": 3, "run_s": 1},
    "bench_stats": {"iterations": 20, "batch": 5, "rounds": 3},
}


def test_every_benchmark_is_listed_here():
    there = {path.stem for path in Path(benchmarks.__file__).parent.glob("bench_*.py")}

    assert there == set(TINY)


@pytest.mark.slow
@pytest.mark.parametrize("name", TINY)
def test_benchmark_when_tiny_measures_every_case(name):
    module = importlib.import_module(f"benchmarks.{name}")

    tables = module.run(**TINY[name])

    assert set(TINY[name]) == set(module.DEFAULTS)
    assert all(row.n >= 3 and row.median > 0 for table in tables for row in table.rows)
    assert all(table.rows[0].ratio == 1 and len(table.rows) > 1 for table in tables)


@pytest.mark.slow
def test_written_results_name_machine_versions_and_commit(tmp_path):
    table = harness.compare("Nothing", {"one": dict, "two": list}, rounds=3)

    text = harness.write("nothing", [table], folder=tmp_path).read_text()

    assert "Machine: " in text
    assert "SQLite " in text
    assert "Commit " in text
    assert "| two | 3 |" in text
